//! Letters are the only copy of what they hold: they are kept, taken whatever their size, missed when they are gone, and given up only on
//! somebody's word.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use publisher::{
    Isolation, KafkaSettings, LogReader, MemoryBudget, OutgoingRecord, Producer, PublishError, record_cost,
};
use rdkafka::Offset;

use super::{BuiltIn, CHANGE, Level, about_to_be_refused, await_quarantine, give_up, hold_one_back, release};
use crate::harness::{kafka, proxy::Proxy, stack::Stack, stream::Stream, topics::Topics, wait_until};

/// In several partitions letters would have no order.
#[test]
fn a_topic_of_letters_with_several_partitions_is_refused() {
    let stack = Stack::shared();
    let (stream, program) = about_to_be_refused(&stack, "quarantine_unfit");
    program.terminate();
    Topics::of(&stream.bootstrap_servers).create(&format!("{}.dead-letters", stream.topic("item")));
    stream.database.execute("insert into public.item values (2, 'two')");
    let mut program = stream.start();
    program.exits_with(3, "topic-unfit", Duration::from_mins(1));
}

/// Letters that are gone are missed: at the next start, and by the release. Somebody has to say that they are given up.
#[test]
fn letters_that_are_gone_are_missed() {
    let stack = Stack::shared();
    let (stream, program) = about_to_be_refused(&stack, "quarantine_gone");
    hold_one_back(&stream, program);
    BuiltIn.set(&stream, "NONE");
    let said = release(&stream, &["--discard", "public.item"], 2);
    assert!(said.contains("public.item: 1 changes wait in") && said.contains("at the offsets 0 to 0"), "{said}");
    assert!(said.contains("[not-confirmed]") && !said.contains("missing"), "{said}");
    let letters = format!("{}.dead-letters", stream.topic("item"));
    Topics::of(&stream.bootstrap_servers).empty(&letters);
    assert!(release(&stream, &["public.item"], 3).contains("[letters-missing]"));
    stream.database.execute("insert into public.item values (3, 'three')");
    let mut program = stream.start();
    program.exits_with(3, "letters-missing", Duration::from_mins(1));

    // One that was deleted and created again looks as if nothing had ever waited in it.
    let topics = Topics::of(&stream.bootstrap_servers);
    topics.delete(&letters);
    let mut program = stream.start();
    program.exits_with(3, "letters-missing", Duration::from_mins(1));
    assert!(release(&stream, &["public.item"], 3).contains("[letters-missing]"));
    topics.create(&letters);
    let mut program = stream.start();
    program.exits_with(3, "letters-missing", Duration::from_mins(1));
    assert!(release(&stream, &["public.item"], 3).contains("[letters-missing]"));
    let check = stream.command(&["check"], &[]);
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.code() == Some(5) && text.contains("letters-missing"), "{text}");

    // Nothing is given up by the way.
    let said = release(&stream, &["--discard", "public.item"], 2);
    assert!(said.contains("more are missing already"), "{said}");
    assert!(release(&stream, &["--discard", "public.other", "--up-to", "9"], 2).contains("[not-in-quarantine]"));
    assert!(stream.command(&["check"], &[]).status.code() == Some(5));
    assert!(
        release(&stream, &["--discard", "public.item", "--up-to", "0"], 2).contains("more has come behind offset 0")
    );
    let said = give_up(&stream, "public.item");
    assert!(said.contains("given up: public.item: 0 changes wait in"), "{said}");
    assert!(release(&stream, &["public.item"], 2).contains("[not-in-quarantine]"));
    // What comes is written as ever; what was confirmed and given up is nowhere.
    let program = stream.start_ready();
    stream.drain();
    assert_eq!(ids(&stream), [Some("1".to_owned()), Some("3".to_owned())]);
    program.terminate();
}

/// Where the first letters are gone, those that are there are worth keeping, and the stream goes on; nothing is released without a word.
#[test]
fn letters_go_on_where_only_the_first_are_gone() {
    let stack = Stack::shared();
    let (stream, program) = about_to_be_refused(&stack, "quarantine_front");
    hold_one_back(&stream, program);
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (3, 'three')");
    stream.drain();
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    let letters = format!("{}.dead-letters", stream.topic("item"));
    Topics::of(&stream.bootstrap_servers).trim(&letters, Offset::Offset(1));
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (4, 'four')");
    stream.drain();
    assert!(program.log().contains("letters-missing") && program.log().contains("keeps the letters that are there"));
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    BuiltIn.set(&stream, "NONE");
    assert!(release(&stream, &["public.item"], 3).contains("[letters-missing]"));
    let said = release(&stream, &["--discard", "public.item"], 2);
    assert!(said.contains("public.item: 2 changes wait in") && said.contains("more are missing already"), "{said}");
    assert!(give_up(&stream, "public.item").contains("given up: public.item: 2 changes wait in"));
}

/// The ids of the rows of the first table that were written, sorted: there is no order between partitions.
fn ids(stream: &Stream) -> Vec<Option<String>> {
    let records = stream.records();
    let rows = records.iter().filter(|record| record.table == "item").filter_map(|record| record.event.as_ref());
    let mut ids: Vec<_> = rows.filter_map(|event| event.after.as_ref()).map(|after| after["id"].clone()).collect();
    ids.sort_unstable();
    ids
}

/// Letters are the only copy: their topic keeps them, though it was there before, and what else was set of it stays.
#[test]
fn a_topic_that_was_there_before_keeps_letters() {
    const OTHER: (&str, &str) = ("segment.bytes", "1048577");
    let stack = Stack::shared();
    let (stream, program) = about_to_be_refused(&stack, "quarantine_kept");
    let (letters, topics) = (format!("{}.dead-letters", stream.topic("item")), Topics::of(&stream.bootstrap_servers));
    topics.create_with(&letters, 1, &[("retention.ms", "3600000"), ("retention.bytes", "1000000"), OTHER]);
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (2, 'two')");
    await_quarantine(&program);
    let larger = (16_000_000 + (1 << 20)).to_string();
    for (key, value) in [("retention.ms", "-1"), ("retention.bytes", "-1"), ("max.message.bytes", &larger), OTHER] {
        assert_eq!(topics.config(&letters, key).as_deref(), Some(value), "{key}");
    }
    assert!(!program.log().contains("may be lost at any time"));
    assert!(!checked(&stream).contains("letters-retention"));
    assert!(!program.log().contains("if it held records before"), "of letters nothing of the kind is said");
    program.terminate();
    stream.database.await_slot_released(&stream.slot);

    // Whoever takes that back is told of it.
    topics.configure(&letters, "retention.ms", "3600000");
    let text = checked(&stream);
    assert!(text.contains("letters-retention") && text.contains("retention.ms is 3600000"), "{text}");
    assert!(
        text.contains("max.message.bytes is 1048588, and a dead letter of public.item may have 17048576"),
        "{text}"
    );
    assert!(text.contains(&format!("--bootstrap-server {} --alter", stream.bootstrap_servers)), "{text}");
    // The next start sets it again, whether the table changes or not.
    let program = stream.start_ready();
    let is_set = |key: &str, value: &str| topics.config(&letters, key).as_deref() == Some(value);
    wait_until(Duration::from_mins(1), "it is set again", || {
        (is_set("retention.ms", "-1") && is_set("max.message.bytes", &larger)).then_some(())
    });
    // So does the next change of a table that this process has not seen before.
    topics.configure(&letters, "retention.ms", "3600000");
    stream.database.execute("insert into public.item values (3, 'three')");
    stream.drain();
    assert!(is_set("retention.ms", "-1"));
    assert!(!program.log().contains("may be lost at any time"));
    program.terminate();
    stream.database.await_slot_released(&stream.slot);

    // With the checkpoint its quarantine is gone, and that is not silent either.
    kafka::write(&stream.bootstrap_servers, &stream.checkpoint_topic, &stream.name, None);
    let program = stream.start_with(&["--adopt-slot"], &[]);
    wait_until(Duration::from_mins(1), "it is said", || {
        let log = program.log();
        log.contains("the table was in quarantine before its checkpoint was removed")
            .then(|| log.contains("public.item"))
    });
    program.terminate();
}

/// Whoever may not have the topic keep letters is told what to set, and the stream waits for it.
#[test]
fn where_the_topic_may_not_be_configured_the_stream_waits() {
    let stack = Stack::shared();
    let (mut stream, program) = about_to_be_refused(&stack, "quarantine_denied");
    let (letters, topics) = (format!("{}.dead-letters", stream.topic("item")), Topics::of(&stream.bootstrap_servers));
    topics.create_with(&letters, 1, &[("retention.ms", "3600000")]);
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    let proxy = Proxy::to_kafka(&stream.bootstrap_servers);
    stream.set("kafka.bootstrap_servers", &proxy.address());
    proxy.deny_configuration(true);
    stream.database.execute("insert into public.item values (2, 'two')");
    let program = stream.start();
    wait_until(Duration::from_mins(1), "it waits", || {
        program.log().contains("the table cannot come into quarantine").then_some(())
    });
    let log = program.log();
    for part in [
        "retention.ms is 3600000",
        "TopicAuthorizationFailed",
        "grant ALTER_CONFIGS",
        "retention.ms=-1,retention.bytes=-1",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert_eq!(program.metric("quarantined_tables"), Some(0.0));
    assert_eq!(topics.config(&letters, "retention.ms").as_deref(), Some("3600000"));
    proxy.deny_configuration(false);
    await_quarantine(&program);
    assert_eq!(topics.config(&letters, "retention.ms").as_deref(), Some("-1"));
    stream.drain();
    program.terminate();
    stream.database.await_slot_released(&stream.slot);

    // Of a table that is in quarantine already it is said aloud, and the stream goes on.
    topics.configure(&letters, "retention.ms", "3600000");
    proxy.deny_configuration(true);
    let program = stream.start_ready();
    wait_until(Duration::from_mins(1), "it is said", || {
        program.log().contains("the changes of a table in quarantine may be lost at any time").then_some(())
    });
    stream.database.execute("insert into public.item values (3, 'three')");
    stream.drain();
    program.terminate();
}

/// A letter has as text what its record may have as bytes or bits: Kafka takes it nevertheless, and it comes out of it as it was.
#[test]
fn a_letter_may_be_larger_than_its_record() {
    let stack = Stack::shared();
    let topic = format!("_schemas_quarantine_large_{}", std::process::id());
    let mut stream = Stream::create_with_built_in_registry(&stack, "quarantine_large", &topic);
    stream.set("schema_registry.on_incompatible", "quarantine");
    // What is sent is as large as it is.
    stream.set("kafka.properties", r#"{ "compression.type" = "none" }"#);
    stream.database.execute("create table public.item (id int primary key, n int, t text, b bytea, v varbit)");
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (1, 1)");
    stream.drain();
    BuiltIn.set(&stream, "BACKWARD");
    stream.database.execute(CHANGE);
    // Of the first, escapes are six times as large as the characters, of the second digits are twice, and of the third eight times.
    stream.database.execute(
        "insert into public.item values (2, 'two', repeat(chr(1), 700000), null, null), \
         (3, 'three', null, decode(repeat('0af1', 350000), 'hex'), null), \
         (4, 'four', null, null, repeat('1011', 1000000)::varbit)",
    );
    await_quarantine(&program);
    stream.drain();
    assert_eq!(program.metric("quarantined_tables"), Some(1.0));
    let letters = format!("{}.dead-letters", stream.topic("item"));
    let mut sizes = Vec::new();
    kafka::read_to_end(
        &stream.bootstrap_servers,
        |name| name == letters,
        |message| sizes.push(rdkafka::Message::payload(message).expect("a value").len()),
    );
    let bounds = [900_000..1_000_000, 900_000..1_000_000, 4_000_000..4_010_000];
    assert!(sizes.len() == 3 && sizes.iter().zip(bounds).all(|(size, bounds)| bounds.contains(size)), "{sizes:?}");
    let text = checked(&stream);
    assert!(text.contains("letters-max-bytes"), "{text}");
    // A record of a table may not be so large, wherever it is to go.
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    BuiltIn.set(&stream, "NONE");
    release(&stream, &["public.item"], 0);
    let mut program = stream.start_ready();
    stream.drain();
    let rows = stream.records();
    let after = |id: &str, column: &str| {
        let mut events = rows.iter().filter_map(|record| record.event.as_ref()?.after.as_ref());
        events
            .find(|after| after["id"].as_deref() == Some(id))
            .and_then(|after| after[column].clone())
            .expect("a value")
    };
    assert_eq!(after("2", "t"), "\u{1}".repeat(700_000));
    assert_eq!(after("3", "b").trim_start_matches("\\x"), "0af1".repeat(350_000));
    assert!(after("4", "v").len() >= 500_000);
    let topics = Topics::of(&stream.bootstrap_servers);
    topics.configure(&stream.topic("item"), "max.message.bytes", "5000000");
    stream.database.execute("insert into public.item values (5, 'five', repeat('a', 1000000), null, null)");
    program.exits_with(3, "record-too-large", Duration::from_mins(1));
    assert!(program.log().contains(r#"key {\"id\":5}"#), "{}", program.log());
}

/// What the check says.
fn checked(stream: &Stream) -> String {
    String::from_utf8_lossy(&stream.command(&["check"], &[]).stdout).into_owned()
}

/// Where letters would not be kept, or not be taken, there is no quarantine: the stream waits, and says what to set.
#[test]
fn a_table_does_not_come_into_quarantine_where_letters_would_be_lost() {
    let stack = Stack::shared();
    let (stream, program) = about_to_be_refused(&stack, "quarantine_unkept");
    let (letters, topics) = (format!("{}.dead-letters", stream.topic("item")), Topics::of(&stream.bootstrap_servers));
    topics.create_with(&letters, 1, &[("cleanup.policy", "compact")]);
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    stream.database.execute("insert into public.item values (2, 'two')");
    let program = stream.start();
    wait_until(Duration::from_mins(1), "it waits", || {
        program.log().contains("the table cannot come into quarantine").then_some(())
    });
    let log = program.log();
    assert!(log.contains("cleanup.policy is compact") && log.contains("--add-config cleanup.policy=delete"), "{log}");
    assert_eq!(program.metric("quarantined_tables"), Some(0.0));
    assert_eq!(program.readiness().map(|answer| answer.status), Some(503));
    topics.configure(&letters, "cleanup.policy", "delete");
    await_quarantine(&program);
    assert_eq!(topics.config(&letters, "retention.ms").as_deref(), Some("-1"));
    stream.drain();
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    BuiltIn.set(&stream, "NONE");
    release(&stream, &["--all"], 0);
    let program = stream.start_ready();
    assert_eq!(ids(&stream), [Some("1".to_owned()), Some("2".to_owned())]);
    program.terminate();
}

/// To ask for a topic of letters does not create it; one that was made anew does not pass for what it was; and what was removed under a reader is
/// missed, at the topic's beginning too.
#[test]
fn letters_are_not_taken_for_others() {
    let stack = Stack::shared();
    let topic = format!("quarantine_read_{}", std::process::id());
    let bootstrap_servers = stack.bootstrap_servers().to_owned();
    let settings = KafkaSettings {
        bootstrap_servers: bootstrap_servers.clone(),
        name: topic.clone(),
        properties: BTreeMap::new(),
        memory_limit_bytes: 64 << 20,
        token_file: None,
        observer: publisher::ErrorObserver::default(),
    };
    let reader = || LogReader::new(&settings, topic.as_str(), Isolation::Committed);
    assert_eq!(reader().bounds_if_there().expect("an answer"), None);
    assert_eq!(reader().bounds_if_there().expect("an answer"), None, "it was not created");
    let topics = Topics::of(&bootstrap_servers);
    topics.create_with(&topic, 1, &[]);
    assert_eq!(reader().bounds_if_there().expect("an answer"), Some((0, 0)));

    let budget = Arc::new(MemoryBudget::new(1 << 20));
    budget.charge(record_cost(0, 2, 0));
    let producer = Producer::connect(&settings, budget).expect("a producer");
    producer.has_been_written_to(&topic, 3);
    let mut transaction = producer.begin().expect("a transaction");
    let (headers, lsn) = (&[][..], 1.into());
    let letter = OutgoingRecord { topic: &topic, key: None, value: Some(b"{}"), headers, is_letter: true, lsn };
    transaction.send(&letter).expect("it is queued");
    let found = transaction.written_to(&topic);
    assert!(matches!(found, Err(PublishError::TopicRecreated { .. })), "{found:?}");
    transaction.abort();
    let has = |offset: i64| reader().starting_at(offset).has_next(Duration::from_mins(1)).expect("an answer");
    assert!(!has(0), "it was given up, though the topic ends behind it");

    for number in 0..3 {
        kafka::write(&bootstrap_servers, &topic, &number.to_string(), Some("{}"));
    }
    let (_, end) = reader().bounds_if_there().expect("an answer").expect("it is there");
    let read = |mut reader: LogReader| reader.read_on(end, Duration::from_mins(1), |_, _, _| {});
    read(reader().starting_at(0)).expect("everything is there");
    assert!(has(end - 1) && !has(0));
    topics.empty(&topic);
    read(reader()).expect("what is there is read");
    for offset in [0, 1] {
        let found = read(reader().starting_at(offset));
        assert!(found.as_ref().is_err_and(PublishError::is_offset_gone), "{offset}: {found:?}");
    }
}
