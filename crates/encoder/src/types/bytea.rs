//! bytea → Avro bytes, or text: base64 or hexadecimal digits.

use super::{Codec, TypeSpec};
use crate::{
    Bytea as Form, EncodeErrorKind, avro,
    base64::{self, Alphabet},
    schema::{AvroType, Physical},
};

pub(super) fn make(spec: &TypeSpec<'_>) -> Box<dyn Codec> {
    match spec.options.bytea {
        Form::Bytes => Box::new(Bytea),
        Form::Base64 => Box::new(ByteaText { form: TextForm::Base64(base64::STANDARD) }),
        Form::Base64Url => Box::new(ByteaText { form: TextForm::Base64(base64::URL) }),
        Form::Hex => Box::new(ByteaText { form: TextForm::Hex }),
    }
}

/// `bytea`, printed with `bytea_output` hex.
#[derive(Debug)]
struct Bytea;

impl Codec for Bytea {
    fn avro_type(&self) -> AvroType {
        AvroType::plain(Physical::Bytes)
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let digits = text.strip_prefix(br"\x").ok_or(EncodeErrorKind::MalformedText)?;
        let (pairs, []) = digits.as_chunks::<2>() else { return Err(EncodeErrorKind::MalformedText) };
        avro::write_length(out, pairs.len());
        out.reserve(pairs.len());
        let mut seen = 0;
        out.extend(pairs.iter().map(|[high, low]| {
            let (high, low) = (NIBBLES[usize::from(*high)], NIBBLES[usize::from(*low)]);
            seen |= high | low;
            high << 4 | low & 0xf
        }));
        if seen & NOT_A_DIGIT == 0 { Ok(()) } else { Err(EncodeErrorKind::MalformedText) }
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_empty(out);
    }

    fn takes_placeholder(&self) -> bool {
        true
    }
}

/// The same as text.
#[derive(Debug)]
struct ByteaText {
    form: TextForm,
}

#[derive(Debug, Clone, Copy)]
enum TextForm {
    Base64(&'static Alphabet),
    Hex,
}

impl Codec for ByteaText {
    fn avro_type(&self) -> AvroType {
        AvroType::plain(Physical::String)
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let digits = text.strip_prefix(br"\x").ok_or(EncodeErrorKind::MalformedText)?;
        let (pairs, []) = digits.as_chunks::<2>() else { return Err(EncodeErrorKind::MalformedText) };
        if digits.iter().any(|digit| NIBBLES[usize::from(*digit)] == NOT_A_DIGIT) {
            return Err(EncodeErrorKind::MalformedText);
        }
        match self.form {
            TextForm::Hex => {
                avro::write_length(out, digits.len());
                out.extend(digits.iter().map(u8::to_ascii_lowercase));
            }
            TextForm::Base64(alphabet) => {
                avro::write_length(out, base64::length(pairs.len()));
                let byte = |[high, low]: &[u8; 2]| NIBBLES[usize::from(*high)] << 4 | NIBBLES[usize::from(*low)];
                for group in pairs.chunks(3) {
                    let mut bytes = [0; 3];
                    bytes.iter_mut().zip(group).for_each(|(to, pair)| *to = byte(pair));
                    base64::write(alphabet, &bytes[..group.len()], out);
                }
            }
        }
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_empty(out);
    }

    fn takes_placeholder(&self) -> bool {
        true
    }
}

/// Marks a byte that is no hexadecimal digit, in a bit that no digit has.
const NOT_A_DIGIT: u8 = 0x80;

/// What each byte means as a hexadecimal digit.
static NIBBLES: [u8; 256] = {
    let mut nibbles = [NOT_A_DIGIT; 256];
    let mut value: u8 = 0;
    while value < 16 {
        nibbles[b"0123456789abcdef"[value as usize] as usize] = value;
        nibbles[b"0123456789ABCDEF"[value as usize] as usize] = value;
        value += 1;
    }
    nibbles
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_becomes_bytes() {
        let mut out = Vec::new();
        Bytea.encode(br"\xdeadBEEF00", &mut out).unwrap();
        assert_eq!(out, [10, 0xde, 0xad, 0xbe, 0xef, 0]);
        for malformed in [&br"\xabc"[..], br"\xzz", b"abcd", br"\X00", b"", br"\x0\", b"\\x\xff\xff"] {
            assert_eq!(Bytea.encode(malformed, &mut Vec::new()), Err(EncodeErrorKind::MalformedText));
        }
    }

    #[test]
    fn text_in_each_form() {
        let cases = [
            (TextForm::Hex, "00ffeedead"),
            (TextForm::Base64(base64::STANDARD), "AP/u3q0="),
            (TextForm::Base64(base64::URL), "AP_u3q0="),
        ];
        for (form, expected) in cases {
            let codec = ByteaText { form };
            let mut out = Vec::new();
            codec.encode(br"\x00ffEEdead", &mut out).unwrap();
            assert_eq!(std::str::from_utf8(avro::Reader::new(&out).bytes().unwrap()), Ok(expected));
            for malformed in [&br"\xabc"[..], br"\xzz", b"abcd", b"", b"\\x\xff\xff"] {
                assert_eq!(codec.encode(malformed, &mut Vec::new()), Err(EncodeErrorKind::MalformedText));
            }
        }
    }
}
