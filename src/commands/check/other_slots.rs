//! Slots of others on the same server. What they keep it cannot remove, and its disk, and its tables, fill up for all.

use super::{
    id::CheckId,
    report::{Findings, Problem, Severity, bytes_text},
};
use crate::catalog::OtherSlot;

/// Log that is kept for one slot beyond this is told of, however much the server would keep of itself.
const RETAINED_MAX_BYTES: i64 = 1 << 30;
/// A quarter of what an autovacuum against wraparound waits for by default.
const XMIN_AGE_MAX: i64 = 50_000_000;

pub(super) fn examine(others: &[OtherSlot], findings: &mut Findings) {
    let mut is_well = true;
    for slot in others {
        let OtherSlot { name, is_active, wal_status, retained_bytes, xmin_age, .. } = slot;
        let kept = retained_bytes.unwrap_or_default();
        let status = wal_status.as_deref().unwrap_or("unknown");
        let keeps_log = kept >= RETAINED_MAX_BYTES || matches!(status, "extended" | "unreserved");
        let old = xmin_age.filter(|age| *age >= XMIN_AGE_MAX);
        if !keeps_log && old.is_none() {
            continue;
        }
        is_well = false;
        let reader = if *is_active { "somebody reads from it" } else { "nobody reads from it" };
        let rows = old.map(|age| format!(", and dead rows of {age} transactions")).unwrap_or_default();
        let problem = Problem {
            id: CheckId::OtherSlots.into(),
            found: format!("it keeps {} of log (wal_status {status}){rows}; {reader}", bytes_text(kept)),
            why: "the server can remove neither before that slot moves on: its disk fills up, and queries slow down, whatever this stream does".into(),
            fix: format!(
                "see why its reader is behind; if nobody needs it: SELECT pg_drop_replication_slot({})",
                postgres_protocol::escape::escape_literal(name)
            ),
        };
        findings.about(Severity::Warning, format!("slot {name}"), problem);
    }
    if is_well {
        let most = others.iter().filter_map(|slot| slot.retained_bytes).max().unwrap_or_default();
        let found = match others.len() {
            0 => "there are none".to_owned(),
            count => format!("{count}, of which none keeps more than {} of log", bytes_text(most)),
        };
        findings.ok(CheckId::OtherSlots, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::report::{Report, System};

    #[test]
    fn what_others_keep_is_told_of_when_it_is_much() {
        let slot = |retained_bytes, wal_status: &str, xmin_age| OtherSlot {
            name: "o'ther".into(),
            is_physical: false,
            is_active: false,
            wal_status: Some(wal_status.into()),
            retained_bytes,
            xmin_age,
        };
        for (slots, expect) in [
            (vec![], "ok       other-slots  there are none"),
            (
                vec![slot(Some(1 << 20), "reserved", Some(1000)), slot(None, "reserved", None)],
                "2, of which none keeps more than 1.0 MiB",
            ),
            (
                vec![slot(Some(2 << 30), "reserved", None)],
                "slot o'ther: it keeps 2.0 GiB of log (wal_status reserved); nobody",
            ),
            (vec![slot(Some(1 << 20), "extended", None)], "it keeps 1.0 MiB of log (wal_status extended)"),
            (vec![slot(Some(1), "reserved", Some(60_000_000))], "and dead rows of 60000000 transactions"),
            (vec![slot(Some(2 << 30), "reserved", None)], "pg_drop_replication_slot('o''ther')"),
        ] {
            let mut findings = Findings::new(System::Postgres);
            examine(&slots, &mut findings);
            let text = Report::new([findings]).to_text(false);
            assert!(text.contains(expect), "{expect} is not in {text}");
        }
    }
}
