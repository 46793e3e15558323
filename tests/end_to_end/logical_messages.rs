//! Logical decoding messages and the topic of transactions, under SIGKILL: each message once, each BEGIN and END once with the right
//! counts, whether the program dies between transactions or inside one that it has split.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rdkafka::Message;
use serde_json::Value;

use crate::harness::{avro::Decoder, kafka, random::Random, setting, stack::Stack, stream::Stream};

#[test]
fn every_message_and_every_end_is_there_once_whenever_it_is_killed() {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let mut stream = Stream::create(&stack, "messages");
    stream.database.execute("create table public.item (id bigserial primary key, text text)");
    for (key, value) in [
        ("events.transaction_topic", "true"),
        ("events.message_prefixes_except", "[\"noise*\"]"),
        ("kafka.transaction.max_records", "20"),
        ("kafka.transaction.split_after_records", "20"),
    ] {
        stream.set(key, value);
    }
    stream.start_ready().kill();
    let is_over = AtomicBool::new(false);
    let expected = thread::scope(|scope| {
        let mut writers_random = random.fork();
        let mut client = stream.database.client();
        let is_over = &is_over;
        let writer = scope.spawn(move || write(&mut client, &mut writers_random, is_over));
        for _ in 0..setting("PGSLUICE_TEST_KILL_ROUNDS", 60) / 10 {
            let mut program = stream.start();
            program.await_ready();
            thread::sleep(random.duration_ms(20..600));
            assert!(program.is_running(), "it ended by itself");
            program.kill();
        }
        is_over.store(true, Ordering::Relaxed);
        writer.join().expect("the writer ends")
    });
    let program = stream.start_ready();
    stream.drain();
    program.terminate();

    let written = Written::read(&stream);
    assert_eq!(written.alone, expected.alone, "messages outside of transactions, in the order of the log");
    assert_eq!(written.transactional, expected.transactional, "messages of transactions that committed");
    let mut resumed = stream.checkpoints().into_iter().flatten().filter(|checkpoint| !checkpoint["split"].is_null());
    assert!(resumed.next().is_some(), "no transaction was split");
    assert!(expected.alone.len() > 20 && expected.transactional.len() > 20, "there was something to see");
    written.assert_transactions();
}

#[derive(Default)]
struct Expected {
    alone: Vec<String>,
    transactional: Vec<String>,
}

/// Transactions with rows and messages, of which some are rolled back, and messages outside of any.
fn write(client: &mut postgres::Client, random: &mut Random, is_over: &AtomicBool) -> Expected {
    let mut expected = Expected::default();
    let emit = |is_transactional: bool, prefix: &str, content: &str| {
        format!("select pg_logical_emit_message({is_transactional}, '{prefix}', '{content}');")
    };
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let (rows, is_kept) = (random.within(0..80), random.chance(80));
        let (first, last, alone) = (format!("first-{number}"), format!("last-{number}"), format!("alone-{number}"));
        let statements = [
            "begin;".to_owned(),
            emit(true, "app", &first),
            emit(true, "noise.a", "unwanted"),
            format!("insert into public.item (text) select 'x' from generate_series(1, {rows});"),
            emit(false, "app", &alone),
            emit(false, "noise", "unwanted"),
            emit(true, "app", &last),
            // All of it has to be read again.
            "select pg_sleep(0.02);".to_owned(),
            if is_kept { "commit;" } else { "rollback;" }.to_owned(),
        ];
        client.batch_execute(&statements.concat()).expect("it is written");
        // It is there even if the transaction that wrote it is not.
        expected.alone.push(alone);
        if is_kept {
            expected.transactional.extend([first, last]);
        }
    }
    expected
}

#[derive(Default)]
struct Written {
    alone: Vec<String>,
    transactional: Vec<String>,
    /// For each transaction its events by table, and the last ordinal.
    events: BTreeMap<String, (BTreeMap<String, u64>, u64)>,
    /// The records of the topic of transactions by id.
    marks: BTreeMap<String, Vec<Value>>,
}

impl Written {
    fn read(stream: &Stream) -> Self {
        let mut written = Self::default();
        let mut decoder = Decoder::new(&stream.registry_url);
        let prefix = format!("{}.", stream.name);
        kafka::read_to_end(
            &stream.bootstrap_servers,
            |topic| topic.starts_with(&prefix),
            |message| {
                let (_, value) = decoder.decode_json(message.payload().expect("there are no tombstones"));
                written.add(message.topic().strip_prefix(&prefix).expect("it is one of ours"), value);
            },
        );
        written
    }

    fn add(&mut self, topic: &str, value: Value) {
        if topic == "transaction" {
            self.marks.entry(text(&value["id"])).or_default().push(value);
            return;
        }
        if topic == "message" {
            let content = unhex(value["message"]["content"]["bytes"].as_str().expect("bytes"));
            assert_eq!((&value["op"], &value["message"]["prefix"]), (&"m".into(), &"app".into()));
            if value["transaction"].is_null() {
                let lsn = value["source"]["lsn"].as_u64().expect("an LSN");
                assert_eq!(value["source"]["sequence"], format!("[\"{lsn}\",\"{lsn}\"]"));
                self.alone.push(content);
                return;
            }
            self.transactional.push(content);
        }
        let (tables, last) = self.events.entry(text(&value["transaction"]["id"])).or_default();
        *tables.entry(topic.to_owned()).or_default() += 1;
        *last = value["transaction"]["total_order"].as_u64().expect("an ordinal").max(*last);
    }

    /// One BEGIN and one END for each transaction, and in the END what is in the topics.
    fn assert_transactions(&self) {
        assert_eq!(self.marks.keys().collect::<Vec<_>>(), self.events.keys().collect::<Vec<_>>());
        for (id, marks) in &self.marks {
            let [begin, end] = marks.as_slice() else { panic!("{marks:?}") };
            assert_eq!((&begin["status"], &end["status"]), (&"BEGIN".into(), &"END".into()), "{id}");
            let (tables, last) = &self.events[id];
            assert_eq!(end["event_count"].as_u64(), Some(*last), "{id}");
            let collections = end["data_collections"].as_array().expect("an array").iter();
            let counted: BTreeMap<String, u64> = collections
                .map(|counted| (text(&counted["data_collection"]), counted["event_count"].as_u64().expect("a count")))
                .collect();
            assert_eq!(&counted, tables, "{id}");
            assert_eq!(tables.values().sum::<u64>(), *last, "{id}");
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn unhex(hex: &str) -> String {
    let byte = |pair| u8::from_str_radix(pair, 16).expect("a byte");
    (0..hex.len()).step_by(2).map(|at| char::from(byte(&hex[at..at + 2]))).collect()
}
