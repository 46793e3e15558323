//! Copies at once: which changes are left out for them, and which wait. The argument is in [`AtOnce`].
//!
//! A change that waits stands in the middle of its transaction. Requests of all copies are served there, and what they write goes to Kafka: the
//! checkpoint of that names the place inside, as that of a transaction past its limits does. For the windows of other tables this is a
//! place like any other: what the transaction has changed was noted, or it is among what has to end before their chunks are read, and no chunk is due
//! that sees it, since the stream has not passed its end.

use std::sync::{Arc, PoisonError};

use pgoutput::{Lsn, Oid, Xid};
use publisher::Attachment;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::Copies;
use crate::{
    failure::{Code, Failure},
    pipeline::{
        relations::Known,
        source::Source,
        work::{Copied, Work, cost_of},
    },
    snapshot::{Emptied, Epoch, Notice, Outcome, Passage, Rows, Spoilt, TableRecord, Visibility, WindowId},
};

/// A table that is gone, and was owed a copy: what takes out of its topic what there is of it, if anything can; what is told with that; and who
/// hears of it.
pub(super) struct Leaving {
    pub(super) emptied: Option<Emptied>,
    pub(super) told: Notice,
    pub(super) left: oneshot::Sender<()>,
}

impl Copies {
    /// Whether changes of the table may be left out.
    #[inline]
    pub(in crate::pipeline::source) fn owes(&self, table: Oid) -> bool {
        self.at_once.owes(table)
    }
}

impl Source {
    /// Waits until it is known whether a change of the table is left out, in the transaction that is open.
    pub(in crate::pipeline::source) async fn is_left_out(&mut self, table: Oid) -> Result<bool, Failure> {
        let xid = self.transaction.as_ref().map(|transaction| transaction.begin.xid);
        let Some(xid) = xid else { return Err(Failure::new(Code::Internal, "the transaction is gone")) };
        let mut is_told = false;
        loop {
            match self.copies.at_once.passage(table, xid) {
                Passage::Write => return Ok(false),
                Passage::LeaveOut => return Ok(true),
                Passage::Wait => {}
            }
            if !std::mem::replace(&mut is_told, true) {
                let name = match self.relations.known.get(table) {
                    Some(Known::Watched(known)) => &*known.name,
                    _ => "",
                };
                info!(table = name, transaction = %xid, "the stream waits for the rows of the table, which come before this transaction's");
                self.flush(false).await?;
            }
            let request = self.copies.next().await;
            self.serve_copy(request).await?;
        }
    }

    pub(super) async fn owe(
        &mut self,
        table: Oid,
        record: Attachment,
        committed: oneshot::Sender<()>,
    ) -> Result<(), Failure> {
        // It may have been copied by its key until now.
        self.copies.windows.spoil(table, Spoilt::Altered);
        self.copies.leaving.remove(&table);
        self.copies.at_once.owe(table);
        let mut attachments = self.copies.moved.end(table);
        attachments.push(record);
        self.record(attachments, Vec::new(), Some(committed)).await
    }

    /// Empties a topic, before any window of its table's copy is opened.
    pub(super) async fn empty(
        &mut self,
        table: Oid,
        emptied: Option<Emptied>,
        record: Attachment,
        is_emptied: oneshot::Sender<bool>,
    ) -> Result<(), Failure> {
        if matches!(self.relations.known.get(table), Some(Known::Watched(known)) if known.plan.holds_back()) {
            // A topic in quarantine gets nothing.
            let _nobody_waits_any_more = is_emptied.send(false);
            return Ok(());
        }
        self.copies.windows.spoil(table, Spoilt::Altered);
        self.record_and_empty(emptied, vec![record], Vec::new(), None).await?;
        let _nobody_waits_any_more = is_emptied.send(true);
        Ok(())
    }

    pub(super) fn take(&mut self, window: WindowId, table: Oid, opened: oneshot::Sender<(Epoch, Vec<Xid>)>) {
        let (epoch, unnoted) = self.copies.windows.streamed();
        self.copies.at_once.take(table, window, unnoted.clone());
        if opened.send((epoch, unnoted)).is_err() {
            self.copies.at_once.abandon(window);
        }
    }

    pub(super) fn taken(
        &mut self,
        window: WindowId,
        snapshot: Visibility,
        until: Lsn,
        accepted: oneshot::Sender<Result<(), Spoilt>>,
    ) {
        self.copies.windows.seen(&snapshot);
        let outcome = self.copies.at_once.taken(window, snapshot, until);
        if accepted.send(outcome).is_err() {
            self.copies.at_once.abandon(window);
        }
    }

    pub(super) async fn write_rows(&mut self, window: WindowId, rows: Rows) -> Result<(), Failure> {
        let Rows { emptied, batch, cursor, told, end, charge, outcome } = rows;
        let Some(table) = self.copies.at_once.table_of(window) else {
            let _nobody_waits_any_more = outcome.send(Outcome::Spoilt(Spoilt::Altered));
            return Ok(());
        };
        if matches!(self.relations.known.get(table), Some(Known::Watched(known)) if known.plan.holds_back()) {
            // A topic in quarantine gets nothing; what would wait there is left out, and copied once the table is released.
            self.copies.at_once.abandon(window);
            let _nobody_waits_any_more = outcome.send(Outcome::Spoilt(Spoilt::HeldBack));
            return Ok(());
        }
        // What was streamed before is written before.
        self.flush(false).await?;
        let emptied_cost = emptied.as_ref().map_or(0, cost_of_emptied);
        // As with chunks: it must not wait for room that only the stream makes.
        self.budget.charge(emptied_cost + batch.iter().map(|record| cost_of(&record)).sum::<usize>());
        drop(charge);
        let attachments = self.behind_pending(vec![cursor]);
        let copied = Copied { emptied, batch, attachments, notices: vec![told], committed: None };
        self.send(Work::Copied(Box::new(copied))).await?;
        let Some(ending) = end else {
            let _nobody_waits_any_more = outcome.send(Outcome::Written { superseded: 0, left: None });
            return Ok(());
        };
        self.copies.at_once.finish(window);
        self.copies.ending.insert(window, (ending, outcome));
        self.end_copies().await
    }

    /// Ends the copies at once behind whose snapshots the stream has come, and leaves the tables that are gone.
    pub(super) async fn end_copies(&mut self) -> Result<(), Failure> {
        while let Some(table) = self.copies.at_once.settle_gone(self.end_lsn) {
            let Some(Leaving { emptied, told, left }) = self.copies.leaving.remove(&table) else { continue };
            let emptied = emptied.filter(|emptied| self.may_empty(table, emptied));
            let mut attachments = self.copies.moved.end(table);
            attachments.push(TableRecord::removal(table));
            self.record_and_empty(emptied, attachments, vec![told], None).await?;
            let _nobody_waits_any_more = left.send(());
        }
        while let Some(window) = self.copies.at_once.settle(self.end_lsn) {
            let Some((ending, outcome)) = self.copies.ending.remove(&window) else { continue };
            self.record(vec![ending.record], vec![ending.told], None).await?;
            let _nobody_waits_any_more = outcome.send(Outcome::Written { superseded: 0, left: None });
        }
        Ok(())
    }

    /// Whether what is in the topic is that of this table, which is gone. Whoever has asked has looked at what is published; from there on another one
    /// may have come to it, and is known once anything of it has.
    fn may_empty(&self, table: Oid, emptied: &Emptied) -> bool {
        let Some(topic) = emptied.batch.iter().next().map(|record| Arc::clone(record.topic)) else { return false };
        let another = self.relations.known.of_topic(&topic).find(|(other, _)| *other != table);
        let quarantine = self.relations.quarantine.lock().unwrap_or_else(PoisonError::into_inner);
        let why = match another {
            Some((_, name)) => format!("it is that of {name} now"),
            None if quarantine.get(&topic).is_some() => "it is in quarantine".to_owned(),
            None => return true,
        };
        warn!(
            topic = &*topic,
            "what the topic has of a table that is gone, and was not wholly copied, stays there: {why}"
        );
        false
    }

    /// What was to be said with the next events is said before these.
    pub(super) fn behind_pending(&mut self, attachments: Vec<Attachment>) -> Vec<Attachment> {
        let mut all = std::mem::take(&mut self.pending.attachments);
        all.extend(attachments);
        all
    }
}

pub(super) fn cost_of_emptied(emptied: &Emptied) -> usize {
    emptied.batch.iter().map(|record| cost_of(&record)).sum()
}
