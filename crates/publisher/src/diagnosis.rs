//! Why no broker can be talked to.
//!
//! librdkafka tries to connect for ever, and whoever waits for an answer hears in the end that time is up. What is wrong with a connection it tells in its log
//! and in its error events, and of a certificate no more than that it "could not be verified". So where a call has failed, a client that asks for nothing but
//! the brokers' metadata tries once more and listens; and if it is about a certificate, another one is called by OpenSSL for each that it looks at, with what it
//! finds. Neither has a transactional id, so that neither can fence anybody.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    bindings::{rd_kafka_conf_set_ssl_cert_verify_cb, rd_kafka_t},
    client::{Client, OAuthToken},
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::KafkaError,
    producer::{BaseProducer, Producer as _},
    types::RDKafkaType,
};

use crate::{error::without_value, listening::Listening, settings::KafkaSettings, token::TokenFile};

/// How long one try waits before it is looked whether the reason is known.
const TRY: Duration = Duration::from_millis(500);

/// Why no broker can be talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// No TLS: a broker's certificate is not trusted, or it does not accept the client's.
    Untrusted {
        /// What was found.
        found: String,
        /// What to do about it.
        fix: &'static str,
    },
    /// The brokers do not accept what SASL shows them.
    Denied {
        /// What was found.
        found: String,
    },
    /// Something else.
    Unreachable {
        /// librdkafka's words.
        found: String,
    },
}

impl KafkaSettings {
    /// Whether there is more to a connection than that it is open: TLS, or SASL.
    pub fn proves_something(&self) -> bool {
        let protocol = self.properties.get("security.protocol").map(|text| text.trim().to_ascii_lowercase());
        protocol.is_some_and(|protocol| protocol != "plaintext")
    }

    /// Tries to reach the brokers, for so long at most. It blocks. Returns the hosts at which they say that they are, where clients go from here on.
    ///
    /// # Errors
    /// Why they cannot be reached; none if nothing was said.
    pub fn diagnose(&self, patience: Duration) -> Result<Vec<String>, Option<Cause>> {
        let mut config = self.common();
        config.set_log_level(RDKafkaLogLevel::Warning);
        let unreachable = |error: KafkaError| Some(Cause::Unreachable { found: without_value(error).to_string() });
        let listener = BaseProducer::from_config_and_context(&config, Listening::new(self)).map_err(unreachable)?;
        if let Some(token) = self.token() {
            // Whoever keeps it fresh may be late.
            token.hand(listener.client()).map_err(|error| Some(Cause::Unreachable { found: error.to_string() }))?;
        }
        let began = Instant::now();
        loop {
            if let Ok(metadata) = listener.client().fetch_metadata(None, TRY.min(patience)) {
                return Ok(metadata.brokers().iter().map(|broker| broker.host().to_owned()).collect());
            }
            listener.poll(Duration::from_millis(1));
            let words = listener.context().words();
            match words.as_deref().map(|words| self.cause_of(words)) {
                Some(Cause::Unreachable { .. }) | None if began.elapsed() < patience => {}
                cause => return Err(cause),
            }
        }
    }

    fn cause_of(&self, words: &str) -> Cause {
        let said = words.to_ascii_lowercase();
        let untrusted = |fix| Cause::Untrusted { found: words.to_owned(), fix };
        if said.contains("certificate verify failed") {
            return self.verdict().map_or_else(|| untrusted(UNKNOWN_AUTHORITY), |verdict| verdict.cause());
        }
        let is_about_ours = said.contains("alert") && ABOUT_CLIENT.iter().any(|alert| said.contains(alert));
        if is_about_ours || said.contains("client ssl authentication might be required") {
            return untrusted(
                "set \"ssl.certificate.location\" and \"ssl.key.location\" in kafka.properties to a certificate that an authority of the \
                 brokers has signed and that has not expired, and to its key",
            );
        }
        // Before that is the broker's address, as in `sasl_ssl://host:9093/bootstrap: SASL authentication error: ...`.
        let said =
            said.split_once("://").and_then(|(_, rest)| rest.split_once(": ")).map_or(said.as_str(), |(_, rest)| rest);
        if said.contains("sasl") && ["authentication", "mechanism", "token"].iter().any(|word| said.contains(word)) {
            return Cause::Denied { found: words.to_owned() };
        }
        Cause::Unreachable { found: words.to_owned() }
    }

    /// What OpenSSL finds wrong with the first certificate that it does not trust.
    fn verdict(&self) -> Option<Verdict> {
        let config = self.common();
        let native = config.create_native_config().ok()?;
        // SAFETY: the configuration is open, and becomes the client's below. The function that is called back is given the client's context, as
        // `Client::new` sets it, which lives as long as the client.
        let _set_or_left = unsafe { rd_kafka_conf_set_ssl_cert_verify_cb(native.ptr(), Some(look)) };
        let looking = Looking { found: Mutex::default(), token: self.token() };
        let client = Client::new(&config, native, RDKafkaType::RD_KAFKA_PRODUCER, looking).ok()?;
        let _what_it_came_for = client.fetch_metadata(None, TRY * 2);
        client.context().found.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What alerts say that are about the client's certificate, in OpenSSL's words.
const ABOUT_CLIENT: &[&str] = &[
    "certificate required",
    "bad certificate",
    "certificate unknown",
    "unknown ca",
    "certificate expired",
    "certificate revoked",
    "unsupported certificate",
    "access denied",
];

const UNKNOWN_AUTHORITY: &str = "set \"ssl.ca.location\" in kafka.properties to the file of the authority that has signed the brokers' certificates";

/// What is wrong with a broker's certificate.
#[derive(Debug)]
struct Verdict {
    broker: String,
    /// OpenSSL's `X509_V_ERR_...`.
    code: c_int,
}

impl Verdict {
    /// Source: OpenSSL `x509_vfy.h`.
    fn cause(&self) -> Cause {
        let (why, fix) = match self.code {
            9 => ("is not valid yet", "set the clock of this machine right, or renew the certificate at the broker"),
            10 => ("has expired", "renew the certificate at the broker"),
            62 | 64 => (
                "is made out to another host",
                "name the broker in kafka.bootstrap_servers, and in its advertised.listeners, by a name in the certificate's subjectAltName",
            ),
            2 | 7 | 18..=21 => ("is signed by no authority that is trusted", UNKNOWN_AUTHORITY),
            23 => ("has been revoked", "give the broker another certificate"),
            _ => ("cannot be trusted", UNKNOWN_AUTHORITY),
        };
        let found = format!("the certificate of the broker {} {why} (OpenSSL error {})", self.broker, self.code);
        Cause::Untrusted { found, fix }
    }
}

/// Keeps the first verdict.
struct Looking {
    found: Mutex<Option<Verdict>>,
    token: Option<TokenFile>,
}

impl ClientContext for Looking {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        TokenFile::of(self.token.as_ref())
    }
}

/// Is called for each certificate, with OpenSSL's verdict, and leaves it as it is.
unsafe extern "C" fn look(
    _: *mut rd_kafka_t,
    broker: *const c_char,
    _: i32,
    error: *mut c_int,
    _depth: c_int,
    _certificate: *const c_char,
    _length: usize,
    _words: *mut c_char,
    _words_length: usize,
    context: *mut c_void,
) -> c_int {
    // SAFETY: librdkafka passes pointers to an integer and to a text of its own, and the client's context, all of which outlive the call.
    let (code, broker, looking) = unsafe { (*error, CStr::from_ptr(broker), &*context.cast::<Looking>()) };
    if code == 0 {
        return 1;
    }
    let verdict = Verdict { broker: broker.to_string_lossy().into_owned(), code };
    looking.found.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(verdict);
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(properties: &[(&str, &str)]) -> KafkaSettings {
        KafkaSettings {
            bootstrap_servers: "127.0.0.1:1".into(),
            name: "shop".into(),
            properties: properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            memory_limit_bytes: 64 << 20,
            token_file: None,
            observer: crate::ErrorObserver::default(),
        }
    }

    #[test]
    fn what_librdkafka_says_is_sorted_by_what_is_to_be_done() {
        let cause = |words: &str| match settings(&[]).cause_of(words) {
            Cause::Untrusted { .. } => "untrusted",
            Cause::Denied { .. } => "denied",
            Cause::Unreachable { .. } => "unreachable",
        };
        for (words, expect) in [
            (
                "ssl://a:1: Receive failed: SSL routines::tlsv13 alert certificate required: SSL alert number 116",
                "untrusted",
            ),
            ("SSL handshake failed: SSL routines::sslv3 alert bad certificate", "untrusted"),
            ("sasl_ssl://a:1: SASL authentication error: Authentication failed", "denied"),
            (
                "SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: ",
                "denied",
            ),
            ("Failed to acquire SASL OAUTHBEARER token: x", "denied"),
            (
                "ssl://a:1: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?",
                "unreachable",
            ),
            ("a:1: Connect to ipv4#127.0.0.1:1 failed: Connection refused", "unreachable"),
        ] {
            assert_eq!(cause(words), expect, "{words}");
        }
    }

    #[test]
    fn who_is_not_there_is_told_from_who_is_not_trusted() {
        let found = settings(&[("security.protocol", "ssl")]).diagnose(Duration::from_millis(100));
        assert!(matches!(&found, Err(Some(Cause::Unreachable { found })) if found.contains("refused")), "{found:?}");
    }
}
