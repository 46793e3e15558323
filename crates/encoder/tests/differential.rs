//! Random tables and rows, against apache-avro: it reads what was meant, and writes the same bytes.
//!
//! What was meant is known before any text is made: a value is drawn, printed as PostgreSQL would, and only that text goes to the encoder.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use apache_avro::{types::Value as Avro, writer::datum::GenericDatumWriter};
use common::{
    cells::{Cell, cells, options},
    table::{self, Column, column},
};
use encoder::{Change, EncodeOptions, Envelope, EventOrder, Format, RecordBatch, TablePlan};
use pgoutput::{Insert, Oid, OldTuple, ReplicaIdentity, Tuple, Update, Value};
use proptest::prelude::*;

/// A column and its value in one row; none is null.
#[derive(Debug, Clone)]
struct Slot {
    cell: Cell,
    not_null: bool,
    is_key: bool,
    null: bool,
}

fn slots() -> impl Strategy<Value = Vec<Slot>> {
    let slot = (cells(), any::<bool>(), prop::bool::weighted(0.2), any::<bool>());
    let slot = slot.prop_map(|(cell, not_null, is_key, null)| {
        let null = null && !not_null && !is_key;
        Slot { cell, not_null, is_key, null }
    });
    prop::collection::vec(slot, 1..12)
}

fn columns(slots: &[Slot]) -> Vec<Column> {
    let column = |(index, slot): (usize, &Slot)| {
        let column = column(&format!("c{index}"), slot.cell.type_oid, slot.cell.type_modifier);
        let column = Column { type_facts: slot.cell.type_facts.clone(), ..column };
        match (slot.is_key, slot.not_null) {
            (true, _) => column.key(),
            (false, true) => column.not_null(),
            (false, false) => column,
        }
    };
    slots.iter().enumerate().map(column).collect()
}

fn tuple(slots: &[Slot]) -> Tuple {
    let value = |slot: &'_ Slot| if slot.null { None } else { Some(slot.cell.text.clone()) };
    let texts: Vec<_> = slots.iter().map(value).collect();
    Tuple::from_values(texts.iter().map(|text| text.as_ref().map_or(Value::Null, |text| Value::Text(text.as_bytes()))))
        .unwrap()
}

fn same_type(one: &Cell, other: &Cell) -> bool {
    (one.type_oid, one.type_modifier, &one.type_facts) == (other.type_oid, other.type_modifier, &other.type_facts)
}

/// The fields that a row is meant to have.
fn expected(slots: &[Slot], keys_only: bool) -> Vec<(String, Avro)> {
    let field = |(index, slot): (usize, &Slot)| {
        let value = match slot {
            Slot { null: true, .. } => Avro::Union(0, Box::new(Avro::Null)),
            Slot { not_null: false, is_key: false, .. } => Avro::Union(1, Box::new(slot.cell.avro.clone())),
            _ => slot.cell.avro.clone(),
        };
        (format!("c{index}"), value)
    };
    slots.iter().enumerate().filter(|(_, slot)| slot.is_key || !keys_only).map(field).collect()
}

fn field<'a>(record: &'a Avro, name: &str) -> &'a Avro {
    let Avro::Record(fields) = record else { panic!("{record:?} is no record") };
    &fields.iter().find(|(field, _)| field == name).unwrap().1
}

/// An event without its row, of which the JSON of the recordings cannot have every type.
fn without_row(mut event: Avro) -> Avro {
    let Avro::Record(fields) = &mut event else { panic!("{event:?} is no record") };
    fields
        .iter_mut()
        .filter(|(name, _)| name == "after")
        .for_each(|(_, row)| *row = Avro::Union(0, Box::new(Avro::Null)));
    event
}

/// NaN is not equal to itself, and Debug tells every other value apart.
fn assert_same(found: &Avro, expected: &Avro) {
    assert_eq!(format!("{found:?}"), format!("{expected:?}"));
}

fn row_value(slots: &[Slot]) -> Avro {
    Avro::Union(1, Box::new(Avro::Record(expected(slots, false))))
}

proptest! {
    #[test]
    fn apache_avro_reads_what_was_meant_and_writes_the_same(slots in slots()) {
        let plan = table::bind(table::compile(ReplicaIdentity::Full, &columns(&slots)));
        let row = tuple(&slots);
        let update = Update { xid: None, relation: Oid::from(1), old: OldTuple::Full(row.clone()), new: row };
        let batch = table::encode(&plan, Change::Update(&update)).unwrap();
        prop_assert_eq!(batch.len(), 1);
        let record = batch.iter().next().unwrap();

        let schema = plan.plan().value_schema().unwrap();
        let framed = record.value.unwrap();
        let (_, value) = common::decode(schema, framed);
        assert_same(field(&value, "before"), &row_value(&slots));
        assert_same(field(&value, "after"), &row_value(&slots));
        let parsed = apache_avro::Schema::parse_str(schema.json()).unwrap();
        let written = GenericDatumWriter::builder(&parsed).build().unwrap().write_value_to_vec(value).unwrap();
        prop_assert_eq!(&written[..], &framed[5..]);

        prop_assert_eq!(record.key.is_some(), slots.iter().any(|slot| slot.is_key));
        if let Some(framed) = record.key {
            let (_, key) = common::decode(plan.plan().key_schema().unwrap(), framed);
            assert_same(&key, &Avro::Record(expected(&slots, true)));
        }
    }

    /// All that is before `source` are the bytes of the insert: the row. What is behind it differs where it says so.
    #[test]
    fn a_row_of_a_snapshot_is_what_its_insert_is(
        mut slots in slots(),
        options in options(),
        envelope in prop::sample::select(vec![Envelope::Debezium, Envelope::Upsert]),
        format in prop::sample::select(vec![Format::Avro, Format::Json]),
    ) {
        // An upsert needs a key.
        slots[0] = Slot { is_key: true, null: false, ..slots[0].clone() };
        let options = EncodeOptions { format, envelope, ..options };
        let (relation, facts) = (table::relation(ReplicaIdentity::Default, &columns(&slots)), table::facts(&columns(&slots)));
        // Some forms make no key of an upsert.
        let Ok(plan) = TablePlan::compile(&relation, &facts, &table::naming(), &options) else { return Ok(()) };
        let plan = table::bind(plan);
        let insert = Insert { xid: None, relation: Oid::from(1), new: tuple(&slots) };
        let mut read = RecordBatch::new();
        let encoded = plan.encode_read(&insert.new, &table::snapshot(), table::PROCESSED_UNIX_NS, &mut read);
        let inserted = match table::encode(&plan, Change::Insert(&insert)) {
            Ok(inserted) => inserted,
            Err(error) => {
                // The form has no room for the value.
                prop_assert_eq!(encoded.unwrap_err(), error);
                return Ok(());
            }
        };
        prop_assert_eq!((read.len(), inserted.len()), (1, 1));
        let (read, inserted) = (read.iter().next().unwrap(), inserted.iter().next().unwrap());
        prop_assert_eq!((read.topic, read.key), (inserted.topic, inserted.key));
        let (read, inserted) = (read.value.unwrap(), inserted.value.unwrap());
        if envelope == Envelope::Upsert {
            prop_assert_eq!(read, inserted);
            return Ok(());
        }
        let source: &[u8] = if format == Format::Avro { b"\x0a1.2.3\x14postgresql\x08shop" } else { b",\"source\":{" };
        let start = |value: &[u8]| value.windows(source.len()).position(|window| window == source).unwrap();
        prop_assert_eq!(&read[..start(read)], &inserted[..start(inserted)]);
        let decoded = |value: &[u8]| match plan.plan().value_schema() {
            Some(schema) => common::to_json(schema, &without_row(common::decode(schema, value).1)),
            None => serde_json::from_slice(value).unwrap(),
        };
        let (mut read, inserted) = (decoded(read), decoded(inserted));
        prop_assert_eq!(&read["op"], "r");
        for (pointer, of_snapshots) in [
            ("/op", "\"r\""), ("/transaction", "null"), ("/source/snapshot", "\"incremental\""), ("/source/txId", "null"),
            ("/source/sequence", r#""[null,\"97500059720\"]""#), ("/source/ts_ms", "1700000000123"),
            ("/source/ts_us", "1700000000123456"), ("/source/ts_ns", "1700000000123456000"),
        ] {
            prop_assert_eq!(read.pointer(pointer).map(ToString::to_string), Some(of_snapshots.to_owned()), "{}", pointer);
            *read.pointer_mut(pointer).unwrap() = inserted.pointer(pointer).unwrap().clone();
        }
        prop_assert_eq!(read.to_string(), inserted.to_string());
    }

    #[test]
    fn bytes_of_any_kind_never_panic_and_an_error_takes_everything_back(
        slots in slots(),
        texts in prop::collection::vec(garbage(), 12),
        first in any::<bool>(),
        options in options(),
    ) {
        let plan = table::bind(table::compile_with(ReplicaIdentity::Default, &columns(&slots), &options));
        // One cell is broken, or all are.
        let good = tuple(&slots);
        let values = good.iter().zip(&texts).enumerate();
        let values = values.map(|(index, (good, text))| if first && index > 0 { good } else { Value::Text(text) });
        let insert = Insert { xid: None, relation: Oid::from(1), new: Tuple::from_values(values).unwrap() };
        let mut batch = RecordBatch::new();
        let mut order = EventOrder::default();
        table::append(&plan, Change::Truncate, &mut order, &mut batch).unwrap();
        let (before, order_before) = (format!("{batch:?}"), order);
        if table::append(&plan, Change::Insert(&insert), &mut order, &mut batch).is_ok() {
            // What was taken is what apache-avro can read.
            common::decode(plan.plan().value_schema().unwrap(), batch.iter().nth(1).unwrap().value.unwrap());
        } else {
            prop_assert_eq!(format!("{:?}", batch), before);
            prop_assert_eq!(order, order_before);
        }
    }

    /// The fuzz target `value`, in short.
    #[test]
    fn any_bytes_are_a_value_of_any_type_or_refused(
        kind in any::<u8>(),
        form in any::<u8>(),
        texts in prop::collection::vec(garbage(), 8),
    ) {
        for text in texts {
            common::value::check(&[&[kind, form][..], &text].concat());
        }
    }

    #[test]
    fn a_key_change_counts_as_it_encodes(
        old in slots(),
        seed in any::<prop::sample::Index>(),
        others in prop::collection::vec(cells(), 40),
    ) {
        // The new row is the old one, or has one value that may differ.
        let mut new = old.clone();
        let changed = seed.index(new.len());
        let cell = &new[changed].cell;
        let other = others.into_iter().find(|other| same_type(other, cell));
        if let (Some(other), false) = (other, new[changed].null) {
            new[changed].cell = other;
        }
        let plan = table::bind(table::compile(ReplicaIdentity::Full, &columns(&old)));
        let update = Update { xid: None, relation: Oid::from(1), old: OldTuple::Full(tuple(&old)), new: tuple(&new) };
        let (mut order, mut batch) = (EventOrder::default(), RecordBatch::new());
        table::append(&plan, Change::Update(&update), &mut order, &mut batch).unwrap();
        prop_assert_eq!(plan.count_events(Change::Update(&update), pgoutput::Lsn::from(1)), Ok(order.total));
        let same = format!("{:?}", expected(&old, true)) == format!("{:?}", expected(&new, true));
        prop_assert_eq!(order.total, if same { 1 } else { 2 });
    }
}

/// Bytes that look like values to some type, and bytes that do not.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..50),
        "[-+0-9.: tfBCxa\\\\Z]{0,40}".prop_map(String::into_bytes),
        "[0-9]{1,8}-[0-9]{1,3}-[0-9]{1,3}( [0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,8})?)?([-+][0-9]{2}(:[0-9]{2}){0,3})?( BC)?"
            .prop_map(String::into_bytes),
        r#"[-+0-9.:, a-dNUL{}\[\]()="\\]{0,30}"#.prop_map(String::into_bytes),
        r#"("[ab\\"]{0,3}"=>("[ab\\"]{0,3}"|NULL)(, )?){0,3}"#.prop_map(String::into_bytes),
        "([-+]?[0-9]{1,9} (year|mon|day)s? ?){0,3}[-+]?[0-9]{0,4}(:[0-9]{2}){0,2}(\\.[0-9]{0,7})?".prop_map(String::into_bytes),
        "[-($]{0,2}[0-9.,]{0,12}".prop_map(String::into_bytes),
        // A value that is cut off or has a byte too many somewhere.
        (cells(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(|(cell, at, byte, cut)| {
            let mut text = cell.text.into_bytes();
            let at = at.index(text.len() + 1);
            if cut { text.truncate(at) } else { text.insert(at, byte) }
            text
        }),
        cells().prop_map(|cell| cell.text.into_bytes()),
    ]
}
