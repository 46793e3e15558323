//! Times as people and machines write them.

use std::fmt;

/// Milliseconds of each unit.
const UNITS: [(&[&str], i64); 5] = [
    (&["s", "sec", "second", "seconds"], 1000),
    (&["m", "min", "minute", "minutes"], 60_000),
    (&["h", "hour", "hours"], 3_600_000),
    (&["d", "day", "days"], 86_400_000),
    (&["w", "week", "weeks"], 7 * 86_400_000),
];

/// A time, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) i64);

impl Moment {
    /// Reads RFC 3339 (`2026-11-24T15:54:40.093Z`; without a zone it is UTC, without a time midnight), how long ago (`2h ago`, `1d 12h ago`), or
    /// `now`.
    pub(crate) fn parse(text: &str, now: Self) -> Result<Self, String> {
        let text = text.trim();
        let parsed = match text.strip_suffix("ago") {
            Some(long) => duration(long).map(|long| now.0.checked_sub(long)),
            None if text == "now" => Some(Some(now.0)),
            None => absolute(text).map(Some),
        };
        let parsed = parsed.ok_or_else(|| {
            format!("{text:?} is no time: write 2026-11-24T15:54:40Z, 2026-11-24T16:54:40+01:00, 2026-11-24, or 2h ago")
        })?;
        parsed.map(Self).ok_or_else(|| format!("{text:?} is before all times"))
    }
}

impl fmt::Display for Moment {
    /// RFC 3339, in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
    }
}

fn duration(text: &str) -> Option<i64> {
    let mut rest = text.trim();
    let mut sum: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let word = rest.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(names, _)| names.contains(&&rest[..word]))?;
        sum = sum.checked_add(number.checked_mul(*unit)?)?;
        rest = rest[word..].trim_start();
    }
    (!text.trim().is_empty()).then_some(sum)
}

fn absolute(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let mut parts = date.splitn(3, '-');
    let (year, month, day) = (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let days = days(year, month, day);
    if civil(days) != (year, month, day) {
        return None;
    }
    let midnight = days * 86_400_000;
    let Some(rest) = rest.strip_prefix(['T', 't', ' ']) else { return rest.is_empty().then_some(midnight) };
    let zone = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(zone);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = time.splitn(3, ':');
    let (hour, minute) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let second = parts.next().map_or(Some(0), |second| number(second, 2))?;
    if hour > 23 || minute > 59 || second > 59 || fraction.is_empty() || !fraction.bytes().all(|it| it.is_ascii_digit())
    {
        return None;
    }
    // What is finer than a millisecond is cut off.
    let ms = number(&format!("{fraction:0<3}")[..3], 3)?;
    let offset_minutes = match zone {
        "" | "Z" | "z" => 0,
        _ => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
            let minutes = (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    Some(midnight + hour * 3_600_000 + (minute - offset_minutes) * 60_000 + second * 1000 + ms)
}

/// A number of exactly so many digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Days since 1970-01-01 in the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a day since 1970-01-01, by the same source.
const fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + if month <= 2 { 1 } else { 0 }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_764_428_400_000);

    #[test]
    fn times_are_read_as_they_are_written() {
        for (text, expect) in [
            ("2025-11-29T15:00:00Z", NOW.0),
            ("2025-11-29T15:00:00.0009Z", NOW.0),
            ("2025-11-29T15:00:00.5", NOW.0 + 500),
            ("2025-11-29 16:00:00+01:00", NOW.0),
            ("2025-11-29T09:30-05:30", NOW.0),
            ("2025-11-29", NOW.0 - 15 * 3_600_000),
            ("1970-01-01", 0),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2000-02-29", 951_782_400_000),
            ("now", NOW.0),
            ("2h ago", NOW.0 - 7_200_000),
            ("1d 12h ago", NOW.0 - 36 * 3_600_000),
            ("90 seconds ago", NOW.0 - 90_000),
            ("1w2d3h4m5sago", NOW.0 - 788_645_000),
        ] {
            assert_eq!(Moment::parse(text, NOW), Ok(Moment(expect)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "ago",
            "h ago",
            "2 ago",
            "2x ago",
            "99999999999999999999s ago",
            "9223372036854775807w ago",
            "yesterday",
            "2025-02-29",
            "2025-13-01",
            "2025-1-01",
            "2025-11-29T24:00:00Z",
            "2025-11-29T15:00:00.Z",
            "2025-11-29T15:00:00+1",
            "2025-11-29T15:00:00ZZ",
            "2025-11-29X",
            "ä025-11-29",
        ] {
            assert!(Moment::parse(text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_printed_in_utc() {
        for (ms, text) in [
            (NOW.0, "2025-11-29T15:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
        ] {
            assert_eq!(Moment(ms).to_string(), text);
            assert_eq!(Moment::parse(text, NOW), Ok(Moment(ms)));
        }
        // Kafka keeps what a producer says.
        let _ = (Moment(i64::MAX).to_string(), Moment(i64::MIN).to_string());
    }
}
