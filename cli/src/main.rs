//! `outrigger`, the one binary people install.
//!
//! # Layout
//! - [`args`]: the command tree; [`exit`]: how commands end.
//! - [`commands`]: one command a file; [`client`]: the mesh API as they see it; [`output`]: tables, JSON, YAML.
//! - [`http_pool`]: keep-alive connections to one address.
//! - [`demo_app`]: the application of the demo's services.

mod args;
mod client;
mod commands;
mod demo_app;
mod exit;
mod http_pool;
mod output;

use std::process::ExitCode;

use clap::Parser;

use self::args::{Cli, Command};
use self::commands::token::TokenCommand;
use self::commands::{
    apply, completion, delete, endpoints, export, get, history, rollback, status, token, validate,
};
use self::exit::Outcome;

/// The sidecar is most of what this binary does, and it lives long: its memory must come back after a burst, which the
/// system's allocator does not see to.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Completion(args) => completion::run(&args),
        Command::Validate(args) => validate::run(&args),
        command => block_on(command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Runs a command on one thread: clients, and the demo's application, which shall be small.
fn block_on(command: Command) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Apply(args) => apply::apply(args).await,
            Command::Diff(args) => apply::diff(args).await,
            Command::Get(args) => get::run(args).await,
            Command::Delete(args) => delete::run(args).await,
            Command::History(args) => history::run(args).await,
            Command::Rollback(args) => rollback::run(args).await,
            Command::Export(args) => export::run(args).await,
            Command::Status(args) => status::run(args).await,
            Command::Endpoints(args) => endpoints::run(args).await,
            Command::Token(TokenCommand::Create(args)) => token::create(args).await,
            Command::DemoApp(args) => Ok(demo_app::run(args).await?),
            Command::Completion(args) => completion::run(&args),
            Command::Validate(args) => validate::run(&args),
        }
    })
}
