//! A hot standby of the stack's PostgreSQL, made from a copy of its files while it runs.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use postgres::{Client, NoTls};

use super::{stack::Stack, stream::START_TIMEOUT, wait_until};

/// A server that replays the log of the stack's. It is ended, and its files are removed, when it is dropped.
pub(crate) struct Standby {
    child: Child,
    data: PathBuf,
    url: url::Url,
}

impl Standby {
    /// Makes one, and waits until it can be read. Every statement is in its log.
    pub(crate) fn create(stack: &Stack) -> Self {
        let primary: url::Url = stack.postgres_url("postgres").parse().expect("a URL");
        let source = PathBuf::from(stack.variable("POSTGRES_DATA"));
        let user = stack.variable("POSTGRES_OS_USER");
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port")
            .port();
        let data = source.with_file_name(format!("standby-{port}"));
        let mut client = Client::connect(primary.as_str(), NoTls).expect("the server answers");
        // The functions have other names before version 15.
        let is_old: bool = client
            .query_one("select current_setting('server_version_num')::int < 150000", &[])
            .expect("a version")
            .get(0);
        let (start, stop) = if is_old {
            ("pg_start_backup('standby', true, false)", "pg_stop_backup(false, false)")
        } else {
            ("pg_backup_start('standby', true)", "pg_backup_stop(false)")
        };
        client.query_one(&format!("select {start}::text"), &[]).expect("the copy begins");
        // Files that are removed meanwhile are made good by the log, as everything else is.
        let _status =
            Command::new("cp").arg("-a").arg(&source).arg(&data).stderr(Stdio::null()).status().expect("cp runs");
        let label: String =
            client.query_one(&format!("select labelfile from {stop}"), &[]).expect("the copy ends").get(0);
        let standby = |file: &str| data.join(file);
        fs::write(standby("backup_label"), label).expect("it is written");
        fs::write(standby("standby.signal"), "").expect("it is written");
        let _gone = fs::remove_file(standby("postmaster.pid"));
        // Slots are the primary's.
        for slot in fs::read_dir(standby("pg_replslot")).expect("a folder").flatten() {
            fs::remove_dir_all(slot.path()).expect("it is removed");
        }
        let conninfo = format!(
            "host=127.0.0.1 port={} user={} password={}",
            primary.port().unwrap_or(5432),
            primary.username(),
            primary.password().unwrap_or_default()
        );
        let settings = format!("primary_conninfo = '{conninfo}'\nlog_statement = 'all'\nhot_standby_feedback = on\n");
        let path = standby("postgresql.auto.conf");
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::write(&path, before + &settings).expect("it is written");
        let own = Command::new("chown").arg("-R").arg(format!("{user}:")).arg(&data).status().expect("chown runs");
        assert!(own.success(), "the files are given to {user}");
        let log = File::create(standby("log")).expect("a file");
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={user}"), "--clear-groups", "--"]);
        if String::from_utf8_lossy(&Command::new("id").arg("-un").output().expect("id runs").stdout).trim() == user {
            command = Command::new("env");
        }
        let child = command
            .arg(PathBuf::from(stack.variable("POSTGRES_BIN")).join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the standby starts");
        let mut url = primary;
        url.set_port(Some(port)).expect("a port");
        let standby = Self { child, data, url };
        wait_until(START_TIMEOUT, "the standby can be read", || Client::connect(standby.url.as_str(), NoTls).ok());
        standby
    }

    /// Its port, on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.url.port().expect("a port")
    }

    /// The superuser's connection to a database.
    pub(crate) fn client(&self, database: &str) -> Client {
        let mut url = self.url.clone();
        url.set_path(database);
        Client::connect(url.as_str(), NoTls).expect("the standby answers")
    }

    /// Everything that it has logged.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.data.join("log")).expect("the log is readable")).into_owned()
    }

    /// Waits until it has replayed what the primary has written by now.
    pub(crate) fn await_replayed(&self, primary: &mut Client) {
        let end: String = primary.query_one("select pg_current_wal_lsn()::text", &[]).expect("it answers").get(0);
        let mut client = self.client("postgres");
        wait_until(Duration::from_mins(1), "the standby has replayed it", || {
            let sql = "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
            client.query_one(sql, &[&end]).expect("it answers").get::<_, bool>(0).then_some(())
        });
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        // SIGQUIT: it ends at once, and its children with it.
        let _ended = Command::new("kill").args(["-QUIT", &self.child.id().to_string()]).status();
        let _reaped = self.child.wait();
        let _removed = fs::remove_dir_all(&self.data);
    }
}
