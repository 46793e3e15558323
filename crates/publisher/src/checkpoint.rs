//! The checkpoint: which part of which server's log is in Kafka.

use std::fmt;

use pgoutput::Lsn;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the record's format that this build writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// How far into the source's history something reaches.
///
/// Everything of every transaction whose commit record starts before [`end_lsn`](Self::end_lsn) is covered, and of one
/// more transaction the part that [`split`](Self::split) names. Positions are ordered as the history is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// The end of the last commit record that is covered, or a later position up to which the server has nothing more.
    /// `START_REPLICATION` continues here: the server skips what was committed before it (`SnapBuildXactNeedsSkip`).
    pub end_lsn: Lsn,
    /// The transaction that is covered in part; the server sends it again from its beginning.
    // `None` sorts before `Some`, as it must: a part of the next transaction is further than none of it.
    pub split: Option<Split>,
}

impl Position {
    /// The position right after everything before `end_lsn`.
    pub const fn at(end_lsn: Lsn) -> Self {
        Self { end_lsn, split: None }
    }

    /// This position once the server has sent everything before `lsn`, and no transaction ended before it for us.
    ///
    /// A transaction that is covered in part stays covered in part: it is still to come. None if it should have come by now.
    #[must_use]
    pub fn quiet_until(self, lsn: Lsn) -> Option<Self> {
        match self.split {
            Some(split) if lsn > split.commit_lsn => None,
            _ => Some(Self { end_lsn: self.end_lsn.max(lsn), ..self }),
        }
    }

    /// Whether the transaction whose commit record starts at `commit_lsn` is covered as a whole.
    ///
    /// This is the server's own rule: it skips a transaction whose commit record starts before the requested position.
    pub fn covers_transaction(&self, commit_lsn: Lsn) -> bool {
        commit_lsn < self.end_lsn
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.end_lsn)?;
        if let Some(Split { commit_lsn, changes, .. }) = self.split {
            write!(f, " and {changes} changes of the transaction committed at {commit_lsn}")?;
        }
        Ok(())
    }
}

/// A place inside one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Split {
    /// Where the transaction's commit record starts.
    #[serde(with = "lsn_text")]
    pub commit_lsn: Lsn,
    /// How many of its changes are covered, as the server sends them: wanted or not, whatever each was made into. So where the stream
    /// resumes depends on the log alone, and not on a configuration or a catalog that may have changed since.
    pub changes: u64,
    /// How many of its logical decoding messages are covered, as the server sends them. They count apart, since whether the server sends
    /// any is for the configuration to say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub messages: u64,
    /// The ordinal of the last event that is covered, counted from 1: events go on from here.
    pub ordinal: u64,
}

impl Split {
    const fn covers_nothing(&self) -> bool {
        self.changes == 0 && self.messages == 0
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What the checkpoint topic holds for one stream, as JSON under the stream's name.
///
/// Beside the position it names where that position is one: an LSN means nothing on another server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The format's version, [`FORMAT_VERSION`].
    pub version: u32,
    /// The stream's name, which is also the record's key.
    pub name: String,
    /// Who wrote this record: one value for each start of the program.
    pub instance: String,
    /// `IDENTIFY_SYSTEM`'s system identifier.
    pub system_identifier: u64,
    /// The timeline that the position was read on.
    pub timeline: u32,
    /// The database that the slot belongs to.
    pub database: String,
    /// The slot's name.
    pub slot: String,
    /// The publication's name.
    pub publication: String,
    /// [`Position::end_lsn`].
    #[serde(with = "lsn_text")]
    pub end_lsn: Lsn,
    /// [`Position::split`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// Whether an operator allowed this position to lie before an earlier checkpoint's, or after a gap.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    /// Whether this was written before the slot was created, as the word that the slot which appears next is ours.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub slot_pending: bool,
    /// When it was written, in milliseconds since 1970.
    pub written_at_ms: i64,
}

impl Checkpoint {
    /// The position.
    pub const fn position(&self) -> Position {
        Position { end_lsn: self.end_lsn, split: self.split }
    }

    /// This checkpoint at another position and time.
    #[must_use]
    pub fn moved_to(&self, position: Position, written_at_ms: i64) -> Self {
        Self {
            end_lsn: position.end_lsn,
            split: position.split,
            written_at_ms,
            forced: false,
            slot_pending: false,
            ..self.clone()
        }
    }

    /// The record's value.
    pub fn to_json(&self) -> Vec<u8> {
        // Neither maps with other than string keys nor fallible `Serialize` implementations occur in it.
        serde_json::to_vec(self).expect("a checkpoint is representable as JSON")
    }

    /// Reads a record's value.
    ///
    /// # Errors
    /// The value is not a checkpoint, or one of a format that this build does not know, or of another stream.
    pub fn from_json(name: &str, value: &[u8]) -> Result<Self, CheckpointError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        // The version decides how the rest is read, so it is read first.
        let Versioned { version } =
            serde_json::from_slice(value).map_err(|error| CheckpointError::malformed(&error))?;
        if version != FORMAT_VERSION {
            return Err(CheckpointError::Version { found: version });
        }
        let checkpoint: Self = serde_json::from_slice(value).map_err(|error| CheckpointError::malformed(&error))?;
        if checkpoint.name != name {
            return Err(CheckpointError::Name { found: checkpoint.name });
        }
        if !checkpoint.end_lsn.is_valid() {
            return Err(CheckpointError::Malformed("end_lsn is 0/0".into()));
        }
        if checkpoint.split.is_some_and(|split| split.covers_nothing() || split.commit_lsn < checkpoint.end_lsn) {
            return Err(CheckpointError::Malformed("split names a transaction that end_lsn covers".into()));
        }
        Ok(checkpoint)
    }

    /// Whether `later`, which was written after this one, may follow it.
    ///
    /// A position only ever grows, unless an operator forced it or the log is another server's, which the start checks.
    pub fn may_be_followed_by(&self, later: &Self) -> bool {
        later.forced || self.system_identifier != later.system_identifier || self.position() <= later.position()
    }
}

/// A record in the checkpoint topic cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// The value is not a checkpoint.
    #[error("it is not a checkpoint: {0}")]
    Malformed(String),
    /// A newer pgsluice wrote it.
    #[error("its format version is {found}, and this build reads version {FORMAT_VERSION}")]
    Version {
        /// The version in the record.
        found: u32,
    },
    /// The record's key and value name different streams.
    #[error("its value names the stream {found:?}")]
    Name {
        /// The name in the value.
        found: String,
    },
    /// An older position was written after a newer one.
    #[error("it goes back from {from} to {to}")]
    Backwards {
        /// The position before.
        from: Box<Position>,
        /// The position of this record.
        to: Box<Position>,
    },
}

impl CheckpointError {
    fn malformed(error: &serde_json::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

mod lsn_text {
    use pgoutput::Lsn;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(lsn: &Lsn, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(lsn)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Lsn, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checkpoint(end_lsn: u64, split: Option<(u64, u64)>) -> Checkpoint {
        Checkpoint {
            version: FORMAT_VERSION,
            name: "shop".into(),
            instance: "a".into(),
            system_identifier: 7_500_000_000_000_000_001,
            timeline: 1,
            database: "app".into(),
            slot: "shop".into(),
            publication: "shop".into(),
            end_lsn: end_lsn.into(),
            split: split.map(|(commit_lsn, ordinal)| Split {
                messages: ordinal % 3,
                commit_lsn: commit_lsn.into(),
                changes: ordinal,
                ordinal,
            }),
            forced: false,
            slot_pending: false,
            written_at_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn the_record_is_this_json() {
        // A change of this text is a change of the format: old records must stay readable.
        let json = r#"{"version":1,"name":"shop","instance":"a","system_identifier":7500000000000000001,"timeline":1,"database":"app","slot":"shop","publication":"shop","end_lsn":"0/10","split":{"commit_lsn":"0/20","changes":3,"ordinal":3},"written_at_ms":1700000000000}"#;
        let checkpoint = checkpoint(16, Some((32, 3)));
        assert_eq!(String::from_utf8(checkpoint.to_json()).expect("JSON is UTF-8"), json);
        assert_eq!(Checkpoint::from_json("shop", json.as_bytes()), Ok(checkpoint));
    }

    #[test]
    fn what_is_not_a_checkpoint_of_this_stream_is_refused() {
        let good = checkpoint(16, None);
        let check = |name: &str, edit: fn(&mut serde_json::Value), expect: &str| {
            let mut value = serde_json::to_value(&good).expect("it serialises");
            edit(&mut value);
            let error = Checkpoint::from_json(name, value.to_string().as_bytes()).expect_err(expect);
            assert!(error.to_string().contains(expect), "{error} does not say {expect:?}");
        };
        check("other", |_| (), "names the stream \"shop\"");
        check("shop", |value| value["version"] = 2.into(), "format version is 2");
        check("shop", |value| value["end_lsn"] = "0/0".into(), "end_lsn is 0/0");
        check("shop", |value| value["end_lsn"] = "16".into(), "invalid log sequence number");
        check(
            "shop",
            |value| value["split"] = serde_json::json!({"commit_lsn": "0/1", "changes": 1, "ordinal": 1}),
            "end_lsn covers",
        );
        check(
            "shop",
            |value| value["split"] = serde_json::json!({"commit_lsn": "0/20", "changes": 0, "ordinal": 0}),
            "end_lsn covers",
        );
        check("shop", |value| *value = serde_json::json!({"version": 1}), "missing field");
        assert!(Checkpoint::from_json("shop", b"").is_err());
        assert!(Checkpoint::from_json("shop", b"{\"version\":1,").is_err());
    }

    #[test]
    fn positions_are_ordered_as_history_is() {
        let ordered = [
            checkpoint(16, None),
            checkpoint(16, Some((32, 1))),
            checkpoint(16, Some((32, 2))),
            checkpoint(48, None),
            checkpoint(48, Some((48, 1))),
        ];
        for (index, earlier) in ordered.iter().enumerate() {
            for later in &ordered[index..] {
                assert!(earlier.may_be_followed_by(later));
                assert_eq!(later.may_be_followed_by(earlier), later == earlier);
            }
        }
    }

    /// The server says how far it has read while it decodes the split transaction again. Were the split forgotten on that word, what is
    /// in Kafka of it would be sent twice.
    #[test]
    fn a_split_outlives_quiet_positions() {
        let split = Some(Split { commit_lsn: 500.into(), changes: 1000, messages: 0, ordinal: 1000 });
        let resumed = Position { end_lsn: 100.into(), split };
        assert_eq!(resumed.quiet_until(400.into()), Some(Position { end_lsn: 400.into(), split }));
        assert_eq!(resumed.quiet_until(500.into()), Some(Position { end_lsn: 500.into(), split }));
        assert_eq!(resumed.quiet_until(50.into()), Some(resumed));
        assert_eq!(resumed.quiet_until(501.into()), None, "its commit record lies before what the server has sent");
        assert_eq!(Position::at(100.into()).quiet_until(400.into()), Some(Position::at(400.into())));
    }

    #[test]
    fn a_forced_record_or_another_server_may_go_back() {
        let newer = checkpoint(48, None);
        let older = checkpoint(16, None);
        assert!(newer.may_be_followed_by(&Checkpoint { forced: true, ..older.clone() }));
        assert!(newer.may_be_followed_by(&Checkpoint { system_identifier: 1, ..older }));
    }

    proptest! {
        #[test]
        fn any_checkpoint_survives_the_round_trip(end in 1_u64.., past in 0_u64..1000, ordinal in 1_u64.., split: bool) {
            let split = split.then(|| (end.saturating_add(past), ordinal));
            let checkpoint = checkpoint(end, split);
            prop_assert_eq!(Checkpoint::from_json("shop", &checkpoint.to_json()), Ok(checkpoint));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Checkpoint::from_json("shop", &bytes);
        }
    }
}
