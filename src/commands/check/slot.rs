//! The replication slot, and the checkpoint that goes with it. What it means is decided by the very function that `run` asks.

use walreceiver::ReplicationClient;

use super::{
    id::CheckId,
    kafka::HeldCheckpoint,
    postgres::Session,
    report::{Findings, Problem, bytes_text},
    server,
};
use crate::{
    catalog::{Hosting, SlotState},
    checkpoint::start::{Server, Slot, Start, TimelineEnd, Wanted, anew, decide},
    failure::{Code, Failure},
};

/// The slot as it was before the checkpoint was read.
pub(super) struct SlotView {
    slot: Option<Slot>,
    may_be_created: bool,
}

impl SlotView {
    /// Reads the slot, and notes what can be said without the checkpoint.
    pub(super) async fn read(
        session: &mut Session<'_>,
        stream_application: &str,
        findings: &mut Findings,
    ) -> Result<Self, Failure> {
        let name = session.config.postgres.slot.clone();
        let slot = session.catalog.slot(&name).await?;
        let state = session.catalog.slot_state(&name).await?;
        if slot.is_none() && session.config.postgres.manage {
            server::free_slots(&session.settings, session.hosting, findings);
        }
        if let (Some(slot), Some(state)) = (&slot, &state) {
            if slot.plugin.as_deref() == Some("pgoutput") {
                reader(&name, state, stream_application, findings);
                retained(&name, slot, state, session.hosting, findings);
            }
            if session.config.postgres.failover && state.failover == Some(false) {
                findings.warning(Problem {
                    id: CheckId::Failover.into(),
                    found: format!("slot {name} was created without failover"),
                    why: "after a failover it is not on the new primary, and changes are lost to the stream".into(),
                    fix: format!("over a replication connection: ALTER_REPLICATION_SLOT {name} (FAILOVER)"),
                });
            }
        }
        let may_be_created = !findings.has(CheckId::ReplicationSlots);
        Ok(Self { slot, may_be_created })
    }

    /// Says how `run` would start, or why it would not; `is_anew` if it may begin anew instead.
    pub(super) async fn compare(
        &self,
        wanted: &Wanted,
        client: &mut ReplicationClient,
        held: &HeldCheckpoint,
        is_anew: bool,
        findings: &mut Findings,
    ) -> Result<(), Failure> {
        let checkpoint = match held {
            HeldCheckpoint::Unknown => None,
            HeldCheckpoint::Known(checkpoint) => checkpoint.as_deref(),
        };
        let failure = |error: walreceiver::Error| Failure::new(Code::PostgresUnavailable, error.to_string());
        let identity = client.identify_system().await.map_err(failure)?;
        let history = match checkpoint {
            Some(held) if held.timeline != identity.timeline => {
                client.timeline_history(identity.timeline).await.map_err(failure)?.switches
            }
            _ => Vec::new(),
        };
        let server = Server {
            system_identifier: identity.system_id,
            timeline: identity.timeline,
            flush_lsn: identity.flush_lsn,
            history: history
                .iter()
                .map(|switch| TimelineEnd { timeline: switch.timeline, switch_lsn: switch.end })
                .collect(),
        };
        let unknown = matches!(held, HeldCheckpoint::Unknown);
        let name = &wanted.slot;
        match decide(wanted, &server, self.slot.as_ref(), checkpoint) {
            Ok(Start::CreateSlot { .. }) if !self.may_be_created => {}
            Ok(Start::CreateSlot { .. }) if unknown => findings.ok(CheckId::Slot, format!("{name} does not exist")),
            Ok(Start::CreateSlot { .. }) => {
                findings.ok(
                    CheckId::Slot,
                    format!("{name} does not exist; run creates it, and streams the changes from then on"),
                );
            }
            Ok(Start::Resume(position)) => {
                findings.ok(CheckId::Slot, format!("{name} is fit; run resumes at {position}"));
            }
            Ok(Start::Adopt { position, .. }) => {
                findings.ok(
                    CheckId::Slot,
                    format!("{name} is fit; run completes an interrupted first start at {position}"),
                );
            }
            // Whether there is a checkpoint is not known.
            Err(failure) if unknown && failure.code() == Code::SlotWithoutCheckpoint => {
                findings.ok(
                    CheckId::Slot,
                    format!("{name} is fit; whether it goes with the checkpoint cannot be told without Kafka"),
                );
            }
            Ok(Start::Anew(_)) => {}
            Err(failure) if is_anew && anew(wanted, self.slot.as_ref(), checkpoint, failure.code()).is_some() => {
                let problem = refusal(wanted, &failure);
                let why = "run begins anew, as snapshot.mode = \"when_needed\" has it: every topic is emptied by a TRUNCATE event, and every table copied".into();
                findings.warning(Problem { why, fix: "nothing, if that is meant".into(), ..problem });
            }
            Err(failure) => findings.error(refusal(wanted, &failure)),
        }
        Ok(())
    }
}

fn reader(name: &str, state: &SlotState, stream_application: &str, findings: &mut Findings) {
    let Some(pid) = state.active_pid else {
        let since = state.inactive_since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
        findings.ok(Code::SlotActive, format!("nobody reads from {name}{since}"));
        return;
    };
    let application = state.active_application.as_deref().unwrap_or_default();
    let from = state.active_address.as_deref().unwrap_or("a Unix socket");
    let found = format!("pid {pid} (application_name {application:?}, from {from}) reads from slot {name}");
    if application == stream_application {
        findings.ok(Code::SlotActive, format!("{found}: an instance runs, and another run would take over from it"));
    } else {
        findings.warning(Problem {
            id: Code::SlotActive.into(),
            found,
            why: "unless it is this stream's own instance, it takes the changes away from the stream".into(),
            fix: format!("find out who it is; to end it: SELECT pg_terminate_backend({pid})"),
        });
    }
}

fn retained(name: &str, slot: &Slot, state: &SlotState, hosting: Hosting, findings: &mut Findings) {
    if slot.lost.is_some() {
        return;
    }
    let kept = state.retained_bytes.map_or_else(|| "an unknown amount".into(), bytes_text);
    let room = state.safe_wal_size.map(|bytes| format!(", {}", server::room(bytes))).unwrap_or_default();
    let status = state.wal_status.as_deref().unwrap_or("unknown");
    let found = format!("{kept} of log kept for slot {name}{room}; wal_status is {status}");
    let fix = format!(
        "start the stream, or see why it does not advance; to gain time, raise max_slot_wal_keep_size: {}",
        hosting.set(&server::SLOT_KEEP_SIZE)
    );
    match status {
        "unreserved" => findings.error(Problem {
            id: CheckId::SlotWal.into(),
            found,
            why: "the server removes log that the slot needs at its next checkpoint, and the slot is lost".into(),
            fix,
        }),
        "extended" => findings.warning(Problem {
            id: CheckId::SlotWal.into(),
            found,
            why: "the stream is behind, and the server keeps more log than max_wal_size for it".into(),
            fix,
        }),
        _ => findings.ok(CheckId::SlotWal, found),
    }
}

/// The failure that `run` would stop with, and the mending in terms of this configuration.
fn refusal(wanted: &Wanted, failure: &Failure) -> Problem {
    let slot = &wanted.slot;
    let fix = match failure.code() {
        Code::SlotUnfit => format!(
            "set postgres.slot to the name of another slot; or, if nobody needs this one: SELECT pg_drop_replication_slot('{slot}')"
        ),
        Code::SlotMissing if !wanted.manage => {
            format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput'), or set postgres.manage = true")
        }
        Code::SlotMissing | Code::SlotAhead => {
            "find out who dropped or moved it; to go on after the gap, start once with: pgsluice run --accept-gap"
                .into()
        }
        Code::SlotWithoutCheckpoint => format!(
            "to begin at the slot's position, start once with: pgsluice run --adopt-slot; or, if nobody needs it: SELECT \
             pg_drop_replication_slot('{slot}')"
        ),
        Code::SlotLost => format!(
            "the changes since the checkpoint are lost: SELECT pg_drop_replication_slot('{slot}'), then start once with: pgsluice run \
             --accept-gap"
        ),
        code => code.fix().to_owned(),
    };
    Problem {
        id: failure.code().into(),
        found: failure.found().to_owned(),
        why: failure.code().meaning().to_owned(),
        fix,
    }
}
