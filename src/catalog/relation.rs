//! Tables as their Relation messages would describe them (`logicalrep_write_rel` in `proto.c`).

use std::collections::{BTreeMap, BTreeSet};

use pgoutput::{Oid, Relation, RelationColumn, ReplicaIdentity};

use super::Catalog;
use crate::failure::Failure;

/// A table as its Relation message would describe it, if all of its columns were sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedTable {
    relation: Relation,
    /// Columns that the server does not send unless told to: generated ones, and whether each is stored. It never sends those that are not.
    generated: BTreeMap<String, bool>,
}

impl DescribedTable {
    /// The table's schema and name.
    pub fn name(&self) -> (&str, &str) {
        (&self.relation.schema, &self.relation.name)
    }

    /// Its OID.
    pub fn oid(&self) -> Oid {
        self.relation.id
    }

    /// How many columns are part of the replica identity.
    pub fn key_columns(&self) -> usize {
        self.relation.columns.iter().filter(|column| column.is_key).count()
    }

    /// The message of a publication that lists the columns, or leaves generated ones out, or has the stored ones.
    pub fn published(mut self, listed: Option<&BTreeSet<String>>, generated_columns: bool) -> Relation {
        let is_stored = |column: &RelationColumn| self.generated.get(&column.name).copied();
        self.relation.columns.retain(|column| match listed {
            Some(listed) => listed.contains(&column.name),
            None => is_stored(column).is_none_or(|is_stored| is_stored && generated_columns),
        });
        self.relation
    }
}

impl Catalog {
    /// The tables as their Relation messages would describe them. Those that are gone are left out.
    ///
    /// The columns of the key are those of the index that identifies rows (`RelationGetIdentityKeyBitmap`), which a primary key whose check can
    /// be deferred does not.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn described_tables(&mut self, tables: &[Oid]) -> Result<Vec<DescribedTable>, Failure> {
        let oids: Vec<u32> = tables.iter().copied().map(u32::from).collect();
        let rows = self
            .query(
                "SELECT class.oid, namespace.nspname::text, class.relname::text, class.relreplident::text,
                        attribute.attname::text, attribute.atttypid, attribute.atttypmod, nullif(attribute.attgenerated, '')::text,
                        class.relreplident = 'f' OR EXISTS (
                            SELECT FROM pg_index index
                            WHERE index.indrelid = class.oid AND index.indimmediate
                              AND (index.indisvalid OR class.relkind = 'p')
                              AND CASE class.relreplident WHEN 'd' THEN index.indisprimary
                                                          WHEN 'i' THEN index.indisreplident ELSE false END
                              AND attribute.attnum = ANY((index.indkey::int2[])[0:index.indnkeyatts - 1]))
                 FROM pg_class class
                 JOIN pg_namespace namespace ON namespace.oid = class.relnamespace
                 LEFT JOIN pg_attribute attribute
                   ON attribute.attrelid = class.oid AND attribute.attnum > 0 AND NOT attribute.attisdropped
                 WHERE class.oid = ANY($1)
                 ORDER BY 2, 3, attribute.attnum",
                &[&oids],
            )
            .await?;
        let mut described: Vec<DescribedTable> = Vec::new();
        for row in &rows {
            let id = Oid::from(row.get::<_, u32>(0));
            if described.last().is_none_or(|last| last.relation.id != id) {
                described.push(DescribedTable {
                    relation: Relation {
                        xid: None,
                        id,
                        schema: row.get(1),
                        name: row.get(2),
                        replica_identity: match row.get::<_, &str>(3) {
                            "f" => ReplicaIdentity::Full,
                            "i" => ReplicaIdentity::Index,
                            "n" => ReplicaIdentity::Nothing,
                            _ => ReplicaIdentity::Default,
                        },
                        columns: Vec::new(),
                    },
                    generated: BTreeMap::new(),
                });
            }
            // A table may be without columns.
            let (Some(table), Some(name)) = (described.last_mut(), row.get::<_, Option<String>>(4)) else { continue };
            if let Some(kind) = row.get::<_, Option<&str>>(7) {
                table.generated.insert(name.clone(), kind == "s");
            }
            table.relation.columns.push(RelationColumn {
                is_key: row.get(8),
                name,
                type_oid: Oid::from(row.get::<_, u32>(5)),
                type_modifier: row.get(6),
            });
        }
        Ok(described)
    }
}
