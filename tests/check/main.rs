//! `pgsluice check` against real servers: a good set-up passes, and each misconfiguration is found, named by its id and told how to mend.
//! Whatever is wrong, no secret is printed, and nothing is changed anywhere.
//!
//! Here is what goes through all systems; what is about one is in the file of its name, as in `src/commands/check`.

#[expect(dead_code, reason = "shared with the end-to-end tests, which end servers as well")]
#[path = "../end_to_end/harness/stack.rs"]
mod stack;
mod case;
mod postgres;
mod server;
mod setup;
mod tables;
mod schemas;
mod slot;
mod kafka;
mod kafka_tls;
mod plaintext;
mod registry;
mod secrets;
mod secure_kafka;

use std::{
    net::TcpListener,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use case::{Case, SECRETS, closed_port};

#[test]
fn a_good_setup_passes_and_nothing_is_changed() {
    let case = Case::new("good");
    let topics = case.topics();
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
    checked.has_only_errors(&[]);
    for id in
        ["postgres-reachable", "wal-level", "publication", "slot", "kafka-reachable", "registry-reachable", "schemas"]
    {
        checked.one("ok", id);
    }
    let columns = checked.one("ok", "columns-as-text")["found"].as_str().unwrap_or_default();
    assert!(columns.contains("area box") && !columns.contains("total"), "{columns}");
    assert!(checked.text.contains("0 errors"), "{}", checked.text);

    assert_eq!(case.value("SELECT count(*) FROM pg_publication"), "0");
    assert_eq!(case.value(&format!("SELECT count(*) FROM pg_replication_slots WHERE database = '{}'", case.name)), "0");
    // Other tests run beside this one.
    let new: Vec<_> = case.topics().difference(&topics).filter(|topic| topic.contains(&case.name)).cloned().collect();
    assert!(new.is_empty(), "{new:?}");
    let subjects = case.registry_request("GET", "/subjects", "");
    assert!(!subjects.contains(&case.name), "{subjects}");
}

#[test]
fn an_invalid_configuration_is_told_from_a_misconfigured_system() {
    let mut case = Case::new("invalid");
    case.postgres = "slotname = \"x\"".into();
    let output = case.pgsluice(&["check"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("postgres.slotname"));
    case.assert_no_secret(&output);
}

#[test]
fn all_systems_may_be_down_at_once() {
    let mut case = Case::new("down");
    let port = closed_port();
    case.edit_url(|url| url.set_port(Some(port)).expect("a port"));
    case.bootstrap_servers = format!("127.0.0.1:{port}");
    case.registry_url = format!("http://user:{}@127.0.0.1:{port}", SECRETS[3]);
    let checked = case.check();
    checked.refuses("postgres-unreachable", &port.to_string(), "start PostgreSQL");
    checked.refuses("kafka-unreachable", "Connection refused", "kafka.bootstrap_servers");
    checked.refuses("registry-unreachable", &port.to_string(), "schema_registry.url");
    checked.has_only_errors(&["postgres-unreachable", "kafka-unreachable", "registry-unreachable"]);
}

#[test]
fn all_systems_may_be_silent_at_once() {
    let mut case = Case::new("silent");
    // It accepts, by its backlog, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    case.edit_url(|url| url.set_port(Some(port)).expect("a port"));
    case.bootstrap_servers = format!("127.0.0.1:{port}");
    case.registry_url = format!("http://127.0.0.1:{port}");
    let checked = case.check();
    checked.has_only_errors(&["postgres-unreachable", "kafka-unreachable", "registry-unreachable"]);
}

#[test]
fn a_running_instance_is_left_alone() {
    let case = Case::new("running");
    let mut stream =
        Running(case.pgsluice(&["run"]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("it runs"));
    let active = format!("SELECT active_pid FROM pg_replication_slots WHERE database = '{}' AND active", case.name);
    let began = Instant::now();
    let pid = loop {
        let pid = case.value(&active);
        if !pid.is_empty() {
            break pid;
        }
        assert!(
            stream.0.try_wait().expect("its state").is_none() && began.elapsed() < Duration::from_mins(1),
            "it does not stream"
        );
        std::thread::sleep(Duration::from_millis(20));
    };
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
    assert!(checked.one("ok", "slot-active")["found"].as_str().unwrap_or_default().contains(&format!("pid {pid}")));
    assert!(checked.one("ok", "slot")["found"].as_str().unwrap_or_default().contains("run resumes at"));
    assert!(checked.one("ok", "checkpoint")["found"].as_str().unwrap_or_default().contains("by instance"));

    // It still owns its transactional id: what it reads now it can commit.
    let confirmed = format!(
        "SELECT confirmed_flush_lsn >= '{}' FROM pg_replication_slots WHERE database = '{}'",
        case.value("INSERT INTO orders VALUES (1, 1, '(1,1),(0,0)') RETURNING pg_current_wal_insert_lsn()"),
        case.name
    );
    let began = Instant::now();
    while case.value(&confirmed) != "t" {
        assert!(began.elapsed() < Duration::from_mins(1), "what was read is not committed");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(case.value(&active), pid, "the session is the same");
    assert!(stream.0.try_wait().expect("its state").is_none());
    stream.end();

    // Somebody moves the slot while the stream is down.
    case.sql("INSERT INTO orders VALUES (2, 2, '(1,1),(0,0)')");
    case.sql(&format!(
        "SELECT pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) FROM pg_replication_slots \
                       WHERE database = '{}'",
        case.name
    ));
    let checked = case.check();
    checked.refuses("slot-ahead-of-checkpoint", "past the checkpoint", "pgsluice run --accept-gap");
    checked.has_only_errors(&["slot-ahead-of-checkpoint"]);
}

/// The program as a process, which does not outlive the test.
struct Running(Child);

impl Running {
    fn end(&mut self) {
        // What matters is that it is gone: what it has committed is committed.
        let _already_gone = self.0.kill();
        self.0.wait().expect("it is gone");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
