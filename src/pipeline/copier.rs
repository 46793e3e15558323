//! Copies rows that were there before the stream, beside it: the part of [`snapshot`](crate::snapshot) that reads.
//!
//! Here is who copies which table when: tables are looked for again and again, and a worker for each connection takes one after the other. How one
//! is copied, chunk after chunk, is in [`table`], and how a chunk is read, and why so, in [`chunk`].
//!
//! What goes wrong with one table is told and tried again; neither the stream nor another table waits for it.

mod chunk;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use pgoutput::Oid;
use publisher::MemoryBudget;
use tokio::{
    sync::{Notify, mpsc::Sender},
    task::JoinSet,
    time::sleep,
};
use tracing::{info, warn};
use walreceiver::ConnectOptions;

use super::relations::Relations;
use crate::{
    catalog::Catalog,
    config,
    failure::{Code, Failure},
    metrics::Metrics,
    snapshot::{Epoch, Progress, Request},
};

/// What the records of a chunk cost in memory, at most but for the last one: enough for its fixed cost not to matter, and little to throw away.
const CHUNK_COST_MAX: usize = 2 << 20;
/// What copies need of a session.
pub(super) struct CopierParts {
    pub(super) relations: Relations,
    pub(super) connect: Arc<ConnectOptions>,
    pub(super) publication: String,
    pub(super) settings: config::Snapshot,
    pub(super) match_interval: Duration,
    pub(super) memory_limit_bytes: u64,
    pub(super) budget: Arc<MemoryBudget>,
    pub(super) requests: Sender<Request>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) progress: Progress,
}

/// Copies what is to be copied, for as long as the session runs.
pub(super) async fn run(parts: CopierParts) -> Failure {
    let connections = parts.settings.connections;
    let copier = Arc::new(Copier::new(parts));
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        let copier = Arc::clone(&copier);
        workers.spawn(async move { copier.work().await });
    }
    tokio::select! {
        () = copier.keep_looking() => Failure::new(Code::Internal, "looking for tables to copy has ended"),
        ended = workers.join_next() => match ended {
            Some(Ok(failure)) => failure,
            _ => Failure::new(Code::Internal, "copying has panicked"),
        },
    }
}

/// How much memory chunks may have that wait for the stream.
pub(super) fn waiting_bytes(memory_limit: usize) -> usize {
    memory_limit / 8
}

struct Copier {
    relations: tokio::sync::Mutex<Relations>,
    connect: Arc<ConnectOptions>,
    publication: String,
    settings: config::Snapshot,
    match_interval: Duration,
    /// How large a record may be, as the stream has it.
    row_bytes_max: usize,
    chunk_cost_max: usize,
    budget: Arc<MemoryBudget>,
    /// For chunks that wait for the stream, beside the budget of what it waits for.
    waiting: Arc<MemoryBudget>,
    requests: Sender<Request>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    work: Notify,
    /// When the next row may be read, if there is a limit.
    next_row_at: tokio::sync::Mutex<Instant>,
}

struct State {
    progress: Progress,
    /// What the publication came to at the last look, by OID.
    published: BTreeSet<u32>,
    /// Tables that wait for a connection, and since which look each is there.
    pending: VecDeque<(Oid, u64)>,
    /// Those that are pending or being copied, and those that were put off, by when.
    taken: BTreeMap<u32, Taken>,
    /// Those of which it was said that they cannot be copied.
    keyless: BTreeSet<u32>,
    looks: u64,
    windows: u64,
    fence: Option<Fence>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Now,
    /// It is taken again at the next look.
    PutOff,
}

/// How a turn at a table ends.
#[derive(Clone, Copy)]
enum End {
    /// It needs no more of the copier.
    Over,
    /// Others have their turn first.
    NextTurn,
    PutOff,
}

/// A transaction id below which nothing may run in the snapshot of a chunk: see [`Windows`](crate::snapshot::Windows).
#[derive(Debug, Clone, Copy)]
struct Fence {
    epoch: Epoch,
    /// It was assigned after the tables of this look were seen in the publication: a transaction that has changed one of them before it was
    /// there, and ends later, is not streamed, and must be in what is read.
    look: u64,
    xid: u64,
}

impl Copier {
    fn new(parts: CopierParts) -> Self {
        let memory_limit = usize::try_from(parts.memory_limit_bytes).unwrap_or(usize::MAX);
        Self {
            relations: tokio::sync::Mutex::new(parts.relations),
            connect: parts.connect,
            publication: parts.publication,
            settings: parts.settings,
            match_interval: parts.match_interval,
            row_bytes_max: memory_limit / 4,
            chunk_cost_max: CHUNK_COST_MAX.min(memory_limit / 32),
            budget: parts.budget,
            waiting: Arc::new(MemoryBudget::new(waiting_bytes(memory_limit))),
            requests: parts.requests,
            metrics: parts.metrics,
            state: Mutex::new(State {
                progress: parts.progress,
                published: BTreeSet::new(),
                pending: VecDeque::new(),
                taken: BTreeMap::new(),
                keyless: BTreeSet::new(),
                looks: 0,
                windows: 0,
                fence: None,
            }),
            work: Notify::new(),
            next_row_at: tokio::sync::Mutex::new(Instant::now()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is whole after every statement, so that a panic elsewhere leaves nothing broken.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds tables to copy, at once and then as often as tables are matched.
    async fn keep_looking(&self) {
        // The server locks each published table for this, and waits for whoever alters one: nobody else is to wait with it.
        let mut catalog = Catalog::new(Arc::clone(&self.connect));
        loop {
            let found = catalog.published_tables(&self.publication).await;
            let looked = match found {
                Ok(tables) => self.take(&tables).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = looked {
                self.metrics.copy_failed(&failure);
                warn!(
                    code = failure.code().as_str(),
                    "tables to copy could not be looked for, which is tried again: {failure}"
                );
            }
            sleep(self.match_interval).await;
        }
    }

    /// Takes up what is to be copied, and forgets what was taken out of the publication: what happens to it now is not streamed, so that its rows
    /// are copied from the first one on if it ever comes back.
    async fn take(&self, tables: &[Oid]) -> Result<(), Failure> {
        let forgotten: Vec<u32> = {
            let state = &mut *self.state();
            let look = state.looks;
            state.looks += 1;
            state.published = tables.iter().copied().map(u32::from).collect();
            state.taken.retain(|_, taken| *taken == Taken::Now);
            for table in tables.iter().filter(|table| state.progress.lacks(**table)) {
                if let Entry::Vacant(free) = state.taken.entry((*table).into()) {
                    free.insert(Taken::Now);
                    state.pending.push_back((*table, look));
                }
            }
            if look == 0 && state.taken.is_empty() {
                info!("no table is to be copied");
            }
            self.metrics.tables_to_copy(state.taken.len());
            let is_gone = |oid: &u32| !tables.contains(&Oid::from(*oid)) && !state.taken.contains_key(oid);
            // That there is none at all is not the tables' doing.
            let gone = state.progress.tables.keys().copied().filter(|oid| !tables.is_empty() && is_gone(oid));
            gone.collect()
        };
        self.work.notify_waiters();
        for oid in forgotten {
            self.forget(oid.into()).await?;
        }
        Ok(())
    }

    async fn forget(&self, table: Oid) -> Result<(), Failure> {
        self.request(Request::Forget { table }).await?;
        self.state().progress.tables.remove(&table.into());
        Ok(())
    }

    /// Copies one table after another; ends only if the session cannot go on.
    async fn work(&self) -> Failure {
        loop {
            let waiting = self.work.notified();
            let next = self.state().pending.pop_front();
            let Some((table, look)) = next else {
                waiting.await;
                continue;
            };
            match self.copy_table(table, look).await {
                Ok(end) => self.settle(table, look, end),
                Err(failure) if failure.code() == Code::Internal => return failure,
                Err(failure) => {
                    self.metrics.copy_failed(&failure);
                    warn!(
                        code = failure.code().as_str(),
                        "a table is not copied for now, and is tried again later; the stream and other tables go on: {failure}"
                    );
                    self.settle(table, look, End::PutOff);
                }
            }
        }
    }

    fn settle(&self, table: Oid, look: u64, end: End) {
        let state = &mut *self.state();
        match end {
            End::Over => drop(state.taken.remove(&table.into())),
            End::NextTurn => state.pending.push_back((table, look)),
            End::PutOff => drop(state.taken.insert(table.into(), Taken::PutOff)),
        }
        self.metrics.tables_to_copy(state.taken.len());
        if state.taken.is_empty() {
            info!("every table is copied");
        } else if state.taken.keys().all(|oid| state.keyless.contains(oid)) {
            info!("every table is copied but those that cannot be");
        }
    }

    /// The transaction id below which nothing may run in a snapshot of this epoch, for a table that was seen in this look.
    async fn fence(&self, epoch: Epoch, look: u64) -> Result<u64, Failure> {
        if let Some(fence) = self.state().fence.filter(|fence| fence.epoch == epoch && fence.look >= look) {
            return Ok(fence.xid);
        }
        // Tables of later looks may come while it is assigned.
        let look = self.state().looks.saturating_sub(1);
        let xid = self.relations.lock().await.catalog.assign_xid().await?;
        self.state().fence = Some(Fence { epoch, look, xid });
        Ok(xid)
    }

    /// Waits until so many rows may be read.
    async fn await_rate(&self, rows: usize) {
        let Some(rate) = self.settings.rows_per_second else { return };
        let mut next = self.next_row_at.lock().await;
        let at = (*next).max(Instant::now());
        *next = at + Duration::from_secs(1) * u32::try_from(rows).unwrap_or(u32::MAX) / rate;
        drop(next);
        tokio::time::sleep_until(at.into()).await;
    }

    async fn request(&self, request: Request) -> Result<(), Failure> {
        self.requests.send(request).await.map_err(|_| session_over())
    }
}

fn session_over() -> Failure {
    Failure::new(Code::KafkaUnavailable, "the session has ended")
}
