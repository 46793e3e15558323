//! Composites and arrays.

use super::{Draw, quoted};

impl Draw {
    pub(crate) fn address(&mut self) -> String {
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
    pub(crate) fn array(&mut self, item: fn(&mut Self) -> String, nulls: bool, delimiter: &str) -> String {
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

fn composite_field(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\""))
}
