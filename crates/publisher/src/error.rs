//! What went wrong in Kafka, and the one place that says what it means.

use std::{fmt, time::Duration};

use pgoutput::Lsn;
use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};
use thiserror::Error;

use crate::{attachment::Attachment, checkpoint::CheckpointError};

/// What the caller must do about a [`PublishError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is known about what was open: make a new producer, read the checkpoint, and resume from it, after a pause.
    Renew,
    /// A newer producer of the same transactional id exists, or the coordinator timed this one out.
    Fenced,
    /// Trying again cannot help: tell the operator and stop.
    Stop,
}

/// A failure to publish. The producer that it came from is gone.
#[derive(Debug, Error)]
pub enum PublishError {
    /// A Kafka call failed.
    #[error("{doing}: {error}{}", reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default())]
    Kafka {
        /// What was being done.
        doing: &'static str,
        /// librdkafka's error.
        #[source]
        error: KafkaError,
        /// What librdkafka last said about the client as a whole, as far as it was an error.
        reason: Option<String>,
    },
    /// A transaction was committed, and so slowly that librdkafka may have asked for it twice: the other request may be on its way, and
    /// could end a later transaction of the same producer.
    #[error(
        "a commit took {} ms, so that librdkafka may have asked for it again, and what it asked first may come late (where commits \
         usually take more than {} ms, raise retry.backoff.ms and retry.backoff.max.ms)",
        took.as_millis(), limit.as_millis()
    )]
    AskedAgain {
        /// How long the commit took.
        took: Duration,
        /// How soon a request can be sent again.
        limit: Duration,
    },
    /// A record was not acknowledged.
    #[error("{0}")]
    Undelivered(UndeliveredRecord),
    /// A record in the checkpoint topic cannot be used.
    #[error("offset {offset} of the checkpoint topic {topic}: {error}")]
    Checkpoint {
        /// The checkpoint topic.
        topic: String,
        /// The record's offset.
        offset: i64,
        /// What is wrong with it.
        #[source]
        error: CheckpointError,
    },
    /// What is to be attached to the checkpoint is larger than it may be.
    #[error(
        "the record {suffix:?} beside the checkpoint would have {len_bytes} bytes, of {} at most",
        Attachment::VALUE_LEN_MAX_BYTES
    )]
    AttachmentTooLarge {
        /// Which.
        suffix: String,
        /// How large it is.
        len_bytes: usize,
    },
    /// A topic's end could not be reached.
    #[error(
        "the topic {topic} could not be read to its end: {} of {high} offsets are readable after {waited_ms} ms, since a transaction is \
         open; one that stays open for longer than any transaction may has lost the mark of its end (see KAFKA-20734 for one cause): \
         kafka-transactions.sh find-hanging shows it",
        readable.map_or_else(|| "none".to_owned(), |readable| readable.to_string())
    )]
    TopicBlocked {
        /// The topic.
        topic: String,
        /// The last stable offset, if it was learnt.
        readable: Option<i64>,
        /// The high watermark that has to be reached.
        high: i64,
        /// How long it was waited for, in milliseconds.
        waited_ms: u128,
    },
    /// A topic is not as it has to be.
    #[error("topic {topic}: {problem}")]
    Topic {
        /// The topic.
        topic: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A topic was deleted and created again while it was written to.
    #[error("topic {topic} was deleted and created again: partition {partition} has begun anew")]
    TopicRecreated {
        /// The topic.
        topic: String,
        /// The partition in which that was seen.
        partition: i32,
    },
    /// There is no bearer token to show.
    #[error("{why}")]
    Token {
        /// What is wrong with its file.
        why: String,
    },
    /// librdkafka is older than the oldest one without known bugs in transactions.
    #[error("librdkafka {found} is older than {required}, before which transactions could lose or tear records")]
    Librdkafka {
        /// The version that is linked.
        found: String,
        /// The oldest version that is good.
        required: &'static str,
    },
}

impl PublishError {
    pub(crate) fn kafka(doing: &'static str) -> impl FnOnce(KafkaError) -> Self {
        move |error| Self::Kafka { doing, error: without_value(error), reason: None }
    }

    /// What the caller must do. The only place where a Kafka error gets a meaning.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Kafka { error, .. } => verdict_of(error),
            Self::Undelivered(record) => verdict_of(&record.error),
            Self::AskedAgain { .. } | Self::TopicBlocked { .. } | Self::Token { .. } => Verdict::Renew,
            Self::Checkpoint { .. }
            | Self::AttachmentTooLarge { .. }
            | Self::Topic { .. }
            | Self::TopicRecreated { .. }
            | Self::Librdkafka { .. } => Verdict::Stop,
        }
    }

    /// librdkafka's error code, if the error came from there.
    pub fn kafka_code(&self) -> Option<Code> {
        match self {
            Self::Kafka { error, .. } => code_of(error),
            Self::Undelivered(record) => code_of(&record.error),
            _ => None,
        }
    }

    /// Whether a record was larger than the client, the topic or the broker takes.
    pub fn is_record_too_large(&self) -> bool {
        self.kafka_code().is_some_and(|code| matches!(code, Code::MessageSizeTooLarge | Code::InvalidMessageSize))
    }

    /// Whether a topic or partition that should be there is not, or is another.
    pub fn is_topic_missing(&self) -> bool {
        if matches!(self, Self::TopicRecreated { .. }) {
            return true;
        }
        self.kafka_code().is_some_and(|code| {
            matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition)
        })
    }

    /// Whether what was to be read on from an offset is there no more.
    pub fn is_offset_gone(&self) -> bool {
        self.kafka_code().is_some_and(|code| matches!(code, Code::AutoOffsetReset | Code::OffsetOutOfRange))
    }

    /// Whether the broker denies us something.
    pub fn is_unauthorized(&self) -> bool {
        self.kafka_code().is_some_and(is_authorization)
    }
}

/// A record that the broker did not acknowledge.
#[derive(Debug)]
pub struct UndeliveredRecord {
    /// Its topic.
    pub topic: String,
    /// Its partition, if one was chosen.
    pub partition: Option<i32>,
    /// Its key as it was sent, at most [`Self::KEY_LEN_MAX_BYTES`] of it.
    pub key: Vec<u8>,
    /// The key's and value's length in bytes.
    pub len_bytes: usize,
    /// The LSN of the change that it came from; invalid for a checkpoint.
    pub lsn: Lsn,
    /// Why.
    pub error: KafkaError,
}

impl UndeliveredRecord {
    /// How much of a key is kept.
    pub const KEY_LEN_MAX_BYTES: usize = 1024;
}

impl fmt::Display for UndeliveredRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a record of {} bytes for topic {}", self.len_bytes, self.topic)?;
        if let Some(partition) = self.partition {
            write!(f, " partition {partition}")?;
        }
        if self.lsn.is_valid() {
            write!(f, ", from the change at {}", self.lsn)?;
        }
        write!(f, ", was not delivered: {}", self.error)
    }
}

/// librdkafka's transaction errors are flags and not codes (KIP-98, librdkafka's "Transactional producer"): fatal, or
/// requiring an abort, or retriable, and anything else is to be taken as fatal. Here all but two lead to the same place,
/// a new producer, since nothing may be inferred after a failure. The two are being fenced, and what no retry mends.
fn verdict_of(error: &KafkaError) -> Verdict {
    match error {
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::Nul(_) => return Verdict::Stop,
        _ => {}
    }
    match code_of(error) {
        Some(
            Code::Fenced
            | Code::ProducerFenced
            | Code::InvalidProducerEpoch
            | Code::FencedInstanceId
            | Code::TransactionCoordinatorFenced,
        ) => Verdict::Fenced,
        Some(code) if is_authorization(code) => Verdict::Stop,
        Some(
            // What is sent again will be as large again, and as invalid again.
            Code::MessageSizeTooLarge
            | Code::InvalidMessageSize
            | Code::InvalidRecord
            | Code::InvalidTopic
            | Code::InvalidConfig
            | Code::InvalidReplicationFactor
            | Code::InvalidPartitions
            | Code::PolicyViolation
            | Code::InvalidTransactionTimeout
            | Code::UnsupportedVersion
            | Code::UnsupportedForMessageFormat
            | Code::UnsupportedSASLMechanism
            // A topic that was there has gone. Creating it again would hide that its records are gone as well.
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition,
        ) => Verdict::Stop,
        _ => Verdict::Renew,
    }
}

/// librdkafka quotes the value of a property that it does not take, and the value may be a password.
pub(crate) fn without_value(error: KafkaError) -> KafkaError {
    const HIDDEN: &str = "(value not shown)";
    match error {
        KafkaError::ClientConfig(outcome, description, name, value) => {
            let description = match value.as_str() {
                "" => description,
                value => {
                    description.replace(&format!("\"{value}\""), HIDDEN).replace(&format!("value {value}"), HIDDEN)
                }
            };
            KafkaError::ClientConfig(outcome, description, name, HIDDEN.to_owned())
        }
        other => other,
    }
}

fn is_authorization(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication
    )
}

pub(crate) fn code_of(error: &KafkaError) -> Option<Code> {
    match error {
        // The crate's own accessor does not give this one.
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_has_one_meaning() {
        for (error, expect) in [
            (KafkaError::MessageProduction(Code::MessageSizeTooLarge), Verdict::Stop),
            (KafkaError::MessageProduction(Code::MessageTimedOut), Verdict::Renew),
            (KafkaError::MessageProduction(Code::UnknownTopicOrPartition), Verdict::Stop),
            (KafkaError::MessageProduction(Code::InvalidProducerEpoch), Verdict::Fenced),
            (KafkaError::Global(Code::Fenced), Verdict::Fenced),
            (KafkaError::Global(Code::AllBrokersDown), Verdict::Renew),
            (KafkaError::Flush(Code::OperationTimedOut), Verdict::Renew),
            (KafkaError::AdminOp(Code::TopicAuthorizationFailed), Verdict::Stop),
            (KafkaError::MetadataFetch(Code::BrokerTransportFailure), Verdict::Renew),
            (KafkaError::ClientCreation("no such property".into()), Verdict::Stop),
        ] {
            assert_eq!(verdict_of(&error), expect, "{error}");
        }
    }
}
