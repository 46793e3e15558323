//! Rows of which only the table has a value, and which the copy has passed.
//!
//! An update that leaves a large value (TOAST) as it is does not carry it: whoever has the row from before has the value. There are two ways in
//! which nobody has, once the copy's cursor is past the row:
//!
//! - the update was streamed while the row's chunk was read, so that the row in the chunk is older than the event ([`Fate::ReadAgain`](super::Fate));
//! - the update has changed the key of a row that was not copied yet, to one that lies behind the cursor.
//!
//! Every such key is remembered, in the Kafka transaction of the cursor or of the event, and is read when the copy has come to its end. Of the second
//! kind there are some too many: where the new key lies is for the server's collations to say. Once the cursor has come to its end there are
//! not: a row was copied then, or is remembered, and only the latter take that along to another key.
//!
//! Where a table is copied in [parts](super::Parts), what is remembered is the table's, and one at a time reads it again. Its end is that of a chunk which is read
//! once all parts are written, so that what was copied in whichever part is copied then; until then every such key is remembered, whichever parts the
//! two keys lie in.
//!
//! What is remembered is bounded: how many rows of a table, and how many bytes of all tables, which have their share of `memory_limit`. A table that
//! would pass either is copied once more, and its keys are not needed any more.

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

/// What a row costs in memory beside the bytes of its key, and each value of that.
const ROW_OVERHEAD_BYTES: usize = 128;
const VALUE_OVERHEAD_BYTES: usize = 32;

/// The tables that are being copied, and what is remembered of each.
#[derive(Debug)]
pub(crate) struct MovedRows {
    tables: FxHashMap<Oid, OfTable>,
    /// What the rows of all tables cost, and may cost.
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct OfTable {
    rows: BTreeMap<String, Moved>,
    /// Whether the cursor has come to the end: every row was copied then, or is remembered.
    is_at_end: bool,
}

#[derive(Debug)]
struct Moved {
    /// Empty once all of the table is copied again.
    key: Vec<String>,
    /// Whether a copy that begins anew reads it: it was remembered before the window of its first chunk was opened.
    is_before: bool,
}

/// What of it a chunk settles, once it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settles {
    /// These rows, by the names under which they are remembered.
    Rows(Vec<String>),
    /// All that were remembered before its window was opened: it is the first of a copy that begins anew.
    AllBefore,
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
    /// What the checkpoint says of them when a session begins. They may cost so many bytes; those that are there may cost more.
    pub(crate) fn new(
        tables: impl IntoIterator<Item = (Oid, BTreeMap<String, Vec<String>>)>,
        bytes_max: usize,
    ) -> Self {
        let moved = |(name, key)| (name, Moved { key, is_before: false });
        let tables = tables
            .into_iter()
            .map(|(table, rows)| (table, OfTable { rows: rows.into_iter().map(moved).collect(), is_at_end: false }));
        let mut moved = Self { tables: tables.collect(), bytes: 0, bytes_max };
        moved.bytes = moved.tables.values().map(OfTable::cost_bytes).sum();
        moved
    }

    /// Whether the table is being copied.
    #[inline]
    pub(crate) fn watch(&self, table: Oid) -> bool {
        self.tables.contains_key(&table)
    }

    /// A window of a table's copy is opened; `is_anew` if the copy begins with its first row.
    pub(crate) fn begin(&mut self, table: Oid, is_anew: bool) {
        let of_table = self.tables.entry(table).or_default();
        if is_anew {
            of_table.is_at_end = false;
            of_table.rows.values_mut().for_each(|moved| moved.is_before = true);
        }
    }

    /// The cursor of a table's copy has come to the end.
    pub(crate) fn reach_end(&mut self, table: Oid) {
        if let Some(of_table) = self.tables.get_mut(&table) {
            of_table.is_at_end = true;
        }
    }

    /// A table is not copied any more. What was remembered is forgotten; the attachments say so.
    pub(crate) fn end(&mut self, table: Oid) -> Vec<Attachment> {
        let of_table = self.tables.remove(&table).unwrap_or_default();
        self.bytes = self.bytes.saturating_sub(of_table.cost_bytes());
        of_table.rows.into_keys().map(|name| Attachment::removal(moved_suffix(table, &name))).collect()
    }

    /// How many rows of a table are remembered.
    pub(crate) fn len(&self, table: Oid) -> usize {
        self.tables.get(&table).map_or(0, |of_table| of_table.rows.len())
    }

    /// A row has got another key, by an update that leaves out a value of it. Once the cursor has come to its end only those are remembered that
    /// were before, so that they become less under any writers.
    pub(crate) fn change_key(
        &mut self,
        table: Oid,
        (old, new): (&[String], Vec<String>),
        place: (Lsn, u64),
    ) -> Option<Attachment> {
        let of_table = self.tables.get(&table)?;
        if of_table.is_at_end && !of_table.rows.values().any(|moved| moved.key == old) {
            return None;
        }
        self.remember(table, new, place)
    }

    /// Remembers a row by its key, under a name that begins with a position of the log and a number.
    pub(crate) fn remember(
        &mut self,
        table: Oid,
        key: Vec<String>,
        (lsn, mut number): (Lsn, u64),
    ) -> Option<Attachment> {
        let rows = &mut self.tables.get_mut(&table)?.rows;
        if rows.get(ALL).is_some_and(|all| !all.is_before) {
            return None;
        }
        let moved = Moved { key, is_before: false };
        let is_too_much = self.bytes + moved.cost_bytes() > self.bytes_max
            || rows.values().filter(|moved| !moved.is_before).count() >= MOVED_MAX;
        let (name, moved) = if is_too_much {
            for moved in rows.values_mut() {
                let key_bytes = moved.key_bytes();
                moved.key = Vec::new();
                self.bytes = self.bytes.saturating_sub(key_bytes);
            }
            (ALL.to_owned(), Moved { key: Vec::new(), is_before: false })
        } else {
            let name = |number| format!("{:X}-{number}", u64::from(lsn));
            // What has this name already is another row.
            while rows.contains_key(&name(number)) {
                number += 1;
            }
            (name(number), moved)
        };
        let attachment = MovedRecord::new(moved.key.clone()).attachment(table, &name);
        self.bytes += moved.cost_bytes();
        if let Some(before) = rows.insert(name, moved) {
            self.bytes = self.bytes.saturating_sub(before.cost_bytes());
        }
        Some(attachment)
    }

    /// Forgets what a chunk has settled; the attachments say so.
    pub(crate) fn settle(&mut self, table: Oid, settles: &Settles) -> Vec<Attachment> {
        let Some(OfTable { rows, .. }) = self.tables.get_mut(&table) else { return Vec::new() };
        let settled: Vec<(String, Moved)> = match settles {
            Settles::Rows(names) => names.iter().filter_map(|name| rows.remove_entry(name)).collect(),
            Settles::AllBefore => rows.extract_if(.., |_, moved| moved.is_before).collect(),
        };
        self.bytes = self.bytes.saturating_sub(settled.iter().map(|(_, moved)| moved.cost_bytes()).sum());
        settled.iter().map(|(name, _)| Attachment::removal(moved_suffix(table, name))).collect()
    }

    /// What is still to be read; none if nothing is.
    pub(crate) fn left(&self, table: Oid) -> Option<Left> {
        let rows = &self.tables.get(&table).filter(|of_table| !of_table.rows.is_empty())?.rows;
        if rows.contains_key(ALL) {
            return Some(Left::All);
        }
        Some(Left::Rows(rows.iter().take(BATCH_LEN).map(|(name, moved)| (name.clone(), moved.key.clone())).collect()))
    }
}

impl OfTable {
    fn cost_bytes(&self) -> usize {
        self.rows.values().map(Moved::cost_bytes).sum()
    }
}

impl Moved {
    fn key_bytes(&self) -> usize {
        self.key.iter().map(|value| value.len() + VALUE_OVERHEAD_BYTES).sum()
    }

    fn cost_bytes(&self) -> usize {
        self.key_bytes() + ROW_OVERHEAD_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: u32 = 7;

    fn none() -> MovedRows {
        MovedRows::new([], 4 << 20)
    }

    fn rows(moved: &MovedRows) -> Vec<String> {
        match moved.left(Oid::from(TABLE)) {
            None => Vec::new(),
            Some(Left::All) => vec!["all".to_owned()],
            Some(Left::Rows(rows)) => rows.into_iter().map(|(name, key)| format!("{name} {}", key.join(" "))).collect(),
        }
    }

    #[test]
    fn what_is_remembered_is_settled_once() {
        let table = Oid::from(TABLE);
        let mut moved = none();
        assert_eq!(moved.remember(table, vec!["1".into()], (Lsn::from(16), 1)), None, "it is not copied");
        moved.begin(table, true);
        let first = moved.remember(table, vec!["1".into()], (Lsn::from(16), 1)).expect("it is copied");
        assert_eq!(first.suffix, "snapshot/7/moved/10-1");
        let second = moved.remember(table, vec!["2".into()], (Lsn::from(16), 1)).expect("it is copied");
        assert_eq!(rows(&moved), ["10-1 1", "10-2 2"]);
        let settled = moved.settle(table, &Settles::Rows(vec!["10-1".into(), "x".into()]));
        assert_eq!(settled, [Attachment::removal(first.suffix)]);
        assert_eq!(rows(&moved), ["10-2 2"]);
        assert_eq!(moved.end(table), [Attachment::removal(second.suffix)]);
        assert!(!moved.watch(table));
    }

    #[test]
    fn at_the_end_what_was_copied_may_move() {
        let table = Oid::from(TABLE);
        let mut moved = none();
        moved.begin(table, true);
        let change = |moved: &mut MovedRows, old: &str, new: &str| {
            moved.change_key(table, (&[old.to_owned()], vec![new.to_owned()]), (Lsn::from(16), 1)).is_some()
        };
        assert!(change(&mut moved, "1", "2"));
        moved.reach_end(table);
        assert!(!change(&mut moved, "8", "9"), "it was copied");
        assert!(change(&mut moved, "2", "3"), "it was not");
        moved.begin(table, true);
        assert!(change(&mut moved, "8", "9"));
    }

    /// A row that moves behind the cursor while the first chunk is read is not in it.
    #[test]
    fn a_copy_that_begins_anew_settles_what_was_before_its_window() {
        let table = Oid::from(TABLE);
        let mut moved = none();
        moved.begin(table, false);
        let before = moved.remember(table, vec!["1".into()], (Lsn::from(16), 1)).expect("it is copied");
        moved.begin(table, true);
        moved.remember(table, vec!["2".into()], (Lsn::from(32), 1)).expect("it is copied");
        assert_eq!(moved.settle(table, &Settles::AllBefore), [Attachment::removal(before.suffix)]);
        assert_eq!(rows(&moved), ["20-1 2"]);
    }

    #[test]
    fn a_table_of_which_too_many_rows_move_is_copied_again() {
        let table = Oid::from(TABLE);
        let mut moved = none();
        moved.begin(table, true);
        let remember = |moved: &mut MovedRows, numbers: std::ops::Range<u64>| {
            let remember = |number: u64| moved.remember(table, vec![number.to_string()], (Lsn::from(16), number));
            numbers.filter_map(remember).count()
        };
        assert_eq!(remember(&mut moved, 0..20_000), MOVED_MAX + 1);
        assert_eq!(rows(&moved), ["all"]);
        // While it is copied again, others move, and too many again.
        moved.begin(table, true);
        assert_eq!(remember(&mut moved, 20_000..20_005), 5);
        assert_eq!(remember(&mut moved, 20_005..40_000), MOVED_MAX - 5 + 1);
        assert_eq!(moved.settle(table, &Settles::AllBefore).len(), MOVED_MAX);
        assert_eq!(rows(&moved), ["all"]);
        moved.begin(table, true);
        moved.settle(table, &Settles::AllBefore);
        assert_eq!(moved.left(table), None);
        assert_eq!(moved.len(table), 0);
    }

    #[test]
    fn keys_that_are_long_are_fewer_of_all_tables_together() {
        let tables = [TABLE, TABLE + 1].map(Oid::from);
        let mut moved = none();
        for table in tables {
            moved.begin(table, true);
        }
        let remember = |moved: &mut MovedRows, table: Oid, number: u64| {
            moved.remember(table, vec![number.to_string().repeat(500)], (Lsn::from(16), number)).is_some()
        };
        let mut remembered = [0, 0];
        for number in 1000..4000 {
            for (table, remembered) in tables.iter().zip(&mut remembered) {
                *remembered += u32::from(remember(&mut moved, *table, number));
                assert!(moved.bytes < 5 << 20, "{}", moved.bytes);
            }
        }
        assert!(tables.iter().all(|table| moved.left(*table) == Some(Left::All)));
        let (first, last) = (remembered.iter().min(), remembered.iter().max());
        assert!(first.is_some_and(|first| (900..1100).contains(first)), "{remembered:?}");
        assert!(last.is_some_and(|last| *last > 1500), "the one has made room for the other: {remembered:?}");
        for table in tables {
            let settled = moved.end(table).len();
            assert_eq!(settled, remembered[(u32::from(table) - TABLE) as usize] as usize, "each is taken back");
        }
        assert_eq!(moved.bytes, 0);
    }
}
