//! docs/quick-start.md is played, from an empty folder to an empty server.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use regex::Regex;

use crate::{
    documented::{self, Played, Step},
    harness::{
        database::{Database, lsn},
        http_get,
        stack::Stack,
        stream::{DRAIN_TIMEOUT, START_TIMEOUT},
        wait_until,
    },
};

/// The version of PostgreSQL whose output the page shows.
const SHOWN: i32 = 18;

#[test]
fn what_it_shows_is_what_happens() {
    let stack = Stack::shared();
    // What `check` says of them is shown.
    let _settings = stack.settings();
    let name = format!("quick_start_{}", std::process::id());
    let database = Database::create(&stack, &name);
    database.execute("drop table public.marker; drop schema oracle cascade");
    let names = Names::new(&stack, &name, &database);
    let folder = tempfile::tempdir().expect("a folder");
    let mut shell = Shell::start(folder.path(), &names);
    let version: i32 = database.value("select current_setting('server_version_num')::int / 10000");

    documented::play("docs/quick-start.md", plain(version), |step| match step {
        Step::Command(command) => {
            let mut output = shell.run(&names.real(command));
            if command.ends_with('&') {
                shell.await_stream(&names);
            }
            output = names.shown(&output);
            Some(Played { command: command.to_owned(), output })
        }
        Step::Block("sql", sql) => {
            // Each statement is a transaction, as in psql, and as slow as who types it.
            for statement in names.real(sql).split_inclusive(";\n") {
                database.play(statement);
                if shell.has_stream() {
                    shell.await_position(&names, lsn(&database.value::<String>("select pg_current_wal_lsn()::text")));
                }
            }
            None
        }
        Step::Block("toml", text) => {
            fs::write(folder.path().join("pgsluice.toml"), names.real(text)).expect("it can be written");
            None
        }
        Step::Block(..) => None,
    });
    let left: i64 = database.value(&format!("select count(*) from pg_replication_slots where database = '{name}'"));
    assert_eq!(left, 0, "nothing is left of it");
}

/// What is another thing each time: versions, positions, times, and how long something took. Another PostgreSQL than the page's has other
/// findings: there the commands are run, and what they say is not compared.
fn plain(version: i32) -> impl Fn(&str) -> String {
    let rules = [
        ("[0-9A-F]{1,8}/[0-9A-F]{5,8}", "LSN"),
        (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME"),
        (r"\d+\.\d+(\.\d+)?", "NUMBER"),
        (r"\d{3,}", "NUMBER"),
        (r"\d+ of \d+ in use", "SOME in use"),
        (r"\d+ checks: 0 errors, \d+ warnings?, \d+ ok", "SOME checks: 0 errors"),
        (r"cluster id [\w-]+", "cluster id ID"),
        (r"(NUMBER|\d+) (ms|s|bytes|KiB|MiB|GiB)\b", "AMOUNT"),
        (" +", " "),
    ];
    let rules = rules.map(|(rule, name)| (Regex::new(rule).expect("an expression"), name));
    move |text| {
        if version != SHOWN {
            return String::new();
        }
        let text = rules.iter().fold(text.to_owned(), |text, (rule, name)| rule.replace_all(&text, *name).into_owned());
        // The test is not alone on the server.
        let mut is_of_others = false;
        let mut is_ours = |line: &&str| {
            let goes_on = ["why:", "fix:"].iter().any(|word| line.trim_start().starts_with(word));
            is_of_others = line.contains(" other-slots ") || is_of_others && goes_on;
            !is_of_others
        };
        text.lines().filter(|line| is_ours(line)).collect::<Vec<_>>().join("\n")
    }
}

/// The names of the page, and those of the test, which is not alone on the servers.
struct Names {
    /// Each as it is in the page, and as it is.
    pairs: Vec<(String, String)>,
    environment: Vec<(&'static str, String)>,
    /// Where the program listens.
    address: String,
}

impl Names {
    fn new(stack: &Stack, name: &str, database: &Database) -> Self {
        let url: url::Url = database.url.parse().expect("a URL");
        let server = format!("{}:{}", url.host_str().expect("a host"), url.port().expect("a port"));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let pair = |shown: &str, real: &str| (shown.to_owned(), real.to_owned());
        let pairs = vec![
            pair("postgres://postgres@localhost:5432/shop", &database.url),
            pair("localhost:5432", &server),
            pair("localhost:9092", stack.bootstrap_servers()),
            pair("127.0.0.1:9187", &address),
            pair("shop", name),
        ];
        let environment = vec![
            ("PGSLUICE_HTTP__LISTEN", address.clone()),
            ("PGSLUICE_SCHEMA_REGISTRY__TOPIC", format!("_schemas.{name}")),
            ("PGSLUICE_KAFKA__CHECKPOINT_TOPIC", format!("__pgsluice_checkpoints.{name}")),
            ("PGSLUICE_KAFKA__TOPICS__PARTITIONS", "1".to_owned()),
        ];
        Self { pairs, environment, address }
    }

    fn real(&self, text: &str) -> String {
        self.pairs.iter().fold(text.to_owned(), |text, (shown, real)| text.replace(shown, real))
    }

    fn shown(&self, text: &str) -> String {
        let text = self.pairs.iter().fold(text.to_owned(), |text, (shown, real)| text.replace(real, shown));
        text.replace("_schemas.shop", "_schemas").replace("__pgsluice_checkpoints.shop", "__pgsluice_checkpoints")
    }
}

/// One shell for the whole page, so that what a command sets or starts is there for those behind it.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    stream: Option<String>,
}

/// What is printed behind the output of a command.
const END: &str = "--- the end ---";

impl Shell {
    fn start(folder: &Path, names: &Names) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_pgsluice")).parent().expect("it is in a folder");
        let path = std::env::var("PATH").expect("there is a path");
        let mut child = Command::new("bash")
            .env("PATH", format!("{}:{path}", program.display()))
            .envs(names.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell starts");
        let input = child.stdin.take().expect("it reads");
        let output = BufReader::new(child.stdout.take().expect("it writes"));
        let mut shell = Self { child, input, output, stream: None };
        // With job control, as in a terminal; what is said on standard error is shown too.
        shell.run("set -m; exec 2>&1");
        shell
    }

    fn run(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}\necho '{END}'").expect("the shell reads");
        let mut said = String::new();
        while self.output.read_line(&mut said).expect("the shell writes text") > 0 {
            if let Some(said) = said.strip_suffix(&format!("{END}\n")) {
                let said = said.to_owned();
                if command.ends_with('&') {
                    self.stream = Some(self.run("echo $!").trim().to_owned());
                }
                return said;
            }
        }
        panic!("the shell has ended: {said}");
    }

    fn has_stream(&self) -> bool {
        let is_there = |id: &String| Path::new("/proc").join(id).exists();
        self.stream.as_ref().is_some_and(is_there)
    }

    /// Waits until the rows of before are copied, and the stream runs.
    fn await_stream(&self, names: &Names) {
        wait_until(START_TIMEOUT, "the stream runs", || {
            assert!(self.has_stream(), "it has ended");
            (metric(names, "copied_rows_total")? > 0.0 && metric(names, "tables_to_copy")? == 0.0).then_some(())
        });
    }

    fn await_position(&self, names: &Names, position: u64) {
        wait_until(DRAIN_TIMEOUT, "the change is in Kafka", || {
            assert!(self.has_stream(), "it has ended");
            #[expect(clippy::cast_precision_loss, reason = "a new server's log is short")]
            (metric(names, "committed_lsn")? >= position as f64).then_some(())
        });
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if let Some(id) = self.stream.as_ref().filter(|_| self.has_stream()) {
            let _killed = Command::new("kill").args(["-KILL", id]).status();
        }
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A metric without labels, once there is an endpoint.
fn metric(names: &Names, name: &str) -> Option<f64> {
    let answer = http_get(&names.address, "/metrics").ok()?;
    let mut lines = answer.body.lines();
    lines.find_map(|line| line.strip_prefix("pgsluice_")?.strip_prefix(name)?.strip_prefix(' '))?.parse().ok()
}
