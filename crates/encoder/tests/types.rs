//! Every type of PostgreSQL is known or is text on purpose, and the documentation says what each becomes.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, path::Path};

/// `UPDATE_TYPES=1 cargo test -p encoder --test types` writes the tables to the file.
#[test]
fn the_documentation_is_what_the_code_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/types.md");
    let text = fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- types: generated -->\n", "<!-- types: end -->");
    let (before, rest) = text.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let expected = format!("{before}{begin}\n{}\n{end}{after}", encoder::types_markdown().trim_end());
    if std::env::var_os("UPDATE_TYPES").is_some() {
        fs::write(&path, expected).unwrap();
    } else {
        assert!(
            text == expected,
            "docs/types.md is out of date: run UPDATE_TYPES=1 cargo test -p encoder --test types"
        );
    }
}

/// `postgres/types.tsv` is what PostgreSQL 18.1 gives for `postgres/types.sql`: each type that a column can have.
#[test]
fn every_type_of_postgresql_has_a_row() {
    let documented = encoder::types_markdown();
    let (built_in, _) = documented.split_once("## Types with a modifier").unwrap();
    let documented: BTreeSet<_> =
        built_in.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let existing: BTreeSet<_> =
        include_str!("postgres/types.tsv").lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(documented, existing);
}
