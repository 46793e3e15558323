//! How a table is copied whose rows nothing tells apart, or that cannot be read in the order of its key: at once, in one snapshot.
//!
//! What that is for, and why it is right, is in [`AtOnce`](crate::snapshot::AtOnce). The steps of one copy, whose order is the argument:
//!
//! 1. the catalog says what the table is like; where its topic cannot be told that it is empty, nothing is begun that could be left half done;
//! 2. the checkpoint says that the table is owed a copy, and from here on the stream leaves its changes out;
//! 3. whether the topic holds anything is looked at: nothing is on its way to it any more;
//! 4. the stream is told that a snapshot is being taken, and waits if it comes to a change of the table;
//! 5. a transaction begins, takes the lock of a SELECT, and its snapshot; the log's end is asked for. If somebody runs who may have been left
//!    out, all of it is given up, and tried again from 4;
//! 6. one COPY gives all rows, those of partitions included, as fast as they are taken: so there is no second statement that could begin
//!    elsewhere than the first has ended, as there would be with ranges of `ctid`, and no leaf that could come or go in between. Every few
//!    thousand rows the stream writes them, the first ones behind an event that the table was emptied where 3 says so;
//! 7. before the last ones, the transaction ends, and it is looked at whether the table is still as it was described;
//! 8. the copy is over once the stream has passed the log's end of 5.
//!
//! Whatever goes wrong, or whoever pauses it: the snapshot is lost, and the copy begins anew.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use encoder::{Encoded, RecordBatch, SnapshotContext, SnapshotKind};
use pgoutput::{CopyRows, Oid, Timestamp, Tuple};
use tokio::{
    sync::oneshot::{self, Receiver},
    time::sleep,
};
use tracing::{debug, info, warn};
use walreceiver::Backoff;

use super::{
    Copier,
    ahead::Found,
    chunk::{CHUNK_ROWS_MAX, Encoding, Waits, Way, estimated_cost, tell_dead_letter},
    emptying::emptied,
    session_over,
    table::{Copying, FAILURES_MAX, PAUSE_FIRST, PAUSE_MAX, REMINDER_INTERVAL, Step, words},
};
use crate::{
    catalog::{Lines, RowReader, SnapshotTable},
    failure::{Code, Failure, Recovery},
    failures,
    pipeline::{
        publish::{unix_ms, unix_ns},
        work::cost_of,
    },
    snapshot::{Ending, Happened, Notice, Outcome, Request, Rows, Shape, TableRecord, WindowId},
};

/// A copy that is being made.
struct Whole<'a> {
    window: WindowId,
    table: &'a SnapshotTable,
    fingerprint: &'a str,
    encoding: Encoding,
    /// Whether it is to be said before that the table was empty.
    is_emptied_first: bool,
}

/// What is read, row after row.
struct Reading {
    lines: Lines,
    rows: CopyRows,
    context: SnapshotContext,
}

impl Copier {
    /// Ends as `copy_chunks` does.
    pub(super) async fn copy_at_once(&self, copying: &mut Copying) -> Result<Step, Failure> {
        // One statement takes as long as all rows take; who waits for the table's lock waits for that.
        copying.reader = RowReader::new(Arc::clone(&self.connect), Duration::ZERO);
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        let (mut failures, began, mut is_dirty) = (0, Instant::now(), false);
        loop {
            self.await_permission(copying).await?;
            if self.state().stopping.contains(&copying.oid.into()) {
                return Ok(Step::Stopped);
            }
            let step = self.try_at_once(copying, &mut is_dirty).await;
            if !matches!(step, Ok(Step::Done)) {
                copying.reader.disconnect();
            }
            let TableRecord { schema, table, .. } = &copying.ahead;
            match step {
                Ok(Step::Interrupted) => continue,
                Ok(Step::Again(why)) => {
                    if began.elapsed() >= REMINDER_INTERVAL {
                        warn!(schema, table, "the table's copy does not get on: {why}");
                        return Ok(Step::Again(why));
                    }
                    debug!(schema, table, "a copy at once is to begin anew: {why}");
                }
                Ok(step) => return Ok(step),
                Err(failure) => {
                    failures += 1;
                    // What has come so far would come so far again: others first.
                    if is_dirty || failures >= FAILURES_MAX || failure.code().recovery() == Recovery::Stop {
                        return Err(failure.in_table(schema, table));
                    }
                    debug!("a copy at once could not begin: {failure}");
                }
            }
            sleep(backoff.next_wait()).await;
        }
    }

    /// One copy from its beginning, by the steps of the module's head. `is_dirty` is set once rows are written that a next one has to take out.
    async fn try_at_once(&self, copying: &mut Copying, is_dirty: &mut bool) -> Result<Step, Failure> {
        if !self.state().is_published(copying.oid) {
            return Ok(Step::Gone);
        }
        let (Found { table, facts, fingerprint, .. }, key) = match self.describe_table(copying).await? {
            Ok(described) => described,
            Err(step) => return Ok(step),
        };
        let shape = Shape::new(&table.relation, &facts);
        if matches!(Way::of(&table, key), Way::None) {
            return Ok(Step::Impossible(Way::WHY_NONE.to_owned()));
        }
        let encoding = match self.encoding(copying.oid).await? {
            Ok(encoding) => encoding,
            Err(step) => return Ok(step),
        };
        if let Some(why) = self.unfit(&encoding).await? {
            return Ok(Step::Impossible(why));
        }
        self.owe(copying, shape, &table.membership).await?;
        let is_emptied_first = self.holds_anything(&encoding, *is_dirty).await?;
        let window = self.next_window();
        let whole = Whole { window, table: &table, fingerprint: &fingerprint, encoding, is_emptied_first };
        let outcome = self.read_at_once(copying, whole, is_dirty).await;
        if !matches!(outcome, Ok(Step::Done)) {
            self.request(Request::Abandon { window, snapshot: None }).await?;
        }
        outcome
    }

    /// Why the topic cannot take a copy that may have to begin anew; none if it can.
    async fn unfit(&self, encoding: &Encoding) -> Result<Option<String>, Failure> {
        let found = |obstacle| {
            format!(
                "nothing tells its rows apart and gives them an order, so that it is copied in one piece, which begins anew behind a TRUNCATE whenever \
                 it is interrupted, {obstacle}"
            )
        };
        Ok(self.obstacle(encoding, true).await?.map(found))
    }

    /// The checkpoint says that the table is owed a copy, and the stream knows it. What was copied in another way, or before, counts no more.
    async fn owe(&self, copying: &mut Copying, shape: Shape, membership: &str) -> Result<(), Failure> {
        let record = copying.ahead.clone().owed().described(shape, membership);
        let (committed, waiting) = oneshot::channel();
        let attachment = record.attachment(copying.oid);
        self.request(Request::Owe { table: copying.oid, record: attachment, committed }).await?;
        waiting.await.map_err(|_| session_over())?;
        self.state().progress.tables.insert(copying.oid.into(), record.clone());
        (copying.ahead, copying.record) = (record.clone(), record);
        Ok(())
    }

    async fn read_at_once(
        &self,
        copying: &mut Copying,
        mut whole: Whole<'_>,
        is_dirty: &mut bool,
    ) -> Result<Step, Failure> {
        let (oid, window) = (copying.oid, whole.window);
        let relation = &whole.table.relation;
        let (opened, answer) = oneshot::channel();
        self.request(Request::Take { window, table: oid, opened }).await?;
        let (epoch, unnoted) = answer.await.map_err(|_| session_over())?;
        let fence = self.fence(epoch, copying.look).await?;
        let taken = copying.reader.begin(&relation.schema, &relation.name, oid).await?;
        if taken.fingerprint != *whole.fingerprint {
            return Ok(Step::Again("the table was altered".to_owned()));
        }
        let has_ended = |xid| taken.visibility.has_ended(xid);
        if taken.visibility.xmin() < fence || !unnoted.iter().copied().all(has_ended) {
            return Ok(Step::Again(Waits::for_transactions(taken.visibility).why));
        }
        let (accepted, answer) = oneshot::channel();
        let (snapshot, until) = (taken.visibility, taken.insert_lsn);
        self.request(Request::Taken { window, snapshot, until, accepted }).await?;
        if !taken.is_flushed {
            // As for a chunk: what is not flushed is not streamed.
            self.asking.lock().await.assign_xid().await?;
        }
        let taken_at = Timestamp::from_unix_micros(taken.taken_unix_us);
        let mut reading = Reading {
            lines: copying.reader.copy(&whole.table.copy().of_all()).await?,
            rows: CopyRows::new(u16::try_from(relation.columns.len()).unwrap_or(u16::MAX)),
            context: SnapshotContext::new(SnapshotKind::Incremental, until, None, taken_at),
        };
        let (mut answer, mut sent, mut is_first) = (Some(answer), None, true);
        loop {
            // What is in flight already comes first.
            self.budget.acquire(0).await;
            if self.settings.rows_per_second.is_some()
                && let Some(spoilt) = self.landed(copying, sent.take()).await?
            {
                return Ok(spoilt);
            }
            if !self.await_rate(copying).await || self.must_pause(oid) {
                return Ok(Step::Interrupted);
            }
            if !self.state().is_published(oid) {
                return Ok(Step::Gone);
            }
            let (batch, rows, is_last) = self.read_rows(oid, &mut whole, &mut reading).await?;
            self.refuse_too_large(&mut copying.limits, whole.encoding.plan.plan(), &batch).await?;
            if is_last && copying.reader.end_and_look(oid).await? != *whole.fingerprint {
                return Ok(Step::Again("the table was altered".to_owned()));
            }
            // The stream may be busy; rows were read meanwhile.
            if let Some(Err(why)) = wait_for(answer.take()).await? {
                return Ok(Step::Again(words(why).to_owned()));
            }
            if let Some(spoilt) = self.landed(copying, sent.take()).await? {
                return Ok(spoilt);
            }
            self.pay_rate(rows).await;
            let record = copying.ahead.advanced(None, rows as u64, batch.bytes() as u64);
            *is_dirty = true;
            let is_emptied_first = std::mem::take(&mut whole.is_emptied_first);
            let emptied = is_emptied_first.then(|| emptied(&whole.encoding, &reading.context));
            let emptied = emptied.transpose()?;
            let happened = if is_first { Happened::Started } else { Happened::InProgress };
            let ended = is_last.then(|| record.ended(unix_ms()));
            copying.ahead = record;
            let (outcome, written) = oneshot::channel();
            let request = Rows {
                emptied,
                charge: self.waiting_at_once.hold(batch.iter().map(|record| cost_of(&record)).sum()).await,
                batch,
                cursor: copying.ahead.attachment(oid),
                told: Notice::of_table(happened, &copying.ahead),
                end: ended.as_ref().map(|ended| Ending {
                    record: ended.attachment(oid),
                    told: Notice::of_table(Happened::TableCompleted, ended),
                }),
                outcome,
            };
            self.request(Request::Rows { window, rows: Box::new(request) }).await?;
            let rows_sent = Sent { record: copying.ahead.clone(), rows: rows as u64, is_first };
            is_first = false;
            let Some(ended) = ended else {
                sent = Some((rows_sent, written));
                continue;
            };
            return self.await_end(copying, window, (rows_sent, written), ended).await;
        }
    }

    /// Some of the next rows, how many there were, and whether they are the last ones.
    async fn read_rows(
        &self,
        oid: Oid,
        whole: &mut Whole<'_>,
        reading: &mut Reading,
    ) -> Result<(RecordBatch, usize, bool), Failure> {
        let rows_max = self.rows_at_rate().unwrap_or(CHUNK_ROWS_MAX).min(CHUNK_ROWS_MAX);
        let (mut batch, mut rows) = (RecordBatch::new(), 0);
        while rows < rows_max && estimated_cost(&batch) < self.chunk_cost_max {
            let Some(line) = reading.lines.next().await? else { return Ok((batch, rows, true)) };
            if line.len() > self.row_bytes_max {
                let found = format!("a row of {} bytes is more than a quarter of memory_limit", line.len());
                return Err(Failure::new(Code::RowTooLarge, found));
            }
            let row = reading.rows.decode(&line).map_err(|error| Failure::caused(Code::ProtocolViolation, error))?;
            self.encode_row(oid, whole, &row, &reading.context, &mut batch).await?;
            rows += 1;
        }
        Ok((batch, rows, false))
    }

    async fn encode_row(
        &self,
        oid: Oid,
        whole: &mut Whole<'_>,
        row: &Tuple,
        context: &SnapshotContext,
        batch: &mut RecordBatch,
    ) -> Result<(), Failure> {
        loop {
            let Encoding { plan, metrics } = &whole.encoding;
            let error = match plan.encode_read(row, context, unix_ns(), batch) {
                Ok(Encoded::DeadLetter(error)) => {
                    tell_dead_letter(plan, metrics, &error);
                    return Ok(());
                }
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            // A column that can be null after all is made optional, as in the stream; anything else is for the operator.
            let Some(column) = error.null_in_not_null() else { return Err(failures::of_encode(&error)) };
            self.relations.lock().await.make_optional(oid, column).await?;
            whole.encoding = match self.encoding(oid).await? {
                Ok(encoding) => encoding,
                Err(_) => return Err(Failure::new(Code::Internal, "the table is not watched any more")),
            };
        }
    }

    pub(super) fn must_pause(&self, oid: Oid) -> bool {
        let state = self.state();
        state.progress.is_paused || state.stopping.contains(&oid.into())
    }

    /// Hears what became of rows; some if they were not written.
    async fn landed(
        &self,
        copying: &mut Copying,
        sent: Option<(Sent, Receiver<Outcome>)>,
    ) -> Result<Option<Step>, Failure> {
        let Some((sent, written)) = sent else { return Ok(None) };
        let outcome = written.await.map_err(|_| session_over())?;
        Ok(self.note_outcome(copying, sent, &outcome))
    }

    fn note_outcome(&self, copying: &mut Copying, sent: Sent, outcome: &Outcome) -> Option<Step> {
        if let Outcome::Spoilt(why) = outcome {
            return Some(Step::Again(words(*why).to_owned()));
        }
        let Sent { record, rows, is_first } = sent;
        self.metrics.copied(rows, 0);
        if is_first {
            info!(schema = record.schema, table = record.table, "copying the table at once");
        }
        self.state().progress.tables.insert(copying.oid.into(), record.clone());
        copying.record = record;
        None
    }

    /// Waits until the stream has passed the snapshot, or somebody stops the copy.
    async fn await_end(
        &self,
        copying: &mut Copying,
        window: WindowId,
        (sent, mut written): (Sent, Receiver<Outcome>),
        ended: TableRecord,
    ) -> Result<Step, Failure> {
        let outcome = loop {
            let changed = self.changed.notified();
            if self.state().stopping.contains(&copying.oid.into()) {
                self.request(Request::Abandon { window, snapshot: None }).await?;
                // It may have come to its end just before.
                match written.await {
                    Ok(outcome) => break outcome,
                    Err(_abandoned) => return Ok(Step::Interrupted),
                }
            }
            tokio::select! {
                outcome = &mut written => break outcome.map_err(|_| session_over())?,
                () = changed => {}
            }
        };
        if let Some(spoilt) = self.note_outcome(copying, sent, &outcome) {
            return Ok(spoilt);
        }
        info!(schema = ended.schema, table = ended.table, rows = ended.rows, "the table is copied");
        self.state().progress.tables.insert(copying.oid.into(), ended.clone());
        copying.record = ended;
        Ok(Step::Done)
    }
}

/// Rows that the stream has.
struct Sent {
    /// As of them.
    record: TableRecord,
    rows: u64,
    is_first: bool,
}

async fn wait_for<T>(answer: Option<Receiver<T>>) -> Result<Option<T>, Failure> {
    match answer {
        Some(answer) => answer.await.map(Some).map_err(|_| session_over()),
        None => Ok(None),
    }
}
