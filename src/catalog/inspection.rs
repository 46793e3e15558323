//! What `pgsluice check` asks beyond what a stream needs: privileges, the slot's state, and what patterns do not match.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Catalog, PublishedTable};
use crate::failure::{Code, Failure};

/// The role that the stream connects as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Whether it may create a publication in this database.
    pub may_create_in_database: bool,
}

/// What a role needs to stream, whatever it is to stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicationRole {
    /// LOGIN.
    pub may_log_in: bool,
    /// REPLICATION, or what stands for it on Amazon RDS.
    pub may_replicate: bool,
    /// CONNECT on the database.
    pub may_connect: bool,
}

/// What the role lacks on a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePrivileges {
    /// The table.
    pub table: PublishedTable,
    /// USAGE on its schema.
    pub may_use_schema: bool,
    /// SELECT on it.
    pub may_select: bool,
    /// Whether the role owns it, or is a member of the role that does: only an owner adds a table to a publication.
    pub is_owner: bool,
    /// The owner.
    pub owner: String,
}

/// What a setting is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// In the unit of the setting, as `pg_settings` has it.
    pub raw: String,
    /// As `SHOW` prints it.
    pub shown: String,
}

/// What becomes of a replication slot, of which the view has more in each version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct SlotState {
    /// Who reads from it: `active_pid`.
    pub active_pid: Option<i32>,
    /// The reader's `application_name`.
    pub active_application: Option<String>,
    /// The reader's address; none for a Unix socket.
    pub active_address: Option<String>,
    /// `wal_status`: `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// How much may still be written before the slot is in danger; none for no limit.
    pub safe_wal_size: Option<i64>,
    /// Log that is kept for the slot, in bytes.
    pub retained_bytes: Option<i64>,
    /// Since when nobody reads from it (17).
    pub inactive_since: Option<String>,
    /// Whether standbys keep a copy (17).
    pub failover: Option<bool>,
}

/// A replication slot of somebody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherSlot {
    /// Its name.
    pub name: String,
    /// Whether it is a standby's, or another that takes the log as it is.
    pub is_physical: bool,
    /// Whether somebody reads from it.
    pub is_active: bool,
    /// `wal_status`.
    pub wal_status: Option<String>,
    /// Log that is kept for it, in bytes; none before anybody has read from it.
    pub retained_bytes: Option<i64>,
    /// How many transactions ago those began whose dead rows it keeps from VACUUM, in tables or in the catalog.
    pub xmin_age: Option<i64>,
}

/// Something of the name that a pattern gives, which the pattern does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss {
    /// Schema and name.
    pub table: PublishedTable,
    /// What it is when it is no ordinary table, such as `a view`.
    pub unfit: Option<&'static str>,
}

impl Catalog {
    /// Makes every transaction of this connection read-only, so that nothing here can change anything by mistake.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses the connection.
    pub async fn connect_read_only(&mut self) -> Result<(), Failure> {
        self.execute("SET default_transaction_read_only = on").await
    }

    /// The role of this connection.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn role(&mut self) -> Result<Role, Failure> {
        let row = self
            .query_one("SELECT current_user::text, has_database_privilege(current_database(), 'CREATE')", &[])
            .await?;
        Ok(Role { name: row.get(0), may_create_in_database: row.get(1) })
    }

    /// Settings by name; those that this version does not have are left out.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn settings(&mut self, names: &[&str]) -> Result<BTreeMap<String, Setting>, Failure> {
        let rows = self
            .query("SELECT name, setting, current_setting(name) FROM pg_settings WHERE name = ANY($1)", &[&names])
            .await?;
        Ok(rows.iter().map(|row| (row.get(0), Setting { raw: row.get(1), shown: row.get(2) })).collect())
    }

    /// What a role may do, if it exists.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn replication_role(&mut self, name: &str) -> Result<Option<ReplicationRole>, Failure> {
        let rows = self
            .query(
                "SELECT rolcanlogin,
                        rolsuper OR rolreplication
                            OR EXISTS (SELECT FROM pg_roles managed WHERE managed.rolname IN ('rds_replication', 'rds_superuser')
                                                                      AND pg_has_role(role.oid, managed.oid, 'MEMBER')),
                        has_database_privilege(role.oid, current_database(), 'CONNECT')
                 FROM pg_roles role WHERE rolname = $1",
                &[&name],
            )
            .await?;
        Ok(rows.first().map(|row| ReplicationRole {
            may_log_in: row.get(0),
            may_replicate: row.get(1),
            may_connect: row.get(2),
        }))
    }

    /// What a role may do with each table.
    ///
    /// # Errors
    /// The server cannot be asked, or there is no such role.
    pub async fn table_privileges(
        &mut self,
        role: &str,
        tables: &[PublishedTable],
    ) -> Result<Vec<TablePrivileges>, Failure> {
        let (schemas, names) = unzip(tables);
        let rows = self
            .query(
                "SELECT namespace.nspname::text, class.relname::text,
                        has_schema_privilege($3::text, namespace.oid, 'USAGE'), has_table_privilege($3::text, class.oid, 'SELECT'),
                        pg_has_role($3::text, class.relowner, 'USAGE'), pg_get_userbyid(class.relowner)::text
                 FROM unnest($1::text[], $2::text[]) wanted(schema, name)
                 JOIN pg_namespace namespace ON namespace.nspname = wanted.schema
                 JOIN pg_class class ON class.relnamespace = namespace.oid AND class.relname = wanted.name
                 ORDER BY 1, 2",
                &[&schemas, &names, &role],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| TablePrivileges {
                table: PublishedTable { schema: row.get(0), name: row.get(1) },
                may_use_schema: row.get(2),
                may_select: row.get(3),
                is_owner: row.get(4),
                owner: row.get(5),
            })
            .collect())
    }

    /// The owner of a publication, if the role may not alter it.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn foreign_publication_owner(&mut self, name: &str) -> Result<Option<String>, Failure> {
        let rows = self
            .query(
                "SELECT pg_get_userbyid(pubowner)::text FROM pg_publication
                 WHERE pubname = $1 AND NOT pg_has_role(pubowner, 'USAGE')",
                &[&name],
            )
            .await?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    /// The columns that a publication sends of each table; none before version 15, which sends all.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn published_columns(
        &mut self,
        name: &str,
    ) -> Result<BTreeMap<PublishedTable, BTreeSet<String>>, Failure> {
        // The column is not there in every version, and a query that names it would fail.
        let rows = self
            .query("SELECT to_jsonb(published)::text FROM pg_publication_tables published WHERE pubname = $1", &[&name])
            .await?;
        let mut columns = BTreeMap::new();
        for row in &rows {
            let published: PublishedRow = parse("pg_publication_tables", row.get(0))?;
            if let Some(attnames) = published.attnames {
                columns.insert(PublishedTable { schema: published.schemaname, name: published.tablename }, attnames);
            }
        }
        Ok(columns)
    }

    /// What becomes of a slot.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn slot_state(&mut self, name: &str) -> Result<Option<SlotState>, Failure> {
        let rows = self
            .query(
                "SELECT (to_jsonb(slot) || jsonb_build_object(
                            'retained_bytes', pg_wal_lsn_diff(
                                CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                                slot.restart_lsn)::int8,
                            'active_application', reader.application_name,
                            'active_address', host(reader.client_addr)))::text
                 FROM pg_replication_slots slot LEFT JOIN pg_stat_activity reader ON reader.pid = slot.active_pid
                 WHERE slot.slot_name = $1",
                &[&name],
            )
            .await?;
        rows.first().map(|row| parse("pg_replication_slots", row.get(0))).transpose()
    }

    /// Whether the walsender that reads from a slot is at work: whether it waits neither for its client nor for something to do. None if there is none.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn walsender_works(&mut self, slot: &str) -> Result<Option<bool>, Failure> {
        let rows = self
            .query(
                // It waits for nothing while it decodes, or for files and locks.
                "SELECT coalesce(reader.wait_event_type NOT IN ('Activity', 'Client'), true)
                 FROM pg_replication_slots slot JOIN pg_stat_activity reader ON reader.pid = slot.active_pid
                 WHERE slot.slot_name = $1",
                &[&slot],
            )
            .await?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    /// All slots but one that is gone already, and this.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn other_slots(&mut self, name: &str) -> Result<Vec<OtherSlot>, Failure> {
        let rows = self
            .query(
                "SELECT slot_name::text, slot_type = 'physical', active, wal_status,
                        pg_wal_lsn_diff(
                            CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn)::int8,
                        greatest(age(xmin), age(catalog_xmin))::int8
                 FROM pg_replication_slots WHERE slot_name <> $1 AND wal_status IS DISTINCT FROM 'lost' ORDER BY slot_name",
                &[&name],
            )
            .await?;
        let slot = |row: &tokio_postgres::Row| OtherSlot {
            name: row.get(0),
            is_physical: row.get(1),
            is_active: row.get(2),
            wal_status: row.get(3),
            retained_bytes: row.get(4),
            xmin_age: row.get(5),
        };
        Ok(rows.iter().map(slot).collect())
    }

    /// The server's clock, in microseconds since 1970.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn clock_unix_us(&mut self) -> Result<i64, Failure> {
        let row = self.query_one("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8", &[]).await?;
        Ok(row.get(0))
    }

    /// The age of the oldest snapshot that other connections of this role and program hold in this database, in seconds; 0 for none.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn oldest_snapshot_seconds(&mut self) -> Result<f64, Failure> {
        let row = self
            .query_one(
                "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8
                 FROM pg_stat_activity
                 WHERE datname = current_database() AND usename = current_user AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
                   AND backend_type = 'client backend' AND application_name = current_setting('application_name')",
                &[],
            )
            .await?;
        Ok(row.get::<_, f64>(0).max(0.0))
    }

    /// What has the name that a pattern without a star means, but for its case, or is no table that can be published.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn near_misses(&mut self, schema: &str, name: &str) -> Result<Vec<NearMiss>, Failure> {
        let rows = self
            .query(
                "SELECT namespace.nspname::text, class.relname::text, class.relkind::text, class.relpersistence::text
                 FROM pg_class class JOIN pg_namespace namespace ON namespace.oid = class.relnamespace
                 WHERE lower(namespace.nspname) = lower($1) AND lower(class.relname) = lower($2)
                   AND class.relkind NOT IN ('i', 'I', 'c', 't')
                 ORDER BY 1, 2 LIMIT 3",
                &[&schema, &name],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| NearMiss {
                table: PublishedTable { schema: row.get(0), name: row.get(1) },
                unfit: match (row.get::<_, &str>(2), row.get::<_, &str>(3)) {
                    ("r" | "p", "p") => None,
                    ("r" | "p", "u") => Some("an unlogged table"),
                    ("r" | "p", _) => Some("a temporary table"),
                    ("v", _) => Some("a view"),
                    ("m", _) => Some("a materialized view"),
                    ("f", _) => Some("a foreign table"),
                    ("S", _) => Some("a sequence"),
                    _ => Some("no table"),
                },
            })
            .collect())
    }
}

#[derive(Deserialize)]
struct PublishedRow {
    schemaname: String,
    tablename: String,
    #[serde(default)]
    attnames: Option<BTreeSet<String>>,
}

fn parse<'a, T: Deserialize<'a>>(view: &str, json: &'a str) -> Result<T, Failure> {
    serde_json::from_str(json).map_err(|error| Failure::new(Code::Internal, format!("{view}: {error}")))
}

fn unzip(tables: &[PublishedTable]) -> (Vec<&str>, Vec<&str>) {
    tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).unzip()
}
