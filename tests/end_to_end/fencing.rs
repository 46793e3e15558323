//! Two programs with one name, and one that wakes up too late.

use std::{collections::BTreeSet, time::Duration};

use crate::harness::{
    kafka::TopicEnds,
    proxy::Proxy,
    random::Random,
    stack::Stack,
    stream::{Program, START_TIMEOUT, Stream},
    wait_until,
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

/// One that stands by disturbs nobody, and takes over when the other one has died, or was stopped.
#[test]
fn an_instance_that_stands_by_takes_over_when_the_other_has_gone() {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let stream = Stream::create(&stack, "standby");
    Workload::create_tables(&stream);
    let active = stream.start_ready();
    let watcher = Watcher::start(&stream);
    let workload = Workload::start(&stream, &mut random);
    let stand_by = || {
        let program = stream.start_with(&["--standby"], &[]);
        wait_until(START_TIMEOUT, "it stands by", || {
            program.log().contains("another instance reads from the slot").then_some(())
        });
        program
    };
    let mut second = stand_by();
    stream.drain();
    let instances = || -> BTreeSet<String> {
        stream.checkpoints().into_iter().flatten().map(|checkpoint| checkpoint["instance"].to_string()).collect()
    };
    assert_eq!(instances().len(), 1, "only the first has written a checkpoint");
    active.kill();
    second.await_ready();
    let mut third = stand_by();
    workload.finish();
    stream.drain();
    assert!(second.is_running());
    second.terminate();
    third.await_ready();
    Workload::touch_tables(&stream);
    stream.drain();
    assert_eq!(instances().len(), 3);
    third.terminate();
    watcher.finish();
    let (_, verdict) = stream.judge(TABLES);
    verdict.assert_flawless();
}

/// One that hangs says no goodbye, and so does one whose machine or network is lost: the server gives its connection up within seconds, and not after the minute
/// that it would take by default, which is as long as anything is waited for here. Meanwhile, one that stands by and cannot see that says so.
#[test]
fn a_pair_goes_on_when_the_one_that_streams_hangs() {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let stream = Stream::create(&stack, "pair");
    Workload::create_tables(&stream);
    let mut first = stream.start_with(&["--standby"], &[]);
    first.await_ready();
    let watcher = Watcher::start(&stream);
    let workload = Workload::start(&stream, &mut random);
    let (proxy, url) = Proxy::to_postgres(&stream.database.url);
    let mut second = stream.start_with(&["--standby"], &[("PGSLUICE_POSTGRES__URL", url.as_str())]);
    let says = |program: &Program, what: &str| {
        program.readiness().filter(|answer| answer.status == 503 && answer.body.contains(what)).map(drop)
    };
    wait_until(START_TIMEOUT, "it stands by", || {
        second.log().contains("another instance reads from the slot").then(|| says(&second, "standing by"))?
    });
    let standing_by = r#"state{state="standing by"}"#;
    assert_eq!(second.metric(standing_by), Some(1.0));
    proxy.fall_silent();
    wait_until(START_TIMEOUT, "it does not see the other one", || says(&second, "[postgres-unavailable]"));
    assert_eq!(second.metric(standing_by), Some(0.0));
    assert!(second.metric(r#"errors_total{code="postgres-unavailable"}"#) >= Some(1.0));
    proxy.speak();
    wait_until(START_TIMEOUT, "it sees it again", || says(&second, "standing by"));
    assert!(first.is_running());

    first.signal("STOP");
    second.await_ready();
    first.signal("CONT");
    first.exits_with(4, "fenced", Duration::from_secs(30));
    assert!(second.is_running());
    workload.finish();
    stream.drain();
    second.terminate();
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
    stream.set("kafka.properties", "{ \"transaction.timeout.ms\" = 8000 }");
    stream.set("kafka.transaction.split_after_age", "4s");
    let (proxy, url) = Proxy::to_postgres(&stream.database.url);
    stream.set("postgres.url", url.as_str());
    Workload::create_tables(&stream);
    let mut program = stream.start_ready();
    let watcher = Watcher::start(&stream);
    Workload::touch_tables(&stream);
    stream.drain();
    let bulk = TopicEnds::open(&stream.bootstrap_servers, &stream.topic("bulk"));
    let before = bulk.written();
    // The server falls silent inside a transaction. Kafka's stays open with what has come of it, and nothing is on its way: a record
    // that had waited through the pause would be given up before the transaction is.
    proxy.fall_silent_after(500_000);
    stream.database.execute("insert into public.bulk select -number, 0 from generate_series(2, 30000) number");
    proxy.await_held_bytes(START_TIMEOUT);
    wait_until(START_TIMEOUT, "what has come of the transaction is in Kafka", || {
        let encoded = program.metric("events_total{op=\"insert\",schema=\"public\",table=\"bulk\"}")?;
        let written = u32::try_from(bulk.written() - before).expect("it is small");
        (written > 0 && f64::from(written) + 1.0 >= encoded).then_some(())
    });
    program.signal("STOP");
    assert!(bulk.decided() < bulk.written(), "no transaction was open when the process was stopped");
    proxy.speak();
    let workload = Workload::start(&stream, &mut random);
    // The broker looks for overdue transactions every 10 s.
    wait_until(START_TIMEOUT, "the coordinator ends the transaction", || {
        (bulk.decided() == bulk.written()).then_some(())
    });
    program.signal("CONT");
    wait_until(START_TIMEOUT, "the program learns of it", || {
        assert!(program.is_running(), "it ended instead of going on");
        program.log().contains("starting again: [producer-timed-out]").then_some(())
    });
    program.await_ready();
    workload.finish();
    stream.drain();
    assert!(program.is_running(), "it went on by itself");
    program.terminate();
    watcher.finish();
    let (_, verdict) = stream.judge(TABLES);
    verdict.assert_flawless();
}
