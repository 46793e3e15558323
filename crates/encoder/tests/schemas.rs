//! The schemas as they are registered. A change here is a change of what every consumer reads.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::table::{self, Column, column};
use encoder::{
    Arrays, Bytea, ColumnFacts, Decimals, EncodeOptions, Hstore, Intervals, NameAdjustment, Times, TypeKind,
    VaryingBits, ZonedTimes,
};
use pgoutput::{Oid, ReplicaIdentity};

/// One column of every type and precision that is written differently, with a default that can be said in a schema where there is one.
fn columns() -> Vec<Column> {
    let numeric = |precision: i32, scale: i32| (precision << 16 | scale & 0x7ff) + 4;
    let mut columns: Vec<_> = [
        ("boolean", 16, -1, "true"),
        ("bytea", 17, -1, r"'\x00'::bytea"),
        ("quoted_char", 18, -1, "'c'::\"char\""),
        ("name", 19, -1, "'n'::name"),
        ("bigint", 20, -1, "nextval('t_id_seq'::regclass)"),
        ("smallint", 21, -1, "'-7'::integer"),
        ("integer", 23, -1, "7"),
        ("text", 25, -1, "'it''s'::text"),
        ("oid", 26, -1, "'7'::oid"),
        ("json", 114, -1, "'{}'::json"),
        ("xml", 142, -1, "'<a/>'::xml"),
        ("point", 600, -1, "'(1,2)'::point"),
        ("real", 700, -1, "1.5"),
        ("double", 701, -1, "'0.1'::double precision"),
        ("money", 790, -1, "'$1.00'::money"),
        ("inet", 869, -1, "'::1'::inet"),
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
        ("interval", 1186, -1, "'1 day'::interval"),
        ("timetz", 1266, -1, "'12:00:00+02'::time with time zone"),
        ("bit1", 1560, 1, "'1'::\"bit\""),
        ("bit9", 1560, 9, "'101010101'::\"bit\""),
        ("varbit16", 1562, 16, "'1101'::\"bit\""),
        ("varbit", 1562, -1, "f()"),
        ("numeric", 1700, -1, "1.5"),
        ("numeric_6_2", 1700, numeric(6, 2), "1.50"),
        ("numeric_3_minus_2", 1700, numeric(3, -2), "100"),
        ("numeric_2_4", 1700, numeric(2, 4), "0.0012"),
        ("uuid", 2950, -1, "gen_random_uuid()"),
        ("tsvector", 3614, -1, "''::tsvector"),
        ("jsonb", 3802, -1, "'{\"a\": 1}'::jsonb"),
        ("int4range", 3904, -1, "'[1,2)'::int4range"),
        ("another_numeric", 1700, -1, "0"),
        ("another_point", 600, -1, "NULL::point"),
        ("boolean_array", 1000, -1, "'{}'::boolean[]"),
        ("bytea_array", 1001, -1, "'{}'::bytea[]"),
        ("integer_array", 1007, -1, "'{}'::integer[]"),
        ("bigint_array", 1016, -1, "'{}'::bigint[]"),
        ("text_array", 1009, -1, "ARRAY['a'::text]"),
        ("point_array", 1017, -1, "'{}'::point[]"),
        ("timestamptz_array", 1185, 3, "'{}'::timestamptz[]"),
        ("time_array", 1183, 3, "'{}'::time[]"),
        ("interval_array", 1187, -1, "'{}'::interval[]"),
        ("numeric_array", 1231, -1, "'{}'::numeric[]"),
        ("numeric_6_2_array", 1231, numeric(6, 2), "'{}'::numeric[]"),
        ("bit9_array", 1561, 9, "'{}'::bit(9)[]"),
        ("uuid_array", 2951, -1, "'{}'::uuid[]"),
        ("jsonb_array", 3807, -1, "'{}'::jsonb[]"),
    ]
    .map(|(name, type_oid, type_modifier, default)| column(name, type_oid, type_modifier).default(default))
    .into();
    let other = |name: &str, type_facts: ColumnFacts| column(name, table::OTHER_OID, -1).of(type_facts);
    let mood = || table::enumeration(&["sad", "ok", "happy"]);
    let domain_of = |facts: ColumnFacts| ColumnFacts { type_kind: TypeKind::Domain, ..facts };
    let decimal = || ColumnFacts {
        base_type_oid: Oid::from(1700),
        base_type_modifier: numeric(6, 3),
        ..ColumnFacts::new("", Oid::from(table::OTHER_OID), "numeric")
    };
    let composite = ColumnFacts { base_type_kind: TypeKind::Composite, ..ColumnFacts::new("", Oid::from(1), "citext") };
    let two_dimensions = ColumnFacts { dimensions: 2, ..ColumnFacts::new("", Oid::from(1007), "_int4") };
    columns.extend([
        other("enum", mood()).default("'ok'::mood"),
        other("enum_by_function", mood()).default("f()"),
        other("enum_domain", domain_of(mood())).default("'ok'::mood"),
        other("enum_array", table::array_of(&mood())),
        other("enum_domain_array", table::array_of(&domain_of(mood()))),
        other("numeric_domain", domain_of(decimal())),
        other("numeric_domain_array", table::array_of(&domain_of(decimal()))),
        other("composite", composite),
        column("integer_array_of_two_dimensions", 1007, -1).of(two_dimensions),
        table::extension("hstore", "hstore").default("''::hstore"),
        table::extension("citext", "citext"),
        table::extension("ltree", "ltree"),
        table::extension("geometry", "geometry"),
        other("hstore_array", table::array_of(&ColumnFacts::new("", Oid::from(table::OTHER_OID), "hstore"))),
    ]);
    columns
}

fn check(name: &str, json: &str) {
    let schema: serde_json::Value = serde_json::from_str(json).unwrap();
    insta::assert_snapshot!(name, serde_json::to_string_pretty(&schema).unwrap());
}

/// The row in an envelope, a field a line.
fn fields(json: &str) -> String {
    let schema: serde_json::Value = serde_json::from_str(json).unwrap();
    let fields =
        if schema["name"] == "Envelope" { &schema["fields"][0]["type"][1]["fields"] } else { &schema["fields"] };
    let fields = fields.as_array().unwrap();
    fields.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_envelope_and_the_key() {
    let plan = table::compile(ReplicaIdentity::Default, &[column("id", 23, -1).key(), column("v", 25, -1)]);
    check("key", plan.key_schema().unwrap().json());
    check("envelope", plan.value_schema().unwrap().json());
}

#[test]
fn every_type_that_can_be_null() {
    let without_defaults: Vec<_> = columns().into_iter().map(|column| Column { default: None, ..column }).collect();
    insta::assert_snapshot!(fields(
        table::compile(ReplicaIdentity::Default, &without_defaults).value_schema().unwrap().json()
    ));
}

#[test]
fn every_type_that_can_be_null_with_a_default() {
    insta::assert_snapshot!(fields(
        table::compile(ReplicaIdentity::Default, &columns()).value_schema().unwrap().json()
    ));
}

/// The fields that an option makes different from the default, one option after another.
#[test]
fn every_option() {
    let options = [
        ("decimals: double", EncodeOptions { decimals: Decimals::Double, ..EncodeOptions::default() }),
        ("decimals: string", EncodeOptions { decimals: Decimals::String, ..EncodeOptions::default() }),
        (
            "times: adaptive microseconds",
            EncodeOptions { times: Times::AdaptiveMicroseconds, ..EncodeOptions::default() },
        ),
        ("times: connect", EncodeOptions { times: Times::Connect, ..EncodeOptions::default() }),
        ("times: iso string", EncodeOptions { times: Times::IsoString, ..EncodeOptions::default() }),
        ("times: microseconds", EncodeOptions { times: Times::Microseconds, ..EncodeOptions::default() }),
        ("times: nanoseconds", EncodeOptions { times: Times::Nanoseconds, ..EncodeOptions::default() }),
        ("intervals: string", EncodeOptions { intervals: Intervals::String, ..EncodeOptions::default() }),
        ("zoned times: offset", EncodeOptions { zoned_times: ZonedTimes::Offset, ..EncodeOptions::default() }),
        ("varying bits: text", EncodeOptions { varying_bits: VaryingBits::Text, ..EncodeOptions::default() }),
        ("arrays: text", EncodeOptions { arrays: Arrays::Text, ..EncodeOptions::default() }),
        ("hstore: map", EncodeOptions { hstore: Hstore::Map, ..EncodeOptions::default() }),
        ("bytea: base64", EncodeOptions { bytea: Bytea::Base64, ..EncodeOptions::default() }),
        ("bytea: base64url", EncodeOptions { bytea: Bytea::Base64Url, ..EncodeOptions::default() }),
        ("bytea: hex", EncodeOptions { bytea: Bytea::Hex, ..EncodeOptions::default() }),
        ("names: unicode", EncodeOptions { names: NameAdjustment::AvroUnicode, ..EncodeOptions::default() }),
        ("names: none", EncodeOptions { names: NameAdjustment::None, ..EncodeOptions::default() }),
        ("tombstones: off", EncodeOptions { tombstones: false, ..EncodeOptions::default() }),
        ("lossless", EncodeOptions::lossless()),
    ];
    let fields = |options: &EncodeOptions| {
        fields(table::compile_with(ReplicaIdentity::Default, &columns(), options).value_schema().unwrap().json())
    };
    let by_default = fields(&EncodeOptions::default());
    let mut found = Vec::new();
    for (name, options) in options {
        found.push(name.to_owned());
        let fields = fields(&options);
        let changed = fields.lines().zip(by_default.lines()).filter(|(field, default)| field != default);
        found.extend(changed.map(|(field, _)| format!("  {field}")));
    }
    let found = found.join("\n");
    insta::assert_snapshot!(found);
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

/// What each type that comes with PostgreSQL is, in a row, in an array and as a key; then what it is by other options, where that differs.
#[test]
fn every_built_in_type() {
    let options = [("lossless", EncodeOptions::lossless()), ("upsert", EncodeOptions::upsert())];
    let mut found = Vec::new();
    for line in include_str!("postgres/types.tsv").lines() {
        let [name, type_oid, array_oid] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let (type_oid, array_oid) = (type_oid.parse().unwrap(), array_oid.parse().unwrap());
        let fields = |options: &EncodeOptions| {
            let key = column("key", type_oid, -1).key();
            let columns = [key, column("value", type_oid, -1), column("array", array_oid, -1)];
            let plan = table::compile_with(ReplicaIdentity::Default, &columns, options);
            let row = fields(plan.value_schema().unwrap().json());
            let row = row.lines().skip(1).map(str::to_owned);
            row.chain([fields(plan.key_schema().unwrap().json())]).collect::<Vec<_>>()
        };
        let by_default = fields(&EncodeOptions::default());
        found.push(name.to_owned());
        found.extend(by_default.iter().map(|field| format!("  {field}")));
        for (name, options) in &options {
            let fields = fields(options);
            let changed = fields.iter().zip(&by_default).filter(|(field, default)| field != default);
            found.extend(changed.map(|(field, _)| format!("  {name}: {field}")));
        }
    }
    let found = found.join("\n");
    insta::assert_snapshot!(found);
}

/// Rows and keys of the other shapes that are sets of options, with every modifier and every kind of type that is made.
#[test]
fn every_type_in_the_lossless_forms_and_in_an_upsert() {
    let mut found = Vec::new();
    for (name, options) in [("lossless", EncodeOptions::lossless()), ("upsert", EncodeOptions::upsert())] {
        let key = || column("id", 23, -1).key();
        let rows: Vec<_> = std::iter::once(key()).chain(columns()).collect();
        let keys: Vec<_> = columns().into_iter().map(|column| Column { default: None, ..column }.key()).collect();
        let row = table::compile_with(ReplicaIdentity::Default, &rows, &options);
        let plan = table::compile_with(ReplicaIdentity::Default, &keys, &options);
        found.push(format!("{name}, the row\n{}", fields(row.value_schema().unwrap().json())));
        found.push(format!("{name}, the key\n{}", fields(plan.key_schema().unwrap().json())));
    }
    let found = found.join("\n\n");
    insta::assert_snapshot!(found);
}

#[test]
fn an_upsert_and_its_key() {
    let columns = [column("id", 23, -1).key(), column("v", 25, -1), column("t", 1184, -1).not_null()];
    let plan = table::compile_with(ReplicaIdentity::Default, &columns, &EncodeOptions::upsert());
    check("upsert_key", plan.key_schema().unwrap().json());
    check("upsert", plan.value_schema().unwrap().json());
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
