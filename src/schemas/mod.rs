//! Where the schemas are registered: at a registry that somebody runs, or in a topic that this program keeps itself.
//!
//! - [`built_in`]: the registry in a topic, and why several instances can share it;
//! - [`api`]: its read side over HTTP.

pub mod api;
pub mod built_in;

use std::{sync::Arc, time::Duration};

use publisher::{KafkaSettings, PublishError, Verdict};
use registry::{Action, ErrorKind, RegistryClient, RegistryError, SchemaId};

use self::built_in::BuiltIn;
use crate::{
    config::{Config, SchemaRegistry},
    failure::{Code, Failure},
    pipeline,
};

/// The registry of this run.
#[derive(Clone)]
pub enum Schemas {
    /// A Confluent-compatible registry over HTTP.
    Remote(Arc<RegistryClient>),
    /// The topic of our own.
    BuiltIn(Arc<BuiltIn>),
}

/// Why a schema has no id. Its text ends with what to do.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What it means for the stream.
    pub code: Code,
    /// What was found.
    pub found: String,
    /// The least time to wait before asking again, if the registry has said one.
    pub retry_after: Option<Duration>,
}

impl Schemas {
    /// The registry that the configuration names. Nothing is connected.
    ///
    /// # Errors
    /// Its URL, its authentication or its certificate cannot be used.
    pub fn new(config: &Config, kafka: &KafkaSettings) -> Result<Self, Failure> {
        Ok(match &config.schema_registry {
            SchemaRegistry::Remote(remote) => {
                let client = RegistryClient::new(remote.options())
                    .map_err(|error| Failure::new(Code::RegistryRefused, error.to_string()))?;
                Self::Remote(Arc::new(client))
            }
            SchemaRegistry::BuiltIn { topic } => {
                let replication_factor = config.kafka.topics.replication_factor.map_or(-1, i32::from);
                Self::BuiltIn(Arc::new(BuiltIn::new(kafka, topic.as_str(), replication_factor)))
            }
        })
    }

    /// Tells this function of each request to a remote registry that fails.
    pub fn observe(&self, observe: impl Fn(&RegistryError) + Send + Sync + 'static) {
        if let Self::Remote(client) = self {
            client.observe(observe);
        }
    }

    /// Makes ready for a session: the topic is created if it is missing, and read. A remote registry is not asked before it is needed.
    ///
    /// # Errors
    /// The topic is unfit, or Kafka cannot be reached or refuses.
    pub async fn prepare(&self) -> Result<(), Failure> {
        match self {
            Self::Remote(_) => Ok(()),
            Self::BuiltIn(built_in) => {
                built_in.prepare().await.map_err(|refusal| Failure::new(refusal.code, refusal.found))
            }
        }
    }

    /// Whether the registry answers, whatever it says, within so long. The built-in one is in Kafka, and is not asked.
    ///
    /// # Errors
    /// It does not, or only that it cannot serve anybody.
    pub async fn answers_within(&self, limit: Duration) -> Result<(), Refusal> {
        let Self::Remote(client) = self else { return Ok(()) };
        let asked = tokio::time::timeout(limit, client.global_level()).await;
        let away = |found: String| Refusal { code: Code::RegistryUnavailable, found, retry_after: None };
        match asked {
            Ok(Err(error))
                if matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::Unavailable) =>
            {
                Err(away(error.to_string()))
            }
            Ok(_) => Ok(()),
            Err(_elapsed) => {
                Err(away(format!("schema registry at {}: no answer within {} ms", client.url(), limit.as_millis())))
            }
        }
    }

    /// Registers an Avro schema under a subject and returns its id, which is the earlier one when it is registered already.
    ///
    /// # Errors
    /// It is refused, or the registry cannot be reached; the code says which.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<SchemaId, Refusal> {
        match self {
            Self::Remote(client) => client.register(subject, schema).await.map_err(|error| Refusal::from(&error)),
            Self::BuiltIn(built_in) => built_in.register(subject, schema).await,
        }
    }

    /// The text of an Avro schema; none if no schema has this id.
    ///
    /// # Errors
    /// It is no Avro schema, or the registry cannot be reached or refuses; the code says which.
    pub async fn schema_by_id(&self, id: SchemaId) -> Result<Option<String>, Refusal> {
        match self {
            Self::Remote(client) => match client.schema_by_id(id).await {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == ErrorKind::Unknown => Ok(None),
                Err(error) => Err(Refusal::from(&error)),
            },
            Self::BuiltIn(built_in) => built_in.schema_by_id(id).await,
        }
    }

    /// The built-in registry, if it is that one.
    pub fn built_in(&self) -> Option<Arc<BuiltIn>> {
        match self {
            Self::Remote(_) => None,
            Self::BuiltIn(built_in) => Some(Arc::clone(built_in)),
        }
    }

    /// The topic of the built-in registry.
    pub fn topic(&self) -> Option<&str> {
        match self {
            Self::Remote(_) => None,
            Self::BuiltIn(built_in) => Some(built_in.topic()),
        }
    }
}

impl From<&RegistryError> for Refusal {
    fn from(error: &RegistryError) -> Self {
        let (code, retry_after) = match error.action() {
            Action::Retry { after } => (Code::RegistryUnavailable, after),
            Action::Incompatible => (Code::RegistryIncompatible, None),
            Action::Stop if error.kind() == ErrorKind::Tls => (Code::RegistryUntrusted, None),
            Action::Stop => (Code::RegistryRefused, None),
        };
        Self { code, found: error.to_string(), retry_after }
    }
}

impl Refusal {
    /// What an error of Kafka means for the topic of schemas. That another has the lock is no reason to give the stream up.
    fn of_kafka(topic: &str, error: &PublishError) -> Self {
        let code = match error.verdict() {
            Verdict::Renew | Verdict::Fenced => Code::RegistryUnavailable,
            Verdict::Stop => pipeline::failure_of(error, Duration::ZERO, Duration::MAX).code(),
        };
        Self { code, found: format!("built-in schema registry, topic {topic}: {error}"), retry_after: None }
    }
}
