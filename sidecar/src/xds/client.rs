//! One stream: connect, send what is to be sent, hand over what comes, and come back after a failure.
//!
//! It knows nothing of what the messages mean. It runs as a task of the control thread and talks to the rest of it by
//! channels; the one for events is short, so that a server which sends faster than we can apply is held back by TCP.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::uri::PathAndQuery;
use outrigger_proto::envoy::config::core::v3::Node;
use outrigger_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::channel::{ConnectError, ControlPlane};
use super::subscription::{Request, Response};
use super::throttle::Throttle;
use super::{Kind, StreamId};
use crate::config::bootstrap::{DiscoveryService, Variant};
use crate::stats::{ControlPlaneCells, Sharded};

/// Largest message that is accepted. Ten thousand clusters in one response are some ten megabytes.
const MAX_MESSAGE: usize = 64 << 20;

/// What happens on the stream.
#[derive(Debug)]
pub(crate) enum Event {
    /// A stream begins; requests go in here.
    Connected(mpsc::UnboundedSender<Request>),
    /// A message came.
    Response(Box<Response>),
    /// What is there cannot be used at all; why is in the log.
    Unusable,
    /// The stream, or the attempt to have one, is over.
    Disconnected(StreamError),
}

/// Why there is no stream (any more).
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server ended the stream with an error, or the connection broke.
    #[error("{}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    /// The server ended the stream without an error.
    #[error("the server closed the stream")]
    Closed,
}

impl From<Status> for StreamError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// A client of one discovery service.
pub(crate) struct Client {
    /// Its stream.
    pub(crate) id: StreamId,
    /// The one type it is about; `None`: all of them (ADS).
    pub(crate) kind: Option<Kind>,
    /// How the service is spoken to.
    pub(crate) service: DiscoveryService,
    /// Who we are.
    pub(crate) node: Node,
    /// Where it is.
    pub(crate) control_plane: ControlPlane,
    /// A stream is opened only while this is `true`; `None`: always.
    pub(crate) gate: Option<watch::Receiver<bool>>,
    /// What is counted of a server that takes only so many requests.
    pub(crate) cells: Arc<Sharded<ControlPlaneCells>>,
    /// Where events go.
    pub(crate) events: mpsc::Sender<(StreamId, Event)>,
}

impl Client {
    /// Keeps a stream open for as long as somebody takes the events.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(self.service.backoff);
        let rate = self.service.rate_limit;
        let throttle = rate.map(|rate| Throttle::new(rate, Arc::clone(&self.cells)));
        loop {
            if let Some(gate) = &mut self.gate
                && gate.wait_for(|open| *open).await.is_err()
            {
                return;
            }
            let error = match Box::pin(self.stream(throttle.as_ref(), &mut backoff)).await {
                Ok(()) => return,
                Err(error) => error,
            };
            if !self.tell(Event::Disconnected(error)).await {
                return;
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// One stream from its connection to its end. `Ok` when nobody takes the events any more.
    async fn stream(
        &mut self,
        throttle: Option<&Arc<Throttle>>,
        backoff: &mut Backoff,
    ) -> Result<(), StreamError> {
        let channel = self.control_plane.connect(self.service.authority.as_deref()).await?;
        let (sender, requests) = mpsc::unbounded_channel();
        // Requests before the response headers: servers send those together with their first message.
        if !self.tell(Event::Connected(sender)).await {
            return Ok(());
        }
        let requests: BoxStream<'static, Request> = match throttle {
            Some(throttle) => Box::pin(Arc::clone(throttle).slow_down(requests)),
            None => Box::pin(UnboundedReceiverStream::new(requests)),
        };
        let mut nodes = self.nodes();
        match self.service.variant {
            Variant::StateOfTheWorld => {
                let requests = requests.filter_map(move |request| {
                    std::future::ready(match request {
                        Request::StateOfTheWorld(request) => {
                            Some(DiscoveryRequest { node: nodes(), ..request })
                        }
                        Request::Delta(_) => None,
                    })
                });
                let messages: Streaming<DiscoveryResponse> = self.open(channel, requests).await?;
                self.forward(messages, Response::StateOfTheWorld, throttle, backoff).await
            }
            Variant::Delta => {
                let requests = requests.filter_map(move |request| {
                    std::future::ready(match request {
                        Request::Delta(request) => {
                            Some(DeltaDiscoveryRequest { node: nodes(), ..request })
                        }
                        Request::StateOfTheWorld(_) => None,
                    })
                });
                let messages: Streaming<DeltaDiscoveryResponse> =
                    self.open(channel, requests).await?;
                self.forward(messages, Response::Delta, throttle, backoff).await
            }
        }
    }

    /// Makes the call. All services of discovery are alike: one method of two streams, under a path of its own.
    async fn open<Q, A>(
        &self,
        channel: Channel,
        requests: impl futures_util::Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, StreamError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut call = tonic::Request::new(requests);
        *call.metadata_mut() = metadata(&self.service);
        let path = PathAndQuery::from_static(method(self.kind, self.service.variant));
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        Ok(client.streaming(call, path, codec).await?.into_inner())
    }

    /// Returns whether anybody takes the events still.
    async fn tell(&self, event: Event) -> bool {
        self.events.send((self.id, event)).await.is_ok()
    }

    async fn forward<M>(
        &self,
        mut messages: Streaming<M>,
        wrap: fn(M) -> Response,
        throttle: Option<&Arc<Throttle>>,
        backoff: &mut Backoff,
    ) -> Result<(), StreamError> {
        while let Some(message) = messages.message().await? {
            backoff.reset();
            if !self.tell(Event::Response(Box::new(wrap(message)))).await {
                return Ok(());
            }
            if let Some(throttle) = throttle {
                throttle.room().await;
            }
        }
        Err(StreamError::Closed)
    }

    /// The node of each request of one stream, in order.
    fn nodes(&self) -> impl FnMut() -> Option<Node> + Send + 'static {
        let only_first = self.service.set_node_on_first_message_only;
        let mut node = Some(self.node.clone());
        move || if only_first { node.take() } else { node.clone() }
    }
}

/// The metadata of the calls of a service.
pub(crate) fn metadata(service: &DiscoveryService) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for (key, value) in &service.initial_metadata {
        // Checked when the bootstrap was read; one that is no header even so cannot be sent.
        if let (Ok(key), Ok(value)) =
            (key.parse::<MetadataKey<_>>(), value.parse::<MetadataValue<_>>())
        {
            metadata.append(key, value);
        }
    }
    metadata
}

/// The path of the method that serves a type (`None`: all of them).
const fn method(kind: Option<Kind>, variant: Variant) -> &'static str {
    use Variant::{Delta, StateOfTheWorld};
    match (kind, variant) {
        (None, StateOfTheWorld) => {
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
        }
        (None, Delta) => {
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
        }
        (Some(Kind::Cluster), StateOfTheWorld) => {
            "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters"
        }
        (Some(Kind::Cluster), Delta) => {
            "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters"
        }
        (Some(Kind::Endpoint), StateOfTheWorld) => {
            "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints"
        }
        (Some(Kind::Endpoint), Delta) => {
            "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints"
        }
        (Some(Kind::Listener), StateOfTheWorld) => {
            "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners"
        }
        (Some(Kind::Listener), Delta) => {
            "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners"
        }
        (Some(Kind::Route), StateOfTheWorld) => {
            "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes"
        }
        (Some(Kind::Route), Delta) => "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes",
        // There is no other variant of it: what takes virtual hosts is refused where it would ask for that.
        (Some(Kind::VirtualHost), StateOfTheWorld | Delta) => {
            "/envoy.service.route.v3.VirtualHostDiscoveryService/DeltaVirtualHosts"
        }
        (Some(Kind::Secret), StateOfTheWorld) => {
            "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
        }
        (Some(Kind::Secret), Delta) => {
            "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets"
        }
        (Some(Kind::Extension), StateOfTheWorld) => {
            "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/StreamExtensionConfigs"
        }
        (Some(Kind::Extension), Delta) => {
            "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/DeltaExtensionConfigs"
        }
        (Some(Kind::Runtime), StateOfTheWorld) => {
            "/envoy.service.runtime.v3.RuntimeDiscoveryService/StreamRuntime"
        }
        (Some(Kind::Runtime), Delta) => {
            "/envoy.service.runtime.v3.RuntimeDiscoveryService/DeltaRuntime"
        }
    }
}

/// Jittered exponential back-off: each delay is drawn from zero to a bound that doubles (Envoy's
/// `JitteredExponentialBackOffStrategy`).
#[derive(Debug)]
pub(crate) struct Backoff {
    base: Duration,
    max: Duration,
    bound: Duration,
}

impl Backoff {
    /// From a base bound to a maximum.
    pub(crate) fn new((base, max): (Duration, Duration)) -> Self {
        Self { base, max, bound: base }
    }

    /// The next delay.
    pub(crate) fn next(&mut self) -> Duration {
        let delay = self.bound.mul_f64(fastrand::f64());
        self.bound = (self.bound * 2).min(self.max);
        delay
    }

    /// All is well again.
    pub(crate) fn reset(&mut self) {
        self.bound = self.base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_is_below_a_bound_that_doubles_to_the_maximum_and_starts_over() {
        let (base, max) = (Duration::from_millis(500), Duration::from_secs(30));
        let mut backoff = Backoff::new((base, max));
        let mut bound = base;
        for _ in 0..12 {
            assert!(backoff.next() <= bound);
            bound = (bound * 2).min(max);
        }
        assert_eq!(backoff.bound, max);
        backoff.reset();
        assert_eq!(backoff.bound, base);
    }
}
