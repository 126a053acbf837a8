//! A connection for health checks: as the cluster connects, but outside of its limits, its pools and its counts of
//! traffic.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::judge::Failure;
use super::{Plan, Target};
use crate::config::address::{self, Address};
use crate::config::bind_config;
use crate::tls::{self, ClientContext};
use crate::transport::{from_unix, proxy_header};

/// TCP, or TLS over it.
pub(super) type Stream = Box<dyn Bytes>;

/// Bytes both ways.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Bytes for S {}

/// Connects to where an endpoint is checked. The timeout of the check is the caller's.
pub(super) async fn connect(plan: &Plan, target: &Target) -> Result<Stream, Failure> {
    let mut tcp = tcp(plan, &target.address).await.map_err(Failure::network)?;
    // A connection without it is slower, but works.
    let _ = tcp.set_nodelay(true);
    if let Some(told) = plan.proxy_protocol.as_ref().unwrap_or(&target.proxy_protocol) {
        // It is for nobody but us.
        let own = tcp.local_addr().ok().zip(tcp.peer_addr().ok());
        let header = proxy_header::encode(told, None, own).unwrap_or_default();
        tcp.write_all(&header).await.map_err(Failure::network)?;
    }
    match transport(plan, target) {
        None => Ok(Box::new(tcp)),
        Some(context) => handshake(plan, context, tcp).await,
    }
}

async fn tcp(plan: &Plan, address: &Address) -> io::Result<TcpStream> {
    let bind = plan.cluster.bind.as_deref();
    match address {
        Address::Ip(address) => bind_config::socket(bind, *address)?.connect(*address).await,
        Address::Pipe(path) => {
            let socket = bind_config::unix_socket(bind)?;
            from_unix(socket.connect(address::pipe_path(path)).await?)
        }
    }
}

/// What is spoken to where an endpoint is checked; `None`: plaintext.
pub(super) fn transport<'p>(plan: &'p Plan, target: &'p Target) -> Option<&'p Arc<ClientContext>> {
    plan.transport.as_ref().unwrap_or(&target.transport).as_ref()
}

async fn handshake(
    plan: &Plan,
    context: &ClientContext,
    tcp: TcpStream,
) -> Result<Stream, Failure> {
    let (mut config, name) = context
        .config()
        .ok_or_else(|| Failure::network("the secrets of its TLS have not arrived yet"))?;
    if !plan.config.alpn.is_empty() {
        let mut with_alpn = (*config).clone();
        with_alpn.alpn_protocols = plan.config.alpn.iter().map(|it| it.to_vec()).collect();
        config = Arc::new(with_alpn);
    }
    let stats = plan.cluster.tls_stats.as_ref().map(|stats| stats.local());
    let failed = |failure: tls::Failure| {
        stats.inspect(|stats| failure.kind.count(stats));
        Failure::network(format!("TLS: {failure}"))
    };
    let stream = TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .map_err(|error| failed(tls::Failure::of_handshake(&error)))?;
    context.peer(stream.get_ref().1).map_err(failed)?;
    if let Some(stats) = stats {
        stats.handshake.inc();
        if stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
            stats.session_reused.inc();
        }
    }
    Ok(Box::new(stream))
}
