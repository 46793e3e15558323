//! Topics that are made sure of before the first record: whose they are, that they are there, and as what they are created.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use encoder::TableFacts;
use futures_util::StreamExt;
use pgoutput::{Relation, ReplicaIdentity};
use publisher::{PublishError, TopicSettings};
use tokio::task::spawn_blocking;
use tracing::{debug, info, warn};

use super::Relations;
use crate::{
    config::OnIncompatible,
    failure::{Code, Failure},
    pipeline::{
        letters,
        membership::{self, identify},
        publish::failure_of,
        topics::{Owners, owners, publishable},
    },
};

/// How many tables' schemas are registered at a time.
const REGISTRATIONS_AT_A_TIME: usize = 8;

/// What is known of topics in a session, by the stream and by copies together: what one of them has made sure of, the other needs not.
#[derive(Default)]
pub(in crate::pipeline) struct SessionTopics {
    /// Those that were there when the session began, and how many partitions they had.
    existing: BTreeMap<String, usize>,
    /// Those that were made sure of, and whether they were created for it.
    ready: Mutex<BTreeMap<String, bool>>,
    /// Those of the tables that were published when this was last looked at.
    owners: Mutex<Option<Arc<Owners>>>,
}

impl SessionTopics {
    pub(in crate::pipeline) fn new(existing: BTreeMap<String, usize>) -> Self {
        Self { existing, ..Self::default() }
    }

    /// How many partitions a topic had when the session began, if it was there.
    pub(in crate::pipeline) fn partitions(&self, topic: &str) -> Option<usize> {
        self.existing.get(topic).copied()
    }

    /// Whether the topic was created, if it was made sure of.
    fn made(&self, topic: &str) -> Option<bool> {
        lock(&self.ready).get(topic).copied()
    }

    fn make(&self, topic: &str, is_created: bool) {
        lock(&self.ready).insert(topic.to_owned(), is_created);
    }

    fn owners(&self) -> Option<Arc<Owners>> {
        lock(&self.owners).clone()
    }

    pub(super) fn note_owners(&self, owners: Owners) -> Arc<Owners> {
        Arc::clone(lock(&self.owners).insert(Arc::new(owners)))
    }
}

/// It is whole after every statement, so that a panic elsewhere leaves nothing broken.
fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a topic is for.
#[derive(Debug, Clone, Copy)]
pub(in crate::pipeline) enum TopicKind {
    OfTable {
        /// As many as others have, if none.
        partitions: Option<i32>,
    },
    /// Of transactions, or of messages: several records have one key.
    Beside,
    /// They have no key, and in one partition they keep their order.
    OfDeadLetters {
        /// Whether they are to be there for as long as nobody has released them.
        are_kept: bool,
    },
}

impl Relations {
    /// Kafka's names hold less than PostgreSQL's, and routes can bring tables together, so that two of them can come to one topic. Their keys
    /// would then overwrite each other. A topic of dead letters is a table's as well.
    pub(in crate::pipeline) async fn refuse_shared_topic(
        &mut self,
        topic: &str,
        relation: &Relation,
    ) -> Result<(), Failure> {
        let refuse = |found: String| Err(Failure::new(Code::SchemaUnrepresentable, found).for_topic(topic));
        // A table that was dropped and created again goes on where it was.
        let name = format!("{}.{}", relation.schema, relation.name);
        let is_same = |table: &str| table == name;
        if let Some(purpose) = self.side_topics.purpose(topic) {
            return refuse(format!("it would be {purpose}"));
        }
        // A table of which nothing has come yet in this session may have written to it before. And one that is known may be gone: its topic is free, as
        // it is after a start that has never known it.
        let owners = if let Some(owners) = self.session_topics.owners().filter(|owners| owners.has(relation.id)) {
            owners
        } else {
            let owners = self.topic_owners().await?;
            self.session_topics.note_owners(owners)
        };
        for (oid, table) in self.known.of_topic(topic) {
            if oid != relation.id && owners.has(oid) && !is_same(table) {
                return refuse(format!("the topic is that of table {table} already"));
            }
        }
        match owners.of_topic(topic).find(|(oid, owner)| *oid != relation.id && !is_same(&owner.table)) {
            Some((_, owner)) => refuse(format!("the topic is that of table {} too", owner.table)),
            None => Ok(()),
        }
    }

    /// The topics of the tables that are asked for and published now. One that is asked for and left out, by whoever manages the publication,
    /// does not count: it is asked about when it is put in.
    pub(in crate::pipeline) async fn topic_owners(&mut self) -> Result<Owners, Failure> {
        let matched = self.matching_tables().await?;
        let held = self.catalog.held_tables(&self.publication, &publishable(&matched)).await?;
        let owners = owners(&self.shaping, &matched, membership::publishes_leaves(&self.scope), Some(&held));
        Ok(Owners::new(owners))
    }

    /// The topic of a relation, if it is asked for.
    pub(in crate::pipeline) async fn topic_of(&mut self, relation: &Relation) -> Result<Option<String>, Failure> {
        let identity = identify(&mut self.catalog, &self.selection, &self.scope, relation).await?;
        let topic = identity.and_then(|identity| self.shaping.topic(&identity));
        Ok(topic.map(|topic| encoder::legal_topic(&topic)))
    }

    /// Makes sure of a topic. Returns whether it was created for that, in this session.
    pub(in crate::pipeline) async fn ensure_topic(&mut self, topic: &str, kind: TopicKind) -> Result<bool, Failure> {
        if let Some(is_created) = self.session_topics.made(topic) {
            return Ok(is_created);
        }
        let (admin, name, settings) = (Arc::clone(&self.topics), topic.to_owned(), self.settings_of(kind));
        let is_of_letters = matches!(kind, TopicKind::OfDeadLetters { .. });
        // Most tables never have a letter, and what is said of tables in quarantine tells where letters are missing.
        let may_have_lost_records = self.is_resumed && !is_of_letters;
        let (partitions, max_bytes) = (self.session_topics.partitions(topic), self.letter_max_bytes);
        let is_empty = spawn_blocking(move || match (partitions, kind) {
            (Some(partitions), _) => Ok(may_have_lost_records && admin.is_unwritten(&name, partitions)?),
            (None, TopicKind::OfDeadLetters { are_kept }) => {
                letters::create(&admin, &name, &settings, are_kept, max_bytes)
            }
            (None, _) => admin.create(&name, &settings),
        })
        .await
        .map_err(|error| Failure::caused(Code::Internal, error))?
        .map_err(|error| failure_of(&error, Duration::ZERO, Duration::MAX).for_topic(topic))?;
        let is_created = is_empty && partitions.is_none();
        if is_empty {
            tell_of_empty(topic, is_created, may_have_lost_records);
        }
        self.session_topics.make(topic, is_created);
        Ok(is_created)
    }

    /// What a topic is to be created with.
    fn settings_of(&self, kind: TopicKind) -> TopicSettings {
        let mut settings = self.topic_settings.clone();
        match kind {
            TopicKind::OfTable { partitions } => settings.partitions = partitions.unwrap_or(settings.partitions),
            TopicKind::Beside => settings.keep_all(),
            TopicKind::OfDeadLetters { .. } => {}
        }
        settings
    }

    /// Creates those of these topics that are missing, with one request. One that cannot be created so is left to
    /// [`ensure_topic`](Self::ensure_topic), which tries by itself and says why not.
    async fn create_ahead(&self, topics: &[(Arc<str>, TopicKind)]) {
        let is_missing =
            |topic: &str| self.session_topics.made(topic).is_none() && self.session_topics.partitions(topic).is_none();
        let missing = topics.iter().filter(|(topic, _)| is_missing(topic)).map(|(topic, kind)| {
            let mut settings = self.settings_of(*kind);
            if let TopicKind::OfDeadLetters { are_kept } = kind {
                settings = letters::wanted(&settings, *are_kept, self.letter_max_bytes);
            }
            (Arc::clone(topic), *kind, settings)
        });
        let missing: Vec<_> = missing.collect();
        if missing.is_empty() {
            return;
        }
        let admin = Arc::clone(&self.topics);
        let created = spawn_blocking(move || {
            let wanted: Vec<_> = missing.iter().map(|(topic, _, settings)| (&**topic, settings)).collect();
            let outcomes = admin.create_all(&wanted)?;
            Ok::<_, PublishError>(missing.into_iter().zip(outcomes).collect::<Vec<_>>())
        })
        .await;
        match created {
            Ok(Ok(created)) => {
                for ((topic, kind, _), outcome) in created {
                    match outcome {
                        Ok(is_created) => {
                            let may_have_lost_records =
                                self.is_resumed && !matches!(kind, TopicKind::OfDeadLetters { .. });
                            if is_created {
                                tell_of_empty(&topic, is_created, may_have_lost_records);
                            }
                            self.session_topics.make(&topic, is_created);
                        }
                        Err(error) => debug!(%topic, %error, "the topic was not created with others"),
                    }
                }
            }
            Ok(Err(error)) => debug!(%error, "topics were not created together"),
            Err(error) => debug!(%error, "topics were not created together"),
        }
    }

    /// Makes ready what tables will need that are about to be learnt: their topics with one request, and their schemas several at a time, since
    /// each by itself is waited for. Whatever is wrong with one is left to its own turn, which finds the same and says so.
    pub(in crate::pipeline) async fn prepare_ahead(&mut self, tables: &[(Relation, TableFacts)]) {
        let (mut topics, mut schemas) = (Vec::new(), Vec::new());
        for (relation, facts) in tables {
            let Ok(Some(identity)) = identify(&mut self.catalog, &self.selection, &self.scope, relation).await else {
                continue;
            };
            if self.shaping.doubt(&identity).is_some() {
                continue;
            }
            let Ok(plan) = self.shaping.plan(relation, &identity, facts, &self.naming) else { continue };
            let mut its =
                vec![(Arc::clone(plan.topic()), TopicKind::OfTable { partitions: self.shaping.partitions(&identity) })];
            if let Some(letters) = plan.dead_letter_topic() {
                let are_kept = self.shaping.on_incompatible(&identity) == OnIncompatible::Quarantine;
                its.push((Arc::clone(letters), TopicKind::OfDeadLetters { are_kept }));
            }
            let mut is_refused = self.holds_back(plan.topic(), relation);
            for (topic, _) in &its {
                is_refused |= self.refuse_shared_topic(topic, relation).await.is_err();
            }
            if is_refused {
                continue;
            }
            topics.append(&mut its);
            // What its key is, is for its own turn to find out.
            if relation.replica_identity != ReplicaIdentity::Full {
                let of_table = [("key", plan.key_schema()), ("value", plan.value_schema())];
                let of_table = of_table
                    .into_iter()
                    .filter_map(|(part, schema)| Some((format!("{}-{part}", plan.topic()), schema?.json().to_owned())));
                schemas.push(of_table.collect::<Vec<_>>());
            }
        }
        self.create_ahead(&topics).await;
        let registry = &self.schemas;
        let register = |schemas: Vec<(String, String)>| async move {
            for (subject, schema) in schemas {
                if registry.register(&subject, &schema).await.is_err() {
                    return;
                }
            }
        };
        futures_util::stream::iter(schemas).for_each_concurrent(REGISTRATIONS_AT_A_TIME, register).await;
    }
}

fn tell_of_empty(topic: &str, is_created: bool, may_have_lost_records: bool) {
    if may_have_lost_records {
        warn!(
            topic,
            "{}: if it held records before, they are gone, and the stream does not bring them back",
            if is_created { "created the topic" } else { "nothing was ever written to the topic" }
        );
    } else {
        info!(topic, "created the topic");
    }
}
