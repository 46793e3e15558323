//! Whether this machine and the server agree on what time it is.
//!
//! Kafka's brokers are not asked: they tell their time to nobody who does not write a record, and nothing that is streamed depends on it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{
    id::CheckId,
    postgres::Session,
    report::{Findings, Problem, seconds_text},
};
use crate::failure::Failure;

/// A difference that is told from the time that an answer takes, and makes figures useless.
const SKEW_MAX: Duration = Duration::from_secs(1);

pub(super) async fn examine(session: &mut Session<'_>, findings: &mut Findings) -> Result<(), Failure> {
    // The first question may have to wait for a connection.
    session.catalog.clock_unix_us().await?;
    let began = Instant::now();
    let asked_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let server_unix_us = session.catalog.clock_unix_us().await?;
    judge(server_unix_us, asked_at, began.elapsed(), findings);
    Ok(())
}

/// The server looked at its clock some time between the question and its answer.
fn judge(server_unix_us: i64, asked_at: Duration, took: Duration, findings: &mut Findings) {
    let server = i128::from(server_unix_us);
    let first = i128::try_from(asked_at.as_micros()).unwrap_or(i128::MAX);
    let last = first + i128::try_from(took.as_micros()).unwrap_or(i128::MAX);
    let (apart, how) = if server < first { (first - server, "behind") } else { ((server - last).max(0), "ahead of") };
    let apart = Duration::from_micros(u64::try_from(apart).unwrap_or(u64::MAX));
    if apart <= SKEW_MAX {
        findings.ok(
            CheckId::ClockSkew,
            format!("none that is more than the {} of an answer", seconds_text(took.max(Duration::from_millis(1)))),
        );
        return;
    }
    findings.warning(Problem {
        id: CheckId::ClockSkew.into(),
        found: format!("the server's clock is {:.1} s {how} this machine's", apart.as_secs_f64()),
        why: "what takes both clocks is wrong by as much: the lag in time and its alert, pgsluice_source_to_committed_seconds, and what consumers \
              make of source.ts_ms beside ts_ms"
            .into(),
        fix: "have both keep time by NTP: chronyc tracking, or timedatectl timesync-status, shows which of them does not".into(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::report::{Report, System};

    #[test]
    fn what_an_answer_takes_is_no_skew() {
        let asked_at = Duration::from_secs(1_000);
        for (server_ms, took_ms, expect) in [
            (1_000_000, 0, None),
            (1_000_900, 0, None),
            (999_100, 0, None),
            (1_004_000, 5_000, None),
            (1_006_500, 5_000, Some("1.5 s ahead of")),
            (995_000, 5_000, Some("5.0 s behind")),
            (1_003_000, 10, Some("3.0 s ahead of")),
            (i64::MIN / 1000, 10, Some("behind")),
            (i64::MAX / 1000, 10, Some("ahead of")),
        ] {
            let mut findings = Findings::new(System::Postgres);
            judge(server_ms * 1000, asked_at, Duration::from_millis(took_ms), &mut findings);
            assert_eq!(findings.has(CheckId::ClockSkew), expect.is_some(), "{server_ms} {took_ms}");
            let text = Report::new([findings]).to_text(false);
            assert!(text.contains(expect.unwrap_or("ok ")), "{text}");
        }
    }
}
