//! A request as everything behind it sees it: in its canonical form, or refused.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{StatusCode, Uri};

use super::Refusal;
use crate::access_log::ResponseFlags;
use crate::http::connection_manager::Connection;
use crate::http::exchange::Exchange;
use crate::http::filters::header_mutation::{self, has_commands};
use crate::http::headers::{self, Accepted, Peer, host_of};
use crate::http::local_reply::{LocalReply, Reason};
use crate::http::matching::RequestView;
use crate::http::path::Canonical;
use crate::http::stream_state::StreamState;

/// Brings the request into its canonical form, or refuses it.
pub(super) fn accept(
    connection: &Connection,
    exchange: &mut Exchange,
    request: &mut Parts,
    internal_only: &[HeaderName],
) -> Result<Accepted, Refusal> {
    let manager = &connection.manager;
    let peer = Peer {
        address: &connection.peer,
        local: &connection.local_address,
        tls: connection.tls.is_some(),
        identity: connection.tls.as_ref().and_then(|tls| tls.identity.as_ref()),
        local_uri_sans: connection
            .tls
            .as_ref()
            .and_then(|tls| tls.own.as_ref())
            .map_or(&[], |own| &own.uri_sans),
        head: connection.head.get().map(|head| &**head),
    };
    let mutations = &manager.config.early_mutations;
    if has_commands(mutations) {
        exchange.collect(request);
    }
    let mut early = |headers: &mut HeaderMap| header_mutation::early(mutations, headers, exchange);
    let early: Option<&mut dyn FnMut(&mut HeaderMap)> =
        if mutations.is_empty() { None } else { Some(&mut early) };
    let accepted = headers::accept(request, &manager.config, &peer, internal_only, early);
    if manager.config.add_user_agent {
        let shared = &connection.local.shared;
        headers::name_us(&mut request.headers, &shared.node_cluster, &shared.node_id);
    }
    if let Some(rules) = &manager.replies {
        exchange.collect(request);
        exchange.for_replies = rules.capture(&request.headers);
    }
    exchange.capture_request(request);
    let accepted = accepted.map_err(|refused| {
        if refused.reason == Reason::ClientAddressUnknown {
            // It is well-formed, and nothing is in doubt but its sender.
            return LocalReply::new(refused.status, "", refused.details).because(refused.reason);
        }
        let body = refused.status.canonical_reason().unwrap_or_default();
        let reply = LocalReply::new(refused.status, body, refused.details);
        // Where a request is malformed, nobody knows where it ends.
        reply.because(refused.reason).flagged(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR).closing()
    })?;
    if manager.config.always_set_request_id_in_response {
        exchange.request_id = request.headers.get(headers::X_REQUEST_ID).cloned();
    }
    exchange.origin = Some((accepted.client, accepted.https));
    if let Some(facts) = &mut exchange.facts {
        facts.client = accepted.client;
        facts.https = accepted.https;
    }

    let Some(path) = request.uri.path_and_query().map(PathAndQuery::as_str) else {
        return Ok(accepted); // a CONNECT
    };
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

pub(crate) fn view_of<'a>(
    request: &'a Parts,
    accepted: &Accepted,
    state: Option<&'a StreamState>,
) -> RequestView<'a> {
    RequestView {
        method: &request.method,
        path: request.uri.path(),
        query: request.uri.query(),
        path_and_query: request.uri.path_and_query().map_or("", PathAndQuery::as_str),
        authority: host_of(&request.headers),
        scheme: if accepted.https { "https" } else { "http" },
        headers: &request.headers,
        state,
    }
}
