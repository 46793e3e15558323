//! Whether the schema registry answers, while nothing waits for it.
//!
//! A stream needs the registry for the first change of each table, and of each that was altered, and for nothing else: the rows of all others go on without it.
//! So a registry that is away and that nothing waits for does not take the readiness away. But it is told of, in the log, as a failure, in the status,
//! in a metric of its own and in what `/readyz` says beside its 200: the next new table will wait. Once one does, the stream says so itself
//! ([`Relations::register`](super::relations)), and is not ready.
//!
//! One request that fails is none: a connection that was kept may just have been closed.

use std::{sync::Arc, time::Duration};

use tracing::{debug, info, warn};

use crate::{failure::Failure, metrics::Metrics, schemas::Schemas};

/// How often it is asked.
const INTERVAL: Duration = Duration::from_secs(3);
/// After how long it is asked once more, before it is said to be away.
const INTERVAL_IN_DOUBT: Duration = Duration::from_millis(500);
/// How long an answer may take. Twice this and both intervals are less than 10 s.
const ANSWER_LIMIT: Duration = Duration::from_millis(2500);

/// Asks again and again. The built-in registry is in Kafka: nobody else is asked then.
pub(super) async fn watch(schemas: Schemas, metrics: Arc<Metrics>) {
    if schemas.built_in().is_some() {
        return;
    }
    let mut failed = 0_u32;
    loop {
        match schemas.answers_within(ANSWER_LIMIT).await {
            Ok(()) => {
                if failed >= 2 {
                    info!("the schema registry answers again");
                }
                failed = 0;
                metrics.registry_answers();
            }
            Err(refusal) => {
                failed = failed.saturating_add(1);
                debug!("the schema registry does not answer: {}", refusal.found);
                if failed == 2 {
                    let failure = Failure::new(refusal.code, refusal.found);
                    warn!(
                        code = failure.code().as_str(),
                        "the schema registry does not answer, and nothing waits for it unless that is said: {failure}"
                    );
                    metrics.registry_away(&failure);
                }
            }
        }
        tokio::time::sleep(if failed == 1 { INTERVAL_IN_DOUBT } else { INTERVAL }).await;
    }
}
