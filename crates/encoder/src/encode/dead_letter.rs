//! A change that cannot be written as it should be, as it came: raw, with the reason, as JSON.
//!
//! ```json
//! {"version":1,"schema":"public","table":"item","op":"u","code":"not_a_number","error":"cannot encode a change of ...",
//!  "xid":750,"commit_lsn":"0/1A2B3C4","commit_ts_us":1700000000000001,"lsn":"0/1A2B300","ordinal":3,"replica_identity":"default",
//!  "columns":[{"name":"id","type_oid":23,"type_modifier":-1,"key":true},{"name":"v","type_oid":1700,"type_modifier":-1,"key":false}],
//!  "old":{"kind":"key","values":["1",null]},"new":["1","NaN"]}
//! ```
//!
//! A row of a snapshot, `"op":"r"`, has no `commit_lsn` and no `ordinal`; its `lsn` and `commit_ts_us` are those of the snapshot.
//!
//! A value is PostgreSQL's text, or null; `{"unchanged_toast":true}` where it was not sent; `{"base64":".."}` where it is not UTF-8; and
//! `{"hidden":true}` where a [`ColumnRule`](crate::ColumnRule) leaves the column out or hides what it holds, since a raw value would tell. Who reads
//! the topic can write the change again, or have it written once there is room for it.
//!
//! Changes that are [held back](super::held_back) have the same form and more.

use std::{fmt, sync::Arc};

use pgoutput::{OldTuple, Relation, ReplicaIdentity, Tuple, Value};

use super::held_back::bytes_of;
use crate::{
    Change, ColumnRule, EncodeOptions, EventContext, Operation, RecordBatch, base64,
    json::{self, append},
    plan::Column,
};

/// The version of the record's format.
pub(super) const VERSION: u32 = 1;

/// Where such changes of one table go.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    pub(crate) topic: Arc<str>,
    /// What is the same in all of them.
    start: Vec<u8>,
    columns: Vec<u8>,
    shown: Vec<Shown>,
}

/// What is shown of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    AsItIs,
    Nothing,
    /// As it is, in base64 if that is shorter.
    Shortest,
    /// The bytes that its text stands for.
    Bytes,
    /// What the column's codec makes of it, which is a string.
    Masked,
}

/// Why a change is a dead letter.
pub(super) struct Reason<'a> {
    pub(super) code: &'a str,
    pub(super) error: &'a str,
}

/// What could not be written.
pub(super) struct Dead<'a> {
    operation: Operation,
    old: &'a OldTuple,
    new: Option<&'a Tuple>,
}

impl<'a> Dead<'a> {
    /// What was done to the row.
    pub(super) fn operation(&self) -> Operation {
        self.operation
    }

    /// A row of a snapshot.
    pub(super) fn read(row: &'a Tuple) -> Self {
        Self { operation: Operation::Read, old: &OldTuple::Absent, new: Some(row) }
    }
}

impl<'a> From<Change<'a>> for Dead<'a> {
    fn from(change: Change<'a>) -> Self {
        let (operation, old, new) = match change {
            Change::Insert(insert) => (Operation::Create, &OldTuple::Absent, Some(&insert.new)),
            Change::Update(update) => (Operation::Update, &update.old, Some(&update.new)),
            Change::Delete(delete) => (Operation::Delete, &delete.old, None),
            Change::Truncate => (Operation::Truncate, &OldTuple::Absent, None),
        };
        Self { operation, old, new }
    }
}

impl DeadLetters {
    /// Values that a rule hides are not shown.
    pub(crate) fn new(relation: &Relation, schema: &str, options: &EncodeOptions, topic: String) -> Self {
        let shown = |rule: Option<&ColumnRule>| rule.map_or(Shown::AsItIs, |_| Shown::Nothing);
        let shown = relation.columns.iter().map(|column| shown(options.columns.get(&column.name))).collect();
        Self::with(relation, schema, topic, shown, b"")
    }

    /// `more` is what all of them have besides, behind the columns.
    pub(super) fn with(relation: &Relation, schema: &str, topic: String, shown: Vec<Shown>, more: &[u8]) -> Self {
        let mut start = format!("{{\"version\":{VERSION},\"schema\":").into_bytes();
        json::write_string(&mut start, schema);
        start.extend_from_slice(b",\"table\":");
        json::write_string(&mut start, &relation.name);
        let identity = identity_name(relation.replica_identity);
        let mut columns = format!(",\"replica_identity\":\"{identity}\",\"columns\":[").into_bytes();
        for (position, column) in relation.columns.iter().enumerate() {
            columns.extend_from_slice(if position == 0 { b"{\"name\":" } else { b",{\"name\":" });
            json::write_string(&mut columns, &column.name);
            let (oid, modifier, key) = (u32::from(column.type_oid), column.type_modifier, column.is_key);
            let rest = format!(",\"type_oid\":{oid},\"type_modifier\":{modifier},\"key\":{key}}}");
            columns.extend_from_slice(rest.as_bytes());
        }
        columns.push(b']');
        columns.extend_from_slice(more);
        Self { topic: topic.into(), start, columns, shown }
    }

    /// Appends a record without a key: all of a table are in one partition, in order. `plan` is the plan's columns; `more` is what this
    /// one has besides, behind its place.
    pub(super) fn append(
        &self,
        dead: &Dead<'_>,
        context: &EventContext<'_>,
        (ordinal, more): (Option<u64>, &[u8]),
        reason: &Reason<'_>,
        plan: &[Column],
        batch: &mut RecordBatch,
    ) {
        let facts = &context.transaction.facts;
        let data = batch.data();
        let start = data.len();
        data.extend_from_slice(&self.start);
        data.extend_from_slice(b",\"op\":\"");
        data.extend_from_slice(dead.operation.letter().as_bytes());
        data.extend_from_slice(b"\",\"code\":\"");
        data.extend_from_slice(reason.code.as_bytes());
        data.extend_from_slice(b"\",\"error\":");
        json::write_string(data, reason.error);
        let commit_lsn = facts.commit_lsn.map(|lsn| format!("\"{lsn}\""));
        append(data, format_args!(",\"xid\":{},\"commit_lsn\":{}", OrNull(facts.xid), OrNull(commit_lsn)));
        append(data, format_args!(",\"commit_ts_us\":{},\"lsn\":\"{}\"", facts.commit_unix_us, context.lsn));
        append(data, format_args!(",\"ordinal\":{}", OrNull(ordinal)));
        data.extend_from_slice(more);
        data.extend_from_slice(&self.columns);
        data.extend_from_slice(b",\"old\":");
        match dead.old {
            OldTuple::Absent => data.extend_from_slice(b"null"),
            OldTuple::Key(old) => self.old_row("key", old, plan, data),
            OldTuple::Full(old) => self.old_row("full", old, plan, data),
        }
        data.extend_from_slice(b",\"new\":");
        match dead.new {
            None => data.extend_from_slice(b"null"),
            Some(new) => self.row(new, plan, data),
        }
        data.push(b'}');
        let value = start..data.len();
        batch.push(&self.topic, context.lsn, None, Some(value));
    }

    fn old_row(&self, kind: &str, row: &Tuple, plan: &[Column], out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"kind\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"values\":");
        self.row(row, plan, out);
        out.push(b'}');
    }

    fn row(&self, row: &Tuple, plan: &[Column], out: &mut Vec<u8>) {
        out.push(b'[');
        for (position, value) in row.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            let bytes = match value {
                Value::Null => {
                    out.extend_from_slice(b"null");
                    continue;
                }
                Value::UnchangedToast => {
                    out.extend_from_slice(b"{\"unchanged_toast\":true}");
                    continue;
                }
                Value::Text(bytes) | Value::Binary(bytes) => bytes,
            };
            let masked = match self.shown.get(position) {
                Some(Shown::AsItIs) => {
                    write_value(bytes, out);
                    continue;
                }
                Some(Shown::Shortest) => {
                    write_shortest(bytes, out);
                    continue;
                }
                Some(Shown::Bytes) => {
                    match bytes_of(bytes) {
                        Some(bytes) => write_base64("bytea", &bytes, out),
                        None => write_shortest(bytes, out),
                    }
                    continue;
                }
                Some(Shown::Masked) => plan.get(position).and_then(|column| column.masked(bytes)),
                Some(Shown::Nothing) | None => None,
            };
            match masked {
                Some(text) => write_shortest(text.as_bytes(), out),
                None => out.extend_from_slice(b"{\"hidden\":true}"),
            }
        }
        out.push(b']');
    }
}

fn write_value(bytes: &[u8], out: &mut Vec<u8>) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        json::write_string(out, text);
    } else {
        write_base64("base64", bytes, out);
    }
}

fn write_shortest(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    write_value(bytes, out);
    // A character can take six to be escaped.
    if out.len() - start > "{\"base64\":\"\"}".len() + base64::length(bytes.len()) {
        out.truncate(start);
        write_base64("base64", bytes, out);
    }
}

fn write_base64(name: &str, bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    base64::write(base64::STANDARD, bytes, out);
    out.extend_from_slice(b"\"}");
}

/// A value in JSON, if there is one.
struct OrNull<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrNull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("null"),
        }
    }
}

/// All of them.
pub(super) const IDENTITIES: [ReplicaIdentity; 4] =
    [ReplicaIdentity::Default, ReplicaIdentity::Nothing, ReplicaIdentity::Full, ReplicaIdentity::Index];

pub(super) const fn identity_name(identity: ReplicaIdentity) -> &'static str {
    match identity {
        ReplicaIdentity::Default => "default",
        ReplicaIdentity::Nothing => "nothing",
        ReplicaIdentity::Full => "full",
        ReplicaIdentity::Index => "index",
    }
}
