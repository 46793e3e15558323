//! The envelopes and formats beside Debezium's Avro: which records a change becomes, and that nothing of it is lost.
//!
//! What Avro holds is read by `apache-avro`, and what JSON holds by `serde_json`; both have to say the same.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use apache_avro::Schema as AvroSchema;
use encoder::{
    BoundPlan, Change, ColumnRule, EncodeOptions, Encoded, Envelope, EventOrder, Format, Operation, Operations,
    PlanError, RecordBatch, TablePlan, Unrepresentable,
};
use pgoutput::{OldTuple, ReplicaIdentity};
use serde_json::{Value, json};

use common::table::{self, Column, column};

fn upsert() -> EncodeOptions {
    EncodeOptions::upsert()
}

fn json_of(options: EncodeOptions) -> EncodeOptions {
    EncodeOptions { format: Format::Json, ..options }
}

fn plan(replica_identity: ReplicaIdentity, columns: &[Column], options: &EncodeOptions) -> BoundPlan {
    table::bind(table::compile_with(replica_identity, columns, options))
}

/// Key, value and headers of each record, as JSON.
fn records(plan: &BoundPlan, batch: &RecordBatch) -> Vec<Value> {
    let read = |schema: Option<&encoder::Schema>, bytes: Option<&[u8]>| match (schema, bytes) {
        (_, None) => Value::Null,
        (Some(schema), Some(bytes)) => common::to_json(schema, &common::decode(schema, bytes).1),
        (None, Some(bytes)) => serde_json::from_slice(bytes).expect("JSON"),
    };
    batch
        .iter()
        .map(|record| {
            let mut summary = json!({
                "key": read(plan.plan().key_schema(), record.key),
                "value": read(plan.plan().value_schema(), record.value),
            });
            for (name, value) in record.headers() {
                summary[name] = std::str::from_utf8(value).unwrap().into();
            }
            summary
        })
        .collect()
}

fn encode(plan: &BoundPlan, change: Change<'_>) -> Vec<Value> {
    records(plan, &table::encode(plan, change).unwrap())
}

fn columns() -> Vec<Column> {
    vec![column("id", 20, -1).key().not_null(), column("größe", 25, -1), column("n", 701, -1), column("b", 16, -1)]
}

/// A record without the headers that every event has.
fn bare(mut record: Value) -> Value {
    for header in ["__lsn", "__source_ts_us", "__transaction_id", "__transaction_total_order"] {
        let value = record.as_object_mut().unwrap().remove(header);
        assert!(value.is_some_and(|value| value.is_string()), "{header}");
    }
    record
}

#[test]
fn the_rows_of_an_upsert_are_the_table() {
    for options in [upsert(), json_of(upsert())] {
        let field = if options.format == Format::Json { "größe" } else { "gr__e" };
        let plan = plan(ReplicaIdentity::Default, &columns(), &options);
        let all = |change: Change<'_>| encode(&plan, change).into_iter().map(bare).collect::<Vec<_>>();
        let row = |id: i64, text: &str| json!({ "id": id, field: text, "n": 0.5, "b": true });

        let insert = table::insert(&["1", "a\"b", "0.5", "t"]);
        let expected = json!({ "key": { "id": 1 }, "value": row(1, "a\"b"), "__op": "c" });
        assert_eq!(all(Change::Insert(&insert)), [expected]);

        let update = table::update(OldTuple::Absent, &["1", "c", "0.5", "t"]);
        let expected = json!({ "key": { "id": 1 }, "value": row(1, "c"), "__op": "u" });
        assert_eq!(all(Change::Update(&update)), [expected]);

        let old = || table::row(&["1", r"\N", r"\N", r"\N"]);
        let delete = table::delete(OldTuple::Key(old()));
        let gone = json!({ "key": { "id": 1 }, "value": null, "__op": "d" });
        assert_eq!(all(Change::Delete(&delete)), std::slice::from_ref(&gone));

        let moved = table::update(OldTuple::Key(old()), &["2", "c", "0.5", "t"]);
        let there = json!({ "key": { "id": 2 }, "value": row(2, "c"), "__op": "c" });
        let (mut gone, mut there) = (gone, there);
        gone["__debezium.newkey"] = r#"{"id":2}"#.into();
        there["__debezium.oldkey"] = r#"{"id":1}"#.into();
        assert_eq!(all(Change::Update(&moved)), [gone, there]);
        assert_eq!(plan.count_events(Change::Update(&moved), 1.into()).unwrap(), 2);

        let error = table::encode(&plan, Change::Truncate).unwrap_err();
        assert_eq!(error.kind(), encoder::EncodeErrorKind::Truncated);
        let skipped = EncodeOptions { skipped: [Operation::Truncate].into_iter().collect(), ..options.clone() };
        let plan = table::bind(table::compile_with(ReplicaIdentity::Default, &columns(), &skipped));
        assert!(encode(&plan, Change::Truncate).is_empty());
    }
}

#[test]
fn headers_say_where_an_upsert_comes_from() {
    let plan = plan(ReplicaIdentity::Default, &columns(), &upsert());
    let transaction = encoder::TransactionContext::from_parts(
        pgoutput::Xid::from(7),
        1000.into(),
        pgoutput::Timestamp::from_unix_micros(1_700_000_000_000_001),
    );
    let context = encoder::EventContext { transaction: &transaction, lsn: 900.into(), processed_unix_ns: 0 };
    let mut order = EventOrder { total: 41, collection: 3 };
    let mut batch = RecordBatch::new();
    let insert = table::insert(&["1", "a", "1", "t"]);
    plan.encode(Change::Insert(&insert), &context, &mut order, &mut batch).unwrap();
    let headers: Vec<_> = batch.iter().next().unwrap().headers().map(|(name, value)| (name, value.to_vec())).collect();
    let expected = [
        ("__op", "c"),
        ("__lsn", "900"),
        ("__source_ts_us", "1700000000000001"),
        ("__transaction_id", "7:1000"),
        ("__transaction_total_order", "42"),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name, value.as_bytes().to_vec())));
}

#[test]
fn an_unchanged_toast_value_is_listed_and_never_null() {
    let columns = [column("id", 20, -1).key().not_null(), column("a \"doc\"", 25, -1), column("b", 17, -1)];
    for (options, name) in [(upsert(), "a__doc_"), (json_of(upsert()), "a \"doc\"")] {
        let plan = plan(ReplicaIdentity::Default, &columns, &options);
        let update = table::update(OldTuple::Absent, &["1", r"\U", r"\N"]);
        let found = encode(&plan, Change::Update(&update)).remove(0);
        assert_eq!(found["__unavailable"], serde_json::to_string(&[name]).unwrap());
        assert_eq!(found["value"][name], "__debezium_unavailable_value");
        assert_eq!(found["value"]["b"], Value::Null, "a null is a null");

        let full = table::bind(table::compile_with(ReplicaIdentity::Full, &columns, &options));
        let old = OldTuple::Full(table::row(&["1", "known", r"\N"]));
        let found = encode(&full, Change::Update(&table::update(old, &["1", r"\U", r"\N"]))).remove(0);
        assert_eq!((&found["value"][name], found.get("__unavailable")), (&json!("known"), None));
    }
    // A number has no room for a placeholder.
    let columns = [column("id", 20, -1).key().not_null(), column("n", 1700, (1000 << 16 | 2) + 4)];
    let plan = plan(ReplicaIdentity::Default, &columns, &upsert());
    let error = table::encode(&plan, Change::Update(&table::update(OldTuple::Absent, &["1", r"\U"]))).unwrap_err();
    assert_eq!(error.kind(), encoder::EncodeErrorKind::UnavailableValue);
}

#[test]
fn a_table_without_a_key_cannot_be_upserted() {
    let columns = [column("v", 25, -1)];
    let (relation, facts) = (table::relation(ReplicaIdentity::Nothing, &columns), table::facts(&columns));
    let error = TablePlan::compile(&relation, &facts, &table::naming(), &upsert()).unwrap_err();
    assert!(matches!(error, PlanError::NoKey { .. }), "{error}");
}

/// The policy is about what is in the database, and not about what was asked for.
#[test]
fn a_table_that_cannot_be_written_is_dead_letters_where_that_is_asked_for() {
    let columns = [column("v", 25, -1), column("secret", 25, -1)];
    let (relation, facts) = (table::relation(ReplicaIdentity::Full, &columns), table::facts(&columns));
    let rules = [("secret".to_owned(), ColumnRule::Exclude)].into();
    let options = EncodeOptions { unrepresentable: Unrepresentable::DeadLetter, columns: rules, ..upsert() };
    let plan = TablePlan::compile(&relation, &facts, &table::naming(), &options).expect("a plan");
    assert!(matches!(plan.unfit(), Some(PlanError::NoKey { .. })) && !plan.can_empty(), "{plan:?}");
    let plan = plan.bind(None, None).expect("it has no schemas");
    let (mut batch, mut order) = (RecordBatch::new(), EventOrder::default());
    let insert = table::insert(&["seen", "HUSH"]);
    let encoded = table::append(&plan, Change::Insert(&insert), &mut order, &mut batch);
    assert!(matches!(encoded, Ok(Encoded::DeadLetter(_))), "{encoded:?}");
    assert_eq!((order.total, order.collection, batch.len()), (1, 1, 1));
    let letter: Value = serde_json::from_slice(batch.iter().next().and_then(|it| it.value).expect("one")).unwrap();
    assert_eq!(letter["new"], json!(["seen", { "hidden": true }]));
    // What is left out of the records is left out of the letters.
    let skipped = EncodeOptions { skipped: Operations::from_iter([Operation::Create]), ..options.clone() };
    let plan = TablePlan::compile(&relation, &facts, &table::naming(), &skipped).expect("a plan");
    let encoded = table::append(&plan.bind(None, None).unwrap(), Change::Insert(&insert), &mut order, &mut batch);
    assert!(matches!(encoded, Ok(Encoded::Skipped)), "{encoded:?}");
    assert_eq!((order.total, batch.len()), (2, 1));
    let asked = EncodeOptions { key: Some(vec!["gone".to_owned()]), ..options };
    assert!(TablePlan::compile(&relation, &facts, &table::naming(), &asked).is_err(), "the operator has named it");
}

/// The fields of a schema by name, each with its type that is not null.
fn field_types(plan: &BoundPlan) -> serde_json::Map<String, Value> {
    let text = plan.plan().value_schema().unwrap().json();
    AvroSchema::parse_str(text).expect("a schema");
    let schema: Value = serde_json::from_str(text).unwrap();
    let not_null = |avro_type: &Value| match avro_type.as_array() {
        Some(branches) => branches.iter().find(|branch| *branch != "null").unwrap().clone(),
        None => avro_type.clone(),
    };
    let fields = schema["fields"].as_array().unwrap();
    fields.iter().map(|field| (field["name"].as_str().unwrap().to_owned(), not_null(&field["type"]))).collect()
}

#[test]
fn an_upsert_has_avros_own_logical_types() {
    let columns = [
        column("id", 2950, -1).key().not_null(),
        column("day", 1082, -1),
        column("clock", 1083, 0),
        column("local", 1114, 3),
        column("moment", 1184, -1),
        column("price", 1700, (12 << 16 | 4) + 4),
        column("ratio", 1700, -1),
        column("span", 1186, -1),
        column("bits", 1560, 9),
        column("doc", 3802, -1),
        column("days", 1182, -1),
    ];
    let plan = plan(ReplicaIdentity::Default, &columns, &upsert());
    let types = Value::Object(field_types(&plan));
    let logical = |physical: &str, name: &str| json!({ "type": physical, "logicalType": name });
    let expected = json!({
        "id": logical("string", "uuid"),
        "day": logical("int", "date"),
        "clock": logical("long", "time-micros"),
        "local": logical("long", "local-timestamp-micros"),
        "moment": logical("long", "timestamp-micros"),
        "price": { "type": "bytes", "scale": 4, "precision": 12, "logicalType": "decimal" },
        "ratio": "string",
        "span": "string",
        "bits": "string",
        "doc": "string",
        "days": { "type": "array", "items": ["null", logical("int", "date")] },
    });
    assert_eq!(types, expected);

    let (key, value) = (plan.plan().key_schema().unwrap().json(), plan.plan().value_schema().unwrap().json());
    for schema in [key, value] {
        assert!(!schema.contains("connect.") && !schema.contains("debezium"), "{schema}");
    }
    let row = [
        "123e4567-e89b-12d3-a456-426614174000",
        "1969-12-31",
        "24:00:00",
        "2024-02-29 12:34:56.789",
        "infinity",
        "-1.5000",
        "NaN",
        "1 mon -1 days",
        "000000001",
        "{}",
        "{2024-02-29,NULL}",
    ];
    let found = encode(&plan, Change::Insert(&table::insert(&row))).remove(0);
    assert_eq!((&found["value"]["ratio"], &found["value"]["bits"]), (&json!("NaN"), &json!("000000001")));
    assert_eq!(found["value"]["local"], json!(1_709_210_096_789_000_i64));
}

#[test]
fn a_chosen_key_is_that_of_every_record_of_its_row() {
    let columns = [column("id", 20, -1).key().not_null(), column("number", 23, -1), column("area", 25, -1)];
    let options = EncodeOptions { key: Some(vec!["area".into(), "number".into()]), ..EncodeOptions::default() };
    let compile = |identity, options: &EncodeOptions| {
        TablePlan::compile(&table::relation(identity, &columns), &table::facts(&columns), &table::naming(), options)
    };
    let error = compile(ReplicaIdentity::Default, &options).unwrap_err();
    assert!(matches!(&error, PlanError::KeyColumnUnsent { column, .. } if column == "area"), "{error}");
    let missing = EncodeOptions { key: Some(vec!["gone".into()]), ..EncodeOptions::default() };
    let error = compile(ReplicaIdentity::Full, &missing).unwrap_err();
    assert!(matches!(&error, PlanError::KeyColumnMissing { column, .. } if column == "gone"), "{error}");

    let plan = table::bind(compile(ReplicaIdentity::Full, &options).unwrap());
    let keys = |change: Change<'_>| -> Vec<Value> {
        encode(&plan, change).iter().map(|record| record["key"].clone()).collect()
    };
    let key = |area: &str, number: i64| json!({ "area": area, "number": number });
    assert_eq!(keys(Change::Insert(&table::insert(&["1", "7", "north"]))), [key("north", 7)]);
    let old = || OldTuple::Full(table::row(&["1", "7", "north"]));
    assert_eq!(keys(Change::Delete(&table::delete(old()))), [key("north", 7), key("north", 7)]);
    // The identity stays, and the key does not.
    let moved = table::update(old(), &["1", "7", "south"]);
    assert_eq!(keys(Change::Update(&moved)), [key("north", 7), key("north", 7), key("south", 7)]);
    assert_eq!(plan.count_events(Change::Update(&moved), 1.into()).unwrap(), 2);
    let renumbered = table::update(old(), &["2", "7", "north"]);
    assert_eq!(keys(Change::Update(&renumbered)), [key("north", 7)]);
}

#[test]
fn a_form_that_makes_different_keys_one_is_refused() {
    use encoder::{Decimals, Intervals, Times, VaryingBits, ZonedTimes};

    let forms = [
        (1700, EncodeOptions { decimals: Decimals::Double, ..upsert() }),
        (790, EncodeOptions { decimals: Decimals::Double, ..upsert() }),
        (1114, EncodeOptions { times: Times::Connect, ..upsert() }),
        (1083, EncodeOptions { times: Times::Connect, ..upsert() }),
        (1266, EncodeOptions { zoned_times: ZonedTimes::Utc, ..upsert() }),
        (1186, EncodeOptions { intervals: Intervals::Numeric, ..upsert() }),
        (1562, EncodeOptions { varying_bits: VaryingBits::Bits, ..upsert() }),
        (1231, EncodeOptions { decimals: Decimals::Double, ..upsert() }),
    ];
    for (oid, options) in forms {
        let columns = [column("k", oid, -1).key().not_null()];
        let (relation, facts) = (table::relation(ReplicaIdentity::Default, &columns), table::facts(&columns));
        let compile = |options: &EncodeOptions| TablePlan::compile(&relation, &facts, &table::naming(), options);
        assert!(matches!(compile(&options), Err(PlanError::KeyFormMerges { .. })), "{oid}");
        assert!(compile(&upsert()).is_ok(), "{oid}");
    }
}

#[test]
fn another_envelope_keeps_what_was_chosen() {
    use encoder::{Bytea, Decimals, Metadata};

    let chosen = EncodeOptions {
        decimals: Decimals::String,
        bytea: Bytea::Hex,
        headers: vec![Metadata::Table],
        unavailable_value: "?".to_owned(),
        ..EncodeOptions::default()
    };
    let found = chosen.in_envelope(Envelope::Upsert);
    let expected = EncodeOptions {
        decimals: Decimals::String,
        bytea: Bytea::Hex,
        headers: vec![Metadata::Table],
        unavailable_value: "?".to_owned(),
        ..EncodeOptions::upsert()
    };
    assert_eq!(found, expected);
    assert_eq!(EncodeOptions::upsert().in_envelope(Envelope::Debezium), EncodeOptions::default());
}

#[test]
fn a_value_without_room_is_a_dead_letter_and_counts() {
    use encoder::{ColumnRule, EncodeErrorKind, Encoded, EventOrder, Unrepresentable};

    let columns = [
        column("id", 20, -1).key().not_null(),
        column("v", 1700, (12 << 16 | 2) + 4),
        column("secret", 25, -1),
        column("doc", 25, -1),
    ];
    let options = EncodeOptions {
        unrepresentable: Unrepresentable::DeadLetter,
        columns: [("secret".to_owned(), ColumnRule::Exclude)].into(),
        ..EncodeOptions::default()
    };
    let plan = plan(ReplicaIdentity::Default, &columns, &options);
    let (mut order, mut batch) = (EventOrder { total: 7, collection: 2 }, RecordBatch::new());
    let mut append = |change: Change<'_>| table::append(&plan, change, &mut order, &mut batch).unwrap();
    let moved = table::update(OldTuple::Key(table::row(&["1", r"\N", r"\N", r"\N"])), &["2", "NaN", "hush", r"\U"]);
    let good = table::insert(&["3", "1.50", "hush", "d"]);
    let Encoded::DeadLetter(error) = append(Change::Update(&moved)) else { panic!("it was written") };
    assert_eq!((error.kind(), error.column()), (EncodeErrorKind::NotANumber, Some("v")));
    assert!(matches!(append(Change::Insert(&good)), Encoded::Events));
    assert_eq!(
        order,
        EventOrder { total: 9, collection: 4 },
        "a dead letter is one event, whatever it would have been"
    );
    assert_eq!(plan.count_events(Change::Update(&moved), 1.into()).unwrap(), 1);

    let letters: Vec<_> =
        batch.iter().filter(|record| record.topic == plan.plan().dead_letter_topic().unwrap()).collect();
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!(letter.key, None);
    let value: Value = serde_json::from_slice(letter.value.unwrap()).unwrap();
    assert_eq!(value["new"], json!(["2", "NaN", { "hidden": true }, { "unchanged_toast": true }]));
    assert_eq!(value["old"], json!({ "kind": "key", "values": ["1", null, null, null] }));
    let place = (&value["op"], &value["code"], &value["ordinal"], &value["table"]);
    assert_eq!(place, (&json!("u"), &json!("not_a_number"), &json!(8), &json!("t")));
    assert_eq!(value["columns"][1], json!({ "name": "v", "type_oid": 1700, "type_modifier": 786_438, "key": false }));

    // A change that is not what its relation says cannot be trusted at all.
    let short = table::insert(&["1"]);
    let error = table::append(&plan, Change::Insert(&short), &mut order, &mut batch).unwrap_err();
    assert_eq!(error.kind(), EncodeErrorKind::ColumnCount);
}

#[test]
fn json_says_what_avro_says() {
    let columns = [
        column("id", 20, -1).key().not_null(),
        column("text", 25, -1),
        column("flag", 16, -1),
        column("double", 701, -1),
        column("day", 1082, -1),
        column("moment", 1184, -1),
        column("items", 1007, -1),
        column("doc", 3802, -1),
    ];
    let row = [
        "-9223372036854775808",
        "ä\u{1}\\\"\n🎉",
        "f",
        "1e-300",
        "2024-02-29",
        "2024-02-29 12:00:00+00",
        "{1,NULL,3}",
        "{\"a\": 1}",
    ];
    let old = ["1", r"\N", "t", "-0", "0001-01-01 BC", "infinity", r"\N", "[]"];
    let (insert, delete) = (table::insert(&row), table::delete(OldTuple::Full(table::row(&old))));
    let update = table::update(OldTuple::Full(table::row(&old)), &row);
    for envelope in [EncodeOptions::default(), upsert()] {
        let avro = plan(ReplicaIdentity::Full, &columns, &envelope);
        let json = plan(ReplicaIdentity::Full, &columns, &json_of(envelope.clone()));
        assert!(json.plan().key_schema().is_none() && json.plan().value_schema().is_none());
        for change in [Change::Insert(&insert), Change::Update(&update), Change::Delete(&delete)] {
            assert_eq!(encode(&json, change), encode(&avro, change), "{:?}", envelope.envelope);
        }
    }
}

#[test]
fn json_has_exact_decimals_and_names_as_they_are() {
    let columns =
        [column("id", 20, -1).key().not_null(), column("two words", 1700, (20 << 16 | 2) + 4), column("b", 17, -1)];
    let options = json_of(EncodeOptions::default());
    let plan = plan(ReplicaIdentity::Default, &columns, &options);
    let batch =
        table::encode(&plan, Change::Insert(&table::insert(&["1", "123456789012345678.90", r"\xdeadbeef"]))).unwrap();
    let record = batch.iter().next().unwrap();
    assert_eq!(record.key, Some(&br#"{"id":1}"#[..]));
    let value = std::str::from_utf8(record.value.unwrap()).unwrap();
    let row = r#""after":{"id":1,"two words":123456789012345678.90,"b":"3q2+7w=="}"#;
    assert!(value.starts_with(&format!(r#"{{"before":null,{row},"source":{{"#)), "{value}");
    assert_eq!(plan.plan().describe_key(record.key.unwrap()).as_deref(), Some(r#"{"id":1}"#));
    let value: Value = serde_json::from_str(value).unwrap();
    assert_eq!(
        value["source"]["sequence"].as_str().map(|text| serde_json::from_str::<Vec<String>>(text).unwrap().len()),
        Some(2)
    );
    assert_eq!(options.envelope, Envelope::Debezium);
}
