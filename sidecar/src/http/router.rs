//! From a request to its response: the function that everything else in this folder serves.
//!
//! [`respond`] is read top-down: accept, find the route, run the filters, do what the route says. [`forward`] is what most
//! routes say: choose a cluster, rewrite, and try until there is a response or a reason.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::attempt::Attempt;
use super::body::{ClientBody, Progress, RequestBody, ResponseBody, Whole};
use super::connection_manager::Connection;
use super::exchange::Exchange;
use super::failures::{
    broken_request, count_failure, drop_overload, failed, outcome_of, timed_out, unavailable,
};
use super::filters::{self, Passage, Steps};
use super::hash_policy::{RequestHash, Sender};
use super::headers::{self, Accepted, Peer, host_of};
use super::limits::{Expired, Limits, within};
use super::local_reply::{LocalReply, Reason};
use super::matching::{RequestView, is_grpc};
use super::mutations::{Levels, Side};
use super::path::Canonical;
use super::replay::Kept;
use super::retry::{Attempted, Retries, Verdict};
use super::rewrite;
use super::route_table::{Route, RouteTable, VirtualHost};
use super::timeout::Timer;
use super::upgrade;
use super::upstream_body::UpstreamBody;
use crate::access_log::ResponseFlags;
use crate::cluster::{Outcome, RoutingPriority};
use crate::config;
use crate::config::http_filters::FilterOverrides;
use crate::config::route::{ClusterSpecifier, Forward, RequireTls, RouteAction, WeightedCluster};
use crate::local::{ClusterRef, View};
use crate::upstream::{Acquired, Failure, Protocol};

/// A request that we answer ourselves. Boxed: it is the rare case, and large.
pub(crate) type Refusal = Box<LocalReply>;

/// Answers a request. Whatever goes wrong is a response.
pub(crate) async fn respond(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let (mut request, body) = request.into_parts();
    let mut exchange = Exchange::begin(&connection, &request);
    let grpc = is_grpc(&request.headers);
    let head = request.method == Method::HEAD;
    let version = request.version;
    if !body.is_end_stream() {
        exchange.progress = Some(Progress::new(exchange.start));
    }
    connection.ends_by_close.set(version == Version::HTTP_10);

    let mut steps = Steps::default();
    let answer = route(&connection, &mut exchange, &mut request, body, &mut steps).await;
    let request_id = exchange.request_id.take();
    let mut response = match answer {
        Ok(Answer::Forwarded(mut response, body)) => {
            steps.apply(response.headers_mut(), &exchange);
            response.map(|()| ResponseBody::upstream(body, exchange))
        }
        Ok(Answer::Tunnel(mut response)) => {
            steps.apply(response.headers_mut(), &exchange);
            response.map(|()| ResponseBody::tunnel())
        }
        Err(mut reply) => {
            if matches!(reply.reason, Some(Reason::BadRequest)) {
                connection.stats().downstream_cx_protocol_error.inc();
            }
            if !exchange.tried && !exchange.request_is_complete() {
                // Its body is not read any more.
                reply.close = true;
            }
            reply.into_response(exchange, grpc, head, steps)
        }
    };

    if connection.local.shared.failing.load(Relaxed) && !connection.is_closing() {
        connection.stats().downstream_cx_drain_close.inc();
        connection.close_after_response();
    }
    let config = &connection.manager.config;
    headers::finish_response(response.headers_mut(), config, &connection.server_name);
    if config.always_set_request_id_in_response
        && let Some(id) = request_id
    {
        response.headers_mut().insert(headers::X_REQUEST_ID, id);
    }
    if connection.is_closing() && version != Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let (head, mut body) = response.into_parts();
    body.note_head(&head.headers);
    Ok(Response::from_parts(head, body))
}

/// What becomes of a request that is not answered by ourselves.
pub(crate) enum Answer {
    /// The response of an endpoint.
    Forwarded(Response<()>, UpstreamBody),
    /// The connection or stream becomes a tunnel after this response.
    Tunnel(Response<()>),
}

/// Finds out what is to be done with a request, and does it.
async fn route(
    connection: &Rc<Connection>,
    exchange: &mut Exchange,
    request: &mut Parts,
    body: Incoming,
    steps: &mut Steps,
) -> Result<Answer, Refusal> {
    let manager = &connection.manager;
    // One request sees one snapshot, whatever changes meanwhile.
    let view = connection.local.view();
    let table = view.routes(manager.routes);

    let internal_only = table.map_or(&[][..], |table| &table.config.internal_only_headers);
    let accepted = accept(connection, exchange, request, internal_only)?;

    let matched =
        table.and_then(|table| Matched::find(connection, &view, table, request, &accepted));
    if let Some(matched) = &matched
        && let Some(facts) = &mut exchange.facts
    {
        facts.route = Some(Arc::clone(&matched.route.config.name));
    }

    let mut body = ClientBody::Incoming(body);
    if !manager.filters.is_empty() {
        let overrides = matched.as_ref().map(Matched::overrides).unwrap_or_default();
        let cluster = matched.as_ref().and_then(|matched| matched.cluster_name());
        let accepted = &accepted;
        let mut passage =
            Passage { connection, exchange, request, accepted, overrides, cluster, steps };
        body = filters::pass(&manager.filters, &mut passage, body).await?;
    }

    // What no filter has answered, whatever becomes of it.
    connection.stats().rq_total.inc();
    let Some(matched) = matched else {
        connection.stats().no_route.inc();
        return Err(LocalReply::new(StatusCode::NOT_FOUND, "", "route_not_found")
            .because(Reason::NoRoute)
            .flagged(ResponseFlags::NO_ROUTE_FOUND)
            .into());
    };
    if matched.host.require_tls != RequireTls::None && !accepted.https {
        return Err(rewrite::redirect_to_tls(request, &accepted).into());
    }
    match &matched.route.config.action {
        RouteAction::Forward(action) => {
            let forwarding = Forwarding { connection, view: &view, matched: &matched, action };
            forward(forwarding, exchange, request, body, &accepted).await
        }
        RouteAction::Redirect(redirect) => {
            // A redirect is a direct response too; Envoy has a counter of redirects, and never counts there.
            connection.stats().rq_direct_response.inc();
            let mut reply =
                rewrite::redirect(redirect, &matched.route.config.matches, request, &accepted);
            add_to_local(&matched, exchange, request, &mut reply);
            Err(reply.into())
        }
        RouteAction::DirectResponse { status, body } => {
            connection.stats().rq_direct_response.inc();
            let mut reply = LocalReply::new(*status, body.clone(), "direct_response");
            add_to_local(&matched, exchange, request, &mut reply);
            Err(reply.into())
        }
    }
}

/// Brings the request into its canonical form, or refuses it.
fn accept(
    connection: &Connection,
    exchange: &mut Exchange,
    request: &mut Parts,
    internal_only: &[HeaderName],
) -> Result<Accepted, Refusal> {
    let manager = &connection.manager;
    let peer = Peer {
        address: connection.peer,
        local: connection.local_address,
        tls: connection.tls.is_some(),
        identity: connection.tls.as_ref().and_then(|tls| tls.identity.as_ref()),
        local_uri_sans: connection
            .tls
            .as_ref()
            .and_then(|tls| tls.own.as_ref())
            .map_or(&[], |own| &own.uri_sans),
        head: connection.head.get().map(|head| &**head),
    };
    let accepted = headers::accept(request, &manager.config, &peer, internal_only);
    if let Some(rules) = &manager.replies {
        exchange.collect(request);
        exchange.for_replies = rules.capture(&request.headers);
    }
    exchange.capture_request(request);
    let accepted = accepted.map_err(|refused| {
        let body = refused.status.canonical_reason().unwrap_or_default();
        let reply = LocalReply::new(refused.status, body, refused.details);
        // Where a request is malformed, nobody knows where it ends.
        reply.because(refused.reason).flagged(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR).closing()
    })?;
    if manager.config.always_set_request_id_in_response {
        exchange.request_id = request.headers.get(headers::X_REQUEST_ID).cloned();
    }
    if let Some(facts) = &mut exchange.facts {
        facts.client = Some(accepted.client);
        facts.https = accepted.https;
    }

    let path = request.uri.path_and_query().map_or("", PathAndQuery::as_str);
    match manager.paths.apply(path) {
        Canonical::Unchanged => {}
        Canonical::Changed(new) => set_path(request, &new)?,
        Canonical::Redirect(new) => {
            connection.stats().downstream_rq_redirected_with_normalized_path.inc();
            let mut reply =
                LocalReply::new(StatusCode::TEMPORARY_REDIRECT, "", "path_normalization_failed");
            if let Ok(location) = HeaderValue::from_str(&new) {
                reply.headers.insert(header::LOCATION, location);
            }
            return Err(reply.into());
        }
        Canonical::Refused(why) => {
            connection.stats().downstream_rq_failed_path_normalization.inc();
            let reply = LocalReply::new(StatusCode::BAD_REQUEST, why, "path_normalization_failed");
            return Err(reply.because(Reason::BadRequest).into());
        }
    }
    Ok(accepted)
}

/// Makes `path_and_query` the request's target.
pub(crate) fn set_path(request: &mut Parts, path_and_query: &str) -> Result<(), Refusal> {
    let target = PathAndQuery::try_from(path_and_query).map_err(|_| {
        LocalReply::new(StatusCode::BAD_REQUEST, "invalid path", "path_normalization_failed")
            .because(Reason::BadRequest)
    })?;
    request.uri = Uri::from(target);
    Ok(())
}

pub(crate) fn view_of<'a>(request: &'a Parts, accepted: &Accepted) -> RequestView<'a> {
    RequestView {
        method: &request.method,
        path: request.uri.path(),
        query: request.uri.query(),
        path_and_query: request.uri.path_and_query().map_or("", PathAndQuery::as_str),
        authority: host_of(&request.headers),
        scheme: if accepted.https { "https" } else { "http" },
        headers: &request.headers,
    }
}

/// Where a request goes, by its routes.
pub(crate) struct Matched<'t> {
    table: &'t RouteTable,
    host: &'t config::route::VirtualHost,
    route: &'t Route,
    /// The cluster, chosen now where there are several; its place among them.
    target: Option<(crate::cluster::ClusterId, Option<usize>)>,
}

impl<'t> Matched<'t> {
    fn find(
        connection: &Connection,
        view: &View,
        table: &'t RouteTable,
        request: &Parts,
        accepted: &Accepted,
    ) -> Option<Self> {
        let request = view_of(request, accepted);
        let host: &VirtualHost = table.host(request.authority)?;
        let route = host.route(&request)?;
        let named = |name: &str| connection.local.cluster_named(view, name);
        let target = route.target.choose(request.headers, named);
        Some(Self { table, host: table.host_config(host)?, route, target })
    }

    fn weighted(&self) -> Option<&'t WeightedCluster> {
        let (_, index) = self.target?;
        match &self.route.config.action {
            RouteAction::Forward(forward) => match &forward.cluster {
                ClusterSpecifier::Weighted(clusters) => clusters.get(index?),
                ClusterSpecifier::Cluster(_) | ClusterSpecifier::Header(_) => None,
            },
            _ => None,
        }
    }

    fn overrides(&self) -> [Option<&'t FilterOverrides>; 4] {
        let weighted = self.weighted().map(|cluster| &cluster.filters);
        let (route, host) = (&self.route.config.filters, &self.host.filters);
        [weighted, Some(route), Some(host), Some(&self.table.config.filters)]
    }

    /// Name of the cluster that the request is to go to.
    fn cluster_name(&self) -> Option<&'t str> {
        if let Some(weighted) = self.weighted() {
            return Some(&weighted.name);
        }
        match &self.route.config.action {
            RouteAction::Forward(forward) => match &forward.cluster {
                ClusterSpecifier::Cluster(name) => Some(name),
                ClusterSpecifier::Weighted(_) | ClusterSpecifier::Header(_) => None,
            },
            _ => None,
        }
    }

    fn request_headers(&self) -> Levels<'t> {
        let weighted = self.weighted().map(|cluster| &cluster.request_headers);
        let route = Some(&self.route.config.request_headers);
        let (host, outer) = (&self.host.request_headers, &self.table.config.request_headers);
        self.levels([weighted, route, Some(host), Some(outer)])
    }

    fn response_headers(&self) -> Levels<'t> {
        let weighted = self.weighted().map(|cluster| &cluster.response_headers);
        let route = Some(&self.route.config.response_headers);
        let (host, outer) = (&self.host.response_headers, &self.table.config.response_headers);
        self.levels([weighted, route, Some(host), Some(outer)])
    }

    fn levels(&self, levels: [Option<&'t config::header::HeaderMutations>; 4]) -> Levels<'t> {
        Levels::new(levels, self.table.config.most_specific_header_mutations_wins)
    }
}

/// The route's own additions, for what is not forwarded.
fn add_to_local(
    matched: &Matched<'_>,
    exchange: &mut Exchange,
    request: &Parts,
    reply: &mut LocalReply,
) {
    let levels = matched.response_headers();
    if levels.has_commands() {
        exchange.collect(request);
        exchange.capture_for_additions(request, &matched.table.needs);
    }
    exchange.status = reply.status.as_u16();
    levels.apply(&mut reply.headers, Side::Response, &mut || exchange.record_for_additions());
}

/// What a request is forwarded by.
pub(crate) struct Forwarding<'r> {
    pub(crate) connection: &'r Rc<Connection>,
    pub(crate) view: &'r View,
    pub(crate) matched: &'r Matched<'r>,
    pub(crate) action: &'r Forward,
}

/// Forwards a request: chooses a cluster, rewrites, and tries until there is a response or a reason.
async fn forward(
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

    let dropped = cluster.hosts.load().drop_overload;
    if let Some(reply) = drop_overload(dropped, !manager.config.suppress_envoy_headers) {
        return Err(reply);
    }

    // What a retry needs of the request is taken before it is changed.
    let policy = action.retry_policy.as_ref().or(matched.host.retry_policy.as_ref());
    let mut retries = Retries::new(policy.map(|policy| &**policy), &view_of(request, accepted));
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
            RequestHash::of(policies, &view_of(request, accepted), sender)
        }
    };

    if let Some(token) = &accepted.upgrade {
        let forwarding = upgrade::Upgrading {
            connection,
            cluster: &cluster,
            action,
            priority,
            https: accepted.https,
            hashed,
        };
        return Box::pin(upgrade::run(forwarding, exchange, request, token)).await;
    }
    request.extensions.clear();

    let mut payload =
        Payload::new(body, exchange, matched.buffer_limit(manager), retries.is_some());
    let mut timer = Timer::new(&connection.local.timers);
    let mut attempts = 0u32;
    loop {
        attempts += 1;
        if let Some(facts) = &mut exchange.facts {
            facts.attempts = attempts;
        }
        let endpoint = {
            let hosts = cluster.hosts.load();
            let (avoid, looks) = retries.as_ref().map_or((&[][..], 0), Retries::avoid);
            cluster
                .pick(&hosts, avoid, looks, hashed.hash)
                .map(|endpoint| connection.local.pools.get(endpoint))
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

impl Matched<'_> {
    /// Most bytes of a request's body that are kept for another attempt.
    fn buffer_limit(&self, manager: &super::connection_manager::ConnectionManager) -> u64 {
        let configured =
            self.route.config.per_request_buffer_limit.or(self.host.per_request_buffer_limit);
        configured.map_or(manager.buffer_limit as u64, u64::from)
    }
}

/// The body of a request, and whether it can be sent again.
pub(crate) enum Load {
    Empty,
    Once(Option<Incoming>, Rc<Progress>),
    Kept(Rc<Kept>),
    Whole(Box<Whole>),
}

pub(crate) struct Payload {
    load: Load,
    grpc: bool,
}

impl Payload {
    fn new(body: ClientBody, exchange: &Exchange, limit: u64, retries: bool) -> Self {
        let load = match (&exchange.progress, body) {
            (None, _) => Load::Empty,
            (Some(_), ClientBody::Whole(whole)) => Load::Whole(whole),
            (Some(progress), ClientBody::Incoming(body)) if retries => {
                Load::Kept(Kept::new(body, Rc::clone(progress), limit))
            }
            (Some(progress), ClientBody::Incoming(body)) => {
                Load::Once(Some(body), Rc::clone(progress))
            }
        };
        Self { load, grpc: false }
    }

    /// The request for the next attempt; `last` if there is none after it.
    fn request(&mut self, parts: &mut Parts, last: bool) -> Request<RequestBody> {
        self.grpc = is_grpc(&parts.headers);
        let body = match &mut self.load {
            Load::Empty => RequestBody::Empty,
            Load::Once(body, progress) => match body.take() {
                Some(body) => RequestBody::Streaming(body, Rc::clone(progress)),
                None => RequestBody::Empty,
            },
            Load::Kept(kept) => RequestBody::Replay(kept.attempt()),
            Load::Whole(whole) => RequestBody::Whole(whole.clone()),
        };
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        if last {
            // Nobody looks at these any more.
            *request.uri_mut() = std::mem::take(&mut parts.uri);
            *request.headers_mut() = std::mem::take(&mut parts.headers);
        } else {
            *request.uri_mut() = parts.uri.clone();
            *request.headers_mut() = parts.headers.clone();
        }
        request
    }

    fn can_replay(&self) -> bool {
        match &self.load {
            Load::Empty | Load::Whole(..) => true,
            Load::Once(..) => false,
            Load::Kept(kept) => kept.can_replay(),
        }
    }

    fn commit(&self) {
        if let Load::Kept(kept) = &self.load {
            kept.commit();
        }
    }
}

/// Sends a request on a connection of the attempt's endpoint, and waits for the head of the response.
///
/// A connection that was used before may be closed by the endpoint just when the next request goes out. A request of which
/// nothing was sent then goes to another connection: that is no retry.
async fn send(
    attempt: &mut Attempt,
    mut request: Request<RequestBody>,
    cluster: &ClusterRef,
    connection: &Connection,
    https: bool,
    priority: RoutingPriority,
) -> Result<Response<Incoming>, Failure> {
    let pool = Rc::clone(attempt.pool());
    let protocol = Protocol::of(cluster, &pool.endpoint, connection.version());
    let mut fresh_failures = 0;
    loop {
        let acquired = match pool.take(cluster, protocol) {
            Some(acquired) => acquired,
            None => {
                let host = host_of(request.headers()).to_owned();
                Box::pin(pool.wait(cluster, protocol, priority, &host)).await?
            }
        };
        let used = acquired.was_used();
        let result = match attempt.use_connection(acquired) {
            Acquired::Http1(http1) => {
                rewrite::for_http1(&mut request, connection);
                http1.sender.try_send_request(request).await
            }
            Acquired::Http2(shared) => {
                rewrite::for_http2(&mut request, connection, https);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_request_stays_small() {
        // One lives in every connection; what is rare is boxed.
        let size = size_of_future(respond);
        assert!(size <= 4096, "{size} bytes");
    }
}
