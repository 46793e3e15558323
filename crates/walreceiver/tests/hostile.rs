//! A server that is not to be trusted, or not well: each test scripts one on a loopback port, byte by byte.

use std::{future::Future, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use pgoutput::{Frame, Lsn, Oid, StatusUpdate};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use walreceiver::{ConnectOptions, Error, Feedback, Positions, Recovery, ReplicationClient, StreamSettings, WalReader};

/// Nothing here takes so long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// The server's end of a connection.
struct Server(TcpStream);

impl Server {
    async fn startup(&mut self) -> Bytes {
        let length = self.0.read_u32().await.expect("a startup message");
        self.bytes(length - 4).await
    }

    /// The next message: its tag and body.
    async fn message(&mut self) -> (u8, Bytes) {
        let tag = self.0.read_u8().await.expect("a message");
        let length = self.0.read_u32().await.expect("a length");
        (tag, self.bytes(length - 4).await)
    }

    async fn status(&mut self) -> StatusUpdate {
        let (tag, body) = self.message().await;
        assert_eq!(tag, b'd');
        StatusUpdate::parse(body).expect("a status update")
    }

    async fn bytes(&mut self, count: u32) -> Bytes {
        let mut bytes = vec![0; count as usize];
        self.0.read_exact(&mut bytes).await.expect("as many bytes as announced");
        bytes.into()
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("a client that listens");
    }

    /// Waits for the client to hang up; what it says before is returned.
    async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A client that hangs up with data unread resets the connection.
        let _ = self.0.read_to_end(&mut rest).await;
        rest
    }

    /// Lets the client in, and answers its commands up to the stream's start.
    async fn stream(&mut self, sender_timeout_ms: &str) {
        let set = self.stream_with(sender_timeout_ms, "f").await;
        assert_eq!(set, None, "nobody has asked for another timeout");
    }

    /// The same; returns what the client has set before. `is_chosen` is whether the timeout is one of the role's, of the database's or of the connection's.
    async fn stream_with(&mut self, sender_timeout_ms: &str, is_chosen: &str) -> Option<String> {
        self.startup().await;
        let mut hello = authentication(0, b"");
        hello.extend(message(b'S', b"server_version\x0018.1\0"));
        hello.extend(message(b'S', b"client_encoding\0UTF8\0"));
        hello.extend(ready());
        self.send(&hello).await;

        let (tag, query) = self.message().await;
        assert_eq!(tag, b'Q');
        assert!(query.starts_with(b"SELECT setting"), "{query:?}");
        let mut row = BytesMut::new();
        row.put_u16(2);
        for value in [sender_timeout_ms, is_chosen] {
            row.put_u32(u32::try_from(value.len()).expect("short"));
            row.put_slice(value.as_bytes());
        }
        self.send(&[message(b'D', &row), ready()].concat()).await;

        let (mut tag, mut query) = self.message().await;
        let mut set = None;
        if query.starts_with(b"SET ") {
            set = Some(String::from_utf8_lossy(&query).trim_end_matches('\0').to_owned());
            self.send(&[message(b'C', b"SET\0"), ready()].concat()).await;
            (tag, query) = self.message().await;
        }
        assert_eq!(tag, b'Q');
        assert!(query.starts_with(b"START_REPLICATION SLOT \"s\" LOGICAL 0/10"), "{query:?}");
        self.send(&message(b'W', &[0, 0, 0])).await;
        set
    }
}

/// Runs a script for one client.
async fn serve<F, R>(script: F) -> (String, JoinHandle<R::Output>)
where
    F: FnOnce(Server) -> R + Send + 'static,
    R: Future<Output: Send> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        stream.set_nodelay(true).expect("a TCP socket");
        script(Server(stream)).await
    });
    (format!("postgres://ann:secret@127.0.0.1:{port}/shop?sslmode="), server)
}

async fn connect(url: &str) -> Result<ReplicationClient, Error> {
    let options: ConnectOptions = url.parse()?;
    timeout(PATIENCE, ReplicationClient::connect(&options)).await.expect("an answer in time")
}

async fn refused(url: &str) -> Error {
    connect(url).await.err().expect("this server must not be taken")
}

/// A password is asked for in clear text, over a connection that anybody may read or have taken over.
#[tokio::test]
async fn no_password_is_given_away_for_sql_either() {
    for parameters in ["disable&require_auth=scram-sha-256", "disable&require_auth=scram-sha-256,md5"] {
        let (url, server) = serve(async |mut server: Server| {
            let startup = server.startup().await;
            assert!(!startup.windows(11).any(|part| part == b"replication"), "this is no replication connection");
            server.send(&authentication(3, b"")).await;
            server.rest().await
        })
        .await;
        let options: ConnectOptions = (url + parameters).parse().expect("a URL");
        let outcome = timeout(PATIENCE, options.connect_sql(&[])).await.expect("an answer in time");
        assert!(matches!(outcome, Err(Error::Authentication { .. })), "{outcome:?}");
        let said = server.await.expect("the script ends");
        assert!(!said.windows(6).any(|part| part == b"secret"), "the password was sent");
    }
}

async fn start(url: &str, settings: StreamSettings) -> (WalReader, Feedback) {
    let client = connect(&format!("{url}disable")).await.expect("a welcome");
    let slot = "s".parse().expect("valid");
    client.start_replication(&slot, Lsn::from(0x10), &[], settings).await.expect("a stream")
}

/// What ends the stream, after as many frames as `frames`.
async fn ends_after(reader: &mut WalReader, frames: usize) -> Error {
    let mut count = 0;
    loop {
        match timeout(PATIENCE, reader.read()).await.expect("an answer in time") {
            Ok(chunk) => count += chunk.frames_len(),
            Err(error) => {
                assert_eq!(count, frames, "frames before {error}");
                return error;
            }
        }
    }
}

/// The error that a stream with these bytes in it ends with, after as many frames as `frames`.
async fn stream_error(frames: usize, bytes: Vec<u8>) -> Error {
    let (url, server) = serve(move |mut server| async move {
        server.stream("60000").await;
        server.send(&bytes).await;
        server.rest().await
    })
    .await;
    let (mut reader, _feedback) =
        start(&url, StreamSettings { frame_bytes_max: 1000, ..StreamSettings::default() }).await;
    let error = ends_after(&mut reader, frames).await;
    drop(reader);
    server.await.expect("no surprise");
    error
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.put_u32(u32::try_from(body.len() + 4).expect("small"));
    bytes.extend_from_slice(body);
    bytes
}

fn authentication(kind: u32, data: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes(), data].concat())
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn wal_data(lsn: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![b'w'];
    frame.put_u64(lsn);
    frame.put_u64(lsn);
    frame.put_i64(0);
    frame.extend_from_slice(payload);
    message(b'd', &frame)
}

fn keepalive(lsn: u64, reply: u8) -> Vec<u8> {
    let mut frame = vec![b'k'];
    frame.put_u64(lsn);
    frame.put_i64(0);
    frame.put_u8(reply);
    message(b'd', &frame)
}

#[tokio::test]
async fn plain_text_behind_the_agreement_to_tls_is_an_attack() {
    // CVE-2021-23222: what follows would be taken for the server's first encrypted words.
    let (url, server) = serve(|mut server| async move {
        server.startup().await;
        server.send(&[b"S".to_vec(), authentication(0, b""), ready()].concat()).await;
        server.rest().await
    })
    .await;
    let error = refused(&format!("{url}require")).await;
    assert!(matches!(error, Error::Protocol { .. }) && error.to_string().contains("tampers"), "{error}");
    assert_eq!(error.action(), Recovery::Stop);
    assert_eq!(server.await.expect("no surprise"), b"", "the client must say nothing more");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_demanded() {
    for mode in ["require", "verify-full"] {
        let (url, server) = serve(|mut server| async move {
            assert_eq!(&server.startup().await[..], &80_877_103_u32.to_be_bytes(), "SSLRequest");
            server.send(b"N").await;
            server.rest().await
        })
        .await;
        let error = refused(&format!("{url}{mode}")).await;
        assert!(matches!(error, Error::TlsNotOffered { .. }), "{error}");
        assert_eq!(error.action(), Recovery::Stop);
        assert_eq!(server.await.expect("no surprise"), b"", "no password, not even a name");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_taken_where_tls_is_preferred() {
    let (url, _server) = serve(|mut server| async move {
        server.startup().await;
        server.send(b"N").await;
        let startup = server.startup().await;
        assert!(startup.windows(21).any(|window| window == b"replication\0database\0"), "{startup:?}");
        server.send(&[authentication(0, b""), ready()].concat()).await;
        server.rest().await
    })
    .await;
    let client = connect(&format!("{url}prefer")).await.expect("a welcome");
    assert!(!client.is_encrypted());
}

#[tokio::test]
async fn an_error_in_the_place_of_tls_is_not_believed() {
    let (url, _server) = serve(|mut server| async move {
        server.startup().await;
        server.send(&message(b'E', b"SFATAL\0Mgive me your password\0\0")).await;
        server.rest().await
    })
    .await;
    let error = refused(&format!("{url}prefer")).await;
    assert!(!error.to_string().contains("password"), "{error}");
}

#[tokio::test]
async fn an_iteration_count_that_would_burn_the_client_is_refused() {
    let (url, server) = serve(|mut server| async move {
        server.startup().await;
        server.send(&authentication(10, b"SCRAM-SHA-256\0\0")).await;
        let (tag, response) = server.message().await;
        assert_eq!(tag, b'p');
        let nonce = response.windows(2).position(|window| window == b"r=").expect("a nonce");
        let first = [&response[nonce..], b"more,s=QSXCR+Q6sek8bf92,i=2000000000"].concat();
        server.send(&authentication(11, &first)).await;
        server.rest().await
    })
    .await;
    let error = refused(&format!("{url}disable")).await;
    assert!(matches!(error, Error::Authentication { .. }) && error.to_string().contains("2000000000"), "{error}");
    assert_eq!(server.await.expect("no surprise"), b"", "no proof is given");
}

#[tokio::test]
async fn a_server_that_does_not_prove_itself_is_refused() {
    for (kind, data) in [(0, &b""[..]), (12, b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")] {
        let (url, _server) = serve(move |mut server| async move {
            server.startup().await;
            server.send(&authentication(10, b"SCRAM-SHA-256\0\0")).await;
            let (_, response) = server.message().await;
            let nonce = response.windows(2).position(|window| window == b"r=").expect("a nonce");
            let first = [&response[nonce..], b"more,s=QSXCR+Q6sek8bf92,i=4096"].concat();
            server.send(&authentication(11, &first)).await;
            server.message().await;
            server.send(&[authentication(kind, data), authentication(0, b""), ready()].concat()).await;
            server.rest().await
        })
        .await;
        let error = refused(&format!("{url}disable")).await;
        assert!(matches!(error, Error::Authentication { .. } | Error::Protocol { .. }), "{error}");
        assert_eq!(error.action(), Recovery::Stop);
    }
}

#[tokio::test]
async fn what_the_url_does_not_accept_is_not_answered() {
    let offers = [
        ("require_auth=scram-sha-256", authentication(0, b"")),
        ("require_auth=scram-sha-256", authentication(3, b"")),
        ("require_auth=!md5", authentication(5, b"salt")),
        ("require_auth=none", authentication(10, b"SCRAM-SHA-256\0\0")),
        // Channel binding can only be offered under TLS.
        ("channel_binding=prefer", authentication(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")),
        ("channel_binding=prefer", authentication(7, b"")),
        ("channel_binding=prefer", authentication(10, b"OAUTHBEARER\0\0")),
    ];
    for (parameter, offer) in offers {
        let (url, server) = serve(move |mut server| async move {
            server.startup().await;
            server.send(&offer).await;
            server.rest().await
        })
        .await;
        let error = refused(&format!("{url}disable&{parameter}")).await;
        assert!(matches!(error, Error::Authentication { .. } | Error::Unbound { .. }), "{parameter}: {error}");
        assert_eq!(server.await.expect("no surprise"), b"", "{parameter}");
    }
}

#[tokio::test]
async fn what_is_announced_at_the_start_is_bounded() {
    for length in [0_i32, 3, -1, i32::MIN, i32::MAX, 65_541] {
        let (url, _server) = serve(move |mut server| async move {
            server.startup().await;
            server.send(&[&b"R"[..], &length.to_be_bytes()].concat()).await;
            server.rest().await
        })
        .await;
        let error = refused(&format!("{url}disable")).await;
        assert!(matches!(error, Error::Protocol { .. }), "{length}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    let (url, _server) = serve(|mut server| async move { server.rest().await }).await;
    let error = refused(&format!("{url}disable&connect_timeout=1")).await;
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert_eq!(error.action(), Recovery::Reconnect);
}

#[tokio::test]
async fn a_pooler_that_changes_the_session_is_found_out() {
    let (url, _server) = serve(|mut server| async move {
        server.startup().await;
        server.send(&[authentication(0, b""), message(b'S', b"DateStyle\0German, DMY\0"), ready()].concat()).await;
        server.rest().await
    })
    .await;
    let error = refused(&format!("{url}disable")).await;
    assert!(error.to_string().contains("DateStyle"), "{error}");
}

#[tokio::test]
async fn the_stream_ends_with_an_error_that_says_what_to_do() {
    let whole = || [wal_data(0x20, b"B"), keepalive(0x30, 0)].concat();
    let shutdown = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0";
    let warning = b"SWARNUNG\0VWARNING\0C55000\0M\xc3\xbcbersprungen\0\0";
    let note = b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0";

    let error = stream_error(2, [whole(), message(b'E', shutdown)].concat()).await;
    assert_eq!((error.sqlstate(), error.action()), (Some("57P01"), Recovery::Reconnect));

    let error = stream_error(2, [whole(), message(b'N', note), message(b'N', warning)].concat()).await;
    assert!(matches!(error, Error::PublicationMissing { .. }), "{error}");
    assert_eq!(error.action(), Recovery::Stop);

    let error = stream_error(2, [whole(), message(b'C', b"COPY 0\0")].concat()).await;
    assert!(matches!(error, Error::StreamEnded { .. }), "{error}");
    assert_eq!(error.action(), Recovery::Reconnect);

    let error = stream_error(2, [whole(), message(b'S', b"TimeZone\0Europe/Berlin\0")].concat()).await;
    assert!(error.to_string().contains("TimeZone"), "{error}");

    for hostile in
        [message(b'?', b"what"), vec![b'd', 0, 0, 0, 3], vec![b'd', 0xff, 0xff, 0xff, 0xff], message(b'E', b"S")]
    {
        let error = stream_error(2, [whole(), hostile].concat()).await;
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
        assert_eq!(error.action(), Recovery::Stop);
    }

    let mut insert = b"I\0\0\x40\x01N".to_vec();
    insert.resize(1000, b'x');
    let error = stream_error(2, [whole(), wal_data(0x1_0000_0040, &insert)].concat()).await;
    let Error::FrameTooLarge { announced_bytes, limit_bytes, position, relation, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((*announced_bytes, *limit_bytes), (1025, 1000));
    assert_eq!((*position, *relation), (Some(Lsn::from(0x1_0000_0040)), Some(Oid::from(0x4001))));
    assert!(error.to_string().contains("1/40, a change of the relation with OID 16385"), "{error}");
    assert_eq!(error.action(), Recovery::Stop);
}

#[tokio::test]
async fn a_server_that_hangs_up_is_connected_to_again() {
    let (url, server) = serve(|mut server| async move {
        server.stream("60000").await;
        server.send(&wal_data(0x20, b"B")[..20]).await;
    })
    .await;
    let (mut reader, _feedback) = start(&url, StreamSettings::default()).await;
    server.await.expect("no surprise");
    let error = ends_after(&mut reader, 0).await;
    assert!(matches!(error, Error::Closed { .. } | Error::Io { .. }), "{error}");
    assert_eq!(error.action(), Recovery::Reconnect);
}

#[tokio::test]
async fn a_frame_of_an_unknown_kind_is_an_error_of_its_own() {
    let (url, _server) = serve(|mut server| async move {
        server.stream("60000").await;
        server.send(&[wal_data(0x20, b"B"), message(b'd', b"?")].concat()).await;
        server.rest().await
    })
    .await;
    let (mut reader, _feedback) = start(&url, StreamSettings::default()).await;
    let mut frames = reader.read().await.expect("two frames").into_iter();
    assert_eq!(frames.len(), 2);
    assert!(matches!(frames.next(), Some(Ok(Frame::WalData(data))) if data.wal_start == Lsn::from(0x20)));
    assert!(matches!(frames.next(), Some(Err(Error::Frame { .. }))));
    assert!(frames.next().is_none());
}

#[tokio::test]
async fn feedback_tells_what_was_received_and_confirmed_and_never_takes_it_back() {
    let (url, server) = serve(|mut server| async move {
        server.stream("0").await;
        let mut updates = vec![server.status().await];
        server.send(&[wal_data(0x20, b"B"), wal_data(0x30, b"C")].concat()).await;
        updates.push(server.status().await);
        server.send(&keepalive(0x40, 1)).await;
        updates.push(server.status().await);
        updates.push(server.status().await);
        let last = server.rest().await;
        (updates, last)
    })
    .await;
    // No timer may help: only what happens makes it speak.
    let never = Duration::from_hours(1);
    let settings = StreamSettings { status_interval: never, idle_timeout: Some(never), ..StreamSettings::default() };
    let (mut reader, feedback) = start(&url, settings).await;

    let mut count = 0;
    while count < 2 {
        count += reader.read().await.expect("a chunk").frames_len();
    }
    let ahead = feedback.advance(Lsn::from(0x31)).expect_err("not received");
    assert!(matches!(ahead, Error::ConfirmedBeyondReceived { .. }), "{ahead}");
    feedback.advance(Lsn::from(0x30)).expect("received");
    feedback.advance(Lsn::from(0x20)).expect("received");
    assert_eq!(reader.read().await.expect("a keepalive").frames_len(), 1, "it asks for a reply");
    sent(&feedback, |positions| positions.written >= Lsn::from(0x40)).await;
    feedback.clone().advance(Lsn::from(0x40)).expect("received");
    sent(&feedback, |positions| positions.flushed >= Lsn::from(0x40)).await;
    drop(reader);

    let (updates, last) = server.await.expect("no surprise");
    let positions: Vec<_> = updates
        .iter()
        .map(|update| (u64::from(update.written), u64::from(update.flushed), u64::from(update.applied)))
        .collect();
    assert_eq!(positions, [(0x10, 0, 0), (0x30, 0x30, 0x30), (0x40, 0x30, 0x30), (0x40, 0x40, 0x40)]);
    assert!(updates.iter().all(|update| !update.reply_requested));
    let (status, goodbye) = last.split_at(last.len() - 5);
    assert_eq!(goodbye, message(b'X', b""), "a reader that is dropped says goodbye");
    let status = StatusUpdate::parse(Bytes::copy_from_slice(&status[5..])).expect("one more status update");
    assert_eq!(status.flushed, Lsn::from(0x40));
}

/// Waits until the server was told.
async fn sent(feedback: &Feedback, enough: impl Fn(Positions) -> bool) {
    let told = async {
        while !enough(feedback.sent()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, told).await.expect("a status update in time");
}

#[tokio::test]
async fn a_caller_that_confirms_nothing_is_heard_of_all_the_same() {
    let (url, server) = serve(|mut server| async move {
        server.stream("600").await;
        // The server is busy: nobody has to ask it whether it is there.
        let (read, mut write) = server.0.into_split();
        let busy = tokio::spawn(async move {
            while write.write_all(&wal_data(0x20, b"B")).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let mut updates = Vec::new();
        let mut read = BufReader::new(read);
        while updates.len() < 4 {
            let mut message = [0; 5 + StatusUpdate::WIRE_BYTES];
            read.read_exact(&mut message).await.expect("a status update");
            updates.push(StatusUpdate::parse(Bytes::copy_from_slice(&message[5..])).expect("a status update"));
        }
        busy.abort();
        updates
    })
    .await;
    let (mut reader, _feedback) = start(&url, StreamSettings::default()).await;
    let reading = tokio::spawn(async move { while reader.read().await.is_ok() {} });
    let updates = timeout(PATIENCE, server).await.expect("in time").expect("no surprise");
    assert!(updates.iter().all(|update| !update.reply_requested && update.flushed == Lsn::INVALID), "{updates:?}");
    reading.await.expect("an end with an error");
}

#[tokio::test]
async fn shutdown_confirms_and_waits_for_the_servers_end() {
    let (url, server) = serve(|mut server| async move {
        server.stream("60000").await;
        server.status().await;
        server.send(&wal_data(0x20, b"C")).await;
        loop {
            match server.message().await {
                (b'd', body) => assert!(StatusUpdate::parse(body).expect("a status update").flushed <= Lsn::from(0x20)),
                (b'c', _) => break,
                other => panic!("{other:?}"),
            }
        }
        // What was on its way still comes.
        server.send(&wal_data(0x30, b"B")).await;
        server.send(&[message(b'c', b""), message(b'C', b"COPY 0\0"), ready()].concat()).await;
        server.rest().await
    })
    .await;
    let (mut reader, feedback) = start(&url, StreamSettings::default()).await;
    reader.read().await.expect("a chunk");
    feedback.advance(Lsn::from(0x20)).expect("received");
    timeout(PATIENCE, reader.shutdown(PATIENCE)).await.expect("in time").expect("in good order");
    assert_eq!(feedback.sent().flushed, Lsn::from(0x20));
    assert_eq!(server.await.expect("no surprise"), message(b'X', b""));
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let (url, _server) = serve(|mut server| async move {
        server.stream("60000").await;
        server.rest().await
    })
    .await;
    let (reader, _feedback) = start(&url, StreamSettings::default()).await;
    let error = timeout(PATIENCE, reader.shutdown(Duration::from_millis(50))).await.expect("in time");
    assert!(matches!(error, Err(Error::Timeout { .. })), "{error:?}");
}

#[tokio::test]
async fn a_silent_server_is_asked_and_then_given_up() {
    let (url, server) = serve(|mut server| async move {
        server.stream("60000").await;
        while !server.status().await.reply_requested {}
        server.send(&keepalive(0x20, 0)).await;
        // One answer buys the whole time again; then there are only questions.
        let mut questions = 0;
        while let Ok(b'd') = server.0.read_u8().await {
            let length = server.0.read_u32().await.expect("a length");
            let update = StatusUpdate::parse(server.bytes(length - 4).await).expect("a status update");
            questions += u32::from(update.reply_requested);
        }
        questions
    })
    .await;
    let settings = StreamSettings { idle_timeout: Some(Duration::from_millis(400)), ..StreamSettings::default() };
    let (mut reader, _feedback) = start(&url, settings).await;
    let error = ends_after(&mut reader, 1).await;
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert_eq!(error.action(), Recovery::Reconnect);
    drop(reader);
    assert!(server.await.expect("no surprise") >= 2, "it is asked more than once");
}

#[tokio::test]
async fn a_timeout_that_nobody_has_chosen_is_brought_down() {
    let max = Some(Duration::from_secs(9));
    for (configured_ms, is_chosen, set) in [
        ("60000", "f", Some("SET wal_sender_timeout = '9000ms'")),
        ("0", "f", Some("SET wal_sender_timeout = '9000ms'")),
        ("60000", "t", None),
        ("0", "t", None),
        ("5000", "f", None),
    ] {
        let (url, server) = serve(async move |mut server: Server| {
            let set = server.stream_with(configured_ms, is_chosen).await;
            server.rest().await;
            set
        })
        .await;
        let (reader, _feedback) =
            start(&url, StreamSettings { sender_timeout_max: max, ..StreamSettings::default() }).await;
        drop(reader);
        assert_eq!(server.await.expect("no surprise").as_deref(), set, "{configured_ms} {is_chosen}");
    }
}

#[tokio::test]
async fn a_caller_that_stalls_does_not_take_the_server_for_dead() {
    let (url, _server) = serve(|mut server| async move {
        server.stream("60000").await;
        for _ in 0..4 {
            while !server.status().await.reply_requested {}
            server.send(&keepalive(0x20, 0)).await;
        }
        server.rest().await
    })
    .await;
    let settings = StreamSettings { idle_timeout: Some(Duration::from_millis(300)), ..StreamSettings::default() };
    let (mut reader, _feedback) = start(&url, settings).await;
    // Not a wait for something to happen: the time in which the caller does not read is what is tested.
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(reader.read().await.expect("the server answered meanwhile").frames_len() > 0);
}

#[tokio::test]
async fn a_read_that_is_dropped_loses_nothing() {
    const FRAMES: u64 = 3000;
    let (url, _server) = serve(|mut server| async move {
        server.stream("60000").await;
        for number in 1..=FRAMES {
            let frame = wal_data(number, &[b'B'; 40]);
            let (first, second) = frame.split_at(usize::try_from(number).expect("small") % frame.len());
            server.send(first).await;
            if number % 7 == 0 {
                tokio::task::yield_now().await;
            }
            server.send(second).await;
        }
        server.rest().await
    })
    .await;
    let (mut reader, _feedback) = start(&url, StreamSettings::default()).await;
    let mut expected = 1;
    while expected <= FRAMES {
        let chunk = tokio::select! {
            biased;
            chunk = reader.read() => chunk.expect("a chunk"),
            () = tokio::task::yield_now() => continue,
        };
        for frame in chunk {
            let Frame::WalData(data) = frame.expect("well formed") else { panic!("no keepalive was sent") };
            assert_eq!(data.wal_start, Lsn::from(expected));
            expected += 1;
        }
    }
}
