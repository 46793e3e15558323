//! Topics that are emptied by an event that their tables were: before a table is copied, or where a copy will never be whole; and what becomes of
//! tables that are not streamed any more.

use std::{sync::Arc, time::Duration};

use encoder::{RecordBatch, SnapshotContext, SnapshotKind};
use pgoutput::{Lsn, Oid, Timestamp};
use tokio::{sync::oneshot, task::spawn_blocking};
use tracing::{error, warn};

use super::{
    Copier,
    chunk::Encoding,
    session_over,
    table::{Copying, Step, words},
};
use crate::{
    failure::{Code, Failure},
    failures,
    pipeline::publish::{failure_of, unix_ms, unix_ns},
    snapshot::{Emptied, Happened, Notice, Request, Spoilt, TableRecord},
};

impl Copier {
    /// Why the topic cannot be told that the table is empty, and then its rows if there are to be any.
    pub(super) async fn obstacle(&self, encoding: &Encoding, with_rows: bool) -> Result<Option<&'static str>, Failure> {
        let plan = encoding.plan.plan();
        Ok(if plan.unfit().is_some() {
            Some("and of the table as it is nothing can be written but dead letters")
        } else if !plan.can_empty() {
            Some("which the envelope cannot say, or events.skip leaves out")
        } else if with_rows && !plan.writes_reads() {
            Some("and events.skip leaves out its rows")
        } else if plan.has_key() && self.is_compacted(plan.topic()).await? {
            Some("which is a record without a key, that a compacted topic refuses")
        } else {
            None
        })
    }

    /// Empties the topic, if it holds anything, before the first chunk of a table that is copied by its key. Some if that has to be, and cannot.
    pub(super) async fn empty_first(
        &self,
        copying: &mut Copying,
        encoding: &Encoding,
    ) -> Result<Option<Step>, Failure> {
        let TableRecord { schema, table, .. } = &copying.ahead;
        let emptied = match self.obstacle(encoding, true).await? {
            Some(obstacle) if copying.record.empty_first => {
                let why = format!("what was written before has to be taken out of its topic by a TRUNCATE, {obstacle}");
                return Ok(Some(Step::Impossible(why)));
            }
            Some(obstacle) => {
                error!(
                    schema,
                    table,
                    "the table was out of publication {}, and what was changed meanwhile was not streamed. Its rows are copied anew, but its topic cannot \
                     be told before that it was emptied, by a TRUNCATE, {obstacle}: rows that were deleted meanwhile, or do not belong to it any more, stay in \
                     its topic. Compare its keys with the table, and write a tombstone for each that is gone",
                    self.publication
                );
                None
            }
            None if self.holds_anything(encoding, false).await? => {
                let lsn = self.asking.lock().await.flush_lsn().await?;
                Some(emptied(encoding, &context_at(lsn))?)
            }
            None => None,
        };
        let record = copying.record.emptied();
        let (attachment, (is_emptied, answer)) = (record.attachment(copying.oid), oneshot::channel());
        self.request(Request::Empty { table: copying.oid, emptied, record: attachment, is_emptied }).await?;
        if !answer.await.map_err(|_| session_over())? {
            return Ok(Some(Step::Again(words(Spoilt::HeldBack).to_owned())));
        }
        self.state().progress.tables.insert(copying.oid.into(), record.clone());
        copying.record = record;
        copying.ahead = copying.ahead.emptied();
        Ok(None)
    }

    async fn is_compacted(&self, topic: &str) -> Result<bool, Failure> {
        let (admin, name) = (Arc::clone(&self.topics), topic.to_owned());
        let config = blocking(topic, move || admin.config(&name)).await?;
        Ok(config.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")))
    }

    /// Whether the topic holds anything: what was to be written to it is.
    pub(super) async fn holds_anything(&self, encoding: &Encoding, is_dirty: bool) -> Result<bool, Failure> {
        let admin = Arc::clone(&self.topics);
        let (topic, name) = (encoding.plan.plan().topic(), encoding.plan.plan().topic().to_string());
        let (partitions, is_unwritten) = blocking(topic, move || {
            let partitions = admin.partitions(&name)?.unwrap_or_default();
            Ok((partitions, partitions > 0 && admin.is_unwritten(&name, partitions)?))
        })
        .await?;
        if partitions == 0 {
            return Err(Failure::new(Code::KafkaUnavailable, "the topic is not known yet").for_topic(&**topic));
        }
        Ok(is_dirty || !is_unwritten)
    }

    /// A table is not streamed any more.
    pub(super) async fn leave(&self, oid: Oid) -> Result<(), Failure> {
        let record = self.state().progress.tables.get(&oid.into()).cloned();
        match record {
            Some(record) if record.is_owed() => self.leave_owed(oid, record).await,
            Some(record) => {
                let is_cut_short = record.is_going_on();
                let told = is_cut_short.then(|| Notice::of_table(Happened::Aborted, &record));
                // One of which nothing was written, or that nobody copies by himself, is then as if it were new.
                let has_written = record.rows > 0 || record.after.is_some() || record.ended_at_ms.is_some();
                let is_kept = (has_written || record.empties_first()) && self.state().is_copied_unasked(oid);
                if !is_kept || self.asking.lock().await.existing_tables(&[oid]).await?.is_empty() {
                    self.forget(oid, told).await?;
                    if is_cut_short {
                        self.tell_cut_short(&record);
                    }
                    return Ok(());
                }
                let TableRecord { schema, table, .. } = &record;
                warn!(
                    schema,
                    table,
                    "the table was taken out of publication {}: it is not streamed any more. Should it be put back, its rows are copied anew, behind a \
                     TRUNCATE event if its topic takes one",
                    self.publication
                );
                self.put_away(oid, &record, told).await
            }
            None => self.forget(oid, None).await,
        }
    }

    /// What was copied of it stays: each row was in the table, and what became of it until the table was gone was streamed. So it is with a
    /// table that goes once all of it is copied.
    fn tell_cut_short(&self, record: &TableRecord) {
        let TableRecord { schema, table, rows, .. } = record;
        let found = format!("the table is gone, of which {rows} rows were copied");
        let failure = Failure::new(Code::SnapshotTableGone, found).in_table(schema, table);
        self.metrics.copy_failed(&failure);
        warn!(code = failure.code().as_str(), schema, table, rows, "the rest of the table is not copied: {failure}");
    }

    /// The same of one that is owed a copy at once: see [`AtOnce`](crate::snapshot::AtOnce).
    async fn leave_owed(&self, oid: Oid, record: TableRecord) -> Result<(), Failure> {
        let TableRecord { schema, table, .. } = &record;
        if !self.have_writers_ended(oid).await? {
            // The next look finds it gone still.
            return Ok(());
        }
        let until = self.log_end().await?;
        let emptied = match self.emptied_of(oid, &record, until).await {
            Ok(Ok(emptied)) => {
                let outcome = if emptied.is_some() {
                    "what its topic has of it is taken out by a TRUNCATE event, since it is a part of a copy, or lacks what was left out for one"
                } else {
                    "its topic is gone, too"
                };
                warn!(schema, table, "the table is not streamed any more, and not copied: {outcome}");
                emptied
            }
            Ok(Err(why)) => {
                tell_left(&record, &why);
                None
            }
            Err(failure) if is_for_good(&failure) => {
                tell_left(&record, &failure.to_string());
                None
            }
            Err(failure) => return Err(failure.in_table(schema, table)),
        };
        let (left, leaving) = oneshot::channel();
        let told = Notice::of_table(Happened::Aborted, &record);
        // No look takes it up meanwhile, should it be back.
        {
            let state = &mut *self.state();
            state.progress.tables.remove(&oid.into());
            state.found_gone.remove(&oid.into());
            state.leaving.insert(oid.into(), leaving);
        }
        self.request(Request::Leave { table: oid, until, emptied, told, left }).await
    }

    /// Whether all have ended that ran when a table was found to be gone, and may have written to it before.
    async fn have_writers_ended(&self, oid: Oid) -> Result<bool, Failure> {
        let mut server = self.asking.lock().await;
        let found = self.state().found_gone.get(&oid.into()).copied();
        let fence = match found {
            Some(fence) => fence,
            None => server.assign_xid().await?,
        };
        self.state().found_gone.insert(oid.into(), fence);
        Ok(server.current_snapshot().await?.xmin() >= fence)
    }

    /// What takes out of its topic what there is of a table that is gone, if there is anything; or why nothing can.
    async fn emptied_of(
        &self,
        oid: Oid,
        record: &TableRecord,
        until: Lsn,
    ) -> Result<Result<Option<Emptied>, String>, Failure> {
        let Some(shape) = record.shape.clone() else { return Ok(Err("what it was like is not known".to_owned())) };
        let (relation, facts) = shape.relation(oid, &record.schema, &record.table);
        let mut relations = self.relations.lock().await;
        let Some(topic) = relations.topic_of(&relation).await? else {
            return Ok(Err("it is not asked for any more".to_owned()));
        };
        let (admin, name) = (Arc::clone(&self.topics), topic.clone());
        if blocking(&topic, move || admin.partitions(&name)).await?.is_none() {
            // It is not made for that.
            return Ok(Ok(None));
        }
        relations.learn_now(relation, facts).await?;
        // Another may have come to the topic, one of the same name for instance.
        let owners = relations.topic_owners().await?;
        drop(relations);
        let encoding = self.encoding(oid).await;
        self.relations.lock().await.known.let_go(oid);
        let Ok(encoding) = encoding? else { return Ok(Err("it is not asked for any more".to_owned())) };
        let topic = encoding.plan.plan().topic();
        if let Some((_, owner)) = owners.of_topic(topic).find(|(other, _)| *other != oid) {
            return Ok(Err(format!("the topic is that of table {} now", owner.table)));
        }
        if let Some(obstacle) = self.obstacle(&encoding, false).await? {
            return Ok(Err(format!("it would be one {obstacle}")));
        }
        // Rows of it may still be on their way.
        let emptied = self.holds_anything(&encoding, true).await?.then(|| emptied(&encoding, &context_at(until)));
        emptied.transpose().map(Ok)
    }

    /// An end of the log, which the stream comes to by itself.
    async fn log_end(&self) -> Result<Lsn, Failure> {
        let mut server = self.asking.lock().await;
        let (end, is_flushed) = server.log_end().await?;
        if !is_flushed {
            // As for a chunk.
            server.assign_xid().await?;
        }
        Ok(end)
    }
}

fn tell_left(record: &TableRecord, why: &str) {
    let TableRecord { schema, table, .. } = record;
    warn!(
        schema,
        table,
        "the table is not streamed any more, and not copied: what was left out for its copy, and the copy as far as it came, are all that its topic \
         lacks and has, and that cannot be taken out by a TRUNCATE event: {why}"
    );
}

/// Whether it is the table itself that cannot be written, which nobody may ever mend for one that is gone. Whatever else is wrong passes, and then nothing
/// is to stay of it.
fn is_for_good(failure: &Failure) -> bool {
    matches!(
        failure.code(),
        Code::SchemaUnrepresentable | Code::ColumnRuleUnfit | Code::ValueUnrepresentable | Code::RegistryIncompatible
    )
}

/// That of an event which no row is read for.
fn context_at(lsn: Lsn) -> SnapshotContext {
    let now = Timestamp::from_unix_micros(unix_ms().saturating_mul(1000));
    SnapshotContext::new(SnapshotKind::Incremental, lsn, None, now)
}

/// What takes out of each partition what was there before.
pub(super) fn emptied(encoding: &Encoding, context: &SnapshotContext) -> Result<Emptied, Failure> {
    let mut batch = RecordBatch::new();
    let encoded = encoding.plan.encode_emptied(context, unix_ns(), &mut batch);
    encoded.map_err(|error| failures::of_encode(&error))?;
    Ok(Emptied { batch })
}

/// Asks Kafka about a topic.
async fn blocking<T: Send + 'static>(
    topic: &str,
    ask: impl FnOnce() -> Result<T, publisher::PublishError> + Send + 'static,
) -> Result<T, Failure> {
    let answer = spawn_blocking(ask).await.map_err(|error| Failure::caused(Code::Internal, error))?;
    answer.map_err(|error| failure_of(&error, Duration::ZERO, Duration::MAX).for_topic(topic))
}
