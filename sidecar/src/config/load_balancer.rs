//! How an endpoint of a cluster is chosen.

use super::runtime::RuntimeNumber;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::hash_policy::HashPolicy;

/// How an endpoint is chosen.
#[derive(Debug, Clone)]
pub enum LoadBalancer {
    /// In turn, by weight.
    RoundRobin,
    /// The least loaded of `choice_count` chosen at random; by weight where weights differ.
    LeastRequest {
        /// Default 2, at least 2.
        choice_count: u32,
        /// How much active requests count against the weight. Default 1, at least 0.
        active_request_bias: RuntimeNumber,
        /// All are compared, and not only `choice_count`.
        full_scan: bool,
    },
    /// At random; weights do not count.
    Random,
    /// By a hash of the request, on a ring of hashes of the endpoints (ketama).
    RingHash(RingHash),
    /// By a hash of the request, in a table of a fixed size (Google's Maglev).
    Maglev(Maglev),
    /// In turn, by the weight that follows from what endpoints report of their load.
    ClientSideWeighted(Arc<ClientSideWeighted>),
    /// Of two the one that is likely to answer sooner; candidates by weight where weights differ. Our own policy.
    PeakEwma(Arc<PeakEwma>),
    /// The cluster itself says: of type ORIGINAL_DST, or an aggregate.
    ClusterProvided,
}

/// Requests may name the endpoints they go to: Envoy's policy `override_host`. Where they do not, or none of those exists, the
/// load balancer chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverrideHost {
    /// Where endpoints are named, as `ADDRESS:PORT,...`; what each source names counts, in order. At least one.
    pub sources: Vec<OverrideSource>,
    /// Where in the metadata of a request it is noted which endpoint was chosen: whose, and a path.
    pub selected: Option<MetadataPlace>,
}

/// A place in metadata: whose, and the path of keys there.
pub type MetadataPlace = (Box<str>, Box<[Box<str>]>);

/// One place where a request may name endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OverrideSource {
    /// The first line of a header.
    Header(HeaderName),
    /// A text in the metadata of the request: whose, and a path.
    Metadata(Box<str>, Box<[Box<str>]>),
}

/// The settings of peak EWMA, `outrigger.load_balancing.v1.PeakEwma`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeakEwma {
    /// Time constant of the average: what was seen so long ago counts for 1/e. 1 ms to 1 h; default 10 s.
    pub decay: Duration,
    /// What an endpoint counts as that has not answered yet. 1 us to 1 h; default 30 ms.
    pub default_rtt: Duration,
    /// A request that fails counts as if it had taken at least so long. Up to 1 h; default 1 s.
    pub failure_penalty: Duration,
}

impl Default for PeakEwma {
    fn default() -> Self {
        Self {
            decay: Duration::from_secs(10),
            default_rtt: Duration::from_millis(30),
            failure_penalty: Duration::from_secs(1),
        }
    }
}

/// The settings of Envoy's `client_side_weighted_round_robin`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientSideWeighted {
    /// An endpoint has to report for so long before its weight counts. Default 10 s.
    pub blackout_period: Duration,
    /// A weight counts for so long after the last report. Default 3 min.
    pub weight_expiration_period: Duration,
    /// How often weights are taken over. Default 1 s, at least 100 ms.
    pub weight_update_period: Duration,
    /// The share of requests that fail, so many times, counts as utilization. At least 0; default 0, whatever Envoy's
    /// documentation says.
    pub error_utilization_penalty: f64,
    /// What the utilization is taken from; the largest counts. Before what the application says, and the processors.
    pub metrics: Vec<LoadMetric>,
}

impl Default for ClientSideWeighted {
    fn default() -> Self {
        Self {
            blackout_period: Duration::from_secs(10),
            weight_expiration_period: Duration::from_secs(180),
            weight_update_period: Duration::from_secs(1),
            error_utilization_penalty: 0.0,
            metrics: Vec::new(),
        }
    }
}

/// One thing that a load report says. Of a map, the value of a key, or of `*` the largest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadMetric {
    /// `cpu_utilization`
    Cpu,
    /// `mem_utilization`
    Memory,
    /// `application_utilization`
    Application,
    /// `rps_fractional`
    Requests,
    /// `eps`
    Errors,
    /// `request_cost.KEY`
    RequestCost(Box<str>),
    /// `utilization.KEY`
    Utilization(Box<str>),
    /// `named_metrics.KEY`
    Named(Box<str>),
}

impl LoadMetric {
    /// By its name; `None`: a report has no such thing.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "cpu_utilization" => Self::Cpu,
            "mem_utilization" => Self::Memory,
            "application_utilization" => Self::Application,
            "rps_fractional" => Self::Requests,
            "eps" => Self::Errors,
            _ => match name.split_once('.')? {
                ("request_cost", key) => Self::RequestCost(key.into()),
                ("utilization", key) => Self::Utilization(key.into()),
                ("named_metrics", key) => Self::Named(key.into()),
                _ => return None,
            },
        })
    }
}

/// How an endpoint that has just become healthy comes to its full weight, by turns and by least request.
#[derive(Debug, Clone, PartialEq)]
pub struct SlowStart {
    /// How long it takes; more than 0.
    pub window: Duration,
    /// How the weight grows with the time: `time ^ (1 / aggression)`. Default 1: in proportion. More than 0.
    pub aggression: RuntimeNumber,
    /// It is never less than this part of the full weight, 0 to 1. Default 0.1.
    pub min_weight: f64,
}

/// Zone aware routing: how much of the traffic stays in our own locality. Counts where the bootstrap names the local cluster
/// (`cluster_manager.local_cluster_name`) and the weights of localities do not decide; for policies that do not go by a
/// hash. Envoy's `ZoneAwareLbConfig`.
#[derive(Debug, Clone, PartialEq)]
pub struct ZoneAware {
    /// Share of the requests that it is asked about, in percent. Default 100; runtime key `upstream.zone_routing.enabled`.
    pub routing_enabled: RuntimeNumber,
    /// With fewer healthy endpoints it is off. Default 6; runtime key `upstream.zone_routing.min_cluster_size`.
    pub min_cluster_size: RuntimeNumber,
    /// Everything stays in our locality if it has so many healthy endpoints, whatever the others have. `None`: only what is
    /// the share of our locality.
    pub force_local_zone: Option<u32>,
    /// Instead of that, if more than 0: what the runtime says, `upstream.zone_routing.force_local_zone.min_size`.
    pub force_local_zone_by_runtime: RuntimeNumber,
    /// Shares are of the weights of healthy endpoints, and not of their number.
    pub by_weight: bool,
}

impl Default for ZoneAware {
    fn default() -> Self {
        Self::new(100.0, 6.0)
    }
}

impl ZoneAware {
    /// With the keys that Envoy reads.
    pub fn new(routing_enabled: f64, min_cluster_size: f64) -> Self {
        let number = |default, key: &str| {
            RuntimeNumber::new(default, &format!("upstream.zone_routing.{key}"))
        };
        Self {
            routing_enabled: number(routing_enabled, "enabled"),
            min_cluster_size: number(min_cluster_size, "min_cluster_size"),
            force_local_zone: None,
            force_local_zone_by_runtime: number(0.0, "force_local_zone.min_size"),
            by_weight: false,
        }
    }

    /// With so many healthy endpoints in our locality everything stays there.
    pub fn forces_from(&self) -> Option<u64> {
        match self.force_local_zone_by_runtime.whole() {
            0 => self.force_local_zone.map(u64::from),
            least => Some(least),
        }
    }
}

/// The settings of a ring.
#[derive(Debug, Clone)]
pub struct RingHash {
    /// The ring has at least about so many entries. Default 1024, at most 8388608 and `maximum_size`.
    pub minimum_size: u64,
    /// The ring has at most so many entries. Default and most 8388608.
    pub maximum_size: u64,
    /// Where the entries of an endpoint come to lie.
    pub function: HashFunction,
    /// What both kinds have.
    pub common: ConsistentHashing,
}

/// Envoy's `HashFunction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashFunction {
    /// xxHash64.
    XxHash,
    /// MurmurHash2 as `std::hash` of GNU's C++ library has it.
    MurmurHash2,
}

/// The settings of a Maglev table.
#[derive(Debug, Clone)]
pub struct Maglev {
    /// Entries of the table: a prime up to 5000011. Default 65537.
    pub table_size: u32,
    /// What both kinds have.
    pub common: ConsistentHashing,
}

/// What all load balancers have that choose by a hash.
#[derive(Debug, Clone, Default)]
pub struct ConsistentHashing {
    /// An endpoint's place depends on its host name and not on its address.
    pub use_hostname: bool,
    /// No endpoint has more than so many percent of its share of the requests under way, at least 100; `None`: no bound.
    pub balance_factor: Option<u32>,
    /// What of a request is hashed. Empty: as the route says.
    pub hash_policy: Vec<HashPolicy>,
}

impl LoadBalancer {
    /// What it hashes by, if it chooses by a hash.
    pub fn hashing(&self) -> Option<&ConsistentHashing> {
        match self {
            Self::RingHash(ring) => Some(&ring.common),
            Self::Maglev(maglev) => Some(&maglev.common),
            Self::RoundRobin
            | Self::LeastRequest { .. }
            | Self::Random
            | Self::ClientSideWeighted(_)
            | Self::PeakEwma(_)
            | Self::ClusterProvided => None,
        }
    }

    /// Whether some of the traffic may stay in our own locality.
    pub fn is_zone_aware(&self) -> bool {
        match self {
            Self::RoundRobin
            | Self::LeastRequest { .. }
            | Self::Random
            | Self::ClientSideWeighted(_)
            | Self::PeakEwma(_) => true,
            Self::RingHash(_) | Self::Maglev(_) | Self::ClusterProvided => false,
        }
    }

    /// As [`hashing`](Self::hashing), to be changed.
    pub(super) fn hashing_mut(&mut self) -> Option<&mut ConsistentHashing> {
        match self {
            Self::RingHash(ring) => Some(&mut ring.common),
            Self::Maglev(maglev) => Some(&mut maglev.common),
            Self::RoundRobin
            | Self::LeastRequest { .. }
            | Self::Random
            | Self::ClientSideWeighted(_)
            | Self::PeakEwma(_)
            | Self::ClusterProvided => None,
        }
    }
}
