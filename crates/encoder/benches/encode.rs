//! What a row costs from the wire's text to an event's Avro bytes, beside apache-avro's own encoder for the same bytes.
//!
//! `cargo bench -p encoder`

#![allow(missing_docs, clippy::unwrap_used)]

use apache_avro::{reader::datum::GenericDatumReader, types::Value as Avro, writer::datum::GenericDatumWriter};
use divan::{Bencher, counter::ItemsCount};
use encoder::{
    BoundPlan, Change, ColumnFacts, EncodeOptions, EventContext, EventOrder, Naming, RecordBatch, TableFacts,
    TablePlan, TransactionContext, TypeKind,
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
    let column = |(name, type_oid, type_modifier, not_null, _): (&str, u32, i32, bool, &str)| ColumnFacts {
        not_null,
        base_type_modifier: type_modifier,
        ..ColumnFacts::new(name, Oid::from(type_oid), "")
    };
    let facts =
        TableFacts { columns: COLUMNS.into_iter().map(column).collect(), primary_key: Some(vec!["id".to_owned()]) };
    let plan = TablePlan::compile(
        &relation(replica_identity),
        &facts,
        &Naming::new("shop", "shop"),
        &EncodeOptions::default(),
    )
    .unwrap();
    plan.bind(Some(1), Some(2)).unwrap()
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
    let transaction = transaction();
    let mut batch = RecordBatch::new();
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        batch.clear();
        let mut order = EventOrder::default();
        for row in 0..ROWS {
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

/// A family of types, one of it, and the value that all ten columns have.
const FAMILIES: [(&str, u32, i32, &str); 18] = [
    ("boolean", 16, -1, "t"),
    ("integer", 20, -1, "1234567890123"),
    ("float", 701, -1, "2.718281828459045"),
    ("decimal", 1700, (12 << 16 | 2) + 4, "1299.95"),
    ("variable scale decimal", 1700, -1, "123456789.125"),
    ("money", 790, -1, "-$1,234.56"),
    ("text", 25, -1, "left with a neighbour"),
    ("bytea", 17, -1, r"\xdeadbeef00112233445566778899aabb"),
    ("uuid", 2950, -1, "123e4567-e89b-12d3-a456-426614174000"),
    ("date", 1082, -1, "2024-02-29"),
    ("time", 1083, -1, "12:34:56.789012"),
    ("timestamp", 1114, -1, "2024-02-29 12:34:56.789012"),
    ("timestamptz", 1184, -1, "2024-02-29 12:34:56.789012+00"),
    ("timetz", 1266, -1, "12:34:56.789012+02"),
    ("interval", 1186, -1, "1 year 2 mons 3 days 04:05:06.789"),
    ("bits", 1560, 16, "1010101010101010"),
    ("point", 600, -1, "(1.25,-2.5)"),
    ("array", 1007, -1, "{1,22,333,NULL,55555}"),
];

/// Families that the catalog's facts make what they are.
const MADE_FAMILIES: [(&str, &str); 3] = [
    ("enum", "happy"),
    ("hstore", r#""a"=>"1", "key"=>"a \"value\"", "b"=>NULL"#),
    ("text array", r#"{a,"b c","q\"q",NULL}"#),
];

/// Ten columns of one family: what the types cost beside each other.
#[divan::bench(args = FAMILIES.map(|(name, ..)| name))]
fn family(bencher: Bencher<'_, '_>, name: &str) {
    let (_, type_oid, modifier, text) = FAMILIES.into_iter().find(|(family, ..)| *family == name).unwrap();
    let facts = ColumnFacts { base_type_modifier: modifier, ..ColumnFacts::new("", Oid::from(type_oid), "") };
    bench_column(bencher, &facts, modifier, text);
}

#[divan::bench(args = MADE_FAMILIES.map(|(name, _)| name))]
fn made_family(bencher: Bencher<'_, '_>, name: &str) {
    let (_, text) = MADE_FAMILIES.into_iter().find(|(family, _)| *family == name).unwrap();
    let facts = match name {
        "enum" => ColumnFacts {
            base_type_kind: TypeKind::Enum,
            labels: ["sad", "ok", "happy"].map(str::to_owned).into(),
            ..ColumnFacts::new("", Oid::from(99_999), "mood")
        },
        "text array" => ColumnFacts::new("", Oid::from(1009), "_text"),
        _ => ColumnFacts::new("", Oid::from(99_999), name),
    };
    bench_column(bencher, &facts, -1, text);
}

fn bench_column(bencher: Bencher<'_, '_>, facts: &ColumnFacts, type_modifier: i32, text: &str) {
    let names = (0..10).map(|index| format!("c{index}"));
    let column = |name: String| RelationColumn { is_key: false, name, type_oid: facts.type_oid, type_modifier };
    let columns = names.clone().map(column).collect();
    let relation = Relation { columns, ..relation(ReplicaIdentity::Nothing) };
    let facts = names.map(|name| ColumnFacts { name, not_null: true, ..facts.clone() }).collect();
    let facts = TableFacts { columns: facts, primary_key: None };
    let plan = TablePlan::compile(&relation, &facts, &Naming::new("shop", "shop"), &EncodeOptions::default()).unwrap();
    let new = Tuple::from_values([Value::Text(text.as_bytes()); 10]).unwrap();
    let insert = Insert { xid: None, relation: Oid::from(1), new };
    bench(bencher, &plan.bind(None, Some(2)).unwrap(), Change::Insert(&insert));
}
