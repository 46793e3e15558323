//! Rows that are read at a standby.

use super::{COPY_TIMEOUT, TABLES, await_copied, control, create, judge::Judged, writers::Writers};
use crate::harness::{random::Random, stack::Stack, standby::Standby, wait_until};

/// The role that a stream is to have: one that may replicate, owns its tables, and is no superuser.
fn plain_role(stream: &super::Stream) -> String {
    let role = format!("role_{}", stream.name);
    let mut url: url::Url = stream.database.url.parse().expect("a URL");
    stream.database.execute(&format!(
        "create role {role} login replication password 'secret';
         grant create on database {} to {role};
         alter table public.item owner to {role}; alter table public.pair owner to {role}; alter table public.whole owner to {role};
         alter table public.calm owner to {role}; alter table public.marker owner to {role};
         grant all on schema oracle to {role}; grant all on all tables in schema oracle to {role}",
        stream.database.name
    ));
    url.set_username(&role).expect("a user");
    url.set_password(Some("secret")).expect("a password");
    url.into()
}

/// With writers on the same rows, and a standby whose replay stands still again and again, so that much is in doubt; then it is promoted.
#[test]
fn rows_are_copied_from_a_standby_that_lags_and_not_from_one_that_was_promoted() {
    let stack = Stack::shared();
    let mut random = Random::new(Random::seed_of_run());
    let mut stream = create(&stack, "standby", 1500);
    // Nobody but the copy ever reads it at the primary.
    stream.database.execute(
        "create table public.calm (id bigint primary key, version bigint not null);
         insert into public.calm select number, number from generate_series(1, 700) number",
    );
    let standby = Standby::create(&stack);
    let mut primary = stream.database.client();
    let url = plain_role(&stream);
    standby.await_replayed(&mut primary);
    for (key, value) in [
        ("postgres.url", url.as_str()),
        ("postgres.match_interval", "1s"),
        ("snapshot.standby_host", "127.0.0.1"),
        ("snapshot.standby_port", &standby.port().to_string()),
        ("snapshot.rows_per_second", "1000"),
        ("snapshot.connections", "2"),
        ("log.level", "info,pgsluice=debug"),
    ] {
        stream.set(key, value);
    }
    let checked = stream.command(&["check"], &[]);
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    for id in ["ok       standby-reachable", "ok       standby-feedback", "standby-lag"] {
        assert!(checked.contains(id), "{id} is not in {checked}");
    }

    let writers = Writers::start(&stream, &mut random);
    let program = stream.start_ready();
    let mut replay = standby.client("postgres");
    while !program.log().contains("every table is copied") {
        replay.batch_execute("select pg_wal_replay_pause()").expect("it pauses");
        let sql = "select pg_current_wal_lsn() - '0/0'";
        let written = |client: &mut postgres::Client| {
            client.query_one(&format!("select ({sql})::int8"), &[]).expect("it answers").get::<_, i64>(0)
        };
        let before = written(&mut primary);
        wait_until(COPY_TIMEOUT, "the writers go on", || (written(&mut primary) > before + 50_000).then_some(()));
        replay.batch_execute("select pg_wal_replay_resume()").expect("it goes on");
        standby.await_replayed(&mut primary);
    }
    await_copied(&program);
    writers.finish();
    stream.drain();
    let superseded = program.metric("copied_rows_superseded_total").expect("a metric");
    let log = program.log();
    let in_doubt = log.lines().filter(|line| line.contains("reading at the standby") && is_in_doubt(line)).count();
    println!("{superseded} rows superseded; {in_doubt} chunks with something in doubt");
    assert!(superseded > 0.0 && in_doubt > 0, "nothing was in doubt");
    // What the servers themselves say of who has read.
    let read = "select (coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::int8 from pg_stat_user_tables where relname = 'calm'";
    let at_primary: i64 = primary.query_one(read, &[]).expect("a row").get(0);
    assert_eq!(at_primary, 0, "rows were read at the primary");
    let copies = standby.log().lines().filter(|line| line.contains("COPY (") && line.contains("calm")).count();
    assert!(copies > 0, "the standby was not read");

    // It is promoted, and somebody adds a table. It is told, and nothing of it comes from there.
    let promoted: bool = replay.query_one("select pg_promote()", &[]).expect("it is promoted").get(0);
    assert!(promoted);
    stream.database.execute(
        "create table public.late (id bigint primary key, version bigint not null);
         insert into public.late select number, number from generate_series(1, 300) number",
    );
    stream.database.execute(&format!("alter table public.late owner to role_{}", stream.name));
    wait_until(COPY_TIMEOUT, "it is told", || program.log().contains("[standby-unfit]").then_some(()));
    let status = control::command(&stream, &program, &["status"]);
    assert!(status.contains("standby-unfit") && status.contains("pg_is_in_recovery()"), "{status}");
    stream.database.execute("update public.late set version = version + 1000 where id <= 10");
    stream.drain();
    program.terminate();
    let records = stream.records();
    let late: Vec<_> = records.iter().filter(|it| it.table == "late").filter_map(|it| it.event.as_ref()).collect();
    assert!(late.iter().all(|event| event.operation == "u") && late.len() == 10, "{late:?}");
    drop(standby);

    // Without it, what is missing is read where everything else is.
    stream.unset("snapshot.standby_host");
    stream.unset("snapshot.standby_port");
    let program = stream.start_ready();
    await_copied(&program);
    stream.drain();
    program.terminate();
    let tables: Vec<&str> = TABLES.into_iter().chain(["calm", "late"]).collect();
    let judged = Judged::of_tables(&stream, &stream.records(), &tables);
    println!("{} rows copied, {} events streamed", judged.copied, judged.streamed);
    judged.assert_flawless();
}

/// Whether a chunk was read before the standby had replayed all that the primary had written.
fn is_in_doubt(line: &str) -> bool {
    let entry: serde_json::Value = serde_json::from_str(line).expect("a line of the log");
    let field = |name: &str| entry[name].as_str().or_else(|| entry["fields"][name].as_str()).map(str::to_owned);
    let (replayed, until) = (field("replayed").expect("a position"), field("until").expect("a position"));
    crate::harness::database::lsn(&replayed) < crate::harness::database::lsn(&until)
}
