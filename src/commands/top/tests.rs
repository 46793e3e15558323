use std::time::Duration;

use encoder::Change;

use super::*;
use crate::{
    metrics::{Metrics, unix_ms},
    snapshot::control,
};

fn address() -> Address {
    "db.internal:9187".parse().expect("an address")
}

fn status() -> Status {
    let metrics = Metrics::new(64 << 20);
    metrics.state("streaming");
    metrics.resumed_at(publisher::Position::at(0x10.into()));
    metrics.server_position(0x1_0000_0010.into());
    metrics.kafka_committed(publisher::Position::at(0x10.into()), 1, Duration::from_millis(3), 0, unix_ms() * 1000);
    metrics.table("public", "orders").count(&Change::Truncate, 1_234_567);
    metrics.table("public", "\u{1b}[2Jevil\u{7}").count(&Change::Truncate, 1);
    metrics.copy_failed(&Failure::new(Code::PostgresUnavailable, "the server does not answer"));
    let table = |table: &str, state| control::TableStatus {
        table: table.into(),
        name: None,
        state,
        rows: 500,
        bytes: 1000,
        rows_estimated: Some(1000),
        rows_per_second: Some(100.0),
        connections: None,
        condition: None,
        started_at_ms: None,
        ended_at_ms: None,
        problem: None,
    };
    let tables = vec![table("public.big", control::State::Copying), table("public.small", control::State::Copied)];
    let copies =
        crate::metrics::status::Copies::new(unix_ms(), control::Status { paused: false, parallel: None, tables });
    metrics.status("shop", Some(copies))
}

#[test]
fn everything_that_matters_is_in_the_smallest_terminal() {
    let mut view = View::unknown(address(), "q quits ");
    view.take(Ok(status()));
    let text = frame(&view, 80, 24);
    for part in [
        "shop",
        "db.internal:9187",
        "All is well",
        "Lag",
        "4 GiB of log",
        "Server",
        "1/10",
        "-4 GiB",
        "1 of 2 tables copied",
        "public.big",
        "50%",
        "postgres-unavailable",
        "public.orders",
        "1,234,567",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80) && text.lines().count() <= 24);
    assert!(!text.contains(['\u{1b}', '\u{7}']), "a name commands the terminal");
    assert!(text.contains("public.\u{fffd}[2Jevil\u{fffd}"), "and what it holds is not hidden\n{text}");
}

#[test]
fn any_size_can_be_drawn() {
    let mut known = View::unknown(address(), "q quits ");
    known.take(Ok(status()));
    for (columns, lines) in [(1, 1), (3, 2), (10, 5), (20, 80), (80, 24), (79, 25), (300, 100), (400, 3)] {
        frame(&known, columns, lines);
        frame(&View::unknown(address(), "q quits "), columns, lines);
    }
}

#[test]
fn an_instance_that_does_not_answer_is_said_so() {
    let mut view = View::unknown(address(), "q quits ");
    view.take(Ok(status()));
    view.take(Err(Failure::new(Code::ControlUnavailable, "connection refused")));
    let text = frame(&view, 80, 24);
    assert!(
        text.contains("does not answer") && text.contains("connection refused") && text.contains("said last"),
        "{text}"
    );
    assert!(text.contains("public.orders"), "what was known stays\n{text}");
}
