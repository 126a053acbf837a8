//! The accept loop over one socket of one worker.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::{Listener, handshake};
use crate::config::listener::TrafficDirection;
use crate::drain::Signal;
use crate::local::Local;
use crate::snapshot::ListenerId;
use crate::transport::Acceptor;

/// After an error that will not go away by itself at once.
const BACK_OFF: Duration = Duration::from_millis(50);

/// The process's drain signals, as one worker has them.
#[derive(Clone)]
pub(crate) struct ProcessDrains {
    /// Everything drains.
    pub(crate) all: Rc<Signal>,
    /// Listeners of inbound traffic drain.
    pub(crate) inbound: Rc<Signal>,
}

impl ProcessDrains {
    pub(super) fn of(&self, listener: &Listener) -> &Rc<Signal> {
        match listener.config.traffic_direction {
            TrafficDirection::Inbound => &self.inbound,
            _ => &self.all,
        }
    }
}

/// Accepts connections for a listener until the future is dropped. Which chains it has is looked up for each connection, so
/// that an update needs no new socket.
pub(crate) async fn run(
    local: Rc<Local>,
    listener: ListenerId,
    socket: Acceptor,
    process_drains: ProcessDrains,
    chain_drains: Rc<handshake::ChainDrains>,
) {
    loop {
        match socket.accept().await {
            Ok((tcp, peer)) => {
                let view = local.view();
                // Between its removal and the end of this loop.
                let Some(listener) = view.listener(listener).cloned() else { continue };
                let local = Rc::clone(&local);
                let process_drains = process_drains.clone();
                let chain_drains = Rc::clone(&chain_drains);
                tokio::task::spawn_local(async move {
                    let _panic = Panic { local: Rc::clone(&local) };
                    handshake::run(local, listener, tcp, peer, &process_drains, &chain_drains)
                        .await;
                });
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors or memory: what is there goes on being served, and some of it will end.
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// Whether an error of accept is about the connection that was to be accepted, and not about us.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

/// Counts a panic of a connection's task: it costs that connection, and is a bug.
struct Panic {
    local: Rc<Local>,
}

impl Drop for Panic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.local.shared.server.local().worker_panics.inc();
        }
    }
}
