//! Active health checks of a cluster.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};

use super::endpoint::Metadata;
use super::header::HeaderMutations;
use super::matcher::StringMatcher;

/// A validated `envoy.config.core.v3.HealthCheck`.
#[derive(Debug, Clone)]
pub struct HealthCheck {
    /// What is asked, and which answer is good.
    pub check: Check,
    /// A check that takes longer has failed.
    pub timeout: Duration,
    /// Failures in a row after which a healthy endpoint is unhealthy. An answer that says so itself counts at once.
    pub unhealthy_threshold: u32,
    /// Successes in a row after which an unhealthy endpoint is healthy. The very first check needs one.
    pub healthy_threshold: u32,
    /// Use a connection for more than one check. Default true.
    pub reuse_connection: bool,
    /// When the next check comes.
    pub pace: Pace,
    /// Files that are told of what changes, and of every check where that is asked for (Envoy's `HealthCheckEvent`).
    pub event_logs: Vec<PathBuf>,
    /// Log every failure, and not only the first and those that change something.
    pub always_log_failures: bool,
    /// The same for successes.
    pub always_log_successes: bool,
    /// What is offered by ALPN instead of what the transport says.
    pub alpn: Vec<Box<[u8]>>,
    /// What chooses the transport, instead of the endpoint's metadata.
    pub transport_match: Option<Metadata>,
    /// Hash of all of it: a check that comes again unchanged goes on.
    pub fingerprint: u64,
}

/// The pauses between two checks.
#[derive(Debug, Clone)]
pub struct Pace {
    /// In general.
    pub interval: Duration,
    /// In a cluster that no connection was made to yet. Default 60 s.
    pub no_traffic: Duration,
    /// The same, of endpoints that are healthy. Default as `no_traffic`.
    pub no_traffic_healthy: Duration,
    /// After a failure. Default as `interval`.
    pub unhealthy: Duration,
    /// After a failure that another has to follow before it counts. Default as `unhealthy`.
    pub unhealthy_edge: Duration,
    /// After a success that another has to follow before it counts. Default as `interval`.
    pub healthy_edge: Duration,
    /// The first check begins at random within this time. Default 0.
    pub initial_jitter: Duration,
    /// Every pause grows at random by up to this.
    pub jitter: Duration,
    /// Every pause grows at random by up to so many percent of itself.
    pub jitter_percent: u32,
}

/// The kinds of checks.
#[derive(Debug, Clone)]
pub enum Check {
    /// `http_health_check`
    Http(Box<HttpCheck>),
    /// `grpc_health_check`
    Grpc(GrpcCheck),
    /// `tcp_health_check`
    Tcp(TcpCheck),
}

/// A validated `HttpHealthCheck`.
#[derive(Debug, Clone)]
pub struct HttpCheck {
    /// Default: the name of the cluster.
    pub host: Option<HeaderValue>,
    /// What is asked for.
    pub path: PathAndQuery,
    /// Default GET.
    pub method: Method,
    /// Done to the headers of the request; all values are fixed.
    pub headers: HeaderMutations,
    /// Body of the request; empty for none.
    pub send: Bytes,
    /// Has to be in the body of the response, in this order.
    pub receive: Vec<Bytes>,
    /// So many bytes of the response are looked at. Default 1024.
    pub response_buffer: usize,
    /// Statuses that are good. Default 200.
    pub expected: Vec<Range<u16>>,
    /// Statuses that count towards the threshold instead of at once.
    pub retriable: Vec<Range<u16>>,
    /// HTTP/2 instead of HTTP/1.
    pub http2: bool,
    /// What `x-envoy-upstream-healthchecked-cluster` of the response has to be.
    pub service_name: Option<StringMatcher>,
}

/// A validated `GrpcHealthCheck`.
#[derive(Debug, Clone)]
pub struct GrpcCheck {
    /// Name of the service; empty: the server as a whole.
    pub service: Box<str>,
    /// Default: the name of the cluster.
    pub authority: Option<HeaderValue>,
    /// Added to the headers of the request; all values are fixed.
    pub headers: HeaderMutations,
}

/// A validated `TcpHealthCheck`.
#[derive(Debug, Clone)]
pub struct TcpCheck {
    /// Sent once there is a connection.
    pub send: Bytes,
    /// Has to come in this order; none: a connection is enough.
    pub receive: Vec<Bytes>,
}
