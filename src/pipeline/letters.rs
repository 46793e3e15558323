//! The topics of letters. They are the only copy of what they hold, so that a table comes into quarantine only where they are kept for as
//! long as nobody has released them.

use std::{collections::BTreeMap, time::Duration};

use publisher::{Isolation, KafkaSettings, LogReader, PublishError, TopicAdmin, TopicSettings};
use tracing::{info, warn};

use crate::quarantine::{Missing, Quarantined};

/// How long the newest letter may take to be readable: the mark of its commit comes a moment later.
const NEWEST_TIMEOUT: Duration = Duration::from_secs(30);

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
    pub(crate) fn fix(&self, bootstrap_servers: &str, topic: &str) -> String {
        let policy = self.policy.as_ref().map(|_| POLICY);
        let wanted = policy.into_iter().chain(FOREVER).map(|(key, value)| format!("{key}={value}"));
        let wanted: Vec<String> = wanted.collect();
        configure_command(bootstrap_servers, topic, &wanted.join(","))
    }
}

/// The command that sets a topic's configuration.
pub(crate) fn configure_command(bootstrap_servers: &str, topic: &str, config: &str) -> String {
    format!(
        "kafka-configs.sh --bootstrap-server {bootstrap_servers} --alter --entity-type topics --entity-name {topic} --add-config {config}"
    )
}

/// What a topic of dead letters is to be created with, from what is wanted to what any broker takes that takes the user's topics: in one partition
/// they are in order; they may be larger than records, or as large as the user's; and the last of several does not keep them for ever.
fn forms(user: &TopicSettings, are_kept: bool, max_bytes: usize) -> Vec<TopicSettings> {
    let mut plain = user.clone();
    plain.keep_all();
    plain.partitions = 1;
    let with = |settings: &TopicSettings, more: &[(&str, &str)]| {
        let more = more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let config = settings.config.clone().into_iter().chain(more).collect();
        TopicSettings { config, ..settings.clone() }
    };
    let configured = plain.config.get(MAX_BYTES).and_then(|text| text.parse().ok());
    let size = configured.unwrap_or(0).max(max_bytes).to_string();
    let own_size = if are_kept { with(&plain, &[FOREVER[0], FOREVER[1], POLICY]) } else { plain.clone() };
    let mut forms = vec![with(&own_size, &[(MAX_BYTES, &size)]), own_size];
    if are_kept {
        forms.push(with(&plain, &[POLICY]));
    }
    forms
}

/// What a topic of dead letters is to be created with, where brokers take that.
pub(super) fn wanted(user: &TopicSettings, are_kept: bool, max_bytes: usize) -> TopicSettings {
    forms(user, are_kept, max_bytes).swap_remove(0)
}

/// Creates a topic of dead letters. Brokers whose policy does not let it be as it should be create it as they do others: a larger letter stops the stream
/// then, and a table comes into quarantine once the topic [keeps](keep) letters. Whether it was created by this call and keeps letters is
/// returned.
///
/// # Errors
/// As for [`TopicAdmin::create`].
pub(super) fn create(
    admin: &TopicAdmin,
    topic: &str,
    user: &TopicSettings,
    are_kept: bool,
    max_bytes: usize,
) -> Result<bool, PublishError> {
    let mut refused = None;
    for form in forms(user, are_kept, max_bytes) {
        match admin.create(topic, &form) {
            Err(error @ PublishError::Topic { .. }) => {
                refused.get_or_insert(error);
            }
            Err(error) => return Err(error),
            Ok(is_created) => {
                let Some(error) = refused.filter(|_| is_created) else { return Ok(is_created) };
                let is_kept = !are_kept || Unkept::of(&form.config).is_nothing();
                let lacks = if is_kept { "" } else { ", and without the retention that keeps letters" };
                warn!(
                    topic,
                    "{error}; it was created without {MAX_BYTES} of {max_bytes}{lacks}: a larger letter will stop the stream"
                );
                return Ok(is_kept);
            }
        }
    }
    Err(refused.unwrap_or_else(|| PublishError::Topic { topic: topic.to_owned(), problem: "it has no form".into() }))
}

/// What there is of a table's letters.
pub(crate) struct Found {
    /// The offsets of the first record and behind the last one, if there is such a topic.
    pub(crate) bounds: Option<(i64, i64)>,
    /// What is missing of the letters that are not released, if anything is.
    pub(crate) missing: Option<Missing>,
}

/// Looks for the letters of a table that are not released. A topic that was made anew may end behind the newest of them all the same, when what was to
/// be written to it was given up. So the newest one has to be there itself.
///
/// # Errors
/// It cannot be looked at: nothing is known then of what is there.
pub(crate) fn look_for(
    settings: &KafkaSettings,
    entry: &Quarantined,
    isolation: Isolation,
) -> Result<Found, PublishError> {
    let bounds = LogReader::new(settings, entry.letters.as_str(), isolation).bounds_if_there()?;
    let mut missing = entry.missing(bounds);
    let may_be_there = !matches!(missing, Some(Missing::Topic(_)));
    if let (true, Some(offset)) = (may_be_there, entry.newest_letter()) {
        let mut reader = LogReader::new(settings, entry.letters.as_str(), Isolation::Committed).starting_at(offset);
        if !reader.has_next(NEWEST_TIMEOUT)? {
            let found = format!("the newest dead letter, at offset {offset}, is not in the topic, which was made anew");
            missing = Some(Missing::Topic(found));
        }
    }
    Ok(Found { bounds, missing })
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
        let (found, fix) = (unkept.found(), unkept.fix(&admin.settings().bootstrap_servers, topic));
        return Ok(Some(format!("its topic of dead letters would not keep them: {found}; run: {fix}")));
    }
    if !unkept.is_nothing() {
        let found = unkept.found();
        if let Err(error) = admin.configure(topic, &FOREVER) {
            return Ok(Some(format!(
                "its topic of dead letters would not keep them: {found}, and {error}; grant ALTER_CONFIGS and DESCRIBE_CONFIGS on it, or run: {}",
                unkept.fix(&admin.settings().bootstrap_servers, topic)
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
        let fix = unkept(&[("cleanup.policy", "compact")]).fix("kafka:9092", "letters");
        assert!(
            fix.ends_with(
                "--bootstrap-server kafka:9092 --alter --entity-type topics --entity-name letters --add-config cleanup.policy=delete,retention.ms=-1,retention.bytes=-1"
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
        let user = settings(&[("cleanup.policy", "compact"), ("retention.ms", "1"), (MAX_BYTES, "7"), ("x", "y")]);
        let [kept, own_size, last] = &forms(&user, true, 10)[..] else { panic!("three forms") };
        assert!(Unkept::of(&kept.config).is_nothing() && kept.partitions == 1, "{kept:?}");
        assert_eq!(
            (too_small(&kept.config, 10), too_small(&kept.config, 11)),
            (None, Some(format!("{MAX_BYTES} is 10")))
        );
        assert!(too_small(&BTreeMap::new(), 1).is_some());
        // Where brokers refuse that, the user's own size comes before their own retention, and what else they set stays.
        assert!(Unkept::of(&own_size.config).is_nothing(), "{own_size:?}");
        assert_eq!(own_size.config[MAX_BYTES], "7");
        let policy = ("cleanup.policy", "delete");
        assert_eq!(last.config, settings(&[policy, ("retention.ms", "1"), (MAX_BYTES, "7"), ("x", "y")]).config);
        assert_eq!((own_size.partitions, last.partitions, last.replication_factor), (1, 1, 3));

        let others = settings(&[("cleanup.policy", "compact"), ("retention.ms", "1"), (MAX_BYTES, "70")]);
        let plain = settings(&[("retention.ms", "1"), (MAX_BYTES, "70")]).config;
        let forms: Vec<_> = forms(&others, false, 10).into_iter().map(|form| form.config).collect();
        assert_eq!(forms, [plain.clone(), plain]);
    }
}
