//! Tables whose rows nothing tells apart: copied at once, and anew whenever that is interrupted.
//!
//! A consumer counts how often each row is there. From the first row of a copy on no count may ever be below zero, and in the end they are those of
//! the table. What is streamed before that is taken out by the copy.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use postgres::{Client, NoTls};

use super::{COPY_TIMEOUT, await_copied, control, signals, trouble::start_and_add};
use crate::harness::{
    event::Record,
    oracle::Row,
    random::Random,
    setting,
    stack::Stack,
    stream::{Program, Stream},
    wait_until,
};

/// Many rows are the same.
const ROWS: &str = "insert into public.bare select 'kind ' || number % 40, number % 7, repeat('x', 40 + number % 3)";

fn create(stack: &Stack, label: &str, rows: u64) -> Stream {
    let mut stream = Stream::create(stack, label);
    stream.set("snapshot.mode", "initial");
    stream.database.execute(&format!(
        "create table public.bare (kind text, amount int, pad text); alter table public.bare replica identity full;
         {ROWS} from generate_series(1, {rows}) number"
    ));
    stream
}

/// What a consumer has counted in the topic of a table, or of several that are one.
#[derive(Debug, Default)]
struct Counted {
    counts: BTreeMap<Row, i64>,
    copied: usize,
    emptied: usize,
    streamed: usize,
}

impl Counted {
    fn of(records: &[Record], table: &str) -> Self {
        let mut counted = Self::default();
        for record in records.iter().filter(|record| record.table == table) {
            let Some(event) = &record.event else { continue };
            assert_eq!(
                (record.partition, &record.key),
                (if event.operation == "t" { record.partition } else { 0 }, &None)
            );
            if event.operation == "t" {
                counted.emptied += usize::from(record.partition == 0);
                if record.partition == 0 {
                    counted.counts.clear();
                }
                continue;
            }
            counted.copied += usize::from(event.operation == "r");
            counted.streamed += usize::from(event.operation != "r");
            for (row, change) in event.before.iter().map(|row| (row, -1)).chain(event.after.iter().map(|row| (row, 1)))
            {
                let count = counted.counts.entry(row.clone()).or_default();
                *count += change;
                let is_before_copies = counted.copied + counted.emptied == 0;
                assert!(
                    *count >= 0 || is_before_copies,
                    "{table}: at {} a row is gone that is not there: {event:?}",
                    record.offset
                );
            }
        }
        counted.counts.retain(|_, count| *count != 0);
        counted
    }

    /// Holds them against the table.
    fn assert_is(&self, stream: &Stream, table: &str) {
        let mut expected: BTreeMap<Row, i64> = BTreeMap::new();
        for row in stream.database.history(&[table]).contents.remove(table).expect("it is there") {
            *expected.entry(row).or_default() += 1;
        }
        let differs = |(row, count): &(&Row, &i64)| expected.get(*row) != Some(*count);
        let odd: Vec<_> = self.counts.iter().filter(differs).take(5).collect();
        let missing: Vec<_> =
            expected.iter().filter(|(row, count)| self.counts.get(*row) != Some(*count)).take(5).collect();
        assert!(odd.is_empty() && missing.is_empty(), "{table}: there are {odd:?}, and there should be {missing:?}");
    }
}

/// Writers on a table without a key: each takes one row that is there, of some that are the same.
struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Writers {
    fn start(stream: &Stream, random: &mut Random, truncates: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let write = |_| {
            let (url, stop, mut random) = (stream.database.url.clone(), Arc::clone(&stop), random.fork());
            thread::spawn(move || {
                let (mut client, mut written) = (Client::connect(&url, NoTls).expect("a connection"), 0);
                while !stop.load(Ordering::Relaxed) {
                    let mut statements = String::from("begin;");
                    for _ in 0..=random.below(4) {
                        statements.push_str(&statement(&mut random, truncates));
                    }
                    statements.push_str(if random.chance(10) { "rollback" } else { "commit" });
                    // Two writers can meet in a deadlock.
                    if client.batch_execute(&statements).is_ok() {
                        written += 1;
                    } else {
                        client.batch_execute("rollback").expect("the server is there");
                    }
                    thread::sleep(Duration::from_millis(random.below(8)));
                }
                written
            })
        };
        Self { threads: (0..3).map(write).collect(), stop }
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.threads {
            assert!(writer.join().expect("it has not panicked") > 0, "it wrote nothing");
        }
    }
}

fn statement(random: &mut Random, truncates: bool) -> String {
    let (kind, amount) = (random.below(40), random.below(7));
    let one = format!(
        "ctid = (select ctid from public.bare where kind = 'kind {kind}' and amount = {amount} limit 1 for update skip locked)"
    );
    if truncates && random.below(5000) == 0 {
        return format!("truncate public.bare; {ROWS} from generate_series(1, 15000) number;");
    }
    match random.below(100) {
        0..35 => format!("{ROWS} from generate_series({kind}, {kind} + {amount}) number;"),
        35..65 => format!("delete from public.bare where {one};"),
        65..75 => format!("update public.bare set amount = amount + 0 where {one};"),
        _ => format!("update public.bare set amount = {amount} + 1, kind = 'kind {}' where {one};", random.below(40)),
    }
}

fn await_rows(program: &Program) {
    wait_until(COPY_TIMEOUT, "rows are copied, or none are left", || {
        let log = program.log();
        let is_over = log.contains("no table is to be copied") || log.contains("every table is copied");
        (is_over || log.contains("copying the table at once")).then_some(())
    });
}

#[test]
fn a_table_without_a_key_is_copied_at_once() {
    let stack = Stack::shared();
    let stream = create(&stack, "bare", 5000);
    let program = stream.start_ready();
    await_copied(&program);
    stream.drain();
    program.terminate();
    // Another life has nothing to copy.
    let program = stream.start_ready();
    await_copied(&program);
    stream
        .database
        .execute("delete from public.bare where amount = 3; update public.bare set kind = null where amount = 2");
    stream.drain();
    program.terminate();
    let counted = Counted::of(&stream.records(), "bare");
    assert_eq!((counted.copied, counted.emptied), (5000, 0), "the topic was empty");
    assert!(counted.streamed > 1000);
    counted.assert_is(&stream, "bare");
}

/// Killed in the middle of a copy, and before, during and after a commit, with writers that take rows which are still to be copied.
#[test]
fn no_row_is_lost_or_doubled_whenever_it_is_killed() {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let mut stream = create(&stack, "bare_killed", setting("PGSLUICE_TEST_SNAPSHOT_ROWS", 0).max(20_000));
    let rounds = setting("PGSLUICE_TEST_SNAPSHOT_KILLS", 8);
    stream.set("snapshot.rows_per_second", "3000");
    let writers = Writers::start(&stream, &mut random, true);
    let mut killed_midway = 0;
    for round in 0..rounds {
        // Every other life splits transactions, those in which the stream waits among them.
        let records_max = if round % 2 == 0 { "2" } else { "20000" };
        stream.set("kafka.transaction.max_records", records_max);
        stream.set("kafka.transaction.split_after_records", records_max);
        let mut program = stream.start_ready();
        if random.chance(80) {
            await_rows(&program);
        }
        thread::sleep(random.duration_ms(0..2500));
        assert!(program.is_running(), "it ended by itself");
        let log = program.log();
        killed_midway += u32::from(log.contains("copying the table at once") && !log.contains("every table is copied"));
        program.kill();
    }
    stream.set("snapshot.rows_per_second", "1000000");
    let program = stream.start_ready();
    await_copied(&program);
    writers.finish();
    stream.drain();
    program.terminate();
    let counted = Counted::of(&stream.records(), "bare");
    println!(
        "{rounds} kills, {killed_midway} of them midway; {counted:?}",
        counted = (counted.copied, counted.emptied, counted.streamed)
    );
    counted.assert_is(&stream, "bare");
    assert!(killed_midway > 0 && counted.emptied > 0 && counted.streamed > 0);
}

/// Rows of partitions come under the name of their root, or under their own.
#[test]
fn partitions_without_a_key_are_copied_at_once() {
    let stack = Stack::shared();
    for (label, via_root) in [("root", "true"), ("leaves", "false")] {
        let mut stream = Stream::create(&stack, &format!("bare_{label}"));
        stream.set("snapshot.mode", "initial");
        stream.set("postgres.publish_via_partition_root", via_root);
        stream.set("snapshot.rows_per_second", "3000");
        stream.database.execute(
            "create table public.bare (kind text, amount int) partition by list (amount); alter table public.bare replica identity full;
             create table public.bare_even partition of public.bare for values in (0, 2, 4);
             create table public.bare_odd partition of public.bare default;
             alter table public.bare_even replica identity full; alter table public.bare_odd replica identity full;
             insert into public.bare select 'kind ' || number % 5, number % 6 from generate_series(1, 6000) number",
        );
        let program = stream.start_ready();
        await_rows(&program);
        stream.database.execute(
            "update public.bare set amount = amount + 1 where kind = 'kind 1'; delete from public.bare where kind = 'kind 2'",
        );
        program.kill();
        let program = stream.start_ready();
        await_copied(&program);
        stream.drain();
        program.terminate();
        let records = stream.records();
        let tables: &[&str] = if via_root == "true" { &["bare"] } else { &["bare_even", "bare_odd"] };
        for table in tables {
            Counted::of(&records, table).assert_is(&stream, table);
        }
    }
}

#[test]
fn a_copy_at_once_is_paused_stopped_and_started() {
    let stack = Stack::shared();
    let mut stream = create(&stack, "bare_asked", 20_000);
    stream.set("snapshot.mode", "never");
    stream.set("snapshot.rows_per_second", "2000");
    stream.database.execute(
        "create table public.item (id int primary key); insert into public.item select generate_series(1, 3000)",
    );
    let program = stream.start_ready();
    stream.database.execute("delete from public.bare where amount = 3");
    stream.drain();
    let command = |arguments: &[&str]| control::command(&stream, &program, arguments);
    control::refused(
        &stream,
        &program,
        &["start", "public.bare", "--where", "amount = 1"],
        "snapshot-refused",
        "nothing tells the rows of public.bare apart",
    );
    let await_more_rows = || {
        let before = program.metric("copied_rows_total");
        wait_until(COPY_TIMEOUT, "rows are copied", || (program.metric("copied_rows_total") > before).then_some(()));
    };
    command(&["start", "public.bare"]);
    await_more_rows();
    // Another table is stopped, though the stream, which waits for the rows of this one, has not come to what was read of it.
    stream.database.execute("delete from public.bare where amount = 2");
    let waits = "the stream waits for the rows of the table";
    wait_until(COPY_TIMEOUT, "the stream waits", || program.log().contains(waits).then_some(()));
    command(&["start", "public.item", "--parallel", "2"]);
    wait_until(COPY_TIMEOUT, "some of it is read", || {
        let is_read = "select count(*) > 0 from pg_stat_activity where datname = current_database() and state = 'idle'
                       and query like 'ROLLBACK; SELECT%oid = ' || 'public.item'::regclass::oid || '%'";
        stream.database.value::<bool>(is_read).then_some(())
    });
    command(&["stop", "public.item"]);
    let seen = control::status(&stream, &program);
    assert_eq!(["item", "bare"].map(|table| control::state(&seen, table)), ["stopped", "copying"]);
    // It begins anew when it is resumed, and changes do not wait until then.
    command(&["pause"]);
    stream.database.execute("delete from public.bare where amount = 4");
    stream.drain();
    command(&["resume"]);
    await_more_rows();
    command(&["stop", "public.bare"]);
    control::await_state(&stream, &program, "bare", "stopped");
    stream.database.execute("update public.bare set kind = 'another' where amount = 5");
    stream.drain();
    command(&["start", "public.bare"]);
    control::await_state(&stream, &program, "bare", "copied");
    stream.database.execute("update public.bare set kind = 'the last' where amount = 6");
    stream.drain();
    program.terminate();
    // What was streamed before anything was copied, and what was left as it was, is not for counting: only what comes behind the last beginning.
    let records: Vec<Record> = stream.records().into_iter().filter(|record| record.table == "bare").collect();
    let is_emptied =
        |record: &Record| record.partition == 0 && record.event.as_ref().is_some_and(|it| it.operation == "t");
    let last = records.iter().rposition(is_emptied).expect("there was something before");
    Counted::of(&records[last..], "bare").assert_is(&stream, "bare");
    assert!(records.iter().filter(|record| is_emptied(record)).count() >= 3);
}

/// Rows of which the topic cannot be told that they are to be forgotten would be there twice after a crash.
#[test]
fn a_topic_that_cannot_be_emptied_is_told_and_gets_no_copy() {
    let stack = Stack::shared();
    let mut stream = create(&stack, "bare_skips", 10);
    stream.set("events.skip", "truncate");
    stream.database.execute("create table public.item (no int primary key); insert into public.item values (1)");
    let program = stream.start_ready();
    await_copied(&program);
    stream.database.execute("insert into public.bare values ('new', 1, null)");
    stream.drain();
    let log = program.log();
    program.terminate();
    let told: Vec<_> =
        log.lines().filter(|line| line.contains("\"bare\"") && line.contains("snapshot-impossible")).collect();
    assert!(told.len() == 1 && told[0].contains("WARN") && told[0].contains("are not copied"), "{log}");
    let counted = Counted::of(&stream.records(), "bare");
    assert_eq!((counted.copied, counted.streamed, counted.emptied), (0, 1, 0));
    assert_eq!(control::copied(&stream.records(), "item"), 1);
}

/// One is taken out of the publication while it is read, by somebody who has written to it in a transaction that ends later; the other is dropped while
/// nobody runs. No part of a copy stays.
#[test]
fn what_was_copied_of_a_table_that_is_gone_is_taken_out() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "bare_gone");
    stream.set("snapshot.mode", "initial");
    stream.set("snapshot.connections", "2");
    stream.set("snapshot.rows_per_second", "3000");
    stream.set("snapshot.notification_topic", &format!("notifications-of-{}", stream.name));
    let tables = ["taken_out", "dropped"];
    let create = tables.map(|table| {
        format!(
            "create table public.{table} (kind text, at timestamptz default now()); alter table public.{table} replica identity full;
             insert into public.{table} select 'kind ' || number from generate_series(1, 20000) number;"
        )
    });
    let program = start_and_add(&mut stream, &create.concat(), "public.taken_out, public.dropped");
    let await_said = |program: &Program, table: &str, text: &str| {
        wait_until(COPY_TIMEOUT, &format!("{text:?} is said of {table}"), || {
            let log = program.log();
            let mut lines = log.lines().filter(|line| line.contains(&format!("\"table\":\"{table}\"")));
            lines.any(|line| line.contains(text)).then_some(())
        });
    };
    for table in tables {
        await_said(&program, table, "copying the table at once");
    }
    let mut writer = stream.database.client();
    writer
        .batch_execute(
            "begin; insert into public.taken_out values ('late'); delete from public.taken_out where kind = 'kind 7'",
        )
        .expect("it writes");
    stream.database.execute(&format!("alter publication {} drop table public.taken_out", stream.publication));
    wait_until(COPY_TIMEOUT, "the copy is given up", || {
        let seen = control::status(&stream, &program);
        let tables = seen["tables"].as_array().expect("a list").clone();
        (!tables.iter().any(|table| table["table"] == "public.taken_out")).then_some(())
    });
    writer.batch_execute("commit").expect("it ends");
    await_said(&program, "taken_out", "taken out by a TRUNCATE event");
    stream.drain();
    program.kill();
    stream.database.execute("drop table public.dropped");
    let program = stream.start_ready();
    await_said(&program, "dropped", "taken out by a TRUNCATE event");
    wait_until(COPY_TIMEOUT, "both are given up", || {
        let told = signals::told(&stream);
        let aborted = told.iter().filter(|(happened, ..)| happened == "ABORTED").count();
        (aborted == 2).then_some(())
    });
    program.terminate();
    let records = stream.records();
    for table in tables {
        let counted = Counted::of(&records, table);
        assert!(counted.copied > 0 && counted.emptied > 0, "{table}: {} copied", counted.copied);
        assert_eq!(counted.counts, BTreeMap::new(), "{table}: a part of it stays");
    }
}
