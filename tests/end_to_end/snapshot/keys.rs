//! Keys of every kind: where one chunk ends the next one begins, and no row is between them.
//!
//! The cursor is text that goes through the checkpoint and back to the server, which has to find the same place by it, in the order of the
//! column's type and collation. Each table has several chunks, and the copy goes through several lives.

use std::{collections::BTreeMap, thread};

use super::{COPY_TIMEOUT, await_copied};
use crate::harness::{
    random::Random,
    stack::Stack,
    stream::{Program, Stream},
    wait_until,
};

/// More than a first chunk and a second one.
const ROWS: usize = 1300;

/// A table whose rows are told apart by what is said here; beside that it has a number and something to fill chunks with.
struct Keyed {
    name: &'static str,
    /// Its other columns, and what is unique.
    columns: &'static str,
    /// Their names and values in the row with the number `n`.
    insert: &'static str,
    /// What is done to it before it has rows.
    then: &'static str,
}

const fn keyed(name: &'static str, columns: &'static str, insert: &'static str) -> Keyed {
    Keyed { name, columns, insert, then: "" }
}

/// Names and types that the tables need.
const TYPES: &str = "
    create type public.mood as enum ('zulu', 'alpha', 'mike');
    create domain public.code as text check (value <> '');
    create collation public.caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
";

/// The characters of a quoted literal, of COPY and of JSON, and some thousand others.
const ODD_TEXT: &str = r#"(k) select n, pad, n % 50 || E'\'"\\\t\n\r{},$$' || chr(n) || E'\\' "#;

const TABLES: [Keyed; 23] = [
    keyed("composite", "a text, b int, primary key (b, a)", "(a, b) select n, pad, 'a' || n % 400, -(n % 7)"),
    keyed("caseless", "k text collate public.caseless primary key", "(k) select n, pad, chr(65 + n % 26 + 32 * (n % 2)) || n"),
    keyed("odd_c", "k text collate \"C\" primary key", ODD_TEXT),
    keyed("odd_default", "k text primary key", ODD_TEXT),
    keyed("uuid", "k uuid primary key", "(k) select n, pad, md5(n::text)::uuid"),
    keyed(
        "instant",
        "k timestamptz primary key",
        "(k) select n, pad, timestamptz '2020-10-25 00:00:00.000001+02' - n * interval '3 years 25 minutes'",
    ),
    keyed("local", "k timestamp primary key", "(k) select n, pad, timestamp '2020-10-25 00:00' + n * interval '1.000001 s'"),
    keyed("exact", "k numeric primary key", "(k) select n, pad, case n % 3 when 0 then n when 1 then n + 0.00 else -n / 7.0 end"),
    keyed("bytes", "k bytea primary key", r"(k) select n, pad, '\x00'::bytea || decode(md5(n::text), 'hex') || '\x5c27'::bytea"),
    keyed(
        "inexact",
        "k float8 primary key",
        "(k) select n, pad, case n when 1 then 'NaN' when 2 then '-0' when 3 then 'infinity' when 4 then '-infinity' when 5 then 5e-324
                            else (n / 7.0)::float8 * (-1) ^ n end",
    ),
    keyed("single", "k float4 primary key", "(k) select n, pad, (n / 7.0)::float4"),
    keyed(
        "labels",
        "k public.mood, b int, primary key (k, b)",
        "(k, b) select n, pad, (enum_range(null::public.mood))[1 + n % 3], n",
    ),
    keyed("blanks", "k char(5) primary key", "(k) select n, pad, to_char(n, 'FM9999')"),
    keyed("negative", "k bigint primary key", "(k) select n, pad, (n - 650) * 1000000000000"),
    keyed("days", "b boolean, d date, primary key (b, d)", "(b, d) select n, pad, n % 2 = 0, date '0001-06-01' - n"),
    keyed("domain", "k public.code primary key", "(k) select n, pad, 'code ' || n"),
    keyed("spans", "k interval primary key", "(k) select n, pad, n * interval '1 month 3 days -02:00:00.5'"),
    keyed("list", "k text[] primary key", r#"(k) select n, pad, array['a', n::text, null, '{"\']"#),
    keyed("document", "k jsonb primary key", r#"(k) select n, pad, jsonb_build_object('n"\', n / 3.0)"#),
    keyed("quoted", r#""K ""ö" int, primary key ("K ""ö")"#, r#"("K ""ö") select n, pad, -n"#),
    Keyed {
        name: "by_index",
        columns: "id int primary key, code text not null",
        insert: "(id, code) select n, pad, n, md5(n::text)",
        then: "create unique index by_index_code on public.by_index (code desc) include (pad); \
               alter table public.by_index replica identity using index by_index_code",
    },
    // Several rows are one in the order of the column, and none are in that of the index.
    Keyed {
        name: "by_finer_index",
        columns: "k text collate public.caseless not null",
        insert: "(k) select n, pad, case n % 3 when 0 then 'key' when 1 then 'Key' else 'KEY' end || n / 3",
        then: "create unique index by_finer_index_k on public.by_finer_index (k collate \"C\"); \
               alter table public.by_finer_index replica identity using index by_finer_index_k",
    },
    Keyed {
        name: "whole",
        columns: "other text, k text collate public.caseless primary key",
        insert: "(other, k) select n, pad, null, 'k' || n",
        then: "alter table public.whole replica identity full",
    },
];

fn create(stack: &Stack, label: &str) -> Stream {
    let mut stream = Stream::create(stack, label);
    stream.set("snapshot.mode", "initial");
    stream.set("snapshot.connections", "3");
    stream.database.execute(TYPES);
    for Keyed { name, columns, insert, then } in &TABLES {
        let (names, select) = insert.split_once(')').expect("names");
        stream.database.execute(&format!(
            "create table public.{name} (no int not null, pad text, {columns}); {then};
             insert into public.{name} (no, pad, {}) {select}
             from (select n, repeat(md5(n::text), 60) as pad from generate_series(1, {ROWS}) n) rows",
            names.trim_start_matches('(')
        ));
    }
    stream
}

#[test]
fn rows_with_keys_of_every_kind_are_copied_once() {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let mut stream = create(&stack, "keys");
    stream.set("snapshot.rows_per_second", "4000");
    for _ in 0..2 {
        let program = stream.start_ready();
        await_rows(&program, 2000.0);
        thread::sleep(random.duration_ms(0..500));
        program.kill();
    }
    stream.set("snapshot.rows_per_second", "1000000");
    let program = stream.start_ready();
    await_copied(&program);
    stream.drain();
    program.terminate();
    let mut problems = Vec::new();
    let mut copied: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for record in stream.records() {
        let event = record.event.expect("no row is gone");
        if record.table != "marker" {
            assert_eq!(event.operation, "r", "{}", record.table);
            let number = event.after.expect("a row")["no"].clone().expect("a number").parse().expect("a number");
            copied.entry(record.table).or_default().push(number);
        }
    }
    for Keyed { name, .. } in &TABLES {
        let mut copied = copied.remove(*name).unwrap_or_default();
        copied.sort_unstable();
        if !copied.iter().copied().eq(1..=ROWS) {
            let missing: Vec<_> = (1..=ROWS).filter(|row| !copied.contains(row)).take(5).collect();
            problems.push(format!("{name}: {} rows; missing are {missing:?}", copied.len()));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Waits until this life has copied so many.
fn await_rows(program: &Program, rows: f64) {
    wait_until(COPY_TIMEOUT, "rows are copied", || (program.metric("copied_rows_total")? >= rows).then_some(()));
}
