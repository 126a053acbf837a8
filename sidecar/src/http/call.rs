//! Requests of our own: for the keys of tokens, for the decisions of others. They go to a cluster like any other, through
//! its load balancer, its circuit breakers and its connections, and count in its statistics.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri, Version, response};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::attempt::Attempt;
use super::body::{RequestBody, Whole};
use super::failures::{count_failure, count_response, outcome_of};
use super::rewrite;
use crate::cluster::{Context, Outcome, RoutingPriority};
use crate::local::{ClusterRef, Local};
use crate::upstream::{Acquired, Failure, Protocol};

/// What comes back.
pub(crate) struct Answer {
    pub(crate) head: response::Parts,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// There is no such cluster, or nothing in it that could be asked.
    #[error("cluster {0:?} has no endpoint to ask")]
    Unavailable(String),
    /// A circuit breaker is open, or the endpoint could not be reached, or broke off.
    #[error("{}", .0.text())]
    Failed(Failure),
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
    /// The answer is longer than it may be.
    #[error("an answer of more than {0} bytes")]
    TooLong(usize),
}

/// Sends `request` to a cluster and waits for all of the answer, for `limit` and up to `most` bytes. The request has a
/// `Host`, and a target without one; `version` is what counts for a cluster that speaks as its client does.
pub(crate) async fn call(
    local: &Rc<Local>,
    cluster: &str,
    request: Request<Bytes>,
    version: Version,
    limit: Option<Duration>,
    most: usize,
) -> Result<Answer, CallError> {
    let (head, body) = request.into_parts();
    let body = if body.is_empty() {
        RequestBody::Empty
    } else {
        RequestBody::Whole(Box::new(Whole { data: body, trailers: None, announced: true }))
    };
    run(local, cluster, Request::from_parts(head, body), version, limit, most).await
}

/// The same with a body that comes piece by piece, and without a limit of time.
pub(crate) async fn converse(
    local: &Rc<Local>,
    cluster: &str,
    request: Request<RequestBody>,
    version: Version,
    most: usize,
) -> Result<Answer, CallError> {
    run(local, cluster, request, version, None, most).await
}

async fn run(
    local: &Rc<Local>,
    cluster: &str,
    request: Request<RequestBody>,
    version: Version,
    limit: Option<Duration>,
    most: usize,
) -> Result<Answer, CallError> {
    let unavailable = || CallError::Unavailable(cluster.to_owned());
    let view = local.view();
    let cluster = local.cluster_named(&view, cluster).and_then(|id| ClusterRef::new(&view, id));
    let cluster = cluster.ok_or_else(unavailable)?;
    let chosen = cluster.choose(&Context::default(), |endpoint| local.pools.get(endpoint));
    let Some((member, pool)) = chosen else {
        cluster.stats.local().upstream_cx_none_healthy.inc();
        return Err(unavailable());
    };
    let attempt = Attempt::begin(&cluster, member, pool, RoutingPriority::Default, true);
    let Some(mut attempt) = attempt else {
        return Err(CallError::Failed(Failure::Overflow));
    };
    let https = attempt.pool().endpoint.transport.is_some();
    let whole = whole(&mut attempt, request, version, https, Some(most));
    let result = match limit {
        None => whole.await,
        Some(limit) => timeout(limit, whole).await.unwrap_or(Err(CallError::TimedOut)),
    };
    match &result {
        Ok(answer) => attempt.complete_call(&answer.trailers),
        Err(CallError::TimedOut) => {
            attempt.timed_out();
            attempt.failed(Outcome::Timeout);
        }
        Err(CallError::Failed(failure)) => {
            count_failure(attempt.cluster(), failure);
            if let Some(outcome) = outcome_of(failure) {
                attempt.failed(outcome);
            }
        }
        Err(_) => {}
    }
    result
}

/// Sends a request of which nobody wants the answer. It is read all the same, so that its connection serves others.
pub(crate) async fn send_and_forget(
    local: &Rc<Local>,
    cluster: &ClusterRef,
    request: Request<RequestBody>,
    version: Version,
    https: bool,
    limit: Option<Duration>,
) -> Result<(), CallError> {
    let charge = |status| count_response(cluster, true, status);
    let chosen = cluster.choose(&Context::default(), |endpoint| local.pools.get(endpoint));
    let Some((member, pool)) = chosen else {
        cluster.stats.local().upstream_cx_none_healthy.inc();
        charge(StatusCode::SERVICE_UNAVAILABLE);
        return Err(CallError::Unavailable(cluster.name.to_string()));
    };
    let attempt = Attempt::begin(cluster, member, pool, RoutingPriority::Default, true);
    let Some(mut attempt) = attempt else {
        charge(StatusCode::SERVICE_UNAVAILABLE);
        return Err(CallError::Failed(Failure::Overflow));
    };
    let whole = whole(&mut attempt, request, version, https, None);
    let result = match limit {
        None => whole.await,
        Some(limit) => timeout(limit, whole).await.unwrap_or(Err(CallError::TimedOut)),
    };
    match result {
        Ok(answer) => attempt.complete_call(&answer.trailers),
        Err(CallError::TimedOut) => {
            charge(StatusCode::GATEWAY_TIMEOUT);
            attempt.timed_out();
            attempt.failed(Outcome::Timeout);
            return Err(CallError::TimedOut);
        }
        Err(error) => {
            if let CallError::Failed(failure) = &error {
                charge(StatusCode::SERVICE_UNAVAILABLE);
                count_failure(attempt.cluster(), failure);
                if let Some(outcome) = outcome_of(failure) {
                    attempt.failed(outcome);
                }
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Sends a request and reads all of the answer. Up to `most` bytes of it are kept; `None`: nothing is.
async fn whole(
    attempt: &mut Attempt,
    request: Request<RequestBody>,
    version: Version,
    https: bool,
    most: Option<usize>,
) -> Result<Answer, CallError> {
    let response = send(attempt, request, version, https).await.map_err(CallError::Failed)?;
    attempt.answered(&response, super::matching::is_grpc(response.headers()));
    attempt.is_taken(response.status());
    let (head, mut incoming) = response.into_parts();
    let mut data = BytesMut::new();
    let mut trailers = HeaderMap::new();
    loop {
        let next = poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await;
        let frame = match next {
            None => break,
            Some(Err(error)) => {
                let remote = crate::upstream::failure::h2_error(&error)
                    .is_some_and(|error| error.is_remote() && error.is_reset());
                attempt.reset_after_headers(remote);
                return Err(CallError::Failed(Failure::ConnectionTermination));
            }
            Some(Ok(frame)) => frame,
        };
        if let Some(piece) = frame.data_ref() {
            let Some(most) = most else { continue };
            if data.len() + piece.len() > most {
                attempt.keep_from_pool();
                return Err(CallError::TooLong(most));
            }
            data.extend_from_slice(piece);
        } else if let Ok(fields) = frame.into_trailers() {
            trailers = fields;
        }
    }
    Ok(Answer { head, body: data.freeze(), trailers })
}

/// As for requests of clients: one of which nothing was sent, because its connection was closed just then, goes to another.
async fn send(
    attempt: &mut Attempt,
    mut request: Request<RequestBody>,
    version: Version,
    https: bool,
) -> Result<Response<Incoming>, Failure> {
    let (pool, cluster) = (Rc::clone(attempt.pool()), attempt.cluster().clone());
    let protocol = Protocol::of(&cluster, &pool.endpoint, version);
    let host = request.headers().get(header::HOST).cloned();
    let host = host.unwrap_or(HeaderValue::from_static(""));
    let path = request.uri().path_and_query().cloned();
    let path = path.unwrap_or(PathAndQuery::from_static("/"));
    let mut fresh_failures = 0;
    loop {
        let acquired = match pool.take(&cluster, protocol) {
            Some(acquired) => acquired,
            None => {
                let name = host.to_str().unwrap_or_default();
                pool.wait(&cluster, protocol, RoutingPriority::Default, name).await?
            }
        };
        let used = acquired.was_used();
        let result = match attempt.use_connection(acquired) {
            Acquired::Http1(http1) => {
                *request.version_mut() = Version::HTTP_11;
                *request.uri_mut() = Uri::from(path.clone());
                request.headers_mut().insert(header::HOST, host.clone());
                rewrite::framing(&mut request);
                http1.sender.try_send_request(request).await
            }
            Acquired::Http2(shared) => {
                *request.version_mut() = Version::HTTP_2;
                request.headers_mut().remove(header::HOST);
                request.headers_mut().remove(header::TRANSFER_ENCODING);
                *request.uri_mut() = absolute(https, &host, &path);
                let sent = shared.connection.sender.borrow_mut().try_send_request(request);
                sent.await
            }
        };
        let mut error = match result {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(Failure::Protocol("101 without an upgrade".to_owned()));
            }
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        attempt.drop_connection();
        match error.take_message() {
            Some(unsent) if used || fresh_failures < 2 => {
                fresh_failures += u32::from(!used);
                request = unsent;
            }
            Some(_) => return Err(Failure::Connect(error.into_error().to_string())),
            None => return Err(Failure::of_request(&error.into_error())),
        }
    }
}

fn absolute(https: bool, host: &HeaderValue, path: &PathAndQuery) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if https { Scheme::HTTPS } else { Scheme::HTTP });
    // The name of a cluster, which is the host of a gRPC call by default, need not be one.
    let authority = Authority::try_from(host.as_bytes());
    parts.authority = Some(authority.unwrap_or_else(|_| Authority::from_static("localhost")));
    parts.path_and_query = Some(path.clone());
    // Cannot fail: all three are there.
    Uri::from_parts(parts).unwrap_or_else(|_| Uri::from(path.clone()))
}

/// What Envoy's own requests say of themselves.
pub(crate) fn mark(headers: &mut HeaderMap, limit: Option<Duration>) {
    headers.insert("x-envoy-internal", HeaderValue::from_static("true"));
    if let Some(limit) = limit {
        let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        headers.insert("x-envoy-expected-rq-timeout-ms", HeaderValue::from(milliseconds));
    }
}
