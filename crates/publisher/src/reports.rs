//! What librdkafka reports of the records of a producer, and of the producer as a whole.

use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use pgoutput::Lsn;
use rdkafka::{
    ClientContext, Message,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::Headers,
    producer::{DeliveryResult, ProducerContext},
    types::RDKafkaErrorCode,
};
use tracing::{debug, warn};

use crate::{
    budget::{MemoryBudget, headers_cost, record_cost},
    error::UndeliveredRecord,
    observer::{ErrorObserver, Reported},
    producer::is_effect,
    settings::KafkaSettings,
    token::TokenFile,
};

/// The LSN of a record's change rides in the pointer that librdkafka keeps for each message, so that it costs nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin(pub(crate) Lsn);

const _: () = assert!(usize::BITS >= u64::BITS, "an LSN must fit into a pointer");

impl rdkafka::util::IntoOpaque for Origin {
    #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
    fn into_ptr(self) -> *mut std::ffi::c_void {
        std::ptr::without_provenance_mut(u64::from(self.0) as usize)
    }

    unsafe fn from_ptr(pointer: *mut std::ffi::c_void) -> Self {
        Self(Lsn::from(pointer.addr() as u64))
    }
}

/// Receives delivery reports, on the thread that polls.
pub(crate) struct Reports {
    pub(crate) budget: Arc<MemoryBudget>,
    /// See [`KafkaSettings::record_max_bytes`].
    pub(crate) record_max_bytes: usize,
    /// See [`KafkaSettings::resend_after`].
    pub(crate) resend_after: Duration,
    /// How long a commit is waited for. Later the coordinator has given the transaction up, or has committed it without a word.
    pub(crate) commit_timeout: Duration,
    /// The newest offset of each partition, by topic; -1 for none.
    newest: Mutex<HashMap<String, Vec<i64>>>,
    /// The first topic that was found not to be the one that it was, and the partition.
    pub(crate) recreated: OnceLock<(String, i32)>,
    /// The first record that was not delivered, or the first for a reason of its own.
    failed: Mutex<Option<UndeliveredRecord>>,
    /// What librdkafka last said about the client as a whole.
    pub(crate) last_error: Mutex<Option<String>>,
    /// How many events are served at a time. What librdkafka logs are events as well, and with `debug` each wait for a report makes several: served
    /// one at a time, they would keep the reports behind them for ever.
    pub(crate) events_per_poll: u32,
    token: Option<TokenFile>,
    pub(crate) observer: ErrorObserver,
}

impl Reports {
    /// Of a producer with these settings, which has written nothing yet.
    pub(crate) fn new(settings: &KafkaSettings, budget: Arc<MemoryBudget>) -> Self {
        Self {
            budget,
            record_max_bytes: settings.record_max_bytes(),
            resend_after: settings.resend_after(),
            commit_timeout: settings.transaction_timeout(),
            newest: Mutex::default(),
            failed: Mutex::default(),
            recreated: OnceLock::new(),
            last_error: Mutex::new(None),
            events_per_poll: if settings.properties.contains_key("debug") { 100 } else { 1 },
            token: settings.token(),
            observer: settings.observer.clone(),
        }
    }

    fn fail(&self, record: UndeliveredRecord) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.as_ref().is_none_or(|first| is_effect(&first.error) && !is_effect(&record.error)) {
            *failed = Some(record);
        }
    }

    pub(crate) fn take_failed(&self) -> Option<UndeliveredRecord> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Everything before this offset was written to a topic of one partition.
    pub(crate) fn knows(&self, topic: &str, end_offset: i64) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let offsets = newest.entry(topic.to_owned()).or_default();
        if offsets.is_empty() {
            offsets.push(-1);
        }
        offsets[0] = offsets[0].max(end_offset - 1);
    }

    /// The offset behind the newest record of a topic of one partition, if one is known.
    pub(crate) fn end_of(&self, topic: &str) -> Option<i64> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = newest.get(topic).and_then(|offsets| offsets.first().copied());
        offset.filter(|offset| *offset >= 0).map(|offset| offset + 1)
    }

    /// Offsets of a partition only grow, for as long as its topic lives. One that was deleted and created again between two records is
    /// known by nothing else: the broker and librdkafka go on as if it had always been empty.
    fn grows(&self, topic: &str, partition: i32, offset: i64) -> bool {
        // A record that was sent again, and was there already, is reported without its offset.
        if offset < 0 {
            return true;
        }
        let (Ok(mut newest), Ok(index)) = (self.newest.lock(), usize::try_from(partition)) else { return true };
        let offsets = match newest.get_mut(topic) {
            Some(offsets) => offsets,
            None => newest.entry(topic.to_owned()).or_default(),
        };
        if offsets.len() <= index {
            offsets.resize(index + 1, -1);
        }
        std::mem::replace(&mut offsets[index], offset) < offset
    }
}

impl ClientContext for Reports {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        TokenFile::of(self.token.as_ref())
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                warn!(target: "librdkafka", facility, "{message}");
            }
            _ => debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        warn!(target: "librdkafka", %error, "{reason}");
        self.observer.tell(Reported::ByClient, &error);
        // That all are down follows from what was said of each, and says less.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            return;
        }
        if let Ok(mut last) = self.last_error.lock() {
            *last = Some(reason.to_owned());
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Origin;

    fn delivery(&self, result: &DeliveryResult<'_>, Origin(lsn): Origin) {
        let message = match result {
            Ok(message) | Err((_, message)) => message,
        };
        let len_bytes = message.key_len() + message.payload_len();
        let headers_cost_bytes = message.headers().map_or(0, |headers| {
            headers_cost(headers.iter().map(|header| (header.key.len(), header.value.map_or(0, <[u8]>::len))))
        });
        self.budget.release(record_cost(message.key_len(), message.payload_len(), headers_cost_bytes));
        if result.is_ok() && !self.grows(message.topic(), message.partition(), message.offset()) {
            let _only_the_first_counts = self.recreated.set((message.topic().to_owned(), message.partition()));
        }
        if let Err((error, _)) = result {
            self.observer.tell(Reported::ForRecord, error);
            let key = message.key().unwrap_or_default();
            self.fail(UndeliveredRecord {
                topic: message.topic().to_owned(),
                partition: u32::try_from(message.partition()).is_ok().then(|| message.partition()),
                key: key[..key.len().min(UndeliveredRecord::KEY_LEN_MAX_BYTES)].to_vec(),
                len_bytes,
                lsn,
                error: error.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_was_made_anew_is_known_by_what_was_written_before() {
        let settings = KafkaSettings {
            bootstrap_servers: String::new(),
            name: "shop".into(),
            properties: std::collections::BTreeMap::new(),
            memory_limit_bytes: 1,
            token_file: None,
            observer: ErrorObserver::default(),
        };
        let reports = Reports::new(&settings, Arc::new(MemoryBudget::new(1)));
        assert!(reports.grows("nothing is known", 0, 0));
        reports.knows("letters", 7);
        assert_eq!(reports.end_of("letters"), Some(7));
        assert!(!reports.grows("letters", 0, 0), "it has begun anew");
        reports.knows("letters", 7);
        reports.knows("letters", 3);
        assert!(!reports.grows("letters", 0, 6), "that was written already");
        assert!(reports.grows("letters", 0, 7) && reports.grows("letters", 0, 9));
        reports.knows("letters", 9);
        assert!(!reports.grows("letters", 0, 9), "what is told is older than what was seen");
        reports.knows("empty", 0);
        assert_eq!(reports.end_of("empty"), None);
        assert!(reports.grows("empty", 0, 0), "nothing was written");
        assert!(reports.grows("letters", 0, -1), "an offset that is not told says nothing");
    }
}
