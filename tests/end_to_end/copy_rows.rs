//! A row of COPY is the row that the type's text output says, whatever a value holds.

use std::io::BufRead;

use pgoutput::{CopyRows, Value};
use postgres::SimpleQueryMessage;

use crate::harness::{database::Database, stack::Stack};

/// Every character that text can hold up to U+0100 and some beyond it, alone and between others; and what quotes or escapes values itself.
const ROWS: &str = "
    create type both_parts as (a int, b text);
    create table public.item (
        id int generated always as identity, t text, raw bytea, list text[], parts both_parts, doc jsonb, n numeric, at timestamptz);
    insert into public.item (t, raw, list, parts, doc)
        select one, convert_to(one, 'UTF8'), array[one, null, 'a,\"b'], row(7, one)::both_parts, to_jsonb(one)
        from generate_series(1, 256) code, lateral (values (chr(code)), ('a' || chr(code) || 'N' || chr(code))) as texts(one);
    insert into public.item (t, raw, n, at) values
        ('', '', 'NaN', 'infinity'), (null, null, null, null), (E'\\N', '\\x00ff', 1.50, '2024-02-29 12:34:56.7+02'),
        (E'\\\\N', null, 0, null), (E'\\.', null, null, null), ('日本語 𝄞 é', null, null, null), (repeat(E'\t\\\n', 100000), null, null, null);
";

#[test]
fn a_row_of_copy_is_the_row_of_the_table() {
    let stack = Stack::shared();
    let database = Database::create(&stack, "copy_rows");
    database.execute(ROWS);
    let mut client = database.client();
    let query = "select * from public.item order by id";
    let expected: Vec<Vec<Option<String>>> = client
        .simple_query(query)
        .expect("the table is read")
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
            _ => None,
        })
        .collect();
    assert_eq!(expected.len(), 2 * 256 + 7);

    let mut rows = CopyRows::new(8);
    let mut copied = client.copy_out(&format!("copy ({query}) to stdout")).expect("the table is copied");
    let mut line = Vec::new();
    for expected in expected {
        line.clear();
        copied.read_until(b'\n', &mut line).expect("the copy goes on");
        let row = rows.decode(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let expected =
            expected.iter().map(|value| value.as_ref().map_or(Value::Null, |text| Value::Text(text.as_bytes())));
        assert!(row.iter().eq(expected), "{line:?}");
    }
    assert_eq!(copied.read_until(b'\n', &mut line).expect("the copy ends"), 0, "no row is left");
}
