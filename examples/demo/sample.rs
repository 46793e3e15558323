//! What is shown while there is more than anybody can read: now and then an event, and a count.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    avro::Row,
    consumer::Seen,
    screen::{EventLine, Screen, Style, duration, number},
};

/// Under heavy traffic one event in so long is shown, and a count now and then.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);
const COUNT_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    /// A row that was there before the stream.
    Read,
    Create,
    Update,
    Delete,
}

impl Operation {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// What is shown of an event.
pub(crate) struct Line {
    pub(crate) identity: (u64, u64),
    pub(crate) kind: Kind,
    pub(crate) commit_unix_us: i64,
    pub(crate) key: Row,
    pub(crate) change: String,
    /// None for a row of before: it was committed long ago.
    pub(crate) latency_us: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    pub(crate) table: &'static str,
    pub(crate) operation: Operation,
    /// Whether it is one half of a change of the key.
    pub(crate) of_new_key: bool,
}

impl Line {
    pub(crate) fn show(&self, screen: Screen) {
        screen.event(&EventLine {
            commit_unix_us: self.commit_unix_us,
            operation: self.kind.operation.word(),
            table: self.kind.table,
            key: &self.key,
            change: &self.change,
            latency_us: self.latency_us,
        });
    }
}

/// Chooses what is shown while there is more than anybody can read.
pub(crate) struct Sample {
    /// How often each kind of event was shown: the rarest has precedence.
    shown: BTreeMap<Kind, u64>,
    shown_at: Instant,
    counted_at: Instant,
    counted: u64,
    /// Waits to be shown.
    candidate: Option<Line>,
    /// The newest second half of a change of a key; the first one is in another partition, and may come later.
    second_half: Option<Line>,
    /// The second half that belongs to what was shown last.
    awaited: Option<(u64, u64)>,
}

impl Sample {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            shown: BTreeMap::new(),
            shown_at: now,
            counted_at: now,
            counted: 0,
            candidate: None,
            second_half: None,
            awaited: None,
        }
    }

    /// Counts from here, and forgets what was to be shown.
    pub(crate) fn restart(&mut self, events: u64) {
        (self.counted, self.counted_at) = (events, Instant::now());
        (self.candidate, self.second_half, self.awaited) = (None, None, None);
    }

    /// An event that could be shown.
    pub(crate) fn offer(&mut self, screen: Screen, line: Line) {
        if self.awaited == Some(line.identity) {
            line.show(screen);
            self.awaited = None;
        } else if line.kind.of_new_key && line.kind.operation == Operation::Create {
            // If it is chosen, then by its first half.
            if !self.candidate.as_ref().is_some_and(|held| self.is_whole(held)) {
                self.second_half = Some(line);
            }
        } else if self.candidate.as_ref().is_none_or(|held| self.rank(line.kind) < self.rank(held.kind)) {
            self.candidate = Some(line);
        }
        self.show_candidate(screen);
    }

    fn is_whole(&self, first: &Line) -> bool {
        first.kind.of_new_key && self.second_half.as_ref().is_some_and(|second| second.identity == second_of(first))
    }

    /// Changes of keys are two lines, and seldom in life.
    fn rank(&self, kind: Kind) -> u64 {
        let shown = self.shown.get(&kind).copied().unwrap_or_default();
        if kind.of_new_key { shown * 3 + 1 } else { shown }
    }

    fn show_candidate(&mut self, screen: Screen) {
        if self.shown_at.elapsed() < SAMPLE_INTERVAL {
            return;
        }
        let Some(line) = self.candidate.take() else { return };
        line.show(screen);
        self.awaited = None;
        if line.kind.of_new_key {
            match self.second_half.take().filter(|second| second.identity == second_of(&line)) {
                Some(second) => second.show(screen),
                None => self.awaited = Some(second_of(&line)),
            }
        }
        *self.shown.entry(line.kind).or_default() += 1;
        self.shown_at = Instant::now();
    }

    /// To be called every now and then.
    pub(crate) fn tick(&mut self, screen: Screen, seen: &Seen) {
        self.show_candidate(screen);
        let passed = self.counted_at.elapsed();
        if passed < COUNT_INTERVAL {
            return;
        }
        let text = match seen.events - self.counted {
            0 => format!("── nothing in the last {} s", passed.as_secs()),
            new => format!(
                "── {} events in the last {} s, {} so far; latency p50 {}",
                number(new),
                passed.as_secs(),
                number(seen.events),
                duration(seen.latencies.quantile_us(0.5)),
            ),
        };
        println!("  {}", screen.paint(Style::Dim, &text));
        (self.counted, self.counted_at) = (seen.events, Instant::now());
    }
}

/// The identity of the create that follows the delete of a change of the key.
fn second_of(first: &Line) -> (u64, u64) {
    let (commit_lsn, ordinal) = first.identity;
    (commit_lsn, ordinal + 1)
}
