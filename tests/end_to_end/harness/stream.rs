//! The program as a process, with a database, a name and topics of its own.

use std::{
    cell::{Cell, OnceCell},
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tempfile::TempDir;

use super::{
    Answer,
    database::Database,
    event::Record,
    http_get, kafka,
    oracle::{Table, Verdict, judge},
    stack::Stack,
    wait_until,
};

/// How long the program may take to start, on a machine that is busy with other tests.
pub(crate) const START_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a committed row may take to be seen, once the program streams.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_mins(2);

/// The table that every database of a test has.
const MARKER: Table = Table { name: "marker", key: &["id"], full: false };

/// A stream: what the program is configured with.
pub(crate) struct Stream {
    pub(crate) name: String,
    pub(crate) database: Database,
    pub(crate) slot: String,
    pub(crate) publication: String,
    pub(crate) checkpoint_topic: String,
    pub(crate) bootstrap_servers: String,
    pub(crate) registry_url: String,
    /// The topic of the built-in registry, where that is the one.
    pub(crate) schema_topic: Option<String>,
    /// The endpoint's port; 0 leaves it to the kernel.
    port: u16,
    folder: TempDir,
    settings: Vec<(String, String)>,
    starts: Cell<u32>,
}

/// A process of the program. It is killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
    address: OnceCell<String>,
}

impl Stream {
    /// A stream of everything in the schema `public` of a new database.
    pub(crate) fn create(stack: &Stack, label: &str) -> Self {
        Self::create_with(stack, label, None)
    }

    /// A stream that is its own registry, with its schemas in this topic. They are read through its endpoint: whoever decodes needs the
    /// program to run.
    pub(crate) fn create_with_built_in_registry(stack: &Stack, label: &str, schema_topic: &str) -> Self {
        Self::create_with(stack, label, Some(schema_topic))
    }

    fn create_with(stack: &Stack, label: &str, schema_topic: Option<&str>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{label}_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let database = Database::create(stack, &name);
        let folder = TempDir::with_prefix("pgsluice-test-").expect("a folder");
        let checkpoint_topic = format!("__checkpoints_{name}");
        let port = schema_topic.map_or(0, |_| free_port());
        let registry_url = match schema_topic {
            Some(_) => format!("http://127.0.0.1:{port}"),
            None => stack.registry_url().to_owned(),
        };
        let stream = Self {
            slot: format!("pgsluice_{name}"),
            publication: format!("pgsluice_{name}"),
            bootstrap_servers: stack.bootstrap_servers().to_owned(),
            registry_url,
            schema_topic: schema_topic.map(str::to_owned),
            port,
            name,
            database,
            checkpoint_topic,
            folder,
            settings: Vec::new(),
            starts: Cell::new(0),
        };
        fs::write(stream.config_path(), stream.config()).expect("the configuration is written");
        stream
    }

    /// Where its configuration is; what was [set](Self::set) since is not in it.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.folder.path().join("pgsluice.toml")
    }

    fn config(&self) -> String {
        let registry = match &self.schema_topic {
            Some(topic) => format!("topic = {topic:?}"),
            None => format!("url = {:?}", self.registry_url),
        };
        format!(
            "name = {:?}\n\
             [postgres]\nurl = {:?}\ntables = [\"public.*\"]\n\
             [kafka]\nbootstrap_servers = {:?}\ncheckpoint_topic = {:?}\ntopics.partitions = 3\n\
             [snapshot]\nmode = \"never\"\n\
             [schema_registry]\n{registry}\n\
             [http]\nlisten = \"127.0.0.1:{}\"\n\
             [log]\nformat = \"json\"\n",
            self.name, self.database.url, self.bootstrap_servers, self.checkpoint_topic, self.port
        )
    }

    /// Sets a key of the configuration for all starts from now on, such as `kafka.transaction.max_records`.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        let variable = format!("PGSLUICE_{}", key.replace('.', "__").to_uppercase());
        self.settings.retain(|(name, _)| *name != variable);
        self.settings.push((variable, value.to_owned()));
    }

    /// Leaves a key out again.
    pub(crate) fn unset(&mut self, key: &str) {
        let variable = format!("PGSLUICE_{}", key.replace('.', "__").to_uppercase());
        self.settings.retain(|(name, _)| *name != variable);
    }

    /// What was [set](Self::set), for whoever runs the program otherwise.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Starts the program.
    pub(crate) fn start(&self) -> Program {
        self.start_with(&[], &[])
    }

    /// Starts the program and waits until it streams.
    pub(crate) fn start_ready(&self) -> Program {
        let mut program = self.start();
        program.await_ready();
        program
    }

    /// Starts the program with more arguments and environment variables.
    pub(crate) fn start_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Program {
        self.starts.set(self.starts.get() + 1);
        let log = self.folder.path().join(format!("log.{}", self.starts.get()));
        let child = Command::new(env!("CARGO_BIN_EXE_pgsluice"))
            .arg("run")
            .arg("--config")
            .arg(self.config_path())
            .args(arguments)
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .envs(environment.iter().copied())
            .stdin(std::process::Stdio::null())
            .stdout(File::create(self.folder.path().join("stdout")).expect("a file"))
            .stderr(File::create(&log).expect("a file"))
            .spawn()
            .expect("the program starts");
        Program { child, log, address: OnceCell::new() }
    }

    /// Runs another command of the program to its end.
    pub(crate) fn command(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pgsluice"))
            .args(arguments)
            .arg("--config")
            .arg(self.config_path())
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .envs(environment.iter().copied())
            .stdin(std::process::Stdio::null())
            .output()
            .expect("the program runs")
    }

    /// Starts the program, which must refuse with this code, and nothing else.
    pub(crate) fn refuses(&self, arguments: &[&str], code: &str) {
        let mut program = self.start_with(arguments, &[]);
        program.exits_with(3, code, START_TIMEOUT);
    }

    /// A table's topic.
    pub(crate) fn topic(&self, table: &str) -> String {
        format!("{}.public.{table}", self.name)
    }

    /// Waits until everything that was committed before is in Kafka.
    pub(crate) fn drain(&self) {
        self.drain_within(DRAIN_TIMEOUT);
    }

    /// Waits until everything that was committed before is in Kafka, for so long.
    pub(crate) fn drain_within(&self, bound: Duration) {
        let id = self.database.mark();
        kafka::await_row(&self.bootstrap_servers, &self.registry_url, &self.topic("marker"), id, bound);
    }

    /// Every record that is committed now.
    pub(crate) fn records(&self) -> Vec<Record> {
        kafka::read_stream(&self.bootstrap_servers, &self.registry_url, &self.name)
    }

    /// Compares what Kafka holds with what the source says. Whoever could still change either must have ended.
    pub(crate) fn judge(&self, tables: &[Table]) -> (Vec<Record>, Verdict) {
        let tables: Vec<Table> = tables.iter().copied().chain([MARKER]).collect();
        let names: Vec<&str> = tables.iter().map(|table| table.name).collect();
        let history = self.database.history(&names);
        let records = self.records();
        let verdict = judge(&tables, &records, &history);
        (records, verdict)
    }

    /// What the checkpoint topic holds for this stream, oldest first.
    pub(crate) fn checkpoints(&self) -> Vec<Option<serde_json::Value>> {
        kafka::checkpoints(&self.bootstrap_servers, &self.checkpoint_topic, &self.name)
    }
}

/// A port that nobody listens on just now. The lives of one stream keep it.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

impl Drop for Stream {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("KEEP_LOGS").is_some() {
            self.folder.disable_cleanup(true);
            println!("the logs of stream {} are in {}", self.name, self.folder.path().display());
        }
    }
}

impl Program {
    /// Waits until it streams.
    pub(crate) fn await_ready(&mut self) {
        self.await_ready_within(START_TIMEOUT);
    }

    /// Waits until it streams, for so long.
    pub(crate) fn await_ready_within(&mut self, bound: Duration) {
        wait_until(bound, "the program streams", || {
            assert!(self.is_running(), "the program has ended instead of streaming");
            self.readiness().filter(|answer| answer.status == 200).map(drop)
        });
    }

    /// Whether the process has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its state is known").is_none()
    }

    /// What `/readyz` says, once there is an endpoint.
    pub(crate) fn readiness(&self) -> Option<Answer> {
        http_get(self.address()?, "/readyz").ok()
    }

    /// A metric without labels, by its name after `pgsluice_`.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let answer = http_get(self.address()?, "/metrics").ok()?;
        let line = answer
            .body
            .lines()
            .find_map(|line| line.strip_prefix("pgsluice_")?.strip_prefix(name)?.strip_prefix(' '))?;
        line.parse().ok()
    }

    /// Where the endpoint listens: the port is the kernel's choice, and the log tells it.
    pub(crate) fn address(&self) -> Option<&str> {
        if let Some(address) = self.address.get() {
            return Some(address);
        }
        let log = self.log();
        let line = log.lines().find(|line| line.contains("serving metrics"))?;
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(self.address.get_or_init(|| entry["address"].as_str().unwrap_or_default().to_owned()))
    }

    /// Everything that it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the log is readable")
    }

    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is killed");
        self.child.wait().expect("it has ended");
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "SIG{name} could not be sent");
    }

    /// SIGTERM; it must end with success within the bound.
    pub(crate) fn terminate_within(mut self, bound: Duration) {
        self.signal("TERM");
        let status = self.wait(bound, "it ends after SIGTERM");
        assert!(status.success(), "after SIGTERM it ended with {status}");
    }

    /// SIGTERM, as an orderly end.
    pub(crate) fn terminate(self) {
        self.terminate_within(Duration::from_secs(30));
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, bound: Duration, what: &str) -> ExitStatus {
        wait_until(bound, what, || self.child.try_wait().expect("its state is known"))
    }

    /// It must end by itself, with this exit code, and say this failure code.
    pub(crate) fn exits_with(&mut self, exit_code: i32, code: &str, bound: Duration) {
        let status = self.wait(bound, "the program ends by itself");
        let log = self.log();
        assert_eq!(status.code(), Some(exit_code), "it should have ended for [{code}], with {status}");
        assert!(log.contains(&format!("[{code}]")), "the log does not say [{code}]");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            println!("the program's log ended:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}
