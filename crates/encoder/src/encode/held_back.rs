//! Changes that are held back while the schemas of their table are not accepted, and made into events later.
//!
//! Such a change is counted as if it were encoded: its plan is compiled and tried, though its schemas have no ids. So each event has the
//! identity, the commit's LSN and its ordinal, that it would have had, those of other tables have theirs, and a checkpoint inside the transaction
//! means the same whether the table is held back in the life that reads it or not. What is written is a dead letter with the code
//! [`CODE`], and with all that encoding it takes:
//!
//! ```json
//! {"version":1,"schema":"public","table":"item","op":"u","code":"registry_incompatible","error":"..","xid":750,..,"ordinal":3,
//!  "events":2,"table_ordinal":1,"origin":{"name":"..","lsn":"0/1"},"replica_identity":"default",
//!  "columns":[{"name":"id","type_oid":23,"type_modifier":-1,"key":true}],
//!  "oid":16384,"names":[["public","item"]],"certain":true,"rules":["none","mask:8c1f0a2b3d4e5f60","exclude"],
//!  "facts":{"primary_key":["id"],"columns":[..]},"old":..,"new":..}
//! ```
//!
//! `ordinal` and `table_ordinal` are those of the first of its `events`. A letter should not be much larger than the record that it stands for, which
//! Kafka might not take, and the stream would stop at it. So its values are as short as JSON has them: a value of `bytea` is
//! `{"bytea":".."}`, in base64, and any other is `{"base64":".."}` where that is shorter than the text with its escapes; and why the registry
//! refuses the schema, which can be long, is not in each. Of a column that is masked the letter has what the mask makes of a value,
//! which is what a record has too, and likewise of its default; of one that is left out it has nothing. So whoever cannot know a value from the topic cannot know it from the
//! letters, and the events can be made all the same, unless the configuration shows more by then than it did.

use std::str::FromStr;

use pgoutput::{Delete, Insert, Lsn, Oid, OldTuple, Relation, RelationColumn, Timestamp, Tuple, Update, Value, Xid};
use serde::{Deserialize, de::IgnoredAny};
use thiserror::Error;

use super::dead_letter::{IDENTITIES, Reason, Shown, identity_name};
use crate::{
    BoundPlan, Change, ColumnRule, DeadLetters, EncodeError, EncodeErrorKind, EncodeOptions, Encoded, EventContext,
    EventOrder, Naming, PlanError, RecordBatch, TableFacts, TablePlan, TransactionContext, Unrepresentable, avro,
    base64, defaults, json,
    naming::{checked_topic, dead_letter_topic},
    plan::{Column, schema_of},
    schema::{AvroType, Physical},
    types::Codec,
};

/// Tells such dead letters from those of values that cannot be written.
const CODE: &str = "registry_incompatible";
/// What whoever reads one is told.
const ERROR: &str = "the registry refuses the schema of the table, which is in quarantine: pgsluice check says why";
/// The type of bytes, which are written in hexadecimal digits behind this.
const BYTEA: u32 = 17;
const HEX: &str = "\\x";

/// What letters of a table are made from.
#[derive(Debug, Clone, Copy)]
pub struct HeldBack<'a> {
    /// What the plan was compiled from.
    pub relation: &'a Relation,
    /// The same.
    pub facts: &'a TableFacts,
    /// The same.
    pub options: &'a EncodeOptions,
    /// Schema and name of the table and of those that it is a partition of, for whoever chooses the options again.
    pub names: &'a [(String, String)],
    /// Whether these are all.
    pub is_certain: bool,
}

impl TablePlan {
    /// The topic of letters of the table: that of its dead letters.
    ///
    /// # Errors
    /// It would have no name that Kafka takes.
    pub fn letters_topic(&self) -> Result<String, PlanError> {
        checked_topic(&dead_letter_topic(&self.topic))
    }

    /// The plan under which all changes of the table are held back, as letters in the topic of its dead letters.
    ///
    /// # Errors
    /// That topic would have no name that Kafka takes.
    pub fn hold_back(mut self, held: &HeldBack<'_>) -> Result<BoundPlan, PlanError> {
        let HeldBack { relation, facts, options, names, is_certain } = held;
        let rules = relation.columns.iter().map(|column| Rule::of(options.columns.get(&column.name)));
        let rules: Vec<Rule> = rules.collect();
        let mut more = format!(",\"oid\":{},\"names\":", u32::from(relation.id)).into_bytes();
        json::append(&mut more, serde_json::json!(names));
        json::append(&mut more, format_args!(",\"certain\":{is_certain},\"rules\":"));
        json::append(&mut more, serde_json::json!(rules.iter().map(Rule::text).collect::<Vec<_>>()));
        more.extend_from_slice(b",\"facts\":");
        json::append(&mut more, serde_json::json!(self.shown_facts(relation, facts, &rules)));
        let shown = relation.columns.iter().zip(&rules).map(|(column, rule)| rule.shown(column)).collect();
        let topic = self.letters_topic()?;
        let letters = DeadLetters::with(relation, schema_of(relation), topic, shown, &more);
        self.held_back = Some(letters);
        Ok(BoundPlan::new(self, None, None))
    }

    /// What may be told of the table: a default is as much to be hidden as a value.
    fn shown_facts(&self, relation: &Relation, facts: &TableFacts, rules: &[Rule]) -> TableFacts {
        let shown = |((column, rule), planned): ((&RelationColumn, &Rule), &Column)| {
            let mut shown = facts.column(&column.name)?.clone();
            match rule {
                Rule::None => {}
                Rule::Mask(_) => {
                    shown.default = shown.default.and_then(|it| defaults::masked(&it, |text| planned.masked(text)));
                }
                Rule::Exclude => return None,
            }
            Some(shown)
        };
        let columns = relation.columns.iter().zip(rules).zip(&self.columns).filter_map(shown).collect();
        TableFacts { columns, primary_key: facts.primary_key.clone() }
    }
}

impl BoundPlan {
    /// Whether changes are held back, and nothing is written to the topic.
    pub fn holds_back(&self) -> bool {
        self.plan.held_back.is_some()
    }

    #[cold]
    pub(super) fn hold_back(
        &self,
        change: Change<'_>,
        context: &EventContext<'_>,
        order: &mut EventOrder,
        batch: &mut RecordBatch,
    ) -> Result<Encoded, EncodeError> {
        let (before, mut after, mut records) = (*order, *order, RecordBatch::new());
        if let Encoded::DeadLetter(_) = self.encode_now(change, context, &mut after, &mut records)? {
            // It is none that could be written later.
            return self.encode_now(change, context, order, batch);
        }
        *order = after;
        let Some(letters) = self.plan.held_back.as_ref().filter(|_| !records.is_empty()) else {
            return Ok(Encoded::Skipped);
        };
        let reason = Reason { code: CODE, error: ERROR };
        let more = place(context.transaction, before, after);
        letters.append(&change.into(), context, (Some(before.total + 1), &more), &reason, &self.plan.columns, batch);
        Ok(Encoded::HeldBack)
    }
}

/// What a letter says of its place besides.
fn place(transaction: &TransactionContext, before: EventOrder, after: EventOrder) -> Vec<u8> {
    let (events, table_ordinal) = (after.total - before.total, before.collection + 1);
    let mut more = format!(",\"events\":{events},\"table_ordinal\":{table_ordinal}").into_bytes();
    if let Some((name, lsn)) = &transaction.facts.origin {
        more.extend_from_slice(b",\"origin\":{\"name\":");
        json::write_string(&mut more, name);
        json::append(&mut more, format_args!(",\"lsn\":\"{lsn}\"}}"));
    }
    more
}

impl Column {
    /// What a mask makes of a value; none if it cannot.
    pub(super) fn masked(&self, text: &[u8]) -> Option<String> {
        let mut written = Vec::new();
        self.codec.encode(text, &mut written).ok()?;
        let text = avro::Reader::new(&written).bytes()?;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// What a rule did to a column when the letter was written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
enum Rule {
    None,
    /// By a mask with this [fingerprint](Mask::fingerprint): what another would make of the value is not known.
    Mask(String),
    Exclude,
}

/// How a mask begins in a letter.
const MASK: &str = "mask:";

impl TryFrom<String> for Rule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match (text.as_str(), text.strip_prefix(MASK)) {
            ("none", _) => Ok(Self::None),
            ("exclude", _) => Ok(Self::Exclude),
            (_, Some(fingerprint)) => Ok(Self::Mask(fingerprint.to_owned())),
            _ => Err(format!("{text:?} is no rule")),
        }
    }
}

impl Rule {
    fn of(rule: Option<&ColumnRule>) -> Self {
        match rule {
            None => Self::None,
            Some(ColumnRule::Mask(mask)) => Self::Mask(mask.fingerprint()),
            Some(ColumnRule::Exclude) => Self::Exclude,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Mask(fingerprint) => format!("{MASK}{fingerprint}"),
            Self::Exclude => "exclude".to_owned(),
        }
    }

    fn shown(&self, column: &RelationColumn) -> Shown {
        match self {
            Self::None if u32::from(column.type_oid) == BYTEA => Shown::Bytes,
            Self::None => Shown::Shortest,
            Self::Mask(_) => Shown::Masked,
            Self::Exclude => Shown::Nothing,
        }
    }
}

/// A change that was held back, read from its letter.
#[derive(Debug)]
pub struct HeldChange {
    shape: HeldShape,
    transaction: TransactionContext,
    lsn: Lsn,
    /// Before its first event.
    order: EventOrder,
    /// How many events it has.
    events: u64,
    row: Row,
}

/// What is the same for changes of one state of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldShape {
    /// The table as it was.
    pub relation: Relation,
    /// What the catalog said of it.
    pub facts: TableFacts,
    /// As in [`HeldBack::names`].
    pub names: Vec<(String, String)>,
    /// As in [`HeldBack::is_certain`].
    pub is_certain: bool,
    rules: Vec<Rule>,
}

#[derive(Debug)]
enum Row {
    Insert(Insert),
    Update(Update),
    Delete(Delete),
    Truncate,
}

/// A change that was held back cannot be made into its events.
#[derive(Debug, Error)]
pub enum HeldError {
    /// The record is not what was written.
    #[error("it is no change that was held back: {0}")]
    Malformed(String),
    /// The configuration shows more of a column than the letters have.
    #[error(
        "column {column:?} was {was} when its changes were held back, and the configuration does not say so any more: the values are not \
         known; have it {was} until they are released"
    )]
    Hidden {
        /// The column.
        column: String,
        /// What the rule did.
        was: &'static str,
    },
    /// Another number of events comes of it than was left room for.
    #[error(
        "{events} events come of it and {recorded} were counted: the key of the table was chosen anew; choose it as it was until they are released"
    )]
    EventCount {
        /// As it was counted.
        recorded: u64,
        /// As it is.
        events: u64,
    },
    /// Its table cannot be described.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl HeldShape {
    /// The plan for such changes, with these facts and options, in which what was masked is not masked again.
    ///
    /// # Errors
    /// See [`HeldError`].
    pub fn compile(
        &self,
        facts: &TableFacts,
        naming: &Naming,
        options: &EncodeOptions,
    ) -> Result<TablePlan, HeldError> {
        let columns = || self.relation.columns.iter().zip(&self.rules);
        for (column, rule) in columns() {
            let now = Rule::of(options.columns.get(&column.name));
            let was = match rule {
                Rule::Mask(_) if now != *rule => "masked in another way, or at all,",
                Rule::Exclude if now != *rule => "left out",
                _ => continue,
            };
            return Err(HeldError::Hidden { column: column.name.clone(), was });
        }
        // What could be written then and cannot be now is for somebody to decide, and not for the topic that it comes from.
        let options = EncodeOptions { unrepresentable: Unrepresentable::Stop, ..options.clone() };
        let mut plan = TablePlan::compile(&self.relation, facts, naming, &options)?;
        for (column, (_, rule)) in plan.columns.iter_mut().zip(columns()) {
            if matches!(rule, Rule::Mask(_)) {
                column.codec = Box::new(Verbatim);
            }
        }
        Ok(plan)
    }
}

impl HeldChange {
    /// Reads a dead letter; none if it is one of another kind.
    ///
    /// # Errors
    /// It is of this kind, and not as it was written.
    pub fn read(value: &[u8]) -> Result<Option<Self>, HeldError> {
        let malformed = |error: serde_json::Error| HeldError::Malformed(error.to_string());
        let Kind { version, code } = serde_json::from_slice(value).map_err(malformed)?;
        if code != CODE {
            return Ok(None);
        }
        if version != super::dead_letter::VERSION {
            return Err(HeldError::Malformed(format!("its version is {version}")));
        }
        serde_json::from_slice::<Letter>(value).map_err(malformed)?.into_change().map(Some)
    }

    /// What its plan is compiled from.
    pub fn shape(&self) -> &HeldShape {
        &self.shape
    }

    /// Where its first event is in the source's history: its commit and its ordinal.
    pub fn identity(&self) -> (Lsn, u64) {
        // What is held back was streamed, and has one.
        (self.transaction.facts.commit_lsn.unwrap_or(Lsn::INVALID), self.order.total + 1)
    }

    /// Appends its records to a batch. On error nothing is.
    ///
    /// # Errors
    /// See [`HeldError`].
    pub fn encode(&self, plan: &BoundPlan, processed_unix_ns: i64, batch: &mut RecordBatch) -> Result<(), HeldError> {
        let change = match &self.row {
            Row::Insert(insert) => Change::Insert(insert),
            Row::Update(update) => Change::Update(update),
            Row::Delete(delete) => Change::Delete(delete),
            Row::Truncate => Change::Truncate,
        };
        let context = EventContext { transaction: &self.transaction, lsn: self.lsn, processed_unix_ns };
        let mut order = self.order;
        batch.append(|batch| {
            plan.encode(change, &context, &mut order, batch)?;
            let events = order.total - self.order.total;
            if events == self.events { Ok(()) } else { Err(HeldError::EventCount { recorded: self.events, events }) }
        })
    }
}

/// The codec of a column whose values are masked already.
#[derive(Debug)]
struct Verbatim;

impl Codec for Verbatim {
    fn avro_type(&self) -> AvroType {
        AvroType::plain(Physical::String)
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        avro::write_bytes(out, text);
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_length(out, 0);
    }

    fn write_unavailable(&self, placeholder: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        avro::write_bytes(out, placeholder);
        Ok(())
    }
}

#[derive(Deserialize)]
struct Kind {
    version: u32,
    code: String,
}

#[derive(Deserialize)]
struct Letter {
    schema: String,
    table: String,
    op: String,
    xid: u32,
    commit_lsn: String,
    commit_ts_us: i64,
    lsn: String,
    ordinal: u64,
    events: u64,
    table_ordinal: u64,
    origin: Option<Origin>,
    replica_identity: String,
    columns: Vec<LetterColumn>,
    oid: u32,
    names: Vec<(String, String)>,
    certain: bool,
    rules: Vec<Rule>,
    facts: TableFacts,
    old: Option<OldRow>,
    new: Option<Vec<Option<Held>>>,
}

#[derive(Deserialize)]
struct Origin {
    name: String,
    lsn: String,
}

#[derive(Deserialize)]
struct LetterColumn {
    name: String,
    type_oid: u32,
    type_modifier: i32,
    key: bool,
}

#[derive(Deserialize)]
struct OldRow {
    kind: String,
    values: Vec<Option<Held>>,
}

/// A value that is not null.
#[derive(Deserialize)]
#[serde(untagged)]
enum Held {
    Text(String),
    Other(Other),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Other {
    UnchangedToast(IgnoredAny),
    Base64(String),
    Bytea(String),
    Hidden(IgnoredAny),
}

impl Letter {
    fn into_change(self) -> Result<HeldChange, HeldError> {
        let malformed = |what: &str| HeldError::Malformed(what.to_owned());
        let identity = IDENTITIES.into_iter().find(|identity| identity_name(*identity) == self.replica_identity);
        let column = |column: LetterColumn| RelationColumn {
            is_key: column.key,
            name: column.name,
            type_oid: Oid::from(column.type_oid),
            type_modifier: column.type_modifier,
        };
        let relation = Relation {
            xid: None,
            id: Oid::from(self.oid),
            schema: self.schema,
            name: self.table,
            replica_identity: identity.ok_or_else(|| malformed("its replica identity"))?,
            columns: self.columns.into_iter().map(column).collect(),
        };
        if self.rules.len() != relation.columns.len() {
            return Err(malformed("its rules are not those of its columns"));
        }
        let commit_time = Timestamp::from_unix_micros(self.commit_ts_us);
        let mut transaction = TransactionContext::from_parts(Xid::from(self.xid), lsn(&self.commit_lsn)?, commit_time);
        if let Some(origin) = self.origin {
            transaction.set_origin(&origin.name, lsn(&origin.lsn)?);
        }
        let before = |ordinal: u64| ordinal.checked_sub(1).ok_or_else(|| malformed("its ordinal"));
        let old = match self.old {
            None => OldTuple::Absent,
            Some(OldRow { kind, values }) if kind == "key" => OldTuple::Key(tuple(&values, &self.rules)?),
            Some(OldRow { kind, values }) if kind == "full" => OldTuple::Full(tuple(&values, &self.rules)?),
            Some(_) => return Err(malformed("its old row")),
        };
        let new = self.new.map(|values| tuple(&values, &self.rules)).transpose()?;
        let row = match (self.op.as_str(), new) {
            ("c", Some(new)) => Row::Insert(Insert { xid: None, relation: relation.id, new }),
            ("u", Some(new)) => Row::Update(Update { xid: None, relation: relation.id, old, new }),
            ("d", None) => Row::Delete(Delete { xid: None, relation: relation.id, old }),
            ("t", None) => Row::Truncate,
            _ => return Err(malformed("its operation and its rows")),
        };
        Ok(HeldChange {
            lsn: lsn(&self.lsn)?,
            order: EventOrder { total: before(self.ordinal)?, collection: before(self.table_ordinal)? },
            events: self.events,
            row,
            transaction,
            shape: HeldShape {
                facts: self.facts,
                relation,
                names: self.names,
                is_certain: self.certain,
                rules: self.rules,
            },
        })
    }
}

/// What PostgreSQL writes for bytes.
fn hexadecimal(bytes: &[u8]) -> Vec<u8> {
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
    let digits = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]);
    HEX.bytes().chain(digits).collect()
}

/// The bytes of which PostgreSQL writes this; none if it is anything else, as with another `bytea_output`.
pub(super) fn bytes_of(text: &[u8]) -> Option<Vec<u8>> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.strip_prefix(HEX.as_bytes())?.as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?)).collect()
}

fn lsn(text: &str) -> Result<Lsn, HeldError> {
    Lsn::from_str(text).map_err(|error| HeldError::Malformed(error.to_string()))
}

fn tuple(values: &[Option<Held>], rules: &[Rule]) -> Result<Tuple, HeldError> {
    let malformed = |error: &dyn std::fmt::Display| HeldError::Malformed(error.to_string());
    let mut decoded = Vec::new();
    for (value, rule) in values.iter().zip(rules) {
        decoded.push(match value {
            Some(Held::Other(Other::Base64(text))) => {
                base64::read(base64::STANDARD, text).ok_or_else(|| malformed(&"its base64"))?
            }
            Some(Held::Other(Other::Bytea(text))) => {
                let bytes = base64::read(base64::STANDARD, text).ok_or_else(|| malformed(&"its base64"))?;
                hexadecimal(&bytes)
            }
            Some(Held::Other(Other::Hidden(_))) if *rule != Rule::Exclude => {
                return Err(malformed(&"a value is hidden"));
            }
            _ => Vec::new(),
        });
    }
    let values = values.iter().zip(&decoded).map(|(value, decoded)| match value {
        // Of a column that is left out no value is asked for.
        None | Some(Held::Other(Other::Hidden(_))) => Value::Null,
        Some(Held::Text(text)) => Value::Text(text.as_bytes()),
        Some(Held::Other(Other::UnchangedToast(_))) => Value::UnchangedToast,
        Some(Held::Other(Other::Base64(_) | Other::Bytea(_))) => Value::Text(decoded),
    });
    Tuple::from_values(values).map_err(|error| malformed(&error))
}
