//! The topic of transactions: where each begins, where it ends, and how many events it has in each table.
//!
//! These are Debezium's records with `provide.transaction.metadata` on, but for two things. Debezium gives the BEGIN and the END of one
//! transaction different ids; here both have the one that is in `transaction.id` of its events. And what is counted is what is in the
//! topics: a transaction without events has no records here either.

use std::sync::Arc;

use pgoutput::Lsn;
use serde_json::{Value, json};

use crate::{
    Naming, PlanError, RecordBatch, Schema, TransactionContext, avro,
    encode::{FRAMING_BYTES, framing},
    event::{NULL, SOME, write_optional_long},
    schema,
};

/// The topic of transactions, `{prefix}.transaction`, whose schemas are to be registered.
#[derive(Debug)]
pub struct TransactionTopic {
    topic: Arc<str>,
    key_schema: Schema,
    value_schema: Schema,
}

impl TransactionTopic {
    /// The topic of one stream.
    ///
    /// # Errors
    /// Its name is longer than Kafka allows.
    pub fn new(naming: &Naming) -> Result<Self, PlanError> {
        let topic = naming.side_topic("transaction")?;
        let (key_schema, value_schema) = (Schema::new(&key(), &topic)?, Schema::new(&value(), &topic)?);
        Ok(Self { topic: topic.into(), key_schema, value_schema })
    }

    /// Its name.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The schema of the keys, subject `{topic}-key`: the transaction's id.
    pub fn key_schema(&self) -> &Schema {
        &self.key_schema
    }

    /// The schema of the values, subject `{topic}-value`.
    pub fn value_schema(&self) -> &Schema {
        &self.value_schema
    }

    /// Takes the ids that the registry has for the schemas.
    pub fn bind(self, key_schema_id: u32, value_schema_id: u32) -> BoundTransactionTopic {
        let (key_framing, value_framing) = (framing(key_schema_id), framing(value_schema_id));
        BoundTransactionTopic { topic: self.topic, key_framing, value_framing }
    }
}

/// A [`TransactionTopic`] whose schemas are registered: it can encode.
#[derive(Debug)]
pub struct BoundTransactionTopic {
    topic: Arc<str>,
    key_framing: [u8; FRAMING_BYTES],
    value_framing: [u8; FRAMING_BYTES],
}

impl BoundTransactionTopic {
    /// Appends the BEGIN of a transaction, which belongs before its first event. `lsn` is where that event comes from.
    pub fn begin(&self, transaction: &TransactionContext, lsn: Lsn, batch: &mut RecordBatch) {
        self.record("BEGIN", transaction, lsn, batch, |out| out.extend_from_slice(&[NULL, NULL]));
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
        self.record("END", transaction, lsn, batch, |out| {
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
        });
    }

    fn record(
        &self,
        status: &str,
        transaction: &TransactionContext,
        lsn: Lsn,
        batch: &mut RecordBatch,
        write_counts: impl FnOnce(&mut Vec<u8>),
    ) {
        let data = batch.data();
        let start = data.len();
        data.extend_from_slice(&self.key_framing);
        transaction.append_id(data);
        let key = start..data.len();
        data.extend_from_slice(&self.value_framing);
        avro::write_bytes(data, status.as_bytes());
        transaction.append_id(data);
        write_counts(data);
        transaction.commit_millis.append_to(data);
        let value = key.end..data.len();
        batch.push(&self.topic, lsn, Some(key), Some(value));
    }
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
