//! The broker, which leads every partition and coordinates every transaction, is killed. It is a delay, and no more.

use std::{thread, time::Duration};

use crate::harness::{
    random::Random,
    stack::{Server, Stack},
    stream::Stream,
    wait_until,
    watcher::Watcher,
    workload::{TABLES, Workload},
};

#[test]
fn a_broker_that_is_killed_is_a_delay_only() {
    let stack = Stack::exclusive();
    let mut random = Random::new(Random::seed_of_run());
    let stream = Stream::create(&stack, "broker");
    Workload::create_tables(&stream);
    let mut program = stream.start_ready();
    let watcher = Watcher::start(&stream);
    let workload = Workload::start(&stream, &mut random);
    for _ in 0..3 {
        thread::sleep(random.duration_ms(300..2000));
        stack.kill(Server::Kafka);
        thread::sleep(random.duration_ms(0..4000));
        stack.start(Server::Kafka);
        let before = program.metric("committed_lsn");
        wait_until(Duration::from_mins(2), "the stream goes on", || {
            assert!(program.is_running(), "it ended, for a broker that came back");
            program.metric("committed_lsn").filter(|now| Some(*now) != before)
        });
    }
    // What librdkafka calls a connection that is lost, or refused.
    let lost = program.metric(r#"kafka_client_errors_total{code="_TRANSPORT",reported="client"}"#);
    assert!(lost >= Some(1.0), "{lost:?}");
    workload.finish();
    stream.drain();
    program.terminate();
    watcher.finish();
    let (_, verdict) = stream.judge(TABLES);
    verdict.assert_flawless();
}
