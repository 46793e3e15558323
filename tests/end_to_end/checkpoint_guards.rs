//! The checkpoint is not what the program has written.

use std::{thread, time::Duration};

use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::harness::{kafka, stack::Stack, stream::Stream};

fn stopped_stream(stack: &Stack, label: &str) -> Stream {
    let stream = Stream::create(stack, label);
    stream.database.execute("create table public.item (id int primary key)");
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (1)");
    stream.drain();
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    stream
}

fn write(stream: &Stream, value: Option<&str>) {
    kafka::write(&stream.bootstrap_servers, &stream.checkpoint_topic, &stream.name, value);
}

fn newest(stream: &Stream) -> serde_json::Value {
    stream.checkpoints().pop().flatten().expect("there is a checkpoint")
}

#[test]
fn a_slot_without_a_checkpoint_needs_the_operators_word() {
    let stack = Stack::shared();
    let stream = stopped_stream(&stack, "emptied");
    write(&stream, None);
    stream.refuses(&[], "slot-without-checkpoint");
    stream.refuses(&["--accept-gap"], "slot-without-checkpoint");
    let mut program = stream.start_with(&["--adopt-slot"], &[]);
    program.await_ready();
    stream.drain();
    program.terminate();
    stream.start_ready().terminate();
}

/// What was attached to a checkpoint that an operator has removed is removed with the first checkpoint of the new beginning: the tombstone
/// that tells of the removal will not be there for ever.
#[test]
fn a_removed_checkpoint_takes_what_is_attached_with_it() {
    let stack = Stack::shared();
    let stream = stopped_stream(&stack, "attached");
    let key = format!("{}/anything", stream.name);
    let attached = || kafka::checkpoints(&stream.bootstrap_servers, &stream.checkpoint_topic, &key);
    kafka::write(&stream.bootstrap_servers, &stream.checkpoint_topic, &key, Some("{}"));
    // It is none of this build's, and no hindrance.
    stream.start_ready().terminate();
    stream.database.await_slot_released(&stream.slot);
    assert_eq!(attached(), [Some(serde_json::json!({}))]);

    write(&stream, None);
    let mut program = stream.start_with(&["--adopt-slot"], &[]);
    program.await_ready();
    program.terminate();
    assert_eq!(attached(), [Some(serde_json::json!({})), None]);
}

#[test]
fn a_corrupt_checkpoint_is_refused() {
    let stack = Stack::shared();
    let stream = stopped_stream(&stack, "corrupt");
    let good = newest(&stream);
    for corrupt in ["", "{", "{\"version\":1}", "[]", "null", "{\"version\":2}"] {
        write(&stream, Some(corrupt));
        stream.refuses(&["--adopt-slot", "--accept-gap"], "checkpoint-corrupt");
        // Neither a good one behind it nor a tombstone heals it before compaction: who wrote the bad one is not known.
        write(&stream, Some(&good.to_string()));
        write(&stream, None);
        stream.refuses(&[], "checkpoint-corrupt");
    }
}

#[test]
fn a_checkpoint_that_goes_back_is_refused() {
    let stack = Stack::shared();
    let stream = stopped_stream(&stack, "backwards");
    let mut older = newest(&stream);
    older["end_lsn"] = "0/1".into();
    write(&stream, Some(&older.to_string()));
    stream.refuses(&[], "checkpoint-corrupt");
}

#[test]
fn a_checkpoint_of_another_server_is_refused() {
    let stack = Stack::shared();
    for (field, value) in [("system_identifier", 7.into()), ("database", "other".into()), ("slot", "other".into())] {
        let stream = stopped_stream(&stack, "foreign");
        let mut foreign: serde_json::Value = newest(&stream);
        foreign[field] = value;
        write(&stream, Some(&foreign.to_string()));
        stream.refuses(&["--adopt-slot", "--accept-gap"], "checkpoint-mismatch");
    }
}

#[test]
fn a_checkpoint_ahead_of_the_server_is_refused() {
    let stack = Stack::shared();
    let stream = stopped_stream(&stack, "ahead");
    let mut ahead = newest(&stream);
    ahead["end_lsn"] = "FFFF/0".into();
    write(&stream, Some(&ahead.to_string()));
    stream.refuses(&[], "server-behind-checkpoint");
}

#[test]
fn a_foreign_transaction_on_the_topic_is_waited_for() {
    let stack = Stack::shared();
    let stream = stopped_stream(&stack, "foreign_transaction");
    let foreign: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &stream.bootstrap_servers)
        .set("transactional.id", format!("foreign-{}", stream.name))
        .create()
        .expect("a producer");
    let bound = Duration::from_secs(30);
    foreign.init_transactions(bound).expect("it is initialised");
    foreign.begin_transaction().expect("it begins");
    let record = BaseRecord::to(&stream.checkpoint_topic).key("somebody else").payload("{}").partition(0);
    foreign.send(record).map_err(|(error, _)| error).expect("it is queued");
    foreign.flush(bound).expect("it is delivered");
    let mut program = stream.start();
    // Nothing can be awaited that must not happen.
    thread::sleep(Duration::from_secs(4));
    assert!(program.is_running());
    assert!(
        program.readiness().is_none_or(|answer| answer.status != 200),
        "it started while its checkpoint was undecided"
    );
    foreign.abort_transaction(bound).expect("it is aborted");
    program.await_ready();
    program.terminate();
}
