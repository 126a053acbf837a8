//! Services that the sidecar itself calls: over gRPC, or over plain HTTP.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};

/// A gRPC service (`envoy.config.core.v3.GrpcService` with `envoy_grpc`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrpcService {
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// `:authority` of the calls; `None`: the cluster's name.
    pub authority: Option<Box<str>>,
    /// Of a single call; `None`: without a limit.
    pub timeout: Option<Duration>,
    /// Metadata of the calls.
    pub initial_metadata: Vec<(Box<str>, Box<str>)>,
}

/// An HTTP service (`envoy.config.core.v3.HttpService`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpService {
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// `Host` of the requests.
    pub authority: HeaderValue,
    /// Target of the requests.
    pub path: PathAndQuery,
    /// Of a single request.
    pub timeout: Duration,
    /// Added to the requests.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}
