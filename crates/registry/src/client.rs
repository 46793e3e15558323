//! The operations of the API.

use std::fmt;
use std::sync::Arc;

use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::cache::IdCache;
use crate::error::{ErrorKind, RegistryError};
use crate::options::RegistryOptions;
use crate::store::Level;
use crate::transport::{Request, Transport};

/// The API's codes for what is not there, which tell an unknown subject from a URL with the wrong path.
const SUBJECT_NOT_FOUND: i64 = 40_401;
const VERSION_NOT_FOUND: i64 = 40_402;
const SCHEMA_NOT_FOUND: i64 = 40_403;
const SUBJECT_LEVEL_NOT_FOUND: i64 = 40_408;

/// A client of one registry. Clones are cheap, and share the connections and the cache.
#[derive(Clone)]
pub struct RegistryClient {
    transport: Arc<Transport>,
    ids: Arc<IdCache>,
}

/// A schema's id, unique within its registry: the four bytes that stand before each Avro value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaId(u32);

impl SchemaId {
    /// The id with this number.
    pub const fn new(id: u32) -> Self {
        Self(id)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl From<SchemaId> for u32 {
    fn from(id: SchemaId) -> Self {
        id.0
    }
}

impl fmt::Display for SchemaId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What a registry makes of a schema that is not registered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compatibility {
    /// It could be registered.
    Compatible,
    /// The subject has no version, so that any schema is compatible.
    NoVersions,
    /// It would be refused, with the registry's reasons as far as it gives any.
    Incompatible(Vec<String>),
}

/// How versions of a subject must fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompatibilityLevel {
    /// Anything goes.
    None,
    /// The new schema reads what the last one wrote.
    Backward,
    /// The new schema reads what all earlier ones wrote.
    BackwardTransitive,
    /// The last schema reads what the new one writes.
    Forward,
    /// All earlier schemas read what the new one writes.
    ForwardTransitive,
    /// Both ways, with the last schema.
    Full,
    /// Both ways, with all earlier schemas.
    FullTransitive,
    /// A level that this client does not know.
    Other(String),
}

impl CompatibilityLevel {
    /// The level as the API writes it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::None => "NONE",
            Self::Backward => "BACKWARD",
            Self::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Self::Forward => "FORWARD",
            Self::ForwardTransitive => "FORWARD_TRANSITIVE",
            Self::Full => "FULL",
            Self::FullTransitive => "FULL_TRANSITIVE",
            Self::Other(text) => text,
        }
    }

    fn from_api(text: String) -> Self {
        match text.as_str() {
            "NONE" => Self::None,
            "BACKWARD" => Self::Backward,
            "BACKWARD_TRANSITIVE" => Self::BackwardTransitive,
            "FORWARD" => Self::Forward,
            "FORWARD_TRANSITIVE" => Self::ForwardTransitive,
            "FULL" => Self::Full,
            "FULL_TRANSITIVE" => Self::FullTransitive,
            _ => Self::Other(text),
        }
    }
}

impl From<Level> for CompatibilityLevel {
    fn from(level: Level) -> Self {
        Self::from_api(level.name().to_owned())
    }
}

impl fmt::Display for CompatibilityLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl RegistryClient {
    /// Makes a client; nothing is sent. Fails when the URL, the authentication or the certificate file cannot be used.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        Ok(Self { transport: Arc::new(Transport::new(options)?), ids: Arc::default() })
    }

    /// The base URL, without user and password.
    pub fn url(&self) -> &str {
        self.transport.url()
    }

    /// Tells this function of each request that fails, but of none whose answer is that something is not known. It is set once, and must not block.
    pub fn observe(&self, observe: impl Fn(&RegistryError) + Send + Sync + 'static) {
        self.transport.observe(observe);
    }

    /// Registers an Avro schema under a subject and returns its id, which is the earlier one when the schema is registered already.
    ///
    /// Answered from the cache after the first success. When the schema breaks the subject's compatibility rule, the error carries the
    /// registry's words and, if the registry tells it, the level that was broken.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<SchemaId, RegistryError> {
        self.ids.get_or_register(subject, schema, self.send_registration(subject, schema)).await
    }

    async fn send_registration(&self, subject: &str, schema: &str) -> Result<SchemaId, RegistryError> {
        let path = ["subjects", subject, "versions"];
        let request = Request { body: Some(schema_body(schema)), ..post("registering subject", subject, &path) };
        let error = match self.transport.json::<IdAnswer>(&request).await {
            Ok(answer) => return Ok(SchemaId(answer.id)),
            Err(error) if error.kind() == ErrorKind::Incompatible => error,
            Err(error) => return Err(error),
        };
        // The level is a help for the reader; a registry that does not tell it has still said what is wrong.
        match self.effective_level(subject).await {
            Ok(level) => Err(error.with_level(level.to_string())),
            Err(_) => Err(error),
        }
    }

    /// The id of a schema if it is registered under the subject.
    pub async fn lookup(&self, subject: &str, schema: &str) -> Result<Option<SchemaId>, RegistryError> {
        let path = ["subjects", subject];
        let request = Request { body: Some(schema_body(schema)), ..post("looking up subject", subject, &path) };
        match self.transport.json::<IdAnswer>(&request).await {
            Ok(answer) => Ok(Some(SchemaId(answer.id))),
            Err(error) if matches!(error.code(), Some(SUBJECT_NOT_FOUND | SCHEMA_NOT_FOUND)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The text of a schema.
    pub async fn schema_by_id(&self, id: SchemaId) -> Result<String, RegistryError> {
        #[derive(Deserialize)]
        struct Answer {
            schema: String,
        }
        let id = id.to_string();
        let path = ["schemas", "ids", &id];
        let answer: Answer = self.transport.json(&get("reading a schema by its id", None, &path)).await?;
        Ok(answer.schema)
    }

    /// Asks whether a schema could be registered, against as many versions as the subject's level demands.
    pub async fn check_compatibility(&self, subject: &str, schema: &str) -> Result<Compatibility, RegistryError> {
        let all = ["compatibility", "subjects", subject, "versions"];
        match self.send_compatibility_check(subject, schema, &all).await {
            // Registries that know no check against several versions have nothing at this path.
            Err(error) if matches!(error.status(), Some(404 | 405)) => {
                self.send_compatibility_check(subject, schema, &[all.as_slice(), &["latest"]].concat()).await
            }
            outcome => outcome,
        }
    }

    async fn send_compatibility_check(
        &self,
        subject: &str,
        schema: &str,
        path: &[&str],
    ) -> Result<Compatibility, RegistryError> {
        #[derive(Deserialize)]
        struct Answer {
            is_compatible: bool,
            #[serde(default)]
            messages: Vec<String>,
        }
        let request = Request {
            body: Some(schema_body(schema)),
            query: Some("verbose=true"),
            ..post("checking the compatibility of subject", subject, path)
        };
        match self.transport.json::<Answer>(&request).await {
            Ok(Answer { is_compatible: true, .. }) => Ok(Compatibility::Compatible),
            Ok(Answer { is_compatible: false, messages }) => Ok(Compatibility::Incompatible(messages)),
            Err(error) if matches!(error.code(), Some(SUBJECT_NOT_FOUND | VERSION_NOT_FOUND)) => {
                Ok(Compatibility::NoVersions)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks for the list of subjects, and so learns whether the registry can be reached, lets these credentials in and is one at all.
    pub async fn ping(&self) -> Result<(), RegistryError> {
        self.transport.array_start(&get("listing subjects", None, &["subjects"])).await
    }

    /// Asks the registry something, and so learns whether it would serve: whether the API answers, as an API does, over a connection that is trusted, to
    /// whom it knows. That it may not be asked this, or does not have it, is an answer as well.
    ///
    /// A page that a web server or a proxy has in its place is none, nor is a refusal of the credentials, nor one to be asked as often.
    pub async fn answers(&self) -> Result<(), RegistryError> {
        self.transport.is_answered::<LevelAnswer>(&global_level_request()).await
    }

    /// The level that a subject has of its own.
    pub async fn subject_level(&self, subject: &str) -> Result<Option<CompatibilityLevel>, RegistryError> {
        let path = ["config", subject];
        let request = get("reading the compatibility level of subject", Some(subject), &path);
        match self.transport.json::<LevelAnswer>(&request).await {
            Ok(answer) => Ok(Some(CompatibilityLevel::from_api(answer.compatibility_level))),
            Err(error) if matches!(error.code(), Some(SUBJECT_NOT_FOUND | SUBJECT_LEVEL_NOT_FOUND)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The level that holds for subjects without one of their own.
    pub async fn global_level(&self) -> Result<CompatibilityLevel, RegistryError> {
        let answer: LevelAnswer = self.transport.json(&global_level_request()).await?;
        Ok(CompatibilityLevel::from_api(answer.compatibility_level))
    }

    /// The level that holds for a subject: its own, else the global one.
    pub async fn effective_level(&self, subject: &str) -> Result<CompatibilityLevel, RegistryError> {
        match self.subject_level(subject).await? {
            Some(level) => Ok(level),
            None => self.global_level().await,
        }
    }
}

impl fmt::Debug for RegistryClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RegistryClient").field("url", &self.url()).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct IdAnswer {
    id: u32,
}

#[derive(Deserialize)]
struct LevelAnswer {
    #[serde(rename = "compatibilityLevel")]
    compatibility_level: String,
}

fn post<'a>(operation: &'static str, subject: &'a str, path: &'a [&'a str]) -> Request<'a> {
    Request { operation, subject: Some(subject), method: Method::POST, path, query: None, body: None }
}

fn global_level_request() -> Request<'static> {
    get("reading the global compatibility level", None, &["config"])
}

fn get<'a>(operation: &'static str, subject: Option<&'a str>, path: &'a [&'a str]) -> Request<'a> {
    Request { operation, subject, method: Method::GET, path, query: None, body: None }
}

/// The body of every request that carries a schema. AVRO is the API's default type, and the one that the oldest registries know.
fn schema_body(schema: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        schema: &'a str,
    }
    serde_json::to_vec(&Body { schema }).expect("a struct of one string is always JSON")
}
