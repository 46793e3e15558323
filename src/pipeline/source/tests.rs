//! The source, fed with messages instead of a connection: what it hands on, and what a later session makes of it.
//!
//! The model is a log of transactions and a server that sends it, whatever happened before. What a life of the stream leaves in
//! Kafka is what it handed on up to a position that could have been committed; the next life begins there.

use std::{collections::BTreeMap, sync::LazyLock};

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value};
use bytes::{BufMut, Bytes, BytesMut};
use encoder::{EncodeOptions, HeldBack, MessageTopic, Naming, Operation, TableFacts, TablePlan};
use pgoutput::{Keepalive, RelationColumn, ReplicaIdentity, Timestamp, Xid};
use proptest::prelude::*;
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

/// What a log holds, in its order.
#[derive(Debug, Clone)]
enum Entry {
    Transaction(Transaction),
    /// A message outside of any transaction: where its record starts and ends, and whether its prefix is asked for.
    Message(u64, u64, bool),
}

impl Entry {
    /// The server skips what starts before the position that is asked for.
    fn decides(&self) -> u64 {
        match self {
            Self::Transaction(transaction) => transaction.commit_lsn,
            Self::Message(start, _, _) => *start,
        }
    }

    /// What it is to become.
    fn written(&self) -> Vec<Written> {
        match self {
            Self::Transaction(transaction) => transaction.written(),
            Self::Message(_, end, true) => vec![Written::Alone(*end)],
            Self::Message(_, _, false) => Vec::new(),
        }
    }
}

#[derive(Debug, Clone)]
struct Transaction {
    commit_lsn: u64,
    end_lsn: u64,
    /// Where each change lies, and what it is.
    changes: Vec<(u64, Kind)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Row { is_watched: bool },
    Message { is_wanted: bool },
}

impl Kind {
    fn is_event(self) -> bool {
        let (Self::Row { is_watched: is_it } | Self::Message { is_wanted: is_it }) = self;
        is_it
    }
}

impl Transaction {
    /// What it is to become.
    fn written(&self) -> Vec<Written> {
        let mut counts = Vec::<(String, u64)>::new();
        let events = self.changes.iter().filter(|(_, kind)| kind.is_event()).inspect(|(_, kind)| {
            let name = if matches!(kind, Kind::Row { .. }) { "public.item" } else { "message" };
            match counts.iter_mut().find(|(known, _)| known == name) {
                Some((_, count)) => *count += 1,
                None => counts.push((name.to_owned(), 1)),
            }
        });
        let events: Vec<_> = (1..).zip(events).map(|(order, (lsn, _))| Written::Event(*lsn, order)).collect();
        if events.is_empty() {
            return events;
        }
        let (id, count) = (format!("700:{}", self.commit_lsn), events.len() as u64);
        let end = Written::End(id.clone(), count, counts);
        [vec![Written::Begin(id)], events, vec![end]].concat()
    }
}

fn log() -> impl Strategy<Value = Vec<Entry>> {
    let kind = prop_oneof![
        3 => any::<bool>().prop_map(|is_watched| Kind::Row { is_watched }),
        1 => any::<bool>().prop_map(|is_wanted| Kind::Message { is_wanted }),
    ];
    let transaction = (0..40_u64, prop::collection::vec(kind, 0..12), 1..40_u64);
    let entry = prop_oneof![
        3 => transaction.prop_map(Ok),
        1 => (1..40_u64, any::<bool>()).prop_map(Err),
    ];
    prop::collection::vec(entry, 1..14).prop_map(|entries| {
        let mut lsn = 1000;
        let place = |entry: Result<(u64, Vec<Kind>, u64), (u64, bool)>| match entry {
            Ok((before, kinds, after)) => {
                let changes = kinds.iter().enumerate().map(|(index, kind)| (lsn + index as u64, *kind)).collect();
                let commit_lsn = lsn + kinds.len() as u64 + before;
                let end_lsn = commit_lsn + after;
                // The next record may start where this one ends.
                lsn = end_lsn + before;
                Entry::Transaction(Transaction { commit_lsn, end_lsn, changes })
            }
            Err((length, is_wanted)) => {
                let start = lsn;
                lsn += length;
                Entry::Message(start, lsn, is_wanted)
            }
        };
        entries.into_iter().map(place).collect()
    })
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Written {
    Begin(String),
    /// The event of the change at this LSN, and its order in the transaction.
    Event(u64, u64),
    /// The message outside of any transaction that ends at this LSN.
    Alone(u64),
    /// The id, all events, and those of each table.
    End(String, u64, Vec<(String, u64)>),
}

impl Written {
    fn read(record: encoder::Record<'_>) -> Self {
        let value = record.value.expect("there are no tombstones");
        if record.topic.ends_with(".dead-letters") {
            let letter: serde_json::Value = serde_json::from_slice(value).expect("JSON");
            return Self::Event(record.lsn.into(), letter["ordinal"].as_u64().expect("a number"));
        }
        if &**record.topic != "test.transaction" {
            let schema = if &**record.topic == "test.message" { &MESSAGES } else { &EVENTS };
            let block = &decoded(schema, value)["transaction"];
            if *block == Value::Null {
                return Self::Alone(record.lsn.into());
            }
            let Value::Record(block) = block else { panic!("it has a place") };
            let Value::Long(total_order) = block[1].1 else { panic!("it is a number") };
            return Self::Event(record.lsn.into(), u64::try_from(total_order).expect("a count"));
        }
        let fields = decoded(&TRANSACTIONS.1, value);
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        let long = |value: &Value| match value {
            Value::Long(long) => u64::try_from(*long).expect("a count"),
            other => panic!("{other:?}"),
        };
        let id = text(&fields["id"]);
        let key = decoded(&TRANSACTIONS.0, record.key.expect("it has a key"));
        assert_eq!(text(&key["id"]), id);
        match (text(&fields["status"]).as_str(), &fields["event_count"], &fields["data_collections"]) {
            ("BEGIN", Value::Null, Value::Null) => Self::Begin(id),
            ("END", count, Value::Array(collections)) => {
                let collection = |collection: &Value| match unwrapped(collection) {
                    Value::Record(fields) => (text(&fields[0].1), long(&fields[1].1)),
                    other => panic!("{other:?}"),
                };
                Self::End(id, long(count), collections.iter().map(collection).collect())
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The schema of the values of the table.
static EVENTS: LazyLock<Schema> = LazyLock::new(|| {
    let naming = Naming::new("test", "nowhere");
    let plan = TablePlan::compile(&item(), &TableFacts::default(), &naming, &EncodeOptions::default());
    Schema::parse_str(plan.expect("a plan").value_schema().expect("it is Avro").json()).expect("a schema")
});

/// The schema of the values of messages.
static MESSAGES: LazyLock<Schema> = LazyLock::new(|| {
    let topic = MessageTopic::new(&Naming::new("test", "nowhere"), encoder::Format::Avro).expect("a name");
    Schema::parse_str(topic.schemas().expect("it is Avro").1.json()).expect("a schema")
});

/// The schemas of keys and values of the topic of transactions.
static TRANSACTIONS: LazyLock<(Schema, Schema)> = LazyLock::new(|| {
    let topic = encoder::TransactionTopic::new(&Naming::new("test", "nowhere"), encoder::Format::Avro).expect("a name");
    let parse = |schema: &encoder::Schema| Schema::parse_str(schema.json()).expect("a schema");
    let (key, value) = topic.schemas().expect("it is Avro");
    (parse(key), parse(value))
});

fn unwrapped(value: &Value) -> Value {
    match value {
        Value::Union(_, inner) => (**inner).clone(),
        other => other.clone(),
    }
}

fn decoded(schema: &Schema, framed: &[u8]) -> BTreeMap<String, Value> {
    let reader = GenericDatumReader::builder(schema).build().expect("a reader");
    match reader.read_value(&mut &framed[5..]).expect("it is of the schema") {
        Value::Record(fields) => fields.into_iter().map(|(name, value)| (name, unwrapped(&value))).collect(),
        other => panic!("{other:?}"),
    }
}

/// Where a life may end: a position, and how many of the records that it handed on lie before it.
fn ends(works: &[Work], events: &mut Vec<Written>) -> Vec<(Position, usize)> {
    let mut ends = Vec::new();
    for work in works {
        match work {
            Work::Records(delivery) => {
                let before = events.len();
                events.extend(delivery.batch.iter().map(Written::read));
                ends.extend(delivery.boundary.map(|boundary| (boundary.position, before + boundary.records)));
                ends.push((delivery.end, events.len()));
            }
            Work::Position(quiet) => ends.push((quiet.position, events.len())),
            Work::Copied(_) | Work::Quarantine(_) => panic!("nothing is copied or in quarantine: {work:?}"),
        }
    }
    ends
}

/// One life from a position to the end of the log. `choices` decide where the server speaks up and where a batch ends.
async fn live(fixture: &mut Fixture, log: &[Entry], from: Position, choices: &mut impl Iterator<Item = u8>) {
    let mut choose = |of: u8| choices.next().is_some_and(|choice| choice % of == 0);
    let mut passed = from.end_lsn.into();
    for entry in log {
        // The server skips what is decided before the position; one that sends it again does no harm either.
        let decides = entry.decides();
        if Lsn::from(decides) < from.end_lsn && !choose(4) {
            continue;
        }
        if decides > passed && choose(3) {
            let middle = passed + (decides - passed) / 2;
            fixture.keepalive(middle, choose(2)).await.expect("between transactions");
        }
        let Transaction { commit_lsn, end_lsn, changes } = match entry {
            Entry::Transaction(transaction) => transaction.clone(),
            Entry::Message(_, end, is_wanted) => {
                fixture.message(*end, message(*end, false, *is_wanted)).await.expect("a message");
                passed = passed.max(*end);
                if choose(2) {
                    fixture.source.flush(choose(2)).await.expect("there is room");
                }
                continue;
            }
        };
        fixture.message(changes.first().map_or(commit_lsn, |change| change.0), begin(commit_lsn)).await.expect("begin");
        for (lsn, kind) in changes {
            let bytes = match kind {
                Kind::Row { is_watched: true } => insert(WATCHED),
                Kind::Row { is_watched: false } => insert(UNWATCHED),
                Kind::Message { is_wanted } => message(lsn, true, is_wanted),
            };
            fixture.message(lsn, bytes).await.expect("a change");
            if choose(5) {
                fixture.keepalive(end_lsn + 1000, choose(2)).await.expect("inside a transaction");
            }
            if choose(3) {
                fixture.source.flush(false).await.expect("there is room");
            }
        }
        fixture.message(end_lsn, commit(commit_lsn, end_lsn)).await.expect("commit");
        passed = passed.max(end_lsn);
        if choose(2) {
            fixture.source.flush(true).await.expect("there is room");
        }
    }
    fixture.source.flush(true).await.expect("there is room");
}

proptest! {
    /// Whatever the server says in between, wherever batches end and wherever each life ends: every event once, in order, and around
    /// those of each transaction one BEGIN and one END with the right counts. The same of letters, where the table is held back in a life.
    #[test]
    fn lives_that_follow_each_other_hand_on_every_event_once(
        log in log(),
        lives in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        held in prop::collection::vec(any::<bool>(), 6),
        choices in prop::collection::vec(any::<u8>(), 2000),
    ) {
        let runtime = runtime();
        let mut choices = choices.into_iter();
        let mut position = Position::at(Lsn::from(500));
        let mut in_kafka = Vec::new();
        for (life, end_of_life) in lives.iter().map(Some).chain([None]).enumerate() {
            let mut fixture = Fixture::new(position);
            if held[life] {
                fixture.hold_back();
            }
            runtime.block_on(live(&mut fixture, &log, position, &mut choices));
            let mut events = Vec::new();
            let ends = ends(&fixture.handed_on(), &mut events);
            prop_assert!(ends.iter().zip(&ends[1.min(ends.len())..]).all(|(one, next)| one.0 <= next.0), "positions only advance");
            let committed = match end_of_life {
                Some(index) if !ends.is_empty() => ends[index.index(ends.len())],
                Some(_) => (position, 0),
                None => ends.last().copied().unwrap_or((position, 0)),
            };
            position = committed.0;
            in_kafka.extend_from_slice(&events[..committed.1]);
        }
        let expected: Vec<Written> = log.iter().flat_map(Entry::written).collect();
        prop_assert_eq!(in_kafka, expected);
    }
}

mod at_once;
