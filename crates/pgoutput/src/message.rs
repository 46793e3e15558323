//! The messages, one file a family.

mod kind;

mod transaction;

mod relation;
mod row;
mod truncate;

mod logical;

mod stream;

mod prepared;

pub use kind::MessageKind;
pub(crate) use kind::Place;
pub use logical::LogicalMessage;
pub use prepared::{BeginPrepare, CommitPrepared, Prepare, RollbackPrepared, StreamPrepare};
pub use relation::{Relation, RelationColumn, ReplicaIdentity, Type};
pub use row::{Delete, Insert, Update};
pub use stream::{AbortPosition, StreamAbort, StreamCommit, StreamStart, StreamStop};
pub use transaction::{Begin, Commit, Origin};
pub use truncate::Truncate;

/// One message of the `pgoutput` plugin.
///
/// Source: PostgreSQL documentation, "Logical Replication Message Formats".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// `B`: a transaction starts.
    Begin(Begin),
    /// `C`: the transaction ends.
    Commit(Commit),
    /// `O`: where the transaction came from.
    Origin(Origin),
    /// `R`: what a table looks like from here on.
    Relation(Relation),
    /// `Y`: the name of a data type that is not built in.
    Type(Type),
    /// `I`: a row is new.
    Insert(Insert),
    /// `U`: a row changed.
    Update(Update),
    /// `D`: a row is gone.
    Delete(Delete),
    /// `T`: tables were emptied.
    Truncate(Truncate),
    /// `M`: a message of `pg_logical_emit_message`.
    Logical(LogicalMessage),
    /// `S`: a block of a streamed transaction starts.
    StreamStart(StreamStart),
    /// `E`: the block ends.
    StreamStop(StreamStop),
    /// `c`: a streamed transaction committed.
    StreamCommit(StreamCommit),
    /// `A`: a streamed transaction, or a subtransaction of it, was rolled back.
    StreamAbort(StreamAbort),
    /// `b`: a transaction that was prepared starts.
    BeginPrepare(BeginPrepare),
    /// `P`: that transaction ends with `PREPARE TRANSACTION`.
    Prepare(Prepare),
    /// `K`: `COMMIT PREPARED`.
    CommitPrepared(CommitPrepared),
    /// `r`: `ROLLBACK PREPARED`.
    RollbackPrepared(RollbackPrepared),
    /// `p`: a streamed transaction was prepared.
    StreamPrepare(StreamPrepare),
}

impl Message {
    /// Which message it is.
    pub const fn kind(&self) -> MessageKind {
        match self {
            Self::Begin(_) => MessageKind::Begin,
            Self::Commit(_) => MessageKind::Commit,
            Self::Origin(_) => MessageKind::Origin,
            Self::Relation(_) => MessageKind::Relation,
            Self::Type(_) => MessageKind::Type,
            Self::Insert(_) => MessageKind::Insert,
            Self::Update(_) => MessageKind::Update,
            Self::Delete(_) => MessageKind::Delete,
            Self::Truncate(_) => MessageKind::Truncate,
            Self::Logical(_) => MessageKind::Logical,
            Self::StreamStart(_) => MessageKind::StreamStart,
            Self::StreamStop(_) => MessageKind::StreamStop,
            Self::StreamCommit(_) => MessageKind::StreamCommit,
            Self::StreamAbort(_) => MessageKind::StreamAbort,
            Self::BeginPrepare(_) => MessageKind::BeginPrepare,
            Self::Prepare(_) => MessageKind::Prepare,
            Self::CommitPrepared(_) => MessageKind::CommitPrepared,
            Self::RollbackPrepared(_) => MessageKind::RollbackPrepared,
            Self::StreamPrepare(_) => MessageKind::StreamPrepare,
        }
    }
}
