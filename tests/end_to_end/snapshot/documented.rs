//! docs/snapshots.md is played, while one table is copied and another one is being copied.

use regex::Regex;

use super::{COPY_TIMEOUT, control};
use crate::{
    documented::{self, Played, Step},
    harness::{stack::Stack, stream::Stream, wait_until},
};

#[test]
fn the_documentation_shows_what_is_said() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "snapshot_documented");
    stream.set("snapshot.mode", "initial");
    stream.set("snapshot.rows_per_second", "20000");
    stream.database.execute(
        "drop table public.marker;
         create table public.customer (id int primary key, name text);
         create table public.order_item (id int primary key, item text);
         insert into public.customer select number, 'customer ' || number from generate_series(1, 20000) number;
         insert into public.order_item select number, repeat('x', 40) from generate_series(1, 200000) number;
         analyze",
    );
    let program = stream.start_ready();
    let a_number = Regex::new(r"\d[\d,.]*( [KM]iB|[smh])?").expect("an expression");
    let spaces = Regex::new(" +").expect("an expression");
    let plain = |text: &str| spaces.replace_all(&a_number.replace_all(text, "N"), " ").into_owned();
    documented::play("docs/snapshots.md", plain, |step| {
        let Step::Command(shown) = step else { return None };
        let arguments = shown.strip_prefix("pgsluice snapshot ").expect("a command about copies");
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let output = wait_until(COPY_TIMEOUT, "one is copied, and the other on its way", || {
            let said = control::command(&stream, &program, &arguments);
            // Some of its rows are there, as is how long the others will take.
            let is_shown = said.lines().any(|line| {
                let rows = line.split_whitespace().nth(2).unwrap_or_default();
                line.contains(" copying ") && line.contains(" about ") && rows.len() >= "10,000".len()
            });
            (is_shown && said.contains(" copied ")).then_some(said)
        });
        Some(Played { command: shown.to_owned(), output })
    });
}
