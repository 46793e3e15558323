//! Begin, Commit and Origin: the frame of an ordinary transaction.

use crate::{DecodeError, Lsn, Timestamp, Xid, reader::Reader};

/// `B`: a transaction starts. All that follows, up to its [`Commit`], belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// Where the commit record starts; [`Commit::commit_lsn`] will say the same. The documentation calls it the final
    /// LSN. Where the commit record **ends**, which is what gets confirmed, is known at the Commit only.
    pub commit_lsn: Lsn,
    /// When the transaction committed; with an [`Origin`], when it committed there.
    pub commit_time: Timestamp,
    /// The transaction.
    pub xid: Xid,
}

impl Begin {
    pub(crate) fn read(mut reader: Reader) -> Result<Self, DecodeError> {
        let commit_lsn = reader.valid_lsn("final LSN")?;
        let commit_time = reader.timestamp("commit time")?;
        let xid = reader.xid("transaction id")?;
        reader.finish(Self { commit_lsn, commit_time, xid })
    }
}

/// `C`: the transaction ends.
///
/// Its flags are checked to be 0, the only value that is defined, as PostgreSQL's own subscriber does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Where the commit record starts.
    pub commit_lsn: Lsn,
    /// Where the commit record ends. Confirm this one: a server that is asked to start here does not send the
    /// transaction again, and one that is asked to start anywhere before it does.
    pub end_lsn: Lsn,
    /// When the transaction committed.
    pub commit_time: Timestamp,
}

impl Commit {
    pub(crate) fn read(mut reader: Reader) -> Result<Self, DecodeError> {
        reader.flags("flags", 0)?;
        let commit_lsn = reader.valid_lsn("commit LSN")?;
        let end_lsn = reader.valid_lsn("end LSN")?;
        let commit_time = reader.timestamp("commit time")?;
        reader.finish(Self { commit_lsn, end_lsn, commit_time })
    }
}

/// `O`: the transaction was not made here but replicated from elsewhere. It follows the Begin, and there can be
/// several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Where the commit lies on the origin's own server; [`Lsn::INVALID`] for a streamed transaction, which has not
    /// committed yet.
    pub commit_lsn: Lsn,
    /// The origin's name.
    pub name: String,
}

impl Origin {
    pub(crate) fn read(mut reader: Reader) -> Result<Self, DecodeError> {
        let commit_lsn = reader.lsn("commit LSN on the origin server")?;
        let name = reader.text("origin name")?;
        reader.finish(Self { commit_lsn, name })
    }
}
