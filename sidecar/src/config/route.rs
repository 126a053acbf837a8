//! Route configurations.

pub use super::convert::route_configuration as from_proto;
pub use super::convert::virtual_host as virtual_host_from_proto;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use regex::bytes::Regex;

use super::config_source::ConfigSource;
use super::hash_policy::HashPolicy;
use super::header::HeaderMutations;
use super::http_filters::FilterOverrides;
use super::internal_redirect::InternalRedirect;
use super::matcher::{HeaderMatcher, QueryParameterMatcher};
use super::metadata::{FilterStateMatcher, Metadata, MetadataMatcher};
use super::mirror::Mirror;
use super::rate_limit::RateLimitRule;
use super::runtime::{RuntimeFraction, RuntimeNumber};
use super::subset::MetadataCriteria;
use super::tracing::{Decorator, RouteTracing};
use super::uri_template::{UriTemplate, UriTemplateRewrite};

/// A validated `envoy.config.route.v3.RouteConfiguration`.
#[derive(Debug, Clone)]
pub struct RouteConfiguration {
    /// Unique name.
    pub name: Arc<str>,
    /// Virtual hosts. No domain stands twice in them.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Where more virtual hosts come from, one by one.
    pub vhds: Option<ConfigSource>,
    /// Mutations at the outermost level.
    pub request_headers: HeaderMutations,
    /// Mutations at the outermost level.
    pub response_headers: HeaderMutations,
    /// Refuse the configuration if it names an unknown cluster.
    pub validate_clusters: bool,
    /// Mutations of the outermost level are done last, so that it wins.
    pub most_specific_header_mutations_wins: bool,
    /// `Host` is matched without its port.
    pub ignore_port_in_host_matching: bool,
    /// Most bytes of a direct response. Default 4096.
    pub max_direct_response_body_size: u32,
    /// Headers to treat as internal only (`internal_only_headers`): removed from external requests.
    pub internal_only_headers: Vec<HeaderName>,
    /// Copies of the requests of virtual hosts that have none of their own.
    pub mirrors: Vec<Arc<Mirror>>,
    /// Overrides of filters.
    pub filters: FilterOverrides,
}

/// A validated `VirtualHost`.
#[derive(Debug, Clone)]
pub struct VirtualHost {
    /// Name, for statistics.
    pub name: Arc<str>,
    /// Which `Host` values it takes.
    pub domains: Vec<Domain>,
    /// First match wins.
    pub routes: Vec<Arc<Route>>,
    /// Plaintext requests are redirected.
    pub require_tls: RequireTls,
    /// Mutations.
    pub request_headers: HeaderMutations,
    /// Mutations.
    pub response_headers: HeaderMutations,
    /// Retries where a route says nothing.
    pub retry_policy: Option<Arc<RetryPolicy>>,
    /// Put `x-envoy-attempt-count` into the upstream request.
    pub include_request_attempt_count: bool,
    /// Put `x-envoy-attempt-count` into the response.
    pub include_attempt_count_in_response: bool,
    /// Copies of the requests of routes that have none of their own.
    pub mirrors: Vec<Arc<Mirror>>,
    /// Put `x-envoy-is-timeout-retry` into the upstream request of a retry.
    pub include_is_timeout_retry_header: bool,
    /// Begin another attempt beside one that is over its timeout, where a route says nothing.
    pub hedge_on_per_try_timeout: Option<bool>,
    /// Most bytes of a request body that are kept for a retry; `None`: the listener's buffer limit.
    pub per_request_buffer_limit: Option<u32>,
    /// Overrides of filters.
    pub filters: FilterOverrides,
}

/// A domain of a virtual host, lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Domain {
    /// The whole host.
    Exact(Box<str>),
    /// `*.example.com` or `*-x.example.com`, kept without the star. Longest wins.
    Suffix(Box<str>),
    /// `example.*`, kept without the star. Longest wins, after suffixes.
    Prefix(Box<str>),
    /// `*`
    Any,
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Envoy's `TlsRequirementType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RequireTls {
    None,
    ExternalOnly,
    All,
}

/// A validated `Route`.
#[derive(Debug, Clone)]
pub struct Route {
    /// Name, for logs.
    pub name: Arc<str>,
    /// When it applies.
    pub matches: RouteMatch,
    /// What it does.
    pub action: RouteAction,
    /// Its metadata.
    pub metadata: Metadata,
    /// Mutations.
    pub request_headers: HeaderMutations,
    /// Mutations.
    pub response_headers: HeaderMutations,
    /// Most bytes of a request body that are kept for a retry; `None`: as the virtual host says.
    pub per_request_buffer_limit: Option<u32>,
    /// Overrides of filters.
    pub filters: FilterOverrides,
    /// What is traced, instead of what the connection manager says.
    pub tracing: Option<RouteTracing>,
    /// Name of the span.
    pub decorator: Option<Decorator>,
}

/// A validated `RouteMatch`: every criterion must hold.
#[derive(Debug, Clone)]
pub struct RouteMatch {
    /// The path, without the query.
    pub path: PathSpecifier,
    /// Compare the path with case. Default true; does not apply to a regex.
    pub case_sensitive: bool,
    /// Headers. The method is one of them, `:method`.
    pub headers: Vec<HeaderMatcher>,
    /// Query parameters.
    pub query_parameters: Vec<QueryParameterMatcher>,
    /// Only gRPC requests (`content-type: application/grpc`, `application/grpc+…`).
    pub grpc: bool,
    /// The share of requests that match, as a numerator over a denominator; `None`: all.
    pub runtime_fraction: Option<RuntimeFraction>,
    /// What filters noted of the request.
    pub dynamic_metadata: Vec<MetadataMatcher>,
    /// What filters noted of the request.
    pub filter_state: Vec<FilterStateMatcher>,
}

/// How the path is compared.
#[derive(Debug, Clone)]
pub enum PathSpecifier {
    /// It begins so.
    Prefix(Box<str>),
    /// It is so.
    Path(Box<str>),
    /// It is so, or begins so followed by `/`. Kept without a trailing slash.
    PathSeparatedPrefix(Box<str>),
    /// The whole of it matches.
    Regex(Regex),
    /// The whole of it fits.
    Template(UriTemplate),
    /// There is none: the request is a CONNECT.
    Connect,
}

/// What a route does.
#[derive(Debug, Clone)]
pub enum RouteAction {
    /// Forward.
    Forward(Box<Forward>),
    /// Answer with a redirect.
    Redirect(Box<Redirect>),
    /// Answer with a fixed response.
    DirectResponse {
        /// Its status.
        status: StatusCode,
        /// Its body; empty for none.
        body: Bytes,
    },
}

/// A validated `RouteAction`: how a request is forwarded.
#[derive(Debug, Clone)]
pub struct Forward {
    /// How rate limits describe requests.
    pub rate_limits: Vec<RateLimitRule>,
    /// The same, for all requests of the virtual host.
    pub host_rate_limits: Arc<[RateLimitRule]>,
    /// The rules of the virtual host count too.
    pub include_vh_rate_limits: bool,
    /// Where to.
    pub cluster: ClusterSpecifier,
    /// A header whose number, instead of a random one, chooses among several clusters.
    pub weighted_by: Option<HeaderName>,
    /// What the metadata of the endpoint must hold, for clusters that are divided into subsets.
    pub metadata_match: Option<Arc<MetadataCriteria>>,
    /// Status for an unknown cluster. Default 503.
    pub cluster_not_found_status: StatusCode,
    /// From the end of the request to the end of the response, retries included; `None` for no limit. Default 15 s.
    pub timeout: Option<Duration>,
    /// Idle time of the stream; `None`: as the connection manager says. Zero is kept and means no limit.
    pub idle_timeout: Option<Duration>,
    /// Longest life of the stream, and how `grpc-timeout` counts.
    pub max_stream_duration: Option<MaxStreamDuration>,
    /// Retries.
    pub retry_policy: Option<Arc<RetryPolicy>>,
    /// What happens to the path.
    pub path_rewrite: Option<PathRewrite>,
    /// What happens to `Host`.
    pub host_rewrite: Option<HostRewrite>,
    /// Put the old `Host` into `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// Copies of its requests for other clusters.
    pub mirrors: Vec<Arc<Mirror>>,
    /// Redirects that are followed here.
    pub internal_redirect: Option<Box<InternalRedirect>>,
    /// `grpc-timeout` is the timeout of a gRPC call (`max_grpc_timeout`), unless `max_stream_duration` is set.
    pub grpc_timeout: Option<GrpcTimeout>,
    /// Begin another attempt beside one that is over its timeout; `None`: as the virtual host says.
    pub hedge_on_per_try_timeout: Option<bool>,
    /// Circuit breakers of which priority apply.
    pub priority: RoutingPriority,
    /// Upgrades that this route turns on or off, by lower-case token; `connect` is a CONNECT.
    pub upgrades: Vec<(Box<str>, bool)>,
    /// A CONNECT ends here; `None`: it is forwarded.
    pub connect: Option<ConnectConfig>,
    /// What is hashed for a cluster whose load balancer chooses by a hash and does not say so itself.
    pub hash_policy: Vec<HashPolicy>,
}

/// Envoy's `ConnectConfig`: the bytes behind a CONNECT go to an endpoint over a connection of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectConfig {
    /// The body of a POST is such bytes as well. Default false.
    pub allow_post: bool,
}

/// Envoy's `RouteAction.MaxStreamDuration`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaxStreamDuration {
    /// Longest life of the stream; `None`: as the connection manager says.
    pub max_stream_duration: Option<Duration>,
    /// `grpc-timeout` counts, up to so much; zero: without a bound.
    pub grpc_timeout_header_max: Option<Duration>,
    /// Subtracted from `grpc-timeout`.
    pub grpc_timeout_header_offset: Option<Duration>,
}

/// How `grpc-timeout` counts as a route's timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcTimeout {
    /// At most so much; zero: without a bound.
    pub max: Duration,
    /// Subtracted, where something is left then.
    pub offset: Duration,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub enum ClusterSpecifier {
    /// One cluster.
    Cluster(Arc<str>),
    /// Several, by weight.
    Weighted(Vec<WeightedCluster>),
    /// The cluster that this header of the request names.
    Header(HeaderName),
}

/// One of several clusters.
#[derive(Debug, Clone)]
pub struct WeightedCluster {
    /// Its name; empty if a header says it.
    pub name: Arc<str>,
    /// The header of the request that names it.
    pub header: Option<HeaderName>,
    /// Its share; the sum over all is more than 0.
    pub weight: u32,
    /// What the metadata of the endpoint must hold, that of the route included; `None`: as the route says.
    pub metadata_match: Option<Arc<MetadataCriteria>>,
    /// What the runtime says instead of the share.
    pub runtime_weight: Option<RuntimeNumber>,
    /// Mutations.
    pub request_headers: HeaderMutations,
    /// Mutations.
    pub response_headers: HeaderMutations,
    /// `Host` for this cluster.
    pub host_rewrite: Option<HeaderValue>,
    /// Overrides of filters.
    pub filters: FilterOverrides,
}

/// Envoy's `RoutingPriority`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RoutingPriority {
    /// `DEFAULT`
    #[default]
    Default,
    /// `HIGH`
    High,
}

/// What happens to the path of a forwarded or redirected request.
#[derive(Debug, Clone)]
pub enum PathRewrite {
    /// The matched prefix or path is replaced.
    Prefix(Box<str>),
    /// Matches of a regex in the path (without query) are replaced; `\1` in the substitution is a group.
    Regex {
        /// What is replaced.
        pattern: Regex,
        /// By what.
        substitution: Box<str>,
    },
    /// The whole path is replaced (redirects).
    Full(Box<str>),
    /// It is made of what the template of the match has found.
    Template(UriTemplateRewrite),
}

/// What happens to `Host`.
#[derive(Debug, Clone)]
pub enum HostRewrite {
    /// It is set.
    Literal(HeaderValue),
    /// It is the host name of the endpoint.
    Auto,
    /// It is the value of a header, if there is one.
    Header(HeaderName),
    /// It comes from the path, by regex.
    PathRegex {
        /// What is replaced in the path.
        pattern: Regex,
        /// By what.
        substitution: Box<str>,
    },
}

/// A validated `RedirectAction`.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// Status. Default 301.
    pub status: StatusCode,
    /// New scheme; `https_redirect` is `https`.
    pub scheme: Option<Box<str>>,
    /// New host.
    pub host: Option<Box<str>>,
    /// New port.
    pub port: Option<u16>,
    /// New path.
    pub path: Option<PathRewrite>,
    /// Drop the query.
    pub strip_query: bool,
}

/// A validated `RetryPolicy`.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// When.
    pub on: RetryOn,
    /// Retries, without the first attempt. Default 1.
    pub num_retries: u32,
    /// For one attempt; `None`: only the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// One attempt without a byte from upstream for so long is given up.
    pub per_try_idle_timeout: Option<Duration>,
    /// Statuses for [`RetryOn::RETRIABLE_STATUS_CODES`].
    pub retriable_status_codes: Vec<StatusCode>,
    /// Response headers for [`RetryOn::RETRIABLE_HEADERS`].
    pub retriable_headers: Vec<HeaderMatcher>,
    /// Only requests with one of these headers are retried; empty: all.
    pub retriable_request_headers: Vec<HeaderMatcher>,
    /// Never the host that was tried (`envoy.retry_host_predicates.previous_hosts`).
    pub avoid_previous_hosts: bool,
    /// Picks until one passes the predicate. Default 1.
    pub host_selection_retry_max_attempts: u32,
    /// Upper bound of the first delay. Default 25 ms.
    pub base_interval: Duration,
    /// Upper bound of any delay. Default ten times the base.
    pub max_interval: Duration,
    /// Headers of a response that say when to try again, in order (`rate_limited_retry_back_off`).
    pub reset_headers: Vec<(HeaderName, ResetFormat)>,
    /// A longer wait than this is not taken from a header. Default 300 s.
    pub reset_max_interval: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        /// Upper bound of the first delay.
        const BASE: Duration = Duration::from_millis(25);
        Self {
            on: RetryOn::default(),
            num_retries: 1,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            retriable_status_codes: Vec::new(),
            retriable_headers: Vec::new(),
            retriable_request_headers: Vec::new(),
            avoid_previous_hosts: false,
            host_selection_retry_max_attempts: 1,
            base_interval: BASE,
            max_interval: BASE * 10,
            reset_headers: Vec::new(),
            reset_max_interval: Duration::from_secs(300),
        }
    }
}

/// Envoy's `ResetHeaderFormat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetFormat {
    /// Seconds from now.
    Seconds,
    /// Seconds since the epoch.
    UnixTimestamp,
}

/// A set of retry conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn(pub u32);

#[allow(missing_docs)] // named as in the header x-envoy-retry-on
impl RetryOn {
    pub const FIVE_XX: Self = Self(1);
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    pub const RESET: Self = Self(1 << 2);
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    pub const CONNECT_FAILURE: Self = Self(1 << 4);
    pub const ENVOY_RATELIMITED: Self = Self(1 << 5);
    pub const RETRIABLE_4XX: Self = Self(1 << 6);
    pub const REFUSED_STREAM: Self = Self(1 << 7);
    pub const RETRIABLE_STATUS_CODES: Self = Self(1 << 8);
    pub const RETRIABLE_HEADERS: Self = Self(1 << 9);
    pub const GRPC_CANCELLED: Self = Self(1 << 10);
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 11);
    pub const GRPC_INTERNAL: Self = Self(1 << 12);
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 13);
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 14);
    pub const HTTP3_POST_CONNECT_FAILURE: Self = Self(1 << 15);
    /// Those of `x-envoy-retry-grpc-on`.
    pub const GRPC_CONDITIONS: Self = Self(0b1_1111 << 10);
    /// Those of `x-envoy-retry-on`.
    pub const HTTP_CONDITIONS: Self = Self(!Self::GRPC_CONDITIONS.0);

    /// Whether every condition of `other` is in here.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The condition of this name, as in `retry_on` and `x-envoy-retry-on` / `x-envoy-retry-grpc-on`.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "5xx" => Self::FIVE_XX,
            "gateway-error" => Self::GATEWAY_ERROR,
            "reset" => Self::RESET,
            "reset-before-request" => Self::RESET_BEFORE_REQUEST,
            "connect-failure" => Self::CONNECT_FAILURE,
            "envoy-ratelimited" => Self::ENVOY_RATELIMITED,
            "retriable-4xx" => Self::RETRIABLE_4XX,
            "refused-stream" => Self::REFUSED_STREAM,
            "retriable-status-codes" => Self::RETRIABLE_STATUS_CODES,
            "retriable-headers" => Self::RETRIABLE_HEADERS,
            "cancelled" => Self::GRPC_CANCELLED,
            "deadline-exceeded" => Self::GRPC_DEADLINE_EXCEEDED,
            "internal" => Self::GRPC_INTERNAL,
            "resource-exhausted" => Self::GRPC_RESOURCE_EXHAUSTED,
            "unavailable" => Self::GRPC_UNAVAILABLE,
            "http3-post-connect-failure" => Self::HTTP3_POST_CONNECT_FAILURE,
            _ => return None,
        })
    }
}
