//! Faults 7 and 8: two programs with one name, and one that wakes up too late.

use std::{thread, time::Duration};

use crate::harness::{
    random::Random,
    stack::Stack,
    stream::Stream,
    watcher::Watcher,
    workload::{TABLES, Workload},
};

#[test]
fn a_second_instance_takes_over() {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let stream = Stream::create(&stack, "fencing");
    Workload::create_tables(&stream);
    let mut older = stream.start_ready();
    let watcher = Watcher::start(&stream);
    let workload = Workload::start(&stream, &mut random);
    for _ in 0..3 {
        let mut newer = stream.start();
        older.exits_with(4, "fenced", Duration::from_secs(30));
        newer.await_ready();
        older = newer;
    }
    workload.finish();
    stream.drain();
    older.terminate();
    watcher.finish();
    let (_, verdict) = stream.judge(TABLES);
    verdict.assert_flawless();
}

#[test]
fn an_idle_instance_notices_that_it_was_replaced() {
    let stack = Stack::shared();
    let stream = Stream::create(&stack, "fencing_idle");
    stream.database.create_tables("create table public.item (id int primary key)");
    let mut older = stream.start_ready();
    let mut newer = stream.start();
    older.exits_with(4, "fenced", Duration::from_secs(30));
    newer.await_ready();
    newer.terminate();
}

#[test]
fn a_pause_longer_than_the_transaction_timeout_is_survived() {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let mut stream = Stream::create(&stack, "paused");
    stream.set("kafka.properties", "{ \"transaction.timeout.ms\" = 4000 }");
    stream.set("kafka.transaction.split_after_age", "2s");
    Workload::create_tables(&stream);
    let mut program = stream.start_ready();
    let watcher = Watcher::start(&stream);
    let workload = Workload::start(&stream, &mut random);
    thread::sleep(random.duration_ms(200..1000));
    program.signal("STOP");
    // The broker looks for overdue transactions every 10 s.
    thread::sleep(Duration::from_secs(16));
    program.signal("CONT");
    workload.finish();
    stream.drain();
    assert!(program.is_running(), "it went on by itself");
    program.terminate();
    watcher.finish();
    let (_, verdict) = stream.judge(TABLES);
    verdict.assert_flawless();
}
