//! Records that are passed on from one topic to another, in transactions that carry how far that has come.
//!
//! As with the stream's, a transaction can be committed only with its place as its last record: [`Transaction::conclude`] alone makes it a [`Prepared`].

use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _},
};

use super::{OutgoingRecord, Prepared, Transaction, kept};
use crate::{
    budget::{headers_cost, record_cost},
    error::PublishError,
    reports::Origin,
};
use pgoutput::Lsn;

/// A record that is passed on.
#[derive(Debug, Clone, Copy)]
pub struct ForwardedRecord<'a> {
    /// Where to.
    pub topic: &'a str,
    /// The partition; none leaves it to the key, by Java's default partitioner, and to partition 0 where there is no key.
    pub partition: Option<i32>,
    /// Its time, in milliseconds since 1970.
    pub unix_ms: Option<i64>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl Transaction {
    /// Queues a record, and charges what it costs to the budget, past its limit: who forwards bounds the transaction.
    ///
    /// # Errors
    /// See [`PublishError::verdict`]. The transaction cannot be committed any more.
    pub fn forward(&mut self, record: &ForwardedRecord<'_>) -> Result<(), PublishError> {
        let lengths = record.headers.iter().map(|(name, value)| (name.len(), value.map_or(0, <[u8]>::len)));
        let (key_bytes, value_bytes) = (record.key.map_or(0, <[u8]>::len), record.value.map_or(0, <[u8]>::len));
        self.inner.context().budget.charge(record_cost(key_bytes, value_bytes, headers_cost(lengths)));
        let mut message = BaseRecord::<[u8], [u8], Origin>::with_opaque_to(record.topic, Origin(Lsn::INVALID));
        message.key = record.key;
        message.payload = record.value;
        message.partition = record.partition.or(record.key.is_none().then_some(0));
        message.timestamp = record.unix_ms;
        if !record.headers.is_empty() {
            let headers = record.headers.iter();
            let headers =
                headers.fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: *value }));
            message.headers = Some(headers);
        }
        // What it is called if it is not taken.
        let ForwardedRecord { topic, key, value, .. } = *record;
        let called = OutgoingRecord { topic, key, value, headers: &[], is_letter: true, lsn: Lsn::INVALID };
        self.enqueue(message, &called)
    }

    /// Writes how far the records have come, as the last record, and waits until the brokers have acknowledged all of the transaction.
    ///
    /// # Errors
    /// See [`PublishError::verdict`]. Nothing of the transaction is committed.
    pub fn conclude(self, topic: &str, key: &[u8], place: &[u8]) -> Result<Prepared, PublishError> {
        let record = kept(topic, key, Some(place));
        self.charge(&record);
        self.deliver(&record)
    }
}
