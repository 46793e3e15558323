//! The program: arguments in, an exit code out.

use std::process::ExitCode;

use clap::Parser;
use pgsluice::commands::Arguments;

// The system's allocator tends to keep what a burst has needed; this one gives it back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    Arguments::parse().run()
}
