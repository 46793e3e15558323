//! `pgsluice release`

use std::process::ExitCode;

use clap::Args;

use super::{ConfigFile, init_logging, runtime};
use crate::{
    config::Config,
    failure::{Code, Failure},
    pipeline::{Release, Wanted, kafka_settings, preview_discard},
    schemas::Schemas,
};

/// Write the events of tables in quarantine, whose subjects are mended, and end their quarantine. The stream must be stopped meanwhile.
///
/// Everything or nothing is written of a table as long as nobody interrupts it; if somebody does, it goes on there when it is run again.
#[derive(Debug, Args)]
pub(super) struct ReleaseCommand {
    #[command(flatten)]
    config: ConfigFile,
    /// The tables, as `schema.table`.
    #[arg(required_unless_present = "all")]
    tables: Vec<String>,
    /// All tables that are in quarantine.
    #[arg(long, conflicts_with = "tables")]
    all: bool,
    /// Do not ask PostgreSQL whether an instance of the stream runs. One that does is fenced, and ends.
    #[arg(long)]
    force: bool,
    /// Give up what waits of these tables, and end their quarantine without it: for letters that are gone, or that nothing can be made of. Tells
    /// what it would be, unless --yes is given too.
    #[arg(long, conflicts_with = "all")]
    discard: bool,
    /// With --discard: the changes may be lost.
    #[arg(long, requires = "discard")]
    yes: bool,
}

impl ReleaseCommand {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let config = self.config.load()?;
        init_logging(&config);
        let runtime = runtime()?;
        if self.discard {
            let outcome = runtime.block_on(Box::pin(self.discard(config)));
            runtime.shutdown_background();
            return outcome.map(|()| ExitCode::SUCCESS);
        }
        let wanted = if self.all { Wanted::All } else { Wanted::Tables(self.tables) };
        let outcome = runtime.block_on(async {
            let schemas = Schemas::new(&config, &kafka_settings(&config))?;
            let mut release = Release::begin(config, schemas, self.force).await?;
            Box::pin(release.run(&wanted)).await
        });
        // A blocking call to Kafka may outlast a failure; nothing that it could still do counts.
        runtime.shutdown_background();
        let outcomes = outcome?;
        if outcomes.is_empty() {
            println!("no table is in quarantine");
        }
        for outcome in outcomes {
            let (table, topic, changes) = (outcome.table, outcome.topic, outcome.changes);
            println!("{table}: {changes} changes released to {topic}");
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn discard(self, config: Config) -> Result<(), Failure> {
        if !self.yes {
            for waiting in preview_discard(&config, &self.tables).await? {
                println!("{waiting}");
            }
            return Err(Failure::new(Code::NotConfirmed, "nothing was changed: these changes would be in no topic"));
        }
        let schemas = Schemas::new(&config, &kafka_settings(&config))?;
        let mut release = Release::begin(config, schemas, self.force).await?;
        for waiting in release.discard(&self.tables).await? {
            println!("given up: {waiting}");
        }
        Ok(())
    }
}
