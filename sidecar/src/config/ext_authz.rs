//! Decisions of others: `envoy.filters.http.ext_authz`.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use regex::bytes::Regex;

use super::matcher::StringMatcher;
use super::metadata::MetadataMatcher;
use super::runtime::{RuntimeFlag, RuntimeFraction};

/// A validated `ExtAuthz`.
#[derive(Debug, Clone)]
pub struct ExtAuthz {
    /// Who decides.
    pub service: AuthService,
    /// A request goes on if nobody decides.
    pub failure_mode_allow: bool,
    /// It is told so then.
    pub failure_mode_allow_header: bool,
    /// The service gets the request's body.
    pub body: Option<AuthBody>,
    /// Look for the route again when the service changed the request.
    pub clear_route_cache: bool,
    /// Status where nobody decides. Default 403.
    pub status_on_error: StatusCode,
    /// Answer with 500 if the service names a header or parameter that cannot be.
    pub validate_mutations: bool,
    /// Dynamic metadata that the service gets.
    pub metadata_namespaces: Box<[Box<str>]>,
    /// Metadata of the route that the service gets.
    pub route_metadata_namespaces: Box<[Box<str>]>,
    /// Requests that are checked. Default all.
    pub enabled: Option<RuntimeFraction>,
    /// Requests that are checked, by their metadata.
    pub enabled_metadata: Option<MetadataMatcher>,
    /// What is not checked is refused.
    pub deny_at_disable: RuntimeFlag,
    /// The service gets the client's certificate.
    pub include_peer_certificate: bool,
    /// The service gets the server name of the TLS session.
    pub include_tls_session: bool,
    /// Stands in the names of statistics, or is empty.
    pub stat_prefix: Arc<str>,
    /// Headers that the service gets; `None`: all of them (gRPC), or the usual ones (HTTP).
    pub allowed_headers: Option<Box<[StringMatcher]>>,
    /// Headers that it does not get.
    pub disallowed_headers: Box<[StringMatcher]>,
    /// Denials count among the responses of the route's cluster.
    pub charge_cluster: bool,
    /// Headers are passed on line by line, as bytes.
    pub raw_headers: bool,
    /// Which headers of the request the service may change; `None`: any.
    pub mutation_rules: Option<MutationRules>,
    /// What the service notes goes into the dynamic metadata.
    pub takes_metadata: bool,
    /// Most bytes of the body of a denial.
    pub max_denied_body: Option<usize>,
}

/// Who decides.
#[derive(Debug, Clone)]
pub enum AuthService {
    /// `envoy.service.auth.v3.Authorization`
    Grpc(Arc<AuthGrpc>),
    /// Whoever answers 200.
    Http(Arc<AuthHttp>),
}

/// A gRPC service.
#[derive(Debug, Clone)]
pub struct AuthGrpc {
    /// Its cluster.
    pub cluster: Arc<str>,
    /// `:authority` of calls. Default: the name of the cluster.
    pub authority: HeaderValue,
    /// Default 200 ms; `None`: no limit.
    pub timeout: Option<Duration>,
    /// More headers of calls.
    pub initial_metadata: HeaderMap,
}

/// An HTTP service.
#[derive(Debug, Clone)]
pub struct AuthHttp {
    /// Its cluster.
    pub cluster: Arc<str>,
    /// `None`: no limit.
    pub timeout: Option<Duration>,
    /// Goes before the path of the request.
    pub path_prefix: Box<str>,
    /// Takes the place of the path of the request.
    pub path_override: Box<str>,
    /// Headers that requests get.
    pub headers_to_add: HeaderMap,
    /// Of an answer that allows: headers that the endpoint gets, in place of what it has.
    pub upstream_headers: Box<[StringMatcher]>,
    /// The same, beside what it has.
    pub upstream_headers_to_append: Box<[StringMatcher]>,
    /// Of an answer that denies: headers that the client gets; `None`: all of them.
    pub client_headers: Option<Box<[StringMatcher]>>,
    /// Of an answer that allows: headers that the client gets.
    pub client_headers_on_success: Box<[StringMatcher]>,
    /// Of an answer that allows: headers that are noted in the metadata.
    pub metadata_headers: Box<[StringMatcher]>,
}

/// A validated `BufferSettings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthBody {
    /// Most bytes that the service gets.
    pub max_bytes: u32,
    /// Of a longer body it gets the beginning; otherwise the request is refused.
    pub allow_partial: bool,
    /// It gets bytes, and not text.
    pub as_bytes: bool,
}

/// A validated `HeaderMutationRules`.
#[derive(Debug, Clone)]
pub struct MutationRules {
    /// `host`, `:authority`, `:scheme`, `:method` may be changed too.
    pub allow_all_routing: bool,
    /// `x-envoy-*` may be changed too.
    pub allow_envoy: bool,
    /// Headers that start with `:` may not be changed.
    pub disallow_system: bool,
    /// Nothing may be changed but what `allow` matches.
    pub disallow_all: bool,
    /// May be changed whatever else is said, but for `disallow`.
    pub allow: Option<Regex>,
    /// May never be changed.
    pub disallow: Option<Regex>,
    /// A change that is not allowed is an error; otherwise it is left out.
    pub disallow_is_error: bool,
}

impl MutationRules {
    /// Whether a header, in lower case, may be changed. Reference: `HeaderMutationRules` in Envoy's API.
    pub fn allow(&self, name: &str) -> bool {
        let matches = |regex: &Option<Regex>| {
            regex.as_ref().is_some_and(|regex| regex.is_match(name.as_bytes()))
        };
        if matches(&self.disallow) {
            return false;
        }
        if matches(&self.allow) {
            return true;
        }
        if self.disallow_all || self.disallow_system && name.starts_with(':') {
            return false;
        }
        if matches!(name, "host" | ":authority" | ":scheme" | ":method") {
            return self.allow_all_routing;
        }
        if name.starts_with("x-envoy-") {
            return self.allow_envoy;
        }
        true
    }
}

/// What a route says about the filter.
#[derive(Debug, Clone)]
pub enum AuthPerRoute {
    /// Nothing is checked here.
    Disabled,
    /// It is checked, so.
    Check(Arc<AuthCheck>),
}

/// A validated `CheckSettings`.
#[derive(Debug, Clone, Default)]
pub struct AuthCheck {
    /// The service gets these too, over those of less specific levels.
    pub context_extensions: Box<[(Box<str>, Box<str>)]>,
    /// The service gets no body.
    pub without_body: bool,
    /// It gets the body so.
    pub body: Option<AuthBody>,
    /// Another service decides.
    pub service: Option<AuthService>,
}
