//! The row as it is now, under its key; no value where it is gone. A compacted topic of these is the table.
//!
//! What else is known of a change is in headers, as text, under the names that Debezium's `ExtractNewRecordState` gives them.
//!
//! A value that is stored out of line and was not changed is not sent by PostgreSQL. It is neither null nor known: the header
//! [`UNAVAILABLE`] lists such columns, and the row has the placeholder in their place. A column whose type has no room for the placeholder is an
//! error; under REPLICA IDENTITY FULL the value is known.

use std::{fmt::Display, io::Write, ops::Range};

use pgoutput::{Tuple, Value};

use super::{Encoder, Row};
use crate::{EncodeError, Format, json, plan::Column};

/// `c`, `u`, `d` or `t`, as in Debezium's envelope.
const OP: &str = "__op";
/// The position of the change, a number.
const LSN: &str = "__lsn";
/// When the transaction was committed, in microseconds since 1970.
const COMMIT_TIME: &str = "__source_ts_us";
/// `<xid>:<commit LSN>`
const TRANSACTION: &str = "__transaction_id";
/// The event's ordinal in its transaction.
const ORDINAL: &str = "__transaction_total_order";
/// The fields whose values were not sent, as a JSON array of their names.
const UNAVAILABLE: &str = "__unavailable";

impl Encoder<'_> {
    /// Appends an event.
    pub(super) fn upsert(
        &mut self,
        key: Option<Range<usize>>,
        op: &'static str,
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
        let facts = &context.transaction.facts;
        self.header(OP, op);
        self.header(LSN, u64::from(context.lsn));
        self.header(COMMIT_TIME, facts.commit_unix_us);
        self.header(TRANSACTION, format_args!("{}:{}", facts.xid, u64::from(facts.commit_lsn)));
        self.header(ORDINAL, self.order.total);
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

    fn header(&mut self, name: &'static str, value: impl Display) {
        let data = self.batch.data();
        let start = data.len();
        write!(data, "{value}").expect("a Vec takes all that is written to it");
        let value = start..data.len();
        self.batch.add_header(name, value);
    }
}
