//! Which tables there are, and which of them may be published.

use std::collections::{HashMap, HashSet};

use pgoutput::Oid;

use super::Catalog;
use crate::{
    config::TablePattern,
    failure::{Code, Failure},
};

/// A table that a publication names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishedTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for PublishedTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// A table whose rows have no identity: as soon as its updates are published, the server refuses UPDATE and DELETE on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithoutIdentity {
    /// The table.
    pub table: PublishedTable,
    /// Why.
    pub reason: String,
}

/// A table that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedTable {
    /// The table; for partitions whose root matches too, the root.
    pub table: PublishedTable,
    /// Whether it is partitioned, with or without partitions.
    pub is_partitioned: bool,
    /// The leaves of a partitioned table.
    pub leaves: Vec<PublishedTable>,
    /// Their OIDs, in the same order.
    pub leaf_oids: Vec<Oid>,
}

impl Catalog {
    /// The tables that match, each once: a partitioned table stands for its partitions, those that will come included.
    ///
    /// # Errors
    /// No table matches, or the server cannot be asked.
    pub async fn matching_tables(&mut self, patterns: &[TablePattern]) -> Result<Vec<MatchedTable>, Failure> {
        let rows = self
            .query(
                "SELECT namespace.nspname::text, class.relname::text, class.oid,
                        CASE WHEN class.relispartition THEN ARRAY(SELECT relid::oid FROM pg_partition_ancestors(class.oid)) ELSE '{}' END,
                        class.relkind::text
                 FROM pg_class class
                 JOIN pg_namespace namespace ON namespace.oid = class.relnamespace
                 WHERE class.relkind IN ('r', 'p') AND class.relpersistence = 'p'
                   AND namespace.nspname NOT IN ('pg_catalog', 'information_schema')
                   AND namespace.nspname NOT LIKE 'pg\\_toast%' AND namespace.nspname NOT LIKE 'pg\\_temp%'
                 ORDER BY 1, 2",
                &[],
            )
            .await?;
        let all: Vec<Candidate> = rows
            .iter()
            .map(|row| Candidate {
                table: PublishedTable { schema: row.get(0), name: row.get(1) },
                oid: row.get(2),
                ancestors: row.get(3),
                is_leaf: row.get::<_, &str>(4) == "r",
            })
            .collect();
        let tables = top_most(&all, |table| patterns.iter().any(|pattern| pattern.matches(&table.schema, &table.name)));
        if tables.is_empty() {
            let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
            return Err(Failure::new(Code::TablesMissing, format!("no table matches {}", patterns.join(", "))));
        }
        Ok(tables)
    }

    /// The partitioned tables that a table is a partition of, at any depth; none if the table is gone.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn ancestors(&mut self, table: Oid) -> Result<Option<Vec<PublishedTable>>, Failure> {
        let oid = u32::from(table);
        let rows = self
            .query(
                "SELECT namespace.nspname::text, class.relname::text, class.oid
                 FROM (SELECT relid::oid FROM pg_partition_ancestors($1::oid) UNION SELECT $1::oid) ancestor(relid)
                 JOIN pg_class class ON class.oid = ancestor.relid
                 JOIN pg_namespace namespace ON namespace.oid = class.relnamespace",
                &[&oid],
            )
            .await?;
        let ancestors = rows.iter().filter(|row| row.get::<_, u32>(2) != oid);
        let ancestors = ancestors.map(|row| PublishedTable { schema: row.get(0), name: row.get(1) }).collect();
        Ok((!rows.is_empty()).then_some(ancestors))
    }

    /// Those of the tables, or of their partitions, on which the server would refuse UPDATE and DELETE
    /// (`CheckCmdReplicaIdentity`).
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn tables_without_identity(
        &mut self,
        tables: &[PublishedTable],
    ) -> Result<Vec<WithoutIdentity>, Failure> {
        let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
        let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        let rows = self
            .query(
                "SELECT namespace.nspname::text, class.relname::text, class.relreplident::text
                 FROM unnest($1::text[], $2::text[]) wanted(schema, name)
                 JOIN pg_namespace root_namespace ON root_namespace.nspname = wanted.schema
                 JOIN pg_class root ON root.relnamespace = root_namespace.oid AND root.relname = wanted.name
                 CROSS JOIN LATERAL (
                     SELECT relid FROM pg_partition_tree(root.oid) WHERE isleaf
                     UNION SELECT root.oid WHERE root.relkind = 'r') leaf
                 JOIN pg_class class ON class.oid = leaf.relid
                 JOIN pg_namespace namespace ON namespace.oid = class.relnamespace
                 WHERE class.relreplident = 'n'
                    OR class.relreplident = 'd' AND NOT EXISTS (
                           SELECT FROM pg_index WHERE indrelid = class.oid AND indisprimary AND indisvalid)
                    OR class.relreplident = 'i' AND NOT EXISTS (
                           SELECT FROM pg_index WHERE indrelid = class.oid AND indisreplident AND indisvalid)
                 ORDER BY 1, 2",
                &[&schemas, &names],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| WithoutIdentity {
                table: PublishedTable { schema: row.get(0), name: row.get(1) },
                reason: match row.get::<_, &str>(2) {
                    "n" => "its replica identity is NOTHING",
                    "i" => "the index of its replica identity is gone",
                    _ => "it has no primary key",
                }
                .to_owned(),
            })
            .collect())
    }
}

struct Candidate {
    table: PublishedTable,
    oid: u32,
    /// Itself among them, if it is a partition or partitioned.
    ancestors: Vec<u32>,
    is_leaf: bool,
}

fn top_most(all: &[Candidate], matches: impl Fn(&PublishedTable) -> bool) -> Vec<MatchedTable> {
    let matching: HashSet<u32> = all.iter().filter(|found| matches(&found.table)).map(|found| found.oid).collect();
    let mut leaves: HashMap<u32, Vec<&Candidate>> = HashMap::new();
    for leaf in all.iter().filter(|leaf| leaf.is_leaf) {
        for ancestor in leaf.ancestors.iter().filter(|ancestor| **ancestor != leaf.oid) {
            leaves.entry(*ancestor).or_default().push(leaf);
        }
    }
    all.iter()
        .filter(|found| matching.contains(&found.oid))
        .filter(|found| !found.ancestors.iter().any(|parent| *parent != found.oid && matching.contains(parent)))
        .map(|found| {
            let leaves = leaves.remove(&found.oid).unwrap_or_default();
            let (leaves, leaf_oids) = leaves.iter().map(|leaf| (leaf.table.clone(), Oid::from(leaf.oid))).unzip();
            MatchedTable { table: found.table.clone(), is_partitioned: !found.is_leaf, leaves, leaf_oids }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, oid: u32, ancestors: &[u32], is_leaf: bool) -> Candidate {
        let table = PublishedTable { schema: "public".into(), name: name.into() };
        Candidate { table, oid, ancestors: ancestors.to_vec(), is_leaf }
    }

    #[test]
    fn a_root_stands_for_its_partitions() {
        let all = [
            candidate("events", 1, &[1], false),
            candidate("events_2026", 2, &[2, 1], false),
            candidate("events_2026_01", 3, &[3, 2, 1], true),
            candidate("events_default", 4, &[4, 1], true),
            candidate("plain", 5, &[], true),
        ];
        let check = |matches: fn(&PublishedTable) -> bool, expect: &[(&str, &[&str])]| {
            let found: Vec<_> = top_most(&all, matches)
                .into_iter()
                .map(|found| (found.table.name, found.leaves.into_iter().map(|leaf| leaf.name).collect::<Vec<_>>()))
                .collect();
            let expect: Vec<_> = expect
                .iter()
                .map(|(root, leaves)| {
                    ((*root).to_owned(), leaves.iter().map(|leaf| (*leaf).to_owned()).collect::<Vec<_>>())
                })
                .collect();
            assert_eq!(found, expect);
        };
        check(|_| true, &[("events", &["events_2026_01", "events_default"]), ("plain", &[])]);
        check(
            |table| table.name.starts_with("events_"),
            &[("events_2026", &["events_2026_01"]), ("events_default", &[])],
        );
        check(|table| table.name == "events_2026_01", &[("events_2026_01", &[])]);
    }
}
