//! Dates and times as text, the way ISO 8601 and Java write them.

use std::ops::RangeInclusive;

use super::calendar::CivilDate;

/// What PostgreSQL's timestamps range over; 4714 BC is -4713. They end with 294276, but a column of fewer digits rounds the last second up,
/// and holds and prints the first moment of the year after that.
pub(super) const TIMESTAMP_YEARS: RangeInclusive<i64> = -4713..=294_277;

/// Room for a sign, a year of seven digits, a fraction, an offset with seconds and the rest.
const TEXT_BYTES_MAX: usize = 48;

/// ISO 8601 text that is being written.
pub(super) struct Iso {
    bytes: [u8; TEXT_BYTES_MAX],
    length: usize,
}

impl Iso {
    #[inline]
    pub(super) fn new() -> Self {
        Self { bytes: [0; TEXT_BYTES_MAX], length: 0 }
    }

    /// What was written.
    #[inline]
    pub(super) fn text(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Starts with text that is there already.
    #[inline]
    pub(super) fn start<const N: usize>(&mut self, text: &[u8; N]) {
        self.bytes[..N].copy_from_slice(text);
        self.length = N;
    }

    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    /// The last so many digits of a number, with zeros before it.
    #[inline]
    pub(super) fn digits(&mut self, mut number: i64, digits: usize) {
        for byte in self.bytes[self.length..self.length + digits].iter_mut().rev() {
            *byte = b'0' + digit(number);
            number /= 10;
        }
        self.length += digits;
    }

    /// ISO 8601 wants four digits of a year, and a sign where there are more, or where it lies before the year 0, which is 1 BC.
    #[inline]
    pub(super) fn date(&mut self, day: CivilDate) {
        let year = day.year.abs();
        if day.year < 0 {
            self.push(b'-');
        } else if year > 9999 {
            self.push(b'+');
        }
        let digits = match year {
            0..=9999 => 4,
            10_000..=99_999 => 5,
            100_000..=999_999 => 6,
            _ => 7,
        };
        self.digits(year, digits);
        self.push(b'-');
        self.digits(day.month.into(), 2);
        self.push(b'-');
        self.digits(day.day.into(), 2);
    }

    #[inline]
    pub(super) fn time(&mut self, seconds: i64) {
        self.digits(seconds / 3600, 2);
        self.push(b':');
        self.digits(seconds / 60 % 60, 2);
        self.push(b':');
        self.digits(seconds % 60, 2);
    }
}

impl Iso {
    /// A time of day with no more digits of a fraction than it needs, as Java prints it.
    #[inline]
    pub(super) fn time_micros(&mut self, micros: i64) {
        self.time(micros / 1_000_000);
        let (mut fraction, mut digits) = (micros % 1_000_000, 6);
        if fraction == 0 {
            return;
        }
        while fraction % 10 == 0 {
            (fraction, digits) = (fraction / 10, digits - 1);
        }
        self.push(b'.');
        self.digits(fraction, digits);
    }

    /// An offset from UTC with minutes, and with seconds if it has some; `Z` for none.
    pub(super) fn offset(&mut self, seconds: i64) {
        if seconds == 0 {
            return self.push(b'Z');
        }
        self.push(if seconds < 0 { b'-' } else { b'+' });
        let seconds = seconds.abs();
        self.digits(seconds / 3600, 2);
        self.push(b':');
        self.digits(seconds / 60 % 60, 2);
        if seconds % 60 != 0 {
            self.push(b':');
            self.digits(seconds % 60, 2);
        }
    }
}

/// The last digit of a number, which is not negative.
#[inline]
#[expect(clippy::cast_sign_loss, reason = "a remainder of ten fits")]
const fn digit(number: i64) -> u8 {
    (number % 10) as u8
}
