//! From the replication stream to Kafka and back.
//!
//! ```text
//!  PostgreSQL ──frames──▶ source task ──batches──▶ publishing thread ──transactions──▶ Kafka
//!      ▲                  decode, encode   (queue,   send, commit                        │
//!      │                                    budget)      │                               │
//!      └───────────────── feedback task ◀────committed───┘◀────────── acknowledged ──────┘
//! ```
//!
//! [`supervise`] runs one session after another. Every failure that may pass leads back to the same start, the one that a
//! crash leads to as well: a new producer, the checkpoint read back, the stream resumed from it. There is no second way to
//! recover, and so none that is tested less.

mod collections;
mod copier;
mod discard;
mod kafka_watch;
mod keys;
mod letters;
mod memory;
mod fitness;
mod membership;
mod postgres_watch;
mod publish;
mod quarantine;
mod registry_watch;
mod relations;
mod release;
mod session;
mod slot_watch;
mod standby;
mod source;
mod supervisor;
mod topics;
mod unreachable;
mod work;

pub use copier::in_flight_bytes;
pub use discard::{Waiting, preview_discard};
pub(crate) use fitness::{Described, SentColumns, describe};
pub(crate) use letters::{Found, MAX_BYTES, Unkept, configure_command, look_for, too_small};
pub(crate) use membership::excluded_partitions;
pub(crate) use publish::failure_of;
pub use release::{Done, Outcome, Purpose, Release, Wanted};
pub use supervisor::{Launch, kafka_settings, observed_kafka_settings, supervise};
pub(crate) use topics::{SideTopics, publishable};
pub use unreachable::look_at_kafka;
