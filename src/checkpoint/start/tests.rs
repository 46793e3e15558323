//! What begins where, and what is refused.

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

/// What is another server, or another stream, is never taken for a gap.
#[test]
fn what_begins_anew_has_lost_nothing_but_its_slot() {
    let begins = |wanted: &Wanted, server: &Server, slot: Option<&Slot>, checkpoint: Option<&Checkpoint>| {
        let refusal = decide(wanted, server, slot, checkpoint).expect_err("it is refused");
        anew(wanted, slot, checkpoint, refusal.code())
    };
    let held = checkpoint(100);
    let (lost, ahead) = (Slot { lost: Some("wal_removed".into()), ..slot(50) }, slot(300));
    let unmanaged = Wanted { manage: false, ..wanted() };
    let adopted = Start::Anew(Anew::AdoptSlot(Position::at(300.into())));
    assert_eq!(begins(&wanted(), &server(), None, Some(&held)), Some(Start::Anew(Anew::CreateSlot)));
    assert_eq!(begins(&wanted(), &server(), Some(&lost), Some(&held)), Some(Start::Anew(Anew::ReplaceSlot)));
    assert_eq!(begins(&wanted(), &server(), Some(&ahead), Some(&held)), Some(adopted));
    assert_eq!(begins(&unmanaged, &server(), Some(&ahead), Some(&held)), Some(adopted));
    for slot in [None, Some(&lost)] {
        assert_eq!(begins(&unmanaged, &server(), slot, Some(&held)), None);
        let pending = Checkpoint { slot_pending: true, ..held.clone() };
        let (another, behind) =
            (Server { system_identifier: 8, ..server() }, Server { flush_lsn: 99.into(), ..server() });
        for server in [&another, &behind] {
            assert_eq!(begins(&wanted(), server, slot, Some(&pending)), None);
        }
    }
    assert_eq!(begins(&wanted(), &server(), Some(&lost), None), None, "nobody knows whose it is");
    let physical = Slot { plugin: None, ..ahead.clone() };
    assert_eq!(begins(&wanted(), &server(), Some(&physical), Some(&held)), None);
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
        refuses(&wanted(), &promoted(switch), Some(&slot(50)), Some(&inside), Code::TimelineDiverged, "branched off");
    }
}

#[test]
fn a_timeline_is_followed_only_where_it_branched_off_after_the_checkpoint() {
    let promoted = |switch: u64| Server {
        timeline: 2,
        history: vec![TimelineEnd { timeline: 1, switch_lsn: switch.into() }],
        ..server()
    };
    starts(&wanted(), &promoted(100), Some(&slot(50)), Some(&checkpoint(100)), Start::Resume(Position::at(100.into())));
    refuses(&wanted(), &promoted(99), Some(&slot(50)), Some(&checkpoint(100)), Code::TimelineDiverged, "branched off");
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
                        Start::Anew(_) => panic!("it is for nobody but who asks"),
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
