//! `pgsluice check`: everything that can be found wrong before the first start, at once.
//!
//! It only asks. Sessions of PostgreSQL are read-only, topics are created with `validate_only`, schemas are compared and not
//! registered, and no transactional producer is connected: that would fence a running instance. What Kafka grants on topics that are there the
//! brokers say themselves; on the transactional id, and on topics that are to be created, the only way to ask is to write.
//!
//! The order keeps a running instance from looking broken. The slot is read before the checkpoint, since a confirmed position is
//! in Kafka first; the end of the server's log is read after it, since what is in Kafka was in the log first.
//!
//! To add a check, put it into the file of its system, its id into [`id`], and what an operator needs to know of it into docs/errors.md. An id
//! never changes its meaning.

pub(super) mod id;
pub(super) mod report;
mod postgres;
mod server;
mod clock;
mod timeouts;
mod other_slots;
mod failover;
mod standby;
mod tables;
mod slot;
mod schemas;
mod kafka;
mod quarantine;
mod topics;
mod rights;
mod registry;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Args;

use self::{
    id::CheckId,
    kafka::Kafka,
    postgres::Postgres,
    registry::Registry,
    report::{Findings, Problem, Report, System},
    schemas::Schemas,
};
use super::{ConfigFile, may_colour, print, runtime};
use crate::{
    config::Config,
    failure::{Code, Failure},
    pipeline,
};

/// The exit code when there is something to mend.
const EXIT_ERRORS: u8 = 5;

/// How long connecting may take, whatever is configured: whoever checks waits for the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// How long one request to Kafka or to the registry may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// How long each of the three steps may take in each system.
const STEP_TIMEOUT: Duration = Duration::from_secs(6);

/// Connect everywhere and report every misconfiguration, with its fix.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigFile,
    /// Print an array of JSON objects: system, severity (ok, warning, error), id, about, found, why and fix.
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let config = self.config.load()?;
        let runtime = runtime()?;
        let report = runtime.block_on(check(config));
        // A call to Kafka that was given up may go on for a while.
        runtime.shutdown_background();
        let report = report?;
        let text = if self.json {
            report.to_json().map_err(|error| Failure::caused(Code::Internal, error))? + "\n"
        } else {
            report.to_text(io::stdout().is_terminal() && may_colour())
        };
        // The exit code says the whole, however much of it was read.
        print(&text)?;
        Ok(if report.has_errors() { ExitCode::from(EXIT_ERRORS) } else { ExitCode::SUCCESS })
    }
}

async fn check(config: Config) -> Result<Report, Failure> {
    let config = Arc::new(config);
    let options = config.postgres.connect.clone();
    let mut postgres = Postgres::new(Arc::clone(&config), &options);
    let mut kafka = Kafka::new(Arc::clone(&config), pipeline::kafka_settings(&config));
    let mut registry = Registry::new(Arc::clone(&config));

    tokio::join!(postgres.examine(), kafka.examine(), registry.examine());
    // From here on it takes what two of them say.
    registry.read_built_in(&kafka).await;
    let checkpoint = kafka.read_checkpoint().await;
    let schemas = Schemas::compile(
        &config,
        options.database(),
        &postgres.described,
        &postgres.unpublished,
        &mut postgres.findings,
    );
    tokio::join!(postgres.compare(&checkpoint), kafka.examine_topics(&schemas), registry.examine_subjects(&schemas));
    Ok(Report::new([configuration(&config), postgres.findings, kafka.findings, registry.findings]))
}

fn configuration(config: &Config) -> Findings {
    let mut findings = Findings::new(System::Configuration);
    findings.ok(
        CheckId::Configuration,
        format!(
            "name {}, slot {}, publication {}, {} slot and publication",
            config.name.as_str(),
            config.postgres.slot,
            config.postgres.publication,
            if config.postgres.manage { "manages" } else { "does not manage" }
        ),
    );
    for warning in config.warnings() {
        findings.warning(Problem {
            id: CheckId::Configuration.into(),
            found: warning.clone(),
            why: "others may come to know a secret".into(),
            fix: "change what is named".into(),
        });
    }
    findings
}
