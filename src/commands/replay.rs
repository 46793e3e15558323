//! `pgsluice replay`

use std::{
    cell::{Cell, RefCell},
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{ArgGroup, Args, ValueEnum};
use encoder::decode::Value;
use pgoutput::Lsn;
use publisher::{CheckpointTopic, FetchedRecord, Isolation, KafkaSettings, TopicAdmin};
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
};

use super::{ConfigFile, init_logging, runtime};
use crate::{
    config::{Config, Transaction},
    failure::{Code, Failure},
    pipeline::{kafka_settings, look_at_kafka},
    replay::{
        copy::{self, Asked, Chosen, Copy, Outcome},
        decode::{Decoded, Decoder, Unknown},
        moment::Moment,
        position::Position,
        predicate::{Fields, KeyFilter, Predicate},
        progress::Progress,
        range::{Point, Range, Resolver},
        reading::{self, Read, Span, Stop, Then, failure},
        reset::Reset,
        show::{self, Table},
    },
    schemas::Schemas,
};

const EXAMPLES: &str = "\
A range has its first point in it and its last one not, and ends where the topic ended when the command was started. Neither PostgreSQL nor a \
running stream is needed, or disturbed.

Examples:
  pgsluice replay shop.public.orders --from-lsn 0/16B3748 --where \"after.status = 'paid' and op in (c, u)\"
  pgsluice replay shop.public.orders --from-time '2h ago' --key id=7 --output json | jq .value.after
  pgsluice replay shop.public.orders --from-beginning --to-topic orders-copy
  pgsluice replay shop.public.orders --from-time 2026-11-24T15:54:00Z --reset-group billing";

/// Show records of topics from a point on, pass them on to another topic, or have a consumer group begin there.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("from").required(true).args(["from_beginning", "from_end", "from_offset", "from_time", "from_lsn"]))]
#[command(group = ArgGroup::new("to").args(["to_offset", "to_time", "to_lsn"]))]
pub(super) struct ReplayCommand {
    #[command(flatten)]
    config: ConfigFile,
    /// The topics.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,

    /// All that there is.
    #[arg(long, help_heading = "From")]
    from_beginning: bool,
    /// What comes from now on: with --follow, or for a group.
    #[arg(long, help_heading = "From")]
    from_end: bool,
    /// From this offset on, in each partition.
    #[arg(long, value_name = "N", help_heading = "From")]
    from_offset: Option<i64>,
    /// From the first record on that is of this time or later: 2026-11-24T15:54:40Z, or "2h ago".
    #[arg(long, value_name = "TIME", help_heading = "From")]
    from_time: Option<String>,
    /// From the first record on that committed there or later: 0/16B3748, or the number that a record has.
    #[arg(long, value_name = "LSN", help_heading = "From")]
    from_lsn: Option<String>,
    /// Not this offset and what is behind it.
    #[arg(long, value_name = "N", help_heading = "To")]
    to_offset: Option<i64>,
    /// Not what is of this time or later.
    #[arg(long, value_name = "TIME", help_heading = "To")]
    to_time: Option<String>,
    /// Not what committed there or later.
    #[arg(long, value_name = "LSN", help_heading = "To")]
    to_lsn: Option<String>,
    /// Go on with what comes, until it is stopped.
    #[arg(long, conflicts_with = "to", help_heading = "To")]
    follow: bool,
    /// No more than so many records.
    #[arg(long, value_name = "N", conflicts_with_all = ["to_topic", "reset_group"], help_heading = "To")]
    limit: Option<u64>,

    /// Only these partitions.
    #[arg(long, value_name = "N", help_heading = "Which")]
    partition: Vec<i32>,
    /// Only records of this key: id=7 for one of its fields, given again for another, or the whole key as JSON.
    #[arg(long, value_name = "KEY", help_heading = "Which")]
    key: Vec<String>,
    /// Only records that meet this condition.
    #[arg(long = "where", value_name = "CONDITION", help_heading = "Which")]
    condition: Option<String>,
    /// Which records are seen.
    #[arg(long, value_enum, default_value_t = Seen::ReadCommitted, help_heading = "Which")]
    isolation: Seen,
    /// Take what there is where records of the range may be gone.
    #[arg(long, help_heading = "Which")]
    allow_gone: bool,

    /// How records are shown: a table for people, or lines of JSON for programs.
    #[arg(long, value_enum, default_value_t = Output::Table, conflicts_with_all = ["to_topic", "reset_group"], help_heading = "What becomes of them")]
    output: Output,
    /// Do not decode them: keys and values are shown in base64.
    #[arg(long, conflicts_with_all = ["key", "condition", "to_topic", "reset_group"], help_heading = "What becomes of them")]
    raw: bool,
    /// Write them to this topic, each once. Run again, it goes on where it was.
    #[arg(long, value_name = "TOPIC", help_heading = "What becomes of them")]
    to_topic: Option<String>,
    /// Write behind what the topic has already, such as records of another replay.
    #[arg(long, requires = "to_topic", help_heading = "What becomes of them")]
    append: bool,
    /// Write their keys and values as JSON.
    #[arg(long, requires = "to_topic", help_heading = "What becomes of them")]
    as_json: bool,
    /// The name under which --to-topic remembers how far it is; the topic's, unless one is given.
    #[arg(long, requires = "to_topic", help_heading = "What becomes of them")]
    name: Option<String>,
    /// Have this consumer group go on where the range begins. Tells what it would be, unless --yes is given too.
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["to_topic", "to", "follow", "key", "condition"], help_heading = "What becomes of them")]
    reset_group: Option<String>,
    /// With --reset-group: do it.
    #[arg(long, requires = "reset_group", help_heading = "What becomes of them")]
    yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Seen {
    /// Those that were committed.
    ReadCommitted,
    /// Those that were aborted, or are not decided, too.
    ReadUncommitted,
}

impl From<Seen> for Isolation {
    fn from(seen: Seen) -> Self {
        match seen {
            Seen::ReadCommitted => Self::Committed,
            Seen::ReadUncommitted => Self::Uncommitted,
        }
    }
}

impl ReplayCommand {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let config = self.config.load()?;
        init_logging(&config);
        let range = self.range()?;
        let filter = Filter::new(&self.key, self.condition.as_deref())?;
        self.refuse_target(&config)?;
        let runtime = runtime()?;
        let outcome = runtime.block_on(async move {
            let stop = Stop::default();
            stop_on_signals(&stop)?;
            look_at_kafka(&config).await?;
            let handle = Handle::current();
            let replay = move || Replay::new(self, &config, range, filter, stop, &handle)?.run();
            match tokio::task::spawn_blocking(replay).await {
                Ok(outcome) => outcome,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        });
        // A blocking call to Kafka may outlast a failure; nothing that it could still do counts.
        runtime.shutdown_background();
        outcome.map(|()| ExitCode::SUCCESS)
    }

    fn range(&self) -> Result<Range, Failure> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Moment(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        let point = |offset: Option<i64>, time: Option<&str>, lsn: Option<&str>| {
            let wrong = |found: String| Failure::new(Code::ArgumentInvalid, found);
            Ok(match (offset, time, lsn) {
                (Some(offset), ..) if offset < 0 => return Err(wrong(format!("{offset} is no offset"))),
                (Some(offset), ..) => Some(Point::Offset(offset)),
                (_, Some(time), _) => Some(Point::Time(Moment::parse(time, now).map_err(wrong)?)),
                (_, _, Some(lsn)) => Some(Point::Lsn(parse_lsn(lsn).map_err(wrong)?)),
                _ => None,
            })
        };
        let from = point(self.from_offset, self.from_time.as_deref(), self.from_lsn.as_deref())?;
        let range = Range {
            from: from.unwrap_or(if self.from_end { Point::End } else { Point::Beginning }),
            to: point(self.to_offset, self.to_time.as_deref(), self.to_lsn.as_deref())?,
            partitions: self.partition.clone(),
            is_endless: self.follow,
            is_content_with_less: self.allow_gone,
        };
        range.refuse_backwards()?;
        Ok(range)
    }

    /// The range as it was written: of a relative time the second run has another. That less will do may be said later on, and is none of it.
    fn range_words(&self) -> String {
        let mut words = Vec::new();
        for (name, is_given) in
            [("from-beginning", self.from_beginning), ("from-end", self.from_end), ("follow", self.follow)]
        {
            words.extend(is_given.then(|| format!("--{name}")));
        }
        let number = |offset: Option<i64>| offset.map(|offset| offset.to_string());
        for (name, value) in [
            ("from-offset", number(self.from_offset)),
            ("from-time", self.from_time.clone()),
            ("from-lsn", self.from_lsn.clone()),
            ("to-offset", number(self.to_offset)),
            ("to-time", self.to_time.clone()),
            ("to-lsn", self.to_lsn.clone()),
        ] {
            words.extend(value.map(|value| format!("--{name} {value}")));
        }
        words.join(" ")
    }

    fn refuse_target(&self, config: &Config) -> Result<(), Failure> {
        let Some(target) = &self.to_topic else { return Ok(()) };
        let wrong = |found: &str| Err(Failure::new(Code::ArgumentInvalid, found.to_owned()).for_topic(target));
        let schemas = match &config.schema_registry {
            crate::config::SchemaRegistry::BuiltIn { topic } => Some(topic.as_str()),
            crate::config::SchemaRegistry::Remote(_) => None,
        };
        if self.topics.len() > 1 {
            return wrong("one topic at a time is written to another: run it once for each");
        }
        if self.topics.contains(target) {
            return wrong("a topic cannot be written to itself");
        }
        if *target == *config.kafka.checkpoint_topic.as_str() || schemas == Some(target) {
            return wrong("this is the topic of checkpoints or of schemas");
        }
        Ok(())
    }
}

fn parse_lsn(text: &str) -> Result<Lsn, String> {
    let lsn = match text.parse::<u64>() {
        Ok(number) => Lsn::from(number),
        Err(_) => text.parse().map_err(|error: pgoutput::ParseLsnError| error.to_string())?,
    };
    if lsn.is_valid() { Ok(lsn) } else { Err(format!("{text} is no position: use --from-beginning")) }
}

fn stop_on_signals(stop: &Stop) -> Result<(), Failure> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(|error| Failure::caused(Code::Internal, error))?;
        let stop = stop.clone();
        tokio::spawn(async move {
            signals.recv().await;
            if stop.ask() {
                say("stopped while the range was looked for: nothing was read or written");
                std::process::exit(130);
            }
            // A second one does not wait.
            signals.recv().await;
            std::process::exit(1);
        });
    }
    Ok(())
}

/// Which records are wanted.
struct Filter {
    keys: Vec<KeyFilter>,
    condition: Option<Predicate>,
}

impl Filter {
    fn new(keys: &[String], condition: Option<&str>) -> Result<Self, Failure> {
        let wrong = |option: &str, found: &str| Failure::new(Code::ArgumentInvalid, format!("{option}: {found}"));
        let keys = keys.iter().map(|key| KeyFilter::parse(key).map_err(|found| wrong("--key", &found)));
        let keys = keys.collect::<Result<_, _>>()?;
        let condition = condition.map(|text| Predicate::parse(text).map_err(|found| wrong("--where", &found)));
        Ok(Self { keys, condition: condition.transpose()? })
    }

    fn is_open(&self) -> bool {
        self.keys.is_empty() && self.condition.is_none()
    }

    fn takes(&self, record: &FetchedRecord<'_>, decoded: &Decoded) -> bool {
        let Decoded { key, value, .. } = decoded;
        self.keys.iter().all(|filter| filter.is_met(key))
            && self.condition.as_ref().is_none_or(|condition| {
                let headers: Vec<_> = record.headers().collect();
                condition.is_met(&Fields { key, value, headers: &headers })
            })
    }
}

/// A replay whose arguments are good.
struct Replay {
    command: ReplayCommand,
    range: Range,
    filter: Filter,
    stop: Stop,
    settings: KafkaSettings,
    admin: TopicAdmin,
    decoder: Decoder,
    checkpoint_topic: String,
    replication_factor: i32,
    transaction: Transaction,
}

impl Replay {
    fn new(
        command: ReplayCommand,
        config: &Config,
        range: Range,
        filter: Filter,
        stop: Stop,
        runtime: &Handle,
    ) -> Result<Self, Failure> {
        let settings = kafka_settings(config);
        let schemas = Schemas::new(config, &settings)?;
        // No group is joined, and the stream's name is no one else's.
        let settings =
            settings.named(copy::id(command.name.as_ref().or(command.to_topic.as_ref()).map_or("", |it| it)));
        Ok(Self {
            admin: TopicAdmin::new(&settings, runtime.clone()).map_err(|error| failure(&error))?,
            decoder: Decoder::new(schemas, runtime.clone()),
            checkpoint_topic: config.kafka.checkpoint_topic.as_str().to_owned(),
            replication_factor: config.kafka.topics.replication_factor.map_or(-1, i32::from),
            transaction: config.kafka.transaction.clone(),
            command,
            range,
            filter,
            stop,
            settings,
        })
    }

    fn run(mut self) -> Result<(), Failure> {
        if self.command.to_topic.is_some() {
            return self.copy();
        }
        let spans = self.spans()?;
        if let Some(group) = self.command.reset_group.clone() {
            return self.reset(&group, &spans);
        }
        self.show(&spans)
    }

    fn spans(&mut self) -> Result<Vec<Span>, Failure> {
        let isolation = self.command.isolation.into();
        let mut resolver = Resolver::new(&self.settings, &mut self.decoder, &self.admin, isolation)?;
        let spans = self.stop.idle(|| resolver.spans(&self.command.topics, &self.range))?;
        for remark in &resolver.remarks {
            tracing::warn!("{remark}");
        }
        Ok(spans)
    }

    fn reset(&self, group: &str, spans: &[Span]) -> Result<(), Failure> {
        let reset = Reset::plan(&self.settings, group, spans)?;
        if self.command.yes {
            reset.apply()?;
        }
        print(reset.table().as_bytes())?;
        if self.command.yes {
            say(&format!("the group {group} goes on at NEW"));
        } else {
            say(&format!("nothing was changed: with --yes the group {group} goes on at NEW"));
        }
        Ok(())
    }

    fn show(mut self, spans: &[Span]) -> Result<(), Failure> {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let mut out = Out { to: io::BufWriter::with_capacity(1 << 16, stdout.lock()), is_closed: false };
        let table = Table::new(&self.command.topics, is_terminal.then(show::terminal_width).flatten());
        let mut progress = Progress::new(spans, !is_terminal);
        // A condition that cannot be asked of a record is no condition that is not met.
        let unknown = if self.filter.is_open() { Unknown::Bytes } else { Unknown::Refused };
        let (output, limit) = (self.command.output, self.command.limit.unwrap_or(u64::MAX));
        let (mut line, mut shown, mut seen) = (Vec::new(), 0, 0);
        if output == Output::Table {
            table.head(&mut line);
            out.write(&line)?;
        }
        let (settings, isolation, stop) = (self.settings.clone(), self.command.isolation.into(), self.stop.clone());
        let outcome = if limit == 0 {
            Ok(())
        } else {
            reading::read(&settings, isolation, spans, &stop, &mut |read| {
                let Read::Record(record) = read else {
                    out.flush()?;
                    return Ok(out.then());
                };
                progress.read(record.topic(), record.partition(), record.offset());
                seen += 1;
                let decoded = if self.command.raw { raw(record) } else { self.decoder.decode(record, unknown)? };
                if !self.filter.takes(record, &decoded) {
                    return Ok(Then::GoOn);
                }
                line.clear();
                match output {
                    Output::Table => table.row(record, &decoded, &mut line),
                    Output::Json => show::json_line(record, &decoded, &mut line),
                }
                out.write(&line)?;
                shown += 1;
                Ok(if shown >= limit { Then::Enough } else { out.then() })
            })
        };
        // What was read before a failure is shown.
        let flushed = out.flush();
        drop(progress);
        if !out.is_closed {
            tell(&self.filter, seen, &format!("{shown} of {seen} records shown"));
        }
        outcome.and(flushed)
    }

    fn copy(mut self) -> Result<(), Failure> {
        let command = &self.command;
        let to_topic = command.to_topic.clone().unwrap_or_default();
        let asked = Asked {
            topic: command.topics.first().cloned().unwrap_or_default(),
            to_topic: to_topic.clone(),
            range: command.range_words(),
            partitions: command.partition.clone(),
            keys: command.key.clone(),
            condition: command.condition.clone(),
            isolation: format!("{:?}", command.isolation),
            as_json: command.as_json,
        };
        let (as_json, isolation) = (command.as_json, command.isolation);
        let admin = &self.admin;
        let copy = Copy {
            settings: self.settings.named(copy::id(command.name.as_ref().unwrap_or(&to_topic))),
            reading: self.settings.clone(),
            checkpoint_topic: CheckpointTopic::new(self.checkpoint_topic.as_str()),
            replication_factor: self.replication_factor,
            isolation: isolation.into(),
            asked,
            is_content_with_less: command.allow_gone,
            appends: command.append,
            records_max: self.transaction.max_records,
            bytes_max: self.transaction.max_bytes,
            admin,
            stop: self.stop.clone(),
            shows_progress: true,
        };
        let (filter, range, topics) = (&self.filter, &self.range, &self.command.topics);
        let decoder = RefCell::new(&mut self.decoder);
        let mut spans = || {
            let mut decoder = decoder.borrow_mut();
            let mut resolver = Resolver::new(&copy.reading, &mut decoder, admin, isolation.into())?;
            let spans = copy.stop.idle(|| resolver.spans(topics, range))?;
            resolver.remarks.iter().for_each(|remark| tracing::warn!("{remark}"));
            Ok(spans)
        };
        let seen = Cell::new(0);
        let mut choose = |record: &FetchedRecord<'_>| {
            seen.set(seen.get() + 1);
            if filter.is_open() && !as_json {
                return Ok(Chosen::AsItIs);
            }
            let decoded = decoder.borrow_mut().decode(record, Unknown::Refused)?;
            Ok(match filter.takes(record, &decoded) {
                false => Chosen::No,
                true if as_json => Chosen::AsJson(decoded),
                true => Chosen::AsItIs,
            })
        };
        let Outcome { place, was_done } = copy.run(&mut spans, &mut choose)?;
        let said = match place.is_done {
            true if was_done => {
                "it was complete already, and nothing was done; to do it again, give another --name and another --to-topic"
            }
            true => "complete",
            false => "stopped, and goes on when it is run again",
        };
        tell(filter, seen.get(), &format!("{} of {} records are in {to_topic}: {said}", place.written, place.read));
        Ok(())
    }
}

/// Says what was done, and what may have been mistyped.
fn tell(filter: &Filter, seen: u64, done: &str) {
    say(done);
    if let Some(condition) = &filter.condition
        && seen > 0
    {
        for doubt in condition.doubts() {
            say(&format!("--where: {doubt}"));
        }
    }
}

/// That nobody listens is no failure either.
fn say(line: &str) {
    let _nobody_reads_it = writeln!(io::stderr(), "{line}");
}

/// A record that is not decoded.
fn raw(record: &FetchedRecord<'_>) -> Decoded {
    let bytes = |bytes: Option<&[u8]>| bytes.map_or(Value::Null, |bytes| Value::Bytes(bytes.into()));
    Decoded {
        key: bytes(record.key()),
        value: bytes(record.value()),
        position: Position::of(record.headers(), &Value::Null),
    }
}

fn print(text: &[u8]) -> Result<(), Failure> {
    let mut out = Out { to: io::BufWriter::new(io::stdout().lock()), is_closed: false };
    out.write(text)?;
    out.flush()
}

/// Standard output. That nobody reads it any more is no failure: `head` has seen enough.
struct Out<W: Write> {
    to: io::BufWriter<W>,
    is_closed: bool,
}

impl<W: Write> Out<W> {
    fn write(&mut self, line: &[u8]) -> Result<(), Failure> {
        let outcome = self.to.write_all(line);
        self.heed(outcome)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let outcome = self.to.flush();
        self.heed(outcome)
    }

    fn heed(&mut self, outcome: io::Result<()>) -> Result<(), Failure> {
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(())
            }
            outcome => outcome.map_err(|error| {
                Failure::new(Code::OutputFailed, format!("standard output cannot be written to: {error}"))
            }),
        }
    }

    fn then(&self) -> Then {
        if self.is_closed { Then::Enough } else { Then::GoOn }
    }
}
