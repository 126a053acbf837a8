//! HTTP filters before the router, and what routes say about them.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;

use super::compressor::{Compressor, CompressorPerRoute};
use super::decompressor::Decompressor;
use super::ext_authz::{AuthPerRoute, ExtAuthz};
use super::extension::DiscoveredFilter;
use super::grpc_stats::GrpcStats;
use super::header::HeaderMutations;
use super::jwt_authn::{JwtAuthn, JwtPerRoute};
use super::limiter::Limiter;
use super::matcher::{HeaderMatcher, StringMatcher};
use super::metadata::{SetFilterState, SetMetadata};
use super::on_demand::OnDemandClusters;
use super::rate_limit::{HostRules, RateLimit, RateLimitPerRoute, RateLimitRule};
use super::rbac::Rbac;
use super::runtime::{RuntimeFraction, RuntimeNumber};
use crate::stats::{RateLimitCells, Sharded};

pub use super::runtime::Fraction;

/// A filter of a connection manager. What is not configured is not in the list and costs nothing.
#[derive(Debug, Clone)]
pub struct HttpFilter {
    /// Name of the filter instance: key of route-level overrides.
    pub name: Arc<str>,
    /// Off, except where a route turns it on.
    pub disabled: bool,
    /// Which filter, and what it does.
    pub kind: FilterKind,
}

/// The filters there are.
#[derive(Debug, Clone)]
pub enum FilterKind {
    /// `envoy.filters.http.rbac`
    Rbac(Arc<Rbac>),
    /// `envoy.filters.http.cors`: all it does stands in routes.
    Cors,
    /// `envoy.filters.http.csrf`
    Csrf(Arc<CsrfPolicy>),
    /// `envoy.filters.http.fault`
    Fault(Arc<Fault>),
    /// `envoy.filters.http.grpc_stats`
    GrpcStats(Arc<GrpcStats>),
    /// `envoy.filters.http.local_ratelimit`
    LocalRateLimit(Arc<LocalRateLimit>),
    /// `envoy.filters.http.header_mutation`
    HeaderMutation(Arc<HeaderMutation>),
    /// `envoy.filters.http.buffer`: most bytes of a request's body.
    Buffer(u32),
    /// `envoy.filters.http.health_check`
    HealthCheck(Arc<HealthCheck>),
    /// `envoy.filters.http.set_metadata`
    SetMetadata(Arc<SetMetadata>),
    /// `envoy.filters.http.set_filter_state`
    SetFilterState(Arc<SetFilterState>),
    /// `envoy.filters.http.ext_authz`
    ExtAuthz(Arc<ExtAuthz>),
    /// `envoy.filters.http.jwt_authn`
    JwtAuthn(Arc<JwtAuthn>),
    /// `envoy.filters.http.ratelimit`
    RateLimit(Arc<RateLimit>),
    /// `envoy.filters.http.compressor`
    Compressor(Arc<Compressor>),
    /// `envoy.filters.http.decompressor`
    Decompressor(Arc<Decompressor>),
    /// `envoy.filters.http.on_demand`; `None`: only virtual hosts are asked for.
    OnDemand(Option<Arc<OnDemandClusters>>),
    /// What another says (`config_discovery`).
    Discovered(Arc<DiscoveredFilter>),
}

/// What one level of the routes (weighted cluster, route, virtual host, route configuration) says about filters, by the
/// name of the filter instance.
#[derive(Debug, Clone, Default)]
pub struct FilterOverrides(pub Vec<(Arc<str>, FilterOverride)>);

impl FilterOverrides {
    /// What is said about this instance.
    pub fn of(&self, name: &str) -> Option<&FilterOverride> {
        self.0.iter().find(|(other, _)| **other == *name).map(|(_, said)| said)
    }
}

/// What is said about one filter.
#[derive(Debug, Clone)]
pub enum FilterOverride {
    /// It is off.
    Off,
    /// It is on, as the less specific levels configure it.
    On,
    /// It is on, configured so.
    Configured(RouteFilter),
}

/// What a filter does at one level of the routes.
#[derive(Debug, Clone)]
pub enum RouteFilter {
    /// `RBACPerRoute`; `None` enforces nothing.
    Rbac(Option<Arc<Rbac>>),
    /// `CorsPolicy`
    Cors(Arc<CorsPolicy>),
    /// `CsrfPolicy`
    Csrf(Arc<CsrfPolicy>),
    /// `HTTPFault`
    Fault(Arc<Fault>),
    /// `LocalRateLimit`
    LocalRateLimit(Arc<LocalRateLimit>),
    /// `HeaderMutationPerRoute`
    HeaderMutation(Arc<HeaderMutation>),
    /// `BufferPerRoute`: most bytes of a request's body; `None`: no buffering here.
    Buffer(Option<u32>),
    /// `set_filter_state.v3.Config`
    SetFilterState(Arc<SetFilterState>),
    /// Instead of the filter's own; `None`: no cluster is asked for.
    OnDemand(Option<Arc<OnDemandClusters>>),
    /// `ExtAuthzPerRoute`
    ExtAuthz(AuthPerRoute),
    /// `jwt_authn.v3.PerRouteConfig`
    JwtAuthn(JwtPerRoute),
    /// `RateLimitPerRoute`
    RateLimit(Arc<RateLimitPerRoute>),
    /// `CompressorPerRoute`
    Compressor(CompressorPerRoute),
}

/// A validated `HealthCheck` of the proxy itself.
#[derive(Debug, Clone)]
pub struct HealthCheck {
    /// The endpoint answers, unless the proxy is to fail its checks.
    pub pass_through: bool,
    /// For how long the endpoint's answer is used again.
    pub cache_time: Option<Duration>,
    /// Names of clusters, with the least share of endpoints that has to be healthy or degraded, in whole percent.
    pub least_healthy: Vec<(Box<str>, u8)>,
    /// Which requests are health checks; none: all.
    pub headers: Vec<HeaderMatcher>,
}

/// A validated `CorsPolicy`. What is not set here may be set by a less specific level.
#[derive(Debug, Clone)]
pub struct CorsPolicy {
    /// Origins that are allowed.
    pub origins: Vec<StringMatcher>,
    /// `access-control-allow-methods`
    pub methods: Option<http::HeaderValue>,
    /// `access-control-allow-headers`
    pub headers: Option<http::HeaderValue>,
    /// `access-control-expose-headers`
    pub expose: Option<http::HeaderValue>,
    /// `access-control-max-age`
    pub max_age: Option<http::HeaderValue>,
    /// `access-control-allow-credentials`
    pub credentials: Option<bool>,
    /// `access-control-allow-private-network`
    pub private_network: Option<bool>,
    /// Send a preflight of an origin that is not allowed on to the endpoint. Default true.
    pub forward_not_matching_preflights: Option<bool>,
    /// For which requests it counts. Default all.
    pub enabled: Option<RuntimeFraction>,
    /// For which requests origins are counted where it is not enabled. Default none.
    pub shadow_enabled: Option<RuntimeFraction>,
}

/// A validated `CsrfPolicy`.
#[derive(Debug, Clone)]
pub struct CsrfPolicy {
    /// Requests that are refused if they come from another origin.
    pub enabled: RuntimeFraction,
    /// Of the others, which are counted all the same. Default none.
    pub shadow_enabled: Option<RuntimeFraction>,
    /// Origins, without their scheme, that are as good as the one that the request goes to.
    pub origins: Vec<StringMatcher>,
}

/// A validated `HTTPFault`.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Wait before the request goes on.
    pub delay: Option<(FaultDelay, Fraction)>,
    /// What the runtime says instead of the share of delays.
    pub delay_percent: RuntimeFraction,
    /// What the runtime says instead of the time of a delay, in milliseconds.
    pub delay_duration: RuntimeNumber,
    /// Answer instead.
    pub abort: Option<FaultAbort>,
    /// What the runtime says instead of the share of answers.
    pub abort_percent: RuntimeFraction,
    /// Send the response slowly.
    pub response_rate: Option<(FaultRate, Fraction)>,
    /// What the runtime says instead of the share of slow responses.
    pub response_rate_percent: RuntimeFraction,
    /// What the runtime says instead of the status.
    pub abort_http_status: RuntimeNumber,
    /// What the runtime says instead of the `grpc-status`.
    pub abort_grpc_status: RuntimeNumber,
    /// Only requests to this cluster.
    pub upstream_cluster: Option<Box<str>>,
    /// Only requests with these headers.
    pub headers: Vec<HeaderMatcher>,
    /// Only requests of these nodes, by `x-envoy-downstream-service-node`; empty: of all.
    pub downstream_nodes: HashSet<Box<str>>,
    /// Most requests that are under a fault at once.
    pub max_active: RuntimeNumber,
}

/// How fast a response is sent that is under a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultRate {
    /// So many KiB in a second.
    Fixed(u64),
    /// What `x-envoy-fault-throughput-response` says, in KiB per second.
    Header,
}

/// How long a fault waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultDelay {
    /// So long.
    Fixed(Duration),
    /// What `x-envoy-fault-delay-request` says, in milliseconds.
    Header,
}

/// How a fault answers.
#[derive(Debug, Clone)]
pub struct FaultAbort {
    /// With what.
    pub error: FaultError,
    /// For which requests.
    pub percentage: Fraction,
    /// The body; Envoy's own text where it is not configured.
    pub body: Option<Box<str>>,
}

/// What a fault answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultError {
    /// This status.
    Http(StatusCode),
    /// Status 200 and this `grpc-status`.
    Grpc(u8),
    /// What `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request` says.
    Header,
}

/// A validated `LocalRateLimit`.
#[derive(Debug, Clone)]
pub struct LocalRateLimit {
    /// `STAT_PREFIX.http_local_rate_limit.…` in statistics.
    pub stat_prefix: Arc<str>,
    /// Status of a refusal. Default 429.
    pub status: StatusCode,
    /// What is left to spend, for all workers.
    pub limiter: Arc<Limiter>,
    /// How requests are described, in the place of the rules of their routes, unless it is empty.
    pub rules: Vec<RateLimitRule>,
    /// Rules of routes of this stage count.
    pub stage: u32,
    /// Which rules of the virtual host count.
    pub host_rules: HostRules,
    /// `x-ratelimit-*` is said. Default false.
    pub x_headers: bool,
    /// `retry-after` is said of refusals with status 429. Default false.
    pub retry_after: bool,
    /// Requests that take a token. Default none.
    pub enabled: RuntimeFraction,
    /// Of those without a token, which are refused. Default none.
    pub enforced: RuntimeFraction,
    /// Added to requests that go on although there was no token.
    pub request_headers: HeaderMutations,
    /// Added to refusals.
    pub response_headers: HeaderMutations,
    /// Where it is counted, found when it is first used.
    pub(crate) stats: LimitStats,
    /// A gRPC client gets RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub resource_exhausted: bool,
}

/// The counters of a [`LocalRateLimit`].
#[derive(Clone, Default)]
pub(crate) struct LimitStats(pub(crate) OnceLock<Arc<Sharded<RateLimitCells>>>);

/// No part of what is configured: two limits that say the same are equal.
impl fmt::Debug for LimitStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LimitStats")
    }
}

/// A validated `HeaderMutation`, or what a route says about it.
#[derive(Debug, Clone, Default)]
pub struct HeaderMutation {
    /// Done to requests, in order.
    pub request: Vec<HeaderOperation>,
    /// Done to responses, in order.
    pub response: Vec<HeaderOperation>,
    /// The most specific level of the routes is done last, so that it wins. Default false.
    pub most_specific_wins: bool,
}

/// One step of a [`HeaderMutation`].
#[derive(Debug, Clone)]
pub enum HeaderOperation {
    /// An addition or a removal.
    Mutate(HeaderMutations),
    /// Removes what has such a name.
    RemoveOnMatch(StringMatcher),
}
