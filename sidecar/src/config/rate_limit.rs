//! Rate limits: the rules by which a request is described, the limits on what is described so, and the service that may
//! be asked instead.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use ipnet::IpNet;

use super::grpc_service::GrpcService;
use super::header::HeaderMutations;
use super::matcher::{HeaderMatcher, MatchedHeader, QueryParameterMatcher};
use super::runtime::RuntimeFraction;

/// One description of a request: keys with their values, in the order of the actions.
pub type Entries = Vec<(Box<str>, Box<str>)>;

/// A validated `envoy.config.route.v3.RateLimit`.
#[derive(Debug, Clone)]
pub struct RateLimitRule {
    /// Filters of this stage use it, 0 to 10. Default 0.
    pub stage: u32,
    /// The runtime may turn it off for a share of requests, under a key of this name.
    pub disable_key: Option<(Box<str>, RuntimeFraction)>,
    /// What a description is made of; one that does not apply makes that there is none.
    pub actions: Vec<RateLimitAction>,
    /// What the service is told to apply instead of its own limit.
    pub limit: Option<LimitOverride>,
    /// What a request counts as; `None`: 1.
    pub hits: Option<Hits>,
    /// Whether `x-ratelimit-*` is said; `None`: as the filter says.
    pub x_headers: Option<bool>,
}

/// What a request counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hits {
    /// So many requests, up to 1,000,000,000.
    pub number: u64,
    /// They are given back.
    pub negative: bool,
}

/// A limit in the place of the service's own.
#[derive(Debug, Clone)]
pub enum LimitOverride {
    /// So many in a unit, which is one of `RateLimitUnit`.
    Fixed(u32, i32),
    /// An object in the dynamic metadata with `requests_per_unit` and `unit`.
    Metadata(MetadataPath),
}

/// A place in metadata.
#[derive(Debug, Clone)]
pub struct MetadataPath {
    /// The namespace.
    pub filter: Box<str>,
    /// Keys below it.
    pub path: Box<[Box<str>]>,
}

/// An action of a [`RateLimitRule`]: an entry of the description.
#[derive(Debug, Clone)]
pub enum RateLimitAction {
    /// `source_cluster`: this proxy's own.
    SourceCluster,
    /// `destination_cluster`: the route's.
    DestinationCluster,
    /// The value of a header.
    Header {
        /// Its name.
        name: MatchedHeader,
        /// The entry's key.
        key: Box<str>,
        /// Without the header only this entry is left out.
        skip_if_absent: bool,
    },
    /// The value of a query parameter.
    QueryParameter {
        /// Its name.
        name: Box<str>,
        /// The entry's key.
        key: Box<str>,
        /// Without the parameter only this entry is left out.
        skip_if_absent: bool,
    },
    /// `remote_address`: the client's.
    RemoteAddress,
    /// `masked_remote_address`: the client's network.
    MaskedRemoteAddress {
        /// Bits of an IPv4 address. Default 32.
        v4: u8,
        /// Bits of an IPv6 address. Default 128.
        v6: u8,
    },
    /// A fixed entry.
    Fixed(Box<str>, Box<str>),
    /// A fixed entry, if all of these match, or unless they do.
    HeadersMatch {
        /// Key and value.
        entry: (Box<str>, Box<str>),
        /// Whether they have to match.
        expect: bool,
        /// All of them.
        headers: Vec<HeaderMatcher>,
    },
    /// The same for query parameters.
    QueryMatch {
        /// Key and value.
        entry: (Box<str>, Box<str>),
        /// Whether they have to match.
        expect: bool,
        /// All of them.
        parameters: Vec<QueryParameterMatcher>,
    },
    /// The same for the client's address.
    AddressMatch {
        /// Key and value.
        entry: (Box<str>, Box<str>),
        /// One of them.
        ranges: Vec<IpNet>,
        /// None of them.
        invert: bool,
    },
    /// A text in metadata.
    Metadata {
        /// The entry's key.
        key: Box<str>,
        /// Where it stands.
        place: MetadataPath,
        /// Whose metadata.
        source: MetadataSource,
        /// What is taken where there is none.
        default: Option<Box<str>>,
        /// Without either only this entry is left out.
        skip_if_absent: bool,
    },
}

/// Whose metadata a [`RateLimitAction::Metadata`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MetadataSource {
    Request,
    Route,
    Cluster,
}

/// What a filter does with the rules of virtual hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostRules {
    /// They count where the route has none.
    #[default]
    Override,
    /// They count beside those of the route.
    Include,
    /// They do not count.
    Ignore,
}

/// What a request is described as.
#[derive(Debug, Clone, Default)]
pub struct Descriptor {
    /// Keys and values.
    pub entries: Entries,
    /// Requests in a unit, in the place of the service's own limit.
    pub limit: Option<(u32, i32)>,
    /// What it counts as.
    pub hits: Option<Hits>,
    /// Whether `x-ratelimit-*` is said, if the rule says so.
    pub x_headers: Option<bool>,
}

/// A validated `envoy.extensions.filters.http.ratelimit.v3.RateLimit`.
#[derive(Debug, Clone)]
pub struct RateLimit {
    /// Which of the service's limits.
    pub domain: Box<str>,
    /// Rules of this stage count.
    pub stage: u32,
    /// Only internal requests (`true`), or only those that are not.
    pub internal: Option<bool>,
    /// Whom to ask.
    pub service: GrpcService,
    /// How long. Default 20 ms; `None`: for ever.
    pub timeout: Option<Duration>,
    /// Of the requests about which nobody says anything, those that are refused.
    pub deny_on_failure: RuntimeFraction,
    /// A gRPC client gets RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub resource_exhausted: bool,
    /// `x-ratelimit-*` is said.
    pub x_headers: bool,
    /// `x-envoy-ratelimited` is said of refusals. Default true.
    pub limited_header: bool,
    /// Status of a refusal. Default 429.
    pub status: StatusCode,
    /// Status where nobody says anything. Default 500.
    pub status_on_error: StatusCode,
    /// Added to refusals.
    pub response_headers: HeaderMutations,
    /// `cluster.NAME.ratelimit.STAT_PREFIX.…`; empty: without it.
    pub stat_prefix: Arc<str>,
    /// Requests that are asked about.
    pub enabled: RuntimeFraction,
    /// Of those over their limit, which are refused.
    pub enforced: RuntimeFraction,
    /// In the place of those of the routes, unless it is empty.
    pub rules: Vec<RateLimitRule>,
    /// Namespace of what the service notes.
    pub namespace: Box<str>,
    /// `retry-after` is said of refusals with status 429.
    pub retry_after: bool,
}

/// A validated `RateLimitPerRoute`.
#[derive(Debug, Clone)]
pub struct RateLimitPerRoute {
    /// What counts of the virtual host.
    pub host_rules: HostRules,
    /// In the place of all others, unless it is empty.
    pub rules: Vec<RateLimitRule>,
    /// In the place of the filter's domain.
    pub domain: Option<Box<str>>,
}
