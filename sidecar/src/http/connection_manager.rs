//! An HTTP connection from its first byte to its last: which version of HTTP it speaks, its limits, and how it ends.
//!
//! hyper parses and writes; [`serve`] runs it together with what hyper does not know: when to end a connection that is
//! idle, too slow, too old, or belongs to a listener that goes away. Each request goes to [`router::respond`].

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use http::uri::Authority;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::filters::Filter;
use super::head_tap::HeadTap;
use super::headers;
use super::path::PathRules;
use super::reply_mapper::ReplyRules;
use super::router;
use super::timeout::{Timer, earlier};
use crate::access_log::Loggers;
use crate::config::http_connection_manager::{Codec, HttpConnectionManager};
use crate::drain::{Listening, Signal};
use crate::local::Local;
use crate::snapshot::RouteConfigId;
use crate::stats::{HttpCells, HttpListenerCells, Sharded};
use crate::tls::TlsFacts;
use crate::transport::{Meter, Transport};
use crate::upstream::h2::LocalExecutor;

/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest time for a request's head to arrive, from its first byte, where nothing is configured: a slow client must not
/// hold a connection.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time that a client may leave what we send unread while nothing moves, where streams have no idle timeout.
const BLOCKED_TIMEOUT: Duration = Duration::from_secs(300);
/// Most bytes of a connection that hyper keeps to parse or to write, beside a request's head.
const MIN_BUFFER: usize = 64 * 1024;
/// Bytes of a response that wait for the client's window, per HTTP/2 stream.
const MAX_SEND_BUFFER: usize = 64 * 1024;
/// HTTP/2 streams that a client resets at once: from so many streams on, a connection of which most were is cut.
const PREMATURE_RESETS: u32 = 500;
/// A stream that lives shorter than this was reset at once.
const PREMATURE: Duration = Duration::from_secs(1);

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
    pub(crate) loggers: Loggers,
    /// How our own answers are changed.
    pub(crate) replies: Option<ReplyRules>,
}

impl std::fmt::Debug for ConnectionManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionManager").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A connection from a client, as its requests see it.
pub(crate) struct Connection {
    pub(crate) local: Rc<Local>,
    pub(crate) manager: Arc<ConnectionManager>,
    /// Unique in the process.
    pub(crate) id: u64,
    /// The other end.
    pub(crate) peer: SocketAddr,
    /// This end.
    pub(crate) local_address: SocketAddr,
    pub(crate) tls: Option<TlsFacts>,
    /// Name of the filter chain.
    pub(crate) chain: Arc<str>,
    /// What moved over the socket.
    pub(crate) meter: Arc<DownstreamMeter>,
    http2: Cell<bool>,
    /// Sees the head of a request as it came; only of HTTP/1.
    pub(crate) head: OnceCell<Arc<HeadTap>>,
    active: Cell<u32>,
    requests: Cell<u32>,
    premature_resets: Cell<u32>,
    /// Ends with the response under way.
    closing: Cell<bool>,
    /// A broken response must not look whole to a client that takes the end of the connection for its end.
    pub(crate) ends_by_close: Cell<bool>,
    idle_since: Cell<Instant>,
    /// Bytes received when the last request ended: whatever came after is the beginning of the next.
    received_at_idle: Cell<u64>,
    last_host: RefCell<Option<(HeaderValue, Authority)>>,
    last_timeout: RefCell<Option<(u64, HeaderValue)>>,
    /// Value of `server`, this connection's own copy.
    pub(crate) server_name: HeaderValue,
}

/// Counts a client's bytes, and notices when it does not read.
pub(crate) struct DownstreamMeter {
    stats: Arc<Sharded<HttpCells>>,
    received: AtomicU64,
    sent: AtomicU64,
    blocked: AtomicBool,
}

impl DownstreamMeter {
    pub(crate) fn new(stats: &Arc<Sharded<HttpCells>>) -> Arc<Self> {
        Arc::new(Self {
            stats: Arc::clone(stats),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
        })
    }
}

// One thread: plain loads and stores.
impl Meter for DownstreamMeter {
    fn received(&self, bytes: u64) {
        self.received.store(self.received.load(Relaxed) + bytes, Relaxed);
        self.stats.local().downstream_cx_rx_bytes_total.add(bytes);
    }

    fn sent(&self, bytes: u64) {
        self.sent.store(self.sent.load(Relaxed) + bytes, Relaxed);
        self.blocked.store(false, Relaxed);
        self.stats.local().downstream_cx_tx_bytes_total.add(bytes);
    }

    fn blocked(&self) {
        self.blocked.store(true, Relaxed);
    }
}

/// What a connection begins with.
pub(crate) struct Accepted {
    pub(crate) local: Rc<Local>,
    pub(crate) manager: Arc<ConnectionManager>,
    pub(crate) peer: SocketAddr,
    pub(crate) local_address: SocketAddr,
    pub(crate) tls: Option<TlsFacts>,
    pub(crate) chain: Arc<str>,
    pub(crate) meter: Arc<DownstreamMeter>,
}

impl Connection {
    pub(crate) fn new(accepted: Accepted) -> Rc<Self> {
        let Accepted { local, manager, peer, local_address, tls, chain, meter } = accepted;
        let stats = manager.stats.local();
        stats.downstream_cx_total.inc();
        stats.downstream_cx_active.inc();
        if tls.is_some() {
            stats.downstream_cx_ssl_total.inc();
            stats.downstream_cx_ssl_active.inc();
        }
        let server_name = headers::own(&manager.config.server_name);
        // The bytes of a handshake are not the beginning of a request.
        let received_at_idle = tls.as_ref().map_or(0, |_| meter.received.load(Relaxed));
        Rc::new(Self {
            id: local.next_id(),
            local,
            manager,
            peer,
            local_address,
            tls,
            chain,
            meter,
            http2: Cell::new(false),
            head: OnceCell::new(),
            active: Cell::new(0),
            requests: Cell::new(0),
            premature_resets: Cell::new(0),
            closing: Cell::new(false),
            ends_by_close: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            received_at_idle: Cell::new(received_at_idle),
            last_host: RefCell::new(None),
            last_timeout: RefCell::new(None),
            server_name,
        })
    }

    #[inline]
    pub(crate) fn stats(&self) -> &HttpCells {
        self.manager.stats.local()
    }

    #[inline]
    pub(crate) fn listener_stats(&self) -> &HttpListenerCells {
        self.manager.listener_stats.local()
    }

    pub(crate) fn begin_request(&self) {
        if let Some(head) = self.head.get() {
            head.stop();
        }
        self.active.set(self.active.get() + 1);
        self.requests.set(self.requests.get() + 1);
        if let Some(most) = self.manager.config.max_requests_per_connection
            && self.requests.get() >= most
            && !self.closing.replace(true)
        {
            self.stats().downstream_cx_max_requests_reached.inc();
        }
    }

    pub(crate) fn end_request(&self) {
        self.active.set(self.active.get() - 1);
        self.idle_since.set(Instant::now());
        self.received_at_idle.set(self.meter.received.load(Relaxed));
        if let Some(head) = self.head.get() {
            head.start();
        }
    }

    /// The version of HTTP that the client speaks.
    pub(crate) fn version(&self) -> http::Version {
        if self.http2.get() { http::Version::HTTP_2 } else { http::Version::HTTP_11 }
    }

    /// A client reset a stream.
    pub(crate) fn count_reset(&self, lived: Duration) {
        if self.http2.get() && lived < PREMATURE {
            self.premature_resets.set(self.premature_resets.get() + 1);
        }
    }

    /// Whether something came since the last request ended.
    fn has_begun_a_head(&self) -> bool {
        self.meter.received.load(Relaxed) != self.received_at_idle.get()
    }

    /// Whether the response under way is the last.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Makes the response under way the last.
    pub(crate) fn close_after_response(&self) {
        self.closing.set(true);
    }

    /// The authority of a `Host`, for HTTP/2. A connection's requests mostly have the same.
    pub(crate) fn authority(&self, host: &HeaderValue) -> Option<Authority> {
        let mut last = self.last_host.borrow_mut();
        if let Some((known, authority)) = &*last
            && known == host
        {
            return Some(authority.clone());
        }
        let authority = Authority::try_from(host.as_bytes()).ok()?;
        *last = Some((host.clone(), authority.clone()));
        Some(authority)
    }

    /// The value of `x-envoy-expected-rq-timeout-ms`. A connection's requests mostly have the same.
    pub(crate) fn timeout_header(&self, timeout: Duration) -> HeaderValue {
        let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let mut last = self.last_timeout.borrow_mut();
        match &*last {
            Some((known, value)) if *known == milliseconds => value.clone(),
            _ => {
                let value = HeaderValue::from(milliseconds);
                *last = Some((milliseconds, value.clone()));
                value
            }
        }
    }

    /// The `Host` for an authority: the other way round.
    pub(crate) fn host(&self, authority: &Authority) -> Option<HeaderValue> {
        let mut last = self.last_host.borrow_mut();
        if let Some((host, known)) = &*last
            && known.as_str() == authority.as_str()
        {
            return Some(host.clone());
        }
        let host = HeaderValue::from_str(authority.as_str()).ok()?;
        *last = Some((host.clone(), authority.clone()));
        Some(host)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let stats = self.manager.stats.local();
        stats.downstream_cx_active.dec();
        stats.downstream_cx_destroy.inc();
        if self.tls.is_some() {
            stats.downstream_cx_ssl_active.dec();
        }
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
    // hyper allocates for any number but its default, which is Envoy's default too.
    if config.max_headers_count > 100 {
        builder.max_headers(config.max_headers_count);
    }
    let service = service_fn(|request| router::respond(Rc::clone(connection), request));
    let head = Arc::clone(connection.head.get_or_init(HeadTap::new));
    let transport = transport.tapped(head);
    let mut http = builder.serve_connection(TokioIo::new(transport), service).with_upgrades();
    let ended = run(connection, drains, Pin::new(&mut http), |http| http.graceful_shutdown()).await;
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
        .header_table_size(4096)
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

impl Connection {
    /// Most of many streams were reset by the client as soon as they began (CVE-2023-44487).
    fn is_flooding(&self) -> bool {
        let resets = self.premature_resets.get();
        resets >= PREMATURE_RESETS && resets > self.requests.get() / 2
    }
}

enum Action {
    /// End with the response under way.
    Drain,
    /// End now.
    Cut,
}

/// The timeouts of a connection, with one timer for all of them.
struct Watch<'a> {
    connection: &'a Connection,
    timer: Timer,
    began: Instant,
    /// First byte of a head that is not complete.
    head_since: Option<Instant>,
    /// When draining is over, for an idle connection.
    drain: Option<Instant>,
    /// When hyper was told to end the connection.
    shutting_down_since: Option<Instant>,
    blocked_since: Option<(Instant, u64)>,
    drained_by_age: bool,
}

impl<'a> Watch<'a> {
    fn new(connection: &'a Rc<Connection>) -> Self {
        Self {
            connection,
            timer: Timer::new(&connection.local.timers),
            began: Instant::now(),
            head_since: None,
            drain: None,
            shutting_down_since: None,
            blocked_since: None,
            drained_by_age: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, http2: bool) -> Poll<Action> {
        let connection = self.connection;
        let config = &connection.manager.config;
        let meter = &connection.meter;
        let idle = connection.active.get() == 0;

        let in_head = idle && !http2 && connection.has_begun_a_head();
        let head = in_head.then(|| {
            let since = *self.head_since.get_or_insert_with(Instant::now);
            since + config.request_headers_timeout.unwrap_or(HEADERS_TIMEOUT)
        });
        if !in_head {
            self.head_since = None;
        }

        let idle_deadline = match self.shutting_down_since {
            // A client that does not take its leave is not waited for.
            Some(since) => idle.then(|| since + config.drain_timeout),
            None => config
                .idle_timeout
                .filter(|_| idle && !in_head)
                .map(|limit| connection.idle_since.get() + limit),
        };

        let sent = meter.sent.load(Relaxed);
        if !meter.blocked.load(Relaxed) {
            self.blocked_since = None;
        } else if self.blocked_since.is_none_or(|(_, before)| before != sent) {
            self.blocked_since = Some((Instant::now(), sent));
        }
        let blocked_limit = config.stream_idle_timeout.unwrap_or(BLOCKED_TIMEOUT);
        let blocked = self.blocked_since.map(|(since, _)| since + blocked_limit);

        let age = config
            .max_connection_duration
            .filter(|_| !self.drained_by_age)
            .map(|limit| self.began + limit);

        let deadline =
            earlier(earlier(head, idle_deadline), earlier(blocked, earlier(age, self.drain)));
        std::task::ready!(self.timer.poll(cx, deadline));

        let now = Instant::now();
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        let stats = connection.stats();
        Poll::Ready(if passed(head) {
            stats.downstream_rq_header_timeout.inc();
            Action::Cut
        } else if passed(blocked) {
            stats.downstream_rq_idle_timeout.inc();
            Action::Cut
        } else if passed(idle_deadline) {
            if self.shutting_down_since.is_some() {
                return Poll::Ready(Action::Cut);
            }
            stats.downstream_cx_idle_timeout.inc();
            Action::Drain
        } else {
            if passed(age) {
                self.drained_by_age = true;
                stats.downstream_cx_max_duration_reached.inc();
            }
            Action::Drain
        })
    }
}
