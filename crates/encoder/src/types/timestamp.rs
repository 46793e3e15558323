//! timestamp → the time since 1970-01-01 00:00 as if it were in UTC, Avro long: milliseconds up to timestamp(3), microseconds past that.
//!
//! The infinities have the values that Debezium documents for them. A timestamp that would have one of these values, or that does not fit,
//! is an error: PostgreSQL's timestamps end in 294276, and 64 bits of microseconds since 1970 thirty years before that. Debezium writes
//! a number that has wrapped around.

use super::{
    Codec,
    calendar::{DAY_MICROS, parse_timestamp},
};
use crate::{
    EncodeErrorKind, avro,
    schema::{AvroType, Physical},
};

const INFINITY_MICROS: i64 = 9_223_372_036_825_200_000;
const NEGATIVE_INFINITY_MICROS: i64 = -9_223_372_036_832_400_000;
const MILLISECOND_MICROS: i64 = 1000;
const MILLISECOND_DIGITS: i32 = 3;

pub(super) fn make(type_modifier: i32) -> Box<dyn Codec> {
    if (0..=MILLISECOND_DIGITS).contains(&type_modifier) { Box::new(Timestamp) } else { Box::new(MicroTimestamp) }
}

/// `timestamp(0)` to `timestamp(3)`
#[derive(Debug)]
struct Timestamp;

impl Codec for Timestamp {
    fn avro_type(&self) -> AvroType {
        AvroType { connect_name: Some("io.debezium.time.Timestamp"), ..AvroType::plain(Physical::Long) }
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let millis = match text {
            b"infinity" => INFINITY_MICROS / MILLISECOND_MICROS,
            b"-infinity" => NEGATIVE_INFINITY_MICROS / MILLISECOND_MICROS,
            _ => {
                let (day, micros) = parse_timestamp(text).ok_or(EncodeErrorKind::MalformedText)?;
                if micros % MILLISECOND_MICROS != 0 {
                    return Err(EncodeErrorKind::MalformedText);
                }
                let millis = day.unix_days() * (DAY_MICROS / MILLISECOND_MICROS) + micros / MILLISECOND_MICROS;
                if millis == INFINITY_MICROS / MILLISECOND_MICROS {
                    return Err(EncodeErrorKind::OutOfRange);
                }
                millis
            }
        };
        avro::write_long(out, millis);
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_long(out, 0);
    }

    fn computed_default(&self) -> Option<&'static str> {
        Some("1970-01-01 00:00:00")
    }
}

/// `timestamp`, `timestamp(4)` to `timestamp(6)`
#[derive(Debug)]
struct MicroTimestamp;

impl Codec for MicroTimestamp {
    fn avro_type(&self) -> AvroType {
        AvroType { connect_name: Some("io.debezium.time.MicroTimestamp"), ..AvroType::plain(Physical::Long) }
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let micros = match text {
            b"infinity" => INFINITY_MICROS,
            b"-infinity" => NEGATIVE_INFINITY_MICROS,
            _ => {
                let (day, micros) = parse_timestamp(text).ok_or(EncodeErrorKind::MalformedText)?;
                let day_micros = day.unix_days().checked_mul(DAY_MICROS);
                let micros = day_micros.and_then(|day_micros| day_micros.checked_add(micros));
                let finite = NEGATIVE_INFINITY_MICROS + 1..INFINITY_MICROS;
                micros.filter(|micros| finite.contains(micros)).ok_or(EncodeErrorKind::OutOfRange)?
            }
        };
        avro::write_long(out, micros);
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_long(out, 0);
    }

    fn computed_default(&self) -> Option<&'static str> {
        Some("1970-01-01 00:00:00")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(type_modifier: i32, text: &str) -> Result<i64, EncodeErrorKind> {
        let mut out = Vec::new();
        make(type_modifier).encode(text.as_bytes(), &mut out)?;
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
}
