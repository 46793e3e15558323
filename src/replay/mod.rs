//! `pgsluice replay`: what is in topics, from a point on that an operator knows, for a reader, a pipe, another topic or a consumer group.
//!
//! It needs Kafka and, for Avro, the registry; PostgreSQL is not asked, and no stream is disturbed: its transactional id is another.
//!
//! - [`range`]: points, and the offsets that they are; [`moment`] reads times;
//! - [`position`]: where in PostgreSQL's log a record comes from; [`bisect`], with the argument, finds the first one from a position on;
//! - [`reading`] and [`decode`]: records in, decoded; [`predicate`] chooses among them;
//! - [`show`], [`copy`] into a [`target`], [`reset`]: what becomes of them.

pub(crate) mod bisect;
pub(crate) mod copy;
pub(crate) mod decode;
pub(crate) mod moment;
pub(crate) mod position;
pub(crate) mod predicate;
pub(crate) mod progress;
pub(crate) mod range;
pub(crate) mod reading;
pub(crate) mod reset;
pub(crate) mod show;
mod target;
