//! Random tables and rows, against apache-avro: it reads what was meant, and writes the same bytes.
//!
//! What was meant is known before any text is made: a value is drawn, printed as PostgreSQL would, and only that text goes to the encoder.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use apache_avro::{Decimal, types::Value as Avro, writer::datum::GenericDatumWriter};
use common::table::{self, Column, column};
use encoder::{Change, EventOrder, RecordBatch};
use num_bigint::BigInt;
use pgoutput::{Insert, Oid, OldTuple, ReplicaIdentity, Tuple, Update, Value};
use proptest::prelude::*;

/// A column's type, and a value of it: as PostgreSQL prints it, and as Avro has it.
#[derive(Debug, Clone)]
struct Cell {
    type_oid: u32,
    type_modifier: i32,
    text: String,
    avro: Avro,
}

fn cell(type_oid: u32, type_modifier: i32, text: impl Into<String>, avro: Avro) -> Cell {
    Cell { type_oid, type_modifier, text: text.into(), avro }
}

fn cells() -> impl Strategy<Value = Cell> {
    prop_oneof![
        any::<bool>().prop_map(|value| cell(16, -1, if value { "t" } else { "f" }, Avro::Boolean(value))),
        any::<i16>().prop_map(|value| cell(21, -1, value.to_string(), Avro::Int(value.into()))),
        any::<i32>().prop_map(|value| cell(23, -1, value.to_string(), Avro::Int(value))),
        any::<i64>().prop_map(|value| cell(20, -1, value.to_string(), Avro::Long(value))),
        any::<f32>().prop_map(|value| cell(
            700,
            -1,
            float_text(value.into(), format!("{value:e}")),
            Avro::Float(value)
        )),
        any::<f64>().prop_map(|value| cell(701, -1, float_text(value, format!("{value:e}")), Avro::Double(value))),
        (prop::sample::select(vec![25, 1043, 1042, 19, 114, 3802, 1186, 99_999]), ".*")
            .prop_map(|(type_oid, value)| cell(type_oid, -1, value.clone(), Avro::String(value))),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|value| cell(
            17,
            -1,
            format!(r"\x{}", common::hex(&value)),
            Avro::Bytes(value)
        )),
        any::<[u8; 16]>().prop_map(|value| {
            let hex = common::hex(&value);
            let text = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
            cell(2950, -1, text.clone(), Avro::String(text))
        }),
        decimals(),
        variable_scale_decimals(),
        moments(),
    ]
}

/// PostgreSQL prints an exponent with a sign; here it matters only that the text is the shortest that reads back.
fn float_text(value: f64, shortest: String) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        _ => shortest,
    }
}

fn decimals() -> impl Strategy<Value = Cell> {
    (unscaled(), 0..30_u16).prop_map(|(unscaled, scale)| {
        let text = common::with_point(&unscaled.to_string(), scale.into());
        cell(
            1700,
            (1000 << 16 | i32::from(scale)) + 4,
            text,
            Avro::Decimal(Decimal::from(unscaled.to_signed_bytes_be())),
        )
    })
}

fn variable_scale_decimals() -> impl Strategy<Value = Cell> {
    (unscaled(), 0..30_usize, 0..5_usize).prop_map(|(unscaled, scale, zeros)| {
        let text = common::with_point(&unscaled.to_string(), scale);
        let text = if scale > 0 { text + &"0".repeat(zeros) } else { text };
        let (mut unscaled, mut scale) = (unscaled, scale);
        while scale > 0 && &unscaled % 10 == BigInt::ZERO {
            (unscaled, scale) = (unscaled / 10, scale - 1);
        }
        let fields = vec![
            ("scale".to_owned(), Avro::Int(i32::try_from(scale).unwrap())),
            ("value".to_owned(), Avro::Bytes(unscaled.to_signed_bytes_be())),
        ];
        cell(1700, -1, text, Avro::Record(fields))
    })
}

fn unscaled() -> impl Strategy<Value = BigInt> {
    prop_oneof![
        any::<i64>().prop_map(BigInt::from),
        any::<i16>().prop_map(BigInt::from),
        any::<i128>().prop_map(BigInt::from),
        prop::collection::vec(any::<u8>(), 1..60).prop_map(|bytes| BigInt::from_signed_bytes_be(&bytes)),
    ]
}

/// Dates, times and timestamps that jiff knows, which are all of PostgreSQL's before the year 10000.
fn moments() -> impl Strategy<Value = Cell> {
    (-4713..=9999_i16, 1..=12_i8, 1..=28_i8, 0..86_400_000_000_i64, 0..=6_u32, 0..5).prop_map(
        |(year, month, day, micros, digits, kind)| {
            let date = jiff::civil::date(year, month, day);
            let days = i64::from(date.since(jiff::civil::date(1970, 1, 1)).unwrap().get_days());
            let unit = 10_i64.pow(6 - digits);
            let micros = micros / unit * unit;
            let (year, era) = if year > 0 { (i32::from(year), "") } else { (1 - i32::from(year), " BC") };
            let (date_text, time_text) = (format!("{year:04}-{month:02}-{day:02}"), time_text(micros));
            let type_modifier = digits.cast_signed();
            let scaled = |micros: i64| if digits <= 3 { micros / 1000 } else { micros };
            match kind {
                0 => cell(1082, -1, format!("{date_text}{era}"), Avro::Int(i32::try_from(days).unwrap())),
                1 if digits <= 3 => {
                    cell(1083, type_modifier, time_text, Avro::Int(i32::try_from(micros / 1000).unwrap()))
                }
                1 => cell(1083, type_modifier, time_text, Avro::Long(micros)),
                2 => {
                    let value = Avro::Long(scaled(days * 86_400_000_000 + micros));
                    cell(1114, type_modifier, format!("{date_text} {time_text}{era}"), value)
                }
                _ => {
                    let sign = if date.year() < 0 { "-" } else { "" };
                    let whole = time_text.split('.').next().unwrap();
                    let fraction = format!(".{:06}", micros % 1_000_000);
                    let fraction = if digits == 0 { "" } else { &fraction[..=digits as usize] };
                    let iso = format!("{sign}{:04}-{month:02}-{day:02}T{whole}{fraction}Z", date.year().unsigned_abs());
                    cell(1184, type_modifier, format!("{date_text} {time_text}+00{era}"), Avro::String(iso))
                }
            }
        },
    )
}

/// PostgreSQL leaves out zeros at the end of a fraction.
fn time_text(micros: i64) -> String {
    let seconds = micros / 1_000_000;
    let text = format!("{:02}:{:02}:{:02}.{:06}", seconds / 3600, seconds / 60 % 60, seconds % 60, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

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

        let schema = plan.plan().value_schema();
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

    #[test]
    fn bytes_of_any_kind_never_panic_and_an_error_takes_everything_back(
        slots in slots(),
        texts in prop::collection::vec(garbage(), 12),
        first in any::<bool>(),
    ) {
        let plan = table::bind(table::compile(ReplicaIdentity::Default, &columns(&slots)));
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
            common::decode(plan.plan().value_schema(), batch.iter().nth(1).unwrap().value.unwrap());
        } else {
            prop_assert_eq!(format!("{:?}", batch), before);
            prop_assert_eq!(order, order_before);
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
        let other = others.into_iter().find(|other| (other.type_oid, other.type_modifier) == (cell.type_oid, cell.type_modifier));
        if let (Some(other), false) = (other, new[changed].null) {
            new[changed].cell = other;
        }
        let plan = table::bind(table::compile(ReplicaIdentity::Full, &columns(&old)));
        let update = Update { xid: None, relation: Oid::from(1), old: OldTuple::Full(tuple(&old)), new: tuple(&new) };
        let mut order = EventOrder::default();
        table::append(&plan, Change::Update(&update), &mut order, &mut RecordBatch::new()).unwrap();
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
        cells().prop_map(|cell| cell.text.into_bytes()),
    ]
}
