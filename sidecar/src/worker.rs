//! A worker: one thread with its own runtime, its own sockets, its own connections to endpoints.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::cluster::EndpointId;
use crate::drain::Signal;
use crate::listener::accept::{self, ProcessDrains};
use crate::listener::handshake::ChainDrains;
use crate::local::{Local, Shared};
use crate::snapshot::ListenerId;
use crate::stats;
use crate::transport::{Acceptor, ListeningSocket};

/// How often idle connections to endpoints are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// What the control thread tells a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Accept connections for a listener on sockets of this worker's own. The listener is in the snapshot already. Sockets
    /// that the listener has from before are closed.
    Listen {
        /// Which.
        listener: ListenerId,
        /// Bound and listening, one for each of its addresses.
        sockets: Vec<ListeningSocket>,
    },
    /// Accept no more connections for a listener. Its connections go on.
    Unlisten {
        /// Which.
        listener: ListenerId,
    },
    /// These endpoints are gone: connections to them that have no request are closed.
    Release(Arc<[EndpointId]>),
    /// Connections to these endpoints serve no further request.
    Retire(Arc<[EndpointId]>),
    /// End now: connections that are still open are cut.
    Stop,
}

/// The control thread's end of a worker.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    /// Commands, taken in order.
    pub(crate) commands: UnboundedSender<Command>,
    thread: thread::JoinHandle<()>,
}

impl WorkerHandle {
    /// Tells the worker to stop, and waits until it has.
    pub(crate) fn stop(self) {
        // It has stopped already if nobody takes the command.
        let _ = self.commands.send(Command::Stop);
        if self.thread.join().is_err() {
            tracing::error!("a worker ended with a panic");
        }
    }
}

/// Starts worker `index`, counted from 0.
///
/// # Errors
/// If the system refuses a thread or an event queue.
pub(crate) fn spawn(index: usize, shared: Shared) -> io::Result<WorkerHandle> {
    let (commands, received) = unbounded_channel();
    let (started, result) = std::sync::mpsc::sync_channel(1);
    let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        // Shard 0 is the control thread's.
        stats::set_shard(index + 1);
        let runtime =
            match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => {
                    let _ = started.send(Ok(()));
                    runtime
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
        runtime.block_on(run(index, shared, received));
    })?;
    match result.recv() {
        Ok(Ok(())) => Ok(WorkerHandle { commands, thread }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other("the worker's thread ended at once")),
    }
}

async fn run(index: usize, shared: Shared, mut commands: UnboundedReceiver<Command>) {
    let draining = ProcessDrains {
        all: Signal::of(&shared.draining),
        inbound: Signal::of(&shared.draining_inbound),
    };
    let closing = shared.closing.clone();
    let local = Local::new(index, shared);
    let chain_drains = Rc::new(ChainDrains::default());
    let mut accepting: HashMap<ListenerId, Vec<JoinHandle<()>>> = HashMap::new();
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut closed = false;
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Listen { listener, sockets }) if !closed => {
                    let mut tasks = Vec::with_capacity(sockets.len());
                    for socket in sockets {
                        let socket = match Acceptor::new(socket) {
                            Ok(socket) => socket,
                            Err(error) => {
                                tracing::error!(%error, ?listener, "cannot accept on a socket");
                                continue;
                            }
                        };
                        tasks.push(tokio::task::spawn_local(accept::run(
                            Rc::clone(&local),
                            listener,
                            socket,
                            draining.clone(),
                            Rc::clone(&chain_drains),
                        )));
                    }
                    abort(accepting.insert(listener, tasks).into_iter().flatten());
                }
                Some(Command::Listen { .. }) => {}
                Some(Command::Unlisten { listener }) => {
                    abort(accepting.remove(&listener).into_iter().flatten());
                }
                Some(Command::Release(endpoints)) => local.pools.release(&endpoints),
                Some(Command::Retire(endpoints)) => local.pools.retire(&endpoints),
                Some(Command::Stop) | None => break,
            },
            () = closing.cancelled(), if !closed => {
                closed = true;
                abort(accepting.drain().flat_map(|(_, tasks)| tasks));
            }
            _ = sweep.tick() => local.pools.sweep(),
        }
    }
    abort(accepting.drain().flat_map(|(_, tasks)| tasks));
    local.pools.clear();
}

fn abort(tasks: impl Iterator<Item = JoinHandle<()>>) {
    tasks.for_each(|task| task.abort());
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
