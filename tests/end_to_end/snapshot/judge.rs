//! The judge of a stream with copies: what a consumer makes of the topics against what the tables are.
//!
//! It is pure but for its first step, which asks the database, so that it can be shown to find each kind of harm: see the tests below, which do harm.

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
        Self::of_contents(records, stream.database.history(tables).contents)
    }

    fn of_contents(records: &[Record], contents: BTreeMap<String, Vec<Row>>) -> Self {
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
        // A row that is given another key may be read once more for each time: see `src/snapshot/moved.rs`.
        let mut may_be_copied: BTreeMap<(&str, &Row), usize> = BTreeMap::new();
        for record in records.iter().filter(|record| record.old_key.is_some()) {
            let Some(key) = &record.key else { continue };
            *may_be_copied.entry((record.table.as_str(), key)).or_insert(1) += 1;
        }
        for record in records {
            let (Some(key), Some(event)) = (&record.key, &record.event) else { continue };
            let place = (record.table.as_str(), key);
            if event.operation == "r" {
                self.copied += 1;
                let left = may_be_copied.entry(place).or_insert(1);
                match left.checked_sub(1) {
                    Some(fewer) => *left = fewer,
                    None => self.violations.push(format!("{place:?} was copied twice")),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::event::Event;

    fn row(id: u64, version: u64, body: &str) -> Row {
        let value = |name: &str, value: String| (name.to_owned(), Some(value));
        [value("id", id.to_string()), value("version", version.to_string()), value("body", body.to_owned())].into()
    }

    fn key(id: u64) -> Row {
        [("id".to_owned(), Some(id.to_string()))].into()
    }

    /// The records of a table `item`, in order.
    #[derive(Default)]
    struct Topic(Vec<Record>);

    impl Topic {
        fn push(&mut self, operation: &str, id: u64, after: Option<Row>) -> &mut Record {
            let offset = i64::try_from(self.0.len()).expect("it is small");
            // A copied row is no part of a transaction.
            let identity = match operation {
                "r" => Identity { commit_lsn: 0, ordinal: 0 },
                _ => Identity { commit_lsn: 100 + offset.unsigned_abs(), ordinal: 1 },
            };
            let (operation, lsn) = (operation.to_owned(), identity.commit_lsn);
            let event = Event { identity, xid: 7, operation, before: None, after, lsn, table_ordinal: 1 };
            let (schema, table) = ("public".to_owned(), "item".to_owned());
            let (key, event) = (Some(key(id)), Some(event));
            self.0.push(Record { schema, table, partition: 0, offset, key, old_key: None, new_key: None, event });
            self.0.last_mut().expect("it was pushed")
        }

        fn copied(&mut self, row: Row) {
            let id = row["id"].as_ref().expect("an id").parse().expect("a number");
            self.push("r", id, Some(row));
        }

        fn moved(&mut self, from: u64, row: Row) {
            let id = row["id"].as_ref().expect("an id").parse().expect("a number");
            self.push("d", from, None).new_key = Some(key(id));
            self.push("c", id, Some(row)).old_key = Some(key(from));
        }
    }

    /// Three rows are copied. One was changed before its copy and after, one is deleted, and one gets another key while it is copied.
    fn topic() -> Topic {
        let mut topic = Topic::default();
        topic.push("u", 1, Some(row(1, 11, UNAVAILABLE)));
        topic.copied(row(1, 11, "a"));
        topic.copied(row(2, 20, "b"));
        topic.copied(row(3, 30, "c"));
        topic.push("u", 1, Some(row(1, 12, UNAVAILABLE)));
        topic.push("d", 2, None);
        topic.moved(3, row(4, 40, UNAVAILABLE));
        topic.copied(row(4, 40, "c"));
        topic
    }

    fn judged(topic: &Topic) -> Judged {
        let rows = vec![row(4, 40, "c"), row(1, 12, "a")];
        Judged::of_contents(&topic.0, [("item".to_owned(), rows)].into())
    }

    /// Does harm, and expects the judge to name it, and nothing else.
    fn finds(what: &str, harm: impl FnOnce(&mut Topic)) {
        let mut topic = topic();
        harm(&mut topic);
        let found = judged(&topic).violations;
        let is_told = |told: &String| told.contains(what) || told.starts_with("  ");
        assert!(found.iter().any(|told| told.contains(what)) && found.iter().all(is_told), "{what:?}: {found:?}");
    }

    #[test]
    fn what_is_right_has_no_violation() {
        let judged = judged(&topic());
        judged.assert_flawless();
        assert_eq!((judged.copied, judged.streamed), (4, 5));
    }

    /// A row that was copied and deleted, and stays.
    #[test]
    fn a_ghost_is_found() {
        let comes_to = "item has 2 rows, and its topic comes to 3; missing: []; odd: [{\"body\": \"b\"";
        finds(comes_to, |topic| drop(topic.0.remove(5)));
        // Its copy comes behind its deletion.
        finds(comes_to, |topic| {
            let deleted = topic.0.remove(5);
            topic.0.insert(2, deleted);
        });
        finds("odd: [{\"body\": \"c\", \"id\": \"3\"", |topic| drop(topic.0.remove(6)));
    }

    #[test]
    fn a_row_that_is_copied_twice_is_found() {
        finds("was copied twice", |topic| topic.0.insert(2, topic.0[1].clone()));
        finds("was copied twice", |topic| topic.0.insert(3, topic.0[2].clone()));
    }

    /// Each time that a row is given another key excuses one copy more, and no other.
    #[test]
    fn a_key_that_rows_come_to_is_copied_as_often() {
        let mut again = topic();
        again.copied(row(4, 40, "c"));
        judged(&again).assert_flawless();
        finds("was copied twice", |topic| {
            topic.copied(row(4, 40, "c"));
            topic.copied(row(4, 40, "c"));
        });
        finds("was copied twice", |topic| topic.0.insert(4, topic.0[3].clone()));
    }

    #[test]
    fn an_event_that_is_there_twice_is_found() {
        finds("twice", |topic| topic.0.push(topic.0[4].clone()));
    }

    /// The older state of a row behind the newer one.
    #[test]
    fn a_key_that_steps_back_is_found() {
        finds("steps back to 10 at", |topic| {
            topic.0[1].event.as_mut().expect("an event").after = Some(row(1, 10, "a"));
        });
        let harm = |topic: &mut Topic| {
            let newer = topic.0.remove(4);
            topic.0.insert(1, newer);
        };
        let mut topic = topic();
        harm(&mut topic);
        let found = judged(&topic).violations;
        assert!(found.iter().any(|told| told.contains("steps back to 11 at")), "{found:?}");
    }

    #[test]
    fn a_lost_row_is_found() {
        // One that only the copy has, and one that is there but for a value which only the copy has.
        let mut topic = Topic::default();
        topic.push("u", 1, Some(row(1, 12, "a")));
        let found = judged(&topic).violations;
        assert!(found.iter().any(|told| told.contains("comes to 1; missing: [{\"body\": \"c\"")), "{found:?}");
        finds("item has 2 rows, and its topic comes to 2; missing: [{\"body\": \"a\"", |topic| {
            topic.0.remove(1);
        });
    }

    #[test]
    fn another_value_is_found() {
        finds("odd: [{\"body\": \"x\"", |topic| {
            topic.0[1].event.as_mut().expect("an event").after = Some(row(1, 11, "x"));
        });
    }

    #[test]
    fn a_topic_without_records_is_not_taken_for_an_empty_table() {
        let found = judged(&Topic::default()).violations;
        assert!(found.iter().any(|told| told.contains("comes to 0")), "{found:?}");
    }
}
