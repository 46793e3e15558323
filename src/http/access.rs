//! Who may give commands: whoever has the token, or, where there is none, this machine.
//!
//! A page in a browser on this machine must not be able to either. It cannot set a type of content without asking first, which nothing here allows, and
//! one that has given its own name to a loopback address (DNS rebinding) shows that name as the host.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, header};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    config,
    failure::{Code, Failure},
};

/// Who may.
#[derive(Debug, Clone)]
pub(super) struct Access {
    token: Option<SecretString>,
    /// Whether only this machine can reach the endpoint.
    is_local: bool,
}

impl Access {
    pub(super) fn new(config: &config::Http) -> Self {
        Self { token: config.token.clone(), is_local: config.listen.ip().is_loopback() }
    }

    /// Whether a request may command.
    ///
    /// # Errors
    /// It may not, and why.
    pub(super) fn check(&self, peer: SocketAddr, headers: &HeaderMap) -> Result<(), Failure> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let denied = |found: &str| Err(Failure::new(Code::ControlDenied, found));
        if text(header::CONTENT_TYPE).is_none_or(|kind| kind.split(';').next() != Some("application/json")) {
            return denied("the request is not of the type application/json");
        }
        if let Some(token) = &self.token {
            let shown = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
            return match shown {
                Some(shown) if is_same(shown.trim().as_bytes(), token.expose_secret().as_bytes()) => Ok(()),
                Some(_) => denied("the token is not http.token of the instance"),
                None => denied("the instance has http.token, and no token was shown"),
            };
        }
        // A proxy on this machine may hand on what comes from elsewhere.
        if !self.is_local || !peer.ip().to_canonical().is_loopback() {
            return denied(
                "the instance has no http.token, and then takes commands only where http.listen is a loopback address",
            );
        }
        if !text(header::HOST).is_some_and(is_this_machine) {
            return denied("the request names another host than this machine");
        }
        Ok(())
    }
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// In a time that does not tell how much of it is right.
fn is_same(shown: &[u8], token: &[u8]) -> bool {
    let differs = shown.iter().zip(token).fold(0, |differs, (one, other)| differs | (one ^ other));
    shown.len() == token.len() && std::hint::black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(peer: &str, headers: &[(&str, &str)], token: Option<&str>) -> bool {
        may_where(true, peer, headers, token)
    }

    fn may_where(is_local: bool, peer: &str, headers: &[(&str, &str)], token: Option<&str>) -> bool {
        let headers = headers.iter().map(|(name, value)| {
            (name.parse::<header::HeaderName>().expect("a name"), value.parse().expect("a value"))
        });
        let access = Access { token: token.map(SecretString::from), is_local };
        access.check(peer.parse().expect("an address"), &headers.collect()).is_ok()
    }

    #[test]
    fn without_a_token_only_this_machine_commands() {
        let json = ("content-type", "application/json");
        for host in ["127.0.0.1:9187", "localhost:9187", "[::1]:9187", "localhost"] {
            assert!(may("127.0.0.1:5000", &[json, ("host", host)], None), "{host}");
        }
        assert!(may("[::1]:5000", &[json, ("host", "localhost")], None));
        assert!(may("[::ffff:127.0.0.1]:5000", &[json, ("host", "localhost")], None));
        assert!(!may_where(false, "127.0.0.1:5000", &[json, ("host", "localhost")], None), "others can reach it too");
        assert!(!may("10.0.0.1:5000", &[json, ("host", "localhost")], None));
        assert!(!may("127.0.0.1:5000", &[json, ("host", "evil.example")], None), "a name for this machine");
        assert!(!may("127.0.0.1:5000", &[json], None));
        assert!(!may("127.0.0.1:5000", &[("host", "localhost")], None), "as a form of a page would");
        assert!(!may("127.0.0.1:5000", &[("content-type", "text/plain"), ("host", "localhost")], None));
    }

    #[test]
    fn with_a_token_whoever_shows_it_does() {
        let json = ("content-type", "application/json; charset=utf-8");
        let show = |value| may("10.0.0.1:5000", &[json, ("authorization", value)], Some("secret"));
        assert!(show("Bearer secret"));
        for wrong in ["Bearer secre", "Bearer secrets", "Bearer ", "secret", "Basic secret"] {
            assert!(!show(wrong), "{wrong}");
        }
        assert!(!may("127.0.0.1:5000", &[json, ("host", "localhost")], Some("secret")));
    }
}
