//! Clusters.

pub use super::convert::cluster as from_proto;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::bind_config::BindConfig;
use super::config_source::ConfigSource;
use super::endpoint::{LoadAssignment, Locality, Metadata, MetadataMatch};
use super::health_check::HealthCheck;
use super::http_connection_manager::Http2Options;
use super::http1::UpstreamHttp1;
use super::load_balancer::{LoadBalancer, OverrideHost, SlowStart, ZoneAware};
use super::proxy_protocol::UpstreamProxyProtocol;
use super::subset::Subsets;
use super::tls::UpstreamTls;

/// A validated `envoy.config.cluster.v3.Cluster`.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Unique name.
    pub name: Arc<str>,
    /// What stands in statistics instead of the name.
    pub alt_stat_name: Option<Box<str>>,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// How one is chosen.
    pub load_balancer: LoadBalancer,
    /// Before that, requests may name who it is to be.
    pub override_host: Option<Box<OverrideHost>>,
    /// Priorities are healthy down to this share, in percent. Default 50; 0 turns panic off.
    pub healthy_panic_threshold: u8,
    /// Endpoints that have just become healthy start slowly. Only where they are chosen by turns or by least request.
    pub slow_start: Option<SlowStart>,
    /// Traffic is divided among the localities of a priority by their weights.
    pub locality_weighted: bool,
    /// How much of the traffic stays in our own locality.
    pub zone_aware: ZoneAware,
    /// Endpoints are chosen among those whose metadata are as the route asks.
    pub subsets: Option<Box<Subsets>>,
    /// In a panic, fail instead of using every host.
    pub fail_traffic_on_panic: bool,
    /// Longest time for a connection to be made, TLS included. Default 5 s.
    pub connect_timeout: Duration,
    /// Soft limit of the bytes held for one connection, per direction. Default 1 MiB.
    pub per_connection_buffer_limit: usize,
    /// TLS and other settings of connections; `None`: plaintext.
    pub transport: Option<Arc<UpstreamTls>>,
    /// Endpoints are told, below TLS, whom a connection is for.
    pub proxy_protocol: Option<Arc<UpstreamProxyProtocol>>,
    /// Other transports for endpoints whose metadata match; first match wins.
    pub transport_socket_matches: Vec<TransportSocketMatch>,
    /// Which HTTP is spoken upstream.
    pub protocol: UpstreamProtocol,
    /// HTTP/1 settings.
    pub http1: UpstreamHttp1,
    /// HTTP/2 settings.
    pub http2: Http2Options,
    /// An upstream connection without a request for so long is closed; `None` never. Default 1 h.
    pub idle_timeout: Option<Duration>,
    /// Requests on one connection, after which it closes; `None` for no limit.
    pub max_requests_per_connection: Option<u32>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Most headers of a response. Default 100.
    pub max_response_headers_count: usize,
    /// Most bytes of a response's header section. Default 60 KiB.
    pub max_response_headers_bytes: u32,
    /// Limits, by routing priority: default, high.
    pub circuit_breakers: [CircuitBreakers; 2],
    /// Ejection of endpoints that fail.
    pub outlier_detection: Option<OutlierDetection>,
    /// Active health checks.
    pub health_check: Option<Arc<HealthCheck>>,
    /// What health checks mean for endpoints and their connections.
    pub health: HealthRules,
    /// TCP keep-alive of connections.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// In which order several addresses of an endpoint are tried; `None`: as the endpoint has them, in turn by family.
    pub happy_eyeballs: Option<HappyEyeballs>,
    /// Where its connections come from, unless the kernel is to choose; `None`: as all do by the bootstrap.
    pub bind: Option<Arc<BindConfig>>,
    /// Set the server name of TLS from the `Host` of the request that opens the connection.
    pub auto_sni: bool,
    /// Its metadata.
    pub metadata: Arc<Metadata>,
    /// Hash of the encoded proto: a cluster that comes again unchanged is left alone.
    pub fingerprint: u64,
}

/// Settings of a cluster that say what comes of an endpoint's health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HealthRules {
    /// An endpoint that discovery no longer has leaves at once, also while its checks pass.
    pub ignore_on_removal: bool,
    /// Endpoints count nowhere before their first check is over.
    pub ignore_new_until_checked: bool,
    /// Connections to an endpoint that becomes unhealthy, or is ejected, are closed with the requests on them.
    pub close_on_failure: bool,
    /// Connections to all endpoints serve no further request after some endpoint came or left.
    pub close_on_change: bool,
}

/// One entry of `transport_socket_matches`.
#[derive(Debug, Clone)]
pub struct TransportSocketMatch {
    /// Its name, for statistics.
    pub name: Box<str>,
    /// What the metadata `envoy.transport_socket_match` of an endpoint must hold.
    pub matches: MetadataMatch,
    /// The transport; `None`: plaintext.
    pub transport: Option<Arc<UpstreamTls>>,
    /// Endpoints are told, below TLS, whom a connection is for.
    pub proxy_protocol: Option<Arc<UpstreamProxyProtocol>>,
}

/// Where endpoints come from.
#[derive(Debug, Clone)]
pub enum Discovery {
    /// They stand in the cluster.
    Static(Arc<LoadAssignment>),
    /// Their host names are resolved.
    Dns(Dns),
    /// They are those of other clusters, in the order of these names; at least one.
    Aggregate(Box<[Arc<str>]>),
    /// They are discovered.
    Eds {
        /// Name of the load assignment.
        service_name: Arc<str>,
        /// Where it comes from.
        source: ConfigSource,
    },
    /// They are wherever clients were going to.
    OriginalDst(OriginalDst),
}

/// A validated `OriginalDstLbConfig`, with what else belongs to the type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginalDst {
    /// A request header that may name the destination, `ADDRESS:PORT`.
    pub header: Option<HeaderName>,
    /// Instead of the port of the destination.
    pub port: Option<u16>,
    /// An endpoint that has not been used, and has no connection, for so long to twice as long is given up. Default 5 s.
    pub cleanup_interval: Duration,
}

impl Discovery {
    /// Its name in Envoy, for a person.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Static(_) => "STATIC",
            Self::Dns(Dns { logical: false, .. }) => "STRICT_DNS",
            Self::Dns(Dns { logical: true, .. }) => "LOGICAL_DNS",
            Self::Aggregate(_) => "envoy.clusters.aggregate",
            Self::Eds { .. } => "EDS",
            Self::OriginalDst(_) => "ORIGINAL_DST",
        }
    }
}

/// How host names become endpoints.
#[derive(Debug, Clone)]
pub struct Dns {
    /// Host names instead of addresses.
    pub assignment: Arc<LoadAssignment>,
    /// All addresses of a name are one endpoint, which is where the first one leads (LOGICAL_DNS); else every address is one
    /// (STRICT_DNS).
    pub logical: bool,
    /// Which addresses count.
    pub family: DnsFamily,
    /// How often they are looked up.
    pub pace: DnsPace,
}

/// How often a host name is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsPace {
    /// Between two lookups. Default 5 s.
    pub refresh_rate: Duration,
    /// When the record's own time to live is over instead.
    pub respect_ttl: bool,
    /// But not sooner than after so long. Default 0.
    pub min_ttl: Duration,
    /// Later by a random time up to so much, exclusive. Default 0.
    pub jitter: Duration,
    /// After a failure: base and maximum of the back-off.
    pub failure_refresh: Option<(Duration, Duration)>,
}

/// Envoy's `DnsLookupFamily`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DnsFamily {
    Auto,
    V4Only,
    V6Only,
    V4Preferred,
    All,
}

/// Which HTTP is spoken upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// As the client speaks.
    Downstream,
    /// By ALPN: HTTP/2 if the endpoint takes it.
    Auto,
}

/// Thresholds of one routing priority. Defaults 1024, 1024, 1024, 3.
#[derive(Debug, Clone, PartialEq)]
pub struct CircuitBreakers {
    /// Connections.
    pub max_connections: u32,
    /// Requests that wait for a connection.
    pub max_pending_requests: u32,
    /// Requests under way.
    pub max_requests: u32,
    /// Retries under way.
    pub max_retries: u32,
    /// Instead of `max_retries`: a share of the active requests in percent, and the least number always allowed.
    pub retry_budget: Option<(f64, u32)>,
    /// Publish `remaining_…` gauges.
    pub track_remaining: bool,
}

/// A validated `OutlierDetection`. Defaults: reference of Envoy's proto.
#[derive(Debug, Clone, PartialEq)]
pub struct OutlierDetection {
    /// Default 5; `None`: off.
    pub consecutive_5xx: u32,
    /// Share of detections that eject, in percent. Default 100.
    pub enforcing_consecutive_5xx: u32,
    /// Default 5.
    pub consecutive_gateway_failure: u32,
    /// Default 0.
    pub enforcing_consecutive_gateway_failure: u32,
    /// Local failures (connect, reset, timeout) are counted apart from what the endpoint answers.
    pub split_external_local_origin_errors: bool,
    /// Default 5.
    pub consecutive_local_origin_failure: u32,
    /// Default 100.
    pub enforcing_consecutive_local_origin_failure: u32,
    /// Ejection of those that succeed less often than the others.
    pub success_rate: SuccessRate,
    /// Ejection of those that fail too often.
    pub failure_percentage: FailurePercentage,
    /// Between two looks at ejections and at rates. Default 10 s.
    pub interval: Duration,
    /// Default 30 s.
    pub base_ejection_time: Duration,
    /// Default: the larger of 300 s and the base.
    pub max_ejection_time: Duration,
    /// Default 0.
    pub max_ejection_time_jitter: Duration,
    /// Default 10.
    pub max_ejection_percent: u32,
    /// Default false.
    pub always_eject_one_host: bool,
    /// A passed health check ends an ejection. Default true.
    pub uneject_on_passed_check: bool,
}

/// Outlier detection by success rate. Envoy runs it unless `enforcing_success_rate` is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuccessRate {
    /// As many endpoints must have the volume. Default 5.
    pub minimum_hosts: u32,
    /// Requests in one interval from which on an endpoint counts. Default 100.
    pub request_volume: u32,
    /// How many standard deviations below the mean is too low, in thousandths. Default 1900.
    pub stdev_factor: u32,
    /// Share of detections that eject, in percent. Default 100.
    pub enforcing: u32,
    /// The same for local failures that are counted apart. Default 100.
    pub enforcing_local_origin: u32,
}

/// Outlier detection by share of failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailurePercentage {
    /// Failures in percent of the requests, from which on an endpoint fails too often. Default 85.
    pub threshold: u32,
    /// As many endpoints must have the volume. Default 5.
    pub minimum_hosts: u32,
    /// Requests in one interval from which on an endpoint counts. Default 50.
    pub request_volume: u32,
    /// Share of detections that eject, in percent. Default 0.
    pub enforcing: u32,
    /// The same for local failures that are counted apart. Default 0.
    pub enforcing_local_origin: u32,
}

/// A validated `HappyEyeballsConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HappyEyeballs {
    /// Which family is tried first, if there is one of it; `None`: that of the first address.
    pub first_is_ipv6: Option<bool>,
    /// So many of the first family are tried before one of the other. From 1; default 1.
    pub first_count: u32,
}

/// TCP keep-alive.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TcpKeepalive {
    /// Probes without an answer before the connection is dropped.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Between two probes.
    pub interval: Option<Duration>,
}

impl TcpKeepalive {
    /// As a socket takes it, with `time` where none is set.
    pub fn of_socket(&self, time: Duration) -> socket2::TcpKeepalive {
        let mut keepalive = socket2::TcpKeepalive::new().with_time(self.time.unwrap_or(time));
        if let Some(interval) = self.interval {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(probes) = self.probes {
            keepalive = keepalive.with_retries(probes);
        }
        keepalive
    }
}

/// An endpoint's address with where it is: what discovery of any kind ends in.
#[derive(Debug, Clone)]
pub struct ResolvedEndpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// Its locality.
    pub locality: Arc<Locality>,
}
