//! Decodes PostgreSQL's logical replication stream: the messages of the `pgoutput` plugin, protocol versions 1 to 4,
//! and the replication frames that carry them. Rows from before the stream come by COPY, which [`CopyRows`] decodes.
//!
//! It does no I/O and reads no clock: bytes go in, messages come out. Nothing is copied but names: tuples and contents
//! share the buffer of the [`Bytes`](bytes::Bytes) they came in, and decoding an Insert, Update or Delete allocates
//! nothing. No input makes it panic. What the protocol does not define (a message, a flag, a byte after the last field)
//! is an error, because what is skipped is lost.
//!
//! Sources: PostgreSQL documentation, [Logical Replication Message Formats][messages] and [Streaming Replication
//! Protocol][frames]. The tests hold what PostgreSQL 14 to 18 really sent.
//!
//! [messages]: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
//! [frames]: https://www.postgresql.org/docs/current/protocol-replication.html
//!
//! ```
//! use bytes::Bytes;
//! use pgoutput::{Decoder, Frame, Message, ProtocolVersion, Value};
//!
//! // What a CopyData message holds: an XLogData frame, and in it an Insert.
//! let copy_data = Bytes::from_static(
//!     b"w\0\0\0\0\x01\x6a\xe7\xf8\0\0\0\0\x01\x6a\xe7\xf8\0\x03\x04\x05\x06\x07\x08\x09\
//!       I\0\0\x40\0N\0\x03t\0\0\0\x017nt\0\0\0\x05hello",
//! );
//! let mut decoder = Decoder::new(ProtocolVersion::V1);
//!
//! let Frame::WalData(data) = Frame::parse(copy_data)? else { panic!("not a keepalive") };
//! assert_eq!(data.wal_start.to_string(), "0/16AE7F8");
//! let Message::Insert(insert) = decoder.decode(data.payload)? else { panic!("an insert") };
//! assert_eq!(u32::from(insert.relation), 0x4000);
//! assert!(insert.new.iter().eq([Value::Text(b"7"), Value::Null, Value::Text(b"hello")]));
//!
//! // A message that ends too early says where.
//! let error = decoder.decode(Bytes::from_static(b"I\0\0\x40\0N\0\x01t\0\0\0\x05he")).unwrap_err();
//! assert_eq!(error.to_string(), "Insert: new tuple value of column 0 at byte 13: 5 bytes needed, 2 left");
//! # Ok::<(), pgoutput::DecodeError>(())
//! ```
//!
//! # A transaction on the wire
//!
//! Version 1 sends committed transactions whole, one after the other, in the order of their commits:
//!
//! ```text
//! Begin        commit LSN, commit time, xid
//!   Origin     if it was replicated from elsewhere
//!   Type       before the first Relation that uses it, if it is not built in
//!   Relation   before the table's first row, and again after the table changed
//!   Insert | Update | Delete | Truncate | Message ...
//! Commit       commit LSN, end LSN
//! ```
//!
//! With `streaming` (version 2) a large transaction starts to come before it ends, in blocks. Inside them each message
//! names its transaction or subtransaction, and what a Stream Abort names never happened:
//!
//! ```text
//! Stream Start xid=7 first   Insert xid=7   Insert xid=8   Stream Stop
//! Begin xid=9                Insert         Commit
//! Stream Abort xid=7 subxid=8
//! Stream Start xid=7         Update xid=7   Stream Stop
//! Stream Commit xid=7
//! ```
//!
//! With `two_phase` (version 3) a prepared transaction comes as Begin Prepare ... Prepare, or with Stream Prepare in
//! place of Stream Commit, and its fate later as Commit Prepared or Rollback Prepared. With `streaming 'parallel'`
//! (version 4) a Stream Abort also says where and when.
//!
//! # What is easily got wrong
//!
//! - **An LSN does not identify a change.** Rows that one log record holds share it, as after `COPY`; and since
//!   transactions overlap in the log but come in the order of their commits, the LSNs of changes go back and forth.
//!   What identifies a change is its transaction's [`end_lsn`](Commit::end_lsn) (or [`commit_lsn`](Commit::commit_lsn),
//!   of which there is exactly one to each) and its ordinal in the transaction.
//! - **[`Begin`] carries the commit LSN only.** The position to confirm is [`Commit::end_lsn`], which comes last.
//! - **Unchanged is not null.** A value stored out of line that an Update left alone is [`Value::UnchangedToast`]: it
//!   was not sent. With `REPLICA IDENTITY FULL` the old tuple has it; else only a copy kept elsewhere does.
//! - **A key is not a row.** In [`OldTuple::Key`] the columns outside the replica identity are null whatever they were.
//! - **An empty schema means `pg_catalog`**, in [`Relation`] and [`Type`] alike.
//! - **A [`LogicalMessage`] that is not transactional stands alone**: it has no Begin and no Commit, overtakes the
//!   transaction that wrote it, and comes even when that one was rolled back.
//! - **A transaction can be empty**: before PostgreSQL 15, one that changed nothing published comes as a Begin and a
//!   Commit.

mod decoder;
mod version;

mod message;
mod tuple;

mod copy;

mod frame;

mod ids;
mod lsn;
mod timestamp;

mod error;
mod reader;

pub use copy::CopyRows;
pub use decoder::Decoder;
pub use error::DecodeError;
pub use frame::{Frame, Keepalive, StatusUpdate, WalData};
pub use ids::{Oid, Xid};
pub use lsn::{Lsn, ParseLsnError};
pub use message::{
    AbortPosition, Begin, BeginPrepare, Commit, CommitPrepared, Delete, Insert, LogicalMessage, Message, MessageKind,
    Origin, Prepare, Relation, RelationColumn, ReplicaIdentity, RollbackPrepared, StreamAbort, StreamCommit,
    StreamPrepare, StreamStart, StreamStop, Truncate, Type, Update,
};
pub use timestamp::Timestamp;
pub use tuple::{OldTuple, Tuple, TupleSizeError, Value, Values};
pub use version::ProtocolVersion;
