//! Rows that are wide, and rows that are large.

use super::{await_copied, judge::Judged};
use crate::harness::{memory::Memory, stack::Stack, stream::Stream};

/// `memory_limit` and what a process needs besides.
const MEMORY_MAX_KIB: u64 = 200 << 10;

#[test]
fn a_table_of_200_columns_is_copied() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "wide");
    stream.set("snapshot.mode", "initial");
    let list = |part: &dyn Fn(u32) -> String| (1..=200).map(part).collect::<Vec<_>>().join(", ");
    let columns = list(&|number| format!("column_{number} {}", if number % 2 == 0 { "int" } else { "text" }));
    let values = list(&|number| if number % 3 == 0 { "null".to_owned() } else { format!("n + {number}") });
    // In the middle of the others, and behind one that is gone.
    stream.database.execute(&format!(
        "create table public.item (gone int, {columns}); alter table public.item drop column gone, add primary key (column_100);
         insert into public.item select {} from generate_series(1, 1500) n",
        values.replace("n + ", "n * 1000 + ").replace("n * 1000 + 99,", "'ninety-nine',")
    ));
    let program = stream.start_ready();
    await_copied(&program);
    stream.drain();
    program.terminate();
    let judged = Judged::of_tables(&stream, &stream.records(), &["item"]);
    judged.assert_flawless();
    assert_eq!(judged.copied, 1500);
}

/// A chunk of one row is more than what may wait for the stream, while changes of the same rows take the rest.
#[test]
fn values_of_a_mebibyte_are_copied_with_the_least_memory() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "large");
    stream.set("snapshot.mode", "initial");
    stream.set("snapshot.connections", "3");
    stream.set("memory_limit", "16MiB");
    stream.set("kafka.properties", r#"{ "message.max.bytes" = "8388608" }"#);
    stream.set("kafka.topics.config", r#"{ "max.message.bytes" = "8388608" }"#);
    for table in ["first", "second", "third"] {
        stream.database.execute(&format!(
            "create table public.{table} (id int primary key, version int not null, body text);
             alter table public.{table} alter body set storage external;
             insert into public.{table} select number, 1, repeat(md5(number::text), 32768) from generate_series(1, 30) number;
             update public.{table} set body = repeat(body, 3) where id % 10 = 0"
        ));
    }
    let program = stream.start_ready();
    let memory = Memory::watch(program.id());
    for _ in 0..3 {
        stream.database.execute("update public.first set version = version + 1; update public.second set body = body || 'x' where id % 5 = 0");
    }
    await_copied(&program);
    stream.drain();
    let peak = memory.finish();
    program.terminate();
    let judged = Judged::of_tables(&stream, &stream.records(), &["first", "second", "third"]);
    println!("{} rows copied, {} events streamed, a peak of {peak} KiB", judged.copied, judged.streamed);
    judged.assert_flawless();
    assert!(peak < MEMORY_MAX_KIB, "a peak of {peak} KiB");
}

/// The place of a part has to fit into one record with those of all others.
#[test]
fn a_table_with_a_key_that_is_too_long_for_a_part_is_copied_with_one_cursor() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "long_key");
    stream.set("snapshot.mode", "initial");
    stream.set("snapshot.connections", "3");
    stream.set("snapshot.split_above", "64KiB");
    stream.database.execute(
        "create table public.named (name text primary key, version int not null, body text);
         insert into public.named select 'name ' || number, 1, repeat(md5(number::text), 3) from generate_series(1, 5000) number;
         insert into public.named values (repeat('z', 5000), 1, 'the last part ends with it')",
    );
    let program = stream.start_ready();
    await_copied(&program);
    let log = program.log();
    stream.drain();
    program.terminate();
    assert!(log.contains("copy parts of it") && log.contains("not copied in parts any more"), "{log}");
    Judged::of_tables(&stream, &stream.records(), &["named"]).copied_again().assert_flawless();
}
