//! A record of a topic, as a consumer sees it once it is decoded.

use super::oracle::{Lsn, Row};

/// What Debezium writes in the place of a value that the server did not send.
pub(crate) const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// The schema's name, which is the last part but one of the topic's.
    pub(crate) schema: String,
    /// The table's name, which is the last part of the topic's.
    pub(crate) table: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<Row>,
    /// The header `__debezium.oldkey`.
    pub(crate) old_key: Option<Row>,
    /// The header `__debezium.newkey`.
    pub(crate) new_key: Option<Row>,
    /// The envelope; none in a tombstone.
    pub(crate) event: Option<Event>,
}

/// The envelope, as far as the tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) identity: Identity,
    pub(crate) xid: u32,
    pub(crate) operation: String,
    pub(crate) before: Option<Row>,
    pub(crate) after: Option<Row>,
    /// `source.lsn`
    pub(crate) lsn: Lsn,
    /// `transaction.data_collection_order`
    pub(crate) table_ordinal: u64,
}

/// What names an event for ever. Ordered as the source's history is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Identity {
    pub(crate) commit_lsn: Lsn,
    pub(crate) ordinal: u64,
}
