//! What went wrong with a registry, and what the caller can do about it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A request that failed. Its text names the registry, the subject, what was found and what to do; it holds no secret.
///
/// It can be cloned, since callers that share a request share its failure.
#[derive(Clone, thiserror::Error)]
pub struct RegistryError(Arc<Facts>);

#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) kind: ErrorKind,
    /// The base URL, without user and password.
    pub(crate) url: String,
    pub(crate) operation: &'static str,
    pub(crate) subject: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) code: Option<i64>,
    /// Whether the answer is a refusal in the API's form, a JSON object with a code or a message.
    pub(crate) is_of_api: bool,
    pub(crate) found: String,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) level: Option<String>,
    /// What to do, where it is not what the kind says.
    pub(crate) fix: Option<&'static str>,
}

/// What a caller has to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The same request may succeed later: the registry is down, slow or busy, or something that is no registry answers in its place,
    /// as a proxy does that has lost its backend.
    Retry {
        /// The least time to wait, when the registry asked for one; at most five minutes.
        after: Option<Duration>,
    },
    /// The schema breaks the subject's compatibility rule. Somebody must change one or the other; then the same request succeeds.
    Incompatible,
    /// The same request will fail again until somebody changes the configuration or the registry.
    Stop,
}

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No connection: refused, reset, no such host.
    Unreachable,
    /// No whole answer within the deadline.
    TimedOut,
    /// HTTP 5xx or 408.
    Unavailable,
    /// HTTP 429.
    Throttled,
    /// HTTP 409: incompatible with an earlier version of the subject.
    Incompatible,
    /// HTTP 401: who are you?
    Unauthenticated,
    /// HTTP 403: you may not.
    Forbidden,
    /// HTTP 404 for a path that every registry has.
    NotFound,
    /// HTTP 404 with a code of the API, from a registry that does not know what it was asked for.
    Unknown,
    /// HTTP 422 or another refusal of the request.
    Rejected,
    /// A redirect that is not followed.
    Redirected,
    /// An answer that is not the API's.
    Malformed,
    /// A certificate that is not trusted, or another failure of TLS.
    Tls,
    /// Options or arguments that cannot be used; nothing was sent.
    Invalid,
}

impl ErrorKind {
    /// Its name, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Unavailable => "unavailable",
            Self::Throttled => "throttled",
            Self::Incompatible => "incompatible",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Unknown => "unknown",
            Self::Rejected => "rejected",
            Self::Redirected => "redirected",
            Self::Malformed => "malformed",
            Self::Tls => "tls",
            Self::Invalid => "invalid",
        }
    }
}

impl RegistryError {
    pub(crate) fn new(facts: Facts) -> Self {
        Self(Arc::new(facts))
    }

    /// What the caller has to do.
    pub fn action(&self) -> Action {
        match self.0.kind {
            // The last two are not the registry's own words. A URL that is wrong is told from a proxy without its backend by nothing
            // but time, and the second must not stop a stream.
            ErrorKind::Unreachable
            | ErrorKind::TimedOut
            | ErrorKind::Unavailable
            | ErrorKind::Throttled
            | ErrorKind::NotFound
            | ErrorKind::Malformed => Action::Retry { after: self.0.retry_after },
            ErrorKind::Incompatible => Action::Incompatible,
            ErrorKind::Unauthenticated
            | ErrorKind::Forbidden
            | ErrorKind::Unknown
            | ErrorKind::Rejected
            | ErrorKind::Redirected
            | ErrorKind::Tls
            | ErrorKind::Invalid => Action::Stop,
        }
    }

    /// The kind of the failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was asked for, in a few words that are always the same.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The subject that was asked about.
    pub fn subject(&self) -> Option<&str> {
        self.0.subject.as_deref()
    }

    /// The HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The registry's own `error_code`, such as 40401 for an unknown subject.
    pub fn code(&self) -> Option<i64> {
        self.0.code
    }

    /// Whether a registry has said this, of a kind that says nothing against itself or against who asks: a right that is not given, or something that it
    /// does not have. A page of a web server in its place is neither.
    pub(crate) fn is_an_answer(&self) -> bool {
        let is_its_word = matches!(self.0.kind, ErrorKind::Forbidden | ErrorKind::Unknown | ErrorKind::Rejected);
        is_its_word && self.0.is_of_api
    }

    /// Adds the compatibility level that an incompatible schema breaks.
    pub(crate) fn with_level(self, level: String) -> Self {
        match Arc::try_unwrap(self.0) {
            Ok(facts) => Self::new(Facts { level: Some(level), ..facts }),
            Err(shared) => Self(shared),
        }
    }

    fn fix(&self) -> &'static str {
        if let Some(fix) = self.0.fix {
            return fix;
        }
        match self.0.kind {
            ErrorKind::Unreachable => "start the registry, or correct its URL",
            ErrorKind::TimedOut => "see why the registry is slow, or allow it more time",
            ErrorKind::Unavailable => "see the registry's own log",
            ErrorKind::Throttled => "wait, or raise the registry's rate limit",
            ErrorKind::Incompatible => {
                "undo the change of the table, or relax the subject's compatibility level (PUT /config/{subject}) until the new schema \
                 is registered"
            }
            ErrorKind::Unauthenticated => "correct the user and password, or the token",
            ErrorKind::Forbidden => "grant these credentials the right to read and write the subject",
            ErrorKind::NotFound => {
                "see whether the registry is there behind what answers, and whether the URL has the right path, such as \
                 /apis/ccompat/v7 for Apicurio"
            }
            ErrorKind::Unknown => "see whether it is the registry that holds this stream's schemas",
            ErrorKind::Rejected => "see whether the registry is writable and takes Avro",
            ErrorKind::Redirected => "use the URL that the registry redirects to",
            ErrorKind::Malformed => {
                "see whether a Confluent-compatible schema registry is there behind what answers, and whether the URL is its"
            }
            ErrorKind::Tls => "correct the registry's certificate, or name the authority that signed it",
            ErrorKind::Invalid => "correct it",
        }
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = &*self.0;
        write!(formatter, "schema registry {}: {}", facts.url, facts.operation)?;
        if let Some(subject) = &facts.subject {
            write!(formatter, " {subject}")?;
        }
        write!(formatter, ": {}", facts.found)?;
        if let Some(level) = &facts.level {
            write!(formatter, " (compatibility level {level})")?;
        }
        write!(formatter, "; {}", self.fix())
    }
}

impl fmt::Debug for RegistryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
