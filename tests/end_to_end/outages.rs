//! PostgreSQL, Kafka and the registry are killed under one running program, one at a time. Within 10 s that is seen wherever somebody may
//! look, with the code, the place and the fix: in readiness, in the metrics, in the status that the page shows, and in the log. Once the server is back, so
//! is the stream, by itself, and nothing is lost or doubled.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{
    Answer, http_get,
    oracle::Table,
    random::Random,
    stack::{Lease, Server, Stack},
    stream::{Program, Stream},
    wait_until,
    watcher::Watcher,
    workload::{TABLES, Workload},
};

/// What is documented, with the default configuration.
const REQUIRED: Duration = Duration::from_secs(10);
/// How long it is waited between two looks. What makes the program slow makes the looks slow as well, each of which asks it three times: so it is looks
/// that are counted, and not seconds, and a machine that has other things to do lengthens both. (That the program's own periods add up to less than
/// that, it asserts itself, where they are.)
const PERIOD: Duration = Duration::from_millis(100);
const PERIODS_MAX: u128 = REQUIRED.as_millis() / PERIOD.as_millis();
const BOUND: Duration = Duration::from_secs(30);
const RECOVERY_BOUND: Duration = Duration::from_mins(2);

/// Tables whose first row comes while the registry is away, or after that.
const NEW: &[Table] =
    &[Table { name: "late", key: &["id"], full: false }, Table { name: "later", key: &["id"], full: false }];

#[test]
fn each_outage_is_seen_and_passes_by_itself() {
    let stack = Stack::exclusive();
    let mut random = Random::new(Random::seed_of_run());
    let stream = Stream::create(&stack, "outages");
    Workload::create_tables(&stream);
    stream
        .database
        .create_tables("create table public.late (id int primary key); create table public.later (id int primary key)");
    // Nothing needs the registry before the first row: it is away when the program starts, and that is seen all the same.
    stack.kill(Server::Registry);
    let program = stream.start_ready();
    let began = Instant::now();
    let mut case = Case { stack: &stack, stream: &stream, program, told: Vec::new() };
    let watcher = Watcher::start(&stream);
    case.await_seen(began, &Outage::of(Server::Registry, "at the start", false), &Before::default());
    let workload = Workload::start(&stream, &mut random);
    wait_until(BOUND, "the first row waits for the registry", || {
        case.program.readiness().filter(|answer| answer.status == 503 && answer.body.contains("[registry-unavailable]"))
    });
    case.recover(Server::Registry);

    let nothing = |_: &Stream| {};
    case.outage(&Outage::of(Server::Postgres, "under writers", true), nothing);
    case.outage(&Outage::of(Server::Kafka, "under writers", true), nothing);
    // Every table of the writers is known again by then.
    stream.drain();
    case.outage(&Outage::of(Server::Registry, "when a new table needs it", true), |stream| {
        stream.database.execute("insert into public.late values (1)");
    });
    workload.finish();
    stream.drain();

    case.outage(&Outage::of(Server::Kafka, "where no row comes", true), nothing);
    case.outage(&Outage::of(Server::Registry, "where nothing needs it", false), nothing);
    stream.database.execute("insert into public.later values (1)");
    stream.drain();

    let Case { program, told, .. } = case;
    program.terminate();
    watcher.finish();
    println!("{}", told.join("\n"));
    let tables: Vec<Table> = TABLES.iter().chain(NEW).copied().collect();
    let (_, verdict) = stream.judge(&tables);
    verdict.assert_flawless();
}

/// A server that is killed.
struct Outage {
    server: Server,
    when: &'static str,
    /// Whether the stream waits for it.
    holds_up: bool,
    code: &'static str,
}

impl Outage {
    fn of(server: Server, when: &'static str, holds_up: bool) -> Self {
        let code = match server {
            Server::Postgres => "postgres-unavailable",
            Server::Kafka => "kafka-unavailable",
            Server::Registry => "registry-unavailable",
        };
        Self { server, when, holds_up, code }
    }
}

/// How it was before.
#[derive(Default)]
struct Before {
    errors: f64,
    log_bytes: usize,
}

struct Case<'a> {
    stack: &'a Lease,
    stream: &'a Stream,
    program: Program,
    /// After how long each outage was seen.
    told: Vec<String>,
}

impl Case<'_> {
    /// Kills a server, and does something that needs it perhaps; waits until that is seen; and starts it again.
    fn outage(&mut self, outage: &Outage, meanwhile: impl FnOnce(&Stream)) {
        let before =
            Before { errors: self.errors(outage.code).unwrap_or_default(), log_bytes: self.program.log().len() };
        let killed_at = Instant::now();
        self.stack.kill(outage.server);
        meanwhile(self.stream);
        self.await_seen(killed_at, outage, &before);
        if outage.server == Server::Registry && outage.holds_up {
            // PostgreSQL is told nothing of what waits.
            let late = self.stream.database.wal_lsn();
            assert!(self.stream.database.confirmed_flush_lsn(&self.stream.slot) < Some(late));
        }
        self.recover(outage.server);
    }

    /// Waits until an outage is seen wherever somebody may look, and takes note of after how long that was.
    fn await_seen(&mut self, killed_at: Instant, outage: &Outage, before: &Before) {
        type Look<'l> = (&'static str, &'l dyn Fn(&Case<'_>) -> bool);
        let Outage { server, when, holds_up, code } = outage;
        let place = self.place(*server);
        let readiness = |case: &Case<'_>| {
            let status = if *holds_up { 503 } else { 200 };
            let said = |answer: &Answer| answer.status == status && answer.body.contains(&format!("[{code}]"));
            case.program.readiness().as_ref().is_some_and(said)
        };
        let metrics = |case: &Case<'_>| {
            let ready = f64::from(u8::from(!holds_up));
            let is_counted = case.errors(code).is_some_and(|errors| errors > before.errors);
            is_counted
                && case.program.metric("ready") == Some(ready)
                && (*server != Server::Registry || case.program.metric("registry_up") == Some(0.0))
        };
        let status = |case: &Case<'_>| {
            let Some(status) = case.status() else { return false };
            let (verdict, failure) = (&status["verdict"], &status["failures"][0]);
            let is_well = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
            status["state"]["ready"] == !holds_up
                && verdict["level"] == if *holds_up { "problem" } else { "warning" }
                && [&verdict["code"], &failure["code"]].into_iter().all(|found| found == code)
                && [&verdict["detail"], &failure["text"]].into_iter().all(|text| has(text, &place))
                && [&verdict["advice"], &failure["fix"], &failure["meaning"]].into_iter().all(is_well)
        };
        let log = |case: &Case<'_>| {
            let log = case.program.log();
            let mut entries =
                log[before.log_bytes..].lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let said = |entry: Value| {
                entry["level"] == "WARN"
                    && entry["code"] == *code
                    && has(&entry["message"], &format!("[{code}]"))
                    && has(&entry["message"], &place)
            };
            entries.any(said)
        };
        let looks: [Look<'_>; 4] =
            [("readiness", &readiness), ("metrics", &metrics), ("status", &status), ("log", &log)];
        let mut seen = [None; 4];
        for _ in 0..=PERIODS_MAX {
            assert!(self.program.is_running(), "it ended");
            for (seen, (_, look)) in seen.iter_mut().zip(&looks) {
                if seen.is_none() && look(self) {
                    *seen = Some(killed_at.elapsed());
                }
            }
            if seen.iter().all(Option::is_some) {
                break;
            }
            thread::sleep(PERIOD);
        }
        let figure = |(seen, (place, _)): (&Option<Duration>, &Look<'_>)| match seen {
            Some(after) => format!("{place} after {:.1} s", after.as_secs_f64()),
            None => format!("{place} NEVER"),
        };
        let figures: Vec<String> = seen.iter().zip(&looks).map(figure).collect();
        let figures = format!("{server:?}, killed {when}: {} (required: {REQUIRED:?}, in looks)", figures.join(", "));
        assert!(seen.iter().all(Option::is_some), "{figures}");
        self.told.push(figures);
    }

    /// Starts the server again. The stream recovers by itself, and that is seen as well.
    fn recover(&mut self, server: Server) {
        self.stack.start(server);
        wait_until(RECOVERY_BOUND, &format!("the stream is well again after {server:?} is back"), || {
            assert!(self.program.is_running(), "it ended, for a server that came back");
            let readiness = self.program.readiness()?;
            let is_ready =
                readiness.status == 200 && readiness.body == "streaming\n" && self.program.metric("ready") == Some(1.0);
            let is_up = self.program.metric("registry_up") == Some(1.0);
            let status = self.status()?;
            (is_ready && is_up && status["state"]["ready"] == true && status["verdict"]["code"].is_null()).then_some(())
        });
    }

    /// What names a server.
    fn place(&self, server: Server) -> String {
        let port = |url: &str| url.parse::<url::Url>().expect("a URL").port().expect("a port").to_string();
        match server {
            Server::Postgres => port(&self.stream.database.url),
            Server::Kafka => self.stream.bootstrap_servers.clone(),
            Server::Registry => port(&self.stream.registry_url),
        }
    }

    fn errors(&self, code: &str) -> Option<f64> {
        self.program.metric(&format!("errors_total{{code={code:?}}}"))
    }

    fn status(&self) -> Option<Value> {
        serde_json::from_str(&http_get(self.program.address()?, "/status").ok()?.body).ok()
    }
}

fn has(text: &Value, part: &str) -> bool {
    text.as_str().is_some_and(|text| text.contains(part))
}
