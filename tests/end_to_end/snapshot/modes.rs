//! `snapshot.mode` other than `initial` and `never`.

use super::{COPY_TIMEOUT, await_copied, create, judge::Judged};
use crate::harness::{event::Record, stack::Stack, stream::Stream};

/// The rows of the three tables that were copied.
fn copied(records: &[Record]) -> usize {
    let of_tables = records.iter().filter(|record| record.table != "marker");
    of_tables.filter(|record| record.event.as_ref().is_some_and(|event| event.operation == "r")).count()
}

fn run_to_its_end(stream: &Stream) {
    let mut program = stream.start();
    let status = program.wait(COPY_TIMEOUT, "it ends by itself once everything is copied");
    assert!(status.success(), "it ended with {status}");
}

#[test]
fn initial_only_ends_once_everything_is_copied() {
    let stack = Stack::shared();
    let mut stream = create(&stack, "only", 2000);
    stream.set("snapshot.mode", "initial_only");
    run_to_its_end(&stream);
    assert_eq!(copied(&stream.records()), 6000);
    stream.database.execute("update public.item set version = version + 1, note = 'second' where id <= 10");
    // Nothing is left to copy, and a table that is new is.
    stream
        .database
        .execute("create table public.late (id bigint primary key); insert into public.late values (1), (2)");
    run_to_its_end(&stream);
    assert_eq!(copied(&stream.records()), 6002);
    // One that cannot be copied is not passed over.
    stream.set("events.skip", "truncate");
    stream.database.execute("create table public.loose (v int); alter table public.loose replica identity full; insert into public.loose values (1)");
    let mut program = stream.start();
    program.exits_with(3, "snapshot-incomplete", COPY_TIMEOUT);
    assert!(program.log().contains("public.loose"));
    stream.database.execute("drop table public.loose");
    // What was written meanwhile is streamed by whoever goes on.
    stream.set("snapshot.mode", "initial");
    let program = stream.start_ready();
    stream.drain();
    program.terminate();
    let judged = Judged::of(&stream, &stream.records());
    judged.assert_flawless();
}

#[test]
fn always_copies_everything_at_each_start() {
    let stack = Stack::shared();
    let mut stream = create(&stack, "always", 1000);
    stream.set("snapshot.mode", "always");
    for starts in 1..=2 {
        let program = stream.start_ready();
        await_copied(&program);
        stream.drain();
        program.terminate();
        assert_eq!(copied(&stream.records()), starts * 3000);
        stream.database.execute(
            "update public.item set version = version + 1, note = 'second' where id % 3 = 0; delete from public.pair where number % 7 = 0;
             insert into public.pair select chr(97 + number % 20), number, oracle.next_version(), null, null from generate_series(1, 1000) number
                 on conflict do nothing",
        );
    }
    let program = stream.start_ready();
    await_copied(&program);
    stream.drain();
    program.terminate();
    Judged::of(&stream, &stream.records()).copied_again().assert_flawless();
}
