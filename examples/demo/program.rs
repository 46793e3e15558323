//! The program on show: `pgsluice run` as a child process, with nothing but its configuration file.

use std::{
    fs::{self, File, OpenOptions},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::http;

const READY_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the kill waits for a busy moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// `/proc` counts processor time in these, on every architecture that Debian has.
const TICKS_PER_SECOND: f64 = 100.0;

/// Where everything is.
pub(crate) struct Servers {
    pub(crate) postgres_url: String,
    pub(crate) kafka: String,
}

/// What all lives of the process have used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_memory_kib: u64,
    pub(crate) kafka_transactions: u64,
}

/// The child process.
pub(crate) struct Program {
    executable: PathBuf,
    pub(crate) config: PathBuf,
    log: PathBuf,
    /// Where its endpoint is, which is the schema registry as well.
    pub(crate) http: String,
    child: Child,
    /// Of the lives that are over.
    before: Usage,
    /// Of those and this one, when it was last looked at.
    latest: Usage,
}

impl Program {
    /// Writes the configuration and starts the process.
    pub(crate) fn start(executable: &Path, folder: &Path, servers: &Servers) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let http = free_address()?;
        let config = folder.join("pgsluice.toml");
        fs::write(&config, configuration(servers, &http))?;
        let log = folder.join("pgsluice.log");
        let child = spawn(executable, &config, &log)?;
        Ok(Self {
            executable: executable.to_owned(),
            config,
            log,
            http,
            child,
            before: Usage::default(),
            latest: Usage::default(),
        })
    }

    /// Starts it again after it has ended.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.before = self.latest;
        self.child = spawn(&self.executable, &self.config, &self.log)?;
        Ok(())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it streams.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                bail!("pgsluice has ended ({status})");
            }
            let last = match http::get(&self.http, "/readyz") {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(answer) => answer.body,
                Err(error) => error.to_string(),
            };
            ensure!(began.elapsed() < READY_TIMEOUT, "pgsluice is not ready: {last}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it has used so far, its earlier lives included. A process that is gone cannot be asked, so this is called before it ends.
    pub(crate) fn usage(&mut self) -> Result<Usage> {
        Ok(self.look()?.0)
    }

    /// SIGKILL, at a moment when it has events in its hands if there is one soon. Nothing of the process is left when this returns.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        let began = Instant::now();
        while self.look()?.1 == 0 && began.elapsed() < BUSY_TIMEOUT {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        // A moment later some of them may have reached Kafka, and their commit has not.
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// What it has used, and how many bytes of events lie between PostgreSQL and Kafka's acknowledgement.
    fn look(&mut self) -> Result<(Usage, u64)> {
        let process = PathBuf::from(format!("/proc/{}", self.pid()));
        let stat = fs::read_to_string(process.join("stat"))?;
        // After the command's name, which may hold spaces, in brackets: fields 14 and 15 of the whole line.
        let fields: Vec<&str> = stat.rsplit_once(')').context("/proc/PID/stat")?.1.split_whitespace().collect();
        let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        let status = fs::read_to_string(process.join("status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
        let metrics = http::get(&self.http, "/metrics")?.body;
        self.latest = Usage {
            cpu_seconds: self.before.cpu_seconds + ticks / TICKS_PER_SECOND,
            peak_memory_kib: peak.trim().trim_end_matches(" kB").parse::<u64>()?.max(self.before.peak_memory_kib),
            kafka_transactions: self.before.kafka_transactions + metric(&metrics, "pgsluice_kafka_transactions_total")?,
        };
        Ok((self.latest, metric(&metrics, "pgsluice_queue_bytes")?))
    }

    /// SIGTERM, as a service manager does it: the stream is brought to an end, and the exit code must be 0.
    pub(crate) async fn stop(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let sent = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status()?;
        ensure!(sent.success(), "pgsluice was gone before it was stopped");
        loop {
            if let Some(status) = self.ended()? {
                ensure!(status.success(), "pgsluice has ended with {status}");
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < STOP_TIMEOUT, "pgsluice does not stop within {STOP_TIMEOUT:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The last lines of its log.
    pub(crate) fn log_end(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // After an error, it may still run. If it does not, there is nothing to do.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn metric(metrics: &str, name: &str) -> Result<u64> {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("pgsluice has no metric {name}"))?.parse()?)
}

fn spawn(executable: &Path, config: &Path, log: &Path) -> Result<Child> {
    let log: File = OpenOptions::new().create(true).append(true).open(log)?;
    // The kernel kills it if this process is killed. A process group of its own keeps Ctrl-C in the terminal away from it: the demo
    // decides when it ends.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(executable).arg("run").arg("--config").arg(config);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PGSLUICE_") {
            command.env_remove(name);
        }
    }
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().context("starting setpriv, of util-linux")
}

fn configuration(servers: &Servers, http: &str) -> String {
    format!(
        r#"name = "shop"

[postgres]
url = "{}"
tables = ["public.*"]

[kafka]
bootstrap_servers = "{}"
topics = {{ partitions = 3 }}

[http]
listen = "{http}"
"#,
        servers.postgres_url, servers.kafka
    )
}

/// A port that nobody listens on just now. It is kept for both lives of the process.
fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
