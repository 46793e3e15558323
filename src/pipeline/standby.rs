//! An instance that stands by: it waits as long as another one reads from the slot.
//!
//! This is for the operator's peace and not for correctness: whoever takes over fences the one before in Kafka, whatever PostgreSQL says of
//! the slot (`crate::pipeline`'s argument). A slot that is free for a moment may be that of an instance that connects anew, so that it has to be free
//! for [`FREE_FOR`]. One whose machine is gone, or which hangs, is free once the server notices, which takes `wal_sender_timeout` at most: an instance
//! of a pair has that brought down to seconds for its own connection (`session/starting.rs`).
//!
//! One that cannot ask the server does not know whether another instance streams, and would not take over. It says so, and its state is not that of one
//! that stands by: nobody would look for it otherwise before the takeover that does not come.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::session::Shared;
use crate::{
    catalog::Catalog,
    failure::{Code, Failure, Recovery},
    metrics::Metrics,
};

/// How often the server is asked.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);
/// How long nobody may have read from the slot.
const FREE_FOR: Duration = Duration::from_secs(3);

/// Waits until nobody reads from the slot.
///
/// # Errors
/// The server cannot be asked, and asking again would not help.
pub(super) async fn wait(shared: &Shared) -> Result<(), Failure> {
    let slot = &shared.config.postgres.slot;
    let mut catalog = Catalog::new(Arc::clone(&shared.connect));
    let (mut free_since, mut told) = (None, None);
    let mut sight = Sight::new(&shared.metrics);
    loop {
        let asked = timeout(ANSWER_LIMIT, catalog.slot_state(slot)).await.unwrap_or_else(|_elapsed| {
            // It may hang for ever.
            catalog.disconnect();
            let found =
                format!("the server has not said within {} s who reads from slot {slot}", ANSWER_LIMIT.as_secs());
            Err(Failure::new(Code::PostgresUnavailable, found))
        });
        let reader = match asked {
            Ok(state) => state.and_then(|state| state.active_pid),
            Err(failure) if failure.code().recovery() == Recovery::Restart => {
                sight.lost(&failure);
                // Nothing is known, so that it may not be free.
                (free_since, told) = (None, None);
                sleep(INTERVAL).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        sight.has();
        if let Some(pid) = reader {
            free_since = None;
            if told.replace(pid) != Some(pid) {
                info!(slot, pid, "standing by: another instance reads from the slot");
            }
        } else if free_since.get_or_insert_with(Instant::now).elapsed() >= FREE_FOR {
            info!(slot, "taking over: nobody reads from the slot");
            return Ok(());
        }
        sleep(INTERVAL).await;
    }
}

/// Whether the server can be asked.
struct Sight<'a> {
    metrics: &'a Metrics,
    /// How often it could not be, one after another. One question that fails is none: a connection that was kept may just have been closed.
    failures: u32,
}

impl<'a> Sight<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.state("standing by");
        Self { metrics, failures: 0 }
    }

    fn lost(&mut self, failure: &Failure) {
        self.failures = self.failures.saturating_add(1);
        if self.failures != 2 {
            debug!("the slot cannot be looked at: {failure}");
            return;
        }
        warn!(
            code = failure.code().as_str(),
            "this instance stands by, and cannot see whether another one streams, so that it would not take over: {failure}"
        );
        self.metrics.paused(failure);
        self.metrics.state("connecting to postgresql");
    }

    fn has(&mut self) {
        if std::mem::take(&mut self.failures) >= 2 {
            info!("PostgreSQL answers again: standing by");
            self.metrics.resumed();
            self.metrics.state("standing by");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_cannot_see_does_not_say_that_it_stands_by() {
        let metrics = Metrics::new(0);
        let mut sight = Sight::new(&metrics);
        let state = |name: &str| metrics.render().contains(&format!("\npgsluice_state{{state=\"{name}\"}} 1\n"));
        let failure = Failure::new(Code::PostgresUnavailable, "connection refused");
        sight.lost(&failure);
        sight.has();
        sight.lost(&failure);
        assert!(state("standing by"), "a question may fail");
        for _ in 0..5 {
            sight.lost(&failure);
        }
        assert!(!state("standing by"));
        assert!(metrics.ready().expect_err("it sees nothing").contains("[postgres-unavailable] connection refused"));
        assert!(metrics.render().contains("errors_total{code=\"postgres-unavailable\"} 1\n"), "it is told once");
        let verdict = metrics.status("shop", None).verdict;
        assert_eq!(verdict.code.as_deref(), Some("postgres-unavailable"));
        sight.has();
        assert!(state("standing by") && metrics.ready().expect_err("it stands by").contains("standing by"));
    }
}
