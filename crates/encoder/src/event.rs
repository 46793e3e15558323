//! What an event says besides the row: which change it is, where it comes from, and its place in its transaction.

use pgoutput::{Begin, Delete, Insert, Lsn, Timestamp, Update, Xid};

use crate::avro::{self, Fragment};

/// One change of one table.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// A new row.
    Insert(&'a Insert),
    /// A changed row.
    Update(&'a Update),
    /// A row that is gone.
    Delete(&'a Delete),
    /// All rows are gone.
    Truncate,
}

/// The transaction that changes belong to, with the parts of an event that all of its changes share already encoded. It is made once for
/// each transaction, when its Begin comes.
#[derive(Debug, Clone)]
pub struct TransactionContext {
    pub(crate) id: Xid,
    pub(crate) commit_lsn: Lsn,
    pub(crate) commit_unix_ms: i64,
    /// `source.ts_ms`
    pub(crate) commit_millis: Fragment<16>,
    /// The text of `source.sequence` up to the change's LSN: 20 digits and four marks at most.
    pub(crate) sequence_start: Fragment<32>,
    /// The rest of that text, `source.ts_us` and `source.ts_ns`.
    pub(crate) sequence_end: Fragment<32>,
    /// `source.txId`
    pub(crate) xid: Fragment<8>,
    /// `source.xmin`, `source.origin` and `source.origin_lsn`
    pub(crate) origin: Vec<u8>,
    /// `transaction` up to the orders: numbers of 10 and 20 digits at most.
    pub(crate) transaction_id: Fragment<48>,
}

impl TransactionContext {
    /// The context of the transaction that a Begin opens.
    pub fn new(begin: &Begin) -> Self {
        Self::from_parts(begin.xid, begin.commit_lsn, begin.commit_time)
    }

    /// The context of a transaction by its parts: for rows that do not come from a Begin.
    pub fn from_parts(xid: Xid, commit_lsn: Lsn, commit_time: Timestamp) -> Self {
        let commit_micros = commit_time.unix_micros();
        let commit_unix_ms = commit_micros.div_euclid(1000);
        let commit_position = u64::from(commit_lsn);
        Self {
            id: xid,
            commit_lsn,
            commit_unix_ms,
            commit_millis: Fragment::new(|out| avro::write_long(out, commit_unix_ms)),
            sequence_start: Fragment::new(|out| out.extend_from_slice(format!("[\"{commit_position}\",\"").as_bytes())),
            sequence_end: Fragment::new(|out| {
                out.extend_from_slice(SEQUENCE_END);
                write_optional_long(out, Some(commit_micros));
                // Past the year 2262 nanoseconds do not fit.
                write_optional_long(out, commit_micros.checked_mul(1000));
            }),
            xid: Fragment::new(|out| write_optional_long(out, Some(u32::from(xid).into()))),
            origin: vec![NULL, NULL, NULL],
            transaction_id: Fragment::new(|out| {
                out.push(SOME);
                avro::write_bytes(out, format!("{xid}:{commit_position}").as_bytes());
            }),
        }
    }

    /// Says that the transaction was replicated from another server, as an Origin message tells after the Begin.
    pub fn set_origin(&mut self, name: &str, commit_lsn: Lsn) {
        self.origin.clear();
        self.origin.extend_from_slice(&[NULL, SOME]);
        avro::write_bytes(&mut self.origin, name.as_bytes());
        write_optional_long(&mut self.origin, Some(u64::from(commit_lsn).cast_signed()));
    }
}

/// What closes the text of `source.sequence`.
pub(crate) const SEQUENCE_END: &[u8] = b"\"]";

/// Where one change comes from.
#[derive(Debug, Clone, Copy)]
pub struct EventContext<'a> {
    /// The transaction it belongs to.
    pub transaction: &'a TransactionContext,
    /// The position of the change, `wal_start` of its frame. Several changes can share one.
    pub lsn: Lsn,
    /// When the change is processed, in nanoseconds since 1970: `ts_ms`, `ts_us` and `ts_ns`.
    pub processed_unix_ns: i64,
}

/// How many events there were before: of the transaction, and of the transaction in one table. Tombstones do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct EventOrder {
    /// `transaction.total_order` of the last event, 0 before the first. With the commit LSN it is an event's identity.
    pub total: u64,
    /// `transaction.data_collection_order` of the last event of the table, 0 before the first.
    pub collection: u64,
}

/// The second branch of a union, which is a value in all optional fields of the envelope but `source.snapshot`.
pub(crate) const SOME: u8 = 2;
/// The first branch, which is null there.
pub(crate) const NULL: u8 = 0;

/// Appends a `["null", "long"]`.
#[inline]
pub(crate) fn write_optional_long(out: &mut Vec<u8>, value: Option<i64>) {
    match value {
        Some(value) => {
            out.push(SOME);
            avro::write_long(out, value);
        }
        None => out.push(NULL),
    }
}
