//! `pgsluice snapshot`

mod show;

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::{
    ConfigFile,
    instance::{Address, Instance},
    runtime,
};
use crate::{
    config::CONNECTIONS_MAX,
    failure::{Code, Failure},
    http::snapshot::{PATH, Start, Stop},
    snapshot::control::Status,
};

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// See and command how a running instance copies the rows that were there before.
#[derive(Debug, Args)]
pub(super) struct SnapshotCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    config: ConfigFile,
    /// Where the instance listens, if not at `http.listen`.
    #[arg(long, value_name = "HOST:PORT", global = true)]
    instance: Option<Address>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Copy tables, from their first row on, whether they were copied before or not.
    Start {
        /// The tables, as `schema.table`.
        #[arg(required = true, value_name = "TABLE")]
        tables: Vec<String>,
        /// Only rows that meet this condition, as in `--where "placed >= '2026-01-01'"`. Names other than PostgreSQL's own need their schema.
        #[arg(long = "where", value_name = "SQL")]
        condition: Option<String>,
        /// Copy over so many connections at a time, these tables and all others, until nothing is left to copy: 1 to 16, in the place of
        /// `snapshot.connections`. Those that no table waits for share the rows of a large one.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(CONNECTIONS_MAX)))]
        parallel: Option<u8>,
    },
    /// Leave tables as far as they are copied, all that are not copied if none is named.
    Stop {
        /// The tables, as `schema.table`.
        #[arg(value_name = "TABLE")]
        tables: Vec<String>,
    },
    /// Read nothing until `resume`, over restarts too.
    Pause,
    /// Go on after `pause`.
    Resume,
    /// How far all tables are.
    Status {
        /// Show progress until every table is copied.
        #[arg(long)]
        watch: bool,
        /// As JSON.
        #[arg(long, conflicts_with = "watch")]
        json: bool,
    },
}

impl SnapshotCommand {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let config = self.config.load()?;
        let address = self.instance.unwrap_or_else(|| config.http.listen.into());
        let instance = Instance::new(address, Some(&config.http));
        runtime()?.block_on(self.verb.run(&instance))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Verb {
    async fn run(self, instance: &Instance) -> Result<(), Failure> {
        match self {
            Self::Start { tables, condition, parallel } => {
                let start = Start { tables: tables.clone(), condition, parallel };
                let status = command(instance, "start", &start).await?;
                print!("{}", show::tables(&status, &tables));
            }
            Self::Stop { tables } => {
                let status = command(instance, "stop", &Stop { tables: tables.clone() }).await?;
                print!("{}", show::tables(&status, &tables));
            }
            Self::Pause => {
                command(instance, "pause", &json!({})).await?;
                println!("paused: nothing is read until `pgsluice snapshot resume`");
            }
            Self::Resume => {
                command(instance, "resume", &json!({})).await?;
                println!("resumed");
            }
            Self::Status { watch: true, .. } => watch(instance).await?,
            Self::Status { json: true, .. } => {
                let status = serde_json::to_string_pretty(&status(instance).await?);
                println!("{}", status.map_err(|error| Failure::caused(Code::Internal, error))?);
            }
            Self::Status { .. } => print!("{}", show::tables(&status(instance).await?, &[])),
        }
        Ok(())
    }
}

async fn status(instance: &Instance) -> Result<Status, Failure> {
    instance.get(PATH).await
}

async fn command(instance: &Instance, verb: &str, body: &impl Serialize) -> Result<Status, Failure> {
    let body = serde_json::to_vec(body).map_err(|error| Failure::caused(Code::Internal, error))?;
    instance.post(&format!("{PATH}/{verb}"), body).await
}

async fn watch(instance: &Instance) -> Result<(), Failure> {
    let mut bars = show::Bars::new();
    loop {
        let status = status(instance).await?;
        bars.show(&status);
        if !status.tables.iter().any(|table| table.state.is_going_on()) {
            bars.finish(&status);
            return Ok(());
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}
