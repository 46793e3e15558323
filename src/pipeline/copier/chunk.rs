//! How one chunk of a table is read.
//!
//! A table is read in the order of a key, a chunk at a time, so that the last row of a chunk is where the next one begins, in
//! this life or another. Each chunk has a snapshot of its own and goes through a [window](crate::snapshot::Windows) of the stream, so that nothing is
//! held on the server between two chunks: neither log nor old rows. The steps of one, whose order is the argument:
//!
//! 1. the catalog says what the table is like, and a plan is made, as it is for the stream's own relations;
//! 2. the window is opened: from here on the stream notes which rows change;
//! 3. it is waited until what was streamed before has ended, or was replayed at the [standby](super::standby) where rows are read at one;
//! 4. a transaction begins, takes the lock of a SELECT, and its snapshot; the log's end is asked for, and whether the table is still as it
//!    was described. While the lock is held nothing is waited for but answers: who alters the table waits for it, and everybody else for them; at a standby that is
//!    the replay;
//! 5. the chunk is read and encoded, and the transaction ends;
//! 6. each of its records is held against what Kafka takes;
//! 7. the stream writes it once it has passed that end, with the cursor behind it, or says why it is to be read again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use encoder::{BoundPlan, EncodeError, Encoded, RecordBatch, SnapshotContext, SnapshotKind};
use pgoutput::{CopyRows, Lsn, Oid, ReplicaIdentity, Timestamp};
use publisher::RECORD_OVERHEAD_BYTES;
use tokio::{sync::oneshot, time::sleep};
use tracing::{debug, warn};

use super::{
    Copier,
    ahead::Found,
    range::{next_chunk_rows, no_key, place, statement, texts},
    session_over,
    standby::Ready,
    table::{Copying, InFlight, Step, Then},
};
use crate::{
    catalog::{KeyColumn, MEMBER, ReadOrder, RowReader, SnapshotTable, may_have_been_out},
    failure::{Code, Failure},
    failures,
    metrics::TableMetrics,
    pipeline::{
        publish::{unix_ms, unix_ns},
        relations::{Known, Table},
        work::cost_of,
    },
    quarantine::Quarantine,
    snapshot::{
        Advance, Chunk, Cursor, Ending, Happened, Keys, Notice, Opened, Request, RowKey, Settles, Sight, TableRecord,
        Visibility, WindowId,
    },
};

/// How long a window is kept open for transactions to end, and how often they are looked at.
pub(super) const ENDED_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const ENDED_POLL: Duration = Duration::from_millis(20);
/// How many rows a chunk has at most.
pub(super) const CHUNK_ROWS_MAX: usize = 20_000;
/// How many rows a chunk looks at for some that are wanted, at most.
const SCAN_ROWS_MAX: usize = 1_000_000;

/// A table as the catalog has it.
pub(super) struct Described {
    pub(super) table: SnapshotTable,
    pub(super) order: ReadOrder,
    key: RowKey,
    /// Whether it is still this, in a word.
    pub(super) fingerprint: String,
}

/// How its rows are encoded.
pub(super) struct Encoding {
    pub(super) plan: Arc<BoundPlan>,
    pub(super) metrics: TableMetrics,
}

/// A chunk has to wait, for a reason that passes.
pub(super) struct Waits {
    pub(super) why: String,
    /// One of the primary that was taken meanwhile.
    pub(super) snapshot: Option<Visibility>,
}

impl Waits {
    pub(super) fn for_transactions(snapshot: Visibility) -> Self {
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
    /// Where in the order the copy goes on: behind the last row, or behind the last that was looked at.
    last: Option<Vec<String>>,
    /// Whether nothing of the table, or of its part, comes after that.
    is_last: bool,
    sight: Sight,
    until: Lsn,
}

impl Copier {
    /// One chunk, by the steps of the module's head.
    pub(super) async fn copy_chunk(&self, copying: &mut Copying) -> Result<Step, Failure> {
        if !self.await_rate(copying).await {
            return Ok(Step::Interrupted);
        }
        // What is in flight already comes first.
        self.budget.acquire(0).await;
        if !self.state().is_published(copying.oid) {
            return Ok(Step::Gone);
        }
        let described = match copying.described.take() {
            Some(described) => described,
            None => match self.describe(copying).await? {
                Ok(described) => described,
                Err(step) => return Ok(step),
            },
        };
        let encoding = match self.encoding(copying.oid).await? {
            Ok(encoding) => encoding,
            Err(step) => return Ok(step),
        };
        if copying.part.is_none() && copying.may_have_been_out(&described) {
            // What the stream has was read before, and is not to come behind what empties the topic.
            if let Some(over) = self.land_all(copying).await? {
                return Ok(over);
            }
            self.put_back(copying);
        }
        if !copying.go_by(&described) {
            return Ok(Step::Dissolve);
        }
        if copying.record.empties_first()
            && let Some(impossible) = self.empty_first(copying, &encoding).await?
        {
            return Ok(impossible);
        }
        self.choose_server(copying);
        let (window, opened) = self.open(copying, &described.key).await?;
        let read = match self.await_ready(copying, opened).await {
            Ok(Ok(ready)) => {
                let oid = copying.oid;
                let read = tokio::select! {
                    read = self.read(copying, &described, &encoding, ready) => Some(read),
                    () = self.stopping(oid) => None,
                };
                let Some(read) = read else {
                    self.give_up(&mut copying.reader).await;
                    self.request(Request::Abandon { window, snapshot: None }).await?;
                    return Ok(Step::Interrupted);
                };
                read
            }
            Ok(Err(waits)) => Ok(Err(waits)),
            Err(failure) => Err(failure),
        };
        let read = match read {
            Ok(Ok(read)) => {
                let fits = self.refuse_too_large(&mut copying.limits, encoding.plan.plan(), &read.batch).await;
                fits.map(|()| Ok(read))
            }
            other => other,
        };
        match read {
            Ok(Ok(read)) if copying.cannot_stop_at(read.last.as_ref()) => {
                self.request(Request::Abandon { window, snapshot: Some(read.sight.primary().clone()) }).await?;
                Ok(Step::Dissolve)
            }
            Ok(Ok(read)) => {
                copying.described = Some(described);
                self.hand_over(copying, window, read).await
            }
            Ok(Err(Waits { why, snapshot })) => {
                let ended = copying.reader.end().await;
                self.request(Request::Abandon { window, snapshot }).await?;
                ended?;
                Ok(Step::Again(why))
            }
            Err(failure) => {
                copying.reader.disconnect();
                self.request(Request::Abandon { window, snapshot: None }).await?;
                Err(failure)
            }
        }
    }

    /// The table was taken out of the publication and put back while it was copied, as [`forget_what_was_away`](Self::forget_what_was_away) has it of one that
    /// was copied before: its topic is emptied. And who has changed it while it was out may be running still.
    fn put_back(&self, copying: &mut Copying) {
        let TableRecord { schema, table, .. } = &copying.record;
        warn!(
            schema,
            table,
            "the table was taken out of publication {} and put back, or its rows are chosen otherwise, while it was copied: what was changed in between was not \
             streamed. Its rows are copied anew, behind a TRUNCATE event if its topic takes one",
            self.publication
        );
        copying.record = copying.record.put_back();
        copying.go_back();
        self.state().fence = None;
    }

    /// Waits until the table is to be stopped.
    pub(super) async fn stopping(&self, oid: Oid) {
        loop {
            let changed = self.changed.notified();
            if self.state().stopping.contains(&oid.into()) {
                return;
            }
            changed.await;
        }
    }

    /// Gives up what is being read. The server would go on with it, and hold the table's lock, until it had something to send.
    pub(super) async fn give_up(&self, reader: &mut RowReader) {
        let Some(backend_pid) = reader.disconnect() else { return };
        if let Err(failure) = self.asking_at(reader).lock().await.cancel(backend_pid).await {
            debug!(backend_pid, "a statement that is not waited for any more could not be ended: {failure}");
        }
    }

    /// What the table is like, and how its rows are told apart and ordered; or what there is to do besides. It holds for as long as each chunk's snapshot
    /// has the same fingerprint.
    async fn describe(&self, copying: &mut Copying) -> Result<Result<Described, Step>, Failure> {
        let (Found { table, fingerprint, .. }, key) = match self.describe_table(copying).await? {
            Ok(described) => described,
            Err(step) => return Ok(Err(step)),
        };
        Ok(match Way::of(&table, key) {
            Way::InOrder(key, order) => Ok(Described { table, order, key, fingerprint }),
            Way::AtOnce if copying.ahead.condition.is_some() => {
                let why = "some rows were asked for, and nothing tells the table's rows apart and gives them an order";
                Err(Step::Impossible(why.to_owned()))
            }
            Way::AtOnce => Err(Step::AtOnce),
            Way::None => Err(Step::Impossible(Way::WHY_NONE.to_owned())),
        })
    }

    /// What the table is like, with the columns that tell its rows apart, if any do.
    pub(super) async fn describe_table(
        &self,
        copying: &mut Copying,
    ) -> Result<Result<(Found, Option<RowKey>), Step>, Failure> {
        let oid = copying.oid;
        let mut relations = self.relations.lock().await;
        let Some(found) = self.look_up(&mut relations, oid).await? else { return Ok(Err(Step::Gone)) };
        let Found { table, rows_estimated, facts, .. } = &found;
        copying.ahead.schema.clone_from(&table.relation.schema);
        copying.ahead.table.clone_from(&table.relation.name);
        if let Some(part) = &copying.part {
            part.parts.name(&table.relation.schema, &table.relation.name);
        }
        self.state().estimate(oid, *rows_estimated);
        let key = RowKey::of(&table.relation, facts.primary_key.as_deref());
        let is_known = match relations.known.get(oid) {
            Some(Known::Watched(known)) => *known.relation() == table.relation && known.row_key == key,
            _ => false,
        };
        if !is_known {
            // The rows are those of now.
            relations.learn_now(table.relation.clone(), facts.clone()).await?;
        }
        Ok(Ok((found, key)))
    }

    /// How the table's rows are encoded now, if they are.
    pub(super) async fn encoding(&self, oid: Oid) -> Result<Result<Encoding, Step>, Failure> {
        let mut relations = self.relations.lock().await;
        let quarantine = Arc::clone(&relations.quarantine);
        let (plan, metrics) = match relations.get(oid)? {
            Known::Watched(known) if is_quarantined(&quarantine, known) => {
                let found = "the table is in quarantine: it is copied once it was released";
                return Err(Failure::new(Code::RegistryIncompatible, found));
            }
            Known::Watched(known) => (Arc::clone(&known.plan), known.metrics.clone()),
            Known::Unwatched => return Ok(Err(Step::Unwatched)),
            // The rows are those of now, of which the catalog says it.
            Known::Uncertain(_) => return Err(Failure::new(Code::Internal, "the key of now is not known")),
        };
        Ok(Ok(Encoding { plan, metrics }))
    }

    pub(super) fn next_window(&self) -> WindowId {
        let state = &mut *self.state();
        state.windows += 1;
        WindowId(state.windows)
    }

    async fn open(&self, copying: &Copying, key: &RowKey) -> Result<(WindowId, Opened), Failure> {
        let window = self.next_window();
        let (opened, answer) = oneshot::channel();
        let is_anew = copying.again.is_none() && copying.settles == Settles::AllBefore;
        let (table, key, behind) = (copying.oid, key.names().to_vec(), copying.behind);
        let part = copying.part.as_ref().map(|part| part.taken.id).unwrap_or_default();
        self.request(Request::Open { window, table, part, key, is_anew, behind, opened }).await?;
        Ok((window, answer.await.map_err(|_| session_over())?))
    }

    /// Waits for some time until everything has ended that was streamed before the window was opened, and returns the transaction id below which
    /// nothing may run.
    pub(super) async fn await_ended(&self, copying: &Copying, opened: Opened) -> Result<Result<u64, Waits>, Failure> {
        let fence = self.fence(opened.epoch, copying.look).await?;
        if opened.unnoted.is_empty() && copying.xmin >= fence {
            // The next snapshot sees no less than the last one.
            return Ok(Ok(fence));
        }
        let began = Instant::now();
        loop {
            let snapshot = self.asking.lock().await.current_snapshot().await?;
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
        encoding: &Encoding,
        ready: Ready,
    ) -> Result<Result<ReadChunk, Waits>, Failure> {
        let Described { table, order, key, fingerprint } = described;
        let Encoding { plan, metrics } = encoding;
        let taken = match self.take(copying, (table, fingerprint), ready).await? {
            Ok(taken) => taken,
            Err(waits) => return Ok(Err(waits)),
        };
        let waits = |why: &str| Waits { why: why.to_owned(), snapshot: Some(taken.sight.primary().clone()) };
        let began = Instant::now();
        let up_to = self.last_to_look_at(copying, table, order).await?;
        let statement = statement(copying, table, order, key, up_to.as_deref().or(copying.up_to()))?;
        let mut lines = copying.reader.copy(&statement).await?;
        let columns = |columns: usize| u16::try_from(columns).unwrap_or(u16::MAX);
        let (leading, columns) = (columns(order.columns.len()), columns(table.relation.columns.len()));
        let mut rows = CopyRows::new(leading.saturating_add(columns));
        let (mut batch, mut keys) = (RecordBatch::new(), Keys::default());
        let context = SnapshotContext::new(
            SnapshotKind::Incremental,
            taken.until,
            None,
            Timestamp::from_unix_micros(taken.at_unix_us),
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
        let fingerprint_after = if is_whole {
            copying.reader.end_and_look(copying.oid).await?
        } else {
            copying.reader.disconnect();
            let looked = self.asking_at(&copying.reader).lock().await.fingerprint(copying.oid).await;
            looked.map_err(|failure| self.failed_at(&copying.reader, failure))?
        };
        if fingerprint_after != *fingerprint {
            // Perhaps its name was another table's meanwhile, since a schema can be renamed without its lock.
            return Ok(Err(waits("the table was altered")));
        }
        if let (Some(again), false) = (&mut copying.again, is_whole) {
            // What was not read is not settled: fewer of them next time, the others after that.
            again.halve();
            return Ok(Err(waits("rows that are to be read again are too large to be read at once")));
        }
        if !taken.is_flushed {
            // Nobody flushes log without a commit in it, such as that of hint bits, for up to 15 s where nothing else happens; and what is not
            // flushed is not streamed. The commit of a transaction id is flushed soon, with all before it.
            self.asking.lock().await.assign_xid().await?;
        }
        let has_all = is_whole && rows_read < copying.chunk_rows;
        copying.adapt_scan(up_to.is_some() && has_all, began.elapsed(), self.settings.statement_timeout);
        Ok(Ok(ReadChunk {
            batch,
            keys,
            rows: rows_read,
            is_last: has_all && up_to.is_none(),
            // What was looked at need not be looked at again.
            last: if has_all { up_to.or_else(|| last.as_ref().map(texts)) } else { last.as_ref().map(texts) },
            sight: taken.sight,
            until: taken.until,
        }))
    }

    /// The last row that a chunk looks at, if only some rows are wanted: of these there may be few, and one statement, which has its time, would look at
    /// all rows for the next of them. It is in the same snapshot. None if there are no more rows than that.
    async fn last_to_look_at(
        &self,
        copying: &mut Copying,
        table: &SnapshotTable,
        order: &ReadOrder,
    ) -> Result<Option<Vec<String>>, Failure> {
        let wants_all = table.filter.is_none() && copying.ahead.condition.is_none();
        if wants_all || copying.again.is_some() {
            return Ok(None);
        }
        let after = copying.ahead.after.as_deref().map(place).transpose()?;
        let up_to = copying.up_to().map(place).transpose()?;
        let query = table.copy().place(order, after.as_ref(), up_to.as_ref(), copying.scan_rows as u64);
        let query = query.ok_or_else(no_key)?;
        copying.reader.first_row(&query).await
    }

    /// A column that can be null after all is made optional, as in the stream; anything else is for the operator.
    async fn encode_failed(&self, oid: Oid, error: &EncodeError) -> Result<Result<ReadChunk, Waits>, Failure> {
        let Some(column) = error.null_in_not_null() else { return Err(failures::of_encode(error)) };
        self.relations.lock().await.make_optional(oid, column).await?;
        Ok(Err(Waits { why: format!("column {column} has become optional"), snapshot: None }))
    }

    /// Hands a chunk to the stream.
    async fn hand_over(&self, copying: &mut Copying, window: WindowId, read: ReadChunk) -> Result<Step, Failure> {
        let ReadChunk { batch, keys, rows, last, is_last, sight, until } = read;
        let cost = batch.iter().map(|record| cost_of(&record)).sum::<usize>() + keys.cost_bytes();
        self.pay_rate(rows).await;
        let is_part = copying.part.is_some();
        let (then, last, rows_passed) = if let Some(again) = &copying.again {
            // What was read again has been passed already.
            let record = copying.record.clone();
            let end = (copying.is_read && !is_part).then(|| record.ended(unix_ms()));
            (Then { record, end, ends_part: false, settles: Settles::Rows(again.names.clone()) }, None, 0)
        } else {
            let record = copying.ahead.advanced(last.clone(), rows as u64, batch.bytes() as u64);
            copying.is_read = is_last;
            copying.chunk_rows = next_chunk_rows(copying.chunk_rows, rows, cost, self.chunk_cost_max / 4 * 3);
            if let Some(rows_max) = self.rows_at_rate() {
                // What is asked for meanwhile is not to wait for long.
                copying.chunk_rows = copying.chunk_rows.min(rows_max);
            }
            copying.ahead = record.clone();
            let end = (copying.is_read && !is_part).then(|| record.ended(unix_ms()));
            let settles = std::mem::replace(&mut copying.settles, Settles::Rows(Vec::new()));
            (Then { record, end, ends_part: copying.is_read && is_part, settles }, last, rows as u64)
        };
        let cursor = match &copying.part {
            None => Cursor::Whole(then.record.attachment(copying.oid), then.told()),
            Some(part) => Cursor::Part(Advance {
                parts: Arc::clone(&part.parts),
                id: part.taken.id,
                last,
                rows: rows_passed,
                bytes: if rows_passed > 0 { batch.bytes() as u64 } else { 0 },
                is_end: then.ends_part,
            }),
        };
        let charge = self.waiting.hold(cost).await;
        let (outcome, answer) = oneshot::channel();
        let chunk = Box::new(Chunk {
            batch,
            keys,
            cursor,
            end: then.end.as_ref().map(|end| Ending {
                record: end.attachment(copying.oid),
                told: Notice::of_table(Happened::TableCompleted, end),
            }),
            settles: then.settles.clone(),
            charge,
            outcome,
        });
        copying.behind = Some(window);
        copying.in_flight.push_back(InFlight { window, then, rows: rows as u64, answer });
        self.request(Request::Load { window, chunk, sight, until }).await?;
        Ok(Step::Sent)
    }
}

impl Copying {
    /// How many rows the next chunk looks at: more, if this one has found `few` and that was quick.
    fn adapt_scan(&mut self, few: bool, took: Duration, timeout: Duration) {
        self.scan_rows = match few {
            true if took < timeout / 8 => (self.scan_rows * 4).min(SCAN_ROWS_MAX),
            true => self.scan_rows,
            // What is looked at and not read is looked at again.
            false => self.scan_rows.min(self.chunk_rows * 2),
        };
    }

    /// Whether rows were copied before, and the table may have been out of the publication since.
    fn may_have_been_out(&self, described: &Described) -> bool {
        let has_rows = self.record.after.is_some() || self.record.rows > 0;
        let then = self.record.key.last().filter(|word| word.starts_with(MEMBER));
        has_rows && then.is_some_and(|then| may_have_been_out(then, &described.table.membership))
    }

    /// Where a row stands by another key than before says nothing. False if it is a part, which is none then.
    fn go_by(&mut self, described: &Described) -> bool {
        let columns = described.order.columns.iter().map(KeyColumn::words);
        let words = columns.chain(described.key.names().iter().cloned());
        let words: Vec<String> = words.chain([described.table.membership.clone()]).collect();
        let is_same = match (self.ahead.key.split_last(), words.split_last()) {
            // What was taken out of a publication and put back was not streamed in between.
            (Some((then, before)), Some((now, by))) => before == by && !may_have_been_out(then, now),
            _ => false,
        };
        if !is_same && self.part.is_some() {
            return false;
        }
        if is_same {
            self.ahead.key = words;
        } else {
            self.ahead.key = words;
            self.ahead.after = None;
            (self.ahead.rows, self.ahead.bytes) = (0, 0);
            self.again = None;
            self.is_read = false;
            self.settles = Settles::AllBefore;
            self.may_split = true;
        }
        true
    }
}

/// How the rows of a table can be copied.
pub(super) enum Way {
    /// Chunk after chunk: something tells them apart, and something gives them an order.
    InOrder(RowKey, ReadOrder),
    /// In one piece.
    AtOnce,
    /// Not at all: what tells them apart, and is the key of their records, is published in part.
    None,
}

impl Way {
    pub(super) const WHY_NONE: &'static str =
        "not all columns of its replica identity are published, so that several of its rows have the same key";

    pub(super) fn of(table: &SnapshotTable, key: Option<RowKey>) -> Self {
        let is_default = matches!(table.relation.replica_identity, ReplicaIdentity::Default | ReplicaIdentity::Index);
        match (key, &table.read_order) {
            _ if is_default && !table.has_identity => Self::None,
            (Some(key), Some(order)) => Self::InOrder(key, order.clone()),
            _ => Self::AtOnce,
        }
    }
}

/// What the records will cost, without their headers.
pub(super) fn estimated_cost(batch: &RecordBatch) -> usize {
    batch.bytes() + batch.len() * RECORD_OVERHEAD_BYTES
}

/// All are counted, and the topic has the reason of each.
pub(super) fn tell_dead_letter(plan: &BoundPlan, metrics: &TableMetrics, error: &EncodeError) {
    if metrics.bury() {
        let topic = plan.plan().dead_letter_topic().map_or("", |topic| &**topic);
        warn!(table = plan.plan().table(), topic, "a row became a dead letter, the first of its table: {error}");
    }
}

/// Whether the stream has put the table into quarantine, before or after its plan was made here.
fn is_quarantined(quarantine: &Mutex<Quarantine>, table: &Table) -> bool {
    let quarantine = quarantine.lock().unwrap_or_else(PoisonError::into_inner);
    table.plan.holds_back() || quarantine.get(table.plan.plan().topic()).is_some()
}
