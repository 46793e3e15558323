//! money → decimal with two digits after the point, double, or string.
//!
//! How it is printed is up to `lc_monetary`. What is read here is digits with two of them behind the last mark, such as `-$1,234.56`, or
//! `1.234,56 €`; other currencies have no such digits, or three, which text does not tell from thousands, so that is an error.

use std::io::Write;

use super::{Codec, TypeSpec};
use crate::{
    Decimals, EncodeErrorKind, avro,
    schema::{AvroType, Physical},
};

/// What Kafka Connect's converter has for a decimal that says nothing of its precision.
const PRECISION: u32 = 64;
const SCALE: u32 = 2;
const UNITS: i128 = 100;

pub(super) fn make(spec: &TypeSpec<'_>) -> Box<dyn Codec> {
    Box::new(Money { form: spec.options.decimals })
}

/// `money`
#[derive(Debug)]
struct Money {
    form: Decimals,
}

impl Codec for Money {
    fn avro_type(&self) -> AvroType {
        AvroType::plain(match self.form {
            Decimals::Precise | Decimals::PreciseOrString => {
                Physical::Decimal { precision: PRECISION, scale: SCALE, states_precision: false }
            }
            Decimals::Double => Physical::Double,
            Decimals::String => Physical::String,
        })
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let units = parse(text).ok_or(EncodeErrorKind::MalformedText)?;
        match self.form {
            Decimals::Precise | Decimals::PreciseOrString => super::numeric::write_unscaled(units, out),
            #[expect(clippy::cast_precision_loss, reason = "this is what the form is")]
            Decimals::Double => avro::write_double(out, units as f64 / UNITS as f64),
            Decimals::String => {
                let sign = if units < 0 { "-" } else { "" };
                let units = units.unsigned_abs();
                let (whole, fraction) = (units / UNITS.unsigned_abs(), units % UNITS.unsigned_abs());
                let start = out.len();
                write!(out, "{sign}{whole}.{fraction:02}").expect("a Vec takes all that is written to it");
                avro::insert_length(out, start);
            }
        }
        Ok(())
    }

    fn keeps_apart(&self) -> bool {
        self.form != Decimals::Double
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        match self.form {
            Decimals::Precise | Decimals::PreciseOrString => avro::write_bytes(out, &[0]),
            Decimals::Double => avro::write_double(out, 0.0),
            Decimals::String => avro::write_bytes(out, b"0.00"),
        }
    }
}

/// Hundredths.
fn parse(text: &[u8]) -> Option<i128> {
    // Longer than this is no bigint, with any marks.
    if text.len() > 64 {
        return None;
    }
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let (first, last) = (text.iter().position(is_digit)?, text.iter().rposition(is_digit)?);
    let (before, number, after) = (&text[..first], &text[first..=last], &text[last + 1..]);
    let (integer, [mark @ (b'.' | b','), fraction @ ..]) = number.split_at_checked(number.len().checked_sub(3)?)?
    else {
        return None;
    };
    let mut groups = integer.split(|byte| !byte.is_ascii_digit());
    let whole = groups.next()?;
    let grouped = groups.all(|group| group.len() == 3) && (whole.len() <= 3 || whole.len() == integer.len());
    if whole.is_empty()
        || before.ends_with(b",")
        || !grouped
        || integer.contains(mark)
        || !fraction.iter().all(u8::is_ascii_digit)
    {
        return None;
    }
    let digits = integer.iter().chain(fraction).filter(|byte| byte.is_ascii_digit());
    let units = digits.fold(0, |units, digit| units * 10 + i128::from(digit - b'0'));
    // Some locales have the sign behind the number, and some have parentheses in its place.
    let negative = before.contains(&b'-') || after.contains(&b'-') || before.contains(&b'(') && after.contains(&b')');
    let units = if negative { -units } else { units };
    i64::try_from(units).ok().map(i128::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_digits_behind_the_last_mark() {
        for (text, expected) in [
            ("$0.00", 0),
            ("$1,234.56", 123_456),
            ("-$1,234,567.89", -123_456_789),
            ("($5.00)", -500),
            ("1.234,56 €", 123_456),
            ("5,00-", -500),
            ("$92,233,720,368,547,758.07", i64::MAX.into()),
            ("-$92,233,720,368,547,758.08", i64::MIN.into()),
            ("1234.56", 123_456),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for text in [
            "",
            "$",
            "¥1,234",
            "¥5",
            "BD 1.234",
            "$1,23.45",
            "$1,2345.67",
            "1.234.56",
            ".56",
            "$,123.45",
            "$92,233,720,368,547,758.08",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
