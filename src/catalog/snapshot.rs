//! Tables whose rows are to be copied: what the stream will announce them as, which of their rows are published, and where these lie.
//!
//! It is what the catalog says at the time it is asked, and may be otherwise a moment later: what a copy has read is to be held against what the
//! stream announces. Nothing here takes a lock on a table, but for [`Catalog::snapshot_table`], which asks for sizes of files.

use std::collections::BTreeSet;

use pgoutput::{Oid, Relation};
use postgres_protocol::escape::escape_identifier;
use rustc_hash::FxHashMap;
use tokio_postgres::Row;

use super::{Catalog, CopyStatement, DescribedTable, PublishedTable, membership::membership};
use crate::failure::Failure;

/// A table whose rows are to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotTable {
    /// As the server would announce it in the stream.
    pub relation: Relation,
    /// The condition that the publication has for its rows, if it has one.
    pub filter: Option<String>,
    /// What its rows can be read in the order of, if there is anything.
    pub read_order: Option<ReadOrder>,
    /// How it has come into the publication, as a text: the OIDs of the rows of the catalog that have it there.
    pub membership: String,
    /// Whether it is partitioned, with or without leaves.
    pub is_partitioned: bool,
    /// Whether the columns of its replica identity are among those that are published.
    pub has_identity: bool,
}

/// A key whose index gives rows in order: the primary key, or else the index that is the replica identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOrder {
    /// Its columns, in its order.
    pub columns: Vec<KeyColumn>,
    /// The operator "greater than" of all of them: `OPERATOR(pg_catalog.>)`. A type of an extension has one of its own, which need not be in the
    /// search path, and the one that is found in its place may have another order.
    pub greater: String,
    /// The operator "less than or equal to" of all of them.
    pub at_most: String,
}

/// A column of such a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_oid: Oid,
    /// What its text is cast to for a constant to compare it with: its type, or what that is a domain over, without a modifier. So the constant
    /// is not cut, and brings no collation of its own.
    pub cast: String,
    /// The collation of the index; zero if it has none.
    pub collation: Oid,
    /// That collation as SQL where the column has another: values that are one by the column's may be several by the index's.
    pub collate: Option<String>,
}

impl KeyColumn {
    /// The column in words, which are others if its values have another order.
    pub fn words(&self) -> String {
        format!("{} {} {}", self.name, self.type_oid, self.collation)
    }
}

impl SnapshotTable {
    /// What copies its rows, those of its partitions among them.
    pub fn copy(&self) -> CopyStatement<'_> {
        let (relation, filter) = (&self.relation, self.filter.as_deref());
        let source = (relation.schema.as_str(), relation.name.as_str());
        CopyStatement { relation, filter, source, with_partitions: self.is_partitioned }
    }
}

/// `pg_publication_namespace`, the schemas of publications: a catalog that servers before version 15 do not have. What it says depends on the schemas, so
/// that `pg_depend` says it everywhere.
const PUBLICATION_NAMESPACE: u32 = 6237;

/// An expression for what a table is like, and what of it is published, as a text that is another after each change of it: the rows of the catalog
/// that describe it, by who has written them.
///
/// The name of its schema is in it too: whoever renames a schema takes no lock on the tables in it, which are read by their names.
///
/// Of types that stand inside of others, such as the elements of an array, nothing is in it.
pub(super) fn fingerprint(table: Oid) -> String {
    fingerprint_of(&u32::from(table).to_string())
}

/// The same of a table whose OID is an expression.
fn fingerprint_of(oid: &str) -> String {
    format!(
        "concat_ws(';',
            (SELECT concat_ws(',', xmin, relnamespace, relname) FROM pg_class WHERE oid = {oid}),
            (SELECT concat_ws(',', pg_namespace.xmin, nspname)
             FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE pg_class.oid = {oid}),
            (SELECT string_agg(concat_ws(',', xmin, attnum, attname), ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = {oid}),
            (SELECT string_agg(concat_ws(',', xmin, indexrelid), ' ' ORDER BY indexrelid) FROM pg_index WHERE indrelid = {oid}),
            (SELECT string_agg(concat_ws(',', xmin, oid), ' ' ORDER BY oid) FROM pg_type
             WHERE oid IN (SELECT atttypid FROM pg_attribute WHERE attrelid = {oid})),
            (SELECT string_agg(concat_ws(',', xmin, oid), ' ' ORDER BY oid) FROM pg_enum
             WHERE enumtypid IN (SELECT atttypid FROM pg_attribute WHERE attrelid = {oid})),
            (SELECT string_agg(concat_ws(',', xmin, oid), ' ' ORDER BY oid) FROM pg_publication),
            (SELECT string_agg(concat_ws(',', xmin, oid), ' ' ORDER BY oid) FROM pg_publication_rel WHERE prrelid = {oid}),
            (SELECT string_agg(concat_ws(',', xmin, objid), ' ' ORDER BY objid, refobjid) FROM pg_depend
             WHERE classid = {PUBLICATION_NAMESPACE}))"
    )
}

impl Catalog {
    /// What the table is like, to be compared with what it is like later.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn fingerprint(&mut self, table: Oid) -> Result<String, Failure> {
        Ok(self.query_one(&format!("SELECT {}", fingerprint(table)), &[]).await?.get(0))
    }

    /// The same of each of these tables.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn fingerprints(&mut self, tables: &[Oid]) -> Result<FxHashMap<Oid, String>, Failure> {
        let sql = format!("SELECT wanted.oid, {} FROM unnest($1::oid[]) wanted(oid)", fingerprint_of("wanted.oid"));
        let rows = self.query(&sql, &[&oids(tables)]).await?;
        Ok(rows.iter().map(|row| (table_of(row, 0), row.get(1))).collect())
    }

    /// What a publication comes to: roots or leaves, as its setting says, in the order of their names.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn published_tables(&mut self, publication: &str) -> Result<Vec<(Oid, PublishedTable)>, Failure> {
        let rows = self
            .query(
                "SELECT class.oid, published.schemaname::text, published.tablename::text FROM pg_publication_tables published
                 JOIN pg_namespace namespace ON namespace.nspname = published.schemaname
                 JOIN pg_class class ON class.relnamespace = namespace.oid AND class.relname = published.tablename
                 WHERE published.pubname = $1 ORDER BY published.schemaname, published.tablename",
                &[&publication],
            )
            .await?;
        let table =
            |row: &Row| (Oid::from(row.get::<_, u32>(0)), PublishedTable { schema: row.get(1), name: row.get(2) });
        Ok(rows.iter().map(table).collect())
    }

    /// Whether there is such a publication, with tables or without.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn has_publication(&mut self, publication: &str) -> Result<bool, Failure> {
        Ok(!self.query("SELECT FROM pg_publication WHERE pubname = $1", &[&publication]).await?.is_empty())
    }

    /// Those of these tables that there are.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn existing_tables(&mut self, tables: &[Oid]) -> Result<BTreeSet<Oid>, Failure> {
        let rows = self.query("SELECT oid FROM pg_class WHERE oid = ANY($1)", &[&oids(tables)]).await?;
        Ok(rows.iter().map(|row| table_of(row, 0)).collect())
    }

    /// How many rows each of these tables has with its partitions, as the statistics say; of some there are none.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn estimated_rows(&mut self, tables: &[Oid]) -> Result<FxHashMap<Oid, u64>, Failure> {
        // Not `pg_partition_tree`, which locks what it walks.
        let sql = "WITH RECURSIVE tree AS (
                 SELECT oid AS root, oid FROM unnest($1::oid[]) wanted(oid)
                 UNION ALL
                 SELECT tree.root, inhrelid FROM tree JOIN pg_inherits ON inhparent = tree.oid
                 JOIN pg_class ON pg_class.oid = inhrelid AND relispartition)
             SELECT root, sum(reltuples) FILTER (WHERE reltuples >= 0)::int8
             FROM tree JOIN pg_class USING (oid) WHERE relkind = 'r' GROUP BY root";
        let rows = self.query(sql, &[&oids(tables)]).await?;
        let estimate = |row: &Row| Some((table_of(row, 0), u64::try_from(row.get::<_, Option<i64>>(1)?).ok()?));
        Ok(rows.iter().filter_map(estimate).collect())
    }

    /// Whether somebody's text is a condition for rows of a table, and nothing else; or what the server says of it.
    ///
    /// It is read as one statement and not executed, in brackets of several kinds: what closes one kind and opens it again does not fit into another.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn verify_condition(
        &mut self,
        table: &PublishedTable,
        condition: &str,
    ) -> Result<Result<(), String>, Failure> {
        let (schema, name) = (escape_identifier(&table.schema), escape_identifier(&table.name));
        for statement in [
            format!("SELECT ARRAY[\n{condition}\n]::bool[] FROM {schema}.{name} AS {name}"),
            format!("SELECT (\n{condition}\n)::bool FROM {schema}.{name} AS {name}"),
            format!("SELECT FROM {schema}.{name} AS {name} WHERE (\n{condition}\n)"),
        ] {
            if let Err(why) = self.prepare(&statement).await? {
                return Ok(Err(why));
            }
        }
        Ok(Ok(()))
    }

    /// What is to be known of a table to copy its rows as the publication has them: a root whose partitions are published under its name, or a
    /// table that is published under its own. Whether the publication holds it is not asked. None if either is gone.
    ///
    /// # Errors
    /// The server cannot be asked, or a table is locked for too long.
    pub async fn snapshot_table(&mut self, publication: &str, table: Oid) -> Result<Option<SnapshotTable>, Failure> {
        Ok(self.snapshot_tables(publication, &[table]).await?.remove(&table))
    }

    /// The same of each of these tables.
    ///
    /// # Errors
    /// The server cannot be asked, or one of the tables is locked for too long.
    pub async fn snapshot_tables(
        &mut self,
        publication: &str,
        tables: &[Oid],
    ) -> Result<FxHashMap<Oid, SnapshotTable>, Failure> {
        let described = self.described_tables(tables).await?;
        let mut published = self.published_rows(publication, tables).await?;
        let mut read_orders = self.read_orders(tables).await?;
        let table = |described: DescribedTable| {
            let keys = described.key_columns();
            let oid = described.oid();
            let published = published.remove(&oid)?;
            let relation = described.published(published.columns.as_ref(), published.generated_columns);
            let table = SnapshotTable {
                has_identity: relation.columns.iter().filter(|column| column.is_key).count() == keys,
                relation,
                filter: published.filter,
                read_order: read_orders.remove(&oid),
                is_partitioned: published.is_partitioned,
                membership: published.membership,
            };
            Some((oid, table))
        };
        Ok(described.into_iter().filter_map(table).collect())
    }

    pub(super) async fn version_num(&mut self) -> Result<i32, Failure> {
        Ok(self.query_one("SELECT current_setting('server_version_num')::int4", &[]).await?.get(0))
    }

    async fn published_rows(
        &mut self,
        publication: &str,
        tables: &[Oid],
    ) -> Result<FxHashMap<Oid, PublishedRows>, Failure> {
        // Lists of columns, conditions and schemas came with version 15. As JSON, what is missing is simply not there; a table or a condition
        // that is no JSON cannot be asked for in this way.
        let sql = if self.version_num().await? < 150_000 {
            format!(
                "SELECT class.relkind = 'p', false, NULL::text[], NULL::text, {}, class.oid
                 FROM pg_publication publication JOIN pg_class class ON class.oid = ANY($2) WHERE publication.pubname = $1",
                membership(false)
            )
        } else {
            // A publication that has the table's whole schema has all of its rows, whatever it says of the table besides.
            format!(
                "SELECT class.relkind = 'p', coalesce(to_jsonb(publication) ->> 'pubgencols' = 's', false),
                        CASE WHEN member.prattrs IS NOT NULL THEN
                            ARRAY(SELECT attname::text FROM pg_attribute
                                  WHERE attrelid = class.oid AND attnum = ANY(member.prattrs::int2[])) END,
                        pg_get_expr(member.prqual, member.prrelid), {}, class.oid
                 FROM pg_publication publication JOIN pg_class class ON class.oid = ANY($2)
                 LEFT JOIN pg_publication_rel member ON member.prpubid = publication.oid AND member.prrelid = class.oid
                    AND NOT EXISTS (SELECT FROM pg_publication_namespace
                                    WHERE pnpubid = publication.oid AND pnnspid = class.relnamespace)
                 WHERE publication.pubname = $1",
                membership(true)
            )
        };
        let rows = self.query(&sql, &[&publication, &oids(tables)]).await?;
        let published = |row: &Row| PublishedRows {
            is_partitioned: row.get(0),
            generated_columns: row.get(1),
            columns: row.get::<_, Option<Vec<String>>>(2).map(|columns| columns.into_iter().collect()),
            filter: row.get(3),
            membership: row.get(4),
        };
        Ok(rows.iter().map(|row| (table_of(row, 5), published(row))).collect())
    }

    /// The key of each; none if rows cannot be compared by all of it at once, since its columns have operators of different names.
    async fn read_orders(&mut self, tables: &[Oid]) -> Result<FxHashMap<Oid, ReadOrder>, Failure> {
        let rows = self
            .query(
                // A domain leads to its base type in any number of steps.
                "WITH RECURSIVE key AS (
                     SELECT key.position, key.attnum, index.indrelid, class.opcfamily, class.opcintype,
                            class.opcdefault AND class.opcmethod = (SELECT oid FROM pg_am WHERE amname = 'btree') AS is_default,
                            key.collation_oid
                     FROM unnest($1::oid[]) wanted(oid)
                     JOIN pg_index index ON index.indexrelid = (
                         SELECT candidate.indexrelid FROM pg_index candidate
                         WHERE candidate.indrelid = wanted.oid AND (candidate.indisprimary OR candidate.indisreplident)
                           AND (candidate.indisvalid
                                OR EXISTS (SELECT FROM pg_class WHERE pg_class.oid = candidate.indrelid AND relkind = 'p'))
                         ORDER BY candidate.indisprimary DESC LIMIT 1)
                     CROSS JOIN LATERAL unnest(index.indkey, index.indclass, index.indcollation) WITH ORDINALITY key(attnum, opclass, collation_oid, position)
                     JOIN pg_opclass class ON class.oid = key.opclass
                 ), step AS (
                     SELECT key.indrelid, key.position, type.oid, type.typtype, type.typbasetype, 0 AS depth
                     FROM key JOIN pg_attribute attribute ON attribute.attrelid = key.indrelid AND attribute.attnum = key.attnum
                     JOIN pg_type type ON type.oid = attribute.atttypid
                     UNION ALL
                     SELECT step.indrelid, step.position, base.oid, base.typtype, base.typbasetype, step.depth + 1
                     FROM step JOIN pg_type base ON base.oid = step.typbasetype
                     WHERE step.typtype = 'd'
                 )
                 SELECT attribute.attname::text, attribute.atttypid,
                        (SELECT format_type(step.oid, -1) FROM step WHERE step.indrelid = key.indrelid AND step.position = key.position ORDER BY depth DESC LIMIT 1),
                        namespace.nspname::text, operator.oprname::text, key.is_default, key.collation_oid,
                        CASE WHEN key.collation_oid <> attribute.attcollation
                             THEN quote_ident(collation_namespace.nspname) || '.' || quote_ident(collated.collname) END,
                        key.indrelid, at_most_namespace.nspname::text, at_most.oprname::text
                 FROM key JOIN pg_attribute attribute ON attribute.attrelid = key.indrelid AND attribute.attnum = key.attnum
                 JOIN pg_amop member ON member.amopfamily = key.opcfamily AND member.amopstrategy = 5
                     AND member.amoplefttype = key.opcintype AND member.amoprighttype = key.opcintype
                 JOIN pg_operator operator ON operator.oid = member.amopopr
                 JOIN pg_namespace namespace ON namespace.oid = operator.oprnamespace
                 JOIN pg_amop at_most_member ON at_most_member.amopfamily = key.opcfamily AND at_most_member.amopstrategy = 2
                     AND at_most_member.amoplefttype = key.opcintype AND at_most_member.amoprighttype = key.opcintype
                 JOIN pg_operator at_most ON at_most.oid = at_most_member.amopopr
                 JOIN pg_namespace at_most_namespace ON at_most_namespace.oid = at_most.oprnamespace
                 LEFT JOIN pg_collation collated ON collated.oid = key.collation_oid
                 LEFT JOIN pg_namespace collation_namespace ON collation_namespace.oid = collated.collnamespace
                 ORDER BY key.indrelid, key.position",
                &[&oids(tables)],
            )
            .await?;
        let of_tables = rows.chunk_by(|one, other| table_of(one, 8) == table_of(other, 8));
        Ok(of_tables.filter_map(|rows| Some((table_of(rows.first()?, 8), read_order(rows)?))).collect())
    }
}

pub(super) fn oids(tables: &[Oid]) -> Vec<u32> {
    tables.iter().copied().map(u32::from).collect()
}

pub(super) fn table_of(row: &Row, column: usize) -> Oid {
    row.get::<_, u32>(column).into()
}

/// The order of a table, by the rows about the columns of its key.
fn read_order(rows: &[Row]) -> Option<ReadOrder> {
    let operator = |row: &Row, schema| {
        format!("OPERATOR({}.{})", escape_identifier(row.get(schema)), row.get::<_, &str>(schema + 1))
    };
    let operators = |row: &Row| (operator(row, 3), operator(row, 9));
    let (greater, at_most) = rows.first().map(operators)?;
    // Rows are ordered by their types, and compared by the index: they have to mean the same.
    let is_same = |row: &Row| operators(row) == (greater.clone(), at_most.clone()) && row.get::<_, bool>(5);
    if !rows.iter().all(is_same) {
        return None;
    }
    let column = |row: &Row| KeyColumn {
        name: row.get(0),
        type_oid: row.get::<_, u32>(1).into(),
        cast: row.get(2),
        collation: row.get::<_, u32>(6).into(),
        collate: row.get(7),
    };
    Some(ReadOrder { columns: rows.iter().map(column).collect(), greater, at_most })
}

/// What of a table a publication has.
struct PublishedRows {
    is_partitioned: bool,
    generated_columns: bool,
    /// Those that it lists, if it does.
    columns: Option<BTreeSet<String>>,
    filter: Option<String>,
    membership: String,
}
