//! What the tests stand on: real servers, the program as a process, writers that keep a history of their own, a consumer that shares
//! no code with the program, and an oracle that compares the two.

pub(crate) mod browser;
pub(crate) mod terminal;
pub(crate) mod stack;
pub(crate) mod standby;
pub(crate) mod database;
pub(crate) mod stream;
pub(crate) mod kafka;
pub(crate) mod proxy;
pub(crate) mod topics;
pub(crate) mod avro;
pub(crate) mod event;
pub(crate) mod oracle;
pub(crate) mod workload;
pub(crate) mod watcher;
pub(crate) mod memory;
pub(crate) mod random;

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

/// Looks until something is there, and fails the test when it is not in time. For what has no event to wait for.
pub(crate) fn wait_until<T>(bound: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < bound, "{what}: not within {bound:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// An answer to an HTTP request.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// One GET; `address` is `host:port`.
pub(crate) fn http_get(address: &str, path: &str) -> std::io::Result<Answer> {
    http(address, "GET", path, "")
}

/// One request over HTTP/1.0, whose answer ends with the connection; a body is JSON.
pub(crate) fn http(address: &str, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
    let malformed = || std::io::Error::other("not an HTTP answer");
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_secs(20)))?;
    let content = match body.len() {
        0 => String::new(),
        length => format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"),
    };
    write!(connection, "{method} {path} HTTP/1.0\r\nHost: {address}\r\nAccept: */*\r\n{content}\r\n{body}")?;
    let mut text = String::new();
    connection.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    let is_chunked = head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked");
    let body = if is_chunked { without_chunks(body).ok_or_else(malformed)? } else { body.to_owned() };
    Ok(Answer { status, body })
}

/// A long answer comes in chunks from some servers, whatever version was asked with.
fn without_chunks(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n")?;
        let length = usize::from_str_radix(length.split(';').next()?.trim(), 16).ok()?;
        if length == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..length)?);
        body = rest.get(length..)?.strip_prefix("\r\n")?;
    }
}

/// A number from the environment, or its default.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, and should be a number")),
        Err(_) => default,
    }
}
