//! The running instance, over HTTP.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    config,
    failure::{Code, Failure},
    http::snapshot::Refused,
};

/// Longer than the instance takes to say that it cannot answer.
const TIMEOUT: Duration = Duration::from_secs(40);
/// The status of more tables than a database has.
const ANSWER_BYTES_MAX: usize = 64 << 20;

pub(super) struct Instance {
    address: Address,
    token: Option<SecretString>,
    /// Whether the token may go to another than a loopback address.
    allow_plaintext_credentials: bool,
}

/// `HOST:PORT`: an address, in brackets if it has colons, or a name, which is looked up each time that the instance is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address(String);

impl From<SocketAddr> for Address {
    /// Where an instance can be asked that listens here.
    fn from(listen: SocketAddr) -> Self {
        // Who listens everywhere listens on this machine too.
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self(SocketAddr::new(ip, listen.port()).to_string())
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        if text.contains('/') {
            return Err("it is HOST:PORT, without http:// before it and a path behind it".to_owned());
        }
        let is_name =
            |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        match text.rsplit_once(':') {
            Some((host, port))
                if !host.is_empty() && is_name(host) && port.parse::<u16>().is_ok_and(|port| port > 0) =>
            {
                Ok(Self(text.to_owned()))
            }
            Some((host, _)) if host.contains(':') => {
                Err("an address with colons is in brackets, as in [::1]:9187".to_owned())
            }
            _ => Err("it is HOST:PORT, as in db.internal:9187".to_owned()),
        }
    }
}

impl Address {
    /// Whether what is sent there stays on this machine.
    fn is_loopback(&self) -> bool {
        let host = self.0.rsplit_once(':').map_or(self.0.as_str(), |(host, _)| host);
        walreceiver::is_loopback(host)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Instance {
    /// With `http`, commands show its token.
    pub(super) fn new(address: Address, http: Option<&config::Http>) -> Self {
        Self {
            address,
            token: http.and_then(|http| http.token.clone()),
            allow_plaintext_credentials: http.is_some_and(|http| http.allow_plaintext_credentials),
        }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask("GET", path, Vec::new()).await
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>) -> Result<T, Failure> {
        if self.token.is_some() && !self.allow_plaintext_credentials && !self.address.is_loopback() {
            let found = format!("http.token would go to the instance at {} without TLS", self.address);
            return Err(Failure::new(Code::PlaintextCredentials, found));
        }
        self.ask("POST", path, body).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: &str, path: &str, body: Vec<u8>) -> Result<T, Failure> {
        let answer = timeout(TIMEOUT, self.exchange(method, path, body)).await;
        let answer = answer.unwrap_or_else(|_elapsed| Err("no answer within 40 s".to_owned()));
        let (status, body) = answer.map_err(|why| {
            let found = format!("the instance at http://{} cannot be asked: {why}", self.address);
            Failure::new(Code::ControlUnavailable, found)
        })?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| {
                let found = format!("what listens at {} is no pgsluice of this version: {error}", self.address);
                Failure::new(Code::ControlUnavailable, found)
            });
        }
        let Ok(Refused { code, error }) = serde_json::from_slice(&body) else {
            let found =
                format!("what listens at {} answers {status}, as no pgsluice of this version does", self.address);
            return Err(Failure::new(Code::ControlUnavailable, found));
        };
        let code = Code::ALL.iter().find(|known| known.as_str() == code);
        Err(Failure::new(code.copied().unwrap_or(Code::ControlUnavailable), error))
    }

    async fn exchange(&self, method: &str, path: &str, body: Vec<u8>) -> Result<(StatusCode, Bytes), String> {
        fn words(error: impl fmt::Display) -> String {
            error.to_string()
        }
        let connection = TcpStream::connect(&self.address.0).await.map_err(words)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(connection)).await.map_err(words)?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.address.to_string());
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        // Whoever only looks shows nothing.
        if let Some(token) = self.token.as_ref().filter(|_| method == "POST") {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(words)?;
        let answer = sender.send_request(request).await.map_err(words)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(words)?.to_bytes();
        driver.abort();
        Ok((status, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_named_by_address_or_by_name() {
        for (text, told) in [
            ("127.0.0.1:9187", "127.0.0.1:9187"),
            ("0.0.0.0:9187", "127.0.0.1:9187"),
            ("[::]:9187", "[::1]:9187"),
            ("[2001:db8::1]:9187", "[2001:db8::1]:9187"),
            ("localhost:9187", "localhost:9187"),
            ("pgsluice-shop.example.com:80", "pgsluice-shop.example.com:80"),
        ] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()).as_deref(), Ok(told), "{text}");
        }
        for (text, part) in [
            ("localhost", "HOST:PORT"),
            ("localhost:", "HOST:PORT"),
            ("localhost:0", "HOST:PORT"),
            ("localhost:99999", "HOST:PORT"),
            (":9187", "HOST:PORT"),
            ("a b:9187", "HOST:PORT"),
            ("a@b:9187", "HOST:PORT"),
            ("::1:9187", "brackets"),
            ("http://localhost:9187", "without http://"),
            ("localhost:9187/status", "without http://"),
        ] {
            let refused = text.parse::<Address>().expect_err(text);
            assert!(refused.contains(part), "{text}: {refused}");
        }
    }
}
