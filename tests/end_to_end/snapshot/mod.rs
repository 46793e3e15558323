//! Rows that were there before: copied beside the stream, under writers, over any chain of lives.

mod control;
mod crashes;
mod documented;
mod envelopes;
mod judge;
mod keyless;
mod keys;
mod load;
mod many;
mod modes;
mod published;
mod signals;
mod sizes;
mod standby;
mod trouble;
mod when_needed;
mod writers;

use std::{thread, time::Duration};

use self::{judge::Judged, writers::Writers};
use crate::harness::{
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
pub(crate) fn await_copied(program: &Program) {
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

/// Tables that are added between two starts, by the configuration, and while the stream runs.
#[test]
fn a_table_that_appears_is_copied() {
    let stack = Stack::shared();
    let mut stream = create(&stack, "appears", 10);
    stream.set("postgres.match_interval", "1s");
    stream.set("postgres.tables", r#"["public.item", "public.marker"]"#);
    let program = stream.start_ready();
    await_copied(&program);
    stream.drain();
    program.terminate();
    assert!(!stream.records().iter().any(|record| ["pair", "whole"].contains(&record.table.as_str())));
    stream.database.execute("update public.pair set version = version + 1, note = 'second' where number <= 5");
    stream.unset("postgres.tables");
    let program = stream.start_ready();
    await_copied(&program);
    stream.database.execute(
        "create table public.late (id bigint primary key, version bigint not null, note text, body text);
         insert into public.late select number, number, 'first', null from generate_series(1, 700) number",
    );
    let topic = stream.topic("late");
    wait_until(COPY_TIMEOUT, "the table is copied", || (program.metric("copied_rows_total")? >= 720.0).then_some(()));
    stream.drain();
    program.terminate();
    let records = stream.records();
    let late = records.iter().filter(|record| record.table == "late").count();
    assert_eq!(late, 700, "{topic}");
    let judged = Judged::of(&stream, &records);
    judged.assert_flawless();
    assert_eq!(judged.copied, 730);
}

/// Killed between the chunks of a copy and inside one, and before, during and after a commit, with writers on the same rows. `PGSLUICE_TEST_SNAPSHOT_KILLS` is how often: `make test-long` does 60.
#[test]
fn no_row_is_lost_doubled_or_stale_whenever_it_is_killed() {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let rounds = setting("PGSLUICE_TEST_SNAPSHOT_KILLS", 8);
    // As many as outlast the rounds.
    let rows = setting("PGSLUICE_TEST_SNAPSHOT_ROWS", rounds * 500);
    let mut stream = create(&stack, "copy_killed", rows.try_into().expect("a count"));
    // Slow enough for it to be killed in the middle, again and again.
    stream.set("snapshot.rows_per_second", "1500");
    // Two more than tables: they copy parts of these.
    stream.set("snapshot.connections", "5");
    stream.set("snapshot.split_above", "64KiB");
    let writers = Writers::start(&stream, &mut random);
    let (mut killed_midway, mut killed_in_parts) = (0, 0);
    for round in 0..rounds {
        let mut program = stream.start_ready();
        if round == 0 {
            wait_until(COPY_TIMEOUT, "parts of a table are copied at a time", || {
                are_shared(&stream, &program).then_some(())
            });
        }
        if random.chance(80) {
            wait_until(COPY_TIMEOUT, "rows are copied, or none are left", || {
                let log = program.log();
                // The end of the last table may be all that was left.
                let is_over = log.contains("to be copied") || log.contains("every table is copied");
                (is_over || log.contains("copying the table")).then_some(())
            });
        }
        thread::sleep(random.duration_ms(0..800));
        assert!(program.is_running(), "it ended by itself");
        killed_in_parts += u32::from(are_shared(&stream, &program));
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
        "{rounds} kills, {killed_midway} of them midway, {killed_in_parts} with parts of a table in flight; {} rows copied, {} events streamed",
        judged.copied, judged.streamed
    );
    judged.assert_flawless();
    assert!(killed_midway > 0 && killed_in_parts > 0, "no kill came while rows were copied, or parts of a table");
    assert!(judged.copied > 0 && judged.streamed > 1000);
}

/// Whether several connections copy the rows of one table just now.
fn are_shared(stream: &Stream, program: &Program) -> bool {
    let status = control::status(stream, program);
    let tables = status["tables"].as_array().expect("a list");
    tables.iter().any(|table| table["connections"].as_u64().is_some_and(|connections| connections > 1))
}
