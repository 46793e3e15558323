//! What `GET /status` answers: everything that a person wants to see of an instance, in one document.
//!
//! Its names do not change and none is taken away while [`FORMAT`] stays; a reader passes over names that it does not know. It holds no secret and
//! no data of a row. Lists are bounded, and say how much more there is.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use serde::{Deserialize, Serialize};

use super::{
    Metrics,
    failures::Seen,
    history::{Counts, History, INTERVAL, Quantiles, Reading, STAGES, Sample},
    unix_ms,
    verdict::{Known, Verdict},
};
use crate::{failure::Recovery, snapshot::control};

/// The version of the document.
const FORMAT: u32 = 1;
/// How many tables are named.
const TABLES_MAX: usize = 100;

/// An instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The version of this document.
    pub(crate) format: u32,
    /// The name of the stream.
    pub(crate) name: String,
    /// The program's version.
    pub(crate) version: String,
    /// When this was told. All times are milliseconds since 1970, by the clock of the instance.
    pub(crate) now_ms: i64,
    /// When the program was started.
    pub(crate) started_ms: i64,
    /// How many sessions there were: one, and one more for each restart.
    pub(crate) sessions: u64,
    /// Whether it is well, in words.
    pub(crate) verdict: Verdict,
    pub(crate) state: State,
    pub(crate) positions: Positions,
    pub(crate) lag: Lag,
    pub(crate) last: Last,
    pub(crate) rates: Rates,
    pub(crate) latencies: Latencies,
    pub(crate) memory: Memory,
    /// None before the server was asked.
    pub(crate) slot: Option<Slot>,
    pub(crate) tables: Tables,
    /// None before the copier was asked.
    pub(crate) copies: Option<Copies>,
    pub(crate) quarantine: Quarantined,
    /// The newest first.
    pub(crate) failures: Vec<Failed>,
    pub(crate) history: Samples,
}

/// What the program is at.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) since_ms: i64,
    /// As `/readyz` says.
    pub(crate) ready: bool,
    /// Why it is not.
    pub(crate) reason: Option<String>,
}

/// How far the stream is; each is none before it is known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Positions {
    /// The end of the server's log, as it last said.
    pub(crate) server: Option<Position>,
    /// How far the log was received.
    pub(crate) received: Option<Position>,
    /// How far it was handed to a Kafka transaction.
    pub(crate) published: Option<Position>,
    /// What is committed in Kafka.
    pub(crate) committed: Option<Position>,
    /// What PostgreSQL was told: it may remove log before it.
    pub(crate) confirmed: Option<Position>,
}

/// An LSN.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Position {
    /// As PostgreSQL prints it.
    pub(crate) lsn: String,
    /// As a number.
    pub(crate) bytes: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Lag {
    /// The age of the oldest received transaction that is not committed in Kafka.
    pub(crate) ms: i64,
    /// Log between what is committed in Kafka and the server's end.
    pub(crate) bytes: i64,
}

/// What came last; each is none before there was one.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Last {
    /// When an event was last made of a change.
    pub(crate) event_ms: Option<i64>,
    /// The id of the last transaction that was received whole.
    pub(crate) xid: Option<u32>,
}

/// Over the last interval of the history; none before there is one.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Rates {
    pub(crate) events_per_second: Option<f64>,
    pub(crate) bytes_per_second: Option<f64>,
}

/// How long the stages took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Latencies {
    /// Over how long this is taken.
    pub(crate) over_ms: u64,
    pub(crate) stages: Vec<Timing>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Timing {
    /// The metric's name, without its unit.
    pub(crate) stage: String,
    /// How many observations there are.
    pub(crate) count: u64,
    /// None where there are none. Within a factor of two: a histogram knows no better.
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) queue_bytes: i64,
    pub(crate) queue_limit_bytes: i64,
}

/// What the server said of the slot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Slot {
    /// `wal_status`
    pub(crate) status: Option<String>,
    /// Log that the server keeps for it.
    pub(crate) kept_bytes: Option<i64>,
    /// How much may still be written; none without a limit.
    pub(crate) safe_bytes: Option<i64>,
    /// After how long it may be given up, as log was written of late; none if that is not to be expected.
    pub(crate) seconds_to_loss: Option<f64>,
    /// The age of the oldest snapshot that copies hold.
    pub(crate) snapshot_seconds: f64,
    /// When it was asked.
    pub(crate) at_ms: i64,
}

/// What was encoded since the program was started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tables {
    pub(crate) total: u64,
    /// How many are not among the busiest.
    pub(crate) more: u64,
    /// Those with the most events first.
    pub(crate) busiest: Vec<TableEvents>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TableEvents {
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) insert: u64,
    pub(crate) update: u64,
    pub(crate) delete: u64,
    pub(crate) truncate: u64,
    pub(crate) dead_letter: u64,
}

/// Copies of the rows of before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Copies {
    /// As of when.
    pub(crate) at_ms: i64,
    pub(crate) paused: bool,
    /// How many tables there are.
    pub(crate) total: u64,
    /// How many of them are copied.
    pub(crate) copied: u64,
    /// How many are not named here.
    pub(crate) more: u64,
    /// Those that are being copied first, and those that are copied last.
    pub(crate) tables: Vec<Copy>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Copy {
    /// `schema.table`
    pub(crate) table: String,
    /// As in `GET /snapshot`.
    pub(crate) state: control::State,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) rows_estimated: Option<u64>,
    pub(crate) rows_per_second: Option<f64>,
    pub(crate) started_ms: Option<i64>,
    pub(crate) ended_ms: Option<i64>,
    pub(crate) problem: Option<String>,
}

/// Tables in quarantine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Quarantined {
    pub(crate) total: u64,
    /// How many are not named here.
    pub(crate) more: u64,
    pub(crate) tables: Vec<Held>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Held {
    /// `schema.table`, as it was called when it began.
    pub(crate) table: String,
    pub(crate) topic: String,
    /// The topic of what waits.
    pub(crate) letters: String,
    pub(crate) since_ms: i64,
    /// What the registry said.
    pub(crate) reason: String,
}

/// A failure of a session, of a copy, or that made the stream wait.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) code: String,
    /// What was found, and where.
    pub(crate) text: String,
    pub(crate) meaning: String,
    pub(crate) fix: String,
    /// Whether the program ends with it.
    pub(crate) stops: bool,
    /// When it came first, and last.
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
    pub(crate) times: u64,
}

/// The last quarter of an hour: lists of one length, the oldest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Samples {
    pub(crate) interval_ms: u64,
    pub(crate) at_ms: Vec<i64>,
    pub(crate) lag_ms: Vec<i64>,
    pub(crate) lag_bytes: Vec<i64>,
    pub(crate) kept_bytes: Vec<Option<i64>>,
    pub(crate) events_per_second: Vec<f64>,
    pub(crate) bytes_per_second: Vec<f64>,
    /// None where nothing was committed in an interval.
    pub(crate) source_to_committed_p50_ms: Vec<Option<f64>>,
    pub(crate) source_to_committed_p99_ms: Vec<Option<f64>>,
    pub(crate) received_to_committed_p50_ms: Vec<Option<f64>>,
    pub(crate) received_to_committed_p99_ms: Vec<Option<f64>>,
}

/// The stages, in the order in which a row passes them.
const STAGE_NAMES: [&str; STAGES] = ["encode", "queue", "kafka_commit", "received_to_committed", "source_to_committed"];

impl Metrics {
    /// Everything as it is now.
    pub(crate) fn status(&self, name: &str, copies: Option<Copies>) -> Status {
        let lag = self.lag();
        let unready = self.unready();
        let registry_away = self.lock().registry_away.clone();
        let (tables, seen) = (self.tables(), self.seen());
        let in_quarantine = self.quarantined.get();
        let known = Known {
            unready: unready.as_ref(),
            wal_status: seen.slot.as_ref().and_then(|slot| slot.status.as_deref()),
            seconds_to_loss: seen.slot.as_ref().and_then(|slot| slot.seconds_to_loss),
            registry_away: registry_away.as_ref(),
            in_quarantine,
            lag_ms: lag.ms,
        };
        let verdict = Verdict::of(known);
        let last = seen.history.samples().next_back();
        let (name_of_state, since_ms) = {
            let readiness = self.lock();
            (readiness.state, readiness.since_ms)
        };
        Status {
            format: FORMAT,
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now_ms: unix_ms(),
            started_ms: self.started_ms,
            sessions: self.sessions.get(),
            verdict,
            state: State {
                name: name_of_state.to_owned(),
                since_ms,
                ready: unready.is_none(),
                reason: unready.as_ref().map(ToString::to_string),
            },
            positions: self.positions_told(),
            lag,
            last: self.last(),
            rates: Rates {
                events_per_second: last.map(|sample| sample.events_per_second),
                bytes_per_second: last.map(|sample| sample.bytes_per_second),
            },
            latencies: latencies(&seen.history),
            memory: Memory { queue_bytes: self.queue_bytes.get(), queue_limit_bytes: self.queue_limit_bytes.get() },
            slot: seen.slot.clone(),
            tables,
            copies,
            quarantine: Quarantined {
                total: in_quarantine.max(0).cast_unsigned(),
                more: in_quarantine.max(0).cast_unsigned().saturating_sub(seen.quarantine.len() as u64),
                tables: seen.quarantine.clone(),
            },
            failures: seen.failures.newest().map(failed).collect(),
            history: samples(&seen.history),
        }
    }

    /// How far each step is, in the order of steps: what a later one has passed, an earlier one has. A position without a transaction, as a keepalive
    /// has it, is committed without having been received as one.
    fn positions_told(&self) -> Positions {
        let confirmed = self.confirmed_lsn.get();
        let committed = self.committed_lsn.get().max(confirmed);
        let published = self.published_lsn.get().max(committed);
        let received = self.received_lsn.get().max(published);
        Positions {
            server: position(self.server_lsn.get().max(received)),
            received: position(received),
            published: position(published),
            committed: position(committed),
            confirmed: position(confirmed),
        }
    }

    /// The events of each table of which there are any, as the counters have them.
    fn events_of_tables(&self) -> Vec<TableEvents> {
        let mut tables: BTreeMap<(String, String), TableEvents> = BTreeMap::new();
        for family in self.events.collect() {
            for metric in family.get_metric() {
                let label = |name: &str| {
                    let pair = metric.get_label().iter().find(|pair| pair.name() == name);
                    pair.map_or_else(String::new, |pair| pair.value().to_owned())
                };
                let (schema, table) = (label("schema"), label("table"));
                let events =
                    tables.entry((schema.clone(), table.clone())).or_insert_with(|| TableEvents::new(schema, table));
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a count")]
                events.set(&label("op"), metric.get_counter().get_value() as u64);
            }
        }
        tables.into_values().collect()
    }

    fn tables(&self) -> Tables {
        let mut all = self.events_of_tables();
        let total = all.len();
        let order = |one: &TableEvents, other: &TableEvents| {
            other
                .events()
                .cmp(&one.events())
                .then_with(|| (&one.schema, &one.table).cmp(&(&other.schema, &other.table)))
        };
        if total > TABLES_MAX {
            all.select_nth_unstable_by(TABLES_MAX, order);
            all.truncate(TABLES_MAX);
        }
        all.sort_unstable_by(order);
        Tables { total: total as u64, more: total.saturating_sub(TABLES_MAX) as u64, busiest: all }
    }

    /// The state of the counters that the history is made of.
    pub(super) fn reading(&self) -> Reading {
        Reading {
            at: std::time::Instant::now(),
            events: self.events_of_tables().iter().map(TableEvents::events).sum(),
            bytes: self.received_bytes.get(),
            stages: [
                Counts::of(&self.encode_seconds),
                Counts::of(&self.queue_seconds),
                Counts::of(&self.commit_seconds),
                Counts::of(&self.received_to_committed_seconds),
                Counts::of(&self.source_to_committed_seconds),
            ],
        }
    }
}

impl TableEvents {
    fn new(schema: String, table: String) -> Self {
        Self { schema, table, insert: 0, update: 0, delete: 0, truncate: 0, dead_letter: 0 }
    }

    fn set(&mut self, operation: &str, events: u64) {
        match operation {
            "insert" => self.insert = events,
            "update" => self.update = events,
            "delete" => self.delete = events,
            "truncate" => self.truncate = events,
            _ => self.dead_letter = events,
        }
    }

    fn events(&self) -> u64 {
        self.insert + self.update + self.delete + self.truncate + self.dead_letter
    }
}

impl Copies {
    /// What the copier has said, without the conditions, which may hold values.
    pub(crate) fn new(at_ms: i64, status: control::Status) -> Self {
        let control::Status { paused, mut tables, .. } = status;
        let total = tables.len();
        let copied = tables.iter().filter(|table| table.state == control::State::Copied).count();
        // Sorted by name before.
        tables.sort_by_key(|table| match table.state {
            control::State::Copying => 0,
            control::State::PutOff => 1,
            control::State::Impossible => 2,
            control::State::Waiting => 3,
            control::State::Stopped => 4,
            control::State::NotCopied => 5,
            control::State::Copied => 6,
        });
        tables.truncate(TABLES_MAX);
        let tables = tables.into_iter().map(|table| Copy {
            table: table.table,
            state: table.state,
            rows: table.rows,
            bytes: table.bytes,
            rows_estimated: table.rows_estimated,
            rows_per_second: table.rows_per_second,
            started_ms: table.started_at_ms,
            ended_ms: table.ended_at_ms,
            problem: table.problem,
        });
        Self {
            at_ms,
            paused,
            total: total as u64,
            copied: copied as u64,
            more: total.saturating_sub(TABLES_MAX) as u64,
            tables: tables.collect(),
        }
    }
}

impl Held {
    /// So many of those in quarantine.
    pub(super) fn first(quarantine: &crate::quarantine::Quarantine) -> Vec<Self> {
        let held = |(topic, entry): (&str, &crate::quarantine::Quarantined)| Self {
            table: entry.table.clone(),
            topic: topic.to_owned(),
            letters: entry.letters.clone(),
            since_ms: entry.since_ms,
            reason: entry.reason.clone(),
        };
        quarantine.iter().take(TABLES_MAX).map(held).collect()
    }
}

fn position(bytes: i64) -> Option<Position> {
    let bytes = u64::try_from(bytes).ok().filter(|bytes| *bytes > 0)?;
    Some(Position { lsn: pgoutput::Lsn::from(bytes).to_string(), bytes })
}

fn latencies(history: &History) -> Latencies {
    let stages = STAGE_NAMES.iter().zip(history.latencies()).map(|(stage, quantiles)| Timing {
        stage: (*stage).to_owned(),
        count: quantiles.map_or(0, |quantiles| quantiles.count),
        p50_ms: quantiles.map(|quantiles| quantiles.p50_ms),
        p99_ms: quantiles.map(|quantiles| quantiles.p99_ms),
    });
    Latencies { over_ms: 60_000, stages: stages.collect() }
}

fn failed(seen: &Seen) -> Failed {
    let code = seen.told.code;
    Failed {
        code: code.as_str().to_owned(),
        text: seen.told.text.clone(),
        meaning: code.meaning().to_owned(),
        fix: code.fix().to_owned(),
        stops: code.recovery() == Recovery::Stop && !code.is_about_copies(),
        first_ms: seen.first_ms,
        last_ms: seen.last_ms,
        times: seen.times,
    }
}

fn samples(history: &History) -> Samples {
    let mut samples =
        Samples { interval_ms: u64::try_from(INTERVAL.as_millis()).unwrap_or_default(), ..Samples::default() };
    let p50 = |quantiles: Option<Quantiles>| quantiles.map(|quantiles| quantiles.p50_ms);
    let p99 = |quantiles: Option<Quantiles>| quantiles.map(|quantiles| quantiles.p99_ms);
    for Sample { levels, events_per_second, bytes_per_second, source_to_committed, received_to_committed } in
        history.samples()
    {
        samples.at_ms.push(levels.at_ms);
        samples.lag_ms.push(levels.lag_ms);
        samples.lag_bytes.push(levels.lag_bytes);
        samples.kept_bytes.push(levels.kept_bytes);
        samples.events_per_second.push(*events_per_second);
        samples.bytes_per_second.push(*bytes_per_second);
        samples.source_to_committed_p50_ms.push(p50(*source_to_committed));
        samples.source_to_committed_p99_ms.push(p99(*source_to_committed));
        samples.received_to_committed_p50_ms.push(p50(*received_to_committed));
        samples.received_to_committed_p99_ms.push(p99(*received_to_committed));
    }
    samples
}

#[cfg(test)]
mod tests;
