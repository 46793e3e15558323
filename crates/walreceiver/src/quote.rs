//! Quoting in replication commands.
//!
//! Their grammar (PostgreSQL `src/backend/replication/repl_scanner.l`) has identifiers in double quotes and literals in
//! single ones, a quote inside is doubled, and a backslash is nothing special.

/// A double-quoted identifier.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A single-quoted literal.
pub(crate) fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// The value of pgoutput's option `publication_names`: identifiers, each in double quotes, so that no name is folded or
/// split.
///
/// ```
/// assert_eq!(walreceiver::publication_names(&["shop", "My \"pub\""]), r#""shop","My ""pub""""#);
/// ```
pub fn publication_names(names: &[&str]) -> String {
    names.iter().map(|name| identifier(name)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_inside_does_not_end_the_text() {
        assert_eq!(identifier(r#"a"b"#), r#""a""b""#);
        assert_eq!(literal(r"it's \"), r"'it''s \'");
    }
}
