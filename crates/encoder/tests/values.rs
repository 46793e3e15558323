//! Values as PostgreSQL prints them, against what PostgreSQL itself computes from them.
//!
//! `postgres/values.tsv` and `postgres/lossless.tsv` are what PostgreSQL 18.1 gives for the SQL of the same names.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use apache_avro::types::Value as Avro;
use common::table::{self, column, extension};
use encoder::{Change, EncodeOptions};
use num_bigint::BigInt;
use pgoutput::ReplicaIdentity;
use serde_json::Value;

#[test]
fn every_value_is_what_postgresql_computes() {
    assert_eq!(check(include_str!("postgres/values.tsv"), &EncodeOptions::default()), 2534);
}

#[test]
fn what_debezium_forgets_can_be_cast_back() {
    assert_eq!(check(include_str!("postgres/lossless.tsv"), &EncodeOptions::lossless()), 171);
}

/// Returns how many values there were.
fn check(file: &str, options: &EncodeOptions) -> usize {
    let mut checked = 0;
    for line in file.lines() {
        let [type_oid, type_modifier, text, expected] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let column = match type_oid {
            "0" => extension("v", "hstore"),
            type_oid => column("v", type_oid.parse().unwrap(), type_modifier.parse().unwrap()),
        };
        let plan = table::bind(table::compile_with(ReplicaIdentity::Default, &[column.not_null()], options));
        let batch = table::encode(&plan, Change::Insert(&table::insert(&[text])));
        let batch = batch.unwrap_or_else(|error| panic!("{line}: {error}"));
        let value = batch.iter().next().unwrap().value.unwrap();
        let (_, value) = common::decode(plan.plan().value_schema().unwrap(), value);
        let found = printed(after(value));
        // JSON is the same however it is spaced.
        match serde_json::from_str::<Value>(expected) {
            Ok(json @ (Value::Array(_) | Value::Object(_))) => {
                assert_eq!(serde_json::from_str::<Value>(&found).unwrap(), json, "{line}");
            }
            _ => assert_eq!(found, expected, "{line}"),
        }
        checked += 1;
    }
    checked
}

/// The only column of the row.
fn after(envelope: Avro) -> Avro {
    let Avro::Record(fields) = envelope else { panic!("an envelope is a record") };
    let Some((_, Avro::Union(1, row))) = fields.into_iter().nth(1) else { panic!("the row is there") };
    let Avro::Record(fields) = *row else { panic!("a row is a record") };
    fields.into_iter().next().unwrap().1
}

fn printed(value: Avro) -> String {
    match value {
        Avro::Boolean(value) => value.to_string(),
        Avro::Int(value) => value.to_string(),
        Avro::Long(value) => value.to_string(),
        Avro::String(value) => value,
        Avro::Bytes(bytes) => common::hex(&bytes),
        Avro::Double(value) => common::hex(&value.to_be_bytes()),
        Avro::Float(value) => common::hex(&value.to_be_bytes()),
        Avro::Decimal(value) => BigInt::from_signed_bytes_be(&Vec::try_from(&value).unwrap()).to_string(),
        Avro::Array(items) => {
            let items = items.into_iter().map(|item| match item {
                Avro::Union(0, _) => Value::Null,
                Avro::Union(_, item) => match *item {
                    Avro::Boolean(value) => value.into(),
                    Avro::Int(value) => value.into(),
                    Avro::String(value) => value.into(),
                    other => panic!("no array here has a {other:?}"),
                },
                other => panic!("no array here has a {other:?}"),
            });
            Value::Array(items.collect()).to_string()
        }
        Avro::Record(fields) => {
            // A point: its coordinates, which its WKB has too.
            let [(_, x), (_, y), (_, wkb), (_, srid)] = <[_; 4]>::try_from(fields).unwrap();
            let (Avro::Double(x), Avro::Double(y)) = (x, y) else { panic!("coordinates are numbers") };
            let expected = [&[1, 1, 0, 0, 0][..], &x.to_le_bytes(), &y.to_le_bytes()].concat();
            assert_eq!(wkb, Avro::Union(1, Box::new(Avro::Bytes(expected))));
            assert_eq!(srid, Avro::Union(0, Box::new(Avro::Null)));
            common::hex(&x.to_be_bytes()) + &common::hex(&y.to_be_bytes())
        }
        other => panic!("no type here has a {other:?}"),
    }
}
