//! The admin interface, from the side of the control thread: what it is answered, and what it is obeyed.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::dump;
use super::super::error::Error;
use super::super::sockets;
use super::{Control, GRACE};
use crate::admin::{self, Admin, Command, Info, Query, Status};
use crate::cli::Args;
use crate::config::bootstrap::Bootstrap;
use crate::config::stats::StatsFlush;
use crate::local::Shared;
use crate::stats::Registry;

impl Control {
    /// Answers the admin interface. Returns whether it asked for the end.
    pub(super) fn answer(&mut self, query: Query) -> bool {
        // Somebody who asked and went away does not need the answer.
        match query {
            Query::Listeners(answer) => {
                let _ = answer.send(dump::listeners(&self.data));
            }
            Query::Clusters(answer) => {
                let _ = answer.send(self.statics.clusters(&mut self.data));
            }
            Query::ConfigDump(answer) => {
                let _ = answer.send(self.statics.config_dump(&self.discovery));
            }
            Query::Certificates(answer) => {
                let _ = answer.send(self.data.contexts.in_use());
            }
            Query::Unready(answer) => {
                let _ = answer.send(dump::unready(&self.discovery, &self.bootstrap, &self.data));
            }
            Query::FlushStats(answer) => {
                self.flush_stats();
                let _ = answer.send(());
            }
            Query::Runtime(answer) => {
                let _ = answer.send(dump::runtime(&self.data));
            }
            Query::ModifyRuntime(changes, answer) => {
                let _ = answer.send(self.data.runtime.modify(&changes));
            }
            Query::Command(command, answer) => {
                let _ = answer.send(Ok(()));
                return self.obey(command);
            }
        }
        false
    }

    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Quit => return true,
            Command::ReopenLogs => self.data.reopen_logs(),
            Command::DrainListeners { graceful: false, inbound_only, .. } => {
                self.data.stop_listening(inbound_only);
            }
            Command::DrainListeners { graceful: true, inbound_only, skip_exit } => {
                let Shared { draining, draining_inbound, .. } = &self.data.shared;
                draining_inbound.cancel();
                if !inbound_only {
                    draining.cancel();
                }
                let time = self.args.drain_time_s.map_or(GRACE, Duration::from_secs);
                if !skip_exit {
                    self.listeners_close = Some((Instant::now() + time, inbound_only));
                }
            }
            // The state that /ready shows is changed already.
            Command::FailHealthChecks(fail) => self.data.shared.failing.store(fail, Relaxed),
        }
        false
    }
}

/// Opens the admin interface, or a channel on which nobody asks.
pub(super) fn open(
    args: &Args,
    bootstrap: &Bootstrap,
    registry: &Arc<Registry>,
    status: &Arc<Status>,
) -> Result<mpsc::UnboundedReceiver<Query>, Error> {
    let node = bootstrap.node.encode_to_vec().into();
    let mut info = Info::new(node, args);
    info.flush_on_admin = bootstrap.stats_flush == StatsFlush::OnAdmin;
    let (admin, queries) = Admin::new(registry, status, info);
    if let Some((address, mode)) = &bootstrap.admin {
        let (socket, bound) = sockets::simple(address, *mode)
            .map_err(|source| Error::Admin { address: address.clone(), source })?;
        if let Some(path) = &args.admin_address_path {
            std::fs::write(path, bound.to_string())
                .map_err(|source| Error::File { path: path.clone(), source })?;
        }
        tracing::info!(address = %bound, "admin interface");
        tokio::spawn(async move {
            if let Err(error) = admin::serve(socket, admin).await {
                tracing::error!(%error, "the admin interface ended");
            }
        });
    }
    Ok(queries)
}
