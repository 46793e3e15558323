//! Whether the stream makes progress, and why not: what `/readyz` says.

use std::{
    fmt,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{Metrics, unix_ms, unix_us};
use crate::failure::Told;

/// How long without progress the program is called ready: a heartbeat is committed every 10 s even when nothing happens.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the program is not ready, if it is not.
pub(super) struct Readiness {
    pub(super) state: &'static str,
    pub(super) since_ms: i64,
    pub(super) paused: Option<Told>,
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
        Self { state: "starting", since_ms: unix_ms(), paused: None, last_failure: None, progressed_at: None }
    }
}

impl Metrics {
    /// Why the program is not ready, if it is not: it is while it streams and makes progress.
    ///
    /// # Errors
    /// One sentence for whoever looks at the probe.
    pub fn ready(&self) -> Result<String, String> {
        self.unready().map_or_else(|| Ok("streaming".to_owned()), |unready| Err(unready.to_string()))
    }

    pub(super) fn unready(&self) -> Option<Unready> {
        let readiness = self.lock();
        let state = readiness.state;
        let because = |text: &str, failure: Option<&Told>| {
            Some(Unready { state, text: text.to_owned(), failure: failure.cloned() })
        };
        if let Some(told) = &readiness.paused {
            return because("the stream waits", Some(told));
        }
        if state != "streaming" {
            return because(state, readiness.last_failure.as_ref());
        }
        let works_since = self.positions.source_works_since_unix_us.load(Ordering::Relaxed);
        let works_for = Duration::from_micros(unix_us().saturating_sub(works_since).max(0).cast_unsigned());
        if works_since != 0 && works_for > PROGRESS_TIMEOUT {
            // The heartbeat goes on meanwhile, and is no progress.
            let text = format!("what was received {} s ago could not be handed on yet", works_for.as_secs());
            return because(&text, None);
        }
        match readiness.progressed_at {
            Some(at) if at.elapsed() < PROGRESS_TIMEOUT => None,
            Some(at) => because(&format!("nothing was committed in Kafka for {} s", at.elapsed().as_secs()), None),
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
        metrics.resumed();
        assert!(metrics.ready().is_ok());
        metrics.state("waiting to start again");
        assert!(metrics.ready().is_err());
    }
}
