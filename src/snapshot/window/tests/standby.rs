//! The standby of the model, and what is broken on purpose to see that it shows it.

use std::collections::BTreeSet;

use super::*;
use crate::snapshot::{Ceiling, ReplaySight};

/// A chunk that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) id: WindowId,
    pub(super) fence: u64,
    /// If it is at the standby.
    pub(super) stage: Option<Stage>,
}

#[derive(Debug)]
pub(super) enum Stage {
    Opened(Horizon),
    /// How far the standby has to come.
    Passed(Horizon, usize),
    /// How far it has come, and the end of the primary's log then.
    Looked(usize, usize),
    Taken(usize, usize, Ceiling, Chunk),
}

/// A rule of the standby's way that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    Nothing,
    /// The standby need not have come to where the stream is.
    Waiting,
    /// A transaction that is coming in need not be seen.
    ComingIn,
    /// Nor what was streamed in an earlier life.
    Passed,
    /// How far the standby has come is asked for after the snapshot was taken.
    Look,
    /// The end of the log is the standby's, or the primary's from before the snapshot.
    StandbysEnd,
    EarlyEnd,
    /// What the standby hides is taken for seen.
    Ceiling,
    /// What is in doubt is taken for seen, as ids would have it.
    Doubt,
}

/// A standby of the server.
#[derive(Debug, Default)]
pub(super) struct Standby {
    /// How many records of the log show, and how many it says that it has replayed.
    pub(super) applied: usize,
    pub(super) told: usize,
    pub(super) ceiling: u64,
}

impl Model {
    /// What the standby shows of a key. Behind a transaction that is hidden there may be two rows of it.
    fn rows_at_standby(&self, key: usize) -> Vec<Row> {
        let mut rows: Vec<Row> = self.first.get(&key).copied().into_iter().collect();
        let mut is_hidden = false;
        for Transaction { xid, writes } in &self.log[..self.standby.applied] {
            let Some((_, _, row)) = writes.iter().rev().find(|(written, ..)| *written == key) else { continue };
            if *xid >= self.standby.ceiling {
                is_hidden = true;
            } else if is_hidden {
                rows.extend(*row);
            } else {
                rows = row.iter().copied().collect();
            }
        }
        rows
    }

    pub(super) fn read(&mut self) {
        let Some(Reading { id, fence, stage }) = self.reading.take() else { return };
        let keys: BTreeSet<usize> = if self.ahead < KEYS { [self.ahead].into() } else { self.again.clone() };
        let cursor = (self.ahead < KEYS).then_some(self.ahead + 1);
        let snapshot = self.snapshot();
        let next = match stage {
            None | Some(Stage::Opened(_)) if snapshot.xmin() < fence => {
                return self.windows.abandon(id, Some(&snapshot));
            }
            None => {
                let rows = keys.iter().filter_map(|key| Some((*key, *self.table.get(key)?))).collect();
                let until = Lsn::from(self.log.len() as u64);
                return self.load(id, Chunk { rows, keys, cursor }, Sight::ById(snapshot), until);
            }
            Some(Stage::Opened(horizon)) if self.broken == Broken::Passed => Stage::Passed(horizon, 0),
            Some(Stage::Opened(horizon)) => {
                let passed = self.passed.filter(|(of, _)| *of == fence).map_or(self.log.len(), |(_, passed)| passed);
                self.passed = Some((fence, passed));
                Stage::Passed(horizon, passed)
            }
            Some(Stage::Passed(horizon, passed)) => {
                let needed = passed.max(usize::try_from(u64::from(horizon.replayed)).expect("a position"));
                let ceiling = self.ceiling();
                let is_above = self.broken == Broken::Ceiling
                    || horizon.highest.is_none_or(|xid| ceiling.is_above(xid))
                        && (self.broken == Broken::Passed || ceiling.is_above_id(fence));
                match self.standby.told {
                    told if told < needed => Stage::Passed(horizon, passed),
                    told if is_above => Stage::Looked(told, self.log.len()),
                    _ => {
                        self.assign_xid();
                        Stage::Passed(horizon, passed)
                    }
                }
            }
            Some(Stage::Looked(told, end)) => {
                let row =
                    |key: &usize| self.rows_at_standby(*key).into_iter().map(|row| (*key, row)).collect::<Vec<_>>();
                let rows = keys.iter().flat_map(row).collect();
                Stage::Taken(told, end, self.ceiling(), Chunk { rows, keys, cursor })
            }
            Some(Stage::Taken(told, early_end, ceiling, chunk)) => {
                let (mut replayed, mut ceiling, mut until) = (told, ceiling, self.log.len());
                match self.broken {
                    Broken::Look => replayed = self.standby.told,
                    Broken::StandbysEnd => until = told,
                    Broken::EarlyEnd => until = early_end,
                    Broken::Ceiling => ceiling = format!("{0}:{0}:", self.next_xid).parse().expect("a snapshot"),
                    Broken::Doubt => replayed = usize::MAX,
                    _ => {}
                }
                let until = Lsn::from(until as u64);
                let sight = ReplaySight { replayed: Lsn::from(replayed as u64), ceiling, primary: snapshot };
                return self.load(id, chunk, Sight::ByReplay(sight), until);
            }
        };
        self.reading = Some(Reading { id, fence, stage: Some(next) });
    }

    fn ceiling(&self) -> Ceiling {
        let Standby { ceiling, .. } = self.standby;
        format!("{ceiling}:{ceiling}:").parse().expect("a snapshot")
    }
}

/// Each rule of the standby's way has a history that comes out well, and does not if it is broken: otherwise the model would not show anything of it.
#[test]
fn a_rule_that_is_broken_is_found_out() {
    use Step::{Apply, Begin, Commit, Deliver, DeliverPart, Die, End, Hear, Open, Read, Restart, Tell};
    let write = |which, key| Step::Write(which, key, Write::Whole);
    // The first key is copied, so that there is a fence already.
    let copied = [Open(true), Apply, Tell, Read, Read, Read, Read, Deliver, Hear];
    let is_written = |key| [Begin, write(0, key), Commit(0), End(0)];
    // The second transaction ends before the first, and the standby has it: what it shows goes beyond the id of the first.
    let out_of_order = [Begin, Begin, write(0, 1), write(0, 2), write(1, 0), Commit(1), End(0), Deliver, Apply, Tell];
    let (two, three, four) = ([Read; 2], [Read; 3], [Read; 4]);
    let changed = [is_written(1), is_written(1)].concat();
    let shown = [Apply, Tell, Apply, Tell];
    let late = [Commit(0), End(0), Deliver];
    let histories: [(Broken, Vec<Step>); 8] = [
        (Broken::Waiting, [&copied[..], &is_written(1), &[Deliver, Open(true)], &four].concat()),
        (Broken::ComingIn, [&copied[..], &out_of_order, &[Commit(0), End(0), DeliverPart, Open(true)], &four].concat()),
        (
            Broken::Passed,
            [&[Begin, write(0, 0), write(0, 1), Commit(0), End(0), DeliverPart, Die(false), Open(true)][..], &four]
                .concat(),
        ),
        (Broken::Look, [&copied[..], &out_of_order, &[Open(true)], &three, &late, &[Apply, Tell, Read]].concat()),
        (Broken::StandbysEnd, [&copied[..], &[Open(true)], &two, &changed, &shown, &two].concat()),
        (Broken::EarlyEnd, [&copied[..], &[Open(true)], &two, &changed, &shown, &two].concat()),
        (
            Broken::Ceiling,
            [&copied[..], &[Begin, write(0, 1), Commit(0), Deliver, Restart, Open(true)], &four].concat(),
        ),
        (Broken::Doubt, [&copied[..], &out_of_order, &[Open(true)], &three, &late, &[Read]].concat()),
    ];
    for (broken, steps) in histories {
        assert_eq!(run(Broken::Nothing, 700, &steps), Ok(()), "{broken:?}");
        assert!(run(broken, 700, &steps).is_err(), "{broken:?} is not found out");
    }
}
