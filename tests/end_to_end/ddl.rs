//! Tables that change while they are streamed.
//!
//! Each row must be written under the schema that it had, with the key that it had, once. What happens to a table is a case: statements
//! before the change, the change, and statements after it. All cases go through in four ways, since what the catalog says at the time at
//! which a row is decoded may be newer than the row: within a transaction; one transaction after another while the stream runs; with a
//! SIGKILL before the change, which happens in between two lives; and all of it in between, so that the second life finds the newest
//! catalog only.
//!
//! The program is configured as anybody's, and the registry takes every schema: what happens where it does not is a test of its own.

mod keys;

use std::fmt::Write as _;

use crate::harness::{
    event::Record,
    kafka,
    oracle::Row,
    stack::Stack,
    stream::{Program, START_TIMEOUT, Stream},
    wait_until,
};

/// What happens to a table, or to a few.
struct Case {
    create: &'static str,
    before: &'static str,
    change: &'static str,
    after: &'static str,
    /// What each topic holds, by the name of its table: operation, key, and the row; for an update with the row before it, if there is one.
    expected: &'static [(&'static str, &'static [&'static str])],
}

/// A case that happens in any way.
const CASES: &[Case] = &[
    // A column is added, and the rows that were there get its default.
    Case {
        create: "create table public.add_column (id int primary key, a text)",
        before: "insert into public.add_column values (1, 'a')",
        change: "alter table public.add_column add b int not null default 7",
        after: "insert into public.add_column values (2, 'b', 8); update public.add_column set a = 'c' where id = 1;
                delete from public.add_column where id = 2",
        expected: &[(
            "public.add_column",
            &["c id=1: a=a id=1", "c id=2: a=b b=8 id=2", "u id=1: a=c b=7 id=1", "d id=2", "tombstone id=2"],
        )],
    },
    Case {
        create: "create table public.drop_column (id int primary key, a text, b int)",
        before: "insert into public.drop_column values (1, 'a', 1)",
        change: "alter table public.drop_column drop a",
        after: "insert into public.drop_column values (2, 2); update public.drop_column set b = 3 where id = 1",
        expected: &[("public.drop_column", &["c id=1: a=a b=1 id=1", "c id=2: b=2 id=2", "u id=1: b=3 id=1"])],
    },
    // The key's column among them.
    Case {
        create: "create table public.rename_column (id int primary key, a text)",
        before: "insert into public.rename_column values (1, 'a')",
        change: "alter table public.rename_column rename a to b; alter table public.rename_column rename id to number",
        after: "insert into public.rename_column values (2, 'b'); update public.rename_column set number = 3 where number = 1",
        expected: &[(
            "public.rename_column",
            &[
                "c id=1: a=a id=1",
                "c number=2: b=b number=2",
                "d number=1",
                "tombstone number=1",
                "c number=3: b=a number=3",
            ],
        )],
    },
    // Names that go to another column of the same type.
    Case {
        create: "create table public.swap_columns (id int primary key, a int not null, b int)",
        before: "insert into public.swap_columns values (1, 10, null)",
        change: "alter table public.swap_columns rename a to c; alter table public.swap_columns rename b to a;
                 alter table public.swap_columns rename c to b",
        after: "insert into public.swap_columns values (2, 20, null)",
        expected: &[("public.swap_columns", &["c id=1: a=10 b=null id=1", "c id=2: a=null b=20 id=2"])],
    },
    Case {
        create: "create table public.retype (id int primary key, a int not null, n numeric(10,2), t timestamp(3))",
        before: "insert into public.retype values (1, 1, 1.25, '1970-01-01 00:00:01')",
        change: "alter table public.retype alter a type text using 'n' || a, alter n type numeric(12,4),
                 alter t type timestamp",
        after: "insert into public.retype values (2, 'two', 1.25, '1970-01-01 00:00:02');
                update public.retype set n = 3 where id = 1",
        expected: &[(
            "public.retype",
            &[
                "c id=1: a=1 id=1 n=1.25 t=1000",
                "c id=2: a=two id=2 n=1.2500 t=2000000",
                "u id=1: a=n1 id=1 n=3.0000 t=1000000",
            ],
        )],
    },
    // The same name, and nothing else.
    Case {
        create: "create table public.again_column (id int primary key, a int not null)",
        before: "insert into public.again_column values (1, 1)",
        change: "alter table public.again_column drop a; alter table public.again_column add a text not null default 'new'",
        after: "insert into public.again_column values (2, 'two')",
        expected: &[("public.again_column", &["c id=1: a=1 id=1", "c id=2: a=two id=2"])],
    },
    // What is stricter now than it was.
    Case {
        create: "create table public.strict (id int primary key, a int, b int not null)",
        before: "insert into public.strict values (1, null, 1); update public.strict set a = 5",
        change: "alter table public.strict alter a set not null, alter b drop not null",
        after: "insert into public.strict values (2, 2, null)",
        expected: &[("public.strict", &["c id=1: a=null b=1 id=1", "u id=1: a=5 b=1 id=1", "c id=2: a=2 b=null id=2"])],
    },
    Case {
        create: "create table public.key (id int primary key, code int not null)",
        before: "insert into public.key values (1, 10), (2, 20); update public.key set id = 3 where id = 2",
        change: "alter table public.key drop constraint key_pkey, add primary key (code)",
        after: "insert into public.key values (1, 40); update public.key set code = 11 where code = 10;
                delete from public.key where code = 40",
        expected: &[(
            "public.key",
            &[
                "c id=1: code=10 id=1",
                "c id=2: code=20 id=2",
                "d id=2",
                "tombstone id=2",
                "c id=3: code=20 id=3",
                "c code=40: code=40 id=1",
                "d code=10",
                "tombstone code=10",
                "c code=11: code=11 id=1",
                "d code=40",
                "tombstone code=40",
            ],
        )],
    },
    // The whole row, which leaves the key, and then another index.
    Case {
        create: "create table public.identity (id int primary key, code int not null unique)",
        before: "insert into public.identity values (1, 10); update public.identity set code = 11",
        change: "alter table public.identity replica identity full; update public.identity set code = 12;
                 alter table public.identity replica identity using index identity_code_key",
        after: "update public.identity set id = 2; update public.identity set code = 13",
        expected: &[(
            "public.identity",
            &[
                "c id=1: code=10 id=1",
                "u id=1: code=11 id=1",
                "u id=1: code=12 id=1, before: code=11 id=1",
                "u code=12: code=12 id=2",
                "d code=12",
                "tombstone code=12",
                "c code=13: code=13 id=2",
            ],
        )],
    },
    Case {
        create: "create table public.rename_table (id int primary key, a text)",
        before: "insert into public.rename_table values (1, 'a')",
        change: "alter table public.rename_table rename to renamed_table",
        after: "insert into public.renamed_table values (2, 'b'); delete from public.renamed_table where id = 1",
        expected: &[
            ("public.rename_table", &["c id=1: a=a id=1"]),
            ("public.renamed_table", &["c id=2: a=b id=2", "d id=1", "tombstone id=1"]),
        ],
    },
    Case {
        create: "create table public.moved (id int primary key, a text)",
        before: "insert into public.moved values (1, 'a')",
        change: "alter table public.moved set schema other",
        after: "insert into other.moved values (2, 'b'); update other.moved set a = 'c' where id = 1",
        expected: &[
            ("public.moved", &["c id=1: a=a id=1"]),
            ("other.moved", &["c id=2: a=b id=2", "u id=1: a=c id=1"]),
        ],
    },
    // As a table is exchanged for one that was prepared.
    Case {
        create: "create table public.swap (id int primary key, a text); create table public.prepared (id bigint primary key, b text)",
        before: "insert into public.swap values (1, 'a'); insert into public.prepared values (5, 'b')",
        change: "alter table public.swap rename to swap_old; alter table public.prepared rename to swap",
        after: "insert into public.swap values (2, 'b'); insert into public.swap_old values (3, 'c')",
        expected: &[
            ("public.swap", &["c id=1: a=a id=1", "c id=2: b=b id=2"]),
            ("public.prepared", &["c id=5: b=b id=5"]),
            ("public.swap_old", &["c id=3: a=c id=3"]),
        ],
    },
    // A new table of the same name is published by whoever makes it: until then it is no part of the stream.
    Case {
        create: "create table public.recreated (id int primary key, a text)",
        before: "insert into public.recreated values (1, 'a')",
        change: "drop table public.recreated; create table public.recreated (code text primary key, b int);
                 alter publication {publication} add table public.recreated",
        after: "insert into public.recreated values ('x', 1); delete from public.recreated",
        expected: &[(
            "public.recreated",
            &["c id=1: a=a id=1", "c code=x: b=1 code=x", "d code=x", "tombstone code=x"],
        )],
    },
    Case {
        create: "create type mood as enum ('sad', 'happy'); create table public.enum (id int primary key, m mood)",
        before: "insert into public.enum values (1, 'happy')",
        change: "alter type mood rename value 'happy' to 'glad'",
        after: "insert into public.enum values (2, 'glad'), (3, 'sad')",
        expected: &[("public.enum", &["c id=1: id=1 m=happy", "c id=2: id=2 m=glad", "c id=3: id=3 m=sad"])],
    },
    // Types of every kind that are gone when their rows are decoded.
    Case {
        create: "create type gone_mood as enum ('sad', 'happy'); create domain gone_amount as numeric(10,2) not null;
                 create type gone_address as (street text, zip int); create type gone_range as range (subtype = text);
                 create table public.gone (id int primary key, m gone_mood, n gone_amount, a gone_address, r gone_range,
                                           ms gone_mood[])",
        before: "insert into public.gone values (1, 'happy', 1.5, '(x,1)', '[a,b)', '{happy,sad}')",
        change: "drop type gone_mood cascade; drop domain gone_amount cascade; drop type gone_address cascade;
                 drop type gone_range cascade",
        after: "insert into public.gone values (2)",
        expected: &[("public.gone", &["c id=1: a=(x,1) id=1 m=happy ms={happy,sad} n=1.50 r=[a,b)", "c id=2: id=2"])],
    },
    // A table that is gone, with its types.
    Case {
        create: "create type lost_mood as enum ('sad'); create table public.lost (id int primary key, m lost_mood not null)",
        before: "insert into public.lost values (1, 'sad'); update public.lost set id = 2",
        change: "drop table public.lost; drop type lost_mood",
        after: "select 1",
        expected: &[("public.lost", &["c id=1: id=1 m=sad", "d id=1", "tombstone id=1", "c id=2: id=2 m=sad"])],
    },
];

/// With the whole row as the identity, the stream does not say what the key is. A process that was not there when it was replaced knows the
/// newest only, so that each row here is decoded before the next change.
const WHOLE_ROWS: &[Case] = &[
    Case {
        create: "create table public.full_key (id int primary key, code int not null);
                 alter table public.full_key replica identity full",
        before: "insert into public.full_key values (1, 10)",
        change: "alter table public.full_key drop constraint full_key_pkey, add primary key (code)",
        after: "update public.full_key set id = 2",
        expected: &[("public.full_key", &["c id=1: code=10 id=1", "u code=10: code=10 id=2, before: code=10 id=1"])],
    },
    Case {
        create: "create table public.full_name (id int primary key, a int);
                 alter table public.full_name replica identity full",
        before: "insert into public.full_name values (1, 10)",
        change: "alter table public.full_name rename id to number",
        after: "insert into public.full_name values (2, 20)",
        expected: &[("public.full_name", &["c id=1: a=10 id=1", "c number=2: a=20 number=2"])],
    },
    Case {
        create: "create table public.full_gone (id int primary key, a int);
                 alter table public.full_gone replica identity full",
        before: "insert into public.full_gone values (1, 10)",
        change: "drop table public.full_gone",
        after: "select 1",
        expected: &[("public.full_gone", &["c id=1: a=10 id=1"])],
    },
];

/// A value of an enum cannot be used in the transaction that adds it.
const ADDED_VALUE: Case = Case {
    create: "create type size as enum ('small'); create table public.enum_added (id int primary key, s size not null default 'small')",
    before: "insert into public.enum_added values (1)",
    change: "alter type size add value 'large' after 'small'",
    after: "insert into public.enum_added values (2, 'large')",
    expected: &[("public.enum_added", &["c id=1: id=1 s=small", "c id=2: id=2 s=large"])],
};

#[test]
fn within_a_transaction() {
    let (stack, cases) = (Stack::shared(), CASES.iter());
    let stream = streamed(&stack, "ddl_within", cases.clone());
    let program = stream.start_ready();
    for case in cases.clone() {
        let statements = [case.before, case.change, case.after].join("; ");
        run(&stream, &format!("begin; {statements}; commit"));
    }
    finish(&stream, program, cases);
}

#[test]
fn from_one_transaction_to_the_next() {
    let (stack, cases) = (Stack::shared(), CASES.iter().chain([&ADDED_VALUE]));
    let stream = streamed(&stack, "ddl_between", cases.clone());
    let program = stream.start_ready();
    for case in cases.clone() {
        for statements in [case.before, case.change, case.after] {
            run(&stream, statements);
        }
    }
    finish(&stream, program, cases);
}

#[test]
fn from_one_life_to_the_next() {
    let (stack, cases) = (Stack::shared(), CASES.iter().chain([&ADDED_VALUE]));
    let stream = streamed(&stack, "ddl_lives", cases.clone());
    let program = stream.start_ready();
    for case in cases.clone() {
        run(&stream, case.before);
    }
    stream.drain();
    program.kill();
    for case in cases.clone() {
        run(&stream, case.change);
        run(&stream, case.after);
    }
    let program = stream.start_ready();
    finish(&stream, program, cases);
}

#[test]
fn while_nobody_streams() {
    let (stack, cases) = (Stack::shared(), CASES.iter().chain([&ADDED_VALUE]));
    let stream = streamed(&stack, "ddl_nobody", cases.clone());
    stream.start_ready().kill();
    for case in cases.clone() {
        for statements in [case.before, case.change, case.after] {
            run(&stream, statements);
        }
    }
    let program = stream.start_ready();
    finish(&stream, program, cases);
}

#[test]
fn the_key_of_whole_rows_is_the_catalogs() {
    let (stack, cases) = (Stack::shared(), WHOLE_ROWS.iter());
    let mut stream = streamed(&stack, "ddl_whole", cases.clone());
    stream.set("postgres.on_uncertain_key", "likely");
    let program = stream.start_ready();
    for statements in [|case: &Case| case.before, |case: &Case| case.change, |case: &Case| case.after] {
        for case in cases.clone() {
            run(&stream, statements(case));
        }
        stream.drain();
    }
    // What is gone is known by the life that has seen it.
    finish(&stream, program, cases);
}

/// A change that no reader could follow is asked about at the registry before anything of it is sent, and the stream waits, in this life and
/// the next. What came before is there, and what comes behind waits with it. When the subject's level allows it, everything follows, once.
#[test]
fn a_change_that_the_subject_does_not_allow_waits_for_a_decision() {
    let stack = Stack::shared();
    let topic = format!("_schemas_ddl_{}", std::process::id());
    let mut stream = Stream::create_with_built_in_registry(&stack, "ddl_level", &topic);
    stream.set("kafka.transaction.split_after_age", "4s");
    stream.database.create_tables(
        "create table public.item (id int primary key, n int not null); create table public.other (id int primary key)",
    );
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (1, 1); insert into public.other values (1)");
    stream.drain();
    stream.database.execute(
        "begin; insert into public.item values (2, 2); alter table public.item alter n type text using 'n' || n;
         insert into public.item values (3, 'three'); insert into public.other values (2); commit",
    );
    let waiting = stream.database.wal_lsn();
    await_incompatible(&program);
    program.kill();
    let program = stream.start();
    await_incompatible(&program);
    assert!(stream.database.confirmed_flush_lsn(&stream.slot) < Some(waiting), "what waits is not confirmed");
    // A transaction that has waited for so long is split: what is of the old schema may be there, and nothing else.
    let held = stream.records();
    let item = shown(&held, "public.item");
    assert!(
        ["c id=1: id=1 n=1", "c id=2: id=2 n=2"].starts_with(&item.iter().map(String::as_str).collect::<Vec<_>>()),
        "{item:?}"
    );
    assert_eq!(shown(&held, "public.other"), ["c id=1: id=1"], "what comes behind waits too");

    let subject = format!(r#"{{"keytype":"CONFIG","subject":"{}-value","magic":0}}"#, stream.topic("item"));
    kafka::write(&stream.bootstrap_servers, &topic, &subject, Some(r#"{"compatibilityLevel":"NONE"}"#));
    stream.drain();
    let records = stream.records();
    assert_eq!(shown(&records, "public.item"), ["c id=1: id=1 n=1", "c id=2: id=2 n=2", "c id=3: id=3 n=three"]);
    assert_eq!(shown(&records, "public.other"), ["c id=1: id=1", "c id=2: id=2"]);
    program.terminate();
}

fn await_incompatible(program: &Program) {
    wait_until(START_TIMEOUT, "the probe says what the stream waits for", || {
        program.readiness().filter(|answer| answer.status == 503 && answer.body.contains("registry-incompatible"))
    });
}

fn streamed<'a>(stack: &Stack, label: &str, cases: impl Iterator<Item = &'a Case>) -> Stream {
    let mut stream = Stream::create(stack, label);
    stream.set("postgres.tables", r#"["public.*", "other.*"]"#);
    stream.database.execute("create schema other");
    for case in cases {
        stream.database.execute(case.create);
    }
    stream
}

fn run(stream: &Stream, statements: &str) {
    stream.database.execute(&statements.replace("{publication}", &stream.publication));
}

fn finish<'a>(stream: &Stream, program: Program, cases: impl Iterator<Item = &'a Case>) {
    stream.drain();
    program.terminate();
    let records = stream.records();
    let mut wrong = String::new();
    for (name, expected) in cases.flat_map(|case| case.expected) {
        let found = shown(&records, name);
        if found != *expected {
            write!(wrong, "\n{name} should hold\n  {}\nand holds\n  {}", expected.join("\n  "), found.join("\n  "))
                .expect("a string takes all");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The records of a table in the order of the source, each tombstone after its delete.
fn shown(records: &[Record], name: &str) -> Vec<String> {
    let mut newest = None;
    let of_table = records.iter().filter(|record| format!("{}.{}", record.schema, record.table) == name);
    let mut ordered: Vec<_> = of_table
        .map(|record| {
            newest = record.event.as_ref().map(|event| event.identity).or(newest);
            ((newest, record.event.is_none()), show(record))
        })
        .collect();
    ordered.sort();
    ordered.into_iter().map(|(_, shown)| shown).collect()
}

fn show(record: &Record) -> String {
    let row = |row: &Row| {
        let field =
            |(name, value): (&String, &Option<String>)| format!("{name}={}", value.as_deref().unwrap_or("null"));
        row.iter().map(field).collect::<Vec<_>>().join(" ")
    };
    let key = record.key.as_ref().map_or("no key".to_owned(), row);
    let Some(event) = &record.event else { return format!("tombstone {key}") };
    let mut shown = format!("{} {key}", event.operation);
    if let Some(after) = &event.after {
        shown = format!("{shown}: {}", row(after));
        if let Some(before) = &event.before {
            shown = format!("{shown}, before: {}", row(before));
        }
    }
    shown
}
