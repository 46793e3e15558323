//! A schema registry's state as a compacted topic keeps it, in the format of Confluent's `_schemas`: without I/O.
//!
//! [`Store`] is the state that a sequence of records makes. [`Ledger`] is what a writer needs to know: the state of all records that
//! were committed, beside the state of all that were ever written, those of given up transactions included. From both it
//! [plans](Ledger::plan) a registration, which somebody else writes.
//!
//! # What holds
//!
//! 1. **An id has one schema.** A new id is larger than any in the log, given up ones included. A reader that does not heed
//!    transactions, as Confluent's registry and Karapace are, may have seen a record that was given up; it finds nothing else under
//!    that id later.
//! 2. **A schema has one id.** The same [text](AvroSchema::text) gets the id that it has under any subject, a given up one included.
//! 3. **What was given up is written again, unchanged**, if it is asked for and nothing newer stands behind it. It cannot be left as it
//!    is: compaction drops it.
//! 4. **A plan is as good as its log is complete.** Whoever carries it out must know that nobody else has written since the log was
//!    read. A record that cannot be understood could be anything, so that nothing is planned beside one; what is known is still told.
//!
//! What is not kept: references between schemas, aliases of subjects and rules are passed over, as no schema that is written here has
//! any; schemas that do have them are served, and share their id with none of ours.

mod avro;
mod compatibility;
mod ledger;
mod record;
mod state;

pub use avro::{AvroSchema, InvalidSchema};
pub use ledger::{Ledger, Plan, Refused};
pub use record::{Malformed, MalformedRecord};
pub use state::{Definition, Noted, Store, Version};

use std::fmt;

/// How versions of a subject must fit together; the levels that a check can be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Anything goes.
    None,
    /// The new schema reads what the last one wrote. It holds where no level is set, as with Confluent's registry.
    #[default]
    Backward,
    /// The new schema reads what all earlier ones wrote.
    BackwardTransitive,
    /// The last schema reads what the new one writes.
    Forward,
    /// All earlier schemas read what the new one writes.
    ForwardTransitive,
    /// Both ways, with the last schema.
    Full,
    /// Both ways, with all earlier schemas.
    FullTransitive,
}

impl Level {
    const ALL: [(&'static str, Self); 7] = [
        ("NONE", Self::None),
        ("BACKWARD", Self::Backward),
        ("BACKWARD_TRANSITIVE", Self::BackwardTransitive),
        ("FORWARD", Self::Forward),
        ("FORWARD_TRANSITIVE", Self::ForwardTransitive),
        ("FULL", Self::Full),
        ("FULL_TRANSITIVE", Self::FullTransitive),
    ];

    /// The level's name in the API.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, level)| *level == self).map_or("", |(name, _)| name)
    }

    /// The level with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, level)| *level)
    }

    fn is_transitive(self) -> bool {
        matches!(self, Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive)
    }

    fn reads_old(self) -> bool {
        matches!(self, Self::Backward | Self::BackwardTransitive | Self::Full | Self::FullTransitive)
    }

    fn is_read_by_old(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardTransitive | Self::Full | Self::FullTransitive)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why a schema does not fit earlier ones at a level; empty when it does. `earlier` is in the order of the versions; of levels that
/// are not transitive the last one counts.
pub fn why_incompatible<'a>(
    level: Level,
    new: &AvroSchema,
    earlier: impl DoubleEndedIterator<Item = &'a Version>,
) -> Vec<String> {
    let count = if level == Level::None {
        0
    } else if level.is_transitive() {
        usize::MAX
    } else {
        1
    };
    for version in earlier.rev().take(count) {
        let told = |reasons: Vec<String>| -> Vec<String> {
            reasons.into_iter().map(|reason| format!("version {}: {reason}", version.number)).collect()
        };
        // Avro data is read with Avro schemas alone, and one that does not parse by itself refers to others.
        let Ok(old) = AvroSchema::parse(&version.definition.text) else {
            return told(vec!["it is no Avro schema that can be read by itself".to_owned()]);
        };
        if level.reads_old() {
            let reasons = compatibility::why_unreadable(new, &old);
            if !reasons.is_empty() {
                return told(reasons);
            }
        }
        if level.is_read_by_old() {
            let reasons = compatibility::why_unreadable(&old, new);
            if !reasons.is_empty() {
                return told(reasons);
            }
        }
    }
    Vec::new()
}
