//! Records are found, shown and passed on from the points that an operator knows, with neither PostgreSQL nor the stream there.

mod copy;
mod documented;
mod group;
mod refusals;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use rdkafka::Message;
use serde_json::Value;

use crate::harness::{
    event::Record,
    kafka, setting,
    stack::Stack,
    stream::{DRAIN_TIMEOUT, Stream},
    wait_until,
};

/// How many transactions: each inserts a row, and some update one, delete one, or are rolled back.
const ROWS: usize = 60;

/// A stream that has ended, with its table's topic in Kafka; its PostgreSQL cannot be reached any more.
fn ended(label: &str, set: &[(&str, &str)]) -> Stream {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, label);
    for (key, value) in set {
        stream.set(key, value);
    }
    stream.database.execute(
        "create table public.item (id int primary key, status text, amount numeric(12,2), raw bytea, big bigint)",
    );
    let program = stream.start_ready();
    for id in 0..ROWS {
        let status = ["open", "paid", "it''s"][id % 3];
        let insert = format!("insert into public.item values ({id}, '{status}', {id}.50, '\\x00ff', 9007199254740993)");
        let more = match id % 5 {
            4 => format!(
                "update public.item set status = 'late' where id = {}; delete from public.item where id = {}",
                id - 1,
                id - 2
            ),
            _ => String::new(),
        };
        let end = if id % 11 == 10 { "rollback" } else { "commit" };
        stream.database.execute(&format!("begin; {insert}; {more}; {end}"));
    }
    stream.drain();
    program.terminate();
    stream.set("postgres.url", "postgres://nobody@127.0.0.1:1/none");
    stream
}

/// What a command says on standard output, which must end like this.
fn replay(stream: &Stream, arguments: &[&str], exit_code: i32) -> (String, String) {
    let output = stream.command(&[&["replay"], arguments].concat(), &[]);
    let text = |bytes| String::from_utf8(bytes).expect("it is text");
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(exit_code), "{arguments:?}: {stderr}");
    (stdout, stderr)
}

/// The records that it shows as JSON.
fn lines(stream: &Stream, arguments: &[&str]) -> Vec<Value> {
    let (stdout, _) = replay(stream, &[arguments, &["--output", "json"]].concat(), 0);
    stdout.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

fn places(lines: &[Value]) -> Vec<(i64, i64)> {
    let number = |value: &Value| value.as_i64().expect("a number");
    let mut places: Vec<_> = lines.iter().map(|line| (number(&line["partition"]), number(&line["offset"]))).collect();
    places.sort_unstable();
    places
}

/// The records of the topic as a consumer that shares no code with the program finds them, by partition.
fn records(stream: &Stream) -> BTreeMap<i32, Vec<Record>> {
    let mut records: BTreeMap<i32, Vec<Record>> = BTreeMap::new();
    for record in stream.records().into_iter().filter(|record| record.table == "item") {
        records.entry(record.partition).or_default().push(record);
    }
    records
}

fn commit_lsn(record: &Record) -> Option<u64> {
    record.event.as_ref().map(|event| event.identity.commit_lsn)
}

/// What is to be replayed from one LSN to another: per partition from the first record that committed there or later on.
fn expected(records: &BTreeMap<i32, Vec<Record>>, from: u64, to: u64) -> Vec<(i64, i64)> {
    let mut places = Vec::new();
    for records in records.values() {
        let first = |lsn: u64| records.iter().position(|record| commit_lsn(record).is_some_and(|commit| commit >= lsn));
        let (from, to) = (first(from).unwrap_or(records.len()), first(to).unwrap_or(records.len()));
        places.extend(records[from..to.max(from)].iter().map(|record| (record.partition.into(), record.offset)));
    }
    places.sort_unstable();
    places
}

#[test]
fn records_come_from_one_lsn_to_another() {
    let stream = ended("replay_lsn", &[]);
    let (topic, records) = (stream.topic("item"), records(&stream));
    let mut commits: Vec<u64> = records.values().flatten().filter_map(commit_lsn).collect();
    commits.sort_unstable();
    commits.dedup();
    let lsn = |lsn: u64| pgoutput::Lsn::from(lsn).to_string();
    let (first, last) = (commits[0], *commits.last().expect("there are some"));
    let middle = commits[commits.len() / 2];
    for (from, to) in [
        (1, u64::MAX),
        (first, last),
        (middle, u64::MAX),
        (middle + 1, last),
        (middle - 1, middle + 1),
        (last, u64::MAX),
    ] {
        let found = lines(&stream, &[&topic, "--from-lsn", &lsn(from), "--to-lsn", &lsn(to)]);
        assert_eq!(places(&found), expected(&records, from, to), "{from} to {to}");
        let numbers = lines(&stream, &[&topic, "--from-lsn", &from.to_string(), "--to-lsn", &to.to_string()]);
        assert_eq!(found, numbers);
    }
    // The LSN of a change finds its whole transaction, which commits behind it.
    let update =
        records.values().flatten().filter_map(|record| record.event.as_ref()).find(|event| event.operation == "u");
    let update = update.expect("there is one");
    assert!(update.lsn < update.identity.commit_lsn);
    let found = lines(&stream, &[&topic, "--from-lsn", &lsn(update.lsn)]);
    assert_eq!(places(&found), expected(&records, update.lsn, u64::MAX));
    for line in &found {
        let of = records
            .values()
            .flatten()
            .find(|record| (record.partition.into(), record.offset) == places(std::slice::from_ref(line))[0]);
        assert_eq!(line["lsn"].as_str().map(str::to_owned), of.and_then(commit_lsn).map(lsn), "{line}");
    }
}

#[test]
fn several_topics_are_read_one_after_another() {
    let stream = ended("replay_topics", &[]);
    let (item, marker) = (stream.topic("item"), stream.topic("marker"));
    let count = |topic: &str| lines(&stream, &[topic, "--from-beginning"]).len();
    let both = lines(&stream, &[&item, &marker, &item, "--from-beginning"]);
    assert_eq!(both.len(), count(&item) + count(&marker));
    let topics: Vec<&str> = both.iter().filter_map(|line| line["topic"].as_str()).collect();
    assert!(topics.is_sorted() && topics[0] == item && topics[both.len() - 1] == marker);
    // One that has nothing so late is no reason not to show the other.
    let last = both.iter().rev().find_map(|line| line["lsn"].as_str()).expect("a commit");
    let (stdout, said) = replay(&stream, &[&item, &marker, "--from-lsn", last, "--output", "json"], 0);
    assert!(stdout.lines().count() > 0 && stdout.lines().all(|line| line.contains(&marker)), "{stdout}");
    assert!(said.contains(&format!("{item} has nothing from LSN {last} on")), "{said}");
    let (table, _) = replay(&stream, &[&item, &marker, "--from-lsn", last], 0);
    assert!(table.starts_with("TOPIC ") && table.contains(&format!("\n{marker}  ")), "{table}");
}

#[test]
fn records_come_by_offset_time_key_and_condition() {
    let stream = ended("replay_which", &[]);
    let topic = stream.topic("item");
    let all = lines(&stream, &[&topic, "--from-beginning"]);
    assert_eq!(places(&all), expected(&records(&stream), 0, u64::MAX));

    // By offset, in one partition.
    let of = |line: &Value, from: i64, to: i64| {
        line["partition"] == 1 && (from..to).contains(&line["offset"].as_i64().expect("a number"))
    };
    let found = lines(&stream, &[&topic, "--partition", "1", "--from-offset", "5", "--to-offset", "14"]);
    let wanted: Vec<Value> = all.iter().filter(|line| of(line, 5, 14)).cloned().collect();
    assert!(!wanted.is_empty());
    assert_eq!(found, wanted);

    // By time, as Kafka has it.
    let mut times = BTreeMap::new();
    kafka::read_to_end(
        &stream.bootstrap_servers,
        |name| name == topic,
        |message| {
            times.insert(
                (i64::from(message.partition()), message.offset()),
                message.timestamp().to_millis().expect("a time"),
            );
        },
    );
    let mut sorted: Vec<i64> = times.values().copied().collect();
    sorted.sort_unstable();
    let middle = sorted[sorted.len() / 2];
    let text = |ms: i64| format!("{}.{:03}Z", seconds(ms), ms.rem_euclid(1000));
    let found = lines(&stream, &[&topic, "--from-time", &text(middle), "--to-time", &text(middle + 200)]);
    let wanted: Vec<_> =
        times.iter().filter(|(_, time)| (middle..middle + 200).contains(*time)).map(|(place, _)| *place).collect();
    assert!(!wanted.is_empty());
    assert_eq!(places(&found), wanted);
    assert_eq!(lines(&stream, &[&topic, "--from-time", "1d ago"]).len(), all.len());

    // By key: the tombstone of a deletion too.
    for key in ["id=7", "{\"id\":7}"] {
        let found = lines(&stream, &[&topic, "--from-beginning", "--key", key]);
        let ops: Vec<_> = found.iter().map(|line| line["value"]["op"].as_str()).collect();
        assert_eq!(ops, [Some("c"), Some("d"), None], "{key}");
        assert_eq!((&found[2]["key"]["id"], &found[2]["value"]), (&7.into(), &Value::Null));
    }

    // By condition.
    let count = |condition: &str| lines(&stream, &[&topic, "--from-beginning", "--where", condition]).len();
    let wanted =
        all.iter().filter(|line| line["value"]["after"]["status"] == "paid" && line["value"]["op"] == "c").count();
    assert!(wanted > 0);
    assert_eq!(count("after.status = 'paid' and op in (c)"), wanted);
    assert_eq!(count("after.amount = 7.500 and op = c"), 1);
    assert_eq!(count("after.big = 9007199254740992"), 0);
    assert_eq!(count("value is null"), all.iter().filter(|line| line["value"].is_null()).count());
    let (_, said) = replay(&stream, &[&topic, "--from-beginning", "--where", "afer.status = 'paid'"], 0);
    assert!(said.contains("0 of") && said.contains("--where: no record has a field afer.status"), "{said}");
}

/// Seconds of a time in RFC 3339, by a calendar of its own.
fn seconds(unix_ms: i64) -> String {
    let output = Command::new("date")
        .args(["-u", "-d", &format!("@{}", unix_ms.div_euclid(1000)), "+%Y-%m-%dT%H:%M:%S"])
        .output();
    String::from_utf8(output.expect("date runs").stdout).expect("it is text").trim().to_owned()
}

#[test]
fn nothing_is_lost_in_a_line_and_a_table_is_for_people() {
    let stream = ended("replay_shown", &[]);
    let topic = stream.topic("item");
    let (stdout, said) = replay(&stream, &[&topic, "--from-beginning", "--key", "id=8", "--output", "json"], 0);
    let line = stdout.lines().next().expect("a line");
    for part in
        ["\"amount\":8.50", "\"raw\":\"AP8=\"", "\"big\":9007199254740993", "\"status\":\"it's\"", "\"headers\":[]"]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(said.contains("records shown"), "{said}");

    let (table, _) = replay(&stream, &[&topic, "--from-beginning", "--where", "key.id in (7, 8)"], 0);
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows[0].split_whitespace().eq(["PART", "OFFSET", "TIME", "LSN", "OP", "KEY", "->", "ROW"]), "{table}");
    let row = |op: &str, text: &str| rows.iter().any(|row| row.contains(&format!("  {op}   {text}")));
    assert!(row("c", "id=7 -> id=7 status=\"paid\" amount=7.50 raw=\"AP8=\" big=9007199254740993"), "{table}");
    assert!(row("d", "id=7 -> id=7"), "{table}");
    assert!(row("-", "id=7 -> (no value)"), "{table}");
    assert!(row("u", "id=8 -> id=8 status=\"late\""), "{table}");

    // Bytes as they are, without any registry.
    let mut stream = stream;
    stream.set("schema_registry.url", "http://127.0.0.1:1");
    let raw = lines(&stream, &[&topic, "--from-beginning", "--raw", "--limit", "3"]);
    assert_eq!(raw.len(), 3);
    assert!(raw[0]["value"].as_str().expect("base64").starts_with("AAAA"), "{}", raw[0]);
    let (_, said) = replay(&stream, &[&topic, "--from-beginning"], 1);
    assert!(said.contains("[registry-unavailable]"), "{said}");
}

/// Who reads may stop reading.
#[test]
fn a_pipe_that_is_closed_ends_it_quietly() {
    let stack = Stack::shared();
    let stream = Stream::create(&stack, "replay_pipe");
    stream.database.execute("create table public.item (id int primary key, text text)");
    let program = stream.start_ready();
    stream.database.execute("insert into public.item select id, repeat('x', 1000) from generate_series(1, 2000) id");
    stream.drain();
    program.terminate();
    let mut child = Command::new(env!("CARGO_BIN_EXE_pgsluice"))
        .args(["replay", &stream.topic("item"), "--from-beginning", "--output", "json", "--config"])
        .arg(stream.config_path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
    reader.read_line(&mut line).expect("a line");
    serde_json::from_str::<Value>(&line).expect("it is JSON");
    drop(reader);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

/// Upserts say it in headers, JSON needs no schemas, and the built-in registry needs no instance that runs.
#[test]
fn other_envelopes_and_formats_are_read_too() {
    for (label, set) in [
        ("replay_upsert", &[("events.envelope", "upsert")][..]),
        ("replay_json", &[("events.format", "json")]),
        ("replay_upsert_json", &[("events.envelope", "upsert"), ("events.format", "json")]),
        ("replay_copied", &[]),
    ] {
        let stack = Stack::shared();
        let topic = format!("_schemas_{label}_{}", std::process::id());
        let mut stream = Stream::create_with_built_in_registry(&stack, label, &topic);
        for (key, value) in set {
            stream.set(key, value);
        }
        stream.set("kafka.topics.partitions", "1");
        stream.set("snapshot.mode", "initial");
        stream.database.execute(
            "create table public.item (id int primary key, n numeric(6,2)); insert into public.item values (-1, 1), (-2, 2)",
        );
        let program = stream.start_ready();
        let topic = stream.topic("item");
        let await_records = |count: usize| {
            wait_until(DRAIN_TIMEOUT, "all of it is there", || {
                let mut found = 0;
                kafka::read_to_end(&stream.bootstrap_servers, |name| name == topic, |_| found += 1);
                (found >= count).then_some(())
            });
        };
        await_records(2);
        stream.database.execute("insert into public.item values (1, 1.50)");
        let before = stream.database.wal_lsn();
        stream.database.execute("insert into public.item values (2, 2.50); delete from public.item where id = 1");
        // Two rows of before, two inserts, and a deletion with its tombstone if there is one.
        await_records(if label.contains("upsert") { 5 } else { 6 });
        program.terminate();
        stream.set("postgres.url", "postgres://nobody@127.0.0.1:1/none");
        let all = lines(&stream, &[&topic, "--from-beginning"]);
        assert!(all.iter().all(|line| line["lsn"].is_string() || line["value"].is_null()), "{label}: {all:?}");
        let found = lines(&stream, &[&topic, "--from-lsn", &before.to_string()]);
        let ids =
            |lines: &[Value]| lines.iter().map(|line| line["key"]["id"].as_i64().expect("a key")).collect::<Vec<_>>();
        let tail = ids(&found);
        assert!(tail.starts_with(&[2, 1]) && !tail.contains(&-1), "{label}: {tail:?}");
        let (first, _) =
            replay(&stream, &[&topic, "--from-lsn", &before.to_string(), "--output", "json", "--limit", "1"], 0);
        assert!(first.contains("\"n\":2.50"), "{label}: {first}");
        // Rows that were copied are of where their snapshot is.
        let from_there = lines(&stream, &[&topic, "--from-lsn", all[0]["lsn"].as_str().expect("an LSN")]);
        assert_eq!(ids(&from_there), ids(&all), "{label}");
    }
}

/// However large the topic is, few of its records are looked at. What it took is printed: nothing is asserted of times.
#[test]
fn an_lsn_in_a_large_topic_is_found_by_looking_at_few_records() {
    let events = setting("PGSLUICE_TEST_REPLAY_EVENTS", 30_000);
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "replay_large");
    stream.set("kafka.topics.partitions", "1");
    stream.database.execute("create table public.item (id int primary key, text text)");
    let program = stream.start_ready();
    let (mut middle, part) = (None, events / 10);
    for round in 0..10 {
        let (from, to) = (round * part + 1, (round + 1) * part);
        stream.database.execute(&format!(
            "do $$ begin for id in {from}..{to} loop insert into public.item values (id, repeat('x', 100)); \
             if id % 20 = 0 then commit; end if; end loop; end $$"
        ));
        if round == 6 {
            middle = Some((stream.database.wal_lsn(), to));
        }
    }
    stream.drain_within(std::time::Duration::from_mins(10));
    program.terminate();
    let (topic, (lsn, id)) = (stream.topic("item"), middle.expect("it was half way"));
    let began = Instant::now();
    let found = lines(&stream, &[&topic, "--from-lsn", &lsn.to_string(), "--limit", "1"]);
    let took = began.elapsed();
    assert_eq!(found[0]["key"]["id"], id + 1);
    let arguments = ["replay", &topic, "--from-lsn", &lsn.to_string(), "--limit", "1"];
    let output = stream.command(&arguments, &[("PGSLUICE_LOG__LEVEL", "debug"), ("PGSLUICE_LOG__FORMAT", "json")]);
    let log = String::from_utf8(output.stderr).expect("it is text");
    let found_it = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let looked_at = found_it.filter_map(|line| line["records_looked_at"].as_u64()).collect::<Vec<_>>();
    println!("{looked_at:?} records were looked at");
    assert!(matches!(looked_at[..], [few] if few < 1000), "{looked_at:?}\n{log}");
    let began = Instant::now();
    let (table, _) = replay(&stream, &[&topic, "--from-lsn", &lsn.to_string(), "--reset-group", "replay-large"], 0);
    println!(
        "{events} events: the first record from an LSN on in {took:.0?}, a group's reset to it in {:.0?}, from start to end of the process\n{table}",
        began.elapsed()
    );
    assert!(table.contains(&found[0]["offset"].to_string()), "{table}");
}
