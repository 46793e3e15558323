//! `pgsluice completions` and `pgsluice man`: what shells and `man` are told of the commands, from their definition.

use std::process::ExitCode;

use clap::{Args, CommandFactory, error::ErrorKind};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Arguments, print};
use crate::failure::{Code, Failure};

/// Print a script that completes the commands in a shell, to be put where that looks for it.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Print a manual page, in the form that `man -l FILE` reads.
#[derive(Debug, Args)]
pub(super) struct ManPage {
    /// The command, such as `run` or `snapshot start`. Without it the page is that of pgsluice, and names the others.
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

impl Completions {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "pgsluice", &mut script);
        print(&String::from_utf8_lossy(&script))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl ManPage {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let mut command = Arguments::command().disable_help_subcommand(true);
        command.build();
        let mut page_of = &command;
        for name in &self.command {
            let Some(found) = page_of.find_subcommand(name) else {
                let found = format!("pgsluice has no command {:?}", self.command.join(" "));
                Arguments::command().error(ErrorKind::InvalidSubcommand, found).exit()
            };
            page_of = found;
        }
        let mut page = Vec::new();
        let rendered = Man::new(page_of.clone()).render(&mut page);
        rendered.map_err(|error| Failure::caused(Code::Internal, error))?;
        print(&String::from_utf8_lossy(&page))?;
        Ok(ExitCode::SUCCESS)
    }
}
