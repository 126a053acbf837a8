//! gRPC calls of our own: one message there, or a stream of them, and one status back.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::body::{Fed, RequestBody};
use super::call::{Answer, CallError, call, converse, mark};
use super::headers::{GRPC_MESSAGE, GRPC_STATUS, GRPC_TIMEOUT};
use crate::config::grpc_service::GrpcService;
use crate::local::Local;

/// Most bytes of an answer that nobody looks into.
const MAX_ANSWER: usize = 64 * 1024;

/// Why a gRPC call did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrpcError {
    /// There was no answer.
    #[error("{0}")]
    Call(#[from] CallError),
    /// The server does not speak gRPC there.
    #[error("answered with HTTP status {0}")]
    Http(http::StatusCode),
    /// The server says no.
    #[error("answered with gRPC status {code}: {message}")]
    Status {
        /// The status; 2, which is unknown, where the answer has none.
        code: u32,
        /// What it says about it.
        message: String,
    },
}

/// Calls a method with one message, and waits for its status. What the answer says is not looked at.
///
/// # Errors
/// If there is no answer in time, or a status other than OK.
pub(crate) async fn notify(
    local: &Rc<Local>,
    service: &GrpcService,
    path: &'static str,
    message: &[u8],
    limit: Duration,
) -> Result<(), GrpcError> {
    let mut request = request(service, path, framed(message));
    if let Ok(value) = HeaderValue::from_str(&format!("{}m", limit.as_millis())) {
        request.headers_mut().insert(GRPC_TIMEOUT, value);
    }
    let answer =
        call(local, &service.cluster, request, Version::HTTP_2, Some(limit), MAX_ANSWER).await?;
    status(&answer)
}

/// Calls a method with one message, and waits for its one answer, of up to `most` bytes.
///
/// # Errors
/// If there is no answer in time, or a status other than OK, or no single message in it.
pub(crate) async fn ask(
    local: &Rc<Local>,
    service: &GrpcService,
    path: &'static str,
    message: &[u8],
    limit: Option<Duration>,
    most: usize,
) -> Result<Bytes, GrpcError> {
    let mut request = request(service, path, framed(message));
    if let Some(limit) = limit
        && let Ok(value) = HeaderValue::from_str(&format!("{}m", limit.as_millis()))
    {
        request.headers_mut().insert(GRPC_TIMEOUT, value);
    }
    mark(request.headers_mut(), limit);
    let answer = call(local, &service.cluster, request, Version::HTTP_2, limit, most).await?;
    status(&answer)?;
    let not_one = || GrpcError::Status { code: 13, message: "not one message".to_owned() };
    let (prefix, _) = answer.body.split_first_chunk::<5>().ok_or_else(not_one)?;
    let [compressed, length @ ..] = *prefix;
    let message = answer.body.slice(prefix.len()..);
    if compressed != 0 || message.len() != u32::from_be_bytes(length) as usize {
        return Err(not_one());
    }
    Ok(message)
}

/// A stream of messages to a method, which answers at its end.
pub(crate) struct Outgoing {
    messages: mpsc::Sender<Fed>,
    answered: JoinHandle<()>,
}

/// The stream is over.
#[derive(Debug)]
pub(crate) struct Broken;

impl Outgoing {
    /// Begins a call. Whether it comes about, the first message tells.
    pub(crate) fn open(local: &Rc<Local>, service: &GrpcService, path: &'static str) -> Self {
        let (messages, fed) = mpsc::channel(1);
        let request = request(service, path, RequestBody::Fed(Box::new(fed)));
        let (local, cluster) = (Rc::clone(local), Arc::clone(&service.cluster));
        let answered = tokio::task::spawn_local(async move {
            let answer = converse(&local, &cluster, request, Version::HTTP_2, MAX_ANSWER).await;
            let ended = answer.map_err(GrpcError::from).and_then(|answer| status(&answer));
            if let Err(error) = ended {
                tracing::debug!(%error, %cluster, path, "a stream of ours ended");
            }
        });
        Self { messages, answered }
    }

    /// Sends a message: returns when it is on its way, for which the server has to take it.
    ///
    /// # Errors
    /// If the stream ends before.
    pub(crate) async fn send(&self, message: &[u8]) -> Result<(), Broken> {
        let (taken, is_taken) = oneshot::channel();
        let fed = Fed { data: framed(message), taken };
        self.messages.send(fed).await.map_err(|_| Broken)?;
        is_taken.await.map_err(|_| Broken)
    }

    /// Ends the stream and waits for the answer.
    pub(crate) async fn finish(self) {
        drop(self.messages);
        // A panic there has been reported already.
        let _ = self.answered.await;
    }
}

/// A message with its length in front.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    // A message of 4 GiB is not made here.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// A request to a method.
pub(crate) fn request<B>(service: &GrpcService, path: &'static str, body: B) -> Request<B> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    let headers = request.headers_mut();
    let authority = service.authority.as_deref().unwrap_or(&service.cluster);
    if let Ok(host) = HeaderValue::from_str(authority) {
        headers.insert(header::HOST, host);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let agent = concat!("outrigger/", env!("CARGO_PKG_VERSION"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    for (name, value) in &service.initial_metadata {
        // Both were checked with the configuration.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            headers.append(name, value);
        }
    }
    request
}

/// What an answer says of how the call went.
fn status(answer: &Answer) -> Result<(), GrpcError> {
    if !answer.head.status.is_success() {
        return Err(GrpcError::Http(answer.head.status));
    }
    let read = |headers: &HeaderMap| {
        let code: u32 = headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()?;
        let message = headers.get(GRPC_MESSAGE).and_then(|message| message.to_str().ok());
        Some((code, message.unwrap_or_default().to_owned()))
    };
    match read(&answer.trailers).or_else(|| read(&answer.head.headers)) {
        Some((0, _)) => Ok(()),
        Some((code, message)) => Err(GrpcError::Status { code, message }),
        None => Err(GrpcError::Status { code: 2, message: "there is no status".to_owned() }),
    }
}
