//! A table whose schema the registry refuses is held back while the others go on, and when it is released every change of it is there once, in
//! order, whoever was killed meanwhile.

mod letters;
mod renamed;

use std::{collections::BTreeSet, os::unix::process::ExitStatusExt, thread, time::Duration};

use crate::harness::{
    http, kafka,
    oracle::Table,
    random::Random,
    setting,
    stack::Stack,
    stream::{Program, Stream},
    topics::Topics,
    wait_until,
    watcher::Watcher,
    workload::{TABLES as TABLES_OF_WRITERS, Workload},
};

const TABLES: &[Table] =
    &[Table { name: "item", key: &["id"], full: false }, Table { name: "other", key: &["id"], full: true }];
/// Of the first table a reader of the old schema cannot read the new one.
const CHANGE: &str = "alter table public.item alter n type text using n::text";
const SIGKILL: i32 = 9;

/// How the level of the subject is set.
trait Level {
    fn set(&self, stream: &Stream, level: &str);
}

/// At the stack's registry.
struct Remote;

impl Level for Remote {
    fn set(&self, stream: &Stream, level: &str) {
        let url: url::Url = stream.registry_url.parse().expect("a URL");
        let address = format!("{}:{}", url.host_str().expect("a host"), url.port().expect("a port"));
        let path = format!("{}/config/{}-value", url.path().trim_end_matches('/'), stream.topic("item"));
        let answer = http(&address, "PUT", &path, &format!(r#"{{"compatibility":"{level}"}}"#)).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

/// In the topic of the built-in registry.
struct BuiltIn;

impl Level for BuiltIn {
    fn set(&self, stream: &Stream, level: &str) {
        Self::set_of(stream, "item", level);
    }
}

impl BuiltIn {
    fn set_of(stream: &Stream, table: &str, level: &str) {
        let topic = stream.schema_topic.as_deref().expect("it has one");
        let key = format!(r#"{{"keytype":"CONFIG","subject":"{}-value","magic":0}}"#, stream.topic(table));
        let value = format!(r#"{{"compatibilityLevel":"{level}"}}"#);
        kafka::write(&stream.bootstrap_servers, topic, &key, Some(&value));
    }
}

fn create(stream: &mut Stream) {
    // Letters are released three at a time, and transactions are split after five records.
    stream.set("kafka.transaction.max_records", "3");
    stream.set("kafka.transaction.split_after_records", "5");
    stream.set("events.transaction_topic", "true");
    stream.database.create_tables(
        "create table public.item (id int primary key, n int, note text);
         create table public.other (id int primary key, n int); alter table public.other replica identity full",
    );
}

/// Every kind of change of both tables, in one transaction and in several. Rounds have rows of their own.
fn change(stream: &Stream, round: i32) {
    let id = round * 100;
    stream.database.execute(&format!(
        "begin;
         insert into public.item select {id} + i, i::text, repeat('x', 3000) from generate_series(1, 6) as i;
         insert into public.other select {id} + i, i from generate_series(1, 4) as i;
         update public.item set id = id + 50 where id = {id} + 1;
         update public.item set n = 'changed' where id = {id} + 2;
         update public.other set id = id + 50 where id = {id} + 1;
         delete from public.item where id = {id} + 3;
         update public.item set id = id + 50, note = 'é\"\\' where id = {id} + 4;
         commit"
    ));
    stream.database.execute(&format!("insert into public.item values ({id} + 9, null, null)"));
    stream.database.execute(&format!("delete from public.other where id = {id} + 2"));
}

fn rows(stream: &Stream, table: &str) -> usize {
    stream.records().iter().filter(|record| record.table == table).count()
}

fn await_quarantine(program: &Program) {
    wait_until(Duration::from_mins(1), "a table is in quarantine", || {
        program.metric("quarantined_tables").filter(|tables| *tables > 0.5)
    });
}

/// Puts `item` into quarantine by one change, and ends the program.
fn hold_one_back(stream: &Stream, program: Program) {
    stream.database.execute("insert into public.item values (2, 'two')");
    await_quarantine(&program);
    stream.drain();
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
}

/// Runs `release`, which must end so; returns what it said.
fn release(stream: &Stream, arguments: &[&str], exit_code: i32) -> String {
    let output = stream.command(&[&["release"], arguments].concat(), &[]);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(exit_code), "{said}");
    said
}

/// Gives up what waits of a table, once it was told; returns what was said then.
fn give_up(stream: &Stream, table: &str) -> String {
    let told = release(stream, &["--discard", table], 2);
    let (_, offset) = told.split_once("--up-to ").expect("it is said how");
    let offset: String = offset.chars().take_while(char::is_ascii_digit).collect();
    release(stream, &["--discard", table, "--up-to", &offset], 0)
}

/// Runs `release`, which dies at a fault point.
fn release_dies(stream: &Stream, fault: &str) {
    let output = stream.command(&["release", "--all"], &[("PGSLUICE_FAULT", fault)]);
    assert_eq!(output.status.signal(), Some(SIGKILL), "{fault}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A life that dies at a fault point, or is killed.
fn live_and_die(stream: &Stream, fault: &str) {
    let mut program = stream.start_with(&[], &[("PGSLUICE_FAULT", fault)]);
    let status = program.wait(Duration::from_mins(3), "it dies");
    assert_eq!(status.signal(), Some(SIGKILL), "{fault}");
}

fn hold_back_and_release(stream: &mut Stream, level: &dyn Level) {
    create(stream);
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (1, 1, 'before'), (2, 2, 'before')");
    stream.drain();
    level.set(stream, "BACKWARD");
    stream.database.execute(&format!("begin; insert into public.item values (3, 3, 'before'); {CHANGE}; commit"));
    change(stream, 1);

    // The other table goes on, and nobody who looks can miss it.
    stream.drain();
    await_quarantine(&program);
    assert_eq!(program.readiness().map(|answer| answer.status), Some(200));
    assert!(program.log().contains("the table is in quarantine from here on"));
    let (items, others) = (rows(stream, "item"), rows(stream, "other"));
    assert_eq!(items, 3, "what came before the change is there, and nothing else");
    program.kill();

    // The table changes again, and a row is older than its NOT NULL.
    stream.database.execute("alter table public.item add m int");
    stream.database.execute("insert into public.item values (7000, 'x', 'y', null)");
    stream.database.execute("update public.item set m = 0");
    stream.database.execute("alter table public.item alter m set not null, alter m set default 0");
    // Lives end at any place in transactions of both tables.
    for (round, fault) in ["before-commit:3", "after-commit:3", "during-commit:4"].into_iter().enumerate() {
        change(stream, 2 + i32::try_from(round).expect("it is small"));
        live_and_die(stream, fault);
    }
    // The last life was killed in the middle of a commit, which the topic may have to be waited for.
    let check = wait_until(Duration::from_mins(2), "the check reads the checkpoint", || {
        let check = stream.command(&["check"], &[]);
        let text = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(check.status.success(), "{text}");
        (!text.contains("checkpoint-unreadable")).then_some(text)
    });
    assert!(check.contains("table public.item is in quarantine"), "{check}");
    assert!(check.contains("does not fit the earlier versions"), "{check}");

    // A subject that is mended does not end it: what comes now is behind what waits. Nor does another policy.
    level.set(stream, "NONE");
    stream.set("schema_registry.on_incompatible", "stop");
    let program = stream.start_ready();
    change(stream, 7);
    stream.drain();
    assert_eq!(rows(stream, "item"), items);
    assert!(rows(stream, "other") > others);
    assert!(release(stream, &["public.item"], 1).contains("[slot-active]"));
    program.terminate();
    stream.database.await_slot_released(&stream.slot);

    // While the registry refuses, nothing is changed.
    level.set(stream, "BACKWARD");
    let written = kafka::TopicEnds::open(&stream.bootstrap_servers, &stream.topic("item")).written();
    assert!(release(stream, &["public.item"], 1).contains("[registry-incompatible]"));
    assert_eq!(kafka::TopicEnds::open(&stream.bootstrap_servers, &stream.topic("item")).written(), written);
    assert!(release(stream, &["public.other"], 2).contains("[not-in-quarantine]"));

    level.set(stream, "NONE");
    release_dies(stream, "before-commit:1");
    release_dies(stream, "before-commit:3");
    release_dies(stream, "after-commit:3");
    // Between two attempts the stream may run: what comes is behind what waits.
    let program = stream.start_ready();
    change(stream, 8);
    stream.drain();
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    release_dies(stream, "during-commit:4");
    let said = release(stream, &["--all"], 0);
    assert!(said.contains("public.item: "), "{said}");
    assert!(release(stream, &["--all"], 0).contains("no table is in quarantine"));
    assert!(release(stream, &["public.item"], 2).contains("[not-in-quarantine]"));

    // And the table goes on as any other.
    let program = stream.start_ready();
    change(stream, 9);
    stream.drain();
    assert_eq!(program.metric("quarantined_tables"), Some(0.0));
    let (records, verdict) = stream.judge(TABLES);
    verdict.assert_flawless();
    assert!(records.len() > 100, "{} records", records.len());
    program.terminate();
}

#[test]
fn every_change_is_there_once_and_in_order_after_the_release() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "quarantine");
    stream.set("schema_registry.on_incompatible", "quarantine");
    hold_back_and_release(&mut stream, &Remote);
}

#[test]
fn so_it_is_with_the_built_in_registry() {
    let stack = Stack::shared();
    let topic = format!("_schemas_quarantine_{}", std::process::id());
    let mut stream = Stream::create_with_built_in_registry(&stack, "quarantine_own", &topic);
    stream.set("schema_registry.on_incompatible", "quarantine");
    hold_back_and_release(&mut stream, &BuiltIn);
}

/// What is hidden in records is hidden in letters, and comes out of them as it would have.
#[test]
fn what_is_hidden_stays_hidden() {
    let stack = Stack::shared();
    let topic = format!("_schemas_quarantine_hidden_{}", std::process::id());
    let mut stream = Stream::create_with_built_in_registry(&stack, "quarantine_hidden", &topic);
    stream.set("schema_registry.on_incompatible", "quarantine");
    stream.set("columns.exclude", r#"["public.item.secret"]"#);
    stream.set("columns.masks", r#"[{ columns = ["public.item.name"], mask = "truncate", characters = 2 }]"#);
    stream.database.execute("create table public.item (id int primary key, n int, name text, secret text)");
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (1, 1, 'Annabel', 'hunter1')");
    stream.drain();
    BuiltIn.set(&stream, "BACKWARD");
    stream.database.execute(CHANGE);
    stream.database.execute("insert into public.item values (2, 'two', 'Bertrand', 'hunter2')");
    await_quarantine(&program);
    stream.drain();
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    let letters = format!("{}.dead-letters", stream.topic("item"));
    let mut texts = String::new();
    kafka::read_to_end(
        &stream.bootstrap_servers,
        |name| name == letters,
        |message| {
            texts.push_str(std::str::from_utf8(rdkafka::Message::payload(message).expect("a value")).expect("text"));
        },
    );
    assert!(texts.contains("\"Be\"") && !texts.contains("Bertrand") && !texts.contains("hunter2"), "{texts}");

    BuiltIn.set(&stream, "NONE");
    // The configuration must not ask for more than the letters have.
    stream.set("columns.exclude", "[]");
    assert!(release(&stream, &["public.item"], 3).contains("[not-released]"));
    stream.set("columns.exclude", r#"["public.item.secret"]"#);
    release(&stream, &["public.item"], 0);
    let program = stream.start_ready();
    let records = stream.records();
    let last = records.iter().rfind(|record| record.table == "item").and_then(|record| record.event.as_ref());
    let after = last.and_then(|event| event.after.clone()).expect("a row");
    assert_eq!(after["name"].as_deref(), Some("Be"));
    assert_eq!(after["n"].as_deref(), Some("two"));
    assert!(!after.contains_key("secret"));
    program.terminate();
}

/// Writers, deaths and splits at random, of three tables whose schemas do not fit from the beginning and two whose do.
#[test]
fn whatever_comes_every_change_is_there_once_after_the_release() {
    const HELD: [&str; 3] = ["document", "ledger", "pair"];
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let topic = format!("_schemas_quarantine_random_{}", std::process::id());
    let mut stream = Stream::create_with_built_in_registry(&stack, "quarantine_random", &topic);
    stream.set("schema_registry.on_incompatible", "quarantine");
    stream.set("kafka.transaction.max_records", "300");
    stream.set("kafka.transaction.split_after_records", "700");
    Workload::create_tables(&stream);
    stream.start_ready().kill();
    for (id, table) in HELD.into_iter().enumerate() {
        let subject = format!("{}-value", stream.topic(table));
        let key = format!(r#"{{"keytype":"SCHEMA","subject":"{subject}","version":1,"magic":1}}"#);
        let value = format!(
            r#"{{"subject":"{subject}","version":1,"id":{},"schema":"\"string\"","deleted":false}}"#,
            9000 + id
        );
        kafka::write(&stream.bootstrap_servers, &topic, &key, Some(&value));
    }
    let watcher = Watcher::start(&stream);
    let workload = Workload::start(&stream, &mut random);
    for _ in 0..setting("PGSLUICE_TEST_KILL_ROUNDS", 60) / 5 {
        let program = stream.start();
        thread::sleep(random.duration_ms(300..2500));
        program.kill();
    }
    workload.finish();
    let program = stream.start_ready();
    stream.drain();
    assert_eq!(program.metric("quarantined_tables"), Some(3.0));
    assert!(HELD.iter().all(|table| rows(&stream, table) == 0), "nothing of them is in their topics");
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    let watched = watcher.finish();

    for table in HELD {
        let key = format!(r#"{{"keytype":"CONFIG","subject":"{}-value","magic":0}}"#, stream.topic(table));
        kafka::write(&stream.bootstrap_servers, &topic, &key, Some(r#"{"compatibilityLevel":"NONE"}"#));
    }
    // However few changes the writers came to, they are more than a few commits.
    stream.set("kafka.transaction.max_records", "10");
    for commit in 2..6 {
        release_dies(&stream, &format!("during-commit:{commit}"));
    }
    let said = release(&stream, &["--all"], 0);
    let program = stream.start_ready();
    stream.drain();
    let (_, verdict) = stream.judge(TABLES_OF_WRITERS);
    println!("{said}{} events, {watched:?}", verdict.events);
    verdict.assert_flawless();
    program.terminate();
}

/// A stream of one table, whose schema is refused from the next change on.
fn about_to_be_refused(stack: &Stack, label: &str) -> (Stream, Program) {
    let topic = format!("_schemas_{label}_{}", std::process::id());
    let mut stream = Stream::create_with_built_in_registry(stack, label, &topic);
    stream.set("schema_registry.on_incompatible", "quarantine");
    stream.database.create_tables("create table public.item (id int primary key, n int)");
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (1, 1)");
    stream.drain();
    BuiltIn.set(&stream, "BACKWARD");
    stream.database.execute(CHANGE);
    (stream, program)
}

/// Whoever forces a release takes the place of an instance that runs, as another instance would.
#[test]
fn a_forced_release_fences_the_stream() {
    let stack = Stack::shared();
    let (stream, mut program) = about_to_be_refused(&stack, "quarantine_forced");
    stream.database.execute("insert into public.item values (2, 'two')");
    await_quarantine(&program);
    stream.drain();
    BuiltIn.set(&stream, "NONE");
    release(&stream, &["--force", "public.item"], 0);
    program.exits_with(4, "fenced", Duration::from_mins(1));
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (3, 'three')");
    stream.drain();
    let (_, verdict) = stream.judge(&TABLES[..1]);
    verdict.assert_flawless();
    program.terminate();
}

/// Nobody is fenced for a table that is not in quarantine.
#[test]
fn a_release_of_nothing_disturbs_nobody() {
    let stack = Stack::shared();
    let (mut stream, mut program) = about_to_be_refused(&stack, "quarantine_nothing");
    assert!(release(&stream, &["--force", "--all"], 0).contains("no table is in quarantine"));
    assert!(release(&stream, &["--force", "public.item"], 2).contains("[not-in-quarantine]"));
    assert!(
        release(&stream, &["--force", "--discard", "--up-to", "0", "public.item"], 2).contains("[not-in-quarantine]")
    );
    stream.database.execute("insert into public.item values (2, 'two')");
    await_quarantine(&program);
    assert!(release(&stream, &["--force", "public.other"], 2).contains("[not-in-quarantine]"));
    // Nor with the configuration of another stream.
    stream.set("postgres.slot", "another");
    for arguments in [&["--force", "--all"][..], &["--force", "--discard", "--up-to", "0", "public.item"]] {
        assert!(release(&stream, arguments, 3).contains("[checkpoint-mismatch]"));
    }
    stream.set("postgres.slot", &stream.slot.clone());
    stream.database.execute("insert into public.item values (3, 'three')");
    stream.drain();
    assert!(program.is_running());
    let instances = stream.checkpoints().into_iter().flatten().map(|checkpoint| checkpoint["instance"].to_string());
    assert_eq!(instances.collect::<BTreeSet<_>>().len(), 1, "nobody else has written a checkpoint");
    program.terminate();
}

/// One table that cannot be released keeps no other.
#[test]
fn tables_are_released_beside_one_that_is_refused() {
    const NAMES: [&str; 3] = ["item", "other", "third"];
    let stack = Stack::shared();
    let topic = format!("_schemas_quarantine_beside_{}", std::process::id());
    let mut stream = Stream::create_with_built_in_registry(&stack, "quarantine_beside", &topic);
    stream.set("schema_registry.on_incompatible", "quarantine");
    for table in NAMES {
        stream.database.create_tables(&format!("create table public.{table} (id int primary key, n int)"));
    }
    let program = stream.start_ready();
    for table in NAMES {
        stream.database.execute(&format!("insert into public.{table} values (1, 1)"));
    }
    stream.drain();
    for table in NAMES {
        BuiltIn::set_of(&stream, table, "BACKWARD");
        stream.database.execute(&format!("alter table public.{table} alter n type text using n::text"));
        stream.database.execute(&format!("insert into public.{table} values (2, 'two')"));
    }
    wait_until(Duration::from_mins(1), "all are in quarantine", || {
        program.metric("quarantined_tables").filter(|tables| *tables > 2.5)
    });
    stream.drain();
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    // The first is refused, and one of the others has lost its letters.
    BuiltIn::set_of(&stream, "other", "NONE");
    BuiltIn::set_of(&stream, "third", "NONE");
    Topics::of(&stream.bootstrap_servers).empty(&format!("{}.dead-letters", stream.topic("third")));
    let said = release(&stream, &["--all"], 1);
    for part in [
        "public.item is not released: [registry-incompatible]",
        "public.other: 1 changes released to",
        "public.third is not released: [letters-missing]",
        "1 of 3 tables are released",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = give_up(&stream, "public.third");
    assert!(said.contains("given up: public.third") && !said.contains("public.item"), "{said}");
    BuiltIn::set_of(&stream, "item", "NONE");
    let said = release(&stream, &["--all"], 0);
    assert!(said.contains("public.item: 1 changes released to") && !said.contains("public.third"), "{said}");
    let program = stream.start_ready();
    assert_eq!(NAMES.map(|table| rows(&stream, table)), [2, 2, 1]);
    program.terminate();
}

/// An earlier version kept one list of all tables: it is in force, and every topic has an entry of its own from the next start on.
#[test]
fn the_list_of_an_earlier_version_is_taken_over() {
    let stack = Stack::shared();
    let (stream, program) = about_to_be_refused(&stack, "quarantine_list");
    hold_one_back(&stream, program);
    let (list, entry) =
        (format!("{}/quarantine", stream.name), format!("{}/quarantine/{}", stream.name, stream.topic("item")));
    let newest = |key: &str| {
        kafka::checkpoints(&stream.bootstrap_servers, &stream.checkpoint_topic, key).pop().expect("there is one")
    };
    let mut table = newest(&entry).expect("it is in quarantine");
    assert_eq!(table["table"], "public.item");
    let version = table.as_object_mut().and_then(|table| table.remove("version")).expect("a version");
    let older = serde_json::json!({ "version": version, "topics": { stream.topic("item"): table } }).to_string();
    kafka::write(&stream.bootstrap_servers, &stream.checkpoint_topic, &list, Some(&older));
    kafka::write(&stream.bootstrap_servers, &stream.checkpoint_topic, &entry, None);

    let check = stream.command(&["check"], &[]);
    assert!(String::from_utf8_lossy(&check.stdout).contains("table public.item is in quarantine"));
    BuiltIn.set(&stream, "NONE");
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (3, 'three')");
    stream.drain();
    assert_eq!(program.metric("quarantined_tables"), Some(1.0));
    assert_eq!(newest(&list), None);
    assert!(newest(&entry).expect("an entry")["end_offset"].as_i64() > table["end_offset"].as_i64());
    program.terminate();
    stream.database.await_slot_released(&stream.slot);

    // So it is where nothing ran before the release.
    kafka::write(&stream.bootstrap_servers, &stream.checkpoint_topic, &list, Some(&older));
    release_dies(&stream, "before-commit:1");
    release(&stream, &["public.item"], 0);
    assert_eq!((newest(&list), newest(&entry)), (None, None));
    let program = stream.start_ready();
    let (_, verdict) = stream.judge(&TABLES[..1]);
    verdict.assert_flawless();
    program.terminate();
}

/// Rows from before the stream are copied once their table was released; those of other tables do not wait.
#[test]
fn a_copy_waits_for_the_release_and_others_do_not() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "quarantine_copy");
    stream.set("schema_registry.on_incompatible", "quarantine");
    stream.set("snapshot.mode", "initial");
    stream.database.execute(
        "create table public.item (id int primary key); insert into public.item select generate_series(1, 5);
         create table public.other (id int primary key); insert into public.other select generate_series(1, 5)",
    );
    let url: url::Url = stream.registry_url.parse().expect("a URL");
    let address = format!("{}:{}", url.host_str().expect("a host"), url.port().expect("a port"));
    let path = format!("{}/subjects/{}-value/versions", url.path().trim_end_matches('/'), stream.topic("item"));
    let body = serde_json::json!({ "schema": r#"{"type":"string"}"# }).to_string();
    assert_eq!(http(&address, "POST", &path, &body).expect("an answer").status, 200);
    Remote.set(&stream, "BACKWARD");
    let count = |table: &str| {
        let (topic, mut records) = (stream.topic(table), 0);
        kafka::read_to_end(&stream.bootstrap_servers, |name| name == topic, |_| records += 1);
        records
    };
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (6)");
    await_quarantine(&program);
    wait_until(Duration::from_mins(1), "the other table is copied", || (count("other") >= 5).then_some(()));
    stream.drain();
    assert_eq!(count("item"), 0);
    assert_eq!(program.readiness().map(|answer| answer.status), Some(200));
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    Remote.set(&stream, "NONE");
    release(&stream, &["public.item"], 0);
    assert_eq!(count("item"), 1, "the change");
    let program = stream.start_ready();
    wait_until(Duration::from_mins(2), "the table is copied", || (count("item") >= 6).then_some(()));
    assert_eq!(count("other"), 5);
    program.terminate();
}

/// What waits for one topic is not overtaken in another.
#[test]
fn a_table_in_quarantine_stays_in_its_topic() {
    let stack = Stack::shared();
    let (mut stream, program) = about_to_be_refused(&stack, "quarantine_rerouted");
    hold_one_back(&stream, program);
    BuiltIn.set(&stream, "NONE");
    stream.database.execute("insert into public.item values (3, 'three')");
    stream.set("tables", r#"[{ match = "public.item", topic = "{name}.elsewhere.{table}" }]"#);
    let mut program = stream.start();
    program.exits_with(3, "quarantine-rerouted", Duration::from_mins(1));
    assert!(program.log().contains(&stream.topic("item")), "{}", program.log());
    assert!(release(&stream, &["public.item"], 3).contains("[not-released]"));
    stream.set("tables", "[]");
    // It may be named by its topic too.
    assert!(release(&stream, &["--discard", &stream.topic("item")], 2).contains("public.item: 1 changes wait"));
    release(&stream, &[&stream.topic("item")], 0);
    let program = stream.start_ready();
    stream.drain();
    let (_, verdict) = stream.judge(&TABLES[..1]);
    verdict.assert_flawless();
    program.terminate();
}

/// A letter may be larger than any record: what is too large is found before anything is written.
#[test]
fn a_record_that_is_too_large_is_found_before_anything_is_written() {
    let stack = Stack::shared();
    let (mut stream, program) = about_to_be_refused(&stack, "quarantine_too_large");
    stream.database.execute("insert into public.item values (2, 'two')");
    stream.database.execute("insert into public.item values (3, repeat('a', 1100000))");
    await_quarantine(&program);
    stream.drain();
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    BuiltIn.set(&stream, "NONE");
    stream.set("kafka.transaction.max_records", "1");
    let written = || kafka::TopicEnds::open(&stream.bootstrap_servers, &stream.topic("item")).written();
    let before = written();
    assert!(release(&stream, &["public.item"], 3).contains("[record-too-large]"));
    assert_eq!(written(), before);
    Topics::of(&stream.bootstrap_servers).configure(&stream.topic("item"), "max.message.bytes", "5000000");
    stream.set("kafka.properties", r#"{ "message.max.bytes" = "4000000" }"#);
    release(&stream, &["public.item"], 0);
    let program = stream.start_ready();
    stream.drain();
    let (_, verdict) = stream.judge(&TABLES[..1]);
    verdict.assert_flawless();
    program.terminate();
}
