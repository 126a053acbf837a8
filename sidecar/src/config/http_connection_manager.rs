//! The HTTP connection manager filter.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::access_log::AccessLog;
use super::client_address::{ClientAddress, InternalAddresses};
use super::config_source::ConfigSource;
use super::http_filters::{HeaderOperation, HttpFilter};
use super::http1::DownstreamHttp1;
use super::local_reply::LocalReplies;
use super::route::RouteConfiguration;
use super::tracing::Tracing;

/// A validated `HttpConnectionManager`.
#[derive(Debug, Clone)]
pub struct HttpConnectionManager {
    /// `http.STAT_PREFIX.…` in statistics.
    pub stat_prefix: Box<str>,
    /// Which codec connections speak.
    pub codec: Codec,
    /// Where the routes come from.
    pub routes: RouteSource,
    /// Filters before the router, in configured order. The router itself is always last and always there.
    pub filters: Vec<HttpFilter>,
    /// The router filter does not add `x-envoy-*` headers.
    pub suppress_envoy_headers: bool,
    /// `x-envoy-expected-rq-timeout-ms` of a request is its timeout (`respect_expected_rq_timeout`).
    pub respect_expected_timeout: bool,
    /// Headers whose value must be well-formed (`strict_check_headers`).
    pub strict_headers: Box<[HeaderName]>,
    /// Value of the `server` header. Default `envoy`.
    pub server_name: HeaderValue,
    /// What happens to a `server` header from upstream.
    pub server_header: ServerHeader,
    /// Most bytes of a request's header section. Default 60 KiB.
    pub max_request_headers_bytes: usize,
    /// Most request headers. Default 100.
    pub max_headers_count: usize,
    /// A connection without a request for so long is closed; `None` never. Default 1 h.
    pub idle_timeout: Option<Duration>,
    /// Longest life of a connection, after which it drains.
    pub max_connection_duration: Option<Duration>,
    /// Longest life of a stream.
    pub max_stream_duration: Option<Duration>,
    /// Requests on one connection, after which it closes; `None` for no limit.
    pub max_requests_per_connection: Option<u32>,
    /// A stream without a byte in either direction for so long is ended with 408 or 504; `None` never. Default 5 min.
    pub stream_idle_timeout: Option<Duration>,
    /// Longest time for a whole request to arrive.
    pub request_timeout: Option<Duration>,
    /// Longest time for the header section of a request to arrive.
    pub request_headers_timeout: Option<Duration>,
    /// Between the first GOAWAY and the final one. Default 5 s.
    pub drain_timeout: Duration,
    /// How long a closing HTTP/1 connection waits for the client to read its answer. Default 1 s.
    pub delayed_close_timeout: Duration,
    /// HTTP/2 settings towards clients.
    pub http2: Http2Options,
    /// HTTP/1 settings towards clients.
    pub http1: DownstreamHttp1,
    /// How requests came here, whatever they say and however they did: by HTTPS, or not.
    pub scheme: Option<RequestScheme>,
    /// Requests say who we are: in `x-envoy-downstream-service-cluster` and `-node`, and in a `user-agent` that is not there.
    pub add_user_agent: bool,
    /// The direct peer is the client: `x-forwarded-for` is its address, and `x-envoy-*` from outside is removed.
    pub use_remote_address: bool,
    /// Trusted proxies in front of this one.
    pub xff_num_trusted_hops: u32,
    /// Who counts as internal.
    pub internal_addresses: InternalAddresses,
    /// How the client is found out where it is not the peer; empty: by `x-forwarded-for` and the trusted hops. The first
    /// that finds one counts.
    pub client_addresses: Box<[ClientAddress]>,
    /// Done to the headers of a request before anything else.
    pub early_mutations: Box<[HeaderOperation]>,
    /// Do not append the peer to `x-forwarded-for`.
    pub skip_xff_append: bool,
    /// Make an `x-request-id` where there is none. Default true.
    pub generate_request_id: bool,
    /// Keep an `x-request-id` that comes from outside.
    pub preserve_external_request_id: bool,
    /// Put `x-request-id` into the response.
    pub always_set_request_id_in_response: bool,
    /// Value appended to `via`, or none.
    pub via: Option<HeaderValue>,
    /// What happens to `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
    /// Normalize the path (RFC 3986) before anything looks at it.
    pub normalize_path: bool,
    /// Merge adjacent slashes.
    pub merge_slashes: bool,
    /// What happens to `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashes,
    /// What happens to header names with an underscore.
    pub underscores: Underscores,
    /// Remove a port from `Host` before routes are matched.
    pub strip_port: StripPort,
    /// Remove a trailing dot from `Host`.
    pub strip_trailing_host_dot: bool,
    /// Upgrades that are allowed, lower case: `websocket`; `connect` is a CONNECT.
    pub upgrades: Vec<Upgrade>,
    /// Logs of requests.
    pub access_logs: Vec<AccessLog>,
    /// They are written when a request begins, too.
    pub log_new_requests: bool,
    /// How our own answers are changed.
    pub local_replies: Option<Arc<LocalReplies>>,
    /// Tracing of requests.
    pub tracing: Option<Arc<Tracing>>,
}

/// What becomes of the scheme of a request (`scheme_header_transformation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestScheme {
    /// It is `http`, whatever it was.
    Http,
    /// It is `https`, whatever it was.
    Https,
    /// An endpoint is told how it is reached.
    Upstream,
}

/// An allowed upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// The token in `Upgrade`, lower case.
    pub token: Box<str>,
    /// Whether it is on where a route says nothing.
    pub enabled: bool,
}

/// Envoy's `CodecType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// By ALPN, or by the HTTP/2 preface.
    Auto,
    /// HTTP/1.1 always.
    Http1,
    /// HTTP/2 always.
    Http2,
}

/// Where routes come from.
#[derive(Debug, Clone)]
pub enum RouteSource {
    /// They stand in the listener.
    Inline(Arc<RouteConfiguration>),
    /// They are discovered.
    Rds {
        /// Name of the route configuration.
        name: Arc<str>,
        /// Where it comes from.
        source: ConfigSource,
    },
}

/// Envoy's `ServerHeaderTransformation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ServerHeader {
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

/// HTTP/2 settings of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Options {
    /// Streams the peer may open at once. Default 1024 towards clients.
    pub max_concurrent_streams: u32,
    /// Bytes. Default 16 MiB in the proto; ours keeps memory bounded where nothing is set.
    pub initial_stream_window_size: u32,
    /// Bytes.
    pub initial_connection_window_size: u32,
    /// Extended CONNECT (RFC 8441) is allowed.
    pub allow_connect: bool,
    /// Most bytes that the peer's encoder may keep of headers (`hpack_table_size`). Default 4096.
    pub header_table_size: u32,
    /// Interval of keep-alive pings, and how long to wait for the answer.
    pub keepalive: Option<(Duration, Duration)>,
}

/// Envoy's `ForwardClientCertDetails`, with what `set_current_client_cert_details` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardClientCert {
    /// The mode.
    pub mode: ForwardClientCertMode,
    /// Add `Subject`.
    pub subject: bool,
    /// Add `Cert`.
    pub cert: bool,
    /// Add `Chain`.
    pub chain: bool,
    /// Add `DNS`.
    pub dns: bool,
    /// Add `URI`.
    pub uri: bool,
}

/// Envoy's `ForwardClientCertDetails`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ForwardClientCertMode {
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

/// Envoy's `PathWithEscapedSlashesAction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EscapedSlashes {
    KeepUnchanged,
    RejectRequest,
    UnescapeAndRedirect,
    UnescapeAndForward,
}

/// Envoy's `HeadersWithUnderscoresAction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Underscores {
    Allow,
    RejectRequest,
    DropHeader,
}

/// Removal of a port from `Host`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StripPort {
    /// Keep it.
    Keep,
    /// Remove it if it is the listener's port.
    Matching,
    /// Remove any.
    Any,
}
