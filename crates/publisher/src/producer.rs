//! A transactional producer whose misuse does not compile.
//!
//! [`Producer`] has no transaction open, [`Transaction`] has one, and a [`Prepared`] one lacks nothing but its commit. Each step
//! consumes the one and returns the next, and whoever failed is gone: so no call can reach a producer whose state is unknown
//! (rule 2 of the crate's argument), and after an abort there is none to go on with either. That is deliberate. librdkafka has no
//! KIP-890 version 2, so a delayed `EndTxn` request may end a *later* transaction of the same producer epoch (librdkafka #5423); a
//! new producer has a new epoch, and the late request is refused.
//!
//! A commit that succeeds can leave such a request behind as well. librdkafka asks again, without a word and without an end, when
//! the connection is lost or the answer does not come; what is answered then is the second request, and the first may still be on
//! its way. It asks again no sooner than [`KafkaSettings::resend_after`], so a commit that came back sooner was asked for once.
//! After any other, the producer is given up: [`PublishError::AskedAgain`].
//!
//! All calls block. One thread owns the producer, and its delivery reports are served inside [`Transaction::send`],
//! [`Transaction::poll`] and [`Transaction::prepare`].

mod forward;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use pgoutput::Lsn;
use rdkafka::{
    config::FromClientConfigAndContext,
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, PurgeConfig},
    types::RDKafkaErrorCode,
    util::get_rdkafka_version,
};
use tracing::debug;

use crate::{
    attachment::Attachment,
    budget::{MemoryBudget, headers_cost, record_cost},
    checkpoint::Checkpoint,
    error::{PublishError, UndeliveredRecord, Verdict, code_of},
    observer::Reported,
    reports::{Origin, Reports},
    settings::KafkaSettings,
};

pub use forward::ForwardedRecord;

/// The oldest librdkafka whose transactions have no known loss: 1.8.2 fixed a silent loss after an epoch bump, 2.3.0 a
/// sequence desynchronisation, 2.5.0 a rebuilt batch on retry (its CHANGELOG).
pub(crate) const LIBRDKAFKA_MIN: (u32, &str) = (0x0205_0000, "2.5.0");

/// How long `init_transactions` may take: it ends what an earlier producer left open, for which the coordinator may have
/// to reach every partition of it.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The granularity of waiting for delivery reports, which is also what a commit can be late by.
///
/// rdkafka's `poll` takes a time to wait, but waits in whole milliseconds and spins for what is left of the last one. So it is
/// only ever asked what is there, and the waiting is done here.
const REPORT_INTERVAL: Duration = Duration::from_micros(500);

/// How long the brokers may take to say what a topic is like, as long as librdkafka has its own records wait for that; how long one is waited for, and
/// after which pause the next is asked.
const METADATA_TIMEOUT: Duration = Duration::from_secs(30);
const METADATA_ASK: Duration = Duration::from_secs(2);
const METADATA_PAUSE: Duration = Duration::from_millis(100);

/// How long the cause of an effect may take to be told.
const CAUSE_TIMEOUT: Duration = Duration::from_secs(2);

/// One record to be sent.
#[derive(Debug, Clone)]
pub struct OutgoingRecord<'a> {
    /// Its topic, which exists.
    pub topic: &'a str,
    /// Its key. Without one it goes to partition 0 unless it is said otherwise, so that the records of a keyless table stay in order.
    pub key: Option<&'a [u8]>,
    /// Its value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Whether it may be as large as a [letter](KafkaSettings::letter_max_bytes).
    pub is_letter: bool,
    /// The LSN of the change that it came from, for error messages.
    pub lsn: Lsn,
}

impl OutgoingRecord<'_> {
    /// Refuses a record that is larger than so many bytes, as it will be refused when it is [sent](Transaction::send).
    ///
    /// # Errors
    /// It is larger, with what Kafka keeps besides.
    pub fn refuse_beyond(&self, max_bytes: usize) -> Result<(), PublishError> {
        if wire_bytes_max(self) <= max_bytes {
            return Ok(());
        }
        Err(refused(self, KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)))
    }
}

/// A transactional producer that is initialised and has no transaction open.
pub struct Producer {
    inner: BaseProducer<Reports>,
}

/// A transactional producer with a transaction open.
#[must_use = "a transaction that is dropped stays open on the broker until it times out"]
pub struct Transaction {
    inner: BaseProducer<Reports>,
    begun_at: Instant,
    records: u64,
    bytes: u64,
}

/// A transaction that is whole: the brokers have all its records, with its checkpoint as the last of them.
#[must_use = "a transaction that is dropped stays open on the broker until it times out"]
pub struct Prepared {
    inner: BaseProducer<Reports>,
}

impl Producer {
    /// Connects, fences every older producer of the same name, and ends what one of them left open.
    ///
    /// Each delivered or failed record's [cost](record_cost) is given back to `budget`.
    ///
    /// # Errors
    /// See [`PublishError::verdict`].
    pub fn connect(settings: &KafkaSettings, budget: Arc<MemoryBudget>) -> Result<Self, PublishError> {
        let (version, text) = get_rdkafka_version();
        if u32::try_from(version).unwrap_or_default() < LIBRDKAFKA_MIN.0 {
            return Err(PublishError::Librdkafka { found: text, required: LIBRDKAFKA_MIN.1 });
        }
        let reports = Reports::new(settings, budget);
        let inner = BaseProducer::from_config_and_context(&settings.producer(), reports)
            .map_err(PublishError::kafka("creating the producer"))?;
        if let Some(token) = settings.token() {
            token.hand(inner.client())?;
        }
        let producer = Self { inner };
        match producer.inner.init_transactions(INIT_TIMEOUT) {
            Ok(()) => Ok(producer),
            Err(error) => Err(fail(&producer.inner, "initialising transactions", error)),
        }
    }

    /// Says what is known of a topic of one partition from before: everything up to this offset was written. So one that was made anew meanwhile
    /// is found out with the first record, before it is committed, as one that is made anew while this producer writes to it.
    pub fn has_been_written_to(&self, topic: &str, end_offset: i64) {
        self.inner.context().knows(topic, end_offset);
    }

    /// Opens a transaction. Nothing is sent to the broker until the first record is.
    ///
    /// # Errors
    /// See [`PublishError::verdict`].
    pub fn begin(self) -> Result<Transaction, PublishError> {
        match self.inner.begin_transaction() {
            Ok(()) => Ok(Transaction { inner: self.inner, begun_at: Instant::now(), records: 0, bytes: 0 }),
            Err(error) => Err(fail(&self.inner, "beginning a transaction", error)),
        }
    }

    /// Serves what librdkafka has to say while nothing is open.
    pub fn poll(&self) {
        self.inner.poll(Duration::ZERO);
    }
}

impl Transaction {
    /// Queues a record, whose cost must have been charged to the budget.
    ///
    /// # Errors
    /// See [`PublishError::verdict`]. The transaction cannot be committed any more.
    pub fn send(&mut self, record: &OutgoingRecord<'_>) -> Result<(), PublishError> {
        self.send_to(0, record)
    }

    /// Queues a record without a key for each partition of its topic, which exists. The cost of one must have been charged. The brokers are asked how
    /// many partitions there are, and waited for.
    ///
    /// # Errors
    /// As with [`send`](Self::send); and the brokers do not say it.
    pub fn send_everywhere(&mut self, record: &OutgoingRecord<'_>) -> Result<(), PublishError> {
        let began = Instant::now();
        let partitions = loop {
            let error = match self.partitions(record.topic) {
                Ok(partitions) => break partitions,
                Err(error) => error,
            };
            // A broker can lack a topic that another has just made, or whose leaders are being chosen.
            if began.elapsed() < METADATA_TIMEOUT {
                self.poll()?;
                thread::sleep(METADATA_PAUSE);
            } else if error == KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition) {
                // As a record for it would be.
                let gone = KafkaError::MessageProduction(RDKafkaErrorCode::UnknownTopicOrPartition);
                return Err(refused(record, gone));
            } else {
                return Err(fail(&self.inner, "asking for the partitions of a topic", error));
            }
        };
        let headers = headers_cost(record.headers.iter().map(|(name, value)| (name.len(), value.len())));
        let cost = record_cost(record.key.map_or(0, <[u8]>::len), record.value.map_or(0, <[u8]>::len), headers);
        for partition in 0..partitions {
            if partition > 0 {
                self.inner.context().budget.charge(cost);
            }
            self.send_to(partition, record)?;
        }
        Ok(())
    }

    /// How many partitions a topic has, as some broker says now.
    fn partitions(&self, topic: &str) -> Result<i32, KafkaError> {
        let metadata = self.inner.client().fetch_metadata(Some(topic), METADATA_ASK)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let unknown = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition);
        let found = found.filter(|found| found.error().is_some() || !found.partitions().is_empty()).ok_or(unknown)?;
        match found.error() {
            Some(error) => Err(KafkaError::MetadataFetch(error.into())),
            None => Ok(i32::try_from(found.partitions().len()).unwrap_or(i32::MAX)),
        }
    }

    /// To a partition of its topic if it has no key.
    fn send_to(&mut self, partition: i32, record: &OutgoingRecord<'_>) -> Result<(), PublishError> {
        if !record.is_letter {
            // librdkafka's own limit is that of letters.
            record.refuse_beyond(self.inner.context().record_max_bytes)?;
        }
        let mut message = BaseRecord::<[u8], [u8], Origin>::with_opaque_to(record.topic, Origin(record.lsn));
        message.key = record.key;
        message.payload = record.value;
        if record.key.is_none() {
            message.partition = Some(partition);
        }
        if !record.headers.is_empty() {
            let headers = record
                .headers
                .iter()
                .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }));
            message.headers = Some(headers);
        }
        self.enqueue(message, record)
    }

    /// Hands a record to librdkafka. It is called what `record` says if it is not taken.
    fn enqueue(
        &mut self,
        mut message: BaseRecord<'_, [u8], [u8], Origin>,
        record: &OutgoingRecord<'_>,
    ) -> Result<(), PublishError> {
        loop {
            match self.inner.send(message) {
                Ok(()) => break,
                // The budget is far below librdkafka's limits, so this is rare; waiting for room loses nothing.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    self.poll()?;
                    thread::sleep(REPORT_INTERVAL);
                    message = again;
                }
                Err((error, _)) => {
                    let cause = cause_of(&self.inner, &error, "sending records");
                    return Err(cause.unwrap_or_else(|| refused(record, error)));
                }
            }
        }
        self.records += 1;
        let len_bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        self.bytes += len_bytes as u64;
        Ok(())
    }

    /// Serves the delivery reports that are there. It does not wait.
    ///
    /// # Errors
    /// A record was not delivered; see [`PublishError::verdict`]. The transaction cannot be committed any more.
    pub fn poll(&mut self) -> Result<(), PublishError> {
        for _ in 0..self.inner.context().events_per_poll {
            self.inner.poll(Duration::ZERO);
        }
        if let Some(record) = self.inner.context().take_failed() {
            return Err(self.undelivered(record));
        }
        match self.inner.context().recreated.get() {
            None => Ok(()),
            Some((topic, partition)) => {
                Err(PublishError::TopicRecreated { topic: topic.clone(), partition: *partition })
            }
        }
    }

    /// Writes the checkpoint and before it what is attached to it, and waits until the brokers have acknowledged all of the transaction.
    ///
    /// # Errors
    /// See [`PublishError::verdict`]. Nothing of the transaction is committed.
    pub fn prepare(
        mut self,
        topic: &str,
        checkpoint: &Checkpoint,
        attachments: &[Attachment],
    ) -> Result<Prepared, PublishError> {
        for attachment in attachments {
            if let Err(error) = self.attach(topic, &checkpoint.name, attachment) {
                self.abort();
                return Err(error);
            }
        }
        let value = checkpoint.to_json();
        let record = kept(topic, checkpoint.name.as_bytes(), Some(&value));
        self.charge(&record);
        self.deliver(&record)
    }

    fn attach(&mut self, topic: &str, name: &str, attachment: &Attachment) -> Result<(), PublishError> {
        let len_bytes = attachment.value.as_ref().map_or(0, Vec::len);
        if len_bytes > Attachment::VALUE_LEN_MAX_BYTES {
            return Err(PublishError::AttachmentTooLarge { suffix: attachment.suffix.clone(), len_bytes });
        }
        let key = attachment.key(name);
        let record = kept(topic, &key, attachment.value.as_deref());
        self.charge(&record);
        self.send(&record)
    }

    /// Charges a record of the checkpoint topic past the limit: a commit is what makes room, and must not wait for it.
    fn charge(&self, record: &OutgoingRecord<'_>) {
        let (key, value) = (record.key.map_or(0, <[u8]>::len), record.value.map_or(0, <[u8]>::len));
        self.inner.context().budget.charge(record_cost(key, value, 0));
    }

    /// The offset behind the newest record in a topic of one partition that this producer has written, or was told of; none if none is known.
    /// What is on its way is awaited first.
    ///
    /// # Errors
    /// See [`PublishError::verdict`]. The transaction cannot be committed any more.
    pub fn written_to(&mut self, topic: &str) -> Result<Option<i64>, PublishError> {
        self.drain()?;
        Ok(self.inner.context().end_of(topic))
    }

    /// As [`Producer::has_been_written_to`].
    pub fn has_been_written_to(&self, topic: &str, end_offset: i64) {
        self.inner.context().knows(topic, end_offset);
    }

    /// Sends the last record, and waits until all are acknowledged.
    pub(crate) fn deliver(mut self, record: &OutgoingRecord<'_>) -> Result<Prepared, PublishError> {
        match self.send(record).and_then(|()| self.drain()) {
            Ok(()) => Ok(Prepared { inner: self.inner }),
            Err(error) => {
                // The commit was not asked for yet, so that ending it here cannot undo one.
                self.abort();
                Err(error)
            }
        }
    }

    /// Waits until no report is outstanding, so that none is left to be served during the commit, which blocks.
    ///
    /// librdkafka gives each record up after `message.timeout.ms`, so this ends.
    fn drain(&mut self) -> Result<(), PublishError> {
        loop {
            self.poll()?;
            if self.inner.in_flight_count() == 0 {
                return Ok(());
            }
            flush_for_a_moment(&self.inner);
        }
    }

    /// Gives up what is open, so that readers need not wait for its timeout. The producer is not used again.
    pub fn abort(self) {
        // Queued messages of an unpolled producer would make the abort wait for its whole timeout.
        self.inner.purge(PurgeConfig::default().queue().inflight());
        self.inner.poll(Duration::ZERO);
        if let Err(error) = self.inner.abort_transaction(Duration::from_secs(5)) {
            // The next producer's `init_transactions`, or the transaction timeout, ends it as well.
            debug!(%error, "the transaction could not be aborted");
        }
    }

    /// How long it has been open.
    pub fn age(&self) -> Duration {
        self.begun_at.elapsed()
    }

    /// How many records were sent in it.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How many bytes of keys and values were sent in it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The cause, with its record if it has one.
    fn undelivered(&mut self, record: UndeliveredRecord) -> PublishError {
        if !is_effect(&record.error) {
            let cause = fatal_error(&self.inner, "sending records");
            return cause.unwrap_or(PublishError::Undelivered(record));
        }
        let cause = cause_of(&self.inner, &record.error, "sending records");
        if cause.as_ref().is_some_and(|cause| cause.verdict() == Verdict::Fenced) {
            return cause.unwrap_or(PublishError::Undelivered(record));
        }
        // The record that has failed the others may be reported behind them.
        let began = Instant::now();
        while self.inner.in_flight_count() > 0 && began.elapsed() < CAUSE_TIMEOUT {
            self.inner.poll(Duration::ZERO);
            match self.inner.context().take_failed() {
                Some(other) if !is_effect(&other.error) => return PublishError::Undelivered(other),
                _ => thread::sleep(REPORT_INTERVAL),
            }
        }
        cause.unwrap_or(PublishError::Undelivered(record))
    }
}

impl Prepared {
    /// Commits. On success everything up to the checkpoint is visible, together.
    ///
    /// # Errors
    /// Whether the broker has committed is then **unknown**; see [`PublishError::verdict`].
    pub fn commit(self) -> Result<Producer, PublishError> {
        let began = Instant::now();
        match self.inner.commit_transaction(self.inner.context().commit_timeout) {
            Ok(()) => {
                let (took, limit) = (began.elapsed(), self.inner.context().resend_after);
                if took < limit {
                    Ok(Producer { inner: self.inner })
                } else {
                    Err(PublishError::AskedAgain { took, limit })
                }
            }
            Err(error) => Err(fail(&self.inner, "committing a transaction", error)),
        }
    }
}

/// A record of the checkpoint topic.
const fn kept<'a>(topic: &'a str, key: &'a [u8], value: Option<&'a [u8]>) -> OutgoingRecord<'a> {
    OutgoingRecord { topic, key: Some(key), value, headers: &[], is_letter: false, lsn: Lsn::INVALID }
}

/// Waits for at most a millisecond until all records are acknowledged, and has what lingers sent at once.
///
/// librdkafka ignores `linger.ms` only while `rd_kafka_flush` runs. rdkafka's own `flush` calls it for no time at all, so that a
/// broker thread may never see the wish, and then polls 100 ms at a time.
fn flush_for_a_moment(inner: &BaseProducer<Reports>) {
    // SAFETY: the client lives as long as `inner`, and librdkafka's calls may be made from any thread. With delivery reports as
    // events, as rdkafka has set it up, `rd_kafka_flush` serves none of them but waits on a counter.
    let _timed_out_or_not = unsafe { rdkafka::bindings::rd_kafka_flush(inner.client().native_ptr(), 1) };
}

fn fail(inner: &BaseProducer<Reports>, doing: &'static str, error: KafkaError) -> PublishError {
    inner.context().observer.tell(Reported::ForTransaction, &error);
    inner.poll(Duration::ZERO);
    if let Some(cause) = cause_of(inner, &error, doing) {
        return cause;
    }
    let reason = inner.context().last_error.lock().ok().and_then(|mut last| last.take());
    PublishError::Kafka { doing, error, reason }
}

/// The client's fatal error, or why its transaction cannot be committed, if there is such: what a call or a record says for itself is
/// then merely an effect.
///
/// librdkafka fails what is queued a moment before it says why. A code that stands for "there is a fatal error" or "it was thrown
/// away" is no cause, so the cause is waited for: taken for a passing failure, it would have a fenced instance fence its successor.
fn cause_of(inner: &BaseProducer<Reports>, error: &KafkaError, doing: &'static str) -> Option<PublishError> {
    let is_an_effect = is_effect(error);
    let began = Instant::now();
    loop {
        if let Some(cause) = fatal_error(inner, doing) {
            return Some(cause);
        }
        if !is_an_effect {
            return None;
        }
        if let Some(cause) = failed_transaction(inner, doing) {
            return Some(cause);
        }
        if began.elapsed() > CAUSE_TIMEOUT {
            return None;
        }
        inner.poll(Duration::ZERO);
        thread::sleep(REPORT_INTERVAL);
    }
}

/// Whether an error says only that something else has gone wrong.
pub(crate) fn is_effect(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{Fatal, PurgeInflight, PurgeQueue, State};
    matches!(code_of(error), Some(Fatal | PurgeQueue | PurgeInflight | State))
}

fn fatal_error(inner: &BaseProducer<Reports>, doing: &'static str) -> Option<PublishError> {
    let (code, reason) = inner.client().fatal_error()?;
    Some(PublishError::Kafka { doing, error: KafkaError::Global(code), reason: Some(reason) })
}

/// Why the open transaction has failed as a whole, if it has.
///
/// librdkafka tells that to whoever asks for something which the transaction's state does not allow. To begin another one inside it is
/// never allowed, so that asking changes nothing. Outside of any it would be: then there was no transaction to fail.
fn failed_transaction(inner: &BaseProducer<Reports>, doing: &'static str) -> Option<PublishError> {
    match inner.begin_transaction() {
        Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
            // Its text says why already.
            Some(PublishError::Kafka { doing, error: KafkaError::Transaction(error), reason: None })
        }
        _ => None,
    }
}

/// How large a record is at most with what Kafka keeps besides, as librdkafka counts it (`rd_kafka_msg_max_wire_size`), before it is compressed.
/// Of a header it is given how many bytes its name and its value have.
pub fn record_wire_bytes(
    key_len_bytes: usize,
    value_len_bytes: usize,
    headers: impl Iterator<Item = (usize, usize)>,
) -> usize {
    const RECORD_BYTES: usize = 36;
    const HEADER_BYTES: usize = 10;
    let headers = headers.map(|(name_len_bytes, value_len_bytes)| name_len_bytes + value_len_bytes + HEADER_BYTES);
    RECORD_BYTES + key_len_bytes + value_len_bytes + headers.sum::<usize>()
}

fn wire_bytes_max(record: &OutgoingRecord<'_>) -> usize {
    let headers = record.headers.iter().map(|(name, value)| (name.len(), value.len()));
    record_wire_bytes(record.key.map_or(0, <[u8]>::len), record.value.map_or(0, <[u8]>::len), headers)
}

fn refused(record: &OutgoingRecord<'_>, error: KafkaError) -> PublishError {
    let key = record.key.unwrap_or_default();
    PublishError::Undelivered(UndeliveredRecord {
        topic: record.topic.to_owned(),
        partition: None,
        key: key[..key.len().min(UndeliveredRecord::KEY_LEN_MAX_BYTES)].to_vec(),
        len_bytes: key.len() + record.value.map_or(0, <[u8]>::len),
        lsn: record.lsn,
        error,
    })
}
