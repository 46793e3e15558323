//! Copies rows that were there before the stream, beside it: the part of [`snapshot`](crate::snapshot) that reads.
//!
//! Here is who copies which table when: tables are looked for again and again, and workers, of which as many are not idle as tables may be copied at a
//! time, each take one after the other, over a connection of their own. How one
//! is copied, chunk after chunk, is in [`table`], and how a chunk is read, and why so, in [`chunk`]; how several workers share a large one, in [`parts`];
//! how one is that nothing tells the rows of apart, in [`at_once`]; what operators ask for, in [`control`].
//!
//! What goes wrong with one table is told and tried again; neither the stream nor another table waits for it.

mod ahead;
mod at_once;
mod chunk;
mod control;
mod emptying;
mod limits;
mod parts;
mod range;
mod signals;
mod standby;
mod state;
mod table;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use pgoutput::Oid;
use publisher::{MemoryBudget, TopicAdmin};
use tokio::{
    sync::{Notify, mpsc::Sender},
    task::JoinSet,
    time::sleep,
};
use tracing::{debug, info, warn};
use walreceiver::ConnectOptions;

use self::{
    ahead::Ahead,
    standby::Standby,
    state::{End, Fence, State},
    table::Copying,
};
pub(super) use self::{signals::SignalSource, standby::StandbyParts};
use super::relations::Relations;
use crate::{
    catalog::{Catalog, MEMBER, may_have_been_out},
    config::{self, CONNECTIONS_MAX, SnapshotMode},
    failure::{Code, Failure},
    metrics::Metrics,
    pipeline::publish::unix_ms,
    snapshot::{Epoch, Happened, Notice, Progress, Request, TableRecord, control::SnapshotControl},
};

/// What the records of a chunk cost in memory, at most but for the last one: enough for its fixed cost not to matter, and little to throw away.
const CHUNK_COST_MAX: usize = 2 << 20;
/// How many seconds one chunk takes at most where a rate is set.
const RATED_SECONDS: usize = 2;
/// A connection reads so many tables: to make one takes longer than to read a small table, and the server keeps for each what it knows of all tables
/// that it has read.
const TABLES_PER_CONNECTION: u64 = 100;
/// What copies need of a session.
pub(super) struct CopierParts {
    pub(super) relations: Relations,
    pub(super) connect: Arc<ConnectOptions>,
    /// Where rows are read, if not there.
    pub(super) standby: Option<StandbyParts>,
    pub(super) publication: String,
    pub(super) settings: config::Snapshot,
    pub(super) match_interval: Duration,
    pub(super) memory_limit_bytes: u64,
    pub(super) budget: Arc<MemoryBudget>,
    pub(super) requests: Sender<Request>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) progress: Progress,
    /// Whether the stream goes on behind a gap.
    pub(super) has_begun_anew: bool,
    pub(super) control: Arc<SnapshotControl>,
    pub(super) signals: Option<SignalSource>,
}

/// Copies what is to be copied, for as long as the session runs, or until nothing is left where that is all.
///
/// # Errors
/// Why the session has to end.
pub(super) async fn run(mut parts: CopierParts) -> Result<(), Failure> {
    let signals = parts.signals.take();
    let has_begun_anew = parts.has_begun_anew;
    let control = Arc::clone(&parts.control);
    let copier = Arc::new(Copier::new(parts));
    if copier.state().progress.is_paused {
        warn!("copying is paused, as somebody has asked: `pgsluice snapshot resume` goes on");
    }
    if has_begun_anew {
        copier.tell(Notice::of_all(Happened::BegunAnew)).await?;
    }
    let mut workers = JoinSet::new();
    // Those that are too many for now wait.
    for worker in 0..usize::from(CONNECTIONS_MAX) {
        let copier = Arc::clone(&copier);
        workers.spawn(async move { copier.work(worker).await });
    }
    tokio::select! {
        () = Copier::keep_answering(&copier, &control) => Err(Failure::new(Code::Internal, "answering what is asked of copies has ended")),
        () = copier.keep_hearing(signals) => Err(Failure::new(Code::Internal, "reading signals has ended")),
        () = copier.keep_looking() => Err(Failure::new(Code::Internal, "looking for tables to copy has ended")),
        copied = copier.await_all(), if copier.settings.mode == SnapshotMode::InitialOnly => copied,
        ended = workers.join_next() => match ended {
            Some(Ok(failure)) => Err(failure),
            _ => Err(Failure::new(Code::Internal, "copying has panicked")),
        },
    }
}

/// How much memory chunks may have that wait for the stream.
pub(super) fn waiting_bytes(memory_limit: usize) -> usize {
    memory_limit / 8
}

/// How much memory keys of rows may have that are to be read again, which the stream remembers for copies.
pub(super) fn moved_bytes(memory_limit: usize) -> usize {
    memory_limit / 32
}

/// The same of those that the stream notes while chunks are read.
pub(super) fn noted_bytes(memory_limit: usize) -> usize {
    memory_limit / 16
}

/// What copies leave of the limit for the events that are in flight.
pub fn in_flight_bytes(memory_limit: usize) -> usize {
    memory_limit - waiting_bytes(memory_limit) - moved_bytes(memory_limit) - noted_bytes(memory_limit)
}

struct Copier {
    relations: tokio::sync::Mutex<Relations>,
    /// For questions that are answered at once. The stream may be waiting for whoever asks, who must not wait for tables to be made ready, of which
    /// the relations are kept for many at a time.
    asking: tokio::sync::Mutex<Catalog>,
    /// That of the relations, for whoever must not wait for them.
    topics: Arc<TopicAdmin>,
    connect: Arc<ConnectOptions>,
    /// Where the rows of tables with a key are read, if not there.
    standby: Option<Standby>,
    publication: String,
    settings: config::Snapshot,
    match_interval: Duration,
    /// How large a record may be, as the stream has it.
    row_bytes_max: usize,
    chunk_cost_max: usize,
    budget: Arc<MemoryBudget>,
    /// For chunks that wait for the stream, beside the budget of what it waits for.
    waiting: Arc<MemoryBudget>,
    /// The same for rows of copies at once, of which the stream may be waiting itself: those others must not keep them from it.
    waiting_at_once: Arc<MemoryBudget>,
    requests: Sender<Request>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    ahead: Ahead,
    /// Whose turn it is to look for tables.
    looking: tokio::sync::Mutex<()>,
    /// Whose turn it is to command.
    commands: tokio::sync::Mutex<()>,
    /// Something waits for a worker.
    work: Notify,
    /// Workers have to look whether they may go on.
    changed: Notify,
    /// A turn at a table has ended.
    settled: Notify,
    /// When the next row may be read, if there is a limit.
    next_row_at: tokio::sync::Mutex<Instant>,
}

impl Copier {
    fn new(parts: CopierParts) -> Self {
        let memory_limit = usize::try_from(parts.memory_limit_bytes).unwrap_or(usize::MAX);
        Self {
            topics: Arc::clone(&parts.relations.topics),
            relations: tokio::sync::Mutex::new(parts.relations),
            asking: tokio::sync::Mutex::new(Catalog::new(Arc::clone(&parts.connect))),
            connect: parts.connect,
            standby: parts.standby.map(Standby::new),
            publication: parts.publication,
            match_interval: parts.match_interval,
            row_bytes_max: memory_limit / 4,
            chunk_cost_max: CHUNK_COST_MAX.min(memory_limit / 32),
            budget: parts.budget,
            waiting: Arc::new(MemoryBudget::new(waiting_bytes(memory_limit) / 4 * 3)),
            waiting_at_once: Arc::new(MemoryBudget::new(waiting_bytes(memory_limit) / 4)),
            requests: parts.requests,
            metrics: parts.metrics,
            state: Mutex::new(State::new(
                parts.progress,
                parts.settings.mode != SnapshotMode::Never,
                parts.settings.connections,
            )),
            settings: parts.settings,
            ahead: Ahead::default(),
            looking: tokio::sync::Mutex::new(()),
            commands: tokio::sync::Mutex::new(()),
            work: Notify::new(),
            changed: Notify::new(),
            settled: Notify::new(),
            next_row_at: tokio::sync::Mutex::new(Instant::now()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is whole after every statement, so that a panic elsewhere leaves nothing broken.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds tables to copy, at once and then as often as tables are matched.
    async fn keep_looking(&self) {
        // The server locks each published table for this, and waits for whoever alters one: nobody else is to wait with it.
        let mut catalog = Catalog::new(Arc::clone(&self.connect));
        loop {
            let has_reason = {
                let state = self.state();
                state.looks == 0 || state.has_reason_to_look()
            };
            if has_reason && let Err(failure) = self.look_anew(&mut catalog).await {
                self.metrics.copy_failed(&failure);
                warn!(
                    code = failure.code().as_str(),
                    "tables to copy could not be looked for, which is tried again: {failure}"
                );
            }
            // It fails only with the session.
            if let Err(failure) = self.end_parallel().await {
                debug!("how many tables are copied at a time could not be said: {failure}");
            }
            sleep(self.match_interval).await;
        }
    }

    async fn look_anew(&self, catalog: &mut Catalog) -> Result<(), Failure> {
        self.forget_what_was_away(catalog).await?;
        self.look(catalog).await?;
        self.forget_what_is_dropped(catalog).await
    }

    /// A table that was copied, taken out of the publication and put back has changes in between that were not streamed. Somebody may do that
    /// between two looks, or while no instance runs, so that it is told by the rows of the catalog that have it in the publication. What it was when
    /// it was copied stands in its record. It is copied anew, behind an event that it was emptied: what was deleted in between nobody can tell.
    async fn forget_what_was_away(&self, catalog: &mut Catalog) -> Result<(), Failure> {
        // A command must not start one of them meanwhile.
        let _turn = self.commands.lock().await;
        let copied = self.state().copied();
        if copied.is_empty() {
            return Ok(());
        }
        let tables: Vec<Oid> = copied.iter().map(|(table, _)| *table).collect();
        let now = catalog.memberships(&self.publication, &tables).await?;
        let mut in_other_ways = Vec::new();
        for (oid, then) in &copied {
            // One that is out of it, or in it with all others, is for the look that follows.
            let Some(now) = now.get(oid).filter(|now| *now != MEMBER && *now != then) else { continue };
            if !may_have_been_out(then, now) {
                in_other_ways.push((*oid, now));
                continue;
            }
            let (record, is_copied_anew) = {
                let state = self.state();
                (state.progress.tables.get(&u32::from(*oid)).cloned(), state.is_copied_unasked(*oid))
            };
            let Some(mut record) = record else { continue };
            if !is_copied_anew && !self.state().told_away.insert((*oid).into()) {
                continue;
            }
            let TableRecord { schema, table, .. } = &record;
            let rows = if is_copied_anew {
                "Its rows are copied anew".to_owned()
            } else {
                format!("Run `pgsluice snapshot start {schema}.{table}`, which copies its rows anew")
            };
            warn!(
                schema,
                table,
                "the table was taken out of publication {} and put back, or its rows are chosen otherwise, since it was copied: what was changed in \
                 between was not streamed. {rows}, behind a TRUNCATE event if its topic takes one, so that nothing stays that was deleted in between",
                self.publication
            );
            if is_copied_anew {
                self.put_away(*oid, &record, None).await?;
            } else {
                record.was_away = true;
                self.record(vec![record.attachment(*oid)]).await?;
                self.state().progress.tables.insert((*oid).into(), record);
            }
        }
        self.note_memberships(&in_other_ways).await
    }

    /// These copied tables are in the publication in these ways now.
    async fn note_memberships(&self, tables: &[(Oid, &String)]) -> Result<(), Failure> {
        let records: Vec<(Oid, TableRecord)> = {
            let state = self.state();
            let record = |(oid, now): &(Oid, &String)| {
                let record = state.progress.tables.get(&(*oid).into())?;
                Some((*oid, record.clone().in_publication_as(now)))
            };
            tables.iter().filter_map(record).collect()
        };
        self.record(records.iter().map(|(oid, record)| record.attachment(*oid)).collect()).await?;
        self.state().progress.tables.extend(records.into_iter().map(|(oid, record)| (oid.into(), record)));
        Ok(())
    }

    /// What is kept of a table for its return is forgotten once it is dropped.
    async fn forget_what_is_dropped(&self, catalog: &mut Catalog) -> Result<(), Failure> {
        let away = self.state().away();
        if away.is_empty() {
            return Ok(());
        }
        let existing = catalog.existing_tables(&away).await?;
        for oid in away.into_iter().filter(|oid| !existing.contains(oid)) {
            self.forget(oid, None).await?;
        }
        Ok(())
    }

    /// One look after another, each with what follows from it: an earlier answer must not come after a later one.
    async fn look(&self, catalog: &mut Catalog) -> Result<(), Failure> {
        let _turn = self.looking.lock().await;
        let tables = catalog.published_tables(&self.publication).await?;
        if tables.is_empty() && !catalog.has_publication(&self.publication).await? {
            // That is not the tables' doing. The stream finds it out itself, and ends.
            return Ok(());
        }
        let gone = {
            let state = &mut *self.state();
            let gone = state.look(&tables);
            if state.looks == 1 && state.lacking() == 0 {
                info!("no table is to be copied");
            }
            self.metrics.tables_to_copy(state.lacking());
            gone
        };
        self.work.notify_waiters();
        self.settled.notify_waiters();
        for oid in gone {
            match self.leave(oid).await {
                Err(failure) if failure.code() != Code::Internal => {
                    self.metrics.copy_failed(&failure);
                    let code = failure.code().as_str();
                    warn!(
                        code,
                        "what is left of a copy is not taken out of its topic for now, which is tried again: {failure}"
                    );
                }
                left => left?,
            }
        }
        Ok(())
    }

    async fn forget(&self, table: Oid, told: Option<Notice>) -> Result<(), Failure> {
        self.request(Request::Forget { table, instead: None, told }).await?;
        self.state().progress.tables.remove(&table.into());
        Ok(())
    }

    /// The table was out of the publication, or is: it is copied anew when it is in it, and its topic emptied before.
    async fn put_away(&self, table: Oid, record: &TableRecord, told: Option<Notice>) -> Result<(), Failure> {
        let record = record.away(unix_ms());
        self.request(Request::Forget { table, instead: Some(record.attachment(table)), told }).await?;
        self.state().progress.tables.insert(table.into(), record);
        Ok(())
    }

    /// Waits until every table is copied, and the checkpoint says so.
    async fn await_all(&self) -> Result<(), Failure> {
        loop {
            let settled = self.settled.notified();
            let incomplete = {
                let state = self.state();
                let is_over = state.looks > 0 && (state.lacking() == 0 || state.are_all_impossible());
                is_over.then(|| state.incomplete())
            };
            let Some(incomplete) = incomplete else {
                settled.await;
                continue;
            };
            self.await_committed().await?;
            if !incomplete.is_empty() {
                let found = format!("not all tables are copied: {} cannot be, or was stopped", incomplete.join(", "));
                return Err(Failure::new(Code::SnapshotIncomplete, found));
            }
            info!(
                "ending, as snapshot.mode = \"initial_only\" has it: the slot stays, and keeps log from here on; start with another mode to stream \
                 from here, or drop the slot"
            );
            return Ok(());
        }
    }

    /// Copies one table after another; ends only if the session cannot go on.
    async fn work(&self, worker: usize) -> Failure {
        let (mut reader, mut tables_read) = (self.reader(), 0);
        loop {
            let waiting = self.work.notified();
            let (next, help) = {
                let state = &mut *self.state();
                let next = state.begin(worker);
                // Whoever has a table of his own to copy helps nobody.
                let help = if next.is_none() { state.begin_helping(worker) } else { None };
                (next, help)
            };
            if let Some(help) = help {
                if let Err(failure) = self.help(help, worker, &mut reader).await {
                    return failure;
                }
                continue;
            }
            let Some((table, look)) = next else {
                reader.disconnect();
                if self.state().lacking() == 0 {
                    self.asking.lock().await.disconnect();
                    if let Some(standby) = &self.standby {
                        standby.disconnect().await;
                    }
                }
                waiting.await;
                continue;
            };
            tables_read += 1;
            if tables_read % TABLES_PER_CONNECTION == 0 {
                reader.disconnect();
            }
            match self.copy_table(table, (worker, look), &mut reader).await {
                Ok(end) => {
                    if let End::Impossible { is_news: true, .. } = end
                        && let Err(over) = self.tell_not_copied(table, Code::SnapshotImpossible).await
                    {
                        return over;
                    }
                    self.settle(table, look, end).await;
                }
                Err(failure) if failure.code() == Code::Internal => return failure,
                Err(failure) => {
                    self.metrics.copy_failed(&failure);
                    warn!(
                        code = failure.code().as_str(),
                        "a table is not copied for now, and is tried again later; the stream and other tables go on: {failure}"
                    );
                    if let Err(over) = self.tell_not_copied(table, failure.code()).await {
                        return over;
                    }
                    self.settle(table, look, End::failed(&failure)).await;
                }
            }
        }
    }

    /// Tells whoever reads notifications, once until the table gets on or something else keeps it from that.
    async fn tell_not_copied(&self, table: Oid, code: Code) -> Result<(), Failure> {
        let told = self.state().not_copied(table, code);
        match told {
            Some((table, rows)) => self.tell(Notice::not_copied(table, rows, code.as_str())).await,
            None => Ok(()),
        }
    }

    async fn settle(&self, table: Oid, look: u64, mut end: End) {
        let (is_over, is_complete) = loop {
            {
                let state = &mut *self.state();
                if !state.must_be_stopped(table, &end) {
                    let is_news = matches!(end, End::Done | End::Impossible { is_news: true, .. });
                    state.end(table, look, end);
                    self.metrics.tables_to_copy(state.lacking());
                    let is_over = is_news && (state.lacking() == 0 || state.are_all_impossible());
                    // Whoever looks at all tables does so once they are settled, and not after each.
                    break (is_over, is_over && state.incomplete().is_empty());
                }
            }
            if let Err(failure) = self.write_stopped(&[table.into()], Vec::new()).await {
                // The session is over.
                debug!("a table could not be stopped: {failure}");
                return;
            }
            end = End::Over;
        };
        if is_over && is_complete {
            // If the session ends meanwhile, nobody is told: each table's own end was.
            let _told_or_over = self.record_and_tell(Vec::new(), vec![Notice::of_all(Happened::Completed)]).await;
            info!("every table is copied");
        } else if is_over {
            info!("every table is copied but those that cannot be, or were stopped");
        }
        self.settled.notify_waiters();
    }

    /// The transaction id below which nothing may run in a snapshot of this epoch, for a table that was seen in this look.
    async fn fence(&self, epoch: Epoch, look: u64) -> Result<u64, Failure> {
        if let Some(fence) = self.state().fence.filter(|fence| fence.epoch == epoch && fence.look >= look) {
            return Ok(fence.xid);
        }
        // Tables of later looks may come while it is assigned.
        let look = self.state().looks.saturating_sub(1);
        let xid = self.asking.lock().await.assign_xid().await?;
        self.state().fence = Some(Fence { epoch, look, xid });
        Ok(xid)
    }

    /// How many rows a chunk may have where there is a rate.
    fn rows_at_rate(&self) -> Option<usize> {
        let rate = self.settings.rows_per_second?;
        Some(usize::try_from(rate).unwrap_or(usize::MAX).saturating_mul(RATED_SECONDS))
    }

    /// Waits until more rows may be read; whether they may then.
    async fn await_rate(&self, copying: &Copying) -> bool {
        if self.settings.rows_per_second.is_none() {
            return true;
        }
        let at = *self.next_row_at.lock().await;
        loop {
            let changed = self.changed.notified();
            {
                let state = self.state();
                if state.progress.is_paused || state.stopping.contains(&copying.oid.into()) {
                    return false;
                }
            }
            tokio::select! {
                () = tokio::time::sleep_until(at.into()) => return true,
                () = changed => {}
            }
        }
    }

    /// So many rows were read, for which others wait.
    async fn pay_rate(&self, rows: usize) {
        let Some(rate) = self.settings.rows_per_second else { return };
        let mut next = self.next_row_at.lock().await;
        *next = (*next).max(Instant::now()) + Duration::from_secs(1) * u32::try_from(rows).unwrap_or(u32::MAX) / rate;
    }

    async fn request(&self, request: Request) -> Result<(), Failure> {
        self.requests.send(request).await.map_err(|_| session_over())
    }
}

fn session_over() -> Failure {
    Failure::new(Code::KafkaUnavailable, "the session has ended")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const LEAST: &str = "name = \"test\"\n[postgres]\nurl = \"postgres://nobody@127.0.0.1:1/nowhere\"\ntables = [\"*.*\"]\n\
                         [kafka]\nbootstrap_servers = \"127.0.0.1:1\"";
    /// Only what is never answered takes as long.
    const NEVER: Duration = Duration::from_mins(1);

    /// One that has nobody to ask.
    fn copier() -> Copier {
        let metrics = Arc::new(Metrics::new(1));
        let config = Config::parse(LEAST, []).expect("a configuration");
        let (requests, _) = tokio::sync::mpsc::channel(1);
        Copier::new(CopierParts {
            relations: Relations::without_servers(&metrics),
            connect: Arc::new(config.postgres.connect.clone()),
            standby: None,
            publication: "test".to_owned(),
            settings: config.snapshot.clone(),
            match_interval: Duration::from_secs(1),
            memory_limit_bytes: config.memory_limit_bytes,
            budget: Arc::new(MemoryBudget::new(1 << 20)),
            requests,
            metrics,
            progress: Progress::default(),
            has_begun_anew: false,
            control: Arc::default(),
            signals: None,
        })
    }

    /// The stream may be waiting for it.
    #[test]
    fn a_fence_does_not_wait_for_tables_that_are_made_ready() {
        let (runtime, copier) = (tokio::runtime::Runtime::new().expect("a runtime"), copier());
        let asked = runtime.block_on(async {
            let _kept = copier.relations.lock().await;
            tokio::time::timeout(NEVER, copier.fence(Epoch::default(), 0)).await
        });
        let failure = asked.expect("the server is asked").expect_err("nobody answers");
        assert_eq!(failure.code(), Code::PostgresUnavailable);
    }
}
