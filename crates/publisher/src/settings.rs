//! How to reach Kafka, and the librdkafka settings that the guarantees rest on.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use rdkafka::ClientConfig;

use crate::{observer::ErrorObserver, token::TokenFile};

/// Where Kafka is, who we are there, and whatever else the user wants librdkafka to be told.
///
/// `Debug` prints the names of the properties and not their values: passwords are among them.
#[derive(Clone)]
pub struct KafkaSettings {
    /// `host:port`, comma separated.
    pub bootstrap_servers: String,
    /// The stream's name: transactional id, client id and the key of the checkpoint.
    pub name: String,
    /// librdkafka properties, verbatim. They may replace defaults, but not what [exactly once](crate) rests on.
    pub properties: BTreeMap<String, String>,
    /// The limit of the memory budget, from which librdkafka's own queue limits are derived, in bytes.
    pub memory_limit_bytes: usize,
    /// A file that holds the bearer token of SASL OAUTHBEARER, and is read anew before the token expires.
    pub token_file: Option<PathBuf>,
    /// Who is told of errors by their codes.
    pub observer: ErrorObserver,
}

impl KafkaSettings {
    /// Properties that the guarantees rest on, which a user therefore cannot set.
    ///
    /// Each with the reason, to be shown to who tries.
    pub const RESERVED_PROPERTIES: &'static [(&'static str, &'static str)] = &[
        ("bootstrap.servers", "it is set by kafka.bootstrap_servers"),
        ("transactional.id", "it is the stream's name: it fences a second instance of the same stream"),
        ("enable.idempotence", "a transactional producer is always idempotent"),
        ("enable.gapless.guarantee", "it turns retriable errors into fatal ones"),
        ("acks", "a transactional producer waits for all in-sync replicas"),
        ("request.required.acks", "a transactional producer waits for all in-sync replicas"),
        ("isolation.level", "the checkpoint is read with read_committed"),
        ("enable.auto.commit", "the position is in the checkpoint, not in a consumer group"),
        ("enable.auto.offset.store", "the position is in the checkpoint, not in a consumer group"),
        ("enable.partition.eof", "the end of the checkpoint topic is found by it"),
        ("group.id", "no consumer group is used"),
        ("auto.offset.reset", "the checkpoint topic is always read from its beginning"),
        ("queue.buffering.max.kbytes", "it follows from memory_limit"),
        ("queue.buffering.max.messages", "it follows from memory_limit"),
        ("delivery.report.only.error", "each delivery report gives its record's memory back"),
        ("allow.auto.create.topics", "topics are created with the partitions that were configured"),
    ];

    /// How large a record may be, with what Kafka keeps of it besides: as configured, or librdkafka's default.
    pub fn record_max_bytes(&self) -> usize {
        // A value that is no number is refused by librdkafka before any use of this.
        let configured = self.properties.get(MESSAGE_MAX.0).and_then(|text| text.parse().ok());
        configured.unwrap_or(MESSAGE_MAX.1)
    }

    /// How large a dead letter may be. It has what its record has as text, as JSON, and both rows of an update where the record may have one: of a bit
    /// string, which is the worst, a record has one bit where the text has a character. It describes its table besides. More than what brokers
    /// take as one request is of no use.
    pub fn letter_max_bytes(&self) -> usize {
        let record = self.record_max_bytes();
        (record.saturating_mul(LETTER_EXPANSION) + LETTER_TABLE_BYTES).min(LETTER_BYTES_MAX).max(record)
    }

    /// The same cluster and rights under another name: for a transactional id that is not a stream's.
    #[must_use]
    pub fn named(&self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self.clone() }
    }

    /// The token, if one is needed.
    pub(crate) fn token(&self) -> Option<TokenFile> {
        self.token_file.clone().map(TokenFile)
    }

    /// Properties as far as they are good for every kind of client.
    pub(crate) fn common(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", format!("pgsluice-{}", self.name)).set("socket.keepalive.enable", "true");
        if self.token_file.is_some() {
            config.set("sasl.mechanisms", "OAUTHBEARER");
        }
        for (property, value) in &self.properties {
            config.set(property, value);
        }
        config.set("bootstrap.servers", &self.bootstrap_servers);
        config
    }

    /// Properties of a client that creates topics and looks at them. To ask for a topic by its name must not create it.
    pub(crate) fn admin(&self) -> ClientConfig {
        let mut config = self.common();
        config.set("allow.auto.create.topics", "false");
        config
    }

    /// Properties of the transactional producer.
    pub(crate) fn producer(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            // Java's default partitioner, so that Java producers and stream joins find the same partition for a key.
            .set("partitioner", "murmur2_random")
            .set("compression.type", "lz4")
            // A commit has what lingers sent at once, so that lingering costs no latency; and it must not be short: librdkafka
            // waits in whole milliseconds, and its broker thread spins for what is left of the last one.
            .set("linger.ms", "50")
            // A commit that takes as long as a second request for it costs the producer, so that this is far above what commits take.
            .set(RETRY_BACKOFF.0, RETRY_BACKOFF.1)
            .set(RETRY_BACKOFF_MAX.0, RETRY_BACKOFF_MAX.1)
            // It follows from `retry.backoff.ms` unless it is set: new leaders are still looked for at once.
            .set("topic.metadata.refresh.fast.interval.ms", "100")
            .set("transaction.timeout.ms", "60000");
        for (property, value) in self.common().config_map() {
            config.set(property, value);
        }
        config
            // Who sends keeps records within their own limit, and letters are larger. A batch must not be: its limit is the topic's too.
            .set(MESSAGE_MAX.0, self.letter_max_bytes().to_string());
        let batch = config.get(BATCH.0).map_or(Some(BATCH.1), |text| text.parse().ok());
        if let Some(batch) = batch {
            config.set(BATCH.0, batch.min(self.record_max_bytes()).to_string());
        }
        config
            .set("transactional.id", &self.name)
            .set("enable.idempotence", "true")
            // Our own budget is the bound. librdkafka's must never be reached first, or sending would have to wait.
            .set("queue.buffering.max.kbytes", (self.memory_limit_bytes / 512).clamp(64 * 1024, 2_097_151).to_string())
            .set("queue.buffering.max.messages", "10000000");
        config
    }

    /// How soon, at the earliest, librdkafka sends a request again whose answer it waits for no more: after `retry.backoff.ms` less a
    /// fifth, which is its jitter, and after no more than `retry.backoff.max.ms` (librdkafka `rd_kafka_broker_buf_retry`).
    pub(crate) fn resend_after(&self) -> Duration {
        let config = self.producer();
        // A value that is no number is refused by librdkafka before any use of this.
        let milliseconds = |property: &str| config.get(property).and_then(|text| text.parse().ok()).unwrap_or(0);
        let (backoff_ms, backoff_max_ms): (u64, u64) =
            (milliseconds(RETRY_BACKOFF.0), milliseconds(RETRY_BACKOFF_MAX.0));
        Duration::from_micros(backoff_ms.saturating_mul(800).min(backoff_max_ms.saturating_mul(1000)))
    }

    /// After how long the coordinator gives up on an open transaction.
    pub fn transaction_timeout(&self) -> Duration {
        // Set by default, and a value that is no number is refused by librdkafka before any use of this.
        let configured = self.producer().get("transaction.timeout.ms").and_then(|text| text.parse().ok());
        Duration::from_millis(configured.unwrap_or(60_000))
    }

    /// Properties of a consumer of the checkpoint topic.
    pub(crate) fn consumer(&self, isolation_level: &str) -> ClientConfig {
        let mut config = self.common();
        // With it librdkafka reads from a follower, whose end may lie before the leader's: what is committed would not be seen.
        config.remove("client.rack");
        // What only a producer knows would be answered with a warning.
        for property in PRODUCER_ONLY {
            config.remove(property);
        }
        config
            .set("group.id", format!("pgsluice-{}", self.name))
            .set("isolation.level", isolation_level)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            // A checkpoint is small: no need to prefetch tens of megabytes.
            .set("queued.max.messages.kbytes", "4096")
            .set("fetch.message.max.bytes", "1048576");
        config
    }
}

/// Properties of records' and batches' sizes, with librdkafka's defaults.
const MESSAGE_MAX: (&str, usize) = ("message.max.bytes", 1_000_000);
const BATCH: (&str, usize) = ("batch.size", 1_000_000);
/// See [`KafkaSettings::letter_max_bytes`].
const LETTER_EXPANSION: usize = 16;
const LETTER_TABLE_BYTES: usize = 1 << 20;
const LETTER_BYTES_MAX: usize = 64 << 20;

/// Properties of all clients, with the producer's defaults.
const RETRY_BACKOFF: (&str, &str) = ("retry.backoff.ms", "1000");
const RETRY_BACKOFF_MAX: (&str, &str) = ("retry.backoff.max.ms", "1000");

const PRODUCER_ONLY: &[&str] = &[
    "compression.type",
    "compression.codec",
    "compression.level",
    "linger.ms",
    "queue.buffering.max.ms",
    "batch.size",
    "batch.num.messages",
    "partitioner",
    "transaction.timeout.ms",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "message.send.max.retries",
    "retries",
    "sticky.partitioning.linger.ms",
    "queue.buffering.backpressure.threshold",
];

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("name", &self.name)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .field("memory_limit_bytes", &self.memory_limit_bytes)
            .field("token_file", &self.token_file)
            .field("observer", &self.observer)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(properties: &[(&str, &str)]) -> KafkaSettings {
        KafkaSettings {
            bootstrap_servers: "127.0.0.1:9092".into(),
            name: "shop".into(),
            properties: properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            memory_limit_bytes: 64 << 20,
            token_file: None,
            observer: ErrorObserver::default(),
        }
    }

    #[test]
    fn the_user_replaces_defaults_but_not_what_the_guarantees_rest_on() {
        let producer =
            settings(&[("compression.type", "zstd"), ("transactional.id", "other"), ("linger.ms", "50")]).producer();
        assert_eq!(producer.get("compression.type"), Some("zstd"));
        assert_eq!(producer.get("linger.ms"), Some("50"));
        assert_eq!(producer.get("transactional.id"), Some("shop"));
        assert_eq!(producer.get("partitioner"), Some("murmur2_random"));
        let consumer =
            settings(&[("compression.type", "zstd"), ("isolation.level", "read_uncommitted"), ("client.rack", "a")])
                .consumer("read_committed");
        assert_eq!(consumer.get("client.rack"), None);
        assert_eq!(consumer.get("compression.type"), None);
        assert_eq!(consumer.get("isolation.level"), Some("read_committed"));
    }

    #[test]
    fn a_request_is_not_sent_again_sooner_than_the_backoff_less_its_jitter() {
        for (properties, expect_ms) in [
            (&[][..], 800),
            (&[("retry.backoff.ms", "100")], 80),
            (&[("retry.backoff.ms", "5000")], 1000),
            (&[("retry.backoff.ms", "5000"), ("retry.backoff.max.ms", "10000")], 4000),
        ] {
            assert_eq!(settings(properties).resend_after(), Duration::from_millis(expect_ms), "{properties:?}");
        }
    }

    #[test]
    fn letters_may_be_larger_than_records_and_batches_may_not() {
        for (properties, record, letter, batch) in [
            (&[][..], 1_000_000, 16_000_000 + (1 << 20), "1000000"),
            (&[("message.max.bytes", "100000")], 100_000, 1_600_000 + (1 << 20), "100000"),
            (&[("message.max.bytes", "8388608")], 8 << 20, 64 << 20, "1000000"),
            (&[("message.max.bytes", "8388608"), ("batch.size", "9000000")], 8 << 20, 64 << 20, "8388608"),
            (&[("message.max.bytes", "900000000")], 900_000_000, 900_000_000, "1000000"),
            (&[("batch.size", "5000")], 1_000_000, 16_000_000 + (1 << 20), "5000"),
        ] {
            let settings = settings(properties);
            assert_eq!((settings.record_max_bytes(), settings.letter_max_bytes()), (record, letter), "{properties:?}");
            let producer = settings.producer();
            assert_eq!(producer.get("message.max.bytes"), Some(letter.to_string().as_str()), "{properties:?}");
            assert_eq!(producer.get("batch.size"), Some(batch), "{properties:?}");
        }
    }

    #[test]
    fn no_value_of_a_property_is_printed() {
        let printed = format!("{:?}", settings(&[("sasl.password", "hunter2")]));
        assert!(printed.contains("sasl.password") && !printed.contains("hunter2"), "{printed}");
    }
}
