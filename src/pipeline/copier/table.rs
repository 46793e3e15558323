//! How one table is copied: chunk after chunk, until none is left.
//!
//! While the stream has a chunk, the next one is read already, so that a copy does not wait for the stream after each. What it knows of the table
//! is twice there for that: as of the last chunk that was written ([`Copying::record`]), and as of the last one that was read
//! ([`Copying::ahead`]). The stream writes a chunk only behind the one that it was read behind; so if one is not written, those
//! that were read after it are not either, and the copy goes back to what is written.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use pgoutput::{Lsn, Oid};
use tokio::{
    sync::oneshot::{Receiver, error::TryRecvError},
    time::sleep,
};
use tracing::{debug, info, warn};
use walreceiver::Backoff;

use super::{Copier, chunk::Described, limits::Limits, parts::OfPart, session_over, state::End};
use crate::{
    catalog::RowReader,
    failure::{Code, Failure, Recovery},
    pipeline::publish::unix_ms,
    snapshot::{By, Happened, Left, Notice, Outcome, Request, Settles, Spoilt, TableRecord, WindowId},
};

/// How many rows the first chunk of a table has, whose rows may be of any size.
const FIRST_CHUNK_ROWS: usize = 500;
/// How many chunks of a table the stream may have at a time, and how many of each part of one: every window notes the keys of the whole table, and those of
/// other parts keep the stream busy meanwhile.
const IN_FLIGHT_MAX: usize = 4;
const IN_FLIGHT_MAX_OF_PART: usize = 2;
/// A chunk that fails as often in a row leaves its table for later.
pub(super) const FAILURES_MAX: u32 = 10;
/// The pauses before a chunk is read again.
pub(super) const PAUSE_FIRST: Duration = Duration::from_millis(100);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often it is said that a table's copy does not get on. Others have their turn then.
pub(super) const REMINDER_INTERVAL: Duration = Duration::from_secs(30);

/// A table that is being copied, or a part of it.
pub(super) struct Copying {
    pub(super) oid: Oid,
    /// Who copies it, and since which look it is there.
    pub(super) worker: usize,
    pub(super) look: u64,
    pub(super) reader: RowReader,
    /// What the table is like, for as long as it is.
    pub(super) described: Option<Described>,
    /// Below it, nothing ran in the last snapshot.
    pub(super) xmin: u64,
    /// A fence, and an end of the log that was asked for once nothing ran below it.
    pub(super) passed: Option<(u64, Lsn)>,
    /// If it is one: the records have its place then, and end where it does.
    pub(super) part: Option<OfPart>,
    /// Whether it is still to be seen whether to share it.
    pub(super) may_split: bool,
    /// Whether it was said that it is copied.
    is_told: bool,
    /// As of the last chunk that is written.
    pub(super) record: TableRecord,
    /// As of the last chunk that was read.
    pub(super) ahead: TableRecord,
    /// Whether that was the last one of the table, or the part.
    pub(super) is_read: bool,
    /// What the stream has, in order.
    pub(super) in_flight: VecDeque<InFlight>,
    /// Whether the stream was told to give that up.
    is_abandoned: bool,
    /// What the next chunk comes behind.
    pub(super) behind: Option<WindowId>,
    pub(super) chunk_rows: usize,
    /// How many rows a chunk looks at for some that are wanted.
    pub(super) scan_rows: usize,
    /// What is to be read again before the copy goes on, once it is known what became of all chunks.
    pub(super) left: Option<Left>,
    /// Rows that are to be read again now.
    pub(super) again: Option<Again>,
    /// What the next chunk settles.
    pub(super) settles: Settles,
    /// How large its records may be, once that was asked.
    pub(super) limits: Option<Limits>,
}

/// Rows that are to be read again, with what they are remembered under.
pub(super) struct Again {
    pub(super) keys: Vec<Vec<String>>,
    pub(super) names: Vec<String>,
}

/// A chunk that the stream has.
pub(super) struct InFlight {
    pub(super) window: WindowId,
    pub(super) then: Then,
    pub(super) rows: u64,
    pub(super) answer: Receiver<Outcome>,
}

/// What is written of a copy with a chunk.
#[derive(Clone)]
pub(super) struct Then {
    pub(super) record: TableRecord,
    /// Whether nothing comes after the chunk, and what the record is then.
    pub(super) end: Option<TableRecord>,
    /// Whether nothing of its part comes after the chunk.
    pub(super) ends_part: bool,
    pub(super) settles: Settles,
}

impl Then {
    /// What is told when it is written, of a table with one cursor.
    pub(super) fn told(&self) -> Notice {
        let happened = if self.settles == Settles::AllBefore { Happened::Started } else { Happened::InProgress };
        Notice::of_table(happened, &self.record)
    }
}

/// What a turn at a table has come to.
pub(super) enum Step {
    /// A chunk was handed to the stream.
    Sent,
    /// Nothing was read, since somebody has asked for something.
    Interrupted,
    /// A chunk is written.
    Written,
    /// A chunk is to be read again, for a reason that passes.
    Again(String),
    /// It may be that others can share the table's rows.
    Split,
    /// A part is copied to its end.
    PartOver,
    /// A helper is to give its part back.
    Yielded,
    /// The table cannot be copied in parts.
    Dissolve,
    Done,
    /// The table is not streamed any more.
    Gone,
    /// It is published, and not asked for.
    Unwatched,
    /// It has to be copied at once.
    AtOnce,
    /// There is no way to copy it, for this reason.
    Impossible(String),
    /// Somebody has asked to stop it.
    Stopped,
}

impl Again {
    /// Leaves the second half for another time.
    pub(super) fn halve(&mut self) {
        self.keys.truncate(self.keys.len().div_ceil(2));
        self.names.truncate(self.keys.len());
    }
}

impl Copying {
    /// A turn at a table, with somebody's connection.
    pub(super) fn new(
        copier: &Copier,
        oid: Oid,
        (worker, look): (usize, u64),
        reader: &mut RowReader,
        record: TableRecord,
    ) -> Self {
        Self {
            oid,
            worker,
            look,
            reader: std::mem::replace(reader, copier.reader()),
            described: None,
            xmin: 0,
            passed: None,
            part: None,
            may_split: true,
            is_told: false,
            ahead: record.clone(),
            record,
            is_read: false,
            in_flight: VecDeque::new(),
            is_abandoned: false,
            behind: None,
            chunk_rows: copier.rows_at_rate().map_or(FIRST_CHUNK_ROWS, |rows| rows.min(FIRST_CHUNK_ROWS)),
            scan_rows: FIRST_CHUNK_ROWS,
            left: None,
            again: None,
            settles: Settles::Rows(Vec::new()),
            limits: None,
        }
    }

    /// Goes on behind what is written.
    pub(super) fn go_back(&mut self) {
        self.ahead = self.record.clone();
        self.is_read = false;
        self.behind = None;
    }

    /// Takes up what is to be read again, once the stream has nothing of the table.
    fn take_left(&mut self) -> Option<Step> {
        match self.left.take()? {
            Left::Rows(rows) => {
                let (names, keys) = rows.into_iter().unzip();
                self.again = Some(Again { keys, names });
            }
            Left::All => {
                let TableRecord { schema, table, .. } = &self.record;
                warn!(schema, table, "so many keys of the table have changed that it is copied once more");
                self.record.after = None;
                self.go_back();
                self.settles = Settles::AllBefore;
                self.may_split = true;
            }
        }
        // Not at once: what could not be read in one piece may change all the time.
        Some(Step::Again("rows change all the time of which updates leave out values".to_owned()))
    }
}

impl Copier {
    /// Why a worker ends its turn that is one too many.
    pub(super) const FEWER: &'static str = "copies have fewer connections, as somebody has asked";

    /// A turn at a table. The connection is free again afterwards, or gone.
    pub(super) async fn copy_table(
        &self,
        oid: Oid,
        (worker, look): (usize, u64),
        reader: &mut RowReader,
    ) -> Result<End, Failure> {
        let held = self.state().progress.tables.get(&u32::from(oid)).cloned();
        let is_resumed = held.is_some();
        let record = held.unwrap_or_else(|| TableRecord::new("", "", Vec::new(), unix_ms()));
        let mut copying = Copying::new(self, oid, (worker, look), reader, record);
        let ended = self.take_turn(&mut copying, is_resumed).await;
        *reader = copying.reader;
        // Another turn describes it anew.
        self.relations.lock().await.known.let_go(oid);
        ended
    }

    async fn take_turn(&self, copying: &mut Copying, is_resumed: bool) -> Result<End, Failure> {
        let oid = copying.oid;
        // What is owed is copied so, whether it has got a key meanwhile or not.
        let is_owed = copying.record.is_owed();
        let ended = if is_owed { Ok(Step::AtOnce) } else { self.copy_in_order(copying, is_resumed).await };
        let mut ended = self.let_go(copying, ended).await;
        if matches!(ended, Ok(Step::AtOnce)) {
            ended = self.copy_at_once(copying).await;
            // The connection was one for that.
            copying.reader.disconnect();
            copying.reader = self.reader();
        }
        match ended? {
            Step::Gone => {
                // What is owed is copied from its first row on in any case, and nothing else would have it copied.
                if copying.record.is_owed() && self.state().is_back(oid) {
                    return Ok(End::NextTurn("it was taken out of the publication and put back".to_owned()));
                }
                // Of one that has rows in Kafka it is told when it is left.
                if !self.state().progress.tables.contains_key(&oid.into()) {
                    let TableRecord { schema, table, .. } = &copying.ahead;
                    info!(schema, table, "the table is not copied, for it is not streamed");
                }
                self.leave(oid).await?;
                Ok(End::Gone)
            }
            Step::Impossible(why) => {
                let is_news = self.tell_impossible(copying, &why);
                // It may have had a key when its copy began; what somebody has asked for stays as it was asked, and so does what its topic needs.
                let is_forgettable = |record: &TableRecord| !record.asked && !record.empties_first();
                let is_forgotten = self.state().progress.tables.get(&oid.into()).is_some_and(is_forgettable);
                if is_forgotten {
                    self.forget(oid, None).await?;
                }
                Ok(End::Impossible { why, is_news })
            }
            Step::Unwatched => {
                let TableRecord { schema, table, .. } = &copying.ahead;
                info!(schema, table, "the table is published and not asked for: it is not copied");
                let is_forgettable = |record: &TableRecord| !record.empties_first();
                let is_forgotten = self.state().progress.tables.get(&oid.into()).is_some_and(is_forgettable);
                if is_forgotten {
                    self.forget(oid, None).await?;
                }
                Ok(End::Unwatched)
            }
            Step::Again(why) => Ok(End::NextTurn(why)),
            Step::Done => Ok(End::Done),
            Step::AtOnce
            | Step::Stopped
            | Step::Sent
            | Step::Written
            | Step::Interrupted
            | Step::Split
            | Step::PartOver
            | Step::Yielded
            | Step::Dissolve => Ok(End::Over),
        }
    }

    /// Has the stream give up what it did not write yet. It may be far behind the chunks, and who stops a table is not to wait for that.
    pub(super) async fn abandon(&self, copying: &mut Copying) -> Result<(), Failure> {
        copying.is_abandoned = true;
        for InFlight { window, .. } in &copying.in_flight {
            self.request(Request::Abandon { window: *window, snapshot: None }).await?;
        }
        Ok(())
    }

    /// Hears what became of every chunk that the stream has; the last one may have been the last of the table, or of the part.
    pub(super) async fn land_all(&self, copying: &mut Copying) -> Result<Option<Step>, Failure> {
        while !copying.in_flight.is_empty() {
            if let Some(over @ (Step::Done | Step::PartOver)) = self.land(copying, true).await? {
                return Ok(Some(over));
            }
        }
        Ok(None)
    }

    /// Ends with one of the last steps, or with [`Step::Again`] if others are to have their turn.
    pub(super) async fn copy_chunks(&self, copying: &mut Copying, is_resumed: bool) -> Result<Step, Failure> {
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        let (mut failures, mut progressed_at) = (0, Instant::now());
        loop {
            match self.await_permission(copying).await? {
                Some(over @ (Step::Done | Step::PartOver)) => return Ok(over),
                Some(_) => progressed_at = Instant::now(),
                None => {}
            }
            if self.state().stopping.contains(&copying.oid.into()) {
                return Ok(Step::Stopped);
            }
            if self.must_yield(copying) {
                return Ok(Step::Yielded);
            }
            if self.state().is_beyond(copying.worker) {
                return Ok(Step::Again(Self::FEWER.to_owned()));
            }
            let step = match self.land(copying, false).await {
                Ok(None) => self.copy_chunk(copying).await,
                Ok(Some(step)) => Ok(step),
                Err(failure) => Err(failure),
            };
            let TableRecord { schema, table, .. } = &copying.ahead;
            match step {
                Ok(
                    step @ (Step::Done
                    | Step::Split
                    | Step::PartOver
                    | Step::Yielded
                    | Step::Dissolve
                    | Step::Gone
                    | Step::Unwatched
                    | Step::AtOnce
                    | Step::Impossible(_)
                    | Step::Stopped),
                ) => {
                    return Ok(step);
                }
                Ok(Step::Sent | Step::Interrupted) => continue,
                Ok(Step::Written) => {
                    let is_news = copying.part.as_ref().is_none_or(|part| part.by == By::Lead);
                    if is_news && !std::mem::replace(&mut copying.is_told, true) {
                        info!(schema, table, is_resumed, rows = copying.record.rows, "copying the table");
                    }
                    if self.may_split(copying) {
                        return Ok(Step::Split);
                    }
                    (failures, progressed_at) = (0, Instant::now());
                    backoff.reset();
                    continue;
                }
                Ok(Step::Again(why)) => {
                    if progressed_at.elapsed() >= REMINDER_INTERVAL {
                        warn!(schema, table, "the table's copy does not get on: {why}");
                        return Ok(Step::Again(why));
                    }
                }
                Err(failure) => {
                    copying.reader.disconnect();
                    failures += 1;
                    // To wait for a standby once more would be to wait as long.
                    let is_of_standby = matches!(failure.code(), Code::StandbyUnfit | Code::StandbyBehind);
                    if failures >= FAILURES_MAX || is_of_standby || failure.code().recovery() == Recovery::Stop {
                        return Err(failure.in_table(schema, table));
                    }
                    debug!("a chunk could not be read: {failure}");
                    // It may have been too much for one statement.
                    copying.chunk_rows = (copying.chunk_rows / 2).max(1);
                    copying.scan_rows = (copying.scan_rows / 2).max(1);
                }
            }
            sleep(backoff.next_wait()).await;
        }
    }

    /// Waits while copying is paused, holding nothing. Some if it was; what was in flight may have been the last of the table.
    pub(super) async fn await_permission(&self, copying: &mut Copying) -> Result<Option<Step>, Failure> {
        let mut was_paused = None;
        loop {
            let changed = self.changed.notified();
            {
                let state = self.state();
                let is_wanted_back = copying.part.as_ref().is_some_and(|part| part.parts.are_closed());
                if !state.progress.is_paused || state.stopping.contains(&copying.oid.into()) || is_wanted_back {
                    return Ok(was_paused);
                }
            }
            if was_paused.is_none() {
                if let Some(done) = self.land_all(copying).await? {
                    return Ok(Some(done));
                }
                copying.reader.disconnect();
                was_paused = Some(Step::Interrupted);
                // Somebody may have said so meanwhile.
                continue;
            }
            changed.await;
        }
    }

    /// Says it once; whether it was said now.
    fn tell_impossible(&self, copying: &Copying, why: &str) -> bool {
        let is_news = self.state().is_found_impossible(copying.oid);
        if is_news {
            let TableRecord { schema, table, .. } = &copying.ahead;
            let failure = Failure::new(Code::SnapshotImpossible, why).in_table(schema, table);
            self.metrics.copy_failed(&failure);
            let outcome = if copying.ahead.is_owed() {
                "and its changes are left out until they are"
            } else {
                "and its changes are streamed all the same"
            };
            warn!(
                code = failure.code().as_str(),
                schema, table, "the rows of the table from before it was streamed are not copied, {outcome}: {failure}"
            );
        }
        is_news
    }

    /// Hears what became of the oldest chunk that the stream has; waits for it if nothing is to be read before, or `must_wait` says so.
    /// None if there is something to be read first.
    async fn land(&self, copying: &mut Copying, must_wait: bool) -> Result<Option<Step>, Failure> {
        // A table that is described anew may have another key, by which a copy begins anew.
        let is_ready_to_read =
            !copying.is_read && copying.left.is_none() && copying.again.is_none() && copying.described.is_some();
        let in_flight_max = if copying.part.is_some() { IN_FLIGHT_MAX_OF_PART } else { IN_FLIGHT_MAX };
        let must_wait = must_wait || !is_ready_to_read || copying.in_flight.len() >= in_flight_max;
        let Some(oldest) = copying.in_flight.front_mut() else { return Ok(copying.take_left()) };
        let outcome = if must_wait {
            hear(&mut oldest.answer, copying.is_abandoned).await?
        } else {
            match oldest.answer.try_recv() {
                Ok(outcome) => outcome,
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Closed) => return Err(session_over()),
            }
        };
        let Some(InFlight { then, rows, .. }) = copying.in_flight.pop_front() else { return Ok(None) };
        match outcome {
            Outcome::Written { superseded, left } => {
                self.metrics.copied(rows, superseded);
                copying.again = None;
                let ended = then.end.clone().filter(|_| left.is_none());
                let is_over = ended.is_some();
                copying.record = ended.unwrap_or(then.record);
                self.keep_record(copying);
                // That so many have changed is for the end to mend.
                copying.left = left.filter(|left| then.end.is_some() || *left != Left::All);
                if let Some(part) = &copying.part
                    && (then.ends_part || part.by == By::Helper)
                    && copying.left.take().is_some()
                {
                    // They are the table's, and one at a time reads them: what hears of them next has the newest list.
                    part.parts.have_moved_rows();
                }
                if then.ends_part {
                    return Ok(Some(Step::PartOver));
                }
                if is_over {
                    let TableRecord { schema, table, rows, .. } = &copying.record;
                    info!(schema, table, rows, "the table is copied");
                }
                Ok(Some(if is_over { Step::Done } else { Step::Written }))
            }
            Outcome::Spoilt(why) => {
                // None is written that was read behind it.
                for mut other in copying.in_flight.drain(..) {
                    hear(&mut other.answer, copying.is_abandoned).await?;
                }
                copying.described = None;
                copying.behind = None;
                if copying.again.is_none() {
                    copying.settles = then.settles;
                    copying.go_back();
                }
                Ok(Some(Step::Again(words(why).to_owned())))
            }
        }
    }
}

/// What became of a chunk. One that is given up was not written, and nothing behind it.
async fn hear(answer: &mut Receiver<Outcome>, is_abandoned: bool) -> Result<Outcome, Failure> {
    match answer.await {
        Ok(outcome) => Ok(outcome),
        Err(_given_up) if is_abandoned => Ok(Outcome::Spoilt(Spoilt::Behind)),
        Err(_) => Err(session_over()),
    }
}

pub(super) fn words(why: Spoilt) -> &'static str {
    match why {
        Spoilt::StillRunning => {
            "a transaction that was streamed already has not ended: it may be waiting for a standby"
        }
        Spoilt::Altered => "the table was altered, or is new to the stream",
        Spoilt::UnknownRow => "rows change of which the stream does not know the key",
        Spoilt::Truncated => "the table was emptied",
        Spoilt::HeldBack => "the table is in quarantine",
        Spoilt::TooBusy => "more of its rows change at a time than are kept in mind",
        Spoilt::Behind => "the rows before these were not written",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_is_not_settled() {
        let keys = |count: usize| (0..count).map(|number| vec![number.to_string()]).collect::<Vec<_>>();
        let names = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
        let mut again = Again { keys: keys(5), names: names(5) };
        for left in [3, 2, 1, 1] {
            again.halve();
            assert_eq!((again.keys.clone(), again.names.clone()), (keys(left), names(left)));
        }
    }
}
