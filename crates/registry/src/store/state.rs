//! The state that a log of records makes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::record::{Malformed, MalformedRecord, Parsed, SchemaValue, parse};
use super::{AvroSchema, Level};

/// How many malformed records are kept to be told.
const MALFORMED_MAX: usize = 10;

/// Subjects, versions and ids, built by [applying](Self::apply) records in the order of the log.
#[derive(Debug, Default)]
pub struct Store {
    subjects: BTreeMap<String, Subject>,
    ids: HashMap<(String, u32), Id>,
    /// The id of a text, by context. Schemas with references or rules are not in it.
    by_text: HashMap<(String, Arc<str>), u32>,
    id_max: u32,
    level: Option<Level>,
    mode: Option<String>,
    /// By key, since a later record of the same key takes its place.
    malformed: BTreeMap<Box<[u8]>, MalformedRecord>,
    /// Whether there were more of them than are kept.
    malformed_more: bool,
    unknown: BTreeSet<String>,
}

/// A subject, which may have a level before it has versions.
#[derive(Debug, Default)]
struct Subject {
    versions: BTreeMap<u32, Version>,
    /// The largest that ever was: numbers are not used twice.
    version_max: u32,
    level: Option<Level>,
    mode: Option<String>,
}

/// A version of a subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// Its number, from 1.
    pub number: u32,
    /// The id of its schema.
    pub id: u32,
    /// Whether it was deleted, although its id is still served.
    pub deleted: bool,
    /// Its schema.
    pub definition: Arc<Definition>,
}

/// A schema as it was registered.
#[derive(Debug, PartialEq)]
pub struct Definition {
    /// Its text.
    pub text: Arc<str>,
    /// Its type; none stands for AVRO.
    pub schema_type: Option<String>,
    /// What it refers to, as the API writes it.
    pub references: Vec<serde_json::Value>,
    /// Metadata or rules belong to it, which are not kept but tell it from others of the same text.
    has_more: bool,
}

#[derive(Debug)]
struct Id {
    definition: Arc<Definition>,
    uses: BTreeSet<(String, u32)>,
}

/// What applying a record has come to, where the caller may want to tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Noted {
    /// A kind of record that this build does not know, for the first time; it changes nothing.
    UnknownKind(String),
    /// A record that cannot be used; it changes nothing.
    Malformed(MalformedRecord),
}

impl Store {
    /// Takes the next record of the log.
    pub fn apply(&mut self, offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Noted> {
        let place = key.unwrap_or_default();
        match parse(key, value).and_then(|record| self.take(record)) {
            Ok(unknown) => {
                self.malformed.remove(place);
                unknown.and_then(|kind| self.unknown.insert(kind.clone()).then_some(Noted::UnknownKind(kind)))
            }
            Err(reason) => {
                let record = MalformedRecord { offset, reason };
                if self.malformed.len() < MALFORMED_MAX {
                    self.malformed.insert(place.into(), record.clone());
                } else {
                    self.malformed_more = true;
                }
                Some(Noted::Malformed(record))
            }
        }
    }

    /// Returns the kind of the record if it is unknown.
    fn take(&mut self, record: Parsed) -> Result<Option<String>, Malformed> {
        match record {
            Parsed::Schema { subject, version, value: Some(value) } => self.set_version(subject, version, &value)?,
            Parsed::Schema { subject, version, value: None } => self.remove_version(&subject, version),
            Parsed::Level { subject: Some(subject), level } => self.subject_mut(subject).level = level,
            Parsed::Level { subject: None, level } => self.level = level,
            Parsed::Mode { subject: Some(subject), mode } => self.subject_mut(subject).mode = mode,
            Parsed::Mode { subject: None, mode } => self.mode = mode,
            Parsed::DeleteSubject { subject, version_max } => {
                if let Some(subject) = self.subjects.get_mut(&subject) {
                    subject.versions.range_mut(..=version_max).for_each(|(_, version)| version.deleted = true);
                }
            }
            Parsed::ClearSubject { subject } => {
                let numbers: Vec<u32> = self
                    .subjects
                    .get(&subject)
                    .map(|subject| subject.versions.keys().copied().collect())
                    .unwrap_or_default();
                for number in numbers {
                    self.remove_version(&subject, number);
                }
            }
            Parsed::Nothing => {}
            Parsed::Unknown { kind } => return Ok(Some(kind)),
        }
        Ok(None)
    }

    fn subject_mut(&mut self, subject: String) -> &mut Subject {
        self.subjects.entry(subject).or_default()
    }

    fn set_version(&mut self, subject: String, number: u32, value: &SchemaValue) -> Result<(), Malformed> {
        let context = context_of(&subject).to_owned();
        let definition = self.definition(&context, value);
        let key = (context.clone(), value.id);
        if self.ids.get(&key).is_some_and(|held| *held.definition != definition) {
            return Err(Malformed::IdTaken { id: value.id });
        }
        if self.version(&subject, number).is_some_and(|held| held.id != value.id) {
            // The record before it is replaced, and with it the use of its id.
            self.remove_version(&subject, number);
        }
        if definition.is_plain_avro() {
            self.by_text.entry((context, Arc::clone(&definition.text))).or_insert(value.id);
        }
        let id = self.ids.entry(key).or_insert_with(|| Id { definition: Arc::new(definition), uses: BTreeSet::new() });
        id.uses.insert((subject.clone(), number));
        let definition = Arc::clone(&id.definition);
        self.id_max = self.id_max.max(value.id);
        let subject = self.subject_mut(subject);
        subject.version_max = subject.version_max.max(number);
        subject.versions.insert(number, Version { number, id: value.id, deleted: value.deleted, definition });
        Ok(())
    }

    /// The definition of a value. One text is kept once, whoever uses it.
    fn definition(&self, context: &str, value: &SchemaValue) -> Definition {
        let held = self.ids.get(&(context.to_owned(), value.id)).map(|id| &id.definition.text);
        let text = match held {
            Some(text) if **text == *value.schema => Arc::clone(text),
            _ => Arc::from(value.schema.as_str()),
        };
        Definition {
            text,
            schema_type: value.schema_type.clone().filter(|kind| kind != "AVRO"),
            references: value.references.clone().unwrap_or_default(),
            has_more: value.metadata.is_some() || value.rule_set.is_some(),
        }
    }

    fn remove_version(&mut self, subject: &str, number: u32) {
        let Some(version) = self.subjects.get_mut(subject).and_then(|subject| subject.versions.remove(&number)) else {
            return;
        };
        let key = (context_of(subject).to_owned(), version.id);
        let Some(id) = self.ids.get_mut(&key) else { return };
        id.uses.remove(&(subject.to_owned(), number));
        if id.uses.is_empty() {
            self.ids.remove(&key);
            let text = (key.0, Arc::clone(&version.definition.text));
            if self.by_text.get(&text) == Some(&version.id) {
                self.by_text.remove(&text);
            }
        }
    }

    /// A record that could not be used, and that no later one has replaced. It is not in the state.
    pub fn malformed(&self) -> Option<&MalformedRecord> {
        self.malformed.values().min_by_key(|record| record.offset)
    }

    /// Whether every record could be used.
    pub(super) fn is_whole(&self) -> bool {
        self.malformed.is_empty() && !self.malformed_more
    }

    /// The schema with an id, in the context of a subject; of the default one without.
    pub fn schema(&self, subject: Option<&str>, id: u32) -> Option<&Arc<Definition>> {
        self.id(subject, id).map(|id| &id.definition)
    }

    /// The subjects and versions that use an id, deleted ones only if they are asked for.
    pub fn uses(&self, subject: Option<&str>, id: u32, with_deleted: bool) -> Vec<(&str, u32)> {
        let uses = self.id(subject, id).into_iter().flat_map(|id| &id.uses);
        let is_wanted = |(subject, number): &&(String, u32)| {
            with_deleted || self.version(subject, *number).is_some_and(|version| !version.deleted)
        };
        uses.filter(is_wanted).map(|(subject, number)| (subject.as_str(), *number)).collect()
    }

    fn id(&self, subject: Option<&str>, id: u32) -> Option<&Id> {
        self.ids.get(&(subject.map_or(DEFAULT_CONTEXT, context_of).to_owned(), id))
    }

    /// The subjects that have a version, in order; those whose versions are all deleted only if they are asked for.
    pub fn subjects(&self, with_deleted: bool) -> impl Iterator<Item = &str> {
        let has_one =
            move |subject: &Subject| subject.versions.values().any(|version| with_deleted || !version.deleted);
        self.subjects.iter().filter(move |(_, subject)| has_one(subject)).map(|(name, _)| name.as_str())
    }

    /// The versions of a subject in order, deleted ones only if they are asked for.
    pub fn versions(&self, subject: &str, with_deleted: bool) -> impl DoubleEndedIterator<Item = &Version> {
        let versions = self.subjects.get(subject).into_iter().flat_map(|subject| subject.versions.values());
        versions.filter(move |version| with_deleted || !version.deleted)
    }

    fn version(&self, subject: &str, number: u32) -> Option<&Version> {
        self.subjects.get(subject)?.versions.get(&number)
    }

    /// The newest version of a subject that has this schema.
    pub fn lookup(&self, subject: &str, schema: &AvroSchema, with_deleted: bool) -> Option<&Version> {
        self.versions(subject, with_deleted).rev().find(|version| version.definition.is(schema))
    }

    /// The level that a subject has of its own, or the global one without a subject.
    pub fn level(&self, subject: Option<&str>) -> Option<Level> {
        match subject {
            Some(subject) => self.subjects.get(subject)?.level,
            None => self.level,
        }
    }

    /// The level that holds for a subject.
    pub fn effective_level(&self, subject: &str) -> Level {
        self.level(Some(subject)).or(self.level).unwrap_or_default()
    }

    /// The mode that a subject has of its own, or the global one without a subject, such as `READWRITE` and `READONLY`.
    pub fn mode(&self, subject: Option<&str>) -> Option<&str> {
        match subject {
            Some(subject) => self.subjects.get(subject)?.mode.as_deref(),
            None => self.mode.as_deref(),
        }
    }

    /// Whether new versions of a subject may be registered.
    pub(super) fn is_writable(&self, subject: &str) -> bool {
        self.mode(Some(subject)).or(self.mode(None)).is_none_or(|mode| mode == "READWRITE")
    }

    /// The id of a schema in a subject's context.
    pub(super) fn id_of(&self, subject: &str, schema: &AvroSchema) -> Option<u32> {
        self.by_text.get(&(context_of(subject).to_owned(), Arc::from(schema.text()))).copied()
    }

    /// The largest id that was ever used, in any context: Karapace knows no contexts.
    pub(super) fn id_max(&self) -> u32 {
        self.id_max
    }

    /// The largest version that a subject ever had.
    pub(super) fn version_max(&self, subject: &str) -> u32 {
        self.subjects.get(subject).map_or(0, |subject| subject.version_max)
    }
}

impl Definition {
    /// An Avro schema that stands by itself.
    pub fn avro(text: &str) -> Self {
        Self { text: text.into(), schema_type: None, references: Vec::new(), has_more: false }
    }

    /// Whether it is this schema.
    fn is(&self, schema: &AvroSchema) -> bool {
        if !self.is_plain_avro() {
            return false;
        }
        // Registries other than Confluent's store texts of another form.
        *self.text == *schema.text() || AvroSchema::parse(&self.text).is_ok_and(|own| own.text() == schema.text())
    }

    fn is_plain_avro(&self) -> bool {
        self.schema_type.is_none() && self.references.is_empty() && !self.has_more
    }
}

const DEFAULT_CONTEXT: &str = ".";

/// The context of a subject, in which its ids are unique: `:.context:subject` names one, all others are in the default one.
fn context_of(subject: &str) -> &str {
    let qualified = subject.strip_prefix(':').filter(|rest| rest.starts_with('.'));
    qualified.and_then(|rest| rest.split_once(':')).map_or(DEFAULT_CONTEXT, |(context, _)| context)
}
