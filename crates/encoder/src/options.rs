//! Which of several forms a value, a name or a deletion takes.
//!
//! The default of each is Debezium's default, so that a consumer of Debezium's needs no change. Some of these forms cannot hold all that
//! PostgreSQL can: see [`EncodeOptions::lossless`].

use std::collections::BTreeMap;

use crate::{ColumnRule, Metadata, Operations};

/// How rows are written. One is enough for all tables; nothing stands in the way of one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeOptions {
    /// What a record says of a change.
    pub envelope: Envelope,
    /// How that is written.
    pub format: Format,
    /// What becomes of a change with a value that cannot be written.
    pub unrepresentable: Unrepresentable,
    /// `numeric` and `money`. Debezium: `decimal.handling.mode`.
    pub decimals: Decimals,
    /// `date`, `time` and `timestamp`; those with a time zone are text in all forms but [`Times::Native`]. Debezium: `time.precision.mode`.
    pub times: Times,
    /// `interval`. Debezium: `interval.handling.mode`.
    pub intervals: Intervals,
    /// `time with time zone`. Debezium has the first form only.
    pub zoned_times: ZonedTimes,
    /// `bit varying`. Debezium has the first form only.
    pub varying_bits: VaryingBits,
    /// Arrays of every type. Debezium has the first form only.
    pub arrays: Arrays,
    /// `hstore`. Debezium: `hstore.handling.mode`.
    pub hstore: Hstore,
    /// `bytea`. Debezium: `binary.handling.mode`.
    pub bytea: Bytea,
    /// What becomes of names that Avro does not have. Debezium: `schema.name.adjustment.mode` and `field.name.adjustment.mode`.
    pub names: NameAdjustment,
    /// Whether a deletion is followed by a record without a value, which lets a compacted topic forget the key. Debezium:
    /// `tombstones.on.delete`.
    pub tombstones: bool,
    /// What stands for a value that is stored out of line (TOAST) and was not sent since it was not changed. Debezium:
    /// `unavailable.value.placeholder`.
    pub unavailable_value: String,
    /// Events that are not written. Each takes its place in the order of its transaction nevertheless, so that the identity of an event does
    /// not depend on which others are written. Debezium: `skipped.operations`, whose default has truncations, and where they take none.
    pub skipped: Operations,
    /// What headers of each record say, tombstones included, each once and in this order, after those of a change of the key.
    pub headers: Vec<Metadata>,
    /// The topic, in which what Kafka does not have becomes an underscore; none for `{prefix}.{schema}.{table}`. The Avro namespace follows it,
    /// as in Debezium.
    pub topic: Option<String>,
    /// The columns of the key, in its order, instead of the replica identity's. Debezium: `message.key.columns`.
    pub key: Option<Vec<String>>,
    /// What is done to columns beyond their types, by their names as PostgreSQL has them; names that the table has not do no harm.
    pub columns: BTreeMap<String, ColumnRule>,
}

impl Default for EncodeOptions {
    /// What Debezium does if nothing is set but both of its name adjustment modes, which are `avro`.
    fn default() -> Self {
        Self {
            envelope: Envelope::Debezium,
            format: Format::Avro,
            unrepresentable: Unrepresentable::Stop,
            decimals: Decimals::Precise,
            times: Times::Adaptive,
            intervals: Intervals::Numeric,
            zoned_times: ZonedTimes::Utc,
            varying_bits: VaryingBits::Bits,
            arrays: Arrays::Items,
            hstore: Hstore::Json,
            bytea: Bytea::Bytes,
            names: NameAdjustment::Avro,
            tombstones: true,
            unavailable_value: "__debezium_unavailable_value".to_owned(),
            skipped: Operations::default(),
            headers: Vec::new(),
            topic: None,
            key: None,
            columns: BTreeMap::new(),
        }
    }
}

impl EncodeOptions {
    /// What fits [`Envelope::Upsert`]: Avro's logical types where it has one, and otherwise a form that forgets nothing.
    pub fn upsert() -> Self {
        Self {
            envelope: Envelope::Upsert,
            decimals: Decimals::PreciseOrString,
            times: Times::Native,
            intervals: Intervals::String,
            zoned_times: ZonedTimes::Offset,
            varying_bits: VaryingBits::Text,
            hstore: Hstore::Map,
            headers: vec![
                Metadata::Operation,
                Metadata::Lsn,
                Metadata::CommitMicros,
                Metadata::Transaction,
                Metadata::TotalOrder,
            ],
            ..Self::default()
        }
    }

    /// These options in another envelope: its forms in the place of those that are this envelope's own, and everything else as it is. What was
    /// chosen stays, unless it is what this envelope has anyway.
    #[must_use]
    pub fn in_envelope(mut self, envelope: Envelope) -> Self {
        let forms = |envelope| match envelope {
            Envelope::Debezium => Self::default(),
            Envelope::Upsert => Self::upsert(),
        };
        let (own, other) = (forms(self.envelope), forms(envelope));
        macro_rules! change {
            ($($field:ident)+) => {
                $(if self.$field == own.$field { self.$field = other.$field; })+
            };
        }
        change!(decimals times intervals zoned_times varying_bits arrays hstore bytea headers);
        self.envelope = envelope;
        self
    }

    /// The default, but with a form for each type that holds every value of it, so that what a consumer reads can be cast back to what the
    /// column has.
    ///
    /// It differs from the default in the forms of Debezium's that forget something, and where the default has no room and fails:
    ///
    /// | type | the default | here |
    /// |---|---|---|
    /// | `interval` | microseconds, in which a month is 30.4375 days | ISO 8601 text |
    /// | `timetz` | the time in UTC, without the zone it had | the time with its zone |
    /// | `varbit` | the bits as a number, without the zeros in front | `0` and `1` as text |
    /// | arrays | an error for more than one dimension, or a lower bound other than 1 | PostgreSQL's text |
    /// | `numeric` | an error for `NaN` and the infinities; without a precision, no zeros at its end | text |
    /// | `timestamp` | an error past 294247-01-10 04:00:25.2 | ISO 8601 text |
    pub fn lossless() -> Self {
        Self {
            decimals: Decimals::String,
            times: Times::IsoString,
            intervals: Intervals::String,
            zoned_times: ZonedTimes::Offset,
            varying_bits: VaryingBits::Text,
            arrays: Arrays::Text,
            ..Self::default()
        }
    }
}

/// What a record says of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Envelope {
    /// Debezium's: the row before and after, where it comes from, its place in its transaction.
    Debezium,
    /// The row as it is now, and no value for one that is gone: a compacted topic of it is the table. What else is known of the change is
    /// in headers. A table without a key cannot be written like this.
    Upsert,
}

/// How keys and values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Avro behind Confluent's framing, with schemas that are to be registered.
    Avro,
    /// JSON without a schema.
    Json,
}

/// What becomes of a change with a value that cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unrepresentable {
    /// An error, so that nothing after it is written either.
    Stop,
    /// A record in the table's topic of dead letters, with the change as it came and the reason, in the place of the event.
    DeadLetter,
}

/// `numeric` and `money`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decimals {
    /// Exact: Avro's `decimal`, or Debezium's `VariableScaleDecimal` for a `numeric` without precision. `NaN` and the infinities are an
    /// error.
    Precise,
    /// The same, but text for a `numeric` without precision, which holds every value of it.
    PreciseOrString,
    /// A `double`, which has 15 to 17 digits; a value that is too large for it is an error.
    Double,
    /// The digits as PostgreSQL prints them, `NaN` and `Infinity` among them.
    String,
}

/// `date`, `time` and `timestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Times {
    /// Days; milliseconds or microseconds as the precision of the column needs them.
    Adaptive,
    /// The same, but every `time` in microseconds.
    AdaptiveMicroseconds,
    /// Kafka Connect's own `Date`, `Time` and `Timestamp` with Avro's logical types: milliseconds, and what is finer is cut off.
    Connect,
    /// ISO 8601 text with a `Z`, such as `2024-02-29Z`.
    IsoString,
    /// Microseconds for every precision.
    Microseconds,
    /// Avro's own logical types in microseconds: `date`, `time-micros`, `local-timestamp-micros`, and `timestamp-micros` for `timestamptz`.
    Native,
    /// Nanoseconds for every precision; a timestamp outside of the years 1677 to 2262 is an error, and so are the infinities.
    Nanoseconds,
}

/// `interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intervals {
    /// Microseconds, in which a day has 24 hours and a month 30.4375 days; the infinities are an error.
    Numeric,
    /// ISO 8601 text with all parts, such as `P1Y2M3DT4H5M6.789S`; `infinity` and `-infinity`.
    String,
}

/// `time with time zone`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ZonedTimes {
    /// The same moment of a day in UTC: `10:34:56Z`.
    Utc,
    /// As it is: `12:34:56+02:00`. It is a text of the same format.
    Offset,
}

/// `bit varying`. A `bit(n)` always has the same number of bits, so there is nothing to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VaryingBits {
    /// Debezium's `Bits`: the value as a number in bytes, the lowest first. How many zeros it started with cannot be told.
    Bits,
    /// A string of `0` and `1`.
    Text,
}

/// Arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arrays {
    /// An Avro array, which has one dimension that starts at 1. A column that is declared with more dimensions is text; where another
    /// column has a value of another shape, that is an error, and so is a null among enum values.
    Items,
    /// PostgreSQL's text, such as `{{1,2},{3,4}}` or `[0:1]={1,2}`.
    Text,
}

/// `hstore`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hstore {
    /// The text of a JSON object, its keys in hstore's order.
    Json,
    /// An Avro map.
    Map,
}

/// `bytea`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bytea {
    /// As it is.
    Bytes,
    /// Text: base64 (RFC 4648, section 4), with padding.
    Base64,
    /// Text: base64 for URLs (section 5), with padding. Debezium: `base64-url-safe`.
    Base64Url,
    /// Text: hexadecimal digits in lower case.
    Hex,
}

/// Names in schemas. A topic is named alike in all of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NameAdjustment {
    /// A name stays what it is, and one that Avro does not have is an error.
    None,
    /// Each character that Avro does not have becomes an underscore.
    Avro,
    /// It becomes `_u` and its number in hexadecimal, and so does the underscore.
    AvroUnicode,
}
