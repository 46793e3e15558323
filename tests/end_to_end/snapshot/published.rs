//! What of a table is copied is what a publication has of it: as root or leaves, in part, and never more.

use std::collections::BTreeMap;

use super::{
    COPY_TIMEOUT, await_copied,
    judge::Judged,
    trouble::{await_log, connect_as_role, start_and_add},
};
use crate::harness::{
    oracle::Row,
    stack::Stack,
    stream::{Program, Stream},
    wait_until,
};

/// The leaves have their columns in other orders than the root, one is partitioned itself, and one has more to identify a row.
const PARTITIONS: &str = "
    create table public.events (id int, place text, version int not null, body text, primary key (id, place)) partition by list (place);
    create table public.events_a partition of public.events for values in ('a');
    create table public.events_b (body text, gone int, version int not null, place text not null, id int not null);
    alter table public.events_b drop column gone;
    alter table public.events attach partition public.events_b for values in ('b');
    create table public.events_c partition of public.events for values in ('c', 'd') partition by range (id);
    create table public.events_c_1 partition of public.events_c for values from (0) to (1000);
    create table public.events_c_2 partition of public.events_c for values from (1000) to (10000);
    alter table public.events_c_2 replica identity full;
    alter table public.events_c_2 alter body set storage external;
    insert into public.events select number, chr(97 + number % 4), 1, repeat(md5(number::text), 100) from generate_series(1, 4000) number;
";

/// Updates that leave the large value, and rows that go from one leaf to another.
const CHANGES: &str = "
    update public.events set version = version + 1 where id % 7 = 0;
    update public.events set place = 'c', version = version + 1 where id % 97 = 0 and place <> 'c';
    update public.events set place = 'a', version = version + 1 where id % 89 = 0 and place <> 'a';
    delete from public.events where id % 101 = 0;
";

#[test]
fn a_partitioned_table_is_copied_by_its_root() {
    copy_partitions("root", "true", &["events"]);
}

#[test]
fn a_partitioned_table_is_copied_by_its_leaves() {
    copy_partitions("leaves", "false", &["events_a", "events_b", "events_c_1", "events_c_2"]);
}

fn copy_partitions(label: &str, publish_via_partition_root: &str, tables: &[&str]) {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, &format!("copied_{label}"));
    stream.set("snapshot.mode", "initial");
    stream.set("snapshot.rows_per_second", "2000");
    stream.set("postgres.publish_via_partition_root", publish_via_partition_root);
    stream.database.execute(PARTITIONS);
    // It is killed midway, with the changes of before, of meanwhile and of after.
    let program = stream.start_ready();
    wait_until(COPY_TIMEOUT, "rows are copied", || program.metric("copied_rows_total").filter(|rows| *rows > 0.0));
    stream.database.play(CHANGES);
    assert!(!program.log().contains("every table is copied"), "too late to show anything");
    program.kill();
    stream.database.play(CHANGES);
    let program = stream.start_ready();
    stream.database.play(CHANGES);
    await_copied(&program);
    stream.drain();
    program.terminate();
    let judged = Judged::of_tables(&stream, &stream.records(), tables);
    println!("{} rows copied, {} events streamed", judged.copied, judged.streamed);
    judged.assert_flawless();
    assert!(judged.copied > 2000);
}

/// PostgreSQL 15 and newer.
#[test]
fn a_row_filter_and_a_column_list_hold_for_what_is_copied() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "filtered");
    if stream.database.value::<i32>("select current_setting('server_version_num')::int") < 150_000 {
        return;
    }
    stream.set("snapshot.mode", "initial");
    stream.set("snapshot.rows_per_second", "3000");
    let tables =
        "create table public.item (secret text default 'HUSH', id int primary key, note text, at timestamptz default now());
         insert into public.item (id, note) select number, case when number % 5 = 0 then 'it''s' else 'n' || number end
             from generate_series(1, 6000) number";
    let program =
        start_and_add(&mut stream, tables, "public.item (note, id) where (id % 2 = 0 and id <> 44 or id > 5990)");
    await_log(&program, "copying the table");
    stream.database.execute(
        "update public.item set note = 'again' where id % 3 = 0; update public.item set id = id + 10001 where id % 100 = 0;
         delete from public.item where id % 10 = 8",
    );
    await_log(&program, "every table is copied");
    stream.drain();
    program.terminate();
    let folded = fold(&stream, "item");
    let rows = stream.database.client().query(
        "select id::text, note from public.item where id % 2 = 0 and id <> 44 or id > 5990 order by item.id",
        &[],
    );
    let expected: Vec<(String, String)> = rows.expect("the rows").iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut found: Vec<(String, String)> = folded
        .iter()
        .map(|row| {
            assert_eq!(row.len(), 2, "{row:?}");
            (row["id"].clone().expect("an id"), row["note"].clone().expect("a note"))
        })
        .collect();
    found.sort_by_key(|(id, _)| id.parse::<u32>().expect("a number"));
    assert_eq!(found, expected);
}

/// A list that lacks a part of the key leaves rows that nothing tells apart.
#[test]
fn rows_without_all_of_their_key_are_not_copied_and_that_is_told() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "part_of_key");
    if stream.database.value::<i32>("select current_setting('server_version_num')::int") < 150_000 {
        return;
    }
    stream.set("snapshot.mode", "initial");
    let tables = "create table public.item (a int, b int, primary key (a, b));
         insert into public.item select number / 3, number from generate_series(1, 1300) number";
    let program = start_and_add(&mut stream, tables, "public.item (a)");
    await_log(&program, "every table is copied");
    let log = program.log();
    stream.drain();
    program.terminate();
    let copied = stream.records().iter().filter(|record| record.table == "item").count();
    assert!(copied == 0 && log.contains("are not copied"), "{copied} rows were copied, of 1300: {log}");
}

/// What inherits from a table is no part of it for a publication.
#[test]
fn rows_of_a_child_are_not_those_of_its_parent() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "inherited");
    stream.set("snapshot.mode", "initial");
    stream.database.execute(
        "create table public.parent (id int primary key);
         create table public.child (primary key (id)) inherits (public.parent);
         insert into public.parent select generate_series(1, 700); insert into public.child select generate_series(601, 1300)",
    );
    let program = stream.start_ready();
    await_copied(&program);
    stream.drain();
    program.terminate();
    for table in ["parent", "child"] {
        let mut ids: Vec<u32> = stream
            .records()
            .iter()
            .filter(|record| record.table == table)
            .map(|record| record.key.as_ref().expect("a key")["id"].as_ref().expect("an id").parse().expect("a number"))
            .collect();
        ids.sort_unstable();
        assert!(ids.iter().copied().eq(if table == "parent" { 1..=700 } else { 601..=1300 }), "{table}: {ids:?}");
    }
}

/// A role from which policies hide rows does not take the rest for the table.
#[test]
fn a_table_whose_policies_hide_rows_is_not_copied_in_part() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "policies");
    stream.set("snapshot.mode", "initial");
    let role = connect_as_role(&mut stream);
    let tables = format!(
        "create table public.item (id int primary key); insert into public.item select generate_series(1, 600);
         alter table public.item enable row level security; create policy few on public.item using (id < 10);
         grant select on public.item to {role}"
    );
    let program = start_and_add(&mut stream, &tables, "public.item");
    await_log(&program, "[postgres-refused]");
    assert!(program.log().contains("row-level security"), "{}", program.log());
    stream
        .database
        .execute(&format!("create policy every on public.item to {role} using (true); alter role {role} bypassrls"));
    await_log(&program, "every table is copied");
    stream.drain();
    program.terminate();
    assert_eq!(stream.records().iter().filter(|record| record.table == "item").count(), 600);
}

/// So quickly, or while no instance runs, that no look finds it away; or for longer. Nothing stays that was deleted meanwhile, where the topic can be emptied.
#[test]
fn a_table_that_was_away_after_it_was_copied_is_copied_anew() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "away");
    stream.set("snapshot.mode", "initial");
    stream.set("tables", r#"[{ match = "public.leaf", events = { skip = ["truncate"] } }]"#);
    let tables = "create table public.item (id int primary key, v text); insert into public.item select generate_series(1, 600), 'first';
         create table public.whole (id int, v text, primary key (id)) partition by range (id);
         create table public.leaf partition of public.whole for values from (0) to (1000);
         insert into public.whole select generate_series(1, 600), 'first';
         create table public.other (id int primary key, v text); insert into public.other select generate_series(1, 600), 'first'";
    let program = start_and_add(&mut stream, tables, "public.item, public.whole, public.other");
    await_log(&program, "every table is copied");
    let publication = stream.publication.clone();
    let take_out = format!("alter publication {publication} drop table public.item, public.whole");
    let put_back = format!("alter publication {publication} add table public.item, public.whole");
    let change = |version: &str, deleted: u32| {
        format!(
            "update public.item set v = '{version}' where id <= 10; delete from public.item where id = {deleted};
             update public.whole set v = '{version}' where id <= 10; delete from public.whole where id = {deleted}"
        )
    };
    let lines = |program: &Program, table: &str, text: &str| -> Vec<String> {
        let log = program.log();
        let of_table = log.lines().filter(|line| line.contains(&format!("\"table\":\"{table}\"")));
        of_table.filter(|line| line.contains(text)).map(str::to_owned).collect()
    };
    let await_copied_anew = |program: &Program, times: usize| {
        for table in ["item", "leaf"] {
            wait_until(COPY_TIMEOUT, &format!("{table} is copied anew"), || {
                (lines(program, table, "\"the table is copied\"").len() == times).then_some(())
            });
        }
    };
    // The rows of each table, with those that the topic of one keeps, by what they are.
    let judge = |stream: &Stream, version: &str, kept: &[(u32, &str)]| {
        stream.drain();
        for (table, kept) in [("item", &[][..]), ("leaf", kept)] {
            let rows = fold(stream, table).into_iter().map(|row| {
                (
                    row["id"].as_ref().expect("an id").parse::<u32>().expect("a number"),
                    row["v"].clone().expect("a text"),
                )
            });
            let is_gone = |id: &u32| {
                stream.database.value::<i64>(&format!("select count(*) from public.{table} where id = {id}")) == 0
            };
            let gone: Vec<u32> = (11..=13).filter(is_gone).collect();
            let expected: BTreeMap<u32, String> = (1..=600)
                .filter(|id| !gone.contains(id))
                .map(|id| (id, if id <= 10 { version } else { "first" }.to_owned()))
                .chain(kept.iter().map(|(id, version)| (*id, (*version).to_owned())))
                .collect();
            assert_eq!(rows.collect::<BTreeMap<_, _>>(), expected, "{table}");
        }
    };
    judge(&stream, "first", &[]);
    stream.database.execute(&format!("begin; {take_out}; {}; {put_back}; commit", change("second", 11)));
    await_copied_anew(&program, 2);
    judge(&stream, "second", &[(11, "first")]);
    for (table, errors) in [("item", 0), ("leaf", 1)] {
        assert_eq!(lines(&program, table, "was taken out of publication").len(), 1, "{table}");
        let told = lines(&program, table, "stay in its topic");
        assert!(told.len() == errors && told.iter().all(|line| line.contains("ERROR")), "{told:?}");
    }
    program.terminate();
    stream.database.execute(&format!("begin; {take_out}; {}; {put_back}; commit", change("third", 12)));
    let program = stream.start_ready();
    await_copied_anew(&program, 1);
    judge(&stream, "third", &[(11, "first"), (12, "first")]);
    stream.database.execute(&take_out);
    for table in ["item", "leaf"] {
        wait_until(COPY_TIMEOUT, "a look finds it away", || {
            (lines(&program, table, "Should it be put back").len() == 1).then_some(())
        });
    }
    stream.database.execute(&change("fourth", 13));
    stream.database.execute(&put_back);
    await_copied_anew(&program, 2);
    judge(&stream, "fourth", &[(11, "first"), (12, "first"), (13, "first")]);
    if stream.database.value::<i32>("select current_setting('server_version_num')::int") >= 150_000 {
        // They are in it all the time, by the one or by the other. A new table is seen in the same look.
        for (alteration, new) in
            [("add tables in schema public", "new"), ("drop table public.item, public.whole, public.other", "newer")]
        {
            stream.database.execute(&format!("alter publication {publication} {alteration}"));
            stream.database.execute(&format!("create table public.{new} (id int primary key)"));
            wait_until(COPY_TIMEOUT, &format!("{new} is found"), || {
                (lines(&program, new, "\"the table is copied\"").len() == 1).then_some(())
            });
        }
        stream.drain();
    }
    program.terminate();
    let events = |table: &str, operation: &str| {
        let records = stream.records();
        let of_table = records.iter().filter(|record| record.table == table);
        of_table.filter(|record| record.event.as_ref().is_some_and(|event| event.operation == operation)).count()
    };
    let copied = 600 + 599 + 598 + 597;
    assert_eq!(["item", "leaf", "other"].map(|table| events(table, "r")), [copied, copied, 600]);
    assert_eq!(["item", "leaf", "other"].map(|table| events(table, "t")), [3 * 3, 0, 0], "in each partition");
}

/// What was deleted while it was out is in no chunk that is read later, and has been in one that was read before.
#[test]
fn a_table_that_is_away_while_it_is_copied_leaves_nothing_that_was_deleted() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "away_midway");
    stream.set("snapshot.mode", "initial");
    stream.set("snapshot.rows_per_second", "500");
    let tables = "create table public.item (id int primary key, v text); insert into public.item select generate_series(1, 3000), 'first'";
    let program = start_and_add(&mut stream, tables, "public.item");
    wait_until(COPY_TIMEOUT, "rows are copied", || (program.metric("copied_rows_total")? >= 500.0).then_some(()));
    // A transaction that has changed a row meanwhile ends only when the table is back.
    let mut writer = stream.database.client();
    let publication = &stream.publication;
    stream.database.execute(&format!("alter publication {publication} drop table public.item"));
    writer
        .batch_execute("begin; update public.item set v = 'second' where id between 2 and 10")
        .expect("it is changed");
    stream.database.execute("delete from public.item where id = 1");
    stream.database.execute(&format!("alter publication {publication} add table public.item"));
    await_log(&program, "while it was copied");
    writer.batch_execute("commit").expect("it commits");
    await_log(&program, r#""the table is copied","schema":"public","table":"item""#);
    stream.drain();
    program.terminate();
    let found: BTreeMap<String, String> = fold(&stream, "item")
        .into_iter()
        .map(|row| (row["id"].clone().expect("an id"), row["v"].clone().expect("a text")))
        .collect();
    let rows = stream.database.client().query("select id::text, v from public.item", &[]).expect("the rows");
    assert_eq!(found, rows.iter().map(|row| (row.get(0), row.get(1))).collect());
}

/// The rows that a table's records come to.
fn fold(stream: &Stream, table: &str) -> Vec<Row> {
    let mut rows: BTreeMap<(i32, Row), Row> = BTreeMap::new();
    for record in stream.records().into_iter().filter(|record| record.table == table) {
        let Some(event) = record.event else { continue };
        if event.operation == "t" {
            rows.retain(|(partition, _), _| *partition != record.partition);
        }
        let Some(key) = record.key else { continue };
        match event.after {
            Some(row) => drop(rows.insert((record.partition, key), row)),
            None => drop(rows.remove(&(record.partition, key))),
        }
    }
    rows.into_values().collect()
}
