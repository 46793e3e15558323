//! Which tables are copied, which wait, and which do not get on: what workers, looks and commands share.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use pgoutput::Oid;
use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::{
    catalog::PublishedTable,
    failure::{Code, Failure},
    snapshot::{
        By, Epoch, Parts, Progress, TableRecord, Taken as TakenPart,
        control::{self, Status, TableStatus},
    },
};

/// For how long a table rests that is copied at once and could not be.
const REST_FIRST: Duration = Duration::from_secs(10);
const REST_MAX: Duration = Duration::from_hours(1);
/// For how long nobody helps with a table, after something was wrong with it: it is its lead that finds out what.
const REST_FROM_HELPING: Duration = Duration::from_secs(30);

pub(super) struct State {
    /// As the checkpoint has it.
    pub(super) progress: Progress,
    /// Whether tables are copied that nobody has asked for.
    is_automatic: bool,
    /// How many workers copy at a time, unless somebody has asked for another number.
    connections: usize,
    /// What the publication came to at the last look, by OID.
    pub(super) published: BTreeMap<u32, PublishedTable>,
    /// Tables that wait for a connection, and since which look each is there.
    pending: VecDeque<(Oid, u64)>,
    /// Those that are pending or being copied, and those that were put off.
    taken: BTreeMap<u32, Taken>,
    /// Those that are to be stopped, until the checkpoint says so.
    pub(super) stopping: BTreeSet<u32>,
    /// Those that are being copied, and were taken out of the publication meanwhile, though they may be back.
    gone: BTreeSet<u32>,
    /// Those that are owed a copy at once and were found to be gone, each with a transaction id that was assigned after that.
    pub(super) found_gone: BTreeMap<u32, u64>,
    /// The same once there is nothing more of them in the log but what is there, until the stream has come past them: whoever finds one back waits for that.
    pub(super) leaving: BTreeMap<u32, oneshot::Receiver<()>>,
    /// Those that are published, and not asked for by the configuration, under these names.
    unwatched: BTreeMap<u32, PublishedTable>,
    /// Those of which it was said that they cannot be copied.
    impossible: BTreeSet<u32>,
    /// Those of which it was told for what they are not copied, and how many rows each had then.
    told_not_copied: BTreeMap<u32, (Code, u64)>,
    /// Those that were away, as it was said, and are not copied anew by themselves.
    pub(super) told_away: BTreeSet<u32>,
    /// Those that are copied at once and could not be, for how long others come first, and until when: each attempt writes from the first row on.
    resting: BTreeMap<u32, (Duration, Instant)>,
    /// Those whose rows workers share.
    shared: BTreeMap<u32, Shared>,
    /// Why the last turn at a table ended.
    problems: BTreeMap<u32, String>,
    pub(super) looks: u64,
    pub(super) windows: u64,
    pub(super) fence: Option<Fence>,
}

/// A table whose rows workers share.
struct Shared {
    look: u64,
    parts: Arc<Parts>,
    /// Until when nobody helps.
    rests_until: Option<Instant>,
}

/// A part of a table for somebody who has none of his own to copy.
pub(super) struct Help {
    pub(super) oid: Oid,
    pub(super) look: u64,
    pub(super) parts: Arc<Parts>,
    pub(super) taken: TakenPart,
}

/// What is being done with a table that lacks rows.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Taken {
    /// It is pending, or about to be.
    Waiting,
    Copying(Turn),
    /// It is taken again at the next look.
    PutOff,
}

/// A turn at a table.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Turn {
    began: Instant,
    /// The rows that were copied before.
    rows: u64,
    rows_estimated: Option<u64>,
}

/// How a turn at a table ends.
pub(super) enum End {
    /// All of it is copied.
    Done,
    /// It needs no more of the copier.
    Over,
    /// It is not streamed any more.
    Gone,
    /// It is published, and nobody has asked for it.
    Unwatched,
    /// Others have their turn first.
    NextTurn(String),
    PutOff(String),
    /// It cannot be copied as it is; whether that was not known before.
    Impossible {
        why: String,
        is_news: bool,
    },
}

/// A transaction id below which nothing may run in the snapshot of a chunk: see [`Windows`](crate::snapshot::Windows).
#[derive(Debug, Clone, Copy)]
pub(super) struct Fence {
    pub(super) epoch: Epoch,
    /// It was assigned after the tables of this look were seen in the publication: a transaction that has changed one of them before it was
    /// there, and ends later, is not streamed, and must be in what is read.
    pub(super) look: u64,
    pub(super) xid: u64,
}

impl State {
    pub(super) fn new(progress: Progress, is_automatic: bool, connections: usize) -> Self {
        Self {
            progress,
            is_automatic,
            connections,
            published: BTreeMap::new(),
            pending: VecDeque::new(),
            taken: BTreeMap::new(),
            stopping: BTreeSet::new(),
            gone: BTreeSet::new(),
            found_gone: BTreeMap::new(),
            leaving: BTreeMap::new(),
            unwatched: BTreeMap::new(),
            impossible: BTreeSet::new(),
            told_not_copied: BTreeMap::new(),
            told_away: BTreeSet::new(),
            resting: BTreeMap::new(),
            shared: BTreeMap::new(),
            problems: BTreeMap::new(),
            looks: 0,
            windows: 0,
            fence: None,
        }
    }

    /// Whether there is a reason to look for tables, unless somebody asks.
    pub(super) fn has_reason_to_look(&self) -> bool {
        self.is_automatic || self.progress.tables.values().any(|record| record.asked && record.is_going_on())
    }

    fn is_wanted(&self, table: u32) -> bool {
        let is_asked_for = self.is_automatic || self.progress.tables.get(&table).is_some_and(|record| record.asked);
        let is_ours = !self.stopping.contains(&table)
            && !self.unwatched.contains_key(&table)
            && !self.leaving.contains_key(&table);
        is_asked_for && is_ours && self.progress.lacks(table.into())
    }

    /// Takes up what is to be copied of what is published now, and returns what was taken out of the publication: what happens to it now is
    /// not streamed, so that its rows are copied from the first one on if it ever comes back.
    pub(super) fn look(&mut self, tables: &[(Oid, PublishedTable)]) -> Vec<Oid> {
        let look = self.looks;
        self.looks += 1;
        self.leaving.retain(|_, left| matches!(left.try_recv(), Err(TryRecvError::Empty)));
        self.published = tables.iter().map(|(oid, name)| (u32::from(*oid), name.clone())).collect();
        let rests = |oid: &u32| self.resting.get(oid).is_some_and(|(_, until)| *until > Instant::now());
        let published = &self.published;
        self.found_gone.retain(|oid, _| !published.contains_key(oid));
        self.taken.retain(|oid, taken| *taken != Taken::PutOff || rests(oid) && published.contains_key(oid));
        self.unwatched.retain(|oid, name| self.published.get(oid) == Some(name));
        let published = &self.published;
        let is_gone = |oid: &u32| !published.contains_key(oid);
        self.pending.retain(|(oid, _)| !is_gone(&(*oid).into()));
        self.taken.retain(|oid, taken| *taken != Taken::Waiting || !is_gone(oid));
        self.gone.extend(self.taken.keys().copied().filter(is_gone));
        for (oid, _) in tables {
            let oid = u32::from(*oid);
            if self.is_wanted(oid) && !self.taken.contains_key(&oid) {
                self.taken.insert(oid, Taken::Waiting);
                self.pending.push_back((oid.into(), look));
            }
        }
        // That of one that is being copied ends its own turn; and what a topic needs before its table is copied it needs whenever that is.
        let published = &self.published;
        let is_gone = |(oid, record): &(&u32, &TableRecord)| {
            !published.contains_key(oid) && !self.taken.contains_key(oid) && !record.empties_first()
        };
        self.progress.tables.iter().filter(is_gone).map(|(oid, _)| Oid::from(*oid)).collect()
    }

    /// Those that are not published, and of which it is kept for their return what their topics need.
    pub(super) fn away(&self) -> Vec<Oid> {
        let is_away = |(oid, record): &(&u32, &TableRecord)| {
            record.empties_first() && !self.published.contains_key(oid) && !self.taken.contains_key(oid)
        };
        self.progress.tables.iter().filter(is_away).map(|(oid, _)| Oid::from(*oid)).collect()
    }

    /// The tables that were copied, with how each had come into the publication, as far as that is known.
    pub(super) fn copied(&self) -> Vec<(Oid, String)> {
        let is_copied = |(oid, record): &(&u32, &TableRecord)| {
            record.ended_at_ms.is_some() && record.stopped_at_ms.is_none() && !self.taken.contains_key(oid)
        };
        let copied = self.progress.tables.iter().filter(is_copied);
        copied.filter_map(|(oid, record)| Some(((*oid).into(), record.membership()?.to_owned()))).collect()
    }

    /// Whether a table is copied anew once it is forgotten that it was.
    pub(super) fn is_copied_unasked(&self, table: Oid) -> bool {
        let stream = self.progress.stream.as_ref();
        self.is_automatic && !stream.is_some_and(|stream| stream.not_copied.contains(&table.into()))
    }

    /// Whether a worker, of those that are numbered from 0 on, is one too many.
    pub(super) fn is_beyond(&self, worker: usize) -> bool {
        worker >= self.progress.parallel.map_or(self.connections, usize::from)
    }

    /// The next table that waits, whose turn begins with this worker, and since which look it is there.
    pub(super) fn begin(&mut self, worker: usize) -> Option<(Oid, u64)> {
        if self.progress.is_paused || self.is_beyond(worker) {
            return None;
        }
        let (table, look) = self.pending.pop_front()?;
        let rows = self.progress.tables.get(&table.into()).map_or(0, |record| record.rows);
        let turn = Turn { began: Instant::now(), rows, rows_estimated: None };
        self.taken.insert(table.into(), Taken::Copying(turn));
        Some((table, look))
    }

    /// The next part that waits, of the table that fewest workers copy.
    pub(super) fn begin_helping(&mut self, worker: usize) -> Option<Help> {
        if self.progress.is_paused || self.is_beyond(worker) {
            return None;
        }
        let may_help = |(oid, shared): &(&u32, &Shared)| {
            let rests = shared.rests_until.is_some_and(|until| until > Instant::now());
            !rests && !self.stopping.contains(oid)
        };
        let mut shared: Vec<_> = self.shared.iter().filter(may_help).collect();
        shared.sort_by_key(|(_, shared)| shared.parts.taken());
        shared.into_iter().find_map(|(oid, Shared { look, parts, .. })| {
            let taken = parts.take(By::Helper)?;
            Some(Help { oid: (*oid).into(), look: *look, parts: Arc::clone(parts), taken })
        })
    }

    /// Whether workers may have nothing to do.
    pub(super) fn has_idle_workers(&self) -> bool {
        !self.is_beyond(1) && !self.do_tables_wait()
    }

    /// Whether a table waits for a worker.
    pub(super) fn do_tables_wait(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Workers may share the rows of a table.
    pub(super) fn share(&mut self, table: Oid, look: u64, parts: Arc<Parts>) {
        self.shared.insert(table.into(), Shared { look, parts, rests_until: None });
    }

    /// Nobody is to help with a table any more.
    pub(super) fn withdraw(&mut self, table: Oid) {
        self.shared.remove(&table.into());
    }

    /// Nobody is to help with a table for some time.
    pub(super) fn rest_from_helping(&mut self, table: Oid) {
        if let Some(shared) = self.shared.get_mut(&table.into()) {
            shared.rests_until = Some(Instant::now() + REST_FROM_HELPING);
        }
    }

    /// The tables whose turns come next, so many at most.
    pub(super) fn next(&self, count: usize) -> Vec<Oid> {
        self.pending.iter().take(count).map(|(table, _)| *table).collect()
    }

    pub(super) fn estimate(&mut self, table: Oid, rows: Option<u64>) {
        if let Some(Taken::Copying(turn)) = self.taken.get_mut(&table.into()) {
            turn.rows_estimated = rows;
        }
    }

    /// A turn at a table has ended.
    pub(super) fn end(&mut self, table: Oid, look: u64, end: End) {
        let oid = u32::from(table);
        self.gone.remove(&oid);
        match end {
            End::Unwatched => {
                self.taken.remove(&oid);
                self.unwatched.extend(self.published.get(&oid).map(|name| (oid, name.clone())));
            }
            End::Done | End::Over | End::Gone => {
                self.impossible.remove(&oid);
                self.taken.remove(&oid);
                self.problems.remove(&oid);
                self.resting.remove(&oid);
            }
            End::NextTurn(why) => {
                self.taken.insert(oid, Taken::Waiting);
                self.pending.push_back((table, look));
                self.problems.insert(oid, why);
            }
            End::PutOff(why) | End::Impossible { why, .. } => {
                if self.progress.tables.get(&oid).is_some_and(TableRecord::is_owed) {
                    let before = self.resting.get(&oid).map_or(REST_FIRST, |(rest, _)| rest.saturating_mul(2));
                    let rest = before.min(REST_MAX);
                    self.resting.insert(oid, (rest, Instant::now() + rest));
                }
                self.taken.insert(oid, Taken::PutOff);
                self.problems.insert(oid, why);
            }
        }
    }

    /// Whether it was not known yet that the table cannot be copied.
    pub(super) fn is_found_impossible(&mut self, table: Oid) -> bool {
        self.impossible.insert(table.into())
    }

    /// The name of a table that is not copied for what has this code, and how many of its rows are, if that is news.
    pub(super) fn not_copied(&mut self, table: Oid, code: Code) -> Option<(String, u64)> {
        let oid = u32::from(table);
        let name = self.published.get(&oid)?.to_string();
        let rows = self.progress.tables.get(&oid).map_or(0, |record| record.rows);
        let is_news = self.told_not_copied.insert(oid, (code, rows)) != Some((code, rows));
        is_news.then_some((name, rows))
    }

    /// How many tables lack rows.
    pub(super) fn lacking(&self) -> usize {
        self.taken.len()
    }

    /// Those that lack rows, or were stopped before they had all.
    pub(super) fn incomplete(&self) -> Vec<String> {
        let is_stopped = |oid: &u32| self.progress.tables.get(oid).is_some_and(|record| record.stopped_at_ms.is_some());
        let is_incomplete = |oid: &u32| self.taken.contains_key(oid) || is_stopped(oid);
        self.published.iter().filter(|(oid, _)| is_incomplete(oid)).map(|(_, table)| table.to_string()).collect()
    }

    /// Whether a turn at the table ends with its being stopped. If all of it was copied meanwhile, nothing is left to stop.
    pub(super) fn must_be_stopped(&mut self, table: Oid, end: &End) -> bool {
        let oid = u32::from(table);
        let has_ended = self.progress.tables.get(&oid).is_some_and(|record| record.ended_at_ms.is_some());
        if has_ended || matches!(end, End::Gone | End::Unwatched) {
            self.stopping.remove(&oid);
        }
        self.stopping.contains(&oid)
    }

    /// Whether those that lack rows are such that cannot be copied.
    pub(super) fn are_all_impossible(&self) -> bool {
        self.taken.iter().all(|(oid, taken)| *taken == Taken::PutOff && self.impossible.contains(oid))
    }

    /// Whether a turn at the table goes on.
    pub(super) fn is_copying(&self, table: u32) -> bool {
        matches!(self.taken.get(&table), Some(Taken::Copying(_)))
    }

    /// Whether a table that was taken out of the publication while it was being copied is in it again.
    pub(super) fn is_back(&mut self, table: Oid) -> bool {
        let oid = u32::from(table);
        let is_back = self.published.contains_key(&oid) && self.gone.remove(&oid);
        if is_back {
            // It was assigned when the table was there before.
            self.fence = None;
        }
        is_back
    }

    /// Whether the table is still one to copy, and has been all the time.
    pub(super) fn is_published(&self, table: Oid) -> bool {
        let oid = u32::from(table);
        self.published.contains_key(&oid) && !self.gone.contains(&oid)
    }

    /// Those of all tables that a copy is to be made of, or goes on.
    pub(super) fn unfinished(&self) -> Vec<u32> {
        let is_unfinished = |oid: &u32| self.taken.contains_key(oid) || self.is_wanted(*oid);
        self.published.keys().copied().filter(is_unfinished).collect()
    }

    /// Whether the table is being copied, or waits for it.
    pub(super) fn is_taken(&self, table: u32) -> bool {
        matches!(self.taken.get(&table), Some(Taken::Waiting | Taken::Copying(_)))
    }

    /// Keeps looks from taking tables up that are about to be started, and returns those that are to be. One that is going on as it would begin need not be.
    ///
    /// # Errors
    /// One of them is being copied, or is to be copied whole and lacks rows.
    pub(super) fn reserve(
        &mut self,
        tables: Vec<(u32, PublishedTable)>,
        condition: Option<&str>,
    ) -> Result<Vec<(u32, PublishedTable)>, Failure> {
        let mut starting = Vec::new();
        for (oid, table) in tables {
            let record = self.progress.tables.get(&oid);
            let is_at_start = record.map_or(condition.is_none(), |record| {
                record.after.is_none()
                    && record.parts.is_empty()
                    && record.rows == 0
                    && record.condition.as_deref() == condition
            });
            if self.unwatched.contains_key(&oid) {
                let found = format!("{table} is published, and not among postgres.tables");
                return Err(Failure::new(Code::SnapshotRefused, found));
            }
            if self.leaving.contains_key(&oid) {
                let found = format!(
                    "{table} was gone, and what was copied of it is still to be taken out of its topic: ask again"
                );
                return Err(Failure::new(Code::SnapshotRefused, found));
            }
            if condition.is_some() && record.is_some_and(TableRecord::empties_first) {
                let found =
                    format!("the topic of {table} is to be emptied first, so that all of its rows have to be copied");
                return Err(Failure::new(Code::SnapshotRefused, found));
            }
            let is_busy = self.is_taken(oid);
            if self.stopping.contains(&oid) || is_busy && !is_at_start {
                let found = format!("{table} is being copied: stop that first, or wait for its end");
                return Err(Failure::new(Code::SnapshotRefused, found));
            }
            if !is_busy && condition.is_some() && self.taken.contains_key(&oid) {
                let found = format!("{table} is to be copied whole, and lacks rows: stop that first");
                return Err(Failure::new(Code::SnapshotRefused, found));
            }
            if !is_busy {
                starting.push((oid, table));
            }
        }
        self.taken.extend(starting.iter().map(|(oid, _)| (*oid, Taken::Waiting)));
        Ok(starting)
    }

    /// Gives up what was reserved.
    pub(super) fn give_up(&mut self, table: u32) {
        self.pending.retain(|(pending, _)| u32::from(*pending) != table);
        self.taken.remove(&table);
        self.problems.remove(&table);
    }

    /// What was reserved waits for its turn.
    pub(super) fn start(&mut self, table: u32, record: TableRecord) {
        self.progress.tables.insert(table, record);
        self.impossible.remove(&table);
        self.told_not_copied.remove(&table);
        self.told_away.remove(&table);
        self.resting.remove(&table);
        self.pending.push_back((table.into(), self.looks.saturating_sub(1)));
    }

    /// How far all tables are.
    pub(super) fn status(&self) -> Status {
        let mut tables: Vec<_> = self.published.iter().map(|(oid, name)| self.status_of(*oid, name)).collect();
        tables.sort_by(|one, other| one.table.cmp(&other.table));
        Status { paused: self.progress.is_paused, parallel: self.progress.parallel, tables }
    }

    fn status_of(&self, oid: u32, name: &PublishedTable) -> TableStatus {
        let record = self.progress.tables.get(&oid);
        let taken = self.taken.get(&oid);
        let state = match (taken, record) {
            (Some(Taken::PutOff), _) if self.impossible.contains(&oid) => control::State::Impossible,
            (Some(Taken::Copying(_)), _) => control::State::Copying,
            (Some(Taken::Waiting), _) => control::State::Waiting,
            (Some(Taken::PutOff), _) => control::State::PutOff,
            (None, Some(record)) if record.stopped_at_ms.is_some() => control::State::Stopped,
            (None, Some(record)) if record.ended_at_ms.is_some() => control::State::Copied,
            (None, _) if self.is_wanted(oid) => control::State::Waiting,
            (None, _) => control::State::NotCopied,
        };
        let rows = record.map_or(0, |record| record.rows);
        let turn = match taken {
            Some(Taken::Copying(turn)) => Some(turn),
            _ => None,
        };
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let rate = |turn: &Turn| rows.saturating_sub(turn.rows) as f64 / turn.began.elapsed().as_secs_f64().max(0.001);
        TableStatus {
            table: name.to_string(),
            name: Some(name.clone()),
            state,
            rows,
            bytes: record.map_or(0, |record| record.bytes),
            rows_estimated: turn.and_then(|turn| turn.rows_estimated),
            rows_per_second: turn.filter(|turn| rows > turn.rows).map(rate),
            connections: self.shared.get(&oid).map(|shared| shared.parts.taken()).filter(|taken| *taken > 1),
            condition: record.and_then(|record| record.condition.clone()),
            started_at_ms: record.map(|record| record.started_at_ms),
            ended_at_ms: record.and_then(|record| record.ended_at_ms.or(record.stopped_at_ms)),
            problem: self.problems.get(&oid).cloned(),
        }
    }
}

impl End {
    /// A table that could not be copied.
    pub(super) fn failed(failure: &Failure) -> Self {
        Self::PutOff(format!("{}: {}", failure.code().as_str(), failure.found()))
    }
}

#[cfg(test)]
mod tests;
