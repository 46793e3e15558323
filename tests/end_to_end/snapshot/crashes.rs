//! A server is killed while rows are copied, under writers: a delay, and no more.
//!
//! `PGSLUICE_TEST_SNAPSHOT_CRASHES` is how often: `make test-long` does 60 of each server.

use std::{thread, time::Duration};

use super::{await_copied, create, judge::Judged, writers::Writers};
use crate::harness::{
    random::Random,
    setting,
    stack::{Server, Stack},
    stream::{Program, Stream},
    wait_until,
};

/// Slow enough for a copy to outlast the crashes.
const ROWS_PER_SECOND: u64 = 400;
/// How many rows a round copies at most, of all three tables: what passes between two crashes, and before the first.
const ROWS_PER_ROUND: u64 = 3000;

#[test]
fn postgres_killed_while_rows_are_copied() {
    crash(Server::Postgres, "copy_postgres");
}

#[test]
fn kafka_killed_while_rows_are_copied() {
    crash(Server::Kafka, "copy_kafka");
}

fn crash(server: Server, label: &str) {
    let rounds = setting("PGSLUICE_TEST_SNAPSHOT_CRASHES", 3);
    let stack = Stack::exclusive();
    let mut random = Random::new(Random::seed_of_run());
    let mut stream = create(&stack, label, u32::try_from((rounds + 1) * ROWS_PER_ROUND / 3).expect("a count"));
    stream.set("snapshot.rows_per_second", &ROWS_PER_SECOND.to_string());
    stream.set("snapshot.connections", "2");
    let writers = Writers::start(&stream, &mut random);
    let mut program = stream.start_ready();
    let mut midway = 0;
    for _ in 0..rounds {
        thread::sleep(random.duration_ms(300..2000));
        let log = program.log();
        midway += u32::from(log.contains("copying the table") && !log.contains("every table is copied"));
        stack.kill(server);
        thread::sleep(random.duration_ms(0..1500));
        stack.start(server);
        await_more_rows(&mut program);
    }
    program.terminate();
    stream.set("snapshot.rows_per_second", "1000000");
    let program = stream.start_ready();
    await_copied(&program);
    writers.finish();
    stream.drain();
    program.terminate();
    judge(&stream, rounds, midway);
}

/// Waits until the copy goes on, or has come to its end.
fn await_more_rows(program: &mut Program) {
    let copied = |program: &Program| program.metric("copied_rows_total");
    let before = copied(program);
    wait_until(Duration::from_mins(2), "the copy goes on", || {
        assert!(program.is_running(), "it ended, for a server that came back");
        (copied(program) > before || program.log().contains("every table is copied")).then_some(())
    });
}

fn judge(stream: &Stream, rounds: u64, midway: u32) {
    let judged = Judged::of(stream, &stream.records());
    println!(
        "{rounds} crashes, {midway} of them midway; {} rows copied, {} events streamed",
        judged.copied, judged.streamed
    );
    judged.assert_flawless();
    assert!(midway > 0, "no crash came while rows were copied");
    assert!(judged.copied > 0 && judged.streamed > 100);
}
