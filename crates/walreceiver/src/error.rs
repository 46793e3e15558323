//! What can go wrong, sorted by what the caller must do about it.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use pgoutput::{DecodeError, Lsn, Oid};
use thiserror::Error;

use crate::{ServerError, tls};

/// What the caller must do about an [`enum@Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recovery {
    /// Nothing is broken: the server refused for a reason that passes by itself, such as a slot that its previous
    /// connection still holds. Wait (see [`Backoff`](crate::Backoff)) and try the same again.
    Retry,
    /// The connection is lost, the data is not: connect again, after a wait, and go on from what is durable.
    Reconnect,
    /// Trying again cannot help. The message says what an operator has to do.
    Stop,
}

/// Why a replication connection could not be made, or could not go on.
///
/// Messages name the server, what was found and what to do. They never hold a password or row data.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection URL, or a file that it names, is not usable.
    #[error("connection URL: {parameter}: {problem}")]
    Options {
        /// The parameter of the URL, such as `sslmode`.
        parameter: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A certificate or key file is not usable.
    #[error("{parameter}: {}: {problem}", path.display())]
    CertificateFile {
        /// The parameter of the URL, such as `sslrootcert`.
        parameter: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No connection to the server could be opened.
    #[error("cannot connect to PostgreSQL at {server}: {source}")]
    Connect {
        /// Where the server was expected.
        server: Arc<str>,
        /// What the operating system says.
        source: io::Error,
    },
    /// The server does not offer TLS, and `sslmode` demands it.
    #[error(
        "PostgreSQL at {server} does not offer TLS, but sslmode={ssl_mode} demands it: set ssl = on in its postgresql.conf, or \
         choose another sslmode"
    )]
    TlsNotOffered {
        /// The server.
        server: Arc<str>,
        /// The mode of the URL.
        ssl_mode: crate::SslMode,
    },
    /// The password would leave this machine without TLS, which nobody has allowed.
    #[error(
        "the password would go to PostgreSQL at {server} without TLS ({})",
        match ssl_mode {
            crate::SslMode::Disable => "sslmode=disable",
            _ => "the server does not offer it, and sslmode=prefer would do without",
        }
    )]
    PlaintextCredentials {
        /// The server.
        server: Arc<str>,
        /// The mode of the URL.
        ssl_mode: crate::SslMode,
    },
    /// The TLS handshake failed; most often because the certificate is not the one to trust.
    #[error("TLS with PostgreSQL at {server} failed: {source}{hint}")]
    Tls {
        /// The server.
        server: Arc<str>,
        /// What rustls says.
        source: io::Error,
        /// What to do about it, where that is known; empty otherwise.
        hint: &'static str,
    },
    /// Authentication is not bound to the TLS connection where it has to be: somebody may sit in between.
    #[error("PostgreSQL at {server} may be an impostor: {problem}")]
    Unbound {
        /// The server.
        server: Arc<str>,
        /// What was found, and what to do.
        problem: &'static str,
    },
    /// The client and the server could not agree on who they are.
    #[error("authentication at PostgreSQL {server} failed: {problem}")]
    Authentication {
        /// The server.
        server: Arc<str>,
        /// What was found, and what to do.
        problem: String,
    },
    /// The server reported an error.
    #[error("PostgreSQL at {server}: {error}")]
    Server {
        /// The server.
        server: Arc<str>,
        /// What it said.
        error: Box<ServerError>,
    },
    /// The server warned that it streams without one of the publications. It would go on for ever, silently sending
    /// nothing of it.
    #[error(
        "PostgreSQL at {server} streams without a publication that was asked for: {notice}; a publication must exist before the \
         write-ahead log that is decoded with it: create it again, and a new slot after it"
    )]
    PublicationMissing {
        /// The server.
        server: Arc<str>,
        /// The warning.
        notice: Box<ServerError>,
    },
    /// The server, or something between, does not speak the protocol, or is not to be trusted.
    #[error("PostgreSQL at {server} broke the protocol: {problem}")]
    Protocol {
        /// The server.
        server: Arc<str>,
        /// What was expected and what came.
        problem: String,
    },
    /// A replication frame is not what the protocol allows.
    #[error("PostgreSQL at {server} broke the protocol: {source}")]
    Frame {
        /// The server.
        server: Arc<str>,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// One message of the stream is larger than the caller allows.
    #[error(
        "PostgreSQL at {server} sends a message of {announced_bytes} bytes{}{}, and the limit is {limit_bytes}: raise the limit, \
         or keep such rows out of the publication",
        position.map(|lsn| format!(" at {lsn}")).unwrap_or_default(),
        relation.map(|oid| format!(", a change of the relation with OID {oid}")).unwrap_or_default()
    )]
    FrameTooLarge {
        /// The server.
        server: Arc<str>,
        /// The size of the message's payload, in bytes.
        announced_bytes: usize,
        /// What the caller allows, in bytes.
        limit_bytes: usize,
        /// Where the change lies in the log, if the message is one of the output plugin.
        position: Option<Lsn>,
        /// The relation that was changed, if the message is an insert, update or delete.
        relation: Option<Oid>,
    },
    /// The server's version does not have what was asked for.
    #[error("PostgreSQL at {server} is version {version}, and {feature}")]
    Unsupported {
        /// The server.
        server: Arc<str>,
        /// What the server said of its version.
        version: String,
        /// What needs which version.
        feature: &'static str,
    },
    /// Something took longer than it may.
    #[error("PostgreSQL at {server} did not answer within {} ms: {doing}", limit.as_millis())]
    Timeout {
        /// The server.
        server: Arc<str>,
        /// What was being done.
        doing: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// Reading or writing failed.
    #[error("connection to PostgreSQL at {server} lost: {source}")]
    Io {
        /// The server.
        server: Arc<str>,
        /// What the operating system says.
        source: io::Error,
    },
    /// The other side closed the connection without a word.
    #[error("PostgreSQL at {server} closed the connection")]
    Closed {
        /// The server.
        server: Arc<str>,
    },
    /// The server ended the stream in good order, as it does when it shuts down.
    #[error("PostgreSQL at {server} ended the stream; it is shutting down, or was promoted")]
    StreamEnded {
        /// The server.
        server: Arc<str>,
    },
    /// The caller confirmed a position that was never received. Telling the server so would lose what lies between.
    #[error("position {confirmed} cannot be confirmed: the stream has been received to {received} only")]
    ConfirmedBeyondReceived {
        /// What the caller confirmed.
        confirmed: Lsn,
        /// How far the stream was received.
        received: Lsn,
    },
}

impl Error {
    /// What to do about it.
    pub fn action(&self) -> Recovery {
        match self {
            Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Io { .. }
            | Self::Closed { .. }
            | Self::StreamEnded { .. } => Recovery::Reconnect,
            Self::Server { error, .. } => error.action(),
            Self::Tls { source, .. } if is_connection_loss(source) => Recovery::Reconnect,
            _ => Recovery::Stop,
        }
    }

    /// The server's five-character error code, when it is the server's error.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server { error, .. } => Some(error.code()),
            Self::PublicationMissing { notice, .. } => Some(notice.code()),
            _ => None,
        }
    }

    /// Whether the server, or who answers in its place, did not prove to be the right one.
    pub fn is_untrusted(&self) -> bool {
        match self {
            Self::TlsNotOffered { .. } | Self::Unbound { .. } => true,
            Self::Tls { source, .. } => !is_connection_loss(source),
            _ => false,
        }
    }

    pub(crate) fn options(parameter: &str, problem: impl Into<String>) -> Self {
        Self::Options { parameter: parameter.to_owned(), problem: problem.into() }
    }

    pub(crate) fn protocol(server: &Arc<str>, problem: impl Into<String>) -> Self {
        Self::Protocol { server: Arc::clone(server), problem: problem.into() }
    }

    pub(crate) fn authentication(server: &Arc<str>, problem: impl Into<String>) -> Self {
        Self::Authentication { server: Arc::clone(server), problem: problem.into() }
    }

    pub(crate) fn io(server: &Arc<str>, source: io::Error) -> Self {
        if tls::is_client_refused(&source) {
            let hint = tls::hint(&source);
            return Self::Tls { server: Arc::clone(server), source, hint };
        }
        Self::Io { server: Arc::clone(server), source }
    }

    pub(crate) fn closed(server: &Arc<str>) -> Self {
        Self::Closed { server: Arc::clone(server) }
    }
}

/// A handshake that broke because the peer went away, as against one that was refused.
fn is_connection_loss(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::TimedOut
    )
}
