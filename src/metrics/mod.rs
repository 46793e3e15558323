//! What is measured, under names that do not change.
//!
//! Every metric is declared once, in [`Metrics::new`]. The pipeline tells facts through the methods below; handles are made
//! beforehand, so that a row costs one relaxed addition. Beside them is what a person wants to see (`status.rs`), which is told seldom and kept bounded.

mod changes;
pub mod copies;
mod failures;
pub mod history;
mod made;
mod positions;
mod readiness;
mod reference;
mod refused;
pub(crate) mod status;
pub(crate) mod verdict;

use std::{
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use pgoutput::Lsn;
use prometheus::{
    Encoder, Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
    process_collector::ProcessCollector,
};
use publisher::Position;

pub use self::changes::{LeftOut, TableMetrics};
use self::{
    copies::CopyMetrics,
    failures::Failures,
    history::{History, Levels},
    made::Made,
    positions::Positions,
    readiness::Readiness,
    refused::Refused,
    status::{Held, Lag, Slot},
};
use crate::{
    catalog::SlotState,
    failure::{Code, Failure},
    quarantine::Quarantine,
};

/// What a slot can be: `wal_status` of `pg_replication_slots`; and that there is none any more.
const SLOT_STATUSES: [&str; 5] = ["reserved", "extended", "unreserved", "lost", SLOT_MISSING];
const SLOT_MISSING: &str = "missing";

/// All metrics of the program, and what `/readyz` is decided from.
pub struct Metrics {
    registry: Registry,
    received_lsn: IntGauge,
    published_lsn: IntGauge,
    committed_lsn: IntGauge,
    confirmed_lsn: IntGauge,
    server_lsn: IntGauge,
    lag_bytes: IntGauge,
    lag_milliseconds: IntGauge,
    events: IntCounterVec,
    received_bytes: IntCounter,
    source_transactions: IntCounter,
    kafka_transactions: IntCounter,
    kafka_records: IntCounter,
    errors: IntCounterVec,
    refused: Refused,
    left_out: [IntCounter; LeftOut::ALL.len()],
    last_event: Gauge,
    last_xid: Gauge,
    captured_tables: IntGauge,
    tables_to_copy: IntGauge,
    copies: CopyMetrics,
    begun_anew: IntCounter,
    copied_rows: IntCounter,
    superseded_rows: IntCounter,
    queue_bytes: IntGauge,
    queue_limit_bytes: IntGauge,
    sessions: IntCounter,
    quarantined: IntGauge,
    state: IntGaugeVec,
    ready: IntGauge,
    slot_status: IntGaugeVec,
    slot_kept_bytes: Gauge,
    slot_safe_bytes: Gauge,
    slot_loss_seconds: Gauge,
    snapshot_seconds: Gauge,
    registry_up: Gauge,
    commit_seconds: Histogram,
    encode_seconds: Histogram,
    queue_seconds: Histogram,
    received_to_committed_seconds: Histogram,
    source_to_committed_seconds: Histogram,
    positions: Positions,
    readiness: Mutex<Readiness>,
    seen: Mutex<Seen>,
    started_ms: i64,
}

/// What is kept for the status alone.
struct Seen {
    slot: Option<Slot>,
    /// Some of the tables.
    quarantine: Vec<Held>,
    failures: Failures,
    history: History,
}

/// What the server says of the slot, and of the snapshots beside it.
#[derive(Debug)]
pub struct SlotHealth {
    /// What it is.
    pub state: SlotState,
    /// After how many seconds it may be given up; infinite if that is not to be expected.
    pub seconds_to_loss: f64,
    /// The age of the oldest snapshot, in seconds.
    pub snapshot_seconds: f64,
}

impl Metrics {
    /// All metrics, at zero.
    #[expect(clippy::missing_panics_doc, reason = "names are checked by a test")]
    pub fn new(queue_limit_bytes: u64) -> Self {
        let registry = Registry::new();
        let made = Made(&registry);
        let build = made.gauges(
            "build_info",
            "1, labelled with the version, the revision if whoever built it has told one, the compiler's version, and that of the librdkafka that is in use.",
            &["version", "revision", "rustc", "librdkafka"],
        );
        let (revision, librdkafka) =
            (option_env!("BUILT_FROM_REVISION").unwrap_or_default(), publisher::librdkafka_version());
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION"), revision, env!("BUILT_WITH_RUSTC"), librdkafka.as_str()])
            .set(1);
        let left_out = made.counters(
            "changes_left_out_total",
            "Changes that the server has sent and that are no events: of an operation that events.skip names, of a table that postgres.tables does not, of a table whose copy at once has them, or messages whose prefix is not asked for.",
            &["reason"],
        );
        registry
            .register(Box::new(ProcessCollector::for_self()))
            .expect("the process's own metrics are registered once");
        let metrics = Self {
            received_lsn: made
                .gauge("received_lsn", "The end of the last transaction that was received, as a number of bytes."),
            published_lsn: made
                .gauge("published_lsn", "The end of the last transaction that was handed to a Kafka transaction."),
            committed_lsn: made.gauge("committed_lsn", "The position that is committed in Kafka."),
            confirmed_lsn: made
                .gauge("confirmed_lsn", "The position that PostgreSQL was told: it may remove log before it."),
            server_lsn: made.gauge("server_lsn", "The end of the server's log, as it last said."),
            lag_bytes: made.gauge("lag_bytes", "Log between the committed position and the server's end."),
            lag_milliseconds: made.gauge(
                "lag_milliseconds",
                "Age of the oldest received transaction that is not committed in Kafka; 0 when there is none.",
            ),
            events: made.counters(
                "events_total",
                "Events encoded, by table and operation; `dead_letter` are changes that could not be, or are held back.",
                &["schema", "table", "op"],
            ),
            received_bytes: made.counter("received_bytes_total", "Bytes of the replication stream."),
            source_transactions: made.counter("source_transactions_total", "PostgreSQL transactions received."),
            kafka_transactions: made.counter("kafka_transactions_total", "Kafka transactions committed."),
            kafka_records: made.counter("kafka_records_total", "Records committed in Kafka, tombstones among them."),
            refused: Refused::new(&made),
            errors: made.counters("errors_total", "Failures, by code.", &["code"]),
            left_out: LeftOut::ALL.map(|reason| left_out.with_label_values(&[reason.label()])),
            last_event: made.real(
                "last_event_timestamp_seconds",
                "When an event was last made of a change; NaN before the first.",
            ),
            last_xid: made.real(
                "last_transaction_xid",
                "The id of the last PostgreSQL transaction that was received; NaN before the first.",
            ),
            captured_tables: made.gauge(
                "captured_tables",
                "Tables that are asked for and published, so that their changes come, as of the last time tables were matched.",
            ),
            copies: CopyMetrics::new(&made),
            tables_to_copy: made.gauge("tables_to_copy", "Tables whose rows of before the stream are not all in Kafka."),
            begun_anew: made.counter(
                "begun_anew_total",
                "How often the stream began anew behind a gap, with every table copied: snapshot.mode = \"when_needed\".",
            ),
            copied_rows: made.counter("copied_rows_total", "Rows that were read from tables and written, those of before the stream."),
            superseded_rows: made.counter(
                "copied_rows_superseded_total",
                "Rows that were read from tables and not written, since a newer change of the same row was in Kafka already.",
            ),
            queue_bytes: made.gauge("queue_bytes", "Event data in flight, from its encoding to Kafka's acknowledgement."),
            queue_limit_bytes: made.gauge("queue_limit_bytes", "How much of pgsluice_queue_bytes there may be: memory_limit, less the 7/32 of it that are for copies."),
            sessions: made.counter("sessions_total", "Sessions started: one, and one more for each restart."),
            quarantined: made.gauge(
                "quarantined_tables",
                "Tables whose changes go to dead letters, since the registry refuses their schemas.",
            ),
            state: made.gauges("state", "1 for the state that the program is in, and 0 for those in which it was.", &["state"]),
            ready: made.gauge("ready", "1 while the stream makes progress, as `/readyz` says with the reason if it does not."),
            slot_status: made.gauges(
                "slot_wal_status",
                "1 for what the server says of the slot's log: reserved, extended (more than max_wal_size), unreserved (about to be given up), or lost; or missing, once it was there and is not any more.",
                &["status"],
            ),
            slot_kept_bytes: made.real(
                "slot_kept_bytes",
                "Log that the server keeps for the slot; 0 for a slot that is missing, and NaN while the server cannot be asked.",
            ),
            slot_safe_bytes: made.real(
                "slot_safe_bytes",
                "Log that may still be written before the slot may be given up (max_slot_wal_keep_size); infinite without a limit, 0 for a slot that is missing, and NaN while the server cannot be asked.",
            ),
            slot_loss_seconds: made.real(
                "slot_loss_seconds",
                "After how long the slot may be given up, as log was written and read in the last five minutes; infinite if that is not to be expected, 0 for a slot that is missing, and NaN while the server cannot be asked.",
            ),
            snapshot_seconds: made.real(
                "snapshot_seconds",
                "Age of the oldest snapshot that copies of rows of before hold at the server, which keeps VACUUM from what is newer; 0 for none, NaN where the server cannot be asked.",
            ),
            registry_up: made.real(
                "registry_up",
                "1 while the schema registry can be used, of which it is asked every few seconds, and 0 while it does not answer, is not trusted, does not take the credentials, or something else answers in its place, whether anything waits for it or not; NaN where there is none, or it is built in.",
            ),
            commit_seconds: made.latency("kafka_commit_seconds", "How long a Kafka commit took."),
            encode_seconds: made.latency(
                "encode_seconds",
                "From the first byte of a batch received to the batch encoded, waits for the catalog and the registry included.",
            ),
            queue_seconds: made
                .latency("queue_seconds", "From a batch encoded to its first record handed to Kafka's producer."),
            received_to_committed_seconds: made
                .latency("received_to_committed_seconds", "From the first byte of a batch to its commit in Kafka."),
            source_to_committed_seconds: made.latency(
                "source_to_committed_seconds",
                "From the commit in PostgreSQL to the commit in Kafka, by both clocks.",
            ),
            positions: Positions::default(),
            readiness: Mutex::new(Readiness::new()),
            seen: Mutex::new(Seen {
                slot: None,
                quarantine: Vec::new(),
                failures: Failures::default(),
                history: History::default(),
            }),
            started_ms: unix_ms(),
            registry: registry.clone(),
        };
        for code in Code::ALL {
            metrics.errors.with_label_values(&[code.as_str()]);
        }
        for status in SLOT_STATUSES {
            metrics.slot_status.with_label_values(&[status]);
        }
        metrics.registry_up.set(f64::NAN);
        metrics.slot_safe_bytes.set(f64::INFINITY);
        metrics.slot_loss_seconds.set(f64::INFINITY);
        metrics.queue_limit_bytes.set(signed(queue_limit_bytes));
        metrics
    }

    /// What the server has said of the slot.
    pub fn slot(&self, health: &SlotHealth) {
        let SlotHealth { state, seconds_to_loss, snapshot_seconds } = health;
        self.slot_is(state.wal_status.as_deref());
        #[expect(clippy::cast_precision_loss, reason = "nobody needs it to the byte")]
        let [kept, safe] =
            [state.retained_bytes, state.safe_wal_size].map(|bytes| bytes.map(|bytes| bytes.max(0) as f64));
        self.slot_gauges(kept.unwrap_or_default(), safe.unwrap_or(f64::INFINITY), *seconds_to_loss);
        self.snapshot_seconds.set(*snapshot_seconds);
        self.seen().slot = Some(Slot {
            status: state.wal_status.clone(),
            kept_bytes: state.retained_bytes,
            safe_bytes: state.safe_wal_size,
            seconds_to_loss: seconds_to_loss.is_finite().then_some(*seconds_to_loss),
            // A document has no other number for what is not known.
            snapshot_seconds: snapshot_seconds.max(0.0),
            at_ms: unix_ms(),
        });
    }

    /// The slot was there, and is not any more: nothing is kept, and nothing is left to be lost.
    pub fn slot_missing(&self) {
        self.slot_is(Some(SLOT_MISSING));
        self.slot_gauges(0.0, 0.0, 0.0);
        if let Some(slot) = &mut self.seen().slot {
            (slot.status, slot.at_ms) = (Some(SLOT_MISSING.to_owned()), unix_ms());
        }
    }

    /// The server could not be asked: what it said last is no answer.
    pub fn slot_unknown(&self) {
        self.slot_gauges(f64::NAN, f64::NAN, f64::NAN);
    }

    fn slot_is(&self, found: Option<&str>) {
        for status in SLOT_STATUSES {
            self.slot_status.with_label_values(&[status]).set((found == Some(status)).into());
        }
    }

    fn slot_gauges(&self, kept_bytes: f64, safe_bytes: f64, loss_seconds: f64) {
        self.slot_kept_bytes.set(kept_bytes);
        self.slot_safe_bytes.set(safe_bytes);
        self.slot_loss_seconds.set(loss_seconds);
    }

    /// The program is in another state.
    pub fn state(&self, state: &'static str) {
        let mut readiness = self.lock();
        self.state.with_label_values(&[readiness.state]).set(0);
        readiness.state = state;
        readiness.since_ms = unix_ms();
        self.state.with_label_values(&[state]).set(1);
        if state == "connecting to kafka" {
            self.sessions.inc();
        }
    }

    /// Whether a session streams.
    pub fn is_streaming(&self) -> bool {
        self.lock().state == "streaming"
    }

    /// These tables are in quarantine.
    pub fn quarantined(&self, quarantine: &Quarantine) {
        self.quarantined.set(signed(quarantine.iter().len() as u64));
        self.seen().quarantine = Held::first(quarantine);
    }

    /// A session begins at this position.
    pub fn resumed_at(&self, position: Position) {
        self.received(position.end_lsn);
        self.committed_lsn.set(number(position.end_lsn));
        self.positions.committed.store(position.end_lsn.into(), Ordering::Relaxed);
        self.positions.is_committing.store(false, Ordering::Relaxed);
        let mut readiness = self.lock();
        readiness.waits_for_nothing();
        readiness.progressed_at = Some(Instant::now());
    }

    /// So many rows were read from a table, of which so many were not written.
    pub fn copied(&self, rows: u64, superseded: u64) {
        self.copied_rows.inc_by(rows.saturating_sub(superseded));
        self.superseded_rows.inc_by(superseded);
    }

    /// The stream goes on behind a gap, and every table is copied anew.
    pub fn begun_anew(&self) {
        self.begun_anew.inc();
    }

    /// So many tables are still to be copied.
    pub fn tables_to_copy(&self, tables: usize) {
        self.tables_to_copy.set(i64::try_from(tables).unwrap_or(i64::MAX));
    }

    /// So many tables are asked for and published.
    pub fn captured_tables(&self, tables: usize) {
        self.captured_tables.set(i64::try_from(tables).unwrap_or(i64::MAX));
    }

    /// A table could not be copied, for now.
    pub fn copy_failed(&self, failure: &Failure) {
        self.count_failure(failure);
    }

    fn count_failure(&self, failure: &Failure) {
        self.errors.with_label_values(&[failure.code().as_str()]).inc();
        self.seen().failures.take(failure.told(), unix_ms());
    }

    /// So much was read from the socket.
    pub fn chunk_received(&self, bytes: usize) {
        self.received_bytes.inc_by(bytes as u64);
    }

    /// The source task waits for the server to send something.
    pub fn source_waits_for_server(&self) {
        self.positions.source_works_since_unix_us.store(0, Ordering::Relaxed);
    }

    /// The source task has something to do.
    pub fn source_works(&self) {
        self.positions.source_works_since_unix_us.store(unix_us(), Ordering::Relaxed);
    }

    /// How long a batch took from its first byte to its last record.
    pub fn encoded(&self, took: Duration) {
        self.encode_seconds.observe(took.as_secs_f64());
    }

    /// How long a batch waited, for memory and for the publishing thread.
    pub fn queued(&self, took: Duration) {
        self.queue_seconds.observe(took.as_secs_f64());
    }

    /// How long the oldest part of a commit took since it was received.
    pub fn received_to_committed(&self, took: Duration) {
        self.received_to_committed_seconds.observe(took.as_secs_f64());
    }

    /// How long ago the oldest transaction of a commit was committed at the source.
    pub fn source_to_committed(&self, commit_unix_us: i64) {
        let age_us = unix_us().saturating_sub(commit_unix_us).max(0);
        #[expect(clippy::cast_precision_loss, reason = "a histogram's precision is far lower")]
        self.source_to_committed_seconds.observe(age_us as f64 / 1e6);
    }

    /// The server was told this position.
    pub fn confirmed(&self, lsn: Lsn) {
        self.confirmed_lsn.set(number(lsn));
    }

    /// How many Kafka transactions were committed.
    pub fn commits(&self) -> u64 {
        self.kafka_transactions.get()
    }

    /// Takes note of how it is now.
    fn take_sample(&self) {
        let (reading, Lag { ms, bytes }) = (self.reading(), self.lag());
        let mut seen = self.seen();
        let kept_bytes = seen.slot.as_ref().and_then(|slot| slot.kept_bytes);
        seen.history.take(reading, Levels { at_ms: unix_ms(), lag_ms: ms, lag_bytes: bytes, kept_bytes });
    }

    /// Everything in Prometheus's text format.
    pub fn render(&self) -> String {
        let Lag { ms, bytes } = self.lag();
        self.lag_bytes.set(bytes);
        self.lag_milliseconds.set(ms);
        self.ready.set(self.ready().is_ok().into());
        let last = self.last();
        #[expect(clippy::cast_precision_loss, reason = "milliseconds are exact until long after anybody cares")]
        self.last_event.set(last.event_ms.map_or(f64::NAN, |ms| ms as f64 / 1000.0));
        self.last_xid.set(last.xid.map_or(f64::NAN, f64::from));
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            return format!("# {error}\n");
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    fn lock(&self) -> MutexGuard<'_, Readiness> {
        whole(&self.readiness)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        whole(&self.seen)
    }
}

/// What is guarded here is whole after every statement, so that a panic elsewhere leaves nothing broken.
fn whole<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number(lsn: Lsn) -> i64 {
    signed(lsn.into())
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unix_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

pub(crate) fn unix_ms() -> i64 {
    unix_us() / 1000
}

#[cfg(test)]
mod tests {
    use encoder::Change;

    use super::*;

    #[test]
    fn every_metric_is_declared_and_printed() {
        let metrics = Metrics::new(64 << 20);
        metrics.table("public", "orders").count(&Change::Truncate, 1);
        metrics.state("streaming");
        let text = metrics.render();
        for line in [
            "pgsluice_build_info{librdkafka=\"2.",
            "pgsluice_queue_limit_bytes 67108864",
            "pgsluice_events_total{op=\"truncate\",schema=\"public\",table=\"orders\"} 1",
            "pgsluice_errors_total{code=\"fenced\"} 0",
            "pgsluice_state{state=\"streaming\"} 1",
            "pgsluice_slot_safe_bytes inf",
            "pgsluice_slot_wal_status{status=\"lost\"} 0",
            "process_resident_memory_bytes ",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
