//! A topic of one partition that is read from its beginning, and later on from where one was.

use std::{
    cmp::Ordering,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList, consumer::Consumer, error::KafkaError, types::RDKafkaErrorCode as Code,
};

use crate::{
    error::{PublishError, code_of},
    reader::{Quiet, Reader},
    settings::KafkaSettings,
};

const PARTITION: i32 = 0;
/// How long a request for the partition's end may take.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the topic may yield nothing at all while it is read.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the end is asked for while it is waited for: soon at first, since a commit is a matter of milliseconds.
const END_INTERVAL_FIRST: Duration = Duration::from_millis(2);
const END_INTERVAL_MAX: Duration = Duration::from_millis(100);

/// Which records are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Those that were committed, up to the first transaction that is open.
    Committed,
    /// All that were written.
    Uncommitted,
}

impl Isolation {
    /// Kafka's name for it.
    pub(crate) const fn level(self) -> &'static str {
        match self {
            Self::Committed => "read_committed",
            Self::Uncommitted => "read_uncommitted",
        }
    }
}

/// Reads a topic on. Between two reads nothing is fetched, and the connection may be [closed](Self::close).
pub struct LogReader {
    settings: KafkaSettings,
    topic: String,
    isolation: Isolation,
    consumer: Option<Reader>,
    next: i64,
    /// Whether the first record that is read has to be the one at the offset.
    is_exact: bool,
}

impl LogReader {
    /// A reader at the topic's beginning. Nothing is connected yet.
    pub fn new(settings: &KafkaSettings, topic: impl Into<String>, isolation: Isolation) -> Self {
        Self { settings: settings.clone(), topic: topic.into(), isolation, consumer: None, next: 0, is_exact: false }
    }

    /// The same reader at another offset, from where on nothing may be missing: what was removed there is an error when it is read
    /// ([`PublishError::is_offset_gone`]), of the topic's beginning too.
    #[must_use]
    pub fn starting_at(self, offset: i64) -> Self {
        Self { next: offset, is_exact: true, ..self }
    }

    /// Reads on from another offset.
    pub fn seek(&mut self, offset: i64) {
        self.next = offset;
    }

    /// The offset behind what was read.
    pub const fn next(&self) -> i64 {
        self.next
    }

    /// Drops the connection, and remembers the place.
    pub fn close(&mut self) {
        self.consumer = None;
    }

    /// The topic's end as this isolation sees it: the offset behind the last record that can be read.
    ///
    /// # Errors
    /// The brokers cannot be reached, or deny it, or the topic is gone.
    pub fn end(&mut self) -> Result<i64, PublishError> {
        self.bounds().map(|(_, end)| end)
    }

    /// The offset of the first record that the topic still has, and its end as for [`end`](Self::end).
    ///
    /// # Errors
    /// As there.
    pub fn bounds(&mut self) -> Result<(i64, i64), PublishError> {
        let topic = self.topic.clone();
        let consumer = self.consumer()?;
        consumer
            .fetch_watermarks(&topic, PARTITION, END_TIMEOUT)
            .map_err(PublishError::kafka("asking for a topic's end"))
    }

    /// The same, or none if there is no such topic. Only the brokers' word for this name is taken for that: they leave what we may not see out of
    /// a list of all topics, and librdkafka finds no partition of it as it finds none of a topic that does not exist.
    ///
    /// # Errors
    /// The brokers cannot be reached, or deny it.
    pub fn bounds_if_there(&mut self) -> Result<Option<(i64, i64)>, PublishError> {
        let doing = "asking whether a topic exists";
        let topic = self.topic.clone();
        // A consumer's question creates no topic: `allow.auto.create.topics` is off.
        let metadata =
            self.consumer()?.fetch_metadata(Some(&topic), END_TIMEOUT).map_err(PublishError::kafka(doing))?;
        let refused =
            |code| PublishError::Kafka { doing, error: KafkaError::MetadataFetch(code), reason: Some(topic.clone()) };
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let found = found.ok_or_else(|| refused(Code::NoEnt))?;
        if exists(found.error().map(Code::from)).map_err(refused)? { self.bounds().map(Some) } else { Ok(None) }
    }

    /// Whether the record at the offset where the reader is can be read. What was written there and given up cannot.
    ///
    /// # Errors
    /// The end is not behind it in time, or the brokers cannot be reached.
    pub fn has_next(&mut self, patience: Duration) -> Result<bool, PublishError> {
        let (wanted, mut found) = (self.next, None);
        self.read_while(wanted + 1, patience, |offset, _, _| {
            found = Some(offset);
            ControlFlow::Break(())
        })?;
        Ok(found == Some(wanted))
    }

    /// Reads on to the end, which is waited for until it is at least at this offset.
    ///
    /// # Errors
    /// The end was not reached in time; what was visited stays visited, and the next call goes on behind it. A topic that ends
    /// before what was read already has been deleted or cut, which is [`PublishError::Topic`].
    pub fn read_on(
        &mut self,
        at_least: i64,
        patience: Duration,
        mut visit: impl FnMut(i64, Option<&[u8]>, Option<&[u8]>),
    ) -> Result<(), PublishError> {
        self.read_while(at_least, patience, |offset, key, value| {
            visit(offset, key, value);
            ControlFlow::Continue(())
        })
    }

    /// Like [`read_on`](Self::read_on), but no further than the record at which the visitor breaks off.
    ///
    /// # Errors
    /// As there.
    pub fn read_while(
        &mut self,
        at_least: i64,
        patience: Duration,
        mut visit: impl FnMut(i64, Option<&[u8]>, Option<&[u8]>) -> ControlFlow<()>,
    ) -> Result<(), PublishError> {
        let outcome = self.await_end(at_least, patience).and_then(|(begin, end)| match end.cmp(&self.next) {
            Ordering::Greater => self.read_to(begin, end, &mut visit),
            Ordering::Equal => Ok(()),
            Ordering::Less => Err(PublishError::Topic {
                topic: self.topic.clone(),
                problem: format!(
                    "it ends at offset {end}, and was read up to {} before: it was deleted or cut, and what it held is gone",
                    self.next
                ),
            }),
        });
        if outcome.is_err() {
            // What a consumer still has to say about a failure would be taken for the next one.
            self.close();
        }
        outcome
    }

    /// The bounds, once the end is far enough.
    fn await_end(&mut self, at_least: i64, patience: Duration) -> Result<(i64, i64), PublishError> {
        let began = Instant::now();
        let mut interval = END_INTERVAL_FIRST;
        loop {
            let (begin, end) = self.bounds()?;
            // A new leader may not know at once how far everything is replicated.
            if end >= at_least.max(self.next) || (began.elapsed() >= patience && end >= at_least) {
                return Ok((begin, end));
            }
            if began.elapsed() >= patience {
                return Err(PublishError::TopicBlocked {
                    topic: self.topic.clone(),
                    readable: Some(end),
                    high: at_least,
                    waited_ms: began.elapsed().as_millis(),
                });
            }
            // The end cannot be awaited: the protocol has no notification.
            std::thread::sleep(interval);
            interval = (interval * 2).min(END_INTERVAL_MAX);
        }
    }

    /// The assignment is made anew for each read: that librdkafka reports the end then says that *this* read has reached it, and the
    /// report cannot be one from before. It is believed only [where](has_reached) all before `end` was read.
    fn read_to(
        &mut self,
        begin: i64,
        end: i64,
        visit: &mut impl FnMut(i64, Option<&[u8]>, Option<&[u8]>) -> ControlFlow<()>,
    ) -> Result<(), PublishError> {
        let from = if self.next == 0 && !self.is_exact { Offset::Beginning } else { Offset::Offset(self.next) };
        let mut assignment = TopicPartitionList::new();
        let opening = "opening a topic";
        assignment.add_partition_offset(&self.topic, PARTITION, from).map_err(PublishError::kafka(opening))?;
        let (topic, begin) = (self.topic.clone(), begin.max(self.next));
        let mut next = self.next;
        let consumer = self.consumer()?;
        consumer.assign(&assignment).map_err(PublishError::kafka(opening))?;
        let mut heard_at = Instant::now();
        let outcome = loop {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard_at = Instant::now();
                    next = message.offset() + 1;
                    if visit(message.offset(), message.key(), message.payload()).is_break() {
                        break Ok(());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    match has_reached(consumer, &topic, partition, begin, end) {
                        Ok(true) => {
                            next = next.max(end);
                            break Ok(());
                        }
                        Ok(false) => {}
                        Err(error) => break Err(error),
                    }
                }
                // librdkafka connects again by itself.
                Some(Err(error)) if is_passing(&error) && heard_at.elapsed() < SILENCE_TIMEOUT => {}
                None if heard_at.elapsed() < SILENCE_TIMEOUT => {}
                failed => {
                    let (error, reason) = match failed {
                        Some(Err(error)) => (error, None),
                        _ => (
                            KafkaError::NoMessageReceived,
                            Some(format!("nothing came for {} s", SILENCE_TIMEOUT.as_secs())),
                        ),
                    };
                    break Err(PublishError::Kafka { doing: "reading a topic", error, reason });
                }
            }
        };
        let unassigned = consumer.unassign().map_err(PublishError::kafka("closing a topic"));
        self.next = next;
        outcome.and(unassigned)
    }

    fn consumer(&mut self) -> Result<&Reader, PublishError> {
        let consumer = if let Some(consumer) = self.consumer.take() {
            // Where nothing is new, nobody polls.
            Quiet::renew(&consumer)?;
            consumer
        } else {
            let mut config = self.settings.consumer(self.isolation.level());
            // The end is told with the answer to a fetch that finds nothing, so this is what each read waits for at last.
            config.set("fetch.wait.max.ms", "10");
            self.settings.reader(&config, "creating a consumer")?
        };
        Ok(self.consumer.insert(consumer))
    }
}

/// Whether a consumer that was assigned at `begin`, or before it where nothing is, has read all before `end`. It is asked where librdkafka reports a
/// partition's end: that is the end as the broker knows it that has answered, which may lie before the one that was learnt. A leader that has just been
/// elected does not know yet how far everything is replicated.
///
/// A consumer's position is behind the last record or mark that was taken out of its queue, so that the marks of transactions count, which nobody is shown.
pub(crate) fn has_reached(
    consumer: &Reader,
    topic: &str,
    partition: i32,
    begin: i64,
    end: i64,
) -> Result<bool, PublishError> {
    let positions = consumer.position().map_err(PublishError::kafka("asking how far a partition was read"))?;
    let position = match positions.find_partition(topic, partition).map(|found| found.offset()) {
        Some(Offset::Offset(position)) => Some(position),
        _ => None,
    };
    Ok(is_behind(position, begin, end))
}

fn is_behind(position: Option<i64>, begin: i64, end: i64) -> bool {
    position.map_or(begin, |position| position.max(begin)) >= end
}

/// Whether a topic exists of which the brokers say this.
pub(crate) fn exists(said: Option<Code>) -> Result<bool, Code> {
    match said {
        // Of the leader there is more to be said when it is asked.
        None | Some(Code::LeaderNotAvailable) => Ok(true),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(false),
        Some(code) => Err(code),
    }
}

pub(crate) fn is_passing(error: &KafkaError) -> bool {
    matches!(
        code_of(error),
        Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut | Code::Resolve)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_ends_where_it_was_learnt_to_end() {
        for (position, begin, end, expected) in [
            // Nothing was read: of an empty partition, of one whose records were removed, and of one that has some.
            (None, 0, 0, true),
            (None, 7, 7, true),
            (None, 0, 7, false),
            // A broker that knows less than was learnt.
            (Some(5), 0, 7, false),
            (Some(7), 0, 7, true),
            (Some(9), 0, 7, true),
        ] {
            assert_eq!(is_behind(position, begin, end), expected, "{position:?} {begin} {end}");
        }
    }

    #[test]
    fn only_a_topic_that_is_unknown_is_taken_as_gone() {
        assert_eq!([None, Some(Code::LeaderNotAvailable)].map(exists), [Ok(true); 2]);
        assert_eq!(exists(Some(Code::UnknownTopicOrPartition)), Ok(false));
        for code in [Code::TopicAuthorizationFailed, Code::UnknownPartition, Code::InvalidTopic, Code::Unknown] {
            assert_eq!(exists(Some(code)), Err(code));
        }
    }
}
