//! What operators ask for, carried out: see [`control`](crate::snapshot::control).
//!
//! What is asked for is beside the checkpoint before it is answered. A table that is being copied belongs to its worker until the turn is over, so
//! that no cursor of it is written behind what is said here: it is never started meanwhile, and it is the worker that stops it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use pgoutput::Oid;
use publisher::Attachment;
use tokio::{sync::oneshot, task::JoinSet, time::timeout};
use tracing::{info, warn};

use super::{Copier, chunk::Way, session_over};
use crate::{
    catalog::{Catalog, PublishedTable},
    config::CONNECTIONS_MAX,
    failure::{Code, Failure},
    pipeline::publish::unix_ms,
    snapshot::{
        ControlRecord, Happened, Notice, Request, RowKey, TableRecord,
        control::{Asked, Command, SnapshotControl, Status},
    },
};

/// How long a command waits for a chunk that is being read.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How many questions are answered at a time.
const TASKS_MAX: usize = 32;

impl Copier {
    /// Carries out one command after another, for as long as the session runs. How far copies are is told meanwhile, too.
    pub(super) async fn keep_answering(copier: &Arc<Self>, control: &SnapshotControl) {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                Asked { command, answer } = control.next() => {
                    if tasks.len() >= TASKS_MAX {
                        let found = "too many commands are being carried out";
                        let _nobody_waits_any_more = answer.send(Err(Failure::new(Code::ControlUnavailable, found)));
                        continue;
                    }
                    let copier = Arc::clone(copier);
                    tasks.spawn(async move {
                        let done = copier.carry_out(command, Vec::new()).await;
                        let _nobody_waits_any_more = answer.send(done);
                    });
                }
                Some(_ended) = tasks.join_next() => {}
            }
        }
    }

    /// Does what is asked for; the checkpoint says `besides` as soon as it says that.
    pub(super) async fn carry_out(&self, command: Command, besides: Vec<Attachment>) -> Result<Status, Failure> {
        if command == Command::Status {
            return Ok(self.status().await);
        }
        // One command at a time, whoever gives it.
        let _turn = self.commands.lock().await;
        match command {
            Command::Status => {}
            Command::Start { tables, condition, parallel } => {
                self.start(&tables, condition.as_deref(), parallel, besides).await?;
            }
            Command::Stop { tables } => self.stop(&tables, besides).await?,
            Command::Pause => self.pause(true, besides).await?,
            Command::Resume => self.pause(false, besides).await?,
        }
        Ok(self.state().status())
    }

    /// How far all tables are, once it is known which there are.
    async fn status(&self) -> Status {
        loop {
            let looked = self.settled.notified();
            {
                let state = self.state();
                if state.looks > 0 {
                    return state.status();
                }
            }
            looked.await;
        }
    }

    /// One of its own, for the time of a command: others may be waiting for a lock on theirs.
    pub(super) fn catalog(&self) -> Catalog {
        Catalog::new(Arc::clone(&self.connect))
    }

    async fn pause(&self, is_paused: bool, mut attachments: Vec<Attachment>) -> Result<(), Failure> {
        let parallel = self.state().progress.parallel;
        attachments.push(ControlRecord::new(is_paused, parallel).attachment());
        let told = Notice::of_all(if is_paused { Happened::Paused } else { Happened::Resumed });
        self.record_and_tell(attachments, vec![told]).await?;
        self.state().progress.is_paused = is_paused;
        self.changed.notify_waiters();
        self.work.notify_waiters();
        info!("{}", if is_paused { "copying is paused" } else { "copying is resumed" });
        Ok(())
    }

    async fn start(
        &self,
        tables: &[String],
        condition: Option<&str>,
        parallel: Option<u8>,
        mut attachments: Vec<Attachment>,
    ) -> Result<(), Failure> {
        if let Some(parallel) = parallel.filter(|parallel| !(1..=CONNECTIONS_MAX).contains(parallel)) {
            return Err(refused(format!(
                "rows cannot be copied over {parallel} connections at a time: 1 to {CONNECTIONS_MAX} there can be"
            )));
        }
        let mut catalog = self.catalog();
        self.look(&mut catalog).await?;
        let mut found = Vec::new();
        for name in tables {
            let (oid, table) = self.find(name)?;
            if let Some(condition) = condition {
                let verified = catalog.verify_condition(&table, condition).await?;
                verified.map_err(|why| refused(format!("the condition is none for rows of {name}: {why}")))?;
                if self.is_copied_at_once(&mut catalog, oid.into()).await? {
                    return Err(refused(format!(
                        "nothing tells the rows of {name} apart and gives them an order, so that all of them are copied in one piece, or none: leave \
                         the condition out"
                    )));
                }
            }
            if !found.contains(&(oid, table.clone())) {
                found.push((oid, table));
            }
        }
        if found.is_empty() {
            return Err(refused("no table is named".to_owned()));
        }
        // From here on no look takes them up.
        let (starting, records) = {
            let state = &mut *self.state();
            let starting = state.reserve(found, condition)?;
            let record = |(oid, PublishedTable { schema, name }): &(u32, PublishedTable)| {
                let record = TableRecord::new(schema, name, Vec::new(), unix_ms());
                let record = record.asked_for(condition.map(str::to_owned));
                let held = state.progress.tables.get(oid);
                (*oid, held.map_or_else(|| record.clone(), |held| record.clone().in_the_place_of(held)))
            };
            let records: Vec<_> = starting.iter().map(record).collect();
            (starting, records)
        };
        attachments.extend(records.iter().map(|(oid, record)| record.attachment((*oid).into())));
        if parallel.is_some() {
            let is_paused = self.state().progress.is_paused;
            attachments.push(ControlRecord::new(is_paused, parallel).attachment());
        }
        let written = self.record(attachments).await;
        {
            let state = &mut *self.state();
            if written.is_ok() {
                state.progress.parallel = parallel.or(state.progress.parallel);
            }
            for (oid, record) in records {
                match written {
                    Ok(()) => state.start(oid, record),
                    Err(_) => state.give_up(oid),
                }
            }
            self.metrics.tables_to_copy(state.lacking());
        }
        self.work.notify_waiters();
        for (_, table) in &starting {
            info!(
                schema = table.schema,
                table = table.name,
                condition,
                parallel,
                "the table is to be copied, as somebody has asked"
            );
        }
        written
    }

    /// How many tables are copied at a time, as somebody has asked, holds until nothing is left to copy.
    pub(super) async fn end_parallel(&self) -> Result<(), Failure> {
        // A command must not ask for more meanwhile.
        let _turn = self.commands.lock().await;
        let is_over = {
            let state = self.state();
            let is_left = state.looks == 0 || state.lacking() > 0 && !state.are_all_impossible();
            (!is_left && state.progress.parallel.is_some()).then_some(state.progress.is_paused)
        };
        let Some(is_paused) = is_over else { return Ok(()) };
        self.record(vec![ControlRecord::new(is_paused, None).attachment()]).await?;
        self.state().progress.parallel = None;
        info!(connections = self.settings.connections, "copies have as many connections as the configuration says");
        Ok(())
    }

    /// Whether a copy of the table would be made at once.
    async fn is_copied_at_once(&self, catalog: &mut Catalog, table: Oid) -> Result<bool, Failure> {
        let Some(described) = catalog.snapshot_table(&self.publication, table).await? else { return Ok(false) };
        let primary_key = catalog.table_facts(table).await?.primary_key;
        let key = RowKey::of(&described.relation, primary_key.as_deref());
        Ok(matches!(Way::of(&described, key), Way::AtOnce))
    }

    async fn stop(&self, tables: &[String], besides: Vec<Attachment>) -> Result<(), Failure> {
        if self.state().looks == 0 {
            self.look(&mut self.catalog()).await?;
        }
        let named = tables.iter().map(|name| Ok(self.find(name)?.0)).collect::<Result<BTreeSet<_>, Failure>>()?;
        let (idle, busy) = {
            let state = &mut *self.state();
            let mut stopping = state.unfinished();
            stopping.retain(|oid| tables.is_empty() || named.contains(oid));
            state.stopping.extend(stopping.iter().copied());
            let (busy, idle): (Vec<u32>, Vec<u32>) = stopping.into_iter().partition(|oid| state.is_copying(*oid));
            for oid in &idle {
                state.give_up(*oid);
            }
            (idle, busy)
        };
        self.changed.notify_waiters();
        // That something was carried out is true once all of it is.
        let (with_idle, at_end) = if busy.is_empty() { (besides, Vec::new()) } else { (Vec::new(), besides) };
        if !idle.is_empty() || !with_idle.is_empty() {
            self.write_stopped(&idle, with_idle).await?;
        }
        let all_ended = async {
            loop {
                let ended = self.settled.notified();
                if busy.iter().all(|oid| !self.state().is_copying(*oid)) {
                    return;
                }
                ended.await;
            }
        };
        timeout(STOP_TIMEOUT, all_ended).await.map_err(|_elapsed| {
            Failure::new(
                Code::ControlUnavailable,
                "a chunk is still being read, or waits for the stream: the table stops behind it; ask again if the status does not show that",
            )
        })?;
        self.record(at_end).await
    }

    /// The tables are left as far as they are; nobody copies them.
    pub(super) async fn write_stopped(&self, oids: &[u32], besides: Vec<Attachment>) -> Result<(), Failure> {
        let records: Vec<(u32, TableRecord)> = {
            let state = self.state();
            let record = |oid: &u32| {
                let name = state.published.get(oid).cloned();
                let (schema, table) = name.map_or_else(Default::default, |table| (table.schema, table.name));
                let held = state.progress.tables.get(oid).cloned();
                (
                    *oid,
                    held.unwrap_or_else(|| TableRecord::new(&schema, &table, Vec::new(), unix_ms())).stopped(unix_ms()),
                )
            };
            oids.iter().map(record).collect()
        };
        let attachments = records.iter().map(|(oid, record)| record.attachment((*oid).into())).chain(besides).collect();
        let notices = records.iter().map(|(_, record)| Notice::of_table(Happened::Aborted, record)).collect();
        let written = self.write(attachments, notices, oids.iter().map(|oid| Oid::from(*oid)).collect()).await;
        let state = &mut *self.state();
        for (oid, record) in records {
            state.stopping.remove(&oid);
            if written.is_ok() {
                let (schema, table, rows) = (&record.schema, &record.table, record.rows);
                if record.at_once {
                    warn!(
                        schema,
                        table,
                        rows,
                        "the table's copy is stopped, as somebody has asked: its topic lacks rows, and changes that were left out for the copy; \
                         `pgsluice snapshot start` begins it anew"
                    );
                } else {
                    info!(schema, table, rows, "the table's copy is stopped, as somebody has asked");
                }
                state.progress.tables.insert(oid, record);
            }
        }
        self.metrics.tables_to_copy(state.lacking());
        written
    }

    fn find(&self, name: &str) -> Result<(u32, PublishedTable), Failure> {
        let state = self.state();
        let found = state.published.iter().find(|(_, table)| table.to_string() == name);
        found.map(|(oid, table)| (*oid, table.clone())).ok_or_else(|| {
            refused(format!(
                "{name} is not streamed: it has to be in publication {}, as schema.table",
                self.publication
            ))
        })
    }

    /// Has the checkpoint say this, and waits until it does.
    pub(super) async fn record(&self, attachments: Vec<Attachment>) -> Result<(), Failure> {
        self.record_and_tell(attachments, Vec::new()).await
    }

    /// The same, and tells whoever reads notifications.
    pub(super) async fn record_and_tell(
        &self,
        attachments: Vec<Attachment>,
        notices: Vec<Notice>,
    ) -> Result<(), Failure> {
        if attachments.is_empty() && notices.is_empty() {
            return Ok(());
        }
        self.write(attachments, notices, Vec::new()).await
    }

    /// Tells whoever reads notifications, and does not wait for it.
    pub(super) async fn tell(&self, notice: Notice) -> Result<(), Failure> {
        let (committed, _nobody_waits) = oneshot::channel();
        let (attachments, notices, ended) = (Vec::new(), vec![notice], Vec::new());
        self.request(Request::Record { attachments, notices, ended, committed }).await
    }

    /// Waits until everything is committed that was handed to the stream before.
    pub(super) async fn await_committed(&self) -> Result<(), Failure> {
        self.write(Vec::new(), Vec::new(), Vec::new()).await
    }

    /// The same; what is remembered of rows of tables that are not copied any more is forgotten.
    async fn write(&self, attachments: Vec<Attachment>, notices: Vec<Notice>, ended: Vec<Oid>) -> Result<(), Failure> {
        let (committed, waiting) = oneshot::channel();
        self.request(Request::Record { attachments, notices, ended, committed }).await?;
        waiting.await.map_err(|_| session_over())
    }
}

fn refused(found: String) -> Failure {
    Failure::new(Code::SnapshotRefused, found)
}
