//! What keeps a table from being copied keeps no other, is told with its code, and passes by itself where it can.

use std::collections::BTreeSet;

use super::{COPY_TIMEOUT, await_copied, signals};
use crate::harness::{
    http_get,
    stack::Stack,
    stream::{Program, Stream},
    topics::Topics,
    wait_until,
};

/// Has the program connect as a role that owns nothing and may read `public.marker`. Its name.
pub(super) fn connect_as_role(stream: &mut Stream) -> String {
    let role = format!("role_{}", stream.name);
    stream.database.execute(&format!(
        "create role {role} login replication password 'x'; grant select on public.marker to {role}"
    ));
    let mut url: url::Url = stream.database.url.parse().expect("a URL");
    url.set_username(&role).expect("a user");
    url.set_password(Some("x")).expect("a password");
    stream.set("postgres.url", url.as_str());
    role
}

/// Starts with a publication and a slot that are kept by somebody else, who then creates tables with this script and adds them.
pub(super) fn start_and_add(stream: &mut Stream, script: &str, tables: &str) -> Program {
    stream.set("postgres.manage", "false");
    stream.set("postgres.match_interval", "1s");
    let (publication, slot) = (&stream.publication, &stream.slot);
    stream.database.execute(&format!("create publication {publication} for table public.marker"));
    stream.database.execute(&format!("select from pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    let mut program = stream.start_with(&["--adopt-slot"], &[]);
    program.await_ready();
    stream.database.execute(script);
    stream.database.execute(&format!("alter publication {publication} add table {tables}"));
    program
}

/// Waits until the log says this.
pub(super) fn await_log(program: &Program, text: &str) {
    wait_until(COPY_TIMEOUT, &format!("the log says {text:?}"), || program.log().contains(text).then_some(()));
}

/// The values that a column of a table has in the records.
fn seen(stream: &Stream, table: &str, column: &str) -> BTreeSet<String> {
    let of_table = stream.records().into_iter().filter(|record| record.table == table);
    let rows = of_table.filter_map(|record| record.event?.after);
    rows.filter_map(|mut row| row.remove(column).flatten()).collect()
}

/// The numbers of the rows that a table has and its records lack.
fn lacking(stream: &Stream, table: &str) -> Vec<String> {
    let seen = seen(stream, table, "no");
    let rows = stream.database.client().query(&format!("select no::text from public.{table}"), &[]).expect("the rows");
    rows.iter().map(|row| row.get(0)).filter(|no: &String| !seen.contains(no)).collect()
}

#[test]
fn a_table_that_may_not_be_read_is_named_and_copied_once_it_may() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "forbidden");
    stream.set("snapshot.mode", "initial");
    let role = connect_as_role(&mut stream);
    let tables = format!(
        "create table public.item (no int primary key); insert into public.item select generate_series(1, 600);
         create table public.a_closed (no int primary key); insert into public.a_closed select generate_series(1, 600);
         grant select on public.item to {role}"
    );
    let program = start_and_add(&mut stream, &tables, "public.item, public.a_closed");
    await_log(&program, "[postgres-refused]");
    assert!(program.log().contains("a_closed"), "{}", program.log());
    await_log(&program, "\"the table is copied\",\"schema\":\"public\",\"table\":\"item\"");
    stream.database.execute("insert into public.a_closed values (601)");
    stream.drain();
    assert_eq!(lacking(&stream, "a_closed").len(), 600, "what is streamed goes on");
    assert_eq!(lacking(&stream, "item"), [""; 0]);
    stream.database.execute(&format!("grant select on public.a_closed to {role}"));
    await_log(&program, "every table is copied");
    program.terminate();
    assert_eq!(lacking(&stream, "a_closed"), [""; 0]);
}

#[test]
fn tables_that_change_while_they_are_copied_lose_no_row() {
    const TABLES: [&str; 9] =
        ["dropped", "wider", "retyped", "rekeyed", "keytype", "collated", "swapped", "renamed", "unkeyed"];
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "altered");
    stream.set("snapshot.mode", "initial");
    stream.set("snapshot.connections", "16");
    stream.set("snapshot.rows_per_second", "2500");
    stream.set("snapshot.notification_topic", &format!("notifications-of-{}", stream.name));
    for table in TABLES {
        stream.database.execute(&format!(
            "create table public.{table} (no int not null, k int primary key, other int not null, label text collate \"C\" not null, pad text);
             insert into public.{table} select number, number, 100000 - number, chr(65 + number % 26 + 32 * (number % 2)) || number,
                    repeat(md5(number::text), 100)
             from generate_series(1, 2500) number"
        ));
    }
    stream.database.execute("alter table public.collated drop constraint collated_pkey, add primary key (label)");
    let program = stream.start_ready();
    // Each has had its first chunk.
    let is_begun = |log: &str, table: &str| {
        log.lines().any(|line| line.contains("copying the table") && line.contains(&format!("\"{table}\"")))
    };
    wait_until(COPY_TIMEOUT, "every table is begun", || {
        let log = program.log();
        TABLES.iter().all(|table| is_begun(&log, table)).then_some(())
    });
    for statement in [
        "drop table public.dropped",
        "alter table public.wider add column late text default 'late'",
        "alter table public.retyped alter column other type text",
        "alter table public.rekeyed drop constraint rekeyed_pkey, add primary key (other)",
        "alter table public.keytype alter column k type text",
        "alter table public.collated alter column label type text collate \"en-x-icu\"",
        "begin; alter table public.swapped drop constraint swapped_pkey; alter table public.swapped rename column k to gone;
         alter table public.swapped rename column other to k; alter table public.swapped add primary key (k); commit",
        "alter table public.renamed rename to given_another_name",
        "alter table public.unkeyed drop constraint unkeyed_pkey",
    ] {
        stream.database.execute(statement);
    }
    let log = program.log();
    let copied: Vec<_> =
        log.lines().filter(|line| line.contains("\"the table is copied\"") && !line.contains("marker")).collect();
    assert!(copied.is_empty(), "too late to show anything: {copied:?}");
    await_copied(&program);
    let log = program.log();
    stream.drain();
    program.terminate();
    for table in &TABLES[1..7] {
        let lacking = lacking(&stream, table);
        assert!(
            lacking.is_empty(),
            "{} rows of {table} are missing: {:?}",
            lacking.len(),
            &lacking[..lacking.len().min(10)]
        );
    }
    let renamed: BTreeSet<_> =
        ["renamed", "given_another_name"].iter().flat_map(|table| seen(&stream, table, "no")).collect();
    assert_eq!(renamed.len(), 2500, "under the one name or the other");
    let unkeyed: Vec<_> = log.lines().filter(|line| line.contains("\"unkeyed\"")).collect();
    assert!(unkeyed.iter().any(|line| line.contains("copying the table at once")), "{unkeyed:?}");
    // What was copied by its key before is taken out of each partition.
    let mut rows: BTreeSet<(i32, String)> = BTreeSet::new();
    let mut emptied = 0;
    for record in stream.records().into_iter().filter(|record| record.table == "unkeyed") {
        let event = record.event.expect("no row is gone");
        if event.operation == "t" {
            rows.retain(|(partition, _)| *partition != record.partition);
            emptied += 1;
        } else {
            let number = event.after.expect("a row")["no"].clone().expect("a number");
            assert!(rows.insert((record.partition, number)), "a row is there twice");
        }
    }
    assert_eq!((rows.len(), emptied), (2500, 3));
    // What was copied of one that is gone stays, and it is told.
    let rows = seen(&stream, "dropped", "no").len();
    assert!((500..2500).contains(&rows), "{rows}");
    let gone: Vec<_> = log.lines().filter(|line| line.contains("[snapshot-table-gone]")).collect();
    let of_it = format!("of which {rows} rows were copied (table public.dropped)");
    assert!(gone.len() == 1 && gone[0].contains("\"WARN\"") && gone[0].contains(&of_it), "{gone:?}");
    let told = signals::told(&stream);
    let aborted: Vec<_> = told.iter().filter(|(happened, ..)| happened == "ABORTED").collect();
    assert_eq!(aborted, [&("ABORTED".to_owned(), "public.dropped".to_owned(), rows.to_string())]);
}

#[test]
fn a_table_that_is_emptied_while_it_is_copied_is_empty() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "emptied");
    stream.set("snapshot.mode", "initial");
    stream.set("snapshot.rows_per_second", "500");
    stream.database.execute(
        "create table public.item (no int primary key); insert into public.item select generate_series(1, 9000)",
    );
    let program = stream.start_ready();
    wait_until(COPY_TIMEOUT, "rows are copied", || (program.metric("copied_rows_total")? >= 500.0).then_some(()));
    stream.database.execute("truncate public.item; insert into public.item select generate_series(-5, 5)");
    stream.database.execute("truncate public.item; insert into public.item values (7), (8000), (9001)");
    await_copied(&program);
    stream.drain();
    program.terminate();
    let mut rows: BTreeSet<(i32, String)> = BTreeSet::new();
    let (mut emptied, mut copied) = (0, 0);
    for record in stream.records().into_iter().filter(|record| record.table == "item") {
        let event = record.event.expect("no row was deleted");
        copied += u32::from(event.operation == "r");
        if let Some(row) = event.after {
            rows.insert((record.partition, row["no"].clone().expect("a number")));
        } else {
            emptied += 1;
            rows.retain(|(partition, _)| *partition != record.partition);
        }
    }
    println!("{copied} rows were copied");
    assert_eq!(emptied, 2 * 3, "in each partition");
    assert!((500..9000).contains(&copied), "{copied}");
    let rows: BTreeSet<_> = rows.into_iter().map(|(_, number)| number).collect();
    assert_eq!(rows, ["7", "8000", "9001"].map(str::to_owned).into());
}

/// A row that has no place in a record: what is streamed would stop the stream.
#[test]
fn a_row_that_cannot_be_written_is_named_and_keeps_only_its_table() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "unwritable");
    stream.set("snapshot.mode", "initial");
    stream.set("postgres.match_interval", "1s");
    stream.database.execute(
        "create table public.a_odd (no int primary key, v numeric(6, 2)); insert into public.a_odd select number, number from generate_series(1, 900) number;
         update public.a_odd set v = 'NaN' where no = 700;
         create table public.item (no int primary key); insert into public.item select generate_series(1, 600)",
    );
    let mut program = stream.start_ready();
    await_log(&program, "[value-unrepresentable]");
    assert!(program.log().contains("table public.a_odd, "), "{}", program.log());
    await_log(&program, "\"the table is copied\",\"schema\":\"public\",\"table\":\"item\"");
    assert!(program.is_running());
    stream.database.execute("delete from public.a_odd where no = 700");
    await_copied(&program);
    stream.drain();
    program.terminate();
    assert_eq!(lacking(&stream, "a_odd"), [""; 0]);
    let records = stream.records();
    let copied = records.iter().filter(|it| it.event.as_ref().is_some_and(|it| it.operation == "r"));
    assert_eq!(copied.filter(|it| it.table == "a_odd").count(), 899, "a copy goes on where it has come to");
}

/// One whose record Kafka does not take: what is streamed would stop the stream.
#[test]
fn a_row_that_is_too_large_is_named_and_keeps_only_its_table() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "oversized");
    stream.set("snapshot.mode", "initial");
    stream.set("postgres.match_interval", "1s");
    stream.set("kafka.topics.config", "{ \"max.message.bytes\" = \"20000\" }");
    // Many small records are no more than the topic takes either.
    stream.set("kafka.properties", "{ \"batch.size\" = \"10000\", \"message.max.bytes\" = \"200000\" }");
    // Text of 64 kB and of 256 kB that cannot be made much smaller.
    let large =
        |rows: u32| format!("(select string_agg(md5(number::text), '') from generate_series(1, {rows}) number)");
    stream.database.execute(&format!(
        "create table public.a_large (no int primary key, v text); insert into public.a_large select generate_series(1, 900), 'small';
         update public.a_large set v = {} where no = 700;
         create table public.b_huge (no int primary key, v text); insert into public.b_huge values (1, {});
         create table public.item (no int primary key); insert into public.item select generate_series(1, 600)",
        large(2000),
        large(8000)
    ));
    let mut program = stream.start_ready();
    await_log(&program, "\"the table is copied\",\"schema\":\"public\",\"table\":\"item\"");
    wait_until(COPY_TIMEOUT, "both tables are named", || {
        let log = program.log();
        let is_named = |text: &str| log.lines().any(|line| line.contains("[record-too-large]") && line.contains(text));
        let first = is_named("max.message.bytes of its topic is 20000 (table public.a_large, key {\\\"no\\\":700}");
        (first && is_named("message.max.bytes of kafka.properties is 200000 (table public.b_huge, ")).then_some(())
    });
    let status = http_get(program.address().expect("it listens"), "/snapshot").expect("an answer").body;
    assert!(status.matches("record-too-large: the record of a row").count() == 2, "{status}");
    // The stream goes on, for these tables too.
    stream.database.execute("insert into public.item values (601); insert into public.a_large values (901, 'late')");
    stream.drain();
    assert!(program.is_running());
    let copied = |stream: &Stream| {
        let records = stream.records();
        let copied = records.iter().filter(|it| it.event.as_ref().is_some_and(|it| it.operation == "r"));
        copied.filter(|it| it.table == "a_large").count()
    };
    assert_eq!(copied(&stream), 500, "of the chunk with the large row nothing is written");
    assert_eq!(lacking(&stream, "item"), [""; 0]);

    Topics::of(&stream.bootstrap_servers).configure(&stream.topic("a_large"), "max.message.bytes", "100000");
    await_log(&program, "\"the table is copied\",\"schema\":\"public\",\"table\":\"a_large\"");
    stream.database.execute("update public.b_huge set v = 'small'");
    await_copied(&program);
    stream.drain();
    assert_eq!(program.metric("sessions_total"), Some(1.0), "nothing was begun anew");
    program.terminate();
    assert_eq!(lacking(&stream, "a_large"), [""; 0]);
    // The one that was inserted meanwhile is in what was read then, and newer than that in the topic.
    assert!((900..=901).contains(&copied(&stream)), "{}", copied(&stream));
}
