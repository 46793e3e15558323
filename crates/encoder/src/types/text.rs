//! Types that are strings in Avro, as PostgreSQL prints them.

use super::{Codec, UNAVAILABLE};
use crate::{
    EncodeErrorKind, avro,
    schema::{AvroType, Physical},
};

/// A string, with a name in Kafka Connect or without.
#[derive(Debug)]
pub(super) struct Text {
    connect_name: Option<&'static str>,
    computed_default: Option<&'static str>,
}

impl Text {
    /// `text`, `varchar`, `char(n)` with its padding.
    pub(super) const TEXT: Self = Self { connect_name: None, computed_default: Some("") };

    /// `json` as it was written, `jsonb` as PostgreSQL prints it.
    pub(super) const JSON: Self = Self { connect_name: Some("io.debezium.data.Json"), computed_default: Some("{}") };

    /// Strings whose defaults Debezium does not put into the schema, and every type that is not registered.
    pub(super) const OTHER: Self = Self { connect_name: None, computed_default: None };
}

impl Codec for Text {
    fn avro_type(&self) -> AvroType {
        AvroType { connect_name: self.connect_name, ..AvroType::plain(Physical::String) }
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        // The client encoding is UTF-8, but a database in SQL_ASCII converts nothing.
        if std::str::from_utf8(text).is_err() {
            return Err(EncodeErrorKind::InvalidUtf8);
        }
        avro::write_bytes(out, text);
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_length(out, 0);
    }

    fn write_unavailable(&self, out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        avro::write_bytes(out, UNAVAILABLE);
        Ok(())
    }

    fn computed_default(&self) -> Option<&'static str> {
        self.computed_default
    }
}
