//! A PostgreSQL that is there, keeps its connections, and says nothing: its walsender is stopped as by a debugger, or by storage that hangs.

use std::{process::Command, time::Duration};

use crate::harness::{
    http_get,
    random::Random,
    stack::Stack,
    stream::Stream,
    wait_until,
    watcher::Watcher,
    workload::{TABLES, Workload},
};

/// What is documented as 10 s, on a machine that others use.
const BOUND: Duration = Duration::from_secs(30);

/// A process of the server that is stopped, until this is dropped.
struct Stopped(i32);

impl Stopped {
    fn new(pid: i32) -> Self {
        let stopped = Self(pid);
        stopped.signal("STOP");
        stopped
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.0.to_string()]).status();
        assert!(sent.expect("kill runs").success(), "SIG{name} could not be sent");
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.signal("CONT");
    }
}

#[test]
fn a_walsender_that_is_stopped_is_seen_and_nothing_begins_anew() {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let stream = Stream::create(&stack, "silence");
    Workload::create_tables(&stream);
    let program = stream.start_ready();
    let watcher = Watcher::start(&stream);
    Workload::touch_tables(&stream);
    // It has nothing to do then: one that is stopped at work says that it is at work.
    stream.drain();
    let errors = r#"errors_total{code="postgres-unavailable"}"#;
    let before = program.metric(errors);
    let sql = format!("select active_pid from pg_replication_slots where slot_name = '{}'", stream.slot);
    let walsender = Stopped::new(stream.database.value(&sql));
    let workload = Workload::start(&stream, &mut random);
    wait_until(BOUND, "it is not ready", || {
        let answer = program.readiness()?;
        // Heartbeats go on, and are no progress of a stream that hears nothing.
        let is_seen =
            answer.status == 503 && answer.body.contains("[postgres-unavailable] PostgreSQL has sent nothing");
        is_seen.then_some(())
    });
    assert!(program.metric(errors) > before);
    assert_eq!(program.metric("ready"), Some(0.0));
    let status = http_get(program.address().expect("it listens"), "/status").expect("it answers").body;
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["verdict"]["code"], "postgres-unavailable");
    assert_eq!(status["failures"][0]["code"], "postgres-unavailable");
    let log = program.log();
    assert!(log.contains("the stream waits: [postgres-unavailable] PostgreSQL has sent nothing"), "{log}");
    drop(walsender);
    wait_until(BOUND, "it is ready", || program.readiness().filter(|answer| answer.status == 200));
    workload.finish();
    stream.drain();
    assert!(program.log().contains("PostgreSQL answers again"));
    assert_eq!(program.metric("sessions_total"), Some(1.0), "what may be decoding for long is not begun anew");
    program.terminate();
    watcher.finish();
    let (_, verdict) = stream.judge(TABLES);
    verdict.assert_flawless();
}
