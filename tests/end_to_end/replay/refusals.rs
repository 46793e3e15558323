//! What is not there is told, with what is.

use super::{ended, lines, replay};
use crate::harness::{kafka, topics::Topics};

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let stream = ended("replay_refused", &[("kafka.topics.partitions", "1")]);
    let topic = stream.topic("item");
    let all = lines(&stream, &[&topic, "--from-beginning"]);
    let end = all.last().expect("a record")["offset"].as_i64().expect("an offset") + 2;
    let past_end = (end + 100).to_string();
    let mistyped = format!("{topic}s");
    let lsn = |line: &serde_json::Value| line["lsn"].as_str().unwrap_or_default().to_owned();
    let last = all.iter().rev().map(lsn).find(|lsn| !lsn.is_empty()).expect("a commit");
    let there = format!("the last commit in partition 0 is {last} at offset");
    for (arguments, code, exit_code, parts) in [
        (
            &[mistyped.as_str(), "--from-beginning"][..],
            "topic-unknown",
            2,
            &[mistyped.as_str(), "; there is ", topic.as_str()][..],
        ),
        (&["nothing.like.it", "--from-beginning"], "topic-unknown", 2, &["there is no topic nothing.like.it"]),
        (&[&topic, "--from-beginning", "--partition", "3"], "range-invalid", 2, &["has no partition 3: it has 1"]),
        (&[&topic, "--from-offset", &past_end], "range-invalid", 2, &["partition 0 has 0 to ", "ends at"]),
        (&[&topic, "--from-offset", "0", "--to-offset", &past_end], "range-invalid", 2, &["ends at"]),
        (&[&topic, "--from-offset", "7", "--to-offset", "3"], "range-invalid", 2, &["offset 3 is before offset 7"]),
        (&[&topic, "--from-end", "--to-offset", "3"], "range-invalid", 2, &["offset 3 is before the end"]),
        (&[&topic, "--from-lsn", "FFFF/0"], "range-invalid", 2, &["has nothing from LSN FFFF/0 on", &there]),
        (&[&topic, "--from-time", "2100-01-01"], "range-invalid", 2, &["has nothing from 2100-01-01"]),
        (&[&topic, "--from-time", "soon"], "argument-invalid", 2, &["\"soon\" is no time"]),
        (&[&topic, "--from-lsn", "x"], "argument-invalid", 2, &["invalid log sequence number \"x\""]),
        (&[&topic, "--from-beginning", "--where", "op ="], "argument-invalid", 2, &["--where: a value is expected"]),
        (&[&topic, "--from-beginning", "--key", "id"], "argument-invalid", 2, &["--key: \"id\" is no key"]),
        (&[&topic, "--from-beginning", "--to-topic", &topic], "argument-invalid", 2, &["to itself"]),
    ] {
        let (stdout, said) = replay(&stream, arguments, exit_code);
        assert!(said.contains(&format!("[{code}]")), "{arguments:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert_eq!(stdout, "");
    }
    // Two of a kind are one too many, and none is one too few: clap says so.
    replay(&stream, &[&topic], 2);
    replay(&stream, &[&topic, "--from-beginning", "--from-offset", "1"], 2);
}

#[test]
fn what_was_removed_is_not_passed_over_in_silence() {
    let stream = ended("replay_removed", &[("kafka.topics.partitions", "1")]);
    let topic = stream.topic("item");
    let all = lines(&stream, &[&topic, "--from-beginning"]);
    let topics = Topics::of(&stream.bootstrap_servers);

    // A compacted topic has holes; here it is the mark of a transaction, which looks the same.
    let offset = |line: &serde_json::Value| line["offset"].as_i64().expect("an offset");
    let hole = all.windows(2).find(|pair| offset(&pair[1]) == offset(&pair[0]) + 2).expect("a mark");
    let (hole, next) = ((offset(&hole[0]) + 1).to_string(), offset(&hole[1]));
    assert_eq!(offset(&lines(&stream, &[&topic, "--from-offset", &hole])[0]), next);
    topics.configure(&topic, "cleanup.policy", "compact");
    let (_, said) = replay(&stream, &[&topic, "--from-offset", &hole], 3);
    assert!(
        said.contains("[range-gone]") && said.contains(&format!("no record at {hole}, and the next is at {next}")),
        "{said}"
    );
    assert_eq!(offset(&lines(&stream, &[&topic, "--from-offset", &hole, "--allow-gone"])[0]), next);
    topics.configure(&topic, "cleanup.policy", "delete");

    // The first half is removed.
    let half = all.iter().skip(all.len() / 2).find(|line| line["lsn"].is_string()).expect("a commit");
    topics.trim(&topic, rdkafka::Offset::Offset(offset(half)));
    let left = lines(&stream, &[&topic, "--from-beginning"]);
    assert_eq!(offset(&left[0]), offset(half));
    let begins = format!("what was before offset {} was removed", offset(half));
    let old = all[0]["lsn"].as_str().expect("an LSN");
    for arguments in [["--from-lsn", old], ["--from-offset", "0"], ["--from-time", "2001-01-01"]] {
        let (_, said) = replay(&stream, &[&[topic.as_str()][..], &arguments].concat(), 3);
        assert!(said.contains("[range-gone]") && said.contains(&begins), "{said}");
        let found = lines(&stream, &[&[topic.as_str()][..], &arguments, &["--allow-gone"]].concat());
        assert_eq!(found, left, "{arguments:?}");
    }
    let (_, said) = replay(&stream, &[&topic, "--from-lsn", old], 3);
    assert!(said.contains(&format!("what is left begins with {}", half["lsn"].as_str().expect("an LSN"))), "{said}");
    // Of what is behind a record that is left nothing can be gone.
    let later =
        left.iter().rev().find(|line| line["lsn"].is_string() && line["lsn"] != half["lsn"]).expect("a later one");
    assert!(!lines(&stream, &[&topic, "--from-lsn", later["lsn"].as_str().expect("an LSN")]).is_empty());

    // What says nothing of a log has no place in one.
    kafka::write(&stream.bootstrap_servers, &topic, "key", Some("no event"));
    let (_, said) = replay(&stream, &[&topic, "--from-lsn", "FFFF/0"], 3);
    assert!(said.contains("[record-unreadable]") && said.contains("does not say which LSN"), "{said}");
    let found = lines(&stream, &[&topic, "--from-beginning", "--where", "value = 'no event'"]);
    assert_eq!(found.len(), 1);
}
