//! A schema, a value of it, and bytes that are none, all made from the input.

#![no_main]

#[path = "../../crates/encoder/tests/common/decoded.rs"]
mod decoded;

use encoder::decode::parse_json;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    decoded::check(input);
    if let Ok(value) = parse_json(input) {
        assert_eq!(parse_json(value.to_json().as_bytes()).expect("it is JSON"), value);
    }
});
