//! Which tables are in quarantine: the registry refuses their schemas, and their changes go to dead letters until somebody has mended the
//! subject and [released](crate::pipeline::Release) them.
//!
//! # Why no row of such a table is lost, doubled or out of order
//!
//! What is in quarantine is a topic, since order is a topic's. Its entry is attached to the checkpoint, and written before the first letter: the
//! source hands on the entries and then the letters, so that whoever finds a letter finds the entry, or neither. From there on nothing is written
//! to the topic, whatever the registry says later, in this life or another, and whatever the policy is by then: each change becomes a
//! letter, exactly once, for it is committed with the checkpoint like any record. The same commit says where the letters end, so that a topic
//! that has lost some, or was deleted and created again, is known: whoever looks wants the first, the end, and the newest of them, and the producer is told
//! the end, so that the first letter into a topic that begins anew fails before its commit. `next_offset` is where the letters begin, or where those begin that were not released yet. A release writes the events of some letters, and the entry with the offset behind them, in one Kafka
//! transaction; and removes the entry with the last of them. So a letter's events are in the topic exactly if its offset lies before the
//! entry's, and a release that was interrupted goes on there. The checkpoint's position stays what it is: what it covers is in letters or in the topic.
//!
//! A table that is renamed meanwhile has another topic from there on, in which its changes would come before those that wait. So an entry names the
//! tables whose changes wait, by their OIDs, and the other topic comes into quarantine **behind** it, with letters of its own: they can be released,
//! or given up, once nothing waits in front of them.

use std::{collections::BTreeMap, fmt};

use pgoutput::Oid;
use publisher::Attachment;
use serde::{Deserialize, Serialize};

/// The version of the format.
const VERSION: u32 = 1;
/// How much is kept of what the registry said.
const REASON_CHARACTERS_MAX: usize = 500;
/// So many tables of one topic are remembered: each but the newest was dropped, with another of its name in its place.
const TABLES_MAX: usize = 100;

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
    /// The OIDs of the tables whose changes wait, those that came to it last at the end. Entries of earlier versions have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<u32>,
    /// The topic for which changes of the table wait from before it was renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
}

impl Quarantined {
    /// The entry of a table whose quarantine begins where the topic of its letters ends.
    pub fn new(table: String, letters: String, end_offset: i64, since_ms: i64, reason: &str) -> Self {
        // A registry can say a lot, and the entry is one record.
        let reason = reason.chars().take(REASON_CHARACTERS_MAX).collect();
        let (tables, behind) = (Vec::new(), None);
        Self { table, letters, next_offset: end_offset, end_offset, since_ms, reason, tables, behind }
    }

    /// It is that of a table which was renamed while its changes waited for another topic.
    #[must_use]
    pub fn behind(self, topic: Option<String>) -> Self {
        Self { behind: topic, ..self }
    }

    /// Changes of this table wait too. Returns whether that is news.
    fn note(&mut self, table: Oid) -> bool {
        let table = u32::from(table);
        if self.tables.contains(&table) {
            return false;
        }
        if self.tables.len() == TABLES_MAX {
            self.tables.remove(0);
        }
        self.tables.push(table);
        true
    }

    /// Whether a topic that has records from the one offset up to the other can have all letters that are not released.
    fn is_there(&self, first: i64, end: i64) -> bool {
        first <= self.next_offset && self.next_offset.max(self.end_offset) <= end
    }

    /// The offset of the newest letter, if one is known that is not released.
    pub fn newest_letter(&self) -> Option<i64> {
        (self.end_offset > self.next_offset).then(|| self.end_offset - 1)
    }

    /// What is missing of the letters that are not released, if anything is; `bounds` is what the topic has, if it exists.
    pub fn missing(&self, bounds: Option<(i64, i64)>) -> Option<Missing> {
        let wanted = format!("the dead letters from offset {} to {} are wanted", self.next_offset, self.end_offset);
        let missing = match bounds {
            None => Missing::Topic(format!("{wanted}, and their topic is gone")),
            Some((first, end)) if self.is_there(first, end) => return None,
            Some((first, end)) => {
                let found = format!("{wanted}, and those that are there go from {first} to {end}");
                // The newest is there, so that what comes is behind all that there was.
                let is_first = end >= self.end_offset && self.newest_letter().is_some_and(|newest| newest >= first);
                if is_first { Missing::First(found) } else { Missing::Topic(found) }
            }
        };
        Some(missing)
    }
}

/// What is missing of letters, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// The first of them: their topic is what it was, and has lost what is old.
    First(String),
    /// Their topic, or what was written to it last: it is not what it was.
    Topic(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::First(found) | Self::Topic(found)) = self;
        f.write_str(found)
    }
}

/// How an entry is written.
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    #[serde(flatten)]
    table: Quarantined,
}

/// How all of them were written before, in one record, for which hundreds were too many.
#[derive(Deserialize)]
struct List {
    version: u32,
    topics: BTreeMap<String, Quarantined>,
}

impl Quarantine {
    /// What the suffixes of the keys in the checkpoint topic begin with, before the `/` and the topic. Alone it was that of the list.
    pub const SUFFIX: &str = "quarantine";

    /// Reads what is attached to a checkpoint.
    ///
    /// # Errors
    /// It is no such entry, or one of another version.
    pub fn read(attachments: &BTreeMap<String, Vec<u8>>) -> Result<Self, String> {
        let unusable = |what: &str, error: &dyn fmt::Display| format!("{what} in quarantine cannot be used: {error}");
        let check = |what: &str, version: u32| match version {
            VERSION => Ok(()),
            other => Err(unusable(what, &format_args!("its version is {other}, and this build reads {VERSION}"))),
        };
        let mut topics = BTreeMap::new();
        if let Some(value) = attachments.get(Self::SUFFIX) {
            let what = "the list of tables";
            let list: List = serde_json::from_slice(value).map_err(|error| unusable(what, &error))?;
            check(what, list.version)?;
            topics = list.topics;
        }
        for (suffix, value) in attachments {
            let Some(topic) = suffix.strip_prefix(Self::SUFFIX).and_then(|rest| rest.strip_prefix('/')) else {
                continue;
            };
            let what = format!("what is said of topic {topic}");
            let record: Record = serde_json::from_slice(value).map_err(|error| unusable(&what, &error))?;
            check(&what, record.version)?;
            topics.insert(topic.to_owned(), record.table);
        }
        Ok(Self { topics })
    }

    /// What is to be attached to the next checkpoint for a topic: its entry, or that there is none any more.
    pub fn attachment(&self, topic: &str) -> Attachment {
        let suffix = format!("{}/{topic}", Self::SUFFIX);
        let Some(table) = self.topics.get(topic) else { return Attachment::removal(suffix) };
        let record = Record { version: VERSION, table: table.clone() };
        // Neither maps with other than string keys nor fallible `Serialize` implementations occur in it.
        let value = serde_json::to_vec(&record).expect("an entry is representable as JSON");
        Attachment { suffix, value: Some(value) }
    }

    /// What is to be attached to the next checkpoint in the place of the list of an earlier version, if these attachments have one.
    pub fn renewal(&self, attachments: &BTreeMap<String, Vec<u8>>) -> Vec<Attachment> {
        if !attachments.contains_key(Self::SUFFIX) {
            return Vec::new();
        }
        let entries = self.topics.keys().map(|topic| self.attachment(topic));
        entries.chain([Attachment::removal(Self::SUFFIX)]).collect()
    }

    /// The entry of a topic.
    pub fn get(&self, topic: &str) -> Option<&Quarantined> {
        self.topics.get(topic)
    }

    /// The topic for which letters of a table wait, if it is another one than this.
    pub fn elsewhere(&self, table: &str, topic: &str) -> Option<&str> {
        self.iter().find(|(other, entry)| *other != topic && entry.table == table).map(|(other, _)| other)
    }

    /// The topic for which changes of a table wait that were written under another name, if it is another one than this: the one that came last.
    pub fn in_front(&self, table: Oid, topic: &str) -> Option<&str> {
        let others = self.iter().filter(|(other, entry)| *other != topic && entry.tables.contains(&table.into()));
        let is_last = |other: &str| !self.topics.values().any(|entry| entry.behind.as_deref() == Some(other));
        let (last, others): (Vec<_>, Vec<_>) = others.map(|(other, _)| other).partition(|other| is_last(other));
        last.into_iter().chain(others).next()
    }

    /// What goes by this name: entries of the table, and that of the topic.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a Quarantined)> {
        self.iter().filter(move |(topic, entry)| *topic == name || entry.table == name)
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

    /// Changes of this table wait for the topic too, if it is in quarantine. Returns whether that is news.
    pub fn note(&mut self, topic: &str, table: Oid) -> bool {
        self.topics.get_mut(topic).is_some_and(|entry| entry.note(table))
    }

    /// Takes in what another has, and this one has not. Returns the topics.
    pub fn extend(&mut self, other: Self) -> Vec<String> {
        let mut topics = Vec::new();
        for (topic, entry) in other.topics {
            let is_news = match self.topics.get_mut(&topic) {
                // What is known of where its letters begin and end stays.
                Some(held) => entry.tables.into_iter().filter(|table| held.note(Oid::from(*table))).count() > 0,
                None => self.topics.insert(topic.clone(), entry).is_none(),
            };
            topics.extend(is_news.then_some(topic));
        }
        topics
    }

    /// Letters were written up to where `ask` says for their topic. Returns the topics of which that was not known.
    ///
    /// # Errors
    /// Those of `ask`.
    pub fn letters_written<E>(
        &mut self,
        mut ask: impl FnMut(&str) -> Result<Option<i64>, E>,
    ) -> Result<Vec<String>, E> {
        let mut topics = Vec::new();
        for (topic, table) in &mut self.topics {
            if let Some(end) = ask(&table.letters)?.filter(|end| *end > table.end_offset) {
                table.end_offset = end;
                topics.push(topic.clone());
            }
        }
        Ok(topics)
    }

    /// Letters of the topic before this offset are released.
    pub fn advance(&mut self, topic: &str, next_offset: i64) {
        if let Some(table) = self.topics.get_mut(topic) {
            table.next_offset = table.next_offset.max(next_offset);
        }
    }

    /// What is in front of a topic's letters and still waits: the topic for which it does.
    pub fn waits_behind(&self, topic: &str) -> Option<&str> {
        let behind = self.get(topic)?.behind.as_deref();
        behind.filter(|other| self.topics.contains_key(*other))
    }

    /// No letters of the topic wait any more. What was behind it is behind what it was behind itself, if anything. Returns the topics whose
    /// entries have changed by that.
    pub fn end(&mut self, topic: &str) -> Vec<String> {
        let in_front = self.waits_behind(topic).map(str::to_owned);
        self.topics.remove(topic);
        let behind = self.topics.iter_mut().filter(|(_, entry)| entry.behind.as_deref() == Some(topic));
        let moved = behind.map(|(other, entry)| {
            entry.behind.clone_from(&in_front);
            other.clone()
        });
        moved.collect()
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
            tables: Vec::new(),
            behind: None,
        }
    }

    fn written(attachments: Vec<Attachment>) -> BTreeMap<String, Vec<u8>> {
        attachments.into_iter().filter_map(|Attachment { suffix, value }| Some((suffix, value?))).collect()
    }

    const ENTRY: &str = r#"{"version":1,"table":"public.item","letters":"shop.public.item.dead-letters","next_offset":7,"end_offset":9,"since_ms":1700000000000,"reason":"no"}"#;

    #[test]
    fn the_record_is_this_json() {
        // A change of this text is a change of the format: old records must stay readable.
        let mut quarantine = Quarantine::default();
        quarantine.begin("shop.public.item", table(7));
        let record = written(vec![quarantine.attachment("shop.public.item")]);
        let text = record.get("quarantine/shop.public.item").map(|value| String::from_utf8_lossy(value).into_owned());
        assert_eq!(text.as_deref(), Some(ENTRY));
        assert_eq!(Quarantine::read(&record), Ok(quarantine));
    }

    #[test]
    fn the_list_of_an_earlier_version_is_read_and_replaced() {
        let list = r#"{"version":1,"topics":{"a":{"table":"public.item","letters":"shop.public.item.dead-letters","next_offset":7,"end_offset":9,"since_ms":1700000000000,"reason":"no"}}}"#;
        let mut held = BTreeMap::from([(Quarantine::SUFFIX.to_owned(), list.as_bytes().to_vec())]);
        let mut quarantine = Quarantine::default();
        quarantine.begin("a", table(7));
        assert_eq!(Quarantine::read(&held), Ok(quarantine.clone()));
        held.insert("quarantine/b".to_owned(), ENTRY.as_bytes().to_vec());
        quarantine.begin("b", table(7));
        assert_eq!(Quarantine::read(&held), Ok(quarantine.clone()));
        let renewal = quarantine.renewal(&held);
        assert!(renewal.contains(&Attachment::removal("quarantine")));
        let renewed = written(renewal);
        assert_eq!(renewed.keys().collect::<Vec<_>>(), ["quarantine/a", "quarantine/b"]);
        assert_eq!(Quarantine::read(&renewed), Ok(quarantine.clone()));
        assert_eq!(quarantine.renewal(&renewed), []);
    }

    #[test]
    fn there_may_be_as_many_as_there_are_tables() {
        let mut quarantine = Quarantine::default();
        for number in 0..5000 {
            let entry =
                Quarantined::new(format!("public.item_{number}"), "letters".into(), 0, 0, &"\u{1}".repeat(9999));
            quarantine.begin(&format!("shop.public.item_{number}"), entry);
        }
        let attachments: Vec<Attachment> = quarantine.iter().map(|(topic, _)| quarantine.attachment(topic)).collect();
        let largest = attachments.iter().filter_map(|attachment| Some(attachment.value.as_ref()?.len())).max();
        assert!(largest.is_some_and(|bytes| bytes < Attachment::VALUE_LEN_MAX_BYTES / 100), "{largest:?}");
        assert_eq!(Quarantine::read(&written(attachments)), Ok(quarantine));
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
        assert_eq!(quarantine.attachment("a"), Attachment::removal("quarantine/a"));
        assert_eq!(Quarantine::read(&BTreeMap::new()), Ok(quarantine));
    }

    #[test]
    fn a_table_is_known_in_other_topics_and_an_entry_by_either_name() {
        let mut quarantine = Quarantine::default();
        assert_eq!(quarantine.elsewhere("public.item", "a"), None);
        quarantine.begin("a", table(7));
        assert_eq!(quarantine.elsewhere("public.item", "a"), None);
        assert_eq!(quarantine.elsewhere("public.item", "b"), Some("a"));
        assert_eq!(quarantine.elsewhere("public.other", "b"), None);
        quarantine.begin("b", table(0));
        assert_eq!(quarantine.elsewhere("public.item", "b"), Some("a"));
        let topics = |name| quarantine.named(name).map(|(topic, _)| topic).collect::<Vec<_>>();
        assert_eq!([topics("public.item"), topics("b"), topics("c")], [vec!["a", "b"], vec!["b"], vec![]]);
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
        assert_eq!(quarantine.get("a").and_then(Quarantined::newest_letter), None);
        assert!(!is_there(&quarantine, 0, 6) && !is_there(&quarantine, 8, 9));
        let mut told =
            |end| quarantine.letters_written(|letters| Ok::<_, ()>(Some(end).filter(|_| letters == "letters")));
        assert_eq!((told(12), told(12), told(10)), (Ok(vec!["a".to_owned()]), Ok(vec![]), Ok(vec![])));
        assert!(is_there(&quarantine, 7, 12));
        assert_eq!(quarantine.get("a").and_then(Quarantined::newest_letter), Some(11));
        assert!(!is_there(&quarantine, 0, 11), "the last is gone");
        assert!(!is_there(&quarantine, 8, 12), "the first is gone");
        quarantine.advance("a", 12);
        assert!(is_there(&quarantine, 12, 12));
        let mut older = Quarantine::default();
        older.begin("a", table(0));
        older.begin("b", table(0));
        assert_eq!(quarantine.extend(older), ["b"]);
        assert_eq!(quarantine.get("a").map(|table| table.next_offset), Some(12), "what is known stays");
    }

    #[test]
    fn a_table_that_is_renamed_waits_behind_itself() {
        let (item, other) = (Oid::from(7), Oid::from(8));
        let mut quarantine = Quarantine::default();
        let begin = |quarantine: &mut Quarantine, topic: &str, oid| {
            let in_front = quarantine.in_front(oid, topic).map(str::to_owned);
            quarantine.begin(topic, table(7).behind(in_front.clone()));
            quarantine.note(topic, oid);
            in_front
        };
        assert_eq!(begin(&mut quarantine, "a", item), None);
        assert_eq!((quarantine.in_front(item, "a"), quarantine.in_front(other, "b")), (None, None));
        // The newest is in front, and coming back to the first changes nothing.
        assert_eq!(begin(&mut quarantine, "b", item).as_deref(), Some("a"));
        assert_eq!(begin(&mut quarantine, "c", item).as_deref(), Some("b"));
        begin(&mut quarantine, "a", item);
        assert_eq!(quarantine.get("a").map(|entry| entry.behind.as_deref()), Some(None));
        assert!(!quarantine.note("a", item) && !quarantine.note("none", item) && quarantine.note("a", other));
        let held = written(["a", "b", "c"].map(|topic| quarantine.attachment(topic)).into());
        assert_eq!(Quarantine::read(&held), Ok(quarantine.clone()));
        // Whoever comes to it later is news, and nothing else.
        let mut before = quarantine.clone();
        before.begin("d", table(7));
        quarantine.begin("d", table(7));
        quarantine.note("d", other);
        assert_eq!(
            (before.extend(quarantine.clone()), before.extend(quarantine.clone())),
            (vec!["d".to_owned()], vec![])
        );
        // What has gone from the front lets the next one go, and comes behind the last if it comes again.
        assert_eq!((quarantine.end("a"), quarantine.end("d")), (vec!["b".to_owned()], vec![]));
        assert_eq!(quarantine.get("b").map(|entry| entry.behind.as_deref()), Some(None));
        assert_eq!(begin(&mut quarantine, "a", item).as_deref(), Some("c"));
    }

    #[test]
    fn what_is_behind_one_that_goes_is_behind_what_that_was_behind() {
        let mut quarantine = Quarantine::default();
        let chain = [("a", None), ("b", Some("a")), ("c", Some("b")), ("d", Some("gone"))];
        for (topic, behind) in chain {
            quarantine.begin(topic, table(7).behind(behind.map(str::to_owned)));
        }
        let behind =
            |quarantine: &Quarantine| ["b", "c", "d"].map(|topic| quarantine.waits_behind(topic).map(str::to_owned));
        assert_eq!(behind(&quarantine), [Some("a".to_owned()), Some("b".to_owned()), None]);
        assert_eq!(quarantine.end("b"), ["c"]);
        assert_eq!(quarantine.get("c").and_then(|entry| entry.behind.as_deref()), Some("a"));
        assert_eq!(behind(&quarantine), [None, Some("a".to_owned()), None]);
        assert_eq!(quarantine.end("a"), ["c"]);
        assert_eq!(quarantine.get("c").and_then(|entry| entry.behind.as_deref()), None);
    }

    #[test]
    fn tables_of_one_name_are_remembered_up_to_a_number() {
        let mut quarantine = Quarantine::default();
        quarantine.begin("a", table(7));
        for oid in 0..1000 {
            assert!(quarantine.note("a", Oid::from(oid)));
        }
        assert_eq!(quarantine.get("a").map(|entry| entry.tables.len()), Some(TABLES_MAX));
        assert!(!quarantine.note("a", Oid::from(999)));
    }

    #[test]
    fn what_is_missing_is_told_apart() {
        let entry = Quarantined { end_offset: 9, ..table(7) };
        let kind = |bounds| match entry.missing(bounds) {
            None => "nothing",
            Some(Missing::First(_)) => "the first",
            Some(Missing::Topic(_)) => "the topic",
        };
        for (bounds, expected) in [
            (None, "the topic"),
            (Some((0, 9)), "nothing"),
            (Some((7, 20)), "nothing"),
            (Some((8, 9)), "the first"),
            (Some((9, 9)), "the topic"),
            (Some((8, 8)), "the topic"),
            (Some((0, 8)), "the topic"),
        ] {
            assert_eq!(kind(bounds), expected, "{bounds:?}");
        }
    }

    #[test]
    fn what_is_no_such_record_is_refused() {
        let lists = ["", "{}", "{\"version\":2,\"topics\":{}}", "{\"version\":1,\"topics\":{\"a\":{}}}"];
        let newer = ENTRY.replace("\"version\":1", "\"version\":2");
        let entries = ["", "{}", "{\"version\":1}", &newer];
        let of = |suffix: &'static str| move |value| (suffix, value);
        for (suffix, value) in lists.map(of("quarantine")).into_iter().chain(entries.map(of("quarantine/a"))) {
            let attachments = BTreeMap::from([(suffix.to_owned(), str::as_bytes(value).to_vec())]);
            assert!(Quarantine::read(&attachments).is_err(), "{suffix} {value:?}");
        }
        let others = BTreeMap::from([("quarantined".to_owned(), Vec::new()), ("snapshot".to_owned(), Vec::new())]);
        assert_eq!(Quarantine::read(&others), Ok(Quarantine::default()));
    }
}
