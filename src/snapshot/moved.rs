//! Rows of which only the table has a value, and which the copy has passed.
//!
//! An update that leaves a large value (TOAST) as it is does not carry it: whoever has the row from before has the value. There are two ways in
//! which nobody has, once the copy's cursor is past the row:
//!
//! - the update was streamed while the row's chunk was read, so that the row in the chunk is older than the event ([`Fate::ReadAgain`](super::Fate));
//! - the update has changed the key of a row that was not copied yet, to one that lies behind the cursor.
//!
//! Every such key is remembered, in the Kafka transaction of the cursor or of the event, and is read when the copy has come to its end. Of the second
//! kind there are some too many: where the new key lies is for the server's collations to say. Once the cursor has come to its end there are not:
//! every row was copied then, or is remembered, and only the latter take that along to another key. So what is left becomes less under any writers.

use std::collections::BTreeMap;

use pgoutput::{Lsn, Oid};
use publisher::Attachment;
use rustc_hash::FxHashMap;

use super::state::{MovedRecord, moved_suffix};

/// How many rows of a table are remembered. If there are more, all of it is copied again.
const MOVED_MAX: usize = 10_000;
/// What stands in the place of a row's name for all of them.
const ALL: &str = "all";
/// How many are read again at a time.
const BATCH_LEN: usize = 500;

/// The tables that are being copied, and what is remembered of each.
#[derive(Debug, Default)]
pub(crate) struct MovedRows {
    tables: FxHashMap<Oid, Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// The keys by their names.
    rows: BTreeMap<String, Vec<String>>,
    /// Whether the cursor has come to its end, so that every row that is not remembered was copied.
    is_passed: bool,
}

/// What of it a chunk settles, once it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settles {
    /// These rows, by the names under which they are remembered.
    Rows(Vec<String>),
    /// All of them: the copy begins anew behind the chunk, which has no rows.
    All,
}

/// What is still to be read when a copy has come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Left {
    /// Some rows: what they are remembered under, and their keys.
    Rows(Vec<(String, Vec<String>)>),
    /// The table.
    All,
}

impl MovedRows {
    /// What the checkpoint says of them when a session begins.
    pub(crate) fn new(tables: impl IntoIterator<Item = (Oid, BTreeMap<String, Vec<String>>)>) -> Self {
        let table = |(oid, rows)| (oid, Table { rows, is_passed: false });
        Self { tables: tables.into_iter().map(table).collect() }
    }

    /// Whether the table is being copied.
    #[inline]
    pub(crate) fn watch(&self, table: Oid) -> bool {
        self.tables.contains_key(&table)
    }

    /// The copy of a table begins, or goes on.
    pub(crate) fn begin(&mut self, table: Oid) {
        self.tables.entry(table).or_default();
    }

    /// A table is not copied any more.
    pub(crate) fn end(&mut self, table: Oid) {
        self.tables.remove(&table);
    }

    /// A row whose value is not known everywhere has gone from one key to another, at a place in the log: it is remembered, if nobody may have it.
    pub(crate) fn moves(
        &mut self,
        table: Oid,
        from: &[String],
        to: Vec<String>,
        place: (Lsn, u64),
    ) -> Option<Attachment> {
        let held = self.tables.get(&table)?;
        if held.is_passed && !held.rows.values().any(|key| key == from) {
            return None;
        }
        self.remember(table, to, place)
    }

    /// Remembers a row by its key, under a name that begins with a position of the log and a number.
    pub(crate) fn remember(
        &mut self,
        table: Oid,
        key: Vec<String>,
        (lsn, mut number): (Lsn, u64),
    ) -> Option<Attachment> {
        let Table { rows, .. } = self.tables.get_mut(&table)?;
        if rows.contains_key(ALL) {
            return None;
        }
        let (name, key) = if rows.len() >= MOVED_MAX {
            (ALL.to_owned(), Vec::new())
        } else {
            let name = |number| format!("{:X}-{number}", u64::from(lsn));
            // What has this name already is another row.
            while rows.contains_key(&name(number)) {
                number += 1;
            }
            (name(number), key)
        };
        let attachment = MovedRecord::new(key.clone()).attachment(table, &name);
        rows.insert(name, key);
        Some(attachment)
    }

    /// Forgets what a chunk has settled; the attachments say so.
    pub(crate) fn settle(&mut self, table: Oid, settles: &Settles) -> Vec<Attachment> {
        let Some(held) = self.tables.get_mut(&table) else { return Vec::new() };
        let names: Vec<String> = match settles {
            Settles::Rows(names) => names.iter().filter(|name| held.rows.remove(*name).is_some()).cloned().collect(),
            Settles::All => std::mem::take(held).rows.into_keys().collect(),
        };
        names.iter().map(|name| Attachment::removal(moved_suffix(table, name))).collect()
    }

    /// The cursor has come to its end: what is still to be read; none if nothing is.
    pub(crate) fn left(&mut self, table: Oid) -> Option<Left> {
        let held = self.tables.get_mut(&table)?;
        held.is_passed = true;
        if held.rows.is_empty() {
            return None;
        }
        if held.rows.contains_key(ALL) {
            return Some(Left::All);
        }
        Some(Left::Rows(held.rows.iter().take(BATCH_LEN).map(|(name, key)| (name.clone(), key.clone())).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: u32 = 7;

    #[test]
    fn what_is_remembered_is_settled_once() {
        let table = Oid::from(TABLE);
        let mut moved = MovedRows::default();
        assert_eq!(moved.remember(table, vec!["1".into()], (Lsn::from(16), 1)), None, "it is not copied");
        moved.begin(table);
        let first = moved.remember(table, vec!["1".into()], (Lsn::from(16), 1)).expect("it is copied");
        assert_eq!(first.suffix, "snapshot/7/moved/10-1");
        let second = moved.remember(table, vec!["2".into()], (Lsn::from(16), 1)).expect("it is copied");
        let Some(Left::Rows(rows)) = moved.left(table) else { panic!("two rows") };
        assert_eq!(rows, [("10-1".to_owned(), vec!["1".to_owned()]), ("10-2".to_owned(), vec!["2".to_owned()])]);
        assert_eq!(
            moved.settle(table, &Settles::Rows(vec!["10-1".into(), "x".into()])),
            [Attachment::removal(first.suffix)]
        );
        assert_eq!(moved.settle(table, &Settles::All), [Attachment::removal(second.suffix)]);
        assert_eq!(moved.left(table), None);
        moved.end(table);
        assert!(!moved.watch(table));
    }

    #[test]
    fn a_table_of_which_too_many_rows_move_is_copied_again() {
        let table = Oid::from(TABLE);
        let mut moved = MovedRows::default();
        moved.begin(table);
        let written =
            (0..20_000).filter_map(|change| moved.remember(table, vec![change.to_string()], (Lsn::from(16), change)));
        assert_eq!(written.count(), MOVED_MAX + 1);
        assert_eq!(moved.left(table), Some(Left::All));
        assert_eq!(moved.settle(table, &Settles::All).len(), MOVED_MAX + 1);
        assert_eq!(moved.left(table), None);
    }

    /// Writers that give rows other keys all the time must not keep a copy from its end.
    #[test]
    fn what_was_copied_is_not_remembered_when_it_moves() {
        let table = Oid::from(TABLE);
        let mut moved = MovedRows::default();
        moved.begin(table);
        let key = |id: u32| vec![id.to_string()];
        let place = |number| (Lsn::from(16), number);
        assert!(moved.moves(table, &key(1), key(11), place(1)).is_some(), "it may not have been copied yet");
        assert!(moved.left(table).is_some());
        assert_eq!(moved.moves(table, &key(2), key(12), place(2)), None);
        assert!(moved.moves(table, &key(11), key(21), place(3)).is_some(), "nobody has it");
        let names = ["10-1", "10-3"].map(str::to_owned).to_vec();
        assert_eq!(moved.settle(table, &Settles::Rows(names)).len(), 2);
        assert_eq!(moved.left(table), None);
        moved.settle(table, &Settles::All);
        assert!(moved.moves(table, &key(3), key(13), place(4)).is_some(), "the copy begins anew");
    }
}
