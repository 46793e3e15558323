//! Changes that are held back: what is made of them later is what would have been written, byte for byte.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::table::{self, column};
use encoder::{
    BoundPlan, Change, ColumnFacts, ColumnRule, EncodeOptions, Encoded, Envelope, EventContext, EventOrder, Format,
    HeldBack, HeldChange, HeldError, Mask, Naming, Operation, RecordBatch, Salt, TableFacts, TablePlan,
    TransactionContext, TypeKind, Unrepresentable,
};
use pgoutput::{
    Begin, Delete, Insert, Lsn, Oid, OldTuple, Relation, ReplicaIdentity, Timestamp, Tuple, Update, Value, Xid,
};
use proptest::prelude::*;

const INT4: u32 = 23;
const TEXT: u32 = 25;
const BYTEA: u32 = 17;
const NUMERIC: u32 = 1700;

fn relation(identity: ReplicaIdentity) -> Relation {
    let columns = [
        column("id", INT4, -1).key(),
        column("t", TEXT, -1),
        column("n", NUMERIC, (10 << 16 | 2) + 4),
        column("secret", TEXT, -1),
    ];
    table::relation(identity, &columns)
}

fn facts(identity: ReplicaIdentity) -> TableFacts {
    let named = |name: &str, oid: u32, type_name: &str| ColumnFacts::new(name, Oid::from(oid), type_name);
    TableFacts {
        columns: vec![
            ColumnFacts { not_null: true, ..named("id", INT4, "int4") },
            ColumnFacts { default: Some("'abcdef'::text".to_owned()), ..named("t", TEXT, "text") },
            ColumnFacts { type_kind: TypeKind::Domain, base_type_modifier: -1, ..named("n", NUMERIC, "numeric") },
            ColumnFacts { default: Some("'hunter3'::text".to_owned()), ..named("secret", TEXT, "text") },
        ],
        primary_key: (identity == ReplicaIdentity::Full).then(|| vec!["id".to_owned()]),
    }
}

fn naming() -> Naming {
    Naming::new("shop", "app")
}

fn compile(relation: &Relation, facts: &TableFacts, options: &EncodeOptions) -> TablePlan {
    TablePlan::compile(relation, facts, &naming(), options).unwrap()
}

fn bind(plan: TablePlan) -> BoundPlan {
    let (key, value) = (plan.key_schema().map(|_| 7), plan.value_schema().map(|_| 8));
    plan.bind(key, value).unwrap()
}

fn held(relation: &Relation, facts: &TableFacts, options: &EncodeOptions) -> BoundPlan {
    let names = [("public".to_owned(), "item_1".to_owned()), ("public".to_owned(), "item \"1\"".to_owned())];
    let held = HeldBack { relation, facts, options, names: &names, is_certain: false };
    compile(relation, facts, options).hold_back(&held).unwrap()
}

fn transaction(has_origin: bool) -> TransactionContext {
    let begin = Begin { commit_lsn: Lsn::from(0x1_0000_0001), commit_time: Timestamp::from(5), xid: Xid::from(750) };
    let mut transaction = TransactionContext::new(&begin);
    if has_origin {
        transaction.set_origin("else\"where", Lsn::from(77));
    }
    transaction
}

/// A value as it comes: `\N` for null, `\u` for one that was not sent.
fn tuple(values: &[&[u8]; 4]) -> Tuple {
    Tuple::from_values(values.iter().map(|value| match *value {
        b"\\N" => Value::Null,
        b"\\u" => Value::UnchangedToast,
        text => Value::Text(text),
    }))
    .unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Insert([Vec<u8>; 4]),
    Update(Option<[Vec<u8>; 4]>, [Vec<u8>; 4]),
    Delete([Vec<u8>; 4]),
    Truncate,
}

fn row(values: &[Vec<u8>; 4]) -> Tuple {
    tuple(&[&values[0], &values[1], &values[2], &values[3]])
}

fn key_of(values: &[Vec<u8>; 4]) -> Tuple {
    tuple(&[&values[0], b"\\N", b"\\N", b"\\N"])
}

/// The change that a step is, where the old row is what the replica identity sends of it.
fn with_change<T>(step: &Step, identity: ReplicaIdentity, then: impl FnOnce(Change<'_>) -> T) -> T {
    let old = |values: &[Vec<u8>; 4]| match identity {
        ReplicaIdentity::Full => OldTuple::Full(row(values)),
        _ => OldTuple::Key(key_of(values)),
    };
    let relation = Oid::from(1);
    match step {
        Step::Insert(new) => then(Change::Insert(&Insert { xid: None, relation, new: row(new) })),
        Step::Update(before, new) => {
            let old = before.as_ref().map_or(OldTuple::Absent, old);
            then(Change::Update(&Update { xid: None, relation, old, new: row(new) }))
        }
        Step::Delete(before) => then(Change::Delete(&Delete { xid: None, relation, old: old(before) })),
        Step::Truncate => then(Change::Truncate),
    }
}

fn values(may_be_unsent: bool) -> impl Strategy<Value = [Vec<u8>; 4]> {
    let text = move || {
        let unsent = if may_be_unsent { "\\u" } else { "\\N" };
        prop_oneof![4 => "[a-c\"\\\\é\n\u{1}]{0,12}".prop_map(String::from), 1 => Just("\\N".to_owned()), 1 => Just(unsent.to_owned())]
    };
    let number = prop_oneof![Just("1.50".to_owned()), Just("-0.01".to_owned()), Just("\\N".to_owned())];
    ((0..3_u8).prop_map(|id| id.to_string()), text(), number, text())
        .prop_map(|(id, text, number, secret)| [id, text, number, secret].map(String::into_bytes))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        values(false).prop_map(Step::Insert),
        (proptest::option::of(values(false)), values(true)).prop_map(|(old, new)| Step::Update(old, new)),
        values(false).prop_map(Step::Delete),
        Just(Step::Truncate),
    ]
}

fn rule() -> impl Strategy<Value = Option<ColumnRule>> {
    prop_oneof![
        Just(None),
        Just(Some(ColumnRule::Exclude)),
        Just(Some(ColumnRule::Mask(Mask::Fixed("x\"".into())))),
        Just(Some(ColumnRule::Mask(Mask::Asterisks))),
        Just(Some(ColumnRule::Mask(Mask::Sha256(Salt::new(b"salt"))))),
        Just(Some(ColumnRule::Mask(Mask::Truncate { characters_max: 2 }))),
    ]
}

fn options() -> impl Strategy<Value = EncodeOptions> {
    (rule(), rule(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(text, secret, upsert, json, skips, tombstones)| {
            let mut options = EncodeOptions::default();
            if upsert {
                options = options.in_envelope(Envelope::Upsert);
                options.unrepresentable = Unrepresentable::DeadLetter;
            }
            options.format = if json { Format::Json } else { Format::Avro };
            options.tombstones = tombstones;
            if skips {
                options.skipped = [Operation::Update].into_iter().collect();
            }
            let rules = [("t", text), ("secret", secret)];
            options.columns =
                rules.into_iter().filter_map(|(name, rule)| Some((name.to_owned(), rule?))).collect::<BTreeMap<_, _>>();
            options
        },
    )
}

/// Everything of a batch.
fn contents(batch: &RecordBatch) -> Vec<String> {
    let record = |record: encoder::Record<'_>| {
        let headers: Vec<_> = record.headers().collect();
        format!("{} {:?} {:?} {} {headers:?}", record.topic, record.key, record.value, record.lsn)
    };
    batch.iter().map(record).collect()
}

proptest! {
    #[test]
    fn what_is_made_of_them_is_what_would_have_been_written(
        steps in proptest::collection::vec(step(), 0..12),
        options in options(),
        full in any::<bool>(),
        has_origin in any::<bool>(),
    ) {
        let identity = if full { ReplicaIdentity::Full } else { ReplicaIdentity::Default };
        let (relation, facts, transaction) = (relation(identity), facts(identity), transaction(has_origin));
        let (direct, holding) = (bind(compile(&relation, &facts, &options)), held(&relation, &facts, &options));
        let (mut direct_order, mut held_order) = (EventOrder { total: 4, collection: 2 }, EventOrder { total: 4, collection: 2 });
        let (mut expected, mut letters) = (RecordBatch::new(), RecordBatch::new());
        for (index, step) in steps.iter().enumerate() {
            let context = EventContext { transaction: &transaction, lsn: Lsn::from(900 + index as u64), processed_unix_ns: 9 };
            with_change(step, identity, |change| {
                let outcome = direct.encode(change, &context, &mut direct_order, &mut expected);
                let before = held_order.total;
                let count = holding.count_events(change, Lsn::from(1));
                let held = holding.encode(change, &context, &mut held_order, &mut letters);
                assert_eq!(outcome.is_ok(), held.is_ok(), "{outcome:?} {held:?}");
                if held.is_ok() {
                    assert_eq!(count.unwrap(), held_order.total - before, "{step:?}");
                }
            });
            prop_assert_eq!(direct_order, held_order, "each event has the identity that it would have had");
        }
        // What could not have been written is a letter of its own, now as then.
        let topic = holding.plan().dead_letter_topic().unwrap();
        let (mut released, mut buried) = (RecordBatch::new(), Vec::new());
        for letter in letters.iter() {
            prop_assert_eq!(letter.topic, topic);
            let value = letter.value.unwrap();
            match HeldChange::read(value).unwrap() {
                None => buried.push(String::from_utf8(value.to_vec()).unwrap()),
                Some(change) => {
                    let shape = change.shape();
                    prop_assert_eq!(&shape.relation, &relation);
                    let plan = bind(shape.compile(&shape.facts, &naming(), &options).unwrap());
                    let schema = |plan: &BoundPlan| plan.plan().value_schema().map(|schema| schema.json().to_owned());
                    prop_assert_eq!(schema(&plan), schema(&direct));
                    change.encode(&plan, 9, &mut released).unwrap();
                }
            }
        }
        let (mut expected_events, mut expected_letters) = (contents(&expected), Vec::new());
        for record in expected.iter().filter(|record| record.topic == topic) {
            expected_letters.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
        }
        expected_events.retain(|record| !record.starts_with(&**topic));
        prop_assert_eq!(contents(&released), expected_events);
        prop_assert_eq!(buried, expected_letters);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = HeldChange::read(&bytes);
    }
}

/// One letter, and the change in it.
fn letter(options: &EncodeOptions) -> (String, HeldChange) {
    let identity = ReplicaIdentity::Default;
    let (relation, facts, transaction) = (relation(identity), facts(identity), transaction(true));
    let (mut batch, mut order) = (RecordBatch::new(), EventOrder { total: 2, collection: 0 });
    let context = EventContext { transaction: &transaction, lsn: Lsn::from(0x1_0000_0000), processed_unix_ns: 0 };
    let values = |values: [&str; 4]| values.map(|value| value.as_bytes().to_vec());
    let step = Step::Update(Some(values(["1", "a", "1.50", "b"])), values(["2", "\\u", "1.50", "hunter2"]));
    let encoded = with_change(&step, identity, |change| {
        held(&relation, &facts, options).encode(change, &context, &mut order, &mut batch).unwrap()
    });
    assert!(matches!(encoded, Encoded::HeldBack));
    let value = batch.iter().next().unwrap().value.unwrap().to_vec();
    let change = HeldChange::read(&value).unwrap().unwrap();
    (String::from_utf8(value).unwrap(), change)
}

fn with_rule(rule: ColumnRule) -> EncodeOptions {
    EncodeOptions { columns: BTreeMap::from([("secret".to_owned(), rule)]), ..EncodeOptions::default() }
}

#[test]
fn the_letter_is_this_json() {
    // A change of this text is a change of the format: letters that wait must stay readable.
    let (text, change) = letter(&with_rule(ColumnRule::Mask(Mask::Asterisks)));
    assert_eq!(change.identity(), (Lsn::from(0x1_0000_0001), 3));
    let start = r#"{"version":1,"schema":"public","table":"t","op":"u","code":"registry_incompatible","error":"the registry refuses the schema of the table, which is in quarantine: pgsluice check says why","xid":750,"commit_lsn":"1/1","commit_ts_us":946684800000005,"lsn":"1/0","ordinal":3,"events":2,"table_ordinal":1,"origin":{"name":"else\"where","lsn":"0/4D"},"replica_identity":"default","columns":[{"name":"id","type_oid":23,"type_modifier":-1,"key":true},"#;
    assert_eq!(&text[..start.len()], start);
    let end = r#""names":[["public","item_1"],["public","item \"1\""]],"certain":false,"rules":["none","none","none","mask:1a069033b78915d5"],"facts":"#;
    assert!(text.contains(end), "{text}");
    let rows =
        r#""old":{"kind":"key","values":["1",null,null,null]},"new":["2",{"unchanged_toast":true},"1.50","*******"]}"#;
    assert!(text.ends_with(rows), "{text}");
}

/// Kafka takes records up to a size, and the stream would stop at a letter that is larger than its record could ever be.
#[test]
fn a_letter_is_not_much_larger_than_its_record() {
    let columns = [column("id", INT4, -1).key(), column("b", BYTEA, -1), column("t", TEXT, -1)];
    let relation = table::relation(ReplicaIdentity::Default, &columns);
    let (options, transaction) = (EncodeOptions::default(), transaction(false));
    let context = EventContext { transaction: &transaction, lsn: Lsn::from(9), processed_unix_ns: 9 };
    let (controls, escapes) = ("\u{1}".repeat(30_000), "\"\\\n".repeat(10_000));
    let (even, odd) = (format!("\\x{}", "0af1".repeat(15_000)), format!("\\x{}", "0af1f".repeat(10_001)));
    // With bytea_output = 'escape', or from whatever else is not what is written for bytes.
    let strange = ["\\001\\002", "", "\\x", "\\xAB", odd.as_str()];
    let of_text = [controls.as_str(), escapes.as_str(), "{}", "\\x00"].map(|text| ["1", "\\x00", text]);
    let of_bytes = [even.as_str()].into_iter().chain(strange).map(|bytes| ["1", bytes, "t"]);
    for values in of_text.into_iter().chain(of_bytes) {
        let new = Tuple::from_values(values.map(|value| Value::Text(value.as_bytes()))).unwrap();
        let insert = Insert { xid: None, relation: Oid::from(1), new };
        let (mut batch, mut order) = (RecordBatch::new(), EventOrder::default());
        let plan = held(&relation, &TableFacts::default(), &options);
        let encoded = plan.encode(Change::Insert(&insert), &context, &mut order, &mut batch);
        let Ok(Encoded::HeldBack) = encoded else {
            // It cannot be written, now or later.
            assert!(strange.contains(&values[1]), "{encoded:?}");
            continue;
        };
        let letter = batch.iter().next().unwrap().value.unwrap().to_vec();
        let is_hex = values[1] == even;
        let record_bytes = if is_hex { even.len() / 2 } else { values[1].len() + values[2].len() };
        assert!(letter.len() < 2000 + record_bytes * 4 / 3, "{} bytes of {record_bytes}", letter.len());

        let (mut expected, mut released) = (RecordBatch::new(), RecordBatch::new());
        let direct = bind(compile(&relation, &TableFacts::default(), &options));
        direct.encode(Change::Insert(&insert), &context, &mut EventOrder::default(), &mut expected).unwrap();
        let change = HeldChange::read(&letter).unwrap().unwrap();
        change.encode(&direct, 9, &mut released).unwrap();
        assert_eq!(contents(&released), contents(&expected));
    }
}

/// Those that were written before have bytes in hexadecimal digits.
#[test]
fn a_letter_with_hexadecimal_digits_is_read() {
    let (text, change) = letter(&EncodeOptions::default());
    let relation = change.shape().relation.clone();
    let older = text.replace(r#""new":["2",{"unchanged_toast":true}"#, r#""new":["2","\\x6162""#);
    assert_ne!(older, text);
    let change = HeldChange::read(older.as_bytes()).unwrap().unwrap();
    assert_eq!(change.shape().relation, relation);
    let newer = older.replace(r#""\\x6162""#, r#"{"bytea":"YWI="}"#);
    assert_ne!(older, newer);
    let plan = bind(compile(&relation, &change.shape().facts, &EncodeOptions::default()));
    let written = |change: &HeldChange| {
        let mut batch = RecordBatch::new();
        change.encode(&plan, 0, &mut batch).unwrap();
        contents(&batch)
    };
    assert_eq!(written(&HeldChange::read(newer.as_bytes()).unwrap().unwrap()), written(&change));
}

#[test]
fn no_more_is_shown_later_than_the_letter_has() {
    let mask = || ColumnRule::Mask(Mask::Fixed("m".into()));
    let compile = |change: &HeldChange, options: &EncodeOptions| {
        let shape = change.shape();
        shape.compile(&shape.facts, &naming(), options)
    };
    for rule in [mask(), ColumnRule::Exclude] {
        let (text, change) = letter(&with_rule(rule.clone()));
        assert!(!text.contains("hunter"), "{text}");
        assert!(compile(&change, &with_rule(rule)).is_ok());
        let refused = compile(&change, &EncodeOptions::default()).unwrap_err();
        assert!(matches!(refused, HeldError::Hidden { .. }), "{refused}");
    }
    let (_, masked) = letter(&with_rule(mask()));
    assert!(compile(&masked, &with_rule(ColumnRule::Exclude)).is_err(), "it was masked, and would be left out");
    let another = with_rule(ColumnRule::Mask(Mask::Fixed("n".into())));
    assert!(compile(&masked, &another).is_err(), "what another mask makes of it is not known");
    // What the letter has can still be hidden.
    let (_, change) = letter(&EncodeOptions::default());
    for rule in [mask(), ColumnRule::Exclude] {
        let plan = bind(compile(&change, &with_rule(rule)).unwrap());
        let mut batch = RecordBatch::new();
        change.encode(&plan, 0, &mut batch).unwrap();
        assert!(!contents(&batch).join("").contains(&format!("{:?}", b"hunter2").replace(['[', ']'], "")));
    }
}

#[test]
fn another_number_of_events_is_refused() {
    let (_, change) = letter(&EncodeOptions::default());
    let shape = change.shape();
    // Without a key a change of it is one event.
    let relation = Relation { replica_identity: ReplicaIdentity::Nothing, ..shape.relation.clone() };
    let keyless = relation.columns.iter().cloned().map(|it| pgoutput::RelationColumn { is_key: false, ..it }).collect();
    let relation = Relation { columns: keyless, ..relation };
    let plan = bind(compile(&relation, &TableFacts::default(), &EncodeOptions::default()));
    let mut batch = RecordBatch::new();
    let refused = change.encode(&plan, 0, &mut batch).unwrap_err();
    assert!(matches!(refused, HeldError::EventCount { recorded: 2, events: 1 }), "{refused}");
    assert!(batch.is_empty());
}
