//! bytea → Avro bytes.

use super::{Codec, UNAVAILABLE};
use crate::{
    EncodeErrorKind, avro,
    schema::{AvroType, Physical},
};

/// `bytea`, printed with `bytea_output` hex.
#[derive(Debug)]
pub(super) struct Bytea;

impl Codec for Bytea {
    fn avro_type(&self) -> AvroType {
        AvroType::plain(Physical::Bytes)
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let digits = text.strip_prefix(br"\x").ok_or(EncodeErrorKind::MalformedText)?;
        let (pairs, []) = digits.as_chunks::<2>() else { return Err(EncodeErrorKind::MalformedText) };
        avro::write_length(out, pairs.len());
        out.reserve(pairs.len());
        let mut seen = 0;
        out.extend(pairs.iter().map(|[high, low]| {
            let (high, low) = (NIBBLES[usize::from(*high)], NIBBLES[usize::from(*low)]);
            seen |= high | low;
            high << 4 | low & 0xf
        }));
        if seen & NOT_A_DIGIT == 0 { Ok(()) } else { Err(EncodeErrorKind::MalformedText) }
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_length(out, 0);
    }

    fn write_unavailable(&self, out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        avro::write_bytes(out, UNAVAILABLE);
        Ok(())
    }
}

/// Marks a byte that is no hexadecimal digit, in a bit that no digit has.
const NOT_A_DIGIT: u8 = 0x80;

/// What each byte means as a hexadecimal digit.
static NIBBLES: [u8; 256] = {
    let mut nibbles = [NOT_A_DIGIT; 256];
    let mut value: u8 = 0;
    while value < 16 {
        nibbles[b"0123456789abcdef"[value as usize] as usize] = value;
        nibbles[b"0123456789ABCDEF"[value as usize] as usize] = value;
        value += 1;
    }
    nibbles
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_becomes_bytes() {
        let mut out = Vec::new();
        Bytea.encode(br"\xdeadBEEF00", &mut out).unwrap();
        assert_eq!(out, [10, 0xde, 0xad, 0xbe, 0xef, 0]);
        for malformed in [&br"\xabc"[..], br"\xzz", b"abcd", br"\X00", b"", br"\x0\", b"\\x\xff\xff"] {
            assert_eq!(Bytea.encode(malformed, &mut Vec::new()), Err(EncodeErrorKind::MalformedText));
        }
    }
}
