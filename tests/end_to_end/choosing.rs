//! What is left out: tables, with their partitions.

use std::collections::BTreeSet;

use crate::harness::{stack::Stack, stream::Stream};

/// The tables of which there are records.
fn tables(stream: &Stream) -> BTreeSet<String> {
    stream.records().into_iter().map(|record| record.table).filter(|table| table != "marker").collect()
}

#[test]
fn a_table_that_is_left_out_is_neither_published_nor_streamed() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "left_out");
    stream.database.execute(
        "create table public.item (id int primary key); create table public.tmp_item (id int primary key);
         create table public.events (id int primary key) partition by range (id);
         create table public.events_old partition of public.events for values from (0) to (10);
         create table public.events_new partition of public.events for values from (10) to (20)",
    );
    stream.set("postgres.exclude_tables", "public.tmp_*, public.events_old");
    // Rows of both partitions would come under one name.
    stream.start().exits_with(2, "config-invalid", crate::harness::stream::START_TIMEOUT);
    stream.set("postgres.publish_via_partition_root", "false");
    let program = stream.start_ready();
    let insert = "insert into public.item values (1); insert into public.tmp_item values (1);
                  insert into public.events values (1), (11)";
    stream.database.execute(insert);
    stream.drain();
    program.terminate();
    let expected = BTreeSet::from(["item".to_owned(), "events_new".to_owned()]);
    assert_eq!(tables(&stream), expected);
    let published =
        "select string_agg(tablename, ' ' order by tablename) from pg_publication_tables where pubname = $1";
    let published: String =
        stream.database.client().query_one(published, &[&stream.publication]).expect("a row").get(0);
    assert_eq!(published, "events_new events_old item marker", "a partition is published with its root");

    // In a publication of all tables they are, and still nothing of them comes to Kafka.
    let name = &stream.publication;
    stream.database.execute(&format!("alter publication {name} add table public.tmp_item"));
    stream.set("postgres.manage", "false");
    let program = stream.start_ready();
    stream.database.execute("insert into public.tmp_item values (2); insert into public.events values (2)");
    stream.drain();
    program.terminate();
    assert_eq!(tables(&stream), expected);
}
