//! date → Avro int, days since 1970-01-01, or ISO 8601 text.

use super::{
    Codec, DefaultRule, TypeSpec,
    calendar::{CivilDate, parse_date},
    iso::Iso,
};
use crate::{
    EncodeErrorKind, Times, avro,
    schema::{AvroType, Physical},
};

/// What Debezium writes for the infinities while streaming. Both lie before PostgreSQL's first date, so no date has these values.
const INFINITY_DAYS: i32 = -2_147_472_692;
const NEGATIVE_INFINITY_DAYS: i32 = -2_147_472_691;
/// 4714-11-24 BC, the first date that PostgreSQL has.
const FIRST_DAYS: i64 = -2_440_588;

const CONNECT: &str = "org.apache.kafka.connect.data.Date";

pub(super) fn make(spec: &TypeSpec<'_>) -> Box<dyn Codec> {
    match spec.options.times {
        Times::IsoString => Box::new(IsoDate),
        Times::Connect => Box::new(Date { connect_name: Some(CONNECT), logical_type: Some("date") }),
        Times::Native => Box::new(Date { connect_name: None, logical_type: Some("date") }),
        Times::Adaptive | Times::AdaptiveMicroseconds | Times::Microseconds | Times::Nanoseconds => {
            Box::new(Date { connect_name: Some("io.debezium.time.Date"), logical_type: None })
        }
    }
}

/// `date` as days.
#[derive(Debug)]
struct Date {
    /// The number is the same under each name.
    connect_name: Option<&'static str>,
    logical_type: Option<&'static str>,
}

impl Codec for Date {
    fn avro_type(&self) -> AvroType {
        AvroType { connect_name: self.connect_name, logical_type: self.logical_type, ..AvroType::plain(Physical::Int) }
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let days = match text {
            b"infinity" => INFINITY_DAYS,
            b"-infinity" => NEGATIVE_INFINITY_DAYS,
            _ => days(parse_date(text).ok_or(EncodeErrorKind::MalformedText)?)?,
        };
        avro::write_long(out, days.into());
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_long(out, 0);
    }

    fn default_rule(&self) -> DefaultRule {
        DefaultRule::Computed("1970-01-01")
    }
}

/// `date` as text.
#[derive(Debug)]
struct IsoDate;

impl Codec for IsoDate {
    fn avro_type(&self) -> AvroType {
        AvroType::named(Physical::String, "io.debezium.time.IsoDate")
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        if matches!(text, b"infinity" | b"-infinity") {
            avro::write_bytes(out, text);
            return Ok(());
        }
        let day = parse_date(text).ok_or(EncodeErrorKind::MalformedText)?;
        days(day)?;
        let mut iso = Iso::new();
        iso.date(day);
        iso.offset(0);
        avro::write_bytes(out, iso.text());
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_bytes(out, b"1970-01-01Z");
    }

    /// Such a value is never stored out of line, but an array of them can be.
    fn takes_placeholder(&self) -> bool {
        true
    }

    fn default_rule(&self) -> DefaultRule {
        DefaultRule::Computed("1970-01-01")
    }
}

fn days(day: CivilDate) -> Result<i32, EncodeErrorKind> {
    let days = day.unix_days();
    if days < FIRST_DAYS {
        return Err(EncodeErrorKind::OutOfRange);
    }
    i32::try_from(days).map_err(|_| EncodeErrorKind::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_date_is_an_infinity() {
        let encode =
            |text: &str| Date { connect_name: None, logical_type: None }.encode(text.as_bytes(), &mut Vec::new());
        assert_eq!(encode("4714-11-24 BC"), Ok(()));
        assert_eq!(encode("4714-11-23 BC"), Err(EncodeErrorKind::OutOfRange));
        assert_eq!(encode("5877612-06-21 BC"), Err(EncodeErrorKind::OutOfRange));
        assert_eq!(encode("5874897-12-31"), Ok(()));
        assert_eq!(encode("9999999-12-31"), Err(EncodeErrorKind::OutOfRange));
    }

    #[test]
    fn text_has_every_year_and_the_infinities() {
        for (text, expected) in [
            ("2024-02-29", "2024-02-29Z"),
            ("0044-03-15 BC", "-0043-03-15Z"),
            ("0001-12-31 BC", "0000-12-31Z"),
            ("5874897-12-31", "+5874897-12-31Z"),
            ("-infinity", "-infinity"),
        ] {
            let mut out = Vec::new();
            IsoDate.encode(text.as_bytes(), &mut out).unwrap();
            assert_eq!(std::str::from_utf8(avro::Reader::new(&out).bytes().unwrap()), Ok(expected), "{text}");
        }
        assert_eq!(IsoDate.encode(b"4714-11-23 BC", &mut Vec::new()), Err(EncodeErrorKind::OutOfRange));
    }
}
