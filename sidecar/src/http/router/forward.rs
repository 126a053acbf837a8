//! Forwarding: a cluster, the request as its endpoint gets it, and attempts until there is a response or a reason.

use std::rc::Rc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use tokio::time::Instant;

use super::hedge::hedged;
use super::matched::Matched;
use super::payload::Payload;
use super::send::send;
use super::tries::{Tries, discard, note_attempt};
use super::wanted::Wanted;
use super::{Answer, Refusal, add_to_local, view_of};
use crate::access_log::ResponseFlags;
use crate::cluster::RoutingPriority;
use crate::config;
use crate::config::route::{Forward, RetryOn};
use crate::http::asked::{Asked, AskedRetries};
use crate::http::body::ClientBody;
use crate::http::connection_manager::Connection;
use crate::http::exchange::Exchange;
use crate::http::failures::{count_response, drop_overload, timed_out};
use crate::http::hash_policy::{RequestHash, Sender};
use crate::http::headers::Accepted;
use crate::http::limits::{Limits, within};
use crate::http::local_reply::{LocalReply, Reason};
use crate::http::mirror::{self, Mirroring};
use crate::http::mutations::Side;
use crate::http::retry::{Policies, Retries, Verdict};
use crate::http::rewrite;
use crate::http::timeout::Timer;
use crate::http::tunnel::Tunnelling;
use crate::http::{connect, upgrade};
use crate::local::{ClusterRef, View};

/// What a request is forwarded by.
pub(super) struct Forwarding<'r> {
    pub(super) connection: &'r Rc<Connection>,
    pub(super) view: &'r View,
    pub(super) matched: &'r Matched<'r>,
    pub(super) action: &'r Forward,
}

/// Forwards a request: chooses a cluster, rewrites, and tries until there is a response or a reason.
pub(super) async fn forward(
    forwarding: Forwarding<'_>,
    exchange: &mut Exchange,
    request: &mut Parts,
    body: ClientBody,
    accepted: &Accepted,
) -> Result<Answer, Refusal> {
    let Forwarding { connection, view, matched, action } = forwarding;
    let manager = &connection.manager;
    let Some(cluster) = matched.target.and_then(|(id, _)| ClusterRef::new(view, id)) else {
        connection.stats().no_cluster.inc();
        let mut reply = LocalReply::new(action.cluster_not_found_status, "", "cluster_not_found")
            .because(Reason::ClusterNotFound)
            .flagged(ResponseFlags::NO_CLUSTER_FOUND);
        add_to_local(matched, exchange, request, &mut reply);
        return Err(reply.into());
    };
    if let Some(facts) = &mut exchange.facts {
        facts.cluster = Some(cluster.clone());
    }
    let priority = match action.priority {
        config::route::RoutingPriority::Default => RoutingPriority::Default,
        config::route::RoutingPriority::High => RoutingPriority::High,
    };

    let dropped = cluster.drop_overload();
    if let Some(reply) = drop_overload(dropped, !manager.config.suppress_envoy_headers) {
        let cells = cluster.stats.local();
        cells.rq_dropped.inc();
        cells.rq_drop_overload.inc();
        count_response(&cluster, accepted.internal, reply.status);
        return Err(reply);
    }

    check_strictly(&manager.config.strict_headers, &request.headers)?;
    // A filter may have put there what a client may not.
    let asks = accepted.asks || !manager.filters.is_empty();
    let asked = if asks {
        Asked::take(&mut request.headers, manager.config.respect_expected_timeout)
    } else {
        Asked::default()
    };
    let policies = Policies::of(action, matched.host);
    let limits = Limits::new(action, policies, manager, exchange, request, asked);

    // The request as the endpoint gets it.
    let response_headers = matched.response_headers();
    let request_headers = matched.request_headers();
    if request_headers.has_commands() || response_headers.has_commands() {
        matched.collect(exchange, request);
        if let Some(facts) = &mut exchange.facts {
            facts.cluster = Some(cluster.clone());
        }
    }
    let envoy_headers = !manager.config.suppress_envoy_headers;
    request_headers
        .apply(&mut request.headers, Side::Request, &mut || exchange.record_for_additions());
    rewrite::path(action, &matched.route.config.matches, request, envoy_headers)?;
    rewrite::host(action, matched.literal_host(), request, envoy_headers);
    let asked = if asks || request_headers.has_any() {
        AskedRetries::take(&mut request.headers)
    } else {
        None
    };
    let retries = Retries::new(policies.retry, asked, || view_of(request, accepted, None));
    if let (Some(tracer), Some(trace)) = (&manager.tracer, &mut exchange.trace) {
        tracer.inject(trace, request);
    }
    exchange.capture_request(request);
    if envoy_headers && let Some(expected) = limits.expected(Duration::ZERO) {
        exchange.note_expected(expected);
    }

    // As in Envoy 1.40 the request counts as its route has changed it.
    let hashed = match cluster.config.load_balancer.hashing() {
        // A member of an aggregate may want what the route says.
        None if cluster.members.is_none() || action.hash_policy.is_empty() => {
            RequestHash::default()
        }
        hashing => {
            let own = hashing.map_or(&[][..], |hashing| &hashing.hash_policy);
            let policies = if own.is_empty() { &action.hash_policy } else { own };
            let sender = Sender {
                client: accepted.client,
                peer: &connection.peer,
                local: &connection.local_address,
            };
            let view = view_of(request, accepted, exchange.state.as_deref());
            RequestHash::of(policies, &view, sender)
        }
    };

    let wanted = Wanted::of(connection, matched, action, &cluster, exchange, &request.headers);
    let ends_here = action.connect.is_some_and(|connect| {
        request.method == Method::CONNECT || (connect.allow_post && request.method == Method::POST)
    });
    if ends_here || accepted.upgrade.is_some() {
        let tunnelling = Tunnelling {
            connection,
            cluster: &cluster,
            action,
            host: matched.host,
            literal_host: matched.literal_host(),
            priority,
            accepted,
            limits: &limits,
            response_headers: &response_headers,
            hashed,
            wanted: wanted.as_deref(),
            metadata: matched.metadata_match(action),
        };
        if ends_here {
            let body = Payload::new(body, exchange, 0, false).request(request, false).into_body();
            return Box::pin(connect::run(tunnelling, exchange, request, body)).await;
        }
        return Box::pin(upgrade::run(tunnelling, exchange, request)).await;
    }
    request.extensions.clear();

    let most = matched.buffer_limit(manager);
    if !matched.route.mirrors.is_empty() {
        let mirroring = Mirroring {
            connection,
            view,
            mirrors: &matched.route.mirrors,
            cluster: &cluster,
            limits: &limits,
            https: accepted.https,
            counts_attempts: matched.host.include_request_attempt_count,
            most,
        };
        mirror::begin(&mirroring, exchange, request, &body);
    }
    let keep = retries.is_some() || action.internal_redirect.is_some();
    let payload = Payload::new(body, exchange, most, keep);
    let mut timer = Timer::new(&connection.local.timers);
    let mut tries = Tries {
        connection,
        view,
        cluster: &cluster,
        matched,
        action,
        priority,
        accepted,
        limits: &limits,
        response_headers: &response_headers,
        hashed,
        wanted,
        payload,
        retries,
        attempts: 0,
        timed_out_before: false,
    };
    if limits.hedges {
        return Box::pin(hedged(tries, exchange, request, timer)).await;
    }
    loop {
        let (mut attempt, outgoing) = tries.begin(exchange, request)?;
        let began = Instant::now();
        let sending = send(&mut attempt, outgoing, connection, accepted.https);
        let tried = within(sending, &mut timer, exchange, &limits, Some(began)).await;
        note_attempt(&attempt, began, exchange);
        let verdict = tries.judge(&mut attempt, &tried, exchange, &request.method)?;
        if let Verdict::After(delay) = verdict {
            discard(&tried, &mut attempt, exchange);
            drop((tried, attempt));
            let pause = tokio::time::sleep(delay);
            if let Err(expired) = within(pause, &mut timer, exchange, &limits, None).await {
                return Err(tries.charged(timed_out(expired, &limits, exchange, None)));
            }
            continue;
        }
        return match tried {
            Ok(Ok(response)) => Ok(tries.answer(response, attempt, timer, exchange, request)),
            tried => Err(tries.refusal(&tried, exchange)),
        };
    }
}

/// Refuses a request with an `x-envoy-*` header that is malformed, where the router is told to (`strict_check_headers`).
fn check_strictly(names: &[HeaderName], headers: &HeaderMap) -> Result<(), Refusal> {
    for name in names {
        let Some(value) = headers.get(name) else { continue };
        let text = value.to_str().unwrap_or_default();
        let words = |known: RetryOn| {
            text.split(',').all(|word| {
                RetryOn::parse(word.trim()).is_some_and(|condition| known.contains(condition))
            })
        };
        let valid = match name.as_str() {
            "x-envoy-retry-on" => words(RetryOn::HTTP_CONDITIONS),
            "x-envoy-retry-grpc-on" => words(RetryOn::GRPC_CONDITIONS),
            _ => text.trim().parse::<u64>().is_ok(),
        };
        if !valid {
            let body = format!("invalid header '{name}' with value '{text}'");
            let details = format!("request_headers_failed_strict_check{{{name}}}");
            return Err(LocalReply::new(StatusCode::BAD_REQUEST, body, details)
                .because(Reason::InvalidEnvoyHeader)
                .flagged(ResponseFlags::INVALID_ENVOY_REQUEST_HEADERS)
                .closing()
                .into());
        }
    }
    Ok(())
}
