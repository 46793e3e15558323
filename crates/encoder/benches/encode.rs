//! What a row costs from the wire's text to an event's Avro bytes, beside apache-avro's own encoder for the same bytes.
//!
//! `cargo bench -p encoder`

#![allow(missing_docs, clippy::unwrap_used)]

use apache_avro::{reader::datum::GenericDatumReader, types::Value as Avro, writer::datum::GenericDatumWriter};
use divan::{Bencher, counter::ItemsCount};
use encoder::{
    BoundPlan, Bytea, Change, ColumnFacts, Decimals, EncodeOptions, EventContext, EventOrder, Format, Hstore, Naming,
    RecordBatch, SnapshotContext, SnapshotKind, TableFacts, TablePlan, Times, TransactionContext, TypeKind,
};
use pgoutput::{
    Insert, Lsn, Oid, OldTuple, Relation, RelationColumn, ReplicaIdentity, Timestamp, Tuple, Update, Value, Xid,
};

const ROWS: usize = 1000;

/// Name, type, modifier, whether it cannot be null, and a value.
const COLUMNS: [(&str, u32, i32, bool, &str); 10] = [
    ("id", 20, -1, true, "1234567"),
    ("customer_id", 23, -1, true, "98765"),
    ("status", 25, -1, true, "shipped"),
    ("amount", 1700, (12 << 16 | 2) + 4, false, "1299.95"),
    ("quantity", 23, -1, false, "3"),
    ("weight", 701, -1, false, "2.375"),
    ("paid", 16, -1, true, "t"),
    ("created_at", 1184, -1, true, "2024-02-29 12:34:56.789012+00"),
    ("note", 25, -1, false, "left with a neighbour"),
    ("reference", 2950, -1, false, "123e4567-e89b-12d3-a456-426614174000"),
];

fn main() {
    divan::main();
}

fn relation(replica_identity: ReplicaIdentity) -> Relation {
    let full = replica_identity == ReplicaIdentity::Full;
    let column = |(index, (name, type_oid, type_modifier, ..)): (usize, (&str, u32, i32, bool, &str))| RelationColumn {
        is_key: full || index == 0,
        name: name.to_owned(),
        type_oid: Oid::from(type_oid),
        type_modifier,
    };
    Relation {
        xid: None,
        id: Oid::from(1),
        schema: "public".to_owned(),
        name: "orders".to_owned(),
        replica_identity,
        columns: COLUMNS.into_iter().enumerate().map(column).collect(),
    }
}

fn plan(replica_identity: ReplicaIdentity) -> BoundPlan {
    plan_with(replica_identity, &EncodeOptions::default())
}

fn plan_with(replica_identity: ReplicaIdentity, options: &EncodeOptions) -> BoundPlan {
    let column = |(name, type_oid, type_modifier, not_null, _): (&str, u32, i32, bool, &str)| ColumnFacts {
        not_null,
        base_type_modifier: type_modifier,
        ..ColumnFacts::new(name, Oid::from(type_oid), "")
    };
    let facts =
        TableFacts { columns: COLUMNS.into_iter().map(column).collect(), primary_key: Some(vec!["id".to_owned()]) };
    let plan = TablePlan::compile(&relation(replica_identity), &facts, &Naming::new("shop", "shop"), options).unwrap();
    let (key, value) = (plan.key_schema().map(|_| 1), plan.value_schema().map(|_| 2));
    plan.bind(key, value).unwrap()
}

fn row() -> Tuple {
    Tuple::from_values(COLUMNS.map(|(.., value)| Value::Text(value.as_bytes()))).unwrap()
}

fn transaction() -> TransactionContext {
    TransactionContext::from_parts(
        Xid::from(52_208),
        Lsn::from(680_468_568),
        Timestamp::from_unix_micros(1_795_529_304_882_068),
    )
}

fn bench(bencher: Bencher<'_, '_>, plan: &BoundPlan, change: Change<'_>) {
    bench_rows(bencher, plan, change, ROWS, 1);
}

/// Encodes so many rows, each of which counts for so many items.
fn bench_rows(bencher: Bencher<'_, '_>, plan: &BoundPlan, change: Change<'_>, rows: usize, items: usize) {
    let transaction = transaction();
    let mut batch = RecordBatch::new();
    bencher.counter(ItemsCount::new(rows * items)).bench_local(|| {
        batch.clear();
        let mut order = EventOrder::default();
        for row in 0..rows {
            let context = EventContext {
                transaction: &transaction,
                lsn: Lsn::from(680_468_568 + row as u64 * 100),
                processed_unix_ns: 1_795_529_305_322_165_828,
            };
            plan.encode(divan::black_box(change), &context, &mut order, &mut batch).unwrap();
        }
        divan::black_box(batch.bytes())
    });
}

#[divan::bench]
fn insert(bencher: Bencher<'_, '_>) {
    let insert = Insert { xid: None, relation: Oid::from(1), new: row() };
    bench(bencher, &plan(ReplicaIdentity::Default), Change::Insert(&insert));
}

/// The same row in the other envelope and the other format.
#[divan::bench(args = ["upsert, avro", "upsert, json", "debezium, json"])]
fn insert_as(bencher: Bencher<'_, '_>, form: &str) {
    let (envelope, format) = form.split_once(", ").unwrap();
    let options = if envelope == "upsert" { EncodeOptions::upsert() } else { EncodeOptions::default() };
    let options = EncodeOptions { format: if format == "json" { Format::Json } else { Format::Avro }, ..options };
    let insert = Insert { xid: None, relation: Oid::from(1), new: row() };
    bench(bencher, &plan_with(ReplicaIdentity::Default, &options), Change::Insert(&insert));
}

/// A row that was there before the stream.
#[divan::bench]
fn read(bencher: Bencher<'_, '_>) {
    let (plan, row) = (plan(ReplicaIdentity::Default), row());
    let snapshot = SnapshotContext::new(SnapshotKind::Initial, Lsn::from(1), None, Timestamp::from(1));
    let mut batch = RecordBatch::new();
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        batch.clear();
        for _ in 0..ROWS {
            plan.encode_read(divan::black_box(&row), &snapshot, 1, &mut batch).unwrap();
        }
    });
}

#[divan::bench]
fn update(bencher: Bencher<'_, '_>) {
    let update = Update { xid: None, relation: Oid::from(1), old: OldTuple::Absent, new: row() };
    bench(bencher, &plan(ReplicaIdentity::Default), Change::Update(&update));
}

#[divan::bench]
fn update_under_replica_identity_full(bencher: Bencher<'_, '_>) {
    let update = Update { xid: None, relation: Oid::from(1), old: OldTuple::Full(row()), new: row() };
    bench(bencher, &plan(ReplicaIdentity::Full), Change::Update(&update));
}

/// The value alone, from values that are parsed already: apache-avro's part of the same work.
#[divan::bench]
fn insert_by_apache_avro(bencher: Bencher<'_, '_>) {
    let plan = plan(ReplicaIdentity::Default);
    let (transaction, mut order, mut batch) = (transaction(), EventOrder::default(), RecordBatch::new());
    let context = EventContext { transaction: &transaction, lsn: Lsn::from(680_468_568), processed_unix_ns: 1 };
    let insert = Insert { xid: None, relation: Oid::from(1), new: row() };
    plan.encode(Change::Insert(&insert), &context, &mut order, &mut batch).unwrap();
    let bytes = batch.iter().next().unwrap().value.unwrap()[5..].to_vec();
    let schema = apache_avro::Schema::parse_str(plan.plan().value_schema().unwrap().json()).unwrap();
    let value: Avro =
        GenericDatumReader::builder(&schema).build().and_then(|reader| reader.read_value(&mut &bytes[..])).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    assert_eq!(writer.write_value_to_vec(value.clone()).unwrap(), bytes);
    let mut buffer = Vec::with_capacity(bytes.len());
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        buffer.clear();
        writer.write_value_ref(&mut buffer, divan::black_box(&value)).unwrap()
    });
}

/// A family of types: one of it, in a form, and a value.
struct Family {
    name: &'static str,
    facts: fn() -> ColumnFacts,
    modifier: i32,
    options: fn() -> EncodeOptions,
    text: &'static str,
}

/// A type that comes with PostgreSQL, in its default form.
const fn family(name: &'static str, facts: fn() -> ColumnFacts, text: &'static str) -> Family {
    Family { name, facts, modifier: -1, options: EncodeOptions::default, text }
}

impl Family {
    const fn modifier(self, modifier: i32) -> Self {
        Self { modifier, ..self }
    }

    const fn lossless(self) -> Self {
        Self { options: EncodeOptions::lossless, ..self }
    }

    const fn options(self, options: fn() -> EncodeOptions) -> Self {
        Self { options, ..self }
    }

    const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
}

fn made(base_type_kind: TypeKind, type_name: &str) -> ColumnFacts {
    ColumnFacts {
        base_type_kind,
        labels: ["sad", "ok", "happy"].map(str::to_owned).into(),
        ..ColumnFacts::new("", Oid::from(99_999), type_name)
    }
}

macro_rules! built_in {
    ($oid:literal) => {
        || ColumnFacts::new("", Oid::from($oid), "")
    };
}

const BYTEA: Family = family("bytea", built_in!(17), r"\xdeadbeef00112233445566778899aabb");
const TIMESTAMP: Family = family("timestamp", built_in!(1114), "2024-02-29 12:34:56.789012");

fn of_bytea(bytea: Bytea) -> EncodeOptions {
    EncodeOptions { bytea, ..EncodeOptions::default() }
}

fn of_times(times: Times) -> EncodeOptions {
    EncodeOptions { times, ..EncodeOptions::default() }
}

/// One of each codec and form that takes a path of its own.
const FAMILIES: [Family; 52] = [
    family("boolean", built_in!(16), "t"),
    family("smallint", built_in!(21), "-12345"),
    family("integer", built_in!(23), "1234567890"),
    family("bigint", built_in!(20), "1234567890123"),
    family("oid", built_in!(26), "4294967295"),
    family("real", built_in!(700), "2.7182817"),
    family("double precision", built_in!(701), "2.718281828459045"),
    family("numeric(12,2)", built_in!(1700), "1299.95").modifier((12 << 16 | 2) + 4),
    family("numeric", built_in!(1700), "123456789.125"),
    family("numeric of 60 digits", built_in!(1700), "123456789012345678901234567890.123456789012345678901234567890"),
    family("numeric as text", built_in!(1700), "123456789.125").lossless(),
    family("numeric as double", built_in!(1700), "123456789.125")
        .options(|| EncodeOptions { decimals: Decimals::Double, ..EncodeOptions::default() }),
    family("money", built_in!(790), "-$1,234.56"),
    family("text", built_in!(25), "left with a neighbour"),
    family("jsonb", built_in!(3802), r#"{"a": null, "b": 2}"#),
    family("inet", built_in!(869), "192.168.1.5/24"),
    family("tstzrange", built_in!(3910), r#"["2024-01-01 00:00:00+00",)"#),
    BYTEA,
    BYTEA.named("bytea as base64").options(|| of_bytea(Bytea::Base64)),
    BYTEA.named("bytea as base64url").options(|| of_bytea(Bytea::Base64Url)),
    BYTEA.named("bytea as hex").options(|| of_bytea(Bytea::Hex)),
    family("uuid", built_in!(2950), "123e4567-e89b-12d3-a456-426614174000"),
    family("date", built_in!(1082), "2024-02-29"),
    family("date as text", built_in!(1082), "2024-02-29").lossless(),
    family("time", built_in!(1083), "12:34:56.789012"),
    family("time as text", built_in!(1083), "12:34:56.789012").lossless(),
    TIMESTAMP,
    family("timestamp as text", built_in!(1114), "2024-02-29 12:34:56.789012").lossless(),
    family("timestamp(3)", built_in!(1114), "2024-02-29 12:34:56.789").modifier(3),
    TIMESTAMP.named("timestamp as connect").options(|| of_times(Times::Connect)),
    TIMESTAMP.named("timestamp as microseconds").options(|| of_times(Times::Microseconds)),
    TIMESTAMP.named("timestamp as nanoseconds").options(|| of_times(Times::Nanoseconds)),
    TIMESTAMP.named("timestamp as Avro's own").options(|| of_times(Times::Native)),
    family("time(3)", built_in!(1083), "12:34:56.789").modifier(3),
    family("date as Avro's own", built_in!(1082), "2024-02-29").options(|| of_times(Times::Native)),
    family("timetz[]", built_in!(1270), "{12:34:56.789012+02,00:00:00+00}"),
    family("timestamptz", built_in!(1184), "2024-02-29 12:34:56.789012+00"),
    family("timetz", built_in!(1266), "12:34:56.789012+02"),
    family("timetz with its zone", built_in!(1266), "12:34:56.789012+02").lossless(),
    family("interval", built_in!(1186), "1 year 2 mons 3 days 04:05:06.789"),
    family("interval as text", built_in!(1186), "1 year 2 mons 3 days 04:05:06.789").lossless(),
    family("bit(16)", built_in!(1560), "1010101010101010").modifier(16),
    family("bit varying", built_in!(1562), "1010101010101010"),
    family("point", built_in!(600), "(1.25,-2.5)"),
    family("integer[]", built_in!(1007), "{1,22,333,NULL,55555}"),
    family("text[]", built_in!(1009), r#"{a,"b c","q\"q",NULL}"#),
    family("text[] as text", built_in!(1009), r#"{a,"b c","q\"q",NULL}"#).lossless(),
    family("enum", || made(TypeKind::Enum, "mood"), "happy"),
    family("composite", || made(TypeKind::Composite, "address"), r#"("Main, St",12345)"#),
    family("hstore", || made(TypeKind::Base, "hstore"), r#""a"=>"1", "key"=>"a \"value\"", "b"=>NULL"#),
    family("hstore as a map", || made(TypeKind::Base, "hstore"), r#""a"=>"1", "key"=>"a \"value\"", "b"=>NULL"#)
        .options(|| EncodeOptions { hstore: Hstore::Map, ..EncodeOptions::default() }),
    family("a type of an extension", || made(TypeKind::Base, "geometry"), "0101000000000000000000F03F0000000000000040"),
];

/// What a value of each type costs: a row has so many of one type that the event around them weighs next to nothing. A thousand values
/// are encoded, so that a line's microseconds are a value's nanoseconds.
#[divan::bench(args = FAMILIES.map(|family| family.name))]
fn value(bencher: Bencher<'_, '_>, name: &str) {
    const COLUMNS: usize = 100;
    const ROWS: usize = 10;
    let family = FAMILIES.into_iter().find(|family| family.name == name).unwrap();
    let facts = ColumnFacts { base_type_modifier: family.modifier, not_null: true, ..(family.facts)() };
    let names = (0..COLUMNS).map(|index| format!("c{index}"));
    let column =
        |name| RelationColumn { is_key: false, name, type_oid: facts.type_oid, type_modifier: family.modifier };
    let relation = Relation { columns: names.clone().map(column).collect(), ..relation(ReplicaIdentity::Nothing) };
    let columns = names.map(|name| ColumnFacts { name, ..facts.clone() }).collect();
    let facts = TableFacts { columns, primary_key: None };
    let plan = TablePlan::compile(&relation, &facts, &Naming::new("shop", "shop"), &(family.options)()).unwrap();
    let new = Tuple::from_values([Value::Text(family.text.as_bytes()); COLUMNS]).unwrap();
    let insert = Insert { xid: None, relation: Oid::from(1), new };
    bench_rows(bencher, &plan.bind(None, Some(2)).unwrap(), Change::Insert(&insert), ROWS, COLUMNS);
}
