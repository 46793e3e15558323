//! The publication: checked, or made to fit.

use std::collections::BTreeSet;

use pgoutput::Oid;
use postgres_protocol::escape::escape_identifier;
use tracing::info;

use super::{Catalog, MatchedTable, PublishedTable};
use crate::{
    config::Postgres,
    failure::{Code, Failure},
};

/// A publication as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Whether it was made FOR ALL TABLES.
    pub all_tables: bool,
    /// Whether it names whole schemas.
    pub has_schemas: bool,
    /// Whether changes of partitions are published under their root.
    pub via_root: bool,
    /// Whether stored generated columns are published, which they never are before version 18.
    pub generated_columns: bool,
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
    /// Its name.
    pub name: String,
    /// The publication as it is, if it exists.
    pub existing: Option<Publication>,
    /// Everything that is asked for.
    pub wanted: Vec<PublishedTable>,
    /// What it lacks of that.
    pub new_tables: Vec<PublishedTable>,
    /// What it names beside that.
    pub extra_tables: Vec<PublishedTable>,
    /// Why it could not be used as it is.
    pub unfit: Option<Failure>,
    /// What it leaves out, in sentences, though it could be used.
    pub remarks: Vec<String>,
    shape: PublicationShape,
}

/// What is asked of a publication beside its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicationShape {
    /// Whether changes of partitions are to be published under their root.
    pub via_root: bool,
    /// Whether stored generated columns are to be published (PostgreSQL 18).
    pub generated_columns: bool,
}

impl PublicationShape {
    /// What the configuration asks for.
    pub fn of(postgres: &Postgres) -> Self {
        Self { via_root: postgres.publish_via_partition_root, generated_columns: postgres.publish_generated_columns }
    }
}

impl PublicationPlan {
    /// The statements that would make it fit; none if it does.
    pub fn statements(&self) -> Vec<String> {
        if self.existing.is_none() {
            return vec![self.creation(&self.wanted)];
        }
        let mut statements = self.settings();
        if self.must_be_rewritten() {
            statements.push(self.rewriting(&self.wanted));
        } else {
            statements.extend(self.extra_tables.iter().map(|table| self.removal(table)));
            statements.extend(self.new_tables.iter().map(|table| self.addition(table)));
        }
        statements
    }

    /// The statement that makes it, with these tables.
    pub fn creation(&self, tables: &[PublishedTable]) -> String {
        let tables = if tables.is_empty() { String::new() } else { format!(" FOR TABLE {}", list(tables)) };
        let (name, via_root) = (escape_identifier(&self.name), self.shape.via_root);
        // Servers before version 18 do not know the parameter.
        let generated = if self.shape.generated_columns { ", publish_generated_columns = stored" } else { "" };
        format!("CREATE PUBLICATION {name}{tables} WITH (publish_via_partition_root = {via_root}{generated})")
    }

    /// The statements that set what is not about its tables.
    pub fn settings(&self) -> Vec<String> {
        let Some(existing) = &self.existing else { return Vec::new() };
        let alter = format!("ALTER PUBLICATION {}", escape_identifier(&self.name));
        let mut statements = Vec::new();
        let PublicationShape { via_root, generated_columns } = self.shape;
        if existing.via_root != via_root {
            statements.push(format!("{alter} SET (publish_via_partition_root = {via_root})"));
        }
        if existing.generated_columns != generated_columns {
            let which = if generated_columns { "stored" } else { "none" };
            statements.push(format!("{alter} SET (publish_generated_columns = {which})"));
        }
        if !existing.unpublished_operations.is_empty() {
            statements.push(format!("{alter} SET (publish = 'insert, update, delete, truncate')"));
        }
        statements
    }

    /// Whether its list of tables cannot be mended table by table: it names schemas, or leaves rows or columns out.
    pub fn must_be_rewritten(&self) -> bool {
        self.existing.as_ref().is_some_and(|it| !it.all_tables && (it.has_schemas || it.has_filters))
    }

    /// The statement that makes it hold these tables, whole, and nothing else. It locks and needs to own every one of them.
    pub fn rewriting(&self, tables: &[PublishedTable]) -> String {
        format!("ALTER PUBLICATION {} SET TABLE {}", escape_identifier(&self.name), list(tables))
    }

    /// The statement that adds a table.
    pub fn addition(&self, table: &PublishedTable) -> String {
        let table = list(std::slice::from_ref(table));
        format!("ALTER PUBLICATION {} ADD TABLE {table}", escape_identifier(&self.name))
    }

    /// The statement that takes a table out.
    pub fn removal(&self, table: &PublishedTable) -> String {
        let table = list(std::slice::from_ref(table));
        format!("ALTER PUBLICATION {} DROP TABLE {table}", escape_identifier(&self.name))
    }
}

impl Catalog {
    /// The publication of this name, if it exists.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn publication(&mut self, name: &str) -> Result<Option<Publication>, Failure> {
        let rows = self
            .query(
                "SELECT puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate, oid,
                        -- It came with version 18; as JSON, what is missing is simply not there.
                        coalesce(to_jsonb(publication) ->> 'pubgencols' = 's', false)
                 FROM pg_publication publication WHERE pubname = $1",
                &[&name],
            )
            .await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let operations = [(2, "insert"), (3, "update"), (4, "delete"), (5, "truncate")];
        let has_schemas = self.has_schema_publications().await?
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
            generated_columns: row.get(7),
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

    /// Those of the tables that the publication holds: by their own name, by that of what they are a partition of, with their schema, or with
    /// all tables. Whether rows come under the name of a table or of what it is a partition of is not asked.
    ///
    /// The view `pg_publication_tables` locks each table, so that whoever alters one would stop who asks it.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn held_tables(&mut self, name: &str, tables: &[Oid]) -> Result<BTreeSet<Oid>, Failure> {
        let oids: Vec<u32> = tables.iter().copied().map(u32::from).collect();
        let schemas = if self.has_schema_publications().await? {
            "OR EXISTS (SELECT FROM pg_publication_namespace member
                        JOIN pg_class class ON class.relnamespace = member.pnnspid
                        WHERE member.pnpubid = publication.oid AND class.oid = line.oid)"
        } else {
            ""
        };
        let sql = format!(
            "SELECT DISTINCT wanted.oid
             FROM unnest($2::oid[]) wanted(oid)
             JOIN pg_class ON pg_class.oid = wanted.oid
             CROSS JOIN LATERAL (SELECT relid::oid FROM pg_partition_ancestors(wanted.oid) UNION SELECT wanted.oid) line(oid)
             JOIN pg_publication publication ON publication.pubname = $1
             WHERE publication.puballtables
                OR EXISTS (SELECT FROM pg_publication_rel member
                           WHERE member.prpubid = publication.oid AND member.prrelid = line.oid)
                {schemas}"
        );
        let rows = self.query(&sql, &[&name, &oids]).await?;
        Ok(rows.iter().map(|row| Oid::from(row.get::<_, u32>(0))).collect())
    }

    /// Whether a publication can hold whole schemas, as since version 15.
    async fn has_schema_publications(&mut self) -> Result<bool, Failure> {
        let sql = "SELECT FROM pg_class WHERE relname = 'pg_publication_namespace' AND relnamespace = 'pg_catalog'::regnamespace";
        Ok(!self.query(sql, &[]).await?.is_empty())
    }

    /// What would have to be done so that the publication holds the tables, and nothing is done.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn publication_plan(
        &mut self,
        name: &str,
        wanted: &[MatchedTable],
        shape: PublicationShape,
    ) -> Result<PublicationPlan, Failure> {
        let existing = self.publication(name).await?;
        let unfit = check(name, existing.as_ref(), wanted, shape).err();
        let remarks = existing.as_ref().map_or_else(Vec::new, |publication| remarks(name, publication));
        let wanted: Vec<PublishedTable> = wanted.iter().map(|wanted| wanted.table.clone()).collect();
        let (new_tables, extra_tables) = match &existing {
            // It holds every table there is, and cannot be narrowed; what was not asked for is left out by the stream.
            Some(publication) if publication.all_tables => (Vec::new(), Vec::new()),
            Some(publication) => difference(&publication.members, &wanted),
            None => (wanted.clone(), Vec::new()),
        };
        let name = name.to_owned();
        Ok(PublicationPlan { name, existing, wanted, new_tables, extra_tables, unfit, remarks, shape })
    }

    /// Runs a statement of a [`PublicationPlan`].
    ///
    /// # Errors
    /// The server refuses it, or cannot be asked.
    pub async fn alter_publication(&mut self, statement: &str) -> Result<(), Failure> {
        self.execute(statement).await?;
        info!(statement, "changed the publication");
        Ok(())
    }
}

impl Catalog {
    /// Runs statements as one transaction.
    ///
    /// # Errors
    /// The server refuses one of them, and none has been run then; or it cannot be asked.
    pub async fn set_up(&mut self, statements: &[String]) -> Result<(), Failure> {
        // What is sent as one message is one transaction.
        self.execute(&statements.join(";\n")).await
    }
}

/// What `wanted` has and `members` has not, and the other way round.
fn difference(
    members: &BTreeSet<PublishedTable>,
    wanted: &[PublishedTable],
) -> (Vec<PublishedTable>, Vec<PublishedTable>) {
    let new = wanted.iter().filter(|table| !members.contains(*table)).cloned().collect();
    let wanted: BTreeSet<_> = wanted.iter().collect();
    (new, members.iter().filter(|table| !wanted.contains(table)).cloned().collect())
}

fn check(
    name: &str,
    publication: Option<&Publication>,
    wanted: &[MatchedTable],
    shape: PublicationShape,
) -> Result<(), Failure> {
    let Some(publication) = publication else {
        return Err(Failure::new(Code::PublicationMissing, format!("publication {name} does not exist")));
    };
    let covered = |wanted: &&MatchedTable| {
        let by_leaves = || wanted.leaves.iter().all(|leaf| publication.tables.contains(&leaf.table));
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
    if shape.generated_columns && !publication.generated_columns {
        return Err(Failure::new(
            Code::PublicationMismatch,
            format!(
                "publication {name} leaves out the generated columns that postgres.publish_generated_columns asks for: ALTER PUBLICATION {} \
                 SET (publish_generated_columns = stored)",
                escape_identifier(name)
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
    let quoted: Vec<_> = tables.iter().map(PublishedTable::quoted).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Leaf;

    const SHAPE: PublicationShape = PublicationShape { via_root: true, generated_columns: false };

    fn table(name: &str) -> PublishedTable {
        PublishedTable { schema: "public".into(), name: name.into() }
    }

    fn matched(name: &str, leaves: &[&str]) -> MatchedTable {
        MatchedTable {
            oid: Oid::from(1),
            table: table(name),
            is_partitioned: !leaves.is_empty(),
            ancestors: Vec::new(),
            leaves: leaves
                .iter()
                .map(|leaf| Leaf { table: table(leaf), oid: Oid::from(2), ancestors: vec![table(name)] })
                .collect(),
            excluded: Vec::new(),
        }
    }

    fn publication(tables: &[&str]) -> Publication {
        let tables: BTreeSet<_> = tables.iter().map(|name| table(name)).collect();
        Publication {
            all_tables: false,
            has_schemas: false,
            has_filters: false,
            via_root: true,
            generated_columns: false,
            unpublished_operations: Vec::new(),
            members: tables.clone(),
            tables,
        }
    }

    fn statements(publication: Publication, wanted: &[PublishedTable], via_root: bool) -> Vec<String> {
        let (new_tables, extra_tables) = difference(&publication.members, wanted);
        let (new_tables, extra_tables) =
            if publication.all_tables { (Vec::new(), Vec::new()) } else { (new_tables, extra_tables) };
        let plan = PublicationPlan {
            name: "p".into(),
            existing: Some(publication),
            wanted: wanted.to_vec(),
            new_tables,
            extra_tables,
            unfit: None,
            remarks: Vec::new(),
            shape: PublicationShape { via_root, generated_columns: false },
        };
        plan.statements()
    }

    #[test]
    fn a_publication_is_altered_only_where_it_differs() {
        let wanted = [table("a"), table("b\"c")];
        assert!(statements(publication(&["a", "b\"c"]), &wanted, true).is_empty());
        assert_eq!(
            statements(publication(&["a", "x"]), &wanted, true),
            [
                "ALTER PUBLICATION \"p\" DROP TABLE \"public\".\"x\"",
                "ALTER PUBLICATION \"p\" ADD TABLE \"public\".\"b\"\"c\""
            ]
        );
        let filtered = Publication { has_filters: true, ..publication(&["a", "b\"c"]) };
        assert_eq!(
            statements(filtered, &wanted, true),
            ["ALTER PUBLICATION \"p\" SET TABLE \"public\".\"a\", \"public\".\"b\"\"c\""]
        );
        let all = Publication { all_tables: true, members: BTreeSet::new(), ..publication(&["a", "b\"c", "x"]) };
        assert!(statements(all, &wanted, true).is_empty());
        let partly = Publication { unpublished_operations: vec!["delete"], ..publication(&["a", "b\"c"]) };
        assert_eq!(
            statements(partly, &wanted, true),
            ["ALTER PUBLICATION \"p\" SET (publish = 'insert, update, delete, truncate')"]
        );
        assert_eq!(
            statements(publication(&["a", "b\"c"]), &wanted, false),
            ["ALTER PUBLICATION \"p\" SET (publish_via_partition_root = false)"]
        );
    }

    #[test]
    fn an_unmanaged_publication_must_hold_the_tables() {
        assert_eq!(
            check("p", None, &[matched("a", &[])], SHAPE).expect_err("missing").code(),
            Code::PublicationMissing
        );
        let failure =
            check("p", Some(&publication(&["a"])), &[matched("a", &[]), matched("b", &[])], SHAPE).expect_err("no b");
        assert_eq!(failure.code(), Code::PublicationMismatch);
        assert!(failure.to_string().contains("ADD TABLE \"public\".\"b\""), "{failure}");
        check("p", Some(&publication(&["a", "b"])), &[matched("a", &[])], SHAPE)
            .expect("more is left out by the stream");
        check("p", Some(&publication(&["x1", "x2"])), &[matched("x", &["x1", "x2"])], SHAPE)
            .expect("the leaves are there");
        let failure =
            check("p", Some(&publication(&["x1"])), &[matched("x", &["x1", "x2"])], SHAPE).expect_err("one lacks");
        assert!(failure.to_string().contains("ADD TABLE \"public\".\"x\""), "{failure}");
        let shape = PublicationShape { generated_columns: true, ..SHAPE };
        let failure = check("p", Some(&publication(&["a"])), &[matched("a", &[])], shape).expect_err("not them");
        assert!(failure.to_string().contains("SET (publish_generated_columns = stored)"), "{failure}");
        let with_generated = Publication { generated_columns: true, ..publication(&["a"]) };
        check("p", Some(&with_generated), &[matched("a", &[])], shape).expect("it publishes them");
        assert_eq!(
            statements(with_generated, &[table("a")], true),
            ["ALTER PUBLICATION \"p\" SET (publish_generated_columns = none)"]
        );
    }
}
