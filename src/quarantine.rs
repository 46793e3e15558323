//! Which tables are in quarantine: the registry refuses their schemas, and their changes go to dead letters until somebody has mended the
//! subject and [released](crate::pipeline::Release) them.
//!
//! # Why no row of such a table is lost, doubled or out of order
//!
//! What is in quarantine is a topic, since order is a topic's. The list is attached to the checkpoint, and written before the first letter: the
//! source hands on the list and then the letters, so that whoever finds a letter finds the list, or neither. From there on nothing is written
//! to the topic, whatever the registry says later, in this life or another, and whatever the policy is by then: each change becomes a
//! letter, exactly once, for it is committed with the checkpoint like any record. The same commit says where the letters end, so that a topic
//! that has lost some, or was deleted and created again, is known. `next_offset` is where the letters begin, or where those begin that were not released yet. A release writes the events of some letters, and the list with the offset behind them, in one Kafka
//! transaction; and the list without the topic with the last of them. So a letter's events are in the topic exactly if its offset lies before the
//! list's, and a release that was interrupted goes on there. The checkpoint's position stays what it is: what it covers is in letters or in the topic.

use std::collections::BTreeMap;

use publisher::Attachment;
use serde::{Deserialize, Serialize};

/// The version of the list's format.
const VERSION: u32 = 1;
/// How much is kept of what the registry said.
const REASON_CHARACTERS_MAX: usize = 500;

/// The tables in quarantine, by their topics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quarantine {
    topics: BTreeMap<String, Quarantined>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// `schema.table`, as it was called when it began.
    pub table: String,
    /// The topic of its letters.
    pub letters: String,
    /// Where the letters begin that are not released.
    pub next_offset: i64,
    /// What is behind the newest letter, as far as it is known: a topic that ends before has lost some.
    pub end_offset: i64,
    /// When it began, in milliseconds since 1970.
    pub since_ms: i64,
    /// Why.
    pub reason: String,
}

impl Quarantined {
    /// The entry of a table whose quarantine begins where the topic of its letters ends.
    pub fn new(table: String, letters: String, end_offset: i64, since_ms: i64, reason: &str) -> Self {
        // A registry can say a lot, and the list of all tables is one record.
        let reason = reason.chars().take(REASON_CHARACTERS_MAX).collect();
        Self { table, letters, next_offset: end_offset, end_offset, since_ms, reason }
    }

    /// Whether a topic that has records from the one offset up to the other can have all letters that are not released.
    fn is_there(&self, first: i64, end: i64) -> bool {
        first <= self.next_offset && self.next_offset.max(self.end_offset) <= end
    }

    /// What is missing of the letters that are not released, if anything is; `bounds` is what the topic has, if it exists.
    pub fn missing(&self, bounds: Option<(i64, i64)>) -> Option<String> {
        let wanted = format!("the dead letters from offset {} to {} are wanted", self.next_offset, self.end_offset);
        match bounds {
            None => Some(format!("{wanted}, and their topic is gone")),
            Some((first, end)) if self.is_there(first, end) => None,
            Some((first, end)) => Some(format!("{wanted}, and those that are there go from {first} to {end}")),
        }
    }
}

/// How the list is written.
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    topics: BTreeMap<String, Quarantined>,
}

impl Quarantine {
    /// The suffix of the list's key in the checkpoint topic.
    pub const SUFFIX: &str = "quarantine";

    /// Reads what is attached to a checkpoint.
    ///
    /// # Errors
    /// It is not such a list, or one of another version.
    pub fn read(attachments: &BTreeMap<String, Vec<u8>>) -> Result<Self, String> {
        let Some(value) = attachments.get(Self::SUFFIX) else { return Ok(Self::default()) };
        let unusable =
            |error: &dyn std::fmt::Display| format!("the list of tables in quarantine cannot be used: {error}");
        let record: Record = serde_json::from_slice(value).map_err(|error| unusable(&error))?;
        if record.version != VERSION {
            return Err(unusable(&format_args!("its version is {}, and this build reads {VERSION}", record.version)));
        }
        Ok(Self { topics: record.topics })
    }

    /// What is to be attached to the next checkpoint.
    pub fn attachment(&self) -> Attachment {
        if self.topics.is_empty() {
            return Attachment::removal(Self::SUFFIX);
        }
        let record = Record { version: VERSION, topics: self.topics.clone() };
        // Neither maps with other than string keys nor fallible `Serialize` implementations occur in it.
        let value = serde_json::to_vec(&record).expect("the list is representable as JSON");
        Attachment { suffix: Self::SUFFIX.to_owned(), value: Some(value) }
    }

    /// The entry of a topic.
    pub fn get(&self, topic: &str) -> Option<&Quarantined> {
        self.topics.get(topic)
    }

    /// All entries, with their topics.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Quarantined)> {
        self.topics.iter().map(|(topic, table)| (topic.as_str(), table))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// A topic's quarantine begins. One that has begun goes on as it is.
    pub fn begin(&mut self, topic: &str, table: Quarantined) {
        self.topics.entry(topic.to_owned()).or_insert(table);
    }

    /// Takes in what is in another list, and not in this one.
    pub fn extend(&mut self, other: Self) {
        for (topic, table) in other.topics {
            self.topics.entry(topic).or_insert(table);
        }
    }

    /// Letters were written up to where `ask` says for their topic. Returns whether that was not known.
    ///
    /// # Errors
    /// Those of `ask`.
    pub fn letters_written<E>(&mut self, mut ask: impl FnMut(&str) -> Result<Option<i64>, E>) -> Result<bool, E> {
        let mut is_new = false;
        for table in self.topics.values_mut() {
            if let Some(end) = ask(&table.letters)?.filter(|end| *end > table.end_offset) {
                table.end_offset = end;
                is_new = true;
            }
        }
        Ok(is_new)
    }

    /// Letters of the topic before this offset are released.
    pub fn advance(&mut self, topic: &str, next_offset: i64) {
        if let Some(table) = self.topics.get_mut(topic) {
            table.next_offset = table.next_offset.max(next_offset);
        }
    }

    /// All letters of the topic are released.
    pub fn end(&mut self, topic: &str) {
        self.topics.remove(topic);
    }

    /// The tables, for a message.
    pub fn tables(&self) -> String {
        let tables: Vec<&str> = self.topics.values().map(|table| table.table.as_str()).collect();
        tables.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(next_offset: i64) -> Quarantined {
        Quarantined {
            table: "public.item".into(),
            letters: "shop.public.item.dead-letters".into(),
            next_offset,
            end_offset: 9,
            since_ms: 1_700_000_000_000,
            reason: "no".into(),
        }
    }

    fn written(quarantine: &Quarantine) -> BTreeMap<String, Vec<u8>> {
        let Attachment { suffix, value } = quarantine.attachment();
        value.into_iter().map(|value| (suffix.clone(), value)).collect()
    }

    #[test]
    fn the_record_is_this_json() {
        // A change of this text is a change of the format: old records must stay readable.
        let json = r#"{"version":1,"topics":{"shop.public.item":{"table":"public.item","letters":"shop.public.item.dead-letters","next_offset":7,"end_offset":9,"since_ms":1700000000000,"reason":"no"}}}"#;
        let mut quarantine = Quarantine::default();
        quarantine.begin("shop.public.item", table(7));
        let record = written(&quarantine);
        assert_eq!(
            record.get(Quarantine::SUFFIX).map(|value| String::from_utf8_lossy(value).into_owned()),
            Some(json.into())
        );
        assert_eq!(Quarantine::read(&record), Ok(quarantine));
    }

    #[test]
    fn it_begins_once_and_its_offset_only_grows() {
        let mut quarantine = Quarantine::default();
        quarantine.begin("a", table(7));
        quarantine.begin("a", table(9));
        assert_eq!(quarantine.get("a").map(|table| table.next_offset), Some(7));
        for (next_offset, expect) in [(8, 8), (3, 8)] {
            quarantine.advance("a", next_offset);
            assert_eq!(quarantine.get("a").map(|table| table.next_offset), Some(expect));
        }
        quarantine.advance("b", 1);
        assert_eq!((quarantine.iter().len(), quarantine.tables()), (1, "public.item".into()));
        quarantine.end("a");
        assert_eq!(written(&quarantine), BTreeMap::new(), "an empty list is a tombstone");
        assert_eq!(Quarantine::read(&BTreeMap::new()), Ok(quarantine));
    }

    #[test]
    fn letters_that_are_gone_are_missed() {
        let mut quarantine = Quarantine::default();
        let begun = Quarantined::new("public.item".into(), "letters".into(), 7, 0, &"é".repeat(2000));
        assert_eq!(begun.reason.chars().count(), REASON_CHARACTERS_MAX);
        quarantine.begin("a", begun);
        let is_there =
            |quarantine: &Quarantine, first, end| quarantine.get("a").expect("it is there").is_there(first, end);
        assert!(is_there(&quarantine, 0, 7) && is_there(&quarantine, 7, 7), "no letter is known of");
        assert!(!is_there(&quarantine, 0, 6) && !is_there(&quarantine, 8, 9));
        let mut told =
            |end| quarantine.letters_written(|letters| Ok::<_, ()>(Some(end).filter(|_| letters == "letters")));
        assert_eq!((told(12), told(12), told(10)), (Ok(true), Ok(false), Ok(false)));
        assert!(is_there(&quarantine, 7, 12));
        assert!(!is_there(&quarantine, 0, 11), "the last is gone");
        assert!(!is_there(&quarantine, 8, 12), "the first is gone");
        quarantine.advance("a", 12);
        assert!(is_there(&quarantine, 12, 12));
        let mut older = Quarantine::default();
        older.begin("a", table(0));
        quarantine.extend(older);
        assert_eq!(quarantine.get("a").map(|table| table.next_offset), Some(12), "what is known stays");
    }

    #[test]
    fn what_is_no_such_list_is_refused() {
        for value in ["", "{}", "{\"version\":2,\"topics\":{}}", "{\"version\":1,\"topics\":{\"a\":{}}}"] {
            let attachments = BTreeMap::from([(Quarantine::SUFFIX.to_owned(), value.as_bytes().to_vec())]);
            assert!(Quarantine::read(&attachments).is_err(), "{value:?}");
        }
    }
}
