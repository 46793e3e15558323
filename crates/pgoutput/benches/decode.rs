//! What one row costs: ten columns, as a table of mixed types gives them, in an Insert or in COPY, and one item is one row.
//!
//! `cargo bench -p pgoutput`

use std::hint::black_box;

use bytes::Bytes;
use divan::{AllocProfiler, Bencher, counter::ItemsCount};
use pgoutput::{CopyRows, Decoder, Message, ProtocolVersion, Value};

/// Shows that decoding a row allocates nothing.
#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const ROWS: usize = 1_000;

const VALUES: [&str; 10] = [
    "1234567",
    "customer-00012345",
    "someone@example.com",
    "42",
    "19.990",
    "t",
    "2024-02-29 12:34:56.789+00",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "a note of an ordinary length for a row",
    "-1",
];

fn main() {
    divan::main();
}

/// Decoding, which checks the whole row.
#[divan::bench]
fn insert(bencher: Bencher<'_, '_>) {
    decode(bencher, &insert_message());
}

/// Decoding, then looking at each value.
#[divan::bench]
fn insert_and_walk(bencher: Bencher<'_, '_>) {
    let message = insert_message();
    let mut decoder = Decoder::new(ProtocolVersion::V1);
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        for _ in 0..ROWS {
            let Ok(Message::Insert(insert)) = decoder.decode(black_box(&message).clone()) else { unreachable!() };
            for value in &insert.new {
                if let Value::Text(text) = value {
                    black_box(text);
                }
            }
        }
    });
}

/// Decoding an Update with the whole old row.
#[divan::bench]
fn update_full(bencher: Bencher<'_, '_>) {
    let insert = insert_message();
    let tuple = &insert[6..];
    let message: Bytes = [b"U\x00\x00\x40\x00O", tuple, b"N", tuple].concat().into();
    decode(bencher, &message);
}

/// A row of COPY, written anew as a tuple.
#[divan::bench]
fn copy(bencher: Bencher<'_, '_>) {
    let line = VALUES.join("\t") + "\n";
    let mut rows = CopyRows::new(10);
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        for _ in 0..ROWS {
            black_box(rows.decode(black_box(line.as_bytes()))).expect("a well-formed line");
        }
    });
}

fn decode(bencher: Bencher<'_, '_>, message: &Bytes) {
    let mut decoder = Decoder::new(ProtocolVersion::V1);
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        for _ in 0..ROWS {
            black_box(decoder.decode(black_box(message).clone())).expect("a well-formed message");
        }
    });
}

fn insert_message() -> Bytes {
    let mut message = b"I\x00\x00\x40\x00N\x00\x0a".to_vec();
    for value in VALUES {
        message.push(b't');
        message.extend(u32::try_from(value.len()).expect("short").to_be_bytes());
        message.extend(value.as_bytes());
    }
    message.into()
}
