//! What a key or a value of a record says, whoever has written it: Avro by the schema that it was written with, and JSON.
//!
//! It is for reading: nothing here is hot, and nothing is trusted. Every input gives a [`Value`] or an error, never a panic. What is built is in
//! proportion to what was read: a length is compared with what is there before anything is reserved for it; values that take no bytes, of which a
//! few bytes could announce any number, are counted against a limit, and so are the digits of decimals, whose scale is in the schema alone, and how deep values lie within each other.
//!
//! No value loses a digit: numbers that are no `long` stay text, and decimals are such numbers. [`Value::write_json`] writes what `events.format =
//! "json"` would have written of the same row: decimals as numbers, bytes in base64, numbers that JSON lacks as their names.

mod avro;
mod json;
mod number;
mod value;

pub use avro::{AvroError, AvroSchema, InvalidSchema};
pub use json::{JsonError, parse as parse_json};
pub use number::compare as compare_numbers;
pub use value::Value;

/// How deep values may lie within each other.
pub const DEPTH_MAX: usize = 64;
