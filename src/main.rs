//! The program: arguments in, an exit code out.

use std::process::ExitCode;

use clap::Parser;
use pgsluice::commands::Arguments;

// It serves this program's own memory; librdkafka's copies of the records are in the system's allocator. Of memory it saves nothing: after
// a burst both hold about the same, and at its height this one holds more (ARCHITECTURE.md). Its speed was not compared.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    Arguments::parse().run()
}
