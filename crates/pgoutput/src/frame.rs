//! Replication frames: what the `CopyData` messages of a replication connection hold.
//!
//! Source: PostgreSQL documentation, "Streaming Replication Protocol", under `START_REPLICATION`.

use bytes::Bytes;

use crate::{DecodeError, Lsn, Timestamp, error::Problem, reader::Reader};

const WAL_DATA: u8 = b'w';
const KEEPALIVE: u8 = b'k';
const STATUS_UPDATE: u8 = b'r';

/// What the server sends during replication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// One message of the output plugin.
    WalData(WalData),
    /// A sign of life.
    Keepalive(Keepalive),
}

impl Frame {
    /// Parses the payload of one `CopyData` message. The payload that it carries shares the buffer.
    pub fn parse(bytes: Bytes) -> Result<Self, DecodeError> {
        match bytes.first() {
            Some(&WAL_DATA) => WalData::read(Reader::new("XLogData", bytes)).map(Self::WalData),
            Some(&KEEPALIVE) => Keepalive::read(Reader::new("Primary keepalive message", bytes)).map(Self::Keepalive),
            Some(&found) => {
                let problem = Problem::UnknownTag { found, expected: "'w' (XLogData) or 'k' (keepalive)" };
                Err(DecodeError::new("replication frame", "frame type", 0, problem))
            }
            None => {
                Err(DecodeError::new("replication frame", "frame type", 0, Problem::Truncated { needed: 1, left: 0 }))
            }
        }
    }
}

/// `XLogData` (`w`): one message of the output plugin, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalData {
    /// Where the change lies in the log; for a Commit, where its record ends. It is no identity: several messages can
    /// have the same one, it goes back when a transaction follows one that started later, and it is [`Lsn::INVALID`]
    /// for a message that only prepares the next one, such as Relation and Type, or Begin when an Origin follows.
    pub wal_start: Lsn,
    /// For logical replication always the same as `wal_start`. The documentation's "current end of WAL on the server"
    /// is about physical replication.
    pub wal_end: Lsn,
    /// The server's clock when it sent the frame.
    pub sent_at: Timestamp,
    /// The message, for [`Decoder::decode`](crate::Decoder::decode).
    pub payload: Bytes,
}

impl WalData {
    fn read(mut reader: Reader) -> Result<Self, DecodeError> {
        reader.u8("frame type")?;
        let wal_start = reader.lsn("start of the data")?;
        let wal_end = reader.lsn("end of WAL")?;
        let sent_at = reader.timestamp("send time")?;
        Ok(Self { wal_start, wal_end, sent_at, payload: reader.take_rest() })
    }
}

/// Primary keepalive message (`k`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// How far the server has sent, or passed over because nothing there was to be sent. Confirming it is right only
    /// outside a transaction, with everything before it safely stored.
    pub wal_end: Lsn,
    /// The server's clock when it sent the frame.
    pub sent_at: Timestamp,
    /// Whether the server asks for a [`StatusUpdate`] at once, because it is about to give the connection up, or to
    /// shut down.
    pub reply_requested: bool,
}

impl Keepalive {
    fn read(mut reader: Reader) -> Result<Self, DecodeError> {
        reader.u8("frame type")?;
        let wal_end = reader.lsn("end of WAL")?;
        let sent_at = reader.timestamp("send time")?;
        let reply_requested = reader.flags("reply request", 1)? == 1;
        reader.finish(Self { wal_end, sent_at, reply_requested })
    }
}

/// Standby status update (`r`): what the client tells the server.
///
/// The documentation speaks of "the last WAL byte + 1". With logical replication that is the **end** position of the
/// last transaction that was handled, as a Commit message holds it, with nothing added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusUpdate {
    /// How far the client has received.
    pub written: Lsn,
    /// How far everything is safely stored: the server may forget what lies before it, and moves the slot there.
    pub flushed: Lsn,
    /// How far everything is applied.
    pub applied: Lsn,
    /// The client's clock.
    pub sent_at: Timestamp,
    /// Whether the server shall answer at once with a [`Keepalive`].
    pub reply_requested: bool,
}

impl StatusUpdate {
    /// Its size on the wire in bytes.
    pub const WIRE_BYTES: usize = 34;

    /// Writes the payload of a `CopyData` message.
    pub fn encode(&self) -> [u8; Self::WIRE_BYTES] {
        let mut bytes = [0; Self::WIRE_BYTES];
        bytes[0] = STATUS_UPDATE;
        bytes[1..9].copy_from_slice(&u64::from(self.written).to_be_bytes());
        bytes[9..17].copy_from_slice(&u64::from(self.flushed).to_be_bytes());
        bytes[17..25].copy_from_slice(&u64::from(self.applied).to_be_bytes());
        bytes[25..33].copy_from_slice(&i64::from(self.sent_at).to_be_bytes());
        bytes[33] = u8::from(self.reply_requested);
        bytes
    }

    /// Parses the payload of a `CopyData` message: the server's side of [`StatusUpdate::encode`].
    pub fn parse(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("Standby status update", bytes);
        let found = reader.u8("frame type")?;
        if found != STATUS_UPDATE {
            return Err(reader.error_at(0, "frame type", Problem::UnknownTag { found, expected: "'r'" }));
        }
        let written = reader.lsn("written position")?;
        let flushed = reader.lsn("flushed position")?;
        let applied = reader.lsn("applied position")?;
        let sent_at = reader.timestamp("send time")?;
        let reply_requested = reader.flags("reply request", 1)? == 1;
        reader.finish(Self { written, flushed, applied, sent_at, reply_requested })
    }
}
