//! What the catalog says of tables that are to be copied: they are what the stream announces, and the statements copy all of their rows.

use std::{collections::BTreeMap, io::BufRead, sync::Arc};

use bytes::Bytes;
use pgoutput::{CopyRows, Decoder, Message, Oid, ProtocolVersion, Relation, Tuple, Value};
use pgsluice::catalog::{Catalog, CopyStatement, KeyRange, ReadOrder, SnapshotTable};
use postgres::{Client, SimpleQueryMessage};

use crate::harness::{database::Database, stack::Stack};

const TABLES: &str = r#"
    create schema "Odd";
    create type public.mood as enum ('glum', 'glad');
    create domain public.code as varchar(8);
    create table public.by_default (id int primary key, v varchar(9), n numeric(8, 2) not null, m public.mood, c public.code);
    create table "Odd"."t""x" ("B" text, "a b" bigint, primary key ("a b", "B"));
    create table public.by_full (a int, b text);
    alter table public.by_full replica identity full;
    create table public.by_index (a int not null, b text not null, c int, d int not null primary key);
    create unique index by_index_key on public.by_index (b, a) include (c);
    alter table public.by_index replica identity using index by_index_key;
    create table public.by_nothing (id int primary key, v text);
    alter table public.by_nothing replica identity nothing;
    create table public.by_no_key (a int, b text);
    create table public.included (a int, b int, c text, primary key (b) include (a));
    create table public.deferred (id int primary key deferrable, v text);
    create table public.dropped (gone int, id int primary key, also_gone text, v text);
    alter table public.dropped drop column gone, drop column also_gone, add column w int[];
    create table public.computed (id int primary key, a int, twice int generated always as (a * 2) stored, b text);
    create table public.parent (id int primary key, v text);
    create table public.child (w int) inherits (public.parent);
    create table public.part (v text, id int, at date not null, primary key (id, at)) partition by range (at);
    create table public.part_old (at date not null, id int not null, v text);
    alter table public.part attach partition public.part_old for values from ('2000-01-01') to ('2020-01-01');
    create table public.part_new partition of public.part for values from ('2020-01-01') to ('2030-01-01') partition by list (id);
    create table public.part_new_1 partition of public.part_new for values in (1);
    alter table public.part_new_1 replica identity full;
    create table public.part_new_2 partition of public.part_new default;
    create table public.no_columns ();
"#;

/// What has only newer servers: lists of columns, conditions.
const TABLES_15: &str = "
    create table public.listed (a int, id int primary key, b text, c int);
    create table public.chosen (id int, v text, primary key (id, v));
    create table public.whole (id int primary key, v text);
    create schema all_of_it;
    create table all_of_it.chosen (id int primary key, v text);
";

const ROWS: &str = r#"
    insert into public.by_default values (1, 'a', 1, 'glad', 'x');
    insert into "Odd"."t""x" values ('b', 1);
    insert into public.by_full values (1, 'b');
    insert into public.by_index values (1, 'b', 2, 3);
    insert into public.by_nothing values (1, 'v');
    insert into public.by_no_key values (1, 'v');
    insert into public.included values (1, 2, 'v');
    insert into public.deferred values (1, 'v');
    insert into public.dropped values (1, 'v', '{1}');
    insert into public.computed (id, a, b) values (1, 2, 'v');
    insert into public.parent values (1, 'v');
    insert into public.child values (1, 'v', 2);
    insert into public.part values ('v', 1, '2010-01-01'), ('v', 1, '2021-01-01'), ('v', 2, '2021-01-01');
    insert into public.no_columns default values;
"#;

const ROWS_15: &str = "
    insert into public.listed values (1, 2, 'b', 3);
    insert into public.chosen values (7, 'v');
    insert into public.whole values (1, 'v');
    insert into all_of_it.chosen values (1, 'v');
";

#[test]
fn tables_are_described_as_the_stream_announces_them() {
    let stack = Stack::shared();
    let database = Database::create(&stack, "snapshot_catalog");
    let version: i32 = database.value("select current_setting('server_version_num')::int4");
    database.execute(TABLES);
    let mut publications = vec![
        ("every_root", "for all tables with (publish_via_partition_root = true)"),
        ("every_leaf", "for all tables with (publish_via_partition_root = false)"),
    ];
    if version >= 150_000 {
        database.execute(TABLES_15);
        publications.extend([
            (
                "chosen",
                "for table public.listed (b, id), public.chosen where (v = 'v' and id > 5), public.part (at, id) \
                 where (id < 3) with (publish_via_partition_root = true)",
            ),
            (
                "schemas",
                "for tables in schema all_of_it, table public.part, public.part_old where (id < 3), all_of_it.chosen where (id > 5) \
                 with (publish_via_partition_root = false)",
            ),
        ]);
    }
    if version >= 180_000 {
        publications.push(("generated", "for table public.computed with (publish_generated_columns = stored)"));
        publications.push(("generated_listed", "for table public.computed (id, twice)"));
    }
    for (name, what) in &publications {
        database.execute(&format!("create publication {name} {what}"));
        database.execute(&format!("select pg_create_logical_replication_slot('{}_{name}', 'pgoutput')", database.name));
    }
    database.execute(ROWS);
    if version >= 150_000 {
        database.execute(ROWS_15);
    }
    let mut compared = 0;
    for (name, _) in &publications {
        let mut announced = announced(&database, name);
        let published = "select (quote_ident(schemaname) || '.' || quote_ident(tablename))::regclass::oid
                         from pg_publication_tables where pubname = $1";
        for row in database.client().query(published, &[name]).expect("the publication is read") {
            let oid = Oid::from(row.get::<_, u32>(0));
            // The marker is the harness's, and nobody writes into it here.
            let Some(relation) = announced.remove(&oid) else { continue };
            assert_eq!(describe(&database, name, oid).relation, relation, "{name}");
            compared += 1;
        }
        // Before a root the server announces the leaf too, under whose name there are no rows then.
        assert!(announced.values().all(|relation| relation.name.starts_with("part_")), "{name}: {announced:?}");
    }
    assert!(compared >= 30, "{compared}");
    if version >= 150_000 {
        let filter = |publication: &str, table: &str| describe(&database, publication, oid(&database, table)).filter;
        let chosen = filter("chosen", "public.chosen").expect("it has one");
        assert_eq!(chosen, "((v = 'v'::text) AND (id > 5))");
        assert_eq!(filter("chosen", "public.part").as_deref(), Some("(id < 3)"));
        assert_eq!(filter("chosen", "public.listed"), None);
        assert_eq!(filter("schemas", "public.part_old").as_deref(), Some("(id < 3)"));
        assert_eq!(filter("schemas", "public.part_new_1"), None);
        assert_eq!(filter("schemas", "all_of_it.chosen"), None, "its schema is published whole");
    }
    assert_eq!(try_describe(&database, "no_such_publication", oid(&database, "public.parent")), None);
    assert_eq!(try_describe(&database, "every_root", Oid::from(1)), None);
}

/// What the server sends of the tables of a publication.
fn announced(database: &Database, publication: &str) -> BTreeMap<Oid, Relation> {
    let messages = database
        .client()
        .query(
            "select data from pg_logical_slot_peek_binary_changes($1, null, null, 'proto_version', '1', 'publication_names', $2)",
            &[&format!("{}_{publication}", database.name), &publication],
        )
        .expect("the slot is read");
    let mut decoder = Decoder::new(ProtocolVersion::V1);
    let decoded = messages.iter().map(|row| decoder.decode(Bytes::from(row.get::<_, Vec<u8>>(0))).expect("a message"));
    let relation = |message| match message {
        Message::Relation(relation) => Some((relation.id, relation)),
        _ => None,
    };
    decoded.filter_map(relation).collect()
}

const KEYED: &str = r#"
    create extension if not exists citext schema public;
    create type public.mood as enum ('glum', 'glad', 'am glad');
    create domain public.short as varchar(3);
    create domain public.shorter as public.short collate "C";
    create collation public.german (provider = icu, locale = 'de');
    create table public.by_text (k text collate public.german primary key, v text);
    create table public.by_citext (k public.citext primary key);
    create table public.by_three (a public.mood, b numeric, c public.shorter collate public.german, v text, primary key (b, c, a));
    create table public.by_bits (k bit(5) primary key);
    create table public.by_char (k char(4), r regclass, primary key (r, k));
    create table public.by_float (k double precision primary key);
    create table public.by_array (k text[] primary key);
    create table public.by_time (k timestamptz, "B" bytea, primary key (k, "B"));
    create table public.by_two_orders (k int, c public.citext, primary key (k, c));
    create table public.part (k int, v text, primary key (k)) partition by hash (k);
    create table public.part_a partition of public.part for values with (modulus 2, remainder 0);
    create table public.part_b partition of public.part for values with (modulus 2, remainder 1);
    insert into public.by_text select t, 'v' from unnest(array['a', 'B', 'Ä', 'ä', 'b''\\', E'\n', '', 'ß', 'z', 'Z', '"', '日本']) t;
    insert into public.by_citext select t::public.citext from unnest(array['a', 'B', 'c', 'D', 'e', 'Zz', 'y']) t;
    insert into public.by_three select a, b, c, 'v' from unnest(enum_range(null::public.mood)) a,
        unnest(array['NaN', '-1', '0', '1.50', 'NaN']::numeric[]) with ordinality n(b, o), unnest(array['a', 'B', 'ä']) c where o < 5;
    insert into public.by_bits select i::bit(5) from generate_series(0, 31) i;
    insert into public.by_char select c, r from unnest(array['a', 'ab', 'b ', '']) c,
        unnest(array['public.part', 'public.part_a', 'pg_class', 'public.by_text']::regclass[]) r;
    insert into public.by_float select f from unnest(array['NaN', 'Infinity', '-Infinity', '0.1', '1e-300', '0.30000000000000004', '0.3']::float8[]) f;
    insert into public.by_array select a::text[] from unnest(array['{}', '{a}', '{a,NULL}', '{"a b","\"\\"}', '{B,b}', '{{a},{b}}']) a;
    insert into public.by_time select t, b from unnest(array['infinity', '2024-02-29 12:00:00.000001+00', '0044-03-15 00:00:00+00 BC']::timestamptz[]) t,
        unnest(array['', '\x00', '\xff', '\x5c27']::bytea[]) b;
    insert into public.part select k, 'v' from generate_series(1, 20) k;
"#;

#[test]
fn keys_are_copied_in_order_to_the_last_whatever_their_types() {
    let stack = Stack::shared();
    let database = Database::create(&stack, "snapshot_keys");
    database.execute(KEYED);
    database.execute("create publication every_root for all tables with (publish_via_partition_root = true)");
    let mut client = session(&database);
    for table in ["by_text", "by_citext", "by_three", "by_bits", "by_char", "by_float", "by_array", "by_time", "part"] {
        let described = describe(&database, "every_root", oid(&database, &format!("public.{table}")));
        let key = described.read_order.as_ref().unwrap_or_else(|| panic!("{table} has a key"));
        let statement = described.copy();
        let columns = u16::try_from(key.columns.len()).expect("few");
        let (mut after, mut found) = (None::<Tuple>, Vec::new());
        loop {
            let range = KeyRange { key, after: after.as_ref(), up_to: None, condition: None, rows_max: 3 };
            let rows = copy(&mut client, &statement.of_keys(&range).expect("a key"), &described, columns);
            // The place of the third row, where there is one, has nothing else before it.
            let place = place(&mut client, &statement.place(key, after.as_ref(), None, 3).expect("a key"));
            assert_eq!(place.as_ref(), rows.get(2).map(|(place, _)| place), "{table}");
            if place.is_some() {
                let range = KeyRange { up_to: place.as_ref(), rows_max: 100, ..range };
                let bounded = copy(&mut client, &statement.of_keys(&range).expect("a key"), &described, columns);
                assert_eq!(bounded, rows, "{table}");
            }
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.clone());
            found.extend(rows.into_iter().map(|(_, row)| row));
        }
        let order: Vec<_> = key.columns.iter().map(|column| format!("{:?}", column.name)).collect();
        let all = format!("copy (select * from public.{table} order by {}) to stdout", order.join(", "));
        let expected: Vec<Tuple> = copy(&mut client, &all, &described, 0).into_iter().map(|(_, row)| row).collect();
        assert!(expected.len() > 5);
        assert_eq!(found, expected, "{table}");
        // Cut anywhere, each row lies in one part.
        for behind in [None, Some(0)] {
            let after = behind.map(|_| first_place(&mut client, &statement, key, &described));
            let query = statement.cuts(key, after.as_ref(), 100.0, 4).expect("a key");
            let cuts = cuts(&mut client, &query, key.columns.len());
            assert_eq!(cuts.len(), 3, "{table}");
            let places: Vec<Option<&Tuple>> = std::iter::once(after.as_ref()).chain(cuts.iter().map(Some)).collect();
            let mut in_parts = Vec::new();
            for (position, after) in places.iter().enumerate() {
                let up_to = places.get(position + 1).copied().flatten();
                let range = KeyRange { key, after: *after, up_to, condition: None, rows_max: 100 };
                let part = copy(&mut client, &statement.of_keys(&range).expect("a key"), &described, columns);
                assert!(part.len().abs_diff(expected.len() / 4) <= 1, "{table}: {}", part.len());
                in_parts.extend(part.into_iter().map(|(_, row)| row));
            }
            assert_eq!(in_parts, expected[behind.map_or(0, |_| 1)..], "{table}");
        }
    }
    let mixed = describe(&database, "every_root", oid(&database, "public.by_two_orders"));
    assert_eq!(mixed.read_order, None, "no one operator compares both columns");
}

/// The rows that a statement copies, each split behind so many columns that precede the table's.
fn copy(client: &mut Client, statement: &str, table: &SnapshotTable, before: u16) -> Vec<(Tuple, Tuple)> {
    let columns = u16::try_from(table.relation.columns.len()).expect("few");
    let mut rows = CopyRows::new(before + columns);
    let mut reader = client.copy_out(statement).unwrap_or_else(|error| panic!("{error:?} in: {statement}"));
    let (mut line, mut found) = (Vec::new(), Vec::new());
    while reader.read_until(b'\n', &mut line).expect("the copy goes on") > 0 {
        found.push(rows.decode(&line).expect("a row").split_at(before).expect("its columns"));
        line.clear();
    }
    found
}

/// The key of the first row of a table.
fn first_place(client: &mut Client, statement: &CopyStatement<'_>, key: &ReadOrder, table: &SnapshotTable) -> Tuple {
    let range = KeyRange { key, after: None, up_to: None, condition: None, rows_max: 1 };
    let columns = u16::try_from(key.columns.len()).expect("few");
    copy(client, &statement.of_keys(&range).expect("a key"), table, columns).remove(0).0
}

/// Where a table is cut.
fn cuts(client: &mut Client, query: &str, columns: usize) -> Vec<Tuple> {
    let answers = client.simple_query(query).unwrap_or_else(|error| panic!("{error:?} in: {query}"));
    let cut = |answer: &SimpleQueryMessage| {
        let SimpleQueryMessage::Row(row) = answer else { return None };
        let values = (0..columns).map(|column| Value::Text(row.get(column).expect("no null").as_bytes()));
        Some(Tuple::from_values(values).expect("it is small"))
    };
    answers.iter().filter_map(cut).collect()
}

/// The first row of a query.
fn place(client: &mut Client, query: &str) -> Option<Tuple> {
    let answers = client.simple_query(query).unwrap_or_else(|error| panic!("{error:?} in: {query}"));
    answers.iter().find_map(|answer| {
        let SimpleQueryMessage::Row(row) = answer else { return None };
        let values = (0..row.len()).map(|column| Value::Text(row.get(column).expect("no null").as_bytes()));
        Some(Tuple::from_values(values).expect("it is small"))
    })
}

/// A connection with the settings of the stream's.
fn session(database: &Database) -> Client {
    let mut client = database.client();
    client
        .batch_execute("set search_path = pg_catalog; set timezone = 'UTC'; set extra_float_digits = 3")
        .expect("they are set");
    client
}

fn oid(database: &Database, table: &str) -> Oid {
    Oid::from(database.value::<u32>(&format!("select '{table}'::regclass::oid")))
}

fn catalog(database: &Database) -> Catalog {
    Catalog::new(Arc::new(database.url.parse().expect("a URL")))
}

fn describe(database: &Database, publication: &str, table: Oid) -> SnapshotTable {
    try_describe(database, publication, table).expect("the table is there")
}

fn try_describe(database: &Database, publication: &str, table: Oid) -> Option<SnapshotTable> {
    block_on(async { catalog(database).snapshot_table(publication, table).await.expect("the server answers") })
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

/// What a copy goes by from one chunk to the next must not change unseen.
#[test]
fn whatever_changes_what_is_copied_is_seen() {
    let stack = Stack::shared();
    let database = Database::create(&stack, "snapshot_fingerprint");
    database.execute(
        "create schema app; create type app.mood as enum ('glum', 'glad');
         create table app.t (id int primary key, m app.mood, v varchar(9)); create table app.other (id int primary key);
         create publication of_tables for table app.t",
    );
    let table = oid(&database, "app.t");
    let fingerprint = || block_on(async { catalog(&database).fingerprint(table).await.expect("the server answers") });
    let mut changes = vec![
        "alter table app.t add column w int",
        "alter table app.t alter column v type text",
        "alter table app.t replica identity full",
        "alter type app.mood rename value 'glad' to 'merry'",
        "alter type app.mood add value 'so so'",
        "alter table app.t drop constraint t_pkey, add primary key (id, v)",
        "alter publication of_tables set (publish_via_partition_root = true)",
        "alter publication of_tables drop table app.t",
        "alter publication of_tables add table app.t",
        "alter schema app rename to app_old",
        "alter table app_old.t rename to u",
    ];
    if database.value::<i32>("select current_setting('server_version_num')::int4") >= 150_000 {
        changes.insert(7, "alter publication of_tables set table app.t where (id > 5)");
        changes.insert(8, "alter publication of_tables add tables in schema app");
        changes.insert(9, "alter publication of_tables drop tables in schema app");
    }
    let mut seen = vec![fingerprint()];
    for change in changes {
        database.execute(change);
        let after = fingerprint();
        assert_ne!(seen.last(), Some(&after), "{change}");
        seen.push(after);
    }
    database
        .execute("insert into app_old.u values (1, null, 'v'); analyze app_old.u; create table app_old.new (id int)");
    assert_eq!(seen.last(), Some(&fingerprint()), "what is nothing to it");
}
