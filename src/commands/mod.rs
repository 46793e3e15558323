//! The commands, one file each. To add one, add a variant here and a file beside this one.

mod check;
mod completions;
mod config;
mod explain;
mod instance;
mod release;
mod replay;
mod run;
mod setup;
mod snapshot;
mod top;

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

pub use self::explain::runbook;
use crate::{
    config::{Config, LogFormat},
    failure::{Code, Failure, Recovery},
};

/// Streams PostgreSQL's committed changes into Kafka, exactly once.
#[derive(Debug, Parser)]
#[command(name = "pgsluice", version, about, propagate_version = true, after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// What the exit codes mean; the codes of failures are in [`crate::failure`].
const EXIT_CODES: &str = "\
Exit codes:
  0  done; for run: stopped by SIGTERM or SIGINT, with everything kept
  1  unexpected, or stopped by a second signal
  2  the arguments or the configuration cannot be used
  3  stopped for the data's sake, or because trying again cannot help: the message says what to do
  4  another instance of this stream has taken over
  5  check has found something to mend";

#[derive(Debug, Subcommand)]
enum Command {
    /// Stream until told to stop.
    Run(run::Run),
    /// Connect everywhere and report every misconfiguration, with its fix.
    Check(check::Check),
    /// Print the SQL that gives the stream's role what it needs in PostgreSQL, or run it.
    Setup(setup::Setup),
    /// Write the events of tables in quarantine, and end it.
    Release(release::ReleaseCommand),
    /// Show records of topics from a point on, pass them on to another topic, or have a consumer group begin there.
    Replay(Box<replay::ReplayCommand>),
    /// See and command how a running instance copies the rows that were there before.
    Snapshot(snapshot::SnapshotCommand),
    /// Say what a failure, or a finding of `check`, means, and how to mend it.
    Explain(explain::Explain),
    /// Show a running instance in the terminal: whether it is well, how far it is, and what goes through.
    Top(top::Top),
    /// Print a commented example of the configuration, or the reference.
    Config(config::ConfigCommand),
    /// Print a script that completes the commands in a shell.
    Completions(completions::Completions),
    /// Print a manual page.
    Man(completions::ManPage),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file. Environment variables such as `PGSLUICE_POSTGRES__URL` override it.
    #[arg(long, short, value_name = "FILE", env = "PGSLUICE_CONFIG", global = true)]
    config: Option<PathBuf>,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, Failure> {
        Config::load(self.config.as_deref()).map_err(|error| Failure::new(Code::ConfigInvalid, error.to_string()))
    }
}

impl Arguments {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let outcome = match self.command {
            Command::Run(run) => run.run(),
            Command::Check(check) => check.run(),
            Command::Setup(setup) => setup.run(),
            Command::Release(release) => release.run(),
            Command::Replay(replay) => replay.run(),
            Command::Snapshot(snapshot) => snapshot.run(),
            Command::Explain(explain) => explain.run(),
            Command::Top(top) => top.run(),
            Command::Config(config) => config.run(),
            Command::Completions(completions) => completions.run(),
            Command::Man(page) => page.run(),
        };
        match outcome {
            Ok(code) => code,
            Err(failure) => {
                eprintln!("{}", last_word(&failure));
                ExitCode::from(failure.code().exit_code())
            }
        }
    }
}

/// What a command says that has failed. Only a stream tries again by itself, and never ends with what may pass.
fn last_word(failure: &Failure) -> String {
    match failure.code().recovery() {
        Recovery::Stop => format!("pgsluice: {failure}"),
        Recovery::Restart => {
            format!("pgsluice: {failure} Then run the command again. (pgsluice explain {})", failure.code().as_str())
        }
    }
}

/// Sends logs to standard error, in the configured format. Secrets and row data are never logged, at any level.
fn init_logging(config: &Config) {
    use tracing_subscriber::{EnvFilter, fmt};
    let filter = EnvFilter::new(format!(
        "{},apache_avro=warn,rustls=warn,hyper=warn,tokio_postgres=warn,h2=warn,reqwest=warn",
        config.log.level
    ));
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // The program logs once for its whole life; a second attempt, in a test, changes nothing.
    let _already_set = match config.log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
    };
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
}

/// Prints to standard output. Whoever has read enough of it, such as `head`, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::caused(Code::Internal, error)),
        _ => Ok(()),
    }
}

/// Whether what is printed may be coloured, where a terminal shows it.
fn may_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The runtime: the source task is one thread's work, and the rest is little.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::caused(Code::Internal, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_over_says_that_it_does_not_try_again() {
        let failure = Failure::new(Code::KafkaUnavailable, "no broker answers").at_brokers("kafka:9092");
        assert_eq!(
            last_word(&failure),
            "pgsluice: [kafka-unavailable] no broker answers (brokers kafka:9092). Check the brokers and the network. Then run the command \
             again. (pgsluice explain kafka-unavailable)"
        );
        let failure = Failure::new(Code::TopicUnknown, "there is no topic a");
        assert_eq!(
            last_word(&failure),
            "pgsluice: [topic-unknown] there is no topic a. Name one that there is. (pgsluice explain topic-unknown)"
        );
    }
}
