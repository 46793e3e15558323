//! How much log the server keeps for the slot, and how long it will go on to.
//!
//! It is asked for beside the sessions, and between them: a stream that waits for Kafka is one whose slot comes into danger. A server with
//! `max_slot_wal_keep_size` gives a slot up that wants more (`wal_status` lost), and with it every change that was not read yet. Before
//! that the view `pg_replication_slots` has how much may still be written (`safe_wal_size`); how soon that is follows from how it has fallen in the
//! last minutes.
//!
//! What cannot be asked for is not known: the numbers are NaN then, rather than those of the last look. A slot that was there and is not any more is
//! missing; before the first session has created it, there is nothing to say.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{debug, error, warn};
use walreceiver::ConnectOptions;

use crate::{
    catalog::{Catalog, SlotState},
    failure::Failure,
    metrics::{Metrics, SlotHealth},
};

/// How often the server is asked.
const INTERVAL: Duration = Duration::from_secs(10);
const INTERVAL_WITHOUT_SLOT: Duration = Duration::from_secs(1);
/// Over how many looks the rate is taken: five minutes.
const LOOKS_MAX: usize = 31;
/// A slot that is lost sooner than this is worth a warning.
const WARN_WITHIN: Duration = Duration::from_hours(1);
/// How often a warning is repeated.
const REMINDER_INTERVAL: Duration = Duration::from_mins(10);

/// Asks again and again.
pub(super) async fn watch(connect: Arc<ConnectOptions>, slot: String, metrics: Arc<Metrics>) {
    let mut catalog = Catalog::new(connect);
    let mut watch = Watch::new(slot, metrics);
    loop {
        let found = catalog.slot_state(&watch.slot).await;
        let mut snapshot_seconds = 0.0;
        if matches!(found, Ok(Some(_))) {
            match catalog.oldest_snapshot_seconds().await {
                Ok(seconds) => snapshot_seconds = seconds,
                // That there is none is something else.
                Err(failure) => {
                    debug!("the age of snapshots cannot be asked for: {failure}");
                    snapshot_seconds = f64::NAN;
                }
            }
        }
        tokio::time::sleep(watch.note(found, snapshot_seconds)).await;
    }
}

/// What is known from one look to the next.
struct Watch {
    slot: String,
    metrics: Arc<Metrics>,
    trend: Trend,
    told: Told,
    was_there: bool,
}

impl Watch {
    fn new(slot: String, metrics: Arc<Metrics>) -> Self {
        Self { slot, metrics, trend: Trend::default(), told: Told::default(), was_there: false }
    }

    /// Tells what was found. Returns after how long it is looked for again.
    fn note(&mut self, found: Result<Option<SlotState>, Failure>, snapshot_seconds: f64) -> Duration {
        match found {
            Ok(Some(state)) => {
                self.was_there = true;
                let seconds_to_loss = self.trend.look(Instant::now(), state.safe_wal_size);
                self.told.tell(&self.slot, &state, seconds_to_loss);
                self.metrics.slot(&SlotHealth { state, seconds_to_loss, snapshot_seconds });
                INTERVAL
            }
            // The first session creates it; whoever misses it will say so.
            Ok(None) => {
                self.trend = Trend::default();
                if self.was_there {
                    self.metrics.slot_missing();
                } else {
                    let (state, seconds_to_loss) = (SlotState::default(), f64::INFINITY);
                    self.metrics.slot(&SlotHealth { state, seconds_to_loss, snapshot_seconds });
                }
                INTERVAL_WITHOUT_SLOT
            }
            Err(failure) => {
                debug!("the slot cannot be looked at: {failure}");
                self.metrics.slot_unknown();
                INTERVAL
            }
        }
    }
}

/// What was left at each look.
#[derive(Default)]
struct Trend {
    looks: VecDeque<(Instant, i64)>,
}

impl Trend {
    /// Takes note of what is left, and returns after how many seconds nothing is, if that goes on as it did. Infinite, if nothing is being lost.
    fn look(&mut self, now: Instant, safe_bytes: Option<i64>) -> f64 {
        let Some(safe) = safe_bytes else {
            // There is no limit.
            self.looks.clear();
            return f64::INFINITY;
        };
        if self.looks.len() == LOOKS_MAX {
            self.looks.pop_front();
        }
        self.looks.push_back((now, safe));
        if safe <= 0 {
            return 0.0;
        }
        let Some((first, before)) = self.looks.front() else { return f64::INFINITY };
        let (lost, took) = (before.saturating_sub(safe), now.duration_since(*first));
        if lost <= 0 || took.is_zero() {
            return f64::INFINITY;
        }
        #[expect(clippy::cast_precision_loss, reason = "it is an estimate")]
        let seconds = safe as f64 / (lost as f64 / took.as_secs_f64());
        seconds
    }
}

/// What was said last, and when.
#[derive(Default)]
struct Told {
    last: Option<(&'static str, Instant)>,
}

impl Told {
    fn tell(&mut self, slot: &str, state: &SlotState, seconds_to_loss: f64) {
        let status = state.wal_status.as_deref().unwrap_or_default();
        let danger = match status {
            "lost" => "lost",
            "unreserved" => "unreserved",
            _ if seconds_to_loss < WARN_WITHIN.as_secs_f64() => "soon",
            _ => {
                self.last = None;
                return;
            }
        };
        if self.last.is_some_and(|(said, at)| said == danger && at.elapsed() < REMINDER_INTERVAL) {
            return;
        }
        self.last = Some((danger, Instant::now()));
        let kept = state.retained_bytes.unwrap_or_default();
        match danger {
            "lost" => error!(
                slot,
                "the server has given the slot up (wal_status lost): what was not read from it is gone, and the stream will say so when it reads on"
            ),
            "unreserved" => error!(
                slot,
                kept_bytes = kept,
                "the slot wants more log than max_slot_wal_keep_size, and is given up at the server's next checkpoint (wal_status unreserved): raise \
                 max_slot_wal_keep_size now, and see why the stream is behind"
            ),
            _ => warn!(
                slot,
                kept_bytes = kept,
                safe_bytes = state.safe_wal_size,
                seconds_to_loss = format!("{seconds_to_loss:.0}"),
                "the server will give the slot up within the hour, if log is written as in the last minutes and the stream does not catch up: see why it \
                 is behind, or raise max_slot_wal_keep_size"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    #[test]
    fn what_is_not_known_is_not_what_was_known_before() {
        let metrics = Arc::new(Metrics::new(0));
        let mut watch = Watch::new("slot".into(), Arc::clone(&metrics));
        let there = || SlotState {
            wal_status: Some("reserved".into()),
            retained_bytes: Some(7),
            safe_wal_size: Some(9),
            ..SlotState::default()
        };
        let unasked = || Failure::new(Code::PostgresUnavailable, "it is away");
        for (found, kept, safe, loss, status) in [
            (Ok(None), "0", "inf", "inf", None),
            (Err(unasked()), "NaN", "NaN", "NaN", None),
            (Ok(None), "0", "inf", "inf", None),
            (Ok(Some(there())), "7", "9", "inf", Some("reserved")),
            (Err(unasked()), "NaN", "NaN", "NaN", Some("reserved")),
            (Ok(None), "0", "0", "0", Some("missing")),
            (Ok(Some(there())), "7", "9", "inf", Some("reserved")),
        ] {
            watch.note(found, 0.0);
            let text = metrics.render();
            for (name, value) in [("kept_bytes", kept), ("safe_bytes", safe), ("loss_seconds", loss)] {
                let line = format!("\npgsluice_slot_{name} {value}\n");
                assert!(text.contains(&line), "{line} is not in {text}");
            }
            for known in ["reserved", "extended", "unreserved", "lost", "missing"] {
                let line =
                    format!("\npgsluice_slot_wal_status{{status=\"{known}\"}} {}\n", i32::from(status == Some(known)));
                assert!(text.contains(&line), "{line} is not in {text}");
            }
        }
    }

    #[test]
    fn what_is_left_lasts_as_long_as_it_falls() {
        let (mut trend, start) = (Trend::default(), Instant::now());
        let mut look = |seconds, safe| trend.look(start + Duration::from_secs(seconds), safe);
        assert!(look(0, Some(1000)).is_infinite(), "one look is no rate");
        assert!((look(10, Some(900)) - 90.0).abs() < 1e-6);
        assert!((look(20, Some(800)) - 80.0).abs() < 1e-6);
        assert!(look(30, Some(1000)).is_infinite(), "the stream has caught up");
        assert!(look(40, Some(-5)).abs() < 1e-6, "it is over");
        assert!(look(50, None).is_infinite());
        assert!(look(60, Some(10)).is_infinite(), "a limit is new");
    }

    #[test]
    fn only_the_last_minutes_count() {
        let (mut trend, start) = (Trend::default(), Instant::now());
        let mut last = 0.0;
        // It falls fast for an hour, and then by ten bytes in each ten seconds.
        for look in 0..400_u32 {
            let safe =
                if look < 360 { 1_000_000 - i64::from(look) * 1000 } else { 641_000 - i64::from(look - 359) * 10 };
            last = trend.look(start + Duration::from_secs(u64::from(look) * 10), Some(safe));
        }
        assert!((last - 640_600.0).abs() < 1000.0, "{last}");
        assert_eq!(trend.looks.len(), LOOKS_MAX);
    }

    #[test]
    fn a_danger_is_said_once_for_a_while() {
        let mut told = Told::default();
        let state = |status: &str| SlotState { wal_status: Some(status.to_owned()), ..SlotState::default() };
        let mut said = |status, seconds| {
            let before = told.last;
            told.tell("slot", &state(status), seconds);
            told.last.is_some() && told.last != before
        };
        assert!(!said("reserved", f64::INFINITY));
        assert!(said("extended", 100.0));
        assert!(!said("extended", 90.0));
        assert!(said("unreserved", 0.0));
        assert!(!said("reserved", f64::INFINITY));
        assert!(said("lost", 0.0), "after it was well again");
    }
}
