//! What the checkpoint says of copies: which tables need none, and how far each of the others is.
//!
//! It is attached to the checkpoint, one record for the stream and one for each table, and committed with the rows that it speaks of. So a
//! cursor never says more than what is in Kafka, nor less.

use std::collections::BTreeMap;

use pgoutput::Oid;
use publisher::Attachment;
use serde::{Deserialize, Serialize};

use super::{
    moved::MovedRows,
    parts::{Part, are_parts},
    shape::Shape,
};
use crate::{
    catalog::{MEMBER, PublishedTable},
    failure::{Code, Failure},
};

/// The version of the records' format.
const VERSION: u32 = 1;
/// The suffix of the stream's record; a table's has its OID behind that and a `/`.
const SUFFIX: &str = "snapshot";
/// Stands between that and the name of a row that was moved.
const MOVED: &str = "/moved/";
/// The suffix of what holds for all copies.
const CONTROL: &str = "copies";
/// The suffix of how far signals were read.
const SIGNALS: &str = "signals";

/// What is known of copies when a session begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// None if the stream was there before copies were.
    pub(crate) stream: Option<StreamRecord>,
    /// Whether nothing is to be read until somebody says so.
    pub(crate) is_paused: bool,
    /// How many tables are copied at a time, if somebody has asked for that.
    pub(crate) parallel: Option<u8>,
    /// How far signals were read.
    pub(crate) signals: Option<SignalsRecord>,
    /// By OID.
    pub(crate) tables: BTreeMap<u32, TableRecord>,
    /// Keys of rows that are to be read before a table's copy is over, by its OID and their names.
    pub(crate) moved: BTreeMap<u32, BTreeMap<String, Vec<String>>>,
}

/// What is said of all copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ControlRecord {
    version: u32,
    paused: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parallel: Option<u8>,
}

/// What is said of the topic of signals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignalsRecord {
    version: u32,
    /// The topic.
    pub(crate) topic: String,
    /// Everything before this offset was carried out, or refused.
    pub(crate) offset: i64,
    /// So was of the signal at this offset what it asks for these tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) begun: Vec<String>,
}

/// A row that is to be read before its table's copy is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MovedRecord {
    version: u32,
    key: Vec<String>,
}

/// What is said for the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamRecord {
    version: u32,
    /// Tables that were streamed before anything was copied, by OID: their rows from before are not in Kafka.
    pub(crate) not_copied: Vec<u32>,
}

/// What is said of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableRecord {
    version: u32,
    /// Its schema, when it was last looked at.
    pub(crate) schema: String,
    /// Its name.
    pub(crate) table: String,
    /// What it is read in the order of, and what tells its rows apart, in words: where either is another, a place in the order says nothing.
    pub(crate) key: Vec<String>,
    /// The values of these columns in the last row that is in Kafka with all before it; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<Vec<String>>,
    /// What is left of it where it is copied in [parts](super::Parts).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) parts: Vec<Part>,
    /// How many rows were written.
    pub(crate) rows: u64,
    /// How many bytes their records have.
    #[serde(default)]
    pub(crate) bytes: u64,
    /// Which rows were asked for, as SQL; none for all.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub(crate) condition: Option<String>,
    /// Whether somebody has asked for it, rather than the mode.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) asked: bool,
    /// Whether all of it is copied in one snapshot: as long as rows are missing, its changes are left out that the copy will have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) at_once: bool,
    /// What it is like while it is owed such a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shape: Option<Box<Shape>>,
    /// Whether its topic is to be emptied before any of it is copied.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) empty_first: bool,
    /// Whether it was out of the publication since rows of it were written. Its topic is to be emptied before it is copied again, too, if that can be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) was_away: bool,
    /// When its copy began, in milliseconds since 1970.
    pub(crate) started_at_ms: i64,
    /// When it ended; none as long as rows are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at_ms: Option<i64>,
    /// When somebody has stopped it; it is left as it is until somebody starts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stopped_at_ms: Option<i64>,
}

impl Progress {
    /// Reads what is attached to the checkpoint.
    ///
    /// # Errors
    /// A record cannot be used.
    pub(crate) fn read(attachments: &BTreeMap<String, Vec<u8>>) -> Result<Self, Failure> {
        let mut progress = Self::default();
        for (suffix, value) in attachments {
            if suffix == CONTROL {
                let record: ControlRecord = parse(suffix, value)?;
                check_version(suffix, record.version)?;
                (progress.is_paused, progress.parallel) = (record.paused, record.parallel);
                continue;
            }
            if suffix == SIGNALS {
                let record: SignalsRecord = parse(suffix, value)?;
                check_version(suffix, record.version)?;
                progress.signals = Some(record);
                continue;
            }
            match suffix.strip_prefix(SUFFIX) {
                Some("") => {
                    let record: StreamRecord = parse(suffix, value)?;
                    check_version(suffix, record.version)?;
                    progress.stream = Some(record);
                }
                Some(rest) => {
                    let rest = rest.strip_prefix('/').ok_or_else(|| corrupt(suffix, "it names no table"))?;
                    let (oid, moved) = match rest.split_once(MOVED) {
                        Some((oid, moved)) => (oid, Some(moved)),
                        None => (rest, None),
                    };
                    let oid = oid.parse().map_err(|_| corrupt(suffix, "it names no table"))?;
                    if let Some(name) = moved {
                        let record: MovedRecord = parse(suffix, value)?;
                        check_version(suffix, record.version)?;
                        progress.moved.entry(oid).or_default().insert(name.to_owned(), record.key);
                    } else {
                        let record: TableRecord = parse(suffix, value)?;
                        check_version(suffix, record.version)?;
                        if !are_parts(&record.parts, record.after.as_ref()) {
                            return Err(corrupt(suffix, "its parts are not those of one table"));
                        }
                        progress.tables.insert(oid, record);
                    }
                }
                None => {}
            }
        }
        Ok(progress)
    }

    /// Forgets what was copied, so that all of it is copied again, but for what somebody has stopped; the attachments say so.
    pub(crate) fn begin_anew(&mut self) -> Vec<Attachment> {
        let mut attachments = Vec::new();
        self.tables.retain(|oid, record| {
            // What is owed begins anew in any case, and so does that whose topic is still to be emptied.
            let is_at_its_beginning = record.is_owed() || record.empties_first() && record.is_going_on();
            let is_kept = record.stopped_at_ms.is_some() || is_at_its_beginning;
            if !is_kept && record.was_away {
                *record = record.away(record.started_at_ms);
                attachments.push(record.attachment(Oid::from(*oid)));
                return true;
            }
            if !is_kept {
                attachments.push(TableRecord::removal(Oid::from(*oid)));
            }
            is_kept
        });
        for (oid, rows) in std::mem::take(&mut self.moved) {
            attachments.extend(rows.keys().map(|name| Attachment::removal(moved_suffix(Oid::from(oid), name))));
        }
        let stream = StreamRecord::new(Vec::new());
        attachments.push(stream.attachment());
        self.stream = Some(stream);
        attachments
    }

    /// The same behind a gap in the stream: the topic of each table that is published, or was copied, is emptied before. What somebody has
    /// stopped is left as it is, and what is owed a copy at once begins so in any case.
    pub(crate) fn begin_anew_behind_truncates(
        &mut self,
        published: &[(Oid, PublishedTable)],
        at_ms: i64,
    ) -> Vec<Attachment> {
        let mut names: BTreeMap<u32, (String, String)> =
            self.tables.iter().map(|(oid, it)| (*oid, (it.schema.clone(), it.table.clone()))).collect();
        names.extend(published.iter().map(|(oid, it)| (u32::from(*oid), (it.schema.clone(), it.name.clone()))));
        // That of one that was away has to be, now.
        self.tables.retain(|_, record| !record.was_away || record.empty_first || record.stopped_at_ms.is_some());
        let mut attachments = self.begin_anew();
        for (oid, (schema, table)) in names {
            if self.tables.contains_key(&oid) {
                continue;
            }
            let record = TableRecord::new(&schema, &table, Vec::new(), at_ms);
            let record = TableRecord { asked: true, empty_first: true, ..record };
            let attachment = record.attachment(oid.into());
            attachments.retain(|other| other.suffix != attachment.suffix);
            attachments.push(attachment);
            self.tables.insert(oid, record);
        }
        attachments
    }

    /// The tables whose copy has begun and is not over, with the rows that are to be read before it is, which may cost so many bytes.
    pub(crate) fn moved_rows(&self, bytes_max: usize) -> MovedRows {
        let unfinished = self.tables.iter().filter(|(_, record)| record.is_going_on());
        let rows = |oid: &u32| self.moved.get(oid).cloned().unwrap_or_default();
        MovedRows::new(unfinished.map(|(oid, _)| (Oid::from(*oid), rows(oid))), bytes_max)
    }

    /// The tables that are owed a copy at once.
    pub(crate) fn owed(&self) -> Vec<Oid> {
        self.tables.iter().filter(|(_, record)| record.is_owed()).map(|(oid, _)| Oid::from(*oid)).collect()
    }

    /// Whether the table is to be copied, or copied on.
    pub(crate) fn lacks(&self, table: Oid) -> bool {
        let oid = u32::from(table);
        match self.tables.get(&oid) {
            Some(record) => record.is_going_on(),
            None => !self.stream.as_ref().is_some_and(|stream| stream.not_copied.contains(&oid)),
        }
    }
}

impl StreamRecord {
    /// For a stream that has streamed these tables before.
    pub(crate) fn new(not_copied: Vec<u32>) -> Self {
        Self { version: VERSION, not_copied }
    }

    pub(crate) fn attachment(&self) -> Attachment {
        Attachment { suffix: SUFFIX.to_owned(), value: Some(json(self)) }
    }
}

impl ControlRecord {
    pub(crate) fn new(paused: bool, parallel: Option<u8>) -> Self {
        Self { version: VERSION, paused, parallel }
    }

    pub(crate) fn attachment(&self) -> Attachment {
        Attachment { suffix: CONTROL.to_owned(), value: Some(json(self)) }
    }
}

impl SignalsRecord {
    pub(crate) fn new(topic: &str, offset: i64) -> Self {
        Self { version: VERSION, topic: topic.to_owned(), offset, begun: Vec::new() }
    }

    /// In the middle of the signal at the offset, which has begun these tables.
    pub(crate) fn within(topic: &str, offset: i64, begun: Vec<String>) -> Self {
        Self { begun, ..Self::new(topic, offset) }
    }

    pub(crate) fn attachment(&self) -> Attachment {
        Attachment { suffix: SIGNALS.to_owned(), value: Some(json(self)) }
    }
}

impl MovedRecord {
    pub(crate) fn new(key: Vec<String>) -> Self {
        Self { version: VERSION, key }
    }

    pub(crate) fn attachment(&self, table: Oid, name: &str) -> Attachment {
        Attachment { suffix: moved_suffix(table, name), value: Some(json(self)) }
    }
}

/// Under what a row of a table is remembered.
pub(crate) fn moved_suffix(table: Oid, name: &str) -> String {
    format!("{SUFFIX}/{table}{MOVED}{name}")
}

impl TableRecord {
    /// For a table whose copy begins.
    pub(crate) fn new(schema: &str, table: &str, key: Vec<String>, started_at_ms: i64) -> Self {
        Self {
            version: VERSION,
            schema: schema.to_owned(),
            table: table.to_owned(),
            key,
            after: None,
            parts: Vec::new(),
            rows: 0,
            bytes: 0,
            condition: None,
            asked: false,
            at_once: false,
            shape: None,
            empty_first: false,
            was_away: false,
            started_at_ms,
            ended_at_ms: None,
            stopped_at_ms: None,
        }
    }

    /// How the table had come into the publication when it was copied, if that is known: the last word of what it was read by.
    pub(crate) fn membership(&self) -> Option<&str> {
        let rows_of_catalog = |word: &&String| word.strip_prefix(MEMBER).is_some_and(|rest| !rest.trim().is_empty());
        self.key.last().filter(rows_of_catalog).map(String::as_str)
    }

    /// The same of a table that has stayed in the publication, though in another way.
    pub(crate) fn in_publication_as(mut self, membership: &str) -> Self {
        if let Some(word) = self.key.last_mut() {
            membership.clone_into(word);
        }
        self
    }

    /// Whether rows are still to be copied.
    pub(crate) fn is_going_on(&self) -> bool {
        self.ended_at_ms.is_none() && self.stopped_at_ms.is_none()
    }

    /// Whether it is owed a copy at once: see [`AtOnce`](super::AtOnce).
    pub(crate) fn is_owed(&self) -> bool {
        self.at_once && self.is_going_on()
    }

    /// The same as its copy at once begins. It is made whatever the mode says later, since changes are left out for it.
    pub(crate) fn owed(self) -> Self {
        let Self { version, schema, table, started_at_ms, .. } = self;
        Self { version, at_once: true, asked: true, ..Self::new(&schema, &table, Vec::new(), started_at_ms) }
    }

    /// The same, with what the table is like, and how it has come into the publication.
    pub(crate) fn described(self, shape: Shape, membership: &str) -> Self {
        Self { shape: Some(Box::new(shape)), key: vec![membership.to_owned()], ..self }
    }

    /// The same at the beginning of another copy, once it was out of the publication: what its topic has of it is not to be gone on with.
    pub(crate) fn away(&self, started_at_ms: i64) -> Self {
        let anew = Self::new(&self.schema, &self.table, Vec::new(), started_at_ms);
        Self { was_away: true, empty_first: self.empty_first, ..anew }
    }

    /// The same from its first row on, once it was out of the publication while it was copied.
    pub(crate) fn put_back(&self) -> Self {
        Self { key: Vec::new(), after: None, rows: 0, bytes: 0, was_away: true, ..self.without_parts() }
    }

    /// Whether its topic is to be emptied before any of it is copied.
    pub(crate) fn empties_first(&self) -> bool {
        self.empty_first || self.was_away
    }

    /// The same once its topic is emptied, or cannot be.
    pub(crate) fn emptied(&self) -> Self {
        Self { empty_first: false, was_away: false, ..self.clone() }
    }

    /// The same after another chunk: up to `last`, the last of its rows, if it has any.
    pub(crate) fn advanced(&self, last: Option<Vec<String>>, rows: u64, bytes: u64) -> Self {
        let after = last.or_else(|| self.after.clone());
        Self { after, rows: self.rows + rows, bytes: self.bytes + bytes, ..self.clone() }
    }

    /// The same as somebody has asked for it: all rows, or those that meet a condition.
    pub(crate) fn asked_for(self, condition: Option<String>) -> Self {
        Self { condition, asked: true, ..self }
    }

    /// The same in the place of another, with what its topic still needs.
    pub(crate) fn in_the_place_of(self, other: &Self) -> Self {
        let record = Self { empty_first: other.empty_first, was_away: other.was_away, ..self };
        // What it is like is known better once its copy begins.
        if other.is_owed() { Self { shape: other.shape.clone(), ..record.owed() } } else { record }
    }

    /// The same at another place, with these parts.
    pub(super) fn at(&self, after: Option<Vec<String>>, parts: Vec<Part>) -> Self {
        Self { after, parts, ..self.clone() }
    }

    /// The same with one cursor, at the place before which all is copied.
    pub(crate) fn without_parts(&self) -> Self {
        Self { parts: Vec::new(), ..self.clone() }
    }

    /// The same, stopped by somebody.
    pub(crate) fn stopped(&self, at_ms: i64) -> Self {
        Self { stopped_at_ms: Some(at_ms), ..self.without_parts() }
    }

    /// The same once nothing is left to copy.
    pub(crate) fn ended(&self, at_ms: i64) -> Self {
        Self { ended_at_ms: Some(at_ms), shape: None, ..self.without_parts() }
    }

    /// Removes it.
    pub(crate) fn removal(table: Oid) -> Attachment {
        Attachment::removal(format!("{SUFFIX}/{table}"))
    }

    pub(crate) fn attachment(&self, table: Oid) -> Attachment {
        Attachment { suffix: format!("{SUFFIX}/{table}"), value: Some(json(self)) }
    }
}

fn json(record: &impl Serialize) -> Vec<u8> {
    // Neither maps with other than string keys nor fallible `Serialize` implementations occur in it.
    serde_json::to_vec(record).expect("a record is representable as JSON")
}

fn parse<T: for<'a> Deserialize<'a>>(suffix: &str, value: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(value).map_err(|error| corrupt(suffix, &error.to_string()))
}

fn check_version(suffix: &str, found: u32) -> Result<(), Failure> {
    if found == VERSION {
        return Ok(());
    }
    Err(corrupt(suffix, &format!("its format version is {found}, and this build reads version {VERSION}")))
}

fn corrupt(suffix: &str, found: &str) -> Failure {
    Failure::new(Code::CheckpointCorrupt, format!("the checkpoint's attachment {suffix} cannot be used: {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(ended_at_ms: Option<i64>) -> TableRecord {
        let record = TableRecord::new("public", "item", vec!["id".into()], 1_700_000_000_000);
        TableRecord { after: Some(vec!["4711".into()]), rows: 4711, ended_at_ms, ..record }
    }

    fn attachments(records: &[Attachment]) -> BTreeMap<String, Vec<u8>> {
        records.iter().map(|it| (it.suffix.clone(), it.value.clone().expect("a value"))).collect()
    }

    #[test]
    fn the_records_are_this_json() {
        // A change of this text is a change of the format: old records must stay readable.
        let json = r#"{"version":1,"schema":"public","table":"item","key":["id"],"after":["4711"],"rows":4711,"bytes":0,"started_at_ms":1700000000000}"#;
        let attachment = record(None).attachment(Oid::from(16_384));
        assert_eq!(attachment.suffix, "snapshot/16384");
        assert_eq!(String::from_utf8(attachment.value.expect("a value")).expect("text"), json);
        let attachment = StreamRecord::new(vec![7]).attachment();
        assert_eq!(attachment.suffix, "snapshot");
        assert_eq!(attachment.value.as_deref(), Some(&br#"{"version":1,"not_copied":[7]}"#[..]));
        let attachment = SignalsRecord::new("signals", 7).attachment();
        assert_eq!(attachment.suffix, "signals");
        assert_eq!(attachment.value.as_deref(), Some(&br#"{"version":1,"topic":"signals","offset":7}"#[..]));
        let within = SignalsRecord::within("signals", 6, vec!["public.item".to_owned()]).attachment();
        assert_eq!(
            within.value.as_deref(),
            Some(&br#"{"version":1,"topic":"signals","offset":6,"begun":["public.item"]}"#[..])
        );
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let stream = StreamRecord::new(vec![1, 2]);
        let written =
            [stream.attachment(), record(None).attachment(Oid::from(3)), record(Some(5)).attachment(Oid::from(4))];
        let mut held = attachments(&written);
        let moved = MovedRecord::new(vec!["9".into()]).attachment(Oid::from(3), "10-1");
        held.extend(attachments(&[moved]));
        held.insert("another".to_owned(), b"is not ours".to_vec());
        let progress = Progress::read(&held).expect("records");
        assert_eq!(progress.stream, Some(stream));
        assert_eq!(progress.tables, [(3, record(None)), (4, record(Some(5)))].into());
        assert!(progress.moved_rows(0).watch(Oid::from(3)) && !progress.moved_rows(0).watch(Oid::from(4)));
        assert!(progress.moved_rows(0).left(Oid::from(3)).is_some());
        let lacking: Vec<u32> = (1..=5).filter(|oid| progress.lacks(Oid::from(*oid))).collect();
        assert_eq!(lacking, [3, 5]);
    }

    #[test]
    fn what_begins_anew_lacks_everything_but_what_was_stopped() {
        let written = [
            StreamRecord::new(vec![1]).attachment(),
            record(None).attachment(Oid::from(3)),
            MovedRecord::new(vec!["9".into()]).attachment(Oid::from(3), "10-1"),
            record(Some(5)).attachment(Oid::from(4)),
            record(None).stopped(6).attachment(Oid::from(5)),
            ControlRecord::new(true, Some(7)).attachment(),
            SignalsRecord::new("signals", 7).attachment(),
        ];
        let mut held = attachments(&written);
        let mut progress = Progress::read(&held).expect("records");
        for Attachment { suffix, value } in progress.begin_anew() {
            match value {
                Some(value) => held.insert(suffix, value),
                None => held.remove(&suffix),
            };
        }
        assert_eq!(progress, Progress::read(&held).expect("records"), "what is known is what was written");
        let lacking: Vec<u32> = (1..=5).filter(|oid| progress.lacks(Oid::from(*oid))).collect();
        assert_eq!((lacking, progress.is_paused, progress.parallel), (vec![1, 2, 3, 4], true, Some(7)));
    }

    #[test]
    fn behind_a_gap_every_topic_is_emptied_first() {
        let tables = [(3, record(Some(5))), (4, record(None).stopped(6)), (5, record(None).owed()), (6, record(None))];
        let mut progress = Progress { tables: tables.into(), ..Progress::default() };
        let published =
            |oid: u32| (Oid::from(oid), PublishedTable { schema: "public".into(), name: format!("t{oid}") });
        let attachments = progress.begin_anew_behind_truncates(&[3, 4, 5, 7].map(published), 9);
        let mut suffixes: Vec<_> = attachments.iter().map(|it| it.suffix.as_str()).collect();
        suffixes.sort_unstable();
        assert_eq!(suffixes, ["snapshot", "snapshot/3", "snapshot/6", "snapshot/7"], "each is said once");
        assert_eq!(Progress::read(&self::attachments(&attachments)).expect("records").tables[&7], progress.tables[&7]);
        let emptied: Vec<u32> = progress.tables.iter().filter(|it| it.1.empty_first).map(|it| *it.0).collect();
        assert_eq!(emptied, [3, 6, 7], "6 is not published now, and may be again");
        let lacking: Vec<u32> = (3..=7).filter(|oid| progress.lacks(Oid::from(*oid))).collect();
        assert_eq!(lacking, [3, 5, 6, 7]);
        assert_eq!(progress.owed(), [Oid::from(5)]);
        progress.begin_anew();
        assert!(progress.tables[&3].empty_first, "that it begins anew does not empty its topic");
        progress.tables.insert(8, record(Some(5)).away(6));
        progress.tables.insert(9, TableRecord { was_away: true, ..record(Some(5)) });
        progress.begin_anew();
        assert!([8, 9].iter().all(|oid| progress.tables[oid].was_away && progress.lacks(Oid::from(*oid))));
        progress.begin_anew_behind_truncates(&[8].map(published), 9);
        assert!([8, 9].iter().all(|oid| progress.tables[oid].empty_first), "now it has to be");
        let asked = TableRecord::new("public", "t3", Vec::new(), 1);
        assert!(asked.clone().in_the_place_of(&progress.tables[&3]).empty_first);
        assert!(asked.in_the_place_of(&progress.tables[&5]).is_owed());
        assert!(progress.tables[&3].after.is_none() && progress.tables[&3].emptied().is_going_on());
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for (suffix, value) in [
            ("snapshot", &b"{"[..]),
            ("snapshot", br#"{"version":2,"not_copied":[]}"#),
            ("snapshot/x", br#"{"version":1}"#),
            ("snapshot/3", br#"{"version":1}"#),
            ("snapshots", b"{}"),
            ("snapshot/3/moved/1-1", b"{}"),
        ] {
            let held = [(suffix.to_owned(), value.to_vec())].into();
            let failure = Progress::read(&held).expect_err(suffix);
            assert_eq!(failure.code(), Code::CheckpointCorrupt, "{failure}");
        }
    }
}
