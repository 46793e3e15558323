//! Ranges and multiranges.

use super::{Draw, quoted};

impl Draw {
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

    pub(crate) fn int4range(&mut self) -> String {
        // The greatest integer has none behind it, at which a bound could lie.
        let (low, high) = self.numbers(33);
        self.range(&low.to_string(), &high.to_string())
    }

    pub(crate) fn int8range(&mut self) -> String {
        let (low, high) = self.numbers(1);
        self.range(&low.to_string(), &high.to_string())
    }

    pub(crate) fn numrange(&mut self) -> String {
        let (low, high) = self.numbers(0);
        let scale = self.within(0, 20);
        let high = if self.random.chance(10) { "NaN".to_owned() } else { format!("{high}e-{scale}") };
        self.range(&format!("{low}e-{scale}"), &high)
    }

    pub(crate) fn daterange(&mut self) -> String {
        let low = self.within(1, 4999);
        let high = self.random.one_of(&["infinity", "5000-02-28", "5874897-12-30"]);
        let era = if low < 4700 && self.random.chance(30) { " BC" } else { "" };
        self.range(&format!("{low:04}-03-01{era}"), high)
    }

    pub(crate) fn tsrange(&mut self) -> String {
        let low = format!("{:04}-03-01 {}", self.within(1, 1999), self.clock());
        let high = format!("{:04}-03-01 {}", self.within(2000, 294_200), self.clock());
        let low = if self.random.chance(10) { "-infinity".to_owned() } else { low };
        self.range(&low, &high)
    }

    pub(crate) fn tstzrange(&mut self) -> String {
        let low = format!("{:04}-03-02 {}{}", self.within(1, 1999), self.clock(), self.zone());
        let high = format!("{:04}-03-02 {}{}", self.within(2000, 294_200), self.clock(), self.zone());
        self.range(&low, &high)
    }

    pub(crate) fn textrange(&mut self) -> String {
        let mut bounds = [self.short_text(), self.short_text()];
        bounds.sort();
        self.range(&bounds[0], &bounds[1])
    }

    pub(crate) fn int4multirange(&mut self) -> String {
        self.multirange(Self::int4range)
    }

    pub(crate) fn nummultirange(&mut self) -> String {
        self.multirange(Self::numrange)
    }

    pub(crate) fn tstzmultirange(&mut self) -> String {
        self.multirange(Self::tstzrange)
    }

    pub(crate) fn textmultirange(&mut self) -> String {
        self.multirange(Self::textrange)
    }

    fn multirange(&mut self, range: fn(&mut Self) -> String) -> String {
        let count = self.count(4);
        format!("{{{}}}", self.list(count, range, ","))
    }
}
