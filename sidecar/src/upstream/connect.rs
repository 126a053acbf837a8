//! How a connection to an endpoint is made: TCP, then TLS, within the cluster's connect timeout.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::{Failure, happy_eyeballs};
use crate::cluster::{Cluster, Endpoint, RoutingPriority};
use crate::config::address::{self, Address};
use crate::config::bind_config;
use crate::config::proxy_protocol::UpstreamProxyProtocol;
use crate::tls;
use crate::transport::{Ends, Meter, Socket, Transport, from_unix, proxy_header};

/// Connects to an endpoint. `host` is the `Host` of the request that wants it, for `auto_sni`; `alpn` is what is offered
/// where the transport does not say; `client` is who it is for, where one client has it for itself.
///
/// The caller has taken a connection from the circuit breaker; it is given back when the connection ends, or here if none
/// comes to be.
///
/// # Errors
/// [`Failure::Connect`] or [`Failure::ConnectTimeout`].
pub(crate) async fn connect(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    priority: RoutingPriority,
    host: &str,
    alpn: &[&[u8]],
    client: Option<&Ends>,
) -> Result<Transport, Failure> {
    // Counts from here on; its end is the connection's.
    let life = Arc::new(Life::begin(cluster, endpoint, priority));
    let attempt = tokio::time::timeout(
        cluster.config.connect_timeout,
        Box::pin(connect_without_limit(cluster, endpoint, host, alpn, client, &life)),
    );
    let failure = match attempt.await {
        Ok(Ok(transport)) => {
            let milliseconds = life.began.elapsed().as_millis();
            let stats = cluster.stats.local();
            stats.upstream_cx_connect_ms.record(u64::try_from(milliseconds).unwrap_or(u64::MAX));
            return Ok(transport);
        }
        Ok(Err(failure)) => failure,
        Err(_) => {
            cluster.stats.local().upstream_cx_connect_timeout.inc();
            Failure::ConnectTimeout
        }
    };
    cluster.stats.local().upstream_cx_connect_fail.inc();
    endpoint.stats.local().cx_connect_fail.inc();
    Err(failure)
}

async fn connect_without_limit(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    host: &str,
    alpn: &[&[u8]],
    client: Option<&Ends>,
    life: &Arc<Life>,
) -> Result<Transport, Failure> {
    let tcp = tcp(cluster, endpoint).await.map_err(|error| {
        let error = strerror(&error);
        Failure::Connect(match &endpoint.address {
            Address::Ip(_) => format!("delayed connect error: {error}"),
            // There is nothing to wait for: it is known at once.
            Address::Pipe(path) => {
                format!("immediate connect error: {error}|remote address:{path}")
            }
        })
    })?;
    // A connection without these is slower, but works.
    let _ = tcp.set_nodelay(true);
    let _ = SockRef::from(&tcp).set_tcp_keepalive(&keepalive(cluster));
    let mut socket = Socket::new(tcp, Bytes::new()).metered(Arc::clone(life) as Arc<dyn Meter>);
    if let Some(told) = &endpoint.proxy_protocol {
        tell(&mut socket, told, client).await?;
    }
    let Some(context) = &endpoint.transport else { return Ok(Transport::plain(socket)) };

    let configuration =
        if cluster.config.auto_sni { context.config_for_host(host) } else { context.config() };
    let (mut configuration, name) = configuration.ok_or_else(|| {
        Failure::Connect("TLS_error: its secrets have not arrived yet".to_owned())
    })?;
    if configuration.alpn_protocols.is_empty() && !alpn.is_empty() {
        let mut with_alpn = (*configuration).clone();
        with_alpn.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        configuration = Arc::new(with_alpn);
    }
    let tls_stats = cluster.tls_stats.as_ref().map(|stats| stats.local());
    match TlsConnector::from(configuration).connect(name, socket).await {
        Ok(stream) => {
            if let Err(failure) = context.peer(stream.get_ref().1) {
                tls_stats.inspect(|stats| stats.fail_verify_error.inc());
                return Err(Failure::Connect(format!("TLS_error: {failure}")));
            }
            if let Some(stats) = tls_stats {
                stats.handshake.inc();
                if stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                    stats.session_reused.inc();
                }
            }
            Ok(Transport::tls(stream))
        }
        Err(error) => {
            let failure = tls::Failure::of_handshake(&error);
            if let Some(stats) = tls_stats {
                failure.kind.count(stats);
            }
            tracing::debug!(endpoint = %endpoint.address, cluster = %cluster.name, %failure, "TLS handshake failed");
            Err(Failure::Connect(format!("TLS_error: {failure}")))
        }
    }
}

/// Tells the endpoint whom the connection is for.
async fn tell(
    socket: &mut Socket,
    told: &UpstreamProxyProtocol,
    client: Option<&Ends>,
) -> Result<(), Failure> {
    let tcp = socket.tcp();
    let own = tcp.local_addr().ok().zip(tcp.peer_addr().ok());
    let header = proxy_header::encode(told, client, own).ok_or_else(|| {
        Failure::Connect("the header of the PROXY protocol would be too long".to_owned())
    })?;
    socket.write_all(&header).await.map_err(|error| Failure::Connect(strerror(&error)))
}

async fn tcp(cluster: &Cluster, endpoint: &Endpoint) -> io::Result<TcpStream> {
    let connect = async |address: SocketAddr| {
        bind_config::socket(cluster.bind.as_deref(), address)?.connect(address).await
    };
    let address = match &endpoint.address {
        Address::Ip(address) => *address,
        Address::Pipe(path) => {
            let socket = bind_config::unix_socket(cluster.bind.as_deref())?;
            return from_unix(socket.connect(address::pipe_path(path)).await?);
        }
    };
    let more = &endpoint.additional_addresses;
    if more.is_empty() {
        return connect(address).await;
    }
    let config = cluster.config.happy_eyeballs.as_ref();
    let ordered = happy_eyeballs::order(address, more, config);
    happy_eyeballs::first(ordered, connect).await
}

/// The error as the system names it, without the number behind it.
fn strerror(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// What the cluster says, or a probe a minute: a peer that vanished without a word is noticed.
fn keepalive(cluster: &Cluster) -> TcpKeepalive {
    const DEFAULT: std::time::Duration = std::time::Duration::from_secs(60);
    let configured = cluster.config.tcp_keepalive.as_ref();
    configured.map_or_else(
        || TcpKeepalive::new().with_time(DEFAULT),
        |configured| configured.of_socket(DEFAULT),
    )
}

/// The life of a connection, for statistics and the circuit breaker: it ends when the socket is dropped, wherever the
/// connection went in between.
struct Life {
    cluster: Arc<Cluster>,
    endpoint: Arc<Endpoint>,
    priority: RoutingPriority,
    began: Instant,
}

impl Life {
    fn begin(cluster: &Arc<Cluster>, endpoint: &Arc<Endpoint>, priority: RoutingPriority) -> Self {
        let stats = cluster.stats.local();
        stats.upstream_cx_total.inc();
        stats.upstream_cx_active.inc();
        let host = endpoint.stats.local();
        host.cx_total.inc();
        host.cx_active.inc();
        Self {
            cluster: Arc::clone(cluster),
            endpoint: Arc::clone(endpoint),
            priority,
            began: Instant::now(),
        }
    }
}

impl Meter for Life {
    fn received(&self, bytes: u64) {
        self.cluster.stats.local().upstream_cx_rx_bytes_total.add(bytes);
    }

    fn sent(&self, bytes: u64) {
        self.cluster.stats.local().upstream_cx_tx_bytes_total.add(bytes);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let stats = self.cluster.stats.local();
        stats.upstream_cx_active.dec();
        stats.upstream_cx_destroy.inc();
        let milliseconds = self.began.elapsed().as_millis();
        stats.upstream_cx_length_ms.record(u64::try_from(milliseconds).unwrap_or(u64::MAX));
        self.endpoint.stats.local().cx_active.dec();
        self.cluster.breaker(self.priority).release_connection();
    }
}
