//! Faults 1 to 3: killed before, during and after the commit of a Kafka transaction, by fault points in the program.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use crate::harness::{
    kafka::end_lsn,
    oracle::Lsn,
    random::Random,
    stack::Stack,
    stream::Stream,
    watcher::Watcher,
    workload::{TABLES, Workload},
};

const ROUNDS: u64 = 6;
const SIGKILL: i32 = 9;

/// What the slot and Kafka had when the program died.
struct Death {
    confirmed: Lsn,
    checkpoint: Lsn,
}

/// Dies at a point for several times, under writers; then everything must be there once.
fn die_at(point: &str) -> Vec<Death> {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let stream = Stream::create(&stack, &point.replace('-', "_"));
    Workload::create_tables(&stream);
    stream.start_ready().kill();
    let watcher = Watcher::start(&stream);
    let workload = Workload::start(&stream, &mut random);
    let mut deaths = Vec::new();
    for round in 0..ROUNDS {
        // The first commit of a life, and later ones.
        let count = if round == 0 { 1 } else { random.within(1..12) };
        let mut program = stream.start_with(&[], &[("PGSLUICE_FAULT", &format!("{point}:{count}"))]);
        let status = program.wait(Duration::from_mins(1), "the program dies at its fault point");
        assert_eq!(status.signal(), Some(SIGKILL), "it ended with {status}");
        stream.database.await_slot_released(&stream.slot);
        let confirmed = stream.database.confirmed_flush_lsn(&stream.slot).expect("there is a slot");
        // What the dead program left open holds readers up, so that this is read once it is ended.
        stream.start_ready().kill();
        let checkpoint = stream.checkpoints().into_iter().flatten().map(|checkpoint| end_lsn(&checkpoint)).next_back();
        deaths.push(Death { confirmed, checkpoint: checkpoint.expect("there is a checkpoint") });
    }
    workload.finish();
    let program = stream.start_ready();
    stream.drain();
    program.terminate();
    watcher.finish();
    let (_, verdict) = stream.judge(TABLES);
    println!("{ROUNDS} deaths at {point}, {} events, {} transactions", verdict.events, verdict.transactions);
    verdict.assert_flawless();
    deaths
}

#[test]
fn killed_before_the_commit() {
    die_at("before-commit");
}

#[test]
fn killed_during_the_commit() {
    die_at("during-commit");
}

#[test]
fn killed_after_the_commit_before_postgresql_is_told() {
    let deaths = die_at("after-commit");
    assert!(
        deaths.iter().all(|death| death.confirmed < death.checkpoint),
        "the point lies between Kafka's commit and the confirmation"
    );
}
