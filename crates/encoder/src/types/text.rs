//! Types that are strings in Avro, as PostgreSQL prints them.

use super::{Codec, DefaultRule};
use crate::{
    EncodeErrorKind, avro,
    schema::{AvroType, Physical},
};

/// A string, with a name in Kafka Connect or without.
#[derive(Debug)]
pub(super) struct Text {
    connect_name: Option<&'static str>,
    default_rule: DefaultRule,
}

impl Text {
    /// `text`, `varchar`, `char(n)` with its padding.
    pub(super) const TEXT: Self = Self { connect_name: None, default_rule: DefaultRule::Computed("") };

    /// `json` as it was written, `jsonb` as PostgreSQL prints it.
    pub(super) const JSON: Self = Self::named("io.debezium.data.Json", DefaultRule::Computed("{}"));

    /// `xml`
    pub(super) const XML: Self = Self::named("io.debezium.data.Xml", DefaultRule::Computed(""));

    /// `tsvector`
    pub(super) const TSVECTOR: Self = Self::named("io.debezium.data.Tsvector", DefaultRule::Never);

    /// `ltree`
    pub(super) const LTREE: Self = Self::named("io.debezium.data.Ltree", DefaultRule::Never);

    /// Strings whose defaults Debezium does not put into the schema, and every type that is not registered.
    pub(super) const OTHER: Self = Self { connect_name: None, default_rule: DefaultRule::Never };

    const fn named(connect_name: &'static str, default_rule: DefaultRule) -> Self {
        Self { connect_name: Some(connect_name), default_rule }
    }
}

impl Codec for Text {
    fn avro_type(&self) -> AvroType {
        AvroType { connect_name: self.connect_name, ..AvroType::plain(Physical::String) }
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        write_string(text, out)
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_empty(out);
    }

    fn takes_placeholder(&self) -> bool {
        true
    }

    fn default_rule(&self) -> DefaultRule {
        self.default_rule
    }
}

/// Appends text as a `string`.
#[inline]
pub(super) fn write_string(text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
    // The client encoding is UTF-8, but a database in SQL_ASCII converts nothing.
    if std::str::from_utf8(text).is_err() {
        return Err(EncodeErrorKind::InvalidUtf8);
    }
    avro::write_bytes(out, text);
    Ok(())
}
