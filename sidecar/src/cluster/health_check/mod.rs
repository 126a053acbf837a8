//! Active health checks: every endpoint of a cluster is asked again and again how it is.
//!
//! Semantics: Envoy's "health checking". All of it lives on the control thread, a task for each endpoint; what is found
//! stands on the endpoint ([`flags`]), and the manager is told where a host set has to be made again.
//!
//! Reading order:
//! - [`session`]: the life of one endpoint's checks: wait, check, judge;
//! - [`judge`]: what a result means, by the thresholds; [`pace`]: when the next check comes;
//! - [`probe`]: what can be asked, and how a connection is kept: [`http`], [`grpc`], [`tcp`] over [`connect`], with
//!   [`client`] for the two that are HTTP and [`payload`] for what is searched in answers.

mod client;
mod connect;
pub(crate) mod flags;
mod grpc;
mod http;
mod judge;
mod pace;
mod payload;
pub(super) mod probe;
mod session;
mod tcp;

use std::collections::HashMap;
use std::sync::Arc;

use ::http::HeaderValue;
use tokio::sync::{mpsc::UnboundedSender, watch};

use super::cluster::{Cluster, ClusterId};
use super::endpoint::{Endpoint, EndpointId};
use super::event_log::EventLog;
use crate::config::address::Address;
use crate::config::endpoint::CheckTarget;
use crate::config::health_check::HealthCheck;
use crate::config::proxy_protocol::UpstreamProxyProtocol;
use crate::stats::{HealthCheckCells, Sharded};
use crate::tls::ClientContext;
pub(super) use judge::FailureKind;
#[cfg(test)]
pub(super) use judge::{Failure, Passed};
use probe::MakeProbe;
use session::Session;

/// What happens to the health of an endpoint.
pub(crate) enum HealthEvent {
    /// A check is over.
    Checked {
        cluster: ClusterId,
        endpoint: Arc<Endpoint>,
        passed: bool,
        /// It is healthy or unhealthy in another way than before.
        changed: bool,
    },
    /// A response said that the endpoint is unhealthy.
    Told { cluster: ClusterId, endpoint: Arc<Endpoint> },
}

/// What all checks of a cluster go by. A new one takes the place of the one before when the cluster changes.
pub(super) struct Plan {
    pub(super) config: Arc<HealthCheck>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) stats: Arc<Sharded<HealthCheckCells>>,
    /// The transport that the configuration chooses for all; `None`: each endpoint's own.
    pub(super) transport: Option<Option<Arc<ClientContext>>>,
    /// What writes the event logs.
    pub(super) log: Arc<dyn EventLog>,
    /// The same, of what endpoints are told below TLS.
    pub(super) proxy_protocol: Option<Option<Arc<UpstreamProxyProtocol>>>,
}

impl Plan {
    /// Whether a connection that was made by the other plan serves this one as well, and the next check is due when it
    /// was.
    fn is_like(&self, other: &Self) -> bool {
        let same_transport = match (&self.transport, &other.transport) {
            (None, None) | (Some(None), Some(None)) => true,
            (Some(Some(one)), Some(Some(other))) => Arc::ptr_eq(one, other),
            _ => false,
        };
        self.config.fingerprint == other.config.fingerprint
            && same_transport
            && self.proxy_protocol == other.proxy_protocol
    }
}

/// Where an endpoint is checked.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) address: Address,
    /// `Host` or `:authority`, where the endpoint has one of its own.
    pub(super) hostname: Option<HeaderValue>,
    pub(super) transport: Option<Arc<ClientContext>>,
    pub(super) proxy_protocol: Option<Arc<UpstreamProxyProtocol>>,
}

/// The checks of one cluster. Dropping it ends them.
pub(super) struct Checks {
    plan: watch::Sender<Arc<Plan>>,
    sessions: HashMap<EndpointId, Session>,
    make_probe: MakeProbe,
    events: UnboundedSender<HealthEvent>,
}

impl Checks {
    pub(super) fn new(
        plan: Plan,
        make_probe: MakeProbe,
        events: UnboundedSender<HealthEvent>,
    ) -> Self {
        let plan = watch::Sender::new(Arc::new(plan));
        Self { plan, sessions: HashMap::new(), make_probe, events }
    }

    /// Goes on by another plan. Counts and results stay.
    pub(super) fn adopt(&self, plan: Plan) {
        self.plan.send_replace(Arc::new(plan));
    }

    /// Begins to check an endpoint, unless it is checked there already. Returns whether it began.
    pub(super) fn follow(
        &mut self,
        endpoint: &Arc<Endpoint>,
        at: Option<&Arc<CheckTarget>>,
    ) -> bool {
        let known = self.sessions.get(&endpoint.id);
        if known.is_some_and(|known| known.at.as_ref() == at) {
            return false;
        }
        let target = Target {
            address: at
                .map_or_else(|| endpoint.address.clone(), |at| at.address_of(&endpoint.address)),
            hostname: at.and_then(|at| at.hostname.clone()),
            transport: endpoint.transport.clone(),
            proxy_protocol: endpoint.proxy_protocol.clone(),
        };
        let session = Session::start(
            endpoint,
            at.cloned(),
            target,
            self.plan.subscribe(),
            (self.make_probe)(),
            self.events.clone(),
        );
        self.sessions.insert(endpoint.id, session);
        true
    }

    /// Checks an endpoint no more.
    pub(super) fn forget(&mut self, endpoint: EndpointId) {
        self.sessions.remove(&endpoint);
    }

    /// A response of the endpoint said that it is unhealthy.
    pub(super) fn told(&self, endpoint: EndpointId) {
        if let Some(session) = self.sessions.get(&endpoint) {
            session.told();
        }
    }
}
