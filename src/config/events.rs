//! `[events]`: which of several forms a value, a name or a deletion takes.

use encoder::{
    Arrays, Bytea, Decimals, EncodeOptions, Hstore, Intervals, NameAdjustment, Times, VaryingBits, ZonedTimes,
};

use super::Origin;
use super::document::Data;
use super::keys;
use super::problem::Fault;
use super::reader::{Noted, Reader};
use super::values::{FromData, found_text, found_type};

/// Reads the section.
pub(super) fn read(reader: &mut Reader) -> Result<EncodeOptions, Noted> {
    let decimals = reader.required(&keys::EVENTS_DECIMALS);
    let times = reader.required(&keys::EVENTS_TIMES);
    let intervals = reader.required(&keys::EVENTS_INTERVALS);
    let zoned_times = reader.required(&keys::EVENTS_ZONED_TIMES);
    let varying_bits = reader.required(&keys::EVENTS_VARYING_BITS);
    let arrays = reader.required(&keys::EVENTS_ARRAYS);
    let hstore = reader.required(&keys::EVENTS_HSTORE);
    let bytea = reader.required(&keys::EVENTS_BYTEA);
    let names = reader.required(&keys::EVENTS_NAMES);
    let tombstones = reader.required(&keys::EVENTS_TOMBSTONES);
    let unavailable_value = reader.required(&keys::EVENTS_UNAVAILABLE_VALUE);
    let Placeholder(unavailable_value) = unavailable_value?;
    Ok(EncodeOptions {
        decimals: decimals?,
        times: times?,
        intervals: intervals?,
        zoned_times: zoned_times?,
        varying_bits: varying_bits?,
        arrays: arrays?,
        hstore: hstore?,
        bytea: bytea?,
        names: names?,
        tombstones: tombstones?,
        unavailable_value,
    })
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

impl Choice for Decimals {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("precise", Self::Precise), ("double", Self::Double), ("string", Self::String)];
}

impl Choice for Times {
    const CHOICES: &'static [(&'static str, Self)] = &[
        ("adaptive", Self::Adaptive),
        ("adaptive_microseconds", Self::AdaptiveMicroseconds),
        ("connect", Self::Connect),
        ("iso_string", Self::IsoString),
        ("microseconds", Self::Microseconds),
        ("nanoseconds", Self::Nanoseconds),
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
