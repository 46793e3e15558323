//! Upserts and JSON: whoever puts the records of each key over one another has the tables, through kills of the program.

use std::{collections::BTreeMap, thread, time::Duration};

use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers},
};
use serde_json::Value;

use crate::{
    harness::{
        avro::Decoder,
        database::lsn,
        kafka::{self, Checkpoints},
        random::Random,
        stack::Stack,
        stream::{START_TIMEOUT, Stream},
        wait_until,
        workload::{TABLES, Workload},
    },
    snapshot::await_copied,
};

const UNAVAILABLE: &str = "__debezium_unavailable_value";

#[test]
fn upserts_in_avro_are_the_tables() {
    streams_the_tables("upsert", "avro");
}

#[test]
fn upserts_in_json_are_the_tables() {
    streams_the_tables("upsert", "json");
}

#[test]
fn debeziums_envelope_in_json_gives_the_tables() {
    streams_the_tables("debezium", "json");
}

#[test]
fn a_table_without_a_key_stops_upserts_with_a_name() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "keyless");
    stream.set("events.envelope", "upsert");
    stream.set("postgres.on_uncertain_key", "likely");
    let keyless = "create table public.item (v text not null); create unique index item_v on public.item (v);
                   alter table public.item replica identity full";
    stream.database.execute(keyless);
    let mut program = stream.start();
    program.exits_with(3, "schema-unrepresentable", START_TIMEOUT);
    assert!(program.log().contains("public.item has no key"), "a first start refuses it: {}", program.log());
    stream.database.execute("alter table public.item add primary key (v)");
    program = stream.start_ready();
    stream.database.execute("alter table public.item drop constraint item_pkey");
    // Of transactions that came between two looks at the key nothing is certain; those behind the second have none.
    wait_until(START_TIMEOUT, "a row without a key stops it", || {
        stream.database.execute("insert into public.item values (gen_random_uuid()::text)");
        (!program.is_running()).then_some(())
    });
    program.exits_with(3, "schema-unrepresentable", START_TIMEOUT);
    assert!(program.log().contains("public.item has no key"), "what is streamed already stops: {}", program.log());
}

/// Beside those of tables there are the topics of transactions and of messages.
#[test]
fn everything_is_json_without_a_registry() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "all_json");
    stream.set("events.format", "json");
    stream.set("events.transaction_topic", "true");
    stream.set("schema_registry.url", "http://127.0.0.1:1");
    stream.database.execute("create table public.item (id int primary key)");
    let program = stream.start_ready();
    stream.database.execute(
        "begin; insert into public.item values (1), (2); select pg_logical_emit_message(true, 'a\"b', 'inside'); commit; \
         select pg_logical_emit_message(false, 'app', 'outside')",
    );
    await_everything(&stream);
    program.terminate();
    let mut found: BTreeMap<String, Vec<(Value, Value)>> = BTreeMap::new();
    let prefix = format!("{}.", stream.name);
    kafka::read_to_end(
        &stream.bootstrap_servers,
        |topic| topic.starts_with(&prefix),
        |message| {
            let read = |bytes: Option<&[u8]>| serde_json::from_slice(bytes.expect("it is there")).expect("JSON");
            let topic = message.topic().trim_start_matches(&prefix).to_owned();
            found.entry(topic).or_default().push((read(message.key()), read(message.payload())));
        },
    );
    let id = &found["public.item"][0].1["transaction"]["id"];
    let of_id = |(key, _): &&(Value, Value)| key["id"] == *id;
    let marks: Vec<&Value> = found["transaction"].iter().filter(of_id).map(|(_, value)| value).collect();
    let [begin, end] = marks.as_slice() else { panic!("{marks:?}") };
    assert_eq!((&begin["status"], &begin["event_count"]), (&"BEGIN".into(), &Value::Null));
    assert_eq!((&end["status"], &end["event_count"]), (&"END".into(), &3.into()));
    let counts = serde_json::json!([
        { "data_collection": "public.item", "event_count": 2 },
        { "data_collection": "message", "event_count": 1 },
    ]);
    assert_eq!((&end["data_collections"], &end["ts_ms"]), (&counts, &begin["ts_ms"]));

    let mut messages = found["message"].clone();
    messages.sort_by_key(|(key, _)| key["prefix"].to_string());
    let [(_, inside), (key, outside)] = messages.as_slice() else { panic!("{messages:?}") };
    assert_eq!(*key, serde_json::json!({ "prefix": "app" }));
    assert_eq!((&inside["message"]["prefix"], &inside["transaction"]["id"]), (&"a\"b".into(), id));
    assert_eq!(inside["transaction"]["total_order"], 3);
    assert_eq!(outside["message"]["content"], "b3V0c2lkZQ==", "bytes are base64");
    assert_eq!((&outside["transaction"], &outside["source"]["txId"]), (&Value::Null, &Value::Null));
    assert_eq!(outside["source"]["table"], "");
}

#[test]
fn what_cannot_be_written_is_a_dead_letter_in_its_place() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "dead");
    stream.set("events.unrepresentable", "skip_to_dead_letter");
    stream.set("snapshot.mode", "initial");
    stream.database.execute(
        "create table public.item (id int primary key, v numeric(6,2), a int[]);
         insert into public.item values (11, 1.5, '{1}'), (12, 'NaN', '{2}'), (13, 3, '{3}')",
    );
    let program = stream.start_ready();
    await_copied(&program);
    stream.database.execute(
        "insert into public.item values (1, 1.5, '{1}'), (2, 'NaN', '{2}'), (3, 3, '{{3}}'), (4, 4, '{4}'); \
         update public.item set id = 5 where id = 2; delete from public.item where id = 5",
    );
    // Two names that Avro takes for one, until one of them is gone.
    stream.database.execute("alter table public.item add \"b c\" int, add \"b-c\" int");
    stream.database.execute(
        "insert into public.item values (6, 6, '{6}', 60, 600); update public.item set v = 7 where id = 6; \
         delete from public.item where id = 6; truncate public.item",
    );
    stream.database.execute("alter table public.item drop \"b c\"");
    stream.database.execute("insert into public.item values (8, 8, '{8}', 800)");
    stream.drain();
    assert_eq!(program.metric("events_total{op=\"dead_letter\",schema=\"public\",table=\"item\"}"), Some(4.0 + 4.0));
    assert!(program.log().contains("schema-unrepresentable"), "{}", program.log());
    program.terminate();
    let mut letters: Vec<Value> = Vec::new();
    let topic = format!("{}.dead-letters", stream.topic("item"));
    kafka::read_to_end(
        &stream.bootstrap_servers,
        |name| name == topic,
        |message| {
            assert_eq!((message.partition(), message.key()), (0, None), "all are in one partition, in order");
            letters.push(serde_json::from_slice(message.payload().expect("a value")).expect("JSON"));
        },
    );
    let seen: Vec<_> = letters.iter().map(|it| (it["op"].clone(), it["code"].clone(), it["ordinal"].clone())).collect();
    let letter = |op: &str, code: &str, ordinal: Value| (op.into(), code.into(), ordinal);
    assert_eq!(
        seen,
        [
            letter("r", "not_a_number", Value::Null),
            letter("c", "not_a_number", 2.into()),
            letter("c", "array_shape", 3.into()),
            letter("u", "not_a_number", 5.into()),
            letter("c", "unfit_table", 1.into()),
            letter("u", "unfit_table", 2.into()),
            letter("d", "unfit_table", 3.into()),
            letter("t", "unfit_table", 4.into()),
        ],
        "the deletion of before has a place in its record, since it says the key alone"
    );
    assert_eq!(letters[0]["new"], serde_json::json!(["12", "NaN", "{2}"]));
    assert_eq!(letters[1]["new"], serde_json::json!(["2", "NaN", "{2}"]));
    assert_eq!(letters[4]["new"], serde_json::json!(["6", "6.00", "{6}", "60", "600"]));
    assert!(letters[4]["error"].as_str().is_some_and(|error| error.contains("b c")), "{}", letters[4]);

    let records = stream.records();
    let events: Vec<_> = records.iter().filter(|it| it.table == "item").filter_map(|it| it.event.as_ref()).collect();
    let (copied, streamed): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.operation == "r");
    let mut ids: Vec<_> = copied.iter().map(|event| event.after.as_ref().expect("a row")["id"].as_deref()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [Some("11"), Some("13")], "what is beside a dead letter is copied");
    let mut ordinals: Vec<u64> = streamed.iter().map(|event| event.identity.ordinal).collect();
    ordinals.sort_unstable();
    assert_eq!(ordinals, [1, 1, 4, 6], "what is a dead letter has its ordinal");
}

#[test]
fn one_table_has_another_form_than_the_others() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "one_form");
    stream.set("tables", r#"[{ match = "public.plain", events = { envelope = "upsert", format = "json" } }]"#);
    stream.database.execute(
        "create table public.plain (id int primary key, v text); create table public.item (id int primary key, v text)",
    );
    let program = stream.start_ready();
    stream.database.execute("insert into public.plain values (1, 'one'); insert into public.item values (1, 'one'); delete from public.plain");
    stream.drain();
    program.terminate();
    let read = |table: &str| {
        let (topic, mut records) = (stream.topic(table), Vec::new());
        kafka::read_to_end(
            &stream.bootstrap_servers,
            |name| name == topic,
            |message| records.push((message.key().map(<[u8]>::to_vec), message.payload().map(<[u8]>::to_vec))),
        );
        records
    };
    let json = |bytes: &Option<Vec<u8>>| -> Option<Value> { serde_json::from_slice(bytes.as_deref()?).ok() };
    let plain: Vec<_> = read("plain").iter().map(|(key, value)| (json(key), json(value))).collect();
    let (key, row) = (serde_json::json!({ "id": 1 }), serde_json::json!({ "id": 1, "v": "one" }));
    assert_eq!(plain, [(Some(key.clone()), Some(row)), (Some(key), None)]);
    let item = read("item");
    assert!(
        matches!(&item[..], [(Some(key), Some(value))] if key[0] == 0 && value[0] == 0 && value.len() > 50),
        "{item:?}"
    );
}

fn streams_the_tables(envelope: &str, format: &str) {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let mut stream = Stream::create(&stack, &format!("{envelope}_{format}"));
    stream.set("events.envelope", envelope);
    stream.set("events.format", format);
    if format == "json" {
        // Nobody answers there, and nobody asks.
        stream.set("schema_registry.url", "http://127.0.0.1:1");
    }
    Workload::create_tables(&stream);
    let mut program = stream.start_ready();
    let workload = Workload::start(&stream, &mut random);
    for _ in 0..2 {
        thread::sleep(random.duration_ms(500..1500));
        program.kill();
        program = stream.start_ready();
    }
    thread::sleep(Duration::from_secs(1));
    workload.finish();
    await_everything(&stream);
    program.terminate();

    let mut reader = Reader {
        is_upsert: envelope == "upsert",
        decoder: (format == "avro").then(|| Decoder::new(&stream.registry_url)),
        events: Vec::new(),
    };
    let prefix = format!("{}.public.", stream.name);
    kafka::read_to_end(&stream.bootstrap_servers, |topic| topic.starts_with(&prefix), |message| reader.take(message));
    let events = reader.events;
    assert!(events.len() > 100, "{} events are too few to prove anything", events.len());
    let mut folded = folded(events);
    for table in TABLES {
        let found = folded.remove(&stream.topic(table.name)).unwrap_or_default();
        assert_eq!(sorted(found.into_values()), sorted(table_of(&stream, table.name)), "{}", table.name);
    }
}

/// Waits until a committed checkpoint covers all that was written.
fn await_everything(stream: &Stream) {
    let written = lsn(&stream.database.value::<String>("select pg_current_wal_lsn()::text"));
    // Something has to follow, or the server has no reason to tell how far it is.
    stream.database.mark();
    let mut checkpoints = Checkpoints::open(&stream.bootstrap_servers, &stream.checkpoint_topic, &stream.name);
    assert!(checkpoints.await_position(written, Duration::from_mins(1)).is_some(), "a checkpoint comes that far");
}

fn table_of(stream: &Stream, table: &str) -> Vec<Value> {
    let mut client = stream.database.client();
    let rows = client.query(&format!("select row_to_json(t)::text from public.{table} t"), &[]).expect("the rows");
    rows.iter().map(|row| serde_json::from_str(row.get(0)).expect("JSON")).collect()
}

fn sorted(rows: impl IntoIterator<Item = Value>) -> Vec<String> {
    let mut rows: Vec<String> = rows.into_iter().map(|row| row.to_string()).collect();
    rows.sort();
    rows
}

/// An event as a consumer sees it.
struct Event {
    commit_lsn: u64,
    ordinal: u64,
    topic: String,
    key: String,
    row: Option<Value>,
    unavailable: Vec<String>,
    /// The key that the row had before.
    old_key: Option<String>,
}

/// The tables that the events make, by topic and key.
fn folded(mut events: Vec<Event>) -> BTreeMap<String, BTreeMap<String, Value>> {
    events.sort_by_key(|event| (event.commit_lsn, event.ordinal));
    for pair in events.windows(2) {
        let identity = |event: &Event| (event.commit_lsn, event.ordinal);
        assert_ne!(identity(&pair[0]), identity(&pair[1]), "an event is there twice");
    }
    let mut tables: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    let mut gone: BTreeMap<(String, String), Value> = BTreeMap::new();
    for event in events {
        let table = tables.entry(event.topic.clone()).or_default();
        let Some(mut row) = event.row else {
            if let Some(row) = table.remove(&event.key) {
                gone.insert((event.topic, event.key), row);
            }
            continue;
        };
        for name in event.unavailable {
            let before = match &event.old_key {
                Some(old_key) => gone.get(&(event.topic.clone(), old_key.clone())),
                None => table.get(&event.key),
            };
            assert_eq!(row[&name], UNAVAILABLE, "it is no value");
            row[&name] = before.expect("the row was there before")[&name].clone();
        }
        table.insert(event.key, row);
    }
    tables
}

struct Reader {
    is_upsert: bool,
    decoder: Option<Decoder>,
    events: Vec<Event>,
}

impl Reader {
    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let key = self.read(message.key().expect("a key")).to_string();
        let value = message.payload().map(|value| self.read(value));
        let (id, ordinal, row, unavailable) = if self.is_upsert {
            let header = |name: &str| header(message, name);
            let unavailable: Vec<String> =
                header("__unavailable").map(|names| serde_json::from_str(&names).expect("names")).unwrap_or_default();
            assert_eq!(
                header("__op").expect("it is there") == "d",
                value.is_none(),
                "a row that is gone has no value, and no other"
            );
            let ordinal = header("__transaction_total_order").expect("it is there").parse().expect("it is there");
            (header("__transaction_id").expect("it is there"), ordinal, value, unavailable)
        } else {
            // A tombstone says nothing that the deletion before it has not said.
            let Some(value) = value else { return };
            let transaction = &value["transaction"];
            let row = Some(value["after"].clone()).filter(Value::is_object);
            let fields = row.iter().filter_map(Value::as_object).flatten();
            let unavailable = fields.filter(|(_, value)| *value == UNAVAILABLE).map(|(name, _)| name.clone()).collect();
            let id = transaction["id"].as_str().expect("it is there").to_owned();
            (id, transaction["total_order"].as_u64().expect("it is there"), row, unavailable)
        };
        let old_key = header(message, "__debezium.oldkey");
        self.events.push(Event {
            commit_lsn: id.split_once(':').expect("it is there").1.parse().expect("it is there"),
            ordinal,
            topic: message.topic().to_owned(),
            key,
            row,
            unavailable,
            old_key: old_key.map(|key| serde_json::from_str::<Value>(&key).expect("JSON").to_string()),
        });
    }

    fn read(&mut self, bytes: &[u8]) -> Value {
        match &mut self.decoder {
            Some(decoder) => plain(decoder.decode_json(bytes).1),
            None => serde_json::from_slice(bytes).expect("JSON"),
        }
    }
}

/// A decimal as a number.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(fields) if fields.len() == 1 && fields.contains_key("decimal") => {
            serde_json::from_str(fields["decimal"].as_str().expect("text")).expect("a number")
        }
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, plain(value))).collect(),
        other => other,
    }
}

fn header(message: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let headers = message.headers()?;
    let found = headers.iter().find(|header| header.key == name)?;
    Some(String::from_utf8(found.value?.to_vec()).expect("text"))
}
