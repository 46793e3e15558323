//! Relation and Type: what the rows mean.

use crate::{DecodeError, Oid, Xid, error::Problem, reader::Reader};

/// The least that a column takes: its flags, an empty name, its type and its modifier.
const COLUMN_BYTES_MIN: usize = 1 + 1 + 4 + 4;

/// `R`: what a table looks like, sent before its first row and again before the first row after a change to it.
///
/// It describes the table as it was when the rows were written. The catalog may already say something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The transaction, or subtransaction, inside a streamed block only.
    pub xid: Option<Xid>,
    /// The table. It survives a rename, and a `TRUNCATE`.
    pub id: Oid,
    /// The schema; empty means `pg_catalog`.
    pub schema: String,
    /// The table's name, without quotes.
    pub name: String,
    /// What identifies a row.
    pub replica_identity: ReplicaIdentity,
    /// The columns that are published, in their order: all but dropped ones, generated ones unless they are published,
    /// and those that the publication's column list leaves out.
    pub columns: Vec<RelationColumn>,
}

/// One column of a [`Relation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationColumn {
    /// Whether it is part of the replica identity. Under [`ReplicaIdentity::Full`] every column is.
    pub is_key: bool,
    /// The column's name, without quotes.
    pub name: String,
    /// The data type. For one that is not built in, a [`Type`] came before.
    pub type_oid: Oid,
    /// The type's modifier, `atttypmod`, such as precision and scale of a numeric; -1 when there is none.
    pub type_modifier: i32,
}

/// What identifies the old row of an Update or a Delete: the table's `REPLICA IDENTITY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplicaIdentity {
    /// `d`: the primary key, if there is one.
    Default,
    /// `n`: nothing. The server refuses an UPDATE or DELETE on such a table while a publication has them.
    Nothing,
    /// `f`: the whole row.
    Full,
    /// `i`: the columns of a chosen unique index.
    Index,
}

impl Relation {
    pub(crate) fn read(mut reader: Reader, streamed: bool) -> Result<Self, DecodeError> {
        let xid = reader.streamed_xid(streamed)?;
        let id = reader.oid("relation id")?;
        let schema = reader.text("schema")?;
        let name = reader.text("relation name")?;
        let replica_identity = ReplicaIdentity::read(&mut reader)?;
        let count = reader.count16("column count", COLUMN_BYTES_MIN)?;
        let mut columns = Vec::with_capacity(usize::from(count));
        for column in 0..count {
            columns.push(RelationColumn::read(&mut reader).map_err(|error| error.in_column(column))?);
        }
        reader.finish(Self { xid, id, schema, name, replica_identity, columns })
    }
}

impl RelationColumn {
    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        let is_key = reader.flags("flags", 1)? == 1;
        let name = reader.text("name")?;
        let type_oid = reader.oid("type id")?;
        let type_modifier = reader.i32("type modifier")?;
        Ok(Self { is_key, name, type_oid, type_modifier })
    }
}

impl ReplicaIdentity {
    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        let offset = reader.offset();
        match reader.u8("replica identity")? {
            b'd' => Ok(Self::Default),
            b'n' => Ok(Self::Nothing),
            b'f' => Ok(Self::Full),
            b'i' => Ok(Self::Index),
            found => {
                let problem = Problem::UnknownTag { found, expected: "'d', 'n', 'f' or 'i'" };
                Err(reader.error_at(offset, "replica identity", problem))
            }
        }
    }
}

/// `Y`: the name of a data type that is not built in. It precedes the first [`Relation`] that uses it.
///
/// It tells the name and nothing else: not what kind of type it is, nor an enum's labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type {
    /// The transaction, or subtransaction, inside a streamed block only.
    pub xid: Option<Xid>,
    /// The data type. A domain is sent as its base type's name, under its own id.
    pub id: Oid,
    /// The schema; empty means `pg_catalog`.
    pub schema: String,
    /// The type's name, without quotes.
    pub name: String,
}

impl Type {
    pub(crate) fn read(mut reader: Reader, streamed: bool) -> Result<Self, DecodeError> {
        let xid = reader.streamed_xid(streamed)?;
        let id = reader.oid("type id")?;
        let schema = reader.text("schema")?;
        let name = reader.text("type name")?;
        reader.finish(Self { xid, id, schema, name })
    }
}
