//! Windows in a model of a server: transactions that lock rows, are sent once their commit record is written, and are seen by others only
//! when they have ended; a stream that lags behind, and may be met in the middle of a transaction; chunks that are read in between, at the server or at a
//! standby of it; lives that end.
//!
//! The standby replays one record after another, shows what one has done before it says that it was replayed, and is restarted, after which it hides what has
//! written its commit and not ended at the primary if that has a higher id than all that had.
//!
//! A table that is copied in parts has a model of its own, [`parts`].
//!
//! What the topic has of a key must never step back, and its fold must be the table once all of it was copied.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

mod parts;
mod standby;

use self::standby::{Broken, Reading, Stage, Standby};

const KEYS: usize = 3;
const TABLE: u32 = 7;
/// More than one window notes.
const NOTED: usize = 16 << 20;

/// A row: the version of what every update writes, and of what an update may leave as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    version: u64,
    large: u64,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Begin,
    /// By the n-th transaction that is open, of a key: all of the row, part of it, or its deletion.
    Write(usize, usize, Write),
    /// Writes the commit record: from here on it is streamed.
    Commit(usize),
    /// Lets go of the locks and is seen: of the n-th one that has committed, or aborts the n-th one that has not.
    End(usize),
    Abort(usize),
    /// Streams one transaction, or what is left of it.
    Deliver,
    /// Streams the first change of one.
    DeliverPart,
    /// To be read at the standby, or at the server.
    Open(bool),
    /// The next step of reading.
    Read,
    /// The standby shows the next record's effect; says that it was replayed; is restarted.
    Apply,
    Tell,
    Restart,
    /// The copy hears what became of a chunk.
    Hear,
    /// The life ends; the next one begins with what was not delivered, or in the middle of the transaction that was delivered last.
    Die(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    Whole,
    Part,
    Delete,
}

#[derive(Debug, Clone)]
struct Transaction {
    xid: u64,
    /// None if it is one that is not streamed, since it has changed nothing.
    writes: Vec<(usize, Write, Option<Row>)>,
}

/// What the topic holds of a key, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    Row(Row),
    /// A row whose large value was not sent.
    Part(u64),
    Gone(u64),
}

#[derive(Debug)]
struct Chunk {
    rows: Vec<(usize, Row)>,
    keys: BTreeSet<usize>,
    /// The next key behind it, unless it was read again.
    cursor: Option<usize>,
}

struct Model {
    next_xid: u64,
    clock: u64,
    open: Vec<Transaction>,
    committed: Vec<Transaction>,
    log: Vec<Transaction>,
    /// How many transactions were delivered wholly, how many changes of the next one, and how many of these in an earlier life.
    delivered: usize,
    inside: Option<usize>,
    covered: usize,
    /// What a new snapshot sees, and what was there at first.
    table: BTreeMap<usize, Row>,
    first: BTreeMap<usize, Row>,
    /// The highest id that has ended.
    completed: u64,
    standby: Standby,
    broken: Broken,
    topic: Vec<(usize, Record)>,
    windows: Windows<Chunk>,
    windows_opened: u64,
    /// The fence of each epoch, and the window that is open and not read.
    fence: Option<(Epoch, u64)>,
    reading: Option<Reading>,
    /// A fence, and the end of the log once nothing ran below it.
    passed: Option<(u64, usize)>,
    /// The next key to read, and the last window that was: they run ahead of what is written.
    ahead: usize,
    behind: Option<WindowId>,
    /// Chunks of which the copy has not heard.
    in_flight: usize,
    heard: VecDeque<bool>,
    /// What the checkpoint says: the next key to copy, and keys before it that are to be read again.
    cursor: usize,
    again: BTreeSet<usize>,
}

impl Model {
    fn new(first_xid: u64, broken: Broken) -> Self {
        let table: BTreeMap<_, _> = (0..KEYS).map(|key| (key, Row { version: 0, large: 0 })).collect();
        Self {
            next_xid: first_xid,
            clock: 0,
            open: Vec::new(),
            committed: Vec::new(),
            log: Vec::new(),
            delivered: 0,
            inside: None,
            covered: 0,
            first: table.clone(),
            table,
            completed: first_xid - 1,
            standby: Standby { ceiling: first_xid, ..Standby::default() },
            broken,
            topic: Vec::new(),
            windows: Windows::new(NOTED),
            windows_opened: 0,
            fence: None,
            reading: None,
            passed: None,
            ahead: 0,
            behind: None,
            in_flight: 0,
            heard: VecDeque::new(),
            cursor: 0,
            again: BTreeSet::new(),
        }
    }

    fn xid(&mut self) -> u64 {
        self.next_xid += 1;
        self.next_xid - 1
    }

    fn is_locked(&self, key: usize, by: u64) -> bool {
        let others = self.open.iter().chain(&self.committed).filter(|other| other.xid != by);
        others.flat_map(|other| &other.writes).any(|(locked, ..)| *locked == key)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Begin => {
                let xid = self.xid();
                self.open.push(Transaction { xid, writes: Vec::new() });
            }
            Step::Write(which, key, write) => self.write(which, key, write),
            Step::Commit(which) if !self.open.is_empty() => {
                let transaction = self.open.remove(which % self.open.len());
                self.log.push(transaction.clone());
                self.committed.push(transaction);
            }
            Step::End(which) if !self.committed.is_empty() => {
                let transaction = self.committed.remove(which % self.committed.len());
                self.completed = self.completed.max(transaction.xid);
                for (key, _, row) in transaction.writes {
                    match row {
                        Some(row) => self.table.insert(key, row),
                        None => self.table.remove(&key),
                    };
                }
            }
            Step::Abort(which) if !self.open.is_empty() => {
                let transaction = self.open.remove(which % self.open.len());
                self.completed = self.completed.max(transaction.xid);
            }
            Step::Deliver if self.delivered < self.log.len() => {
                self.deliver(usize::MAX);
                self.delivered += 1;
                (self.inside, self.covered) = (None, 0);
            }
            Step::DeliverPart if self.delivered < self.log.len() && self.inside.is_none() => self.deliver(1),
            Step::Apply if self.standby.applied == self.standby.told && self.standby.applied < self.log.len() => {
                let xid = self.log[self.standby.applied].xid;
                self.standby.applied += 1;
                self.standby.ceiling = self.standby.ceiling.max(xid + 1);
            }
            Step::Tell => self.standby.told = self.standby.applied,
            Step::Restart => {
                let replayed = self.log.len();
                self.standby = Standby { applied: replayed, told: replayed, ceiling: self.completed + 1 };
                // The connection is lost.
                if let Some(Reading { id, .. }) = self.reading.take_if(|reading| reading.stage.is_some()) {
                    self.windows.abandon(id, None);
                }
            }
            // Once all keys were read, what is left is read again when nothing is in flight.
            Step::Open(at_standby)
                if self.reading.is_none() && (self.ahead < KEYS || self.in_flight == 0 && !self.is_copied()) =>
            {
                self.windows_opened += 1;
                let id = WindowId(self.windows_opened);
                let reached = self.reached();
                let (epoch, _, horizon) = self.windows.open(id, whole(), Vec::new(), self.behind, reached);
                let horizon = match self.broken {
                    Broken::Waiting => Horizon { replayed: Lsn::INVALID, highest: None },
                    Broken::ComingIn => Horizon { replayed: reached, ..horizon },
                    Broken::Ceiling => Horizon { highest: None, ..horizon },
                    _ => horizon,
                };
                self.windows.open.last_mut().expect("it is open").horizon = horizon;
                let fence = match self.fence {
                    Some((of, fence)) if of == epoch => fence,
                    _ => self.assign_xid(),
                };
                self.fence = Some((epoch, fence));
                self.reading = Some(Reading { id, fence, stage: at_standby.then_some(Stage::Opened(horizon)) });
            }
            Step::Read => self.read(),
            Step::Hear => self.hear(),
            Step::Die(inside) => {
                self.windows = Windows::new(NOTED);
                (self.fence, self.reading) = (None, None);
                self.heard.clear();
                (self.ahead, self.behind, self.in_flight) = (self.cursor, None, 0);
                // The checkpoint covers what there is of it, up to its last change at most, and the server sends it again.
                if let Some(changes) = self.inside.take() {
                    self.covered = changes;
                } else if inside && self.delivered > 0 && self.covered == 0 {
                    self.delivered -= 1;
                    self.covered = self.log[self.delivered].writes.len();
                }
            }
            Step::Commit(_)
            | Step::End(_)
            | Step::Abort(_)
            | Step::Deliver
            | Step::DeliverPart
            | Step::Apply
            | Step::Open(_) => {}
        }
        while let Some(closed) = self.windows.close_due(self.reached()) {
            self.close(closed);
        }
    }

    fn write(&mut self, which: usize, key: usize, write: Write) {
        if self.open.is_empty() {
            return;
        }
        let which = which % self.open.len();
        if self.is_locked(key, self.open[which].xid) {
            return;
        }
        self.clock += 1;
        let version = self.clock;
        let own = self.open[which].writes.iter().rev().find(|(written, ..)| *written == key);
        let before = own.map_or_else(|| self.table.get(&key).copied(), |(_, _, row)| *row);
        let row = match (write, before) {
            (Write::Whole, _) => Some(Row { version, large: version }),
            (Write::Part, Some(before)) => Some(Row { version, ..before }),
            (Write::Delete, Some(_)) => None,
            (Write::Part | Write::Delete, None) => return,
        };
        self.open[which].writes.push((key, write, row));
    }

    /// The n-th record of the log starts at n, and ends where the next one starts.
    fn reached(&self) -> Lsn {
        Lsn::from(self.delivered as u64)
    }

    /// The next transaction comes by, up to so many of its changes. What was not before is written.
    fn deliver(&mut self, changes: usize) {
        let transaction = self.log[self.delivered].clone();
        if transaction.writes.is_empty() {
            return;
        }
        let commit = Lsn::from(self.delivered as u64);
        if self.inside.is_none() {
            self.windows.transaction(Streamed { xid: xid32(transaction.xid), commit });
        }
        let before = self.inside.unwrap_or(self.covered);
        self.inside = Some(changes.max(before));
        for (key, write, row) in transaction.writes.iter().take(changes).skip(before) {
            let record = match (write, row) {
                (_, None) => Record::Gone(self.clock),
                (Write::Part, Some(row)) => Record::Part(row.version),
                (_, Some(row)) => Record::Row(*row),
            };
            self.topic.push((*key, record));
            self.windows.note(Oid::from(TABLE), &key.to_be_bytes(), *write == Write::Part);
        }
    }

    /// Assigns an id to a transaction that changes nothing, and ends at once.
    fn assign_xid(&mut self) -> u64 {
        let xid = self.xid();
        self.log.push(Transaction { xid, writes: Vec::new() });
        self.completed = self.completed.max(xid);
        xid
    }

    fn snapshot(&self) -> Visibility {
        let mut running: Vec<u64> = self.open.iter().chain(&self.committed).map(|it| it.xid).collect();
        running.sort_unstable();
        let xmin = running.first().copied().unwrap_or(self.next_xid);
        let text: Vec<_> = running.iter().map(u64::to_string).collect();
        format!("{xmin}:{}:{}", self.next_xid, text.join(",")).parse().expect("a snapshot")
    }

    fn load(&mut self, id: WindowId, chunk: Chunk, sight: Sight, until: Lsn) {
        self.ahead = chunk.cursor.unwrap_or(KEYS);
        self.behind = Some(id);
        self.in_flight += 1;
        self.windows.load(id, chunk, sight, until);
    }

    fn is_copied(&self) -> bool {
        self.cursor == KEYS && self.again.is_empty()
    }

    /// Of one chunk after another. If one was not written, the copy goes back to what was, once it has heard of all.
    fn hear(&mut self) {
        let Some(is_written) = self.heard.pop_front() else { return };
        self.in_flight -= 1;
        if !is_written && self.in_flight == self.heard.len() {
            assert!(self.heard.iter().all(|is_written| !is_written), "none is written behind one that was not");
            self.heard.clear();
            (self.ahead, self.behind, self.in_flight) = (self.cursor, None, 0);
        } else if !is_written {
            self.heard.push_front(is_written);
            self.in_flight += 1;
        }
    }

    fn close(&mut self, closed: Closed<Chunk>) {
        self.heard.push_back(closed.fates.is_ok());
        let Ok(fates) = closed.fates else { return };
        let mut again = BTreeSet::new();
        for (key, row) in closed.chunk.rows {
            match fates.of(&key.to_be_bytes()) {
                Fate::Write => self.topic.push((key, Record::Row(row))),
                Fate::Superseded => {}
                Fate::ReadAgain => drop(again.insert(key)),
            }
        }
        if let Some(cursor) = closed.chunk.cursor {
            assert_eq!(self.cursor + 1, cursor, "a cursor passes nothing by");
            self.cursor = cursor;
        }
        self.again.retain(|key| !closed.chunk.keys.contains(key));
        self.again.append(&mut again);
    }

    /// Lets everything come to its end, and copies what is left.
    fn finish(&mut self) {
        for _ in 0..self.open.len() {
            self.step(Step::Commit(0));
        }
        for _ in 0..self.committed.len() {
            self.step(Step::End(0));
        }
        // What was in flight may have been spoilt, and then all of it is read again.
        let mut turns = 0;
        while !self.is_copied() || self.delivered < self.log.len() {
            for step in [Step::Apply, Step::Tell, Step::Read, Step::Deliver, Step::Hear, Step::Open(turns % 7 > 0)] {
                self.step(step);
            }
            turns += 1;
            assert!(turns < 10_000, "when nothing happens any more, all of it can be copied");
        }
    }

    fn judge(&self) -> Result<(), String> {
        let mut fold: BTreeMap<usize, (u64, Option<u64>)> = BTreeMap::new();
        let mut newest = [None; KEYS];
        for (key, record) in &self.topic {
            let version = match record {
                Record::Row(Row { version, .. }) | Record::Part(version) => Some(*version),
                Record::Gone(_) => None,
            };
            if let Some(version) = version {
                if newest[*key].is_some_and(|newest| newest > version) {
                    return Err(format!("{key} steps back: {:?}", self.topic));
                }
                newest[*key] = Some(version);
            }
            match record {
                Record::Row(row) => drop(fold.insert(*key, (row.version, Some(row.large)))),
                Record::Part(version) => {
                    let large = fold.get(key).and_then(|(_, large)| *large);
                    fold.insert(*key, (*version, large));
                }
                Record::Gone(_) => drop(fold.remove(key)),
            }
        }
        let table: BTreeMap<_, _> =
            self.table.iter().map(|(key, row)| (*key, (row.version, Some(row.large)))).collect();
        if fold == table { Ok(()) } else { Err(format!("{fold:?} is not {table:?}: {:?}", self.topic)) }
    }
}

fn xid32(xid: u64) -> Xid {
    Xid::from(u32::try_from(xid & u64::from(u32::MAX)).expect("the lower half"))
}

fn step() -> impl Strategy<Value = Step> {
    let write = prop_oneof![Just(Write::Whole), Just(Write::Part), Just(Write::Part), Just(Write::Delete)];
    prop_oneof![
        3 => Just(Step::Begin),
        6 => (0..4_usize, 0..KEYS, write).prop_map(|(which, key, write)| Step::Write(which, key, write)),
        3 => (0..4_usize).prop_map(Step::Commit),
        3 => (0..4_usize).prop_map(Step::End),
        1 => (0..4_usize).prop_map(Step::Abort),
        4 => Just(Step::Deliver),
        1 => Just(Step::DeliverPart),
        4 => any::<bool>().prop_map(Step::Open),
        8 => Just(Step::Read),
        4 => Just(Step::Apply),
        4 => Just(Step::Tell),
        1 => Just(Step::Restart),
        2 => Just(Step::Hear),
        1 => any::<bool>().prop_map(Step::Die),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn no_key_steps_back_and_none_is_lost(
        first_xid in prop_oneof![Just(700_u64), Just((1 << 32) - 4)],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let judged = run(Broken::Nothing, first_xid, &steps);
        prop_assert!(judged.is_ok(), "{}", judged.unwrap_err());
    }
}

fn run(broken: Broken, first_xid: u64, steps: &[Step]) -> Result<(), String> {
    let mut model = Model::new(first_xid, broken);
    for step in steps {
        model.step(*step);
    }
    model.finish();
    model.judge()
}

/// A table that one copies.
fn whole() -> (Oid, PartId) {
    (Oid::from(TABLE), PartId(0))
}

fn streamed(xid: u32) -> Streamed {
    Streamed { xid: Xid::from(xid), commit: Lsn::INVALID }
}

fn by_id(snapshot: &str) -> Sight {
    Sight::ById(snapshot.parse().expect("a snapshot"))
}

#[test]
fn a_window_that_sees_too_much_is_spoilt() {
    let mut windows = Windows::new(NOTED);
    windows.open(WindowId(1), whole(), Vec::new(), None, Lsn::INVALID);
    windows.transaction(streamed(10));
    for number in 0_u64..100_000 {
        windows.note(Oid::from(TABLE), &number.to_be_bytes(), false);
    }
    windows.load(WindowId(1), (), by_id("20:20:"), Lsn::from(5));
    let closed = windows.close_due(Lsn::INVALID).expect("it need not be waited for");
    assert_eq!(closed.fates.expect_err("nobody knows all keys"), Spoilt::TooBusy);
}

/// The youngest window of a table makes room for those before it, and one that is spoilt for those of others.
#[test]
fn what_all_windows_note_is_bounded() {
    let mut windows = Windows::new(1 << 20);
    let tables = [TABLE, TABLE, TABLE + 1].map(Oid::from);
    for (number, table) in (1..).zip(tables) {
        windows.open(WindowId(number), (table, PartId(0)), Vec::new(), None, Lsn::INVALID);
    }
    windows.transaction(streamed(10));
    for number in 0_u64..10_000 {
        for table in &tables[1..] {
            windows.note(*table, &number.to_be_bytes(), false);
            assert!(windows.noted_bytes <= 1 << 20);
        }
    }
    let spoilt: Vec<bool> = windows.open.iter().map(|window| window.spoilt.is_some()).collect();
    assert!(spoilt[1] || !spoilt[0], "the youngest comes first: {spoilt:?}");
    assert!(spoilt.contains(&true) && spoilt.contains(&false), "{spoilt:?}");
    for number in 1..=3 {
        windows.load(WindowId(number), (), by_id("20:20:"), Lsn::from(5));
    }
    let closed: Vec<bool> =
        std::iter::from_fn(|| windows.close_due(Lsn::from(5))).map(|closed| closed.fates.is_err()).collect();
    assert_eq!((closed, windows.noted_bytes), (spoilt, 0));
}

#[test]
fn the_memory_of_transactions_is_bounded_and_says_when_it_has_forgotten() {
    let mut windows = Windows::<()>::new(NOTED);
    let (first, ..) = windows.open(WindowId(1), whole(), Vec::new(), None, Lsn::INVALID);
    for number in 0..200_000_u32 {
        windows.transaction(streamed(number));
    }
    assert!(windows.recent.len() <= RECENT_MAX);
    let second = windows.open(WindowId(2), whole(), Vec::new(), None, Lsn::INVALID).0;
    assert_ne!(second, first, "a new fence is needed");
    windows.load(WindowId(1), (), by_id("200000:200000:"), Lsn::from(5));
    assert!(windows.recent.is_empty(), "all have ended");
}
