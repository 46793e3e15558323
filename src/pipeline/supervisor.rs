//! Sessions, one after another, until one has to stop for good.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet};
use tracing::{error, info, warn};
use walreceiver::Backoff;

use super::{
    membership::Membership,
    memory::Memory,
    registry_watch,
    session::{self, Shared},
    slot_watch, standby,
    unreachable::explain,
};
use crate::{
    catalog::Catalog,
    checkpoint::start::{OperatorWord, Wanted},
    config::Config,
    failure::{Code, Failure, Recovery},
    metrics::Metrics,
    schemas::Schemas,
    snapshot::control::SnapshotControl,
};

/// The pauses between sessions: short at first, since most failures are a restart of the other side.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long the server may take to say how far it is.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest pause while another connection has the slot: how late a takeover is after the other instance has gone.
const TAKEOVER_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How a stream is started.
#[derive(Debug, Clone, Copy)]
pub struct Launch {
    /// What an operator has said for this start.
    pub word: OperatorWord,
    /// Whether it waits as long as another instance reads from the slot.
    pub stands_by: bool,
}

/// Streams until it is asked to stop, or must.
///
/// # Errors
/// Why it must stop: nothing was confirmed that is not in Kafka, and a later start resumes from the checkpoint.
pub async fn supervise(
    config: Config,
    launch: Launch,
    metrics: Arc<Metrics>,
    schemas: Schemas,
    snapshot_control: Arc<SnapshotControl>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let mut shared = Shared::new(config, launch, Arc::clone(&metrics), schemas, snapshot_control);
    // It ends with this call.
    let mut beside = JoinSet::new();
    let slot = shared.config.postgres.slot.clone();
    beside.spawn(slot_watch::watch(Arc::clone(&shared.connect), slot, Arc::clone(&metrics)));
    if shared.config.needs_registry() {
        beside.spawn(registry_watch::watch(shared.schemas.clone(), Arc::clone(&metrics)));
    }
    if launch.stands_by {
        tokio::select! {
            waited = standby::wait(&shared) => {
                if let Err(failure) = waited {
                    error!(code = failure.code().as_str(), "stopping: {failure}");
                    return Err(failure);
                }
            }
            () = session::stopped(&mut stop) => return Ok(()),
        }
    }
    let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
    loop {
        let commits_before = metrics.commits();
        let failure = match session::run(&shared, &mut stop).await {
            Ok(()) => {
                info!("stopped");
                return Ok(());
            }
            Err(failure) => failure,
        };
        let failure = session_failure(&shared, failure, &mut stop).await;
        let failure = match failure.code() {
            Code::KafkaUnavailable | Code::KafkaDenied | Code::KafkaRefused | Code::ProducerTimedOut => {
                failure.at_brokers(&shared.kafka.bootstrap_servers)
            }
            _ => failure,
        };
        metrics.failed(&failure);
        if failure.code().recovery() == Recovery::Stop {
            error!(code = failure.code().as_str(), "stopping: {failure}");
            return Err(failure);
        }
        if metrics.commits() > commits_before {
            backoff.reset();
        }
        if shared.has_owned.load(Ordering::Relaxed) {
            // The word was for one start, and that start has taken its position.
            shared.wanted.word = OperatorWord::default();
        }
        let pause = match failure.code() {
            Code::SlotActive => backoff.next_wait().min(TAKEOVER_PAUSE_MAX),
            _ => backoff.next_wait(),
        };
        warn!(code = failure.code().as_str(), pause_ms = pause.as_millis(), "starting again: {failure}");
        metrics.state("waiting to start again");
        // While no session runs, nobody else sees how far the server has gone.
        let paused = async {
            let mut membership = shared.membership.lock().await;
            let _in_time = tokio::time::timeout(LOOK_TIMEOUT, membership.look_at_server()).await;
            tokio::time::sleep(pause).await;
        };
        tokio::select! {
            () = paused => {}
            () = session::stopped(&mut stop) => return Ok(()),
        }
    }
}

/// What ended a session, once it is known: an instance that Kafka has fenced finds out whether it has a successor.
async fn session_failure(shared: &Shared, failure: Failure, stop: &mut watch::Receiver<bool>) -> Failure {
    if failure.code() != Code::ProducerFenced {
        let accepted = shared.has_owned.load(Ordering::Relaxed);
        return tokio::select! {
            explained = explain(&shared.config, failure, accepted) => explained,
            () = session::stopped(stop) => Failure::new(Code::KafkaUnavailable, "asked to stop while Kafka could not be reached"),
        };
    }
    warn!(code = failure.code().as_str(), "looking for another instance that has taken over: {failure}");
    shared.metrics.state("looking for a successor");
    tokio::select! {
        found = session::await_successor(shared) => found.err().unwrap_or(failure),
        () = session::stopped(stop) => failure,
    }
}

impl Shared {
    fn new(
        config: Config,
        Launch { word, stands_by }: Launch,
        metrics: Arc<Metrics>,
        schemas: Schemas,
        snapshot_control: Arc<SnapshotControl>,
    ) -> Self {
        let connect = Arc::new(config.postgres.connect.clone());
        let (catalog, memory) = (Catalog::new(Arc::clone(&connect)), Arc::<Mutex<Memory>>::default());
        let membership = Membership::new(catalog, Arc::clone(&memory), &config, Arc::clone(&metrics));
        let kafka = observed_kafka_settings(&config, &metrics);
        let wanted = Wanted {
            database: connect.database().to_owned(),
            slot: config.postgres.slot.clone(),
            publication: config.postgres.publication.clone(),
            manage: config.postgres.manage,
            word,
        };
        Self {
            transaction_timeout: kafka.transaction_timeout(),
            kafka,
            stands_by,
            instance: uuid::Uuid::new_v4().to_string(),
            has_owned: AtomicBool::new(false),
            membership: tokio::sync::Mutex::new(membership),
            memory,
            connect,
            schemas,
            wanted,
            metrics,
            snapshot_control,
            config,
        }
    }
}

/// The settings of the clients of a stream, of whose errors the metrics are told.
pub fn observed_kafka_settings(config: &Config, metrics: &Metrics) -> publisher::KafkaSettings {
    publisher::KafkaSettings { observer: metrics.kafka_errors(), ..kafka_settings(config) }
}

/// The settings of every client of Kafka.
pub fn kafka_settings(config: &Config) -> publisher::KafkaSettings {
    publisher::KafkaSettings {
        bootstrap_servers: config.kafka.bootstrap_servers.clone(),
        name: config.name.as_str().to_owned(),
        properties: config.kafka.properties.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        memory_limit_bytes: usize::try_from(config.memory_limit_bytes).unwrap_or(usize::MAX),
        token_file: config.kafka.oauthbearer_token_file.clone(),
        observer: publisher::ErrorObserver::default(),
    }
}
