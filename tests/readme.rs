//! What is generated in the documents is what the program says. `UPDATE_README=1 cargo test --test readme` writes it there.

use std::{fs, path::Path};

use pgsluice::{commands::runbook, config::Config, failure, metrics::Metrics};

#[test]
fn the_tables_are_those_of_the_program() {
    for (page, name, table) in [
        ("docs/configuration.md", "configuration", Config::reference_markdown()),
        ("docs/metrics.md", "metrics", Metrics::reference_markdown()),
    ] {
        update(page, |text| Ok(with_table(text, name, &table)));
    }
}

/// Every failure and every finding of `check` has an entry that says all that it has to, and nothing else has one.
#[test]
fn every_failure_and_finding_has_an_entry() {
    let table = failure::reference_markdown();
    update("docs/errors.md", |text| runbook::with_heads(&with_table(text, "failures", &table)));
}

/// The page with a table between its two comments.
fn with_table(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name}: generated -->\n"), format!("<!-- {name}: end -->\n"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("there is no {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("there is no {end}"));
    format!("{before}{begin}\n{}\n{end}{after}", table.trim_end())
}

fn update(page: &str, expected: impl Fn(&str) -> Result<String, String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{page}: {error}"));
    let expected = expected(&text).unwrap_or_else(|problems| panic!("{page}:\n{problems}"));
    if std::env::var_os("UPDATE_README").is_some() {
        fs::write(path, expected).expect("it can be written");
    } else {
        assert!(text == expected, "{page} is out of date: run UPDATE_README=1 cargo test --test readme");
    }
}
