//! real → Avro float; double precision → Avro double.
//!
//! With `extra_float_digits` at least 1 PostgreSQL prints the shortest text that reads back as the same value, so nothing is lost.

use super::Codec;
use crate::{
    EncodeErrorKind, avro,
    schema::{AvroType, Physical},
};

macro_rules! float {
    ($(#[$doc:meta])* $name:ident, $native:ty, $physical:expr, $write:path) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name;

        impl Codec for $name {
            fn avro_type(&self) -> AvroType {
                AvroType::plain($physical)
            }

            fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
                let value = match text {
                    b"NaN" => <$native>::NAN,
                    b"Infinity" => <$native>::INFINITY,
                    b"-Infinity" => <$native>::NEG_INFINITY,
                    _ => {
                        let text = std::str::from_utf8(text).map_err(|_| EncodeErrorKind::MalformedText)?;
                        let value: $native = text.parse().map_err(|_| EncodeErrorKind::MalformedText)?;
                        // Rust knows other names for infinity, and takes a number that is too large for it.
                        if !value.is_finite() {
                            return Err(EncodeErrorKind::MalformedText);
                        }
                        value
                    }
                };
                $write(out, value);
                Ok(())
            }

            fn write_fallback(&self, out: &mut Vec<u8>) {
                $write(out, 0.0);
            }

            fn computed_default(&self) -> Option<&'static str> {
                Some("0")
            }
        }
    };
}

float!(
    /// `real`
    Float4,
    f32,
    Physical::Float,
    avro::write_float
);
float!(
    /// `double precision`
    Float8,
    f64,
    Physical::Double,
    avro::write_double
);
