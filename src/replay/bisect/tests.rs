use proptest::prelude::*;

use super::*;

/// Records at their offsets; what is at no offset is a mark, was aborted, or compacted away.
#[derive(Debug, Clone)]
struct Simulated {
    records: Vec<(i64, Position)>,
    end: i64,
    visited: u64,
}

impl Log for Simulated {
    type Error = ();

    fn visit(
        &mut self,
        _: Look,
        from: i64,
        end: i64,
        visit: &mut dyn FnMut(i64, Position) -> ControlFlow<()>,
    ) -> Result<(), ()> {
        assert!(from <= end);
        let start = self.records.partition_point(|(offset, _)| *offset < from);
        for (offset, position) in self.records[start..].iter().take_while(|(offset, _)| *offset < end) {
            self.visited += 1;
            if visit(*offset, *position).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Simulated {
    /// The answer, by reading all.
    fn first(&self, wanted: Lsn) -> Option<Seen> {
        let found = self.records.iter().find(|(_, position)| position.lsn().is_some_and(|lsn| lsn >= wanted));
        found.map(|(offset, position)| Seen { offset: *offset, lsn: position.lsn().expect("it was compared") })
    }

    fn begin(&self) -> i64 {
        self.records.first().map_or(self.end, |(offset, _)| *offset)
    }
}

/// What a stream, its copier and the broker may do next.
#[derive(Debug, Clone)]
enum Step {
    /// A transaction that commits so much later, with so many changes here, each with a tombstone or without.
    Commit { later: u64, changes: u8, tombstones: bool },
    /// Rows whose snapshot is so much before the stream's position.
    Copy { lag: u64, rows: u16 },
    /// Offsets without a record.
    Gap(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u64..20, 0_u8..4, any::<bool>())
            .prop_map(|(later, changes, tombstones)| Step::Commit { later, changes, tombstones }),
        1 => (0_u64..200, 0_u16..1500).prop_map(|(lag, rows)| Step::Copy { lag, rows }),
        1 => (0_u8..255).prop_map(Step::Gap),
    ]
}

fn log(steps: &[Step], copies: u32) -> Simulated {
    let mut log = Simulated { records: Vec::new(), end: 7, visited: 0 };
    let mut stream = 1000;
    for step in steps.iter().cycle().take(steps.len() * copies as usize) {
        match step {
            Step::Commit { later, changes, tombstones } => {
                stream += later;
                for _ in 0..*changes {
                    log.records.push((log.end, Position::Change(Lsn::from(stream))));
                    log.end += 1;
                    if *tombstones {
                        log.records.push((log.end, Position::Follows));
                        log.end += 1;
                    }
                }
                // The mark of the commit.
                log.end += 1;
            }
            Step::Copy { lag, rows } => {
                for _ in 0..*rows {
                    log.records.push((log.end, Position::Row(Lsn::from((stream - lag).max(1)))));
                    log.end += 1;
                }
            }
            Step::Gap(length) => log.end += i64::from(*length),
        }
    }
    log
}

proptest! {
    #[test]
    fn the_answer_is_the_first_record_from_there_on(
        steps in proptest::collection::vec(step(), 1..60),
        copies in 1_u32..30,
        wanted in 700_u64..9000,
    ) {
        let mut log = log(&steps, copies);
        let (wanted, begin, end) = (Lsn::from(wanted), log.begin(), log.end);
        let answer = find(&mut log, begin, end, wanted).expect("every record has a position");
        prop_assert_eq!(answer.first, log.first(wanted));
        prop_assert_eq!(answer.backwards, None, "they are in order");
        prop_assert_eq!(answer.records, log.visited);
        if let Some(before) = answer.before {
            prop_assert!(before.lsn < wanted && answer.first.is_none_or(|first| before.offset < first.offset));
        }
    }

    /// Two histories, one after the other: the answer is right, or the search was never where they meet and has found the first of one of them.
    #[test]
    fn a_repetition_that_is_seen_is_read_through(
        steps in proptest::collection::vec(step(), 1..40),
        copies in 2_u32..20,
        wanted in 1000_u64..6000,
    ) {
        let once = log(&steps, copies);
        let mut twice = once.clone();
        twice.records.extend(once.records.iter().map(|(offset, position)| (offset + once.end, *position)));
        twice.end = 2 * once.end;
        let (wanted, begin, end) = (Lsn::from(wanted), twice.begin(), twice.end);
        let answer = find(&mut twice, begin, end, wanted).expect("every record has a position");
        let first = twice.first(wanted);
        if answer.backwards.is_some() {
            prop_assert_eq!(answer.first, first);
        } else {
            let second = once.first(wanted).map(|seen| Seen { offset: seen.offset + once.end, ..seen });
            prop_assert!(answer.first == first || answer.first == second || answer.first.is_none());
        }
    }
}

#[test]
fn a_million_changes_take_some_hundred_looks() {
    let steps = [Step::Commit { later: 3, changes: 4, tombstones: true }];
    let mut log = log(&steps, 125_000);
    assert_eq!(log.records.len(), 1_000_000);
    for wanted in [0, 1003, 1004, 200_000, 375_999, 376_000, 376_001, u64::MAX] {
        let wanted = Lsn::from(wanted);
        let (begin, end) = (log.begin(), log.end);
        let answer = find(&mut log, begin, end, wanted).expect("every record has a position");
        assert_eq!(answer.first, log.first(wanted));
        assert!(answer.records < 600, "{wanted}: {}", answer.records);
    }
}

#[test]
fn behind_a_copy_it_is_the_changes_that_are_searched() {
    // A table was copied before its changes came.
    let steps = [
        vec![Step::Copy { lag: 0, rows: 1000 }; 500],
        vec![Step::Commit { later: 2, changes: 3, tombstones: false }; 10_000],
    ];
    let mut log = log(&steps.concat(), 1);
    let wanted = Lsn::from(20_000);
    let (begin, end) = (log.begin(), log.end);
    let answer = find(&mut log, begin, end, wanted).expect("every record has a position");
    assert_eq!(answer.first, log.first(wanted));
    assert!(answer.records < 2000, "{}", answer.records);
}

#[test]
fn a_change_in_the_midst_of_rows_of_before_is_not_missed() {
    // The change at 300 is followed by rows of a snapshot of 250, which say nothing of it.
    for place in [1, 700, 4000, 9_998] {
        let mut log = Simulated { records: Vec::new(), end: 10_000, visited: 0 };
        log.records = (0..10_000).map(|offset| (offset, Position::Row(Lsn::from(250)))).collect();
        log.records[place] = (i64::try_from(place).expect("a few"), Position::Change(Lsn::from(300)));
        let answer = find(&mut log, 0, 10_000, Lsn::from(280)).expect("every record has a position");
        assert_eq!(answer.first, log.first(Lsn::from(280)), "{place}");
    }
}

#[test]
fn another_history_that_goes_before_is_met() {
    // Another server's log, whose positions were higher, and then this one's.
    let changes = |from: u64, lsn: u64| {
        (from..from + 40_000).map(move |at| (at.cast_signed(), Position::Change(Lsn::from(lsn + at))))
    };
    let records = changes(0, 1_000_000).chain(changes(40_000, 0)).collect();
    let mut log = Simulated { records, end: 80_000, visited: 0 };
    for wanted in [50_000, 60_000, 1_000_000, 1_020_000, 1_039_999] {
        let answer = find(&mut log, 0, 80_000, Lsn::from(wanted)).expect("every record has a position");
        assert_eq!(answer.first, log.first(Lsn::from(wanted)), "{wanted}");
        assert!(answer.backwards.is_some(), "{wanted}");
    }
}

#[test]
fn a_record_without_a_position_is_told() {
    let mut log = Simulated { records: vec![(3, Position::Unknown)], end: 4, visited: 0 };
    assert_eq!(find(&mut log, 0, 4, Lsn::from(1)), Err(Failed::Unknown(3)));
    log.records = (0..5000).map(|offset| (offset, Position::Unknown)).collect();
    log.end = 5000;
    assert!(matches!(find(&mut log, 0, 5000, Lsn::from(1)), Err(Failed::Unknown(_))));
}

#[test]
fn nothing_is_found_in_nothing() {
    let mut log = Simulated { records: Vec::new(), end: 100_000, visited: 0 };
    let answer = find(&mut log, 0, 100_000, Lsn::from(1)).expect("there is none");
    assert_eq!((answer.first, answer.before), (None, None));
    assert_eq!(find(&mut log, 5, 5, Lsn::from(1)).expect("there is none").first, None);
}
