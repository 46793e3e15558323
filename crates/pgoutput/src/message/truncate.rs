//! Truncate: tables were emptied.

use crate::{DecodeError, Oid, Xid, reader::Reader};

const CASCADE: u8 = 1;
const RESTART_IDENTITY: u8 = 2;

/// `T`: tables were emptied by one `TRUNCATE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncate {
    /// The transaction, or subtransaction, inside a streamed block only.
    pub xid: Option<Xid>,
    /// The tables, each described by a [`Relation`](crate::Relation) before: those that were named and, after
    /// `CASCADE`, those that refer to them, as far as they are published.
    pub relations: Vec<Oid>,
    /// Whether the statement said `CASCADE`.
    pub cascade: bool,
    /// Whether the statement said `RESTART IDENTITY`.
    pub restart_identity: bool,
}

impl Truncate {
    pub(crate) fn read(mut reader: Reader, streamed: bool) -> Result<Self, DecodeError> {
        let xid = reader.streamed_xid(streamed)?;
        // The flags stand between the count and what it counts, so that the check of the count lets one byte too few
        // pass. The reads below notice.
        let count = reader.count32("relation count", 4)?;
        let flags = reader.flags("flags", CASCADE | RESTART_IDENTITY)?;
        let mut relations = Vec::with_capacity(count);
        for _ in 0..count {
            relations.push(reader.oid("relation id")?);
        }
        let (cascade, restart_identity) = (flags & CASCADE != 0, flags & RESTART_IDENTITY != 0);
        reader.finish(Self { xid, relations, cascade, restart_identity })
    }
}
