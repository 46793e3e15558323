//! Random values of every type, as PostgreSQL reads them.
//!
//! Each is made of what the type is, edges of it more often than chance would have them, and is valid: PostgreSQL takes all of them.

use crate::harness::random::Random;

/// The greatest number of digits that a numeric has here, on each side of the point.
const NUMERIC_DIGITS_MAX: u64 = 1000;
/// Inside an element, a field or a bound, nothing is longer than so many characters, so that a row stays small.
const CHARACTERS_MAX: u64 = 24;
/// Characters that mean something to some type's text.
const ODD: [char; 24] = [
    '"', '\'', '\\', ',', ';', '{', '}', '(', ')', '[', ']', '=', '>', ' ', '\t', '\n', '\r', '\u{1}', '\u{7f}', ':',
    'N', '&', '\u{2028}', '\u{feff}',
];
/// Texts that are something else without quotes.
const WORDS: [&str; 8] = ["NULL", "null", "", "\\N", "empty", "infinity", "NaN", "\\x00"];

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

    pub(super) fn boolean(&mut self) -> String {
        if self.random.chance(50) { "t" } else { "f" }.to_owned()
    }

    pub(super) fn int2(&mut self) -> String {
        (self.signed() >> 48).to_string()
    }

    pub(super) fn int4(&mut self) -> String {
        self.signed32().to_string()
    }

    fn signed32(&mut self) -> i32 {
        let shift = self.random.below(32);
        let [.., a, b, c, d] = self.random.next().to_be_bytes();
        i32::from_be_bytes([a, b, c, d]) >> shift
    }

    pub(super) fn int8(&mut self) -> String {
        self.signed().to_string()
    }

    pub(super) fn oid(&mut self) -> String {
        self.signed32().cast_unsigned().to_string()
    }

    pub(super) fn xid8(&mut self) -> String {
        self.signed().cast_unsigned().to_string()
    }

    /// Any bits: denormals, both zeros, infinities and NaN among them.
    pub(super) fn float8(&mut self) -> String {
        let bits = self.random.next();
        let value = match self.random.below(12) {
            0 => return self.random.one_of(&["NaN", "Infinity", "-Infinity", "-0", "0", "5e-324"]).to_owned(),
            1 => f64::from_bits(bits >> 12),
            2 => f64::from(self.signed32()) / 8.0,
            _ => f64::from_bits(bits),
        };
        if value.is_finite() { format!("{value:e}") } else { "NaN".to_owned() }
    }

    pub(super) fn float4(&mut self) -> String {
        let bits = self.signed32().cast_unsigned();
        let value = match self.random.below(12) {
            0 => return self.random.one_of(&["NaN", "Infinity", "-Infinity", "-0", "0", "1e-45"]).to_owned(),
            1 => f32::from_bits(bits >> 9),
            _ => f32::from_bits(bits),
        };
        if value.is_finite() { format!("{value:e}") } else { "NaN".to_owned() }
    }

    fn coordinate(&mut self) -> String {
        match self.float8() {
            // Corners are put in order, and radii compared: that goes for numbers.
            text if text.contains(['N', 'I']) => "0.1".to_owned(),
            // Sums and products of coordinates must not overflow.
            text => {
                text.split_once('e').map_or(text.clone(), |(digits, _)| format!("{digits}e{}", self.within(-150, 150)))
            }
        }
    }

    fn digits(&mut self, count: u64) -> String {
        let mut digits = String::new();
        for _ in 0..count {
            digits.push(char::from(b'0' + u8::try_from(self.random.below(10)).expect("a digit")));
        }
        digits
    }

    /// So many digits at most before the point and behind it.
    fn decimal(&mut self, whole_max: u64, fraction_max: u64) -> String {
        let sign = if self.random.chance(40) { "-" } else { "" };
        let (whole, fraction) = (self.random.below(whole_max + 1), self.random.below(fraction_max + 1));
        let (whole, mut fraction) = (self.digits(whole), self.digits(fraction));
        if self.random.chance(30) {
            let kept = self.index(fraction.len() + 1);
            let zeros = "0".repeat(fraction.len() - kept);
            fraction.replace_range(kept.., &zeros);
        }
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{sign}0{whole}{point}{fraction}")
    }

    pub(super) fn numeric(&mut self) -> String {
        match self.random.below(10) {
            0 if !self.is_default => self.random.one_of(&["NaN", "Infinity", "-Infinity"]).to_owned(),
            0 => self.random.one_of(&["0", "-0", "0.000", "1e130", "-1e-130"]).to_owned(),
            1 => self.decimal(NUMERIC_DIGITS_MAX, NUMERIC_DIGITS_MAX),
            2 => self.signed().to_string(),
            _ => self.decimal(30, 30),
        }
    }

    pub(super) fn numeric_12_4(&mut self) -> String {
        match self.random.below(20) {
            0 if !self.is_default => "NaN".to_owned(),
            _ => self.decimal(7, 3),
        }
    }

    pub(super) fn numeric_1000_300(&mut self) -> String {
        self.decimal(699, 300)
    }

    pub(super) fn numeric_3_minus_2(&mut self) -> String {
        self.within(-99_900, 99_900).to_string()
    }

    pub(super) fn numeric_3_5(&mut self) -> String {
        format!("{}e-5", self.within(-999, 999))
    }

    pub(super) fn small(&mut self) -> String {
        format!("{}e-3", self.within(-999_999, 999_999))
    }

    pub(super) fn smallest(&mut self) -> String {
        format!("{}e-3", self.within(-999_999, 9_999))
    }

    pub(super) fn money(&mut self) -> String {
        let cents = i128::from(self.signed());
        format!("{}{}.{:02}", if cents < 0 { "-" } else { "" }, cents.abs() / 100, cents.abs() % 100)
    }

    /// Of every plane of Unicode, but for NUL and what is no character.
    fn character(&mut self) -> char {
        match self.random.below(6) {
            0 => self.random.one_of(&ODD),
            1 | 2 => char::from(b' ' + u8::try_from(self.random.below(95)).expect("it is ASCII")),
            3 => {
                char::from_u32(u32::try_from(self.random.within(1..0x800)).expect("it is small")).expect("no surrogate")
            }
            _ => {
                let plane = self.random.below(17) << 16;
                let number = u32::try_from(plane | self.random.within(1..0x1_0000)).expect("it is small");
                char::from_u32(number).unwrap_or('\u{fffd}')
            }
        }
    }

    fn characters(&mut self, max: u64) -> String {
        let count = self.count(max);
        (0..count).map(|_| self.character()).collect()
    }

    pub(super) fn text(&mut self) -> String {
        match self.random.below(12) {
            0 => self.random.one_of(&WORDS).to_owned(),
            1 => self.characters(400),
            _ => self.characters(CHARACTERS_MAX),
        }
    }

    fn short_text(&mut self) -> String {
        if self.random.chance(10) { self.random.one_of(&WORDS).to_owned() } else { self.characters(CHARACTERS_MAX) }
    }

    pub(super) fn varchar_20(&mut self) -> String {
        self.characters(20)
    }

    pub(super) fn char_5(&mut self) -> String {
        self.characters(5)
    }

    /// A byte; above ASCII it is printed in octal from 16 on, and before that as a byte that no UTF-8 text has.
    pub(super) fn quoted_char(&mut self) -> String {
        if self.version >= 16 && self.random.chance(20) {
            return format!("\\{:03o}", self.random.within(128..256));
        }
        let byte = u8::try_from(self.random.below(128)).expect("a byte");
        if byte == 0 { String::new() } else { char::from(byte).to_string() }
    }

    pub(super) fn bytea(&mut self) -> String {
        let max = if self.random.chance(10) { 600 } else { 20 };
        let count = self.count(max);
        format!("\\x{}", self.list(count, |draw| format!("{:02x}", draw.random.below(256)), ""))
    }

    pub(super) fn uuid(&mut self) -> String {
        let hex = format!("{:016x}{:016x}", self.random.next(), self.random.next());
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }

    pub(super) fn json(&mut self) -> String {
        self.json_of_depth(3)
    }

    fn json_of_depth(&mut self, depth: u64) -> String {
        let space = self.random.one_of(&["", " ", "\n\t", "  "]).to_owned();
        let count = self.count(4);
        let value = match self.random.below(if depth == 0 { 5 } else { 8 }) {
            0 => self.random.one_of(&["null", "true", "false", "{}", "[]", "\"\""]).to_owned(),
            1 => self.signed().to_string(),
            2 => format!("{}{}", self.int4(), self.random.one_of(&["e12", "E+3", "e-7", ".50", ".10e2"])),
            3 | 4 => self.json_string(),
            5 | 6 => format!("[{}]", self.list(count, |draw| draw.json_of_depth(depth - 1), &format!("{space},"))),
            _ => {
                let pair = |draw: &mut Self| format!("{}:{}", draw.json_string(), draw.json_of_depth(depth - 1));
                format!("{{{}}}", self.list(count, pair, ","))
            }
        };
        format!("{space}{value}")
    }

    fn json_string(&mut self) -> String {
        serde_json::to_string(&self.short_text()).expect("a string")
    }

    pub(super) fn jsonpath(&mut self) -> String {
        let member = self.json_string();
        format!("$.{member}[*] ? (@ {} {})", self.random.one_of(&["==", "<", ">="]), self.int4())
    }

    pub(super) fn xml(&mut self) -> String {
        let is_allowed = |character: &char| matches!(character, '\t' | '\n' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        let content = |draw: &mut Self| -> String {
            let text: String = draw.short_text().chars().filter(is_allowed).collect();
            text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
        };
        let count = self.count(3);
        let element = |draw: &mut Self| {
            let name = draw.random.one_of(&["a", "ünï", "x-1", "b"]);
            format!("<{name} y=\"{}\">{}<!-- c --><z/></{name}>", content(draw), content(draw))
        };
        self.list(count, element, " ")
    }

    /// In single quotes, with nothing in it that ends them.
    fn lexeme(&mut self) -> String {
        let text = self.characters(10) + self.random.one_of(&["a", "é", "'", "\\"]);
        format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    }

    pub(super) fn tsvector(&mut self) -> String {
        let count = self.count(6);
        self.list(
            count,
            |draw| {
                let count = draw.count(4);
                let position = |draw: &mut Self| {
                    format!("{}{}", draw.random.within(1..16_384), draw.random.one_of(&["", "A", "B", "C"]))
                };
                let positions = draw.list(count, position, ",");
                let colon = if positions.is_empty() { "" } else { ":" };
                format!("{}{colon}{positions}", draw.lexeme())
            },
            " ",
        )
    }

    pub(super) fn tsquery(&mut self) -> String {
        match self.random.below(10) {
            0 => String::new(),
            // A chain that is not grouped as PostgreSQL reads its text.
            1 | 2 => format!("{} & ({} & {})", self.lexeme(), self.lexeme(), self.lexeme()),
            _ => self.tsquery_of_depth(3),
        }
    }

    fn tsquery_of_depth(&mut self, depth: u64) -> String {
        match self.random.below(if depth == 0 { 2 } else { 6 }) {
            0 => self.lexeme(),
            1 => self.lexeme() + self.random.one_of(&[":*", ":A", ":BC", ":*ABD", ":D"]),
            2 => format!("!({})", self.tsquery_of_depth(depth - 1)),
            _ => {
                let operator = self.random.one_of(&["&", "|", "<->", "<7>", "<0>"]);
                format!("({}) {operator} ({})", self.tsquery_of_depth(depth - 1), self.tsquery_of_depth(depth - 1))
            }
        }
    }

    pub(super) fn hstore(&mut self) -> String {
        let count = self.count(5);
        self.list(
            count,
            |draw| {
                let key = quoted(&draw.short_text());
                let value = if draw.random.chance(20) { "NULL".to_owned() } else { quoted(&draw.short_text()) };
                format!("{key}=>{value}")
            },
            ", ",
        )
    }

    pub(super) fn ltree(&mut self) -> String {
        let count = self.count(6);
        self.list(count, |draw| format!("{}_{}", draw.random.one_of(&["a", "B", "9", "z"]), draw.oid()), ".")
    }

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

    pub(super) fn date(&mut self) -> String {
        if self.random.chance(10) {
            let edges = ["infinity", "-infinity", "4714-11-24 BC", "5874897-12-31", "0001-02-29 BC", "2000-02-29"];
            return self.random.one_of(&edges).to_owned();
        }
        let (day, era) = self.day(5_874_897);
        format!("{day}{era}")
    }

    pub(super) fn time(&mut self) -> String {
        if self.random.chance(6) {
            return self.random.one_of(&["24:00:00", "00:00:00", "23:59:59.999999", "00:00:00.000001"]).to_owned();
        }
        let mut clock = self.clock();
        clock.truncate(clock.len() - self.index(7));
        clock.trim_end_matches('.').to_owned()
    }

    /// Not in the last second of a minute: what is rounded up must not lead over the end of a day, and of all days.
    fn clock(&mut self) -> String {
        format!(
            "{:02}:{:02}:{:02}.{:06}",
            self.within(0, 23),
            self.within(0, 59),
            self.within(0, 58),
            self.within(0, 999_999)
        )
    }

    fn zone(&mut self) -> String {
        let sign = self.random.one_of(&["+", "-"]);
        let hours = format!("{sign}{:02}", self.within(0, 15));
        match self.random.below(3) {
            0 => hours,
            1 => format!("{hours}:{:02}", self.within(0, 59)),
            _ => format!("{hours}:{:02}:{:02}", self.within(0, 59), self.within(0, 59)),
        }
    }

    pub(super) fn timetz(&mut self) -> String {
        self.time() + &self.zone()
    }

    /// Microseconds in a long end earlier than PostgreSQL does.
    pub(super) fn timestamp(&mut self) -> String {
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
    pub(super) fn timestamp_3(&mut self) -> String {
        let edges =
            ["infinity", "-infinity", "4714-11-24 00:00:00 BC", "294276-12-31 23:59:59", "0001-12-31 23:59:59.999 BC"];
        self.moment(&edges, 294_276)
    }

    pub(super) fn timestamptz(&mut self) -> String {
        self.zoned_moment("294276-12-31 23:59:59.999999+00")
    }

    pub(super) fn timestamptz_3(&mut self) -> String {
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

    pub(super) fn interval(&mut self) -> String {
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

    fn bits(&mut self, count: usize) -> String {
        let zeros = self.index(count + 1);
        let rest: String = (zeros..count).map(|_| if self.random.chance(50) { '1' } else { '0' }).collect();
        "0".repeat(zeros) + &rest
    }

    pub(super) fn bit_9(&mut self) -> String {
        self.bits(9)
    }

    pub(super) fn bit_300(&mut self) -> String {
        self.bits(300)
    }

    pub(super) fn varbit(&mut self) -> String {
        let count = self.count(90);
        self.bits(count)
    }

    pub(super) fn varbit_16(&mut self) -> String {
        let count = self.count(16);
        self.bits(count)
    }

    pub(super) fn inet(&mut self) -> String {
        if self.random.chance(50) {
            let address = std::net::Ipv4Addr::from_bits(self.signed32().cast_unsigned());
            format!("{address}/{}", self.within(0, 32))
        } else {
            let bits = u128::from(self.random.next()) << 64 | u128::from(self.random.next() >> self.random.below(64));
            format!("{}/{}", std::net::Ipv6Addr::from_bits(bits), self.within(0, 128))
        }
    }

    /// No bit is set behind the mask.
    pub(super) fn cidr(&mut self) -> String {
        if self.random.chance(50) {
            let length = self.random.within(0..33);
            let mask = u32::MAX.checked_shl(32 - u32::try_from(length).expect("it is small")).unwrap_or(0);
            format!("{}/{length}", std::net::Ipv4Addr::from_bits(self.signed32().cast_unsigned() & mask))
        } else {
            let length = self.random.within(0..129);
            let mask = u128::MAX.checked_shl(128 - u32::try_from(length).expect("it is small")).unwrap_or(0);
            let bits = u128::from(self.random.next()) << 64 | u128::from(self.random.next());
            format!("{}/{length}", std::net::Ipv6Addr::from_bits(bits & mask))
        }
    }

    pub(super) fn macaddr(&mut self) -> String {
        self.list(6, |draw| format!("{:02x}", draw.random.below(256)), ":")
    }

    pub(super) fn macaddr8(&mut self) -> String {
        self.list(8, |draw| format!("{:02x}", draw.random.below(256)), ":")
    }

    /// Of any numbers.
    pub(super) fn point(&mut self) -> String {
        format!("({},{})", self.float8(), self.float8())
    }

    fn finite_point(&mut self) -> String {
        format!("({},{})", self.coordinate(), self.coordinate())
    }

    pub(super) fn line(&mut self) -> String {
        format!("{{{},{},{}}}", self.random.one_of(&["1", "-0.1", "1e100"]), self.coordinate(), self.coordinate())
    }

    pub(super) fn lseg(&mut self) -> String {
        format!("[{}]", self.list(2, Self::finite_point, ","))
    }

    pub(super) fn corners(&mut self) -> String {
        self.list(2, Self::finite_point, ",")
    }

    pub(super) fn path(&mut self) -> String {
        let count = 1 + self.count(6);
        let points = self.list(count, Self::finite_point, ",");
        if self.random.chance(50) { format!("[{points}]") } else { format!("({points})") }
    }

    pub(super) fn polygon(&mut self) -> String {
        let count = 1 + self.count(6);
        format!("({})", self.list(count, Self::finite_point, ","))
    }

    pub(super) fn circle(&mut self) -> String {
        format!("<{},{}>", self.finite_point(), self.coordinate().trim_start_matches('-'))
    }

    /// Of bounds in order, each of which may be missing; `texts` are they.
    fn range(&mut self, low: &str, high: &str) -> String {
        match self.random.below(12) {
            0 => return "empty".to_owned(),
            1 => return "(,)".to_owned(),
            _ => {}
        }
        let (open, close) = (self.random.one_of(&["[", "("]), self.random.one_of(&["]", ")"]));
        match self.random.below(8) {
            0 => format!("{open}{},)", quoted(low)),
            1 => format!("(,{}{close}", quoted(high)),
            _ => format!("{open}{},{}{close}", quoted(low), quoted(high)),
        }
    }

    fn numbers(&mut self, shift: u64) -> (i64, i64) {
        let (one, other) = (self.signed() >> shift, self.signed() >> shift);
        (one.min(other), one.max(other))
    }

    pub(super) fn int4range(&mut self) -> String {
        // The greatest integer has none behind it, at which a bound could lie.
        let (low, high) = self.numbers(33);
        self.range(&low.to_string(), &high.to_string())
    }

    pub(super) fn int8range(&mut self) -> String {
        let (low, high) = self.numbers(1);
        self.range(&low.to_string(), &high.to_string())
    }

    pub(super) fn numrange(&mut self) -> String {
        let (low, high) = self.numbers(0);
        let scale = self.within(0, 20);
        let high = if self.random.chance(10) { "NaN".to_owned() } else { format!("{high}e-{scale}") };
        self.range(&format!("{low}e-{scale}"), &high)
    }

    pub(super) fn daterange(&mut self) -> String {
        let low = self.within(1, 4999);
        let high = self.random.one_of(&["infinity", "5000-02-28", "5874897-12-30"]);
        let era = if low < 4700 && self.random.chance(30) { " BC" } else { "" };
        self.range(&format!("{low:04}-03-01{era}"), high)
    }

    pub(super) fn tsrange(&mut self) -> String {
        let low = format!("{:04}-03-01 {}", self.within(1, 1999), self.clock());
        let high = format!("{:04}-03-01 {}", self.within(2000, 294_200), self.clock());
        let low = if self.random.chance(10) { "-infinity".to_owned() } else { low };
        self.range(&low, &high)
    }

    pub(super) fn tstzrange(&mut self) -> String {
        let low = format!("{:04}-03-02 {}{}", self.within(1, 1999), self.clock(), self.zone());
        let high = format!("{:04}-03-02 {}{}", self.within(2000, 294_200), self.clock(), self.zone());
        self.range(&low, &high)
    }

    pub(super) fn textrange(&mut self) -> String {
        let mut bounds = [self.short_text(), self.short_text()];
        bounds.sort();
        self.range(&bounds[0], &bounds[1])
    }

    pub(super) fn int4multirange(&mut self) -> String {
        self.multirange(Self::int4range)
    }

    pub(super) fn nummultirange(&mut self) -> String {
        self.multirange(Self::numrange)
    }

    pub(super) fn tstzmultirange(&mut self) -> String {
        self.multirange(Self::tstzrange)
    }

    pub(super) fn textmultirange(&mut self) -> String {
        self.multirange(Self::textrange)
    }

    fn multirange(&mut self, range: fn(&mut Self) -> String) -> String {
        let count = self.count(4);
        format!("{{{}}}", self.list(count, range, ","))
    }

    pub(super) fn pg_lsn(&mut self) -> String {
        let bits = self.signed().cast_unsigned();
        format!("{:X}/{:X}", bits >> 32, bits & 0xffff_ffff)
    }

    pub(super) fn tid(&mut self) -> String {
        format!("({},{})", self.oid(), self.within(0, 65_535))
    }

    pub(super) fn pg_snapshot(&mut self) -> String {
        let start = self.random.within(1..1 << 60);
        let count = self.count(5);
        let running: Vec<_> = (0..count as u64).map(|offset| (start + offset * 3).to_string()).collect();
        format!("{start}:{}:{}", start + 20, running.join(","))
    }

    pub(super) fn mood(&mut self) -> String {
        self.random.one_of(&["sad", "o'k", "very happy", "ünï,\"x\""]).to_owned()
    }

    pub(super) fn address(&mut self) -> String {
        let (street, zip) = (self.short_text(), self.int4());
        let past = self.array_of(Self::address_part, 3, true, ",");
        let mut fields = [composite_field(&street), zip, composite_field(&past)];
        for field in &mut fields {
            if self.random.chance(15) {
                field.clear();
            }
        }
        format!("({})", fields.join(","))
    }

    fn address_part(&mut self) -> String {
        let number = self.short_text();
        format!("({},{})", composite_field(&number), self.int4())
    }

    /// One dimension that starts at 1.
    fn array_of(&mut self, item: fn(&mut Self) -> String, max: u64, nulls: bool, delimiter: &str) -> String {
        let count = self.count(max);
        let element = |draw: &mut Self| {
            if nulls && draw.random.chance(10) { "NULL".to_owned() } else { quoted(&item(draw)) }
        };
        format!("{{{}}}", self.list(count, element, delimiter))
    }

    /// Of any shape, where the form has room for that.
    pub(super) fn array(&mut self, item: fn(&mut Self) -> String, nulls: bool, delimiter: &str) -> String {
        if self.is_default || self.random.chance(50) {
            return self.array_of(item, 7, nulls || !self.is_default, delimiter);
        }
        let lengths: Vec<_> = (0..=self.count(3)).map(|_| 1 + self.count(2)).collect();
        let bound = |draw: &mut Self, length: &usize| {
            let low = draw.within(-9, 9);
            format!("[{low}:{}]", low + i64::try_from(*length).expect("it is small") - 1)
        };
        let bounds: String = lengths.iter().map(|length| bound(self, length)).collect();
        let prefix = if self.random.chance(50) { format!("{bounds}=") } else { String::new() };
        prefix + &self.dimension(&lengths, item, delimiter)
    }

    fn dimension(&mut self, lengths: &[usize], item: fn(&mut Self) -> String, delimiter: &str) -> String {
        let Some((length, inner)) = lengths.split_first() else {
            return if self.random.chance(10) { "NULL".to_owned() } else { quoted(&item(self)) };
        };
        format!("{{{}}}", self.list(*length, |draw| draw.dimension(inner, item, delimiter), delimiter))
    }
}

/// As an element of an array, a bound of a range and a part of an hstore can be written.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn composite_field(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\""))
}
