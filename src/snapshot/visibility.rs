//! What a snapshot of the server sees, by transaction ids.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use pgoutput::Xid;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Which transactions a snapshot sees: the text form of `pg_snapshot`, as `pg_current_snapshot()` gives it, such as `100:110:103,107`.
/// Source: PostgreSQL documentation, "Transaction ID and Snapshot Information Functions".
///
/// It knows top-level transactions only, and so does the stream: a Begin names no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visibility {
    /// Every transaction before it had ended.
    xmin: u64,
    /// No transaction from it on had ended.
    xmax: u64,
    /// Those in between that had not ended, in order.
    running: Vec<u64>,
}

/// The id of a transaction with all of its 64 bits, which does not come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct FullXid(u64);

/// The newest snapshot that anybody has seen, for those who remember older ones. Of the ids of the stream it tells what the whole of each is: they
/// are half of it, and come again after 2^32 transactions.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewestLook(Arc<AtomicU64>);

/// The text is no `pg_snapshot`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no pg_snapshot")]
pub(crate) struct NoSnapshot(String);

impl Visibility {
    /// The lowest transaction that had not ended; all before it had.
    pub(crate) fn xmin(&self) -> u64 {
        self.xmin
    }

    /// Whether it was taken before another of the same server. Two that see the same are not.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        // Transactions only ever begin and end.
        (self.xmax, other.running.len()) < (other.xmax, self.running.len())
    }

    /// Whether the transaction had ended, so that what it did is seen if it committed.
    ///
    /// The stream has the lower half of an id. It belongs to a transaction that lies within 2^31 of this snapshot, as every transaction does of
    /// which the server can still tell whether it committed: so this is for snapshots that were taken lately. Of those that are remembered one asks
    /// [`had_ended`](Self::had_ended).
    pub(crate) fn has_ended(&self, xid: Xid) -> bool {
        self.had_ended(self.near(xid))
    }

    /// Whether the transaction had ended, however long ago this snapshot was taken.
    pub(crate) fn had_ended(&self, FullXid(xid): FullXid) -> bool {
        xid < self.xmax && self.running.binary_search(&xid).is_err()
    }

    /// The whole id of a transaction of which the server can still tell whether it committed.
    pub(crate) fn near(&self, xid: Xid) -> FullXid {
        FullXid::near(self.xmax, xid)
    }

    /// The id from which on none had ended.
    pub(crate) fn xmax(&self) -> u64 {
        self.xmax
    }

    /// The whole id of a transaction that has left a row that this snapshot sees.
    pub(crate) fn seen_writer(&self, xid: Xid) -> FullXid {
        /// Those before it are no transactions, and stand for long ago.
        const FIRST_NORMAL: u32 = 3;
        let distance = low(self.xmax).wrapping_sub(u32::from(xid)).wrapping_sub(1);
        if u32::from(xid) < FIRST_NORMAL {
            return FullXid(0);
        }
        FullXid(self.xmax.saturating_sub(u64::from(distance) + 1))
    }
}

impl FullXid {
    /// What the stream and the catalog have of it.
    pub(crate) fn xid(self) -> Xid {
        low(self.0).into()
    }

    /// The transaction with this lower half that is nearest to another. What would be before the first that there was had ended before everything.
    fn near(other: u64, xid: Xid) -> Self {
        let distance = u32::from(xid).wrapping_sub(low(other)).cast_signed();
        Self(other.saturating_add_signed(distance.into()))
    }
}

impl NewestLook {
    /// Takes note of a snapshot, which may be older than what was seen.
    pub(crate) fn observe(&self, seen: &Visibility) {
        self.0.fetch_max(seen.xmax, Ordering::Relaxed);
    }

    /// The whole id of a transaction of the stream. The server keeps log for no longer than 2^31 transactions, and somebody looks again before there
    /// are so many new ones.
    pub(crate) fn full(&self, xid: Xid) -> FullXid {
        FullXid::near(self.0.load(Ordering::Relaxed), xid)
    }
}

fn low(id: u64) -> u32 {
    u32::try_from(id & u64::from(u32::MAX)).unwrap_or_default()
}

impl FromStr for Visibility {
    type Err = NoSnapshot;

    fn from_str(text: &str) -> Result<Self, NoSnapshot> {
        let parse = || {
            let mut parts = text.split(':');
            let (xmin, xmax, running) = (parts.next()?, parts.next()?, parts.next()?);
            let (xmin, xmax): (u64, u64) = (xmin.parse().ok()?, xmax.parse().ok()?);
            let running: Vec<u64> = if running.is_empty() {
                Vec::new()
            } else {
                running.split(',').map(|id| id.parse().ok()).collect::<Option<_>>()?
            };
            let is_in_order = running.is_sorted() && xmin <= xmax;
            let is_between = running.iter().all(|id| (xmin..xmax).contains(id));
            (parts.next().is_none() && is_in_order && is_between).then_some(Self { xmin, xmax, running })
        };
        parse().ok_or_else(|| NoSnapshot(text.to_owned()))
    }
}

impl fmt::Display for Visibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (position, id) in self.running.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            write!(f, "{id}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(snapshot: &str, xid: u32) -> bool {
        snapshot.parse::<Visibility>().expect("a snapshot").has_ended(Xid::from(xid))
    }

    #[test]
    fn what_had_ended_is_seen() {
        for (xid, expected) in
            [(99, true), (100, false), (101, true), (103, false), (109, true), (110, false), (500, false)]
        {
            assert_eq!(seen("100:110:100,103", xid), expected, "{xid}");
        }
    }

    #[test]
    fn a_later_snapshot_sees_more() {
        let order =
            ["100:110:100,103", "103:110:103", "103:111:103,110", "111:111:"].map(|text| text.parse().expect(text));
        for (position, snapshot) in order.iter().enumerate() {
            for (other_position, other) in order.iter().enumerate() {
                let is_before = Visibility::is_before(snapshot, other);
                assert_eq!(is_before, position < other_position, "{snapshot} and {other}");
            }
        }
    }

    /// Ids have 64 bits in a snapshot, and 32 of them in the stream.
    #[test]
    fn ids_wrap_around() {
        let epoch = 1_u64 << 32;
        let snapshot = format!("{}:{}:{}", epoch - 5, epoch + 5, epoch - 3);
        for (xid, expected) in [
            (u32::MAX - 10, true),
            (u32::MAX - 2, false),
            (u32::MAX - 1, true),
            (3, true),
            (4, true),
            (5, false),
            (90, false),
        ] {
            assert_eq!(seen(&snapshot, xid), expected, "{xid}");
        }
        assert!(seen("3:5:", u32::MAX), "it would be from before the first");
    }

    /// A snapshot that is remembered for longer than an id lasts is asked with the whole of it.
    #[test]
    fn an_id_that_comes_again_is_another() {
        let newest = NewestLook::default();
        let look = |text: &str| -> Visibility { text.parse().expect("a snapshot") };
        let (old, now) = (look("1000:1010:1003"), look("3000000900:3000001000:"));
        newest.observe(&old);
        let before = newest.full(Xid::from(900));
        newest.observe(&now);
        newest.observe(&old);
        let after = newest.full(Xid::from(3_000_000_900));
        assert!(before < after && old.had_ended(before) && !old.had_ended(after) && now.had_ended(after));
        assert!(!old.had_ended(newest.full(Xid::from(3_000_001_003))));
        newest.observe(&look("4294967400:4294967400:"));
        let again = newest.full(Xid::from(900));
        assert!(again > before && !old.had_ended(again), "it has the number of one that had ended");
    }

    #[test]
    fn who_has_written_what_is_seen_came_before() {
        let epoch = 1_u64 << 32;
        let seen: Visibility = format!("{}:{}:", epoch + 10, epoch + 10).parse().expect("a snapshot");
        for (xid, expected) in
            [(9, epoch + 9), (10, 10), (11, 11), (u32::MAX, epoch - 1), (2, 0), (1, 0), (3, epoch + 3)]
        {
            assert_eq!(seen.seen_writer(Xid::from(xid)), FullXid(expected), "{xid}");
        }
        let young: Visibility = "5:5:".parse().expect("a snapshot");
        assert_eq!(young.seen_writer(Xid::from(900)), FullXid(0));
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        for text in ["", "1", "1:2", "1:2:3", "2:1:", "1:9:4,3", "1:9:x", "1:9:3:", "-1:2:", "1:9:,"] {
            assert!(text.parse::<Visibility>().is_err(), "{text}");
        }
        for text in ["1:1:", "100:110:103,107"] {
            assert_eq!(text.parse::<Visibility>().expect("a snapshot").to_string(), text);
        }
    }
}
