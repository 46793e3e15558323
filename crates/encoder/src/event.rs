//! What an event says besides the row: which change it is, where it comes from, and its place in its transaction.

use std::fmt;

use pgoutput::{Begin, Delete, Insert, Lsn, Timestamp, Update, Xid};

use crate::{
    SnapshotKind,
    avro::{self, Fragment},
};

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
    /// What the parts below are made of.
    pub(crate) facts: TransactionFacts,
    /// `source.ts_ms`
    pub(crate) commit_millis: Fragment<16>,
    /// `source.snapshot`
    pub(crate) snapshot: Fragment<16>,
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

/// A transaction, or what stands for one.
#[derive(Debug, Clone)]
pub(crate) struct TransactionFacts {
    /// None outside of any transaction, and where a snapshot's is not known.
    pub(crate) xid: Option<Xid>,
    /// None in a snapshot.
    pub(crate) commit_lsn: Option<Lsn>,
    pub(crate) commit_unix_us: i64,
    /// Name and commit LSN of where it was replicated from.
    pub(crate) origin: Option<(String, Lsn)>,
    /// None for what the stream brings.
    pub(crate) snapshot: Option<SnapshotKind>,
}

impl TransactionContext {
    /// The context of the transaction that a Begin opens.
    pub fn new(begin: &Begin) -> Self {
        Self::from_parts(begin.xid, begin.commit_lsn, begin.commit_time)
    }

    /// The context of a transaction by its parts: for rows that do not come from a Begin.
    pub fn from_parts(xid: Xid, commit_lsn: Lsn, commit_time: Timestamp) -> Self {
        Self::encoded(TransactionFacts {
            xid: Some(xid),
            commit_lsn: Some(commit_lsn),
            commit_unix_us: commit_time.unix_micros(),
            origin: None,
            snapshot: None,
        })
    }

    /// What stands for a context outside of any transaction: where the change ends in the log, and when it was sent.
    pub(crate) fn outside(lsn: Lsn, sent_at: Timestamp) -> Self {
        Self::encoded(TransactionFacts { xid: None, ..Self::from_parts(Xid::from(0), lsn, sent_at).facts })
    }

    /// The context of what these facts are about, which has no origin yet.
    pub(crate) fn encoded(facts: TransactionFacts) -> Self {
        let (commit_micros, commit_lsn) = (facts.commit_unix_us, facts.commit_lsn.map(u64::from));
        Self {
            commit_millis: Fragment::new(|out| avro::write_long(out, commit_micros.div_euclid(1000))),
            snapshot: Fragment::new(|out| {
                // The value is the first branch of this union.
                out.push(0);
                avro::write_bytes(out, snapshot_text(facts.snapshot).as_bytes());
            }),
            sequence_start: Fragment::new(|out| match commit_lsn {
                Some(commit_lsn) => out.extend_from_slice(format!("[\"{commit_lsn}\",\"").as_bytes()),
                None => out.extend_from_slice(b"[null,\""),
            }),
            sequence_end: Fragment::new(|out| {
                out.extend_from_slice(SEQUENCE_END);
                write_optional_long(out, Some(commit_micros));
                // Past the year 2262 nanoseconds do not fit.
                write_optional_long(out, commit_micros.checked_mul(1000));
            }),
            xid: Fragment::new(|out| write_optional_long(out, facts.xid.map(|xid| u32::from(xid).into()))),
            origin: vec![NULL, NULL, NULL],
            transaction_id: Fragment::new(|out| {
                out.push(SOME);
                avro::write_bytes(out, facts.id().to_string().as_bytes());
            }),
            facts,
        }
    }

    /// Appends the transaction's id as a `string`: as it is in the events, where it is a branch of a union.
    pub(crate) fn append_id(&self, out: &mut Vec<u8>) {
        let start = out.len();
        self.transaction_id.append_to(out);
        out.remove(start);
    }

    /// Says that the transaction was replicated from another server, as an Origin message tells after the Begin.
    pub fn set_origin(&mut self, name: &str, commit_lsn: Lsn) {
        self.facts.origin = Some((name.to_owned(), commit_lsn));
        self.origin.clear();
        self.origin.extend_from_slice(&[NULL, SOME]);
        avro::write_bytes(&mut self.origin, name.as_bytes());
        write_optional_long(&mut self.origin, Some(u64::from(commit_lsn).cast_signed()));
    }
}

impl TransactionFacts {
    /// What a transaction is called by: its number and the position of its commit. Nothing for what is of no transaction.
    pub(crate) fn id(&self) -> impl fmt::Display {
        fmt::from_fn(|f| match (self.xid, self.commit_lsn) {
            (Some(xid), Some(commit_lsn)) => write!(f, "{xid}:{}", u64::from(commit_lsn)),
            _ => Ok(()),
        })
    }
}

/// The value of `source.snapshot`.
pub(crate) const fn snapshot_text(snapshot: Option<SnapshotKind>) -> &'static str {
    match snapshot {
        None => "false",
        Some(SnapshotKind::Initial) => "true",
        Some(SnapshotKind::Incremental) => "incremental",
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

impl EventOrder {
    /// Counts one event, and returns its ordinal in the transaction.
    #[inline]
    pub(crate) fn advance(&mut self) -> u64 {
        self.total += 1;
        self.collection += 1;
        self.total
    }
}

/// Appends `transaction`; what has no order is of no transaction.
#[inline]
pub(crate) fn write_transaction(context: &EventContext<'_>, order: Option<EventOrder>, out: &mut Vec<u8>) {
    match order {
        Some(order) => {
            context.transaction.transaction_id.append_to(out);
            avro::write_long(out, order.total.cast_signed());
            avro::write_long(out, order.collection.cast_signed());
        }
        None => out.push(NULL),
    }
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
