//! What events have around their rows, as JSON: the fields of the Avro records, in their order.

use crate::{
    EventContext, EventOrder, Naming,
    event::snapshot_text,
    json::{self, append},
};

/// What of `source` is the same in all events of a table, as JSON; of messages, which are of no table, both names are empty.
#[derive(Debug)]
pub(crate) struct JsonSource {
    start: Vec<u8>,
    database: Vec<u8>,
    table: Vec<u8>,
}

impl JsonSource {
    pub(crate) fn new(naming: &Naming, schema: &str, table: &str) -> Self {
        let fields = |start: &str, fields: &[(&str, &str)], end: &str| {
            let mut out = start.as_bytes().to_vec();
            for (position, (name, value)) in fields.iter().enumerate() {
                out.extend_from_slice(if position == 0 { b"\"" } else { b",\"" });
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"\":");
                json::write_string(&mut out, value);
            }
            out.extend_from_slice(end.as_bytes());
            out
        };
        let server =
            [("version", naming.version.as_str()), ("connector", "postgresql"), ("name", &naming.topic_prefix)];
        Self {
            start: fields("{", &server, ",\"ts_ms\":"),
            database: fields(",", &[("db", &naming.database)], ",\"sequence\":"),
            table: fields(",", &[("schema", schema), ("table", table)], ",\"txId\":"),
        }
    }

    /// Appends `source`.
    pub(crate) fn write(&self, context: &EventContext<'_>, out: &mut Vec<u8>) {
        let facts = &context.transaction.facts;
        let (commit_us, lsn) = (facts.commit_unix_us, u64::from(context.lsn));
        out.extend_from_slice(&self.start);
        append(out, format_args!("{},\"snapshot\":\"{}\"", commit_us.div_euclid(1000), snapshot_text(facts.snapshot)));
        out.extend_from_slice(&self.database);
        match facts.commit_lsn {
            Some(commit_lsn) => append(out, format_args!("\"[\\\"{}\\\"", u64::from(commit_lsn))),
            None => out.extend_from_slice(b"\"[null"),
        }
        append(out, format_args!(",\\\"{lsn}\\\"]\",\"ts_us\":{commit_us},\"ts_ns\":"));
        match commit_us.checked_mul(1000) {
            Some(nanos) => append(out, nanos),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(&self.table);
        match facts.xid {
            Some(xid) => append(out, xid),
            None => out.extend_from_slice(b"null"),
        }
        append(out, format_args!(",\"lsn\":{lsn},\"xmin\":null,\"origin\":"));
        match &facts.origin {
            Some((name, lsn)) => {
                json::write_string(out, name);
                append(out, format_args!(",\"origin_lsn\":{}}}", u64::from(*lsn)));
            }
            None => out.extend_from_slice(b"null,\"origin_lsn\":null}"),
        }
    }
}

/// Appends `transaction`; what has no order is of no transaction.
pub(crate) fn write_transaction(context: &EventContext<'_>, order: Option<EventOrder>, out: &mut Vec<u8>) {
    let Some(EventOrder { total, collection }) = order else {
        out.extend_from_slice(b"null");
        return;
    };
    let id = context.transaction.facts.id();
    append(out, format_args!("{{\"id\":\"{id}\",\"total_order\":{total},\"data_collection_order\":{collection}}}"));
}
