//! time → the time since midnight: Avro int in milliseconds up to time(3), Avro long in microseconds past that.

use super::{Codec, calendar::parse_time};
use crate::{
    EncodeErrorKind, avro,
    schema::{AvroType, Physical},
};

const MILLISECOND_DIGITS: i32 = 3;

pub(super) fn make(type_modifier: i32) -> Box<dyn Codec> {
    if (0..=MILLISECOND_DIGITS).contains(&type_modifier) { Box::new(Time) } else { Box::new(MicroTime) }
}

/// `time(0)` to `time(3)`
#[derive(Debug)]
struct Time;

impl Codec for Time {
    fn avro_type(&self) -> AvroType {
        AvroType { connect_name: Some("io.debezium.time.Time"), ..AvroType::plain(Physical::Int) }
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let micros = parse_time(text).ok_or(EncodeErrorKind::MalformedText)?;
        if micros % 1000 != 0 {
            return Err(EncodeErrorKind::MalformedText);
        }
        avro::write_long(out, micros / 1000);
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_long(out, 0);
    }

    fn computed_default(&self) -> Option<&'static str> {
        Some("00:00:00")
    }
}

/// `time`, `time(4)` to `time(6)`
#[derive(Debug)]
struct MicroTime;

impl Codec for MicroTime {
    fn avro_type(&self) -> AvroType {
        AvroType { connect_name: Some("io.debezium.time.MicroTime"), ..AvroType::plain(Physical::Long) }
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        avro::write_long(out, parse_time(text).ok_or(EncodeErrorKind::MalformedText)?);
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_long(out, 0);
    }

    fn computed_default(&self) -> Option<&'static str> {
        Some("00:00:00")
    }
}
