//! What may differ from Debezium's records is what docs/migrating-from-debezium.md accounts for.

use std::{collections::BTreeSet, fs};

use regex::Regex;

use crate::root;

/// The lists are of tests, and have a reason for each of their entries; the page has them in words, and their names in a comment. Who permits a
/// difference more is led to the words.
#[test]
fn the_page_accounts_for_every_difference_that_is_permitted() {
    let read = |name: &str| fs::read_to_string(root().join(name)).expect("it is there");
    let an_entry = Regex::new(r#"Difference::\w+\(\s*"([^"]+)"|left_out\("(\w+)"\)"#).expect("an expression");
    let mut permitted = BTreeSet::new();
    for list in ["crates/encoder/tests/debezium/recording.rs", "tests/end_to_end/parity.rs"] {
        for found in an_entry.captures_iter(&read(list)) {
            let name = found.get(1).or(found.get(2)).expect("one of both");
            permitted.insert(name.as_str().to_owned());
        }
    }
    assert!(permitted.len() > 20, "{permitted:?}");
    let page = read("docs/migrating-from-debezium.md");
    let (_, rest) = page.split_once("a test compares it: ").expect("a comment");
    let (names, _) = rest.split_once(" -->").expect("its end");
    let named: BTreeSet<String> = names.split(' ').map(str::to_owned).collect();
    assert_eq!(named, permitted, "say in the page what differs, and name it in the comment");
}
