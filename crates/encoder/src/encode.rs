//! A change → its records: the path that every row takes.
//!
//! - here: which records a change has, and Debezium's envelope in Avro;
//! - [`dead_letter`]: what becomes of a change that cannot be written;
//! - [`held_back`]: what becomes of all changes of a table whose schemas are not accepted, and how they are written later;
//! - [`debezium_json`]: the same envelope in JSON;
//! - [`snapshot`]: a row that was there before the stream, and the keys by which it is the row of a change;
//! - [`upsert`]: the row alone, in either.

mod dead_letter;
mod debezium_json;
mod held_back;
mod snapshot;
mod upsert;

use std::ops::Range;

use pgoutput::{Delete, Insert, Lsn, OldTuple, Timestamp, Tuple, Update, Value, Xid};

use crate::{
    Change, EncodeError, EncodeErrorKind, Envelope, EventContext, EventOrder, Format, Operation, PlanError,
    RecordBatch, TablePlan, TransactionContext,
    avro::{self, Reader},
    event::{NULL, SEQUENCE_END, SOME, write_optional_long, write_transaction},
    json,
    plan::{Column, Presence},
};

use dead_letter::{Dead, Reason};

pub(crate) use dead_letter::DeadLetters;
pub use held_back::{HeldBack, HeldChange, HeldError, HeldShape};

/// On the delete of a key change: the key that the row has now.
const NEW_KEY_HEADER: &str = "__debezium.newkey";
/// On the create of a key change: the key that the row had.
const OLD_KEY_HEADER: &str = "__debezium.oldkey";
/// Confluent's framing: a zero, then the schema's id.
pub(crate) const FRAMING_BYTES: usize = 5;
/// Of one schema.
pub(crate) type Framing = [u8; FRAMING_BYTES];

/// A [`TablePlan`] whose schemas are registered: it can encode.
#[derive(Debug)]
pub struct BoundPlan {
    pub(crate) plan: TablePlan,
    key_framing: Framing,
    value_framing: Framing,
}

impl BoundPlan {
    pub(crate) fn new(plan: TablePlan, key_schema_id: Option<u32>, value_schema_id: Option<u32>) -> Self {
        let framing = |id: Option<u32>| framing(id.unwrap_or_default());
        Self { plan, key_framing: framing(key_schema_id), value_framing: framing(value_schema_id) }
    }

    /// What was bound.
    pub fn plan(&self) -> &TablePlan {
        &self.plan
    }

    /// Appends the records of one change to a batch, and counts its events in `order`. On error neither is touched.
    ///
    /// With [`Unrepresentable::DeadLetter`](crate::Unrepresentable::DeadLetter), a change with a value that cannot be written is no error, but a record
    /// in another topic, which counts as one event.
    ///
    /// | change | records |
    /// |---|---|
    /// | Insert | an event with `op` `c` |
    /// | Update | an event with `op` `u`; `before` is filled if the whole old row was sent |
    /// | Update of the key | an event with `op` `d` for the old key, a tombstone for it, an event with `op` `c` for the new one |
    /// | Delete | an event with `op` `d`, a tombstone |
    /// | Truncate | an event with `op` `t` and no key, for each partition |
    ///
    /// With [`Envelope::Upsert`] the events are the same, as headers; the value is the new row, or none, and there are no tombstones beside.
    ///
    /// Of an event that is [skipped](crate::EncodeOptions::skipped) there is no record, and it counts like any other.
    ///
    /// Where the plan [holds back](TablePlan::hold_back), the order advances as if it did not, and there is one record in another topic.
    #[inline]
    pub fn encode(
        &self,
        change: Change<'_>,
        context: &EventContext<'_>,
        order: &mut EventOrder,
        batch: &mut RecordBatch,
    ) -> Result<Encoded, EncodeError> {
        if self.plan.held_back.is_some() {
            return self.hold_back(change, context, order, batch);
        }
        self.encode_now(change, context, order, batch)
    }

    #[inline]
    fn encode_now(
        &self,
        change: Change<'_>,
        context: &EventContext<'_>,
        order: &mut EventOrder,
        batch: &mut RecordBatch,
    ) -> Result<Encoded, EncodeError> {
        if self.plan.unfit.is_some() {
            return self.bury_unfit(&change.into(), context, Some(order), batch);
        }
        let (mut advanced, records) = (*order, batch.len());
        let result = batch.append(|batch| {
            let mut encoder = self.encoder(context, Some(&mut advanced), batch);
            match change {
                Change::Insert(insert) => encoder.insert(insert),
                Change::Update(update) => encoder.update(update),
                Change::Delete(delete) => encoder.delete(delete),
                Change::Truncate => encoder.truncate(),
            }
        });
        match result {
            Ok(()) => {
                *order = advanced;
                Ok(if batch.len() == records { Encoded::Skipped } else { Encoded::Events })
            }
            Err(error) => self.bury(&change.into(), context, Some(order), error, batch),
        }
    }

    #[inline]
    fn encoder<'a>(
        &'a self,
        context: &'a EventContext<'a>,
        order: Option<&'a mut EventOrder>,
        batch: &'a mut RecordBatch,
    ) -> Encoder<'a> {
        Encoder { bound: self, plan: &self.plan, context, order, batch }
    }

    /// Of a table that cannot be written.
    #[cold]
    fn bury_unfit(
        &self,
        dead: &Dead<'_>,
        context: &EventContext<'_>,
        order: Option<&mut EventOrder>,
        batch: &mut RecordBatch,
    ) -> Result<Encoded, EncodeError> {
        if self.plan.skipped.contains(dead.operation()) {
            order.map(EventOrder::advance);
            return Ok(Encoded::Skipped);
        }
        self.bury(dead, context, order, self.plan.error(EncodeErrorKind::UnfitTable, None, context.lsn), batch)
    }

    #[cold]
    fn bury(
        &self,
        dead: &Dead<'_>,
        context: &EventContext<'_>,
        order: Option<&mut EventOrder>,
        error: EncodeError,
        batch: &mut RecordBatch,
    ) -> Result<Encoded, EncodeError> {
        let Some(letters) = self.plan.dead_letters.as_ref().filter(|_| error.kind().is_about_the_value()) else {
            return Err(error);
        };
        let ordinal = order.map(EventOrder::advance);
        let words = self.plan.unfit.as_ref().map_or_else(|| error.to_string(), PlanError::to_string);
        let reason = Reason { code: error.kind().as_str(), error: &words };
        letters.append(dead, context, (ordinal, b""), &reason, &self.plan.columns, batch);
        Ok(Encoded::DeadLetter(error))
    }

    /// How many events a change has, without encoding its row: by how much [`encode`](Self::encode) would advance the order. For what a
    /// checkpoint covers already. `lsn` is for the error.
    pub fn count_events(&self, change: Change<'_>, lsn: Lsn) -> Result<u64, EncodeError> {
        if self.plan.dead_letters.is_some() {
            // What cannot be written is one event, whatever it is, and only trying tells.
            let transaction = TransactionContext::from_parts(Xid::from(0), lsn, Timestamp::from(0));
            let context = EventContext { transaction: &transaction, lsn, processed_unix_ns: 0 };
            let mut order = EventOrder::default();
            let _either = self.encode(change, &context, &mut order, &mut RecordBatch::new())?;
            return Ok(order.total);
        }
        let Change::Update(Update { old: OldTuple::Key(old) | OldTuple::Full(old), new, .. }) = change else {
            return Ok(1);
        };
        if self.plan.key_columns.is_empty() || self.plan.same_key_text(old, new) {
            return Ok(1);
        }
        let (mut old_key, mut new_key) = (Vec::new(), Vec::new());
        self.plan.write_key(old, None, lsn, &mut old_key)?;
        self.plan.write_key(new, Some(old), lsn, &mut new_key)?;
        Ok(if old_key == new_key { 1 } else { 2 })
    }
}

/// What became of a change.
#[derive(Debug)]
pub enum Encoded {
    /// Its events, or those of them that are not skipped.
    Events,
    /// Nothing: all of its events are skipped, though they are counted.
    Skipped,
    /// A record in the topic of dead letters, for this reason.
    DeadLetter(EncodeError),
    /// A record in the topic of dead letters, of which the events can be made later.
    HeldBack,
}

/// One change, or one row of a snapshot, being encoded.
struct Encoder<'a> {
    bound: &'a BoundPlan,
    plan: &'a TablePlan,
    context: &'a EventContext<'a>,
    /// None for a row of a snapshot, which has no place in a transaction.
    order: Option<&'a mut EventOrder>,
    batch: &'a mut RecordBatch,
}

/// A row in the envelope.
#[derive(Clone, Copy)]
enum Row<'a> {
    Null,
    /// A whole row, and where what it does not have can be taken from.
    Full(&'a Tuple, Option<&'a Tuple>),
    /// The columns of the key, of which nothing else is known.
    Key(&'a Tuple),
}

impl Encoder<'_> {
    #[inline]
    fn insert(&mut self, insert: &Insert) -> Result<(), EncodeError> {
        if self.skips(Operation::Create) {
            return Ok(());
        }
        let key = self.key(&insert.new, None)?;
        self.event(key, Operation::Create, Row::Null, Row::Full(&insert.new, None))
    }

    fn update(&mut self, update: &Update) -> Result<(), EncodeError> {
        let (old, before) = match &update.old {
            OldTuple::Absent => (None, Row::Null),
            // A key is not a row: nothing is known of its other columns, so it is no `before`.
            OldTuple::Key(old) => (Some(old), Row::Null),
            OldTuple::Full(old) => (Some(old), Row::Full(old, None)),
        };
        let after = Row::Full(&update.new, old);
        let Some(old) =
            old.filter(|old| !self.plan.key_columns.is_empty() && !self.plan.same_key_text(old, &update.new))
        else {
            if self.skips(Operation::Update) {
                return Ok(());
            }
            let key = self.key(&update.new, old)?;
            return self.event(key, Operation::Update, before, after);
        };
        let old_key = self.key(old, None)?;
        let new_key = self.key(&update.new, Some(old))?;
        // Different text can be one key, such as 1.0 and 1.00.
        if self.bytes(old_key.as_ref()) == self.bytes(new_key.as_ref()) {
            if self.skips(Operation::Update) {
                return Ok(());
            }
            return self.event(new_key, Operation::Update, before, after);
        }
        let before = if matches!(before, Row::Null) { Row::Key(old) } else { before };
        self.key_change(old_key, new_key, before, after)
    }

    #[cold]
    fn key_change(
        &mut self,
        old_key: Option<Range<usize>>,
        new_key: Option<Range<usize>>,
        before: Row<'_>,
        after: Row<'_>,
    ) -> Result<(), EncodeError> {
        let new_key_json = self.key_json(new_key.as_ref())?;
        let old_key_json = self.key_json(old_key.as_ref())?;
        if !self.skips(Operation::Delete) {
            self.add_header(NEW_KEY_HEADER, new_key_json.as_ref());
            self.event(old_key.clone(), Operation::Delete, before, Row::Null)?;
            if self.plan.tombstones {
                self.add_header(NEW_KEY_HEADER, new_key_json.as_ref());
                self.tombstone(old_key);
            }
        }
        if self.skips(Operation::Create) {
            return Ok(());
        }
        self.add_header(OLD_KEY_HEADER, old_key_json.as_ref());
        self.event(new_key, Operation::Create, Row::Null, after)
    }

    fn delete(&mut self, delete: &Delete) -> Result<(), EncodeError> {
        if self.skips(Operation::Delete) {
            return Ok(());
        }
        let (old, before) = match &delete.old {
            OldTuple::Absent => return Err(self.plan.error(EncodeErrorKind::MissingOldRow, None, self.context.lsn)),
            OldTuple::Key(old) => (old, Row::Key(old)),
            OldTuple::Full(old) => (old, Row::Full(old, None)),
        };
        let key = self.key(old, None)?;
        self.event(key.clone(), Operation::Delete, before, Row::Null)?;
        if self.plan.tombstones {
            self.tombstone(key);
        }
        Ok(())
    }

    fn truncate(&mut self) -> Result<(), EncodeError> {
        if self.skips(Operation::Truncate) {
            return Ok(());
        }
        if self.plan.envelope == Envelope::Upsert {
            return Err(self.plan.error(EncodeErrorKind::Truncated, None, self.context.lsn));
        }
        self.event(None, Operation::Truncate, Row::Null, Row::Null)?;
        // Order is that of a partition. Who reads the rows of one must come to this in its place among them.
        self.batch.is_for_all_partitions();
        Ok(())
    }

    /// Whether an event is not to be written; it has its place in the order then.
    #[inline]
    fn skips(&mut self, operation: Operation) -> bool {
        let skips = self.plan.skipped.contains(operation);
        if skips {
            self.count();
        }
        skips
    }

    #[inline]
    fn count(&mut self) {
        if let Some(order) = &mut self.order {
            order.advance();
        }
    }

    #[inline]
    fn order(&self) -> Option<EventOrder> {
        self.order.as_deref().copied()
    }

    /// Appends the key of a row with its framing, and returns where it is; none for a table without a key.
    #[inline]
    fn key(&mut self, row: &Tuple, old: Option<&Tuple>) -> Result<Option<Range<usize>>, EncodeError> {
        if self.plan.key_columns.is_empty() {
            return Ok(None);
        }
        if self.plan.format == Format::Json {
            return self.key_as_json(row, old).map(Some);
        }
        let data = self.batch.data();
        let start = data.len();
        data.extend_from_slice(&self.bound.key_framing);
        self.plan.write_key(row, old, self.context.lsn, data)?;
        Ok(Some(start..data.len()))
    }

    fn key_as_json(&mut self, row: &Tuple, old: Option<&Tuple>) -> Result<Range<usize>, EncodeError> {
        let mut scratch = self.batch.take_scratch();
        self.plan.write_key(row, old, self.context.lsn, &mut scratch)?;
        let data = self.batch.data();
        let start = data.len();
        self.plan.write_key_json(&scratch, self.context.lsn, data)?;
        let key = start..data.len();
        self.batch.put_scratch(scratch);
        Ok(key)
    }

    /// Appends an event.
    #[inline]
    fn event(
        &mut self,
        key: Option<Range<usize>>,
        operation: Operation,
        before: Row<'_>,
        after: Row<'_>,
    ) -> Result<(), EncodeError> {
        self.count();
        let order = self.order();
        match (self.plan.envelope, self.plan.format) {
            (Envelope::Debezium, Format::Avro) => {}
            (Envelope::Debezium, Format::Json) => return self.debezium_json(key, operation, before, after),
            (Envelope::Upsert, _) => return self.upsert(key, operation, after),
        }
        let data = self.batch.data();
        let start = data.len();
        data.extend_from_slice(&self.bound.value_framing);
        self.plan.write_row(before, self.context.lsn, data)?;
        self.plan.write_row(after, self.context.lsn, data)?;
        self.plan.write_source(self.context, data);
        write_transaction(self.context, order, data);
        avro::write_bytes(data, operation.letter().as_bytes());
        write_processed(self.context.processed_unix_ns, data);
        let value = start..data.len();
        self.plan.headers.add(operation, self.context, order, self.batch);
        self.batch.push(&self.plan.topic, self.context.lsn, key, Some(value));
        Ok(())
    }

    /// Appends a record without a value, which lets Kafka forget the key.
    fn tombstone(&mut self, key: Option<Range<usize>>) {
        self.plan.headers.add(Operation::Delete, self.context, self.order(), self.batch);
        self.batch.push(&self.plan.topic, self.context.lsn, key, None);
    }

    fn bytes(&self, range: Option<&Range<usize>>) -> Option<&[u8]> {
        Some(&self.batch.appended()[range?.clone()])
    }

    /// Appends a key as JSON, if it is not that already, and returns where it is.
    fn key_json(&mut self, key: Option<&Range<usize>>) -> Result<Option<Range<usize>>, EncodeError> {
        let Some(bytes) = self.bytes(key) else { return Ok(None) };
        if self.plan.format == Format::Json {
            return Ok(key.cloned());
        }
        let key = bytes[FRAMING_BYTES..].to_vec();
        let data = self.batch.data();
        let start = data.len();
        self.plan.write_key_json(&key, self.context.lsn, data)?;
        Ok(Some(start..data.len()))
    }

    fn add_header(&mut self, name: &'static str, value: Option<&Range<usize>>) {
        if let Some(value) = value {
            self.batch.add_header(name, value.clone());
        }
    }
}

impl TablePlan {
    /// Whether all columns of the key have the same text, which makes them the same key.
    fn same_key_text(&self, old: &Tuple, new: &Tuple) -> bool {
        self.key_columns.iter().all(|index| match (old.iter().nth(*index), new.iter().nth(*index)) {
            (Some(old), Some(new)) => old == new || new == Value::UnchangedToast,
            _ => false,
        })
    }

    /// Appends the fields of a key.
    #[inline]
    fn write_key(&self, row: &Tuple, old: Option<&Tuple>, lsn: Lsn, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.check_columns(row, lsn)?;
        for index in &self.key_columns {
            let column = &self.columns[*index];
            let mut value = row.iter().nth(*index);
            if value == Some(Value::UnchangedToast) {
                value = old.and_then(|old| old.iter().nth(*index));
            }
            match value {
                Some(Value::Text(text)) => column.write_text(text, out),
                Some(Value::Null) => column.write_null(out),
                Some(Value::Binary(_)) => Err(EncodeErrorKind::BinaryValue),
                // A placeholder would be a key that other rows have too.
                Some(Value::UnchangedToast) | None => Err(EncodeErrorKind::UnavailableKey),
            }
            .map_err(|kind| self.error(kind, Some(column), lsn))?;
        }
        Ok(())
    }

    /// Appends a `["null", Value]`.
    #[inline]
    fn write_row(&self, row: Row<'_>, lsn: Lsn, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match row {
            Row::Null => {
                out.push(NULL);
                Ok(())
            }
            Row::Full(row, old) => {
                out.push(SOME);
                self.write_full_row(row, old, lsn, out)
            }
            Row::Key(row) => {
                out.push(SOME);
                self.write_key_row(row, lsn, out)
            }
        }
    }

    #[inline]
    fn write_full_row(&self, row: &Tuple, old: Option<&Tuple>, lsn: Lsn, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.check_columns(row, lsn)?;
        for ((index, column), value) in self.columns.iter().enumerate().zip(row) {
            match value {
                Value::Text(text) => column.write_text(text, out),
                Value::Null => column.write_null(out),
                Value::UnchangedToast => self.write_unchanged(column, old.and_then(|old| old.iter().nth(index)), out),
                Value::Binary(_) => Err(EncodeErrorKind::BinaryValue),
            }
            .map_err(|kind| self.error(kind, Some(column), lsn))?;
        }
        Ok(())
    }

    /// Appends a value that was not sent with the new row: the old row's, or what stands for it. A key that was sent for an old row has nulls
    /// for all that is not in it, which say nothing.
    #[cold]
    fn write_unchanged(
        &self,
        column: &Column,
        old: Option<Value<'_>>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeErrorKind> {
        match old {
            Some(Value::Text(text)) => column.write_text(text, out),
            Some(Value::Binary(_)) => Err(EncodeErrorKind::BinaryValue),
            Some(Value::Null | Value::UnchangedToast) | None => column.write_unavailable(&self.unavailable_value, out),
        }
    }

    /// Appends a row of which only the key is known: the other columns are null, or what a column that cannot be null has by default.
    fn write_key_row(&self, row: &Tuple, lsn: Lsn, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.check_columns(row, lsn)?;
        for (column, value) in self.columns.iter().zip(row) {
            match value {
                Value::Text(text) => {
                    column.write_text(text, out).map_err(|kind| self.error(kind, Some(column), lsn))?;
                }
                Value::Null => out.extend_from_slice(&column.unknown),
                Value::UnchangedToast => return Err(self.error(EncodeErrorKind::UnavailableKey, Some(column), lsn)),
                Value::Binary(_) => return Err(self.error(EncodeErrorKind::BinaryValue, Some(column), lsn)),
            }
        }
        Ok(())
    }

    /// Appends `source`.
    #[inline]
    fn write_source(&self, context: &EventContext<'_>, out: &mut Vec<u8>) {
        let transaction = context.transaction;
        let lsn = u64::from(context.lsn);
        let mut buffer = itoa::Buffer::new();
        let lsn_text = buffer.format(lsn).as_bytes();
        out.extend_from_slice(&self.source_start);
        transaction.commit_millis.append_to(out);
        transaction.snapshot.append_to(out);
        out.extend_from_slice(&self.source_database);
        out.push(SOME);
        avro::write_length(out, transaction.sequence_start.len() + lsn_text.len() + SEQUENCE_END.len());
        transaction.sequence_start.append_to(out);
        out.extend_from_slice(lsn_text);
        transaction.sequence_end.append_to(out);
        out.extend_from_slice(&self.source_table);
        transaction.xid.append_to(out);
        write_optional_long(out, Some(lsn.cast_signed()));
        out.extend_from_slice(&transaction.origin);
    }

    /// Appends a key's fields, which this plan has encoded, as a JSON object.
    fn write_key_json(&self, key: &[u8], lsn: Lsn, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.write_json(self.key_columns.iter().map(|index| &self.columns[*index]), key, lsn, out)
    }

    /// Appends fields, which this plan has encoded, as a JSON object.
    fn write_json<'a>(
        &'a self,
        columns: impl Iterator<Item = &'a Column>,
        encoded: &[u8],
        lsn: Lsn,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let mut reader = Reader::new(encoded);
        out.push(b'{');
        let written = columns.filter(|column| column.presence != Presence::Omitted);
        for (position, column) in written.enumerate() {
            if position > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&column.json_name);
            let null = match column.presence {
                Presence::Required | Presence::Omitted => false,
                Presence::Optional { null, .. } => reader.take(1) == Some(&[null]),
            };
            if null {
                out.extend_from_slice(b"null");
            } else {
                // It would be a bug of the codec, or text that is not UTF-8.
                json::write_value(&column.physical, &mut reader, out)
                    .ok_or_else(|| self.error(EncodeErrorKind::MalformedText, Some(column), lsn))?;
            }
        }
        out.push(b'}');
        Ok(())
    }

    #[inline]
    fn check_columns(&self, row: &Tuple, lsn: Lsn) -> Result<(), EncodeError> {
        if row.len() == self.columns.len() { Ok(()) } else { Err(self.error(EncodeErrorKind::ColumnCount, None, lsn)) }
    }

    #[cold]
    fn error(&self, kind: EncodeErrorKind, column: Option<&Column>, lsn: Lsn) -> EncodeError {
        EncodeError::new(kind, &self.table, column.map(|column| column.name.as_str()), lsn)
    }
}

/// Appends `ts_ms`, `ts_us` and `ts_ns`.
#[inline]
fn write_processed(unix_ns: i64, out: &mut Vec<u8>) {
    write_optional_long(out, Some(unix_ns.div_euclid(1_000_000)));
    write_optional_long(out, Some(unix_ns.div_euclid(1000)));
    write_optional_long(out, Some(unix_ns));
}

/// The framing of keys and values of a topic; none for one without schemas.
pub(crate) fn bound_framing(
    topic: &str,
    has_schemas: bool,
    ids: Option<(u32, u32)>,
) -> Result<Option<(Framing, Framing)>, PlanError> {
    if ids.is_some() == has_schemas {
        Ok(ids.map(|(key, value)| (framing(key), framing(value))))
    } else {
        Err(PlanError::SchemaIds { table: topic.to_owned(), has_key: has_schemas })
    }
}

fn framing(schema_id: u32) -> Framing {
    let [a, b, c, d] = schema_id.to_be_bytes();
    [0, a, b, c, d]
}
