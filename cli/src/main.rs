//! `outrigger`, the one binary people install.
//!
//! # Layout
//! - [`args`]: the command tree; [`exit`]: how commands end.
//! - [`commands`]: one command a file; [`client`]: the mesh API as they see it; [`output`]: tables, JSON, YAML.
//! - [`demo`]: a whole mesh on this machine, its acts and its live view; [`demo_app`]: the application of its services;
//!   [`watchdog`]: no child outlives it.
//! - [`container`]: what runs in containers beside applications: `pause`, `run -- COMMAND`, `healthcheck`, `install`.
//! - [`load`]: an open-loop load generator; [`http_pool`]: the connections it sends on.

mod args;
mod client;
mod commands;
mod container;
mod demo;
mod demo_app;
mod exit;
mod http_pool;
mod load;
mod output;
mod watchdog;

use std::panic::resume_unwind;
use std::process::ExitCode;
use std::thread;

use clap::Parser;

use self::args::{Cli, Command};
use self::commands::authz::AuthzCommand;
use self::commands::identity::{CaCommand, IdentityCommand};
use self::commands::inject::InjectCommand;
use self::commands::token::TokenCommand;
use self::commands::{
    apply, authz, check, completion, delete, endpoints, export, get, history, identity, inject,
    rollback, status, token, validate,
};
use self::container::{healthcheck, install, pause, run};
use self::exit::Outcome;

/// The sidecar is most of what this binary does, and it lives long: its memory must come back after a burst, which the
/// system's allocator does not see to.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    watchdog::start();
    let outcome = match parse().command {
        // The servers make their own runtimes, and have their own exit codes.
        Command::Sidecar(args) => return outrigger_sidecar::cli::main(*args),
        Command::ControlPlane(args) => return outrigger_control_plane::cli::main(*args),
        Command::Run(args) => return run::main(&args),
        Command::Completion(args) => completion::run(&args),
        Command::Inject(InjectCommand::Compose(args)) => inject::compose(&args),
        Command::Uninject(args) => inject::uninject(&args),
        Command::Install(args) => install::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Pause => block_on(pause::run()),
        Command::Healthcheck(args) => block_on(healthcheck::run(args)),
        Command::DemoApp(args) => block_on(async { Ok(demo_app::run(args).await?) }),
        Command::Apply(args) => block_on(apply::apply(args)),
        Command::Diff(args) => block_on(apply::diff(args)),
        Command::Get(args) => block_on(get::run(args)),
        Command::Delete(args) => block_on(delete::run(args)),
        Command::History(args) => block_on(history::run(args)),
        Command::Rollback(args) => block_on(rollback::run(args)),
        Command::Export(args) => block_on(export::run(args)),
        Command::Status(args) => block_on(status::run(args)),
        Command::Endpoints(args) => block_on(endpoints::run(args)),
        Command::Check(args) => block_on(check::run(args)),
        Command::Authz(AuthzCommand::Check(args)) => block_on(authz::run(args)),
        Command::Token(TokenCommand::Create(args)) => block_on(token::create(args)),
        Command::Identity(IdentityCommand::List(args)) => block_on(identity::list(args)),
        Command::Identity(IdentityCommand::Revoke(args)) => block_on(identity::revoke(args)),
        Command::Ca(CaCommand::Status(args)) => block_on(identity::authority(args)),
        Command::Ca(CaCommand::Rotate(args)) => block_on(identity::rotate(args)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Reads the command line, on a thread that ends: the tree of all commands is half a megabyte that the allocator and the
/// stack of this one would keep, and a sidecar lives long.
fn parse() -> Cli {
    thread::spawn(Cli::parse).join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Runs a command on one thread: none of them has much to do, and the demo's application shall be small.
fn block_on(command: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}
