//! The orderly end.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Control, GRACE};
use crate::admin::State;

impl Control {
    /// First nobody is sent here any more, then nobody is let in, then whoever is inside may finish.
    pub(super) async fn drain(&mut self) {
        tracing::info!("draining");
        self.status.set(State::Draining);
        if let Some(membership) = &self.membership {
            // Discovery goes on meanwhile: applications behind this sidecar still send.
            let registry = membership.registry.clone();
            let drained = registry.drain();
            tokio::pin!(drained);
            loop {
                tokio::select! {
                    () = &mut drained => break,
                    Some((id, event)) = self.events.recv() => {
                        self.discovery.on_event(id, event, &mut self.data, Instant::now());
                        self.follow_streams();
                    }
                }
            }
        }
        self.data.shared.draining_inbound.cancel();
        self.data.shared.draining.cancel();
        self.data.close();
        let grace = self.args.drain_time_s.map_or(GRACE, Duration::from_secs);
        let connections = Arc::clone(&self.data.shared.connections);
        let finished = async {
            while connections.load(Relaxed) > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(grace, finished).await.is_err() {
            let open = connections.load(Relaxed);
            tracing::warn!(open, "the grace period is over, connections are cut");
        }
        tracing::info!("drained");
    }
}
