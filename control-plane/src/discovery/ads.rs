//! The xDS services, aggregated and per type, in both protocol variants: requests in, what the stream says out.
//!
//! A response is made only when there is room to send it, so a slow client gets the newest state and nothing in between.

use crate::api::view::Client as ClientKind;
use crate::discovery::delta::Delta;
use crate::discovery::hub::{Hub, sleep_until};
use crate::discovery::resource_type::ResourceType;
use crate::discovery::sotw::Sotw;
use crate::discovery::status::Client;
use crate::discovery::stream::Stream;
use crate::discovery::subscription::{Request as _, Subscription};
use crate::discovery::wire::{DiscoveryCodec, RawResponse};
use crate::identity::{PeerIdentity, PeerInfo, REVOKED};
use crate::registry::{InstanceName, Needs};
use crate::translate::{ViewKey, World};
use axum::Router;
use axum::body::Body as AxumBody;
use axum::routing::post;
use outrigger_proto::envoy::config::core::v3::Node;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};

/// Larger requests are refused.
const MAX_REQUEST: usize = 10 << 20;

/// For so long a sidecar of ours is waited for at the registry.
const ATTACH_PATIENCE: Duration = Duration::from_secs(5);

/// Where a stream came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    /// mTLS: a client is who its certificate says.
    Mesh,
    /// Plaintext: a client is who it says, and gets what foreign clients get.
    Insecure,
}

/// Services and their two methods; what they serve, `None` for all types.
const SERVICES: [(&str, &str, &str, Option<ResourceType>); 6] = [
    (
        "envoy.service.discovery.v3.AggregatedDiscoveryService",
        "StreamAggregatedResources",
        "DeltaAggregatedResources",
        None,
    ),
    (
        "envoy.service.cluster.v3.ClusterDiscoveryService",
        "StreamClusters",
        "DeltaClusters",
        Some(ResourceType::Cluster),
    ),
    (
        "envoy.service.endpoint.v3.EndpointDiscoveryService",
        "StreamEndpoints",
        "DeltaEndpoints",
        Some(ResourceType::Endpoint),
    ),
    (
        "envoy.service.listener.v3.ListenerDiscoveryService",
        "StreamListeners",
        "DeltaListeners",
        Some(ResourceType::Listener),
    ),
    (
        "envoy.service.route.v3.RouteDiscoveryService",
        "StreamRoutes",
        "DeltaRoutes",
        Some(ResourceType::Route),
    ),
    (
        "envoy.service.secret.v3.SecretDiscoveryService",
        "StreamSecrets",
        "DeltaSecrets",
        Some(ResourceType::Secret),
    ),
];

/// Every discovery service of a port.
pub(crate) fn services(hub: &Arc<Hub>, port: Port) -> Router {
    let mut router = Router::new();
    for (service, sotw, delta, scope) in SERVICES {
        let handler = Handler { hub: hub.clone(), port, scope };
        router = router
            .route(&format!("/{service}/{sotw}"), method::<Sotw>(handler.clone()))
            .route(&format!("/{service}/{delta}"), method::<Delta>(handler));
    }
    router
}

fn method<S: Subscription>(handler: Handler) -> axum::routing::MethodRouter {
    post(move |request: http::Request<AxumBody>| {
        let service =
            Method { handler: handler.clone(), variant: std::marker::PhantomData::<fn() -> S> };
        async move {
            let codec = DiscoveryCodec::<S::Request>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_REQUEST);
            grpc.streaming(service, request).await
        }
    })
}

#[derive(Clone)]
struct Handler {
    hub: Arc<Hub>,
    port: Port,
    scope: Option<ResourceType>,
}

struct Method<S> {
    handler: Handler,
    variant: std::marker::PhantomData<fn() -> S>,
}

type Answers = mpsc::Sender<Result<RawResponse, Status>>;

impl<S: Subscription> StreamingService<S::Request> for Method<S> {
    type Response = RawResponse;
    type ResponseStream = ReceiverStream<Result<RawResponse, Status>>;
    type Future =
        Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<S::Request>>) -> Self::Future {
        let handler = self.handler.clone();
        Box::pin(async move {
            let identity = match handler.port {
                Port::Mesh => Some(PeerInfo::of(request.extensions()).identity()?),
                Port::Insecure => None,
            };
            // One response is on its way, the next is not made before there is room for it.
            let (answers, receiver) = mpsc::channel(1);
            let session = Session { handler, identity, answers: answers.clone() };
            tokio::spawn(async move {
                if let Err(status) = session.run::<S>(request.into_inner()).await {
                    tracing::info!(%status, "ended a discovery stream");
                    let _ = answers.send(Err(status)).await;
                }
            });
            Ok(Response::new(ReceiverStream::new(receiver)))
        })
    }
}

/// One stream.
struct Session {
    handler: Handler,
    identity: Option<Arc<PeerIdentity>>,
    answers: Answers,
}

impl Session {
    async fn run<S: Subscription>(self, mut requests: Streaming<S::Request>) -> Result<(), Status> {
        let hub = &self.handler.hub;
        let Some(first) = requests.message().await? else { return Ok(()) };
        let node = first.node().filter(|node| !node.id.is_empty());
        let node = node.ok_or_else(|| Status::invalid_argument("node: id is missing"))?;
        let stream = Arc::new(Mutex::new(Stream::<S>::default()));
        let mut viewer = Viewer::new(self.identity.clone(), node);
        let connection = hub.connected(viewer.client(node, stream.clone()));
        let mut worlds = hub.worlds();
        let attached_by = Instant::now() + ATTACH_PATIENCE;

        self.take::<S>(&stream, &first)?;
        let mut new_world = true;
        loop {
            if new_world {
                let world = worlds.borrow_and_update().clone();
                if let Some(key) = viewer.key(&world) {
                    lock(&stream).on_view(world.view(&key));
                }
                new_world = false;
            }
            let full = self.send_what_may_be_sent(&stream);
            hub.status_changed();

            let now = Instant::now();
            let wake_at = lock(&stream).wake_at(now);
            let unattached = viewer.waits();
            tokio::select! {
                () = revoked(hub, self.identity.as_deref()) => {
                    return Err(Status::permission_denied(REVOKED));
                }
                request = requests.message() => {
                    let Some(request) = request? else { return Ok(()) };
                    connection.client.heard();
                    self.take::<S>(&stream, &request)?;
                }
                changed = worlds.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    new_world = true;
                }
                Ok(permit) = self.answers.reserve(), if full => drop(permit),
                () = self.answers.closed() => return Ok(()),
                () = sleep_until(wake_at) => {}
                () = tokio::time::sleep_until(attached_by), if unattached => {
                    return Err(Status::failed_precondition(
                        "a sidecar attaches to the registry before it asks for its configuration",
                    ));
                }
                () = hub.stopping.cancelled() => {
                    return Err(Status::unavailable("the control plane stops"));
                }
            }
        }
    }

    /// Takes a request in; one for a type that is not served is ignored.
    fn take<S: Subscription>(
        &self,
        stream: &Mutex<Stream<S>>,
        request: &S::Request,
    ) -> Result<(), Status> {
        let url = request.type_url();
        let kind = match self.handler.scope {
            None if url.is_empty() => {
                return Err(Status::invalid_argument(
                    "type_url: is missing on an aggregated stream",
                ));
            }
            None => ResourceType::from_url(url),
            Some(kind) if url.is_empty() || url == kind.url() => Some(kind),
            Some(kind) => {
                return Err(Status::invalid_argument(format!(
                    "type_url: this stream serves {}, not {url}",
                    kind.url()
                )));
            }
        };
        match kind {
            Some(kind) => lock(stream).on_request(kind, request),
            None => tracing::debug!(url, "ignored a request for a type that is not served"),
        }
        Ok(())
    }

    /// Whether there may be more, for which there was no room.
    fn send_what_may_be_sent<S: Subscription>(&self, stream: &Mutex<Stream<S>>) -> bool {
        loop {
            let Ok(permit) = self.answers.try_reserve() else {
                return true;
            };
            match lock(stream).next(Instant::now()) {
                Some(response) => permit.send(Ok(response)),
                None => return false,
            }
        }
    }
}

/// Completes when the certificate of a client is revoked.
async fn revoked(hub: &Hub, identity: Option<&PeerIdentity>) {
    match identity {
        Some(identity) => hub.ledger.until_refused(&identity.serial).await,
        None => std::future::pending().await,
    }
}

/// What the lock guards is never left half changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Decides which view a stream has.
struct Viewer {
    identity: Option<Arc<PeerIdentity>>,
    kind: ClientKind,
    /// As the sidecar last attached; kept if it leaves the registry before its stream ends.
    needs: Option<Arc<Needs>>,
}

impl Viewer {
    fn new(identity: Option<Arc<PeerIdentity>>, node: &Node) -> Self {
        let agent = node.user_agent_name.to_ascii_lowercase();
        let kind = if agent.starts_with("grpc") {
            ClientKind::Grpc
        } else if agent == "envoy" {
            ClientKind::Envoy
        } else if agent == "outrigger" || identity.is_some() {
            ClientKind::Outrigger
        } else {
            ClientKind::Envoy
        };
        Self { identity, kind, needs: None }
    }

    /// A sidecar of ours in the mesh gets what it needs; all others get what foreign clients get.
    fn is_sidecar(&self) -> bool {
        self.identity.is_some() && self.kind == ClientKind::Outrigger
    }

    /// Whether nothing can be served yet.
    fn waits(&self) -> bool {
        self.is_sidecar() && self.needs.is_none()
    }

    fn key(&mut self, world: &World) -> Option<ViewKey> {
        if !self.is_sidecar() {
            return Some(ViewKey::Foreign);
        }
        let identity = self.identity.as_ref()?;
        let name =
            InstanceName { service: identity.service.clone(), instance: identity.instance.clone() };
        if let Some(instance) = world.live().find(&name) {
            self.needs = Some(instance.needs.clone());
        }
        self.needs.clone().map(ViewKey::Sidecar)
    }

    fn client<S: Subscription>(&self, node: &Node, stream: Arc<Mutex<Stream<S>>>) -> Client {
        // What a client with a certificate says of itself counts for nothing.
        let (service, instance) = match &self.identity {
            Some(identity) => (identity.service.to_string(), identity.instance.to_string()),
            None => (node.cluster.clone(), node.id.clone()),
        };
        Client {
            node: instance.clone(),
            service,
            instance,
            kind: self.kind,
            identity: self.identity.clone(),
            last_contact: Mutex::new(SystemTime::now()),
            stream,
        }
    }
}
