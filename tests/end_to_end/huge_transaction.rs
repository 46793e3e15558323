//! One COPY of a million rows, which share LSNs by the hundred, killed in its middle.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use rdkafka::Message;

use crate::harness::{
    avro::Decoder,
    database::lsn,
    http_get,
    kafka::{self, Checkpoints, end_lsn},
    memory::Memory,
    proxy::Proxy,
    setting,
    stack::Stack,
    stream::{Program, START_TIMEOUT, Stream},
    wait_until,
    watcher::Watcher,
};

/// Far above `memory_limit`'s 64 MiB and what a process needs besides, and far below the transaction.
const MEMORY_MAX_KIB: u64 = 200 << 10;
/// What one of the rows takes in the replication stream, about.
const WIRE_BYTES: u64 = 70;

#[test]
fn a_million_rows_in_one_transaction_killed_half_way() {
    let rows = setting("PGSLUICE_TEST_HUGE_ROWS", 1_000_000);
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "huge");
    stream.set("kafka.transaction.split_after_records", "20000");
    stream.database.execute("create table public.item (id bigint primary key, value text not null)");
    let program = stream.start_ready();
    let watcher = Watcher::start(&stream);
    let mut checkpoints = Checkpoints::open(&stream.bootstrap_servers, &stream.checkpoint_topic, &stream.name);
    let memory = Memory::watch(program.id());
    let committed = copy(&stream, rows);
    let ordinal = lag_is_told_while_it_comes(&stream, &program, &mut checkpoints, committed, rows / 2);
    program.kill();
    let first = memory.finish();
    assert!(ordinal < rows, "the transaction was over before it could be killed inside");

    let mut program = stream.start();
    let memory = Memory::watch(program.id());
    program.await_ready();
    stream.drain();
    wait_until(Duration::from_mins(1), "there is no lag any more", || {
        // Others write to the server's log, and the stream passes that every few seconds.
        (lag(&program)? == (0, 0)).then_some(())
    });
    let second = memory.finish();
    program.terminate();
    watcher.finish();
    println!("killed after {ordinal} of {rows} events; peaks of {first} and {second} KiB");
    assert!(first.max(second) < MEMORY_MAX_KIB, "peaks of {first} and {second} KiB");

    let resumed = stream
        .checkpoints()
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .windows(2)
        .any(|pair| pair[0]["instance"] != pair[1]["instance"] && !pair[1]["split"].is_null());
    assert!(resumed, "the second life did not begin inside the transaction");
    every_row_is_there_once(&stream, rows);
}

/// Each life reads the transaction from its beginning, and goes on where the one before had come to.
#[test]
fn killed_again_and_again_inside_one_transaction() {
    let rows = setting("PGSLUICE_TEST_HUGE_ROWS", 1_000_000) / 2;
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "huge_again");
    stream.set("kafka.transaction.max_records", "10000");
    stream.set("kafka.transaction.split_after_records", "10000");
    stream.database.execute("create table public.item (id bigint primary key, value text not null)");
    let mut program = stream.start_ready();
    let watcher = Watcher::start(&stream);
    copy(&stream, rows);
    for _ in 0..4 {
        let before = stream.checkpoints().len();
        // The first is the start's own; the second is more of the transaction.
        wait_until(Duration::from_mins(1), "the transaction goes on", || {
            (stream.checkpoints().len() >= before + 2).then_some(())
        });
        program.kill();
        program = stream.start();
    }
    program.await_ready();
    stream.drain();
    program.terminate();
    watcher.finish();
    let held: Vec<_> = stream.checkpoints().into_iter().flatten().filter(|held| !held["split"].is_null()).collect();
    let mut lives: Vec<_> = held.iter().map(|held| held["instance"].clone()).collect();
    lives.dedup();
    assert!(lives.len() >= 2, "only {} lives were inside the transaction", lives.len());
    every_row_is_there_once(&stream, rows);
}

/// SIGTERM does not wait for the end of a transaction that may be hours away; a second one waits for nothing.
///
/// The server falls silent in the middle of the transaction, so that it is certain not to end.
#[test]
fn stopped_inside_one_transaction() {
    let rows = setting("PGSLUICE_TEST_HUGE_ROWS", 1_000_000) / 2;
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "huge_stop");
    stream.set("kafka.transaction.max_records", "10000");
    stream.set("kafka.transaction.split_after_records", "10000");
    stream.database.execute("create table public.item (id bigint primary key, value text not null)");
    let (proxy, url) = Proxy::to_postgres(&stream.database.url);
    stream.set("postgres.url", url.as_str());
    let program = stream.start_ready();
    let mut checkpoints = Checkpoints::open(&stream.bootstrap_servers, &stream.checkpoint_topic, &stream.name);
    let bytes = usize::try_from(rows * WIRE_BYTES).expect("it fits");
    proxy.fall_silent_after(bytes / 4);
    copy(&stream, rows);
    checkpoints.await_ordinal(rows / 25, START_TIMEOUT);
    proxy.await_held_bytes(START_TIMEOUT);
    program.terminate_within(Duration::from_secs(5));
    proxy.speak();
    stream.database.await_slot_released(&stream.slot);

    let newest = stream.checkpoints().pop().flatten().expect("there is a checkpoint");
    let first = newest["split"]["ordinal"].as_u64().expect("it lies inside");
    proxy.fall_silent_after(bytes / 2);
    let mut program = stream.start();
    let second = checkpoints.await_ordinal(first + 1, START_TIMEOUT);
    program.signal("TERM");
    wait_until(START_TIMEOUT, "the first signal is taken", || program.log().contains("stopping: ").then_some(()));
    program.signal("TERM");
    let status = program.wait(Duration::from_secs(5), "it ends at once");
    assert_eq!(status.code(), Some(1), "{}", program.log());
    proxy.speak();
    stream.database.await_slot_released(&stream.slot);
    println!("stopped after {first} and then {second} of {rows} events");

    let program = stream.start_ready();
    stream.drain();
    program.terminate();
    every_row_is_there_once(&stream, rows);
}

/// Returns between which times it was committed.
fn copy(stream: &Stream, rows: u64) -> (Instant, Instant) {
    let mut client = stream.database.client();
    let mut copy = client.copy_in("copy public.item from stdin").expect("COPY begins");
    for id in 1..=rows {
        writeln!(copy, "{id}\tvalue of {id}").expect("it takes rows");
    }
    let before = Instant::now();
    copy.finish().expect("it commits");
    (before, Instant::now())
}

/// The lag in milliseconds and in bytes, from one answer.
fn lag(program: &Program) -> Option<(u64, u64)> {
    let status: serde_json::Value = serde_json::from_str(&http_get(program.address()?, "/status").ok()?.body).ok()?;
    Some((status["lag"]["ms"].as_u64()?, status["lag"]["bytes"].as_u64()?))
}

/// While a transaction comes in, the lag is as old as its commit, and as long as all log since the position before it, however much of it is in Kafka.
/// What is told lies between what it must have been when it was asked for, and what it must have been when it was answered. Returns how far the
/// stream is, once that is `ordinal` or beyond it.
fn lag_is_told_while_it_comes(
    stream: &Stream,
    program: &Program,
    checkpoints: &mut Checkpoints,
    committed: (Instant, Instant),
    ordinal: u64,
) -> u64 {
    /// Two clocks are compared, and both are cut to milliseconds.
    const EXACT_TO_MS: u128 = 100;
    checkpoints.await_ordinal(1, Duration::from_mins(3));
    let newest = checkpoints.newest();
    // It stays there until the transaction is over. What is in Kafka the program knows a moment later.
    let (begin, commit) = (end_lsn(newest), lsn(newest["split"]["commit_lsn"].as_str().expect("an LSN")));
    wait_until(START_TIMEOUT, "the program knows that it is inside", || {
        #[expect(clippy::cast_precision_loss, reason = "positions of a new server are small")]
        program.metric("committed_lsn").filter(|committed| *committed >= begin as f64)
    });
    let mut looks = 0;
    loop {
        let mut told = Vec::new();
        for _ in 0..30 {
            let least_ms = committed.1.elapsed().as_millis();
            let (ms, bytes) = lag(program).expect("it answers");
            let most_ms = committed.0.elapsed().as_millis();
            told.push((least_ms, u128::from(ms), most_ms, bytes));
        }
        let most_lsn = stream.database.wal_lsn();
        let reached = checkpoints.newest()["split"]["ordinal"].as_u64().expect("the stream is inside the transaction");
        for (least_ms, ms, most_ms, bytes) in &told {
            assert!(
                ms + EXACT_TO_MS >= *least_ms && *ms <= most_ms + EXACT_TO_MS,
                "a lag of {ms} ms, of a transaction that was committed {least_ms} to {most_ms} ms ago"
            );
            assert!(
                (commit - begin..=most_lsn - begin).contains(bytes),
                "a lag of {bytes} bytes, of {} to {}",
                commit - begin,
                most_lsn - begin
            );
        }
        looks += told.len();
        if reached >= ordinal {
            println!("{looks} looks at the lag, in the end {:?}", told.last());
            return reached;
        }
    }
}

/// The rows were written in the order of their ids, so that an event's ordinal is its row's id.
///
/// Keys and identities are looked at one and all, the rest of the much larger envelopes by sample.
fn every_row_is_there_once(stream: &Stream, rows: u64) {
    let mut decoder = Decoder::new(&stream.registry_url);
    let mut seen = vec![false; usize::try_from(rows).expect("it fits") + 1];
    let topic = stream.topic("item");
    let mut newest = [0_u64; 3];
    let mut transaction_id = None;
    kafka::read_to_end(
        &stream.bootstrap_servers,
        |name| name == topic,
        |message| {
            let key = decoder.decode(message.key().expect("a key")).row()["id"].clone();
            let id: u64 = key.expect("an id").parse().expect("a number");
            let seen = &mut seen[usize::try_from(id).expect("it fits")];
            assert!(!std::mem::replace(seen, true), "row {id} is there twice");
            let newest = &mut newest[usize::try_from(message.partition()).expect("it is not negative")];
            assert!(*newest < id, "row {id} comes after row {newest}");
            *newest = id;
            let value = message.payload().expect("a value");
            let transaction_id = transaction_id.get_or_insert_with(|| {
                let mut envelope = decoder.decode(value);
                envelope.take_fields("transaction").expect("a transaction").take_text("id").expect("an id")
            });
            assert_eq!(ordinals(value, transaction_id), Some([id, id]), "row {id} is another event");
            if id.is_multiple_of(97) {
                let mut envelope = decoder.decode(value);
                let mut transaction = envelope.take_fields("transaction").expect("a transaction");
                assert_eq!(transaction.take_text("total_order"), Some(id.to_string()));
                let after = envelope.take_fields("after").expect("a row").row();
                assert_eq!(after["value"], Some(format!("value of {id}")));
            }
        },
    );
    let missing = seen.iter().skip(1).filter(|seen| !**seen).count();
    assert_eq!(missing, 0, "rows are missing");
}

/// The two numbers behind the transaction's id, which are `total_order` and `data_collection_order`, as they stand in the bytes: to
/// decode a million envelopes takes minutes. None if the id is not there.
fn ordinals(value: &[u8], transaction_id: &str) -> Option<[u64; 2]> {
    // The id is the only text of an envelope that has this form, and stands near its end.
    let at = value.windows(transaction_id.len()).rposition(|window| window == transaction_id.as_bytes())?;
    let mut rest = &value[at + transaction_id.len()..];
    let mut ordinals = [0; 2];
    for ordinal in &mut ordinals {
        // A `long` of Avro: zigzag, seven bits a byte, the lowest first.
        let len = rest.iter().position(|byte| byte & 0x80 == 0)? + 1;
        let (bytes, behind) = rest.split_at(len);
        let zigzag = bytes.iter().rev().fold(0_u64, |sum, byte| sum << 7 | u64::from(byte & 0x7f));
        assert!(zigzag & 1 == 0, "an ordinal is not negative");
        (*ordinal, rest) = (zigzag >> 1, behind);
    }
    Some(ordinals)
}
