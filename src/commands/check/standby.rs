//! Whether rows can be copied from the standby that is to be spared the primary's work.

use std::sync::Arc;

use walreceiver::{Host, ReplicationClient, SslMode};

use super::{
    CONNECT_TIMEOUT,
    id::CheckId,
    postgres::Session,
    report::{Findings, Problem, seconds_text},
};
use crate::{
    catalog::{Catalog, REPLAYS_NOTHING_FOUND, StandbyState, at_standby, is_same_order},
    failure::{Code, Failure},
    failures,
};

/// So much log that is not replayed keeps chunks waiting for seconds.
const LAG_BYTES_MAX: u64 = 64 << 20;

const NOT_COPIED: &str = "rows of tables with a key are not copied until it is mended; the stream goes on";

/// Looks at the standby, if there is one. `primary` is the replication connection to the server that is streamed from.
pub(super) async fn examine(
    session: &mut Session<'_>,
    primary: Option<&mut ReplicationClient>,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let Some(options) = &session.config.snapshot.standby else { return Ok(()) };
    let limit = options.connect_timeout().map_or(CONNECT_TIMEOUT, |limit| limit.min(CONNECT_TIMEOUT));
    let options = Arc::new(options.clone().with_connect_timeout(limit).with_application_name("pgsluice check"));
    let refused = |failure: Failure| {
        let failure = at_standby(&failure, &options);
        let fix = failure.code().fix().to_owned();
        Problem { id: failure.code().into(), found: failure.found().to_owned(), why: NOT_COPIED.into(), fix }
    };
    // Asked for first, so that what the standby has is not taken for less than it is.
    let end = session.catalog.flush_lsn().await?;
    let mut catalog = Catalog::new(Arc::clone(&options));
    let asking = async {
        catalog.connect_read_only().await?;
        catalog.standby_state().await
    };
    let state = match tokio::time::timeout(2 * limit, asking).await {
        Ok(Ok(state)) => state,
        Ok(Err(failure)) => {
            findings.error(refused(failure));
            return Ok(());
        }
        Err(_elapsed) => {
            let found = format!("it did not answer within {}", seconds_text(2 * limit));
            findings.error(refused(Failure::new(Code::PostgresUnavailable, found)));
            return Ok(());
        }
    };
    let unfit = |found: String| Problem {
        id: Code::StandbyUnfit.into(),
        found: format!("the server at {} {found}", options.server()),
        why: NOT_COPIED.into(),
        fix: Code::StandbyUnfit.fix().to_owned(),
    };
    if !state.in_recovery {
        findings.error(unfit("is no standby: it is not in recovery (pg_is_in_recovery())".to_owned()));
        return Ok(());
    }
    if state.replays_nothing {
        findings.error(unfit(REPLAYS_NOTHING_FOUND.to_owned()));
        return Ok(());
    }
    // Each chunk is followed by a question that only a replication connection may ask.
    let mut client = match ReplicationClient::connect(&options).await {
        Ok(client) => client,
        Err(error) => {
            findings.error(refused(failures::of_walreceiver(&error)));
            return Ok(());
        }
    };
    encryption(&options, client.is_encrypted(), findings);
    let identity = match client.identify_system().await {
        Ok(identity) => identity,
        Err(error) => {
            findings.error(refused(failures::of_walreceiver(&error)));
            return Ok(());
        }
    };
    if let Some(primary) = primary {
        let of = primary.identify_system().await.map_err(|error| failures::of_walreceiver(&error))?;
        if (identity.system_id, identity.timeline) != (of.system_id, of.timeline) {
            findings.error(unfit(format!(
                "is not a standby of the server in postgres.url: it is of cluster {} on timeline {}, and that of cluster {} on timeline {}",
                identity.system_id, identity.timeline, of.system_id, of.timeline
            )));
            return Ok(());
        }
    }
    let (there, here) = (catalog.text_order().await, session.catalog.text_order().await?);
    match there {
        Ok(there) if !is_same_order(&there, &here) => {
            findings.error(unfit(format!(
                "orders text by other versions of its libraries than the primary, so that rows are not found by its indexes, or prints values otherwise: {there}; and at the \
                 primary {here}"
            )));
            return Ok(());
        }
        Ok(_) => {}
        Err(failure) => {
            findings.error(refused(failure));
            return Ok(());
        }
    }
    findings.ok(
        CheckId::StandbyReachable,
        format!(
            "PostgreSQL {} at {}, in recovery, of the same cluster and timeline: rows of tables with a key are read there, by the rights that {} has at the \
             primary",
            client.server_version(),
            options.server(),
            options.user()
        ),
    );
    conflicts(&state, findings);
    lag(&state, end, findings);
    Ok(())
}

fn encryption(options: &walreceiver::ConnectOptions, is_encrypted: bool, findings: &mut Findings) {
    let mode = options.ssl_mode();
    let is_verified = is_encrypted && matches!(mode, SslMode::VerifyFull | SslMode::VerifyCa);
    if let Host::Tcp(host) = options.host()
        && !options.host().is_loopback()
        && !is_verified
    {
        let found = if is_encrypted {
            format!("TLS with the standby {host} proves nothing about the server (sslmode={mode})")
        } else {
            format!("the connection to the standby {host} is not encrypted (sslmode={mode})")
        };
        findings.warning(Problem {
            id: CheckId::StandbyTls.into(),
            found,
            why: "whoever is on the way can read every row that is copied, and change it".into(),
            fix: "set ssl = on at the standby, and sslmode=verify-full in postgres.url, with a certificate for its own name".into(),
        });
    }
}

fn conflicts(state: &StandbyState, findings: &mut Findings) {
    /// A chunk takes less, as a rule.
    const DELAY_MS_MIN: i64 = 30_000;
    let delay = state.max_streaming_delay_ms;
    if state.has_feedback || !(0..DELAY_MS_MIN).contains(&delay) {
        let found = if state.has_feedback {
            "hot_standby_feedback is on".to_owned()
        } else if delay < 0 {
            "max_standby_streaming_delay is without limit: replay waits for whoever reads".to_owned()
        } else {
            format!("hot_standby_feedback is off, and a chunk has {} s (max_standby_streaming_delay)", delay / 1000)
        };
        findings.ok(CheckId::StandbyFeedback, found);
        return;
    }
    findings.warning(Problem {
        id: CheckId::StandbyFeedback.into(),
        found: format!("hot_standby_feedback is off at the standby, and max_standby_streaming_delay is {delay} ms"),
        why: "chunks are given up as soon as the primary has removed old rows (standby-conflict), and are tried again"
            .into(),
        fix: "at the standby: ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf();".into(),
    });
}

fn lag(state: &StandbyState, end: pgoutput::Lsn, findings: &mut Findings) {
    let behind = state.replayed.map_or(u64::from(end), |replayed| u64::from(end).saturating_sub(u64::from(replayed)));
    let warn = |found: String, fix: &str| {
        Problem {
        id: CheckId::StandbyLag.into(),
        found,
        why: "each chunk waits until the standby has come to where the stream is; if that takes minutes it is standby-behind, and is tried again".into(),
        fix: fix.into(),
    }
    };
    if state.is_paused {
        findings
            .warning(warn("the standby's replay is paused".into(), "at the standby: SELECT pg_wal_replay_resume();"));
    } else if state.apply_delay_ms > 0 {
        let found = format!("the standby replays {} ms behind (recovery_min_apply_delay)", state.apply_delay_ms);
        findings.warning(warn(found, "name another standby, or set recovery_min_apply_delay = 0 there"));
    } else if behind > LAG_BYTES_MAX {
        let found = format!("the standby is {} MiB of log behind", behind >> 20);
        findings.warning(warn(found, "see pg_stat_wal_receiver and the load there, and copy when it has caught up"));
    } else {
        findings.ok(CheckId::StandbyLag, format!("the standby is {} KiB of log behind", behind.div_ceil(1024)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::report::{Report, System};

    #[test]
    fn what_keeps_chunks_waiting_is_said_with_its_fix() {
        let state = |has_feedback, max_streaming_delay_ms, is_paused, apply_delay_ms, replayed: u64| StandbyState {
            in_recovery: true,
            replays_nothing: false,
            has_feedback,
            max_streaming_delay_ms,
            replayed: Some(replayed.into()),
            is_paused,
            apply_delay_ms,
        };
        for (state, expect) in [
            (state(true, 0, false, 0, 1 << 30), "hot_standby_feedback is on"),
            (state(false, -1, false, 0, 1 << 30), "without limit"),
            (state(false, 30_000, false, 0, 1 << 30), "a chunk has 30 s"),
            (state(false, 0, false, 0, 1 << 30), "ALTER SYSTEM SET hot_standby_feedback = on"),
            (state(true, 0, true, 0, 1 << 30), "pg_wal_replay_resume()"),
            (state(true, 0, false, 60_000, 1 << 30), "recovery_min_apply_delay = 0"),
            (state(true, 0, false, 0, 0), "1024 MiB of log behind"),
            (state(true, 0, false, 0, (1 << 30) - 2000), "2 KiB of log behind"),
        ] {
            let mut findings = Findings::new(System::Postgres);
            conflicts(&state, &mut findings);
            lag(&state, (1_u64 << 30).into(), &mut findings);
            let text = Report::new([findings]).to_text(false);
            assert!(text.contains(expect), "{expect} is not in {text}");
        }
    }
}
