//! An instance that stands by: it waits as long as another one reads from the slot.
//!
//! This is for the operator's peace and not for correctness: whoever takes over fences the one before in Kafka, whatever PostgreSQL says of
//! the slot (`crate::pipeline`'s argument). A slot that is free for a moment may be that of an instance that connects anew, so that it has to be free
//! for [`FREE_FOR`]. One whose machine is gone is free once the server notices, which takes `wal_sender_timeout` at most.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use super::session::Shared;
use crate::{
    catalog::Catalog,
    failure::{Failure, Recovery},
};

/// How often the server is asked.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long nobody may have read from the slot.
const FREE_FOR: Duration = Duration::from_secs(3);

/// Waits until nobody reads from the slot.
///
/// # Errors
/// The server cannot be asked, and asking again would not help.
pub(super) async fn wait(shared: &Shared) -> Result<(), Failure> {
    let slot = &shared.config.postgres.slot;
    let mut catalog = Catalog::new(std::sync::Arc::clone(&shared.connect));
    let (mut free_since, mut told) = (None, None);
    shared.metrics.state("standing by");
    loop {
        let reader = match catalog.slot_state(slot).await {
            Ok(state) => state.and_then(|state| state.active_pid),
            Err(failure) if failure.code().recovery() == Recovery::Restart => {
                debug!("the slot cannot be looked at: {failure}");
                // Nothing is known, so that it may not be free.
                free_since = None;
                sleep(INTERVAL).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
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
