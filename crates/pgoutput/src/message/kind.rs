//! What is known of a message by its first byte alone.

use std::fmt;

use crate::ProtocolVersion;

/// Which message it is. `Display` gives the name in the PostgreSQL documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants of `Message`, which documents them")]
pub enum MessageKind {
    Begin,
    Commit,
    Origin,
    Relation,
    Type,
    Insert,
    Update,
    Delete,
    Truncate,
    Logical,
    StreamStart,
    StreamStop,
    StreamCommit,
    StreamAbort,
    BeginPrepare,
    Prepare,
    CommitPrepared,
    RollbackPrepared,
    StreamPrepare,
}

/// Where a message can come, seen from the streamed blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Inside a block and outside alike.
    Anywhere,
    /// Only between Stream Start and Stream Stop.
    Inside,
    /// Never between Stream Start and Stream Stop.
    Outside,
}

impl MessageKind {
    /// The kind whose messages start with this byte.
    #[inline]
    pub const fn from_tag(tag: u8) -> Option<Self> {
        Some(match tag {
            b'I' => Self::Insert,
            b'U' => Self::Update,
            b'D' => Self::Delete,
            b'B' => Self::Begin,
            b'C' => Self::Commit,
            b'O' => Self::Origin,
            b'R' => Self::Relation,
            b'Y' => Self::Type,
            b'T' => Self::Truncate,
            b'M' => Self::Logical,
            b'S' => Self::StreamStart,
            b'E' => Self::StreamStop,
            b'c' => Self::StreamCommit,
            b'A' => Self::StreamAbort,
            b'b' => Self::BeginPrepare,
            b'P' => Self::Prepare,
            b'K' => Self::CommitPrepared,
            b'r' => Self::RollbackPrepared,
            b'p' => Self::StreamPrepare,
            _ => return None,
        })
    }

    /// The name in the PostgreSQL documentation, such as `Stream Commit`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Begin => "Begin",
            Self::Commit => "Commit",
            Self::Origin => "Origin",
            Self::Relation => "Relation",
            Self::Type => "Type",
            Self::Insert => "Insert",
            Self::Update => "Update",
            Self::Delete => "Delete",
            Self::Truncate => "Truncate",
            Self::Logical => "Message",
            Self::StreamStart => "Stream Start",
            Self::StreamStop => "Stream Stop",
            Self::StreamCommit => "Stream Commit",
            Self::StreamAbort => "Stream Abort",
            Self::BeginPrepare => "Begin Prepare",
            Self::Prepare => "Prepare",
            Self::CommitPrepared => "Commit Prepared",
            Self::RollbackPrepared => "Rollback Prepared",
            Self::StreamPrepare => "Stream Prepare",
        }
    }

    /// The first version of the protocol that has the message.
    #[inline]
    pub const fn since(self) -> ProtocolVersion {
        match self {
            Self::Begin
            | Self::Commit
            | Self::Origin
            | Self::Relation
            | Self::Type
            | Self::Insert
            | Self::Update
            | Self::Delete
            | Self::Truncate
            | Self::Logical => ProtocolVersion::V1,
            Self::StreamStart | Self::StreamStop | Self::StreamCommit | Self::StreamAbort => ProtocolVersion::V2,
            Self::BeginPrepare
            | Self::Prepare
            | Self::CommitPrepared
            | Self::RollbackPrepared
            | Self::StreamPrepare => ProtocolVersion::V3,
        }
    }

    #[inline]
    pub(crate) const fn place(self) -> Place {
        match self {
            Self::Origin
            | Self::Relation
            | Self::Type
            | Self::Insert
            | Self::Update
            | Self::Delete
            | Self::Truncate
            | Self::Logical => Place::Anywhere,
            Self::StreamStop => Place::Inside,
            Self::Begin
            | Self::Commit
            | Self::StreamStart
            | Self::StreamCommit
            | Self::StreamAbort
            | Self::BeginPrepare
            | Self::Prepare
            | Self::CommitPrepared
            | Self::RollbackPrepared
            | Self::StreamPrepare => Place::Outside,
        }
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
