//! What an event says about itself, as headers of its record: for consumers that want to choose without decoding the value.

use crate::{EventContext, EventOrder, Operation, RecordBatch};

/// Something that a header can say, where there is such a thing: a row of a snapshot has no commit and no ordinal. Its name is the one that Debezium's `ExtractNewRecordState` gives it with `add.headers`, where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metadata {
    /// `__op`: the letter of the operation, `c`, `u`, `d`, `t` or `r`; of a tombstone that of its deletion.
    Operation,
    /// `__db`: the database.
    Database,
    /// `__schema`
    Schema,
    /// `__table`
    Table,
    /// `__lsn`: the position of the change or of the snapshot, in decimal.
    Lsn,
    /// `__commit_lsn`: the position of its transaction's commit, in decimal.
    CommitLsn,
    /// `__txId`: the transaction's id.
    TransactionId,
    /// `__transaction_id`: the transaction's id and its commit LSN, as in the events of Debezium's envelope.
    Transaction,
    /// `__source_ts_ms`: when it was committed, or the snapshot taken, in milliseconds since 1970.
    CommitMillis,
    /// `__source_ts_us`: the same in microseconds.
    CommitMicros,
    /// `__transaction_total_order`: the event's ordinal in its transaction; of a tombstone that of its deletion.
    TotalOrder,
}

impl Metadata {
    /// The header's name.
    pub const fn header(self) -> &'static str {
        match self {
            Self::Operation => "__op",
            Self::Database => "__db",
            Self::Schema => "__schema",
            Self::Table => "__table",
            Self::Lsn => "__lsn",
            Self::CommitLsn => "__commit_lsn",
            Self::TransactionId => "__txId",
            Self::Transaction => "__transaction_id",
            Self::CommitMillis => "__source_ts_ms",
            Self::CommitMicros => "__source_ts_us",
            Self::TotalOrder => "__transaction_total_order",
        }
    }
}

/// The headers of a table's records.
#[derive(Debug)]
pub(crate) struct MetadataHeaders {
    wanted: Vec<Metadata>,
    database: Box<str>,
    schema: Box<str>,
    table: Box<str>,
}

impl MetadataHeaders {
    /// Each of what is wanted, once.
    pub(crate) fn new(wanted: &[Metadata], database: &str, schema: &str, table: &str) -> Self {
        let mut once = Vec::new();
        for metadata in wanted {
            if !once.contains(metadata) {
                once.push(*metadata);
            }
        }
        Self { wanted: once, database: database.into(), schema: schema.into(), table: table.into() }
    }

    /// Adds them to the record that is made next. All values are text.
    #[inline]
    pub(crate) fn add(
        &self,
        operation: Operation,
        context: &EventContext<'_>,
        order: Option<EventOrder>,
        batch: &mut RecordBatch,
    ) {
        if !self.wanted.is_empty() {
            self.add_wanted(operation, context, order, batch);
        }
    }

    fn add_wanted(
        &self,
        operation: Operation,
        context: &EventContext<'_>,
        order: Option<EventOrder>,
        batch: &mut RecordBatch,
    ) {
        for metadata in &self.wanted {
            let data = batch.data();
            let start = data.len();
            if self.write(*metadata, operation, context, order, data).is_some() {
                let value = start..data.len();
                batch.add_header(metadata.header(), value);
            }
        }
    }

    /// Appends a value, if there is one.
    fn write(
        &self,
        metadata: Metadata,
        operation: Operation,
        context: &EventContext<'_>,
        order: Option<EventOrder>,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let transaction = &context.transaction.facts;
        match metadata {
            Metadata::Operation => out.extend_from_slice(operation.letter().as_bytes()),
            Metadata::Database => out.extend_from_slice(self.database.as_bytes()),
            Metadata::Schema => out.extend_from_slice(self.schema.as_bytes()),
            Metadata::Table => out.extend_from_slice(self.table.as_bytes()),
            Metadata::Lsn => write_number(u64::from(context.lsn), out),
            Metadata::CommitLsn => write_number(u64::from(transaction.commit_lsn?), out),
            Metadata::TransactionId => write_number(u32::from(transaction.xid?), out),
            Metadata::Transaction => {
                let (xid, commit_lsn) = (transaction.xid?, transaction.commit_lsn?);
                write_number(u32::from(xid), out);
                out.push(b':');
                write_number(u64::from(commit_lsn), out);
            }
            Metadata::CommitMillis => write_number(transaction.commit_unix_us.div_euclid(1000), out),
            Metadata::CommitMicros => write_number(transaction.commit_unix_us, out),
            Metadata::TotalOrder => write_number(order?.total, out),
        }
        Some(())
    }
}

fn write_number(number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
