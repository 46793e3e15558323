//! librdkafka properties: passed on verbatim, but for those that the guarantee rests on.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::keys;
use super::problem::Fault;
use super::reader::{Noted, Reader, entry_path};

/// Names and values of properties. Values that may be secret are not printed.
#[derive(Clone, Default)]
pub struct Properties(BTreeMap<String, SecretString>);

impl Properties {
    /// Name and value of each, in the order of the names. The values may be secrets: they are for the client's configuration alone.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.expose_secret()))
    }

    /// The value of one property.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(ExposeSecret::expose_secret)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads `kafka.properties` and `kafka.properties_file`.
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Noted> {
        let given = reader.map(&keys::KAFKA_PROPERTIES);
        let files = reader.map(&keys::KAFKA_PROPERTIES_FILE);
        let (given, files) = (given?, files?);
        let mut outcome = Ok(());
        let mut properties = BTreeMap::new();
        for (name, (place, value)) in &given {
            if let Err(fault) = check_name(name) {
                outcome = Err(reader.note(place.clone(), entry_path(&keys::KAFKA_PROPERTIES, name), fault));
            }
            properties.insert(name.clone(), SecretString::from(value.as_str()));
        }
        for (name, (place, path)) in files {
            let key = entry_path(&keys::KAFKA_PROPERTIES_FILE, &name);
            let other = given.get(&name).map(|(place, _)| place.words());
            let value = match (check_name(&name), other) {
                (Err(fault), _) => Err(reader.note(place, key, fault)),
                (Ok(()), Some(other)) => {
                    let found = format!("{} is given too ({other})", entry_path(&keys::KAFKA_PROPERTIES, &name));
                    Err(reader.note(place, key, Fault::new(found, "give the value in one way only")))
                }
                (Ok(()), None) => reader.read_secret_file(&key, place, Path::new(&path)),
            };
            outcome = outcome.and(value.map(|value| drop(properties.insert(name, value))));
        }
        outcome.map(|()| Self(properties))
    }

    /// Reads `kafka.topics.config`, whose names are the broker's.
    pub(super) fn read_topic_config(reader: &mut Reader) -> Result<BTreeMap<String, String>, Noted> {
        let entries = reader.map(&keys::KAFKA_TOPICS_CONFIG)?;
        Ok(entries.into_iter().map(|(name, (_, value))| (name, value)).collect())
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printed = |(name, value): (&str, &str)| {
            (name.to_owned(), if is_plain(name) { value.to_owned() } else { "***".to_owned() })
        };
        formatter.debug_map().entries(self.iter().map(printed)).finish()
    }
}

/// Whether a value may be printed. The list names what is known to be harmless, so that a property that nobody thought of stays hidden.
fn is_plain(name: &str) -> bool {
    const PREFIXES: &[&str] = &[
        "batch.",
        "compression.",
        "linger.",
        "log.",
        "message.",
        "queue.",
        "queuing.",
        "reconnect.",
        "request.",
        "retry.",
        "socket.",
        "statistics.",
        "transaction.",
    ];
    const NAMES: &[&str] =
        &["client.id", "client.rack", "debug", "log_level", "sasl.mechanism", "sasl.mechanisms", "security.protocol"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Properties that pgsluice sets itself, with the reason. A name that ends in `.` stands for all that start with it.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "it is set from kafka.bootstrap_servers; set that instead"),
    ("metadata.broker.list", "it is another name for bootstrap.servers; set kafka.bootstrap_servers instead"),
    (
        "transactional.id",
        "it is made from name, by which an older instance is fenced; change name instead, and its checkpoint with it",
    ),
    ("enable.idempotence", "it is always on, since exactly once rests on it; leave it out"),
    ("acks", "it is always all, since an acknowledged record must not be lost; leave it out"),
    ("request.required.acks", "it is another name for acks, which is always all; leave it out"),
    (
        "partitioner",
        "it is always murmur2_random, so that a key's events stay in one partition, the one that Java clients choose; leave it out",
    ),
    ("delivery.report.only.error", "every delivery is counted before a commit; leave it out"),
    ("enable.auto.commit", "the checkpoint is read by position, and no group offsets are kept; leave it out"),
    ("enable.auto.offset.store", "the checkpoint is read by position, and no group offsets are kept; leave it out"),
    ("auto.offset.reset", "where the checkpoint is read from is not a choice; leave it out"),
    ("enable.partition.eof", "the end of the checkpoint topic must be seen; leave it out"),
    ("isolation.level", "checkpoints are read with read_committed, as exactly once demands; leave it out"),
    ("group.id", "the checkpoint is read without a group; leave it out"),
    ("group.instance.id", "the checkpoint is read without a group; leave it out"),
    ("group.protocol", "the checkpoint is read without a group; leave it out"),
    (
        "enable.sasl.oauthbearer.unsecure.jwt",
        "a token that nobody has signed proves nothing, and is not renewed; give kafka.oauthbearer_token_file instead",
    ),
    ("test.mock.", "it would publish into a mock cluster that forgets everything; leave it out"),
];

fn check_name(name: &str) -> Result<(), Fault> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Fault::new(
            "found a name that librdkafka cannot have",
            "give a property of librdkafka, such as \"compression.type\"",
        ));
    }
    let is_owned = |owned: &str| if owned.ends_with('.') { name.starts_with(owned) } else { name == owned };
    match OWNED.iter().find(|(owned, _)| is_owned(owned)) {
        Some((_, reason)) => Err(Fault::new("this property is pgsluice's own", *reason)),
        None => Ok(()),
    }
}
