//! The source, fed with messages instead of a connection: what it hands on, and what a later session makes of it.

use bytes::{BufMut, Bytes, BytesMut};
use encoder::{EncodeOptions, HeldBack, Naming, Operation, TableFacts, TablePlan};
use pgoutput::{Keepalive, RelationColumn, ReplicaIdentity, Timestamp, Xid};
use tokio::{runtime::Runtime, sync::mpsc, sync::mpsc::Receiver};

use super::*;

const WATCHED: u32 = 16_384;
const UNWATCHED: u32 = 16_385;

struct Fixture {
    source: Source,
    works: Receiver<Work>,
}

impl Fixture {
    /// A source that resumes at `resume`, and has been told of both relations.
    fn new(resume: Position) -> Self {
        Self::skipping(resume, &[])
    }

    fn skipping(resume: Position, skipped: &[Operation]) -> Self {
        let (queue, works) = mpsc::channel(10_000);
        let metrics = Arc::new(Metrics::new(1));
        let mut relations = Relations::without_servers(&metrics);
        let skipped = skipped.iter().copied().collect();
        relations.know(item(), &EncodeOptions { skipped, ..EncodeOptions::default() });
        relations.known.insert(Oid::from(UNWATCHED), Known::Unwatched);
        let budget = Arc::new(MemoryBudget::new(1 << 30));
        Self { source: Source::new(relations, resume, budget, queue, metrics), works }
    }

    /// Has the table held back.
    fn hold_back(&mut self) {
        let (relation, facts, options) = (&item(), &TableFacts::default(), &EncodeOptions::default());
        let plan = TablePlan::compile(relation, facts, &Naming::new("test", "nowhere"), options).expect("a plan");
        let held = HeldBack { relation, facts, options, names: &[], is_certain: true };
        let Ok(Known::Watched(table)) = self.source.relations.get(WATCHED.into()) else { panic!("it is watched") };
        table.plan = Arc::new(plan.hold_back(&held).expect("it has a name"));
    }

    async fn message(&mut self, wal_start: u64, payload: Bytes) -> Result<(), Failure> {
        let wal_start = Lsn::from(wal_start);
        let data = WalData { wal_start, wal_end: wal_start, sent_at: Timestamp::from(0), payload };
        self.source.frame(Frame::WalData(data)).await
    }

    async fn keepalive(&mut self, wal_end: u64, reply_requested: bool) -> Result<(), Failure> {
        let keepalive = Keepalive { wal_end: Lsn::from(wal_end), sent_at: Timestamp::from(0), reply_requested };
        self.source.frame(Frame::Keepalive(keepalive)).await
    }

    /// What was handed on since the last call.
    fn handed_on(&mut self) -> Vec<Work> {
        std::iter::from_fn(|| self.works.try_recv().ok()).collect()
    }

    fn positions(&mut self) -> Vec<Position> {
        let position = |work: &Work| match work {
            Work::Records(delivery) => delivery.end,
            Work::Position(quiet) => quiet.position,
            Work::Copied(_) | Work::Quarantine(_) => panic!("nothing is copied or in quarantine: {work:?}"),
        };
        self.handed_on().iter().map(position).collect()
    }
}

fn item() -> pgoutput::Relation {
    let id = RelationColumn { is_key: true, name: "id".to_owned(), type_oid: Oid::from(23), type_modifier: -1 };
    pgoutput::Relation {
        xid: None,
        id: Oid::from(WATCHED),
        schema: "public".to_owned(),
        name: "item".to_owned(),
        replica_identity: ReplicaIdentity::Default,
        columns: vec![id],
    }
}

// The layouts are those of PostgreSQL's documentation, "Logical Replication Message Formats".

fn begin(commit_lsn: u64) -> Bytes {
    let mut bytes = BytesMut::from(&b"B"[..]);
    bytes.put_u64(commit_lsn);
    bytes.put_i64(0);
    bytes.put_u32(700);
    bytes.freeze()
}

fn commit(commit_lsn: u64, end_lsn: u64) -> Bytes {
    let mut bytes = BytesMut::from(&b"C\0"[..]);
    bytes.put_u64(commit_lsn);
    bytes.put_u64(end_lsn);
    bytes.put_i64(0);
    bytes.freeze()
}

fn relation() -> Bytes {
    let mut bytes = BytesMut::from(&b"R"[..]);
    bytes.put_u32(WATCHED);
    bytes.put_slice(b"public\0item\0d\0\x01\x01id\0");
    bytes.put_u32(23);
    bytes.put_i32(-1);
    bytes.freeze()
}

fn insert(relation: u32) -> Bytes {
    let mut bytes = BytesMut::from(&b"I"[..]);
    bytes.put_u32(relation);
    bytes.put_slice(b"N\0\x01t\0\0\0\x017");
    bytes.freeze()
}

fn truncate(relation: u32) -> Bytes {
    let mut bytes = BytesMut::from(&b"T"[..]);
    bytes.put_u32(1);
    bytes.put_u8(0);
    bytes.put_u32(relation);
    bytes.freeze()
}

fn message(lsn: u64, transactional: bool, is_wanted: bool) -> Bytes {
    let mut bytes = BytesMut::from(&b"M"[..]);
    bytes.put_u8(transactional.into());
    bytes.put_u64(lsn);
    bytes.put_slice(if is_wanted { b"app\0" } else { b"unwanted\0" });
    bytes.put_slice(b"\0\0\0\x02hi");
    bytes.freeze()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn split(commit_lsn: u64, changes: u64) -> Split {
    Split { commit_lsn: Lsn::from(commit_lsn), changes, messages: 0, ordinal: changes }
}

/// What is skipped is counted, so that a checkpoint inside the transaction means the same in every life, whatever is skipped there.
#[test]
fn what_is_skipped_has_its_change_and_its_ordinal() {
    let runtime = runtime();
    let start = Position { end_lsn: Lsn::from(100), split: None };
    let log = [insert(WATCHED), truncate(WATCHED), insert(WATCHED), truncate(WATCHED), insert(WATCHED)];
    let mut written = Vec::new();
    for skipped in [&[][..], &[Operation::Truncate], &[Operation::Create]] {
        let mut fixture = Fixture::skipping(start, skipped);
        runtime.block_on(async {
            fixture.message(190, begin(200)).await.expect("it comes");
            for change in &log[..3] {
                fixture.message(190, change.clone()).await.expect("a change");
            }
            fixture.source.flush(false).await.expect("there is room");
        });
        let position = fixture.positions()[0];
        assert_eq!(position.split, Some(split(200, 3)), "{skipped:?}");
        for then in [&[][..], &[Operation::Truncate], &[Operation::Create]] {
            let mut fixture = Fixture::skipping(position, then);
            runtime.block_on(async {
                fixture.message(190, begin(200)).await.expect("it comes again");
                for change in &log {
                    fixture.message(190, change.clone()).await.expect("a change");
                }
                fixture.source.flush(false).await.expect("there is room");
            });
            let works = fixture.handed_on();
            let [Work::Records(delivery)] = works.as_slice() else { panic!("{works:?}") };
            assert_eq!(delivery.end.split, Some(split(200, 5)), "{skipped:?} {then:?}");
            written.push(delivery.batch.len());
        }
    }
    assert_eq!(written, [2, 1, 1].repeat(3));
}

#[test]
fn a_keepalive_before_the_split_transaction_comes_keeps_the_split() {
    let runtime = runtime();
    let resume = Position { end_lsn: Lsn::from(100), split: Some(split(200, 3)) };
    let mut fixture = Fixture::new(resume);
    runtime.block_on(async {
        fixture.keepalive(150, true).await.expect("before the transaction");
        assert_eq!(fixture.positions(), [Position { end_lsn: Lsn::from(150), ..resume }]);
        fixture.message(190, begin(200)).await.expect("it comes");
        for lsn in 190..195 {
            fixture.message(lsn, insert(WATCHED)).await.expect("its changes");
        }
        fixture.message(210, commit(200, 210)).await.expect("its end");
        fixture.source.flush(true).await.expect("there is room");
    });
    let works = fixture.handed_on();
    let [Work::Records(delivery)] = works.as_slice() else { panic!("{works:?}") };
    let names: Vec<_> = delivery.batch.iter().map(|record| record.topic.to_string()).collect();
    let item = "test.public.item";
    assert_eq!(names, [item, item, "test.transaction"], "the BEGIN and three of the five are in Kafka");
    assert_eq!(delivery.end, Position::at(Lsn::from(210)));
}

#[test]
fn a_keepalive_inside_a_transaction_is_no_position() {
    let runtime = runtime();
    let mut fixture = Fixture::new(Position::at(Lsn::from(100)));
    runtime.block_on(async {
        fixture.message(150, begin(200)).await.expect("it begins");
        fixture.message(150, insert(WATCHED)).await.expect("a change");
        fixture.keepalive(300, true).await.expect("it is passed over");
        assert_eq!(fixture.positions(), []);
        fixture.message(210, commit(200, 210)).await.expect("its end");
        // The server asks for an answer, which takes what was received along, in the order of the log.
        fixture.keepalive(210, true).await.expect("it is a position");
        assert_eq!(fixture.positions(), [Position::at(Lsn::from(210)), Position::at(Lsn::from(210))]);
    });
}

#[test]
fn a_split_transaction_that_does_not_come_is_a_mismatch() {
    let runtime = runtime();
    let resume = Position { end_lsn: Lsn::from(100), split: Some(split(200, 3)) };
    let failure = runtime.block_on(Fixture::new(resume).keepalive(201, false)).expect_err("it is passed");
    assert_eq!(failure.code(), Code::CheckpointMismatch);
    let failure = runtime.block_on(Fixture::new(resume).message(1, begin(201))).expect_err("another");
    assert_eq!(failure.code(), Code::CheckpointMismatch);
    let failure = runtime.block_on(async {
        let mut fixture = Fixture::new(resume);
        fixture.message(150, begin(200)).await.expect("it comes");
        fixture.message(150, insert(WATCHED)).await.expect("one change");
        fixture.message(210, commit(200, 210)).await.expect_err("of three")
    });
    assert_eq!(failure.code(), Code::CheckpointMismatch);
}

/// That it was not announced again behind the transaction that has replaced its key says that it was so before.
#[test]
fn a_table_whose_key_was_replaced_is_looked_up_again() {
    let runtime = runtime();
    // The change is of transaction 700.
    for (made_by, last, first, is_looked_up) in [
        (None, "600:600:", "600:600:", false),
        (Some(701), "600:600:", "800:800:", false),
        (Some(700), "600:600:", "800:800:", false),
        (Some(699), "600:600:", "800:800:", true),
        (Some(699), "650:650:", "800:800:", false),
        (Some(699), "600:600:", "700:700:", true),
    ] {
        let mut fixture = Fixture::new(Position::at(Lsn::from(100)));
        fixture.source.relations.guess_key(Oid::from(WATCHED), Xid::from(640), last, made_by.map(Xid::from), first);
        let outcome = runtime.block_on(async {
            fixture.message(190, begin(200)).await.expect("it begins");
            fixture.message(190, insert(WATCHED)).await
        });
        // Nobody is there to be asked.
        let code = outcome.err().map(|failure| failure.code());
        assert_eq!(code, is_looked_up.then_some(Code::PostgresUnavailable), "{made_by:?} {last} {first}");
    }
}

#[test]
fn a_message_outside_of_any_transaction_is_whole_by_itself() {
    let runtime = runtime();
    let mut fixture = Fixture::new(Position::at(Lsn::from(100)));
    runtime.block_on(async {
        fixture.message(100, message(100, false, true)).await.expect("it is covered");
        fixture.message(180, message(180, false, true)).await.expect("it comes");
        fixture.message(190, begin(200)).await.expect("it begins");
        fixture.message(190, insert(WATCHED)).await.expect("a change");
        fixture.source.flush(false).await.expect("there is room");
    });
    let works = fixture.handed_on();
    let [Work::Records(delivery)] = works.as_slice() else { panic!("{works:?}") };
    assert_eq!(delivery.boundary, Some(Boundary { records: 1, position: Position::at(Lsn::from(180)) }));
    assert_eq!(delivery.end, Position { end_lsn: Lsn::from(180), split: Some(split(200, 1)) });
}

/// While its topic is waited for, what came before it may be committed, and it must not be covered by that.
#[test]
fn a_message_that_waits_for_its_topic_is_not_covered() {
    let mut fixture = Fixture::new(Position::at(Lsn::from(100)));
    fixture.source.relations.message_topic = None;
    runtime().block_on(async {
        fixture.message(190, begin(200)).await.expect("it begins");
        fixture.message(190, insert(WATCHED)).await.expect("a change");
        fixture.message(191, message(191, true, true)).await.expect_err("nobody answers");
    });
    assert_eq!(fixture.positions()[0].split, Some(split(200, 1)));
}

/// Whether messages are asked for may change while a transaction is covered in part: what is new comes among changes that are passed over.
#[test]
fn messages_that_are_asked_for_later_move_no_position_back() {
    let runtime = runtime();
    let resume = Position { end_lsn: Lsn::from(100), split: Some(split(200, 3)) };
    let mut fixture = Fixture::new(resume);
    runtime.block_on(async {
        fixture.message(190, begin(200)).await.expect("it comes");
        fixture.message(191, insert(WATCHED)).await.expect("a change");
        fixture.message(192, message(192, true, true)).await.expect("a message");
        fixture.source.flush(false).await.expect("there is room");
        for lsn in 193..195 {
            fixture.message(lsn, insert(WATCHED)).await.expect("changes");
        }
        fixture.message(210, commit(200, 210)).await.expect("its end");
        fixture.source.flush(true).await.expect("there is room");
    });
    let inside = Split { messages: 1, ordinal: 4, ..split(200, 3) };
    assert_eq!(fixture.positions(), [Position { split: Some(inside), ..resume }, Position::at(Lsn::from(210))]);
}

#[test]
fn messages_out_of_place_are_violations() {
    let runtime = runtime();
    let sequences: [&[Bytes]; 8] = [
        &[begin(200), begin(300)],
        &[commit(200, 210)],
        &[begin(200), commit(201, 210)],
        &[begin(200), commit(200, 200)],
        &[insert(WATCHED)],
        &[relation()],
        &[message(150, true, true)],
        &[begin(200), message(150, false, true)],
    ];
    for messages in sequences {
        let mut fixture = Fixture::new(Position::at(Lsn::from(100)));
        let outcome = runtime.block_on(async {
            for message in messages {
                fixture.message(150, message.clone()).await?;
            }
            Ok::<_, Failure>(())
        });
        assert_eq!(outcome.expect_err("out of place").code(), Code::ProtocolViolation, "{messages:?}");
        assert!(fixture.handed_on().is_empty(), "{messages:?}");
    }
}

mod at_once;
mod lives;
