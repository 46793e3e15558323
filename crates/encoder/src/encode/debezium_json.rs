//! Debezium's envelope in JSON, as Kafka Connect's `JsonConverter` writes it with `schemas.enable` off and `decimal.format` numeric: the fields
//! of the Avro record, in its order.
//!
//! A row is encoded in Avro first, so that a type says only once how its text is to be read.

use std::ops::Range;

use super::{Encoder, Row};
use crate::{EncodeError, EventContext, Operation, TablePlan, json::append, json_envelope::write_transaction};

impl Encoder<'_> {
    /// Appends an event.
    pub(super) fn debezium_json(
        &mut self,
        key: Option<Range<usize>>,
        operation: Operation,
        before: Row<'_>,
        after: Row<'_>,
    ) -> Result<(), EncodeError> {
        let (plan, context, order) = (self.plan, self.context, self.order());
        let mut scratch = self.batch.take_scratch();
        let data = self.batch.data();
        let start = data.len();
        data.extend_from_slice(b"{\"before\":");
        plan.write_json_row(before, context, &mut scratch, data)?;
        data.extend_from_slice(b",\"after\":");
        plan.write_json_row(after, context, &mut scratch, data)?;
        data.extend_from_slice(b",\"source\":");
        plan.json_source.write(context, data);
        data.extend_from_slice(b",\"transaction\":");
        write_transaction(context, order, data);
        let (op, unix_ns) = (operation.letter(), context.processed_unix_ns);
        let (ms, us) = (unix_ns.div_euclid(1_000_000), unix_ns.div_euclid(1000));
        append(data, format_args!(",\"op\":\"{op}\",\"ts_ms\":{ms},\"ts_us\":{us},\"ts_ns\":{unix_ns}}}"));
        let value = start..data.len();
        self.batch.put_scratch(scratch);
        plan.headers.add(operation, context, order, self.batch);
        self.batch.push(&plan.topic, context.lsn, key, Some(value));
        Ok(())
    }
}

impl TablePlan {
    /// Appends a row as a JSON object, or null.
    pub(super) fn write_json_row(
        &self,
        row: Row<'_>,
        context: &EventContext<'_>,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        scratch.clear();
        match row {
            Row::Null => {
                out.extend_from_slice(b"null");
                return Ok(());
            }
            Row::Full(row, old) => self.write_full_row(row, old, context.lsn, scratch)?,
            Row::Key(row) => self.write_key_row(row, context.lsn, scratch)?,
        }
        self.write_json(self.columns.iter(), scratch, context.lsn, out)
    }
}
