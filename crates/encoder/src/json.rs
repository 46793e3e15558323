//! Encoded values as JSON: in records, keys in a header, and defaults in a schema.
//!
//! Both start from the Avro bytes, so that a type says only once how its text is to be read.

use std::io::Write;

use serde_json::Value;

use crate::{avro::Reader, base64, schema::Physical};

/// A default, in the JSON that the Avro specification wants for it; none where Kafka Connect cannot have one.
pub(crate) fn default_value(physical: &Physical, encoded: &[u8]) -> Option<Value> {
    let mut reader = Reader::new(encoded);
    match physical {
        Physical::Boolean => reader.boolean().map(Value::from),
        Physical::Int | Physical::Long => reader.long().map(Value::from),
        // JSON has neither NaN nor infinities; a number in the JSON of a float must not grow digits that the float does not have.
        Physical::Float => {
            reader.float().filter(|value| value.is_finite()).and_then(|value| format!("{value:?}").parse().ok())
        }
        Physical::Double => reader.double().and_then(serde_json::Number::from_f64).map(Value::Number),
        Physical::String => reader.bytes().and_then(|text| std::str::from_utf8(text).ok()).map(Value::from),
        // Each byte is the character with its number.
        Physical::Bytes | Physical::Decimal { .. } => {
            reader.bytes().map(|bytes| bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into())
        }
        // No record can be a default in Kafka Connect (KAFKA-12694), and Debezium has none for an array or a map.
        Physical::VariableScaleDecimal | Physical::Point | Physical::Array { .. } | Physical::Map => None,
    }
}

/// Appends one field's value as JSON text, the way Kafka Connect writes a key into a header.
///
/// Returns none if the bytes are not such a value, which would be a bug of its codec.
pub(crate) fn write_value(physical: &Physical, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
    match physical {
        Physical::Boolean => append(out, reader.boolean()?),
        Physical::Int | Physical::Long => append(out, reader.long()?),
        Physical::Float => {
            let value = reader.float()?;
            if value.is_finite() { append(out, value) } else { append(out, number(value.into())) }
        }
        Physical::Double => {
            let value = reader.double()?;
            append(out, number(value));
        }
        Physical::String => write_string(out, std::str::from_utf8(reader.bytes()?).ok()?),
        Physical::Bytes => write_base64(out, reader.bytes()?),
        Physical::Decimal { scale, .. } => write_decimal(out, reader.bytes()?, *scale as usize),
        Physical::VariableScaleDecimal => {
            out.extend_from_slice(b"{\"scale\":");
            append(out, reader.long()?);
            out.extend_from_slice(b",\"value\":");
            write_base64(out, reader.bytes()?);
            out.push(b'}');
        }
        Physical::Point => {
            let (x, y) = (reader.double()?, reader.double()?);
            append(out, format_args!("{{\"x\":{},\"y\":{}", number(x), number(y)));
            out.extend_from_slice(b",\"wkb\":");
            write_optional(&Physical::Bytes, reader, out)?;
            out.extend_from_slice(b",\"srid\":");
            write_optional(&Physical::Int, reader, out)?;
            out.push(b'}');
        }
        Physical::Array { items, nullable } => {
            out.push(b'[');
            write_blocks(reader, out, |reader, out| {
                if *nullable {
                    write_optional(&items.physical, reader, out)
                } else {
                    write_value(&items.physical, reader, out)
                }
            })?;
            out.push(b']');
        }
        Physical::Map => {
            out.push(b'{');
            write_blocks(reader, out, |reader, out| {
                write_value(&Physical::String, reader, out)?;
                out.push(b':');
                write_optional(&Physical::String, reader, out)
            })?;
            out.push(b'}');
        }
    }
    Some(())
}

/// A union whose first branch is null.
fn write_optional(physical: &Physical, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
    match reader.long()? {
        0 => out.extend_from_slice(b"null"),
        _ => write_value(physical, reader, out)?,
    }
    Some(())
}

/// What an array and a map have in common: blocks, each led by how many entries it has, and an empty one at the end.
fn write_blocks(
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
    mut write_entry: impl FnMut(&mut Reader<'_>, &mut Vec<u8>) -> Option<()>,
) -> Option<()> {
    let mut first = true;
    loop {
        let count = reader.long()?;
        for _ in 0..count {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            write_entry(reader, out)?;
        }
        if count == 0 {
            return Some(());
        }
    }
}

/// A number, or the name of one that JSON does not have.
fn number(value: f64) -> String {
    match value {
        f64::INFINITY => "\"Infinity\"".to_owned(),
        f64::NEG_INFINITY => "\"-Infinity\"".to_owned(),
        _ if value.is_nan() => "\"NaN\"".to_owned(),
        _ => value.to_string(),
    }
}

/// Appends a JSON string.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a Vec takes all that is written to it, and a text is always JSON");
}

/// Appends what it is printed as.
pub(crate) fn append(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("a Vec takes all that is written to it");
}

pub(crate) fn write_decimal(out: &mut Vec<u8>, unscaled: &[u8], scale: usize) {
    let digits = num_bigint::BigInt::from_signed_bytes_be(unscaled).to_string();
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |digits| ("-", digits));
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (integer, fraction) = digits.split_at(digits.len() - scale);
    let point = if scale > 0 { "." } else { "" };
    append(out, format_args!("{sign}{integer}{point}{fraction}"));
}

/// Appends bytes as a JSON string.
pub(crate) fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    base64::write(base64::STANDARD, bytes, out);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro;

    #[test]
    fn decimals_have_their_point() {
        for (unscaled, scale, expected) in
            [(&[0_u8][..], 2, "0.00"), (&[0xff], 4, "-0.0001"), (&[0, 0x96], 2, "1.50"), (&[0x2a], 0, "42")]
        {
            let mut out = Vec::new();
            write_decimal(&mut out, unscaled, scale);
            assert_eq!(std::str::from_utf8(&out), Ok(expected));
        }
    }

    #[test]
    fn a_default_keeps_the_digits_of_its_float() {
        let mut encoded = Vec::new();
        avro::write_float(&mut encoded, 0.1);
        assert_eq!(default_value(&Physical::Float, &encoded).unwrap().to_string(), "0.1");
        let mut encoded = Vec::new();
        avro::write_double(&mut encoded, f64::NAN);
        assert_eq!(default_value(&Physical::Double, &encoded), None);
    }
}
