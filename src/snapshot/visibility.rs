//! What a snapshot of the server sees, by transaction ids.

use std::{fmt, str::FromStr};

use pgoutput::Xid;
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
    /// which the server can still tell whether it committed.
    pub(crate) fn has_ended(&self, xid: Xid) -> bool {
        let low = |id: u64| u32::try_from(id & u64::from(u32::MAX)).unwrap_or_default();
        let distance = u32::from(xid).wrapping_sub(low(self.xmax)).cast_signed();
        let Some(xid) = self.xmax.checked_add_signed(distance.into()) else {
            // Before the first transaction that there was.
            return true;
        };
        xid < self.xmax && self.running.binary_search(&xid).is_err()
    }
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
