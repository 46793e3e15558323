//! PostgreSQL's settings.

use super::{
    id::{CheckId, Id},
    postgres::{Session, replication_attribute},
    report::{Findings, Problem, bytes_text, seconds_text},
};
use crate::{
    catalog::{ServerSettings, Setting},
    failure::Failure,
};

/// The newest version that the tests run against.
const MAJOR_MAX: i32 = 18;
/// With less log than this for the slot, a short outage loses it.
const SLOT_KEEP_MIN_BYTES: i64 = 1 << 30;
/// With less patience than this, a pause of the network ends the connection.
const SENDER_TIMEOUT_MIN_MS: i64 = 5000;

pub(super) async fn examine(session: &mut Session<'_>, findings: &mut Findings) -> Result<(), Failure> {
    version(session, findings);
    wal_level(&session.settings, findings);
    if session.settings.may_replicate {
        findings.ok(CheckId::ReplicationAttribute, format!("role {} may replicate", session.role.name));
    } else if !findings.has(CheckId::ReplicationAttribute) {
        let found = format!("role {} has no REPLICATION attribute", session.role.name);
        findings.error(replication_attribute(&session.role.name, &found));
    }
    senders(&session.settings, findings);
    standby(session, findings);
    sender_timeout(session, findings);
    encoding(&session.settings, findings);
    let names = [
        "max_slot_wal_keep_size",
        "idle_replication_slot_timeout",
        "logical_decoding_work_mem",
        "synchronized_standby_slots",
    ];
    let settings = session.catalog.settings(&names).await?;
    if let Some(setting) = settings.get("max_slot_wal_keep_size") {
        slot_keep_size(setting, findings);
    }
    if let Some(setting) = settings.get("idle_replication_slot_timeout") {
        idle_slot_timeout(setting, findings);
    }
    if let Some(setting) = settings.get("logical_decoding_work_mem") {
        findings.ok(
            CheckId::LogicalDecodingWorkMem,
            format!("{}: the server spills larger transactions to its disk until they commit", setting.shown),
        );
    }
    if session.config.postgres.failover {
        failover(session, settings.get("synchronized_standby_slots"), findings);
    }
    Ok(())
}

fn version(session: &Session<'_>, findings: &mut Findings) {
    let (major, minor) = (session.major(), session.settings.version_num % 10_000);
    if session.settings.version_num < ServerSettings::VERSION_NUM_MIN {
        findings.error(Problem {
            id: CheckId::PostgresVersion.into(),
            found: format!("the server is version {major}.{minor}, and the oldest supported is 14"),
            why: "the replication protocol of older servers lacks what is needed".into(),
            fix: "upgrade the server with pg_upgrade".into(),
        });
    } else if major > MAJOR_MAX {
        findings.warning(Problem {
            id: CheckId::PostgresVersion.into(),
            found: format!("the server is version {major}.{minor}, newer than {MAJOR_MAX}, the newest that was tested"),
            why: "it will most likely work, and nobody has shown that it does".into(),
            fix: "see whether a newer pgsluice names this version".into(),
        });
    } else {
        findings.ok(CheckId::PostgresVersion, format!("{major}.{minor}"));
    }
    if let Err(failure) = session.settings.verify_wishes(&session.config.postgres) {
        findings.error(Problem {
            id: CheckId::PostgresTooOld.into(),
            found: failure.found().to_owned(),
            why: "the server refuses an option that it does not know, and the stream does not start".into(),
            fix: "set the key to its default, or upgrade the server with pg_upgrade".into(),
        });
    }
}

fn wal_level(settings: &ServerSettings, findings: &mut Findings) {
    if settings.wal_level == "logical" {
        findings.ok(CheckId::WalLevel, "logical");
    } else {
        findings.error(Problem {
            id: CheckId::WalLevel.into(),
            found: format!("wal_level is {}", settings.wal_level),
            why: "the log lacks what changes are decoded from".into(),
            fix: "ALTER SYSTEM SET wal_level = 'logical', and restart the server".into(),
        });
    }
}

fn senders(settings: &ServerSettings, findings: &mut Findings) {
    let (max, used) = settings.senders;
    if max == 0 {
        findings.error(Problem {
            id: CheckId::WalSenders.into(),
            found: "max_wal_senders is 0".into(),
            why: "the server opens no replication connection at all".into(),
            fix: "ALTER SYSTEM SET max_wal_senders = 10, and restart the server".into(),
        });
    } else if !findings.has(CheckId::WalSenders) {
        findings.ok(CheckId::WalSenders, format!("{used} of {max} in use, this check's own included"));
    }
}

fn standby(session: &Session<'_>, findings: &mut Findings) {
    if !session.settings.in_recovery {
        return;
    }
    let fix = "set the host in postgres.url to the primary".to_owned();
    if session.major() < 16 || session.config.postgres.manage {
        let found = if session.major() < 16 {
            "the server is a standby, which can decode changes from version 16 on only".into()
        } else {
            "the server is a standby, on which no publication can be created or altered".to_owned()
        };
        findings.error(Problem {
            id: CheckId::Standby.into(),
            found,
            why: "the stream cannot start here as configured".into(),
            fix,
        });
    } else {
        findings.warning(Problem {
            id: CheckId::Standby.into(),
            found: "the server is a standby".into(),
            why: "the primary may remove rows of the catalog that decoding needs, which invalidates the slot; and creating a slot waits \
                  for activity on the primary"
                .into(),
            fix: "set hot_standby_feedback = on and a physical slot for this standby, or stream from the primary".into(),
        });
    }
}

fn sender_timeout(session: &Session<'_>, findings: &mut Findings) {
    let timeout_ms = session.settings.wal_sender_timeout_ms;
    let interval = session.config.postgres.status_interval;
    let timeout = std::time::Duration::from_millis(timeout_ms.unsigned_abs());
    if timeout_ms == 0 {
        findings.warning(Problem {
            id: CheckId::WalSenderTimeout.into(),
            found: "wal_sender_timeout is 0".into(),
            why: "the server never gives up a connection that has died silently, and until then no other can read from the slot".into(),
            fix: "ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf();".into(),
        });
    } else if timeout_ms < SENDER_TIMEOUT_MIN_MS {
        findings.warning(Problem {
            id: CheckId::WalSenderTimeout.into(),
            found: format!("wal_sender_timeout is {}", seconds_text(timeout)),
            why: "a short pause of the network or of this machine ends the connection, and the stream starts again"
                .into(),
            fix: "ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf();".into(),
        });
    } else {
        // The receiver answers at least thrice within the server's patience, whatever is configured.
        let told = interval.min(timeout / 3);
        findings.ok(
            CheckId::WalSenderTimeout,
            format!("{}, and the server is told the position every {}", seconds_text(timeout), seconds_text(told)),
        );
    }
}

fn encoding(settings: &ServerSettings, findings: &mut Findings) {
    if settings.encoding == "SQL_ASCII" {
        findings.warning(Problem {
            id: CheckId::ServerEncoding.into(),
            found: "the database's encoding is SQL_ASCII".into(),
            why: "it takes any bytes, and a text that is not UTF-8 stops the stream".into(),
            fix: "dump the database and restore it into one made with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0".into(),
        });
    } else {
        findings.ok(CheckId::ServerEncoding, settings.encoding.clone());
    }
}

fn slot_keep_size(setting: &Setting, findings: &mut Findings) {
    const MIB: i64 = 1 << 20;
    let id = Id::from(CheckId::MaxSlotWalKeepSize);
    let fix = "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf(); -- what the longest outage writes, and the disk \
               can spare"
        .to_owned();
    match setting.raw.parse::<i64>() {
        Ok(megabytes) if megabytes < 0 => findings.warning(Problem {
            id,
            found: "max_slot_wal_keep_size is -1: there is no limit".into(),
            why: "while the stream is down the server keeps all log for it, until its disk is full and the database stops".into(),
            fix,
        }),
        Ok(megabytes) if megabytes.saturating_mul(MIB) < SLOT_KEEP_MIN_BYTES => findings.warning(Problem {
            id,
            found: format!("max_slot_wal_keep_size is {}", setting.shown),
            why: "an outage in which more log than that is written loses the slot, and the changes since".into(),
            fix,
        }),
        _ => findings.ok(id, format!("{}: an outage may last until that much log is written", setting.shown)),
    }
}

fn idle_slot_timeout(setting: &Setting, findings: &mut Findings) {
    if setting.raw == "0" {
        findings.ok(CheckId::IdleReplicationSlotTimeout, "0: a slot that nobody reads from is kept");
        return;
    }
    findings.warning(Problem {
        id: CheckId::IdleReplicationSlotTimeout.into(),
        found: format!("idle_replication_slot_timeout is {}", setting.shown),
        why: "the server invalidates the slot when the stream is down for longer, and the changes since are lost to it"
            .into(),
        fix: "ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();".into(),
    });
}

fn failover(session: &Session<'_>, standby_slots: Option<&Setting>, findings: &mut Findings) {
    if session.major() < 17 {
        findings.warning(Problem {
            id: CheckId::Failover.into(),
            found: format!("postgres.failover is on, and version {} has no failover slots", session.major()),
            why: "after a failover the slot is not on the new primary, and changes are lost to the stream".into(),
            fix: "upgrade to 17, or set postgres.failover = false".into(),
        });
    } else if standby_slots.is_some_and(|setting| setting.raw.is_empty()) {
        findings.warning(Problem {
            id: CheckId::Failover.into(),
            found: "postgres.failover is on, and synchronized_standby_slots is empty".into(),
            why: "the stream may be ahead of the standby that takes over, which then lacks changes that are in Kafka"
                .into(),
            fix: "ALTER SYSTEM SET synchronized_standby_slots = 'SLOT-OF-THE-STANDBY'; SELECT pg_reload_conf(); and \
                  sync_replication_slots = on at the standby"
                .into(),
        });
    } else {
        findings.ok(CheckId::Failover, "standbys keep a copy of the slot, and the stream waits for them");
    }
}

/// Whether a slot can be created.
pub(super) fn free_slots(settings: &ServerSettings, findings: &mut Findings) {
    let (max, used) = settings.slots;
    if used < max {
        findings.ok(CheckId::ReplicationSlots, format!("{used} of {max} in use"));
    } else {
        findings.error(Problem {
            id: CheckId::ReplicationSlots.into(),
            found: format!("all {max} replication slots are in use, and the stream needs one"),
            why: "the slot cannot be created".into(),
            fix: format!(
                "ALTER SYSTEM SET max_replication_slots = {}, and restart the server; or drop one that nobody needs, of SELECT \
                 slot_name, active FROM pg_replication_slots",
                max + 10
            ),
        });
    }
}

/// How much room there is, in words.
pub(super) fn room(bytes: i64) -> String {
    if bytes > 0 { format!("{} more may be written", bytes_text(bytes)) } else { "nothing more may be written".into() }
}
