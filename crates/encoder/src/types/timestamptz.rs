//! timestamp with time zone → ISO 8601 text in UTC, with as many digits of a second as the type has.

use std::ops::RangeInclusive;

use super::{
    Codec, UNAVAILABLE,
    calendar::{CivilDate, parse_timestamptz},
};
use crate::{
    EncodeErrorKind, avro,
    schema::{AvroType, Physical},
};

const FRACTION_DIGITS_MAX: u8 = 6;
/// What PostgreSQL's timestamps range over; 4714 BC is -4713.
const YEARS: RangeInclusive<i64> = -4713..=294_276;
/// `2024-02-29`, and `2024-02-29 12:34:56`.
const DATE_TEXT_BYTES: usize = 10;
const SECONDS_TEXT_BYTES: usize = 19;
/// Room for a sign, a year of six digits and the rest.
const TEXT_BYTES_MAX: usize = 32;

pub(super) fn make(type_modifier: i32) -> Box<dyn Codec> {
    let fraction_digits = u8::try_from(type_modifier).unwrap_or(FRACTION_DIGITS_MAX).min(FRACTION_DIGITS_MAX);
    Box::new(ZonedTimestamp { fraction_digits })
}

/// `timestamp(p) with time zone`
#[derive(Debug)]
struct ZonedTimestamp {
    fraction_digits: u8,
}

impl Codec for ZonedTimestamp {
    fn avro_type(&self) -> AvroType {
        AvroType { connect_name: Some("io.debezium.time.ZonedTimestamp"), ..AvroType::plain(Physical::String) }
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        if matches!(text, b"infinity" | b"-infinity") {
            avro::write_bytes(out, text);
            return Ok(());
        }
        let (day, micros) = parse_timestamptz(text).ok_or(EncodeErrorKind::MalformedText)?;
        if !YEARS.contains(&day.year) {
            return Err(EncodeErrorKind::OutOfRange);
        }
        let unit_micros = 10_i64.pow((FRACTION_DIGITS_MAX - self.fraction_digits).into());
        if micros % unit_micros != 0 {
            return Err(EncodeErrorKind::MalformedText);
        }
        let mut iso = Iso { bytes: [0; TEXT_BYTES_MAX], length: 0 };
        match text.first_chunk::<SECONDS_TEXT_BYTES>() {
            // All but the fraction is what it was, except for one letter.
            Some(seconds) if text.ends_with(b"+00") && text[DATE_TEXT_BYTES] == b' ' => {
                iso.bytes[..SECONDS_TEXT_BYTES].copy_from_slice(seconds);
                iso.bytes[DATE_TEXT_BYTES] = b'T';
                iso.length = SECONDS_TEXT_BYTES;
            }
            _ => {
                iso.date(day);
                iso.time(micros / 1_000_000);
            }
        }
        if self.fraction_digits > 0 {
            iso.push(b'.');
            iso.digits(micros % 1_000_000 / unit_micros, self.fraction_digits.into());
        }
        iso.push(b'Z');
        avro::write_bytes(out, &iso.bytes[..iso.length]);
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_bytes(out, b"1970-01-01T00:00:00Z");
    }

    /// Such a value is never stored out of line, but there would be room.
    fn write_unavailable(&self, out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        avro::write_bytes(out, UNAVAILABLE);
        Ok(())
    }

    fn computed_default(&self) -> Option<&'static str> {
        Some("1970-01-01 00:00:00+00")
    }
}

struct Iso {
    bytes: [u8; TEXT_BYTES_MAX],
    length: usize,
}

impl Iso {
    #[inline]
    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    /// The last so many digits of a number, with zeros before it.
    #[inline]
    fn digits(&mut self, mut number: i64, digits: usize) {
        for byte in self.bytes[self.length..self.length + digits].iter_mut().rev() {
            *byte = b'0' + digit(number);
            number /= 10;
        }
        self.length += digits;
    }

    /// ISO 8601 wants four digits of a year, and a sign where there are more, or where it lies before the year 0, which is 1 BC.
    #[inline]
    fn date(&mut self, day: CivilDate) {
        let year = day.year.abs();
        if day.year < 0 {
            self.push(b'-');
        } else if year > 9999 {
            self.push(b'+');
        }
        let digits = match year {
            0..=9999 => 4,
            ..=99_999 => 5,
            _ => 6,
        };
        self.digits(year, digits);
        self.push(b'-');
        self.digits(day.month.into(), 2);
        self.push(b'-');
        self.digits(day.day.into(), 2);
    }

    #[inline]
    fn time(&mut self, seconds: i64) {
        self.push(b'T');
        self.digits(seconds / 3600, 2);
        self.push(b':');
        self.digits(seconds / 60 % 60, 2);
        self.push(b':');
        self.digits(seconds % 60, 2);
    }
}

/// The last digit of a number, which is not negative.
#[inline]
#[expect(clippy::cast_sign_loss, reason = "a remainder of ten fits")]
const fn digit(number: i64) -> u8 {
    (number % 10) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(type_modifier: i32, text: &str) -> Result<String, EncodeErrorKind> {
        let mut out = Vec::new();
        make(type_modifier).encode(text.as_bytes(), &mut out)?;
        Ok(std::str::from_utf8(avro::Reader::new(&out).bytes().unwrap()).unwrap().to_owned())
    }

    #[test]
    fn as_java_prints_it() {
        for (type_modifier, text, expected) in [
            (-1, "2024-02-29 12:34:56.789+00", "2024-02-29T12:34:56.789000Z"),
            (0, "2024-02-29 12:34:56+00", "2024-02-29T12:34:56Z"),
            (1, "2024-02-29 12:34:56.7+00", "2024-02-29T12:34:56.7Z"),
            (6, "0001-01-01 00:00:00+00 BC", "0000-01-01T00:00:00.000000Z"),
            (3, "4714-11-24 00:00:00+00 BC", "-4713-11-24T00:00:00.000Z"),
            (6, "10000-01-01 00:00:00+00", "+10000-01-01T00:00:00.000000Z"),
            (6, "294276-12-31 23:59:59.999999+00", "+294276-12-31T23:59:59.999999Z"),
            (6, "-infinity", "-infinity"),
        ] {
            assert_eq!(encoded(type_modifier, text).as_deref(), Ok(expected));
        }
        assert_eq!(encoded(3, "2024-02-29 12:34:56.7891+00"), Err(EncodeErrorKind::MalformedText));
        assert_eq!(encoded(6, "294276-12-31 23:59:59-00:01"), Err(EncodeErrorKind::OutOfRange));
        assert_eq!(encoded(6, "9999999-12-31 23:59:59+00"), Err(EncodeErrorKind::OutOfRange));
        assert_eq!(encoded(6, "4715-12-31 23:59:59+00 BC"), Err(EncodeErrorKind::OutOfRange));
    }
}
