//! The key of rows under REPLICA IDENTITY FULL, which the stream does not name, where it is changed around them.

use super::shown;
use crate::harness::{
    kafka,
    stack::{Server, Stack},
    stream::{START_TIMEOUT, Stream},
    wait_until,
};

/// The stream names no key of a whole row, and the catalog only the newest. So the keys of the time are remembered.
#[test]
fn a_whole_row_has_the_key_of_its_time_although_it_is_decoded_later() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "ddl_keys");
    stream.set("postgres.on_uncertain_key", "likely");
    for table in ["rows", "idle", "busy"] {
        stream.database.execute(&format!(
            "create table public.{table} (id int primary key, code int not null); alter table public.{table} replica identity full"
        ));
    }
    stream.database.execute("create table public.later (id int primary key, code int not null)");
    let replace =
        |table: &str| format!("alter table public.{table} drop constraint {table}_pkey, add primary key (code)");
    let program = stream.start_ready();
    stream.drain();
    // Nothing of these tables has come yet, and nothing is read while all of this happens.
    program.signal("STOP");
    let (mut early, mut client) = (stream.database.client(), stream.database.client());
    let mut run =
        |statement: &str| client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    run("insert into public.rows values (1, 10)");
    run("update public.rows set code = 11");
    run(&replace("rows"));
    run("insert into public.rows values (2, 20)");
    run("update public.rows set id = 3 where code = 20");
    run("alter table public.rows add note text");
    run("delete from public.rows where code = 11");
    run(&replace("idle"));
    run("insert into public.idle values (1, 10)");
    // Its rows become whole and it gets another key, all before anybody looks at it again.
    run("alter table public.later replica identity full");
    run("insert into public.later values (1, 10)");
    run(&replace("later"));
    run("insert into public.later values (2, 20)");
    // Of a transaction that has run meanwhile nobody can say it; those after it are not taken for it.
    early.batch_execute("begin; insert into public.marker default values").expect("it begins");
    run("insert into public.busy values (1, 10)");
    run(&replace("busy"));
    early.batch_execute("insert into public.busy values (2, 20); commit").expect("it ends");
    run("insert into public.busy values (3, 30)");
    program.signal("CONT");
    stream.drain();
    stream.database.execute("insert into public.rows values (4, 40); insert into public.busy values (4, 40)");
    stream.drain();
    program.terminate();
    let records = stream.records();
    assert_eq!(
        shown(&records, "public.rows"),
        [
            "c id=1: code=10 id=1",
            "u id=1: code=11 id=1, before: code=10 id=1",
            "c code=20: code=20 id=2",
            "u code=20: code=20 id=3, before: code=20 id=2",
            "d code=11",
            "tombstone code=11",
            "c code=40: code=40 id=4 note=null",
        ]
    );
    assert_eq!(shown(&records, "public.idle"), ["c code=10: code=10 id=1"]);
    assert_eq!(shown(&records, "public.later"), ["c id=1: code=10 id=1", "c code=20: code=20 id=2"]);
    let busy = shown(&records, "public.busy");
    assert_eq!(busy.first().map(String::as_str), Some("c id=1: code=10 id=1"));
    assert_eq!(busy[2..], ["c code=30: code=30 id=3", "c code=40: code=40 id=4"], "{busy:?}");
}

/// Whatever changes a key has the relation announced again, also within its own transaction: between two announcements there is one key,
/// whatever the numbers of transactions say. What is not certain is said.
#[test]
fn the_stream_says_where_a_key_ends() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "ddl_ends");
    stream.set("postgres.on_uncertain_key", "likely");
    let tables = ["part", "late", "within", "dropped", "unseen"];
    for table in tables {
        stream.database.execute(&format!(
            "create table public.{table} (id int primary key, code int not null); alter table public.{table} replica identity full"
        ));
    }
    let replace =
        |table: &str| format!("alter table public.{table} drop constraint {table}_pkey, add primary key (code)");
    let program = stream.start_ready();
    stream.database.execute("insert into public.part values (1, 10); insert into public.late values (1, 10)");
    stream.database.execute("insert into public.within values (1, 10); insert into public.dropped values (1, 10)");
    stream.drain();
    program.signal("STOP");
    let (mut early, mut client) = (stream.database.client(), stream.database.client());
    let mut run =
        |statement: &str| client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    // The part of a transaction that makes the key has a higher number than the whole, which cannot be told here.
    run(&format!("begin; savepoint s; {}; insert into public.part values (2, 20); commit", replace("part")));
    run("insert into public.part values (3, 30)");
    // It takes its number before a transaction that writes under the old key.
    early.batch_execute("begin; insert into public.marker default values").expect("it begins");
    run("insert into public.late values (2, 20)");
    await_sent(&stream);
    early.batch_execute(&format!("{}; commit", replace("late"))).expect("it ends");
    run("insert into public.late values (3, 30)");
    run(&format!(
        "begin; insert into public.within values (2, 20); {}; insert into public.within values (3, 30); commit",
        replace("within")
    ));
    for table in ["dropped", "unseen"] {
        run(&format!("insert into public.{table} values (2, 20)"));
        await_sent(&stream);
        run(&format!("alter table public.{table} drop constraint {table}_pkey"));
        run(&format!("insert into public.{table} values (3, 30)"));
    }
    program.signal("CONT");
    stream.drain();
    stream.database.execute("insert into public.dropped values (4, 40)");
    stream.drain();
    let log = program.log();
    program.terminate();
    let records = stream.records();
    for (table, keys) in [
        ("part", ["id=1", "id=2", "code=30"].as_slice()),
        ("late", &["id=1", "id=2", "code=30"]),
        ("within", &["id=1", "id=2", "code=30"]),
        ("dropped", &["id=1", "id=2", "no key", "no key"]),
        ("unseen", &["id=2", "no key"]),
    ] {
        let found = shown(&records, &format!("public.{table}"));
        let mut found: Vec<_> = found.iter().filter_map(|shown| shown.strip_prefix("c ")?.split(':').next()).collect();
        if table == "within" && found[1] == "code=20" {
            // The server may announce the table before this row as well, because of what has happened by the time at which it decodes it.
            assert!(log.contains("public.within: its key was changed from key (id) to key (code)"), "{log}");
            found[1] = "id=2";
        }
        assert_eq!(found, keys, "{table}");
    }
    for said in [
        "public.part: its key was changed from key (id) to key (code) by transaction",
        "They are written with key (id), as is likely",
        "public.unseen: its key was changed from key (id) to no key by a transaction that is not known any more",
    ] {
        assert!(log.contains(said), "{said} is not in {log}");
    }
    for table in ["dropped", "unseen"] {
        let said = format!("records of public.{table} from transaction");
        assert_eq!(log.matches(&said).count(), 1, "{said} is not in {log}");
    }
    assert_eq!(log.matches("on HAVE NO KEY any more, since").count(), 2, "{log}");
    // Another life has not seen that there was a key, and says that there is none.
    let program = stream.start_ready();
    stream.database.execute("insert into public.unseen values (4, 40)");
    stream.drain();
    let log = program.log();
    assert!(log.contains("on have no key, since the table has no primary key"), "{log}");
    program.terminate();
}

/// Waits until the server has decoded everything, so that it knows nothing of what comes next.
fn await_sent(stream: &Stream) {
    let mut client = stream.database.client();
    let sql = "select sent_lsn >= $1::text::pg_lsn from pg_stat_replication
               where pid = (select active_pid from pg_replication_slots where slot_name = $2)";
    let written: String = client.query_one("select pg_current_wal_lsn()::text", &[]).expect("it answers").get(0);
    wait_until(START_TIMEOUT, "everything is sent", || {
        let sent: bool = client.query_one(sql, &[&written, &stream.slot]).expect("it answers").get(0);
        sent.then_some(())
    });
}

/// A server that keeps when each transaction was committed says which have come after the change of a key. Those before it are as they were.
#[test]
fn when_a_key_was_committed_tells_the_rows_before_it_from_those_after_it() {
    let stack = Stack::exclusive();
    let restart = |settings: &str| {
        Stream::create(&stack, "ddl_setting").database.execute(settings);
        stack.stop(Server::Postgres);
        stack.start(Server::Postgres);
    };
    restart("alter system set track_commit_timestamp = on");
    let mut stream = Stream::create(&stack, "ddl_part");
    for table in ["part", "plain"] {
        stream.database.execute(&format!(
            "create table public.{table} (id int primary key, code int not null); alter table public.{table} replica identity full"
        ));
    }
    stream.set("tables", r#"[{ match = "public.part", on_uncertain_key = "after" }]"#);
    let program = stream.start_ready();
    stream.database.execute("insert into public.part values (1, 10); insert into public.plain values (1, 10)");
    stream.drain();
    program.signal("STOP");
    let (mut early, mut client) = (stream.database.client(), stream.database.client());
    let mut run =
        |statement: &str| client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    run("insert into public.part values (2, 20)");
    await_sent(&stream);
    run("begin; savepoint s; alter table public.part drop constraint part_pkey, add primary key (code);
         insert into public.part values (3, 30); commit");
    run("insert into public.part values (4, 40)");
    // The numbers of these suggest the opposite of what is true.
    early.batch_execute("begin; insert into public.marker default values").expect("it begins");
    run("insert into public.plain values (2, 20)");
    await_sent(&stream);
    early
        .batch_execute("alter table public.plain drop constraint plain_pkey, add primary key (code); commit")
        .expect("it ends");
    run("insert into public.plain values (3, 30)");
    // The index is made anew, and the key is as old as it was.
    run("reindex table concurrently public.plain");
    program.signal("CONT");
    stream.drain();
    program.terminate();
    let records = stream.records();
    let expected =
        ["c id=1: code=10 id=1", "c id=2: code=20 id=2", "c code=30: code=30 id=3", "c code=40: code=40 id=4"];
    assert_eq!(shown(&records, "public.part"), expected);
    assert_eq!(shown(&records, "public.plain"), expected[..3]);
    restart("alter system reset track_commit_timestamp");
}

/// Nobody has seen which key the rows had, and somebody is to say it. What was seen is known to every process that comes after.
#[test]
fn what_nobody_can_tell_of_a_key_stops_the_stream() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "ddl_uncertain");
    for table in ["item", "gone"] {
        stream.database.execute(&format!(
            "create table public.{table} (id int primary key, code int not null); alter table public.{table} replica identity full"
        ));
    }
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (1, 10)");
    stream.drain();
    program.kill();
    stream.database.execute("insert into public.item values (2, 20); insert into public.gone values (2, 20)");
    stream.database.execute("alter table public.item drop constraint item_pkey; drop table public.gone");
    for id in [3, 4] {
        let mut program = stream.start();
        program.exits_with(3, "key-uncertain", START_TIMEOUT);
        let log = program.log();
        for part in ["[key-uncertain]", "its key was changed from key (id) to no key", "public.item"] {
            assert!(log.contains(part), "{part} is not in {log}");
        }
        // What had not ended where the key was not there any more is in no doubt, whoever has seen that.
        stream.database.execute(&format!("insert into public.item values ({id}, {id}0)"));
    }
    stream.set("tables", r#"[{ match = "public.item", on_uncertain_key = "before" }]"#);
    let program = stream.start_ready();
    stream.drain();
    let log = program.log();
    assert!(log.contains("They are written with key (id), as postgres.on_uncertain_key or [[tables]] says"), "{log}");
    program.terminate();
    let records = stream.records();
    assert_eq!(
        shown(&records, "public.item"),
        ["c id=1: code=10 id=1", "c id=2: code=20 id=2", "c no key: code=30 id=3", "c no key: code=40 id=4"]
    );
    assert_eq!(shown(&records, "public.gone"), ["c id=2: code=20 id=2"]);

    // What is seen of a key while nothing is written is known to the next process, too.
    stream.set("tables", "[]");
    let program = stream.start_ready();
    stream.database.execute("alter table public.item add constraint item_pkey primary key (code)");
    let oid: u32 =
        stream.database.client().query_one("select 'public.item'::regclass::oid", &[]).expect("it is there").get(0);
    let kept = format!("{}/keys/{oid}", stream.name);
    wait_until(START_TIMEOUT, "the key stands beside the checkpoint", || {
        let records = kafka::checkpoints(&stream.bootstrap_servers, &stream.checkpoint_topic, &kept);
        records.last()?.as_ref()?.to_string().contains("\"code\"").then_some(())
    });
    program.kill();
    stream.database.execute("insert into public.item values (5, 50)");
    let program = stream.start_ready();
    stream.drain();
    program.terminate();
    assert_eq!(shown(&stream.records(), "public.item")[4..], ["c code=50: code=50 id=5"]);
}

/// The server sends a transaction once its commit is written, and shows what it has done to nobody until a synchronous standby has it.
#[test]
fn a_key_is_looked_at_once_its_transaction_has_ended() {
    let stack = Stack::exclusive();
    let mut stream = Stream::create(&stack, "ddl_synchronous");
    stream.database.execute(
        "create table public.item (id int primary key, code int not null); alter table public.item replica identity full",
    );
    stream.set("postgres.on_uncertain_key", "after");
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (1, 10)");
    stream.drain();
    let mut observer = stream.database.client();
    let mut set = |statement: &str| {
        for statement in [statement, "select pg_reload_conf()"] {
            observer.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    };
    set("alter system set synchronous_standby_names = 'nobody'");
    let mut client = stream.database.client();
    let held_up = std::thread::spawn(move || {
        // A session takes note of what was set when it begins.
        client.batch_execute(
            "begin; alter table public.item drop constraint item_pkey, add primary key (code);
             update public.item set id = 2; insert into public.item values (3, 30); commit",
        )
    });
    let mut client = stream.database.client();
    let sql =
        "select exists (select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
                              and query like '%pg_xact_commit_timestamp_origin($1%')
                      and exists (select from pg_stat_activity where wait_event = 'SyncRep')";
    wait_until(START_TIMEOUT, "the program waits for the transaction", || {
        client.query_one(sql, &[]).expect("it answers").get::<_, bool>(0).then_some(())
    });
    set("alter system reset synchronous_standby_names");
    held_up.join().expect("the session goes on").expect("it commits");
    stream.drain();
    program.terminate();
    assert_eq!(
        shown(&stream.records(), "public.item"),
        ["c id=1: code=10 id=1", "u code=10: code=10 id=2, before: code=10 id=1", "c code=30: code=30 id=3"]
    );
}
