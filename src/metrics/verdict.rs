//! Whether it is well, in words: the headline of the status page and of `pgsluice top`.
//!
//! The text stays the same for as long as the matter does, so that whoever has it read aloud hears it once.

use serde::{Deserialize, Serialize};

use super::readiness::Unready;
use crate::failure::{Code, Recovery, Told};

/// A slot that is lost sooner than this is worth a warning, as in the log.
const SOON_SECONDS: f64 = 3600.0;
/// What is so much behind is worth a look.
const BEHIND_MS: i64 = 10_000;

/// Whether it is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) level: Level,
    /// One sentence.
    pub(crate) text: String,
    /// What was found.
    pub(crate) detail: Option<String>,
    /// What can be done.
    pub(crate) advice: Option<String>,
    /// The code of the failure behind it.
    pub(crate) code: Option<String>,
}

/// How well it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    Well,
    /// It is on its way, or stands by.
    Waiting,
    Warning,
    Problem,
}

/// What is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known<'a> {
    pub(super) unready: Option<&'a Unready>,
    pub(super) wal_status: Option<&'a str>,
    pub(super) seconds_to_loss: Option<f64>,
    pub(super) registry_away: Option<&'a Told>,
    pub(super) in_quarantine: i64,
    pub(super) lag_ms: i64,
}

impl Verdict {
    fn new(level: Level, text: impl Into<String>) -> Self {
        Self { level, text: text.into(), detail: None, advice: None, code: None }
    }

    fn advising(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    pub(super) fn of(known: Known<'_>) -> Self {
        let Known { unready, wal_status, seconds_to_loss, registry_away, in_quarantine, lag_ms } = known;
        if wal_status == Some("lost") {
            let code = Code::SlotLost;
            let verdict =
                Self::new(Level::Problem, "The server has given the slot up: changes that were not read are gone.");
            return Self { code: Some(code.as_str().to_owned()), ..verdict.advising(code.fix()) };
        }
        if let Some(unready) = unready {
            return Self::of_unready(unready);
        }
        if wal_status == Some("unreserved") {
            return Self::new(
                Level::Problem,
                "The stream runs, but the server gives the slot up at its next checkpoint.",
            )
            .advising("Raise max_slot_wal_keep_size now, and see why the stream is behind.");
        }
        if seconds_to_loss.is_some_and(|seconds| seconds < SOON_SECONDS) {
            return Self::new(Level::Warning, "The stream runs, but the server may give the slot up within the hour.")
                .advising("See why the stream is behind, or raise max_slot_wal_keep_size.");
        }
        if let Some(told) = registry_away {
            let text = match told.code.recovery() {
                Recovery::Restart => {
                    "The stream runs, but the schema registry does not answer: a table that is new or altered will wait for it."
                }
                Recovery::Stop => {
                    "The stream runs, but the schema registry cannot be used: a table that is new or altered will stop it."
                }
            };
            return Self {
                detail: Some(told.text.clone()),
                code: Some(told.code.as_str().to_owned()),
                ..Self::new(Level::Warning, text).advising(told.code.fix())
            };
        }
        if in_quarantine > 0 {
            let text = match in_quarantine {
                1 => "The stream runs, but one table waits in quarantine.".to_owned(),
                tables => format!("The stream runs, but {tables} tables wait in quarantine."),
            };
            return Self::new(Level::Warning, text)
                .advising("Mend the subjects at the schema registry, and run `pgsluice release`.");
        }
        if lag_ms > BEHIND_MS {
            return Self::new(Level::Warning, "The stream runs, and is more than ten seconds behind.")
                .advising("See whether the lag falls. If it does not, see which latency has grown, and what Kafka and the registry say.");
        }
        Self::new(Level::Well, "All is well: what PostgreSQL commits is in Kafka soon after.")
    }

    fn of_unready(Unready { state, text, failure }: &Unready) -> Self {
        match (failure, *state) {
            (Some(told), _) => Self {
                detail: Some(told.text.clone()),
                code: Some(told.code.as_str().to_owned()),
                ..Self::new(Level::Problem, format!("The stream waits. {}", told.code.meaning()))
                    .advising(told.code.fix())
            },
            (None, "standing by") => Self::new(Level::Waiting, "Standing by: another instance streams.")
                .advising("Nothing is to be done: this one takes over when that one has gone."),
            (None, "stopping") => Self::new(Level::Waiting, "Stopping: what was read is committed first."),
            (None, "streaming") => {
                Self { detail: Some(sentence(text)), ..Self::new(Level::Problem, "The stream makes no progress.") }
                    .advising("See whether PostgreSQL, Kafka and the registry answer, and what the log says.")
            }
            (None, state) => Self::new(Level::Waiting, format!("On its way: {state}.")),
        }
    }
}

/// One of our own phrases as a sentence.
fn sentence(phrase: &str) -> String {
    let mut characters = phrase.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(characters).chain(['.']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worst_is_said() {
        let registry = Told { code: Code::RegistryUnavailable, text: "connection refused".into() };
        let untrusted = Told { code: Code::RegistryUntrusted, text: "TLS failed".into() };
        let failing = Unready {
            state: "waiting to start again",
            text: String::new(),
            failure: Some(Told { code: Code::KafkaUnavailable, text: "no broker answers".into() }),
        };
        let starting = Unready { state: "connecting to kafka", text: String::new(), failure: None };
        let stuck =
            Unready { state: "streaming", text: "nothing was committed in Kafka for 31 s".into(), failure: None };
        let well = Known::default();
        for (known, level, part) in [
            (well, Level::Well, "All is well"),
            (Known { lag_ms: 11_000, ..well }, Level::Warning, "behind"),
            (Known { lag_ms: 11_000, in_quarantine: 2, ..well }, Level::Warning, "2 tables"),
            (Known { in_quarantine: 1, seconds_to_loss: Some(60.0), ..well }, Level::Warning, "within the hour"),
            (Known { seconds_to_loss: Some(7200.0), ..well }, Level::Well, "All is well"),
            (Known { registry_away: Some(&registry), in_quarantine: 1, ..well }, Level::Warning, "schema registry"),
            (Known { registry_away: Some(&registry), ..well }, Level::Warning, "will wait for it"),
            (Known { registry_away: Some(&untrusted), ..well }, Level::Warning, "will stop it"),
            (Known { registry_away: Some(&registry), unready: Some(&stuck), ..well }, Level::Problem, "no progress"),
            (
                Known { seconds_to_loss: Some(0.0), wal_status: Some("unreserved"), ..well },
                Level::Problem,
                "next checkpoint",
            ),
            (Known { unready: Some(&starting), ..well }, Level::Waiting, "connecting to kafka"),
            (
                Known { unready: Some(&failing), wal_status: Some("unreserved"), ..well },
                Level::Problem,
                Code::KafkaUnavailable.meaning(),
            ),
            (Known { unready: Some(&failing), wal_status: Some("lost"), ..well }, Level::Problem, "are gone"),
        ] {
            let verdict = Verdict::of(known);
            assert!(verdict.level == level && verdict.text.contains(part), "{known:?}: {verdict:?}");
        }
        let verdict = Verdict::of(Known { unready: Some(&stuck), ..well });
        assert_eq!(verdict.detail.as_deref(), Some("Nothing was committed in Kafka for 31 s."));
        let verdict = Verdict::of(Known { unready: Some(&failing), ..well });
        assert_eq!(verdict.code.as_deref(), Some("kafka-unavailable"));
        assert_eq!(verdict.detail.as_deref(), Some("no broker answers"));
        assert_eq!(verdict.advice.as_deref(), Some(Code::KafkaUnavailable.fix()));
    }
}
