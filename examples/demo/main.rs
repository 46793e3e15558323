//! The demo: a shop's database under live traffic, pgsluice as it is, and an independent reader of what arrives in Kafka.
//!
//! `make demo` builds it and runs it against servers of its own. In the order of reading:
//!
//! - this file: the script, and the summary;
//! - [`shop`]: tables, people, and how many events there have to be;
//! - [`program`]: pgsluice as a child process;
//! - [`consumer`], [`avro`], [`ledger`]: the reader, which shares no code with pgsluice;
//! - [`check`]: the reader's tables against PostgreSQL's;
//! - [`screen`], [`sample`]: what is shown; [`latency`], [`http`]: the rest.

mod avro;
mod check;
mod consumer;
mod http;
mod latency;
mod ledger;
mod program;
mod sample;
mod screen;
mod shop;

use std::{
    env,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    consumer::{Consumer, Seen, Show},
    program::{Program, Servers, Usage},
    screen::{Screen, Style, clock, duration, now_unix_us, number},
    shop::{Shop, TABLES, Traffic},
};

const WRITERS: u64 = 6;
const STEPS: u32 = 6;
/// Live traffic before the kill, and after it.
const TRAFFIC: [Duration; 2] = [Duration::from_secs(11), Duration::from_secs(9)];
/// How long a writer rests between two transactions. An endless demo is slower: Kafka keeps for days what it was sent.
const REST_MAX: Duration = Duration::from_millis(50);
const REST_MAX_FOREVER: Duration = Duration::from_millis(200);
/// For how long nobody starts pgsluice again.
const DOWN_TIME: Duration = Duration::from_secs(2);
/// How long before a kill a commit may lie and still belong to a Kafka transaction that is lost: `kafka.transaction.max_age`, and a bit.
const UNFINISHED_MAX: Duration = Duration::from_millis(400);
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(20);
/// Pauses in the story of one order, for the reader's sake.
const PAUSE: Duration = Duration::from_millis(700);
/// The exit code of a shell's command that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    // One thread runs this function for its whole life: the child asks the kernel to die with the thread that has started it.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let outcome = runtime.block_on(async {
        let arguments = Arguments::parse()?;
        let mut demo = Demo::begin(&arguments)?;
        demo.run(&arguments).await
    });
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    println!("\nThe demo has failed: {error:#}");
    ExitCode::FAILURE
}

struct Arguments {
    pgsluice: PathBuf,
    forever: bool,
}

impl Arguments {
    fn parse() -> Result<Self> {
        let (mut pgsluice, mut forever, mut arguments) = (None, false, env::args_os().skip(1));
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--pgsluice") => pgsluice = arguments.next().map(PathBuf::from),
                Some("--forever") => forever = true,
                _ => bail!("unknown argument {}; known: --pgsluice FILE, --forever", argument.display()),
            }
        }
        Ok(Self { pgsluice: pgsluice.context("--pgsluice FILE is missing: `make demo` gives it")?, forever })
    }
}

struct Demo {
    screen: Screen,
    servers: Servers,
    folder: PathBuf,
    versions: [String; 2],
    stop: watch::Receiver<bool>,
}

/// What the summary is made of.
struct Outcome {
    seen: Seen,
    usage: Usage,
    traffic: Duration,
    traffic_events: u64,
    traffic_transactions: u64,
    outages: u32,
}

impl Demo {
    fn begin(arguments: &Arguments) -> Result<Self> {
        let variable = |name: &str| {
            env::var(format!("PGSLUICE_TEST_{name}"))
                .with_context(|| format!("PGSLUICE_TEST_{name} is not set: `make demo` starts the servers first"))
        };
        let servers = Servers {
            postgres_url: with_user_at_the_end(&variable("POSTGRES_SOCKET_URL")?),
            kafka: variable("KAFKA_BOOTSTRAP_SERVERS")?,
        };
        let folder = PathBuf::from(variable("STACK_FOLDER")?).join("demo");
        let versions = [variable("POSTGRES_VERSION")?, variable("KAFKA_VERSION")?];
        let demo = Self { screen: Screen::detect(), servers, folder, versions, stop: listen_for_signals()? };
        demo.introduce(arguments.forever);
        Ok(demo)
    }

    fn introduce(&self, forever: bool) {
        let [postgres, kafka] = &self.versions;
        let title = self
            .screen
            .paint(Style::Bold, "pgsluice: every row and every committed change in PostgreSQL is one record in Kafka");
        let kill = if forever {
            "  5  go on until you press Ctrl-C; kill pgsluice yourself if you like"
        } else {
            "  5  in the middle of it, kill pgsluice (kill -9), and start it again"
        };
        println!(
            "\n{title}

  a web shop ──▶ PostgreSQL {postgres} ──▶ pgsluice ──▶ Kafka {kafka} ──▶ this screen
  {WRITERS} writers                                 ▲                     an ordinary consumer,
                                            └───── schemas ────── which sees only what is committed

What happens now{}:
  1  open the shop, with {} full of rows
  2  start pgsluice: it copies the rows that are there, and streams what changes from here on
  3  follow one order through its life, event by event
  4  let {WRITERS} writers loose at once: they order, pay, change, cancel, and roll back
{kill}
  6  stop, and compare: the tables in PostgreSQL with what the consumer has, row by row",
            if forever { "" } else { ", in about 40 seconds" },
            TABLES.map(|table| table.name).join(", "),
        );
    }

    async fn run(&mut self, arguments: &Arguments) -> Result<ExitCode> {
        let screen = self.screen;
        screen.step(1, STEPS, "The shop, as it was before pgsluice");
        let shop = Shop::open(&self.servers.postgres_url).await?;
        shop.stock().await?;
        screen.tell(&format!(
            "{} rows in {} tables, written before there is a replication slot: no log of them is kept for anybody",
            number(shop.tally.rows_before()),
            TABLES.len()
        ));

        screen.step(2, STEPS, "pgsluice run");
        let mut program = Program::start(&arguments.pgsluice, &self.folder, &self.servers)?;
        let consumer = Consumer::start(&self.servers.kafka, &program.http, screen)?;
        let outcome = self.stream(arguments, &shop, &mut program, consumer).await;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => bail!("{error:#}\n\nThe end of pgsluice's log:\n{}", program.log_end()),
        };
        self.summarise(&shop, &outcome);
        let good = self.check(&shop, &outcome).await?;
        self.point_on(arguments, outcome.outages, good);
        Ok(match (good, *self.stop.borrow() && !arguments.forever) {
            (false, _) => ExitCode::FAILURE,
            (true, true) => ExitCode::from(INTERRUPTED),
            (true, false) => ExitCode::SUCCESS,
        })
    }

    async fn stream(
        &mut self,
        arguments: &Arguments,
        shop: &Shop,
        program: &mut Program,
        consumer: Consumer,
    ) -> Result<Outcome> {
        let screen = self.screen;
        let began = Instant::now();
        program.ready().await?;
        let took = duration(i64::try_from(began.elapsed().as_micros())?);
        screen.tell(&format!(
            "process {}, streaming after {took}; it has made its slot and its publication",
            program.pid()
        ));
        screen.tell(&format!("configuration {}", program.config.display()));
        screen.tell(&format!("metrics       http://{}/metrics", program.http));
        screen.tell("It copies the rows that are there, beside the stream. The first of each table, as the consumer reads them:");
        screen.event_head();
        consumer.show(Show::First);
        consumer.wait_for(shop.tally.all(), ARRIVAL_TIMEOUT).await?;
        let copied = duration(i64::try_from(began.elapsed().as_micros())?);
        self.pause(PAUSE).await;
        consumer.show(Show::Nothing);
        screen.tell(&format!(
            "all {} rows of before are in Kafka, {copied} after the start; the shop could have gone on selling meanwhile",
            number(shop.tally.rows_before())
        ));

        screen.step(3, STEPS, "One order, event by event");
        self.tell_story(shop, &consumer).await?;

        screen.step(4, STEPS, &format!("Live traffic: {WRITERS} writers at once; a few of the events, to read along"));
        screen.event_head();
        let (began, events, transactions) =
            (Instant::now(), shop.tally.events(), shop.tally.transactions.load(Ordering::Acquire));
        consumer.measure();
        consumer.show(Show::Sample);
        let traffic = shop.open_doors(WRITERS, if arguments.forever { REST_MAX_FOREVER } else { REST_MAX }).await?;
        let outages = self.let_it_run(arguments.forever, &traffic, program, &consumer, shop).await?;
        traffic.stop().await?;
        let (elapsed, traffic_events) = (began.elapsed(), shop.tally.events() - events);

        screen.step(6, STEPS, "Stop, and compare");
        consumer.show(Show::Nothing);
        if let Err(error) = consumer.wait_for(shop.tally.all(), ARRIVAL_TIMEOUT).await {
            // The comparison tells more about what is missing.
            screen.verdict(false, &format!("{error:#}"));
        }
        let usage = program.usage()?;
        let took = program.stop().await?;
        let took = duration(i64::try_from(took.as_micros())?);
        screen.tell(&format!("the writers have stopped; pgsluice was asked to end (SIGTERM) and did, in {took}"));
        Ok(Outcome {
            seen: tokio::task::spawn_blocking(move || consumer.finish()).await??,
            usage,
            traffic: elapsed,
            traffic_events,
            traffic_transactions: shop.tally.transactions.load(Ordering::Acquire) - transactions,
            outages,
        })
    }

    /// One order through its life, with the events that each transaction leads to.
    async fn tell_story(&mut self, shop: &Shop, consumer: &Consumer) -> Result<()> {
        let screen = self.screen;
        let mut writer = shop.writer(1000).await?;
        screen.tell("Each line is one record in Kafka, decoded. Its latency: from the commit in PostgreSQL until it was read here.");
        screen.event_head();
        consumer.show(Show::Everything);
        screen.tell("Somebody orders. One transaction: the order, its lines, and the stock.");
        writer.place().await?;
        self.arrived(shop, consumer).await?;
        screen.tell("It is paid.");
        writer.pay().await?;
        self.arrived(shop, consumer).await?;
        screen.tell("One more of the first thing.");
        writer.change_quantity().await?;
        self.arrived(shop, consumer).await?;
        screen.tell("Another order, but its transaction is rolled back: no event, now or later.");
        writer.think_better_of_it().await?;
        self.arrived(shop, consumer).await?;
        screen.tell(
            "The first line gets another number. That is part of its key, so the old key ends and a new one begins.",
        );
        writer.move_line().await?;
        self.arrived(shop, consumer).await?;
        screen.tell("The order is cancelled: everything of it is deleted.");
        writer.cancel().await?;
        self.arrived(shop, consumer).await?;
        consumer.show(Show::Nothing);
        Ok(())
    }

    async fn arrived(&mut self, shop: &Shop, consumer: &Consumer) -> Result<()> {
        consumer.wait_for(shop.tally.all(), ARRIVAL_TIMEOUT).await?;
        self.pause(PAUSE).await;
        Ok(())
    }

    /// Steps 4 and 5. Returns how often pgsluice was down.
    async fn let_it_run(
        &mut self,
        forever: bool,
        _traffic: &Traffic,
        program: &mut Program,
        consumer: &Consumer,
        shop: &Shop,
    ) -> Result<u32> {
        if forever {
            return self.until_interrupted(program, consumer, shop).await;
        }
        let [before, after] = TRAFFIC;
        self.pause(before).await;
        if *self.stop.borrow() {
            return Ok(0);
        }
        self.screen.step(5, STEPS, "kill -9, in the middle of it");
        program.kill().await?;
        self.outage(program, consumer, shop).await?;
        self.pause(after).await;
        Ok(1)
    }

    /// Whoever watches may kill pgsluice; it is started again.
    async fn until_interrupted(&mut self, program: &mut Program, consumer: &Consumer, shop: &Shop) -> Result<u32> {
        let invitation =
            |program: &Program| format!("Ctrl-C ends it. Meanwhile, in another terminal: kill -9 {}", program.pid());
        self.screen.step(5, STEPS, &invitation(program));
        let mut outages = 0;
        while !*self.stop.borrow() {
            if let Some(status) = program.ended()? {
                self.screen.tell(&format!("pgsluice has ended ({status})"));
                self.outage(program, consumer, shop).await?;
                self.screen.tell(&invitation(program));
                outages += 1;
            }
            // It may be killed at any moment. If it is gone just now, the next round finds that out.
            let _may_be_gone = program.usage();
            self.pause(Duration::from_millis(500)).await;
        }
        Ok(outages)
    }

    /// pgsluice is gone, and the shop does not know.
    async fn outage(&mut self, program: &mut Program, consumer: &Consumer, shop: &Shop) -> Result<()> {
        let screen = self.screen;
        consumer.outage_begins(UNFINISHED_MAX);
        consumer.show(Show::Sample);
        let (from, seen) = (shop.tally.events(), consumer.events());
        let gone = format!(
            "{}  killed. What it had not committed in Kafka is lost with it; the shop goes on.",
            clock(now_unix_us())
        );
        println!("  {}", screen.paint(Style::Red, &gone));
        tokio::time::sleep(DOWN_TIME).await;
        let waiting = shop.tally.events() - from;
        program.start_again()?;
        screen.tell(&format!(
            "{}  started again, as process {}. {} events wait; it reads its place from Kafka, and goes on from there.",
            clock(now_unix_us()),
            program.pid(),
            number(waiting),
        ));
        program.ready().await?;
        consumer.wait_for(shop.tally.all(), ARRIVAL_TIMEOUT).await?;
        consumer.outage_ends();
        screen.tell(&format!(
            "{}  caught up: {} events since the kill. The check at the end tells whether one is missing, or there twice.",
            clock(now_unix_us()),
            number(consumer.events() - seen),
        ));
        Ok(())
    }

    /// Waits, unless it was asked to stop.
    async fn pause(&mut self, time: Duration) {
        let asked = self.stop.wait_for(|asked| *asked);
        let _either_is_fine = tokio::time::timeout(time, asked).await;
    }

    fn summarise(&self, shop: &Shop, outcome: &Outcome) {
        let Outcome { seen, usage, traffic, .. } = outcome;
        let screen = self.screen;
        println!();
        let columns = |name: &str, columns: [&str; 5]| {
            format!("  {name:<12}{}", columns.map(|column| format!(" {column:>9}")).concat())
        };
        let head = columns("events", ["read", "create", "update", "delete", "all"]);
        println!("{}", screen.paint(Style::Bold, &head));
        let mut sums = [0; 4];
        let line = |name: &str, counts: [u64; 4]| {
            let all = number(counts.iter().sum());
            let [reads, creates, updates, deletes] = counts.map(number);
            println!("{}", columns(name, [&reads, &creates, &updates, &deletes, &all]));
        };
        for info in &TABLES {
            let table = &seen.tables[info.name];
            let counts = [table.reads, table.creates, table.updates, table.deletes];
            sums = [0, 1, 2, 3].map(|index| sums[index] + counts[index]);
            line(info.name, counts);
        }
        line("all", sums);

        let seconds = traffic.as_secs_f64();
        let per_second = |count: u64| number(round(to_float(count) / seconds));
        println!();
        let say = |name: &str, text: &str| println!("  {} {text}", screen.paint(Style::Bold, &format!("{name:<12}")));
        say(
            "traffic",
            &format!(
                "{} events a second, of {} transactions a second, for {seconds:.0} s",
                per_second(outcome.traffic_events),
                per_second(outcome.traffic_transactions),
            ),
        );
        say(
            "latency",
            &format!(
                "p50 {}, p99 {}, from the commit in PostgreSQL until the consumer has the event",
                duration(seen.latencies.quantile_us(0.5)),
                duration(seen.latencies.quantile_us(0.99)),
            ),
        );
        if outcome.outages > 0 {
            say(
                "",
                &format!(
                    "up to {} for the {} events around the kill; they are not in the line above",
                    duration(seen.outage_latencies.max_us),
                    number(seen.outage_latencies.count),
                ),
            );
        }
        let lives = if outcome.outages > 0 { ", all its lives together" } else { "" };
        say(
            "pgsluice",
            &format!(
                "{:.2} s of CPU{lives}: {:.0} ms per 1,000 events; {} MiB of memory at most",
                usage.cpu_seconds,
                usage.cpu_seconds * 1e6 / to_float((seen.reads + seen.events).max(1)),
                usage.peak_memory_kib / 1024,
            ),
        );
        say(
            "Kafka",
            &format!(
                "{} transactions, about {} events each; {} tombstones, one after each delete",
                number(usage.kafka_transactions),
                (seen.reads + seen.events) / usage.kafka_transactions.max(1),
                number(seen.tombstones),
            ),
        );
        let undone = shop.tally.undone.load(Ordering::Acquire);
        let rolled_back = shop.tally.rolled_back.load(Ordering::Acquire);
        say(
            "PostgreSQL",
            &format!(
                "{} transactions committed; {} rolled back, and {} row changes with them or to a savepoint",
                number(shop.tally.transactions.load(Ordering::Acquire)),
                number(rolled_back),
                number(undone),
            ),
        );
    }

    /// Whether everything is as promised, with a line for each promise.
    async fn check(&self, shop: &Shop, outcome: &Outcome) -> Result<bool> {
        let Outcome { seen, .. } = outcome;
        let screen = self.screen;
        println!("\n{}", screen.paint(Style::Bold, "Is Kafka what PostgreSQL is?"));
        let client = shop::connect(&self.servers.postgres_url).await?;
        let mut good = true;
        let mut verdict = |holds: bool, text: &str| {
            good &= holds;
            screen.verdict(holds, text);
        };
        for info in &TABLES {
            let comparison = check::compare(&client, info, &seen.tables[info.name]).await?;
            let (rows, columns) = (number(comparison.rows as u64), comparison.columns);
            let what = format!(
                "{:<12} {rows:>6} rows of {columns} columns: the topic, folded by key, is the table",
                info.name
            );
            match comparison.difference {
                None => verdict(true, &what),
                Some(difference) => {
                    verdict(false, &format!("{what}, but for {} rows:\n{difference}", comparison.differences));
                }
            }
        }
        let rows_before = shop.tally.rows_before();
        verdict(
            seen.reads == rows_before,
            &format!(
                "{} rows of before were read for {} that were there: each once",
                number(seen.reads),
                number(rows_before)
            ),
        );
        let expected = shop.tally.events();
        let key_changes = number(shop.tally.key_changes.load(Ordering::Acquire));
        verdict(
            seen.events == expected,
            &format!(
                "{} changes for {} expected: what the writers committed ({key_changes} changes of a key count twice), and nothing else",
                number(seen.events),
                number(expected),
            ),
        );
        let (transactions, ledger) = (number(seen.ledger.transactions()), &seen.ledger);
        verdict(
            ledger.twice == 0,
            &match ledger.twice {
                0 => "no change came twice: each identity (commit LSN, ordinal in the transaction) is there once"
                    .to_owned(),
                twice => format!("{} events came twice", number(twice)),
            },
        );
        verdict(
            ledger.incomplete == 0,
            &match ledger.incomplete {
                0 => format!("all {transactions} transactions are whole: no ordinal is left out"),
                incomplete => format!("{} of {transactions} transactions lack an event", number(incomplete)),
            },
        );
        verdict(
            seen.wrong_count == 0,
            &match &seen.wrong {
                None => "no event came out of order: each fits the row that it changes".to_owned(),
                Some(first) => format!("{} events are out of place; the first: {first}", number(seen.wrong_count)),
            },
        );
        if outcome.outages > 0 {
            let kafka = self.servers.kafka.clone();
            let records = tokio::task::spawn_blocking(move || consumer::count_uncommitted(&kafka)).await??;
            match records.saturating_sub(seen.reads + seen.events + seen.tombstones) {
                0 => screen.tell("      The kill happened to leave no record in Kafka without its commit."),
                aborted => screen.tell(&format!(
                    "      The kill left {} records in Kafka without their commit: written again after the restart, and never \
                     shown to a consumer that reads only what is committed.",
                    number(aborted),
                )),
            }
        }
        Ok(good)
    }

    fn point_on(&self, arguments: &Arguments, outages: u32, good: bool) {
        let verdict = if good {
            let through = if outages > 0 { ", although pgsluice was killed" } else { "" };
            self.screen.paint(
                Style::Green,
                &format!("Every row of before and every change since, once and in order{through}."),
            )
        } else {
            self.screen.paint(Style::Red, "The check has FAILED: see above.")
        };
        println!("\n{verdict}\n\nWhere to look next");
        for (command, what) in [
            ("make demo-forever", "the same without an end, and you do the killing"),
            ("make test", "the proof: every fault that we could think of, against real servers"),
            ("make bench", "how fast it drains a backlog, beside PostgreSQL's own limit"),
            ("README.md, ARCHITECTURE.md", "the guarantee, configuration, metrics; how a row travels"),
        ] {
            println!("  {command:<32} {what}");
        }
        println!("  {:<32} a commented configuration\n", format!("{} config", relative(&arguments.pgsluice)));
    }
}

/// A URL of a Unix socket has no host, and so no place for a user before it.
fn with_user_at_the_end(url: &str) -> String {
    match url.strip_prefix("postgres://").and_then(|rest| rest.split_once("@/")) {
        Some((user, rest)) => format!("postgres:///{rest}&user={user}"),
        None => url.to_owned(),
    }
}

fn relative(path: &std::path::Path) -> String {
    let folder = env::current_dir().unwrap_or_default();
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}

#[expect(clippy::cast_precision_loss, reason = "counts of a demo are far below 2^52")]
fn to_float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive, and small")]
fn round(rate: f64) -> u64 {
    rate.round() as u64
}

/// The first Ctrl-C or SIGTERM ends the demo in order, with its check; a second one at once.
fn listen_for_signals() -> Result<watch::Receiver<bool>> {
    let (ask, stop) = watch::channel(false);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if ask.send_replace(true) {
                println!("\nStopping at once.");
                std::process::exit(i32::from(INTERRUPTED));
            }
            println!("\nStopping: the writers first, then the check. Once more stops at once.");
        }
    });
    Ok(stop)
}
