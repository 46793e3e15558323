//! Whether Kafka answers, while it owes an answer.
//!
//! librdkafka tries again for as long as a transaction may take, a minute, before it says that something is wrong, and nothing may be inferred sooner: the
//! publishing thread waits, and rightly so. But whoever looks is told within seconds. What is owed is an acknowledgement of each record that was
//! sent, whose bytes the memory budget has until then, and the end of each commit. Of these there is one at least every
//! [`HEARTBEAT_INTERVAL`](super::publish), so that an outage is seen where no row comes, too: 5 s, and 3 s of silence. It ends no session, and
//! what is waited for may still come.
//!
//! Silence is counted in looks, not by the clock: a process that was stopped itself has not listened.

use std::{future::Future, time::Duration};

use publisher::MemoryBudget;
use tracing::{info, warn};

use crate::{
    failure::{Code, Failure},
    metrics::Metrics,
};

/// How often it is looked.
const INTERVAL: Duration = Duration::from_millis(250);
/// In how many looks nothing may come of what is owed: in 3 s, where acknowledgements and commits take milliseconds, and a new leader is found within one or two.
const SILENT_LOOKS: u32 = 12;

/// How long a session may take to connect and to read the checkpoint, before whoever looks is told. What an instance before has left open is ended first.
const DELAY: Duration = Duration::from_secs(6);

/// Does work that needs Kafka, and tells when it takes long. It has its own limits, which are longer, and a failure of its own.
pub(super) async fn tell_of_delay<T>(work: impl Future<Output = T>, servers: &str, metrics: &Metrics) -> T {
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = tokio::time::sleep(DELAY) => {}
    }
    let found = format!("connecting to Kafka and reading the checkpoint has taken {} s so far", DELAY.as_secs());
    let failure = Failure::new(Code::KafkaUnavailable, found).at_brokers(servers);
    warn!(code = failure.code().as_str(), "the stream waits: {failure}");
    metrics.kafka_silent(&failure);
    let done = work.await;
    metrics.kafka_answers();
    done
}

/// Looks again and again, for as long as a session streams.
pub(super) async fn watch(servers: &str, budget: &MemoryBudget, metrics: &Metrics) {
    let mut silence = Silence::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let is_owed = budget.used_bytes() > 0 || metrics.is_committing();
        let heard = Heard { releases: budget.releases(), commits: metrics.commits() };
        match silence.look(heard, is_owed) {
            Some(Change::FellSilent) => {
                let seconds = (INTERVAL * SILENT_LOOKS).as_secs();
                let found = format!("Kafka has neither acknowledged a record nor ended a commit for {seconds} s");
                let failure = Failure::new(Code::KafkaUnavailable, found).at_brokers(servers);
                warn!(code = failure.code().as_str(), "the stream waits: {failure}");
                metrics.kafka_silent(&failure);
            }
            Some(Change::Answers) => {
                info!("Kafka answers again");
                metrics.kafka_answers();
            }
            None => {}
        }
    }
}

/// How much Kafka has said so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heard {
    releases: u64,
    commits: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    FellSilent,
    Answers,
}

#[derive(Debug, Default)]
struct Silence {
    heard: Option<Heard>,
    /// How often nothing new was heard, one after another.
    looks: u32,
}

impl Silence {
    fn look(&mut self, heard: Heard, is_owed: bool) -> Option<Change> {
        let is_new = self.heard.replace(heard) != Some(heard);
        if is_new || !is_owed {
            let was_silent = std::mem::take(&mut self.looks) >= SILENT_LOOKS;
            return was_silent.then_some(Change::Answers);
        }
        self.looks = self.looks.saturating_add(1);
        (self.looks == SILENT_LOOKS).then_some(Change::FellSilent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_silent_when_it_owes_an_answer_and_gives_none_for_so_long() {
        let mut silence = Silence::default();
        let mut look = |releases, commits, is_owed| silence.look(Heard { releases, commits }, is_owed);
        // Nothing is owed, for however long.
        for _ in 0..100 {
            assert_eq!(look(1, 1, false), None);
        }
        // Each word counts, from the one side and the other.
        for said in 0..100 {
            assert_eq!(look(1 + said / 5, 1, true), None);
        }
        for said in 0..100 {
            assert_eq!(look(21, 2 + said / 5, true), None);
        }
        let mut said = Vec::new();
        for number in 0..100 {
            said.extend(look(22, 22, true).map(|change| (number, change)));
        }
        // The first look has heard something, and then it is said once.
        assert_eq!(said, [(SILENT_LOOKS, Change::FellSilent)]);
        assert_eq!(look(23, 22, true), Some(Change::Answers));
        assert_eq!(look(24, 22, true), None);
        for _ in 0..SILENT_LOOKS {
            look(24, 22, true);
        }
        assert_eq!(look(24, 22, false), Some(Change::Answers), "a session may owe nothing any more");
    }
}
