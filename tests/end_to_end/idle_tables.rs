//! The published tables are idle while others are busy, and PostgreSQL can free its log all the same.

use std::time::Duration;

use rdkafka::Message;

use crate::harness::{
    avro::Decoder,
    database::lsn,
    kafka,
    stack::Stack,
    stream::{START_TIMEOUT, Stream},
    wait_until,
    watcher::Watcher,
};

/// A heartbeat comes whether anything happens or not, in either format, each in a transaction with its checkpoint.
#[test]
fn heartbeats_come_from_a_source_where_nothing_happens() {
    let stack = Stack::shared();
    for format in ["avro", "json"] {
        let mut stream = Stream::create(&stack, "beats");
        stream.set("events.format", format);
        stream.set("events.heartbeat_interval", "1s");
        stream.database.execute("create table public.item (id int primary key)");
        let program = stream.start_ready();
        let topic = format!("__debezium-heartbeat.{}", stream.name);
        let mut decoder = Decoder::new(&stream.registry_url);
        wait_until(START_TIMEOUT, "three heartbeats", || {
            let mut times = Vec::new();
            kafka::read_to_end(
                &stream.bootstrap_servers,
                |name| name == topic,
                |message| {
                    let mut read = |bytes: Option<&[u8]>| match format {
                        "avro" => decoder.decode_json(bytes.expect("it is there")).1,
                        _ => serde_json::from_slice(bytes.expect("it is there")).expect("JSON"),
                    };
                    assert_eq!(read(message.key()), serde_json::json!({ "serverName": stream.name }));
                    times.push(read(message.payload())["ts_ms"].as_i64().expect("a time"));
                },
            );
            assert!(
                times.windows(2).all(|pair| pair[1] - pair[0] >= 1000),
                "not more often than was asked for: {times:?}"
            );
            (times.len() >= 3).then_some(())
        });
        program.terminate();
    }
}

#[test]
fn log_without_anything_for_the_stream_is_freed() {
    let stack = Stack::shared();
    let stream = Stream::create(&stack, "idle");
    stream.database.execute(
        "create table public.item (id int primary key);
         create table oracle.busy (id bigint generated always as identity primary key, filler text)",
    );
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (1)");
    stream.drain();
    let watcher = Watcher::start(&stream);
    let restart_lsn = || {
        let sql = format!("select restart_lsn::text from pg_replication_slots where slot_name = '{}'", stream.slot);
        lsn(&stream.database.value::<String>(&sql))
    };
    let first_restart = restart_lsn();
    for _ in 0..2 {
        stream
            .database
            .execute("insert into oracle.busy(filler) select repeat('x', 500) from generate_series(1, 10000)");
        let busy_until = stream.database.wal_lsn();
        wait_until(Duration::from_mins(1), "the slot passes what is not for the stream", || {
            // A checkpoint logs the running transactions, after which the server can decode from a later place.
            stream.database.execute("checkpoint");
            let confirmed = stream.database.confirmed_flush_lsn(&stream.slot).expect("there is a slot");
            (confirmed >= busy_until && restart_lsn() > first_restart).then_some(())
        });
    }
    watcher.finish();
    program.terminate();
    let items = stream.records().iter().filter(|record| record.table == "item").count();
    assert_eq!(items, 1);
}
