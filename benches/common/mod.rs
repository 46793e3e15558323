//! What the benches of whole processes share: starting pgsluice, watching a process, and reading its metrics.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command},
    time::{Duration, Instant},
};

/// What a process took.
pub(crate) struct Took {
    pub(crate) wall: Duration,
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_mib: f64,
}

/// Where the servers are.
pub(crate) struct Servers {
    pub(crate) url: String,
    pub(crate) brokers: String,
    pub(crate) registry: String,
}

impl Servers {
    pub(crate) fn from_environment() -> Self {
        let variable =
            |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make bench`"));
        let url = if std::env::var_os("PGSLUICE_TEST_BENCH_SOCKET").is_some() {
            variable("PGSLUICE_TEST_POSTGRES_SOCKET_URL")
        } else {
            variable("PGSLUICE_TEST_POSTGRES_URL")
        };
        let (brokers, registry) =
            (variable("PGSLUICE_TEST_KAFKA_BOOTSTRAP_SERVERS"), variable("PGSLUICE_TEST_REGISTRY_URL"));
        Self { url, brokers, registry }
    }
}

/// Runs a bench, unless it is asked for by `cargo test --benches`, which expects something quick.
pub(crate) fn run(bench: impl Future<Output = ()>) {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(bench);
}

/// A number that may be set in the environment.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// One of PostgreSQL's own programs, as it is installed.
pub(crate) fn postgres_program(name: &str) -> String {
    let candidates = [name.to_owned(), format!("/usr/lib/postgresql/15/bin/{name}")];
    let found = candidates.iter().find(|program| Command::new(program).arg("--version").output().is_ok());
    found.unwrap_or_else(|| panic!("{name} is not installed: dev/stack install --bench-tools")).clone()
}

/// pgsluice while it runs.
pub(crate) struct Pgsluice {
    pub(crate) child: Child,
    pub(crate) port: u16,
    config: PathBuf,
}

impl Pgsluice {
    /// Starts it with the sections `[postgres]` and `[snapshot]`, without the server's URL.
    pub(crate) fn start(servers: &Servers, name: &str, postgres: &str, arguments: &[&str]) -> Self {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
        let config = std::env::temp_dir().join(format!("{name}.toml"));
        let Servers { url, brokers, registry } = servers;
        let text = format!(
            "name = \"{name}\"\n[kafka]\nbootstrap_servers = \"{brokers}\"\n[schema_registry]\nurl = \"{registry}\"\n\
             [http]\nlisten = \"127.0.0.1:{port}\"\n[postgres]\nurl = \"{url}\"\n{postgres}\n"
        );
        fs::write(&config, text).expect("the configuration is written");
        let log = fs::File::create(std::env::temp_dir().join(format!("{name}.log"))).expect("the log is made");
        let child = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_pgsluice")))
            .arg("run")
            .args(arguments)
            .arg("--config")
            .arg(&config)
            .stderr(log)
            .spawn()
            .expect("pgsluice starts");
        Self { child, port, config }
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("pgsluice ends");
        let _removed = fs::remove_file(self.config);
    }
}

/// Drops a slot: the server notices within a moment that its client is gone.
pub(crate) async fn drop_slot(client: &tokio_postgres::Client, slot: &str) {
    for _ in 0..100 {
        if client.execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until a process has begun, and says when that was.
pub(crate) fn await_start(child: &mut Child, mut has_begun: impl FnMut(&Child) -> bool) -> Instant {
    while !has_begun(child) {
        std::thread::sleep(Duration::from_millis(1));
        let ended = child.try_wait().expect("it is our child");
        assert!(
            ended.is_none(),
            "it has ended before its first row; what pgsluice says is in {}",
            std::env::temp_dir().display()
        );
    }
    Instant::now()
}

/// Waits for a process's end, and reads off what the process has used until then.
pub(crate) fn wait_for(child: &mut Child, began: Instant, mut is_over: impl FnMut(&mut Child) -> bool) -> Took {
    let mut took = Took { wall: Duration::ZERO, cpu_seconds: 0.0, peak_mib: 0.0 };
    loop {
        // Read before the look that may be the last: nothing can be read of a process that has ended.
        if let Some((cpu_seconds, peak_mib)) = usage(child.id()) {
            (took.cpu_seconds, took.peak_mib) = (cpu_seconds, peak_mib);
        }
        if is_over(child) {
            took.wall = began.elapsed();
            return took;
        }
        assert!(began.elapsed() < Duration::from_mins(30), "it does not end");
        // Whoever is asked too often does that instead.
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn usage(pid: u32) -> Option<(f64, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; user and system time are the 12th and 13th field after it, in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let peak_kib: f64 = peak.trim().trim_end_matches(" kB").trim().parse().ok()?;
    Some((ticks / 100.0, peak_kib / 1024.0))
}

pub(crate) fn metric(port: u16, name: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}
