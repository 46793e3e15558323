//! What README.md and docs/errors.md say of the program is what the program says. `UPDATE_README=1 cargo test --test readme` writes it there.

use std::{fs, path::Path};

use pgsluice::{commands::runbook, config::Config, failure, metrics::Metrics};

#[test]
fn the_tables_are_those_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(&path).expect("there is a README");
    let mut expected = text.clone();
    for (name, table) in [
        ("configuration", Config::reference_markdown()),
        ("metrics", Metrics::reference_markdown()),
        ("failures", failure::reference_markdown()),
    ] {
        let (begin, end) = (format!("<!-- {name}: generated -->\n"), format!("<!-- {name}: end -->"));
        let (before, rest) = expected.split_once(&begin).unwrap_or_else(|| panic!("README has no {begin}"));
        let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("README has no {end}"));
        expected = format!("{before}{begin}\n{}\n{end}{after}", table.trim_end());
    }
    update(&path, &text, &expected);
}

/// Every failure and every finding of `check` has an entry that says all that it has to, and nothing else has one.
#[test]
fn every_failure_and_finding_has_an_entry() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    let text = fs::read_to_string(&path).expect("there are entries");
    match runbook::with_heads(&text) {
        Ok(expected) => update(&path, &text, &expected),
        Err(problems) => panic!("docs/errors.md:\n{problems}"),
    }
}

fn update(path: &Path, text: &str, expected: &str) {
    if std::env::var_os("UPDATE_README").is_some() {
        fs::write(path, expected).expect("it can be written");
    } else {
        let name = path.display();
        assert!(text == expected, "{name} is out of date: run UPDATE_README=1 cargo test --test readme");
    }
}
