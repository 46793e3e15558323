//! What is left out or hidden: tables with their partitions, columns, values.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use rdkafka::{Message, message::Headers};

use crate::harness::{
    event::Record,
    kafka,
    stack::Stack,
    stream::{START_TIMEOUT, Stream},
    wait_until,
};

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
    stream.start().exits_with(2, "config-invalid", START_TIMEOUT);
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

/// What is hidden is in no record and no line of the log, under whichever name and in whichever way it comes.
#[test]
fn a_hidden_value_leaves_no_trace() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "hidden");
    stream.set("postgres.publish_via_partition_root", "false");
    stream.set("log.level", "trace");
    stream.set("columns.exclude", "public.person.password");
    stream.set("columns.hash_salt", "salt-of-the-test");
    stream.set(
        "columns.masks",
        r#"[{ columns = "public.person.email", mask = "hash" }, { columns = "public.person.pin", mask = "asterisks" },
            { columns = "public.person.name", mask = "truncate", characters = 3 }]"#,
    );
    // The rules are about the root, and the rows come under the names of its leaves, of which one is gone when they are decoded.
    stream.database.execute(
        "create table public.person (email text primary key, name text, pin int, password text not null default 'HUSHdefault')
             partition by hash (email);
         create table public.person_0 partition of public.person for values with (modulus 2, remainder 0);
         create table public.person_1 partition of public.person for values with (modulus 2, remainder 1);
         alter table public.person_0 replica identity full",
    );
    let program = stream.start_ready();
    stream.drain();
    let write =
        "insert into public.person select 'HUSH' || i, 'Zoë HUSH', 1707070707, 'HUSH' || i from generate_series(1, 20) i;
                 update public.person set password = 'HUSHnew', pin = 1808080808;
                 update public.person set email = email || 'moved';
                 delete from public.person where email like '%1moved'";
    stream.database.execute(write);
    stream.drain();
    program.signal("STOP");
    stream.database.execute(
        "alter table public.person_1 add check (true); update public.person set pin = 1909090909; drop table public.person",
    );
    program.signal("CONT");
    stream.drain();
    let log = program.log();
    program.terminate();
    let records: Vec<_> = stream.records().into_iter().filter(|record| record.table.starts_with("person_")).collect();
    assert!(records.len() > 100, "{}", records.len());
    let mut hashes = BTreeSet::new();
    for record in &records {
        let text = format!("{record:?}");
        for hidden in ["HUSH", "1707070707", "1808080808", "1909090909", "password"] {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
        hashes.insert(record.key.as_ref().expect("it has a key")["email"].clone().expect("it is not null"));
    }
    // PostgreSQL hashes on its own.
    let sql = "select encode(sha256(convert_to('salt-of-the-test' || 'HUSH' || i || moved, 'UTF8')), 'hex')
               from generate_series(1, 20) i, (values (''), ('moved')) ending(moved)";
    let expected = stream.database.client().query(sql, &[]).expect("the server answers");
    assert_eq!(hashes, expected.iter().map(|row| row.get(0)).collect());
    let text = format!("{records:?}");
    assert!(text.contains("*****") && text.contains("\"Zoë\""), "{}", &text[..2000]);
    // They are long, since a moment in a log has six digits of its second.
    for hidden in ["HUSH", "1707070707", "1808080808", "1909090909", "salt-of-the-test"] {
        assert!(!log.contains(hidden), "{hidden} is in the log");
    }
}

/// A dead letter is raw, a header and a JSON text are other ways out.
#[test]
fn a_hidden_value_is_in_no_dead_letter_no_header_and_no_upsert() {
    let stack = Stack::shared();
    // The deletion of an upsert says the key alone, for which there is room.
    for (envelope, format, expected) in [("debezium", "avro", 3), ("upsert", "json", 2)] {
        let mut stream = Stream::create(&stack, "buried");
        stream.set("events.envelope", envelope);
        stream.set("events.format", format);
        stream.set("events.unrepresentable", "skip_to_dead_letter");
        stream.set("events.headers", "op, schema, table, transaction_id");
        stream.set("log.level", "trace");
        stream.set("columns.exclude", "public.person.password");
        stream.set("columns.hash_salt", "salt");
        stream.set(
            "columns.masks",
            r#"[{ columns = "public.person.email", mask = "hash" }, { columns = "public.person.name", mask = "asterisks" }]"#,
        );
        stream.database.execute(
            "create table public.person (email text primary key, name text, password text, amount numeric(6,2));
             alter table public.person replica identity full; alter table public.person alter name set storage external",
        );
        let program = stream.start_ready();
        stream.database.execute(
            "insert into public.person values ('HUSH1', repeat('HUSH', 2000), 'HUSH', 1), ('HUSH2', 'HUSH', 'HUSH', 'NaN');
             update public.person set email = email || 'moved'; update public.person set amount = 2 where amount = 1;
             delete from public.person",
        );
        let letters = format!("{}.dead-letters", stream.topic("person"));
        wait_until(START_TIMEOUT, "the dead letters", || {
            let found = Cell::new(0);
            kafka::read_to_end(&stream.bootstrap_servers, |topic| topic == letters, |_| found.set(found.get() + 1));
            (found.get() == expected).then_some(())
        });
        let log = program.log();
        program.terminate();
        let hidden = |bytes: &[u8]| bytes.windows(4).any(|part| part == b"HUSH");
        let seen = Cell::new(0);
        kafka::read_to_end(
            &stream.bootstrap_servers,
            |topic| topic.starts_with(&stream.topic("person")),
            |message| {
                let headers =
                    message.headers().map(|headers| headers.iter().filter_map(|it| it.value).collect::<Vec<_>>());
                for part in headers.unwrap_or_default().into_iter().chain(message.key()).chain(message.payload()) {
                    assert!(!hidden(part), "{}", String::from_utf8_lossy(part));
                }
                seen.set(seen.get() + 1);
            },
        );
        assert!(seen.get() > 6, "{} records", seen.get());
        assert!(!hidden(log.as_bytes()), "it is in the log");
    }
}

#[test]
fn a_key_column_that_is_left_out_stops_the_stream() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "keyless_rule");
    stream.set("columns.exclude", "public.item.code");
    let said = "column \\\"code\\\" of public.item is part of the key";
    stream.database.execute("create table public.item (id int not null, code int primary key)");
    let mut program = stream.start();
    program.exits_with(3, "column-rule-unfit", START_TIMEOUT);
    assert!(program.log().contains(said), "a first start refuses it: {}", program.log());
    stream.database.execute("alter table public.item drop constraint item_pkey, add primary key (id)");
    program = stream.start_ready();
    stream.database.execute("alter table public.item drop constraint item_pkey, add primary key (code)");
    stream.database.execute("insert into public.item values (1, 1)");
    program.exits_with(3, "column-rule-unfit", START_TIMEOUT);
    assert!(program.log().contains(said), "what is streamed already stops: {}", program.log());
}

#[test]
fn what_is_otherwise_for_one_table_is_so_for_that_one() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "otherwise");
    let name = stream.name.clone();
    stream.set(
        "tables",
        r#"[{ match = "public.item", topic = "{name}.own.{table}", partitions = 5, events = { decimals = "string", tombstones = false } }]"#,
    );
    let columns = "(id int primary key, n numeric(20, 6))";
    stream.database.execute(&format!("create table public.item {columns}; create table public.other {columns}"));
    let program = stream.start_ready();
    for table in ["item", "other"] {
        stream
            .database
            .execute(&format!("insert into public.{table} values (1, 1234.56789); delete from public.{table}"));
    }
    stream.drain();
    program.terminate();
    // Of each topic: records, tombstones, and whether the number is there as text.
    let found = RefCell::new(BTreeMap::<String, (u32, u32, bool)>::new());
    let visit = |message: &rdkafka::message::BorrowedMessage<'_>| {
        let mut found = found.borrow_mut();
        let (records, tombstones, text) = found.entry(message.topic().to_owned()).or_default();
        *records += 1;
        *tombstones += u32::from(message.payload().is_none());
        *text |= message.payload().is_some_and(|value| value.windows(11).any(|part| part == b"1234.567890"));
    };
    let is_wanted = |topic: &str| topic.starts_with(&format!("{name}.")) && !topic.ends_with("marker");
    kafka::read_to_end(&stream.bootstrap_servers, is_wanted, visit);
    let expected = [(format!("{name}.own.item"), (2, 0, true)), (format!("{name}.public.other"), (3, 1, false))];
    assert_eq!(found.into_inner(), BTreeMap::from(expected.clone()));
    let partitions = kafka::partitions(&stream.bootstrap_servers, &expected[0].0);
    assert_eq!(partitions, 5);
}

#[test]
fn tables_go_to_the_topics_that_they_are_routed_to() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "routed");
    let name = stream.name.clone();
    let routes = format!(
        r#"[{{ match = "{name}[.]public[.](?P<stem>[a-z]+)_v2", topic = "{name}.current.${{stem}}" }},
            {{ match = "{name}[.]public[.](shared_.)", topic = "{name}.both.shared" }}]"#
    );
    stream.set("kafka.topics.routes", &routes);
    stream
        .database
        .execute("create table public.item_v2 (id int primary key); create table public.item (id int primary key)");
    let mut program = stream.start_ready();
    stream.database.execute("insert into public.item_v2 values (1); insert into public.item values (2)");
    stream.drain();
    let topics = RefCell::new(BTreeSet::new());
    let visit = |message: &rdkafka::message::BorrowedMessage<'_>| {
        topics.borrow_mut().insert(message.topic().to_owned());
    };
    kafka::read_to_end(&stream.bootstrap_servers, |topic| topic.starts_with(&format!("{name}.")), visit);
    let expected = ["current.item", "public.item", "public.marker"].map(|topic| format!("{name}.{topic}"));
    assert_eq!(topics.into_inner(), BTreeSet::from(expected));
    // The keys of two tables could be the same: neither may begin, and the others go on.
    stream.database.execute(
        "create table public.shared_a (id int primary key); create table public.shared_b (id int primary key)",
    );
    program.terminate();
    program = stream.start_ready();
    stream.database.execute("insert into public.shared_a values (1); insert into public.item values (3)");
    stream.drain();
    for (table, other) in [("a", "b"), ("b", "a")] {
        let said = format!(
            "table public.shared_{table} has appeared and is NOT streamed: [schema-unrepresentable] the topic of public.shared_{table}: \
             it is the topic of table public.shared_{other} too"
        );
        assert!(program.log().contains(&said), "{}", program.log());
    }
    let is_there = |record: &Record| {
        record.table == "item" && record.key.as_ref().is_some_and(|key| key["id"].as_deref() == Some("3"))
    };
    assert!(stream.records().iter().any(is_there), "the others go on");
    // Where somebody has published them, the stream stops.
    stream.set("postgres.manage", "false");
    stream
        .database
        .execute(&format!("alter publication {} add table public.shared_a, public.shared_b", stream.publication));
    program.terminate();
    program = stream.start_ready();
    stream.database.execute("insert into public.shared_a values (2); insert into public.shared_b values (2)");
    program.exits_with(3, "schema-unrepresentable", START_TIMEOUT);
    assert!(program.log().contains("the topic is that of table public.shared_b too"), "{}", program.log());
}

/// As it would after a start, with which nobody knows any more that there was another.
#[test]
fn a_table_in_the_place_of_one_that_is_gone_goes_on_in_its_topic() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "replaced");
    let name = stream.name.clone();
    let routes = format!(r#"[{{ match = "{name}[.]public[.]orders_v[0-9]", topic = "{name}.public.orders" }}]"#);
    stream.set("kafka.topics.routes", &routes);
    stream.database.execute("create table public.orders_v1 (id int primary key)");
    let program = stream.start_ready();
    stream.database.execute("insert into public.orders_v1 values (1)");
    stream.drain();
    stream.database.execute("drop table public.orders_v1; create table public.orders_v2 (id int primary key)");
    // The program may have come first.
    let add = format!("alter publication {} add table public.orders_v2", stream.publication);
    stream.database.execute(&format!("do $$ begin {add}; exception when duplicate_object then null; end $$"));
    stream.database.execute("insert into public.orders_v2 values (2)");
    stream.drain();
    let log = program.log();
    program.terminate();
    assert!(!log.contains("schema-unrepresentable"), "{log}");
    let records: Vec<_> = stream.records().into_iter().filter(|record| record.table == "orders").collect();
    // The two may be in different partitions, between which there is no order.
    let keys = records.iter().map(|record| record.key.as_ref().and_then(|key| key["id"].as_deref()));
    assert_eq!(keys.collect::<BTreeSet<_>>(), BTreeSet::from([Some("1"), Some("2")]));
    assert_eq!(records.len(), 2);
}

/// Where somebody else publishes, a table that is asked for and not published writes to no topic.
#[test]
fn a_table_that_is_not_published_takes_no_topic_from_another() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "unpublished_topic");
    let columns = "(id int primary key)";
    stream.database.execute(&format!(
        "create table public.order_item {columns}; create table public.events {columns} partition by range (id);
           create table public.events_old partition of public.events for values from (0) to (10)"
    ));
    stream.set("postgres.publish_via_partition_root", "false");
    let mut program = stream.start_ready();
    stream.drain();
    program.terminate();
    stream.set("postgres.manage", "false");
    stream
        .database
        .execute(&format!(r#"create table public."order$item" {columns}; create table public."events$old" {columns}"#));
    // All that is known of owners is asked for anew, at the first row of each table.
    program = stream.start_ready();
    stream.database.execute(
        r#"insert into public.order_item values (1); insert into public."order$item" values (2);
           insert into public.events values (1); insert into public."events$old" values (2)"#,
    );
    stream.drain();
    assert_eq!(tables(&stream), BTreeSet::from(["order_item".to_owned(), "events_old".to_owned()]));
    // Once it is published, nobody can tell the records of the two apart.
    stream.database.execute(&format!(
        r#"alter publication {} add table public."order$item"; insert into public."order$item" values (3)"#,
        stream.publication
    ));
    program.exits_with(3, "schema-unrepresentable", START_TIMEOUT);
    assert!(program.log().contains("the topic is that of table public.order_item already"), "{}", program.log());
}

#[test]
fn what_is_skipped_is_not_written_and_has_its_number() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "skipped");
    stream.set("events.skip", "update, delete");
    stream.database.execute("create table public.item (id int primary key, v int)");
    let program = stream.start_ready();
    stream.database.execute(
        "begin; insert into public.item values (1, 1), (2, 2); update public.item set v = 3; update public.item set id = 3 where id = 2;
         delete from public.item; truncate public.item; commit",
    );
    stream.drain();
    // Two updates and two deletions; of the change of the key a part is written.
    assert_eq!(program.metric(r#"changes_left_out_total{reason="skipped_operation"}"#), Some(4.0));
    program.terminate();
    let records: Vec<_> = stream.records().into_iter().filter(|record| record.table == "item").collect();
    let events = records.iter().map(|record| record.event.as_ref().expect("no tombstone without its deletion"));
    let mut events: Vec<_> = events.map(|event| (event.table_ordinal, event.operation.as_str())).collect();
    events.sort_unstable();
    // Two inserts, two updates, a change of the key, two deletions and a truncation.
    // The last in each of three partitions.
    assert_eq!(events, [(1, "c"), (2, "c"), (6, "c"), (9, "t"), (9, "t"), (9, "t")]);
}

#[test]
fn headers_say_what_the_value_says() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "headers");
    stream.set("events.headers", "op, table, transaction_total_order");
    stream.database.execute("create table public.item (id int primary key)");
    let program = stream.start_ready();
    stream.database.execute("begin; insert into public.item values (1); delete from public.item; commit");
    stream.drain();
    program.terminate();
    let found = RefCell::new(Vec::new());
    let visit = |message: &rdkafka::message::BorrowedMessage<'_>| {
        let headers = message.headers().expect("it has headers").iter();
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        let headers: Vec<_> = headers.map(|header| format!("{}={}", header.key, text(header.value))).collect();
        found.borrow_mut().push(headers.join(" "));
    };
    kafka::read_to_end(&stream.bootstrap_servers, |topic| topic == stream.topic("item"), visit);
    let deletion = "__op=d __table=item __transaction_total_order=2";
    assert_eq!(found.into_inner(), ["__op=c __table=item __transaction_total_order=1", deletion, deletion]);
}
