//! A stream begins where another program has stopped, as docs/migrating-from-debezium.md has it: no change behind the slot is lost, none comes
//! twice, and no row of before is copied.
//!
//! The other program is a slot here that is read from with SQL: what it has read and confirmed, the new stream must not have.

use std::collections::BTreeMap;

use crate::{
    harness::{
        stack::Stack,
        stream::{Program, Stream},
    },
    snapshot::await_copied,
};

const PAGE: &str = include_str!("../../docs/migrating-from-debezium.md");

const CREATE: &str = "SELECT pg_create_logical_replication_slot('pgsluice_shop', 'pgoutput');";
const COPY: &str = "SELECT pg_copy_logical_replication_slot('debezium', 'pgsluice_shop');";

/// A stream that would copy rows of before if it were one that begins.
fn stream(label: &str) -> Stream {
    let mut stream = Stream::create(&Stack::shared(), label);
    stream.set("snapshot.mode", "initial");
    stream.database.create_tables("create table public.item (id int primary key, note text)");
    stream
}

/// Runs a statement that the page shows, with the names of this stream in the place of the page's.
fn run_as_shown(stream: &Stream, statement: &str, old_slot: &str) {
    assert!(PAGE.contains(statement), "the page shows something else than {statement}");
    let statement = statement.replace("'pgsluice_shop'", &format!("'{}'", stream.slot));
    stream.database.execute(&statement.replace("'debezium'", &format!("'{old_slot}'")));
}

fn adopt(stream: &Stream) -> Program {
    let mut program = stream.start_with(&["--adopt-slot"], &[]);
    program.await_ready();
    // What would be copied is, by then.
    await_copied(&program);
    program
}

/// The operations on each row that are in Kafka.
fn operations(stream: &Stream) -> BTreeMap<String, String> {
    let mut operations = BTreeMap::<String, String>::new();
    for record in stream.records().into_iter().filter(|record| record.table == "item") {
        if let Some(event) = record.event {
            let row = event.after.or(event.before).expect("a row");
            let id = row["id"].clone().expect("a key");
            operations.entry(id).or_default().push_str(&event.operation);
        }
    }
    operations
}

fn expected<const N: usize>(rows: [(&str, &str); N]) -> BTreeMap<String, String> {
    rows.into_iter().map(|(id, operations)| (id.to_owned(), operations.to_owned())).collect()
}

#[test]
fn with_a_pause_nothing_is_lost_and_nothing_comes_twice() {
    let stream = stream("migration_pause");
    // What the other one has delivered.
    stream.database.execute("insert into public.item values (1, 'a'), (2, 'b')");
    let made = stream.command(&["setup", "--apply"], &[("PGSLUICE_SETUP_URL", &stream.database.url)]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    run_as_shown(&stream, CREATE, "");
    stream.database.execute("insert into public.item values (3, 'c')");
    stream.database.execute("update public.item set note = 'd' where id = 1");
    let program = adopt(&stream);
    stream.database.execute("delete from public.item where id = 2");
    stream.drain();
    program.terminate();
    // The next start needs nobody's word.
    let program = stream.start_ready();
    stream.database.execute("update public.item set note = 'e' where id = 3");
    stream.drain();
    program.terminate();
    assert_eq!(operations(&stream), expected([("1", "u"), ("2", "d"), ("3", "cu")]));

    // The way back, and over again: what the other one has written meanwhile is not written here.
    stream.database.execute(&format!("select pg_drop_replication_slot('{}')", stream.slot));
    stream.database.execute("insert into public.item values (4, 'f')");
    run_as_shown(&stream, CREATE, "");
    stream.database.execute("insert into public.item values (5, 'g')");
    stream.refuses(&[], "slot-ahead-of-checkpoint");
    let mut program = stream.start_with(&["--accept-gap"], &[]);
    program.await_ready();
    stream.drain();
    program.terminate();
    assert_eq!(operations(&stream), expected([("1", "u"), ("2", "d"), ("3", "cu"), ("5", "c")]));
}

#[test]
fn from_a_copied_slot_nothing_is_lost() {
    let mut stream = stream("migration_copy");
    "dbz_publication".clone_into(&mut stream.publication);
    stream.set("postgres.publication", "dbz_publication");
    let old_slot = format!("debezium_{}", stream.name);
    stream.database.execute("create publication dbz_publication for all tables");
    stream.database.execute(&format!("select pg_create_logical_replication_slot('{old_slot}', 'pgoutput')"));
    stream.database.execute("insert into public.item values (1, 'a')");
    stream.database.execute(&format!(
        "select count(*) from pg_logical_slot_get_binary_changes('{old_slot}', null, null, 'proto_version', '1', 'publication_names', 'dbz_publication')"
    ));
    let confirmed = stream.database.confirmed_flush_lsn(&old_slot);
    // What it may have delivered, and has not confirmed, comes again.
    stream.database.execute("insert into public.item values (2, 'b')");
    run_as_shown(&stream, COPY, &old_slot);
    let program = adopt(&stream);
    stream.database.execute("update public.item set note = 'c' where id = 1");
    stream.drain();
    program.terminate();
    assert_eq!(operations(&stream), expected([("1", "u"), ("2", "c")]));
    assert_eq!(stream.database.confirmed_flush_lsn(&old_slot), confirmed, "the old slot stays for the way back");
    assert!(confirmed.is_some());
}
