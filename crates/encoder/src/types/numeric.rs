//! numeric(p,s) → Avro decimal; numeric → a record of scale and unscaled value; or both → double, or string.
//!
//! `NaN` and the infinities are no decimals: they are an error, since every number in their place would be a wrong one. A double has them,
//! and a string has the names that PostgreSQL has for them; Debezium has other names.

use num_bigint::{BigInt, Sign};

use super::{Codec, DefaultRule, TypeSpec, text::write_string};
use crate::{
    Decimals, EncodeErrorKind, avro,
    schema::{AvroType, Physical},
};

/// `atttypmod` has this added to it (`VARHDRSZ`).
const MODIFIER_OFFSET: i32 = 4;
/// So many digits fit an `i64`, and this many an `i128`, whatever they are.
const SAFE_DIGITS: usize = 18;
const SAFE_WIDE_DIGITS: usize = 38;

pub(super) fn make(spec: &TypeSpec<'_>) -> Box<dyn Codec> {
    match spec.options.decimals {
        Decimals::PreciseOrString if spec.modifier < MODIFIER_OFFSET => Box::new(NumberText),
        Decimals::Precise | Decimals::PreciseOrString => make_precise(spec.modifier),
        Decimals::Double => Box::new(Double),
        Decimals::String => Box::new(NumberText),
    }
}

/// Reads the modifier as PostgreSQL 15 and later make it: the precision above 16 bits, the scale below in 11 bits with a sign.
fn make_precise(type_modifier: i32) -> Box<dyn Codec> {
    if type_modifier < MODIFIER_OFFSET {
        return Box::new(VariableScale);
    }
    let modifier = type_modifier - MODIFIER_OFFSET;
    let precision = modifier >> 16 & 0xffff;
    let scale = ((modifier & 0x7ff) ^ 1024) - 1024;
    // Avro wants 0 <= scale <= precision. A negative scale rounds before the point, and such numbers print with zeros there; a scale above
    // the precision only says that the first digits after the point are zeros.
    let fraction_digits = scale.max(0);
    let precision = (precision - scale.min(0)).max(fraction_digits).max(1);
    Box::new(Decimal { precision: precision.unsigned_abs(), scale: fraction_digits.unsigned_abs() })
}

/// `numeric(p,s)`
#[derive(Debug)]
struct Decimal {
    precision: u32,
    scale: u32,
}

impl Codec for Decimal {
    fn avro_type(&self) -> AvroType {
        let (precision, scale) = (self.precision, self.scale);
        AvroType::plain(Physical::Decimal { precision, scale, states_precision: true })
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let number = Number::parse(text)?;
        let zeros = (self.scale as usize).checked_sub(number.fraction.len()).ok_or(EncodeErrorKind::MalformedText)?;
        number.write_unscaled(zeros, out);
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_bytes(out, &[0]);
    }

    fn default_rule(&self) -> DefaultRule {
        DefaultRule::Computed("0")
    }
}

/// `numeric`, where each value has a scale of its own. As in Debezium, zeros at the end of the fraction do not count for it.
#[derive(Debug)]
struct VariableScale;

impl Codec for VariableScale {
    fn avro_type(&self) -> AvroType {
        AvroType::plain(Physical::VariableScaleDecimal)
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let mut number = Number::parse(text)?;
        let zeros = number.fraction.iter().rev().take_while(|digit| **digit == b'0').count();
        number.fraction = &number.fraction[..number.fraction.len() - zeros];
        avro::write_length(out, number.fraction.len());
        number.write_unscaled(0, out);
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_long(out, 0);
        avro::write_bytes(out, &[0]);
    }
}

/// `numeric` as the double that is nearest to it.
#[derive(Debug)]
struct Double;

impl Codec for Double {
    fn avro_type(&self) -> AvroType {
        AvroType::plain(Physical::Double)
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        if !matches!(text, b"NaN" | b"Infinity" | b"-Infinity") {
            Number::parse(text)?;
        }
        // It is a number, so what is not read is one that is too large.
        avro::write_double(out, super::float::parse_double(text).ok_or(EncodeErrorKind::OutOfRange)?);
        Ok(())
    }

    fn keeps_apart(&self) -> bool {
        false
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_double(out, 0.0);
    }

    fn default_rule(&self) -> DefaultRule {
        DefaultRule::Computed("0")
    }
}

/// `numeric` as PostgreSQL prints it.
#[derive(Debug)]
struct NumberText;

impl Codec for NumberText {
    fn avro_type(&self) -> AvroType {
        AvroType::plain(Physical::String)
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        write_string(text, out)
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_bytes(out, b"0");
    }

    fn takes_placeholder(&self) -> bool {
        true
    }

    fn default_rule(&self) -> DefaultRule {
        DefaultRule::Computed("0")
    }
}

/// A number as PostgreSQL prints it: never with an exponent.
struct Number<'a> {
    negative: bool,
    integer: &'a [u8],
    fraction: &'a [u8],
}

impl<'a> Number<'a> {
    #[inline]
    fn parse(text: &'a [u8]) -> Result<Self, EncodeErrorKind> {
        let (negative, digits) = match text {
            b"NaN" | b"Infinity" | b"-Infinity" => return Err(EncodeErrorKind::NotANumber),
            [b'-', digits @ ..] => (true, digits),
            digits => (false, digits),
        };
        let (integer, fraction) = match digits.iter().position(|byte| *byte == b'.') {
            // A point has digits on both sides.
            Some(point) if point + 1 < digits.len() => (&digits[..point], &digits[point + 1..]),
            Some(_) => return Err(EncodeErrorKind::MalformedText),
            None => (digits, &[][..]),
        };
        if integer.is_empty() || !integer.iter().chain(fraction).all(u8::is_ascii_digit) {
            return Err(EncodeErrorKind::MalformedText);
        }
        Ok(Self { negative, integer, fraction })
    }

    /// Appends the digits, followed by so many zeros, as `bytes`: two's complement, the highest first, in as few bytes as possible.
    #[inline]
    fn write_unscaled(&self, zeros: usize, out: &mut Vec<u8>) {
        let digits = self.integer.len() + self.fraction.len() + zeros;
        if digits <= SAFE_DIGITS {
            let value = self.digits(zeros).fold(0, |value, digit| value * 10 + i64::from(digit));
            let value = if self.negative { -value } else { value };
            let sign_bits = if value < 0 { value.leading_ones() } else { value.leading_zeros() };
            write_shortest(out, &value.to_be_bytes(), sign_bits);
        } else if digits <= SAFE_WIDE_DIGITS {
            let value = self.digits(zeros).fold(0, |value, digit| value * 10 + i128::from(digit));
            write_unscaled(if self.negative { -value } else { value }, out);
        } else {
            self.write_unscaled_wide(zeros, out);
        }
    }

    #[cold]
    fn write_unscaled_wide(&self, zeros: usize, out: &mut Vec<u8>) {
        let digits: Vec<u8> = self.digits(zeros).collect();
        let sign = if self.negative { Sign::Minus } else { Sign::Plus };
        let value = BigInt::from_radix_be(sign, &digits, 10).unwrap_or_default();
        avro::write_bytes(out, &value.to_signed_bytes_be());
    }

    fn digits(&self, zeros: usize) -> impl Iterator<Item = u8> {
        self.integer.iter().chain(self.fraction).map(|digit| digit - b'0').chain(std::iter::repeat_n(0, zeros))
    }
}

/// Appends a number as the unscaled value of a decimal.
#[inline]
pub(super) fn write_unscaled(value: i128, out: &mut Vec<u8>) {
    let sign_bits = if value < 0 { value.leading_ones() } else { value.leading_zeros() };
    write_shortest(out, &value.to_be_bytes(), sign_bits);
}

/// Appends a number without the bytes that only repeat its sign, of which one bit has to stay.
#[inline]
fn write_shortest(out: &mut Vec<u8>, bytes: &[u8], sign_bits: u32) {
    let repeated = (sign_bits - 1) / 8;
    avro::write_bytes(out, &bytes[repeated as usize..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(type_modifier: i32, text: &str) -> Result<Vec<u8>, EncodeErrorKind> {
        let mut out = Vec::new();
        make_precise(type_modifier).encode(text.as_bytes(), &mut out).map(|()| out)
    }

    fn modifier(precision: i32, scale: i32) -> i32 {
        (precision << 16 | scale & 0x7ff) + MODIFIER_OFFSET
    }

    #[test]
    fn precision_and_scale_come_from_the_modifier() {
        for (precision, scale, expected) in [
            (12, 4, (12, 4)),
            (10, 0, (10, 0)),
            (1000, 1000, (1000, 1000)),
            (3, -2, (5, 0)),
            (3, 5, (5, 5)),
            (1, -1000, (1001, 0)),
        ] {
            let physical = make_precise(modifier(precision, scale)).avro_type().physical;
            let Physical::Decimal { precision, scale, .. } = physical else {
                panic!("numeric({precision},{scale}) is a decimal");
            };
            assert_eq!((precision, scale), expected);
        }
    }

    #[test]
    fn the_shortest_twos_complement() {
        for (text, expected) in [
            ("0", &[0_u8][..]),
            ("1", &[1]),
            ("-1", &[0xff]),
            ("127", &[0x7f]),
            ("128", &[0, 0x80]),
            ("-128", &[0x80]),
            ("-129", &[0xff, 0x7f]),
            ("-0", &[0]),
            ("18446744073709551615", &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ] {
            let mut out = Vec::new();
            avro::write_bytes(&mut out, expected);
            assert_eq!(encoded(modifier(30, 0), text), Ok(out), "{text}");
        }
    }

    #[test]
    fn all_widths_agree_with_num_bigint() {
        for length in 1..80 {
            for first in ["1", "5", "9", "-1", "-9"] {
                let text = format!("{first}{}", "7".repeat(length - 1));
                let expected = text.parse::<BigInt>().unwrap().to_signed_bytes_be();
                let mut out = Vec::new();
                avro::write_bytes(&mut out, &expected);
                assert_eq!(encoded(modifier(1000, 0), &text), Ok(out), "{text}");
            }
        }
    }

    #[test]
    fn what_a_decimal_cannot_hold_is_an_error() {
        for text in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(encoded(modifier(5, 2), text), Err(EncodeErrorKind::NotANumber));
            assert_eq!(encoded(-1, text), Err(EncodeErrorKind::NotANumber));
        }
        for text in ["", "-", ".5", "5.", "1e5", "+1", "1.2.3", "1,5", "1.234"] {
            assert_eq!(encoded(modifier(5, 2), text), Err(EncodeErrorKind::MalformedText), "{text}");
        }
    }

    #[test]
    fn a_double_is_the_nearest_and_never_infinite_by_itself() {
        let encoded = |text: &str| {
            let mut out = Vec::new();
            Double.encode(text.as_bytes(), &mut out).map(|()| avro::Reader::new(&out).double().unwrap())
        };
        assert_eq!(encoded("0.1"), Ok(0.1));
        assert_eq!(encoded("123456789012345678901234567890.5"), Ok(1.234_567_890_123_456_8e29));
        assert_eq!(encoded("-Infinity"), Ok(f64::NEG_INFINITY));
        assert!(encoded("NaN").unwrap().is_nan());
        assert_eq!(encoded(&"9".repeat(400)), Err(EncodeErrorKind::OutOfRange));
        assert_eq!(encoded("1e5"), Err(EncodeErrorKind::MalformedText));
    }
}
