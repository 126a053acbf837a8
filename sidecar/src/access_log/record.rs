//! What is known at the end of a request or connection.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use smallvec::SmallVec;

use super::flags::ResponseFlags;
use crate::config::access_log::{
    AccessLog, Filter, Format, FormatPart, GrpcAccessLog, HeaderOrPseudo, JsonFormat, LineFormat,
    Operator, OtelAccessLog, OtelValue, Output,
};
use crate::config::address::Address;
use crate::config::header::HeaderTemplate;
use crate::config::local_reply::LocalReplies;
use crate::config::matcher::{HeaderMatcher, MatchedHeader};
use crate::config::metadata::{FilterState, Metadata};
use crate::config::tracing::{CustomTag, TagValue};

/// One request, or one connection, at its end. Fields follow Envoy's command operators, which say what each means; what is
/// not known is `None` and prints as `-`.
#[derive(Debug, Clone)]
pub(crate) struct LogRecord<'a> {
    /// What ends.
    pub(crate) log_type: LogType,
    /// It was asked by a health checker.
    pub(crate) health_check: bool,
    /// The request is traced: sampled, or forced.
    pub(crate) traced: bool,
    /// When the request's (or connection's) first byte came.
    pub(crate) start: SystemTime,
    /// Downstream protocol; `None` for a TCP connection.
    pub(crate) protocol: Option<Version>,
    /// `:method`
    pub(crate) method: Option<&'a str>,
    /// `:path`, with the query, as it was sent upstream (after rewriting).
    pub(crate) path: Option<&'a str>,
    /// `:authority`
    pub(crate) authority: Option<&'a str>,
    /// `:scheme`
    pub(crate) scheme: Option<&'a str>,
    /// Status of the response; `None` if there was none, which prints as 0.
    pub(crate) response_code: Option<u16>,
    /// Why this response: `via_upstream`, `route_not_found`, …
    pub(crate) response_code_details: Option<&'a str>,
    /// What went wrong.
    pub(crate) flags: ResponseFlags,
    /// Bytes of the request's body (of a connection: read from the client).
    pub(crate) bytes_received: u64,
    /// Bytes of the response's body (of a connection: written to the client).
    pub(crate) bytes_sent: u64,
    /// From the start to the end.
    pub(crate) duration: Option<Duration>,
    /// From the start to the last byte of the request.
    pub(crate) request_duration: Option<Duration>,
    /// From the start to the first byte that was sent upstream.
    pub(crate) request_tx_begin: Option<Duration>,
    /// From the start to the last byte that was sent upstream.
    pub(crate) request_tx_duration: Option<Duration>,
    /// From the start to the first byte of the upstream's response.
    pub(crate) response_duration: Option<Duration>,
    /// From the first byte of the upstream's response to the last byte sent to the client.
    pub(crate) response_tx_duration: Option<Duration>,
    /// The client did not get all of its response.
    pub(crate) is_broken: bool,
    /// From the start to the last byte of the upstream's response.
    pub(crate) response_rx_duration: Option<Duration>,
    /// The endpoint that was tried last.
    pub(crate) upstream_host: Option<Address>,
    /// The name that its address was resolved from, with its port.
    pub(crate) upstream_host_name: Option<&'a str>,
    /// The connection to it.
    pub(crate) upstream: Option<UpstreamConnection<'a>>,
    /// Name of its cluster.
    pub(crate) upstream_cluster_name: Option<&'a str>,
    /// Name of its cluster in statistics.
    pub(crate) upstream_cluster: Option<&'a str>,
    /// Why no connection could be made.
    pub(crate) upstream_transport_failure_reason: Option<&'a str>,
    /// How often it was tried; 0 if never.
    pub(crate) attempt_count: u32,
    /// The body of an answer of our own, while it is being written.
    pub(crate) local_reply_body: &'a [u8],
    /// Why we ended the connection.
    pub(crate) connection_termination_details: Option<&'a str>,
    /// The client: the connection's peer, or what trusted forwarding headers say.
    pub(crate) downstream_remote: Option<Address>,
    /// The connection's peer.
    pub(crate) downstream_direct_remote: Option<Address>,
    /// Our address of the connection.
    pub(crate) downstream_local: Option<Address>,
    /// The client's certificate.
    pub(crate) downstream_peer: Option<Certificate<'a>>,
    /// The certificate that we showed to the client.
    pub(crate) downstream_own: Option<Certificate<'a>>,
    /// `TLSv1.3`
    pub(crate) downstream_tls_version: Option<&'a str>,
    /// `TLS_AES_256_GCM_SHA384`, in OpenSSL's names as Envoy prints them.
    pub(crate) downstream_tls_cipher: Option<&'a str>,
    /// `X25519`
    pub(crate) downstream_tls_group: Option<&'a str>,
    /// Server name the client asked for.
    pub(crate) requested_server_name: Option<&'a str>,
    /// What filters noted.
    pub(crate) dynamic_metadata: Option<&'a Metadata>,
    /// What filters noted.
    pub(crate) filter_state: Option<&'a FilterState>,
    /// Of the cluster.
    pub(crate) cluster_metadata: Option<&'a Metadata>,
    /// Of the endpoint that was tried last.
    pub(crate) upstream_metadata: Option<&'a ArcSwap<Metadata>>,
    /// Name of the route.
    pub(crate) route_name: Option<&'a str>,
    /// Name of the virtual cluster.
    pub(crate) virtual_cluster_name: Option<&'a str>,
    /// Name of the filter chain.
    pub(crate) filter_chain_name: Option<&'a str>,
    /// Number of the connection, unique in the process.
    pub(crate) connection_id: Option<u64>,
    /// Id of the stream: the `x-request-id`, or the trace.
    pub(crate) stream_id: Option<&'a str>,
    /// Id of the trace that the request belongs to, in lower-case hexadecimal.
    pub(crate) trace_id: Option<&'a str>,
    /// Id of our span in it.
    pub(crate) span_id: Option<&'a str>,
    /// The gRPC status of a gRPC request.
    pub(crate) grpc_status: Option<u32>,
    /// Metadata of the route.
    pub(crate) route_metadata: Option<&'a Metadata>,
    /// Length of names and values of the request's headers, as they were sent upstream. Known where a log asks for it.
    pub(crate) request_headers_bytes: u64,
    /// The same of the response, as it was sent downstream.
    pub(crate) response_headers_bytes: u64,
    /// The same of the response's trailers.
    pub(crate) response_trailers_bytes: u64,
    /// Headers of the request, as they were sent upstream.
    pub(crate) request_headers: Headers<'a>,
    /// Headers of the response, as they were sent downstream.
    pub(crate) response_headers: Headers<'a>,
    /// Trailers of the response.
    pub(crate) response_trailers: Headers<'a>,
}

/// Envoy's `AccessLogType`, as far as we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogType {
    /// The begin of a request.
    DownstreamStart,
    /// The end of a request.
    DownstreamEnd,
    /// The begin of a connection of bytes.
    TcpConnectionStart,
    /// A connection of bytes has its endpoint.
    TcpUpstreamConnected,
    /// A connection of bytes goes on.
    TcpPeriodic,
    /// The end of a connection of bytes.
    TcpConnectionEnd,
    /// A connection, in the log of its listener.
    NotSet,
}

impl LogType {
    /// The type of this name; `None` for one that we never write.
    pub(super) fn named(name: &str) -> Option<Self> {
        const ALL: [LogType; 7] = [
            LogType::NotSet,
            LogType::DownstreamStart,
            LogType::DownstreamEnd,
            LogType::TcpConnectionStart,
            LogType::TcpUpstreamConnected,
            LogType::TcpPeriodic,
            LogType::TcpConnectionEnd,
        ];
        ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// As `%ACCESS_LOG_TYPE%` prints it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NotSet => "NotSet",
            Self::DownstreamStart => "DownstreamStart",
            Self::DownstreamEnd => "DownstreamEnd",
            Self::TcpConnectionStart => "TcpConnectionStart",
            Self::TcpUpstreamConnected => "TcpUpstreamConnected",
            Self::TcpPeriodic => "TcpPeriodic",
            Self::TcpConnectionEnd => "TcpConnectionEnd",
        }
    }
}

impl LogRecord<'_> {
    /// From the start to the first byte that was sent to the client.
    pub(crate) fn downstream_tx_begin(&self) -> Option<Duration> {
        // A response is passed on as it comes; our own is sent at once.
        self.response_duration.or(self.downstream_tx_end())
    }

    /// From the start to the last byte that was sent to the client.
    pub(crate) fn downstream_tx_end(&self) -> Option<Duration> {
        self.duration.filter(|_| self.response_code.is_some() && !self.is_broken)
    }

    /// Nothing but a start.
    pub(crate) fn new(start: SystemTime) -> Self {
        Self {
            log_type: LogType::DownstreamEnd,
            health_check: false,
            traced: false,
            start,
            protocol: None,
            method: None,
            path: None,
            authority: None,
            scheme: None,
            response_code: None,
            response_code_details: None,
            flags: ResponseFlags::NONE,
            bytes_received: 0,
            bytes_sent: 0,
            duration: None,
            request_duration: None,
            request_tx_begin: None,
            request_tx_duration: None,
            response_duration: None,
            response_tx_duration: None,
            response_rx_duration: None,
            is_broken: false,
            request_headers_bytes: 0,
            response_headers_bytes: 0,
            response_trailers_bytes: 0,
            route_metadata: None,
            upstream_host: None,
            upstream_host_name: None,
            upstream: None,
            upstream_cluster_name: None,
            upstream_cluster: None,
            upstream_transport_failure_reason: None,
            attempt_count: 0,
            local_reply_body: &[],
            connection_termination_details: None,
            downstream_remote: None,
            downstream_direct_remote: None,
            downstream_local: None,
            downstream_peer: None,
            downstream_own: None,
            downstream_tls_version: None,
            downstream_tls_cipher: None,
            downstream_tls_group: None,
            requested_server_name: None,
            dynamic_metadata: None,
            filter_state: None,
            cluster_metadata: None,
            upstream_metadata: None,
            route_name: None,
            virtual_cluster_name: None,
            filter_chain_name: None,
            connection_id: None,
            stream_id: None,
            trace_id: None,
            span_id: None,
            grpc_status: None,
            request_headers: Headers::None,
            response_headers: Headers::None,
            response_trailers: Headers::None,
        }
    }
}

/// What a certificate says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Certificate<'a> {
    pub(crate) uri_sans: &'a [Box<str>],
    pub(crate) dns_sans: &'a [Box<str>],
    pub(crate) email_sans: &'a [Box<str>],
    pub(crate) ip_sans: &'a [Box<str>],
    /// In the form of RFC 2253.
    pub(crate) subject: &'a str,
    /// In the form of RFC 2253.
    pub(crate) issuer: &'a str,
    /// In lower-case hexadecimal.
    pub(crate) serial: &'a str,
    pub(crate) sha256: &'a [u8; 32],
    /// Seconds since the epoch.
    pub(crate) not_before: i64,
    /// Seconds since the epoch.
    pub(crate) not_after: i64,
    /// The certificate itself, DER.
    pub(crate) der: &'a [u8],
}

/// A connection to an endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UpstreamConnection<'a> {
    /// Unique in the process, among connections of both sides.
    pub(crate) id: u64,
    /// Our address; a Unix domain socket has none.
    pub(crate) local: Option<SocketAddr>,
    /// The endpoint's.
    pub(crate) remote: &'a Address,
    /// `None` for a connection of bytes.
    pub(crate) protocol: Option<Version>,
    /// `TLSv1.3`
    pub(crate) tls_version: Option<&'a str>,
    /// In OpenSSL's names.
    pub(crate) tls_cipher: Option<&'a str>,
    /// `X25519`
    pub(crate) tls_group: Option<&'a str>,
    /// The endpoint's certificate.
    pub(crate) peer: Option<Certificate<'a>>,
}

/// Headers that a record can look into.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Headers<'a> {
    /// There are none.
    None,
    /// All of them are still here.
    Map(&'a HeaderMap),
    /// They have moved on; what the logs need was kept.
    Captured(&'a Captured),
}

impl<'a> Headers<'a> {
    /// All values of a header, in order.
    pub(crate) fn all(
        self,
        name: &'a HeaderName,
    ) -> Box<dyn Iterator<Item = &'a HeaderValue> + 'a> {
        match self {
            Self::None => Box::new(std::iter::empty()),
            Self::Map(headers) => Box::new(headers.get_all(name).into_iter()),
            Self::Captured(captured) => Box::new(captured.all(name)),
        }
    }

    /// The first value of a header: Envoy logs no other.
    pub(crate) fn get(self, name: &HeaderName) -> Option<&'a HeaderValue> {
        match self {
            Self::None => None,
            Self::Map(headers) => headers.get(name),
            Self::Captured(captured) => {
                captured.0.iter().find(|(other, _)| other == name).map(|(_, value)| value)
            }
        }
    }
}

/// Header values kept for the log. A value is shared and not copied.
#[derive(Debug, Clone, Default)]
pub(crate) struct Captured(SmallVec<[(HeaderName, HeaderValue); 4]>);

impl Captured {
    /// All values of a header, in order.
    pub(super) fn all<'a>(
        &'a self,
        name: &'a HeaderName,
    ) -> impl Iterator<Item = &'a HeaderValue> + use<'a> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value)
    }
}

/// Which headers some logs read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Needs {
    /// Of the request.
    pub(crate) request_headers: Box<[HeaderName]>,
    /// Of the response.
    pub(crate) response_headers: Box<[HeaderName]>,
    /// Trailers of the response.
    pub(crate) response_trailers: Box<[HeaderName]>,
    /// How long all of the headers are.
    pub(crate) header_bytes: bool,
}

impl Needs {
    /// What these logs read.
    pub(crate) fn of(logs: &[AccessLog]) -> Self {
        let mut found = Found::default();
        for log in logs {
            match &log.output {
                Output::Lines { format, .. } => found.line(format),
                Output::Grpc(log) => found.grpc(log),
                Output::Otel(log) => found.otel(log),
            }
            if let Some(filter) = &log.filter {
                found.filter(filter);
            }
        }
        found.into()
    }

    /// What these formats read: header additions with commands.
    pub(crate) fn of_formats<'f>(formats: impl IntoIterator<Item = &'f Format>) -> Self {
        let mut found = Found::default();
        formats.into_iter().for_each(|format| found.format(format));
        found.into()
    }

    /// What the rules for our own answers read.
    pub(crate) fn of_replies(replies: &LocalReplies) -> Self {
        let mut found = Found::default();
        let formats = replies.mappers.iter().map(|mapper| &mapper.format).chain([&replies.format]);
        formats.flatten().for_each(|format| found.line(&format.line));
        for mapper in &replies.mappers {
            found.filter(&mapper.filter);
            for addition in &mapper.headers.add {
                if let HeaderTemplate::Format(format) = &addition.value {
                    found.format(format);
                }
            }
        }
        found.into()
    }

    /// Keeps the values of each of `names` that is there.
    pub(crate) fn capture(names: &[HeaderName], headers: &HeaderMap) -> Captured {
        let mut captured = Captured::default();
        for name in names {
            let values = headers.get_all(name).iter();
            captured.0.extend(values.map(|value| (name.clone(), value.clone())));
        }
        captured
    }
}

#[derive(Default)]
struct Found {
    request: Vec<HeaderName>,
    response: Vec<HeaderName>,
    trailers: Vec<HeaderName>,
    header_bytes: bool,
}

impl Found {
    fn grpc(&mut self, log: &GrpcAccessLog) {
        const ALWAYS: [HeaderName; 5] = [
            http::header::USER_AGENT,
            http::header::REFERER,
            HeaderName::from_static("x-forwarded-for"),
            HeaderName::from_static("x-request-id"),
            HeaderName::from_static("x-envoy-original-path"),
        ];
        self.header_bytes = true;
        log.request_headers.iter().chain(&ALWAYS).for_each(|it| add(&mut self.request, Some(it)));
        log.response_headers.iter().for_each(|name| add(&mut self.response, Some(name)));
        log.response_trailers.iter().for_each(|name| add(&mut self.trailers, Some(name)));
        self.tags(&log.custom_tags);
    }

    fn otel(&mut self, log: &OtelAccessLog) {
        let attributes = log.attributes.iter().map(|(_, value)| value);
        attributes.chain(&log.body).for_each(|value| self.otel_value(value));
        self.tags(&log.custom_tags);
    }

    fn otel_value(&mut self, value: &OtelValue) {
        match value {
            OtelValue::Text(format) => self.format(format),
            OtelValue::List(list) => list.iter().for_each(|value| self.otel_value(value)),
            OtelValue::Map(map) => map.iter().for_each(|(_, value)| self.otel_value(value)),
        }
    }

    fn tags(&mut self, tags: &[CustomTag]) {
        for tag in tags {
            match &tag.value {
                TagValue::RequestHeader(name, _) => add(&mut self.request, Some(name)),
                TagValue::Format(format) => self.format(format),
                TagValue::Fixed(_) | TagValue::Metadata(..) => {}
            }
        }
    }

    fn line(&mut self, format: &LineFormat) {
        match format {
            LineFormat::Text(format) => self.format(format),
            LineFormat::Json(format) => self.json(format),
        }
    }

    fn json(&mut self, format: &JsonFormat) {
        match format {
            JsonFormat::Object(fields) => fields.iter().for_each(|(_, field)| self.json(field)),
            JsonFormat::List(items) => items.iter().for_each(|item| self.json(item)),
            JsonFormat::Value(format) => self.format(format),
            JsonFormat::Fixed(_) => {}
        }
    }

    fn filter(&mut self, filter: &Filter) {
        match filter {
            Filter::And(filters) | Filter::Or(filters) => {
                filters.iter().for_each(|filter| self.filter(filter));
            }
            Filter::Header(HeaderMatcher { name: MatchedHeader::Header(name), .. }) => {
                add(&mut self.request, Some(name));
            }
            _ => {}
        }
    }

    fn format(&mut self, format: &Format) {
        for part in &format.parts {
            let FormatPart::Command(command) = part else { continue };
            self.operator(&command.operator);
        }
    }

    fn operator(&mut self, operator: &Operator) {
        match operator {
            Operator::Req(first, second) => {
                add(&mut self.request, header(first));
                add(&mut self.request, second.as_ref().and_then(header));
            }
            Operator::Resp(first, second) => {
                add(&mut self.response, header(first));
                add(&mut self.response, second.as_ref().and_then(header));
            }
            Operator::Trailer(first, second) => {
                add(&mut self.trailers, Some(first));
                add(&mut self.trailers, second.as_ref());
            }
            // Where a route rewrites a path, this header keeps the original.
            Operator::Path { .. } => add(&mut self.request, Some(&ORIGINAL_PATH)),
            Operator::RequestHeadersBytes
            | Operator::ResponseHeadersBytes
            | Operator::ResponseTrailersBytes => self.header_bytes = true,
            Operator::Coalesce(commands) => {
                commands.iter().for_each(|command| self.operator(&command.operator));
            }
            _ => {}
        }
    }
}

/// The path before a route rewrote it.
pub(super) static ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

fn header(name: &HeaderOrPseudo) -> Option<&HeaderName> {
    match name {
        HeaderOrPseudo::Header(name) => Some(name),
        _ => None,
    }
}

fn add(names: &mut Vec<HeaderName>, name: Option<&HeaderName>) {
    if let Some(name) = name
        && !names.contains(name)
    {
        names.push(name.clone());
    }
}

impl From<Found> for Needs {
    fn from(found: Found) -> Self {
        Self {
            request_headers: found.request.into(),
            response_headers: found.response.into(),
            response_trailers: found.trailers.into(),
            header_bytes: found.header_bytes,
        }
    }
}
