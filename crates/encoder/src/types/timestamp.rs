//! timestamp → the time since 1970-01-01 00:00 as if it were in UTC, Avro long: milliseconds up to timestamp(3), microseconds past that; or
//! other units, or ISO 8601 text.
//!
//! The infinities have the values that Debezium documents for them. A timestamp that would have one of these values, or that does not fit,
//! is an error: PostgreSQL's timestamps end in 294276, and 64 bits of microseconds since 1970 thirty years before that. Debezium writes
//! a number that has wrapped around.

use super::{
    Codec, DefaultRule, TypeSpec,
    calendar::{CivilDate, DAY_MICROS, parse_timestamp},
    iso::{Iso, TIMESTAMP_YEARS},
};
use crate::{
    EncodeErrorKind, Times, avro,
    schema::{AvroType, Physical},
};

pub(super) const INFINITY_MICROS: i64 = 9_223_372_036_825_200_000;
pub(super) const NEGATIVE_INFINITY_MICROS: i64 = -9_223_372_036_832_400_000;
const MILLISECOND_MICROS: i64 = 1000;
const MICROSECOND_NANOS: i64 = 1000;
const MILLISECOND_DIGITS: i32 = 3;

pub(super) fn make(spec: &TypeSpec<'_>) -> Box<dyn Codec> {
    let form = match spec.options.times {
        Times::Adaptive | Times::AdaptiveMicroseconds if (0..=MILLISECOND_DIGITS).contains(&spec.modifier) => {
            Form::Millis
        }
        Times::Adaptive | Times::AdaptiveMicroseconds | Times::Microseconds => Form::Micros,
        Times::Connect => Form::Connect,
        Times::Native => Form::Native,
        Times::IsoString => Form::Iso,
        Times::Nanoseconds => Form::Nanos,
    };
    Box::new(Timestamp { form })
}

/// `timestamp` of any precision.
#[derive(Debug)]
struct Timestamp {
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Millis,
    Micros,
    Nanos,
    Connect,
    /// Microseconds under Avro's name.
    Native,
    Iso,
}

impl Codec for Timestamp {
    fn avro_type(&self) -> AvroType {
        match self.form {
            Form::Millis => AvroType::named(Physical::Long, "io.debezium.time.Timestamp"),
            Form::Micros => AvroType::named(Physical::Long, "io.debezium.time.MicroTimestamp"),
            Form::Nanos => AvroType::named(Physical::Long, "io.debezium.time.NanoTimestamp"),
            Form::Connect => AvroType {
                logical_type: Some("timestamp-millis"),
                ..AvroType::named(Physical::Long, "org.apache.kafka.connect.data.Timestamp")
            },
            Form::Native => {
                AvroType { logical_type: Some("local-timestamp-micros"), ..AvroType::plain(Physical::Long) }
            }
            Form::Iso => AvroType::named(Physical::String, "io.debezium.time.IsoTimestamp"),
        }
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let infinity = match text {
            b"infinity" => Some(INFINITY_MICROS),
            b"-infinity" => Some(NEGATIVE_INFINITY_MICROS),
            _ => None,
        };
        if let Some(micros) = infinity {
            match self.form {
                Form::Micros | Form::Native => avro::write_long(out, micros),
                Form::Millis | Form::Connect => avro::write_long(out, micros / MILLISECOND_MICROS),
                Form::Nanos => return Err(EncodeErrorKind::OutOfRange),
                Form::Iso => avro::write_bytes(out, text),
            }
            return Ok(());
        }
        let (day, micros) = parse_timestamp(text).ok_or(EncodeErrorKind::MalformedText)?;
        match self.form {
            Form::Micros | Form::Native => {
                avro::write_long(out, finite_micros(day, micros).ok_or(EncodeErrorKind::OutOfRange)?);
            }
            // The type has no such digits.
            Form::Millis if micros % MILLISECOND_MICROS != 0 => return Err(EncodeErrorKind::MalformedText),
            Form::Millis | Form::Connect => {
                let millis = day.unix_days() * (DAY_MICROS / MILLISECOND_MICROS) + micros / MILLISECOND_MICROS;
                if millis == INFINITY_MICROS / MILLISECOND_MICROS {
                    return Err(EncodeErrorKind::OutOfRange);
                }
                avro::write_long(out, millis);
            }
            Form::Nanos => {
                let nanos = finite_micros(day, micros).and_then(|micros| micros.checked_mul(MICROSECOND_NANOS));
                avro::write_long(out, nanos.ok_or(EncodeErrorKind::OutOfRange)?);
            }
            Form::Iso => {
                if !TIMESTAMP_YEARS.contains(&day.year) {
                    return Err(EncodeErrorKind::OutOfRange);
                }
                let mut iso = Iso::new();
                iso.date(day);
                iso.push(b'T');
                iso.time_micros(micros);
                iso.offset(0);
                avro::write_bytes(out, iso.text());
            }
        }
        Ok(())
    }

    fn keeps_apart(&self) -> bool {
        self.form != Form::Connect
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        if self.form == Form::Iso { avro::write_bytes(out, b"1970-01-01T00:00:00Z") } else { avro::write_long(out, 0) }
    }

    /// Such a value is never stored out of line, but an array of them can be.
    fn takes_placeholder(&self) -> bool {
        self.form == Form::Iso
    }

    fn default_rule(&self) -> DefaultRule {
        DefaultRule::Computed("1970-01-01 00:00:00")
    }
}

/// Microseconds since 1970, if they fit and are none that stands for an infinity.
#[inline]
pub(super) fn finite_micros(day: CivilDate, micros: i64) -> Option<i64> {
    let micros = day.unix_days().checked_mul(DAY_MICROS)?.checked_add(micros)?;
    (NEGATIVE_INFINITY_MICROS + 1..INFINITY_MICROS).contains(&micros).then_some(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(type_modifier: i32, text: &str) -> Result<i64, EncodeErrorKind> {
        let mut out = Vec::new();
        let form = if (0..=3).contains(&type_modifier) { Form::Millis } else { Form::Micros };
        Timestamp { form }.encode(text.as_bytes(), &mut out)?;
        Ok(avro::Reader::new(&out).long().unwrap())
    }

    #[test]
    fn what_microseconds_cannot_say_is_an_error() {
        // The last that can be told from the infinity.
        assert_eq!(encoded(-1, "294247-01-10 04:00:25.199999"), Ok(INFINITY_MICROS - 1));
        assert_eq!(encoded(-1, "294247-01-10 04:00:25.2"), Err(EncodeErrorKind::OutOfRange));
        assert_eq!(encoded(-1, "294276-12-31 23:59:59.999999"), Err(EncodeErrorKind::OutOfRange));
        assert_eq!(encoded(3, "294276-12-31 23:59:59.999"), Ok(9_224_318_015_999_999));
        assert_eq!(encoded(-1, "9999999-12-31 23:59:59"), Err(EncodeErrorKind::OutOfRange));
    }

    #[test]
    fn a_fraction_that_the_type_does_not_have_is_not_cut_off() {
        assert_eq!(encoded(3, "2024-02-29 12:34:56.789"), Ok(1_709_210_096_789));
        assert_eq!(encoded(3, "2024-02-29 12:34:56.7891"), Err(EncodeErrorKind::MalformedText));
    }

    #[test]
    fn infinities_and_the_first_timestamp() {
        assert_eq!(encoded(-1, "infinity"), Ok(9_223_372_036_825_200_000));
        assert_eq!(encoded(-1, "-infinity"), Ok(-9_223_372_036_832_400_000));
        assert_eq!(encoded(0, "infinity"), Ok(9_223_372_036_825_200));
        assert_eq!(encoded(0, "-infinity"), Ok(-9_223_372_036_832_400));
        assert_eq!(encoded(6, "4714-11-24 00:00:00 BC"), Ok(-2_440_588 * DAY_MICROS));
    }

    #[test]
    fn nanoseconds_have_fewer_years() {
        let encoded = |text: &str| {
            let mut out = Vec::new();
            Timestamp { form: Form::Nanos }.encode(text.as_bytes(), &mut out)?;
            Ok(avro::Reader::new(&out).long().unwrap())
        };
        assert_eq!(encoded("2024-02-29 12:34:56.789012"), Ok(1_709_210_096_789_012_000));
        assert_eq!(encoded("2262-04-11 23:47:16.854775"), Ok(9_223_372_036_854_775_000));
        assert_eq!(encoded("1677-09-21 00:12:43.145225"), Ok(-9_223_372_036_854_775_000));
        for text in [
            "2262-04-11 23:47:16.854776",
            "1677-09-21 00:12:43.145224",
            "294276-12-31 00:00:00",
            "infinity",
            "-infinity",
        ] {
            assert_eq!(encoded(text), Err(EncodeErrorKind::OutOfRange), "{text}");
        }
    }

    #[test]
    fn text_and_kafka_connects_own() {
        for (text, expected) in [
            ("2024-02-29 12:34:56.78", "2024-02-29T12:34:56.78Z"),
            ("2024-02-29 12:00:00", "2024-02-29T12:00:00Z"),
            ("0044-03-15 12:00:00 BC", "-0043-03-15T12:00:00Z"),
            ("294276-12-31 23:59:59.999999", "+294276-12-31T23:59:59.999999Z"),
            // What timestamp(0) makes of the one before.
            ("294277-01-01 00:00:00", "+294277-01-01T00:00:00Z"),
            ("infinity", "infinity"),
        ] {
            let mut out = Vec::new();
            Timestamp { form: Form::Iso }.encode(text.as_bytes(), &mut out).unwrap();
            assert_eq!(std::str::from_utf8(avro::Reader::new(&out).bytes().unwrap()), Ok(expected));
        }
        let mut out = Vec::new();
        Timestamp { form: Form::Connect }.encode(b"1969-12-31 23:59:59.999999", &mut out).unwrap();
        assert_eq!(avro::Reader::new(&out).long(), Some(-1), "what is cut off makes it earlier");
    }
}
