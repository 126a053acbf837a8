//! An HTTP upstream that records exactly what reached it and answers as the test says.
//!
//! It speaks HTTP/1 and HTTP/2, whichever the connection opens with, in plain or over TLS. Answers are taken from a
//! script, one a request; when the script is empty, `200` with the upstream's name as body.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::address;

static SEQUENCE: AtomicU64 = AtomicU64::new(0);

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: String,
    /// The method.
    pub method: String,
    /// Path and query, as sent.
    pub path: String,
    /// `:authority` or `Host`.
    pub authority: String,
    /// Every header field in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Bytes,
    /// Trailers, if there were any.
    pub trailers: Vec<(String, String)>,
    /// Orders the requests of all upstreams of the process.
    pub sequence: u64,
    /// Counts the connections of this upstream from 1.
    pub connection: u64,
    /// What TLS told, if there was TLS.
    pub tls: Option<TlsFacts>,
}

/// What the upstream learned from a TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// Server name the client asked for.
    pub sni: Option<String>,
    /// The protocol agreed on.
    pub alpn: Option<String>,
    /// Whether the client showed a certificate.
    pub client_certificate: bool,
}

/// How to answer one request.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    chunks: Vec<Bytes>,
    trailers: Vec<(String, String)>,
    delay: Duration,
    chunk_delay: Duration,
    end: End,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// In order.
    Whole,
    /// The connection (HTTP/2: the stream) breaks before any of it.
    NoAnswer,
    /// It breaks after what `chunks` holds.
    MidBody,
    /// The head, then every byte comes back.
    Upgrade,
}

impl Reply {
    /// An answer with this status and an empty body.
    pub fn status(status: u16) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            chunks: Vec::new(),
            trailers: Vec::new(),
            delay: Duration::ZERO,
            chunk_delay: Duration::ZERO,
            end: End::Whole,
        }
    }

    /// No answer: the connection is closed, or the HTTP/2 stream reset, once the request is read.
    pub fn reset() -> Reply {
        Reply { end: End::NoAnswer, ..Reply::status(500) }
    }

    /// `101 Switching Protocols`; from then on every byte comes back.
    pub fn upgrade(protocol: &str) -> Reply {
        Reply { end: End::Upgrade, ..Reply::status(101) }
            .header("connection", "upgrade")
            .header("upgrade", protocol)
    }

    /// `200` to a CONNECT, plain or extended; from then on every byte comes back.
    pub fn connected() -> Reply {
        Reply { end: End::Upgrade, ..Reply::status(200) }
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A body with a known length.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Reply {
        let body = body.into();
        self.headers.push(("content-length".to_owned(), body.len().to_string()));
        self.chunks = vec![body];
        self
    }

    /// A body of unknown length, in these pieces.
    #[must_use]
    pub fn chunks(mut self, chunks: &[&str]) -> Reply {
        self.chunks = chunks.iter().map(|chunk| Bytes::from((*chunk).to_owned())).collect();
        self
    }

    /// Adds a trailer field.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: &str) -> Reply {
        self.trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Waits before the answer begins.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Reply {
        self.delay = delay;
        self
    }

    /// Waits before each piece of the body.
    #[must_use]
    pub fn between_chunks(mut self, delay: Duration) -> Reply {
        self.chunk_delay = delay;
        self
    }

    /// Breaks off after the pieces of the body, without ending it.
    #[must_use]
    pub fn broken(mut self) -> Reply {
        self.end = End::MidBody;
        self
    }
}

struct State {
    name: String,
    script: Mutex<VecDeque<Reply>>,
    default: Mutex<Option<Reply>>,
    recorded: Mutex<Vec<Recorded>>,
    connections: AtomicU64,
    open: AtomicU64,
}

/// A running upstream. It stops when dropped.
pub struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

impl Upstream {
    /// Starts a plaintext upstream on a loopback address of its own.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(name: &str) -> Result<Upstream> {
        Upstream::start_with(name, address::free()?, None).await
    }

    /// Starts one that expects TLS.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start_tls(name: &str, config: Arc<rustls::ServerConfig>) -> Result<Upstream> {
        Upstream::start_with(name, address::free()?, Some(config)).await
    }

    /// Starts one at a given address.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start_with(
        name: &str,
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Result<Upstream> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            name: name.to_owned(),
            script: Mutex::default(),
            default: Mutex::default(),
            recorded: Mutex::default(),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state), tls));
        Ok(Upstream { address, state, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Answers the next requests with these, in order.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.state.script).extend(replies);
    }

    /// Answers with this whenever the script is empty; `None`: as at the start.
    pub fn default_reply(&self, reply: Option<Reply>) {
        *lock(&self.state.default) = reply;
    }

    /// What arrived since the last call, in order; the script is emptied.
    pub fn take(&self) -> Vec<Recorded> {
        lock(&self.state.script).clear();
        std::mem::take(&mut *lock(&self.state.recorded))
    }

    /// How many requests arrived since the last [`Upstream::take`].
    pub fn count(&self) -> usize {
        lock(&self.state.recorded).len()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> u64 {
        self.state.open.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, tls: Option<Arc<rustls::ServerConfig>>) {
    // Connections end with the listener: a stopped upstream is gone, as a killed process is.
    let mut serving = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let state = Arc::clone(&state);
                let tls = tls.clone();
                serving.spawn(async move {
                    let connection = state.connections.fetch_add(1, Ordering::Relaxed) + 1;
                    state.open.fetch_add(1, Ordering::Relaxed);
                    match tls {
                        None => serve(stream, &state, connection, None).await,
                        Some(config) => {
                            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                                let facts = tls_facts(stream.get_ref().1);
                                serve(stream, &state, connection, Some(facts)).await;
                            }
                        }
                    }
                    state.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Some(_) = serving.join_next() => {}
        }
    }
}

fn tls_facts(session: &rustls::ServerConnection) -> TlsFacts {
    let alpn = session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
    TlsFacts {
        sni: session.server_name().map(str::to_owned),
        alpn,
        client_certificate: session.peer_certificates().is_some(),
    }
}

async fn serve<S>(stream: S, state: &Arc<State>, connection: u64, tls: Option<TlsFacts>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let state = Arc::clone(state);
        let tls = tls.clone();
        async move { answer(request, &state, connection, tls).await }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // What the proxies did to the header is what is tested, so this end adds nothing.
    builder.http1().auto_date_header(false);
    builder.http2().auto_date_header(false).enable_connect_protocol();
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

async fn answer(
    mut request: http::Request<Incoming>,
    state: &State,
    connection: u64,
    tls: Option<TlsFacts>,
) -> Result<http::Response<Body>, std::io::Error> {
    let reply = lock(&state.script).pop_front();
    let reply = reply.or_else(|| lock(&state.default).clone());
    let reply = reply.unwrap_or_else(|| Reply::status(200).body(state.name.clone()));
    let upgrade = hyper::upgrade::on(&mut request);
    let recorded = record(request, connection, tls).await;
    if let Some(recorded) = recorded {
        lock(&state.recorded).push(recorded);
    }
    if !reply.delay.is_zero() {
        tokio::time::sleep(reply.delay).await;
    }
    match reply.end {
        End::NoAnswer => return Err(std::io::Error::other("scripted reset")),
        End::Upgrade => drop(tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                echo(TokioIo::new(upgraded)).await;
            }
        })),
        End::Whole | End::MidBody => {}
    }
    let mut response = http::Response::builder().status(reply.status);
    if let Some(headers) = response.headers_mut() {
        append(headers, &reply.headers);
    }
    response.body(reply_body(reply)).map_err(std::io::Error::other)
}

/// Reads the request to its end. A request whose body breaks off is not recorded.
async fn record(
    request: http::Request<Incoming>,
    connection: u64,
    tls: Option<TlsFacts>,
) -> Option<Recorded> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.ok()?;
    let trailers = body.trailers().map(fields).unwrap_or_default();
    let headers = fields(&parts.headers);
    let host = || parts.headers.get(http::header::HOST).map(text);
    let authority = parts.uri.authority().map(ToString::to_string).or_else(host);
    Some(Recorded {
        protocol: format!("{:?}", parts.version),
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        authority: authority.unwrap_or_default(),
        headers,
        body: body.to_bytes(),
        trailers,
        sequence: SEQUENCE.fetch_add(1, Ordering::Relaxed),
        connection,
        tls,
    })
}

fn reply_body(reply: Reply) -> Body {
    let Reply { chunks, trailers, chunk_delay, end, .. } = reply;
    let mut frames: VecDeque<Result<Frame<Bytes>, std::io::Error>> =
        chunks.into_iter().map(|chunk| Ok(Frame::data(chunk))).collect();
    if !trailers.is_empty() {
        let mut map = HeaderMap::new();
        append(&mut map, &trailers);
        frames.push_back(Ok(Frame::trailers(map)));
    }
    if end == End::MidBody {
        frames.push_back(Err(std::io::Error::other("scripted break")));
    }
    if chunk_delay.is_zero() && end == End::Whole && trailers.is_empty() && frames.len() <= 1 {
        let data = frames.pop_front().and_then(Result::ok).and_then(|frame| frame.into_data().ok());
        let whole = http_body_util::Full::new(data.unwrap_or_default());
        return whole.map_err(|never: Infallible| match never {}).boxed_unsync();
    }
    let body = stream::unfold(frames, move |mut frames| async move {
        let frame = frames.pop_front()?;
        // A break comes after what was said before it has left.
        let pause = if frame.is_err() { Duration::from_millis(20) } else { chunk_delay };
        tokio::time::sleep(pause).await;
        Some((frame, frames))
    });
    StreamBody::new(body).boxed_unsync()
}

async fn echo(mut stream: TokioIo<hyper::upgrade::Upgraded>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read) = stream.read(&mut buffer).await {
        if read == 0 || stream.write_all(buffer.get(..read).unwrap_or_default()).await.is_err() {
            break;
        }
    }
    let _ = stream.shutdown().await;
}

fn append(map: &mut HeaderMap, fields: &[(String, String)]) {
    for (name, value) in fields {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            map.append(name, value);
        }
    }
}

/// Every field of a header map, in order.
pub(crate) fn fields(map: &HeaderMap) -> Vec<(String, String)> {
    map.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
