//! Encoded records, ready to be sent.

use std::{ops::Range, sync::Arc};

use pgoutput::Lsn;

/// Records in the order in which they are to be sent, all in one buffer, which can be cleared and used again.
#[derive(Debug, Default)]
pub struct RecordBatch {
    data: Vec<u8>,
    records: Vec<Entry>,
    headers: Vec<HeaderEntry>,
    /// Where a value is put together that is written in another form then; empty between records.
    scratch: Vec<u8>,
    /// Neighbouring records mostly share a topic, so that not each has to count a reference.
    topics: Vec<Arc<str>>,
}

/// One record of a [`RecordBatch`].
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Where it goes.
    pub topic: &'a Arc<str>,
    /// The key with its schema id in front; none for a table without a key, and for a truncation.
    pub key: Option<&'a [u8]>,
    /// The value with its schema id in front; none for a tombstone.
    pub value: Option<&'a [u8]>,
    /// The position of the change that it came from.
    pub lsn: Lsn,
    /// Whether it belongs into each partition of its topic, since it is about all rows that are there: a truncation.
    pub is_for_all_partitions: bool,
    headers: &'a [HeaderEntry],
    data: &'a [u8],
}

impl<'a> Record<'a> {
    /// Names and values of the headers.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'static str, &'a [u8])> {
        let data = self.data;
        self.headers.iter().map(move |header| (header.name, &data[header.value.clone()]))
    }
}

#[derive(Debug)]
struct Entry {
    topic: usize,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    lsn: Lsn,
    is_for_all_partitions: bool,
    headers: Range<usize>,
}

#[derive(Debug)]
struct HeaderEntry {
    name: &'static str,
    value: Range<usize>,
}

impl RecordBatch {
    /// A batch without records.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many records it has, tombstones among them.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it has no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many bytes of keys, values and headers it has: what a memory budget counts.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Its records.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        let bytes = |range: &Range<usize>| &self.data[range.clone()];
        self.records.iter().map(move |entry| Record {
            topic: &self.topics[entry.topic],
            key: entry.key.as_ref().map(bytes),
            value: entry.value.as_ref().map(bytes),
            lsn: entry.lsn,
            is_for_all_partitions: entry.is_for_all_partitions,
            headers: &self.headers[entry.headers.clone()],
            data: &self.data,
        })
    }

    /// Drops all records but those at the positions for which `keep` says so. Their bytes stay until the batch is cleared.
    pub fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let mut position = 0;
        self.records.retain(|_| {
            position += 1;
            keep(position - 1)
        });
        // Headers behind the last record belong to the one that is pushed next.
        self.headers.truncate(self.records.last().map_or(0, |last| last.headers.end));
    }

    /// Drops the records and keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.records.clear();
        self.headers.clear();
        self.topics.clear();
    }

    /// Lets `write` append. If it fails, or makes no record, the batch is as it was before.
    #[inline]
    pub(crate) fn append<E>(&mut self, write: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<(), E> {
        let (data, records, headers, topics) =
            (self.data.len(), self.records.len(), self.headers.len(), self.topics.len());
        let result = write(self);
        if result.is_err() || self.records.len() == records {
            self.data.truncate(data);
            self.records.truncate(records);
            self.headers.truncate(headers);
            self.topics.truncate(topics);
        }
        result
    }

    /// Where the next record's bytes go. They become a record with [`push`](Self::push).
    #[inline]
    pub(crate) fn data(&mut self) -> &mut Vec<u8> {
        &mut self.data
    }

    /// An empty buffer, to be given back by [`put_scratch`](Self::put_scratch).
    pub(crate) fn take_scratch(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.scratch)
    }

    /// Keeps a buffer's memory for later.
    pub(crate) fn put_scratch(&mut self, mut scratch: Vec<u8>) {
        scratch.clear();
        self.scratch = scratch;
    }

    /// All bytes that were appended.
    #[inline]
    pub(crate) fn appended(&self) -> &[u8] {
        &self.data
    }

    /// Makes a record of bytes that were appended to [`data`](Self::data), with the headers that were added since the last one.
    #[inline]
    pub(crate) fn push(&mut self, topic: &Arc<str>, lsn: Lsn, key: Option<Range<usize>>, value: Option<Range<usize>>) {
        if self.topics.last().is_none_or(|last| !Arc::ptr_eq(last, topic)) {
            self.topics.push(Arc::clone(topic));
        }
        let first_header = self.records.last().map_or(0, |last| last.headers.end);
        let headers = first_header..self.headers.len();
        let topic = self.topics.len() - 1;
        self.records.push(Entry { topic, key, value, lsn, is_for_all_partitions: false, headers });
    }

    /// Says of the record that was pushed last that it belongs into each partition.
    pub(crate) fn is_for_all_partitions(&mut self) {
        if let Some(last) = self.records.last_mut() {
            last.is_for_all_partitions = true;
        }
    }

    /// Adds a header, whose value was appended to [`data`](Self::data), to the record that is pushed next.
    pub(crate) fn add_header(&mut self, name: &'static str, value: Range<usize>) {
        self.headers.push(HeaderEntry { name, value });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Topic, key, value and headers.
    type Contents = (String, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(&'static str, Vec<u8>)>);

    fn contents(batch: &RecordBatch) -> Vec<Contents> {
        let owned = |bytes: &[u8]| bytes.to_vec();
        let record = |record: Record<'_>| {
            let headers = record.headers().map(|(name, value)| (name, value.to_vec())).collect();
            (record.topic.to_string(), record.key.map(owned), record.value.map(owned), headers)
        };
        batch.iter().map(record).collect()
    }

    #[test]
    fn a_failure_takes_everything_back() {
        let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
        let mut batch = RecordBatch::new();
        batch.data().extend_from_slice(b"kv");
        batch.push(&one, Lsn::INVALID, Some(0..1), Some(1..2));
        let before = contents(&batch);

        let failed: Result<(), ()> = batch.append(|batch| {
            batch.data().extend_from_slice(b"header");
            batch.add_header("h", 2..8);
            batch.push(&two, Lsn::INVALID, None, None);
            batch.data().push(0);
            Err(())
        });
        assert!(failed.is_err());
        assert_eq!(contents(&batch), before);
        assert_eq!((batch.len(), batch.bytes()), (1, 2));

        batch.push(&two, Lsn::INVALID, Some(0..1), None);
        assert_eq!(contents(&batch)[1], ("two".to_owned(), Some(b"k".to_vec()), None, vec![]));
    }

    #[test]
    fn headers_belong_to_their_record() {
        let topic: Arc<str> = "t".into();
        let mut batch = RecordBatch::new();
        batch.data().extend_from_slice(b"ab");
        batch.push(&topic, Lsn::INVALID, None, None);
        batch.add_header("a", 0..1);
        batch.push(&topic, Lsn::INVALID, None, None);
        batch.add_header("b", 1..2);
        batch.push(&topic, Lsn::INVALID, None, None);
        let headers: Vec<_> = contents(&batch).into_iter().map(|record| record.3).collect();
        assert_eq!(headers, [vec![], vec![("a", b"a".to_vec())], vec![("b", b"b".to_vec())]]);
        batch.retain(|position| position != 2);
        batch.add_header("a", 0..1);
        batch.push(&topic, Lsn::INVALID, None, None);
        batch.retain(|position| position != 0);
        let headers: Vec<_> = contents(&batch).into_iter().map(|record| record.3).collect();
        assert_eq!(headers, [vec![("a", b"a".to_vec())], vec![("a", b"a".to_vec())]]);
        batch.clear();
        assert!(batch.is_empty());
    }
}
