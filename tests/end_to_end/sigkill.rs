//! Killed as life has it: SIGKILL at random moments, under writers of long and short transactions and of COPY that do not wait.

use std::{collections::BTreeMap, thread};

use crate::harness::{
    event::Record,
    kafka::Checkpoints,
    oracle::Lsn,
    random::Random,
    setting,
    stack::Stack,
    stream::{START_TIMEOUT, Stream},
    watcher::Watcher,
    workload::{TABLES, Workload},
};

/// How many rows a transaction has that is certain to be split: far more than any that the writers make.
const LARGE_ROWS: u64 = 10_000;

#[test]
fn every_change_is_there_once_whenever_it_is_killed() {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let mut stream = Stream::create(&stack, "sigkill");
    Workload::create_tables(&stream);
    stream.start_ready().kill();
    let watcher = Watcher::start(&stream);
    let workload = Workload::start(&stream, &mut random);
    let mut checkpoints = Checkpoints::open(&stream.bootstrap_servers, &stream.checkpoint_topic, &stream.name);
    let rounds = setting("PGSLUICE_TEST_KILL_ROUNDS", 60);
    let mut killed_at = Vec::new();
    for round in 0..rounds {
        // Every other life splits transactions, and some are killed inside a large one.
        let is_inside = round % 10 == 7;
        let records_max = if is_inside || random.chance(50) { "40" } else { "20000" };
        stream.set("kafka.transaction.max_records", records_max);
        stream.set("kafka.transaction.split_after_records", if records_max == "40" { "40" } else { "1000000" });
        let mut program = stream.start();
        if round % 6 == 5 {
            thread::sleep(random.duration_ms(0..500));
        } else if is_inside {
            program.await_ready();
            let behind = stream.database.wal_lsn();
            write_large_transaction(&stream, round);
            checkpoints.await_inside(behind, 1000, START_TIMEOUT);
        } else {
            program.await_ready();
            thread::sleep(random.duration_ms(50..800));
            assert!(program.is_running(), "it ended by itself");
        }
        program.kill();
        killed_at.push(stream.database.wal_lsn());
    }
    workload.finish().assert_varied();
    let program = stream.start_ready();
    stream.drain();
    program.terminate();
    let watched = watcher.finish();
    let (records, verdict) = stream.judge(TABLES);
    println!("{rounds} kills, {} events, {} transactions, {watched:?}", verdict.events, verdict.transactions);
    verdict.assert_flawless();

    let lives = Lives::of(&stream.checkpoints());
    let spanned = spanned_by_transactions(&records, &killed_at);
    let shared = events_with_shared_lsn(&records);
    println!("{lives:?}, {spanned} kills inside a transaction's life, {shared} events share an LSN");
    assert!(lives.started > rounds / 2, "most kills came after the start");
    assert!(spanned > 0, "no transaction was open during a kill");
    assert!(shared > 0, "COPY made no events that share an LSN");
    assert!(lives.resumed_inside_a_transaction > 0, "no life began inside a transaction");
}

/// Inserts rows that no writer knows, in one transaction.
fn write_large_transaction(stream: &Stream, round: u64) {
    stream.database.execute(&format!(
        "insert into public.bulk select -({round} * {LARGE_ROWS} + number), 0, 'large' from generate_series(1, {LARGE_ROWS}) number"
    ));
}

/// What the checkpoints tell about the lives of the program.
#[derive(Debug, Default)]
struct Lives {
    started: u64,
    resumed_inside_a_transaction: u64,
}

impl Lives {
    fn of(checkpoints: &[Option<serde_json::Value>]) -> Self {
        let mut lives = Self::default();
        let mut instance = None;
        for checkpoint in checkpoints.iter().flatten() {
            if instance != Some(&checkpoint["instance"]) {
                instance = Some(&checkpoint["instance"]);
                lives.started += 1;
                lives.resumed_inside_a_transaction += u64::from(!checkpoint["split"].is_null());
            }
        }
        lives
    }
}

/// How many of the positions lie between a transaction's first change and its commit.
fn spanned_by_transactions(records: &[Record], positions: &[Lsn]) -> usize {
    let mut firsts: BTreeMap<Lsn, Lsn> = BTreeMap::new();
    for event in records.iter().filter_map(|record| record.event.as_ref()) {
        let first = firsts.entry(event.identity.commit_lsn).or_insert(event.lsn);
        *first = event.lsn.min(*first);
    }
    let spans = |position: &&Lsn| firsts.iter().any(|(commit, first)| first < *position && *position < commit);
    positions.iter().filter(spans).count()
}

fn events_with_shared_lsn(records: &[Record]) -> usize {
    let mut counts: BTreeMap<Lsn, usize> = BTreeMap::new();
    for event in records.iter().filter_map(|record| record.event.as_ref()) {
        *counts.entry(event.lsn).or_default() += 1;
    }
    counts.values().filter(|count| **count > 1).sum()
}
