//! Writers: many kinds of transactions at once, on keys that they share, chosen at random by a seed.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use postgres::{Client, Error, NoTls};

use super::{oracle::Table, random::Random, stream::Stream};

/// The tables that the writers change.
pub(crate) const TABLES: &[Table] = &[
    Table { name: "account", key: &["id"], full: false },
    Table { name: "document", key: &["id"], full: false },
    Table { name: "ledger", key: &["id"], full: true },
    Table { name: "pair", key: &["area", "number"], full: false },
    Table { name: "bulk", key: &["id"], full: false },
];

const SCHEMA: &str = "
    create table public.account (id bigint primary key, owner text not null, balance numeric(12,2) not null, note text);
    create table public.document (id bigint primary key, title text, body text);
    alter table public.document alter body set storage external;
    create table public.ledger (id bigint primary key, amount numeric(10,2), body text);
    alter table public.ledger alter body set storage external;
    alter table public.ledger replica identity full;
    create table public.pair (area text, number int, value text, primary key (area, number));
    create table public.bulk (id bigint primary key, value int not null, filler text);
    create sequence oracle.bulk_id;
    create table oracle.unwatched (id bigint generated always as identity primary key, filler text);
";

/// Few keys, so that writers meet at them.
const KEYS: u64 = 60;

macro_rules! kinds {
    ($($kind:ident)+) => {
        /// What a transaction is like.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind { $($kind,)+ }

        impl Kind {
            const ALL: &'static [Self] = &[$(Self::$kind,)+];
        }
    };
}

kinds! { Single Several RolledBack Savepoints CaughtError Copy Unwatched Long LongRolledBack }

/// Writers at work.
pub(crate) struct Workload {
    stop: Arc<AtomicBool>,
    counts: Arc<[AtomicU64; Kind::ALL.len()]>,
    threads: Vec<JoinHandle<()>>,
}

impl Workload {
    /// Creates the tables, before the program is started.
    pub(crate) fn create_tables(stream: &Stream) {
        stream.database.create_tables(SCHEMA);
    }

    /// Changes a row of each table that no writer knows, so that the program knows the tables before a fault.
    pub(crate) fn touch_tables(stream: &Stream) {
        stream.database.execute(
            "insert into public.account values (-1, 'nobody', 0) on conflict (id) do update set owner = 'nobody';
             insert into public.document values (-1) on conflict (id) do update set title = 'none';
             insert into public.ledger values (-1) on conflict (id) do update set amount = 0;
             insert into public.pair values ('nowhere', -1) on conflict (area, number) do update set value = 'none';
             insert into public.bulk values (-1, 0) on conflict (id) do update set value = 0;",
        );
    }

    /// Starts three writers of short transactions and one of long ones.
    pub(crate) fn start(stream: &Stream, random: &mut Random) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts: Arc<[AtomicU64; Kind::ALL.len()]> = Arc::default();
        let threads = (0..4)
            .map(|number| {
                let writer = Writer {
                    url: stream.database.url.clone(),
                    random: random.fork(),
                    stop: Arc::clone(&stop),
                    counts: Arc::clone(&counts),
                };
                thread::spawn(move || writer.run(number == 0))
            })
            .collect();
        Self { stop, counts, threads }
    }

    /// Ends all writers. What the database holds then is final.
    pub(crate) fn finish(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a writer ends");
        }
        Written(Kind::ALL.iter().map(|kind| (*kind, self.counts[*kind as usize].load(Ordering::Relaxed))).collect())
    }
}

/// How many transactions of each kind came to their end.
#[derive(Debug)]
pub(crate) struct Written(Vec<(Kind, u64)>);

impl Written {
    /// Checks that each kind has occurred: a short test may have to do without.
    pub(crate) fn assert_varied(&self) {
        println!("transactions: {:?}", self.0);
        let missing: Vec<_> = self.0.iter().filter(|(_, count)| *count == 0).collect();
        assert!(missing.is_empty(), "transactions of these kinds did not occur: {missing:?}");
    }
}

struct Writer {
    url: String,
    random: Random,
    stop: Arc<AtomicBool>,
    counts: Arc<[AtomicU64; Kind::ALL.len()]>,
}

impl Writer {
    fn run(mut self, is_long: bool) {
        let mut client: Option<Client> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(mut connected) = client.take().or_else(|| self.connect()) else {
                // The server is down: that is a test's intention.
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            let kind = if is_long { self.long_kind() } else { self.short_kind() };
            match self.transaction(&mut connected, kind) {
                Ok(()) => {
                    self.counts[kind as usize].fetch_add(1, Ordering::Relaxed);
                    client = Some(connected);
                }
                // Keys collide and locks are held: the transaction is then one more that was rolled back.
                Err(error) if !error.is_closed() && connected.batch_execute("rollback").is_ok() => {
                    client = Some(connected);
                }
                Err(_) => {}
            }
            thread::sleep(self.random.duration_ms(0..8));
        }
    }

    fn connect(&self) -> Option<Client> {
        let mut client = Client::connect(&self.url, NoTls).ok()?;
        client.batch_execute("set lock_timeout = '200ms'; set deadlock_timeout = '50ms'").ok()?;
        Some(client)
    }

    fn short_kind(&mut self) -> Kind {
        match self.random.below(100) {
            0..40 => Kind::Single,
            40..65 => Kind::Several,
            65..73 => Kind::RolledBack,
            73..85 => Kind::Savepoints,
            85..92 => Kind::CaughtError,
            92..96 => Kind::Unwatched,
            _ => Kind::Copy,
        }
    }

    fn long_kind(&mut self) -> Kind {
        if self.random.chance(80) { Kind::Long } else { Kind::LongRolledBack }
    }

    fn transaction(&mut self, client: &mut Client, kind: Kind) -> Result<(), Error> {
        match kind {
            Kind::Single => return self.change(client),
            Kind::CaughtError => {
                let change = self.statement();
                let caught = format!(
                    "do $$ begin
                        {change};
                        begin {change}; perform 1 / 0; exception when division_by_zero then null; end;
                        begin {change}; exception when unique_violation then null; end;
                    end $$"
                );
                return client.batch_execute(&caught);
            }
            _ => client.batch_execute("begin")?,
        }
        match kind {
            Kind::Savepoints => {
                self.change(client)?;
                client.batch_execute("savepoint outside")?;
                self.change(client)?;
                client.batch_execute("savepoint inside")?;
                self.change(client)?;
                client.batch_execute("rollback to inside")?;
                self.change(client)?;
                let end = if self.random.chance(50) { "release outside" } else { "rollback to outside" };
                client.batch_execute(end)?;
                self.change(client)?;
            }
            Kind::Copy => self.copy(client)?,
            Kind::Unwatched => client.batch_execute(
                "insert into oracle.unwatched(filler) select repeat('x', 200) from generate_series(1, 20)",
            )?,
            Kind::Long | Kind::LongRolledBack => {
                let end = Instant::now() + self.random.duration_ms(200..1500);
                while Instant::now() < end && !self.stop.load(Ordering::Relaxed) {
                    self.change(client)?;
                    thread::sleep(self.random.duration_ms(10..80));
                }
            }
            _ => {
                for _ in 0..self.random.within(2..8) {
                    self.change(client)?;
                }
            }
        }
        let commits = !matches!(kind, Kind::RolledBack | Kind::LongRolledBack);
        client.batch_execute(if commits { "commit" } else { "rollback" })
    }

    fn change(&mut self, client: &mut Client) -> Result<(), Error> {
        let statement = self.statement();
        client.batch_execute(&statement)
    }

    /// COPY writes many rows with one WAL record, so that they share an LSN.
    fn copy(&mut self, client: &mut Client) -> Result<(), Error> {
        let rows = self.random.within(20..200);
        let first: i64 = client
            .query_one(
                "select setval('oracle.bulk_id', nextval('oracle.bulk_id') + $1)",
                &[&i64::try_from(rows).expect("it is small")],
            )?
            .get(0);
        let mut copy = client.copy_in("copy public.bulk from stdin")?;
        for row in 0..i64::try_from(rows).expect("it is small") {
            // A failed write is reported by `finish`.
            let _failed = writeln!(copy, "{}\t{}\tfiller", first - row, row);
        }
        copy.finish().map(drop)
    }

    fn statement(&mut self) -> String {
        let (id, other, text) = (self.random.below(KEYS), self.random.below(KEYS), self.random.below(1_000_000));
        let body = format!("repeat(md5('{text}'), {})", self.random.within(80..200));
        let (cents, area) = (self.random.below(100_000), self.random.one_of(&["north", "south", "über"]));
        match self.random.below(100) {
            0..10 => format!(
                "insert into public.account values ({id}, 'o{text}', {cents} / 100.0, null) on conflict do nothing"
            ),
            10..20 => format!(
                "update public.account set balance = balance - {cents} / 100.0, note = 'n{text}' where id = {id}"
            ),
            20..24 => format!("delete from public.account where id = {id}"),
            24..30 => format!(
                "update public.account set id = {other} where id = {id} and not exists (select from public.account where id = {other})"
            ),
            30..40 => format!("insert into public.document values ({id}, 't{text}', {body}) on conflict do nothing"),
            40..46 => format!("update public.document set title = 't{text}' where id = {id}"),
            46..49 => format!("update public.document set body = {body} where id = {id}"),
            49..53 => format!(
                "update public.document set id = {other} where id = {id} and not exists (select from public.document where id = {other})"
            ),
            53..56 => format!("delete from public.document where id = {id}"),
            56..62 => {
                format!("insert into public.ledger values ({id}, {cents} / 100.0, {body}) on conflict do nothing")
            }
            62..68 => format!("update public.ledger set amount = {cents} / 100.0 where id = {id}"),
            68..72 => format!(
                "update public.ledger set id = {other} where id = {id} and not exists (select from public.ledger where id = {other})"
            ),
            72..75 => format!("delete from public.ledger where id = {id}"),
            75..85 => {
                format!("insert into public.pair values ('{area}', {}, 'v{text}') on conflict do nothing", id % 10)
            }
            85..89 => format!("update public.pair set value = null where number = {}", id % 10),
            89..94 => format!(
                "update public.pair p set area = area || '+' where number = {0} and length(area) < 9
                 and not exists (select from public.pair o where o.area = p.area || '+' and o.number = {0})",
                id % 10
            ),
            94..97 => format!("delete from public.pair where area <> '{area}' and number = {}", id % 10),
            97..99 => format!("update public.bulk set value = value + 1 where id % 500 = {}", text % 500),
            _ => format!("delete from public.bulk where id % 20 = {}", text % 20),
        }
    }
}
