//! Debezium's envelope in JSON, as Kafka Connect's `JsonConverter` writes it with `schemas.enable` off and `decimal.format` numeric: the fields
//! of the Avro record, in its order.
//!
//! A row is encoded in Avro first, so that a type says only once how its text is to be read.

use std::{io::Write, ops::Range};

use super::{Encoder, Row};
use crate::{EncodeError, EventContext, Operation, TablePlan, json};

impl Encoder<'_> {
    /// Appends an event.
    pub(super) fn debezium_json(
        &mut self,
        key: Option<Range<usize>>,
        operation: Operation,
        before: Row<'_>,
        after: Row<'_>,
    ) -> Result<(), EncodeError> {
        let (plan, context, order) = (self.plan, self.context, *self.order);
        let mut scratch = self.batch.take_scratch();
        let data = self.batch.data();
        let start = data.len();
        data.extend_from_slice(b"{\"before\":");
        plan.write_json_row(before, context, &mut scratch, data)?;
        data.extend_from_slice(b",\"after\":");
        plan.write_json_row(after, context, &mut scratch, data)?;
        data.extend_from_slice(b",\"source\":");
        plan.write_json_source(context, data);
        let facts = &context.transaction.facts;
        let op = operation.letter();
        let (xid, commit_lsn) = (facts.xid, u64::from(facts.commit_lsn));
        let (total, collection, unix_ns) = (order.total, order.collection, context.processed_unix_ns);
        let (ms, us) = (unix_ns.div_euclid(1_000_000), unix_ns.div_euclid(1000));
        append(
            data,
            format_args!(
                ",\"transaction\":{{\"id\":\"{xid}:{commit_lsn}\",\"total_order\":{total},\"data_collection_order\":{collection}}},\
                 \"op\":\"{op}\",\"ts_ms\":{ms},\"ts_us\":{us},\"ts_ns\":{unix_ns}}}"
            ),
        );
        let value = start..data.len();
        self.batch.put_scratch(scratch);
        plan.headers.add(operation, context, self.order, self.batch);
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

    fn write_json_source(&self, context: &EventContext<'_>, out: &mut Vec<u8>) {
        let facts = &context.transaction.facts;
        let (commit_us, commit_lsn, lsn) = (facts.commit_unix_us, u64::from(facts.commit_lsn), u64::from(context.lsn));
        out.extend_from_slice(&self.json_source.start);
        append(out, commit_us.div_euclid(1000));
        out.extend_from_slice(&self.json_source.database);
        append(out, format_args!("\"[\\\"{commit_lsn}\\\",\\\"{lsn}\\\"]\",\"ts_us\":{commit_us},\"ts_ns\":"));
        match commit_us.checked_mul(1000) {
            Some(nanos) => append(out, nanos),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(&self.json_source.table);
        append(out, format_args!("{},\"lsn\":{lsn},\"xmin\":null,\"origin\":", u32::from(facts.xid)));
        match &facts.origin {
            Some((name, lsn)) => {
                json::write_string(out, name);
                append(out, format_args!(",\"origin_lsn\":{}}}", u64::from(*lsn)));
            }
            None => out.extend_from_slice(b"null,\"origin_lsn\":null}"),
        }
    }
}

fn append(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("a Vec takes all that is written to it");
}
