//! One place to connect to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::health_check::flags::{Flag, Flags};
use super::latency::Latency;
use super::load_report::Reported;
use super::outlier_detection::Monitor;
use crate::config::address::Address;
use crate::config::endpoint::{HealthStatus, Metadata};
use crate::config::proxy_protocol::UpstreamProxyProtocol;
use crate::stats::{EndpointCells, Sharded};
use crate::tls::ClientContext;

/// An endpoint's number, dense and never used again: what connection pools are kept by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EndpointId(pub(crate) u64);

/// What load balancing thinks of an endpoint (Envoy's coarse health).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// Gets traffic.
    Healthy,
    /// Gets traffic when the healthy ones do not suffice.
    Degraded,
    /// Gets traffic only in a panic.
    Unhealthy,
}

/// One place to connect to.
///
/// It is the same object for as long as its address, host name and transport stay the same, across updates of endpoints
/// and of the cluster: pools, active requests, failures and ejection are its own.
pub(crate) struct Endpoint {
    /// Its number.
    pub(crate) id: EndpointId,
    /// Where to connect.
    pub(crate) address: Address,
    /// Where it can be connected to as well.
    pub(crate) additional_addresses: Arc<[SocketAddr]>,
    /// Its host name, or empty.
    pub(crate) hostname: Arc<str>,
    /// TLS towards it; `None`: plaintext.
    pub(crate) transport: Option<Arc<ClientContext>>,
    /// It is told, below TLS, whom a connection is for.
    pub(crate) proxy_protocol: Option<Arc<UpstreamProxyProtocol>>,
    /// Requests (for TCP: connections) under way, from all workers. What least_request looks at.
    pub(crate) active: CachePadded<AtomicU32>,
    /// Its statistics.
    pub(crate) stats: Sharded<EndpointCells>,
    /// Its failures, and whether it is ejected.
    pub(crate) outlier: Monitor,
    /// What its health checks say.
    pub(crate) check: Flags,
    /// The weight that it reports; unset where those do not count.
    pub(crate) reported: OnceLock<Box<Reported>>,
    /// How long it takes to answer; unset where that does not count, and before the first answer.
    pub(crate) latency: OnceLock<Box<Latency>>,
    /// Told when it becomes unhealthy, where connections to it are closed then.
    pub(crate) failing: Notify,
    weight: AtomicU32,
    discovered_health: AtomicU8,
    gone: AtomicBool,
    metadata: ArcSwap<Metadata>,
    made: Instant,
    /// Nanoseconds from `made` until it became healthy, plus one; 0 as long as that is not known.
    healthy_since: AtomicU64,
}

impl Endpoint {
    pub(crate) fn new(
        id: EndpointId,
        address: Address,
        hostname: Arc<str>,
        transport: Option<Arc<ClientContext>>,
        shards: usize,
    ) -> Self {
        Self {
            id,
            address,
            additional_addresses: Arc::default(),
            hostname,
            transport,
            proxy_protocol: None,
            active: CachePadded::default(),
            stats: Sharded::new(shards),
            outlier: Monitor::default(),
            check: Flags::default(),
            reported: OnceLock::new(),
            latency: OnceLock::new(),
            failing: Notify::new(),
            weight: AtomicU32::new(1),
            discovered_health: AtomicU8::new(HealthStatus::Unknown as u8),
            gone: AtomicBool::new(false),
            metadata: ArcSwap::default(),
            made: Instant::now(),
            healthy_since: AtomicU64::new(0),
        }
    }

    /// With more addresses, all of which lead to it.
    pub(super) fn at(self, additional_addresses: &Arc<[SocketAddr]>) -> Self {
        Self { additional_addresses: Arc::clone(additional_addresses), ..self }
    }

    /// Told whom connections are for.
    pub(super) fn told(self, proxy_protocol: Option<Arc<UpstreamProxyProtocol>>) -> Self {
        Self { proxy_protocol, ..self }
    }

    /// Its weight, from 1.
    #[inline]
    pub(crate) fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Requests under way.
    #[inline]
    pub(crate) fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// What discovery says of its health.
    pub(crate) fn discovered_health(&self) -> HealthStatus {
        match self.discovered_health.load(Relaxed) {
            1 => HealthStatus::Healthy,
            2 => HealthStatus::Unhealthy,
            3 => HealthStatus::Draining,
            4 => HealthStatus::Timeout,
            5 => HealthStatus::Degraded,
            _ => HealthStatus::Unknown,
        }
    }

    /// What load balancing thinks of it.
    pub(crate) fn health(&self) -> Health {
        if self.outlier.ejection().is_some() || self.check.has(Flag::Failed) {
            return Health::Unhealthy;
        }
        match self.discovered_health() {
            HealthStatus::Unknown | HealthStatus::Healthy if self.check.has(Flag::Degraded) => {
                Health::Degraded
            }
            HealthStatus::Unknown | HealthStatus::Healthy => Health::Healthy,
            HealthStatus::Degraded => Health::Degraded,
            HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout => {
                Health::Unhealthy
            }
        }
    }

    /// Where its metadata stand.
    pub(crate) fn metadata_cell(&self) -> &ArcSwap<Metadata> {
        &self.metadata
    }

    /// Its metadata.
    pub(crate) fn metadata(&self) -> Arc<Metadata> {
        self.metadata.load_full()
    }

    /// It has become healthy now: it starts slowly, where that is configured.
    pub(crate) fn became_healthy(&self) {
        let nanoseconds = u64::try_from(self.made.elapsed().as_nanos()).unwrap_or(u64::MAX - 1);
        self.healthy_since.store(nanoseconds + 1, Relaxed);
    }

    /// For how long it has been healthy; `None` if it was never noted.
    pub(crate) fn healthy_for(&self) -> Option<Duration> {
        let since = Duration::from_nanos(self.healthy_since.load(Relaxed).checked_sub(1)?);
        Some(self.made.elapsed().saturating_sub(since))
    }

    /// Whether it is left out where the share of healthy endpoints is counted: one that drains is neither ill nor well,
    /// and no more is one that was not checked yet, or is to get nothing.
    pub(crate) fn is_excluded(&self) -> bool {
        self.discovered_health() == HealthStatus::Draining
            || self.check.has_any(&[Flag::Pending, Flag::Excluded])
    }

    /// Whether no cluster has it any more: its idle connections are closed, those with requests finish.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// Takes over what discovery says now. Returns whether the host set has to be rebuilt for it.
    pub(super) fn update(
        &self,
        weight: u32,
        health: HealthStatus,
        metadata: &Arc<Metadata>,
    ) -> bool {
        self.metadata.store(Arc::clone(metadata));
        let weight_before = self.weight.swap(weight, Relaxed);
        let health_before = self.discovered_health.swap(health as u8, Relaxed);
        weight_before != weight || health_before != health as u8
    }

    /// Gives it a weight, from 1. Returns whether it had another.
    pub(super) fn set_weight(&self, weight: u32) -> bool {
        self.weight.swap(weight, Relaxed) != weight
    }

    pub(super) fn set_gone(&self) {
        self.gone.store(true, Relaxed);
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({}, {})", self.id.0, self.address)
    }
}
