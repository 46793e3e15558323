//! A server that is not to be trusted, or not well: each test scripts one on a loopback port, byte by byte.

mod connecting;
mod streaming;

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
