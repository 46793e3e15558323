//! How fast the rows of a table are copied into Kafka, beside `COPY` of the same table to /dev/null, in one run.
//!
//! Five million rows of ten columns, by one connection and by two. Each round copies them by `psql`, whose output goes to /dev/null, and by
//! pgsluice with as many connections, with Avro, the schema registry and Kafka transactions on. The machine is shared with the servers, so a time alone means
//! nothing; the ratio of a round does. pgsluice's clock starts when its first rows are in Kafka, and stops when all are.
//!
//! `make bench` runs it. The number of rows and of rounds: `PGSLUICE_TEST_BENCH_SNAPSHOT_ROWS`, `PGSLUICE_TEST_BENCH_ROUNDS`. With `PGSLUICE_TEST_BENCH_SNAPSHOT_TABLES=1`
//! all rows are in one table, which two connections share; `COPY` has half of its key each then.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use common::{Pgsluice, Servers, Took, await_start, drop_slot, metric, number, postgres_program, wait_for};
use tokio_postgres::{Client, NoTls};

mod common;

fn main() {
    common::run(async { Bench::from_environment().run().await });
}

struct Bench {
    servers: Servers,
    /// So many tables share the rows.
    tables: u64,
    rows: u64,
    rounds: u64,
}

impl Bench {
    fn from_environment() -> Self {
        let servers = Servers::from_environment();
        let tables = number("PGSLUICE_TEST_BENCH_SNAPSHOT_TABLES", 2).clamp(1, 2);
        let rows = number("PGSLUICE_TEST_BENCH_SNAPSHOT_ROWS", 5_000_000) / 2 * 2;
        Self { servers, tables, rows, rounds: number("PGSLUICE_TEST_BENCH_ROUNDS", 3) }
    }

    async fn run(&self) {
        let (client, connection) =
            tokio_postgres::connect(&self.servers.url, NoTls).await.expect("PostgreSQL is there");
        tokio::spawn(connection);
        println!("filling {} tables with {} rows of 10 columns", self.tables, self.rows);
        self.fill(&client).await;
        println!("{:<8}{:>16}{:>12}{:>12}{:>14}{:>12}", "round", "", "connections", "rows/s", "CPU us/row", "peak MiB");
        for connections in [1, 2] {
            let mut ratios = Vec::new();
            for round in 1..=self.rounds {
                let floor = self.floor(connections);
                self.print(round, "COPY", connections, &floor);
                let ours = self.pgsluice(&client, round, connections).await;
                self.print(round, "pgsluice", connections, &ours);
                ratios.push(floor.wall.as_secs_f64() / ours.wall.as_secs_f64());
            }
            ratios.sort_by(f64::total_cmp);
            println!(
                "of COPY's rate, {connections} connections each: {:.2} (median of {} rounds; least {:.2}, most {:.2})",
                ratios[ratios.len() / 2],
                ratios.len(),
                ratios[0],
                ratios[ratios.len() - 1]
            );
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn print(&self, round: u64, who: &str, connections: u64, took: &Took) {
        println!(
            "{round:<8}{who:>16}{connections:>12}{:>12.0}{:>14.2}{:>12.1}",
            self.rows as f64 / took.wall.as_secs_f64(),
            took.cpu_seconds * 1e6 / self.rows as f64,
            took.peak_mib
        );
    }

    async fn fill(&self, client: &Client) {
        for table in 0..self.tables {
            let rows = self.rows / self.tables;
            client
                .batch_execute(&format!(
                    "DROP TABLE IF EXISTS bench_copy_{table};
                     CREATE TABLE bench_copy_{table}(id bigint, customer int NOT NULL, status text, amount numeric(12,2), quantity int,
                         placed timestamptz, paid boolean, reference uuid, note text, weight double precision);
                     INSERT INTO bench_copy_{table} SELECT id, (id % 100000)::int, 'placed', (id % 99999) / 100.0, (id % 9)::int + 1,
                         '2026-01-01'::timestamptz + id * interval '1 second', id % 3 = 0, md5(id::text)::uuid,
                         'note for order ' || id, id / 7.0::double precision
                     FROM generate_series(1, {rows}) id;
                     ALTER TABLE bench_copy_{table} ADD PRIMARY KEY (id)"
                ))
                .await
                .expect("the table is filled");
            // Of what was read once, nobody has to note that it is committed.
            client.batch_execute(&format!("VACUUM (ANALYZE) bench_copy_{table}")).await.expect("it can be vacuumed");
        }
    }

    /// As many processes as connections; each copies its share of the tables, or of the one that there is.
    fn floor(&self, connections: u64) -> Took {
        let program = postgres_program("psql");
        let copy = |connection: u64| {
            let statements: String = if self.tables < connections {
                let share = self.rows / connections;
                let (first, last) = (connection * share + 1, (connection + 1) * share);
                format!("COPY (SELECT * FROM bench_copy_0 WHERE id BETWEEN {first} AND {last}) TO STDOUT;")
            } else {
                let tables = (0..self.tables).filter(|table| table % connections == connection);
                tables.map(|table| format!("COPY bench_copy_{table} TO STDOUT;")).collect::<Vec<_>>().concat()
            };
            let mut psql = Command::new(&program);
            psql.args(["--no-psqlrc", "--quiet", "--dbname", &self.servers.url, "--command"]);
            psql.arg(statements).stdout(Stdio::null()).spawn().expect("psql starts")
        };
        let began = Instant::now();
        let children: Vec<_> = (0..connections).map(copy).collect();
        let is_over = |child: &mut std::process::Child| child.try_wait().expect("it is our child").is_some();
        let each = children.into_iter().map(|mut child| wait_for(&mut child, began, is_over));
        each.reduce(|sum, one| Took {
            wall: sum.wall.max(one.wall),
            cpu_seconds: sum.cpu_seconds + one.cpu_seconds,
            peak_mib: sum.peak_mib + one.peak_mib,
        })
        .expect("there is a connection")
    }

    async fn pgsluice(&self, client: &Client, round: u64, connections: u64) -> Took {
        let name = format!("copy{}_{connections}_{round}", std::process::id());
        let settings = format!("tables = [\"public.bench_copy_*\"]\n[snapshot]\nconnections = {connections}");
        let mut pgsluice = Pgsluice::start(&self.servers, &name, &settings, &[]);
        let port = pgsluice.port;
        let records = || metric(port, "pgsluice_kafka_records_total").unwrap_or(0.0);
        let began = await_start(&mut pgsluice.child, |_| records() > 0.0);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let rows = self.rows as f64;
        let before = records();
        let mut took = wait_for(&mut pgsluice.child, began, |_| records() >= rows);
        // What was there when the clock started took no time of it.
        took.wall = took.wall.mul_f64(rows / (rows - before));
        assert_eq!(Some(rows), metric(port, "pgsluice_copied_rows_total"), "each row is one record");
        pgsluice.kill();
        let (slot, publication) = (format!("pgsluice_{name}"), format!("pgsluice_{name}"));
        drop_slot(client, &slot).await;
        client.batch_execute(&format!("DROP PUBLICATION {publication}")).await.expect("it was made");
        took
    }
}
