//! Whole requests, `envoy.filters.http.buffer`: the endpoint sees a request when all of its body is here.

use std::future::Future;
use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderValue};
use tokio::time::Instant;

use super::Passage;
use crate::access_log::ResponseFlags;
use crate::http::body::{ClientBody, Whole};
use crate::http::local_reply::{LocalReply, Reason};
use crate::http::replay::{Filled, Kept};
use crate::http::router::Refusal;

/// Reads a body to its end. Its length is known then, and is said.
pub(super) async fn collect(
    body: ClientBody,
    most: u32,
    passage: &mut Passage<'_>,
) -> Result<ClientBody, Refusal> {
    let Some(progress) = passage.exchange.progress.clone() else { return Ok(body) };
    let kept = match body {
        ClientBody::Empty | ClientBody::Whole(_) => return Ok(body),
        ClientBody::Incoming(incoming) => Kept::new(incoming, progress, most.into()),
        ClientBody::Kept(kept) => kept,
    };
    // One byte more tells whether it is longer.
    let Filled { data, .. } = kept.fill(u64::from(most) + 1, passage).await?;
    if data.len() as u64 > u64::from(most) {
        return Err(too_large(passage));
    }
    let headers = &mut passage.request.headers;
    if !headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(data.len()));
    }
    Ok(ClientBody::Whole(Box::new(Whole { data, trailers: kept.take_trailers(), announced: true })))
}

/// The body is longer than may be kept.
pub(super) fn too_large(passage: &Passage<'_>) -> Refusal {
    passage.connection.stats().downstream_rq_too_large.inc();
    let reply = LocalReply::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "Payload Too Large",
        "request_payload_too_large",
    );
    reply.because(Reason::RequestBodyTooLarge).closing().into()
}

/// How slowly a request may arrive.
pub(crate) struct Arrival {
    whole: Option<Instant>,
    idle: Option<Duration>,
}

impl Arrival {
    pub(crate) fn of(passage: &Passage<'_>) -> Self {
        let config = &passage.connection.manager.config;
        let whole = config.request_timeout.map(|limit| passage.exchange.start + limit);
        Self { whole, idle: config.stream_idle_timeout }
    }

    /// Waits for the next piece.
    pub(crate) async fn within<F: Future>(
        &self,
        next: F,
        passage: &Passage<'_>,
    ) -> Result<F::Output, Refusal> {
        let idle = self.idle.map(|limit| Instant::now() + limit);
        let until = match (self.whole, idle) {
            (Some(whole), Some(idle)) => Some(whole.min(idle)),
            (whole, idle) => whole.or(idle),
        };
        match until {
            None => Ok(next.await),
            Some(until) => tokio::time::timeout_at(until, next)
                .await
                .map_err(|_| too_slow(passage, self.whole.is_some_and(|whole| whole <= until))),
        }
    }
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
