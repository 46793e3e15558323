//! Kafka.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use publisher::{MemoryBudget, OutgoingRecord, Producer, record_cost};

use crate::case::{Case, SECRETS};

#[test]
fn kafka_that_does_not_fit_is_named() {
    let mut case = Case::new("kafka");
    let checkpoints = format!("{}_checkpoints", case.name);
    let topic = format!("{}.public.orders", case.name);
    case.create_topic(&checkpoints, 2, &[]);
    case.create_topic(&topic, 2, &[("min.insync.replicas", "2"), ("max.message.bytes", "1000")]);
    case.sql("CREATE TABLE lines (id int PRIMARY KEY)");
    case.kafka = format!(
        "checkpoint_topic = {checkpoints:?}\n[kafka.properties]\n\"transaction.timeout.ms\" = \"900001\"\n\
         [kafka.topics]\npartitions = 3\nreplication_factor = 3"
    );
    let checked = case.check();
    checked.refuses("checkpoint-topic", "has 2 partitions", "kafka-topics.sh --delete");
    checked.refuses("transaction-timeout", "900001", "\"transaction.timeout.ms\" = \"900000\" or less");
    checked.refuses("topic-min-insync-replicas", "2 of 1", "min.insync.replicas=1");
    // One broker cannot hold three replicas.
    checked.refuses("topic-creation", "public.lines", "kafka.topics");
    checked.has_only_errors(&[
        "checkpoint-topic",
        "transaction-timeout",
        "topic-min-insync-replicas",
        "topic-creation",
    ]);
    assert_eq!(checked.one("warning", "topic-partitions")["about"], topic);
    assert!(
        checked.one("warning", "message-max-bytes")["fix"].as_str().unwrap_or_default().contains("max.message.bytes")
    );

    let checkpoints = format!("{}_deleted", case.name);
    case.create_topic(&checkpoints, 1, &[("cleanup.policy", "compact,delete")]);
    case.kafka = format!("checkpoint_topic = {checkpoints:?}");
    let checked = case.check();
    checked.refuses("checkpoint-topic", "compact,delete", "--add-config cleanup.policy=compact");
}

#[test]
fn a_checkpoint_behind_an_open_transaction_is_said_to_be_unknown() {
    let mut case = Case::new("open");
    let checkpoints = format!("{}_checkpoints", case.name);
    case.create_topic(&checkpoints, 1, &[("cleanup.policy", "compact")]);
    case.kafka = format!("checkpoint_topic = {checkpoints:?}");

    // As an instance leaves it that is killed in the middle.
    let budget = Arc::new(MemoryBudget::new(1 << 20));
    let producer = Producer::connect(&case.kafka_settings(), Arc::clone(&budget)).expect("connects");
    let mut transaction = producer.begin().expect("begins");
    budget.charge(record_cost(1, 1, 0));
    let record = OutgoingRecord {
        topic: &checkpoints,
        key: Some(b"k"),
        value: Some(b"v"),
        headers: &[],
        is_letter: false,
        lsn: pgoutput::Lsn::INVALID,
    };
    transaction.send(&record).expect("queued");
    let began = Instant::now();
    while budget.used_bytes() > 0 {
        transaction.poll().expect("no failure");
        assert!(began.elapsed() < Duration::from_mins(1), "it is not delivered");
        std::thread::sleep(Duration::from_millis(5));
    }
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
    checked.one("warning", "checkpoint-unreadable");

    transaction.abort();
    assert_eq!(case.check().one("ok", "checkpoint")["found"], "none yet");
}

#[test]
fn every_property_that_librdkafka_does_not_know_is_named() {
    let mut case = Case::new("properties");
    case.kafka = format!(
        "[kafka.properties]\n\"linger.mss\" = \"5\"\n\"sasl.pasword\" = {:?}\n\"socket.timeout.ms\" = {:?}",
        SECRETS[2], SECRETS[2]
    );
    let checked = case.check();
    for name in ["linger.mss", "sasl.pasword", "socket.timeout.ms"] {
        checked.refuses("kafka-property", name, &format!("correct {name} in kafka.properties"));
    }
    checked.has_only_errors(&["kafka-property"]);
}
