//! `pgsluice release`: the changes of tables in quarantine become the events that they would have been.
//!
//! It takes the stream's place, as another instance would, once it has seen that there is something to release: its `init_transactions` ends what
//! the stream left open, and fences it. It reads which tables are in quarantine with the checkpoint, and each table's letters from where its entry
//! says. First all of them are made into events that nobody sees, with their schemas registered: if anything is in the way, nothing is changed, and
//! the next table is looked at. Then it is done again, some letters to a Kafka transaction, each with the entry as it is behind them and with the
//! checkpoint, which stays at its position.
//! [`crate::quarantine`] says why an interruption does no harm.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc, time::Duration};

use encoder::{BoundPlan, HeldChange, HeldError, HeldShape, Naming, RecordBatch, TableFacts};
use pgoutput::Lsn;
use publisher::{
    Attachment, Checkpoint, CheckpointTopic, Held, Isolation, KafkaSettings, LogReader, MemoryBudget, OutgoingRecord,
    Producer, PublishError, headers_cost, record_cost,
};
use tokio::task::spawn_blocking;
use tracing::info;

use super::{
    letters,
    publish::{failure_of, unix_ms, unix_ns},
    supervisor::kafka_settings,
};
use crate::{
    catalog::Catalog,
    config::{Config, Shaping, TableIdentity},
    failure::{Code, Failure},
    failures, fault,
    quarantine::{Quarantine, Quarantined},
    schemas::Schemas,
};

/// How many bytes of letters are in memory at once, but for one that is larger.
const CHUNK_BYTES_MAX: usize = 4 << 20;
/// How long transactions that are open in a topic of letters may be waited for; only a dead instance leaves one, and it is ended first.
const STABLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Which tables are to be released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Those that are in quarantine.
    All,
    /// These: each as `schema.table`, or by its topic.
    Tables(Vec<String>),
}

/// What the stream's place is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To write what waits, for which there has to be a registry.
    Release,
    /// To give it up.
    Discard,
}

/// What became of one table.
#[derive(Debug)]
pub struct Outcome {
    /// `schema.table`
    pub table: String,
    /// Its topic.
    pub topic: String,
    /// What was done.
    pub done: Done,
}

/// What was done for a table.
#[derive(Debug)]
pub enum Done {
    /// So many changes were released by this run, and it is in quarantine no more.
    Released(u64),
    /// It is in quarantine still, for this reason.
    Refused(Failure),
    /// The one before it has failed so that nothing more could be written.
    Untried,
}

/// A release that has taken the stream's place.
pub struct Release {
    config: Config,
    pub(super) kafka: KafkaSettings,
    schemas: Schemas,
    naming: Naming,
    shaping: Shaping,
    topic: CheckpointTopic,
    budget: Arc<MemoryBudget>,
    /// None once a call has failed.
    producer: Option<Producer>,
    checkpoint: Checkpoint,
    pub(super) quarantine: Quarantine,
}

/// The plan for letters of one shape.
struct Planned {
    shape: HeldShape,
    /// Those of the shape, but for columns that turned out to be null.
    facts: TableFacts,
    plan: BoundPlan,
}

/// Some letters, and the offset behind them.
pub(super) struct Chunk {
    pub(super) reader: LogReader,
    pub(super) letters: Vec<(i64, Result<Option<HeldChange>, HeldError>)>,
}

impl Release {
    /// Takes the stream's place, if there is anything to release: from here on an instance that runs is fenced. Unless it is `forced`, it is made
    /// sure first that none reads from the slot. Whatever else can be known to be in the way is looked at before anybody is fenced.
    ///
    /// # Errors
    /// A table is not in quarantine, the checkpoint is of another database or slot, an instance runs, or Kafka, the registry or PostgreSQL cannot be
    /// reached.
    pub async fn begin(
        config: Config,
        schemas: Schemas,
        wanted: &Wanted,
        purpose: Purpose,
        forced: bool,
    ) -> Result<Option<Self>, Failure> {
        let seen = look_for(&config, wanted).await?;
        if seen.entries.is_empty() {
            return Ok(None);
        }
        refuse_other_stream(&config, &seen.checkpoint)?;
        if !forced {
            refuse_beside_a_stream(&config).await?;
        }
        if purpose == Purpose::Release {
            schemas.prepare().await?;
        }
        let kafka = kafka_settings(&config);
        let topic = CheckpointTopic::new(config.kafka.checkpoint_topic.as_str());
        let budget = Arc::new(MemoryBudget::new(usize::try_from(config.memory_limit_bytes).unwrap_or(usize::MAX)));
        let (settings, its_topic, its_budget) = (kafka.clone(), topic.clone(), Arc::clone(&budget));
        let (producer, held) = blocking(move || {
            let producer = Producer::connect(&settings, its_budget)?;
            let held = its_topic.read(&settings)?;
            Ok((producer, held))
        })
        .await?;
        let quarantine = Quarantine::read(&held.attachments);
        let quarantine = quarantine.map_err(|found| Failure::new(Code::CheckpointCorrupt, found))?;
        let renewal = quarantine.renewal(&held.attachments);
        let Some(checkpoint) = held.checkpoint else {
            return Err(no_checkpoint());
        };
        // It may be another since it was seen.
        refuse_other_stream(&config, &checkpoint)?;
        let mut release = Self {
            naming: Naming::new(config.name.as_str(), config.postgres.connect.database()),
            shaping: Shaping::new(&config),
            checkpoint: Checkpoint { instance: uuid::Uuid::new_v4().to_string(), forced: false, ..checkpoint },
            producer: Some(producer),
            config,
            kafka,
            schemas,
            topic,
            budget,
            quarantine,
        };
        // Whoever is fenced can see by whom.
        release.commit(RecordBatch::new(), renewal).await?;
        Ok(Some(release))
    }

    /// Releases tables, one after another. Of one that is refused all changes that were not released are in quarantine still, in order, and the
    /// others do not wait for it.
    ///
    /// # Errors
    /// Nothing could be begun: a table is not in quarantine any more.
    pub async fn run(&mut self, wanted: &Wanted) -> Result<Vec<Outcome>, Failure> {
        let mut outcomes = Vec::new();
        for (topic, entry) in in_order(wanted.chosen(&self.quarantine)?) {
            // Without a producer nothing is known of what it did last.
            let done = if self.producer.is_none() {
                Done::Untried
            } else {
                match self.release(&topic, &entry).await {
                    Ok(changes) => Done::Released(changes),
                    Err(failure) => Done::Refused(match entry.table.split_once('.') {
                        Some((schema, table)) => failure.in_table(schema, table),
                        None => failure,
                    }),
                }
            };
            outcomes.push(Outcome { table: entry.table, topic, done });
        }
        Ok(outcomes)
    }

    async fn release(&mut self, topic: &str, entry: &Quarantined) -> Result<u64, Failure> {
        if let Some(other) = self.quarantine.waits_behind(topic) {
            let found = format!(
                "the table was renamed while its changes waited for topic {other}, which come first: release or discard {other}"
            );
            return Err(Failure::new(Code::NotReleased, found).for_topic(topic));
        }
        let end = self.look_for_letters(entry).await?;
        let changes = self.pass(topic, entry, end, None).await?;
        info!(table = entry.table, topic, changes, "everything can be released");
        self.pass(topic, entry, end, Some(changes)).await?;
        info!(table = entry.table, topic, changes, "released");
        Ok(changes)
    }

    /// The end of a table's letters, which are all there.
    async fn look_for_letters(&self, entry: &Quarantined) -> Result<i64, Failure> {
        let (settings, wanted) = (self.kafka.clone(), entry.clone());
        let found = blocking(move || letters::look_for(&settings, &wanted, Isolation::Uncommitted)).await;
        let found = found.map_err(|failure| failure.for_topic(&entry.letters))?;
        match (found.missing, found.bounds) {
            (None, Some((_, end))) => Ok(end),
            (missing, _) => {
                let found = missing.map_or_else(String::new, |missing| missing.to_string());
                Err(Failure::new(Code::LettersMissing, found).for_topic(&entry.letters))
            }
        }
    }

    /// Makes the letters of a table into events, and returns how many changes they were. The events are committed if the letters were `counted`
    /// by an earlier pass, and then they have to be as many; before that nobody sees them.
    async fn pass(&mut self, topic: &str, entry: &Quarantined, end: i64, counted: Option<u64>) -> Result<u64, Failure> {
        let mut reader =
            LogReader::new(&self.kafka, entry.letters.as_str(), Isolation::Committed).starting_at(entry.next_offset);
        let (mut changes, mut planned, mut newest) = (0, None, (Lsn::INVALID, 0));
        loop {
            let chunk = read_chunk(reader, end, self.config.kafka.transaction.max_records).await;
            let chunk = chunk.map_err(|failure| failure.for_topic(&entry.letters))?;
            reader = chunk.reader;
            let mut batch = RecordBatch::new();
            for (offset, letter) in chunk.letters {
                let refused = |failure: Failure| failure.for_topic(format!("{} at offset {offset}", entry.letters));
                let Some(change) = letter.map_err(|error| refused(of_held(error)))? else { continue };
                if change.identity() <= newest {
                    let (commit_lsn, ordinal) = change.identity();
                    let found = format!("the change {commit_lsn}:{ordinal} is there behind a later one, or twice");
                    return Err(refused(Failure::new(Code::NotReleased, found)));
                }
                newest = change.identity();
                planned = Some(self.encode(topic, planned, &change, &mut batch).await.map_err(refused)?);
                changes += 1;
            }
            self.refuse_too_large(&batch)?;
            let is_last = reader.next() >= end;
            if let Some(counted) = counted {
                if is_last && changes != counted {
                    let found = format!("{counted} changes were there at the first look, and {changes} at the second");
                    return Err(Failure::new(Code::LettersMissing, found).for_topic(&entry.letters));
                }
                self.quarantine.advance(topic, reader.next());
                let freed = if is_last { self.quarantine.end(topic) } else { Vec::new() };
                let entries = freed.iter().map(String::as_str).chain([topic]);
                let entries = entries.map(|topic| self.quarantine.attachment(topic)).collect();
                self.commit(batch, entries).await?;
            }
            if is_last {
                return Ok(changes);
            }
        }
    }

    /// Refuses records that are larger than they may be, before anything is written: letters may be larger.
    fn refuse_too_large(&self, batch: &RecordBatch) -> Result<(), Failure> {
        let max_bytes = self.kafka.record_max_bytes();
        for record in batch.iter() {
            let headers: Vec<(&str, &[u8])> = record.headers().collect();
            let (topic, key, value, lsn) = (&**record.topic, record.key, record.value, record.lsn);
            let record = OutgoingRecord { topic, key, value, headers: &headers, is_letter: false, lsn };
            let fits = record.refuse_beyond(max_bytes);
            fits.map_err(|error| failure_of(&error, Duration::ZERO, Duration::MAX))?;
        }
        Ok(())
    }

    /// Encodes one change. A row that is null where the catalog said that it cannot be comes from before that was so, as in the stream.
    async fn encode(
        &self,
        topic: &str,
        planned: Option<Planned>,
        change: &HeldChange,
        batch: &mut RecordBatch,
    ) -> Result<Planned, Failure> {
        let mut planned = match planned.filter(|planned| planned.shape == *change.shape()) {
            Some(planned) => planned,
            None => self.plan(topic, change.shape().clone(), change.shape().facts.clone()).await?,
        };
        loop {
            let error = match change.encode(&planned.plan, unix_ns(), batch) {
                Ok(()) => return Ok(planned),
                Err(error) => error,
            };
            let column = match &error {
                HeldError::Encode(error) => error.null_in_not_null(),
                _ => None,
            };
            let Planned { shape, mut facts, .. } = planned;
            if !column.is_some_and(|column| facts.make_optional(column)) {
                return Err(of_held(error));
            }
            planned = self.plan(topic, shape, facts).await?;
        }
    }

    /// Compiles a plan and registers its schemas. While the registry refuses, so does this.
    async fn plan(&self, topic: &str, shape: HeldShape, facts: TableFacts) -> Result<Planned, Failure> {
        let identity = TableIdentity { names: shape.names.clone(), is_certain: shape.is_certain };
        let columns = shape.relation.columns.iter().map(|column| column.name.as_str());
        let options = self.shaping.options(&identity, columns);
        let plan = shape.compile(&facts, &self.naming, &options).map_err(of_held)?;
        if **plan.topic() != *topic {
            let found = format!(
                "the configuration has its changes in topic {} now: route them as they were until they are released",
                plan.topic()
            );
            return Err(Failure::new(Code::NotReleased, found).for_topic(topic));
        }
        let mut ids = [None; 2];
        let schemas = [("key", plan.key_schema()), ("value", plan.value_schema())];
        for (id, (what, schema)) in ids.iter_mut().zip(schemas) {
            let Some(schema) = schema else { continue };
            let registered = self.schemas.register(&format!("{topic}-{what}"), schema.json()).await;
            *id = Some(registered.map_err(|refusal| Failure::new(refusal.code, refusal.found))?.get());
        }
        let plan = plan.bind(ids[0], ids[1]).map_err(failures::of_plan)?;
        Ok(Planned { shape, facts, plan })
    }

    /// Commits records, what changes of the tables in quarantine, and the checkpoint.
    pub(super) async fn commit(&mut self, batch: RecordBatch, attachments: Vec<Attachment>) -> Result<(), Failure> {
        let Some(producer) = self.producer.take() else {
            return Err(Failure::new(Code::Internal, "the producer was used after it had failed"));
        };
        self.checkpoint.written_at_ms = unix_ms();
        let (topic, checkpoint) = (self.topic.clone(), self.checkpoint.clone());
        let budget = Arc::clone(&self.budget);
        let producer = blocking(move || {
            let mut transaction = producer.begin()?;
            for (index, record) in batch.iter().enumerate() {
                let headers: Vec<(&str, &[u8])> = record.headers().collect();
                let cost = headers_cost(headers.iter().map(|(name, value)| (name.len(), value.len())));
                // One chunk is all that is ever charged.
                budget.charge(record_cost(
                    record.key.map_or(0, <[u8]>::len),
                    record.value.map_or(0, <[u8]>::len),
                    cost,
                ));
                let (topic, key, value, lsn) = (&**record.topic, record.key, record.value, record.lsn);
                let outgoing = OutgoingRecord { topic, key, value, headers: &headers, is_letter: false, lsn };
                let sent = if record.is_for_all_partitions {
                    transaction.send_everywhere(&outgoing)
                } else {
                    transaction.send(&outgoing)
                };
                let outcome = if index % 512 == 511 { sent.and_then(|()| transaction.poll()) } else { sent };
                if let Err(error) = outcome {
                    transaction.abort();
                    return Err(error);
                }
            }
            let prepared = transaction.prepare(topic.name(), &checkpoint, &attachments)?;
            fault::point(fault::Point::BeforeCommit);
            fault::point(fault::Point::DuringCommit);
            let producer = prepared.commit()?;
            fault::point(fault::Point::AfterCommit);
            Ok(producer)
        })
        .await?;
        self.producer = Some(producer);
        Ok(())
    }
}

/// Another database or slot than the stream's would have other names put into its events, and the wrong slot asked for an instance that runs.
fn refuse_other_stream(config: &Config, checkpoint: &Checkpoint) -> Result<(), Failure> {
    let (database, slot) = (config.postgres.connect.database(), config.postgres.slot.as_str());
    for (what, held, found) in [("database", &checkpoint.database, database), ("slot", &checkpoint.slot, slot)] {
        if held != found {
            let found = format!("the checkpoint was written for {what} {held}, and this is {what} {found}");
            return Err(Failure::new(Code::CheckpointMismatch, found));
        }
    }
    Ok(())
}

/// An instance that runs would be fenced, and would end or take the place back. So somebody has to stop it.
async fn refuse_beside_a_stream(config: &Config) -> Result<(), Failure> {
    let slot = &config.postgres.slot;
    let mut catalog = Catalog::new(Arc::new(config.postgres.connect.clone()));
    match catalog.slot_state(slot).await?.and_then(|state| state.active_pid) {
        None => Ok(()),
        Some(pid) => Err(Failure::new(
            Code::SlotActive,
            format!(
                "pid {pid} reads from slot {slot}: stop the stream first; --force fences it, whatever it does then"
            ),
        )),
    }
}

impl Wanted {
    /// The entries, with their topics.
    pub(super) fn chosen(&self, quarantine: &Quarantine) -> Result<Vec<(String, Quarantined)>, Failure> {
        let owned = |(topic, entry): (&str, &Quarantined)| (topic.to_owned(), entry.clone());
        let Self::Tables(names) = self else { return Ok(quarantine.iter().map(owned).collect()) };
        let mut chosen = BTreeMap::new();
        for name in names {
            match quarantine.named(name).collect::<Vec<_>>()[..] {
                [one] => chosen.extend([owned(one)]),
                [] => {
                    let found = match quarantine.tables() {
                        others if others.is_empty() => format!("table {name} is not in quarantine, and no other is"),
                        others => format!("table {name} is not in quarantine; these are: {others}"),
                    };
                    return Err(Failure::new(Code::NotInQuarantine, found));
                }
                ref several => {
                    let topics: Vec<&str> = several.iter().map(|(topic, _)| *topic).collect();
                    let found = format!("letters of {name} wait for the topics {}", topics.join(" and "));
                    return Err(Failure::new(Code::TableAmbiguous, found));
                }
            }
        }
        Ok(chosen.into_iter().collect())
    }
}

/// Each behind that for which changes of its table wait from before it was renamed, if that is to be released too.
fn in_order(mut chosen: Vec<(String, Quarantined)>) -> Vec<(String, Quarantined)> {
    let mut ordered = Vec::with_capacity(chosen.len());
    while !chosen.is_empty() {
        let is_behind = |entry: &Quarantined| chosen.iter().any(|(topic, _)| entry.behind.as_deref() == Some(topic));
        // An entry is behind one that was there before it, so that there is always one that is behind none.
        let first = chosen.iter().position(|(_, entry)| !is_behind(entry)).unwrap_or_default();
        ordered.push(chosen.remove(first));
    }
    ordered
}

/// What was seen beside the newest checkpoint.
pub(super) struct Seen {
    /// The entries of what is wanted, with their topics.
    pub(super) entries: Vec<(String, Quarantined)>,
    checkpoint: Checkpoint,
}

/// What is in quarantine of what is wanted, as far as it can be told without fencing anybody. What can be read at once may be stale, where an
/// instance has died: so that something is not there is said only of what was waited for.
pub(super) async fn look_for(config: &Config, wanted: &Wanted) -> Result<Seen, Failure> {
    let (kafka, topic) = (kafka_settings(config), CheckpointTopic::new(config.kafka.checkpoint_topic.as_str()));
    let seen = |held: Held| {
        let quarantine = Quarantine::read(&held.attachments);
        let quarantine = quarantine.map_err(|found| Failure::new(Code::CheckpointCorrupt, found))?;
        let checkpoint = held.checkpoint.ok_or_else(no_checkpoint)?;
        Ok(Seen { entries: wanted.chosen(&quarantine)?, checkpoint })
    };
    let (settings, its_topic) = (kafka.clone(), topic.clone());
    let peeked = seen(blocking(move || its_topic.peek(&settings)).await?);
    if let Ok(found) = peeked
        && !found.entries.is_empty()
    {
        return Ok(found);
    }
    seen(blocking(move || topic.read(&kafka)).await?)
}

fn no_checkpoint() -> Failure {
    Failure::new(Code::NotInQuarantine, "Kafka holds no checkpoint for this stream")
}

/// Reads on to the end, or until there is enough for one transaction.
pub(super) async fn read_chunk(mut reader: LogReader, end: i64, records_max: u64) -> Result<Chunk, Failure> {
    let read = blocking(move || {
        let (mut letters, mut bytes) = (Vec::new(), 0);
        let outcome = reader.read_while(end, STABLE_TIMEOUT, |offset, _, value| {
            bytes += value.map_or(0, <[u8]>::len);
            letters.push((offset, value.map_or(Ok(None), HeldChange::read)));
            let is_enough = bytes >= CHUNK_BYTES_MAX || letters.len() as u64 >= records_max;
            if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match outcome {
            Ok(()) => Ok(Ok(Chunk { reader, letters })),
            Err(error) if error.is_offset_gone() => Ok(Err(reader.next())),
            Err(error) => Err(error),
        }
    })
    .await?;
    read.map_err(|offset| {
        let found = format!("the dead letters from offset {offset} on were removed while they were read");
        Failure::new(Code::LettersMissing, found)
    })
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PublishError> + Send + 'static,
) -> Result<T, Failure> {
    spawn_blocking(work)
        .await
        .map_err(|error| Failure::caused(Code::Internal, error))?
        .map_err(|error| failure_of(&error, Duration::ZERO, Duration::MAX))
}

fn of_held(error: HeldError) -> Failure {
    match error {
        HeldError::Plan(error) => failures::of_plan(error),
        HeldError::Encode(error) => failures::of_encode(&error),
        HeldError::Malformed(_) | HeldError::Hidden { .. } | HeldError::EventCount { .. } => {
            Failure::new(Code::NotReleased, error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_stands_for_several_topics_is_refused() {
        let mut quarantine = Quarantine::default();
        for (topic, table) in [("a", "public.item"), ("b", "public.other"), ("c", "public.item")] {
            quarantine.begin(topic, Quarantined::new(table.into(), format!("{topic}.dead-letters"), 0, 0, "no"));
        }
        let chosen = |names: &[&str]| {
            let wanted = Wanted::Tables(names.iter().map(|name| (*name).to_owned()).collect());
            let chosen = wanted.chosen(&quarantine).map_err(|failure| failure.code())?;
            Ok(chosen.into_iter().map(|(topic, _)| topic).collect::<Vec<_>>())
        };
        assert_eq!(chosen(&["public.other", "b"]), Ok(vec!["b".to_owned()]));
        assert_eq!(chosen(&["c", "a"]), Ok(vec!["a".to_owned(), "c".to_owned()]));
        assert_eq!(chosen(&["b", "public.item"]), Err(Code::TableAmbiguous));
        assert_eq!(chosen(&["a", "public.third"]), Err(Code::NotInQuarantine));
        assert_eq!(Wanted::All.chosen(&quarantine).map(|all| all.len()).ok(), Some(3));
    }

    #[test]
    fn what_waits_in_front_is_released_first() {
        let entry = |topic: &str, behind: Option<&str>| {
            let entry = Quarantined::new("public.item".into(), format!("{topic}.dead-letters"), 0, 0, "no");
            (topic.to_owned(), entry.behind(behind.map(str::to_owned)))
        };
        let chosen = vec![entry("a", Some("c")), entry("b", Some("gone")), entry("c", Some("d")), entry("d", None)];
        let ordered: Vec<String> = in_order(chosen).into_iter().map(|(topic, _)| topic).collect();
        assert_eq!(ordered, ["b", "d", "c", "a"]);
    }
}
