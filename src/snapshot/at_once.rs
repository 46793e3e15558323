//! Tables that are copied at once: where their rows go among the events.
//!
//! A [window](super::Windows) needs something that tells rows apart. Where nothing does, as in a table with REPLICA IDENTITY FULL and no primary key,
//! an `r` cannot be held against a change: two rows with the same values are two rows, and whether one of them was deleted is not to be
//! seen. So all of such a table is read in one snapshot `A`, and what tells is `A` alone: **what `A` sees is in the copy and never written as a
//! change; what `A` does not see is written as a change, behind the copy.** Each row of the table is then in the topic as often as it is there, and no
//! deletion comes before its row. The argument:
//!
//! 1. As long as the checkpoint says that the table is *owed* a copy, its changes that come before `A` was taken are left out. Each
//!    of their transactions had written its commit record, but others see it only later, after it has waited for synchronous standbys, for
//!    instance. So `A` is refused unless it finds all of them ended: those of this session are remembered
//!    ([`Windows::streamed`](super::Windows::streamed)), and those before that memory began lie below a fence, as with windows. A transaction
//!    that was left out is therefore seen by the `A` that is copied, in this life or a later one; if it is never copied, the table stays owed.
//! 2. While `A` is being taken, the stream waits at the table's first change. Otherwise a table that is written to all the time would
//!    always have a change that was left out and that `A` does not see.
//! 3. Once `A` is there, its ids decide: what it sees is left out, though it may be streamed much later, when the stream lags, or in the log
//!    behind others that `A` does not see. At the first change that it does not see the stream waits until the last row of the copy is
//!    written. Nothing is decided by positions: a transaction may be in the log before `A` was taken, and not seen by it.
//! 4. All that `A` sees has its commit record before `until`, an end of the log that was asked for after `A` was taken. So the copy
//!    is over, and the checkpoint says so, only when the stream has passed that. Whoever resumes from such a checkpoint has nothing left to
//!    leave out, and `A` need not be remembered.
//! 5. A copy that ends before that, for whatever reason, cannot go on: `A` is gone with its transaction. The table is still owed, so that it
//!    begins anew, behind an event that the table was emptied (`t`). What is in the topic before that does not count any more, whichever part of
//!    whichever transaction it is. The same is written where the topic held anything when the copy began.
//! 6. A table that is gone while it is owed a copy, dropped or taken out of the publication, gets none. What its topic has of it is of no time: a part of
//!    a copy, or what lacks the changes that were left out. So its changes are left out on, until the stream has passed `until`, an end of the log
//!    that was asked for after all had ended that ran when the table was found to be gone, since these may have written to it before: behind that
//!    nothing of it comes; and there a `t` takes out what there is. The topic is
//!    then that of a table without rows, which one that was dropped is. If nobody can write the `t`, what is there stays, and that is told. The
//!    checkpoint says that the table is owed a copy until then, so that whoever dies in between leaves the same to the next life.
//!
//! All of it is decided change by change, so that a transaction of any length may be met in its middle, by a hold or by a new life: what of it came
//! before is in the topic, and taken out by 5, or was left out, so that 1 demands that `A` sees the transaction, and then all of it is. A
//! TRUNCATE is a change like any other; it and the copy exclude each other by their locks, and `A` is taken under that. What was rolled back is
//! never sent. The price is what the design of windows avoids: a transaction that is as long as the copy, which keeps dead rows from being
//! removed and whoever alters the table waiting, and a stream that waits for it, and keeps log.

use pgoutput::{Lsn, Oid, Xid};
use rustc_hash::FxHashMap;

use super::{
    visibility::Visibility,
    window::{Spoilt, WindowId},
};

/// The tables that are owed a copy at once. Bounded by the tables that are streamed.
#[derive(Debug, Default)]
pub(crate) struct AtOnce {
    tables: FxHashMap<Oid, Stage>,
}

#[derive(Debug)]
enum Stage {
    /// There is no snapshot.
    Owed,
    /// The snapshot is being taken.
    Taking {
        window: WindowId,
        /// Transactions that were streamed before, and may not have ended.
        unnoted: Vec<Xid>,
    },
    /// Rows are being read in it.
    Taken {
        window: WindowId,
        snapshot: Visibility,
        /// The end of the log, asked for after the snapshot was taken.
        until: Lsn,
        /// Whether all of them are written.
        is_read: bool,
    },
    /// The table is gone.
    Gone {
        /// The end of the log, asked for after that was found.
        until: Lsn,
    },
}

/// What becomes of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    Write,
    /// The copy has it, or will have it.
    LeaveOut,
    /// Nobody can say yet, or rows come before it.
    Wait,
}

impl AtOnce {
    /// Whether the table is owed a copy.
    #[inline]
    pub(crate) fn owes(&self, table: Oid) -> bool {
        !self.tables.is_empty() && self.tables.contains_key(&table)
    }

    /// The table is owed a copy from here on, with nothing of it read yet.
    pub(crate) fn owe(&mut self, table: Oid) {
        self.tables.insert(table, Stage::Owed);
    }

    /// The table is not owed a copy any more.
    pub(crate) fn forgive(&mut self, table: Oid) {
        self.tables.remove(&table);
    }

    /// The table is gone, and was so before the log had come to `until`: there will be no copy.
    pub(crate) fn leave(&mut self, table: Oid, until: Lsn) {
        self.tables.insert(table, Stage::Gone { until });
    }

    /// The snapshot is about to be taken, for a copy under this name. `unnoted` was streamed before, and may not have ended.
    pub(crate) fn take(&mut self, table: Oid, window: WindowId, unnoted: Vec<Xid>) {
        if let Some(stage) = self.tables.get_mut(&table) {
            *stage = Stage::Taking { window, unnoted };
        }
    }

    /// It was taken; `until` is an end of the log that was asked for after that.
    ///
    /// # Errors
    /// It lacks what was left out: another is to be taken. Or the copy was given up meanwhile.
    pub(crate) fn taken(&mut self, of: WindowId, snapshot: Visibility, until: Lsn) -> Result<(), Spoilt> {
        let taking =
            self.tables.values_mut().find(|stage| matches!(stage, Stage::Taking { window, .. } if *window == of));
        let Some(stage) = taking else { return Err(Spoilt::Altered) };
        let Stage::Taking { unnoted, .. } = &*stage else { return Err(Spoilt::Altered) };
        if !unnoted.iter().all(|xid| snapshot.has_ended(*xid)) {
            *stage = Stage::Owed;
            return Err(Spoilt::StillRunning);
        }
        *stage = Stage::Taken { window: of, snapshot, until, is_read: false };
        Ok(())
    }

    /// The table of a copy of which rows may be written.
    pub(crate) fn table_of(&self, of: WindowId) -> Option<Oid> {
        let is_going_on = |stage: &Stage| matches!(stage, Stage::Taken { window, is_read: false, .. } if *window == of);
        self.tables.iter().find_map(|(table, stage)| is_going_on(stage).then_some(*table))
    }

    /// All rows of the copy are written.
    pub(crate) fn finish(&mut self, of: WindowId) {
        for stage in self.tables.values_mut() {
            if let Stage::Taken { window, is_read, .. } = stage
                && *window == of
            {
                *is_read = true;
            }
        }
    }

    /// The copy is given up; the table is still owed one.
    pub(crate) fn abandon(&mut self, of: WindowId) {
        for stage in self.tables.values_mut() {
            if matches!(stage, Stage::Taking { window, .. } | Stage::Taken { window, .. } if *window == of) {
                *stage = Stage::Owed;
            }
        }
    }

    /// What becomes of a change of the table by a transaction.
    pub(crate) fn passage(&self, table: Oid, transaction: Xid) -> Passage {
        match self.tables.get(&table) {
            None => Passage::Write,
            Some(Stage::Owed | Stage::Gone { .. }) => Passage::LeaveOut,
            Some(Stage::Taking { .. }) => Passage::Wait,
            Some(Stage::Taken { snapshot, .. }) if snapshot.has_ended(transaction) => Passage::LeaveOut,
            Some(Stage::Taken { is_read, .. }) => {
                if *is_read {
                    Passage::Write
                } else {
                    Passage::Wait
                }
            }
        }
    }

    /// Takes out a copy that is over: all is written that its snapshot sees, and the stream has come to `reached`, past all of that.
    pub(crate) fn settle(&mut self, reached: Lsn) -> Option<WindowId> {
        let (table, of) = self.tables.iter().find_map(|(table, stage)| match stage {
            Stage::Taken { window, until, is_read: true, .. } if *until <= reached => Some((*table, *window)),
            _ => None,
        })?;
        self.tables.remove(&table);
        Some(of)
    }

    /// Takes out a table that is gone, once the stream has come to `reached`, past all that there is of it.
    pub(crate) fn settle_gone(&mut self, reached: Lsn) -> Option<Oid> {
        let is_past = |stage: &Stage| matches!(stage, Stage::Gone { until } if *until <= reached);
        let table = self.tables.iter().find_map(|(table, stage)| is_past(stage).then_some(*table))?;
        self.tables.remove(&table);
        Some(table)
    }
}

#[cfg(test)]
mod tests;
