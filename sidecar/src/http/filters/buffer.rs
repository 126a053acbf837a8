//! Whole requests, `envoy.filters.http.buffer`: the endpoint sees a request when all of its body is here.

use std::future::poll_fn;

use bytes::BytesMut;
use http::StatusCode;
use http::header::{self, HeaderValue};
use tokio::time::Instant;

use super::Passage;
use crate::access_log::ResponseFlags;
use crate::http::body::{ClientBody, Whole, poll_incoming};
use crate::http::failures::broken_request;
use crate::http::local_reply::{LocalReply, Reason};
use crate::http::router::Refusal;

/// Reads a body to its end. Its length is known then, and is said.
pub(super) async fn collect(
    body: ClientBody,
    most: u32,
    passage: &mut Passage<'_>,
) -> Result<ClientBody, Refusal> {
    let Some(progress) = passage.exchange.progress.clone() else { return Ok(body) };
    let ClientBody::Incoming(mut incoming) = body else { return Ok(body) };
    let config = &passage.connection.manager.config;
    let whole_until = config.request_timeout.map(|limit| passage.exchange.start + limit);
    let mut data = BytesMut::new();
    let mut trailers = None;
    loop {
        let now = Instant::now();
        let idle = config.stream_idle_timeout.map(|limit| now + limit);
        let until = match (whole_until, idle) {
            (Some(whole), Some(idle)) => Some(whole.min(idle)),
            (whole, idle) => whole.or(idle),
        };
        let next = poll_fn(|cx| poll_incoming(&mut incoming, &progress, cx));
        let next = match until {
            None => next.await,
            Some(until) => tokio::time::timeout_at(until, next)
                .await
                .map_err(|_| too_slow(passage, whole_until.is_some_and(|whole| whole <= until)))?,
        };
        let frame = match next {
            None => break,
            Some(Err(_)) => return Err(broken_request()),
            Some(Ok(frame)) => frame,
        };
        if let Some(piece) = frame.data_ref() {
            if data.len() as u64 + piece.len() as u64 > u64::from(most) {
                passage.connection.stats().downstream_rq_too_large.inc();
                let reply = LocalReply::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "Payload Too Large",
                    "request_payload_too_large",
                );
                return Err(reply.because(Reason::RequestBodyTooLarge).closing().into());
            }
            data.extend_from_slice(piece);
        } else if let Ok(fields) = frame.into_trailers() {
            trailers = Some(fields);
        }
    }
    let headers = &mut passage.request.headers;
    if !headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(data.len()));
    }
    Ok(ClientBody::Whole(Box::new(Whole { data: data.freeze(), trailers, announced: true })))
}

fn too_slow(passage: &Passage<'_>, whole: bool) -> Refusal {
    let stats = passage.connection.stats();
    let reply = if whole {
        stats.downstream_rq_timeout.inc();
        LocalReply::new(StatusCode::REQUEST_TIMEOUT, "request timeout", "request_overall_timeout")
    } else {
        stats.downstream_rq_idle_timeout.inc();
        LocalReply::new(StatusCode::REQUEST_TIMEOUT, "stream timeout", "stream_idle_timeout")
            .flagged(ResponseFlags::STREAM_IDLE_TIMEOUT)
    };
    reply.because(Reason::RequestTimeout).closing().into()
}
