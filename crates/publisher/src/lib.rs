//! Kafka transactions that carry their own checkpoint: the writing half of exactly once.
//!
//! # The argument
//!
//! A source position is worth nothing unless it is stored atomically with the records that it covers. Here both are in
//! one Kafka transaction: the records go to their topics, the [`Checkpoint`] goes to a compacted one-partition topic,
//! and the transaction makes them visible together or not at all (KIP-98). Five rules make that hold:
//!
//! 1. **A transaction cannot be committed without its checkpoint.** Only a [`Prepared`] one can be committed, and
//!    [`Transaction::prepare`] writes the checkpoint as the last record of it.
//! 2. **After a failure nothing is inferred.** A commit that returned an error may still have happened on the broker.
//!    [`Prepared::commit`] and [`Transaction::abort`] consume the producer when they do not succeed; the only way on
//!    is a new [`Producer`], whose `init_transactions` ends whatever was open, and then [`CheckpointTopic::read`].
//! 3. **The read sees everything that was committed.** A `read_committed` end offset is the last stable offset, and can
//!    lie before the newest committed record; see [`CheckpointTopic::read`] for how that is waited out. Every other way
//!    out of the read is an error, and never "there is no checkpoint".
//! 4. **One writer.** `init_transactions` fences every older producer of the same transactional id.
//! 5. **One classifier.** [`PublishError::verdict`] alone decides what a Kafka error means for the caller.
//!
//! What else must be known to resume goes beside the checkpoint, in the same transaction ([`Attachment`]).
//!
//! Beside the stream there is the topic that several instances keep together, such as that of schemas: it is written by one at a time
//! ([`ExclusiveWriter`]), and read on from where one was ([`LogReader`]).
//!
//! Whoever wants to see what is in topics reads them with a [`TopicReader`], and passes records on in transactions that carry how far that has come
//! ([`Transaction::forward`]); the offsets of consumer groups are a [`ConsumerGroup`]'s.
//!
//! The crate does no PostgreSQL, no Avro and no metrics. It takes bytes and returns facts.

mod attachment;
mod budget;
mod checkpoint;
mod checkpoint_topic;
mod error;
mod exclusive_writer;
mod groups;
mod log_reader;
mod native;
mod observer;
mod reader;
mod token;
mod diagnosis;
mod listening;
mod producer;
mod reports;
mod rights;
mod settings;
mod topic_reader;
mod topics;
mod topic_config;
mod probe;

pub use attachment::{Attachment, Held};
pub use budget::{Charge, MemoryBudget, RECORD_OVERHEAD_BYTES, headers_cost, record_cost};
pub use checkpoint::{Checkpoint, CheckpointError, FORMAT_VERSION, Position, Split};
pub use checkpoint_topic::CheckpointTopic;
pub use diagnosis::Cause;
pub use error::{PublishError, UndeliveredRecord, Verdict};
pub use exclusive_writer::{ExclusiveWriter, Written};
pub use groups::{ConsumerGroup, GroupOffset};
pub use log_reader::{Isolation, LogReader};
pub use observer::{ErrorObserver, Reported};
pub use probe::{Cluster, ClusterProbe, Creation, RefusedProperty, TopicShape};
pub use producer::{ForwardedRecord, OutgoingRecord, Prepared, Producer, Transaction, record_wire_bytes};
pub use rights::TopicRights;
pub use settings::KafkaSettings;
pub use topic_reader::{Appetite, FetchedRecord, Next, ReadFrom, TopicReader};
pub use topics::{TopicAdmin, TopicSettings, ensure_compacted};

/// The version of librdkafka that the program runs with, such as `2.12.1`.
pub fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
