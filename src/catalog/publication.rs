//! The publication: checked, or made to fit.

use std::collections::BTreeSet;

use postgres_protocol::escape::escape_identifier;
use tracing::info;

use super::{Catalog, MatchedTable, PublishedTable};
use crate::failure::{Code, Failure};

/// A publication as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Whether it was made FOR ALL TABLES.
    pub all_tables: bool,
    /// Whether it names whole schemas.
    pub has_schemas: bool,
    /// Whether changes of partitions are published under their root.
    pub via_root: bool,
    /// Which of insert, update, delete and truncate it does not publish.
    pub unpublished_operations: Vec<&'static str>,
    /// Whether it leaves rows or columns of a table out.
    pub has_filters: bool,
    /// The tables that it names.
    pub members: BTreeSet<PublishedTable>,
    /// What it comes to: roots or leaves, as `via_root` says.
    pub tables: BTreeSet<PublishedTable>,
}

/// What stands between a publication and the tables that are asked for.
#[derive(Debug)]
pub struct PublicationPlan {
    /// The publication as it is, if it exists.
    pub existing: Option<Publication>,
    /// The statements that would make it fit; none if it does.
    pub statements: Vec<String>,
    /// The tables that these statements would add to it.
    pub new_tables: Vec<PublishedTable>,
    /// Why it could not be used as it is.
    pub unfit: Option<Failure>,
    /// What it leaves out, in sentences, though it could be used.
    pub remarks: Vec<String>,
}

impl Catalog {
    /// The publication of this name, if it exists.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn publication(&mut self, name: &str) -> Result<Option<Publication>, Failure> {
        let rows = self
            .query(
                "SELECT puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate, oid FROM pg_publication
                 WHERE pubname = $1",
                &[&name],
            )
            .await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let operations = [(2, "insert"), (3, "update"), (4, "delete"), (5, "truncate")];
        // Publications of schemas came with version 15.
        let schemas = self
            .query("SELECT FROM pg_class WHERE relname = 'pg_publication_namespace' AND relnamespace = 'pg_catalog'::regnamespace", &[])
            .await?;
        let has_schemas = !schemas.is_empty()
            && !self
                .query("SELECT FROM pg_publication_namespace WHERE pnpubid = $1", &[&row.get::<_, u32>(6)])
                .await?
                .is_empty();
        let members = self
            .query(
                "SELECT namespace.nspname::text, class.relname::text,
                        -- Both came with version 15; as JSON, what is missing is simply not there.
                        coalesce(to_jsonb(member) ->> 'prqual', to_jsonb(member) ->> 'prattrs') IS NOT NULL
                 FROM pg_publication_rel member
                 JOIN pg_class class ON class.oid = member.prrelid
                 JOIN pg_namespace namespace ON namespace.oid = class.relnamespace
                 WHERE member.prpubid = $1",
                &[&row.get::<_, u32>(6)],
            )
            .await?;
        let tables = self
            .query("SELECT schemaname::text, tablename::text FROM pg_publication_tables WHERE pubname = $1", &[&name])
            .await?;
        Ok(Some(Publication {
            all_tables: row.get(0),
            has_schemas,
            via_root: row.get(1),
            unpublished_operations: operations
                .iter()
                .filter(|(column, _)| !row.get::<_, bool>(*column))
                .map(|(_, operation)| *operation)
                .collect(),
            has_filters: members.iter().any(|row| row.get(2)),
            members: members.iter().map(|row| PublishedTable { schema: row.get(0), name: row.get(1) }).collect(),
            tables: tables.iter().map(|row| PublishedTable { schema: row.get(0), name: row.get(1) }).collect(),
        }))
    }

    /// What would have to be done so that the publication holds the tables, and nothing is done.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn publication_plan(
        &mut self,
        name: &str,
        wanted: &[MatchedTable],
        via_root: bool,
    ) -> Result<PublicationPlan, Failure> {
        let existing = self.publication(name).await?;
        let tables: Vec<PublishedTable> = wanted.iter().map(|wanted| wanted.table.clone()).collect();
        let statements = match &existing {
            None => vec![creation(name, &tables, via_root)],
            Some(publication) => alterations(&escape_identifier(name), publication, &tables, via_root),
        };
        let unfit = check(name, existing.as_ref(), wanted).err();
        let remarks = existing.as_ref().map_or_else(Vec::new, |publication| remarks(name, publication));
        let new_tables = match &existing {
            Some(publication) if publication.all_tables => Vec::new(),
            Some(publication) => tables.into_iter().filter(|table| !publication.members.contains(table)).collect(),
            None => tables,
        };
        Ok(PublicationPlan { existing, statements, new_tables, unfit, remarks })
    }

    /// Makes the publication fit.
    ///
    /// # Errors
    /// The server refuses a statement, or cannot be asked.
    pub async fn apply(&mut self, publication: &str, plan: &PublicationPlan) -> Result<(), Failure> {
        for statement in &plan.statements {
            self.execute(statement).await?;
            info!(publication, statement, "changed the publication");
        }
        Ok(())
    }

    /// Adds tables to a publication.
    ///
    /// # Errors
    /// The server refuses it, or cannot be asked.
    pub async fn add_tables(&mut self, publication: &str, tables: &[PublishedTable]) -> Result<(), Failure> {
        self.execute(&format!("ALTER PUBLICATION {} ADD TABLE {}", escape_identifier(publication), list(tables))).await
    }
}

/// The statement that makes the publication.
fn creation(name: &str, tables: &[PublishedTable], via_root: bool) -> String {
    format!(
        "CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = {via_root})",
        escape_identifier(name),
        list(tables)
    )
}

/// The statements that make the publication hold these tables.
fn alterations(quoted: &str, publication: &Publication, tables: &[PublishedTable], via_root: bool) -> Vec<String> {
    let mut statements = Vec::new();
    if publication.via_root != via_root {
        statements.push(format!("ALTER PUBLICATION {quoted} SET (publish_via_partition_root = {via_root})"));
    }
    if !publication.unpublished_operations.is_empty() {
        statements.push(format!("ALTER PUBLICATION {quoted} SET (publish = 'insert, update, delete, truncate')"));
    }
    if publication.all_tables {
        // It holds every table there is, and cannot be narrowed; what was not asked for is left out by the stream.
        return statements;
    }
    let wanted: BTreeSet<_> = tables.iter().cloned().collect();
    if publication.members != wanted || publication.has_schemas || publication.has_filters {
        statements.push(format!("ALTER PUBLICATION {quoted} SET TABLE {}", list(tables)));
    }
    statements
}

fn check(name: &str, publication: Option<&Publication>, wanted: &[MatchedTable]) -> Result<(), Failure> {
    let Some(publication) = publication else {
        return Err(Failure::new(Code::PublicationMissing, format!("publication {name} does not exist")));
    };
    let covered = |wanted: &&MatchedTable| {
        let by_leaves = || wanted.leaves.iter().all(|leaf| publication.tables.contains(leaf));
        publication.tables.contains(&wanted.table) || (!wanted.leaves.is_empty() && by_leaves())
    };
    let missing: Vec<_> = wanted.iter().filter(|wanted| !covered(wanted)).map(|wanted| wanted.table.clone()).collect();
    if !missing.is_empty() {
        return Err(Failure::new(
            Code::PublicationMismatch,
            format!(
                "publication {name} lacks tables that postgres.tables asks for: ALTER PUBLICATION {} ADD TABLE {}",
                escape_identifier(name),
                list(&missing)
            ),
        ));
    }
    Ok(())
}

fn remarks(name: &str, publication: &Publication) -> Vec<String> {
    let mut remarks = Vec::new();
    if publication.has_filters {
        remarks.push(format!("publication {name} leaves rows or columns out, and so will Kafka"));
    }
    if !publication.unpublished_operations.is_empty() {
        let operations = publication.unpublished_operations.join(", ");
        remarks.push(format!("publication {name} leaves out {operations}, and so will Kafka"));
    }
    remarks
}

fn list(tables: &[PublishedTable]) -> String {
    let quoted: Vec<_> = tables
        .iter()
        .map(|table| format!("{}.{}", escape_identifier(&table.schema), escape_identifier(&table.name)))
        .collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> PublishedTable {
        PublishedTable { schema: "public".into(), name: name.into() }
    }

    fn matched(name: &str, leaves: &[&str]) -> MatchedTable {
        MatchedTable {
            table: table(name),
            is_partitioned: !leaves.is_empty(),
            leaves: leaves.iter().map(|name| table(name)).collect(),
            leaf_oids: Vec::new(),
        }
    }

    fn publication(tables: &[&str]) -> Publication {
        let tables: BTreeSet<_> = tables.iter().map(|name| table(name)).collect();
        Publication {
            all_tables: false,
            has_schemas: false,
            has_filters: false,
            via_root: true,
            unpublished_operations: Vec::new(),
            members: tables.clone(),
            tables,
        }
    }

    #[test]
    fn a_publication_is_altered_only_where_it_differs() {
        let wanted = [table("a"), table("b\"c")];
        assert!(alterations("\"p\"", &publication(&["a", "b\"c"]), &wanted, true).is_empty());
        assert_eq!(
            alterations("\"p\"", &publication(&["a", "x"]), &wanted, true),
            ["ALTER PUBLICATION \"p\" SET TABLE \"public\".\"a\", \"public\".\"b\"\"c\""]
        );
        let all = Publication { all_tables: true, members: BTreeSet::new(), ..publication(&["a", "b\"c", "x"]) };
        assert!(alterations("\"p\"", &all, &wanted, true).is_empty());
        let partly = Publication { unpublished_operations: vec!["delete"], ..publication(&["a", "b\"c"]) };
        assert_eq!(
            alterations("\"p\"", &partly, &wanted, true),
            ["ALTER PUBLICATION \"p\" SET (publish = 'insert, update, delete, truncate')"]
        );
        assert_eq!(
            alterations("\"p\"", &publication(&["a", "b\"c"]), &wanted, false),
            ["ALTER PUBLICATION \"p\" SET (publish_via_partition_root = false)"]
        );
    }

    #[test]
    fn an_unmanaged_publication_must_hold_the_tables() {
        assert_eq!(check("p", None, &[matched("a", &[])]).expect_err("missing").code(), Code::PublicationMissing);
        let failure =
            check("p", Some(&publication(&["a"])), &[matched("a", &[]), matched("b", &[])]).expect_err("no b");
        assert_eq!(failure.code(), Code::PublicationMismatch);
        assert!(failure.to_string().contains("ADD TABLE \"public\".\"b\""), "{failure}");
        check("p", Some(&publication(&["a", "b"])), &[matched("a", &[])]).expect("more is left out by the stream");
        check("p", Some(&publication(&["x1", "x2"])), &[matched("x", &["x1", "x2"])]).expect("the leaves are there");
        let failure = check("p", Some(&publication(&["x1"])), &[matched("x", &["x1", "x2"])]).expect_err("one lacks");
        assert!(failure.to_string().contains("ADD TABLE \"public\".\"x\""), "{failure}");
    }
}
