//! Records of topics, between the offsets that a range has come to.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use publisher::{Appetite, FetchedRecord, Isolation, KafkaSettings, Next, PublishError, ReadFrom, TopicReader};

use crate::{
    failure::{Code, Failure},
    pipeline::failure_of,
};

/// A part of a partition: from an offset on to before another, or for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) from: i64,
    pub(crate) to: Option<i64>,
}

impl Span {
    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.to.is_some_and(|to| to <= self.from)
    }
}

/// Whether somebody has asked to stop.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<Asked>);

#[derive(Debug, Default)]
struct Asked {
    is_asked: AtomicBool,
    is_idle: AtomicBool,
}

impl Stop {
    /// Returns whether nobody has to be waited for: the program may end at once.
    pub(crate) fn ask(&self) -> bool {
        self.0.is_asked.store(true, Ordering::Relaxed);
        self.0.is_idle.load(Ordering::Relaxed)
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.0.is_asked.load(Ordering::Relaxed)
    }

    /// Does what leaves nothing behind wherever it is broken off, and asks nobody for a while: looking for the ends of a range.
    pub(crate) fn idle<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.is_idle.store(true, Ordering::Relaxed);
        let done = work();
        self.0.is_idle.store(false, Ordering::Relaxed);
        done
    }
}

/// What is read.
pub(crate) enum Read<'a> {
    /// A record.
    Record(&'a FetchedRecord<'a>),
    /// Nothing more is there just now.
    Idle,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    GoOn,
    Enough,
}

/// Reads spans: topic after topic, or, where they have no end, all at once. Each partition's records come in order.
///
/// # Errors
/// Kafka cannot be reached or refuses, records are gone that were to be read, or the visitor fails.
pub(crate) fn read(
    settings: &KafkaSettings,
    isolation: Isolation,
    spans: &[Span],
    stop: &Stop,
    visit: &mut dyn FnMut(Read<'_>) -> Result<Then, Failure>,
) -> Result<(), Failure> {
    let wanted: Vec<Span> = spans.iter().filter(|span| !span.is_empty()).cloned().collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut reader = TopicReader::connect(settings, isolation, Appetite::All).map_err(|error| failure(&error))?;
    let is_endless = wanted.iter().any(|span| span.to.is_none());
    let same_topic = |left: &Span, right: &Span| is_endless || left.topic == right.topic;
    for spans in wanted.chunk_by(same_topic) {
        if read_at_once(&mut reader, spans, stop, visit)? == Then::Enough {
            break;
        }
    }
    Ok(())
}

fn read_at_once(
    reader: &mut TopicReader,
    spans: &[Span],
    stop: &Stop,
    visit: &mut dyn FnMut(Read<'_>) -> Result<Then, Failure>,
) -> Result<Then, Failure> {
    let places =
        spans.iter().map(|span| ReadFrom { topic: span.topic.clone(), partition: span.partition, offset: span.from });
    let places: Vec<_> = places.collect();
    reader.read_from(&places).map_err(|error| failure(&error))?;
    let place = |span: &Span| (span.topic.clone(), span.partition);
    let mut open: BTreeMap<(String, i32), Option<i64>> = spans.iter().map(|span| (place(span), span.to)).collect();
    while !open.is_empty() {
        if stop.is_asked() {
            return Ok(Then::Enough);
        }
        // A partition whose end is behind it; more of it may have been fetched.
        let mut done = None;
        match reader.read().map_err(|error| failure(&error))? {
            Next::Record(record) => {
                let place = (record.topic().to_owned(), record.partition());
                let Some(to) = open.get(&place) else { continue };
                if to.is_none_or(|to| record.offset() < to) && visit(Read::Record(&record))? == Then::Enough {
                    return Ok(Then::Enough);
                }
                if to.is_some_and(|to| record.offset() + 1 >= to) {
                    done = Some(place);
                }
            }
            // Of what has an end all is of one topic. What was there when the range was made may be more than the broker knows of that answers now:
            // then it is read on.
            Next::End(partition) => {
                if let Some(((topic, _), to)) = open.iter().find(|((_, open), _)| *open == partition)
                    && let Some(to) = *to
                {
                    let from = places.iter().find(|from| from.topic == *topic && from.partition == partition);
                    let is_read = from.map_or(Ok(true), |from| reader.has_read(from, to));
                    if is_read.map_err(|error| failure(&error))? {
                        done = Some((topic.clone(), partition));
                    }
                } else {
                    reader.is_patient();
                }
                if visit(Read::Idle)? == Then::Enough {
                    return Ok(Then::Enough);
                }
            }
            Next::Nothing => {
                if open.values().all(Option::is_none) {
                    reader.is_patient();
                }
                if visit(Read::Idle)? == Then::Enough {
                    return Ok(Then::Enough);
                }
            }
        }
        if let Some(place) = done {
            reader.pause(&place.0, place.1).map_err(|error| failure(&error))?;
            open.remove(&place);
        }
    }
    Ok(Then::GoOn)
}

/// What an error of a reader means.
pub(crate) fn failure(error: &PublishError) -> Failure {
    if error.is_offset_gone() {
        return Failure::new(Code::RangeGone, format!("records were removed while they were to be read: {error}"));
    }
    failure_of(error, Duration::ZERO, Duration::MAX)
}
