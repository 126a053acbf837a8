//! Keep-alive HTTP/1.1 connections to one address, the last used first. What the load generator and the demo's
//! applications send with.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

type Sender = SendRequest<Full<Bytes>>;

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The connection could not be made.
    #[error("connect to {0}: {1}")]
    Connect(SocketAddr, std::io::Error),
    /// No whole response within the time allowed.
    #[error("no response within {0:?}")]
    Timeout(Duration),
    /// The connection broke, or the peer broke the protocol, after the request was sent.
    #[error("{}", with_causes(.0))]
    Http(#[from] hyper::Error),
}

/// hyper prints only its own layer; the cause that helps is underneath.
fn with_causes(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The pool. Idle connections only; a connection in use belongs to its request.
#[derive(Debug)]
pub(crate) struct Pool {
    address: SocketAddr,
    timeout: Duration,
    idle: Mutex<Vec<Sender>>,
}

impl Pool {
    /// An empty pool for `address`; each request gets `timeout` from connect to the last byte of its response.
    pub(crate) fn new(address: SocketAddr, timeout: Duration) -> Self {
        Self { address, timeout, idle: Mutex::default() }
    }

    /// Sends the request and reads the whole response.
    ///
    /// # Errors
    /// [`SendError`]. A request is sent again only when an idle connection turned out to be closed before a byte of it
    /// was written.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, SendError> {
        tokio::time::timeout(self.timeout, self.send_unbounded(request))
            .await
            .unwrap_or(Err(SendError::Timeout(self.timeout)))
    }

    async fn send_unbounded(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, SendError> {
        while let Some(mut sender) = self.take_idle() {
            // The connection's task may still be busy with the end of the last response.
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return self.finish(sender, response).await,
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await?;
        self.finish(sender, response).await
    }

    async fn finish(
        &self,
        sender: Sender,
        response: Response<hyper::body::Incoming>,
    ) -> Result<Response<Bytes>, SendError> {
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        if !sender.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        }
        Ok(Response::from_parts(parts, body))
    }

    fn take_idle(&self) -> Option<Sender> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connect(&self) -> Result<Sender, SendError> {
        let failed = |error| SendError::Connect(self.address, error);
        let stream = TcpStream::connect(self.address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends when the sender is dropped or the peer closes; its error reaches us as the error of the request.
        tokio::spawn(connection);
        Ok(sender)
    }
}
