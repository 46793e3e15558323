//! The same SQL through PostgreSQL and Debezium, and through PostgreSQL and this crate, gives the same records.
//!
//! `debezium/README.md` says where the recordings come from. What is compared: topics, their records in order, keys, headers, schemas byte
//! for byte with the order of their keys, values, and the order in the transaction. What is not: versions, clocks, and positions, which
//! differ from run to run.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use encoder::{
    BoundPlan, Change, ColumnFacts, ElementFacts, EncodeErrorKind, EncodeOptions, EventContext, EventOrder, Naming,
    RecordBatch, TableFacts, TablePlan, TransactionContext, TypeKind,
};
use pgoutput::{Decoder, Insert, Lsn, Message, Oid, ProtocolVersion, Tuple, Value as WireValue};
use serde_json::Value;

/// In what a column may differ from what Debezium wrote, and why.
struct Permitted {
    /// A part of the topic's name, which is the table.
    table: &'static str,
    column: &'static str,
    what: Difference,
    because: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Difference {
    /// Debezium has no such field.
    Field,
    /// The field has another type, and so another value.
    Type,
    /// The field is the same, and Debezium's value is this.
    Value(&'static str),
}

const fn left_out(column: &'static str) -> Permitted {
    let because = "Debezium leaves the column out, since it does not know the type; here it is PostgreSQL's text";
    Permitted { table: "scalars", column, what: Difference::Field, because }
}

/// All that is not the same, besides what differs from run to run. A difference that does not occur fails the test.
const PERMITTED: [Permitted; 13] = [
    left_out("ln"),
    left_out("ls"),
    left_out("bx"),
    left_out("pth"),
    left_out("pol"),
    left_out("cir"),
    left_out("mr"),
    left_out("lsn"),
    left_out("tsq"),
    left_out("addr"),
    Permitted {
        table: "scalars",
        column: "nm",
        what: Difference::Value("null"),
        because: "while streaming, Debezium loses values of type name",
    },
    Permitted {
        table: "scalars",
        column: "ts",
        what: Difference::Value("-9223372036853775810"),
        because: "294276-12-31 does not fit; Debezium wrote a number that had wrapped around, and here it is an error",
    },
    Permitted {
        table: "arrays",
        column: "a2",
        what: Difference::Type,
        because: "Debezium writes nulls for the elements of an array of two dimensions; here the column is PostgreSQL's text",
    },
];

/// One record, decoded, with its schemas.
#[derive(Debug, Clone)]
struct Record {
    key_schema: Option<String>,
    key: Value,
    value_schema: Option<String>,
    value: Value,
    headers: Vec<(String, String)>,
}

type Topics = BTreeMap<String, Vec<Record>>;

#[test]
fn every_record_is_what_debezium_wrote() {
    let (expected, found) = (debezium(), pgsluice());
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let mut occurred = [false; PERMITTED.len()];
    for (topic, expected) in &expected {
        let found = &found[topic];
        assert_eq!(found.len(), expected.len(), "records in {topic}");
        for (position, (expected, found)) in expected.iter().zip(found).enumerate() {
            let place = format!("{topic}, record {position}");
            assert_eq!(found.key_schema, expected.key_schema, "{place}");
            assert_eq!(found.key, expected.key, "{place}");
            assert_eq!(found.headers, expected.headers, "{place}");
            let (mut expected, mut found) = (Comparable::of(expected), Comparable::of(found));
            for (permitted, occurred) in PERMITTED.iter().zip(&mut occurred) {
                if topic.ends_with(&format!(".{}", permitted.table)) {
                    *occurred |= permitted.apply(&mut expected, &mut found, &place);
                }
            }
            assert_eq!(found.schema.map(|schema| schema.to_string()), expected.schema.map(|schema| schema.to_string()));
            assert_eq!(found.value, expected.value, "{place}");
        }
    }
    for (permitted, occurred) in PERMITTED.iter().zip(occurred) {
        assert!(occurred, "{}.{} does not differ any more: {}", permitted.table, permitted.column, permitted.because);
    }
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

/// A record's value and its schema, without what differs from run to run.
struct Comparable {
    schema: Option<Value>,
    value: Value,
}

impl Comparable {
    fn of(record: &Record) -> Self {
        let schema = record.value_schema.as_ref().map(|schema| serde_json::from_str(schema).unwrap());
        Self { schema, value: comparable_value(record) }
    }

    /// Takes a field out of the row's schema.
    fn take_field(&mut self, column: &str) -> Option<Value> {
        let fields = self.schema.as_mut()?["fields"][0]["type"][1]["fields"].as_array_mut().unwrap();
        let position = fields.iter().position(|field| field["name"] == column)?;
        Some(fields.remove(position))
    }

    /// Takes a column out of both rows.
    fn drop_values(&mut self, column: &str) {
        for part in ["before", "after"] {
            if let Some(Value::Object(row)) = self.value.get_mut(part) {
                row.shift_remove(column);
            }
        }
    }
}

impl Permitted {
    /// Takes what may differ out of both, and returns whether it did differ.
    fn apply(&self, expected: &mut Comparable, found: &mut Comparable, place: &str) -> bool {
        match self.what {
            Difference::Field | Difference::Type => {
                let (expected_field, found_field) = (expected.take_field(self.column), found.take_field(self.column));
                assert_ne!(found_field.is_none(), found.schema.is_some(), "{place}: {}", self.column);
                let missing = expected_field.is_none() && expected.schema.is_some();
                assert_eq!(missing, self.what == Difference::Field && found.schema.is_some(), "{place}");
                expected.drop_values(self.column);
                found.drop_values(self.column);
                found_field != expected_field
            }
            Difference::Value(debeziums) => {
                let debeziums: Value = serde_json::from_str(debeziums).unwrap();
                let mut differed = false;
                for part in ["before", "after"] {
                    let value = |value: &Value| value.pointer(&format!("/{part}/{}", self.column)).cloned();
                    let (expected_value, found_value) = (value(&expected.value), value(&found.value));
                    if expected_value.as_ref() == Some(&debeziums) && found_value != expected_value {
                        differed = true;
                        expected.value[part][self.column] = found_value.unwrap();
                    }
                }
                differed
            }
        }
    }
}

/// What Debezium wrote, by topic.
fn debezium() -> Topics {
    let schemas: BTreeMap<u64, String> = lines(include_str!("debezium/schemas.jsonl"))
        .map(|line| (line["id"].as_u64().unwrap(), line["schema"].to_string()))
        .collect();
    let schema = |part: &Value| part["schema_id"].as_u64().map(|id| schemas[&id].clone());
    let mut topics = Topics::new();
    for line in lines(include_str!("debezium/records.jsonl")) {
        let headers = line["headers"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        topics.entry(text(&line["topic"])).or_default().push(Record {
            key_schema: schema(&line["key"]),
            key: line["key"]["data"].clone(),
            value_schema: schema(&line["value"]),
            value: line["value"]["data"].clone(),
            headers: headers.iter().map(|header| (text(&header[0]), text(&header[1]))).collect(),
        });
    }
    topics
}

/// What this crate makes of what PostgreSQL sent, by topic.
fn pgsluice() -> Topics {
    let facts = facts();
    let naming = Naming::new("corpus_dev", "corpus_dev");
    let mut decoder = Decoder::new(ProtocolVersion::V1);
    let mut plans: BTreeMap<Oid, BoundPlan> = BTreeMap::new();
    let mut orders: BTreeMap<Oid, EventOrder> = BTreeMap::new();
    let mut transaction = None;
    let mut topics = Topics::new();
    for line in lines(include_str!("debezium/wire.jsonl")) {
        let lsn: Lsn = line["lsn"].as_str().unwrap().parse().unwrap();
        let message = decoder.decode(unhex(line["message"].as_str().unwrap())).unwrap();
        let (oid, change) = match &message {
            Message::Begin(begin) => {
                transaction = Some(TransactionContext::new(begin));
                orders.clear();
                continue;
            }
            Message::Relation(relation) => {
                let table = format!("{}.{}", relation.schema, relation.name);
                let plan = TablePlan::compile(relation, &facts[&table], &naming, &EncodeOptions::default()).unwrap();
                let key_schema_id = plan.key_schema().map(|_| 7);
                plans.insert(relation.id, plan.bind(key_schema_id, 0x0102_0304).unwrap());
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
            Ok(()) => {}
            Err(error) => {
                // This is one of the differences: the row is compared without the value.
                assert_eq!((error.kind(), error.column()), (EncodeErrorKind::OutOfRange, Some("ts")));
                assert!(batch.is_empty());
                assert_eq!(*order, before);
                let Change::Insert(insert) = change else { panic!("an update has it") };
                let without = without_column(insert, position(plan, "ts"));
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

fn decoded(plan: &TablePlan, record: encoder::Record<'_>) -> Record {
    let decode = |schema, id, bytes: &[u8]| {
        let (found_id, value) = common::decode(schema, bytes);
        assert_eq!(found_id, id);
        common::to_json(schema, &value)
    };
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().to_owned();
    Record {
        key_schema: record.key.map(|_| plan.key_schema().unwrap().json().to_owned()),
        key: record.key.map_or(Value::Null, |key| decode(plan.key_schema().unwrap(), 7, key)),
        value_schema: record.value.map(|_| plan.value_schema().json().to_owned()),
        value: record.value.map_or(Value::Null, |value| decode(plan.value_schema(), 0x0102_0304, value)),
        headers: record.headers().map(|(name, value)| (name.to_owned(), text(value))).collect(),
    }
}

/// The value without what differs from run to run.
fn comparable_value(record: &Record) -> Value {
    let mut value = record.value.clone();
    let Value::Object(envelope) = &mut value else { return value };
    for name in ["ts_ms", "ts_us", "ts_ns"] {
        assert!(envelope.shift_remove(name).unwrap().is_number());
    }
    let source = envelope["source"].as_object_mut().unwrap();
    for name in ["version", "ts_ms", "ts_us", "ts_ns", "txId", "lsn", "sequence"] {
        assert!(source.shift_remove(name).is_some_and(|value| !value.is_null()), "{name}");
    }
    assert!(envelope["transaction"].as_object_mut().unwrap().shift_remove("id").unwrap().is_string());
    value
}

fn position(plan: &BoundPlan, column: &str) -> usize {
    let schema: Value = serde_json::from_str(plan.plan().value_schema().json()).unwrap();
    let fields = schema["fields"][0]["type"][1]["fields"].as_array().unwrap();
    fields.iter().position(|field| field["name"] == column).unwrap()
}

fn without_column(insert: &Insert, column: usize) -> Insert {
    let values = insert.new.iter().enumerate();
    let values = values.map(|(index, value)| if index == column { WireValue::Null } else { value });
    Insert { new: Tuple::from_values(values).unwrap(), ..insert.clone() }
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
    lines(include_str!("debezium/facts.jsonl")).map(table).collect()
}

fn lines(file: &'static str) -> impl Iterator<Item = Value> {
    file.lines().map(|line| serde_json::from_str(line).unwrap())
}

fn unhex(hex: &str) -> Bytes {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
