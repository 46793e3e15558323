//! A decoded value.

use std::sync::Arc;

use crate::json::{append, write_base64, write_string};

/// A decoded value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Boolean(bool),
    /// A number that is a `long`.
    Integer(i64),
    /// Any other finite number, as JSON has it.
    Number(Box<str>),
    /// Text; a number that JSON lacks (`NaN`, `Infinity`, `-Infinity`) too.
    Text(Box<str>),
    /// Bytes.
    Bytes(Box<[u8]>),
    /// Values in their order.
    List(Vec<Self>),
    /// A record, a map or an object: names and values in their order. A JSON object may have a name twice.
    Record(Vec<(Arc<str>, Self)>),
}

impl Value {
    /// The field of this name: of a record, the last one of that name, as most readers of JSON have it.
    pub fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Record(fields) => fields.iter().rev().find(|(found, _)| **found == *name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one without a fraction.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// Appends it as JSON in one line.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Boolean(value) => append(out, value),
            Self::Integer(number) => append(out, number),
            Self::Number(text) => out.extend_from_slice(text.as_bytes()),
            Self::Text(text) => write_string(out, text),
            Self::Bytes(bytes) => write_base64(out, bytes),
            Self::List(items) => {
                out.push(b'[');
                for (position, item) in items.iter().enumerate() {
                    if position > 0 {
                        out.push(b',');
                    }
                    item.write_json(out);
                }
                out.push(b']');
            }
            Self::Record(fields) => {
                out.push(b'{');
                for (position, (name, value)) in fields.iter().enumerate() {
                    if position > 0 {
                        out.push(b',');
                    }
                    write_string(out, name);
                    out.push(b':');
                    value.write_json(out);
                }
                out.push(b'}');
            }
        }
    }

    /// The same, as text.
    pub fn to_json(&self) -> String {
        let mut out = Vec::new();
        self.write_json(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}
