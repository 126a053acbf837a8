//! The process: what is started in which order, and how it ends.
//!
//! One control thread (discovery, admin, timers, DNS) and N workers. The order of a start:
//! 1. read the bootstrap, or make one from the mesh identity;
//! 2. open the admin interface;
//! 3. start the workers, without a listener;
//! 4. static secrets and clusters, then discovery of clusters, endpoints and secrets;
//! 5. when every cluster is ready: static listeners, then discovery of listeners and routes;
//! 6. live when every listener that was known by then is open.

use std::process::ExitCode;

use crate::cli::Args;
use crate::logging;

/// Runs the sidecar until it is told to stop.
pub(crate) fn run(args: Args) -> ExitCode {
    logging::init(args.log_level, args.log_format);
    tracing::error!("this build has no data plane");
    ExitCode::FAILURE
}
