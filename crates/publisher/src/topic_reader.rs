//! Topics as a reader finds them who is no part of the stream: which partitions there are, which offsets, and the records from one offset on.
//!
//! What librdkafka keeps in its queue is bounded, so that a reader that stops to write does not fill the memory.

use std::time::{Duration, Instant};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::Consumer,
    error::KafkaError,
    message::{BorrowedMessage, Headers},
};

use crate::{
    error::PublishError,
    log_reader::{Isolation, exists, has_reached, is_passing},
    reader::Reader,
    settings::KafkaSettings,
};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long nothing may come at all, neither a record nor the end of a partition.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
const QUEUE_BACKOFF: &str = "fetch.queue.backoff.ms";
const POLL: Duration = Duration::from_millis(100);

/// How much is fetched ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appetite {
    /// A few records here and there.
    Few,
    /// All of them, one after another.
    All,
}

/// A place that records are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFrom {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub offset: i64,
}

/// What a reader finds next.
#[derive(Debug)]
pub enum Next<'a> {
    /// A record.
    Record(FetchedRecord<'a>),
    /// The end of this partition as far as the broker knows that has answered: what was learnt before may lie behind it
    /// ([`TopicReader::has_read`]).
    End(i32),
    /// Nothing came so far.
    Nothing,
}

/// A record as it is in Kafka.
#[derive(Debug)]
pub struct FetchedRecord<'a>(BorrowedMessage<'a>);

/// Reads records of topics.
pub struct TopicReader {
    consumer: Reader,
    heard_at: Instant,
}

impl TopicReader {
    /// A reader that reads nothing yet.
    ///
    /// # Errors
    /// librdkafka refuses a property.
    pub fn connect(settings: &KafkaSettings, isolation: Isolation, appetite: Appetite) -> Result<Self, PublishError> {
        let mut config = settings.consumer(isolation.level());
        match appetite {
            // The end is told with the answer to a fetch that finds nothing, so this is what each look waits for at last.
            Appetite::Few => config
                .set("fetch.wait.max.ms", "5")
                .set("queued.min.messages", "1")
                // A partition whose queue is full is left alone for a second by default, though the queue is thrown away in a moment.
                .set(QUEUE_BACKOFF, "1")
                .set("fetch.message.max.bytes", "65536"),
            Appetite::All => config
                .set("fetch.wait.max.ms", "100")
                .set("queued.max.messages.kbytes", "16384")
                .set(QUEUE_BACKOFF, "10"),
        };
        let consumer = settings.reader(&config, "creating a consumer")?;
        Ok(Self { consumer, heard_at: Instant::now() })
    }

    /// How many partitions a topic has; none if there is no such topic.
    ///
    /// # Errors
    /// The brokers cannot be reached, or deny it.
    pub fn partitions(&self, topic: &str) -> Result<Option<i32>, PublishError> {
        let doing = "asking whether a topic exists";
        // A consumer's question creates no topic: `allow.auto.create.topics` is off.
        let metadata =
            self.consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(PublishError::kafka(doing))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
        let is_there = exists(found.error().map(Into::into)).map_err(|code| PublishError::Kafka {
            doing,
            error: KafkaError::MetadataFetch(code),
            reason: Some(topic.to_owned()),
        })?;
        Ok(is_there.then(|| i32::try_from(found.partitions().len()).unwrap_or(i32::MAX)))
    }

    /// The offset of the first record that a partition still has, and the one behind the last that this isolation can read.
    ///
    /// # Errors
    /// The brokers cannot be reached, or deny it.
    pub fn bounds(&self, topic: &str, partition: i32) -> Result<(i64, i64), PublishError> {
        let bounds = self.consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT);
        bounds.map_err(PublishError::kafka("asking for a partition's offsets"))
    }

    /// The first offset of each of the first `partitions` whose record is of this time or later, in milliseconds since 1970; none where there is
    /// none.
    ///
    /// # Errors
    /// The brokers cannot be reached, or deny it.
    pub fn offsets_at(&self, topic: &str, partitions: i32, unix_ms: i64) -> Result<Vec<Option<i64>>, PublishError> {
        let failed = || PublishError::kafka("looking for offsets by time");
        let mut wanted = TopicPartitionList::new();
        for partition in 0..partitions {
            wanted.add_partition_offset(topic, partition, Offset::Offset(unix_ms)).map_err(failed())?;
        }
        let found = self.consumer.offsets_for_times(wanted, REQUEST_TIMEOUT).map_err(failed())?;
        (0..partitions)
            .map(|partition| {
                let found = found.find_partition(topic, partition);
                let found = found.ok_or(KafkaError::OffsetFetch(rdkafka::types::RDKafkaErrorCode::UnknownPartition));
                let found = found.map_err(failed())?;
                found.error().map_err(failed())?;
                Ok(match found.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                })
            })
            .collect()
    }

    /// Reads from these places on, and from no others.
    ///
    /// # Errors
    /// librdkafka refuses them.
    pub fn read_from(&mut self, places: &[ReadFrom]) -> Result<(), PublishError> {
        let mut assignment = TopicPartitionList::new();
        let opening = || PublishError::kafka("opening a topic");
        for ReadFrom { topic, partition, offset } in places {
            assignment.add_partition_offset(topic, *partition, Offset::Offset(*offset)).map_err(opening())?;
        }
        self.heard_at = Instant::now();
        // What was fetched for an assignment from before is not handed out any more.
        self.consumer.unassign().and_then(|()| self.consumer.assign(&assignment)).map_err(opening())
    }

    /// What comes next. It waits for a moment.
    ///
    /// # Errors
    /// Nothing has come for long, or an offset is not there any more ([`PublishError::is_offset_gone`]), or the brokers refuse.
    pub fn read(&mut self) -> Result<Next<'_>, PublishError> {
        let doing = "reading a topic";
        match self.consumer.poll(POLL) {
            Some(Ok(message)) => {
                self.heard_at = Instant::now();
                Ok(Next::Record(FetchedRecord(message)))
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.heard_at = Instant::now();
                Ok(Next::End(partition))
            }
            // librdkafka connects again by itself.
            Some(Err(error)) if !is_passing(&error) => Err(PublishError::Kafka { doing, error, reason: None }),
            heard if self.heard_at.elapsed() >= SILENCE_TIMEOUT => Err(PublishError::Kafka {
                doing,
                error: match heard {
                    Some(Err(error)) => error,
                    _ => KafkaError::NoMessageReceived,
                },
                reason: Some(format!("nothing came for {} s", SILENCE_TIMEOUT.as_secs())),
            }),
            _ => Ok(Next::Nothing),
        }
    }

    /// Whether all of a place's partition before `end` was read, the marks of transactions included.
    ///
    /// # Errors
    /// librdkafka does not say.
    pub fn has_read(&self, from: &ReadFrom, end: i64) -> Result<bool, PublishError> {
        has_reached(&self.consumer, &from.topic, from.partition, from.offset, end)
    }

    /// Fetches no more of a partition; what was fetched of it may still come.
    ///
    /// # Errors
    /// librdkafka refuses it.
    pub fn pause(&self, topic: &str, partition: i32) -> Result<(), PublishError> {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition(topic, partition);
        self.consumer.pause(&partitions).map_err(PublishError::kafka("leaving a partition"))
    }

    /// That nothing comes is as it should be: what was there was read.
    pub fn is_patient(&mut self) {
        self.heard_at = Instant::now();
    }
}

impl FetchedRecord<'_> {
    /// Its topic.
    pub fn topic(&self) -> &str {
        self.0.topic()
    }

    /// Its partition.
    pub fn partition(&self) -> i32 {
        self.0.partition()
    }

    /// Its offset.
    pub fn offset(&self) -> i64 {
        self.0.offset()
    }

    /// Its time, in milliseconds since 1970, if it has one.
    pub fn unix_ms(&self) -> Option<i64> {
        self.0.timestamp().to_millis()
    }

    /// Its key.
    pub fn key(&self) -> Option<&[u8]> {
        self.0.key()
    }

    /// Its value; none is a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        self.0.payload()
    }

    /// Its headers, in order. A header may have no value.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.0.headers().into_iter().flat_map(Headers::iter).map(|header| (header.key, header.value))
    }
}
