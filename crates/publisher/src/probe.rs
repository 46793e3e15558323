//! What can be learnt about a cluster without changing anything in it: for a check before the first start.
//!
//! Nothing here is transactional. A producer with the stream's transactional id would fence a running instance, so none is
//! connected: the properties of the transactional producer are tried on a client that knows no broker.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig,
    admin::{
        AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
        TopicReplication,
    },
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    error::KafkaError,
    metadata::MetadataTopic,
    producer::{BaseProducer, DefaultProducerContext, Producer as _},
    types::RDKafkaErrorCode as Code,
    util::get_rdkafka_version,
};

use crate::{
    error::{PublishError, without_value},
    listening::Listening,
    producer::LIBRDKAFKA_MIN,
    settings::KafkaSettings,
    topics::TopicSettings,
};

/// How many topics are asked for in one request.
pub(crate) const TOPICS_PER_REQUEST: usize = 200;
/// How long they are listened to. They are queued before the failure is returned.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(50);

/// Clients that only ask. Their calls block, each for at most the time limit.
pub struct ClusterProbe {
    pub(crate) admin: AdminClient<DefaultClientContext>,
    /// Never sends a record. Of the clients it is the one that hears why a broker cannot be reached: an administrative client's
    /// log is read by nobody.
    listener: BaseProducer<Listening>,
    runtime: tokio::runtime::Handle,
    pub(crate) timeout: Duration,
}

/// A cluster as one of its brokers describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's id.
    pub id: Option<String>,
    /// Ids of the brokers that are up, in ascending order.
    pub brokers: Vec<i32>,
    /// The topics that the client may see.
    pub topics: BTreeMap<String, TopicShape>,
}

/// A topic as the metadata describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicShape {
    /// How many partitions it has.
    pub partitions: usize,
    /// Replicas of the partition that has the fewest.
    pub replication_factor: usize,
    /// Partitions that no broker leads just now, so that nothing can be written to them.
    pub leaderless: usize,
}

/// What would become of a topic that is to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creation {
    /// It would be there.
    Possible,
    /// It is there.
    Exists,
    /// The brokers have this against it.
    Refused(String),
}

/// A property that librdkafka does not take. Holds no value of any property: passwords are among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedProperty {
    /// Its name; none where librdkafka refuses them all together.
    pub name: Option<String>,
    /// What librdkafka says.
    pub reason: String,
}

impl ClusterProbe {
    /// Creates the clients. Nothing is asked yet.
    ///
    /// # Errors
    /// librdkafka refuses a property.
    pub fn new(
        settings: &KafkaSettings,
        runtime: tokio::runtime::Handle,
        timeout: Duration,
    ) -> Result<Self, PublishError> {
        let mut config = settings.common();
        config.set_log_level(RDKafkaLogLevel::Warning);
        let admin = config.create().map_err(PublishError::kafka("creating the administrative client"))?;
        let listener = config
            .create_with_context(Listening::new(settings))
            .map_err(PublishError::kafka("creating the metadata client"))?;
        let admin: AdminClient<DefaultClientContext> = admin;
        let listener: BaseProducer<Listening> = listener;
        if let Some(token) = settings.token() {
            token.hand(admin.inner())?;
            token.hand(listener.client())?;
        }
        Ok(Self { admin, listener, runtime, timeout })
    }

    /// The brokers and all topics. All are asked for, since asking for one by name makes some brokers create it.
    ///
    /// # Errors
    /// The brokers cannot be reached; the reason is librdkafka's last word about it.
    pub fn cluster(&self) -> Result<Cluster, PublishError> {
        let client = self.listener.client();
        let metadata = client
            .fetch_metadata(None, self.timeout)
            .map_err(|error| self.failure("reading the cluster's metadata", error))?;
        let mut brokers: Vec<i32> = metadata.brokers().iter().map(rdkafka::metadata::MetadataBroker::id).collect();
        brokers.sort_unstable();
        let shape = |topic: &MetadataTopic| TopicShape {
            partitions: topic.partitions().len(),
            replication_factor: topic.partitions().iter().map(|found| found.replicas().len()).min().unwrap_or(0),
            leaderless: topic.partitions().iter().filter(|found| found.leader() < 0).count(),
        };
        Ok(Cluster {
            id: client.fetch_cluster_id(self.timeout),
            brokers,
            topics: metadata
                .topics()
                .iter()
                .filter(|topic| topic.error().is_none())
                .map(|topic| (topic.name().to_owned(), shape(topic)))
                .collect(),
        })
    }

    /// A broker's settings by name, those left out that it does not tell.
    ///
    /// # Errors
    /// The broker cannot be reached, or denies it.
    pub fn broker_settings(&self, broker: i32) -> Result<BTreeMap<String, String>, PublishError> {
        let doing = "reading a broker's configuration";
        let answers = self.describe(doing, &[ResourceSpecifier::Broker(broker)])?;
        match answers.into_iter().next() {
            Some(Ok(resource)) => Ok(values_of(resource)),
            Some(Err(code)) => Err(self.failure(doing, KafkaError::AdminOp(code))),
            None => Ok(BTreeMap::new()),
        }
    }

    /// The settings of topics that exist, by topic and name.
    ///
    /// # Errors
    /// The brokers cannot be reached, or deny it for one of them.
    pub fn topic_settings(&self, topics: &[&str]) -> Result<BTreeMap<String, BTreeMap<String, String>>, PublishError> {
        let doing = "reading a topic's configuration";
        let mut settings = BTreeMap::new();
        for topics in topics.chunks(TOPICS_PER_REQUEST) {
            let specifiers: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
            for answer in self.describe(doing, &specifiers)? {
                let resource = answer.map_err(|code| self.failure(doing, KafkaError::AdminOp(code)))?;
                if let OwnedResourceSpecifier::Topic(topic) = &resource.specifier {
                    settings.insert(topic.clone(), values_of(resource));
                }
            }
        }
        Ok(settings)
    }

    /// Asks whether topics could be created, without creating any (`validate_only` of the request): each name with what
    /// would become of it.
    ///
    /// # Errors
    /// The brokers cannot be reached.
    pub fn validate_topics(
        &self,
        topics: &[&str],
        settings: &TopicSettings,
    ) -> Result<Vec<(String, Creation)>, PublishError> {
        let options = AdminOptions::new().request_timeout(Some(self.timeout)).validate_only(true);
        let mut verdicts = Vec::with_capacity(topics.len());
        for topics in topics.chunks(TOPICS_PER_REQUEST) {
            let new: Vec<_> = topics
                .iter()
                .map(|topic| {
                    let replication = TopicReplication::Fixed(settings.replication_factor);
                    let new = NewTopic::new(topic, settings.partitions, replication);
                    settings.config.iter().fold(new, |new, (key, value)| new.set(key, value))
                })
                .collect();
            let answers = self
                .runtime
                .block_on(self.admin.create_topics(&new, &options))
                .map_err(|error| self.failure("asking whether topics could be created", error))?;
            verdicts.extend(answers.into_iter().map(|answer| match answer {
                Ok(topic) => (topic, Creation::Possible),
                Err((topic, Code::TopicAlreadyExists)) => (topic, Creation::Exists),
                Err((topic, code)) => (topic, Creation::Refused(code.to_string())),
            }));
        }
        Ok(verdicts)
    }

    fn describe(
        &self,
        doing: &'static str,
        specifiers: &[ResourceSpecifier<'_>],
    ) -> Result<Vec<Result<ConfigResource, Code>>, PublishError> {
        let options = AdminOptions::new().request_timeout(Some(self.timeout));
        self.runtime
            .block_on(self.admin.describe_configs(specifiers, &options))
            .map_err(|error| self.failure(doing, error))
    }

    pub(crate) fn failure(&self, doing: &'static str, error: KafkaError) -> PublishError {
        self.listener.poll(LAST_WORDS_WAIT);
        PublishError::Kafka { doing, error, reason: self.listener.context().words() }
    }
}

impl KafkaSettings {
    /// Every property that librdkafka does not take, by its name or its value, or all of them together if only together they
    /// are no good. Nothing is connected.
    pub fn refused_properties(&self) -> Vec<RefusedProperty> {
        let refused: Vec<RefusedProperty> = self
            .properties
            .iter()
            .filter_map(|(name, value)| {
                let alone = ClientConfig::from_iter([(name.clone(), value.clone())]);
                alone.create_native_config().err().map(refusal)
            })
            .collect();
        if !refused.is_empty() {
            return refused;
        }
        let mut producer = self.producer();
        // Without a broker it can reach nobody, and so fence nobody.
        producer.remove("bootstrap.servers");
        let created = producer.create_with_context::<_, BaseProducer>(DefaultProducerContext);
        created.err().map(refusal).into_iter().collect()
    }

    /// The librdkafka that is linked, and whether its transactions are good.
    pub fn librdkafka() -> (String, bool) {
        let (version, text) = get_rdkafka_version();
        (text, u32::try_from(version).unwrap_or_default() >= LIBRDKAFKA_MIN.0)
    }
}

fn refusal(error: KafkaError) -> RefusedProperty {
    match without_value(error) {
        KafkaError::ClientConfig(_, reason, name, _) => RefusedProperty { name: Some(name), reason },
        KafkaError::ClientCreation(reason) => RefusedProperty { name: None, reason },
        other => RefusedProperty { name: None, reason: other.to_string() },
    }
}

fn values_of(resource: ConfigResource) -> BTreeMap<String, String> {
    let told = |entry: rdkafka::admin::ConfigEntry| Some((entry.name, entry.value.filter(|_| !entry.is_sensitive)?));
    resource.entries.into_iter().filter_map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(properties: &[(&str, &str)]) -> Vec<RefusedProperty> {
        let settings = KafkaSettings {
            bootstrap_servers: "127.0.0.1:1".into(),
            name: "shop".into(),
            properties: properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            memory_limit_bytes: 64 << 20,
            token_file: None,
            observer: crate::ErrorObserver::default(),
        };
        settings.refused_properties()
    }

    #[test]
    fn every_refused_property_is_named_and_no_value_is() {
        assert_eq!(refused(&[("compression.type", "zstd"), ("linger.ms", "5")]), []);
        let found = refused(&[("linger.sm", "hunter2"), ("linger.ms", "hunter3"), ("security.protocol", "hunter4")]);
        let names: Vec<_> = found.iter().map(|refused| refused.name.as_deref()).collect();
        assert_eq!(names, [Some("linger.ms"), Some("linger.sm"), Some("security.protocol")]);
        assert!(!format!("{found:?}").contains("hunter"), "{found:?}");
        let found = refused(&[("security.protocol", "ssl"), ("ssl.ca.location", "/nowhere/ca.pem")]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].name.is_none() && found[0].reason.contains("ssl.ca.location"), "{found:?}");
    }

    #[test]
    fn the_linked_librdkafka_is_good() {
        let (version, good) = KafkaSettings::librdkafka();
        assert!(good, "{version}");
    }
}
