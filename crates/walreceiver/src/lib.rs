//! One PostgreSQL logical replication connection: write-ahead log in, feedback out.
//!
//! It knows bytes and positions. What the bytes mean is `pgoutput`'s business, and when a position is safe is the
//! caller's.
//!
//! ```no_run
//! # async fn stream() -> Result<(), Box<dyn std::error::Error>> {
//! use walreceiver::{ConnectOptions, ReplicationClient, StreamSettings, publication_names};
//!
//! let options: ConnectOptions = "postgres://user:secret@db.example/shop?sslmode=verify-full".parse()?;
//! let client = ReplicationClient::connect(&options).await?;
//! let plugin_options = [("proto_version", "1"), ("publication_names", &publication_names(&["shop"]))];
//! let checkpoint = "16/B374D848".parse()?;
//! let (mut reader, feedback) =
//!     client.start_replication(&"shop".parse()?, checkpoint, &plugin_options, StreamSettings::default()).await?;
//! loop {
//!     for frame in reader.read().await? {
//!         let frame = frame?;
//!         // ... store what it holds, and when a transaction is safe:
//!         # let end_of_transaction = checkpoint;
//!         feedback.advance(end_of_transaction)?;
//!     }
//! }
//! # }
//! ```
//!
//! # Two halves
//!
//! ```text
//!                  +----------------------- one socket ------------------------+
//!                  | read                                                write |
//!                  v                                                           |
//!  caller <-- WalReader -- received, heard, "reply!" --> Shared --> FeedbackTask
//!     |                                                    ^
//!     +--------------- Feedback::advance ------------------+
//! ```
//!
//! The server gives a client up that says nothing for `wal_sender_timeout`. A caller whose sink is stuck does not read,
//! for that is how it keeps its memory bounded, and must not lose the connection for it. So what is said does not
//! depend on what is read: the half that writes belongs to a task of its own, which repeats the positions at least
//! three times within that timeout. A status update of any content counts as a sign of life (pg `walsender.c`,
//! `ProcessRepliesIfAny`), and the server reads them while it is itself unable to send (`ProcessPendingWrites`). A wish
//! for a reply that lies unread in the socket is thereby answered too. The task runs on the caller's runtime: code that
//! blocks all threads of that stops it.
//!
//! # What the server is told
//!
//! A status update has three positions (pg `ProcessStandbyReplyMessage`).
//!
//! - **flush** moves the slot: the server forgets what lies before it. It is what the caller has confirmed, and nothing
//!   else: not what was received, nor what the server says in a keepalive. It is `0/0`, which moves nothing, until
//!   something is confirmed. It never falls, whatever order the caller confirms in, and it cannot pass what was
//!   received: [`Feedback::advance`] refuses that, for the server would believe it.
//! - **apply** is the same. Nobody can tell "safe in the sink" from "applied".
//! - **write** is what [`WalReader::read`] has handed out, kept track of inside, so that it cannot be wrong. It moves
//!   nothing; it shows in `pg_stat_replication` how far the data has come, and is never behind flush.
//!
//! In a fast shutdown the server waits until flush is what it has sent, asking with keepalives (pg `WalSndDone`). A
//! caller that reads and confirms keepalives outside of transactions lets it end at once; one whose sink is stuck has
//! to drop the connection.
//!
//! # A server that is gone
//!
//! Three things notice it. TCP itself, by keepalive probes and `TCP_USER_TIMEOUT`. The feedback task, when a status
//! update cannot be written. And the reader: after [`StreamSettings::question_after`] of silence each status
//! update asks for an answer, and when none comes for [`StreamSettings::idle_timeout`], reading fails. That is done for Unix sockets and for
//! proxies that keep a dead connection open as well. A caller who wants to know of silence sooner has [`Feedback::heard_after`].
//!
//! # Hostile bytes
//!
//! Whatever the server announces is bounded before room is made for it: 64 KiB for a message up to the stream's start,
//! [`StreamSettings::frame_bytes_max`] for one in it, 100,000 iterations for SCRAM. TLS and authentication refuse a
//! downgrade; see [`ConnectOptions`] and [`ChannelBinding`]. A message that is not known ends the stream, and none is
//! ever skipped.
//!
//! # What is absent
//!
//! Physical replication. `sslmode=allow`, several hosts, GSSAPI, OAuth, password files and environment variables.
//! Reconnecting: the caller has to read its checkpoint again before it does, so it is the caller's loop, with
//! [`Error::action`] and [`Backoff`].

mod options;
mod url;
mod credentials;

mod sql;
mod tls;

mod client;

mod authentication;
mod message;
mod quote;
mod server_error;
mod slot;
mod socket;

mod stream;

mod reader;

mod frames;
mod pace;

mod feedback;

mod backoff;
mod error;

pub use backoff::Backoff;
pub use client::ReplicationClient;
pub use credentials::is_loopback;
pub use error::{Error, Recovery};
pub use feedback::{Feedback, Positions};
pub use options::{
    AuthenticationMethod, ChannelBinding, ClientCertificate, ConnectOptions, Host, KeepaliveOptions, RootCertificates,
    SslMode,
};
pub use quote::publication_names;
pub use reader::{Chunk, ChunkFrames, WalReader};
pub use server_error::ServerError;
pub use slot::{
    CreateSlot, CreatedSlot, InvalidSlotName, ServerSession, SlotName, SnapshotAction, SystemIdentity, TimelineHistory,
    TimelineSwitch,
};
pub use sql::SqlSocket;
pub use stream::StreamSettings;
