//! Kafka: the cluster, the checkpoint topic with the checkpoint in it, and the topic of schemas.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use publisher::{
    Cause, Checkpoint, CheckpointTopic, Cluster, ClusterProbe, Held, KafkaSettings, PublishError, TopicSettings,
    Verdict,
};
use tokio::{runtime::Handle, task::spawn_blocking};

use super::{
    REQUEST_TIMEOUT, STEP_TIMEOUT,
    id::{CheckId, Id},
    report::{Findings, Problem, Severity, System, counted, seconds_text},
};
use crate::{
    config::{Config, SchemaRegistry, broker_host, has_sasl_without_tls},
    failure::Code,
    pipeline::configure_command,
};

/// librdkafka's default.
const TRANSACTION_TIMEOUT_MS: i64 = 60_000;

/// What is known of Kafka.
pub(super) struct Kafka {
    pub(super) findings: Findings,
    pub(super) config: Arc<Config>,
    pub(super) settings: KafkaSettings,
    pub(super) reached: Option<Reached>,
}

/// What is known of the checkpoint.
pub(super) enum HeldCheckpoint {
    /// It could not be read.
    Unknown,
    /// Kafka holds this, or none.
    Known(Option<Box<Checkpoint>>),
}

/// A topic that is kept by pgsluice itself, as it is told of.
struct CompactedTopic {
    id: CheckId,
    topic: String,
    what: &'static str,
    setting: &'static str,
}

/// A cluster that answers.
pub(super) struct Reached {
    pub(super) probe: Arc<ClusterProbe>,
    pub(super) cluster: Cluster,
    /// A broker's settings; empty if they may not be read.
    pub(super) broker: BTreeMap<String, String>,
}

impl Kafka {
    pub(super) fn new(config: Arc<Config>, settings: KafkaSettings) -> Self {
        Self { findings: Findings::new(System::Kafka), config, settings, reached: None }
    }

    /// Everything that the cluster alone can tell.
    pub(super) async fn examine(&mut self) {
        let (version, good) = KafkaSettings::librdkafka();
        if good {
            self.findings.ok(CheckId::Librdkafka, version);
        } else {
            self.findings.error(Problem {
                id: CheckId::Librdkafka.into(),
                found: format!("librdkafka {version} is older than 2.5.0"),
                why: "its transactions can lose or tear records".into(),
                fix: "build pgsluice with a newer librdkafka".into(),
            });
        }
        if !self.properties() {
            return;
        }
        self.encryption();
        let Some(reached) = self.reach().await else { return };
        self.cluster(&reached);
        self.transactions(&reached);
        let checkpoints = CompactedTopic {
            id: CheckId::CheckpointTopic,
            topic: self.config.kafka.checkpoint_topic.as_str().to_owned(),
            what: "checkpoints",
            setting: "kafka.checkpoint_topic",
        };
        self.compacted_topic(&reached, &checkpoints).await;
        if let SchemaRegistry::BuiltIn { topic } = self.config.schema_registry.clone()
            && self.config.needs_registry()
        {
            let topic = topic.as_str().to_owned();
            let schemas =
                CompactedTopic { id: CheckId::SchemaTopic, topic, what: "schemas", setting: "schema_registry.topic" };
            self.compacted_topic(&reached, &schemas).await;
        }
        self.reached = Some(reached);
    }

    /// The checkpoint, read without fencing anybody.
    pub(super) async fn read_checkpoint(&mut self) -> HeldCheckpoint {
        let topic = CheckpointTopic::new(self.config.kafka.checkpoint_topic.as_str());
        match self.reached.as_ref().map(|reached| reached.cluster.topics.get(topic.name())) {
            None => return HeldCheckpoint::Unknown,
            // Nothing was ever written.
            Some(None) => return HeldCheckpoint::Known(None),
            Some(Some(shape)) if shape.partitions != 1 => return HeldCheckpoint::Unknown,
            Some(Some(_)) => {}
        }
        let settings = self.settings.clone();
        let reading = spawn_blocking(move || topic.read(&settings));
        match tokio::time::timeout(STEP_TIMEOUT, reading).await {
            Ok(Ok(Ok(Held { checkpoint, attachments, .. }))) => {
                if let Some(reached) = self.reached.take() {
                    self.quarantine(&reached, &attachments).await;
                    self.reached = Some(reached);
                }
                self.findings.ok(
                    CheckId::Checkpoint,
                    checkpoint.as_ref().map_or_else(|| "none yet".to_owned(), checkpoint_text),
                );
                HeldCheckpoint::Known(checkpoint.map(Box::new))
            }
            Ok(Ok(Err(error))) => {
                let problem = self.unreadable(&error);
                self.findings.error(problem);
                HeldCheckpoint::Unknown
            }
            Ok(Err(_)) | Err(_) => {
                self.findings.warning(Problem {
                    id: CheckId::CheckpointUnreadable.into(),
                    found: format!("the checkpoint could not be read within {}", seconds_text(STEP_TIMEOUT)),
                    why: "most often a transaction is still open on the topic, left by an instance that was killed: run ends its own, and \
                          those of others end at their timeout"
                        .into(),
                    fix: "run the check again in a minute".into(),
                });
                HeldCheckpoint::Unknown
            }
        }
    }

    /// Whether librdkafka takes the properties.
    fn properties(&mut self) -> bool {
        let refused = self.settings.refused_properties();
        for property in &refused {
            let problem = Problem {
                id: CheckId::KafkaProperty.into(),
                found: property.reason.clone(),
                why: "no client can be made with it".into(),
                fix: format!(
                    "correct {} in kafka.properties: see librdkafka's CONFIGURATION.md",
                    property.name.as_deref().unwrap_or("what is named")
                ),
            };
            match &property.name {
                Some(name) => self.findings.about(Severity::Error, name, problem),
                None => self.findings.error(problem),
            }
        }
        if refused.is_empty() {
            let text = match self.settings.properties.len() {
                0 => "none set in kafka.properties".to_owned(),
                count => format!("{count} set in kafka.properties, and librdkafka takes them"),
            };
            self.findings.ok(CheckId::KafkaProperty, text);
        }
        refused.is_empty()
    }

    fn encryption(&mut self) {
        let property = |name: &str| self.settings.properties.get(name).map(|text| text.trim().to_ascii_lowercase());
        let protocol = property("security.protocol").unwrap_or_default();
        let servers = self.settings.bootstrap_servers.split(',').map(str::trim);
        let is_local = servers.map(broker_host).all(walreceiver::is_loopback);
        let unverified =
            [("enable.ssl.certificate.verification", "false"), ("ssl.endpoint.identification.algorithm", "none")]
                .into_iter()
                .find(|(name, value)| property(name).as_deref() == Some(value));
        if let Some((name, value)) = unverified.filter(|_| protocol.ends_with("ssl") && !is_local) {
            self.findings.warning(Problem {
                id: CheckId::KafkaTls.into(),
                found: format!("TLS with Kafka proves nothing about the brokers ({name} is {value})"),
                why: "whoever sits between can pose as a broker, and read and change every row".into(),
                fix: format!("leave \"{name}\" out of kafka.properties, and set \"ssl.ca.location\" to the file of the brokers' authority"),
            });
        }
        if protocol == "sasl_plaintext" && !is_local {
            self.findings.warning(Problem {
                id: CheckId::KafkaTls.into(),
                found: "security.protocol is sasl_plaintext".into(),
                why: "credentials and rows cross the network readable".into(),
                fix: "set \"security.protocol\" = \"sasl_ssl\" in kafka.properties, with the port of an encrypted listener".into(),
            });
        }
    }

    async fn reach(&mut self) -> Option<Reached> {
        let settings = self.settings.clone();
        let runtime = Handle::current();
        let kafka = &self.config.kafka;
        let must_stay = has_sasl_without_tls(&kafka.properties) && !kafka.allow_plaintext_credentials;
        let asking = spawn_blocking(move || {
            // Where there is more to a connection than that it is open, it is asked first what is in its way.
            if settings.proves_something() {
                match settings.diagnose(REQUEST_TIMEOUT) {
                    Err(Some(cause @ (Cause::Untrusted { .. } | Cause::Denied { .. }))) => {
                        return Err(Unreached::Refused(cause));
                    }
                    Ok(hosts) if must_stay => {
                        if let Some(host) = hosts.into_iter().find(|host| !walreceiver::is_loopback(host)) {
                            return Err(Unreached::Elsewhere(host));
                        }
                    }
                    _ => {}
                }
            }
            let probe = ClusterProbe::new(&settings, runtime, REQUEST_TIMEOUT).map_err(Unreached::Failed)?;
            let cluster = probe.cluster().map_err(Unreached::Failed)?;
            let broker = cluster.brokers.first().map_or(Ok(BTreeMap::new()), |broker| probe.broker_settings(*broker));
            Ok((probe, cluster, broker))
        });
        let servers = self.settings.bootstrap_servers.clone();
        let (probe, cluster, broker) = match asking.await {
            Ok(Ok(reached)) => reached,
            Ok(Err(unreached)) => {
                self.findings.error(unreached.problem(&servers));
                return None;
            }
            Err(panicked) => {
                self.findings.error(incomplete(&panicked.to_string()));
                return None;
            }
        };
        let version = broker.as_ref().ok().and_then(|broker| broker.get("inter.broker.protocol.version"));
        self.findings.ok(
            CheckId::KafkaReachable,
            format!(
                "{} at {servers}, cluster id {}{}",
                counted(cluster.brokers.len(), "broker"),
                cluster.id.as_deref().unwrap_or("unknown"),
                version.map(|version| format!(", protocol {version}")).unwrap_or_default()
            ),
        );
        let broker = broker.unwrap_or_else(|error| {
            self.findings.warning(Problem {
                id: CheckId::KafkaBrokerSettings.into(),
                found: format!("the brokers' settings cannot be read: {error}"),
                why: "whether they fit was not checked".into(),
                fix: "grant DESCRIBE_CONFIGS on the cluster, or compare transaction.max.timeout.ms, message.max.bytes and \
                      min.insync.replicas by hand"
                    .into(),
            });
            BTreeMap::new()
        });
        Some(Reached { probe: Arc::new(probe), cluster, broker })
    }

    fn cluster(&mut self, reached: &Reached) {
        match reached.broker.get("auto.create.topics.enable").map(String::as_str) {
            Some("true") => self.findings.warning(Problem {
                id: CheckId::AutoCreateTopics.into(),
                found: "the brokers create topics on mention (auto.create.topics.enable)".into(),
                why: "a consumer that comes first makes a topic with the brokers' defaults instead of kafka.topics, and a deleted topic \
                      comes back empty unnoticed"
                    .into(),
                fix: "set auto.create.topics.enable=false at the brokers: run creates the topics itself".into(),
            }),
            Some(_) => self.findings.ok(CheckId::AutoCreateTopics, "off: topics are created by run, as kafka.topics says"),
            None => {}
        }
    }

    fn transactions(&mut self, reached: &Reached) {
        let timeout_ms = self.number("transaction.timeout.ms").unwrap_or(TRANSACTION_TIMEOUT_MS);
        if let Some(max_ms) = reached.number("transaction.max.timeout.ms") {
            if timeout_ms > max_ms {
                self.findings.error(Problem {
                    id: CheckId::TransactionTimeout.into(),
                    found: format!("transaction.timeout.ms is {timeout_ms}, and the brokers' transaction.max.timeout.ms is {max_ms}"),
                    why: "the brokers refuse the producer".into(),
                    fix: format!("set \"transaction.timeout.ms\" = \"{max_ms}\" or less in kafka.properties"),
                });
            } else {
                self.findings
                    .ok(CheckId::TransactionTimeout, format!("{timeout_ms} ms, of {max_ms} ms that the brokers allow"));
            }
        }
        let replicas = reached.number("transaction.state.log.replication.factor");
        let up = reached.cluster.brokers.len();
        let brokers = i64::try_from(up).unwrap_or(i64::MAX);
        if let Some(replicas) = replicas.filter(|replicas| *replicas > brokers) {
            // It is created by the first transaction of anybody.
            if !reached.cluster.topics.contains_key("__transaction_state") {
                self.findings.error(Problem {
                    id: CheckId::TransactionStateLog.into(),
                    found: format!(
                        "transaction.state.log.replication.factor is {replicas}, and there {} up",
                        if up == 1 { "is 1 broker".to_owned() } else { format!("are {up} brokers") }
                    ),
                    why: "the topic that transactions are kept in cannot be created, and the producer waits for it for ever".into(),
                    fix: format!("start {replicas} brokers, or set transaction.state.log.replication.factor={brokers} at the brokers"),
                });
            }
        }
    }

    /// A topic that is kept by pgsluice itself.
    async fn compacted_topic(&mut self, reached: &Reached, kept: &CompactedTopic) {
        let CompactedTopic { id, topic, what, setting } = kept;
        let replicas = self.config.kafka.topics.replication_factor.map_or(-1, i32::from);
        match reached.cluster.topics.get(topic).copied() {
            None => {
                let config = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
                let settings = TopicSettings { partitions: 1, replication_factor: replicas, config };
                let would = self.creatable(reached, &[topic], &settings).await;
                if would {
                    self.findings.ok(*id, format!("{topic} does not exist; run creates it"));
                }
            }
            Some(shape) if shape.partitions != 1 => self.findings.error(Problem {
                id: (*id).into(),
                found: format!("{topic} has {} partitions", shape.partitions),
                why: format!("the order of {what} is kept in one partition only"),
                fix: format!(
                    "if no stream has run with it yet: {} --delete --topic {topic}, and run creates it with one; otherwise set {setting}",
                    self.tool("kafka-topics.sh")
                ),
            }),
            Some(shape) => {
                let settings = self.topic_settings(reached, &[topic]).await.remove(topic).unwrap_or_default();
                match settings.get("cleanup.policy").map(|policy| policy.trim()) {
                    Some("compact") | None => self.findings.ok(*id, format!("{topic} has one partition and is compacted")),
                    Some(policy) => self.findings.error(Problem {
                        id: (*id).into(),
                        found: format!("the cleanup.policy of {topic} is {policy}"),
                        why: format!("{what} can be deleted when they grow old"),
                        fix: configure_command(&self.settings.bootstrap_servers, topic, "cleanup.policy=compact"),
                    }),
                }
                self.durability(&[(topic.as_str(), shape)], &BTreeMap::from([(topic.clone(), settings)]));
            }
        }
    }

    fn unreadable(&self, error: &PublishError) -> Problem {
        let why = "without the checkpoint nobody knows where to resume".to_owned();
        let (id, fix) = match error {
            PublishError::Checkpoint { .. } => {
                (Id::from(Code::CheckpointCorrupt), Code::CheckpointCorrupt.fix().to_owned())
            }
            error if error.is_unauthorized() => (
                Code::KafkaDenied.into(),
                format!(
                    "grant READ and DESCRIBE on the checkpoint topic: {} --add --allow-principal User:NAME --operation Read --operation Describe \
                     --topic {}",
                    self.tool("kafka-acls.sh"),
                    self.config.kafka.checkpoint_topic.as_str()
                ),
            ),
            error if error.verdict() == Verdict::Renew => {
                (CheckId::CheckpointUnreadable.into(), "see the brokers' logs, and run the check again".to_owned())
            }
            _ => (CheckId::CheckpointUnreadable.into(), "see the brokers' logs".to_owned()),
        };
        Problem { id, found: error.to_string(), why, fix }
    }

    /// One of Kafka's own tools, as it is to be called.
    pub(super) fn tool(&self, name: &str) -> String {
        format!("{name} --bootstrap-server {}", self.settings.bootstrap_servers)
    }

    /// A property of librdkafka's that is a number.
    pub(super) fn number(&self, property: &str) -> Option<i64> {
        self.settings.properties.get(property).and_then(|text| text.parse().ok())
    }
}

impl Reached {
    /// A setting of the broker's that is a number.
    pub(super) fn number(&self, setting: &str) -> Option<i64> {
        number(&self.broker, setting)
    }
}

pub(super) fn number(settings: &BTreeMap<String, String>, name: &str) -> Option<i64> {
    settings.get(name).and_then(|text| text.parse().ok())
}

fn checkpoint_text(checkpoint: &Checkpoint) -> String {
    let written = UNIX_EPOCH + Duration::from_millis(checkpoint.written_at_ms.unsigned_abs());
    let age = SystemTime::now().duration_since(written).unwrap_or_default().as_secs();
    format!(
        "at {}, written {age} s ago by instance {}{} (read without fencing: a running instance may be further)",
        checkpoint.position(),
        checkpoint.instance,
        if checkpoint.forced { " on an operator's word" } else { "" }
    )
}

/// Why nothing more can be asked.
enum Unreached {
    /// The brokers are not trusted, or do not let this client in.
    Refused(Cause),
    /// They send clients to another machine, to which the credentials would go without TLS.
    Elsewhere(String),
    /// Something else, as far as it is known.
    Failed(PublishError),
}

impl Unreached {
    fn problem(&self, servers: &str) -> Problem {
        let why = "nothing can be published".to_owned();
        let denied = match self {
            Self::Refused(Cause::Untrusted { found, fix }) => {
                return Problem { id: Code::KafkaUntrusted.into(), found: found.clone(), why, fix: (*fix).to_owned() };
            }
            Self::Elsewhere(host) => {
                return Problem {
                    id: Code::PlaintextCredentials.into(),
                    found: format!(
                        "the brokers send clients to {host} (advertised.listeners), where the SASL credentials go without TLS"
                    ),
                    why: "whoever is on the network comes to know them".into(),
                    fix: "set \"security.protocol\" = \"sasl_ssl\" in kafka.properties, with the port of an encrypted listener; and \
                          change the password"
                        .into(),
                };
            }
            Self::Refused(Cause::Denied { found } | Cause::Unreachable { found }) => found.clone(),
            Self::Failed(PublishError::Token { why }) => why.clone(),
            Self::Failed(error) if error.is_unauthorized() || error.to_string().contains("SASL") => words(error),
            Self::Failed(error) => {
                return Problem {
                    id: CheckId::KafkaUnreachable.into(),
                    found: format!("Kafka at {servers} cannot be reached: {}", words(error)),
                    why,
                    fix: "start the brokers, or correct kafka.bootstrap_servers; for an encrypted listener set \"security.protocol\" in \
                          kafka.properties"
                        .into(),
                };
            }
        };
        Problem {
            id: CheckId::KafkaAuthentication.into(),
            found: format!("Kafka at {servers} does not let this client in: {denied}"),
            why,
            fix: "correct \"sasl.username\", \"sasl.password\" and \"sasl.mechanisms\" in kafka.properties or kafka.properties_file, or what is \
                  in kafka.oauthbearer_token_file"
                .into(),
        }
    }
}

/// What librdkafka said about the connection, or else the error that came of it.
fn words(error: &PublishError) -> String {
    match error {
        PublishError::Kafka { reason: Some(reason), .. } => reason.clone(),
        error if error.verdict() == Verdict::Renew => {
            format!("no broker answered within {}", seconds_text(REQUEST_TIMEOUT))
        }
        other => other.to_string(),
    }
}

/// That something could not be asked.
pub(super) fn incomplete(found: &str) -> Problem {
    Problem {
        id: CheckId::KafkaIncomplete.into(),
        found: format!("not everything could be looked at: {found}"),
        why: "what was not looked at may be wrong as well".into(),
        fix: "see the brokers' logs, and run the check again".into(),
    }
}
