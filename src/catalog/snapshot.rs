//! Tables whose rows are to be copied: what the stream will announce them as, which of their rows are published, and where these lie.
//!
//! It is what the catalog says at the time it is asked, and may be otherwise a moment later: what a copy has read is to be held against what the
//! stream announces. Nothing here takes a lock on a table, but for [`Catalog::snapshot_table`], which asks for sizes of files.

use std::collections::BTreeSet;

use pgoutput::{Oid, Relation};
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Row;

use super::{Catalog, CopyStatement, PublishedTable};
use crate::failure::{Code, Failure};

/// How large a table is, with its partitions, by the last VACUUM or ANALYZE of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSize {
    /// Its OID.
    pub oid: Oid,
    /// Its schema and name.
    pub table: PublishedTable,
    /// Its rows; those of partitions that were never looked at are missing, and there are none if that is so for all.
    pub rows_estimate: Option<u64>,
    /// Its bytes, with what is stored out of line.
    pub bytes_estimate: u64,
}

/// A table whose rows are to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotTable {
    /// As the server would announce it in the stream.
    pub relation: Relation,
    /// The condition that the publication has for its rows, if it has one.
    pub filter: Option<String>,
    /// What its rows can be read in the order of, if there is anything.
    pub primary_key: Option<PrimaryKey>,
    /// Whether it is partitioned, with or without leaves.
    pub is_partitioned: bool,
    /// Where its rows are: in the leaves of a partitioned table, or in itself.
    pub leaves: Vec<SnapshotLeaf>,
}

/// What holds rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotLeaf {
    /// Its OID.
    pub oid: Oid,
    /// Its schema and name.
    pub table: PublishedTable,
    /// The file it lies in, which is another after a rewrite or a TRUNCATE: `pg_relation_filenode`.
    pub file_node: u32,
    /// Its size in blocks.
    pub blocks: u32,
    /// Its bytes, with what is stored out of line.
    pub bytes: u64,
    /// Its rows by the last VACUUM or ANALYZE; none if there was none.
    pub rows_estimate: Option<u64>,
    /// Its blocks by the same.
    pub blocks_estimate: u32,
    /// Whether a value of it can be stored out of line.
    pub has_toast: bool,
}

/// A primary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrimaryKey {
    /// Its columns, in its order.
    pub columns: Vec<KeyColumn>,
    /// The operator "greater than" of all of them: `OPERATOR(pg_catalog.>)`. A type of an extension has one of its own, which need not be in the
    /// search path, and the one that is found in its place may have another order.
    pub greater: String,
}

/// A column of a primary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_oid: Oid,
    /// What its text is cast to for a constant to compare it with: its type, or what that is a domain over, without a modifier. So the constant
    /// is not cut, and brings no collation of its own.
    pub cast: String,
}

impl SnapshotTable {
    /// What copies the rows of one of its leaves.
    pub fn copy_of<'a>(&'a self, leaf: &'a SnapshotLeaf) -> CopyStatement<'a> {
        let (relation, filter) = (&self.relation, self.filter.as_deref());
        let source = (leaf.table.schema.as_str(), leaf.table.name.as_str());
        CopyStatement { relation, filter, source, with_partitions: false }
    }

    /// What copies the rows of all of its leaves at once, which can be only by key: blocks are those of one leaf.
    pub fn copy_of_all(&self) -> CopyStatement<'_> {
        let (relation, filter) = (&self.relation, self.filter.as_deref());
        let source = (relation.schema.as_str(), relation.name.as_str());
        CopyStatement { relation, filter, source, with_partitions: self.is_partitioned }
    }
}

/// The leaves of tables by their OIDs, which are these tables where they are not partitioned. Partitions of another kind, such as foreign tables,
/// hold no rows that the server would publish; nor do those that are being detached. `pg_partition_tree` would wait for locks on all of them.
const LEAVES: &str = "
    WITH RECURSIVE tree AS (
        SELECT oid AS root, oid, relkind FROM pg_class WHERE oid = ANY($1) AND relkind IN ('r', 'p')
        UNION ALL
        SELECT tree.root, child.oid, child.relkind
        FROM tree JOIN pg_inherits inherits ON inherits.inhparent = tree.oid AND NOT inherits.inhdetachpending
        JOIN pg_class child ON child.oid = inherits.inhrelid
        WHERE tree.relkind = 'p'
    ), leaf AS (
        SELECT root, class.*, toast.relpages AS toast_pages, current_setting('block_size')::int8 AS block_bytes
        FROM tree JOIN pg_class class ON class.oid = tree.oid
        LEFT JOIN pg_class toast ON toast.oid = class.reltoastrelid
        WHERE class.relkind = 'r'
    )";

impl Catalog {
    /// How large tables are. All of them cost one query, and no lock: of a table that is gone there is nothing.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn table_sizes(&mut self, tables: &[Oid]) -> Result<Vec<TableSize>, Failure> {
        let oids: Vec<u32> = tables.iter().copied().map(u32::from).collect();
        let sizes = format!(
            "{LEAVES}
             SELECT class.oid, namespace.nspname::text, class.relname::text,
                    sum(leaf.reltuples) FILTER (WHERE leaf.reltuples >= 0)::int8,
                    coalesce(sum((leaf.relpages + coalesce(leaf.toast_pages, 0)) * leaf.block_bytes), 0)::int8
             FROM pg_class class
             JOIN pg_namespace namespace ON namespace.oid = class.relnamespace
             LEFT JOIN leaf ON leaf.root = class.oid
             WHERE class.oid = ANY($1)
             GROUP BY 1, 2, 3 ORDER BY 2, 3"
        );
        let rows = self.query(&sizes, &[&oids]).await?;
        let size = |row: &Row| TableSize {
            oid: row.get::<_, u32>(0).into(),
            table: PublishedTable { schema: row.get(1), name: row.get(2) },
            rows_estimate: row.get::<_, Option<i64>>(3).map(unsigned),
            bytes_estimate: unsigned(row.get(4)),
        };
        Ok(rows.iter().map(size).collect())
    }

    /// What is to be known of a table to copy its rows as the publication has them: a root whose partitions are published under its name, or a
    /// table that is published under its own. Whether the publication holds it is not asked. None if either is gone.
    ///
    /// # Errors
    /// The server cannot be asked, or a table is locked for too long.
    pub async fn snapshot_table(&mut self, publication: &str, table: Oid) -> Result<Option<SnapshotTable>, Failure> {
        let described = self.described_tables(&[table]).await?.pop();
        let published = self.published_rows(publication, table).await?;
        let (Some(described), Some(published)) = (described, published) else { return Ok(None) };
        let primary_key = self.primary_key(table).await?;
        let leaves = self.leaves(table).await?;
        Ok(Some(SnapshotTable {
            relation: described.published(published.columns.as_ref(), published.generated_columns),
            filter: published.filter,
            primary_key,
            is_partitioned: published.is_partitioned,
            leaves,
        }))
    }

    async fn published_rows(&mut self, publication: &str, table: Oid) -> Result<Option<PublishedRows>, Failure> {
        let oid = u32::from(table);
        // Lists of columns, conditions and schemas came with version 15. As JSON, what is missing is simply not there; a table or a condition
        // that is no JSON cannot be asked for in this way.
        let version = self.query_one("SELECT current_setting('server_version_num')::int4", &[]).await?;
        let sql = if version.get::<_, i32>(0) < 150_000 {
            "SELECT class.relkind = 'p', false, NULL::text[], NULL::text
             FROM pg_publication publication JOIN pg_class class ON class.oid = $2 WHERE publication.pubname = $1"
        } else {
            // A publication that has the table's whole schema has all of its rows, whatever it says of the table besides.
            "SELECT class.relkind = 'p', coalesce(to_jsonb(publication) ->> 'pubgencols' = 's', false),
                    CASE WHEN member.prattrs IS NOT NULL THEN
                        ARRAY(SELECT attname::text FROM pg_attribute
                              WHERE attrelid = class.oid AND attnum = ANY(member.prattrs::int2[])) END,
                    pg_get_expr(member.prqual, member.prrelid)
             FROM pg_publication publication JOIN pg_class class ON class.oid = $2
             LEFT JOIN pg_publication_rel member ON member.prpubid = publication.oid AND member.prrelid = class.oid
                AND NOT EXISTS (SELECT FROM pg_publication_namespace
                                WHERE pnpubid = publication.oid AND pnnspid = class.relnamespace)
             WHERE publication.pubname = $1"
        };
        let rows = self.query(sql, &[&publication, &oid]).await?;
        Ok(rows.first().map(|row| PublishedRows {
            is_partitioned: row.get(0),
            generated_columns: row.get(1),
            columns: row.get::<_, Option<Vec<String>>>(2).map(|columns| columns.into_iter().collect()),
            filter: row.get(3),
        }))
    }

    /// The primary key; none if rows cannot be compared by all of it at once, since its columns have operators of different names.
    async fn primary_key(&mut self, table: Oid) -> Result<Option<PrimaryKey>, Failure> {
        let oid = u32::from(table);
        let rows = self
            .query(
                // A domain leads to its base type in any number of steps.
                "WITH RECURSIVE key AS (
                     SELECT key.position, key.attnum, index.indrelid, class.opcfamily, class.opcintype
                     FROM pg_index index
                     CROSS JOIN LATERAL unnest(index.indkey, index.indclass) WITH ORDINALITY key(attnum, opclass, position)
                     JOIN pg_opclass class ON class.oid = key.opclass
                     WHERE index.indrelid = $1 AND index.indisprimary AND (index.indisvalid
                         OR EXISTS (SELECT FROM pg_class WHERE pg_class.oid = index.indrelid AND relkind = 'p'))
                 ), step AS (
                     SELECT key.position, type.oid, type.typtype, type.typbasetype, 0 AS depth
                     FROM key JOIN pg_attribute attribute ON attribute.attrelid = key.indrelid AND attribute.attnum = key.attnum
                     JOIN pg_type type ON type.oid = attribute.atttypid
                     UNION ALL
                     SELECT step.position, base.oid, base.typtype, base.typbasetype, step.depth + 1
                     FROM step JOIN pg_type base ON base.oid = step.typbasetype
                     WHERE step.typtype = 'd'
                 )
                 SELECT attribute.attname::text, attribute.atttypid,
                        (SELECT format_type(step.oid, -1) FROM step WHERE step.position = key.position ORDER BY depth DESC LIMIT 1),
                        namespace.nspname::text, operator.oprname::text
                 FROM key JOIN pg_attribute attribute ON attribute.attrelid = key.indrelid AND attribute.attnum = key.attnum
                 JOIN pg_amop member ON member.amopfamily = key.opcfamily AND member.amopstrategy = 5
                     AND member.amoplefttype = key.opcintype AND member.amoprighttype = key.opcintype
                 JOIN pg_operator operator ON operator.oid = member.amopopr
                 JOIN pg_namespace namespace ON namespace.oid = operator.oprnamespace
                 ORDER BY key.position",
                &[&oid],
            )
            .await?;
        let operator = |row: &Row| format!("OPERATOR({}.{})", escape_identifier(row.get(3)), row.get::<_, &str>(4));
        let Some(greater) = rows.first().map(operator) else { return Ok(None) };
        if rows.iter().any(|row| operator(row) != greater) {
            return Ok(None);
        }
        let column =
            |row: &Row| KeyColumn { name: row.get(0), type_oid: row.get::<_, u32>(1).into(), cast: row.get(2) };
        Ok(Some(PrimaryKey { columns: rows.iter().map(column).collect(), greater }))
    }

    async fn leaves(&mut self, table: Oid) -> Result<Vec<SnapshotLeaf>, Failure> {
        let sql = format!(
            "{LEAVES}, sized AS (
                 SELECT leaf.*, pg_relation_filenode(oid) AS file_node, pg_relation_size(oid) / block_bytes AS blocks,
                        pg_table_size(oid) AS bytes
                 FROM leaf
             )
             SELECT sized.oid, namespace.nspname::text, sized.relname::text, file_node, blocks, bytes,
                    nullif(greatest(reltuples, -1), -1)::int8, relpages, reltoastrelid <> 0
             FROM sized JOIN pg_namespace namespace ON namespace.oid = sized.relnamespace
             -- One that was dropped meanwhile has no size, and no rows.
             WHERE file_node IS NOT NULL AND blocks IS NOT NULL AND bytes IS NOT NULL
             ORDER BY 2, 3"
        );
        self.query(&sql, &[&[u32::from(table)].as_slice()]).await?.iter().map(leaf).collect()
    }
}

/// What of a table a publication has.
struct PublishedRows {
    is_partitioned: bool,
    generated_columns: bool,
    /// Those that it lists, if it does.
    columns: Option<BTreeSet<String>>,
    filter: Option<String>,
}

fn leaf(row: &Row) -> Result<SnapshotLeaf, Failure> {
    let blocks = |count: i64| u32::try_from(count).map_err(|error| Failure::caused(Code::Internal, error));
    Ok(SnapshotLeaf {
        oid: row.get::<_, u32>(0).into(),
        table: PublishedTable { schema: row.get(1), name: row.get(2) },
        file_node: row.get(3),
        blocks: blocks(row.get(4))?,
        bytes: unsigned(row.get(5)),
        rows_estimate: row.get::<_, Option<i64>>(6).map(unsigned),
        // The catalog has an unsigned number in a signed column.
        blocks_estimate: row.get::<_, i32>(7).cast_unsigned(),
        has_toast: row.get(8),
    })
}

/// A count or a size, which is not negative.
fn unsigned(number: i64) -> u64 {
    number.try_into().unwrap_or_default()
}
