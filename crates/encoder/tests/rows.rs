//! Which change becomes which records, and what is refused.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::table::{self, Column, column, extension};
use encoder::{
    BoundPlan, Change, Decimals, EncodeError, EncodeErrorKind, EncodeOptions, EventOrder, Hstore, NameAdjustment,
    PlanError, RecordBatch, TableFacts, TablePlan,
};
use pgoutput::{Lsn, OldTuple, ReplicaIdentity, Tuple, Value as WireValue};
use serde_json::{Value, json};

const BOOL: u32 = 16;
const BYTEA: u32 = 17;
const INT8: u32 = 20;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const FLOAT8: u32 = 701;
const DATE: u32 = 1082;
const TIMESTAMPTZ: u32 = 1184;
const NUMERIC: u32 = 1700;
const UUID: u32 = 2950;

fn two_columns() -> [Column; 2] {
    [column("id", INT4, -1).key(), column("v", TEXT, -1)]
}

fn plan(replica_identity: ReplicaIdentity, columns: &[Column]) -> BoundPlan {
    table::bind(table::compile(replica_identity, columns))
}

/// What a change became: for each record op, key, before, after and headers, as far as it has them.
fn records(plan: &BoundPlan, change: Change<'_>) -> Vec<Value> {
    summaries(plan, &table::encode(plan, change).unwrap())
}

fn summaries(plan: &BoundPlan, batch: &RecordBatch) -> Vec<Value> {
    let summary = |record: encoder::Record<'_>| {
        let json = |schema, bytes| common::to_json(schema, &common::decode(schema, bytes).1);
        let key = record.key.map(|key| json(plan.plan().key_schema().unwrap(), key));
        let value = record.value.map(|value| json(plan.plan().value_schema().unwrap(), value));
        let mut summary = match value {
            Some(value) => json!({ "op": value["op"], "key": key, "before": value["before"], "after": value["after"] }),
            None => json!({ "tombstone": key }),
        };
        for (name, value) in record.headers() {
            summary[name] = std::str::from_utf8(value).unwrap().into();
        }
        summary
    };
    batch.iter().map(summary).collect()
}

fn error(plan: &BoundPlan, change: Change<'_>) -> EncodeError {
    // Something is there already, so that what is taken back can be told from what was there.
    let mut batch = RecordBatch::new();
    let mut order = EventOrder { total: 5, collection: 3 };
    table::append(plan, Change::Truncate, &mut order, &mut batch).unwrap();
    let (before, before_order) = (format!("{batch:?}"), order);
    let error = table::append(plan, change, &mut order, &mut batch).unwrap_err();
    assert_eq!(format!("{batch:?}"), before);
    assert_eq!(order, before_order);
    error
}

#[test]
fn an_insert_has_no_before() {
    let plan = plan(ReplicaIdentity::Default, &two_columns());
    assert_eq!(
        records(&plan, Change::Insert(&table::insert(&["1", r"\N"]))),
        [json!({ "op": "c", "key": { "id": 1 }, "before": null, "after": { "id": 1, "v": null } })]
    );
}

#[test]
fn an_update_has_a_before_only_if_the_whole_old_row_was_sent() {
    let new = ["1", "new"];
    let expected =
        |before: Value| [json!({ "op": "u", "key": { "id": 1 }, "before": before, "after": { "id": 1, "v": "new" } })];
    let default = plan(ReplicaIdentity::Default, &two_columns());
    assert_eq!(records(&default, Change::Update(&table::update(OldTuple::Absent, &new))), expected(Value::Null));
    let unchanged_key = OldTuple::Key(table::row(&["1", r"\N"]));
    assert_eq!(records(&default, Change::Update(&table::update(unchanged_key, &new))), expected(Value::Null));
    let full = plan(ReplicaIdentity::Full, &two_columns());
    let old = OldTuple::Full(table::row(&["1", "old"]));
    assert_eq!(records(&full, Change::Update(&table::update(old, &new))), expected(json!({ "id": 1, "v": "old" })));
}

#[test]
fn a_changed_key_is_a_delete_a_tombstone_and_a_create() {
    for (replica_identity, old, before) in [
        (ReplicaIdentity::Default, OldTuple::Key(table::row(&["1", r"\N"])), json!({ "id": 1, "v": null })),
        (ReplicaIdentity::Full, OldTuple::Full(table::row(&["1", "old"])), json!({ "id": 1, "v": "old" })),
    ] {
        let plan = plan(replica_identity, &two_columns());
        let update = table::update(old, &["2", "new"]);
        let new_key = "__debezium.newkey";
        assert_eq!(
            records(&plan, Change::Update(&update)),
            [
                json!({ "op": "d", "key": { "id": 1 }, "before": before, "after": null, new_key: r#"{"id":2}"# }),
                json!({ "tombstone": { "id": 1 }, new_key: r#"{"id":2}"# }),
                json!({ "op": "c", "key": { "id": 2 }, "before": null, "after": { "id": 2, "v": "new" }, "__debezium.oldkey": r#"{"id":1}"# }),
            ]
        );
        let mut order = EventOrder { total: 5, collection: 3 };
        table::append(&plan, Change::Update(&update), &mut order, &mut RecordBatch::new()).unwrap();
        assert_eq!(order, EventOrder { total: 7, collection: 5 }, "a tombstone does not count");
        assert_eq!(plan.count_events(Change::Update(&update), Lsn::from(1)), Ok(2));
    }
}

#[test]
fn different_text_of_one_key_is_no_change_of_the_key() {
    let plan = plan(ReplicaIdentity::Default, &[column("n", NUMERIC, -1).key()]);
    let update = table::update(OldTuple::Key(table::row(&["1.0"])), &["1.00"]);
    assert_eq!(records(&plan, Change::Update(&update))[0]["op"], "u");
    assert_eq!(plan.count_events(Change::Update(&update), Lsn::from(1)), Ok(1));
}

#[test]
fn a_header_has_the_key_as_json() {
    let columns = [
        column("a \"b\"", TEXT, -1).key(),
        column("bytes", BYTEA, -1).key(),
        column("decimal", NUMERIC, (6 << 16 | 2) + 4).key(),
        column("numeric", NUMERIC, -1).key(),
        column("flag", BOOL, -1).key(),
        column("double", FLOAT8, -1).key(),
        column("date", DATE, -1).key(),
        column("numbers", 1007, -1).key(),
        column("money", 790, -1).key(),
    ];
    let plan = plan(ReplicaIdentity::Default, &columns);
    let old =
        table::row(&["x\"y\\é\n", r"\x666f6f", "-1.50", "42.5", "t", "-Infinity", "1970-01-02", "{1,NULL}", "$1.50"]);
    let update = table::update(OldTuple::Key(old), &["", r"\x", "0.00", "0", "f", "1.5", "1970-01-01", "{}", "$0.00"]);
    let create = &records(&plan, Change::Update(&update))[2];
    assert_eq!(
        create["__debezium.oldkey"],
        r#"{"a__b_":"x\"y\\é\n","bytes":"Zm9v","decimal":-1.50,"numeric":{"scale":1,"value":"Aak="},"flag":true,"double":"-Infinity","date":1,"numbers":[1,null],"money":1.50}"#
    );
}

#[test]
fn a_delete_of_which_only_the_key_is_known_has_defaults_where_null_cannot_be() {
    let columns = [
        column("id", INT4, -1).key(),
        column("optional", INT4, -1).default("5"),
        column("with_default", INT4, -1).not_null().default("7"),
        column("text", TEXT, -1).not_null(),
        column("flag", BOOL, -1).not_null(),
        column("number", NUMERIC, (6 << 16 | 2) + 4).not_null(),
        column("any_number", NUMERIC, -1).not_null(),
        column("day", DATE, -1).not_null(),
        column("moment", TIMESTAMPTZ, -1).not_null(),
        column("created", TIMESTAMPTZ, -1).not_null().default("now()"),
        column("bytes", BYTEA, -1).not_null(),
        column("uuid", UUID, -1).not_null(),
        column("other", 601, -1).not_null(),
        column("point", 600, -1).not_null(),
        column("span", 1186, -1).not_null(),
        column("bits", 1560, 9).not_null(),
        column("price", 790, -1).not_null(),
        column("zoned", 1266, -1).not_null(),
        column("numbers", 1007, -1).not_null(),
        extension("pairs", "hstore").not_null(),
        column("mood", table::OTHER_OID, -1).of(table::enumeration(&["sad"])).not_null(),
    ];
    let mut key_only = vec!["9"];
    key_only.resize(columns.len(), r"\N");
    let plan = plan(ReplicaIdentity::Default, &columns);
    let found = records(&plan, Change::Delete(&table::delete(OldTuple::Key(table::row(&key_only)))));
    assert_eq!(found.len(), 2);
    assert_eq!(
        found[0],
        json!({
            "op": "d", "key": { "id": 9 }, "after": null,
            "before": {
                "id": 9, "optional": null, "with_default": 7, "text": "", "flag": false, "number": { "decimal": "0.00" },
                "any_number": { "scale": 0, "value": { "bytes": "00" } }, "day": 0, "moment": "1970-01-01T00:00:00Z",
                "created": "1970-01-01T00:00:00.000000Z", "bytes": { "bytes": "" }, "uuid": "", "other": "",
                "point": { "x": 0.0, "y": 0.0, "wkb": { "bytes": "010100000000000000000000000000000000000000" }, "srid": null },
                "span": 0, "bits": { "bytes": "" }, "price": { "decimal": "0.00" }, "zoned": "00:00:00Z", "numbers": [], "pairs": "{}",
                "mood": "",
            },
        })
    );
    assert_eq!(found[1], json!({ "tombstone": { "id": 9 } }));
}

#[test]
fn a_delete_under_replica_identity_full_has_the_whole_row() {
    let old = || table::delete(OldTuple::Full(table::row(&["1", "v"])));
    let keyed = plan(ReplicaIdentity::Full, &two_columns());
    let before = json!({ "id": 1, "v": "v" });
    assert_eq!(
        records(&keyed, Change::Delete(&old())),
        [
            json!({ "op": "d", "key": { "id": 1 }, "before": before, "after": null }),
            json!({ "tombstone": { "id": 1 } })
        ]
    );
    let keyless = plan(ReplicaIdentity::Full, &[column("id", INT4, -1), column("v", TEXT, -1)]);
    assert!(keyless.plan().key_schema().is_none());
    assert_eq!(
        records(&keyless, Change::Delete(&old())),
        [json!({ "op": "d", "key": null, "before": before, "after": null }), json!({ "tombstone": null })]
    );
}

#[test]
fn a_truncation_has_neither_key_nor_rows() {
    let plan = plan(ReplicaIdentity::Default, &two_columns());
    assert_eq!(records(&plan, Change::Truncate), [json!({ "op": "t", "key": null, "before": null, "after": null })]);
    assert_eq!(plan.count_events(Change::Truncate, Lsn::from(1)), Ok(1));
}

#[test]
fn the_key_is_the_replica_identitys_and_else_the_primary_key() {
    let columns = [column("a", INT4, -1), column("b", INT4, -1).key(), column("c", INT4, -1).key()];
    let key = |replica_identity, primary_key: Option<&[&str]>| {
        let mut facts = table::facts(&columns);
        facts.primary_key = primary_key.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let plan = TablePlan::compile(
            &table::relation(replica_identity, &columns),
            &facts,
            &table::naming(),
            &EncodeOptions::default(),
        )
        .unwrap();
        let schema: Value = serde_json::from_str(plan.key_schema()?.json()).unwrap();
        Some(
            schema["fields"]
                .as_array()
                .unwrap()
                .iter()
                .map(|field| field["name"].as_str().unwrap())
                .collect::<String>(),
        )
    };
    assert_eq!(key(ReplicaIdentity::Default, None).as_deref(), Some("bc"));
    assert_eq!(key(ReplicaIdentity::Default, Some(&["c", "b"])).as_deref(), Some("cb"), "in the order of the key");
    assert_eq!(key(ReplicaIdentity::Index, Some(&["a"])).as_deref(), Some("bc"), "what an Update brings");
    assert_eq!(key(ReplicaIdentity::Full, Some(&["c", "a"])).as_deref(), Some("ca"));
    assert_eq!(key(ReplicaIdentity::Full, None), None);
    assert_eq!(key(ReplicaIdentity::Full, Some(&["c", "dropped"])), None, "half of a key is none");
    assert_eq!(key(ReplicaIdentity::Nothing, Some(&["a"])).as_deref(), Some("a"));
    assert_eq!(key(ReplicaIdentity::Nothing, None), None);
}

#[test]
fn a_value_that_was_not_sent_comes_from_the_old_row_or_is_a_placeholder() {
    let columns = [
        column("id", INT4, -1).key(),
        column("t", TEXT, -1),
        column("b", BYTEA, -1),
        column("j", 3802, -1),
        column("x", 142, -1),
    ];
    let new = ["1", r"\U", r"\U", r"\U", r"\U"];
    let default = plan(ReplicaIdentity::Default, &columns);
    let placeholder = "__debezium_unavailable_value";
    assert_eq!(
        records(&default, Change::Update(&table::update(OldTuple::Absent, &new)))[0]["after"],
        json!({ "id": 1, "t": placeholder, "b": { "bytes": common::hex(placeholder.as_bytes()) }, "j": placeholder, "x": placeholder })
    );
    let full = plan(ReplicaIdentity::Full, &columns);
    let row = json!({ "id": 1, "t": "old", "b": { "bytes": "00ff" }, "j": "{}", "x": "<a/>" });
    let old = OldTuple::Full(table::row(&["1", "old", r"\x00ff", "{}", "<a/>"]));
    let found = &records(&full, Change::Update(&table::update(old, &new)))[0];
    assert_eq!((&found["before"], &found["after"]), (&row, &row));
}

#[test]
fn the_placeholder_is_the_users_and_arrays_and_hstore_have_room_for_it() {
    let mood = table::enumeration(&["sad"]);
    let columns = [
        column("id", INT4, -1).key(),
        column("t", TEXT, -1),
        column("texts", 1009, -1),
        column("bytes", 1001, -1),
        column("integers", 1007, -1),
        column("longs", 1016, -1),
        column("moods", table::OTHER_OID, -1).of(table::array_of(&mood)),
        extension("h", "hstore"),
        column("n", NUMERIC, -1),
    ];
    let row = ["1", r"\U", r"\U", r"\U", r"\U", r"\U", r"\U", r"\U", r"\U"];
    let after = |options: EncodeOptions| {
        let plan = table::bind(table::compile_with(ReplicaIdentity::Default, &columns, &options));
        records(&plan, Change::Update(&table::update(OldTuple::Absent, &row)))[0]["after"].clone()
    };
    let options =
        EncodeOptions { unavailable_value: "??".to_owned(), decimals: Decimals::String, ..EncodeOptions::default() };
    assert_eq!(
        after(options.clone()),
        json!({
            "id": 1, "t": "??", "texts": ["??"], "bytes": [{ "bytes": "3f3f" }], "integers": [63, 63], "longs": [63, 63],
            "moods": ["??"], "h": r#"{"??":"??"}"#, "n": "??",
        })
    );
    assert_eq!(after(EncodeOptions { hstore: Hstore::Map, ..options })["h"], json!({ "??": "??" }));
}

#[test]
fn without_tombstones_a_deletion_is_one_record() {
    let options = EncodeOptions { tombstones: false, ..EncodeOptions::default() };
    let plan = table::bind(table::compile_with(ReplicaIdentity::Default, &two_columns(), &options));
    let ops = |change: Change<'_>| records(&plan, change).iter().map(|record| record["op"].clone()).collect::<Vec<_>>();
    let delete = table::delete(OldTuple::Key(table::row(&["1", r"\N"])));
    assert_eq!(ops(Change::Delete(&delete)), ["d"]);
    let key_change = table::update(OldTuple::Key(table::row(&["1", r"\N"])), &["2", "v"]);
    assert_eq!(ops(Change::Update(&key_change)), ["d", "c"]);
}

#[test]
fn an_array_of_another_shape_is_an_error_that_says_which_column() {
    let columns = [column("id", INT4, -1).key(), column("numbers", 1007, -1)];
    let items = plan(ReplicaIdentity::Default, &columns);
    for value in ["{{1,2},{3,4}}", "[0:0]={1}"] {
        let error = error(&items, Change::Insert(&table::insert(&["1", value])));
        assert_eq!((error.kind(), error.column()), (EncodeErrorKind::ArrayShape, Some("numbers")));
    }
    let text = table::bind(table::compile_with(ReplicaIdentity::Default, &columns, &EncodeOptions::lossless()));
    for value in ["{{1,2},{3,4}}", "[0:0]={1}", "{1,NULL}"] {
        assert_eq!(records(&text, Change::Insert(&table::insert(&["1", value])))[0]["after"]["numbers"], value);
    }
}

#[test]
fn names_that_avro_does_not_have_are_refused_if_they_are_to_stay() {
    let options = EncodeOptions { names: NameAdjustment::None, ..EncodeOptions::default() };
    let columns = [column("id", INT4, -1).key(), column("two words", TEXT, -1)];
    let compile = |relation| TablePlan::compile(&relation, &TableFacts::default(), &table::naming(), &options);
    let error = compile(table::relation(ReplicaIdentity::Default, &columns)).unwrap_err();
    assert_eq!(error, PlanError::IllegalName { table: "public.t".to_owned(), name: "two words".to_owned() });
    let relation = table::relation(ReplicaIdentity::Default, &columns[..1]);
    assert!(compile(relation.clone()).is_ok());
    let error = compile(pgoutput::Relation { name: "a-b".to_owned(), ..relation }).unwrap_err();
    assert_eq!(error, PlanError::IllegalName { table: "public.a-b".to_owned(), name: "shop.public.a-b".to_owned() });
}

#[test]
fn a_value_that_was_not_sent_and_has_no_placeholder_is_an_error() {
    let plan = plan(ReplicaIdentity::Default, &[column("id", INT4, -1).key(), column("n", NUMERIC, -1)]);
    let error = error(&plan, Change::Update(&table::update(OldTuple::Absent, &["1", r"\U"])));
    assert_eq!(error.kind(), EncodeErrorKind::UnavailableValue);
    assert_eq!(
        error.to_string(),
        "cannot encode a change of public.t, column \"n\", at 16/B374D848: the value is stored out of line, was not changed and so was \
         not sent, and its Avro type has no room for a placeholder; ALTER TABLE .. REPLICA IDENTITY FULL makes PostgreSQL send it \
         [unavailable_value]"
    );
}

#[test]
fn a_key_that_was_not_sent_with_the_new_row_is_the_old_rows() {
    // PostgreSQL sends the old key, even if it did not change, where a part of it is stored out of line.
    let plan = plan(ReplicaIdentity::Default, &[column("k", TEXT, -1).key(), column("v", INT4, -1)]);
    let old = || OldTuple::Key(table::row(&["long", r"\N"]));
    let update = table::update(old(), &[r"\U", "1"]);
    assert_eq!(
        records(&plan, Change::Update(&update)),
        [json!({ "op": "u", "key": { "k": "long" }, "before": null, "after": { "k": "long", "v": 1 } })]
    );
    let update = table::update(OldTuple::Absent, &[r"\U", "1"]);
    assert_eq!(
        error(&plan, Change::Update(&update)).kind(),
        EncodeErrorKind::UnavailableKey,
        "a placeholder would be many rows' key"
    );
}

#[test]
fn a_null_that_cannot_be_asks_for_another_plan() {
    let columns = [column("id", INT4, -1).key(), column("v", TEXT, -1).not_null()];
    let insert = table::insert(&["1", r"\N"]);
    let error = error(&plan(ReplicaIdentity::Default, &columns), Change::Insert(&insert));
    assert_eq!(error.null_in_not_null(), Some("v"));

    let mut facts = table::facts(&columns);
    assert!(facts.make_optional("v"));
    let relation = table::relation(ReplicaIdentity::Default, &columns);
    let plan = table::bind(TablePlan::compile(&relation, &facts, &table::naming(), &EncodeOptions::default()).unwrap());
    assert_eq!(records(&plan, Change::Insert(&insert))[0]["after"], json!({ "id": 1, "v": null }));
}

#[test]
fn without_facts_all_but_the_key_is_optional() {
    let relation =
        table::relation(ReplicaIdentity::Default, &[column("id", INT8, -1).key(), column("v", INT4, -1).not_null()]);
    let plan = table::bind(
        TablePlan::compile(&relation, &TableFacts::default(), &table::naming(), &EncodeOptions::default()).unwrap(),
    );
    assert_eq!(
        records(&plan, Change::Insert(&table::insert(&["1", r"\N"])))[0]["after"],
        json!({ "id": 1, "v": null })
    );
    let error = error(&plan, Change::Insert(&table::insert(&[r"\N", "1"])));
    assert_eq!(error.null_in_not_null(), Some("id"));
}

#[test]
fn facts_about_another_type_do_not_speak_of_the_streams() {
    // The rows are integers still; the catalog has a timestamp with a default already.
    let mut facts = table::facts(&[column("id", INT4, -1).key(), column("v", 1114, 3).not_null().default("now()")]);
    facts.columns[1].type_kind = encoder::TypeKind::Domain;
    let relation = table::relation(ReplicaIdentity::Default, &[column("id", INT4, -1).key(), column("v", INT4, -1)]);
    let plan = TablePlan::compile(&relation, &facts, &table::naming(), &EncodeOptions::default()).unwrap();
    assert!(plan.value_schema().unwrap().json().contains(r#"{"name":"v","type":"int"}"#));
}

#[test]
fn what_cannot_be_encoded_is_refused_and_says_where() {
    let plan = plan(ReplicaIdentity::Default, &two_columns());
    let kind = |change: Change<'_>| {
        let error = error(&plan, change);
        assert_eq!((error.table(), error.lsn()), ("public.t", Lsn::from(table::LSN)));
        (error.kind(), error.column().map(ToOwned::to_owned))
    };
    let id = || Some("id".to_owned());
    assert_eq!(kind(Change::Insert(&table::insert(&["1"]))), (EncodeErrorKind::ColumnCount, None));
    assert_eq!(kind(Change::Insert(&table::insert(&["1", "2", "3"]))), (EncodeErrorKind::ColumnCount, None));
    assert_eq!(kind(Change::Insert(&table::insert(&["secret", "2"]))), (EncodeErrorKind::MalformedText, id()));
    assert_eq!(kind(Change::Delete(&table::delete(OldTuple::Absent))), (EncodeErrorKind::MissingOldRow, None));
    let raw = |values: [WireValue<'_>; 2]| pgoutput::Insert {
        new: Tuple::from_values(values).unwrap(),
        ..table::insert(&[])
    };
    let binary = raw([WireValue::Binary(&[0, 0, 0, 1]), WireValue::Null]);
    assert_eq!(kind(Change::Insert(&binary)), (EncodeErrorKind::BinaryValue, id()));
    let not_utf8 = raw([WireValue::Text(b"1"), WireValue::Text(&[0xff])]);
    assert_eq!(kind(Change::Insert(&not_utf8)), (EncodeErrorKind::InvalidUtf8, Some("v".to_owned())));
    // The second row of a pair fails after the first is written.
    let key_change = table::update(OldTuple::Key(table::row(&["1", r"\N"])), &["2", r"\N"]);
    let key_change =
        pgoutput::Update { new: not_utf8.new, old: OldTuple::Key(table::row(&["2", r"\N"])), ..key_change };
    assert_eq!(kind(Change::Update(&key_change)).0, EncodeErrorKind::InvalidUtf8);
}

#[test]
fn no_error_shows_a_value() {
    let plan = plan(ReplicaIdentity::Default, &two_columns());
    let error = error(&plan, Change::Insert(&table::insert(&["hunter2", "2"])));
    assert!(!format!("{error} {error:?} {:?}", std::error::Error::source(&error)).contains("hunter2"));
}

#[test]
fn columns_that_become_one_field_are_refused() {
    let columns = [column("a b", INT4, -1), column("c", INT4, -1), column("a_b", INT4, -1)];
    let relation = table::relation(ReplicaIdentity::Default, &columns);
    let error =
        TablePlan::compile(&relation, &TableFacts::default(), &table::naming(), &EncodeOptions::default()).unwrap_err();
    let PlanError::CollidingColumns { first, second, field, .. } = &error else { panic!("{error}") };
    assert_eq!((first.as_str(), second.as_str(), field.as_str()), ("a b", "a_b", "a_b"));
}

#[test]
fn ids_belong_to_schemas() {
    let keyed = || table::compile(ReplicaIdentity::Default, &two_columns());
    let keyless = || table::compile(ReplicaIdentity::Nothing, &[column("v", TEXT, -1)]);
    assert!(matches!(keyed().bind(None, Some(1)), Err(PlanError::SchemaIds { has_key: true, .. })));
    assert!(matches!(keyless().bind(Some(1), Some(1)), Err(PlanError::SchemaIds { has_key: false, .. })));
    assert!(keyless().bind(None, Some(1)).is_ok());
}

#[test]
fn the_envelope_says_where_an_event_comes_from() {
    let plan = plan(ReplicaIdentity::Default, &two_columns());
    let batch = table::encode(&plan, Change::Insert(&table::insert(&["1", "v"]))).unwrap();
    let value = batch.iter().next().unwrap().value.unwrap();
    let (id, value) = common::decode(plan.plan().value_schema().unwrap(), value);
    assert_eq!(id, 2);
    let (lsn, commit_lsn) = (table::LSN, table::LSN + 8);
    assert_eq!(
        common::to_json(plan.plan().value_schema().unwrap(), &value),
        json!({
            "before": null,
            "after": { "id": 1, "v": "v" },
            "source": {
                "version": "1.2.3", "connector": "postgresql", "name": "shop", "ts_ms": 1_700_000_000_123_i64, "snapshot": "false",
                "db": "shopdb", "sequence": format!("[\"{commit_lsn}\",\"{lsn}\"]"), "ts_us": 1_700_000_000_123_456_i64,
                "ts_ns": 1_700_000_000_123_456_000_i64, "schema": "public", "table": "t", "txId": 750, "lsn": lsn, "xmin": null,
                "origin": null, "origin_lsn": null,
            },
            "transaction": { "id": format!("750:{commit_lsn}"), "total_order": 1, "data_collection_order": 1 },
            "op": "c",
            "ts_ms": 1_700_000_001_987_i64, "ts_us": 1_700_000_001_987_654_i64, "ts_ns": 1_700_000_001_987_654_321_i64,
        })
    );
}

#[test]
fn an_origin_is_told() {
    let plan = plan(ReplicaIdentity::Default, &two_columns());
    let mut transaction = encoder::TransactionContext::from_parts(
        pgoutput::Xid::from(1),
        Lsn::from(2),
        pgoutput::Timestamp::from_unix_micros(i64::MAX),
    );
    transaction.set_origin("elsewhere", Lsn::from(3));
    let context = encoder::EventContext { transaction: &transaction, lsn: Lsn::from(1), processed_unix_ns: -1 };
    let mut batch = RecordBatch::new();
    plan.encode(Change::Truncate, &context, &mut EventOrder::default(), &mut batch).unwrap();
    let schema = plan.plan().value_schema().unwrap();
    let value = common::to_json(schema, &common::decode(schema, batch.iter().next().unwrap().value.unwrap()).1);
    assert_eq!((&value["source"]["origin"], &value["source"]["origin_lsn"]), (&json!("elsewhere"), &json!(3)));
    assert_eq!(value["source"]["ts_ns"], Value::Null, "nanoseconds end in 2262");
    assert_eq!((&value["ts_ms"], &value["ts_ns"]), (&json!(-1), &json!(-1)));
}
