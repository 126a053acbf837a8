//! `outrigger demo`: a whole mesh on one machine from this one binary, without network, containers or root.
//!
//! Reading order:
//! - [`topology`], [`resources`]: what there is, and what the mesh is told about it.
//! - [`addresses`], [`process`], [`wait`]: what it is made of.
//! - [`mesh`]: [`mesh::Mesh`], all of it running.
//! - [`acts`], [`test`], [`stranger`]: `demo test`.
//! - [`view`]: bare `demo`; [`background`]: `demo up` and `demo down`; [`guide`]: what to try next.

mod acts;
mod addresses;
mod background;
mod guide;
mod mesh;
mod process;
mod progress;
mod resources;
mod stranger;
mod test;
mod topology;
mod view;
mod wait;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::exit::Outcome;

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    #[command(subcommand)]
    command: Option<DemoCommand>,
}

/// What to do with a demo; without any of these it is started, shown, and ended by ^C.
#[derive(Debug, Subcommand)]
enum DemoCommand {
    /// Start a demo in the background
    Up,
    /// Play every act against a demo of its own and check what it promises
    Test(TestArgs),
    /// End the demo in the background
    Down,
    /// What `up` leaves running
    #[command(hide = true)]
    Supervise {
        /// Where its state is
        #[arg(long)]
        state: PathBuf,
    },
}

/// Arguments of `demo test`.
#[derive(Debug, Args)]
struct TestArgs {
    /// Write the report to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Play only this act; may be given several times
    #[arg(long = "act", value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    acts: Vec<u8>,
    /// Keep the logs of all processes in this folder
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
}

/// Runs the demo command.
pub(crate) async fn run(args: DemoArgs) -> Outcome {
    match args.command {
        None => view::run().await,
        Some(DemoCommand::Up) => background::up().await,
        Some(DemoCommand::Down) => background::down().await,
        Some(DemoCommand::Supervise { state }) => background::supervise(state).await,
        Some(DemoCommand::Test(args)) => {
            test::run(&args.acts, args.json.as_deref(), args.logs.as_deref()).await
        }
    }
}

/// Resolves when somebody wants the demo to end: ^C, or SIGTERM.
async fn interrupted() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt,
        _ = terminate.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    }
}
