//! The server's settings and its replication slots.

use std::time::{Duration, Instant};

use pgoutput::{Lsn, Oid, Timestamp, Xid};
use serde::Deserialize;
use walreceiver::Backoff;

use super::{Catalog, rows::record_end};
use crate::{
    checkpoint::start::Slot,
    config::{self, Origin},
    failure::{Code, Failure},
    snapshot::{FullXid, Visibility},
};

/// Settings that logical replication depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// Such as 180001 for 18.1.
    pub version_num: i32,
    /// `wal_level`.
    pub wal_level: String,
    /// `max_replication_slots`, and how many are taken.
    pub slots: (i64, i64),
    /// `max_wal_senders`, and how many are taken.
    pub senders: (i64, i64),
    /// `wal_sender_timeout`, in milliseconds; 0 is none.
    pub wal_sender_timeout_ms: i64,
    /// `max_slot_wal_keep_size` as the server prints it; -1 is no limit.
    pub max_slot_wal_keep_size: String,
    /// `server_encoding`.
    pub encoding: String,
    /// Whether the role may replicate.
    pub may_replicate: bool,
    /// Whether the server is a standby.
    pub in_recovery: bool,
}

impl ServerSettings {
    /// The oldest version that is supported, 14.
    pub const VERSION_NUM_MIN: i32 = 140_000;

    /// Whether the server is new enough for what the configuration asks for.
    ///
    /// # Errors
    /// The first key that it does not know.
    pub fn verify_wishes(&self, postgres: &config::Postgres) -> Result<(), Failure> {
        let wishes = [
            (
                postgres.origin == Origin::None,
                16,
                "postgres.origin = \"none\"",
                "set it to \"any\", which streams replicated changes too",
            ),
            (postgres.publish_generated_columns, 18, "postgres.publish_generated_columns", "set it to false"),
        ];
        let major = self.version_num / 10_000;
        match wishes.iter().find(|(is_wished, since, ..)| *is_wished && major < *since) {
            Some((_, since, key, otherwise)) => Err(Failure::new(
                Code::PostgresSettings,
                format!(
                    "{key} needs PostgreSQL {since}, and the server is version {major}: {otherwise}, or upgrade the server"
                ),
            )),
            None => Ok(()),
        }
    }

    /// What stands in the way of streaming.
    ///
    /// # Errors
    /// The first thing that does, with the statement that mends it.
    pub fn verify(&self) -> Result<(), Failure> {
        let problem = |text: String| Err(Failure::new(Code::PostgresSettings, text));
        if self.version_num < Self::VERSION_NUM_MIN {
            return problem(format!(
                "the server is version {}, and the oldest supported is 14",
                self.version_num / 10_000
            ));
        }
        if self.wal_level != "logical" {
            return problem(format!(
                "wal_level is {}: run ALTER SYSTEM SET wal_level = 'logical', and restart the server",
                self.wal_level
            ));
        }
        if self.in_recovery {
            // Its timeline changes under the connection when it is promoted, and the checkpoint would not tell.
            return problem("the server is a standby: stream from the primary".to_owned());
        }
        if !self.may_replicate {
            return Err(Failure::new(
                Code::PostgresRefused,
                "the role has no REPLICATION attribute: run ALTER ROLE ... REPLICATION",
            ));
        }
        Ok(())
    }
}

impl Catalog {
    /// What a snapshot sees now.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub(crate) async fn current_snapshot(&mut self) -> Result<Visibility, Failure> {
        let row = self.query_one("SELECT pg_current_snapshot()::text", &[]).await?;
        let text: &str = row.get(0);
        text.parse().map_err(|error| Failure::caused(Code::Internal, error))
    }

    /// Waits for a transaction that has locked a table as who alters it does, until it has ended for who looks. Returns when it was committed, if
    /// the server keeps that (`track_commit_timestamp`) and has it by its own clock.
    ///
    /// The server sends a transaction once its commit is written. It shows it as running until a synchronous standby has it, if there is to be one, and
    /// until then the catalog does not have what it has done.
    ///
    /// # Errors
    /// The server cannot be asked, or the transaction does not end.
    pub(crate) async fn await_alterations(&mut self, xid: Xid, table: Oid) -> Result<Option<Timestamp>, Failure> {
        const ENDED_TIMEOUT: Duration = Duration::from_secs(30);
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(500));
        let (began, number, oid) = (Instant::now(), xid.to_string(), u32::from(table));
        loop {
            let row = self
                .query_one(
                    "SELECT pg_current_snapshot()::text,
                            CASE WHEN current_setting('track_commit_timestamp')::bool THEN
                                (SELECT (extract(epoch FROM committed_at.timestamp) * 1000000)::int8
                                 FROM pg_xact_commit_timestamp_origin($1::text::xid) committed_at WHERE committed_at.roident = 0) END",
                    &[&number],
                )
                .await?;
            let snapshot: Visibility =
                row.get::<_, &str>(0).parse().map_err(|error| Failure::caused(Code::Internal, error))?;
            if snapshot.has_ended(xid) {
                return Ok(row.get::<_, Option<i64>>(1).map(Timestamp::from_unix_micros));
            }
            let row = self
                .query_one(
                    "SELECT EXISTS (SELECT FROM pg_locks own JOIN pg_locks held USING (virtualtransaction)
                                    WHERE own.locktype = 'transactionid' AND own.transactionid = $1::text::xid AND own.granted
                                          AND held.locktype = 'relation' AND held.relation = $2 AND held.granted
                                          AND held.mode = 'AccessExclusiveLock')",
                    &[&number, &oid],
                )
                .await?;
            if !row.get::<_, bool>(0) {
                // It may have ended before its locks were looked at, and they are held for no longer than that.
                if !self.current_snapshot().await?.has_ended(xid) {
                    return Ok(None);
                }
                continue;
            }
            if began.elapsed() >= ENDED_TIMEOUT {
                let found = format!(
                    "transaction {xid} was sent, and for {} s the server has shown it as running and as altering the table: it waits for a synchronous standby, \
                     which pgsluice must not be itself (synchronous_standby_names)",
                    ENDED_TIMEOUT.as_secs()
                );
                return Err(Failure::new(Code::PostgresUnavailable, found));
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// What the slot needs of the catalog: transactions that are older had ended before anything that it is still to send. None if there is no such slot.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub(crate) async fn catalog_xmin(&mut self, slot: &str) -> Result<Option<FullXid>, Failure> {
        let rows = self
            .query(
                "SELECT pg_current_snapshot()::text, catalog_xmin::text::int8 FROM pg_replication_slots WHERE slot_name = $1",
                &[&slot],
            )
            .await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let Some(xmin) = row.get::<_, Option<i64>>(1) else { return Ok(None) };
        let internal = |error: &dyn std::fmt::Display| Failure::new(Code::Internal, error.to_string());
        let snapshot: Visibility = row.get::<_, &str>(0).parse().map_err(|error| internal(&error))?;
        let xmin = u32::try_from(xmin).map_err(|error| internal(&error))?;
        Ok(Some(snapshot.near(xmin.into())))
    }

    /// Assigns a transaction id: every transaction that had one before has a lower one.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn assign_xid(&mut self) -> Result<u64, Failure> {
        let row = self.query_one("SELECT pg_current_xact_id()::text", &[]).await?;
        let text: &str = row.get(0);
        text.parse().map_err(|_| Failure::new(Code::Internal, format!("{text:?} is no transaction id")))
    }

    /// The end of the log, before which every commit lies that anybody sees, and whether all of it is flushed, so that the stream comes there by itself.
    ///
    /// # Errors
    /// The server cannot be asked, or is a standby.
    pub(crate) async fn log_end(&mut self) -> Result<(Lsn, bool), Failure> {
        let sql = "SELECT pg_current_wal_insert_lsn()::text, current_setting('wal_block_size')::int8, pg_current_wal_flush_lsn()::text";
        let row = self.query_one(sql, &[]).await?;
        let lsn = |column| {
            let text: &str = row.get(column);
            text.parse::<Lsn>().map_err(|error| Failure::caused(Code::Internal, error))
        };
        let end = record_end(lsn(0)?, u64::try_from(row.get::<_, i64>(1)).unwrap_or_default());
        Ok((end, lsn(2)? >= end))
    }

    /// Has the server give up the statement of another connection of ours.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub(crate) async fn cancel(&mut self, backend_pid: i32) -> Result<(), Failure> {
        self.query("SELECT pg_cancel_backend($1)", &[&backend_pid]).await.map(drop)
    }

    /// How far the server's log is written.
    ///
    /// # Errors
    /// The server cannot be asked, or is a standby.
    pub async fn flush_lsn(&mut self) -> Result<Lsn, Failure> {
        let row = self.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await?;
        let text: &str = row.get(0);
        text.parse().map_err(|error| Failure::caused(Code::Internal, error))
    }

    /// The server's settings.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses the query.
    pub async fn server_settings(&mut self) -> Result<ServerSettings, Failure> {
        let row = self
            .query_one(
                "SELECT current_setting('server_version_num')::int4,
                        current_setting('wal_level'),
                        current_setting('max_replication_slots')::int8,
                        (SELECT count(*) FROM pg_replication_slots),
                        current_setting('max_wal_senders')::int8,
                        (SELECT count(*) FROM pg_stat_get_wal_senders()),
                        (SELECT setting::int8 FROM pg_settings WHERE name = 'wal_sender_timeout'),
                        current_setting('max_slot_wal_keep_size'),
                        current_setting('server_encoding'),
                        (SELECT rolsuper OR rolreplication
                             OR EXISTS (SELECT FROM pg_roles managed
                                        WHERE managed.rolname IN ('rds_replication', 'rds_superuser')
                                          AND pg_has_role(current_user, managed.oid, 'MEMBER'))
                         FROM pg_roles WHERE rolname = current_user),
                        pg_is_in_recovery()",
                &[],
            )
            .await?;
        Ok(ServerSettings {
            version_num: row.get(0),
            wal_level: row.get(1),
            slots: (row.get(2), row.get(3)),
            senders: (row.get(4), row.get(5)),
            wal_sender_timeout_ms: row.get(6),
            max_slot_wal_keep_size: row.get(7),
            encoding: row.get(8),
            may_replicate: row.get::<_, Option<bool>>(9).unwrap_or(false),
            in_recovery: row.get(10),
        })
    }

    /// The replication slot of this name, if it exists.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses the query.
    pub async fn slot(&mut self, name: &str) -> Result<Option<Slot>, Failure> {
        // The view has grown with each version; as JSON, what is missing is simply not there.
        let rows = self
            .query("SELECT to_jsonb(slot)::text FROM pg_replication_slots slot WHERE slot_name = $1", &[&name])
            .await?;
        rows.first().map(|row| parse_slot(name, row.get(0))).transpose()
    }
}

#[derive(Deserialize)]
struct SlotRow {
    plugin: Option<String>,
    database: Option<String>,
    temporary: bool,
    #[serde(default)]
    active: bool,
    confirmed_flush_lsn: Option<String>,
    wal_status: Option<String>,
    #[serde(default)]
    two_phase: bool,
    #[serde(default)]
    conflicting: Option<bool>,
    #[serde(default)]
    invalidation_reason: Option<String>,
}

fn parse_slot(name: &str, json: &str) -> Result<Slot, Failure> {
    let unreadable = |what: String| Failure::new(Code::Internal, format!("pg_replication_slots for {name}: {what}"));
    let row: SlotRow = serde_json::from_str(json).map_err(|error| unreadable(error.to_string()))?;
    let confirmed_flush_lsn = match &row.confirmed_flush_lsn {
        Some(text) => text.parse().map_err(|error| unreadable(format!("{error}")))?,
        None => Lsn::INVALID,
    };
    let has_no_position = row.plugin.is_some() && !confirmed_flush_lsn.is_valid();
    let being_created = has_no_position && row.active;
    let lost = match (&row.invalidation_reason, row.wal_status.as_deref(), row.conflicting) {
        (Some(reason), _, _) => Some(format!("the server has invalidated it: {reason}")),
        (None, Some("lost"), _) => Some("its wal_status is lost: the server has removed log that it needs".to_owned()),
        (None, _, Some(true)) => Some("it conflicts with recovery".to_owned()),
        // Nobody is creating it any more.
        (None, _, _) if has_no_position && !row.active => Some("its creation did not finish".to_owned()),
        _ => None,
    };
    Ok(Slot {
        plugin: row.plugin,
        database: row.database,
        temporary: row.temporary,
        two_phase: row.two_phase,
        confirmed_flush_lsn,
        being_created,
        lost,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, lost: Option<&str>) {
        let slot = parse_slot("s", json).expect("it is read");
        assert_eq!(slot.confirmed_flush_lsn, Lsn::from(16));
        match (&slot.lost, lost) {
            (None, None) => {}
            (Some(found), Some(expect)) => assert!(found.contains(expect), "{found}"),
            (found, _) => panic!("lost is {found:?} for {json}"),
        }
    }

    #[test]
    fn every_version_says_in_its_way_that_a_slot_is_lost() {
        let base = r#""plugin":"pgoutput","database":"app","temporary":false,"confirmed_flush_lsn":"0/10""#;
        check(&format!(r#"{{{base},"wal_status":"reserved","two_phase":false}}"#), None);
        check(&format!(r#"{{{base},"wal_status":"extended"}}"#), None);
        check(&format!(r#"{{{base},"wal_status":"unreserved"}}"#), None);
        check(&format!(r#"{{{base},"wal_status":"lost"}}"#), Some("wal_status is lost"));
        check(&format!(r#"{{{base},"wal_status":"reserved","conflicting":true}}"#), Some("conflicts"));
        check(
            &format!(r#"{{{base},"wal_status":"lost","conflicting":false,"invalidation_reason":"idle_timeout"}}"#),
            Some("idle_timeout"),
        );
    }
}
