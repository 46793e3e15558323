//! Records in another topic, each once, whoever dies in between.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use rdkafka::{Message, message::Headers};

use super::{ended, lines, replay};
use crate::harness::{kafka, stack::Stack, stream::Stream, topics::Topics, wait_until};

type Bytes = Option<Vec<u8>>;
/// Partition, time, key, value and headers of a record.
type Copied = (i32, Option<i64>, Bytes, Bytes, Vec<(String, Bytes)>);

/// All that is committed of a topic, partition by partition, in order.
fn contents(stream: &Stream, topic: &str) -> Vec<Copied> {
    let mut found = Vec::new();
    kafka::read_to_end(
        &stream.bootstrap_servers,
        |name| name == topic,
        |message| {
            let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            let headers = message.headers().into_iter().flat_map(Headers::iter);
            let headers = headers.map(|header| (header.key.to_owned(), owned(header.value))).collect();
            let time = message.timestamp().to_millis();
            found.push((message.partition(), time, owned(message.key()), owned(message.payload()), headers));
        },
    );
    found.sort_by_key(|(partition, ..)| *partition);
    found
}

/// A stream that has ended, with so many rows in its topic.
fn with_rows(label: &str, rows: u32) -> Stream {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, label);
    stream.set("events.envelope", "upsert");
    stream.database.execute("create table public.item (id int primary key, text text)");
    let program = stream.start_ready();
    stream.database.execute(&format!(
        "insert into public.item select id, repeat('x', id % 100) from generate_series(1, {rows}) id; delete from public.item where id % 7 = 0"
    ));
    stream.drain();
    program.terminate();
    stream.set("postgres.url", "postgres://nobody@127.0.0.1:1/none");
    // Many transactions, so that there is a middle.
    stream.set("kafka.transaction.max_records", "100");
    stream
}

#[test]
fn a_copy_that_is_killed_goes_on_where_it_was() {
    let stream = with_rows("replay_killed", 3000);
    let (topic, target) = (stream.topic("item"), format!("{}.copy", stream.name));
    let all = contents(&stream, &topic);
    for round in 1..6 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pgsluice"))
            .args(["replay", &topic, "--from-beginning", "--to-topic", &target, "--config"])
            .arg(stream.config_path())
            .env("PGSLUICE_KAFKA__TRANSACTION__MAX_RECORDS", "20")
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        // Somewhere behind this sixth of it.
        wait_until(Duration::from_mins(1), "some more records are there", || {
            (contents(&stream, &target).len() >= all.len() * round / 6).then_some(())
        });
        child.kill().expect("it is killed");
        child.wait().expect("it has ended");
        println!("round {round}: {} of {} records are there", contents(&stream, &target).len(), all.len());
    }
    // What came since the first run is not in its range.
    kafka::write(&stream.bootstrap_servers, &topic, "later", Some("\"later\""));
    let (_, said) = replay(&stream, &[&topic, "--from-beginning", "--to-topic", &target], 0);
    // The last one may have come to its end before it was killed.
    let whole = format!("{0} of {0} records are in {target}: ", all.len());
    assert!(said.contains(&whole) && said.contains("complete"), "{said}");
    assert_eq!(contents(&stream, &target), all);
    // Run once more, there is nothing to do.
    replay(&stream, &[&topic, "--from-beginning", "--to-topic", &target], 0);
    assert_eq!(contents(&stream, &target), all);
}

#[cfg(feature = "fault-points")]
#[test]
fn a_copy_that_dies_around_a_commit_writes_nothing_twice() {
    use std::os::unix::process::ExitStatusExt;

    let stream = with_rows("replay_dies", 1500);
    let (topic, target) = (stream.topic("item"), format!("{}.copy", stream.name));
    let arguments = ["replay", topic.as_str(), "--from-beginning", "--to-topic", &target];
    for fault in
        ["before-commit:1", "after-commit:1", "before-commit:3", "during-commit:2", "after-commit:2", "during-commit:4"]
    {
        let output = stream.command(&arguments, &[("PGSLUICE_FAULT", fault)]);
        assert_eq!(output.status.signal(), Some(9), "{fault}: {}", String::from_utf8_lossy(&output.stderr));
    }
    replay(&stream, &arguments[1..], 0);
    assert_eq!(contents(&stream, &target), contents(&stream, &topic));
}

#[test]
fn what_is_chosen_is_copied_as_it_is_or_as_json() {
    let stream = ended("replay_chosen", &[]);
    let (topic, target) = (stream.topic("item"), format!("{}.paid", stream.name));
    let condition = ["--where", "after.status = 'paid'"];
    let arguments = [&[topic.as_str(), "--from-beginning"][..], &condition].concat();
    let wanted = lines(&stream, &arguments);
    let to = |target: &str, more: &[&str], exit_code| {
        replay(&stream, &[&arguments, &["--to-topic", target][..], more].concat(), exit_code).1
    };
    to(&target, &[], 0);
    let without_place = |lines: &[serde_json::Value]| {
        let mut lines = lines.to_vec();
        for line in &mut lines {
            for field in ["topic", "offset"] {
                line.as_object_mut().expect("an object").remove(field);
            }
        }
        lines.sort_by_key(ToString::to_string);
        lines
    };
    let copied = lines(&stream, &[&target, "--from-beginning"]);
    assert!(!copied.is_empty());
    assert_eq!(without_place(&copied), without_place(&wanted));

    // As JSON, for who has no registry; into fewer partitions, where the key decides.
    let json = format!("{}.json", stream.name);
    Topics::of(&stream.bootstrap_servers).create_with(&json, 2, &[]);
    to(&json, &["--as-json"], 0);
    let values: Vec<serde_json::Value> = contents(&stream, &json)
        .into_iter()
        .map(|(_, _, _, value, _)| serde_json::from_slice(&value.expect("a value")).expect("it is JSON"))
        .collect();
    assert_eq!(values.len(), wanted.len());
    assert!(values.iter().all(|value| value["after"]["status"] == "paid"));

    // Another replay needs another name.
    let said = to(&target, &["--as-json"], 3);
    assert!(said.contains("[replay-mismatch]") && said.contains("--name"), "{said}");
    to(&target, &["--as-json", "--name", "another", "--append"], 0);
    assert_eq!(contents(&stream, &target).len(), 2 * wanted.len());
}

/// The stream goes on beside it, and who follows sees what comes.
#[test]
fn a_stream_is_followed_while_it_runs() {
    let stack = Stack::shared();
    let stream = Stream::create(&stack, "replay_follow");
    stream.database.execute("create table public.item (id int primary key)");
    let mut program = stream.start_ready();
    stream.database.execute("insert into public.item values (1)");
    stream.drain();
    let (topic, target) = (stream.topic("item"), format!("{}.copy", stream.name));
    let child = Command::new(env!("CARGO_BIN_EXE_pgsluice"))
        .args(["replay", &topic, "--from-beginning", "--follow", "--to-topic", &target, "--config"])
        .arg(stream.config_path())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    for id in 2..5 {
        stream.database.execute(&format!("insert into public.item values ({id})"));
        let bound = Duration::from_mins(1);
        kafka::await_row(&stream.bootstrap_servers, &stream.registry_url, &target, id, bound);
    }
    let asked = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(asked.success());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("goes on when it is run again"));
    assert!(program.is_running());
    program.terminate();
    assert_eq!(contents(&stream, &target), contents(&stream, &topic));
}

/// Copied records keep their times, by which brokers remove them.
#[test]
fn a_target_keeps_what_the_source_keeps_and_a_lost_one_is_told() {
    let stream = with_rows("replay_kept", 200);
    let (topic, target) = (stream.topic("item"), format!("{}.copy", stream.name));
    let topics = Topics::of(&stream.bootstrap_servers);
    topics.configure(&topic, "retention.ms", "123456789012");
    let arguments = [topic.as_str(), "--from-beginning", "--to-topic", &target];
    replay(&stream, &arguments, 0);
    assert_eq!(topics.config(&target, "retention.ms").as_deref(), Some("123456789012"));
    let (_, said) = replay(&stream, &arguments, 0);
    assert!(said.contains("it was complete already, and nothing was done"), "{said}");
    // What another has written is there already, unless that is meant.
    let other = [&arguments[..], &["--name", "other"]].concat();
    let (_, said) = replay(&stream, &other, 3);
    assert!(said.contains("[topic-unfit]") && said.contains("was written to before"), "{said}");
    let before = contents(&stream, &target).len();
    replay(&stream, &[&other[..], &["--append"]].concat(), 0);
    assert_eq!(contents(&stream, &target).len(), 2 * before);
    topics.delete(&target);
    let (_, said) = replay(&stream, &arguments, 3);
    assert!(said.contains("[replay-mismatch]") && said.contains(&format!("{target}, into which")), "{said}");
    topics.create_with(&target, 1, &[]);
    let (_, said) = replay(&stream, &arguments, 3);
    assert!(said.contains("[replay-mismatch]") && said.contains("created again"), "{said}");

    let brief = format!("{}.brief", stream.name);
    topics.create_with(&brief, 1, &[("retention.ms", "1")]);
    let (_, said) = replay(&stream, &[topic.as_str(), "--from-beginning", "--to-topic", &brief], 3);
    assert!(said.contains("[topic-unfit]") && said.contains("retention.ms"), "{said}");
    assert_eq!(contents(&stream, &brief), []);
}

#[cfg(feature = "fault-points")]
#[test]
fn a_copy_whose_source_was_trimmed_goes_on_if_it_may() {
    let stream = with_rows("replay_trimmed", 600);
    let (topic, target) = (stream.topic("item"), format!("{}.copy", stream.name));
    let arguments = [topic.as_str(), "--from-beginning", "--to-topic", &target];
    // What it has to read is decided, and nothing of it is read.
    stream.command(&[&["replay"], &arguments[..]].concat(), &[("PGSLUICE_FAULT", "after-commit:1")]);
    Topics::of(&stream.bootstrap_servers).trim(&topic, rdkafka::Offset::Offset(50));
    let (_, said) = replay(&stream, &arguments, 3);
    assert!(said.contains("[range-gone]") && said.contains("--allow-gone"), "{said}");
    assert_eq!(contents(&stream, &target), []);
    replay(&stream, &[&arguments[..], &["--allow-gone"]].concat(), 0);
    assert_eq!(contents(&stream, &target), contents(&stream, &topic));
    // It is none of what is compared.
    replay(&stream, &arguments, 0);
}
