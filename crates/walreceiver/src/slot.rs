//! Replication slots, and what the replication commands answer.

use std::{fmt, str::FromStr};

use pgoutput::Lsn;
use thiserror::Error;

/// The name of a replication slot: 1 to 63 of the characters `a` to `z`, `0` to `9` and `_`, as PostgreSQL demands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SlotName(String);

/// The text cannot name a replication slot.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid replication slot name {0:?}: 1 to 63 lower-case letters, digits and underscores are allowed")]
pub struct InvalidSlotName(String);

impl SlotName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SlotName {
    type Err = InvalidSlotName;

    fn from_str(name: &str) -> Result<Self, InvalidSlotName> {
        // NAMEDATALEN less the zero byte that ends it.
        let valid = (1..=63).contains(&name.len())
            && name.bytes().all(|letter| matches!(letter, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if valid { Ok(Self(name.to_owned())) } else { Err(InvalidSlotName(name.chars().take(80).collect())) }
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What to do with the snapshot that shows the database exactly at a new slot's consistent point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotAction {
    /// Export it, for `SET TRANSACTION SNAPSHOT` in other sessions. It is there until this connection runs its next
    /// command or is closed.
    Export,
    /// Nothing: only changes are wanted.
    Nothing,
}

/// A logical slot to create, for the `pgoutput` plugin.
#[derive(Debug, Clone)]
pub struct CreateSlot<'a> {
    /// Its name.
    pub name: &'a SlotName,
    /// Whether it vanishes with the connection, and with the first error of a command on it.
    pub temporary: bool,
    /// What to do with the snapshot of its consistent point.
    pub snapshot: SnapshotAction,
    /// Whether it is copied to standbys, so that it survives a failover. PostgreSQL 17 and later.
    pub failover: bool,
    /// Whether prepared transactions are decoded when they are prepared. PostgreSQL 14 and later.
    pub two_phase: bool,
}

impl<'a> CreateSlot<'a> {
    /// A lasting slot without anything special.
    pub fn new(name: &'a SlotName) -> Self {
        Self { name, temporary: false, snapshot: SnapshotAction::Nothing, failover: false, two_phase: false }
    }
}

/// What `CREATE_REPLICATION_SLOT` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedSlot {
    /// The slot's name, as the server says it.
    pub name: String,
    /// The earliest position that the slot can stream from: transactions that commit after it are decoded whole.
    pub consistent_point: Lsn,
    /// The exported snapshot, where one was asked for.
    pub snapshot: Option<String>,
}

/// A session of a server, as it knows itself: enough to tell the server from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerSession {
    /// `pg_backend_pid()`
    pub pid: i32,
    /// When it began, in microseconds since 1970.
    pub began_us: i64,
    /// When the server was started, in microseconds since 1970.
    pub server_began_us: i64,
}

/// What `IDENTIFY_SYSTEM` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemIdentity {
    /// Identifies the cluster: made at `initdb`, the same on every physical copy.
    pub system_id: u64,
    /// The current timeline: one more after each promotion.
    pub timeline: u32,
    /// How far the write-ahead log is flushed; on a standby, how far it is replayed.
    pub flush_lsn: Lsn,
    /// The database that the connection decodes.
    pub database: Option<String>,
}

/// A timeline's ancestors: what `TIMELINE_HISTORY` answers, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineHistory {
    /// The timeline that was asked for.
    pub timeline: u32,
    /// Where each ancestor was left, the oldest first.
    pub switches: Vec<TimelineSwitch>,
}

/// Where a timeline was left for the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineSwitch {
    /// The timeline that was left.
    pub timeline: u32,
    /// The position where it was left: what it has before this, its successors have too.
    pub end: Lsn,
    /// Why, in the server's words.
    pub reason: String,
}

impl TimelineHistory {
    /// Where `ancestor` was left by the line that leads here; `None` if it is no ancestor, so that its log has nothing
    /// to do with this one's.
    pub fn left_at(&self, ancestor: u32) -> Option<Lsn> {
        self.switches.iter().find(|switch| switch.timeline == ancestor).map(|switch| switch.end)
    }

    /// Parses a history file: lines of parent timeline, position and reason, between which there are tabs; comments
    /// start with `#`. Source: PostgreSQL `src/backend/access/transam/timeline.c`, `readTimeLineHistory`. `None` for
    /// anything else.
    pub(crate) fn parse(timeline: u32, content: &str) -> Option<Self> {
        let mut switches = Vec::new();
        for line in content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut words = line.splitn(3, char::is_whitespace);
            switches.push(TimelineSwitch {
                timeline: words.next()?.parse().ok()?,
                end: words.next()?.parse().ok()?,
                reason: words.next().unwrap_or_default().trim().to_owned(),
            });
        }
        Some(Self { timeline, switches })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_name_is_what_postgresql_takes() {
        for name in ["a", "pgsluice_shop", "0", &"x".repeat(63)] {
            assert_eq!(name.parse::<SlotName>().as_ref().map(SlotName::as_str), Ok(name));
        }
        for name in ["", "A", "a-b", "a b", "ä", "a\"", &"x".repeat(64)] {
            assert!(name.parse::<SlotName>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_history_says_where_each_ancestor_was_left() {
        let content =
            "1\t0/5000000\tno recovery target specified\n\n# comment\n2\t0/6000148\tbefore 2000-01-01 01:00:00+01\n";
        let history = TimelineHistory::parse(3, content).expect("well formed");
        assert_eq!(history.left_at(1), "0/5000000".parse().ok());
        assert_eq!(history.left_at(2), "0/6000148".parse().ok());
        assert_eq!(history.left_at(3), None);
        assert_eq!(history.switches[0].reason, "no recovery target specified");
        assert_eq!(TimelineHistory::parse(3, "one\t0/5\tx\n"), None);
        assert_eq!(TimelineHistory::parse(3, "1\n"), None);
    }
}
