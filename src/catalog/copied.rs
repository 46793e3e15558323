//! A table whose rows are copied: as the stream has it, and the statements that read it.

use std::{collections::BTreeSet, fmt::Write as _};

use pgoutput::{Oid, Relation};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use serde::Deserialize;

use super::Catalog;
use crate::failure::{Code, Failure};

/// A table as it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedTable {
    /// As its Relation message would describe it.
    pub relation: Relation,
    /// The condition that rows have to meet to be published, as SQL.
    pub row_filter: Option<String>,
}

/// Which rows are read.
#[derive(Debug, Clone, Copy)]
pub enum RowSelection<'a> {
    /// So many after the one with these values of the key, or from the first on.
    After {
        /// The values, as text.
        after: Option<&'a [String]>,
        /// How many rows.
        limit: usize,
    },
    /// Those with these values of the key.
    Keys(&'a [Vec<String>]),
}

impl CopiedTable {
    /// `"schema"."table"`
    pub fn qualified_name(&self) -> String {
        format!("{}.{}", escape_identifier(&self.relation.schema), escape_identifier(&self.relation.name))
    }

    /// The statement that reads rows in the order of `key`, with the columns in the order of the relation.
    ///
    /// A literal without a type takes that of the column it is compared with, and its collation: the order is that of the key's index.
    pub fn statement(&self, key: &[String], selection: &RowSelection<'_>) -> String {
        let columns = list(self.relation.columns.iter().map(|column| escape_identifier(&column.name)));
        let key = list(key.iter().map(|column| escape_identifier(column)));
        let mut conditions: Vec<String> = self.row_filter.iter().map(|filter| format!("({filter})")).collect();
        let values = |row: &[String]| format!("({})", list(row.iter().map(|value| escape_literal(value))));
        match selection {
            RowSelection::After { after: Some(after), .. } => conditions.push(format!("({key}) > {}", values(after))),
            RowSelection::After { after: None, .. } => {}
            RowSelection::Keys(keys) => {
                let rows = list(keys.iter().map(|row| values(row)));
                conditions.push(format!("({key}) IN ({rows})"));
            }
        }
        let mut statement = format!("COPY (SELECT {columns} FROM {}", self.qualified_name());
        if !conditions.is_empty() {
            write!(statement, " WHERE {}", conditions.join(" AND ")).expect("a String takes all that is written to it");
        }
        write!(statement, " ORDER BY {key}").expect("a String takes all that is written to it");
        if let RowSelection::After { limit, .. } = selection {
            write!(statement, " LIMIT {limit}").expect("a String takes all that is written to it");
        }
        statement.push_str(") TO STDOUT");
        statement
    }
}

fn list(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

impl Catalog {
    /// What a publication comes to: roots or leaves, as its setting says.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn published_tables(&mut self, publication: &str) -> Result<Vec<Oid>, Failure> {
        let rows = self
            .query(
                "SELECT class.oid FROM pg_publication_tables published
                 JOIN pg_namespace namespace ON namespace.nspname = published.schemaname
                 JOIN pg_class class ON class.relnamespace = namespace.oid AND class.relname = published.tablename
                 WHERE published.pubname = $1 ORDER BY published.schemaname, published.tablename",
                &[&publication],
            )
            .await?;
        Ok(rows.iter().map(|row| Oid::from(row.get::<_, u32>(0))).collect())
    }

    /// A published table; none if it is not published, or is gone.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn copied_table(&mut self, publication: &str, table: Oid) -> Result<Option<CopiedTable>, Failure> {
        #[derive(Deserialize)]
        struct Published {
            /// Since version 15.
            attnames: Option<BTreeSet<String>>,
            rowfilter: Option<String>,
        }
        let rows = self
            .query(
                // What a version does not have is not in the JSON, where a query that names it would fail.
                "SELECT to_jsonb(published)::text FROM pg_publication_tables published
                 JOIN pg_namespace namespace ON namespace.nspname = published.schemaname
                 JOIN pg_class class ON class.relnamespace = namespace.oid AND class.relname = published.tablename
                 WHERE published.pubname = $1 AND class.oid = $2",
                &[&publication, &u32::from(table)],
            )
            .await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let published: Published = serde_json::from_str(row.get(0))
            .map_err(|error| Failure::new(Code::Internal, format!("pg_publication_tables: {error}")))?;
        let Some(described) = self.described_tables(&[table]).await?.pop() else { return Ok(None) };
        let mut relation = described.relation;
        relation.columns.retain(|column| match &published.attnames {
            Some(names) => names.contains(&column.name),
            None => !described.generated.contains_key(&column.name),
        });
        Ok(Some(CopiedTable { relation, row_filter: published.rowfilter }))
    }
}

#[cfg(test)]
mod tests {
    use pgoutput::{RelationColumn, ReplicaIdentity};

    use super::*;

    fn table(row_filter: Option<&str>) -> CopiedTable {
        let column = |name: &str| RelationColumn {
            is_key: true,
            name: name.to_owned(),
            type_oid: Oid::from(25),
            type_modifier: -1,
        };
        let relation = Relation {
            xid: None,
            id: Oid::from(7),
            schema: "public".to_owned(),
            name: "a \"b\"".to_owned(),
            replica_identity: ReplicaIdentity::Default,
            columns: vec![column("id"), column("Ω")],
        };
        CopiedTable { relation, row_filter: row_filter.map(str::to_owned) }
    }

    #[test]
    fn statements_are_quoted() {
        let key = ["id".to_owned(), "Ω".to_owned()];
        let first = RowSelection::After { after: None, limit: 500 };
        assert_eq!(
            table(None).statement(&key, &first),
            r#"COPY (SELECT "id", "Ω" FROM "public"."a ""b""" ORDER BY "id", "Ω" LIMIT 500) TO STDOUT"#
        );
        let after = ["7".to_owned(), r"it's \ here".to_owned()];
        assert_eq!(
            table(Some("id > 0")).statement(&key, &RowSelection::After { after: Some(&after), limit: 1 }),
            r#"COPY (SELECT "id", "Ω" FROM "public"."a ""b""" WHERE (id > 0) AND ("id", "Ω") > ('7',  E'it''s \\ here') ORDER BY "id", "Ω" LIMIT 1) TO STDOUT"#
        );
        assert_eq!(
            table(None).statement(&key, &RowSelection::Keys(&[after.to_vec(), after.to_vec()])),
            r#"COPY (SELECT "id", "Ω" FROM "public"."a ""b""" WHERE ("id", "Ω") IN (('7',  E'it''s \\ here'), ('7',  E'it''s \\ here')) ORDER BY "id", "Ω") TO STDOUT"#
        );
    }
}
