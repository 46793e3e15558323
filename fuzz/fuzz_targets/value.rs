//! A value of any type in any form: a byte for each, then the text.

#![no_main]

#[allow(dead_code, reason = "each target uses a part of it")]
#[path = "../../crates/encoder/tests/common/table.rs"]
mod table;
#[allow(dead_code, reason = "each target uses a part of it")]
#[path = "../../crates/encoder/tests/common/value.rs"]
mod value;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| value::check(input));
