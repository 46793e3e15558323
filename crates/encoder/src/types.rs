//! The PostgreSQL types: what each is in Avro, and how its text output becomes Avro bytes.
//!
//! **To add a type**: write a [`Codec`] in the file of its family, and register it in [`BUILT_IN`] by its OID or, for a type that an
//! extension brings, in [`EXTENSIONS`] by its name. Every type that is in neither is a plain string of its text, so nothing is dropped.
//!
//! The text is what PostgreSQL prints in a session with `DateStyle` ISO, `TimeZone` UTC, `extra_float_digits` at least 1 and
//! `bytea_output` hex. Text that is not that is an error, never a guess.

mod boolean;
mod bytea;
mod calendar;
mod date;
mod float;
mod integer;
mod numeric;
mod text;
mod time;
mod timestamp;
mod timestamptz;
mod uuid;

use std::fmt::Debug;

use pgoutput::RelationColumn;

use crate::{ColumnFacts, EncodeErrorKind, TypeKind, schema::AvroType};

/// What stands for a value that is stored out of line and was not sent, as in Debezium.
pub(crate) const UNAVAILABLE: &[u8] = b"__debezium_unavailable_value";

/// One type with its modifier, such as `numeric(12,4)`.
pub(crate) trait Codec: Debug + Send + Sync {
    /// What it is in Avro.
    fn avro_type(&self) -> AvroType;

    /// Appends a value, given as PostgreSQL prints it. On error what was appended is to be taken back.
    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind>;

    /// Appends what stands in a column that cannot be null where the value is not known: in the `before` of a Delete of which only the
    /// key was sent. As in Debezium, it is used only where the column has no default.
    fn write_fallback(&self, out: &mut Vec<u8>);

    /// Appends what stands for a value that is stored out of line and was not sent.
    fn write_unavailable(&self, out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let _ = out;
        Err(EncodeErrorKind::UnavailableValue)
    }

    /// The text that Debezium takes for a default that is computed, such as `now()`; none if it puts no default of this type into the
    /// schema at all.
    fn computed_default(&self) -> Option<&'static str> {
        None
    }
}

type Make = fn(type_modifier: i32) -> Box<dyn Codec>;

/// The built-in types by OID, which are the same in every database (`pg_type.dat`).
static BUILT_IN: &[(u32, Make)] = &[
    (16, |_| Box::new(boolean::Boolean)),
    (17, |_| Box::new(bytea::Bytea)),
    (18, |_| Box::new(text::Text::OTHER)), // "char"
    (19, |_| Box::new(text::Text::OTHER)), // name
    (20, |_| Box::new(integer::Int8)),
    (21, |_| Box::new(integer::Int2)),
    (23, |_| Box::new(integer::Int4)),
    (25, |_| Box::new(text::Text::TEXT)),
    (114, |_| Box::new(text::Text::JSON)),
    (700, |_| Box::new(float::Float4)),
    (701, |_| Box::new(float::Float8)),
    (1042, |_| Box::new(text::Text::TEXT)), // char(n)
    (1043, |_| Box::new(text::Text::TEXT)), // varchar(n)
    (1082, |_| Box::new(date::Date)),
    (1083, time::make),
    (1114, timestamp::make),
    (1184, timestamptz::make),
    (1700, numeric::make),
    (2950, |_| Box::new(uuid::Uuid)),
    (3802, |_| Box::new(text::Text::JSON)), // jsonb
];

/// Types that extensions bring, by name, since their OIDs differ from database to database.
static EXTENSIONS: &[(&str, Make)] = &[("citext", |_| Box::new(text::Text::OTHER))];

/// Finds the codec of a column. `facts` are used only where they speak of the type that the stream has.
pub(crate) fn resolve(column: &RelationColumn, facts: Option<&ColumnFacts>) -> Box<dyn Codec> {
    let facts = facts.filter(|facts| facts.type_oid == column.type_oid);
    let (type_oid, type_modifier) = match facts {
        Some(facts) if facts.type_kind == TypeKind::Domain => (facts.base_type_oid, facts.base_type_modifier),
        _ => (column.type_oid, column.type_modifier),
    };
    let built_in = || BUILT_IN.iter().find(|(oid, _)| *oid == u32::from(type_oid)).map(|(_, make)| make);
    let extension = || {
        let name = &facts?.type_name;
        EXTENSIONS.iter().find(|(extension, _)| extension == name).map(|(_, make)| make)
    };
    match built_in().or_else(extension) {
        Some(make) => make(type_modifier),
        None => Box::new(text::Text::OTHER),
    }
}
