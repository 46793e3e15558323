//! time with time zone → ISO 8601 text, Debezium's `ZonedTime`: in UTC, or with the zone that it has.
//!
//! PostgreSQL tells `12:34:56+02` and `10:34:56+00` apart, though they are one moment of a day. Debezium writes the second for both, and
//! so does the default; the offset makes the difference. 24:00:00 stays what it is where nothing has to be reckoned.

use super::{
    Codec, TypeSpec,
    calendar::{DAY_MICROS, parse_timetz},
    iso::Iso,
};
use crate::{
    EncodeErrorKind, ZonedTimes, avro,
    schema::{AvroType, Physical},
};

const SECOND_MICROS: i64 = 1_000_000;

pub(super) fn make(spec: &TypeSpec<'_>) -> Box<dyn Codec> {
    Box::new(ZonedTime { form: spec.options.zoned_times })
}

/// `time with time zone` of any precision.
#[derive(Debug)]
struct ZonedTime {
    form: ZonedTimes,
}

impl Codec for ZonedTime {
    fn avro_type(&self) -> AvroType {
        AvroType::named(Physical::String, "io.debezium.time.ZonedTime")
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let (micros, offset_seconds) = parse_timetz(text).ok_or(EncodeErrorKind::MalformedText)?;
        let mut iso = Iso::new();
        match self.form {
            ZonedTimes::Utc if offset_seconds != 0 => {
                iso.time_micros((micros - offset_seconds * SECOND_MICROS).rem_euclid(DAY_MICROS));
                iso.offset(0);
            }
            ZonedTimes::Utc | ZonedTimes::Offset => {
                iso.time_micros(micros);
                iso.offset(offset_seconds);
            }
        }
        avro::write_bytes(out, iso.text());
        Ok(())
    }

    fn keeps_apart(&self) -> bool {
        self.form != ZonedTimes::Utc
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_bytes(out, b"00:00:00Z");
    }

    /// Such a value is never stored out of line, but an array of them can be.
    fn takes_placeholder(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, utc: &str, offset: &str) {
        for (form, expected) in [(ZonedTimes::Utc, utc), (ZonedTimes::Offset, offset)] {
            let mut out = Vec::new();
            ZonedTime { form }.encode(text.as_bytes(), &mut out).unwrap();
            assert_eq!(std::str::from_utf8(avro::Reader::new(&out).bytes().unwrap()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn in_utc_or_as_it_is() {
        check("12:34:56.789012+02", "10:34:56.789012Z", "12:34:56.789012+02:00");
        check("12:34:56.5+00", "12:34:56.5Z", "12:34:56.5Z");
        check("12:34:56-05:30", "18:04:56Z", "12:34:56-05:30");
        check("01:00:00+02", "23:00:00Z", "01:00:00+02:00");
        check("23:00:00-15:59:59", "14:59:59Z", "23:00:00-15:59:59");
        check("24:00:00+00", "24:00:00Z", "24:00:00Z");
        check("24:00:00+02", "22:00:00Z", "24:00:00+02:00");
        check("00:00:00.00001+00", "00:00:00.00001Z", "00:00:00.00001Z");
    }

    #[test]
    fn all_else_is_malformed() {
        for text in [
            "",
            "12:34:56",
            "12:34:56+",
            "12:34:56+2",
            "12:34:56+16",
            "12:34:56Z",
            "12:34:56+02 BC",
            "24:00:01+00",
            "25:00:00+00",
        ] {
            let found = ZonedTime { form: ZonedTimes::Utc }.encode(text.as_bytes(), &mut Vec::new());
            assert_eq!(found, Err(EncodeErrorKind::MalformedText), "{text}");
        }
    }
}
