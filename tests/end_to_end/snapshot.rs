//! Rows that were there before: copied beside the stream, under writers, over any chain of lives.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::harness::{
    event::{Identity, Record, UNAVAILABLE},
    oracle::Row,
    random::Random,
    setting,
    stack::Stack,
    stream::{Program, Stream},
    wait_until,
};

/// Every write gives a row a version that is higher than any that its key had.
const SCHEMA: &str = "
    create sequence oracle.version;
    create table public.item (id bigint primary key, version bigint not null, note text, body text);
    alter table public.item alter body set storage external;
    create table public.pair (area text, number int, version bigint not null, note text, body text, primary key (area, number));
    create table public.whole (id bigint primary key, version bigint not null, note text, body text);
    alter table public.whole alter body set storage external;
    alter table public.whole replica identity full;
    create function oracle.next_version() returns bigint language sql as $$ select nextval('oracle.version') * 1000000 $$;
";

const TABLES: [&str; 3] = ["item", "pair", "whole"];
const COPY_TIMEOUT: Duration = Duration::from_mins(2);

fn create(stack: &Stack, label: &str, rows: u32) -> Stream {
    let mut stream = Stream::create(stack, label);
    stream.set("snapshot.mode", "initial");
    stream.database.execute(SCHEMA);
    stream.database.execute(&format!(
        "insert into public.item select number, oracle.next_version(), 'first', repeat(md5(number::text), 100) from generate_series(1, {rows}) number;
         insert into public.pair select chr(97 + number % 20), number, oracle.next_version(), 'first' || chr(9) || E'\\\\', null
             from generate_series(1, {rows}) number;
         insert into public.whole select number, oracle.next_version(), null, repeat(md5(number::text), 100) from generate_series(1, {rows}) number"
    ));
    stream
}

/// Waits until nothing is left to copy.
fn await_copied(program: &Program) {
    wait_until(COPY_TIMEOUT, "every table is copied", || {
        let log = program.log();
        (log.contains("every table is copied") || log.contains("no table is to be copied")).then_some(())
    });
}

#[test]
fn existing_rows_are_copied_and_no_more_than_once() {
    let stack = Stack::shared();
    let stream = create(&stack, "copied", 3000);
    let program = stream.start_ready();
    await_copied(&program);
    stream.drain();
    program.terminate();
    // Another life has nothing to copy.
    let program = stream.start_ready();
    await_copied(&program);
    stream.database.execute("update public.item set version = version + 1, note = 'second' where id <= 10");
    stream.drain();
    program.terminate();

    let judged = Judged::of(&stream, &stream.records());
    judged.assert_flawless();
    assert_eq!(judged.copied, 9000);
    assert_eq!(judged.streamed, 10 + 2, "and the marks");
}

/// A table that is added while the stream runs.
#[test]
fn a_table_that_appears_is_copied() {
    let stack = Stack::shared();
    let mut stream = create(&stack, "appears", 10);
    stream.set("postgres.match_interval", "1s");
    let program = stream.start_ready();
    await_copied(&program);
    stream.database.execute(
        "create table public.late (id bigint primary key, version bigint not null, note text, body text);
         insert into public.late select number, number, 'first', null from generate_series(1, 700) number",
    );
    let topic = stream.topic("late");
    wait_until(COPY_TIMEOUT, "the table is copied", || (program.metric("copied_rows_total")? >= 730.0).then_some(()));
    stream.drain();
    program.terminate();
    let late = stream.records().into_iter().filter(|record| record.table == "late").count();
    assert_eq!(late, 700, "{topic}");
}

/// Faults 37 and 1 to 3, with writers on the same rows.
#[test]
fn no_row_is_lost_doubled_or_stale_whenever_it_is_killed() {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let mut stream =
        create(&stack, "copy_killed", setting("PGSLUICE_TEST_SNAPSHOT_ROWS", 8000).try_into().expect("a count"));
    let rounds = setting("PGSLUICE_TEST_SNAPSHOT_KILLS", 20);
    // Slow enough for it to be killed in the middle, again and again.
    stream.set("snapshot.rows_per_second", "1500");
    stream.set("snapshot.connections", "2");
    let writers = Writers::start(&stream, &mut random);
    let mut killed_midway = 0;
    for _ in 0..rounds {
        let mut program = stream.start_ready();
        thread::sleep(random.duration_ms(100..1500));
        assert!(program.is_running(), "it ended by itself");
        let log = program.log();
        killed_midway += u32::from(log.contains("copying the table") && !log.contains("every table is copied"));
        program.kill();
    }
    stream.set("snapshot.rows_per_second", "1000000");
    let program = stream.start_ready();
    await_copied(&program);
    writers.finish();
    stream.drain();
    println!("{:?} rows superseded in the last life", program.metric("copied_rows_superseded_total"));
    program.terminate();
    let judged = Judged::of(&stream, &stream.records());
    println!(
        "{rounds} kills, {killed_midway} of them midway; {} rows copied, {} events streamed",
        judged.copied, judged.streamed
    );
    judged.assert_flawless();
    assert!(killed_midway > 0, "no kill came while rows were copied");
    assert!(judged.copied > 0 && judged.streamed > 1000);
}

/// What a consumer makes of the topics, beside what the tables are.
struct Judged {
    copied: usize,
    streamed: usize,
    violations: Vec<String>,
}

impl Judged {
    fn of(stream: &Stream, records: &[Record]) -> Self {
        let contents = stream.database.history(&TABLES).contents;
        let mut judged = Self { copied: 0, streamed: 0, violations: Vec::new() };
        let mut identities: BTreeSet<Identity> = BTreeSet::new();
        let mut copied: BTreeSet<(&str, &Row)> = BTreeSet::new();
        let mut newest: BTreeMap<(&str, &Row), u64> = BTreeMap::new();
        let mut folded: BTreeMap<&str, BTreeMap<&Row, Row>> = BTreeMap::new();
        // A row that is given another key may be read twice: see `src/snapshot/moved.rs`.
        let may_be_read_again: BTreeSet<(&str, &Row)> = records
            .iter()
            .filter(|record| record.old_key.is_some())
            .filter_map(|record| Some((record.table.as_str(), record.key.as_ref()?)))
            .collect();
        // What a change of the key takes along.
        let mut moved: BTreeMap<(&str, &Row), Row> = BTreeMap::new();
        for record in records {
            let (Some(key), Some(event)) = (&record.key, &record.event) else { continue };
            let table = record.table.as_str();
            if event.operation == "r" {
                judged.copied += 1;
                if !copied.insert((table, key)) && !may_be_read_again.contains(&(table, key)) {
                    judged.violations.push(format!("{table} {key:?} was copied twice"));
                }
            } else {
                judged.streamed += 1;
                if !identities.insert(event.identity) {
                    judged.violations.push(format!("{table} {key:?} has {:?} twice", event.identity));
                }
            }
            let rows = folded.entry(table).or_default();
            let Some(mut row) = event.after.clone() else {
                if let Some(row) = rows.remove(key) {
                    moved.insert((table, key), row);
                }
                continue;
            };
            if let Some(version) = row.get("version") {
                let version: u64 = version.as_deref().expect("a version").parse().expect("a number");
                if newest.insert((table, key), version).is_some_and(|newest| newest > version) {
                    judged.violations.push(format!("{table} {key:?} steps back to {version} at {}", record.offset));
                }
            }
            let replaced = match &record.old_key {
                Some(old) => moved.get(&(table, old)),
                None => rows.get(key),
            };
            for (column, value) in row.iter_mut().filter(|(_, value)| value.as_deref() == Some(UNAVAILABLE)) {
                // Until the row is copied nobody has it.
                if let Some(replaced) = replaced {
                    value.clone_from(&replaced[column]);
                }
            }
            rows.insert(key, row);
        }
        for (table, rows) in contents {
            let mut folded: Vec<Row> =
                folded.remove(table.as_str()).into_iter().flat_map(BTreeMap::into_values).collect();
            let mut rows = rows;
            folded.sort();
            rows.sort();
            if folded != rows {
                let odd = folded
                    .iter()
                    .filter(|row| !rows.contains(row))
                    .chain(rows.iter().filter(|row| !folded.contains(row)));
                let shown: Vec<_> = odd.take(4).map(|row| format!("{:?}", short(row))).collect();
                judged.violations.push(format!(
                    "{table} has {} rows, and its topic comes to {}: {}",
                    rows.len(),
                    folded.len(),
                    shown.join("; ")
                ));
            }
        }
        judged
    }

    fn assert_flawless(&self) {
        let shown: Vec<_> = self.violations.iter().take(20).cloned().collect();
        assert!(self.violations.is_empty(), "{} violations:\n{}", self.violations.len(), shown.join("\n"));
    }
}

fn short(row: &Row) -> BTreeMap<&str, &str> {
    let cut = |text: &'_ str| text.char_indices().nth(20).map_or(text.len(), |(at, _)| at);
    row.iter()
        .map(|(name, value)| (name.as_str(), value.as_deref().map_or("null", |text| &text[..cut(text)])))
        .collect()
}

/// Writers on the rows that are copied.
struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Writers {
    fn start(stream: &Stream, random: &mut Random) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let rows: i64 = stream.database.value("select count(*) from public.item");
        let threads = (0..3)
            .map(|_| {
                let (mut client, stop) = (stream.database.client(), Arc::clone(&stop));
                let mut random = random.fork();
                thread::spawn(move || {
                    let mut written = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let mut statements = String::from("begin;");
                        for _ in 0..=random.below(4) {
                            statements.push_str(&statement(&mut random, rows.unsigned_abs()));
                        }
                        statements.push_str(if random.chance(10) { "rollback" } else { "commit" });
                        // Two writers can meet in a deadlock, or at a key that is taken: nothing is written then.
                        match client.batch_execute(&statements) {
                            Ok(()) => written += 1,
                            Err(_) => client.batch_execute("rollback").expect("it is rolled back"),
                        }
                        thread::sleep(Duration::from_millis(random.below(8)));
                    }
                    written
                })
            })
            .collect();
        Self { stop, threads }
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.threads {
            assert!(writer.join().expect("it has not panicked") > 0, "it wrote nothing");
        }
    }
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
