//! Which records are wanted: `--where` and `--key`.
//!
//! ```text
//! or    = and { "or" and }
//! and   = not { "and" not }
//! not   = "not" not | "(" or ")" | test
//! test  = path ( "=" | "!=" | "<>" | "<" | "<=" | ">" | ">=" ) literal
//!       | path [ "not" ] "in" "(" literal { "," literal } ")"
//!       | path "is" [ "not" ] "null"
//! path  = name { "." name }          name = letters, digits and _, or anything in double quotes
//! literal = 'text' | number | true | false | word
//! ```
//!
//! Words of the language are not case-sensitive; `''` in a text is one quote, as `""` in a name is. A path begins in the value; the first names `key`, `value` and `header`
//! choose the record's key, its value and its headers, and `header.__op` is the last header of that name as text. A word is a text without quotes.
//!
//! Numbers are compared digit by digit, however long they are, and so are decimals that are texts with numbers. Texts are compared by their bytes, with
//! bytes as base64. As in SQL, a test of what is null or not there, or of two types that do not compare, is neither true nor false: a record is wanted where the
//! whole is true. What was never there in any record is told at the end, since it may be mistyped.

mod parse;

use std::{cell::Cell, cmp::Ordering};

use encoder::decode::{Value, compare_numbers, parse_json};

/// A record, as far as it is decided by.
pub(crate) struct Fields<'a> {
    pub(crate) key: &'a Value,
    pub(crate) value: &'a Value,
    pub(crate) headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// What `--where` says.
#[derive(Debug)]
pub(crate) struct Predicate {
    expression: Expression,
    tests: Vec<Test>,
}

#[derive(Debug, PartialEq)]
enum Expression {
    Any(Vec<Self>),
    All(Vec<Self>),
    Not(Box<Self>),
    /// The test of this number.
    Test(usize),
}

/// A test of one field, and what became of it.
#[derive(Debug)]
struct Test {
    /// As it was written.
    path: String,
    root: Root,
    names: Vec<String>,
    check: Check,
    was_there: Cell<bool>,
    /// Whether it was there with a type that does not compare.
    was_another: Cell<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    Key,
    Value,
    Header,
}

#[derive(Debug, PartialEq)]
enum Check {
    Compare(Relation, Literal),
    In(Vec<Literal>),
    IsNull,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq)]
enum Literal {
    Text(String),
    Number(String),
    Boolean(bool),
}

/// A field that is there, is null, is in what is null, or is not there.
enum Looked<'a> {
    There(&'a Value),
    Null,
    InNull,
    Missing,
}

impl Predicate {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        parse::parse(text)
    }

    /// Whether the record is wanted.
    pub(crate) fn is_met(&self, fields: &Fields<'_>) -> bool {
        self.evaluate(&self.expression, fields) == Some(true)
    }

    fn evaluate(&self, expression: &Expression, fields: &Fields<'_>) -> Option<bool> {
        // All parts are looked at, so that each knows whether its field is ever there.
        let decided_by = |parts: &[Expression], decisive: bool| {
            let mut outcome = Some(!decisive);
            for part in parts {
                match self.evaluate(part, fields) {
                    Some(found) if found == decisive => outcome = Some(decisive),
                    None if outcome != Some(decisive) => outcome = None,
                    _ => {}
                }
            }
            outcome
        };
        match expression {
            Expression::Any(parts) => decided_by(parts, true),
            Expression::All(parts) => decided_by(parts, false),
            Expression::Not(part) => self.evaluate(part, fields).map(|outcome| !outcome),
            Expression::Test(number) => self.tests[*number].evaluate(fields),
        }
    }

    /// What may be mistaken, after all records.
    pub(crate) fn doubts(&self) -> Vec<String> {
        let doubts = self.tests.iter().filter_map(|test| {
            if !test.was_there.get() {
                Some(format!("no record has a field {}", test.path))
            } else if test.was_another.get() {
                Some(format!("in some records {} is of a type that does not compare", test.path))
            } else {
                None
            }
        });
        let mut doubts: Vec<String> = doubts.collect();
        doubts.dedup();
        doubts
    }
}

impl Test {
    fn evaluate(&self, fields: &Fields<'_>) -> Option<bool> {
        let header;
        let root = match self.root {
            Root::Key => Some(fields.key),
            Root::Value => Some(fields.value),
            Root::Header => {
                let [name, ..] = self.names.as_slice() else { return None };
                let last = fields.headers.iter().rev().find(|(found, _)| found == name);
                header = last.map(|(_, bytes)| match bytes {
                    None => Value::Null,
                    Some(bytes) => match std::str::from_utf8(bytes) {
                        Ok(text) => Value::Text(text.into()),
                        Err(_) => Value::Bytes((*bytes).into()),
                    },
                });
                header.as_ref()
            }
        };
        let names = if self.root == Root::Header { &[][..] } else { &self.names };
        let looked = root.map_or(Looked::Missing, |root| look(root, names));
        if matches!(looked, Looked::There(_) | Looked::Null) {
            self.was_there.set(true);
        }
        if self.check == Check::IsNull {
            return Some(!matches!(looked, Looked::There(_)));
        }
        let Looked::There(value) = looked else { return None };
        let outcome = match &self.check {
            Check::IsNull => None,
            Check::Compare(relation, literal) => compare(value, literal).and_then(|order| relation.holds(order)),
            Check::In(literals) => {
                let orders: Vec<Order> = literals.iter().filter_map(|literal| compare(value, literal)).collect();
                (!orders.is_empty()).then(|| orders.contains(&Order::Equal))
            }
        };
        if outcome.is_none() {
            self.was_another.set(true);
        }
        outcome
    }
}

fn look<'a>(value: &'a Value, names: &[String]) -> Looked<'a> {
    let mut value = value;
    for name in names {
        match value {
            Value::Null => return Looked::InNull,
            value_of => match value_of.field(name) {
                Some(field) => value = field,
                None => return Looked::Missing,
            },
        }
    }
    if *value == Value::Null { Looked::Null } else { Looked::There(value) }
}

/// How a value is to a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Equal,
    Ordered(Ordering),
    /// They are not the same, and have no order.
    Different,
}

impl From<Ordering> for Order {
    fn from(order: Ordering) -> Self {
        if order == Ordering::Equal { Self::Equal } else { Self::Ordered(order) }
    }
}

impl Relation {
    fn holds(self, order: Order) -> Option<bool> {
        let ordering = match order {
            Order::Equal => Ordering::Equal,
            Order::Ordered(ordering) => ordering,
            Order::Different => {
                return match self {
                    Self::Equal => Some(false),
                    Self::NotEqual => Some(true),
                    _ => None,
                };
            }
        };
        Some(match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        })
    }
}

/// None if they do not compare.
fn compare(value: &Value, literal: &Literal) -> Option<Order> {
    let same = |is_same: bool| if is_same { Order::Equal } else { Order::Different };
    match (value, literal) {
        (Value::Integer(number), Literal::Number(text) | Literal::Text(text)) => {
            compare_numbers(&number.to_string(), text).map(Order::from)
        }
        (Value::Number(number), Literal::Number(text) | Literal::Text(text)) => {
            compare_numbers(number, text).map(Order::from)
        }
        (Value::Text(text), Literal::Number(number)) => compare_numbers(text, number).map(Order::from),
        (Value::Text(text), Literal::Text(literal)) => Some(text.as_bytes().cmp(literal.as_bytes()).into()),
        (Value::Bytes(_), Literal::Text(literal)) => {
            let json = value.to_json();
            Some(same(json.trim_matches('"') == literal))
        }
        (Value::Boolean(value), Literal::Boolean(literal)) => Some(same(value == literal)),
        (Value::Boolean(value), Literal::Text(literal)) => {
            literal.parse::<bool>().ok().map(|literal| same(*value == literal))
        }
        _ => None,
    }
}

/// What `--key` says.
#[derive(Debug)]
pub(crate) enum KeyFilter {
    /// The whole key.
    Whole(Value),
    /// A field of it, and its value, which is compared with whatever type the field has.
    Field(String, String),
}

impl KeyFilter {
    /// Reads `name=value`, or the key as JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(value) = parse_json(text.as_bytes()) {
            return Ok(Self::Whole(value));
        }
        match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() && !text.trim_start().starts_with(['{', '[', '"']) => {
                Ok(Self::Field(name.trim().to_owned(), value.to_owned()))
            }
            _ => Err(format!(
                "{text:?} is no key: write a field as id=7, or the whole key as JSON, such as {{\"id\":7}}"
            )),
        }
    }

    /// Whether it is this key.
    pub(crate) fn is_met(&self, key: &Value) -> bool {
        match self {
            Self::Whole(wanted) => are_equal(wanted, key),
            Self::Field(name, text) => {
                let literal = Literal::Text(text.clone());
                key.field(name).and_then(|value| compare(value, &literal)) == Some(Order::Equal)
            }
        }
    }
}

/// Whether two values are the same but for how numbers are written and in which order fields stand.
fn are_equal(wanted: &Value, found: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Integer(number) => Some(number.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    match (wanted, found) {
        (Value::Record(fields), Value::Record(others)) => {
            fields.len() == others.len()
                && fields.iter().all(|(name, value)| found.field(name).is_some_and(|other| are_equal(value, other)))
        }
        (Value::List(items), Value::List(others)) => {
            items.len() == others.len() && items.iter().zip(others).all(|(item, other)| are_equal(item, other))
        }
        // JSON has no bytes.
        (Value::Text(text), Value::Bytes(_)) => found.to_json().trim_matches('"') == &**text,
        (wanted, found) => match (number(wanted), number(found)) {
            (Some(wanted), Some(found)) => compare_numbers(&wanted, &found) == Some(Ordering::Equal),
            _ => wanted == found,
        },
    }
}

#[cfg(test)]
mod tests;
