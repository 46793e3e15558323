//! pgsluice streams the committed changes of a PostgreSQL database into Kafka, exactly once.
//!
//! This is the program's library: the only place that knows all of the workspace's crates. In the order in which a newcomer may want
//! to read it:
//!
//! - [`pipeline`]: how a row travels, and how a position comes back;
//! - [`checkpoint`]: which position may be used for what, without I/O;
//! - [`quarantine`]: which tables are kept back, and why nothing of them is lost;
//! - `replay`: what is in topics, from a point on that an operator knows;
//! - [`schemas`]: where schemas get their ids, at somebody's registry or in a topic of our own;
//! - [`catalog`]: what the server's catalogs say, and the publication;
//! - [`failure`]: everything that can stop or restart a stream, and what to do about it;
//! - [`config`], [`commands`], [`http`], [`metrics`]: what an operator sees.

pub mod catalog;
pub mod checkpoint;
pub mod commands;
pub mod config;
pub mod failure;
mod failures;
pub mod fault;
pub mod http;
pub mod metrics;
pub mod pipeline;
pub mod quarantine;
mod replay;
pub mod schemas;
mod service;
mod snapshot;
