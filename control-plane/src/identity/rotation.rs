//! A new root in steps, each of which waits for every member. Nobody is left behind: who is not there but has a
//! certificate that is still good is waited for, and named.
//!
//! 1. The new root is handed out beside the old one. The step is over when everybody verifies peers and the control plane
//!    by both.
//! 2. The new root signs. The step is over when everybody has a certificate under it.
//! 3. The old root is trusted no more.
//!
//! How far it has come is in the store: a control plane that is started again goes on where it was.

use crate::discovery::{Hub, TrustUptake};
use crate::identity::ca::{CertificateAuthority, Rotation, RotationStep};
use crate::identity::issued::{Issued, Ledger};
use crate::registry::{InstanceName, Registry};
use crate::store::Store;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether a step is over.
const INTERVAL: Duration = Duration::from_millis(200);
/// A sidecar that was asked to renew and did not is asked again after this time.
const ASKED_AGAIN: Duration = Duration::from_secs(5);

/// What a rotation works with.
pub(crate) struct Progress {
    pub(crate) authority: Arc<CertificateAuthority>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) hub: Arc<Hub>,
}

impl Progress {
    /// Who has not taken the step yet, and why.
    pub(crate) fn waits_for(&self, rotation: Rotation) -> Vec<(InstanceName, String)> {
        let now = SystemTime::now();
        let live = self.registry.live();
        let mut waiting = Vec::new();
        for (name, newest) in self.ledger.newest(now) {
            // Who is refused has nothing to trust.
            if newest.revoked {
                continue;
            }
            let reason = if !self.has_renewed(rotation, &newest) {
                match live.find(&name) {
                    Some(_) => Some("has not renewed its certificate yet".to_owned()),
                    None => Some(format!(
                        "is not connected, and its certificate is good until {}; if it is gone for good: outrigger identity revoke {}.{}",
                        crate::api::view::rfc3339(newest.expires()),
                        name.instance,
                        name.service,
                    )),
                }
            } else {
                match self.hub.trust_uptake(&name, &self.authority.trust().borrow()) {
                    TrustUptake::Taken => None,
                    TrustUptake::Pending => {
                        Some("has not acknowledged the trusted roots yet".to_owned())
                    }
                    TrustUptake::Rejected(reason) => {
                        Some(format!("rejected the trusted roots: {reason}"))
                    }
                }
            };
            waiting.extend(reason.map(|reason| (name, reason)));
        }
        waiting
    }

    /// A renewal brings the roots that the control plane is verified by, and in the second step the new root's signature.
    fn has_renewed(&self, rotation: Rotation, newest: &Issued) -> bool {
        match rotation.step {
            RotationStep::Trusting => newest.issued_ms >= rotation.since_ms,
            RotationStep::Issuing => newest.root == self.authority.pin(),
        }
    }

    /// Takes the steps of whatever rotation is under way, until `stopping`.
    pub(crate) async fn drive(self: Arc<Self>, stopping: CancellationToken) {
        let mut trust = self.authority.trust();
        let mut asked = HashMap::new();
        loop {
            if let Some(rotation) = self.authority.rotation() {
                self.step(rotation, &mut asked).await;
            }
            let under_way = self.authority.rotation().is_some();
            tokio::select! {
                changed = trust.changed() => {
                    asked.clear();
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(INTERVAL), if under_way => {}
                () = stopping.cancelled() => return,
            }
        }
    }

    async fn step(
        self: &Arc<Self>,
        rotation: Rotation,
        asked: &mut HashMap<InstanceName, Instant>,
    ) {
        let waiting = self.waits_for(rotation);
        if waiting.is_empty() {
            let (progress, step) = (self.clone(), rotation.step);
            let finished = tokio::task::spawn_blocking(move || {
                progress.authority.finish_step(&*progress.store, step, SystemTime::now())
            });
            match finished.await {
                Ok(Ok(())) => {
                    tracing::info!(?step, "every member has taken this step of the root's rotation")
                }
                Ok(Err(error)) => tracing::error!(%error, "the root's rotation cannot go on"),
                Err(error) => tracing::error!(%error, "the root's rotation cannot go on"),
            }
            return;
        }
        let newest: HashMap<_, _> = self.ledger.newest(SystemTime::now()).into_iter().collect();
        for (name, _) in waiting {
            let renewed = newest.get(&name).is_some_and(|it| self.has_renewed(rotation, it));
            let lately = asked.get(&name).is_some_and(|at| at.elapsed() < ASKED_AGAIN);
            if !renewed && !lately && self.registry.ask_to_renew(&name) {
                asked.insert(name, Instant::now());
            }
        }
    }

    /// Begins a rotation, unless one is under way. Blocks until that is durable.
    ///
    /// # Errors
    /// In words, if the store fails.
    pub(crate) fn begin(&self) -> Result<(), String> {
        let begun = self.authority.begin_rotation(&*self.store, SystemTime::now());
        begun.map_err(|error| error.to_string())
    }

    /// Refuses these instances from now on. Blocks until that is durable.
    ///
    /// # Errors
    /// In words, if the store fails.
    pub(crate) fn revoke(
        &self,
        names: &[InstanceName],
    ) -> Result<Vec<(InstanceName, usize)>, String> {
        let now = SystemTime::now();
        let revoked = self.ledger.revoke(names, now).map_err(|error| error.to_string())?;
        let published = self.authority.publish(&self.ledger.refused(now), now);
        published.map_err(|error| error.to_string())?;
        Ok(revoked)
    }

    /// When the step of a rotation began.
    pub(crate) fn since(rotation: Rotation) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(rotation.since_ms)
    }
}
