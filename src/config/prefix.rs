//! Patterns of the prefixes of logical decoding messages.

use super::document::Data;
use super::pattern::Glob;
use super::problem::Fault;
use super::values::FromData;

/// A pattern in which `*` stands for any characters, none included. The rest is compared exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixPattern(Glob);

impl PrefixPattern {
    /// Every text is a pattern.
    pub fn parse(text: &str) -> Self {
        Self(Glob { pieces: text.split('*').map(str::to_owned).collect() })
    }

    /// Whether the prefix is one of those meant.
    pub fn matches(&self, prefix: &str) -> bool {
        self.0.matches(prefix)
    }
}

impl FromData for PrefixPattern {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        String::from_data(data).map(|text| Self::parse(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::PrefixPattern;

    #[test]
    fn a_star_stands_for_anything_and_all_else_for_itself() {
        for (pattern, prefix, matches) in [
            ("*", "", true),
            ("*", "app", true),
            ("app", "app", true),
            ("app", "app.x", false),
            ("app.*", "app.x", true),
            ("app.*", "apps", false),
            ("", "", true),
            ("\"a\".*", "\"a\".b", true),
        ] {
            assert_eq!(PrefixPattern::parse(pattern).matches(prefix), matches, "{pattern} {prefix}");
        }
    }
}
