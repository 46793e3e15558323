//! What a history of keys says of transactions, and what it does not.
//!
//! A look is the columns of the key, who made it, when, and the snapshot. `?` stands behind what is in doubt.

use super::*;

const FIRST: Announced = Announced { state: None, is_again: false };
const AGAIN: Announced = Announced { state: None, is_again: true };

fn history(looks: &[(&str, u32, &str)]) -> KeyHistory {
    timed(&looks.iter().map(|(columns, made_by, seen)| (*columns, *made_by, None, *seen)).collect::<Vec<_>>())
}

/// When they were made is in microseconds after 2000. The first was made with its table.
fn timed(looks: &[(&str, u32, Option<i64>, &str)]) -> KeyHistory {
    let mut history = KeyHistory::default();
    for (columns, made_by, made_at, seen) in looks {
        let mut found = KeySeen::for_test(columns, Xid::from(*made_by), made_at.map(Timestamp::from), seen);
        if let Some(key) = &mut found.key {
            key.is_born = history.states.is_empty();
        }
        history.observe(found);
    }
    history
}

fn during(xid: u32, announced: Announced) -> When {
    When::In(Writer { xid: Xid::from(xid), committed_at: None }, announced)
}

/// One that was committed so many microseconds after 2000.
fn committed(xid: u32, at: i64) -> When {
    When::In(Writer { xid: Xid::from(xid), committed_at: Some(Timestamp::from(at)) }, FIRST)
}

const WHOLE: Rows<'static> = Rows { has_column: &|_| true, exists: &|_| true, horizon: None };

fn likely(history: &KeyHistory, when: When) -> KeyThen {
    history.at(when, OnUncertainKey::Likely, &WHOLE)
}

fn shown(then: KeyThen) -> String {
    let key = then.columns.map_or("none".to_owned(), |columns| columns.join(" "));
    format!("{key}{}", if then.doubt.is_some() { "?" } else { "" })
}

/// What is said of a transaction whose rows have these columns.
fn said(history: &KeyHistory, when: When, word: OnUncertainKey, columns: &str) -> String {
    let has_column = |column: &str| columns.split(' ').any(|its| its == column);
    shown(history.at(when, word, &Rows { has_column: &has_column, exists: &|_| false, ..WHOLE }))
}

fn at(history: &KeyHistory, transaction: u32, announced: Announced, columns: &str) -> String {
    said(history, during(transaction, announced), OnUncertainKey::Likely, columns)
}

#[test]
fn the_example_is_true() {
    let keys = history(&[("id", 100, "750:750:"), ("code", 751, "753:753:")]);
    for (transaction, expected) in [(749, "id"), (750, "id?"), (751, "code?"), (752, "code?"), (753, "code")] {
        assert_eq!(at(&keys, transaction, FIRST, "id code"), expected, "{transaction}");
    }
    let next = likely(&keys, during(750, FIRST)).next.expect("there is another");
    assert!(next.is_there(Xid::from(752)) && next.is_there(Xid::from(753)));
}

#[test]
fn a_row_has_the_key_of_its_time() {
    // Transaction 120 was open at the first look, and 230 at the second.
    let keys = history(&[("id", 100, "120:150:120"), ("code", 200, "230:250:230")]);
    for (transaction, first, again) in [
        (119, "id", "id"),
        (149, "id", "id"),
        (230, "code", "code"),
        (250, "code", "code"),
        (1000, "code", "code"),
        (120, "id?", "id?"),
        (199, "id?", "id?"),
        (200, "code?", "code?"),
        (229, "code?", "code?"),
    ] {
        assert_eq!(at(&keys, transaction, FIRST, "id code v"), first, "{transaction}");
        assert_eq!(at(&keys, transaction, AGAIN, "id code v"), again, "{transaction}");
    }
    // What was found is not left again.
    let found = Announced { state: Some(1), is_again: false };
    assert_eq!(at(&keys, 160, found, "id code v"), "code");
    assert_eq!(shown(likely(&keys, When::Now)), "code");
}

/// It took its number before the look at the old key, which it replaces afterwards; the key has that of a part of it.
#[test]
fn a_key_that_was_replaced_under_a_savepoint() {
    let keys = history(&[("id", 100, "150:151:150"), ("code", 152, "153:153:")]);
    assert_eq!(at(&keys, 150, AGAIN, "id code"), "id?");
    let kept = timed(&[("id", 100, None, "150:151:150"), ("code", 152, Some(7), "153:153:")]);
    assert_eq!(shown(likely(&kept, committed(150, 7))), "code?", "it was committed with its part");
    assert_eq!(at(&keys, 149, AGAIN, "id code"), "id", "it had ended when the old one was there");
    let keys = history(&[("id", 100, "150:151:150"), ("code", 152, "150:153:150")]);
    assert_eq!(at(&keys, 150, FIRST, "id code"), "code", "it goes on after the new one was there");
}

#[test]
fn a_key_that_was_dropped_holds_for_what_came_before() {
    let keys = history(&[("id", 100, "150:150:"), ("", 0, "200:200:")]);
    for (transaction, announced, expected) in
        [(149, AGAIN, "id"), (160, FIRST, "id?"), (160, AGAIN, "none?"), (200, FIRST, "none")]
    {
        assert_eq!(at(&keys, transaction, announced, "id v"), expected, "{transaction}");
    }
    let partitioned = KeyHistory { is_partitioned: true, ..history(&[("id", 100, "150:150:"), ("", 0, "200:200:")]) };
    assert_eq!(at(&partitioned, 160, AGAIN, "id"), "id?", "it is announced with each partition");
    let now = likely(&keys, When::Now);
    assert!(now.columns.is_none() && now.next.is_none() && now.doubt.is_none());
    let keys = history(&[("id", 100, "150:150:"), ("", 0, "200:200:"), ("code", 300, "301:301:")]);
    for (transaction, expected) in [(149, "id"), (299, "none?"), (301, "code")] {
        assert_eq!(at(&keys, transaction, FIRST, "id code"), expected, "{transaction}");
    }
}

#[test]
fn what_is_not_announced_again_is_noticed() {
    let keys = history(&[("id", 100, "150:150:"), ("code", 200, "250:250:")]);
    let next = |transaction| likely(&keys, during(transaction, FIRST)).next;
    let certain = next(140).expect("there is another");
    assert!(!certain.is_there(Xid::from(249)), "it would have been announced");
    assert!(certain.is_there(Xid::from(250)), "it has not ended where the new one was seen");
    let guessed = next(160).expect("there is another");
    assert!(!guessed.is_there(Xid::from(199)) && !guessed.is_there(Xid::from(200)));
    assert!(guessed.is_there(Xid::from(201)), "so that the guess was wrong");
    assert!(next(210).is_none());
    // Somebody has decided, and not guessed.
    let next = keys.at(during(160, FIRST), OnUncertainKey::Before, &WHOLE).next.expect("there is another");
    assert!(!next.is_there(Xid::from(240)) && next.is_there(Xid::from(250)));
}

#[test]
fn numbers_go_round() {
    let epoch = 1_u64 << 32;
    let late = format!("{}:{}:", epoch + 10, epoch + 10);
    let early = format!("{}:{}:", epoch - 50, epoch - 50);
    let keys = history(&[("id", u32::MAX - 100, &early), ("code", 5, &late)]);
    for (transaction, expected) in [(u32::MAX - 60, "id"), (u32::MAX - 1, "id?"), (6, "code?"), (10, "code")] {
        assert_eq!(at(&keys, transaction, FIRST, "id code"), expected, "{transaction}");
    }
    let frozen = history(&[("id", 2, "1000:1000:")]);
    assert_eq!(at(&frozen, u32::MAX, FIRST, "id"), "id");
}

/// A process may live for longer than the half of an id that the stream has.
#[test]
fn a_number_that_comes_again_is_of_another_transaction() {
    let mut keys = history(&[("id", 100, "150:150:"), ("code", 200, "250:250:")]);
    let guessed = likely(&keys, during(160, FIRST)).next.expect("another");
    let certain = likely(&keys, during(140, FIRST)).next.expect("another");
    for ages in 1_u64..=6 {
        let now = 250 + ages * 1_500_000_000;
        keys.observe(KeySeen::for_test("code", Xid::from(200), None, &format!("{now}:{now}:")));
        for transaction in [now - 110, now - 90, now + 5] {
            let xid = u32::try_from(transaction & u64::from(u32::MAX)).expect("the lower half");
            assert_eq!(at(&keys, xid, FIRST, "id code"), "code", "{transaction}");
            assert!(certain.is_there(Xid::from(xid)) && guessed.is_there(Xid::from(xid)), "{transaction}");
        }
    }
}

/// A column has its number under every name.
#[test]
fn a_column_that_was_renamed_is_the_same_key() {
    let keys = history(&[("id#1", 100, "150:150:"), ("number#1", 100, "200:200:")]);
    for (transaction, columns, expected) in [
        (140, "id v", "id"),
        (170, "id v", "id"),
        (170, "number v", "number"),
        (210, "number v", "number"),
        // It had a third name in between; or the names were changed about.
        (170, "v", "none?"),
        (170, "id number", "number?"),
    ] {
        assert_eq!(at(&keys, transaction, FIRST, columns), expected, "{transaction} {columns}");
    }
    let word = |word| said(&keys, during(170, FIRST), word, "v");
    assert_eq!((word(OnUncertainKey::Before), word(OnUncertainKey::After)), ("none?".into(), "none?".into()));
}

/// A state that a row's columns do not fit was not theirs under that name. It may have been under another.
#[test]
fn what_does_not_fit_makes_nothing_else_certain() {
    let replaced = history(&[("id#1", 100, "150:150:"), ("code#2", 200, "250:250:")]);
    assert_eq!(at(&replaced, 160, FIRST, "number code"), "code?", "id was renamed before it was replaced");
    let dropped = history(&[("id#1", 100, "150:150:"), ("", 0, "250:250:")]);
    assert_eq!(at(&dropped, 160, FIRST, "number"), "none?");
    let third = history(&[("code#2", 50, "90:90:"), ("id#1", 100, "150:150:"), ("nr#1", 100, "250:250:")]);
    assert_eq!(
        at(&third, 160, FIRST, "number code"),
        "none?",
        "what was before the first look at (id) was not the key any more"
    );
    assert_eq!(at(&third, 80, FIRST, "id code"), "code");
    assert_eq!(at(&history(&[("id", 100, "150:150:")]), 160, FIRST, "v"), "none?");
}

#[test]
fn what_is_seen_again_is_nothing_new() {
    let twice = history(&[("id", 100, "150:150:"), ("id", 400, "450:450:")]);
    assert_eq!(twice.states.len(), 1);
    let late = history(&[("id", 100, "150:150:"), ("code", 200, "250:250:"), ("id", 100, "160:160:")]);
    assert_eq!(at(&late, 300, FIRST, "id code"), "code", "the last look was taken before the second");
    let mut many = KeyHistory::default();
    for number in 1..100 {
        let seen = format!("{number}:{number}:");
        many.observe(KeySeen::for_test(&format!("c{}", number % 2), Xid::from(number), None, &seen));
    }
    assert_eq!(many.states.len(), KEYS_MAX);
    assert_eq!(likely(&many, When::Now).state, Some(98));
    // A change of its type makes it again, and then it gets another name.
    let rebuilt = history(&[("id#1", 100, "150:150:"), ("id#1", 200, "250:250:"), ("number#1", 200, "350:350:")]);
    assert_eq!(at(&rebuilt, 300, FIRST, "number"), "number");
}

/// Whoever is committed later than the key was made has written under it. Whoever is committed earlier may have had the one before, or another in between.
#[test]
fn the_time_of_the_commits_settles_what_came_later() {
    let looks = [("id", 100, Some(10), "150:150:"), ("code", 200, Some(1_000), "250:250:")];
    let keys = timed(&looks);
    for (transaction, at, expected) in [
        (160, 999, "id?"),
        (240, 999, "code?"),
        (160, 1_001, "code"),
        (240, 1_001, "code"),
        (200, 1_000, "code?"),
        // What had ended by a look, or had not, is no matter of clocks.
        (140, 1_001, "id"),
        (250, 999, "code"),
    ] {
        assert_eq!(shown(likely(&keys, committed(transaction, at))), expected, "{transaction} at {at}");
    }
    // It is older than the last look at the one before: so it is that one, under another name.
    let renamed = timed(&[("id#1", 100, Some(10), "150:150:"), ("code#1", 100, Some(10), "250:250:")]);
    assert_eq!(said(&renamed, committed(160, 1_001), OnUncertainKey::Likely, "id code"), "code?");
    // Before the second look the server became another, with a clock of its own.
    let mut keys = timed(&looks[..1]);
    keys.distrust();
    keys.observe(KeySeen::for_test("code", Xid::from(200), Some(Timestamp::from(1_000)), "250:250:"));
    for (transaction, at, expected) in
        [(140, 999, "id?"), (160, 1_001, "code?"), (240, 1_001, "code?"), (250, 999, "code")]
    {
        assert_eq!(shown(likely(&keys, committed(transaction, at))), expected, "{transaction} at {at}");
    }
}

/// On another timeline a look says nothing of a transaction's number, in neither direction.
#[test]
fn what_is_distrusted_is_seen_anew() {
    let mut keys = history(&[("id", 100, "150:150:"), ("code", 200, "250:250:")]);
    keys.distrust();
    for (transaction, expected) in [(140, "id?"), (270, "code?")] {
        assert_eq!(at(&keys, transaction, FIRST, "id code"), expected, "{transaction}");
    }
    keys.observe(KeySeen::for_test("code", Xid::from(300), None, "310:310:"));
    // Somebody has made it again there.
    for (transaction, expected) in [(140, "id?"), (270, "id?"), (301, "code?"), (310, "code")] {
        assert_eq!(at(&keys, transaction, FIRST, "id code"), expected, "{transaction}");
    }
    // Once the log is read past that, nothing of before is left.
    assert!(!keys.forget_before(Lsn::from(309)));
    assert_eq!(keys.states.len(), 2);
    assert!(!keys.forget_before(Lsn::from(310)));
    assert_eq!((keys.states.len(), at(&keys, 320, FIRST, "id code").as_str()), (1, "code"));
}

/// The key that was seen first may have been made after a transaction wrote that had ended by then, whatever their numbers are.
#[test]
fn a_key_that_nobody_has_seen_may_have_been_before() {
    let mut keys = KeyHistory::default();
    keys.observe(KeySeen::for_test("code", Xid::from(200), Some(Timestamp::from(1_000)), "250:260:250"));
    for (when, expected) in [
        (during(199, FIRST), "code?"),
        (during(201, FIRST), "code?"),
        (during(250, FIRST), "code"),
        (committed(210, 999), "code?"),
        (committed(210, 1_000), "code?"),
        (committed(199, 1_001), "code"),
        (committed(260, 999), "code"),
    ] {
        assert_eq!(said(&keys, when, OnUncertainKey::Likely, "code"), expected, "{when:?}");
    }
    let before = keys.at(during(199, FIRST), OnUncertainKey::Before, &WHOLE);
    assert_eq!(
        (before.state, shown(before).as_str()),
        (None, "none?"),
        "so that the next that is announced is in doubt, too"
    );
    let found = Announced { state: Some(0), is_again: true };
    assert_eq!(at(&keys, 199, found, "code"), "code");
    // Who has made it had ended before anything that is still to come; or has made the table, too.
    for (horizon, expected) in [(200, "code?"), (201, "code")] {
        let seen: Visibility = "250:250:".parse().expect("a snapshot");
        let rows = Rows { horizon: Some(seen.near(Xid::from(horizon))), ..WHOLE };
        assert_eq!(shown(keys.at(during(210, FIRST), OnUncertainKey::Likely, &rows)), expected, "{horizon}");
    }
    assert_eq!(at(&history(&[("code", 200, "250:250:")]), 199, FIRST, "code"), "code");
    let nothing = KeyHistory::default();
    assert_eq!(at(&nothing, 100, FIRST, "id"), "none?");
    assert_eq!(shown(likely(&nothing, When::Now)), "none");
}

/// Its columns are there under their names, and the publication leaves them out.
#[test]
fn a_key_that_is_not_published_is_no_doubt() {
    let keys = history(&[("id", 100, "150:150:"), ("id", 100, "250:250:")]);
    let rows = |exists| Rows { has_column: &|_| false, exists, ..WHOLE };
    let said = |exists| shown(keys.at(during(200, FIRST), OnUncertainKey::Stop, &rows(exists)));
    assert_eq!((said(&|_| true).as_str(), said(&|_| false).as_str()), ("none", "none?"));
}

#[test]
fn what_is_in_doubt_has_the_key_that_somebody_says() {
    let keys = history(&[("id", 100, "150:150:"), ("code", 200, "250:250:"), ("", 0, "350:350:")]);
    let word = |transaction, word| said(&keys, during(transaction, FIRST), word, "id code");
    for (transaction, before, after) in [(160, "id?", "code?"), (240, "id?", "code?"), (260, "code?", "none?")] {
        assert_eq!(word(transaction, OnUncertainKey::Before), before, "{transaction}");
        assert_eq!(word(transaction, OnUncertainKey::After), after, "{transaction}");
    }
    for decided in [OnUncertainKey::Before, OnUncertainKey::After, OnUncertainKey::Stop, OnUncertainKey::Likely] {
        assert_eq!((word(140, decided).as_str(), word(350, decided).as_str()), ("id", "none"), "{decided:?}");
    }
    let doubt = likely(&keys, during(160, FIRST)).doubt.expect("it is in doubt");
    let key = |column: &str| Some(vec![column.to_owned()]);
    assert_eq!(
        doubt,
        Doubt {
            keys: vec![key("id"), key("code")],
            is_older: false,
            by: Some(Xid::from(200)),
            between: (Some(150), Some(250))
        }
    );
}
