//! The real servers: one stack for the whole test binary, started when the first test needs it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// Where the servers are, and what can be done to them.
pub(crate) struct Stack {
    variables: BTreeMap<String, String>,
}

/// A server of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    Postgres,
    Kafka,
    Registry,
}

static STACK: OnceLock<Stack> = OnceLock::new();
/// Held for reading by tests that leave the servers alone, and for writing by those that do not.
static USE: RwLock<()> = RwLock::new(());
/// Held by tests that change a setting of a server, or show it, beside others that do not care.
static SETTINGS: Mutex<()> = Mutex::new(());

/// The right to use the servers.
pub(crate) struct Lease {
    stack: &'static Stack,
    held: Use,
}

enum Use {
    Shared(#[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'static, ()>),
    Exclusive(#[expect(dead_code, reason = "held, not read")] RwLockWriteGuard<'static, ()>),
}

impl Stack {
    /// The servers, beside other tests. None of them may be ended.
    pub(crate) fn shared() -> Lease {
        // A test that failed while it held the lock has left nothing broken: its lease has started the servers again.
        let held = USE.read().unwrap_or_else(PoisonError::into_inner);
        Lease { stack: Self::get(), held: Use::Shared(held) }
    }

    /// The servers, alone. They may be ended, and all run again when the lease is given back.
    pub(crate) fn exclusive() -> Lease {
        let held = USE.write().unwrap_or_else(PoisonError::into_inner);
        Lease { stack: Self::get(), held: Use::Exclusive(held) }
    }

    fn get() -> &'static Self {
        STACK.get_or_init(|| {
            // `dev/stack run -- cargo test` has brought them up already.
            let inherited: BTreeMap<_, _> =
                std::env::vars().filter(|(name, _)| name.starts_with("PGSLUICE_TEST_")).collect();
            if inherited.contains_key("PGSLUICE_TEST_POSTGRES_URL") {
                return Self { variables: inherited };
            }
            Self::start_own()
        })
    }

    fn start_own() -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("dev/stack");
        let name = format!("test-{}", std::process::id());
        let postgres = std::env::var("PGSLUICE_TEST_PG").unwrap_or_else(|_| "18".into());
        let owner = std::process::id().to_string();
        let up = Command::new(&script)
            .args(["up", "--name", &name, "--owner", &owner, "--postgres", &postgres])
            .output()
            .expect("dev/stack runs");
        assert!(up.status.success(), "dev/stack up: {}", String::from_utf8_lossy(&up.stderr));
        let env = Command::new(&script).args(["env", "--name", &name]).output().expect("dev/stack runs");
        assert!(env.status.success(), "dev/stack env: {}", String::from_utf8_lossy(&env.stderr));
        let variables = String::from_utf8_lossy(&env.stdout)
            .lines()
            .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned()))
            .collect();
        Self { variables }
    }

    /// What `dev/stack env` says, by its name after `PGSLUICE_TEST_`.
    pub(crate) fn variable(&self, name: &str) -> &str {
        let name = format!("PGSLUICE_TEST_{name}");
        self.variables.get(&name).unwrap_or_else(|| panic!("the stack says nothing of {name}"))
    }

    /// The superuser's URL for a database.
    pub(crate) fn postgres_url(&self, database: &str) -> String {
        let mut url: url::Url = self.variable("POSTGRES_URL").parse().expect("a URL");
        url.set_path(database);
        url.into()
    }

    /// `host:port`.
    pub(crate) fn bootstrap_servers(&self) -> &str {
        self.variable("KAFKA_BOOTSTRAP_SERVERS")
    }

    /// The registry's base URL.
    pub(crate) fn registry_url(&self) -> &str {
        self.variable("REGISTRY_URL")
    }
}

impl std::ops::Deref for Lease {
    type Target = Stack;

    fn deref(&self) -> &Stack {
        self.stack
    }
}

impl Lease {
    /// The right to change the settings of the servers, or to see them as they are. Whoever has the servers alone has it.
    #[expect(clippy::unused_self, reason = "only who may use the servers may have it")]
    pub(crate) fn settings(&self) -> MutexGuard<'static, ()> {
        SETTINGS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// SIGKILL to a server's whole tree of processes. Returns when they are gone.
    pub(crate) fn kill(&self, server: Server) {
        self.control(&["kill", server.name()]);
    }

    /// An orderly end, for PostgreSQL a fast shutdown. Returns when it is gone.
    pub(crate) fn stop(&self, server: Server) {
        self.control(&["stop", server.name()]);
    }

    /// The same data on the same port again. Returns when it answers.
    pub(crate) fn start(&self, server: Server) {
        self.control(&["start", server.name()]);
    }

    fn control(&self, arguments: &[&str]) {
        assert!(matches!(self.held, Use::Exclusive(_)), "only who has the servers alone may end them");
        let output = self.run(arguments);
        assert!(output.status.success(), "dev/stack {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn run(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(self.variable("STACK"))
            .args(arguments)
            .args(["--name", self.variable("STACK_NAME")])
            .output()
            .expect("dev/stack runs")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if matches!(self.held, Use::Exclusive(_)) {
            for server in [Server::Postgres, Server::Kafka, Server::Registry] {
                // If it fails, the next test says so better.
                let _output = self.run(&["start", server.name()]);
            }
        }
    }
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Kafka => "kafka",
            Self::Registry => "registry",
        }
    }
}
