//! Properties that hold for all messages and for all bytes, with an independent encoder as the oracle.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use bytes::Bytes;
use pgoutput::{
    AbortPosition, Begin, BeginPrepare, Commit, CommitPrepared, Decoder, Delete, Frame, Insert, LogicalMessage, Lsn,
    Message, Oid, OldTuple, Origin, Prepare, ProtocolVersion, Relation, RelationColumn, ReplicaIdentity,
    RollbackPrepared, StatusUpdate, StreamAbort, StreamCommit, StreamPrepare, StreamStart, StreamStop, Timestamp,
    Truncate, Tuple, Type, Update, Value, Xid,
};
use proptest::{collection::vec, prelude::*, sample::Index};
use support::encode::{encode, encode_frame};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// A whole session, with blocks of streamed transactions among the ordinary messages.
    #[test]
    fn what_was_encoded_is_decoded(session in session()) {
        let mut decoder = Decoder::for_parallel_streaming();
        for message in session {
            prop_assert_eq!(decoder.decode(encode(&message).into()), Ok(message));
        }
    }

    #[test]
    fn a_tuple_gives_back_its_values(values in vec(value(), 0..40)) {
        let row = || values.iter().map(OwnedValue::borrow);
        let insert = Insert { xid: None, relation: Oid::from(1), new: Tuple::from_values(row()).unwrap() };
        let bytes = encode(&Message::Insert(insert));
        let Ok(Message::Insert(insert)) = decoder().decode(bytes.into()) else { panic!("an insert") };
        prop_assert_eq!(insert.new.len(), values.len());
        prop_assert_eq!(insert.new.is_empty(), values.is_empty());
        prop_assert!(insert.new.iter().eq(row()));
    }

    #[test]
    fn a_message_that_is_cut_or_lengthened_is_refused(message in outside(), cut: Index) {
        let bytes = Bytes::from(encode(&message));
        prop_assert!(decoder().decode(bytes.slice(..cut.index(bytes.len()))).is_err());
        let longer = [&bytes[..], &[0]].concat();
        prop_assert_eq!(decoder().decode(longer.into()).unwrap_err().field(), "end of message");
    }

    /// A changed bit is either noticed or seen in the message: no byte is left unread.
    #[test]
    fn no_bit_is_ignored(message in outside(), at: Index, bit in 0..8) {
        let mut bytes = encode(&message);
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        if let Ok(changed) = decoder().decode(bytes.clone().into()) {
            prop_assert_ne!(&changed, &message);
            prop_assert_eq!(encode(&changed), bytes);
        }
    }

    /// Random bytes behind a valid tag, so that more than the tag is tried.
    #[test]
    fn random_bytes_are_refused_or_taken_whole(
        tag in prop::sample::select(&b"BCORYIUDTMSEcAbPKrp"[..]), body in vec(any::<u8>(), 0..200), streamed: bool,
    ) {
        let mut decoder = decoder();
        if streamed {
            decoder.decode(Bytes::from_static(b"S\0\0\0\x01\x01")).unwrap();
        }
        let bytes = [&[tag][..], &body].concat();
        if let Ok(message) = decoder.decode(bytes.clone().into()) {
            prop_assert_eq!(encode(&message), bytes);
        }
    }

    #[test]
    fn frames_are_decoded_as_encoded(bytes in vec(any::<u8>(), 0..64), tag in prop::sample::select(&b"wk"[..])) {
        let bytes = [&[tag][..], &bytes].concat();
        if let Ok(frame) = Frame::parse(bytes.clone().into()) {
            prop_assert_eq!(encode_frame(&frame), bytes);
        }
    }

    #[test]
    fn a_status_update_comes_back(
        (written, flushed, applied) in (any_lsn(), any_lsn(), any_lsn()),
        sent_at in time(),
        reply_requested: bool,
        cut in 0..34_usize,
    ) {
        let update = StatusUpdate { written, flushed, applied, sent_at, reply_requested };
        let bytes = Bytes::copy_from_slice(&update.encode());
        prop_assert!(StatusUpdate::parse(bytes.slice(..cut)).is_err());
        prop_assert_eq!(StatusUpdate::parse(bytes), Ok(update));
    }
}

#[test]
fn a_status_update_is_laid_out_as_documented() {
    let update = StatusUpdate {
        written: Lsn::from(0x0102_0304_0506_0708),
        flushed: Lsn::from(2),
        applied: Lsn::from(3),
        sent_at: Timestamp::from(-1),
        reply_requested: true,
    };
    let expected =
        b"r\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert_eq!(&update.encode(), expected);
}

#[test]
fn every_recorded_message_encodes_to_the_bytes_it_came_from() {
    for recording in support::Recording::all() {
        let mut decoder = recording.decoder();
        for line in recording.lines() {
            let payload = match line {
                support::Line::Message(_, payload) => payload,
                support::Line::Frame(bytes) => {
                    let frame = Frame::parse(bytes.clone()).unwrap();
                    assert_eq!(encode_frame(&frame), bytes);
                    match frame {
                        Frame::WalData(data) => data.payload,
                        Frame::Keepalive(_) => continue,
                    }
                }
            };
            assert_eq!(encode(&decoder.decode(payload.clone()).unwrap()), payload, "{}", recording.title());
        }
    }
}

/// Version 3 has all messages, and its Stream Abort is the shorter one.
fn decoder() -> Decoder {
    Decoder::new(ProtocolVersion::V3)
}

#[derive(Debug, Clone)]
enum OwnedValue {
    Null,
    Unchanged,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

impl OwnedValue {
    fn borrow(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Unchanged => Value::UnchangedToast,
            Self::Text(text) => Value::Text(text),
            Self::Binary(bytes) => Value::Binary(bytes),
        }
    }
}

fn value() -> impl Strategy<Value = OwnedValue> {
    prop_oneof![
        Just(OwnedValue::Null),
        Just(OwnedValue::Unchanged),
        vec(any::<u8>(), 0..20).prop_map(OwnedValue::Text),
        vec(any::<u8>(), 0..20).prop_map(OwnedValue::Binary),
    ]
}

fn tuple() -> impl Strategy<Value = Tuple> {
    vec(value(), 0..6).prop_map(|values| Tuple::from_values(values.iter().map(OwnedValue::borrow)).unwrap())
}

fn sent_old() -> impl Strategy<Value = OldTuple> {
    prop_oneof![tuple().prop_map(OldTuple::Key), tuple().prop_map(OldTuple::Full)]
}

fn any_lsn() -> impl Strategy<Value = Lsn> {
    any::<u64>().prop_map(Lsn::from)
}

fn lsn() -> impl Strategy<Value = Lsn> {
    (1..=u64::MAX).prop_map(Lsn::from)
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from)
}

fn xid() -> impl Strategy<Value = Xid> + Clone {
    any::<u32>().prop_map(Xid::from)
}

fn oid() -> impl Strategy<Value = Oid> {
    any::<u32>().prop_map(Oid::from)
}

fn name() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

/// Messages that can come inside a block, with a transaction, and outside, without.
fn anywhere(xid: impl Strategy<Value = Option<Xid>> + Clone + 'static) -> impl Strategy<Value = Message> {
    let identity = prop::sample::select(&[
        ReplicaIdentity::Default,
        ReplicaIdentity::Nothing,
        ReplicaIdentity::Full,
        ReplicaIdentity::Index,
    ]);
    let column = (any::<bool>(), name(), oid(), any::<i32>())
        .prop_map(|(is_key, name, type_oid, type_modifier)| RelationColumn { is_key, name, type_oid, type_modifier });
    let old = prop_oneof![Just(OldTuple::Absent), sent_old()];
    prop_oneof![
        (any_lsn(), name()).prop_map(|(commit_lsn, name)| Message::Origin(Origin { commit_lsn, name })),
        (xid.clone(), oid(), name(), name(), identity, vec(column, 0..6)).prop_map(
            |(xid, id, schema, name, replica_identity, columns)| {
                Message::Relation(Relation { xid, id, schema, name, replica_identity, columns })
            }
        ),
        (xid.clone(), oid(), name(), name()).prop_map(|(xid, id, schema, name)| Message::Type(Type {
            xid,
            id,
            schema,
            name
        })),
        (xid.clone(), oid(), tuple()).prop_map(|(xid, relation, new)| Message::Insert(Insert { xid, relation, new })),
        (xid.clone(), oid(), old, tuple()).prop_map(|(xid, relation, old, new)| Message::Update(Update {
            xid,
            relation,
            old,
            new
        })),
        (xid.clone(), oid(), sent_old()).prop_map(|(xid, relation, old)| Message::Delete(Delete {
            xid,
            relation,
            old
        })),
        (xid.clone(), vec(oid(), 0..5), any::<bool>(), any::<bool>()).prop_map(
            |(xid, relations, cascade, restart_identity)| {
                Message::Truncate(Truncate { xid, relations, cascade, restart_identity })
            }
        ),
        (xid, any::<bool>(), any_lsn(), name(), vec(any::<u8>(), 0..30)).prop_map(
            |(xid, transactional, lsn, prefix, content)| {
                Message::Logical(LogicalMessage { xid, transactional, lsn, prefix, content: content.into() })
            }
        ),
    ]
}

/// Messages that frame an ordinary or a prepared transaction, or end a streamed one.
fn transaction_control() -> impl Strategy<Value = Message> {
    let prepared = || (lsn(), lsn(), time(), xid(), name());
    prop_oneof![
        (lsn(), time(), xid()).prop_map(|(commit_lsn, commit_time, xid)| Message::Begin(Begin {
            commit_lsn,
            commit_time,
            xid
        })),
        (lsn(), lsn(), time()).prop_map(|(commit_lsn, end_lsn, commit_time)| {
            Message::Commit(Commit { commit_lsn, end_lsn, commit_time })
        }),
        (xid(), lsn(), lsn(), time()).prop_map(|(xid, commit_lsn, end_lsn, commit_time)| {
            Message::StreamCommit(StreamCommit { xid, commit_lsn, end_lsn, commit_time })
        }),
        prepared().prop_map(|(prepare_lsn, end_lsn, prepare_time, xid, global_id)| {
            Message::BeginPrepare(BeginPrepare { prepare_lsn, end_lsn, prepare_time, xid, global_id })
        }),
        prepared().prop_map(|(prepare_lsn, end_lsn, prepare_time, xid, global_id)| {
            Message::Prepare(Prepare { prepare_lsn, end_lsn, prepare_time, xid, global_id })
        }),
        prepared().prop_map(|(commit_lsn, end_lsn, commit_time, xid, global_id)| {
            Message::CommitPrepared(CommitPrepared { commit_lsn, end_lsn, commit_time, xid, global_id })
        }),
        (prepared(), time()).prop_map(
            |((prepare_end_lsn, rollback_end_lsn, prepare_time, xid, global_id), rollback_time)| {
                let prepared =
                    RollbackPrepared { prepare_end_lsn, rollback_end_lsn, prepare_time, rollback_time, xid, global_id };
                Message::RollbackPrepared(prepared)
            }
        ),
        prepared().prop_map(|(prepare_lsn, end_lsn, prepare_time, xid, global_id)| {
            Message::StreamPrepare(StreamPrepare { prepare_lsn, end_lsn, prepare_time, xid, global_id })
        }),
    ]
}

fn stream_abort(position: impl Strategy<Value = Option<AbortPosition>>) -> impl Strategy<Value = Message> {
    (xid(), xid(), position)
        .prop_map(|(xid, subxid, position)| Message::StreamAbort(StreamAbort { xid, subxid, position }))
}

fn stream_start() -> impl Strategy<Value = Message> {
    (xid(), any::<bool>()).prop_map(|(xid, first_block)| Message::StreamStart(StreamStart { xid, first_block }))
}

/// Any message that a fresh decoder of version 3 takes.
fn outside() -> impl Strategy<Value = Message> {
    prop_oneof![
        8 => anywhere(Just(None)),
        8 => transaction_control(),
        1 => stream_abort(Just(None)),
        1 => stream_start(),
    ]
}

fn session() -> impl Strategy<Value = Vec<Message>> {
    let position =
        (any_lsn(), time()).prop_map(|(abort_lsn, abort_time)| Some(AbortPosition { abort_lsn, abort_time }));
    let ordinary =
        prop_oneof![anywhere(Just(None)), transaction_control(), stream_abort(position)].prop_map(|one| vec![one]);
    let block = (stream_start(), vec(anywhere(xid().prop_map(Some)), 0..5)).prop_map(|(start, mut inside)| {
        inside.insert(0, start);
        inside.push(Message::StreamStop(StreamStop));
        inside
    });
    vec(prop_oneof![ordinary, block], 0..12).prop_map(|parts| parts.concat())
}
