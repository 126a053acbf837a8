//! Access logs: where they go and what a line holds.

use super::runtime::{RuntimeFraction, RuntimeNumber};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::grpc_service::GrpcService;
use super::matcher::HeaderMatcher;
use super::metadata::MetadataMatcher;
use super::tracing::{CustomTag, Exporter};

/// One access logger.
#[derive(Debug, Clone)]
pub struct AccessLog {
    /// What is written, and where to.
    pub output: Output,
    /// Which requests are written; all of them without it.
    pub filter: Option<Filter>,
}

/// What an access logger writes.
#[derive(Debug, Clone)]
pub enum Output {
    /// Lines in a file.
    Lines {
        /// Where.
        sink: Sink,
        /// What a line looks like.
        format: LineFormat,
        /// What has no value is left out: in text nothing stands in its place, in JSON neither its key.
        omit_empty_values: bool,
    },
    /// Entries that are sent to a server.
    Grpc(Arc<GrpcAccessLog>),
    /// Records that are sent to a collector.
    Otel(Arc<OtelAccessLog>),
}

/// A validated `OpenTelemetryAccessLogConfig`.
#[derive(Debug, Clone)]
pub struct OtelAccessLog {
    /// How records are sent. Logs that have it in common are sent together.
    pub stream: Arc<OtelLogStream>,
    /// The body of a record.
    pub body: Option<OtelValue>,
    /// Its attributes, in order.
    pub attributes: Vec<(Box<str>, OtelValue)>,
    /// Filter state that is added to the attributes.
    pub filter_state: Vec<Box<str>>,
    /// Tags that are added to the attributes.
    pub custom_tags: Vec<CustomTag>,
}

/// A value of a record.
#[derive(Debug, Clone)]
pub enum OtelValue {
    /// Text; `-` stands for what is not known.
    Text(Format),
    /// A list.
    List(Box<[OtelValue]>),
    /// A map, in order.
    Map(Box<[(Box<str>, OtelValue)]>),
}

/// How the records of logs are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtelLogStream {
    /// The collector.
    pub exporter: Exporter,
    /// What the collector is told of which log it is.
    pub log_name: Box<str>,
    /// The resource says which log, zone, cluster and node it is of. Default true.
    pub builtin_labels: bool,
    /// More attributes of the resource: an encoded `KeyValueList`.
    pub resource: Vec<u8>,
    /// Behind `access_logs.open_telemetry_access_log` in the names of statistics; empty for nothing.
    pub stat_prefix: Box<str>,
    /// Records wait at most so long for others. Default 1 s.
    pub flush_interval: Duration,
    /// Bytes of records that are sent at once; with 0 each is sent by itself. Default 16384.
    pub buffer_size: usize,
}

/// A validated `HttpGrpcAccessLogConfig` or `TcpGrpcAccessLogConfig`.
#[derive(Debug, Clone)]
pub struct GrpcAccessLog {
    /// How entries are sent. Logs that have it in common share one stream.
    pub stream: Arc<GrpcLogStream>,
    /// Headers of the request that stand in an entry.
    pub request_headers: Vec<HeaderName>,
    /// Headers of the response that stand in an entry.
    pub response_headers: Vec<HeaderName>,
    /// Trailers of the response that stand in an entry.
    pub response_trailers: Vec<HeaderName>,
    /// Filter state that stands in an entry.
    pub filter_state: Vec<Box<str>>,
    /// Tags of an entry.
    pub custom_tags: Vec<CustomTag>,
}

/// How the entries of a gRPC log are sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrpcLogStream {
    /// What an entry is.
    pub kind: GrpcLogKind,
    /// What the server is told of which log it is.
    pub log_name: Box<str>,
    /// The server.
    pub service: GrpcService,
    /// Entries wait at most so long for others. Default 1 s.
    pub flush_interval: Duration,
    /// Bytes of entries that are sent at once; with 0 each is sent by itself. Default 16384.
    pub buffer_size: usize,
    /// Bounds of the pause before a stream that broke is opened again. Default 500 ms and 30 s.
    pub backoff: (Duration, Duration),
}

/// The kinds of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GrpcLogKind {
    /// `HTTPAccessLogEntry`
    Http,
    /// `TCPAccessLogEntry`
    Tcp,
}

/// Envoy's `AccessLogFilter`: what has to be so for a line to be written.
#[derive(Debug, Clone)]
pub enum Filter {
    /// The status of the response; 0 if there was none.
    StatusCode(Comparison),
    /// Whole milliseconds from begin to end.
    Duration(Comparison),
    /// It was not asked by a health checker.
    NotHealthCheck,
    /// The request is traced.
    Traceable,
    /// A fraction of all requests. The runtime may change it.
    Runtime {
        /// Numerator and denominator.
        fraction: RuntimeFraction,
        /// By chance, and not by the request's id.
        independent: bool,
    },
    /// All of these, two or more.
    And(Box<[Filter]>),
    /// One of these, two or more.
    Or(Box<[Filter]>),
    /// A header of the request, as it was sent upstream.
    Header(HeaderMatcher),
    /// One of these flags, in Envoy's short names; any at all if the list is empty.
    ResponseFlags(Box<[Box<str>]>),
    /// The gRPC status, or the one that the HTTP status stands for.
    GrpcStatus {
        /// Numbers of statuses, 0 to 16.
        statuses: Box<[u32]>,
        /// None of these.
        exclude: bool,
    },
    /// A value of the request's metadata.
    Metadata {
        /// What it must be; `None`: no value is looked at.
        matcher: Option<MetadataMatcher>,
        /// The line is written if the value is not there.
        if_missing: bool,
    },
    /// What ends, in the names that `%ACCESS_LOG_TYPE%` prints.
    LogType {
        /// The names.
        types: Box<[Box<str>]>,
        /// None of these.
        exclude: bool,
    },
}

/// A comparison of a number with a constant.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Which.
    pub op: Op,
    /// The constant, on the right. A whole number, which the runtime may change.
    pub value: RuntimeNumber,
}

/// Kinds of a [`Comparison`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // as they are named
pub enum Op {
    Eq,
    Ge,
    Le,
    Ne,
}

/// Where an access log is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sink {
    /// Appended to a file, which is created if missing.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The two ways to write a line.
#[derive(Debug, Clone)]
pub enum LineFormat {
    /// Text, written as it stands: a newline is part of the format.
    Text(Format),
    /// One JSON object a line, with its keys sorted as Envoy sorts them.
    Json(JsonFormat),
}

/// A format string, parsed: what is literal and what is a command.
#[derive(Debug, Clone, Default)]
pub struct Format {
    /// Its parts in order.
    pub parts: Box<[FormatPart]>,
}

impl Format {
    /// Parses a format string.
    ///
    /// # Errors
    /// Naming the command operator that is unknown or used wrongly.
    pub fn parse(text: &str) -> Result<Self, String> {
        super::convert::format::parse(text)
    }
}

/// A part of a [`Format`].
#[derive(Debug, Clone)]
pub enum FormatPart {
    /// Text that is copied.
    Literal(Box<str>),
    /// A command operator.
    Command(Command),
}

/// A value of a JSON access log.
#[derive(Debug, Clone)]
pub enum JsonFormat {
    /// A nested object.
    Object(Box<[(Box<str>, JsonFormat)]>),
    /// A list.
    List(Box<[JsonFormat]>),
    /// A format string. One that is a single command keeps the type of its value (a number stays a number).
    Value(Format),
    /// A number, boolean or null that stands in the configuration.
    Fixed(serde_json::Value),
}

/// A command operator, `%NAME(ARGUMENT):LENGTH%`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Which.
    pub operator: Operator,
    /// At most so many bytes of its value.
    pub max_length: Option<usize>,
}

/// The command operators we know. Meaning and format: Envoy's access log documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // each is named as its operator
pub enum Operator {
    /// `START_TIME`, with an optional strftime-like format
    StartTime(Option<Box<str>>),
    Protocol,
    RequestMethod,
    RequestPath,
    ResponseCode,
    /// Spaces become `_`, unless `ALLOW_WHITESPACES` is given.
    ResponseCodeDetails {
        whitespace: bool,
    },
    ResponseFlags,
    ResponseFlagsLong,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    RequestTxDuration,
    /// `COMMON_DURATION(FROM:TO:UNIT)`
    CommonDuration(TimePoint, TimePoint, DurationUnit),
    ResponseDuration,
    ResponseTxDuration,
    UpstreamHost,
    UpstreamHostName,
    UpstreamHostNameWithoutPort,
    UpstreamProtocol,
    UpstreamConnectionId,
    UpstreamRemoteAddress,
    UpstreamRemoteAddressWithoutPort,
    UpstreamRemotePort,
    UpstreamLocalAddressWithoutPort,
    UpstreamLocalPort,
    UpstreamTlsVersion,
    UpstreamTlsGroup,
    UpstreamTlsCipher,
    UpstreamCluster,
    /// `UPSTREAM_CLUSTER_RAW`: its name, where `UPSTREAM_CLUSTER` prints its `alt_stat_name`
    UpstreamClusterRaw,
    UpstreamLocalAddress,
    UpstreamTransportFailureReason,
    UpstreamRequestAttemptCount,
    ConnectionTerminationDetails,
    LocalReplyBody,
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamDirectRemoteAddress,
    DownstreamDirectRemoteAddressWithoutPort,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamLocalPort,
    DownstreamRemotePort,
    DownstreamDirectRemotePort,
    DownstreamTlsGroup,
    /// What a certificate says.
    Certificate(Whose, CertificateField),
    DownstreamTlsVersion,
    DownstreamTlsCipher,
    RequestedServerName,
    RouteName,
    VirtualClusterName,
    FilterChainName,
    ConnectionId,
    StreamId,
    Hostname,
    /// `CAMEL_STRING`
    GrpcStatus,
    /// `SNAKE_STRING`
    GrpcStatusSnake,
    GrpcStatusNumber,
    /// `EMIT_TIME`, with an optional strftime-like format
    EmitTime(Option<Box<str>>),
    AccessLogType,
    UniqueId,
    /// `PATH(QUERY:WHICH)`
    Path {
        /// With its query.
        query: bool,
        /// Whose path.
        which: WhichPath,
    },
    /// `QUERY_PARAMS`, all of them; `decoded`: with `DECODED`
    QueryParams {
        /// Percent signs are taken out, where what they stand for may stand in a URL.
        decoded: bool,
    },
    /// `REQUEST_HEADERS_BYTES`
    RequestHeadersBytes,
    /// `RESPONSE_HEADERS_BYTES`
    ResponseHeadersBytes,
    /// `RESPONSE_TRAILERS_BYTES`
    ResponseTrailersBytes,
    /// `UPSTREAM_HOSTS_ATTEMPTED` and the like
    Attempted(Attempted),
    /// `DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID` and the like: of an internal address, which we do not have
    EndpointId(Side),
    /// `COALESCE({"operators": [...]})`: the first that has a value
    Coalesce(Box<[Command]>),
    /// `QUERY_PARAM(NAME)`
    QueryParam(Box<str>),
    /// `TRACE_ID`
    TraceId,
    /// `SPAN_ID`
    SpanId,
    /// A number that is always 0 here, as it is in Envoy for anything but QUIC.
    Zero,
    /// `DYNAMIC_METADATA(NAMESPACE:KEY:...)` and the like
    Metadata(MetadataOf, Box<str>, Box<[Box<str>]>),
    /// `FILTER_STATE(KEY:PLAIN)`; `quoted`: as `FILTER_STATE(KEY:TYPED)` prints a text
    FilterState {
        /// Which text.
        key: Box<str>,
        /// In quotes, as JSON.
        quoted: bool,
    },
    /// `CUSTOM_FLAGS`, which filters set as well: with none Envoy prints nothing at all.
    CustomFlags,
    /// `REQ(X?Y)`: the first header, or else the second. `:method` and the like are kept with their colon.
    Req(HeaderOrPseudo, Option<HeaderOrPseudo>),
    /// `RESP(X?Y)`
    Resp(HeaderOrPseudo, Option<HeaderOrPseudo>),
    /// `TRAILER(X?Y)`
    Trailer(HeaderName, Option<HeaderName>),
}

/// A header name of a command, or one of `:method`, `:path`, `:authority`, `:scheme`, `:status`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum HeaderOrPseudo {
    Header(HeaderName),
    Method,
    Path,
    Authority,
    Scheme,
    Status,
}

/// What a command says of the endpoints that a request was sent to. Envoy begins anew with each attempt, so it is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each is named as its operator
pub enum Attempted {
    Hosts,
    HostsWithoutPort,
    HostNames,
    HostNamesWithoutPort,
    ConnectionIds,
}

/// Whose address a command reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each is named as its operator
pub enum Side {
    DownstreamLocal,
    UpstreamRemote,
}

/// Whose metadata a command reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each is named as its operator
pub enum MetadataOf {
    Request,
    Cluster,
    Endpoint,
    Route,
}

/// Whose certificate a command reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each is named as its operators
pub enum Whose {
    DownstreamPeer,
    DownstreamLocal,
    UpstreamPeer,
}

/// What a command reads of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // each is named as its operators
pub enum CertificateField {
    UriSan,
    DnsSan,
    EmailSan,
    IpSan,
    Subject,
    Issuer,
    Serial,
    Fingerprint256,
    /// The certificate itself, PEM with what is not allowed in a URL encoded.
    Pem,
    /// When it begins to be valid, with an optional strftime-like format.
    NotBefore(Option<Box<str>>),
    /// When it ends to be valid.
    NotAfter(Option<Box<str>>),
}

/// A moment of a request. Names of Envoy's `COMMON_DURATION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimePoint {
    /// `DS_RX_BEG`: the first byte from the client.
    DownstreamRxBegin,
    /// `DS_RX_END`: the last byte from the client.
    DownstreamRxEnd,
    /// `US_TX_BEG`: the first byte to the endpoint.
    UpstreamTxBegin,
    /// `US_TX_END`: the last byte to the endpoint.
    UpstreamTxEnd,
    /// `US_RX_BEG`: the first byte from the endpoint.
    UpstreamRxBegin,
    /// `US_RX_END`: the last byte from the endpoint.
    UpstreamRxEnd,
    /// `DS_TX_BEG`: the first byte to the client.
    DownstreamTxBegin,
    /// `DS_TX_END`: the last byte to the client.
    DownstreamTxEnd,
}

/// Unit of a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // as they are named
pub enum DurationUnit {
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

/// Which path of a request: routes may rewrite it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhichPath {
    /// As it came, if it was rewritten: else nothing.
    Original,
    /// As it was sent upstream.
    Current,
    /// As it came.
    OriginalOrCurrent,
}
