//! Where rows that were read from a table go in the stream: the pure half of a copy that runs beside it.
//!
//! A chunk of a table is read in a snapshot `S`, while changes of the same rows stream by. Each of its rows must be written so that no key
//! ever steps back and none is lost. The argument:
//!
//! 1. Transactions that change one key hold its row lock until they have ended. So of all changes of a key, in the order of their commits,
//!    those that `S` sees come first, and the row in the chunk is what the last of them has left.
//! 2. A transaction that `S` sees had written its commit record before `S` was taken. So if the chunk's rows are written once the stream has
//!    passed `H`, a position of the log's end that was asked for after `S` was taken, then all that `S` sees was streamed before, and a
//!    row that is written then takes no key back behind one of these.
//! 3. What `S` does not see may have been streamed before too: between the moment at which the window was opened and `H`. Which keys
//!    that were is noted as it happens. Of such a key a newer row is in Kafka, and the chunk's is not written. Whether `S` sees a transaction is
//!    decided by its id, never by a position: a transaction is sent as soon as its commit record is flushed, and is seen by others only later,
//!    after it has waited for synchronous standbys, for instance.
//! 4. For the same reason a transaction may have been streamed *before* the window was opened, and not be seen by `S`. Then nobody has
//!    noted its keys. Those that were streamed are remembered until some snapshot sees that they have ended ([`Windows::transaction`]), and a chunk
//!    whose snapshot finds one of them still running is thrown away and read again. What was streamed before that memory began is excluded
//!    by a *fence*: a transaction id that was assigned after it began. A snapshot that finds nothing running below it cannot
//!    miss what was streamed before ([`Epoch`]).
//! 5. The newer row of rule 3 may lack a value that the update did not touch (TOAST). Then nothing but the table has it, and the key is read again.
//!
//! A copy need not wait for a chunk to be written before it reads the next one, so that several windows of a table may be open. Each is an
//! argument of its own but for its cursor, which says that all before it was copied. So a chunk names the one that it comes behind, and is
//! written only if that was ([`Windows::open`]). Where a table is copied in [parts](super::Parts) each of them has a cursor, and chunks that come one behind the
//! other; and of all that is said here of a key nothing asks which part it lies in. Each window notes the keys of the whole table: which part one lies in
//! is for the server's collations to say.
//!
//! What is noted in a window is bounded, and what is noted in all of them, which has its share of `memory_limit`. One that sees too many keys, or whose table gets another key or is emptied meanwhile, is
//! spoilt: its chunk is read again. Nothing that was read is ever written in doubt.
//!
//! # At a standby
//!
//! A chunk can be read there, and rule 3 does not hold as it stands: `pg_current_snapshot()` lists no transaction that runs while a server recovers
//! (`takenDuringRecovery`), so that ids say of each below its end that it had ended. But there positions decide ([`Sight`]). A standby replays one record after
//! another, and what a transaction has done is seen there from the replay of its commit record on (`xact_redo_commit`: of all its parts at once, and of a prepared one
//! from that of COMMIT PREPARED on), whatever it waits for at the primary. So what a snapshot sees is a prefix of the commits in the order of the log, which is the
//! order of the stream:
//!
//! - Let `L` be what `pg_last_wal_replay_lsn()` says before `S` is taken, over the same connection. It is the end of the last record that was replayed wholly
//!   (`lastReplayedEndRecPtr` is set behind the record's effect), so that `S` sees each commit whose record ends at or before it. A Begin says where that record
//!   *starts*. Records do not overlap, so that one that starts before `L` ends there or before.
//! - Everything that was streamed before the window was opened has to be seen (rule 4). In the order of the log it is what comes before `P`, where the stream is
//!   then; and if the stream is in the middle of a transaction, that one, some of whose changes are in Kafka and in no note, and whose commit lies behind `P`. So
//!   `L` has to have passed both ([`Horizon`]), which can be waited for: no memory of transactions is needed.
//! - What was streamed, in whole or in part, in an earlier life, had written its commit record then, since the server sends it no sooner. So it is seen if `L` has passed an
//!   end of the primary's log that was asked for in this life. It is asked for once nothing runs at the primary below the fence, and so it has in it whatever had
//!   changed the table before it was published, and was not streamed.
//! - What commits behind `L` is in doubt. What the standby says after `S` was taken is no upper bound: of the record that is being replayed the effect may
//!   be seen before its end is told. An end of the *primary's* log that is asked for after that is one, since nothing is sent to a standby before it is flushed there; and it
//!   is the `H` of rule 2.
//! - So every transaction that commits between `L` and `H` is noted, and each of its keys is taken for superseded, or to be read again (rule 5). If `S` does
//!   not see it, that is rule 3; if it does, what is not written is in Kafka already, from the stream. Rows that are in doubt are never lost, since
//!   their transactions are streamed before `H`, and none that `S` sees commits behind that.
//!
//! One thing hides a commit that was replayed. A standby that is started takes over from the primary which transactions run, and what the highest id is that had ended
//! (`xl_running_xacts`, `latestCompletedXid`). A transaction that had written its commit record, and not ended for others at the primary, as one that waits for a synchronous standby, is left out of
//! those that run, since its commit is known; but if its id is higher than all that had ended, a snapshot takes it for one of the future, until a later
//! one ends. So the end of `pg_current_snapshot()` counts, too ([`Ceiling`](super::Ceiling)): it has to lie above the fence, and above the highest id that was streamed before the window was
//! opened; and what is noted is seen only if it lies below it.
//!
//! All this is true of a standby of the server that the stream comes from, on its timeline: another's log has the same positions for other commits. So after each `S` the
//! standby is asked whether it is in recovery still, and of which cluster and on which timeline, for which there is a replication command; a standby goes from one timeline to a
//! later one and never back. The primary is asked for its timeline with `H`, which must not be less than what the standby has replayed.
//! And its libraries and settings have to order and print keys as the primary's do: it has the primary's indexes, and keys are compared as they are printed.
//!
//! The catalog that `S` sees may be behind, too, or ahead. The fingerprint of the table, which is made of who has written each row of the catalog that describes it, was asked for at
//! the primary before the window was opened. Rows of the catalog are replayed like others: where it is the same in
//! `S` and after the reading, the table is the one that was described. Where it is not, the chunk is thrown away; and since `S` sees what was streamed, no
//! row is read in a shape from before what the stream has announced.
//!
//! A copy at once has no such way: what its snapshot sees must be known change by change ([`AtOnce`](super::AtOnce)), and nothing may be in doubt. It
//! would have to stop the replay for the moment at which the snapshot is taken (`pg_wal_replay_pause()`), which is not for a role that reads. It is made at
//! the primary. So are rows read again: what is in doubt is a wide stretch of the log where replay lags, and a row that is changed once in each would be read
//! again for ever.

use pgoutput::{Lsn, Oid, Xid};
use rustc_hash::FxHashMap;

use super::{
    parts::PartId,
    sight::{Horizon, Sight, Streamed},
    visibility::Visibility,
};

/// How many streamed transactions are remembered that no snapshot has found to have ended.
const RECENT_MAX: usize = 1 << 16;
/// How many bytes of keys the oldest window of a part of a table notes at most, with what each costs beside its bytes; and each of those behind it, which
/// would otherwise note the same again.
const NOTED_BYTES_MAX: usize = 4 << 20;
const NOTED_BYTES_MAX_BEHIND: usize = 1 << 20;
const NOTED_OVERHEAD_BYTES: usize = 64;

/// Counts how often the memory of streamed transactions has begun anew. A snapshot is good in an epoch if nothing runs in it below a transaction
/// id that was assigned after the epoch began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Epoch(u64);

/// Names one window, among those of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct WindowId(pub(crate) u64);

/// Why a chunk is to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoilt {
    /// A transaction that was streamed before the window was opened was still running when the chunk was read.
    StillRunning,
    /// The columns that tell its rows apart are others.
    Altered,
    /// A row has changed of which not even that is known.
    UnknownRow,
    /// The table was emptied.
    Truncated,
    /// Its changes are held back.
    HeldBack,
    /// More keys were changed than are noted.
    TooBusy,
    /// The chunk that it comes behind was not written.
    Behind,
}

/// What becomes of a row that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is the newest of its key that the stream has come to.
    Write,
    /// A newer one is in Kafka, or that it is gone.
    Superseded,
    /// A newer one is in Kafka, which lacks a value that only the table has.
    ReadAgain,
}

/// The windows of a stream, each with the chunk `C` once it is read.
#[derive(Debug)]
pub(crate) struct Windows<C> {
    epoch: Epoch,
    /// Streamed, and not known to have ended.
    recent: Vec<Xid>,
    /// The transaction whose changes are coming in, or came in last.
    current: Option<Streamed>,
    /// The highest id among all that were streamed.
    highest: Option<Xid>,
    /// In the order in which they were opened.
    open: Vec<Window<C>>,
    /// What all of them have noted, and may.
    noted_bytes: usize,
    noted_bytes_max: usize,
    /// The last one of each part of a table that closed with rows to write. Bounded by the tables that are copied.
    written: FxHashMap<(Oid, PartId), WindowId>,
}

#[derive(Debug)]
struct Window<C> {
    id: WindowId,
    table: Oid,
    part: PartId,
    /// That of the chunk before this one, if a copy has not heard yet what became of it.
    behind: Option<WindowId>,
    /// The names of the columns of its row key.
    key: Vec<String>,
    /// Transactions that were streamed before, and may not have ended.
    unnoted: Vec<Xid>,
    /// What was streamed before, for a snapshot of a standby.
    horizon: Horizon,
    noted: FxHashMap<Box<[u8]>, Noted>,
    noted_bytes: usize,
    spoilt: Option<Spoilt>,
    loaded: Option<Loaded<C>>,
}

/// What the window has seen of a key. The transactions of a key that a snapshot sees come before those that it does not, so that the last says
/// enough.
#[derive(Debug, Clone, Copy)]
struct Noted {
    last: Streamed,
    /// Whether its row lacks a value that it did not touch.
    is_incomplete: bool,
}

#[derive(Debug)]
struct Loaded<C> {
    chunk: C,
    sight: Sight,
    /// The end of the log, asked for after the snapshot was taken.
    until: Lsn,
}

/// A window that is closed, because the stream has passed all that its snapshot sees.
#[derive(Debug)]
pub(crate) struct Closed<C> {
    /// The table.
    pub(crate) table: Oid,
    /// What was read.
    pub(crate) chunk: C,
    /// What becomes of its rows; or why all of it is to be read again.
    pub(crate) fates: Result<Fates, Spoilt>,
}

/// What becomes of the rows of a chunk.
#[derive(Debug)]
pub(crate) struct Fates {
    /// The end of the log behind the chunk's snapshot.
    pub(crate) until: Lsn,
    noted: FxHashMap<Box<[u8]>, Noted>,
    sight: Sight,
}

impl Fates {
    /// Whether every row is to be written.
    pub(crate) fn are_all_written(&self) -> bool {
        self.noted.values().all(|noted| self.sight.sees(noted.last))
    }

    /// What becomes of the row with this key.
    pub(crate) fn of(&self, key: &[u8]) -> Fate {
        let Some(noted) = self.noted.get(key) else { return Fate::Write };
        if self.sight.sees(noted.last) {
            return Fate::Write;
        }
        if noted.is_incomplete { Fate::ReadAgain } else { Fate::Superseded }
    }
}

impl<C> Windows<C> {
    /// Those of a stream that may note so many bytes of keys.
    pub(crate) fn new(noted_bytes_max: usize) -> Self {
        Self {
            epoch: Epoch::default(),
            recent: Vec::new(),
            current: None,
            highest: None,
            open: Vec::new(),
            noted_bytes: 0,
            noted_bytes_max,
            written: FxHashMap::default(),
        }
    }

    /// Whether no window is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// A transaction begins. What a checkpoint covers of it needs no note: it was streamed in an earlier life, so that the fence excludes it.
    pub(crate) fn transaction(&mut self, streamed: Streamed) {
        let xid = streamed.xid;
        self.current = Some(streamed);
        if self.highest.is_none_or(|highest| is_after(xid, highest)) {
            self.highest = Some(xid);
        }
        if self.recent.len() >= RECENT_MAX {
            self.recent.clear();
            self.epoch.0 += 1;
        }
        self.recent.push(xid);
    }

    /// Opens a window where the stream has come to `reached`. The chunk's snapshot is to be taken after this, and after the transactions that are returned
    /// have ended, or at a standby that has come to the horizon. Its rows are written only if those of the window are that it comes `behind`.
    pub(crate) fn open(
        &mut self,
        id: WindowId,
        (table, part): (Oid, PartId),
        key: Vec<String>,
        behind: Option<WindowId>,
        reached: Lsn,
    ) -> (Epoch, Vec<Xid>, Horizon) {
        let horizon = Horizon::new(reached, self.current, self.highest);
        self.open.push(Window {
            id,
            table,
            part,
            behind,
            key,
            unnoted: self.recent.clone(),
            horizon,
            noted: FxHashMap::default(),
            noted_bytes: 0,
            spoilt: None,
            loaded: None,
        });
        (self.epoch, self.recent.clone(), horizon)
    }

    /// What was streamed in this epoch, and is not known to have ended: for a snapshot that is good without a window.
    pub(crate) fn streamed(&self) -> (Epoch, Vec<Xid>) {
        (self.epoch, self.recent.clone())
    }

    /// A snapshot was taken without a window.
    pub(crate) fn seen(&mut self, snapshot: &Visibility) {
        self.recent.retain(|xid| !snapshot.has_ended(*xid));
    }

    /// Closes a window whose chunk was not read after all. A snapshot that was taken says which transactions have ended.
    pub(crate) fn abandon(&mut self, id: WindowId, snapshot: Option<&Visibility>) {
        self.open.retain(|window| window.id != id);
        self.count_noted();
        if let Some(snapshot) = snapshot {
            self.recent.retain(|xid| !snapshot.has_ended(*xid));
        }
    }

    /// A change of a key was streamed; `is_incomplete` if its row lacks a value that the update did not touch.
    pub(crate) fn note(&mut self, table: Oid, key: &[u8], is_incomplete: bool) {
        let Some(last) = self.current else { return };
        let bytes = key.len() + NOTED_OVERHEAD_BYTES;
        let is_noting = |window: &Window<C>| window.table == table && window.spoilt.is_none();
        let noting = |windows: &[Window<C>]| windows.iter().filter(|window| is_noting(window)).count();
        while self.noted_bytes + noting(&self.open) * bytes > self.noted_bytes_max {
            // The youngest makes room for those before it: it comes to nothing without them. The first of a part does not, and goes last.
            let of_all = self.open.iter().enumerate().filter(|(_, window)| is_noting(window));
            let noting: Vec<(usize, PartId)> = of_all.map(|(at, window)| (at, window.part)).collect();
            let is_behind = |(at, part): &&(usize, PartId)| noting.iter().any(|(of, other)| other == part && of < at);
            let Some((youngest, _)) = noting.iter().rev().find(is_behind).or(noting.last()) else { return };
            let youngest = &mut self.open[*youngest];
            self.noted_bytes -= youngest.noted_bytes;
            youngest.spoil(Spoilt::TooBusy);
        }
        let mut parts = 0_u32;
        for window in self.open.iter_mut().filter(|window| is_noting(window)) {
            let of_part = 1_u32.rotate_left(window.part.0.into());
            let limit = if parts & of_part == 0 { NOTED_BYTES_MAX } else { NOTED_BYTES_MAX_BEHIND };
            parts |= of_part;
            // What the chunk's snapshot sees takes no row out of it.
            if window.loaded.as_ref().is_some_and(|loaded| loaded.sight.sees(last)) {
                continue;
            }
            if let Some(noted) = window.noted.get_mut(key) {
                *noted = Noted { last, is_incomplete };
                continue;
            }
            if window.noted_bytes + bytes > limit {
                self.noted_bytes -= window.noted_bytes;
                window.spoil(Spoilt::TooBusy);
            } else {
                window.noted_bytes += bytes;
                self.noted_bytes += bytes;
                window.noted.insert(key.into(), Noted { last, is_incomplete });
            }
        }
    }

    /// The stream has learnt what the table is like from here on.
    pub(crate) fn learn(&mut self, table: Oid, key: Option<&[String]>) {
        let of_table = self.open.iter_mut().filter(|window| window.table == table);
        of_table.filter(|window| Some(window.key.as_slice()) != key).for_each(|window| window.spoil(Spoilt::Altered));
        self.count_noted();
    }

    /// Something has happened to the table after which nobody knows which of its rows have changed.
    pub(crate) fn spoil(&mut self, table: Oid, why: Spoilt) {
        self.open.iter_mut().filter(|window| window.table == table).for_each(|window| window.spoil(why));
        self.count_noted();
    }

    fn count_noted(&mut self) {
        self.noted_bytes = self.open.iter().map(|window| window.noted_bytes).sum();
    }

    /// The chunk was read, in a snapshot; `until` is an end of the log that was asked for after it was taken. If the window is gone, so is the
    /// chunk.
    pub(crate) fn load(&mut self, id: WindowId, chunk: C, sight: Sight, until: Lsn) {
        self.seen(sight.primary());
        if let Some(window) = self.open.iter_mut().find(|window| window.id == id) {
            if !sight.sees_before(&window.horizon, &window.unnoted) {
                window.spoil(Spoilt::StillRunning);
            }
            window.loaded = Some(Loaded { chunk, sight, until });
        }
        self.count_noted();
    }

    /// Takes out a window whose rows can be written now, between transactions: the stream has come to `reached`.
    pub(crate) fn close_due(&mut self, reached: Lsn) -> Option<Closed<C>> {
        let is_open = |id| self.open.iter().any(|window| Some(window.id) == id);
        let is_due = |window: &Window<C>| {
            let is_due =
                window.loaded.as_ref().is_some_and(|loaded| window.spoilt.is_some() || loaded.until <= reached);
            is_due && !is_open(window.behind)
        };
        let position = self.open.iter().position(is_due)?;
        let Window { id, table, part, behind, noted, mut spoilt, loaded, .. } = self.open.remove(position);
        self.count_noted();
        let Loaded { chunk, sight, until } = loaded?;
        if behind.is_some() && behind.as_ref() != self.written.get(&(table, part)) {
            spoilt.get_or_insert(Spoilt::Behind);
        }
        if spoilt.is_none() {
            self.written.insert((table, part), id);
        }
        let fates = spoilt.map_or(Ok(Fates { until, noted, sight }), Err);
        Some(Closed { table, chunk, fates })
    }
}

impl<C> Window<C> {
    fn spoil(&mut self, why: Spoilt) {
        self.spoilt.get_or_insert(why);
        self.noted = FxHashMap::default();
        self.noted_bytes = 0;
    }
}

/// Whether a transaction has a higher id than another. Ids come again after 2^32 transactions, and those of a session are no farther apart than half of that.
fn is_after(xid: Xid, other: Xid) -> bool {
    u32::from(xid).wrapping_sub(u32::from(other)).cast_signed() > 0
}

#[cfg(test)]
mod tests;
