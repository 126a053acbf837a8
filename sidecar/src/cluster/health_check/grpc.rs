//! gRPC: `grpc.health.v1.Health/Check`.
//!
//! Reference: the gRPC health checking protocol.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use prost::Message;

use super::client::{self, HttpClient, Question, USER_AGENT, ask, chain, mutate};
use super::judge::{Failure, Passed};
use super::{Plan, Target};
use crate::config::health_check::GrpcCheck;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Longest answer: it holds one number.
const MAX_ANSWER: usize = 4096;

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `HealthCheckResponse.ServingStatus.SERVING`
const SERVING: i32 = 1;

pub(super) async fn check(
    kept: &mut Option<HttpClient>,
    plan: &Plan,
    target: &Target,
    check: &GrpcCheck,
) -> Result<Passed, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::USER_AGENT, USER_AGENT);
    mutate(&mut headers, &check.headers);
    // Eight digits at most, as the protocol has it.
    let timeout = plan.config.timeout.as_millis().min(99_999_999);
    if let Ok(timeout) = HeaderValue::try_from(format!("{timeout}m")) {
        headers.insert(TIMEOUT, timeout);
    }
    let question = Question {
        method: Method::POST,
        path: PathAndQuery::from_static("/grpc.health.v1.Health/Check"),
        headers,
        host: client::host(plan, target, check.authority.as_ref()),
        body: framed(&CheckRequest { service: check.service.to_string() }),
        announces_length: false,
        http2: true,
    };
    let response = ask(kept, plan, target, &question).await?;
    let (head, mut body) = response.into_parts();
    let in_headers = head.headers.get(STATUS).cloned();
    if head.status != StatusCode::OK {
        return Err(Failure::answer(match &in_headers {
            Some(status) => status_text(status),
            None => format!("HTTP status {}", head.status.as_u16()),
        }));
    }
    let content_type = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !content_type.is_some_and(is_grpc) {
        return Err(Failure::answer("the response is not gRPC"));
    }
    let mut answer = BytesMut::new();
    let mut status = None;
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| Failure::network(chain(&error)))?.into_data() {
            Ok(data) if answer.len() + data.len() > MAX_ANSWER => {
                return Err(Failure::answer("the response is too long"));
            }
            Ok(data) => answer.put(data),
            Err(frame) => status = frame.trailers_ref().and_then(|it| it.get(STATUS)).cloned(),
        }
    }
    match status.or(in_headers) {
        Some(status) if status == "0" => serving(&answer),
        Some(status) => Err(Failure::answer(status_text(&status))),
        None => Err(Failure::answer("the response has no grpc-status")),
    }
}

fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| rest.first().is_none_or(|next| *next == b'+' || *next == b';'))
}

fn status_text(status: &HeaderValue) -> String {
    format!("grpc-status {}", String::from_utf8_lossy(status.as_bytes()))
}

/// A message with its length in front, not compressed.
fn framed(message: &CheckRequest) -> Bytes {
    let body = message.encode_to_vec();
    let mut framed = BytesMut::with_capacity(5 + body.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    framed.put_slice(&body);
    framed.freeze()
}

/// Whether the one message of the answer says SERVING.
fn serving(answer: &[u8]) -> Result<Passed, Failure> {
    let [0, a, b, c, d, message @ ..] = answer else {
        return Err(Failure::answer("the response has no message that can be read"));
    };
    let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
    if length != message.len() {
        return Err(Failure::answer("the response is not one message"));
    }
    match CheckResponse::decode(message) {
        Ok(CheckResponse { status: SERVING }) => Ok(Passed { degraded: false }),
        Ok(CheckResponse { status }) => Err(Failure::answer(match status {
            0 => "UNKNOWN".to_owned(),
            2 => "NOT_SERVING".to_owned(),
            3 => "SERVICE_UNKNOWN".to_owned(),
            other => format!("serving status {other}"),
        })),
        Err(error) => Err(Failure::answer(format!("the response cannot be decoded: {error}"))),
    }
}
