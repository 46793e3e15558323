//! Patterns of the names of tables and columns.

use std::fmt;

use super::document::{Data, printable};
use super::problem::Fault;
use super::shaping::TableIdentity;
use super::values::FromData;

/// A pattern `schema.table`, in either part of which `*` stands for any characters, none included.
///
/// Names are compared exactly, case included, as the catalog has them. A part in double quotes is literal: there `.` and `*` stand for
/// themselves, and a double quote is doubled, as in SQL.
#[derive(Clone, PartialEq, Eq)]
pub struct TablePattern {
    text: String,
    schema: Glob,
    table: Glob,
}

impl TablePattern {
    /// Parses a pattern; none when it is not of the form `schema.table`.
    pub fn parse(text: &str) -> Option<Self> {
        let (schema, rest) = Glob::parse(text)?;
        let (table, rest) = Glob::parse(rest.strip_prefix('.')?)?;
        rest.is_empty().then(|| Self { text: text.to_owned(), schema, table })
    }

    /// Whether the table is one of those meant.
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        self.schema.matches(schema) && self.table.matches(table)
    }

    /// The schema and table, when the pattern means exactly one.
    pub fn literal(&self) -> Option<(&str, &str)> {
        Some((self.schema.literal()?, self.table.literal()?))
    }
}

impl fmt::Display for TablePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for TablePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, formatter)
    }
}

impl FromData for TablePattern {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        let text = String::from_data(data)?;
        Self::parse(&text).ok_or_else(|| {
            Fault::new(
                format!("found \"{}\"", printable(&text)),
                "give a pattern schema.table, as in \"public.orders\" or \"public.*\"; a part that holds a dot goes in double quotes",
            )
        })
    }
}

/// A pattern `schema.table.column`, of which each part is as in a [`TablePattern`].
#[derive(Clone, PartialEq, Eq)]
pub struct ColumnPattern {
    text: String,
    schema: Glob,
    table: Glob,
    column: Glob,
}

impl ColumnPattern {
    /// Parses a pattern; none when it is not of the form `schema.table.column`.
    pub fn parse(text: &str) -> Option<Self> {
        let (schema, rest) = Glob::parse(text)?;
        let (table, rest) = Glob::parse(rest.strip_prefix('.')?)?;
        let (column, rest) = Glob::parse(rest.strip_prefix('.')?)?;
        rest.is_empty().then(|| Self { text: text.to_owned(), schema, table, column })
    }

    /// Whether the column is one of those meant, by any name that the table goes by.
    pub fn matches(&self, table: &TableIdentity, column: &str) -> bool {
        let is_table = |name: &(String, String)| self.schema.matches(&name.0) && self.table.matches(&name.1);
        self.column.matches(column) && table.names.iter().any(is_table)
    }

    /// The same, or where it cannot be known by which names the table went, whether it could be.
    pub fn may_match(&self, table: &TableIdentity, column: &str) -> bool {
        if table.is_certain { self.matches(table, column) } else { self.column.matches(column) }
    }

    /// Whether the pattern means exactly one column.
    pub fn is_literal(&self) -> bool {
        [&self.schema, &self.table, &self.column].iter().all(|part| part.literal().is_some())
    }
}

impl fmt::Display for ColumnPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for ColumnPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, formatter)
    }
}

impl FromData for ColumnPattern {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        let text = String::from_data(data)?;
        Self::parse(&text).ok_or_else(|| {
            Fault::new(
                format!("found \"{}\"", printable(&text)),
                "give a pattern schema.table.column, as in \"public.users.email\" or \"*.*.email\"; a part that holds a dot goes in double quotes",
            )
        })
    }
}

/// Literal pieces with anything between them. There is at least one piece; the first is anchored at the start and the last at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob {
    pub(super) pieces: Vec<String>,
}

impl Glob {
    /// Reads one part from the front of the text and returns it with the rest. Empty parts and parts of more than PostgreSQL's 63 bytes
    /// of literal text match nothing that exists, and are refused.
    fn parse(text: &str) -> Option<(Self, &str)> {
        let (pieces, rest) = if let Some(quoted) = text.strip_prefix('"') {
            let (literal, rest) = parse_quoted(quoted)?;
            (vec![literal], rest)
        } else {
            let end = text.find('.').unwrap_or(text.len());
            let (part, rest) = text.split_at(end);
            if part.is_empty() || part.contains(['"', '\0']) || part.trim() != part {
                return None;
            }
            (part.split('*').map(str::to_owned).collect(), rest)
        };
        let literal_bytes: usize = pieces.iter().map(String::len).sum();
        (literal_bytes <= super::values::IDENTIFIER_BYTES_MAX).then_some((Self { pieces }, rest))
    }

    /// Greedy from the left: the leftmost place of each piece leaves the most room for the next, so that no backtracking is needed.
    pub(super) fn matches(&self, name: &str) -> bool {
        let Some((first, others)) = self.pieces.split_first() else { return false };
        let Some((last, middle)) = others.split_last() else { return name == first };
        let Some(mut rest) = name.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str())) else {
            return false;
        };
        for piece in middle {
            let Some(at) = rest.find(piece.as_str()) else { return false };
            rest = &rest[at + piece.len()..];
        }
        true
    }

    fn literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }
}

/// Reads up to the closing quote, of which the opening one is consumed.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut literal = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        literal.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                literal.push('"');
                rest = after;
            }
            None => return (!literal.is_empty() && !literal.contains('\0')).then_some((literal, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, schema: &str, table: &str, expect: bool) {
        let parsed = TablePattern::parse(pattern).unwrap_or_else(|| panic!("{pattern} was refused"));
        assert_eq!(parsed.matches(schema, table), expect, "{pattern} against {schema}.{table}");
    }

    #[test]
    fn patterns_match_exactly_but_for_stars() {
        check("public.orders", "public", "orders", true);
        check("public.orders", "public", "orders2", false);
        check("public.orders", "public", "Orders", false);
        check("public.*", "public", "orders", true);
        check("public.*", "publicity", "orders", false);
        check("*.*", "any", "thing", true);
        check("sales_*.order*", "sales_eu", "order_lines", true);
        check("sales_*.order*", "sales", "orders", false);
        check("a*.t", "a", "t", true);
        check("s.a*b*c", "s", "abc", true);
        check("s.a*b*c", "s", "a-b-b-c", true);
        check("s.a*b*c", "s", "acb", false);
        check("s.ab*ba", "s", "aba", false);
        check("s.*x*x*", "s", "x", false);
        check("s.*x*x*", "s", "axbx", true);
        check("public.été*", "public", "été_2024", true);
    }

    #[test]
    fn a_quoted_part_is_literal() {
        check("\"my.schema\".t", "my.schema", "t", true);
        check("s.\"a*\"", "s", "a*", true);
        check("s.\"a*\"", "s", "ab", false);
        check("s.\"a\"\"b\"", "s", "a\"b", true);
    }

    #[test]
    fn what_is_not_two_parts_is_refused() {
        let long = format!("s.{}", "x".repeat(64));
        for pattern in [
            "", "*", "orders", ".", "a.", ".b", "a.b.c", "\"a.b", "\"\".b", "\"a\"x.b", "a .b", "a. b", "a\"b.c", &long,
        ] {
            assert!(TablePattern::parse(pattern).is_none(), "{pattern:?} was taken");
        }
    }

    #[test]
    fn a_pattern_without_stars_is_literal() {
        assert_eq!(TablePattern::parse("s.\"t*\"").as_ref().and_then(TablePattern::literal), Some(("s", "t*")));
        assert_eq!(TablePattern::parse("s.t*").as_ref().and_then(TablePattern::literal), None);
    }
}
