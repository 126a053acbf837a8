//! The control plane as a binary of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    outrigger_control_plane::cli::main_from(std::env::args_os())
}
