//! Backend messages before the stream starts: bounded, one at a time, parsed by hand.
//!
//! A server's announced length is a number that it chose, and before authentication it may be anybody's:
//! [`MessageStream`] refuses one past its limit before it makes room for it.

use std::{io, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Error, ServerError, socket::Socket};

/// The largest message that is accepted before the stream starts, in bytes. What a server has to say then fits in a few
/// kilobytes; a timeline's history, the largest, has a line of some 60 bytes for each promotion of its cluster's life.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// The tags of the messages that matter here. Source: PostgreSQL documentation, "Message Formats".
pub(crate) mod tag {
    pub(crate) const AUTHENTICATION: u8 = b'R';
    pub(crate) const BACKEND_KEY_DATA: u8 = b'K';
    pub(crate) const COMMAND_COMPLETE: u8 = b'C';
    pub(crate) const COPY_BOTH_RESPONSE: u8 = b'W';
    pub(crate) const COPY_DATA: u8 = b'd';
    pub(crate) const COPY_DONE: u8 = b'c';
    pub(crate) const DATA_ROW: u8 = b'D';
    pub(crate) const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub(crate) const ERROR_RESPONSE: u8 = b'E';
    pub(crate) const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub(crate) const NOTICE_RESPONSE: u8 = b'N';
    pub(crate) const PARAMETER_STATUS: u8 = b'S';
    pub(crate) const READY_FOR_QUERY: u8 = b'Z';
    pub(crate) const ROW_DESCRIPTION: u8 = b'T';
}

/// A tag and a length: what each message starts with.
pub(crate) const HEADER_BYTES: usize = 5;

/// One message: its tag and what follows the length.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) tag: u8,
    pub(crate) body: Bytes,
}

/// Messages over a socket, while questions and answers alternate.
pub(crate) struct MessageStream {
    pub(crate) socket: Socket,
    pub(crate) server: Arc<str>,
    received: BytesMut,
}

impl MessageStream {
    pub(crate) fn new(socket: Socket, server: Arc<str>) -> Self {
        Self { socket, server, received: BytesMut::with_capacity(8 << 10) }
    }

    /// The next message. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Message, Error> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            let count = self.socket.read_buf(&mut self.received).await.map_err(|error| self.lost(error))?;
            if count == 0 {
                return Err(Error::closed(&self.server));
            }
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self.socket.write_all(bytes).await {
            Ok(()) => self.socket.flush().await,
            Err(error) => Err(error),
        }
        .map_err(|error| self.lost(error))
    }

    /// The socket, and what was already received behind the last message.
    pub(crate) fn into_parts(self) -> (Socket, BytesMut) {
        (self.socket, self.received)
    }

    pub(crate) fn server_error(&self, body: &[u8]) -> Error {
        match ServerError::parse(body) {
            Some(error) => Error::Server { server: Arc::clone(&self.server), error: Box::new(error) },
            None => self.malformed("ErrorResponse"),
        }
    }

    pub(crate) fn malformed(&self, message: &str) -> Error {
        Error::protocol(&self.server, format!("its {message} message is malformed"))
    }

    pub(crate) fn unexpected(&self, tag: u8, expected: &str) -> Error {
        Error::protocol(&self.server, format!("{expected} was expected, and a message {} came", describe_tag(tag)))
    }

    fn take(&mut self) -> Result<Option<Message>, Error> {
        let Some((tag, length)) = parse_header(&self.received) else {
            return Ok(None);
        };
        let Some(body_bytes) = body_bytes(length).filter(|bytes| *bytes <= MESSAGE_BYTES_MAX) else {
            let problem = format!(
                "a message {} announces a length of {length} bytes, and 4 to {MESSAGE_BYTES_MAX} are expected; is this PostgreSQL?",
                describe_tag(tag)
            );
            return Err(Error::protocol(&self.server, problem));
        };
        if self.received.len() < HEADER_BYTES + body_bytes {
            self.received.reserve(HEADER_BYTES + body_bytes - self.received.len());
            return Ok(None);
        }
        self.received.advance(HEADER_BYTES);
        Ok(Some(Message { tag, body: self.received.split_to(body_bytes).freeze() }))
    }

    fn lost(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::closed(&self.server),
            _ => Error::io(&self.server, error),
        }
    }
}

/// The tag and the announced length, which counts itself; `None` before all of the header is there.
pub(crate) fn parse_header(bytes: &[u8]) -> Option<(u8, i32)> {
    let (tag, rest) = bytes.split_first()?;
    Some((*tag, i32::from_be_bytes(*rest.first_chunk()?)))
}

/// How many bytes follow the header; `None` for a length that cannot be one.
pub(crate) fn body_bytes(length: i32) -> Option<usize> {
    usize::try_from(length).ok()?.checked_sub(4)
}

pub(crate) fn describe_tag(tag: u8) -> String {
    if tag.is_ascii_graphic() { format!("'{}'", char::from(tag)) } else { format!("0x{tag:02x}") }
}

/// Walks the fields of a message. Each method is `None` where the message ends too early.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    pub(crate) fn i16(&mut self) -> Option<i16> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i16::from_be_bytes(*bytes))
    }

    pub(crate) fn i32(&mut self) -> Option<i32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i32::from_be_bytes(*bytes))
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Bytes up to a zero byte, which is taken too.
    pub(crate) fn text(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(text)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// The columns of a `DataRow`; `None` for one that is malformed.
pub(crate) fn data_row(body: &[u8]) -> Option<Vec<Option<String>>> {
    let mut fields = Fields::new(body);
    let count = usize::try_from(fields.i16()?).ok()?;
    // Each column takes four bytes at least, so the count cannot make room for more than came.
    let mut columns = Vec::with_capacity(count.min(body.len() / 4));
    for _ in 0..count {
        columns.push(match fields.i32()? {
            -1 => None,
            length => Some(String::from_utf8(fields.bytes(usize::try_from(length).ok()?)?.to_vec()).ok()?),
        });
    }
    fields.rest().is_empty().then_some(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_row_is_taken_whole_or_not_at_all() {
        let mut row = vec![0, 2, 0, 0, 0, 2, b'o', b'k', 0xff, 0xff, 0xff, 0xff];
        assert_eq!(data_row(&row), Some(vec![Some("ok".to_owned()), None]));
        for end in 0..row.len() {
            assert_eq!(data_row(&row[..end]), None);
        }
        row.push(0);
        assert_eq!(data_row(&row), None);
    }

    #[test]
    fn a_hostile_column_count_or_length_is_refused() {
        for row in
            [vec![0xff, 0xff], vec![0x7f, 0xff], vec![0, 1, 0x7f, 0xff, 0xff, 0xff], vec![0, 1, 0xff, 0xff, 0xff, 0xfe]]
        {
            assert_eq!(data_row(&row), None, "{row:?}");
        }
    }
}
