//! The REST interface: documents in, problems or revisions out, and the truth about the mesh.
//!
//! Reading order:
//! - [`Api`] and its routes, here; [`serve`], connections to requests.
//! - `input`, what is taken from a request, within which limits; `failure`, what is answered when something is wrong: an
//!   RFC 9457 problem, always.
//! - `change`, the one way in which the mesh changes, whoever asks; `objects` and `apply`, who ask over HTTP;
//!   [`directory`], who asks from a watched directory.
//! - [`roles`], who may do what; `audit`, who did what.
//! - `status` with its `alarms`, `history`, `tokens`, `identities`, `metrics`: the rest of the calls;
//!   `openapi`, all of them written down.
//! - [`view`], what the live side of the control plane must be able to answer.

mod alarms;
mod apply;
mod audit;
mod change;
pub mod directory;
mod failure;
mod history;
mod identities;
mod input;
mod metrics;
mod objects;
mod openapi;
pub mod roles;
mod seed;
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
use self::roles::Roles;
use self::view::{Identities, MeshView, TokenIssuer};
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
    identities: Arc<dyn Identities>,
    /// Who may do what; without, anybody may do everything.
    roles: Option<Roles>,
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

/// Who a request comes from.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// The name of its token.
    pub(crate) name: Option<Arc<str>>,
}

impl Peer {
    /// Who a change is ascribed to.
    pub(crate) fn author(&self) -> String {
        match &self.name {
            Some(name) => name.to_string(),
            None => format!("api@{}", self.address.to_canonical()),
        }
    }
}

/// What the API works with, beside the store.
pub struct Parts {
    /// What is going on.
    pub view: Arc<dyn MeshView>,
    /// Join tokens.
    pub tokens: Arc<dyn TokenIssuer>,
    /// Who has an identity.
    pub identities: Arc<dyn Identities>,
    /// Who may do what; without, anybody may do everything.
    pub roles: Option<Roles>,
    /// The directory that the mesh is configured from, and by nobody else.
    pub read_only: Option<PathBuf>,
}

impl Api {
    /// An API that says by `ready` whether the control plane serves; event streams end when it stops.
    pub fn new(store: Arc<dyn Store>, parts: Parts, ready: watch::Receiver<bool>) -> Arc<Self> {
        let Parts { view, tokens, identities, roles, read_only } = parts;
        Arc::new(Self {
            store,
            view,
            tokens,
            identities,
            roles,
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
            .route("/v1/identities", get(identities::list))
            .route("/v1/identities/{name}/revoke", post(identities::revoke))
            .route("/v1/ca", get(identities::authority))
            .route("/v1/ca/rotate", post(identities::rotate))
            .route("/v1/audit", get(audit::list))
            .route("/v1/{kind}", get(objects::list))
            .route("/v1/{kind}/{name}", get(objects::get).put(objects::put).delete(objects::delete))
            .route("/healthz", get(status::alive))
            .route("/readyz", get(status::ready))
            .route("/metrics", get(metrics::scrape))
            .route("/openapi.json", get(openapi::serve))
            .fallback(async |request: Request| Failure::no_such_path(request.uri().path()))
            .method_not_allowed_fallback(other_method)
            .layer(middleware::from_fn_with_state(Arc::clone(&self), roles::authorize))
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
const VERBS: [&str; 10] = [
    "apply",
    "export",
    "history",
    "events",
    "rollback",
    "status",
    "tokens",
    "identities",
    "ca",
    "audit",
];

async fn count(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    api.metrics.answered(response.status());
    response
}

/// Without roles the API asks nobody for a token, so a page from elsewhere must not be able to make
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
