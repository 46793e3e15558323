//! The program against real servers: PostgreSQL, Kafka and a schema registry.
//!
//! One behaviour a module. The servers are one stack for all of them (`dev/stack`), which is started when the first test needs it, or
//! taken from the environment (`dev/stack run --postgres 14 -- cargo test ...`). Each test has a database, a stream name and topics
//! of its own; those that end a server have the stack for themselves.
//!
//! From the environment: `PGSLUICE_TEST_PG`, PostgreSQL's version; `PGSLUICE_TEST_SEED`, to repeat what was random;
//! `PGSLUICE_TEST_KILL_ROUNDS`, `PGSLUICE_TEST_HUGE_ROWS`, `PGSLUICE_TEST_REPLAY_EVENTS` and `PGSLUICE_TEST_SNAPSHOT_ROWS`, `_KILLS`, `_CRASHES` and `_TABLES`, to do
//! more or less; `PGSLUICE_TEST_PYTHON_CLIENT=required`, to fail without Confluent's Python client; `PGSLUICE_TEST_PROMETHEUS`, where a Prometheus is, for the
//! dashboard's queries.

mod harness;
/// Pages of docs/ that show what commands say.
mod documented;
/// Shared with the tests of the encoder.
#[path = "../../crates/encoder/tests/common/json.rs"]
mod json;
/// Shared with the tests of the encoder, which compare the encoder alone.
#[path = "../../crates/encoder/tests/debezium/recording.rs"]
mod recording;

mod built_in_registry;
mod changes;
mod checkpoint_guards;
mod choosing;
mod confluent_client;
mod copy_rows;
mod dashboard;
mod ddl;
#[cfg(feature = "fault-points")]
mod fault_points;
mod fencing;
mod formats;
mod generated_columns;
mod huge_transaction;
mod idle_tables;
mod kafka_crash;
mod logical_messages;
mod migration;
mod network_faults;
mod origin;
mod outages;
mod parity;
mod postgres_crash;
mod publication;
#[cfg(feature = "fault-points")]
mod quarantine;
mod quick_start;
mod replay;
mod round_trip;
mod sigkill;
mod silence;
mod slot_guards;
mod service;
mod slot_lost;
mod slot_watch;
mod snapshot;
mod snapshot_catalog;
mod status_page;
mod termination;
mod topic_admin;
mod topics;
