//! What librdkafka says of its connections, which is told by nothing else: whoever waits for an answer hears only that none came.

use std::{
    error::Error,
    sync::{Mutex, PoisonError},
};

use rdkafka::{
    ClientContext,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    error::KafkaError,
    producer::{DeliveryResult, ProducerContext},
    types::RDKafkaErrorCode as Code,
};

use crate::{settings::KafkaSettings, token::TokenFile};

/// How many different words about failures are kept.
const WORDS_MAX: usize = 3;

/// Keeps what librdkafka has said about errors: once each, and the last of it.
pub(crate) struct Listening {
    words: Mutex<Vec<String>>,
    token: Option<TokenFile>,
}

impl Listening {
    pub(crate) fn new(settings: &KafkaSettings) -> Self {
        Self { words: Mutex::default(), token: settings.token() }
    }

    /// What was heard, if anything.
    pub(crate) fn words(&self) -> Option<String> {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        (!words.is_empty()).then(|| words.join("; "))
    }

    fn hear(&self, text: &str) {
        let text = essence(text);
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if !words.iter().any(|heard| heard == text) {
            words.push(text.to_owned());
            if words.len() > WORDS_MAX {
                words.remove(0);
            }
        }
    }
}

/// What was said, without the thread, the client and the time: of
/// `[thrd:a:1/bootstrap]: a:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)`
/// all from `a:1` to `refused`.
fn essence(text: &str) -> &str {
    let text = text.strip_prefix("[thrd:").and_then(|text| text.split_once("]: ")).map_or(text, |(_, text)| text);
    text.rsplit_once(" (after ").map_or(text, |(text, _)| text)
}

impl ProducerContext for Listening {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

impl ClientContext for Listening {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        TokenFile::of(self.token.as_ref())
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, "{message}");
        if (level as i32) <= RDKafkaLogLevel::Error as i32 {
            self.hear(message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
        // That all are down follows from what was said of each.
        if error.rdkafka_error_code() != Some(Code::AllBrokersDown) {
            self.hear(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_librdkafka_says_is_kept_once_and_not_for_ever() {
        let listening = Listening { words: Mutex::default(), token: None };
        assert_eq!(listening.words(), None);
        listening.hear("[thrd:a:1/bootstrap]: a:1/bootstrap: Connect failed (after 0ms in state CONNECT)");
        listening.hear("a:1/bootstrap: Connect failed (after 7ms in state CONNECT, 1 identical error(s) suppressed)");
        assert_eq!(listening.words().as_deref(), Some("a:1/bootstrap: Connect failed"));
        for text in ["b", "c", "d"] {
            listening.hear(text);
        }
        assert_eq!(listening.words().as_deref(), Some("b; c; d"));
    }
}
