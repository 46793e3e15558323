//! The topics of letters. They are the only copy of what they hold, so that a table comes into quarantine only where they are kept for as
//! long as nobody has released them.

use std::collections::BTreeMap;

use publisher::{PublishError, TopicAdmin, TopicSettings};
use tracing::{info, warn};

/// What keeps records for ever, however many there are.
pub(crate) const FOREVER: [(&str, &str); 2] = [("retention.ms", "-1"), ("retention.bytes", "-1")];
/// What keeps them at all, though they have no key.
const POLICY: (&str, &str) = ("cleanup.policy", "delete");
/// How large its records may be, as they are sent.
pub(crate) const MAX_BYTES: &str = "max.message.bytes";

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

/// What a topic of dead letters is to be created with: in one partition they are in order, and they may be larger than records.
pub(super) fn fit(settings: &mut TopicSettings, are_kept: bool, max_bytes: usize) {
    settings.keep_all();
    settings.partitions = 1;
    let configured = settings.config.get(MAX_BYTES).and_then(|text| text.parse().ok());
    settings.config.insert(MAX_BYTES.to_owned(), configured.unwrap_or(0).max(max_bytes).to_string());
    if are_kept {
        let kept = FOREVER.into_iter().chain([POLICY]);
        settings.config.extend(kept.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}

/// Creates a topic of dead letters. Brokers that do not take records of that size still take letters as large as they do.
///
/// # Errors
/// As for [`TopicAdmin::create`].
pub(super) fn create(admin: &TopicAdmin, topic: &str, mut settings: TopicSettings) -> Result<bool, PublishError> {
    match admin.create(topic, &settings) {
        Err(PublishError::Topic { problem, .. }) => {
            settings.config.remove(MAX_BYTES);
            let is_created = admin.create(topic, &settings)?;
            warn!(topic, "{problem}; it was created without {MAX_BYTES}, and a larger letter will stop the stream");
            Ok(is_created)
        }
        outcome => outcome,
    }
}

/// What a topic of letters has to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keeping {
    /// Whether it was created so, for those who may not look.
    pub(super) is_ours: bool,
    /// How large a letter may be.
    pub(super) max_bytes: usize,
}

/// Has a topic that exists keep its records for ever and take larger ones, as far as it does not. Returns what is in the way of the first, if
/// anything is: a letter that is too large stops the stream with everything kept.
///
/// # Errors
/// It cannot be looked at for now.
pub(super) fn keep(admin: &TopicAdmin, topic: &str, wanted: Keeping) -> Result<Option<String>, PublishError> {
    let config = match admin.config(topic) {
        Ok(config) => Some(config),
        Err(error) if error.is_unauthorized() && wanted.is_ours => return Ok(None),
        // Setting it may be allowed.
        Err(error) if error.is_unauthorized() => None,
        Err(error) => return Err(error),
    };
    let unkept = config.as_ref().map_or_else(|| Unkept::of(&BTreeMap::new()), Unkept::of);
    if unkept.policy.is_some() {
        let (found, fix) = (unkept.found(), unkept.fix(topic));
        return Ok(Some(format!("its topic of dead letters would not keep them: {found}; run: {fix}")));
    }
    if !unkept.is_nothing() {
        let found = unkept.found();
        if let Err(error) = admin.configure(topic, &FOREVER) {
            return Ok(Some(format!(
                "its topic of dead letters would not keep them: {found}, and {error}; grant ALTER_CONFIGS and DESCRIBE_CONFIGS on it, or run: {}",
                unkept.fix(topic)
            )));
        }
        info!(
            topic,
            "set the topic's retention.ms and retention.bytes to -1 for the letters of a table in quarantine: {found} before"
        );
    }
    // A limit that is not known may be larger already.
    if let Some(problem) = config.and_then(|config| too_small(&config, wanted.max_bytes)) {
        let value = wanted.max_bytes.to_string();
        match admin.configure(topic, &[(MAX_BYTES, &value)]) {
            Ok(()) => info!(
                topic,
                "set the topic's {MAX_BYTES} to {value} for the letters of a table in quarantine: {problem} before"
            ),
            Err(error) => warn!(topic, "{problem}, and {error}: a larger letter will stop the stream"),
        }
    }
    Ok(None)
}

/// The size that a topic takes, if it is smaller than letters may be, in words. What the brokers do not tell may be too small.
pub(crate) fn too_small(config: &BTreeMap<String, String>, max_bytes: usize) -> Option<String> {
    let value = config.get(MAX_BYTES);
    let is_enough = value.and_then(|value| value.parse().ok()).is_some_and(|value: usize| value >= max_bytes);
    (!is_enough).then(|| format!("{MAX_BYTES} is {}", value.map_or("unknown", String::as_str)))
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
        let settings = |config: &[(&str, &str)]| TopicSettings {
            partitions: 6,
            replication_factor: 3,
            config: config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        };
        let mut kept = settings(&[("cleanup.policy", "compact"), ("retention.ms", "1"), (MAX_BYTES, "7")]);
        fit(&mut kept, true, 10);
        assert!(Unkept::of(&kept.config).is_nothing() && kept.partitions == 1, "{kept:?}");
        assert_eq!(
            (too_small(&kept.config, 10), too_small(&kept.config, 11)),
            (None, Some(format!("{MAX_BYTES} is 10")))
        );
        assert!(too_small(&BTreeMap::new(), 1).is_some());

        let mut others = settings(&[("cleanup.policy", "compact"), ("retention.ms", "1"), (MAX_BYTES, "70")]);
        fit(&mut others, false, 10);
        assert_eq!(others.config, settings(&[("retention.ms", "1"), (MAX_BYTES, "70")]).config);
    }
}
