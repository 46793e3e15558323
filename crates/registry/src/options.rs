//! Where a registry is, and how to be let in.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

/// How to reach a registry. Its `Debug` prints no secret.
#[derive(Clone)]
pub struct RegistryOptions {
    /// The base URL, `http` or `https`. Its path is kept, as in `http://host/apis/ccompat/v7`; a user and password in it are taken as
    /// basic authentication.
    pub url: Url,
    /// How to authenticate.
    pub auth: Auth,
    /// How long one request may take, from connecting to the last byte of the answer.
    pub request_timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// A PEM file of certificate authorities that are trusted besides the system's.
    pub ca_certificate: Option<PathBuf>,
}

impl RegistryOptions {
    /// Options for a base URL, without authentication, with 10 s for a request and 5 s of it for connecting.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            auth: Auth::None,
            request_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            ca_certificate: None,
        }
    }
}

impl fmt::Debug for RegistryOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.url.clone();
        let _ = Auth::take_from(&mut url);
        formatter
            .debug_struct("RegistryOptions")
            .field("url", &url.as_str())
            .field("auth", &self.auth)
            .field("request_timeout", &self.request_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("ca_certificate", &self.ca_certificate)
            .finish()
    }
}

/// How to authenticate at a registry.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Not at all.
    None,
    /// HTTP basic authentication (RFC 7617).
    Basic {
        /// The user, without `:`.
        user: String,
        /// The password; may be empty.
        password: SecretString,
    },
    /// An OAuth 2.0 bearer token (RFC 6750).
    Bearer(SecretString),
}

impl Auth {
    /// Takes the user and password out of a URL, so that what is left can be printed. [`Auth::None`] when it has none.
    pub fn take_from(url: &mut Url) -> Self {
        if url.username().is_empty() && url.password().is_none() {
            return Self::None;
        }
        let user = percent_decode(url.username());
        let password = SecretString::from(percent_decode(url.password().unwrap_or_default()));
        // Both fail only for URLs that cannot have a user, and this one has.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Self::Basic { user, password }
    }
}

/// Undoes percent-encoding (RFC 3986, section 2.1); what is not well formed stands for itself.
fn percent_decode(text: &str) -> String {
    let digit = |byte: Option<&u8>| {
        byte.and_then(|byte| char::from(*byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok())
    };
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if let (b'%', Some(high), Some(low)) = (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            decoded.push(high * 16 + low);
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
