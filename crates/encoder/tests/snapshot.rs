//! Rows that were there before the stream.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::table::{self, column};
use encoder::{
    BoundPlan, Change, EncodeErrorKind, EncodeOptions, Encoded, Envelope, Format, Metadata, Operation, RecordBatch,
    SnapshotContext, SnapshotKind, Unrepresentable,
};
use pgoutput::{Lsn, ReplicaIdentity, Timestamp, Xid};
use serde_json::{Value, json};

const NUMERIC_12_2: i32 = (12 << 16 | 2) + 4;

fn plan(options: &EncodeOptions) -> BoundPlan {
    let columns = [column("id", 20, -1).key(), column("v", 1700, NUMERIC_12_2)];
    table::bind(table::compile_with(ReplicaIdentity::Default, &columns, options))
}

fn read(plan: &BoundPlan, row: &[&str], snapshot: &SnapshotContext) -> (Encoded, RecordBatch) {
    let mut batch = RecordBatch::new();
    let encoded = plan.encode_read(&table::row(row), snapshot, table::PROCESSED_UNIX_NS, &mut batch).unwrap();
    (encoded, batch)
}

#[test]
fn an_event_says_which_snapshot_it_is_of() {
    let taken_at = Timestamp::from_unix_micros(1_700_000_000_123_456);
    for (kind, xid, text) in
        [(SnapshotKind::Initial, Some(Xid::from(u32::MAX)), "true"), (SnapshotKind::Incremental, None, "incremental")]
    {
        let snapshot = SnapshotContext::new(kind, Lsn::from(table::LSN), xid, taken_at);
        assert_eq!(snapshot.lsn(), Lsn::from(table::LSN));
        let expected = json!({
            "before": null,
            "after": { "id": 1, "v": null },
            "source": {
                "version": "1.2.3", "connector": "postgresql", "name": "shop", "ts_ms": 1_700_000_000_123_i64, "snapshot": text,
                "db": "shopdb", "sequence": format!("[null,\"{}\"]", table::LSN), "ts_us": 1_700_000_000_123_456_i64,
                "ts_ns": 1_700_000_000_123_456_000_i64, "schema": "public", "table": "t", "txId": xid.map(u32::from),
                "lsn": table::LSN, "xmin": null, "origin": null, "origin_lsn": null,
            },
            "transaction": null,
            "op": "r",
            "ts_ms": 1_700_000_001_987_i64, "ts_us": 1_700_000_001_987_654_i64, "ts_ns": 1_700_000_001_987_654_321_i64,
        });
        let avro = plan(&EncodeOptions::default());
        let (_, batch) = read(&avro, &["1", r"\N"], &snapshot);
        let record = batch.iter().next().unwrap();
        let schema = avro.plan().value_schema().unwrap();
        let value = common::to_json(schema, &common::decode(schema, record.value.unwrap()).1);
        assert_eq!(value.to_string(), expected.to_string());
        assert_eq!((record.lsn, batch.len()), (Lsn::from(table::LSN), 1));

        let json = plan(&EncodeOptions { format: Format::Json, ..EncodeOptions::default() });
        let (_, batch) = read(&json, &["1", r"\N"], &snapshot);
        assert_eq!(std::str::from_utf8(batch.iter().next().unwrap().value.unwrap()).unwrap(), expected.to_string());
    }
}

/// The two forms of the envelope have one list of headers.
#[test]
fn headers_say_what_there_is_to_say() {
    use Metadata::{
        CommitLsn, CommitMicros, CommitMillis, Database, Lsn, Operation, Schema, Table, TotalOrder, Transaction,
        TransactionId,
    };
    let headers = vec![
        Operation,
        Database,
        Schema,
        Table,
        Lsn,
        CommitLsn,
        TransactionId,
        Transaction,
        CommitMillis,
        CommitMicros,
        TotalOrder,
    ];
    for options in [EncodeOptions::default(), EncodeOptions::upsert()] {
        let plan = plan(&EncodeOptions { headers: headers.clone(), ..options });
        let (_, batch) = read(&plan, &["1", "2.50"], &table::snapshot());
        let record = batch.iter().next().unwrap();
        let found: Vec<_> =
            record.headers().map(|(name, value)| format!("{name}={}", std::str::from_utf8(value).unwrap())).collect();
        let expected = format!(
            "__op=r __db=shopdb __schema=public __table=t __lsn={} __source_ts_ms=1700000000123 __source_ts_us=1700000000123456",
            table::LSN
        );
        assert_eq!(found.join(" "), expected);
    }
}

#[test]
fn rows_that_are_skipped_have_no_record() {
    let skipping =
        plan(&EncodeOptions { skipped: [Operation::Read].into_iter().collect(), ..EncodeOptions::default() });
    let (encoded, batch) = read(&skipping, &["1", r"\N"], &table::snapshot());
    assert!(matches!(encoded, Encoded::Skipped) && batch.is_empty() && batch.bytes() == 0);
    let inserted = table::encode(&skipping, Change::Insert(&table::insert(&["1", r"\N"]))).unwrap();
    assert_eq!(inserted.len(), 1, "an insert is another operation");
}

#[test]
fn a_topic_is_emptied_by_a_record_without_a_key_where_there_is_one() {
    let emptied = |options: &EncodeOptions| {
        let (plan, mut batch) = (plan(options), RecordBatch::new());
        let outcome = plan.encode_emptied(&table::snapshot(), table::PROCESSED_UNIX_NS, &mut batch);
        assert_eq!(plan.plan().can_empty(), outcome.is_ok() && batch.len() == 1, "it is known before");
        (outcome, batch)
    };
    let (_, batch) = emptied(&EncodeOptions { format: Format::Json, ..EncodeOptions::default() });
    let record = batch.iter().next().unwrap();
    assert!(record.key.is_none());
    let value: Value = serde_json::from_slice(record.value.unwrap()).unwrap();
    let told = ["op", "before", "after", "transaction"].map(|name| value[name].clone());
    assert_eq!(told, [json!("t"), Value::Null, Value::Null, Value::Null]);
    assert_eq!(value["source"]["snapshot"], "incremental");
    let skipping = EncodeOptions { skipped: [Operation::Truncate].into_iter().collect(), ..EncodeOptions::default() };
    assert!(emptied(&skipping).1.is_empty());
    let (outcome, batch) = emptied(&EncodeOptions { envelope: Envelope::Upsert, ..EncodeOptions::default() });
    assert!(outcome.is_err() && batch.is_empty());
}

#[test]
fn a_row_without_room_stops_or_is_a_dead_letter() {
    let stopping = plan(&EncodeOptions::default());
    let mut batch = RecordBatch::new();
    let row = table::row(&["1", "NaN"]);
    let error = stopping.encode_read(&row, &table::snapshot(), 1, &mut batch).unwrap_err();
    assert_eq!((error.kind(), error.lsn()), (EncodeErrorKind::NotANumber, Lsn::from(table::LSN)));
    assert!(batch.is_empty() && batch.bytes() == 0);

    let unrepresentable = Unrepresentable::DeadLetter;
    let burying = plan(&EncodeOptions { unrepresentable, ..EncodeOptions::default() });
    let (encoded, batch) = read(&burying, &["1", "NaN"], &table::snapshot());
    assert!(matches!(encoded, Encoded::DeadLetter(error) if error.column() == Some("v")));
    let letter = batch.iter().next().unwrap();
    assert_eq!(Some(letter.topic), burying.plan().dead_letter_topic());
    let letter: Value = serde_json::from_slice(letter.value.unwrap()).unwrap();
    let expected = json!({
        "op": "r", "code": "not_a_number", "xid": null, "commit_lsn": null, "commit_ts_us": 1_700_000_000_123_456_i64,
        "lsn": Lsn::from(table::LSN).to_string(), "ordinal": null, "old": null, "new": ["1", "NaN"],
    });
    for (name, expected) in expected.as_object().unwrap() {
        assert_eq!(letter[name], *expected, "{name}");
    }
    // A row that is not what its relation says cannot be trusted at all.
    let short = table::row(&["1"]);
    let error = burying.encode_read(&short, &table::snapshot(), 1, &mut RecordBatch::new()).unwrap_err();
    assert_eq!(error.kind(), EncodeErrorKind::ColumnCount);
}
