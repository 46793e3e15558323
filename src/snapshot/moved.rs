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
//! would pass the one, or has most of the other where that is used up, is copied once more, and its keys are not needed any more.

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
    /// Empty where it stands for all of the table.
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
    ) -> Vec<Attachment> {
        let is_remembered = |of_table: &OfTable| of_table.rows.values().any(|moved| moved.key == old);
        match self.tables.get(&table) {
            Some(of_table) if !of_table.is_at_end || is_remembered(of_table) => self.remember(table, new, place),
            _ => Vec::new(),
        }
    }

    /// Remembers a row by its key, under a name that begins with a position of the log and a number. Where there is no room, the table of which most is
    /// remembered gives way, whichever it is: a table that does not get on must not have others copied again for ever.
    pub(crate) fn remember(&mut self, table: Oid, key: Vec<String>, (lsn, mut number): (Lsn, u64)) -> Vec<Attachment> {
        let Some(of_table) = self.tables.get(&table).filter(|of_table| !of_table.is_read_whole()) else {
            return Vec::new();
        };
        if of_table.rows.values().filter(|moved| !moved.is_before).count() >= MOVED_MAX {
            return self.give_way(table);
        }
        let moved = Moved { key, is_before: false };
        let mut attachments = Vec::new();
        while self.bytes + moved.cost_bytes() > self.bytes_max {
            let cost_with_it = |(oid, of_table): &(&Oid, &OfTable)| {
                let own = if **oid == table { moved.cost_bytes() } else { 0 };
                (of_table.cost_bytes() + own, u32::from(**oid))
            };
            let of_others = self.tables.iter().filter(|(_, of_table)| !of_table.is_read_whole());
            let largest = of_others.max_by_key(cost_with_it).map_or(table, |(oid, _)| *oid);
            attachments.extend(self.give_way(largest));
            if largest == table {
                return attachments;
            }
        }
        let rows = &mut self.tables.entry(table).or_default().rows;
        let name = |number| format!("{:X}-{number}", u64::from(lsn));
        // What has this name already is another row.
        while rows.contains_key(&name(number)) {
            number += 1;
        }
        attachments.push(MovedRecord::new(moved.key.clone()).attachment(table, &name(number)));
        self.bytes += moved.cost_bytes();
        rows.insert(name(number), moved);
        attachments
    }

    /// All of the table is read again, instead of what is remembered of it.
    fn give_way(&mut self, table: Oid) -> Vec<Attachment> {
        let of_table = self.tables.entry(table).or_default();
        self.bytes = self.bytes.saturating_sub(of_table.cost_bytes());
        let names = std::mem::take(&mut of_table.rows).into_keys().filter(|name| name != ALL);
        let mut attachments: Vec<_> = names.map(|name| Attachment::removal(moved_suffix(table, &name))).collect();
        let all = Moved { key: Vec::new(), is_before: false };
        self.bytes += all.cost_bytes();
        of_table.rows.insert(ALL.to_owned(), all);
        attachments.push(MovedRecord::new(Vec::new()).attachment(table, ALL));
        attachments
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
    /// Whether it is copied once more, from a window on that is not open yet.
    fn is_read_whole(&self) -> bool {
        self.rows.get(ALL).is_some_and(|all| !all.is_before)
    }

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

    fn suffixes(attachments: &[Attachment]) -> Vec<&str> {
        attachments.iter().map(|attachment| attachment.suffix.as_str()).collect()
    }

    /// What stands beside the checkpoint.
    #[derive(Default)]
    struct Kept {
        names: std::collections::BTreeSet<String>,
    }

    impl Kept {
        /// How much stands there then.
        fn take(&mut self, attachments: Vec<Attachment>) -> usize {
            for Attachment { suffix, value } in attachments {
                match value {
                    Some(_) => self.names.insert(suffix),
                    None => self.names.remove(&suffix),
                };
            }
            self.names.len()
        }
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
        assert_eq!(moved.remember(table, vec!["1".into()], (Lsn::from(16), 1)), [], "it is not copied");
        moved.begin(table, true);
        let first = moved.remember(table, vec!["1".into()], (Lsn::from(16), 1));
        assert_eq!(suffixes(&first), ["snapshot/7/moved/10-1"]);
        let second = moved.remember(table, vec!["2".into()], (Lsn::from(16), 1));
        assert_eq!(rows(&moved), ["10-1 1", "10-2 2"]);
        let settled = moved.settle(table, &Settles::Rows(vec!["10-1".into(), "x".into()]));
        assert_eq!(suffixes(&settled), suffixes(&first));
        assert_eq!(rows(&moved), ["10-2 2"]);
        assert_eq!(suffixes(&moved.end(table)), suffixes(&second));
        assert!(!moved.watch(table));
    }

    #[test]
    fn at_the_end_what_was_copied_may_move() {
        let table = Oid::from(TABLE);
        let mut moved = none();
        moved.begin(table, true);
        let change = |moved: &mut MovedRows, old: &str, new: &str| {
            moved.change_key(table, (&[old.to_owned()], vec![new.to_owned()]), (Lsn::from(16), 1)).len() == 1
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
        let before = moved.remember(table, vec!["1".into()], (Lsn::from(16), 1));
        moved.begin(table, true);
        assert_eq!(moved.remember(table, vec!["2".into()], (Lsn::from(32), 1)).len(), 1);
        assert_eq!(suffixes(&moved.settle(table, &Settles::AllBefore)), suffixes(&before));
        assert_eq!(rows(&moved), ["20-1 2"]);
    }

    #[test]
    fn a_table_of_which_too_many_rows_move_is_copied_again() {
        let table = Oid::from(TABLE);
        let mut kept = Kept::default();
        let mut moved = none();
        moved.begin(table, true);
        let mut remember = |moved: &mut MovedRows, numbers: std::ops::Range<u64>| {
            numbers
                .map(|number| kept.take(moved.remember(table, vec![number.to_string()], (Lsn::from(16), number))))
                .last()
        };
        assert_eq!(remember(&mut moved, 0..10_000), Some(MOVED_MAX));
        assert_eq!(remember(&mut moved, 10_000..20_000), Some(1));
        assert_eq!((rows(&moved), moved.len(table)), (vec!["all".to_owned()], 1));
        // While it is copied again, others move, and too many again.
        moved.begin(table, true);
        assert_eq!(remember(&mut moved, 20_000..20_005), Some(1 + 5));
        assert_eq!(remember(&mut moved, 20_005..40_000), Some(1));
        assert_eq!(moved.settle(table, &Settles::AllBefore), [], "what was before is in what is still to be read");
        assert_eq!(rows(&moved), ["all"]);
        moved.begin(table, true);
        assert_eq!(kept.take(moved.settle(table, &Settles::AllBefore)), 0);
        assert_eq!((moved.left(table), moved.len(table), moved.bytes), (None, 0, 0));
    }

    /// One that does not get on keeps what is remembered of it for as long as that lasts.
    #[test]
    fn where_there_is_no_room_the_table_gives_way_of_which_most_is_remembered() {
        let (stuck, other) = (Oid::from(TABLE), Oid::from(TABLE + 1));
        let mut kept = Kept::default();
        let mut moved = none();
        let mut remember = |moved: &mut MovedRows, table: Oid, number: u64| {
            let attachments = moved.remember(table, vec![number.to_string().repeat(500)], (Lsn::from(16), number));
            assert!(moved.bytes <= 4 << 20, "{}", moved.bytes);
            kept.take(attachments)
        };
        moved.begin(stuck, true);
        moved.begin(other, true);
        let mut number = 1000;
        while (4 << 20) - moved.bytes > 20_000 {
            remember(&mut moved, stuck, number);
            number += 1;
        }
        for number in 1000..2000 {
            remember(&mut moved, other, number);
        }
        assert_eq!((moved.left(stuck), moved.len(other)), (Some(Left::All), 1000));
        for number in 2000..4000 {
            remember(&mut moved, other, number);
        }
        assert_eq!(moved.left(other), Some(Left::All), "it has most itself now");
        for table in [stuck, other] {
            kept.take(moved.end(table));
        }
        assert_eq!((moved.bytes, kept.names.len()), (0, 0));
    }
}
