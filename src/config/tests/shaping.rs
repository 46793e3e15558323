//! Which columns are written, and how.

use encoder::{EncodeOptions, Format, Mask, Salt};

use crate::config::keys::KEYS;

use super::{check, least_and, problems, valid};

fn masks(lines: &str) -> Vec<Mask> {
    let config = valid(&least_and(&format!("[columns]\n{lines}")), &[]);
    config.columns.masks.into_iter().map(|rule| rule.mask).collect()
}

#[test]
fn masks_are_read_inline_and_as_tables() {
    let inline = "hash_salt = \"kept-from-print\"\nmasks = [{ columns = [\"*.*.a\"], mask = \"hash\" }, \
                  { columns = \"a.b.c\", mask = \"fixed\", text = \"\" }]";
    assert_eq!(masks(inline), [Mask::Sha256(Salt::new(b"kept-from-print")), Mask::Fixed(String::new())]);
    let tables = "[[columns.masks]]\ncolumns = [\"*.*.a\", \"*.*.b\"]\nmask = \"truncate\"\ncharacters = 3\n\
                  [[columns.masks]]\ncolumns = [\"*.*.*\"]\nmask = \"asterisks\"";
    assert_eq!(masks(tables), [Mask::Truncate { characters_max: 3 }, Mask::Asterisks]);
    let config = valid(&least_and(&format!("[columns]\n{inline}")), &[]);
    assert!(!format!("{config:?}").contains("kept-from-print"), "a salt is a secret");
}

#[test]
fn they_can_come_from_the_environment() {
    let variables = [
        ("PGSLUICE_COLUMNS__EXCLUDE", "a.b.c, *.*.ssn"),
        ("PGSLUICE_COLUMNS__MASKS", r#"[{ columns = "*.*.d", mask = "asterisks" }]"#),
    ];
    let columns = valid(super::LEAST, &variables).columns;
    let patterns: Vec<_> = columns.patterns().map(|(key, pattern)| format!("{key} {pattern}")).collect();
    assert_eq!(
        patterns,
        ["columns.include *.*.*", "columns.exclude a.b.c", "columns.exclude *.*.ssn", "columns.masks *.*.d"]
    );
}

/// A value of each key of `[events]` that is not its default.
const OTHERWISE: &[(&str, &str)] = &[
    ("envelope", "\"upsert\""),
    ("format", "\"json\""),
    ("unrepresentable", "\"skip_to_dead_letter\""),
    ("decimals", "\"double\""),
    ("times", "\"native\""),
    ("intervals", "\"string\""),
    ("zoned_times", "\"offset\""),
    ("varying_bits", "\"text\""),
    ("arrays", "\"text\""),
    ("hstore", "\"map\""),
    ("bytea", "\"hex\""),
    ("names", "\"none\""),
    ("tombstones", "false"),
    ("unavailable_value", "\"?\""),
    ("skip", "[\"truncate\"]"),
    ("headers", "[\"op\"]"),
];

/// A key of `[events]` that is added must be one that a table can have otherwise.
#[test]
fn each_key_of_events_can_be_otherwise_for_a_table() {
    // What no table is written by.
    let is_of_the_stream = |name: &str| {
        ["transaction_topic", "messages", "message_prefixes", "heartbeat"].iter().any(|it| name.starts_with(it))
    };
    for key in KEYS.iter().filter(|key| key.split().0 == "events" && !is_of_the_stream(key.split().1)) {
        let lines = format!("[[tables]]\nmatch = \"a.b\"\n{} = {}", key.path, key.presence.example());
        let config = valid(&least_and(&lines), &[]);
        assert_eq!(config.tables.len(), 1, "{}", key.path);
        assert_eq!(config.tables[0].events, config.events, "{}: the example is the default", key.path);
        let (_, other) = OTHERWISE.iter().find(|(name, _)| *name == key.split().1).expect(key.path);
        let lines = format!("[[tables]]\nmatch = \"a.b\"\n{} = {other}", key.path);
        let config = valid(&least_and(&lines), &[]);
        assert_ne!(config.tables[0].events, config.events, "{} is read", key.path);
        assert_eq!(config.events, EncodeOptions::default(), "{} is for the one table", key.path);
    }
    let config =
        valid(&least_and("[[tables]]\nmatch = \"a.b\"\nevents = { envelope = \"upsert\", format = \"json\" }"), &[]);
    let expected = EncodeOptions { format: Format::Json, ..EncodeOptions::upsert() };
    assert_eq!(config.tables[0].events, expected, "the forms of values are those of the envelope");
    assert!(config.needs_registry(), "the other tables do");
    for (lines, expect) in [
        ("events.decimal = 1", "line 11: tables[0].events.decimal: unknown key; leave it out, or correct it"),
        (
            "events = { times = \"iso\" }",
            "line 11: tables[0].events.times: found \"iso\"; give \"adaptive\", \"adaptive_microseconds\", \"connect\", \"iso_string\", \"microseconds\", \"nanoseconds\" or \"native\"",
        ),
        (
            "key = [\"x\", \"x\"]",
            "line 11: tables[0].key: found column \"x\" twice; give the columns of the key, each once, as in [\"order_no\"]",
        ),
        ("partitions = -1", "line 11: tables[0].partitions: found -1; give a number from 1 to 100000"),
        (
            "topic = \"{x}\"",
            "line 11: tables[0].topic: found \"{x}\"; give letters, digits, `.`, `_`, `-`, and {name}, {database}, {schema} or {table}, as in \"{name}.{schema}.{table}\"",
        ),
    ] {
        check(&least_and(&format!("[[tables]]\nmatch = \"a.b\"\n{lines}")), expect);
    }
}

#[test]
fn what_is_wrong_with_a_topic_is_told() {
    for (lines, expect) in [
        (
            "template = \"{name}/{table}\"",
            "line 10: kafka.topics.template: found \"{name}/{table}\"; give letters, digits, `.`, `_`, `-`, and {name}, {database}, {schema} or {table}, as in \"{name}.{schema}.{table}\"",
        ),
        (
            "routes = [{ match = '(a', topic = \"b\" }]",
            "line 10: kafka.topics.routes[0].match: \"(a\" is no regular expression (unclosed group); correct it; a literal dot is \"\\\\.\" in a TOML string",
        ),
        (
            "routes = [{ match = '(a)', topic = \"$2\" }]",
            "line 10: kafka.topics.routes[0].topic: there is no group 2 in `match`; it has 1: put what to keep in parentheses",
        ),
        (
            "routes = [{ match = '(a)' }]",
            "line 10: kafka.topics.routes[0].topic: missing; set topic = \"shop.public.orders\"",
        ),
    ] {
        check(&least_and(&format!("[kafka.topics]\n{lines}")), expect);
    }
}

#[test]
fn what_is_wrong_with_a_mask_is_told_with_its_line() {
    for (lines, expect) in [
        (
            "exclude = [\"a.b\"]",
            "line 10: columns.exclude: found \"a.b\"; give a pattern schema.table.column, as in \"public.users.email\" or \"*.*.email\"; a part that holds a dot goes in double quotes",
        ),
        (
            "masks = [{ columns = [\"*.*.a\"], mask = \"hash\" }]",
            "line 10: columns.masks[0].mask: there is no salt for the hash; set columns.hash_salt or columns.hash_salt_file; without a salt, a value can be found by trying",
        ),
        (
            "masks = [{ columns = [\"*.*.a\"], mask = \"stars\" }]",
            "line 10: columns.masks[0].mask: found \"stars\"; give \"fixed\", \"asterisks\", \"hash\" or \"truncate\"",
        ),
        (
            "masks = [{ mask = \"asterisks\" }]",
            "line 10: columns.masks[0].columns: missing; set columns = [\"*.*.email\"]",
        ),
        (
            "masks = [{ columns = [], mask = \"asterisks\" }]",
            "line 10: columns.masks[0].columns: the list is empty; set columns = [\"*.*.email\"]",
        ),
        (
            "masks = [{ columns = \"*.*.a\", mask = \"fixed\" }]",
            "line 10: columns.masks[0].text: missing; set text = \"***\"",
        ),
        (
            "masks = [{ columns = \"*.*.a\", mask = \"truncate\", characters = 0 }]",
            "line 10: columns.masks[0].characters: out of range; give a number from 1 to 1000000000",
        ),
        (
            "masks = [{ columns = \"*.*.a\", mask = \"asterisks\", text = \"x\" }]",
            "line 10: columns.masks[0].text: it belongs to mask = \"fixed\"; leave it out",
        ),
        (
            "masks = [{ columns = \"*.*.a\", mask = \"asterisks\", colour = \"x\" }]",
            "line 10: columns.masks[0].colour: unknown key; leave it out, or correct it",
        ),
        (
            "masks = [\"*.*.a\"]",
            "line 10: columns.masks[0]: found a string; give a list of tables, as in [{ columns = [\"*.*.phone\"], mask = \"asterisks\" }]",
        ),
        (
            "masks = \"*.*.a\"",
            "line 10: columns.masks: found a string; give a list, as in [{ columns = [\"*.*.phone\"], mask = \"asterisks\" }]",
        ),
        (
            "hash_salt = \"x\"",
            "line 10: columns.hash_salt: there is no mask = \"hash\" in columns.masks; say which columns to hash, or leave the salt out",
        ),
    ] {
        check(&least_and(&format!("[columns]\n{lines}")), expect);
    }
    let lines = "[[columns.masks]]\ncolumns = \"*.*.a\"\nmask = \"asterisks\"\n[[columns.masks]]\ncolumns = \"a.b\"\nmask = \"fixed\"\n";
    let told = problems(&least_and(lines), &[]);
    assert!(told.contains("line 13: columns.masks[1].columns: ") && told.contains("columns.masks[1].text: "), "{told}");
}
