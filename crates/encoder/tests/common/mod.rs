//! Reading records back with apache-avro, which knows nothing of how they were written.

#![allow(dead_code)] // Each test uses its own part.

pub(crate) mod cells;
pub(crate) mod json;
pub(crate) mod table;
pub(crate) mod value;

use std::io::Read as _;

use apache_avro::types::Value as Avro;
use encoder::Schema;
use serde_json::Value;

pub(crate) use json::{hex, with_point};

/// Takes the framing off and decodes the rest, all of it; returns the id that the framing has.
pub(crate) fn decode(schema: &Schema, framed: &[u8]) -> (u32, Avro) {
    let (framing, mut datum) = framed.split_at(5);
    assert_eq!(framing[0], 0, "Confluent's magic byte");
    let parsed = apache_avro::Schema::parse_str(schema.json()).unwrap();
    let value = apache_avro::reader::datum::GenericDatumReader::builder(&parsed)
        .build()
        .and_then(|reader| reader.read_value(&mut datum))
        .unwrap();
    assert_eq!(datum.bytes().count(), 0, "bytes are left over");
    (u32::from_be_bytes(framing[1..].try_into().unwrap()), value)
}

/// A decoded value in the JSON that the recorded records have.
pub(crate) fn to_json(schema: &Schema, value: &Avro) -> Value {
    json::to_json(&serde_json::from_str(schema.json()).unwrap(), value)
}
