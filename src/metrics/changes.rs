//! What becomes of changes: events, counted by table and operation, or nothing.

use std::sync::OnceLock;

use encoder::Change;
use prometheus::{IntCounter, IntCounterVec};

use super::Metrics;

/// Why a change, or a logical decoding message, that the server has sent is no event of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// Its operation is among `events.skip`.
    SkippedOperation,
    /// Its table is published, and not among `postgres.tables`.
    UnwatchedTable,
    /// The copy of its table, which is made in one piece, has it.
    CopiedTable,
    /// Its prefix is not asked for.
    UnwantedMessage,
}

impl LeftOut {
    pub(super) const ALL: [Self; 4] =
        [Self::SkippedOperation, Self::UnwatchedTable, Self::CopiedTable, Self::UnwantedMessage];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::SkippedOperation => "skipped_operation",
            Self::UnwatchedTable => "unwatched_table",
            Self::CopiedTable => "copied_table",
            Self::UnwantedMessage => "unwanted_message",
        }
    }
}

/// Counters of one table. A series is there once it counts something: a database may have thousands of tables of which few change.
#[derive(Clone)]
pub struct TableMetrics {
    events: IntCounterVec,
    schema: String,
    table: String,
    insert: OnceLock<IntCounter>,
    update: OnceLock<IntCounter>,
    delete: OnceLock<IntCounter>,
    truncate: OnceLock<IntCounter>,
    dead_letter: OnceLock<IntCounter>,
}

impl TableMetrics {
    fn counter<'c>(&self, counter: &'c OnceLock<IntCounter>, operation: &str) -> &'c IntCounter {
        counter.get_or_init(|| self.events.with_label_values(&[self.schema.as_str(), self.table.as_str(), operation]))
    }

    /// A change could not be written, and became a dead letter. Whether it is the first of the table since the program began.
    pub fn bury(&self) -> bool {
        let counter = self.counter(&self.dead_letter, "dead_letter");
        counter.inc();
        counter.get() == 1
    }

    /// A change was encoded into so many events.
    #[inline]
    pub fn count(&self, change: &Change<'_>, events: u64) {
        match change {
            Change::Insert(_) => self.counter(&self.insert, "insert").inc_by(events),
            // A change of the key is told as a delete and a create.
            Change::Update(_) if events == 2 => {
                self.counter(&self.delete, "delete").inc();
                self.counter(&self.insert, "insert").inc();
            }
            Change::Update(_) => self.counter(&self.update, "update").inc_by(events),
            Change::Delete(_) => self.counter(&self.delete, "delete").inc_by(events),
            Change::Truncate => self.counter(&self.truncate, "truncate").inc_by(events),
        }
    }
}

impl Metrics {
    /// The counters of a table.
    pub fn table(&self, schema: &str, table: &str) -> TableMetrics {
        TableMetrics {
            events: self.events.clone(),
            schema: schema.to_owned(),
            table: table.to_owned(),
            insert: OnceLock::new(),
            update: OnceLock::new(),
            delete: OnceLock::new(),
            truncate: OnceLock::new(),
            dead_letter: OnceLock::new(),
        }
    }

    /// A change becomes no event.
    #[inline]
    pub fn left_out(&self, reason: LeftOut) {
        self.left_out[reason as usize].inc();
    }
}
