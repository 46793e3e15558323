//! time → the time since midnight: Avro int in milliseconds up to time(3), Avro long in microseconds past that; or other units, or text.
//!
//! The end of the day, 24:00:00, is a time of its own in all of these.

use super::{Codec, DefaultRule, TypeSpec, calendar::parse_time, iso::Iso};
use crate::{
    EncodeErrorKind, Times, avro,
    schema::{AvroType, Physical},
};

const MILLISECOND_MICROS: i64 = 1000;
const MICROSECOND_NANOS: i64 = 1000;
const MILLISECOND_DIGITS: i32 = 3;

pub(super) fn make(spec: &TypeSpec<'_>) -> Box<dyn Codec> {
    let form = match spec.options.times {
        Times::Adaptive if (0..=MILLISECOND_DIGITS).contains(&spec.modifier) => Form::Millis,
        Times::Adaptive | Times::AdaptiveMicroseconds | Times::Microseconds => Form::Micros,
        Times::Connect => Form::Connect,
        Times::Native => Form::Native,
        Times::IsoString => Form::Iso,
        Times::Nanoseconds => Form::Nanos,
    };
    Box::new(Time { form })
}

/// `time` of any precision.
#[derive(Debug)]
struct Time {
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

impl Codec for Time {
    fn avro_type(&self) -> AvroType {
        match self.form {
            Form::Millis => AvroType::named(Physical::Int, "io.debezium.time.Time"),
            Form::Micros => AvroType::named(Physical::Long, "io.debezium.time.MicroTime"),
            Form::Nanos => AvroType::named(Physical::Long, "io.debezium.time.NanoTime"),
            Form::Connect => AvroType {
                logical_type: Some("time-millis"),
                ..AvroType::named(Physical::Int, "org.apache.kafka.connect.data.Time")
            },
            Form::Native => AvroType { logical_type: Some("time-micros"), ..AvroType::plain(Physical::Long) },
            Form::Iso => AvroType::named(Physical::String, "io.debezium.time.IsoTime"),
        }
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let micros = parse_time(text).ok_or(EncodeErrorKind::MalformedText)?;
        match self.form {
            Form::Micros | Form::Native => avro::write_long(out, micros),
            // The type has no such digits.
            Form::Millis if micros % MILLISECOND_MICROS != 0 => return Err(EncodeErrorKind::MalformedText),
            Form::Millis | Form::Connect => avro::write_long(out, micros / MILLISECOND_MICROS),
            Form::Nanos => avro::write_long(out, micros * MICROSECOND_NANOS),
            Form::Iso => {
                let mut iso = Iso::new();
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
        if self.form == Form::Iso { avro::write_bytes(out, b"00:00:00Z") } else { avro::write_long(out, 0) }
    }

    /// Such a value is never stored out of line, but an array of them can be.
    fn takes_placeholder(&self) -> bool {
        self.form == Form::Iso
    }

    fn default_rule(&self) -> DefaultRule {
        DefaultRule::Computed("00:00:00")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(form: Form, text: &str) -> Result<i64, EncodeErrorKind> {
        let mut out = Vec::new();
        Time { form }.encode(text.as_bytes(), &mut out)?;
        Ok(avro::Reader::new(&out).long().unwrap())
    }

    #[test]
    fn in_each_unit() {
        assert_eq!(number(Form::Millis, "12:34:56.789"), Ok(45_296_789));
        assert_eq!(number(Form::Millis, "12:34:56.7891"), Err(EncodeErrorKind::MalformedText));
        assert_eq!(number(Form::Connect, "12:34:56.789999"), Ok(45_296_789));
        assert_eq!(number(Form::Micros, "12:34:56.789012"), Ok(45_296_789_012));
        assert_eq!(number(Form::Nanos, "24:00:00"), Ok(86_400_000_000_000));
        for (text, expected) in [("24:00:00", "24:00:00Z"), ("00:00:00.5", "00:00:00.5Z")] {
            let mut out = Vec::new();
            Time { form: Form::Iso }.encode(text.as_bytes(), &mut out).unwrap();
            assert_eq!(std::str::from_utf8(avro::Reader::new(&out).bytes().unwrap()), Ok(expected));
        }
    }
}
