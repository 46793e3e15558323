//! What the crate's documentation says about the stream, looked up in what real servers sent.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use pgoutput::{Decoder, Frame, Lsn, Message, Oid, OldTuple, ReplicaIdentity, Value, Xid};
use support::{Line, Recording, from_hex};

/// Every recording whose name starts so, with its title.
fn recordings(version: &'static str) -> impl Iterator<Item = (String, Vec<(Lsn, Message)>)> {
    let all = Recording::all().into_iter().filter(move |recording| recording.name.starts_with(version));
    let mut all = all.map(|recording| (recording.title(), recording.messages())).peekable();
    assert!(all.peek().is_some(), "no recording of {version}");
    all
}

fn relation_named(messages: &[(Lsn, Message)], wanted: &str) -> Oid {
    let named = |(_, message): &(Lsn, Message)| match message {
        Message::Relation(relation) if relation.name == wanted => Some(relation.id),
        _ => None,
    };
    messages.iter().find_map(named).unwrap()
}

#[test]
fn a_commit_is_announced_by_its_begin_and_found_at_its_end() {
    for (title, messages) in recordings("v1") {
        let mut open = None;
        let mut last = Lsn::INVALID;
        for (position, message) in messages {
            match message {
                Message::Begin(begin) => assert!(open.replace(begin).is_none(), "{title}"),
                Message::Commit(commit) => {
                    let begin = open.take().unwrap();
                    assert_eq!(commit.commit_lsn, begin.commit_lsn, "{title}");
                    assert_eq!(commit.commit_time, begin.commit_time, "{title}");
                    assert_eq!(position, commit.end_lsn, "{title}");
                    assert!(last < commit.commit_lsn && commit.commit_lsn < commit.end_lsn, "{title}");
                    last = commit.end_lsn;
                }
                Message::Logical(message) => assert_eq!(open.is_some(), message.transactional, "{title}"),
                _ => assert!(open.is_some(), "{title}"),
            }
        }
    }
}

#[test]
fn an_lsn_does_not_identify_a_change_and_goes_back() {
    for (title, messages) in recordings("v1") {
        let inserts: Vec<Lsn> =
            messages.iter().filter(|(_, message)| matches!(message, Message::Insert(_))).map(|&(lsn, _)| lsn).collect();
        assert!(
            inserts.windows(3).any(|three| three[0] == three[1] && three[1] == three[2]),
            "{title}: COPY gave one record"
        );
        assert!(inserts.windows(2).any(|two| two[1] < two[0]), "{title}: an older transaction committed later");
    }
}

#[test]
fn messages_that_only_prepare_the_next_have_no_position() {
    for (title, messages) in recordings("v") {
        for (position, message) in messages {
            match message {
                Message::Relation(_) | Message::Type(_) => assert!(!position.is_valid(), "{title}"),
                Message::Insert(_) | Message::Update(_) | Message::Delete(_) | Message::Truncate(_) => {
                    assert!(position.is_valid(), "{title}");
                }
                _ => {}
            }
        }
    }
}

#[test]
fn both_positions_of_a_frame_are_the_same() {
    for recording in Recording::all() {
        for line in recording.lines() {
            if let Line::Frame(bytes) = line
                && let Frame::WalData(data) = Frame::parse(bytes).unwrap()
            {
                assert_eq!(data.wal_start, data.wal_end, "{}", recording.title());
            }
        }
    }
}

#[test]
fn a_value_out_of_line_that_was_left_alone_is_not_sent() {
    for (title, messages) in recordings("v1") {
        let update_of = |table| {
            let relation = relation_named(&messages, table);
            let of_table = |(_, message): &(Lsn, Message)| match message {
                Message::Update(update) if update.relation == relation => Some(update.clone()),
                _ => None,
            };
            messages.iter().find_map(of_table).unwrap()
        };
        let update = update_of("toasted");
        assert_eq!(update.old, OldTuple::Absent, "{title}");
        assert!(update.new.iter().eq([Value::Text(b"1"), Value::UnchangedToast, Value::Text(b"2")]), "{title}");

        let update = update_of("toasted_full");
        let OldTuple::Full(old) = update.old else { panic!("{title}: not the whole old row") };
        assert!(matches!(old.iter().nth(1), Some(Value::Text(text)) if text.len() == 65 * 32), "{title}");
        assert_eq!(update.new.iter().nth(1), Some(Value::UnchangedToast), "{title}");

        // A key that is stored out of line is sent even though it did not change.
        let update = update_of("toasted_key");
        let OldTuple::Key(old) = update.old else { panic!("{title}: no key") };
        assert!(matches!(old.iter().next(), Some(Value::Text(text)) if text.len() == 65 * 32), "{title}");
        assert_eq!(update.new.iter().next(), Some(Value::UnchangedToast), "{title}");
    }
}

#[test]
fn a_key_is_null_outside_the_replica_identity() {
    for (title, messages) in recordings("v1") {
        let relation = relation_named(&messages, "identity_index");
        let deleted = messages.iter().find_map(|(_, message)| match message {
            Message::Delete(delete) if delete.relation == relation => Some(delete.old.clone()),
            _ => None,
        });
        // The row held (5, 2, 'one').
        let Some(OldTuple::Key(key)) = deleted else { panic!("{title}: no key") };
        assert!(key.iter().eq([Value::Null, Value::Text(b"2"), Value::Text(b"one")]), "{title}");
    }
}

#[test]
fn an_empty_schema_is_pg_catalog() {
    for (title, messages) in recordings("v") {
        for (_, message) in messages {
            match message {
                Message::Relation(relation) => {
                    assert_eq!(relation.schema.is_empty(), relation.name == "golden_catalog_table", "{title}");
                    let full = relation.replica_identity == ReplicaIdentity::Full;
                    assert!(!full || relation.columns.iter().all(|column| column.is_key), "{title}");
                }
                // The domain over integer bears its base type's name.
                Message::Type(named) => assert_eq!(named.schema.is_empty(), named.name == "int4", "{title}"),
                _ => {}
            }
        }
    }
}

#[test]
fn a_message_outside_of_transactions_survives_a_rollback() {
    for (title, messages) in recordings("v1") {
        let contents: Vec<&[u8]> = messages
            .iter()
            .filter_map(|(_, message)| match message {
                Message::Logical(message) => Some(&message.content[..]),
                _ => None,
            })
            .collect();
        // The second was written before the first, in a transaction that still had to commit; the third's was rolled
        // back.
        let expected: [&[u8]; 5] = [b"\0\xff", b"in a transaction", b"", b"streamed", b"end"];
        assert_eq!(contents, expected, "{title}");
    }
}

#[test]
fn only_postgresql_14_sends_empty_transactions() {
    for recording in Recording::all().iter().filter(|recording| recording.name.starts_with("v2")) {
        let messages = recording.messages();
        let is_empty =
            |two: &[(Lsn, Message)]| matches!((&two[0].1, &two[1].1), (Message::Begin(_), Message::Commit(_)));
        assert_eq!(messages.windows(2).any(is_empty), recording.server == "14", "{}", recording.title());
    }
}

#[test]
fn what_a_streamed_abort_names_is_exactly_what_was_rolled_back() {
    for version in ["v2", "v3", "v4"] {
        for (title, messages) in recordings(version) {
            let mut block = None;
            let (mut seen, mut aborted): (BTreeSet<Xid>, BTreeSet<Xid>) = Default::default();
            for (_, message) in messages {
                let xid = match message {
                    Message::StreamStart(start) => {
                        block = Some(start.xid);
                        continue;
                    }
                    Message::StreamStop(_) => {
                        block = None;
                        continue;
                    }
                    Message::StreamAbort(abort) => {
                        assert_eq!(abort.position.is_some(), version == "v4", "{title}");
                        aborted.insert(abort.subxid);
                        continue;
                    }
                    Message::Insert(insert) => insert.xid,
                    Message::Update(update) => update.xid,
                    Message::Delete(delete) => delete.xid,
                    Message::Truncate(truncate) => truncate.xid,
                    Message::Logical(message) => message.xid,
                    Message::Relation(relation) => relation.xid,
                    Message::Type(named) => named.xid,
                    _ => continue,
                };
                assert_eq!(xid.is_some(), block.is_some(), "{title}");
                seen.extend(xid);
            }
            assert!(!aborted.is_empty() && aborted.is_subset(&seen), "{title}: {aborted:?} of {seen:?}");
            assert!(aborted.len() < seen.len(), "{title}: {aborted:?} of {seen:?}");
        }
    }
}

/// A decoder that does not share the session's state misreads: the state is not an ornament.
#[test]
fn inside_a_block_an_insert_reads_differently() {
    let insert = from_hex("49000003240000400d4e000174000000013a");
    let mut inside = Decoder::new(pgoutput::ProtocolVersion::V2);
    inside.decode(from_hex("530000032401")).unwrap();
    assert!(
        matches!(inside.decode(insert.clone()), Ok(Message::Insert(insert)) if insert.relation == Oid::from(0x400d))
    );
    Decoder::new(pgoutput::ProtocolVersion::V2).decode(insert).unwrap_err();
}
