//! The aggregated stream: connect, send what is to be sent, hand over what comes, and come back after a failure.
//!
//! It knows nothing of what the messages mean. It runs as a task of the control thread and talks to the rest of it by
//! channels; the one for events is short, so that a server which sends faster than we can apply is held back by TCP.

use std::time::Duration;

use futures_util::StreamExt;
use outrigger_proto::envoy::config::core::v3::Node;
use outrigger_proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::channel::{ConnectError, ControlPlane};
use super::subscription::{Request, Response};
use crate::config::bootstrap::{DiscoveryService, Variant};

/// Largest message that is accepted. Ten thousand clusters in one response are some ten megabytes.
const MAX_MESSAGE: usize = 64 << 20;

/// What happens on the stream.
#[derive(Debug)]
pub(crate) enum Event {
    /// A stream begins; requests go in here.
    Connected(mpsc::UnboundedSender<Request>),
    /// A message came.
    Response(Box<Response>),
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
    /// How the service is spoken to.
    pub(crate) service: DiscoveryService,
    /// Who we are.
    pub(crate) node: Node,
    /// Where it is.
    pub(crate) control_plane: ControlPlane,
    /// A stream is opened only while this is `true`; `None`: always.
    pub(crate) gate: Option<watch::Receiver<bool>>,
    /// Where events go.
    pub(crate) events: mpsc::Sender<Event>,
}

impl Client {
    /// Keeps a stream open for as long as somebody takes the events.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(self.service.backoff);
        loop {
            if let Some(gate) = &mut self.gate
                && gate.wait_for(|open| *open).await.is_err()
            {
                return;
            }
            let error = match Box::pin(self.stream(&mut backoff)).await {
                Ok(()) => return,
                Err(error) => error,
            };
            if self.events.send(Event::Disconnected(error)).await.is_err() {
                return;
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// One stream from its connection to its end. `Ok` when nobody takes the events any more.
    async fn stream(&mut self, backoff: &mut Backoff) -> Result<(), StreamError> {
        let channel = self.control_plane.connect(self.service.authority.as_deref()).await?;
        let (sender, requests) = mpsc::unbounded_channel();
        // Requests before the response headers: servers send those together with their first message.
        if self.events.send(Event::Connected(sender)).await.is_err() {
            return Ok(());
        }
        let requests = UnboundedReceiverStream::new(requests);
        let client =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        match self.service.variant {
            Variant::StateOfTheWorld => {
                let messages = self.open_sotw(client, requests).await?;
                self.forward(messages, Response::StateOfTheWorld, backoff).await
            }
            Variant::Delta => {
                let messages = self.open_delta(client, requests).await?;
                self.forward(messages, Response::Delta, backoff).await
            }
        }
    }

    async fn open_sotw(
        &self,
        mut client: AggregatedDiscoveryServiceClient<Channel>,
        requests: UnboundedReceiverStream<Request>,
    ) -> Result<
        Streaming<outrigger_proto::envoy::service::discovery::v3::DiscoveryResponse>,
        StreamError,
    > {
        let mut nodes = self.nodes();
        let requests = requests.filter_map(move |request| {
            let request = match request {
                Request::StateOfTheWorld(mut request) => {
                    request.node = nodes();
                    Some(request)
                }
                Request::Delta(_) => None,
            };
            std::future::ready(request)
        });
        let mut call = tonic::Request::new(requests);
        *call.metadata_mut() = self.metadata();
        Ok(client.stream_aggregated_resources(call).await?.into_inner())
    }

    async fn open_delta(
        &self,
        mut client: AggregatedDiscoveryServiceClient<Channel>,
        requests: UnboundedReceiverStream<Request>,
    ) -> Result<
        Streaming<outrigger_proto::envoy::service::discovery::v3::DeltaDiscoveryResponse>,
        StreamError,
    > {
        let mut nodes = self.nodes();
        let requests = requests.filter_map(move |request| {
            let request = match request {
                Request::Delta(mut request) => {
                    request.node = nodes();
                    Some(request)
                }
                Request::StateOfTheWorld(_) => None,
            };
            std::future::ready(request)
        });
        let mut call = tonic::Request::new(requests);
        *call.metadata_mut() = self.metadata();
        Ok(client.delta_aggregated_resources(call).await?.into_inner())
    }

    async fn forward<M>(
        &self,
        mut messages: Streaming<M>,
        wrap: fn(M) -> Response,
        backoff: &mut Backoff,
    ) -> Result<(), StreamError> {
        while let Some(message) = messages.message().await? {
            backoff.reset();
            if self.events.send(Event::Response(Box::new(wrap(message)))).await.is_err() {
                return Ok(());
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

    fn metadata(&self) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (key, value) in &self.service.initial_metadata {
            // Checked when the bootstrap was read; one that is no header even so cannot be sent.
            if let (Ok(key), Ok(value)) =
                (key.parse::<MetadataKey<_>>(), value.parse::<MetadataValue<_>>())
            {
                metadata.append(key, value);
            }
        }
        metadata
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
