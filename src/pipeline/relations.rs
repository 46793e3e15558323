//! What is known about each relation of the stream, and how it becomes known.
//!
//! A Relation message is the truth about names, types and key columns at its place in the log. What it lacks is looked up; then the
//! plan is compiled, the topic made sure of and the schemas registered, all before the first row. Each step may have to wait, and
//! while it does the stream waits: its connection is kept by the feedback task.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use encoder::{
    BoundHeartbeatTopic, BoundMessageTopic, BoundPlan, BoundTransactionTopic, HeartbeatTopic, MessageTopic, Naming,
    PlanError, Schema, TableFacts, TransactionTopic,
};
use pgoutput::{Oid, Relation, Xid};
use publisher::{TopicAdmin, TopicSettings};
use rustc_hash::FxHashMap;
use tokio::task::spawn_blocking;
use tracing::{info, warn};
use walreceiver::Backoff;

use super::{
    collections::Mark,
    keys::KeyThen,
    letters,
    membership::{self, Scope},
    memory::Memory,
    publish::failure_of,
    topics::{SideTopics, TopicOwner, owners, publishable},
};
use crate::{
    catalog::{Catalog, MatchedTable},
    config::{Metadata, OnIncompatible, Shaping, TableIdentity, TableSelection, TopicName},
    failure::{Code, Failure, Recovery},
    failures,
    metrics::{Metrics, TableMetrics},
    quarantine::Quarantine,
    schemas::Schemas,
    snapshot::RowKey,
};

/// How long a session waits for the schema registry.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The relations that the server has announced since the session began.
pub(super) struct Relations {
    pub(super) catalog: Catalog,
    pub(super) schemas: Schemas,
    pub(super) topics: Arc<TopicAdmin>,
    pub(super) topic_settings: TopicSettings,
    /// How large a dead letter may be.
    pub(super) letter_max_bytes: usize,
    pub(super) side_topics: SideTopics,
    /// Whether the stream was there before this session.
    pub(super) is_resumed: bool,
    /// Whether the stream waits while a schema cannot be registered. A copy does not.
    pub(super) waits: bool,
    pub(super) naming: Naming,
    pub(super) shaping: Shaping,
    pub(super) metadata: Metadata,
    pub(super) selection: TableSelection,
    pub(super) publication: String,
    pub(super) scope: Arc<Mutex<Scope>>,
    /// What the catalog said of each table.
    pub(super) memory: Arc<Mutex<Memory>>,
    pub(super) metrics: Arc<Metrics>,
    /// Topics that were there when the session began, and how many partitions they had.
    pub(super) existing_topics: BTreeMap<String, usize>,
    /// Topics that were made sure of, and whether they were created for it.
    pub(super) ready_topics: BTreeMap<String, bool>,
    /// Bounded by the tables of the publication: the server announces a relation before its first change in a session, and a
    /// table that was dropped stays for as long as the session does.
    pub(super) known: FxHashMap<Oid, Known>,
    /// The tables in quarantine, and whether one has come to it since the list was last handed on.
    pub(super) quarantine: Arc<Mutex<Quarantine>>,
    pub(super) quarantine_has_grown: bool,
    /// The topics of the tables that were published when this was last looked at.
    pub(super) owners: Option<FxHashMap<Oid, TopicOwner>>,
    /// None until it is needed.
    pub(super) transaction_topic: Option<BoundTransactionTopic>,
    /// None until it is needed.
    pub(super) message_topic: Option<BoundMessageTopic>,
}

/// What a topic is for.
pub(super) enum TopicKind {
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

/// A relation.
pub(super) enum Known {
    /// Its changes are wanted.
    Watched(Box<Table>),
    /// The publication holds it, and the configuration does not ask for it.
    Unwatched,
}

/// A relation whose changes are wanted.
pub(super) struct Table {
    pub(super) plan: Arc<BoundPlan>,
    pub(super) metrics: TableMetrics,
    /// Events of this table in the transaction with the number below.
    pub(super) events: u64,
    /// Which transaction [`events`](Self::events) counts in, by its number in the session.
    pub(super) events_of: u64,
    /// `schema.table`
    pub(super) name: Arc<str>,
    /// What tells its rows apart, if anything does.
    pub(super) row_key: Option<RowKey>,
    /// Where the transaction counts the events of that name. It is found anew once the name may be another.
    pub(super) mark: Mark,
    relation: Relation,
    identity: TableIdentity,
    facts: TableFacts,
    /// Which key the plan has, where the stream does not say.
    key_then: Option<KeyThen>,
}

impl Table {
    /// Whether the rows of a transaction have another key than the plan.
    pub(super) fn key_is_replaced(&self, transaction: Xid) -> bool {
        let next = self.key_then.as_ref().and_then(|then| then.next.as_ref());
        next.is_some_and(|next| next.is_there(transaction))
    }
}

impl Table {
    /// As the stream has announced it, or as the catalog has it.
    pub(super) fn relation(&self) -> &Relation {
        &self.relation
    }
}

impl Relations {
    /// The relation of a change.
    pub(super) fn get(&mut self, oid: Oid) -> Result<&mut Known, Failure> {
        self.known.get_mut(&oid).ok_or_else(|| {
            Failure::new(Code::ProtocolViolation, format!("a change of relation {oid}, which was not announced"))
        })
    }

    /// Whether changes of the relation are wanted.
    pub(super) fn is_watched(&self, oid: Oid) -> bool {
        matches!(self.known.get(&oid), Some(Known::Watched(_)))
    }

    /// What tells the rows of a relation apart, if its changes are written and anything does.
    pub(super) fn row_key(&self, oid: Oid) -> Option<&RowKey> {
        match self.known.get(&oid) {
            Some(Known::Watched(table)) if !table.plan.holds_back() => table.row_key.as_ref(),
            _ => None,
        }
    }

    /// The topic of transactions, which is made ready when it is needed first.
    pub(super) async fn transaction_topic(&mut self) -> Result<&BoundTransactionTopic, Failure> {
        let bound = if let Some(bound) = self.transaction_topic.take() {
            bound
        } else {
            let topic = TransactionTopic::new(&self.naming, self.shaping.format()).map_err(unrepresentable)?;
            let ids = self.prepare_side_topic(topic.topic(), topic.schemas()).await?;
            topic.bind(ids).map_err(unrepresentable)?
        };
        Ok(self.transaction_topic.insert(bound))
    }

    /// The topic of heartbeats, if there are to be any.
    pub(super) async fn heartbeat_topic(&mut self) -> Result<Option<BoundHeartbeatTopic>, Failure> {
        if self.metadata.heartbeat_interval.is_none() {
            return Ok(None);
        }
        let name = self.metadata.heartbeat_topic.as_ref().map(TopicName::as_str);
        let topic = HeartbeatTopic::new(&self.naming, name, self.shaping.format()).map_err(unrepresentable)?;
        let ids = self.prepare_side_topic(topic.topic(), topic.schemas()).await?;
        topic.bind(ids).map(Some).map_err(unrepresentable)
    }

    /// Makes the topic of notifications ready.
    pub(super) async fn notification_topic(&mut self, topic: &str) -> Result<(), Failure> {
        self.prepare_side_topic(topic, None).await.map(drop)
    }

    /// The topic of messages, which is made ready when it is needed first.
    pub(super) async fn message_topic(&mut self) -> Result<&BoundMessageTopic, Failure> {
        let bound = if let Some(bound) = self.message_topic.take() {
            bound
        } else {
            let topic = MessageTopic::new(&self.naming, self.shaping.format()).map_err(unrepresentable)?;
            let ids = self.prepare_side_topic(topic.topic(), topic.schemas()).await?;
            topic.bind(ids).map_err(unrepresentable)?
        };
        Ok(self.message_topic.insert(bound))
    }

    /// Names the table and the row of a record that was not delivered, as far as they are known.
    pub(super) fn name_undelivered(&self, mut failure: Failure) -> Failure {
        let Some((topic, key)) = failure.take_undelivered() else { return failure };
        for known in self.known.values() {
            if let Known::Watched(table) = known
                && table.plan.plan().topics().any(|its| **its == *topic)
            {
                let failure = failure.in_table(&table.relation.schema, &table.relation.name);
                return match table.plan.plan().describe_key(&key) {
                    Some(key) => failure.with_key(key),
                    None => failure,
                };
            }
        }
        failure
    }

    /// Compiles the plan again with a column that can be null after all: a row comes from before its SET NOT NULL.
    pub(super) async fn make_optional(&mut self, oid: Oid, column: &str) -> Result<(), Failure> {
        let Some(Known::Watched(table)) = self.known.remove(&oid) else {
            return Err(Failure::new(Code::Internal, format!("relation {oid} is not watched")));
        };
        let Table { relation, identity, mut facts, events, events_of, key_then, .. } = *table;
        info!(
            schema = relation.schema,
            table = relation.name,
            column,
            "a row is older than the column's NOT NULL: the column becomes optional in the schema"
        );
        if !facts.make_optional(column) {
            return Err(Failure::new(Code::Internal, format!("column {column} is optional already"))
                .in_table(&relation.schema, &relation.name));
        }
        let table = Table { events, events_of, key_then, ..self.prepare(relation, identity, facts).await? };
        self.known.insert(oid, Known::Watched(Box::new(table)));
        Ok(())
    }

    async fn prepare(
        &mut self,
        relation: Relation,
        identity: TableIdentity,
        facts: TableFacts,
    ) -> Result<Table, Failure> {
        let place = |failure: Failure| failure.in_table(&relation.schema, &relation.name);
        if let Some(pattern) = self.shaping.doubt(&identity) {
            let found = format!(
                "nobody can say any more what the table was a partition of, and what [[tables]] says of {pattern} may be meant for it"
            );
            return Err(place(Failure::new(Code::PartitionUnknown, found)));
        }
        let plan = self
            .shaping
            .plan(&relation, &identity, &facts, &self.naming)
            .map_err(|error| place(failures::of_plan(error)))?;
        let topic = Arc::clone(plan.topic());
        self.refuse_shared_topic(&topic, &relation).await.map_err(place)?;
        self.ensure_topic(&topic, TopicKind::OfTable { partitions: self.shaping.partitions(&identity) })
            .await
            .map_err(place)?;
        if let Some(letters) = plan.dead_letter_topic().cloned() {
            self.refuse_shared_topic(&letters, &relation).await.map_err(place)?;
            let are_kept = self.shaping.on_incompatible(&identity) == OnIncompatible::Quarantine;
            self.ensure_topic(&letters, TopicKind::OfDeadLetters { are_kept }).await.map_err(place)?;
        }
        let options = self.shaping.options(&identity, relation.columns.iter().map(|column| column.name.as_str()));
        let plan = Arc::new(self.bind(plan, &relation, &identity, &facts, &options).await.map_err(place)?);
        let metrics = self.metrics.table(&relation.schema, &relation.name);
        let name = plan.plan().table().into();
        let row_key = RowKey::of(&relation, facts.primary_key.as_deref());
        Ok(Table {
            plan,
            metrics,
            events: 0,
            events_of: 0,
            name,
            row_key,
            mark: Mark::default(),
            relation,
            identity,
            facts,
            key_then: None,
        })
    }

    /// Makes sure of a topic that is beside those of tables, and returns the ids of its schemas.
    async fn prepare_side_topic(
        &mut self,
        topic: &str,
        schemas: Option<(&Schema, &Schema)>,
    ) -> Result<Option<(u32, u32)>, Failure> {
        if let Some(own) = self.side_topics.purpose(topic).filter(|purpose| purpose.is_own()) {
            return Err(Failure::new(Code::SchemaUnrepresentable, format!("it would be {own}")).for_topic(topic));
        }
        let shared = self.known.values().find_map(|known| match known {
            Known::Watched(table) if table.plan.plan().topics().any(|other| **other == *topic) => Some(&table.name),
            _ => None,
        });
        if let Some(table) = shared {
            let found = format!("the topic is that of table {table} already");
            return Err(Failure::new(Code::SchemaUnrepresentable, found).for_topic(topic));
        }
        self.ensure_topic(topic, TopicKind::Beside).await?;
        let place = |failure: Failure| failure.for_topic(topic);
        let Some((key, value)) = schemas else { return Ok(None) };
        let key = self.register(&format!("{topic}-key"), key.json(), OnIncompatible::Stop, place).await?;
        let value = self.register(&format!("{topic}-value"), value.json(), OnIncompatible::Stop, place).await?;
        Ok(Some((key, value)))
    }

    /// Kafka's names hold less than PostgreSQL's, and routes can bring tables together, so that two of them can come to one topic. Their keys
    /// would then overwrite each other. A topic of dead letters is a table's as well.
    pub(super) async fn refuse_shared_topic(&mut self, topic: &str, relation: &Relation) -> Result<(), Failure> {
        let refuse = |found: String| Err(Failure::new(Code::SchemaUnrepresentable, found).for_topic(topic));
        // A table that was dropped and created again goes on where it was.
        let name = format!("{}.{}", relation.schema, relation.name);
        let is_same = |table: &str| table == name;
        if let Some(purpose) = self.side_topics.purpose(topic) {
            return refuse(format!("it would be {purpose}"));
        }
        // A table of which nothing has come yet in this session may have written to it before. And one that is known may be gone: its topic is free, as
        // it is after a start that has never known it.
        if self.owners.as_ref().is_none_or(|owners| !owners.contains_key(&relation.id)) {
            self.owners = Some(self.topic_owners().await?);
        }
        for (oid, known) in &self.known {
            if let Known::Watched(other) = known
                && *oid != relation.id
                && self.owners.as_ref().is_some_and(|owners| owners.contains_key(oid))
                && !is_same(other.plan.plan().table())
                && other.plan.plan().topics().any(|other| **other == *topic)
            {
                return refuse(format!("the topic is that of table {} already", other.plan.plan().table()));
            }
        }
        let mut owners = self.owners.iter().flatten();
        let is_shared = |owner: &TopicOwner| !is_same(&owner.table) && owner.topics.iter().any(|its| its == topic);
        match owners.find(|(oid, owner)| **oid != relation.id && is_shared(owner)) {
            Some((_, owner)) => refuse(format!("the topic is that of table {} too", owner.table)),
            None => Ok(()),
        }
    }

    /// The topics of the tables that are asked for and published now. One that is asked for and left out, by whoever manages the publication,
    /// does not count: it is asked about when it is put in.
    async fn topic_owners(&mut self) -> Result<FxHashMap<Oid, TopicOwner>, Failure> {
        let matched = self.matching_tables().await?;
        let held = self.catalog.held_tables(&self.publication, &publishable(&matched)).await?;
        Ok(owners(&self.shaping, &matched, membership::publishes_leaves(&self.scope), Some(&held)))
    }

    async fn matching_tables(&mut self) -> Result<Vec<MatchedTable>, Failure> {
        match self.catalog.matching_tables(&self.selection).await {
            Err(failure) if failure.code() == Code::TablesMissing => Ok(Vec::new()),
            outcome => outcome,
        }
    }

    /// Makes sure of a topic. Returns whether it was created for that, in this session.
    pub(super) async fn ensure_topic(&mut self, topic: &str, kind: TopicKind) -> Result<bool, Failure> {
        if let Some(is_created) = self.ready_topics.get(topic) {
            return Ok(*is_created);
        }
        let (admin, name, mut settings) = (Arc::clone(&self.topics), topic.to_owned(), self.topic_settings.clone());
        match kind {
            TopicKind::OfTable { partitions } => settings.partitions = partitions.unwrap_or(settings.partitions),
            TopicKind::Beside => settings.keep_all(),
            TopicKind::OfDeadLetters { .. } => {}
        }
        let is_of_letters = matches!(kind, TopicKind::OfDeadLetters { .. });
        // Most tables never have a letter, and what is said of tables in quarantine tells where letters are missing.
        let may_have_lost_records = self.is_resumed && !is_of_letters;
        let (partitions, max_bytes) = (self.existing_topics.get(topic).copied(), self.letter_max_bytes);
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
        if is_empty && may_have_lost_records {
            warn!(
                topic,
                "{}: if it held records before, they are gone, and the stream does not bring them back",
                if is_created { "created the topic" } else { "nothing was ever written to the topic" }
            );
        } else if is_empty {
            info!(topic, "created the topic");
        }
        self.ready_topics.insert(topic.to_owned(), is_created);
        Ok(is_created)
    }

    /// The id of a schema. While the registry is away, or does not accept it, the stream waits here, and says so. After
    /// [`PAUSE_MAX`] the session is given up, and the next one waits: a server that is to be shut down waits for the connection.
    pub(super) async fn register(
        &self,
        subject: &str,
        schema: &str,
        on_incompatible: OnIncompatible,
        place: impl Fn(Failure) -> Failure,
    ) -> Result<u32, Failure> {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
        let began = Instant::now();
        loop {
            let refusal = match self.schemas.register(subject, schema).await {
                Ok(id) => {
                    if self.waits {
                        self.metrics.resumed();
                    }
                    return Ok(id.get());
                }
                Err(refusal) => refusal,
            };
            let failure = place(Failure::new(refusal.code, refusal.found));
            let is_final =
                on_incompatible == OnIncompatible::Quarantine && failure.code() == Code::RegistryIncompatible;
            if is_final || failure.code().recovery() == Recovery::Stop || !self.waits {
                return Err(failure);
            }
            self.metrics.paused(&failure);
            if began.elapsed() > PAUSE_MAX {
                return Err(failure);
            }
            let pause = refusal.retry_after.map_or_else(|| backoff.next_wait(), |after| after.min(PAUSE_MAX));
            warn!(code = failure.code().as_str(), pause_ms = pause.as_millis(), "the stream waits: {failure}");
            tokio::time::sleep(pause).await;
        }
    }
}

fn unrepresentable(error: PlanError) -> Failure {
    Failure::caused(Code::SchemaUnrepresentable, error)
}

mod learning;

#[cfg(test)]
use {
    crate::config::{Config, PrefixPattern},
    encoder::{EncodeOptions, Format, TablePlan},
};

#[cfg(test)]
impl Relations {
    /// Relations that know nothing and have nobody to ask, though none of them is told so before it is asked.
    pub(super) fn without_servers(metrics: &Arc<Metrics>) -> Self {
        static CLIENTS: std::sync::LazyLock<(Arc<TopicAdmin>, Arc<registry::RegistryClient>)> =
            std::sync::LazyLock::new(|| {
                let kafka = publisher::KafkaSettings {
                    bootstrap_servers: "127.0.0.1:1".to_owned(),
                    name: "nobody".to_owned(),
                    properties: BTreeMap::new(),
                    memory_limit_bytes: 1 << 20,
                };
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                let topics = TopicAdmin::new(&kafka, runtime.handle().clone()).expect("a client");
                let registry = registry::RegistryOptions::new("http://127.0.0.1:1".parse().expect("a URL"));
                (Arc::new(topics), Arc::new(registry::RegistryClient::new(registry).expect("a client")))
            });
        const LEAST: &str = "name = \"test\"\n[postgres]\nurl = \"postgres://nobody@127.0.0.1:1/nowhere\"\ntables = [\"*.*\"]\n\
                             [kafka]\nbootstrap_servers = \"127.0.0.1:1\"";
        let config = Config::parse(LEAST, []).expect("a configuration");
        let nobody = "postgres://nobody@127.0.0.1:1/nowhere".parse().expect("a URL");
        Self {
            catalog: Catalog::new(Arc::new(nobody)),
            schemas: Schemas::Remote(Arc::clone(&CLIENTS.1)),
            topics: Arc::clone(&CLIENTS.0),
            topic_settings: TopicSettings { partitions: 1, replication_factor: 1, config: BTreeMap::new() },
            letter_max_bytes: 16 << 20,
            side_topics: SideTopics::new(&config),
            is_resumed: false,
            waits: true,
            naming: Naming::new("test", "nowhere"),
            shaping: Shaping::new(&config),
            selection: TableSelection { include: Vec::new(), exclude: Vec::new() },
            publication: String::new(),
            metadata: Metadata {
                transaction_topic: true,
                messages: true,
                message_prefixes: vec![PrefixPattern::parse("*")],
                message_prefixes_except: vec![PrefixPattern::parse("unwanted")],
                heartbeat_interval: None,
                heartbeat_topic: None,
            },
            scope: Arc::default(),
            memory: Arc::default(),
            metrics: Arc::clone(metrics),
            existing_topics: BTreeMap::new(),
            ready_topics: BTreeMap::new(),
            known: FxHashMap::default(),
            quarantine: Arc::default(),
            quarantine_has_grown: false,
            owners: None,
            transaction_topic: None,
            message_topic: None,
        }
    }

    /// Takes a relation as if it had been announced and everything about it looked up and registered.
    pub(super) fn know(&mut self, relation: Relation, options: &EncodeOptions) {
        let facts = TableFacts::default();
        let plan = TablePlan::compile(&relation, &facts, &self.naming, options).expect("a plan");
        let plan = Arc::new(plan.bind(Some(1), Some(2)).expect("it has a key"));
        let metrics = self.metrics.table(&relation.schema, &relation.name);
        let identity = TableIdentity::plain(&relation.schema, &relation.name);
        let name = plan.plan().table().into();
        let row_key = RowKey::of(&relation, None);
        let table = Table {
            plan,
            metrics,
            events: 0,
            events_of: 0,
            name,
            row_key,
            mark: Mark::default(),
            facts,
            relation,
            identity,
            key_then: None,
        };
        self.known.insert(table.relation.id, Known::Watched(Box::new(table)));
        let topic = TransactionTopic::new(&self.naming, Format::Avro).expect("its name is short");
        self.transaction_topic = Some(topic.bind(Some((3, 4))).expect("it has schemas"));
        let topic = MessageTopic::new(&self.naming, Format::Avro).expect("its name is short");
        self.message_topic = Some(topic.bind(Some((5, 6))).expect("it has schemas"));
    }
}

#[cfg(test)]
mod tests {
    use pgoutput::{RelationColumn, ReplicaIdentity};

    use super::*;
    use crate::catalog::PublishedTable;

    fn table(oid: u32, name: &str) -> Relation {
        let id = RelationColumn { is_key: true, name: "id".to_owned(), type_oid: Oid::from(23), type_modifier: -1 };
        Relation {
            xid: None,
            id: Oid::from(oid),
            schema: "public".to_owned(),
            name: name.to_owned(),
            replica_identity: ReplicaIdentity::Default,
            columns: vec![id],
        }
    }

    /// So it is after a start as well, which does not know the one that is gone.
    #[test]
    fn a_table_that_is_gone_leaves_its_topic_to_another() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (old, new, topic) = (table(1, "orders_v1"), table(2, "orders_v2"), "test.public.orders_v1");
        for (are_published, is_refused) in [(&[&old, &new][..], true), (&[&new], false)] {
            let metrics = Arc::new(Metrics::new(1));
            let mut relations = Relations::without_servers(&metrics);
            relations.know(old.clone(), &EncodeOptions::default());
            let owner = |table: &Relation| TopicOwner {
                root: PublishedTable { schema: table.schema.clone(), name: table.name.clone() },
                table: format!("public.{}", table.name),
                topics: vec![topic.to_owned()],
            };
            relations.owners = Some(are_published.iter().map(|table| (table.id, owner(table))).collect());
            let refused = runtime.block_on(relations.refuse_shared_topic(topic, &new)).err();
            assert_eq!(refused.map(|it| it.code()), is_refused.then_some(Code::SchemaUnrepresentable), "{is_refused}");
        }
    }
}
