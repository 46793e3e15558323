//! Texts, and what is written as one: JSON, XML, searches, labels.

use super::{Draw, quoted};

/// Inside an element, a field or a bound, nothing is longer than so many characters, so that a row stays small.
const CHARACTERS_MAX: u64 = 24;
/// Characters that mean something to some type's text.
const ODD: [char; 24] = [
    '"', '\'', '\\', ',', ';', '{', '}', '(', ')', '[', ']', '=', '>', ' ', '\t', '\n', '\r', '\u{1}', '\u{7f}', ':',
    'N', '&', '\u{2028}', '\u{feff}',
];
/// Texts that are something else without quotes.
const WORDS: [&str; 8] = ["NULL", "null", "", "\\N", "empty", "infinity", "NaN", "\\x00"];

impl Draw {
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

    pub(crate) fn text(&mut self) -> String {
        match self.random.below(12) {
            0 => self.random.one_of(&WORDS).to_owned(),
            1 => self.characters(400),
            _ => self.characters(CHARACTERS_MAX),
        }
    }

    pub(super) fn short_text(&mut self) -> String {
        if self.random.chance(10) { self.random.one_of(&WORDS).to_owned() } else { self.characters(CHARACTERS_MAX) }
    }

    pub(crate) fn varchar_20(&mut self) -> String {
        self.characters(20)
    }

    pub(crate) fn char_5(&mut self) -> String {
        self.characters(5)
    }

    /// A byte; above ASCII it is printed in octal from 16 on, and before that as a byte that no UTF-8 text has.
    pub(crate) fn quoted_char(&mut self) -> String {
        if self.version >= 16 && self.random.chance(20) {
            return format!("\\{:03o}", self.random.within(128..256));
        }
        let byte = u8::try_from(self.random.below(128)).expect("a byte");
        if byte == 0 { String::new() } else { char::from(byte).to_string() }
    }

    pub(crate) fn bytea(&mut self) -> String {
        let max = if self.random.chance(10) { 600 } else { 20 };
        let count = self.count(max);
        format!("\\x{}", self.list(count, |draw| format!("{:02x}", draw.random.below(256)), ""))
    }

    pub(crate) fn json(&mut self) -> String {
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

    pub(crate) fn jsonpath(&mut self) -> String {
        let member = self.json_string();
        format!("$.{member}[*] ? (@ {} {})", self.random.one_of(&["==", "<", ">="]), self.int4())
    }

    pub(crate) fn xml(&mut self) -> String {
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

    pub(crate) fn tsvector(&mut self) -> String {
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

    pub(crate) fn tsquery(&mut self) -> String {
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

    pub(crate) fn hstore(&mut self) -> String {
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

    pub(crate) fn ltree(&mut self) -> String {
        let count = self.count(6);
        self.list(count, |draw| format!("{}_{}", draw.random.one_of(&["a", "B", "9", "z"]), draw.oid()), ".")
    }

    pub(crate) fn mood(&mut self) -> String {
        self.random.one_of(&["sad", "o'k", "very happy", "ünï,\"x\""]).to_owned()
    }
}
