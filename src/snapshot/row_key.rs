//! What tells the rows of a table apart: in a chunk that was read, and in the changes that stream by.

use pgoutput::{Relation, ReplicaIdentity, Tuple, Value};

/// The columns that tell a table's rows apart, in the order of the [`Relation`].
///
/// They are unique, unlike the columns that a record's key may be made of. Two rows with the same values are one row; one row always
/// prints alike as long as nobody changes it, and an update that changes how it prints sends the old row along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowKey {
    names: Vec<String>,
    columns: Vec<usize>,
}

impl RowKey {
    /// The columns of the replica identity; where that is the whole row, or nothing, those of the primary key. None if there are none of these.
    pub(crate) fn of(relation: &Relation, primary_key: Option<&[String]>) -> Option<Self> {
        let columns: Vec<usize> = match relation.replica_identity {
            ReplicaIdentity::Default | ReplicaIdentity::Index => {
                let keys = relation.columns.iter().enumerate().filter(|(_, column)| column.is_key);
                keys.map(|(position, _)| position).collect()
            }
            ReplicaIdentity::Full | ReplicaIdentity::Nothing => {
                let position = |name: &String| relation.columns.iter().position(|column| column.name == *name);
                let mut columns: Vec<_> = primary_key?.iter().map(position).collect::<Option<_>>()?;
                columns.sort_unstable();
                columns
            }
        };
        let names = columns.iter().map(|position| relation.columns[*position].name.clone()).collect();
        (!columns.is_empty()).then_some(Self { names, columns })
    }

    /// The names of the columns.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Appends the row's values, so that two rows have the same bytes only if they have the same values. False, and nothing is appended, if
    /// one of them is not known.
    pub(crate) fn write(&self, row: &Tuple, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        for position in &self.columns {
            let Some(Value::Text(text)) = row.iter().nth(*position) else {
                out.truncate(start);
                return false;
            };
            // No value is longer than PostgreSQL's 1 GB.
            out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(text);
        }
        true
    }

    /// The values that [`write`](Self::write) has written.
    pub(crate) fn read(mut bytes: &[u8]) -> Vec<String> {
        let mut values = Vec::new();
        while let Some((length, rest)) = bytes.split_first_chunk() {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX).min(rest.len());
            let (value, rest) = rest.split_at(length);
            // The client encoding is UTF-8.
            values.push(String::from_utf8_lossy(value).into_owned());
            bytes = rest;
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use pgoutput::{Oid, RelationColumn};
    use proptest::prelude::*;

    use super::*;

    fn relation(replica_identity: ReplicaIdentity, keys: [bool; 3]) -> Relation {
        let column = |(name, is_key): (&str, bool)| RelationColumn {
            is_key,
            name: name.to_owned(),
            type_oid: Oid::from(25),
            type_modifier: -1,
        };
        Relation {
            xid: None,
            id: Oid::from(7),
            schema: "public".to_owned(),
            name: "t".to_owned(),
            replica_identity,
            columns: ["a", "b", "c"].into_iter().zip(keys).map(column).collect(),
        }
    }

    fn names(identity: ReplicaIdentity, keys: [bool; 3], primary_key: Option<&[&str]>) -> Option<String> {
        let primary_key: Option<Vec<String>> = primary_key.map(|key| key.iter().map(ToString::to_string).collect());
        RowKey::of(&relation(identity, keys), primary_key.as_deref()).map(|key| key.names().join(" "))
    }

    #[test]
    fn it_is_what_is_unique() {
        let (default, full) = (ReplicaIdentity::Default, ReplicaIdentity::Full);
        assert_eq!(names(default, [true, false, true], Some(&["b"])).as_deref(), Some("a c"));
        assert_eq!(names(ReplicaIdentity::Index, [false, true, false], Some(&["a"])).as_deref(), Some("b"));
        assert_eq!(names(full, [true; 3], Some(&["c", "a"])).as_deref(), Some("a c"), "the identity is every column");
        assert_eq!(names(full, [true; 3], Some(&["d"])), None, "the stream does not have it");
        assert_eq!(names(full, [true; 3], None), None);
        assert_eq!(names(default, [false; 3], Some(&["a"])), None);
        assert_eq!(names(ReplicaIdentity::Nothing, [false; 3], Some(&["a"])).as_deref(), Some("a"));
    }

    #[test]
    fn what_is_not_known_is_no_key() {
        let key = RowKey::of(&relation(ReplicaIdentity::Default, [true, true, false]), None).expect("a key");
        for unknown in [Value::Null, Value::UnchangedToast] {
            let row = Tuple::from_values([Value::Text(b"1"), unknown, Value::Null]).expect("a row");
            let mut out = b"before".to_vec();
            assert!(!key.write(&row, &mut out));
            assert_eq!(out, b"before");
        }
    }

    proptest! {
        #[test]
        fn two_rows_have_the_same_bytes_only_if_they_are_one(rows in prop::array::uniform2(prop::array::uniform2("[ab\0]{0,3}"))) {
            let key = RowKey::of(&relation(ReplicaIdentity::Default, [true, false, true]), None).expect("a key");
            let bytes = rows.each_ref().map(|[first, second]| {
                let values = [Value::Text(first.as_bytes()), Value::Null, Value::Text(second.as_bytes())];
                let mut out = Vec::new();
                assert!(key.write(&Tuple::from_values(values).expect("a row"), &mut out));
                assert_eq!(RowKey::read(&out), [first.clone(), second.clone()]);
                out
            });
            prop_assert_eq!(bytes[0] == bytes[1], rows[0] == rows[1]);
        }
    }
}
