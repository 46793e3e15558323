//! Creating and inspecting topics.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    error::KafkaError,
    metadata::Metadata,
    types::RDKafkaErrorCode as Code,
};
use tracing::{info, warn};

use crate::{error::PublishError, settings::KafkaSettings};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// The configurations of so many topics are asked for at a time: each answer has some dozens of keys.
const CONFIGS_AT_A_TIME: usize = 50;
const READING_CONFIGURATION: &str = "reading a topic's configuration";
/// How long a new topic may take until each of its partitions has a leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is looked whether they have.
const LEADER_POLL_FIRST: Duration = Duration::from_millis(5);
const LEADER_POLL_MAX: Duration = Duration::from_millis(50);

/// How a topic is created when it is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// Number of partitions; -1 leaves it to the broker.
    pub partitions: i32,
    /// Replication factor; -1 leaves it to the broker.
    pub replication_factor: i32,
    /// Topic configuration, verbatim.
    pub config: BTreeMap<String, String>,
}

impl TopicSettings {
    /// Takes out what would have the broker drop all but the newest record of a key, and refuse those without one.
    pub fn keep_all(&mut self) {
        self.config.remove("cleanup.policy");
    }
}

/// An administrative client. Its calls block, for at most a minute.
pub struct TopicAdmin {
    client: AdminClient<DefaultClientContext>,
    settings: KafkaSettings,
    runtime: tokio::runtime::Handle,
}

impl TopicAdmin {
    /// Creates the client. Nothing is sent yet.
    ///
    /// # Errors
    /// librdkafka refuses a property.
    pub fn new(settings: &KafkaSettings, runtime: tokio::runtime::Handle) -> Result<Self, PublishError> {
        let client = settings.admin().create().map_err(PublishError::kafka("creating the administrative client"))?;
        Ok(Self { client, settings: settings.clone(), runtime })
    }

    /// The client, with a token if it needs one: nobody polls it.
    fn client(&self) -> Result<&AdminClient<DefaultClientContext>, PublishError> {
        if let Some(token) = self.settings.token() {
            token.hand(self.client.inner())?;
        }
        Ok(&self.client)
    }

    /// What it was created with.
    pub const fn settings(&self) -> &KafkaSettings {
        &self.settings
    }

    /// The partitions of each topic that exists and that we may see: one that is not among them may exist all the same.
    ///
    /// It is much where topics are many: of one of them, [`partitions`](Self::partitions) is to be asked.
    ///
    /// # Errors
    /// The brokers cannot be reached, or deny it.
    pub fn partitions_by_topic(&self) -> Result<BTreeMap<String, usize>, PublishError> {
        let metadata = self.metadata()?;
        let usable = |topic: &&rdkafka::metadata::MetadataTopic| topic.error().is_none();
        Ok(metadata
            .topics()
            .iter()
            .filter(usable)
            .map(|topic| (topic.name().to_owned(), topic.partitions().len()))
            .collect())
    }

    /// The partitions of one topic, by its name; none if it does not exist, or we may not see it. It is not created by that: this client does not
    /// ask for it.
    ///
    /// # Errors
    /// The brokers cannot be reached, or deny it.
    pub fn partitions(&self, topic: &str) -> Result<Option<usize>, PublishError> {
        let metadata = self.metadata_of(topic)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        Ok(found.map(|found| found.partitions().len()).filter(|partitions| *partitions > 0))
    }

    /// Creates the topic, and returns once every partition of it has a leader. Whether it was created by this call is
    /// returned; that it exists already is no error.
    ///
    /// # Errors
    /// The brokers cannot be reached, or refuse the topic.
    pub fn create(&self, topic: &str, settings: &TopicSettings) -> Result<bool, PublishError> {
        let none = || answered_with_nothing(topic);
        self.create_all(&[(topic, settings)])?.pop().unwrap_or_else(|| Err(none()))
    }

    /// Creates topics with one request, and returns once every partition of each that is there has a leader. What became of each is returned in
    /// their order: whether it was created by this call, or why it is not there; that it exists already is no error.
    ///
    /// # Errors
    /// The brokers cannot be reached, or deny all of it.
    pub fn create_all(
        &self,
        topics: &[(&str, &TopicSettings)],
    ) -> Result<Vec<Result<bool, PublishError>>, PublishError> {
        let new = topics.iter().map(|(topic, settings)| {
            let replication = TopicReplication::Fixed(settings.replication_factor);
            let new = NewTopic::new(topic, settings.partitions, replication);
            settings.config.iter().fold(new, |new, (key, value)| new.set(key, value))
        });
        let new: Vec<NewTopic<'_>> = new.collect();
        let options =
            AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT));
        let results = self
            .runtime
            .block_on(self.client()?.create_topics(&new, &options))
            .map_err(PublishError::kafka("creating a topic"))?;
        // Each answer names its topic; nothing says that they come in the order of the questions.
        let mut answers: BTreeMap<String, Result<(), Code>> = results
            .into_iter()
            .map(|answer| match answer {
                Ok(topic) => (topic, Ok(())),
                Err((topic, code)) => (topic, Err(code)),
            })
            .collect();
        let outcomes: Vec<_> = topics.iter().map(|(topic, _)| came_to(topic, answers.remove(*topic))).collect();
        let there = topics.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok());
        let mut late = self.await_leaders(there.map(|((topic, _), _)| *topic).collect())?;
        let with_leaders = outcomes.into_iter().zip(topics);
        Ok(with_leaders.map(|(outcome, (topic, _))| late.remove(topic).map_or(outcome, Err)).collect())
    }

    /// Whether nothing was ever written to a topic that exists, with so many partitions. Records that were removed by age count.
    ///
    /// # Errors
    /// The brokers cannot be reached, or deny it.
    pub fn is_unwritten(&self, topic: &str, partitions: usize) -> Result<bool, PublishError> {
        for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
            let (_, high) = self
                .client
                .inner()
                .fetch_watermarks(topic, partition, REQUEST_TIMEOUT)
                .map_err(PublishError::kafka("reading a topic's offsets"))?;
            if high > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The offsets of a topic of one partition: of the first record that it still has, and behind the last one that is decided, committed or
    /// not.
    ///
    /// # Errors
    /// The brokers cannot be reached, or deny it.
    pub fn offsets(&self, topic: &str) -> Result<(i64, i64), PublishError> {
        self.client()?
            .inner()
            .fetch_watermarks(topic, 0, REQUEST_TIMEOUT)
            .map_err(PublishError::kafka("reading a topic's offsets"))
    }

    /// Whether each partition of a topic that exists has a leader, which a broker has to say within so long. Only brokers that work can say so.
    ///
    /// # Errors
    /// No broker answers in time, or they deny it.
    pub fn has_leaders_within(&self, topic: &str, limit: Duration) -> Result<bool, PublishError> {
        let metadata = self.metadata_within(topic, limit)?;
        Ok(metadata.topics().iter().any(|found| {
            found.name() == topic
                && found.error().is_none()
                && !found.partitions().is_empty()
                && found.partitions().iter().all(|partition| partition.leader() >= 0)
        }))
    }

    /// The topic's configuration, by key.
    ///
    /// # Errors
    /// The brokers cannot be reached, or deny it.
    pub fn config(&self, topic: &str) -> Result<BTreeMap<String, String>, PublishError> {
        Ok(self.configs(&[topic])?.pop().unwrap_or_default())
    }

    /// The configurations of topics, each of which is named once, in their order: asked for many at a time. That of one that does not exist, or that
    /// we may not look at, has no keys: rdkafka passes over what the brokers say of a single topic.
    ///
    /// # Errors
    /// The brokers cannot be reached, or deny it.
    pub fn configs(&self, topics: &[&str]) -> Result<Vec<BTreeMap<String, String>>, PublishError> {
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let mut configs = Vec::with_capacity(topics.len());
        for topics in topics.chunks(CONFIGS_AT_A_TIME) {
            let resources: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
            let answers = self
                .runtime
                .block_on(self.client()?.describe_configs(&resources, &options))
                .map_err(PublishError::kafka(READING_CONFIGURATION))?;
            // librdkafka gives the answers in the order of the questions.
            for (position, topic) in topics.iter().enumerate() {
                let refused = |code| PublishError::Kafka {
                    doing: READING_CONFIGURATION,
                    error: KafkaError::AdminOp(code),
                    reason: Some((*topic).to_owned()),
                };
                match answers.get(position) {
                    Some(Ok(found)) if found.specifier == OwnedResourceSpecifier::Topic((*topic).to_owned()) => {
                        let entries = found.entries.iter();
                        configs.push(entries.filter_map(|it| Some((it.name.clone(), it.value.clone()?))).collect());
                    }
                    Some(Err(code)) => return Err(refused(*code)),
                    Some(Ok(_)) | None => return Err(refused(Code::Fail)),
                }
            }
        }
        Ok(configs)
    }

    /// The client, for what rdkafka has no call for.
    pub(crate) fn native(&self) -> Result<*mut rdkafka::bindings::rd_kafka_t, PublishError> {
        Ok(self.client()?.inner().native_ptr())
    }

    fn metadata(&self) -> Result<Metadata, PublishError> {
        self.client()?
            .inner()
            .fetch_metadata(None, REQUEST_TIMEOUT)
            .map_err(PublishError::kafka("reading the cluster's metadata"))
    }

    /// Waits until the partitions of these topics have leaders. Those that have none in time are returned, each with what is to be said of it.
    ///
    /// They are asked for by name, since what brokers know of all others can be much. A topic that was deleted meanwhile is not created by
    /// that: this client does not ask for it.
    fn await_leaders<'t>(&self, mut topics: Vec<&'t str>) -> Result<BTreeMap<&'t str, PublishError>, PublishError> {
        let (began, mut pause) = (Instant::now(), LEADER_POLL_FIRST);
        loop {
            let mut waiting = Vec::new();
            for topic in topics {
                if !self.has_leaders(topic)? {
                    waiting.push(topic);
                }
            }
            if waiting.is_empty() || began.elapsed() > LEADER_TIMEOUT {
                return Ok(waiting.into_iter().map(|topic| (topic, without_leader(topic))).collect());
            }
            topics = waiting;
            // Metadata cannot be awaited: the protocol has no notification.
            std::thread::sleep(pause);
            pause = (pause * 2).min(LEADER_POLL_MAX);
        }
    }

    fn metadata_of(&self, topic: &str) -> Result<Metadata, PublishError> {
        self.metadata_within(topic, REQUEST_TIMEOUT)
    }

    fn metadata_within(&self, topic: &str, limit: Duration) -> Result<Metadata, PublishError> {
        self.client()?
            .inner()
            .fetch_metadata(Some(topic), limit)
            .map_err(PublishError::kafka("reading a topic's metadata"))
    }

    fn has_leaders(&self, topic: &str) -> Result<bool, PublishError> {
        self.has_leaders_within(topic, REQUEST_TIMEOUT)
    }
}

/// What the answer to the creation of a topic says.
fn came_to(topic: &str, answer: Option<Result<(), Code>>) -> Result<bool, PublishError> {
    match answer {
        Some(Ok(())) => Ok(true),
        Some(Err(Code::TopicAlreadyExists)) => Ok(false),
        Some(Err(code)) if is_permanent(code) => Err(PublishError::Topic {
            topic: topic.to_owned(),
            problem: format!("the broker refuses to create it: {code}"),
        }),
        Some(Err(code)) => Err(PublishError::Kafka {
            doing: "creating a topic",
            error: KafkaError::AdminOp(code),
            reason: Some(topic.to_owned()),
        }),
        None => Err(answered_with_nothing(topic)),
    }
}

fn answered_with_nothing(topic: &str) -> PublishError {
    PublishError::Topic { topic: topic.to_owned(), problem: "the broker answered its creation with nothing".into() }
}

fn without_leader(topic: &str) -> PublishError {
    PublishError::Kafka {
        doing: "waiting for the leaders of a new topic",
        error: KafkaError::MetadataFetch(Code::LeaderNotAvailable),
        reason: Some(topic.to_owned()),
    }
}

/// Creates a compacted topic of one partition if it is missing, and otherwise checks that it is one: with more partitions the order of
/// what it holds is lost, and with deletion what it holds, in time. `what` names that in the plural.
///
/// # Errors
/// The topic is unfit, or the brokers cannot be reached.
pub fn ensure_compacted(
    admin: &TopicAdmin,
    topic: &str,
    what: &str,
    replication_factor: i32,
) -> Result<(), PublishError> {
    let unfit = |problem: String| PublishError::Topic { topic: topic.to_owned(), problem };
    match admin.partitions_by_topic()?.get(topic) {
        None => {
            let config = [
                ("cleanup.policy", "compact"),
                // The active segment is never compacted, so it bounds what a start has to read.
                ("segment.bytes", "16777216"),
                ("min.cleanable.dirty.ratio", "0.1"),
            ];
            let config: BTreeMap<_, _> =
                config.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            if admin.create(topic, &TopicSettings { partitions: 1, replication_factor, config })? {
                info!(topic, "created the topic of {what}");
            }
            Ok(())
        }
        Some(1) => match admin.config(topic) {
            Ok(config) => match config.get("cleanup.policy") {
                Some(policy) if policy.trim() != "compact" => Err(unfit(format!(
                    "its cleanup.policy is {policy:?}, which can delete {what}: set it to \"compact\""
                ))),
                _ => Ok(()),
            },
            Err(error) if error.is_unauthorized() => {
                warn!(topic, %error, "cannot check that the topic of {what} is compacted");
                Ok(())
            }
            Err(error) => Err(error),
        },
        Some(partitions) => {
            Err(unfit(format!("it has {partitions} partitions, and {what} are only in order with one")))
        }
    }
}

/// Whether asking the broker again cannot help.
fn is_permanent(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidTopic
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor
            | Code::InvalidReplicaAssignment
            | Code::InvalidConfig
            | Code::PolicyViolation
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidRequest
            | Code::UnsupportedVersion
    )
}
