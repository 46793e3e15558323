//! date → Avro int, days since 1970-01-01.

use super::{
    Codec,
    calendar::{CivilDate, parse_date},
};
use crate::{
    EncodeErrorKind, avro,
    schema::{AvroType, Physical},
};

/// What Debezium writes for the infinities while streaming. Both lie before PostgreSQL's first date, so no date has these values.
const INFINITY_DAYS: i32 = -2_147_472_692;
const NEGATIVE_INFINITY_DAYS: i32 = -2_147_472_691;
/// 4714-11-24 BC, the first date that PostgreSQL has.
const FIRST_DAYS: i64 = -2_440_588;

/// `date`
#[derive(Debug)]
pub(super) struct Date;

impl Codec for Date {
    fn avro_type(&self) -> AvroType {
        AvroType { connect_name: Some("io.debezium.time.Date"), ..AvroType::plain(Physical::Int) }
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

    fn computed_default(&self) -> Option<&'static str> {
        Some("1970-01-01")
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
        let encode = |text: &str| Date.encode(text.as_bytes(), &mut Vec::new());
        assert_eq!(encode("4714-11-24 BC"), Ok(()));
        assert_eq!(encode("4714-11-23 BC"), Err(EncodeErrorKind::OutOfRange));
        assert_eq!(encode("5877612-06-21 BC"), Err(EncodeErrorKind::OutOfRange));
        assert_eq!(encode("5874897-12-31"), Ok(()));
        assert_eq!(encode("9999999-12-31"), Err(EncodeErrorKind::OutOfRange));
    }
}
