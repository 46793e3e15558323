//! One replication connection with a real PostgreSQL.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pgoutput::{Decoder, Frame, Lsn, Message, ProtocolVersion, Value};
use support::{PATIENCE, PrivateServer, Source, Tally, connect, socket_url, sql, tcp_url, value, with};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::spawn_blocking,
    time::timeout,
};
use walreceiver::{
    ConnectOptions, CreateSlot, Error, Host, Recovery, ReplicationClient, SlotName, SnapshotAction, StreamSettings,
};

const ROWS: &str = "id bigint PRIMARY KEY, body text";

#[tokio::test]
async fn a_password_is_proved_over_tcp_and_a_wrong_one_refused() {
    let mut client = connect(&tcp_url()).await.expect("a welcome");
    assert!(client.server_version_num() >= 140_000, "{}", client.server_version());
    let identity = client.identify_system().await.expect("an identity");

    let sql = sql(&tcp_url()).await;
    let system_id = value(&sql, "SELECT system_identifier FROM pg_control_system()").await;
    assert_eq!(Some(identity.system_id.to_string()), system_id);
    assert_eq!(identity.database.as_deref(), Some("app"));
    assert_eq!(identity.timeline, 1);
    assert!(identity.flush_lsn.is_valid());
    assert_eq!(client.timeline_history(1).await.expect("no question").switches, []);
    let missing = client.timeline_history(99).await.expect_err("no such timeline");
    assert!(missing.sqlstate().is_some(), "{missing}");
    client.identify_system().await.expect("an error leaves the connection usable");

    let options: ConnectOptions = tcp_url().parse().expect("a URL");
    let wrong = ReplicationClient::connect(&options.with_password("wrong".into())).await.err().expect("a refusal");
    assert_eq!((wrong.sqlstate(), wrong.action()), (Some("28P01"), Recovery::Stop), "{wrong}");
    let none = tcp_url();
    let (before, after) = none.rsplit_once('@').expect("a user");
    let none = format!("{}@{after}", &before[..before.rfind(':').expect("a password")]);
    assert!(matches!(connect(&none).await, Err(Error::Authentication { .. })));
}

#[tokio::test]
async fn a_unix_socket_is_as_good() {
    let url = socket_url();
    assert!(matches!(url.parse::<ConnectOptions>().expect("a URL").host(), Host::Unix(_)));
    let mut client = connect(&url).await.expect("a welcome");
    client.identify_system().await.expect("an identity");
    client.close().await.expect("a goodbye");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_again() {
    for url in ["postgres://ann@127.0.0.1:1/db", "postgres://ann@/db?host=/nowhere"] {
        let error = connect(url).await.err().expect("nobody listens");
        assert!(matches!(error, Error::Connect { .. }), "{error}");
        assert_eq!(error.action(), Recovery::Reconnect);
    }
}

#[tokio::test]
async fn a_new_slot_shows_the_database_at_its_consistent_point() {
    let sql = sql(&tcp_url()).await;
    sql.batch_execute("DROP TABLE IF EXISTS walreceiver_snapshot; CREATE TABLE walreceiver_snapshot AS SELECT 1 AS id")
        .await
        .expect("valid SQL");
    let slot: SlotName = "walreceiver_snapshot".parse().expect("valid");
    let mut client = connect(&tcp_url()).await.expect("a welcome");
    let created = client
        .create_slot(&CreateSlot { temporary: true, snapshot: SnapshotAction::Export, ..CreateSlot::new(&slot) })
        .await
        .expect("a slot");
    assert_eq!(created.name, slot.as_str());
    assert!(created.consistent_point.is_valid());
    sql.batch_execute("INSERT INTO walreceiver_snapshot VALUES (2)").await.expect("valid SQL");

    let snapshot = created.snapshot.expect("it was asked for");
    let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{snapshot}'");
    sql.batch_execute(&begin).await.expect("an exported snapshot");
    assert_eq!(value(&sql, "SELECT count(*) FROM walreceiver_snapshot").await.as_deref(), Some("1"));
    sql.batch_execute("COMMIT; DROP TABLE walreceiver_snapshot").await.expect("valid SQL");

    let taken = client.create_slot(&CreateSlot::new(&slot)).await.expect_err("it exists");
    assert_eq!((taken.sqlstate(), taken.action()), (Some("42710"), Recovery::Stop), "{taken}");
    // An error takes the session's temporary slots with it.
    let gone = client.drop_slot(&slot, false).await.expect_err("it is dropped");
    assert_eq!((gone.sqlstate(), gone.action()), (Some("42704"), Recovery::Stop), "{gone}");
}

#[tokio::test]
async fn a_slot_that_survives_a_failover_needs_a_server_that_has_them() {
    let slot: SlotName = "walreceiver_failover".parse().expect("valid");
    let mut client = connect(&tcp_url()).await.expect("a welcome");
    let wanted = CreateSlot { failover: true, ..CreateSlot::new(&slot) };
    if client.server_version_num() < 170_000 {
        let error = client.create_slot(&wanted).await.expect_err("too old");
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        return;
    }
    client.create_slot(&wanted).await.expect("a slot");
    let sql = sql(&tcp_url()).await;
    let query = "SELECT failover FROM pg_replication_slots WHERE slot_name = 'walreceiver_failover'";
    let failover = value(&sql, query).await;
    client.drop_slot(&slot, true).await.expect("a slot to drop");
    assert_eq!(failover.as_deref(), Some("t"));
}

#[tokio::test]
async fn feedback_moves_the_slot_and_never_back() {
    for (url, name) in [(tcp_url(), "feedback_tcp"), (socket_url(), "feedback_unix")] {
        let source = Source::new(&url, name, ROWS).await;
        let created_at = source.slot_column("confirmed_flush_lsn").await;
        let (mut reader, feedback) = source.stream(Lsn::INVALID, StreamSettings::default()).await;
        let mut tally = Tally::default();
        source.execute("INSERT INTO TABLE_NAME SELECT n, 'a' FROM generate_series(1, 10) n").await;
        tally.read_rows(&mut reader, 10).await;
        let first = tally.committed;
        assert_eq!(source.slot_column("confirmed_flush_lsn").await, created_at, "what is not confirmed moves nothing");

        feedback.advance(first).expect("received");
        source.execute("INSERT INTO TABLE_NAME VALUES (11, 'b')").await;
        tally.read_rows(&mut reader, 11).await;
        assert!(tally.committed > first);
        feedback.advance(tally.committed).expect("received");
        feedback.advance(first).expect("ignored");
        reader.shutdown(PATIENCE).await.expect("a good end");
        assert_eq!(source.slot_column("active").await.as_deref(), Some("f"), "shutdown has waited for the server");
        assert_eq!(source.slot_column("confirmed_flush_lsn").await, Some(tally.committed.to_string()));

        // The next connection goes on where this one confirmed; before that the server has nothing more.
        source.execute("INSERT INTO TABLE_NAME VALUES (12, 'c')").await;
        let (mut reader, _feedback) = source.stream(first, StreamSettings::default()).await;
        Tally::default().read_rows(&mut reader, 1).await;
        drop(reader);
        source.drop().await;
    }
}

#[tokio::test]
async fn a_slot_in_use_is_tried_again() {
    let source = Source::new(&tcp_url(), "in_use", ROWS).await;
    let (reader, _feedback) = source.stream(Lsn::INVALID, StreamSettings::default()).await;
    let error =
        source.try_stream(&source.url, Lsn::INVALID, StreamSettings::default()).await.err().expect("it is in use");
    assert_eq!((error.sqlstate(), error.action()), (Some("55006"), Recovery::Retry), "{error}");
    reader.shutdown(PATIENCE).await.expect("a good end");
    let (reader, _feedback) = source.stream(Lsn::INVALID, StreamSettings::default()).await;
    reader.shutdown(PATIENCE).await.expect("a good end");
    source.drop().await;
}

#[tokio::test]
async fn a_slot_or_a_publication_that_is_missing_stops() {
    let source = Source::new(&tcp_url(), "missing", ROWS).await;
    let nowhere: SlotName = "walreceiver_nowhere".parse().expect("valid");
    let client = connect(&source.url).await.expect("a welcome");
    let options = [("proto_version", "1"), ("publication_names", "\"p\"")];
    let error = client.start_replication(&nowhere, Lsn::INVALID, &options, StreamSettings::default()).await;
    let error = error.err().expect("no such slot");
    assert_eq!((error.sqlstate(), error.action()), (Some("42704"), Recovery::Stop), "{error}");

    // An error up to PostgreSQL 17, and a warning since; never a stream of nothing.
    source.execute("DROP PUBLICATION TABLE_NAME; INSERT INTO TABLE_NAME VALUES (1, 'a')").await;
    let (mut reader, _feedback) = source.stream(Lsn::INVALID, StreamSettings::default()).await;
    let mut tally = Tally::default();
    let error = loop {
        if let Err(error) = tally.read(&mut reader).await {
            break error;
        }
    };
    assert_eq!(error.action(), Recovery::Stop, "{error}");
    assert!(matches!(error, Error::PublicationMissing { .. }) || error.sqlstate() == Some("42704"), "{error}");
    assert_eq!(tally.rows, 0);
    drop(reader);
    source.execute("CREATE PUBLICATION TABLE_NAME FOR TABLE TABLE_NAME").await;
    source.drop().await;
}

#[tokio::test]
async fn text_is_the_same_whatever_the_role_has_configured() {
    let columns = "id int PRIMARY KEY, f float8, s interval, t timestamptz, d date, b bytea";
    let source = Source::new(&socket_url(), "canonical", columns).await;
    source
        .execute(
            "SET TimeZone = 'UTC';
             INSERT INTO TABLE_NAME VALUES
                 (1, 0.1::float8 + 0.2, '1 year -2 days 3:04:05.6', '2024-02-29 12:34:56.789+00', '0044-03-15 BC', '\\x00ff');
             DROP ROLE IF EXISTS walreceiver_odd;
             CREATE ROLE walreceiver_odd LOGIN REPLICATION SUPERUSER;
             ALTER ROLE walreceiver_odd SET DateStyle = 'German, DMY';
             ALTER ROLE walreceiver_odd SET IntervalStyle = 'iso_8601';
             ALTER ROLE walreceiver_odd SET TimeZone = 'Asia/Kathmandu';
             ALTER ROLE walreceiver_odd SET extra_float_digits = -5;
             ALTER ROLE walreceiver_odd SET bytea_output = 'escape';
             ALTER ROLE walreceiver_odd SET client_encoding = 'LATIN1';
             ALTER ROLE walreceiver_odd SET client_min_messages = 'error';
             ALTER ROLE walreceiver_odd SET statement_timeout = 1;",
        )
        .await;
    let odd = source.url.replace("postgres://postgres@", "postgres://walreceiver_odd@");
    let (mut reader, _feedback) =
        source.try_stream(&odd, Lsn::INVALID, StreamSettings::default()).await.expect("a stream");
    let mut decoder = Decoder::new(ProtocolVersion::V1);
    let texts = 'row: loop {
        for frame in timeout(PATIENCE, reader.read()).await.expect("in time").expect("a chunk") {
            let Frame::WalData(data) = frame.expect("well formed") else { continue };
            if let Message::Insert(insert) = decoder.decode(data.payload).expect("well formed") {
                let text = |value| match value {
                    Value::Text(text) => String::from_utf8(text.to_vec()).expect("UTF-8"),
                    other => panic!("{other:?}"),
                };
                break 'row insert.new.iter().map(text).collect::<Vec<_>>();
            }
        }
    };
    assert_eq!(
        texts,
        [
            "1",
            "0.30000000000000004",
            "1 year -2 days +03:04:05.6",
            "2024-02-29 12:34:56.789+00",
            "0044-03-15 BC",
            "\\x00ff"
        ]
    );
    reader.shutdown(PATIENCE).await.expect("a good end");
    source.execute("DROP ROLE walreceiver_odd").await;
    source.drop().await;
}

#[tokio::test]
async fn a_row_past_the_limit_is_named() {
    let source = Source::new(&tcp_url(), "too_large", ROWS).await;
    let relation = value(&source.sql, &format!("SELECT '{}'::regclass::oid", source.name)).await.expect("a table");
    let before: Lsn =
        value(&source.sql, "SELECT pg_current_wal_lsn()").await.expect("a position").parse().expect("an LSN");
    source.execute("INSERT INTO TABLE_NAME VALUES (1, 'small'), (2, repeat('x', 2000000))").await;
    let settings = StreamSettings { frame_bytes_max: 1 << 20, ..StreamSettings::default() };
    let (mut reader, _feedback) = source.stream(Lsn::INVALID, settings).await;
    let mut tally = Tally::default();
    let error = loop {
        if let Err(error) = tally.read(&mut reader).await {
            break error;
        }
    };
    assert_eq!(tally.rows, 1, "what came before it is handed out");
    let Error::FrameTooLarge { announced_bytes, position, relation: named, .. } = &error else { panic!("{error}") };
    assert!((2_000_000..2_000_100).contains(announced_bytes), "{error}");
    assert_eq!(named.map(|oid| oid.to_string()), Some(relation));
    assert!(position.is_some_and(|lsn| lsn > before), "{error}");
    assert_eq!(error.action(), Recovery::Stop);
    drop(reader);

    let (mut reader, _feedback) = source.stream(Lsn::INVALID, StreamSettings::default()).await;
    Tally::default().read_rows(&mut reader, 2).await;
    drop(reader);
    source.drop().await;
}

#[tokio::test]
async fn a_busy_stream_comes_whole_and_its_end_is_noticed() {
    for (url, name) in [(tcp_url(), "busy_tcp"), (socket_url(), "busy_unix")] {
        let source = Source::new(&url, name, ROWS).await;
        source.execute("INSERT INTO TABLE_NAME SELECT n, md5(n::text) FROM generate_series(1, 200000) n").await;
        let (mut reader, _feedback) = source.stream(Lsn::INVALID, StreamSettings::default()).await;
        let mut tally = Tally::default();
        tally.read_rows(&mut reader, 200_000).await;
        // Nothing more is sent: the stream itself must say so.
        while !tally.idle {
            tally.read(&mut reader).await.expect("an empty chunk, or a keepalive");
        }
        // And a single row is not kept waiting for others.
        source.execute("INSERT INTO TABLE_NAME VALUES (0, 'last')").await;
        tally.read_rows(&mut reader, 200_001).await;
        reader.shutdown(PATIENCE).await.expect("a good end");
        source.drop().await;
    }
}

/// The caller is slower than `wal_sender_timeout`.
#[tokio::test]
async fn a_caller_that_stalls_keeps_its_connection() {
    for (url, name) in [(tcp_url(), "stall_tcp"), (socket_url(), "stall_unix")] {
        let source = Source::new(&url, name, ROWS).await;
        // More than the socket's buffers hold, so that the server is stuck in the middle.
        source.execute("INSERT INTO TABLE_NAME SELECT n, repeat('x', 1000) FROM generate_series(1, 50000) n").await;
        let impatient = with(&url, "options=-c%20wal_sender_timeout%3D2s");
        let (mut reader, _feedback) =
            source.try_stream(&impatient, Lsn::INVALID, StreamSettings::default()).await.expect("a stream");
        let mut tally = Tally::default();
        tally.read(&mut reader).await.expect("a chunk");
        let process = source.slot_column("active_pid").await;
        assert!(process.is_some());
        // Not a wait for something to happen: the stall is what is tested.
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(source.slot_column("active_pid").await, process, "the server has given the connection up");
        tally.read_rows(&mut reader, 50_000).await;
        reader.shutdown(PATIENCE).await.expect("a good end");
        source.drop().await;
    }
}

/// Nothing comes through any more, and nobody says so.
#[tokio::test]
async fn a_black_hole_is_noticed() {
    let source = Source::new(&tcp_url(), "black_hole", ROWS).await;
    let options: ConnectOptions = source.url.parse().expect("a URL");
    let Host::Tcp(host) = options.host().clone() else { panic!("a TCP URL") };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let hole = Arc::new(AtomicBool::new(false));
    let proxy = tokio::spawn({
        let (hole, target) = (Arc::clone(&hole), (host.clone(), options.port()));
        async move {
            let (client, _) = listener.accept().await.expect("a client");
            let server = TcpStream::connect(target).await.expect("a server that is up");
            let (client, server) = (client.into_split(), server.into_split());
            tokio::join!(pass(client.0, server.1, &hole), pass(server.0, client.1, &hole));
        }
    });
    let through = with(&source.url, "options=-c%20wal_sender_timeout%3D2s")
        .replace(&format!("@{host}:{}", options.port()), &format!("@{host}:{port}"));
    let (mut reader, _feedback) =
        source.try_stream(&through, Lsn::INVALID, StreamSettings::default()).await.expect("a stream");
    source.execute("INSERT INTO TABLE_NAME VALUES (1, 'a')").await;
    let mut tally = Tally::default();
    tally.read_rows(&mut reader, 1).await;

    hole.store(true, Ordering::Release);
    let error = loop {
        if let Err(error) = tally.read(&mut reader).await {
            break error;
        }
    };
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert_eq!(error.action(), Recovery::Reconnect);
    proxy.abort();
    drop(reader);
    source.drop().await;
}

/// Passes bytes on, until they are swallowed.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, hole: &AtomicBool) {
    let mut buffer = [0; 8192];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if !hole.load(Ordering::Acquire) && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    // The end of one side is swallowed as well.
    if hole.load(Ordering::Acquire) {
        std::future::pending::<()>().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_is_in_the_history() {
    let server = PrivateServer::start("", "", &[("standby.signal", "")]);
    let mut client = connect(&server.socket_url()).await.expect("a welcome");
    let before = client.identify_system().await.expect("an identity");
    assert_eq!(before.timeline, 1);
    let sql = sql(&server.socket_url()).await;
    assert_eq!(value(&sql, "SELECT pg_promote()").await.as_deref(), Some("t"));
    let after = client.identify_system().await.expect("an identity");
    assert_eq!((after.timeline, after.system_id), (2, before.system_id));
    let history = client.timeline_history(2).await.expect("a history");
    let left_at = history.left_at(1).expect("its parent");
    assert!(before.flush_lsn <= left_at && left_at <= after.flush_lsn, "{history:?}");
    assert_eq!(history.switches.len(), 1);
}

/// The server is shut down, idle and busy: it waits for its clients to have everything, and the stream ends in good order.
#[tokio::test(flavor = "multi_thread")]
async fn a_fast_shutdown_of_the_server_is_not_held_up() {
    for rows in [0_u64, 100_000] {
        let server = PrivateServer::start("", "", &[]);
        let source = Source::new(&server.socket_url(), "shutdown", ROWS).await;
        source.execute(&format!("INSERT INTO TABLE_NAME SELECT n, 'x' FROM generate_series(1, {rows}) n")).await;
        let (mut reader, feedback) = source.stream(Lsn::INVALID, StreamSettings::default()).await;
        let mut tally = Tally::default();
        tally.read(&mut reader).await.expect("a sign of life");
        let stopping = spawn_blocking(move || {
            server.stop_fast();
            server
        });
        let error = loop {
            match tally.read(&mut reader).await {
                // Everything that came is safe, says this caller.
                Ok(()) => feedback.advance(tally.committed.max(tally.keepalive)).expect("received"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::StreamEnded { .. }), "{error}");
        assert_eq!(error.action(), Recovery::Reconnect);
        assert_eq!(tally.rows, rows, "nothing was held back");
        drop(reader);
        timeout(PATIENCE, stopping).await.expect("in time").expect("a server that has ended");
    }
}
