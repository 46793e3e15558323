//! The first record of a partition from a position in PostgreSQL's log on, found by looking at a few records.
//!
//! # What is promised
//!
//! The answer is the smallest offset of a record whose [`Position`] is the wanted one or later. So nothing that committed there or later is before
//! it, and no row is that was copied in a snapshot of there or later. (What is behind it is replayed whatever its position is.)
//!
//! # Why few records are enough
//!
//! Of the records that are committed in one partition of one stream's topic:
//!
//! 1. *The commit LSNs of changes never decrease.* The server streams transactions in the order of their commit records, the stream writes them in that
//!    order with one idempotent producer, and goes on after every death behind what was committed. What was written and aborted is not seen: so the
//!    search looks at committed records whatever else is asked for. Changes that were held back and released later keep the order,
//!    since a topic in quarantine gets nothing until all that waits is in it (`crate::quarantine`).
//! 2. *A change's commit LSN is at least the position of every row before it.* A row that was copied has the LSN `H` of the log's end when its
//!    snapshot was taken, and is written once the stream has passed `H` (`crate::snapshot`'s rule 2): every change behind it commits at `H` or later.
//!
//! Rows among each other have no order, and a row's position may be far less than that of the change before it. So one record of each kind
//! proves something else, where `L` is wanted:
//!
//! | found at an offset | what follows |
//! |---|---|
//! | a change before `L` | by 1 and 2, *everything* up to there is before `L` |
//! | a change or a row at `L` or later | the answer is there or before |
//! | a row before `L`, a tombstone | nothing of what is before it |
//!
//! A look at the middle reads on to the first record that proves something, over the marks of transactions, what was aborted or compacted away, tombstones and
//! rows, of the latter for a bounded number. If that was not enough, the search goes on to the right *as if* all were before `L`, and remembers that
//! it is not proven. At the end everything between the last offset that is proven and the answer's upper bound is read, one record after another. In a topic of
//! changes these are about [`SCAN_MAX`] records; where `L` lies behind a long run of copied rows without a change in between, it is that run.
//!
//! # Where that does not hold
//!
//! What was written by two histories is in no order: a stream that was started again at its slot without its checkpoint (`--adopt-slot`) repeats what it had
//! written, and another server's log, written to the same topic by a stream of another name, has positions of its own. Looks are spread over the partition first, and all that is met is compared: if positions
//! go backwards anywhere between two records that it has seen, nothing is inferred any more, and the partition is read from its beginning ([`Answer::backwards`]). Where it has not met
//! the place, the answer is the first record of the history that the looks were at. A search by time or offset needs no order.

use std::ops::ControlFlow;

use pgoutput::Lsn;

use super::position::Position;

/// So few records are read one after another rather than bisected.
pub(crate) const SCAN_MAX: i64 = 512;
/// So many looks are spread over the partition before it is bisected: what two histories have written is met by them more often than not.
const SPREAD: i64 = 8;
/// How many records that prove nothing are passed over in one look.
const UNDECIDED_MAX: u32 = 64;

/// How a log is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// A few records.
    Few,
    /// So many, or all.
    Through(i64),
}

/// A partition, as far as its committed records have positions.
pub(crate) trait Log {
    type Error;

    /// Visits the records from an offset on to before `end`, in their order, until the visitor breaks off.
    fn visit(
        &mut self,
        look: Look,
        from: i64,
        end: i64,
        visit: &mut dyn FnMut(i64, Position) -> ControlFlow<()>,
    ) -> Result<(), Self::Error>;
}

/// A record, and its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) offset: i64,
    pub(crate) lsn: Lsn,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The first record of there or later; none if there is none.
    pub(crate) first: Option<Seen>,
    /// The last change before it that was looked at.
    pub(crate) before: Option<Seen>,
    /// How many records were looked at.
    pub(crate) records: u64,
    /// Two records whose positions are in no order, so that all was read.
    pub(crate) backwards: Option<(Seen, Seen)>,
}

/// Why nothing was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failed<E> {
    /// The log could not be read.
    Log(E),
    /// The record at this offset has no position.
    Unknown(i64),
}

/// Finds the first record between two offsets whose position is `wanted` or later.
pub(crate) fn find<L: Log>(log: &mut L, begin: i64, end: i64, wanted: Lsn) -> Result<Answer, Failed<L::Error>> {
    let mut search = Search { log, wanted, witnesses: Vec::new(), records: 0 };
    if let Some(answer) = search.bisect(begin, end)? {
        return Ok(answer);
    }
    let backwards = search.backwards();
    let scan = search.scan(begin, end)?;
    Ok(Answer {
        first: scan.first,
        before: scan.before,
        records: search.records,
        backwards: backwards.or(scan.backwards),
    })
}

struct Search<'a, L> {
    log: &'a mut L,
    wanted: Lsn,
    /// What looks have found, by offset: a few dozen. Whether it is a change.
    witnesses: Vec<(Seen, bool)>,
    records: u64,
}

enum Found {
    Nothing,
    Before(Seen),
    From(Seen, bool),
    Undecided(i64),
}

struct Scan {
    first: Option<Seen>,
    before: Option<Seen>,
    backwards: Option<(Seen, Seen)>,
}

impl<L: Log> Search<'_, L> {
    /// None if positions go backwards.
    fn bisect(&mut self, begin: i64, end: i64) -> Result<Option<Answer>, Failed<L::Error>> {
        // Everything before `proven` is before what is wanted. Nothing from `right` on is not, up to `first`, or to the end.
        let (mut proven, mut left, mut right) = (begin, begin, end);
        let (mut first, mut before): (Option<Seen>, Option<Seen>) = (None, None);
        let mut spread = (0..SPREAD).filter(|_| end - begin > SPREAD * SCAN_MAX);
        loop {
            let spread = spread.next().map(|part| begin + (end - begin) / SPREAD * part);
            let middle = match spread {
                Some(middle) => middle,
                None if right - left > SCAN_MAX => left + (right - left) / 2,
                None => break,
            };
            let limit = first.filter(|_| spread.is_none()).map_or(end, |first| first.offset);
            match self.look(middle, limit)? {
                Found::Before(seen) => {
                    self.witnesses.push((seen, true));
                    proven = proven.max(seen.offset + 1);
                    left = left.max(proven);
                    before = before.filter(|before| before.offset > seen.offset).or(Some(seen));
                }
                Found::From(seen, is_change) => {
                    self.witnesses.push((seen, is_change));
                    if middle < right {
                        (right, first) = (middle, Some(seen));
                    }
                }
                Found::Nothing => right = right.min(middle),
                Found::Undecided(offset) if spread.is_none() => left = offset + 1,
                Found::Undecided(_) => {}
            }
            if self.backwards().is_some() {
                return Ok(None);
            }
        }
        let scan = self.scan(proven, right)?;
        let newest = scan.before.or(before);
        if scan.backwards.is_some() || newest.zip(before).is_some_and(|(newest, before)| newest.lsn < before.lsn) {
            return Ok(None);
        }
        let first = scan.first.or(first);
        Ok(Some(Answer { first, before: newest, records: self.records, backwards: None }))
    }

    /// Reads on from an offset to the first record that proves something.
    fn look(&mut self, from: i64, limit: i64) -> Result<Found, Failed<L::Error>> {
        let (wanted, mut found, mut unknown, mut undecided) = (self.wanted, Found::Nothing, None, 0);
        let records = &mut self.records;
        let visited = self.log.visit(Look::Few, from, limit, &mut |offset, position| {
            *records += 1;
            match position {
                Position::Change(lsn) if lsn < wanted => found = Found::Before(Seen { offset, lsn }),
                Position::Change(lsn) => found = Found::From(Seen { offset, lsn }, true),
                Position::Row(lsn) if lsn >= wanted => found = Found::From(Seen { offset, lsn }, false),
                Position::Unknown => unknown = Some(offset),
                Position::Row(_) | Position::Follows => {
                    undecided += 1;
                    if undecided < UNDECIDED_MAX {
                        return ControlFlow::Continue(());
                    }
                    found = Found::Undecided(offset);
                }
            }
            ControlFlow::Break(())
        });
        visited.map_err(Failed::Log)?;
        unknown.map_or(Ok(found), |offset| Err(Failed::Unknown(offset)))
    }

    /// Reads one record after another up to the first of there or later.
    fn scan(&mut self, from: i64, end: i64) -> Result<Scan, Failed<L::Error>> {
        let (wanted, mut unknown) = (self.wanted, None);
        let mut scan = Scan { first: None, before: None, backwards: None };
        if from >= end {
            return Ok(scan);
        }
        let records = &mut self.records;
        let visited = self.log.visit(Look::Through(end - from), from, end, &mut |offset, position| {
            *records += 1;
            if position == Position::Unknown {
                unknown = Some(offset);
                return ControlFlow::Break(());
            }
            let Some(seen) = position.lsn().map(|lsn| Seen { offset, lsn }) else { return ControlFlow::Continue(()) };
            if seen.lsn >= wanted {
                scan.first = Some(seen);
                return ControlFlow::Break(());
            }
            if matches!(position, Position::Change(_)) {
                if let Some(before) = scan.before.filter(|before| before.lsn > seen.lsn) {
                    scan.backwards.get_or_insert((before, seen));
                }
                scan.before = Some(seen);
            }
            ControlFlow::Continue(())
        });
        visited.map_err(Failed::Log)?;
        unknown.map_or(Ok(scan), |offset| Err(Failed::Unknown(offset)))
    }

    /// A change that is before something which stands before it.
    fn backwards(&self) -> Option<(Seen, Seen)> {
        let changes = self.witnesses.iter().filter(|(_, is_change)| *is_change);
        changes
            .flat_map(|(change, _)| self.witnesses.iter().map(move |(earlier, _)| (*earlier, *change)))
            .find(|(earlier, change)| earlier.offset < change.offset && earlier.lsn > change.lsn)
    }
}

#[cfg(test)]
mod tests;
