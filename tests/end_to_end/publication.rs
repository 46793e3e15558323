//! Fault 28: the publication is dropped. Servers up to 17 end the stream with an error, 18 goes on with a warning, without changes.

use crate::harness::{
    stack::Stack,
    stream::{START_TIMEOUT, Stream},
};

#[test]
fn a_publication_that_is_dropped_is_never_silence() {
    let stack = Stack::shared();
    let stream = Stream::create(&stack, "publication");
    stream.database.execute("create table public.item (id int primary key)");
    let mut program = stream.start_ready();
    stream.database.execute("insert into public.item values (1)");
    stream.drain();
    stream.database.execute(&format!("drop publication {}; insert into public.item values (2)", stream.publication));
    program.exits_with(3, "publication-missing", START_TIMEOUT);
    // A publication that is made now does not exist where the row 2 lies in the log: that row cannot be decoded with it.
    stream.refuses(&[], "publication-missing");
    assert!(
        stream.records().iter().all(|record| record.key.as_ref().is_none_or(|key| key["id"].as_deref() == Some("1")))
    );
}

#[test]
fn a_publication_that_is_not_there_is_refused() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "unpublished");
    stream.set("postgres.manage", "false");
    stream.database.execute("create table public.item (id int primary key)");
    stream.refuses(&[], "publication-missing");
}
