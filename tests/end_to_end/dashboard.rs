//! Each query of the dashboard, and each alert, asked of a Prometheus that scrapes a running program: none is an error, those which should have something
//! to show have it, and no alert fires for a stream that is well.
//!
//! `deploy/check live` fetches Prometheus and sets `PGSLUICE_TEST_PROMETHEUS`, and so does `.ci/run`, which fails where it cannot. Without it the test says,
//! on the terminal, that it shows nothing.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::harness::{
    http_get,
    stack::Stack,
    stream::{START_TIMEOUT, Stream},
    wait_until,
};

/// Queries that have nothing to show while all is well: what each asks for.
const EMPTY_WHEN_WELL: &[&str] = &[
    "pgsluice_slot_loss_seconds",
    "pgsluice_slot_safe_bytes",
    "pgsluice_errors_total",
    "pgsluice_begun_anew_total",
    "pgsluice_registry_up",
    "pgsluice_registry_errors_total",
    "pgsluice_copying_rows",
];
/// What may be there or not: librdkafka also reports what it tries again by itself.
const EMPTY_OR_NOT: &[&str] = &["pgsluice_kafka_client_errors_total"];
/// How many samples there are to be, one a second, and over how many a rate is taken.
const SCRAPES: f64 = 12.0;
const RATE_INTERVAL: &str = "8s";

/// A Prometheus that scrapes one instance each second.
struct Prometheus {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(binary: &str, scraped: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n  - job_name: pgsluice\n    static_configs: [{{ targets: [{scraped:?}] }}]\n"
        );
        fs::write(&config, text).expect("written");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let child = Command::new(binary)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .spawn()
            .expect("Prometheus starts");
        Self { child, address, _folder: folder }
    }

    /// The values that an instant query finds; none before it answers.
    fn try_ask(&self, query: &str) -> Option<Result<Vec<f64>, String>> {
        let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let answer = http_get(&self.address, &format!("/api/v1/query?query={query}")).ok()?;
        let answer: Value = serde_json::from_str(&answer.body).ok()?;
        if answer["status"] != "success" {
            return Some(Err(answer["error"].to_string()));
        }
        let value = |sample: &Value| sample["value"][1].as_str().and_then(|text| text.parse().ok()).expect("a number");
        Some(Ok(answer["data"]["result"].as_array().expect("a vector").iter().map(value).collect()))
    }

    fn ask(&self, query: &str) -> Result<Vec<f64>, String> {
        self.try_ask(query).expect("Prometheus answers")
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Says with its end that something is over.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The queries of all panels, with Grafana's variables as it would fill them in.
fn queries_of_panels() -> BTreeSet<String> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/pgsluice.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries = targets.map(|target| target["expr"].as_str().expect("a query"));
    let filled = queries.map(|query| query.replace("$instance", ".*").replace("$__rate_interval", RATE_INTERVAL));
    let queries: BTreeSet<String> = filled.collect();
    assert!(queries.len() > 30 && queries.iter().all(|query| !query.contains('$')), "{queries:?}");
    queries
}

fn queries_of_alerts() -> Vec<String> {
    let rules = read("deploy/prometheus/alerts.yml");
    let queries: Vec<String> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(str::to_owned).collect();
    assert_eq!(queries.len(), rules.matches("- alert: ").count());
    queries
}

#[test]
fn the_dashboard_shows_a_running_instance() {
    let Ok(binary) = std::env::var("PGSLUICE_TEST_PROMETHEUS") else {
        // Past the harness, which keeps what a test prints to itself as long as it passes.
        let told = "\nNOT SHOWN: that Prometheus answers what the dashboard asks. deploy/check live does.\n";
        std::io::stderr().write_all(told.as_bytes()).expect("a terminal");
        return;
    };
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "dashboard");
    stream.set("snapshot.mode", "initial");
    stream
        .database
        .create_tables("create table public.item (id bigint generated always as identity primary key, note text)");
    stream.database.execute("insert into public.item(note) select 'before' from generate_series(1, 100)");
    let program = stream.start_ready();
    let prometheus = Prometheus::start(&binary, program.address().expect("it listens"));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // The writer ends however this does.
        let _over = Over(&is_over);
        scope.spawn(|| {
            let mut client = stream.database.client();
            while !is_over.load(Ordering::Relaxed) {
                let sql = "insert into public.item(note) values ('new'); update public.item set note = 'newer' where id = (select max(id) from public.item)";
                client.batch_execute(sql).expect("it is written");
                thread::sleep(Duration::from_millis(50));
            }
        });
        wait_until(START_TIMEOUT, "there are enough samples", || {
            let counted = prometheus.try_ask("count_over_time(pgsluice_ready[5m])")?.ok()?;
            (counted.first()? >= &SCRAPES).then_some(())
        });
        let mut wrong = Vec::new();
        for query in queries_of_panels() {
            if EMPTY_OR_NOT.iter().any(|name| query.contains(name)) {
                assert!(prometheus.ask(&query).is_ok(), "{query}");
                continue;
            }
            let may_be_empty = EMPTY_WHEN_WELL.iter().any(|name| query.contains(name));
            match prometheus.ask(&query) {
                Err(error) => wrong.push(format!("{query}: {error}")),
                Ok(found) if may_be_empty && !found.is_empty() => {
                    wrong.push(format!("{query}: all is well, and it shows {found:?}"));
                }
                Ok(found) if !may_be_empty && (found.is_empty() || !found.iter().all(|value| value.is_finite())) => {
                    wrong.push(format!("{query}: {found:?}"));
                }
                Ok(_) => {}
            }
        }
        for query in queries_of_alerts() {
            match prometheus.ask(&query) {
                Err(error) => wrong.push(format!("{query}: {error}")),
                Ok(found) if !found.is_empty() => wrong.push(format!("{query}: it fires")),
                Ok(_) => {}
            }
        }
        // What Grafana offers to choose from.
        let instances = prometheus.ask("count by (instance) (pgsluice_build_info)");
        assert_eq!(instances.as_deref(), Ok(&[1.0][..]));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
    program.terminate();
}
