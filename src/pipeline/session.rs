//! One session: from `init_transactions` to the end of the connection. How it starts is in [`starting`].

mod anew;
mod starting;

use std::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::{Duration, Instant},
};

use encoder::BoundHeartbeatTopic;
use pgoutput::Oid;
use publisher::{Checkpoint, CheckpointTopic, KafkaSettings, MemoryBudget, Producer};
use tokio::{runtime::Handle, sync::mpsc, sync::watch};
use tracing::warn;
use walreceiver::{ConnectOptions, Feedback, WalReader};

use self::starting::Starting;
use super::{
    copier::{self, CopierParts},
    kafka_watch,
    membership::Membership,
    memory::{self, Memory},
    postgres_watch,
    publish::{self, Confirm, Publishing},
    quarantine::{copy_of, remind_of},
    relations::Relations,
    source::Source,
};
use crate::{
    checkpoint::{Committed, start::Wanted},
    config::Config,
    failure::{Code, Failure},
    failures,
    metrics::Metrics,
    schemas::Schemas,
    snapshot::{MovedRows, Request, control::SnapshotControl},
};

/// How many pieces of work may wait for the publishing thread. Their bytes are bounded by the memory budget; this bounds
/// those that have none.
const QUEUE_LEN_MAX: usize = 256;
/// After the request to stop: how long the source may take to reach the end of a transaction, and the rest to end.
const BOUNDARY_TIMEOUT: Duration = Duration::from_millis(1500);
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a successor may take from fencing its predecessor to its first checkpoint.
const SUCCESSOR_TIMEOUT: Duration = Duration::from_secs(15);
const DISCONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// What all sessions of one run share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) connect: Arc<ConnectOptions>,
    pub(super) kafka: KafkaSettings,
    pub(super) schemas: Schemas,
    pub(super) wanted: Wanted,
    pub(super) membership: tokio::sync::Mutex<Membership>,
    /// What the catalog said of each table, for rows that come after it has changed or is gone.
    pub(super) memory: Arc<Mutex<Memory>>,
    pub(super) instance: String,
    /// Whether another instance is to have the slot soon after this one is gone.
    pub(super) stands_by: bool,
    /// Whether this instance has written a checkpoint, so that its own is the newest unless somebody has taken over.
    pub(super) has_owned: AtomicBool,
    pub(super) transaction_timeout: Duration,
    pub(super) metrics: Arc<Metrics>,
    pub(super) snapshot_control: Arc<SnapshotControl>,
}

/// A session that has started.
struct Started {
    /// Its number among those of the process.
    session: u64,
    producer: Producer,
    checkpoint: Checkpoint,
    reader: WalReader,
    feedback: Feedback,
    relations: Relations,
    topic: CheckpointTopic,
    budget: Arc<MemoryBudget>,
    heartbeat: Option<(BoundHeartbeatTopic, Duration)>,
    /// Rows that a copy is to read before it is over, whether it goes on in this session or not.
    moved: MovedRows,
    /// Which tables are owed a copy at once.
    owed: Vec<Oid>,
    /// What copies rows that were there before, and what it asks the stream.
    copier: (CopierParts, mpsc::Receiver<Request>),
}

/// Runs one session until it is asked to stop, or fails.
pub(super) async fn run(shared: &Shared, stop: &mut watch::Receiver<bool>) -> Result<(), Failure> {
    let starting = Starting { shared };
    let started = tokio::select! {
        started = starting.begin() => started?,
        () = stopped(stop) => return Ok(()),
    };
    // A session's state is large, and its callers need not carry it.
    Box::pin(stream(shared, started, stop)).await
}

/// Waits for the checkpoint of a successor, for some time: Kafka refuses a producer in the same words whether another instance has taken
/// over or its transaction was given up.
///
/// # Errors
/// There is a successor.
pub(super) async fn await_successor(shared: &Shared) -> Result<(), Failure> {
    let (starting, began) = (Starting { shared }, Instant::now());
    let topic = CheckpointTopic::new(shared.config.kafka.checkpoint_topic.as_str());
    while began.elapsed() < SUCCESSOR_TIMEOUT {
        match starting.yield_to_a_successor(&topic).await {
            Err(failure) if failure.code() == Code::Fenced => return Err(failure),
            Err(failure) => tracing::debug!("the checkpoint cannot be looked at: {failure}"),
            Ok(()) => {}
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// Resolves once the program was asked to stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|asked| *asked).await.is_err() {
        // Nobody is left who could ask.
        std::future::pending::<()>().await;
    }
}

/// Streams until it is asked to stop, or either side fails.
async fn stream(shared: &Shared, started: Started, stop: &mut watch::Receiver<bool>) -> Result<(), Failure> {
    let Started {
        session,
        producer,
        checkpoint,
        mut reader,
        feedback,
        relations,
        topic,
        budget,
        heartbeat,
        moved,
        owed,
        copier,
    } = started;
    let (sender, receiver) = mpsc::channel(QUEUE_LEN_MAX);
    let resume = checkpoint.position();
    let (quarantine, admin) = (Arc::clone(&relations.quarantine), Arc::clone(&relations.topics));
    let publishing = Publishing {
        topic: topic.clone(),
        checkpoint,
        quarantine: copy_of(&quarantine),
        limits: shared.config.kafka.transaction.clone(),
        notification_topic: shared.config.snapshot.notification_topic.as_ref().map(|topic| topic.as_str().to_owned()),
        heartbeat,
        transaction_timeout: shared.transaction_timeout,
        budget: Arc::clone(&budget),
        metrics: Arc::clone(&shared.metrics),
    };
    let heard = feedback.clone();
    let (runtime, memory) = (Handle::current(), Arc::clone(&shared.memory));
    let (told, mut outcome) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("publisher".into())
        .spawn(move || {
            let confirm = Box::new(ToServer { feedback, session, memory });
            let _nobody_waits_any_more = told.send(publish::run(publishing, producer, receiver, confirm, &runtime));
        })
        .map_err(|error| Failure::caused(Code::Internal, error))?;

    shared.metrics.state("streaming");
    let (parts, requests) = copier;
    let watched_budget = Arc::clone(&budget);
    let source = Source::new(relations, resume, budget, sender, Arc::clone(&shared.metrics));
    let memory_limit = usize::try_from(shared.config.memory_limit_bytes).unwrap_or(usize::MAX);
    let mut source = source.copying(requests, moved, owed, copier::noted_bytes(memory_limit));
    let asked = stop.clone();
    let read = tokio::select! {
        read = source.run(&mut reader, &asked) => read,
        () = keep_membership(shared, &topic) => Ok(()),
        copied = copier::run(parts) => copied,
        () = remind_of(&quarantine, &admin, shared.kafka.letter_max_bytes()) => Ok(()),
        () = postgres_watch::watch(Arc::clone(&shared.connect), &shared.wanted.slot, heard, &shared.metrics) => Ok(()),
        () = kafka_watch::watch(&shared.kafka.bootstrap_servers, &topic, &admin, &watched_budget, &shared.metrics) => Ok(()),
        published = &mut outcome => {
            // It ends by itself only because it has failed. The slot is given back in good order, to be had again at once.
            let relations = source.close();
            disconnect(reader).await;
            let failure = ended(published).err();
            let failure = failure.unwrap_or_else(|| Failure::new(Code::Internal, "publishing has ended"));
            return Err(relations.name_undelivered(failure));
        }
        () = overdue(stop) => {
            warn!("a transaction was still coming in when the program was asked to stop: it is read again at the next start");
            Ok(())
        }
    };
    shared.metrics.state("stopping");
    // What the source has handed on is committed, up to the last whole transaction; then the server is told.
    let relations = source.close();
    let published = tokio::time::timeout(PUBLISH_TIMEOUT, outcome).await;
    disconnect(reader).await;
    match (read, published) {
        // What stopped the publishing thread is the cause; that the source noticed is the effect.
        (_, Ok(Ok(Err(failure)))) | (Err(failure), _) => Err(relations.name_undelivered(failure)),
        (Ok(()), Ok(outcome)) => ended(outcome),
        (Ok(()), Err(_elapsed)) => {
            warn!("Kafka did not take the last transaction in time: it is read again at the next start");
            Ok(())
        }
    }
}

/// Matches tables again and again, for as long as the stream runs.
async fn keep_membership(shared: &Shared, topic: &CheckpointTopic) {
    let starting = Starting { shared };
    let mut membership = shared.membership.lock().await;
    loop {
        tokio::time::sleep(shared.config.postgres.match_interval).await;
        membership.look_again(async || starting.yield_to_a_successor(topic).await.is_ok()).await;
    }
}

async fn disconnect(reader: WalReader) {
    if let Err(error) = reader.shutdown(DISCONNECT_TIMEOUT).await {
        tracing::debug!(%error, "the replication connection did not end in good order");
    }
}

async fn overdue(stop: &mut watch::Receiver<bool>) {
    stopped(stop).await;
    tokio::time::sleep(BOUNDARY_TIMEOUT).await;
}

fn ended(outcome: Result<Result<(), Failure>, tokio::sync::oneshot::error::RecvError>) -> Result<(), Failure> {
    outcome.unwrap_or_else(|_| Err(Failure::new(Code::Internal, "the publishing thread has panicked")))
}

/// Tells the server, and who remembers what may still come.
struct ToServer {
    feedback: Feedback,
    session: u64,
    memory: Arc<Mutex<Memory>>,
}

impl Confirm for ToServer {
    fn confirm(&self, committed: Committed) -> Result<(), Failure> {
        memory::lock(&self.memory).commit(self.session, committed.flush_lsn());
        self.feedback.advance(committed.flush_lsn()).map_err(|error| failures::of_walreceiver(&error))
    }
}
