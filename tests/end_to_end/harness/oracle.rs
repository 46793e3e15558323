//! The judge: what a `read_committed` consumer has read against what the source says it did.
//!
//! It is pure, so that it can be shown to find each kind of harm; see the tests below, which do harm.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
};

use super::event::{Event, Identity, Record, UNAVAILABLE};

/// A position in the server's log.
pub(crate) type Lsn = u64;
/// A row or a key: each column's value as text.
pub(crate) type Row = BTreeMap<String, Option<String>>;
/// What one transaction did, in order.
pub(crate) type Transaction = Vec<Change>;

/// A table as far as its events depend on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// The columns of the key; none for a table without one.
    pub(crate) key: &'static [&'static str],
    /// Whether it has REPLICA IDENTITY FULL.
    pub(crate) full: bool,
}

/// The source's own word.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// What each transaction did, by its id.
    pub(crate) transactions: BTreeMap<u32, Transaction>,
    /// What each table holds in the end.
    pub(crate) contents: BTreeMap<String, Vec<Row>>,
}

/// One change, as the source's triggers saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) table: String,
    pub(crate) operation: Operation,
    pub(crate) old: Option<Row>,
    pub(crate) new: Option<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Insert,
    Update,
    Delete,
    Truncate,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) events: usize,
    pub(crate) transactions: usize,
    pub(crate) violations: Vec<Violation>,
}

/// Harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Violation {
    /// An identity occurs more than once.
    Doubled(Identity),
    /// A committed transaction has no event at all.
    TransactionLost(u32),
    /// A transaction's ordinals do not run from 1 to the number of its events.
    Holes { commit_lsn: Lsn, xid: u32, found: usize, expected: usize },
    /// An event belongs to a transaction that the source did not commit.
    Phantom(Identity),
    /// A transaction occurs under two commit positions.
    CommittedTwice(u32),
    /// An event is not what the source did at that place.
    Differs { identity: Identity, why: String },
    /// An event comes after a later one of its partition.
    OutOfOrder { table: String, partition: i32, offset: i64, after: Identity, found: Identity },
    /// A key's events are in two partitions.
    KeyMoved { table: String, key: Row },
    /// A delete has no tombstone behind it, or a tombstone has no delete before it.
    Tombstone { table: String, partition: i32, offset: i64 },
    /// A truncation is not once in each partition.
    Truncation { identity: Identity, partitions: Vec<i32> },
    /// Applying all events in order does not give the table.
    Fold { table: String, why: String },
}

impl Verdict {
    /// Fails the test if there is any harm.
    pub(crate) fn assert_flawless(&self) {
        let shown: Vec<_> = self.violations.iter().take(20).map(|violation| format!("  {violation:?}")).collect();
        assert!(
            self.violations.is_empty(),
            "{} violations in {} events of {} transactions:\n{}",
            self.violations.len(),
            self.events,
            self.transactions,
            shown.join("\n")
        );
    }
}

/// Compares what was read with the source's own word.
pub(crate) fn judge(tables: &[Table], records: &[Record], history: &History) -> Verdict {
    let tables: HashMap<&str, &Table> = tables.iter().map(|table| (table.name, table)).collect();
    let all: Vec<(&Record, &Event)> =
        records.iter().filter_map(|record| record.event.as_ref().map(|event| (record, event))).collect();
    let mut violations = Vec::new();
    truncations_are_in_each_partition(&all, &mut violations);
    // Each of these is one event, whatever number of partitions it is in.
    let mut truncations = HashSet::new();
    let is_first = |(_, event): &(&Record, &Event)| event.operation != "t" || truncations.insert(event.identity);
    let events: Vec<_> = all.into_iter().filter(is_first).collect();
    identities_occur_once(&events, &mut violations);
    partitions_are_in_order(records, &mut violations);
    tombstones_follow_deletes(records, &mut violations);
    let mut by_transaction: BTreeMap<Lsn, Vec<(&Record, &Event)>> = BTreeMap::new();
    for (record, event) in &events {
        by_transaction.entry(event.identity.commit_lsn).or_default().push((record, event));
    }
    for events in by_transaction.values_mut() {
        events.sort_by_key(|(_, event)| event.identity);
    }
    transactions_are_complete(&tables, &by_transaction, history, &mut violations);
    folds_give_the_tables(&tables, &by_transaction, history, &mut violations);
    partitions_fold_by_themselves(&tables, records, history, &mut violations);
    Verdict { events: events.len(), transactions: by_transaction.len(), violations }
}

/// Whoever reads one partition alone comes to it at its place, once.
fn truncations_are_in_each_partition(events: &[(&Record, &Event)], violations: &mut Vec<Violation>) {
    let mut of_table: HashMap<&str, BTreeSet<i32>> = HashMap::new();
    let mut seen: BTreeMap<(&str, Identity), Vec<i32>> = BTreeMap::new();
    for (record, event) in events {
        of_table.entry(&record.table).or_default().insert(record.partition);
        if event.operation == "t" {
            seen.entry((&record.table, event.identity)).or_default().push(record.partition);
        }
    }
    for ((table, identity), mut partitions) in seen {
        partitions.sort_unstable();
        if !partitions.iter().eq(&of_table[table]) {
            violations.push(Violation::Truncation { identity, partitions });
        }
    }
}

fn identities_occur_once(events: &[(&Record, &Event)], violations: &mut Vec<Violation>) {
    let mut seen = HashSet::new();
    for (_, event) in events {
        if !seen.insert(event.identity) {
            violations.push(Violation::Doubled(event.identity));
        }
    }
}

/// The whole partition is in the order of the source, and each key has one partition: so each key is in order.
fn partitions_are_in_order(records: &[Record], violations: &mut Vec<Violation>) {
    let mut newest: HashMap<(&str, i32), (i64, Identity)> = HashMap::new();
    let mut home: HashMap<(&str, &Row), i32> = HashMap::new();
    for record in records {
        if let Some(key) = &record.key
            && *home.entry((&record.table, key)).or_insert(record.partition) != record.partition
        {
            violations.push(Violation::KeyMoved { table: record.table.clone(), key: key.clone() });
        }
        let Some(event) = &record.event else { continue };
        let place = (record.table.as_str(), record.partition);
        if let Some((offset, earlier)) = newest.get(&place)
            && (*offset >= record.offset || *earlier >= event.identity)
        {
            violations.push(Violation::OutOfOrder {
                table: record.table.clone(),
                partition: record.partition,
                offset: record.offset,
                after: *earlier,
                found: event.identity,
            });
        }
        newest.insert(place, (record.offset, event.identity));
    }
}

fn tombstones_follow_deletes(records: &[Record], violations: &mut Vec<Violation>) {
    let mut awaited: HashMap<(&str, i32), Option<&Record>> = HashMap::new();
    let misplaced = |record: &Record| Violation::Tombstone {
        table: record.table.clone(),
        partition: record.partition,
        offset: record.offset,
    };
    // A record without a key can be forgotten by nobody, so that a tombstone for it says nothing.
    for record in records.iter().filter(|record| record.key.is_some() || record.event.is_some()) {
        let before = awaited.entry((&record.table, record.partition)).or_default();
        let is_tombstone = record.event.is_none();
        let fits = match before {
            Some(delete) => is_tombstone && delete.key == record.key && delete.offset + 1 == record.offset,
            None => !is_tombstone,
        };
        if !fits {
            violations.push(misplaced(record));
        }
        let is_delete = record.event.as_ref().is_some_and(|event| event.operation == "d") && record.key.is_some();
        *before = is_delete.then_some(record);
    }
    violations.extend(awaited.values().flatten().map(|delete| misplaced(delete)));
}

fn transactions_are_complete(
    tables: &HashMap<&str, &Table>,
    by_transaction: &BTreeMap<Lsn, Vec<(&Record, &Event)>>,
    history: &History,
    violations: &mut Vec<Violation>,
) {
    let mut seen = HashSet::new();
    for (commit_lsn, events) in by_transaction {
        let xid = events[0].1.xid;
        if !seen.insert(xid) {
            violations.push(Violation::CommittedTwice(xid));
        }
        let Some(changes) = history.transactions.get(&xid) else {
            violations.push(Violation::Phantom(events[0].1.identity));
            continue;
        };
        let expected: Vec<_> = changes.iter().flat_map(|change| expected_events(tables, change)).collect();
        let in_order = events.iter().map(|(_, event)| event.identity.ordinal).eq(1..=expected.len() as u64);
        if !in_order {
            let (found, expected) = (events.len(), expected.len());
            violations.push(Violation::Holes { commit_lsn: *commit_lsn, xid, found, expected });
        }
        for (record, event) in events {
            let Some(expected) = usize::try_from(event.identity.ordinal - 1).ok().and_then(|at| expected.get(at))
            else {
                continue;
            };
            if let Err(why) = expected.matches(record, event) {
                violations.push(Violation::Differs { identity: event.identity, why });
            }
            if event.xid != xid {
                violations.push(Violation::Differs { identity: event.identity, why: "two transaction ids".into() });
            }
        }
    }
    for (xid, changes) in &history.transactions {
        if !changes.is_empty() && !seen.contains(xid) {
            violations.push(Violation::TransactionLost(*xid));
        }
    }
}

/// An event that a change must have led to.
struct Expected<'a> {
    table: &'a Table,
    operation: &'static str,
    /// The row that its key is taken from.
    key: Option<&'a Row>,
    before: Option<&'a Row>,
    after: Option<&'a Row>,
    /// The row that the change replaced, whose values may be left out where they stay.
    replaced: Option<&'a Row>,
}

fn expected_events<'a>(tables: &HashMap<&str, &'a Table>, change: &'a Change) -> Vec<Expected<'a>> {
    let table =
        tables.get(change.table.as_str()).unwrap_or_else(|| panic!("the test did not say what {} is", change.table));
    let (old, new) = (change.old.as_ref(), change.new.as_ref());
    let event = |operation, key, before, after, replaced| Expected { table, operation, key, before, after, replaced };
    match change.operation {
        Operation::Insert => vec![event("c", new, None, new, None)],
        Operation::Update if key_of(table, old) != key_of(table, new) => {
            vec![event("d", old, old, None, None), event("c", new, None, new, old)]
        }
        Operation::Update => vec![event("u", new, old.filter(|_| table.full), new, old)],
        Operation::Delete => vec![event("d", old, old, None, None)],
        Operation::Truncate => vec![event("t", None, None, None, None)],
    }
}

fn key_of(table: &Table, row: Option<&Row>) -> Option<Row> {
    let row = row.filter(|_| !table.key.is_empty())?;
    Some(table.key.iter().map(|column| ((*column).to_owned(), row[*column].clone())).collect())
}

impl Expected<'_> {
    fn matches(&self, record: &Record, event: &Event) -> Result<(), String> {
        let same = |what: &str, found: &dyn fmt::Debug, expected: &dyn fmt::Debug, equal: bool| {
            if equal { Ok(()) } else { Err(format!("{what} is {found:?}, and should be {expected:?}")) }
        };
        same("table", &record.table, &self.table.name, record.table == self.table.name)?;
        same("op", &event.operation, &self.operation, event.operation == self.operation)?;
        let key = key_of(self.table, self.key);
        same("key", &record.key, &key, record.key == key)?;
        match (self.before, &event.before) {
            (None, None) => {}
            (Some(expected), Some(found)) if self.table.full => same("before", found, expected, found == expected)?,
            // Of a deleted row only the key is known.
            (Some(expected), Some(found)) => {
                let known = key_of(self.table, Some(found));
                let expected = key_of(self.table, Some(expected));
                same("before", &known, &expected, known == expected)?;
            }
            (expected, found) => same("before", found, &expected, false)?,
        }
        match (self.after, &event.after) {
            (None, None) => Ok(()),
            (Some(expected), Some(found)) => self.rows_match(found, expected),
            (expected, found) => same("after", found, &expected, false),
        }
    }

    fn rows_match(&self, found: &Row, expected: &Row) -> Result<(), String> {
        for (column, value) in expected {
            let read = found.get(column).ok_or_else(|| format!("after has no column {column}"))?;
            let left_out = read.as_deref() == Some(UNAVAILABLE)
                && !self.table.full
                && self.replaced.is_some_and(|replaced| &replaced[column] == value);
            if read != value && !left_out {
                return Err(format!("{column} is {}, and should be {}", short(read.as_ref()), short(value.as_ref())));
            }
        }
        if found.len() == expected.len() { Ok(()) } else { Err("after has columns that the table has not".into()) }
    }
}

fn folds_give_the_tables(
    tables: &HashMap<&str, &Table>,
    by_transaction: &BTreeMap<Lsn, Vec<(&Record, &Event)>>,
    history: &History,
    violations: &mut Vec<Violation>,
) {
    let mut folded: HashMap<&str, BTreeMap<Row, Row>> = HashMap::new();
    // A row whose key has just changed: what its new event leaves out is here.
    let mut moved: HashMap<(&str, Row), Row> = HashMap::new();
    for (record, event) in by_transaction.values().flatten() {
        let contents = folded.entry(&record.table).or_default();
        match (&record.key, event.operation.as_str()) {
            (_, "t") => contents.clear(),
            (Some(key), "d") => {
                if let Some(row) = contents.remove(key) {
                    moved.insert((&record.table, key.clone()), row);
                }
            }
            (Some(key), _) => {
                let mut row = event.after.clone().unwrap_or_default();
                let replaced = match &record.old_key {
                    Some(old_key) => moved.remove(&(record.table.as_str(), old_key.clone())),
                    None => contents.remove(key),
                };
                for (column, value) in &mut row {
                    if value.as_deref() == Some(UNAVAILABLE)
                        && let Some(replaced) = &replaced
                    {
                        value.clone_from(&replaced[column]);
                    }
                }
                contents.insert(key.clone(), row);
            }
            (None, _) => {}
        }
    }
    for (name, rows) in &history.contents {
        let table = tables[name.as_str()];
        if table.key.is_empty() {
            continue;
        }
        let real: BTreeMap<Row, Row> =
            rows.iter().map(|row| (key_of(table, Some(row)).expect("it has a key"), row.clone())).collect();
        let read = folded.remove(name.as_str()).unwrap_or_default();
        if read != real {
            let missing = real.keys().filter(|key| !read.contains_key(*key)).count();
            let extra = read.keys().filter(|key| !real.contains_key(*key)).count();
            let other = real.iter().filter(|(key, row)| read.get(*key).is_some_and(|read| read != *row)).count();
            let why = format!("{missing} rows missing, {extra} too many, {other} different, of {}", real.len());
            violations.push(Violation::Fold { table: name.clone(), why });
        }
    }
}

/// The keys that each partition comes to for who reads it alone are the table's.
fn partitions_fold_by_themselves(
    tables: &HashMap<&str, &Table>,
    records: &[Record],
    history: &History,
    violations: &mut Vec<Violation>,
) {
    let mut folded: HashMap<&str, BTreeMap<&Row, i32>> = HashMap::new();
    let mut in_order: Vec<&Record> = records.iter().collect();
    in_order.sort_by_key(|record| (record.partition, record.offset));
    for record in in_order {
        let keys = folded.entry(&record.table).or_default();
        match (&record.key, record.event.as_ref().map(|event| event.operation.as_str())) {
            (_, Some("t")) => keys.retain(|_, partition| *partition != record.partition),
            (Some(key), Some("d")) => drop(keys.remove(key)),
            (Some(key), Some(_)) => drop(keys.insert(key, record.partition)),
            _ => {}
        }
    }
    for (name, rows) in &history.contents {
        let table = tables[name.as_str()];
        let real: BTreeSet<Row> = rows.iter().filter_map(|row| key_of(table, Some(row))).collect();
        let read = folded.remove(name.as_str()).unwrap_or_default();
        if !table.key.is_empty() && !read.keys().copied().eq(&real) {
            let why = format!("the partitions have {} keys, of {}", read.len(), real.len());
            violations.push(Violation::Fold { table: name.clone(), why });
        }
    }
}

fn short(value: Option<&String>) -> String {
    value.map_or("null".into(), |text| text.chars().take(60).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLES: &[Table] = &[Table { name: "item", key: &["id"], full: false }];

    fn row(id: u64, text: &str) -> Row {
        [("id".to_owned(), Some(id.to_string())), ("text".to_owned(), Some(text.to_owned()))].into()
    }

    fn key(id: u64) -> Row {
        [("id".to_owned(), Some(id.to_string()))].into()
    }

    fn change(operation: Operation, old: Option<Row>, new: Option<Row>) -> Change {
        Change { table: "item".into(), operation, old, new }
    }

    /// Two transactions: three inserts; an update, a key change, a delete.
    fn history() -> History {
        let insert = |id, text| change(Operation::Insert, None, Some(row(id, text)));
        History {
            transactions: BTreeMap::from([
                (10, vec![insert(1, "a"), insert(2, "b"), insert(3, "c")]),
                (
                    11,
                    vec![
                        change(Operation::Update, Some(row(1, "a")), Some(row(1, "A"))),
                        change(Operation::Update, Some(row(2, "b")), Some(row(4, "b"))),
                        change(Operation::Delete, Some(row(3, "c")), None),
                    ],
                ),
            ]),
            contents: BTreeMap::from([("item".to_owned(), vec![row(1, "A"), row(4, "b")])]),
        }
    }

    /// Transaction id, commit LSN, ordinal, operation, before, after.
    type Envelope = (u32, Lsn, u64, &'static str, Option<Row>, Option<Row>);

    fn records() -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        let mut push = |id: u64, event: Option<Envelope>| {
            let offset = i64::try_from(records.len()).expect("it is small");
            records.push(Record {
                schema: "public".to_owned(),
                table: "item".into(),
                partition: 0,
                offset,
                key: Some(key(id)),
                old_key: None,
                new_key: None,
                event: event.map(|(xid, commit_lsn, ordinal, operation, before, after)| Event {
                    identity: Identity { commit_lsn, ordinal },
                    xid,
                    operation: operation.into(),
                    before,
                    after,
                    lsn: commit_lsn - 1,
                    table_ordinal: ordinal,
                }),
            });
        };
        push(1, Some((10, 100, 1, "c", None, Some(row(1, "a")))));
        push(2, Some((10, 100, 2, "c", None, Some(row(2, "b")))));
        push(3, Some((10, 100, 3, "c", None, Some(row(3, "c")))));
        push(1, Some((11, 200, 1, "u", None, Some(row(1, "A")))));
        push(2, Some((11, 200, 2, "d", Some(key(2)), None)));
        push(2, None);
        push(4, Some((11, 200, 3, "c", None, Some(row(4, UNAVAILABLE)))));
        push(3, Some((11, 200, 4, "d", Some(key(3)), None)));
        push(3, None);
        records[6].old_key = Some(key(2));
        records
    }

    fn renumber(records: &mut [Record]) {
        for (offset, record) in (0..).zip(records) {
            record.offset = offset;
        }
    }

    /// Does harm, and expects the judge to name it.
    fn finds(harm: impl FnOnce(&mut Vec<Record>, &mut History), expect: impl Fn(&Violation) -> bool) {
        let (mut records, mut history) = (records(), history());
        harm(&mut records, &mut history);
        let verdict = judge(TABLES, &records, &history);
        assert!(verdict.violations.iter().any(expect), "found only {:?}", verdict.violations);
    }

    #[test]
    fn what_is_right_has_no_violation() {
        let verdict = judge(TABLES, &records(), &history());
        verdict.assert_flawless();
        assert_eq!((verdict.events, verdict.transactions), (7, 2));
    }

    #[test]
    fn a_lost_event_is_found() {
        for lost in [0, 1, 2, 3, 4, 6, 7] {
            finds(
                |records, _| {
                    records.remove(lost);
                    renumber(records);
                },
                |violation| matches!(violation, Violation::Holes { .. }),
            );
        }
    }

    #[test]
    fn a_lost_transaction_is_found() {
        finds(|records, _| drop(records.drain(3..)), |violation| *violation == Violation::TransactionLost(11));
        finds(|records, _| drop(records.drain(3..)), |violation| matches!(violation, Violation::Fold { .. }));
    }

    #[test]
    fn a_doubled_event_is_found() {
        for doubled in [0, 3, 6] {
            finds(
                |records, _| {
                    let again = records[doubled].clone();
                    records.push(again);
                    renumber(records);
                },
                |violation| matches!(violation, Violation::Doubled(_)),
            );
        }
    }

    #[test]
    fn a_transaction_that_was_replayed_under_another_position_is_found() {
        finds(
            |records, _| {
                for at in 0..3 {
                    let mut again = records[at].clone();
                    again.event.as_mut().expect("an event").identity.commit_lsn = 150;
                    records.push(again);
                }
                renumber(records);
            },
            |violation| *violation == Violation::CommittedTwice(10),
        );
    }

    #[test]
    fn swapped_events_are_found() {
        finds(
            |records, _| {
                records.swap(0, 3);
                renumber(records);
            },
            |violation| matches!(violation, Violation::OutOfOrder { .. }),
        );
    }

    #[test]
    fn an_event_of_a_transaction_that_was_rolled_back_is_found() {
        finds(
            |_, history| drop(history.transactions.remove(&10)),
            |violation| matches!(violation, Violation::Phantom(_)),
        );
    }

    #[test]
    fn another_value_is_found() {
        finds(
            |records, _| records[3].event.as_mut().expect("an event").after = Some(row(1, "B")),
            |violation| matches!(violation, Violation::Differs { .. }),
        );
        finds(
            |records, _| records[3].event.as_mut().expect("an event").after = Some(row(1, "B")),
            |violation| matches!(violation, Violation::Fold { .. }),
        );
        // The value has changed, so that it must be there.
        finds(
            |records, _| records[3].event.as_mut().expect("an event").after = Some(row(1, UNAVAILABLE)),
            |violation| matches!(violation, Violation::Differs { .. }),
        );
    }

    #[test]
    fn a_key_in_two_partitions_is_found() {
        finds(|records, _| records[3].partition = 1, |violation| matches!(violation, Violation::KeyMoved { .. }));
    }

    #[test]
    fn a_truncation_that_a_partition_lacks_is_found() {
        let emptied = |records: &mut Vec<Record>, history: &mut History, partitions: &[i32]| {
            history.transactions.insert(12, vec![change(Operation::Truncate, None, None)]);
            history.contents.insert("item".to_owned(), Vec::new());
            for record in &mut *records {
                // Each key has one partition.
                record.partition = i32::from(record.key == Some(key(1)));
            }
            for partition in partitions {
                let mut record = records[0].clone();
                (record.partition, record.key, record.offset) = (*partition, None, 1000);
                let event = record.event.as_mut().expect("an event");
                (event.identity, event.xid) = (Identity { commit_lsn: 300, ordinal: 1 }, 12);
                (event.operation, event.after) = ("t".to_owned(), None);
                records.push(record);
            }
        };
        let (mut whole, mut source) = (records(), history());
        emptied(&mut whole, &mut source, &[0, 1]);
        judge(TABLES, &whole, &source).assert_flawless();
        for partitions in [&[0][..], &[1], &[0, 0, 1]] {
            finds(
                |records, history| emptied(records, history, partitions),
                |violation| matches!(violation, Violation::Truncation { .. }),
            );
        }
        finds(
            |records, history| emptied(records, history, &[0]),
            |violation| matches!(violation, Violation::Fold { .. }),
        );
    }

    #[test]
    fn a_missing_and_a_stray_tombstone_are_found() {
        for missing in [5, 8] {
            finds(
                |records, _| {
                    records.remove(missing);
                    renumber(records);
                },
                |violation| matches!(violation, Violation::Tombstone { .. }),
            );
        }
        finds(
            |records, _| {
                let stray = records[5].clone();
                records.insert(1, stray);
                renumber(records);
            },
            |violation| matches!(violation, Violation::Tombstone { .. }),
        );
    }
}
