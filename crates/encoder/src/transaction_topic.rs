//! The topic of transactions: where each begins, where it ends, and how many events it has in each table.
//!
//! These are Debezium's records with `provide.transaction.metadata` on, but for two things. Debezium gives the BEGIN and the END of one
//! transaction different ids; here both have the one that is in `transaction.id` of its events. And a transaction without events has no
//! records here either. What is counted are the numbers that events have: one that is skipped, or is a dead letter, has its number too.

use std::sync::Arc;

use pgoutput::Lsn;
use serde_json::{Value, json};

use crate::{
    Format, Naming, PlanError, RecordBatch, Schema, TransactionContext, avro,
    encode::{Framing, bound_framing},
    event::{NULL, SOME, write_optional_long},
    json::{self, append},
    schema,
};

/// The topic of transactions, `{prefix}.transaction`, whose schemas are to be registered.
#[derive(Debug)]
pub struct TransactionTopic {
    topic: Arc<str>,
    schemas: Option<(Schema, Schema)>,
}

impl TransactionTopic {
    /// The topic of one stream.
    ///
    /// # Errors
    /// Its name is longer than Kafka allows.
    pub fn new(naming: &Naming, format: Format) -> Result<Self, PlanError> {
        let topic = naming.side_topic("transaction")?;
        let schemas = match format {
            Format::Avro => Some((Schema::new(&key(), &topic)?, Schema::new(&value(), &topic)?)),
            Format::Json => None,
        };
        Ok(Self { topic: topic.into(), schemas })
    }

    /// Its name.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The schemas of keys, subject `{topic}-key`, and of values, subject `{topic}-value`; none for JSON.
    pub fn schemas(&self) -> Option<(&Schema, &Schema)> {
        self.schemas.as_ref().map(|(key, value)| (key, value))
    }

    /// Takes the ids that the registry has for the schemas of keys and values, if they have schemas.
    ///
    /// # Errors
    /// There are ids without schemas, or schemas without ids.
    pub fn bind(self, ids: Option<(u32, u32)>) -> Result<BoundTransactionTopic, PlanError> {
        let framing = bound_framing(&self.topic, self.schemas.is_some(), ids)?;
        Ok(BoundTransactionTopic { topic: self.topic, framing })
    }
}

/// A [`TransactionTopic`] whose schemas are registered: it can encode.
#[derive(Debug)]
pub struct BoundTransactionTopic {
    topic: Arc<str>,
    /// Of keys and values; none for JSON.
    framing: Option<(Framing, Framing)>,
}

/// The number of all events of a transaction, and those of each table.
type Counts<C> = (u64, C);

impl BoundTransactionTopic {
    /// Appends the BEGIN of a transaction, which belongs before its first event. `lsn` is where that event comes from.
    pub fn begin(&self, transaction: &TransactionContext, lsn: Lsn, batch: &mut RecordBatch) {
        self.record("BEGIN", transaction, lsn, None::<Counts<std::iter::Empty<_>>>, batch);
    }

    /// Appends the END of a transaction, which belongs after its last event: how many events it has, and how many of them in each
    /// table, as `schema.table`. `lsn` is where the commit record is.
    pub fn end<'a>(
        &self,
        transaction: &TransactionContext,
        lsn: Lsn,
        events: u64,
        collections: impl ExactSizeIterator<Item = (&'a str, u64)>,
        batch: &mut RecordBatch,
    ) {
        self.record("END", transaction, lsn, Some((events, collections)), batch);
    }

    fn record<'a, C: ExactSizeIterator<Item = (&'a str, u64)>>(
        &self,
        status: &str,
        transaction: &TransactionContext,
        lsn: Lsn,
        counts: Option<Counts<C>>,
        batch: &mut RecordBatch,
    ) {
        let data = batch.data();
        let start = data.len();
        let key_end = match &self.framing {
            Some(framing) => write_avro(framing, status, transaction, counts, data),
            None => write_json(status, transaction, counts, data),
        };
        let value = key_end..data.len();
        batch.push(&self.topic, lsn, Some(start..key_end), Some(value));
    }
}

/// Appends key and value, and returns where the one ends and the other begins.
fn write_avro<'a, C: ExactSizeIterator<Item = (&'a str, u64)>>(
    (key_framing, value_framing): &(Framing, Framing),
    status: &str,
    transaction: &TransactionContext,
    counts: Option<Counts<C>>,
    out: &mut Vec<u8>,
) -> usize {
    out.extend_from_slice(key_framing);
    transaction.append_id(out);
    let key_end = out.len();
    out.extend_from_slice(value_framing);
    avro::write_bytes(out, status.as_bytes());
    transaction.append_id(out);
    match counts {
        None => out.extend_from_slice(&[NULL, NULL]),
        Some((events, collections)) => {
            write_optional_long(out, Some(events.cast_signed()));
            out.push(SOME);
            // One block with all items, and none after it. A block without items would be the end itself.
            if collections.len() > 0 {
                avro::write_length(out, collections.len());
            }
            for (name, events) in collections {
                out.push(SOME);
                avro::write_bytes(out, name.as_bytes());
                avro::write_long(out, events.cast_signed());
            }
            avro::write_length(out, 0);
        }
    }
    transaction.commit_millis.append_to(out);
    key_end
}

/// The same.
fn write_json<'a, C: ExactSizeIterator<Item = (&'a str, u64)>>(
    status: &str,
    transaction: &TransactionContext,
    counts: Option<Counts<C>>,
    out: &mut Vec<u8>,
) -> usize {
    let facts = &transaction.facts;
    let id = facts.id();
    append(out, format_args!("{{\"id\":\"{id}\"}}"));
    let key_end = out.len();
    append(out, format_args!("{{\"status\":\"{status}\",\"id\":\"{id}\","));
    match counts {
        None => out.extend_from_slice(b"\"event_count\":null,\"data_collections\":null"),
        Some((events, collections)) => {
            append(out, format_args!("\"event_count\":{events},\"data_collections\":["));
            for (position, (name, events)) in collections.enumerate() {
                let open: &[u8] = if position == 0 { b"{" } else { b",{" };
                out.extend_from_slice(open);
                out.extend_from_slice(b"\"data_collection\":");
                json::write_string(out, name);
                append(out, format_args!(",\"event_count\":{events}}}"));
            }
            out.push(b']');
        }
    }
    append(out, format_args!(",\"ts_ms\":{}}}", facts.commit_unix_us.div_euclid(1000)));
    key_end
}

const NAMESPACE: &str = "io.debezium.connector.common";

fn key() -> Value {
    json!({
        "type": "record",
        "name": "TransactionMetadataKey",
        "namespace": NAMESPACE,
        "fields": [{ "name": "id", "type": "string" }],
        "connect.version": 1,
        "connect.name": format!("{NAMESPACE}.TransactionMetadataKey"),
    })
}

fn value() -> Value {
    let collection = json!({
        "type": "record",
        "name": "collection",
        "namespace": "event",
        "fields": [{ "name": "data_collection", "type": "string" }, { "name": "event_count", "type": "long" }],
        "connect.version": 1,
        "connect.name": "event.collection",
    });
    json!({
        "type": "record",
        "name": "TransactionMetadataValue",
        "namespace": NAMESPACE,
        "fields": [
            { "name": "status", "type": "string" },
            { "name": "id", "type": "string" },
            schema::optional("event_count", &"long".into()),
            schema::optional("data_collections", &json!({ "type": "array", "items": ["null", collection] })),
            { "name": "ts_ms", "type": "long" },
        ],
        "connect.version": 1,
        "connect.name": format!("{NAMESPACE}.TransactionMetadataValue"),
    })
}
