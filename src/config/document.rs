//! TOML text to a flat map from known key to value, each with the place that it came from.
//!
//! Everything that is not in the table of keys is a problem here, so that the typed reader behind meets known keys alone. TOML's own
//! error display is not used: it quotes the source line, which may hold a password.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Key};
use super::problem::{Fault, Place, Problem};

/// The values that were given, by the path of their key.
#[derive(Default)]
pub(super) struct Document {
    values: BTreeMap<&'static str, Value>,
}

impl Document {
    /// Reads TOML text. Problems are appended; the document holds what could be read.
    pub(super) fn parse(text: &str, problems: &mut Vec<Problem>) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut document = Self::default();
        if errors.is_empty() {
            Walker { document: &mut document, lines: Lines(text), problems }.table("", root.get_ref());
        }
        problems.extend(errors.iter().map(|error| Problem {
            place: Place::File { line: error.span().map_or(0, |span| Lines(text).number(span.start)) },
            key: None,
            fault: Fault::new(format!("not valid TOML ({})", one_line(error.message())), "correct the syntax"),
        }));
        document
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Value> {
        self.values.get(key.path)
    }

    /// Sets a whole value, in the place of one that was there.
    pub(super) fn set(&mut self, key: &Key, value: Value) {
        self.values.insert(key.path, value);
    }

    /// Sets one name of a key that holds a map, leaving the others as they are.
    pub(super) fn set_entry(&mut self, key: &Key, name: &str, value: Value) {
        let held = self
            .values
            .entry(key.path)
            .or_insert_with(|| Value { place: value.place.clone(), data: Data::empty_map() });
        if !matches!(held.data, Data::Map(_)) {
            held.data = Data::empty_map();
        }
        if let Data::Map(entries) = &mut held.data {
            entries.insert(name.to_owned(), value);
        }
    }
}

/// A value and the place that it came from. There is no `Debug`: it may hold a secret.
#[derive(Clone)]
pub(super) struct Value {
    pub(super) place: Place,
    pub(super) data: Data,
}

/// A TOML value. There is no `Debug`: it may hold a secret.
#[derive(Clone)]
pub(super) enum Data {
    Text(String),
    Integer(i64),
    Boolean(bool),
    Float(f64),
    List(Vec<Data>),
    Map(BTreeMap<String, Value>),
    /// A value that no key takes, with its TOML type.
    Other(&'static str),
}

impl Data {
    fn empty_map() -> Self {
        Self::Map(BTreeMap::new())
    }

    /// The type's name with its article, for "found ...".
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Boolean(_) => "a boolean",
            Self::Float(_) => "a float",
            Self::List(_) => "a list",
            Self::Map(_) => "a table",
            Self::Other(name) => name,
        }
    }
}

/// Reads one TOML value that stands alone, such as a default or an environment variable.
pub(super) fn parse_value(text: &str, place: &Place) -> Result<Data, Fault> {
    let value = DeValue::parse(text).map_err(|error| {
        Fault::new(
            format!("not a TOML value ({})", one_line(error.message())),
            "write it as it would stand in the file",
        )
    })?;
    let mut problems = Vec::new();
    let data = data(value.get_ref(), &|_| place.clone(), &mut problems);
    match problems.into_iter().next() {
        None => Ok(data),
        Some(problem) => Err(problem.fault),
    }
}

struct Walker<'a> {
    document: &'a mut Document,
    lines: Lines<'a>,
    problems: &'a mut Vec<Problem>,
}

impl Walker<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let path = join(prefix, name.get_ref());
            let place = Place::File { line: self.lines.number(name.span().start) };
            if let Some(key) = keys::key(&path) {
                self.value(key, place, value);
            } else if keys::section(&path).is_some() {
                self.section(&path, place, value.get_ref());
            } else {
                self.problems.push(unknown(place, &path, value.get_ref().is_table()));
            }
        }
    }

    fn section(&mut self, path: &str, place: Place, value: &DeValue<'_>) {
        match value.as_table() {
            Some(table) => self.table(path, table),
            None => self.problems.push(Problem::new(
                place,
                path,
                Fault::new(
                    format!("found {}", type_name(value)),
                    format!("this is a section: write [{path}] and its keys below it"),
                ),
            )),
        }
    }

    fn value(&mut self, key: &'static Key, place: Place, value: &Spanned<DeValue<'_>>) {
        let mut problems = Vec::new();
        let data = data(value.get_ref(), &|offset| Place::File { line: self.lines.number(offset) }, &mut problems);
        self.problems.extend(
            problems
                .into_iter()
                .map(|problem| Problem { key: Some(join(key.path, problem.key().unwrap_or_default())), ..problem }),
        );
        self.document.set(key, Value { place, data });
    }
}

fn unknown(place: Place, path: &str, is_table: bool) -> Problem {
    let what = if is_table { "unknown section" } else { "unknown key" };
    Problem::new(place, printable(path), Fault::new(what, format!("the nearest known one is {}", keys::nearest(path))))
}

/// Copies a TOML value. Tables below the value are flattened to dotted names, so that `sasl.password = "x"` without quotes under
/// `[kafka.properties]`, which TOML reads as two nested tables, means what it looks like.
fn data(value: &DeValue<'_>, place: &dyn Fn(usize) -> Place, problems: &mut Vec<Problem>) -> Data {
    match value {
        DeValue::String(text) => Data::Text(text.to_string()),
        DeValue::Boolean(flag) => Data::Boolean(*flag),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Data::Integer(number),
            Err(_) => Data::Other("an integer out of range"),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Data::Float(number),
            Err(_) => Data::Other("a float out of range"),
        },
        DeValue::Datetime(_) => Data::Other("a date or time"),
        DeValue::Array(items) => Data::List(items.iter().map(|item| data(item.get_ref(), place, problems)).collect()),
        DeValue::Table(table) => {
            let mut entries = BTreeMap::new();
            flatten("", table, place, &mut entries, problems);
            Data::Map(entries)
        }
    }
}

fn flatten(
    prefix: &str,
    table: &DeTable<'_>,
    place: &dyn Fn(usize) -> Place,
    entries: &mut BTreeMap<String, Value>,
    problems: &mut Vec<Problem>,
) {
    for (name, value) in table {
        let path = join(prefix, name.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => flatten(&path, inner, place, entries, problems),
            other => {
                let value = Value { place: place(name.span().start), data: data(other, place, problems) };
                let here = value.place.clone();
                if let Some(other) = entries.insert(path.clone(), value) {
                    // The tables are walked in the order of their names, not of their lines.
                    let (earlier, later) = (other.place.clone().min(here.clone()), other.place.max(here));
                    let fault = Fault::new(format!("already given on {}", earlier.words()), "give it once");
                    problems.push(Problem::new(later, printable(&path), fault));
                }
            }
        }
    }
}

fn type_name(value: &DeValue<'_>) -> String {
    match value.type_str() {
        name @ ("integer" | "array") => format!("an {name}"),
        name => format!("a {name}"),
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// A name from outside as it may be printed: bounded, and without control characters.
pub(super) fn printable(text: &str) -> String {
    const CHARACTERS_MAX: usize = 120;
    let mut printed: String = text.chars().take(CHARACTERS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().count() > CHARACTERS_MAX {
        printed.push('…');
    }
    printed
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Turns byte offsets into line numbers. Files are small, so that counting from the start each time is no cost.
struct Lines<'a>(&'a str);

impl Lines<'_> {
    fn number(&self, offset: usize) -> usize {
        let bytes = self.0.as_bytes();
        let before = &bytes[..offset.min(bytes.len())];
        1 + before.iter().fold(0, |count, byte| count + usize::from(*byte == b'\n'))
    }
}
