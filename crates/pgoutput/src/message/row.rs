//! Insert, Update and Delete: the changes of rows. Decoding one allocates nothing.

use crate::{
    DecodeError, Oid, OldTuple, Tuple, Xid,
    error::Problem,
    reader::Reader,
    tuple::{NEW, OLD},
};

const NEW_TUPLE: u8 = b'N';
const OLD_KEY: u8 = b'K';
const OLD_ROW: u8 = b'O';

/// `I`: a row is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    /// The transaction, or subtransaction, inside a streamed block only.
    pub xid: Option<Xid>,
    /// The table, which a [`Relation`](crate::Relation) described.
    pub relation: Oid,
    /// The row.
    pub new: Tuple,
}

impl Insert {
    #[inline]
    pub(crate) fn read(mut reader: Reader, streamed: bool) -> Result<Self, DecodeError> {
        let xid = reader.streamed_xid(streamed)?;
        let relation = reader.oid("relation id")?;
        let new = read_new(&mut reader)?;
        reader.finish(Self { xid, relation, new })
    }
}

/// `U`: a row changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The transaction, or subtransaction, inside a streamed block only.
    pub xid: Option<Xid>,
    /// The table, which a [`Relation`](crate::Relation) described.
    pub relation: Oid,
    /// What is known of the row before: with `REPLICA IDENTITY FULL` all of it, else its key, and that only when the
    /// key changed or is stored out of line.
    pub old: OldTuple,
    /// The row after, but for columns that are [`UnchangedToast`](crate::Value::UnchangedToast).
    pub new: Tuple,
}

impl Update {
    #[inline]
    pub(crate) fn read(mut reader: Reader, streamed: bool) -> Result<Self, DecodeError> {
        let xid = reader.streamed_xid(streamed)?;
        let relation = reader.oid("relation id")?;
        let offset = reader.offset();
        let tag = reader.u8("tuple tag")?;
        let (old, new) = match tag {
            NEW_TUPLE => (OldTuple::Absent, Tuple::read(&mut reader, &NEW)?),
            OLD_KEY => (OldTuple::Key(Tuple::read(&mut reader, &OLD)?), read_new(&mut reader)?),
            OLD_ROW => (OldTuple::Full(Tuple::read(&mut reader, &OLD)?), read_new(&mut reader)?),
            found => {
                let problem = Problem::UnknownTag { found, expected: "'K', 'O' or 'N'" };
                return Err(reader.error_at(offset, "tuple tag", problem));
            }
        };
        reader.finish(Self { xid, relation, old, new })
    }
}

/// `D`: a row is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// The transaction, or subtransaction, inside a streamed block only.
    pub xid: Option<Xid>,
    /// The table, which a [`Relation`](crate::Relation) described.
    pub relation: Oid,
    /// The row with `REPLICA IDENTITY FULL`, else its key. Never [`OldTuple::Absent`].
    pub old: OldTuple,
}

impl Delete {
    #[inline]
    pub(crate) fn read(mut reader: Reader, streamed: bool) -> Result<Self, DecodeError> {
        let xid = reader.streamed_xid(streamed)?;
        let relation = reader.oid("relation id")?;
        let offset = reader.offset();
        let tag = reader.u8("tuple tag")?;
        let old = match tag {
            OLD_KEY => OldTuple::Key(Tuple::read(&mut reader, &OLD)?),
            OLD_ROW => OldTuple::Full(Tuple::read(&mut reader, &OLD)?),
            found => {
                let problem = Problem::UnknownTag { found, expected: "'K' or 'O'" };
                return Err(reader.error_at(offset, "tuple tag", problem));
            }
        };
        reader.finish(Self { xid, relation, old })
    }
}

#[inline]
fn read_new(reader: &mut Reader) -> Result<Tuple, DecodeError> {
    let offset = reader.offset();
    match reader.u8("tuple tag")? {
        NEW_TUPLE => Tuple::read(reader, &NEW),
        found => Err(reader.error_at(offset, "tuple tag", Problem::UnknownTag { found, expected: "'N'" })),
    }
}
