//! Access logs: where they go and what a line holds.

use std::path::PathBuf;

use http::HeaderName;

/// One access logger.
#[derive(Debug, Clone)]
pub struct AccessLog {
    /// Where lines are written.
    pub sink: Sink,
    /// What a line looks like.
    pub format: LineFormat,
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
#[derive(Debug, Clone)]
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
    ResponseCodeDetails,
    ResponseFlags,
    ResponseFlagsLong,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    ResponseDuration,
    ResponseTxDuration,
    UpstreamHost,
    UpstreamCluster,
    UpstreamLocalAddress,
    UpstreamTransportFailureReason,
    UpstreamRequestAttemptCount,
    ConnectionTerminationDetails,
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamDirectRemoteAddress,
    DownstreamDirectRemoteAddressWithoutPort,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamLocalPort,
    DownstreamPeerUriSan,
    DownstreamLocalUriSan,
    DownstreamPeerSubject,
    DownstreamTlsVersion,
    DownstreamTlsCipher,
    RequestedServerName,
    RouteName,
    VirtualClusterName,
    FilterChainName,
    ConnectionId,
    StreamId,
    Hostname,
    GrpcStatus,
    GrpcStatusNumber,
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
