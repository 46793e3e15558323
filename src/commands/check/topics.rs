//! Topics: as they are, or as they would be created.

use std::{collections::BTreeMap, sync::Arc};

use publisher::{Creation, PublishError, TopicSettings, TopicShape};
use tokio::task::spawn_blocking;

use super::{
    id::CheckId,
    kafka::{Kafka, Reached, incomplete, number},
    report::{Problem, Severity, bytes_text, counted, grouped, some_of},
    schemas::Schemas,
};
use crate::pipeline::configure_command;

/// librdkafka's default.
const MESSAGE_MAX_BYTES: i64 = 1_000_000;

impl Kafka {
    /// The topics of the tables.
    pub(super) async fn examine_topics(&mut self, schemas: &Schemas) {
        let Some(reached) = self.reached.take() else { return };
        let topics = schemas.topics();
        let is_there = |topic: &&str| reached.cluster.topics.contains_key(*topic);
        let (existing, missing): (Vec<&str>, Vec<&str>) = topics.into_iter().partition(is_there);
        self.existing(&reached, &existing, schemas).await;
        self.rights(&reached, &existing).await;
        self.letters_max_bytes(schemas);
        for (partitions, missing) in grouped(missing.into_iter().map(|topic| (schemas.partitions(topic), topic))) {
            self.missing(&reached, &missing, partitions).await;
        }
        self.reached = Some(reached);
    }

    async fn existing(&mut self, reached: &Reached, topics: &[&str], schemas: &Schemas) {
        if topics.is_empty() {
            return;
        }
        let shapes: Vec<(&str, TopicShape)> =
            topics.iter().filter_map(|topic| Some((*topic, *reached.cluster.topics.get(*topic)?))).collect();
        for (topic, shape) in &shapes {
            let own = schemas.partitions(topic);
            let wanted = own.or(self.config.kafka.topics.partitions).and_then(|count| usize::try_from(count).ok());
            let Some(wanted) = wanted.filter(|wanted| *wanted != shape.partitions) else { continue };
            let key = if own.is_some() { "partitions in its [[tables]]" } else { "kafka.topics.partitions" };
            let problem = Problem {
                id: CheckId::TopicPartitions.into(),
                found: format!("it has {} partitions, and {key} is {wanted}", shape.partitions),
                why: "an existing topic is used as it is: another number would send a key to another partition, and break its order"
                    .into(),
                fix: format!("set {key} = {}, or leave it", shape.partitions),
            };
            self.findings.about(Severity::Warning, topic, problem);
        }
        for (topic, shape) in shapes.iter().filter(|(_, shape)| shape.leaderless > 0) {
            let problem = Problem {
                id: CheckId::TopicLeader.into(),
                found: format!("{} of {} partitions have no leader", shape.leaderless, shape.partitions),
                why: "nothing can be written to them, and the stream waits".into(),
                fix: "start the brokers that hold their replicas".into(),
            };
            self.findings.about(Severity::Error, topic, problem);
        }
        let settings = self.topic_settings(reached, topics).await;
        self.durability(&shapes, &settings);
        let smallest = settings.values().filter_map(|settings| number(settings, "max.message.bytes")).min();
        self.message_bytes(smallest);
        let names: Vec<_> = shapes.iter().map(|(topic, _)| topic).collect();
        self.findings.ok(CheckId::Topics, format!("{} there: {}", counted(names.len(), "topic"), some_of(&names, 5)));
    }

    async fn missing(&mut self, reached: &Reached, topics: &[&str], partitions: Option<i32>) {
        if topics.is_empty() {
            return;
        }
        let configured = &self.config.kafka.topics;
        let settings = TopicSettings {
            partitions: partitions.or(configured.partitions).unwrap_or(-1),
            replication_factor: configured.replication_factor.map_or(-1, i32::from),
            config: configured.config.clone(),
        };
        let replicas = configured.replication_factor.map(i64::from).or(reached.number("default.replication.factor"));
        let partitions = partitions.or(configured.partitions).map(i64::from).or(reached.number("num.partitions"));
        let mut as_created = reached.broker.clone();
        as_created.extend(settings.config.clone());
        if !self.creatable(reached, topics, &settings).await {
            return;
        }
        let shown =
            |count: Option<i64>| count.map_or_else(|| "the brokers' default".to_owned(), |count| count.to_string());
        self.findings.ok(
            CheckId::TopicsToCreate,
            format!(
                "run creates {} (partitions: {}, replicas: {})",
                some_of(topics, 5),
                shown(partitions),
                shown(replicas)
            ),
        );
        if let Some(replicas) = replicas.and_then(|replicas| usize::try_from(replicas).ok()) {
            let shape = TopicShape { partitions: 1, replication_factor: replicas, leaderless: 0 };
            let name = format!("{} to be created", counted(topics.len(), "topic"));
            let settings = BTreeMap::from([(name.clone(), as_created.clone())]);
            self.durability(&[(&name, shape)], &settings);
        }
        self.message_bytes(number(&as_created, "max.message.bytes").or(number(&as_created, "message.max.bytes")));
    }

    /// Whether the brokers would create the topics; what they have against it is noted.
    pub(super) async fn creatable(&mut self, reached: &Reached, topics: &[&str], settings: &TopicSettings) -> bool {
        let (probe, settings) = (Arc::clone(&reached.probe), settings.clone());
        let names: Vec<String> = topics.iter().map(ToString::to_string).collect();
        let asking = spawn_blocking(move || {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let verdicts = probe.validate_topics(&names, &settings)?;
            // An instance that runs may have made some of them since it was asked which there are.
            let is_hidden = verdicts.iter().any(|(_, found)| *found == Creation::Exists);
            let now = if is_hidden { probe.cluster()?.topics } else { BTreeMap::new() };
            Ok::<_, PublishError>((verdicts, now))
        });
        let (verdicts, now) = match asking.await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => {
                self.findings.error(incomplete(&error.to_string()));
                return false;
            }
            Err(panicked) => {
                self.findings.error(incomplete(&panicked.to_string()));
                return false;
            }
        };
        let is_hidden = |(topic, found): &&(String, Creation)| *found == Creation::Exists && !now.contains_key(topic);
        let hidden: Vec<&String> = verdicts.iter().filter(is_hidden).map(|(topic, _)| topic).collect();
        if !hidden.is_empty() {
            self.hidden(&hidden);
        }
        let is_hidden = !hidden.is_empty();
        let refused = grouped(verdicts.into_iter().filter_map(|(topic, found)| match found {
            Creation::Refused(reason) => Some((reason, topic)),
            Creation::Possible | Creation::Exists => None,
        }));
        for (reason, topics) in &refused {
            self.findings.error(Problem {
                id: CheckId::TopicCreation.into(),
                found: format!("the brokers would not create {}: {reason}", some_of(topics, 5)),
                why: "the stream stops at the first change of a table without its topic".into(),
                fix: "correct kafka.topics (partitions, replication_factor, config), grant CREATE on the topics, or create them by hand"
                    .into(),
            });
        }
        refused.is_empty() && !is_hidden
    }

    pub(super) async fn topic_settings(
        &mut self,
        reached: &Reached,
        topics: &[&str],
    ) -> BTreeMap<String, BTreeMap<String, String>> {
        let probe = Arc::clone(&reached.probe);
        let names: Vec<String> = topics.iter().map(ToString::to_string).collect();
        let asking = spawn_blocking(move || {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            probe.topic_settings(&names)
        });
        let found = match asking.await {
            Ok(Ok(settings)) => return settings,
            Ok(Err(error)) => error.to_string(),
            Err(panicked) => panicked.to_string(),
        };
        self.findings.warning(Problem {
            id: CheckId::KafkaTopicSettings.into(),
            found: format!("the settings of {} cannot be read: {found}", some_of(topics, 3)),
            why: "whether they fit was not checked".into(),
            fix: "grant DESCRIBE_CONFIGS on the topics".into(),
        });
        BTreeMap::new()
    }

    /// Whether what was acknowledged outlives a broker.
    pub(super) fn durability(
        &mut self,
        topics: &[(&str, TopicShape)],
        settings: &BTreeMap<String, BTreeMap<String, String>>,
    ) {
        let (mut single, mut lonely, mut closed) = (Vec::new(), Vec::new(), Vec::new());
        for (topic, shape) in topics {
            let in_sync = settings.get(*topic).and_then(|settings| number(settings, "min.insync.replicas"));
            let in_sync = in_sync.and_then(|count| usize::try_from(count).ok());
            match (shape.replication_factor, in_sync) {
                (replicas, Some(in_sync)) if in_sync > replicas => {
                    closed.push(format!("{topic} ({in_sync} of {replicas})"));
                }
                (1, _) => single.push(*topic),
                (_, Some(1)) => lonely.push(*topic),
                _ => {}
            }
        }
        if !closed.is_empty() {
            self.findings.error(Problem {
                id: CheckId::TopicMinInsyncReplicas.into(),
                found: format!("min.insync.replicas is more than there are replicas: {}", some_of(&closed, 5)),
                why: "the brokers take no record".into(),
                fix: format!("{}, or give it more replicas", self.configure("min.insync.replicas=1")),
            });
        }
        if !single.is_empty() {
            self.findings.warning(Problem {
                id: CheckId::TopicReplicationFactor.into(),
                found: format!("one replica only: {}", some_of(&single, 5)),
                why: "when its broker is lost, so is what was acknowledged and confirmed to PostgreSQL".into(),
                fix:
                    "set kafka.topics.replication_factor = 3 before the first start; later kafka-reassign-partitions.sh"
                        .into(),
            });
        }
        if !lonely.is_empty() {
            self.findings.warning(Problem {
                id: CheckId::TopicMinInsyncReplicas.into(),
                found: format!("min.insync.replicas is 1: {}", some_of(&lonely, 5)),
                why: "a record is acknowledged while one broker alone has it, and is lost with it".into(),
                fix: format!(
                    "set config = {{ \"min.insync.replicas\" = \"2\" }} in [kafka.topics] before the first start; later {}",
                    self.configure("min.insync.replicas=2")
                ),
            });
        }
    }

    /// How a topic gets a setting.
    fn configure(&self, setting: &str) -> String {
        configure_command(&self.settings.bootstrap_servers, "TOPIC", setting)
    }

    fn message_bytes(&mut self, taken: Option<i64>) {
        let sent = self.number("message.max.bytes").unwrap_or(MESSAGE_MAX_BYTES);
        let Some(taken) = taken else { return };
        if sent > taken {
            self.findings.warning(Problem {
                id: CheckId::MessageMaxBytes.into(),
                found: format!(
                    "message.max.bytes is {}, and the smallest limit of the topics is {}",
                    bytes_text(sent),
                    bytes_text(taken)
                ),
                why: "a record in between is sent and refused, and stops the stream".into(),
                fix: format!(
                    "for each such topic {}; for those to be created, set it in [kafka.topics] config",
                    self.configure(&format!("max.message.bytes={sent}"))
                ),
            });
        } else if !self.findings.has(CheckId::MessageMaxBytes) {
            self.findings
                .ok(CheckId::MessageMaxBytes, format!("{}: a larger record stops the stream", bytes_text(sent)));
        }
    }
}
