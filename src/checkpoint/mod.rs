//! Which position may be used for what: the pure half of exactly once.
//!
//! Three things decide whether a row is lost or doubled, and all of them are here, without I/O and without a clock:
//!
//! - [`start`]: whether, and where, a stream may begin, from what Kafka and the server say.
//! - [`Progress`]: how positions advance while it runs. A position goes through four states, and only in this order:
//!   received from the server, published into a Kafka transaction, committed with it, confirmed to the server.
//! - [`Position`](publisher::Position) and its record in Kafka, in the `publisher` crate.

mod progress;
pub mod start;

pub use progress::{Committed, OutOfOrder, Progress};
