//! An HTTP connection from its first byte to its last: which version of HTTP it speaks, its limits, and how it ends.
//!
//! hyper parses and writes; [`serve`] runs it together with what hyper does not know: when to end a connection that is
//! idle, too slow, too old ([`watch`]), or belongs to a listener that goes away. Each request goes to
//! [`router::respond`], with its [`Connection`].

mod connection;
mod watch;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::filters::Filter;
use super::head_tap::HeadTap;
use super::path::PathRules;
use super::reply_mapper::ReplyRules;
use super::router;
use super::tracing::Tracer;
use crate::access_log::Loggers;
use crate::config::http_connection_manager::{Codec, HttpConnectionManager};
use crate::drain::{Listening, Signal};
use crate::snapshot::RouteConfigId;
use crate::stats::{HttpCells, HttpListenerCells, Sharded};
use crate::transport::Transport;
use crate::upstream::h2::LocalExecutor;

pub(crate) use connection::{Accepted, Connection, DownstreamMeter};
use watch::{Action, Watch};

/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most bytes of a connection that hyper keeps to parse or to write, beside a request's head.
const MIN_BUFFER: usize = 64 * 1024;

/// Bytes of a response that wait for the client's window, per HTTP/2 stream.
const MAX_SEND_BUFFER: usize = 64 * 1024;

/// An HTTP connection manager, compiled: the end of a filter chain.
pub(crate) struct ConnectionManager {
    pub(crate) config: Arc<HttpConnectionManager>,
    /// Its routes, found anew for each request.
    pub(crate) routes: RouteConfigId,
    pub(crate) stats: Arc<Sharded<HttpCells>>,
    pub(crate) listener_stats: Arc<Sharded<HttpListenerCells>>,
    pub(crate) paths: PathRules,
    pub(crate) filters: Box<[Filter]>,
    /// Most bytes of a request body that are kept for another attempt, where no route says so.
    pub(crate) buffer_limit: usize,
    /// `/healthcheck/fail` asks its clients to go elsewhere.
    pub(crate) drains_on_health_check_failure: bool,
    pub(crate) loggers: Loggers,
    /// How our own answers are changed.
    pub(crate) replies: Option<ReplyRules>,
    pub(crate) tracer: Option<Tracer>,
}

impl std::fmt::Debug for ConnectionManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionManager").field("config", &self.config).finish_non_exhaustive()
    }
}

/// When a connection has to go.
pub(crate) struct Drains {
    /// The filter chain or listener goes away.
    pub(crate) chain: Listening,
    /// The process goes away.
    pub(crate) process: Listening,
}

impl Drains {
    pub(crate) fn new(chain: &Rc<Signal>, process: &Rc<Signal>) -> Self {
        Self { chain: Listening::to(chain), process: Listening::to(process) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let chain = self.chain.poll(cx).is_ready();
        let process = self.process.poll(cx).is_ready();
        chain || process
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(
    connection: Rc<Connection>,
    mut transport: Transport,
    mut drains: Drains,
) {
    let began = Instant::now();
    let http2 = match speaks_http2(&connection, &mut transport, &mut drains).await {
        Some(http2) => http2,
        None => return,
    };
    connection.http2.set(http2);
    let stats = connection.stats();
    if http2 {
        stats.downstream_cx_http2_total.inc();
        stats.downstream_cx_http2_active.inc();
        serve_http2(&connection, transport, drains).await;
        connection.stats().downstream_cx_http2_active.dec();
    } else {
        stats.downstream_cx_http1_total.inc();
        stats.downstream_cx_http1_active.inc();
        serve_http1(&connection, transport, drains).await;
        connection.stats().downstream_cx_http1_active.dec();
    }
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    connection.stats().downstream_cx_length_ms.record(milliseconds);
}

/// Which version of HTTP the client speaks: by ALPN, or by its first bytes. `None`: it has gone, or has to.
async fn speaks_http2(
    connection: &Rc<Connection>,
    transport: &mut Transport,
    drains: &mut Drains,
) -> Option<bool> {
    let config = &connection.manager.config;
    match config.codec {
        Codec::Http1 => return Some(false),
        Codec::Http2 => return Some(true),
        Codec::Auto => {}
    }
    if let Some(protocol) = transport.tls_state().and_then(|tls| tls.alpn_protocol()) {
        return Some(protocol == b"h2");
    }
    let mut watch = Watch::new(connection);
    let detected = {
        let mut read = pin!(transport.read_ahead(PREFACE.len(), |bytes| {
            if bytes.is_empty() {
                return None;
            }
            if bytes.len() >= PREFACE.len() {
                return Some(bytes.starts_with(PREFACE));
            }
            (!PREFACE.starts_with(bytes)).then_some(false)
        }));
        poll_fn(|cx| match read.as_mut().poll(cx) {
            Poll::Ready(read) => Poll::Ready(Some(read)),
            // Nothing was asked for yet: the client loses nothing.
            Poll::Pending if drains.poll(cx) && !connection.has_begun_a_head() => Poll::Ready(None),
            Poll::Pending => watch.poll(cx, false).map(|_| None),
        })
        .await
    };
    match detected {
        Some(Ok(Some(http2))) => Some(http2),
        // It ended in the middle of a preface, or before its first byte.
        Some(Ok(None)) if connection.has_begun_a_head() => Some(false),
        _ => None,
    }
}

async fn serve_http1(connection: &Rc<Connection>, transport: Transport, drains: Drains) {
    let config = &connection.manager.config;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // hyper would make a timer for each request; the watch below has one for the connection.
        .header_read_timeout(None)
        .half_close(false)
        .max_header_size(config.max_request_headers_bytes)
        .max_buf_size(config.max_request_headers_bytes.max(MIN_BUFFER));
    if config.http1.proper_case {
        builder.title_case_headers(true);
    }
    // hyper allocates for any number but its default, which is Envoy's default too.
    if config.max_headers_count > 100 {
        builder.max_headers(config.max_headers_count);
    }
    let service = service_fn(|request| router::respond(Rc::clone(connection), request));
    let head = Arc::clone(connection.head.get_or_init(HeadTap::new));
    let transport = transport.tapped(head);
    let mut http = builder.serve_connection(TokioIo::new(transport), service).with_upgrades();
    let ended = run(connection, drains, Pin::new(&mut http), |http| http.graceful_shutdown()).await;
    let tunnel = connection.tunnel.take();
    if let Some(tunnel) = tunnel {
        // Whoever ends this connection ends the tunnel as well: the one who waits for it.
        tunnel.ended().await;
    }
    // Gone if the connection has become a tunnel.
    let transport = http.into_parts().map(|parts| parts.io.into_inner());
    match ended {
        End::Done(Ok(())) => {}
        End::Done(Err(error)) => {
            if error.is_parse() || error.is_incomplete_message() {
                connection.stats().downstream_cx_protocol_error.inc();
            }
            tracing::debug!(peer = %connection.peer, %error, "HTTP/1 connection ended");
            if error.is_user() && connection.ends_by_close.get() {
                transport.iter().for_each(Transport::reset_on_close);
                return;
            }
        }
        End::Cut => return,
    }
    if let Some(transport) = transport {
        linger(connection, transport).await;
    }
}

/// Gives the client time to read its last response: a socket that is closed while there is something to read sends a
/// reset, which makes the client's system throw the response away.
async fn linger(connection: &Connection, mut transport: Transport) {
    const MOST: usize = 1024 * 1024;
    let timeout = connection.manager.config.delayed_close_timeout;
    let mut rest = Vec::new();
    let drained = tokio::time::timeout(timeout, async {
        transport.shutdown().await?;
        let mut total = 0;
        while total < MOST {
            rest.clear();
            rest.reserve(4096);
            match transport.read_buf(&mut rest).await? {
                0 => break,
                read => total += read,
            }
        }
        std::io::Result::Ok(())
    });
    if drained.await.is_err() {
        connection.stats().downstream_cx_delayed_close_timeout.inc();
    }
}

async fn serve_http2(connection: &Rc<Connection>, transport: Transport, drains: Drains) {
    let config = &connection.manager.config;
    let options = &config.http2;
    let (interval, timeout) =
        options.keepalive.unwrap_or((Duration::from_secs(30), Duration::from_secs(20)));
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_concurrent_streams)
        .initial_stream_window_size(options.initial_stream_window_size)
        .initial_connection_window_size(options.initial_connection_window_size)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_header_list_size(u32::try_from(config.max_request_headers_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(100)
        .header_table_size(options.header_table_size)
        .keep_alive_interval(interval)
        .keep_alive_timeout(timeout);
    if options.allow_connect {
        builder.enable_connect_protocol();
    }
    let service = service_fn(|request| router::respond(Rc::clone(connection), request));
    let http = pin!(builder.serve_connection(TokioIo::new(transport), service));
    let ended = run(connection, drains, http, |http| http.graceful_shutdown()).await;
    if let End::Done(Err(error)) = ended {
        connection.stats().downstream_cx_protocol_error.inc();
        tracing::debug!(peer = %connection.peer, %error, "HTTP/2 connection ended");
    }
}

enum End {
    /// As hyper sees it.
    Done(hyper::Result<()>),
    /// We cut it.
    Cut,
}

/// Runs hyper's side of a connection, and ends it when it is time.
async fn run<C>(
    connection: &Rc<Connection>,
    mut drains: Drains,
    mut http: Pin<&mut C>,
    shut_down: impl Fn(Pin<&mut C>),
) -> End
where
    C: Future<Output = hyper::Result<()>>,
{
    let config = &connection.manager.config;
    let mut watch = Watch::new(connection);
    let mut draining: Option<Instant> = None;
    let mut shutting_down = false;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = http.as_mut().poll(cx) {
                return Poll::Ready(End::Done(ended));
            }
            let http2 = connection.http2.get();
            if http2 && connection.is_flooding() {
                connection.stats().downstream_rq_too_many_premature_resets.inc();
                return Poll::Ready(End::Cut);
            }
            if draining.is_none() && drains.poll(cx) {
                draining = Some(Instant::now() + config.drain_timeout);
                connection.stats().downstream_cx_drain_close.inc();
                connection.close_after_response();
            }
            // HTTP/2 says GOAWAY and then serves what was already under way. HTTP/1 has no such word: its next response
            // says `Connection: close`, and an idle connection is closed only when no request has come for a while,
            // because one could be on its way.
            let over = draining.is_some_and(|deadline| Instant::now() >= deadline);
            if !shutting_down && connection.is_closing() && (http2 || over) {
                shutting_down = true;
                shut_down(http.as_mut());
                watch.shutting_down_since = Some(Instant::now());
                continue;
            }
            watch.drain = draining.filter(|_| !shutting_down);
            match watch.poll(cx, http2) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Action::Drain) => {
                    connection.close_after_response();
                    draining.get_or_insert(Instant::now());
                }
                Poll::Ready(Action::Cut) => return Poll::Ready(End::Cut),
            }
        }
    })
    .await
}
