//! `pgsluice config`

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::print;
use crate::{
    config::Config,
    failure::{self, Failure},
    metrics::Metrics,
};

/// Print a commented example of the configuration, or the reference.
#[derive(Debug, Args)]
pub(super) struct ConfigCommand {
    /// What to print.
    #[arg(value_enum, default_value_t = What::Example)]
    what: What,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// A commented example, which is itself a configuration.
    Example,
    /// All keys, as tables in Markdown.
    Reference,
    /// All metrics, as a table in Markdown.
    Metrics,
    /// All codes of failures, as a table in Markdown.
    Failures,
}

impl ConfigCommand {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        print(&match self.what {
            What::Example => Config::example_toml(),
            What::Reference => Config::reference_markdown(),
            What::Metrics => Metrics::reference_markdown(),
            What::Failures => failure::reference_markdown(),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
