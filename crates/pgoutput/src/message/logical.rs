//! Message: what an application wrote to the log itself.

use std::fmt;

use bytes::Bytes;

use crate::{DecodeError, Lsn, Xid, reader::Reader};

const TRANSACTIONAL: u8 = 1;

/// `M`: a message of `pg_logical_emit_message`. Sent only with the option `messages`.
///
/// `Debug` shows the content's size, not the content.
#[derive(Clone, PartialEq, Eq)]
pub struct LogicalMessage {
    /// The transaction, or subtransaction, inside a streamed block only.
    pub xid: Option<Xid>,
    /// Whether it belongs to the transaction around it. One that does not has **no Begin and no Commit**: it comes when
    /// it is read from the log, between transactions, even when the transaction that wrote it was rolled back.
    pub transactional: bool,
    /// Where the message ends in the log.
    pub lsn: Lsn,
    /// What the application chose to tell its messages from others.
    pub prefix: String,
    /// The message. It can be any bytes.
    pub content: Bytes,
}

impl LogicalMessage {
    pub(crate) fn read(mut reader: Reader, streamed: bool) -> Result<Self, DecodeError> {
        let xid = reader.streamed_xid(streamed)?;
        let transactional = reader.flags("flags", TRANSACTIONAL)? == TRANSACTIONAL;
        let lsn = reader.lsn("message LSN")?;
        let prefix = reader.text("prefix")?;
        let length = reader.count32("content length", 1)?;
        let content = reader.take("content", length)?;
        reader.finish(Self { xid, transactional, lsn, prefix, content })
    }
}

impl fmt::Debug for LogicalMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogicalMessage")
            .field("xid", &self.xid)
            .field("transactional", &self.transactional)
            .field("lsn", &self.lsn)
            .field("prefix", &self.prefix)
            .field("content", &format_args!("{} bytes", self.content.len()))
            .finish()
    }
}
