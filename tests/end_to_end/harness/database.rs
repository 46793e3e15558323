//! A database of a test's own, and the history that it keeps of itself.
//!
//! Every change of a watched table is recorded by triggers in `oracle.journal`, inside the transaction that makes it. So the journal
//! holds exactly what was committed, in the order in which each transaction did it, whatever became of the writer: it is the source's
//! own word, and shares nothing with logical decoding.

use std::{collections::BTreeMap, time::Duration};

use postgres::{Client, NoTls};

use super::{
    oracle::{Change, History, Lsn, Operation, Row, Transaction},
    stack::Stack,
    wait_until,
};

/// A database that is dropped, with its slots, when the test ends.
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) url: String,
    admin_url: String,
}

const JOURNAL: &str = "
    create schema oracle;
    create table oracle.journal (
        number bigint generated always as identity primary key,
        xid bigint not null default (pg_current_xact_id()::text::bigint),
        relation text not null,
        operation text not null,
        old jsonb,
        new jsonb
    );
    create function oracle.record() returns trigger language plpgsql as $$
    begin
        insert into oracle.journal(relation, operation, old, new) values (
            tg_table_name, tg_op,
            case when tg_level = 'ROW' and tg_op <> 'INSERT' then to_jsonb(old) end,
            case when tg_level = 'ROW' and tg_op <> 'DELETE' then to_jsonb(new) end);
        return null;
    end $$;
    create procedure oracle.watch(relation regclass) language plpgsql as $$
    begin
        execute format('create trigger oracle_row after insert or update or delete on %s
                        for each row execute function oracle.record()', relation);
        execute format('create trigger oracle_truncate after truncate on %s
                        for each statement execute function oracle.record()', relation);
    end $$;
    create table public.marker (id bigint generated always as identity primary key);
    call oracle.watch('public.marker');
";

impl Database {
    /// Creates a database with a journal, and a table `marker` for [`mark`](Self::mark).
    pub(crate) fn create(stack: &Stack, name: &str) -> Self {
        let admin_url = stack.postgres_url("postgres");
        let mut admin = connect(&admin_url);
        admin.batch_execute(&format!("create database {name}")).expect("the database is created");
        let database = Self { name: name.to_owned(), url: stack.postgres_url(name), admin_url };
        database.execute(JOURNAL);
        database
    }

    /// A new connection.
    pub(crate) fn client(&self) -> Client {
        connect(&self.url)
    }

    /// Runs statements, each in a transaction of its own unless they say otherwise.
    pub(crate) fn execute(&self, sql: &str) {
        let mut client = self.client();
        if let Err(error) = client.batch_execute(sql) {
            panic!("{error:?} in: {sql}");
        }
    }

    /// Runs a script as psql does: each statement by itself, and so in a transaction of its own outside of BEGIN and COMMIT.
    pub(crate) fn play(&self, script: &str) {
        let mut client = self.client();
        for statement in statements(script) {
            if let Err(error) = client.batch_execute(statement) {
                panic!("{error:?} in: {statement}");
            }
        }
    }

    /// Creates tables in `public` and has the journal watch them.
    pub(crate) fn create_tables(&self, sql: &str) {
        self.execute(sql);
        self.execute(
            "do $$ declare relation regclass; begin
                for relation in select c.oid::regclass from pg_class c
                    where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
                    and not exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgname = 'oracle_row')
                loop call oracle.watch(relation); end loop;
            end $$",
        );
    }

    /// One value of a query's only row.
    pub(crate) fn value<T: for<'a> postgres::types::FromSql<'a>>(&self, sql: &str) -> T {
        let mut client = self.client();
        client.query_one(sql, &[]).unwrap_or_else(|error| panic!("{error:?} in: {sql}")).get(0)
    }

    /// The end of the server's log.
    pub(crate) fn wal_lsn(&self) -> Lsn {
        lsn(&self.value::<String>("select pg_current_wal_lsn()::text"))
    }

    /// What the server says the slot has confirmed; none if there is no such slot.
    pub(crate) fn confirmed_flush_lsn(&self, slot: &str) -> Option<Lsn> {
        confirmed_flush_lsn(&mut self.client(), slot).expect("the server answers")
    }

    /// Writes a row into `marker` and returns its id. Its event comes after those of every transaction that was over before.
    pub(crate) fn mark(&self) -> i64 {
        self.value("insert into public.marker default values returning id")
    }

    /// Waits until no connection reads from the slot.
    pub(crate) fn await_slot_released(&self, slot: &str) {
        let mut client = self.client();
        wait_until(Duration::from_secs(30), "the slot is released", || {
            let row = client.query_opt("select from pg_replication_slots where slot_name = $1 and active", &[&slot]);
            row.expect("the server answers").is_none().then_some(())
        });
    }

    /// What the tables went through, and what they hold.
    pub(crate) fn history(&self, tables: &[&str]) -> History {
        let mut client = self.client();
        let as_text = |column: &str| {
            format!("(select jsonb_object_agg(key, value)::text from jsonb_each_text({column}) as fields(key, value))")
        };
        let journal = format!(
            "select xid, relation, operation, {}, {} from oracle.journal order by number",
            as_text("old"),
            as_text("new")
        );
        let mut transactions: BTreeMap<u32, Transaction> = BTreeMap::new();
        for record in client.query(&journal, &[]).expect("the journal is read") {
            let xid = u32::try_from(record.get::<_, i64>(0) & 0xffff_ffff).expect("it has 32 bits");
            let operation = match record.get::<_, &str>(2) {
                "INSERT" => Operation::Insert,
                "UPDATE" => Operation::Update,
                "DELETE" => Operation::Delete,
                "TRUNCATE" => Operation::Truncate,
                other => panic!("an operation {other}"),
            };
            transactions.entry(xid).or_default().push(Change {
                table: record.get(1),
                operation,
                old: record.get::<_, Option<&str>>(3).map(row),
                new: record.get::<_, Option<&str>>(4).map(row),
            });
        }
        let contents = tables
            .iter()
            .map(|table| {
                let sql = format!("select {} from public.{table} as t", as_text("to_jsonb(t)"));
                let rows = client.query(&sql, &[]).expect("the table is read");
                ((*table).to_owned(), rows.iter().map(|found| row(found.get(0))).collect())
            })
            .collect();
        History { transactions, contents }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Ok(mut admin) = Client::connect(&self.admin_url, NoTls) else { return };
        let drop_slots = format!(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where database = '{0}' and active_pid is not null;",
            self.name
        );
        // What is left over disturbs nobody, and the stack goes down with the test binary.
        let _terminated = admin.batch_execute(&drop_slots);
        for _ in 0..100 {
            let dropped = admin.batch_execute(&format!(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '{}'",
                self.name
            ));
            if dropped.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _dropped = admin.batch_execute(&format!("drop database if exists {} with (force)", self.name));
    }
}

/// What the server says the slot has confirmed.
pub(crate) fn confirmed_flush_lsn(client: &mut Client, slot: &str) -> Result<Option<Lsn>, postgres::Error> {
    let sql = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1";
    let row = client.query_opt(sql, &[&slot])?;
    Ok(row.and_then(|row| row.get::<_, Option<String>>(0)).map(|text| lsn(&text)))
}

fn connect(url: &str) -> Client {
    Client::connect(url, NoTls).unwrap_or_else(|error| panic!("cannot connect to PostgreSQL: {error:?}"))
}

/// Cuts a script at its semicolons, but for those inside quotes. There must be no dollar quotes and no comments in it.
fn statements(script: &str) -> Vec<&str> {
    let (mut statements, mut start) = (Vec::new(), 0);
    let (mut quote, mut has_escapes, mut previous) = (None, false, ' ');
    let mut characters = script.char_indices();
    while let Some((at, character)) = characters.next() {
        match (quote, character) {
            (None, '\'' | '"') => (quote, has_escapes) = (Some(character), matches!(previous, 'e' | 'E')),
            (None, ';') => {
                statements.push(script[start..at].trim());
                start = at + 1;
            }
            (Some(_), '\\') if has_escapes => drop(characters.next()),
            // A doubled quote ends one part and begins the next.
            (Some(open), _) if character == open => quote = None,
            _ => {}
        }
        previous = character;
    }
    assert!(quote.is_none() && script[start..].trim().is_empty(), "the script ends inside a statement");
    statements
}

fn row(json: &str) -> Row {
    serde_json::from_str(json).expect("an object of texts")
}

/// Reads `16/B374D848`.
pub(crate) fn lsn(text: &str) -> Lsn {
    let (high, low) = text.split_once('/').expect("an LSN has a slash");
    let half = |digits| u64::from_str_radix(digits, 16).expect("an LSN is hexadecimal");
    half(high) << 32 | half(low)
}
