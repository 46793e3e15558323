//! Writers on the rows that are copied.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use postgres::{Client, NoTls};

use super::TABLES;
use crate::harness::{random::Random, stream::Stream};

/// Writers on the rows that are copied. They go on when the server comes back after it was away.
pub(super) struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Writers {
    pub(super) fn start(stream: &Stream, random: &mut Random) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let rows: i64 = stream.database.value("select count(*) from public.item");
        let threads = (0..3)
            .map(|_| {
                let (url, stop) = (stream.database.url.clone(), Arc::clone(&stop));
                let mut random = random.fork();
                thread::spawn(move || {
                    let (mut client, mut written) = (None, 0);
                    while !stop.load(Ordering::Relaxed) {
                        if client.as_ref().is_none_or(Client::is_closed) {
                            client = Client::connect(&url, NoTls).ok();
                        }
                        if let Some(client) = &mut client {
                            written += u64::from(write(client, &mut random, rows.unsigned_abs()));
                        }
                        thread::sleep(Duration::from_millis(random.below(8)));
                    }
                    written
                })
            })
            .collect();
        Self { stop, threads }
    }

    pub(super) fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.threads {
            assert!(writer.join().expect("it has not panicked") > 0, "it wrote nothing");
        }
    }
}

/// One transaction; whether it was committed.
fn write(client: &mut Client, random: &mut Random, rows: u64) -> bool {
    let mut statements = String::from("begin;");
    for _ in 0..=random.below(4) {
        statements.push_str(&statement(random, rows));
    }
    statements.push_str(if random.chance(10) { "rollback" } else { "commit" });
    let outcome = client.batch_execute(&statements);
    // Two writers can meet in a deadlock, or at a key that is taken: nothing is written then. A server that is gone has rolled back.
    if outcome.is_err() && !client.is_closed() {
        let _gone_meanwhile = client.batch_execute("rollback");
    }
    outcome.is_ok()
}

fn statement(random: &mut Random, rows: u64) -> String {
    let table = TABLES[usize::try_from(random.below(3)).expect("a table")];
    // Most of them meet at few rows, of which each is changed while it is copied sooner or later.
    let id = if random.chance(50) { 1 + random.below(rows) } else { 1 + (random.below(40) * 149) % rows };
    let id_column = if table == "pair" { "number" } else { "id" };
    let place = format!("{id_column} = {id}");
    match random.below(10) {
        0..=4 => format!("update public.{table} set version = version + 1, note = 'again' where {place};"),
        5 => format!(
            "update public.{table} set version = version + 1, body = repeat(md5(random()::text), 100) where {place};"
        ),
        6 | 7 => format!("delete from public.{table} where {place};"),
        8 if table == "pair" => format!(
            "insert into public.pair values (chr(97 + {id} % 20), {id}, oracle.next_version(), 'new', null) on conflict do nothing;"
        ),
        8 => format!(
            "insert into public.{table} values ({id}, oracle.next_version(), 'new', repeat(md5(random()::text), 100)) on conflict do nothing;"
        ),
        // Changes of the key, to where nothing was copied yet, or everything.
        _ if random.chance(50) => format!(
            "update public.{table} set {id_column} = {id_column} + 1000000, version = oracle.next_version() where {place};"
        ),
        _ => format!(
            "update public.{table} set {id_column} = -{id_column}, version = oracle.next_version() where {place};"
        ),
    }
}
