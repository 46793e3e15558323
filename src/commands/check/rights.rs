//! What the brokers let this client do with topics that are there. Where one is to be created, nobody can tell before it is.

use std::sync::Arc;

use publisher::TopicRights;
use tokio::task::spawn_blocking;

use super::{
    id::CheckId,
    kafka::{Kafka, Reached},
    report::{Problem, Severity, counted, some_of},
};
use crate::config::SchemaRegistry;

impl Kafka {
    /// Asks the brokers what they would allow, of these topics and of those that pgsluice keeps for itself.
    pub(super) async fn rights(&mut self, reached: &Reached, of_tables: &[&str]) {
        let mut own = vec![self.config.kafka.checkpoint_topic.as_str()];
        if let SchemaRegistry::BuiltIn { topic } = &self.config.schema_registry
            && self.config.needs_registry()
        {
            own.push(topic.as_str());
        }
        let is_there = |topic: &&str| reached.cluster.topics.contains_key(*topic);
        let read: Vec<String> = own.into_iter().filter(is_there).map(str::to_owned).collect();
        let topics: Vec<String> = of_tables.iter().map(ToString::to_string).chain(read.iter().cloned()).collect();
        if topics.is_empty() {
            return;
        }
        let probe = Arc::clone(&reached.probe);
        let asking = spawn_blocking(move || {
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            probe.topic_rights(&topics)
        });
        let rights = match asking.await {
            Ok(Ok(rights)) => rights,
            Ok(Err(error)) => return self.unknown_rights(&error.to_string()),
            Err(panicked) => return self.unknown_rights(&panicked.to_string()),
        };
        let acls = self.tool("kafka-acls.sh");
        for (topic, TopicRights { may_read, may_write }) in &rights {
            let lacking = [(!may_write, "WRITE", "Write"), (!may_read && read.contains(topic), "READ", "Read")];
            for (_, right, operation) in lacking.into_iter().filter(|(is_lacking, ..)| *is_lacking) {
                let problem = Problem {
                    id: CheckId::TopicRights.into(),
                    found: format!("the brokers do not grant {right} to this client"),
                    why: "the stream stops with kafka-denied as soon as it needs it".into(),
                    fix: format!(
                        "{acls} --add --allow-principal User:NAME --operation {operation} --operation Describe --topic {topic}; and see \
                         that no ACL denies it: {acls} --list --topic {topic}"
                    ),
                };
                self.findings.about(Severity::Error, topic, problem);
            }
        }
        if !self.findings.has(CheckId::TopicRights) {
            let name = self.config.name.as_str();
            let found = match rights.len() {
                0 => "the brokers do not say what they grant".to_owned(),
                count => format!(
                    "WRITE on {}; whether on the transactional id {name} too, only its use would tell",
                    counted(count, "topic")
                ),
            };
            self.findings.ok(CheckId::TopicRights, found);
        }
    }

    /// Topics that are there, and that the brokers do not name to this client.
    pub(super) fn hidden(&mut self, topics: &[&String]) {
        self.findings.error(Problem {
            id: CheckId::TopicRights.into(),
            found: format!(
                "{} are there, and the brokers do not show them to this client: it lacks DESCRIBE",
                some_of(topics, 5)
            ),
            why: "the stream stops with kafka-denied at the first change of their tables".into(),
            fix: format!(
                "for each of them {} --add --allow-principal User:NAME --operation Describe --operation Write --topic TOPIC",
                self.tool("kafka-acls.sh")
            ),
        });
    }

    fn unknown_rights(&mut self, found: &str) {
        self.findings.warning(Problem {
            id: CheckId::TopicRights.into(),
            found: format!("the brokers cannot be asked what they grant: {found}"),
            why: "whether the stream may write was not checked".into(),
            fix: "see the brokers' logs, and run the check again".into(),
        });
    }
}
