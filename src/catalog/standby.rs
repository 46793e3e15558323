//! Rows as a standby has them: what [`RowReader`] asks besides where it reads at one, and whether that is a standby of the server that is streamed from.
//!
//! Why a chunk may be read there, and what has to be asked for in which order, is in [`Windows`](crate::snapshot::Windows).

use std::{collections::BTreeMap, sync::Arc};

use pgoutput::{Lsn, Oid};
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};
use walreceiver::{ConnectOptions, ReplicationClient, ServerSession};

use super::{
    Catalog, RowReader,
    rows::{gone, number},
    snapshot::fingerprint,
};
use crate::{
    failure::{Code, Failure},
    failures,
    snapshot::{Ceiling, Visibility},
};

/// Whether a server is no standby that replays log by itself, though it says that it is in recovery: replicas of Aurora share the primary's storage, and what their
/// snapshots see is not said in terms of the log.
const REPLAYS_NOTHING: &str = "pg_last_wal_replay_lsn() IS NULL OR to_regproc('pg_catalog.aurora_version') IS NOT NULL";
/// What is said of such a one.
pub(crate) const REPLAYS_NOTHING_FOUND: &str = "does not replay the log of the primary, as a replica of Aurora does not, which shares its storage: what a snapshot there sees cannot be told";

/// The versions of what orders text, and settings by which values are printed that no session of ours sets. The database's own collation says its version itself since
/// version 15; before that those of the same name do.
const TEXT_ORDER: &str =
    "SELECT coalesce(string_agg(DISTINCT concat_ws(' ', collprovider, coalesce(nullif(collcollate, ''), collname),
                                                                       coalesce(pg_collation_actual_version(oid), '-')), ', '), '')
            || '; lc_monetary ' || current_setting('lc_monetary') || ', quote_all_identifiers ' || current_setting('quote_all_identifiers')
     FROM pg_collation
     WHERE oid = 100 OR collcollate = (SELECT datcollate FROM pg_database WHERE datname = current_database())
        OR oid IN (SELECT unnest(indcollation) FROM pg_index WHERE indrelid >= 16384)";

/// Whether what both servers have is the same: settings, and versions of collations. One that only one of them has is that of an index that the other does not
/// have, or not yet; a table's own indexes are compared with the table.
pub(crate) fn is_same_order(there: &str, here: &str) -> bool {
    let parts = |order: &str| -> (BTreeMap<String, String>, String) {
        let (collations, settings) = order.split_once("; ").unwrap_or((order, ""));
        let versions = collations.split(", ").filter_map(|collation| collation.rsplit_once(' '));
        (versions.map(|(name, version)| (name.to_owned(), version.to_owned())).collect(), settings.to_owned())
    };
    let ((there, there_prints), (here, here_prints)) = (parts(there), parts(here));
    let differs = |(name, version): (&String, &String)| here.get(name).is_some_and(|here| here != version);
    there_prints == here_prints && !there.iter().any(differs)
}

/// How far a standby has come.
#[derive(Debug)]
pub(crate) struct Replayed {
    /// The end of the last record that was replayed wholly: what a snapshot that is taken later sees ends there or behind it.
    pub(crate) lsn: Lsn,
    /// From which id on nothing is seen yet.
    pub(crate) ceiling: Ceiling,
}

/// A snapshot that was taken at a standby.
#[derive(Debug)]
pub(crate) struct TakenAtStandby {
    /// From which id on it sees nothing.
    pub(crate) ceiling: Ceiling,
    /// What the table is like, as [`Catalog::fingerprint`] has it.
    pub(crate) fingerprint: String,
    /// How far the log was replayed afterwards: the primary's does not end before that.
    pub(crate) replayed_after: Lsn,
    /// Who has taken it.
    pub(crate) session: ServerSession,
    /// When that was, in microseconds since 1970.
    pub(crate) taken_unix_us: i64,
}

/// The primary's log, and what runs there, as asked for after a snapshot was taken at a standby.
#[derive(Debug)]
pub(crate) struct PrimaryLook {
    /// The end of the log.
    pub(crate) log_end: Lsn,
    /// Whether all of it was flushed, so that stream and standby come there by themselves.
    pub(crate) is_flushed: bool,
    /// The timeline of the log.
    pub(crate) timeline: u32,
    pub(crate) visibility: Visibility,
}

/// The server that is streamed from, by what its standbys have in common with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cluster {
    pub(crate) system_identifier: u64,
    pub(crate) timeline: u32,
}

/// A replication connection to a standby, for what only such a one is told: of which cluster it is, and on which timeline it replays.
pub(crate) struct StandbyIdentity {
    options: Arc<ConnectOptions>,
    client: Option<ReplicationClient>,
}

/// What the same failure means where the server is the standby that rows are read from.
pub(crate) fn at_standby(failure: &Failure, options: &ConnectOptions) -> Failure {
    let code = match failure.code() {
        // 40001, and 40P01 for a buffer, are how recovery ends what is in its way.
        Code::PostgresUnavailable if failure.found().contains("(SQLSTATE 40") => Code::StandbyConflict,
        Code::PostgresUnavailable => Code::StandbyUnavailable,
        code => code,
    };
    Failure::new(code, format!("the standby at {}: {}", options.server(), failure.found()))
}

/// That rows are not read from a server.
pub(crate) fn unfit(options: &ConnectOptions, found: &str) -> Failure {
    Failure::new(Code::StandbyUnfit, format!("the server at {} {found}", options.server()))
}

impl RowReader {
    /// How far the standby has replayed the log. What [`begin_at_standby`](Self::begin_at_standby) takes after that sees at least so much, for it is the same
    /// connection.
    ///
    /// # Errors
    /// It cannot be reached, or is no standby.
    pub(crate) async fn replayed(&mut self) -> Result<Replayed, Failure> {
        self.connect_if_needed().await?;
        let sql =
            format!("SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn(), pg_current_snapshot(), {REPLAYS_NOTHING}");
        let row = self.row(&sql).await?;
        self.verify_recovery(&row, 0)?;
        if value(&row, 3) == "t" {
            return Err(unfit(&self.options, REPLAYS_NOTHING_FOUND));
        }
        Ok(Replayed { lsn: number(value(&row, 1))?, ceiling: number(value(&row, 2))? })
    }

    /// Begins a transaction as [`begin`](Self::begin) does, at the standby whose progress was asked for before.
    ///
    /// # Errors
    /// The connection over which that was is gone, the server refuses the lock, or was promoted.
    pub(crate) async fn begin_at_standby(
        &mut self,
        schema: &str,
        table: &str,
        oid: Oid,
    ) -> Result<TakenAtStandby, Failure> {
        // As in `begin`. What is asked for is evaluated after the snapshot is taken; a server that is a standby then was one before.
        let statements = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE {}.{} IN ACCESS SHARE MODE; \
             SELECT pg_is_in_recovery(), pg_current_snapshot(), pg_last_wal_replay_lsn(), \
             (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, {}, pg_backend_pid(), \
             (SELECT (date_part('epoch', backend_start) * 1000000)::int8 FROM pg_stat_get_activity(pg_backend_pid())), \
             (date_part('epoch', pg_postmaster_start_time()) * 1000000)::int8",
            escape_identifier(schema),
            escape_identifier(table),
            fingerprint(oid)
        );
        let row = self.row(&statements).await?;
        self.verify_recovery(&row, 0)?;
        let pid = number(value(&row, 5))?;
        self.backend_pid = Some(pid);
        Ok(TakenAtStandby {
            ceiling: number(value(&row, 1))?,
            replayed_after: number(value(&row, 2))?,
            taken_unix_us: number(value(&row, 3))?,
            fingerprint: value(&row, 4).to_owned(),
            session: ServerSession { pid, began_us: number(value(&row, 6))?, server_began_us: number(value(&row, 7))? },
        })
    }

    /// How text is ordered in the indexes of the database, and values are printed, as [`Catalog::text_order`] has it; none where that was found to be right for this connection.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) async fn text_order_once(&mut self) -> Result<Option<String>, Failure> {
        if self.is_order_verified {
            return Ok(None);
        }
        Ok(Some(value(&self.row(TEXT_ORDER).await?, 0).to_owned()))
    }

    /// That was right.
    pub(crate) fn text_order_is_verified(&mut self) {
        self.is_order_verified = true;
    }

    async fn row(&mut self, statements: &str) -> Result<SimpleQueryRow, Failure> {
        let client = self.live.as_ref().ok_or_else(gone).map_err(|failure| self.failed(failure))?.client();
        let answers = client.simple_query(statements).await.map_err(|error| self.failure_of(&error))?;
        let row = answers.into_iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        row.ok_or_else(|| Failure::new(Code::Internal, "a query did not return a row"))
    }

    fn verify_recovery(&self, row: &SimpleQueryRow, column: usize) -> Result<(), Failure> {
        if value(row, column) == "t" {
            return Ok(());
        }
        Err(unfit(&self.options, "is no standby, or was promoted: it is not in recovery (pg_is_in_recovery())"))
    }
}

impl StandbyIdentity {
    pub(crate) fn new(options: Arc<ConnectOptions>) -> Self {
        Self { options, client: None }
    }

    /// Asks whether the server of a session, which has taken a snapshot already, replays the log of this cluster still. A standby goes from one timeline to
    /// another only forward, so that the snapshot was of this one, or of what both have in common.
    ///
    /// # Errors
    /// It does not, or cannot be asked.
    pub(crate) async fn verify(&mut self, session: &ServerSession, of: Cluster) -> Result<(), Failure> {
        let is_reused = self.client.is_some();
        let (mut is_same, mut found) = self.look(session).await?;
        if !is_same && is_reused {
            // The name may lead to another server by now.
            self.client = None;
            (is_same, found) = self.look(session).await?;
        }
        if !is_same {
            self.client = None;
            let found = "is not one server: two connections to it have led to two of them. Name one of them";
            return Err(unfit(&self.options, found));
        }
        if found.system_identifier != of.system_identifier {
            let found = format!(
                "belongs to another cluster: its system identifier is {}, and that of the server that is streamed from {}",
                found.system_identifier, of.system_identifier
            );
            return Err(unfit(&self.options, &found));
        }
        if found.timeline != of.timeline {
            let found =
                format!("replays timeline {}, and the stream comes from timeline {}", found.timeline, of.timeline);
            return Err(unfit(&self.options, &found));
        }
        Ok(())
    }

    async fn look(&mut self, session: &ServerSession) -> Result<(bool, Cluster), Failure> {
        let looked = self.try_look(session).await;
        looked.map_err(|error| {
            self.client = None;
            at_standby(&failures::of_walreceiver(&error), &self.options)
        })
    }

    async fn try_look(&mut self, session: &ServerSession) -> Result<(bool, Cluster), walreceiver::Error> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(ReplicationClient::connect(&self.options).await?),
        };
        let is_same = client.has_session(session).await?;
        let identity = client.identify_system().await?;
        Ok((is_same, Cluster { system_identifier: identity.system_id, timeline: identity.timeline }))
    }

    /// Gives the connection up.
    pub(crate) fn disconnect(&mut self) {
        self.client = None;
    }
}

/// A standby as `check` looks at it.
#[derive(Debug)]
pub(crate) struct StandbyState {
    /// Whether it is one.
    pub(crate) in_recovery: bool,
    /// Whether it says so, and does not replay the primary's log.
    pub(crate) replays_nothing: bool,
    /// `hot_standby_feedback`
    pub(crate) has_feedback: bool,
    /// `max_standby_streaming_delay`; -1 is no limit.
    pub(crate) max_streaming_delay_ms: i64,
    /// `pg_last_wal_replay_lsn()`
    pub(crate) replayed: Option<Lsn>,
    /// `pg_is_wal_replay_paused()`
    pub(crate) is_paused: bool,
    /// `recovery_min_apply_delay`
    pub(crate) apply_delay_ms: i64,
}

impl Catalog {
    /// What a standby is like.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub(crate) async fn standby_state(&mut self) -> Result<StandbyState, Failure> {
        let sql = format!(
            "SELECT pg_is_in_recovery(), current_setting('hot_standby_feedback')::bool,
                          (SELECT setting::int8 FROM pg_settings WHERE name = 'max_standby_streaming_delay'),
                          pg_last_wal_replay_lsn()::text, CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END,
                          (SELECT setting::int8 FROM pg_settings WHERE name = 'recovery_min_apply_delay'), {REPLAYS_NOTHING}"
        );
        let row = self.query_one(&sql, &[]).await?;
        let replayed = row.get::<_, Option<&str>>(3).map(str::parse).transpose();
        Ok(StandbyState {
            in_recovery: row.get(0),
            replays_nothing: row.get(6),
            has_feedback: row.get(1),
            max_streaming_delay_ms: row.get(2),
            replayed: replayed.map_err(|error: pgoutput::ParseLsnError| Failure::caused(Code::Internal, error))?,
            is_paused: row.get(4),
            apply_delay_ms: row.get(5),
        })
    }

    /// Where the primary's log ends, and what runs there.
    ///
    /// # Errors
    /// The server cannot be asked, or is a standby.
    pub(crate) async fn primary_look(&mut self) -> Result<PrimaryLook, Failure> {
        let sql = "SELECT pg_current_wal_insert_lsn()::text, current_setting('wal_block_size')::int8, pg_current_wal_flush_lsn()::text,
                          pg_walfile_name(pg_current_wal_insert_lsn()), pg_current_snapshot()::text";
        let row = self.query_one(sql, &[]).await?;
        let internal = |error: &dyn std::fmt::Display| Failure::new(Code::Internal, error.to_string());
        let lsn = |column| row.get::<_, &str>(column).parse::<Lsn>().map_err(|error| internal(&error));
        let log_end = super::rows::record_end(lsn(0)?, u64::try_from(row.get::<_, i64>(1)).unwrap_or_default());
        let segment: &str = row.get(3);
        // A segment's name begins with its timeline.
        let timeline = segment.get(..8).and_then(|timeline| u32::from_str_radix(timeline, 16).ok());
        Ok(PrimaryLook {
            log_end,
            is_flushed: lsn(2)? >= log_end,
            timeline: timeline.ok_or_else(|| internal(&format!("{segment:?} is no segment of the log")))?,
            visibility: row.get::<_, &str>(4).parse().map_err(|error| internal(&error))?,
        })
    }

    /// By which versions of which libraries text is ordered in the indexes of the database, and how some values are printed, in a word. A standby has the primary's
    /// indexes, and if its libraries order text otherwise, rows are not found where they lie in them; and a key that is printed otherwise is taken for another.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub(crate) async fn text_order(&mut self) -> Result<String, Failure> {
        Ok(self.query_one(TEXT_ORDER, &[]).await?.get(0))
    }
}

fn value(row: &SimpleQueryRow, column: usize) -> &str {
    row.get(column).unwrap_or_default()
}
