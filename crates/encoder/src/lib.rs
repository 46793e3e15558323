//! A change from PostgreSQL's logical replication stream → keyed Avro records in Debezium's envelope.
//!
//! No I/O, no clock, no Kafka: [`pgoutput`]'s messages in, bytes out. What a table's rows become is decided once, when the stream says what
//! the table looks like; a row then goes straight from the wire's text to Avro's bytes, with no value in between and no
//! allocation, but for numerics of more than 38 digits and changes of a key.
//!
//! ```
//! use encoder::{Change, EncodeOptions, EventContext, EventOrder, Naming, RecordBatch, TableFacts, TablePlan, TransactionContext};
//! use pgoutput::{Insert, Lsn, Oid, Relation, RelationColumn, ReplicaIdentity, Timestamp, Tuple, Value, Xid};
//!
//! // A Relation message came, and the catalog was asked what only it knows.
//! let column = |name: &str, type_oid, is_key| RelationColumn {
//!     is_key, name: name.to_owned(), type_oid: Oid::from(type_oid), type_modifier: -1,
//! };
//! let relation = Relation {
//!     xid: None, id: Oid::from(16_384), schema: "public".to_owned(), name: "customers".to_owned(),
//!     replica_identity: ReplicaIdentity::Default, columns: vec![column("id", 23, true), column("name", 25, false)],
//! };
//! let plan = TablePlan::compile(&relation, &TableFacts::default(), &Naming::new("shop", "shopdb"), &EncodeOptions::default())?;
//! assert_eq!(&**plan.topic(), "shop.public.customers");
//!
//! // The schemas go to the registry; it gives ids.
//! assert!(plan.key_schema().is_some() && plan.value_schema().unwrap().json().starts_with(r#"{"type":"record","name":"Envelope""#));
//! let plan = plan.bind(Some(1), Some(2))?;
//!
//! // A transaction begins, and a row of it comes.
//! let transaction = TransactionContext::from_parts(Xid::from(750), Lsn::from(1000), Timestamp::from(0));
//! let row = Tuple::from_values([Value::Text(b"7"), Value::Null]).unwrap();
//! let insert = Insert { xid: None, relation: relation.id, new: row };
//! let context = EventContext { transaction: &transaction, lsn: Lsn::from(900), processed_unix_ns: 0 };
//! let (mut order, mut batch) = (EventOrder::default(), RecordBatch::new());
//! plan.encode(Change::Insert(&insert), &context, &mut order, &mut batch)?;
//!
//! let record = batch.iter().next().unwrap();
//! assert_eq!(record.key, Some(&[0, 0, 0, 0, 1, 14][..])); // the framing with the id, and a 7
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is written
//!
//! Topics, keys, schemas and values are those of Debezium's PostgreSQL connector 3.6 with both of its name adjustment modes set to `avro` and
//! `provide.transaction.metadata` on, behind Confluent's framing of 5 bytes: a consumer cannot tell the difference. That is tested record by
//! record against recordings of both, all columns of all types in them. [`BoundPlan::encode`] says which change becomes which records,
//! [`types_markdown`] what each type becomes, and [`EncodeOptions`] has the other forms that Debezium's options choose.
//!
//! The key is the replica identity's; where that is the whole row, or nothing, it is the primary key. The identity of an event is
//! its commit LSN and its ordinal in the transaction, which `transaction.id` (`<xid>:<commit LSN>`) and `transaction.total_order` hold.
//! `source.sequence` is the commit LSN and the change's LSN; several changes can share one.
//!
//! A row that was there before the stream is an event with `op` `r` and no transaction, [`BoundPlan::encode_read`]; what the snapshot is that
//! it was read in, a [`SnapshotContext`] says once. The row is written as that of an insert.
//!
//! Where Debezium writes something wrong, this crate does not follow:
//!
//! | what | Debezium | here |
//! |---|---|---|
//! | a type that it does not know | leaves the column out | PostgreSQL's text |
//! | an array of such a type, or of a domain | leaves the column out | an array of what the elements are |
//! | a column that is declared with several dimensions | an array of nulls | PostgreSQL's text |
//! | another array of several dimensions, or that does not start at 1 | nulls, or the elements without the bounds | [`EncodeErrorKind::ArrayShape`] |
//! | a null in an array of an enum | fails | [`EncodeErrorKind::NullElement`] |
//! | a value of type `name` while streaming | null | the value |
//! | an `interval` as a number | floating point, which can be off by some microseconds | exact |
//! | an `interval` that does not fit | the greatest number | [`EncodeErrorKind::OutOfRange`] |
//! | the order of an hstore's keys as JSON | that of a hash map | hstore's own |
//! | `NaN` as a string of decimals | `NAN` | what PostgreSQL prints, `NaN` |
//! | 24:00:00 and infinities as ISO 8601 text | `00:00:00Z`, and years far away | `24:00:00Z`, `infinity` |
//! | a null in a column with a default | its Avro converter writes the default | null |
//! | `timestamp` past 294247-01-10 04:00:25.2 | a number that has wrapped around | [`EncodeErrorKind::OutOfRange`] |
//! | `NaN` and infinities in a numeric | fails, or null | [`EncodeErrorKind::NotANumber`] |
//! | a value out of line (TOAST) that was not sent, in a column that is no string and no bytes | fails, or null | [`EncodeErrorKind::UnavailableValue`] |
//! | an Update whose old key was sent and is not changed | `before` is the key, and null for the rest | `before` is null |
//! | two columns whose names become the same | fails late | [`PlanError::CollidingColumns`] |
//! | a table whose name starts with a digit | a namespace that Avro does not allow | an underscore before it |
//!
//! The recordings show most of these; the others are what its source says.
//!
//! Three encodings of Debezium's forget something and are nevertheless the default, so that nothing changes for its consumers:
//! [`EncodeOptions::lossless`] has what to choose instead.
//!
//! Infinite dates and timestamps have the numbers that Debezium has for them, which no finite value of PostgreSQL can have.
//!
//! # Other shapes
//!
//! [`Envelope::Upsert`] is the row as it is now, or no value, with the rest in headers; [`Format::Json`] is either envelope in JSON. A plan of the latter has no
//! schemas. Rows are encoded as Avro first and written as JSON from that, so that each type says once how its text is read.
//!
//! # What the caller owes
//!
//! - A replication session with `client_encoding` UTF8, `DateStyle` ISO, `IntervalStyle` postgres, `TimeZone` UTC, `extra_float_digits` at least 1,
//!   `bytea_output` hex, and values in text format. `money` is read in any `lc_monetary` that has two digits after the point.
//! - A new plan for every Relation message. When [`EncodeError::null_in_not_null`] names a column, the catalog has become stricter than the rows
//!   that are still to come: make it optional in the facts, compile, register, and encode the change again.
//! - Any other [`EncodeError`] is not recoverable by trying again. It names table, column and position, and no error holds row data.
//!
//! # How it works
//!
//! 1. [`TablePlan::compile`] gives every column a codec (the `types` module), a presence (required, or which branch of its union is null),
//!    and the bytes that stand for a value that is not known; it writes both schemas, and encodes what all events of the table share.
//! 2. [`TransactionContext::new`] encodes what all events of a transaction share.
//! 3. [`BoundPlan::encode`] walks the row once for the value and looks the key's columns up, and copies the rest together. A batch is one buffer;
//!    an error takes everything back that the change has appended.

mod avro;
mod base64;
mod batch;
pub mod decode;
mod defaults;
mod encode;
mod error;
mod event;
mod facts;
mod heartbeat;
mod json;
mod json_envelope;
mod logical_message;
mod metadata;
mod naming;
mod operation;
mod options;
mod plan;
mod reference;
mod schema;
mod snapshot;
mod transaction_topic;
mod transform;
mod types;

pub use batch::{Record, RecordBatch};
pub(crate) use encode::DeadLetters;
pub use encode::{BoundPlan, Encoded, HeldBack, HeldChange, HeldError, HeldShape};
pub use error::{EncodeError, EncodeErrorKind, PlanError};
pub use event::{Change, EventContext, EventOrder, TransactionContext};
pub use facts::{ColumnFacts, ElementFacts, TableFacts, TypeKind};
pub use heartbeat::{BoundHeartbeatTopic, HeartbeatTopic};
pub use logical_message::{BoundMessageTopic, MessageTopic};
pub use metadata::Metadata;
pub use naming::{Naming, dead_letter_topic, legal_topic, may_be_dead_letter_topic};
pub use operation::{Operation, Operations};
pub use options::{
    Arrays, Bytea, Decimals, EncodeOptions, Envelope, Format, Hstore, Intervals, NameAdjustment, Times,
    Unrepresentable, VaryingBits, ZonedTimes,
};
pub use plan::TablePlan;
pub use reference::types_markdown;
pub use schema::Schema;
pub use snapshot::{SnapshotContext, SnapshotKind};
pub use transaction_topic::{BoundTransactionTopic, TransactionTopic};
pub use transform::{ColumnRule, Mask, Salt};
