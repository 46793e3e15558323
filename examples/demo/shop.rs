//! The shop: five tables, and people who order, pay, change their minds and go away, all at once.
//!
//! Each writer counts the row changes of the transactions that it has committed, from what the server says of each statement. That is
//! the number of events that there have to be, counted without looking at the stream.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, Statement, error::SqlState, types::ToSql};
use uuid::Uuid;

/// A table, and its key's columns.
pub(crate) struct TableInfo {
    pub(crate) name: &'static str,
    pub(crate) key: &'static [&'static str],
}

/// The shop's tables.
pub(crate) const TABLES: [TableInfo; 5] = [
    TableInfo { name: "customers", key: &["id"] },
    TableInfo { name: "products", key: &["sku"] },
    TableInfo { name: "orders", key: &["id"] },
    TableInfo { name: "order_items", key: &["order_id", "line"] },
    TableInfo { name: "payments", key: &["id"] },
];

/// Customers and products publish their whole old row, the others its key alone, which is PostgreSQL's default.
const SCHEMA: &str = "
    CREATE TABLE customers (
        id          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
        name        text NOT NULL,
        email       text NOT NULL,
        vip         boolean NOT NULL DEFAULT false,
        preferences jsonb,
        created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    CREATE TABLE products (
        sku         text PRIMARY KEY,
        name        text NOT NULL,
        price       numeric(10,2) NOT NULL,
        stock       integer NOT NULL
    );
    CREATE TABLE orders (
        id          uuid PRIMARY KEY,
        customer_id bigint NOT NULL REFERENCES customers,
        status      text NOT NULL,
        total       numeric(12,2) NOT NULL,
        placed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
        shipping    jsonb
    );
    CREATE TABLE order_items (
        order_id    uuid NOT NULL REFERENCES orders,
        line        integer NOT NULL,
        sku         text NOT NULL,
        quantity    integer NOT NULL,
        unit_price  numeric(10,2) NOT NULL,
        PRIMARY KEY (order_id, line)
    );
    CREATE TABLE payments (
        id          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
        order_id    uuid NOT NULL REFERENCES orders,
        method      text NOT NULL,
        amount      numeric(12,2) NOT NULL,
        paid_at     timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    ALTER TABLE customers REPLICA IDENTITY FULL;
    ALTER TABLE products REPLICA IDENTITY FULL;";

const CUSTOMERS: i64 = 200;
const PRODUCTS: u32 = 400;
const ORDERS: u32 = 100;
const NAMES: [&str; 12] =
    ["Ada", "Bela", "Chen", "Dora", "Emil", "Farah", "Goran", "Hana", "Ivo", "Jun", "Kofi", "Lena"];
const GOODS: [&str; 10] = ["Cup", "Kettle", "Lamp", "Chair", "Rug", "Clock", "Vase", "Towel", "Basket", "Shelf"];
const METHODS: [&str; 3] = ["card", "transfer", "voucher"];
/// A writer that has more orders than this removes old ones first, so that an endless demo does not grow without end.
const ORDERS_MAX: usize = 400;
/// So many customers come anew for each writer, for the same reason.
const REGISTERED_MAX: u32 = 500;

/// What was done, counted where it was done.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Transactions that were committed and changed something.
    pub(crate) transactions: AtomicU64,
    pub(crate) rolled_back: AtomicU64,
    /// Row changes that were rolled back, with their transaction or to a savepoint.
    pub(crate) undone: AtomicU64,
    /// Events that there have to be: one for each row change, two where it gave the row another key.
    pub(crate) events: AtomicU64,
    pub(crate) key_changes: AtomicU64,
    /// Rows that were there before the stream.
    pub(crate) rows_before: AtomicU64,
}

impl Tally {
    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Acquire)
    }

    pub(crate) fn rows_before(&self) -> u64 {
        self.rows_before.load(Ordering::Acquire)
    }

    /// What a consumer has to see: each row of before, and each change since.
    pub(crate) fn all(&self) -> u64 {
        self.rows_before() + self.events()
    }
}

/// A connection, the statements that it has prepared, and what its open transaction has done.
pub(crate) struct Session {
    client: Client,
    statements: HashMap<&'static str, Statement>,
    tally: Arc<Tally>,
    events: u64,
    key_changes: u64,
}

/// An order that a writer knows to be there.
#[derive(Debug, Clone)]
struct Order {
    /// A UUID.
    id: String,
    lines: Vec<i32>,
    stage: Stage,
}

/// How far an order has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Placed,
    Paid,
    Shipped,
}

/// What all writers share.
pub(crate) struct Shop {
    postgres_url: String,
    pub(crate) tally: Arc<Tally>,
    skus: Arc<Mutex<Vec<String>>>,
}

/// Writers at work.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Result<()>>>,
}

impl Shop {
    /// Creates the tables, empty.
    pub(crate) async fn open(postgres_url: &str) -> Result<Self> {
        let shop = Self { postgres_url: postgres_url.to_owned(), tally: Arc::default(), skus: Arc::default() };
        let session = shop.connect().await?;
        session.client.batch_execute(SCHEMA).await?;
        Ok(shop)
    }

    pub(crate) async fn connect(&self) -> Result<Session> {
        let client = connect(&self.postgres_url).await?;
        let tally = Arc::clone(&self.tally);
        Ok(Session { client, statements: HashMap::new(), tally, events: 0, key_changes: 0 })
    }

    /// Customers, products, and orders, half of them paid: rows that are there before the stream, and whose changes nobody will hear of.
    pub(crate) async fn stock(&self) -> Result<()> {
        let mut session = self.connect().await?;
        let mut random = Random::new(0);
        session.begin().await?;
        for customer in 0..CUSTOMERS {
            let name = random.pick(&NAMES);
            let email = format!("{}.{customer}@example.com", name.to_lowercase());
            let preferences = r#"{"newsletter": true, "language": "en"}"#;
            session.execute(NEW_CUSTOMER, &[name, &email, &preferences]).await?;
        }
        let mut skus = Vec::new();
        for product in 0..PRODUCTS {
            let goods = random.pick(&GOODS);
            let (sku, cents) = (format!("{}-{product:03}", goods.to_uppercase()), random.between(300, 20_000));
            let insert = "INSERT INTO products VALUES ($1, $2, $3::bigint / 100.0, 100000)";
            session.execute(insert, &[&sku, &format!("{goods} no. {product}"), &cents]).await?;
            skus.push(sku);
        }
        session.commit().await?;
        *self.skus.lock().unwrap_or_else(PoisonError::into_inner) = skus;
        let mut writer = self.writer(0).await?;
        for order in 0..ORDERS {
            writer.place().await?;
            if order % 2 == 0 {
                writer.pay().await?;
            }
        }
        let Tally { transactions, rolled_back, undone, events, key_changes, rows_before } = &*self.tally;
        for count in [transactions, rolled_back, undone, events, key_changes] {
            count.store(0, Ordering::Release);
        }
        let mut rows = 0;
        for table in &TABLES {
            let count = session.client.query_one(&format!("SELECT count(*) FROM {}", table.name), &[]).await?;
            rows += u64::try_from(count.get::<_, i64>(0))?;
        }
        rows_before.store(rows, Ordering::Release);
        Ok(())
    }

    pub(crate) async fn writer(&self, seed: u64) -> Result<Writer> {
        let session = self.connect().await?;
        Ok(Writer {
            session,
            skus: Arc::clone(&self.skus),
            orders: Vec::new(),
            registered: 0,
            random: Random::new(seed),
        })
    }

    /// Lets so many writers loose. Between two transactions, each of them rests for up to this time.
    pub(crate) async fn open_doors(&self, writers: u64, rest_max: Duration) -> Result<Traffic> {
        let rest_max_ms = u64::try_from(rest_max.as_millis())?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for seed in 1..=writers {
            let (mut writer, stop) = (self.writer(seed).await?, Arc::clone(&stop));
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    writer.act().await?;
                    let rest = Duration::from_millis(writer.random.below(rest_max_ms));
                    tokio::time::sleep(rest).await;
                }
                Ok(())
            }));
        }
        Ok(Traffic { stop, writers: tasks })
    }
}

impl Traffic {
    /// Lets the writers finish what they are at.
    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await?.context("a writer")?;
        }
        Ok(())
    }
}

/// Connects to PostgreSQL, with values printed in UTC.
pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.context("connecting to PostgreSQL")?;
    // It ends with its client, which then gets the error if there is one.
    tokio::spawn(connection);
    client.batch_execute("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET application_name = 'shop'").await?;
    Ok(client)
}

const NEW_CUSTOMER: &str = "INSERT INTO customers (name, email, preferences) VALUES ($1, $2, $3::text::jsonb)";
const SET_STATUS: &str = "UPDATE orders SET status = $2 WHERE id = $1::text::uuid";
const MOVE_LINE: &str = "UPDATE order_items SET line = $3 WHERE order_id = $1::text::uuid AND line = $2";
const RENAME: &str = "UPDATE products SET sku = $2 WHERE sku = $1";

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Session {
    pub(crate) async fn begin(&mut self) -> Result<()> {
        (self.events, self.key_changes) = (0, 0);
        self.client.batch_execute("BEGIN").await.map_err(Into::into)
    }

    /// Runs a statement; each row that it changes is an event, if this commits.
    async fn execute(&mut self, sql: &'static str, parameters: Parameters<'_>) -> Result<u64> {
        let statement = self.prepare(sql).await?;
        let rows = self.client.execute(&statement, parameters).await?;
        self.events += rows;
        Ok(rows)
    }

    /// A statement that gives each row another key: the old key ends, and the new one begins.
    async fn change_key(&mut self, sql: &'static str, parameters: Parameters<'_>) -> Result<u64> {
        let rows = self.execute(sql, parameters).await?;
        self.events += rows;
        self.key_changes += rows;
        Ok(rows)
    }

    pub(crate) async fn commit(&mut self) -> Result<()> {
        self.client.batch_execute("COMMIT").await?;
        if self.events > 0 {
            self.tally.transactions.fetch_add(1, Ordering::AcqRel);
        }
        self.tally.events.fetch_add(self.events, Ordering::AcqRel);
        self.tally.key_changes.fetch_add(self.key_changes, Ordering::AcqRel);
        Ok(())
    }

    pub(crate) async fn roll_back(&mut self) -> Result<()> {
        self.client.batch_execute("ROLLBACK").await?;
        self.tally.rolled_back.fetch_add(1, Ordering::AcqRel);
        self.tally.undone.fetch_add(self.events, Ordering::AcqRel);
        Ok(())
    }

    async fn prepare(&mut self, sql: &'static str) -> Result<Statement> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }
}

/// Somebody at work in the shop, who knows the orders that it has placed.
pub(crate) struct Writer {
    session: Session,
    skus: Arc<Mutex<Vec<String>>>,
    orders: Vec<Order>,
    registered: u32,
    random: Random,
}

impl Writer {
    /// One transaction of some kind.
    async fn act(&mut self) -> Result<()> {
        let done = match self.random.below(100) {
            _ if self.orders.len() > ORDERS_MAX => self.cancel().await,
            0..30 => self.place().await,
            30..55 => self.pay().await,
            55..68 => self.ship().await,
            68..75 => self.change_quantity().await,
            75..81 => self.cancel().await,
            81..84 => self.move_line().await,
            84..88 => self.change_email().await,
            88..92 => self.change_price().await,
            92..93 => self.rename_product().await,
            93..94 => self.raise_prices().await,
            94..96 if self.registered < REGISTERED_MAX => self.register().await,
            96..98 => self.try_voucher().await,
            _ => self.think_better_of_it().await,
        };
        match done {
            Err(error) if is_deadlock(&error) => self.session.roll_back().await,
            other => other,
        }
    }

    /// An order of one to four things, and the stock that they are taken from.
    pub(crate) async fn place(&mut self) -> Result<()> {
        self.session.begin().await?;
        let order = self.insert_order().await?;
        self.session.commit().await?;
        self.orders.extend(order);
        Ok(())
    }

    /// Paid: a payment, and the order's new status.
    pub(crate) async fn pay(&mut self) -> Result<()> {
        let Some(order) = self.next_order(Stage::Placed, Stage::Paid) else { return Ok(()) };
        self.session.begin().await?;
        let method = self.random.pick(&METHODS);
        let insert = "INSERT INTO payments (order_id, method, amount) SELECT id, $2, total FROM orders WHERE id = $1::text::uuid";
        self.session.execute(insert, &[&order.id, method]).await?;
        self.session.execute(SET_STATUS, &[&order.id, &"paid"]).await?;
        self.session.commit().await
    }

    async fn ship(&mut self) -> Result<()> {
        let Some(order) = self.next_order(Stage::Paid, Stage::Shipped) else { return Ok(()) };
        self.session.begin().await?;
        let shipping = format!(r#"{{"carrier": "post", "parcel": {}}}"#, self.random.between(100_000, 999_999));
        let update = "UPDATE orders SET status = 'shipped', shipping = $2::text::jsonb WHERE id = $1::text::uuid";
        self.session.execute(update, &[&order.id, &shipping]).await?;
        self.session.commit().await
    }

    /// One more of something.
    pub(crate) async fn change_quantity(&mut self) -> Result<()> {
        let Some(order) = self.some_order() else { return Ok(()) };
        self.session.begin().await?;
        let update = "UPDATE order_items SET quantity = quantity + 1 WHERE order_id = $1::text::uuid AND line = $2";
        self.session.execute(update, &[&order.id, &order.lines[0]]).await?;
        let update = "UPDATE orders SET total = (SELECT sum(quantity * unit_price) FROM order_items WHERE order_id = $1::text::uuid)
                      WHERE id = $1::text::uuid";
        self.session.execute(update, &[&order.id]).await?;
        self.session.commit().await
    }

    /// A line gets another number, which is part of its key.
    pub(crate) async fn move_line(&mut self) -> Result<()> {
        let Some(index) = self.some_index() else { return Ok(()) };
        let Order { id, lines, .. } = self.orders[index].clone();
        let line = lines[0];
        self.session.begin().await?;
        self.session.change_key(MOVE_LINE, &[&id, &line, &(line + 10)]).await?;
        self.session.commit().await?;
        self.orders[index].lines[0] = line + 10;
        Ok(())
    }

    /// The order and all that belongs to it are deleted.
    pub(crate) async fn cancel(&mut self) -> Result<()> {
        let Some(index) = self.some_index() else { return Ok(()) };
        let order = self.orders.swap_remove(index);
        self.session.begin().await?;
        for delete in [
            "DELETE FROM payments WHERE order_id = $1::text::uuid",
            "DELETE FROM order_items WHERE order_id = $1::text::uuid",
            "DELETE FROM orders WHERE id = $1::text::uuid",
        ] {
            self.session.execute(delete, &[&order.id]).await?;
        }
        self.session.commit().await
    }

    pub(crate) async fn change_email(&mut self) -> Result<()> {
        let (customer, number) = (self.some_customer(), self.random.below(10_000));
        self.session.begin().await?;
        let update = "UPDATE customers SET email = lower(name) || '.' || $2::bigint || '@example.org' WHERE id = $1";
        self.session.execute(update, &[&customer, &i64::try_from(number)?]).await?;
        self.session.commit().await
    }

    async fn change_price(&mut self) -> Result<()> {
        let (sku, cents) = (self.some_sku(), self.random.between(300, 20_000));
        self.session.begin().await?;
        self.session.execute("UPDATE products SET price = $2::bigint / 100.0 WHERE sku = $1", &[&sku, &cents]).await?;
        self.session.commit().await
    }

    /// A product gets another number, which is its key.
    async fn rename_product(&mut self) -> Result<()> {
        let old = self.some_sku();
        let stem = old.split('/').next().unwrap_or_default();
        let new = format!("{stem}/{}", &Uuid::new_v4().simple().to_string()[..6]);
        self.session.begin().await?;
        let renamed = self.session.change_key(RENAME, &[&old, &new]).await?;
        self.session.commit().await?;
        let mut skus = self.skus.lock().unwrap_or_else(PoisonError::into_inner);
        if renamed > 0
            && let Some(sku) = skus.iter_mut().find(|sku| **sku == old)
        {
            *sku = new;
        }
        Ok(())
    }

    /// All prices of one kind of goods, in one statement.
    async fn raise_prices(&mut self) -> Result<()> {
        let kind = format!("{}-%", self.random.pick(&GOODS).to_uppercase());
        self.session.begin().await?;
        // In the order of their keys, as all others take them too.
        let update = "UPDATE products SET price = least(price * 1.01, 500)
                      WHERE sku IN (SELECT sku FROM products WHERE sku LIKE $1 ORDER BY sku FOR UPDATE)";
        self.session.execute(update, &[&kind]).await?;
        self.session.commit().await
    }

    async fn register(&mut self) -> Result<()> {
        self.registered += 1;
        let (name, number) = (self.random.pick(&NAMES), self.random.below(1_000_000));
        self.session.begin().await?;
        let email = format!("{}.{number}@example.com", name.to_lowercase());
        self.session.execute(NEW_CUSTOMER, &[name, &email, &"{}"]).await?;
        self.session.commit().await
    }

    /// An order during which something is undone, up to a savepoint, and the rest is kept.
    async fn try_voucher(&mut self) -> Result<()> {
        self.session.begin().await?;
        let order = self.insert_order().await?;
        let before = self.session.events;
        self.session.client.batch_execute("SAVEPOINT voucher").await?;
        let half = "UPDATE orders SET total = total / 2 WHERE id = $1::text::uuid";
        self.session.execute(half, &[&order.as_ref().map(|order| &order.id)]).await?;
        self.session.client.batch_execute("ROLLBACK TO SAVEPOINT voucher").await?;
        self.session.tally.undone.fetch_add(self.session.events - before, Ordering::AcqRel);
        self.session.events = before;
        self.session.commit().await?;
        self.orders.extend(order);
        Ok(())
    }

    /// An order that is never committed.
    pub(crate) async fn think_better_of_it(&mut self) -> Result<()> {
        self.session.begin().await?;
        self.insert_order().await?;
        self.session.roll_back().await
    }

    async fn insert_order(&mut self) -> Result<Option<Order>> {
        let (id, customer) = (Uuid::new_v4().to_string(), self.some_customer());
        let mut skus: Vec<String> = (0..=self.random.below(4)).map(|_| self.some_sku()).collect();
        skus.sort();
        skus.dedup();
        let insert = "INSERT INTO orders (id, customer_id, status, total)
                      SELECT $1::text::uuid, $2, 'placed', coalesce(sum(price), 0) FROM products WHERE sku = ANY ($3)";
        self.session.execute(insert, &[&id, &customer, &skus]).await?;
        let mut lines = Vec::new();
        for (sku, line) in skus.iter().zip(1..) {
            let insert =
                "INSERT INTO order_items SELECT $1::text::uuid, $2, sku, 1, price FROM products WHERE sku = $3";
            // None if the product was renamed a moment ago.
            if self.session.execute(insert, &[&id, &line, sku]).await? > 0 {
                lines.push(line);
            }
            self.session.execute("UPDATE products SET stock = stock - 1 WHERE sku = $1", &[sku]).await?;
        }
        Ok((!lines.is_empty()).then_some(Order { id, lines, stage: Stage::Placed }))
    }

    /// An order that has come to one stage, and will have come to the next one.
    fn next_order(&mut self, from: Stage, to: Stage) -> Option<Order> {
        let start = self.some_index()?;
        let count = self.orders.len();
        let index = (0..count).map(|step| (start + step) % count).find(|index| self.orders[*index].stage == from)?;
        self.orders[index].stage = to;
        Some(self.orders[index].clone())
    }

    fn some_index(&mut self) -> Option<usize> {
        let count = u64::try_from(self.orders.len()).unwrap_or_default();
        (count > 0).then(|| usize::try_from(self.random.below(count)).unwrap_or_default())
    }

    fn some_order(&mut self) -> Option<Order> {
        self.some_index().map(|index| self.orders[index].clone())
    }

    fn some_customer(&mut self) -> i64 {
        self.random.between(1, CUSTOMERS)
    }

    fn some_sku(&mut self) -> String {
        let skus = self.skus.lock().unwrap_or_else(PoisonError::into_inner);
        self.random.pick(&skus).clone()
    }
}

fn is_deadlock(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code);
    code == Some(&SqlState::T_R_DEADLOCK_DETECTED)
}

/// `SplitMix64`: the same demo each time, as far as time lets it.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below a bound that is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn between(&mut self, from: i64, to: i64) -> i64 {
        from + i64::try_from(self.below(to.abs_diff(from) + 1)).unwrap_or_default()
    }

    /// One of a list that is not empty.
    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let index = self.below(u64::try_from(list.len()).unwrap_or(u64::MAX));
        &list[usize::try_from(index).unwrap_or_default()]
    }
}
