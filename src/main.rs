//! The program: arguments in, an exit code out.

use std::process::ExitCode;

use clap::Parser;
use pgsluice::commands::Arguments;

fn main() -> ExitCode {
    Arguments::parse().run()
}
