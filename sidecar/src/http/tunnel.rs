//! What becomes of a connection, or of a stream, that is a tunnel: bytes both ways, until both sides have ended.
//!
//! [`upgrade`](super::upgrade) begins those that an endpoint has agreed to, [`connect`](super::connect) those that end here.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use http::header::HeaderValue;
use http::request::Parts;
use http::{HeaderMap, Version};
use http_body::{Body as _, Frame};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::attempt::Attempt;
use super::body::{BodyError, Progress, RequestBody};
use super::connection_manager::Connection;
use super::exchange::Exchange;
use super::failures;
use super::hash_policy::RequestHash;
use super::headers::{self, Accepted};
use super::limits::{Expired, Limits};
use super::mutations::{Levels, Side};
use super::router::{Refusal, Wanted, note_selected};
use super::timeout::{Timer, earlier};
use super::upstream_body::Deadlines;
use crate::access_log::ResponseFlags;
use crate::cluster::{Context, Outcome, RoutingPriority};
use crate::config::route::{Forward, VirtualHost};
use crate::config::subset::MetadataCriteria;
use crate::copy::{self, Ended};
use crate::local::ClusterRef;
use crate::transport::Transport;
use crate::upstream::Failure;

/// Most bytes of a body that are read at once.
const CHUNK: usize = 16 * 1024;

/// What a tunnel is made by.
pub(crate) struct Tunnelling<'r> {
    pub(crate) connection: &'r Rc<Connection>,
    pub(crate) cluster: &'r ClusterRef,
    pub(crate) action: &'r Forward,
    pub(crate) host: &'r VirtualHost,
    /// The `Host` of this one of several clusters.
    pub(crate) literal_host: Option<&'r HeaderValue>,
    pub(crate) priority: RoutingPriority,
    pub(crate) accepted: &'r Accepted,
    pub(crate) limits: &'r Limits,
    pub(crate) response_headers: &'r Levels<'r>,
    /// The endpoint is chosen by.
    pub(crate) hashed: RequestHash,
    /// And by this, if there is any.
    pub(crate) wanted: Option<&'r Wanted>,
    /// And by what its metadata must hold, as the route says.
    pub(crate) metadata: Option<&'r MetadataCriteria>,
}

impl Tunnelling<'_> {
    /// Chooses an endpoint. There is one attempt: the client may have sent more than its request already.
    pub(crate) fn begin(
        &self,
        exchange: &mut Exchange,
        request: &mut Parts,
    ) -> Result<Box<Attempt>, Refusal> {
        let Self { connection, cluster, hashed, metadata, .. } = self;
        if let Some(facts) = &mut exchange.facts {
            facts.attempts = 1;
        }
        let route = Context { hash: hashed.hash, metadata: *metadata, ..Context::default() };
        let context = self.wanted.map_or(route, |wanted| wanted.over(route));
        let chosen = cluster.choose(&context, |endpoint| connection.pool_of(endpoint));
        let Some((member, pool)) = chosen else {
            cluster.stats.local().upstream_cx_none_healthy.inc();
            return Err(self.charged(failures::unavailable()));
        };
        note_selected(member.as_ref().unwrap_or(cluster), &pool.endpoint, exchange);
        if let Some(facts) = &mut exchange.facts {
            facts.endpoint = Some(Arc::clone(&pool.endpoint));
        }
        let span = exchange.begin_attempt(request, 0);
        let attempt = Attempt::begin(cluster, member, pool, self.priority, self.accepted.internal);
        let Some(mut attempt) = attempt else {
            return Err(self.charged(failures::failed(&Failure::Overflow, false)));
        };
        span.into_iter().for_each(|span| attempt.trace(span));
        exchange.tried = true;
        Ok(attempt)
    }

    pub(crate) fn charged(&self, reply: Refusal) -> Refusal {
        failures::charged(self.cluster, self.accepted.internal, reply)
    }

    /// There is no response, and so no tunnel.
    pub(crate) fn failed(
        &self,
        attempt: &mut Attempt,
        failure: &Failure,
        exchange: &mut Exchange,
    ) -> Refusal {
        if let Some(facts) = &mut exchange.facts {
            facts.failure = failure.cause().map(str::to_owned);
        }
        failures::count_failure(attempt.cluster(), failure);
        attempt.note_failure(failure);
        if let Some(outcome) = failures::outcome_of(failure) {
            attempt.failed(outcome);
        }
        self.charged(failures::failed(failure, false))
    }

    /// Neither is there in time.
    pub(crate) fn timed_out(
        &self,
        attempt: &mut Attempt,
        expired: Expired,
        exchange: &Exchange,
    ) -> Refusal {
        if expired.is_of_attempt() {
            failures::count_expired(self.cluster, expired);
            attempt.failed(Outcome::Timeout);
            return self.charged(failures::timed_out(expired, self.limits, exchange, None));
        }
        let of = Some((attempt, self.cluster));
        self.charged(failures::timed_out(expired, self.limits, exchange, of))
    }

    /// What the route puts into the response.
    pub(crate) fn respond(&self, headers: &mut HeaderMap, exchange: &Exchange) {
        if self.host.include_attempt_count_in_response {
            headers.insert(headers::X_ENVOY_ATTEMPT_COUNT, headers::number(1));
        }
        self.hashed.set_cookies(headers);
        self.response_headers
            .apply(headers, Side::Response, &mut || exchange.record_for_additions());
    }
}

/// A task that carries bytes. It ends with its owner.
pub(crate) struct Tunnel(JoinHandle<()>);

impl Tunnel {
    /// Carries the bytes between a client and an endpoint once both are ready, and ends the exchange when they are done.
    /// The task belongs to the client's connection: what ends that (its certificate is revoked, say) ends the tunnel.
    pub(crate) fn start<E>(
        client: OnUpgrade,
        endpoint: impl Future<Output = hyper::Result<E>> + 'static,
        exchange: &mut Exchange,
        attempt: Box<Attempt>,
        deadlines: Deadlines,
    ) where
        E: End + 'static,
    {
        let exchange = exchange.take_over();
        let connection = Rc::clone(&exchange.connection);
        let both = async { Ok((TokioIo::new(client.await?), endpoint.await?)) };
        let task = tokio::task::spawn_local(run(both, exchange, attempt, deadlines));
        if connection.version() != Version::HTTP_2 {
            connection.becomes(Self(task));
        }
    }

    /// When it is over.
    pub(crate) async fn ended(mut self) {
        // A task that was ended by somebody else is over, too.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One end of a tunnel.
pub(crate) trait End: AsyncRead + AsyncWrite + Unpin {
    /// Ends it so that the peer does not take a broken stream for a whole one.
    fn break_off(self);
}

impl End for Transport {
    fn break_off(self) {
        self.reset_on_close();
    }
}

impl End for TokioIo<Upgraded> {
    fn break_off(self) {
        // A stream of HTTP/2 is reset when it is dropped.
        if let Ok(http1) = self.into_inner().downcast::<TokioIo<Transport>>() {
            http1.io.into_inner().reset_on_close();
        }
    }
}

/// A tunnel, for statistics.
struct Active(Rc<Connection>);

impl Active {
    fn begin(connection: &Rc<Connection>) -> Self {
        connection.stats().downstream_cx_upgrades_active.inc();
        Self(Rc::clone(connection))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.stats().downstream_cx_upgrades_active.dec();
    }
}

async fn run<E: End>(
    both: impl Future<Output = hyper::Result<(TokioIo<Upgraded>, E)>>,
    mut exchange: Exchange,
    mut attempt: Box<Attempt>,
    deadlines: Deadlines,
) {
    let _active = Active::begin(&exchange.connection);
    let progress = Progress::new(exchange.start);
    exchange.progress = Some(Rc::clone(&progress));
    let (mut client, mut endpoint) = match both.await {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(peer = %exchange.connection.peer, %error, "the tunnel did not come about");
            exchange.fail(ResponseFlags::UPSTREAM_CONNECTION_TERMINATION, "upgrade_failed");
            return;
        }
    };
    let mut moved = |received, sent| {
        progress.received.set(progress.received.get() + received);
        exchange.sent += sent;
    };
    let copying = copy::both_ways(&mut client, &mut endpoint, deadlines.idle, &mut moved);
    let ended = match deadlines.stream {
        None => Some(copying.await),
        Some(deadline) => timeout_at(deadline, copying).await.ok(),
    };
    match ended {
        Some(Ended::BothDone) => progress.complete.set(Some(Instant::now())),
        // Nothing is said of why: that it was the client is what the exchange assumes.
        Some(Ended::FirstFailed(_)) => endpoint.break_off(),
        Some(Ended::SecondFailed(_)) => {
            client.break_off();
            broken_off(&mut exchange, &mut attempt);
        }
        Some(Ended::Idle) => is_idle(&mut exchange),
        None => is_too_old(&mut exchange),
    }
    exchange.end(progress.complete.get().is_some());
}

fn broken_off(exchange: &mut Exchange, attempt: &mut Attempt) {
    let details = "upstream_reset_after_response_started{connection_termination}";
    exchange.fail(ResponseFlags::UPSTREAM_CONNECTION_TERMINATION, details);
    exchange.connection.stats().rq_reset_after_downstream_response_started.inc();
    attempt.reset_after_headers(false);
}

fn is_idle(exchange: &mut Exchange) {
    exchange.fail(ResponseFlags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout");
    exchange.connection.stats().downstream_rq_idle_timeout.inc();
}

fn is_too_old(exchange: &mut Exchange) {
    exchange.fail(ResponseFlags::DURATION_TIMEOUT, "max_duration_timeout");
    exchange.connection.stats().downstream_rq_max_duration_reached.inc();
}

/// The body of a response whose bytes come over a connection of their own, where the bytes of the request go.
pub(crate) struct BytesBody {
    from: ReadHalf<Transport>,
    buffer: Box<[u8]>,
    /// `None` once the endpoint is done.
    attempt: Option<Box<Attempt>>,
    timer: Timer,
    deadlines: Deadlines,
    last: Instant,
    /// Sends the body of the request.
    _sending: Tunnel,
}

impl BytesBody {
    pub(crate) fn new(
        transport: Transport,
        request: RequestBody,
        attempt: Box<Attempt>,
        timer: Timer,
        deadlines: Deadlines,
    ) -> Box<Self> {
        let (from, to) = tokio::io::split(transport);
        let sending = Tunnel(tokio::task::spawn_local(send(request, to)));
        Box::new(Self {
            from,
            buffer: vec![0; CHUNK].into(),
            attempt: Some(attempt),
            timer,
            deadlines,
            last: Instant::now(),
            _sending: sending,
        })
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut TaskContext<'_>,
        exchange: &mut Exchange,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        let read = match Pin::new(&mut self.from).poll_read(cx, &mut buffer) {
            Poll::Ready(read) => read,
            Poll::Pending => return self.poll_deadlines(cx, exchange),
        };
        self.last = Instant::now();
        Poll::Ready(match read {
            Ok(()) if buffer.filled().is_empty() => {
                if let Some(mut attempt) = self.attempt.take() {
                    attempt.complete(exchange, None);
                }
                None
            }
            Ok(()) => {
                exchange.sent += buffer.filled().len() as u64;
                Some(Ok(Frame::data(Bytes::copy_from_slice(buffer.filled()))))
            }
            Err(error) => {
                if let Some(mut attempt) = self.attempt.take() {
                    broken_off(exchange, &mut attempt);
                }
                Some(Err(BodyError::Endpoint(error)))
            }
        })
    }

    fn poll_deadlines(
        &mut self,
        cx: &mut TaskContext<'_>,
        exchange: &mut Exchange,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let last = exchange.last_activity(self.last);
        let idle = self.deadlines.idle.map(|limit| last + limit);
        let deadline = earlier(idle, self.deadlines.stream);
        std::task::ready!(self.timer.poll(cx, deadline));
        let text = if self.deadlines.stream.is_some_and(|deadline| deadline <= Instant::now()) {
            is_too_old(exchange);
            "downstream duration timeout"
        } else {
            is_idle(exchange);
            "stream timeout"
        };
        self.attempt = None;
        Poll::Ready(Some(Err(BodyError::TimedOut(text))))
    }
}

/// Sends the body of a request as bytes. One that breaks off leaves the endpoint without an end: the response is over then,
/// and with it the connection.
async fn send(mut body: RequestBody, mut to: WriteHalf<Transport>) {
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let written = match frame {
            None => return drop(to.shutdown().await),
            Some(Err(_)) => return,
            // Trailers are none of the bytes.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => to.write_all(&data).await,
                Err(_) => Ok(()),
            },
        };
        // What can no longer be written will not be read either.
        if written.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test]
    async fn a_tunnel_ends_with_its_owner() {
        let (held, mut ended) = oneshot::channel::<()>();
        let tasks = LocalSet::new();
        let forever = async move {
            let _held = held;
            std::future::pending().await
        };
        let tunnel = tasks.run_until(async { Tunnel(tokio::task::spawn_local(forever)) }).await;
        let owner = tunnel.ended();
        assert!(ended.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        drop(owner);
        tasks.run_until(&mut ended).await.unwrap_err();
    }
}
