//! Enums → string, with the values that there are in the schema.
//!
//! A value that was added after the schema was made is written nevertheless: the list says what the catalog has, and holds nobody to it.

use super::{Codec, DefaultRule, text::write_string};
use crate::{
    EncodeErrorKind, avro,
    schema::{AvroType, Physical},
};

/// A type made by `CREATE TYPE .. AS ENUM`.
#[derive(Debug)]
pub(super) struct Enumeration {
    /// The values with commas between them. A value that has a comma itself is not told from two, as in Debezium.
    allowed: String,
}

impl Enumeration {
    pub(super) fn new(labels: &[String]) -> Self {
        Self { allowed: labels.join(",") }
    }
}

impl Codec for Enumeration {
    fn avro_type(&self) -> AvroType {
        AvroType {
            connect_parameter: Some(("allowed", self.allowed.clone())),
            ..AvroType::named(Physical::String, "io.debezium.data.Enum")
        }
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        write_string(text, out)
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_empty(out);
    }

    /// Such a value is never stored out of line, but an array of them can be.
    fn takes_placeholder(&self) -> bool {
        true
    }

    fn default_rule(&self) -> DefaultRule {
        DefaultRule::Literal
    }
}
