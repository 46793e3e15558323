//! Positions in the write-ahead log.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// A log sequence number: a byte position in PostgreSQL's write-ahead log.
///
/// It prints and parses as PostgreSQL's `pg_lsn` does: two hexadecimal numbers of 32 bits each, separated by a slash.
///
/// ```
/// use pgoutput::Lsn;
///
/// let lsn: Lsn = "16/B374D848".parse().unwrap();
/// assert_eq!(u64::from(lsn), 0x16_B374_D848);
/// assert_eq!(lsn.to_string(), "16/B374D848");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// PostgreSQL's `InvalidXLogRecPtr`, `0/0`: no position. It sorts before every real one.
    pub const INVALID: Self = Self(0);

    /// Whether this is a position at all, that is, not [`Lsn::INVALID`].
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// How many bytes of log lie between an earlier position and this one; 0 when `earlier` is not earlier.
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<u64> for Lsn {
    fn from(position: u64) -> Self {
        Self(position)
    }
}

impl From<Lsn> for u64 {
    fn from(lsn: Lsn) -> Self {
        lsn.0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a log sequence number.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid log sequence number {0:?}: expected two hexadecimal numbers of at most 8 digits, such as 16/B374D848")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `from_str_radix` would take a sign, which PostgreSQL does not.
        let half = |digits: &str| {
            ((1..=8).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                .then(|| u64::from_str_radix(digits, 16).ok())
                .flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| ParseLsnError(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses_as_postgresql_does() {
        for (text, position) in
            [("0/0", 0), ("0/16AE7F8", 0x16A_E7F8), ("16/B374D848", 0x16_B374_D848), ("FFFFFFFF/FFFFFFFF", u64::MAX)]
        {
            assert_eq!(text.parse(), Ok(Lsn(position)));
            assert_eq!(Lsn(position).to_string(), text);
        }
        assert_eq!("0/00000001".parse(), Ok(Lsn(1)));
        assert_eq!("ff/a".parse(), Ok(Lsn(0xFF_0000_000A)));
    }

    #[test]
    fn refuses_what_postgresql_refuses() {
        for text in
            ["", "/", "0", "0/", "/0", "+1/1", "1/-1", "123456789/0", "0/123456789", "1/2/3", "x/1", " 1/1", "1/1 "]
        {
            assert!(text.parse::<Lsn>().is_err(), "{text:?} was taken for a position");
        }
    }

    #[test]
    fn a_distance_never_wraps() {
        assert_eq!(Lsn(30).bytes_since(Lsn(10)), 20);
        assert_eq!(Lsn(10).bytes_since(Lsn(30)), 0);
    }
}
