//! Overrides from environment variables.
//!
//! `PGSLUICE_POSTGRES__URL` is `postgres.url`: two underscores stand for the dot. The key's kind says how the text is read: strings,
//! paths, sizes and durations verbatim, numbers and booleans as TOML, a list as a TOML array or as words separated by commas, a table
//! as an inline TOML table, and a list of tables as an array of these. One name of a table of librdkafka or topic properties is set by one more part, in which one underscore
//! stands for the dot (`PGSLUICE_KAFKA__PROPERTIES__SASL_PASSWORD` is `sasl.password`), or which is taken as it is when it holds a dot.
//!
//! A variable of the `PGSLUICE_` family that is no key is an error, since a misspelt override is otherwise silent. The exceptions:
//! `PGSLUICE_CONFIG`, which names the file; `PGSLUICE_SETUP_URL`, which is an argument of `setup`; `PGSLUICE_TEST_*`, `PGSLUICE_DEV_*` and `PGSLUICE_FAULT`, which belong to the
//! project's own tests and tools; and what Kubernetes sets in every pod beside a service whose name starts with `pgsluice`, such as
//! `PGSLUICE_SERVICE_HOST` and `PGSLUICE_PORT_9187_TCP_ADDR`.

use super::document::{Data, Document, Value, parse_value, printable};
use super::keys::{self, KEYS, Key, Kind};
use super::problem::{Fault, Place, Problem};

const PREFIX: &str = "PGSLUICE_";

/// The variable that overrides the key with this path.
pub(super) fn variable_name(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_uppercase())
}

/// The variables of the process that concern pgsluice; those that are not UTF-8 are problems.
pub(super) fn from_process(problems: &mut Vec<Problem>) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)).map(str::to_owned) else { continue };
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) if is_foreign(&name) => {}
            Err(_) => problems.push(problem(&name, Fault::new("the value is not UTF-8", "set it to UTF-8 text"))),
        }
    }
    variables
}

/// Lays the variables over the document. Whole tables go first, so that single names are set inside them.
pub(super) fn overlay(document: &mut Document, mut variables: Vec<(String, String)>, problems: &mut Vec<Problem>) {
    variables.retain(|(name, _)| name.starts_with(PREFIX) && !is_foreign(name));
    variables.sort();
    let mut entries = Vec::new();
    for (name, text) in variables {
        let place = Place::Environment { variable: printable(&name) };
        match target(&name) {
            Some(Target::Key(key)) => match value(key, text, &place) {
                Ok(data) => document.set(key, Value { place, data }),
                Err(fault) => problems.push(Problem::new(place, key.path, fault)),
            },
            Some(Target::Entry(key, entry)) => entries.push((key, entry, Value { place, data: Data::Text(text) })),
            None => problems.push(unknown(&name)),
        }
    }
    for (key, entry, value) in entries {
        document.set_entry(key, &entry, value);
    }
}

enum Target {
    Key(&'static Key),
    Entry(&'static Key, String),
}

fn target(name: &str) -> Option<Target> {
    if let Some(key) = KEYS.iter().find(|key| key.variable().eq_ignore_ascii_case(name)) {
        return Some(Target::Key(key));
    }
    let mut maps = KEYS.iter().filter(|key| key.kind == Kind::TextMap);
    maps.find_map(|key| {
        let prefix = format!("{}__", key.variable());
        let head = name.get(..prefix.len())?;
        let entry = &name[prefix.len()..];
        (head.eq_ignore_ascii_case(&prefix) && !entry.is_empty()).then(|| Target::Entry(key, entry_name(entry)))
    })
}

fn entry_name(text: &str) -> String {
    if text.contains('.') { text.to_owned() } else { text.to_lowercase().replace('_', ".") }
}

fn value(key: &Key, text: String, place: &Place) -> Result<Data, Fault> {
    match key.kind {
        Kind::Text | Kind::Secret | Kind::Path | Kind::Duration | Kind::Size => Ok(Data::Text(text)),
        // What is not TOML is handed on as text: the reader then says what the key takes.
        Kind::Boolean | Kind::Integer => Ok(parse_value(text.trim(), place).unwrap_or(Data::Text(text))),
        Kind::TextList if text.trim_start().starts_with('[') => parse_value(text.trim(), place),
        Kind::TextList => Ok(Data::List(text.split(',').map(|item| Data::Text(item.trim().to_owned())).collect())),
        Kind::TextMap | Kind::TableList => parse_value(text.trim(), place),
    }
}

fn unknown(name: &str) -> Problem {
    let path = name[PREFIX.len()..].to_lowercase().replace("__", ".");
    let fault = if keys::section(&path).is_some_and(|section| !section.path.is_empty()) {
        let variables: Vec<_> = KEYS.iter().filter(|key| key.split().0 == path).map(|key| key.variable()).collect();
        Fault::new("this is a section", format!("set one of its keys: {}", variables.join(", ")))
    } else {
        Fault::new("unknown variable", format!("the nearest known one is {}", variable_name(keys::nearest_key(&path))))
    };
    problem(name, fault)
}

fn problem(name: &str, fault: Fault) -> Problem {
    Problem { place: Place::Environment { variable: printable(name) }, key: None, fault }
}

/// Whether a variable of the family belongs to somebody else: the program's own switches, tests and tools, or Kubernetes' service links.
fn is_foreign(name: &str) -> bool {
    let is_own = matches!(name, "PGSLUICE_CONFIG" | "PGSLUICE_SETUP_URL" | "PGSLUICE_FAULT");
    if is_own || name.starts_with("PGSLUICE_TEST_") || name.starts_with("PGSLUICE_DEV_") {
        return true;
    }
    // Every key below the root has two underscores in its variable, and no key at the root looks like a service link.
    let is_port = |text: &str| {
        text.split('_').next().is_some_and(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
    };
    !name.contains("__")
        && (name.ends_with("_SERVICE_HOST")
            || name.contains("_SERVICE_PORT")
            || name.ends_with("_PORT")
            || name.match_indices("_PORT_").any(|(at, word)| is_port(&name[at + word.len()..])))
}
