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

    /// Whether the registry is up, which it has to say within so long: its own API answers, over a connection that is trusted, to whom it knows
    /// ([`RegistryClient::answers`]). The built-in one is in Kafka, and is not asked.
    ///
    /// # Errors
    /// It is not, and the code is the one with which a new schema would wait, or stop the stream.
    pub async fn answers_within(&self, limit: Duration) -> Result<(), Refusal> {
        let Self::Remote(client) = self else { return Ok(()) };
        match tokio::time::timeout(limit, client.answers()).await {
            Ok(answer) => answer.map_err(|error| Refusal::from(&error)),
            Err(_elapsed) => {
                let found = format!("schema registry at {}: no answer within {} ms", client.url(), limit.as_millis());
                Err(Refusal { code: Code::RegistryUnavailable, found, retry_after: None })
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

#[cfg(test)]
mod tests {
    use registry::RegistryOptions;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// A server that gives the same answer to everything, or none to anything. Returns its address.
    async fn serve(answer: Option<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("the listener is bound");
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let _request = socket.read(&mut vec![0; 16 << 10]).await;
                if let Some(answer) = &answer {
                    let _ = socket.write_all(answer.as_bytes()).await;
                }
                held.push(socket);
            }
        });
        address.to_string()
    }

    fn answer(status: &str, body: &str) -> String {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nretry-after: 7\r\nconnection: close");
        head + "\r\n\r\n" + body
    }

    async fn ask(scheme: &str, address: &str, limit: Duration) -> Result<(), Refusal> {
        let url = format!("{scheme}://{address}").parse().expect("a URL");
        let client = RegistryClient::new(RegistryOptions::new(url)).expect("the options are sound");
        Schemas::Remote(Arc::new(client)).answers_within(limit).await
    }

    #[tokio::test]
    async fn only_a_registry_that_can_be_used_is_up() {
        for (status, body) in [
            ("200 OK", r#"{"compatibilityLevel":"FULL"}"#),
            ("403 Forbidden", r#"{"error_code":40301,"message":"no"}"#),
        ] {
            let up = ask("http", &serve(Some(answer(status, body))).await, LIMIT).await;
            up.unwrap_or_else(|refusal| panic!("{status}: {refusal:?}"));
        }
        let (away, refused) = (Code::RegistryUnavailable, Code::RegistryRefused);
        for (status, body, code) in [
            ("200 OK", "<html>Welcome</html>", away),
            ("404 Not Found", "<html>404</html>", away),
            ("429 Too Many Requests", "", away),
            ("503 Service Unavailable", "", away),
            ("401 Unauthorized", r#"{"error_code":401,"message":"who are you?"}"#, refused),
            ("403 Forbidden", "<html>blocked</html>", refused),
        ] {
            let refusal = ask("http", &serve(Some(answer(status, body))).await, LIMIT).await.expect_err(status);
            assert_eq!(refusal.code, code, "{status}: {refusal:?}");
            let waits = status.starts_with("429") || status.starts_with("503");
            assert!(!waits || refusal.retry_after == Some(Duration::from_secs(7)), "{status}: {refusal:?}");
        }
        // What is called does not speak TLS, so that it proves nothing.
        let address = serve(Some(answer("400 Bad Request", ""))).await;
        assert_eq!(ask("https", &address, LIMIT).await.expect_err("no TLS").code, Code::RegistryUntrusted);
        let silent = serve(None).await;
        let refusal = ask("http", &silent, Duration::from_millis(1)).await.expect_err("it says nothing");
        assert!(refusal.code == away && refusal.found.contains("no answer within 1 ms"), "{refusal:?}");
    }
}
