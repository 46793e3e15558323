//! The publication is dropped. Servers up to 17 end the stream with an error, 18 goes on with a warning, without changes.

use crate::harness::{
    kafka,
    oracle::Table,
    stack::Stack,
    stream::{START_TIMEOUT, Stream},
    wait_until,
};

#[test]
fn a_publication_that_is_dropped_is_never_silence() {
    let stack = Stack::shared();
    let stream = Stream::create(&stack, "publication");
    stream.database.execute("create table public.item (id int primary key)");
    let mut program = stream.start_ready();
    stream.database.execute("insert into public.item values (1)");
    stream.drain();
    stream.database.execute(&format!("drop publication {}; insert into public.item values (2)", stream.publication));
    program.exits_with(3, "publication-missing", START_TIMEOUT);
    // A publication that is made now does not exist where the row 2 lies in the log: that row cannot be decoded with it.
    stream.refuses(&[], "publication-missing");
    assert!(
        stream.records().iter().all(|record| record.key.as_ref().is_none_or(|key| key["id"].as_deref() == Some("1")))
    );
}

#[test]
fn a_publication_that_is_not_there_is_refused() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "unpublished");
    stream.set("postgres.manage", "false");
    stream.database.execute("create table public.item (id int primary key)");
    stream.refuses(&[], "publication-missing");
}

/// Waits until the publication holds a table.
fn await_published(stream: &Stream, table: &str) {
    let mut client = stream.database.client();
    wait_until(START_TIMEOUT, "the table is published", || {
        let sql = "select from pg_publication_tables where pubname = $1 and tablename = $2";
        client.query_opt(sql, &[&stream.publication, &table]).expect("the server answers").map(drop)
    });
}

#[test]
fn a_table_that_appears_is_streamed_and_one_without_identity_is_left_alone() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "appears");
    stream.set("postgres.match_interval", "1s");
    stream.database.create_tables("create table public.item (id int primary key)");
    let program = stream.start_ready();
    stream.database.create_tables("create table public.late (id int primary key)");
    stream.database.execute("create table public.bare (v text); insert into public.bare values ('a')");
    await_published(&stream, "late");
    stream.database.execute(
        "insert into public.late values (1), (2); delete from public.late where id = 1;
         insert into public.item values (1);
         -- Were it published, the application's own statement would fail.
         update public.bare set v = 'b'",
    );
    stream.drain();
    wait_until(START_TIMEOUT, "the table without identity is told", || {
        program.log().contains("public.bare has appeared").then_some(())
    });
    let log = program.log();
    assert!(log.contains("table public.late has appeared: it is streamed from here on"), "{log}");
    assert!(log.contains("table public.bare has appeared and is NOT streamed: [replica-identity-missing]"), "{log}");
    assert_eq!(log.matches("public.bare has appeared").count(), 1, "it is said once");
    // What the running stream has left alone does not keep the next start from streaming the rest.
    program.terminate();
    let program = stream.start_ready();
    assert!(program.log().contains("table public.bare has appeared and is NOT streamed"), "{}", program.log());
    stream.drain();
    stream.database.execute("alter table public.bare replica identity full");
    await_published(&stream, "bare");
    program.terminate();
    let late = Table { name: "late", key: &["id"], full: false };
    let item = Table { name: "item", key: &["id"], full: false };
    stream.judge(&[late, item]).1.assert_flawless();
}

/// What could not be written would stop the stream at its first row, with all that is behind it.
#[test]
fn a_table_that_cannot_be_written_keeps_no_other_out_until_it_can() {
    let stack = Stack::shared();
    for (label, publish_via_partition_root) in [("unwritten_roots", "true"), ("unwritten_leaves", "false")] {
        let mut stream = Stream::create(&stack, label);
        stream.set("postgres.match_interval", "1s");
        stream.set("postgres.publish_via_partition_root", publish_via_partition_root);
        stream.set("events.envelope", "upsert");
        stream.set("events.format", "json");
        stream.database.execute("create table public.item (id int primary key)");
        let program = stream.start_ready();
        stream.database.execute(
            "create table public.bare (v text not null); alter table public.bare replica identity full;
             insert into public.bare values ('a');
             create table public.parts (id int) partition by range (id);
             create table public.parts_1 (id int primary key);
             create table public.parts_2 (id int); alter table public.parts_2 replica identity full;
             alter table public.parts replica identity full;
             alter table public.parts attach partition public.parts_1 for values from (0) to (10);
             alter table public.parts attach partition public.parts_2 for values from (10) to (20);
             create table public.late (id int primary key)",
        );
        await_published(&stream, "late");
        stream.database.execute("insert into public.late values (1); insert into public.item values (1)");
        let seen = |table: &str| {
            let topic = stream.topic(table);
            move |bootstrap_servers: &str| {
                let found = std::cell::Cell::new(0);
                kafka::read_to_end(bootstrap_servers, |name| name == topic, |_| found.set(found.get() + 1));
                (found.get() > 0).then_some(())
            }
        };
        for table in ["late", "item"] {
            wait_until(START_TIMEOUT, "the others go on", || seen(table)(&stream.bootstrap_servers));
        }
        let unwritten = if publish_via_partition_root == "true" { "parts" } else { "parts_2" };
        let (bare, parts) = (
            "table public.bare has appeared and is NOT streamed: [schema-unrepresentable] public.bare has no key"
                .to_owned(),
            format!(
                "table public.parts has appeared and is NOT streamed: [schema-unrepresentable] public.{unwritten} has no key"
            ),
        );
        wait_until(START_TIMEOUT, "the tables without a key are told", || {
            (program.log().contains(&bare) && program.log().contains(&parts)).then_some(())
        });
        // It is left out by a start that goes on as well, and taken up by the next look once it has a key.
        program.terminate();
        let program = stream.start_ready();
        assert!(program.log().contains(&bare) && program.log().contains(&parts), "{}", program.log());
        stream
            .database
            .execute("alter table public.bare add primary key (v); alter table public.parts_2 add primary key (id)");
        if publish_via_partition_root == "true" {
            stream.database.execute("alter table public.parts add primary key (id)");
        }
        await_published(&stream, "bare");
        await_published(&stream, if publish_via_partition_root == "true" { "parts" } else { "parts_1" });
        stream.database.execute("insert into public.bare values ('b'); insert into public.parts values (1), (11)");
        for table in ["bare", unwritten] {
            wait_until(START_TIMEOUT, "it is streamed", || seen(table)(&stream.bootstrap_servers));
        }
        program.terminate();
    }
}

#[test]
fn a_first_start_refuses_a_table_without_identity() {
    let stack = Stack::shared();
    let stream = Stream::create(&stack, "bare_first");
    stream.database.execute("create table public.bare (v text)");
    stream.refuses(&[], "replica-identity-missing");
}

/// A table that another role owns cannot be added by ours, and keeps no other out.
#[test]
fn a_table_of_another_role_keeps_no_other_out() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "owners");
    stream.set("postgres.match_interval", "1s");
    let (name, database) = (&stream.name, &stream.database.name);
    let role = format!("role_{name}");
    stream.database.execute(&format!(
        "create role {role} login replication password 'x'; grant create on database {database} to {role};
         grant usage, create on schema public to {role}; grant usage on schema oracle to {role};
         alter table public.marker owner to {role}"
    ));
    let mut url: url::Url = stream.database.url.parse().expect("a URL");
    url.set_username(&role).expect("a user");
    url.set_password(Some("x")).expect("a password");
    stream.set("postgres.url", url.as_str());
    let program = stream.start_ready();
    stream.database.execute(&format!(
        "create table public.a_foreign (id int primary key);
         create table public.b_ours (id int primary key); alter table public.b_ours owner to {role}"
    ));
    await_published(&stream, "b_ours");
    stream.drain();
    wait_until(START_TIMEOUT, "the other table is told", || {
        program
            .log()
            .contains("table public.a_foreign has appeared and is NOT streamed: [postgres-refused]")
            .then_some(())
    });
    program.terminate();
    let program = stream.start_ready();
    stream.drain();
    program.terminate();
}

/// A table that is renamed to what is not asked for is left out, and not in silence.
#[test]
fn a_table_that_is_moved_away_is_warned_of() {
    let stack = Stack::shared();
    let stream = Stream::create(&stack, "moved");
    stream.database.execute("create table public.item (id int primary key); create schema elsewhere");
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (1); alter table public.item set schema elsewhere");
    stream.database.execute("insert into elsewhere.item values (2)");
    stream.drain();
    let log = program.log();
    let warning = log.lines().find(|line| line.contains("is not asked for under this name")).expect("a warning");
    assert!(warning.contains("\"WARN\"") && warning.contains("elsewhere"), "{warning}");
    program.terminate();
    let items = stream.records().into_iter().filter(|record| record.table == "item").count();
    assert_eq!(items, 1, "the row from before is there, and no other");
}

/// The tail of a table with REPLICA IDENTITY FULL keeps its key although the table is gone when it is decoded.
#[test]
fn a_dropped_table_keeps_its_key() {
    let stack = Stack::shared();
    let stream = Stream::create(&stack, "dropped");
    stream.database.execute(
        "create table public.item (id int primary key, v text); alter table public.item replica identity full",
    );
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (1, 'a')");
    stream.drain();
    program.signal("STOP");
    // The relation is announced again, since its key changes, and by then the table is gone.
    stream.database.execute(
        "alter table public.item add column w int; delete from public.item where id = 1; drop table public.item",
    );
    program.signal("CONT");
    stream.drain();
    program.terminate();
    let records: Vec<_> = stream.records().into_iter().filter(|record| record.table == "item").collect();
    let keys: Vec<_> = records.iter().map(|record| record.key.as_ref().map(|key| key["id"].clone())).collect();
    assert_eq!(keys, vec![Some(Some("1".to_owned())); 3], "an insert, a delete and its tombstone");
    assert!(records[2].event.is_none(), "the tombstone comes last");
}

/// Its records are not to come in another shape than those before them.
#[test]
fn what_is_otherwise_for_a_root_is_not_forgotten_when_nobody_knows_it() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "gone_root");
    stream.set("postgres.publish_via_partition_root", "false");
    stream.set("postgres.tables", "[\"public.events\", \"public.marker\"]");
    let of_root = r#"{ match = "public.events", events = { tombstones = false } }"#;
    stream.set("tables", &format!("[{of_root}]"));
    stream.database.execute(
        "create table public.events (id int primary key) partition by range (id);
         create table public.events_seen partition of public.events for values from (0) to (10);
         create table public.events_unseen partition of public.events for values from (10) to (20)",
    );
    let program = stream.start_ready();
    stream.database.execute("insert into public.events values (1), (11)");
    stream.drain();
    program.signal("STOP");
    let gone = |leaf: &str| {
        stream.database.execute(&format!(
            "delete from public.{leaf}; alter table public.events detach partition public.{leaf}; drop table public.{leaf}"
        ));
    };
    gone("events_seen");
    program.signal("CONT");
    stream.drain();
    program.terminate();
    gone("events_unseen");
    stream.refuses(&[], "partition-unknown");
    stream.set(
        "tables",
        &format!(r#"[{{ match = "public.events_unseen", events = {{ tombstones = false }} }}, {of_root}]"#),
    );
    let program = stream.start_ready();
    stream.drain();
    program.terminate();
    let records: Vec<_> = stream.records().into_iter().filter(|record| record.table.starts_with("events_")).collect();
    let mut shown: Vec<_> = records
        .iter()
        .map(|record| (record.table.as_str(), record.event.as_ref().map(|event| event.operation.as_str())))
        .collect();
    shown.sort_unstable();
    let expected = ["events_seen", "events_unseen"].map(|table| [(table, Some("c")), (table, Some("d"))]);
    assert_eq!(shown, expected.concat(), "no tombstones");
}

/// With `publish_via_partition_root = false` a row comes under the name of its leaf, whatever became of that leaf since.
#[test]
fn rows_of_a_partition_that_is_gone_by_the_time_they_are_decoded_are_there() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "gone_leaf");
    stream.set("postgres.publish_via_partition_root", "false");
    stream.set("postgres.tables", "[\"public.events\", \"public.marker\"]");
    stream.database.execute(
        "create table public.events (id int primary key) partition by range (id);
         create table public.events_old partition of public.events for values from (0) to (10);
         create table public.events_new partition of public.events for values from (10) to (20)",
    );
    let program = stream.start_ready();
    stream.drain();
    // Nothing reads while this happens.
    program.signal("STOP");
    stream.database.execute(
        "insert into public.events values (1), (11);
         alter table public.events detach partition public.events_old; drop table public.events_old",
    );
    program.signal("CONT");
    stream.drain();
    program.terminate();
    // A process that has never seen the leaf knows no better than that it was published.
    stream.database.execute(
        "insert into public.events values (12);
         alter table public.events detach partition public.events_new; drop table public.events_new",
    );
    let program = stream.start_ready();
    stream.drain();
    program.terminate();
    // The same when nothing is left that is partitioned.
    stream.database.execute(
        "create table public.events_last partition of public.events for values from (20) to (30);
         insert into public.events values (21); drop table public.events",
    );
    let program = stream.start_ready();
    stream.drain();
    program.terminate();
    let mut ids: Vec<_> = stream
        .records()
        .into_iter()
        .filter(|record| record.table.starts_with("events_"))
        .map(|record| (record.table, record.key.expect("it has a key")["id"].clone().expect("it is not null")))
        .collect();
    ids.sort();
    let expected = [("events_last", "21"), ("events_new", "11"), ("events_new", "12"), ("events_old", "1")];
    assert_eq!(ids, expected.map(|(table, id)| (table.to_owned(), id.to_owned())));
}
