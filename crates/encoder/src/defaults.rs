//! Default expressions, as far as a schema can say them.
//!
//! A schema's default is a value. So an expression is either one literal, which is read like a row's value, or a call whose result is not
//! known, for which Debezium puts a value such as 0 in. Everything else leaves the column without a default, which is never wrong.

use std::borrow::Cow;

/// What a column's default comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Default<'a> {
    /// A value, as text.
    Literal(Cow<'a, str>),
    /// The result of a function.
    Computed,
}

/// Functions that are called without parentheses, as `pg_get_expr` prints them.
const KEYWORD_FUNCTIONS: [&str; 11] = [
    "CURRENT_CATALOG",
    "CURRENT_DATE",
    "CURRENT_ROLE",
    "CURRENT_SCHEMA",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "CURRENT_USER",
    "LOCALTIME",
    "LOCALTIMESTAMP",
    "SESSION_USER",
    "USER",
];

/// Reads what `pg_get_expr` prints; none for an expression that is neither a literal nor a call, and for a null.
pub(crate) fn parse(expression: &str) -> Option<Default<'_>> {
    let expression = expression.trim();
    if is_call(expression) || KEYWORD_FUNCTIONS.iter().any(|name| name.eq_ignore_ascii_case(expression)) {
        return Some(Default::Computed);
    }
    let escaped = expression.strip_prefix('E').filter(|rest| rest.starts_with('\''));
    if let Some(quoted) = escaped.unwrap_or(expression).strip_prefix('\'') {
        let (literal, rest) = unquote(quoted, escaped.is_some())?;
        return is_cast(rest).then_some(Default::Literal(literal));
    }
    let (literal, rest) = expression.split_at(expression.find("::").unwrap_or(expression.len()));
    let literal = literal.strip_prefix('(').and_then(|literal| literal.strip_suffix(')')).unwrap_or(literal);
    (is_bare(literal) && is_cast(rest)).then_some(Default::Literal(literal.into()))
}

/// An expression that comes to what a mask makes of this one's value, and says no more; none where no schema says anything.
pub(crate) fn masked(expression: &str, mask: impl FnOnce(&[u8]) -> Option<String>) -> Option<String> {
    match parse(expression)? {
        Default::Literal(text) => mask(text.as_bytes()).map(|masked| format!("'{}'", masked.replace('\'', "''"))),
        Default::Computed => Some("now()".to_owned()),
    }
}

/// Whether it is what is printed without quotes: a number, or a truth value.
fn is_bare(literal: &str) -> bool {
    let digits = literal.strip_prefix('-').unwrap_or(literal);
    let number = digits.starts_with(|first: char| first.is_ascii_digit());
    let number = number && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    number || literal == "true" || literal == "false"
}

/// Whether it starts with a call, in parentheses or not, such as `nextval('t_id_seq'::regclass)` or `(now() AT TIME ZONE 'utc'::text)`.
fn is_call(expression: &str) -> bool {
    let expression = expression.strip_prefix('(').unwrap_or(expression);
    let name_end =
        expression.find(|character: char| !(character.is_ascii_alphanumeric() || matches!(character, '_' | '.')));
    let name_end = name_end.unwrap_or(expression.len());
    let call = name_end > 0 && expression[name_end..].starts_with('(');
    call && expression[name_end..].contains(')')
}

/// Whether it is nothing, or casts only, such as `::character varying` or `::"Odd".mood`.
fn is_cast(rest: &str) -> bool {
    let Some(name) = rest.strip_prefix("::") else { return rest.is_empty() };
    // What a name of a type does not have is an operator, or a quote.
    let legal = |character: char| {
        character.is_alphanumeric() || matches!(character, '_' | '.' | ' ' | '"' | '(' | ')' | ',' | '[' | ']' | ':')
    };
    !name.is_empty() && name.chars().all(legal)
}

/// The text up to the closing quote, and what comes after that.
fn unquote(quoted: &str, escaped: bool) -> Option<(Cow<'_, str>, &str)> {
    let mut text = String::new();
    let mut characters = quoted.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '\'' => match quoted[position + 1..].strip_prefix('\'') {
                Some(_) => {
                    characters.next();
                    text.push('\'');
                }
                None => return Some((text.into(), &quoted[position + 1..])),
            },
            // PostgreSQL escapes the backslash itself and nothing else.
            '\\' if escaped => text.push(characters.next()?.1),
            other => text.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_default_comes_to_the_masked_value() {
        let mask = |text: &[u8]| Some(format!("{}'\\\\", text.len()));
        assert_eq!(parse(&masked("'abc'::text", mask).unwrap()), Some(Default::Literal("3'\\\\".into())));
        assert_eq!(masked("f('abc'::text)", mask).as_deref(), Some("now()"));
        assert_eq!(masked("('a'::text || 'b'::text)", mask), None);
        assert_eq!(masked("'abc'::text", |_| None), None);
    }

    fn check(expression: &str, expected: &str) {
        let found = match parse(expression) {
            Some(Default::Literal(text)) => format!("literal {text}"),
            Some(Default::Computed) => "computed".to_owned(),
            None => "none".to_owned(),
        };
        assert_eq!(found, expected, "{expression}");
    }

    #[test]
    fn literals() {
        check("7", "literal 7");
        check("'-1'::integer", "literal -1");
        check("(-1)", "literal -1");
        check("1.50", "literal 1.50");
        check("true", "literal true");
        check("'dflt'::text", "literal dflt");
        check("'it''s'::character varying", "literal it's");
        check("''::text", "literal ");
        check(r"E'a\\b'::text", r"literal a\b");
        check("'a::b'::bpchar", "literal a::b");
        check("'2020-01-01 00:00:00+00'::timestamp with time zone", "literal 2020-01-01 00:00:00+00");
        check("'happy'::\"Odd Schema\".mood", "literal happy");
        check("(0)::numeric(10,2)", "literal 0");
    }

    #[test]
    fn calls() {
        check("nextval('t_id_seq'::regclass)", "computed");
        check("now()", "computed");
        check("(now() AT TIME ZONE 'utc'::text)", "computed");
        check("CURRENT_TIMESTAMP", "computed");
        check("CURRENT_USER", "computed");
        check("public.gen_random_uuid()", "computed");
    }

    #[test]
    fn all_else_is_left_out() {
        for expression in [
            "",
            "-",
            "NULL::character varying",
            "('a'::text || 'b'::text)",
            "'a'::text || 'b'::text",
            "(1 + 2)",
            "1 + 2",
            "'now'::text::date + 1",
            "'open",
            "ARRAY[1, 2]",
            "'x' y",
            "word",
        ] {
            check(expression, "none");
        }
    }
}
