//! PostgreSQL is killed right after it was told a position, and PostgreSQL is shut down.

use std::time::{Duration, Instant};

use crate::harness::{
    random::Random,
    stack::{Server, Stack},
    stream::{START_TIMEOUT, Stream},
    wait_until,
    watcher::Watcher,
    workload::{TABLES, Workload},
};

#[test]
fn a_slot_that_a_crash_rewinds_doubles_nothing() {
    const ROUNDS: u32 = 5;
    let stack = Stack::exclusive();
    let mut random = Random::new(Random::seed_of_run());
    let stream = Stream::create(&stack, "crash");
    Workload::create_tables(&stream);
    let mut program = stream.start_ready();
    let watcher = Watcher::start(&stream);
    let workload = Workload::start(&stream, &mut random);
    let mut rewound = 0;
    for round in 0..ROUNDS {
        let told = |program: &crate::harness::stream::Program| program.metric("confirmed_lsn");
        let before = told(&program);
        // Several times, so that what the slot has in memory is newer than what it has on disk.
        for _ in 0..3 {
            let last = told(&program);
            wait_until(Duration::from_mins(1), "PostgreSQL is told a position", || {
                told(&program).filter(|now| Some(*now) != last)
            });
        }
        let confirmed = stream.database.confirmed_flush_lsn(&stream.slot).expect("there is a slot");
        assert_ne!(before, told(&program));
        stack.kill(Server::Postgres);
        if round % 2 == 0 {
            // Without a program that would confirm again at once, the slot shows how far it went back.
            program.kill();
            stack.start(Server::Postgres);
            rewound += u32::from(stream.database.confirmed_flush_lsn(&stream.slot) < Some(confirmed));
            program = stream.start();
        } else {
            stack.start(Server::Postgres);
        }
        program.await_ready();
    }
    workload.finish();
    stream.drain();
    program.terminate();
    watcher.finish();
    let (_, verdict) = stream.judge(TABLES);
    println!("{ROUNDS} crashes, {rewound} slots went back, {} events", verdict.events);
    verdict.assert_flawless();
    assert!(rewound > 0, "no crash made the slot go back, so that nothing was shown");
}

/// A shutdown waits until its replication clients have confirmed what they were sent; `dev/stack` kills what does not end in 20 s.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

#[test]
fn a_shutdown_is_not_held_up_and_the_stream_resumes() {
    let stack = Stack::exclusive();
    let mut random = Random::new(Random::seed_of_run());
    let stream = Stream::create(&stack, "shutdown");
    Workload::create_tables(&stream);
    let mut program = stream.start_ready();
    let watcher = Watcher::start(&stream);
    // Idle.
    stream.drain();
    let began = Instant::now();
    stack.stop(Server::Postgres);
    let idle = began.elapsed();
    stack.start(Server::Postgres);
    program.await_ready_within(START_TIMEOUT);
    // Busy.
    let workload = Workload::start(&stream, &mut random);
    let before = program.metric("committed_lsn");
    wait_until(Duration::from_mins(1), "the stream is busy", || {
        program.metric("committed_lsn").filter(|now| Some(*now) != before)
    });
    let began = Instant::now();
    stack.stop(Server::Postgres);
    let busy = began.elapsed();
    stack.start(Server::Postgres);
    program.await_ready_within(START_TIMEOUT);
    workload.finish();
    stream.drain();
    program.terminate();
    watcher.finish();
    println!("shut down within {idle:?} when idle, {busy:?} when busy");
    assert!(idle < SHUTDOWN_TIMEOUT && busy < SHUTDOWN_TIMEOUT, "idle {idle:?}, busy {busy:?}");
    let (_, verdict) = stream.judge(TABLES);
    verdict.assert_flawless();
}
