//! The rows of a table, as one snapshot of the server has them.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::TryStreamExt;
use pgoutput::{Lsn, Oid};
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::{CopyOutStream, SimpleQueryMessage};
use walreceiver::ConnectOptions;

use super::{
    connection::{Live, connect, failure_of},
    snapshot::fingerprint,
    standby::at_standby,
};
use crate::{
    failure::{Code, Failure},
    snapshot::Visibility,
};

/// A connection that reads rows: in short transactions, with no lock that is stronger than any SELECT's.
///
/// `row_security = off` makes the server refuse to read a table whose policies would hide rows, rather than hide them.
pub(crate) struct RowReader {
    pub(super) options: Arc<ConnectOptions>,
    /// Whether the server is a standby of the one that is streamed from.
    is_at_standby: bool,
    /// Whether the standby's way to order text was found to be the primary's.
    pub(super) is_order_verified: bool,
    settings: Vec<(&'static str, String)>,
    pub(super) live: Option<Live>,
    /// The process at the server that has read, or reads, for the connection that there is.
    pub(super) backend_pid: Option<i32>,
}

/// What a snapshot sees, and where the log ended when that was asked for.
#[derive(Debug)]
pub(crate) struct TakenSnapshot {
    /// `pg_current_snapshot()`
    pub(crate) visibility: Visibility,
    /// What the table is like, as [`Catalog::fingerprint`](super::Catalog::fingerprint) has it.
    pub(crate) fingerprint: String,
    /// The end of the log: every commit that the snapshot sees lies before it.
    pub(crate) insert_lsn: Lsn,
    /// Whether all of it was flushed, so that the stream comes there by itself.
    pub(crate) is_flushed: bool,
    /// When it was taken, in microseconds since 1970.
    pub(crate) taken_unix_us: i64,
}

impl RowReader {
    /// A reader that connects when it is first asked. A statement is given up after `statement_timeout`.
    pub(crate) fn new(options: Arc<ConnectOptions>, statement_timeout: Duration) -> Self {
        let settings = vec![
            ("search_path", "pg_catalog".to_owned()),
            ("row_security", "off".to_owned()),
            ("lock_timeout", "10s".to_owned()),
            ("statement_timeout", statement_timeout.as_millis().to_string()),
            // A lock is held for as long as something comes, and no longer.
            ("idle_in_transaction_session_timeout", "30s".to_owned()),
            // A row is wanted at once, as many as there are.
            ("cursor_tuple_fraction", "1".to_owned()),
        ];
        Self { options, is_at_standby: false, is_order_verified: false, settings, live: None, backend_pid: None }
    }

    /// The same at a standby.
    pub(crate) fn at_standby(options: Arc<ConnectOptions>, statement_timeout: Duration) -> Self {
        Self { is_at_standby: true, ..Self::new(options, statement_timeout) }
    }

    /// Whether it reads at a standby.
    pub(crate) fn is_at_standby(&self) -> bool {
        self.is_at_standby
    }

    /// Begins a transaction that takes the lock of a SELECT on the table, so that nobody alters it until [`end`](Self::end), and then its snapshot.
    ///
    /// All in one message, since each answer that is waited for is waited for in each chunk.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses the lock.
    pub(crate) async fn begin(&mut self, schema: &str, table: &str, oid: Oid) -> Result<TakenSnapshot, Failure> {
        self.connect_if_needed().await?;
        // The snapshot is taken by the first statement that needs one, which LOCK does not; and functions are evaluated after that.
        let statements = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE {}.{} IN ACCESS SHARE MODE; \
             SELECT pg_current_snapshot(), pg_current_wal_insert_lsn(), current_setting('wal_block_size'), pg_current_wal_flush_lsn(), \
             (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, {}, pg_backend_pid()",
            escape_identifier(schema),
            escape_identifier(table),
            fingerprint(oid)
        );
        let client = self.live.as_ref().ok_or_else(gone)?.client();
        let answers = client.simple_query(&statements).await.map_err(|error| self.failure_of(&error))?;
        let row = answers.iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let value = |column| row.and_then(|row| row.get(column)).unwrap_or_default();
        let insert_lsn = record_end(number(value(1))?, number(value(2))?);
        self.backend_pid = Some(number(value(6))?);
        Ok(TakenSnapshot {
            visibility: number(value(0))?,
            fingerprint: value(5).to_owned(),
            insert_lsn,
            is_flushed: number::<Lsn>(value(3))? >= insert_lsn,
            taken_unix_us: number(value(4))?,
        })
    }

    pub(super) async fn connect_if_needed(&mut self) -> Result<(), Failure> {
        if self.live.as_ref().is_none_or(Live::is_closed) {
            let settings: Vec<_> = self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
            self.is_order_verified = false;
            let connected = connect(&self.options, &settings).await;
            self.live = Some(connected.map_err(|failure| self.failed(failure))?);
        }
        Ok(())
    }

    pub(super) fn failure_of(&self, error: &tokio_postgres::Error) -> Failure {
        self.failed(failure_of(error))
    }

    /// What a failure means at this server.
    pub(super) fn failed(&self, failure: Failure) -> Failure {
        if self.is_at_standby { at_standby(&failure, &self.options) } else { failure }
    }

    /// The values of the first row of a query, none of which is null; none if there is no row.
    ///
    /// # Errors
    /// The server refuses it.
    pub(crate) async fn first_row(&mut self, query: &str) -> Result<Option<Vec<String>>, Failure> {
        Ok(self.all_rows(query).await?.into_iter().next())
    }

    /// The same of all rows, of which there are few.
    ///
    /// # Errors
    /// The server refuses it.
    pub(crate) async fn all_rows(&mut self, query: &str) -> Result<Vec<Vec<String>>, Failure> {
        let client = self.live.as_ref().ok_or_else(|| self.failed(gone()))?.client();
        let answers = client.simple_query(query).await.map_err(|error| self.failure_of(&error))?;
        let values = |answer: &SimpleQueryMessage| match answer {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).unwrap_or_default().to_owned()).collect())
            }
            _ => None,
        };
        Ok(answers.iter().filter_map(values).collect())
    }

    /// The lines of `COPY ... TO STDOUT`.
    ///
    /// # Errors
    /// The server refuses it.
    pub(crate) async fn copy(&mut self, statement: &str) -> Result<Lines, Failure> {
        let client = self.live.as_ref().ok_or_else(|| self.failed(gone()))?.client();
        let stream = client.copy_out(statement).await.map_err(|error| self.failure_of(&error))?;
        Ok(Lines { stream: Box::pin(stream), standby: self.is_at_standby.then(|| Arc::clone(&self.options)) })
    }

    /// How many bytes the table whose lock is held has with its partitions, large values among them, and how many blocks without these: of files, whose rows
    /// are not looked at, and which statistics may not know yet.
    ///
    /// # Errors
    /// The server refuses it.
    pub(crate) async fn size(&mut self, table: Oid) -> Result<(u64, u64), Failure> {
        let query = format!(
            "WITH RECURSIVE tree AS (
                 SELECT {}::oid AS oid
                 UNION ALL
                 SELECT inhrelid FROM tree JOIN pg_inherits ON inhparent = tree.oid
                 JOIN pg_class ON pg_class.oid = inhrelid AND relispartition)
             SELECT coalesce(sum(pg_table_size(oid)), 0)::int8,
                    coalesce(sum(pg_relation_size(oid) / current_setting('block_size')::int8), 0)::int8
             FROM tree JOIN pg_class USING (oid) WHERE relkind = 'r'",
            u32::from(table)
        );
        let row = self.first_row(&query).await?.unwrap_or_default();
        let value = |column: usize| number(row.get(column).map_or("", String::as_str));
        Ok((value(0)?, value(1)?))
    }

    /// Ends the transaction, and with it the lock, and returns the table's fingerprint as it is now.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) async fn end_and_look(&mut self, table: Oid) -> Result<String, Failure> {
        let client = self.live.as_ref().ok_or_else(|| self.failed(gone()))?.client();
        let statements = format!("ROLLBACK; SELECT {}", fingerprint(table));
        let answers = client.simple_query(&statements).await.map_err(|error| self.failure_of(&error))?;
        let row = answers.iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        Ok(row.unwrap_or_default().to_owned())
    }

    /// Ends the transaction, and with it the lock; there is none once the connection was given up.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) async fn end(&mut self) -> Result<(), Failure> {
        let Some(live) = &self.live else { return Ok(()) };
        live.client().batch_execute("ROLLBACK").await.map_err(|error| self.failure_of(&error))
    }

    /// Gives the connection up, with whatever was still to come on it, and returns the process at the server: it may go on with a statement until it
    /// has something to send.
    pub(crate) fn disconnect(&mut self) -> Option<i32> {
        self.live = None;
        self.backend_pid.take()
    }
}

/// The lines of a COPY, as they come.
pub(crate) struct Lines {
    stream: Pin<Box<CopyOutStream>>,
    /// That they come from, if they come from one.
    standby: Option<Arc<ConnectOptions>>,
}

impl Lines {
    /// The next line; none after the last one.
    ///
    /// # Errors
    /// The server has given up, or the connection is lost.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        self.stream.try_next().await.map_err(|error| match &self.standby {
            Some(options) => at_standby(&failure_of(&error), options),
            None => failure_of(&error),
        })
    }
}

pub(super) fn number<T: std::str::FromStr>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| Failure::new(Code::Internal, format!("the server says {text:?} where a number is")))
}

/// Where the last record ends, given where the next one will begin: at the start of a page that is behind the page's header, of 24 bytes or, at
/// the start of a segment, 40 (`SizeOfXLogShortPHD`, `SizeOfXLogLongPHD`). The stream's positions never come that far on a server where nothing happens.
pub(super) fn record_end(insert_lsn: Lsn, page_bytes: u64) -> Lsn {
    let lsn = u64::from(insert_lsn);
    match lsn % page_bytes.max(1) {
        header @ (24 | 40) => Lsn::from(lsn - header),
        _ => insert_lsn,
    }
}

pub(super) fn gone() -> Failure {
    Failure::new(Code::PostgresUnavailable, "the connection that reads rows is gone")
}
