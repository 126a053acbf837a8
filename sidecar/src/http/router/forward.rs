//! Forwarding: a cluster, the request as its endpoint gets it, and attempts until there is a response or a reason.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Response, Version};
use http_body::Body as _;
use tokio::time::Instant;

use super::matched::Matched;
use super::payload::Payload;
use super::send::send;
use super::{Answer, Refusal, view_of};
use crate::access_log::ResponseFlags;
use crate::cluster::{Context, Outcome, RoutingPriority};
use crate::config;
use crate::config::route::Forward;
use crate::config::subset::{METADATA_FILTER, MetadataCriteria};
use crate::http::attempt::Attempt;
use crate::http::body::ClientBody;
use crate::http::connection_manager::Connection;
use crate::http::exchange::Exchange;
use crate::http::failures::{
    broken_request, count_failure, drop_overload, failed, outcome_of, timed_out, unavailable,
};
use crate::http::hash_policy::{RequestHash, Sender};
use crate::http::headers::{self, Accepted};
use crate::http::limits::{Expired, Limits, within};
use crate::http::local_reply::{LocalReply, Reason};
use crate::http::mutations::Side;
use crate::http::retry::{Attempted, Retries, Verdict};
use crate::http::rewrite;
use crate::http::stream_state::metadata_of;
use crate::http::timeout::Timer;
use crate::http::upgrade;
use crate::http::upstream_body::UpstreamBody;
use crate::local::{ClusterRef, View};
use crate::upstream::Failure;

/// What a request is forwarded by.
pub(super) struct Forwarding<'r> {
    pub(super) connection: &'r Rc<Connection>,
    pub(super) view: &'r View,
    pub(super) matched: &'r Matched<'r>,
    pub(super) action: &'r Forward,
}

/// What the metadata of the endpoint must hold, if filters have noted something about it: as in Envoy, that wins over what
/// the route says.
fn own_criteria(
    route: Option<&MetadataCriteria>,
    exchange: &Exchange,
) -> Option<Box<MetadataCriteria>> {
    let noted = metadata_of(exchange.state.as_deref())?.0.get(METADATA_FILTER)?.as_object()?;
    Some(Box::new(MetadataCriteria::of_request(route, noted)))
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
        return Err(LocalReply::new(action.cluster_not_found_status, "", "cluster_not_found")
            .because(Reason::ClusterNotFound)
            .flagged(ResponseFlags::NO_CLUSTER_FOUND)
            .into());
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
        return Err(reply);
    }

    // What a retry needs of the request is taken before it is changed.
    let policy = action.retry_policy.as_ref().or(matched.host.retry_policy.as_ref());
    let mut retries =
        Retries::new(policy.map(|policy| &**policy), &view_of(request, accepted, None));
    let limits = Limits::new(action, manager, exchange, request, retries.as_ref());

    // The request as the endpoint gets it.
    let response_headers = matched.response_headers();
    let request_headers = matched.request_headers();
    if request_headers.has_commands() || response_headers.has_commands() {
        exchange.collect(request);
        exchange.capture_for_additions(request, &matched.table.needs);
    }
    let literal_host = matched.weighted().and_then(|cluster| cluster.host_rewrite.as_ref());
    let envoy_headers = !manager.config.suppress_envoy_headers;
    request_headers
        .apply(&mut request.headers, Side::Request, &mut || exchange.record_for_additions());
    rewrite::path(action, &matched.route.config.matches, request, envoy_headers)?;
    rewrite::host(action, literal_host, request, envoy_headers);
    exchange.capture_request(request);

    // As in Envoy 1.40 the request counts as its route has changed it.
    let hashed = match cluster.config.load_balancer.hashing() {
        None => RequestHash::default(),
        Some(hashing) => {
            let own = &hashing.hash_policy;
            let policies = if own.is_empty() { &action.hash_policy } else { own };
            let sender = Sender {
                client: accepted.client,
                peer: connection.peer,
                local: connection.local_address,
            };
            RequestHash::of(policies, &view_of(request, accepted, None), sender)
        }
    };

    let own = own_criteria(matched.metadata_match(action), exchange);
    if let Some(token) = &accepted.upgrade {
        let forwarding = upgrade::Upgrading {
            connection,
            cluster: &cluster,
            action,
            priority,
            https: accepted.https,
            hashed,
            metadata: own.as_deref().or_else(|| matched.metadata_match(action)),
        };
        return Box::pin(upgrade::run(forwarding, exchange, request, token)).await;
    }
    request.extensions.clear();

    // Kept over all attempts: the last of them takes the headers along.
    let original = match &cluster.original_dst {
        Some(_) => connection.original_destination(&cluster, &request.headers),
        None => None,
    };
    let mut payload =
        Payload::new(body, exchange, matched.buffer_limit(manager), retries.is_some());
    let mut timer = Timer::new(&connection.local.timers);
    let mut attempts = 0u32;
    loop {
        attempts += 1;
        if let Some(facts) = &mut exchange.facts {
            facts.attempts = attempts;
        }
        let endpoint = if cluster.original_dst.is_some() {
            original.as_ref().map(|endpoint| connection.local.pools.get(endpoint))
        } else {
            let hosts = cluster.hosts.load();
            let (avoid, attempts) = retries.as_ref().map_or((&[][..], 0), Retries::avoid);
            let metadata = own.as_deref().or_else(|| matched.metadata_match(action));
            let context = Context { hash: hashed.hash, metadata, avoid, attempts };
            cluster.pick(&hosts, &context).map(|endpoint| connection.local.pools.get(endpoint))
        };
        let Some(pool) = endpoint else {
            cluster.stats.local().upstream_cx_none_healthy.inc();
            return Err(unavailable());
        };
        if let Some(retries) = &mut retries {
            retries.note(pool.endpoint.id);
        }
        if let Some(facts) = &mut exchange.facts {
            facts.endpoint = Some(Arc::clone(&pool.endpoint));
            facts.upstream = None;
        }
        let last =
            retries.as_ref().is_none_or(|retries| retries.policy().num_retries == retries.done);
        let mut outgoing = payload.request(request, last);
        rewrite::for_endpoint(action, literal_host, &pool.endpoint, &mut outgoing, envoy_headers);
        let after = if attempts == 1 { Duration::ZERO } else { exchange.start.elapsed() };
        if envoy_headers && let Some(expected) = limits.expected(after) {
            let value = connection.timeout_header(expected);
            outgoing.headers_mut().insert(headers::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, value);
        }
        if matched.host.include_request_attempt_count {
            outgoing
                .headers_mut()
                .insert(headers::X_ENVOY_ATTEMPT_COUNT, headers::number(attempts.into()));
        }

        let Some(mut attempt) = Attempt::begin(&cluster, pool, priority) else {
            return Err(failed(&Failure::Overflow, false));
        };
        exchange.tried = true;
        let began = Instant::now();
        let sending = send(&mut attempt, outgoing, &cluster, connection, accepted.https, priority);
        let outcome = within(sending, &mut timer, exchange, &limits, Some(began)).await;

        if let Some(facts) = &mut exchange.facts {
            facts.sending_since.get_or_insert(began);
            facts.upstream = attempt.connection_facts();
        }
        let verdict = match &outcome {
            Ok(Ok(response)) => {
                attempt.answered(response, payload.grpc);
                let attempted = Attempted::Response(response.status(), response.headers());
                decide(&mut retries, &payload, attempted, &cluster, priority)
            }
            Ok(Err(failure)) => {
                if let Some(facts) = &mut exchange.facts {
                    facts.failure = failure.cause().map(|cause| cause.replace(' ', "_"));
                }
                count_failure(&cluster, failure);
                if let Some(outcome) = outcome_of(failure) {
                    attempt.failed(outcome);
                }
                if exchange.progress.as_ref().is_some_and(|progress| progress.failed.get()) {
                    return Err(broken_request());
                }
                let lost = *failure == Failure::ConnectionTermination
                    && attempt.was_used()
                    && request.method.is_safe();
                let attempted =
                    if lost { Attempted::Lost(failure) } else { Attempted::Failed(failure) };
                decide(&mut retries, &payload, attempted, &cluster, priority)
            }
            Err(Expired::PerTry) => {
                cluster.stats.local().upstream_rq_per_try_timeout.inc();
                attempt.failed(Outcome::Timeout);
                decide(&mut retries, &payload, Attempted::TimedOut, &cluster, priority)
            }
            Err(expired) => {
                return Err(timed_out(*expired, exchange, Some((&mut attempt, &cluster))));
            }
        };
        if let Verdict::After(delay) = verdict {
            if let Ok(Ok(response)) = &outcome
                && response.body().is_end_stream()
            {
                // Nothing is left to read of it: the connection is free.
                attempt.complete(exchange, None);
            }
            drop((outcome, attempt));
            let pause = tokio::time::sleep(delay);
            if let Err(expired) = within(pause, &mut timer, exchange, &limits, None).await {
                return Err(timed_out(expired, exchange, None));
            }
            continue;
        }
        if verdict == Verdict::LimitExceeded {
            exchange.flags.insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        }
        let response = match outcome {
            Ok(Ok(response)) => response,
            Ok(Err(failure)) => return Err(failed(&failure, attempts > 1)),
            Err(expired) => return Err(timed_out(expired, exchange, None)),
        };

        // The response as the client gets it.
        payload.commit();
        let (mut head, incoming) = response.into_parts();
        headers::clean_response(&mut head.headers);
        exchange.status = head.status.as_u16();
        exchange.details = "via_upstream".into();
        if let Some(facts) = &mut exchange.facts {
            facts.first_response_byte = Some(Instant::now());
        }
        if envoy_headers {
            let milliseconds = headers::number(attempt.elapsed_milliseconds());
            head.headers.insert(headers::X_ENVOY_UPSTREAM_SERVICE_TIME, milliseconds);
        }
        if matched.host.include_attempt_count_in_response {
            head.headers.insert(headers::X_ENVOY_ATTEMPT_COUNT, headers::number(attempts.into()));
        }
        hashed.set_cookies(&mut head.headers);
        response_headers
            .apply(&mut head.headers, Side::Response, &mut || exchange.record_for_additions());
        head.version = Version::HTTP_11;
        head.extensions.clear();
        let has_body = request.method != Method::HEAD && !matches!(head.status.as_u16(), 204 | 304);
        let body = UpstreamBody::new(incoming, attempt, timer, limits.of_response(), has_body);
        return Ok(Answer::Forwarded(Response::from_parts(head, ()), body));
    }
}

fn decide(
    retries: &mut Option<Retries<'_>>,
    payload: &Payload,
    attempted: Attempted<'_>,
    cluster: &ClusterRef,
    priority: RoutingPriority,
) -> Verdict {
    let Some(retries) = retries else { return Verdict::No };
    if !payload.can_replay() {
        cluster.stats.local().retry_or_shadow_abandoned.inc();
        return Verdict::No;
    }
    retries.decide(attempted, cluster, priority)
}
