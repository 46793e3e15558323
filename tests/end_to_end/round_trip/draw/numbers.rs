//! Numbers, truth and bits.

use super::Draw;

/// The greatest number of digits that a numeric has here, on each side of the point.
const NUMERIC_DIGITS_MAX: u64 = 1000;

impl Draw {
    pub(crate) fn boolean(&mut self) -> String {
        if self.random.chance(50) { "t" } else { "f" }.to_owned()
    }

    pub(crate) fn int2(&mut self) -> String {
        (self.signed() >> 48).to_string()
    }

    pub(crate) fn int4(&mut self) -> String {
        self.signed32().to_string()
    }

    pub(super) fn signed32(&mut self) -> i32 {
        let shift = self.random.below(32);
        let [.., a, b, c, d] = self.random.next().to_be_bytes();
        i32::from_be_bytes([a, b, c, d]) >> shift
    }

    pub(crate) fn int8(&mut self) -> String {
        self.signed().to_string()
    }

    pub(crate) fn oid(&mut self) -> String {
        self.signed32().cast_unsigned().to_string()
    }

    pub(crate) fn xid8(&mut self) -> String {
        self.signed().cast_unsigned().to_string()
    }

    /// Any bits: denormals, both zeros, infinities and NaN among them.
    pub(crate) fn float8(&mut self) -> String {
        let bits = self.random.next();
        let value = match self.random.below(12) {
            0 => return self.random.one_of(&["NaN", "Infinity", "-Infinity", "-0", "0", "5e-324"]).to_owned(),
            1 => f64::from_bits(bits >> 12),
            2 => f64::from(self.signed32()) / 8.0,
            _ => f64::from_bits(bits),
        };
        if value.is_finite() { format!("{value:e}") } else { "NaN".to_owned() }
    }

    pub(crate) fn float4(&mut self) -> String {
        let bits = self.signed32().cast_unsigned();
        let value = match self.random.below(12) {
            0 => return self.random.one_of(&["NaN", "Infinity", "-Infinity", "-0", "0", "1e-45"]).to_owned(),
            1 => f32::from_bits(bits >> 9),
            _ => f32::from_bits(bits),
        };
        if value.is_finite() { format!("{value:e}") } else { "NaN".to_owned() }
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

    pub(crate) fn numeric(&mut self) -> String {
        match self.random.below(10) {
            0 if !self.is_default => self.random.one_of(&["NaN", "Infinity", "-Infinity"]).to_owned(),
            0 => self.random.one_of(&["0", "-0", "0.000", "1e130", "-1e-130"]).to_owned(),
            1 => self.decimal(NUMERIC_DIGITS_MAX, NUMERIC_DIGITS_MAX),
            2 => self.signed().to_string(),
            _ => self.decimal(30, 30),
        }
    }

    pub(crate) fn numeric_12_4(&mut self) -> String {
        match self.random.below(20) {
            0 if !self.is_default => "NaN".to_owned(),
            _ => self.decimal(7, 3),
        }
    }

    pub(crate) fn numeric_1000_300(&mut self) -> String {
        self.decimal(699, 300)
    }

    pub(crate) fn numeric_3_minus_2(&mut self) -> String {
        self.within(-99_900, 99_900).to_string()
    }

    pub(crate) fn numeric_3_5(&mut self) -> String {
        format!("{}e-5", self.within(-999, 999))
    }

    pub(crate) fn small(&mut self) -> String {
        format!("{}e-3", self.within(-999_999, 999_999))
    }

    pub(crate) fn smallest(&mut self) -> String {
        format!("{}e-3", self.within(-999_999, 9_999))
    }

    pub(crate) fn money(&mut self) -> String {
        let cents = i128::from(self.signed());
        format!("{}{}.{:02}", if cents < 0 { "-" } else { "" }, cents.abs() / 100, cents.abs() % 100)
    }

    fn bits(&mut self, count: usize) -> String {
        let zeros = self.index(count + 1);
        let rest: String = (zeros..count).map(|_| if self.random.chance(50) { '1' } else { '0' }).collect();
        "0".repeat(zeros) + &rest
    }

    pub(crate) fn bit_9(&mut self) -> String {
        self.bits(9)
    }

    pub(crate) fn bit_300(&mut self) -> String {
        self.bits(300)
    }

    pub(crate) fn varbit(&mut self) -> String {
        let count = self.count(90);
        self.bits(count)
    }

    pub(crate) fn varbit_16(&mut self) -> String {
        let count = self.count(16);
        self.bits(count)
    }
}
