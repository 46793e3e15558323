//! The topics of letters. They are the only copy of what they hold, so that a table comes into quarantine only where they are kept for as
//! long as nobody has released them.

use std::collections::BTreeMap;

use publisher::{PublishError, TopicAdmin};
use tracing::info;

/// What keeps records for ever, however many there are.
pub(crate) const FOREVER: [(&str, &str); 2] = [("retention.ms", "-1"), ("retention.bytes", "-1")];
/// What keeps them at all, though they have no key.
const POLICY: (&str, &str) = ("cleanup.policy", "delete");

/// What of a topic's configuration does not keep letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unkept {
    /// Keys that let records go, with their values.
    finite: Vec<(&'static str, String)>,
    /// A policy that refuses records without a key.
    policy: Option<String>,
}

impl Unkept {
    /// What there is. What the brokers do not tell keeps nothing.
    pub(crate) fn of(config: &BTreeMap<String, String>) -> Self {
        let value = |key: &str| config.get(key).map_or("unknown", |value| value.trim());
        let finite = FOREVER.into_iter().filter(|(key, forever)| value(key) != *forever);
        let policy = config.get(POLICY.0).filter(|policy| policy.split(',').any(|one| one.trim() == "compact"));
        Self { finite: finite.map(|(key, _)| (key, value(key).to_owned())).collect(), policy: policy.cloned() }
    }

    /// Whether all letters are kept.
    pub(crate) fn is_nothing(&self) -> bool {
        self.finite.is_empty() && self.policy.is_none()
    }

    /// What it is, in words.
    pub(crate) fn found(&self) -> String {
        let policy = self.policy.as_ref().map(|policy| (POLICY.0, policy.as_str()));
        let finite = self.finite.iter().map(|(key, value)| (*key, value.as_str()));
        let found: Vec<String> =
            policy.into_iter().chain(finite).map(|(key, value)| format!("{key} is {value}")).collect();
        found.join(" and ")
    }

    /// The command that mends it.
    pub(crate) fn fix(&self, topic: &str) -> String {
        let policy = self.policy.as_ref().map(|_| POLICY);
        let wanted = policy.into_iter().chain(FOREVER).map(|(key, value)| format!("{key}={value}"));
        let wanted: Vec<String> = wanted.collect();
        format!("kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config {}", wanted.join(","))
    }
}

/// How a topic of letters is created, beside what the configuration says of all topics.
pub(super) fn kept() -> impl Iterator<Item = (String, String)> {
    FOREVER.into_iter().chain([POLICY]).map(|(key, value)| (key.to_owned(), value.to_owned()))
}

/// Has a topic that exists keep its records for ever, as far as it does not. Returns what is in the way, if anything is. `is_ours` is
/// whether it was created so, for those who may not look.
///
/// # Errors
/// It cannot be looked at for now.
pub(super) fn keep(admin: &TopicAdmin, topic: &str, is_ours: bool) -> Result<Option<String>, PublishError> {
    let unkept = match admin.config(topic) {
        Ok(config) => Unkept::of(&config),
        Err(error) if error.is_unauthorized() && is_ours => return Ok(None),
        // Setting it may be allowed.
        Err(error) if error.is_unauthorized() => Unkept::of(&BTreeMap::new()),
        Err(error) => return Err(error),
    };
    if unkept.policy.is_some() {
        let (found, fix) = (unkept.found(), unkept.fix(topic));
        return Ok(Some(format!("its topic of dead letters would not keep them: {found}; run: {fix}")));
    }
    if unkept.is_nothing() {
        return Ok(None);
    }
    match admin.configure(topic, &FOREVER) {
        Ok(()) => {
            info!(
                topic,
                "set retention.ms and retention.bytes of the topic to -1, for the letters of a table in quarantine: {} before",
                unkept.found()
            );
            Ok(None)
        }
        Err(error) => Ok(Some(format!(
            "its topic of dead letters would not keep them: {}, and {error}; grant ALTER_CONFIGS and DESCRIBE_CONFIGS on it, or run: {}",
            unkept.found(),
            unkept.fix(topic)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unkept(config: &[(&str, &str)]) -> Unkept {
        Unkept::of(&config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn what_does_not_keep_letters_is_named() {
        const FINITE_MS: (&str, &str) = ("retention.ms", "604800000");
        const NO_MS: (&str, &str) = ("retention.ms", "-1");
        const NO_BYTES: (&str, &str) = ("retention.bytes", "-1");
        for (config, expect) in [
            (&[NO_MS, NO_BYTES, ("cleanup.policy", "delete")][..], ""),
            (&[NO_MS, NO_BYTES], ""),
            (&[FINITE_MS, NO_BYTES], "retention.ms is 604800000"),
            (&[NO_MS, ("retention.bytes", "10")], "retention.bytes is 10"),
            (&[], "retention.ms is unknown and retention.bytes is unknown"),
            (&[NO_MS, NO_BYTES, ("cleanup.policy", "compact,delete")], "cleanup.policy is compact,delete"),
            (
                &[FINITE_MS, NO_BYTES, ("cleanup.policy", "compact")],
                "cleanup.policy is compact and retention.ms is 604800000",
            ),
        ] {
            let unkept = unkept(config);
            assert_eq!((unkept.found().as_str(), unkept.is_nothing()), (expect, expect.is_empty()), "{config:?}");
        }
        let fix = unkept(&[("cleanup.policy", "compact")]).fix("letters");
        assert!(
            fix.ends_with(
                "--entity-name letters --add-config cleanup.policy=delete,retention.ms=-1,retention.bytes=-1"
            ),
            "{fix}"
        );
    }

    #[test]
    fn a_topic_of_letters_is_created_so_that_it_keeps_them() {
        assert!(Unkept::of(&kept().collect()).is_nothing());
    }
}
