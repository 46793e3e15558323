//! Rows that were there before in the other envelopes and formats.

use std::collections::BTreeMap;

use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers},
};
use serde_json::Value;

use super::await_copied;
use crate::harness::{avro::Decoder, kafka, stack::Stack, stream::Stream};

#[test]
fn upserts_in_avro_have_the_rows_of_before() {
    copy("upsert", "avro");
}

#[test]
fn upserts_in_json_have_the_rows_of_before() {
    copy("upsert", "json");
}

#[test]
fn debeziums_envelope_in_json_has_the_rows_of_before() {
    copy("debezium", "json");
}

const ROWS: &str = "
    create table public.item (id int primary key, note text, body text, amount float8, list int[]);
    alter table public.item alter body set storage external;
    insert into public.item select number, nullif('n' || number % 5, 'n0'), repeat(md5(number::text), 100), number + 0.25, array[number, null]
        from generate_series(1, 1500) number;
";

/// What became of a key, one record after the other: its operation and the row.
type Told = BTreeMap<String, Vec<(String, Option<Value>)>>;

fn copy(envelope: &str, format: &str) {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, &format!("before_{envelope}_{format}"));
    stream.set("snapshot.mode", "initial");
    stream.set("snapshot.rows_per_second", "1000");
    stream.set("events.envelope", envelope);
    stream.set("events.format", format);
    stream.set("events.headers", "op, transaction_id");
    stream.database.execute(ROWS);
    let program = stream.start_ready();
    // Some before their chunk is read, and all of them behind it.
    stream.database.execute(
        "update public.item set note = 'again' where id % 100 = 7; delete from public.item where id % 100 = 8;
         insert into public.item (id) values (5000)",
    );
    await_copied(&program);
    stream
        .database
        .execute("update public.item set note = 'behind' where id = 1; delete from public.item where id = 2");
    let end = stream.database.wal_lsn();
    stream.database.mark();
    let mut checkpoints = kafka::Checkpoints::open(&stream.bootstrap_servers, &stream.checkpoint_topic, &stream.name);
    assert!(checkpoints.await_position(end, super::COPY_TIMEOUT).is_some(), "everything is in Kafka");
    program.terminate();

    let mut decoder = (format == "avro").then(|| Decoder::new(&stream.registry_url));
    let mut told = Told::new();
    let topic = stream.topic("item");
    kafka::read_to_end(
        &stream.bootstrap_servers,
        |name| name == topic,
        |message| take(message, envelope == "upsert", decoder.as_mut(), &mut told),
    );
    let mut rows: Vec<String> =
        told.values().filter_map(|records| records.last()?.1.as_ref().map(ToString::to_string)).collect();
    let mut client = stream.database.client();
    let expected = client.query("select row_to_json(t)::text from public.item t", &[]).expect("the rows");
    let mut expected: Vec<String> =
        expected.iter().map(|row| serde_json::from_str::<Value>(row.get(0)).expect("JSON").to_string()).collect();
    rows.sort();
    expected.sort();
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row, expected);
    }
    let copied = told.values().filter(|records| records.iter().filter(|(operation, _)| operation == "r").count() == 1);
    let copied = copied.count();
    assert!((1400..=1501).contains(&copied), "{copied} keys were copied once");
    assert!(told.values().flatten().all(|(operation, row)| (operation == "d") == row.is_none()), "{told:?}");
}

fn take(message: &BorrowedMessage<'_>, is_upsert: bool, decoder: Option<&mut Decoder>, told: &mut Told) {
    let header = |name: &str| {
        let headers = message.headers().expect("it has headers");
        let found = headers.iter().find(|header| header.key == name)?;
        Some(String::from_utf8(found.value?.to_vec()).expect("text"))
    };
    let operation = header("__op").expect("it is there");
    assert_eq!(operation == "r", header("__transaction_id").is_none(), "a row of before belongs to no transaction");
    let mut decoder = decoder;
    let mut read = |bytes: &[u8]| match &mut decoder {
        Some(decoder) => decoder.decode_json(bytes).1,
        None => serde_json::from_slice(bytes).expect("JSON"),
    };
    let key = read(message.key().expect("a key")).to_string();
    let mut value = message.payload().map(read);
    if !is_upsert {
        // A tombstone says nothing that the deletion before it has not said.
        let Some(envelope) = value else { return };
        assert_eq!(envelope["op"], operation.as_str());
        assert_eq!(envelope["source"]["snapshot"], if operation == "r" { "incremental" } else { "false" });
        assert_eq!(envelope["transaction"].is_null(), operation == "r");
        value = Some(envelope["after"].clone()).filter(Value::is_object);
    }
    let records = told.entry(key).or_default();
    if let Some(Value::Object(row)) = &mut value
        && row["body"] == "__debezium_unavailable_value"
    {
        let before = records.iter().rev().find_map(|(_, row)| row.as_ref());
        row["body"] = before.map_or(Value::Null, |row| row["body"].clone());
    }
    records.push((operation, value));
}
