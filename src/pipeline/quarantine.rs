//! How a table comes into quarantine, and stays in it. [`crate::quarantine`] has the argument.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use encoder::{BoundPlan, EncodeOptions, HeldBack, TableFacts, TablePlan};
use pgoutput::Relation;
use publisher::{Isolation, PublishError, TopicAdmin};
use tokio::task::spawn_blocking;
use tracing::{error, warn};
use walreceiver::Backoff;

use super::{
    letters::{Keeping, keep, look_for},
    publish::{failure_of, unix_ms},
    relations::{PAUSE_MAX, Relations, TopicKind},
};
use crate::{
    config::{OnIncompatible, TableIdentity},
    failure::{Code, Failure},
    failures,
    quarantine::{Missing, Quarantine, Quarantined},
};

/// How often it is said that tables are in quarantine.
const REMINDER_INTERVAL: Duration = Duration::from_mins(10);
/// The pauses between two looks at a topic that does not keep letters.
const LETTERS_PAUSE_FIRST: Duration = Duration::from_millis(250);
const LETTERS_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What the registry makes of a table's schemas.
enum Answer {
    /// Their ids.
    Accepted(Option<u32>, Option<u32>),
    /// It refuses them for this reason, and all is ready for letters.
    Refused(String),
}

/// Says so, now and again and again, and has the topics of their letters keep them, whatever became of those since.
pub(super) async fn remind_of(quarantine: &Mutex<Quarantine>, admin: &Arc<TopicAdmin>, letter_max_bytes: usize) {
    loop {
        let list = copy_of(quarantine);
        if !list.is_empty() {
            warn!(
                tables = list.tables(),
                "these tables are in quarantine: their changes go to dead letters. Mend their subjects, and run `pgsluice release`"
            );
            let admin = Arc::clone(admin);
            // Its calls block. Nothing follows from what it finds but what it says.
            let _whether_it_ended = spawn_blocking(move || {
                list.iter().for_each(|(_, entry)| keep_on(&admin, entry, letter_max_bytes));
            })
            .await;
        }
        tokio::time::sleep(REMINDER_INTERVAL).await;
    }
}

/// Has the topic of letters that wait keep them, and says aloud where it would not. The stream goes on: that it stopped
/// would help no letter.
fn keep_on(admin: &TopicAdmin, Quarantined { table, letters, .. }: &Quarantined, max_bytes: usize) {
    match keep(admin, letters, Keeping { is_ours: false, max_bytes }) {
        Ok(None) => {}
        Ok(Some(in_the_way)) => {
            error!(table, letters, "the changes of a table in quarantine may be lost at any time: {in_the_way}");
        }
        Err(error) => warn!(
            table,
            letters,
            "whether the changes of a table in quarantine are kept for as long as they wait cannot be looked at: {error}"
        ),
    }
}

/// Says which tables were in quarantine in a history that is over, whose letters nobody will release.
pub(super) fn warn_of_stale_quarantine(stale: &BTreeMap<String, Vec<u8>>) {
    match Quarantine::read(stale) {
        Ok(quarantine) => {
            for (topic, entry) in quarantine.iter() {
                warn!(
                    table = entry.table,
                    topic,
                    letters = entry.letters,
                    from_offset = entry.next_offset,
                    "the table was in quarantine before its checkpoint was removed, and is no more: what waits in its dead letters will be in its \
                     topic only if somebody writes it"
                );
            }
        }
        Err(found) => warn!("tables may have been in quarantine before the checkpoint was removed: {found}"),
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
        self.refuse_other_topic(&topic, relation)?;
        let entry = lock(&self.quarantine).get(&topic).cloned();
        if entry.is_some() && !self.waits {
            // Only the stream holds back, and knows the topic of letters that it has made.
            return Err(Failure::new(
                Code::RegistryIncompatible,
                "the table is in quarantine: it is copied once it was released",
            ));
        }
        let in_front = lock(&self.quarantine).in_front(relation.id, &topic).map(str::to_owned);
        let reason = match &entry {
            Some(entry) => {
                self.letters_of(&plan, relation).await?;
                entry.reason.clone()
            }
            None => match self.accept_or_prepare(&plan, policy, relation, in_front.as_deref()).await? {
                Answer::Accepted(key, value) => return plan.bind(key, value).map_err(failures::of_plan),
                Answer::Refused(reason) => reason,
            },
        };
        let (names, is_certain) = (identity.names.as_slice(), identity.is_certain);
        let held = HeldBack { relation, facts, options, names, is_certain };
        let plan = plan.hold_back(&held).map_err(failures::of_plan)?;
        if let Some(entry) = entry {
            self.look_for_letters(&topic, &entry).await?;
            let max_bytes = self.letter_max_bytes;
            let keeping = move |admin: &TopicAdmin, _: &str| {
                keep_on(admin, &entry, max_bytes);
                Ok(())
            };
            self.ask_topics(&topic, keeping).await?;
        } else {
            let letters = plan.plan().dead_letter_topic().map_or("", |letters| letters);
            self.begin_quarantine(&topic, letters, relation, &reason, in_front).await?;
        }
        self.quarantine_has_grown |= lock(&self.quarantine).note(&topic, relation.id);
        Ok(plan)
    }

    /// Refuses to go on in another topic than that for which letters of the table wait: what comes now would be in front of them.
    fn refuse_other_topic(&self, topic: &str, relation: &Relation) -> Result<(), Failure> {
        let table = format!("{}.{}", relation.schema, relation.name);
        let quarantine = lock(&self.quarantine);
        let Some(other) = quarantine.elsewhere(&table, topic) else { return Ok(()) };
        let found =
            format!("its letters wait for topic {other}, and the configuration has its changes in topic {topic} now");
        Err(Failure::new(Code::QuarantineRerouted, found).in_table(&relation.schema, &relation.name).for_topic(topic))
    }

    /// Whether letters of the table wait, so that its schemas are not to be registered, or it is to have another topic.
    pub(super) fn holds_back(&self, topic: &str, relation: &Relation) -> bool {
        self.refuse_other_topic(topic, relation).is_err() || lock(&self.quarantine).get(topic).is_some()
    }

    /// The topic of a table's letters, which is no other's.
    async fn letters_of(&mut self, plan: &TablePlan, relation: &Relation) -> Result<String, Failure> {
        let letters = plan.letters_topic().map_err(failures::of_plan)?;
        self.refuse_shared_topic(&letters, relation).await?;
        Ok(letters)
    }

    /// Registers the schemas; or, where they are refused and the policy is so, or where changes of the table wait for the topic `in_front`, has all
    /// ready for letters. Where these would not be kept, the stream waits for one or the other, as it does with the policy `stop`.
    async fn accept_or_prepare(
        &mut self,
        plan: &TablePlan,
        policy: OnIncompatible,
        relation: &Relation,
        in_front: Option<&str>,
    ) -> Result<Answer, Failure> {
        let (began, mut has_waited) = (Instant::now(), false);
        let mut backoff = Backoff::new(LETTERS_PAUSE_FIRST, LETTERS_PAUSE_MAX);
        loop {
            let refused = match in_front {
                Some(topic) => {
                    let found =
                        format!("the table was renamed, and its changes from before that wait for topic {topic}");
                    Failure::new(Code::RegistryIncompatible, found).in_table(&relation.schema, &relation.name)
                }
                None => match self.register_all(plan, policy, relation).await {
                    Ok((key, value)) => {
                        if has_waited {
                            self.metrics.resumed();
                        }
                        return Ok(Answer::Accepted(key, value));
                    }
                    Err(failure) => failure,
                },
            };
            let holds_back = policy == OnIncompatible::Quarantine || in_front.is_some();
            if !(self.waits && holds_back && refused.code() == Code::RegistryIncompatible) {
                return Err(refused);
            }
            let reason = refused.found().to_owned();
            let letters = self.letters_of(plan, relation).await?;
            let Some(in_the_way) = self.prepare_letters(&letters).await? else { return Ok(Answer::Refused(reason)) };
            let found = format!("{reason}; and the table cannot come into quarantine: {in_the_way}");
            let failure = Failure::new(Code::RegistryIncompatible, found)
                .in_table(&relation.schema, &relation.name)
                .for_topic(letters);
            self.metrics.paused(&failure);
            has_waited = true;
            if began.elapsed() > PAUSE_MAX {
                return Err(failure);
            }
            let pause = backoff.next_wait();
            warn!(code = failure.code().as_str(), pause_ms = pause.as_millis(), "the stream waits: {failure}");
            tokio::time::sleep(pause).await;
        }
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

    /// Makes sure of the topic of letters, and that it keeps them. Returns what is in the way, if anything is.
    async fn prepare_letters(&mut self, letters: &str) -> Result<Option<String>, Failure> {
        if let Some(partitions) = self.session_topics.partitions(letters).filter(|partitions| *partitions != 1) {
            let found = format!("it has {partitions} partitions, and letters are only in order with one");
            return Err(Failure::new(Code::TopicUnfit, found).for_topic(letters));
        }
        let is_ours = self.ensure_topic(letters, TopicKind::OfDeadLetters { are_kept: true }).await?;
        let wanted = Keeping { is_ours, max_bytes: self.letter_max_bytes };
        self.ask_topics(letters, move |admin, letters| keep(admin, letters, wanted)).await
    }

    async fn begin_quarantine(
        &mut self,
        topic: &str,
        letters: &str,
        relation: &Relation,
        reason: &str,
        in_front: Option<String>,
    ) -> Result<(), Failure> {
        let (_, end) = self.ask_topics(letters, TopicAdmin::offsets).await?;
        let table = format!("{}.{}", relation.schema, relation.name);
        warn!(
            table,
            topic,
            letters,
            "the table is in quarantine from here on, and its changes go to dead letters until the subject is mended and `pgsluice release` is run: \
             {reason}"
        );
        let mut quarantine = lock(&self.quarantine);
        let entry = Quarantined::new(table, letters.to_owned(), end, unix_ms(), reason).behind(in_front);
        quarantine.begin(topic, entry);
        self.metrics.quarantined(&quarantine);
        self.quarantine_has_grown = true;
        // The registry has answered, so that the stream waits for it no more.
        self.metrics.resumed();
        Ok(())
    }

    /// Refuses to go on where the topic of letters is not what it was: those that come now may get in front of what there is. Where the first of them
    /// are gone and the others are there, these go on to be kept, and a release is refused.
    async fn look_for_letters(&self, topic: &str, entry: &Quarantined) -> Result<(), Failure> {
        let wanted = entry.clone();
        let look = move |admin: &TopicAdmin, _: &str| look_for(admin.settings(), &wanted, Isolation::Committed);
        let Some(missing) = self.ask_topics(&entry.letters, look).await?.missing else { return Ok(()) };
        let failure = Failure::new(Code::LettersMissing, format!("topic {topic} is in quarantine: {missing}"))
            .for_topic(&entry.letters);
        if !matches!(missing, Missing::First(_)) {
            return Err(failure);
        }
        error!(
            code = failure.code().as_str(),
            table = entry.table,
            "the stream goes on, and keeps the letters that are there: {failure}"
        );
        Ok(())
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
