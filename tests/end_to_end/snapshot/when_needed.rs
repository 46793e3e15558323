//! `snapshot.mode = "when_needed"`: a stream whose slot is gone, or is not where it was, begins anew, and no row that was deleted meanwhile stays.

use std::{collections::BTreeMap, thread};

use super::{COPY_TIMEOUT, await_copied, control, signals};
use crate::harness::{
    event::Record,
    oracle::Row,
    random::Random,
    stack::Stack,
    stream::{START_TIMEOUT, Stream},
    topics::Topics,
    wait_until,
};

const TABLES: [&str; 2] = ["item", "bare"];

fn create(stack: &Stack, label: &str) -> Stream {
    let mut stream = Stream::create(stack, label);
    stream.set("snapshot.mode", "when_needed");
    stream.database.execute(
        "create table public.item (id int primary key, note text);
         insert into public.item select number, 'first' from generate_series(1, 3000) number;
         create table public.bare (kind text); alter table public.bare replica identity full;
         insert into public.bare select 'kind ' || number % 10 from generate_series(1, 3000) number",
    );
    let program = stream.start_ready();
    await_copied(&program);
    stream.drain();
    program.terminate();
    stream.database.await_slot_released(&stream.slot);
    stream
}

/// What is done while nobody streams, for the n-th time.
fn change(stream: &Stream, time: u32) {
    stream.database.execute(&format!(
        "delete from public.item where id % 17 = {time}; update public.item set note = 'gap {time}' where id % 19 = {time};
         insert into public.item values ({time} + 10000, 'new');
         delete from public.bare where ctid in (select ctid from public.bare where kind = 'kind {time}' limit 100);
         insert into public.bare select 'gap {time}' from generate_series(1, 20)"
    ));
}

fn drop_slot(stream: &Stream) {
    stream.database.await_slot_released(&stream.slot);
    stream.database.execute(&format!("select pg_drop_replication_slot('{}')", stream.slot));
}

/// What a consumer makes of a topic, for whom an event that a table was emptied is about its partition: how often each row is there.
fn fold(records: &[Record], table: &str) -> BTreeMap<Row, i64> {
    let mut keyed: BTreeMap<(i32, &Row), &Row> = BTreeMap::new();
    let mut counts: BTreeMap<(i32, &Row), i64> = BTreeMap::new();
    for record in records.iter().filter(|record| record.table == table) {
        let Some(event) = &record.event else { continue };
        if event.operation == "t" {
            keyed.retain(|(partition, _), _| *partition != record.partition);
            counts.retain(|(partition, _), _| *partition != record.partition);
        } else if let Some(key) = &record.key {
            let place = (record.partition, key);
            match &event.after {
                Some(row) => drop(keyed.insert(place, row)),
                None => drop(keyed.remove(&place)),
            }
        } else {
            for (row, change) in event.before.iter().map(|row| (row, -1)).chain(event.after.iter().map(|row| (row, 1)))
            {
                *counts.entry((record.partition, row)).or_default() += change;
            }
        }
    }
    let mut folded: BTreeMap<Row, i64> = BTreeMap::new();
    for (row, count) in
        keyed.into_values().map(|row| (row, 1)).chain(counts.into_iter().map(|((_, row), count)| (row, count)))
    {
        assert!(count >= 0, "{table}: {row:?} was gone before it was there");
        *folded.entry(row.clone()).or_default() += count;
    }
    folded.retain(|_, count| *count != 0);
    folded
}

fn assert_folds_are_the_tables(stream: &Stream, records: &[Record]) {
    for (table, rows) in stream.database.history(&TABLES).contents {
        let mut expected: BTreeMap<Row, i64> = BTreeMap::new();
        for row in rows {
            *expected.entry(row).or_default() += 1;
        }
        let folded = fold(records, &table);
        let odd: Vec<_> = folded.iter().filter(|(row, count)| expected.get(*row) != Some(count)).take(3).collect();
        let missing: Vec<_> = expected.iter().filter(|(row, count)| folded.get(*row) != Some(count)).take(3).collect();
        assert!(odd.is_empty() && missing.is_empty(), "{table}: there are {odd:?}, and should be {missing:?}");
    }
}

fn emptied(records: &[Record], table: &str) -> usize {
    let of_table = records.iter().filter(|record| record.table == table);
    of_table.filter(|record| record.event.as_ref().is_some_and(|event| event.operation == "t")).count()
}

#[test]
fn a_stream_that_can_go_on_is_not_begun_anew() {
    let stack = Stack::shared();
    let stream = create(&stack, "needless");
    change(&stream, 1);
    let program = stream.start_ready();
    await_copied(&program);
    stream.drain();
    assert_eq!(program.metric("begun_anew_total"), Some(0.0));
    program.terminate();
    let records = stream.records();
    assert_folds_are_the_tables(&stream, &records);
    assert_eq!(
        TABLES.map(|table| (emptied(&records, table), control::copied(&records, table))),
        [(0, 3000), (0, 3000)]
    );
}

/// It dies where the slot is announced, where it is created, and while rows are copied; rows are deleted each time.
#[test]
fn rows_that_were_deleted_in_the_gap_are_gone_whenever_it_is_killed() {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let mut stream = create(&stack, "needed");
    change(&stream, 1);
    drop_slot(&stream);
    change(&stream, 2);
    stream.set("snapshot.rows_per_second", "1000");
    for (time, fault) in [(3, "slot-announced:1"), (4, "slot-created:1")] {
        let mut program = stream.start_with(&[], &[("PGSLUICE_FAULT", fault)]);
        program.wait(START_TIMEOUT, "it dies where it is told");
        assert_eq!(
            program.log().contains("BEGINNING ANEW"),
            time == 3,
            "the second start knows what is to be done: {}",
            program.log()
        );
        change(&stream, time);
    }
    let program = stream.start_ready();
    wait_until(COPY_TIMEOUT, "rows are copied", || (program.metric("copied_rows_total")? > 0.0).then_some(()));
    change(&stream, 5);
    thread::sleep(random.duration_ms(0..1500));
    program.kill();
    change(&stream, 6);
    stream.set("snapshot.rows_per_second", "1000000");
    let program = stream.start_ready();
    await_copied(&program);
    change(&stream, 7);
    stream.drain();
    program.terminate();
    let records = stream.records();
    assert_folds_are_the_tables(&stream, &records);
    assert_eq!(emptied(&records, "item"), 3, "in each partition, once");
}

#[test]
fn a_slot_that_has_passed_the_checkpoint_is_taken_as_it_is() {
    let stack = Stack::shared();
    let mut stream = create(&stack, "passed");
    stream.set("snapshot.notification_topic", &format!("notifications-of-{}", stream.name));
    change(&stream, 1);
    stream.database.execute(&format!("select pg_replication_slot_advance('{}', pg_current_wal_lsn())", stream.slot));
    change(&stream, 2);
    let program = stream.start_ready();
    await_copied(&program);
    stream.drain();
    assert!(program.log().contains("slot-ahead"), "{}", program.log());
    assert_eq!(program.metric("begun_anew_total"), Some(1.0));
    program.terminate();
    let records = stream.records();
    assert_folds_are_the_tables(&stream, &records);
    assert_eq!(emptied(&records, "item"), 3);
    let told = signals::told(&stream);
    assert!(told.iter().any(|(happened, ..)| happened == "BEGUN_ANEW"), "{told:?}");
}

#[test]
fn where_a_topic_cannot_be_emptied_nothing_is_begun() {
    let stack = Stack::shared();
    let mut stream = create(&stack, "needed_not");
    drop_slot(&stream);
    for (key, value, says) in [
        ("events.skip", "truncate", "events.skip has truncate"),
        ("events.skip", "read", "events.skip has read"),
        ("events.envelope", "upsert", "have no record for TRUNCATE"),
    ] {
        stream.set(key, value);
        let mut program = stream.start();
        program.exits_with(3, "slot-missing", START_TIMEOUT);
        assert!(program.log().contains("cannot begin anew") && program.log().contains(says), "{}", program.log());
        stream.unset(key);
    }
    let topic = stream.topic("item");
    Topics::of(&stream.bootstrap_servers).configure(&topic, "cleanup.policy", "compact");
    let mut program = stream.start();
    program.exits_with(3, "slot-missing", START_TIMEOUT);
    assert!(program.log().contains(&format!("topic {topic} is compacted")), "{}", program.log());
    Topics::of(&stream.bootstrap_servers).configure(&topic, "cleanup.policy", "delete");
    let program = stream.start_ready();
    await_copied(&program);
    stream.drain();
    program.terminate();
    assert_folds_are_the_tables(&stream, &stream.records());
}
