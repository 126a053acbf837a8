//! HTTP/1 and HTTP/2 as health checks speak them: one request after the other on a connection that is kept.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, Uri, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::connect::{connect, transport};
use super::judge::Failure;
use super::{Plan, Target};
use crate::config::header::{AppendAction, HeaderMutations, HeaderTemplate};

/// A connection that takes requests.
pub(super) enum HttpClient {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// What is asked.
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) path: PathAndQuery,
    /// Without `Host`.
    pub(super) headers: HeaderMap,
    pub(super) host: HeaderValue,
    pub(super) body: Bytes,
    /// The length of the body is said in front of it.
    pub(super) announces_length: bool,
    pub(super) http2: bool,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Who health checks say they are.
pub(super) const USER_AGENT: HeaderValue = HeaderValue::from_static("Envoy/HC");

/// Sends a request on the connection that is kept, or on a new one, which is kept then. Returns the head of the response.
pub(super) async fn ask(
    kept: &mut Option<HttpClient>,
    plan: &Plan,
    target: &Target,
    question: &Question,
) -> Result<Response<Incoming>, Failure> {
    loop {
        let before = kept.take();
        let was_kept = before.is_some();
        let still_there = match before {
            Some(client) => client.when_ready().await,
            None => None,
        };
        let mut client = match still_there {
            Some(client) => client,
            None => HttpClient::connect(plan, target, question.http2).await?,
        };
        let https = transport(plan, target).is_some();
        match client.send(question.request(https)).await {
            Ok(response) => {
                *kept = Some(client);
                return Ok(response);
            }
            // The endpoint closed it while nothing was asked: nobody has seen the request.
            Err(error) if was_kept && error.is_canceled() => {}
            Err(error) => return Err(Failure::network(chain(&error))),
        }
    }
}

impl HttpClient {
    async fn connect(plan: &Plan, target: &Target, http2: bool) -> Result<Self, Failure> {
        let io = TokioIo::new(connect(plan, target).await?);
        if http2 {
            let builder = http2::Builder::new(TokioExecutor::new());
            let (sender, connection) =
                builder.handshake(io).await.map_err(|error| Failure::network(chain(&error)))?;
            // It ends with the sender. What goes wrong on it, requests are told.
            tokio::spawn(async { drop(connection.await) });
            Ok(Self::Http2(sender))
        } else {
            let (sender, connection) = http1::Builder::new()
                .handshake(io)
                .await
                .map_err(|error| Failure::network(chain(&error)))?;
            tokio::spawn(async { drop(connection.await) });
            Ok(Self::Http1(sender))
        }
    }

    /// Waits until it takes a request; `None` if it takes no more.
    async fn when_ready(mut self) -> Option<Self> {
        let ready = match &mut self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        };
        ready.ok().map(|()| self)
    }

    async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => sender.send_request(request).await,
        }
    }
}

impl Question {
    fn body(&self) -> Body {
        let whole = Full::new(self.body.clone());
        if self.announces_length {
            return whole.boxed_unsync();
        }
        StreamBody::new(whole.into_data_stream().map_ok(Frame::data)).boxed_unsync()
    }

    fn request(&self, https: bool) -> Request<Body> {
        let mut request = Request::new(self.body());
        *request.method_mut() = self.method.clone();
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(self.path.clone());
        let authority = Authority::try_from(self.host.as_bytes()).ok().filter(|_| self.http2);
        if let Some(authority) = authority {
            uri.scheme = Some(if https { Scheme::HTTPS } else { Scheme::HTTP });
            uri.authority = Some(authority);
            *request.version_mut() = Version::HTTP_2;
        } else {
            // Also in HTTP/2, for a host that is no authority, as the name of a cluster may be.
            request.headers_mut().insert(header::HOST, self.host.clone());
        }
        request.headers_mut().extend(self.headers.clone());
        // Cannot fail: a path alone, or all three.
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        request
    }
}

/// `Host` of a check: the endpoint's own, or what is configured, or the name of the cluster.
pub(super) fn host(plan: &Plan, target: &Target, configured: Option<&HeaderValue>) -> HeaderValue {
    let chosen = target.hostname.as_ref().or(configured).cloned();
    chosen.or_else(|| HeaderValue::from_str(&plan.cluster.name).ok()).unwrap_or_else(empty)
}

fn empty() -> HeaderValue {
    HeaderValue::from_static("")
}

/// Adds and removes what is configured.
pub(super) fn mutate(headers: &mut HeaderMap, mutations: &HeaderMutations) {
    for addition in &mutations.add {
        let HeaderTemplate::Fixed(value) = &addition.value else { continue };
        if value.is_empty() && !addition.keep_empty_value {
            continue;
        }
        let (name, value) = (&addition.name, value.clone());
        let exists = headers.contains_key(name);
        match addition.action {
            AppendAction::AppendIfExistsOrAdd => drop(headers.append(name, value)),
            AppendAction::OverwriteIfExistsOrAdd => drop(headers.insert(name, value)),
            AppendAction::AddIfAbsent if !exists => drop(headers.insert(name, value)),
            AppendAction::OverwriteIfExists if exists => drop(headers.insert(name, value)),
            AppendAction::AddIfAbsent | AppendAction::OverwriteIfExists => {}
        }
    }
    for name in &mutations.remove {
        headers.remove(name);
    }
}

/// An error with all its sources.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
