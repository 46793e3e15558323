//! `pgsluice release --discard`: the letters of a table are given up, on somebody's word.
//!
//! It is for letters that are gone, or that nothing can be made of: the changes in them will be in no topic, and the table's quarantine ends
//! without them. Nothing else ends it so. What is given up is told before anything is done, and again when it is; the letters that
//! are there stay in their topic. Other tables in quarantine stay as they are.
//!
//! Whoever says the word has seen what waits up to some offset, while the stream may have gone on. So the word has that offset with it, and
//! is not taken for what has come behind.

use std::fmt;

use encoder::RecordBatch;
use pgoutput::Lsn;
use publisher::{Isolation, KafkaSettings, LogReader};
use tracing::warn;

use super::{
    letters,
    release::{Release, Wanted, blocking, look_for, read_chunk},
    supervisor::kafka_settings,
};
use crate::{
    config::Config,
    failure::{Code, Failure},
    quarantine::{Missing, Quarantine, Quarantined},
};

/// How many letters are in memory at once, at most.
const RECORDS_MAX: u64 = 10_000;

/// What waits in the letters of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// `schema.table`
    pub table: String,
    /// The topic that they wait for.
    pub topic: String,
    /// The topic of which others wait that come first.
    pub behind: Option<String>,
    /// The topic of its letters.
    pub letters: String,
    /// How many changes can be read.
    pub changes: u64,
    /// How many records should be changes, and cannot be read.
    pub unreadable: u64,
    /// The offsets of the first and of the last of them, and the ends of the commits of the first and of the last that can be read.
    pub range: Option<(i64, i64, Lsn, Lsn)>,
    /// What was lost before.
    pub missing: Option<Missing>,
    /// The offset behind all that waits, and all that was lost.
    pub end: i64,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, letters, changes, unreadable, range, missing, .. } = self;
        write!(f, "{table}: {changes} changes wait in {letters}")?;
        if *unreadable > 0 {
            write!(f, ", and {unreadable} records that cannot be read")?;
        }
        if let Some((first, last, first_lsn, last_lsn)) = range {
            write!(f, ", at the offsets {first} to {last}, of the commits {first_lsn} to {last_lsn}")?;
        }
        match missing {
            Some(missing) => write!(f, "; more are missing already: {missing}"),
            None => Ok(()),
        }
    }
}

impl Waiting {
    /// Reads what is there. What is open in the topic is waited for only if it is `settled` that nobody writes any more.
    async fn read(kafka: &KafkaSettings, topic: &str, entry: &Quarantined, settled: bool) -> Result<Self, Failure> {
        let isolation = if settled { Isolation::Uncommitted } else { Isolation::Committed };
        let (settings, wanted) = (kafka.clone(), entry.clone());
        // Where it cannot be looked at, nothing is known of what there is, and nothing is given up.
        let found = blocking(move || letters::look_for(&settings, &wanted, isolation)).await;
        let letters::Found { bounds, missing } = found.map_err(|failure| failure.for_topic(&entry.letters))?;
        let mut waiting = Self {
            table: entry.table.clone(),
            topic: topic.to_owned(),
            behind: entry.behind.clone(),
            letters: entry.letters.clone(),
            changes: 0,
            unreadable: 0,
            range: None,
            missing,
            end: bounds.map_or(0, |(_, end)| end).max(entry.end_offset),
        };
        let (first, end) = bounds.unwrap_or_default();
        let mut reader = LogReader::new(kafka, entry.letters.as_str(), Isolation::Committed)
            .starting_at(entry.next_offset.max(first));
        while reader.next() < end {
            let chunk = read_chunk(reader, end, RECORDS_MAX).await;
            let chunk = chunk.map_err(|failure| failure.for_topic(&entry.letters))?;
            reader = chunk.reader;
            for (offset, letter) in chunk.letters {
                match letter {
                    Ok(Some(change)) => {
                        waiting.changes += 1;
                        waiting.note(offset, Some(change.identity().0));
                    }
                    // It is a dead letter of another kind, which nothing becomes of.
                    Ok(None) => {}
                    Err(_) => {
                        waiting.unreadable += 1;
                        waiting.note(offset, None);
                    }
                }
            }
        }
        Ok(waiting)
    }

    /// Refuses what was not seen by whoever has looked up to this offset. What is behind the last change is none, and may be more than it was. But
    /// an offset behind all that there is was told to nobody: it is another topic's, or a guess.
    fn refuse_unseen(&self, seen: i64, entry: &Quarantined) -> Result<(), Failure> {
        let last = self.range.map_or(0, |(_, last, ..)| last + 1);
        let found = if last.max(entry.end_offset) > seen {
            format!("nothing was changed: more has come behind offset {seen} meanwhile. Now {self}")
        } else if seen > self.end {
            format!(
                "nothing was changed: offset {seen} is not the one that was told, for nothing is behind {}. Now {self}",
                self.end
            )
        } else {
            return Ok(());
        };
        Err(Failure::new(Code::NotConfirmed, found).for_topic(&self.letters))
    }

    fn note(&mut self, offset: i64, lsn: Option<Lsn>) {
        let (first, _, first_lsn, last_lsn) = self.range.unwrap_or((offset, offset, Lsn::INVALID, Lsn::INVALID));
        let first_lsn = if first_lsn.is_valid() { first_lsn } else { lsn.unwrap_or(Lsn::INVALID) };
        self.range = Some((first, offset, first_lsn, lsn.unwrap_or(last_lsn)));
    }
}

/// What would be given up of these tables. Nobody is fenced, and nothing is changed.
///
/// # Errors
/// A table is not in quarantine, or Kafka cannot be reached, or does not let its letters be looked at.
pub async fn preview_discard(config: &Config, tables: &[String]) -> Result<Vec<Waiting>, Failure> {
    let kafka = kafka_settings(config);
    let mut waiting = Vec::new();
    for (topic, entry) in look_for(config, &Wanted::Tables(tables.to_vec())).await?.entries {
        waiting.push(Waiting::read(&kafka, &topic, &entry, false).await?);
    }
    Ok(waiting)
}

impl Release {
    /// Gives up what waits of a table up to an offset, and ends its quarantine. Returns what it was.
    ///
    /// # Errors
    /// The table is not in quarantine, or what waits in front of it comes first, or more waits than that or nothing so far, or Kafka cannot be reached, or does not let its letters be looked at; then it is in
    /// quarantine still.
    pub async fn discard(&mut self, table: &str, seen: i64) -> Result<Vec<Waiting>, Failure> {
        let mut given_up = Vec::new();
        for (topic, entry) in Wanted::Tables(vec![table.to_owned()]).chosen(&self.quarantine)? {
            refuse_behind_another(&self.quarantine, &topic)?;
            let waiting = Waiting::read(&self.kafka, &topic, &entry, true).await?;
            waiting.refuse_unseen(seen, &entry)?;
            given_up.push((topic, waiting));
        }
        let mut entries = Vec::new();
        for (topic, _) in &given_up {
            let freed = self.quarantine.end(topic);
            entries.extend(freed.iter().chain([topic]).map(|topic| self.quarantine.attachment(topic)));
        }
        self.commit(RecordBatch::new(), entries).await?;
        for (topic, waiting) in &given_up {
            warn!(topic, "given up, and in no topic of a table from here on: {waiting}");
        }
        Ok(given_up.into_iter().map(|(_, waiting)| waiting).collect())
    }
}

/// Refuses what has changes of its table in front of it that still wait: where the table is now, they would look as if they were its newest.
fn refuse_behind_another(quarantine: &Quarantine, topic: &str) -> Result<(), Failure> {
    let Some(other) = quarantine.waits_behind(topic) else { return Ok(()) };
    let found = format!(
        "nothing was changed: the table was renamed while its changes waited for topic {other}, which come first: release or discard {other}"
    );
    Err(Failure::new(Code::NotReleased, found).for_topic(topic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_behind_another_is_given_up_after_it() {
        let mut quarantine = Quarantine::default();
        let entry = Quarantined::new("public.item".into(), "letters".into(), 0, 0, "no");
        quarantine.begin("a", entry.clone());
        quarantine.begin("b", entry.behind(Some("a".into())));
        assert!(refuse_behind_another(&quarantine, "a").is_ok());
        let refused = refuse_behind_another(&quarantine, "b").expect_err("it is behind");
        assert!(
            refused.code() == Code::NotReleased && refused.to_string().contains("release or discard a"),
            "{refused}"
        );
        quarantine.end("a");
        assert!(refuse_behind_another(&quarantine, "b").is_ok());
    }

    #[test]
    fn what_is_given_up_is_told() {
        let mut waiting = Waiting {
            table: "public.item".into(),
            topic: "shop.public.item".into(),
            behind: None,
            letters: "shop.public.item.dead-letters".into(),
            changes: 0,
            unreadable: 0,
            range: None,
            missing: Some(Missing::Topic("all".into())),
            end: 11,
        };
        assert_eq!(
            waiting.to_string(),
            "public.item: 0 changes wait in shop.public.item.dead-letters; more are missing already: all"
        );
        for (offset, lsn) in [(3, Some(16)), (4, None), (7, Some(32)), (8, None)] {
            waiting.note(offset, lsn.map(Lsn::from));
        }
        (waiting.changes, waiting.unreadable, waiting.missing) = (2, 2, None);
        assert_eq!(
            waiting.to_string(),
            "public.item: 2 changes wait in shop.public.item.dead-letters, and 2 records that cannot be read, at the offsets 3 to 8, of the \
             commits 0/10 to 0/20"
        );
        // The last that waits is at 8, and behind it may be what ends its transaction.
        for (seen, end_offset, is_confirmed) in
            [(9, 9, true), (11, 9, true), (12, 9, false), (9, 10, false), (8, 7, false)]
        {
            let mut entry = Quarantined::new("public.item".into(), waiting.letters.clone(), 3, 0, "no");
            entry.end_offset = end_offset;
            let refused = waiting.refuse_unseen(seen, &entry).err().map(|failure| failure.code());
            assert_eq!(refused.is_none(), is_confirmed, "{seen} {end_offset}");
            assert!(refused.is_none_or(|code| code == Code::NotConfirmed));
        }
    }
}
