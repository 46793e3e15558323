//! The row as it is now, under its key; no value where it is gone. A compacted topic of these is the table.
//!
//! What else is known of a change is in headers, [`EncodeOptions::headers`](crate::EncodeOptions::headers).
//!
//! A TRUNCATE has no record: a topic has no way to say it to those who read it as a table. It is an error unless truncations are skipped.
//!
//! A row that has got another key is a deletion and a new row, with the headers that Debezium's envelope has for it: without the old key nobody
//! could find what was not sent of the new row.
//!
//! A value that is stored out of line and was not changed is not sent by PostgreSQL. It is neither null nor known: the header
//! [`UNAVAILABLE`] lists such columns, and the row has the placeholder in their place. A column whose type has no room for the placeholder is an
//! error; under REPLICA IDENTITY FULL the value is known.

use std::ops::Range;

use pgoutput::{Tuple, Value};

use super::{Encoder, Row};
use crate::{
    EncodeError, Format, Operation, json,
    plan::{Column, Presence},
};

/// The fields whose values were not sent, as a JSON array of their names.
const UNAVAILABLE: &str = "__unavailable";

impl Encoder<'_> {
    /// Appends an event.
    pub(super) fn upsert(
        &mut self,
        key: Option<Range<usize>>,
        operation: Operation,
        after: Row<'_>,
    ) -> Result<(), EncodeError> {
        let (plan, context) = (self.plan, self.context);
        let value = match after {
            Row::Full(row, old) => {
                self.unavailable(row, old);
                Some(self.upserted_row(after)?)
            }
            Row::Null | Row::Key(_) => None,
        };
        plan.headers.add(operation, context, self.order(), self.batch);
        self.batch.push(&plan.topic, context.lsn, key, value);
        Ok(())
    }

    fn upserted_row(&mut self, row: Row<'_>) -> Result<Range<usize>, EncodeError> {
        let (plan, context) = (self.plan, self.context);
        if plan.format == Format::Json {
            let mut scratch = self.batch.take_scratch();
            let data = self.batch.data();
            let start = data.len();
            plan.write_json_row(row, context, &mut scratch, data)?;
            let value = start..data.len();
            self.batch.put_scratch(scratch);
            return Ok(value);
        }
        let data = self.batch.data();
        let start = data.len();
        data.extend_from_slice(&self.bound.value_framing);
        if let Row::Full(row, old) = row {
            plan.write_full_row(row, old, context.lsn, data)?;
        }
        Ok(start..data.len())
    }

    /// Adds the header that lists the columns whose values were not sent, if there are any.
    fn unavailable(&mut self, row: &Tuple, old: Option<&Tuple>) {
        let is_known = |index: usize| old.is_some_and(|old| matches!(old.iter().nth(index), Some(Value::Text(_))));
        let columns = self.plan.columns.iter().zip(row).enumerate();
        let mut unavailable = columns
            .filter(|(index, (_, value))| *value == Value::UnchangedToast && !is_known(*index))
            .map(|(_, (column, _))| column)
            .filter(|column| column.presence != Presence::Omitted)
            .peekable();
        if unavailable.peek().is_none() {
            return;
        }
        let names: Vec<&Column> = unavailable.collect();
        let data = self.batch.data();
        let start = data.len();
        for (position, column) in names.iter().enumerate() {
            data.push(if position == 0 { b'[' } else { b',' });
            json::write_string(data, &column.field_name);
        }
        data.push(b']');
        let value = start..data.len();
        self.batch.add_header(UNAVAILABLE, value);
    }
}
