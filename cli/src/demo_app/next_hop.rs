//! Calling the next service in the chain, through the sidecar's outbound listener.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, Request, StatusCode};
use http_body_util::Full;
use outrigger_proto::demo::v1::RecordRequest;
use outrigger_proto::demo::v1::ledger_client::LedgerClient;
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};

use crate::http_pool::Pool;

/// Far above every timeout of the mesh, so that the mesh's answer is the one seen.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Whom to call and how.
#[derive(Debug)]
pub(super) enum NextHop {
    Http { pool: Pool, host: String },
    Grpc(LedgerClient<Channel>),
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Who answered, hop by hop: `x-api-version: v1`, `x-api-instance: api-2`, and why the mesh refused.
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Answer {
    fn failure(status: StatusCode, error: String) -> Self {
        Self { status, headers: HeaderMap::new(), body: json!({ "error": error }) }
    }
}

impl NextHop {
    pub(super) fn http(address: SocketAddr, host: String) -> Self {
        Self::Http { pool: Pool::new(address, TIMEOUT), host }
    }

    pub(super) fn grpc(address: SocketAddr, host: &str) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .origin(format!("http://{host}").parse().context("--next-host")?)
            .timeout(TIMEOUT)
            .connect_lazy();
        Ok(Self::Grpc(LedgerClient::new(channel)))
    }

    /// Calls it on behalf of a request with these headers and this path. Never fails: a failure is an answer too.
    pub(super) async fn call(&self, path: &str, incoming: &HeaderMap) -> Answer {
        match self {
            Self::Http { pool, host } => call_http(pool, host, path, incoming).await,
            Self::Grpc(client) => call_grpc(client.clone(), path, incoming).await,
        }
    }
}

async fn call_http(pool: &Pool, host: &str, path: &str, incoming: &HeaderMap) -> Answer {
    let mut request = match Request::get(path).header(HOST, host).body(Full::default()) {
        Ok(request) => request,
        Err(error) => return Answer::failure(StatusCode::BAD_REQUEST, error.to_string()),
    };
    for (name, value) in passed_on(incoming) {
        request.headers_mut().append(name, value.clone());
    }
    match pool.send(request).await {
        Ok(response) => {
            let (parts, body) = response.into_parts();
            let mut headers = HeaderMap::new();
            for (name, value) in &parts.headers {
                if is_trail(name) {
                    headers.append(name, value.clone());
                }
            }
            Answer { status: parts.status, headers, body: json_or_text(&body) }
        }
        Err(error) => Answer::failure(StatusCode::BAD_GATEWAY, error.to_string()),
    }
}

async fn call_grpc(mut client: LedgerClient<Channel>, path: &str, incoming: &HeaderMap) -> Answer {
    let mut request = tonic::Request::new(RecordRequest { entry: path.to_owned() });
    let mut headers = HeaderMap::new();
    for (name, value) in passed_on(incoming) {
        headers.append(name, value.clone());
    }
    *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
    match client.record(request).await {
        Ok(response) => {
            let recorded = response.into_inner();
            let mut headers = HeaderMap::new();
            for (name, value) in
                [("x-ledger-version", &recorded.version), ("x-ledger-instance", &recorded.instance)]
            {
                if let Ok(value) = value.parse() {
                    headers.insert(HeaderName::from_static(name), value);
                }
            }
            let body = json!({
                "service": "ledger",
                "instance": recorded.instance,
                "version": recorded.version,
                "sequence": recorded.sequence,
            });
            Answer { status: StatusCode::OK, headers, body }
        }
        Err(status) => {
            let mut answer = Answer::failure(
                http_status(status.code()),
                format!("ledger: {:?}: {}", status.code(), status.message()),
            );
            for (name, value) in status.metadata().as_ref() {
                if is_trail(name) {
                    answer.headers.append(name, value.clone());
                }
            }
            answer
        }
    }
}

/// The mapping of <https://grpc.io/docs/guides/status-codes/> as far as a mesh makes these.
fn http_status(code: tonic::Code) -> StatusCode {
    match code {
        tonic::Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        tonic::Code::PermissionDenied => StatusCode::FORBIDDEN,
        tonic::Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        tonic::Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        tonic::Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_GATEWAY,
    }
}

/// Request headers an application hands on: trace context and its callers' own, not what proxies write for one hop.
fn passed_on(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &http::HeaderValue)> {
    headers.iter().filter(|(name, _)| {
        let name = name.as_str();
        matches!(name, "traceparent" | "tracestate")
            || name.starts_with("x-")
                && !["x-forwarded-", "x-envoy-", "x-outrigger-"]
                    .iter()
                    .any(|own| name.starts_with(own))
    })
}

/// Response headers that tell who served, or why nobody did.
fn is_trail(name: &HeaderName) -> bool {
    let name = name.as_str();
    name == "x-outrigger-reason"
        || name.starts_with("x-") && (name.ends_with("-version") || name.ends_with("-instance"))
}

fn json_or_text(body: &Bytes) -> Value {
    serde_json::from_slice(body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
}
