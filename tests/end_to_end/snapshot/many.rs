//! Tables that are many, and mostly empty.
//!
//! `PGSLUICE_TEST_SNAPSHOT_TABLES` is how many. What each step took is printed; nothing but the memory is asserted of it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::harness::{kafka, memory::Memory, setting, stack::Stack, stream::Stream, wait_until};

/// `memory_limit` and what a process needs besides; and what it holds of each table.
const MEMORY_MAX_KIB: u64 = 128 << 10;
const TABLE_MAX_KIB: u64 = 30;
const TIMEOUT: Duration = Duration::from_mins(30);

/// Each has its rows once, and a change after that.
#[test]
fn many_tables_are_copied_and_streamed() {
    let tables = u32::try_from(setting("PGSLUICE_TEST_SNAPSHOT_TABLES", 300)).expect("a count");
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "many");
    stream.set("snapshot.mode", "initial");
    stream.set("kafka.topics.partitions", "1");
    stream.database.execute(&format!(
        "do $$ begin for n in 1..{tables} loop
             execute format('create table public.tiny_%s (id int primary key, v text)', n);
             execute format('insert into public.tiny_%s select number, %L from generate_series(1, %s) number', n, n, n % 4);
             if n % 100 = 0 then commit; end if;
         end loop; end $$"
    ));
    let began = Instant::now();
    let mut program = stream.start();
    let memory = Memory::watch(program.id());
    program.await_ready_within(TIMEOUT);
    println!("{tables} tables: streaming after {:?}", began.elapsed());
    let began = Instant::now();
    wait_until(TIMEOUT, "every table is copied", || {
        assert!(program.is_running(), "it has ended");
        // The log is long by then.
        let is_over = program.metric("tables_to_copy")? == 0.0;
        (is_over && program.log().contains("every table is copied")).then_some(())
    });
    let took = began.elapsed();
    println!("copied after {took:?}, {:.1} tables/s", f64::from(tables) / took.as_secs_f64());
    let began = Instant::now();
    stream.database.execute(&format!(
        "do $$ begin for n in 1..{tables} loop
             execute format('insert into public.tiny_%s values (100, %L)', n, n);
             if n % 100 = 0 then commit; end if;
         end loop; end $$"
    ));
    stream.drain_within(TIMEOUT);
    let took = began.elapsed();
    println!("a change in each after {took:?}, {:.1} tables/s", f64::from(tables) / took.as_secs_f64());
    let peak = memory.finish();
    println!("a peak of {peak} KiB");
    program.terminate();

    let prefix = format!("{}.public.tiny_", stream.name);
    let mut found: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
    kafka::read_many_to_end(
        &stream.bootstrap_servers,
        |topic| topic.starts_with(&prefix),
        |message| {
            use rdkafka::Message;
            let table = message.topic()[prefix.len()..].parse().expect("a number");
            // Behind the magic byte and the schema's id there is one zigzag number, of one byte or two.
            let key = match message.key().expect("a key") {
                [0, _, _, _, _, low] => i64::from(low / 2),
                [0, _, _, _, _, low, high] => i64::from((u16::from(low & 0x7f) | u16::from(*high) << 7) / 2),
                other => panic!("{other:?}"),
            };
            found.entry(table).or_default().push(key);
        },
    );
    for table in 1..=tables {
        let rows = i64::from(table % 4);
        let expected: Vec<i64> = (1..=rows).chain([100]).collect();
        assert_eq!(found.remove(&table), Some(expected), "table {table}");
    }
    assert!(found.is_empty(), "{found:?}");
    assert!(peak < MEMORY_MAX_KIB + u64::from(tables) * TABLE_MAX_KIB, "a peak of {peak} KiB");
}
