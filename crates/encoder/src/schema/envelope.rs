//! The records around a row: the key, the envelope, where an event comes from, and its place in a transaction.

use serde_json::{Value, json};

use super::{Field, FieldWriter, Properties};

/// The schema of a key.
pub(crate) fn key(namespace: &str, fields: &[&Field], properties: Properties) -> Value {
    record("Key", namespace, fields, properties)
}

/// The schema of a value that is the row itself.
pub(crate) fn value(namespace: &str, fields: &[&Field]) -> Value {
    record("Value", namespace, fields, Properties::Native)
}

fn record(name: &str, namespace: &str, fields: &[&Field], properties: Properties) -> Value {
    let mut record = json!({
        "type": "record",
        "name": name,
        "namespace": namespace,
        "fields": FieldWriter::new(properties).fields(fields),
    });
    if properties == Properties::Connect {
        record["connect.name"] = format!("{namespace}.{name}").into();
    }
    record
}

/// The schema of a value: Debezium's envelope around the row.
pub(crate) fn envelope(namespace: &str, fields: &[&Field]) -> Value {
    let row = json!({
        "type": "record",
        "name": "Value",
        "fields": FieldWriter::new(Properties::Connect).fields(fields),
        "connect.name": format!("{namespace}.Value"),
    });
    json!({
        "type": "record",
        "name": "Envelope",
        "namespace": namespace,
        "fields": [
            { "name": "before", "type": ["null", row], "default": null },
            optional("after", &"Value".into()),
            { "name": "source", "type": source() },
            optional("transaction", &transaction()),
            { "name": "op", "type": "string" },
            optional("ts_ms", &"long".into()),
            optional("ts_us", &"long".into()),
            optional("ts_ns", &"long".into()),
        ],
        "connect.version": 2,
        "connect.name": format!("{namespace}.Envelope"),
    })
}

/// `source`: where an event comes from.
pub(crate) fn source() -> Value {
    json!({
        "type": "record",
        "name": "Source",
        "namespace": "io.debezium.connector.postgresql",
        "fields": [
            { "name": "version", "type": "string" },
            { "name": "connector", "type": "string" },
            { "name": "name", "type": "string" },
            { "name": "ts_ms", "type": "long" },
            { "name": "snapshot", "type": [snapshot(), "null"], "default": "false" },
            { "name": "db", "type": "string" },
            optional("sequence", &"string".into()),
            optional("ts_us", &"long".into()),
            optional("ts_ns", &"long".into()),
            { "name": "schema", "type": "string" },
            { "name": "table", "type": "string" },
            optional("txId", &"long".into()),
            optional("lsn", &"long".into()),
            optional("xmin", &"long".into()),
            optional("origin", &"string".into()),
            optional("origin_lsn", &"long".into()),
        ],
        "connect.version": 1,
        "connect.name": "io.debezium.connector.postgresql.Source",
    })
}

/// `source.snapshot`: whether an event comes from a snapshot.
fn snapshot() -> Value {
    json!({
        "type": "string",
        "connect.version": 1,
        "connect.parameters": {
            "allowed": "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental",
        },
        "connect.default": "false",
        "connect.name": "io.debezium.data.Enum",
    })
}

/// `transaction`: an event's place in its transaction.
pub(crate) fn transaction() -> Value {
    json!({
        "type": "record",
        "name": "block",
        "namespace": "event",
        "fields": [
            { "name": "id", "type": "string" },
            { "name": "total_order", "type": "long" },
            { "name": "data_collection_order", "type": "long" },
        ],
        "connect.version": 1,
        "connect.name": "event.block",
    })
}

/// A field that can be null, and is so by default.
pub(crate) fn optional(name: &str, avro_type: &Value) -> Value {
    json!({ "name": name, "type": ["null", avro_type], "default": null })
}
