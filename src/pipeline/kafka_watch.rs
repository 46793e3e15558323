//! Whether Kafka answers, while it owes an answer.
//!
//! librdkafka tries again for as long as a transaction may take, a minute, before it says that something is wrong, and nothing may be inferred sooner: the
//! publishing thread waits, and rightly so. But whoever looks is told within seconds. What is owed is an acknowledgement of each record that was
//! sent, whose bytes the memory budget has until then, and the end of each commit. Of these there is one at least every
//! [`HEARTBEAT_INTERVAL`], so that an outage is seen where no row comes, too. What is told ends no session, and what is waited for may still come.
//!
//! That nothing comes of what is owed is not yet an outage: a Kafka that is slow owes as much. So once it has kept us waiting for a second the brokers are
//! asked something that costs them nothing, where the topic of checkpoints is. If nobody answers that either, for [`DEAF_LOOKS`], Kafka is away. Who answers
//! has [`STUCK_LOOKS`], and four times what it has needed before, for it may not take records while it answers questions: too few replicas are in sync, or the
//! leader of a partition is gone and the others do not know that yet.
//!
//! Silence is counted in looks, not by the clock: a process that was stopped itself has not listened.

use std::{future::Future, sync::Arc, time::Duration};

use publisher::{CheckpointTopic, MemoryBudget, TopicAdmin};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{debug, info, warn};

use super::publish::HEARTBEAT_INTERVAL;
use crate::{
    failure::{Code, Failure},
    metrics::Metrics,
};

/// How often it is looked.
const INTERVAL: Duration = Duration::from_millis(250);
/// In how many looks without a word the brokers are asked for one: in 1 s, where acknowledgements and commits take milliseconds.
const ASK_LOOKS: u32 = 4;
/// How long they may take to say it.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// In how many looks there may be no word of any broker: in 3 s.
const DEAF_LOOKS: u32 = 12;
/// In how many looks nothing may come of what is owed though brokers answer, at the least and at the most: in 8 s, and in 30 s.
const STUCK_LOOKS: u32 = 32;
const STUCK_LOOKS_MAX: u32 = 120;

/// Within how long it is told that no broker answers: from the outage to the next commit, and from there to the look that finds too much silence.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
const _: () = assert!(
    HEARTBEAT_INTERVAL.as_millis() + INTERVAL.as_millis() * (DEAF_LOOKS as u128 + 1) < TOLD_WITHIN.as_millis()
        && ANSWER_LIMIT.as_millis() <= INTERVAL.as_millis() * (DEAF_LOOKS - ASK_LOOKS) as u128
);
// And while rows come, that nothing comes of them.
const _: () = assert!(INTERVAL.as_millis() * (STUCK_LOOKS as u128 + 1) < TOLD_WITHIN.as_millis());

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
pub(super) async fn watch(
    servers: &str,
    topic: &CheckpointTopic,
    admin: &Arc<TopicAdmin>,
    budget: &MemoryBudget,
    metrics: &Metrics,
) {
    let mut silence = Silence::default();
    let mut question: Option<JoinHandle<bool>> = None;
    let mut answers = 0;
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Some(asked) = question.take_if(|asked| asked.is_finished()) {
            answers += u64::from(asked.await.unwrap_or(false));
        }
        let is_owed = budget.used_bytes() > 0 || metrics.is_committing();
        let heard = Heard { releases: budget.releases(), commits: metrics.commits(), answers };
        match silence.look(heard, is_owed) {
            Some(Change::FellSilent(found)) => {
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
        if silence.is_in_doubt() && question.is_none() {
            question = Some(ask(topic.name().to_owned(), Arc::clone(admin)));
        }
    }
}

/// Asks the brokers where a topic is. It is no answer if nobody knows who leads it.
fn ask(topic: String, admin: Arc<TopicAdmin>) -> JoinHandle<bool> {
    spawn_blocking(move || match admin.has_leaders_within(&topic, ANSWER_LIMIT) {
        Ok(has_leaders) => has_leaders,
        Err(error) => {
            debug!("while Kafka owes an answer: {error}");
            false
        }
    })
}

/// How much Kafka has said so far: of what it owes, and to questions besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heard {
    releases: u64,
    commits: u64,
    answers: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// With what was found.
    FellSilent(String),
    Answers,
}

#[derive(Debug, Default)]
struct Silence {
    heard: Option<Heard>,
    /// In how many looks nothing came of what is owed.
    stuck: u32,
    /// In how many of the last of these no broker has said anything else either.
    deaf: u32,
    /// In how many looks something came at last, lately.
    usual: u32,
    is_told: bool,
}

impl Silence {
    fn look(&mut self, heard: Heard, is_owed: bool) -> Option<Change> {
        let before = self.heard.replace(heard);
        let has_come = before.is_none_or(|before| (before.releases, before.commits) != (heard.releases, heard.commits));
        if has_come || !is_owed {
            let was_told = std::mem::take(&mut self.is_told);
            if has_come && !was_told {
                self.usual = self.stuck.max(self.usual - self.usual.div_ceil(8));
            }
            (self.stuck, self.deaf) = (0, 0);
            return was_told.then_some(Change::Answers);
        }
        self.stuck = self.stuck.saturating_add(1);
        let has_answered = before.is_some_and(|before| before.answers != heard.answers);
        self.deaf = if has_answered { 0 } else { self.deaf.saturating_add(1) };
        let patience = (self.usual * 4).clamp(STUCK_LOOKS, STUCK_LOOKS_MAX);
        let found = if self.deaf >= DEAF_LOOKS {
            format!(
                "no broker answers for the topic of checkpoints, and nothing was acknowledged or committed for {}",
                seconds(self.stuck)
            )
        } else if self.stuck >= patience {
            format!("brokers answer, but nothing was acknowledged or committed for {}", seconds(self.stuck))
        } else {
            return None;
        };
        (!std::mem::replace(&mut self.is_told, true)).then_some(Change::FellSilent(found))
    }

    /// Whether a word of the brokers would tell more.
    fn is_in_doubt(&self) -> bool {
        self.deaf >= ASK_LOOKS
    }
}

fn seconds(looks: u32) -> String {
    format!("{} s", (INTERVAL * looks).as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Kafka of which it is said what each look finds.
    struct Looks {
        silence: Silence,
        heard: Heard,
    }

    impl Looks {
        fn new() -> Self {
            let mut looks = Self { silence: Silence::default(), heard: Heard { releases: 1, commits: 1, answers: 0 } };
            assert_eq!(looks.look(false), None);
            looks
        }

        fn look(&mut self, is_owed: bool) -> Option<Change> {
            self.silence.look(self.heard, is_owed)
        }

        /// A look at which something has come of what is owed.
        fn comes(&mut self) -> Option<Change> {
            self.heard.commits += 1;
            self.look(true)
        }

        /// So many looks at which nothing has come, while brokers answer or not. Says at which ones something was told.
        fn nothing_comes(&mut self, looks: u32, they_answer: bool) -> Vec<(u32, Change)> {
            let mut told = Vec::new();
            for number in 1..=looks {
                self.heard.answers += u64::from(they_answer && self.silence.is_in_doubt());
                told.extend(self.look(true).map(|change| (number, change)));
            }
            told
        }
    }

    #[test]
    fn it_is_silent_when_it_owes_an_answer_and_no_broker_says_a_word_for_so_long() {
        let mut looks = Looks::new();
        // Nothing is owed, for however long.
        for _ in 0..100 {
            assert_eq!(looks.look(false), None);
        }
        // Each word counts, from the one side and the other.
        for said in 0..100 {
            looks.heard.releases += u64::from(said % 5 == 0);
            assert_eq!(looks.look(true), None);
        }
        for said in 0..100 {
            looks.heard.commits += u64::from(said % 5 == 0);
            assert_eq!(looks.look(true), None);
        }
        assert_eq!(looks.comes(), None);
        let found = "no broker answers for the topic of checkpoints, and nothing was acknowledged or committed for 3 s"
            .to_owned();
        assert_eq!(looks.nothing_comes(1000, false), [(DEAF_LOOKS, Change::FellSilent(found))], "it is said once");
        // That brokers are back is not what is owed.
        assert_eq!(looks.nothing_comes(20, true), []);
        assert_eq!(looks.comes(), Some(Change::Answers));
        assert_eq!(looks.comes(), None);
        looks.nothing_comes(DEAF_LOOKS, false);
        assert_eq!(looks.look(false), Some(Change::Answers), "a session may owe nothing any more");
    }

    #[test]
    fn a_slow_kafka_that_answers_is_not_away() {
        let mut looks = Looks::new();
        // Commits that take 3 s, and all that they take longer, up to a point.
        for commit in [12, 16, 24, STUCK_LOOKS - 1] {
            assert_eq!(looks.nothing_comes(commit, true), []);
            assert_eq!(looks.comes(), None);
        }
        // Who has needed so long may need it again, though not for ever.
        assert_eq!(looks.nothing_comes(STUCK_LOOKS_MAX - 1, true), []);
        assert_eq!(looks.comes(), None);
        let told = looks.nothing_comes(1000, true);
        let found = "brokers answer, but nothing was acknowledged or committed for 30 s".to_owned();
        assert_eq!(told, [(STUCK_LOOKS_MAX, Change::FellSilent(found))]);
        assert_eq!(looks.comes(), Some(Change::Answers));
        // It is fast again, and nothing excuses it any more.
        for _ in 0..100 {
            looks.comes();
        }
        let found = "brokers answer, but nothing was acknowledged or committed for 8 s".to_owned();
        assert_eq!(looks.nothing_comes(1000, true), [(STUCK_LOOKS, Change::FellSilent(found))]);
        // And who does not answer is not excused by having been slow.
        assert_eq!(looks.comes(), Some(Change::Answers));
        looks.nothing_comes(STUCK_LOOKS - 1, true);
        assert_eq!(looks.comes(), None);
        assert_eq!(looks.nothing_comes(DEAF_LOOKS, false).len(), 1);
    }
}
