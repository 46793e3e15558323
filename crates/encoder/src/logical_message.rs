//! The topic of logical decoding messages: what applications write to the log with `pg_logical_emit_message`.
//!
//! These are Debezium's records. A message of a transaction is an event of it like any change, and counts in its order. One outside of any
//! transaction has no commit: its identity is the end of its record in the log, which is `source.lsn` and both parts of
//! `source.sequence`; its time is when the server sent it, where Debezium has the time of whatever committed last.

use std::sync::Arc;

use pgoutput::{LogicalMessage, Timestamp};
use serde_json::{Value, json};

use crate::{
    EventContext, EventOrder, Format, Naming, PlanError, RecordBatch, Schema, TransactionContext, avro,
    encode::{Framing, bound_framing},
    event::{SEQUENCE_END, SOME, write_optional_long, write_transaction},
    json::{self, append},
    json_envelope::{self, JsonSource},
    schema,
};

/// The topic of messages, `{prefix}.message`, whose schemas are to be registered.
#[derive(Debug)]
pub struct MessageTopic {
    topic: Arc<str>,
    /// `source` up to the time.
    source_start: Vec<u8>,
    /// `source.db`
    source_database: Vec<u8>,
    json_source: JsonSource,
    schemas: Option<(Schema, Schema)>,
}

impl MessageTopic {
    /// What its events are counted under in the END of a transaction. A table has its schema's name before its own.
    pub const COLLECTION: &'static str = "message";

    /// The topic of one stream.
    ///
    /// # Errors
    /// Its name is longer than Kafka allows.
    pub fn new(naming: &Naming, format: Format) -> Result<Self, PlanError> {
        let topic = naming.side_topic("message")?;
        let schemas = match format {
            Format::Avro => Some((Schema::new(&key(), &topic)?, Schema::new(&value(), &topic)?)),
            Format::Json => None,
        };
        let (mut source_start, mut source_database) = (Vec::new(), Vec::new());
        for text in [naming.version.as_str(), "postgresql", &naming.topic_prefix] {
            avro::write_bytes(&mut source_start, text.as_bytes());
        }
        avro::write_bytes(&mut source_database, naming.database.as_bytes());
        Ok(Self {
            topic: topic.into(),
            source_start,
            source_database,
            json_source: JsonSource::new(naming, "", ""),
            schemas,
        })
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
    pub fn bind(self, ids: Option<(u32, u32)>) -> Result<BoundMessageTopic, PlanError> {
        let framing = bound_framing(&self.topic, self.schemas.is_some(), ids)?;
        Ok(BoundMessageTopic { framing, plan: self })
    }
}

/// A [`MessageTopic`] whose schemas are registered: it can encode.
#[derive(Debug)]
pub struct BoundMessageTopic {
    plan: MessageTopic,
    /// Of keys and values; none for JSON.
    framing: Option<(Framing, Framing)>,
}

impl BoundMessageTopic {
    /// Appends a message of a transaction, which counts as one event: of the transaction, and of the messages in it.
    pub fn encode(
        &self,
        message: &LogicalMessage,
        context: &EventContext<'_>,
        order: &mut EventOrder,
        batch: &mut RecordBatch,
    ) {
        order.total += 1;
        order.collection += 1;
        self.record(message, context, Some(*order), batch);
    }

    /// Appends a message outside of any transaction, which the server sent at this time. `processed_unix_ns` as in [`EventContext`].
    pub fn encode_alone(
        &self,
        message: &LogicalMessage,
        sent_at: Timestamp,
        processed_unix_ns: i64,
        batch: &mut RecordBatch,
    ) {
        let transaction = &TransactionContext::outside(message.lsn, sent_at);
        self.record(message, &EventContext { transaction, lsn: message.lsn, processed_unix_ns }, None, batch);
    }

    fn record(
        &self,
        message: &LogicalMessage,
        context: &EventContext<'_>,
        order: Option<EventOrder>,
        batch: &mut RecordBatch,
    ) {
        let Some((key_framing, value_framing)) = &self.framing else {
            return self.json(message, context, order, batch);
        };
        let data = batch.data();
        let start = data.len();
        data.extend_from_slice(key_framing);
        data.push(SOME);
        avro::write_bytes(data, message.prefix.as_bytes());
        let key = start..data.len();
        data.extend_from_slice(value_framing);
        avro::write_bytes(data, b"m");
        write_optional_long(data, Some(context.processed_unix_ns.div_euclid(1_000_000)));
        self.write_source(context, data);
        write_transaction(context, order, data);
        data.push(SOME);
        avro::write_bytes(data, message.prefix.as_bytes());
        data.push(SOME);
        avro::write_bytes(data, &message.content);
        let value = key.end..data.len();
        batch.push(&self.plan.topic, context.lsn, Some(key), Some(value));
    }

    fn json(
        &self,
        message: &LogicalMessage,
        context: &EventContext<'_>,
        order: Option<EventOrder>,
        batch: &mut RecordBatch,
    ) {
        let data = batch.data();
        let start = data.len();
        data.extend_from_slice(b"{\"prefix\":");
        json::write_string(data, &message.prefix);
        data.push(b'}');
        let key = start..data.len();
        let ts_ms = context.processed_unix_ns.div_euclid(1_000_000);
        append(data, format_args!("{{\"op\":\"m\",\"ts_ms\":{ts_ms},\"source\":"));
        self.plan.json_source.write(context, data);
        data.extend_from_slice(b",\"transaction\":");
        json_envelope::write_transaction(context, order, data);
        data.extend_from_slice(b",\"message\":{\"prefix\":");
        json::write_string(data, &message.prefix);
        data.extend_from_slice(b",\"content\":");
        json::write_base64(data, &message.content);
        data.extend_from_slice(b"}}");
        let value = key.end..data.len();
        batch.push(&self.plan.topic, context.lsn, Some(key), Some(value));
    }

    fn write_source(&self, context: &EventContext<'_>, out: &mut Vec<u8>) {
        let transaction = context.transaction;
        let lsn = u64::from(context.lsn);
        let lsn_text = lsn.to_string();
        out.extend_from_slice(&self.plan.source_start);
        transaction.commit_millis.append_to(out);
        transaction.snapshot.append_to(out);
        out.extend_from_slice(&self.plan.source_database);
        out.push(SOME);
        avro::write_length(out, transaction.sequence_start.len() + lsn_text.len() + SEQUENCE_END.len());
        transaction.sequence_start.append_to(out);
        out.extend_from_slice(lsn_text.as_bytes());
        transaction.sequence_end.append_to(out);
        // It has no schema and no table.
        avro::write_bytes(out, b"");
        avro::write_bytes(out, b"");
        transaction.xid.append_to(out);
        write_optional_long(out, Some(lsn.cast_signed()));
        out.extend_from_slice(&transaction.origin);
    }
}

const NAMESPACE: &str = "io.debezium.connector.postgresql";

fn key() -> Value {
    json!({
        "type": "record",
        "name": "MessageKey",
        "namespace": NAMESPACE,
        "fields": [schema::optional("prefix", &"string".into())],
        "connect.version": 1,
        "connect.name": format!("{NAMESPACE}.MessageKey"),
    })
}

fn value() -> Value {
    let message = json!({
        "type": "record",
        "name": "Message",
        "fields": [schema::optional("prefix", &"string".into()), schema::optional("content", &"bytes".into())],
        "connect.version": 1,
        "connect.name": format!("{NAMESPACE}.Message"),
    });
    // Its namespace is the one around it here, and is not said again.
    let mut source = schema::source();
    if let Some(source) = source.as_object_mut() {
        source.shift_remove("namespace");
    }
    json!({
        "type": "record",
        "name": "MessageValue",
        "namespace": NAMESPACE,
        "fields": [
            { "name": "op", "type": "string" },
            schema::optional("ts_ms", &"long".into()),
            { "name": "source", "type": source },
            schema::optional("transaction", &schema::transaction()),
            { "name": "message", "type": message },
        ],
        "connect.version": 1,
        "connect.name": format!("{NAMESPACE}.MessageValue"),
    })
}
