//! A gRPC connection to a control plane: the hosts and the TLS of a cluster of the bootstrap, without the data plane.
//!
//! The control plane is spoken to from the control thread over a connection of its own, so that neither a broken data
//! plane nor an overloaded one keeps new configuration away.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::config::Rejected;
use crate::config::address::{Address, pipe_path};
use crate::config::bind_config;
use crate::config::cluster::{Cluster, Discovery};
use crate::config::endpoint::{EndpointAddress, LoadAssignment};
use crate::tls::{self, ClientContext};

/// A control plane that stops answering pings for so long is gone. Pings go out while nothing else comes.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// Where a control plane is, and how connections to it are made. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ControlPlane {
    cluster: Arc<Cluster>,
    tls: Option<Arc<ClientContext>>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The cluster has no endpoint that could be tried.
    #[error("cluster {0} has no endpoint")]
    NoEndpoint(Arc<str>),
    /// A host name could not be resolved.
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// A secret of the cluster's TLS is missing.
    #[error("cluster {0} waits for its TLS secrets")]
    SecretsMissing(Arc<str>),
    /// Every endpoint was tried; this is what the last one said.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// Which.
        address: String,
        /// Why not.
        reason: String,
    },
}

impl ControlPlane {
    /// From a cluster of the bootstrap.
    ///
    /// # Errors
    /// If its TLS cannot be set up, or connections to it are not made with that alone.
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        contexts: &mut tls::Contexts,
    ) -> Result<Self, Rejected> {
        if cluster.proxy_protocol.is_some() {
            return Err(Rejected {
                path: "transport_socket".to_owned(),
                reason: "the PROXY protocol is not supported by this version of Outrigger towards a discovery server".to_owned(),
            });
        }
        let tls = cluster.transport.as_ref().map(|tls| contexts.client(tls)).transpose()?;
        Ok(Self { cluster, tls })
    }

    /// Makes a connection, HTTP/2 handshake included. `authority` stands in `:authority`; without one it is the name of
    /// the cluster, as in Envoy.
    ///
    /// # Errors
    /// If no endpoint can be reached.
    pub(crate) async fn connect(&self, authority: Option<&str>) -> Result<Channel, ConnectError> {
        let addresses = self.addresses().await?;
        let first = fastrand::usize(..addresses.len().max(1));
        let mut error = ConnectError::NoEndpoint(Arc::clone(&self.cluster.name));
        for index in 0..addresses.len() {
            let Some(address) = addresses.get((first + index) % addresses.len()) else { continue };
            match Box::pin(self.connect_to(address, authority)).await {
                Ok(channel) => return Ok(channel),
                Err(next) => error = next,
            }
        }
        Err(error)
    }

    /// The address of this host from which the control plane is reached: what others reach this host at.
    ///
    /// # Errors
    /// If the system has no route.
    pub(crate) async fn local_address(&self) -> Result<std::net::IpAddr, ConnectError> {
        let addresses = self.addresses().await?;
        let first = addresses.iter().find_map(|address| match address {
            Address::Ip(address) => Some(*address),
            Address::Pipe(_) => None,
        });
        let Some(address) = first else {
            return Err(ConnectError::NoEndpoint(Arc::clone(&self.cluster.name)));
        };
        let route = || {
            let any = match address {
                SocketAddr::V4(_) => "0.0.0.0:0",
                SocketAddr::V6(_) => "[::]:0",
            };
            let socket = std::net::UdpSocket::bind(any)?;
            socket.connect(address)?; // sends nothing, but makes the system choose a source address
            Ok(socket.local_addr()?.ip())
        };
        route().map_err(|error: io::Error| ConnectError::Connect {
            address: address.to_string(),
            reason: error.to_string(),
        })
    }

    async fn connect_to(
        &self,
        address: &Address,
        authority: Option<&str>,
    ) -> Result<Channel, ConnectError> {
        let failed =
            |reason: String| ConnectError::Connect { address: address.to_string(), reason };
        let authority = authority.unwrap_or(&self.cluster.name);
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))
            // A cluster may have a name that is no host.
            .or_else(|_| match address {
                Address::Ip(address) => Endpoint::from_shared(format!("http://{address}")),
                Address::Pipe(_) => Endpoint::from_shared("http://localhost".to_owned()),
            })
            .map_err(|error| failed(error.to_string()))?;
        let (interval, timeout) = self.cluster.http2.keepalive.unwrap_or(KEEPALIVE);
        let endpoint = endpoint
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20);
        let stream = tokio::time::timeout(self.cluster.connect_timeout, self.open(address))
            .await
            .map_err(|_| failed("timed out".to_owned()))?
            .map_err(|error| match error {
                OpenError::SecretsMissing => {
                    ConnectError::SecretsMissing(Arc::clone(&self.cluster.name))
                }
                OpenError::Failed(reason) => failed(reason),
            })?;
        // The connector gives away the connection that is made already; there is never a second one.
        let mut stream = Some(TokioIo::new(stream));
        let connector = tower_service_fn(move |_: http::Uri| {
            let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            std::future::ready(stream)
        });
        tokio::time::timeout(
            self.cluster.connect_timeout,
            endpoint.connect_with_connector(connector),
        )
        .await
        .map_err(|_| failed("timed out in the HTTP/2 handshake".to_owned()))?
        .map_err(|error| failed(chain(&error)))
    }

    async fn open(&self, address: &Address) -> Result<Stream, OpenError> {
        let plain: Plain = match address {
            Address::Ip(address) => {
                let socket = bind_config::socket(self.cluster.bind.as_deref(), *address)?;
                let tcp = socket.connect(*address).await?;
                tcp.set_nodelay(true)?;
                Box::new(tcp)
            }
            Address::Pipe(path) => Box::new(UnixStream::connect(pipe_path(path)).await?),
        };
        let Some(tls) = &self.tls else { return Ok(Stream::Plain(plain)) };
        let (config, server_name) = tls.config().ok_or(OpenError::SecretsMissing)?;
        let stream = tokio_rustls::TlsConnector::from(config)
            .connect(server_name, plain)
            .await
            .map_err(|error| OpenError::Failed(tls::Failure::of_handshake(&error).to_string()))?;
        tls.peer(stream.get_ref().1).map_err(|error| OpenError::Failed(error.to_string()))?;
        Ok(Stream::Tls(Box::new(stream)))
    }

    async fn addresses(&self) -> Result<Vec<Address>, ConnectError> {
        let assignment: &LoadAssignment = match &self.cluster.discovery {
            Discovery::Static(assignment) => assignment,
            Discovery::Dns(dns) => &dns.assignment,
            Discovery::Eds { .. } | Discovery::Aggregate(_) | Discovery::OriginalDst(_) => {
                return Err(ConnectError::NoEndpoint(Arc::clone(&self.cluster.name)));
            }
        };
        let mut addresses = Vec::new();
        for endpoint in assignment.localities.iter().flat_map(|locality| &locality.endpoints) {
            match &endpoint.address {
                EndpointAddress::Ip(address) => addresses.push(Address::Ip(*address)),
                EndpointAddress::Pipe(path) => addresses.push(Address::Pipe(Arc::clone(path))),
                EndpointAddress::Name { host, port } => {
                    let found = tokio::net::lookup_host((&**host, *port)).await;
                    let found = found.map_err(|source| ConnectError::Resolve {
                        host: host.to_string(),
                        source,
                    })?;
                    addresses.extend(found.map(Address::Ip));
                }
            }
        }
        Ok(addresses)
    }
}

enum OpenError {
    SecretsMissing,
    Failed(String),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// An error with all its sources: tonic hides what is interesting behind "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// TCP, or a Unix domain socket.
type Plain = Box<dyn Connection>;

/// Bytes both ways.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<C: AsyncRead + AsyncWrite + Send + Unpin> Connection for C {}

/// A connection, in the clear or under TLS.
pub(crate) enum Stream {
    /// In the clear.
    Plain(Plain),
    /// Under TLS.
    Tls(Box<tokio_rustls::client::TlsStream<Plain>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A `tower` service from a function.
struct ServiceFn<F>(F);

fn tower_service_fn<F>(f: F) -> ServiceFn<F> {
    ServiceFn(f)
}

impl<F, R, T, E> tower_service::Service<http::Uri> for ServiceFn<F>
where
    F: FnMut(http::Uri) -> R,
    R: Future<Output = Result<T, E>>,
{
    type Response = T;
    type Error = E;
    type Future = R;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: http::Uri) -> R {
        (self.0)(uri)
    }
}
