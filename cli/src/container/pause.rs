//! `outrigger pause`: a container's network exists as long as a process in it. This one does nothing that could fail.

use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Outcome;

/// Waits for SIGTERM or SIGINT. The first process of a container gets neither unless it asks for them.
pub(crate) async fn run() -> Outcome {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
