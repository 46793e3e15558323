//! A table that is renamed while its changes wait has another topic, in which it does not come before itself.

use super::{BuiltIn, Level, about_to_be_refused, give_up, hold_one_back, release};
use crate::harness::{stack::Stack, stream::Stream};

/// The ids of the rows that were written to the topic of a table, sorted: there is no order between its partitions.
fn ids(stream: &Stream, table: &str) -> Vec<String> {
    let records = stream.records().into_iter().filter(|record| record.table == table);
    let rows = records.filter_map(|record| record.event.and_then(|event| event.after));
    let mut ids: Vec<String> = rows.map(|after| after["id"].clone().expect("a number")).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_table_that_is_renamed_in_quarantine_stays_behind_what_waits() {
    let stack = Stack::shared();
    let (mut stream, program) = about_to_be_refused(&stack, "quarantine_renamed");
    let (item, thing) = (stream.topic("item"), stream.topic("thing"));
    stream.database.execute("insert into public.item values (2, 'two')");
    // Whatever the policy is by the time at which the new name comes up, in one life and in the next.
    stream.database.execute("alter table public.item rename to thing; insert into public.thing values (3, 'three')");
    stream.drain();
    assert!(
        program.log().contains(&format!("its changes from before that wait for topic {item}")),
        "{}",
        program.log()
    );
    assert_eq!(program.metric("quarantined_tables"), Some(2.0));
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    BuiltIn.set(&stream, "NONE");
    stream.set("schema_registry.on_incompatible", "stop");
    stream.database.execute("alter table public.thing rename to last; insert into public.last values (4, 'four')");
    let program = stream.start_ready();
    stream.database.execute("update public.last set n = 'zwei' where id = 2");
    stream.drain();
    assert_eq!((ids(&stream, "thing"), ids(&stream, "last")), (vec![], vec![]), "they wait");
    program.terminate();
    stream.database.await_slot_released(&stream.slot);

    let said = release(&stream, &["public.last", "public.thing"], 3);
    assert!(said.contains(&format!("release or discard {item}")), "{said}");
    assert!(said.contains(&format!("release or discard {thing}")), "{said}");
    release(&stream, &["--all"], 0);
    // Its registry is the program's.
    let program = stream.start_ready();
    assert_eq!(ids(&stream, "item"), ["1", "2"]);
    assert_eq!(ids(&stream, "thing"), ["3"]);
    assert_eq!(ids(&stream, "last"), ["2", "4"]);
    stream.database.execute("insert into public.last values (5, 'five')");
    stream.drain();
    assert_eq!(ids(&stream, "last").len(), 3);
    program.terminate();
}

#[test]
fn what_is_given_up_is_in_front_of_nothing() {
    let stack = Stack::shared();
    let (stream, program) = about_to_be_refused(&stack, "quarantine_renamed_away");
    hold_one_back(&stream, program);
    stream.database.execute("alter table public.item rename to thing; insert into public.thing values (3, 'three')");
    let program = stream.start_ready();
    stream.drain();
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    give_up(&stream, "public.item");
    assert!(release(&stream, &["public.thing"], 0).contains("public.thing: 1 changes released to"));
    let program = stream.start_ready();
    assert_eq!((ids(&stream, "item"), ids(&stream, "thing")), (vec!["1".to_owned()], vec!["3".to_owned()]));
    program.terminate();
}
