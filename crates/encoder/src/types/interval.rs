//! interval → Avro long, Debezium's `MicroDuration`, or ISO 8601 text, Debezium's `Interval`.
//!
//! An interval is months, days and microseconds, none of which is a number of another (PostgreSQL documentation, 8.5.4). As a number, a
//! day has 24 hours and a month a twelfth of 365.25 days, which are Debezium's lengths. It is reckoned in integers here: Debezium's
//! floating point can be off by some microseconds.

use super::{Codec, DefaultRule, TypeSpec};
use crate::{
    EncodeErrorKind, Intervals, avro,
    schema::{AvroType, Physical},
};

const SECOND_MICROS: i64 = 1_000_000;
const DAY_MICROS: i128 = 86_400_000_000;
/// 30.4375 days.
const MONTH_MICROS: i128 = 2_629_800_000_000;

pub(super) fn make(spec: &TypeSpec<'_>) -> Box<dyn Codec> {
    match spec.options.intervals {
        Intervals::Numeric => Box::new(MicroDuration),
        Intervals::String => Box::new(IsoInterval),
    }
}

/// An `interval` as a number.
#[derive(Debug)]
struct MicroDuration;

impl Codec for MicroDuration {
    fn avro_type(&self) -> AvroType {
        AvroType::named(Physical::Long, "io.debezium.time.MicroDuration")
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        if matches!(text, b"infinity" | b"-infinity") {
            return Err(EncodeErrorKind::OutOfRange);
        }
        let interval = Interval::parse(text).ok_or(EncodeErrorKind::MalformedText)?;
        let months = i128::from(interval.years) * 12 + i128::from(interval.months);
        let micros = months * MONTH_MICROS + i128::from(interval.days) * DAY_MICROS + i128::from(interval.micros);
        avro::write_long(out, i64::try_from(micros).map_err(|_| EncodeErrorKind::OutOfRange)?);
        Ok(())
    }

    fn keeps_apart(&self) -> bool {
        false
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_long(out, 0);
    }

    fn default_rule(&self) -> DefaultRule {
        DefaultRule::Computed("00:00:00")
    }
}

/// An `interval` as text.
#[derive(Debug)]
struct IsoInterval;

impl Codec for IsoInterval {
    fn avro_type(&self) -> AvroType {
        AvroType::named(Physical::String, "io.debezium.time.Interval")
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        if matches!(text, b"infinity" | b"-infinity") {
            avro::write_bytes(out, text);
            return Ok(());
        }
        let interval = Interval::parse(text).ok_or(EncodeErrorKind::MalformedText)?;
        let start = out.len();
        interval.write_iso(out);
        avro::insert_length(out, start);
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_bytes(out, b"P0Y0M0DT0H0M0S");
    }

    fn takes_placeholder(&self) -> bool {
        true
    }

    fn default_rule(&self) -> DefaultRule {
        DefaultRule::Computed("00:00:00")
    }
}

/// What PostgreSQL prints with `IntervalStyle` postgres, such as `1 year -2 mons +3 days -04:05:06.789`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Interval {
    years: i32,
    months: i32,
    days: i32,
    micros: i64,
}

impl Interval {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut interval = Self::default();
        let mut words = text.split(|byte| *byte == b' ');
        // How far the parts have come, which are in this order and each once.
        let mut seen = 0;
        while let Some(word) = words.next() {
            if word.contains(&b':') {
                interval.micros = parse_time(word)?;
                return words.next().is_none().then_some(interval);
            }
            let number = parse_number(word)?;
            let (place, part) = match words.next()? {
                b"year" | b"years" => (1, &mut interval.years),
                b"mon" | b"mons" => (2, &mut interval.months),
                b"day" | b"days" => (3, &mut interval.days),
                _ => return None,
            };
            if place <= seen {
                return None;
            }
            (seen, *part) = (place, number);
        }
        (seen > 0).then_some(interval)
    }

    fn write_iso(self, out: &mut Vec<u8>) {
        let seconds = self.micros / SECOND_MICROS;
        out.push(b'P');
        write_part(self.years.into(), b"Y", out);
        write_part(self.months.into(), b"M", out);
        write_part(self.days.into(), b"DT", out);
        write_part(seconds / 3600, b"H", out);
        write_part(seconds / 60 % 60, b"M", out);
        // The fraction has the sign of all of it, which 0 does not show.
        let (second, mut fraction) = (seconds % 60, (self.micros % SECOND_MICROS).unsigned_abs());
        if self.micros < 0 && second == 0 && fraction != 0 {
            out.push(b'-');
        }
        write_part(second, b"", out);
        if fraction != 0 {
            out.push(b'.');
            let mut unit = SECOND_MICROS.unsigned_abs() / 10;
            while fraction != 0 {
                // A digit.
                out.push(b'0' + u8::try_from(fraction / unit).unwrap_or_default());
                fraction %= unit;
                unit /= 10;
            }
        }
        out.push(b'S');
    }
}

fn write_part(number: i64, unit: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    out.extend_from_slice(unit);
}

/// Digits, with a sign or without.
fn parse_number(word: &[u8]) -> Option<i32> {
    let (negative, digits) = split_sign(word);
    let number = parse_digits(digits)?;
    i32::try_from(if negative { -number } else { number }).ok()
}

/// Whether there is a minus, and what comes after a sign.
fn split_sign(word: &[u8]) -> (bool, &[u8]) {
    match word {
        [sign @ (b'-' | b'+'), word @ ..] => (*sign == b'-', word),
        word => (false, word),
    }
}

fn parse_digits(digits: &[u8]) -> Option<i64> {
    let fits = !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit);
    fits.then(|| digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

/// Hours of any length, minutes, seconds, and up to six digits of a fraction; in microseconds.
fn parse_time(word: &[u8]) -> Option<i64> {
    let (negative, word) = split_sign(word);
    let mut parts = word.split(|byte| *byte == b':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let (seconds, fraction) = match seconds.iter().position(|byte| *byte == b'.') {
        Some(point) => (&seconds[..point], Some(&seconds[point + 1..])),
        None => (seconds, None),
    };
    if parts.next().is_some() || hours.len() < 2 || minutes.len() != 2 || seconds.len() != 2 {
        return None;
    }
    let (hours, minutes, seconds) = (parse_digits(hours)?, parse_digits(minutes)?, parse_digits(seconds)?);
    if minutes > 59 || seconds > 59 {
        return None;
    }
    let fraction = match fraction {
        Some(digits @ ([_] | [_, _] | [_, _, _] | [_, _, _, _] | [_, _, _, _, _] | [_, _, _, _, _, _])) => {
            let unit = [100_000, 10_000, 1000, 100, 10, 1][digits.len() - 1];
            parse_digits(digits)? * unit
        }
        Some(_) => return None,
        None => 0,
    };
    // Wider than the result, whose least value has no positive counterpart.
    let seconds = (i128::from(hours) * 60 + i128::from(minutes)) * 60 + i128::from(seconds);
    let micros = seconds * i128::from(SECOND_MICROS) + i128::from(fraction);
    i64::try_from(if negative { -micros } else { micros }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<i64, EncodeErrorKind> {
        let mut out = Vec::new();
        MicroDuration.encode(text.as_bytes(), &mut out)?;
        Ok(avro::Reader::new(&out).long().unwrap())
    }

    fn iso(text: &str) -> String {
        let mut out = Vec::new();
        match IsoInterval.encode(text.as_bytes(), &mut out) {
            Ok(()) => String::from_utf8(avro::Reader::new(&out).bytes().unwrap().to_vec()).unwrap(),
            Err(kind) => kind.as_str().to_owned(),
        }
    }

    #[test]
    fn as_a_number() {
        for (text, expected) in [
            ("00:00:00", 0),
            ("1 year 2 mons 3 days 04:05:06.789", 37_091_106_789_000),
            ("-1 days +02:03:04", -79_016_000_000),
            ("1 mon", 2_629_800_000_000),
            ("-00:00:00.000001", -1),
            ("2562047788:00:54.775807", i64::MAX),
            ("-2562047788:00:54.775808", i64::MIN),
        ] {
            assert_eq!(number(text), Ok(expected), "{text}");
        }
        for text in ["infinity", "-infinity", "178000000 years", "-178000000 years", "1 day 2562047788:00:54.775807"] {
            assert_eq!(number(text), Err(EncodeErrorKind::OutOfRange), "{text}");
        }
    }

    #[test]
    fn as_text() {
        for (text, expected) in [
            ("00:00:00", "P0Y0M0DT0H0M0S"),
            ("1 year 2 mons 3 days 04:05:06.789", "P1Y2M3DT4H5M6.789S"),
            ("-1 years -2 mons +3 days -04:05:06.000001", "P-1Y-2M3DT-4H-5M-6.000001S"),
            ("-00:00:00.5", "P0Y0M0DT0H0M-0.5S"),
            ("-00:01:00.05", "P0Y0M0DT0H-1M-0.05S"),
            ("-2562047788:00:54.775808", "P0Y0M0DT-2562047788H0M-54.775808S"),
            ("infinity", "infinity"),
            ("-178956970 years -8 mons -2147483648 days", "P-178956970Y-8M-2147483648DT0H0M0S"),
        ] {
            assert_eq!(iso(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_printed_so_is_malformed() {
        for text in [
            "",
            " ",
            "1",
            "1 hour",
            "1 year ",
            " 1 year",
            "1  year",
            "1 day 1 mon",
            "1 mon 1 mon",
            "00:00",
            "0:00:00",
            "00:60:00",
            "00:00:60",
            "00:00:00.",
            "00:00:00.1234567",
            "00:00:00 1 day",
            "00:00:00:00",
            "x years",
            "- years",
            "1 year ago",
            "00:00:0x",
            "99999999999999999999:00:00",
            "2147483648 days",
            "@ 1 day",
            "P1D",
        ] {
            assert_eq!(number(text), Err(EncodeErrorKind::MalformedText), "{text:?}");
        }
    }
}
