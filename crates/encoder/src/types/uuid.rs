//! uuid → string.

use super::{Codec, DefaultRule};
use crate::{
    EncodeErrorKind, avro,
    schema::{AvroType, Physical},
};

const TEXT_BYTES: usize = 36;

/// Where hyphens are.
const HYPHENS: [bool; TEXT_BYTES] = {
    let mut hyphens = [false; TEXT_BYTES];
    (hyphens[8], hyphens[13], hyphens[18], hyphens[23]) = (true, true, true, true);
    hyphens
};

/// `uuid`
#[derive(Debug)]
pub(super) struct Uuid;

impl Codec for Uuid {
    fn avro_type(&self) -> AvroType {
        AvroType::named(Physical::String, "io.debezium.data.Uuid")
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let text: &[u8; TEXT_BYTES] = text.try_into().map_err(|_| EncodeErrorKind::MalformedText)?;
        // Without branches, so that many bytes are looked at together.
        let wrong = text.iter().zip(HYPHENS).fold(0, |wrong, (byte, hyphen)| {
            let digit = byte.wrapping_sub(b'0') < 10 || (byte | 0x20).wrapping_sub(b'a') < 6;
            wrong | u8::from(digit == hyphen) | u8::from((*byte == b'-') != hyphen)
        });
        if wrong != 0 {
            return Err(EncodeErrorKind::MalformedText);
        }
        avro::write_bytes(out, text);
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_length(out, 0);
    }

    fn default_rule(&self) -> DefaultRule {
        DefaultRule::Computed("00000000-0000-0000-0000-000000000000")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_hyphens_in_their_places_only() {
        let good = "123e4567-e89b-12d3-A456-42661417400f";
        let check = |text: &str| Uuid.encode(text.as_bytes(), &mut Vec::new());
        assert_eq!(check(good), Ok(()));
        for at in 0..good.len() {
            for other in ["g", "/", ":", "@", "`", " ", if &good[at..=at] == "-" { "a" } else { "-" }] {
                let mut text = good.to_owned();
                text.replace_range(at..=at, other);
                assert_eq!(check(&text), Err(EncodeErrorKind::MalformedText), "{text}");
            }
        }
        assert_eq!(check(""), Err(EncodeErrorKind::MalformedText));
    }
}
