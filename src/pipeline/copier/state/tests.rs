use super::*;
use crate::snapshot::cut;

fn state(is_automatic: bool) -> State {
    State::new(Progress::default(), is_automatic, 1)
}

fn table(oid: u32) -> (Oid, PublishedTable) {
    (oid.into(), PublishedTable { schema: "public".into(), name: format!("t{oid}") })
}

fn record() -> TableRecord {
    TableRecord::new("public", "t", Vec::new(), 1).asked_for(None)
}

fn states(state: &State) -> Vec<(String, control::State)> {
    state.status().tables.into_iter().map(|table| (table.table, table.state)).collect()
}

#[test]
fn a_table_is_taken_once_until_its_turn_is_over() {
    let mut state = state(true);
    assert!(state.look(&[table(1), table(2)]).is_empty());
    assert_eq!(state.begin(0), Some((1.into(), 0)));
    assert!(state.look(&[table(1), table(2)]).is_empty());
    assert_eq!(state.begin(0), Some((2.into(), 0)));
    assert_eq!(state.begin(0), None);
    state.end(1.into(), 0, End::PutOff("the disk is full".into()));
    assert_eq!(state.status().tables[0].problem.as_deref(), Some("the disk is full"));
    assert_eq!(state.begin(0), None, "not before the next look");
    state.look(&[table(1), table(2)]);
    assert_eq!(state.begin(0), Some((1.into(), 2)));
    state.progress.tables.insert(1, record().ended(2));
    state.end(1.into(), 2, End::Over);
    state.look(&[table(1), table(2)]);
    assert_eq!(state.begin(0), None);
    assert_eq!(
        states(&state),
        [("public.t1".into(), control::State::Copied), ("public.t2".into(), control::State::Copying)]
    );
}

#[test]
fn what_begins_at_the_first_row_again_is_tried_less_and_less_often() {
    let mut state = state(true);
    state.progress.tables.insert(1, record().owed());
    let mut rest = Duration::ZERO;
    for _ in 0..10 {
        state.look(&[table(1)]);
        let (oid, look) = state.begin(0).expect("its turn");
        state.end(oid, look, End::PutOff("a row is too large".into()));
        state.look(&[table(1)]);
        assert_eq!(state.begin(0), None, "it rests");
        let (pause, until) = state.resting.get_mut(&1).expect("it rests");
        assert!(*pause > rest || *pause == REST_MAX);
        rest = *pause;
        *until = Instant::now();
    }
    assert_eq!(rest, REST_MAX);
    state.start(1, record().owed());
    assert!(state.begin(0).is_some() && state.resting.is_empty(), "somebody has asked");
}

#[test]
fn what_is_taken_out_of_the_publication_is_forgotten_but_not_what_its_topic_needs() {
    let mut state = state(true);
    state.progress.tables.insert(1, record().ended(2));
    let mut to_be_emptied = record();
    to_be_emptied.empty_first = true;
    state.progress.tables.insert(2, to_be_emptied);
    assert_eq!(state.look(&[table(3)]), [Oid::from(1)]);
    state.progress.tables.remove(&1);
    // One that is owed a copy and out for a moment while it is read begins anew; one that rests is no such thing.
    state.progress.tables.insert(4, record().owed());
    state.look(&[table(3), table(4)]);
    while state.begin(0).is_some_and(|(oid, _)| oid != Oid::from(4)) {}
    assert!(state.look(&[table(3)]).is_empty() && !state.is_back(4.into()));
    state.look(&[table(3), table(4)]);
    assert!(!state.is_published(4.into()) && state.is_back(4.into()) && state.is_published(4.into()));
    state.end(4.into(), 0, End::PutOff("it cannot be read".into()));
    assert_eq!(state.look(&[table(3)]), [Oid::from(4)], "that it rests keeps it no longer");
    state.progress.tables.insert(1, record().away(3));
    assert_eq!(state.look(&[table(3)]), [Oid::from(4)]);
    assert_eq!(state.away(), [1.into(), 2.into()], "it may come back");
    state.look(&[table(1), table(3)]);
    assert!(state.is_taken(1) && state.reserve(vec![(1, table(1).1)], Some("id < 9")).is_err());
}

#[test]
fn without_being_asked_only_what_was_asked_for_is_copied() {
    let mut state = state(false);
    assert!(!state.has_reason_to_look());
    state.look(&[table(1), table(2)]);
    assert_eq!(state.begin(0), None);
    assert_eq!(states(&state)[0].1, control::State::NotCopied);
    state.reserve(vec![(2, table(2).1)], None).expect("it is free");
    state.start(2, record());
    assert!(state.has_reason_to_look());
    assert_eq!(state.begin(0), Some((2.into(), 0)));
    state.end(2.into(), 0, End::NextTurn("it is busy".into()));
    assert_eq!(state.begin(0), Some((2.into(), 0)));
}

#[test]
fn what_is_stopped_is_left_alone_until_it_is_started() {
    let mut state = state(true);
    state.look(&[table(1)]);
    state.stopping.insert(1);
    state.give_up(1);
    state.look(&[table(1)]);
    assert_eq!(state.begin(0), None, "it is about to be stopped");
    state.progress.tables.insert(1, record().stopped(3));
    state.stopping.remove(&1);
    state.look(&[table(1)]);
    assert_eq!((state.begin(0), states(&state)[0].1), (None, control::State::Stopped));
    state.reserve(vec![(1, table(1).1)], None).expect("it is free");
    state.look(&[table(1)]);
    assert_eq!(state.begin(0), None, "the checkpoint does not say so yet");
    state.start(1, record());
    assert_eq!(state.begin(0), Some((1.into(), 3)));
}

#[test]
fn nothing_begins_while_it_is_paused_and_what_is_gone_is_forgotten_once_nobody_copies_it() {
    let mut state = state(true);
    state.progress.tables.insert(2, record());
    state.progress.is_paused = true;
    state.look(&[table(1), table(2)]);
    assert_eq!(state.begin(0), None);
    state.progress.is_paused = false;
    assert_eq!(state.begin(0), Some((1.into(), 0)));
    assert_eq!(state.begin(0), Some((2.into(), 0)));
    assert!(state.look(&[table(1)]).is_empty(), "it is being copied");
    assert!(state.look(&[table(1), table(2)]).is_empty());
    assert!(!state.is_published(2.into()), "it was not all the time");
    state.end(2.into(), 0, End::Gone);
    assert!(state.is_published(2.into()));
    assert_eq!(state.look(&[table(1)]), [Oid::from(2)], "it waited, and nobody copies it");
    assert_eq!(state.look(&[]), [Oid::from(2)], "the other is being copied");
    state.end(1.into(), 0, End::Gone);
}

#[test]
fn what_nobody_asks_for_is_left_alone_under_its_name() {
    let mut state = state(true);
    state.look(&[table(1)]);
    state.begin(0).expect("it waits");
    state.end(1.into(), 0, End::Unwatched);
    state.look(&[table(1)]);
    assert_eq!(state.begin(0), None);
    assert!(state.reserve(vec![(1, table(1).1)], None).is_err());
    let renamed = (Oid::from(1), PublishedTable { schema: "public".into(), name: "renamed".into() });
    state.look(std::slice::from_ref(&renamed));
    assert!(state.begin(0).is_some(), "it may be asked for now");
}

#[test]
fn what_was_copied_is_known_with_what_had_it_published() {
    let mut state = state(true);
    let by = |words: &[&str]| {
        let key = words.iter().map(|word| (*word).to_owned()).collect();
        TableRecord::new("public", "t", key, 1)
    };
    state.progress.tables.extend([
        (1, by(&["id 23 0", "id", "member 7"]).ended(2)),
        (2, by(&["id 23 0", "id", "member"]).ended(2)),
        (3, by(&["id 23 0", "id", "member 7"])),
        (4, by(&["id 23 0", "id", "member 7 8"]).ended(2)),
        (5, by(&[]).stopped(2)),
    ]);
    state.look(&[table(1), table(2), table(3), table(4)]);
    let copied = |state: &State| state.copied().into_iter().map(|(oid, _)| u32::from(oid)).collect::<Vec<_>>();
    assert_eq!(copied(&state), [1, 4], "of a publication of all tables nothing is known");
    assert_eq!(state.copied()[1].1, "member 7 8");
    state.reserve(vec![(4, table(4).1)], None).expect("it is free");
    assert_eq!(copied(&state), [1], "it is about to be copied");
}

#[test]
fn what_is_started_with_a_condition_is_not_copied_whole() {
    let mut state = state(true);
    state.look(&[table(1)]);
    let mut start = |condition| state.reserve(vec![(1, table(1).1)], condition).map(|starting| starting.len());
    assert_eq!(start(None).expect("it waits already"), 0);
    start(Some("id < 9")).expect_err("all of it is to be copied");
}

#[test]
fn as_many_tables_are_copied_at_a_time_as_somebody_has_asked_for() {
    let mut state = state(true);
    state.look(&[table(1), table(2), table(3)]);
    assert_eq!(state.begin(1), None, "there is one connection");
    assert_eq!(state.begin(0), Some((1.into(), 0)));
    state.progress.parallel = Some(2);
    assert_eq!((state.begin(2), state.begin(1)), (None, Some((2.into(), 0))));
    state.progress.parallel = Some(1);
    assert!(state.is_beyond(1) && !state.is_beyond(0));
    state.end(2.into(), 0, End::NextTurn("others are copied first".into()));
    assert_eq!((state.begin(1), state.begin(0)), (None, Some((3.into(), 0))));
}

/// A table whose turn it is comes before the parts of others, and of these the one that fewest copy.
#[test]
fn who_has_nothing_to_do_helps_where_fewest_do() {
    let mut state = State::new(Progress::default(), true, 4);
    let parts = || {
        let place = |number: u32| vec![number.to_string()];
        let mut record = record();
        record.parts = cut(None, &[place(7), place(8), place(9)]).expect("it can be cut");
        Arc::new(Parts::new(record))
    };
    state.look(&[table(1), table(2), table(3)]);
    assert!(!state.has_idle_workers(), "they wait");
    let [one, two] = [1, 2].map(|oid: u32| {
        let parts = parts();
        assert_eq!(state.begin(0), Some((oid.into(), 0)));
        state.share(oid.into(), 0, Arc::clone(&parts));
        parts
    });
    assert!(state.do_tables_wait());
    assert_eq!(state.begin(0), Some((3.into(), 0)));
    assert!(state.has_idle_workers());
    one.take(By::Lead).expect("a part");
    let help = |state: &mut State, worker| state.begin_helping(worker).map(|help| u32::from(help.oid));
    assert_eq!((help(&mut state, 0), help(&mut state, 1)), (Some(2), Some(1)));
    assert_eq!((one.taken(), two.taken(), state.status().tables[0].connections), (2, 1, Some(2)));
    assert_eq!(help(&mut state, 4), None, "it is one too many");
    state.stopping.insert(2);
    assert_eq!(help(&mut state, 0), Some(1));
    state.stopping.remove(&2);
    state.rest_from_helping(2.into());
    assert_eq!(help(&mut state, 0), Some(1));
    assert_eq!(help(&mut state, 0), None, "all parts of the one are taken, and the other rests");
    state.withdraw(2.into());
    state.share(2.into(), 0, two);
    state.progress.is_paused = true;
    assert_eq!(help(&mut state, 0), None);
    state.progress.is_paused = false;
    assert_eq!(help(&mut state, 0), Some(2));
    state.progress.parallel = Some(1);
    assert!(!state.has_idle_workers());
}
