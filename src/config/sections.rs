//! Each section, read key by key, and what its keys must be to each other.

use std::path::PathBuf;
use std::time::Duration;

use registry::Auth;
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use walreceiver::ConnectOptions;

use super::credentials;
use super::document::printable;
use super::events;
use super::keys::{self, Key};
use super::overrides;
use super::postgres_url::PostgresUrl;
use super::problem::Fault;
use super::properties::Properties;
use super::reader::{self, Noted, Reader};
use super::values::{self, BrokerDefaultOr, Identifier, Name, Size, Slot, duration_words};
use super::{
    Columns, Config, Http, Kafka, Log, Metadata, Policies, Postgres, RemoteRegistry, Routing, SchemaRegistry, Snapshot,
    TableSelection, Topics, Transaction,
};

impl Config {
    /// Reads every section before any is given up, so that all problems are noted.
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Noted> {
        let name: Result<Name, Noted> = reader.required(&keys::NAME);
        let memory_limit = memory_limit(reader);
        let postgres = Postgres::read(reader, name.as_ref().ok());
        let kafka = Kafka::read(reader);
        let connect = postgres.as_ref().ok().map(|postgres| &postgres.connect);
        credentials::check_private_keys(reader, connect, kafka.as_ref().ok().map(|kafka| &kafka.properties));
        let snapshot = Snapshot::read(reader, connect);
        let columns = Columns::read(reader);
        let events = events::read(reader);
        let metadata = Metadata::read(reader);
        let policies = policies(reader);
        let tables =
            overrides::read(reader, events.as_ref().ok(), policies.as_ref().ok().copied().unwrap_or(Policies::STRICT));
        let schema_registry = SchemaRegistry::read(reader);
        if let (Ok(kafka), Ok(SchemaRegistry::BuiltIn { topic })) = (&kafka, &schema_registry)
            && kafka.checkpoint_topic == *topic
        {
            let is_given = reader.is_given(&keys::REGISTRY_TOPIC);
            let key = if is_given { &keys::REGISTRY_TOPIC } else { &keys::KAFKA_CHECKPOINT_TOPIC };
            let found = format!("kafka.checkpoint_topic and schema_registry.topic are both {topic}");
            reader.problem(key, Fault::new(found, "give each a topic of its own"));
        }
        let http = Http::read(reader);
        let log = Log::read(reader);
        Ok(Self {
            name: name?,
            memory_limit_bytes: memory_limit?,
            postgres: postgres?,
            kafka: kafka?,
            snapshot: snapshot?,
            columns: columns?,
            events: events?,
            metadata: metadata?,
            tables: tables?,
            schema_registry: schema_registry?,
            policies: policies?,
            http: http?,
            log: log?,
            warnings: Vec::new(),
        })
    }
}

fn policies(reader: &mut Reader) -> Result<Policies, Noted> {
    let on_incompatible = reader.required(&keys::REGISTRY_ON_INCOMPATIBLE);
    let on_uncertain_key = reader.required(&keys::POSTGRES_ON_UNCERTAIN_KEY);
    Ok(Policies { on_incompatible: on_incompatible?, on_uncertain_key: on_uncertain_key? })
}

fn memory_limit(reader: &mut Reader) -> Result<u64, Noted> {
    let Size(bytes) = reader.required(&keys::MEMORY_LIMIT)?;
    reader.in_range(&keys::MEMORY_LIMIT, bytes, (16 << 20, 1 << 40), |bytes| Size(*bytes).to_string())
}

impl Postgres {
    fn read(reader: &mut Reader, name: Option<&Name>) -> Result<Self, Noted> {
        let connect = connect_options(reader);
        let include = reader.list(&keys::POSTGRES_TABLES);
        let exclude = reader.list_or_none(&keys::POSTGRES_EXCLUDE_TABLES);
        let match_interval =
            duration_from(reader, &keys::POSTGRES_MATCH_INTERVAL, (Duration::from_secs(1), Duration::from_hours(1)));
        let slot = replication_object(reader, &keys::POSTGRES_SLOT, name, |Slot(text)| text);
        let publication = replication_object(reader, &keys::POSTGRES_PUBLICATION, name, |Identifier(text)| text);
        let manage = reader.required(&keys::POSTGRES_MANAGE);
        let publish_via_partition_root = reader.required(&keys::POSTGRES_PUBLISH_VIA_PARTITION_ROOT);
        let publish_generated_columns = reader.required(&keys::POSTGRES_PUBLISH_GENERATED_COLUMNS);
        let origin = reader.required(&keys::POSTGRES_ORIGIN);
        let failover = reader.required(&keys::POSTGRES_FAILOVER);
        let status_interval = duration(reader, &keys::POSTGRES_STATUS_INTERVAL, Duration::from_mins(5));
        Ok(Self {
            connect: connect?,
            tables: TableSelection { include: include?, exclude: exclude? },
            match_interval: match_interval?,
            slot: slot?,
            publication: publication?,
            manage: manage?,
            publish_via_partition_root: publish_via_partition_root?,
            publish_generated_columns: publish_generated_columns?,
            origin: origin?,
            failover: failover?,
            status_interval: status_interval?,
        })
    }
}

/// The URL, with the password from its file and the time limit from its key.
fn connect_options(reader: &mut Reader) -> Result<ConnectOptions, Noted> {
    let url: Result<PostgresUrl, Noted> = reader.required(&keys::POSTGRES_URL);
    let password = reader.secret_file(&keys::POSTGRES_PASSWORD_FILE);
    let timeout = if reader.is_given(&keys::POSTGRES_CONNECT_TIMEOUT) {
        duration(reader, &keys::POSTGRES_CONNECT_TIMEOUT, TIMEOUT_MAX).map(Some)
    } else {
        Ok(None)
    };
    let PostgresUrl(mut options) = url?;
    if options.password().is_some() && reader.is_given(&keys::POSTGRES_PASSWORD_FILE) {
        let found = format!("postgres.url holds a password too ({})", reader.place(&keys::POSTGRES_URL).words());
        return Err(
            reader.problem(&keys::POSTGRES_PASSWORD_FILE, Fault::new(found, "give the password in one way only"))
        );
    }
    if let Some(password) = password? {
        options = options.with_password(password);
    }
    if let Some(timeout) = timeout? {
        options = options.with_connect_timeout(timeout);
    }
    if options.connect_timeout().is_none() {
        let fault = Fault::new(
            "connect_timeout is 0, which is no limit",
            "give it at least 1 second, or set postgres.connect_timeout",
        );
        return Err(reader.problem(&keys::POSTGRES_URL, fault));
    }
    credentials::check_postgres(reader, options)
}

/// A slot's or publication's name: the one given, or the default made from the instance's name, which may be too long.
fn replication_object<T: values::FromData>(
    reader: &mut Reader,
    key: &Key,
    name: Option<&Name>,
    text: impl Fn(T) -> String,
) -> Result<String, Noted> {
    if let Some(given) = reader.optional::<T>(key)? {
        return Ok(text(given));
    }
    let default = name.ok_or(Noted)?.replication_object();
    if default.len() > values::IDENTIFIER_BYTES_MAX {
        let found = format!(
            "the default {default} is longer than the {} bytes that PostgreSQL takes",
            values::IDENTIFIER_BYTES_MAX
        );
        return Err(reader.problem(key, Fault::new(found, format!("set {}", key.path))));
    }
    Ok(default)
}

impl Kafka {
    fn read(reader: &mut Reader) -> Result<Self, Noted> {
        let bootstrap_servers = bootstrap_servers(reader);
        let properties = Properties::read(reader);
        let allowed = reader.required(&keys::KAFKA_ALLOW_PLAINTEXT_CREDENTIALS);
        let guarded = match (&bootstrap_servers, &properties, &allowed) {
            (Ok(servers), Ok(properties), Ok(false)) => credentials::check_kafka(reader, servers, properties),
            _ => Ok(()),
        };
        let token_file = reader.optional(&keys::KAFKA_OAUTHBEARER_TOKEN_FILE);
        let token_file = match &properties {
            Ok(properties) => token_file.and_then(|file| credentials::check_oauthbearer(reader, properties, file)),
            Err(Noted) => token_file,
        };
        let checkpoint_topic = reader.required(&keys::KAFKA_CHECKPOINT_TOPIC);
        let topics = Topics::read(reader);
        let transaction = Transaction::read(reader, properties.as_ref().ok());
        guarded?;
        Ok(Self {
            bootstrap_servers: bootstrap_servers?,
            properties: properties?,
            allow_plaintext_credentials: allowed?,
            oauthbearer_token_file: token_file?,
            checkpoint_topic: checkpoint_topic?,
            topics: topics?,
            transaction: transaction?,
        })
    }
}

fn bootstrap_servers(reader: &mut Reader) -> Result<String, Noted> {
    let text: String = reader.required(&keys::KAFKA_BOOTSTRAP_SERVERS)?;
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    // An IPv6 address stands in brackets; librdkafka takes a missing port for 9092.
    let is_server = |server: &str| {
        let server = server.split_once("://").map_or(server, |(_, rest)| rest);
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (server, None),
        };
        !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_graphic())
            && !host.contains('@')
            && port.is_none_or(is_port)
    };
    if text.split(',').map(str::trim).all(is_server) {
        return Ok(text);
    }
    let fault = values::found_text(&text, "give host:port of one or more brokers, separated by commas");
    Err(reader.problem(&keys::KAFKA_BOOTSTRAP_SERVERS, fault))
}

impl Topics {
    fn read(reader: &mut Reader) -> Result<Self, Noted> {
        let partitions = count_or_broker_default(reader, &keys::KAFKA_TOPICS_PARTITIONS, 100_000);
        let replication_factor =
            count_or_broker_default(reader, &keys::KAFKA_TOPICS_REPLICATION_FACTOR, i64::from(i16::MAX));
        let config = Properties::read_topic_config(reader);
        let routing = Routing::read(reader);
        Ok(Self {
            partitions: partitions?.and_then(|count| i32::try_from(count).ok()),
            replication_factor: replication_factor?.and_then(|count| i16::try_from(count).ok()),
            config: config?,
            routing: routing?,
        })
    }
}

fn count_or_broker_default(reader: &mut Reader, key: &Key, maximum: i64) -> Result<Option<i64>, Noted> {
    let BrokerDefaultOr(count) = reader.required(key)?;
    let Some(count) = count else { return Ok(None) };
    if (1..=maximum).contains(&count) {
        return Ok(Some(count));
    }
    let fix = format!("give a number from 1 to {maximum}, or -1 for the broker's default");
    Err(reader.problem(key, Fault::new(format!("found {count}"), fix)))
}

impl Transaction {
    fn read(reader: &mut Reader, properties: Option<&Properties>) -> Result<Self, Noted> {
        let max_records = records(reader, &keys::TRANSACTION_MAX_RECORDS);
        let max_bytes = bytes(reader, &keys::TRANSACTION_MAX_BYTES);
        let max_age = duration_from(reader, &keys::TRANSACTION_MAX_AGE, (Duration::from_millis(1), SPLIT_AGE_MAX));
        let split_after_records = records(reader, &keys::TRANSACTION_SPLIT_AFTER_RECORDS);
        let split_after_bytes = bytes(reader, &keys::TRANSACTION_SPLIT_AFTER_BYTES);
        let split_after_age =
            duration_from(reader, &keys::TRANSACTION_SPLIT_AFTER_AGE, (Duration::from_millis(1), SPLIT_AGE_MAX));
        let timeout = properties.ok_or(Noted).and_then(|properties| transaction_timeout(reader, properties));
        let transaction = Self {
            max_records: max_records?,
            max_bytes: max_bytes?,
            max_age: max_age?,
            split_after_records: split_after_records?,
            split_after_bytes: split_after_bytes?,
            split_after_age: split_after_age?,
        };
        transaction.check_split_caps(reader);
        let timeout = timeout?;
        if transaction.split_after_age > timeout / 2 {
            let found = format!(
                "found {}, which is over half of librdkafka's transaction.timeout.ms ({})",
                duration_words(transaction.split_after_age),
                duration_words(timeout)
            );
            let fix = format!(
                "give at most {}, or raise \"transaction.timeout.ms\" in kafka.properties up to the broker's transaction.max.timeout.ms; \
                 the rest of the time is for delivering and committing",
                duration_words(timeout / 2)
            );
            reader.problem(&keys::TRANSACTION_SPLIT_AFTER_AGE, Fault::new(found, fix));
        }
        Ok(transaction)
    }

    fn check_split_caps(&self, reader: &mut Reader) {
        let mut check = |is_below: bool, soft: &Key, split: &Key, found: String| {
            if is_below {
                // Reported where the operator wrote something, which may be the soft cap alone.
                let (key, fix) = if reader.is_given(split) {
                    (split, format!("give at least {}", soft.path))
                } else {
                    (soft, format!("give at most {}, or raise that", split.path))
                };
                reader.problem(key, Fault::new(found, fix));
            }
        };
        check(
            self.split_after_records < self.max_records,
            &keys::TRANSACTION_MAX_RECORDS,
            &keys::TRANSACTION_SPLIT_AFTER_RECORDS,
            format!("max_records is {} and split_after_records is {}", self.max_records, self.split_after_records),
        );
        check(
            self.split_after_bytes < self.max_bytes,
            &keys::TRANSACTION_MAX_BYTES,
            &keys::TRANSACTION_SPLIT_AFTER_BYTES,
            format!("max_bytes is {} and split_after_bytes is {}", Size(self.max_bytes), Size(self.split_after_bytes)),
        );
        check(
            self.split_after_age < self.max_age,
            &keys::TRANSACTION_MAX_AGE,
            &keys::TRANSACTION_SPLIT_AFTER_AGE,
            format!(
                "max_age is {} and split_after_age is {}",
                duration_words(self.max_age),
                duration_words(self.split_after_age)
            ),
        );
    }
}

/// The time after which the broker aborts a transaction: librdkafka's property, with its default and its range.
fn transaction_timeout(reader: &mut Reader, properties: &Properties) -> Result<Duration, Noted> {
    const NAME: &str = "transaction.timeout.ms";
    let Some(text) = properties.get(NAME) else { return Ok(Duration::from_mins(1)) };
    if let Some(timeout_ms) =
        text.parse::<u64>().ok().filter(|timeout_ms| (1_000..=i32::MAX as u64).contains(timeout_ms))
    {
        return Ok(Duration::from_millis(timeout_ms));
    }
    let place = reader.place(&keys::KAFKA_PROPERTIES);
    let fault = Fault::new("found no whole number that librdkafka takes", "give milliseconds from 1000 to 2147483647");
    Err(reader.note(place, reader::entry_path(&keys::KAFKA_PROPERTIES, NAME), fault))
}

impl Metadata {
    fn read(reader: &mut Reader) -> Result<Self, Noted> {
        let transaction_topic = reader.required(&keys::EVENTS_TRANSACTION_TOPIC);
        let messages = reader.required(&keys::EVENTS_MESSAGES);
        let message_prefixes = reader.list(&keys::EVENTS_MESSAGE_PREFIXES);
        let message_prefixes_except = reader.list_or_none(&keys::EVENTS_MESSAGE_PREFIXES_EXCEPT);
        let heartbeat_interval = reader.optional(&keys::EVENTS_HEARTBEAT_INTERVAL).and_then(|interval| {
            let range = (Duration::from_secs(1), Duration::from_hours(1));
            let check = |interval| {
                reader.in_range(&keys::EVENTS_HEARTBEAT_INTERVAL, interval, range, |duration| duration_words(*duration))
            };
            interval.map(check).transpose()
        });
        let heartbeat_topic = reader.optional(&keys::EVENTS_HEARTBEAT_TOPIC);
        Ok(Self {
            heartbeat_interval: heartbeat_interval?,
            heartbeat_topic: heartbeat_topic?,
            transaction_topic: transaction_topic?,
            messages: messages?,
            message_prefixes: message_prefixes?,
            message_prefixes_except: message_prefixes_except?,
        })
    }
}

impl SchemaRegistry {
    /// Whether there is a URL says which of the two it is. Keys of the other one are problems, not left unread.
    fn read(reader: &mut Reader) -> Result<Self, Noted> {
        let topic = reader.required(&keys::REGISTRY_TOPIC);
        let url = registry_url(reader);
        let user: Result<Option<String>, Noted> = reader.optional(&keys::REGISTRY_USER);
        let password = reader.secret(&keys::REGISTRY_PASSWORD, &keys::REGISTRY_PASSWORD_FILE);
        let token = reader.secret(&keys::REGISTRY_TOKEN, &keys::REGISTRY_TOKEN_FILE);
        let ca_certificate: Result<Option<PathBuf>, Noted> = reader.optional(&keys::REGISTRY_CA_CERTIFICATE);
        let allowed = reader.required(&keys::REGISTRY_ALLOW_PLAINTEXT_CREDENTIALS);
        let timeout = duration(reader, &keys::REGISTRY_TIMEOUT, TIMEOUT_MAX);
        let connect_timeout = duration(reader, &keys::REGISTRY_CONNECT_TIMEOUT, TIMEOUT_MAX);
        let Some((url, url_auth)) = url? else {
            for key in REMOTE_ONLY {
                if reader.is_given(key) {
                    let fault = Fault::new(
                        "there is no schema_registry.url, so that the built-in registry is used",
                        "set schema_registry.url, or leave this out",
                    );
                    reader.problem(key, fault);
                }
            }
            return Ok(Self::BuiltIn { topic: topic? });
        };
        if reader.is_given(&keys::REGISTRY_TOPIC) {
            let found = "schema_registry.url is given, so that the built-in registry is not used";
            reader.problem(&keys::REGISTRY_TOPIC, Fault::new(found, "leave one of the two out"));
        }
        let auth = registry_auth(reader, url_auth, user?, password?, token?);
        if !allowed? && let Ok(auth) = &auth {
            credentials::check_registry(reader, &url, auth)?;
        }
        Ok(Self::Remote(RemoteRegistry {
            url,
            auth: auth?,
            ca_certificate: ca_certificate?,
            timeout: timeout?,
            connect_timeout: connect_timeout?,
        }))
    }
}

/// What means nothing to the built-in registry.
const REMOTE_ONLY: &[&Key] = &[
    &keys::REGISTRY_USER,
    &keys::REGISTRY_PASSWORD,
    &keys::REGISTRY_PASSWORD_FILE,
    &keys::REGISTRY_TOKEN,
    &keys::REGISTRY_TOKEN_FILE,
    &keys::REGISTRY_CA_CERTIFICATE,
];

fn registry_url(reader: &mut Reader) -> Result<Option<(Url, Auth)>, Noted> {
    const FIX: &str = "give http://host:port or https://host:port, with a path if the registry has one";
    let Some(text): Option<SecretString> = reader.optional(&keys::REGISTRY_URL)? else { return Ok(None) };
    // What is found is not quoted: it may hold a password.
    let fault = match Url::parse(text.expose_secret()) {
        Err(error) => Fault::new(format!("not a URL ({error})"), FIX),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            Fault::new(format!("found the scheme {}", printable(url.scheme())), FIX)
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            Fault::new("found a query or fragment, which would be lost", FIX)
        }
        Ok(url) if url.path().contains('@') => Fault::new(
            "found a @ behind the first /, as when a password holds a /",
            "percent-encode characters such as @ / : # in a user or password, or give them as keys of their own",
        ),
        Ok(mut url) => {
            let auth = Auth::take_from(&mut url);
            return Ok(Some((url, auth)));
        }
    };
    Err(reader.problem(&keys::REGISTRY_URL, fault))
}

/// One way of authentication, or a problem for each that is too much or too little.
fn registry_auth(
    reader: &mut Reader,
    url_auth: Auth,
    user: Option<String>,
    password: Option<SecretString>,
    token: Option<SecretString>,
) -> Result<Auth, Noted> {
    const ONE_WAY: &str = "authenticate in one way only";
    let in_url = !matches!(url_auth, Auth::None);
    let password_key = if reader.is_given(&keys::REGISTRY_PASSWORD_FILE) {
        &keys::REGISTRY_PASSWORD_FILE
    } else {
        &keys::REGISTRY_PASSWORD
    };
    let token_key =
        if reader.is_given(&keys::REGISTRY_TOKEN_FILE) { &keys::REGISTRY_TOKEN_FILE } else { &keys::REGISTRY_TOKEN };
    let (key, fault) = match (user, password, token) {
        (None, None, None) => return Ok(url_auth),
        (None, None, Some(_)) if in_url => (token_key, Fault::new("schema_registry.url holds a user too", ONE_WAY)),
        (None, None, Some(token)) => return Ok(Auth::Bearer(token)),
        (Some(_), _, _) if in_url => {
            (&keys::REGISTRY_USER, Fault::new("schema_registry.url holds a user too", ONE_WAY))
        }
        (_, Some(_), _) if in_url => (password_key, Fault::new("schema_registry.url holds a user too", ONE_WAY)),
        (_, _, Some(_)) => (token_key, Fault::new("schema_registry.user or its password is given too", ONE_WAY)),
        (Some(user), _, None) if user.is_empty() || user.contains(':') => (
            &keys::REGISTRY_USER,
            values::found_text(&user, "give a user without `:`, which HTTP basic authentication cannot carry"),
        ),
        (Some(user), Some(password), None) => return Ok(Auth::Basic { user, password }),
        (Some(_), None, None) => (
            &keys::REGISTRY_USER,
            Fault::new("there is no password", "set schema_registry.password or schema_registry.password_file"),
        ),
        (None, Some(_), None) => (password_key, Fault::new("there is no user", "set schema_registry.user")),
    };
    Err(reader.problem(key, fault))
}

impl Snapshot {
    fn read(reader: &mut Reader, connect: Option<&ConnectOptions>) -> Result<Self, Noted> {
        let mode = reader.required(&keys::SNAPSHOT_MODE);
        let connections = reader.required(&keys::SNAPSHOT_CONNECTIONS);
        let range = (1, i64::from(super::CONNECTIONS_MAX));
        let connections = connections
            .and_then(|count: i64| reader.in_range(&keys::SNAPSHOT_CONNECTIONS, count, range, i64::to_string));
        let split_above = bytes(reader, &keys::SNAPSHOT_SPLIT_ABOVE);
        let rows = reader.optional(&keys::SNAPSHOT_ROWS_PER_SECOND).and_then(|rows: Option<i64>| {
            let in_range =
                |rows| reader.in_range(&keys::SNAPSHOT_ROWS_PER_SECOND, rows, (1, 1_000_000_000), i64::to_string);
            rows.map(in_range).transpose()
        });
        let range = (Duration::from_secs(1), Duration::from_hours(1));
        let statement_timeout = duration_from(reader, &keys::SNAPSHOT_STATEMENT_TIMEOUT, range);
        let standby = standby(reader, connect);
        let signal_topic = reader.optional(&keys::SNAPSHOT_SIGNAL_TOPIC);
        let notification_topic = reader.optional(&keys::SNAPSHOT_NOTIFICATION_TOPIC);
        Ok(Self {
            signal_topic: signal_topic?,
            notification_topic: notification_topic?,
            mode: mode?,
            connections: usize::try_from(connections?).unwrap_or(1),
            split_above_bytes: split_above?,
            rows_per_second: rows?.and_then(|rows| u32::try_from(rows).ok()),
            statement_timeout: statement_timeout?,
            standby: standby?,
        })
    }
}

/// The standby that rows are read from: another place, and all else as in `[postgres]`.
fn standby(reader: &mut Reader, connect: Option<&ConnectOptions>) -> Result<Option<ConnectOptions>, Noted> {
    let host: Result<Option<String>, Noted> = reader.optional(&keys::SNAPSHOT_STANDBY_HOST);
    let port: Option<i64> = reader.optional(&keys::SNAPSHOT_STANDBY_PORT)?;
    let in_range = |port| reader.in_range(&keys::SNAPSHOT_STANDBY_PORT, port, (1, i64::from(u16::MAX)), i64::to_string);
    let port = port.map(in_range).transpose()?.and_then(|port| u16::try_from(port).ok());
    let Some(host) = host? else {
        if port.is_some() {
            let fault = Fault::new("there is no snapshot.standby_host", "set that too, or leave this out");
            return Err(reader.problem(&keys::SNAPSHOT_STANDBY_PORT, fault));
        }
        return Ok(None);
    };
    // What is wrong with the URL was noted there.
    let options = connect.ok_or(Noted)?.clone().with_server(&host, port).map_err(|error| {
        let fault = Fault::new(error.to_string(), "give a host name, an address, or the folder of a Unix socket");
        reader.problem(&keys::SNAPSHOT_STANDBY_HOST, fault)
    })?;
    credentials::check_standby(reader, options).map(Some)
}

impl Http {
    fn read(reader: &mut Reader) -> Result<Self, Noted> {
        let listen = reader.required(&keys::HTTP_LISTEN);
        let token = reader.secret(&keys::HTTP_TOKEN, &keys::HTTP_TOKEN_FILE);
        let allowed = reader.required(&keys::HTTP_ALLOW_PLAINTEXT_CREDENTIALS);
        Ok(Self { listen: listen?, token: token?, allow_plaintext_credentials: allowed? })
    }
}

impl Log {
    fn read(reader: &mut Reader) -> Result<Self, Noted> {
        let format = reader.required(&keys::LOG_FORMAT);
        let level = reader.required(&keys::LOG_LEVEL);
        Ok(Self { format: format?, level: level? })
    }
}

/// The longest that a request or an attempt to connect may be allowed to take.
const TIMEOUT_MAX: Duration = Duration::from_mins(10);

/// Half of the 15 minutes that a broker allows a transaction unless told otherwise.
const SPLIT_AGE_MAX: Duration = Duration::from_secs(450);

fn duration(reader: &mut Reader, key: &Key, maximum: Duration) -> Result<Duration, Noted> {
    duration_from(reader, key, (Duration::from_millis(100), maximum))
}

fn duration_from(reader: &mut Reader, key: &Key, range: (Duration, Duration)) -> Result<Duration, Noted> {
    let value: Duration = reader.required(key)?;
    reader.in_range(key, value, range, |duration| duration_words(*duration))
}

fn records(reader: &mut Reader, key: &Key) -> Result<u64, Noted> {
    let count: i64 = reader.required(key)?;
    let count = reader.in_range(key, count, (1, 1_000_000_000), i64::to_string)?;
    Ok(count.unsigned_abs())
}

fn bytes(reader: &mut Reader, key: &Key) -> Result<u64, Noted> {
    let Size(bytes) = reader.required(key)?;
    reader.in_range(key, bytes, (1 << 10, 1 << 40), |bytes| Size(*bytes).to_string())
}
