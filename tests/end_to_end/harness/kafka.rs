//! A consumer that shares no code with the program.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
    producer::{BaseProducer, BaseRecord, Producer},
};

use super::{
    avro::Decoder,
    database::lsn,
    event::{Event, Identity, Record},
    oracle::{Lsn, Row},
    wait_until,
};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The program's transaction timeout and a margin: for so long may a transaction that nobody ends hold readers up.
const STABLE_TIMEOUT: Duration = Duration::from_secs(90);

fn consumer(bootstrap_servers: &str, isolation_level: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .set("group.id", "oracle")
        .set("isolation.level", isolation_level)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false")
        .set("check.crcs", "true")
        // An answer that waits for more data holds back the end of a partition, and the next assignment.
        .set("fetch.wait.max.ms", "10")
        .create()
        .expect("a consumer")
}

/// Reads every record of the stream's tables that is committed now, in the order of each partition.
pub(crate) fn read_stream(bootstrap_servers: &str, registry_url: &str, stream: &str) -> Vec<Record> {
    let mut decoder = Decoder::new(registry_url);
    let prefix = format!("{stream}.");
    let mut records = Vec::new();
    read_to_end(
        bootstrap_servers,
        // Beside the topics of tables there are others, which hold something else.
        |topic| {
            topic
                .strip_prefix(&prefix)
                .is_some_and(|table| table != "transaction" && table != "message" && !table.ends_with(".dead-letters"))
        },
        |message| records.push(record(&mut decoder, message)),
    );
    records
}

/// Where a record is: topic, partition and offset.
pub(crate) type Place = (String, i32, i64);

/// What a consumer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// `read_committed`: what is committed.
    Committed,
    /// `read_uncommitted`: what was written, whatever becomes or became of it.
    Uncommitted,
}

/// Where a message is.
pub(crate) fn place(message: &BorrowedMessage<'_>) -> Place {
    (message.topic().to_owned(), message.partition(), message.offset())
}

/// How many partitions a topic has.
pub(crate) fn partitions(bootstrap_servers: &str, topic: &str) -> usize {
    let consumer = consumer(bootstrap_servers, "read_committed");
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(30)).expect("the broker answers");
    metadata.topics()[0].partitions().len()
}

/// Visits every record that is committed now.
pub(crate) fn read_to_end(
    bootstrap_servers: &str,
    wanted: impl Fn(&str) -> bool,
    visit: impl FnMut(&BorrowedMessage<'_>),
) {
    read_to_end_as(Isolation::Committed, bootstrap_servers, wanted, visit);
}

/// Visits every record that is there now, as this isolation level shows them.
///
/// A `read_committed` client is shown the log up to the first transaction that is undecided. So the high watermark is asked for
/// first, as a `read_uncommitted` client, and then it is waited until everything before it is decided.
pub(crate) fn read_to_end_as(
    isolation: Isolation,
    bootstrap_servers: &str,
    wanted: impl Fn(&str) -> bool,
    mut visit: impl FnMut(&BorrowedMessage<'_>),
) {
    let uncommitted = consumer(bootstrap_servers, "read_uncommitted");
    let metadata = uncommitted.fetch_metadata(None, REQUEST_TIMEOUT).expect("the brokers answer");
    let mut ends = BTreeMap::new();
    for topic in metadata.topics().iter().filter(|topic| wanted(topic.name())) {
        for partition in topic.partitions() {
            let place = (topic.name().to_owned(), partition.id());
            // A topic may be so new that the client does not know its partitions yet.
            let (_, high) = wait_until(REQUEST_TIMEOUT, "a high watermark", || {
                uncommitted.fetch_watermarks(&place.0, place.1, REQUEST_TIMEOUT).ok()
            });
            ends.insert(place, high);
        }
    }
    let reader = match isolation {
        Isolation::Committed => consumer(bootstrap_servers, "read_committed"),
        Isolation::Uncommitted => uncommitted,
    };
    for ((topic, partition), high) in ends {
        // To a `read_uncommitted` client the end is the high watermark.
        wait_until(STABLE_TIMEOUT, "everything in the topic is decided", || {
            let (_, end) = reader.fetch_watermarks(&topic, partition, REQUEST_TIMEOUT).expect("an end");
            (end >= high).then_some(())
        });
        // One at a time: librdkafka reports the end of a partition without the name of its topic.
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&topic, partition, Offset::Beginning).expect("an offset");
        reader.assign(&assignment).expect("an assignment");
        loop {
            match reader.poll(REQUEST_TIMEOUT) {
                Some(Ok(message)) => visit(&message),
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) => panic!("{topic}: {error}"),
                None => panic!("the broker is silent, and {topic} is not read to its end"),
            }
        }
    }
}

/// Visits every record of many topics that nobody writes to any more, hundreds of them at a time.
pub(crate) fn read_many_to_end(
    bootstrap_servers: &str,
    wanted: impl Fn(&str) -> bool,
    mut visit: impl FnMut(&BorrowedMessage<'_>),
) {
    const TOPICS_AT_A_TIME: usize = 200;
    let uncommitted = consumer(bootstrap_servers, "read_uncommitted");
    let committed = consumer(bootstrap_servers, "read_committed");
    let metadata = uncommitted.fetch_metadata(None, REQUEST_TIMEOUT).expect("the brokers answer");
    let topics: Vec<_> = metadata.topics().iter().filter(|topic| wanted(topic.name())).collect();
    for topics in topics.chunks(TOPICS_AT_A_TIME) {
        let mut assignment = TopicPartitionList::new();
        for topic in topics {
            for partition in topic.partitions() {
                let end = |reader: &BaseConsumer| {
                    reader.fetch_watermarks(topic.name(), partition.id(), REQUEST_TIMEOUT).expect("its offsets").1
                };
                let high = end(&uncommitted);
                wait_until(STABLE_TIMEOUT, "everything in the topic is decided", || {
                    (end(&committed) >= high).then_some(())
                });
                assignment.add_partition_offset(topic.name(), partition.id(), Offset::Beginning).expect("an offset");
            }
        }
        committed.assign(&assignment).expect("an assignment");
        let mut at_their_end = 0;
        while at_their_end < assignment.count() {
            match committed.poll(REQUEST_TIMEOUT) {
                Some(Ok(message)) => visit(&message),
                Some(Err(KafkaError::PartitionEOF(_))) => at_their_end += 1,
                Some(Err(error)) => panic!("{error}"),
                None => panic!("the broker is silent, and {at_their_end} of {} topics are read", assignment.count()),
            }
        }
    }
}

fn record(decoder: &mut Decoder, message: &BorrowedMessage<'_>) -> Record {
    let header = |name: &str| {
        let header = message.headers()?.iter().find(|header| header.key == name)?;
        Some(key_from_json(header.value.expect("the header has a value")))
    };
    let mut parts = message.topic().rsplit('.').map(str::to_owned);
    let (table, schema) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    Record {
        schema,
        table,
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(|key| decoder.decode(key).row()),
        old_key: header("__debezium.oldkey"),
        new_key: header("__debezium.newkey"),
        event: message.payload().map(|value| event(decoder, value)),
    }
}

fn event(decoder: &mut Decoder, value: &[u8]) -> Event {
    let mut envelope = decoder.decode(value);
    let mut transaction = envelope.take_fields("transaction");
    let mut take = |name| transaction.as_mut().and_then(|transaction| transaction.take_text(name));
    // A row that was copied belongs to no transaction.
    let id = take("id").unwrap_or_else(|| "0:0".to_owned());
    let (ordinal, table_ordinal) = (take("total_order"), take("data_collection_order"));
    let (xid, commit_lsn) = id.split_once(':').expect("an id of two parts");
    let mut source = envelope.take_fields("source").expect("a source");
    let number = |text: Option<String>| -> u64 { text.expect("a number").parse().expect("a number") };
    let ordinal_of = |text: Option<String>| text.map_or(0, |text| text.parse().expect("a number"));
    let event = Event {
        identity: Identity { commit_lsn: commit_lsn.parse().expect("an LSN"), ordinal: ordinal_of(ordinal) },
        xid: xid.parse().expect("a transaction id"),
        operation: envelope.take_text("op").expect("an operation"),
        lsn: number(source.take_text("lsn")),
        table_ordinal: ordinal_of(table_ordinal),
        before: envelope.take_fields("before").map(super::avro::Fields::row),
        after: envelope.take_fields("after").map(super::avro::Fields::row),
    };
    let commit_lsn = if id == "0:0" { "null".to_owned() } else { format!("\"{commit_lsn}\"") };
    assert_eq!(
        source.take_text("sequence"),
        Some(format!("[{commit_lsn},\"{}\"]", event.lsn)),
        "source.sequence is the commit's and the change's LSN"
    );
    event
}

fn key_from_json(json: &[u8]) -> Row {
    let fields: BTreeMap<String, serde_json::Value> = serde_json::from_slice(json).expect("a key is a JSON object");
    let text = |value| match value {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    fields.into_iter().map(|(name, value)| (name, text(value))).collect()
}

/// Waits until a topic shows, to a `read_committed` consumer, an event whose `after` has this `id`.
pub(crate) fn await_row(bootstrap_servers: &str, registry_url: &str, topic: &str, id: i64, bound: Duration) {
    let began = Instant::now();
    let consumer = consumer(bootstrap_servers, "read_committed");
    let partitions = wait_until(bound, "the topic is there", || {
        let metadata = consumer.fetch_metadata(None, REQUEST_TIMEOUT).ok()?;
        let found = metadata.topics().iter().find(|found| found.name() == topic)?;
        (!found.partitions().is_empty()).then(|| found.partitions().len())
    });
    let mut assignment = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).expect("it is small") {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&assignment).expect("an assignment");
    let mut decoder = Decoder::new(registry_url);
    let wanted = Some(id.to_string());
    loop {
        assert!(began.elapsed() < bound, "{topic} does not show the row {id} within {bound:?}");
        // Errors of a broker that is away pass, and the bound is above.
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        if message.payload().is_some() && message.key().is_some_and(|key| decoder.decode(key).row()["id"] == wanted) {
            return;
        }
    }
}

/// How far a topic is written, and how far it is decided.
pub(crate) struct TopicEnds {
    uncommitted: BaseConsumer,
    committed: BaseConsumer,
    topic: String,
    partitions: i32,
}

impl TopicEnds {
    /// Looks at a topic that is there.
    pub(crate) fn open(bootstrap_servers: &str, topic: &str) -> Self {
        let uncommitted = consumer(bootstrap_servers, "read_uncommitted");
        let metadata = uncommitted.fetch_metadata(None, REQUEST_TIMEOUT).expect("the brokers answer");
        let found = metadata.topics().iter().find(|found| found.name() == topic).expect("the topic is there");
        Self {
            uncommitted,
            committed: consumer(bootstrap_servers, "read_committed"),
            topic: topic.to_owned(),
            partitions: i32::try_from(found.partitions().len()).expect("it is small"),
        }
    }

    /// The sum of all partitions' high watermarks.
    pub(crate) fn written(&self) -> i64 {
        self.sum(&self.uncommitted)
    }

    /// The same for what lies before every transaction that is neither committed nor aborted yet.
    pub(crate) fn decided(&self) -> i64 {
        self.sum(&self.committed)
    }

    fn sum(&self, consumer: &BaseConsumer) -> i64 {
        (0..self.partitions)
            .map(|partition| consumer.fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT).expect("its ends").1)
            .sum()
    }
}

/// The checkpoints of one stream, as they appear.
pub(crate) struct Checkpoints {
    consumer: BaseConsumer,
    stream: String,
    newest: Option<serde_json::Value>,
}

impl Checkpoints {
    /// Opens the topic, which need not exist yet: then it is waited for.
    pub(crate) fn open(bootstrap_servers: &str, topic: &str, stream: &str) -> Self {
        let consumer = consumer(bootstrap_servers, "read_committed");
        wait_until(Duration::from_mins(1), "the checkpoint topic is there", || {
            let metadata = consumer.fetch_metadata(None, REQUEST_TIMEOUT).ok()?;
            metadata.topics().iter().find(|found| found.name() == topic && !found.partitions().is_empty()).map(drop)
        });
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, 0, Offset::Beginning).expect("an offset");
        consumer.assign(&assignment).expect("an assignment");
        Self { consumer, stream: stream.to_owned(), newest: None }
    }

    /// Reads on until a committed checkpoint has reached the position, and returns how long that took; none if it did not.
    pub(crate) fn await_position(&mut self, position: Lsn, bound: Duration) -> Option<Duration> {
        let began = Instant::now();
        loop {
            if self.newest.as_ref().is_some_and(|newest| end_lsn(newest) >= position) {
                return Some(began.elapsed());
            }
            if began.elapsed() > bound {
                return None;
            }
            self.poll();
        }
    }

    /// Reads on until a committed checkpoint lies inside a transaction, at this ordinal or behind it, and returns its ordinal.
    pub(crate) fn await_ordinal(&mut self, ordinal: u64, bound: Duration) -> u64 {
        self.await_inside(Lsn::MIN, ordinal, bound)
    }

    /// The same for a transaction that was committed behind a position.
    pub(crate) fn await_inside(&mut self, behind: Lsn, ordinal: u64, bound: Duration) -> u64 {
        let began = Instant::now();
        loop {
            let found = self.newest.as_ref().and_then(|newest| {
                let split = &newest["split"];
                Some((lsn(split["commit_lsn"].as_str()?), split["ordinal"].as_u64()?))
            });
            if let Some((commit_lsn, found)) = found
                && commit_lsn > behind
                && found >= ordinal
            {
                return found;
            }
            assert!(began.elapsed() < bound, "no checkpoint came that far inside a transaction within {bound:?}");
            self.poll();
        }
    }

    /// The newest checkpoint that can be read at once; there must be one.
    pub(crate) fn newest(&mut self) -> &serde_json::Value {
        while self.poll() {}
        self.newest.as_ref().expect("there is a checkpoint")
    }

    /// Reads on, and returns whether there was something to be read.
    fn poll(&mut self) -> bool {
        let polled = self.consumer.poll(Duration::from_millis(50));
        if let Some(Ok(message)) = &polled
            && message.key() == Some(self.stream.as_bytes())
        {
            self.newest = message.payload().map(checkpoint);
        }
        matches!(polled, Some(Ok(_)))
    }
}

/// All values that the checkpoint topic holds for a stream, oldest first.
pub(crate) fn checkpoints(bootstrap_servers: &str, topic: &str, stream: &str) -> Vec<Option<serde_json::Value>> {
    let mut found = Vec::new();
    read_to_end(
        bootstrap_servers,
        |name| name == topic,
        |message| {
            if message.key() == Some(stream.as_bytes()) {
                found.push(message.payload().map(checkpoint));
            }
        },
    );
    found
}

pub(crate) fn checkpoint(value: &[u8]) -> serde_json::Value {
    serde_json::from_slice(value).expect("a checkpoint is JSON")
}

/// A checkpoint's end LSN.
pub(crate) fn end_lsn(checkpoint: &serde_json::Value) -> Lsn {
    lsn(checkpoint["end_lsn"].as_str().expect("a checkpoint has an end_lsn"))
}

/// Writes a record into partition 0 as any other program could; no value is a tombstone.
pub(crate) fn write(bootstrap_servers: &str, topic: &str, key: &str, value: Option<&str>) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap_servers).create().expect("a producer");
    let mut record = BaseRecord::<str, str>::to(topic).key(key).partition(0);
    record.payload = value;
    producer.send(record).map_err(|(error, _)| error).expect("it is queued");
    producer.flush(REQUEST_TIMEOUT).expect("it is delivered");
}
