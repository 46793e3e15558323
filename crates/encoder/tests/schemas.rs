//! The schemas as they are registered. A change here is a change of what every consumer reads.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::table::{self, Column, column};
use pgoutput::ReplicaIdentity;

/// One column of every type and precision that is written differently, with a default that can be said in a schema where there is one.
fn columns() -> Vec<Column> {
    let numeric = |precision: i32, scale: i32| (precision << 16 | scale & 0x7ff) + 4;
    [
        ("boolean", 16, -1, "true"),
        ("bytea", 17, -1, r"'\x00'::bytea"),
        ("quoted_char", 18, -1, "'c'::\"char\""),
        ("name", 19, -1, "'n'::name"),
        ("bigint", 20, -1, "nextval('t_id_seq'::regclass)"),
        ("smallint", 21, -1, "'-7'::integer"),
        ("integer", 23, -1, "7"),
        ("text", 25, -1, "'it''s'::text"),
        ("json", 114, -1, "'{}'::json"),
        ("real", 700, -1, "1.5"),
        ("double", 701, -1, "'0.1'::double precision"),
        ("char5", 1042, 9, "'ab'::bpchar"),
        ("varchar", 1043, -1, "''::character varying"),
        ("date", 1082, -1, "'2024-02-29'::date"),
        ("time", 1083, -1, "'12:34:56'::time without time zone"),
        ("time3", 1083, 3, "'12:34:56.789'::time without time zone"),
        ("timestamp", 1114, -1, "'2024-02-29 12:34:56'::timestamp without time zone"),
        ("timestamp0", 1114, 0, "CURRENT_TIMESTAMP"),
        ("timestamp3", 1114, 3, "now()"),
        ("timestamptz", 1184, -1, "'2020-01-01 00:00:00+00'::timestamp with time zone"),
        ("timestamptz3", 1184, 3, "now()"),
        ("numeric", 1700, -1, "1.5"),
        ("numeric_6_2", 1700, numeric(6, 2), "1.50"),
        ("numeric_3_minus_2", 1700, numeric(3, -2), "100"),
        ("numeric_2_4", 1700, numeric(2, 4), "0.0012"),
        ("uuid", 2950, -1, "gen_random_uuid()"),
        ("jsonb", 3802, -1, "'{\"a\": 1}'::jsonb"),
        ("interval", 1186, -1, "'1 day'::interval"),
        ("another_numeric", 1700, -1, "0"),
        ("integer_array", 1007, -1, "'{}'::integer[]"),
    ]
    .map(|(name, type_oid, type_modifier, default)| column(name, type_oid, type_modifier).default(default))
    .into()
}

fn check(name: &str, json: &str) {
    let schema: serde_json::Value = serde_json::from_str(json).unwrap();
    insta::assert_snapshot!(name, serde_json::to_string_pretty(&schema).unwrap());
}

/// The row in an envelope, a field a line.
fn fields(json: &str) -> String {
    let schema: serde_json::Value = serde_json::from_str(json).unwrap();
    let fields = schema.pointer("/fields/0/type/1/fields").unwrap_or(&schema["fields"]).as_array().unwrap();
    fields.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_envelope_and_the_key() {
    let plan = table::compile(ReplicaIdentity::Default, &[column("id", 23, -1).key(), column("v", 25, -1)]);
    check("key", plan.key_schema().unwrap().json());
    check("envelope", plan.value_schema().json());
}

#[test]
fn every_type_that_can_be_null() {
    let without_defaults: Vec<_> = columns().into_iter().map(|column| Column { default: None, ..column }).collect();
    insta::assert_snapshot!(fields(table::compile(ReplicaIdentity::Default, &without_defaults).value_schema().json()));
}

#[test]
fn every_type_that_can_be_null_with_a_default() {
    insta::assert_snapshot!(fields(table::compile(ReplicaIdentity::Default, &columns()).value_schema().json()));
}

#[test]
fn every_type_as_a_key() {
    let keys: Vec<_> = columns().into_iter().map(|column| Column { default: None, ..column }.key()).collect();
    insta::assert_snapshot!(fields(table::compile(ReplicaIdentity::Default, &keys).key_schema().unwrap().json()));
}

#[test]
fn every_type_as_a_key_with_a_default() {
    let keys: Vec<_> = columns().into_iter().map(Column::key).collect();
    insta::assert_snapshot!(fields(table::compile(ReplicaIdentity::Default, &keys).key_schema().unwrap().json()));
}

#[test]
fn apache_avro_reads_all_of_them_and_finds_each_default_right() {
    let columns: Vec<_> = columns().into_iter().map(Column::key).collect();
    let plan = table::compile(ReplicaIdentity::Default, &columns);
    // A record without any field is read with all defaults; those that have none are left out first.
    let mut schema: serde_json::Value = serde_json::from_str(plan.key_schema().unwrap().json()).unwrap();
    schema["fields"].as_array_mut().unwrap().retain(|field| field.get("default").is_some());
    let reader = apache_avro::Schema::parse(&schema).unwrap();
    let mut empty = schema.clone();
    empty["fields"] = serde_json::json!([]);
    let writer = apache_avro::Schema::parse(&empty).unwrap();
    let datum = apache_avro::reader::datum::GenericDatumReader::builder(&writer)
        .reader_schema(&reader)
        .build()
        .and_then(|reader| reader.read_value(&mut &[][..]))
        .unwrap();
    insta::assert_debug_snapshot!(datum);
}
