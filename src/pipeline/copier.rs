//! Copies rows that were there before the stream, beside it: the part of [`snapshot`](crate::snapshot) that reads.
//!
//! A table is read in the order of a key, a chunk at a time, so that the last row of a chunk is where the next one begins, in
//! this life or another. Each chunk has a snapshot of its own and goes through a [window](crate::snapshot::Windows) of the stream, so that nothing is
//! held on the server between two chunks: neither log nor old rows. The steps of one, whose order is the argument:
//!
//! 1. the catalog says what the table is like, and a plan is made, as it is for the stream's own relations;
//! 2. the window is opened: from here on the stream notes which rows change;
//! 3. it is waited until what was streamed before has ended;
//! 4. a transaction begins, takes the lock of a SELECT, and its snapshot; the log's end is asked for, and whether the table is still as it
//!    was described. Nothing is waited for while the lock is held: who alters the table waits for it, and everybody else for them;
//! 5. the chunk is read and encoded, and the transaction ends;
//! 6. the stream writes it once it has passed that end, with the cursor behind it, or says why it is to be read again.
//!
//! What goes wrong with one table is told and tried again; neither the stream nor another table waits for it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use encoder::{BoundPlan, EncodeError, Encoded, RecordBatch, SnapshotContext, SnapshotKind};
use pgoutput::{CopyRows, Lsn, Oid, Timestamp, Tuple, Value, Xid};
use publisher::{MemoryBudget, RECORD_OVERHEAD_BYTES};
use tokio::{
    sync::{Notify, mpsc::Sender, oneshot},
    task::JoinSet,
    time::sleep,
};
use tracing::{debug, info, warn};
use walreceiver::{Backoff, ConnectOptions};

use super::{
    relations::{Known, Relations, Table},
    work::cost_of,
};
use crate::{
    catalog::{KeyColumn, KeyRange, ReadOrder, RowReader, SnapshotTable},
    config,
    failure::{Code, Failure, Recovery},
    failures,
    metrics::{Metrics, TableMetrics},
    pipeline::publish::unix_ms,
    quarantine::Quarantine,
    snapshot::{
        Chunk, Epoch, Keys, Left, Opened, Outcome, Progress, Request, RowKey, Settles, Spoilt, TableRecord, Visibility,
        WindowId,
    },
};

/// What the records of a chunk cost in memory, at most but for the last one: enough for its fixed cost not to matter, and little to throw away.
const CHUNK_COST_MAX: usize = 2 << 20;
/// How many rows the first chunk of a table has, whose rows may be of any size, and any chunk at most.
const FIRST_CHUNK_ROWS: usize = 500;
const CHUNK_ROWS_MAX: usize = 20_000;
/// A chunk that fails as often in a row leaves its table for later.
const FAILURES_MAX: u32 = 10;
/// The pauses before a chunk is read again.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often it is said that a table's copy does not get on. Others have their turn then.
const REMINDER_INTERVAL: Duration = Duration::from_secs(30);
/// How long a window is kept open for transactions to end, and how often they are looked at.
const ENDED_TIMEOUT: Duration = Duration::from_secs(2);
const ENDED_POLL: Duration = Duration::from_millis(20);

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
    waiting: MemoryBudget,
    requests: Sender<Request>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    work: Notify,
    /// When the next row may be read, if there is a limit.
    next_row_at: tokio::sync::Mutex<Instant>,
}

struct State {
    progress: Progress,
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

/// A table that is being copied.
struct Copying {
    oid: Oid,
    look: u64,
    reader: RowReader,
    record: TableRecord,
    chunk_rows: usize,
    /// Rows that are to be read again before the copy goes on, and where it goes on then.
    again: Option<Again>,
    /// What the next chunk settles.
    settles: Settles,
}

struct Again {
    keys: Vec<Vec<String>>,
    /// What is written of the copy once they are.
    then: Then,
}

/// What is written of a copy with a chunk.
#[derive(Clone)]
struct Then {
    record: TableRecord,
    /// Whether nothing comes after the chunk.
    is_last: bool,
    settles: Settles,
}

/// What a chunk has come to.
enum Step {
    More,
    /// It is to be read again, for a reason that passes.
    Again(String),
    Done,
    /// The table is not streamed any more.
    Gone,
    /// There is no way to copy it.
    Keyless,
}

/// A table as the catalog has it.
struct Described {
    table: SnapshotTable,
    order: ReadOrder,
    plan: Arc<BoundPlan>,
    metrics: TableMetrics,
    key: RowKey,
    fingerprint: String,
}

/// A chunk has to wait, for a reason that passes.
struct Waits {
    why: String,
    snapshot: Option<Visibility>,
}

impl Waits {
    fn for_transactions(snapshot: Visibility) -> Self {
        let why = format!(
            "transactions that were open before have to end first, the oldest of which has the id {}: SELECT pid, xact_start, state, query FROM \
             pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY age(backend_xid) DESC shows it first, unless it is one of pg_prepared_xacts",
            snapshot.xmin()
        );
        Self { why, snapshot: Some(snapshot) }
    }
}

/// A chunk that was read and is not handed over yet.
struct ReadChunk {
    batch: RecordBatch,
    keys: Keys,
    rows: usize,
    /// Where the last row is in the order.
    last: Option<Vec<String>>,
    /// Whether all rows were read that were asked for.
    is_whole: bool,
    snapshot: Visibility,
    until: Lsn,
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
            waiting: MemoryBudget::new(waiting_bytes(memory_limit)),
            requests: parts.requests,
            metrics: parts.metrics,
            state: Mutex::new(State {
                progress: parts.progress,
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
        loop {
            let found = self.relations.lock().await.catalog.published_tables(&self.publication).await;
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
        }
    }

    async fn copy_table(&self, oid: Oid, look: u64) -> Result<End, Failure> {
        let held = self.state().progress.tables.get(&u32::from(oid)).cloned();
        let is_resumed = held.is_some();
        let mut copying = Copying {
            oid,
            look,
            reader: RowReader::new(Arc::clone(&self.connect), self.settings.statement_timeout),
            record: held.unwrap_or_else(|| TableRecord::new("", "", Vec::new(), unix_ms())),
            chunk_rows: FIRST_CHUNK_ROWS,
            again: None,
            settles: Settles::Rows(Vec::new()),
        };
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        let (mut failures, mut progressed_at) = (0, Instant::now());
        let mut is_told = false;
        loop {
            let step = self.copy_chunk(&mut copying).await;
            let TableRecord { schema, table, rows, .. } = &copying.record;
            match step {
                Ok(Step::Done) => {
                    info!(schema, table, rows, "the table is copied");
                    return Ok(End::Over);
                }
                Ok(Step::Gone) => {
                    self.forget(oid).await?;
                    return Ok(End::Over);
                }
                Ok(Step::Keyless) => {
                    if self.state().keyless.insert(oid.into()) {
                        warn!(
                            schema,
                            table,
                            "the rows of the table from before it was streamed are not copied: nothing tells them apart and gives them an order; \
                             give it a primary key"
                        );
                    }
                    self.forget(oid).await?;
                    return Ok(End::PutOff);
                }
                Ok(Step::More) => {
                    if !std::mem::replace(&mut is_told, true) {
                        info!(schema, table, is_resumed, rows, "copying the table");
                    }
                    (failures, progressed_at) = (0, Instant::now());
                    backoff.reset();
                    continue;
                }
                Ok(Step::Again(why)) => {
                    if progressed_at.elapsed() >= REMINDER_INTERVAL {
                        warn!(schema, table, "the table's copy does not get on: {why}");
                        return Ok(End::NextTurn);
                    }
                }
                Err(failure) => {
                    copying.reader.disconnect();
                    failures += 1;
                    if failures >= FAILURES_MAX || failure.code().recovery() == Recovery::Stop {
                        return Err(failure.in_table(schema, table));
                    }
                    debug!("a chunk could not be read: {failure}");
                    // It may have been too much for one statement.
                    copying.chunk_rows = (copying.chunk_rows / 2).max(1);
                }
            }
            sleep(backoff.next_wait()).await;
        }
    }

    /// One chunk, by the steps of the module's head.
    async fn copy_chunk(&self, copying: &mut Copying) -> Result<Step, Failure> {
        self.await_rate(copying.chunk_rows).await;
        // What is in flight already comes first.
        self.budget.acquire(0).await;
        let described = match self.describe(copying).await? {
            Ok(described) => described,
            Err(step) => return Ok(step),
        };
        let (window, opened) = self.open(copying, &described.key).await?;
        let read = match self.await_ended(copying.look, opened).await {
            Ok(Ok(fence)) => self.read(copying, &described, fence).await,
            Ok(Err(waits)) => Ok(Err(waits)),
            Err(failure) => Err(failure),
        };
        match read {
            Ok(Ok(read)) => self.hand_over(copying, window, read).await,
            Ok(Err(Waits { why, snapshot })) => {
                copying.reader.end().await?;
                self.request(Request::Abandon { window, snapshot }).await?;
                Ok(Step::Again(why))
            }
            Err(failure) => {
                copying.reader.disconnect();
                self.request(Request::Abandon { window, snapshot: None }).await?;
                Err(failure)
            }
        }
    }

    /// What the table is like, and how its rows are encoded; or that there is nothing to do.
    async fn describe(&self, copying: &mut Copying) -> Result<Result<Described, Step>, Failure> {
        let oid = copying.oid;
        let mut relations = self.relations.lock().await;
        // It is asked for again under the lock, and has to be the same.
        let fingerprint = relations.catalog.fingerprint(oid).await?;
        if !relations.catalog.is_published(&self.publication, oid).await? {
            return Ok(Err(Step::Gone));
        }
        let Some(table) = relations.catalog.snapshot_table(&self.publication, oid).await? else {
            return Ok(Err(Step::Gone));
        };
        copying.record.schema.clone_from(&table.relation.schema);
        copying.record.table.clone_from(&table.relation.name);
        let primary_key = relations.catalog.table_facts(oid).await?.primary_key;
        let key = RowKey::of(&table.relation, primary_key.as_deref());
        let is_known = match relations.known.get(&oid) {
            Some(Known::Watched(known)) => *known.relation() == table.relation && known.row_key == key,
            _ => false,
        };
        if !is_known {
            // The rows are those of now.
            let newest = relations.catalog.assign_xid().await? & u64::from(u32::MAX);
            let newest = Xid::from(u32::try_from(newest).unwrap_or_default());
            relations.learn(table.relation.clone(), newest).await?;
        }
        let quarantine = Arc::clone(&relations.quarantine);
        let (plan, metrics) = match relations.get(oid)? {
            Known::Watched(known) if is_quarantined(&quarantine, known) => {
                let found = "the table is in quarantine: it is copied once it was released";
                return Err(Failure::new(Code::RegistryIncompatible, found));
            }
            Known::Watched(known) => (Arc::clone(&known.plan), known.metrics.clone()),
            Known::Unwatched => return Ok(Err(Step::Gone)),
        };
        let (Some(key), Some(order)) = (key, table.read_order.clone()) else {
            return Ok(Err(Step::Keyless));
        };
        let words = order.columns.iter().map(KeyColumn::words).chain(key.names().iter().cloned()).collect();
        if copying.record.key != words {
            // Where a row stands by another key says nothing.
            copying.record.key = words;
            copying.record.after = None;
            copying.again = None;
            copying.settles = Settles::AllBefore;
        }
        Ok(Ok(Described { table, order, plan, metrics, key, fingerprint }))
    }

    async fn open(&self, copying: &Copying, key: &RowKey) -> Result<(WindowId, Opened), Failure> {
        let window = {
            let state = &mut *self.state();
            state.windows += 1;
            WindowId(state.windows)
        };
        let (opened, answer) = oneshot::channel();
        let is_anew = copying.again.is_none() && copying.settles == Settles::AllBefore;
        let (table, key) = (copying.oid, key.names().to_vec());
        self.request(Request::Open { window, table, key, is_anew, opened }).await?;
        Ok((window, answer.await.map_err(|_| session_over())?))
    }

    /// Waits for some time until everything has ended that was streamed before the window was opened, and returns the transaction id below which
    /// nothing may run.
    async fn await_ended(&self, look: u64, opened: Opened) -> Result<Result<u64, Waits>, Failure> {
        let fence = self.fence(opened.epoch, look).await?;
        let began = Instant::now();
        loop {
            let snapshot = self.relations.lock().await.catalog.current_snapshot().await?;
            if snapshot.xmin() >= fence && opened.unnoted.iter().all(|xid| snapshot.has_ended(*xid)) {
                return Ok(Ok(fence));
            }
            if began.elapsed() > ENDED_TIMEOUT {
                return Ok(Err(Waits::for_transactions(snapshot)));
            }
            sleep(ENDED_POLL).await;
        }
    }

    /// Takes the lock and the snapshot, and reads the chunk; or says why that has to wait.
    async fn read(
        &self,
        copying: &mut Copying,
        described: &Described,
        fence: u64,
    ) -> Result<Result<ReadChunk, Waits>, Failure> {
        let Described { table, order, plan, metrics, key, fingerprint } = described;
        copying.reader.begin(&table.relation.schema, &table.relation.name).await?;
        let taken = copying.reader.snapshot(copying.oid).await?;
        if taken.fingerprint != *fingerprint {
            return Ok(Err(Waits { why: "the table was altered".to_owned(), snapshot: Some(taken.visibility) }));
        }
        if taken.visibility.xmin() < fence {
            return Ok(Err(Waits::for_transactions(taken.visibility)));
        }
        let statement = statement(copying, table, order, key)?;
        let mut lines = copying.reader.copy(&statement).await?;
        let columns = |columns: usize| u16::try_from(columns).unwrap_or(u16::MAX);
        let (leading, columns) = (columns(order.columns.len()), columns(table.relation.columns.len()));
        let mut rows = CopyRows::new(leading.saturating_add(columns));
        let (mut batch, mut keys) = (RecordBatch::new(), Keys::default());
        let context = SnapshotContext::new(
            SnapshotKind::Incremental,
            taken.insert_lsn,
            None,
            Timestamp::from_unix_micros(taken.taken_unix_us),
        );
        let (mut is_whole, mut rows_read, mut last, mut row_key) = (true, 0, None, Vec::new());
        while let Some(line) = lines.next().await? {
            if line.len() > self.row_bytes_max {
                let found = format!("a row of {} bytes is more than a quarter of memory_limit", line.len());
                return Err(Failure::new(Code::RowTooLarge, found));
            }
            if estimated_cost(&batch) >= self.chunk_cost_max {
                is_whole = false;
                break;
            }
            let line = rows.decode(&line).map_err(|error| Failure::caused(Code::ProtocolViolation, error))?;
            let (place, row) =
                line.split_at(leading).ok_or_else(|| Failure::new(Code::Internal, "a row is too short"))?;
            let records = batch.len();
            match plan.encode_read(&row, &context, unix_ns(), &mut batch) {
                Ok(Encoded::DeadLetter(error)) => tell_dead_letter(plan, metrics, &error),
                Ok(_) => {}
                Err(error) => {
                    copying.reader.disconnect();
                    return self.encode_failed(copying.oid, &error).await;
                }
            }
            rows_read += 1;
            last = Some(place);
            row_key.clear();
            if !key.write(&row, &mut row_key) {
                let found = "a row lacks a value of the columns that tell rows apart";
                return Err(Failure::new(Code::ValueUnrepresentable, found));
            }
            // `events.skip` may leave them out.
            if batch.len() > records {
                keys.push(&row_key);
            }
        }
        drop(lines);
        // A COPY that was not read to its end ends with its connection.
        if is_whole {
            copying.reader.end().await?;
        } else {
            copying.reader.disconnect();
        }
        Ok(Ok(ReadChunk {
            batch,
            keys,
            rows: rows_read,
            last: last.as_ref().map(texts),
            is_whole,
            snapshot: taken.visibility,
            until: taken.insert_lsn,
        }))
    }

    /// A column that can be null after all is made optional, as in the stream; anything else is for the operator.
    async fn encode_failed(&self, oid: Oid, error: &EncodeError) -> Result<Result<ReadChunk, Waits>, Failure> {
        let Some(column) = error.null_in_not_null() else { return Err(failures::of_encode(error)) };
        self.relations.lock().await.make_optional(oid, column).await?;
        Ok(Err(Waits { why: format!("column {column} has become optional"), snapshot: None }))
    }

    /// Hands a chunk to the stream and waits for what becomes of it.
    async fn hand_over(&self, copying: &mut Copying, window: WindowId, read: ReadChunk) -> Result<Step, Failure> {
        let ReadChunk { batch, keys, rows, last, is_whole, snapshot, until } = read;
        let cost = batch.iter().map(|record| cost_of(&record)).sum::<usize>() + keys.cost_bytes();
        let then = match &copying.again {
            // What was read again has been passed already.
            Some(again) => again.then.clone(),
            None => Then {
                record: copying.record.advanced(last, rows as u64),
                is_last: is_whole && rows < copying.chunk_rows,
                settles: std::mem::replace(&mut copying.settles, Settles::Rows(Vec::new())),
            },
        };
        if copying.again.is_none() {
            copying.chunk_rows = next_chunk_rows(copying.chunk_rows, rows, cost, self.chunk_cost_max / 2);
        }
        let end = then.record.ended(unix_ms());
        self.waiting.acquire(cost).await;
        let (outcome, answer) = oneshot::channel();
        let chunk = Box::new(Chunk {
            batch,
            keys,
            cursor: then.record.attachment(copying.oid),
            end: then.is_last.then(|| end.attachment(copying.oid)),
            settles: then.settles.clone(),
            outcome,
        });
        let outcome = async {
            self.request(Request::Load { window, chunk, snapshot, until }).await?;
            answer.await.map_err(|_| session_over())
        };
        let outcome = outcome.await;
        self.waiting.release(cost);
        Ok(match outcome? {
            Outcome::Written { superseded, left } => {
                self.metrics.copied(rows as u64, superseded);
                copying.again = None;
                let is_over = then.is_last && left.is_none();
                copying.record = if is_over { end } else { then.record };
                self.state().progress.tables.insert(copying.oid.into(), copying.record.clone());
                if is_over {
                    return Ok(Step::Done);
                }
                match left.filter(|left| then.is_last || *left != Left::All) {
                    None => return Ok(Step::More),
                    Some(Left::Rows(rows)) => {
                        let (names, keys) = rows.into_iter().unzip();
                        let (record, settles) = (copying.record.clone(), Settles::Rows(names));
                        copying.again = Some(Again { keys, then: Then { record, is_last: then.is_last, settles } });
                    }
                    Some(Left::All) => {
                        let TableRecord { schema, table, .. } = &copying.record;
                        warn!(schema, table, "so many keys of the table have changed that it is copied once more");
                        copying.record.after = None;
                        copying.settles = Settles::AllBefore;
                    }
                }
                // Not at once: what could not be read in one piece may change all the time.
                Step::Again("rows change all the time of which updates leave out values".to_owned())
            }
            Outcome::Spoilt(why) => {
                if copying.again.is_none() {
                    copying.settles = then.settles;
                }
                Step::Again(words(why).to_owned())
            }
        })
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

/// What the records will cost, without their headers.
fn estimated_cost(batch: &RecordBatch) -> usize {
    batch.bytes() + batch.len() * RECORD_OVERHEAD_BYTES
}

/// All are counted, and the topic has the reason of each.
fn tell_dead_letter(plan: &BoundPlan, metrics: &TableMetrics, error: &EncodeError) {
    if metrics.bury() {
        let topic = plan.plan().dead_letter_topic().map_or("", |topic| &**topic);
        warn!(table = plan.plan().table(), topic, "a row became a dead letter, the first of its table: {error}");
    }
}

/// What reads the next rows, or those that are to be read again.
fn statement(copying: &Copying, table: &SnapshotTable, order: &ReadOrder, key: &RowKey) -> Result<String, Failure> {
    if let Some(again) = &copying.again {
        return Ok(table.copy().of_rows(order, key.names(), &again.keys));
    }
    let after = copying.record.after.as_ref();
    let after = after.map(|after| Tuple::from_values(after.iter().map(|value| Value::Text(value.as_bytes()))));
    let after = after.transpose().map_err(|error| Failure::caused(Code::Internal, error))?;
    let range = KeyRange { key: order, after: after.as_ref(), rows_max: copying.chunk_rows as u64 };
    let no_key = || Failure::new(Code::CheckpointCorrupt, "the cursor of the copy is no key of the table");
    table.copy().of_keys(&range).ok_or_else(no_key)
}

/// The values of a place in the order, of which none is null.
fn texts(place: &Tuple) -> Vec<String> {
    let text = |value| match value {
        // The client encoding is UTF-8.
        Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Value::Null | Value::UnchangedToast | Value::Binary(_) => String::new(),
    };
    place.iter().map(text).collect()
}

/// Whether the stream has put the table into quarantine, before or after its plan was made here.
fn is_quarantined(quarantine: &Mutex<Quarantine>, table: &Table) -> bool {
    let quarantine = quarantine.lock().unwrap_or_else(PoisonError::into_inner);
    table.plan.holds_back() || quarantine.get(table.plan.plan().topic()).is_some()
}

/// How many rows the next chunk is to have, by how large those of this one were.
fn next_chunk_rows(asked: usize, rows: usize, cost: usize, meant: usize) -> usize {
    if rows == 0 {
        return asked;
    }
    let fitting = meant / (cost / rows).max(1);
    // Not too much at once: the next rows may be larger.
    fitting.clamp(1, CHUNK_ROWS_MAX).min(asked.saturating_mul(8))
}

fn words(why: Spoilt) -> &'static str {
    match why {
        Spoilt::StillRunning => {
            "a transaction that was streamed already has not ended: it may be waiting for a standby"
        }
        Spoilt::Altered => "the table was altered, or is new to the stream",
        Spoilt::UnknownRow => "rows change of which the stream does not know the key",
        Spoilt::Truncated => "the table was emptied",
        Spoilt::HeldBack => "the table is in quarantine",
        Spoilt::TooBusy => "more of its rows change at a time than are kept in mind",
    }
}

fn session_over() -> Failure {
    Failure::new(Code::KafkaUnavailable, "the session has ended")
}

fn unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_to_the_size_that_is_meant() {
        let next = |asked, rows, cost| next_chunk_rows(asked, rows, cost, 1 << 20);
        assert_eq!(next(500, 500, 500 * 100), 4000);
        assert_eq!(next(4000, 4000, 4000 * 100), (1 << 20) / 100);
        assert_eq!(next(20_000, 20_000, 20_000), CHUNK_ROWS_MAX);
        assert_eq!(next(500, 4, 8 << 20), 1, "rows of 2 MiB");
        assert_eq!(next(500, 0, 0), 500);
    }
}
