//! boolean → Avro boolean.

use super::{Codec, DefaultRule};
use crate::{
    EncodeErrorKind, avro,
    schema::{AvroType, Physical},
};

/// `boolean`
#[derive(Debug)]
pub(super) struct Boolean;

impl Codec for Boolean {
    fn avro_type(&self) -> AvroType {
        AvroType::plain(Physical::Boolean)
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let value = match text {
            b"t" | b"true" => true, // Rows have the letter, defaults the word.
            b"f" | b"false" => false,
            _ => return Err(EncodeErrorKind::MalformedText),
        };
        avro::write_boolean(out, value);
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_boolean(out, false);
    }

    fn default_rule(&self) -> DefaultRule {
        DefaultRule::Computed("f")
    }
}
