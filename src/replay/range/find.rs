//! A partition in Kafka, as the search for an LSN looks at it.

use std::ops::ControlFlow;

use publisher::{Appetite, Isolation, KafkaSettings, Next, ReadFrom, TopicReader};

use crate::{
    failure::Failure,
    replay::{
        bisect::{Log, Look},
        decode::Decoder,
        position::Position,
        reading::failure,
    },
};

/// So many records in one go are worth a reader that fetches ahead.
const MANY: i64 = 20_000;

/// A partition, and who reads it.
pub(super) struct KafkaLog<'a> {
    settings: &'a KafkaSettings,
    reader: &'a mut TopicReader,
    ahead: Option<TopicReader>,
    decoder: &'a mut Decoder,
    topic: &'a str,
    partition: i32,
}

impl<'a> KafkaLog<'a> {
    pub(super) fn new(
        settings: &'a KafkaSettings,
        reader: &'a mut TopicReader,
        decoder: &'a mut Decoder,
        topic: &'a str,
        partition: i32,
    ) -> Self {
        Self { settings, reader, ahead: None, decoder, topic, partition }
    }
}

impl Log for KafkaLog<'_> {
    type Error = Failure;

    fn visit(
        &mut self,
        look: Look,
        from: i64,
        end: i64,
        visit: &mut dyn FnMut(i64, Position) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let reader = match look {
            Look::Through(records) if records > MANY => {
                if self.ahead.is_none() {
                    let ahead = TopicReader::connect(self.settings, Isolation::Committed, Appetite::All);
                    self.ahead = Some(ahead.map_err(|error| failure(&error))?);
                }
                self.ahead.as_mut().unwrap_or(self.reader)
            }
            _ => &mut *self.reader,
        };
        let decoder = &mut *self.decoder;
        each(reader, self.topic, self.partition, from, end, &mut |record| {
            Ok(visit(record.offset(), decoder.position(record)?))
        })
    }
}

/// The offset of the first record between two offsets.
pub(super) fn first_record(
    reader: &mut TopicReader,
    topic: &str,
    partition: i32,
    from: i64,
    end: i64,
) -> Result<Option<i64>, Failure> {
    let mut first = None;
    each(reader, topic, partition, from, end, &mut |record| {
        first = Some(record.offset());
        Ok(ControlFlow::Break(()))
    })?;
    Ok(first)
}

fn each(
    reader: &mut TopicReader,
    topic: &str,
    partition: i32,
    from: i64,
    end: i64,
    visit: &mut dyn FnMut(&publisher::FetchedRecord<'_>) -> Result<ControlFlow<()>, Failure>,
) -> Result<(), Failure> {
    if from >= end {
        return Ok(());
    }
    let place = ReadFrom { topic: topic.to_owned(), partition, offset: from };
    reader.read_from(std::slice::from_ref(&place)).map_err(|error| failure(&error))?;
    loop {
        match reader.read().map_err(|error| failure(&error))? {
            Next::Nothing => {}
            Next::End(_) => {
                if reader.has_read(&place, end).map_err(|error| failure(&error))? {
                    return Ok(());
                }
            }
            Next::Record(record) => {
                let offset = record.offset();
                if offset >= end || visit(&record)?.is_break() || offset + 1 >= end {
                    return Ok(());
                }
            }
        }
    }
}
