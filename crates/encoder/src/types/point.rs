//! point → Debezium's record: the two coordinates, and the same in WKB (OGC 06-103r4, "Well-known Binary Representation").

use super::Codec;
use crate::{
    EncodeErrorKind, avro,
    schema::{AvroType, Physical},
};

/// The lowest byte comes first, and it is a point.
const WKB_START: [u8; 5] = [1, 1, 0, 0, 0];
const WKB_BYTES: usize = 21;

/// `point`
#[derive(Debug)]
pub(super) struct Point;

impl Codec for Point {
    fn avro_type(&self) -> AvroType {
        AvroType::plain(Physical::Point)
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let (x, y) = parse(text).ok_or(EncodeErrorKind::MalformedText)?;
        write(x, y, out);
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        write(0.0, 0.0, out);
    }
}

fn parse(text: &[u8]) -> Option<(f64, f64)> {
    let inner = text.strip_prefix(b"(")?.strip_suffix(b")")?;
    let comma = inner.iter().position(|byte| *byte == b',')?;
    let coordinate = |text: &[u8]| super::float::parse_double(text);
    Some((coordinate(&inner[..comma])?, coordinate(&inner[comma + 1..])?))
}

fn write(x: f64, y: f64, out: &mut Vec<u8>) {
    avro::write_double(out, x);
    avro::write_double(out, y);
    // The second branch is bytes.
    out.push(2);
    avro::write_length(out, WKB_BYTES);
    out.extend_from_slice(&WKB_START);
    avro::write_double(out, x);
    avro::write_double(out, y);
    // No reference system: the first branch is null.
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_in_parentheses() {
        assert_eq!(parse(b"(1,2)"), Some((1.0, 2.0)));
        assert_eq!(parse(b"(-0,1e+300)"), Some((-0.0, 1e300)));
        assert_eq!(parse(b"(Infinity,-Infinity)"), Some((f64::INFINITY, f64::NEG_INFINITY)));
        assert!(parse(b"(NaN,0)").unwrap().0.is_nan());
        for text in ["", "()", "(1)", "1,2", "(1,2", "(1,2,3)", "(1, 2)", "(inf,1)", "((1,2))"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
