//! HTTP: a request, and which response is good.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::client::{self, HttpClient, Question, USER_AGENT, ask, chain, mutate};
use super::judge::{Failure, FailureKind, Passed};
use super::payload::has_in_order;
use super::{Plan, Target};
use crate::config::health_check::HttpCheck;

const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");
const FAIL_AT_ONCE: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");
const HEALTH_CHECKED: HeaderName =
    HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");

pub(super) async fn check(
    kept: &mut Option<HttpClient>,
    plan: &Plan,
    target: &Target,
    check: &HttpCheck,
) -> Result<Passed, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, USER_AGENT);
    mutate(&mut headers, &check.headers);
    let may_have_body =
        !matches!(check.method, Method::GET | Method::HEAD | Method::DELETE | Method::TRACE);
    if may_have_body && check.send.is_empty() && !check.http2 {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let question = Question {
        method: check.method.clone(),
        path: check.path.clone(),
        headers,
        host: client::host(plan, target, check.host.as_ref()),
        body: check.send.clone(),
        announces_length: true,
        http2: check.http2,
    };
    let response = ask(kept, plan, target, &question).await?;
    let (head, body) = response.into_parts();
    let body = read(body, if check.receive.is_empty() { 0 } else { check.response_buffer });
    let body = match body.await {
        Ok(body) => body,
        Err(failure) => {
            *kept = None;
            return Err(failure);
        }
    };
    judge(plan, check, &Response::from_parts(head, body))
}

/// Reads a body to its end and keeps the first bytes.
async fn read(mut body: Incoming, most: usize) -> Result<Vec<u8>, Failure> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::network(chain(&error)))?;
        let Some(data) = frame.data_ref() else { continue };
        let room = most.saturating_sub(read.len()).min(data.len());
        read.extend(data.iter().take(room));
    }
    Ok(read)
}

fn judge(plan: &Plan, check: &HttpCheck, response: &Response<Vec<u8>>) -> Result<Passed, Failure> {
    let status = response.status();
    let headers = response.headers();
    let failed = |kind, reason: String| {
        let excluded = headers.contains_key(FAIL_AT_ONCE);
        Failure { excluded, status: status.as_u16(), ..Failure::new(kind, reason) }
    };
    if !has_in_order(response.body(), &check.receive) {
        let reason = format!("the response, of status {}, lacks what is expected", status.as_u16());
        return Err(failed(FailureKind::Answer, reason));
    }
    let within = |ranges: &[std::ops::Range<u16>]| {
        ranges.iter().any(|range| range.contains(&StatusCode::as_u16(&status)))
    };
    if !within(&check.expected) {
        let retriable = within(&check.retriable);
        let kind = if retriable { FailureKind::Retriable } else { FailureKind::Answer };
        return Err(failed(kind, format!("status {}", status.as_u16())));
    }
    if let Some(matcher) = &check.service_name {
        plan.stats.local().verify_cluster.inc();
        let name = headers.get(HEALTH_CHECKED).map_or(&b""[..], |name| name.as_bytes());
        if !matcher.matches(name) {
            let name = String::from_utf8_lossy(name);
            return Err(Failure::answer(format!("it is {name:?}, which is another service")));
        }
    }
    Ok(Passed { degraded: headers.contains_key(DEGRADED) })
}
