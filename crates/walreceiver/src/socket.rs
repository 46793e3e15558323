//! Sockets: opened, encrypted, tuned, and taken apart into a half to read and a half to write.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, UnixStream, tcp, unix},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    ConnectOptions, Error, Host, SslMode,
    tls::{self, TlsSettings},
};

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Opens a connection, encrypted when `tls` is given and the server can.
    pub(crate) async fn connect(options: &ConnectOptions, tls: Option<&TlsSettings>) -> Result<Self, Error> {
        let server = options.server();
        let failed = |source| Error::Connect { server: Arc::clone(&server), source };
        match &options.host {
            Host::Unix(folder) => {
                Ok(Self::Unix(UnixStream::connect(options.unix_socket(folder)).await.map_err(failed)?))
            }
            Host::Tcp(host) => {
                let stream = TcpStream::connect((host.as_str(), options.port)).await.map_err(failed)?;
                tune(&stream, options).map_err(failed)?;
                match tls {
                    None => Ok(Self::Tcp(stream)),
                    Some(tls) => encrypt(stream, host, tls, options, &server).await,
                }
            }
        }
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether nobody but this machine's own users can listen: a Unix socket, or a TCP connection to this machine.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(stream) => stream.peer_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback()),
            Self::Tls(stream) => {
                stream.get_ref().0.peer_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback())
            }
        }
    }

    /// What SCRAM can be bound to: the hash of the server's certificate, where one is defined.
    pub(crate) fn server_end_point(&self) -> Option<Vec<u8>> {
        match self {
            Self::Tls(stream) => tls::server_end_point(stream.get_ref().1.peer_certificates()?.first()?),
            _ => None,
        }
    }

    pub(crate) fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Self::Unix(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Unix(read), WriteHalf::Unix(write))
            }
            Self::Tls(stream) => {
                let descriptor = stream.get_ref().0.as_raw_fd();
                let (read, write) = tokio::io::split(*stream);
                (ReadHalf::Tls { read, descriptor }, WriteHalf::Tls(write))
            }
        }
    }
}

/// The half that the stream is read from.
#[derive(Debug)]
pub(crate) enum ReadHalf {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
    /// The descriptor is that of the TCP connection below, and open for as long as this half is.
    Tls {
        read: tokio::io::ReadHalf<TlsStream<TcpStream>>,
        descriptor: RawFd,
    },
}

impl ReadHalf {
    pub(crate) fn is_tcp(&self) -> bool {
        !matches!(self, Self::Unix(_))
    }

    /// Sets `SO_RCVLOWAT`: how many bytes must have come before the kernel wakes the reader. Linux wakes at once when
    /// as many are there already, and always when the connection ends.
    pub(crate) fn set_low_water_bytes(&self, bytes: libc::c_int) -> io::Result<()> {
        let descriptor = match self {
            Self::Tcp(read) => read.as_ref().as_raw_fd(),
            Self::Tls { descriptor, .. } => *descriptor,
            Self::Unix(_) => return Ok(()),
        };
        // SAFETY: the half that owns the descriptor, alone or with the other half, is borrowed for as long as this
        // lives.
        let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open, and the pointer and size are those of one integer that outlives the call.
        let result = unsafe {
            libc::setsockopt(
                descriptor.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                (&raw const bytes).cast(),
                size,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// The half that feedback is written to.
#[derive(Debug)]
pub(crate) enum WriteHalf {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
    Tls(tokio::io::WriteHalf<TlsStream<TcpStream>>),
}

/// Asks for TLS and shakes hands.
async fn encrypt(
    mut stream: TcpStream,
    host: &str,
    tls: &TlsSettings,
    options: &ConnectOptions,
    server: &Arc<str>,
) -> Result<Socket, Error> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(|error| Error::io(server, error))?;

    // The answer is one byte. Whatever comes with it was not encrypted, and may have been put there by an attacker for
    // it to be taken as if it were (CVE-2021-23222). The server has nothing to say before the client's first message.
    let mut answer = [0; 2];
    let count = stream.read(&mut answer).await.map_err(|error| Error::io(server, error))?;
    match (count, answer[0]) {
        (0, _) => Err(Error::closed(server)),
        (1, b'S') => {
            let name = ServerName::try_from(host.to_owned()).map_err(|_| {
                Error::options("host", format!("{host:?} is not a name that a certificate can be made out to"))
            })?;
            let connector = TlsConnector::from(Arc::new(tls.config.clone()));
            let stream = connector.connect(name, stream).await.map_err(|source| {
                let hint = tls::hint(&source);
                Error::Tls { server: Arc::clone(server), source, hint }
            })?;
            Ok(Socket::Tls(Box::new(stream)))
        }
        (1, b'N') if !tls.required => Ok(Socket::Tcp(stream)),
        (1, b'N') if options.ssl_mode == SslMode::Prefer => {
            Err(Error::PlaintextCredentials { server: Arc::clone(server), ssl_mode: options.ssl_mode })
        }
        (1, b'N') => Err(Error::TlsNotOffered { server: Arc::clone(server), ssl_mode: options.ssl_mode }),
        // An error's text is not shown: it is not authenticated (CVE-2024-10977).
        (_, b'E') => Err(Error::protocol(server, "it answered the request for TLS with an error; is this PostgreSQL?")),
        (2, b'S') => {
            let problem =
                "unencrypted data follows its agreement to TLS: somebody on the network tampers with the connection";
            Err(Error::protocol(server, problem))
        }
        _ => {
            Err(Error::protocol(server, "its answer to the request for TLS is neither yes nor no; is this PostgreSQL?"))
        }
    }
}

/// A peer that is gone must be noticed: by probes while there is nothing to send, by what goes unacknowledged while
/// there is.
fn tune(stream: &TcpStream, options: &ConnectOptions) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    if let Some(keepalives) = options.keepalives {
        let keepalive = TcpKeepalive::new()
            .with_time(keepalives.idle)
            .with_interval(keepalives.interval)
            .with_retries(keepalives.count);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    socket.set_tcp_user_timeout(options.tcp_user_timeout)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(read) => Pin::new(read).poll_read(cx, buf),
            Self::Unix(read) => Pin::new(read).poll_read(cx, buf),
            Self::Tls { read, .. } => Pin::new(read).poll_read(cx, buf),
        }
    }
}

macro_rules! async_write {
    ($name:ident) => {
        impl AsyncWrite for $name {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
                    Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
                    Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
                    Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
                    Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
                    Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
                    Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
                }
            }
        }
    };
}

async_write!(Socket);
async_write!(WriteHalf);
