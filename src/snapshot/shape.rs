//! What a table is like that is owed a copy at once, kept beside the checkpoint.
//!
//! If it is gone before its copy is over, what its topic has of it is taken out ([`AtOnce`](super::AtOnce), rule 6), by whoever finds that, in this life or
//! another: for which the record has to be encoded as the table's, when the catalog knows the table no more.

use encoder::TableFacts;
use pgoutput::{Oid, Relation, RelationColumn, ReplicaIdentity};
use serde::{Deserialize, Serialize};

/// The columns of a table, and what only the catalog knew of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    replica_identity: Identity,
    columns: Vec<Column>,
    facts: TableFacts,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Column {
    name: String,
    type_oid: u32,
    type_modifier: i32,
    key: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Identity {
    Default,
    Nothing,
    Full,
    Index,
}

impl Shape {
    /// That of a relation.
    pub(crate) fn new(relation: &Relation, facts: &TableFacts) -> Self {
        let column = |column: &RelationColumn| Column {
            name: column.name.clone(),
            type_oid: column.type_oid.into(),
            type_modifier: column.type_modifier,
            key: column.is_key,
        };
        let replica_identity = match relation.replica_identity {
            ReplicaIdentity::Default => Identity::Default,
            ReplicaIdentity::Nothing => Identity::Nothing,
            ReplicaIdentity::Full => Identity::Full,
            ReplicaIdentity::Index => Identity::Index,
        };
        Self { replica_identity, columns: relation.columns.iter().map(column).collect(), facts: facts.clone() }
    }

    /// The relation that has it under this name, and what the catalog knew of that.
    pub(crate) fn relation(self, table: Oid, schema: &str, name: &str) -> (Relation, TableFacts) {
        let column = |column: Column| RelationColumn {
            is_key: column.key,
            name: column.name,
            type_oid: column.type_oid.into(),
            type_modifier: column.type_modifier,
        };
        let replica_identity = match self.replica_identity {
            Identity::Default => ReplicaIdentity::Default,
            Identity::Nothing => ReplicaIdentity::Nothing,
            Identity::Full => ReplicaIdentity::Full,
            Identity::Index => ReplicaIdentity::Index,
        };
        let relation = Relation {
            xid: None,
            id: table,
            schema: schema.to_owned(),
            name: name.to_owned(),
            replica_identity,
            columns: self.columns.into_iter().map(column).collect(),
        };
        (relation, self.facts)
    }
}

#[cfg(test)]
mod tests {
    use encoder::ColumnFacts;

    use super::*;

    #[test]
    fn what_is_read_is_the_relation_that_was_written() {
        let column = |name: &str, is_key| RelationColumn {
            is_key,
            name: name.to_owned(),
            type_oid: Oid::from(1700),
            type_modifier: 655_366,
        };
        for replica_identity in
            [ReplicaIdentity::Default, ReplicaIdentity::Nothing, ReplicaIdentity::Full, ReplicaIdentity::Index]
        {
            let relation = Relation {
                xid: None,
                id: Oid::from(7),
                schema: "public".to_owned(),
                name: "bare".to_owned(),
                replica_identity,
                columns: vec![column("a", true), column("b", false)],
            };
            let facts = ColumnFacts { not_null: true, ..ColumnFacts::new("a", Oid::from(1700), "numeric") };
            let facts = TableFacts { columns: vec![facts], primary_key: None };
            let text = serde_json::to_string(&Shape::new(&relation, &facts)).expect("JSON");
            let read: Shape = serde_json::from_str(&text).expect("it can be read");
            assert_eq!(read.relation(relation.id, "public", "bare"), (relation, facts), "{text}");
        }
    }
}
