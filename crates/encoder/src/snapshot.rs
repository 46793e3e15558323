//! The snapshot that rows are read in which were there before the stream.

use pgoutput::{Lsn, Timestamp, Xid};

use crate::{TransactionContext, event::TransactionFacts};

/// Why a snapshot was taken: the value of `source.snapshot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SnapshotKind {
    /// `true`: before the stream began. Debezium also tells the first and the last row, of all and of each table; here nobody has to know
    /// which row is the last when it is written.
    Initial,
    /// `incremental`: while the stream runs.
    Incremental,
}

/// The snapshot that rows belong to, with the parts of an event that all of them share already encoded. It is made once for each snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotContext {
    /// Where the rows come from: in the place of a transaction that committed, one that has only read.
    pub(crate) source: TransactionContext,
    pub(crate) lsn: Lsn,
}

impl SnapshotContext {
    /// The snapshot that shows the database as it was at this position of the log, and at this time. `xid` is the transaction that reads
    /// it, if that has a number, as Debezium has it in `source.txId`.
    pub fn new(kind: SnapshotKind, lsn: Lsn, xid: Option<Xid>, taken_at: Timestamp) -> Self {
        let source = TransactionContext::encoded(TransactionFacts {
            xid,
            commit_lsn: None,
            commit_unix_us: taken_at.unix_micros(),
            origin: None,
            snapshot: Some(kind),
        });
        Self { source, lsn }
    }

    /// The position that it shows.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }
}
