//! A CONNECT that ends here: its bytes go to an endpoint over a TCP (or TLS) connection of their own, and the endpoint's come
//! back. Where the route allows it, the body of a POST is such bytes as well (`allow_post`).

use std::future::ready;

use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::attempt::Attempt;
use super::body::RequestBody;
use super::exchange::Exchange;
use super::headers;
use super::limits::within;
use super::router::{Answer, Refusal};
use super::timeout::Timer;
use super::tunnel::{BytesBody, Tunnel, Tunnelling};
use super::upgrade::refused;
use crate::transport::Transport;
use crate::upstream::pool::Pending;
use crate::upstream::{ConnectionFacts, Failure, connect};

/// Connects to an endpoint and carries the bytes.
pub(crate) async fn run(
    tunnelling: Tunnelling<'_>,
    exchange: &mut Exchange,
    request: &mut Parts,
    body: RequestBody,
) -> Result<Answer, Refusal> {
    let connection = tunnelling.connection;
    let client = match request.extensions.remove::<OnUpgrade>() {
        None if request.method == Method::CONNECT => return Err(refused(StatusCode::BAD_REQUEST)),
        client => client.filter(|_| request.method == Method::CONNECT),
    };
    let mut attempt = tunnelling.begin(exchange, request)?;
    let mut timer = Timer::new(&connection.local.timers);
    let host = headers::host_of(&request.headers);
    let began = Instant::now();
    let connecting = open(&attempt, host);
    let transport =
        match within(connecting, &mut timer, exchange, tunnelling.limits, Some(began)).await {
            Ok(Ok(transport)) => transport,
            Ok(Err(failure)) => return Err(tunnelling.failed(&mut attempt, &failure, exchange)),
            Err(expired) => return Err(tunnelling.timed_out(&mut attempt, expired, exchange)),
        };
    if let Some(facts) = &mut exchange.facts {
        facts.sending_since = Some(began);
        facts.upstream =
            Some((ConnectionFacts::of(&transport, &attempt.pool().endpoint).into(), None));
    }
    attempt.connected();
    attempt.is_taken(StatusCode::OK);
    exchange.status = StatusCode::OK.as_u16();
    exchange.details = "via_upstream".into();
    let mut head = Response::new(());
    let deadlines = tunnelling.limits.of_response();
    let Some(client) = client else {
        if !connection.manager.config.suppress_envoy_headers {
            let milliseconds = headers::number(attempt.elapsed_milliseconds());
            head.headers_mut().insert(headers::X_ENVOY_UPSTREAM_SERVICE_TIME, milliseconds);
        }
        tunnelling.respond(head.headers_mut(), exchange);
        let body = BytesBody::new(transport, body, attempt, timer, deadlines);
        return Ok(Answer::Bytes(head, body));
    };
    tunnelling.respond(head.headers_mut(), exchange);
    exchange.capture_response(head.headers_mut());
    Tunnel::start(client, ready(Ok(transport)), exchange, attempt, deadlines);
    Ok(Answer::Tunnel(head))
}

/// A connection for this request alone. It counts as Envoy's pools of TCP connections count.
async fn open(attempt: &Attempt, host: &str) -> Result<Transport, Failure> {
    let (cluster, priority) = (attempt.cluster(), attempt.priority());
    let breaker = cluster.breaker(priority);
    if !breaker.try_pending() {
        return Err(Failure::Overflow);
    }
    let _pending = Pending::begin(cluster, priority);
    if !breaker.try_connection() {
        return Err(Failure::Overflow);
    }
    let pool = attempt.pool();
    connect::connect(cluster, &pool.endpoint, priority, host, &[], pool.client_ends()).await
}
