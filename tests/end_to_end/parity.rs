//! The same SQL through Debezium, and through the whole program, gives the same records.
//!
//! The SQL and Debezium's records are those that the encoder alone is compared with (crates/encoder/tests/debezium). Here nothing is
//! recorded on our side: PostgreSQL runs the SQL, and a consumer reads what came to Kafka, with schemas that it asks the registry for.
//!
//! It is so for what the stream brings, and for the rows that were there before, which Debezium's initial snapshot reads and a copy here.
//!
//! What may differ is in the lists of the module `recording`, and in those below. Debezium's headers `__debezium.context.*` are not in
//! the recording.

use std::collections::BTreeMap;

use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers},
};
use serde_json::Value;

use crate::{
    harness::{
        avro::Decoder,
        kafka,
        stack::Stack,
        stream::{START_TIMEOUT, Stream},
        wait_until,
    },
    recording::{self, COLUMNS, Difference, Permitted, RUNS, Record, SNAPSHOT_ROWS, Topics},
};

const SCHEMA: &str = include_str!("../../crates/encoder/tests/debezium/schema.sql");
const SNAPSHOT: &str = include_str!("../../crates/encoder/tests/debezium/snapshot.sql");
const STREAM: &str = include_str!("../../crates/encoder/tests/debezium/stream.sql");
/// What Debezium wrote for them, in this order; the last are its records about transactions and messages.
const RECORDINGS: [&str; 3] = [
    include_str!("../../crates/encoder/tests/debezium/snapshot.jsonl"),
    include_str!("../../crates/encoder/tests/debezium/records.jsonl"),
    include_str!("../../crates/encoder/tests/debezium/metadata.jsonl"),
];
/// Debezium's prefix of topics, and the name of its database.
const DEBEZIUMS_NAME: &str = "corpus_dev";
/// A timestamp that Debezium wrote as a number which had wrapped around. Here it would stop the stream.
const UNREPRESENTABLE: &str = "'294276-12-31 23:59:59.999999'";

/// What differs besides what differs for the encoder alone.
const PERMITTED: [Permitted; 7] = [
    Permitted {
        topic: "",
        what: Difference::Snapshot,
        because: "what Debezium found in the tables is written while the stream runs here; the other test copies it",
    },
    Permitted {
        topic: ".truncated",
        what: Difference::Operation("t"),
        because: "Debezium leaves truncations out unless told otherwise",
    },
    Permitted {
        topic: ".transaction",
        what: Difference::Key("/id"),
        because: "where the server's log was; and Debezium's BEGIN and END have different ids, where ours name the commit",
    },
    Permitted { topic: ".transaction", what: Difference::Run("/id"), because: "as in the key" },
    Permitted {
        topic: ".transaction",
        what: Difference::Instead("/event_count", "0", "1"),
        because: "Debezium leaves the truncation out, and writes BEGIN and END of its transaction",
    },
    Permitted {
        topic: ".transaction",
        what: Difference::Instead(
            "/data_collections",
            "[]",
            "[{\"data_collection\": \"public.truncated\", \"event_count\": 1}]",
        ),
        because: "as in the count of all events",
    },
    Permitted {
        topic: ".transaction",
        what: Difference::Instead(
            "/data_collections/0/data_collection",
            "\"io.debezium.connector.postgresql.LogicalDecodingMessageMonitor$LogicalDecodingMessageId@592edf17\"",
            "\"message\"",
        ),
        because: "Debezium prints where an object was in its memory",
    },
];

/// What differs in the rows that were there before, besides what differs for the encoder alone.
const PERMITTED_IN_COPIES: [Permitted; 2] = [
    Permitted {
        topic: "",
        what: Difference::Run("/source/snapshot"),
        because: "Debezium tells the first and the last row of its initial snapshot, and here rows are copied while the stream runs: incremental",
    },
    Permitted {
        topic: "",
        what: Difference::Absent("/source/txId"),
        because: "Debezium names the transaction that reads, which has written none of the rows",
    },
];

/// A stream of the corpus' tables, as Debezium had them.
fn corpus(stack: &Stack, label: &str) -> Stream {
    let mut stream = Stream::create(stack, label);
    "corpus".clone_into(&mut stream.publication);
    for (key, value) in [
        ("postgres.manage", "false"),
        ("postgres.publication", "corpus"),
        ("postgres.tables", "[\"public.*\", \"Odd Schema.*\"]"),
        // As Debezium's topics are, so that all records of a topic have one order.
        ("kafka.topics.partitions", "1"),
    ] {
        stream.set(key, value);
    }
    stream.database.play(SCHEMA);
    stream
}

fn play(stream: &Stream, script: &str) {
    assert_eq!(script.matches(UNREPRESENTABLE).count(), 1);
    stream.database.play(&script.replace(UNREPRESENTABLE, "null"));
}

#[test]
fn every_row_that_was_there_is_what_debezium_wrote() {
    let stack = Stack::shared();
    let mut stream = corpus(&stack, "parity_copy");
    stream.set("snapshot.mode", "initial");
    // A slot that somebody else has made would say that the rows were streamed before.
    stream.set("postgres.manage", "true");
    stream.set("postgres.publish_via_partition_root", "false");
    play(&stream, SNAPSHOT);
    let program = stream.start_ready();
    wait_until(START_TIMEOUT, "every table is copied", || {
        program.log().contains("every table is copied").then_some(())
    });
    stream.drain();
    program.terminate();
    let found = found(&stream);
    for (topic, record) in found.iter().flat_map(|(topic, records)| records.iter().map(move |record| (topic, record))) {
        let of_record = |pointer| record.value.pointer(pointer).unwrap_or_else(|| panic!("{pointer} in {topic}"));
        assert_eq!((of_record("/op"), of_record("/source/snapshot")), (&"r".into(), &"incremental".into()), "{topic}");
    }
    let never =
        [Difference::Renamed("/source/txId"), Difference::Run("/transaction/id"), Difference::Value("nm", "null")];
    let mut permitted = [&PERMITTED_IN_COPIES[..], &RUNS, &COLUMNS, &SNAPSHOT_ROWS].concat();
    permitted.retain(|difference| !never.contains(&difference.what));
    recording::compare(expected(&RECORDINGS[..1], &stream.name), found, &permitted);
}

#[test]
fn every_record_of_the_stream_is_what_debezium_wrote() {
    let stack = Stack::shared();
    let mut stream = corpus(&stack, "parity");
    stream.set("events.transaction_topic", "true");
    let slot = format!("select pg_create_logical_replication_slot('{}', 'pgoutput')", stream.slot);
    stream.database.execute(&slot);
    let mut program = stream.start_with(&["--adopt-slot"], &[]);
    program.await_ready();
    play(&stream, SNAPSHOT);
    play(&stream, STREAM);
    stream.drain();
    program.terminate();
    let (mut expected, mut found) = (expected(&RECORDINGS, &stream.name), found(&stream));
    keep_transactions_of_the_stream(&format!("{}.transaction", stream.name), &mut expected, &mut found);
    let (ours, theirs) = (order(&found), order(&expected));
    // What Debezium has of its snapshot has no order, and came first here.
    assert_eq!(ours[ours.len() - theirs.len()..], theirs, "the order over all topics");
    recording::compare(expected, found, &[&PERMITTED[..], &RUNS, &COLUMNS, &SNAPSHOT_ROWS].concat());
}

/// Compares the ids of transactions with those of their events, and takes those out that Debezium has not seen: those of its snapshot, which
/// came first here, and those of the test's own marker.
fn keep_transactions_of_the_stream(topic: &str, expected: &mut Topics, found: &mut Topics) {
    let theirs = expected.get_mut(topic).expect("Debezium has the topic");
    let mut ours = found.remove(topic).expect("so have we");
    let mut events = BTreeMap::<String, u64>::new();
    for record in found.values().flatten() {
        if let Some(id) = record.value["transaction"]["id"].as_str() {
            *events.entry(id.to_owned()).or_default() += 1;
        }
    }
    let (mut kept, mut all) = (Vec::new(), 0);
    for pair in ours.chunks_mut(2) {
        let [begin, end] = pair else { panic!("a BEGIN without END: {pair:?}") };
        assert_eq!((&begin.value["status"], &end.value["status"]), (&"BEGIN".into(), &"END".into()));
        let id = begin.value["id"].as_str().expect("an id");
        for record in [&*begin, end] {
            assert_eq!((&record.key["id"], &record.value["id"]), (&id.into(), &id.into()));
        }
        let collections = end.value["data_collections"].as_array().expect("an array");
        if collections.iter().all(|collection| collection["data_collection"] == "public.marker") {
            continue;
        }
        assert_eq!(end.value["event_count"].as_u64(), events.get(id).copied(), "the events of {id}");
        all += 1;
        kept.extend([begin.clone(), end.clone()]);
    }
    assert_eq!(all, events.len(), "every transaction with events has its records");
    kept.drain(..kept.len() - theirs.len());
    found.insert(topic.to_owned(), kept);
}

/// What Debezium wrote, as if it had had our names.
fn expected(recordings: &[&str], name: &str) -> Topics {
    let mut topics = Topics::new();
    for file in recordings {
        for (topic, records) in recording::debezium(&file.replace(DEBEZIUMS_NAME, name)) {
            topics.entry(topic).or_default().extend(records.into_iter().map(|record| renamed(record, name)));
        }
    }
    topics
}

/// The schemas are kept apart from the records.
fn renamed(record: Record, name: &str) -> Record {
    let renamed = |schema: Value| -> Value {
        serde_json::from_str(&schema.to_string().replace(DEBEZIUMS_NAME, name)).expect("it is JSON still")
    };
    Record { key_schema: record.key_schema.map(renamed), value_schema: record.value_schema.map(renamed), ..record }
}

/// What came to Kafka.
fn found(stream: &Stream) -> Topics {
    let mut decoder = Decoder::new(&stream.registry_url);
    let mut topics = Topics::new();
    let prefix = format!("{}.", stream.name);
    let marker = stream.topic("marker");
    let is_wanted = |topic: &str| topic.starts_with(&prefix) && topic != marker;
    kafka::read_to_end(&stream.bootstrap_servers, is_wanted, |message| {
        topics.entry(message.topic().to_owned()).or_default().push(record(&mut decoder, message));
    });
    topics
}

fn record(decoder: &mut Decoder, message: &BorrowedMessage<'_>) -> Record {
    let mut decoded = |framed: Option<&[u8]>| match framed.map(|framed| decoder.decode_json(framed)) {
        Some((schema, value)) => (Some(schema.clone()), value),
        None => (None, Value::Null),
    };
    let (key_schema, key) = decoded(message.key());
    let (value_schema, value) = decoded(message.payload());
    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap_or_default().to_vec()).expect("a header is text");
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    let headers = headers.map(|header| (header.key.to_owned(), text(header.value))).collect();
    Record { key_schema, key, value_schema, value, headers }
}

/// The changes of the stream in the order of the log: the topic and the operation of each.
fn order(topics: &Topics) -> Vec<(&str, &Value)> {
    let mut events = BTreeMap::new();
    for (topic, records) in topics {
        for Record { value, .. } in records {
            let is_change = value["op"] == "c" || value["op"] == "u" || value["op"] == "d";
            // A changed key is two events at one position.
            let place = (value["source"]["lsn"].as_u64(), value["transaction"]["total_order"].as_u64());
            if is_change {
                assert!(events.insert(place, (topic.as_str(), &value["op"])).is_none(), "two events at one place");
            }
        }
    }
    events.into_values().collect()
}
