//! A client that sends one request on a connection of its own and reports everything that came back.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::upstream::fields;

/// How long a request may take as a whole. Nothing in the tests is meant to take this long.
const LIMIT: Duration = Duration::from_secs(30);

/// The HTTP version to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, with prior knowledge or by ALPN.
    Http2,
}

/// A request to send.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    path: String,
    host: String,
    headers: Vec<(String, String)>,
    body: Body,
    trailers: Vec<(String, String)>,
    protocol: Protocol,
    /// What an extended CONNECT asks for (RFC 8441).
    extended: Option<String>,
    tls: Option<Tls>,
}

#[derive(Debug, Clone)]
enum Body {
    Empty,
    Whole(Bytes),
    Chunks(Vec<Bytes>),
}

/// What to do about TLS.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Trust and client certificate.
    pub config: Arc<rustls::ClientConfig>,
    /// The server name to ask for and verify; an address sends no SNI.
    pub server_name: String,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A response head, and as much of the rest as came.
    Response(Response),
    /// No response. The text names the cause in words that do not depend on the peer.
    Failed(String),
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Every header field in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, as far as it came.
    pub body: Bytes,
    /// Trailers, if there were any.
    pub trailers: Vec<(String, String)>,
    /// The body broke off.
    pub truncated: bool,
}

impl Request {
    /// A request without a body; Host is `test.example`.
    pub fn new(method: &str, path: &str) -> Request {
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            host: "test.example".to_owned(),
            headers: Vec::new(),
            body: Body::Empty,
            trailers: Vec::new(),
            protocol: Protocol::Http1,
            extended: None,
            tls: None,
        }
    }

    /// `CONNECT authority`.
    pub fn connect(authority: &str) -> Request {
        Request::new("CONNECT", "").host(authority)
    }

    /// `GET path`.
    pub fn get(path: &str) -> Request {
        Request::new("GET", path)
    }

    /// `POST path` with a body of known length.
    pub fn post(path: &str, body: impl Into<Bytes>) -> Request {
        Request { body: Body::Whole(body.into()), ..Request::new("POST", path) }
    }

    /// Sets the authority (`Host`).
    #[must_use]
    pub fn host(mut self, host: &str) -> Request {
        self.host = host.to_owned();
        self
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A body of unknown length, in these pieces.
    #[must_use]
    pub fn chunks(mut self, chunks: &[&str]) -> Request {
        self.body =
            Body::Chunks(chunks.iter().map(|chunk| Bytes::from((*chunk).to_owned())).collect());
        self
    }

    /// Adds a trailer field; the body must be one of unknown length.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: &str) -> Request {
        self.trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Speaks HTTP/2.
    #[must_use]
    pub fn http2(mut self) -> Request {
        self.protocol = Protocol::Http2;
        self
    }

    /// Speaks HTTP/2, and makes a CONNECT an extended one that asks for this protocol.
    #[must_use]
    pub fn extended(mut self, protocol: &str) -> Request {
        self.extended = Some(protocol.to_owned());
        self.http2()
    }

    /// Speaks TLS.
    #[must_use]
    pub fn tls(mut self, config: &Arc<rustls::ClientConfig>, server_name: &str) -> Request {
        self.tls = Some(Tls { config: Arc::clone(config), server_name: server_name.to_owned() });
        self
    }

    /// The version that it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Sends it on a new connection to `address` and waits for the end of the answer.
    pub async fn send(&self, address: SocketAddr) -> Outcome {
        match tokio::time::timeout(LIMIT, self.try_send(address)).await {
            Ok(Ok(response)) => Outcome::Response(response),
            Ok(Err(error)) => Outcome::Failed(cause(&error)),
            Err(_) => Outcome::Failed("no answer".to_owned()),
        }
    }

    async fn try_send(&self, address: SocketAddr) -> Result<Response> {
        let mut connection = Connection::open(address, self.protocol, self.tls.as_ref()).await?;
        connection.send(self).await
    }

    fn to_http(&self) -> Result<http::Request<OutgoingBody>> {
        let uri = match self.protocol {
            _ if self.method == "CONNECT" && self.extended.is_none() => self.host.clone(),
            Protocol::Http1 => self.path.clone(),
            Protocol::Http2 => {
                let scheme = if self.tls.is_some() { "https" } else { "http" };
                format!("{scheme}://{}{}", self.host, self.path)
            }
        };
        let mut request = http::Request::builder().method(self.method.as_str()).uri(uri);
        let headers = request.headers_mut().context("request head")?;
        if self.protocol == Protocol::Http1 && !self.host.is_empty() {
            headers.append(http::header::HOST, HeaderValue::from_str(&self.host)?);
        }
        append(headers, &self.headers)?;
        let mut request = request.body(self.outgoing_body()?)?;
        if let Some(protocol) = &self.extended {
            // hyper takes only static text; the tests name few protocols.
            let protocol = match protocol.as_str() {
                "websocket" => hyper::ext::Protocol::from_static("websocket"),
                _ => hyper::ext::Protocol::from_static("other"),
            };
            request.extensions_mut().insert(protocol);
        }
        Ok(request)
    }

    fn outgoing_body(&self) -> Result<OutgoingBody> {
        let never = |never: Infallible| match never {};
        Ok(match &self.body {
            Body::Empty => http_body_util::Empty::new().map_err(never).boxed_unsync(),
            Body::Whole(body) => Full::new(body.clone()).map_err(never).boxed_unsync(),
            Body::Chunks(chunks) => {
                let mut frames: Vec<_> =
                    chunks.iter().cloned().map(|chunk| Ok(Frame::data(chunk))).collect();
                if !self.trailers.is_empty() {
                    let mut map = HeaderMap::new();
                    append(&mut map, &self.trailers)?;
                    frames.push(Ok(Frame::trailers(map)));
                }
                StreamBody::new(stream::iter(frames)).boxed_unsync()
            }
        })
    }
}

impl Outcome {
    /// The status code; 0 if there was no response.
    pub fn status(&self) -> u16 {
        match self {
            Outcome::Response(response) => response.status,
            Outcome::Failed(_) => 0,
        }
    }

    /// The first value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        match self {
            Outcome::Response(response) => first(&response.headers, name),
            Outcome::Failed(_) => None,
        }
    }

    /// The body as text.
    pub fn body(&self) -> String {
        match self {
            Outcome::Response(response) => String::from_utf8_lossy(&response.body).into_owned(),
            Outcome::Failed(_) => String::new(),
        }
    }
}

/// The first value of a field.
pub fn first<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

type OutgoingBody = UnsyncBoxBody<Bytes, Infallible>;

/// A connection that can carry several requests, one after the other.
pub struct Connection {
    sender: Sender,
    driver: tokio::task::JoinHandle<()>,
}

enum Sender {
    Http1(hyper::client::conn::http1::SendRequest<OutgoingBody>),
    Http2(hyper::client::conn::http2::SendRequest<OutgoingBody>),
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// TCP or TLS cannot be set up, or TLS agreed on another protocol.
    pub async fn open(
        address: SocketAddr,
        protocol: Protocol,
        tls: Option<&Tls>,
    ) -> Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        match tls {
            None => Connection::over(stream, protocol).await,
            Some(tls) => {
                let name = ServerName::try_from(tls.server_name.clone())?;
                let mut config = (*tls.config).clone();
                if config.alpn_protocols.is_empty() && protocol == Protocol::Http2 {
                    config.alpn_protocols = vec![b"h2".to_vec()];
                }
                let connector = TlsConnector::from(Arc::new(config));
                Connection::over(connector.connect(name, stream).await?, protocol).await
            }
        }
    }

    async fn over<S>(stream: S, protocol: Protocol) -> Result<Connection>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        Ok(match protocol {
            Protocol::Http1 => {
                let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
                let driver = tokio::spawn(async move {
                    let _ = connection.with_upgrades().await;
                });
                Connection { sender: Sender::Http1(sender), driver }
            }
            Protocol::Http2 => {
                let (sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
                let driver = tokio::spawn(async move {
                    let _ = connection.await;
                });
                Connection { sender: Sender::Http2(sender), driver }
            }
        })
    }

    /// Sends a request and waits for the end of its answer.
    ///
    /// # Errors
    /// There is no response head.
    pub async fn send(&mut self, request: &Request) -> Result<Response> {
        let response = self.start(request).await?;
        Ok(collect(response).await)
    }

    /// Sends a request and waits for the head of its answer only.
    ///
    /// # Errors
    /// There is no response head.
    pub async fn start(&mut self, request: &Request) -> Result<http::Response<Incoming>> {
        let request = request.to_http()?;
        Ok(match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        })
    }

    /// Asks for a tunnel, says `bytes` through it, waits until they have come back, ends its side and reads the rest. The
    /// body is all that came back; a refusal is an ordinary response.
    ///
    /// # Errors
    /// There is no response head.
    pub async fn tunnel(&mut self, request: &Request, bytes: &[u8]) -> Result<Response> {
        let response = self.start(request).await?;
        let status = response.status();
        let agreed = status == http::StatusCode::SWITCHING_PROTOCOLS
            || (request.method == "CONNECT" && status.is_success());
        if !agreed {
            return Ok(collect(response).await);
        }
        let headers = fields(response.headers());
        let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await?);
        let mut body = Vec::new();
        let truncated = through(&mut tunnel, bytes, &mut body).await.is_err();
        Ok(Response {
            status: status.as_u16(),
            headers,
            body: Bytes::from(body),
            trailers: Vec::new(),
            truncated,
        })
    }

    /// Whether the peer has closed it.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn through(
    tunnel: &mut TokioIo<hyper::upgrade::Upgraded>,
    bytes: &[u8],
    back: &mut Vec<u8>,
) -> Result<()> {
    tunnel.write_all(bytes).await?;
    tunnel.flush().await?;
    while !back.ends_with(bytes) {
        if tunnel.read_buf(back).await? == 0 {
            return Ok(());
        }
    }
    tunnel.shutdown().await?;
    tunnel.read_to_end(back).await?;
    Ok(())
}

async fn collect(response: http::Response<Incoming>) -> Response {
    let (parts, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    let mut trailers = Vec::new();
    let mut truncated = false;
    while let Some(frame) = incoming.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => body.extend_from_slice(&data),
            Ok(Err(other)) => {
                trailers = other.trailers_ref().map(fields).unwrap_or_default();
            }
            Err(_) => {
                truncated = true;
                break;
            }
        }
    }
    Response {
        status: parts.status.as_u16(),
        headers: fields(&parts.headers),
        body: Bytes::from(body),
        trailers,
        truncated,
    }
}

/// Sends bytes as they are and reads until the peer closes, or says nothing more for half a second.
///
/// # Errors
/// The connection cannot be opened or written.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    let quiet = Duration::from_millis(500);
    while let Ok(Ok(read)) = tokio::time::timeout(quiet, stream.read(&mut buffer)).await {
        if read == 0 {
            break;
        }
        answer.extend_from_slice(buffer.get(..read).unwrap_or_default());
    }
    Ok(answer)
}

/// Sets up TLS and waits whether the server objects: with TLS 1.3 the handshake is over for the client before the server
/// has looked at its certificate. Says what was agreed on, or why not.
pub async fn handshake(address: SocketAddr, tls: &Tls) -> String {
    match try_handshake(address, tls).await {
        Ok(agreed) => agreed,
        Err(error) => format!("refused: {}", cause(&error)),
    }
}

async fn try_handshake(address: SocketAddr, tls: &Tls) -> Result<String> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(tls.server_name.clone())?;
    let mut stream = TlsConnector::from(Arc::clone(&tls.config)).connect(name, stream).await?;
    let mut byte = [0];
    match tokio::time::timeout(Duration::from_millis(300), stream.read(&mut byte)).await {
        // HTTP/2 servers speak first.
        Err(_) | Ok(Ok(1)) => {}
        Ok(Ok(_)) => anyhow::bail!("closed"),
        Ok(Err(error)) => return Err(error.into()),
    }
    let session = stream.get_ref().1;
    let alpn = session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
    let version = session.protocol_version().context("no version")?;
    Ok(format!("{version:?}, ALPN {}", alpn.unwrap_or_else(|| "none".to_owned())))
}

/// The root cause in words that are the same whoever the peer is.
pub fn cause(error: &anyhow::Error) -> String {
    for source in error.chain() {
        if let Some(error) = source.downcast_ref::<h2::Error>()
            && let Some(reason) = error.reason()
        {
            return format!("HTTP/2 {reason:?}");
        }
        let tls = source.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(error) = tls.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return match error {
                rustls::Error::AlertReceived(alert) => format!("TLS alert {alert:?}"),
                rustls::Error::InvalidCertificate(_) => "server certificate refused".to_owned(),
                other => format!("TLS: {other}"),
            };
        }
        if let Some(error) = source.downcast_ref::<std::io::Error>() {
            match error.kind() {
                std::io::ErrorKind::ConnectionRefused => return "connection refused".to_owned(),
                std::io::ErrorKind::ConnectionReset
                | std::io::ErrorKind::BrokenPipe
                | std::io::ErrorKind::UnexpectedEof => {
                    return "closed without a response".to_owned();
                }
                _ => {}
            }
        }
        if let Some(error) = source.downcast_ref::<hyper::Error>()
            && (error.is_incomplete_message() || error.is_canceled() || error.is_closed())
        {
            return "closed without a response".to_owned();
        }
    }
    error.root_cause().to_string()
}

fn append(map: &mut HeaderMap, fields: &[(String, String)]) -> Result<()> {
    for (name, value) in fields {
        map.append(
            HeaderName::from_bytes(name.as_bytes())?,
            HeaderValue::from_bytes(value.as_bytes())?,
        );
    }
    Ok(())
}
