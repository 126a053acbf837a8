//! An API over real HTTP for tests, with a live side that says what it is told.

use super::view::*;
use super::*;
use crate::model::{Config, Kind};
use crate::store::EmbeddedStore;
use axum::body::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A live side that says what it is told.
pub(super) struct FakeView {
    pub(super) acked: StdMutex<Acked>,
    pub(super) changes: watch::Sender<u64>,
    /// Whether there are sidecars.
    pub(super) members: AtomicBool,
}

impl FakeView {
    pub(super) fn set(&self, acked: usize, total: usize, laggards: &[&str]) {
        let laggards = laggards
            .iter()
            .map(|node| Laggard { node: (*node).to_owned(), reason: "no answer yet".to_owned() })
            .collect();
        *self.acked.lock().unwrap() = Acked { acked, total, laggards };
        self.changes.send_modify(|number| *number += 1);
    }
}

impl MeshView for FakeView {
    fn sidecars(&self) -> Vec<SidecarStatus> {
        if !self.members.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let rejected = TypeStatus::Rejected { reason: "no such thing".to_owned() };
        vec![SidecarStatus {
            node: "web-1".to_owned(),
            service: "web".to_owned(),
            instance: "web-1".to_owned(),
            connected: true,
            client: Client::Outrigger,
            revision: 3,
            listeners: TypeStatus::Ok,
            routes: TypeStatus::Pending,
            clusters: rejected,
            endpoints: TypeStatus::Ok,
            secrets: TypeStatus::Ok,
            certificate_expires: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400)),
            last_contact: SystemTime::UNIX_EPOCH,
        }]
    }

    fn endpoints(&self, service: Option<&str>) -> Vec<EndpointStatus> {
        let endpoint = |service: &str, health| EndpointStatus {
            service: service.to_owned(),
            instance: format!("{service}-1"),
            address: "127.0.0.1".to_owned(),
            port: 9000,
            health,
            ejected_until: None,
            ejected_because: None,
            weight: 1,
            active_requests: 0,
            locality: Default::default(),
            labels: Default::default(),
            seen_by: Vec::new(),
        };
        let all =
            [endpoint("api", EndpointHealth::Ejected), endpoint("web", EndpointHealth::Healthy)];
        all.into_iter().filter(|one| service.is_none_or(|name| one.service == name)).collect()
    }

    fn object(&self, _kind: Kind, _name: &str, _revision: u64) -> ObjectStatus {
        ObjectStatus { state: ObjectState::Accepted, acked: 1, total: 1, problems: Vec::new() }
    }

    fn acked(&self, _revision: u64) -> Acked {
        self.acked.lock().unwrap().clone()
    }

    fn effect(&self, config: Config) -> Effect {
        let sidecars = vec![SidecarEffect {
            node: "web-1".to_owned(),
            service: format!("of revision {}", config.revision()),
            ..SidecarEffect::default()
        }];
        Effect { changed: 1, total: 3, sidecars }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// An authority with one root, and one instance that can be revoked.
struct FakeIdentities;

impl Identities for FakeIdentities {
    fn identities(&self) -> Vec<IdentityStatus> {
        Vec::new()
    }

    fn revoke(&self, name: &str) -> Result<Revoked, RevokeError> {
        match name {
            "api" => Ok(Revoked { identities: Vec::new(), tokens: 2 }),
            "one" => Err(RevokeError::Ambiguous(vec!["one.api".to_owned(), "one.web".to_owned()])),
            _ => Err(RevokeError::Unknown),
        }
    }

    fn authority(&self) -> AuthorityStatus {
        let expires = SystemTime::now() + Duration::from_secs(400 * 86_400);
        AuthorityStatus {
            roots: vec![RootStatus { pin: "pin".to_owned(), expires }],
            issuing_expires: expires,
            rotation: None,
        }
    }

    fn rotate(&self) -> Result<(), String> {
        Ok(())
    }
}

struct FakeIssuer;

impl TokenIssuer for FakeIssuer {
    fn issue(&self, service: &str, ttl: Duration, uses: u32) -> Result<IssuedToken, String> {
        let token = format!("orj1.{service}.{uses}");
        Ok(IssuedToken { token, expires: SystemTime::UNIX_EPOCH + ttl })
    }
}

/// A running API.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) view: Arc<FakeView>,
    pub(super) api: Arc<Api>,
    pub(super) store: Arc<EmbeddedStore>,
    pub(super) ready: watch::Sender<bool>,
    pub(super) stop: CancellationToken,
    pub(super) served: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::start_with(None).await
    }

    pub(super) async fn start_with(read_only: Option<PathBuf>) -> Self {
        Self::start_for(None, read_only).await
    }

    pub(super) async fn start_for(roles: Option<Roles>, read_only: Option<PathBuf>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(EmbeddedStore::open(directory.path()).unwrap());
        let view = FakeView {
            acked: StdMutex::default(),
            changes: watch::Sender::new(0),
            members: AtomicBool::new(true),
        };
        let view = Arc::new(view);
        let (ready, is_ready) = watch::channel(true);
        let parts = Parts {
            view: view.clone(),
            tokens: Arc::new(FakeIssuer),
            identities: Arc::new(FakeIdentities),
            roles,
            read_only,
        };
        let api = Api::new(store.clone(), parts, is_ready);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, Arc::clone(&api).router(), stop.clone()));
        Self { address, view, api, store, ready, stop, served, _directory: directory }
    }

    /// Sends a request.
    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let body = Full::new(body.into());
        Answer::of(self.response(method, path, headers, body).await).await
    }

    /// Sends a request whose body comes in chunks, without its length.
    pub(super) async fn send_chunked(
        &self,
        method: &str,
        path: &str,
        chunks: Vec<Bytes>,
    ) -> Answer {
        let frames = chunks
            .into_iter()
            .map(|chunk| Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(chunk)));
        let body = StreamBody::new(futures_util::stream::iter(frames));
        Answer::of(self.response(method, path, &[], body).await).await
    }

    pub(super) async fn response<B>(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: B,
    ) -> hyper::Response<hyper::body::Incoming>
    where
        B: hyper::body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        sender.send_request(request.body(body).unwrap()).await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub(super) async fn apply(&self, documents: &str) -> Answer {
        self.send("POST", "/v1/apply", &[], documents.to_owned()).await
    }
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: http::HeaderMap,
    pub(super) text: String,
}

impl Answer {
    async fn of(response: hyper::Response<hyper::body::Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let text = body.collect().await.unwrap().to_bytes().to_vec();
        let text = String::from_utf8(text).unwrap();
        Self { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// A problem with this status, as RFC 9457 wants it.
    #[track_caller]
    pub(super) fn problem(&self, status: u16) -> serde_json::Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
        problem
    }
}
