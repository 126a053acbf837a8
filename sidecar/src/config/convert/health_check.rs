//! Active health checks.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};
use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::RequestMethod;
use outrigger_proto::envoy::config::core::v3::health_check::{self as proto, HealthChecker};
use outrigger_proto::envoy::config::endpoint::v3::endpoint::HealthCheckConfig;
use outrigger_proto::envoy::extensions::health_check::event_sinks::file::v3::HealthCheckEventFileSink;
use outrigger_proto::envoy::r#type::v3::{CodecClientType, Int64Range};
use outrigger_proto::google::protobuf::Duration as DurationProto;

use crate::config::Problems;
use crate::config::endpoint::{CheckTarget, Metadata};
use crate::config::header::{HeaderMutations, HeaderTemplate};
use crate::config::health_check::{Check, GrpcCheck, HealthCheck, HttpCheck, Pace, TcpCheck};

use super::common::{
    address, boolean, duration, enumeration, fingerprint, json_object, number,
    optional_header_value, positive_duration, required, text, typed_config, unknown_type, unpack,
    unsupported,
};
use super::{header, matcher};

/// In a cluster without traffic an endpoint is checked so often where nothing is set.
const DEFAULT_NO_TRAFFIC: Duration = Duration::from_secs(60);
/// So much of a response is looked at where nothing is set.
const DEFAULT_RESPONSE_BUFFER: usize = 1024;
/// Where the whole of a response is to be looked at: more is no answer to a health check.
const MAX_RESPONSE_BUFFER: usize = 1 << 20;

/// The field `health_checks`. As in Envoy there is one at most.
pub(super) fn convert(
    problems: &mut Problems,
    protos: Vec<core::HealthCheck>,
) -> Option<HealthCheck> {
    if protos.len() > 1 {
        problems.reject_field("health_checks", "more than one: a cluster has one health check");
    }
    let proto = protos.into_iter().next()?;
    problems.element("health_checks", 0, |problems| one(problems, proto))
}

fn one(problems: &mut Problems, proto: core::HealthCheck) -> Option<HealthCheck> {
    #[allow(deprecated)] // that is what the field is refused for
    let core::HealthCheck {
        timeout,
        interval,
        initial_jitter,
        interval_jitter,
        interval_jitter_percent,
        unhealthy_threshold,
        healthy_threshold,
        alt_port,
        reuse_connection,
        no_traffic_interval,
        no_traffic_healthy_interval,
        unhealthy_interval,
        unhealthy_edge_interval,
        healthy_edge_interval,
        event_log_path,
        event_logger,
        event_service,
        always_log_health_check_failures,
        always_log_health_check_success,
        tls_options,
        transport_socket_match_criteria,
        health_checker,
    } = proto;
    unsupported!(problems; event_service);
    let event_logs = event_logs(problems, event_log_path, event_logger);
    if alt_port.is_some() {
        problems.reject_field(
            "alt_port",
            "has no effect in Envoy: set health_check_config.port_value of the endpoints",
        );
    }
    let mut time = |name: &str, value: Option<DurationProto>, is_required: bool| {
        if is_required && value.is_none() {
            problems.reject_field(name, "required");
        }
        positive_duration(problems, name, value).map(milliseconds)
    };
    let timeout = time("timeout", timeout, true);
    let interval = time("interval", interval, true);
    let no_traffic =
        time("no_traffic_interval", no_traffic_interval, false).unwrap_or(DEFAULT_NO_TRAFFIC);
    let no_traffic_healthy =
        time("no_traffic_healthy_interval", no_traffic_healthy_interval, false);
    let unhealthy = time("unhealthy_interval", unhealthy_interval, false);
    let unhealthy_edge = time("unhealthy_edge_interval", unhealthy_edge_interval, false);
    let healthy_edge = time("healthy_edge_interval", healthy_edge_interval, false);
    let mut jitter = |name: &str, value: Option<DurationProto>| {
        duration(problems, name, value).map(milliseconds).unwrap_or_default()
    };
    let initial_jitter = jitter("initial_jitter", initial_jitter);
    let interval_jitter = jitter("interval_jitter", interval_jitter);
    let unhealthy_threshold = required(problems, "unhealthy_threshold", unhealthy_threshold);
    let healthy_threshold = required(problems, "healthy_threshold", healthy_threshold);
    let alpn = tls_options.map_or_else(Vec::new, |proto::TlsOptions { alpn_protocols }| {
        problems.field("tls_options", |problems| alpn(problems, alpn_protocols))
    });
    let transport_match = transport_socket_match_criteria.map(|criteria| {
        let object = serde_json::Value::Object(json_object(criteria));
        Metadata([("envoy.transport_socket_match".to_owned(), object)].into_iter().collect())
    });
    let check = checker(problems, health_checker);
    let interval = interval?;
    let unhealthy = unhealthy.unwrap_or(interval);
    let mut check = HealthCheck {
        check: check?,
        timeout: timeout?,
        unhealthy_threshold: number(unhealthy_threshold)?,
        healthy_threshold: number(healthy_threshold)?,
        reuse_connection: boolean(reuse_connection, true),
        pace: Pace {
            interval,
            no_traffic,
            no_traffic_healthy: no_traffic_healthy.unwrap_or(no_traffic),
            unhealthy,
            unhealthy_edge: unhealthy_edge.unwrap_or(unhealthy),
            healthy_edge: healthy_edge.unwrap_or(interval),
            initial_jitter,
            jitter: interval_jitter,
            jitter_percent: interval_jitter_percent,
        },
        event_logs,
        always_log_failures: always_log_health_check_failures,
        always_log_successes: always_log_health_check_success,
        alpn,
        transport_match,
        fingerprint: 0,
    };
    check.fingerprint = fingerprint(&check);
    Some(check)
}

/// The files of the field `event_logger`, and that of the older `event_log_path`.
fn event_logs(
    problems: &mut Problems,
    path: String,
    loggers: Vec<core::TypedExtensionConfig>,
) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    if !path.is_empty() {
        paths.push(PathBuf::from(path));
    }
    for (index, logger) in loggers.into_iter().enumerate() {
        problems.element("event_logger", index, |problems| {
            let Some(config) = typed_config(problems, logger) else { return };
            problems.field("typed_config", |problems| {
                if !any::holds::<HealthCheckEventFileSink>(&config) {
                    unknown_type(problems, &config, &["HealthCheckEventFileSink"]);
                    return;
                }
                let Some(sink) = unpack(problems, &config) else { return };
                let HealthCheckEventFileSink { event_log_path } = sink;
                paths.push(PathBuf::from(text(problems, "event_log_path", event_log_path)));
            });
        });
    }
    paths
}

/// Envoy counts these times in milliseconds. One that is set is never zero.
fn milliseconds(time: Duration) -> Duration {
    let whole = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    if time.is_zero() { time } else { whole.max(Duration::from_millis(1)) }
}

fn alpn(problems: &mut Problems, protocols: Vec<String>) -> Vec<Box<[u8]>> {
    for (index, protocol) in protocols.iter().enumerate() {
        problems.element("alpn_protocols", index, |problems| {
            if !(1..=255).contains(&protocol.len()) {
                problems.reject("must have 1 to 255 bytes");
            }
        });
    }
    protocols.into_iter().map(|protocol| protocol.into_bytes().into()).collect()
}

fn checker(problems: &mut Problems, proto: Option<HealthChecker>) -> Option<Check> {
    match proto {
        Some(HealthChecker::HttpHealthCheck(proto)) => problems
            .field("http_health_check", |problems| http(problems, proto))
            .map(|check| Check::Http(Box::new(check))),
        Some(HealthChecker::GrpcHealthCheck(proto)) => {
            Some(Check::Grpc(problems.field("grpc_health_check", |problems| grpc(problems, proto))))
        }
        Some(HealthChecker::TcpHealthCheck(proto)) => {
            Some(Check::Tcp(problems.field("tcp_health_check", |problems| tcp(problems, proto))))
        }
        Some(HealthChecker::CustomHealthCheck(_)) => {
            problems.unsupported("custom_health_check", true);
            None
        }
        None => {
            problems.reject(
                "one of http_health_check, tcp_health_check, grpc_health_check is required",
            );
            None
        }
    }
}

fn http(problems: &mut Problems, proto: proto::HttpHealthCheck) -> Option<HttpCheck> {
    let proto::HttpHealthCheck {
        host,
        path,
        send,
        receive,
        response_buffer_size,
        request_headers_to_add,
        request_headers_to_remove,
        expected_statuses,
        retriable_statuses,
        codec_client_type,
        service_name_matcher,
        method,
    } = proto;
    let host = optional_header_value(problems, "host", &host);
    let path = text(problems, "path", path);
    let parsed = PathAndQuery::try_from(path.as_str()).ok().filter(|_| path.starts_with('/'));
    if parsed.is_none() && !path.is_empty() {
        problems.reject_field("path", format!("{path:?} is not a path: it begins with a slash"));
    }
    let method =
        enumeration(problems, "method", method).and_then(|method| self::method(problems, method));
    let send = send.map(|proto| problems.field("send", |problems| payload(problems, proto)));
    let has_no_body = |method: &Method| {
        matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::TRACE)
    };
    if send.is_some() && method.as_ref().is_some_and(has_no_body) {
        problems.reject_field(
            "send",
            "set beside a method without a body: POST, PUT, PATCH, OPTIONS have one",
        );
    }
    let receive = payloads(problems, receive);
    let response_buffer = match response_buffer_size.map(|size| size.value) {
        None => DEFAULT_RESPONSE_BUFFER,
        Some(0) => MAX_RESPONSE_BUFFER,
        Some(size) => usize::try_from(size).unwrap_or(usize::MAX).min(MAX_RESPONSE_BUFFER),
    };
    let wanted: usize = receive.iter().map(Bytes::len).sum();
    if wanted > response_buffer {
        problems.reject_field(
            "receive",
            format!("{wanted} bytes do not fit into a response_buffer_size of {response_buffer}"),
        );
    }
    let headers =
        header::mutations(problems, "request", request_headers_to_add, request_headers_to_remove);
    only_fixed(problems, "request_headers_to_add", &headers);
    let mut expected = statuses(problems, "expected_statuses", expected_statuses);
    if expected.is_empty() {
        expected.push(200..201);
    }
    let http2 = match enumeration(problems, "codec_client_type", codec_client_type) {
        Some(CodecClientType::Http2) => true,
        Some(CodecClientType::Http3) => {
            problems.reject_field(
                "codec_client_type",
                "HTTP3 is not supported by this version of Outrigger: HTTP1, HTTP2",
            );
            false
        }
        Some(CodecClientType::Http1) | None => false,
    };
    let service_name = service_name_matcher.and_then(|proto| {
        problems.field("service_name_matcher", |problems| matcher::string(problems, proto))
    });
    Some(HttpCheck {
        host,
        path: parsed?,
        method: method?,
        headers,
        send: send.unwrap_or_default(),
        receive,
        response_buffer,
        expected,
        retriable: statuses(problems, "retriable_statuses", retriable_statuses),
        http2,
        service_name,
    })
}

fn method(problems: &mut Problems, method: RequestMethod) -> Option<Method> {
    Some(match method {
        RequestMethod::MethodUnspecified | RequestMethod::Get => Method::GET,
        RequestMethod::Head => Method::HEAD,
        RequestMethod::Post => Method::POST,
        RequestMethod::Put => Method::PUT,
        RequestMethod::Delete => Method::DELETE,
        RequestMethod::Options => Method::OPTIONS,
        RequestMethod::Trace => Method::TRACE,
        RequestMethod::Patch => Method::PATCH,
        RequestMethod::Connect => {
            problems.reject_field("method", "CONNECT is no method of a health check");
            return None;
        }
    })
}

fn statuses(problems: &mut Problems, name: &str, protos: Vec<Int64Range>) -> Vec<Range<u16>> {
    let mut ranges = Vec::with_capacity(protos.len());
    for (index, Int64Range { start, end }) in protos.into_iter().enumerate() {
        problems.element(name, index, |problems| {
            match (u16::try_from(start), u16::try_from(end)) {
                (Ok(start @ 100..), Ok(end @ ..=600)) if start < end => ranges.push(start..end),
                _ => problems.reject(format!(
                    "{start} to {end} is no range of statuses: start below end, within 100 to 600"
                )),
            }
        });
    }
    ranges
}

fn grpc(problems: &mut Problems, proto: proto::GrpcHealthCheck) -> GrpcCheck {
    let proto::GrpcHealthCheck { service_name, authority, initial_metadata } = proto;
    let authority = optional_header_value(problems, "authority", &authority);
    let headers = header::additions(problems, "initial_metadata", initial_metadata);
    only_fixed(problems, "initial_metadata", &headers);
    GrpcCheck { service: service_name.into(), authority, headers }
}

fn tcp(problems: &mut Problems, proto: proto::TcpHealthCheck) -> TcpCheck {
    let proto::TcpHealthCheck { send, receive, proxy_protocol_config } = proto;
    unsupported!(problems; proxy_protocol_config);
    let send = send.map(|proto| problems.field("send", |problems| payload(problems, proto)));
    TcpCheck { send: send.unwrap_or_default(), receive: payloads(problems, receive) }
}

/// There is no request of a client here that an operator could speak of.
fn only_fixed(problems: &mut Problems, name: &str, headers: &HeaderMutations) {
    for (index, addition) in headers.add.iter().enumerate() {
        if matches!(addition.value, HeaderTemplate::Format(_)) {
            problems.element(name, index, |problems| {
                problems.field("header", |problems| {
                    problems.reject_field(
                        "value",
                        "command operators are not supported by this version of Outrigger in health checks",
                    );
                });
            });
        }
    }
}

fn payloads(problems: &mut Problems, protos: Vec<proto::Payload>) -> Vec<Bytes> {
    let each = protos.into_iter().enumerate();
    each.map(|(index, proto)| {
        problems.element("receive", index, |problems| payload(problems, proto))
    })
    .collect()
}

fn payload(problems: &mut Problems, proto: proto::Payload) -> Bytes {
    use proto::payload::Payload;
    match proto.payload {
        Some(Payload::Binary(bytes)) => bytes.into(),
        Some(Payload::Text(hex)) => {
            let bytes = decode_hex(&hex).filter(|bytes| !bytes.is_empty());
            if bytes.is_none() {
                problems.reject_field("text", format!("{hex:?} is not a text in hexadecimal"));
            }
            bytes.unwrap_or_default().into()
        }
        None => {
            problems.reject("one of text, binary is required");
            Bytes::new()
        }
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let digits = text.as_bytes().chunks_exact(2);
    digits
        .map(|pair| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let both = pair.iter().try_fold(0, |sum, &byte| Some(sum * 16 + digit(byte)?))?;
            u8::try_from(both).ok()
        })
        .collect()
}

/// The field `health_check_config` of an endpoint.
pub(super) fn target(problems: &mut Problems, proto: HealthCheckConfig) -> Option<CheckTarget> {
    let HealthCheckConfig { port_value, hostname, address: place, disable_active_health_check } =
        proto;
    let port = u16::try_from(port_value);
    if port.is_err() {
        problems.reject_field("port_value", format!("{port_value} is not a port: 0 to 65535"));
    }
    let address = place
        .and_then(|proto| problems.field("address", |problems| address(problems, proto)))
        .map(|(address, _mode)| address);
    let hostname: Option<HeaderValue> = optional_header_value(problems, "hostname", &hostname);
    let target = CheckTarget {
        port: port.ok().filter(|port| *port > 0),
        address,
        hostname,
        is_disabled: disable_active_health_check,
    };
    (target != CheckTarget::default()).then_some(target)
}
