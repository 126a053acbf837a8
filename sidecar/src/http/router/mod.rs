//! From a request to its response: the function that everything else in this folder serves.
//!
//! [`respond`] is read top-down: accept ([`mod@accept`]), find the route ([`matched`]), run the filters, do what the route
//! says. [`fn@forward`] is what most routes say: choose a cluster, rewrite, and try until there is a response or a reason; it
//! sends the request's body ([`payload`]) on a connection ([`send`]), and judges what comes of it ([`tries`]).
//! [`hedge`] is the same with several attempts at a time.

mod accept;
mod forward;
mod hedge;
mod matched;
mod payload;
mod redirect;
mod send;
mod tries;
mod wanted;

pub(crate) use wanted::{Wanted, note_selected};

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;

use super::body::{ClientBody, Progress, ResponseBody, Source};
use super::connection_manager::Connection;
use super::exchange::Exchange;
use super::filters::{self, Passage, Steps};
use super::headers::{self, Accepted};
use super::local_reply::{LocalReply, Reason};
use super::matching::is_grpc;
use super::mutations::Side;
use super::rewrite;
use super::tunnel::BytesBody;
use super::upgrade;
use super::upstream_body::UpstreamBody;
use crate::access_log::ResponseFlags;
use crate::config::route::{RequireTls, RouteAction};
use crate::local::View;

use accept::accept;
pub(crate) use accept::{set_path, view_of};
use forward::{Forwarding, forward};
use matched::Matched;
pub(crate) use redirect::{Followed, Next};

/// A request that we answer ourselves. Boxed: it is the rare case, and large.
pub(crate) type Refusal = Box<LocalReply>;

/// Answers a request. Whatever goes wrong is a response.
pub(crate) async fn respond(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let (mut request, body) = request.into_parts();
    let mut exchange = Exchange::begin(&connection, &request);
    let asked = Asked {
        grpc: is_grpc(&request.headers),
        head: request.method == Method::HEAD,
        connect: request.method == Method::CONNECT,
        version: request.version,
    };
    if !body.is_end_stream() {
        exchange.progress = Some(Progress::new(exchange.start));
    }
    connection.ends_by_close.set(asked.version == Version::HTTP_10);

    let mut steps = Steps::default();
    let body = ClientBody::Incoming(Source::new(body));
    let answer = route(&connection, &mut exchange, &mut request, None, body, &mut steps).await;
    if let Some(next) = exchange.next.take() {
        drop(answer);
        return Ok(Box::pin(follow(&connection, exchange, next, asked)).await);
    }
    Ok(finish(&connection, exchange, answer, steps, asked))
}

/// What a response depends on of its request, as it was asked for first.
#[derive(Clone, Copy)]
struct Asked {
    grpc: bool,
    head: bool,
    connect: bool,
    version: Version,
}

/// Follows redirects until there is a response for the client.
async fn follow(
    connection: &Rc<Connection>,
    mut exchange: Exchange,
    mut next: Box<Next>,
    asked: Asked,
) -> Response<ResponseBody> {
    loop {
        exchange = exchange.follow(&mut next);
        let Next { mut request, accepted, body, .. } = *next;
        let accepted = Some(Box::new(accepted));
        let body = body.map_or(ClientBody::Empty, ClientBody::Whole);
        let mut steps = Steps::default();
        let coming = route(connection, &mut exchange, &mut request, accepted, body, &mut steps);
        let answer = coming.await;
        match exchange.next.take() {
            Some(further) => next = further,
            None => return finish(connection, exchange, answer, steps, asked),
        }
    }
}

/// Makes the response that the client gets.
fn finish(
    connection: &Rc<Connection>,
    mut exchange: Exchange,
    answer: Result<Answer, Refusal>,
    steps: Steps,
    asked: Asked,
) -> Response<ResponseBody> {
    let request_id = exchange.request_id.take();
    let is_tunnel = matches!(answer, Ok(Answer::Tunnel(_)));
    let mut response = match answer {
        Ok(Answer::Forwarded(mut response, body)) => {
            let (status, ends) = (response.status(), body.is_end_stream());
            let pipe = steps.apply(status, ends, response.headers_mut(), &exchange);
            response.map(|()| ResponseBody::upstream(body, exchange).through(pipe))
        }
        Ok(Answer::Bytes(mut response, body)) => {
            // Not compressed: who asks for a connection wants its bytes.
            steps.apply(response.status(), true, response.headers_mut(), &exchange);
            response.map(|()| ResponseBody::bytes(body, exchange))
        }
        Ok(Answer::Tunnel(mut response)) => {
            steps.apply(response.status(), true, response.headers_mut(), &exchange);
            response.map(|()| ResponseBody::tunnel())
        }
        // Every redirect was followed.
        Ok(Answer::Redirected) => Response::new(ResponseBody::empty(exchange)),
        Err(mut reply) => {
            if matches!(reply.reason, Some(Reason::BadRequest)) {
                connection.stats().downstream_cx_protocol_error.inc();
            }
            if !exchange.tried && !exchange.request_is_complete() {
                // Its body is not read any more.
                reply.close = true;
            }
            // A client takes any 2xx to its CONNECT for the beginning of a tunnel, and hyper a body for a mistake.
            let bodiless = asked.head || (asked.connect && reply.status.is_success());
            reply.into_response(exchange, asked.grpc, bodiless, steps)
        }
    };

    if connection.manager.drains_on_health_check_failure
        && connection.local.shared.failing.load(Relaxed)
        && !connection.is_closing()
    {
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
    if connection.is_closing() && asked.version != Version::HTTP_2 && !is_tunnel {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let (mut head, mut body) = response.into_parts();
    body.note_head(&mut head.headers);
    Response::from_parts(head, body)
}

/// What becomes of a request that is not answered by ourselves.
pub(crate) enum Answer {
    /// The response of an endpoint.
    Forwarded(Response<()>, UpstreamBody),
    /// The bytes that an endpoint sends over a connection of their own.
    Bytes(Response<()>, Box<BytesBody>),
    /// The connection or stream becomes a tunnel after this response.
    Tunnel(Response<()>),
    /// Another request takes its place: the exchange has it.
    Redirected,
}

/// Finds out what is to be done with a request, and does it. `accepted`: it was redirected, and is not from outside.
async fn route(
    connection: &Rc<Connection>,
    exchange: &mut Exchange,
    request: &mut Parts,
    accepted: Option<Box<Accepted>>,
    mut body: ClientBody,
    steps: &mut Steps,
) -> Result<Answer, Refusal> {
    let manager = &connection.manager;
    // One request sees one snapshot, whatever changes meanwhile.
    let mut view = connection.local.view();
    let table = view.routes(manager.routes);

    let internal_only = table.map_or(&[][..], |table| &table.config.internal_only_headers);
    let accepted = match accepted {
        Some(accepted) => *accepted,
        None => accept(connection, exchange, request, internal_only)?,
    };

    let mut matched = find(connection, &view, exchange, request, &accepted);

    if let Some(tracer) = &manager.tracer {
        let route = matched.as_ref().map(|matched| &matched.route.config);
        exchange.begin_trace(tracer, request, route, &accepted);
    }
    if manager.config.log_new_requests {
        let cluster = matched.as_ref().and_then(|matched| matched.cluster(&view));
        exchange.log_start(request, cluster);
    }

    if let Some(token) = &accepted.upgrade {
        if connection.version() != Version::HTTP_2 {
            // Unless it becomes a tunnel: what the client has sent behind it may not be HTTP.
            connection.close_after_response();
        }
        if let Some(matched) = &matched {
            note_cluster(exchange, &view, matched);
        }
        let action = matched.as_ref().map(|matched| &matched.route.config.action);
        upgrade::permit(connection, action, token)?;
    }

    let mut filters = &*manager.filters;
    while !filters.is_empty() {
        let mut passage = Passage {
            connection,
            exchange,
            request,
            accepted: &accepted,
            overrides: matched.as_ref().map(Matched::overrides).unwrap_or_default(),
            cluster: matched.as_ref().and_then(|matched| matched.cluster_name()),
            target: matched.as_ref().and_then(|matched| matched.cluster(&view)),
            route: matched.as_ref().map(|matched| &*matched.route.config),
            steps,
            rematch: false,
            refresh: false,
        };
        let passed = filters::pass(filters, &mut passage, body).await;
        let (rematch, refresh) = (passage.rematch, passage.refresh);
        (body, filters) = match passed {
            Ok(passed) => passed,
            Err(mut reply) => {
                // As in Envoy the answer of a filter gets the additions of the route.
                if let Some(matched) = &matched {
                    note_cluster(exchange, &view, matched);
                    add_to_local(matched, exchange, request, &mut reply);
                }
                return Err(reply);
            }
        };
        // A filter may have changed what the route depends on, and said so.
        if rematch {
            if refresh {
                view = connection.local.view();
            }
            matched = find(connection, &view, exchange, request, &accepted);
        }
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

/// The route that takes a request, noted for logs.
fn find<'v>(
    connection: &Connection,
    view: &'v View,
    exchange: &mut Exchange,
    request: &Parts,
    accepted: &Accepted,
) -> Option<Matched<'v>> {
    let state = exchange.state.as_deref();
    let table = view.routes(connection.manager.routes);
    let matched = Matched::find(connection, view, table?, request, accepted, state);
    if let Some(facts) = &mut exchange.facts {
        facts.route = matched.as_ref().map(|matched| Arc::clone(&matched.route.config));
    }
    matched
}

/// A log knows of the cluster also where nothing is forwarded.
fn note_cluster(exchange: &mut Exchange, view: &View, matched: &Matched<'_>) {
    if let Some(facts) = &mut exchange.facts {
        facts.cluster = matched.cluster(view);
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
        matched.collect(exchange, request);
    }
    exchange.status = reply.status.as_u16();
    levels.apply(&mut reply.headers, Side::Response, &mut || exchange.record_for_additions());
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
