//! Begin Prepare, Prepare, Commit Prepared, Rollback Prepared and Stream Prepare: two-phase commit (protocol version
//! 3).
//!
//! A prepared transaction is sent when it is prepared, before it is known whether it will ever commit. That is told
//! later, by [`CommitPrepared`] or [`RollbackPrepared`] with the same global identifier.

use crate::{DecodeError, Lsn, Timestamp, Xid, reader::Reader};

/// `b`: a transaction that was prepared starts; its [`Prepare`] ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeginPrepare {
    /// Where the prepare record starts.
    pub prepare_lsn: Lsn,
    /// Where the prepare record ends.
    pub end_lsn: Lsn,
    /// When the transaction was prepared.
    pub prepare_time: Timestamp,
    /// The transaction.
    pub xid: Xid,
    /// The identifier that the application gave to `PREPARE TRANSACTION`.
    pub global_id: String,
}

impl BeginPrepare {
    pub(crate) fn read(mut reader: Reader) -> Result<Self, DecodeError> {
        let prepare_lsn = reader.valid_lsn("prepare LSN")?;
        let end_lsn = reader.valid_lsn("end LSN")?;
        let prepare_time = reader.timestamp("prepare time")?;
        let xid = reader.xid("transaction id")?;
        let global_id = reader.text("global transaction id")?;
        reader.finish(Self { prepare_lsn, end_lsn, prepare_time, xid, global_id })
    }
}

/// `P`: the transaction that started with [`BeginPrepare`] is prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepare {
    /// Where the prepare record starts.
    pub prepare_lsn: Lsn,
    /// Where the prepare record ends: the position to confirm.
    pub end_lsn: Lsn,
    /// When the transaction was prepared.
    pub prepare_time: Timestamp,
    /// The transaction.
    pub xid: Xid,
    /// The identifier that the application gave to `PREPARE TRANSACTION`.
    pub global_id: String,
}

impl Prepare {
    pub(crate) fn read(mut reader: Reader) -> Result<Self, DecodeError> {
        reader.flags("flags", 0)?;
        let prepare_lsn = reader.valid_lsn("prepare LSN")?;
        let end_lsn = reader.valid_lsn("end LSN")?;
        let prepare_time = reader.timestamp("prepare time")?;
        let xid = reader.xid("transaction id")?;
        let global_id = reader.text("global transaction id")?;
        reader.finish(Self { prepare_lsn, end_lsn, prepare_time, xid, global_id })
    }
}

/// `K`: a prepared transaction committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitPrepared {
    /// Where the record of `COMMIT PREPARED` starts.
    pub commit_lsn: Lsn,
    /// Where that record ends: the position to confirm.
    pub end_lsn: Lsn,
    /// When the transaction committed.
    pub commit_time: Timestamp,
    /// The transaction.
    pub xid: Xid,
    /// The identifier that the application gave to `PREPARE TRANSACTION`.
    pub global_id: String,
}

impl CommitPrepared {
    pub(crate) fn read(mut reader: Reader) -> Result<Self, DecodeError> {
        reader.flags("flags", 0)?;
        let commit_lsn = reader.valid_lsn("commit LSN")?;
        let end_lsn = reader.valid_lsn("end LSN")?;
        let commit_time = reader.timestamp("commit time")?;
        let xid = reader.xid("transaction id")?;
        let global_id = reader.text("global transaction id")?;
        reader.finish(Self { commit_lsn, end_lsn, commit_time, xid, global_id })
    }
}

/// `r`: a prepared transaction was rolled back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollbackPrepared {
    /// Where the prepare record ends, which tells whether the transaction was ever sent to this client.
    pub prepare_end_lsn: Lsn,
    /// Where the record of `ROLLBACK PREPARED` ends: the position to confirm.
    pub rollback_end_lsn: Lsn,
    /// When the transaction was prepared.
    pub prepare_time: Timestamp,
    /// When the transaction was rolled back.
    pub rollback_time: Timestamp,
    /// The transaction.
    pub xid: Xid,
    /// The identifier that the application gave to `PREPARE TRANSACTION`.
    pub global_id: String,
}

impl RollbackPrepared {
    pub(crate) fn read(mut reader: Reader) -> Result<Self, DecodeError> {
        reader.flags("flags", 0)?;
        let prepare_end_lsn = reader.valid_lsn("prepare end LSN")?;
        let rollback_end_lsn = reader.valid_lsn("rollback end LSN")?;
        let prepare_time = reader.timestamp("prepare time")?;
        let rollback_time = reader.timestamp("rollback time")?;
        let xid = reader.xid("transaction id")?;
        let global_id = reader.text("global transaction id")?;
        reader.finish(Self { prepare_end_lsn, rollback_end_lsn, prepare_time, rollback_time, xid, global_id })
    }
}

/// `p`: a streamed transaction was prepared; it stands where [`StreamCommit`](crate::StreamCommit) would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPrepare {
    /// Where the prepare record starts.
    pub prepare_lsn: Lsn,
    /// Where the prepare record ends: the position to confirm.
    pub end_lsn: Lsn,
    /// When the transaction was prepared.
    pub prepare_time: Timestamp,
    /// The top-level transaction.
    pub xid: Xid,
    /// The identifier that the application gave to `PREPARE TRANSACTION`.
    pub global_id: String,
}

impl StreamPrepare {
    pub(crate) fn read(mut reader: Reader) -> Result<Self, DecodeError> {
        reader.flags("flags", 0)?;
        let prepare_lsn = reader.valid_lsn("prepare LSN")?;
        let end_lsn = reader.valid_lsn("end LSN")?;
        let prepare_time = reader.timestamp("prepare time")?;
        let xid = reader.xid("transaction id")?;
        let global_id = reader.text("global transaction id")?;
        reader.finish(Self { prepare_lsn, end_lsn, prepare_time, xid, global_id })
    }
}
