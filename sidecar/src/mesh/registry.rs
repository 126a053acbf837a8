//! The live stream to the control plane that makes this process an endpoint of its service, for as long as it lasts.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrigger_proto::registry::v1::registry_client::RegistryClient;
use outrigger_proto::registry::v1::{
    AppPort, Drain, EndpointObservation, FromSidecar, Heartbeat, Hello, Observations, Outbound,
    ToSidecar, from_sidecar, to_sidecar,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::advertised;
use crate::cli::Args;
use crate::xds::{Backoff, ControlPlane};

/// Back-off between streams. Short at the top: a control plane that comes back wants to know soon who is alive.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Longest wait for the answer to Hello.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for others to have taken this instance out, when it drains.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(1500);
/// Messages that wait to be sent.
const QUEUE: usize = 16;

/// A handle to the stream.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    observations: watch::Sender<Vec<EndpointObservation>>,
    drain: mpsc::Sender<oneshot::Sender<()>>,
}

impl Registry {
    /// Tells the control plane what is seen of endpoints, whenever that changes. Complete: an endpoint that is not named
    /// has nothing to report.
    pub(crate) fn observe(&self, endpoints: Vec<EndpointObservation>) {
        self.observations.send_if_modified(|current| {
            let is_changed = *current != endpoints;
            if is_changed {
                *current = endpoints;
            }
            is_changed
        });
    }

    /// Asks that no new traffic be sent here, and returns when no caller sends any more, or when waiting longer would not
    /// help. From then on this instance is no endpoint, even if the stream breaks.
    pub(crate) async fn drain(&self) {
        let (done, drained) = oneshot::channel();
        if self.drain.send(done).await.is_err() {
            return;
        }
        if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            tracing::warn!("the control plane did not confirm the drain in time");
        }
    }
}

/// Opens the stream and keeps it open; passes on by `renew` that the certificate is to be renewed. The receiver says whether the control plane knows this instance at the moment.
pub(super) fn start(
    args: Arc<Args>,
    control_plane: ControlPlane,
    renew: Arc<Notify>,
) -> (Registry, watch::Receiver<bool>) {
    let (observations, observed) = watch::channel(Vec::new());
    let (drain, drains) = mpsc::channel(1);
    let (attached, is_attached) = watch::channel(false);
    let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let task = Task {
        args,
        control_plane,
        renew,
        epoch: epoch.try_into().unwrap_or(u64::MAX),
        observed,
        drains,
        draining: None,
        attached,
    };
    tokio::spawn(task.run());
    (Registry { observations, drain }, is_attached)
}

struct Task {
    args: Arc<Args>,
    control_plane: ControlPlane,
    /// Told when the certificate is to be renewed now.
    renew: Arc<Notify>,
    epoch: u64,
    observed: watch::Receiver<Vec<EndpointObservation>>,
    drains: mpsc::Receiver<oneshot::Sender<()>>,
    /// Who waits for the drain.
    draining: Option<oneshot::Sender<()>>,
    attached: watch::Sender<bool>,
}

/// How a stream ended.
enum End {
    /// The process no longer needs it.
    Done,
    /// It broke, or there was none.
    Broken(String),
}

impl Task {
    async fn run(mut self) {
        let mut backoff = Backoff::new(BACKOFF);
        let mut is_reported = false;
        loop {
            let end = Box::pin(self.stream()).await;
            if self.attached.send_replace(false) {
                backoff.reset();
                is_reported = false;
            }
            match end {
                End::Done => return,
                // The first of a row, so that an outage is one line and not thousands.
                End::Broken(reason) if !is_reported => {
                    is_reported = true;
                    tracing::warn!(
                        reason,
                        "not attached to the control plane; serving on with what is known"
                    );
                }
                End::Broken(reason) => tracing::debug!(reason, "still not attached"),
            }
            if let Some(waiting) = self.draining.take() {
                // Without a stream this instance is no endpoint: there is nothing to wait for.
                let _ = waiting.send(());
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                drain = self.drains.recv() => {
                    if let Some(waiting) = drain {
                        let _ = waiting.send(());
                    }
                    return;
                }
            }
        }
    }

    /// One stream from its connection to its end.
    async fn stream(&mut self) -> End {
        let (messages, mut answers) = match self.attach().await {
            Ok(streams) => streams,
            Err(reason) => return End::Broken(reason),
        };
        let lease = match tokio::time::timeout(WELCOME_TIMEOUT, answers.message()).await {
            Ok(Ok(Some(ToSidecar { message: Some(to_sidecar::Message::Welcome(welcome)) }))) => {
                Duration::from_millis(welcome.lease_ms.into())
            }
            Ok(Ok(_)) => return End::Broken("the control plane did not say welcome".to_owned()),
            Ok(Err(status)) => return End::Broken(status.message().to_owned()),
            Err(_) => return End::Broken("no answer to Hello".to_owned()),
        };
        tracing::info!(?lease, "attached to the control plane");
        self.attached.send_replace(true);
        self.observed.mark_changed();
        let mut heartbeat = tokio::time::interval((lease / 3).max(Duration::from_millis(50)));
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let message = tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(ToSidecar { message })) => {
                        match message {
                            Some(to_sidecar::Message::Drained(_)) => {
                                if let Some(waiting) = self.draining.take() {
                                    let _ = waiting.send(());
                                }
                            }
                            Some(to_sidecar::Message::Renew(_)) => self.renew.notify_one(),
                            // What a later version says.
                            Some(to_sidecar::Message::Welcome(_)) | None => {}
                        }
                        continue;
                    }
                    Ok(None) => return End::Broken("the control plane closed the stream".to_owned()),
                    Err(status) => return End::Broken(status.message().to_owned()),
                },
                _ = heartbeat.tick() => from_sidecar::Message::Heartbeat(Heartbeat {}),
                changed = self.observed.changed() => {
                    if changed.is_err() {
                        return End::Done;
                    }
                    let endpoints = self.observed.borrow_and_update().clone();
                    from_sidecar::Message::Observations(Observations { endpoints })
                }
                Some(waiting) = self.drains.recv() => {
                    self.draining = Some(waiting);
                    from_sidecar::Message::Drain(Drain {})
                }
            };
            // The queue is full only if the control plane has stopped reading.
            let sent = messages.send_timeout(FromSidecar { message: Some(message) }, lease).await;
            if sent.is_err() {
                return End::Broken("the control plane does not take messages".to_owned());
            }
        }
    }

    async fn attach(&self) -> Result<(mpsc::Sender<FromSidecar>, Streaming<ToSidecar>), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let channel = self.control_plane.connect(None).await.map_err(|error| text(&error))?;
        let advertise =
            advertised(&self.args, &self.control_plane).await.map_err(|error| text(&error))?;
        let (messages, queue) = mpsc::channel(QUEUE);
        let hello = hello(&self.args, &advertise.to_string(), self.epoch);
        let hello = FromSidecar { message: Some(from_sidecar::Message::Hello(hello)) };
        // The queue is new and has room.
        let _ = messages.try_send(hello);
        let answers = RegistryClient::new(channel)
            .attach(ReceiverStream::new(queue))
            .await
            .map_err(|status| status.message().to_owned())?;
        Ok((messages, answers.into_inner()))
    }
}

fn hello(args: &Args, advertise: &str, epoch: u64) -> Hello {
    Hello {
        epoch,
        advertise: advertise.to_owned(),
        inbound_port: args.inbound_port.into(),
        outbound_port: args.outbound_port.into(),
        app_ports: args
            .app_ports
            .iter()
            .map(|port| AppPort {
                port: port.port.into(),
                protocol: port.protocol.as_deref().unwrap_or_default().to_owned(),
                address: args.app_address.to_string(),
            })
            .collect(),
        outbounds: args
            .outbounds
            .iter()
            .map(|outbound| Outbound {
                service: outbound.service.clone(),
                port: outbound.port.into(),
                listen: outbound.listen.to_string(),
            })
            .collect(),
        labels: args.labels.iter().map(|it| (it.key.clone(), it.value.clone())).collect(),
        region: args.region.clone(),
        zone: args.service_zone.clone().unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn hello_says_what_the_arguments_say() {
        let args = Args::try_parse_from([
            "sidecar",
            "--app-port",
            "9000:grpc",
            "--app-address",
            "127.0.0.3",
            "--label",
            "version=v1",
            "--outbound",
            "api:9000=127.0.0.1:7001",
            "--inbound-port",
            "16001",
            "--outbound-port",
            "0",
            "--service-zone",
            "z1",
        ])
        .unwrap();
        let hello = hello(&args, "127.0.0.2", 7);
        assert_eq!((hello.epoch, &*hello.advertise), (7, "127.0.0.2"));
        assert_eq!((hello.inbound_port, hello.outbound_port), (16001, 0));
        let port = &hello.app_ports[0];
        assert_eq!((port.port, &*port.protocol, &*port.address), (9000, "grpc", "127.0.0.3"));
        assert_eq!(hello.labels["version"], "v1");
        assert_eq!(hello.outbounds[0].listen, "127.0.0.1:7001");
        assert_eq!(hello.zone, "z1");
    }
}
