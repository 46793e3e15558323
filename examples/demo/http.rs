//! One HTTP GET, which is all that the registry and the metrics need here.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result};

const TIMEOUT: Duration = Duration::from_secs(5);

/// An answer: its status, and its body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// GET over HTTP/1.0, whose answer ends with the connection. `address` is `host:port`.
pub(crate) fn get(address: &str, path: &str) -> Result<Answer> {
    let mut connection = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    write!(connection, "GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: */*\r\n\r\n")?;
    let mut text = String::new();
    connection.read_to_string(&mut text).with_context(|| format!("reading from http://{address}{path}"))?;
    let (head, body) = text.split_once("\r\n\r\n").context("the answer has no end of its head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("the answer has no status")?;
    Ok(Answer { status, body: body.to_owned() })
}
