//! The server removes log that the slot still needs.

use std::{collections::BTreeSet, time::Duration};

use crate::harness::{
    stack::Stack,
    stream::{START_TIMEOUT, Stream},
    wait_until,
};

/// A limit of the log that slots may keep, for as long as it lives: the server is shared.
struct SlotLimit<'a>(&'a Stream);

impl<'a> SlotLimit<'a> {
    fn set(stream: &'a Stream) -> Self {
        let limit = Self(stream);
        stream.database.execute("alter system set max_slot_wal_keep_size = '1MB'");
        stream.database.execute("select pg_reload_conf()");
        limit
    }
}

impl Drop for SlotLimit<'_> {
    fn drop(&mut self) {
        self.0.database.execute("alter system reset max_slot_wal_keep_size");
        self.0.database.execute("select pg_reload_conf()");
    }
}

/// Returns what asks for the slot's status.
fn lose_slot(stream: &Stream) -> String {
    let limit = SlotLimit::set(stream);
    let status = format!("select wal_status from pg_replication_slots where slot_name = '{}'", stream.slot);
    wait_until(Duration::from_mins(1), "the slot is lost", || {
        // A segment is kept or removed as a whole, at the server's own checkpoints.
        stream.database.execute("select pg_switch_wal(); checkpoint");
        stream
            .database
            .execute("insert into oracle.journal(relation, operation) select 'filler', 'INSERT' where false");
        stream.database.execute("create table oracle.filler (); drop table oracle.filler");
        (stream.database.value::<String>(&status) == "lost").then_some(())
    });
    drop(limit);
    status
}

/// Whether it dies before the lost slot is dropped or not, what was deleted meanwhile is gone from the topic.
#[test]
fn a_slot_that_was_invalidated_is_replaced_where_that_is_asked_for() {
    let stack = Stack::exclusive();
    let mut stream = Stream::create(&stack, "replaced");
    stream.set("snapshot.mode", "when_needed");
    stream.database.execute("create table public.item (id int primary key); insert into public.item values (1), (2)");
    let program = stream.start_ready();
    wait_until(START_TIMEOUT, "the table is copied", || program.log().contains("every table is copied").then_some(()));
    stream.drain();
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    stream.database.execute("delete from public.item where id = 1; insert into public.item values (3)");
    let status = lose_slot(&stream);
    let mut program = stream.start_with(&[], &[("PGSLUICE_FAULT", "slot-announced:1")]);
    program.wait(START_TIMEOUT, "it dies where it is told");
    assert_eq!(stream.database.value::<String>(&status), "lost");
    let program = stream.start_ready();
    assert!(program.log().contains("slot-lost") && program.log().contains("dropped the slot"), "{}", program.log());
    wait_until(START_TIMEOUT, "the table is copied", || program.log().contains("every table is copied").then_some(()));
    stream.drain();
    program.terminate();
    let mut rows = BTreeSet::new();
    for record in stream.records().into_iter().filter(|record| record.table == "item") {
        let event = record.event.expect("none is deleted as far as anybody has seen");
        if event.operation == "t" {
            rows.retain(|(partition, _)| *partition != record.partition);
        } else {
            rows.insert((record.partition, event.after.expect("a row")["id"].clone().expect("a number")));
        }
    }
    let ids: BTreeSet<_> = rows.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, ["2", "3"].map(str::to_owned).into());
}

#[test]
fn a_slot_that_was_invalidated_is_refused() {
    // No other test's slot may be there to be lost.
    let stack = Stack::exclusive();
    let stream = Stream::create(&stack, "lost");
    stream.database.create_tables("create table public.item (id int primary key, value text)");
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (1)");
    stream.drain();
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    stream.database.execute("insert into public.item values (2)");

    let status = lose_slot(&stream);
    stream.refuses(&[], "slot-lost");
    stream.refuses(&["--adopt-slot"], "slot-lost");
    stream.refuses(&["--accept-gap"], "slot-lost");
    assert_eq!(stream.database.value::<String>(&status), "lost", "nobody has made the slot anew");

    // As the message says: drop the slot, and go on behind the gap with the operator's word.
    stream.database.execute(&format!("select pg_drop_replication_slot('{}')", stream.slot));
    stream.refuses(&[], "slot-missing");
    let mut program = stream.start_with(&["--accept-gap"], &[]);
    program.await_ready_within(START_TIMEOUT);
    stream.database.execute("insert into public.item values (3)");
    stream.drain();
    program.terminate();
    let records = stream.records();
    let mut ids: Vec<_> = records
        .iter()
        .filter(|record| record.table == "item")
        .filter_map(|record| record.key.as_ref()?["id"].clone())
        .collect();
    ids.sort();
    assert_eq!(ids, ["1", "3"], "the row 2 is what was lost");
}
