//! Killed before, during and after the commit of a Kafka transaction, by fault points in the program; of changes, and of copied rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::process::ExitStatusExt,
    time::Duration,
};

use rdkafka::Message;

use crate::harness::{
    kafka::{self, Isolation, Place, end_lsn, place},
    oracle::Lsn,
    random::Random,
    stack::Stack,
    stream::Stream,
    watcher::Watcher,
    workload::{TABLES, Workload},
};
use crate::snapshot::await_copied;

const ROUNDS: u64 = 6;
const SIGKILL: i32 = 9;

/// What the slot and Kafka had when the program died.
struct Death {
    confirmed: Lsn,
    /// The position of the newest checkpoint that was written, whatever became of it.
    checkpoint: Lsn,
    is_committed: bool,
    /// How many other records were written and not committed in the end, and how many checkpoints.
    records_aborted: usize,
    checkpoints_aborted: usize,
}

/// What is written in Kafka for the stream.
#[derive(Default)]
struct Written {
    places: BTreeSet<Place>,
    /// The position of each checkpoint, by its offset.
    checkpoints: BTreeMap<i64, Lsn>,
}

impl Written {
    fn read(stream: &Stream, isolation: Isolation) -> Self {
        let mut written = Self::default();
        let prefix = format!("{}.", stream.name);
        kafka::read_to_end_as(
            isolation,
            &stream.bootstrap_servers,
            |topic| topic.starts_with(&prefix) || topic == stream.checkpoint_topic,
            |message| {
                if message.topic() == stream.checkpoint_topic && message.key() != Some(stream.name.as_bytes()) {
                    // What stands beside the checkpoint comes and goes with it.
                    return;
                }
                written.places.insert(place(message));
                if message.topic() == stream.checkpoint_topic {
                    let checkpoint = kafka::checkpoint(message.payload().expect("nobody has removed it"));
                    written.checkpoints.insert(message.offset(), end_lsn(&checkpoint));
                }
            },
        );
        written
    }
}

/// Dies at a point for several times, under writers; then everything must be there once.
fn die_at(point: &str) -> Vec<Death> {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let stream = Stream::create(&stack, &point.replace('-', "_"));
    Workload::create_tables(&stream);
    stream.start_ready().terminate();
    let watcher = Watcher::start(&stream);
    let workload = Workload::start(&stream, &mut random);
    let mut aborted_before = BTreeSet::new();
    let mut deaths = Vec::new();
    for round in 0..ROUNDS {
        // The first commit of a life, and later ones.
        let count = if round == 0 { 1 } else { random.within(1..12) };
        let mut program = stream.start_with(&[], &[("PGSLUICE_FAULT", &format!("{point}:{count}"))]);
        let status = program.wait(Duration::from_mins(1), "the program dies at its fault point");
        assert_eq!(status.signal(), Some(SIGKILL), "it ended with {status}");
        stream.database.await_slot_released(&stream.slot);
        let confirmed = stream.database.confirmed_flush_lsn(&stream.slot).expect("there is a slot");
        let written = Written::read(&stream, Isolation::Uncommitted);
        // The next one ends what the dead one has left open, and leaves nothing open itself.
        stream.start_ready().terminate();
        let committed = Written::read(&stream, Isolation::Committed);
        let aborted: BTreeSet<_> = written
            .places
            .difference(&committed.places)
            .filter(|place| !aborted_before.contains(*place))
            .cloned()
            .collect();
        let checkpoints_aborted = aborted.iter().filter(|(topic, ..)| *topic == stream.checkpoint_topic).count();
        let (offset, checkpoint) = written.checkpoints.last_key_value().expect("there is a checkpoint");
        deaths.push(Death {
            confirmed,
            checkpoint: *checkpoint,
            is_committed: committed.checkpoints.contains_key(offset),
            records_aborted: aborted.len() - checkpoints_aborted,
            checkpoints_aborted,
        });
        aborted_before.extend(aborted);
    }
    workload.finish();
    let program = stream.start_ready();
    stream.drain();
    program.terminate();
    watcher.finish();
    let (_, verdict) = stream.judge(TABLES);
    let committed = deaths.iter().filter(|death| death.is_committed).count();
    println!(
        "{ROUNDS} deaths at {point}, {committed} of them with their transaction committed; {} events, {} transactions",
        verdict.events, verdict.transactions
    );
    verdict.assert_flawless();
    assert!(
        deaths.iter().all(|death| death.confirmed < death.checkpoint),
        "PostgreSQL was told of a transaction at whose commit the program died"
    );
    deaths
}

#[test]
fn killed_before_the_commit() {
    let deaths = die_at("before-commit");
    for death in &deaths {
        assert!(!death.is_committed, "it died after the commit");
        assert_eq!(death.checkpoints_aborted, 1, "the transaction was whole, with its checkpoint");
    }
    assert!(deaths.iter().any(|death| death.records_aborted > 0), "no transaction held any records");
}

#[test]
fn killed_during_the_commit() {
    for death in die_at("during-commit") {
        // All of it or nothing: that is what a transaction is.
        let Death { is_committed, records_aborted, checkpoints_aborted, .. } = death;
        if is_committed {
            assert_eq!((records_aborted, checkpoints_aborted), (0, 0), "a part of what was committed is not there");
        } else {
            assert_eq!(checkpoints_aborted, 1, "the transaction was whole, with its checkpoint");
        }
    }
}

#[test]
fn killed_after_the_commit_before_postgresql_is_told() {
    for death in die_at("after-commit") {
        assert!(death.is_committed, "it died before the commit");
        assert_eq!((death.records_aborted, death.checkpoints_aborted), (0, 0), "something else was open");
    }
}

/// What is written in Kafka of the copy of one table.
#[derive(Default)]
struct Copied {
    rows: BTreeSet<Place>,
    /// How many rows the table's cursor says there are, by its offset.
    cursors: BTreeMap<i64, u64>,
    checkpoints: BTreeSet<i64>,
}

impl Copied {
    fn read(stream: &Stream, table: &str, isolation: Isolation) -> Self {
        let mut copied = Self::default();
        let topic = stream.topic(table);
        kafka::read_to_end_as(
            isolation,
            &stream.bootstrap_servers,
            |name| name == topic || name == stream.checkpoint_topic,
            |message| {
                if message.topic() == topic {
                    copied.rows.insert(place(message));
                } else if message.key() == Some(stream.name.as_bytes()) {
                    copied.checkpoints.insert(message.offset());
                } else if let Some(Ok(beside)) = message.payload().map(serde_json::from_slice::<serde_json::Value>)
                    && beside["table"] == table
                {
                    copied.cursors.insert(message.offset(), beside["rows"].as_u64().expect("a count"));
                }
            },
        );
        copied
    }

    /// Whether the newest transaction has moved the cursor.
    fn ends_with_rows(&self) -> bool {
        let before = self.checkpoints.iter().rev().nth(1).copied().unwrap_or(-1);
        self.cursors.last_key_value().is_some_and(|(at, _)| *at > before)
    }
}

/// Nothing but the copy writes to Kafka, so that most commits are of its rows. Rows and the cursor that says how many there are come and go together.
#[test]
fn killed_around_the_commit_of_copied_rows() {
    const ROWS: u32 = 30_000;
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "copied_commit");
    stream.set("snapshot.rows_per_second", "2000");
    stream.database.execute(&format!(
        "create table public.item (id int primary key); insert into public.item select generate_series(1, {ROWS})"
    ));
    let mut aborted_before = BTreeSet::new();
    for (point, may_be_aborted, may_be_committed) in
        [("before-commit", true, false), ("during-commit", true, true), ("after-commit", false, true)]
    {
        let mut deaths = 0;
        for count in [2, 3] {
            stream.set("snapshot.mode", "initial");
            let mut program = stream.start_with(&[], &[("PGSLUICE_FAULT", &format!("{point}:{count}"))]);
            let status = program.wait(Duration::from_mins(1), "the program dies at its fault point");
            assert_eq!(status.signal(), Some(SIGKILL), "it ended with {status}");
            let written = Copied::read(&stream, "item", Isolation::Uncommitted);
            // One that copies nothing ends what the dead one has left open.
            stream.set("snapshot.mode", "never");
            stream.start_ready().terminate();
            let committed = Copied::read(&stream, "item", Isolation::Committed);
            let said = committed.cursors.last_key_value().map_or(0, |(_, rows)| *rows);
            assert_eq!(committed.rows.len() as u64, said, "{point}:{count}: the rows that there are, and the cursor");
            let aborted: BTreeSet<_> = written
                .rows
                .difference(&committed.rows)
                .filter(|row| !aborted_before.contains(*row))
                .cloned()
                .collect();
            if written.ends_with_rows() {
                deaths += 1;
                let is_committed =
                    written.cursors.last_key_value().is_some_and(|(at, _)| committed.cursors.contains_key(at));
                assert_ne!(is_committed, !aborted.is_empty(), "{point}:{count}: a part of a transaction");
                assert!(
                    if is_committed { may_be_committed } else { may_be_aborted },
                    "{point}:{count}: {is_committed}"
                );
            }
            aborted_before.extend(aborted);
        }
        assert!(deaths > 0, "{point}: no commit was one of copied rows");
    }
    stream.set("snapshot.mode", "initial");
    stream.set("snapshot.rows_per_second", "1000000");
    let program = stream.start_ready();
    await_copied(&program);
    program.terminate();
    let rows = stream.records().into_iter().filter(|record| record.table == "item");
    let mut ids: Vec<u32> =
        rows.map(|row| row.key.expect("a key")["id"].as_ref().expect("an id").parse().expect("a number")).collect();
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(1..=ROWS), "{} rows of {ROWS}", ids.len());
}
