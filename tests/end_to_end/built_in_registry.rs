//! No registry is configured: the program is one, and what it wrote is decoded through its own endpoint.

use std::{os::unix::process::ExitStatusExt, thread, time::Duration};

use rdkafka::Message;

use crate::harness::{
    http_get, kafka,
    oracle::Table,
    random::Random,
    setting,
    stack::{Server, Stack},
    stream::{Program, Stream},
    wait_until,
    watcher::Watcher,
    workload::{TABLES, Workload},
};

const ITEM: &[Table] = &[Table { name: "item", key: &["id"], full: true }];

fn topic(label: &str) -> String {
    format!("_schemas_{label}_{}", std::process::id())
}

fn waits_for(program: &Program, code: &str) {
    wait_until(Duration::from_mins(1), "the probe says what the stream waits for", || {
        program.readiness().filter(|answer| answer.status == 503 && answer.body.contains(code))
    });
}

/// The log of the topic, and what must hold of it: no id has two schemas, and no schema two ids.
fn schemas(stream: &Stream) -> usize {
    let topic = stream.schema_topic.as_deref().expect("it has a topic of schemas");
    let (mut texts, mut ids) = (std::collections::HashMap::new(), std::collections::HashMap::new());
    kafka::read_to_end(
        &stream.bootstrap_servers,
        |name| name == topic,
        |message| {
            let value: serde_json::Value = message
                .payload()
                .map_or(serde_json::Value::Null, |value| serde_json::from_slice(value).expect("a value is JSON"));
            if let (Some(id), Some(text)) = (value["id"].as_u64(), value["schema"].as_str()) {
                assert_eq!(*texts.entry(id).or_insert_with(|| text.to_owned()), text, "the id {id} has two schemas");
                assert_eq!(*ids.entry(text.to_owned()).or_insert(id), id, "{text} has two ids");
            }
        },
    );
    texts.len()
}

#[test]
fn every_change_is_decoded_through_its_own_endpoint() {
    let stack = Stack::shared();
    let stream = Stream::create_with_built_in_registry(&stack, "own", &topic("own"));
    stream.database.create_tables(
        "create table public.item (id int primary key, n int); alter table public.item replica identity full",
    );
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (1, 1), (2, 2)");
    stream.database.execute("alter table public.item add note text");
    stream.database.execute("update public.item set note = 'x' where id = 1; delete from public.item where id = 2");
    stream.drain();
    let before = schemas(&stream);

    // Another life gives the same ids to the same schemas.
    program.kill();
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (3, 3, 'y')");
    stream.drain();
    assert_eq!(schemas(&stream), before);

    // A change that no reader could follow: the stream waits, as with a registry of another make, until somebody has decided.
    stream.database.execute("alter table public.item alter n type text using n::text");
    stream.database.execute("insert into public.item values (4, 'four', null)");
    waits_for(&program, "registry-incompatible");
    let topic = stream.schema_topic.as_deref().expect("it has one");
    let key = format!(r#"{{"keytype":"CONFIG","subject":"{}-value","magic":0}}"#, stream.topic("item"));
    kafka::write(&stream.bootstrap_servers, topic, &key, Some(r#"{"compatibilityLevel":"NONE"}"#));
    stream.drain();
    assert_eq!(schemas(&stream), before + 1);
    let records = stream.records();
    let item: Vec<_> = records.iter().filter(|record| record.table == "item").collect();
    assert_eq!(item.len(), 7, "five rows written or changed, and a delete with its tombstone");
    assert!(
        item.iter()
            .filter_map(|record| record.event.as_ref())
            .any(|event| { event.after.as_ref().is_some_and(|row| row["n"].as_deref() == Some("four")) }),
        "the row of the new schema is there"
    );
    program.terminate();
}

#[test]
fn every_change_is_there_once_whenever_it_is_killed() {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let stream = Stream::create_with_built_in_registry(&stack, "own_kill", &topic("own_kill"));
    Workload::create_tables(&stream);
    stream.start_ready().kill();
    let watcher = Watcher::start(&stream);
    let workload = Workload::start(&stream, &mut random);
    let rounds = setting("PGSLUICE_TEST_KILL_ROUNDS", 60) / 4;
    let mut deaths = 0;
    for round in 0..rounds {
        // The first lives die while they register, between the write of a schema and its commit.
        let fault = format!("before-schema-commit:{}", round % 3 + 1);
        let environment: &[(&str, &str)] = if round < 6 { &[("PGSLUICE_FAULT", &fault)] } else { &[] };
        let mut program = stream.start_with(&[], environment);
        let began = std::time::Instant::now();
        let patience = if round < 6 { Duration::from_secs(8) } else { random.duration_ms(100..1200) };
        while program.is_running() && began.elapsed() < patience {
            thread::sleep(Duration::from_millis(5));
        }
        if program.is_running() {
            program.kill();
        } else {
            let status = program.wait(Duration::from_secs(1), "it has ended");
            assert_eq!(status.signal(), Some(9), "it ended with {status}");
            deaths += 1;
        }
    }
    workload.finish().assert_varied();
    let program = stream.start_ready();
    stream.drain();
    let watched = watcher.finish();
    let (_, verdict) = stream.judge(TABLES);
    program.terminate();
    let schemas = schemas(&stream);
    println!(
        "{rounds} kills, {deaths} of them between a schema and its commit, {} events, {schemas} schemas, {watched:?}",
        verdict.events
    );
    verdict.assert_flawless();
    assert!(schemas > TABLES.len());
    assert!(!cfg!(feature = "fault-points") || deaths > 0, "nobody died while it registered");
}

#[test]
fn what_is_known_is_served_while_kafka_is_away() {
    let stack = Stack::exclusive();
    let stream = Stream::create_with_built_in_registry(&stack, "away", &topic("away"));
    stream.database.create_tables(
        "create table public.item (id int primary key, n int); alter table public.item replica identity full;
         create table public.late (id int primary key); alter table public.late replica identity full",
    );
    let mut program = stream.start_ready();
    stream.database.execute("insert into public.item values (1, 1)");
    stream.drain();
    let address = stream.registry_url.trim_start_matches("http://").to_owned();
    stack.kill(Server::Kafka);
    stream.database.execute("insert into public.item values (2, 2)");
    assert_eq!(http_get(&address, "/schemas/ids/1").expect("it answers").status, 200);
    let unknown = http_get(&address, "/schemas/ids/999").expect("it answers");
    assert_eq!(unknown.status, 500, "nobody can say that there is none: {}", unknown.body);
    assert!(unknown.body.contains("\"error_code\":5000"), "{}", unknown.body);
    stack.start(Server::Kafka);
    program.await_ready();
    // A table whose schemas are registered only now, by what was connected before.
    stream.database.execute("insert into public.late values (1)");
    stream.drain();
    assert_eq!(http_get(&address, "/schemas/ids/999").expect("it answers").status, 404);
    let (_, verdict) = stream.judge(&[ITEM[0], Table { name: "late", key: &["id"], full: true }]);
    verdict.assert_flawless();
    program.terminate();
    assert!(schemas(&stream) >= 4);
}

#[test]
fn streams_share_a_topic_and_each_serves_what_the_other_wrote() {
    let stack = Stack::shared();
    let topic = topic("both");
    let mut streams = ["one", "other"].map(|label| Stream::create_with_built_in_registry(&stack, label, &topic));
    for stream in &streams {
        stream.database.create_tables(
            "create table public.item (id int primary key, n int); alter table public.item replica identity full",
        );
    }
    // At once, so that both register at the same time.
    let mut programs: Vec<Program> = streams.iter().map(Stream::start).collect();
    for (stream, program) in streams.iter().zip(&mut programs) {
        program.await_ready();
        stream.database.execute("insert into public.item values (1, 1)");
    }
    for stream in &streams {
        stream.drain();
    }
    let urls = streams.each_ref().map(|stream| stream.registry_url.clone());
    for (stream, url) in streams.iter_mut().zip(urls.iter().rev()) {
        stream.registry_url.clone_from(url);
        let (_, verdict) = stream.judge(ITEM);
        verdict.assert_flawless();
    }
    programs.into_iter().for_each(Program::terminate);
    // The names of the streams are in the names of their types, so that no schema of the one is the other's: a key and a value for each
    // of two tables.
    assert_eq!(schemas(&streams[0]), 8);
}
