//! Whether the stream goes on from the server that takes over.

use super::{
    id::CheckId,
    postgres::Session,
    report::{Findings, Problem, some_of},
};
use crate::catalog::{Hosting, OtherSlot, Setting};

/// From this version on a slot can be on standbys as well.
const MAJOR_MIN: i32 = 17;

pub(super) fn examine(
    session: &Session<'_>,
    standby_slots: Option<&Setting>,
    others: &[OtherSlot],
    findings: &mut Findings,
) {
    let is_wanted = session.config.postgres.failover;
    let named = standby_slots.map(|setting| names(&setting.raw)).unwrap_or_default();
    judge(is_wanted, session.major(), session.hosting, &named, others, findings);
}

fn judge(
    is_wanted: bool,
    major: i32,
    hosting: Hosting,
    named: &[String],
    others: &[OtherSlot],
    findings: &mut Findings,
) {
    let mut warn = |found: String, why: &str, fix: String| {
        findings.warning(Problem { id: CheckId::Failover.into(), found, why: why.into(), fix });
    };
    let standbys: Vec<&str> =
        others.iter().filter(|slot| slot.is_physical && slot.is_active).map(|slot| slot.name.as_str()).collect();
    if !is_wanted {
        if major >= MAJOR_MIN && !standbys.is_empty() {
            warn(
                format!("there are standbys (slots {}), and postgres.failover is off", some_of(&standbys, 3)),
                "after a failover the slot is not on the new primary: the stream stops with slot-missing, and changes are lost to it",
                "set postgres.failover = true before the first start; for a slot that is there, over a replication connection: \
                 ALTER_REPLICATION_SLOT NAME (FAILOVER)"
                    .into(),
            );
        }
        return;
    }
    let own = "SLOT-OF-THE-STANDBY";
    let set = |value: &str| match hosting {
        Hosting::Own => format!("ALTER SYSTEM SET synchronized_standby_slots = '{value}'; SELECT pg_reload_conf();"),
        _ => format!("set synchronized_standby_slots = {value} where the server's parameters are set"),
    };
    if major < MAJOR_MIN {
        warn(
            format!("postgres.failover is on, and version {major} has no failover slots"),
            "after a failover the slot is not on the new primary, and changes are lost to the stream",
            "upgrade to 17, or set postgres.failover = false".into(),
        );
    } else if named.is_empty() {
        warn(
            "postgres.failover is on, and synchronized_standby_slots is empty".into(),
            "the stream may be ahead of the standby that takes over, which then lacks changes that are in Kafka",
            format!("{} and sync_replication_slots = on at the standby", set(standbys.first().copied().unwrap_or(own))),
        );
    } else if let Some(missing) = named.iter().find(|name| !standbys.contains(&name.as_str())) {
        warn(
            format!("synchronized_standby_slots names {missing}, from which no standby reads"),
            "the server sends nothing that this standby has not confirmed: the stream stands still, and log is kept for it",
            format!(
                "start that standby, with primary_slot_name = '{missing}'; or take it out: {}",
                set(standbys.first().copied().unwrap_or(own))
            ),
        );
    } else {
        findings.ok(
            CheckId::Failover,
            format!(
                "the stream waits for {}; each of these standbys needs sync_replication_slots and hot_standby_feedback = on, and a dbname in \
                 primary_conninfo, which is not seen from here",
                some_of(named, 3)
            ),
        );
    }
}

/// A list as PostgreSQL has it: names with commas between them, each perhaps in double quotes.
fn names(list: &str) -> Vec<String> {
    let names = list.split(',').map(|name| name.trim().trim_matches('"'));
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::report::{Report, System};

    #[test]
    fn what_a_failover_would_do_is_said() {
        let slot = |name: &str, is_active| OtherSlot {
            name: name.into(),
            is_physical: true,
            is_active,
            wal_status: None,
            retained_bytes: None,
            xmin_age: None,
        };
        let with_standby = [slot("one", true), slot("two", false)];
        for (is_wanted, major, list, others, expect) in [
            (false, 16, "", &with_standby[..], None),
            (false, 17, "", &[][..], None),
            (false, 17, "", &with_standby[..], Some("there are standbys (slots one), and postgres.failover is off")),
            (true, 16, "", &[][..], Some("has no failover slots")),
            (true, 17, "", &with_standby[..], Some("synchronized_standby_slots = 'one'")),
            (true, 17, "one, \"two\"", &with_standby[..], Some("names two, from which no standby reads")),
            (true, 17, "one", &with_standby[..], Some("ok       failover  the stream waits for one")),
        ] {
            let mut findings = Findings::new(System::Postgres);
            judge(is_wanted, major, Hosting::Own, &names(list), others, &mut findings);
            let text = Report::new([findings]).to_text(false);
            assert_eq!(text.contains("failover"), expect.is_some(), "{text}");
            assert!(text.contains(expect.unwrap_or_default()), "{text}");
        }
    }
}
