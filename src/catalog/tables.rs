//! Which tables there are, and which of them may be published.

use std::collections::{HashMap, HashSet};

use pgoutput::Oid;
use postgres_protocol::escape::escape_identifier;

use super::Catalog;
use crate::{
    config::{TableIdentity, TablePattern, TableSelection},
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

impl PublishedTable {
    /// Its name as a statement has it.
    pub fn quoted(&self) -> String {
        format!("{}.{}", escape_identifier(&self.schema), escape_identifier(&self.name))
    }
}

impl std::fmt::Display for PublishedTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// A table whose rows have no identity: as soon as its updates are published, the server refuses UPDATE and DELETE on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithoutIdentity {
    /// The table that was asked about: this one, or what it is a partition of.
    pub root: PublishedTable,
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
    /// Its OID.
    pub oid: Oid,
    /// Whether it is partitioned, with or without partitions.
    pub is_partitioned: bool,
    /// What it is a partition of itself, at any depth: tables that were not asked for.
    pub ancestors: Vec<PublishedTable>,
    /// The leaves of a partitioned table.
    pub leaves: Vec<Leaf>,
    /// Its partitions that are to be left out, at any depth: where rows come under the root's name, that cannot be done.
    pub excluded: Vec<PublishedTable>,
}

/// A partition that has no partitions itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The partition.
    pub table: PublishedTable,
    /// Its OID.
    pub oid: Oid,
    /// What it is a partition of, at any depth.
    pub ancestors: Vec<PublishedTable>,
}

impl MatchedTable {
    /// The relations under whose names its rows come, each with every name that it goes by. A partitioned table whose leaves are published
    /// has as many as there are leaves.
    pub fn relations(&self, publishes_leaves: bool) -> Vec<(Oid, TableIdentity)> {
        let name = |table: &PublishedTable| (table.schema.clone(), table.name.clone());
        let relation = |oid: Oid, table: &PublishedTable, ancestors: &[PublishedTable]| {
            let names = std::iter::once(table).chain(ancestors).map(name).collect();
            (oid, TableIdentity { names, is_certain: true })
        };
        if !publishes_leaves {
            vec![relation(self.oid, &self.table, &[])]
        } else if self.is_partitioned {
            self.leaves.iter().map(|leaf| relation(leaf.oid, &leaf.table, &leaf.ancestors)).collect()
        } else {
            vec![relation(self.oid, &self.table, &self.ancestors)]
        }
    }

    /// The table, and its partitions that hold rows.
    pub fn with_leaves(&self) -> impl Iterator<Item = &PublishedTable> {
        std::iter::once(&self.table).chain(self.leaves.iter().map(|leaf| &leaf.table))
    }
}

impl Catalog {
    /// The tables that match, each once: a partitioned table stands for its partitions, those that will come included.
    ///
    /// # Errors
    /// No table matches, or the server cannot be asked.
    pub async fn matching_tables(&mut self, selection: &TableSelection) -> Result<Vec<MatchedTable>, Failure> {
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
        let tables = top_most(&all, selection);
        if tables.is_empty() {
            let list =
                |patterns: &[TablePattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let found = match selection.exclude.as_slice() {
                [] => format!("no table matches {}", list(&selection.include)),
                exclude => format!("no table matches {} without {}", list(&selection.include), list(exclude)),
            };
            return Err(Failure::new(Code::TablesMissing, found));
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
                "SELECT namespace.nspname::text, class.relname::text, class.relreplident::text, wanted.schema, wanted.name
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
                root: PublishedTable { schema: row.get(3), name: row.get(4) },
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

impl Candidate {
    /// What it is a partition of, by name.
    fn parents(&self, names: &HashMap<u32, &PublishedTable>) -> Vec<PublishedTable> {
        let ancestors = self.ancestors.iter().filter(|ancestor| **ancestor != self.oid);
        ancestors.filter_map(|ancestor| names.get(ancestor).copied().cloned()).collect()
    }
}

fn top_most(all: &[Candidate], selection: &TableSelection) -> Vec<MatchedTable> {
    let named = |is_named: &dyn Fn(&str, &str) -> bool| -> HashSet<u32> {
        let named = all.iter().filter(|found| is_named(&found.table.schema, &found.table.name));
        named.map(|found| found.oid).collect()
    };
    let excluded = named(&|schema, name| selection.excludes(schema, name));
    // What is left out is left out with its partitions.
    let is_excluded = |found: &Candidate| {
        excluded.contains(&found.oid) || found.ancestors.iter().any(|ancestor| excluded.contains(ancestor))
    };
    let mut matching = named(&|schema, name| selection.includes(schema, name));
    for found in all.iter().filter(|found| is_excluded(found)) {
        matching.remove(&found.oid);
    }
    let mut leaves: HashMap<u32, Vec<&Candidate>> = HashMap::new();
    let mut left_out: HashMap<u32, Vec<PublishedTable>> = HashMap::new();
    for found in all {
        for ancestor in found.ancestors.iter().filter(|ancestor| **ancestor != found.oid) {
            if is_excluded(found) {
                left_out.entry(*ancestor).or_default().push(found.table.clone());
            } else if found.is_leaf {
                leaves.entry(*ancestor).or_default().push(found);
            }
        }
    }
    let names: HashMap<u32, &PublishedTable> = all.iter().map(|found| (found.oid, &found.table)).collect();
    all.iter()
        .filter(|found| matching.contains(&found.oid))
        .filter(|found| !found.ancestors.iter().any(|parent| *parent != found.oid && matching.contains(parent)))
        .map(|found| {
            let leaves = leaves.remove(&found.oid).unwrap_or_default();
            let leaf = |leaf: &Candidate| Leaf {
                table: leaf.table.clone(),
                oid: leaf.oid.into(),
                ancestors: leaf.parents(&names),
            };
            let leaves = leaves.into_iter().map(leaf).collect();
            let excluded = left_out.remove(&found.oid).unwrap_or_default();
            MatchedTable {
                table: found.table.clone(),
                oid: found.oid.into(),
                is_partitioned: !found.is_leaf,
                ancestors: found.parents(&names),
                leaves,
                excluded,
            }
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
        let patterns = |texts: &[&str]| texts.iter().map(|text| TablePattern::parse(text).expect(text)).collect();
        let matched = |include: &[&str], exclude: &[&str]| {
            top_most(&all, &TableSelection { include: patterns(include), exclude: patterns(exclude) })
        };
        let check = |include: &[&str], exclude: &[&str], expect: &[(&str, &[&str])]| {
            let found: Vec<_> = matched(include, exclude)
                .into_iter()
                .map(|found| {
                    (found.table.name, found.leaves.into_iter().map(|leaf| leaf.table.name).collect::<Vec<_>>())
                })
                .collect();
            let expect: Vec<_> = expect
                .iter()
                .map(|(root, leaves)| {
                    ((*root).to_owned(), leaves.iter().map(|leaf| (*leaf).to_owned()).collect::<Vec<_>>())
                })
                .collect();
            assert_eq!(found, expect);
        };
        check(&["*.*"], &[], &[("events", &["events_2026_01", "events_default"]), ("plain", &[])]);
        check(&["*.events_*"], &[], &[("events_2026", &["events_2026_01"]), ("events_default", &[])]);
        check(&["*.events_2026_01"], &[], &[("events_2026_01", &[])]);
        let names = |include: &[&str]| {
            let matched = matched(include, &[]).remove(0);
            let names = |(_, table): (Oid, TableIdentity)| table.names.into_iter().map(|(_, name)| name).collect();
            matched.relations(true).into_iter().map(names).collect::<Vec<Vec<String>>>()
        };
        let expected = [["events_2026_01", "events_2026", "events"].as_slice(), &["events_default", "events"]];
        assert_eq!(names(&["*.events"]), expected, "a leaf goes by the name of everything that it is a partition of");
        assert_eq!(names(&["*.events_default"]), [["events_default", "events"]], "whether that is asked for or not");
        check(&["*.*"], &["public.events"], &[("plain", &[])]);
        check(&["*.*"], &["public.events_2026"], &[("events", &["events_default"]), ("plain", &[])]);
        check(&["*.events_2026_01", "*.plain"], &["public.events"], &[("plain", &[])]);
        let excluded: Vec<_> =
            matched(&["*.*"], &["*.events_2026"])[0].excluded.iter().map(|it| it.name.clone()).collect();
        assert_eq!(excluded, ["events_2026", "events_2026_01"], "they are named, where that cannot be done");
    }
}
