//! Dates, times and intervals.

use super::Draw;

impl Draw {
    /// A year that PostgreSQL has, and its era.
    fn year(&mut self, max: i64) -> (i64, &'static str) {
        match self.random.below(6) {
            0 => (self.within(1, 4713), " BC"),
            1 => (self.within(10_000, max), ""),
            2 => (self.within(1, 999), ""),
            _ => (self.within(1600, 2300), ""),
        }
    }

    fn day(&mut self, year_max: i64) -> (String, &'static str) {
        let (year, era) = self.year(year_max);
        let month = self.within(1, 12);
        let day = self.within(1, if matches!(month, 2 | 4 | 6 | 9 | 11) { 28 } else { 31 });
        (format!("{year:04}-{month:02}-{day:02}"), era)
    }

    pub(crate) fn date(&mut self) -> String {
        if self.random.chance(10) {
            let edges = ["infinity", "-infinity", "4714-11-24 BC", "5874897-12-31", "0001-02-29 BC", "2000-02-29"];
            return self.random.one_of(&edges).to_owned();
        }
        let (day, era) = self.day(5_874_897);
        format!("{day}{era}")
    }

    pub(crate) fn time(&mut self) -> String {
        if self.random.chance(6) {
            return self.random.one_of(&["24:00:00", "00:00:00", "23:59:59.999999", "00:00:00.000001"]).to_owned();
        }
        let mut clock = self.clock();
        clock.truncate(clock.len() - self.index(7));
        clock.trim_end_matches('.').to_owned()
    }

    /// Not in the last second of a minute: what is rounded up must not lead over the end of a day, and of all days.
    pub(super) fn clock(&mut self) -> String {
        format!(
            "{:02}:{:02}:{:02}.{:06}",
            self.within(0, 23),
            self.within(0, 59),
            self.within(0, 58),
            self.within(0, 999_999)
        )
    }

    pub(super) fn zone(&mut self) -> String {
        let sign = self.random.one_of(&["+", "-"]);
        let hours = format!("{sign}{:02}", self.within(0, 15));
        match self.random.below(3) {
            0 => hours,
            1 => format!("{hours}:{:02}", self.within(0, 59)),
            _ => format!("{hours}:{:02}:{:02}", self.within(0, 59), self.within(0, 59)),
        }
    }

    pub(crate) fn timetz(&mut self) -> String {
        self.time() + &self.zone()
    }

    /// Microseconds in a long end earlier than PostgreSQL does.
    pub(crate) fn timestamp(&mut self) -> String {
        let year_max = if self.is_default { 294_246 } else { 294_276 };
        let edges = [
            "infinity",
            "-infinity",
            "4714-11-24 00:00:00 BC",
            "1969-12-31 23:59:59.999999",
            "294247-01-10 04:00:25.199999",
        ];
        self.moment(&edges, year_max)
    }

    /// Milliseconds do not. What is rounded past the last second PostgreSQL keeps, and does not read again.
    pub(crate) fn timestamp_3(&mut self) -> String {
        let edges =
            ["infinity", "-infinity", "4714-11-24 00:00:00 BC", "294276-12-31 23:59:59", "0001-12-31 23:59:59.999 BC"];
        self.moment(&edges, 294_276)
    }

    pub(crate) fn timestamptz(&mut self) -> String {
        self.zoned_moment("294276-12-31 23:59:59.999999+00")
    }

    pub(crate) fn timestamptz_3(&mut self) -> String {
        self.zoned_moment("294276-12-31 23:59:59+00")
    }

    fn zoned_moment(&mut self, last: &'static str) -> String {
        if self.random.chance(10) {
            let edges = ["infinity", "-infinity", "4714-11-24 00:00:00+00 BC", last];
            return self.random.one_of(&edges).to_owned();
        }
        // A zone must not lead over the end.
        let (day, era) = self.day(294_275);
        format!("{day} {}{}{era}", self.clock(), self.zone())
    }

    fn moment(&mut self, edges: &[&'static str], year_max: i64) -> String {
        if self.random.chance(10) {
            return self.random.one_of(edges).to_owned();
        }
        let (day, era) = self.day(year_max);
        format!("{day} {}{era}", self.clock())
    }

    pub(crate) fn interval(&mut self) -> String {
        if self.version >= 17 && !self.is_default && self.random.chance(5) {
            return self.random.one_of(&["infinity", "-infinity"]).to_owned();
        }
        let (months, days, microseconds) = (i64::from(self.signed32()), i64::from(self.signed32()), self.signed());
        // The default form counts microseconds, of which a long has no more; and up to 14 hours have 32 bits.
        let (months, days) = if self.is_default { (months % 1_000_000, days % 20_000_000) } else { (months, days) };
        let bound = if self.is_default || self.version < 15 { 2_000_000_000_000_000_000 } else { i64::MAX };
        let microseconds = microseconds % bound;
        let (seconds, fraction) = (microseconds.unsigned_abs() / 1_000_000, microseconds.unsigned_abs() % 1_000_000);
        let sign = if microseconds < 0 { "-" } else { "+" };
        let clock = format!("{sign}{:02}:{:02}:{:02}.{fraction:06}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        match self.random.below(4) {
            0 => clock,
            1 => format!("{months} mons {clock}"),
            2 => format!("{days} days"),
            _ => format!("{months} mons {days} days {clock}"),
        }
    }
}
