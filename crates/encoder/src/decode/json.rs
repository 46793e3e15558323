//! JSON, without losing a digit.
//!
//! `serde_json` finds where each value begins and ends, and a number stays the text that it was.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{DEPTH_MAX, Value};

/// The bytes are not JSON, or lie too deep within each other.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct JsonError(String);

/// Reads one JSON value, which is all of the bytes but for white space.
///
/// # Errors
/// They are none.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let raw: &RawValue = serde_json::from_slice(bytes).map_err(|error| JsonError(error.to_string()))?;
    value(raw, DEPTH_MAX)
}

fn value(raw: &RawValue, depth_left: usize) -> Result<Value, JsonError> {
    let text = raw.get().trim();
    let wrong = |error: serde_json::Error| JsonError(error.to_string());
    let deeper = || {
        depth_left
            .checked_sub(1)
            .ok_or_else(|| JsonError(format!("values lie more than {DEPTH_MAX} deep in each other")))
    };
    Ok(match text.as_bytes().first() {
        Some(b'{') => {
            let depth_left = deeper()?;
            let Fields(fields) = serde_json::from_str(text).map_err(wrong)?;
            let fields = fields.into_iter().map(|(name, raw)| Ok((Arc::from(name), value(raw, depth_left)?)));
            Value::Record(fields.collect::<Result<_, JsonError>>()?)
        }
        Some(b'[') => {
            let depth_left = deeper()?;
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(wrong)?;
            Value::List(items.into_iter().map(|raw| value(raw, depth_left)).collect::<Result<_, _>>()?)
        }
        Some(b'"') => Value::Text(serde_json::from_str::<String>(text).map_err(wrong)?.into()),
        Some(b't') => Value::Boolean(true),
        Some(b'f') => Value::Boolean(false),
        Some(b'n') => Value::Null,
        // What is no JSON was refused when its end was looked for.
        _ => match text.parse() {
            Ok(number) if text != "-0" => Value::Integer(number),
            _ => Value::Number(text.into()),
        },
    })
}

/// Fields in their order, as they stand in the text.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Fields<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    fields.push((name, map.next_value::<&RawValue>().map_err(A::Error::custom)?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_back_as_it_was() {
        for text in [
            "null",
            "true",
            "-0",
            "12345678901234567890123456789.000000000000000001",
            "1e400",
            "-9223372036854775808",
            r#"{"a":[1,2.50,{"b":"\u0001ä\"\\"}],"a":null,"":false}"#,
            "[]",
            "{}",
        ] {
            assert_eq!(parse(text.as_bytes()).expect(text).to_json(), text);
        }
        assert_eq!(parse(b" [ 1 , \"\\u00e4\" ] \n").expect("it is JSON").to_json(), "[1,\"ä\"]");
    }

    #[test]
    fn what_is_none_is_refused() {
        for bytes in [&b""[..], b"{", b"1 2", b"\"\xff\"", b"nul", b"+1", b"01", b"[1,]", b"NaN"] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse(deep(DEPTH_MAX).as_bytes()).is_ok());
        assert!(parse(deep(DEPTH_MAX + 1).as_bytes()).is_err());
        assert!(parse(deep(20_000).as_bytes()).is_err());
    }

    #[test]
    fn of_a_name_that_is_there_twice_the_last_counts() {
        let value = parse(br#"{"a":1,"a":2}"#).expect("it is JSON");
        assert_eq!(value.field("a"), Some(&Value::Integer(2)));
    }
}
