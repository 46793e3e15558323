//! Dates and times as PostgreSQL prints them with `DateStyle` ISO, and the proleptic Gregorian calendar they are in.
//!
//! A year has at least four digits; years before the first are printed as `0044-03-15 BC`, which is -43 in the astronomical count that is
//! used here, where the year before 1 is 0.

/// Microseconds in a day.
pub(super) const DAY_MICROS: i64 = 86_400_000_000;
const SECOND_MICROS: i64 = 1_000_000;
/// What each further digit of a fraction is worth in microseconds.
const FRACTION_UNITS: [i64; 6] = [100_000, 10_000, 1000, 100, 10, 1];
/// PostgreSQL's dates end in 5874897.
const YEAR_DIGITS_MAX: usize = 7;
/// PostgreSQL takes offsets below 16 hours.
const OFFSET_HOURS_MAX: u8 = 15;
/// The calendar repeats after 400 years.
const CYCLE_YEARS: i64 = 400;
const CYCLE_DAYS: i64 = 146_097;
/// From 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;

/// A day of the proleptic Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CivilDate {
    /// Astronomical: 1 BC is 0.
    pub(super) year: i64,
    /// 1 to 12.
    pub(super) month: u8,
    /// 1 to 31.
    pub(super) day: u8,
}

impl CivilDate {
    /// Days since 1970-01-01.
    ///
    /// The count starts with March, so that the day that comes and goes is a year's last, and months have a regular pattern of lengths.
    #[inline]
    pub(super) fn unix_days(self) -> i64 {
        let (month, day) = (i64::from(self.month), i64::from(self.day));
        let year = self.year - i64::from(month <= 2);
        let (cycle, year) = (year.div_euclid(CYCLE_YEARS), year.rem_euclid(CYCLE_YEARS));
        let days_before_month = (153 * ((month + 9) % 12) + 2) / 5;
        let days_before_year = year * 365 + year / 4 - year / 100;
        cycle * CYCLE_DAYS + days_before_year + days_before_month + day - 1 - EPOCH_DAYS
    }

    /// The day that is this many days after 1970-01-01.
    pub(super) fn from_unix_days(days: i64) -> Self {
        let days = days + EPOCH_DAYS;
        let (cycle, day_of_cycle) = (days.div_euclid(CYCLE_DAYS), days.rem_euclid(CYCLE_DAYS));
        // Takes the leap days out, of every 4th, every 100th and the 400th year.
        let year_of_cycle =
            (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / (CYCLE_DAYS - 1)) / 365;
        let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        // Both are small, whatever the day is.
        let small = |number: i64| u8::try_from(number).unwrap_or_default();
        Self { year: cycle * CYCLE_YEARS + year_of_cycle + i64::from(month <= 2), month: small(month), day: small(day) }
    }

    fn is_valid(self) -> bool {
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        let days = match self.month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 => 28 + u8::from(leap),
            _ => return false,
        };
        (1..=days).contains(&self.day)
    }
}

/// Reads a `date`.
pub(super) fn parse_date(text: &[u8]) -> Option<CivilDate> {
    let mut cursor = Cursor(text);
    let day = cursor.date()?;
    cursor.era(day)
}

/// Reads a `time`: microseconds since midnight, the end of the day among them.
pub(super) fn parse_time(text: &[u8]) -> Option<i64> {
    let mut cursor = Cursor(text);
    let micros = cursor.time()?;
    cursor.0.is_empty().then_some(micros)
}

/// Reads a `time with time zone`: microseconds since midnight, and the offset from UTC in seconds.
pub(super) fn parse_timetz(text: &[u8]) -> Option<(i64, i64)> {
    let mut cursor = Cursor(text);
    let micros = cursor.time()?;
    let offset_seconds = cursor.offset()?;
    cursor.0.is_empty().then_some((micros, offset_seconds))
}

/// Reads a `timestamp`: its day, and the microseconds since midnight.
#[inline]
pub(super) fn parse_timestamp(text: &[u8]) -> Option<(CivilDate, i64)> {
    let mut cursor = Cursor(text);
    let (day, micros) = cursor.date_time()?;
    Some((cursor.era(day)?, micros))
}

/// Reads a `timestamp with time zone`: its day and the microseconds since midnight, both in UTC.
#[inline]
pub(super) fn parse_timestamptz(text: &[u8]) -> Option<(CivilDate, i64)> {
    let mut cursor = Cursor(text);
    let (day, micros) = cursor.date_time()?;
    let offset_seconds = cursor.offset()?;
    let day = cursor.era(day)?;
    if offset_seconds == 0 {
        return Some((day, micros));
    }
    // Rows are printed in UTC. Defaults are printed in whatever zone the session that looked them up has.
    let micros = micros - offset_seconds * SECOND_MICROS;
    let days = day.unix_days() + micros.div_euclid(DAY_MICROS);
    Some((CivilDate::from_unix_days(days), micros.rem_euclid(DAY_MICROS)))
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    #[inline]
    fn literal(&mut self, expected: u8) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        (*first == expected).then_some(())
    }

    #[inline]
    fn two_digits(&mut self) -> Option<u8> {
        let ([high, low], rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        let (high, low) = (high.wrapping_sub(b'0'), low.wrapping_sub(b'0'));
        if high > 9 || low > 9 {
            return None;
        }
        Some(high * 10 + low)
    }

    /// A day whose era is not known yet.
    #[inline]
    fn date(&mut self) -> Option<CivilDate> {
        let mut year = 0;
        let mut digits = 0;
        while let Some(digit @ b'0'..=b'9') = self.0.get(digits) {
            year = year * 10 + i64::from(digit - b'0');
            digits += 1;
            if digits > YEAR_DIGITS_MAX {
                return None;
            }
        }
        if digits < 4 || year == 0 {
            return None;
        }
        self.0 = &self.0[digits..];
        self.literal(b'-')?;
        let month = self.two_digits()?;
        self.literal(b'-')?;
        let day = self.two_digits()?;
        Some(CivilDate { year, month, day })
    }

    #[inline]
    fn time(&mut self) -> Option<i64> {
        let hour = self.two_digits()?;
        self.literal(b':')?;
        let minute = self.two_digits()?;
        self.literal(b':')?;
        let second = self.two_digits()?;
        if hour > 24 || minute > 59 || second > 59 {
            return None;
        }
        let seconds = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
        let micros = seconds * SECOND_MICROS + self.fraction()?;
        (micros <= DAY_MICROS).then_some(micros)
    }

    /// A point and one to six digits, or nothing; in microseconds.
    #[inline]
    fn fraction(&mut self) -> Option<i64> {
        let Some((b'.', rest)) = self.0.split_first() else { return Some(0) };
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 || digits > FRACTION_UNITS.len() {
            return None;
        }
        let (fraction, rest) = rest.split_at(digits);
        self.0 = rest;
        Some(fraction.iter().zip(FRACTION_UNITS).map(|(digit, unit)| i64::from(digit - b'0') * unit).sum())
    }

    #[inline]
    fn date_time(&mut self) -> Option<(CivilDate, i64)> {
        let day = self.date()?;
        self.literal(b' ')?;
        let micros = self.time()?;
        // Only a time of day may be 24:00:00.
        (micros < DAY_MICROS).then_some((day, micros))
    }

    /// A sign and hours, with minutes and seconds or without; in seconds.
    #[inline]
    fn offset(&mut self) -> Option<i64> {
        let (sign, rest) = self.0.split_first()?;
        self.0 = rest;
        let hours = self.two_digits()?;
        let mut seconds = i64::from(hours) * 3600;
        for unit_seconds in [60, 1] {
            if self.0.first() == Some(&b':') {
                self.literal(b':')?;
                seconds += i64::from(self.two_digits().filter(|number| *number < 60)?) * unit_seconds;
            }
        }
        if hours > OFFSET_HOURS_MAX {
            return None;
        }
        match sign {
            b'+' => Some(seconds),
            b'-' => Some(-seconds),
            _ => None,
        }
    }

    /// The end of the text, and with it the year; checks the day.
    #[inline]
    fn era(&mut self, day: CivilDate) -> Option<CivilDate> {
        let day = match self.0 {
            b"" => day,
            b" BC" => CivilDate { year: 1 - day.year, ..day },
            _ => return None,
        };
        day.is_valid().then_some(day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_agree_with_jiff_over_all_of_its_range_that_postgresql_has() {
        let mut date = jiff::civil::date(-4713, 11, 24);
        let mut days = -2_440_588; // The first day of PostgreSQL, day 0 of the Julian count.
        while date < jiff::civil::Date::MAX {
            let expected = CivilDate {
                year: date.year().into(),
                month: date.month().cast_unsigned(),
                day: date.day().cast_unsigned(),
            };
            assert_eq!(CivilDate::from_unix_days(days), expected);
            assert_eq!(expected.unix_days(), days);
            assert!(expected.is_valid());
            date = date.tomorrow().unwrap();
            days += 1;
        }
        assert_eq!(
            i32::try_from(days).unwrap(),
            jiff::civil::Date::MAX.since(jiff::civil::date(1970, 1, 1)).unwrap().get_days()
        );
    }

    #[test]
    fn years_past_jiff_follow_the_leap_rule() {
        // Past the year 9999 the only rule is which years have 366 days; counting them is independent of the closed formula.
        let mut days =
            i64::from(jiff::civil::date(9999, 1, 1).since(jiff::civil::date(1970, 1, 1)).unwrap().get_days());
        for year in 9999..=5_874_897_i64 {
            let first = CivilDate { year, month: 1, day: 1 };
            assert_eq!(first.unix_days(), days);
            assert_eq!(CivilDate::from_unix_days(days), first);
            assert_eq!(CivilDate::from_unix_days(days - 1), CivilDate { year: year - 1, month: 12, day: 31 });
            let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
            assert_eq!(CivilDate { year, month: 2, day: 29 }.is_valid(), leap);
            days += if leap { 366 } else { 365 };
        }
        assert_eq!(days - 1, 2_145_042_905, "the last date that PostgreSQL has, as Debezium counts it");
    }

    #[test]
    fn text_that_postgresql_does_not_print_is_refused() {
        for text in [
            "",
            "2024",
            "2024-02",
            "2024-02-",
            "2024-2-29",
            "2023-02-29",
            "2024-00-01",
            "2024-13-01",
            "2024-01-00",
            "2024-04-31",
            "0000-01-01",
            "999-01-01",
            "12345678-01-01",
            "2024-02-29 ",
            "2024-02-29 AD",
            "0001-02-29 BC ",
            "0002-02-29 BC",
            "-2024-01-01",
            "２024-01-01",
            "Infinity",
        ] {
            assert_eq!(parse_date(text.as_bytes()), None, "{text:?}");
        }
        assert!(parse_date(b"0001-02-29 BC").is_some(), "the year 0 has a leap day");
        for text in [
            "",
            "24:00:00.000001",
            "25:00:00",
            "12:60:00",
            "12:00:60",
            "12:00",
            "12:00:00.",
            "12:00:00.1234567",
            "12:00:00+00",
            "1:00:00",
        ] {
            assert_eq!(parse_time(text.as_bytes()), None, "{text:?}");
        }
        for text in [
            "2024-02-29",
            "2024-02-29T12:00:00",
            "2024-02-29 24:00:00",
            "2024-02-29 12:00:00+00",
            "2024-02-29 12:00:00 AD",
        ] {
            assert_eq!(parse_timestamp(text.as_bytes()), None, "{text:?}");
        }
        for text in [
            "2024-02-29 12:00:00",
            "2024-02-29 12:00:00Z",
            "2024-02-29 12:00:00+0",
            "2024-02-29 12:00:00+00:",
            "2024-02-29 12:00:00+16",
            "2024-02-29 12:00:00+00:60",
            "2024-02-29 12:00:00 BC+00",
        ] {
            assert_eq!(parse_timestamptz(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn an_offset_is_taken_off() {
        let utc = |text: &str| parse_timestamptz(text.as_bytes());
        assert_eq!(utc("2024-03-01 01:30:00+02"), utc("2024-02-29 23:30:00+00"));
        assert_eq!(utc("2024-12-31 23:30:00-05:30"), utc("2025-01-01 05:00:00+00"));
        assert_eq!(utc("0001-01-01 00:00:00+00:00:28"), utc("0001-12-31 23:59:32+00 BC"));
    }
}
