//! The REST interface: documents in, problems or revisions out, and the truth about the mesh.
//!
//! Reading order:
//! - [`Api`] and its routes, here; [`serve`], connections to requests.
//! - `input`, what is taken from a request, within which limits; `failure`, what is answered when something is wrong: an
//!   RFC 9457 problem, always.
//! - `change`, the one way in which the mesh changes, whoever asks; `objects` and `apply`, who ask over HTTP;
//!   [`directory`], who asks from a watched directory.
//! - `status`, `history`, `tokens`, `metrics`: the rest of the calls.
//! - [`view`], what the live side of the control plane must be able to answer.

mod apply;
mod change;
pub mod directory;
mod failure;
mod history;
mod input;
mod metrics;
mod objects;
mod serve;
mod status;
mod tokens;
pub mod view;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use serve::serve;

use self::failure::Failure;
use self::metrics::Metrics;
use self::view::{MeshView, TokenIssuer};
use crate::model::Kind;
use crate::store::Store;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{Mutex, Semaphore, watch};

/// What the API works on.
pub struct Api {
    store: Arc<dyn Store>,
    view: Arc<dyn MeshView>,
    tokens: Arc<dyn TokenIssuer>,
    /// The directory that the mesh is configured from; nothing else changes it then.
    read_only: Option<PathBuf>,
    /// Whether everything that the control plane serves is being served.
    ready: watch::Receiver<bool>,
    /// Held from the reading of the configuration to the commit of its successor, so that writers of this process queue
    /// up rather than conflict.
    writing: Mutex<()>,
    /// Bodies that may be read at a time.
    reading: Semaphore,
    metrics: Metrics,
}

/// See [`Api::reading`].
const READERS: usize = 4;

/// The address a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl Api {
    /// An API that says by `ready` whether the control plane serves; event streams end when it stops. With `read_only` the mesh is configured from that directory and by
    /// nobody else.
    pub fn new(
        store: Arc<dyn Store>,
        view: Arc<dyn MeshView>,
        tokens: Arc<dyn TokenIssuer>,
        read_only: Option<PathBuf>,
        ready: watch::Receiver<bool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            view,
            tokens,
            read_only,
            ready,
            writing: Mutex::new(()),
            reading: Semaphore::new(READERS),
            metrics: Metrics::default(),
        })
    }

    /// Every path of the API.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/v1/apply", post(apply::apply))
            .route("/v1/export", get(apply::export))
            .route("/v1/history", get(history::list))
            .route("/v1/events", get(history::events))
            .route("/v1/rollback/{revision}", post(apply::rollback))
            .route("/v1/status", get(status::all))
            .route("/v1/status/{kind}/{name}", get(status::one))
            // Endpoints are listed as they are observed, whether they have an object or not.
            .route("/v1/endpoints", get(status::endpoints))
            .route("/v1/tokens", post(tokens::create))
            .route("/v1/{kind}", get(objects::list))
            .route("/v1/{kind}/{name}", get(objects::get).put(objects::put).delete(objects::delete))
            .route("/healthz", get(status::alive))
            .route("/readyz", get(status::ready))
            .route("/metrics", get(metrics::scrape))
            .fallback(async |request: Request| Failure::no_such_path(request.uri().path()))
            .method_not_allowed_fallback(other_method)
            .layer(middleware::from_fn(refuse_foreign_pages))
            .layer(middleware::from_fn_with_state(Arc::clone(&self), count))
            .with_state(self)
    }
}

/// The path has a route, but not for this method. A route for any kind is no path for what is not a kind.
async fn other_method(request: Request) -> Failure {
    let path = request.uri().path();
    let first = path.strip_prefix("/v1/").and_then(|rest| rest.split('/').next());
    match first {
        Some(word) if !VERBS.contains(&word) && Kind::from_plural(word).is_none() => {
            Failure::no_such_path(path)
        }
        _ => Failure::method_not_allowed(request.method(), path),
    }
}

/// What follows `/v1/` and is no kind.
const VERBS: [&str; 7] = ["apply", "export", "history", "events", "rollback", "status", "tokens"];

async fn count(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    api.metrics.answered(response.status());
    response
}

/// The API asks nobody for a password as long as it listens on loopback, so a page from elsewhere must not be able to make
/// a browser change the mesh.
async fn refuse_foreign_pages(request: Request, next: Next) -> Result<Response, Failure> {
    if comes_from_foreign_page(&request) {
        return Err(Failure::new(
            StatusCode::FORBIDDEN,
            "foreign-origin",
            "Request of a foreign page",
            "the Origin of the request is not this API",
        ));
    }
    Ok(next.run(request).await)
}

/// Browsers name the page's origin on every request that is more than a read.
fn comes_from_foreign_page(request: &Request) -> bool {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return false };
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return false;
    }
    let host = match request.headers().get(header::HOST) {
        Some(host) => host.to_str().ok(),
        None => request.uri().authority().map(|authority| authority.as_str()),
    };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    host.is_none() || origin.map(|(_, host)| host) != host
}
