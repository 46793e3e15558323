//! What a row costs from the wire's text to an event's Avro bytes, beside apache-avro's own encoder for the same bytes.
//!
//! `cargo bench -p encoder`

#![allow(missing_docs, clippy::unwrap_used)]

use apache_avro::{reader::datum::GenericDatumReader, types::Value as Avro, writer::datum::GenericDatumWriter};
use divan::{Bencher, counter::ItemsCount};
use encoder::{
    BoundPlan, Change, ColumnFacts, EncodeOptions, EventContext, EventOrder, Naming, RecordBatch, TableFacts,
    TablePlan, TransactionContext,
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
    plan.bind(Some(1), 2).unwrap()
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
    let schema = apache_avro::Schema::parse_str(plan.plan().value_schema().json()).unwrap();
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
