//! Copies rows that were there before the stream, beside it: the part of [`snapshot`](crate::snapshot) that reads.
//!
//! A table is read in the order of its [row key](RowKey), a chunk at a time, so that the last row of a chunk is where the next one begins, in
//! this life or another. Each chunk has a snapshot of its own and goes through a [window](crate::snapshot::Windows) of the stream, so that nothing is
//! held on the server between two chunks: neither log nor old rows. The steps of one, whose order is the argument:
//!
//! 1. a transaction begins and takes the lock of a SELECT: nobody alters the table until it ends;
//! 2. the catalog says what the table is like, and a plan is made, as it is for the stream's own relations;
//! 3. the window is opened: from here on the stream notes which rows change;
//! 4. the transaction's snapshot is taken, and then the log's end is asked for;
//! 5. the chunk is read and encoded, and its cost charged to the memory budget;
//! 6. the stream writes it once it has passed that end, with the cursor behind it, or says why it is to be read again.
//!
//! What goes wrong with one table is told and tried again; neither the stream nor another table waits for it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use encoder::{BoundPlan, EncodeError, RecordBatch, SnapshotContext, SnapshotKind};
use pgoutput::{CopyRows, Lsn, Oid, Timestamp};
use publisher::MemoryBudget;
use tokio::{
    sync::{Notify, mpsc::Sender, oneshot},
    task::JoinSet,
    time::sleep,
};
use tracing::{info, warn};
use walreceiver::{Backoff, ConnectOptions};

use super::{
    relations::{Known, Relations, Table},
    work::cost_of,
};
use crate::{
    catalog::{CopiedTable, RowReader, RowSelection},
    config,
    failure::{Code, Failure},
    failures,
    metrics::Metrics,
    pipeline::publish::unix_ms,
    quarantine::Quarantine,
    snapshot::{
        Chunk, Epoch, Keys, Left, Outcome, Progress, Request, RowKey, Settles, Spoilt, TableRecord, Visibility,
        WindowId,
    },
};

/// How many bytes of records a chunk has, about: enough for its fixed cost not to matter, and little to throw away.
const CHUNK_BYTES: usize = 1 << 20;
/// A chunk whose rows are larger than expected ends here.
const CHUNK_BYTES_MAX: usize = 4 << 20;
/// How many rows the first chunk of a table has, whose rows may be of any size, and any chunk at most.
const FIRST_CHUNK_ROWS: usize = 500;
const CHUNK_ROWS_MAX: usize = 20_000;
/// A chunk that fails as often in a row leaves its table for later.
const FAILURES_MAX: u32 = 10;
/// The pauses before a chunk is read again.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often it is said that a chunk waits for transactions to end.
const REMINDER_INTERVAL: Duration = Duration::from_secs(30);

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
    /// Whether the slot was created by this session: nothing was streamed before it.
    pub(super) is_first: bool,
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

struct Copier {
    relations: tokio::sync::Mutex<Relations>,
    connect: Arc<ConnectOptions>,
    publication: String,
    settings: config::Snapshot,
    match_interval: Duration,
    /// How large a record may be, as the stream has it.
    row_bytes_max: usize,
    budget: Arc<MemoryBudget>,
    /// Only so much of the budget may be with chunks that wait for the stream, which may be waiting for the rest.
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
    /// Those that cannot be copied as long as the session lasts.
    passed_over: BTreeSet<u32>,
    looks: u64,
    windows: u64,
    fence: Option<Fence>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Now,
    Failed,
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
    /// Whether the next chunk has no rows, and says that the copy begins anew: what moves from then on is remembered for this one.
    begins_anew: bool,
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
    /// There is nothing to copy, or no way to.
    Nothing(&'static str),
}

/// A table as it is while its lock is held.
struct Described {
    table: CopiedTable,
    plan: Arc<BoundPlan>,
    key: Option<RowKey>,
}

/// A chunk that was read and is not handed over yet.
struct ReadChunk {
    batch: RecordBatch,
    keys: Keys,
    /// Whether all rows were read that were asked for.
    is_whole: bool,
    snapshot: Visibility,
    until: Lsn,
}

impl Copier {
    fn new(parts: CopierParts) -> Self {
        let memory_limit = usize::try_from(parts.memory_limit_bytes).unwrap_or(usize::MAX);
        let is_first = parts.is_first;
        Self {
            relations: tokio::sync::Mutex::new(parts.relations),
            connect: parts.connect,
            publication: parts.publication,
            settings: parts.settings,
            match_interval: parts.match_interval,
            row_bytes_max: memory_limit / 4,
            budget: parts.budget,
            waiting: MemoryBudget::new(memory_limit / 4),
            requests: parts.requests,
            metrics: parts.metrics,
            state: Mutex::new(State {
                progress: parts.progress,
                pending: VecDeque::new(),
                taken: BTreeMap::new(),
                passed_over: BTreeSet::new(),
                looks: 0,
                windows: 0,
                // What the stream has sent, it has sent in this session.
                fence: is_first.then_some(Fence { epoch: Epoch::default(), look: 0, xid: 0 }),
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
            match found {
                Ok(tables) => self.take(&tables),
                Err(failure) => tracing::debug!("tables to copy could not be looked for: {failure}"),
            }
            sleep(self.match_interval).await;
        }
    }

    fn take(&self, tables: &[Oid]) {
        let state = &mut *self.state();
        let look = state.looks;
        state.looks += 1;
        state.taken.retain(|_, taken| *taken != Taken::Failed);
        for table in tables.iter().filter(|table| state.progress.lacks(**table)) {
            let oid = u32::from(*table);
            if !state.taken.contains_key(&oid) && !state.passed_over.contains(&oid) {
                state.taken.insert(oid, Taken::Now);
                state.pending.push_back((*table, look));
            }
        }
        if look == 0 && state.taken.is_empty() {
            info!("no table is to be copied");
        }
        self.metrics.tables_to_copy(state.taken.len());
        self.work.notify_waiters();
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
                Ok(()) => self.settle(table),
                Err(failure) if failure.code() == Code::Internal => return failure,
                Err(failure) => {
                    self.metrics.copy_failed(&failure);
                    warn!(
                        code = failure.code().as_str(),
                        "a table is not copied for now, and is tried again later; the stream and other tables go on: {failure}"
                    );
                    self.state().taken.insert(u32::from(table), Taken::Failed);
                }
            }
        }
    }

    /// A table needs no more of the copier.
    fn settle(&self, table: Oid) {
        let state = &mut *self.state();
        state.taken.remove(&table.into());
        self.metrics.tables_to_copy(state.taken.len());
        if state.taken.is_empty() {
            info!("every table is copied");
        }
    }

    async fn copy_table(&self, oid: Oid, look: u64) -> Result<(), Failure> {
        let held = self.state().progress.tables.get(&u32::from(oid)).cloned();
        let is_resumed = held.is_some();
        let record = held.unwrap_or_else(|| TableRecord::new("", "", Vec::new(), unix_ms()));
        let mut copying = Copying {
            oid,
            look,
            reader: RowReader::new(Arc::clone(&self.connect), self.settings.statement_timeout),
            // What was remembered of a copy that begins anew was meant for the one before.
            begins_anew: is_resumed && record.after.is_none(),
            record,
            chunk_rows: FIRST_CHUNK_ROWS,
            again: None,
        };
        let outcome = self.copy_chunks(&mut copying, is_resumed).await;
        // Whoever tries again goes on here.
        self.state().progress.tables.insert(oid.into(), copying.record);
        outcome
    }

    async fn copy_chunks(&self, copying: &mut Copying, is_resumed: bool) -> Result<(), Failure> {
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        let (mut failures, mut waited) = (0, Instant::now());
        let mut is_told = false;
        loop {
            let pause = match self.copy_chunk(copying).await {
                Ok(Step::Done) => {
                    let TableRecord { schema, table, rows, .. } = &copying.record;
                    info!(schema, table, rows, "the table is copied");
                    return Ok(());
                }
                Ok(Step::Nothing(why)) => {
                    let TableRecord { schema, table, .. } = &copying.record;
                    if !why.is_empty() {
                        warn!(schema, table, "the rows of the table from before it was streamed are not copied: {why}");
                    }
                    self.request(Request::Forget { table: copying.oid }).await?;
                    self.state().passed_over.insert(copying.oid.into());
                    return Ok(());
                }
                Ok(Step::More) => {
                    if !std::mem::replace(&mut is_told, true) {
                        let TableRecord { schema, table, rows, .. } = &copying.record;
                        info!(schema, table, is_resumed, rows, "copying the table");
                    }
                    (failures, waited) = (0, Instant::now());
                    backoff.reset();
                    continue;
                }
                Ok(Step::Again(why)) => {
                    if waited.elapsed() >= REMINDER_INTERVAL {
                        let TableRecord { schema, table, .. } = &copying.record;
                        warn!(schema, table, "the table's copy does not get on: {why}");
                        waited = Instant::now();
                    }
                    backoff.next_wait()
                }
                Err(failure) => {
                    copying.reader.disconnect();
                    failures += 1;
                    if failures >= FAILURES_MAX || failure.code() == Code::Internal {
                        return Err(failure.in_table(&copying.record.schema, &copying.record.table));
                    }
                    tracing::debug!("a chunk could not be read: {failure}");
                    backoff.next_wait()
                }
            };
            sleep(pause).await;
        }
    }

    /// One chunk, by the steps of the module's head.
    async fn copy_chunk(&self, copying: &mut Copying) -> Result<Step, Failure> {
        self.await_rate(copying.chunk_rows).await;
        let described = self.relations.lock().await.catalog.copied_table(&self.publication, copying.oid).await?;
        let Some(described) = described else { return Ok(Step::Nothing("")) };
        copying.record.schema.clone_from(&described.relation.schema);
        copying.record.table.clone_from(&described.relation.name);
        copying.reader.begin(&described.qualified_name()).await?;
        let outcome = self.copy_locked(copying).await;
        if outcome.is_err() {
            copying.reader.disconnect();
        }
        outcome
    }

    /// The steps after the lock. The catalog is asked anew: the table may have been altered before the lock was had.
    async fn copy_locked(&self, copying: &mut Copying) -> Result<Step, Failure> {
        let Some(Described { table, plan, key }) = self.describe(copying.oid).await? else {
            copying.reader.end().await?;
            return Ok(Step::Nothing(""));
        };
        let order = key.as_ref().and_then(|key| table.order_of(key.names()));
        let (Some(key), Some(order)) = (key, order) else {
            copying.reader.end().await?;
            return Ok(Step::Nothing(
                "nothing of it that is published tells its rows apart; give it a primary key, and publish all of its columns",
            ));
        };
        if copying.record.key != key.names() || copying.record.order != order {
            // Where a row stands by another key, or in another order, says nothing.
            copying.begins_anew |= !copying.record.key.is_empty();
            copying.record.key = key.names().to_vec();
            copying.record.order = order;
            copying.record.after = None;
            copying.again = None;
        }
        let (window, epoch) = self.open(copying.oid, &key).await?;
        let read = self.read(copying, &table, &plan, &key, epoch).await;
        match read {
            Ok(Ok(read)) => self.hand_over(copying, window, read).await,
            Ok(Err(why)) => {
                self.request(Request::Abandon { window }).await?;
                copying.reader.end().await?;
                Ok(Step::Again(why))
            }
            Err(failure) => {
                self.request(Request::Abandon { window }).await?;
                Err(failure)
            }
        }
    }

    /// What the table is like, and how its rows are encoded; none if it is not streamed.
    async fn describe(&self, oid: Oid) -> Result<Option<Described>, Failure> {
        let mut relations = self.relations.lock().await;
        let Some(table) = relations.catalog.copied_table(&self.publication, oid).await? else { return Ok(None) };
        let is_known = match relations.known.get(&oid) {
            Some(Known::Watched(known)) => *known.relation() == table.relation,
            _ => false,
        };
        if !is_known {
            relations.learn(table.relation.clone()).await?;
        }
        let quarantine = Arc::clone(&relations.quarantine);
        Ok(match relations.get(oid)? {
            Known::Watched(known) if is_quarantined(&quarantine, known) => {
                let found = "the table is in quarantine: it is copied once it was released";
                return Err(Failure::new(Code::RegistryIncompatible, found));
            }
            Known::Watched(known) => {
                Some(Described { plan: Arc::clone(&known.plan), key: known.row_key.clone(), table })
            }
            Known::Unwatched => None,
        })
    }

    async fn open(&self, table: Oid, key: &RowKey) -> Result<(WindowId, Epoch), Failure> {
        let window = {
            let state = &mut *self.state();
            state.windows += 1;
            WindowId(state.windows)
        };
        let (opened, answer) = oneshot::channel();
        self.request(Request::Open { window, table, key: key.names().to_vec(), opened }).await?;
        let epoch = answer.await.map_err(|_| session_over())?;
        Ok((window, epoch))
    }

    /// Takes the chunk's snapshot and reads it; or says why it has to wait.
    async fn read(
        &self,
        copying: &mut Copying,
        table: &CopiedTable,
        plan: &BoundPlan,
        key: &RowKey,
        epoch: Epoch,
    ) -> Result<Result<ReadChunk, String>, Failure> {
        let fence = self.fence(epoch, copying.look).await?;
        let taken = copying.reader.snapshot().await?;
        if taken.visibility.xmin() < fence {
            return Ok(Err(format!(
                "transactions that were open before have to end first, the oldest of which has the id {}; SELECT pid, xact_start, state, \
                 query FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY age(backend_xid) DESC shows it first",
                taken.visibility.xmin()
            )));
        }
        let selection = match &copying.again {
            Some(again) => RowSelection::Keys(&again.keys),
            None if copying.begins_anew => RowSelection::After { after: None, limit: 0 },
            None => RowSelection::After { after: copying.record.after.as_deref(), limit: copying.chunk_rows },
        };
        let statement = table.statement(key.names(), &selection);
        let mut lines = copying.reader.copy(&statement).await?;
        let columns = u16::try_from(table.relation.columns.len()).unwrap_or(u16::MAX);
        let (mut rows, mut batch, mut keys) = (CopyRows::new(columns), RecordBatch::new(), Keys::default());
        let context = SnapshotContext::new(
            SnapshotKind::Incremental,
            taken.insert_lsn,
            None,
            Timestamp::from_unix_micros(taken.taken_unix_us),
        );
        let mut is_whole = true;
        while let Some(line) = lines.next().await? {
            if line.len() > self.row_bytes_max {
                let found = format!("a row of {} bytes is more than a quarter of memory_limit", line.len());
                return Err(Failure::new(Code::RowTooLarge, found));
            }
            if batch.bytes() >= CHUNK_BYTES_MAX {
                is_whole = false;
                break;
            }
            let row = rows.decode(&line).map_err(|error| Failure::caused(Code::ProtocolViolation, error))?;
            if let Err(error) = plan.encode_read(&row, &context, unix_ns(), &mut batch) {
                return self.encode_failed(copying.oid, &error).await;
            }
            if !keys.push(|out| key.write(&row, out)) {
                let found = "a row lacks a value of the columns that tell rows apart";
                return Err(Failure::new(Code::ValueUnrepresentable, found));
            }
        }
        drop(lines);
        if !taken.is_flushed {
            // Nobody flushes log without a commit in it, such as that of hint bits, for up to 15 s where nothing else happens; and what is not flushed is
            // not streamed. The commit of a transaction id is flushed soon, with all before it.
            self.relations.lock().await.catalog.assign_xid().await?;
        }
        // A COPY that was not read to its end ends with its connection.
        if is_whole {
            copying.reader.end().await?;
        } else {
            copying.reader.disconnect();
        }
        Ok(Ok(ReadChunk { batch, keys, is_whole, snapshot: taken.visibility, until: taken.insert_lsn }))
    }

    /// A column that can be null after all is made optional, as in the stream; anything else is for the operator.
    async fn encode_failed(&self, oid: Oid, error: &EncodeError) -> Result<Result<ReadChunk, String>, Failure> {
        let Some(column) = error.null_in_not_null() else { return Err(failures::of_encode(error)) };
        self.relations.lock().await.make_optional(oid, column).await?;
        Ok(Err(format!("column {column} has become optional")))
    }

    /// Hands a chunk to the stream and waits for what becomes of it.
    async fn hand_over(&self, copying: &mut Copying, window: WindowId, read: ReadChunk) -> Result<Step, Failure> {
        let ReadChunk { batch, keys, is_whole, snapshot, until } = read;
        let rows = keys.len();
        let cost = batch.iter().map(|record| cost_of(&record)).sum::<usize>() + keys.cost_bytes();
        let then = match (&copying.again, keys.last()) {
            // What was read again has been passed already.
            (Some(again), _) => again.then.clone(),
            (None, _) if copying.begins_anew => {
                Then { record: copying.record.clone(), is_last: false, settles: Settles::All }
            }
            (None, last) => Then {
                record: copying.record.advanced(last.map(RowKey::read), rows as u64),
                is_last: is_whole && rows < copying.chunk_rows,
                settles: Settles::Rows(Vec::new()),
            },
        };
        if copying.again.is_none() {
            copying.chunk_rows = next_chunk_rows(copying.chunk_rows, rows, batch.bytes());
        }
        let end = then.record.ended(unix_ms());
        self.waiting.acquire(cost).await;
        self.budget.acquire(cost).await;
        let (outcome, answer) = oneshot::channel();
        let chunk = Box::new(Chunk {
            batch,
            keys,
            cursor: then.record.attachment(copying.oid),
            end: then.is_last.then(|| end.attachment(copying.oid)),
            settles: then.settles,
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
                copying.begins_anew = false;
                let read_again = copying.again.take().map_or(0, |again| again.keys.len());
                if then.is_last && left.is_none() {
                    copying.record = end;
                    return Ok(Step::Done);
                }
                copying.record = then.record;
                match left {
                    None => return Ok(Step::More),
                    Some(Left::Rows(rows)) => {
                        let is_fewer = rows.len() < read_again;
                        let (names, keys) = rows.into_iter().unzip();
                        let then =
                            Then { record: copying.record.clone(), is_last: true, settles: Settles::Rows(names) };
                        copying.again = Some(Again { keys, then });
                        if is_fewer {
                            return Ok(Step::More);
                        }
                    }
                    Some(Left::All) => {
                        copying.record.after = None;
                        copying.begins_anew = true;
                    }
                }
                // Not at once: what could not be read in one piece may change all the time.
                Step::Again("rows change all the time of which updates leave out values".to_owned())
            }
            Outcome::Spoilt(why) => Step::Again(words(why).to_owned()),
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

/// Whether the stream has put the table into quarantine, before or after its plan was made here.
fn is_quarantined(quarantine: &Mutex<Quarantine>, table: &Table) -> bool {
    let quarantine = quarantine.lock().unwrap_or_else(PoisonError::into_inner);
    table.plan.holds_back() || quarantine.get(table.plan.plan().topic()).is_some()
}

/// How many rows the next chunk is to have, by how large those of this one were.
fn next_chunk_rows(asked: usize, rows: usize, bytes: usize) -> usize {
    if rows == 0 {
        return asked;
    }
    let fitting = CHUNK_BYTES / (bytes / rows).max(1);
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
        assert_eq!(next_chunk_rows(500, 500, 500 * 100), 4000);
        assert_eq!(next_chunk_rows(4000, 4000, 4000 * 100), CHUNK_BYTES / 100);
        assert_eq!(next_chunk_rows(20_000, 20_000, 20_000), CHUNK_ROWS_MAX);
        assert_eq!(next_chunk_rows(500, 4, 8 << 20), 1, "rows of 2 MiB");
        assert_eq!(next_chunk_rows(500, 0, 0), 500);
    }
}
