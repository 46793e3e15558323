//! A consumer group that is to go on from a point.

use std::fmt::Write as _;

use publisher::{ConsumerGroup, KafkaSettings};

use super::reading::{Span, failure};
use crate::failure::{Code, Failure};

/// What would become of a group.
pub(crate) struct Reset {
    group: ConsumerGroup,
    name: String,
    changes: Vec<Change>,
}

struct Change {
    topic: String,
    partition: i32,
    current: Option<i64>,
    new: i64,
    /// How many offsets there are from the new one on.
    behind: i64,
}

impl Reset {
    /// Looks at a group that is to go on where these spans begin.
    ///
    /// # Errors
    /// It has members, or Kafka cannot be reached or refuses.
    pub(crate) fn plan(settings: &KafkaSettings, name: &str, spans: &[Span]) -> Result<Self, Failure> {
        let group = ConsumerGroup::connect(settings, name).map_err(|error| failure(&error))?;
        let members = group.members().map_err(|error| failure(&error))?;
        if !members.is_empty() {
            return Err(active(name, &format!(": {}", members.join(", "))));
        }
        let partitions: Vec<_> = spans.iter().map(|span| (span.topic.clone(), span.partition)).collect();
        let current = group.offsets(&partitions).map_err(|error| failure(&error))?;
        let changes = spans.iter().zip(current).map(|(span, current)| Change {
            topic: span.topic.clone(),
            partition: span.partition,
            current: current.offset,
            new: span.from,
            behind: span.to.map_or(0, |end| end - span.from),
        });
        Ok(Self { changes: changes.collect(), group, name: name.to_owned() })
    }

    /// Sets the offsets.
    ///
    /// # Errors
    /// The group has members by now, or Kafka cannot be reached or refuses.
    pub(crate) fn apply(&self) -> Result<(), Failure> {
        let offsets: Vec<_> =
            self.changes.iter().map(|change| (change.topic.clone(), change.partition, change.new)).collect();
        let is_set = self.group.set(&offsets).map_err(|error| failure(&error))?;
        if is_set { Ok(()) } else { Err(active(&self.name, "")) }
    }

    /// A table of it.
    pub(crate) fn table(&self) -> String {
        let width = self.changes.iter().map(|change| change.topic.len()).max().unwrap_or(0).max(5);
        let mut text = format!("{:width$}  PART       CURRENT           NEW        BEHIND\n", "TOPIC");
        for Change { topic, partition, current, new, behind } in &self.changes {
            let current = current.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{topic:width$}  {partition:>4}  {current:>12}  {new:>12}  {behind:>12}");
        }
        text
    }
}

fn active(name: &str, members: &str) -> Failure {
    Failure::new(Code::GroupActive, format!("the group {name} has members{members}; nothing was changed"))
}
