//! Copies at once in a model of a server: rows that only the server tells apart, transactions that are streamed once their commit record is
//! written and seen by others only when they have ended, a stream that lags and is met in the middle of transactions, copies that fail, and lives
//! that end.
//!
//! The topic is folded as a consumer does it, who counts how often each value is there. No count may ever be below zero, and in the end
//! they must be those of the table. Rules that are broken on purpose are found out.

use std::collections::BTreeMap;

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use super::*;
use crate::snapshot::{Epoch, Streamed, Windows};

const TABLE: u32 = 7;
const VALUES: u8 = 2;
/// How many rows a chunk has.
const CHUNK: usize = 2;

#[derive(Debug, Clone, Copy)]
enum Step {
    Begin,
    /// By the n-th transaction that is open.
    Insert(usize, u8),
    Delete(usize, u8),
    Truncate(usize),
    /// Writes the commit record: from here on it is streamed.
    Commit(usize),
    /// Lets go of the locks and is seen: of the n-th one that has committed, or aborts the n-th one that has not.
    End(usize),
    Abort(usize),
    /// Streams one change, or waits.
    Deliver,
    /// The copy goes one step on, or fails.
    Copy,
    Fail,
    /// Somebody asks for another copy.
    Ask,
    /// The table is taken out of the publication: what is written to it from here on is not in the log.
    Gone,
    /// A Kafka transaction commits.
    Checkpoint,
    /// The life ends; the next one begins with the checkpoint.
    Die,
}

/// A rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// What the snapshot does not see need not wait for the rows.
    Waiting,
    /// What the snapshot sees is written as well.
    LeavingOut,
    /// A copy begins anew behind what is there.
    Emptying,
    /// The snapshot need not see what was left out in this life; or in one before.
    Unnoted,
    Fence,
    /// Nothing waits while the snapshot is taken.
    Taking,
    /// The copy is over with its last row.
    Settling,
    /// What there is of a table that is gone is taken out at once; or while somebody runs who has written to it before.
    Leaving,
    Running,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    /// The row's number, which only the server knows, and its value.
    Insert(u64, u8),
    Delete(u64, u8),
    Truncate,
}

#[derive(Debug, Clone)]
struct Transaction {
    xid: u64,
    changes: Vec<Change>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    Row(u8),
    Gone(u8),
    Emptied,
}

/// How far the copy's worker is.
#[derive(Debug, Clone, PartialEq)]
enum Worker {
    Begins,
    Takes(WindowId, u64),
    /// With the rows that are still to be written.
    Reads(WindowId, Vec<u8>, bool),
    Settles(WindowId),
}

/// What is in Kafka for good.
#[derive(Debug, Clone)]
struct Checkpoint {
    records: usize,
    /// Whole transactions, and changes of the next one.
    position: (usize, usize),
    is_owed: bool,
    is_left: bool,
}

struct Model {
    broken: Broken,
    next_xid: u64,
    next_row: u64,
    open: Vec<Transaction>,
    committed: Vec<Transaction>,
    log: Vec<Transaction>,
    /// What a new snapshot sees.
    table: BTreeMap<u64, u8>,
    position: (usize, usize),
    /// How much of the transaction at the position the checkpoint covered when this life began.
    covered: (usize, usize),
    topic: Vec<Record>,
    windows: Windows<()>,
    windows_opened: u64,
    fence: Option<(Epoch, u64)>,
    at_once: AtOnce,
    worker: Option<Worker>,
    /// A transaction id that was assigned after the table was gone.
    gone: Option<u64>,
    /// Whether what there was of it is taken out.
    is_left: bool,
    checkpoint: Checkpoint,
}

impl Model {
    fn new(broken: Broken) -> Self {
        let mut at_once = AtOnce::default();
        at_once.owe(TABLE.into());
        Self {
            broken,
            next_xid: 700,
            next_row: 3,
            open: Vec::new(),
            committed: Vec::new(),
            log: Vec::new(),
            table: [(0, 0), (1, 0), (2, 1)].into(),
            position: (0, 0),
            covered: (0, 0),
            topic: Vec::new(),
            windows: Windows::new(0),
            windows_opened: 0,
            fence: None,
            at_once,
            worker: Some(Worker::Begins),
            gone: None,
            is_left: false,
            checkpoint: Checkpoint { records: 0, position: (0, 0), is_owed: true, is_left: false },
        }
    }

    fn xid(&mut self) -> u64 {
        self.next_xid += 1;
        self.next_xid - 1
    }

    /// Whether the copy holds the lock of a SELECT.
    fn is_read(&self) -> bool {
        matches!(self.worker, Some(Worker::Reads(..)))
    }

    /// Whether another transaction keeps this one from a row, or from all.
    fn is_locked(&self, by: u64, row: Option<u64>) -> bool {
        let others = self.open.iter().chain(&self.committed).filter(|other| other.xid != by);
        let mut changes = others.flat_map(|other| &other.changes);
        changes.any(|change| match (change, row) {
            (Change::Truncate, _) | (_, None) => true,
            (Change::Delete(locked, _), Some(row)) => *locked == row,
            (Change::Insert(..), Some(_)) => false,
        })
    }

    /// The rows that a transaction sees.
    fn seen_by(&self, transaction: &Transaction) -> BTreeMap<u64, u8> {
        let mut rows = self.table.clone();
        apply(&transaction.changes, &mut rows);
        rows
    }

    fn write(&mut self, which: usize, change: impl FnOnce(&Self, &Transaction) -> Option<Change>) {
        if self.open.is_empty() || self.gone.is_some() {
            return;
        }
        let which = which % self.open.len();
        if let Some(change) = change(self, &self.open[which]) {
            self.open[which].changes.push(change);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Begin => {
                let xid = self.xid();
                self.open.push(Transaction { xid, changes: Vec::new() });
            }
            Step::Insert(which, value) => {
                self.next_row += 1;
                let row = self.next_row;
                self.write(which, |model, it| {
                    (!model.is_locked(it.xid, Some(row))).then_some(Change::Insert(row, value))
                });
            }
            Step::Delete(which, value) => self.write(which, |model, it| {
                let rows = model.seen_by(it);
                let (row, value) =
                    rows.into_iter().find(|(row, found)| *found == value && !model.is_locked(it.xid, Some(*row)))?;
                Some(Change::Delete(row, value))
            }),
            Step::Truncate(which) => self.write(which, |model, it| {
                (!model.is_read() && !model.is_locked(it.xid, None)).then_some(Change::Truncate)
            }),
            Step::Commit(which) if !self.open.is_empty() => {
                let transaction = self.open.remove(which % self.open.len());
                self.log.push(transaction.clone());
                self.committed.push(transaction);
            }
            Step::End(which) if !self.committed.is_empty() => {
                let transaction = self.committed.remove(which % self.committed.len());
                apply(&transaction.changes, &mut self.table);
            }
            Step::Abort(which) if !self.open.is_empty() => drop(self.open.remove(which % self.open.len())),
            Step::Deliver => self.deliver(),
            Step::Copy => self.copy(),
            Step::Fail => self.fail(),
            Step::Ask if self.worker.is_none() && self.gone.is_none() => {
                self.at_once.owe(TABLE.into());
                self.worker = Some(Worker::Begins);
            }
            Step::Gone if self.gone.is_none() => self.gone = Some(self.xid()),
            Step::Checkpoint => {
                self.checkpoint = Checkpoint {
                    records: self.topic.len(),
                    position: self.position,
                    is_owed: self.at_once.owes(TABLE.into()),
                    is_left: self.is_left,
                };
            }
            Step::Die => self.die(),
            Step::Commit(_) | Step::End(_) | Step::Abort(_) | Step::Ask | Step::Gone => {}
        }
        self.settle();
    }

    fn settle(&mut self) {
        let is_early = self.broken == Broken::Settling;
        let reached = if is_early { u64::MAX } else { self.position.0 as u64 };
        if self.at_once.settle(Lsn::from(reached)).is_some() {
            self.worker = None;
        }
        let reached = if self.broken == Broken::Leaving { u64::MAX } else { self.position.0 as u64 };
        if self.at_once.settle_gone(Lsn::from(reached)).is_some() {
            self.topic.push(Record::Emptied);
            self.is_left = true;
        }
    }

    fn deliver(&mut self) {
        let (transactions, changes) = self.position;
        let Some(transaction) = self.log.get(transactions).cloned() else { return };
        if changes == 0 || self.covered == self.position {
            self.windows.transaction(Streamed { xid: xid32(transaction.xid), commit: Lsn::INVALID });
            self.covered = (usize::MAX, 0);
        }
        let Some(change) = transaction.changes.get(changes) else {
            self.position = (transactions + 1, 0);
            return;
        };
        let mut passage = self.at_once.passage(TABLE.into(), xid32(transaction.xid));
        let is_taking = matches!(self.worker, Some(Worker::Takes(..)));
        passage = match (self.broken, passage) {
            (Broken::Waiting, Passage::Wait) if !is_taking => Passage::Write,
            (Broken::Taking, Passage::Wait) if is_taking => Passage::LeaveOut,
            (Broken::LeavingOut, Passage::LeaveOut) if self.is_read() => Passage::Write,
            _ => passage,
        };
        match passage {
            Passage::Wait => return,
            Passage::LeaveOut => {}
            Passage::Write => self.topic.push(match change {
                Change::Insert(_, value) => Record::Row(*value),
                Change::Delete(_, value) => Record::Gone(*value),
                Change::Truncate => Record::Emptied,
            }),
        }
        self.position = (transactions, changes + 1);
    }

    fn copy(&mut self) {
        let Some(worker) = self.worker.clone() else { return };
        if let (Some(gone), Worker::Begins) = (self.gone, &worker) {
            let mut running = self.open.iter().chain(&self.committed);
            if self.broken == Broken::Running || running.all(|it| it.xid > gone) {
                self.at_once.leave(TABLE.into(), Lsn::from(self.log.len() as u64));
                self.worker = None;
            }
            return;
        }
        self.worker = Some(match worker {
            Worker::Begins => {
                self.windows_opened += 1;
                let window = WindowId(self.windows_opened);
                let (epoch, unnoted) = self.windows.streamed();
                let unnoted = if self.broken == Broken::Unnoted { Vec::new() } else { unnoted };
                self.at_once.take(TABLE.into(), window, unnoted);
                let fence = match self.fence {
                    Some((of, fence)) if of == epoch => fence,
                    _ => self.xid(),
                };
                self.fence = Some((epoch, fence));
                Worker::Takes(window, fence)
            }
            Worker::Takes(window, fence) => self.take(window, fence),
            Worker::Reads(window, mut rows, is_first) => {
                if is_first && !self.topic.is_empty() && self.broken != Broken::Emptying {
                    self.topic.push(Record::Emptied);
                }
                let chunk = rows.split_off(rows.len().saturating_sub(CHUNK));
                self.topic.extend(chunk.into_iter().map(Record::Row));
                if rows.is_empty() {
                    self.at_once.finish(window);
                    Worker::Settles(window)
                } else {
                    Worker::Reads(window, rows, false)
                }
            }
            Worker::Settles(window) => Worker::Settles(window),
        });
    }

    fn take(&mut self, window: WindowId, fence: u64) -> Worker {
        let is_emptied =
            |transaction: &Transaction| transaction.changes.iter().any(|change| matches!(change, Change::Truncate));
        if self.open.iter().chain(&self.committed).any(is_emptied) {
            // It waits for the lock.
            return Worker::Takes(window, fence);
        }
        let mut running: Vec<u64> = self.open.iter().chain(&self.committed).map(|it| it.xid).collect();
        running.sort_unstable();
        let xmin = running.first().copied().unwrap_or(self.next_xid);
        let text: Vec<_> = running.iter().map(u64::to_string).collect();
        let snapshot: Visibility = format!("{xmin}:{}:{}", self.next_xid, text.join(",")).parse().expect("a snapshot");
        if snapshot.xmin() < fence && self.broken != Broken::Fence {
            self.at_once.abandon(window);
            return Worker::Begins;
        }
        match self.at_once.taken(window, snapshot, Lsn::from(self.log.len() as u64)) {
            Ok(()) => Worker::Reads(window, self.table.values().copied().collect(), true),
            Err(_) => Worker::Begins,
        }
    }

    fn fail(&mut self) {
        if let Some(Worker::Takes(window, _) | Worker::Reads(window, ..) | Worker::Settles(window)) = self.worker {
            self.at_once.abandon(window);
            self.worker = Some(Worker::Begins);
        }
    }

    fn die(&mut self) {
        let Checkpoint { records, position, is_owed, is_left } = self.checkpoint.clone();
        self.topic.truncate(records);
        self.is_left = is_left;
        (self.position, self.covered) = (position, position);
        (self.windows, self.fence, self.at_once) = (Windows::new(0), None, AtOnce::default());
        self.worker = is_owed.then_some(Worker::Begins);
        if is_owed {
            self.at_once.owe(TABLE.into());
        }
    }

    /// Lets everything come to its end, and copies what is left.
    fn finish(&mut self) {
        for _ in 0..self.open.len() {
            self.step(Step::Commit(0));
        }
        for _ in 0..self.committed.len() {
            self.step(Step::End(0));
        }
        for _ in 0..2000 {
            let is_over = self.worker.is_none() && !self.at_once.owes(TABLE.into());
            if is_over && self.position == (self.log.len(), 0) {
                return;
            }
            self.step(Step::Deliver);
            self.step(Step::Copy);
        }
        panic!("when nothing happens any more, all of it can be copied: {:?}", self.worker);
    }

    fn judge(&self) -> Result<(), String> {
        let mut counts = [0_i64; VALUES as usize];
        for (at, record) in self.topic.iter().enumerate() {
            match record {
                Record::Row(value) => counts[usize::from(*value)] += 1,
                Record::Gone(value) => counts[usize::from(*value)] -= 1,
                Record::Emptied => counts = Default::default(),
            }
            if counts.iter().any(|count| *count < 0) {
                return Err(format!("a row is gone before it is there, at {at}: {:?}", self.topic));
            }
        }
        let mut expected = [0_i64; VALUES as usize];
        if !self.is_left {
            self.table.values().for_each(|value| expected[usize::from(*value)] += 1);
        }
        if counts == expected {
            return Ok(());
        }
        Err(format!("{counts:?} and not {expected:?}: {:?}", self.topic))
    }
}

fn apply(changes: &[Change], rows: &mut BTreeMap<u64, u8>) {
    for change in changes {
        match change {
            Change::Insert(row, value) => drop(rows.insert(*row, *value)),
            Change::Delete(row, _) => drop(rows.remove(row)),
            Change::Truncate => rows.clear(),
        }
    }
}

fn xid32(xid: u64) -> Xid {
    Xid::from(u32::try_from(xid).expect("it is low"))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Begin),
        4 => (0..3_usize, 0..VALUES).prop_map(|(which, value)| Step::Insert(which, value)),
        4 => (0..3_usize, 0..VALUES).prop_map(|(which, value)| Step::Delete(which, value)),
        1 => (0..3_usize).prop_map(Step::Truncate),
        4 => (0..3_usize).prop_map(Step::Commit),
        4 => (0..3_usize).prop_map(Step::End),
        1 => (0..3_usize).prop_map(Step::Abort),
        8 => Just(Step::Deliver),
        6 => Just(Step::Copy),
        1 => Just(Step::Fail),
        1 => Just(Step::Ask),
        1 => Just(Step::Gone),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Die),
    ]
}

fn run(broken: Broken, steps: &[Step]) -> Result<(), String> {
    let mut model = Model::new(broken);
    for step in steps {
        model.step(*step);
    }
    model.judge_midway()?;
    model.finish();
    model.judge()
}

impl Model {
    /// What a consumer has seen so far: the counts need not be those of the table yet.
    fn judge_midway(&self) -> Result<(), String> {
        match self.judge() {
            Err(found) if found.starts_with("a row") => Err(found),
            _ => Ok(()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn no_row_is_lost_doubled_or_gone_before_it_is_there(steps in prop::collection::vec(step(), 1..90)) {
        let judged = run(Broken::Nothing, &steps);
        prop_assert!(judged.is_ok(), "{}", judged.unwrap_err());
    }
}

/// Otherwise the model would not show anything.
#[test]
fn a_rule_that_is_broken_is_found_out() {
    for broken in [
        Broken::Waiting,
        Broken::LeavingOut,
        Broken::Emptying,
        Broken::Unnoted,
        Broken::Fence,
        Broken::Taking,
        Broken::Settling,
        Broken::Leaving,
        Broken::Running,
    ] {
        let mut runner = TestRunner::new_with_rng(
            Config::default(),
            prop::test_runner::TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
        );
        let steps = prop::collection::vec(step(), 1..90);
        let is_found = (0..40_000).any(|_| {
            let steps = steps.new_tree(&mut runner).expect("steps").current();
            run(broken, &steps).is_err()
        });
        assert!(is_found, "{broken:?} is not found out");
    }
}
