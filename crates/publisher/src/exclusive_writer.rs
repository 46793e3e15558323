//! The right to write to a topic, held by one process at a time.
//!
//! `init_transactions` of one transactional id that all writers share is a lock: it ends what another left open, waits until what another
//! had begun to commit is committed, and fences every producer of that id from before, so that none of them can write or commit any
//! more (KIP-98, KIP-360). It differs from a lock in that whoever holds it learns only from its next write that it has lost it.
//!
//! So a decision that was made on a log read **after** the lock was taken is good exactly if what follows from it commits: had anybody
//! else written in between, it would have taken the lock, and the commit would have failed.

use std::sync::Arc;

use pgoutput::Lsn;

use crate::{
    budget::{MemoryBudget, record_cost},
    error::PublishError,
    producer::{OutgoingRecord, Prepared, Producer},
    settings::KafkaSettings,
};

/// What one record may take of the budget; the topic's own limit is lower, and says so.
const BUDGET_BYTES: usize = 64 << 20;

/// A writer that had the lock when it last looked.
pub struct ExclusiveWriter {
    producer: Producer,
    budget: Arc<MemoryBudget>,
}

/// A record that is written and not committed.
#[must_use = "what is not committed holds up readers until it times out"]
pub struct Written {
    prepared: Prepared,
    budget: Arc<MemoryBudget>,
}

impl ExclusiveWriter {
    /// Takes the lock that is the settings' name. What its holders had written before is decided when this returns.
    ///
    /// # Errors
    /// See [`PublishError::verdict`].
    pub fn take(settings: &KafkaSettings) -> Result<Self, PublishError> {
        let budget = Arc::new(MemoryBudget::new(BUDGET_BYTES));
        let producer = Producer::connect(settings, Arc::clone(&budget))?;
        Ok(Self { producer, budget })
    }

    /// Writes a record, and returns once the brokers have it.
    ///
    /// # Errors
    /// [`Verdict::Fenced`](crate::Verdict::Fenced) if another has taken the lock. The record was not committed.
    pub fn write(self, topic: &str, key: &[u8], value: &[u8]) -> Result<Written, PublishError> {
        let Self { producer, budget } = self;
        let transaction = producer.begin()?;
        budget.charge(record_cost(key.len(), value.len(), 0));
        let record = OutgoingRecord {
            topic,
            key: Some(key),
            value: Some(value),
            headers: &[],
            is_letter: false,
            lsn: Lsn::INVALID,
        };
        Ok(Written { prepared: transaction.deliver(&record)?, budget })
    }
}

impl Written {
    /// Commits it.
    ///
    /// # Errors
    /// As for [`write`](ExclusiveWriter::write); but whether it was committed is **unknown**.
    pub fn commit(self) -> Result<ExclusiveWriter, PublishError> {
        Ok(ExclusiveWriter { producer: self.prepared.commit()?, budget: self.budget })
    }
}
