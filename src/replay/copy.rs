//! Records into another topic, each once, whatever dies in between.
//!
//! A replay has a name, and its transactional id is `pgsluice:replay:` and that name, which no stream has. Each Kafka transaction of it has some
//! records, and as its last one a record in the checkpoint topic under the same key, which says behind which offset of each partition they end
//! ([`Place`]). So how far it is and what was written are committed together or not at all, as the stream's checkpoint is, by the same code and for the same
//! reasons (`publisher`'s argument); a consumer group's offsets would be forgotten when it is idle.
//!
//! Who runs it again makes a producer first, which ends what another run has left open and fences one that still runs; then the place is read as it is
//! decided, up to the high watermark of before; then it goes on there. After a failure that may pass it does the same by itself.
//!
//! The range is made once, and is in the place that is committed before the first record: a second run has the same end. So are the arguments,
//! and a run with others is refused.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use encoder::decode::Value;
use publisher::{
    Appetite, CheckpointTopic, FetchedRecord, ForwardedRecord, Isolation, KafkaSettings, LogReader, MemoryBudget,
    Producer, PublishError, TopicAdmin, TopicReader, Transaction, Verdict,
};
use serde::{Deserialize, Serialize};

use super::{
    decode::Decoded,
    progress::Progress,
    reading::{self, Read, Span, Stop, Then},
    target::{self, Retention, There},
};
use crate::{
    failure::{Code, Failure},
    fault,
    pipeline::failure_of,
};

const VERSION: u32 = 1;
/// A transaction is committed when it has as many records or bytes as the stream's, though no more than these bytes, or is so old.
const BYTES_MAX: u64 = 8 << 20;
const AGE_MAX: Duration = Duration::from_secs(1);
/// How long the place may be behind what was read where nothing was written.
const QUIET_AGE_MAX: Duration = Duration::from_secs(5);
/// How long the checkpoint topic may be held up by others.
const STABLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How often it is tried again without any progress, and how long it waits before that.
const ATTEMPTS_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// What a replay was asked for. A run with the same name and something else is another replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) topic: String,
    pub(crate) to_topic: String,
    pub(crate) range: String,
    pub(crate) partitions: Vec<i32>,
    pub(crate) keys: Vec<String>,
    pub(crate) condition: Option<String>,
    pub(crate) isolation: String,
    /// Whether keys and values are written as JSON.
    pub(crate) as_json: bool,
}

/// How far a replay is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    version: u32,
    asked: Asked,
    partitions: Vec<Part>,
    /// Records that were read, and those that were written.
    pub(crate) read: u64,
    pub(crate) written: u64,
    pub(crate) is_done: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    partition: i32,
    next: i64,
    end: Option<i64>,
}

/// A replay into a topic.
pub(crate) struct Copy<'a> {
    /// With the replay's own name: of who writes.
    pub(crate) settings: KafkaSettings,
    /// With the stream's: of who reads, and joins no group of that name or any other.
    pub(crate) reading: KafkaSettings,
    pub(crate) checkpoint_topic: CheckpointTopic,
    pub(crate) replication_factor: i32,
    pub(crate) isolation: Isolation,
    pub(crate) asked: Asked,
    /// Whether it goes on where records are gone that it has not come to. It may be said later on.
    pub(crate) is_content_with_less: bool,
    /// Whether it may begin in a topic that has records already.
    pub(crate) appends: bool,
    pub(crate) records_max: u64,
    pub(crate) bytes_max: u64,
    pub(crate) admin: &'a TopicAdmin,
    pub(crate) stop: Stop,
    /// Whether a bar is drawn.
    pub(crate) shows_progress: bool,
}

/// The transactional id, and the key of the place.
pub(crate) fn id(name: &str) -> String {
    format!("pgsluice:replay:{name}")
}

/// What a run has come to.
pub(crate) struct Outcome {
    pub(crate) place: Place,
    /// Whether it was complete before.
    pub(crate) was_done: bool,
}

/// What becomes of a record.
pub(crate) enum Chosen {
    /// It is not wanted.
    No,
    /// It is written as it is.
    AsItIs,
    /// It is written as JSON.
    AsJson(Decoded),
}

/// How a record is chosen.
pub(crate) type Choose<'a> = dyn FnMut(&FetchedRecord<'_>) -> Result<Chosen, Failure> + 'a;

/// What has ended a session.
enum Ended {
    Publish(PublishError),
    Other(Failure),
}

impl From<PublishError> for Ended {
    fn from(error: PublishError) -> Self {
        Self::Publish(error)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl Copy<'_> {
    /// Copies until all is copied, or somebody stops it. `spans` makes the range; it is asked once in the life of a replay.
    ///
    /// # Errors
    /// It cannot go on. What was committed is committed, and another run goes on behind it.
    pub(crate) fn run(
        &self,
        spans: &mut dyn FnMut() -> Result<Vec<Span>, Failure>,
        choose: &mut Choose<'_>,
    ) -> Result<Outcome, Failure> {
        let (mut attempts, mut last_read, mut is_first) = (0, None, true);
        loop {
            let mut reached = None;
            let ended = match self.session(spans, choose, &mut reached) {
                // The commit of which the answer was lost is this run's.
                Ok(outcome) => return Ok(Outcome { was_done: outcome.was_done && is_first, ..outcome }),
                Err(ended) => ended,
            };
            is_first = false;
            attempts = if reached == last_read { attempts + 1 } else { 1 };
            last_read = reached;
            match ended {
                Ended::Publish(error) if error.verdict() == Verdict::Renew && attempts < ATTEMPTS_MAX => {
                    tracing::warn!(%error, "the replay goes on from what is committed");
                    std::thread::sleep(PAUSE);
                }
                Ended::Publish(error) => return Err(self.failure(&error)),
                Ended::Other(failure) => return Err(failure),
            }
        }
    }

    /// `reached` is how many records were read up to the last commit.
    fn session(
        &self,
        spans: &mut dyn FnMut() -> Result<Vec<Span>, Failure>,
        choose: &mut Choose<'_>,
        reached: &mut Option<u64>,
    ) -> Result<Outcome, Ended> {
        self.checkpoint_topic.ensure(self.admin, self.replication_factor)?;
        let budget = Arc::new(MemoryBudget::new(self.settings.memory_limit_bytes));
        let producer = Producer::connect(&self.settings, budget)?;
        let there = target::find(&self.reading, &self.asked.to_topic)?;
        let (producer, mut place) = if let Some(place) = self.read_place()? {
            self.refuse_another(&place)?;
            target::refuse_lost(&self.asked.to_topic, there.as_ref(), place.written, place.is_done)?;
            (producer, place)
        } else {
            if !self.appends {
                target::refuse_used(&self.asked.to_topic, there.as_ref())?;
            }
            let place = Place::new(self.asked.clone(), &spans()?);
            (self.commit(producer.begin()?, &place)?, place)
        };
        *reached = Some(place.read);
        if place.is_done {
            return Ok(Outcome { place, was_done: true });
        }
        self.pass_over_gone(&mut place)?;
        let (partitions, retention) = self.target(there.as_ref(), &place)?;
        let spans = place.spans();
        let mut copying = Copying {
            copy: self,
            writer: Some(Writer::Idle(producer)),
            partitions,
            retention,
            place,
            committed_at: Instant::now(),
            next: BTreeMap::new(),
            read: 0,
            written: 0,
            progress: Progress::new(&spans, self.shows_progress),
        };
        let mut ended = None;
        let outcome = reading::read(&self.reading, self.isolation, &spans, &self.stop, &mut |read| match copying
            .take(&read, choose)
        {
            Ok(()) => Ok(Then::GoOn),
            Err(error) => {
                ended = Some(error);
                Ok(Then::Enough)
            }
        });
        let ended = ended.map_or(Ok(()), Err).and(outcome.map_err(Ended::Other));
        let ended = ended.and_then(|()| copying.commit(!self.stop.is_asked()));
        *reached = Some(copying.place.read);
        if ended.is_err()
            && let Some(Writer::Open(transaction)) = copying.writer.take()
        {
            // Readers need not wait for its timeout.
            transaction.abort();
        }
        ended.map(|()| Outcome { place: copying.place, was_done: false })
    }

    /// How far it is, as it is decided: what another run has begun to commit was ended when the producer connected.
    fn read_place(&self) -> Result<Option<Place>, Ended> {
        let topic = self.checkpoint_topic.name();
        let end = LogReader::new(&self.reading, topic, Isolation::Uncommitted).end()?;
        let (key, mut newest) = (self.settings.name.as_bytes(), None);
        let mut reader = LogReader::new(&self.reading, topic, Isolation::Committed);
        reader.read_while(end, STABLE_TIMEOUT, |_, found, value| {
            if found == Some(key) {
                newest = value.map(<[u8]>::to_vec);
            }
            ControlFlow::Continue(())
        })?;
        let Some(newest) = newest else { return Ok(None) };
        let unreadable = |found: String| {
            let found = format!("how far the replay {} is cannot be read: {found}", self.settings.name);
            Failure::new(Code::CheckpointCorrupt, found).for_topic(topic)
        };
        let place: Place = serde_json::from_slice(&newest).map_err(|error| unreadable(error.to_string()))?;
        match place.version {
            VERSION => Ok(Some(place)),
            version => Err(unreadable(format!("it has version {version}, and this is for {VERSION}")).into()),
        }
    }

    fn refuse_another(&self, place: &Place) -> Result<(), Failure> {
        if place.asked == self.asked {
            return Ok(());
        }
        let json = |asked: &Asked| serde_json::to_string(asked).unwrap_or_default();
        let found = format!("it was begun with {}, and this is {}", json(&place.asked), json(&self.asked));
        Err(Failure::new(Code::ReplayMismatch, found))
    }

    /// How many partitions the target has, and how long it keeps records. It is created with as many as the source has, if it is not there.
    fn target(&self, there: Option<&There>, place: &Place) -> Result<(i32, Retention), Ended> {
        let (from, to) = (&self.asked.topic, &self.asked.to_topic);
        if let Some(&There { partitions, .. }) = there {
            let retention = match place.written {
                0 => Retention::of(self.admin, to, false)?,
                _ => Retention::unasked(),
            };
            return Ok((partitions, retention));
        }
        let source = TopicReader::connect(&self.reading, self.isolation, Appetite::Few)?.partitions(from)?;
        let partitions = source.unwrap_or(1);
        target::create(self.admin, to, from, partitions, self.replication_factor)?;
        Ok((partitions, Retention::of(self.admin, to, true)?))
    }

    /// Begins where something is left, if that may be: what a run that was interrupted has not come to may have been removed since.
    fn pass_over_gone(&self, place: &mut Place) -> Result<(), Ended> {
        let topic = &self.asked.topic;
        let source = TopicReader::connect(&self.reading, self.isolation, Appetite::Few)?;
        for part in &mut place.partitions {
            if part.end.is_some_and(|end| part.next >= end) {
                continue;
            }
            let (begin, _) = source.bounds(topic, part.partition)?;
            if part.next >= begin {
                continue;
            }
            let found = format!(
                "in {topic} partition {} offsets {} to {} were removed before they were read",
                part.partition,
                part.next,
                begin - 1
            );
            if !self.is_content_with_less {
                return Err(Failure::new(Code::RangeGone, found).into());
            }
            tracing::warn!("{found}: the replay goes on behind them");
            part.next = begin;
        }
        Ok(())
    }

    fn commit(&self, transaction: Transaction, place: &Place) -> Result<Producer, Ended> {
        let json = serde_json::to_vec(place).map_err(|error| Failure::caused(Code::Internal, error))?;
        let prepared = transaction.conclude(self.checkpoint_topic.name(), self.settings.name.as_bytes(), &json)?;
        fault::point(fault::Point::BeforeCommit);
        fault::point(fault::Point::DuringCommit);
        let producer = prepared.commit()?;
        fault::point(fault::Point::AfterCommit);
        Ok(producer)
    }

    fn failure(&self, error: &PublishError) -> Failure {
        match error.verdict() {
            Verdict::Fenced => {
                let found = format!("another run of {} has taken over: {error}", self.settings.name);
                Failure::new(Code::Fenced, found)
            }
            _ => failure_of(error, Duration::ZERO, Duration::MAX),
        }
    }
}

impl Place {
    fn new(asked: Asked, spans: &[Span]) -> Self {
        let part = |span: &Span| Part { partition: span.partition, next: span.from, end: span.to };
        Self {
            version: VERSION,
            asked,
            partitions: spans.iter().map(part).collect(),
            read: 0,
            written: 0,
            is_done: false,
        }
    }

    fn spans(&self) -> Vec<Span> {
        let span = |part: &Part| Span {
            topic: self.asked.topic.clone(),
            partition: part.partition,
            from: part.next,
            to: part.end,
        };
        self.partitions.iter().map(span).collect()
    }
}

enum Writer {
    Idle(Producer),
    Open(Transaction),
}

struct Copying<'a> {
    copy: &'a Copy<'a>,
    /// None once a call has failed.
    writer: Option<Writer>,
    partitions: i32,
    retention: Retention,
    /// As it was committed.
    place: Place,
    committed_at: Instant,
    /// The offset behind what was read of each partition since.
    next: BTreeMap<i32, i64>,
    read: u64,
    written: u64,
    progress: Progress,
}

impl Copying<'_> {
    fn take(&mut self, read: &Read<'_>, choose: &mut Choose<'_>) -> Result<(), Ended> {
        match read {
            Read::Idle => return if self.is_due(Duration::ZERO) { self.commit(false) } else { Ok(()) },
            Read::Record(record) => {
                self.progress.read(record.topic(), record.partition(), record.offset());
                match choose(record)? {
                    Chosen::No => {}
                    Chosen::AsItIs => self.forward(record, record.key(), record.value())?,
                    Chosen::AsJson(Decoded { key, value, .. }) => {
                        let json = |value: &Value, bytes: Option<&[u8]>| bytes.map(|_| value.to_json().into_bytes());
                        let (key, value) = (json(&key, record.key()), json(&value, record.value()));
                        self.forward(record, key.as_deref(), value.as_deref())?;
                    }
                }
                self.next.insert(record.partition(), record.offset() + 1);
                self.read += 1;
            }
        }
        if self.is_due(AGE_MAX) { self.commit(false) } else { Ok(()) }
    }

    fn forward(&mut self, record: &FetchedRecord<'_>, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), Ended> {
        self.retention.look(&self.copy.asked.to_topic, record.partition(), record.unix_ms())?;
        let headers: Vec<_> = record.headers().collect();
        // By number only if every partition has its own: else one key's records could be in two.
        let has_all = self.place.partitions.iter().all(|part| part.partition < self.partitions);
        let forwarded = ForwardedRecord {
            topic: &self.copy.asked.to_topic,
            partition: has_all.then(|| record.partition()),
            unix_ms: record.unix_ms(),
            key,
            value,
            headers: &headers,
        };
        let mut transaction = self.open()?;
        if let Err(error) = transaction.forward(&forwarded).and_then(|()| transaction.poll()) {
            transaction.abort();
            return Err(error.into());
        }
        self.writer = Some(Writer::Open(transaction));
        self.written += 1;
        Ok(())
    }

    /// The open transaction, which is begun if there is none.
    fn open(&mut self) -> Result<Transaction, Ended> {
        match self.writer.take() {
            Some(Writer::Open(transaction)) => Ok(transaction),
            Some(Writer::Idle(producer)) => Ok(producer.begin()?),
            None => Err(Failure::new(Code::Internal, "the producer was used after it had failed").into()),
        }
    }

    fn is_due(&self, age_max: Duration) -> bool {
        match &self.writer {
            Some(Writer::Open(open)) => {
                open.age() >= age_max
                    || open.records() >= self.copy.records_max
                    || open.bytes() >= self.copy.bytes_max.min(BYTES_MAX)
            }
            // A filter that seldom takes one: else all of it would be read again.
            Some(Writer::Idle(_)) => self.read > 0 && self.committed_at.elapsed() >= QUIET_AGE_MAX,
            None => false,
        }
    }

    /// Commits what was read, and what was written of it. All was read if it `is_done`.
    fn commit(&mut self, is_done: bool) -> Result<(), Ended> {
        let mut place = self.place.clone();
        for part in &mut place.partitions {
            part.next = self.next.get(&part.partition).copied().unwrap_or(part.next);
        }
        place.read += self.read;
        place.written += self.written;
        place.is_done = is_done;
        if place == self.place {
            return Ok(());
        }
        let transaction = self.open()?;
        self.writer = Some(Writer::Idle(self.copy.commit(transaction, &place)?));
        (self.place, self.read, self.written) = (place, 0, 0);
        self.committed_at = Instant::now();
        Ok(())
    }
}
