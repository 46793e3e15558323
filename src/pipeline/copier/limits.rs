//! How large the records of a table's rows may be, which is asked before any of a chunk is written.
//!
//! A record that brokers refuse takes its whole Kafka transaction with it, and what was streamed beside it. The stream stops there, since nothing can
//! go on behind a change that is missing. Of a row that is copied that need not be: it keeps only its table.
//!
//! A topic's limit is that of a batch as it is sent, compressed. How far a record can be compressed is not known before it is sent, so that it is
//! held against the limit as it is: one that could just be written so keeps its table from being copied, and the failure names the limit.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use encoder::{RecordBatch, TablePlan, may_be_dead_letter_topic};
use publisher::{TopicAdmin, record_wire_bytes};
use tokio::task::spawn_blocking;
use tracing::debug;

use super::Copier;
use crate::{
    failure::{Code, Failure},
    pipeline::{letters::MAX_BYTES, publish::failure_of},
};

/// What a batch of one record has beside the record.
const BATCH_BYTES: usize = 61;

/// How large a record may be in each topic of a table, as far as the brokers tell.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits {
    of_topics: BTreeMap<String, usize>,
}

/// What says how large a record may be.
#[derive(Debug, PartialEq, Eq)]
enum By {
    Producer,
    Topic,
}

impl Limits {
    /// The first record that is too large, with its size, the limit and whose that is.
    fn exceeded<'b>(
        &self,
        batch: &'b RecordBatch,
        admin: &TopicAdmin,
    ) -> Option<(encoder::Record<'b>, usize, usize, By)> {
        let settings = admin.settings();
        let (record_max, letter_max) = (settings.record_max_bytes(), settings.letter_max_bytes());
        batch.iter().find_map(|record| {
            let headers = record.headers().map(|(name, value)| (name.len(), value.len()));
            let (key, value) = (record.key.map_or(0, <[u8]>::len), record.value.map_or(0, <[u8]>::len));
            let bytes = record_wire_bytes(key, value, headers);
            let of_producer = if may_be_dead_letter_topic(record.topic) { letter_max } else { record_max };
            if bytes > of_producer {
                return Some((record, bytes, of_producer, By::Producer));
            }
            let of_topic = self.of_topics.get(&**record.topic).copied().filter(|limit| bytes + BATCH_BYTES > *limit);
            of_topic.map(|limit| (record, bytes, limit, By::Topic))
        })
    }
}

impl Copier {
    /// Refuses rows whose records are larger than Kafka takes, before any of them is written.
    ///
    /// # Errors
    /// One is too large, or the brokers cannot be asked.
    pub(super) async fn refuse_too_large(
        &self,
        limits: &mut Option<Limits>,
        plan: &TablePlan,
        batch: &RecordBatch,
    ) -> Result<(), Failure> {
        if batch.is_empty() {
            return Ok(());
        }
        let admin = Arc::clone(&self.topics);
        let limits = match limits {
            Some(limits) => limits,
            // Asked once in each turn: what was raised since the last one counts.
            None => limits.insert(ask(&admin, plan).await?),
        };
        let Some((record, bytes, limit, by)) = limits.exceeded(batch, &admin) else { return Ok(()) };
        let limit = match by {
            By::Producer => format!("message.max.bytes of kafka.properties is {limit}"),
            By::Topic => format!("{MAX_BYTES} of its topic is {limit}"),
        };
        let found = format!("the record of a row that is to be copied has {bytes} bytes, and {limit}");
        let failure = Failure::new(Code::RecordTooLarge, found).for_topic(&**record.topic);
        Err(match record.key.and_then(|key| plan.describe_key(key)) {
            Some(key) => failure.with_key(key),
            None => failure,
        })
    }
}

/// What the topics of a table take. Where we may not look, the stream finds out.
async fn ask(admin: &Arc<TopicAdmin>, plan: &TablePlan) -> Result<Limits, Failure> {
    let topics: Vec<String> = plan.topics().map(ToString::to_string).collect();
    let admin = Arc::clone(admin);
    let asked = spawn_blocking(move || {
        let mut of_topics = BTreeMap::new();
        for topic in topics {
            match admin.config(&topic) {
                Ok(config) => {
                    let limit = config.get(MAX_BYTES).and_then(|text| text.trim().parse().ok());
                    of_topics.extend(limit.map(|limit| (topic, limit)));
                }
                Err(error) if error.is_unauthorized() => {
                    debug!(topic, %error, "how large its records may be is not known");
                }
                Err(error) => return Err(failure_of(&error, Duration::ZERO, Duration::MAX).for_topic(topic)),
            }
        }
        Ok(Limits { of_topics })
    });
    asked.await.map_err(|error| Failure::caused(Code::Internal, error))?
}
