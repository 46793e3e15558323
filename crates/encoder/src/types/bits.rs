//! bit, bit varying → boolean for one bit, and else bytes: Debezium's `Bits`, a number whose lowest byte comes first, or text.
//!
//! `Bits` has no more bytes than the number needs, so that the zeros in front of a `bit varying` are not in it. A `bit(n)` gets them back
//! from its length, which is in the schema.

use super::{Codec, DefaultRule, TypeSpec, text::Text};
use crate::{
    EncodeErrorKind, Envelope, VaryingBits, avro,
    schema::{AvroType, Physical},
};

/// Debezium's length of a `bit varying` without one.
const LENGTH_MAX: usize = 0x7fff_ffff;

/// `bit(n)`, whose modifier is the length.
pub(super) fn make_fixed(spec: &TypeSpec<'_>) -> Box<dyn Codec> {
    match usize::try_from(spec.modifier) {
        // A domain over bit without a length has one bit too.
        Ok(0 | 1) | Err(_) => Box::new(Bit),
        // As Debezium's number they would need what Kafka Connect's schema says of them.
        Ok(_) if spec.options.envelope == Envelope::Upsert => Box::new(Text::OTHER),
        Ok(length) => Box::new(Bits { length, fixed: true }),
    }
}

/// `bit varying(n)`, whose modifier is the greatest length.
pub(super) fn make_varying(spec: &TypeSpec<'_>) -> Box<dyn Codec> {
    if spec.options.varying_bits == VaryingBits::Text {
        return Box::new(Text::OTHER);
    }
    match usize::try_from(spec.modifier) {
        Ok(1) => Box::new(Bit),
        Ok(length) => Box::new(Bits { length, fixed: false }),
        Err(_) => Box::new(Bits { length: LENGTH_MAX, fixed: false }),
    }
}

/// One bit.
#[derive(Debug)]
struct Bit;

impl Codec for Bit {
    fn avro_type(&self) -> AvroType {
        AvroType::plain(Physical::Boolean)
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let value = match text {
            b"0" => false,
            b"1" => true,
            // A bit varying(1) can have no bit at all, which is neither.
            b"" => return Err(EncodeErrorKind::OutOfRange),
            _ => return Err(EncodeErrorKind::MalformedText),
        };
        avro::write_boolean(out, value);
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_boolean(out, false);
    }

    fn default_rule(&self) -> DefaultRule {
        DefaultRule::Computed("0")
    }
}

/// Several bits.
#[derive(Debug)]
struct Bits {
    length: usize,
    /// Whether each value has this length; else it is the most that one can have.
    fixed: bool,
}

impl Codec for Bits {
    fn avro_type(&self) -> AvroType {
        AvroType {
            connect_parameter: Some(("length", self.length.to_string())),
            ..AvroType::named(Physical::Bytes, "io.debezium.data.Bits")
        }
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        if text.len() > self.length || self.fixed && text.len() != self.length {
            return Err(EncodeErrorKind::MalformedText);
        }
        if !text.iter().all(|bit| matches!(bit, b'0' | b'1')) {
            return Err(EncodeErrorKind::MalformedText);
        }
        let first = text.iter().position(|bit| *bit == b'1').unwrap_or(text.len());
        let bits = &text[first..];
        avro::write_length(out, bits.len().div_ceil(8));
        out.extend(bits.rchunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | (bit & 1))));
        Ok(())
    }

    fn keeps_apart(&self) -> bool {
        self.fixed
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_length(out, 0);
    }

    fn default_rule(&self) -> DefaultRule {
        DefaultRule::Literal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(bits: &Bits, text: &str) -> Result<Vec<u8>, EncodeErrorKind> {
        let mut out = Vec::new();
        bits.encode(text.as_bytes(), &mut out).map(|()| out)
    }

    #[test]
    fn the_lowest_byte_comes_first_and_zeros_in_front_do_not_come() {
        let bits = Bits { length: 9, fixed: true };
        assert_eq!(encoded(&bits, "101010101"), Ok(vec![4, 0x55, 1]));
        assert_eq!(encoded(&bits, "000000001"), Ok(vec![2, 1]));
        assert_eq!(encoded(&bits, "000000000"), Ok(vec![0]));
        assert_eq!(encoded(&bits, "010000000"), Ok(vec![2, 0x80]));
        let varying = Bits { length: 16, fixed: false };
        assert_eq!(encoded(&varying, "1101"), Ok(vec![2, 0x0d]));
        assert_eq!(encoded(&varying, ""), Ok(vec![0]));
    }

    #[test]
    fn another_length_is_refused() {
        for text in ["10101010", "1010101010", "10101010x", ""] {
            assert_eq!(encoded(&Bits { length: 9, fixed: true }, text), Err(EncodeErrorKind::MalformedText));
        }
        assert_eq!(encoded(&Bits { length: 2, fixed: false }, "111"), Err(EncodeErrorKind::MalformedText));
    }
}
