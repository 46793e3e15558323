//! What a consumer decodes can be written back, and is what the column holds.
//!
//! Tables with columns of every type hold values at the edges of each, in rows that are copied and again in rows that are streamed. A consumer decodes
//! them with apache-avro, makes of each value the text that PostgreSQL reads by what the schema says, and writes it into a second table of the
//! same types. PostgreSQL then compares the columns byte for byte (`record_image_ne`), so that `-0` is not 0, and 1.50 not 1.5.
//!
//! With the forms of `EncodeOptions::lossless` every value must come back as PostgreSQL's own text has it; with the default forms every value but for what
//! docs/types.md lists, and that must differ.
//!
//! The same goes for random values, of which there are hundreds in each column: one half is copied, the other streamed.

mod columns;
mod random;
mod draw;
mod reading;

use std::ops::Range;

use postgres::Client;
use rdkafka::Message;
use serde_json::Value;

use crate::{
    harness::{
        avro::Decoder,
        kafka,
        random::Random,
        stack::Stack,
        stream::{START_TIMEOUT, Stream},
    },
    snapshot::await_copied,
};
use columns::{Column, FAMILIES, TYPES};
use reading::Reader;

/// From this number on rows are streamed; those below it are copied.
const STREAMED: usize = 100_000;
/// The forms that hold every value of every type.
const LOSSLESS: [(&str, &str); 6] = [
    ("events.decimals", "string"),
    ("events.times", "iso_string"),
    ("events.intervals", "string"),
    ("events.zoned_times", "offset"),
    ("events.varying_bits", "text"),
    ("events.arrays", "text"),
];

#[test]
fn every_value_comes_back_in_the_lossless_forms() {
    round_trip("lossless", &LOSSLESS, Ways::Both, |version| edges(version, |_| true)).tell();
}

#[test]
fn every_value_comes_back_in_the_default_forms_but_for_what_they_forget() {
    round_trip("defaults", &[], Ways::Both, |version| edges(version, |column| !column.stops_by_default)).tell();
}

#[test]
fn random_values_come_back_in_the_lossless_forms() {
    let mut random = Random::new(Random::seed_of_run());
    round_trip("random", &LOSSLESS, Ways::Halves, |version| random::tables(version, false, &mut random)).tell();
}

#[test]
fn random_values_come_back_in_the_default_forms_but_for_what_they_forget() {
    let mut random = Random::new(Random::seed_of_run());
    round_trip("random_defaults", &[], Ways::Halves, |version| random::tables(version, true, &mut random)).tell();
}

#[test]
fn a_value_without_room_stops_the_stream_until_a_form_holds_it() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "no_room");
    stream.database.execute("create table public.item (id int primary key, v numeric, a int[])");
    let mut program = stream.start_ready();
    stream.database.execute("insert into public.item values (1, 1.5, '{1}'), (2, 'NaN', '{{1}}')");
    program.exits_with(3, "value-unrepresentable", START_TIMEOUT);
    assert!(program.log().contains("not_a_number"), "{}", program.log());
    stream.set("events.decimals", "string");
    let mut program = stream.start();
    program.exits_with(3, "value-unrepresentable", START_TIMEOUT);
    assert!(program.log().contains("array_shape"), "{}", program.log());
    stream.set("events.arrays", "text");
    let program = stream.start_ready();
    stream.drain();
    program.terminate();
    let records = stream.records();
    let rows = records.iter().filter(|record| record.table == "item").filter_map(|record| record.event.as_ref());
    let mut values: Vec<_> =
        rows.filter_map(|event| event.after.as_ref()).map(|row| row["v"].clone().unwrap()).collect();
    values.sort();
    assert_eq!(values, ["1.5", "NaN"], "each row once, as soon as there is room");
}

/// How much came back.
#[derive(Debug, Default)]
struct Compared {
    columns: usize,
    values: usize,
    different: usize,
}

impl Compared {
    fn tell(&self) {
        let Self { columns, values, different } = self;
        println!("{values} values in {columns} columns came back, {different} of them without what their form forgets");
    }
}

/// A table with an `id`, and columns `c0`, `c1` and so on.
struct Table {
    name: &'static str,
    columns: Vec<Column>,
}

/// The columns that this version of PostgreSQL can have, with the values at the edges.
fn edges(version: u32, is_wanted: fn(&Column) -> bool) -> Vec<Table> {
    let exists = |column: &&Column| column.since <= version && is_wanted(column);
    let table = |family: &columns::Family| Table {
        name: family.name,
        columns: family.columns.iter().filter(exists).copied().collect(),
    };
    FAMILIES.iter().map(table).collect()
}

fn round_trip(label: &str, settings: &[(&str, &str)], ways: Ways, tables: impl FnOnce(u32) -> Vec<Table>) -> Compared {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, label);
    for (key, value) in settings {
        stream.set(key, value);
    }
    let version: i32 = stream.database.value("select current_setting('server_version_num')::int / 10000");
    let tables = tables(version.cast_unsigned());
    stream.database.execute(TYPES);
    stream.database.execute("create schema back");
    stream.set("snapshot.mode", "initial");
    for Table { name, columns } in &tables {
        stream.database.execute(&create_table(name, columns));
        run(&mut stream.database.client(), &insert(name, columns, ways.copied(columns), 0));
    }
    let program = stream.start_ready();
    await_copied(&program);
    for Table { name, columns } in &tables {
        run(&mut stream.database.client(), &insert(name, columns, ways.streamed(columns), STREAMED));
    }
    stream.drain();
    program.terminate();
    let mut client = stream.database.client();
    let mut compared = Compared::default();
    let mut problems = Vec::new();
    for Table { name, columns } in &tables {
        write_back(&stream, &mut client, name, columns);
        for (index, column) in columns.iter().enumerate() {
            let different = compare(&mut client, name, index, column, settings.is_empty(), &mut problems);
            compared.columns += 1;
            compared.values += column.values.len();
            compared.different += different;
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    compared
}

fn create_table(name: &str, columns: &[Column]) -> String {
    let columns = columns.iter().enumerate().map(|(index, column)| format!("c{index} {}", column.type_name));
    let columns = columns.collect::<Vec<_>>().join(", ");
    format!("create table public.{name} (id int primary key, {columns}); create table back.{name} (like public.{name})")
}

/// Which values go which way.
#[derive(Clone, Copy)]
enum Ways {
    /// Each is copied, and streamed.
    Both,
    /// One half is copied, the other streamed.
    Halves,
}

impl Ways {
    fn copied(self, columns: &[Column]) -> Range<usize> {
        match self {
            Self::Both => 0..rows_of(columns),
            Self::Halves => 0..rows_of(columns) / 2,
        }
    }

    fn streamed(self, columns: &[Column]) -> Range<usize> {
        match self {
            Self::Both => 0..rows_of(columns),
            Self::Halves => rows_of(columns) / 2..rows_of(columns),
        }
    }
}

/// A row for each value, and one more, of nulls.
fn rows_of(columns: &[Column]) -> usize {
    columns.iter().map(|column| column.values.len()).max().unwrap_or_default() + 1
}

/// These rows, whose numbers begin here.
fn insert(name: &str, columns: &[Column], rows: Range<usize>, first: usize) -> String {
    let row = |number: usize| {
        let values =
            columns.iter().map(|column| column.values.get(number).map_or("default".to_owned(), |text| literal(text)));
        format!("({}, {})", first + number, values.collect::<Vec<_>>().join(", "))
    };
    format!("insert into public.{name} values {}", rows.map(row).collect::<Vec<_>>().join(", "))
}

/// Runs a statement that may be of any length. The error says which value it was.
fn run(client: &mut Client, sql: &str) {
    if let Err(error) = client.batch_execute(sql) {
        panic!("{error:?} in: {}", sql.chars().take(200).collect::<String>());
    }
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Writes what a consumer sees into the second table.
fn write_back(stream: &Stream, client: &mut Client, name: &str, columns: &[Column]) {
    /// Statements of one row each would take a round trip a row.
    const ROWS: usize = 50;
    let mut decoder = Decoder::new(&stream.registry_url);
    let topic = stream.topic(name);
    let mut rows = Vec::new();
    kafka::read_to_end(
        &stream.bootstrap_servers,
        |found| found == topic,
        |message| {
            let (schema, event) = decoder.decode_json(message.payload().expect("nothing was deleted"));
            let row = &event["after"];
            let is_streamed = row["id"].as_u64().expect("a number") >= STREAMED as u64;
            assert_eq!(event["op"], if is_streamed { "c" } else { "r" });
            let mut texts = vec![row["id"].to_string()];
            for (index, column) in columns.iter().enumerate() {
                let field = format!("c{index}");
                let mut reader = Reader { client: &mut *client, type_name: column.type_name };
                let text = reader.text(field_schema(schema, &field), &row[&field]);
                texts.push(text.map_or("null".to_owned(), |text| literal(&text)));
            }
            rows.push(format!("({})", texts.join(", ")));
        },
    );
    for rows in rows.chunks(ROWS) {
        run(client, &format!("insert into back.{name} values {}", rows.join(", ")));
    }
}

fn field_schema<'a>(envelope: &'a Value, name: &str) -> &'a Value {
    let fields = envelope["fields"][0]["type"][1]["fields"].as_array().expect("the row is a record");
    &fields.iter().find(|field| field["name"] == name).expect("the field is there")["type"]
}

/// Compares a column, and notes what is wrong; returns how many of its values are not the same.
fn compare(
    client: &mut Client,
    name: &str,
    index: usize,
    column: &Column,
    is_default: bool,
    problems: &mut Vec<String>,
) -> usize {
    let column_name = format!("c{index}");
    let place = format!("{name}.{column_name}, {}", column.type_name);
    let mut query = |sql: &str| -> Vec<String> {
        let rows = client.query(sql, &[]).unwrap_or_else(|error| panic!("{error:?} in: {sql}"));
        let text = |row: &postgres::Row, at| row.get::<_, Option<String>>(at).unwrap_or_else(|| "null".to_owned());
        rows.iter().map(|row| format!("{} came back as {}", text(row, 0), text(row, 1))).collect()
    };
    let different = query(&format!(
        "select o.{column_name}::text, b.{column_name}::text from public.{name} o full join back.{name} b using (id)
          where record_image_ne(row(o.{column_name}), row(b.{column_name})) or o.id is null or b.id is null"
    ));
    let Some(forgets) = column.forgets.filter(|forgets| is_default || forgets.always) else {
        if !different.is_empty() {
            problems.push(format!("{place}: {}", different.join("; ")));
        }
        return different.len();
    };
    if different.is_empty() {
        problems.push(format!("{place}: it is said to forget {}, and does not any more", forgets.what));
    }
    let kept = |schema: &str| {
        format!("(select id, {} as kept from (select id, {column_name} as v from {schema}.{name}) t)", forgets.kept)
    };
    let lost = query(&format!(
        "select o.kept::text, b.kept::text from {} o join {} b using (id) where o.kept is distinct from b.kept",
        kept("public"),
        kept("back")
    ));
    if !lost.is_empty() {
        problems.push(format!("{place}: it forgets more than {}: {}", forgets.what, lost.join("; ")));
    }
    different.len()
}
