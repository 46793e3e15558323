//! real → Avro float; double precision → Avro double.
//!
//! With `extra_float_digits` at least 1 PostgreSQL prints the shortest text that reads back as the same value, so nothing is lost.

use super::{Codec, DefaultRule};
use crate::{
    EncodeErrorKind, avro,
    schema::{AvroType, Physical},
};

macro_rules! float {
    ($(#[$doc:meta])* $name:ident, $native:ty, $parse:ident, $physical:expr, $write:path) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name;

        impl Codec for $name {
            fn avro_type(&self) -> AvroType {
                AvroType::plain($physical)
            }

            fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
                let value = $parse(text).ok_or(EncodeErrorKind::MalformedText)?;
                $write(out, value);
                Ok(())
            }

            fn write_fallback(&self, out: &mut Vec<u8>) {
                $write(out, 0.0);
            }

            fn default_rule(&self) -> DefaultRule {
                DefaultRule::Computed("0")
            }
        }

        /// Reads what PostgreSQL prints for such a number.
        #[inline]
        pub(super) fn $parse(text: &[u8]) -> Option<$native> {
            match text {
                b"NaN" => Some(<$native>::NAN),
                b"Infinity" => Some(<$native>::INFINITY),
                b"-Infinity" => Some(<$native>::NEG_INFINITY),
                _ => {
                    let value: $native = std::str::from_utf8(text).ok()?.parse().ok()?;
                    // Rust knows other names for infinity, and takes a number that is too large for it.
                    value.is_finite().then_some(value)
                }
            }
        }
    };
}

float!(
    /// `real`
    Float4,
    f32,
    parse_float,
    Physical::Float,
    avro::write_float
);
float!(
    /// `double precision`
    Float8,
    f64,
    parse_double,
    Physical::Double,
    avro::write_double
);
