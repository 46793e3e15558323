//! timestamp with time zone → ISO 8601 text in UTC, with as many digits of a second as the type has; or Avro's microseconds since 1970.

use super::{
    Codec, DefaultRule, TypeSpec,
    calendar::parse_timestamptz,
    iso::{Iso, TIMESTAMP_YEARS},
    timestamp::{INFINITY_MICROS, NEGATIVE_INFINITY_MICROS, finite_micros},
};
use crate::{
    EncodeErrorKind, Times, avro,
    schema::{AvroType, Physical},
};

const FRACTION_DIGITS_MAX: u8 = 6;
/// `2024-02-29`, and `2024-02-29 12:34:56`.
const DATE_TEXT_BYTES: usize = 10;
const SECONDS_TEXT_BYTES: usize = 19;

pub(super) fn make(spec: &TypeSpec<'_>) -> Box<dyn Codec> {
    if spec.options.times == Times::Native {
        return Box::new(Micros);
    }
    let fraction_digits = u8::try_from(spec.modifier).unwrap_or(FRACTION_DIGITS_MAX).min(FRACTION_DIGITS_MAX);
    Box::new(ZonedTimestamp { fraction_digits })
}

/// `timestamp(p) with time zone`
#[derive(Debug)]
struct ZonedTimestamp {
    fraction_digits: u8,
}

impl Codec for ZonedTimestamp {
    fn avro_type(&self) -> AvroType {
        AvroType::named(Physical::String, "io.debezium.time.ZonedTimestamp")
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        if matches!(text, b"infinity" | b"-infinity") {
            avro::write_bytes(out, text);
            return Ok(());
        }
        let (day, micros) = parse_timestamptz(text).ok_or(EncodeErrorKind::MalformedText)?;
        if !TIMESTAMP_YEARS.contains(&day.year) {
            return Err(EncodeErrorKind::OutOfRange);
        }
        let unit_micros = 10_i64.pow((FRACTION_DIGITS_MAX - self.fraction_digits).into());
        if micros % unit_micros != 0 {
            return Err(EncodeErrorKind::MalformedText);
        }
        let mut iso = Iso::new();
        match text.first_chunk::<SECONDS_TEXT_BYTES>() {
            // All but the fraction is what it was, except for one letter.
            Some(seconds) if text.ends_with(b"+00") && text[DATE_TEXT_BYTES] == b' ' => {
                let mut seconds = *seconds;
                seconds[DATE_TEXT_BYTES] = b'T';
                iso.start(&seconds);
            }
            _ => {
                iso.date(day);
                iso.push(b'T');
                iso.time(micros / 1_000_000);
            }
        }
        if self.fraction_digits > 0 {
            iso.push(b'.');
            iso.digits(micros % 1_000_000 / unit_micros, self.fraction_digits.into());
        }
        iso.push(b'Z');
        avro::write_bytes(out, iso.text());
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_bytes(out, b"1970-01-01T00:00:00Z");
    }

    /// Such a value is never stored out of line, but an array of them can be.
    fn takes_placeholder(&self) -> bool {
        true
    }

    fn default_rule(&self) -> DefaultRule {
        DefaultRule::Computed("1970-01-01 00:00:00+00")
    }
}

/// The microseconds since 1970 in UTC. The infinities are those of `timestamp`.
#[derive(Debug)]
struct Micros;

impl Codec for Micros {
    fn avro_type(&self) -> AvroType {
        AvroType { logical_type: Some("timestamp-micros"), ..AvroType::plain(Physical::Long) }
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let micros = match text {
            b"infinity" => INFINITY_MICROS,
            b"-infinity" => NEGATIVE_INFINITY_MICROS,
            _ => {
                let (day, micros) = parse_timestamptz(text).ok_or(EncodeErrorKind::MalformedText)?;
                finite_micros(day, micros).ok_or(EncodeErrorKind::OutOfRange)?
            }
        };
        avro::write_long(out, micros);
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_long(out, 0);
    }

    fn default_rule(&self) -> DefaultRule {
        DefaultRule::Computed("1970-01-01 00:00:00+00")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(type_modifier: i32, text: &str) -> Result<String, EncodeErrorKind> {
        let mut out = Vec::new();
        let fraction_digits = u8::try_from(type_modifier).unwrap_or(FRACTION_DIGITS_MAX);
        ZonedTimestamp { fraction_digits }.encode(text.as_bytes(), &mut out)?;
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
            // What timestamptz(3) makes of the one before.
            (3, "294277-01-01 00:00:00+00", "+294277-01-01T00:00:00.000Z"),
            (6, "-infinity", "-infinity"),
        ] {
            assert_eq!(encoded(type_modifier, text).as_deref(), Ok(expected));
        }
        assert_eq!(encoded(3, "2024-02-29 12:34:56.7891+00"), Err(EncodeErrorKind::MalformedText));
        let micros = |text: &str| {
            let mut out = Vec::new();
            Micros.encode(text.as_bytes(), &mut out).map(|()| avro::Reader::new(&out).long().unwrap())
        };
        assert_eq!(micros("1969-12-31 23:59:59.999999+00"), Ok(-1));
        assert_eq!(micros("2024-02-29 12:34:56.789+02"), micros("2024-02-29 10:34:56.789+00"));
        assert_eq!(micros("infinity"), Ok(INFINITY_MICROS));
        assert_eq!(micros("294276-12-31 23:59:59+00"), Err(EncodeErrorKind::OutOfRange));
        assert_eq!(encoded(6, "294277-12-31 23:59:59-00:01"), Err(EncodeErrorKind::OutOfRange));
        assert_eq!(encoded(6, "9999999-12-31 23:59:59+00"), Err(EncodeErrorKind::OutOfRange));
        assert_eq!(encoded(6, "4715-12-31 23:59:59+00 BC"), Err(EncodeErrorKind::OutOfRange));
    }
}
