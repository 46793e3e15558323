//! A table whose rows are copied: as the stream has it, and the statements that read it.

use std::{collections::BTreeSet, fmt::Write as _};

use pgoutput::{Oid, Relation};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use serde::Deserialize;
use tokio_postgres::Row;

use super::Catalog;
use crate::failure::{Code, Failure};

/// A table as it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedTable {
    /// As its Relation message would describe it.
    pub relation: Relation,
    /// The condition that rows have to meet to be published, as SQL.
    pub row_filter: Option<String>,
    /// Whether its rows are those of its partitions. Those of a table that only inherits from another are its own.
    pub is_partitioned: bool,
    /// The columns of the index that makes rows unique; empty if there is none, or none whose order can be asked for.
    pub unique: Vec<UniqueColumn>,
}

/// A column of the index that makes rows unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueColumn {
    /// Its name.
    pub name: String,
    /// The collation of the index where the column's is another, as SQL: values that are one in the column's may be several in the index.
    pub collation: Option<String>,
    /// What its order depends on: its number, type and collation, as OIDs.
    pub order: String,
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

    /// What the order of rows by these columns depends on; none if they are not those by which rows are unique: a publication may leave some of them out.
    pub fn order_of(&self, key: &[String]) -> Option<Vec<String>> {
        let are_the_same = key.len() == self.unique.len() && key.iter().all(|name| self.unique_column(name).is_some());
        are_the_same.then(|| self.unique.iter().map(|column| column.order.clone()).collect())
    }

    fn unique_column(&self, name: &str) -> Option<&UniqueColumn> {
        self.unique.iter().find(|column| column.name == name)
    }

    /// The statement that reads rows in the order of the index that `key` has, with the columns in the order of the relation.
    ///
    /// A literal without a type takes that of the column it is compared with.
    pub fn statement(&self, key: &[String], selection: &RowSelection<'_>) -> String {
        let columns = list(self.relation.columns.iter().map(|column| escape_identifier(&column.name)));
        let mut in_order: Vec<usize> = (0..key.len()).collect();
        in_order.sort_by_key(|position| self.unique.iter().position(|column| column.name == key[*position]));
        let key = list(in_order.iter().map(|position| {
            let collation = self.unique_column(&key[*position]).and_then(|column| column.collation.as_deref());
            let column = escape_identifier(&key[*position]);
            collation.map_or(column.clone(), |collation| format!("{column} COLLATE {collation}"))
        }));
        let mut conditions: Vec<String> = self.row_filter.iter().map(|filter| format!("({filter})")).collect();
        let values = |row: &[String]| {
            format!("({})", list(in_order.iter().filter_map(|position| Some(escape_literal(row.get(*position)?)))))
        };
        match selection {
            RowSelection::After { after: Some(after), .. } => conditions.push(format!("({key}) > {}", values(after))),
            RowSelection::After { after: None, .. } => {}
            RowSelection::Keys(keys) => {
                let rows = list(keys.iter().map(|row| values(row)));
                conditions.push(format!("({key}) IN ({rows})"));
            }
        }
        let only = if self.is_partitioned { "" } else { "ONLY " };
        let mut statement = format!("COPY (SELECT {columns} FROM {only}{}", self.qualified_name());
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
                "SELECT to_jsonb(published)::text, class.relkind = 'p' FROM pg_publication_tables published
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
        let (row_filter, is_partitioned) = (published.rowfilter, row.get(1));
        let unique = self.unique_columns(table).await?;
        Ok(Some(CopiedTable { relation, row_filter, is_partitioned, unique }))
    }

    /// The columns of the replica identity's index, or of the primary key where the identity has none. Empty if one of them is compared in another way
    /// than `ORDER BY` compares, but for those of `LIKE`, which tell the same texts apart.
    async fn unique_columns(&mut self, table: Oid) -> Result<Vec<UniqueColumn>, Failure> {
        let rows = self
            .query(
                "SELECT attribute.attname::text,
                        CASE WHEN key.collation_oid <> attribute.attcollation
                             THEN quote_ident(namespace.nspname) || '.' || quote_ident(collated.collname) END,
                        format('%s %s %s', attribute.attnum, attribute.atttypid, key.collation_oid),
                        opclass.opcdefault OR opclass.opcname LIKE '%\\_pattern\\_ops'
                 FROM pg_class class
                 JOIN pg_index index ON index.indrelid = class.oid
                  AND CASE class.relreplident WHEN 'i' THEN index.indisreplident ELSE index.indisprimary END
                 CROSS JOIN LATERAL unnest(index.indkey::int2[], index.indcollation::oid[], index.indclass::oid[])
                      WITH ORDINALITY key(attnum, collation_oid, opclass_oid, position)
                 JOIN pg_attribute attribute ON attribute.attrelid = class.oid AND attribute.attnum = key.attnum
                 JOIN pg_opclass opclass ON opclass.oid = key.opclass_oid
                 LEFT JOIN pg_collation collated ON collated.oid = key.collation_oid
                 LEFT JOIN pg_namespace namespace ON namespace.oid = collated.collnamespace
                 WHERE class.oid = $1 AND key.position <= index.indnkeyatts ORDER BY key.position",
                &[&u32::from(table)],
            )
            .await?;
        if !rows.iter().all(|row| row.get(3)) {
            return Ok(Vec::new());
        }
        let column = |row: &Row| UniqueColumn { name: row.get(0), collation: row.get(1), order: row.get(2) };
        Ok(rows.iter().map(column).collect())
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
        let unique = |name: &str, collation: Option<&str>| UniqueColumn {
            name: name.to_owned(),
            collation: collation.map(str::to_owned),
            order: format!("1 25 100 {name}"),
        };
        let unique = vec![unique("Ω", Some("pg_catalog.\"C\"")), unique("id", None)];
        CopiedTable {
            relation,
            row_filter: row_filter.map(str::to_owned),
            is_partitioned: row_filter.is_some(),
            unique,
        }
    }

    #[test]
    fn statements_are_quoted() {
        let key = ["id".to_owned(), "Ω".to_owned()];
        let first = RowSelection::After { after: None, limit: 500 };
        assert_eq!(
            table(None).statement(&key, &first),
            r#"COPY (SELECT "id", "Ω" FROM ONLY "public"."a ""b""" ORDER BY "Ω" COLLATE pg_catalog."C", "id" LIMIT 500) TO STDOUT"#
        );
        let after = ["7".to_owned(), r"it's \ here".to_owned()];
        assert_eq!(
            table(Some("id > 0")).statement(&key, &RowSelection::After { after: Some(&after), limit: 1 }),
            r#"COPY (SELECT "id", "Ω" FROM "public"."a ""b""" WHERE (id > 0) AND ("Ω" COLLATE pg_catalog."C", "id") > ( E'it''s \\ here', '7') ORDER BY "Ω" COLLATE pg_catalog."C", "id" LIMIT 1) TO STDOUT"#
        );
        assert_eq!(
            table(None).statement(&key, &RowSelection::Keys(&[after.to_vec(), after.to_vec()])),
            r#"COPY (SELECT "id", "Ω" FROM ONLY "public"."a ""b""" WHERE ("Ω" COLLATE pg_catalog."C", "id") IN (( E'it''s \\ here', '7'), ( E'it''s \\ here', '7')) ORDER BY "Ω" COLLATE pg_catalog."C", "id") TO STDOUT"#
        );
    }

    #[test]
    fn a_key_that_is_not_all_of_the_index_has_no_order() {
        let order = |names: &[&str]| table(None).order_of(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(order(&["id", "Ω"]), Some(vec!["1 25 100 Ω".to_owned(), "1 25 100 id".to_owned()]));
        assert_eq!(order(&["id"]), None);
        assert_eq!(order(&["id", "x"]), None);
    }
}
