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
    fs,
    process::{Command, Stdio},
};

use common::{Pgsluice, Servers, Took, await_start, drop_slot, metric, number, postgres_program, wait_for};
use tokio_postgres::{Client, NoTls};

mod common;

const TRANSACTION_ROWS: u64 = 20;

fn main() {
    common::run(async { Bench::from_environment().run().await });
}

struct Bench {
    servers: Servers,
    rows: u64,
    rounds: u64,
}

impl Bench {
    fn from_environment() -> Self {
        Self {
            servers: Servers::from_environment(),
            rows: number("PGSLUICE_TEST_BENCH_ROWS", 1_000_000),
            rounds: number("PGSLUICE_TEST_BENCH_ROUNDS", 3),
        }
    }

    async fn run(&self) {
        let (client, connection) =
            tokio_postgres::connect(&self.servers.url, NoTls).await.expect("PostgreSQL is there");
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
    fn print(&self, round: u64, who: &str, drain: &Took) {
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

    async fn floor(&self, client: &Client, round: u64, end: &str) -> Took {
        let slot = format!("bench_floor_{round}");
        Self::copy_slot(client, &slot).await;
        let mut child = Command::new(postgres_program("pg_recvlogical"))
            .args(["--dbname", &self.servers.url, "--slot", &slot, "--start", "--file", "/dev/null", "--endpos", end])
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

    async fn pgsluice(&self, client: &Client, round: u64, end: &str) -> Took {
        let name = format!("bench{}_{round}", std::process::id());
        let slot = format!("bench_ours_{round}");
        Self::copy_slot(client, &slot).await;
        let settings = format!(
            "tables = [\"public.bench\"]\nslot = \"{slot}\"\npublication = \"bench\"\nmanage = false\n[snapshot]\nmode = \"never\""
        );
        let mut pgsluice = Pgsluice::start(&self.servers, &name, &settings, &["--adopt-slot"]);
        let port = pgsluice.port;
        let has_begun = |_: &_| metric(port, "pgsluice_received_bytes_total").is_some_and(|bytes| bytes > 0.0);
        let began = await_start(&mut pgsluice.child, has_begun);
        let end = position(end);
        let is_over = |_: &mut _| metric(port, "pgsluice_confirmed_lsn").is_some_and(|lsn| lsn >= end);
        let took = wait_for(&mut pgsluice.child, began, is_over);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let records = self.rows as f64;
        assert_eq!(metric(port, "pgsluice_kafka_records_total"), Some(records), "each row is one record");
        pgsluice.kill();
        drop_slot(client, &slot).await;
        took
    }
}

/// How many bytes a process has written to files and devices. What a client sends to its server is not among them (`proc(5)`, `wchar`:
/// sockets are written to with other calls).
fn written_bytes(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok()).unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn position(lsn: &str) -> f64 {
    let lsn: pgoutput::Lsn = lsn.parse().expect("PostgreSQL prints positions");
    u64::from(lsn) as f64
}
