//! The publishing thread: records into Kafka transactions, and what is committed back to the server.
//!
//! It alone owns the producer, since transaction calls block. Its loop takes [`Work`] in order and decides when to commit:
//!
//! - at the end of a PostgreSQL transaction, as soon as the source has nothing more (latency), or when the Kafka transaction
//!   has grown to `max_records`, `max_bytes` or `max_age` (throughput: the fixed cost of a commit is shared by many);
//! - inside a PostgreSQL transaction only past `split_after_records`, `split_after_bytes` or `split_after_age`: Kafka takes no
//!   transaction of any length. The checkpoint then names the place inside, see [`Split`](publisher::Split);
//! - without records, to let the server free log that holds nothing for us: at most every [`QUIET_INTERVAL`], unless
//!   the server waits for it. The position goes through Kafka like any other, before it is confirmed;
//! - at least every [`HEARTBEAT_INTERVAL`], so that a fenced instance notices, that Kafka is away is seen (`kafka_watch.rs`), and the transactional
//!   id does not expire.
//!
//! While a commit is under way, the source goes on encoding into the queue, up to the memory budget.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use encoder::{BoundHeartbeatTopic, RecordBatch, may_be_dead_letter_topic};
use publisher::{
    Attachment, Checkpoint, CheckpointTopic, MemoryBudget, OutgoingRecord, Position, Producer, PublishError,
    Transaction, Verdict, record_cost,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc::Receiver, oneshot},
    time::timeout,
};
use tracing::{debug, warn};

use super::work::{Copied, Delivery, QuietPosition, Work};
use crate::{
    checkpoint::{Committed, OutOfOrder, Progress},
    config,
    failure::{Code, Failure},
    fault,
    metrics::Metrics,
    quarantine::Quarantine,
    snapshot::{Emptied, Notice},
};

/// How often a position without records is committed while the server does not wait for it.
const QUIET_INTERVAL: Duration = Duration::from_secs(5);
/// The same while the server waits for it.
const URGENT_INTERVAL: Duration = Duration::from_millis(100);
/// A position this far ahead is committed sooner, to let the server free log.
const QUIET_DISTANCE_BYTES: u64 = 64 << 20;
/// How often something is committed, at least.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How often librdkafka is let speak while nothing happens.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// How often delivery reports are looked for while a transaction is open.
const REPORT_INTERVAL: Duration = Duration::from_millis(1);

/// Told what PostgreSQL may forget.
pub(super) trait Confirm: Send {
    /// Everything before `committed` is in Kafka for good.
    ///
    /// # Errors
    /// The connection never came that far, which is a defect.
    fn confirm(&self, committed: Committed) -> Result<(), Failure>;
}

/// What the thread needs to know.
pub(super) struct Publishing {
    /// Where checkpoints go.
    pub(super) topic: CheckpointTopic,
    /// The checkpoint that the stream resumes from, which is committed.
    pub(super) checkpoint: Checkpoint,
    /// When to commit.
    pub(super) limits: config::Transaction,
    /// The tables in quarantine, as the checkpoint has them.
    pub(super) quarantine: Quarantine,
    /// Where it is told how copies get on, if anywhere.
    pub(super) notification_topic: Option<String>,
    /// Where heartbeats go, and how often, if there are to be any.
    pub(super) heartbeat: Option<(BoundHeartbeatTopic, Duration)>,
    /// After how long the coordinator gives up on an open transaction.
    pub(super) transaction_timeout: Duration,
    pub(super) budget: Arc<MemoryBudget>,
    pub(super) metrics: Arc<Metrics>,
}

/// Publishes until the queue is closed, then commits what is whole.
///
/// # Errors
/// Why nothing more can be published. The stream may be resumed from the checkpoint in Kafka, and only from there.
pub(super) fn run(
    publishing: Publishing,
    producer: Producer,
    queue: Receiver<Work>,
    confirm: Box<dyn Confirm>,
    runtime: &Handle,
) -> Result<(), Failure> {
    let (progress, committed) = Progress::resume(publishing.checkpoint.position());
    for (_, entry) in publishing.quarantine.iter() {
        producer.has_been_written_to(&entry.letters, entry.end_offset);
    }
    let mut publisher = Publisher {
        publishing,
        progress,
        writer: Some(Writer::Closed(producer)),
        inside_transaction: false,
        quiet: None,
        new_quarantine: BTreeSet::new(),
        committed_at: Instant::now(),
        heartbeat_at: None,
        oldest_received_at: None,
        oldest_commit_unix_us: None,
        newest_commit_unix_us: 0,
        attachments: BTreeMap::new(),
        awaited: Vec::new(),
        queue,
        confirm,
    };
    publisher.tell_server(committed)?;
    let outcome = publisher.run(runtime);
    if let Some(Writer::Open(transaction)) = publisher.writer.take() {
        // Readers need not wait for its timeout. Whatever was in it is read again from the checkpoint.
        transaction.abort();
    }
    outcome
}

struct Publisher {
    publishing: Publishing,
    progress: Progress,
    /// None once a call has failed: the producer's state is unknown then, and it is gone.
    writer: Option<Writer>,
    /// Whether the published position lies inside a PostgreSQL transaction.
    inside_transaction: bool,
    quiet: Option<QuietPosition>,
    /// The topics of which something else is to be said than beside the newest checkpoint.
    new_quarantine: BTreeSet<String>,
    committed_at: Instant,
    /// When the last heartbeat was written.
    heartbeat_at: Option<Instant>,
    /// When the oldest byte of what is not committed yet was received.
    oldest_received_at: Option<Instant>,
    oldest_commit_unix_us: Option<i64>,
    newest_commit_unix_us: i64,
    /// What the next checkpoint says beside its position, by suffix.
    attachments: BTreeMap<String, Option<Vec<u8>>>,
    /// Who waits for that checkpoint.
    awaited: Vec<oneshot::Sender<()>>,
    queue: Receiver<Work>,
    confirm: Box<dyn Confirm>,
}

enum Writer {
    Closed(Producer),
    Open(Transaction),
}

enum Next {
    Work(Work),
    Nothing,
    End,
}

impl Publisher {
    fn run(&mut self, runtime: &Handle) -> Result<(), Failure> {
        loop {
            match self.next(runtime)? {
                Next::Work(Work::Records(delivery)) => {
                    self.progress.receive(delivery.end).map_err(out_of_order)?;
                    self.publish(*delivery)?;
                }
                Next::Work(Work::Quarantine(list)) => {
                    self.tell_of_letters(&list);
                    self.new_quarantine.extend(self.publishing.quarantine.extend(list));
                }
                Next::Work(Work::Position(quiet)) => {
                    self.progress.receive(quiet.position).map_err(out_of_order)?;
                    self.quiet = Some(quiet);
                }
                Next::Work(Work::Copied(copied)) => self.publish_copied(*copied)?,
                Next::Nothing => {}
                Next::End => return self.finish(),
            }
            self.commit_if_due()?;
        }
    }

    /// The next piece of work, or nothing for a moment.
    fn next(&mut self, runtime: &Handle) -> Result<Next, Failure> {
        use tokio::sync::mpsc::error::TryRecvError;
        match self.queue.try_recv() {
            Ok(work) => return Ok(Next::Work(work)),
            Err(TryRecvError::Disconnected) => return Ok(Next::End),
            Err(TryRecvError::Empty) => {}
        }
        match &mut self.writer {
            Some(Writer::Open(transaction)) => {
                let polled = transaction.poll();
                polled.map_err(|error| self.fail(&error))?;
                Ok(self.wait(runtime, REPORT_INTERVAL))
            }
            Some(Writer::Closed(producer)) => {
                producer.poll();
                let wait = match self.quiet {
                    Some(_) => URGENT_INTERVAL,
                    // Nothing of a heartbeat's delay is to be lost where it shows that Kafka is away.
                    None => HEARTBEAT_INTERVAL.saturating_sub(self.committed_at.elapsed()).min(IDLE_INTERVAL),
                };
                Ok(self.wait(runtime, wait))
            }
            None => Err(Failure::new(Code::Internal, "the producer was used after it had failed")),
        }
    }

    fn wait(&mut self, runtime: &Handle, limit: Duration) -> Next {
        match runtime.block_on(async { timeout(limit, self.queue.recv()).await }) {
            Ok(Some(work)) => Next::Work(work),
            Ok(None) => Next::End,
            Err(_elapsed) => Next::Nothing,
        }
    }

    fn publish(&mut self, mut delivery: Delivery) -> Result<(), Failure> {
        self.attach(std::mem::take(&mut delivery.attachments));
        self.publishing.metrics.queued(delivery.encoded_at.elapsed());
        // A quiet position that came before these records is covered by theirs.
        self.quiet = None;
        let records = delivery.batch.len();
        let whole = delivery.boundary.map_or(0, |boundary| boundary.records);
        if records > 0 {
            self.oldest_received_at.get_or_insert(delivery.received_at);
            self.oldest_commit_unix_us.get_or_insert(delivery.oldest_commit_unix_us);
            self.newest_commit_unix_us = delivery.oldest_commit_unix_us;
        }
        self.send(&delivery.batch, 0..whole)?;
        if let Some(boundary) = delivery.boundary {
            self.progress.publish(boundary.position).map_err(out_of_order)?;
            self.inside_transaction = false;
            self.publishing.metrics.published(boundary.position.end_lsn);
            if self.is_open() {
                let nothing_waits = delivery.source_idle && self.queue.is_empty();
                if nothing_waits || self.has_grown_to_limits() {
                    self.commit(boundary.position)?;
                    if records > whole {
                        self.oldest_received_at = Some(delivery.received_at);
                        self.oldest_commit_unix_us = Some(delivery.oldest_commit_unix_us);
                    }
                }
            } else {
                // Nothing of these transactions was for us.
                self.quiet = Some(QuietPosition { position: boundary.position, urgent: false });
            }
        }
        self.send(&delivery.batch, whole..records)?;
        if delivery.boundary.map(|boundary| boundary.position) != Some(delivery.end) {
            self.progress.publish(delivery.end).map_err(out_of_order)?;
            self.inside_transaction = true;
        }
        Ok(())
    }

    /// Rows that were copied are in the open Kafka transaction like those that were streamed before them; the position stays where it is.
    fn publish_copied(&mut self, copied: Copied) -> Result<(), Failure> {
        self.open()?;
        if let Some(Emptied { batch }) = &copied.emptied {
            self.send(batch, 0..batch.len())?;
        }
        self.send(&copied.batch, 0..copied.batch.len())?;
        self.attach(copied.attachments);
        for notice in copied.notices {
            self.notify(&notice)?;
        }
        self.awaited.extend(copied.committed);
        Ok(())
    }

    fn notify(&mut self, notice: &Notice) -> Result<(), Failure> {
        let (Some(topic), Some(Writer::Open(transaction))) = (&self.publishing.notification_topic, &mut self.writer)
        else {
            return Ok(());
        };
        let name = &self.publishing.checkpoint.name;
        let (key, value) = notice.encode(name, &uuid::Uuid::new_v4().to_string(), unix_ms());
        // Its cost is little, and must not wait for room that a commit makes.
        self.publishing.budget.charge(record_cost(key.len(), value.len(), 0));
        let lsn = self.progress.published().end_lsn;
        let record =
            OutgoingRecord { topic, key: Some(&key), value: Some(&value), headers: &[], lsn, is_letter: false };
        let sent = transaction.send(&record);
        sent.map_err(|error| self.fail(&error))
    }

    /// The next checkpoint is to say this too.
    fn attach(&mut self, attachments: Vec<Attachment>) {
        self.attachments.extend(attachments.into_iter().map(|attachment| (attachment.suffix, attachment.value)));
    }

    fn send(&mut self, batch: &RecordBatch, range: std::ops::Range<usize>) -> Result<(), Failure> {
        if range.is_empty() {
            return Ok(());
        }
        self.open()?;
        let Some(Writer::Open(transaction)) = &mut self.writer else {
            return Err(Failure::new(Code::Internal, "no transaction is open"));
        };
        let mut sent = Ok(());
        for (index, record) in batch.iter().enumerate().skip(range.start).take(range.len()) {
            let headers: Vec<(&str, &[u8])> = record.headers().collect();
            let outgoing = OutgoingRecord {
                topic: record.topic,
                key: record.key,
                value: record.value,
                headers: &headers,
                is_letter: may_be_dead_letter_topic(record.topic),
                lsn: record.lsn,
            };
            sent = if record.is_for_all_partitions {
                transaction.send_everywhere(&outgoing)
            } else {
                transaction.send(&outgoing)
            };
            // Reports give memory back, so that they are not left for too long.
            if sent.is_ok() && index % 512 == 511 {
                sent = transaction.poll();
            }
            if sent.is_err() {
                break;
            }
        }
        sent.map_err(|error| self.fail(&error))
    }

    fn open(&mut self) -> Result<(), Failure> {
        self.writer = match self.writer.take() {
            Some(Writer::Closed(producer)) => Some(Writer::Open(producer.begin().map_err(|error| self.fail(&error))?)),
            other => other,
        };
        Ok(())
    }

    fn is_open(&self) -> bool {
        matches!(self.writer, Some(Writer::Open(_)))
    }

    fn has_grown_to_limits(&self) -> bool {
        let Some(Writer::Open(transaction)) = &self.writer else { return false };
        let limits = &self.publishing.limits;
        transaction.records() >= limits.max_records
            || transaction.bytes() >= limits.max_bytes
            || transaction.age() >= limits.max_age
    }

    fn must_be_split(&self) -> bool {
        let Some(Writer::Open(transaction)) = &self.writer else { return false };
        let limits = &self.publishing.limits;
        transaction.records() >= limits.split_after_records
            || transaction.bytes() >= limits.split_after_bytes
            || transaction.age() >= limits.split_after_age
    }

    /// Commits for a reason other than the arrival of a boundary.
    fn commit_if_due(&mut self) -> Result<(), Failure> {
        if self.is_open() {
            if self.inside_transaction {
                // Who waits meanwhile is asked for by a copy that the transaction itself waits for.
                if self.must_be_split() || !self.awaited.is_empty() {
                    debug!(position = %self.progress.published(), "splitting a transaction");
                    return self.commit(self.progress.published());
                }
            } else if let Some(quiet) = self.quiet.take_if(|_| self.queue.is_empty()) {
                // The source says that nothing more is there: the records wait for no company, and its position is newer.
                self.progress.publish(quiet.position.max(self.progress.published())).map_err(out_of_order)?;
                return self.commit(self.progress.published());
            } else if self.has_grown_to_limits() || !self.awaited.is_empty() {
                return self.commit(self.progress.published());
            }
            return Ok(());
        }
        let since = self.committed_at.elapsed();
        let committed = self.progress.committed();
        if let Some(quiet) = self.quiet.filter(|quiet| quiet.position > committed) {
            let far = quiet.position.end_lsn.bytes_since(committed.end_lsn) >= QUIET_DISTANCE_BYTES;
            let interval = if quiet.urgent || far { URGENT_INTERVAL } else { QUIET_INTERVAL };
            if since >= interval {
                self.quiet = None;
                self.progress.publish(quiet.position).map_err(out_of_order)?;
                return self.commit(quiet.position);
            }
            return Ok(());
        }
        self.quiet = None;
        if since >= HEARTBEAT_INTERVAL || self.is_heartbeat_due() {
            return self.commit(committed);
        }
        Ok(())
    }

    fn is_heartbeat_due(&self) -> bool {
        let Some((_, interval)) = &self.publishing.heartbeat else { return false };
        self.heartbeat_at.is_none_or(|at| at.elapsed() >= *interval)
    }

    /// Adds a heartbeat to the transaction that is about to be committed, if it is time for one.
    fn beat(&mut self, position: Position) -> Result<(), Failure> {
        if !self.is_heartbeat_due() {
            return Ok(());
        }
        let (Some((topic, _)), Some(Writer::Open(transaction))) = (&self.publishing.heartbeat, &mut self.writer) else {
            return Ok(());
        };
        let value = topic.value(unix_ms());
        // Like the checkpoint's, its cost must not wait for room that the commit makes.
        self.publishing.budget.charge(record_cost(topic.key().len(), value.len(), 0));
        let record = OutgoingRecord {
            topic: topic.topic(),
            key: Some(topic.key()),
            value: Some(&value),
            headers: &[],
            is_letter: false,
            lsn: position.end_lsn,
        };
        let sent = transaction.send(&record);
        sent.map_err(|error| self.fail(&error))?;
        self.heartbeat_at = Some(Instant::now());
        Ok(())
    }

    /// A topic of letters that is made anew before the first of them is written must not pass for the one in which they are to wait.
    fn tell_of_letters(&self, list: &Quarantine) {
        for (_, entry) in list.iter() {
            match &self.writer {
                Some(Writer::Open(it)) => it.has_been_written_to(&entry.letters, entry.end_offset),
                Some(Writer::Closed(it)) => it.has_been_written_to(&entry.letters, entry.end_offset),
                None => {}
            }
        }
    }

    /// What the entries say of where the letters end is to be true of the transaction that is about to be committed.
    fn find_end_of_letters(&mut self) -> Result<(), Failure> {
        let Some(Writer::Open(transaction)) = &mut self.writer else { return Ok(()) };
        let found = self.publishing.quarantine.letters_written(|letters| transaction.written_to(letters));
        self.new_quarantine.extend(found.map_err(|error| self.fail(&error))?);
        Ok(())
    }

    fn commit(&mut self, position: Position) -> Result<(), Failure> {
        self.open()?;
        self.beat(position)?;
        self.find_end_of_letters()?;
        let Some(Writer::Open(transaction)) = self.writer.take() else {
            return Err(Failure::new(Code::Internal, "no transaction is open"));
        };
        let checkpoint = self.publishing.checkpoint.moved_to(position, unix_ms());
        let (records, age) = (transaction.records(), transaction.age());
        let began = Instant::now();
        self.publishing.metrics.kafka_commits();
        let copies = self.attachments.iter();
        let copies = copies.map(|(suffix, value)| Attachment { suffix: suffix.clone(), value: value.clone() });
        let quarantine = self.new_quarantine.iter().map(|topic| self.publishing.quarantine.attachment(topic));
        let attachments: Vec<Attachment> = copies.chain(quarantine).collect();
        let prepared = transaction.prepare(self.publishing.topic.name(), &checkpoint, &attachments);
        let committed = prepared.and_then(|prepared| {
            fault::point(fault::Point::BeforeCommit);
            fault::point(fault::Point::DuringCommit);
            prepared.commit()
        });
        let producer = committed.map_err(|error| failure_of(&error, age, self.publishing.transaction_timeout))?;
        fault::point(fault::Point::AfterCommit);
        self.writer = Some(Writer::Closed(producer));
        self.publishing.checkpoint = checkpoint;
        self.new_quarantine.clear();
        self.attachments.clear();
        for waiting in self.awaited.drain(..) {
            let _nobody_waits_any_more = waiting.send(());
        }
        self.committed_at = Instant::now();
        let committed = self.progress.commit(position).map_err(out_of_order)?;
        let metrics = &self.publishing.metrics;
        metrics.kafka_committed(
            position,
            records,
            began.elapsed(),
            self.publishing.budget.used_bytes(),
            self.newest_commit_unix_us,
        );
        if let Some(received_at) = self.oldest_received_at.take() {
            metrics.received_to_committed(received_at.elapsed());
        }
        if let Some(commit_unix_us) = self.oldest_commit_unix_us.take() {
            metrics.source_to_committed(commit_unix_us);
        }
        self.tell_server(committed)
    }

    fn tell_server(&mut self, committed: Committed) -> Result<(), Failure> {
        self.progress.confirm(committed).map_err(out_of_order)?;
        self.confirm.confirm(committed)?;
        self.publishing.metrics.confirmed(committed.flush_lsn());
        Ok(())
    }

    /// The queue is closed: the source has ended, with or without a reason.
    fn finish(&mut self) -> Result<(), Failure> {
        if self.is_open() && !self.inside_transaction {
            self.commit(self.progress.published())?;
        } else if let Some(quiet) = self.quiet.take()
            && !self.is_open()
            && quiet.position > self.progress.committed()
        {
            self.progress.publish(quiet.position).map_err(out_of_order)?;
            self.commit(quiet.position)?;
        }
        Ok(())
    }

    fn fail(&self, error: &PublishError) -> Failure {
        let age = match &self.writer {
            Some(Writer::Open(transaction)) => transaction.age(),
            _ => Duration::ZERO,
        };
        failure_of(error, age, self.publishing.transaction_timeout)
    }
}

/// What a Kafka error means for the stream.
pub(crate) fn failure_of(error: &PublishError, age: Duration, transaction_timeout: Duration) -> Failure {
    let code = match error.verdict() {
        // A coordinator that gave up on a transaction refuses its producer exactly as if another had taken over. Of one that is old
        // enough it is taken to be the cause; of others the supervisor finds out.
        Verdict::Fenced if age >= transaction_timeout => Code::ProducerTimedOut,
        Verdict::Fenced => Code::ProducerFenced,
        Verdict::Renew => Code::KafkaUnavailable,
        Verdict::Stop if error.is_record_too_large() => Code::RecordTooLarge,
        Verdict::Stop if error.is_topic_missing() => Code::TopicMissing,
        Verdict::Stop if error.is_unauthorized() => Code::KafkaDenied,
        Verdict::Stop => match error {
            PublishError::Checkpoint { .. } => Code::CheckpointCorrupt,
            PublishError::Topic { .. } => Code::TopicUnfit,
            _ => Code::KafkaRefused,
        },
    };
    let failure = Failure::new(code, error.to_string());
    match error {
        PublishError::Undelivered(record) => {
            warn!(topic = record.topic, lsn = %record.lsn, "a record was not delivered");
            failure.at(record.lsn).for_topic(&record.topic).undelivered(&record.topic, record.key.clone())
        }
        _ => failure,
    }
}

fn out_of_order(error: OutOfOrder) -> Failure {
    Failure::new(Code::Internal, error.to_string())
}

/// Milliseconds since 1970.
pub(super) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Nanoseconds since 1970.
pub(super) fn unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
