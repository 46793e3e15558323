//! An ordinary connection, whose startup and authentication are this crate's own.
//!
//! A client for SQL has authentication of its own, which cannot be held to `require_auth` and knows nothing of the other parameters.
//! A password must not be given away through it, so it is not asked: it gets a connection that has been authenticated already, and is
//! told what it expects to hear. Its startup message is thrown away; the server has had ours.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{ConnectOptions, Error, authentication::Purpose, client::open, socket::Socket};

/// `AuthenticationOk`: its tag, a length of eight, and zero. Source: PostgreSQL documentation, "Message Formats".
const AUTHENTICATION_OK: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 0];
/// The most that a startup message can have (pg `MAX_STARTUP_PACKET_LENGTH`).
const STARTUP_BYTES_MAX: usize = 10_000;

/// An authenticated connection for SQL, to be given to a client in the place of a socket.
///
/// The client is to begin as with any server, without encryption of its own: it sends a startup message, whose user, database and
/// settings mean nothing any more, and is told at once that it is authenticated.
#[derive(Debug)]
pub struct SqlSocket {
    socket: Socket,
    /// What the client reads first.
    ahead: BytesMut,
    startup: Startup,
}

/// How much of the client's startup message has come.
#[derive(Debug)]
enum Startup {
    Length(BytesMut),
    Rest(usize),
    Over,
}

impl ConnectOptions {
    /// Connects and authenticates for SQL, as [`ReplicationClient::connect`](crate::ReplicationClient::connect) does for replication.
    /// `settings` are the session's, such as `("search_path", "pg_catalog")`, beside those that make values print alike.
    pub async fn connect_sql(&self, settings: &[(&str, &str)]) -> Result<SqlSocket, Error> {
        let (socket, received) = open(self, &Purpose::Sql(settings)).await?.into_parts();
        let mut ahead = BytesMut::from(&AUTHENTICATION_OK[..]);
        ahead.extend_from_slice(&received);
        Ok(SqlSocket { socket, ahead, startup: Startup::Length(BytesMut::with_capacity(4)) })
    }
}

impl Startup {
    /// Takes what belongs to the startup message from the front of `bytes`, and returns how much that was.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Over => Ok(0),
            Self::Length(known) => {
                let count = bytes.len().min(4 - known.len());
                known.extend_from_slice(&bytes[..count]);
                if let Some(length) = known.first_chunk() {
                    // The length counts itself.
                    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                    *self = match length.checked_sub(4) {
                        Some(0) => Self::Over,
                        Some(rest) if length <= STARTUP_BYTES_MAX => Self::Rest(rest),
                        _ => return Err(io::Error::other("the client's startup message has no such length")),
                    };
                }
                Ok(count)
            }
            Self::Rest(rest) => {
                let count = bytes.len().min(*rest);
                *self = if count == *rest { Self::Over } else { Self::Rest(*rest - count) };
                Ok(count)
            }
        }
    }
}

impl AsyncRead for SqlSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            return Pin::new(&mut this.socket).poll_read(cx, buf);
        }
        let count = this.ahead.len().min(buf.remaining());
        buf.put_slice(&this.ahead[..count]);
        this.ahead.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SqlSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.startup.take(buf)? {
            0 => Pin::new(&mut this.socket).poll_write(cx, buf),
            count => Poll::Ready(Ok(count)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much of `pieces` is the startup message, and what is left of each.
    fn left(pieces: &[&[u8]]) -> io::Result<Vec<Vec<u8>>> {
        let mut startup = Startup::Length(BytesMut::new());
        pieces
            .iter()
            .map(|piece| {
                let mut rest = *piece;
                loop {
                    match startup.take(rest)? {
                        0 => return Ok(rest.to_vec()),
                        count => rest = &rest[count..],
                    }
                }
            })
            .collect()
    }

    #[test]
    fn the_startup_message_alone_is_thrown_away_wherever_it_is_cut() {
        let message = b"\0\0\0\x09\0\x03\0\0\0Q\0\0\0\x04";
        for cut in 0..=message.len() {
            let (first, second) = message.split_at(cut);
            assert_eq!(left(&[first, second]).expect("a length").concat(), b"Q\0\0\0\x04", "cut at {cut}");
        }
    }

    #[test]
    fn a_startup_message_of_no_length_is_refused() {
        for length in [0_u32, 3, 10_001, u32::MAX] {
            assert!(left(&[&length.to_be_bytes()]).is_err(), "{length}");
        }
    }
}
