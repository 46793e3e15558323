//! The consumer: an ordinary `read_committed` reader of the topics, which keeps a copy of each table by folding its topic by key, and
//! watches that the stream is what it promises to be. It has a thread of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};
use serde_json::Value as Json;

use crate::{
    avro::{Column, Decoder, Fields, Row},
    latency::Latencies,
    ledger::Ledger,
    sample::{Kind, Line, Operation, Sample},
    screen::{Screen, now_unix_us, row_text, value_text},
    shop::TABLES,
};

const POLL_TIMEOUT: Duration = Duration::from_millis(50);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a partition may keep the reader from its end, once nobody writes any more.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// Which events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    Nothing,
    /// The first row of each table.
    First,
    Everything,
    Sample,
}

/// What the demo says to the reader.
enum Order {
    Show(Show),
    /// Latencies count from now on.
    Measure,
    /// Read on until the end of every partition, then stop.
    Finish,
}

/// The handle on the consumer's thread.
pub(crate) struct Consumer {
    orders: mpsc::Sender<Order>,
    /// Rows of before, and changes.
    events: Arc<AtomicU64>,
    outage: Arc<Outage>,
    /// Why it has ended, if it has.
    failure: Arc<OnceLock<String>>,
    thread: JoinHandle<Result<Seen>>,
}

/// The times between which a commit met no running pgsluice, in microseconds since 1970: 0 for not yet.
#[derive(Debug, Default)]
struct Outage {
    from_unix_us: AtomicI64,
    until_unix_us: AtomicI64,
}

/// Everything that was seen, when the reader has ended.
pub(crate) struct Seen {
    pub(crate) tables: BTreeMap<&'static str, Table>,
    /// Rows that were there before the stream.
    pub(crate) reads: u64,
    /// Changes.
    pub(crate) events: u64,
    pub(crate) tombstones: u64,
    pub(crate) latencies: Latencies,
    pub(crate) outage_latencies: Latencies,
    pub(crate) ledger: Ledger,
    /// The first thing that no reader should ever see, and how many there were.
    pub(crate) wrong: Option<String>,
    pub(crate) wrong_count: u64,
}

/// A table as its topic tells it.
#[derive(Default)]
pub(crate) struct Table {
    /// By the values of the key.
    pub(crate) rows: BTreeMap<Vec<Option<String>>, Row>,
    pub(crate) reads: u64,
    pub(crate) creates: u64,
    pub(crate) updates: u64,
    pub(crate) deletes: u64,
}

impl Consumer {
    /// Starts reading.
    pub(crate) fn start(kafka: &str, registry: &str, screen: Screen) -> Result<Self> {
        let (orders, received) = mpsc::channel();
        let (events, outage) = (Arc::new(AtomicU64::new(0)), Arc::new(Outage::default()));
        let reader = Reader {
            consumer: consumer(kafka, "read_committed")?,
            offsets: BTreeMap::new(),
            topics: 0,
            last: BTreeMap::new(),
            decoder: Decoder::new(registry),
            seen: Seen::new(),
            show: Show::Nothing,
            measure: false,
            pending: Vec::new(),
            sample: Sample::new(),
            screen,
            events: Arc::clone(&events),
            outage: Arc::clone(&outage),
        };
        let failure = Arc::new(OnceLock::new());
        let told = Arc::clone(&failure);
        let thread = thread::Builder::new()
            .name("consumer".into())
            .spawn(move || reader.run(&received).inspect_err(|error| _ = told.set(format!("{error:#}"))))?;
        Ok(Self { orders, events, outage, failure, thread })
    }

    /// How many events it has seen, those of rows of before included.
    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Acquire)
    }

    /// Waits until it has seen so many events.
    pub(crate) async fn wait_for(&self, events: u64, timeout: Duration) -> Result<()> {
        let began = Instant::now();
        while self.events() < events {
            if let Some(failure) = self.failure.get() {
                bail!("the consumer has ended: {failure}");
            }
            ensure!(began.elapsed() < timeout, "{} of {events} events arrived within {timeout:?}", self.events());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    pub(crate) fn show(&self, show: Show) {
        self.order(Order::Show(show));
    }

    pub(crate) fn measure(&self) {
        self.order(Order::Measure);
    }

    /// From here on (and shortly before: what was under way is lost with the process), latencies are those of an outage.
    pub(crate) fn outage_begins(&self, margin: Duration) {
        let margin_us = i64::try_from(margin.as_micros()).unwrap_or_default();
        self.outage.until_unix_us.store(0, Ordering::Release);
        self.outage.from_unix_us.store(now_unix_us() - margin_us, Ordering::Release);
    }

    pub(crate) fn outage_ends(&self) {
        self.outage.until_unix_us.store(now_unix_us(), Ordering::Release);
    }

    /// Reads to the end of every topic, to which nobody may write any more, and tells what was seen.
    pub(crate) fn finish(self) -> Result<Seen> {
        self.order(Order::Finish);
        self.thread.join().map_err(|_panicked| anyhow!("the consumer has panicked"))?
    }

    fn order(&self, order: Order) {
        // If the thread has ended, `finish` tells why.
        let _ended = self.orders.send(order);
    }
}

/// How many records the topics hold for a reader that does not ask whether they were committed.
pub(crate) fn count_uncommitted(kafka: &str) -> Result<u64> {
    let consumer = consumer(kafka, "read_uncommitted")?;
    let mut assignment = TopicPartitionList::new();
    for (topic, partition) in partitions(&consumer)? {
        assignment.add_partition_offset(&topic, partition, Offset::Beginning)?;
    }
    let mut count = 0;
    read_to_end(&consumer, &assignment, |_| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

fn consumer(kafka: &str, isolation_level: &str) -> Result<BaseConsumer> {
    let consumer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", "demo")
        .set("isolation.level", isolation_level)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .create()?;
    Ok(consumer)
}

/// All partitions of the shop's topics that are there.
fn partitions(consumer: &BaseConsumer) -> Result<Vec<(String, i32)>> {
    let metadata = consumer.fetch_metadata(None, REQUEST_TIMEOUT)?;
    let topics = metadata.topics().iter().filter(|topic| table_of(topic.name()).is_some());
    Ok(topics.flat_map(|topic| topic.partitions().iter().map(|part| (topic.name().to_owned(), part.id()))).collect())
}

/// Reads until every partition has told its end, once: nobody writes to them.
fn read_to_end(
    consumer: &BaseConsumer,
    assignment: &TopicPartitionList,
    mut visit: impl FnMut(&BorrowedMessage<'_>) -> Result<()>,
) -> Result<()> {
    consumer.assign(assignment)?;
    let (began, mut unread) = (Instant::now(), assignment.count());
    while unread > 0 {
        ensure!(began.elapsed() < END_TIMEOUT, "{unread} partitions could not be read to their end");
        match consumer.poll(POLL_TIMEOUT) {
            Some(Ok(message)) => visit(&message)?,
            Some(Err(KafkaError::PartitionEOF(_))) => unread -= 1,
            Some(Err(error)) => return Err(error.into()),
            None => {}
        }
    }
    Ok(())
}

fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut};
    error
        .rdkafka_error_code()
        .is_some_and(|code| matches!(code, AllBrokersDown | BrokerTransportFailure | OperationTimedOut))
}

fn table_of(topic: &str) -> Option<&'static str> {
    let name = topic.strip_prefix("shop.public.")?;
    TABLES.iter().map(|table| table.name).find(|table| *table == name)
}

struct Reader {
    consumer: BaseConsumer,
    /// The next offset of each partition.
    offsets: BTreeMap<(String, i32), i64>,
    /// How many topics they belong to.
    topics: usize,
    /// The identity of the last event of each partition.
    last: BTreeMap<(&'static str, i32), (u64, u64)>,
    decoder: Decoder,
    seen: Seen,
    show: Show,
    measure: bool,
    /// Lines that are shown as soon as nothing more comes.
    pending: Vec<Line>,
    sample: Sample,
    screen: Screen,
    events: Arc<AtomicU64>,
    outage: Arc<Outage>,
}

/// An event, decoded.
struct Event {
    table: &'static str,
    partition: i32,
    key: Row,
    operation: Operation,
    before: Option<Row>,
    after: Option<Row>,
    identity: Option<(u64, u64)>,
    commit_unix_us: i64,
    /// Of a row that gets another key: the other half's key.
    other_key: Option<String>,
}

impl Reader {
    fn run(mut self, orders: &mpsc::Receiver<Order>) -> Result<Seen> {
        let mut looked_at = None;
        loop {
            match orders.try_recv() {
                Ok(Order::Show(show)) => {
                    self.show = show;
                    self.sample.restart(self.seen.events);
                }
                Ok(Order::Measure) => self.measure = true,
                Ok(Order::Finish) => return self.finish(),
                Err(mpsc::TryRecvError::Empty) => {}
                Err(mpsc::TryRecvError::Disconnected) => bail!("the demo has ended"),
            }
            // pgsluice creates a topic when its table has its first change.
            let due = looked_at.is_none_or(|at: Instant| at.elapsed() > Duration::from_millis(200));
            if due && self.topics < TABLES.len() {
                self.look_for_topics()?;
                looked_at = Some(Instant::now());
            }
            let quiet = !self.poll()?;
            match self.show {
                // The events of a transaction lie in several partitions: once they are all there, they are shown in its order.
                Show::Everything | Show::First if quiet => self.show_pending(),
                Show::Nothing | Show::Everything | Show::First => {}
                Show::Sample => self.sample.tick(self.screen, &self.seen),
            }
        }
    }

    fn look_for_topics(&mut self) -> Result<()> {
        let mut added = TopicPartitionList::new();
        for (topic, partition) in partitions(&self.consumer)? {
            if !self.offsets.contains_key(&(topic.clone(), partition)) {
                added.add_partition_offset(&topic, partition, Offset::Beginning)?;
                self.offsets.insert((topic, partition), 0);
            }
        }
        if added.count() > 0 {
            self.consumer.incremental_assign(&added)?;
        }
        self.topics = self.offsets.keys().map(|(topic, _)| topic).collect::<BTreeSet<_>>().len();
        Ok(())
    }

    /// Takes one record, if there is one.
    fn poll(&mut self) -> Result<bool> {
        // The message borrows the consumer, and what is made of it does not.
        let read = match self.consumer.poll(POLL_TIMEOUT) {
            Some(Ok(message)) => Self::read(&mut self.decoder, &mut self.offsets, &message)?,
            None => return Ok(false),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(true),
            // librdkafka connects again by itself; whoever waits for an event has a bound of its own.
            Some(Err(error)) if is_passing(&error) => return Ok(false),
            Some(Err(error)) => return Err(error).context("reading from Kafka"),
        };
        self.take(read);
        Ok(true)
    }

    fn show_pending(&mut self) {
        self.pending.sort_by_key(|line| line.identity);
        for line in self.pending.drain(..) {
            line.show(self.screen);
        }
    }

    /// What was seen so far may lie before the end of a partition: so each is told its place once more, and tells its end.
    fn finish(mut self) -> Result<Seen> {
        self.look_for_topics()?;
        let mut assignment = TopicPartitionList::new();
        for ((topic, partition), offset) in &self.offsets {
            assignment.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        let mut read = Vec::new();
        let (decoder, offsets) = (&mut self.decoder, &mut self.offsets);
        read_to_end(&self.consumer, &assignment, |message| {
            read.push(Self::read(decoder, offsets, message)?);
            Ok(())
        })?;
        for event in read {
            self.take(event);
        }
        self.seen.ledger.close();
        Ok(self.seen)
    }

    /// An event; none for a tombstone.
    fn read(
        decoder: &mut Decoder,
        offsets: &mut BTreeMap<(String, i32), i64>,
        message: &BorrowedMessage<'_>,
    ) -> Result<Option<Event>> {
        offsets.insert((message.topic().to_owned(), message.partition()), message.offset() + 1);
        let place = || format!("{} partition {} offset {}", message.topic(), message.partition(), message.offset());
        decode(decoder, message).with_context(place)
    }

    fn take(&mut self, read: Option<Event>) {
        let Some(event) = read else {
            self.seen.tombstones += 1;
            return;
        };
        let latency_us = event.identity.map(|_| now_unix_us() - event.commit_unix_us);
        if let Some(latency_us) = latency_us.filter(|_| self.measure) {
            self.latencies_for(event.commit_unix_us).record(latency_us);
        }
        let change = self.fold(&event);
        let is_first = self.seen.tables[event.table].reads == 1;
        let line = Line {
            // Rows of before have none, and are in no order.
            identity: event.identity.unwrap_or_default(),
            kind: Kind { table: event.table, operation: event.operation, of_new_key: event.other_key.is_some() },
            commit_unix_us: event.commit_unix_us,
            key: event.key,
            change,
            latency_us,
        };
        match self.show {
            Show::First if event.operation == Operation::Read && is_first => self.pending.push(line),
            Show::Nothing | Show::First => {}
            Show::Everything => self.pending.push(line),
            Show::Sample => self.sample.offer(self.screen, line),
        }
        self.events.store(self.seen.reads + self.seen.events, Ordering::Release);
    }

    fn latencies_for(&mut self, commit_unix_us: i64) -> &mut Latencies {
        let from = self.outage.from_unix_us.load(Ordering::Acquire);
        let until = self.outage.until_unix_us.load(Ordering::Acquire);
        let in_outage = from != 0 && commit_unix_us >= from && (until == 0 || commit_unix_us <= until);
        if in_outage { &mut self.seen.outage_latencies } else { &mut self.seen.latencies }
    }

    /// Brings the table up to date, checks that the event fits what came before it, and says what it changed.
    fn fold(&mut self, event: &Event) -> String {
        match event.identity {
            Some(identity) => {
                self.seen.events += 1;
                self.seen.ledger.enter(identity);
                let last = self.last.insert((event.table, event.partition), identity);
                if last.is_some_and(|last| last >= identity) {
                    self.seen.report(event, "it comes after a later one");
                }
            }
            None => self.seen.reads += 1,
        }
        let key: Vec<Option<String>> = event.key.iter().map(|(_, value)| value.clone()).collect();
        let table = self.seen.tables.entry(event.table).or_default();
        let old = match (&event.after, event.operation) {
            (Some(after), Operation::Read | Operation::Create | Operation::Update) => {
                table.rows.insert(key, after.clone())
            }
            _ => table.rows.remove(&key),
        };
        match event.operation {
            Operation::Read => table.reads += 1,
            Operation::Create => table.creates += 1,
            Operation::Update => table.updates += 1,
            Operation::Delete => table.deletes += 1,
        }
        if old.is_some() == matches!(event.operation, Operation::Read | Operation::Create) {
            let what = if old.is_some() { "there is such a row already" } else { "there is no such row" };
            self.seen.report(event, what);
        }
        // Under REPLICA IDENTITY FULL the event has the whole row as it was; otherwise the key alone, and we remember.
        let full = event.before.as_ref().filter(|before| before.len() > event.key.len());
        if let (Some(full), Some(old)) = (full, &old)
            && event.operation == Operation::Update
            && full != old
        {
            self.seen.report(event, "its before is not what was there");
        }
        describe(event, old.as_ref().or(full))
    }
}

fn describe(event: &Event, before: Option<&Row>) -> String {
    let is_key = |name: &str| event.key.iter().any(|(key, _)| key == name);
    let without_key = |row: &Row| row.iter().filter(|(name, _)| !is_key(name)).cloned().collect::<Row>();
    match (event.operation, &event.other_key) {
        (Operation::Delete, Some(key)) => format!("its key becomes {key}"),
        (Operation::Create, Some(key)) => format!("its key was {key}"),
        (Operation::Read, _) | (Operation::Create, None) => {
            row_text(&without_key(event.after.as_ref().unwrap_or(&Row::new())), "=")
        }
        (Operation::Delete, None) => {
            let was = before.map(|row| row_text(&without_key(row), "=")).unwrap_or_default();
            format!("was {was}")
        }
        (Operation::Update, _) => {
            let (Some(before), Some(after)) = (before, &event.after) else { return String::new() };
            let changed = before.iter().zip(after).filter(|(before, after)| before != after);
            let text = |value: &Option<String>| value_text(value.as_deref());
            let change =
                |(before, after): (&Column, &Column)| format!("{}: {} → {}", before.0, text(&before.1), text(&after.1));
            let changes = changed.map(change).collect::<Vec<_>>().join(", ");
            if changes.is_empty() { "written again with the same values".to_owned() } else { changes }
        }
    }
}

fn decode(decoder: &mut Decoder, message: &BorrowedMessage<'_>) -> Result<Option<Event>> {
    let table = table_of(message.topic()).context("a topic that is not the shop's")?;
    let key = decoder.decode(message.key().context("it has no key")?).context("key")?.row()?;
    let Some(payload) = message.payload() else { return Ok(None) };
    let mut envelope = decoder.decode(payload).context("value")?;
    let operation = match envelope.take_text("op")?.as_deref() {
        Some("r") => Operation::Read,
        Some("c") => Operation::Create,
        Some("u") => Operation::Update,
        Some("d") => Operation::Delete,
        other => bail!("op is {other:?}"),
    };
    let identity = match (operation, envelope.take_record("transaction")?) {
        (Operation::Read, None) => None,
        (Operation::Read, Some(_)) => bail!("a row of before belongs to a transaction"),
        (_, transaction) => Some(identity(transaction.context("it has no transaction")?)?),
    };
    let mut source = envelope.take_record("source")?.context("it has no source")?;
    let header = |name: &str| -> Result<Option<String>> {
        let header = message.headers().and_then(|headers| headers.iter().find(|header| header.key == name));
        header.and_then(|header| header.value).map(key_text).transpose()
    };
    let other_key = header("__debezium.newkey")?.or(header("__debezium.oldkey")?);
    Ok(Some(Event {
        table,
        partition: message.partition(),
        key,
        operation,
        before: envelope.take_record("before")?.map(Fields::row).transpose()?,
        after: envelope.take_record("after")?.map(Fields::row).transpose()?,
        identity,
        commit_unix_us: source.take_number("ts_us")?,
        other_key,
    }))
}

fn identity(mut transaction: Fields) -> Result<(u64, u64)> {
    let id = transaction.take_text("id")?.context("its transaction has no id")?;
    let (_, commit_lsn) = id.split_once(':').with_context(|| format!("its transaction's id is {id}"))?;
    Ok((commit_lsn.parse()?, u64::try_from(transaction.take_number("total_order")?)?))
}

/// The headers about a change of the key hold the other key as JSON.
fn key_text(json: &[u8]) -> Result<String> {
    let key: serde_json::Map<String, Json> = serde_json::from_slice(json).context("a key in a header")?;
    let text = |value: Json| if let Json::String(text) = value { text } else { value.to_string() };
    Ok(row_text(&key.into_iter().map(|(name, value)| (name, Some(text(value)))).collect(), "="))
}

impl Seen {
    fn new() -> Self {
        Self {
            tables: TABLES.iter().map(|table| (table.name, Table::default())).collect(),
            reads: 0,
            events: 0,
            tombstones: 0,
            latencies: Latencies::new(),
            outage_latencies: Latencies::new(),
            ledger: Ledger::default(),
            wrong: None,
            wrong_count: 0,
        }
    }

    fn report(&mut self, event: &Event, what: &str) {
        self.wrong_count += 1;
        let Event { operation, table, key, identity, .. } = event;
        self.wrong.get_or_insert_with(|| {
            let place = identity.map_or("before the stream".to_owned(), |identity| format!("at {identity:?}"));
            format!("{} of {table} {} {place}: {what}", operation.word(), row_text(key, "="))
        });
    }
}
