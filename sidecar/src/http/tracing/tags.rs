//! What spans say, in the names of Envoy's tags.

use http::Version;
use serde_json::Value;

use crate::access_log::{LogRecord, render};
use crate::config::access_log::Format;
use crate::config::route::Route;
use crate::config::tracing::{CustomTag, TagMetadata, TagValue};
use crate::trace::{Kind, Span};

/// gRPC statuses that are errors of a server and not of its caller.
const GRPC_ERRORS: [u32; 6] = [2, 4, 12, 13, 14, 15];

/// What every span says, of a request or of one attempt.
pub(super) fn common(span: &mut Span, record: &LogRecord<'_>) {
    span.set("component", "proxy");
    if let (Some(observed), Some(name)) = (record.upstream_cluster, record.upstream_cluster_name) {
        span.set("upstream_cluster", name);
        span.set("upstream_cluster.name", observed);
    }
    let status = record.response_code.unwrap_or(0);
    span.set("http.status_code", status.to_string());
    span.set("response_flags", flags(record));
    if status == 0 || status >= 500 {
        span.set("error", "true");
    }
    span.failed = match span.kind {
        Kind::Server => status >= 500,
        // OpenTelemetry's rule for HTTP: a client's request failed with any error.
        Kind::Client => status >= 400,
    };
}

/// What a gRPC response says, in its trailers or its headers.
pub(super) fn grpc_response(span: &mut Span, headers: &http::HeaderMap) {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(status) = text("grpc-status") {
        span.set("grpc.status_code", status);
        let code = status.parse().ok();
        if code.is_some_and(|code| GRPC_ERRORS.contains(&code)) {
            span.set("error", "true");
        }
        span.failed |= code.is_some_and(|code| match span.kind {
            Kind::Server => GRPC_ERRORS.contains(&code),
            Kind::Client => code != 0,
        });
    }
    if let Some(message) = text("grpc-message") {
        span.set("grpc.message", message);
    }
}

/// Tags that are configured: those of the route, then those of the connection manager that the route does not have.
pub(super) fn custom(
    span: &mut Span,
    record: &LogRecord<'_>,
    route: Option<&Route>,
    manager: &[CustomTag],
) {
    let own = route.and_then(|route| route.tracing.as_ref());
    let own = own.map_or(&[][..], |tracing| &tracing.custom_tags);
    let inherited = manager.iter().filter(|tag| !own.iter().any(|other| other.tag == tag.tag));
    for CustomTag { tag, value } in own.iter().chain(inherited) {
        if let Some(value) = tag_value(value, record, route) {
            span.set(tag.to_string(), value);
        }
    }
}

fn tag_value(value: &TagValue, record: &LogRecord<'_>, route: Option<&Route>) -> Option<String> {
    let or_else = |default: &Option<Box<str>>| default.as_ref().map(|value| value.to_string());
    let filled = |format| Some(filled(format, record)).filter(|text| !text.is_empty());
    match value {
        TagValue::Fixed(value) => or_else(value),
        TagValue::RequestHeader(name, default) => {
            let value = record.request_headers.get(name);
            let value = value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            value.or_else(|| or_else(default))
        }
        TagValue::Format(format) => filled(format),
        TagValue::Metadata(TagMetadata::Format(format), default) => {
            filled(format).or_else(|| or_else(default))
        }
        TagValue::Metadata(TagMetadata::Route(namespace, path), default) => {
            let value = route.and_then(|route| route.metadata.value(namespace, path));
            let value = match value {
                None | Some(Value::Null) => None,
                Some(Value::String(text)) => Some(text.clone()),
                Some(value) => Some(value.to_string()),
            };
            value.or_else(|| or_else(default))
        }
    }
}

/// A format with its values; what is not known leaves no trace.
pub(super) fn filled(format: &Format, record: &LogRecord<'_>) -> String {
    let mut text = Vec::new();
    render(format, record, b"", &mut text);
    String::from_utf8(text)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn flags(record: &LogRecord<'_>) -> String {
    let names: Vec<&str> = record.flags.names(false).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

pub(super) fn protocol(version: Option<Version>) -> &'static str {
    match version {
        None => "-",
        Some(Version::HTTP_10) => "HTTP/1.0",
        Some(Version::HTTP_2) => "HTTP/2",
        Some(_) => "HTTP/1.1",
    }
}
