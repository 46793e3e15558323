//! What the snapshot of a chunk sees of the transactions that are streamed: by their ids where it was taken at the server that the stream comes from, and
//! by where their commits lie in the log where it was taken at a standby. The argument is in [`Windows`](super::Windows).
//!
//! Neither can be asked what only the other knows: ids of a standby's snapshot say of no transaction that it had ended, and a position says nothing of what the
//! primary shows to others.

use std::str::FromStr;

use pgoutput::{Lsn, Xid};

use super::visibility::{NoSnapshot, Visibility};

/// A transaction that was streamed, or is coming in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Streamed {
    pub(crate) xid: Xid,
    /// Where its commit record starts, which is what a Begin says.
    pub(crate) commit: Lsn,
}

/// What had been streamed, in whole or in part, when a window was opened, and what a snapshot of a standby has to have for it to see all of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Horizon {
    /// How far the standby must have replayed the log.
    pub(crate) replayed: Lsn,
    /// The highest id among all that was streamed.
    pub(crate) highest: Option<Xid>,
}

/// What a snapshot sees.
#[derive(Debug)]
pub(crate) enum Sight {
    /// It was taken at the server that the stream comes from.
    ById(Visibility),
    /// It was taken at a standby.
    ByReplay(ReplaySight),
}

/// What a snapshot of a standby sees.
#[derive(Debug)]
pub(crate) struct ReplaySight {
    /// `pg_last_wal_replay_lsn()` before it was taken: every record that ends there or before was replayed.
    pub(crate) replayed: Lsn,
    /// The ids that it may see.
    pub(crate) ceiling: Ceiling,
    /// A snapshot of the primary, for whoever remembers which transactions run there. It says nothing of what the standby shows.
    pub(crate) primary: Visibility,
}

/// From which id on a snapshot of a standby sees nothing: the end of the text form of its `pg_current_snapshot()`, which lists no transaction that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ceiling(Visibility);

impl Horizon {
    /// For a stream that has come to `reached`, and has streamed, or is streaming, `last` of all transactions.
    pub(crate) fn new(reached: Lsn, last: Option<Streamed>, highest: Option<Xid>) -> Self {
        // Of a transaction that is coming in, part of which is in Kafka, the commit is still ahead. One that is replayed ends behind its start.
        let behind_last = last.map_or(Lsn::INVALID, |last| Lsn::from(u64::from(last.commit).saturating_add(1)));
        Self { replayed: reached.max(behind_last), highest }
    }
}

impl Sight {
    /// Whether it certainly sees what the transaction has done, if anything came of it. Of a standby's some more may be seen.
    pub(crate) fn sees(&self, streamed: Streamed) -> bool {
        match self {
            Self::ById(visibility) => visibility.has_ended(streamed.xid),
            Self::ByReplay(sight) => sight.sees(streamed),
        }
    }

    /// Whether it sees all that had been streamed when a window was opened: `unnoted` are those that may not have ended at the server that the stream comes from.
    pub(crate) fn sees_before(&self, horizon: &Horizon, unnoted: &[Xid]) -> bool {
        match self {
            Self::ById(visibility) => unnoted.iter().all(|xid| visibility.has_ended(*xid)),
            Self::ByReplay(sight) => {
                sight.replayed >= horizon.replayed && horizon.highest.is_none_or(|xid| sight.ceiling.is_above(xid))
            }
        }
    }

    /// What the server that the stream comes from shows.
    pub(crate) fn primary(&self) -> &Visibility {
        match self {
            Self::ById(visibility) => visibility,
            Self::ByReplay(sight) => &sight.primary,
        }
    }
}

impl ReplaySight {
    fn sees(&self, streamed: Streamed) -> bool {
        // Records do not overlap: what ends behind the start of a record ends where that ends, or behind it.
        streamed.commit < self.replayed && self.ceiling.is_above(streamed.xid)
    }
}

impl Ceiling {
    /// Whether it lies above the transaction, of which the server can still tell whether it committed.
    pub(crate) fn is_above(&self, xid: Xid) -> bool {
        self.0.has_ended(xid)
    }

    /// The same for an id with all of its bits.
    pub(crate) fn is_above_id(&self, id: u64) -> bool {
        id < self.0.xmax()
    }
}

impl FromStr for Ceiling {
    type Err = NoSnapshot;

    fn from_str(text: &str) -> Result<Self, NoSnapshot> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(replayed: u64, ceiling: &str) -> Sight {
        let (ceiling, primary) = (ceiling.parse().expect("a snapshot"), "1:1:".parse().expect("a snapshot"));
        Sight::ByReplay(ReplaySight { replayed: Lsn::from(replayed), ceiling, primary })
    }

    fn streamed(xid: u32, commit: u64) -> Streamed {
        Streamed { xid: Xid::from(xid), commit: Lsn::from(commit) }
    }

    #[test]
    fn a_standby_shows_what_was_replayed_wholly_and_lies_below_its_ceiling() {
        let sight = sight(200, "100:110:");
        for (xid, commit, expected) in [
            (105, 100, true),
            (105, 199, true),
            (105, 200, false),
            (105, 300, false),
            (110, 100, false),
            (109, 100, true),
        ] {
            assert_eq!(sight.sees(streamed(xid, commit)), expected, "{xid} at {commit}");
        }
    }

    /// Half of it is in Kafka when the window is opened, and its commit is ahead of where the stream is.
    #[test]
    fn a_transaction_that_is_coming_in_has_to_be_seen_too() {
        let between = Horizon::new(Lsn::from(100), Some(streamed(7, 90)), Some(Xid::from(9)));
        let within = Horizon::new(Lsn::from(100), Some(streamed(7, 150)), Some(Xid::from(9)));
        assert!(sight(100, "5:10:").sees_before(&between, &[]));
        assert!(!sight(99, "5:10:").sees_before(&between, &[]));
        assert!(!sight(100, "5:9:").sees_before(&between, &[]), "the highest is hidden");
        for (replayed, expected) in [(100, false), (150, false), (151, true)] {
            assert_eq!(sight(replayed, "5:10:").sees_before(&within, &[]), expected, "{replayed}");
        }
    }
}
