//! Whether PostgreSQL answers, while the stream waits for it.
//!
//! A server that is idle says nothing, and so does one that is frozen, or behind a network that is. So it is asked for a sign of life every few seconds
//! ([`walreceiver::StreamSettings::question_after`]), and an idle one answers at once. That nothing comes for [`SILENT_LOOKS`] is told in
//! readiness, metrics, status and log.
//!
//! It ends no session. A walsender that decodes a large transaction of which nothing is to be sent looks at what it is asked only once half of its
//! `wal_sender_timeout` has passed since it last did (pg `walsender.c`, `WalSndUpdateProgress`), and begun anew it would decode all of it again. What ends
//! a session is the reader's own limit, which is longer than that. So as not to cry wolf meanwhile, the server is asked by SQL, on a connection of
//! its own, what the walsender is at: one that works is not silent. One that waits for its client, and does not answer that, is; and so is a server
//! that does not answer this either.
//!
//! Silence is counted in looks, not by the clock: a process that was stopped itself has not listened. And it counts while the source task waits for
//! the server: while that has something to do, nobody reads.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tracing::{debug, info, warn};
use walreceiver::{ConnectOptions, Feedback};

use crate::{
    catalog::Catalog,
    failure::{Code, Failure},
    metrics::Metrics,
};

/// How often it is looked.
const INTERVAL: Duration = Duration::from_millis(250);
/// In how many looks nothing may come: in 6 s. It is asked after 4 s.
const SILENT_LOOKS: u32 = 24;
/// After how many more looks a walsender that was at work is asked about again.
const LOOKS_AT_WORK: u32 = 12;
/// How long it may take to be told what the walsender is at.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// Looks again and again, for as long as a session streams.
pub(super) async fn watch(connect: Arc<ConnectOptions>, slot: &str, feedback: Feedback, metrics: &Metrics) {
    let mut catalog = Catalog::new(connect);
    let mut silence = Silence::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        match silence.look(feedback.heard_after(), metrics.is_source_waiting()) {
            Some(Change::Suspicious) => {
                let work = timeout(ANSWER_LIMIT, catalog.walsender_works(slot)).await;
                // A connection that may hang is of no more use, and one is not kept for this.
                catalog.disconnect();
                let found = match work {
                    Ok(Ok(Some(true))) => {
                        debug!("the walsender has said nothing for a while: it is at work");
                        continue;
                    }
                    Ok(Ok(Some(false))) => {
                        "its walsender waits, and does not answer: it is stopped, or the network between is"
                    }
                    Ok(Ok(None)) => "it has no walsender for the slot any more",
                    Ok(Err(failure)) if failure.code() != Code::PostgresUnavailable => {
                        // It lives, and lets nobody ask what its walsender is at, which may be at work.
                        debug!("the walsender has said nothing for a while, and cannot be asked about: {failure}");
                        continue;
                    }
                    Ok(Err(_)) | Err(_) => "it does not answer a query either",
                };
                // It may have said something meanwhile.
                if silence.is_over(feedback.heard_after()) {
                    continue;
                }
                silence.is_told = true;
                let seconds = (INTERVAL * SILENT_LOOKS).as_secs();
                let found = format!(
                    "PostgreSQL has sent nothing for {seconds} s, though it was asked for a sign of life; {found}"
                );
                let failure = Failure::new(Code::PostgresUnavailable, found);
                warn!(code = failure.code().as_str(), slot, "the stream waits: {failure}");
                metrics.postgres_silent(&failure);
            }
            Some(Change::Answers) => {
                info!("PostgreSQL answers again");
                metrics.postgres_answers();
            }
            None => {}
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// Nothing has come for so long that it has to be found out why.
    Suspicious,
    Answers,
}

#[derive(Debug, Default)]
struct Silence {
    heard: Option<Duration>,
    /// In how many looks nothing was heard, one after another.
    looks: u32,
    /// Whether it was told that the server is silent.
    is_told: bool,
}

impl Silence {
    fn look(&mut self, heard: Duration, is_waiting: bool) -> Option<Change> {
        let is_new = self.heard.replace(heard) != Some(heard);
        if is_new || !is_waiting {
            self.looks = 0;
            return std::mem::take(&mut self.is_told).then_some(Change::Answers);
        }
        self.looks = self.looks.saturating_add(1);
        let is_due = self.looks >= SILENT_LOOKS && (self.looks - SILENT_LOOKS).is_multiple_of(LOOKS_AT_WORK);
        (is_due && !self.is_told).then_some(Change::Suspicious)
    }

    /// Whether something was heard since the last look.
    fn is_over(&self, heard: Duration) -> bool {
        self.heard != Some(heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_silent_when_nothing_comes_while_somebody_listens() {
        let mut silence = Silence::default();
        // Nobody reads, for however long.
        for _ in 0..100 {
            assert_eq!(silence.look(AT, false), None);
        }
        // It answers what it is asked every four seconds.
        for look in 0..200 {
            assert_eq!(silence.look(AT + Duration::from_secs(1 + look / 16), true), None);
        }
        let heard = AT + Duration::from_secs(13);
        let suspicious: Vec<u32> = (0..80).filter(|_| silence.look(heard, true).is_some()).collect();
        // That of the last answer is among them; whoever is found to be at work is asked about again.
        assert_eq!(suspicious, [16, 28, 40, 52, 64, 76]);
        silence.is_told = true;
        for _ in 0..100 {
            assert_eq!(silence.look(heard, true), None, "it is told once");
        }
        assert!(!silence.is_over(heard) && silence.is_over(heard + AT));
        assert_eq!(silence.look(heard + AT, true), Some(Change::Answers));
        assert_eq!(silence.look(heard + AT, true), None);
    }
}
