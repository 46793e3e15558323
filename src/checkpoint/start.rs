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
mod tests {
    use publisher::{FORMAT_VERSION, Split};

    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            database: "app".into(),
            slot: "shop".into(),
            publication: "shop".into(),
            manage: true,
            word: OperatorWord::default(),
        }
    }

    fn server() -> Server {
        Server { system_identifier: 7, timeline: 1, flush_lsn: Lsn::from(1000), history: Vec::new() }
    }

    fn slot(confirmed: u64) -> Slot {
        Slot {
            plugin: Some("pgoutput".into()),
            database: Some("app".into()),
            temporary: false,
            two_phase: false,
            confirmed_flush_lsn: confirmed.into(),
            being_created: false,
            lost: None,
        }
    }

    fn checkpoint(end: u64) -> Checkpoint {
        Checkpoint {
            version: FORMAT_VERSION,
            name: "shop".into(),
            instance: "i".into(),
            system_identifier: 7,
            timeline: 1,
            database: "app".into(),
            slot: "shop".into(),
            publication: "shop".into(),
            end_lsn: end.into(),
            split: None,
            forced: false,
            slot_pending: false,
            written_at_ms: 0,
        }
    }

    const ADOPT: OperatorWord = OperatorWord { adopt_slot: true, accept_gap: false };
    const GAP: OperatorWord = OperatorWord { adopt_slot: false, accept_gap: true };

    fn starts(wanted: &Wanted, server: &Server, slot: Option<&Slot>, checkpoint: Option<&Checkpoint>, expect: Start) {
        assert_eq!(decide(wanted, server, slot, checkpoint).expect("it starts"), expect);
    }

    fn refuses(
        wanted: &Wanted,
        server: &Server,
        slot: Option<&Slot>,
        checkpoint: Option<&Checkpoint>,
        code: Code,
        says: &str,
    ) {
        let failure = decide(wanted, server, slot, checkpoint).expect_err(says);
        assert_eq!(failure.code(), code, "{failure}");
        assert!(failure.to_string().contains(says), "{failure} does not say {says:?}");
    }

    #[test]
    fn a_first_start_creates_the_slot_if_it_may() {
        starts(&wanted(), &server(), None, None, Start::CreateSlot { forced: false });
        let unmanaged = Wanted { manage: false, ..wanted() };
        refuses(&unmanaged, &server(), None, None, Code::SlotMissing, "manage is off");
    }

    #[test]
    fn an_interrupted_first_start_goes_on() {
        let pending = Checkpoint { slot_pending: true, ..checkpoint(100) };
        starts(&wanted(), &server(), None, Some(&pending), Start::CreateSlot { forced: false });
        let adopted = Start::Adopt { position: Position::at(120.into()), forced: false };
        starts(&wanted(), &server(), Some(&slot(120)), Some(&pending), adopted);
    }

    #[test]
    fn a_restart_resumes_from_the_checkpoint_and_not_from_the_slot() {
        for confirmed in [1, 99, 100] {
            starts(
                &wanted(),
                &server(),
                Some(&slot(confirmed)),
                Some(&checkpoint(100)),
                Start::Resume(Position::at(100.into())),
            );
        }
        let split = Some(Split { commit_lsn: 150.into(), changes: 9, messages: 0, ordinal: 9 });
        let inside = Checkpoint { split, ..checkpoint(100) };
        starts(&wanted(), &server(), Some(&slot(100)), Some(&inside), Start::Resume(inside.position()));
    }

    #[test]
    fn a_slot_past_the_checkpoint_is_a_gap() {
        refuses(
            &wanted(),
            &server(),
            Some(&slot(101)),
            Some(&checkpoint(100)),
            Code::SlotAhead,
            "1 bytes past the checkpoint",
        );
        let accepted = Start::Adopt { position: Position::at(101.into()), forced: true };
        starts(&Wanted { word: GAP, ..wanted() }, &server(), Some(&slot(101)), Some(&checkpoint(100)), accepted);
        // A transaction that Kafka has in part is still to come, unless the slot has passed it as well.
        let split = Some(Split { commit_lsn: 150.into(), changes: 9, messages: 0, ordinal: 9 });
        let inside = Checkpoint { split, ..checkpoint(100) };
        let kept = Start::Adopt { position: Position { end_lsn: 101.into(), split }, forced: true };
        starts(&Wanted { word: GAP, ..wanted() }, &server(), Some(&slot(101)), Some(&inside), kept);
        let passed = Start::Adopt { position: Position::at(151.into()), forced: true };
        starts(&Wanted { word: GAP, ..wanted() }, &server(), Some(&slot(151)), Some(&inside), passed);
        // The wrong word is no word.
        refuses(
            &Wanted { word: ADOPT, ..wanted() },
            &server(),
            Some(&slot(101)),
            Some(&checkpoint(100)),
            Code::SlotAhead,
            "",
        );
        assert_eq!(
            verify_started("shop", 101.into(), Position::at(100.into())).expect_err("ahead").code(),
            Code::SlotAhead
        );
        verify_started("shop", 100.into(), Position::at(100.into())).expect("it is not ahead");
    }

    #[test]
    fn a_slot_that_is_gone_is_a_gap() {
        refuses(&wanted(), &server(), None, Some(&checkpoint(100)), Code::SlotMissing, "does not exist");
        let accepted = Start::CreateSlot { forced: true };
        starts(&Wanted { word: GAP, ..wanted() }, &server(), None, Some(&checkpoint(100)), accepted);
        let unmanaged = Wanted { word: GAP, manage: false, ..wanted() };
        refuses(&unmanaged, &server(), None, Some(&checkpoint(100)), Code::SlotMissing, "");
    }

    #[test]
    fn a_slot_without_a_checkpoint_needs_the_operators_word() {
        refuses(&wanted(), &server(), Some(&slot(50)), None, Code::SlotWithoutCheckpoint, "no checkpoint");
        refuses(&Wanted { word: GAP, ..wanted() }, &server(), Some(&slot(50)), None, Code::SlotWithoutCheckpoint, "");
        let adopted = Start::Adopt { position: Position::at(50.into()), forced: true };
        starts(&Wanted { word: ADOPT, ..wanted() }, &server(), Some(&slot(50)), None, adopted);
    }

    /// Its creator may be a pgsluice that was killed: the server notices that only when it is done.
    #[test]
    fn a_slot_that_is_being_created_is_waited_for() {
        let unfinished = Slot { being_created: true, ..slot(0) };
        let pending = Checkpoint { slot_pending: true, ..checkpoint(100) };
        for checkpoint in [None, Some(&pending), Some(&checkpoint(100))] {
            refuses(&wanted(), &server(), Some(&unfinished), checkpoint, Code::SlotActive, "being created");
        }
    }

    #[test]
    fn no_word_makes_a_lost_or_unfit_slot_usable() {
        let lost = Slot { lost: Some("wal_status is lost".into()), ..slot(50) };
        let both = Wanted { word: OperatorWord { adopt_slot: true, accept_gap: true }, ..wanted() };
        refuses(&both, &server(), Some(&lost), Some(&checkpoint(100)), Code::SlotLost, "wal_status is lost");
        refuses(&both, &server(), Some(&lost), None, Code::SlotLost, "");
        for (unfit, says) in [
            (Slot { plugin: None, database: None, ..slot(50) }, "physical"),
            (Slot { plugin: Some("wal2json".into()), ..slot(50) }, "wal2json"),
            (Slot { database: Some("other".into()), ..slot(50) }, "database other"),
            (Slot { temporary: true, ..slot(50) }, "temporary"),
            (Slot { two_phase: true, ..slot(50) }, "prepared"),
        ] {
            refuses(&both, &server(), Some(&unfit), Some(&checkpoint(100)), Code::SlotUnfit, says);
            refuses(&both, &server(), Some(&unfit), None, Code::SlotUnfit, says);
        }
    }

    #[test]
    fn a_checkpoint_of_something_else_is_refused() {
        let both = Wanted { word: OperatorWord { adopt_slot: true, accept_gap: true }, ..wanted() };
        for (other, says) in [
            (Checkpoint { system_identifier: 8, ..checkpoint(100) }, "system identifier 8"),
            (Checkpoint { database: "x".into(), ..checkpoint(100) }, "database x"),
            (Checkpoint { slot: "x".into(), ..checkpoint(100) }, "slot x"),
            (Checkpoint { publication: "x".into(), ..checkpoint(100) }, "publication x"),
        ] {
            refuses(&both, &server(), Some(&slot(50)), Some(&other), Code::CheckpointMismatch, says);
            refuses(&both, &server(), None, Some(&other), Code::CheckpointMismatch, says);
        }
    }

    #[test]
    fn a_server_that_lacks_what_kafka_has_is_refused() {
        let behind = Server { flush_lsn: Lsn::from(99), ..server() };
        refuses(&wanted(), &behind, Some(&slot(50)), Some(&checkpoint(100)), Code::ServerBehind, "ends at 0/63");
        refuses(
            &Wanted { word: GAP, ..wanted() },
            &behind,
            Some(&slot(50)),
            Some(&checkpoint(100)),
            Code::ServerBehind,
            "",
        );
    }

    /// Its first changes are in Kafka, and would be those of nobody.
    #[test]
    fn a_server_that_lacks_the_rest_of_a_split_transaction_is_refused() {
        let split = Some(Split { commit_lsn: 150.into(), changes: 9, messages: 0, ordinal: 9 });
        let inside = Checkpoint { split, ..checkpoint(100) };
        let resumed = Start::Resume(inside.position());
        let ends_at = |flush: u64| Server { flush_lsn: flush.into(), ..server() };
        starts(&wanted(), &ends_at(151), Some(&slot(50)), Some(&inside), resumed);
        for flush in [100, 149, 150] {
            let says = "and 9 changes of the transaction committed at 0/96";
            refuses(&wanted(), &ends_at(flush), Some(&slot(50)), Some(&inside), Code::ServerBehind, says);
        }
        let promoted = |switch: u64| Server {
            timeline: 2,
            history: vec![TimelineEnd { timeline: 1, switch_lsn: switch.into() }],
            ..server()
        };
        starts(&wanted(), &promoted(151), Some(&slot(50)), Some(&inside), resumed);
        for switch in [100, 149, 150] {
            refuses(
                &wanted(),
                &promoted(switch),
                Some(&slot(50)),
                Some(&inside),
                Code::TimelineDiverged,
                "branched off",
            );
        }
    }

    #[test]
    fn a_timeline_is_followed_only_where_it_branched_off_after_the_checkpoint() {
        let promoted = |switch: u64| Server {
            timeline: 2,
            history: vec![TimelineEnd { timeline: 1, switch_lsn: switch.into() }],
            ..server()
        };
        starts(
            &wanted(),
            &promoted(100),
            Some(&slot(50)),
            Some(&checkpoint(100)),
            Start::Resume(Position::at(100.into())),
        );
        refuses(
            &wanted(),
            &promoted(99),
            Some(&slot(50)),
            Some(&checkpoint(100)),
            Code::TimelineDiverged,
            "branched off",
        );
        let unrelated = Server { timeline: 2, ..server() };
        refuses(
            &wanted(),
            &unrelated,
            Some(&slot(50)),
            Some(&checkpoint(100)),
            Code::TimelineDiverged,
            "not in the history",
        );
        let older = Checkpoint { timeline: 3, ..checkpoint(100) };
        refuses(&wanted(), &promoted(500), Some(&slot(50)), Some(&older), Code::TimelineDiverged, "timeline 3");
    }

    /// Whatever the facts, no start without the operator's word leaves changes out: either the position is the
    /// checkpoint's and the slot still has everything after it, or nothing was ever streamed.
    #[test]
    fn no_combination_skips_anything_without_the_operators_word() {
        for confirmed in [None, Some(50_u64), Some(100), Some(150)] {
            for held in [None, Some(false), Some(true)] {
                for timeline in [1, 2] {
                    for flush in [80_u64, 100, 1000] {
                        let slot = confirmed.map(slot);
                        let checkpoint = held.map(|slot_pending| Checkpoint { slot_pending, ..checkpoint(100) });
                        let server = Server { timeline, flush_lsn: flush.into(), ..server() };
                        let Ok(start) = decide(&wanted(), &server, slot.as_ref(), checkpoint.as_ref()) else {
                            continue;
                        };
                        match start {
                            Start::Resume(position) => {
                                assert_eq!(Some(position), checkpoint.map(|checkpoint| checkpoint.position()));
                                assert!(slot.expect("there is a slot").confirmed_flush_lsn <= position.end_lsn);
                                assert!(timeline == 1 && flush >= 100);
                            }
                            Start::Adopt { forced, .. } => {
                                assert!(!forced);
                                assert_eq!(held, Some(true));
                            }
                            Start::CreateSlot { forced } => {
                                assert!(!forced);
                                assert!(held != Some(false) && slot.is_none());
                            }
                        }
                    }
                }
            }
        }
    }
}
