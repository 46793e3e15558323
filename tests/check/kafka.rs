//! Kafka.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use publisher::{MemoryBudget, OutgoingRecord, Producer, record_cost};

use crate::case::{Case, Checked, SECRETS};

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
    checked.refuses("checkpoint-topic", "has 2 partitions", "--delete --topic");
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

/// Writes an ACL about a topic of this name, for every principal from every host, by the numbers that Kafka has for operations and for what becomes
/// of them. A request for that is not in the crate that the product uses.
fn set_acl(case: &Case, topic: &str, operation: u8, permission: u8) {
    const CREATE_ACLS: i16 = 30;
    let text = |text: &str| [&i16::try_from(text.len()).expect("it is short").to_be_bytes(), text.as_bytes()].concat();
    let mut request =
        [&CREATE_ACLS.to_be_bytes()[..], &1_i16.to_be_bytes(), &7_i32.to_be_bytes(), &text("test")].concat();
    let about =
        [&1_i32.to_be_bytes()[..], &[2], &text(topic), &[3], &text("User:*"), &text("*"), &[operation, permission]];
    request.extend(about.concat());
    let mut connection = TcpStream::connect(case.lease.bootstrap_servers()).expect("connects");
    connection.write_all(&u32::try_from(request.len()).expect("it is short").to_be_bytes()).expect("sent");
    connection.write_all(&request).expect("sent");
    let mut length = [0; 4];
    connection.read_exact(&mut length).expect("answered");
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    connection.read_exact(&mut answer).expect("answered");
    // Correlation, throttling, one result and its error.
    assert_eq!(answer[8..14], [0, 0, 0, 1, 0, 0], "{answer:?}");
}

#[test]
fn what_the_brokers_do_not_grant_is_named_and_nothing_is_written() {
    const ALL: u8 = 2;
    const READ: u8 = 3;
    const WRITE: u8 = 4;
    const DENY: u8 = 2;
    const ALLOW: u8 = 3;
    let mut case = Case::new("rights_kafka");
    let checkpoints = format!("{}_checkpoints", case.name);
    let topic = format!("{}.public.orders", case.name);
    case.create_topic(&topic, 1, &[]);
    case.create_topic(&checkpoints, 1, &[("cleanup.policy", "compact")]);
    case.kafka = format!("checkpoint_topic = {checkpoints:?}");
    let checked = case.check();
    assert!(checked.one("ok", "topic-rights")["found"].as_str().unwrap_or_default().starts_with("WRITE on 2 topics"));
    // It takes a moment until a broker knows what the controller was told.
    let refuses = |case: &Case, id: &str, found: &str, fix: &str| {
        let began = Instant::now();
        let is_there =
            |checked: &Checked| checked.of(id, "error").iter().any(|error| error.to_string().contains(found));
        loop {
            let checked = case.check();
            if is_there(&checked) {
                checked.refuses(id, "", fix);
                return checked;
            }
            assert!(began.elapsed() < Duration::from_mins(1), "nothing is denied:\n{}", checked.text);
        }
    };
    set_acl(&case, &topic, ALL, ALLOW);
    set_acl(&case, &topic, WRITE, DENY);
    let checked = refuses(&case, "topic-rights", "do not grant WRITE", "--operation Write");
    assert_eq!(checked.one("error", "topic-rights")["about"], topic);
    checked.has_only_errors(&["topic-rights"]);
    let admin = publisher::TopicAdmin::new(&case.kafka_settings(), case.runtime.handle().clone()).expect("a client");
    assert!(admin.is_unwritten(&topic, 1).expect("it is asked"), "check has written");

    set_acl(&case, &checkpoints, ALL, ALLOW);
    set_acl(&case, &checkpoints, READ, DENY);
    refuses(&case, "topic-rights", "do not grant READ", "--operation Read");
    case.check().refuses("kafka-denied", "", "READ");

    // Where an ACL allows something to somebody, all else is denied, and such a topic is not even named.
    let hidden = format!("{}.public.hidden", case.name);
    case.create_topic(&hidden, 1, &[]);
    case.sql("CREATE TABLE hidden (id int PRIMARY KEY)");
    set_acl(&case, &hidden, READ, DENY);
    refuses(&case, "topic-rights", "it lacks DESCRIBE", "--operation Describe");
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
