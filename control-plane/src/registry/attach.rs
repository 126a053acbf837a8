//! The service behind a sidecar's stream: Hello, then heartbeats within the lease, a drain at the end.

use crate::identity::{Ledger, PeerInfo, REVOKED};
use crate::registry::instance::{Instance, InstanceName};
use crate::registry::live::{Attachment, Observation, Registry};
use outrigger_proto::registry::v1::registry_server::Registry as Service;
use outrigger_proto::registry::v1::{
    Drained, EndpointObservation, FromSidecar, Hello, Renew, ToSidecar, Welcome, from_sidecar,
    to_sidecar,
};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// An instance that is silent for so long is gone.
pub(crate) const LEASE: Duration = Duration::from_millis(2500);

/// For so long a draining instance waits for those that have not confirmed that they left it.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// Knows when callers have taken a change of endpoints.
pub(crate) trait EndpointsTaken: Send + Sync + 'static {
    /// Completes when every connected client has taken the endpoints as they are since this version of the registry.
    fn taken_since(&self, version: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The registry's gRPC service.
pub(crate) struct AttachService {
    pub(crate) registry: Arc<Registry>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) endpoints: Arc<dyn EndpointsTaken>,
    /// The control plane is about to stop.
    pub(crate) stopping: CancellationToken,
}

type Answers = mpsc::Sender<Result<ToSidecar, Status>>;

#[tonic::async_trait]
impl Service for AttachService {
    type AttachStream = ReceiverStream<Result<ToSidecar, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<FromSidecar>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let identity = PeerInfo::of(request.extensions()).identity()?;
        let name =
            InstanceName { service: identity.service.clone(), instance: identity.instance.clone() };
        let ledger = self.ledger.clone();
        let messages = request.into_inner();
        let (answers, receiver) = mpsc::channel(4);
        let registry = self.registry.clone();
        let endpoints = self.endpoints.clone();
        let stopping = self.stopping.clone();
        tokio::spawn(async move {
            let session = Session { registry, endpoints, name, answers: answers.clone() };
            tokio::select! {
                result = session.run(messages) => if let Err(status) = result {
                    let _ = answers.send(Err(status)).await;
                },
                () = ledger.until_refused(&identity.serial) => {
                    let _ = answers.send(Err(Status::permission_denied(REVOKED))).await;
                }
                // An end that the sidecar sees at once, and reconnects from.
                () = stopping.cancelled() => {
                    let _ = answers.send(Err(Status::unavailable("the control plane stops"))).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// One stream.
struct Session {
    registry: Arc<Registry>,
    endpoints: Arc<dyn EndpointsTaken>,
    name: InstanceName,
    answers: Answers,
}

impl Session {
    async fn run<M>(self, mut messages: M) -> Result<(), Status>
    where
        M: Stream<Item = Result<FromSidecar, Status>> + Unpin + Send,
    {
        let hello = match self.next(&mut messages).await? {
            Some(from_sidecar::Message::Hello(hello)) => hello,
            Some(_) => return Err(Status::invalid_argument("the first message must be hello")),
            None => return Ok(()),
        };
        let attachment = self.attach(hello)?;
        tracing::info!(service = %self.name.service, instance = %self.name.instance, "attached");
        self.answer(to_sidecar::Message::Welcome(Welcome { lease_ms: LEASE.as_millis() as u32 }))
            .await;
        let result = tokio::select! {
            result = self.serve(&attachment, &mut messages) => result,
            () = self.pass_renewals(&attachment) => Ok(()),
            () = attachment.superseded() => {
                Err(Status::aborted("another connection of this instance took its place"))
            }
        };
        drop(attachment);
        let why = result.as_ref().map_or_else(Status::message, |()| "the stream ended");
        tracing::info!(service = %self.name.service, instance = %self.name.instance, why, "left");
        result
    }

    /// Tells the sidecar whenever it is to renew its certificate.
    async fn pass_renewals(&self, attachment: &Attachment) {
        loop {
            attachment.asked_to_renew().await;
            self.answer(to_sidecar::Message::Renew(Renew {})).await;
        }
    }

    fn attach(&self, hello: Hello) -> Result<Attachment, Status> {
        let instance = Instance::from_hello(self.name.clone(), hello)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let attached = self.registry.attach(instance);
        attached.map_err(|error| Status::failed_precondition(error.to_string()))
    }

    async fn serve<M>(&self, attachment: &Attachment, messages: &mut M) -> Result<(), Status>
    where
        M: Stream<Item = Result<FromSidecar, Status>> + Unpin + Send,
    {
        while let Some(message) = self.next(messages).await? {
            match message {
                from_sidecar::Message::Heartbeat(_) => {}
                from_sidecar::Message::Observations(seen) => {
                    attachment
                        .observe(seen.endpoints.into_iter().filter_map(observation).collect());
                }
                from_sidecar::Message::Drain(_) => {
                    let version = attachment.drain();
                    let taken = self.endpoints.taken_since(version);
                    if tokio::time::timeout(DRAIN_PATIENCE, taken).await.is_err() {
                        tracing::warn!(
                            service = %self.name.service, instance = %self.name.instance,
                            "not every sidecar has confirmed that it left the draining instance"
                        );
                    }
                    self.answer(to_sidecar::Message::Drained(Drained {})).await;
                }
                from_sidecar::Message::Hello(_) => {
                    return Err(Status::invalid_argument("hello was said already"));
                }
            }
        }
        Ok(())
    }

    /// The next message that holds something known; `None` at the end of the stream.
    async fn next<M>(&self, messages: &mut M) -> Result<Option<from_sidecar::Message>, Status>
    where
        M: Stream<Item = Result<FromSidecar, Status>> + Unpin + Send,
    {
        loop {
            let silent = |_| {
                let lease = LEASE.as_millis();
                Status::deadline_exceeded(format!("nothing was heard for the lease of {lease} ms"))
            };
            let message = tokio::time::timeout(LEASE, messages.next()).await.map_err(silent)?;
            let Some(message) = message.transpose()? else { return Ok(None) };
            // A message that only a later version knows still says that the sidecar lives.
            if let Some(message) = message.message {
                return Ok(Some(message));
            }
        }
    }

    async fn answer(&self, message: to_sidecar::Message) {
        // That the sidecar does not listen any more shows in its messages.
        let _ = self.answers.send(Ok(ToSidecar { message: Some(message) })).await;
    }
}

/// An observation; `None` if its address is none, which says nothing about any endpoint.
fn observation(it: EndpointObservation) -> Option<Observation> {
    let ejected = (it.ejected_until != 0)
        .then(|| UNIX_EPOCH.checked_add(Duration::from_millis(it.ejected_until)))
        .flatten()
        .map(|until| (until, it.ejected_because));
    let address = it.address.parse().ok()?;
    let EndpointObservation { active_requests, check_failed, .. } = it;
    Some(Observation { address, active_requests, ejected, check_failed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::sync::Notify;

    /// Remembers what it was asked to wait for, and lets go when told.
    #[derive(Default)]
    struct Callers {
        asked: Mutex<Vec<u64>>,
        taken: Notify,
    }

    impl EndpointsTaken for Callers {
        fn taken_since(&self, version: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            self.asked.lock().unwrap().push(version);
            Box::pin(self.taken.notified())
        }
    }

    struct Sidecar {
        registry: Arc<Registry>,
        callers: Arc<Callers>,
        to: mpsc::Sender<Result<FromSidecar, Status>>,
        from: mpsc::Receiver<Result<ToSidecar, Status>>,
        session: tokio::task::JoinHandle<Result<(), Status>>,
    }

    impl Sidecar {
        async fn attached() -> Self {
            let registry = Registry::new();
            let callers = Arc::new(Callers::default());
            let (to, messages) = mpsc::channel(8);
            let (answers, from) = mpsc::channel(8);
            let session = Session {
                registry: registry.clone(),
                endpoints: callers.clone(),
                name: InstanceName { service: "api".into(), instance: "a".into() },
                answers,
            };
            let session = tokio::spawn(session.run(ReceiverStream::new(messages)));
            let mut sidecar = Self { registry, callers, to, from, session };
            let hello = Hello {
                epoch: 7,
                advertise: "127.0.0.1".to_owned(),
                inbound_port: 15006,
                ..Default::default()
            };
            sidecar.say(from_sidecar::Message::Hello(hello)).await;
            let welcome = to_sidecar::Message::Welcome(Welcome { lease_ms: 2500 });
            assert_eq!(sidecar.hear().await, welcome);
            sidecar
        }

        async fn say(&self, message: from_sidecar::Message) {
            self.to.send(Ok(FromSidecar { message: Some(message) })).await.unwrap();
        }

        async fn hear(&mut self) -> to_sidecar::Message {
            self.from.recv().await.unwrap().unwrap().message.unwrap()
        }

        fn is_there(&self) -> bool {
            !self.registry.live().of("api").is_empty()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_keep_an_instance_and_silence_for_the_lease_ends_it() {
        let sidecar = Sidecar::attached().await;
        for _ in 0..10 {
            tokio::time::sleep(LEASE - Duration::from_millis(1)).await;
            assert!(sidecar.is_there());
            sidecar.say(from_sidecar::Message::Heartbeat(Default::default())).await;
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(LEASE + Duration::from_millis(1)).await;
        assert!(!sidecar.is_there());
        let status = sidecar.session.await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_stream_ends_the_instance_at_once() {
        let sidecar = Sidecar::attached().await;
        assert!(sidecar.is_there());
        let before = tokio::time::Instant::now();
        drop(sidecar.to);
        sidecar.session.await.unwrap().unwrap();
        assert_eq!(before.elapsed(), Duration::ZERO);
        assert!(sidecar.registry.live().of("api").is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_answered_when_the_callers_have_left() {
        let mut sidecar = Sidecar::attached().await;
        sidecar.say(from_sidecar::Message::Drain(Default::default())).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(sidecar.registry.live().of("api")[0].draining);
        assert!(sidecar.from.try_recv().is_err());
        assert_eq!(*sidecar.callers.asked.lock().unwrap(), [sidecar.registry.live().version]);
        sidecar.callers.taken.notify_one();
        assert_eq!(sidecar.hear().await, to_sidecar::Message::Drained(Drained {}));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_one_second_for_callers_that_do_not_answer() {
        let mut sidecar = Sidecar::attached().await;
        let before = tokio::time::Instant::now();
        sidecar.say(from_sidecar::Message::Drain(Default::default())).await;
        assert_eq!(sidecar.hear().await, to_sidecar::Message::Drained(Drained {}));
        assert_eq!(before.elapsed(), DRAIN_PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn observations_replace_those_before() {
        let sidecar = Sidecar::attached().await;
        let seen = |address: &str, ejected_until| EndpointObservation {
            address: address.to_owned(),
            active_requests: 3,
            ejected_until,
            ejected_because: "consecutive_5xx".to_owned(),
            check_failed: true,
            ..Default::default()
        };
        for endpoints in
            [vec![seen("127.0.0.1:1", 0), seen("nowhere", 0)], vec![seen("127.0.0.1:2", 5000)]]
        {
            let observations = outrigger_proto::registry::v1::Observations { endpoints };
            sidecar.say(from_sidecar::Message::Observations(observations)).await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let observed = sidecar.registry.observations();
        assert_eq!(&*observed[0].0.instance, "a");
        let until = UNIX_EPOCH + Duration::from_secs(5);
        let expected = Observation {
            address: "127.0.0.1:2".parse().unwrap(),
            active_requests: 3,
            ejected: Some((until, "consecutive_5xx".to_owned())),
            check_failed: true,
        };
        assert_eq!(*observed[0].1, [expected]);
    }

    #[tokio::test]
    async fn whoever_does_not_say_hello_first_is_refused() {
        let registry = Registry::new();
        let session = Session {
            registry: registry.clone(),
            endpoints: Arc::new(Callers::default()),
            name: InstanceName { service: "api".into(), instance: "a".into() },
            answers: mpsc::channel(1).0,
        };
        let message = from_sidecar::Message::Heartbeat(Default::default());
        let messages = tokio_stream::iter([Ok(FromSidecar { message: Some(message) })]);
        let status = session.run(messages).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(registry.live().services.is_empty());
    }
}
