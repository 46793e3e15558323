//! What is decoded is what was written, and nothing that comes makes a decoder panic, run on or run full.

#[path = "common/decoded.rs"]
mod decoded;

use encoder::decode::{AvroError, AvroSchema, DEPTH_MAX, Value, parse_json};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn whatever_apache_avro_writes_is_read_back(input in proptest::collection::vec(any::<u8>(), 0..200)) {
        decoded::check(&input);
    }

    #[test]
    fn json_of_any_bytes_is_a_value_or_an_error(input in proptest::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(value) = parse_json(&input) {
            prop_assert_eq!(parse_json(value.to_json().as_bytes()).expect("it is JSON"), value);
        }
    }
}

fn schema(text: &str) -> AvroSchema {
    AvroSchema::parse(text).expect("it is a schema")
}

#[test]
fn a_type_may_contain_itself_as_deep_as_is_allowed() {
    let list = schema(
        r#"{"type":"record","name":"Node","namespace":"a.b","fields":[{"name":"next","type":["null","Node"]}]}"#,
    );
    // Each step is a union and a record.
    let depth = DEPTH_MAX / 2;
    let nested = |steps: usize| [vec![2; steps], vec![0]].concat();
    assert!(list.decode(&nested(depth - 1)).is_ok());
    assert_eq!(list.decode(&nested(depth)), Err(AvroError::Deep));
    assert_eq!(list.decode(&nested(1_000_000)), Err(AvroError::Deep));
    // One that contains itself without a choice has no values at all.
    let endless = schema(r#"{"type":"record","name":"R","fields":[{"name":"self","type":"R"}]}"#);
    assert_eq!(endless.decode(&[]), Err(AvroError::Deep));
}

#[test]
fn a_few_bytes_cannot_announce_much() {
    let most = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    for items in [r#""null""#, r#"{"type":"record","name":"E","fields":[]}"#, r#"{"type":"fixed","name":"F","size":0}"#]
    {
        let array = schema(&format!(r#"{{"type":"array","items":{items}}}"#));
        assert_eq!(array.decode(&most), Err(AvroError::Many), "{items}");
        // The same number, negative, and how many bytes they take.
        assert_eq!(array.decode(&[1, 0, 0]).map(|list| list == Value::List(vec![])).ok(), Some(false), "{items}");
    }
    assert_eq!(schema(r#""string""#).decode(&most), Err(AvroError::Short));
    assert_eq!(schema(r#""bytes""#).decode(&[1]), Err(AvroError::Short), "a negative length");
    let huge = r#"{"type":"bytes","logicalType":"decimal","precision":2000000000,"scale":1000000000}"#;
    assert!(AvroSchema::parse(huge).is_err());
}

#[test]
fn many_nulls_in_records_are_read() {
    let records = schema(
        r#"{"type":"array","items":{"type":"record","name":"A","fields":[{"name":"b","type":
            {"type":"record","name":"B","fields":[{"name":"c","type":["null","long"]}]}}]}}"#,
    );
    // 100,000 of them, each a byte.
    let bytes = [&[0xc0, 0x9a, 0x0c][..], &vec![0; 100_000], &[0]].concat();
    let Value::List(list) = records.decode(&bytes).expect("they are read") else { panic!("it is a list") };
    assert_eq!((list.len(), list[0].to_json().as_str()), (100_000, r#"{"b":{"c":null}}"#));
}

#[test]
fn a_few_bytes_are_not_many_digits() {
    let decimals = |scale: usize| {
        schema(&format!(
            r#"{{"type":"array","items":{{"type":"bytes","logicalType":"decimal","precision":20000,"scale":{scale}}}}}"#
        ))
    };
    // 100,000 of them, each two bytes.
    let bytes = [&[0xc0, 0x9a, 0x0c][..], &[2, 1].repeat(100_000), &[0]].concat();
    assert_eq!(decimals(20_000).decode(&bytes), Err(AvroError::Digits));
    assert!(decimals(100).decode(&bytes).is_ok());
    // One row may have them.
    let bytes = [&[0x90, 0x03][..], &[2, 1].repeat(200), &[0]].concat();
    assert!(decimals(20_000).decode(&bytes).is_ok());
}

#[test]
fn blocks_with_their_size_are_read_too() {
    let array = schema(r#"{"type":"array","items":"long"}"#);
    // Two entries in two bytes, then one, then none.
    let read = array.decode(&[3, 4, 2, 4, 2, 6, 0]).expect("an array");
    assert_eq!(read.to_json(), "[1,2,3]");
}

#[test]
fn what_is_no_value_is_refused() {
    assert_eq!(schema(r#""boolean""#).decode(&[2]), Err(AvroError::Choice));
    assert_eq!(schema(r#"["null","long"]"#).decode(&[4]), Err(AvroError::Choice));
    assert_eq!(schema(r#"["null","long"]"#).decode(&[1]), Err(AvroError::Choice));
    assert_eq!(schema(r#"{"type":"enum","name":"E","symbols":["A"]}"#).decode(&[2]), Err(AvroError::Choice));
    assert_eq!(schema(r#""string""#).decode(&[2, 0xff]), Err(AvroError::Text));
    assert_eq!(schema(r#""null""#).decode(&[0]), Err(AvroError::Rest(1)));
    for text in ["", "{", r#""nothing""#, r#"{"type":"record","name":"R","fields":[{"name":"a","type":"S"}]}"#] {
        assert!(AvroSchema::parse(text).is_err(), "{text}");
    }
}
