//! What the source hands to the publishing thread.

use std::time::Instant;

use encoder::{Record, RecordBatch};
use publisher::{Attachment, Position, headers_cost, record_cost};
use tokio::sync::oneshot;

use crate::{
    quarantine::Quarantine,
    snapshot::{Emptied, Notice},
};

/// One piece of work, in the order of the source's history.
#[derive(Debug)]
pub(super) enum Work {
    /// Encoded events.
    Records(Box<Delivery>),
    /// The tables in quarantine: those that are new are to be attached to the next checkpoint, and to none before.
    Quarantine(Quarantine),
    /// The server has nothing more before this position, and no transaction is open.
    Position(QuietPosition),
    /// Rows that were copied from a table, or what the checkpoint is to say of that.
    Copied(Box<Copied>),
}

/// Rows that were copied from a table, whose cost is charged to the memory budget, in their place between transactions.
#[derive(Debug)]
pub(super) struct Copied {
    /// What takes out of the topic what was there before.
    pub(super) emptied: Option<Emptied>,
    /// The records.
    pub(super) batch: RecordBatch,
    /// What the checkpoint says once they are committed: in the same Kafka transaction.
    pub(super) attachments: Vec<Attachment>,
    /// What the topic of notifications is told with that, if there is one.
    pub(super) notices: Vec<Notice>,
    /// Who is told then.
    pub(super) committed: Option<oneshot::Sender<()>>,
}

/// What a record costs in the memory budget.
pub(super) fn cost_of(record: &Record<'_>) -> usize {
    let headers = headers_cost(record.headers().map(|(name, value)| (name.len(), value.len())));
    record_cost(record.key.map_or(0, <[u8]>::len), record.value.map_or(0, <[u8]>::len), headers)
}

/// Encoded events, whose cost is charged to the memory budget.
#[derive(Debug)]
pub(super) struct Delivery {
    /// The records, in order.
    pub(super) batch: RecordBatch,
    /// What the checkpoint is to say as soon as any of them is committed.
    pub(super) attachments: Vec<Attachment>,
    /// The last end of a transaction, or of a message outside of any, inside the batch.
    pub(super) boundary: Option<Boundary>,
    /// The position after the last record: the boundary's, or one inside the transaction that is not over yet.
    pub(super) end: Position,
    /// Whether the server had nothing more to send at this moment, so that waiting for more would only add latency.
    pub(super) source_idle: bool,
    /// When the first byte of it was read.
    pub(super) received_at: Instant,
    /// When the last record was encoded.
    pub(super) encoded_at: Instant,
    /// The commit time of the oldest transaction in it, in microseconds since 1970.
    pub(super) oldest_commit_unix_us: i64,
}

/// Where a transaction, or a message outside of any, ends inside a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Boundary {
    /// How many records of the batch lie before it.
    pub(super) records: usize,
    /// The position of it: the end LSN of the commit, or of the message.
    pub(super) position: Position,
}

/// A position that the server has reached without anything for us.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuietPosition {
    /// The position.
    pub(super) position: Position,
    /// Whether the server waits for us to confirm it, as it does while it shuts down (`WalSndDone`).
    pub(super) urgent: bool,
}
