//! Where the checkpoints are, and how the newest one is found for certain.

use std::time::{Duration, Instant};

use rdkafka::{Message, Offset, TopicPartitionList, consumer::Consumer, error::KafkaError};

use crate::{
    attachment::Held,
    error::PublishError,
    log_reader::has_reached,
    reader::Reader,
    settings::KafkaSettings,
    topics::{TopicAdmin, ensure_compacted},
};

/// How long one request for the partition's offsets may take.
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long another stream's open transaction on the topic may hold us up. Transactions hold the topic for milliseconds,
/// unless their owner died in the middle: then for as long as its transaction timeout.
const STABLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long the topic may yield nothing at all while it is read.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// The compacted one-partition topic that holds the checkpoint of each stream under the stream's name, and beside it what the program
/// [attaches](crate::Attachment) to it.
#[derive(Debug, Clone)]
pub struct CheckpointTopic {
    topic: String,
}

impl CheckpointTopic {
    /// The only partition.
    const PARTITION: i32 = 0;

    /// The topic of this name.
    pub fn new(topic: impl Into<String>) -> Self {
        Self { topic: topic.into() }
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.topic
    }

    /// Creates the topic if it is missing, and otherwise checks that it has one partition and is compacted only:
    /// with more the order of checkpoints is lost, and with deletion the checkpoint itself, in time.
    ///
    /// # Errors
    /// The topic is unfit, or the brokers cannot be reached.
    pub fn ensure(&self, admin: &TopicAdmin, replication_factor: i32) -> Result<(), PublishError> {
        ensure_compacted(admin, &self.topic, "checkpoints", replication_factor)
    }

    /// The newest committed checkpoint of the stream, none if there is none for certain, and what is attached to it.
    ///
    /// A `read_committed` consumer is shown the log only up to the last stable offset, before the first transaction that
    /// is still open. Reading to *its* end could therefore miss checkpoints that are committed already. So:
    ///
    /// 1. The caller has made a [`Producer`](crate::Producer): what an earlier one of this stream left open is ended.
    /// 2. The high watermark is asked for as a `read_uncommitted` client: every committed checkpoint lies before it.
    /// 3. It is waited until the last stable offset has reached it: nothing before it is undecided any more. What holds it
    ///    back can only be another stream's transaction.
    /// 4. The log is read from its beginning up to that watermark. The partition's end may run away from a reader for as long as other
    ///    streams write their checkpoints.
    ///
    /// # Errors
    /// The end was not reached, a checkpoint cannot be read, or checkpoints go backwards. None of these is ever taken for
    /// "no checkpoint".
    pub fn read(&self, settings: &KafkaSettings) -> Result<Held, PublishError> {
        let uncommitted = settings.reader(&settings.consumer("read_uncommitted"), "creating the watermark client")?;
        let (begin, high) = uncommitted
            .fetch_watermarks(&self.topic, Self::PARTITION, OFFSETS_TIMEOUT)
            .map_err(PublishError::kafka("reading the checkpoint topic's high watermark"))?;
        drop(uncommitted);

        let consumer = settings.reader(&settings.consumer("read_committed"), "creating the checkpoint consumer")?;
        self.await_stable(&consumer, high)?;
        self.assign(&consumer)?;
        self.read_until(&consumer, begin, high, &settings.name)
    }

    /// The newest checkpoint of the stream that is readable at this moment, and what is attached to it, without waiting for what is undecided.
    /// It may be stale, so that no stream may begin at it: it only tells who has written it, and what there is to see.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn peek(&self, settings: &KafkaSettings) -> Result<Held, PublishError> {
        let consumer = settings.reader(&settings.consumer("read_committed"), "creating the checkpoint consumer")?;
        let (begin, stable) = self.stable_bounds(&consumer)?;
        self.assign(&consumer)?;
        self.read_until(&consumer, begin, stable, &settings.name)
    }

    fn await_stable(&self, consumer: &Reader, high: i64) -> Result<(), PublishError> {
        let began = Instant::now();
        loop {
            let (_, stable) = self.stable_bounds(consumer)?;
            if stable >= high {
                return Ok(());
            }
            if began.elapsed() > STABLE_TIMEOUT {
                return Err(PublishError::TopicBlocked {
                    topic: self.topic.clone(),
                    readable: Some(stable),
                    high,
                    waited_ms: began.elapsed().as_millis(),
                });
            }
            // The last stable offset cannot be awaited: the protocol has no notification.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// From where and up to where a `read_committed` consumer is shown the log at this moment.
    fn stable_bounds(&self, consumer: &Reader) -> Result<(i64, i64), PublishError> {
        consumer
            .fetch_watermarks(&self.topic, Self::PARTITION, OFFSETS_TIMEOUT)
            .map_err(PublishError::kafka("reading the checkpoint topic's last stable offset"))
    }

    fn assign(&self, consumer: &Reader) -> Result<(), PublishError> {
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(&self.topic, Self::PARTITION, Offset::Beginning)
            .and_then(|()| consumer.assign(&assignment))
            .map_err(PublishError::kafka("opening the checkpoint topic"))
    }

    /// Reads from the log's beginning to the last record before `end`.
    ///
    /// What stands right before it may be no record but the mark of a commit, which nobody is shown: then the partition's end is reported,
    /// or a record behind `end` comes. That it is reported is not enough: it is the end as the broker knows it that has answered, and a new leader
    /// may not know yet how far everything is replicated. So what lies before `end` must have been read as well.
    fn read_until(&self, consumer: &Reader, begin: i64, end: i64, name: &str) -> Result<Held, PublishError> {
        let mut held = Held::default();
        loop {
            let message = match consumer.poll(SILENCE_TIMEOUT) {
                None => {
                    return Err(PublishError::Kafka {
                        doing: "reading the checkpoint topic",
                        error: KafkaError::NoMessageReceived,
                        reason: Some(format!("nothing came for {} s", SILENCE_TIMEOUT.as_secs())),
                    });
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if has_reached(consumer, &self.topic, partition, begin, end)? {
                        return Ok(held.finish());
                    }
                    continue;
                }
                Some(Err(error)) => {
                    return Err(PublishError::Kafka { doing: "reading the checkpoint topic", error, reason: None });
                }
                Some(Ok(message)) if message.offset() >= end => return Ok(held.finish()),
                Some(Ok(message)) => message,
            };
            held.take(name, message.key().unwrap_or_default(), message.payload()).map_err(|error| {
                PublishError::Checkpoint { topic: self.topic.clone(), offset: message.offset(), error }
            })?;
        }
    }
}
