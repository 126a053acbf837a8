//! A discovery server as small as it can be: incremental ADS over resources that are encoded once. It notes when each
//! push was acknowledged, and by what.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use futures_util::Stream;
use outrigger_integration::address;
use outrigger_proto::any;
use outrigger_proto::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use outrigger_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use prost::Name;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// How long a push may take to be acknowledged.
const LIMIT: Duration = Duration::from_secs(60);

type Table = BTreeMap<String, Resource>;
type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct State {
    /// By type URL, then by name.
    resources: Mutex<HashMap<String, Table>>,
    pushes: broadcast::Sender<(String, String)>,
    answers: Mutex<Answers>,
}

#[derive(Default)]
struct Answers {
    sent: u64,
    acknowledged: HashSet<u64>,
    rejection: Option<String>,
}

/// The running server.
pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

impl Server {
    /// Starts it without a resource.
    pub(crate) async fn start() -> Result<Server> {
        let listener = TcpListener::bind(address::free()?).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            resources: Mutex::default(),
            pushes: broadcast::channel(1024).0,
            answers: Mutex::default(),
        });
        let service = AggregatedDiscoveryServiceServer::new(Service(Arc::clone(&state)))
            .max_encoding_message_size(usize::MAX)
            .max_decoding_message_size(usize::MAX);
        let serving = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Ok(Server { address, state, serving })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets a resource, for whoever asks from now on.
    pub(crate) fn put<M: Name>(&self, name: &str, message: &M, version: u64) {
        let resource = Resource {
            name: name.to_owned(),
            version: version.to_string(),
            resource: Some(any::pack(message)),
            ..Resource::default()
        };
        let mut resources = lock(&self.state.resources);
        resources.entry(any::type_url::<M>()).or_default().insert(name.to_owned(), resource);
    }

    /// Sets a resource and sends it to whoever has subscribed to it.
    pub(crate) fn push<M: Name>(&self, name: &str, message: &M, version: u64) {
        self.put(name, message, version);
        let _ = self.state.pushes.send((any::type_url::<M>(), name.to_owned()));
    }

    /// How many responses were sent, and how many of them acknowledged.
    pub(crate) fn counts(&self) -> Result<(u64, u64)> {
        let answers = lock(&self.state.answers);
        if let Some(rejection) = &answers.rejection {
            bail!("rejected: {rejection}");
        }
        Ok((answers.sent, answers.acknowledged.len() as u64))
    }

    /// Waits until so many responses were acknowledged.
    pub(crate) async fn acknowledged(&self, count: u64) -> Result<()> {
        let begin = Instant::now();
        while self.counts()?.1 < count {
            ensure!(begin.elapsed() < LIMIT, "not acknowledged: {:?}", self.counts()?);
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Service(Arc<State>);

/// What one stream has subscribed to.
#[derive(Default)]
struct Subscription {
    all: bool,
    names: HashSet<String>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Out<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Out<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("incremental only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let mut requests = request.into_inner();
        let (out, responses) = mpsc::channel(16);
        let state = Arc::clone(&self.0);
        let mut pushes = state.pushes.subscribe();
        tokio::spawn(async move {
            let mut subscriptions: HashMap<String, Subscription> = HashMap::new();
            loop {
                let response = tokio::select! {
                    request = requests.message() => match request {
                        Ok(Some(request)) => state.receive(&mut subscriptions, request),
                        _ => return,
                    },
                    push = pushes.recv() => match push {
                        Ok((kind, name)) => state.pushed(&subscriptions, &kind, &name),
                        Err(_) => return,
                    },
                };
                if let Some(response) = response
                    && out.send(Ok(response)).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}

impl State {
    fn receive(
        &self,
        subscriptions: &mut HashMap<String, Subscription>,
        request: DeltaDiscoveryRequest,
    ) -> Option<DeltaDiscoveryResponse> {
        if let Ok(nonce) = request.response_nonce.parse() {
            let mut answers = lock(&self.answers);
            match request.error_detail {
                None => drop(answers.acknowledged.insert(nonce)),
                Some(error) => answers.rejection = Some(error.message),
            }
        }
        let is_first = !subscriptions.contains_key(&request.type_url);
        let subscription = subscriptions.entry(request.type_url.clone()).or_default();
        let names = request.resource_names_subscribe;
        let all = is_first && names.is_empty() || names.iter().any(|name| name == "*");
        subscription.all |= all;
        for name in &request.resource_names_unsubscribe {
            subscription.names.remove(name);
        }
        let found: Vec<Resource> = {
            let resources = lock(&self.resources);
            let table = resources.get(&request.type_url)?;
            if all {
                table.values().cloned().collect()
            } else {
                names.iter().filter_map(|name| table.get(name).cloned()).collect()
            }
        };
        subscription.names.extend(names);
        if found.is_empty() && !all {
            return None;
        }
        Some(self.response(&request.type_url, found))
    }

    fn pushed(
        &self,
        subscriptions: &HashMap<String, Subscription>,
        kind: &str,
        name: &str,
    ) -> Option<DeltaDiscoveryResponse> {
        let subscription = subscriptions.get(kind)?;
        if !subscription.all && !subscription.names.contains(name) {
            return None;
        }
        let found = lock(&self.resources).get(kind)?.get(name).cloned()?;
        Some(self.response(kind, vec![found]))
    }

    fn response(&self, kind: &str, resources: Vec<Resource>) -> DeltaDiscoveryResponse {
        let mut answers = lock(&self.answers);
        answers.sent += 1;
        DeltaDiscoveryResponse {
            system_version_info: answers.sent.to_string(),
            nonce: answers.sent.to_string(),
            type_url: kind.to_owned(),
            resources,
            ..DeltaDiscoveryResponse::default()
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
