//! Configurations that are shown can be used, and keys that are mentioned exist.

use std::{collections::BTreeSet, fs};

use pgsluice::config::Config;
use regex::Regex;

use crate::{assert_none, documents};

/// Names that look like keys of ours and are those of others: Kafka Connect's, and libpq's.
const OF_OTHERS: [&str; 2] = ["schemas.enable", "http.server"];

#[test]
fn configurations_can_be_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    fs::write(&secret, "secret").expect("written");
    let secret = secret.to_str().expect("UTF-8");
    // Where a file is named, there has to be one.
    let a_file = Regex::new(r#"(_file"? = )"[^"]*"|(ca_certificate = )"[^"]*""#).expect("an expression");
    let a_secret = Regex::new(r#"= "(/run/secrets|/etc|postgres-)[^"]*""#).expect("an expression");
    let (mut problems, mut count) = (Vec::new(), 0);
    for document in documents() {
        for block in document.blocks.iter().filter(|block| block.language == "toml") {
            count += 1;
            let text = a_file.replace_all(&block.text, |found: &regex::Captures<'_>| {
                let key = found.get(1).or(found.get(2)).map_or("", |key| key.as_str());
                format!("{key}{secret:?}")
            });
            let text = a_secret.replace_all(&text, format!("= {secret:?}"));
            if let Err(error) = Config::parse(&text, required_but(&text)) {
                problems.push(document.at(block.line, error));
            }
        }
    }
    assert!(count > 8, "only {count} configurations were found");
    assert_none(&problems);
}

/// What every configuration needs, as far as this part of one does not have it.
fn required_but(text: &str) -> Vec<(String, String)> {
    let table: toml::Table = text.parse().unwrap_or_default();
    let required = [
        ("name", "PGSLUICE_NAME", "shop"),
        ("postgres.url", "PGSLUICE_POSTGRES__URL", "postgres://pgsluice@localhost/shop"),
        ("postgres.tables", "PGSLUICE_POSTGRES__TABLES", "public.*"),
        ("kafka.bootstrap_servers", "PGSLUICE_KAFKA__BOOTSTRAP_SERVERS", "localhost:9092"),
    ];
    let has = |path: &str| {
        let (section, key) = path.split_once('.').unwrap_or(("", path));
        let section =
            if section.is_empty() { Some(&table) } else { table.get(section).and_then(toml::Value::as_table) };
        section.is_some_and(|section| section.contains_key(key))
    };
    let missing = required.into_iter().filter(|(path, ..)| !has(path));
    missing.map(|(_, variable, value)| (variable.to_owned(), value.to_owned())).collect()
}

#[test]
fn keys_that_are_mentioned_exist() {
    let keys: BTreeSet<&str> = Config::keys().collect();
    let sections: BTreeSet<&str> =
        keys.iter().filter_map(|key| key.rsplit_once('.')).map(|(section, _)| section).collect();
    let roots: BTreeSet<&str> = sections.iter().map(|section| section.split('.').next().unwrap_or(section)).collect();
    let maps = ["kafka.properties.", "kafka.properties_file.", "kafka.topics.config."];
    let is_known = |path: &str| {
        keys.contains(path)
            || sections.contains(path)
            || OF_OTHERS.contains(&path)
            || maps.iter().any(|map| path.starts_with(map))
    };
    let a_path = Regex::new(r"^([a-z_]+(?:\.[a-z_]+)+)(?: = .*)?$").expect("an expression");
    let a_table = Regex::new(r"^\[\[?([a-z_.]+)\]\]?$").expect("an expression");
    let a_value = Regex::new(r#"^([a-z_]+) = (?:"|\[|true|false|\d)"#).expect("an expression");
    let (mut problems, mut count) = (Vec::new(), 0);
    for document in documents() {
        for span in &document.spans {
            // What Debezium calls it stands in a column of its own.
            if span.column.as_deref().is_some_and(|column| column.contains("Debezium")) {
                continue;
            }
            let text = span.text.as_str();
            let first =
                |found: regex::Captures<'_>| found.get(1).map_or(String::new(), |path| path.as_str().to_owned());
            let unknown = if let Some(path) = a_path.captures(text).map(first) {
                let root = path.split('.').next().unwrap_or_default();
                count += usize::from(roots.contains(root));
                let is_of_file = [".rs", ".md", ".toml", ".sql", ".jsonl", ".internal", ".conf"]
                    .iter()
                    .any(|end| path.ends_with(end));
                roots.contains(root) && !is_of_file && !is_known(&path)
            } else if let Some(path) = a_table.captures(text).map(first) {
                count += 1;
                path != "key" && !is_known(&path)
            } else if let Some(name) = a_value.captures(text).map(first) {
                // A key without its section; those of PostgreSQL have values without quotes.
                count += 1;
                let of_an_entry = ["match", "topic", "key", "partitions", "mask", "text", "characters", "columns"];
                !keys.iter().any(|key| key.rsplit('.').next() == Some(&name)) && !of_an_entry.contains(&name.as_str())
            } else {
                false
            };
            if unknown {
                problems.push(document.at(span.line, format!("there is no key `{text}`")));
            }
        }
    }
    assert!(count > 150, "only {count} keys were found");
    assert_none(&problems);
}

/// `PGSLUICE_...`, wherever it stands.
#[test]
fn variables_that_are_mentioned_exist() {
    let keys: BTreeSet<String> =
        Config::keys().map(|key| format!("PGSLUICE_{}", key.replace('.', "__").to_uppercase())).collect();
    let of_commands = ["PGSLUICE_CONFIG", "PGSLUICE_SETUP_URL"];
    let prefixes = ["PGSLUICE_KAFKA__PROPERTIES__", "PGSLUICE_TEST", "PGSLUICE_DEV_"];
    let a_variable = Regex::new("PGSLUICE_[A-Z_]*[A-Z]").expect("an expression");
    let (mut problems, mut count) = (Vec::new(), 0);
    for document in documents() {
        for (index, line) in document.lines.iter().enumerate() {
            for found in a_variable.find_iter(line) {
                count += 1;
                let name = found.as_str();
                let is_known = keys.contains(name)
                    || of_commands.contains(&name)
                    || prefixes.iter().any(|prefix| name.starts_with(prefix));
                if !is_known {
                    problems.push(document.at(index + 1, format!("there is no variable {name}")));
                }
            }
        }
    }
    assert!(count > 80, "only {count} variables were found");
    assert_none(&problems);
}
