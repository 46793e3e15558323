//! Columns that are left out, and columns of which something else is written.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::table::{self, Column, column};
use encoder::{
    BoundPlan, Change, ColumnRule, EncodeErrorKind, EncodeOptions, EventOrder, Mask, PlanError, RecordBatch, Salt,
    TablePlan,
};
use pgoutput::{Lsn, OldTuple, ReplicaIdentity};
use proptest::prelude::*;
use serde_json::{Value, json};

const INT4: u32 = 23;
const TEXT: u32 = 25;
const JSONB: u32 = 3802;
const BYTEA: u32 = 17;
const UUID: u32 = 2950;

fn options(rules: &[(&str, ColumnRule)]) -> EncodeOptions {
    let columns: BTreeMap<_, _> = rules.iter().map(|(name, rule)| ((*name).to_owned(), rule.clone())).collect();
    EncodeOptions { columns, ..EncodeOptions::default() }
}

fn compile(columns: &[Column], rules: &[(&str, ColumnRule)]) -> Result<TablePlan, PlanError> {
    let identity = ReplicaIdentity::Default;
    TablePlan::compile(&table::relation(identity, columns), &table::facts(columns), &table::naming(), &options(rules))
}

fn plan(identity: ReplicaIdentity, columns: &[Column], rules: &[(&str, ColumnRule)]) -> BoundPlan {
    table::bind(table::compile_with(identity, columns, &options(rules)))
}

fn masked(mask: Mask) -> ColumnRule {
    ColumnRule::Mask(mask)
}

fn hash() -> ColumnRule {
    masked(Mask::Sha256(Salt::new(b"pepper")))
}

fn fixed() -> ColumnRule {
    masked(Mask::Fixed("***".to_owned()))
}

/// `before` and `after` of the events, each with its key.
fn rows(plan: &BoundPlan, batch: &RecordBatch) -> Vec<Value> {
    let json = |schema, bytes| common::to_json(schema, &common::decode(schema, bytes).1);
    let events = batch.iter().filter_map(|record| Some((record.key, record.value?)));
    events
        .map(|(key, value)| {
            let key = key.map(|key| json(plan.plan().key_schema().unwrap(), key));
            let value = json(plan.plan().value_schema().unwrap(), value);
            json!({ "key": key, "before": value["before"], "after": value["after"] })
        })
        .collect()
}

/// What one value of a masked column becomes.
fn written(type_oid: u32, rule: &ColumnRule, text: &str) -> Value {
    let columns = [column("id", INT4, -1).key(), column("v", type_oid, -1)];
    let plan = plan(ReplicaIdentity::Default, &columns, &[("v", rule.clone())]);
    let batch = table::encode(&plan, Change::Insert(&table::insert(&["1", text]))).unwrap();
    rows(&plan, &batch)[0]["after"]["v"].clone()
}

#[test]
fn a_column_that_is_left_out_is_nowhere() {
    let columns = [
        column("secret", TEXT, -1).not_null().default("'hidden'::text"),
        column("id", INT4, -1).key(),
        column("a b", TEXT, -1),
        column("a_b", TEXT, -1),
    ];
    // The name of one that is left out is nobody's trouble.
    let rules = [("secret", ColumnRule::Exclude), ("a b", ColumnRule::Exclude)];
    for identity in [ReplicaIdentity::Default, ReplicaIdentity::Full] {
        let plan = plan(identity, &columns, &rules);
        assert!(!plan.plan().value_schema().unwrap().json().contains("secret"));
        assert!(!plan.plan().value_schema().unwrap().json().contains("hidden"));
        let old = |row| match identity {
            ReplicaIdentity::Full => OldTuple::Full(row),
            _ => OldTuple::Key(row),
        };
        let before = |full: Value, key: Value| if identity == ReplicaIdentity::Full { full } else { key };
        for secret in ["hush", r"\N", r"\U"] {
            let insert = table::insert(&["hush", "1", "x", "y"]);
            let delete = table::delete(old(table::row(&["hush", "1", "x", "y"])));
            let delete_key = table::delete(old(table::row(&[r"\N", "1", r"\N", r"\N"])));
            let update = table::update(old(table::row(&["hush", "1", "x", "y"])), &[secret, "2", secret, "z"]);
            let mut all = RecordBatch::new();
            for change in [
                Change::Insert(&insert),
                Change::Update(&update),
                if identity == ReplicaIdentity::Full { Change::Delete(&delete) } else { Change::Delete(&delete_key) },
            ] {
                table::append(&plan, change, &mut EventOrder::default(), &mut all).unwrap();
            }
            let one = json!({ "id": 1, "a_b": "y" });
            let unknown = json!({ "id": 1, "a_b": null });
            assert_eq!(
                rows(&plan, &all),
                [
                    json!({ "key": { "id": 1 }, "before": null, "after": one }),
                    json!({ "key": { "id": 1 }, "before": before(one.clone(), one.clone()), "after": null }),
                    json!({ "key": { "id": 2 }, "before": null, "after": { "id": 2, "a_b": "z" } }),
                    json!({ "key": { "id": 1 }, "before": before(one, unknown), "after": null }),
                ]
            );
            assert!(!format!("{all:?}").contains("hush"));
        }
    }
}

#[test]
fn each_mask_writes_a_string_that_is_not_the_value() {
    let truncated = masked(Mask::Truncate { characters_max: 2 });
    for (type_oid, rule, text, expected) in [
        (TEXT, fixed(), "ann@example.org", "***"),
        (INT4, fixed(), "123456789", "***"),
        (TEXT, masked(Mask::Asterisks), "Zoë 漢🎉", "******"),
        (TEXT, masked(Mask::Asterisks), "", ""),
        (INT4, masked(Mask::Asterisks), "-12", "***"),
        // printf 'pepperann@example.org' | sha256sum
        (TEXT, hash(), "ann@example.org", "b18264b09ad9f8f63b8cf409616260694bb363cc52019dd27b0da6e84aa4c545"),
        (TEXT, truncated.clone(), "漢🎉x", "漢🎉"),
        (TEXT, truncated.clone(), "é", "é"),
        (TEXT, truncated.clone(), "", ""),
        (JSONB, truncated.clone(), r#"{"a": 1}"#, r#"{""#),
        (UUID, truncated, "123e4567-e89b-12d3-a456-426614174000", "12"),
    ] {
        assert_eq!(written(type_oid, &rule, text), expected, "{rule:?} of {text}");
    }
    // The schema does not promise what is not there, such as the text of a JSON document.
    let columns = [column("id", INT4, -1).key(), column("v", JSONB, -1).default("'{\"pin\": 1}'::jsonb")];
    let plan = plan(ReplicaIdentity::Default, &columns, &[("v", fixed())]);
    let schema = plan.plan().value_schema().unwrap().json();
    assert!(schema.contains(r#"{"name":"v","type":["null","string"],"default":null}"#), "{schema}");
    assert!(!schema.contains("pin"), "a default is a value too: {schema}");
}

#[test]
fn null_stays_null_and_what_was_not_sent_stays_that() {
    for rule in [fixed(), masked(Mask::Asterisks), hash(), masked(Mask::Truncate { characters_max: 3 })] {
        let columns = [column("id", INT4, -1).key(), column("v", TEXT, -1), column("w", TEXT, -1).not_null()];
        let plan = plan(ReplicaIdentity::Default, &columns, &[("v", rule.clone()), ("w", rule)]);
        let update = table::update(OldTuple::Absent, &["1", r"\N", r"\U"]);
        let after = &rows(&plan, &table::encode(&plan, Change::Update(&update)).unwrap())[0]["after"];
        assert_eq!(*after, json!({ "id": 1, "v": null, "w": "__debezium_unavailable_value" }));
        let null = table::insert(&["1", "x", r"\N"]);
        let error = table::encode(&plan, Change::Insert(&null)).unwrap_err();
        assert_eq!(error.kind(), EncodeErrorKind::NullInNotNull, "that the catalog is newer is still noticed");
    }
}

/// A value that was not sent with the new row is taken from the old one, and masked as well.
#[test]
fn a_value_of_the_old_row_is_masked() {
    let columns = [column("id", INT4, -1).key(), column("v", TEXT, -1)];
    let plan = plan(ReplicaIdentity::Full, &columns, &[("v", fixed())]);
    let update = table::update(OldTuple::Full(table::row(&["1", "hush"])), &["1", r"\U"]);
    let batch = table::encode(&plan, Change::Update(&update)).unwrap();
    assert_eq!(
        rows(&plan, &batch)[0],
        json!({ "key": { "id": 1 }, "before": { "id": 1, "v": "***" }, "after": { "id": 1, "v": "***" } })
    );
    assert!(!format!("{batch:?}").contains("hush"));
}

#[test]
fn a_hashed_key_is_hashed_wherever_it_is() {
    let plan = plan(ReplicaIdentity::Default, &[column("email", TEXT, -1).key()], &[("email", hash())]);
    let update = table::update(OldTuple::Key(table::row(&["ann@x"])), &["bob@x"]);
    let batch = table::encode(&plan, Change::Update(&update)).unwrap();
    assert_eq!(batch.len(), 3, "a change of the key is one");
    assert_eq!(plan.count_events(Change::Update(&update), Lsn::from(1)), Ok(2));
    let bob = written(TEXT, &hash(), "bob@x");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (mut bytes, mut headers) = (String::new(), String::new());
    for record in batch.iter() {
        bytes.extend([record.key, record.value].into_iter().flatten().map(text));
        headers.extend(record.headers().map(|(_, value)| text(value)));
    }
    for text in [&bytes, &headers] {
        assert!(!text.contains("ann") && !text.contains("bob"), "{text}");
    }
    assert!(headers.contains(bob.as_str().unwrap()));
    let key = batch.iter().last().unwrap().key.unwrap();
    assert_eq!(plan.plan().describe_key(key), Some(json!({ "email": bob }).to_string()));
}

#[test]
fn rules_that_would_break_a_key_are_refused() {
    let columns = [column("id", INT4, -1).key(), column("v", TEXT, -1), column("b", BYTEA, -1)];
    let error = |rules: &[(&str, ColumnRule)]| compile(&columns, rules).unwrap_err();
    let excluded = error(&[("id", ColumnRule::Exclude)]);
    assert!(matches!(&excluded, PlanError::KeyColumnExcluded { column, .. } if column == "id"));
    let truncated = masked(Mask::Truncate { characters_max: 10 });
    for rule in [fixed(), masked(Mask::Asterisks), truncated.clone()] {
        assert!(matches!(error(&[("id", rule)]), PlanError::KeyColumnMasked { .. }));
    }
    compile(&columns, &[("id", hash())]).unwrap();
    let unfit = error(&[("b", truncated)]);
    assert!(matches!(&unfit, PlanError::MaskUnfit { column, .. } if column == "b"));
    assert!(excluded.is_about_column_rules() && unfit.is_about_column_rules());
    let alone = [column("v", TEXT, -1)];
    assert!(matches!(compile(&alone, &[("v", ColumnRule::Exclude)]), Err(PlanError::NoColumn { .. })));
    compile(&columns, &[("nobody", ColumnRule::Exclude)]).unwrap();
}

#[test]
fn a_salt_is_not_printed() {
    let plan = plan(ReplicaIdentity::Default, &[column("v", TEXT, -1)], &[("v", hash())]);
    assert!(!format!("{plan:?} {:?}", hash()).contains("pepper"));
    assert!(!format!("{plan:?} {:?}", hash()).contains("112, 101"));
}

proptest! {
    #[test]
    fn truncated_text_is_a_start_of_it_on_a_boundary_of_characters(text in any::<String>(), characters_max in 1_usize..20) {
        prop_assume!(!text.contains('\0') && !text.starts_with('\\'));
        let written = written(TEXT, &masked(Mask::Truncate { characters_max }), &text);
        let expected: String = text.chars().take(characters_max).collect();
        prop_assert_eq!(written, expected);
    }

    #[test]
    fn asterisks_tell_the_length_alone(text in any::<String>()) {
        prop_assume!(!text.starts_with('\\'));
        let written = written(TEXT, &masked(Mask::Asterisks), &text);
        prop_assert_eq!(written.as_str().unwrap(), "*".repeat(text.chars().count()));
    }

    #[test]
    fn hashes_are_the_same_for_the_same_value_alone(one in "[a-z]{0,3}", other in "[a-z]{0,3}") {
        let hashed = |text: &str| written(TEXT, &hash(), text);
        prop_assert_eq!(hashed(&one) == hashed(&other), one == other);
    }
}
