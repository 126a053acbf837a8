//! The one way in which the mesh changes, whoever asks: read, plan, commit, and start over if somebody else was faster.

use super::Api;
use super::failure::Failure;
use super::view::{Acked, Client};
use crate::model::plan::{Plan, plan};
use crate::model::problem::Code;
use crate::model::read::Document;
use crate::model::{Config, Kind, Problem, mesh};
use crate::store::StoreError;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Starting over more often than this means that somebody writes without end.
const ATTEMPTS: usize = 100;

impl Api {
    /// Makes of the configuration what `documents` say, in one transaction. `documents` is asked again when it was made for
    /// a configuration that is no longer in force. A plan that changes nothing makes no revision.
    ///
    /// # Errors
    /// What `documents` says; 409 or 422 with every problem; 503 if the store fails.
    pub(super) async fn change(
        &self,
        author: &str,
        mut documents: impl FnMut(&Config) -> Result<Vec<Document>, Failure>,
    ) -> Result<Plan, Failure> {
        let _turn = self.writing.lock().await;
        for _ in 0..ATTEMPTS {
            let base = self.store.current();
            let mut planned =
                plan(&base, &documents(&base)?).map_err(|problems| self.rejected(problems))?;
            self.check_trust_domain(&base, &planned)?;
            if planned.changes.is_empty() {
                self.metrics.applies.unchanged();
                return Ok(planned);
            }
            let (store, author) = (Arc::clone(&self.store), author.to_owned());
            let (changes, revision) = (planned.changes.clone(), base.revision());
            let committed =
                tokio::task::spawn_blocking(move || store.transaction(revision, &changes, &author));
            match committed.await {
                Ok(Ok(config)) => {
                    tracing::info!(
                        revision = config.revision(),
                        objects = planned.changes.len(),
                        "configuration changed"
                    );
                    planned.config = config;
                    self.metrics.applies.changed();
                    return Ok(planned);
                }
                Ok(Err(StoreError::Conflict { .. })) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(error) => return Err(unavailable(&error)),
            }
        }
        Err(Failure::unavailable("others change the mesh all the time; try again"))
    }

    /// The trust domain is a part of every identity: whoever has one would be a stranger from one moment to the next.
    pub(super) fn check_trust_domain(&self, base: &Config, planned: &Plan) -> Result<(), Failure> {
        let (old, new) = (&base.mesh().trust_domain, &planned.config.mesh().trust_domain);
        if old == new {
            return Ok(());
        }
        let members = self.view.sidecars();
        let members: Vec<_> = members
            .iter()
            .filter(|sidecar| sidecar.client == Client::Outrigger)
            .map(|sidecar| sidecar.node.as_str())
            .collect();
        if members.is_empty() {
            return Ok(());
        }
        let reason = format!(
            "the trust domain `{old}` is part of the identities of {}: it can be changed while the mesh has no members",
            members.join(", ")
        );
        let problem = Problem::new(Code::InUse, reason).of(Kind::Mesh, mesh::NAME);
        Err(self.rejected(vec![problem.field("spec.trustDomain")]))
    }

    /// Runs a reader of a body. Megabytes of documents take their time and a multiple of their memory: they are read beside
    /// the threads that serve others, and few at a time.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let _turn = self.reading.acquire().await.map_err(|error| unavailable(&error))?;
        tokio::task::spawn_blocking(read).await.map_err(|error| unavailable(&error))
    }

    /// Documents with problems.
    pub(super) fn rejected(&self, problems: Vec<Problem>) -> Failure {
        self.metrics.applies.rejected();
        Failure::invalid(problems)
    }

    /// Waits until every connected client has `revision` in effect, or `longest` has passed; how it stands then.
    pub(super) async fn acked(&self, revision: u64, longest: Duration) -> Acked {
        let mut changes = self.view.changes();
        let deadline = Instant::now() + longest;
        loop {
            changes.mark_unchanged();
            let acked = self.view.acked(revision);
            if acked.acked >= acked.total || longest.is_zero() {
                return acked;
            }
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                // Time is up, or nothing will change any more.
                _ => return self.view.acked(revision),
            }
        }
    }
}

fn unavailable(error: &dyn std::error::Error) -> Failure {
    Failure::unavailable(error.to_string())
}
