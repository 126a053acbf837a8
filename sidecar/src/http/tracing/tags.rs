//! What spans say, in the names of Envoy's tags.

use http::Version;

use crate::access_log::{LogRecord, tag_value};
use crate::config::tracing::CustomTag;
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
    route: Option<&[CustomTag]>,
    manager: &[CustomTag],
) {
    let own = route.unwrap_or_default();
    let inherited = manager.iter().filter(|tag| !own.iter().any(|other| other.tag == tag.tag));
    for CustomTag { tag, value } in own.iter().chain(inherited) {
        if let Some(value) = tag_value(value, record) {
            span.set(tag.to_string(), value);
        }
    }
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
