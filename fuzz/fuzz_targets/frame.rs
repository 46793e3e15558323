//! One replication frame, and the message that it carries.

#![no_main]

#[allow(dead_code, reason = "each target uses a part of it")]
#[path = "../../crates/pgoutput/tests/support/encode.rs"]
mod encode;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pgoutput::{Decoder, Frame, StatusUpdate};

fuzz_target!(|input: &[u8]| {
    let bytes = Bytes::copy_from_slice(input);
    match Frame::parse(bytes.clone()) {
        Ok(frame) => {
            assert_eq!(encode::encode_frame(&frame), input);
            if let Frame::WalData(data) = frame
                && let Ok(message) = Decoder::for_parallel_streaming().decode(data.payload.clone())
            {
                assert_eq!(encode::encode(&message), data.payload, "{message:?}");
            }
        }
        Err(error) => assert!(error.offset() <= input.len(), "{error}"),
    }
    if let Ok(update) = StatusUpdate::parse(bytes) {
        assert_eq!(update.encode(), input);
    }
});
