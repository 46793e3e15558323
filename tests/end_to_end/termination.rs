//! An orderly end, and an end during the very first start.

use std::{thread, time::Duration};

use crate::harness::{
    kafka::end_lsn,
    oracle::Table,
    random::Random,
    stack::{Server, Stack},
    stream::{START_TIMEOUT, Stream},
    wait_until,
    watcher::Watcher,
    workload::{TABLES, Workload},
};

#[test]
fn sigterm_under_load_drains_and_doubles_nothing() {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let stream = Stream::create(&stack, "sigterm");
    Workload::create_tables(&stream);
    stream.start_ready().terminate();
    let watcher = Watcher::start(&stream);
    let workload = Workload::start(&stream, &mut random);
    for _ in 0..6 {
        let program = stream.start_ready();
        thread::sleep(random.duration_ms(0..1000));
        // The bound is what is promised.
        program.terminate_within(Duration::from_secs(5));
        // Everything that was committed was confirmed as well.
        let newest = stream.checkpoints().pop().flatten().expect("there is a checkpoint");
        let newest = end_lsn(&newest);
        assert_eq!(stream.database.confirmed_flush_lsn(&stream.slot), Some(newest));
    }
    workload.finish();
    let program = stream.start_ready();
    stream.drain();
    program.terminate();
    watcher.finish();
    let (_, verdict) = stream.judge(TABLES);
    verdict.assert_flawless();
}

const ITEM: &[Table] = &[Table { name: "item", key: &["id"], full: false }];

fn new_stream(stack: &Stack, label: &str) -> Stream {
    let stream = Stream::create(stack, label);
    stream.database.create_tables("create table public.item (id int primary key)");
    stream
}

#[test]
fn killed_during_its_first_start_it_begins_without_an_operator() {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    for _ in 0..5 {
        let stream = new_stream(&stack, "first_start");
        let program = stream.start();
        thread::sleep(random.duration_ms(50..2000));
        program.kill();
        let program = stream.start_ready();
        stream.database.execute("insert into public.item values (1), (2), (3)");
        stream.drain();
        program.terminate();
        let (_, verdict) = stream.judge(ITEM);
        verdict.assert_flawless();
    }
}

/// A transaction that holds the creation of every slot up, for as long as it is open.
fn hold_slot_creation(stream: &Stream) -> postgres::Client {
    let mut holder = stream.database.client();
    holder.batch_execute("begin; select pg_current_xact_id()").expect("a transaction");
    holder
}

/// Waits until the server has begun to create the slot, and is held up.
fn await_slot_creation(stream: &Stream) {
    let sql = format!("select count(*) from pg_replication_slots where slot_name = '{}'", stream.slot);
    wait_until(START_TIMEOUT, "the slot is being created", || (stream.database.value::<i64>(&sql) == 1).then_some(()));
}

#[test]
fn killed_while_its_slot_is_being_created_it_waits_for_the_slot() {
    let stack = Stack::shared();
    let stream = new_stream(&stack, "slow_slot");
    let mut holder = hold_slot_creation(&stream);
    let program = stream.start();
    await_slot_creation(&stream);
    // The server does not notice that nobody waits for the slot any more, and goes on creating it.
    program.kill();
    let mut program = stream.start();
    thread::sleep(Duration::from_secs(4));
    assert!(program.is_running(), "it ended, for a slot that is not ready yet");
    holder.batch_execute("commit").expect("it commits");
    program.await_ready();
    stream.database.execute("insert into public.item values (1)");
    stream.drain();
    program.terminate();
    let (_, verdict) = stream.judge(ITEM);
    verdict.assert_flawless();
}

#[test]
fn killed_between_the_slot_and_its_checkpoint_it_goes_on_from_the_slot() {
    let stack = Stack::exclusive();
    let stream = new_stream(&stack, "pending_slot");
    let mut holder = hold_slot_creation(&stream);
    let program = stream.start();
    await_slot_creation(&stream);
    // Without Kafka the slot's position cannot be written down.
    stack.kill(Server::Kafka);
    holder.batch_execute("commit").expect("it commits");
    wait_until(START_TIMEOUT, "the slot is there", || program.log().contains("created the slot").then_some(()));
    program.kill();
    stream.database.execute("insert into public.item values (1)");
    stack.start(Server::Kafka);
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (2)");
    stream.drain();
    program.terminate();
    let (_, verdict) = stream.judge(ITEM);
    verdict.assert_flawless();
}
