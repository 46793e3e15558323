//! A real PostgreSQL to test with: the one of `dev/stack`, or one of a test's own.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::{
    env, fs,
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use pgoutput::{Frame, Lsn};
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_postgres::NoTls;
use walreceiver::{
    ConnectOptions, CreateSlot, Error, Feedback, ReplicationClient, SlotName, StreamSettings, WalReader,
    publication_names,
};

/// Nothing here takes so long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A variable that `dev/stack env` prints.
pub(crate) fn stack(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: this test needs a real PostgreSQL; run\n    \
             dev/stack run --no-kafka --no-registry -- cargo test -p walreceiver"
        )
    })
}

pub(crate) fn tcp_url() -> String {
    stack("PGSLUICE_TEST_POSTGRES_URL")
}

pub(crate) fn socket_url() -> String {
    stack("PGSLUICE_TEST_POSTGRES_SOCKET_URL")
}

/// The URL with one more parameter.
pub(crate) fn with(url: &str, parameter: &str) -> String {
    format!("{url}{}{parameter}", if url.contains('?') { '&' } else { '?' })
}

pub(crate) async fn connect(url: &str) -> Result<ReplicationClient, Error> {
    let options: ConnectOptions = url.parse()?;
    timeout(PATIENCE, ReplicationClient::connect(&options)).await.expect("an answer in time")
}

/// Another connection, for SQL.
pub(crate) async fn sql(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a server that is up");
    tokio::spawn(connection);
    client
}

/// One value as text; `None` for no row, or for null.
pub(crate) async fn value(client: &tokio_postgres::Client, query: &str) -> Option<String> {
    client.simple_query(query).await.expect("valid SQL").iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}

/// A table, a publication and a slot of one test's own, all of one name.
pub(crate) struct Source {
    pub(crate) url: String,
    pub(crate) name: String,
    pub(crate) slot: SlotName,
    pub(crate) sql: tokio_postgres::Client,
}

impl Source {
    /// Made anew; what an earlier run left is removed.
    pub(crate) async fn new(url: &str, name: &str, columns: &str) -> Self {
        let name = format!("walreceiver_{name}");
        let sql = sql(url).await;
        sql.batch_execute(&format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{name}' AND active;
             DROP PUBLICATION IF EXISTS {name};
             DROP TABLE IF EXISTS {name};
             CREATE TABLE {name} ({columns});
             CREATE PUBLICATION {name} FOR TABLE {name};"
        ))
        .await
        .expect("valid SQL");
        let slot: SlotName = name.parse().expect("valid");
        let mut client = connect(url).await.expect("a welcome");
        if value(&sql, &format!("SELECT 1 FROM pg_replication_slots WHERE slot_name = '{name}'")).await.is_some() {
            client.drop_slot(&slot, true).await.expect("a slot that nobody uses");
        }
        client.create_slot(&CreateSlot::new(&slot)).await.expect("a new slot");
        client.close().await.expect("a goodbye");
        Self { url: url.to_owned(), name, slot, sql }
    }

    pub(crate) async fn execute(&self, statement: &str) {
        self.sql.batch_execute(&statement.replace("TABLE_NAME", &self.name)).await.expect("valid SQL");
    }

    pub(crate) async fn stream(&self, start: Lsn, settings: StreamSettings) -> (WalReader, Feedback) {
        self.try_stream(&self.url, start, settings).await.expect("a stream")
    }

    pub(crate) async fn try_stream(
        &self,
        url: &str,
        start: Lsn,
        settings: StreamSettings,
    ) -> Result<(WalReader, Feedback), Error> {
        let publications = publication_names(&[&self.name]);
        let options = [("proto_version", "1"), ("publication_names", publications.as_str())];
        connect(url).await?.start_replication(&self.slot, start, &options, settings).await
    }

    /// A column of the slot in `pg_replication_slots`.
    pub(crate) async fn slot_column(&self, column: &str) -> Option<String> {
        value(&self.sql, &format!("SELECT {column} FROM pg_replication_slots WHERE slot_name = '{}'", self.name)).await
    }

    /// Removes what it made.
    pub(crate) async fn drop(self) {
        let mut client = connect(&self.url).await.expect("a welcome");
        client.drop_slot(&self.slot, true).await.expect("a slot that is left");
        self.execute("DROP PUBLICATION TABLE_NAME; DROP TABLE TABLE_NAME").await;
    }
}

/// What a stream has brought so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Inserts.
    pub(crate) rows: u64,
    /// The end of the last whole transaction.
    pub(crate) committed: Lsn,
    /// How far the last keepalive says that the server is.
    pub(crate) keepalive: Lsn,
    /// Whether the last chunk was the last of its time.
    pub(crate) idle: bool,
}

impl Tally {
    /// Reads one chunk.
    pub(crate) async fn read(&mut self, reader: &mut WalReader) -> Result<(), Error> {
        let chunk = timeout(PATIENCE, reader.read()).await.expect("something in time")?;
        self.idle = chunk.source_idle();
        for frame in chunk {
            match frame? {
                Frame::Keepalive(keepalive) => self.keepalive = keepalive.wal_end,
                Frame::WalData(data) => match data.payload.first() {
                    Some(b'I') => self.rows += 1,
                    // Type, flags, commit position, end position.
                    Some(b'C') => {
                        let end = data.payload[10..18].try_into().expect("eight bytes");
                        self.committed = Lsn::from(u64::from_be_bytes(end));
                    }
                    _ => {}
                },
            }
        }
        Ok(())
    }

    pub(crate) async fn read_rows(&mut self, reader: &mut WalReader, rows: u64) {
        let mut transaction_ended = false;
        while self.rows < rows || !transaction_ended {
            let before = self.committed;
            self.read(reader).await.expect("a whole stream");
            transaction_ended = self.committed > before;
        }
        assert_eq!(self.rows, rows, "each row comes once");
    }
}

/// A server of one test's own, for what cannot be done to one that others use. It ends with the value.
pub(crate) struct PrivateServer {
    folder: TempDir,
    port: u16,
}

impl PrivateServer {
    /// Starts one with these lines in `postgresql.conf` and `pg_hba.conf`; `files` are put into its data folder.
    pub(crate) fn start(settings: &str, access: &str, files: &[(&str, &str)]) -> Self {
        let folder = TempDir::with_prefix("walreceiver-").expect("a folder");
        own(folder.path());
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
        let server = Self { folder, port };
        server.program("initdb", &["-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "--auth=trust"]);
        let sockets = server.folder.path().display();
        let all_settings = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{sockets}'\nwal_level = logical\n\
             fsync = off\nautovacuum = off\n{settings}\n"
        );
        server.write("postgresql.conf", &all_settings);
        server.write("pg_hba.conf", &format!("local all all trust\nlocal replication all trust\n{access}\n"));
        for (name, content) in files {
            server.write(name, content);
        }
        let log = server.folder.path().join("log");
        server.program("pg_ctl", &["start", "-w", "-t", "60", "-s", "-l", log.to_str().expect("UTF-8")]);
        server
    }

    /// Where it listens on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Over the Unix socket, where everybody is trusted.
    pub(crate) fn socket_url(&self) -> String {
        format!("postgres://postgres@/postgres?host={}&port={}", self.folder.path().display(), self.port)
    }

    /// Over TCP. `user` may have a password behind a colon.
    pub(crate) fn tcp_url(&self, user: &str, host: &str, parameters: &str) -> String {
        format!("postgres://{user}@{host}:{}/postgres?{parameters}", self.port)
    }

    /// Ends it in good order. Returns when it has ended, or panics when it does not.
    pub(crate) fn stop_fast(&self) {
        self.program("pg_ctl", &["stop", "-m", "fast", "-w", "-t", "30", "-s"]);
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.data().join(name);
        fs::write(&path, content).expect("a file");
        own(&path);
    }

    fn program(&self, name: &str, arguments: &[&str]) {
        let mut command = self.command(name);
        let output = command.args(arguments).output().expect("a program of PostgreSQL");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} {arguments:?}: {said}\n{}", self.log());
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(Path::new(&stack("PGSLUICE_TEST_POSTGRES_BIN")).join(name));
        command.current_dir(self.folder.path()).arg("-D").arg(self.data());
        if let Some((user, group)) = os_user() {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.command("pg_ctl").args(["stop", "-m", "immediate", "-s"]).output();
    }
}

/// PostgreSQL refuses to run as root; who it runs as then.
fn os_user() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| -> u32 {
        let output = Command::new("id").args(arguments).output().expect("coreutils");
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
    };
    let user = stack("PGSLUICE_TEST_POSTGRES_OS_USER");
    (id(&["-u"]) == 0).then(|| (id(&["-u", &user]), id(&["-g", &user])))
}

fn own(path: &Path) {
    if let Some((user, group)) = os_user() {
        chown(path, Some(user), Some(group)).expect("root may");
    }
    if path.is_file() {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("an owner may");
    }
}
