//! A cluster as a request sees it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderMap;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::circuit_breaker::Breaker;
use super::endpoint::Endpoint;
use super::health_check::HealthEvent;
use super::health_check::flags::Flag;
use super::host_set::HostSet;
use super::load_balancer::{self, Context};
use super::original_dst::OriginalDst;
use super::outlier_detection::{Comparison, Detector, Origins, Outcome};
use crate::config;
use crate::config::bind_config::BindConfig;
use crate::config::cluster::Discovery;
use crate::config::load_balancer::{ClientSideWeighted, LoadBalancer};
use crate::stats::{ClusterCells, ClusterUpdateCells, Sharded, TlsCells};

/// A cluster's number: the same for a name as long as the process lives, whether the cluster exists or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ClusterId(pub(crate) u32);

impl ClusterId {
    /// As an index.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Envoy's `RoutingPriority`: which circuit breakers a request counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RoutingPriority {
    /// `DEFAULT`
    #[default]
    Default,
    /// `HIGH`
    High,
}

/// A cluster.
///
/// An update of the cluster's configuration makes a new one, which shares everything but `config` with the one before:
/// requests under way see the endpoints of this moment, and count where new ones count.
pub(crate) struct Cluster {
    /// Its number.
    pub(crate) id: ClusterId,
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Its configuration.
    pub(crate) config: Arc<config::cluster::Cluster>,
    /// Its statistics.
    pub(crate) stats: Arc<Sharded<ClusterCells>>,
    /// Statistics of its TLS connections, `cluster.NAME.ssl`; `None` if it has plaintext endpoints only.
    pub(crate) tls_stats: Option<Arc<Sharded<TlsCells>>>,
    /// Statistics of the discovery of its endpoints. For the control thread.
    pub(crate) updates: Arc<Sharded<ClusterUpdateCells>>,
    /// Its endpoints. Swapped whole when they, their health or an ejection changes.
    pub(crate) hosts: Arc<ArcSwap<HostSet>>,
    /// Whose endpoints it has, if it is an aggregate: it has none of its own.
    pub(crate) members: Option<Arc<[ClusterId]>>,
    pub(super) drop_overload: Arc<AtomicU32>,
    pub(super) drop_category: Arc<ArcSwapOption<Box<str>>>,
    /// Where its endpoints are made, if it is of type ORIGINAL_DST: it has nothing to choose from.
    pub(crate) original_dst: Option<Arc<OriginalDst>>,
    /// Where its connections come from; `None`: the kernel chooses.
    pub(crate) bind: Option<Arc<BindConfig>>,
    pub(super) breakers: Arc<[Breaker; 2]>,
    pub(super) detector: Option<Detector>,
    /// Where responses are told that say that their endpoint is unhealthy; `None` without health checks.
    pub(super) health: Option<UnboundedSender<HealthEvent>>,
}

impl Cluster {
    /// Its name in statistics, logs and traces: `alt_stat_name`, where it has one.
    pub(crate) fn observed_name(&self) -> &str {
        self.config.alt_stat_name.as_deref().unwrap_or(&self.name)
    }

    /// Chooses an endpoint of `hosts`; `None` if none is available.
    pub(crate) fn pick<'h>(
        &self,
        hosts: &'h HostSet,
        context: &Context<'_>,
    ) -> Option<&'h Arc<Endpoint>> {
        load_balancer::pick(self, hosts, context)
    }

    /// So many requests in a million are dropped before an endpoint is chosen.
    #[inline]
    pub(crate) fn drop_overload(&self) -> u32 {
        self.drop_overload.load(Relaxed)
    }

    /// What the requests that are dropped so are called in load reports; empty without a name.
    pub(crate) fn drop_category(&self) -> String {
        self.drop_category.load().as_deref().map(ToString::to_string).unwrap_or_default()
    }

    /// The endpoint of a cluster of type ORIGINAL_DST: where a header says, if the cluster goes by one, else where the
    /// client was going to.
    pub(crate) fn original_destination(
        &self,
        headers: Option<&HeaderMap>,
        destination: Option<SocketAddr>,
    ) -> Option<Arc<Endpoint>> {
        let (Some(places), Discovery::OriginalDst(config)) =
            (&self.original_dst, &self.config.discovery)
        else {
            return None;
        };
        let named = config.header.as_ref().and_then(|name| headers?.get(name)).and_then(|value| {
            let address = value.to_str().ok().and_then(|text| text.parse::<SocketAddr>().ok());
            if address.is_none() {
                self.stats.local().original_dst_host_invalid.inc();
            }
            address
        });
        let mut address = named.or(destination)?;
        if let Some(port) = config.port {
            address.set_port(port);
        }
        places.endpoint(address)
    }

    /// Tells outlier detection how an endpoint did.
    #[inline]
    pub(crate) fn report(&self, endpoint: &Arc<Endpoint>, outcome: Outcome) {
        if let Some(detector) = &self.detector {
            detector.report(endpoint, outcome);
        }
    }

    /// The settings by which endpoints are weighed by what they report of their load, where they are.
    #[inline]
    pub(crate) fn weighs(&self) -> Option<&ClientSideWeighted> {
        match &self.config.load_balancer {
            LoadBalancer::ClientSideWeighted(settings) => Some(settings),
            _ => None,
        }
    }

    /// Notes that an endpoint has answered now what began then, or that it has `failed`, where endpoints are chosen by how long
    /// that takes.
    #[inline]
    pub(crate) fn note_latency(&self, endpoint: &Endpoint, began: Instant, failed: bool) {
        let LoadBalancer::PeakEwma(settings) = &self.config.load_balancer else { return };
        let took = began.elapsed();
        let took = if failed { took.max(settings.failure_penalty) } else { took };
        endpoint.latency.get_or_init(Box::default).observe(took, settings.decay);
    }

    /// How the endpoints compared in the last interval; `None` without outlier detection.
    pub(crate) fn comparisons(&self) -> Option<&Origins<Comparison>> {
        self.detector.as_ref().map(|detector| &*detector.comparisons)
    }

    /// Whether endpoints are checked, so that what a response says of its endpoint's health counts.
    #[inline]
    pub(crate) fn is_checked(&self) -> bool {
        self.health.is_some()
    }

    /// A response says that its endpoint is unhealthy: it gets nothing more until its health checks pass again.
    pub(crate) fn told_unhealthy(&self, endpoint: &Arc<Endpoint>) {
        if let Some(events) = &self.health {
            endpoint.check.set(Flag::Excluded, true);
            let (cluster, endpoint) = (self.id, Arc::clone(endpoint));
            // The receiver is gone only when the process ends.
            let _ = events.send(HealthEvent::Told { cluster, endpoint });
        }
    }

    /// Whether a connection was ever made for a request.
    pub(super) fn had_traffic(&self) -> bool {
        self.stats.used().any(|cells| cells.upstream_cx_total.value() > 0)
    }

    /// Closes the connections to an endpoint that is unhealthy now, with the requests on them, where that is configured.
    pub(super) fn break_connections(&self, endpoint: &Endpoint) {
        if self.config.health.close_on_failure {
            endpoint.failing.notify_waiters();
        }
    }

    /// Drives a connection to its end; or until its endpoint becomes unhealthy, where connections are closed then.
    pub(crate) async fn while_healthy<T>(
        &self,
        endpoint: &Endpoint,
        connection: impl Future<Output = T>,
    ) -> Option<T> {
        if !self.config.health.close_on_failure {
            return Some(connection.await);
        }
        tokio::select! {
            biased;
            () = endpoint.failing.notified() => None,
            ended = connection => Some(ended),
        }
    }

    /// The limits of a routing priority.
    #[inline]
    pub(crate) fn breaker(&self, priority: RoutingPriority) -> &Breaker {
        let [default, high] = &*self.breakers;
        match priority {
            RoutingPriority::Default => default,
            RoutingPriority::High => high,
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({}, {})", self.id.0, self.name)
    }
}
