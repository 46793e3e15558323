//! Whether the schema registry is up, while nothing waits for it.
//!
//! A stream needs the registry for the first change of each table, and of each that was altered, and for nothing else: the rows of all others go on without it.
//! So a registry that is away and that nothing waits for does not take the readiness away. But it is told of, in the log, as a failure, in the status,
//! in a metric of its own and in what `/readyz` says beside its 200: the next new table will wait, or stop the stream. Once one does, the stream says so itself
//! ([`Relations::register`](super::relations)), and is not ready.
//!
//! What "up" means is said in [`Schemas::answers_within`]: neither a server that is not trusted nor a proxy in the registry's place is one, and the code of
//! what is wrong is the one that the stream would have.
//!
//! One request that fails is none: a connection that was kept may just have been closed.

use std::{sync::Arc, time::Duration};

use tracing::{debug, info, warn};

use crate::{
    failure::{Code, Failure},
    metrics::Metrics,
    schemas::{Refusal, Schemas},
};

/// How often it is asked.
const INTERVAL: Duration = Duration::from_secs(3);
/// After how long it is asked once more, before it is said to be away.
const INTERVAL_IN_DOUBT: Duration = Duration::from_millis(500);
/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_millis(2500);
/// How long it is left alone at most, where it has asked for that: whoever looks wants to know when it is back.
const LEFT_ALONE_MAX: Duration = Duration::from_secs(30);
/// Within how long it is told, whatever has become of the registry, and however silently.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
const _: () = assert!(
    INTERVAL.as_millis() + 2 * ANSWER_LIMIT.as_millis() + INTERVAL_IN_DOUBT.as_millis() < TOLD_WITHIN.as_millis()
);

/// Asks again and again. The built-in registry is in Kafka: nobody else is asked then.
pub(super) async fn watch(schemas: Schemas, metrics: Arc<Metrics>) {
    if schemas.built_in().is_some() {
        return;
    }
    let mut watched = Watched::default();
    loop {
        let pause = watched.hear(schemas.answers_within(ANSWER_LIMIT).await, &metrics);
        tokio::time::sleep(pause).await;
    }
}

#[derive(Debug, Default)]
struct Watched {
    /// How many questions had no good answer, one after another.
    failed: u32,
    /// What was told that is still so.
    told: Option<Code>,
}

impl Watched {
    /// Takes an answer, tells what it changes, and says after how long to ask again.
    fn hear(&mut self, answer: Result<(), Refusal>, metrics: &Metrics) -> Duration {
        let Err(refusal) = answer else {
            if self.told.take().is_some() {
                info!("the schema registry answers again");
            }
            self.failed = 0;
            metrics.registry_answers();
            return INTERVAL;
        };
        self.failed = self.failed.saturating_add(1);
        debug!("the schema registry cannot be used: {}", refusal.found);
        let pause = if self.failed == 1 { INTERVAL_IN_DOUBT } else { INTERVAL };
        // Who asks to be left alone is, but for the one question more that says whether it is away.
        let asked = refusal.retry_after.filter(|_| self.failed > 1);
        let pause = asked.map_or(pause, |asked| pause.max(asked.min(LEFT_ALONE_MAX)));
        if self.failed >= 2 && self.told != Some(refusal.code) {
            let failure = Failure::new(refusal.code, refusal.found);
            warn!(
                code = failure.code().as_str(),
                "the schema registry cannot be used, and nothing waits for it unless that is said: {failure}"
            );
            metrics.registry_away(&failure);
            self.told = Some(failure.code());
        }
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: Code, retry_after: Option<Duration>) -> Result<(), Refusal> {
        Err(Refusal { code, found: "what was found".into(), retry_after })
    }

    #[test]
    fn it_is_told_at_the_second_failure_and_again_when_it_is_another_one() {
        let metrics = Metrics::new(0);
        let mut watched = Watched::default();
        let is_up = || {
            let text = metrics.render();
            let line = text.lines().find_map(|line| line.strip_prefix("pgsluice_registry_up "));
            line.expect("it is there").to_owned()
        };
        assert_eq!(watched.hear(Ok(()), &metrics), INTERVAL);
        assert_eq!(is_up(), "1");
        assert_eq!(watched.hear(refusal(Code::RegistryUnavailable, None), &metrics), INTERVAL_IN_DOUBT);
        assert_eq!(is_up(), "1", "a connection may just have been closed");
        let asked = Some(Duration::from_mins(1));
        assert_eq!(watched.hear(refusal(Code::RegistryUnavailable, asked), &metrics), LEFT_ALONE_MAX);
        assert_eq!(is_up(), "0");
        assert_eq!(watched.hear(refusal(Code::RegistryUntrusted, None), &metrics), INTERVAL);
        watched.hear(refusal(Code::RegistryUntrusted, None), &metrics);
        let text = metrics.render();
        for code in ["registry-unavailable", "registry-untrusted"] {
            let line = format!("pgsluice_errors_total{{code=\"{code}\"}} 1");
            assert!(text.contains(&line), "{line} is not in {text}");
        }
        watched.hear(Ok(()), &metrics);
        assert_eq!((is_up().as_str(), watched.told), ("1", None));
    }
}
