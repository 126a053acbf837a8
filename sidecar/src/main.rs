//! The sidecar as a binary of its own.

use std::process::ExitCode;

/// jemalloc, because a proxy's load comes in waves: with glibc's malloc a burst of connections leaves its pages with the
/// process for ever. The defaults compiled in (`.cargo/config.toml`) give them back after a second.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    outrigger_sidecar::cli::main_from(std::env::args_os())
}
