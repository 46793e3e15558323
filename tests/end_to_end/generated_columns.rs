//! `postgres.publish_generated_columns`: stored generated columns are in the events, of PostgreSQL 18.

use crate::harness::{stack::Stack, stream::Stream};

#[test]
fn stored_generated_columns_come_when_they_are_asked_for_or_an_old_server_is_refused() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "generated");
    stream
        .database
        .execute("create table public.item (id int primary key, a int, twice int generated always as (a * 2) stored)");
    let version: i32 = stream.database.value("select current_setting('server_version_num')::int4");
    if version < 180_000 {
        stream.set("postgres.publish_generated_columns", "true");
        return stream.refuses(&[], "postgres-settings");
    }
    // One that is there already is altered, and back again.
    for (number, is_published) in [(1, false), (2, true), (3, false)] {
        stream.set("postgres.publish_generated_columns", &is_published.to_string());
        let program = stream.start_ready();
        stream.database.execute(&format!("insert into public.item (id, a) values ({number}, {number})"));
        stream.drain();
        program.terminate();
    }
    let mut found: Vec<_> = stream
        .records()
        .into_iter()
        .filter(|record| record.table == "item")
        .map(|record| record.event.expect("no deletion").after.expect("a row"))
        .map(|row| (row["id"].clone().expect("an id"), row.get("twice").cloned().flatten()))
        .collect();
    found.sort();
    assert_eq!(found, [("1".into(), None), ("2".into(), Some("4".into())), ("3".into(), None)]);
    // Whoever keeps the publication is told what it lacks.
    let mut kept = Stream::create(&stack, "generated_kept");
    kept.database.execute(&format!("create publication {} for all tables", kept.publication));
    kept.set("postgres.publish_generated_columns", "true");
    kept.set("postgres.manage", "false");
    kept.refuses(&[], "publication-mismatch");
}
