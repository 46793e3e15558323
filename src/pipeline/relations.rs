//! What is known about each relation of the stream, and how it becomes known.
//!
//! A Relation message is the truth about names, types and key columns at its place in the log. What it lacks is looked up; then the
//! plan is compiled, the topic made sure of and the schemas registered, all before the first row. Each step may have to wait, and
//! while it does the stream waits: its connection is kept by the feedback task.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use encoder::{
    BoundHeartbeatTopic, BoundMessageTopic, BoundTransactionTopic, HeartbeatTopic, MessageTopic, Naming, PlanError,
    Schema, TableFacts, TransactionTopic,
};
use pgoutput::{Oid, Relation};
use publisher::{TopicAdmin, TopicSettings};
use tracing::{info, warn};
use walreceiver::Backoff;

use super::{collections::Mark, membership::Scope, memory::Memory, topics::SideTopics};
use crate::{
    catalog::{Catalog, MatchedTable},
    config::{Metadata, OnIncompatible, Shaping, TableIdentity, TableSelection, TopicName},
    failure::{Code, Failure, Recovery},
    failures,
    metrics::Metrics,
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
    /// What the session knows of topics.
    pub(super) session_topics: Arc<SessionTopics>,
    /// Bounded by the tables of the publication: the server announces a relation before its first change in a session, and a
    /// table that was dropped stays for as long as the session does.
    pub(super) known: KnownRelations,
    /// The tables in quarantine, and whether one has come to it since the list was last handed on.
    pub(super) quarantine: Arc<Mutex<Quarantine>>,
    pub(super) quarantine_has_grown: bool,
    /// None until it is needed.
    pub(super) transaction_topic: Option<BoundTransactionTopic>,
    /// None until it is needed.
    pub(super) message_topic: Option<BoundMessageTopic>,
}

impl Relations {
    /// The relation of a change.
    pub(super) fn get(&mut self, oid: Oid) -> Result<&mut Known, Failure> {
        self.known.get_mut(oid).ok_or_else(|| {
            Failure::new(Code::ProtocolViolation, format!("a change of relation {oid}, which was not announced"))
        })
    }

    /// Whether changes of the relation are wanted.
    pub(super) fn is_watched(&self, oid: Oid) -> bool {
        matches!(self.known.get(oid), Some(Known::Watched(_)))
    }

    /// What tells the rows of a relation apart, if its changes are written and anything does.
    pub(super) fn row_key(&self, oid: Oid) -> Option<&RowKey> {
        match self.known.get(oid) {
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
        let Some(table) = self.known.of_topic(&topic).find_map(|(oid, _)| self.known.watched(oid)) else {
            return failure;
        };
        let failure = failure.in_table(&table.relation.schema, &table.relation.name);
        match table.plan.plan().describe_key(&key) {
            Some(key) => failure.with_key(key),
            None => failure,
        }
    }

    /// Compiles the plan again with a column that can be null after all: a row comes from before its SET NOT NULL.
    pub(super) async fn make_optional(&mut self, oid: Oid, column: &str) -> Result<(), Failure> {
        let Some(Known::Watched(table)) = self.known.remove(oid) else {
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
        if let Some(error) = plan.unfit() {
            warn!(
                code = Code::SchemaUnrepresentable.as_str(),
                schema = relation.schema,
                table = relation.name,
                "the table cannot be written as it is: {error}. Each of its changes is a dead letter, as events.unrepresentable says"
            );
        }
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
        let plan = self.bind(plan, &relation, &identity, &facts, &options).await.map_err(place)?;
        let plan = Arc::new(plan.without_value_schema());
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
        if let Some((_, table)) = self.known.of_topic(topic).next() {
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

    async fn matching_tables(&mut self) -> Result<Vec<MatchedTable>, Failure> {
        match self.catalog.matching_tables(&self.selection).await {
            Err(failure) if failure.code() == Code::TablesMissing => Ok(Vec::new()),
            outcome => outcome,
        }
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
        let (began, mut has_waited) = (Instant::now(), false);
        loop {
            let refusal = match self.schemas.register(subject, schema).await {
                Ok(id) => {
                    // What somebody else waits for is not over with this.
                    if has_waited {
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
            has_waited = true;
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

mod ensuring;
mod known;
mod learning;

pub(super) use self::{
    ensuring::{SessionTopics, TopicKind},
    known::{Known, KnownRelations, Table},
};

#[cfg(test)]
use {
    crate::config::{Config, PrefixPattern},
    encoder::{EncodeOptions, Format, TablePlan},
    std::collections::BTreeMap,
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
                    token_file: None,
                    observer: publisher::ErrorObserver::default(),
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
            session_topics: Arc::default(),
            known: KnownRelations::default(),
            quarantine: Arc::default(),
            quarantine_has_grown: false,
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
    use crate::{
        catalog::PublishedTable,
        pipeline::topics::{Owners, TopicOwner},
    };

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
            let owners = are_published.iter().map(|table| (table.id, owner(table))).collect();
            relations.session_topics.note_owners(Owners::new(owners));
            let refused = runtime.block_on(relations.refuse_shared_topic(topic, &new)).err();
            assert_eq!(refused.map(|it| it.code()), is_refused.then_some(Code::SchemaUnrepresentable), "{is_refused}");
        }
    }

    /// One that was copied and goes by another name now has written there, whatever is still held of it.
    #[test]
    fn a_topic_stays_with_a_table_whose_plan_was_let_go() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (old, new, topic) = (table(1, "orders_v1"), table(2, "orders_v2"), "test.public.orders_v1");
        let mut relations = Relations::without_servers(&Arc::new(Metrics::new(1)));
        relations.know(old.clone(), &EncodeOptions::default());
        relations.known.let_go(old.id);
        assert!(relations.known.get(old.id).is_none());
        let owner = |name: &str, topic: &str| TopicOwner {
            root: PublishedTable { schema: "public".into(), name: name.to_owned() },
            table: format!("public.{name}"),
            topics: vec![topic.to_owned()],
        };
        let owners = [(old.id, owner("renamed", "test.public.renamed")), (new.id, owner("orders_v2", topic))];
        relations.session_topics.note_owners(Owners::new(owners.into_iter().collect()));
        let refused = runtime.block_on(relations.refuse_shared_topic(topic, &new)).err();
        assert_eq!(refused.map(|it| it.code()), Some(Code::SchemaUnrepresentable));
        relations.known.remove(old.id);
        runtime.block_on(relations.refuse_shared_topic(topic, &new)).expect("nobody has it any more");
    }
}
