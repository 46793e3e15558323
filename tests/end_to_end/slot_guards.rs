//! The slot is dropped and created again, or moved by hand: it is not where the program has left it.

use crate::harness::{event::Record, stack::Stack, stream::Stream};

/// A stream that has sent the row 1 and was stopped, with the row 2 written since.
fn stopped_stream(stack: &Stack, label: &str) -> Stream {
    let stream = Stream::create(stack, label);
    stream.database.execute("create table public.item (id int primary key)");
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (1)");
    stream.drain();
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    stream.database.execute("insert into public.item values (2)");
    stream
}

/// With the operator's word the stream goes on behind the gap: the row 3 comes, and the row 2 is what was lost.
fn goes_on_behind_the_gap(stream: &Stream) {
    let mut program = stream.start_with(&["--accept-gap"], &[]);
    program.await_ready();
    stream.database.execute("insert into public.item values (3)");
    stream.drain();
    program.terminate();
    assert_eq!(ids(&stream.records()), ["1", "3"]);
    // The word was for that start; it is not needed for the next.
    stream.start_ready().terminate();
}

fn ids(records: &[Record]) -> Vec<String> {
    let items = records.iter().filter(|record| record.table == "item");
    let mut ids: Vec<_> = items.filter_map(|record| record.key.as_ref()?["id"].clone()).collect();
    ids.sort();
    ids
}

#[test]
fn a_slot_that_was_recreated_is_refused() {
    let stack = Stack::shared();
    let stream = stopped_stream(&stack, "recreated");
    stream.database.execute(&format!(
        "select pg_drop_replication_slot('{0}'); select pg_create_logical_replication_slot('{0}', 'pgoutput')",
        stream.slot
    ));
    stream.refuses(&[], "slot-ahead-of-checkpoint");
    stream.refuses(&["--adopt-slot"], "slot-ahead-of-checkpoint");
    goes_on_behind_the_gap(&stream);
}

#[test]
fn a_slot_that_was_dropped_is_refused() {
    let stack = Stack::shared();
    let stream = stopped_stream(&stack, "dropped");
    stream.database.execute(&format!("select pg_drop_replication_slot('{}')", stream.slot));
    stream.refuses(&[], "slot-missing");
    goes_on_behind_the_gap(&stream);
}

#[test]
fn a_slot_that_was_advanced_is_refused() {
    let stack = Stack::shared();
    let stream = stopped_stream(&stack, "advanced");
    stream.database.execute(&format!("select pg_replication_slot_advance('{}', pg_current_wal_lsn())", stream.slot));
    stream.refuses(&[], "slot-ahead-of-checkpoint");
    goes_on_behind_the_gap(&stream);
}

#[test]
fn a_slot_that_is_dropped_while_the_stream_is_cut_off_is_refused() {
    let stack = Stack::shared();
    let stream = stopped_stream(&stack, "cut_off");
    let mut program = stream.start_ready();
    // Between the two statements the program may connect again: then the slot is active, and the drop is tried again.
    let cut_off = format!(
        "do $$ declare dropped boolean := false; begin
            while not dropped loop
                perform pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{0}' and active;
                begin
                    perform pg_drop_replication_slot('{0}');
                    dropped := true;
                exception when object_in_use then null;
                end;
            end loop;
        end $$",
        stream.slot
    );
    stream.database.execute(&cut_off);
    program.exits_with(3, "slot-missing", crate::harness::stream::START_TIMEOUT);
}

#[test]
fn a_slot_of_another_plugin_is_refused() {
    let stack = Stack::shared();
    let stream = Stream::create(&stack, "plugin");
    stream.database.execute("create table public.item (id int primary key)");
    stream.database.execute(&format!("select pg_create_physical_replication_slot('{}')", stream.slot));
    stream.refuses(&["--adopt-slot", "--accept-gap"], "slot-unfit");
    stream.database.execute(&format!("select pg_drop_replication_slot('{}')", stream.slot));
}
