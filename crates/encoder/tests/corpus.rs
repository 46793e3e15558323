//! The same SQL through PostgreSQL and Debezium, and through PostgreSQL and this crate, gives the same records.
//!
//! `debezium/README.md` says where the recordings come from. What is compared: topics, their records in order, keys, headers, schemas byte
//! for byte with the order of their keys, values, and the order in the transaction. What is not: versions, clocks, and positions, which
//! differ from run to run.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;
#[path = "debezium/recording.rs"]
mod recording;

use std::collections::BTreeMap;

use bytes::Bytes;
use encoder::{
    BoundPlan, Change, ColumnFacts, ElementFacts, EncodeErrorKind, EncodeOptions, EventContext, EventOrder, Naming,
    RecordBatch, SnapshotContext, SnapshotKind, TableFacts, TablePlan, TransactionContext, TypeKind,
};
use pgoutput::{
    CopyRows, Decoder, Insert, Lsn, Message, Oid, ProtocolVersion, Relation, Timestamp, Tuple, Value as WireValue, Xid,
};
use recording::{COLUMNS, Difference, Permitted, RUNS, Record, SNAPSHOT_ROWS, Topics};
use serde_json::Value;

#[test]
fn every_record_is_what_debezium_wrote() {
    let expected = recording::debezium(include_str!("debezium/records.jsonl"));
    recording::compare(expected, pgsluice(), &[&RUNS[..], &COLUMNS].concat());
}

/// What else differs in what Debezium found in the tables.
const FIRST_AND_LAST: Permitted = Permitted {
    topic: "",
    what: Difference::Run("/source/snapshot"),
    because: "Debezium tells the first and the last row of all and of each table",
};

#[test]
fn every_row_that_was_there_is_what_debezium_wrote() {
    let expected = recording::debezium(include_str!("debezium/snapshot.jsonl"));
    let never = [Difference::Run("/transaction/id"), Difference::Value("nm", "null")];
    let mut permitted = [&RUNS[..], &COLUMNS, &SNAPSHOT_ROWS, &[FIRST_AND_LAST]].concat();
    permitted.retain(|difference| !never.contains(&difference.what));
    recording::compare(expected, copied(), &permitted);
}

#[test]
fn what_debezium_loses_is_there() {
    let topics = pgsluice();
    let row = &topics["corpus_dev.public.scalars"][0].value["after"];
    assert_eq!(row["nm"], "nam");
    assert_eq!(row["ln"], "{1,2,3}");
    assert_eq!(row["mr"], "{[1,3),[5,7)}");
    assert_eq!(row["lsn"], "16/B374D848");
    assert_eq!(row["tsq"], "'fat' & 'cat'");
    assert_eq!(row["addr"], "(\"Main, St\",12345)");
    assert_eq!(row["pol"], "((0,0),(1,1),(2,0))");
    assert_eq!(topics["corpus_dev.public.arrays"][0].value["after"]["a2"], "{{1,2},{3,4}}");
}

/// What this crate makes of what PostgreSQL sent, by topic.
fn pgsluice() -> Topics {
    let facts = facts();
    let mut decoder = Decoder::new(ProtocolVersion::V1);
    let mut plans: BTreeMap<Oid, BoundPlan> = BTreeMap::new();
    let mut orders: BTreeMap<Oid, EventOrder> = BTreeMap::new();
    let mut transaction = None;
    let mut topics = Topics::new();
    for line in recording::lines(include_str!("debezium/wire.jsonl")) {
        let lsn: Lsn = line["lsn"].as_str().unwrap().parse().unwrap();
        let message = decoder.decode(unhex(line["message"].as_str().unwrap())).unwrap();
        let (oid, change) = match &message {
            Message::Begin(begin) => {
                transaction = Some(TransactionContext::new(begin));
                orders.clear();
                continue;
            }
            Message::Relation(relation) => {
                plans.insert(relation.id, plan(relation, &facts));
                continue;
            }
            Message::Insert(insert) => (insert.relation, Change::Insert(insert)),
            Message::Update(update) => (update.relation, Change::Update(update)),
            Message::Delete(delete) => (delete.relation, Change::Delete(delete)),
            // Debezium leaves truncations out by default.
            _ => continue,
        };
        let context = EventContext { transaction: transaction.as_ref().unwrap(), lsn, processed_unix_ns: 1 };
        let total = orders.values().map(|order| order.total).max().unwrap_or(0);
        let order = orders.entry(oid).or_default();
        order.total = total;
        let plan = &plans[&oid];
        let expected_events = plan.count_events(change, lsn).unwrap();
        let mut batch = RecordBatch::new();
        let before = *order;
        match plan.encode(change, &context, order, &mut batch) {
            Ok(_) => {}
            Err(error) => {
                // This is one of the differences: the row is compared without the value.
                assert_eq!((error.kind(), error.column()), (EncodeErrorKind::OutOfRange, Some("ts")));
                assert!(batch.is_empty());
                assert_eq!(*order, before);
                let Change::Insert(insert) = change else { panic!("an update has it") };
                let without = Insert { new: without_column(&insert.new, position(plan, "ts")), ..insert.clone() };
                plan.encode(Change::Insert(&without), &context, order, &mut batch).unwrap();
            }
        }
        assert_eq!(order.total - before.total, expected_events);
        for record in batch.iter() {
            topics.entry(record.topic.to_string()).or_default().push(decoded(plan.plan(), record));
        }
    }
    topics
}

/// What this crate makes of the rows that PostgreSQL copies, by topic.
fn copied() -> Topics {
    let facts = facts();
    let mut decoder = Decoder::new(ProtocolVersion::V1);
    let mut plans: BTreeMap<String, (BoundPlan, CopyRows)> = BTreeMap::new();
    for line in recording::lines(include_str!("debezium/wire.jsonl")) {
        if let Message::Relation(relation) = decoder.decode(unhex(line["message"].as_str().unwrap())).unwrap() {
            let columns = u16::try_from(relation.columns.len()).unwrap();
            let table = format!("{}.{}", relation.schema, relation.name);
            plans.entry(table).or_insert_with(|| (plan(&relation, &facts), CopyRows::new(columns)));
        }
    }
    let (lsn, taken_at) = (Lsn::from(1), Timestamp::from(1));
    let snapshot = SnapshotContext::new(SnapshotKind::Initial, lsn, Some(Xid::from(3)), taken_at);
    let mut topics = Topics::new();
    for line in recording::lines(include_str!("debezium/copy.jsonl")) {
        let (plan, rows) = plans.get_mut(line["table"].as_str().unwrap()).unwrap();
        let row = rows.decode(format!("{}\n", line["line"].as_str().unwrap()).as_bytes()).unwrap();
        let mut batch = RecordBatch::new();
        if let Err(error) = plan.encode_read(&row, &snapshot, 1, &mut batch) {
            // As in the stream.
            assert_eq!((error.kind(), error.column()), (EncodeErrorKind::OutOfRange, Some("ts")));
            let row = without_column(&row, position(plan, "ts"));
            plan.encode_read(&row, &snapshot, 1, &mut batch).unwrap();
        }
        for record in batch.iter() {
            topics.entry(record.topic.to_string()).or_default().push(decoded(plan.plan(), record));
        }
    }
    topics
}

fn plan(relation: &Relation, facts: &BTreeMap<String, TableFacts>) -> BoundPlan {
    let table = format!("{}.{}", relation.schema, relation.name);
    let naming = Naming::new("corpus_dev", "corpus_dev");
    let plan = TablePlan::compile(relation, &facts[&table], &naming, &EncodeOptions::default()).unwrap();
    let key_schema_id = plan.key_schema().map(|_| 7);
    plan.bind(key_schema_id, Some(0x0102_0304)).unwrap()
}

fn decoded(plan: &TablePlan, record: encoder::Record<'_>) -> Record {
    let decode = |schema, id, bytes: &[u8]| {
        let (found_id, value) = common::decode(schema, bytes);
        assert_eq!(found_id, id);
        common::to_json(schema, &value)
    };
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().to_owned();
    Record {
        key_schema: record.key.map(|_| schema_json(plan.key_schema().unwrap())),
        key: record.key.map_or(Value::Null, |key| decode(plan.key_schema().unwrap(), 7, key)),
        value_schema: record.value.map(|_| schema_json(plan.value_schema().unwrap())),
        value: record.value.map_or(Value::Null, |value| decode(plan.value_schema().unwrap(), 0x0102_0304, value)),
        headers: record.headers().map(|(name, value)| (name.to_owned(), text(value))).collect(),
    }
}

/// As Debezium's are read, so that the order of what is in it counts, and blanks do not.
fn schema_json(schema: &encoder::Schema) -> Value {
    serde_json::from_str(schema.json()).unwrap()
}

fn position(plan: &BoundPlan, column: &str) -> usize {
    let schema: Value = serde_json::from_str(plan.plan().value_schema().unwrap().json()).unwrap();
    let fields = schema["fields"][0]["type"][1]["fields"].as_array().unwrap();
    fields.iter().position(|field| field["name"] == column).unwrap()
}

fn without_column(row: &Tuple, column: usize) -> Tuple {
    let values = row.iter().enumerate();
    Tuple::from_values(values.map(|(index, value)| if index == column { WireValue::Null } else { value })).unwrap()
}

fn facts() -> BTreeMap<String, TableFacts> {
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    let oid = |value: &Value| Oid::from(u32::try_from(value.as_u64().unwrap()).unwrap());
    let kind = |value: &Value| TypeKind::from_catalog(value.as_str().unwrap().parse().unwrap()).unwrap();
    let number = |value: &Value| i32::try_from(value.as_i64().unwrap()).unwrap();
    let labels = |value: &Value| value.as_array().unwrap().iter().filter_map(text).collect();
    let element = |element: &Value| ElementFacts {
        type_oid: oid(&element["type_oid"]),
        type_name: text(&element["type_name"]).unwrap(),
        type_kind: kind(&element["type_kind"]),
        type_modifier: number(&element["type_modifier"]),
        labels: labels(&element["labels"]),
        delimiter: element["delimiter"].as_str().unwrap().as_bytes()[0],
    };
    let column = |column: &Value| ColumnFacts {
        name: text(&column["name"]).unwrap(),
        not_null: column["not_null"].as_bool().unwrap(),
        default: text(&column["default"]),
        type_oid: oid(&column["type_oid"]),
        type_name: text(&column["type_name"]).unwrap(),
        type_kind: kind(&column["type_kind"]),
        base_type_oid: oid(&column["base_type_oid"]),
        base_type_modifier: number(&column["base_type_modifier"]),
        base_type_kind: kind(&column["base_type_kind"]),
        labels: labels(&column["labels"]),
        element: Some(&column["element"]).filter(|facts| !facts.is_null()).map(element),
        dimensions: number(&column["dimensions"]),
    };
    let table = |line: Value| {
        let primary_key = line["primary_key"].as_array().map(|names| names.iter().filter_map(text).collect());
        let columns = line["columns"].as_array().unwrap().iter().map(column).collect();
        (text(&line["table"]).unwrap(), TableFacts { columns, primary_key })
    };
    recording::lines(include_str!("debezium/facts.jsonl")).map(table).collect()
}

fn unhex(hex: &str) -> Bytes {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
