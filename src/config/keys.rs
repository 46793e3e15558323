//! The table of keys: the one place that says which keys exist, what they hold, what they default to and what they mean.
//!
//! The reader takes a [`Key`] rather than a string, so that a key that is not in the table cannot be read; defaults are TOML text read
//! by the same code as the user's text, so that the documented default is the real one. A test refuses a key that is never read.

/// One key of the configuration.
#[derive(Debug)]
pub(super) struct Key {
    /// The dotted path from the root, such as `kafka.topics.partitions`.
    pub(super) path: &'static str,
    /// What the value looks like.
    pub(super) kind: Kind,
    /// What holds when the key is absent.
    pub(super) presence: Presence,
    /// What the key does, in sentences.
    pub(super) doc: &'static str,
}

impl Key {
    /// The section part of the path (`kafka.topics`, or the empty string at the root) and the key's own name.
    pub(super) fn split(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }

    /// The environment variable that overrides the key.
    pub(super) fn variable(&self) -> String {
        super::environment::variable_name(self.path)
    }
}

/// The shape of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any string.
    Text,
    /// A string that is never printed.
    Secret,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// Bytes: `"64MiB"` or a whole number of bytes.
    Size,
    /// A span of time: `"500ms"`, `"10s"`.
    Duration,
    /// A path of a file, taken from the working folder when relative.
    Path,
    /// A list of strings.
    TextList,
    /// A table of strings, numbers and booleans, whose names are not pgsluice's.
    TextMap,
    /// A list of tables, whose names are told with the key.
    TableList,
}

impl Kind {
    /// The name in the reference.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Secret => "string, secret",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Size => "size",
            Self::Duration => "duration",
            Self::Path => "path",
            Self::TextList => "list of strings",
            Self::TextMap => "table",
            Self::TableList => "list of tables",
        }
    }
}

/// What holds when a key is absent. Examples and defaults are TOML text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Presence {
    /// The key must be given.
    Required { example: &'static str },
    /// The key has this value.
    Default(&'static str),
    /// The value comes from other keys, as the words say.
    Derived { words: &'static str, example: &'static str },
    /// There is no value.
    Optional { example: &'static str },
}

impl Presence {
    /// The TOML text that stands in the commented example.
    pub(super) fn example(self) -> &'static str {
        match self {
            Self::Required { example } | Self::Derived { example, .. } | Self::Optional { example } => example,
            Self::Default(text) => text,
        }
    }
}

/// A table of the configuration, with the sentence that introduces it.
#[derive(Debug)]
pub(super) struct Section {
    /// The dotted path, empty for the root.
    pub(super) path: &'static str,
    /// What the section is about.
    pub(super) doc: &'static str,
}

/// The sections in the order in which they are printed.
pub(super) const SECTIONS: &[Section] = &[
    Section { path: "", doc: "The instance." },
    Section {
        path: "postgres",
        doc: "The source: one database of a PostgreSQL 14 to 18 server with `wal_level = logical`.",
    },
    Section { path: "kafka", doc: "The sink: an Apache Kafka 3.9 or 4 cluster." },
    Section {
        path: "kafka.topics",
        doc: "How topics are named, and how one that is missing is created. A topic that exists is left as it is.",
    },
    Section {
        path: "kafka.transaction",
        doc: "When a Kafka transaction is committed. It is committed as soon as PostgreSQL has nothing more to send; under load \
              it grows until a cap is reached.",
    },
    Section {
        path: "snapshot",
        doc: "Rows that were there before the stream: copied beside it, each in its place among the events of its key.",
    },
    Section {
        path: "columns",
        doc: "Which columns are in the records, and of which something else is written. Columns are named by patterns `schema.table.column` \
              of the same form as those of `postgres.tables`; a partition obeys what is said of the table that it is a partition of. \
              PostgreSQL sends the values nevertheless: what must not leave it belongs in a publication with a column list.",
    },
    Section {
        path: "events",
        doc: "The form of what is in a record. Each default is Debezium's, so that its consumers need no change; docs/types.md shows \
              what each form looks like, and which hold every value of a type. A form that is changed changes the schema: the registry \
              may refuse the new one, and records that are written already stay as they are.",
    },
    Section {
        path: "schema_registry",
        doc: "Where the Avro schemas are registered. Without `url`, pgsluice is a registry itself: the schemas are in a topic, and served at \
              `http.listen` as the read side of the Confluent API.",
    },
    Section {
        path: "http",
        doc: "The HTTP endpoint with `/metrics`, `/livez` and `/readyz`, and with the schemas of the built-in registry.",
    },
    Section { path: "log", doc: "The log, written to standard error." },
];

/// Finds the section with this exact path.
pub(super) fn section(path: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.path == path)
}

/// Finds the key with this exact path.
pub(super) fn key(path: &str) -> Option<&'static Key> {
    KEYS.iter().copied().find(|key| key.path == path)
}

/// The known path nearest to a path that is not known, keys and sections alike.
pub(super) fn nearest(path: &str) -> &'static str {
    let sections = SECTIONS.iter().map(|section| section.path).filter(|path| !path.is_empty());
    closest(path, KEYS.iter().map(|key| key.path).chain(sections))
}

/// The known key nearest to a path that is not known.
pub(super) fn nearest_key(path: &str) -> &'static str {
    closest(path, KEYS.iter().map(|key| key.path))
}

/// A key in the wrong section (`slot` at the root) or with half of its name (`memory`) is as likely as a misspelt one, so the last names
/// are compared as well, at a small price.
fn closest(path: &str, known: impl Iterator<Item = &'static str>) -> &'static str {
    let split = |path: &'_ str| -> (String, String) {
        let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
        (section.to_owned(), name.to_owned())
    };
    let (section, name) = split(path);
    let distance = |known: &str| {
        let (known_section, known_name) = split(known);
        let is_part = name.len() >= 3 && (known_name.starts_with(&name) || name.starts_with(&known_name));
        let between_names = strsim::damerau_levenshtein(&name, &known_name).min(if is_part { 1 } else { usize::MAX });
        let between_sections = if section == known_section { 0 } else { 2 };
        let whole = strsim::damerau_levenshtein(path, known);
        (whole.min(between_names + between_sections), whole)
    };
    known.min_by_key(|known| distance(known)).unwrap_or_default()
}

/// Declares one constant a key, and the list of them all.
macro_rules! keys {
    ($($name:ident: $path:literal, $kind:expr, $presence:expr, $doc:literal;)*) => {
        $(pub(super) const $name: Key = Key { path: $path, kind: $kind, presence: $presence, doc: $doc };)*
        /// Every key, in the order in which they are printed.
        pub(super) const KEYS: &[&Key] = &[$(&$name),*];
    };
}

keys! {
    NAME: "name", Kind::Text, Presence::Required { example: r#""shop""# },
        "The name of this instance: Kafka transactional id, key of its checkpoint, prefix of its topics unless `kafka.topics` names them otherwise, and \
         the source of the default slot and publication. 1 to 100 letters, digits, `.`, `_` and `-`, not starting with `.` or `-`. Never \
         change it, or the checkpoint is not found.";
    MEMORY_LIMIT: "memory_limit", Kind::Size, Presence::Default(r#""64MiB""#),
        "Bytes of event data in flight, librdkafka's queue included. When it is full, pgsluice stops reading from PostgreSQL until \
         Kafka has taken some. At least 16 MiB.";

    TABLES: "tables", Kind::TableList,
        Presence::Optional { example: r#"[{ match = "public.orders", partitions = 12, events = { decimals = "string" } }]"# },
        "What is otherwise for some tables, each of which is written as `[[tables]]`: `match`, one or more patterns `schema.table`; `topic`, a \
         template as in `kafka.topics.template`, before which no route counts; `key`, the columns of the key instead of the replica identity's, each of which has to be in the replica \
         identity (FULL has all); `partitions` of the topic when it is created; `on_incompatible` as in `[schema_registry]`; `on_uncertain_key` as in `[postgres]`; and under \
         `events` any key of `[events]`. The first that matches a table is for it, alone. Which tables are streamed is said by \
         `postgres.tables`.";

    POSTGRES_URL: "postgres.url", Kind::Secret,
        Presence::Required { example: r#""postgres://pgsluice@localhost:5432/shop?sslmode=prefer""# },
        "Where PostgreSQL is: `postgres://user:password@host:5432/database?sslmode=verify-full`. A Unix socket is \
         `postgres:///database?host=/var/run/postgresql&user=pgsluice`. The role needs REPLICATION, and with `manage` the right to create \
         the publication.";
    POSTGRES_PASSWORD_FILE: "postgres.password_file", Kind::Path, Presence::Optional { example: r#""/run/secrets/postgres-password""# },
        "A file that holds the password, instead of a password in `url`. One trailing line break is dropped.";
    POSTGRES_ALLOW_PLAINTEXT_CREDENTIALS: "postgres.allow_plaintext_credentials", Kind::Boolean, Presence::Default("false"),
        "Let the password go without TLS to a server on another machine. Otherwise `sslmode=disable` is refused there, and with `sslmode=prefer` a \
         server that does not offer TLS is. `localhost`, loopback addresses and Unix sockets are this machine; other names are not.";
    POSTGRES_TABLES: "postgres.tables", Kind::TextList, Presence::Required { example: r#"["public.*"]"# },
        "The tables to stream, as patterns `schema.table` in which `*` stands for any characters. Names are compared exactly as the \
         catalog has them; a part that holds `.` or a literal `*` is put in double quotes. System schemas are never matched.";
    POSTGRES_EXCLUDE_TABLES: "postgres.exclude_tables", Kind::TextList, Presence::Optional { example: r#"["public.tmp_*"]"# },
        "Tables to leave out of `tables`, as patterns of the same form, whichever of the two is narrower. A table is left out with all of \
         its partitions; partitions on their own can be left out only where rows come under their names, with \
         `publish_via_partition_root = false`. A managed publication does not hold what is left out.";
    POSTGRES_MATCH_INTERVAL: "postgres.match_interval", Kind::Duration, Presence::Default(r#""10s""#),
        "How often `tables` and `exclude_tables` are matched again while the stream runs. With `manage`, a table that has appeared is added to the publication \
         and streamed from there on; otherwise the log says what the publication lacks. From 1 s to 1 h.";
    POSTGRES_ON_UNCERTAIN_KEY: "postgres.on_uncertain_key", Kind::Text, Presence::Default(r#""stop""#),
        "The rows of a table with REPLICA IDENTITY FULL come without their key, so that it is the catalog's. What becomes of rows of which nothing says \
         whether they were written before that key was changed or after it: `stop`, the stream stops before the first of them; `before`, they have the key \
         of before; `after`, the new one; `likely`, the one that the transactions' numbers suggest, with a warning. With \
         `track_commit_timestamp = on` at the server fewer rows are in doubt.";
    POSTGRES_SLOT: "postgres.slot", Kind::Text, Presence::Derived { words: "`pgsluice_` and `name`", example: r#""pgsluice_shop""# },
        "The replication slot: 1 to 63 of `a-z`, `0-9` and `_`. The default is `pgsluice_` and `name` in lower case with every other \
         character turned into `_`; two names that differ in those alone need slots of their own.";
    POSTGRES_PUBLICATION: "postgres.publication", Kind::Text,
        Presence::Derived { words: "`pgsluice_` and `name`", example: r#""pgsluice_shop""# },
        "The publication: 1 to 63 bytes, taken literally. The default is made from `name` as that of `slot` is.";
    POSTGRES_MANAGE: "postgres.manage", Kind::Boolean, Presence::Default("true"),
        "Create the publication and the slot when they are missing, and alter the publication to match `tables`. When false they are \
         only checked.";
    POSTGRES_PUBLISH_VIA_PARTITION_ROOT: "postgres.publish_via_partition_root", Kind::Boolean, Presence::Default("true"),
        "Publish changes of partitions as changes of the partitioned table. Takes effect on the publication that pgsluice manages.";
    POSTGRES_PUBLISH_GENERATED_COLUMNS: "postgres.publish_generated_columns", Kind::Boolean, Presence::Default("false"),
        "Have the stored generated columns of tables in the events too. The publication that pgsluice manages is made so; another must be so \
         already. Needs PostgreSQL 18.";
    POSTGRES_ORIGIN: "postgres.origin", Kind::Text, Presence::Default(r#""any""#),
        "Which changes to stream: `any`; `none`, only those that were made at this server, and none that came to it by replication, such as \
         those of a subscription. `none` needs PostgreSQL 16.";
    POSTGRES_FAILOVER: "postgres.failover", Kind::Boolean, Presence::Default("false"),
        "Create the slot with `failover`, so that PostgreSQL 17 and later keeps it on a standby that synchronises slots.";
    POSTGRES_STATUS_INTERVAL: "postgres.status_interval", Kind::Duration, Presence::Default(r#""10s""#),
        "The longest time between two status updates to PostgreSQL. Must be below half of the server's `wal_sender_timeout` (60 s unless \
         changed). From 100 ms to 5 min.";
    POSTGRES_CONNECT_TIMEOUT: "postgres.connect_timeout", Kind::Duration,
        Presence::Derived { words: "`connect_timeout` in `url`, else 10s", example: r#""10s""# },
        "How long one attempt to connect may take. From 100 ms to 10 min.";

    KAFKA_BOOTSTRAP_SERVERS: "kafka.bootstrap_servers", Kind::Text, Presence::Required { example: r#""localhost:9092""# },
        "Brokers to start from: `host:port`, separated by commas.";
    KAFKA_PROPERTIES: "kafka.properties", Kind::TextMap,
        Presence::Optional { example: r#"{ "compression.type" = "lz4", "security.protocol" = "SSL" }"# },
        "librdkafka properties, passed on verbatim. Those that the guarantee rests on, such as `transactional.id`, are refused with the \
         reason.";
    KAFKA_PROPERTIES_FILE: "kafka.properties_file", Kind::TextMap,
        Presence::Optional { example: r#"{ "sasl.password" = "/run/secrets/kafka-password" }"# },
        "librdkafka properties whose value is read from a file: property name to path. One trailing line break is dropped.";
    KAFKA_OAUTHBEARER_TOKEN_FILE: "kafka.oauthbearer_token_file", Kind::Path, Presence::Optional { example: r#""/run/secrets/kafka-token""# },
        "A file that holds the bearer token of SASL OAUTHBEARER, such as a JSON web token, which somebody else keeps fresh. It is read with each \
         connection's first use, and anew when four fifths of the token's life are over, or each minute if it does not say how long it lives. \
         `security.protocol` has to be `sasl_ssl`.";
    KAFKA_ALLOW_PLAINTEXT_CREDENTIALS: "kafka.allow_plaintext_credentials", Kind::Boolean, Presence::Default("false"),
        "Let what SASL proves go without TLS to brokers on other machines: `sasl_plaintext` as `security.protocol`, which is refused otherwise \
         unless all of `bootstrap_servers` are `localhost` or loopback addresses.";
    KAFKA_CHECKPOINT_TOPIC: "kafka.checkpoint_topic", Kind::Text, Presence::Default(r#""__pgsluice_checkpoints""#),
        "The compacted topic of one partition that holds the checkpoints, one key for each `name`. Created when missing.";

    KAFKA_TOPICS_PARTITIONS: "kafka.topics.partitions", Kind::Integer, Presence::Default("-1"),
        "Partitions of a new topic, 1 to 100000; -1 leaves it to the broker's `num.partitions`, which the cluster's owner has chosen. \
         Adding partitions later breaks the order of a key's events.";
    KAFKA_TOPICS_REPLICATION_FACTOR: "kafka.topics.replication_factor", Kind::Integer, Presence::Default("-1"),
        "Replicas of a new topic, the checkpoint topic included, 1 to 32767; -1 leaves it to the broker's `default.replication.factor`.";
    KAFKA_TOPICS_CONFIG: "kafka.topics.config", Kind::TextMap, Presence::Optional { example: r#"{ "cleanup.policy" = "compact" }"# },
        "Topic configuration of a new topic, passed on verbatim. It does not apply to the checkpoint topic, and its \
         `cleanup.policy` only to topics of tables: transactions, messages and dead letters are kept as the broker keeps any topic, or for ever where a table may come into quarantine. \
         Topics of dead letters take larger records.";

    KAFKA_TOPICS_TEMPLATE: "kafka.topics.template", Kind::Text, Presence::Default(r#""{name}.{schema}.{table}""#),
        "The topic of a table: text in which `{name}`, `{database}`, `{schema}` and `{table}` stand for the names. What a topic cannot \
         have in its name becomes `_`. The Avro namespace follows the topic.";
    KAFKA_TOPICS_ROUTES: "kafka.topics.routes", Kind::TableList,
        Presence::Optional { example: r#"[{ match = 'shop\.public\.(.*)', topic = "shop.$1" }]"# },
        "Other topics than what `template` gives: `match` is a regular expression for the whole of that name, `topic` the other name, in \
         which `$1` is the first group and `${x}` the group named x. The first that matches is taken. Two tables never share a topic, \
         for their keys could be the same. Debezium: `ByLogicalTableRouter`.";

    TRANSACTION_MAX_RECORDS: "kafka.transaction.max_records", Kind::Integer, Presence::Default("20000"),
        "Records after which the Kafka transaction is committed at the end of the current PostgreSQL transaction.";
    TRANSACTION_MAX_BYTES: "kafka.transaction.max_bytes", Kind::Size, Presence::Default(r#""16MiB""#),
        "Bytes after which the Kafka transaction is committed at the end of the current PostgreSQL transaction.";
    TRANSACTION_MAX_AGE: "kafka.transaction.max_age", Kind::Duration, Presence::Default(r#""250ms""#),
        "Age after which the Kafka transaction is committed at the end of the current PostgreSQL transaction. It bounds the latency under \
         a load that never pauses.";
    TRANSACTION_SPLIT_AFTER_RECORDS: "kafka.transaction.split_after_records", Kind::Integer, Presence::Default("1000000"),
        "Records after which one PostgreSQL transaction is split over several Kafka transactions. Not below `max_records`.";
    TRANSACTION_SPLIT_AFTER_BYTES: "kafka.transaction.split_after_bytes", Kind::Size, Presence::Default(r#""512MiB""#),
        "Bytes after which one PostgreSQL transaction is split. Not below `max_bytes`.";
    TRANSACTION_SPLIT_AFTER_AGE: "kafka.transaction.split_after_age", Kind::Duration, Presence::Default(r#""30s""#),
        "Age of the Kafka transaction after which one PostgreSQL transaction is split. Not below `max_age`, and at most half of \
         librdkafka's `transaction.timeout.ms` (60 s unless set in `properties`), after which the broker aborts the transaction.";

    SNAPSHOT_MODE: "snapshot.mode", Kind::Text, Presence::Default(r#""initial""#),
        "Which rows to copy: `initial`, those of every table that is streamed, when the stream begins and when a table is added to it; `initial_only`, the same, and the \
         program ends once they are copied; `when_needed`, as `initial`, and where the slot is gone, cannot be read any more or has passed the checkpoint, all is begun anew rather \
         than stopped: each topic is emptied by a TRUNCATE event, and the table copied behind that; `always`, those of every table at each start; `never`, none that `pgsluice snapshot` does not ask for. A \
         stream that was there before this was `initial` copies what is added from then on. Debezium: `snapshot.mode`.";
    SNAPSHOT_CONNECTIONS: "snapshot.connections", Kind::Integer, Presence::Default("1"),
        "How many connections read rows at a time, each those of a table of its own; where more are free than tables wait, they share the rows of a large one. 1 to 16.";
    SNAPSHOT_SPLIT_ABOVE: "snapshot.split_above", Kind::Size, Presence::Default(r#""256MiB""#),
        "How large a table has to be, or what is left of it, for connections to share its rows: in ranges of its key, at most 16. From 1 KiB to 1 TiB.";
    SNAPSHOT_ROWS_PER_SECOND: "snapshot.rows_per_second", Kind::Integer, Presence::Optional { example: "10000" },
        "How many rows are read in a second at most, by all connections together; as many as the source and Kafka can do, if this is absent.";
    SNAPSHOT_STATEMENT_TIMEOUT: "snapshot.statement_timeout", Kind::Duration, Presence::Default(r#""5min""#),
        "How long PostgreSQL may take to give the rows of one chunk. From 1 s to 1 h.";
    SNAPSHOT_STANDBY_HOST: "snapshot.standby_host", Kind::Text, Presence::Optional { example: r#""standby.internal""# },
        "A hot standby of the server in `postgres.url`, from which the rows of tables with a key are read: its host name, its address, or the folder of its Unix \
         socket. Role, password, database, TLS and all else are as in `[postgres]`, `allow_plaintext_credentials` too. While it is away or behind, rows wait for it: they are \
         not read from the primary in its place. Tables without a key are. docs/snapshots.md tells more.";
    SNAPSHOT_STANDBY_PORT: "snapshot.standby_port", Kind::Integer, Presence::Optional { example: "5433" },
        "The standby's port; without it that in `postgres.url`.";
    SNAPSHOT_SIGNAL_TOPIC: "snapshot.signal_topic", Kind::Text, Presence::Optional { example: r#""shop.signals""# },
        "A topic of one partition from which commands are read, in the form of Debezium's Kafka signals: the key is `name`, the value as in \
         `{\"type\": \"execute-snapshot\", \"data\": {\"data-collections\": [\"public.item\"]}}`; also `stop-snapshot`, `pause-snapshot`, \
         `resume-snapshot` and `log`. Created when missing. Whoever may write to it commands. Debezium: `signal.kafka.topic`.";
    SNAPSHOT_NOTIFICATION_TOPIC: "snapshot.notification_topic", Kind::Text, Presence::Optional { example: r#""shop.notifications""# },
        "A topic that is told when a table's copy begins and gets on, when it ends, and when all are over, as JSON in the form of Debezium's notifications, in the \
         Kafka transaction that makes it true. Created when missing. Debezium: `notification.sink.topic.name`.";

    COLUMNS_INCLUDE: "columns.include", Kind::TextList, Presence::Default(r#"["*.*.*"]"#),
        "The columns to write; a column that no pattern matches is left out, of whatever table. Debezium: `column.include.list`.";
    COLUMNS_EXCLUDE: "columns.exclude", Kind::TextList, Presence::Optional { example: r#"["public.users.password", "*.*.ssn"]"# },
        "Columns to leave out of `include`, whichever of the two is narrower. A column of the key cannot be left out. Debezium: \
         `column.exclude.list`.";
    COLUMNS_MASKS: "columns.masks", Kind::TableList, Presence::Optional { example: r#"[{ columns = ["*.*.phone"], mask = "asterisks" }]"# },
        "What to write in the place of values. Each table has `columns`, a list of patterns, and a `mask`: `fixed`, the `text`; `asterisks`, \
         one for each character; `hash`, the SHA-256 hash of salt and value in hexadecimal digits, the only one that a column of the key \
         can have; `truncate`, the first so many `characters`, of a column that is a string. The first table that matches a column is \
         applied. The field becomes a `string` of PostgreSQL's text; a null stays null, and so does the placeholder of an unchanged TOAST \
         value. Debezium: `column.mask.with.*.chars`, `column.mask.hash.v2.SHA-256.with.salt.*`, `column.truncate.to.*.chars`.";
    COLUMNS_HASH_SALT: "columns.hash_salt", Kind::Secret, Presence::Optional { example: r#""secret""# },
        "The salt of `hash`. Who knows it can find values by trying. With another one all hashes change, those in keys too.";
    COLUMNS_HASH_SALT_FILE: "columns.hash_salt_file", Kind::Path, Presence::Optional { example: r#""/run/secrets/hash-salt""# },
        "A file that holds the salt of `hash`. One trailing line break is dropped.";

    EVENTS_ENVELOPE: "events.envelope", Kind::Text, Presence::Default(r#""debezium""#),
        "What a record says of a change: `debezium`, rows before and after, and where they come from; `upsert`, the row as it is now under its \
         key, and no value for one that is gone. With `upsert` the defaults below are others: `headers = [\"op\", \"lsn\", \"source_ts_us\", \
         \"transaction_id\", \"transaction_total_order\"]`, `decimals = \"precise_or_string\"`, `times = \
         \"native\"`, `intervals = \"string\"`, `zoned_times = \"offset\"`, `varying_bits = \"text\"`, `hstore = \"map\"`; every table needs a \
         key, and the header `__unavailable` lists the fields that have `unavailable_value`, or would have it.";
    EVENTS_FORMAT: "events.format", Kind::Text, Presence::Default(r#""avro""#),
        "How keys and values are written: `avro`, with schemas in the registry; `json`, without schemas, as Kafka Connect's `JsonConverter` does \
         with `schemas.enable = false` and `decimal.format = NUMERIC`. No registry is needed for it.";
    EVENTS_UNREPRESENTABLE: "events.unrepresentable", Kind::Text, Presence::Default(r#""stop""#),
        "What becomes of a change with a value that has no place in the record, such as `NaN` in a decimal: `stop`, the stream stops with table, \
         column and LSN; `skip_to_dead_letter`, a record in `{topic of the table}.dead-letters` in its place, with the reason and PostgreSQL's \
         text of all columns that `[columns]` neither leaves out nor hides, in the same Kafka transaction. It has its number in its transaction, \
         and counts for the END in the topic of transactions.";
    EVENTS_DECIMALS: "events.decimals", Kind::Text, Presence::Default(r#""precise""#),
        "`numeric` and `money`: `precise`, Avro's `decimal`; `precise_or_string`, the same but text for a `numeric` without precision; `double`; `string`, the only one with `NaN` and infinities and all digits. \
         Debezium: `decimal.handling.mode`.";
    EVENTS_TIMES: "events.times", Kind::Text, Presence::Default(r#""adaptive""#),
        "`date`, `time` and `timestamp`: `adaptive`, milli- or microseconds by the column's precision; `adaptive_microseconds`, the same \
         with every `time` in microseconds; `connect`, Kafka Connect's types in milliseconds; `iso_string`, ISO 8601 text, which holds \
         every value; `microseconds`; `nanoseconds`; `native`, Avro's logical types in microseconds, `timestamptz` among them. Debezium: `time.precision.mode`.";
    EVENTS_INTERVALS: "events.intervals", Kind::Text, Presence::Default(r#""numeric""#),
        "`interval`: `numeric`, microseconds in which a month has 30.4375 days; `string`, ISO 8601 text with all parts. Debezium: \
         `interval.handling.mode`.";
    EVENTS_ZONED_TIMES: "events.zoned_times", Kind::Text, Presence::Default(r#""utc""#),
        "`time with time zone`: `utc`, the same moment in UTC; `offset`, with the zone that it has. Debezium has `utc` only.";
    EVENTS_VARYING_BITS: "events.varying_bits", Kind::Text, Presence::Default(r#""bits""#),
        "`bit varying`: `bits`, a number in bytes, which forgets the zeros in front; `text`, of `0` and `1`. Debezium has `bits` only.";
    EVENTS_ARRAYS: "events.arrays", Kind::Text, Presence::Default(r#""items""#),
        "Arrays: `items`, Avro arrays, which have one dimension that starts at 1, and another shape stops the stream; `text`, as \
         PostgreSQL prints them, whatever their shape. Debezium has `items` only.";
    EVENTS_HSTORE: "events.hstore", Kind::Text, Presence::Default(r#""json""#),
        "`hstore`: `json`, the text of an object; `map`, an Avro map. Debezium: `hstore.handling.mode`.";
    EVENTS_BYTEA: "events.bytea", Kind::Text, Presence::Default(r#""bytes""#),
        "`bytea`: `bytes`; or text as `base64`, `base64url` or `hex`. Debezium: `binary.handling.mode`.";
    EVENTS_NAMES: "events.names", Kind::Text, Presence::Default(r#""avro""#),
        "Names of fields and namespaces: `avro`, in which each character that Avro does not have becomes `_`; `avro_unicode`, in which it \
         becomes `_u` and its number, so that names stay apart; `none`, in which it is an error. Topics are named alike in all of them. \
         Debezium: `schema.name.adjustment.mode` and `field.name.adjustment.mode`, whose own default is `none`.";
    EVENTS_TOMBSTONES: "events.tombstones", Kind::Boolean, Presence::Default("true"),
        "Follow each deletion by a record without a value, so that a compacted topic forgets the key. An upsert has no other deletions, whatever this says. Debezium: `tombstones.on.delete`.";
    EVENTS_UNAVAILABLE_VALUE: "events.unavailable_value", Kind::Text, Presence::Default(r#""__debezium_unavailable_value""#),
        "What stands for a value that is stored out of line (TOAST) and that PostgreSQL did not send since it was not changed. Debezium: \
         `unavailable.value.placeholder`.";

    EVENTS_TRANSACTION_TOPIC: "events.transaction_topic", Kind::Boolean, Presence::Default("false"),
        "Write a BEGIN and an END of each transaction with events into the topic `{name}.transaction`, the END with the number of events in \
         all and by table. Their ids are the `transaction.id` of the events. Debezium: `provide.transaction.metadata`, which also decides \
         there whether events have `transaction`; here they always do.";
    EVENTS_SKIP: "events.skip", Kind::TextList, Presence::Default("[]"),
        "Events that are not written: `insert`, `update`, `delete`, with its tombstone, `truncate`, and `read`, a row of a snapshot, by the `op` of the event: a change \
         of the key is a delete and an insert. What is skipped has its number in `transaction.total_order`, so that the numbers of the \
         others do not depend on it, and counts for the END in the topic of transactions. `upsert` needs inserts and deletions, or its topics are not \
         the tables; and it needs `truncate` here, or a TRUNCATE stops the stream, since no record can say it. Debezium: `skipped.operations`, whose default is `t`, and where it has none.";
    EVENTS_MESSAGES: "events.messages", Kind::Boolean, Presence::Default("true"),
        "Write what applications emit with `pg_logical_emit_message`, in transactions and outside of any, into the topic `{name}.message`. \
         When false the server is not asked for it. Messages are of the whole database, whatever `postgres.tables` says.";
    EVENTS_MESSAGE_PREFIXES: "events.message_prefixes", Kind::TextList, Presence::Default(r#"["*"]"#),
        "The prefixes of the messages to write, as patterns in which `*` stands for any characters. Debezium: \
         `message.prefix.include.list`.";
    EVENTS_MESSAGE_PREFIXES_EXCEPT: "events.message_prefixes_except", Kind::TextList,
        Presence::Optional { example: r#"["internal.*"]"# },
        "The prefixes of messages to leave out of these. Debezium: `message.prefix.exclude.list`.";

    EVENTS_HEADERS: "events.headers", Kind::TextList, Presence::Default("[]"),
        "What each record says in headers besides, tombstones included: `op`, `db`, `schema`, `table`, `lsn`, `commit_lsn`, `txId`, \
         `transaction_id`, `source_ts_ms` and `source_ts_us`, the time of the commit, and `transaction_total_order`. A header's name has two underscores in front, as in `__op`, and its \
         value is text. A row of a snapshot has none for what it has not: a commit and an ordinal. Debezium: `add.headers` of `ExtractNewRecordState`.";

    EVENTS_HEARTBEAT_INTERVAL: "events.heartbeat_interval", Kind::Duration, Presence::Optional { example: r#""10s""# },
        "How often a record is written that says only that the stream is alive, with its time; from 1 s to 1 h; never, if this is absent. It is in a \
         Kafka transaction with its checkpoint, like any other. PostgreSQL's log is freed without it. Debezium: `heartbeat.interval.ms`.";
    EVENTS_HEARTBEAT_TOPIC: "events.heartbeat_topic", Kind::Text, Presence::Optional { example: r#""heartbeats""# },
        "The topic of these records, `__debezium-heartbeat.{name}` unless it is given. Debezium: `heartbeat.topics.prefix`.";

    REGISTRY_ON_INCOMPATIBLE: "schema_registry.on_incompatible", Kind::Text, Presence::Default(r#""stop""#),
        "What becomes of a table whose new schema the registry refuses beside the subject's earlier ones: `stop`, the stream waits until it is \
         accepted; `quarantine`, the other tables go on, and the changes of this one go, raw and in order, to `{topic of the table}.dead-letters`, \
         until the subject is mended and `pgsluice release` has written their events. docs/quarantine.md tells more.";
    REGISTRY_TOPIC: "schema_registry.topic", Kind::Text, Presence::Default(r#""_schemas""#),
        "The compacted topic of one partition that holds the schemas of the built-in registry, in the format of Confluent's. Instances \
         may share it; created when missing. A registry of another make may take it over once no instance writes any more, and must not \
         write to it before.";
    REGISTRY_URL: "schema_registry.url", Kind::Secret, Presence::Optional { example: r#""http://localhost:8081""# },
        "Where a Confluent-compatible registry is, to be used instead of the built-in one; a path is kept, as in `http://host/apis/ccompat/v7`. `user:password@` is taken as basic authentication.";
    REGISTRY_USER: "schema_registry.user", Kind::Text, Presence::Optional { example: r#""pgsluice""# },
        "The user of basic authentication.";
    REGISTRY_PASSWORD: "schema_registry.password", Kind::Secret, Presence::Optional { example: r#""secret""# },
        "The password of basic authentication.";
    REGISTRY_PASSWORD_FILE: "schema_registry.password_file", Kind::Path, Presence::Optional { example: r#""/run/secrets/registry-password""# },
        "A file that holds the password of basic authentication. One trailing line break is dropped.";
    REGISTRY_TOKEN: "schema_registry.token", Kind::Secret, Presence::Optional { example: r#""secret""# },
        "The token of bearer authentication, instead of a user.";
    REGISTRY_TOKEN_FILE: "schema_registry.token_file", Kind::Path, Presence::Optional { example: r#""/run/secrets/registry-token""# },
        "A file that holds the token of bearer authentication. One trailing line break is dropped.";
    REGISTRY_CA_CERTIFICATE: "schema_registry.ca_certificate", Kind::Path, Presence::Optional { example: r#""/etc/pgsluice/ca.pem""# },
        "A PEM file of certificate authorities to trust besides the system's.";
    REGISTRY_ALLOW_PLAINTEXT_CREDENTIALS: "schema_registry.allow_plaintext_credentials", Kind::Boolean, Presence::Default("false"),
        "Let the password or token go without TLS to a registry on another machine: an `http` address, which is refused otherwise.";
    REGISTRY_TIMEOUT: "schema_registry.timeout", Kind::Duration, Presence::Default(r#""10s""#),
        "How long one request may take, from connecting to the last byte of the answer. From 100 ms to 10 min.";
    REGISTRY_CONNECT_TIMEOUT: "schema_registry.connect_timeout", Kind::Duration, Presence::Default(r#""5s""#),
        "How long connecting may take. From 100 ms to 10 min.";

    HTTP_LISTEN: "http.listen", Kind::Text, Presence::Default(r#""127.0.0.1:9187""#),
        "The address and port to listen on. Reading takes no authentication: leave it on a loopback address, or keep others out of the port. \
         Consumers that read schemas from the built-in registry have to reach it.";
    HTTP_TOKEN: "http.token", Kind::Secret, Presence::Optional { example: r#""secret""# },
        "What commands such as `pgsluice snapshot` have to show, as a bearer token. Without it they are taken from this machine alone, \
         and only where `listen` is a loopback address. It crosses the network unencrypted: put a proxy with TLS in front where others could listen.";
    HTTP_TOKEN_FILE: "http.token_file", Kind::Path, Presence::Optional { example: r#""/run/secrets/pgsluice-token""# },
        "A file that holds this token. One trailing line break is dropped.";

    HTTP_ALLOW_PLAINTEXT_CREDENTIALS: "http.allow_plaintext_credentials", Kind::Boolean, Presence::Default("false"),
        "Let commands such as `pgsluice snapshot` show the token without TLS to an instance at another than a loopback address.";

    LOG_FORMAT: "log.format", Kind::Text, Presence::Default(r#""text""#), "`text` or `json`, one line an event.";
    LOG_LEVEL: "log.level", Kind::Text, Presence::Default(r#""info""#),
        "`error`, `warn`, `info`, `debug` or `trace`; or directives by target, as in `info,walreceiver=debug`. No level prints secrets, nor \
         row data but for the key of a record that Kafka did not take.";
}
