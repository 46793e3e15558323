//! What systemd is told: that the program has started, what it is at, and that it is alive (`sd_notify(3)`, `Type=notify`, `WatchdogSec=`).
//!
//! Under anything else the variables are not set, and nothing is told. What makes the stream wait, such as a broker that is away, is no reason
//! to be started again, and does not keep the watchdog from being told. What does is that no task gets its turn any more.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::task::spawn_blocking;
use tracing::debug;

use crate::metrics::Metrics;

/// How often the status is told where there is no watchdog.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Tells it again and again. The program serves HTTP by now, so that whoever starts after it can ask.
pub(crate) async fn tell(metrics: Arc<Metrics>) {
    // Twice as often as it is waited for, as sd_watchdog_enabled(3) recommends.
    let interval = sd_notify::watchdog_enabled().map_or(STATUS_INTERVAL, |timeout| (timeout / 2).min(STATUS_INTERVAL));
    send("READY=1".to_owned()).await;
    loop {
        let status = metrics.ready().unwrap_or_else(|reason| reason).replace('\n', " ");
        send(format!("WATCHDOG=1\nSTATUS={status}")).await;
        tokio::time::sleep(interval).await;
    }
}

/// The program has begun to stop.
pub(crate) fn tell_stopping() {
    tokio::spawn(send("STOPPING=1".to_owned()));
}

/// The call waits where nobody reads what was told before, and must not keep a task of the stream from its turn.
async fn send(state: String) {
    match spawn_blocking(move || sd_notify::notify(&[NotifyState::Custom(&state)])).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "systemd could not be told"),
        Err(error) => debug!(%error, "systemd could not be told"),
    }
}
