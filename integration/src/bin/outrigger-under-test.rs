//! What `outrigger sidecar` and `outrigger control-plane` do, built by cargo together with the tests of this package, so
//! that they never run yesterday's program.

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
enum Command {
    /// The data plane.
    Sidecar(Box<outrigger_sidecar::cli::Args>),
    /// The control plane.
    ControlPlane(Box<outrigger_control_plane::cli::Args>),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Sidecar(args) => outrigger_sidecar::cli::main(*args),
        Command::ControlPlane(args) => outrigger_control_plane::cli::main(*args),
    }
}
