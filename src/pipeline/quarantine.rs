//! How a table comes into quarantine, and stays in it. [`crate::quarantine`] has the argument.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use encoder::{BoundPlan, EncodeOptions, HeldBack, TableFacts, TablePlan};
use pgoutput::Relation;
use publisher::{PublishError, TopicAdmin};
use tokio::task::spawn_blocking;
use tracing::warn;

use super::{
    publish::{failure_of, unix_ms},
    relations::{Relations, TopicKind},
};
use crate::{
    config::{OnIncompatible, TableIdentity},
    failure::{Code, Failure},
    failures,
    quarantine::{Quarantine, Quarantined},
};

/// How often it is said that tables are in quarantine.
const REMINDER_INTERVAL: Duration = Duration::from_mins(10);

/// Says so, now and again and again.
pub(super) async fn remind_of(quarantine: &Mutex<Quarantine>) {
    loop {
        let tables = lock(quarantine).tables();
        if !tables.is_empty() {
            warn!(
                tables,
                "these tables are in quarantine: their changes go to dead letters. Mend their subjects, and run `pgsluice release`"
            );
        }
        tokio::time::sleep(REMINDER_INTERVAL).await;
    }
}

/// The list as it is.
pub(super) fn copy_of(quarantine: &Mutex<Quarantine>) -> Quarantine {
    lock(quarantine).clone()
}

impl Relations {
    /// Gives the plan its schemas' ids; or has it hold all changes back, if the table is in quarantine or comes to it.
    pub(super) async fn bind(
        &mut self,
        plan: TablePlan,
        relation: &Relation,
        identity: &TableIdentity,
        facts: &TableFacts,
        options: &EncodeOptions,
    ) -> Result<BoundPlan, Failure> {
        let topic = Arc::clone(plan.topic());
        let policy = self.shaping.on_incompatible(identity);
        let entry = lock(&self.quarantine).get(&topic).cloned();
        if entry.is_some() && !self.waits {
            // Only the stream holds back, and knows the topic of letters that it has made.
            return Err(Failure::new(
                Code::RegistryIncompatible,
                "the table is in quarantine: it is copied once it was released",
            ));
        }
        let reason = match &entry {
            Some(entry) => entry.reason.clone(),
            None => match self.register_all(&plan, policy, relation).await {
                Ok((key, value)) => return plan.bind(key, value).map_err(failures::of_plan),
                Err(failure)
                    if self.waits
                        && failure.code() == Code::RegistryIncompatible
                        && policy == OnIncompatible::Quarantine =>
                {
                    failure.found().to_owned()
                }
                Err(failure) => return Err(failure),
            },
        };
        let (names, is_certain) = (identity.names.as_slice(), identity.is_certain);
        let held = HeldBack { relation, facts, options, names, is_certain, error: &reason };
        let plan = plan.hold_back(&held).map_err(failures::of_plan)?;
        let letters = plan.plan().dead_letter_topic().map_or("", |letters| letters).to_owned();
        self.refuse_shared_topic(&letters, relation).await?;
        match entry {
            Some(entry) => self.look_for_letters(&topic, &entry).await?,
            None => self.begin_quarantine(&topic, &letters, relation, reason).await?,
        }
        Ok(plan)
    }

    /// The ids of the schemas that there are.
    async fn register_all(
        &self,
        plan: &TablePlan,
        policy: OnIncompatible,
        relation: &Relation,
    ) -> Result<(Option<u32>, Option<u32>), Failure> {
        let topic = plan.topic();
        let place = |failure: Failure| failure.in_table(&relation.schema, &relation.name);
        let (mut key, mut value) = (None, None);
        if let Some(schema) = plan.key_schema() {
            key = Some(self.register(&format!("{topic}-key"), schema.json(), policy, place).await?);
        }
        if let Some(schema) = plan.value_schema() {
            value = Some(self.register(&format!("{topic}-value"), schema.json(), policy, place).await?);
        }
        Ok((key, value))
    }

    async fn begin_quarantine(
        &mut self,
        topic: &str,
        letters: &str,
        relation: &Relation,
        reason: String,
    ) -> Result<(), Failure> {
        if let Some(partitions) = self.existing_topics.get(letters).filter(|partitions| **partitions != 1) {
            let found = format!("it has {partitions} partitions, and letters are only in order with one");
            return Err(Failure::new(Code::TopicUnfit, found).for_topic(letters));
        }
        self.ensure_topic(letters, TopicKind::OfDeadLetters { are_kept: true }).await?;
        let (_, end) = self.ask_topics(letters, TopicAdmin::offsets).await?;
        let retention = self.ask_topics(letters, |admin, letters| match admin.config_value(letters, "retention.ms") {
            // That it may not be read is no reason to stop.
            Err(error) if error.is_unauthorized() => Ok(None),
            outcome => outcome,
        });
        let retention_ms = retention.await?.unwrap_or_else(|| "unknown".to_owned());
        let table = format!("{}.{}", relation.schema, relation.name);
        warn!(
            table,
            topic,
            letters,
            "the table is in quarantine from here on: the registry refuses its schema, and its changes go to dead letters until the subject is \
             mended and `pgsluice release` is run: {reason}"
        );
        if retention_ms != "-1" {
            warn!(
                letters,
                retention_ms,
                "the topic of the table's dead letters was there before, and may lose what is older: set its retention.ms and retention.bytes to -1"
            );
        }
        let mut quarantine = lock(&self.quarantine);
        quarantine.begin(topic, Quarantined::new(table, letters.to_owned(), end, unix_ms(), &reason));
        self.metrics.quarantined(quarantine.iter().len());
        self.quarantine_has_grown = true;
        // The registry has answered, so that the stream waits for it no more.
        self.metrics.resumed();
        Ok(())
    }

    /// Refuses to go on where letters that are not released are gone: what comes now would be released without them.
    async fn look_for_letters(&self, topic: &str, entry: &Quarantined) -> Result<(), Failure> {
        let gone = |found: String| Err(Failure::new(Code::TopicMissing, found).for_topic(&entry.letters));
        let is_there = self.existing_topics.contains_key(&entry.letters) || self.ready_topics.contains(&entry.letters);
        if !is_there {
            return gone(format!("topic {topic} is in quarantine, and the topic of its dead letters is gone"));
        }
        let (first, end) = self.ask_topics(&entry.letters, TopicAdmin::offsets).await?;
        if entry.is_there(first, end) {
            return Ok(());
        }
        gone(format!(
            "topic {topic} is in quarantine, and its dead letters from offset {} to {} are wanted, but those that are there go from {first} to {end}",
            entry.next_offset, entry.end_offset
        ))
    }

    async fn ask_topics<T: Send + 'static>(
        &self,
        topic: &str,
        ask: impl FnOnce(&TopicAdmin, &str) -> Result<T, PublishError> + Send + 'static,
    ) -> Result<T, Failure> {
        let (admin, name) = (Arc::clone(&self.topics), topic.to_owned());
        spawn_blocking(move || ask(&admin, &name))
            .await
            .map_err(|error| Failure::caused(Code::Internal, error))?
            .map_err(|error| failure_of(&error, Duration::ZERO, Duration::MAX).for_topic(topic))
    }

    /// The list of tables in quarantine, if it has grown since the last call.
    pub(super) fn new_quarantine(&mut self) -> Option<Quarantine> {
        std::mem::take(&mut self.quarantine_has_grown).then(|| copy_of(&self.quarantine))
    }
}

fn lock(quarantine: &Mutex<Quarantine>) -> MutexGuard<'_, Quarantine> {
    // It is whole after every statement.
    quarantine.lock().unwrap_or_else(PoisonError::into_inner)
}
