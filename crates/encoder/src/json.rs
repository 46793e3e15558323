//! Encoded values as JSON: defaults in a schema, and keys in a header.
//!
//! Both start from the Avro bytes, so that a type says only once how its text is to be read.

use std::io::Write;

use serde_json::Value;

use crate::{avro::Reader, schema::Physical};

/// A default, in the JSON that the Avro specification wants for it; none where Kafka Connect cannot have one.
pub(crate) fn default_value(physical: Physical, encoded: &[u8]) -> Option<Value> {
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
        // No record can be a default in Kafka Connect (KAFKA-12694).
        Physical::VariableScaleDecimal => None,
    }
}

/// Appends one field's value as JSON text, the way Kafka Connect writes a key into a header.
///
/// Returns none if the bytes are not such a value, which would be a bug of its codec.
pub(crate) fn write_value(physical: Physical, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
    match physical {
        Physical::Boolean => write_display(out, reader.boolean()?),
        Physical::Int | Physical::Long => write_display(out, reader.long()?),
        Physical::Float => {
            let value = reader.float()?;
            if value.is_finite() { write_display(out, value) } else { write_display(out, format_args!("\"{value}\"")) }
        }
        Physical::Double => {
            let value = reader.double()?;
            if value.is_finite() { write_display(out, value) } else { write_display(out, format_args!("\"{value}\"")) }
        }
        Physical::String => write_string(out, std::str::from_utf8(reader.bytes()?).ok()?),
        Physical::Bytes => write_base64(out, reader.bytes()?),
        Physical::Decimal { scale, .. } => write_decimal(out, reader.bytes()?, scale as usize),
        Physical::VariableScaleDecimal => {
            out.extend_from_slice(b"{\"scale\":");
            write_display(out, reader.long()?);
            out.extend_from_slice(b",\"value\":");
            write_base64(out, reader.bytes()?);
            out.push(b'}');
        }
    }
    Some(())
}

/// Appends a JSON string.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    write_display(out, Value::from(text));
}

fn write_display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("a Vec takes all that is written to it");
}

fn write_decimal(out: &mut Vec<u8>, unscaled: &[u8], scale: usize) {
    let digits = num_bigint::BigInt::from_signed_bytes_be(unscaled).to_string();
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |digits| ("-", digits));
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (integer, fraction) = digits.split_at(digits.len() - scale);
    let point = if scale > 0 { "." } else { "" };
    write_display(out, format_args!("{sign}{integer}{point}{fraction}"));
}

/// RFC 4648, section 4, in quotes.
fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.push(b'"');
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for (position, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let sextet = (bits >> shift & 0x3f) as usize;
            out.push(if position <= chunk.len() { ALPHABET[sextet] } else { b'=' });
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro;

    #[test]
    fn base64_of_the_rfc() {
        for (bytes, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            let mut out = Vec::new();
            write_base64(&mut out, bytes.as_bytes());
            assert_eq!(out, format!("\"{expected}\"").as_bytes());
        }
    }

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
        assert_eq!(default_value(Physical::Float, &encoded).unwrap().to_string(), "0.1");
        let mut encoded = Vec::new();
        avro::write_double(&mut encoded, f64::NAN);
        assert_eq!(default_value(Physical::Double, &encoded), None);
    }
}
