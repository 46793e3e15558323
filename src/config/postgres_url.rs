//! The URL of PostgreSQL, which is a secret with a printable form.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::document::{Data, printable};
use super::problem::Fault;
use super::values::FromData;

/// A `postgres://` URL. Its `Debug` and `Display` leave out the password.
#[derive(Clone)]
pub struct PostgresUrl {
    secret: SecretString,
    redacted: String,
    has_password: bool,
    connect_timeout: Option<Duration>,
}

impl PostgresUrl {
    /// The whole URL, with its password, for the connection alone.
    pub fn secret(&self) -> &SecretString {
        &self.secret
    }

    /// Whether the URL holds a password, before the host or among its parameters.
    pub fn has_password(&self) -> bool {
        self.has_password
    }

    pub(super) fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// None of the texts quotes the URL, which may hold a password in a place where nobody looks for it.
    fn parse(secret: SecretString) -> Result<Self, Fault> {
        const FIX: &str = "give postgres://user:password@host:5432/database; characters such as @ / : # in a user or password are \
                           percent-encoded, or the password goes in password_file";
        let url =
            Url::parse(secret.expose_secret()).map_err(|error| Fault::new(format!("not a URL ({error})"), FIX))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(Fault::new(format!("found the scheme {}", printable(url.scheme())), FIX));
        }
        if url.cannot_be_a_base() {
            return Err(Fault::new("the scheme is not followed by //", FIX));
        }
        if url.path().contains('@') {
            return Err(Fault::new("found a @ behind the first /, as when a password holds a /", FIX));
        }
        if url.fragment().is_some() {
            return Err(Fault::new("found a #, after which the rest would be lost", FIX));
        }
        let connect_timeout = parameter(&url, "connect_timeout");
        let connect_timeout =
            connect_timeout.map(|text| match text.parse::<u64>().ok().filter(|s| (1..=600).contains(s)) {
                Some(seconds) => Ok(Duration::from_secs(seconds)),
                None => Err(Fault::new(
                    format!("connect_timeout is \"{}\"", printable(&text)),
                    "give it 1 to 600 seconds, or set postgres.connect_timeout",
                )),
            });
        let has_password = url.password().is_some() || parameter(&url, "password").is_some();
        Ok(Self { redacted: redact(url), secret, has_password, connect_timeout: connect_timeout.transpose()? })
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.redacted)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.redacted, formatter)
    }
}

impl FromData for PostgresUrl {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        Self::parse(SecretString::from_data(data)?)
    }
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
}

/// Drops the password, and every parameter but those that are known to be harmless.
fn redact(mut url: Url) -> String {
    const HARMLESS: &[&str] = &[
        "application_name",
        "channel_binding",
        "connect_timeout",
        "dbname",
        "host",
        "port",
        "sslmode",
        "sslrootcert",
        "user",
    ];
    // This fails only for URLs that cannot have a password.
    let _ = url.set_password(None);
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| HARMLESS.contains(&name.as_ref()))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    url.set_query(None);
    if !kept.is_empty() {
        url.query_pairs_mut().extend_pairs(kept);
    }
    url.into()
}
