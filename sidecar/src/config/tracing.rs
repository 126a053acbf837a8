//! Tracing: which requests are traced, what their spans say, and where spans go.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::access_log::Format;
use super::grpc_service::{GrpcService, HttpService};
use super::http_filters::Fraction;

/// A validated `HttpConnectionManager.Tracing`, with what `request_id_extension` says about it.
#[derive(Debug, Clone)]
pub struct Tracing {
    /// Which requests.
    pub sampling: Sampling,
    /// Spans have an event for each moment of the request.
    pub verbose: bool,
    /// Most bytes of the path in `http.url`. Default 256.
    pub max_path_tag_length: usize,
    /// Tags beside Envoy's own.
    pub custom_tags: Vec<CustomTag>,
    /// Who gets the spans; `None`: requests are sampled and no span is made.
    pub provider: Option<Arc<OpenTelemetry>>,
    /// Each attempt has a span of its own.
    pub spawn_upstream_span: bool,
    /// Name of the span, instead of the decorator's.
    pub operation: Option<Format>,
    /// Name of the spans of attempts.
    pub upstream_operation: Option<Format>,
    /// The context is put into the request to the endpoint. Default true.
    pub context_propagation: bool,
    /// The decision is written into `x-request-id` (`pack_trace_reason`). Default true.
    pub pack_trace_reason: bool,
    /// The decision depends on `x-request-id` (`use_request_id_for_trace_sampling`); else every request is traced.
    /// Default true.
    pub use_request_id: bool,
}

/// Shares of requests, as numerator and denominator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// Of the requests with `x-client-trace-id`. Default all.
    pub client: Fraction,
    /// Of the requests that nobody asked to trace. Default all.
    pub random: Fraction,
    /// Of all those that would be traced by now. Default all.
    pub overall: Fraction,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { client: (100, 100), random: (10_000, 10_000), overall: (10_000, 10_000) }
    }
}

/// A validated `Route.tracing`: instead of what the connection manager says.
#[derive(Debug, Clone)]
pub struct RouteTracing {
    /// Which requests.
    pub sampling: Sampling,
    /// Beside the connection manager's, and before one of the same name.
    pub custom_tags: Vec<CustomTag>,
    /// Name of the span.
    pub operation: Option<Format>,
    /// Name of the spans of attempts.
    pub upstream_operation: Option<Format>,
}

/// A validated `Decorator`.
#[derive(Debug, Clone)]
pub struct Decorator {
    /// Name of the span.
    pub operation: HeaderValue,
    /// The name is told to the next proxy, in `x-envoy-decorator-operation`. Default true.
    pub propagate: bool,
}

/// A tag of a span.
#[derive(Debug, Clone)]
pub struct CustomTag {
    /// Its key.
    pub tag: Box<str>,
    /// Its value.
    pub value: TagValue,
}

/// Where the value of a tag comes from.
#[derive(Debug, Clone)]
pub enum TagValue {
    /// Fixed: a literal, or a variable of the environment. `None`: there is no such variable, and so no tag.
    Fixed(Option<Box<str>>),
    /// A header of the request, or else this.
    RequestHeader(HeaderName, Option<Box<str>>),
    /// A format; no tag if nothing comes of it.
    Format(Format),
    /// A value of metadata, or else this.
    Metadata(TagMetadata, Option<Box<str>>),
}

/// Whose metadata a tag reads, and where in them.
#[derive(Debug, Clone)]
pub enum TagMetadata {
    /// The route's: namespace, and path in it.
    Route(Box<str>, Box<[Box<str>]>),
    /// The request's, the cluster's or the endpoint's: a command operator.
    Format(Format),
}

/// A validated `OpenTelemetryConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OpenTelemetry {
    /// Where spans are sent; `None`: nowhere.
    pub exporter: Option<Exporter>,
    /// Attributes of the resource, later ones before earlier ones of the same key.
    pub resource: Vec<(Box<str>, Box<str>)>,
    /// Spans name who made them.
    pub instrumentation_scope: bool,
    /// What a sampled request's context may change; `None`: as the caller sampled.
    pub sampler: Option<Sampler>,
    /// Spans that may wait to be sent. Default 1024.
    pub max_cache_size: usize,
}

/// How spans are sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Exporter {
    /// OTLP over gRPC.
    Grpc(GrpcService),
    /// OTLP over HTTP, as protobuf.
    Http(HttpService),
}

/// Who decides about a request that is to be traced.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sampler {
    /// Always.
    AlwaysOn,
    /// A share of all traces, the same ones wherever they pass: numerator and denominator.
    TraceIdRatio(u32, u32),
    /// As the caller sampled; for a request without a caller's context, another sampler.
    ParentBased(Box<Sampler>),
}
