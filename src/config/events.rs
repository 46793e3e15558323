//! `[events]`: which of several forms a value, a name or a deletion takes.

use encoder::{
    Arrays, Bytea, Decimals, EncodeOptions, Envelope, Format, Hstore, Intervals, Metadata, NameAdjustment, Operation,
    Times, Unrepresentable, VaryingBits, ZonedTimes,
};

use super::document::Data;
use super::entries::Entry;
use super::keys::{self, Key};
use super::problem::Fault;
use super::reader::{Noted, Reader};
use super::values::{FromData, found_text, found_type};
use super::{OnIncompatible, OnUncertainKey, Origin};

/// Reads the section. The envelope decides which forms hold where none is given.
pub(super) fn read(reader: &mut Reader) -> Result<EncodeOptions, Noted> {
    let mut options = EncodeOptions::default();
    read_into(reader, &mut options).map(|()| options)
}

/// Reads the section's keys, of a table of `[[tables]]` only those that are given. Every key is read before any is given up.
pub(super) fn read_into(source: &mut impl Source, options: &mut EncodeOptions) -> Result<(), Noted> {
    // The envelope comes first: it decides which forms hold where none is given.
    let outcomes = [
        source.read(&keys::EVENTS_ENVELOPE, |it| *options = std::mem::take(options).in_envelope(it)),
        source.read(&keys::EVENTS_FORMAT, |it| options.format = it),
        source.read(&keys::EVENTS_UNREPRESENTABLE, |it| options.unrepresentable = it),
        source.read(&keys::EVENTS_DECIMALS, |it| options.decimals = it),
        source.read(&keys::EVENTS_TIMES, |it| options.times = it),
        source.read(&keys::EVENTS_INTERVALS, |it| options.intervals = it),
        source.read(&keys::EVENTS_ZONED_TIMES, |it| options.zoned_times = it),
        source.read(&keys::EVENTS_VARYING_BITS, |it| options.varying_bits = it),
        source.read(&keys::EVENTS_ARRAYS, |it| options.arrays = it),
        source.read(&keys::EVENTS_HSTORE, |it| options.hstore = it),
        source.read(&keys::EVENTS_BYTEA, |it| options.bytea = it),
        source.read(&keys::EVENTS_NAMES, |it| options.names = it),
        source.read(&keys::EVENTS_TOMBSTONES, |it| options.tombstones = it),
        source.read(&keys::EVENTS_UNAVAILABLE_VALUE, |Placeholder(it)| options.unavailable_value = it),
        source.read_list(&keys::EVENTS_SKIP, |it: Vec<Operation>| options.skipped = it.into_iter().collect()),
        source.read_list(&keys::EVENTS_HEADERS, |it| options.headers = it),
    ];
    outcomes.into_iter().collect()
}

/// What the section's keys are read from.
pub(super) trait Source {
    /// Reads a key, and sets what it says.
    fn read<T: FromData>(&mut self, key: &Key, set: impl FnOnce(T)) -> Result<(), Noted>;

    /// Reads a key that holds a list, which may be empty, and sets what it says.
    fn read_list<T: FromData>(&mut self, key: &Key, set: impl FnOnce(Vec<T>)) -> Result<(), Noted>;
}

impl Source for Reader {
    fn read<T: FromData>(&mut self, key: &Key, set: impl FnOnce(T)) -> Result<(), Noted> {
        let value = self.required(key)?;
        // What is not given is what the options have already, which depends on the envelope.
        if self.is_given(key) {
            set(value);
        }
        Ok(())
    }

    fn read_list<T: FromData>(&mut self, key: &Key, set: impl FnOnce(Vec<T>)) -> Result<(), Noted> {
        let list = self.list_or_none(key)?;
        if self.is_given(key) {
            set(list);
        }
        Ok(())
    }
}

impl Source for Entry<'_> {
    fn read<T: FromData>(&mut self, key: &Key, set: impl FnOnce(T)) -> Result<(), Noted> {
        // Tables below a table of a list are flattened, so that the name is the key's path.
        if let Some(given) = self.optional(key.path)? {
            set(given);
        }
        Ok(())
    }

    fn read_list<T: FromData>(&mut self, key: &Key, set: impl FnOnce(Vec<T>)) -> Result<(), Noted> {
        if let Some(given) = self.list(key.path)? {
            set(given);
        }
        Ok(())
    }
}

/// What has a few values, each with a name.
trait Choice: Copy + 'static {
    /// All of them, in the order in which they are told.
    const CHOICES: &'static [(&'static str, Self)];
}

impl<T: Choice> FromData for T {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        let Data::Text(text) = data else { return Err(found_type(data, &choices::<T>())) };
        let found = T::CHOICES.iter().find(|(name, _)| name == text);
        found.map(|(_, choice)| *choice).ok_or_else(|| found_text(text, &choices::<T>()))
    }
}

fn choices<T: Choice>() -> String {
    let names: Vec<String> = T::CHOICES.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    match names.split_last() {
        Some((last, [])) => format!("give {last}"),
        Some((last, others)) => format!("give {} or {last}", others.join(", ")),
        None => String::new(),
    }
}

impl Choice for Envelope {
    const CHOICES: &'static [(&'static str, Self)] = &[("debezium", Self::Debezium), ("upsert", Self::Upsert)];
}

impl Choice for Unrepresentable {
    const CHOICES: &'static [(&'static str, Self)] = &[("stop", Self::Stop), ("skip_to_dead_letter", Self::DeadLetter)];
}

impl Choice for OnIncompatible {
    const CHOICES: &'static [(&'static str, Self)] = &[("stop", Self::Stop), ("quarantine", Self::Quarantine)];
}

impl Choice for OnUncertainKey {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("stop", Self::Stop), ("before", Self::Before), ("after", Self::After), ("likely", Self::Likely)];
}

impl Choice for Format {
    const CHOICES: &'static [(&'static str, Self)] = &[("avro", Self::Avro), ("json", Self::Json)];
}

impl Choice for Decimals {
    const CHOICES: &'static [(&'static str, Self)] = &[
        ("precise", Self::Precise),
        ("precise_or_string", Self::PreciseOrString),
        ("double", Self::Double),
        ("string", Self::String),
    ];
}

impl Choice for Times {
    const CHOICES: &'static [(&'static str, Self)] = &[
        ("adaptive", Self::Adaptive),
        ("adaptive_microseconds", Self::AdaptiveMicroseconds),
        ("connect", Self::Connect),
        ("iso_string", Self::IsoString),
        ("microseconds", Self::Microseconds),
        ("nanoseconds", Self::Nanoseconds),
        ("native", Self::Native),
    ];
}

impl Choice for Intervals {
    const CHOICES: &'static [(&'static str, Self)] = &[("numeric", Self::Numeric), ("string", Self::String)];
}

impl Choice for ZonedTimes {
    const CHOICES: &'static [(&'static str, Self)] = &[("utc", Self::Utc), ("offset", Self::Offset)];
}

impl Choice for VaryingBits {
    const CHOICES: &'static [(&'static str, Self)] = &[("bits", Self::Bits), ("text", Self::Text)];
}

impl Choice for Operation {
    const CHOICES: &'static [(&'static str, Self)] = &[
        ("insert", Self::Create),
        ("update", Self::Update),
        ("delete", Self::Delete),
        ("truncate", Self::Truncate),
        ("read", Self::Read),
    ];
}

impl Choice for Metadata {
    const CHOICES: &'static [(&'static str, Self)] = &[
        ("op", Self::Operation),
        ("db", Self::Database),
        ("schema", Self::Schema),
        ("table", Self::Table),
        ("lsn", Self::Lsn),
        ("commit_lsn", Self::CommitLsn),
        ("txId", Self::TransactionId),
        ("transaction_id", Self::Transaction),
        ("source_ts_ms", Self::CommitMillis),
        ("source_ts_us", Self::CommitMicros),
        ("transaction_total_order", Self::TotalOrder),
    ];
}

impl Choice for Arrays {
    const CHOICES: &'static [(&'static str, Self)] = &[("items", Self::Items), ("text", Self::Text)];
}

impl Choice for Hstore {
    const CHOICES: &'static [(&'static str, Self)] = &[("json", Self::Json), ("map", Self::Map)];
}

impl Choice for Bytea {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("bytes", Self::Bytes), ("base64", Self::Base64), ("base64url", Self::Base64Url), ("hex", Self::Hex)];
}

impl Choice for NameAdjustment {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("avro", Self::Avro), ("avro_unicode", Self::AvroUnicode), ("none", Self::None)];
}

impl Choice for Origin {
    const CHOICES: &'static [(&'static str, Self)] = &[("any", Self::Any), ("none", Self::None)];
}

/// What stands for a value that was not sent. An empty text would be taken for a value.
struct Placeholder(String);

impl FromData for Placeholder {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        match String::from_data(data)? {
            text if text.is_empty() => {
                Err(Fault::new("found an empty string", "give a text that no column holds, or leave the key out"))
            }
            text => Ok(Self(text)),
        }
    }
}
