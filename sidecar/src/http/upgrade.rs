//! Upgrades: a request that turns its connection, or its HTTP/2 stream, into a tunnel. WebSockets, as a rule.
//!
//! Each side may speak either version: HTTP/1 upgrades with 101, HTTP/2 with extended CONNECT (RFC 8441). Not one byte
//! that the client sends behind its request goes to the endpoint before the endpoint has agreed; one that refuses gives an
//! ordinary response, after which the client's connection is closed, because what it sent behind the request may not be
//! HTTP (RFC 9931).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::attempt::Attempt;
use super::body::RequestBody;
use super::connection_manager::Connection;
use super::exchange::Exchange;
use super::failures;
use super::hash_policy::RequestHash;
use super::headers::{self, Accepted};
use super::limits::{Limits, within};
use super::local_reply::{LocalReply, Reason};
use super::rewrite;
use super::router::{Answer, Refusal, Wanted, note_selected};
use super::timeout::Timer;
use super::upstream_body::UpstreamBody;
use crate::access_log::ResponseFlags;
use crate::cluster::{Context, Outcome, RoutingPriority};
use crate::config::route::Forward;
use crate::config::subset::MetadataCriteria;
use crate::copy;
use crate::local::ClusterRef;
use crate::upstream::{Acquired, Failure, Protocol};

const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");

/// What an upgrade is done by.
pub(crate) struct Upgrading<'r> {
    pub(crate) connection: &'r Rc<Connection>,
    pub(crate) cluster: &'r ClusterRef,
    pub(crate) action: &'r Forward,
    pub(crate) priority: RoutingPriority,
    pub(crate) accepted: &'r Accepted,
    pub(crate) limits: &'r Limits,
    /// The endpoint is chosen by.
    pub(crate) hashed: RequestHash,
    /// And by this, if there is any.
    pub(crate) wanted: Option<&'r Wanted>,
    /// And by what its metadata must hold, as the route says.
    pub(crate) metadata: Option<&'r MetadataCriteria>,
}

/// Forwards an upgrade. There are no retries: the client may have sent more already.
pub(crate) async fn run(
    upgrading: Upgrading<'_>,
    exchange: &mut Exchange,
    request: &mut Parts,
    token: &str,
) -> Result<Answer, Refusal> {
    let Upgrading {
        connection,
        cluster,
        action,
        priority,
        accepted,
        limits,
        hashed,
        wanted,
        metadata,
    } = upgrading;
    let manager = &connection.manager;
    let default = manager.config.upgrades.iter().find(|upgrade| *upgrade.token == *token);
    let here = action.upgrades.iter().find(|(name, _)| **name == *token).map(|(_, on)| *on);
    if !here.unwrap_or(default.is_some_and(|upgrade| upgrade.enabled)) {
        connection.stats().downstream_rq_ws_on_non_ws_route.inc();
        return Err(refused(StatusCode::FORBIDDEN, "upgrade_failed"));
    }
    let Some(client) = request.extensions.remove::<OnUpgrade>() else {
        return Err(refused(StatusCode::BAD_REQUEST, "upgrade_failed"));
    };
    request.extensions.clear();

    let route = Context { hash: hashed.hash, metadata, ..Context::default() };
    let context = wanted.map_or(route, |wanted| wanted.over(route));
    let chosen = cluster.choose(&context, |endpoint| connection.local.pools.get(endpoint));
    let charged = |reply| failures::charged(cluster, accepted.internal, reply);
    let Some((member, pool)) = chosen else { return Err(charged(failures::unavailable())) };
    note_selected(member.as_ref().unwrap_or(cluster), &pool.endpoint, exchange);
    if let Some(facts) = &mut exchange.facts {
        facts.attempts = 1;
        facts.endpoint = Some(Arc::clone(&pool.endpoint));
    }
    let span = exchange.begin_attempt(request, 0);
    let attempt = Attempt::begin(cluster, member, pool, priority, accepted.internal);
    let Some(mut attempt) = attempt else {
        return Err(charged(failures::failed(&Failure::Overflow, false)));
    };
    span.into_iter().for_each(|span| attempt.trace(span));
    let mut timer = Timer::new(&connection.local.timers);
    if !manager.config.suppress_envoy_headers
        && let Some(expected) = limits.expected(Duration::ZERO)
    {
        let value = connection.timeout_header(expected);
        request.headers.insert(headers::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, value);
    }
    let mut outgoing = Request::new(RequestBody::Empty);
    *outgoing.uri_mut() = std::mem::take(&mut request.uri);
    *outgoing.headers_mut() = std::mem::take(&mut request.headers);

    let sending = send(&mut attempt, outgoing, connection, token, accepted.https);
    let began = Instant::now();
    let mut response = match within(sending, &mut timer, exchange, limits, Some(began)).await {
        Ok(Ok(response)) => response,
        Ok(Err(Sent::Refused)) => return Err(refused(StatusCode::BAD_GATEWAY, "upgrade_failed")),
        Ok(Err(Sent::Failed(failure))) => {
            attempt.note_failure(&failure);
            attempt.failed(Outcome::Reset);
            return Err(charged(failures::failed(&failure, false)));
        }
        Err(expired) => {
            return Err(charged(failures::timed_out(
                expired,
                limits,
                exchange,
                Some((&mut attempt, cluster)),
            )));
        }
    };
    if let Some(facts) = &mut exchange.facts {
        facts.sending_since = Some(began);
        facts.upstream = attempt.connection_facts();
    }
    attempt.answered(&response, false);
    attempt.is_taken(response.status());
    exchange.status = response.status().as_u16();
    exchange.details = "via_upstream".into();

    let agreed = match response.version() {
        Version::HTTP_2 => response.status() == StatusCode::OK,
        _ => response.status() == StatusCode::SWITCHING_PROTOCOLS,
    };
    if !agreed {
        connection.close_after_response();
        // It saw an upgrade: it serves no other request.
        attempt.keep_from_pool();
        let (mut head, incoming) = response.into_parts();
        headers::clean_response(&mut head.headers);
        hashed.set_cookies(&mut head.headers);
        head.version = Version::HTTP_11;
        head.extensions.clear();
        let deadlines = limits.of_response();
        let body = UpstreamBody::new(incoming, attempt, timer, deadlines, true);
        return Ok(Answer::Forwarded(Response::from_parts(head, ()), body));
    }

    let endpoint = hyper::upgrade::on(&mut response);
    let same = response.version() == Version::HTTP_2
        || response
            .headers()
            .get(header::UPGRADE)
            .is_some_and(|chosen| chosen.as_bytes().eq_ignore_ascii_case(token.as_bytes()));
    if !same {
        return Err(failures::failed(
            &Failure::Protocol("another upgrade than asked for".to_owned()),
            false,
        ));
    }
    let mut head = Response::new(());
    std::mem::swap(head.headers_mut(), response.headers_mut());
    headers::clean_response(head.headers_mut());
    head.headers_mut().remove(header::CONTENT_LENGTH);
    hashed.set_cookies(head.headers_mut());
    if connection.version() == Version::HTTP_2 {
        *head.status_mut() = StatusCode::OK;
        exchange.status = 200;
    } else {
        *head.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        exchange.status = 101;
        let token = HeaderValue::from_str(token).unwrap_or(HeaderValue::from_static("websocket"));
        head.headers_mut().insert(header::UPGRADE, token);
        head.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let idle =
        action.idle_timeout.or(manager.config.stream_idle_timeout).filter(|limit| !limit.is_zero());
    exchange.capture_response(head.headers_mut());
    let exchange = exchange.take_over();
    tokio::task::spawn_local(tunnel(client, endpoint, exchange, attempt, idle));
    Ok(Answer::Tunnel(head))
}

fn refused(status: StatusCode, details: &'static str) -> Refusal {
    LocalReply::new(status, "", details).because(Reason::UpgradeRefused).closing().into()
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
        let result = match attempt.use_connection(acquired) {
            Acquired::Http1(http1) => {
                rewrite::for_http1(&mut request, connection);
                *request.method_mut() = Method::GET;
                request.extensions_mut().clear();
                let headers = request.headers_mut();
                headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
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

/// Copies both ways until both are done, or nothing has moved for `idle`.
async fn tunnel(
    client: OnUpgrade,
    endpoint: OnUpgrade,
    mut exchange: Exchange,
    attempt: Box<Attempt>,
    idle: Option<Duration>,
) {
    let connection = Rc::clone(&exchange.connection);
    let stats = connection.stats();
    stats.downstream_cx_upgrades_total.inc();
    stats.downstream_cx_upgrades_active.inc();
    let both: Result<(Upgraded, Upgraded), hyper::Error> =
        async { Ok((client.await?, endpoint.await?)) }.await;
    let whole = match both {
        Ok((client, endpoint)) => {
            let copied = copy::both_ways(
                &mut TokioIo::new(client),
                &mut TokioIo::new(endpoint),
                idle,
                &mut |_, sent| exchange.sent += sent,
            )
            .await;
            matches!(copied, copy::Ended::BothDone)
        }
        Err(error) => {
            tracing::debug!(peer = %connection.peer, %error, "the upgrade did not come about");
            exchange.fail(ResponseFlags::UPSTREAM_CONNECTION_TERMINATION, "upgrade_failed");
            false
        }
    };
    connection.stats().downstream_cx_upgrades_active.dec();
    exchange.end(whole);
    drop(attempt);
}
