//! Lives of the stream, one after another.
//!
//! The model is a log of transactions and a server that sends it, whatever happened before. What a life of the stream leaves in
//! Kafka is what it handed on up to a position that could have been committed; the next life begins there.

use std::{collections::BTreeMap, sync::LazyLock};

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value};
use encoder::MessageTopic;
use proptest::prelude::*;

use super::*;

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
