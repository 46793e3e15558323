//! Whether the stream makes progress, and why not: what `/readyz` says.

use std::{
    fmt,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{Metrics, unix_ms, unix_us};
use crate::failure::{Failure, Told};

/// How long without progress the program is called ready: a heartbeat is committed every 5 s even when nothing happens.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the program is not ready, if it is not.
pub(super) struct Readiness {
    pub(super) state: &'static str,
    pub(super) since_ms: i64,
    pub(super) paused: Option<Told>,
    /// That Kafka owes an answer and gives none.
    pub(super) silent: Option<Told>,
    /// That PostgreSQL does not answer, though the stream waits for it alone.
    pub(super) postgres_silent: Option<Told>,
    /// That the registry does not answer. Nothing waits for it, unless the stream is paused as well.
    pub(super) registry_away: Option<Told>,
    pub(super) last_failure: Option<Told>,
    /// When a position was last committed in Kafka.
    pub(super) progressed_at: Option<Instant>,
}

/// Why the program is not ready.
#[derive(Debug)]
pub(super) struct Unready {
    pub(super) state: &'static str,
    pub(super) text: String,
    pub(super) failure: Option<Told>,
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.failure {
            Some(told) => write!(f, ": {told}"),
            None => Ok(()),
        }
    }
}

impl Readiness {
    pub(super) fn new() -> Self {
        Self {
            state: "starting",
            since_ms: unix_ms(),
            paused: None,
            silent: None,
            postgres_silent: None,
            registry_away: None,
            last_failure: None,
            progressed_at: None,
        }
    }

    /// What was waited for belongs to a session that is over.
    pub(super) fn waits_for_nothing(&mut self) {
        (self.paused, self.silent, self.postgres_silent) = (None, None, None);
    }
}

impl Metrics {
    /// Why the program is not ready, if it is not: it is while it streams and makes progress. A registry that is away and that nothing waits for is
    /// told of, and keeps nothing from progress.
    ///
    /// # Errors
    /// One sentence for whoever looks at the probe.
    pub fn ready(&self) -> Result<String, String> {
        if let Some(unready) = self.unready() {
            return Err(unready.to_string());
        }
        Ok(match &self.lock().registry_away {
            None => "streaming".to_owned(),
            Some(told) => format!("streaming, and nothing waits for the schema registry yet: {told}"),
        })
    }

    /// The stream waits, for a reason that may pass.
    pub fn paused(&self, failure: &Failure) {
        self.count_failure(failure);
        self.lock().paused = Some(failure.told());
    }

    /// The stream does not wait any more.
    pub fn resumed(&self) {
        self.lock().paused = None;
    }

    /// Kafka owes an answer, and gives none.
    pub fn kafka_silent(&self, failure: &Failure) {
        self.count_failure(failure);
        self.lock().silent = Some(failure.told());
    }

    /// Kafka owes nothing, or gives answers again.
    pub fn kafka_answers(&self) {
        self.lock().silent = None;
    }

    /// PostgreSQL was asked for a sign of life, and gives none.
    pub fn postgres_silent(&self, failure: &Failure) {
        self.count_failure(failure);
        self.lock().postgres_silent = Some(failure.told());
    }

    /// PostgreSQL answers, or nobody waits for it.
    pub fn postgres_answers(&self) {
        self.lock().postgres_silent = None;
    }

    /// The registry does not answer, whether anything waits for it or not.
    pub fn registry_away(&self, failure: &Failure) {
        self.count_failure(failure);
        self.registry_up.set(0.0);
        self.lock().registry_away = Some(failure.told());
    }

    /// The registry answers.
    pub fn registry_answers(&self) {
        self.registry_up.set(1.0);
        self.lock().registry_away = None;
    }

    /// A session has failed.
    pub fn failed(&self, failure: &Failure) {
        self.count_failure(failure);
        self.positions.is_committing.store(false, Ordering::Relaxed);
        let mut readiness = self.lock();
        readiness.last_failure = Some(failure.told());
        readiness.waits_for_nothing();
        // Nothing is read any more, so that nobody sees what is committed at the source from here on.
        let behind = &self.positions.behind_since_unix_us;
        let _ = behind.compare_exchange(0, unix_us(), Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn unready(&self) -> Option<Unready> {
        self.unready_at(Instant::now(), unix_us())
    }

    /// The same at this time, by both clocks.
    fn unready_at(&self, now: Instant, now_unix_us: i64) -> Option<Unready> {
        let readiness = self.lock();
        let state = readiness.state;
        let because = |text: &str, failure: Option<&Told>| {
            Some(Unready { state, text: text.to_owned(), failure: failure.cloned() })
        };
        // Without Kafka nothing gets on, whatever else is waited for.
        let waits_for = readiness.silent.as_ref().or(readiness.paused.as_ref()).or(readiness.postgres_silent.as_ref());
        if let Some(told) = waits_for {
            return because("the stream waits", Some(told));
        }
        if state != "streaming" {
            return because(state, readiness.last_failure.as_ref());
        }
        let works_since = self.positions.source_works_since_unix_us.load(Ordering::Relaxed);
        let works_for = Duration::from_micros(now_unix_us.saturating_sub(works_since).max(0).cast_unsigned());
        if works_since != 0 && works_for > PROGRESS_TIMEOUT {
            // The heartbeat goes on meanwhile, and is no progress.
            let text = format!("what was received {} s ago could not be handed on yet", works_for.as_secs());
            return because(&text, None);
        }
        match readiness.progressed_at.map(|at| now.saturating_duration_since(at)) {
            Some(ago) if ago < PROGRESS_TIMEOUT => None,
            Some(ago) => because(&format!("nothing was committed in Kafka for {} s", ago.as_secs()), None),
            None => because("nothing was committed in Kafka yet", None),
        }
    }
}

#[cfg(test)]
mod tests {
    use publisher::Position;

    use super::*;
    use crate::failure::{Code, Failure};

    #[test]
    fn a_registry_that_nothing_waits_for_is_told_of_and_no_more() {
        let metrics = Metrics::new(0);
        metrics.state("streaming");
        metrics.resumed_at(Position::at(1.into()));
        assert!(metrics.render().contains("pgsluice_registry_up NaN"), "there may be none");
        metrics.registry_away(&Failure::new(Code::RegistryUnavailable, "connection refused"));
        let said = metrics.ready().expect("it streams");
        assert!(said.contains("[registry-unavailable] connection refused"), "{said}");
        let text = metrics.render();
        for line in ["pgsluice_ready 1", "pgsluice_registry_up 0", "errors_total{code=\"registry-unavailable\"} 1"] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        metrics.registry_answers();
        assert_eq!(metrics.ready().as_deref(), Ok("streaming"));
        assert!(metrics.render().contains("pgsluice_registry_up 1"));
    }

    /// Both rules of progress, by a clock that the test sets.
    #[test]
    fn what_makes_no_progress_for_half_a_minute_is_not_ready() {
        let (began, began_unix_us) = (Instant::now(), unix_us());
        let metrics = Metrics::new(0);
        let after = |seconds: u64| {
            let (now, now_unix_us) = (
                began + Duration::from_secs(seconds),
                began_unix_us + i64::try_from(seconds * 1_000_000).expect("small"),
            );
            metrics.unready_at(now, now_unix_us).map(|unready| unready.text)
        };
        metrics.state("streaming");
        metrics.source_waits_for_server();
        metrics.resumed_at(Position::at(1.into()));
        assert_eq!(after(29), None);
        assert_eq!(after(31).as_deref(), Some("nothing was committed in Kafka for 30 s"));
        // A commit is progress, with rows or without.
        metrics.kafka_committed(Position::at(2.into()), 0, Duration::ZERO, 0, 0);
        metrics.lock().progressed_at = Some(began + Duration::from_secs(20));
        assert_eq!(after(49), None);
        assert_eq!(after(50).as_deref(), Some("nothing was committed in Kafka for 30 s"));
        // The heartbeat goes on, and what was received does not.
        metrics.source_works();
        metrics.positions.source_works_since_unix_us.store(began_unix_us + 60_000_000, Ordering::Relaxed);
        metrics.lock().progressed_at = Some(began + Duration::from_secs(89));
        assert_eq!(after(90), None);
        assert_eq!(after(91).as_deref(), Some("what was received 31 s ago could not be handed on yet"));
        assert!(!metrics.is_source_waiting());
        metrics.source_waits_for_server();
        assert_eq!(after(91), None);
        assert!(metrics.is_source_waiting());
    }

    #[test]
    fn a_server_that_is_silent_is_not_ready_though_heartbeats_go_on() {
        let metrics = Metrics::new(0);
        metrics.state("streaming");
        metrics.resumed_at(Position::at(1.into()));
        metrics.postgres_silent(&Failure::new(Code::PostgresUnavailable, "it says nothing"));
        metrics.kafka_committed(Position::at(1.into()), 0, Duration::ZERO, 0, 0);
        assert!(metrics.ready().expect_err("it is silent").contains("[postgres-unavailable] it says nothing"));
        metrics.postgres_answers();
        assert!(metrics.ready().is_ok());
        // What one session waits for, the next one does not.
        metrics.postgres_silent(&Failure::new(Code::PostgresUnavailable, "it says nothing"));
        metrics.resumed_at(Position::at(1.into()));
        assert!(metrics.ready().is_ok());
    }

    #[test]
    fn it_is_ready_only_while_it_streams_and_does_not_wait() {
        let metrics = Metrics::new(0);
        assert!(metrics.ready().is_err());
        metrics.state("streaming");
        assert!(metrics.ready().expect_err("nothing was committed").contains("nothing was committed"));
        assert!(metrics.render().contains("pgsluice_ready 0"));
        metrics.resumed_at(Position::at(1.into()));
        assert!(metrics.ready().is_ok());
        assert!(metrics.render().contains("pgsluice_ready 1"));
        metrics.paused(&Failure::new(Code::RegistryUnavailable, "the registry is down"));
        assert!(metrics.ready().expect_err("it waits").contains("registry-unavailable"));
        metrics.kafka_silent(&Failure::new(Code::KafkaUnavailable, "no answer"));
        assert!(metrics.ready().expect_err("both are away").contains("kafka-unavailable"));
        // What the one has to say says nothing of the other.
        metrics.kafka_answers();
        assert!(metrics.ready().expect_err("the registry is still away").contains("registry-unavailable"));
        metrics.kafka_silent(&Failure::new(Code::KafkaUnavailable, "no answer"));
        metrics.resumed();
        assert!(metrics.ready().expect_err("Kafka is still away").contains("kafka-unavailable"));
        // A session that ends has a failure of its own to tell.
        metrics.failed(&Failure::new(Code::PostgresUnavailable, "it is away"));
        metrics.state("streaming");
        assert!(metrics.ready().is_ok());
        metrics.state("waiting to start again");
        assert!(metrics.ready().is_err());
    }
}
