//! `postgres.origin`: what came to the server by replication is streamed, or left out.

use crate::harness::{stack::Stack, stream::Stream};

/// Writes a row as a subscription would, and one as an application does.
const ROWS: &str = "select pg_replication_origin_session_setup(current_database());
    insert into public.item values (1), (2);
    select pg_replication_origin_session_reset();
    insert into public.item values (3);";

fn stream_with(origin: &str, label: &str) -> Option<Vec<String>> {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, label);
    stream.set("postgres.origin", origin);
    stream.database.execute(
        "create table public.item (id int primary key);
         select pg_replication_origin_create(current_database())",
    );
    let version: i32 = stream.database.value("select current_setting('server_version_num')::int4");
    let found = if origin == "none" && version < 160_000 {
        stream.refuses(&[], "postgres-settings");
        None
    } else {
        let program = stream.start_ready();
        stream.database.play(ROWS);
        stream.drain();
        program.terminate();
        let mut ids: Vec<_> = stream
            .records()
            .into_iter()
            .filter(|record| record.table == "item")
            .map(|record| record.key.expect("a key")["id"].clone().expect("an id"))
            .collect();
        ids.sort();
        Some(ids)
    };
    stream.database.execute("select pg_replication_origin_drop(current_database())");
    found
}

#[test]
fn everything_is_streamed_wherever_it_was_made() {
    assert_eq!(stream_with("any", "origin_any").as_deref(), Some(&["1", "2", "3"].map(str::to_owned)[..]));
}

#[test]
fn only_what_was_made_here_is_streamed_or_an_old_server_is_refused() {
    if let Some(ids) = stream_with("none", "origin_none") {
        assert_eq!(ids, ["3"]);
    }
}
