//! How far the stream is, and how far behind.
//!
//! The lag has two measures that say different things. In bytes it is the log between what is committed in Kafka and the server's end: what PostgreSQL has to keep, other
//! databases' and rolled-back transactions' log included. In time it is how long ago the oldest transaction was committed at the source that has come and is
//! not committed in Kafka as a whole: 0 where nothing is owed, however much log there is.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use pgoutput::Lsn;
use publisher::Position;

use super::{
    Metrics, number, signed,
    status::{Lag, Last},
    unix_us,
};

/// The positions as numbers, to take differences of.
#[derive(Default)]
pub(super) struct Positions {
    pub(super) received: AtomicU64,
    pub(super) committed: AtomicU64,
    pub(super) server: AtomicU64,
    /// When the oldest transaction that Kafka has not committed was committed at the source, as far as is known; 0 for none.
    pub(super) behind_since_unix_us: AtomicI64,
    /// Since when the source task has been at work on one chunk, 0 while it waits for the server.
    pub(super) source_works_since_unix_us: AtomicI64,
    /// When an event was last encoded; 0 for never.
    pub(super) last_event_unix_us: AtomicI64,
    /// The transaction id of the last transaction that was received whole; 0, which is none, before the first.
    pub(super) last_xid: AtomicU32,
    /// Whether the publishing thread is inside a commit.
    pub(super) is_committing: AtomicBool,
}

impl Metrics {
    /// Everything before this position is in a Kafka transaction.
    pub fn published(&self, end_lsn: Lsn) {
        self.published_lsn.set(number(end_lsn));
    }

    /// A transaction that ends here was received.
    pub fn received(&self, end_lsn: Lsn) {
        self.positions.received.store(end_lsn.into(), Ordering::Relaxed);
        self.received_lsn.set(number(end_lsn));
        self.server_position(end_lsn);
    }

    /// The server's log reaches this far at least.
    pub fn server_position(&self, lsn: Lsn) {
        let before = self.positions.server.fetch_max(lsn.into(), Ordering::Relaxed);
        self.server_lsn.set(number(lsn.max(before.into())));
    }

    /// A transaction with this id was received whole.
    pub fn transaction_received(&self, xid: u32) {
        self.positions.last_xid.store(xid, Ordering::Relaxed);
    }

    /// Events were encoded just now.
    pub fn events_encoded(&self) {
        self.positions.last_event_unix_us.store(unix_us(), Ordering::Relaxed);
    }

    /// When an event was last encoded, and the id of the last transaction.
    pub(super) fn last(&self) -> Last {
        let event_us = self.positions.last_event_unix_us.load(Ordering::Relaxed);
        let xid = self.positions.last_xid.load(Ordering::Relaxed);
        Last { event_ms: (event_us > 0).then_some(event_us / 1000), xid: (xid > 0).then_some(xid) }
    }

    /// A batch was encoded.
    pub fn batch_encoded(&self, transactions: u64, oldest_commit_unix_us: i64, queued_bytes: usize) {
        self.source_transactions.inc_by(transactions);
        self.queue_bytes.set(signed(queued_bytes as u64));
        if oldest_commit_unix_us != i64::MAX {
            // An older one that is not committed yet stays.
            let behind = &self.positions.behind_since_unix_us;
            let _ = behind.compare_exchange(0, oldest_commit_unix_us, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// A Kafka transaction is about to be committed.
    pub fn kafka_commits(&self) {
        self.positions.is_committing.store(true, Ordering::Relaxed);
    }

    /// Whether the source task waits for the server to send something.
    pub fn is_source_waiting(&self) -> bool {
        self.positions.source_works_since_unix_us.load(Ordering::Relaxed) == 0
    }

    /// Whether a commit is under way.
    pub fn is_committing(&self) -> bool {
        self.positions.is_committing.load(Ordering::Relaxed)
    }

    /// A Kafka transaction was committed. `newest_commit_unix_us` is about when its last transaction was committed at the source.
    pub fn kafka_committed(
        &self,
        position: Position,
        records: u64,
        took: Duration,
        queued_bytes: usize,
        newest_commit_unix_us: i64,
    ) {
        let end_lsn = position.end_lsn;
        self.positions.is_committing.store(false, Ordering::Relaxed);
        self.kafka_transactions.inc();
        self.kafka_records.inc_by(records);
        self.commit_seconds.observe(took.as_secs_f64());
        self.committed_lsn.set(number(end_lsn));
        // A position without records is published by being committed.
        self.published_lsn.set(self.published_lsn.get().max(number(end_lsn)));
        self.queue_bytes.set(signed(queued_bytes as u64));
        self.positions.committed.store(end_lsn.into(), Ordering::Relaxed);
        // What was received since was committed no earlier than the last of this; and of a transaction that is split, the rest is still to come.
        let behind = position.split.is_some() || self.positions.received.load(Ordering::Relaxed) > u64::from(end_lsn);
        let since = if behind { newest_commit_unix_us } else { 0 };
        self.positions.behind_since_unix_us.store(since, Ordering::Relaxed);
        self.lock().progressed_at = Some(Instant::now());
    }

    pub(super) fn lag(&self) -> Lag {
        let server = self.positions.server.load(Ordering::Relaxed);
        let committed = self.positions.committed.load(Ordering::Relaxed);
        let since = self.positions.behind_since_unix_us.load(Ordering::Relaxed);
        let ms = if since == 0 { 0 } else { (unix_us().saturating_sub(since) / 1000).max(0) };
        // Where nothing is committed yet, nobody knows.
        let bytes = if committed == 0 { 0 } else { signed(server.saturating_sub(committed)) };
        Lag { ms, bytes }
    }
}

#[cfg(test)]
mod tests {
    use publisher::Split;

    use super::*;

    #[test]
    fn a_transaction_that_is_split_is_behind_until_its_end() {
        let metrics = Metrics::new(0);
        let committed_at = unix_us() - 7_000_000;
        let split = Split { commit_lsn: 0x50.into(), changes: 5, messages: 0, ordinal: 5 };
        metrics.resumed_at(Position::at(0x10.into()));
        assert_eq!((metrics.lag().ms, metrics.lag().bytes), (0, 0));
        metrics.server_position(0x50.into());
        metrics.batch_encoded(0, committed_at, 0);
        for _ in 0..2 {
            // The position stays before the transaction, however much of it is in Kafka.
            let position = Position { end_lsn: 0x10.into(), split: Some(split) };
            metrics.kafka_committed(position, 5, Duration::ZERO, 0, committed_at);
            let Lag { ms, bytes } = metrics.lag();
            assert!((7000..60_000).contains(&ms) && bytes == 0x40, "{ms} {bytes}");
        }
        metrics.received(0x58.into());
        metrics.kafka_committed(Position::at(0x58.into()), 5, Duration::ZERO, 0, committed_at);
        assert_eq!((metrics.lag().ms, metrics.lag().bytes), (0, 0));
    }
}
