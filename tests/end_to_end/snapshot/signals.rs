//! Commands through a topic, and what another topic is told.

use std::os::unix::process::ExitStatusExt as _;

use rdkafka::Message as _;
use serde_json::Value;

use super::{
    control::{await_state, copied, state, status},
    create,
};
use crate::harness::{
    kafka,
    stack::Stack,
    stream::{START_TIMEOUT, Stream},
    wait_until,
};

fn signal(stream: &Stream, key: &str, value: &str) {
    kafka::write(&stream.bootstrap_servers, &format!("signals-of-{}", stream.name), key, Some(value));
}

/// What the topic of notifications was told: what happened, of which table, and how many rows it had.
pub(super) fn told(stream: &Stream) -> Vec<(String, String, String)> {
    let topic = format!("notifications-of-{}", stream.name);
    let mut found = Vec::new();
    kafka::read_to_end(
        &stream.bootstrap_servers,
        |name| name == topic,
        |message| {
            let value: Value = serde_json::from_slice(message.payload().expect("a value")).expect("JSON");
            assert_eq!(value["additional_data"]["connector_name"], stream.name.as_str());
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let data = &value["additional_data"];
            found.push((text(&value["type"]), text(&data["data_collections"]), text(&data["total_rows_scanned"])));
        },
    );
    found
}

#[test]
fn signals_are_carried_out_once_and_notifications_tell_of_it() {
    let stack = Stack::shared();
    let mut stream = create(&stack, "signals", 1000);
    stream.set("snapshot.mode", "never");
    stream.set("snapshot.signal_topic", &format!("signals-of-{}", stream.name));
    stream.set("snapshot.notification_topic", &format!("notifications-of-{}", stream.name));
    stream.set("kafka.topics.partitions", "1");
    let signal_topic = format!("signals-of-{}", stream.name);
    // It dies between the two commands of one signal.
    let mut program = stream.start_with(&[], &[("PGSLUICE_FAULT", "within-signal:1")]);
    program.await_ready();
    wait_until(START_TIMEOUT, "it reads signals", || {
        program.log().contains("signals are read from here on").then_some(())
    });
    let name = stream.name.clone();
    signal(&stream, "another", r#"{"type":"execute-snapshot","data":{"data-collections":["public.whole"]}}"#);
    signal(&stream, &name, r#"{"type":"execute-snapshot","data":{"data-collections":["public.nothing"]}}"#);
    signal(&stream, &name, "no signal");
    signal(
        &stream,
        &name,
        r#"{"type":"execute-snapshot","data":{"data-collections":["public.whole"],
            "additional-conditions":[{"data-collection":"public.whole","filter":"id <"}]}}"#,
    );
    signal(
        &stream,
        &name,
        r#"{"type":"execute-snapshot","data":{"data-collections":["public\\.(item|pair)"],"type":"INCREMENTAL",
            "additional-conditions":[{"data-collection":"public.pair","filter":"number <= 100"}]}}"#,
    );
    let ended = program.wait(START_TIMEOUT, "it dies within the signal");
    assert_eq!(ended.signal(), Some(9), "it ended with {ended}");
    // Each that is not carried out is told, with its place, and the others are.
    let refused: Vec<_> =
        program.log().lines().filter(|line| line.contains("not carried out")).map(str::to_owned).collect();
    for (offset, why) in [(1, "public.nothing is not streamed"), (2, "expected"), (3, "syntax error")] {
        let place = format!("\"offset\":{offset}}}");
        let is_told = |line: &String| {
            line.contains("\"snapshot-refused\"")
                && line.contains("\"WARN\"")
                && line.contains(&place)
                && line.contains(why)
        };
        assert_eq!(refused.iter().filter(|line| is_told(line)).count(), 1, "{offset}, {why}: {refused:?}");
    }
    assert_eq!(refused.len(), 3, "{refused:?}");
    // What its first command has started is over before anybody comes back to the second.
    stream.unset("snapshot.signal_topic");
    let program = stream.start_ready();
    await_state(&stream, &program, "pair", "copied");
    assert_eq!(state(&status(&stream, &program), "item"), "not_copied");
    program.terminate();
    stream.set("snapshot.signal_topic", &signal_topic);
    let program = stream.start_ready();
    await_state(&stream, &program, "item", "copied");
    // Of that it is told last.
    wait_until(START_TIMEOUT, "nothing is left", || program.log().contains("every table is copied").then_some(()));
    program.kill();

    // What was carried out is over.
    let program = stream.start_ready();
    signal(&stream, &name, r#"{"type":"pause-snapshot"}"#);
    signal(&stream, &name, r#"{"type":"execute-snapshot","data":{"data-collections":["public.whole"]}}"#);
    await_state(&stream, &program, "whole", "waiting");
    assert_eq!(status(&stream, &program)["paused"], true);
    signal(&stream, &name, r#"{"type":"stop-snapshot","data":{"data-collections":["public.whole"]}}"#);
    await_state(&stream, &program, "whole", "stopped");
    signal(&stream, &name, r#"{"type":"resume-snapshot"}"#);
    wait_until(START_TIMEOUT, "it is resumed", || (status(&stream, &program)["paused"] == false).then_some(()));
    stream.drain();
    program.terminate();

    let records = stream.records();
    assert_eq!(["item", "pair", "whole"].map(|table| copied(&records, table)), [1000, 100, 0]);
    let told = told(&stream);
    let of = |table: &str| -> Vec<(&str, &str)> {
        let of_table = told.iter().filter(|(_, of, _)| of == table);
        of_table.map(|(happened, _, rows)| (happened.as_str(), rows.as_str())).collect()
    };
    let item = of("public.item");
    let [first, more @ .., end] = &item[..] else { panic!("{told:?}") };
    assert_eq!((*first, *end), (("STARTED", "500"), ("TABLE_SCAN_COMPLETED", "1000")), "{told:?}");
    let is_more = |(happened, rows): &(&str, &str)| {
        *happened == "IN_PROGRESS" && rows.parse::<u32>().is_ok_and(|rows| (501..1000).contains(&rows))
    };
    assert!(!more.is_empty() && more.iter().all(is_more), "{told:?}");
    // How many of them are found in its first rows is not for this test.
    let pair = of("public.pair");
    assert_eq!(
        (pair.first().map(|(happened, _)| *happened), pair.last()),
        (Some("STARTED"), Some(&("TABLE_SCAN_COMPLETED", "100"))),
        "{told:?}"
    );
    assert_eq!(of("public.whole"), [("ABORTED", "0")]);
    let of_all: Vec<&str> = of("").into_iter().map(|(happened, _)| happened).collect();
    assert_eq!(
        of_all.iter().filter(|happened| **happened != "COMPLETED").copied().collect::<Vec<_>>(),
        ["PAUSED", "RESUMED"]
    );
    assert!(of_all.contains(&"COMPLETED"), "{told:?}");
}
