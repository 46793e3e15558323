//! The judge of a stream with copies: what a consumer makes of the topics against what the tables are.

use std::collections::{BTreeMap, BTreeSet};

use super::TABLES;
use crate::harness::{
    event::{Identity, Record, UNAVAILABLE},
    oracle::Row,
    stream::Stream,
};

/// What a consumer makes of the topics, beside what the tables are.
pub(super) struct Judged {
    pub(super) copied: usize,
    pub(super) streamed: usize,
    violations: Vec<String>,
}

impl Judged {
    pub(super) fn of(stream: &Stream, records: &[Record]) -> Self {
        Self::of_tables(stream, records, &TABLES)
    }

    /// The same of tables of a test's own. Their rows need no version.
    pub(super) fn of_tables(stream: &Stream, records: &[Record], tables: &[&str]) -> Self {
        let contents = stream.database.history(tables).contents;
        let mut judged = Self { copied: 0, streamed: 0, violations: Vec::new() };
        judged.events_occur_once(records);
        judged.no_key_steps_back(records);
        // A change of the key takes the row to another partition, which may have been read before: then what it takes along is known by the next time.
        let mut taken_along = TakenAlong::default();
        let folded = loop {
            let (folded, found) = fold(records, &taken_along);
            if found == taken_along {
                break folded;
            }
            taken_along = found;
        };
        judged.folds_give_the_tables(records, folded, contents);
        judged
    }

    fn events_occur_once(&mut self, records: &[Record]) {
        let mut identities: BTreeSet<Identity> = BTreeSet::new();
        let mut copied: BTreeSet<(&str, &Row)> = BTreeSet::new();
        // A row that is given another key may be read twice: see `src/snapshot/moved.rs`.
        let may_be_read_again: BTreeSet<(&str, &Row)> = records
            .iter()
            .filter(|record| record.old_key.is_some())
            .filter_map(|record| Some((record.table.as_str(), record.key.as_ref()?)))
            .collect();
        for record in records {
            let (Some(key), Some(event)) = (&record.key, &record.event) else { continue };
            let place = (record.table.as_str(), key);
            if event.operation == "r" {
                self.copied += 1;
                if !copied.insert(place) && !may_be_read_again.contains(&place) {
                    self.violations.push(format!("{place:?} was copied twice"));
                }
            } else {
                self.streamed += 1;
                if !identities.insert(event.identity) {
                    self.violations.push(format!("{place:?} has {:?} twice", event.identity));
                }
            }
        }
    }

    fn no_key_steps_back(&mut self, records: &[Record]) {
        let mut newest: BTreeMap<(&str, &Row), u64> = BTreeMap::new();
        for record in records {
            let (Some(key), Some(event)) = (&record.key, &record.event) else { continue };
            let Some(version) = event.after.as_ref().and_then(|row| row.get("version")) else { continue };
            let version: u64 = version.as_deref().expect("a version").parse().expect("a number");
            let place = (record.table.as_str(), key);
            if newest.insert(place, version).is_some_and(|newest| newest > version) {
                self.violations.push(format!("{place:?} steps back to {version} at {}", record.offset));
            }
        }
    }

    fn folds_give_the_tables(
        &mut self,
        records: &[Record],
        mut folded: BTreeMap<&str, BTreeMap<&Row, Row>>,
        contents: BTreeMap<String, Vec<Row>>,
    ) {
        for (table, mut rows) in contents {
            let folded = folded.remove(table.as_str()).unwrap_or_default();
            let mut found: Vec<&Row> = folded.values().collect();
            found.sort();
            rows.sort();
            if found.iter().copied().eq(&rows) {
                continue;
            }
            let odd: Vec<_> = folded.iter().filter(|(_, row)| !rows.contains(row)).take(4).collect();
            let missing = rows.iter().filter(|row| !found.contains(row)).take(4).map(short);
            self.violations.push(format!(
                "{table} has {} rows, and its topic comes to {}; missing: {:?}; odd: {:?}",
                rows.len(),
                folded.len(),
                missing.collect::<Vec<_>>(),
                odd.iter().map(|(_, row)| short(row)).collect::<Vec<_>>()
            ));
            for (key, _) in odd {
                let of_key = records.iter().filter(|it| {
                    it.table == table && (it.key.as_ref() == Some(key) || it.new_key.as_ref() == Some(key))
                });
                self.violations.extend(of_key.map(told));
            }
        }
    }

    /// The same where somebody has asked for rows that were copied before.
    pub(super) fn copied_again(mut self) -> Self {
        self.violations.retain(|violation| !violation.ends_with("was copied twice"));
        self
    }

    pub(super) fn assert_flawless(&self) {
        let shown: Vec<_> = self.violations.iter().take(20).cloned().collect();
        assert!(self.violations.is_empty(), "{} violations:\n{}", self.violations.len(), shown.join("\n"));
    }
}

/// The rows that were deleted, by what deleted them.
type TakenAlong<'a> = BTreeMap<(&'a str, &'a Row, Identity), Row>;

/// The tables that the records make, given the rows that changes of keys take along; and these.
fn fold<'a>(
    records: &'a [Record],
    taken_along: &TakenAlong<'a>,
) -> (BTreeMap<&'a str, BTreeMap<&'a Row, Row>>, TakenAlong<'a>) {
    let mut folded: BTreeMap<&str, BTreeMap<&Row, Row>> = BTreeMap::new();
    let mut deleted = TakenAlong::new();
    for record in records {
        let (Some(key), Some(event)) = (&record.key, &record.event) else { continue };
        let table = record.table.as_str();
        let rows = folded.entry(table).or_default();
        let Some(mut row) = event.after.clone() else {
            if let Some(row) = rows.remove(key) {
                deleted.insert((table, key, event.identity), row);
            }
            continue;
        };
        let replaced = match &record.old_key {
            Some(old) => {
                let before = taken_along.range(..(table, old, event.identity)).next_back();
                before.filter(|((of, key, _), _)| (*of, *key) == (table, old)).map(|(_, row)| row)
            }
            None => rows.get(key),
        };
        for (column, value) in row.iter_mut().filter(|(_, value)| value.as_deref() == Some(UNAVAILABLE)) {
            // Until the row is copied nobody has it.
            if let Some(replaced) = replaced {
                value.clone_from(&replaced[column]);
            }
        }
        rows.insert(key, row);
    }
    (folded, deleted)
}

/// A record in few words.
fn told(record: &Record) -> String {
    let Record { partition, offset, key, old_key, new_key, event, .. } = record;
    let event = event.as_ref().map(|event| (&event.operation, event.identity, event.after.as_ref().map(short)));
    format!("  {partition}/{offset} {key:?} from {old_key:?} to {new_key:?}: {event:?}")
}

fn short(row: &Row) -> BTreeMap<&str, &str> {
    let cut = |text: &'_ str| text.char_indices().nth(20).map_or(text.len(), |(at, _)| at);
    row.iter()
        .map(|(name, value)| (name.as_str(), value.as_deref().map_or("null", |text| &text[..cut(text)])))
        .collect()
}
