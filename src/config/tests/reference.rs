//! The table of keys, and what is printed from it.

use std::collections::BTreeSet;

use super::{least_with, parse, valid};
use crate::config::Config;
use crate::config::document::Document;
use crate::config::keys::{self, KEYS, Presence, SECTIONS};
use crate::config::reader::Reader;

#[test]
fn every_key_is_read_documented_and_in_a_section() {
    let mut problems = Vec::new();
    // A key that is read only when it is given has to be given.
    let text = least_with("[kafka]", "connect_timeout = \"1s\"\n[kafka]");
    let mut reader = Reader::new(Document::parse(&text, &mut problems), problems);
    assert!(Config::read(&mut reader).is_ok());
    let known: BTreeSet<&str> = KEYS.iter().map(|key| key.path).collect();
    assert_eq!(reader.read, known, "a key in the table is not read, or one is read that is not in the table");
    assert_eq!(known.len(), KEYS.len(), "a key is in the table twice");

    let sections: BTreeSet<&str> = SECTIONS.iter().map(|section| section.path).collect();
    for key in KEYS {
        assert!(key.doc.len() > 20 && key.doc.ends_with('.'), "{} is not documented", key.path);
        assert!(sections.contains(key.split().0), "{} is in no section", key.path);
        assert_eq!(keys::nearest(key.path), key.path);
        assert!(key.variable().bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'), "{}", key.variable());
    }
    for section in SECTIONS {
        assert!(section.doc.ends_with('.') && KEYS.iter().any(|key| key.split().0 == section.path), "{}", section.path);
    }
}

#[test]
fn the_example_is_a_configuration_with_every_key() {
    let example = Config::example_toml();
    let defaults = valid(&example, &[]);
    assert_eq!(defaults.name.as_str(), "shop");
    for key in KEYS {
        let (_, name) = key.split();
        let lines = example.lines().filter(|line| {
            line.trim_start_matches('#').strip_prefix(name).is_some_and(|rest| rest.starts_with(" = "))
                && !line.starts_with("# ")
        });
        let namesakes = KEYS.iter().filter(|other| other.split().1 == name).count();
        assert_eq!(lines.count(), namesakes, "{name}");
    }
    assert!(example.lines().all(|line| !line.starts_with("# ") || line.chars().count() <= 100), "comments are wrapped");
}

/// What the example shows as a default is the default, and the other examples are of the type that their key takes.
#[test]
fn each_commented_line_of_the_example_is_sound() {
    let example = Config::example_toml();
    let defaults = format!("{:?}", valid(&example, &[]));
    let mut section = "";
    for line in example.lines() {
        if let Some(path) = line.strip_prefix('[') {
            section = path.trim_end_matches(']');
        }
        let Some((name, _)) =
            line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).and_then(|rest| rest.split_once(" = "))
        else {
            continue;
        };
        let path = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
        let key = keys::key(&path).unwrap_or_else(|| panic!("{path} is no key"));
        let uncommented = example.replacen(&format!("\n{line}\n"), &format!("\n{}\n", &line[1..]), 1);
        assert_ne!(uncommented, example);
        match (key.presence, parse(&uncommented, &[])) {
            (Presence::Default(_) | Presence::Derived { .. }, outcome) => {
                assert_eq!(format!("{:?}", outcome.expect("a default is valid")), defaults, "{path}");
            }
            (Presence::Optional { .. }, Ok(config)) => {
                assert_ne!(format!("{config:?}"), defaults, "{path} changes nothing");
            }
            (_, Err(error)) => {
                let told = error.to_string();
                let is_expected = told.contains("cannot read /run/secrets/") || told.contains("there is no");
                assert!(is_expected && error.problems().len() <= 2, "{path}: {told}");
            }
            (Presence::Required { .. }, Ok(_)) => panic!("{path} is commented out"),
        }
    }
}

#[test]
fn the_reference_has_one_row_for_each_key() {
    let reference = Config::reference_markdown();
    let rows: Vec<&str> = reference.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), KEYS.len());
    for (row, key) in rows.iter().zip(KEYS) {
        assert_eq!(row.replace("\\|", "").matches('|').count(), 6, "{row}");
        assert!(row.starts_with(&format!("| `{}` | {} | ", key.split().1, key.kind.label())), "{row}");
    }
    for (path, row) in [
        ("memory_limit", "| `memory_limit` | size | `\"64MiB\"` | "),
        ("postgres.url", "| `url` | string, secret | required | "),
        ("postgres.slot", "| `slot` | string | `pgsluice_` and `name` | "),
        ("kafka.properties", "| `properties` | table | none | "),
    ] {
        assert!(reference.contains(row), "{path}: {reference}");
    }
}
