//! How fast a backlog drains into Kafka, beside PostgreSQL's own limit, in one run.
//!
//! One million rows of ten columns, in transactions of twenty, wait in the log. Each round drains them twice from copies of one slot:
//! by `pg_recvlogical` to /dev/null, which is as fast as the server can send, and by pgsluice, with Avro, the schema registry and Kafka
//! transactions on. The machine is shared with the servers, so a time alone means nothing; the ratio of a round does.
//!
//! Both clocks start when the process has its first bytes of the stream, so that neither is charged for starting up, for connecting or
//! for the server's preparations: at the first row that `pg_recvlogical` writes, which the kernel counts for it, and at the first bytes
//! that pgsluice counts as received. Both are looked at every millisecond. They stop when the server was told that everything has
//! arrived: by `pg_recvlogical` as it ends, by pgsluice once Kafka has committed it.
//!
//! `make bench` runs it. The number of rows and of rounds: `PGSLUICE_TEST_BENCH_ROWS`, `PGSLUICE_TEST_BENCH_ROUNDS`; over the Unix socket instead
//! of TCP: `PGSLUICE_TEST_BENCH_SOCKET=1`; with two more CPU-second columns for the servers it would be a benchmark of them.

use std::{
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio_postgres::{Client, NoTls};

const TRANSACTION_ROWS: u64 = 20;
const PG_RECVLOGICAL: &[&str] = &["pg_recvlogical", "/usr/lib/postgresql/15/bin/pg_recvlogical"];

fn main() {
    // `cargo test --benches` runs it too, and expects something quick.
    if env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(Bench::from_environment().run());
}

struct Bench {
    url: String,
    brokers: String,
    registry: String,
    rows: u64,
    rounds: u32,
}

/// What one drain took.
struct Drain {
    wall: Duration,
    cpu_seconds: f64,
    peak_mib: f64,
}

impl Bench {
    fn from_environment() -> Self {
        let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make bench`"));
        let number = |name: &str, default| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
        let url = if env::var_os("PGSLUICE_TEST_BENCH_SOCKET").is_some() {
            variable("PGSLUICE_TEST_POSTGRES_SOCKET_URL")
        } else {
            variable("PGSLUICE_TEST_POSTGRES_URL")
        };
        Self {
            url,
            brokers: variable("PGSLUICE_TEST_KAFKA_BOOTSTRAP_SERVERS"),
            registry: variable("PGSLUICE_TEST_REGISTRY_URL"),
            rows: number("PGSLUICE_TEST_BENCH_ROWS", 1_000_000),
            rounds: u32::try_from(number("PGSLUICE_TEST_BENCH_ROUNDS", 3)).unwrap_or(3),
        }
    }

    async fn run(&self) {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.expect("PostgreSQL is there");
        tokio::spawn(connection);
        println!("filling the log with {} rows of 10 columns in transactions of {TRANSACTION_ROWS}", self.rows);
        let end = self.fill(&client).await;
        println!("{:<8}{:>16}{:>12}{:>14}{:>12}", "round", "", "rows/s", "CPU us/row", "peak MiB");
        let mut ratios = Vec::new();
        for round in 1..=self.rounds {
            let floor = self.floor(&client, round, &end).await;
            self.print(round, "pg_recvlogical", &floor);
            let ours = self.pgsluice(&client, round, &end).await;
            self.print(round, "pgsluice", &ours);
            ratios.push(floor.wall.as_secs_f64() / ours.wall.as_secs_f64());
        }
        ratios.sort_by(f64::total_cmp);
        println!(
            "of pg_recvlogical's rate: {:.2} (median of {} rounds; least {:.2}, most {:.2})",
            ratios[ratios.len() / 2],
            ratios.len(),
            ratios[0],
            ratios[ratios.len() - 1]
        );
    }

    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn print(&self, round: u32, who: &str, drain: &Drain) {
        println!(
            "{round:<8}{who:>16}{:>12.0}{:>14.2}{:>12.1}",
            self.rows as f64 / drain.wall.as_secs_f64(),
            drain.cpu_seconds * 1e6 / self.rows as f64,
            drain.peak_mib
        );
    }

    async fn fill(&self, client: &Client) -> String {
        client
            .batch_execute(
                "DROP TABLE IF EXISTS bench;
                 CREATE TABLE bench(id bigint PRIMARY KEY, customer int NOT NULL, status text, amount numeric(12,2), quantity int,
                     placed timestamptz, paid boolean, reference uuid, note text, weight double precision);
                 DROP PUBLICATION IF EXISTS bench;
                 CREATE PUBLICATION bench FOR TABLE bench;
                 CREATE OR REPLACE PROCEDURE fill_bench(total bigint, step bigint) LANGUAGE plpgsql AS $$
                 BEGIN
                     FOR lowest IN 1..total BY step LOOP
                         INSERT INTO bench SELECT id, (id % 100000)::int, 'placed', (id % 99999) / 100.0, (id % 9)::int + 1,
                             '2026-01-01'::timestamptz + id * interval '1 second', id % 3 = 0, md5(id::text)::uuid,
                             'note for order ' || id, id / 7.0::double precision
                         FROM generate_series(lowest, least(lowest + step - 1, total)) id;
                         COMMIT;
                     END LOOP;
                 END $$;",
            )
            .await
            .expect("the table is made");
        // A slot cannot be created in a transaction that has written, as the statements above were one.
        for statement in [
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name ~ '^bench' AND NOT active",
            "SELECT pg_create_logical_replication_slot('bench', 'pgoutput')",
        ] {
            client.batch_execute(statement).await.expect("the slot is made");
        }
        let (total, step) = (self.rows, TRANSACTION_ROWS);
        client.batch_execute(&format!("CALL fill_bench({total}, {step})")).await.expect("the table is filled");
        client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.expect("a position").get(0)
    }

    /// Copies the slot that nobody has read from, so that every drain starts at the same place.
    async fn copy_slot(client: &Client, name: &str) {
        client
            .query_one("SELECT pg_copy_logical_replication_slot('bench', $1)::text", &[&name])
            .await
            .expect("the slot is copied");
    }

    async fn floor(&self, client: &Client, round: u32, end: &str) -> Drain {
        let slot = format!("bench_floor_{round}");
        Self::copy_slot(client, &slot).await;
        let program = PG_RECVLOGICAL.iter().find(|program| Command::new(program).arg("--version").output().is_ok());
        let program = program.expect("pg_recvlogical is installed: dev/stack install --bench-tools");
        let mut child = Command::new(program)
            .args(["--dbname", &self.url, "--slot", &slot, "--start", "--file", "/dev/null", "--endpos", end])
            .args(["--option", "proto_version=1", "--option", "publication_names=bench", "--status-interval", "10"])
            .stderr(Stdio::null())
            .spawn()
            .expect("pg_recvlogical starts");
        // Not through a pipe: its reader would be woken for each row, and take from one of the two what the other keeps.
        let began = await_start(&mut child, |child| written_bytes(child.id()) > 0);
        let drain = wait_for(&mut child, began, |child| child.try_wait().expect("it is our child").is_some());
        client.execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await.expect("the slot is dropped");
        drain
    }

    async fn pgsluice(&self, client: &Client, round: u32, end: &str) -> Drain {
        let name = format!("bench{}_{round}", std::process::id());
        let slot = format!("bench_ours_{round}");
        Self::copy_slot(client, &slot).await;
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
        let config = env::temp_dir().join(format!("{name}.toml"));
        fs::write(&config, self.config(&name, &slot, port)).expect("the configuration is written");
        let log = fs::File::create(env::temp_dir().join(format!("{name}.log"))).expect("the log is made");
        let mut child = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_pgsluice")))
            .args(["run", "--adopt-slot", "--config"])
            .arg(&config)
            .stderr(log)
            .spawn()
            .expect("pgsluice starts");
        let began =
            await_start(&mut child, |_| metric(port, "pgsluice_received_bytes_total").is_some_and(|bytes| bytes > 0.0));
        let end = position(end);
        let drain =
            wait_for(&mut child, began, |_| metric(port, "pgsluice_confirmed_lsn").is_some_and(|lsn| lsn >= end));
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let records = self.rows as f64;
        assert_eq!(metric(port, "pgsluice_kafka_records_total"), Some(records), "each row is one record");
        child.kill().and_then(|()| child.wait()).expect("pgsluice ends");
        // The server notices that its client is gone within a moment.
        for _ in 0..100 {
            if client.execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let _removed = fs::remove_file(config);
        drain
    }

    fn config(&self, name: &str, slot: &str, port: u16) -> String {
        format!(
            "name = \"{name}\"\n[postgres]\nurl = \"{}\"\ntables = [\"public.bench\"]\nslot = \"{slot}\"\npublication = \"bench\"\nmanage = false\n[snapshot]\nmode = \"never\"\n\
             [kafka]\nbootstrap_servers = \"{}\"\n[schema_registry]\nurl = \"{}\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n",
            self.url, self.brokers, self.registry
        )
    }
}

/// Waits until a process has begun to drain, and says when that was.
fn await_start(child: &mut Child, mut has_begun: impl FnMut(&Child) -> bool) -> Instant {
    while !has_begun(child) {
        std::thread::sleep(Duration::from_millis(1));
        let ended = child.try_wait().expect("it is our child");
        assert!(
            ended.is_none(),
            "it has ended before its first row; what pgsluice says is in {}",
            env::temp_dir().display()
        );
    }
    Instant::now()
}

/// How many bytes a process has written to files and devices. What a client sends to its server is not among them (`proc(5)`, `wchar`:
/// sockets are written to with other calls).
fn written_bytes(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok()).unwrap_or(0)
}

/// Waits for a drain's end, and reads off what the process has used until then.
fn wait_for(child: &mut Child, began: Instant, mut is_over: impl FnMut(&mut Child) -> bool) -> Drain {
    let mut drain = Drain { wall: Duration::ZERO, cpu_seconds: 0.0, peak_mib: 0.0 };
    loop {
        // Read before the look that may be the last: nothing can be read of a process that has ended.
        if let Some((cpu_seconds, peak_mib)) = usage(child.id()) {
            (drain.cpu_seconds, drain.peak_mib) = (cpu_seconds, peak_mib);
        }
        if is_over(child) {
            drain.wall = began.elapsed();
            return drain;
        }
        assert!(began.elapsed() < Duration::from_mins(10), "the drain does not end");
        std::thread::sleep(Duration::from_millis(2));
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

fn metric(port: u16, name: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn position(lsn: &str) -> f64 {
    let lsn: pgoutput::Lsn = lsn.parse().expect("PostgreSQL prints positions");
    u64::from(lsn) as f64
}
