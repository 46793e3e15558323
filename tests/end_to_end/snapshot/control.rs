//! Commands to a running instance, by `pgsluice snapshot` and over HTTP.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{COPY_TIMEOUT, await_copied, create, judge::Judged, signals, trouble::await_log};
use crate::harness::{
    event::Record,
    http, kafka,
    stack::Stack,
    stream::{Program, START_TIMEOUT, Stream},
    wait_until,
};

/// What `pgsluice snapshot` prints, and its exit code.
fn snapshot(stream: &Stream, program: &Program, arguments: &[&str]) -> (i32, String, String) {
    let address = wait_until(START_TIMEOUT, "it listens", || program.address());
    let arguments: Vec<&str> = ["snapshot"].iter().chain(arguments).copied().chain(["--instance", address]).collect();
    let output = stream.command(&arguments, &[]);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// What must succeed.
pub(super) fn command(stream: &Stream, program: &Program, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = snapshot(stream, program, arguments);
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    stdout
}

/// What must be refused with this code, and say this.
pub(super) fn refused(stream: &Stream, program: &Program, arguments: &[&str], code: &str, says: &str) {
    let (exit, stdout, stderr) = snapshot(stream, program, arguments);
    assert_eq!((exit, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
    assert!(stderr.contains(&format!("[{code}]")) && stderr.contains(says), "{arguments:?}: {stderr}");
}

pub(super) fn status(stream: &Stream, program: &Program) -> Value {
    serde_json::from_str(&command(stream, program, &["status", "--json"])).expect("JSON")
}

pub(super) fn state(status: &Value, table: &str) -> String {
    let tables = status["tables"].as_array().expect("a list");
    let found = tables.iter().find(|it| it["table"] == format!("public.{table}")).expect("it is streamed");
    found["state"].as_str().expect("a text").to_owned()
}

pub(super) fn await_state(stream: &Stream, program: &Program, table: &str, wanted: &str) {
    wait_until(COPY_TIMEOUT, &format!("{table} is {wanted}"), || {
        (state(&status(stream, program), table) == wanted).then_some(())
    });
}

fn await_begun(program: &Program) {
    wait_until(COPY_TIMEOUT, "rows are copied", || program.metric("copied_rows_total").filter(|rows| *rows > 0.0));
}

/// The rows of a table that were copied.
pub(super) fn copied(records: &[Record], table: &str) -> usize {
    let of_table = records.iter().filter(|record| record.table == table);
    of_table.filter(|record| record.event.as_ref().is_some_and(|event| event.operation == "r")).count()
}

#[test]
fn copying_is_paused_over_a_crash_and_resumed() {
    let stack = Stack::shared();
    let mut stream = create(&stack, "paused", 4000);
    stream.set("snapshot.rows_per_second", "2000");
    // In parts of tables, too.
    stream.set("snapshot.connections", "5");
    stream.set("snapshot.split_above", "64KiB");
    let program = stream.start_ready();
    await_begun(&program);
    assert!(command(&stream, &program, &["pause"]).starts_with("paused"));
    program.kill();

    let program = stream.start_ready();
    assert_eq!(status(&stream, &program)["paused"], true);
    stream.database.execute("update public.item set version = version + 1, note = 'second' where id % 3 = 0");
    stream.drain();
    assert_eq!(program.metric("copied_rows_total"), Some(0.0), "nothing is read");
    assert_eq!(command(&stream, &program, &["resume"]), "resumed\n");
    await_copied(&program);
    stream.drain();
    program.terminate();
    let records = stream.records();
    Judged::of(&stream, &records).assert_flawless();
    assert_eq!(["item", "pair", "whole"].map(|table| copied(&records, table)), [4000, 4000, 4000]);
}

#[test]
fn a_copy_that_was_stopped_stays_so_until_it_is_started_anew() {
    let stack = Stack::shared();
    let mut stream = create(&stack, "stopped", 4000);
    stream.set("snapshot.rows_per_second", "1000");
    stream.set("snapshot.connections", "5");
    stream.set("snapshot.split_above", "64KiB");
    let program = stream.start_ready();
    await_begun(&program);
    let said = command(&stream, &program, &["stop", "public.item", "public.pair"]);
    assert!(said.contains("public.item") && said.contains("stopped") && !said.contains("public.whole"), "{said}");
    program.kill();

    stream.set("snapshot.rows_per_second", "1000000");
    let program = stream.start_ready();
    await_copied(&program);
    let seen = status(&stream, &program);
    assert_eq!([state(&seen, "item"), state(&seen, "pair"), state(&seen, "whole")], ["stopped", "stopped", "copied"]);
    stream.database.execute(
        "update public.item set version = version + 1, note = 'second' where id % 3 = 0; delete from public.item where id % 7 = 0;
         delete from public.whole where id % 5 = 0",
    );
    // Tables that were stopped, and one that is copied already.
    command(&stream, &program, &["start", "public.item", "public.pair", "public.whole"]);
    for table in ["item", "pair", "whole"] {
        await_state(&stream, &program, table, "copied");
    }
    stream.drain();
    program.terminate();
    let judged = Judged::of(&stream, &stream.records()).copied_again();
    judged.assert_flawless();
    assert!(judged.copied > 12_000 - 4000 / 7 - 4000 / 5, "{} copied", judged.copied);
}

#[test]
fn rows_that_meet_a_condition_are_copied_when_somebody_asks() {
    let stack = Stack::shared();
    let mut stream = create(&stack, "asked", 2000);
    stream.set("snapshot.mode", "never");
    let program = stream.start_ready();
    assert_eq!(state(&status(&stream, &program), "item"), "not_copied");
    let refuses = |arguments: &[&str], says| refused(&stream, &program, arguments, "snapshot-refused", says);
    refuses(&["start", "public.item", "public.nothing"], "public.nothing is not streamed");
    refuses(&["start", "item"], "item is not streamed");
    for (condition, says) in [
        ("id >", "syntax error"),
        ("nothing = 1", "\"nothing\" does not exist"),
        ("true) union select from oracle.log where (true", "syntax error"),
        ("true); drop table public.item; select (true", "syntax error"),
        ("id", "boolean"),
        ("id = $1", "it has parameters"),
        ("id = 1) or (id = 2", "syntax error"),
        ("note >= 1::timestamptz::text", "cannot cast"),
        ("version > 'many'", "invalid input syntax"),
        ("generate_series(1, 2) = 1", "set-returning"),
    ] {
        refuses(&["start", "public.item", "--where", condition], says);
    }
    assert_eq!(state(&status(&stream, &program), "item"), "not_copied");
    // A condition in several lines may end with a comment.
    command(&stream, &program, &["start", "public.item", "--where", "id <= 100\nor note = 'none' -- the first"]);
    await_state(&stream, &program, "item", "copied");
    stream.drain();
    let seen = command(&stream, &program, &["status"]);
    assert!(seen.contains("where id <= 100"), "{seen}");
    // Whoever comes back finds nothing to do.
    program.kill();
    let program = stream.start_ready();
    assert_eq!(state(&status(&stream, &program), "item"), "copied");
    program.terminate();
    // One that is killed midway goes on behind what it has, and wants what it wanted.
    stream.set("snapshot.rows_per_second", "100");
    let program = stream.start_ready();
    command(&stream, &program, &["start", "public.pair", "--where", "number % 2 = 0"]);
    await_begun(&program);
    assert_eq!(state(&status(&stream, &program), "pair"), "copying");
    program.kill();
    stream.set("snapshot.rows_per_second", "1000000");
    let program = stream.start_ready();
    await_state(&stream, &program, "pair", "copied");
    stream.drain();
    program.terminate();
    let records = stream.records();
    assert_eq!(["item", "pair", "whole"].map(|table| copied(&records, table)), [100, 1000, 0]);
    let numbers = records.iter().filter(|record| record.table == "pair").filter_map(|record| record.key.as_ref());
    let numbers: BTreeSet<u32> =
        numbers.map(|key| key["number"].as_ref().expect("it is one").parse().expect("a number")).collect();
    assert!(numbers.iter().copied().eq((2..=2000).step_by(2)), "each once, and no other: {numbers:?}");
}

/// A chunk that cannot be read, with however few rows, leaves its table for later, and no other, and goes on where it was.
#[test]
fn a_table_whose_rows_cannot_be_read_is_put_off_and_told() {
    let stack = Stack::shared();
    let mut stream = create(&stack, "put_off", 1000);
    stream.set("snapshot.mode", "never");
    stream.set("snapshot.statement_timeout", "1s");
    stream.set("postgres.match_interval", "1s");
    stream.set("snapshot.notification_topic", &format!("notifications-of-{}", stream.name));
    // Only there what is told is in order.
    stream.set("kafka.topics.partitions", "1");
    let slowly = |seconds: u32| {
        stream.database.execute(&format!(
            "create or replace function oracle.slowly(id bigint) returns bool language plpgsql as $$
             begin if id > 500 then perform pg_sleep({seconds}); end if; return true; end $$"
        ));
    };
    slowly(60);
    let program = stream.start_ready();
    command(&stream, &program, &["start", "public.item", "--where", "oracle.slowly(id)"]);
    await_begun(&program);
    command(&stream, &program, &["start", "public.pair"]);
    await_log(&program, "a table is not copied for now");
    await_state(&stream, &program, "pair", "copied");
    stream.database.execute("update public.item set version = version + 1, note = 'second' where id in (1, 800)");
    stream.drain();
    let log = program.log();
    let told = log.lines().find(|line| line.contains("a table is not copied for now")).expect("it is told");
    assert!(told.contains("[postgres-unavailable]") && told.contains("table public.item"), "{told}");
    let seen = command(&stream, &program, &["status"]);
    assert!(seen.contains("postgres-unavailable: ") && seen.contains("statement timeout"), "{seen}");
    let before: usize = copied(&stream.records(), "item");
    assert!((1..=500).contains(&before), "{before} rows were copied");
    slowly(0);
    await_state(&stream, &program, "item", "copied");
    stream.drain();
    assert_eq!(program.metric("sessions_total"), Some(1.0), "nothing was begun anew");
    program.terminate();
    let records = stream.records();
    Judged::of_tables(&stream, &records, &["item", "pair"]).assert_flawless();
    let told = signals::told(&stream);
    let of_item: Vec<_> = told.iter().filter(|(_, of, _)| of == "public.item").map(|(it, ..)| it.as_str()).collect();
    let not_copied = of_item.iter().filter(|it| **it == "NOT_COPIED").count();
    assert!(not_copied == 1 && of_item.last() == Some(&"TABLE_SCAN_COMPLETED"), "{told:?}");
}

/// Of many rows few are wanted, and to ask each whether it is takes its time. No statement looks at more rows than it has time for; one that
/// still runs keeps nobody waiting who stops it, nor the signal behind that.
#[test]
fn few_rows_among_many_are_found_and_the_search_is_stopped() {
    let stack = Stack::shared();
    let mut stream = create(&stack, "few", 3000);
    stream.set("snapshot.mode", "never");
    stream.set("snapshot.statement_timeout", "1s");
    stream.database.execute(
        "create function oracle.slowly(id bigint, seconds float8) returns bool language plpgsql as $$
         begin perform pg_sleep(seconds); return id % 1400 = 0; end $$",
    );
    let signals = format!("signals-of-{}", stream.name);
    stream.set("snapshot.signal_topic", &signals);
    let program = stream.start_ready();
    wait_until(START_TIMEOUT, "it reads signals", || {
        program.log().contains("signals are read from here on").then_some(())
    });
    command(&stream, &program, &["start", "public.item", "--where", "oracle.slowly(id, 0.001)"]);
    await_state(&stream, &program, "item", "copied");
    stream.drain();
    assert_eq!(copied(&stream.records(), "item"), 2);
    program.terminate();

    // Longer than any command is waited for.
    stream.set("snapshot.statement_timeout", "1h");
    let program = stream.start_ready();
    command(&stream, &program, &["start", "public.whole", "--where", "oracle.slowly(id, 600)"]);
    let is_asked = || -> i64 {
        stream.database.value(
            "select count(*) from pg_stat_activity where datname = current_database() and state = 'active' and query like 'COPY%oracle.slowly(id, 600)%'",
        )
    };
    wait_until(COPY_TIMEOUT, "rows are looked at", || (is_asked() == 1).then_some(()));
    let signal = |value: &str| kafka::write(&stream.bootstrap_servers, &signals, &stream.name, Some(value));
    signal(r#"{"type":"stop-snapshot","data":{"data-collections":["public.whole"]}}"#);
    signal(r#"{"type":"pause-snapshot"}"#);
    wait_until(COPY_TIMEOUT, "it is paused", || (status(&stream, &program)["paused"] == true).then_some(()));
    assert_eq!(state(&status(&stream, &program), "whole"), "stopped");
    wait_until(COPY_TIMEOUT, "the server has given it up", || (is_asked() == 0).then_some(()));
    program.terminate();
}

/// Over a restart, and until nothing is left to copy.
#[test]
fn as_many_tables_are_copied_at_a_time_as_somebody_asks_for() {
    let stack = Stack::shared();
    let mut stream = create(&stack, "parallel", 6000);
    stream.set("snapshot.mode", "never");
    stream.set("snapshot.rows_per_second", "1500");
    stream.set("postgres.match_interval", "1s");
    let names = ["item", "pair", "whole"];
    let program = stream.start_ready();
    let start = ["start", "public.item", "public.pair", "public.whole", "--parallel"];
    let body = r#"{"tables": ["public.item"], "parallel": 17}"#;
    let answer = http(program.address().expect("it listens"), "POST", "/snapshot/start", body).expect("it answers");
    assert!(answer.status == 400 && answer.body.contains("1 to 16"), "{}", answer.body);
    let copying = |program: &Program| {
        let seen = status(&stream, program);
        (names.iter().filter(|name| state(&seen, name) == "copying").count(), seen["parallel"].as_u64())
    };
    let await_copying = |program: &Program, tables: usize| {
        wait_until(COPY_TIMEOUT, &format!("{tables} tables are copied at a time"), || {
            (copying(program) == (tables, Some(tables as u64))).then_some(())
        });
    };
    assert!(command(&stream, &program, &[&start[..], &["3"]].concat()).contains("as asked: 3"));
    await_copying(&program, 3);
    program.kill();
    let program = stream.start_ready();
    await_copying(&program, 3);
    // Of those that are copied, two give way. It is the place that one has come to where it goes on.
    command(&stream, &program, &["start", "public.marker", "--parallel", "1"]);
    await_copying(&program, 1);
    program.terminate();
    stream.set("snapshot.rows_per_second", "1000000");
    let program = stream.start_ready();
    for name in names {
        await_state(&stream, &program, name, "copied");
    }
    wait_until(COPY_TIMEOUT, "nothing is left", || status(&stream, &program)["parallel"].is_null().then_some(()));
    stream.drain();
    program.terminate();
    let records = stream.records();
    Judged::of(&stream, &records).assert_flawless();
    assert_eq!(names.map(|table| copied(&records, table)), [6000, 6000, 6000]);
}

#[test]
fn whoever_has_not_the_token_commands_nothing() {
    let stack = Stack::shared();
    let mut stream = create(&stack, "token", 10);
    stream.set("http.token", "planted-token");
    let program = stream.start_ready();
    let address = program.address().expect("it listens").to_owned();
    let answer = http(&address, "POST", "/snapshot/pause", "{}").expect("it answers");
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("control-denied"), "{}", answer.body);
    stream.set("http.token", "another");
    refused(&stream, &program, &["pause"], "control-denied", "the token is not");
    assert_eq!(status(&stream, &program)["paused"], false);
    stream.set("http.token", "planted-token");
    command(&stream, &program, &["pause"]);
    command(&stream, &program, &["resume"]);
    await_copied(&program);
    assert!(!program.log().contains("planted-token"));
    program.terminate();
}
