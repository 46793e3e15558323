use std::collections::BTreeSet;

use encoder::Change;
use publisher::Position as Resumed;
use serde_json::Value;

use super::*;
use crate::{
    catalog::SlotState,
    failure::{Code, Failure},
    metrics::SlotHealth,
    quarantine::Quarantine,
};

/// Every value in the document, by its path, with what it is; of lists the first element.
const SHAPE: &str = "\
copies.at_ms: number
copies.copied: number
copies.more: number
copies.paused: bool
copies.tables: array
copies.tables[].bytes: number
copies.tables[].ended_ms: number
copies.tables[].problem: string
copies.tables[].rows: number
copies.tables[].rows_estimated: number
copies.tables[].rows_per_second: number
copies.tables[].started_ms: number
copies.tables[].state: string
copies.tables[].table: string
copies.total: number
failures: array
failures[].code: string
failures[].first_ms: number
failures[].fix: string
failures[].last_ms: number
failures[].meaning: string
failures[].stops: bool
failures[].text: string
failures[].times: number
format: number
history.at_ms: array
history.at_ms[]: number
history.bytes_per_second: array
history.bytes_per_second[]: number
history.events_per_second: array
history.events_per_second[]: number
history.interval_ms: number
history.kept_bytes: array
history.kept_bytes[]: number
history.lag_bytes: array
history.lag_bytes[]: number
history.lag_ms: array
history.lag_ms[]: number
history.received_to_committed_p50_ms: array
history.received_to_committed_p50_ms[]: number
history.received_to_committed_p99_ms: array
history.received_to_committed_p99_ms[]: number
history.source_to_committed_p50_ms: array
history.source_to_committed_p50_ms[]: number
history.source_to_committed_p99_ms: array
history.source_to_committed_p99_ms[]: number
lag.bytes: number
lag.ms: number
last.event_ms: number
last.xid: number
latencies.over_ms: number
latencies.stages: array
latencies.stages[].count: number
latencies.stages[].p50_ms: number
latencies.stages[].p99_ms: number
latencies.stages[].stage: string
memory.queue_bytes: number
memory.queue_limit_bytes: number
name: string
now_ms: number
positions.committed.bytes: number
positions.committed.lsn: string
positions.confirmed.bytes: number
positions.confirmed.lsn: string
positions.published.bytes: number
positions.published.lsn: string
positions.received.bytes: number
positions.received.lsn: string
positions.server.bytes: number
positions.server.lsn: string
quarantine.more: number
quarantine.tables: array
quarantine.tables[].letters: string
quarantine.tables[].reason: string
quarantine.tables[].since_ms: number
quarantine.tables[].table: string
quarantine.tables[].topic: string
quarantine.total: number
rates.bytes_per_second: number
rates.events_per_second: number
sessions: number
slot.at_ms: number
slot.kept_bytes: number
slot.safe_bytes: number
slot.seconds_to_loss: number
slot.snapshot_seconds: number
slot.status: string
started_ms: number
state.name: string
state.ready: bool
state.reason: string
state.since_ms: number
tables.busiest: array
tables.busiest[].dead_letter: number
tables.busiest[].delete: number
tables.busiest[].insert: number
tables.busiest[].schema: string
tables.busiest[].table: string
tables.busiest[].truncate: number
tables.busiest[].update: number
tables.more: number
tables.total: number
verdict.advice: string
verdict.code: string
verdict.detail: string
verdict.level: string
verdict.text: string
version: string
";

fn shape(value: &Value, path: &str, out: &mut BTreeSet<String>) {
    let mut is = |kind: &str| {
        if !path.is_empty() {
            out.insert(format!("{path}: {kind}"));
        }
    };
    match value {
        Value::Null => is("null"),
        Value::Bool(_) => is("bool"),
        Value::Number(_) => is("number"),
        Value::String(_) => is("string"),
        Value::Array(elements) => {
            is("array");
            if let Some(first) = elements.first() {
                shape(first, &format!("{path}[]"), out);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                shape(member, &path, out);
            }
        }
    }
}

fn copied(table: &str, state: control::State) -> control::TableStatus {
    control::TableStatus {
        table: table.into(),
        name: None,
        state,
        rows: 1,
        bytes: 2,
        rows_estimated: Some(3),
        rows_per_second: Some(0.5),
        connections: None,
        condition: Some("name = 'a value'".into()),
        started_at_ms: Some(1),
        ended_at_ms: Some(2),
        problem: Some("no".into()),
    }
}

/// An instance of which everything is known.
fn everything() -> Metrics {
    let metrics = Metrics::new(64 << 20);
    metrics.take_sample();
    metrics.state("streaming");
    metrics.resumed_at(Resumed::at(0x10.into()));
    metrics.confirmed(0x10.into());
    metrics.events_encoded();
    metrics.transaction_received(7);
    metrics.encoded(std::time::Duration::from_millis(3));
    metrics.queued(std::time::Duration::from_millis(3));
    metrics.kafka_committed(Resumed::at(0x10.into()), 1, std::time::Duration::from_millis(3), 0, unix_ms() * 1000);
    metrics.received_to_committed(std::time::Duration::from_millis(3));
    metrics.source_to_committed(unix_ms() * 1000);
    metrics.server_position(0x1_0000_0010.into());
    metrics.table("public", "<script>alert(1)</script>").count(&Change::Truncate, 1);
    let state = SlotState {
        wal_status: Some("extended".into()),
        retained_bytes: Some(5),
        safe_wal_size: Some(6),
        ..SlotState::default()
    };
    metrics.slot(&SlotHealth { state, seconds_to_loss: 7.0, snapshot_seconds: 0.0 });
    let mut quarantine = Quarantine::default();
    quarantine.begin("t", crate::quarantine::Quarantined::new("public.item".into(), "letters".into(), 0, 0, "refused"));
    metrics.quarantined(&quarantine);
    metrics.paused(
        &Failure::new(Code::RegistryUnavailable, "the registry is down")
            .in_table("public", "item")
            .with_key("{\"id\":\"secret\"}"),
    );
    metrics.take_sample();
    metrics
}

#[test]
fn the_names_of_the_document_do_not_change() {
    let copies = Copies::new(
        1,
        control::Status { paused: false, parallel: None, tables: vec![copied("public.item", control::State::Copying)] },
    );
    let status = everything().status("shop", Some(copies));
    let document = serde_json::to_value(&status).expect("JSON");
    let mut found = BTreeSet::new();
    shape(&document, "", &mut found);
    let expected: BTreeSet<String> = SHAPE.lines().map(str::to_owned).collect();
    let gone: Vec<_> = expected.difference(&found).collect();
    let new: Vec<_> = found.difference(&expected).collect();
    assert!(gone.is_empty(), "what goes, or is something else, needs another `FORMAT`: {gone:?}");
    assert!(new.is_empty(), "what is new belongs into this test, and into docs/status.md: {new:?}");
    assert_eq!(document["format"], 1);
    assert_eq!(document["positions"]["server"]["lsn"], "1/10");
    assert_eq!(document["positions"]["server"]["bytes"], 0x1_0000_0010_u64);
    assert_eq!(document["lag"]["bytes"], 0x1_0000_0000_u64);
    assert_eq!(document["tables"]["busiest"][0]["table"], "<script>alert(1)</script>");
    // Neither a row's key nor the values of a condition.
    let text = document.to_string();
    assert!(!text.contains("secret") && !text.contains("a value"), "{text}");
    // `pgsluice top` reads what is written.
    serde_json::from_str::<Status>(&text).expect("it is read back");
}

#[test]
fn no_step_is_behind_a_later_one() {
    let metrics = Metrics::new(1);
    metrics.resumed_at(Resumed::at(0x10.into()));
    metrics.kafka_committed(Resumed::at(0x30.into()), 0, std::time::Duration::ZERO, 0, 0);
    metrics.confirmed(0x20.into());
    let positions = metrics.status("shop", None).positions;
    let told = [positions.server, positions.received, positions.published, positions.committed, positions.confirmed];
    assert_eq!(told.map(|position| position.map(|position| position.bytes)), [0x30, 0x30, 0x30, 0x30, 0x20].map(Some));
}

#[test]
fn what_is_not_known_is_null() {
    let status = Metrics::new(1).status("shop", None);
    let document = serde_json::to_value(&status).expect("JSON");
    for path in [
        "/slot",
        "/copies",
        "/last/event_ms",
        "/last/xid",
        "/positions/server",
        "/positions/confirmed",
        "/rates/events_per_second",
        "/latencies/stages/0/p50_ms",
    ] {
        assert_eq!(document.pointer(path), Some(&Value::Null), "{path}");
    }
    assert_eq!(document["state"]["ready"], false);
    assert_eq!(document["verdict"]["level"], "waiting");
    // No limit, and no loss, is not a number that JSON has.
    let metrics = Metrics::new(1);
    metrics.slot(&SlotHealth { state: SlotState::default(), seconds_to_loss: f64::INFINITY, snapshot_seconds: 0.0 });
    let document = serde_json::to_value(metrics.status("shop", None)).expect("JSON");
    assert_eq!(document.pointer("/slot/seconds_to_loss"), Some(&Value::Null));
}

#[test]
fn the_busiest_tables_are_named_and_the_others_counted() {
    let metrics = Metrics::new(1);
    for number in 0..250_u64 {
        metrics.table("public", &format!("t{number:03}")).count(&Change::Truncate, number / 2);
    }
    let Tables { total, more, busiest } = metrics.status("shop", None).tables;
    assert_eq!((total, more, busiest.len()), (250, 150, 100));
    let names: Vec<_> = busiest.iter().map(|table| table.table.as_str()).collect();
    assert_eq!(&names[..3], ["t248", "t249", "t246"], "the most first, and by name where that is the same");
    assert_eq!(names[99], "t151");
}

#[test]
fn lists_are_bounded() {
    let metrics = Metrics::new(1);
    let mut quarantine = Quarantine::default();
    for number in 0..300 {
        let entry = crate::quarantine::Quarantined::new(format!("public.t{number}"), "letters".into(), 0, 0, "no");
        quarantine.begin(&format!("topic{number}"), entry);
        metrics.copy_failed(&Failure::new(Code::PostgresUnavailable, format!("no {number}")));
        metrics.take_sample();
    }
    metrics.quarantined(&quarantine);
    let mut tables: Vec<_> =
        (0..300).map(|number| copied(&format!("public.t{number}"), control::State::Copied)).collect();
    tables[299].state = control::State::Copying;
    let copies = Copies::new(1, control::Status { paused: false, parallel: None, tables });
    let status = metrics.status("shop", Some(copies));
    assert_eq!((status.quarantine.total, status.quarantine.more, status.quarantine.tables.len()), (300, 200, 100));
    assert_eq!((status.failures.len(), status.failures[0].text.as_str()), (50, "no 299"));
    assert_eq!(status.history.at_ms.len(), 180);
    let copies = status.copies.expect("they are known");
    assert_eq!((copies.total, copies.copied, copies.more, copies.tables.len()), (300, 299, 200, 100));
    assert_eq!(copies.tables[0].table, "public.t299", "what is going on is not cut off");
}
