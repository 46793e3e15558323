//! Events that are not written: the others are as they would be without.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::table::{self, column};
use encoder::{BoundPlan, Change, EncodeOptions, Encoded, EventOrder, Operation, Operations, RecordBatch};
use pgoutput::{Lsn, OldTuple, ReplicaIdentity};
use proptest::prelude::*;

const INT4: u32 = 23;
const ALL: [Operation; 4] = [Operation::Create, Operation::Update, Operation::Delete, Operation::Truncate];

/// What happens to a row with a key of one digit.
#[derive(Debug, Clone, Copy)]
enum Step {
    Insert(u8),
    Update(u8),
    Move(u8, u8),
    Delete(u8),
    Truncate,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0_u8..4;
    prop_oneof![
        key.clone().prop_map(Step::Insert),
        key.clone().prop_map(Step::Update),
        (key.clone(), key.clone()).prop_map(|(old, new)| Step::Move(old, new)),
        key.prop_map(Step::Delete),
        Just(Step::Truncate),
    ]
}

fn plan(skipped: Operations, tombstones: bool) -> BoundPlan {
    let columns = [column("id", INT4, -1).key(), column("v", INT4, -1)];
    let options = EncodeOptions { skipped, tombstones, ..EncodeOptions::default() };
    table::bind(table::compile_with(ReplicaIdentity::Default, &columns, &options))
}

fn append(plan: &BoundPlan, step: Step, order: &mut EventOrder, batch: &mut RecordBatch) {
    let text = |key: u8| key.to_string();
    let old = |key: u8| OldTuple::Key(table::row(&[&text(key), r"\N"]));
    let mut encode = |change: Change<'_>| {
        let (before, records) = (order.total, batch.len());
        let encoded = table::append(plan, change, order, batch).unwrap();
        assert_eq!(matches!(encoded, Encoded::Skipped), batch.len() == records, "{step:?}");
        assert_eq!(plan.count_events(change, Lsn::from(1)).unwrap(), order.total - before, "{step:?}");
    };
    match step {
        Step::Insert(key) => encode(Change::Insert(&table::insert(&[&text(key), "1"]))),
        Step::Update(key) => encode(Change::Update(&table::update(OldTuple::Absent, &[&text(key), "2"]))),
        Step::Move(from, to) => encode(Change::Update(&table::update(old(from), &[&text(to), "3"]))),
        Step::Delete(key) => encode(Change::Delete(&table::delete(old(key)))),
        Step::Truncate => encode(Change::Truncate),
    }
}

/// Everything that a consumer sees of a record, and the `op` of the event that it belongs to.
fn seen(plan: &BoundPlan, batch: &RecordBatch) -> Vec<(String, String)> {
    let mut last = String::new();
    let mut seen = Vec::new();
    for record in batch.iter() {
        let value = record.value.map(|value| {
            let schema = plan.plan().value_schema().unwrap();
            common::to_json(schema, &common::decode(schema, value).1)
        });
        // A tombstone follows its deletion.
        if let Some(value) = &value {
            value["op"].as_str().unwrap().clone_into(&mut last);
        }
        let headers: Vec<_> = record.headers().collect();
        seen.push((last.clone(), format!("{:?} {value:?} {headers:?}", record.key)));
    }
    seen
}

proptest! {
    #[test]
    fn the_others_are_as_they_would_be(
        steps in proptest::collection::vec(step(), 0..20),
        skipped in proptest::sample::subsequence(ALL.to_vec(), 0..=4),
        tombstones in any::<bool>(),
    ) {
        let (whole, part) = (plan(Operations::default(), tombstones), plan(skipped.iter().copied().collect(), tombstones));
        let (mut whole_order, mut part_order) = (EventOrder::default(), EventOrder::default());
        let (mut whole_batch, mut part_batch) = (RecordBatch::new(), RecordBatch::new());
        for step in steps {
            append(&whole, step, &mut whole_order, &mut whole_batch);
            append(&part, step, &mut part_order, &mut part_batch);
            prop_assert_eq!(whole_order, part_order, "an ordinal depends on the log alone");
        }
        let mut expected = seen(&whole, &whole_batch);
        expected.retain(|(op, _)| !skipped.iter().any(|operation| operation.letter() == op));
        prop_assert_eq!(seen(&part, &part_batch), expected);
        if part_batch.is_empty() {
            prop_assert_eq!(part_batch.bytes(), 0, "nothing is left of what is not written");
        }
    }
}
