//! Fault 40: the schema registry is away when it is needed.

use std::time::Duration;

use crate::harness::{
    oracle::Table,
    stack::{Server, Stack},
    stream::{Program, Stream},
    wait_until,
    watcher::Watcher,
};

const TABLES: &[Table] =
    &[Table { name: "early", key: &["id"], full: false }, Table { name: "late", key: &["id"], full: false }];

fn waits_for_the_registry(program: &Program) {
    wait_until(Duration::from_mins(1), "the probe says that the stream waits for the registry", || {
        program.readiness().filter(|answer| answer.status == 503 && answer.body.contains("registry-unavailable"))
    });
}

#[test]
fn the_stream_waits_for_the_registry_and_resumes() {
    let stack = Stack::exclusive();
    let stream = Stream::create(&stack, "registry");
    stream
        .database
        .create_tables("create table public.early (id int primary key); create table public.late (id int primary key)");
    // It is away when the program starts: nothing needs it before the first row.
    stack.kill(Server::Registry);
    let mut program = stream.start_ready();
    stream.database.execute("insert into public.early values (1)");
    waits_for_the_registry(&program);
    stack.start(Server::Registry);
    stream.drain();
    program.await_ready();

    // It is away when a table has its first row. What comes behind that row waits with it, and PostgreSQL is told nothing.
    let watcher = Watcher::start(&stream);
    stack.kill(Server::Registry);
    stream.database.execute("insert into public.early values (2)");
    stream.database.execute("insert into public.late values (1)");
    let late = stream.database.wal_lsn();
    stream.database.execute("insert into public.early values (3)");
    waits_for_the_registry(&program);
    assert!(stream.database.confirmed_flush_lsn(&stream.slot) < Some(late));
    stack.start(Server::Registry);
    stream.drain();
    program.await_ready();
    program.terminate();
    watcher.finish();
    let (_, verdict) = stream.judge(TABLES);
    verdict.assert_flawless();
}
