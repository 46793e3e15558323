//! How a session starts.
//!
//! The order of the start is the argument of exactly once, so it is kept in one function, [`Starting::begin`]:
//!
//! 1. `init_transactions`: an older instance is fenced, and what it left open is ended;
//! 2. the checkpoint is read to the topic's very end;
//! 3. the server is asked who it is, and what became of the slot;
//! 4. [`decide`](crate::checkpoint::start::decide) says where to begin, or refuses; then the publication is made to fit;
//! 5. the position is written to Kafka again, under this instance's name: whoever is fenced can see by whom;
//! 6. `START_REPLICATION` at the position, and the slot is looked at once more.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use encoder::Naming;
use publisher::{
    Attachment, Checkpoint, CheckpointTopic, FORMAT_VERSION, Held, MemoryBudget, Position, Producer, TopicAdmin,
    TopicSettings,
};
use tokio::{runtime::Handle, sync::mpsc, task::spawn_blocking};
use tracing::{info, warn};
use walreceiver::{
    CreateSlot, CreatedSlot, Feedback, ReplicationClient, SlotName, StreamSettings, WalReader, publication_names,
};

use super::{Shared, Started};
use crate::{
    catalog::{Catalog, Cluster},
    checkpoint::start::{Anew, Server, Start, TimelineEnd, decide, verify_started},
    config::{Config, Origin, Shaping, SnapshotMode},
    failure::{Code, Failure},
    failures, fault,
    pipeline::{
        copier::{CopierParts, SignalSource, StandbyParts, in_flight_bytes, moved_bytes},
        kafka_watch,
        keys::kept::Place,
        membership::{Beginning, Scope},
        memory,
        publish::{failure_of, unix_ms},
        quarantine::warn_of_stale_quarantine,
        relations::{KnownRelations, Relations, SessionTopics},
        topics::SideTopics,
        unreachable::look_at_kafka,
    },
    quarantine::Quarantine,
    snapshot::{Progress, Request, StreamRecord},
};

/// How many requests of copies may wait for the source.
const COPY_QUEUE_LEN_MAX: usize = 16;
/// How often it is said that the slot is still being created.
const SLOT_REMINDER_INTERVAL: Duration = Duration::from_secs(30);

/// How long the server may take to notice that an instance of a pair is gone without having said goodbye: its machine is, or its network, or it hangs.
const SENDER_TIMEOUT_IN_A_PAIR: Duration = Duration::from_secs(10);

pub(super) struct Starting<'a> {
    pub(super) shared: &'a Shared,
}

impl Starting<'_> {
    pub(super) async fn begin(&self) -> Result<Started, Failure> {
        let Shared { config, metrics, .. } = self.shared;
        metrics.state("connecting to kafka");
        let memory_limit = usize::try_from(config.memory_limit_bytes).unwrap_or(usize::MAX);
        let budget = Arc::new(MemoryBudget::new(in_flight_bytes(memory_limit)));
        let topic = CheckpointTopic::new(config.kafka.checkpoint_topic.as_str());
        let admin = TopicAdmin::new(&self.shared.kafka, Handle::current()).map_err(|error| kafka_failure(&error))?;
        let admin = Arc::new(admin);
        let opening = async {
            self.yield_to_a_successor(&topic).await?;
            if !self.shared.has_owned.load(Ordering::Relaxed) {
                look_at_kafka(config).await?;
            }
            self.open_kafka(&budget, &topic, &admin).await
        };
        let (producer, held, topics) =
            kafka_watch::tell_of_delay(opening, &self.shared.kafka.bootstrap_servers, metrics).await?;
        let mut attachments = held.removals();
        warn_of_stale_quarantine(held.stale());
        let mut progress = Progress::read(&held.attachments)?;
        let quarantine = Quarantine::read(&held.attachments);
        let quarantine = quarantine.map_err(|found| Failure::new(Code::CheckpointCorrupt, found))?;
        attachments.extend(quarantine.renewal(&held.attachments));
        metrics.quarantined(&quarantine);
        let quarantine = Arc::new(Mutex::new(quarantine));
        let Held { checkpoint: held, attachments: kept, .. } = held;
        if let Some(held) = &held {
            self.check_owner(held)?;
        }
        if config.needs_registry() {
            self.shared.schemas.prepare().await?;
        }

        metrics.state("connecting to postgresql");
        let mut catalog = Catalog::new(Arc::clone(&self.shared.connect));
        let settings = catalog.server_settings().await?;
        settings.verify()?;
        let postgres = &config.postgres;
        settings.verify_wishes(postgres)?;
        let has_streamed = held.as_ref().is_some_and(|held| !held.slot_pending);
        let beginning = Beginning {
            has_streamed,
            needs_publication: has_streamed && !self.shared.wanted.word.accept_gap,
            is_first: !self.shared.has_owned.load(Ordering::Relaxed),
        };
        let mut membership = self.shared.membership.lock().await;
        membership.connect_anew();
        if !postgres.manage {
            membership.ensure(beginning).await?;
        }
        let slot = catalog.slot(&postgres.slot).await?;
        let mut client =
            ReplicationClient::connect(&self.shared.connect).await.map_err(|error| failures::of_walreceiver(&error))?;
        let server = identify(&mut client, held.as_ref()).await?;
        let here = Place { system_identifier: server.system_identifier, timeline: server.timeline };
        attachments.extend(memory::lock(&self.shared.memory).begin_at(here, &kept)?);
        let start = match decide(&self.shared.wanted, &server, slot.as_ref(), held.as_ref()) {
            Err(refusal) if config.snapshot.mode == SnapshotMode::WhenNeeded => {
                let found = (slot.as_ref(), held.as_ref());
                self.begin_anew(refusal, found, &mut catalog, &admin, &topics).await?
            }
            decided => decided?,
        };

        self.prepare_copies(start, &mut progress, &mut attachments, &mut catalog).await?;
        // The keys of tables are looked at before any row can come of them.
        membership.look_ahead().await?;
        // The publication comes before the slot: a slot cannot decode a publication for log from before it was made. And nothing is
        // changed at a server that was not found to be the right one.
        if postgres.manage {
            membership.ensure(beginning).await?;
        }
        attachments.extend(memory::lock(&self.shared.memory).unkept());
        let template = self.template(&server);
        let (producer, checkpoint) =
            self.take_position(start, template, &attachments, &mut client, producer, &topic).await?;
        self.shared.has_owned.store(true, Ordering::Relaxed);
        let position = checkpoint.position();
        let session = memory::lock(&self.shared.memory).begin(position.end_lsn);
        if matches!(start, Start::CreateSlot { .. } | Start::Anew(_)) {
            // The server may have waited for long, and no row comes of what was before.
            membership.look_ahead().await?;
        }
        let has_begun_anew = matches!(start, Start::Anew(_));
        if has_begun_anew {
            metrics.begun_anew();
        }
        metrics.resumed_at(position);
        let (reader, feedback) = self.start_replication(client, position).await?;
        if let Some(slot) = catalog.slot(&postgres.slot).await? {
            verify_started(&postgres.slot, slot.confirmed_flush_lsn, position)?;
        }
        info!(position = %position, slot = postgres.slot, publication = postgres.publication, "streaming");
        let session_topics = Arc::new(SessionTopics::new(topics.clone()));
        let relations =
            |catalog| self.relations(catalog, &admin, &session_topics, membership.scope(), &quarantine, has_streamed);
        let moved = progress.moved_rows(moved_bytes(memory_limit));
        let owed = progress.owed();
        let of_copies = Relations { waits: false, ..relations(Catalog::new(Arc::clone(&self.shared.connect))) };
        let copier = self.copier(of_copies, &budget, progress, has_begun_anew, here);
        let mut relations = relations(catalog);
        if let Some(topic) = &config.snapshot.notification_topic {
            relations.notification_topic(topic.as_str()).await?;
        }
        if let Some(topic) = &config.snapshot.signal_topic {
            self.prepare_signals(topic.as_str(), &topics, &admin).await?;
        }
        let heartbeat = relations.heartbeat_topic().await?.zip(config.metadata.heartbeat_interval);
        Ok(Started {
            session,
            producer,
            checkpoint,
            reader,
            feedback,
            relations,
            topic,
            budget,
            heartbeat,
            moved,
            owed,
            copier,
        })
    }

    /// Decides which tables are not to be copied, where that was not decided before: those that the stream had already. It is asked before
    /// the publication gets new ones. Where every start copies all of them, what was copied before is forgotten.
    async fn prepare_copies(
        &self,
        start: Start,
        progress: &mut Progress,
        attachments: &mut Vec<Attachment>,
        catalog: &mut Catalog,
    ) -> Result<(), Failure> {
        let mode = self.shared.config.snapshot.mode;
        if mode == SnapshotMode::Always && !self.shared.has_owned.load(Ordering::Relaxed) {
            attachments.extend(progress.begin_anew());
        }
        if let Start::Anew(_) = start {
            let tables = catalog.published_tables(&self.shared.wanted.publication).await?;
            attachments.extend(progress.begin_anew_behind_truncates(&tables, unix_ms()));
        }
        if mode != SnapshotMode::Never && progress.stream.is_none() {
            let has_streamed = match start {
                Start::CreateSlot { forced } | Start::Adopt { forced, .. } => forced,
                Start::Resume(_) | Start::Anew(_) => true,
            };
            let publication = &self.shared.wanted.publication;
            let tables = if has_streamed { catalog.published_tables(publication).await? } else { Vec::new() };
            let record = StreamRecord::new(tables.into_iter().map(|(oid, _)| oid.into()).collect());
            attachments.push(record.attachment());
            progress.stream = Some(record);
        }
        Ok(())
    }

    /// Creates the topic of signals if it is missing. Their order is that of a partition.
    async fn prepare_signals(
        &self,
        topic: &str,
        existing: &BTreeMap<String, usize>,
        admin: &Arc<TopicAdmin>,
    ) -> Result<(), Failure> {
        match existing.get(topic) {
            Some(1) => Ok(()),
            Some(partitions) => {
                let found = format!("it has {partitions} partitions, and signals are read from a topic of one");
                Err(Failure::new(Code::TopicUnfit, found).for_topic(topic))
            }
            None => {
                let settings =
                    TopicSettings { partitions: 1, config: BTreeMap::new(), ..topic_settings(&self.shared.config) };
                let (admin, name) = (Arc::clone(admin), topic.to_owned());
                blocking(move || admin.create(&name, &settings)).await.map(drop).map_err(|it| it.for_topic(topic))
            }
        }
    }

    fn copier(
        &self,
        relations: Relations,
        budget: &Arc<MemoryBudget>,
        progress: Progress,
        has_begun_anew: bool,
        here: Place,
    ) -> (CopierParts, mpsc::Receiver<Request>) {
        let config = &self.shared.config;
        let (requests, receiver) = mpsc::channel(COPY_QUEUE_LEN_MAX);
        let parts = CopierParts {
            relations,
            connect: Arc::clone(&self.shared.connect),
            standby: config.snapshot.standby.clone().map(|connect| StandbyParts {
                connect: Arc::new(connect),
                cluster: Cluster { system_identifier: here.system_identifier, timeline: here.timeline },
            }),
            publication: config.postgres.publication.clone(),
            settings: config.snapshot.clone(),
            match_interval: config.postgres.match_interval,
            memory_limit_bytes: config.memory_limit_bytes,
            budget: Arc::clone(budget),
            requests,
            metrics: Arc::clone(&self.shared.metrics),
            progress,
            has_begun_anew,
            control: Arc::clone(&self.shared.snapshot_control),
            signals: config
                .snapshot
                .signal_topic
                .as_ref()
                .map(|topic| SignalSource { topic: topic.as_str().to_owned(), kafka: self.shared.kafka.clone() }),
        };
        (parts, receiver)
    }

    /// Relations of which nothing is known yet.
    fn relations(
        &self,
        catalog: Catalog,
        admin: &Arc<TopicAdmin>,
        session_topics: &Arc<SessionTopics>,
        scope: Arc<Mutex<Scope>>,
        quarantine: &Arc<Mutex<Quarantine>>,
        is_resumed: bool,
    ) -> Relations {
        let config = &self.shared.config;
        Relations {
            catalog,
            schemas: self.shared.schemas.clone(),
            topics: Arc::clone(admin),
            topic_settings: topic_settings(config),
            letter_max_bytes: self.shared.kafka.letter_max_bytes(),
            side_topics: SideTopics::new(config),
            is_resumed,
            waits: true,
            naming: Naming::new(config.name.as_str(), &self.shared.wanted.database),
            shaping: Shaping::new(config),
            metadata: config.metadata.clone(),
            selection: config.postgres.tables.clone(),
            publication: config.postgres.publication.clone(),
            scope,
            memory: Arc::clone(&self.shared.memory),
            metrics: Arc::clone(&self.shared.metrics),
            session_topics: Arc::clone(session_topics),
            known: KnownRelations::default(),
            quarantine: Arc::clone(quarantine),
            quarantine_has_grown: false,
            transaction_topic: None,
            message_topic: None,
        }
    }

    /// Steps 1 and 2.
    async fn open_kafka(
        &self,
        budget: &Arc<MemoryBudget>,
        topic: &CheckpointTopic,
        admin: &Arc<TopicAdmin>,
    ) -> Result<(Producer, Held, BTreeMap<String, usize>), Failure> {
        let (settings, budget) = (self.shared.kafka.clone(), Arc::clone(budget));
        let (topic, admin) = (topic.clone(), Arc::clone(admin));
        let replication_factor = self.shared.config.kafka.topics.replication_factor.map_or(-1, i32::from);
        blocking(move || {
            let producer = Producer::connect(&settings, budget)?;
            topic.ensure(&admin, replication_factor)?;
            let held = topic.read(&settings)?;
            Ok((producer, held, admin.partitions_by_topic()?))
        })
        .await
    }

    /// An instance that comes back from a pause must not fence the one that has taken over meanwhile.
    pub(super) async fn yield_to_a_successor(&self, topic: &CheckpointTopic) -> Result<(), Failure> {
        if !self.shared.has_owned.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (topic, settings) = (topic.clone(), self.shared.kafka.clone());
        match blocking(move || topic.peek(&settings)).await?.checkpoint {
            Some(held) => self.check_owner(&held),
            None => Ok(()),
        }
    }

    /// A session that follows another of the same process finds its own checkpoint, or else somebody has taken over meanwhile.
    fn check_owner(&self, held: &Checkpoint) -> Result<(), Failure> {
        if self.shared.has_owned.load(Ordering::Relaxed) && held.instance != self.shared.instance {
            return Err(Failure::new(
                Code::Fenced,
                format!("the newest checkpoint, at {}, was written by the instance {}", held.position(), held.instance),
            ));
        }
        Ok(())
    }

    fn template(&self, server: &Server) -> Checkpoint {
        let wanted = &self.shared.wanted;
        Checkpoint {
            version: FORMAT_VERSION,
            name: self.shared.kafka.name.clone(),
            instance: self.shared.instance.clone(),
            system_identifier: server.system_identifier,
            timeline: server.timeline,
            database: wanted.database.clone(),
            slot: wanted.slot.clone(),
            publication: wanted.publication.clone(),
            end_lsn: server.flush_lsn,
            split: None,
            forced: false,
            slot_pending: false,
            written_at_ms: unix_ms(),
        }
    }

    /// Step 5: the position that the stream begins at is in Kafka before the stream begins.
    async fn take_position(
        &self,
        start: Start,
        template: Checkpoint,
        attachments: &[Attachment],
        client: &mut ReplicationClient,
        producer: Producer,
        topic: &CheckpointTopic,
    ) -> Result<(Producer, Checkpoint), Failure> {
        let at = |position: Position, forced: bool| Checkpoint {
            end_lsn: position.end_lsn,
            split: position.split,
            forced,
            ..template.clone()
        };
        match start {
            Start::Resume(position) => commit_alone(producer, topic, at(position, false), attachments).await,
            Start::Adopt { position, forced } => {
                if forced {
                    warn!(position = %position, "beginning at the slot's position, as the operator has asked: changes before it may be missing");
                } else {
                    self.warn_of_what_is_not_copied(position.end_lsn);
                }
                commit_alone(producer, topic, at(position, forced), attachments).await
            }
            Start::Anew(Anew::AdoptSlot(position)) => {
                commit_alone(producer, topic, at(position, true), attachments).await
            }
            Start::CreateSlot { .. } | Start::Anew(_) => {
                let forced = start != Start::CreateSlot { forced: false };
                // If this is interrupted, the next start finds the announcement, and knows the slot for its own.
                let pending = Checkpoint { slot_pending: true, forced, ..template.clone() };
                let (producer, _) = commit_alone(producer, topic, pending, attachments).await?;
                fault::point(fault::Point::SlotAnnounced);
                let name = slot_name(&self.shared.wanted.slot)?;
                if start == Start::Anew(Anew::ReplaceSlot) {
                    client.drop_slot(&name, false).await.map_err(|error| failures::of_walreceiver(&error))?;
                    warn!(slot = self.shared.wanted.slot, "dropped the slot, which could not be read any more");
                }
                let mut slot = CreateSlot::new(&name);
                slot.failover = self.shared.config.postgres.failover && client.server_version_num() >= 170_000;
                let created = self.create_slot(client, &slot).await?;
                info!(slot = self.shared.wanted.slot, consistent_point = %created.consistent_point, "created the slot");
                fault::point(fault::Point::SlotCreated);
                self.warn_of_what_is_not_copied(created.consistent_point);
                commit_alone(producer, topic, at(Position::at(created.consistent_point), forced), &[]).await
            }
        }
    }

    fn warn_of_what_is_not_copied(&self, from: pgoutput::Lsn) {
        if self.shared.config.snapshot.mode == SnapshotMode::Never {
            warn!(
                "only changes from {from} on are streamed: rows that were there before are not copied, with snapshot.mode = \"never\""
            );
        }
    }

    /// Creates the slot, for which the server waits until every transaction is over that runs now.
    async fn create_slot(&self, client: &mut ReplicationClient, slot: &CreateSlot<'_>) -> Result<CreatedSlot, Failure> {
        self.shared.metrics.state("creating the slot");
        info!(slot = self.shared.wanted.slot, "creating the slot: the server waits for the transactions that run now");
        let creating = client.create_slot(slot);
        tokio::pin!(creating);
        let began = Instant::now();
        loop {
            tokio::select! {
                created = &mut creating => return created.map_err(|error| failures::of_walreceiver(&error)),
                () = tokio::time::sleep(SLOT_REMINDER_INTERVAL) => warn!(
                    slot = self.shared.wanted.slot,
                    waited_seconds = began.elapsed().as_secs(),
                    "the slot is still being created: a transaction that was open before has not ended; \
                     SELECT pid, xact_start, state, query FROM pg_stat_activity ORDER BY xact_start shows the oldest first"
                ),
            }
        }
    }

    /// Step 6.
    async fn start_replication(
        &self,
        client: ReplicationClient,
        position: Position,
    ) -> Result<(WalReader, Feedback), Failure> {
        let Shared { config, wanted, .. } = self.shared;
        let publication = publication_names(&[&wanted.publication]);
        let mut options = vec![("proto_version", "1"), ("publication_names", publication.as_str())];
        if config.metadata.messages {
            options.push(("messages", "true"));
        }
        // Servers before version 16 do not know the option.
        if config.postgres.origin == Origin::None {
            options.push(("origin", "none"));
        }
        let settings = StreamSettings {
            // One frame is held beside its encoded form.
            frame_bytes_max: usize::try_from(config.memory_limit_bytes / 4).unwrap_or(usize::MAX),
            status_interval: config.postgres.status_interval,
            sender_timeout_max: self.shared.stands_by.then_some(SENDER_TIMEOUT_IN_A_PAIR),
            ..StreamSettings::default()
        };
        client
            .start_replication(&slot_name(&wanted.slot)?, position.end_lsn, &options, settings)
            .await
            .map_err(|error| failures::of_walreceiver(&error))
    }
}

async fn identify(client: &mut ReplicationClient, held: Option<&Checkpoint>) -> Result<Server, Failure> {
    let identity = client.identify_system().await.map_err(|error| failures::of_walreceiver(&error))?;
    let mut history = Vec::new();
    if held.is_some_and(|held| held.timeline != identity.timeline) && identity.timeline > 1 {
        let found =
            client.timeline_history(identity.timeline).await.map_err(|error| failures::of_walreceiver(&error))?;
        history = found
            .switches
            .iter()
            .map(|switch| TimelineEnd { timeline: switch.timeline, switch_lsn: switch.end })
            .collect();
    }
    Ok(Server {
        system_identifier: identity.system_id,
        timeline: identity.timeline,
        flush_lsn: identity.flush_lsn,
        history,
    })
}

/// Commits a checkpoint without records.
async fn commit_alone(
    producer: Producer,
    topic: &CheckpointTopic,
    checkpoint: Checkpoint,
    attachments: &[Attachment],
) -> Result<(Producer, Checkpoint), Failure> {
    let (topic, attachments) = (topic.clone(), attachments.to_vec());
    let began = Instant::now();
    let committed = blocking(move || {
        let producer = producer.begin()?.prepare(topic.name(), &checkpoint, &attachments)?.commit()?;
        Ok((producer, checkpoint))
    })
    .await?;
    tracing::debug!(position = %committed.1.position(), elapsed_ms = began.elapsed().as_millis(), "took the position");
    Ok(committed)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, publisher::PublishError> + Send + 'static,
) -> Result<T, Failure> {
    spawn_blocking(work)
        .await
        .map_err(|error| Failure::caused(Code::Internal, error))?
        .map_err(|error| kafka_failure(&error))
}

fn kafka_failure(error: &publisher::PublishError) -> Failure {
    failure_of(error, Duration::ZERO, Duration::MAX)
}

fn slot_name(name: &str) -> Result<SlotName, Failure> {
    name.parse().map_err(|error| Failure::new(Code::ConfigInvalid, format!("postgres.slot: {error}")))
}

fn topic_settings(config: &Config) -> TopicSettings {
    let topics = &config.kafka.topics;
    TopicSettings {
        partitions: topics.partitions.unwrap_or(-1),
        replication_factor: topics.replication_factor.map_or(-1, i32::from),
        config: topics.config.clone(),
    }
}
