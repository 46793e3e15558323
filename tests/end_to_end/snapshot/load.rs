//! What a copy does to the server it reads from: the log that it keeps, locks, its rate, the age of its snapshot; and what whoever watches it sees.

use std::time::Instant;

use super::{
    COPY_TIMEOUT,
    control::{command, state, status},
};
use crate::harness::{
    oracle::Lsn,
    stack::Stack,
    stream::{Program, Stream},
    terminal::Terminal,
    wait_until,
};

const ROWS_PER_SECOND: u32 = 1000;
/// The first chunk is read before anything is paid for, and one takes two seconds' worth of rows at most.
const CHUNK_MAX: u32 = 2 * ROWS_PER_SECOND;

/// Writes something, and waits until the slot has confirmed where the log ended then. No copy is over by that time.
fn await_confirmed(stream: &Stream) {
    let now: Lsn = stream.database.wal_lsn();
    stream.drain();
    wait_until(COPY_TIMEOUT, "the slot's position is past what was written", || {
        (stream.database.confirmed_flush_lsn(&stream.slot)? > now).then_some(())
    });
}

fn rows_copied(program: &Program) -> f64 {
    program.metric("copied_rows_total").expect("there is an endpoint")
}

/// Neither many chunks nor a long one hold log back, or more than the lock of a SELECT.
#[test]
fn a_slow_copy_holds_neither_log_nor_writers_back() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "load");
    stream.set("snapshot.rows_per_second", &ROWS_PER_SECOND.to_string());
    stream.database.execute(
        "create table public.item (id int primary key, v text); insert into public.item select number, 'v' from generate_series(1, 100000) number;
         create table public.slow (id int primary key, v text); insert into public.slow select number, 'v' from generate_series(1, 5) number;
         create function oracle.slowly(id int) returns bool language plpgsql as $$ begin perform pg_sleep(60); return true; end $$;
         analyze",
    );
    let program = stream.start_ready();

    // One statement that does not end: its transaction is open until somebody stops the copy.
    command(&stream, &program, &["start", "public.slow", "--where", "oracle.slowly(id)"]);
    let reading = "from pg_stat_activity where datname = current_database() and state = 'active' and query like 'COPY%oracle.slowly%'";
    let pid: i32 = wait_until(COPY_TIMEOUT, "rows are looked at", || {
        let pid: Option<i32> = stream.database.value(&format!("select max(pid) {reading}"));
        pid
    });
    await_confirmed(&stream);
    let locks: String = stream.database.value(&format!(
        "select coalesce(string_agg(distinct mode, ' '), '') from pg_locks where pid = {pid} and locktype = 'relation' and granted"
    ));
    assert_eq!(locks, "AccessShareLock");
    stream.database.execute("update public.slow set v = 'w'; alter table public.item set (fillfactor = 90)");
    wait_until(COPY_TIMEOUT, "the age of the snapshot is told", || {
        program.metric("snapshot_seconds").filter(|seconds| *seconds > 0.0)
    });
    assert_eq!(
        stream.database.value::<i64>(&format!("select count(*) {reading} and pid = {pid}")),
        1,
        "it is the same"
    );
    command(&stream, &program, &["stop", "public.slow"]);

    // Many chunks, as fast as they may be read.
    let (began, before) = (Instant::now(), rows_copied(&program));
    command(&stream, &program, &["start", "public.item"]);
    wait_until(COPY_TIMEOUT, "rows are copied", || (rows_copied(&program) > before).then_some(()));
    let address = program.address().expect("it listens");
    let config = stream.config_path();
    let mut terminal =
        Terminal::start(&format!("snapshot status --watch --instance {address} --config {}", config.display()));
    terminal.await_text("of about 100,000 rows");
    stream.database.execute("update public.item set v = 'w' where id % 1000 = 0");
    await_confirmed(&stream);
    let copied = rows_copied(&program) - before;
    let allowed = began.elapsed().as_secs_f64() * f64::from(ROWS_PER_SECOND) + f64::from(CHUNK_MAX);
    assert!(copied <= allowed, "{copied} rows were copied, where {allowed} may be");
    assert_eq!(state(&status(&stream, &program), "item"), "copying");
    command(&stream, &program, &["stop"]);
    let (shown, is_success) = terminal.end();
    assert!(is_success, "{shown}");
    for part in ["public.item", "%", " rows/s", "0 of 3 tables copied, 2 stopped, 1 not copied"] {
        assert!(shown.contains(part), "{part:?} was not shown: {shown:?}");
    }
    program.terminate();
}
