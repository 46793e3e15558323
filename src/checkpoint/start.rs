//! Whether, and where, a stream may begin.
//!
//! The danger at a start is silence. `START_REPLICATION` with a position before the slot's `confirmed_flush_lsn` is moved
//! forward without a word (PostgreSQL's `CreateDecodingContext`), a slot that was dropped and created again looks like any
//! other, and a promoted standby keeps the system identifier. So nothing is taken for granted: [`decide`] compares what Kafka
//! holds with what the server says, and where the two do not fit it refuses, with everything kept, until an operator has
//! given their word.
//!
//! The invariant that it guards: `slot.confirmed_flush_lsn <= checkpoint.end_lsn <= server.flush_lsn`, on one line of
//! history. The first holds in every run because a position is confirmed only after its checkpoint was committed, and even
//! when PostgreSQL crashes, because the slot is then rewound and never advanced.

use pgoutput::Lsn;
use publisher::{Checkpoint, Position};

use crate::failure::{Code, Failure};

/// What the configuration asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The database's name.
    pub database: String,
    /// The slot's name.
    pub slot: String,
    /// The publication's name.
    pub publication: String,
    /// Whether the slot may be created.
    pub manage: bool,
    /// The operator's word.
    pub word: OperatorWord,
}

/// What the operator allows for this one start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OperatorWord {
    /// Begin at the position of a slot for which Kafka has no checkpoint.
    pub adopt_slot: bool,
    /// Go on although changes between the checkpoint and the slot cannot be read any more.
    pub accept_gap: bool,
}

/// What the server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `IDENTIFY_SYSTEM`'s system identifier.
    pub system_identifier: u64,
    /// Its timeline.
    pub timeline: u32,
    /// The end of the log that it has flushed.
    pub flush_lsn: Lsn,
    /// Where each earlier timeline was left, from `TIMELINE_HISTORY`.
    pub history: Vec<TimelineEnd>,
}

/// Where a timeline was left for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineEnd {
    /// The timeline that was left.
    pub timeline: u32,
    /// The position at which it was.
    pub switch_lsn: Lsn,
}

/// What `pg_replication_slots` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// `plugin`; none for a physical slot.
    pub plugin: Option<String>,
    /// `database`; none for a physical slot.
    pub database: Option<String>,
    /// `temporary`.
    pub temporary: bool,
    /// `two_phase`: it would send transactions before they commit.
    pub two_phase: bool,
    /// `confirmed_flush_lsn`.
    pub confirmed_flush_lsn: Lsn,
    /// Whether it has no position yet, because the server is still waiting for older transactions to end.
    pub being_created: bool,
    /// Why the slot cannot be read any more: `wal_status = lost`, or the reason of its invalidation.
    pub lost: Option<String>,
}

/// How the stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From this position, which the checkpoint holds.
    Resume(Position),
    /// From this position, which an operator or an interrupted first start has vouched for. It is to be committed to Kafka
    /// before anything else; `forced` says whether there may be a gap before it.
    Adopt {
        /// The slot's position.
        position: Position,
        /// Whether an operator has accepted what may be missing before it.
        forced: bool,
    },
    /// From a slot that has yet to be created.
    CreateSlot {
        /// Whether an operator has accepted what is missing before it.
        forced: bool,
    },
    /// Behind a gap, with every table copied anew.
    Anew(Anew),
}

/// Where a stream begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anew {
    /// At a slot that has yet to be created.
    CreateSlot,
    /// The same, once the old one is dropped, which cannot be read any more.
    ReplaceSlot,
    /// At the position of the slot.
    AdoptSlot(Position),
}

/// How a stream begins anew that [`decide`] has refused with this code: where nothing but the slot is not what it was, and the checkpoint fits.
pub fn anew(wanted: &Wanted, slot: Option<&Slot>, checkpoint: Option<&Checkpoint>, refusal: Code) -> Option<Start> {
    checkpoint?;
    match (refusal, slot) {
        (Code::SlotMissing, None) if wanted.manage => Some(Start::Anew(Anew::CreateSlot)),
        (Code::SlotLost, Some(_)) if wanted.manage => Some(Start::Anew(Anew::ReplaceSlot)),
        (Code::SlotAhead, Some(slot)) => Some(Start::Anew(Anew::AdoptSlot(Position::at(slot.confirmed_flush_lsn)))),
        _ => None,
    }
}

/// Decides how the stream begins, or why it must not.
///
/// # Errors
/// A [`Failure`] that says what was found; its code says what can be done.
pub fn decide(
    wanted: &Wanted,
    server: &Server,
    slot: Option<&Slot>,
    checkpoint: Option<&Checkpoint>,
) -> Result<Start, Failure> {
    if let Some(slot) = slot {
        check_fitness(wanted, slot)?;
        if slot.being_created {
            return Err(Failure::new(
                Code::SlotActive,
                format!("slot {} is being created: the server waits for transactions that are older", wanted.slot),
            ));
        }
    }
    match (checkpoint, slot) {
        (None, None) => create(wanted, false, || {
            Failure::new(Code::SlotMissing, format!("slot {} does not exist and manage is off", wanted.slot))
        }),
        (None, Some(slot)) => {
            check_not_lost(wanted, slot)?;
            if !wanted.word.adopt_slot {
                return Err(Failure::new(
                    Code::SlotWithoutCheckpoint,
                    format!(
                        "slot {} exists at {}, but Kafka holds no checkpoint for this stream",
                        wanted.slot, slot.confirmed_flush_lsn
                    ),
                ));
            }
            Ok(Start::Adopt { position: Position::at(slot.confirmed_flush_lsn), forced: true })
        }
        (Some(checkpoint), slot) => {
            check_identity(wanted, server, checkpoint)?;
            check_history(server, checkpoint)?;
            match slot {
                None if checkpoint.slot_pending => create(wanted, false, || gone(wanted, checkpoint)),
                None if wanted.word.accept_gap => create(wanted, true, || gone(wanted, checkpoint)),
                None => Err(gone(wanted, checkpoint)),
                Some(slot) => with_slot(wanted, slot, checkpoint),
            }
        }
    }
}

/// Checks the slot again, once it is read from and nobody else can move it.
///
/// # Errors
/// It has passed the position that was asked for: the server has moved the start forward, silently.
pub fn verify_started(slot_name: &str, confirmed_flush_lsn: Lsn, position: Position) -> Result<(), Failure> {
    if confirmed_flush_lsn > position.end_lsn {
        return Err(ahead(slot_name, confirmed_flush_lsn, position.end_lsn));
    }
    Ok(())
}

fn with_slot(wanted: &Wanted, slot: &Slot, checkpoint: &Checkpoint) -> Result<Start, Failure> {
    check_not_lost(wanted, slot)?;
    if checkpoint.slot_pending {
        // We had announced to create it, and nobody but us moves it: it is where its creation has left it.
        return Ok(Start::Adopt { position: Position::at(slot.confirmed_flush_lsn), forced: false });
    }
    if slot.confirmed_flush_lsn > checkpoint.end_lsn {
        if wanted.word.accept_gap {
            // What Kafka has of a transaction that is still to come is not to come again.
            let split = checkpoint.split.filter(|split| split.commit_lsn >= slot.confirmed_flush_lsn);
            let position = Position { end_lsn: slot.confirmed_flush_lsn, split };
            return Ok(Start::Adopt { position, forced: true });
        }
        return Err(ahead(&wanted.slot, slot.confirmed_flush_lsn, checkpoint.end_lsn));
    }
    Ok(Start::Resume(checkpoint.position()))
}

fn create(wanted: &Wanted, forced: bool, otherwise: impl FnOnce() -> Failure) -> Result<Start, Failure> {
    if wanted.manage { Ok(Start::CreateSlot { forced }) } else { Err(otherwise()) }
}

fn gone(wanted: &Wanted, checkpoint: &Checkpoint) -> Failure {
    Failure::new(
        Code::SlotMissing,
        format!("the checkpoint is at {}, but slot {} does not exist", checkpoint.position(), wanted.slot),
    )
}

fn ahead(slot: &str, confirmed_flush_lsn: Lsn, checkpoint_lsn: Lsn) -> Failure {
    Failure::new(
        Code::SlotAhead,
        format!(
            "slot {slot} is at {confirmed_flush_lsn}, {} bytes past the checkpoint at {checkpoint_lsn}: it was recreated, or \
             advanced by somebody else",
            confirmed_flush_lsn.bytes_since(checkpoint_lsn)
        ),
    )
}

fn check_fitness(wanted: &Wanted, slot: &Slot) -> Result<(), Failure> {
    let problem = match (slot.plugin.as_deref(), slot.database.as_deref()) {
        (None, _) => "it is a physical slot".to_owned(),
        (Some(plugin), _) if plugin != "pgoutput" => format!("its output plugin is {plugin}"),
        (_, database) if database != Some(wanted.database.as_str()) => {
            format!("it belongs to the database {}", database.unwrap_or("(none)"))
        }
        _ if slot.temporary => "it is temporary".to_owned(),
        _ if slot.two_phase => "it decodes prepared transactions, which may never commit".to_owned(),
        _ => return Ok(()),
    };
    Err(Failure::new(Code::SlotUnfit, format!("slot {} cannot be used: {problem}", wanted.slot)))
}

fn check_not_lost(wanted: &Wanted, slot: &Slot) -> Result<(), Failure> {
    match &slot.lost {
        None => Ok(()),
        Some(reason) => {
            Err(Failure::new(Code::SlotLost, format!("slot {} cannot be read any more: {reason}", wanted.slot)))
        }
    }
}

fn check_identity(wanted: &Wanted, server: &Server, checkpoint: &Checkpoint) -> Result<(), Failure> {
    let differs = |what: &str, held: &dyn std::fmt::Display, found: &dyn std::fmt::Display| {
        Err(Failure::new(
            Code::CheckpointMismatch,
            format!("the checkpoint was written for {what} {held}, and this is {what} {found}"),
        ))
    };
    if checkpoint.system_identifier != server.system_identifier {
        return differs("the server with system identifier", &checkpoint.system_identifier, &server.system_identifier);
    }
    if checkpoint.database != wanted.database {
        return differs("database", &checkpoint.database, &wanted.database);
    }
    if checkpoint.slot != wanted.slot {
        return differs("slot", &checkpoint.slot, &wanted.slot);
    }
    if checkpoint.publication != wanted.publication {
        return differs("publication", &checkpoint.publication, &wanted.publication);
    }
    Ok(())
}

/// Checks that the server's log holds what Kafka has: everything before the checkpoint's end, and the commit record of a transaction
/// that is covered in part, which lies further on.
fn check_history(server: &Server, checkpoint: &Checkpoint) -> Result<(), Failure> {
    // Of a position everything before it must be there; of a commit record, where it starts.
    let lacks = |log_end: Lsn| {
        log_end < checkpoint.end_lsn || checkpoint.split.is_some_and(|split| log_end <= split.commit_lsn)
    };
    if server.timeline != checkpoint.timeline {
        // The checkpoint's timeline must be one that the server's history went through, and was left after the checkpoint.
        let left = server.history.iter().find(|end| end.timeline == checkpoint.timeline);
        match left {
            Some(end) if !lacks(end.switch_lsn) => {}
            Some(end) => {
                return Err(Failure::new(
                    Code::TimelineDiverged,
                    format!(
                        "the checkpoint is at {} on timeline {}, but timeline {} branched off from it at {}",
                        checkpoint.position(),
                        checkpoint.timeline,
                        server.timeline,
                        end.switch_lsn
                    ),
                ));
            }
            None => {
                return Err(Failure::new(
                    Code::TimelineDiverged,
                    format!(
                        "the checkpoint is on timeline {}, which is not in the history of the server's timeline {}",
                        checkpoint.timeline, server.timeline
                    ),
                ));
            }
        }
    }
    if lacks(server.flush_lsn) {
        return Err(Failure::new(
            Code::ServerBehind,
            format!(
                "the server's log ends at {}, before the checkpoint at {}",
                server.flush_lsn,
                checkpoint.position()
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
