//! Which topic is for what. Records of different kinds in one topic could not be told apart, and those of two tables could have one key.

use std::{collections::BTreeSet, fmt};

use encoder::{HeartbeatTopic, Naming};
use pgoutput::Oid;
use rustc_hash::FxHashMap;

use crate::{
    catalog::{MatchedTable, PublishedTable},
    config::{Config, SchemaRegistry, Shaping, TableIdentity, TopicName},
};

/// The topics that are for no table.
#[derive(Debug, Clone)]
pub(crate) struct SideTopics(Vec<(String, Purpose)>);

/// What a topic is for that is no table's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Checkpoints,
    Schemas,
    Transactions,
    Messages,
    Heartbeats,
    Signals,
    Notifications,
}

impl SideTopics {
    /// What the configuration says.
    pub(crate) fn new(config: &Config) -> Self {
        // None of these names has the database in it.
        let naming = Naming::new(config.name.as_str(), "");
        let metadata = &config.metadata;
        let mut topics = vec![(config.kafka.checkpoint_topic.as_str().to_owned(), Purpose::Checkpoints)];
        if let SchemaRegistry::BuiltIn { topic } = &config.schema_registry {
            topics.push((topic.as_str().to_owned(), Purpose::Schemas));
        }
        if metadata.transaction_topic {
            topics.push((naming.transaction_topic(), Purpose::Transactions));
        }
        if metadata.messages {
            topics.push((naming.message_topic(), Purpose::Messages));
        }
        let name = metadata.heartbeat_topic.as_ref().map(TopicName::as_str);
        if metadata.heartbeat_interval.is_some()
            && let Ok(heartbeats) = HeartbeatTopic::new(&naming, name, config.events.format)
        {
            topics.push((heartbeats.topic().to_string(), Purpose::Heartbeats));
        }
        let named = |topic: &Option<TopicName>| topic.as_ref().map(|topic| topic.as_str().to_owned());
        topics.extend(named(&config.snapshot.signal_topic).map(|topic| (topic, Purpose::Signals)));
        topics.extend(named(&config.snapshot.notification_topic).map(|topic| (topic, Purpose::Notifications)));
        Self(topics)
    }

    /// What the topic is for, if it is for no table.
    pub(crate) fn purpose(&self, topic: &str) -> Option<Purpose> {
        self.0.iter().find(|(other, _)| other == topic).map(|(_, purpose)| *purpose)
    }
}

impl Purpose {
    /// Whether nothing else that is written may go there either.
    pub(super) fn is_own(self) -> bool {
        matches!(self, Self::Checkpoints | Self::Schemas | Self::Signals)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checkpoints => "the checkpoint topic",
            Self::Schemas => "the topic of schemas",
            Self::Transactions => "the topic of transactions",
            Self::Messages => "the topic of logical decoding messages",
            Self::Heartbeats => "the topic of heartbeats",
            Self::Signals => "the topic of signals",
            Self::Notifications => "the topic of notifications",
        })
    }
}

/// A relation of the stream that has topics.
pub(super) struct TopicOwner {
    /// What was asked for: the relation, or what it is a partition of.
    pub(super) root: PublishedTable,
    /// `schema.table`: the relation. A table that was dropped and created again goes on where it was, so that it is known by its name.
    pub(super) table: String,
    /// Its topic, and that of its dead letters if there are to be any.
    pub(super) topics: Vec<String>,
}

/// Relations that have topics, and which of them a topic is of.
#[derive(Default)]
pub(super) struct Owners {
    by_oid: FxHashMap<Oid, TopicOwner>,
    by_topic: FxHashMap<String, Vec<Oid>>,
}

impl Owners {
    pub(super) fn new(by_oid: FxHashMap<Oid, TopicOwner>) -> Self {
        let mut by_topic: FxHashMap<String, Vec<Oid>> = FxHashMap::default();
        for (oid, owner) in &by_oid {
            for topic in &owner.topics {
                by_topic.entry(topic.clone()).or_default().push(*oid);
            }
        }
        Self { by_oid, by_topic }
    }

    pub(super) fn has(&self, oid: Oid) -> bool {
        self.by_oid.contains_key(&oid)
    }

    pub(super) fn of_topic(&self, topic: &str) -> impl Iterator<Item = (Oid, &TopicOwner)> {
        let oids = self.by_topic.get(topic).into_iter().flatten();
        oids.filter_map(|oid| Some((*oid, self.by_oid.get(oid)?)))
    }
}

/// The topics of tables. What is asked for and not published writes to none, so that it can keep nobody from writing to one.
///
/// Of a publication that is not managed `held` is what it holds ([`Catalog::held_tables`](crate::catalog::Catalog::held_tables)); in a managed
/// one is, or is about to be, whatever is matched.
pub(super) fn owners(
    shaping: &Shaping,
    matched: &[MatchedTable],
    publishes_leaves: bool,
    held: Option<&BTreeSet<Oid>>,
) -> FxHashMap<Oid, TopicOwner> {
    let of_table = |matched: &MatchedTable| {
        let root = matched.table.clone();
        streamed_relations(matched, publishes_leaves, held).into_iter().map(move |(oid, identity)| {
            let table = identity.names.first().map(|(schema, name)| format!("{schema}.{name}")).unwrap_or_default();
            (oid, TopicOwner { root: root.clone(), table, topics: shaping.topics(&identity) })
        })
    };
    matched.iter().flat_map(of_table).collect()
}

/// The relations under whose names rows of a table come, of what is published. Where a root is not, and some of its leaves are, their rows come
/// under their own names.
fn streamed_relations(
    matched: &MatchedTable,
    publishes_leaves: bool,
    held: Option<&BTreeSet<Oid>>,
) -> Vec<(Oid, TableIdentity)> {
    let Some(held) = held else { return matched.relations(publishes_leaves) };
    let mut relations = matched.relations(publishes_leaves || !held.contains(&matched.oid));
    relations.retain(|(oid, _)| held.contains(oid));
    relations
}

/// What may be published of these tables.
pub(crate) fn publishable(matched: &[MatchedTable]) -> Vec<Oid> {
    let of_table = |matched: &MatchedTable| {
        let leaves = matched.leaves.iter().map(|leaf| leaf.oid).collect::<Vec<_>>();
        std::iter::once(matched.oid).chain(leaves)
    };
    matched.iter().flat_map(of_table).collect()
}
