//! What records say in their headers.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::table::{self, column};
use encoder::{BoundPlan, Change, EncodeOptions, Metadata, RecordBatch};
use pgoutput::{OldTuple, ReplicaIdentity};

const INT4: u32 = 23;

fn plan(headers: &[Metadata]) -> BoundPlan {
    let options = EncodeOptions { headers: headers.to_vec(), ..EncodeOptions::default() };
    table::bind(table::compile_with(ReplicaIdentity::Default, &[column("id", INT4, -1).key()], &options))
}

/// The headers of each record.
fn headers(batch: &RecordBatch) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let all = |record: encoder::Record<'_>| {
        record.headers().map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>().join(" ")
    };
    batch.iter().map(all).collect()
}

#[test]
fn each_says_what_the_event_says() {
    use Metadata::{CommitLsn, CommitMillis, Database, Lsn, Operation, Schema, Table, TotalOrder, TransactionId};
    let all = [Operation, Database, Schema, Table, Lsn, CommitLsn, TransactionId, CommitMillis, TotalOrder, Operation];
    let batch = table::encode(&plan(&all), Change::Insert(&table::insert(&["1"]))).unwrap();
    let (lsn, commit_lsn) = (table::LSN, table::LSN + 8);
    let expected = format!(
        "__op=c __db=shopdb __schema=public __table=t __lsn={lsn} __commit_lsn={commit_lsn} __txId=750 \
         __source_ts_ms=1700000000123 __transaction_total_order=1"
    );
    assert_eq!(headers(&batch), [expected], "each once");
    // The value is what it is without.
    let bare = table::encode(&plan(&[]), Change::Insert(&table::insert(&["1"]))).unwrap();
    assert_eq!(bare.iter().next().unwrap().value, batch.iter().next().unwrap().value);
    assert_eq!(headers(&bare), [""]);
    let truncation = table::encode(&plan(&[Operation]), Change::Truncate).unwrap();
    assert_eq!(headers(&truncation), ["__op=t"]);
}

#[test]
fn a_change_of_the_key_has_its_own_besides() {
    let plan = plan(&[Metadata::Operation, Metadata::TotalOrder]);
    let update = table::update(OldTuple::Key(table::row(&["1"])), &["2"]);
    assert_eq!(
        headers(&table::encode(&plan, Change::Update(&update)).unwrap()),
        [
            "__debezium.newkey={\"id\":2} __op=d __transaction_total_order=1",
            "__debezium.newkey={\"id\":2} __op=d __transaction_total_order=1",
            "__debezium.oldkey={\"id\":1} __op=c __transaction_total_order=2",
        ]
    );
}
