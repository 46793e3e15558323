//! Whether a password may go where it would go: without TLS it stays on this machine, unless that is allowed by name.
//!
//! With `sslmode=prefer` it is the server that says whether there is TLS, or whoever answers in its place. So where there is a password to lose,
//! `prefer` means no less than `require`: who does not offer TLS is told nothing, and a handshake that fails is not followed by a try without.
//! SCRAM does not change that. What it sends is no password, but whoever has heard it can try passwords against it for as long as he likes.

use std::{net::IpAddr, path::Path};

use crate::{ConnectOptions, Host, SslMode};

impl Host {
    /// Whether what is sent there stays on this machine, by its name alone: a Unix socket, `localhost`, or a loopback address. Another name that
    /// happens to have a loopback address does not count, since it may have another one the next time.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(name) => is_loopback(name),
        }
    }
}

/// The same for a host name or an address, which may be in brackets.
pub fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

impl ConnectOptions {
    /// The same, with leave to use the password without TLS at a server on another machine, or without it.
    #[must_use]
    pub fn with_plaintext_credentials(self, allowed: bool) -> Self {
        Self { plaintext_credentials_allowed: allowed, ..self }
    }

    /// The file of the client's private key, if it has a certificate.
    pub fn client_key(&self) -> Option<&Path> {
        self.client_certificate.as_ref().map(|files| files.key.as_path())
    }

    /// Whether that leave is given.
    pub fn allows_plaintext_credentials(&self) -> bool {
        self.plaintext_credentials_allowed
    }

    /// Whether there is a password that must not go without TLS.
    pub(crate) fn guards_password(&self) -> bool {
        self.password.is_some() && !self.plaintext_credentials_allowed && !self.host.is_loopback()
    }

    /// Whether there is such a password, and TLS is switched off. Connecting is refused then.
    pub fn exposes_password(&self) -> bool {
        self.guards_password() && self.ssl_mode == SslMode::Disable
    }

    /// Whether a server without TLS is taken.
    pub(crate) fn takes_plaintext(&self) -> bool {
        match self.ssl_mode {
            SslMode::Disable => true,
            SslMode::Prefer => !self.guards_password(),
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> ConnectOptions {
        url.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn what_stays_on_the_machine_is_told_from_what_does_not() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.0.1", "::1", "[::1]", "::ffff:127.0.0.1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["db", "10.0.0.1", "localhost.example.com", "localhost.", "127.1", "0.0.0.0", "::2", "[::1", ""] {
            assert!(!is_loopback(host), "{host}");
        }
        assert!(Host::Unix("/run/pg".into()).is_loopback());
    }

    #[test]
    fn a_password_is_guarded_where_it_leaves_the_machine() {
        for (url, exposes, takes_plaintext) in [
            ("postgres://ann:x@db/shop?sslmode=disable", true, true),
            ("postgres://ann:x@db/shop?sslmode=prefer", false, false),
            ("postgres://ann:x@db/shop", false, false),
            ("postgres://ann:x@db/shop?sslmode=require", false, false),
            ("postgres://db/shop?user=ann&password=x&sslmode=disable", true, true),
            ("postgres://ann@db/shop?sslmode=disable", false, true),
            ("postgres://ann@db/shop", false, true),
            ("postgres://ann@db/shop?sslmode=require", false, false),
            ("postgres://ann:x@localhost/shop?sslmode=disable", false, true),
            ("postgres://ann:x@[::1]/shop", false, true),
            ("postgres://ann:x@/shop?host=/run/pg", false, true),
        ] {
            let parsed = options(url);
            assert_eq!((parsed.exposes_password(), parsed.takes_plaintext()), (exposes, takes_plaintext), "{url}");
            let allowed = parsed.with_plaintext_credentials(true);
            let is_strict = url.contains("require");
            assert_eq!((allowed.exposes_password(), allowed.takes_plaintext()), (false, !is_strict), "{url}");
        }
        assert!(options("postgres://ann@db/shop?sslmode=disable").with_password("x".into()).exposes_password());
    }
}
