//! The topic that records are copied into.
//!
//! Copied records keep their times, and brokers remove records by their times: a topic that keeps less than the source does would lose what is written
//! into it at once. So a target that is made is made like its source, and one that is there is asked first.
//!
//! A replay that goes on, or is complete, has written into its target: where that is gone, or ends before as many records, what was committed is there no
//! more, and a run that went on behind it, or found nothing to do, would hide that.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use publisher::{Appetite, Isolation, KafkaSettings, PublishError, TopicAdmin, TopicReader, TopicSettings};

use crate::failure::{Code, Failure};

/// What a target has from its source: how long records are kept, and how large they may be.
const LIKE_THE_SOURCE: [&str; 4] = ["cleanup.policy", "retention.ms", "retention.bytes", "max.message.bytes"];

/// A target that is there, as it was found before anything was written in this run.
pub(super) struct There {
    pub(super) partitions: i32,
    /// The sum of the partitions' ends: marks and what was removed count, so that it is no less than the records that were ever written.
    ends: i64,
}

/// Looks for a topic; none if it is not there.
pub(super) fn find(settings: &KafkaSettings, topic: &str) -> Result<Option<There>, PublishError> {
    let reader = TopicReader::connect(settings, Isolation::Uncommitted, Appetite::Few)?;
    let Some(partitions) = reader.partitions(topic)? else { return Ok(None) };
    let mut ends = 0;
    for partition in 0..partitions {
        ends += reader.bounds(topic, partition)?.1;
    }
    Ok(Some(There { partitions, ends }))
}

/// Refuses a target that has not what a replay has written into it.
pub(super) fn refuse_lost(topic: &str, there: Option<&There>, written: u64, is_done: bool) -> Result<(), Failure> {
    let found = match there {
        None if written > 0 || is_done => "is gone".to_owned(),
        Some(there) if u64::try_from(there.ends).unwrap_or(0) < written => {
            format!("was deleted and created again: its partitions end at {} in all", there.ends)
        }
        _ => return Ok(()),
    };
    let found = format!("the topic {topic}, into which this replay has written {written} records, {found}");
    Err(Failure::new(Code::ReplayMismatch, found))
}

/// Refuses a target into which others have written: who reads it would have both, and what a stream goes on to write would come between.
pub(super) fn refuse_used(topic: &str, there: Option<&There>) -> Result<(), Failure> {
    match there {
        Some(there) if there.ends > 0 => {
            let found = format!(
                "the topic {topic} was written to before (its partitions end at {} in all), and not by this replay: name one that is not there yet, \
                 or give --append to write behind that, and never into a topic that a stream writes to",
                there.ends
            );
            Err(Failure::new(Code::TopicUnfit, found))
        }
        _ => Ok(()),
    }
}

/// Creates a target like its source.
pub(super) fn create(
    admin: &TopicAdmin,
    topic: &str,
    source: &str,
    partitions: i32,
    replication_factor: i32,
) -> Result<(), PublishError> {
    let config = match admin.config(source) {
        Ok(config) => like(&config),
        Err(error) if error.is_unauthorized() => {
            tracing::warn!(%error, "how {source} keeps records cannot be read: {topic} is created so that it keeps all");
            ["retention.ms", "retention.bytes"].map(|key| (key.to_owned(), "-1".to_owned())).into()
        }
        Err(error) => return Err(error),
    };
    admin.create(topic, &TopicSettings { partitions, replication_factor, config }).map(|_| ())
}

fn like(source: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let of = |key: &str| Some((key.to_owned(), source.get(key)?.clone()));
    LIKE_THE_SOURCE.into_iter().filter_map(of).collect()
}

/// How long a target keeps what is written into it.
pub(super) struct Retention {
    /// None where it removes nothing by its time, or cannot be asked.
    keeps: Option<Duration>,
    /// Whether it is the source's, so that what it removes is gone there in a moment too.
    is_the_sources: bool,
    /// Partitions of the source of which the first record was looked at.
    seen: BTreeSet<i32>,
}

impl Retention {
    /// That nothing need be looked at: records were written before.
    pub(super) const fn unasked() -> Self {
        Self { keeps: None, is_the_sources: false, seen: BTreeSet::new() }
    }

    /// Asks a topic.
    pub(super) fn of(admin: &TopicAdmin, topic: &str, is_the_sources: bool) -> Result<Self, PublishError> {
        let keeps = match admin.config(topic) {
            Ok(config) => keeps(&config),
            Err(error) if error.is_unauthorized() => {
                tracing::warn!(%error, "how long {topic} keeps records cannot be read: see that it does not remove at once what is copied, which keeps its times");
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Self { keeps, is_the_sources, seen: BTreeSet::new() })
    }

    /// Refuses the first record of a partition if the target would remove it at once.
    pub(super) fn look(&mut self, topic: &str, partition: i32, unix_ms: Option<i64>) -> Result<(), Failure> {
        let (Some(keeps), Some(unix_ms)) = (self.keeps, unix_ms) else { return Ok(()) };
        if !self.seen.insert(partition) {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = now.saturating_sub(Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0)));
        if age <= keeps {
            return Ok(());
        }
        let found = format!(
            "the topic {topic} keeps records for {} s, and the first one of partition {partition} is {} s old: records keep their times, and it \
             would be removed at once",
            keeps.as_secs(),
            age.as_secs()
        );
        if self.is_the_sources {
            tracing::warn!("{found}, as from the source");
            return Ok(());
        }
        let fix = "set its retention.ms to -1 or to more than that, or name a topic that is not there yet, which is made like the source";
        Err(Failure::new(Code::TopicUnfit, format!("{found}; {fix}")))
    }
}

fn keeps(config: &BTreeMap<String, String>) -> Option<Duration> {
    let is = |key: &str, part: &str| config.get(key).is_some_and(|value| value.contains(part));
    if is("message.timestamp.type", "LogAppendTime") || !is("cleanup.policy", "delete") {
        return None;
    }
    // A negative one is none.
    config.get("retention.ms")?.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_target_is_made_like_its_source() {
        let source = config(&[("cleanup.policy", "compact"), ("retention.ms", "-1"), ("segment.bytes", "5")]);
        assert_eq!(like(&source), config(&[("cleanup.policy", "compact"), ("retention.ms", "-1")]));
    }

    #[test]
    fn what_would_be_removed_at_once_is_refused() {
        let day = |policy, ms, time| {
            keeps(&config(&[("cleanup.policy", policy), ("retention.ms", ms), ("message.timestamp.type", time)]))
        };
        assert_eq!(day("delete", "1000", "CreateTime"), Some(Duration::from_secs(1)));
        assert_eq!(day("compact,delete", "1000", "CreateTime"), Some(Duration::from_secs(1)));
        assert_eq!(day("delete", "-1", "CreateTime"), None);
        assert_eq!(day("compact", "1000", "CreateTime"), None);
        assert_eq!(day("delete", "1000", "LogAppendTime"), None);

        let retention =
            |is_the_sources| Retention { keeps: Some(Duration::from_hours(1)), is_the_sources, seen: BTreeSet::new() };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_millis();
        let now = i64::try_from(now).expect("it is sooner");
        let mut asked = retention(false);
        assert!(asked.look("t", 0, Some(now)).is_ok() && asked.look("t", 1, None).is_ok());
        let failure = asked.look("t", 1, Some(0)).expect_err("it is old");
        assert_eq!(failure.code(), Code::TopicUnfit);
        assert!(failure.found().contains("retention.ms"), "{}", failure.found());
        assert!(retention(true).look("t", 0, Some(0)).is_ok());
        assert!(Retention::unasked().look("t", 0, Some(0)).is_ok());
    }

    #[test]
    fn a_target_without_what_was_written_is_refused() {
        let there = |ends| Some(There { partitions: 1, ends });
        for (there, written, is_done, is_good) in [
            (None, 0, false, true),
            (None, 1, false, false),
            (None, 0, true, false),
            (there(0), 0, true, true),
            (there(9), 10, true, false),
            (there(10), 10, true, true),
        ] {
            assert_eq!(refuse_lost("t", there.as_ref(), written, is_done).is_ok(), is_good, "{written}");
        }
    }

    #[test]
    fn a_target_that_others_have_written_to_is_refused() {
        for (ends, is_good) in [(None, true), (Some(0), true), (Some(1), false)] {
            let there = ends.map(|ends| There { partitions: 1, ends });
            assert_eq!(refuse_used("t", there.as_ref()).is_ok(), is_good, "{ends:?}");
        }
    }
}
