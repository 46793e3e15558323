//! A row of COPY: a byte that chooses how many columns it has, then the line.

#![no_main]

#[allow(dead_code, reason = "each target uses a part of it")]
#[path = "../../crates/pgoutput/tests/support/encode.rs"]
mod encode;

use libfuzzer_sys::fuzz_target;
use pgoutput::CopyRows;

/// The server writes these with a backslash. Without one they are taken for themselves.
const ESCAPED: [u8; 4] = [0x08, 0x0b, 0x0c, b'\r'];

fuzz_target!(|input: &[u8]| {
    let Some((&columns, line)) = input.split_first() else { return };
    let mut rows = CopyRows::new(columns.into());
    match rows.decode(line) {
        Ok(row) => {
            let encoded = encode::encode_copy(&row);
            if !line.iter().any(|byte| ESCAPED.contains(byte)) {
                assert_eq!(encoded, line, "{row:?}");
            }
            assert_eq!(rows.decode(&encoded), Ok(row));
        }
        Err(error) => assert!(error.offset() <= line.len(), "{error}"),
    }
});
