//! The connection for ordinary SQL.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{error::Elapsed, timeout},
};
use tokio_postgres::{Client, NoTls, Row, types::ToSql};
use tracing::debug;
use walreceiver::ConnectOptions;

use crate::{
    failure::{Code, Failure},
    failures,
};

/// How long a statement may take, connecting included. Altering a publication may wait for a lock, for less time than this.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Beside those with which values print as they do in the replication stream: defaults are parsed.
const SETTINGS: [(&str, &str); 2] = [("search_path", "pg_catalog"), ("lock_timeout", "20s")];

/// A connection for catalog queries, which reads as the replication connection does: the same user, the same TLS.
pub struct Catalog {
    options: Arc<ConnectOptions>,
    live: Option<Live>,
}

pub(super) struct Live {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Catalog {
    /// A catalog that connects when it is first asked.
    pub fn new(options: Arc<ConnectOptions>) -> Self {
        Self { options, live: None }
    }

    /// Gives the connection up. Whoever asks next gets another one, to the server that answers then.
    pub(crate) fn disconnect(&mut self) {
        self.live = None;
    }

    /// The rows of a query. A connection that was lost since the last query is made again, once.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses the query.
    pub(super) async fn query(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Failure> {
        let outcome = timeout(STATEMENT_TIMEOUT, self.query_without_limit(sql, parameters)).await;
        self.within_limit(outcome)
    }

    async fn query_without_limit(
        &mut self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        let reused = self.live.is_some();
        match self.client().await?.query(sql, parameters).await {
            Err(error) if reused && error.as_db_error().is_none() => {
                debug!(%error, "the catalog connection was lost; connecting again");
                self.live = None;
                self.client().await?.query(sql, parameters).await.map_err(|error| failure_of(&error))
            }
            outcome => outcome.map_err(|error| failure_of(&error)),
        }
    }

    /// The only row of a query.
    pub(super) async fn query_one(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Row, Failure> {
        let mut rows = self.query(sql, parameters).await?;
        match (rows.pop(), rows.is_empty()) {
            (Some(row), true) => Ok(row),
            _ => Err(Failure::new(Code::Internal, format!("a catalog query did not return one row: {sql}"))),
        }
    }

    /// Lets the server read a statement, which must be one; or returns what is wrong with it.
    ///
    /// # Errors
    /// The server cannot be reached, or cannot say for now.
    pub(super) async fn prepare(&mut self, sql: &str) -> Result<Result<(), String>, Failure> {
        let work = async {
            match self.client().await?.prepare(sql).await {
                Ok(statement) if !statement.params().is_empty() => Ok(Err("it has parameters".to_owned())),
                Ok(_) => Ok(Ok(())),
                Err(error) => {
                    let failure = failure_of(&error);
                    // Whatever is wrong with names is wrong with the statement.
                    let is_name = error.code().is_some_and(|code| code.code().starts_with("42"));
                    let is_its_own = is_name || failure.code() == Code::PostgresRefused;
                    if is_its_own { Ok(Err(failure.found().to_owned())) } else { Err(failure) }
                }
            }
        };
        let outcome = timeout(STATEMENT_TIMEOUT, work).await;
        self.within_limit(outcome)
    }

    /// Runs statements that return nothing.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses one of them.
    pub(super) async fn execute(&mut self, sql: &str) -> Result<(), Failure> {
        let work = async { self.client().await?.batch_execute(sql).await.map_err(|error| failure_of(&error)) };
        let outcome = timeout(STATEMENT_TIMEOUT, work).await;
        self.within_limit(outcome)
    }

    /// A server that does not answer is a server that is away: nobody else would notice, while the stream waits. Whoever asks next
    /// gets another connection.
    fn within_limit<T>(&mut self, outcome: Result<Result<T, Failure>, Elapsed>) -> Result<T, Failure> {
        outcome.unwrap_or_else(|_elapsed| {
            self.live = None;
            let seconds = STATEMENT_TIMEOUT.as_secs();
            Err(Failure::new(Code::PostgresUnavailable, format!("a catalog query was not answered within {seconds} s")))
        })
    }

    async fn client(&mut self) -> Result<&Client, Failure> {
        if self.live.as_ref().is_none_or(|live| live.client.is_closed()) {
            self.live = Some(connect(&self.options, &SETTINGS).await?);
        }
        match &self.live {
            Some(live) => Ok(&live.client),
            None => Err(Failure::new(Code::Internal, "the catalog connection is gone")),
        }
    }
}

impl Live {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

pub(super) async fn connect(options: &ConnectOptions, settings: &[(&str, &str)]) -> Result<Live, Failure> {
    // The same startup, TLS and authentication as the replication connection has: one that accepts less would give the password away.
    let socket = options.connect_sql(settings).await.map_err(|error| failures::of_walreceiver(&error))?;
    let (client, connection) = tokio_postgres::Config::new()
        .user(options.user())
        .ssl_mode(tokio_postgres::config::SslMode::Disable)
        .connect_raw(socket, NoTls)
        .await
        .map_err(|error| failure_of(&error))?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, "the catalog connection ended");
        }
    });
    Ok(Live { client, driver })
}

pub(super) fn failure_of(error: &tokio_postgres::Error) -> Failure {
    let Some(server) = error.as_db_error() else {
        // The crate's own text leaves the cause out.
        let source = std::error::Error::source(error);
        let cause = source.map(|cause| format!(": {cause}")).unwrap_or_default();
        // A query whose types are wrong is wrong again.
        let is_defect = source.is_some_and(<dyn std::error::Error>::is::<tokio_postgres::types::WrongType>);
        let code = if is_defect { Code::Internal } else { Code::PostgresUnavailable };
        return Failure::new(code, format!("{error}{cause}"));
    };
    let sqlstate = server.code().code();
    let found = format!("{} (SQLSTATE {sqlstate})", server.message());
    // Connection exceptions, resources, operator intervention, system errors, conflicts and locks (55P03) pass, and a table that
    // was dropped while it was asked about (42P01) is not asked about again; the rest is refused again.
    let passes = ["08", "53", "57", "58", "40", "55P03", "42P01"].iter().any(|class| sqlstate.starts_with(class));
    Failure::new(if passes { Code::PostgresUnavailable } else { Code::PostgresRefused }, found)
}
