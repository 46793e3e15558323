//! The built-in registry: schemas in a compacted topic of one partition, in the format of Confluent's `_schemas`.
//!
//! # Why several instances can share the topic
//!
//! What has to hold is that an id never has two schemas and a schema never two ids, whoever registers, and whoever dies at whatever
//! moment. [`registry::store`] has the half without I/O: from a log that is complete it plans a record that keeps both. Here is the other half.
//!
//! 1. **One writer at a time.** All writers of a topic share one transactional id, made from the topic's name. `init_transactions`
//!    ends what another left open, waits until what another had begun to commit is committed, and fences all others
//!    ([`ExclusiveWriter`]).
//! 2. **The log is read after the lock is taken**, up to the high watermark, in both views: everything that any earlier holder has
//!    written lies before that, and is decided. The view of what was committed is waited for until it reaches as far.
//! 3. **What is planned on that log commits only if nobody has written since.** Anybody else would have had to take the lock, and our
//!    write or our commit would have been fenced. Then all starts over, a bounded number of times.
//! 4. **A commit that fails tells nothing.** It may have happened (KIP-98 has no answer to a lost answer). The writer is dropped; the next
//!    one's `init_transactions` decides it, and the log says which it was.
//! 5. **The id is handed out after the commit only**, so that no row carries an id that could be given up. Until it is, whoever reads the
//!    topic without heeding transactions may see the record; if it is given up, nobody else gets its id.
//!
//! A writer that was not fenced keeps the lock for its next schema, so that a start with a thousand tables takes it once. What stands
//! in the topic since then is read on all the same.
//!
//! A registry of another make may read the topic beside us, and may take it over once no instance writes any more. It must not write
//! beside us: it does not know of the lock.
//!
//! Nothing here is hot. The plan of each table keeps its ids for the session; a registration that is known costs one request for the
//! topic's end, a new one some tens of milliseconds. While nothing happens no connection is held.

use std::{
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use publisher::{
    ExclusiveWriter, Isolation, KafkaSettings, LogReader, PublishError, TopicAdmin, Verdict, ensure_compacted,
};
use registry::{
    RegistryError, SchemaId,
    store::{AvroSchema, Ledger, Noted, Plan, Refused},
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, OwnedMutexGuard},
    task::spawn_blocking,
};
use tracing::{debug, info, warn};

use super::Refusal;
use crate::{
    failure::Code,
    fault::{self, Point},
};

/// How often a registration starts over after another has taken the lock, before the caller is told to come again.
const ATTEMPTS_MAX: u32 = 8;
/// The longest pause before the lock is taken back. Whoever has it meanwhile registers some tens of schemas.
const PAUSE_MAX: Duration = Duration::from_millis(800);
/// How long what was written may take to be readable, once the lock is had. Only somebody else's transaction could take that long.
const STABLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long our own last commit may take to be readable. Then the lock is taken anew.
const OWN_COMMIT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long connections are kept after they were used.
const IDLE: Duration = Duration::from_secs(20);

/// The registry in a topic.
pub struct BuiltIn {
    topic: String,
    ledger: RwLock<Ledger>,
    worker: Arc<Mutex<Worker>>,
    /// How many times the topic was begun to be read on.
    begun: AtomicU64,
    /// Which of these was the last to reach the end.
    done: AtomicU64,
    /// Whether somebody looks after the connections that nobody uses.
    is_looked_after: Arc<AtomicBool>,
}

/// What talks to Kafka; one call at a time, on a thread that may block.
struct Worker {
    settings: KafkaSettings,
    topic: String,
    replication_factor: i32,
    /// Whether the topic was seen to be there.
    exists: bool,
    committed: LogReader,
    written: LogReader,
    writer: Option<ExclusiveWriter>,
    used_at: Instant,
}

/// Why a registration did not come about.
enum Failed {
    Kafka(PublishError),
    Refused(Refused),
}

impl BuiltIn {
    /// The registry in this topic. Nothing is connected.
    pub fn new(kafka: &KafkaSettings, topic: &str, replication_factor: i32) -> Self {
        // No stream can have this name: it holds what a stream's cannot.
        let settings = kafka.named(format!("pgsluice:schemas:{topic}"));
        let worker = Worker {
            topic: topic.to_owned(),
            replication_factor,
            exists: false,
            committed: LogReader::new(&settings, topic, Isolation::Committed),
            written: LogReader::new(&settings, topic, Isolation::Uncommitted),
            writer: None,
            used_at: Instant::now(),
            settings,
        };
        Self {
            topic: topic.to_owned(),
            ledger: RwLock::default(),
            worker: Arc::new(Mutex::new(worker)),
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            is_looked_after: Arc::default(),
        }
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What is known, as of the last time that the topic was read.
    pub fn ledger(&self) -> RwLockReadGuard<'_, Ledger> {
        self.ledger.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates the topic if it is missing, and reads it.
    ///
    /// # Errors
    /// The topic is unfit, or Kafka cannot be reached or refuses.
    pub async fn prepare(self: &Arc<Self>) -> Result<(), Refusal> {
        let worker = Arc::clone(&self.worker).lock_owned().await;
        self.run(worker, |this, worker| {
            worker.ensure()?;
            worker.read_on(this)
        })
        .await
        .map_err(|error| Refusal::of_kafka(&self.topic, &error))
    }

    /// Reads what was written since. Callers that wait while another reads share what it finds, if it began after they asked.
    ///
    /// # Errors
    /// Kafka cannot be reached or refuses. What is known stays known.
    pub async fn read_on(self: &Arc<Self>) -> Result<(), Refusal> {
        let begun_before = self.begun.load(Ordering::Acquire);
        let worker = Arc::clone(&self.worker).lock_owned().await;
        if self.done.load(Ordering::Acquire) > begun_before {
            return Ok(());
        }
        self.run(worker, |this, worker| worker.read_on(this))
            .await
            .map_err(|error| Refusal::of_kafka(&self.topic, &error))
    }

    /// Registers a schema, unless it is registered already, and returns its id.
    ///
    /// # Errors
    /// As a remote registry would refuse it; or Kafka cannot be reached or refuses.
    pub async fn register(self: &Arc<Self>, subject: &str, schema: &str) -> Result<SchemaId, Refusal> {
        let refused = |refused: Refused| Refusal::from(&self.error(refused, subject));
        let schema = AvroSchema::parse(schema).map_err(|error| refused(Refused::Invalid(error)))?;
        let worker = Arc::clone(&self.worker).lock_owned().await;
        let name = subject.to_owned();
        let outcome = self.run(worker, move |this, worker| worker.register(this, &name, &schema)).await;
        outcome.map_err(|failed| match failed {
            Failed::Kafka(error) => Refusal::of_kafka(&self.topic, &error),
            Failed::Refused(error) => refused(error),
        })
    }

    /// The text of an Avro schema. The topic is read on if the id is not known yet; nothing is created.
    ///
    /// # Errors
    /// It is no Avro schema, or Kafka cannot be reached or refuses.
    pub async fn schema_by_id(self: &Arc<Self>, id: SchemaId) -> Result<Option<String>, Refusal> {
        let known = || {
            let ledger = self.ledger();
            // Records carry ids of schemas that are committed; what others make of the topic may be in the other view alone.
            let found = ledger.committed().schema(None, id.get());
            found.or_else(|| ledger.written().schema(None, id.get())).cloned()
        };
        let mut found = known();
        if found.is_none() {
            self.read_on().await?;
            found = known();
        }
        let Some(found) = found else { return Ok(None) };
        if let Some(kind) = &found.schema_type {
            let found = format!("the schema with the id {id} is {kind}, which is not read here");
            return Err(Refusal { code: Code::RecordUnreadable, found, retry_after: None });
        }
        Ok(Some(found.text.to_string()))
    }

    /// The same error as of a remote registry.
    pub fn error(&self, refused: Refused, subject: &str) -> RegistryError {
        refused.into_error(&format!("built-in, topic {}", self.topic), subject)
    }

    async fn run<T: Send + 'static, E: Send + 'static>(
        self: &Arc<Self>,
        mut worker: OwnedMutexGuard<Worker>,
        work: impl FnOnce(&Self, &mut Worker) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let this = Arc::clone(self);
        self.close_when_idle();
        let done = spawn_blocking(move || {
            worker.used_at = Instant::now();
            let outcome = work(&this, &mut worker);
            worker.used_at = Instant::now();
            outcome
        });
        match done.await {
            Ok(outcome) => outcome,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Connections that nobody uses cost threads, here and at the brokers. Called with the worker in hand, as the flag is taken back.
    fn close_when_idle(&self) {
        if self.is_looked_after.swap(true, Ordering::AcqRel) {
            return;
        }
        let (worker, is_looked_after) = (Arc::downgrade(&self.worker), Arc::clone(&self.is_looked_after));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(IDLE).await;
                let Some(worker) = worker.upgrade() else { return };
                // Whoever has it, uses it.
                let Ok(mut worker) = worker.try_lock_owned() else { continue };
                if worker.used_at.elapsed() >= IDLE {
                    is_looked_after.store(false, Ordering::Release);
                    // Ending a client can take a while.
                    let _whether_it_has_panicked = spawn_blocking(move || worker.close()).await;
                    return;
                }
            }
        });
    }

    fn ledger_mut(&self) -> RwLockWriteGuard<'_, Ledger> {
        self.ledger.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, noted: Option<Noted>) {
        match noted {
            None => {}
            Some(Noted::UnknownKind(kind)) => {
                info!(
                    topic = self.topic,
                    kind, "the topic of schemas holds a kind of record that is not known, and is left alone"
                );
            }
            Some(Noted::Malformed(record)) => {
                warn!(
                    topic = self.topic,
                    "the topic of schemas holds a record that cannot be understood: no new schema is registered beside it; {record}"
                );
            }
        }
    }
}

impl Worker {
    /// Makes sure of the topic.
    fn ensure(&mut self) -> Result<(), PublishError> {
        let admin = TopicAdmin::new(&self.settings, Handle::current())?;
        ensure_compacted(&admin, &self.topic, "schemas", self.replication_factor)?;
        self.exists = true;
        Ok(())
    }

    /// Reads what was written since, without waiting for what is undecided.
    fn read_on(&mut self, shared: &BuiltIn) -> Result<(), PublishError> {
        let number = shared.begun.fetch_add(1, Ordering::AcqRel) + 1;
        if !self.exists {
            // Whoever only asks creates nothing.
            let admin = TopicAdmin::new(&self.settings, Handle::current())?;
            self.exists = admin.partitions_by_topic()?.contains_key(&self.topic);
            if !self.exists {
                return Ok(());
            }
        }
        self.read_to(shared, 0, Duration::ZERO)?;
        shared.done.store(number, Ordering::Release);
        Ok(())
    }

    /// Reads both views up to this offset at least. The view of all is read last, so that what was committed is in it.
    fn read_to(&mut self, shared: &BuiltIn, at_least: i64, patience: Duration) -> Result<(), PublishError> {
        self.committed.read_on(at_least, patience, |offset, key, value| {
            // What is wrong with it is noted once, below.
            let _noted_in_the_other_view = shared.ledger_mut().read_committed(offset, key, value);
        })?;
        self.written.read_on(at_least, patience, |offset, key, value| {
            let noted = shared.ledger_mut().read_uncommitted(offset, key, value);
            shared.note(noted);
        })
    }

    fn register(&mut self, shared: &BuiltIn, subject: &str, schema: &AvroSchema) -> Result<SchemaId, Failed> {
        if !self.exists {
            self.ensure()?;
        }
        self.read_on(shared)?;
        let mut pause = Duration::from_millis(20);
        for attempt in 1.. {
            // Whether anything has to be written is seen without the lock, and refused without it.
            if let Plan::Registered(id) = shared.ledger().plan(subject, schema)? {
                return Ok(id);
            }
            match self.write(shared, subject, schema) {
                Err(Failed::Kafka(error)) if error.verdict() == Verdict::Fenced && attempt < ATTEMPTS_MAX => {
                    debug!(attempt, %error, "another instance registers a schema: starting over");
                    // Two that took the lock from each other in step would do so for ever.
                    std::thread::sleep(pause.mul_f64(jitter()));
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                outcome => return outcome,
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Rules 1 to 5 of the module's argument, in this order.
    fn write(&mut self, shared: &BuiltIn, subject: &str, schema: &AvroSchema) -> Result<SchemaId, Failed> {
        let writer = match self.writer.take() {
            // What is open for longer is not ours to end as long as we only had the lock: it is another's, who may be dead.
            Some(writer) if self.read_what_is_written(shared, OWN_COMMIT_TIMEOUT).is_ok() => writer,
            _ => {
                let writer = ExclusiveWriter::take(&self.settings)?;
                self.read_what_is_written(shared, STABLE_TIMEOUT)?;
                writer
            }
        };
        let plan = shared.ledger().plan(subject, schema);
        let (id, version, key, value) = match plan {
            Ok(Plan::Write { id, version, key, value }) => (id, version, key, value),
            known => {
                self.writer = Some(writer);
                return Ok(match known? {
                    Plan::Registered(id) | Plan::Write { id, .. } => id,
                });
            }
        };
        let written = writer.write(&self.topic, &key, &value)?;
        fault::point(Point::BeforeSchemaCommit);
        self.writer = Some(written.commit()?);
        let mut ledger = shared.ledger_mut();
        // Its offset is of no use: what we write ourselves is understood.
        let offset = -1;
        // It will be read again, and change nothing: the markers of a commit take a moment to reach the partition.
        for noted in [
            ledger.read_uncommitted(offset, Some(&key), Some(&value)),
            ledger.read_committed(offset, Some(&key), Some(&value)),
        ] {
            debug_assert!(noted.is_none(), "what we write ourselves is understood: {noted:?}");
        }
        drop(ledger);
        info!(subject, version, id = id.get(), topic = self.topic, "registered a schema");
        Ok(id)
    }

    /// Reads everything that is in the log now, in both views.
    fn read_what_is_written(&mut self, shared: &BuiltIn, patience: Duration) -> Result<(), PublishError> {
        let end = self.written.end()?;
        self.read_to(shared, end, patience)
    }

    fn close(&mut self) {
        self.committed.close();
        self.written.close();
        self.writer = None;
    }
}

/// From 0.5 to 1.5, by the clock's last digits: two processes that collide differ in them.
fn jitter() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    0.5 + f64::from(now.subsec_nanos() / 100 % 1_000) / 1_000.0
}

impl From<PublishError> for Failed {
    fn from(error: PublishError) -> Self {
        Self::Kafka(error)
    }
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl std::fmt::Debug for BuiltIn {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BuiltIn").field("topic", &self.topic).finish_non_exhaustive()
    }
}
