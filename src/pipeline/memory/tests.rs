//! What is remembered of tables, for rows of before and for the process that comes next.

use std::sync::Arc;

use encoder::ColumnFacts;
use pgoutput::Xid;

use super::*;
use crate::pipeline::keys::{Announced, Writer};

const TABLE: u32 = 16384;

const HERE: Place = Place { system_identifier: 7, timeline: 1 };

fn look(column: &str, made_by: u32, seen: &str) -> KeysSeen {
    let mut key = KeySeen::for_test(column, Xid::from(made_by), None, seen);
    if let Some(key) = &mut key.key {
        key.is_born = column == "id";
    }
    let (seen, end) = (Some(Arc::clone(&key.seen)), key.found_at);
    KeysSeen { keys: FxHashMap::from_iter([(Oid::from(TABLE), key)]), seen, end }
}

/// A look at which there was another table, and not this one.
fn gone(seen: &str, end: u64) -> KeysSeen {
    let mut look = look("id", 100, seen);
    look.end = Lsn::from(end);
    look.keys = look.keys.into_values().map(|key| (Oid::from(TABLE + 1), key)).collect();
    look
}

/// What stands beside the checkpoint once this is committed.
fn commit(stands: &mut BTreeMap<String, Vec<u8>>, attachments: Vec<Attachment>) {
    for attachment in attachments {
        match attachment.value {
            Some(value) => stands.insert(attachment.suffix, value),
            None => stands.remove(&attachment.suffix),
        };
    }
}

fn relation() -> Relation {
    let column =
        |name: &str| RelationColumn { is_key: true, name: name.to_owned(), type_oid: Oid::from(23), type_modifier: -1 };
    Relation {
        xid: None,
        id: Oid::from(TABLE),
        schema: "public".to_owned(),
        name: "item".to_owned(),
        replica_identity: ReplicaIdentity::Full,
        columns: vec![column("id"), column("code")],
    }
}

/// The key of the rows of a transaction, and whether that is in doubt.
fn key_of(memory: &mut Memory, xid: u32) -> Option<(String, bool)> {
    let writer = Writer { xid: Xid::from(xid), committed_at: None };
    let when = When::In(writer, Announced::default());
    let then = memory.recall(TableFacts::default(), None, &relation(), when, OnUncertainKey::Likely).1?;
    Some((then.columns?.join(" "), then.doubt.is_some()))
}

fn expect(memory: &mut Memory, xid: u32, key: &str, is_doubtful: bool) {
    assert_eq!(key_of(memory, xid), Some((key.to_owned(), is_doubtful)), "{xid}");
}

/// A standby lacks the end of what its primary had, where transactions of other numbers go on.
#[test]
fn what_was_seen_at_another_server_is_forgotten() {
    for (system_identifier, timeline) in [(7, 1), (7, 2), (8, 1)] {
        let place = Place { system_identifier, timeline };
        let mut memory = Memory::default();
        memory.begin_at(HERE, &BTreeMap::new()).expect("nothing stands there");
        memory.take(look("id", 100, "150:150:"), FxHashMap::from_iter([(Oid::from(TABLE), TableFacts::default())]));
        assert_eq!(memory.note_key(Oid::from(TABLE), true), Keyless::Old);
        memory.begin_at(place, &BTreeMap::new()).expect("nothing stands there");
        assert_eq!(memory.facts.is_empty(), place != HERE, "{place:?}");
        memory.take(look("code", 200, "250:250:"), FxHashMap::default());
        expect(&mut memory, 300, "code", false);
        match (system_identifier, timeline) {
            (7, 1) => expect(&mut memory, 140, "id", false),
            // It may be another transaction of that number.
            (7, _) => expect(&mut memory, 140, "id", true),
            // Somebody has made the key later, and nobody has seen what was there before.
            _ => expect(&mut memory, 140, "code", true),
        }
        let expected = if system_identifier == 7 { Keyless::Lost } else { Keyless::Found };
        assert_eq!(memory.note_key(Oid::from(TABLE), false), expected, "{place:?}");
    }
}

/// Whatever another process finds: what was seen before it stays known, and what was not seen stays in doubt.
#[test]
fn the_next_process_knows_what_was_seen() {
    let mut stands = BTreeMap::new();
    let begin = |stands: &BTreeMap<String, Vec<u8>>, place| {
        let mut memory = Memory::default();
        let strangers = memory.begin_at(place, stands).expect("it is readable");
        (memory, strangers)
    };
    let (mut memory, _) = begin(&stands, HERE);
    memory.take(look("id", 100, "150:150:"), FxHashMap::default());
    assert!(memory.has_found());
    commit(&mut stands, memory.unkept());
    // A look that finds nothing new is one record, and no look is none.
    memory.take(look("id", 100, "180:180:"), FxHashMap::default());
    assert!(!memory.has_found());
    let again = memory.unkept();
    assert_eq!(again.iter().map(|it| it.suffix.as_str()).collect::<Vec<_>>(), ["keys"]);
    commit(&mut stands, again);
    assert_eq!(memory.unkept(), []);

    let (mut memory, strangers) = begin(&stands, HERE);
    assert_eq!(strangers, []);
    memory.take(look("code", 200, "250:250:"), FxHashMap::default());
    for (xid, key, is_doubtful) in [(179, "id", false), (180, "id", true), (249, "code", true), (250, "code", false)] {
        expect(&mut memory, xid, key, is_doubtful);
    }
    // What a session handed on and did not commit is handed on again by the next.
    let lost = memory.unkept();
    memory.begin_at(HERE, &stands).expect("it is readable");
    memory.take(look("code", 200, "260:260:"), FxHashMap::default());
    let again = memory.unkept();
    assert_eq!(again[0], lost[0], "the table's");
    commit(&mut stands, again);
    memory.begin_at(HERE, &stands).expect("it is readable");
    memory.take(look("code", 200, "270:270:"), FxHashMap::default());
    assert_eq!(memory.unkept().len(), 1, "it was committed");
    let (mut memory, _) = begin(&stands, HERE);
    expect(&mut memory, 179, "id", false);
    expect(&mut memory, 200, "code", true);

    // On another timeline nothing is known of when; at another server nothing at all.
    let (mut memory, strangers) = begin(&stands, Place { timeline: 2, ..HERE });
    assert_eq!(strangers, []);
    memory.take(look("code", 200, "300:300:"), FxHashMap::default());
    expect(&mut memory, 179, "id", true);
    let (memory, strangers) = begin(&stands, Place { system_identifier: 8, ..HERE });
    assert_eq!(strangers, [Attachment::removal(format!("keys/{TABLE}"))]);
    assert!(memory.keys.is_empty());
    for (suffix, value) in [("keys", "{}"), ("keys/1", "{}"), ("keys/x", "{}"), ("keys/1", "no JSON")] {
        let stands = BTreeMap::from([(suffix.to_owned(), value.as_bytes().to_vec())]);
        let failure = Memory::default().begin_at(HERE, &stands).expect_err("it cannot be used");
        assert_eq!(failure.code(), crate::failure::Code::CheckpointCorrupt, "{suffix}");
    }
}

/// Nobody has looked while it was there.
#[test]
fn of_a_table_that_nobody_has_seen_nothing_is_kept() {
    let mut memory = Memory::default();
    memory.begin_at(HERE, &BTreeMap::new()).expect("nothing stands there");
    memory.take(gone("150:150:", 5000), FxHashMap::default());
    assert_eq!(memory.unkept().len(), 2, "the other table, and the look");
    let when = When::In(Writer { xid: Xid::from(140), committed_at: None }, Announced::default());
    let then = memory.recall(TableFacts::default(), None, &relation(), when, OnUncertainKey::Stop).1;
    assert!(then.expect("it has REPLICA IDENTITY FULL").doubt.is_some());
    assert!(!memory.has_found());
    memory.take(gone("160:160:", 6000), FxHashMap::default());
    assert_eq!(memory.unkept().iter().map(|it| it.suffix.as_str()).collect::<Vec<_>>(), ["keys"]);
    // A record that says nothing is taken away.
    let nothing = r#"{"version":1,"place":{"system_identifier":7,"timeline":1},"is_partitioned":false,"is_current":false,"states":[]}"#;
    let stands = BTreeMap::from([(format!("keys/{TABLE}"), nothing.as_bytes().to_vec())]);
    let removals = Memory::default().begin_at(HERE, &stands).expect("it is readable");
    assert_eq!(removals, [Attachment::removal(format!("keys/{TABLE}"))]);
}

/// A session that fails reads again from what is committed: until then all states may be needed.
#[test]
fn a_state_is_forgotten_once_what_came_before_is_committed() {
    let mut memory = Memory::default();
    memory.begin_at(HERE, &BTreeMap::new()).expect("nothing stands there");
    memory.take(look("id", 100, "150:150:"), FxHashMap::default());
    memory.take(look("code", 200, "250:250:"), FxHashMap::default());
    memory.commit(memory.session, Lsn::from(249));
    let _handed_on = memory.unkept();
    expect(&mut memory, 140, "id", false);
    memory.commit(memory.session, Lsn::from(250));
    assert!(memory.unkept().is_empty(), "it waits for the next look");
    memory.commit(memory.session - 1, Lsn::INVALID);
    memory.take(look("code", 200, "260:260:"), FxHashMap::default());
    assert_eq!(memory.unkept().len(), 2, "the table's, and the look");
    assert_eq!(
        memory.keys[&Oid::from(TABLE)]
            .at(When::Now, OnUncertainKey::Stop, &Rows { has_column: &|_| true, exists: &|_| true, horizon: None })
            .state
            .map(|state| state & 0xffff),
        Some(1)
    );
}

/// What is handed on in the middle of a transaction may be aborted with it.
#[test]
fn what_was_found_in_a_session_may_be_lost_until_the_next_has_begun() {
    let mut memory = Memory::default();
    memory.begin_at(HERE, &BTreeMap::new()).expect("nothing stands there");
    memory.take(look("id", 100, "150:150:"), FxHashMap::default());
    let _with_the_checkpoint = memory.unkept();
    memory.begin(Lsn::from(1));
    assert!(!memory.may_lose());
    // That a table is looked at no more, and then is again, is no news of its key.
    memory.take(gone("160:160:", 5000), FxHashMap::default());
    memory.take(look("id", 100, "170:170:"), FxHashMap::default());
    memory.take(look("code", 200, "250:250:"), FxHashMap::default());
    let handed_on = memory.unkept();
    assert!(!handed_on.is_empty() && !memory.has_found() && memory.may_lose());
    memory.begin_at(HERE, &BTreeMap::new()).expect("nothing stands there");
    memory.take(look("code", 200, "260:260:"), FxHashMap::default());
    let _with_the_checkpoint = memory.unkept();
    memory.begin(Lsn::from(1));
    memory.take(gone("270:270:", 6000), FxHashMap::default());
    memory.take(look("code", 200, "280:280:"), FxHashMap::default());
    assert!(!memory.may_lose());
}

/// A name that a column has lost is no column that is not published.
#[test]
fn a_key_that_was_renamed_before_anybody_looked_is_in_doubt() {
    let columns = |names: &[&str]| TableFacts {
        columns: names.iter().map(|name| ColumnFacts::new(*name, Oid::from(23), "int4")).collect(),
        primary_key: None,
    };
    for (now, is_doubtful) in [(["uid", "code", ""], true), (["uid", "code", "id"], false)] {
        let mut memory = Memory::default();
        memory.begin_at(HERE, &BTreeMap::new()).expect("nothing stands there");
        let mut look = look("uid", 100, "150:150:");
        look.keys.values_mut().filter_map(|key| key.key.as_mut()).for_each(|key| key.is_born = true);
        memory.take(look, FxHashMap::default());
        let when = When::In(Writer { xid: Xid::from(140), committed_at: None }, Announced::default());
        let then = memory.recall(columns(&now), None, &relation(), when, OnUncertainKey::Stop).1.expect("a key");
        assert_eq!((then.columns.is_none(), then.doubt.is_some()), (true, is_doubtful), "{now:?}");
    }
}

/// Rows of a table that is gone may be still to come, until the log is read up to there.
#[test]
fn a_table_that_is_gone_is_known_until_its_last_row() {
    let mut stands = BTreeMap::new();
    let mut memory = Memory::default();
    memory.begin_at(HERE, &stands).expect("nothing stands there");
    memory.take(look("id", 100, "150:150:"), FxHashMap::default());
    memory.take(gone("200:200:", 5000), FxHashMap::default());
    memory.commit(memory.session, Lsn::from(4999));
    commit(&mut stands, memory.unkept());
    let mut memory = Memory::default();
    memory.begin_at(HERE, &stands).expect("it is readable");
    memory.take(gone("300:300:", 9000), FxHashMap::default());
    expect(&mut memory, 180, "id", false);
    memory.commit(memory.session, Lsn::from(4999));
    commit(&mut stands, memory.unkept());
    assert!(stands.contains_key(&format!("keys/{TABLE}")));
    memory.take(gone("310:310:", 9100), FxHashMap::default());
    memory.commit(memory.session, Lsn::from(5000));
    commit(&mut stands, memory.unkept());
    assert_eq!(stands.keys().collect::<Vec<_>>(), ["keys", &format!("keys/{}", TABLE + 1)]);
    // One that comes back is there again.
    let mut memory = Memory::default();
    memory.begin_at(HERE, &stands).expect("it is readable");
    memory.take(gone("400:400:", 9200), FxHashMap::default());
    memory.take(look("id", 100, "410:410:"), FxHashMap::default());
    memory.take(gone("420:420:", 9300), FxHashMap::default());
    memory.commit(memory.session, Lsn::from(9299));
    commit(&mut stands, memory.unkept());
    assert!(stands.contains_key(&format!("keys/{TABLE}")));
    // It was announced after those were looked at that there were.
    let mut memory = Memory::default();
    memory.begin_at(HERE, &BTreeMap::new()).expect("nothing stands there");
    memory.take(look("id", 100, "500:500:"), FxHashMap::default());
    memory.take(gone("490:490:", 9000), FxHashMap::default());
    memory.commit(memory.session, Lsn::from(9999));
    assert_eq!(memory.unkept().len(), 3, "both tables, and the look");
}
