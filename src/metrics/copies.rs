//! How far the copies of rows of before are, as metrics.
//!
//! The copier is asked every few seconds by a task of its own, as whoever looks at the status asks it, so that a row costs nothing. While no session
//! runs nobody answers, and what was known last stays. Series by table are there for those that are being copied at the moment, which are
//! [`CONNECTIONS_MAX`](crate::config::CONNECTIONS_MAX) at most.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use prometheus::{Counter, Gauge, IntGauge, IntGaugeVec};

use super::{Metrics, made::Made, whole};
use crate::{
    catalog::PublishedTable,
    snapshot::control::{Command, SnapshotControl, State, Status, TableStatus},
};

/// How often the copier is asked.
const INTERVAL: Duration = Duration::from_secs(5);
/// Copies with no more than this between the end of one and the begin of another belong to one run.
const PAUSE_IN_RUN_MS: i64 = 60_000;

/// Asks for as long as the program runs.
pub async fn keep(metrics: Arc<Metrics>, control: Arc<SnapshotControl>) {
    loop {
        // Without a session nobody takes questions, of which few are kept, and what was known stays.
        if metrics.is_streaming()
            && let Ok(status) = control.ask(Command::Status).await
        {
            metrics.copies.take(&status, Instant::now());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

pub(super) struct CopyMetrics {
    tables: IntGaugeVec,
    paused: IntGauge,
    paused_seconds: Counter,
    began: Gauge,
    ended: Gauge,
    rows: IntGaugeVec,
    estimated_rows: IntGaugeVec,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The tables that have series.
    copying: BTreeMap<PublishedTable, HasEstimate>,
    /// Since when copies are paused, as far as it was counted.
    paused_at: Option<Instant>,
}

#[derive(Clone, Copy)]
struct HasEstimate(bool);

impl CopyMetrics {
    pub(super) fn new(made: &Made<'_>) -> Self {
        let metrics = Self {
            tables: made.gauges(
                "copy_tables",
                "Streamed tables by the state of the copy of their rows of before: not_copied (nobody asks for it), waiting, copying, put_off (it is tried again), impossible, stopped, or copied.",
                &["state"],
            ),
            paused: made.gauge("copies_paused", "1 while copies are paused, as somebody has asked."),
            paused_seconds: made.real_counter("copies_paused_seconds_total", "For how long copies were paused."),
            began: made.real(
                "copies_began_timestamp_seconds",
                "When the newest run of copies began, those with less than a minute between them; NaN where there was none.",
            ),
            ended: made.real("copies_ended_timestamp_seconds", "When it ended; NaN while it goes on, and where there was none."),
            rows: made.gauges(
                "copying_rows",
                "Rows that are copied so far, of tables that are being copied at the moment.",
                &["schema", "table"],
            ),
            estimated_rows: made.gauges(
                "copying_estimated_rows",
                "Rows that such a table has, as its statistics say; absent where they say nothing.",
                &["schema", "table"],
            ),
            known: Mutex::default(),
        };
        for state in State::ALL {
            metrics.tables.with_label_values(&[state.name()]);
        }
        metrics.began.set(f64::NAN);
        metrics.ended.set(f64::NAN);
        metrics
    }

    /// Takes note of what the copier has said.
    pub(super) fn take(&self, Status { paused, tables, .. }: &Status, now: Instant) {
        for state in State::ALL {
            let count = tables.iter().filter(|table| table.state == state).count();
            self.tables.with_label_values(&[state.name()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let (began, ended) = newest_run(tables).unwrap_or_default();
        self.began.set(began.map_or(f64::NAN, seconds));
        self.ended.set(ended.map_or(f64::NAN, seconds));
        self.paused.set((*paused).into());
        let mut known = whole(&self.known);
        if let Some(before) = known.paused_at {
            self.paused_seconds.inc_by(now.saturating_duration_since(before).as_secs_f64());
        }
        known.paused_at = paused.then_some(now);
        let copying = tables.iter().filter(|table| table.state == State::Copying);
        let copying: BTreeMap<_, _> = copying.filter_map(|table| Some((table.name.clone()?, table))).collect();
        for (PublishedTable { schema, name }, HasEstimate(has_estimate)) in &known.copying {
            let now = copying.iter().find(|(table, _)| &table.schema == schema && &table.name == name);
            // A series that is there no more is no error.
            if now.is_none() {
                let _ = self.rows.remove_label_values(&[schema, name]);
            }
            if *has_estimate && now.is_none_or(|(_, table)| table.rows_estimated.is_none()) {
                let _ = self.estimated_rows.remove_label_values(&[schema, name]);
            }
        }
        for (PublishedTable { schema, name }, table) in &copying {
            self.rows.with_label_values(&[schema, name]).set(super::signed(table.rows));
            if let Some(rows) = table.rows_estimated {
                self.estimated_rows.with_label_values(&[schema, name]).set(super::signed(rows));
            }
        }
        known.copying =
            copying.into_iter().map(|(name, table)| (name, HasEstimate(table.rows_estimated.is_some()))).collect();
    }

    /// A table of which everything is known.
    pub(super) fn sample(&self) {
        let name = PublishedTable { schema: String::new(), name: String::new() };
        self.rows.with_label_values(&[&name.schema, &name.name]);
        self.estimated_rows.with_label_values(&[&name.schema, &name.name]);
    }
}

/// When the newest run of copies began, and when it ended, unless one of them goes on.
fn newest_run(tables: &[TableStatus]) -> Option<(Option<i64>, Option<i64>)> {
    let mut copies: Vec<(i64, i64)> = tables
        .iter()
        .filter_map(|table| {
            let started = table.started_at_ms?;
            let ended = if table.state.is_going_on() { i64::MAX } else { table.ended_at_ms.unwrap_or(started) };
            Some((started, ended))
        })
        .collect();
    copies.sort_unstable_by_key(|(_, ended)| Reverse(*ended));
    let (mut began, ended) = *copies.first()?;
    for (started, ended) in copies {
        // All that follow ended sooner.
        if ended.saturating_add(PAUSE_IN_RUN_MS) < began {
            break;
        }
        began = began.min(started);
    }
    Some((Some(began), (ended != i64::MAX).then_some(ended)))
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds are exact until long after anybody cares")]
fn seconds(unix_ms: i64) -> f64 {
    unix_ms as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, state: State, started_ms: Option<i64>, ended_ms: Option<i64>) -> TableStatus {
        TableStatus {
            table: format!("public.{name}"),
            name: Some(PublishedTable { schema: "public".into(), name: name.into() }),
            state,
            connections: None,
            rows: 7,
            bytes: 0,
            rows_estimated: Some(10),
            rows_per_second: None,
            condition: None,
            started_at_ms: started_ms,
            ended_at_ms: ended_ms,
            problem: None,
        }
    }

    fn status(paused: bool, tables: Vec<TableStatus>) -> Status {
        Status { paused, parallel: None, tables }
    }

    #[test]
    fn a_run_is_what_has_no_minute_between() {
        let done = |started, ended| table("t", State::Copied, Some(started), Some(ended));
        let run = |tables: &[TableStatus]| newest_run(tables).unwrap_or_default();
        assert_eq!(run(&[]), (None, None));
        assert_eq!(run(&[table("t", State::Waiting, None, None)]), (None, None));
        let old = done(1_000, 5_000);
        let (first, second) = (done(900_000, 910_000), done(910_050, 990_000));
        assert_eq!(run(&[old.clone(), second.clone(), first.clone()]), (Some(900_000), Some(990_000)));
        // One of them is long, and has another inside.
        assert_eq!(run(&[first.clone(), done(1_000, 900_500)]), (Some(1_000), Some(910_000)));
        let going = table("t", State::Copying, Some(1_000_000), None);
        assert_eq!(run(&[old, first, second, going]), (Some(900_000), None));
    }

    #[test]
    fn series_by_table_are_there_while_it_is_copied() {
        let (metrics, now) = (Metrics::new(0), Instant::now());
        let text = |status: Status, after: u64| {
            metrics.copies.take(&status, now + Duration::from_secs(after));
            metrics.render()
        };
        let two = vec![table("a", State::Copying, Some(1_500), None), table("b", State::Waiting, None, None)];
        let said = text(status(false, two.clone()), 0);
        for line in [
            "pgsluice_copy_tables{state=\"copying\"} 1",
            "pgsluice_copy_tables{state=\"waiting\"} 1",
            "pgsluice_copy_tables{state=\"copied\"} 0",
            "pgsluice_copying_rows{schema=\"public\",table=\"a\"} 7",
            "pgsluice_copying_estimated_rows{schema=\"public\",table=\"a\"} 10",
            "pgsluice_copies_began_timestamp_seconds 1.5",
            "pgsluice_copies_ended_timestamp_seconds NaN",
            "pgsluice_copies_paused 0",
        ] {
            assert!(said.contains(&format!("\n{line}\n")), "{line} is not in {said}");
        }
        assert!(!said.contains("table=\"b\""));
        // Paused from the fifth second to the twentieth, as far as anybody has seen.
        text(status(true, two.clone()), 5);
        text(status(true, two.clone()), 10);
        let said = text(status(false, two), 20);
        assert!(said.contains("\npgsluice_copies_paused_seconds_total 15\n"), "{said}");
        let said = text(status(false, vec![table("a", State::Copied, Some(1_500), Some(2_500))]), 30);
        assert!(!said.contains("pgsluice_copying_rows{") && !said.contains("estimated_rows{"), "{said}");
        assert!(said.contains("\npgsluice_copies_paused_seconds_total 15\n"), "{said}");
        assert!(said.contains("\npgsluice_copies_ended_timestamp_seconds 2.5\n"), "{said}");
    }
}
