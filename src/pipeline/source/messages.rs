//! Logical decoding messages, inside of transactions and outside: the source's part of them.

use std::sync::{Arc, LazyLock};

use encoder::{EventContext, EventOrder, MessageTopic};
use pgoutput::{LogicalMessage, Timestamp};

use super::{Boundary, Covered, Source};
use crate::{
    failure::{Code, Failure},
    metrics::LeftOut,
    pipeline::publish::unix_ns,
};

/// What the events of the topic of messages are counted under.
static MESSAGES: LazyLock<Arc<str>> = LazyLock::new(|| MessageTopic::COLLECTION.into());

impl Source {
    /// A logical decoding message of a transaction: an event like those of its changes.
    pub(super) async fn message(&mut self, message: &LogicalMessage) -> Result<(), Failure> {
        let lsn = message.lsn;
        let Some(transaction) = &self.transaction else {
            return Err(Failure::new(Code::ProtocolViolation, "a message outside of its transaction").at(lsn));
        };
        let is_covered = match transaction.covered {
            Covered::Everything => return Ok(()),
            Covered::Part { messages, .. } => transaction.messages < messages,
            Covered::Nothing => false,
        };
        let is_wanted = self.relations.metadata.wants_message(&message.prefix);
        if is_wanted && !is_covered {
            // Before it is counted: what is handed on while its topic is waited for does not cover it. And in this order: with the BEGIN,
            // the batch must not be handed on before the event.
            self.await_message_topic().await?;
            self.write_begin(lsn).await?;
        }
        let Some(transaction) = &mut self.transaction else {
            return Err(Failure::new(Code::Internal, "the transaction is gone").at(lsn));
        };
        transaction.messages += 1;
        if !is_wanted {
            if !is_covered {
                self.metrics.left_out(LeftOut::UnwantedMessage);
            }
            return Ok(());
        }
        if is_covered {
            transaction.message_events += 1;
        } else {
            let mut order = EventOrder { total: transaction.events, collection: transaction.message_events };
            let context = EventContext { transaction: &transaction.context, lsn, processed_unix_ns: unix_ns() };
            let topic = self.relations.message_topic().await?;
            topic.encode(message, &context, &mut order, &mut self.pending.batch);
            self.pending.note_commit(transaction.begin.commit_time);
            (transaction.events, transaction.message_events) = (order.total, order.collection);
        }
        if self.marks_transactions {
            let (mark, number) = (&mut transaction.message_mark, transaction.number);
            transaction.collections.add(&MESSAGES, mark, number, 1);
        }
        Ok(())
    }

    /// A logical decoding message outside of any transaction. The server sends it when it reads it, between transactions, and what
    /// has come since the stream began is in the order of the log's records. So its end is a position like the end of a commit: what is
    /// before it was sent before it, and what the server sends again from there is what starts at or after it. The server's rule is the
    /// same for both (`SnapBuildXactNeedsSkip`).
    pub(super) async fn message_alone(&mut self, message: &LogicalMessage, sent_at: Timestamp) -> Result<(), Failure> {
        if self.transaction.is_some() {
            let found = "a message that belongs to no transaction inside one";
            return Err(Failure::new(Code::ProtocolViolation, found).at(message.lsn));
        }
        // It ends at or before the position, so that it starts before it.
        if message.lsn <= self.resume.end_lsn {
            return Ok(());
        }
        if !self.relations.metadata.wants_message(&message.prefix) {
            self.metrics.left_out(LeftOut::UnwantedMessage);
            return Ok(());
        }
        let position = self.position().quiet_until(message.lsn).ok_or_else(|| self.split_is_gone())?;
        self.await_message_topic().await?;
        let topic = self.relations.message_topic().await?;
        topic.encode_alone(message, sent_at, unix_ns(), &mut self.pending.batch);
        self.pending.note_commit(sent_at);
        self.end_lsn = position.end_lsn;
        self.metrics.received(position.end_lsn);
        self.pending.boundary = Some(Boundary { records: self.pending.batch.len(), position });
        Ok(())
    }

    /// The topic of messages may have to be waited for, and what was encoded before need not wait.
    async fn await_message_topic(&mut self) -> Result<(), Failure> {
        if self.relations.message_topic.is_none() {
            self.flush(false).await?;
            self.relations.message_topic().await?;
        }
        Ok(())
    }
}
