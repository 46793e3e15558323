//! The configuration: a TOML file, overrides from the environment, and secrets from files, read into types that hold what is valid.
//!
//! The journey of a value: `document` turns TOML text into values by known key, `environment` lays the variables over them, and
//! `reader` turns each into its type for the `sections`; what goes wrong on the way is gathered as [`Problem`]s, so that one run names all that can be
//! found. The table in `keys` is the only list of what exists: reading, suggestions for unknown keys, the commented example and the
//! reference all come from it.
//!
//! Secrets are [`SecretString`]s from the moment they are read, and neither a problem's text nor any `Debug` or `Display` here holds one.

mod columns;
mod credentials;
mod document;
mod entries;
mod environment;
mod events;
mod keys;
mod overrides;
mod pattern;
mod postgres_url;
mod prefix;
mod problem;
mod properties;
mod reader;
mod reference;
mod routing;
mod secret;
mod sections;
mod selection;
mod shaping;
mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use encoder::{EncodeOptions, Format};
use registry::Auth;
use secrecy::SecretString;
use url::Url;
use walreceiver::ConnectOptions;

pub use columns::{Columns, MaskRule};
pub use credentials::{broker_host, has_sasl_without_tls};
pub use overrides::TableOverride;
pub use pattern::{ColumnPattern, TablePattern};
pub use prefix::PrefixPattern;
pub use problem::{ConfigError, Problem};
pub use properties::Properties;
pub use routing::{Route, Routing, TopicTemplate};
pub use selection::TableSelection;
pub use shaping::{Shaping, TableIdentity};
pub use values::{LogFormat, LogLevel, Name, TopicName};

use document::{Document, printable};
use problem::{Fault, Place};
use reader::Reader;

/// A valid configuration. Printing it prints no secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the instance: transactional id, checkpoint key, topic prefix.
    pub name: Name,
    /// Bytes of event data in flight, librdkafka's queue included; at least 16 MiB.
    pub memory_limit_bytes: u64,
    /// The source.
    pub postgres: Postgres,
    /// The sink.
    pub kafka: Kafka,
    /// `[snapshot]`: rows that were there before.
    pub snapshot: Snapshot,
    /// `[columns]`: which columns are left out, and of which something else is written.
    pub columns: Columns,
    /// `[events]`: the forms that values, names and deletions take.
    pub events: EncodeOptions,
    /// `[events]`: what is written beside the changes of tables.
    pub metadata: Metadata,
    /// `[[tables]]`: what is otherwise for some tables; the first that matches one is for it.
    pub tables: Vec<TableOverride>,
    /// Where the schemas are registered.
    pub schema_registry: SchemaRegistry,
    /// What becomes of a table in trouble, unless `[[tables]]` says otherwise.
    pub policies: Policies,
    /// The HTTP endpoint.
    pub http: Http,
    /// The log.
    pub log: Log,
    warnings: Vec<String>,
}

/// What becomes of a table in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policies {
    /// When its schemas are not compatible with those before.
    pub on_incompatible: OnIncompatible,
    /// When its key was changed, and nothing says which of the two some rows had.
    pub on_uncertain_key: OnUncertainKey,
}

impl Policies {
    /// Whatever goes wrong stops or holds up the stream.
    pub(crate) const STRICT: Self =
        Self { on_incompatible: OnIncompatible::Stop, on_uncertain_key: OnUncertainKey::Stop };
}

/// What becomes of rows of which nothing says whether they were written before their table's key was changed or after it. Only tables with
/// REPLICA IDENTITY FULL have such rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUncertainKey {
    /// The stream stops before the first of them.
    Stop,
    /// They were written before, and have the key of then.
    Before,
    /// They were written after it, and have the new key.
    After,
    /// They have the key that is likely.
    Likely,
}

/// What becomes of a table whose schemas are not compatible with those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnIncompatible {
    /// The stream waits.
    Stop,
    /// Its changes are dead letters until they are released, and the other tables go on.
    Quarantine,
}

/// `[postgres]`: the source.
#[derive(Clone, Debug)]
pub struct Postgres {
    /// How to connect: what `url`, `password_file` and `connect_timeout` say together.
    pub connect: ConnectOptions,
    /// The tables to stream.
    pub tables: TableSelection,
    /// How often they are matched again while the stream runs.
    pub match_interval: Duration,
    /// The replication slot: 1 to 63 of `a-z`, `0-9` and `_`.
    pub slot: String,
    /// The publication: 1 to 63 bytes, not quoted.
    pub publication: String,
    /// Whether slot and publication are created and altered, or only checked.
    pub manage: bool,
    /// Whether a managed publication publishes partitions as their root.
    pub publish_via_partition_root: bool,
    /// Whether stored generated columns are published (PostgreSQL 18).
    pub publish_generated_columns: bool,
    /// Which changes are streamed, by where they were made.
    pub origin: Origin,
    /// Whether a slot is created with `failover` (PostgreSQL 17).
    pub failover: bool,
    /// The longest time between two status updates.
    pub status_interval: Duration,
}

/// Which changes are streamed, by where they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// All of them.
    Any,
    /// Those that have no replication origin: they were made at this server (PostgreSQL 16).
    None,
}

/// `[kafka]`: the sink.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// `host:port` of one or more brokers, separated by commas.
    pub bootstrap_servers: String,
    /// librdkafka properties, those from files included. None of them is one that pgsluice sets itself.
    pub properties: Properties,
    /// Whether what SASL proves may go without TLS to brokers on other machines.
    pub allow_plaintext_credentials: bool,
    /// A file that holds the bearer token of SASL OAUTHBEARER.
    pub oauthbearer_token_file: Option<PathBuf>,
    /// The compacted topic of checkpoints.
    pub checkpoint_topic: TopicName,
    /// How topics are named, and missing ones created.
    pub topics: Topics,
    /// When Kafka transactions are committed.
    pub transaction: Transaction,
}

/// `[kafka.topics]`: how topics are named, and missing ones created.
#[derive(Clone, Debug)]
pub struct Topics {
    /// Partitions, at least 1; none leaves it to the broker.
    pub partitions: Option<i32>,
    /// Replicas, at least 1; none leaves it to the broker.
    pub replication_factor: Option<i16>,
    /// Topic configuration, verbatim.
    pub config: BTreeMap<String, String>,
    /// How they are named.
    pub routing: Routing,
}

/// `[kafka.transaction]`: when a Kafka transaction is committed. Every split cap is at least the soft cap beside it.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Records after which it is committed at the next boundary of a PostgreSQL transaction.
    pub max_records: u64,
    /// Bytes after which it is committed at the next boundary.
    pub max_bytes: u64,
    /// Age after which it is committed at the next boundary.
    pub max_age: Duration,
    /// Records after which one PostgreSQL transaction is split.
    pub split_after_records: u64,
    /// Bytes after which one PostgreSQL transaction is split.
    pub split_after_bytes: u64,
    /// Age after which one PostgreSQL transaction is split; at most half of librdkafka's `transaction.timeout.ms`.
    pub split_after_age: Duration,
}

/// How many connections can read rows of before at a time.
pub const CONNECTIONS_MAX: u8 = 16;

/// `[snapshot]`: rows that were there before.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Which rows are copied.
    pub mode: SnapshotMode,
    /// How many connections read rows at a time; 1 to [`CONNECTIONS_MAX`].
    pub connections: usize,
    /// How large a table is whose rows several of them read.
    pub split_above_bytes: u64,
    /// How many rows are read in a second, at most.
    pub rows_per_second: Option<u32>,
    /// How long a statement may take that reads rows.
    pub statement_timeout: Duration,
    /// How to connect to the standby that rows are read from, if there is one.
    pub standby: Option<ConnectOptions>,
    /// The topic that commands are read from.
    pub signal_topic: Option<TopicName>,
    /// The topic that is told how copies get on.
    pub notification_topic: Option<TopicName>,
}

/// Which rows are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotMode {
    /// Those of every table that is streamed, when that begins.
    Initial,
    /// The same, and the program ends once they are copied.
    InitialOnly,
    /// The same as `Initial`, and those of every table anew where the slot cannot be gone on with.
    WhenNeeded,
    /// Those of every table, each time that the program starts.
    Always,
    /// None that nobody has asked for.
    Never,
}

/// `[events]`: what is written beside the changes of tables.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// Whether transactions have a topic, with the BEGIN and the END of each.
    pub transaction_topic: bool,
    /// Whether logical decoding messages are asked for.
    pub messages: bool,
    /// The prefixes of those that are written; at least one.
    pub message_prefixes: Vec<PrefixPattern>,
    /// The prefixes of those that are not, all the same.
    pub message_prefixes_except: Vec<PrefixPattern>,
    /// How often a heartbeat is written, if it is.
    pub heartbeat_interval: Option<Duration>,
    /// Its topic, if it is not named as Debezium names it.
    pub heartbeat_topic: Option<TopicName>,
}

impl Metadata {
    /// Whether messages with this prefix are written.
    pub fn wants_message(&self, prefix: &str) -> bool {
        let is_of = |patterns: &[PrefixPattern]| patterns.iter().any(|pattern| pattern.matches(prefix));
        self.messages && is_of(&self.message_prefixes) && !is_of(&self.message_prefixes_except)
    }
}

/// `[schema_registry]`: where the schemas are registered.
#[derive(Clone, Debug)]
pub enum SchemaRegistry {
    /// In a topic that pgsluice keeps itself, and serves on its HTTP endpoint.
    BuiltIn {
        /// The compacted topic of schemas.
        topic: TopicName,
    },
    /// At a Confluent-compatible registry.
    Remote(RemoteRegistry),
}

/// A Confluent-compatible registry.
#[derive(Clone, Debug)]
pub struct RemoteRegistry {
    /// The base URL, without user and password.
    pub url: Url,
    /// How to authenticate.
    pub auth: Auth,
    /// A PEM file of certificate authorities that are trusted besides the system's.
    pub ca_certificate: Option<PathBuf>,
    /// How long one request may take.
    pub timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
}

impl RemoteRegistry {
    /// The options of the registry client.
    pub fn options(&self) -> registry::RegistryOptions {
        registry::RegistryOptions {
            url: self.url.clone(),
            auth: self.auth.clone(),
            request_timeout: self.timeout,
            connect_timeout: self.connect_timeout,
            ca_certificate: self.ca_certificate.clone(),
        }
    }
}

/// `[http]`: the endpoint of metrics, probes and the built-in registry.
#[derive(Clone, Debug)]
pub struct Http {
    /// Address and port; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// What a command has to show; without it, commands are taken from loopback addresses only.
    pub token: Option<SecretString>,
    /// Whether a command may show the token to an instance at another than a loopback address.
    pub allow_plaintext_credentials: bool,
}

/// `[log]`: the log.
#[derive(Clone, Debug)]
pub struct Log {
    /// How lines are written.
    pub format: LogFormat,
    /// What is logged.
    pub level: LogLevel,
}

impl Config {
    /// Whether anything is written that has a schema.
    pub fn needs_registry(&self) -> bool {
        let mut events = std::iter::once(&self.events).chain(self.tables.iter().map(|table| &table.events));
        events.any(|events| events.format == Format::Avro)
    }

    /// Reads a file, if one is named, with overrides from the environment of this process. Without a file the environment must hold
    /// every required key.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let text = match file.map(|path| (path, std::fs::read_to_string(path))) {
            None => String::new(),
            Some((_, Ok(text))) => text,
            Some((path, Err(error))) => {
                let found = format!("cannot read {} ({error})", printable(&path.display().to_string()));
                let fault = Fault::new(found, "give the path of a file; `pgsluice config` prints a commented example");
                return Err(ConfigError::new(vec![Problem { place: Place::File { line: 0 }, key: None, fault }]));
            }
        };
        let variables = environment::from_process(&mut problems);
        Self::from_sources(&text, variables, problems)
    }

    /// Reads TOML text, with overrides from these environment variables. Variables that do not start with `PGSLUICE_` are ignored.
    pub fn parse(text: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        Self::from_sources(text, variables.into_iter().collect(), Vec::new())
    }

    /// What is worth telling the operator and stops nothing, such as a file of a secret that everybody can read.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// An example with every key and its explanation: the required ones set, the others commented out at their defaults.
    pub fn example_toml() -> String {
        reference::example_toml()
    }

    /// The reference of all keys as Markdown tables, one for each section.
    pub fn reference_markdown() -> String {
        reference::reference_markdown()
    }

    /// The paths of all keys, such as `kafka.topics.partitions`.
    pub fn keys() -> impl Iterator<Item = &'static str> {
        keys::KEYS.iter().map(|key| key.path)
    }

    fn from_sources(
        text: &str,
        variables: Vec<(String, String)>,
        mut problems: Vec<Problem>,
    ) -> Result<Self, ConfigError> {
        let mut document = Document::parse(text, &mut problems);
        if problems.iter().any(|problem| problem.key.is_none() && matches!(problem.place, Place::File { .. })) {
            // Where the text is not TOML, every key after the fault would seem missing.
            return Err(ConfigError::new(problems));
        }
        environment::overlay(&mut document, variables, &mut problems);
        let mut reader = Reader::new(document, problems);
        match Self::read(&mut reader) {
            Ok(config) if reader.problems.is_empty() => Ok(Self { warnings: reader.warnings, ..config }),
            _ => Err(ConfigError::new(reader.problems)),
        }
    }
}
