//! The process: what is started in which order, and how it ends.
//!
//! One control thread (discovery, admin, timers, DNS) and N workers. The order of a start:
//! 1. read the bootstrap, or make one from the mesh identity;
//! 2. open the admin interface;
//! 3. start the workers, without a listener;
//! 4. static secrets and clusters, then discovery of clusters, endpoints and secrets;
//! 5. when every cluster is ready: static listeners, then discovery of listeners and routes;
//! 6. live when every listener that was known by then is open.
//!
//! - [`control`]: the control thread's loop; [`error`]: why it cannot begin;
//! - [`data_plane`]: puts configuration into effect, with [`sockets`], [`routes`], [`extensions`] and [`runtime`];
//! - [`export`]: sends what workers report;
//! - [`load_reports`]: tells a server how much load there was;
//! - [`stats_sinks`]: sends statistics away;
//! - [`event_files`]: where event logs are written;
//! - [`dump`]: what the admin interface asks for;
//! - [`validate`]: `--mode validate`.

mod control;
mod data_plane;
mod dump;
mod error;
mod event_files;
mod export;
mod extensions;
mod load_reports;
mod routes;
mod runtime;
mod sockets;
mod stats_sinks;
mod streams;
mod validate;

use std::process::ExitCode;

use tokio::runtime::{Builder, LocalOptions};

use crate::cli::{Args, Mode};
use crate::logging;

/// Runs the sidecar until it is told to stop.
pub(crate) fn run(args: Args) -> ExitCode {
    logging::init(args.log_level, args.log_format);
    if args.mode == Mode::Validate {
        return validate::run(&args);
    }
    let runtime =
        match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "cannot start");
                return ExitCode::FAILURE;
            }
        };
    match runtime.block_on(Box::pin(control::run(args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
