//! The network loses an answer, delays a request, or falls silent.

use std::time::Duration;

use crate::harness::{
    oracle::Table,
    proxy::{Ending, LateAnswer, Proxy},
    random::Random,
    stack::Stack,
    stream::{Program, Stream},
    wait_until,
    watcher::Watcher,
    workload::{TABLES, Workload},
};

/// How long a fault may take until it has happened, and the program until it is over it.
const BOUND: Duration = Duration::from_mins(1);

/// Waits until the stream has committed more than it has now.
fn goes_on(program: &mut Program) {
    let before = program.metric("committed_lsn");
    wait_until(BOUND, "the stream goes on", || {
        assert!(program.is_running(), "it ended, for a network that came back");
        program.metric("committed_lsn").filter(|now| Some(*now) != before)
    });
}

/// A stream that reaches Kafka through a proxy, and gives up a request after two seconds instead of a minute.
fn stream_through(proxy: &Proxy, stack: &Stack, label: &str) -> Stream {
    let mut stream = Stream::create(stack, label);
    stream.set("kafka.bootstrap_servers", &proxy.address());
    stream.set("kafka.properties", "{ \"socket.timeout.ms\" = 2000 }");
    Workload::create_tables(&stream);
    stream
}

/// Has the network do harm under writers. When that is over, the stream goes on, and everything must be there once.
fn survives<T>(stream: &Stream, tables: &[Table], harm: impl FnOnce(&mut Program) -> T) -> T {
    let mut random = Random::new(Random::seed_of_run());
    let mut program = stream.start_ready();
    let watcher = Watcher::start(stream);
    let workload = Workload::start(stream, &mut random);
    Workload::touch_tables(stream);
    stream.drain();
    let told = harm(&mut program);
    goes_on(&mut program);
    workload.finish();
    stream.drain();
    program.terminate();
    watcher.finish();
    let (_, verdict) = stream.judge(tables);
    println!("{} events, {} transactions", verdict.events, verdict.transactions);
    verdict.assert_flawless();
    told
}

#[test]
fn a_commit_whose_answer_is_lost_is_resolved() {
    let stack = Stack::shared();
    let proxy = Proxy::to_kafka(stack.bootstrap_servers());
    let stream = stream_through(&proxy, &stack, "lost_answer");
    // The second is the answer to librdkafka's own second request.
    let injured = survives(&stream, TABLES, |program| {
        proxy.lose_answers(Ending::Commit, 2);
        let injured = proxy.await_lost_answers(2, BOUND);
        goes_on(program);
        // It has taken 4 s, and the brokers answer whatever else they are asked: nobody is told that they are away.
        let log = program.log();
        assert!(!log.contains("nothing was acknowledged or committed"), "a slow commit is no outage: {log}");
        injured
    });
    assert_ne!(
        proxy.newest_producer(),
        Some(injured),
        "the producer was used again: a late request could end its next transaction"
    );
}

#[test]
fn a_commit_that_comes_late_ends_no_other_transaction() {
    let stack = Stack::shared();
    let proxy = Proxy::to_kafka(stack.bootstrap_servers());
    let stream = stream_through(&proxy, &stack, "late_commit");
    let answer = survives(&stream, TABLES, |_| {
        proxy.delay_into_the_next_transaction(Ending::Commit);
        proxy.await_late_answer(BOUND)
    });
    assert_eq!(answer, LateAnswer::Fenced);
}

#[test]
fn an_abort_that_times_out_ends_no_other_transaction() {
    const LONG: Table = Table { name: "long", key: &["id"], full: false };
    let stack = Stack::shared();
    let kafka = Proxy::to_kafka(stack.bootstrap_servers());
    let mut stream = stream_through(&kafka, &stack, "late_abort");
    stream
        .database
        .create_tables("create table public.long (id bigint generated always as identity primary key, filler text)");
    let postgres = proxy_to_postgres(&mut stream, 3);
    let tables: Vec<Table> = TABLES.iter().copied().chain([LONG]).collect();
    let answer = survives(&stream, &tables, |program| {
        kafka.delay_into_the_next_transaction(Ending::Abort);
        wait_until(BOUND, "the program aborts a transaction", || {
            fall_silent_inside_a_transaction(&stream, &postgres, program);
            kafka.is_holding_back().then_some(())
        });
        kafka.await_late_answer(BOUND)
    });
    assert_eq!(answer, LateAnswer::Fenced);
}

/// Leaves the program with a part of a transaction, whose records Kafka has acknowledged, until it gives the connection up: then the
/// open Kafka transaction is aborted.
fn fall_silent_inside_a_transaction(stream: &Stream, postgres: &Proxy, program: &mut Program) {
    let insert = "insert into public.long(filler) select repeat('x', 300) from generate_series(1, ";
    Workload::touch_tables(stream);
    stream.database.execute(&format!("{insert} 1)"));
    stream.drain();
    let given_up = program.log().matches(GIVEN_UP).count();
    // Of the 6 MB that follow, and what others write meanwhile.
    postgres.fall_silent_after(2_000_000);
    stream.database.execute(&format!("{insert} 20000)"));
    wait_until(BOUND, "the program gives the connection up", || {
        (program.log().matches(GIVEN_UP).count() > given_up).then_some(())
    });
    postgres.speak();
    program.await_ready();
}

/// What the log says when a connection to PostgreSQL is lost, whoever has ended it.
const GIVEN_UP: &str = "starting again: [postgres-unavailable]";

/// Sets `wal_sender_timeout`, in seconds, for the program's connections.
fn set_wal_sender_timeout(stream: &mut Stream, url: &mut url::Url, wal_sender_timeout_s: u32) {
    url.set_query(Some(&format!("options=-c%20wal_sender_timeout%3D{wal_sender_timeout_s}s")));
    stream.set("postgres.url", url.as_str());
}

/// Has the program reach PostgreSQL through a proxy.
fn proxy_to_postgres(stream: &mut Stream, wal_sender_timeout_s: u32) -> Proxy {
    let (proxy, mut url) = Proxy::to_postgres(&stream.database.url);
    set_wal_sender_timeout(stream, &mut url, wal_sender_timeout_s);
    proxy
}

#[test]
fn a_silent_kafka_costs_no_connection_to_postgresql() {
    const WAL_SENDER_TIMEOUT_S: u32 = 4;
    let stack = Stack::shared();
    let proxy = Proxy::to_kafka(stack.bootstrap_servers());
    let mut stream = stream_through(&proxy, &stack, "silent_kafka");
    let mut url = stream.database.url.parse().expect("a URL");
    set_wal_sender_timeout(&mut stream, &mut url, WAL_SENDER_TIMEOUT_S);
    survives(&stream, TABLES, |program| {
        let reader = format!("select active_pid from pg_replication_slots where slot_name = '{}'", stream.slot);
        let before: i32 = stream.database.value(&reader);
        proxy.fall_silent();
        proxy.await_held_bytes(BOUND);
        wait_until(BOUND, "the probe says that Kafka does not answer", || {
            program.readiness().filter(|answer| answer.status == 503 && answer.body.contains("[kafka-unavailable]"))
        });
        // Many times the timeout has passed.
        assert_eq!(stream.database.value::<Option<i32>>(&reader), Some(before), "the connection was lost");
        proxy.speak();
    });
}

#[test]
fn a_silent_postgresql_is_noticed_before_it_notices_us() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "silent_postgresql");
    Workload::create_tables(&stream);
    let proxy = proxy_to_postgres(&mut stream, 9);
    survives(&stream, TABLES, |program| {
        proxy.fall_silent();
        proxy.await_held_bytes(BOUND);
        wait_until(BOUND, "the program gives the connection up", || program.log().contains(GIVEN_UP).then_some(()));
        let active = format!("select active from pg_replication_slots where slot_name = '{}'", stream.slot);
        assert!(stream.database.value::<bool>(&active), "the server was the first to notice");
        proxy.speak();
    });
}
