//! One HTTP exchange with a registry: TLS, authentication, deadlines, bounded answers, and statuses sorted into kinds of failure.

use std::error::Error;
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::{Host, Url};

use crate::error::{ErrorKind, Facts, RegistryError};
use crate::options::{Auth, RegistryOptions};

/// Longer answers are refused. A schema is the largest thing that is asked for, and Kafka's own limit for a registry's record is 1 MiB.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// What is kept of an answer that is no success.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// What is quoted of a registry's words.
const QUOTE_CHARACTERS_MAX: usize = 500;

const REDIRECTS_MAX: usize = 3;

/// A registry that asks for a longer wait is asked again after this one.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// A connection pool to one registry.
pub(crate) struct Transport {
    http: reqwest::Client,
    base: Url,
    auth: Auth,
    observer: OnceLock<Box<Observe>>,
}

type Observe = dyn Fn(&RegistryError) + Send + Sync;

/// What is asked, in the words that an error needs and the parts that a URL needs.
pub(crate) struct Request<'a> {
    pub(crate) operation: &'static str,
    pub(crate) subject: Option<&'a str>,
    pub(crate) method: Method,
    /// Parts of the path, not yet percent-encoded.
    pub(crate) path: &'a [&'a str],
    pub(crate) query: Option<&'static str>,
    pub(crate) body: Option<Vec<u8>>,
}

impl Transport {
    pub(crate) fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        let RegistryOptions { url: mut base, auth, request_timeout, connect_timeout, ca_certificate } = options;
        let in_url = Auth::take_from(&mut base);
        let invalid = |found: String| setup_error(&base, ErrorKind::Invalid, found);
        let auth = match (auth, in_url) {
            (auth, Auth::None) => auth,
            (Auth::None, in_url) => in_url,
            _ => {
                return Err(invalid("the URL holds a user, and there is another way of authentication too".to_owned()));
            }
        };
        let is_loopback = match base.host() {
            None => return Err(invalid("the URL has no host".to_owned())),
            Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
        };
        if !matches!(base.scheme(), "http" | "https") || base.query().is_some() || base.fragment().is_some() {
            return Err(invalid("the URL is not http:// or https:// with a host and perhaps a path".to_owned()));
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("pgsluice/", env!("CARGO_PKG_VERSION")))
            .timeout(request_timeout)
            .connect_timeout(connect_timeout)
            .redirect(redirect_policy())
            .tls_backend_preconfigured(tls_config(&base, ca_certificate.as_deref())?);
        if is_loopback {
            // A proxy for the outside world cannot reach this machine's own loopback addresses.
            builder = builder.no_proxy();
        }
        let http =
            builder.build().map_err(|error| invalid(format!("no HTTP client ({})", chain(&error.without_url()))))?;
        Ok(Self { http, base, auth, observer: OnceLock::new() })
    }

    /// The base URL, without user and password.
    pub(crate) fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Tells this function of each request that fails; it is set once.
    pub(crate) fn observe(&self, observe: impl Fn(&RegistryError) + Send + Sync + 'static) {
        let _only_the_first_counts = self.observer.set(Box::new(observe));
    }

    /// That the registry does not know what it was asked for is an answer.
    fn observed<T>(&self, outcome: Result<T, RegistryError>) -> Result<T, RegistryError> {
        if let (Err(error), Some(observe)) = (&outcome, self.observer.get())
            && error.kind() != ErrorKind::Unknown
        {
            observe(error);
        }
        outcome
    }

    /// The same, where whatever the API answers is good enough to know that it does.
    pub(crate) async fn is_answered<T: DeserializeOwned>(&self, request: &Request<'_>) -> Result<(), RegistryError> {
        match self.ask_json::<T>(request).await {
            Err(error) if !error.is_an_answer() => self.observed(Err(error)),
            _ => Ok(()),
        }
    }

    /// Sends a request and reads its answer as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: &Request<'_>) -> Result<T, RegistryError> {
        self.observed(self.ask_json(request).await)
    }

    async fn ask_json<T: DeserializeOwned>(&self, request: &Request<'_>) -> Result<T, RegistryError> {
        let mut response = self.send(request).await?;
        let status = response.status();
        let (bytes, is_whole) =
            read(&mut response, ANSWER_BYTES_MAX).await.map_err(|error| self.io_error(request, &error))?;
        if !is_whole {
            let found = format!("the answer is longer than {} MiB", ANSWER_BYTES_MAX >> 20);
            return Err(self.error(request, ErrorKind::Malformed, Some(status), found));
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            let found = format!("the answer is not what the API promises ({error}): {}", quote(&bytes));
            self.error(request, ErrorKind::Malformed, Some(status), found)
        })
    }

    /// Sends a request whose answer is a JSON array of unknown length, of which nothing but the opening bracket is looked at.
    pub(crate) async fn array_start(&self, request: &Request<'_>) -> Result<(), RegistryError> {
        self.observed(self.ask_array_start(request).await)
    }

    async fn ask_array_start(&self, request: &Request<'_>) -> Result<(), RegistryError> {
        let mut response = self.send(request).await?;
        loop {
            let chunk = response.chunk().await.map_err(|error| self.io_error(request, &error))?;
            let first = chunk.as_ref().map(|chunk| chunk.iter().find(|byte| !byte.is_ascii_whitespace()));
            match first {
                Some(None) => {}
                Some(Some(b'[')) => return Ok(()),
                Some(Some(_)) | None => {
                    let found = "the answer is not a list of subjects".to_owned();
                    return Err(self.error(request, ErrorKind::Malformed, Some(response.status()), found));
                }
            }
        }
    }

    /// Something that is wrong before anything is sent.
    pub(crate) fn invalid(&self, request: &Request<'_>, found: String) -> RegistryError {
        self.error(request, ErrorKind::Invalid, None, found)
    }

    async fn send(&self, request: &Request<'_>) -> Result<Response, RegistryError> {
        let url = self.request_url(request)?;
        let mut builder = self.http.request(request.method.clone(), url).headers(headers());
        builder = match &self.auth {
            Auth::None => builder,
            Auth::Basic { user, password } => builder.basic_auth(user, Some(password.expose_secret())),
            Auth::Bearer(token) => builder.bearer_auth(token.expose_secret()),
        };
        if let Some(body) = &request.body {
            builder = builder.header(CONTENT_TYPE, MEDIA_TYPE).body(body.clone());
        }
        let response = builder.send().await.map_err(|error| self.io_error(request, &error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(request, response).await) }
    }

    /// The parts are percent-encoded one by one, so that a `/` in a subject stays in its part.
    fn request_url(&self, request: &Request<'_>) -> Result<Url, RegistryError> {
        // A part of dots alone would walk up the path (RFC 3986, section 5.2.4), and encoding does not protect it.
        if request.path.iter().any(|part| matches!(*part, "" | "." | "..")) {
            return Err(self.invalid(request, "a subject cannot be empty, `.` or `..`".to_owned()));
        }
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().extend(request.path),
            Err(()) => return Err(self.invalid(request, "the URL cannot have a path".to_owned())),
        };
        url.set_query(request.query);
        Ok(url)
    }

    /// Sorts an answer that is no success.
    async fn refusal(&self, request: &Request<'_>, mut response: Response) -> RegistryError {
        #[derive(Default, Deserialize)]
        struct Refusal {
            error_code: Option<i64>,
            message: Option<String>,
        }
        let status = response.status();
        let kind = match status {
            StatusCode::CONFLICT => ErrorKind::Incompatible,
            StatusCode::UNAUTHORIZED => ErrorKind::Unauthenticated,
            StatusCode::FORBIDDEN => ErrorKind::Forbidden,
            StatusCode::NOT_FOUND => ErrorKind::NotFound,
            StatusCode::TOO_MANY_REQUESTS => ErrorKind::Throttled,
            StatusCode::REQUEST_TIMEOUT => ErrorKind::Unavailable,
            StatusCode::NOT_IMPLEMENTED => ErrorKind::Rejected,
            status if status.is_server_error() => ErrorKind::Unavailable,
            status if status.is_redirection() => ErrorKind::Redirected,
            status if status.is_client_error() => ErrorKind::Rejected,
            _ => ErrorKind::Malformed,
        };
        let retry_after = retry_after(response.headers());
        let location = location(&response);
        // The status alone says enough, if the rest cannot be read.
        let (bytes, _) = read(&mut response, REFUSAL_BYTES_MAX).await.unwrap_or_default();
        let refusal: Refusal = serde_json::from_slice(&bytes).unwrap_or_default();
        // A web server's own answer for a path that it does not have may be JSON too, with the status for its code.
        let kind = match refusal.error_code {
            Some(code) if kind == ErrorKind::NotFound && code != 404 => ErrorKind::Unknown,
            _ => kind,
        };
        let words = refusal.message.as_ref().map_or_else(|| quote(&bytes), |message| quote(message.as_bytes()));
        // Writing to a String cannot fail.
        let mut found = format!("HTTP {status}");
        if let Some(code) = refusal.error_code.filter(|code| *code != i64::from(status.as_u16())) {
            let _ = write!(found, ", error {code}");
        }
        if let Some(location) = location {
            let _ = write!(found, ", to {location}");
        }
        if !words.is_empty() {
            let _ = write!(found, ": {words}");
        }
        let facts = self.facts(request, kind, Some(status), found);
        let is_of_api = refusal.error_code.is_some() || refusal.message.is_some();
        RegistryError::new(Facts { code: refusal.error_code, is_of_api, retry_after, ..facts })
    }

    fn io_error(&self, request: &Request<'_>, error: &reqwest::Error) -> RegistryError {
        if let Some(failure) = tls_failure(error) {
            let facts = self.facts(request, ErrorKind::Tls, error.status(), format!("TLS failed ({failure})"));
            return RegistryError::new(Facts { fix: tls_fix(failure), ..facts });
        }
        let (kind, found) = if error.is_timeout() && error.is_connect() {
            (ErrorKind::TimedOut, "no connection in time".to_owned())
        } else if error.is_timeout() {
            (ErrorKind::TimedOut, "no whole answer in time".to_owned())
        } else if error.is_builder() {
            (ErrorKind::Invalid, format!("the request cannot be made ({})", chain(error)))
        } else {
            (ErrorKind::Unreachable, format!("no answer ({})", chain(error)))
        };
        self.error(request, kind, error.status(), found)
    }

    fn error(
        &self,
        request: &Request<'_>,
        kind: ErrorKind,
        status: Option<StatusCode>,
        found: String,
    ) -> RegistryError {
        RegistryError::new(self.facts(request, kind, status, found))
    }

    pub(crate) fn facts(
        &self,
        request: &Request<'_>,
        kind: ErrorKind,
        status: Option<StatusCode>,
        found: String,
    ) -> Facts {
        Facts {
            kind,
            url: self.url().to_owned(),
            operation: request.operation,
            subject: request.subject.map(|subject| quote(subject.as_bytes())),
            status: status.map(|status| status.as_u16()),
            code: None,
            is_of_api: false,
            found,
            retry_after: None,
            level: None,
            fix: None,
        }
    }
}

fn setup_error(base: &Url, kind: ErrorKind, found: String) -> RegistryError {
    RegistryError::new(Facts {
        kind,
        url: base.to_string(),
        operation: "setting up",
        subject: None,
        status: None,
        code: None,
        is_of_api: false,
        found,
        retry_after: None,
        level: None,
        fix: None,
    })
}

fn headers() -> HeaderMap {
    let accept = HeaderValue::from_static("application/vnd.schemaregistry.v1+json, application/json;q=0.9");
    HeaderMap::from_iter([(ACCEPT, accept)])
}

/// Redirects are followed within one origin, so that credentials stay there, and only where they keep method and body: after a 301 or
/// 302 a registration would be sent again as a GET, and its answer misread.
fn redirect_policy() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let keeps_method = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        let stays = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
        if keeps_method && stays && attempt.previous().len() <= REDIRECTS_MAX {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

/// A configuration of its own rather than the process's default, so that a library decides nothing for the program around it.
fn tls_config(base: &Url, ca_certificate: Option<&Path>) -> Result<ClientConfig, RegistryError> {
    let invalid = |found: String| setup_error(base, ErrorKind::Invalid, found);
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_certificate {
        let unusable = |why: String| invalid(format!("the certificate file {} cannot be used ({why})", path.display()));
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(unusable("it holds no PEM certificate".to_owned()));
        }
    }
    if base.scheme() == "https" {
        // A certificate of the system that cannot be read or parsed trusts nobody, and is no reason to stop.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(invalid(
                "no certificate authority is known: install the system's, or name a file of them".to_owned(),
            ));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(format!("no TLS version can be used ({error})")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Reads a body up to a limit, and says whether that was all of it.
async fn read(response: &mut Response, bytes_max: usize) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = bytes_max - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return Ok((bytes, false));
        }
    }
    Ok((bytes, true))
}

/// The wait that the registry asks for, in seconds (RFC 9110, section 10.2.3). The form with a date would need a clock that agrees with
/// the registry's; the caller's own back-off serves as well.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// Where a redirect leads, without what could be secret.
fn location(response: &Response) -> Option<String> {
    let text = response.headers().get(LOCATION)?.to_str().ok()?;
    let mut url = response.url().join(text).ok()?;
    let _ = Auth::take_from(&mut url);
    url.set_query(None);
    url.set_fragment(None);
    Some(quote(url.as_str().as_bytes()))
}

/// Words from outside as they may be printed: one line, bounded, without control characters.
fn quote(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut words =
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).collect::<String>();
    if let Some((end, _)) = words.char_indices().nth(QUOTE_CHARACTERS_MAX) {
        words.truncate(end);
        words.push('…');
    }
    words
}

/// The TLS failure behind an error, which the connector wraps as an I/O error.
fn tls_failure(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let wrapped = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(failure) = error.downcast_ref::<rustls::Error>().or(wrapped) {
            return Some(failure);
        }
        cause = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// What to do about a failure of TLS, where more is known than that it failed.
fn tls_fix(failure: &rustls::Error) -> Option<&'static str> {
    match failure {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            Some("no authority that is trusted has signed the certificate: name the file of the one that has")
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Some("the certificate is made out to another host: give the registry by a name in its subjectAltName"),
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            Some("the certificate has expired: renew it at the registry")
        }
        rustls::Error::InvalidMessage(_) => {
            Some("what answers there does not speak TLS: give the port at which the registry does")
        }
        _ => None,
    }
}

/// An error's innermost words, which are those that say something: "Connection refused" rather than "error sending request".
fn chain(error: &reqwest::Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    quote(innermost.to_string().as_bytes())
}
