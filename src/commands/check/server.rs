//! PostgreSQL's settings.

use super::{
    clock, failover,
    id::{CheckId, Id},
    other_slots,
    postgres::{Session, replication_attribute},
    report::{Findings, Problem, bytes_text, seconds_text},
    timeouts,
};
use crate::{
    catalog::{Hosting, LOGICAL, ServerSettings, Setting, Wish},
    failure::Failure,
};

/// The newest version that the tests run against.
const MAJOR_MAX: i32 = 18;
/// With less log than this for the slot, a short outage loses it.
const SLOT_KEEP_MIN_BYTES: i64 = 1 << 30;
/// With less patience than this, a pause of the network ends the connection.
const SENDER_TIMEOUT_MIN_MS: i64 = 5000;

/// What settings are to be set to.
const SENDERS: Wish = Wish { name: "max_wal_senders", value: "10", raw: "10", takes_restart: true };
const SENDER_TIMEOUT: Wish = Wish { name: "wal_sender_timeout", value: "60s", raw: "60000", takes_restart: false };
pub(super) const SLOT_KEEP_SIZE: Wish =
    Wish { name: "max_slot_wal_keep_size", value: "50GB", raw: "51200", takes_restart: false };
const IDLE_SLOT_TIMEOUT: Wish =
    Wish { name: "idle_replication_slot_timeout", value: "0", raw: "0", takes_restart: false };

pub(super) async fn examine(session: &mut Session<'_>, findings: &mut Findings) -> Result<(), Failure> {
    version(session, findings);
    wal_level(&session.settings, session.hosting, findings);
    if session.settings.may_replicate {
        findings.ok(CheckId::ReplicationAttribute, format!("role {} may replicate", session.role.name));
    } else if !findings.has(CheckId::ReplicationAttribute) {
        let found = format!("role {} has no REPLICATION attribute", session.role.name);
        findings.error(replication_attribute(&session.role.name, &found, session.hosting));
    }
    senders(&session.settings, session.hosting, findings);
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
        slot_keep_size(setting, session.hosting, findings);
    }
    if let Some(setting) = settings.get("idle_replication_slot_timeout") {
        idle_slot_timeout(setting, session.hosting, findings);
    }
    if let Some(setting) = settings.get("logical_decoding_work_mem") {
        findings.ok(
            CheckId::LogicalDecodingWorkMem,
            format!("{}: the server spills larger transactions to its disk until they commit", setting.shown),
        );
    }
    clock::examine(session, findings).await?;
    timeouts::examine(session, findings).await?;
    let others = session.catalog.other_slots(&session.config.postgres.slot).await?;
    other_slots::examine(&others, findings);
    failover::examine(session, settings.get("synchronized_standby_slots"), &others, findings);
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

fn wal_level(settings: &ServerSettings, hosting: Hosting, findings: &mut Findings) {
    if settings.wal_level == "logical" {
        findings.ok(CheckId::WalLevel, "logical");
    } else {
        findings.error(Problem {
            id: CheckId::WalLevel.into(),
            found: format!("wal_level is {}", settings.wal_level),
            why: "the log lacks what changes are decoded from".into(),
            fix: hosting.set(&LOGICAL),
        });
    }
}

fn senders(settings: &ServerSettings, hosting: Hosting, findings: &mut Findings) {
    let (max, used) = settings.senders;
    if max == 0 {
        findings.error(Problem {
            id: CheckId::WalSenders.into(),
            found: "max_wal_senders is 0".into(),
            why: "the server opens no replication connection at all".into(),
            fix: hosting.set(&SENDERS),
        });
    } else if !findings.has(CheckId::WalSenders) {
        findings.ok(CheckId::WalSenders, format!("{used} of {max} in use, this check's own included"));
    }
}

/// `run` streams from primaries alone, whatever the version: a standby's timeline changes under the connection when it is promoted.
fn standby(session: &Session<'_>, findings: &mut Findings) {
    if !session.settings.in_recovery {
        return;
    }
    findings.error(Problem {
        id: CheckId::Standby.into(),
        found: "the server is a standby".into(),
        why: "run streams from the primary alone: no publication can be made here, and whoever streamed from a standby would not see that it \
              is promoted"
            .into(),
        fix: "set the host in postgres.url to the primary, by a name that follows it".into(),
    });
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
            fix: session.hosting.set(&SENDER_TIMEOUT),
        });
    } else if timeout_ms < SENDER_TIMEOUT_MIN_MS {
        findings.warning(Problem {
            id: CheckId::WalSenderTimeout.into(),
            found: format!("wal_sender_timeout is {}", seconds_text(timeout)),
            why: "a short pause of the network or of this machine ends the connection, and the stream starts again"
                .into(),
            fix: session.hosting.set(&SENDER_TIMEOUT),
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

fn slot_keep_size(setting: &Setting, hosting: Hosting, findings: &mut Findings) {
    const MIB: i64 = 1 << 20;
    let id = Id::from(CheckId::MaxSlotWalKeepSize);
    let fix = format!("{} -- what the longest outage writes, and the disk can spare", hosting.set(&SLOT_KEEP_SIZE));
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

fn idle_slot_timeout(setting: &Setting, hosting: Hosting, findings: &mut Findings) {
    if setting.raw == "0" {
        findings.ok(CheckId::IdleReplicationSlotTimeout, "0: a slot that nobody reads from is kept");
        return;
    }
    findings.warning(Problem {
        id: CheckId::IdleReplicationSlotTimeout.into(),
        found: format!("idle_replication_slot_timeout is {}", setting.shown),
        why: "the server invalidates the slot when the stream is down for longer, and the changes since are lost to it"
            .into(),
        fix: hosting.set(&IDLE_SLOT_TIMEOUT),
    });
}

/// Whether a slot can be created.
pub(super) fn free_slots(settings: &ServerSettings, hosting: Hosting, findings: &mut Findings) {
    let (max, used) = settings.slots;
    if used < max {
        findings.ok(CheckId::ReplicationSlots, format!("{used} of {max} in use"));
    } else {
        findings.error(Problem {
            id: CheckId::ReplicationSlots.into(),
            found: format!("all {max} replication slots are in use, and the stream needs one"),
            why: "the slot cannot be created".into(),
            fix: format!(
                "{}; or drop one that nobody needs, of SELECT slot_name, active FROM pg_replication_slots",
                hosting.set(&Wish { name: "max_replication_slots", value: "20", raw: "20", takes_restart: true })
            ),
        });
    }
}

/// How much room there is, in words.
pub(super) fn room(bytes: i64) -> String {
    if bytes > 0 { format!("{} more may be written", bytes_text(bytes)) } else { "nothing more may be written".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::report::{Report, System};

    /// What a server cannot be made to be beside others that stream from it.
    #[test]
    fn a_server_that_is_run_by_others_is_mended_in_their_way() {
        let settings = ServerSettings {
            version_num: 160_000,
            wal_level: "replica".into(),
            slots: (5, 5),
            senders: (0, 0),
            wal_sender_timeout_ms: 60_000,
            max_slot_wal_keep_size: "-1".into(),
            encoding: "UTF8".into(),
            may_replicate: true,
            in_recovery: false,
        };
        for (hosting, logical, slots) in [
            (Hosting::Own, "ALTER SYSTEM SET wal_level", "ALTER SYSTEM SET max_replication_slots = '20'"),
            (Hosting::AmazonRds, "ParameterName=rds.logical_replication", "ParameterName=max_replication_slots"),
            (Hosting::CloudSql, "cloudsql.logical_decoding=on", "max_replication_slots=20"),
            (Hosting::Azure, "--name wal_level --value logical", "--name max_replication_slots --value 20"),
        ] {
            let mut findings = Findings::new(System::Postgres);
            wal_level(&settings, hosting, &mut findings);
            senders(&settings, hosting, &mut findings);
            free_slots(&settings, hosting, &mut findings);
            let text = Report::new([findings]).to_text(false);
            assert!(text.contains(logical) && text.contains(slots) && text.contains("3 errors"), "{text}");
            assert_eq!(text.contains("ALTER SYSTEM"), hosting == Hosting::Own, "{text}");
        }
    }
}
