//! From where to where: points that an operator knows, and the offsets that they are.
//!
//! A range has its first point in it and its last one not, so that ranges can follow each other. What there is to read ends where it ended when the
//! range was made: as far as it was committed then, for who reads what is committed.
//!
//! | point | offset in each partition |
//! |---|---|
//! | an offset | that one; what is there may be the mark of a transaction, and reading goes on behind it |
//! | a time | of the first record of then or later (Kafka's own look-up) |
//! | an LSN | of the first record that comes from there or later ([`super::bisect`]) |
//!
//! Where records were removed that could have been in the range, it is refused, unless whoever asks is content with what there is. A partition that
//! begins at offset 0 has lost nothing to a retention; one that does not has lost nothing of the range if a record is left that is before it.

mod find;

use std::fmt;

use pgoutput::Lsn;
use publisher::{Appetite, Isolation, KafkaSettings, TopicAdmin, TopicReader};
use tracing::debug;

use self::find::KafkaLog;
use super::{
    bisect,
    decode::Decoder,
    moment::Moment,
    reading::{Span, failure},
};
use crate::failure::{Code, Failure};

/// More partitions are not listed in a message.
const LISTED_MAX: usize = 6;

/// A point in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    Beginning,
    End,
    Offset(i64),
    Time(Moment),
    Lsn(Lsn),
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beginning => f.write_str("the beginning"),
            Self::End => f.write_str("the end"),
            Self::Offset(offset) => write!(f, "offset {offset}"),
            Self::Time(time) => write!(f, "{time}"),
            Self::Lsn(lsn) => write!(f, "LSN {lsn}"),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Range {
    pub(crate) from: Point,
    /// None for all that there is.
    pub(crate) to: Option<Point>,
    /// None of them stands for all.
    pub(crate) partitions: Vec<i32>,
    /// Whether it is for what comes later too.
    pub(crate) is_endless: bool,
    /// Whether records may be gone.
    pub(crate) is_content_with_less: bool,
}

impl Range {
    /// Refuses a range that ends before it begins, as far as that can be seen without a topic.
    ///
    /// # Errors
    /// It does.
    pub(crate) fn refuse_backwards(&self) -> Result<(), Failure> {
        let is_backwards = match (self.from, self.to) {
            (Point::Offset(from), Some(Point::Offset(to))) => to < from,
            (Point::Time(from), Some(Point::Time(to))) => to < from,
            (Point::Lsn(from), Some(Point::Lsn(to))) => to < from,
            _ => false,
        };
        match self.to {
            Some(to) if is_backwards => Err(Failure::new(Code::RangeInvalid, format!("{to} is before {}", self.from))),
            _ => Ok(()),
        }
    }
}

/// Makes spans of ranges. Its calls block.
pub(crate) struct Resolver<'a> {
    settings: &'a KafkaSettings,
    decoder: &'a mut Decoder,
    admin: &'a TopicAdmin,
    /// Tells where partitions end, as the reader will see them.
    bounds: TopicReader,
    /// Looks for LSNs, in what is committed.
    looks: TopicReader,
    /// What may be worth knowing of how offsets were found.
    pub(crate) remarks: Vec<String>,
}

/// A partition, and what is in it.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    partition: i32,
    begin: i64,
    end: i64,
}

/// A range in a topic.
struct Found {
    spans: Vec<Span>,
    /// What is said where nothing is so late.
    past: Option<String>,
}

/// Where a point is in a partition.
struct Located {
    offset: i64,
    /// Whether there is no record of there or later.
    is_past_all: bool,
    /// What is said of it where records of the range may be gone.
    is_cut: Option<String>,
    /// What the last record before it is, where there is nothing of there or later.
    newest: Option<String>,
}

impl<'a> Resolver<'a> {
    /// # Errors
    /// librdkafka refuses a property.
    pub(crate) fn new(
        settings: &'a KafkaSettings,
        decoder: &'a mut Decoder,
        admin: &'a TopicAdmin,
        isolation: Isolation,
    ) -> Result<Self, Failure> {
        let connect =
            |isolation| TopicReader::connect(settings, isolation, Appetite::Few).map_err(|error| failure(&error));
        let (bounds, looks) = (connect(isolation)?, connect(Isolation::Committed)?);
        Ok(Self { settings, decoder, admin, bounds, looks, remarks: Vec::new() })
    }

    /// The spans of a range in topics. That some of them have nothing so late is remarked.
    ///
    /// # Errors
    /// There is no such topic or partition, the range is in none of them, or records of it may be gone.
    pub(crate) fn spans(&mut self, topics: &[String], range: &Range) -> Result<Vec<Span>, Failure> {
        let (mut spans, mut past, mut is_any) = (Vec::new(), Vec::new(), false);
        for (position, topic) in topics.iter().enumerate() {
            if topics[..position].contains(topic) {
                continue;
            }
            let found = self.spans_of(topic, range)?;
            is_any |= found.past.is_none();
            spans.extend(found.spans);
            past.extend(found.past);
        }
        if !is_any {
            return Err(Failure::new(Code::RangeInvalid, past.join("; ")));
        }
        self.remarks.extend(past);
        Ok(spans)
    }

    fn spans_of(&mut self, topic: &str, range: &Range) -> Result<Found, Failure> {
        let partitions = self.bounds_of(topic, &range.partitions)?;
        let from = self.locate(topic, &partitions, range.from)?;
        Self::refuse_cut(topic, &partitions, range, &from)?;
        let is_past = !range.is_endless && range.from != Point::End && from.iter().all(|located| located.is_past_all);
        let past = is_past.then(|| {
            let newest: Vec<&str> = from.iter().filter_map(|located| located.newest.as_deref()).collect();
            let there = if newest.is_empty() { listed(&partitions) } else { newest.join(", ") };
            format!("{topic} has nothing from {} on: {there}", range.from)
        });
        let to = match range.to {
            Some(point) => {
                self.locate(topic, &partitions, point)?.into_iter().map(|located| Some(located.offset)).collect()
            }
            None if range.is_endless => vec![None; partitions.len()],
            None => partitions.iter().map(|bounds| Some(bounds.end)).collect::<Vec<_>>(),
        };
        let spans = partitions.iter().zip(&from).zip(&to);
        let spans: Vec<Span> = spans
            .map(|((bounds, from), to)| Span {
                topic: topic.to_owned(),
                partition: bounds.partition,
                from: from.offset,
                to: to.map(|to| to.max(from.offset)),
            })
            .collect();
        let ends_before = from.iter().zip(&to).any(|(from, to)| to.is_some_and(|to| to < from.offset));
        if past.is_none() && ends_before && spans.iter().all(Span::is_empty) {
            let to = range.to.unwrap_or(Point::End);
            let found = format!("{to} is before {} in every partition of {topic}", range.from);
            return Err(Failure::new(Code::RangeInvalid, found));
        }
        Ok(Found { spans, past })
    }

    fn bounds_of(&self, topic: &str, wanted: &[i32]) -> Result<Vec<Bounds>, Failure> {
        let count = self.bounds.partitions(topic).map_err(|error| failure(&error))?;
        let Some(count) = count else { return Err(self.unknown(topic)) };
        if let Some(missing) = wanted.iter().find(|partition| !(0..count).contains(*partition)) {
            let found = format!("{topic} has no partition {missing}: it has {count}, from 0 on");
            return Err(Failure::new(Code::RangeInvalid, found));
        }
        let all = (0..count).filter(|partition| wanted.is_empty() || wanted.contains(partition));
        all.map(|partition| {
            let (begin, end) = self.bounds.bounds(topic, partition).map_err(|error| failure(&error))?;
            Ok(Bounds { partition, begin, end })
        })
        .collect()
    }

    fn unknown(&self, topic: &str) -> Failure {
        let mut found = format!("there is no topic {topic}");
        if let Ok(topics) = self.admin.partitions_by_topic() {
            let names = || topics.keys().map(String::as_str).filter(|other| !other.starts_with("__"));
            let mut near: Vec<&str> = names().filter(|other| other.contains(topic) || topic.contains(other)).collect();
            if near.is_empty() {
                let likeness = |other: &str| strsim::normalized_damerau_levenshtein(topic, other);
                let nearest = names().max_by(|left, right| likeness(left).total_cmp(&likeness(right)));
                near.extend(nearest.filter(|other| likeness(other) > 0.7));
            }
            near.truncate(3);
            if !near.is_empty() {
                found = format!("{found}; there is {}", near.join(", "));
            }
        }
        Failure::new(Code::TopicUnknown, found)
    }

    fn locate(&mut self, topic: &str, partitions: &[Bounds], point: Point) -> Result<Vec<Located>, Failure> {
        let plain = |offset| Located { offset, is_past_all: false, is_cut: None, newest: None };
        match point {
            Point::Beginning => Ok(partitions.iter().map(|bounds| plain(bounds.begin)).collect()),
            Point::End => Ok(partitions.iter().map(|bounds| plain(bounds.end)).collect()),
            Point::Offset(offset) => self.locate_offset(topic, partitions, offset),
            Point::Time(time) => self.locate_time(topic, partitions, time),
            Point::Lsn(lsn) => partitions.iter().map(|bounds| self.locate_lsn(topic, *bounds, lsn)).collect(),
        }
    }

    fn locate_offset(&mut self, topic: &str, partitions: &[Bounds], offset: i64) -> Result<Vec<Located>, Failure> {
        if partitions.iter().any(|bounds| offset > bounds.end) {
            let found = format!("{topic} has no offset {offset} yet: {}", listed(partitions));
            return Err(Failure::new(Code::RangeInvalid, found));
        }
        let is_compacted = match self.admin.config(topic) {
            Ok(config) => config.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
            Err(error) => {
                self.remarks.push(format!("whether {topic} is compacted cannot be told: {error}"));
                false
            }
        };
        let mut located = Vec::new();
        for bounds in partitions {
            let is_cut = if offset < bounds.begin {
                Some(format!("{} was removed", records_before(bounds.begin)))
            } else if is_compacted && offset < bounds.end {
                self.hole(topic, *bounds, offset)?
            } else {
                None
            };
            located.push(Located { offset: offset.max(bounds.begin), is_past_all: false, is_cut, newest: None });
        }
        Ok(located)
    }

    /// Whether there is nothing at an offset of a compacted topic.
    fn hole(&mut self, topic: &str, bounds: Bounds, offset: i64) -> Result<Option<String>, Failure> {
        // What was aborted was there.
        let reader = TopicReader::connect(self.settings, Isolation::Uncommitted, Appetite::Few);
        let mut reader = reader.map_err(|error| failure(&error))?;
        let next = find::first_record(&mut reader, topic, bounds.partition, offset, bounds.end)?;
        Ok((next != Some(offset)).then(|| {
            let next = next.map_or_else(|| "none comes behind it".to_owned(), |next| format!("the next is at {next}"));
            format!(
                "there is no record at {offset}, and {next}: it was compacted away, or was the mark of a transaction"
            )
        }))
    }

    fn locate_time(&mut self, topic: &str, partitions: &[Bounds], time: Moment) -> Result<Vec<Located>, Failure> {
        let count = partitions.iter().map(|bounds| bounds.partition + 1).max().unwrap_or(0);
        let at = |unix_ms| self.bounds.offsets_at(topic, count, unix_ms).map_err(|error| failure(&error));
        let (found, first) = (at(time.0)?, at(0)?);
        Ok(partitions
            .iter()
            .map(|bounds| {
                let of =
                    |offsets: &[Option<i64>]| offsets.get(usize::try_from(bounds.partition).ok()?).copied().flatten();
                let (found, first) = (of(&found), of(&first));
                // The first that is left, or nothing at all, tells nothing of what was before it.
                let is_cut = bounds.begin > 0 && (found.is_some() && found == first || first.is_none());
                Located {
                    offset: found.unwrap_or(bounds.end).min(bounds.end),
                    is_past_all: found.is_none_or(|found| found >= bounds.end),
                    is_cut: is_cut
                        .then(|| format!("{} was removed, and nothing older is left", records_before(bounds.begin))),
                    newest: None,
                }
            })
            .collect())
    }

    fn locate_lsn(&mut self, topic: &str, bounds: Bounds, wanted: Lsn) -> Result<Located, Failure> {
        let Bounds { partition, begin, .. } = bounds;
        let (_, end) = self.looks.bounds(topic, partition).map_err(|error| failure(&error))?;
        let mut log = KafkaLog::new(self.settings, &mut self.looks, self.decoder, topic, partition);
        let answer = bisect::find(&mut log, begin, end, wanted).map_err(|failed| match failed {
            bisect::Failed::Log(failure) => failure,
            bisect::Failed::Unknown(offset) => Failure::new(
                Code::RecordUnreadable,
                "a record does not say which LSN it comes from, as what pgsluice writes does, upserts in their headers"
                    .to_owned(),
            )
            .for_topic(format!("{topic} partition {partition} offset {offset}")),
        })?;
        debug!(topic, partition, lsn = %wanted, records_looked_at = answer.records, "an LSN is found");
        if let Some((earlier, later)) = answer.backwards {
            self.remarks.push(format!(
                "in {topic} partition {partition} positions go backwards, from {} at offset {} to {} at offset {}, as where a stream began again \
                 without its checkpoint: all {} records before the answer were read, and it is the first of there or later",
                earlier.lsn, earlier.offset, later.lsn, later.offset, answer.records
            ));
        }
        let is_cut = begin > 0 && answer.before.is_none();
        let begins = answer
            .first
            .map_or_else(|| "nothing is left".to_owned(), |first| format!("what is left begins with {}", first.lsn));
        Ok(Located {
            // What is not decided yet may be of the range.
            offset: answer.first.map_or(end.min(bounds.end), |first| first.offset),
            is_past_all: answer.first.is_none() && end >= bounds.end,
            is_cut: is_cut.then(|| format!("{} was removed, and {begins}", records_before(begin))),
            newest: answer.before.map(|before| {
                format!("the last commit in partition {partition} is {} at offset {}", before.lsn, before.offset)
            }),
        })
    }

    fn refuse_cut(topic: &str, partitions: &[Bounds], range: &Range, from: &[Located]) -> Result<(), Failure> {
        let cut = partitions.iter().zip(from).filter_map(|(bounds, located)| {
            Some(format!("in partition {} {}", bounds.partition, located.is_cut.as_ref()?))
        });
        let mut cut: Vec<String> = cut.collect();
        if cut.is_empty() || range.is_content_with_less {
            return Ok(());
        }
        let more = cut.len().saturating_sub(LISTED_MAX);
        cut.truncate(LISTED_MAX);
        if more > 0 {
            cut.push(format!("and so in {more} more"));
        }
        let found = format!("records of {topic} from {} on may be gone: {}", range.from, cut.join("; "));
        Err(Failure::new(Code::RangeGone, found))
    }
}

fn records_before(offset: i64) -> String {
    format!("what was before offset {offset}")
}

/// Which offsets there are.
fn listed(partitions: &[Bounds]) -> String {
    let mut listed: Vec<String> = partitions
        .iter()
        .take(LISTED_MAX)
        .map(|Bounds { partition, begin, end }| match end - begin {
            0 => format!("partition {partition} is empty, and ends at {end}"),
            _ => format!("partition {partition} has {begin} to {}, and ends at {end}", end - 1),
        })
        .collect();
    if partitions.len() > LISTED_MAX {
        listed.push(format!("and {} more", partitions.len() - LISTED_MAX));
    }
    listed.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: Point, to: Option<Point>) -> Range {
        Range { from, to, partitions: Vec::new(), is_endless: false, is_content_with_less: false }
    }

    #[test]
    fn a_range_ends_behind_its_beginning() {
        let lsn = |lsn: u64| Point::Lsn(Lsn::from(lsn));
        for (from, to, is_good) in [
            (Point::Offset(5), Some(Point::Offset(5)), true),
            (Point::Offset(5), Some(Point::Offset(4)), false),
            (lsn(16), Some(lsn(15)), false),
            (lsn(16), Some(lsn(17)), true),
            (Point::Time(Moment(2)), Some(Point::Time(Moment(1))), false),
            (Point::Time(Moment(2)), Some(lsn(1)), true),
            (Point::End, None, true),
        ] {
            assert_eq!(range(from, to).refuse_backwards().is_ok(), is_good, "{from} {to:?}");
        }
        let failure = range(lsn(16), Some(lsn(15))).refuse_backwards().expect_err("it is backwards");
        assert_eq!(failure.found(), "LSN 0/F is before LSN 0/10");
    }

    #[test]
    fn what_there_is_is_listed() {
        let bounds = |partition, begin, end| Bounds { partition, begin, end };
        assert_eq!(
            listed(&[bounds(0, 3, 9), bounds(1, 4, 4)]),
            "partition 0 has 3 to 8, and ends at 9, partition 1 is empty, and ends at 4"
        );
        let many: Vec<Bounds> = (0..9).map(|partition| bounds(partition, 0, 1)).collect();
        assert!(listed(&many).ends_with("and 3 more"), "{}", listed(&many));
    }
}
