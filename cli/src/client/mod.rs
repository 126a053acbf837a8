//! The client of the mesh API (REST, see the control plane's `api`).
//!
//! - [`Api`]: where it is, and one call.
//! - [`types`]: what comes back.
//! - [`error`]: what may go wrong, in words that say what to do.

mod error;
#[cfg(test)]
mod tests;
mod types;

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;

pub(crate) use self::error::ApiError;
pub(crate) use self::types::{
    Applied, Change, Effect, Endpoint, FieldError, HistoryItem, Items, Object, ObjectStatus,
    Sidecar, Status, Token,
};

/// Where the API is looked for unless told otherwise.
pub(crate) const DEFAULT_API: &str = "http://127.0.0.1:7700";

/// How long a call may take when it is not asked to wait for anything.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// A mesh API.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    base: String,
    host: String,
    port: u16,
    token: Option<String>,
}

impl Api {
    /// The API at a URL such as `http://127.0.0.1:7700`.
    ///
    /// # Errors
    /// When it is not such a URL, in words.
    pub(crate) fn new(url: &str) -> Result<Self, String> {
        let invalid = |why: &str| format!("{url:?} is not the URL of an API: {why}");
        let uri: Uri = url.parse().map_err(|error| invalid(&format!("{error}")))?;
        if uri.scheme_str() != Some("http") {
            return Err(invalid("it must begin with http://"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| invalid("no host"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(invalid("nothing may follow the host and port"));
        }
        let port = uri.port_u16().unwrap_or(80);
        Ok(Self {
            base: format!("http://{host}:{port}"),
            // An IPv6 address stands in brackets in a URL, and without them in a socket address.
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            token: None,
        })
    }

    /// With a bearer token.
    pub(crate) fn with_token(mut self, token: Option<String>) -> Self {
        self.token = token;
        self
    }

    /// The URL, without a slash at its end.
    pub(crate) fn url(&self) -> &str {
        &self.base
    }

    /// GET, as raw JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.call(Method::GET, path, None, CALL_TIMEOUT).await
    }

    /// GET, as text.
    pub(crate) async fn get_text(&self, path: &str) -> Result<String, ApiError> {
        let body = self.exchange(Method::GET, path, None, CALL_TIMEOUT).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// GET, as a type.
    pub(crate) async fn get_as<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        typed(path, self.get(path).await?)
    }

    /// POST of a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        let body = Some(("application/json", Bytes::from(body.to_string())));
        self.call(Method::POST, path, body, CALL_TIMEOUT).await
    }

    /// POST of a JSON body to what may wait for so long before it answers.
    pub(crate) async fn post_waiting(
        &self,
        path: &str,
        body: &Value,
        wait: Duration,
    ) -> Result<Value, ApiError> {
        let body = Some(("application/json", Bytes::from(body.to_string())));
        self.call(Method::POST, path, body, CALL_TIMEOUT + wait).await
    }

    /// DELETE.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), ApiError> {
        self.exchange(Method::DELETE, path, None, CALL_TIMEOUT).await.map(drop)
    }

    /// Applies resources (YAML or JSON documents) in one transaction.
    pub(crate) async fn apply(&self, documents: &str, options: Apply) -> Result<Value, ApiError> {
        let mut path = "/v1/apply".to_owned();
        let mut query = Vec::new();
        if options.dry_run {
            query.push("dryRun=true".to_owned());
        }
        if let Some(wait) = options.wait {
            query.push(format!("wait={}ms", wait.as_millis()));
        }
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        let body = Some(("application/yaml", Bytes::from(documents.to_owned())));
        let timeout = CALL_TIMEOUT + options.wait.unwrap_or_default();
        self.call(Method::POST, &path, body, timeout).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Bytes)>,
        timeout: Duration,
    ) -> Result<Value, ApiError> {
        let body = self.exchange(method, path, body, timeout).await?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body)
            .map_err(|error| ApiError::Answer { path: path.to_owned(), why: error.to_string() })
    }

    /// One request on a connection of its own; a command makes few.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Bytes)>,
        timeout: Duration,
    ) -> Result<Bytes, ApiError> {
        let request = self.request(method, path, body)?;
        let response = tokio::time::timeout(timeout, self.send(request))
            .await
            .map_err(|_| ApiError::Timeout { url: self.base.clone(), after: timeout })??;
        let (parts, body) = response;
        if parts.status.is_success() {
            return Ok(body);
        }
        Err(ApiError::refused(parts.status, path, &body))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Request<Full<Bytes>>, ApiError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.base.trim_start_matches("http://"));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match body {
            Some((content_type, body)) => {
                request = request.header(CONTENT_TYPE, content_type);
                body
            }
            None => Bytes::new(),
        };
        request
            .body(Full::new(body))
            .map_err(|error| ApiError::Answer { path: path.to_owned(), why: error.to_string() })
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(http::response::Parts, Bytes), ApiError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(&error))?;
        let connection = tokio::spawn(connection);
        let response =
            sender.send_request(request).await.map_err(|error| self.unreachable(&error))?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| self.unreachable(&error))?.to_bytes();
        connection.abort();
        Ok((parts, body))
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> ApiError {
        let mut why = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            why = format!("{why}: {cause}");
            source = cause.source();
        }
        ApiError::Unreachable { url: self.base.clone(), why }
    }
}

/// How to apply.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Apply {
    /// Only say what would change.
    pub(crate) dry_run: bool,
    /// Answer when every sidecar concerned serves the new revision, or when so much time has passed.
    pub(crate) wait: Option<Duration>,
}

/// Reads an answer as a type.
///
/// # Errors
/// [`ApiError::Answer`] naming the path of the call.
pub(crate) fn typed<T: DeserializeOwned>(path: &str, value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value)
        .map_err(|error| ApiError::Answer { path: path.to_owned(), why: error.to_string() })
}
