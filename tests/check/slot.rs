//! The slot.

use crate::case::{Case, closed_port};

#[test]
fn a_slot_that_does_not_fit_is_refused_as_run_refuses_it() {
    let mut case = Case::new("slots");
    let slot = format!("s{}", std::process::id());
    case.postgres = format!("slot = {slot:?}");
    case.sql(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')"));
    let checked = case.check();
    let fix = format!("pg_drop_replication_slot('{slot}')");
    checked.refuses("slot-unfit", "its output plugin is test_decoding", &fix);
    checked.has_only_errors(&["slot-unfit"]);

    case.sql(&format!("SELECT {fix}"));
    case.sql(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    let checked = case.check();
    checked.refuses("slot-without-checkpoint", "Kafka holds no checkpoint", "pgsluice run --adopt-slot");
    checked.has_only_errors(&["slot-without-checkpoint"]);
    checked.one("ok", "slot-wal");

    // Without Kafka it is not known whether there is a checkpoint, and nothing is claimed.
    case.bootstrap_servers = format!("127.0.0.1:{}", closed_port());
    let checked = case.check();
    checked.has_only_errors(&["kafka-unreachable"]);
    assert!(checked.one("ok", "slot")["found"].as_str().unwrap_or_default().contains("cannot be told without Kafka"));
}
