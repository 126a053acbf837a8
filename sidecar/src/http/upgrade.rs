//! Upgrades: a request that turns its connection, or its HTTP/2 stream, into a tunnel. WebSockets, as a rule; a CONNECT that
//! is forwarded does the same.
//!
//! Each side may speak either version: HTTP/1 upgrades with 101, HTTP/2 with extended CONNECT (RFC 8441). Not one byte
//! that the client sends behind its request goes to the endpoint before the endpoint has agreed; one that refuses gives an
//! ordinary response, after which the client's connection is closed, because what it sent behind the request may not be
//! HTTP (RFC 9931).

use std::rc::Rc;

use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::attempt::Attempt;
use super::body::RequestBody;
use super::connection_manager::Connection;
use super::exchange::Exchange;
use super::headers::{self, CONNECT};
use super::limits::within;
use super::local_reply::{LocalReply, Reason};
use super::rewrite;
use super::router::{Answer, Refusal};
use super::timeout::Timer;
use super::tunnel::{Tunnel, Tunnelling};
use super::upstream_body::UpstreamBody;
use crate::config::route::RouteAction;
use crate::upstream::{Acquired, Failure, Protocol};

const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");

/// Whether a request may ask for this upgrade: its route says so, or else the connection manager. As in Envoy that counts
/// before filters do, and also where the route forwards nothing; without a route the request has other troubles.
pub(crate) fn permit(
    connection: &Connection,
    action: Option<&RouteAction>,
    token: &str,
) -> Result<(), Refusal> {
    let of_route = match action {
        Some(RouteAction::Forward(action)) => &*action.upgrades,
        Some(RouteAction::Redirect(_) | RouteAction::DirectResponse { .. }) | None => &[],
    };
    let of_route = of_route.iter().find(|(name, _)| **name == *token).map(|(_, on)| *on);
    let of_manager = || {
        let mut upgrades = connection.manager.config.upgrades.iter();
        upgrades.any(|upgrade| *upgrade.token == *token && upgrade.enabled)
    };
    if of_route.unwrap_or_else(of_manager) {
        connection.stats().downstream_cx_upgrades_total.inc();
        return Ok(());
    }
    if action.is_none() {
        return Ok(());
    }
    connection.stats().downstream_rq_ws_on_non_ws_route.inc();
    Err(refused(StatusCode::FORBIDDEN))
}

/// Forwards an upgrade, or a CONNECT. There are no retries: the client may have sent more already.
pub(crate) async fn run(
    tunnelling: Tunnelling<'_>,
    exchange: &mut Exchange,
    request: &mut Parts,
) -> Result<Answer, Refusal> {
    let Tunnelling { connection, action, accepted, limits, .. } = tunnelling;
    let token = accepted.upgrade.as_deref().unwrap_or_default();
    let is_connect = request.method == Method::CONNECT;
    let Some(client) = request.extensions.remove::<OnUpgrade>() else {
        return Err(refused(StatusCode::BAD_REQUEST));
    };
    request.extensions.clear();

    let mut attempt = tunnelling.begin(exchange, request)?;
    let mut timer = Timer::new(&connection.local.timers);
    let envoy_headers = !connection.manager.config.suppress_envoy_headers;
    let mut outgoing = Request::new(RequestBody::Empty);
    *outgoing.method_mut() = request.method.clone();
    *outgoing.uri_mut() = std::mem::take(&mut request.uri);
    *outgoing.headers_mut() = std::mem::take(&mut request.headers);
    let endpoint = &attempt.pool().endpoint;
    rewrite::for_endpoint(action, tunnelling.literal_host, endpoint, &mut outgoing, envoy_headers);
    if envoy_headers && let Some(expected) = limits.expected(std::time::Duration::ZERO) {
        let value = connection.timeout_header(expected);
        outgoing.headers_mut().insert(headers::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, value);
    }
    if tunnelling.host.include_request_attempt_count {
        outgoing.headers_mut().insert(headers::X_ENVOY_ATTEMPT_COUNT, headers::number(1));
    }

    let sending = send(&mut attempt, outgoing, connection, token, accepted.https);
    let began = Instant::now();
    let mut response = match within(sending, &mut timer, exchange, limits, Some(began)).await {
        Ok(Ok(response)) => response,
        Ok(Err(Sent::Refused)) => return Err(refused(StatusCode::BAD_GATEWAY)),
        Ok(Err(Sent::Failed(failure))) => {
            return Err(tunnelling.failed(&mut attempt, &failure, exchange));
        }
        Err(expired) => return Err(tunnelling.timed_out(&mut attempt, expired, exchange)),
    };
    if let Some(facts) = &mut exchange.facts {
        facts.sending_since = Some(began);
        facts.upstream = attempt.connection_facts().map(|(facts, http2)| (facts, Some(http2)));
        facts.first_response_byte = Some(Instant::now());
    }
    let agreed = match response.version() {
        Version::HTTP_2 => response.status() == StatusCode::OK,
        _ if is_connect => response.status().is_success(),
        _ => response.status() == StatusCode::SWITCHING_PROTOCOLS,
    };
    let same = !agreed
        || is_connect
        || response.version() == Version::HTTP_2
        || response
            .headers()
            .get(header::UPGRADE)
            .is_some_and(|chosen| chosen.as_bytes().eq_ignore_ascii_case(token.as_bytes()));
    // The client would take any 2xx for the beginning of a tunnel.
    if !same || (is_connect && !agreed && response.status().is_success()) {
        let failure = Failure::Protocol("another upgrade than asked for".to_owned());
        return Err(tunnelling.failed(&mut attempt, &failure, exchange));
    }
    attempt.answered(&response, false);
    exchange.details = "via_upstream".into();

    if !agreed {
        attempt.is_taken(response.status());
        exchange.status = response.status().as_u16();
        // It saw an upgrade: it serves no other request.
        attempt.keep_from_pool();
        let (mut head, incoming) = response.into_parts();
        headers::clean_response(&mut head.headers);
        tunnelling.respond(&mut head.headers, exchange);
        head.version = Version::HTTP_11;
        head.extensions.clear();
        let deadlines = limits.of_response();
        let body = UpstreamBody::new(incoming, attempt, timer, deadlines, true);
        return Ok(Answer::Forwarded(Response::from_parts(head, ()), body));
    }

    let endpoint = hyper::upgrade::on(&mut response);
    let mut head = Response::new(());
    std::mem::swap(head.headers_mut(), response.headers_mut());
    headers::clean_response(head.headers_mut());
    head.headers_mut().remove(header::CONTENT_LENGTH);
    // To HTTP/2 clients the same is said with 200 (RFC 8441); logs and statistics have it as Envoy's.
    let status = if is_connect { response.status() } else { StatusCode::SWITCHING_PROTOCOLS };
    if is_connect {
        *head.status_mut() = status;
    }
    exchange.status = status.as_u16();
    attempt.is_taken(status);
    tunnelling.respond(head.headers_mut(), exchange);
    if !is_connect && connection.version() != Version::HTTP_2 {
        *head.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let token = HeaderValue::from_str(token).unwrap_or(HeaderValue::from_static("websocket"));
        head.headers_mut().insert(header::UPGRADE, token);
        head.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    exchange.capture_response(head.headers_mut());
    let endpoint = async { Ok(TokioIo::new(endpoint.await?)) };
    Tunnel::start(client, endpoint, exchange, attempt, limits.of_response());
    Ok(Answer::Tunnel(head))
}

pub(super) fn refused(status: StatusCode) -> Refusal {
    LocalReply::new(status, "", "upgrade_failed").because(Reason::UpgradeRefused).into()
}

/// Why there is no response.
enum Sent {
    Failed(Failure),
    /// The endpoint speaks HTTP/2 without extended CONNECT.
    Refused,
}

async fn send(
    attempt: &mut Attempt,
    mut request: Request<RequestBody>,
    connection: &Connection,
    token: &str,
    https: bool,
) -> Result<Response<Incoming>, Sent> {
    let (pool, cluster) = (Rc::clone(attempt.pool()), attempt.cluster().clone());
    let protocol = Protocol::of(&cluster, &pool.endpoint, connection.version());
    let is_connect = token == CONNECT && *request.method() == Method::CONNECT;
    loop {
        let acquired = match pool.take(&cluster, protocol) {
            Some(acquired) => acquired,
            None => {
                let host = headers::host_of(request.headers()).to_owned();
                pool.wait(&cluster, protocol, attempt.priority(), &host)
                    .await
                    .map_err(Sent::Failed)?
            }
        };
        let used = acquired.was_used();
        let invalid = || Sent::Failed(Failure::Protocol("the host is no target".to_owned()));
        let result = match attempt.use_connection(acquired) {
            Acquired::Http1(http1) if is_connect => {
                rewrite::for_connect(&mut request, connection, Version::HTTP_11)
                    .ok_or_else(invalid)?;
                http1.sender.try_send_request(request).await
            }
            Acquired::Http2(shared) if is_connect => {
                rewrite::for_connect(&mut request, connection, Version::HTTP_2)
                    .ok_or_else(invalid)?;
                let sent = shared.connection.sender.borrow_mut().try_send_request(request);
                sent.await
            }
            Acquired::Http1(http1) => {
                rewrite::for_http1(&mut request, connection);
                *request.method_mut() = Method::GET;
                request.extensions_mut().clear();
                let headers = request.headers_mut();
                let word =
                    if connection.version() == Version::HTTP_2 { "upgrade" } else { "Upgrade" };
                headers.insert(header::CONNECTION, HeaderValue::from_static(word));
                if let Ok(token) = HeaderValue::from_str(token) {
                    headers.insert(header::UPGRADE, token);
                }
                if token == "websocket" && !headers.contains_key(SEC_WEBSOCKET_KEY) {
                    // A client that speaks HTTP/2 has none.
                    headers.insert(SEC_WEBSOCKET_KEY, websocket_key());
                }
                http1.sender.try_send_request(request).await
            }
            Acquired::Http2(shared) => {
                let http2 = Rc::clone(&shared.connection);
                if !http2.takes_extended_connect().await {
                    return Err(Sent::Refused);
                }
                rewrite::for_http2(&mut request, connection, https);
                *request.method_mut() = Method::CONNECT;
                request.headers_mut().remove(header::CONNECTION);
                request.headers_mut().remove(header::UPGRADE);
                request.extensions_mut().insert(protocol_of(token));
                let sent = http2.sender.borrow_mut().try_send_request(request);
                sent.await
            }
        };
        let mut error = match result {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        attempt.drop_connection();
        match error.take_message() {
            Some(unsent) if used => request = unsent,
            Some(_) => {
                return Err(Sent::Failed(Failure::Connect(error.into_error().to_string())));
            }
            None => return Err(Sent::Failed(Failure::of_request(&error.into_error()))),
        }
    }
}

fn protocol_of(token: &str) -> hyper::ext::Protocol {
    match token {
        "websocket" => hyper::ext::Protocol::from_static("websocket"),
        // hyper takes only static text; the configuration names few tokens, and each is kept once.
        other => hyper::ext::Protocol::from_static(intern(other)),
    }
}

/// A static copy of a token. There are as many as the configuration has ever allowed.
fn intern(token: &str) -> &'static str {
    use std::cell::RefCell;
    thread_local! {
        static TOKENS: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
    }
    TOKENS.with_borrow_mut(|tokens| match tokens.iter().find(|known| **known == token) {
        Some(known) => known,
        None => {
            let token: &'static str = Box::leak(token.to_owned().into_boxed_str());
            tokens.push(token);
            token
        }
    })
}

fn websocket_key() -> HeaderValue {
    use base64::Engine as _;
    let random = fastrand::u128(..).to_be_bytes();
    let text = base64::engine::general_purpose::STANDARD.encode(random);
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}
