//! The consumer that all reading is done with.

use rdkafka::{
    ClientConfig, ClientContext,
    client::OAuthToken,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};
use tracing::debug;

use crate::{
    error::PublishError,
    observer::{ErrorObserver, Reported},
    settings::KafkaSettings,
    token::TokenFile,
};

pub(crate) type Reader = BaseConsumer<Quiet>;

/// Leaves it to the caller to tell what went wrong: the end of the partition, which is looked for here, is an error event as well.
pub(crate) struct Quiet {
    token: Option<TokenFile>,
    observer: ErrorObserver,
}

impl KafkaSettings {
    /// A consumer with these properties.
    pub(crate) fn reader(&self, config: &ClientConfig, creating: &'static str) -> Result<Reader, PublishError> {
        let token = self.token();
        let reader =
            Reader::from_config_and_context(config, Quiet { token: token.clone(), observer: self.observer.clone() })
                .map_err(PublishError::kafka(creating))?;
        if let Some(token) = token {
            token.hand(reader.client())?;
        }
        Ok(reader)
    }
}

impl Quiet {
    /// See [`TokenFile::hand`].
    pub(crate) fn renew(reader: &Reader) -> Result<(), PublishError> {
        reader.context().token.as_ref().map_or(Ok(()), |token| token.hand(reader.client()))
    }
}

impl ClientContext for Quiet {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(target: "librdkafka", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(target: "librdkafka", %error, "{reason}");
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            self.observer.tell(Reported::ByClient, &error);
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        TokenFile::of(self.token.as_ref())
    }
}

impl ConsumerContext for Quiet {}
