//! Windows in a model of a server: transactions that lock rows, are sent once their commit record is written, and are seen by others only
//! when they have ended; a stream that lags behind; chunks that are read in between; lives that end.
//!
//! The table is copied in two parts, each with chunks of its own. Which is written first is for the steps to say, and a life begins with what the
//! record says that was written last.
//!
//! What the topic has of a key must never step back, and its fold must be the table once all of it was copied.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use proptest::prelude::*;
use publisher::Attachment;

use super::*;
use crate::snapshot::{Advance, By, Cursor, Parts, Progress, TableRecord, cut};

/// Those of the first part, and of both.
const FIRST_KEYS: usize = 2;
const KEYS: usize = 4;
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
    /// All for one of the parts.
    Open(usize),
    Read(usize),
    /// The copy hears what became of a chunk.
    Hear(usize),
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
    lane: usize,
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
    /// The fence of each epoch.
    fence: Option<(Epoch, u64)>,
    /// Who copies the two parts. If the first one is over when a life begins there are no parts, and the second one is the table.
    lanes: [Lane; 2],
    parts: Option<Arc<Parts>>,
    /// What the checkpoint says: how far the table is, and keys that are to be read again.
    record: TableRecord,
    again: BTreeSet<usize>,
}

#[derive(Debug, Default)]
struct Lane {
    /// The next key that is not written, and the end.
    cursor: usize,
    end: usize,
    /// The next key to read, and the last window that was: they run ahead of what is written.
    ahead: usize,
    behind: Option<WindowId>,
    /// The window that is open and not read.
    reading: Option<(WindowId, u64)>,
    /// Chunks of which the copy has not heard.
    in_flight: usize,
    heard: VecDeque<bool>,
}

impl Lane {
    fn new(cursor: usize, end: usize) -> Self {
        Self { cursor, end, ahead: cursor, ..Self::default() }
    }

    fn go_back(&mut self) {
        (self.ahead, self.behind, self.in_flight) = (self.cursor, None, 0);
        self.heard.clear();
    }
}

/// The key as the record has it, and the first one behind it.
fn place(key: usize) -> Vec<String> {
    vec![key.to_string()]
}

fn behind(place: Option<&Vec<String>>) -> usize {
    place.map_or(0, |place| place[0].parse::<usize>().expect("a number") + 1)
}

impl Model {
    fn new(first_xid: u64) -> Self {
        let table = (0..KEYS).map(|key| (key, Row { version: 0, large: 0 })).collect();
        let record = TableRecord::new("public", "t", Vec::new(), 0);
        let parts = cut(None, &[place(FIRST_KEYS - 1)]).expect("it can be cut");
        let mut model = Self {
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
            lanes: Default::default(),
            parts: None,
            record: record.at(None, parts),
            again: BTreeSet::new(),
        };
        model.live();
        model
    }

    /// A life begins, by what the checkpoint says.
    fn live(&mut self) {
        let Attachment { suffix, value } = self.record.attachment(Oid::from(TABLE));
        let held = [(suffix, value.expect("a value"))].into();
        self.record = Progress::read(&held).expect("a record").tables.remove(&TABLE).expect("of the table");
        self.parts = (!self.record.parts.is_empty()).then(|| Arc::new(Parts::new(self.record.clone())));
        self.lanes = match &self.parts {
            None => [Lane::new(FIRST_KEYS, FIRST_KEYS), Lane::new(behind(self.record.after.as_ref()), KEYS)],
            Some(parts) => [By::Lead, By::Helper].map(|by| {
                let part = parts.take(by).expect("a part").part;
                Lane::new(
                    behind(part.after()),
                    behind(part.up_to().map(<[String]>::to_vec).as_ref().or(Some(&place(KEYS - 1)))),
                )
            }),
        };
    }

    /// Who reads again what has to be.
    fn is_lead(&self, lane: usize) -> bool {
        lane == usize::from(self.parts.is_none())
    }

    fn part(&self, lane: usize) -> PartId {
        PartId(u8::from(!self.is_lead(lane)))
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
            Step::Open(lane) if self.is_to_read(lane) => {
                self.windows_opened += 1;
                let id = WindowId(self.windows_opened);
                let place = (Oid::from(TABLE), self.part(lane));
                let (epoch, ..) = self.windows.open(id, place, Vec::new(), self.lanes[lane].behind, Lsn::INVALID);
                let fence = match self.fence {
                    Some((of, fence)) if of == epoch => fence,
                    _ => self.xid(),
                };
                self.fence = Some((epoch, fence));
                self.lanes[lane].reading = Some((id, fence));
            }
            Step::Read(lane) => self.read(lane),
            Step::Hear(lane) => self.hear(lane),
            Step::Die(inside) => {
                self.windows = Windows::new(NOTED);
                self.fence = None;
                self.live();
                // The checkpoint covers it up to its last change, and the server sends it again.
                self.comes_again |= inside && self.delivered > 0;
            }
            Step::Commit(_) | Step::End(_) | Step::Abort(_) | Step::Deliver | Step::Open(_) => {}
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
        self.windows.transaction(Streamed { xid: xid32(transaction.xid), commit: Lsn::INVALID });
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

    /// Once the keys of its part were read, the lead reads what is left again when the stream has nothing of it.
    fn is_to_read(&self, lane: usize) -> bool {
        let Lane { ahead, end, reading, in_flight, .. } = &self.lanes[lane];
        reading.is_none() && (ahead < end || *in_flight == 0 && self.is_lead(lane) && !self.again.is_empty())
    }

    fn read(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        let Some((id, fence)) = lane.reading.take() else { return };
        let mut running: Vec<u64> = self.open.iter().chain(&self.committed).map(|it| it.xid).collect();
        running.sort_unstable();
        let xmin = running.first().copied().unwrap_or(self.next_xid);
        let text: Vec<_> = running.iter().map(u64::to_string).collect();
        let snapshot: Visibility = format!("{xmin}:{}:{}", self.next_xid, text.join(",")).parse().expect("a snapshot");
        if snapshot.xmin() < fence {
            self.windows.abandon(id, Some(&snapshot));
            return;
        }
        let keys = if lane.ahead < lane.end { [lane.ahead].into() } else { self.again.clone() };
        let rows = keys.iter().filter_map(|key| Some((*key, *self.table.get(key)?))).collect();
        let cursor = (lane.ahead < lane.end).then_some(lane.ahead + 1);
        lane.ahead = cursor.unwrap_or(lane.end);
        lane.behind = Some(id);
        lane.in_flight += 1;
        let chunk = Chunk { lane: at, rows, keys, cursor };
        self.windows.load(id, chunk, Sight::ById(snapshot), Lsn::from(self.log.len() as u64));
    }

    fn is_copied(&self) -> bool {
        self.lanes.iter().all(|lane| lane.cursor == lane.end) && self.again.is_empty()
    }

    /// Of one chunk after another. If one was not written, the copy of the part goes back to what was, once it has heard of all.
    fn hear(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        let Some(is_written) = lane.heard.pop_front() else { return };
        lane.in_flight -= 1;
        if !is_written && lane.in_flight == lane.heard.len() {
            assert!(lane.heard.iter().all(|is_written| !is_written), "none is written behind one that was not");
            lane.go_back();
        } else if !is_written {
            lane.heard.push_front(is_written);
            lane.in_flight += 1;
        }
    }

    fn close(&mut self, closed: Closed<Chunk>) {
        let (at, chunk) = (closed.chunk.lane, closed.chunk);
        self.lanes[at].heard.push_back(closed.fates.is_ok());
        let Ok(fates) = closed.fates else { return };
        let mut again = BTreeSet::new();
        for (key, row) in chunk.rows {
            match fates.of(&key.to_be_bytes()) {
                Fate::Write => self.topic.push((key, Record::Row(row))),
                Fate::Superseded => {}
                Fate::ReadAgain => drop(again.insert(key)),
            }
        }
        self.again.retain(|key| !chunk.keys.contains(key));
        self.again.append(&mut again);
        let id = self.part(at);
        let lane = &mut self.lanes[at];
        let last = chunk.cursor.map(|cursor| place(cursor - 1));
        if let Some(cursor) = chunk.cursor {
            assert_eq!(lane.cursor + 1, cursor, "a cursor passes nothing by");
            lane.cursor = cursor;
        }
        let is_end = last.is_some() && lane.cursor == lane.end;
        self.record = if let Some(parts) = &self.parts {
            let advance = Advance { parts: Arc::clone(parts), id, last, rows: 1, bytes: 1, is_end };
            Cursor::Part(advance).written(Oid::from(TABLE));
            parts.record()
        } else {
            self.record.advanced(last, 1, 1)
        };
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
        for lane in [0, 1].repeat(4 * KEYS) {
            self.step(Step::Read(lane));
            while !self.lanes[lane].heard.is_empty() {
                self.step(Step::Hear(lane));
            }
            self.step(Step::Open(lane));
        }
        assert!(self.is_copied(), "when nothing happens any more, all of it can be copied");
        assert_eq!((self.record.after.clone(), self.record.parts.len()), (Some(place(KEYS - 1)), 0));
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
        4 => (0..2_usize).prop_map(Step::Open),
        4 => (0..2_usize).prop_map(Step::Read),
        3 => (0..2_usize).prop_map(Step::Hear),
        1 => any::<bool>().prop_map(Step::Die),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn no_key_steps_back_and_none_is_lost_between_parts(
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

/// Chunks of parts are not behind each other, and what is said of a table is said of all of its parts.
#[test]
fn parts_of_a_table_have_chains_of_their_own() {
    let mut windows = Windows::new(NOTED);
    let place = |part| (Oid::from(TABLE), PartId(part));
    let snapshot = || by_id("20:20:");
    for (id, part, behind) in [(1, 0, None), (2, 1, None), (3, 0, Some(1)), (4, 1, Some(2)), (5, 1, Some(4))] {
        windows.open(WindowId(id), place(part), Vec::new(), behind.map(WindowId), Lsn::INVALID);
    }
    let mut close = |id| {
        windows.load(WindowId(id), id, snapshot(), Lsn::from(5));
        windows.close_due(Lsn::from(5)).map(|closed| (closed.chunk, closed.fates.is_ok()))
    };
    assert_eq!(close(4), None, "the one before it is open");
    assert_eq!([close(2), close(1), close(3)], [Some((2, true)), Some((1, true)), Some((3, true))]);
    let then = windows.close_due(Lsn::from(5)).map(|closed| (closed.chunk, closed.fates.is_ok()));
    assert_eq!(then, Some((4, true)), "whatever was written of the other part meanwhile");
    windows.open(WindowId(6), place(0), Vec::new(), Some(WindowId(3)), Lsn::INVALID);
    windows.spoil(Oid::from(TABLE), Spoilt::Truncated);
    for id in [5, 6] {
        windows.load(WindowId(id), id, snapshot(), Lsn::from(5));
        let closed = windows.close_due(Lsn::INVALID).expect("it need not be waited for");
        assert_eq!(closed.fates.expect_err("it is spoilt"), Spoilt::Truncated);
    }
}

/// The first window of each part may note as much as that of a table, and is the last that makes room.
#[test]
fn what_comes_behind_makes_room_before_the_first_of_any_part() {
    let mut windows = Windows::<()>::new(1 << 20);
    for (id, part, behind) in [(1, 0, None), (2, 0, Some(1)), (3, 1, None), (4, 1, Some(3)), (5, 2, None)] {
        windows.open(WindowId(id), (Oid::from(TABLE), PartId(part)), Vec::new(), behind.map(WindowId), Lsn::INVALID);
    }
    windows.transaction(streamed(10));
    let mut order = Vec::new();
    for number in 0_u64..30_000 {
        windows.note(Oid::from(TABLE), &number.to_be_bytes(), false);
        let spoilt = windows.open.iter().filter(|window| window.spoilt.is_some()).map(|window| window.id.0);
        let news: Vec<u64> = spoilt.filter(|id| !order.contains(id)).collect();
        order.extend(news);
        assert!(windows.noted_bytes <= 1 << 20);
    }
    assert_eq!(order, [4, 2, 5, 3, 1]);
}
