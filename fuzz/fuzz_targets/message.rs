//! A session of messages, as one slot sends them.

#![no_main]

#[allow(dead_code, reason = "each target uses a part of it")]
#[path = "../../crates/pgoutput/tests/support/encode.rs"]
mod encode;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pgoutput::{Decoder, ProtocolVersion};

fuzz_target!(|input: &[u8]| {
    let Some((version, mut rest)) = input.split_first() else { return };
    let mut decoder = match version % 5 {
        0 => Decoder::new(ProtocolVersion::V1),
        1 => Decoder::new(ProtocolVersion::V2),
        2 => Decoder::new(ProtocolVersion::V3),
        3 => Decoder::new(ProtocolVersion::V4),
        _ => Decoder::for_parallel_streaming(),
    };
    while let Some((length, after)) = rest.split_first_chunk() {
        let (payload, next) = after.split_at(after.len().min(usize::from(u16::from_be_bytes(*length))));
        rest = next;
        match decoder.decode(Bytes::copy_from_slice(payload)) {
            Ok(message) => {
                assert_eq!(encode::encode(&message), payload, "{message:?}");
                let _ = format!("{message:?}");
            }
            Err(error) => assert!(error.offset() <= payload.len(), "{error}"),
        }
    }
});
