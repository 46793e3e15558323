//! Values as PostgreSQL prints them, against what PostgreSQL itself computes from them.
//!
//! `postgres/values.tsv` is what PostgreSQL 18.1 gives for `postgres/values.sql`.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use apache_avro::types::Value as Avro;
use common::table::{self, column};
use encoder::Change;
use num_bigint::BigInt;
use pgoutput::ReplicaIdentity;

#[test]
fn every_value_is_what_postgresql_computes() {
    let mut checked = 0;
    for line in include_str!("postgres/values.tsv").lines() {
        let [type_oid, type_modifier, text, expected] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let column = column("v", type_oid.parse().unwrap(), type_modifier.parse().unwrap()).not_null();
        let plan = table::bind(table::compile(ReplicaIdentity::Default, &[column]));
        let batch = table::encode(&plan, Change::Insert(&table::insert(&[text])));
        let batch = batch.unwrap_or_else(|error| panic!("{line}: {error}"));
        let value = batch.iter().next().unwrap().value.unwrap();
        let (_, value) = common::decode(plan.plan().value_schema(), value);
        assert_eq!(printed(after(value)), expected, "{line}");
        checked += 1;
    }
    assert!(checked > 1000);
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
        Avro::Int(value) => value.to_string(),
        Avro::Long(value) => value.to_string(),
        Avro::String(value) => value,
        Avro::Bytes(bytes) => common::hex(&bytes),
        Avro::Double(value) => common::hex(&value.to_be_bytes()),
        Avro::Float(value) => common::hex(&value.to_be_bytes()),
        Avro::Decimal(value) => BigInt::from_signed_bytes_be(&Vec::try_from(&value).unwrap()).to_string(),
        other => panic!("no type here has a {other:?}"),
    }
}
