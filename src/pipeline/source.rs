//! The source task: frames into encoded events.
//!
//! One row's way through here: [`Source::run`] reads a chunk of frames, [`Source::frame`] decodes each, [`Source::change`] finds its
//! relation and encodes it into the batch, [`Source::flush`] charges the batch to the memory budget and queues it for the publishing
//! thread. While the budget is full, `flush` waits, so that nothing more is read from the socket; the connection is kept by the
//! feedback task of [`walreceiver`].
//!
//! # What is skipped, and why nothing else is
//!
//! The server sends again what it does not know to be confirmed. A transaction is skipped as a whole when its commit record starts
//! before the checkpoint's end LSN (the server's own rule), and in part when the checkpoint names it: then as many changes as it says
//! are counted and not encoded. Counting is exact because what is counted are the changes as the server sends them, wanted or not:
//! they and their order depend on the log alone, not on the configuration or on today's catalog. Logical decoding messages are counted
//! apart, since the configuration decides whether they are sent. (`postgres.origin` decides about whole transactions, of which each has one origin.)
//!
//! An operation that the configuration skips (`events.skip`) is a change like any other, counted here, and its event takes its ordinal
//! without being written. So a checkpoint inside a transaction means the same whatever is skipped in the life that reads it.

use std::{sync::Arc, time::Instant};

use encoder::{Change, Encoded, EventContext, EventOrder, RecordBatch, TransactionContext};
use pgoutput::{Begin, Commit, Decoder, Frame, Lsn, Message, Oid, ProtocolVersion, Timestamp, WalData};
use publisher::{Attachment, MemoryBudget, Position, Split};
use tokio::sync::mpsc::Sender;
use tracing::warn;
use walreceiver::WalReader;

use self::copies::Copies;
use super::{
    collections::{Collections, Mark},
    publish::unix_ns,
    relations::{Known, Relations},
    work::{Boundary, Delivery, QuietPosition, Work, cost_of},
};
use crate::{
    failure::{Code, Failure},
    failures,
    metrics::{LeftOut, Metrics},
};

/// A batch is handed on when it has this much, even inside a chunk: a chunk of small rows can become many times its size.
const BATCH_BYTES_MAX: usize = 256 << 10;

/// Decodes and encodes. What it reads from is lent to it, so that it can be fed by anything.
pub(super) struct Source {
    decoder: Decoder,
    relations: Relations,
    /// Whether each transaction has a BEGIN and an END.
    marks_transactions: bool,
    /// What is covered by the checkpoint that the session began with.
    resume: Position,
    /// The end of the last whole transaction, or a later position without one.
    end_lsn: Lsn,
    transaction: Option<OpenTransaction>,
    transactions_begun: u64,
    copies: Copies,
    pending: Pending,
    budget: Arc<MemoryBudget>,
    queue: Sender<Work>,
    metrics: Arc<Metrics>,
}

/// The transaction whose changes are coming in.
struct OpenTransaction {
    begin: Begin,
    context: TransactionContext,
    /// Its number in the session, for the counters of the tables.
    number: u64,
    /// Changes that came, wanted or not.
    changes: u64,
    /// Logical decoding messages that came, wanted or not.
    messages: u64,
    /// Those of them that were wanted: the events in their topic.
    message_events: u64,
    message_mark: Mark,
    /// Events that were made of them, those that the checkpoint covers included.
    events: u64,
    /// How much of it the checkpoint covers.
    covered: Covered,
    /// Whether its BEGIN is written: it comes with the first event.
    has_begin: bool,
    /// Its events by table, those that the checkpoint covers included. Only for the END.
    collections: Collections,
}

impl OpenTransaction {
    /// What of it is handed on: what the checkpoint covers, and what came after that.
    fn split(&self) -> Split {
        let (changes, messages) = match self.covered {
            // Messages that were not asked for before may come while changes are still passed over.
            Covered::Part { changes, messages } => (changes, messages),
            Covered::Nothing | Covered::Everything => (0, 0),
        };
        Split {
            commit_lsn: self.begin.commit_lsn,
            changes: self.changes.max(changes),
            messages: self.messages.max(messages),
            ordinal: self.events,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Covered {
    Nothing,
    /// So many changes and messages.
    Part {
        changes: u64,
        messages: u64,
    },
    Everything,
}

/// What was encoded and not handed on yet.
struct Pending {
    batch: RecordBatch,
    boundary: Option<Boundary>,
    received_at: Instant,
    oldest_commit_unix_us: i64,
    transactions: u64,
    attachments: Vec<Attachment>,
}

impl Source {
    pub(super) fn new(
        relations: Relations,
        resume: Position,
        budget: Arc<MemoryBudget>,
        queue: Sender<Work>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            decoder: Decoder::new(ProtocolVersion::V1),
            marks_transactions: relations.metadata.transaction_topic,
            relations,
            resume,
            end_lsn: resume.end_lsn,
            transaction: None,
            transactions_begun: 0,
            copies: Copies::new(),
            pending: Pending::new(),
            budget,
            queue,
            metrics,
        }
    }

    /// Reads until the stream ends or, once `stop` says so, until no transaction is open and everything that was read is handed on.
    ///
    /// # Errors
    /// Why the session cannot go on.
    pub(super) async fn run(
        &mut self,
        reader: &mut WalReader,
        stop: &tokio::sync::watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let mut asked = stop.clone();
        loop {
            if *asked.borrow_and_update() && self.transaction.is_none() {
                return self.keep_keys().await;
            }
            self.metrics.source_waits_for_server();
            let chunk = tokio::select! {
                chunk = reader.read() => chunk.map_err(|error| failures::of_stream(&error))?,
                // Looked at above; `read` loses nothing when it is dropped.
                Ok(()) = asked.changed() => continue,
                request = self.copies.next(), if self.transaction.is_none() => {
                    // What it waits for is not the server.
                    self.metrics.source_works();
                    self.serve_copy(request).await?;
                    continue;
                }
            };
            self.metrics.source_works();
            self.pending.received_at = Instant::now();
            let source_idle = chunk.source_idle();
            if source_idle && chunk.frames_len() == 0 && self.transaction.is_none() {
                // The stream was busy, and has fallen silent: what was handed on before waits for nothing any more.
                let quiet = QuietPosition { position: self.position(), urgent: false };
                self.keep_keys().await?;
                self.send(Work::Position(quiet)).await?;
                continue;
            }
            self.metrics.chunk_received(chunk.bytes());
            for frame in chunk {
                self.frame(frame.map_err(|error| failures::of_walreceiver(&error))?).await?;
                if self.pending.batch.bytes() >= BATCH_BYTES_MAX {
                    self.flush(false).await?;
                }
                // Transactions that are longer than a chunk hardly ever end where a chunk does.
                if self.transaction.is_none() && *asked.borrow() {
                    break;
                }
            }
            self.flush(source_idle).await?;
        }
    }

    /// Hands nothing on any more: the queue is closed with this.
    pub(super) fn close(self) -> Relations {
        self.relations
    }

    async fn frame(&mut self, frame: Frame) -> Result<(), Failure> {
        let WalData { wal_start, payload, sent_at, .. } = match frame {
            Frame::WalData(data) => data,
            Frame::Keepalive(keepalive) => {
                self.metrics.server_position(keepalive.wal_end);
                // Inside a transaction the position says nothing about what was sent of it.
                if self.transaction.is_none() && (keepalive.wal_end > self.end_lsn || keepalive.reply_requested) {
                    self.flush(true).await?;
                    let position =
                        self.position().quiet_until(keepalive.wal_end).ok_or_else(|| self.split_is_gone())?;
                    self.end_lsn = position.end_lsn;
                    self.keep_keys().await?;
                    self.send(Work::Position(QuietPosition { position, urgent: keepalive.reply_requested })).await?;
                    self.serve_copies().await?;
                }
                return Ok(());
            }
        };
        let message = self.decoder.decode(payload).map_err(|error| failures::of_decode(&error).at(wal_start))?;
        match message {
            Message::Insert(insert) => self.change(insert.relation, Change::Insert(&insert), wal_start).await,
            Message::Update(update) => self.change(update.relation, Change::Update(&update), wal_start).await,
            Message::Delete(delete) => self.change(delete.relation, Change::Delete(&delete), wal_start).await,
            Message::Truncate(truncate) => {
                for relation in truncate.relations {
                    self.change(relation, Change::Truncate, wal_start).await?;
                }
                Ok(())
            }
            Message::Logical(message) if message.transactional => self.message(&message).await,
            Message::Logical(message) => self.message_alone(&message, sent_at).await,
            Message::Begin(begin) => self.begin(begin),
            Message::Commit(commit) => self.commit(&commit).await,
            Message::Relation(relation) => {
                // Learning may have to wait, and what was encoded before need not.
                self.flush(false).await?;
                let Some(transaction) = &self.transaction else {
                    let found = "a relation outside of a transaction";
                    return Err(Failure::new(Code::ProtocolViolation, found).at(wal_start));
                };
                let table = relation.id;
                self.relations.learn(relation, transaction.begin.xid).await?;
                self.copies.learn(table, self.relations.row_key(table));
                self.hand_on_quarantine().await
            }
            Message::Origin(origin) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.context.set_origin(&origin.name, origin.commit_lsn);
                }
                Ok(())
            }
            // It names a type that a Relation message refers to by its OID. The catalog says more, and what it has lost is text.
            Message::Type(_) => Ok(()),
            other => Err(Failure::new(
                Code::ProtocolViolation,
                format!("the server sent a {} message, which was not asked for", other.kind()),
            )
            .at(wal_start)),
        }
    }

    fn begin(&mut self, begin: Begin) -> Result<(), Failure> {
        if self.transaction.is_some() {
            return Err(
                Failure::new(Code::ProtocolViolation, "a transaction begins inside another").at(begin.commit_lsn)
            );
        }
        let (covered, events) = if self.resume.covers_transaction(begin.commit_lsn) {
            (Covered::Everything, 0)
        } else if let Some(Split { commit_lsn, changes, messages, ordinal }) = self.resume.split {
            // Transactions come in the order of their commits, so that the first which is not covered must be the split one.
            if begin.commit_lsn != commit_lsn {
                return Err(self.split_is_gone());
            }
            (Covered::Part { changes, messages }, ordinal)
        } else {
            (Covered::Nothing, 0)
        };
        self.transactions_begun += 1;
        // The server has come that far at least, and says nothing more of it while a large transaction is on its way.
        self.metrics.server_position(begin.commit_lsn);
        self.copies.begin(&begin);
        self.transaction = Some(OpenTransaction {
            context: TransactionContext::new(&begin),
            begin,
            number: self.transactions_begun,
            changes: 0,
            messages: 0,
            message_events: 0,
            message_mark: Mark::default(),
            events,
            covered,
            has_begin: events > 0,
            collections: Collections::default(),
        });
        Ok(())
    }

    async fn commit(&mut self, commit: &Commit) -> Result<(), Failure> {
        let out_of_place = |found: String| Err(Failure::new(Code::ProtocolViolation, found).at(commit.commit_lsn));
        let Some(transaction) = self.transaction.take() else {
            return out_of_place("a transaction commits that has not begun".into());
        };
        if transaction.begin.commit_lsn != commit.commit_lsn || commit.end_lsn <= commit.commit_lsn {
            return out_of_place(format!(
                "a transaction that began with the commit LSN {} commits at {} and ends at {}",
                transaction.begin.commit_lsn, commit.commit_lsn, commit.end_lsn
            ));
        }
        match transaction.covered {
            Covered::Everything => return Ok(()),
            Covered::Part { changes, messages }
                if transaction.changes < changes
                    || transaction.messages < messages && self.relations.metadata.messages =>
            {
                return Err(self.split_is_gone());
            }
            Covered::Part { .. } => self.resume.split = None,
            Covered::Nothing => {}
        }
        if self.marks_transactions && transaction.has_begin {
            self.write_end(&transaction).await?;
        }
        self.end_lsn = commit.end_lsn;
        self.metrics.received(commit.end_lsn);
        self.metrics.transaction_received(transaction.begin.xid.into());
        self.pending.transactions += 1;
        self.pending.boundary =
            Some(Boundary { records: self.pending.batch.len(), position: Position::at(commit.end_lsn) });
        self.serve_copies().await
    }

    /// The END is a record like those before it: the checkpoint covers it if it covers the boundary that follows.
    async fn write_end(&mut self, transaction: &OpenTransaction) -> Result<(), Failure> {
        let OpenTransaction { begin, context, events, collections, .. } = transaction;
        if collections.events() != *events {
            warn!(
                commit_lsn = %begin.commit_lsn,
                events,
                counted = collections.events(),
                "the transaction was resumed with another configuration: what its END says of each table is not all of its events"
            );
        }
        let topic = self.relations.transaction_topic().await?;
        topic.end(context, begin.commit_lsn, *events, collections.iter(), &mut self.pending.batch);
        self.pending.note_commit(begin.commit_time);
        Ok(())
    }

    /// Writes the BEGIN, if this is the first event of its transaction.
    async fn write_begin(&mut self, lsn: Lsn) -> Result<(), Failure> {
        if self.marks_transactions && self.relations.transaction_topic.is_none() {
            // Its topic may have to be waited for, as a relation is.
            self.flush(false).await?;
        }
        if let Some(transaction) = self.transaction.as_mut().filter(|transaction| !transaction.has_begin) {
            if self.marks_transactions {
                let topic = self.relations.transaction_topic().await?;
                topic.begin(&transaction.context, lsn, &mut self.pending.batch);
            }
            transaction.has_begin = true;
        }
        Ok(())
    }

    async fn change(&mut self, relation: Oid, change: Change<'_>, lsn: Lsn) -> Result<(), Failure> {
        let Some(transaction) = &self.transaction else {
            return Err(Failure::new(Code::ProtocolViolation, "a change outside of a transaction").at(lsn));
        };
        let is_covered = match transaction.covered {
            Covered::Everything => return Ok(()),
            Covered::Part { changes, .. } => transaction.changes < changes,
            Covered::Nothing => false,
        };
        // Before it is counted: what is handed on while it waits does not cover it.
        let is_left_out = !is_covered && self.copies.owes(relation) && self.is_left_out(relation).await?;
        let Some(transaction) = &mut self.transaction else {
            return Err(Failure::new(Code::Internal, "the transaction is gone").at(lsn));
        };
        transaction.changes += 1;
        if !is_covered && !transaction.has_begin && self.relations.is_watched(relation) {
            self.write_begin(lsn).await?;
        }
        loop {
            let Some(transaction) = &mut self.transaction else {
                return Err(Failure::new(Code::Internal, "the transaction is gone").at(lsn));
            };
            let table = match self.relations.get(relation).map_err(|failure| failure.at(lsn))? {
                Known::Watched(table) => table,
                Known::Unwatched => {
                    if !is_covered {
                        self.metrics.left_out(LeftOut::UnwatchedTable);
                    }
                    return Ok(());
                }
                Known::Uncertain(_) if is_covered => return Ok(()),
                Known::Uncertain(failure) => {
                    let failure = std::mem::replace(&mut **failure, Failure::new(Code::KeyUncertain, "it was told"));
                    return Err(self.relations.keep_before(failure).at(lsn));
                }
            };
            if table.key_is_replaced(transaction.begin.xid) {
                self.relations.learn_again(relation, transaction.begin.xid).await?;
                self.copies.learn(relation, self.relations.row_key(relation));
                self.hand_on_quarantine().await?;
                continue;
            }
            if table.events_of != transaction.number {
                (table.events, table.events_of) = (0, transaction.number);
            }
            if is_covered || is_left_out {
                // Of what is covered only the table's own count needs it, which is no part of an event's identity.
                let events = table.plan.count_events(change, lsn).unwrap_or(1);
                table.events += events;
                if is_left_out {
                    self.metrics.left_out(LeftOut::CopiedTable);
                    transaction.events += events;
                    self.pending.note_commit(transaction.begin.commit_time);
                }
                if self.marks_transactions {
                    transaction.collections.add(&table.name, &mut table.mark, transaction.number, events);
                }
                return Ok(());
            }
            if self.copies.watch(relation) {
                let place = (transaction.begin.commit_lsn, transaction.changes);
                self.pending.attachments.extend(self.copies.note(relation, change, table.row_key.as_ref(), place));
            }
            let mut order = EventOrder { total: transaction.events, collection: table.events };
            let context = EventContext { transaction: &transaction.context, lsn, processed_unix_ns: unix_ns() };
            match table.plan.encode(change, &context, &mut order, &mut self.pending.batch) {
                Ok(encoded) => {
                    if transaction.events == 0 || self.pending.oldest_commit_unix_us == i64::MAX {
                        self.pending.note_commit(transaction.begin.commit_time);
                    }
                    let events = order.collection - table.events;
                    match encoded {
                        // It is no event that anybody sees.
                        Encoded::Skipped => self.metrics.left_out(LeftOut::SkippedOperation),
                        Encoded::Events => table.metrics.count(&change, events),
                        Encoded::HeldBack => {
                            table.metrics.bury();
                        }
                        Encoded::DeadLetter(error) => {
                            // All are counted, and the topic has the reason of each.
                            if table.metrics.bury() {
                                let topic = table.plan.plan().dead_letter_topic().map_or("", |topic| &**topic);
                                warn!(
                                    table = table.plan.plan().table(),
                                    topic, "a change became a dead letter, the first of its table: {error}"
                                );
                            }
                        }
                    }
                    if self.marks_transactions {
                        transaction.collections.add(&table.name, &mut table.mark, transaction.number, events);
                    }
                    transaction.events = order.total;
                    table.events = order.collection;
                    return Ok(());
                }
                Err(error) => match error.null_in_not_null() {
                    Some(column) => {
                        self.relations.make_optional(relation, column).await?;
                        self.hand_on_quarantine().await?;
                    }
                    None => return Err(failures::of_encode(&error)),
                },
            }
        }
    }

    /// Hands on the list of tables in quarantine, if it has grown: before the first letter of any.
    async fn hand_on_quarantine(&mut self) -> Result<(), Failure> {
        match self.relations.new_quarantine() {
            Some(list) => self.send(Work::Quarantine(list)).await,
            None => Ok(()),
        }
    }

    /// Hands on what was encoded, once the budget has room for it.
    async fn flush(&mut self, source_idle: bool) -> Result<(), Failure> {
        if self.pending.batch.is_empty() && self.pending.boundary.is_none() {
            return Ok(());
        }
        let end = match &self.transaction {
            Some(transaction) if transaction.events > 0 && transaction.covered != Covered::Everything => {
                Position { end_lsn: self.end_lsn, split: Some(transaction.split()) }
            }
            _ => self.position(),
        };
        let mut pending = std::mem::replace(&mut self.pending, Pending::new());
        if !pending.batch.is_empty() {
            self.metrics.events_encoded();
        }
        pending.attachments.extend(self.relations.unkept_keys());
        let cost = pending.batch.iter().map(|record| cost_of(&record)).sum();
        self.metrics.batch_encoded(pending.transactions, pending.oldest_commit_unix_us, self.budget.used_bytes());
        let encoded_at = Instant::now();
        self.metrics.encoded(encoded_at - pending.received_at);
        self.budget.acquire(cost).await;
        self.send(Work::Records(Box::new(Delivery {
            batch: pending.batch,
            attachments: pending.attachments,
            boundary: pending.boundary,
            end,
            source_idle,
            received_at: pending.received_at,
            encoded_at,
            oldest_commit_unix_us: pending.oldest_commit_unix_us,
        })))
        .await
    }

    /// The position outside of any transaction: what the checkpoint covers of a transaction that is still to come is part of it.
    fn position(&self) -> Position {
        Position { end_lsn: self.end_lsn, split: self.resume.split }
    }

    fn split_is_gone(&self) -> Failure {
        let none = Split { commit_lsn: Lsn::INVALID, changes: 0, messages: 0, ordinal: 0 };
        let Split { commit_lsn, changes, .. } = self.resume.split.unwrap_or(none);
        Failure::new(
            Code::CheckpointMismatch,
            format!(
                "the checkpoint covers {changes} changes of the transaction committed at {commit_lsn}, but the server does not send \
                 that transaction, or sends fewer: the publication was changed"
            ),
        )
        .at(commit_lsn)
    }

    async fn send(&self, work: Work) -> Result<(), Failure> {
        // The publishing thread says itself why it has ended; this is only how the source notices.
        self.queue.send(work).await.map_err(|_| Failure::new(Code::KafkaUnavailable, "the publishing thread has ended"))
    }
}

impl Pending {
    fn new() -> Self {
        Self {
            batch: RecordBatch::new(),
            boundary: None,
            received_at: Instant::now(),
            oldest_commit_unix_us: i64::MAX,
            transactions: 0,
            attachments: Vec::new(),
        }
    }

    /// Takes note of a transaction with records in the batch.
    fn note_commit(&mut self, commit_time: Timestamp) {
        self.oldest_commit_unix_us = self.oldest_commit_unix_us.min(commit_time.unix_micros());
    }
}

mod copies;
mod messages;
#[cfg(test)]
mod tests;
