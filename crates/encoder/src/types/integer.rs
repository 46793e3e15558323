//! smallint, integer → Avro int; bigint, oid → Avro long.

use super::{Codec, DefaultRule};
use crate::{
    EncodeErrorKind, avro,
    schema::{AvroType, Physical},
};

/// So many digits fit an `i64` whatever they are.
const SAFE_DIGITS: usize = 18;

macro_rules! integer {
    ($(#[$doc:meta])* $name:ident, $native:ty, $avro_type:expr, $default_rule:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name;

        impl Codec for $name {
            fn avro_type(&self) -> AvroType {
                $avro_type
            }

            fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
                let value = parse(text).ok_or(EncodeErrorKind::MalformedText)?;
                let value = <$native>::try_from(value).map_err(|_| EncodeErrorKind::MalformedText)?;
                avro::write_long(out, i64::from(value));
                Ok(())
            }

            fn write_fallback(&self, out: &mut Vec<u8>) {
                avro::write_long(out, 0);
            }

            fn default_rule(&self) -> DefaultRule {
                $default_rule
            }
        }
    };
}

integer!(
    /// `smallint`
    Int2,
    i16,
    AvroType { connect_type: Some("int16"), ..AvroType::plain(Physical::Int) },
    DefaultRule::Computed("0")
);
integer!(
    /// `integer`
    Int4,
    i32,
    AvroType::plain(Physical::Int),
    DefaultRule::Computed("0")
);
integer!(
    /// `bigint`
    Int8,
    i64,
    AvroType::plain(Physical::Long),
    DefaultRule::Computed("0")
);
integer!(
    /// `oid`, which has no sign.
    Oid,
    u32,
    AvroType::plain(Physical::Long),
    DefaultRule::Never
);

/// Reads what PostgreSQL prints for an integer: digits, with a minus before them or not.
#[inline]
fn parse(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    if digits.len() <= SAFE_DIGITS {
        let value = digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
        return Some(if negative { -value } else { value });
    }
    // Downwards, since the least value has no positive counterpart.
    digits.iter().try_fold(0_i64, |value, digit| {
        let value = value.checked_mul(10)?;
        if negative { value.checked_sub((digit - b'0').into()) } else { value.checked_add((digit - b'0').into()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_range_and_nothing_else() {
        assert_eq!(parse(b"0"), Some(0));
        assert_eq!(parse(b"-12"), Some(-12));
        assert_eq!(parse(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse(b"-9223372036854775808"), Some(i64::MIN));
        for malformed in
            [&b""[..], b"-", b"+1", b" 1", b"1 ", b"1.0", b"9223372036854775808", b"-9223372036854775809", b"0x1"]
        {
            assert_eq!(parse(malformed), None);
        }
    }

    #[test]
    fn a_value_of_a_wider_type_is_refused() {
        let mut out = Vec::new();
        assert!(Int2.encode(b"32768", &mut out).is_err());
        assert!(Int4.encode(b"-2147483649", &mut out).is_err());
        assert!(out.is_empty());
    }
}
