//! Random values of every type, as PostgreSQL reads them.
//!
//! Each is made of what the type is, edges of it more often than chance would have them, and is valid: PostgreSQL takes all of them.
//!
//! - here: what all of them draw from;
//! - [`numbers`], [`texts`], [`times`], [`addresses`], [`shapes`]: families of types;
//! - [`ranges`], [`composed`]: what is made of others.

mod numbers;
mod texts;
mod times;
mod addresses;
mod shapes;
mod ranges;
mod composed;

use crate::harness::random::Random;

/// Where values come from, and what they have to keep to.
pub(super) struct Draw {
    pub(super) random: Random,
    /// PostgreSQL's major version.
    pub(super) version: u32,
    /// Whether only such values are wanted as the default forms have room for.
    pub(super) is_default: bool,
}

impl Draw {
    fn signed(&mut self) -> i64 {
        // Of every length, and not only of the greatest.
        let shift = self.random.below(64);
        self.random.next().cast_signed() >> shift
    }

    fn within(&mut self, low: i64, high: i64) -> i64 {
        let width = high.wrapping_sub(low).cast_unsigned().wrapping_add(1);
        let offset = if width == 0 { self.random.next() } else { self.random.next() % width };
        low.wrapping_add(offset.cast_signed())
    }

    fn count(&mut self, max: u64) -> usize {
        usize::try_from(self.random.below(max + 1)).expect("it is small")
    }

    fn index(&mut self, length: usize) -> usize {
        self.count(length as u64 - 1)
    }

    fn list(&mut self, count: usize, mut of: impl FnMut(&mut Self) -> String, delimiter: &str) -> String {
        (0..count).map(|_| of(self)).collect::<Vec<_>>().join(delimiter)
    }
}

/// As an element of an array, a bound of a range and a part of an hstore can be written.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
