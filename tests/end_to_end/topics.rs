//! A topic does not take what it is given, or is not the one that it was.

use std::time::Duration;

use crate::harness::{
    database::lsn, oracle::Table, proxy::Proxy, stack::Stack, stream::Stream, topics::Topics, wait_until,
    watcher::Watcher,
};

const ITEM: &[Table] = &[Table { name: "item", key: &["id"], full: false }];
const BOUND: Duration = Duration::from_mins(1);

fn stream_of_items(stack: &Stack, label: &str) -> Stream {
    let stream = Stream::create(stack, label);
    stream.database.create_tables("create table public.item (id int primary key, value text)");
    stream
}

/// Text of 64 kB that cannot be made much smaller.
const LARGE: &str = "(select string_agg(md5(number::text), '') from generate_series(1, 2000) as number)";

#[test]
fn a_record_that_is_too_large_is_named_and_never_skipped() {
    let stack = Stack::shared();
    let mut stream = stream_of_items(&stack, "too_large");
    stream.set("kafka.topics.config", "{ \"max.message.bytes\" = \"20000\" }");
    let mut program = stream.start_ready();
    stream.database.execute("insert into public.item values (1, 'small')");
    stream.drain();
    let watcher = Watcher::start(&stream);
    let before = stream.database.wal_lsn();
    stream.database.execute(&format!("insert into public.item values (2, {LARGE})"));
    let after = stream.database.wal_lsn();
    stream.database.execute("insert into public.item values (3, 'small')");
    program.exits_with(3, "record-too-large", BOUND);
    let log = program.log();
    let message = log.lines().find(|line| line.contains("stopping: [record-too-large]")).expect("it says why");
    assert!(message.contains("table public.item") && message.contains(r#"key {\"id\":2}"#), "{message}");
    let position = message.split("LSN ").nth(1).and_then(|rest| rest.split(',').next()).expect("it names the LSN");
    assert!((before..after).contains(&lsn(position)), "{position} is not where the row was written");
    // Nor does it go on behind it at the next start.
    stream.refuses(&[], "record-too-large");
    stream.database.await_slot_released(&stream.slot);
    assert!(stream.database.confirmed_flush_lsn(&stream.slot) <= Some(after), "the row was passed over");

    Topics::of(&stream.bootstrap_servers).configure(&stream.topic("item"), "max.message.bytes", "1000000");
    let program = stream.start_ready();
    stream.drain();
    program.terminate();
    watcher.finish();
    let (_, verdict) = stream.judge(ITEM);
    verdict.assert_flawless();
}

#[test]
fn too_few_replicas_are_waited_for() {
    let stack = Stack::shared();
    let mut stream = stream_of_items(&stack, "replicas");
    // One broker has never too few: it takes the number of replicas for the minimum where that is larger. So the proxy answers for it.
    let proxy = Proxy::to_kafka(&stream.bootstrap_servers);
    stream.set("kafka.bootstrap_servers", &proxy.address());
    let mut program = stream.start_ready();
    stream.drain();
    let watcher = Watcher::start(&stream);
    proxy.report_too_few_replicas(true);
    let before = stream.database.wal_lsn();
    stream.database.execute("insert into public.item values (1, 'one'), (2, 'two')");
    wait_until(BOUND, "the probe says that Kafka takes nothing", || {
        assert!(program.is_running(), "it ended, for a replica that may come back");
        program.readiness().filter(|answer| answer.status == 503 && answer.body.contains("[kafka-unavailable]"))
    });
    // It has tried again and again.
    proxy.await_refusals(10, BOUND);
    let confirmed = stream.database.confirmed_flush_lsn(&stream.slot);
    assert!(confirmed <= Some(before), "PostgreSQL was told of what Kafka does not have");
    proxy.report_too_few_replicas(false);
    stream.drain();
    assert!(program.is_running(), "it ended, for a replica that came back");
    program.terminate();
    watcher.finish();
    let (_, verdict) = stream.judge(ITEM);
    verdict.assert_flawless();
}

#[test]
fn a_topic_that_is_deleted_while_it_is_written_to_is_never_silence() {
    let stack = Stack::shared();
    let mut stream = stream_of_items(&stack, "deleted");
    // librdkafka waits for a topic that it does not find for as long as for any record.
    stream.set("kafka.properties", "{ \"message.timeout.ms\" = 8000 }");
    let mut program = stream.start_ready();
    stream.database.execute("insert into public.item values (1, 'one')");
    stream.drain();
    let watcher = Watcher::start(&stream);
    Topics::of(&stream.bootstrap_servers).delete(&stream.topic("item"));
    stream.database.execute("insert into public.item values (2, 'two')");
    // Refused by the broker it stops; timed out in librdkafka it starts again, and finds that there is no topic.
    wait_until(BOUND, "it notices", || (!program.is_running() || warns_of_lost_records(&program.log())).then_some(()));
    if !program.is_running() {
        program.exits_with(3, "topic-missing", BOUND);
        program = stream.start_ready();
    }
    stream.drain();
    assert!(warns_of_lost_records(&program.log()), "it says nothing of the records that were deleted");
    program.terminate();
    watcher.finish();
    assert_eq!(ids(&stream), ["2"], "what came after the deletion is there, once");
}

#[test]
fn a_topic_that_is_recreated_while_it_is_written_to_stops_the_stream() {
    let stack = Stack::shared();
    let stream = stream_of_items(&stack, "recreated_topic");
    let mut program = stream.start_ready();
    // Enough for each partition to have some.
    stream.database.execute("insert into public.item select generate_series(1, 100)");
    stream.drain();
    let watcher = Watcher::start(&stream);
    let topics = Topics::of(&stream.bootstrap_servers);
    topics.delete(&stream.topic("item"));
    topics.create(&stream.topic("item"));
    let before = stream.database.wal_lsn();
    stream.database.execute("insert into public.item values (101)");
    program.exits_with(3, "topic-missing", BOUND);
    assert!(stream.database.confirmed_flush_lsn(&stream.slot) <= Some(before), "the row was passed over");
    let program = stream.start_ready();
    stream.drain();
    program.terminate();
    watcher.finish();
    assert_eq!(ids(&stream), ["101"], "what came after is there, once");
}

#[test]
fn a_topic_that_is_recreated_while_the_stream_is_stopped_is_warned_of() {
    let stack = Stack::shared();
    let stream = stream_of_items(&stack, "recreated_stopped");
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (1, 'one')");
    stream.drain();
    program.terminate();
    let topics = Topics::of(&stream.bootstrap_servers);
    topics.delete(&stream.topic("item"));
    topics.create(&stream.topic("item"));
    stream.database.execute("insert into public.item values (2, 'two')");
    let program = stream.start_ready();
    stream.drain();
    assert!(warns_of_lost_records(&program.log()), "it says nothing of the records that were deleted");
    program.terminate();
    // Once there are records again, there is nothing to warn of.
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (3, 'three')");
    stream.drain();
    assert!(!warns_of_lost_records(&program.log()), "{}", program.log());
    program.terminate();
    assert_eq!(ids(&stream), ["2", "3"]);
}

fn warns_of_lost_records(log: &str) -> bool {
    log.lines().any(|line| {
        line.contains(r#""level":"WARN""#) && line.contains("they are gone") && line.contains("public.item")
    })
}

/// The keys of the items in Kafka.
fn ids(stream: &Stream) -> Vec<String> {
    let records = stream.records();
    let items = records.iter().filter(|record| record.table == "item");
    let mut ids: Vec<_> = items.filter_map(|record| record.key.as_ref()?["id"].clone()).collect();
    ids.sort();
    ids
}
