//! How a table has come into a publication: whether it has been in it all the time is decided by that.
//!
//! A table that is taken out of the publication and put back has changes in between that were not streamed, and no message says so. But each row of
//! `pg_publication_rel` and `pg_publication_namespace` that has a table in a publication is another one, with another OID, once it was taken out and put back,
//! and so it is where a list of columns or a condition is set otherwise (`ALTER PUBLICATION ... SET` takes such a table out and puts it back). So a
//! table that has one such row at two times was in the publication from the one to the other.
//!
//! A row that is not the table's own says it with what ties the table to it: its place in the schema (`pg_depend`), or what it is attached to (`pg_inherits`),
//! whose rows are written anew when the table leaves and comes back. `xmin` tells them apart.
//!
//! Not told is what changes whether a table is published at all while it stays where it is: UNLOGGED and LOGGED again, in a publication of a schema or of all
//! tables; and operations that the publication leaves out for a while. Nor a leaf that comes under its root's name while it is attached to it: such a
//! leaf is not a published table of its own then.

use std::collections::BTreeMap;

use pgoutput::Oid;
use rustc_hash::FxHashMap;

use super::{
    Catalog,
    snapshot::{oids, table_of},
};
use crate::failure::Failure;

/// The word of a membership without anything that says which.
pub(crate) const MEMBER: &str = "member";
/// What stands behind the OID of a row that leaves out rows or columns.
const PARTLY: char = '*';

/// An expression for how the table `class` has come into `publication`: the OIDs of the rows of the catalog that have it there, those of what it
/// is a partition of among them. Of a publication of all tables there are none.
pub(super) fn membership(with_schemas: bool) -> String {
    let line = "(SELECT class.oid UNION SELECT relid FROM pg_partition_ancestors(class.oid))";
    let ties =
        format!("(SELECT string_agg(xmin::text, '.' ORDER BY inhrelid) FROM pg_inherits WHERE inhrelid IN {line})");
    // Lists of columns, conditions and schemas came with version 15.
    let (partly, schemas) = if with_schemas {
        (
            format!("CASE WHEN prqual IS NULL AND prattrs IS NULL THEN '' ELSE '{PARTLY}' END"),
            format!(
                ", (SELECT string_agg(concat_ws('@', namespace.oid, (
                            SELECT string_agg(xmin::text, '.' ORDER BY objid) FROM pg_depend
                            WHERE classid = 'pg_class'::regclass AND objid IN {line} AND objsubid = 0
                                AND refclassid = 'pg_namespace'::regclass AND refobjid = pnnspid),
                        CASE WHEN pnnspid <> class.relnamespace THEN {ties} END), ' ' ORDER BY namespace.oid)
                    FROM pg_publication_namespace namespace
                    WHERE pnpubid = publication.oid AND pnnspid IN (SELECT relnamespace FROM pg_class WHERE oid IN {line}))"
            ),
        )
    } else {
        ("''".to_owned(), String::new())
    };
    format!(
        "concat_ws(' ', '{MEMBER}', (SELECT string_agg(concat_ws('@', member.oid, CASE WHEN prrelid <> class.oid THEN {ties} END) || {partly},
                                                       ' ' ORDER BY member.oid)
                                     FROM pg_publication_rel member WHERE prpubid = publication.oid AND prrelid IN {line}){schemas})"
    )
}

/// Whether a table that was in a publication in the one way, and is in the other, may have been out of it in between, or has other rows or columns
/// published since. Where anything leaves out rows or columns, which of them decides is not asked.
pub(crate) fn may_have_been_out(then: &str, now: &str) -> bool {
    if then == now {
        return false;
    }
    let (then, now) = (rows_of(then), rows_of(now));
    let is_whole = |rows: &BTreeMap<&str, bool>| rows.values().all(|is_partly| !is_partly);
    !(is_whole(&then) && is_whole(&now) && then.keys().any(|row| now.contains_key(row)))
}

/// The rows, each by its OID with what ties the table to it, and whether it leaves out anything.
fn rows_of(membership: &str) -> BTreeMap<&str, bool> {
    let words = membership.split_whitespace().skip(1);
    words.map(|word| word.strip_suffix(PARTLY).map_or((word, false), |oid| (oid, true))).collect()
}

impl Catalog {
    /// How each of these tables has come into the publication: [`SnapshotTable::membership`](super::SnapshotTable::membership). Those that are gone are left out.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn memberships(&mut self, publication: &str, tables: &[Oid]) -> Result<FxHashMap<Oid, String>, Failure> {
        let membership = membership(self.version_num().await? >= 150_000);
        let sql = format!(
            "SELECT class.oid, {membership}
             FROM pg_publication publication JOIN pg_class class ON class.oid = ANY($2) WHERE publication.pubname = $1"
        );
        let rows = self.query(&sql, &[&publication, &oids(tables)]).await?;
        Ok(rows.iter().map(|row| (table_of(row, 0), row.get(1))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::may_have_been_out;

    #[test]
    fn a_row_of_the_catalog_that_stays_says_that_a_table_was_never_out() {
        for (then, now, may) in [
            ("member 1", "member 1", false),
            ("member 1*", "member 1*", false),
            // Its schema is added, or it is attached to a root that is published; and the other way round.
            ("member 1", "member 1 7", false),
            ("member 1 7", "member 7", false),
            ("member 1", "member 2", true),
            ("member 1 7", "member 2 8", true),
            // It has left the schema and come back, or what it was attached to.
            ("member 7@100", "member 7@200", true),
            ("member 1 7@100", "member 1 7@200", false),
            // A text that is part of another is not that one.
            ("member 1", "member 11", true),
            // What a condition has left out is not left out any more, or may not be.
            ("member 1*", "member 1* 7", true),
            ("member 1", "member 1 2*", true),
            ("member 1*", "member 1", true),
            // Nothing is known of one of all tables.
            ("member", "member 1", true),
            ("member 1", "member", true),
        ] {
            assert_eq!(may_have_been_out(then, now), may, "{then}, {now}");
        }
    }
}
