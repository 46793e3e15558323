//! Windows in a model of a server: transactions that lock rows, are sent once their commit record is written, and are seen by others only
//! when they have ended; a stream that lags behind; chunks that are read in between; lives that end.
//!
//! What the topic has of a key must never step back, and its fold must be the table once all of it was copied.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

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
    /// Streams one transaction.
    Deliver,
    Open,
    Read,
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
    delivered: usize,
    /// Whether the last one that was delivered is still to come again.
    comes_again: bool,
    /// What a new snapshot sees.
    table: BTreeMap<usize, Row>,
    topic: Vec<(usize, Record)>,
    windows: Windows<Chunk>,
    windows_opened: u64,
    /// The fence of each epoch, and the window that is open and not read.
    fence: Option<(Epoch, u64)>,
    reading: Option<(WindowId, u64)>,
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
    fn new(first_xid: u64) -> Self {
        let table = (0..KEYS).map(|key| (key, Row { version: 0, large: 0 })).collect();
        Self {
            next_xid: first_xid,
            clock: 0,
            open: Vec::new(),
            committed: Vec::new(),
            log: Vec::new(),
            delivered: 0,
            comes_again: false,
            table,
            topic: Vec::new(),
            windows: Windows::new(NOTED),
            windows_opened: 0,
            fence: None,
            reading: None,
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
                for (key, _, row) in transaction.writes {
                    match row {
                        Some(row) => self.table.insert(key, row),
                        None => self.table.remove(&key),
                    };
                }
            }
            Step::Abort(which) if !self.open.is_empty() => drop(self.open.remove(which % self.open.len())),
            Step::Deliver if self.comes_again => {
                self.comes_again = false;
                self.deliver(false);
            }
            Step::Deliver if self.delivered < self.log.len() => {
                self.delivered += 1;
                self.deliver(true);
            }
            // Once all keys were read, what is left is read again when nothing is in flight.
            Step::Open if self.reading.is_none() && (self.ahead < KEYS || self.in_flight == 0 && !self.is_copied()) => {
                self.windows_opened += 1;
                let id = WindowId(self.windows_opened);
                let (epoch, _) = self.windows.open(id, Oid::from(TABLE), Vec::new(), self.behind);
                let fence = match self.fence {
                    Some((of, fence)) if of == epoch => fence,
                    _ => self.xid(),
                };
                self.fence = Some((epoch, fence));
                self.reading = Some((id, fence));
            }
            Step::Read => self.read(),
            Step::Hear => self.hear(),
            Step::Die(inside) => {
                self.windows = Windows::new(NOTED);
                (self.fence, self.reading) = (None, None);
                self.heard.clear();
                (self.ahead, self.behind, self.in_flight) = (self.cursor, None, 0);
                // The checkpoint covers it up to its last change, and the server sends it again.
                self.comes_again |= inside && self.delivered > 0;
            }
            Step::Commit(_) | Step::End(_) | Step::Abort(_) | Step::Deliver | Step::Open => {}
        }
        let reached = self.delivered - usize::from(self.comes_again);
        while let Some(closed) = self.windows.close_due(Lsn::from(reached as u64)) {
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

    /// The last one that was delivered comes by; it is written if it was not before.
    fn deliver(&mut self, is_new: bool) {
        let transaction = self.log[self.delivered - 1].clone();
        self.windows.transaction(xid32(transaction.xid));
        for (key, write, row) in transaction.writes.iter().filter(|_| is_new) {
            let record = match (write, row) {
                (_, None) => Record::Gone(self.clock),
                (Write::Part, Some(row)) => Record::Part(row.version),
                (_, Some(row)) => Record::Row(*row),
            };
            self.topic.push((*key, record));
            self.windows.note(Oid::from(TABLE), &key.to_be_bytes(), *write == Write::Part);
        }
    }

    fn read(&mut self) {
        let Some((id, fence)) = self.reading.take() else { return };
        let mut running: Vec<u64> = self.open.iter().chain(&self.committed).map(|it| it.xid).collect();
        running.sort_unstable();
        let xmin = running.first().copied().unwrap_or(self.next_xid);
        let text: Vec<_> = running.iter().map(u64::to_string).collect();
        let snapshot: Visibility = format!("{xmin}:{}:{}", self.next_xid, text.join(",")).parse().expect("a snapshot");
        if snapshot.xmin() < fence {
            self.windows.abandon(id, Some(&snapshot));
            return;
        }
        let keys = if self.ahead < KEYS { [self.ahead].into() } else { self.again.clone() };
        let rows = keys.iter().filter_map(|key| Some((*key, *self.table.get(key)?))).collect();
        let cursor = (self.ahead < KEYS).then_some(self.ahead + 1);
        self.ahead = cursor.unwrap_or(KEYS);
        self.behind = Some(id);
        self.in_flight += 1;
        let chunk = Chunk { rows, keys, cursor };
        self.windows.load(id, chunk, snapshot, Lsn::from(self.log.len() as u64));
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
        for _ in 0..=self.log.len() {
            self.step(Step::Deliver);
        }
        // What was in flight may have been spoilt, and then all of it is read again.
        for _ in 0..4 * KEYS {
            self.step(Step::Read);
            while !self.heard.is_empty() {
                self.step(Step::Hear);
            }
            self.step(Step::Open);
        }
        assert!(self.is_copied(), "when nothing happens any more, all of it can be copied");
    }

    fn check(&self) {
        let mut fold: BTreeMap<usize, (u64, Option<u64>)> = BTreeMap::new();
        let mut newest = [None; KEYS];
        for (key, record) in &self.topic {
            let version = match record {
                Record::Row(Row { version, .. }) | Record::Part(version) => Some(*version),
                Record::Gone(_) => None,
            };
            if let Some(version) = version {
                assert!(newest[*key].is_none_or(|newest| newest <= version), "{key} steps back: {:?}", self.topic);
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
        assert_eq!(fold, table, "{:?}", self.topic);
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
        3 => Just(Step::Open),
        3 => Just(Step::Read),
        2 => Just(Step::Hear),
        1 => any::<bool>().prop_map(Step::Die),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn no_key_steps_back_and_none_is_lost(
        first_xid in prop_oneof![Just(700_u64), Just((1 << 32) - 4)],
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut model = Model::new(first_xid);
        for step in steps {
            model.step(step);
        }
        model.finish();
        model.check();
    }
}

#[test]
fn a_window_that_sees_too_much_is_spoilt() {
    let mut windows = Windows::new(NOTED);
    windows.open(WindowId(1), Oid::from(TABLE), Vec::new(), None);
    windows.transaction(Xid::from(10));
    for number in 0_u64..100_000 {
        windows.note(Oid::from(TABLE), &number.to_be_bytes(), false);
    }
    windows.load(WindowId(1), (), "20:20:".parse().expect("a snapshot"), Lsn::from(5));
    let closed = windows.close_due(Lsn::INVALID).expect("it need not be waited for");
    assert_eq!(closed.fates.expect_err("nobody knows all keys"), Spoilt::TooBusy);
}

/// The youngest window of a table makes room for those before it, and one that is spoilt for those of others.
#[test]
fn what_all_windows_note_is_bounded() {
    let mut windows = Windows::new(1 << 20);
    let tables = [TABLE, TABLE, TABLE + 1].map(Oid::from);
    for (number, table) in (1..).zip(tables) {
        windows.open(WindowId(number), table, Vec::new(), None);
    }
    windows.transaction(Xid::from(10));
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
        windows.load(WindowId(number), (), "20:20:".parse().expect("a snapshot"), Lsn::from(5));
    }
    let closed: Vec<bool> =
        std::iter::from_fn(|| windows.close_due(Lsn::from(5))).map(|closed| closed.fates.is_err()).collect();
    assert_eq!((closed, windows.noted_bytes), (spoilt, 0));
}

#[test]
fn the_memory_of_transactions_is_bounded_and_says_when_it_has_forgotten() {
    let mut windows = Windows::<()>::new(NOTED);
    let (first, _) = windows.open(WindowId(1), Oid::from(TABLE), Vec::new(), None);
    for number in 0..200_000_u32 {
        windows.transaction(Xid::from(number));
    }
    assert!(windows.recent.len() <= RECENT_MAX);
    assert_ne!(windows.open(WindowId(2), Oid::from(TABLE), Vec::new(), None).0, first, "a new fence is needed");
    windows.load(WindowId(1), (), "200000:200000:".parse().expect("a snapshot"), Lsn::from(5));
    assert!(windows.recent.is_empty(), "all have ended");
}
