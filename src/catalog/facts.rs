//! What only the catalog knows about a table: see [`TableFacts`] for why that is a hint and no more.

use std::sync::Arc;

use encoder::{ColumnFacts, ElementFacts, TableFacts, TypeKind};
use pgoutput::{Lsn, Oid, Timestamp, Xid};
use rustc_hash::FxHashMap;
use tokio_postgres::Row;

use super::Catalog;
use crate::{
    failure::{Code, Failure},
    snapshot::Visibility,
};

/// So many tables are asked about at once, which bounds what an answer takes.
const TABLES_PER_QUERY: usize = 1000;

/// A primary key, and since when there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrimaryKey {
    /// Its columns, in their order.
    pub columns: Vec<String>,
    /// The number of the transaction that made it.
    pub made_by: Xid,
    /// When that was committed, if the server keeps it (`track_commit_timestamp`) and has it by its own clock. Of a part of a transaction it is
    /// when the whole was.
    pub made_at: Option<Timestamp>,
    /// Whether it was made with its table.
    pub is_born: bool,
    /// Its constraint.
    pub constraint: Oid,
    /// Its columns by their numbers, in their order.
    pub numbers: Vec<i16>,
}

/// What the primary key of a table was, and in which snapshot.
#[derive(Debug, Clone)]
pub(crate) struct KeySeen {
    /// None if there was none.
    pub(crate) key: Option<PrimaryKey>,
    /// Whether the table is partitioned.
    pub(crate) is_partitioned: bool,
    pub(crate) seen: Arc<Visibility>,
    /// How far the log was then: what is committed behind it had not ended in the snapshot.
    pub(crate) found_at: Lsn,
}

#[cfg(test)]
impl KeySeen {
    /// A key of these columns, or none without any, as it was found in this snapshot; the log is as long as transactions were begun. Its constraint has
    /// the number of who made it. A column has a number behind `#`, or that of its first letter.
    pub(crate) fn for_test(columns: &str, made_by: Xid, made_at: Option<Timestamp>, seen: &str) -> Self {
        let numbered = |column: &str| match column.split_once('#') {
            Some((name, number)) => (name.to_owned(), number.parse().expect("a number")),
            None => (column.to_owned(), i16::from(column.as_bytes()[0])),
        };
        let (columns, numbers): (Vec<String>, Vec<i16>) = columns.split_whitespace().map(numbered).unzip();
        let constraint = u32::from(made_by).into();
        let key = PrimaryKey { columns, made_by, made_at, is_born: false, constraint, numbers };
        let seen: Visibility = seen.parse().expect("a snapshot");
        let found_at = seen.xmax().into();
        Self { key: (!key.columns.is_empty()).then_some(key), is_partitioned: false, seen: Arc::new(seen), found_at }
    }
}

/// The keys of some tables as they were found at one time.
#[derive(Debug)]
pub(crate) struct KeysSeen {
    /// Of those that there are.
    pub(crate) keys: FxHashMap<Oid, KeySeen>,
    /// The earliest snapshot in which any was looked at; none if there was none to look at.
    pub(crate) seen: Option<Arc<Visibility>>,
    /// How far the log was by the time at which all had been looked at.
    pub(crate) end: Lsn,
}

impl Catalog {
    /// The facts about the table with this OID; none at all if it does not exist any more.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn table_facts(&mut self, table: Oid) -> Result<TableFacts, Failure> {
        Ok(self.facts_of_tables(&[table]).await?.remove(&table).unwrap_or_default())
    }

    /// The facts about each of these tables; none about those that do not exist any more.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn facts_of_tables(&mut self, tables: &[Oid]) -> Result<FxHashMap<Oid, TableFacts>, Failure> {
        let mut facts = FxHashMap::default();
        for tables in tables.chunks(TABLES_PER_QUERY) {
            self.add_facts(tables, &mut facts).await?;
        }
        Ok(facts)
    }

    /// Those of these tables that have REPLICA IDENTITY FULL.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn full_tables(&mut self, tables: &[Oid]) -> Result<Vec<Oid>, Failure> {
        let oids: Vec<u32> = tables.iter().copied().map(u32::from).collect();
        let rows = self
            .query("SELECT oid FROM pg_class WHERE oid = ANY($1) AND relreplident = 'f' ORDER BY oid", &[&oids])
            .await?;
        Ok(rows.iter().map(|row| Oid::from(row.get::<_, u32>(0))).collect())
    }

    /// The primary keys of those of these tables that there are.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub(crate) async fn primary_keys(&mut self, tables: &[Oid]) -> Result<KeysSeen, Failure> {
        let mut found = KeysSeen { keys: FxHashMap::default(), seen: None, end: Lsn::INVALID };
        for tables in tables.chunks(TABLES_PER_QUERY) {
            let oids: Vec<u32> = tables.iter().copied().map(u32::from).collect();
            let rows = self
                .query(
                    // Each of these rows may have been written again since, for another reason, so that the oldest is asked: REINDEX CONCURRENTLY
                    // writes those of index and constraint, and nothing that leaves the key as it is writes that which ties the constraint to its
                    // table. The statement has one snapshot.
                    "SELECT class.oid, made.xid::text::int8,
                            ARRAY(SELECT attribute.attname::text
                                  FROM unnest(index.indkey) WITH ORDINALITY key(attnum, position)
                                  JOIN pg_attribute attribute
                                       ON attribute.attrelid = index.indrelid AND attribute.attnum = key.attnum
                                  WHERE key.position <= index.indnkeyatts ORDER BY key.position),
                            pg_current_snapshot()::text, class.relkind = 'p',
                            -- The server does not answer for the numbers that stand for long ago, and what was replicated has another's time.
                            CASE WHEN current_setting('track_commit_timestamp')::bool AND made.xid::text::int8 > 2 THEN
                                (SELECT (extract(epoch FROM made_at.timestamp) * 1000000)::int8
                                 FROM pg_xact_commit_timestamp_origin(made.xid) made_at WHERE made_at.roident = 0) END,
                            pg_current_wal_insert_lsn()::text, primary_key.oid,
                            ARRAY(SELECT key.attnum FROM unnest(index.indkey) WITH ORDINALITY key(attnum, position)
                                  WHERE key.position <= index.indnkeyatts ORDER BY key.position),
                            -- What ties a table to its type is written once.
                            made.xid = (SELECT tie.xmin FROM pg_depend tie
                                        WHERE tie.classid = 'pg_type'::regclass AND tie.objid = class.reltype
                                              AND tie.refclassid = 'pg_class'::regclass AND tie.refobjid = class.oid)
                     FROM pg_class class
                     LEFT JOIN (pg_index index
                                JOIN pg_constraint primary_key
                                     ON primary_key.conrelid = index.indrelid AND primary_key.contype = 'p')
                          -- That of a partitioned table is none until all partitions have theirs.
                          ON index.indrelid = class.oid AND index.indisprimary AND index.indisvalid
                     LEFT JOIN LATERAL (SELECT xid
                                        FROM (VALUES (index.xmin), (primary_key.xmin)
                                              UNION ALL
                                              SELECT tie.xmin FROM pg_depend tie
                                              WHERE tie.classid = 'pg_constraint'::regclass AND tie.objid = primary_key.oid
                                                    AND tie.refclassid = 'pg_class'::regclass AND tie.refobjid = class.oid) written(xid)
                                        ORDER BY age(xid) DESC LIMIT 1) made ON true
                     WHERE class.oid = ANY($1)",
                    &[&oids],
                )
                .await?;
            let Some(first) = rows.first() else { continue };
            let internal = |error: &dyn std::fmt::Display| Failure::new(Code::Internal, error.to_string());
            let seen: Visibility = first.get::<_, &str>(3).parse().map_err(|error| internal(&error))?;
            let seen = Arc::new(seen);
            // The chunks follow one another.
            found.seen.get_or_insert_with(|| Arc::clone(&seen));
            found.end = first.get::<_, &str>(6).parse().map_err(|error| internal(&error))?;
            for row in &rows {
                let seen = Arc::clone(&seen);
                let key = match row.get::<_, Option<i64>>(1) {
                    Some(made_by) => {
                        let made_by = u32::try_from(made_by).map_err(|error| internal(&error))?;
                        let made_at = row.get::<_, Option<i64>>(5).map(Timestamp::from_unix_micros);
                        Some(PrimaryKey {
                            columns: row.get(2),
                            made_by: made_by.into(),
                            made_at,
                            is_born: row.get::<_, Option<bool>>(9).unwrap_or(false),
                            constraint: Oid::from(row.get::<_, u32>(7)),
                            numbers: row.get(8),
                        })
                    }
                    None => None,
                };
                let key = KeySeen { key, is_partitioned: row.get(4), seen, found_at: found.end };
                found.keys.insert(Oid::from(row.get::<_, u32>(0)), key);
            }
        }
        Ok(found)
    }

    async fn add_facts(&mut self, tables: &[Oid], facts: &mut FxHashMap<Oid, TableFacts>) -> Result<(), Failure> {
        let oids: Vec<u32> = tables.iter().copied().map(u32::from).collect();
        let columns = self
            .query(
                // A domain leads to its base type in any number of steps. The modifier is the column's, or else the one
                // that is met last on the way down. The elements of an array are followed in the same way, from their own
                // type on; a type is an array if its elements say that it is theirs.
                "WITH RECURSIVE step AS (
                     SELECT attribute.attrelid, attribute.attnum, 0 AS depth, type.oid AS type_oid, type.typname, type.typtype, type.typbasetype,
                            attribute.atttypmod AS modifier, type.typtypmod, type.typnotnull AS not_null,
                            greatest(attribute.attndims, type.typndims) AS dimensions, type.typelem
                     FROM pg_attribute attribute JOIN pg_type type ON type.oid = attribute.atttypid
                     WHERE attribute.attrelid = ANY($1) AND attribute.attnum > 0 AND NOT attribute.attisdropped
                     UNION ALL
                     SELECT step.attrelid, step.attnum, step.depth + 1, base.oid, base.typname, base.typtype, base.typbasetype,
                            CASE WHEN step.typtypmod >= 0 THEN step.typtypmod ELSE step.modifier END, base.typtypmod,
                            step.not_null OR base.typnotnull, greatest(step.dimensions, base.typndims), base.typelem
                     FROM step JOIN pg_type base ON base.oid = step.typbasetype
                     WHERE step.typtype = 'd'
                 ), base AS (
                     SELECT DISTINCT ON (attrelid, attnum) * FROM step ORDER BY attrelid, attnum, depth DESC
                 ), element_step AS (
                     SELECT base.attrelid, base.attnum, 0 AS depth, element.oid AS type_oid, element.typname, element.typtype,
                            element.typbasetype, -1 AS modifier, element.typtypmod, element.typdelim
                     FROM base JOIN pg_type element ON element.oid = base.typelem AND element.typarray = base.type_oid
                     UNION ALL
                     SELECT step.attrelid, step.attnum, step.depth + 1, base.oid, base.typname, base.typtype, base.typbasetype,
                            CASE WHEN step.typtypmod >= 0 THEN step.typtypmod ELSE step.modifier END, base.typtypmod,
                            step.typdelim
                     FROM element_step step JOIN pg_type base ON base.oid = step.typbasetype
                     WHERE step.typtype = 'd'
                 ), element AS (
                     SELECT DISTINCT ON (attrelid, attnum) * FROM element_step ORDER BY attrelid, attnum, depth DESC
                 )
                 SELECT attribute.attname::text, attribute.attnotnull OR base.not_null,
                        CASE WHEN attribute.attgenerated = '' THEN pg_get_expr(def.adbin, def.adrelid) END,
                        attribute.atttypid, base.typname::text, type.typtype::text, base.type_oid, base.modifier,
                        base.typtype::text, base.dimensions::int4,
                        ARRAY(SELECT enumlabel::text FROM pg_enum
                              WHERE enumtypid = base.type_oid ORDER BY enumsortorder),
                        element.type_oid, element.typname::text, element.typtype::text, element.modifier,
                        element.typdelim::text,
                        ARRAY(SELECT enumlabel::text FROM pg_enum
                              WHERE enumtypid = element.type_oid ORDER BY enumsortorder),
                        attribute.attrelid
                 FROM pg_attribute attribute
                 JOIN pg_type type ON type.oid = attribute.atttypid
                 JOIN base ON base.attrelid = attribute.attrelid AND base.attnum = attribute.attnum
                 LEFT JOIN element ON element.attrelid = attribute.attrelid AND element.attnum = attribute.attnum
                 LEFT JOIN pg_attrdef def ON def.adrelid = attribute.attrelid AND def.adnum = attribute.attnum
                 WHERE attribute.attrelid = ANY($1) AND attribute.attnum > 0 AND NOT attribute.attisdropped
                 ORDER BY attribute.attrelid, attribute.attnum",
                &[&oids],
            )
            .await?;
        let keys = self
            .query(
                "SELECT attribute.attname::text, index.indrelid
                 FROM pg_index index
                 CROSS JOIN LATERAL unnest(index.indkey) WITH ORDINALITY key(attnum, position)
                 JOIN pg_attribute attribute ON attribute.attrelid = index.indrelid AND attribute.attnum = key.attnum
                 WHERE index.indrelid = ANY($1) AND index.indisprimary AND key.position <= index.indnkeyatts
                 ORDER BY index.indrelid, key.position",
                &[&oids],
            )
            .await?;
        for row in &columns {
            facts.entry(Oid::from(row.get::<_, u32>(17))).or_default().columns.push(column_facts(row));
        }
        for row in &keys {
            let key = &mut facts.entry(Oid::from(row.get::<_, u32>(1))).or_default().primary_key;
            key.get_or_insert_default().push(row.get(0));
        }
        Ok(())
    }
}

fn column_facts(row: &Row) -> ColumnFacts {
    ColumnFacts {
        name: row.get(0),
        not_null: row.get(1),
        default: row.get(2),
        type_oid: Oid::from(row.get::<_, u32>(3)),
        type_name: row.get(4),
        type_kind: type_kind(row.get(5)),
        base_type_oid: Oid::from(row.get::<_, u32>(6)),
        base_type_modifier: row.get(7),
        base_type_kind: type_kind(row.get(8)),
        dimensions: row.get(9),
        labels: row.get(10),
        element: row.get::<_, Option<u32>>(11).map(|type_oid| ElementFacts {
            type_oid: Oid::from(type_oid),
            type_name: row.get(12),
            type_kind: type_kind(row.get(13)),
            type_modifier: row.get(14),
            // It is one byte, and the server does not leave it out.
            delimiter: row.get::<_, &str>(15).bytes().next().unwrap_or(b','),
            labels: row.get(16),
        }),
    }
}

/// A kind that this build does not know has text, as everything has.
fn type_kind(typtype: &str) -> TypeKind {
    typtype.chars().next().and_then(TypeKind::from_catalog).unwrap_or(TypeKind::Base)
}
