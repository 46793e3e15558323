//! Stream Start, Stop, Commit and Abort: transactions that are sent while they run (protocol version 2).
//!
//! A large transaction comes as several blocks, each between a [`StreamStart`] and a [`StreamStop`], with other
//! transactions between the blocks. Nothing of it has happened until its [`StreamCommit`]; a [`StreamAbort`] takes back
//! all of it, or what one of its subtransactions did.

use crate::{DecodeError, Lsn, Timestamp, Xid, reader::Reader};

/// `S`: a block of a streamed transaction starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStart {
    /// The top-level transaction. The changes in the block may name subtransactions.
    pub xid: Xid,
    /// Whether it is the transaction's first block.
    pub first_block: bool,
}

impl StreamStart {
    pub(crate) fn read(mut reader: Reader) -> Result<Self, DecodeError> {
        let xid = reader.xid("transaction id")?;
        let first_block = reader.flags("first segment", 1)? == 1;
        reader.finish(Self { xid, first_block })
    }
}

/// `E`: the block ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStop;

impl StreamStop {
    pub(crate) fn read(reader: Reader) -> Result<Self, DecodeError> {
        reader.finish(Self)
    }
}

/// `c`: a streamed transaction committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamCommit {
    /// The top-level transaction.
    pub xid: Xid,
    /// Where the commit record starts.
    pub commit_lsn: Lsn,
    /// Where the commit record ends: the position to confirm.
    pub end_lsn: Lsn,
    /// When the transaction committed.
    pub commit_time: Timestamp,
}

impl StreamCommit {
    pub(crate) fn read(mut reader: Reader) -> Result<Self, DecodeError> {
        let xid = reader.xid("transaction id")?;
        reader.flags("flags", 0)?;
        let commit_lsn = reader.valid_lsn("commit LSN")?;
        let end_lsn = reader.valid_lsn("end LSN")?;
        let commit_time = reader.timestamp("commit time")?;
        reader.finish(Self { xid, commit_lsn, end_lsn, commit_time })
    }
}

/// `A`: a streamed transaction, or a subtransaction of it, was rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamAbort {
    /// The top-level transaction.
    pub xid: Xid,
    /// What was rolled back: a subtransaction, or the same as `xid` for the transaction itself. Changes of a
    /// subtransaction that was made later inside it are rolled back by messages of their own.
    pub subxid: Xid,
    /// Where and when, under `streaming 'parallel'` only.
    pub position: Option<AbortPosition>,
}

/// Where and when a streamed transaction was rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortPosition {
    /// Where the abort record lies.
    pub abort_lsn: Lsn,
    /// When it was rolled back.
    pub abort_time: Timestamp,
}

impl StreamAbort {
    pub(crate) fn read(mut reader: Reader, parallel: bool) -> Result<Self, DecodeError> {
        let xid = reader.xid("transaction id")?;
        let subxid = reader.xid("subtransaction id")?;
        let position = parallel.then(|| AbortPosition::read(&mut reader)).transpose()?;
        reader.finish(Self { xid, subxid, position })
    }
}

impl AbortPosition {
    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        let abort_lsn = reader.lsn("abort LSN")?;
        let abort_time = reader.timestamp("abort time")?;
        Ok(Self { abort_lsn, abort_time })
    }
}
