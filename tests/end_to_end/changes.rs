//! What each kind of change becomes.

use crate::harness::{
    event::{Event, Record, UNAVAILABLE},
    oracle::{Row, Table},
    stack::Stack,
    stream::{START_TIMEOUT, Stream},
    wait_until,
};

fn row(fields: &[(&str, &str)]) -> Row {
    fields.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect()
}

/// The records of one table in the order of the source; each tombstone after its delete.
fn of_table<'a>(records: &'a [Record], table: &str) -> Vec<&'a Record> {
    let mut newest = None;
    let mut ordered: Vec<_> = records
        .iter()
        .filter(|record| record.table == table)
        .map(|record| {
            newest = record.event.as_ref().map(|event| event.identity).or(newest);
            (newest, record.event.is_none(), record)
        })
        .collect();
    ordered.sort_by_key(|(identity, is_tombstone, _)| (*identity, *is_tombstone));
    ordered.into_iter().map(|(_, _, record)| record).collect()
}

fn events<'a>(records: &'a [Record], table: &str) -> Vec<&'a Event> {
    of_table(records, table).into_iter().filter_map(|record| record.event.as_ref()).collect()
}

#[test]
fn every_type_has_its_value() {
    let stack = Stack::shared();
    let stream = Stream::create(&stack, "types");
    stream.database.execute(
        "create type mood as enum ('sad', 'happy');
         create table public.kinds (
            id bigint primary key, b boolean, i2 smallint, i4 int, i8 bigint, f4 real, f8 double precision,
            n numeric, n_p numeric(12,4), n_i numeric(10,0), ch char(5), vc varchar(20), t text, by bytea,
            d date, tm time, ts timestamp, tstz timestamptz, u uuid, j json, jb jsonb,
            ip inet, r int4range, iv interval, a int[], m mood)",
    );
    let program = stream.start_ready();
    stream.database.execute(
        "insert into public.kinds values (1, true, -32768, 2147483647, -9223372036854775808, 1.5, 2.718281828459045,
            123456789012345678901234567890.123456789, 12345678.1234, -1234567890, 'ab', 'vc', E'é\\n', '\\xdeadbeef',
            '2024-02-29', '12:34:56.789012', '2024-02-29 12:34:56.789012', '2024-02-29 12:34:56.789012+02',
            '123e4567-e89b-12d3-a456-426614174000', '{\"a\": 1, \"b\":[1,2]}', '{\"b\":2,\"a\":null}',
            '192.168.1.5/24', '[1,5)', '1 year 2 mons 3 days 04:05:06.789', '{1,NULL,3}', 'happy');
         insert into public.kinds(id) values (2)",
    );
    stream.drain();
    program.terminate();
    let records = stream.records();
    let found = events(&records, "kinds");
    let expected = row(&[
        ("id", "1"),
        ("b", "true"),
        ("i2", "-32768"),
        ("i4", "2147483647"),
        ("i8", "-9223372036854775808"),
        ("f4", "1.5"),
        ("f8", "2.718281828459045"),
        ("n", "123456789012345678901234567890.123456789"),
        ("n_p", "12345678.1234"),
        ("n_i", "-1234567890"),
        ("ch", "ab   "),
        ("vc", "vc"),
        ("t", "é\n"),
        ("by", "deadbeef"),
        ("d", "19782"),
        ("tm", "45296789012"),
        ("ts", "1709210096789012"),
        ("tstz", "2024-02-29T10:34:56.789012Z"),
        ("u", "123e4567-e89b-12d3-a456-426614174000"),
        ("j", "{\"a\": 1, \"b\":[1,2]}"),
        ("jb", "{\"a\": null, \"b\": 2}"),
        ("ip", "192.168.1.5/24"),
        ("r", "[1,5)"),
        // 14 months of 30.4375 days, and the rest.
        ("iv", "37091106789000"),
        ("a", "{1,NULL,3}"),
        ("m", "happy"),
    ]);
    assert_eq!(found[0].after.as_ref(), Some(&expected));
    let nulls: Row = expected.keys().map(|name| (name.clone(), (name == "id").then(|| "2".to_owned()))).collect();
    assert_eq!(found[1].after.as_ref(), Some(&nulls));
    assert_eq!(found.len(), 2);
}

const OPERATIONS: &[Table] = &[
    Table { name: "item", key: &["id"], full: false },
    Table { name: "keyless", key: &[], full: true },
    Table { name: "toast", key: &["id"], full: false },
    Table { name: "toast_full", key: &["id"], full: true },
];

#[test]
fn every_operation_has_its_records() {
    let stack = Stack::shared();
    let stream = Stream::create(&stack, "operations");
    stream.database.create_tables(
        "create table public.item (id int primary key, text text);
         create table public.keyless (a int, b text);
         alter table public.keyless replica identity full;
         create table public.toast (id int primary key, small text, big text);
         alter table public.toast alter big set storage external;
         create table public.toast_full (id int primary key, small text, big text);
         alter table public.toast_full alter big set storage external;
         alter table public.toast_full replica identity full;",
    );
    let program = stream.start_ready();
    for sql in [
        "insert into public.item values (1, 'a'), (2, null)",
        "update public.item set text = 'b' where id = 1",
        "update public.item set id = 3 where id = 1",
        "delete from public.item where id = 3",
        "begin; insert into public.item values (4, 'x'); insert into public.toast values (9, 'y', 'z');
         insert into public.item values (5, 'x'); rollback",
        "begin; insert into public.item values (6, 'x'); savepoint s; insert into public.item values (7, 'x'); rollback to s;
         insert into public.toast values (1, 'a', repeat('0123456789', 500)); insert into public.item values (8, 'x'); commit",
        "select pg_logical_emit_message(true, 'p', 'transactional'), pg_logical_emit_message(false, 'p', 'not')",
        "update public.toast set small = 'b' where id = 1",
        "update public.toast set id = 2 where id = 1",
        "update public.toast set big = repeat('9876543210', 500) where id = 2",
        "insert into public.toast_full values (1, 'a', repeat('0123456789', 500))",
        "update public.toast_full set small = 'b' where id = 1",
        "update public.toast_full set id = 2 where id = 1",
        "insert into public.keyless values (1, 'a'), (1, 'a')",
        "update public.keyless set b = 'c'",
        "delete from public.keyless where a = 1",
        "truncate public.item, public.keyless",
        "insert into public.item values (1, 'again')",
    ] {
        stream.database.execute(sql);
    }
    stream.drain();
    // Whatever was charged for these records, headers among it, was given back for them.
    wait_until(START_TIMEOUT, "no memory is charged any more", || {
        program.metric("queue_bytes").filter(|bytes| *bytes == 0.0)
    });
    program.terminate();
    let (records, verdict) = stream.judge(OPERATIONS);
    verdict.assert_flawless();

    let shown: Vec<_> = of_table(&records, "item")
        .into_iter()
        .map(|record| {
            let id = |row: &Option<Row>| row.as_ref().and_then(|row| row["id"].clone());
            let operation = record.event.as_ref().map_or("tombstone", |event| event.operation.as_str());
            (operation, id(&record.key), id(&record.old_key), id(&record.new_key))
        })
        .collect();
    let id = |id: &str| Some(id.to_owned());
    assert_eq!(
        shown,
        [
            ("c", id("1"), None, None),
            ("c", id("2"), None, None),
            ("u", id("1"), None, None),
            ("d", id("1"), None, id("3")),
            ("tombstone", id("1"), None, id("3")),
            ("c", id("3"), id("1"), None),
            ("d", id("3"), None, None),
            ("tombstone", id("3"), None, None),
            ("c", id("6"), None, None),
            ("c", id("8"), None, None),
            // In each partition.
            ("t", None, None, None),
            ("t", None, None, None),
            ("t", None, None, None),
            ("c", id("1"), None, None),
        ]
    );

    let (first, second) = ("0123456789".repeat(500), "9876543210".repeat(500));
    let big = |event: &&Event| event.after.as_ref().and_then(|row| row["big"].clone());
    let of_default: Vec<_> = events(&records, "toast").iter().map(big).collect();
    let unavailable = Some(UNAVAILABLE.to_owned());
    assert_eq!(of_default, [Some(first.clone()), unavailable.clone(), None, unavailable, Some(second)]);
    let of_full: Vec<_> = events(&records, "toast_full").iter().map(big).collect();
    assert_eq!(of_full, [Some(first.clone()), Some(first.clone()), None, Some(first)]);

    // One transaction over two tables: one commit, ordinals through both, and each table's own.
    let (items, toasts) = (events(&records, "item"), events(&records, "toast"));
    let six = items.iter().find(|event| event.after == Some(row(&[("id", "6"), ("text", "x")]))).expect("it is there");
    let orders: Vec<_> = items
        .iter()
        .chain(&toasts)
        .filter(|event| event.identity.commit_lsn == six.identity.commit_lsn)
        .map(|event| (event.identity.ordinal, event.table_ordinal))
        .collect();
    assert_eq!(orders, [(1, 1), (3, 2), (2, 1)]);
}

#[test]
fn each_row_has_the_columns_that_it_was_written_with() {
    let stack = Stack::shared();
    let stream = Stream::create(&stack, "evolution");
    stream.database.execute("create table public.evolving (id int primary key, a text)");
    let program = stream.start_ready();
    stream.database.execute(
        "begin;
         insert into public.evolving values (1, 'one');
         alter table public.evolving add b int;
         insert into public.evolving values (2, 'two', 2);
         savepoint s;
         alter table public.evolving add c int;
         insert into public.evolving values (3, 'three', 3, 3);
         rollback to s;
         insert into public.evolving values (4, 'four', 4);
         alter table public.evolving drop a;
         insert into public.evolving values (5, 5);
         commit;
         alter table public.evolving alter b type text;
         insert into public.evolving values (6, 'six')",
    );
    stream.drain();
    program.terminate();
    let records = stream.records();
    let rows: Vec<_> = events(&records, "evolving").iter().map(|event| event.after.clone().expect("a row")).collect();
    assert_eq!(
        rows,
        [
            row(&[("id", "1"), ("a", "one")]),
            row(&[("id", "2"), ("a", "two"), ("b", "2")]),
            row(&[("id", "4"), ("a", "four"), ("b", "4")]),
            row(&[("id", "5"), ("b", "5")]),
            row(&[("id", "6"), ("b", "six")]),
        ]
    );
}
