//! The value of one command operator.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::Version;
use serde_json::Value as JsonValue;

use super::attempted::{attempted, endpoint_id};
use super::certificate::of_certificate;
use super::derived::{between, path, query_parameter, query_parameters, unique_id};
use super::record::{Headers, LogRecord};
use super::time_format;
use crate::config::access_log::{Command, HeaderOrPseudo, MetadataOf, Operator, Whose};
use crate::config::address::Address;
use crate::config::metadata::StateText;

/// What a command stands for.
pub(super) enum Value<'a> {
    /// Nothing is known: `-` in text, `null` in JSON.
    Missing,
    /// Text; not necessarily UTF-8.
    Text(&'a [u8]),
    /// A whole number; a number in JSON as well.
    Number(u64),
    /// Text that was made for this line.
    Owned(Vec<u8>),
    /// A value with its own structure. In a line of text a string stands without quotes, unless `true`.
    Json(JsonValue, bool),
    /// What was noted in the filter state, as an object.
    State(&'a StateText),
}

/// Appends the value of an operator whose values are made of nothing but digits and punctuation (times and addresses), and
/// so never need an escape or an allocation. `false`: it is another one, or has no value.
pub(super) fn append_plain(operator: &Operator, record: &LogRecord<'_>, out: &mut Vec<u8>) -> bool {
    let address = match operator {
        Operator::StartTime(None) => {
            time_format::default(record.start, out);
            return true;
        }
        Operator::UpstreamHost => record.upstream_host.as_ref().and_then(Address::socket),
        Operator::UpstreamLocalAddress => record.upstream.and_then(|upstream| upstream.local),
        Operator::UpstreamRemoteAddress => record.upstream.and_then(|it| it.remote.socket()),
        Operator::DownstreamRemoteAddress => {
            record.downstream_remote.as_ref().and_then(Address::socket)
        }
        Operator::DownstreamDirectRemoteAddress => {
            record.downstream_direct_remote.as_ref().and_then(Address::socket)
        }
        Operator::DownstreamLocalAddress => {
            record.downstream_local.as_ref().and_then(Address::socket)
        }
        _ => return false,
    };
    if let Some(address) = address {
        push_address(out, address);
    }
    address.is_some()
}

/// The value of `operator` for `record`.
pub(super) fn value<'a>(operator: &Operator, record: &LogRecord<'a>) -> Value<'a> {
    match operator {
        Operator::StartTime(format) => time(format.as_deref(), record.start),
        Operator::EmitTime(format) => time(format.as_deref(), SystemTime::now()),
        Operator::Protocol => text(record.protocol.map(protocol)),
        Operator::RequestMethod => text(record.method),
        Operator::RequestPath => text(record.path),
        Operator::ResponseCode => Value::Number(record.response_code.unwrap_or(0).into()),
        Operator::ResponseCodeDetails { whitespace } => match record.response_code_details {
            Some(details) if !whitespace && details.contains(char::is_whitespace) => {
                Value::Owned(details.replace(char::is_whitespace, "_").into_bytes())
            }
            details => text(details),
        },
        Operator::ResponseFlags => flags(record, false),
        Operator::ResponseFlagsLong => flags(record, true),
        Operator::BytesReceived => Value::Number(record.bytes_received),
        Operator::BytesSent => Value::Number(record.bytes_sent),
        Operator::Duration => millis(record.duration),
        Operator::RequestDuration => millis(record.request_duration),
        Operator::RequestTxDuration => millis(record.request_tx_duration),
        Operator::CommonDuration(from, to, unit) => between(*from, *to, *unit, record),
        Operator::ResponseDuration => millis(record.response_duration),
        Operator::ResponseTxDuration => millis(record.response_tx_duration),
        Operator::UpstreamHost => address(record.upstream_host.as_ref()),
        Operator::UpstreamCluster => text(record.upstream_cluster),
        Operator::UpstreamClusterRaw => text(record.upstream_cluster_name),
        Operator::UpstreamHostName => match record.upstream_host_name {
            Some(name) => text(Some(name)),
            None => address(record.upstream_host.as_ref()),
        },
        Operator::UpstreamHostNameWithoutPort => match record.upstream_host_name {
            Some(name) => text(Some(without_port(name))),
            None => ip(record.upstream_host.as_ref()),
        },
        Operator::UpstreamProtocol => {
            text(record.upstream.and_then(|upstream| upstream.protocol).map(protocol))
        }
        Operator::UpstreamConnectionId => Value::Number(record.upstream.map_or(0, |it| it.id)),
        Operator::UpstreamLocalAddress => socket(record.upstream.and_then(|it| it.local)),
        Operator::UpstreamLocalAddressWithoutPort => {
            socket_ip(record.upstream.and_then(|it| it.local))
        }
        Operator::UpstreamLocalPort => socket_port(record.upstream.and_then(|it| it.local)),
        Operator::UpstreamRemoteAddress => address(record.upstream.map(|it| it.remote)),
        Operator::UpstreamRemoteAddressWithoutPort => ip(record.upstream.map(|it| it.remote)),
        Operator::UpstreamRemotePort => port(record.upstream.map(|it| it.remote)),
        Operator::UpstreamTlsVersion => text(record.upstream.and_then(|it| it.tls_version)),
        Operator::UpstreamTlsGroup => text(record.upstream.and_then(|it| it.tls_group)),
        Operator::UpstreamTlsCipher => text(record.upstream.and_then(|it| it.tls_cipher)),
        Operator::UpstreamTransportFailureReason => {
            match record.upstream_transport_failure_reason {
                Some(reason) if reason.contains(' ') => {
                    Value::Owned(reason.replace(' ', "_").into_bytes())
                }
                reason => text(reason),
            }
        }
        Operator::UpstreamRequestAttemptCount => Value::Number(record.attempt_count.into()),
        Operator::LocalReplyBody => Value::Text(record.local_reply_body),
        Operator::ConnectionTerminationDetails => text(record.connection_termination_details),
        Operator::DownstreamRemoteAddress => address(record.downstream_remote.as_ref()),
        Operator::DownstreamRemoteAddressWithoutPort => ip(record.downstream_remote.as_ref()),
        Operator::DownstreamDirectRemoteAddress => {
            address(record.downstream_direct_remote.as_ref())
        }
        Operator::DownstreamDirectRemoteAddressWithoutPort => {
            ip(record.downstream_direct_remote.as_ref())
        }
        Operator::DownstreamLocalAddress => address(record.downstream_local.as_ref()),
        Operator::DownstreamLocalAddressWithoutPort => ip(record.downstream_local.as_ref()),
        Operator::DownstreamRemotePort => port(record.downstream_remote.as_ref()),
        Operator::DownstreamDirectRemotePort => port(record.downstream_direct_remote.as_ref()),
        Operator::DownstreamLocalPort => port(record.downstream_local.as_ref()),
        Operator::Certificate(whose, field) => {
            let certificate = match whose {
                Whose::DownstreamPeer => record.downstream_peer,
                Whose::DownstreamLocal => record.downstream_own,
                Whose::UpstreamPeer => record.upstream.and_then(|upstream| upstream.peer),
            };
            certificate.map_or(Value::Missing, |certificate| of_certificate(field, certificate))
        }
        Operator::DownstreamTlsGroup => text(record.downstream_tls_group),
        Operator::DownstreamTlsVersion => text(record.downstream_tls_version),
        Operator::DownstreamTlsCipher => text(record.downstream_tls_cipher),
        Operator::RequestedServerName => text(record.requested_server_name),
        Operator::RouteName => text(record.route_name),
        Operator::VirtualClusterName => text(record.virtual_cluster_name),
        Operator::FilterChainName => text(record.filter_chain_name),
        Operator::ConnectionId => record.connection_id.map_or(Value::Missing, Value::Number),
        Operator::StreamId => text(record.stream_id),
        Operator::Hostname => text(Some(hostname())),
        Operator::GrpcStatus => grpc_status(record.grpc_status, false),
        Operator::GrpcStatusSnake => grpc_status(record.grpc_status, true),
        Operator::AccessLogType => text(Some(record.log_type.name())),
        Operator::UniqueId => Value::Owned(unique_id().into_bytes()),
        Operator::Path { query, which } => path(*query, *which, record),
        Operator::QueryParam(name) => query_parameter(name, record),
        Operator::QueryParams { decoded } => query_parameters(*decoded, record),
        Operator::RequestHeadersBytes => Value::Number(record.request_headers_bytes),
        Operator::ResponseHeadersBytes => Value::Number(record.response_headers_bytes),
        Operator::ResponseTrailersBytes => Value::Number(record.response_trailers_bytes),
        Operator::Attempted(what) => attempted(*what, record),
        Operator::EndpointId(side) => endpoint_id(*side, record),
        Operator::Coalesce(commands) => coalesce(commands, record),
        Operator::TraceId => text(record.trace_id),
        Operator::SpanId => text(record.span_id),
        Operator::Zero => Value::Number(0),
        Operator::Metadata(whose, namespace, path) => metadata(*whose, namespace, path, record),
        Operator::FilterState { key, quoted } => {
            match record.filter_state.and_then(|state| state.at(key)) {
                None => Value::Missing,
                Some(text) if *quoted => Value::State(text),
                Some(text) => Value::Text(text.text.as_bytes()),
            }
        }
        Operator::CustomFlags => Value::Text(b""),
        Operator::GrpcStatusNumber => {
            record.grpc_status.map_or(Value::Missing, |status| Value::Number(status.into()))
        }
        Operator::Req(first, second) => {
            either(first, second.as_ref(), |name| header(name, record, record.request_headers))
        }
        Operator::Resp(first, second) => {
            either(first, second.as_ref(), |name| header(name, record, record.response_headers))
        }
        Operator::Trailer(first, second) => either(first, second.as_ref(), |name| {
            record.response_trailers.get(name).map(|value| Value::Text(value.as_bytes()))
        }),
    }
}

/// The first that has a value.
fn coalesce<'a>(commands: &[Command], record: &LogRecord<'a>) -> Value<'a> {
    let one = |command: &Command| match (value(&command.operator, record), command.max_length) {
        (Value::Missing, _) => None,
        (Value::Text(text), Some(length)) => Some(Value::Text(text.get(..length).unwrap_or(text))),
        (Value::Owned(mut text), Some(length)) => {
            text.truncate(length);
            Some(Value::Owned(text))
        }
        (value, _) => Some(value),
    };
    commands.iter().find_map(one).unwrap_or(Value::Missing)
}

/// A null is no value, as in Envoy.
fn metadata<'a>(
    whose: MetadataOf,
    namespace: &str,
    path: &[Box<str>],
    record: &LogRecord<'a>,
) -> Value<'a> {
    let found = match whose {
        MetadataOf::Request => record.dynamic_metadata.and_then(|it| it.value(namespace, path)),
        MetadataOf::Route => record.route_metadata.and_then(|it| it.value(namespace, path)),
        MetadataOf::Cluster => record.cluster_metadata.and_then(|it| it.value(namespace, path)),
        MetadataOf::Endpoint => {
            let metadata = record.upstream_metadata.map(ArcSwap::load);
            let found = metadata.as_ref().and_then(|it| it.value(namespace, path));
            return found
                .filter(|value| !value.is_null())
                .map_or(Value::Missing, |value| Value::Json(value.clone(), false));
        }
    };
    found
        .filter(|value| !value.is_null())
        .map_or(Value::Missing, |value| Value::Json(value.clone(), false))
}

fn either<'a, N>(
    first: &N,
    second: Option<&N>,
    get: impl Fn(&N) -> Option<Value<'a>>,
) -> Value<'a> {
    get(first).or_else(|| get(second?)).unwrap_or(Value::Missing)
}

fn header<'a>(
    name: &HeaderOrPseudo,
    record: &LogRecord<'a>,
    headers: Headers<'a>,
) -> Option<Value<'a>> {
    let text = |text: Option<&'a str>| text.map(|text| Value::Text(text.as_bytes()));
    match name {
        HeaderOrPseudo::Header(name) => {
            headers.get(name).map(|value| Value::Text(value.as_bytes()))
        }
        HeaderOrPseudo::Method => text(record.method),
        HeaderOrPseudo::Path => text(record.path),
        HeaderOrPseudo::Authority => text(record.authority),
        HeaderOrPseudo::Scheme => text(record.scheme),
        HeaderOrPseudo::Status => {
            record.response_code.map(|code| Value::Owned(code.to_string().into_bytes()))
        }
    }
}

pub(super) fn text(text: Option<&str>) -> Value<'_> {
    match text {
        Some(text) if !text.is_empty() => Value::Text(text.as_bytes()),
        _ => Value::Missing,
    }
}

pub(super) fn list<'a>(names: &[Box<str>]) -> Value<'a> {
    match names {
        [] => Value::Missing,
        names => Value::Owned(names.join(",").into_bytes()),
    }
}

fn flags<'a>(record: &LogRecord<'a>, long: bool) -> Value<'a> {
    let mut names = record.flags.names(long);
    let Some(first) = names.next() else { return Value::Text(b"-") };
    let mut rest = names.peekable();
    if rest.peek().is_none() {
        return Value::Text(first.as_bytes());
    }
    let mut out = first.as_bytes().to_vec();
    for name in rest {
        out.push(b',');
        out.extend_from_slice(name.as_bytes());
    }
    Value::Owned(out)
}

/// Whole milliseconds, rounded down.
fn millis<'a>(duration: Option<Duration>) -> Value<'a> {
    duration.map_or(Value::Missing, |duration| {
        Value::Number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    })
}

pub(super) fn address<'a>(address: Option<&Address>) -> Value<'a> {
    match address {
        Some(Address::Pipe(path)) => Value::Owned(path.as_bytes().to_vec()),
        Some(Address::Ip(address)) => socket(Some(*address)),
        None => Value::Missing,
    }
}

fn socket<'a>(address: Option<SocketAddr>) -> Value<'a> {
    let Some(address) = address else { return Value::Missing };
    let mut out = Vec::with_capacity(24);
    push_address(&mut out, address);
    Value::Owned(out)
}

fn push_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            push_ipv4(out, ip.octets());
            out.push(b':');
            push_number(out, address.port().into());
        }
        IpAddr::V6(ip) => out.extend_from_slice(format!("[{ip}]:{}", address.port()).as_bytes()),
    }
}

pub(super) fn ip<'a>(address: Option<&Address>) -> Value<'a> {
    match address {
        // It has no port that could be left out.
        Some(Address::Pipe(path)) => Value::Owned(path.as_bytes().to_vec()),
        other => socket_ip(other.and_then(Address::socket)),
    }
}

fn socket_ip<'a>(address: Option<SocketAddr>) -> Value<'a> {
    let Some(address) = address else { return Value::Missing };
    match address.ip() {
        IpAddr::V4(ip) => {
            let mut out = Vec::with_capacity(16);
            push_ipv4(&mut out, ip.octets());
            Value::Owned(out)
        }
        IpAddr::V6(ip) => Value::Owned(ip.to_string().into_bytes()),
    }
}

fn push_ipv4(out: &mut Vec<u8>, octets: [u8; 4]) {
    for (at, octet) in octets.into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        push_number(out, octet.into());
    }
}

/// Appends a decimal number.
pub(super) fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn grpc_status<'a>(status: Option<u32>, snake: bool) -> Value<'a> {
    const NAMES: [(&str, &str); 17] = [
        ("OK", "OK"),
        ("Canceled", "CANCELLED"),
        ("Unknown", "UNKNOWN"),
        ("InvalidArgument", "INVALID_ARGUMENT"),
        ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
        ("NotFound", "NOT_FOUND"),
        ("AlreadyExists", "ALREADY_EXISTS"),
        ("PermissionDenied", "PERMISSION_DENIED"),
        ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
        ("FailedPrecondition", "FAILED_PRECONDITION"),
        ("Aborted", "ABORTED"),
        ("OutOfRange", "OUT_OF_RANGE"),
        ("Unimplemented", "UNIMPLEMENTED"),
        ("Internal", "INTERNAL"),
        ("Unavailable", "UNAVAILABLE"),
        ("DataLoss", "DATA_LOSS"),
        ("Unauthenticated", "UNAUTHENTICATED"),
    ];
    let Some(status) = status else { return Value::Missing };
    match NAMES.get(status as usize) {
        Some((camel, shouted)) => {
            Value::Text(if snake { shouted.as_bytes() } else { camel.as_bytes() })
        }
        None => Value::Owned(status.to_string().into_bytes()),
    }
}

pub(super) fn time<'a>(format: Option<&str>, at: SystemTime) -> Value<'a> {
    let mut out = Vec::with_capacity(24);
    match format {
        None => time_format::default(at, &mut out),
        Some(format) => time_format::custom(format, at, &mut out),
    }
    Value::Owned(out)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

fn port<'a>(address: Option<&Address>) -> Value<'a> {
    match address {
        // Nothing, and not a missing value, as in Envoy.
        Some(Address::Pipe(_)) => Value::Text(b""),
        other => socket_port(other.and_then(Address::socket)),
    }
}

fn socket_port<'a>(address: Option<SocketAddr>) -> Value<'a> {
    address.map_or(Value::Missing, |at| Value::Number(at.port().into()))
}

/// A host without the port behind it.
pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The name of this machine.
fn hostname() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}
