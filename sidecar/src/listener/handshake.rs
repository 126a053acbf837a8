//! From an accepted TCP connection to the filter chain that takes it: inspect, match, TLS.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::filter_chain::Criteria;
use super::tls_inspector::{self, Inspected};
use super::{Chain, Listener, Terminal};
use crate::config::listener::TransportProtocol;
use crate::drain::{Listening, Signal};
use crate::http::connection_manager::{self, Accepted, Connection, DownstreamMeter, Drains};
use crate::local::Local;
use crate::stats::ListenerCells;
use crate::tcp_proxy;
use crate::tls::{self, TlsFacts};
use crate::transport::{Meter, Socket, Transport};
use crate::upstream::connect::count_tls_failure;

/// Longest time for a TLS handshake where nothing is configured.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// One worker's drain signals of filter chains, each as long as a connection has it.
#[derive(Default)]
pub(crate) struct ChainDrains {
    by_chain: RefCell<HashMap<usize, Weak<Signal>>>,
}

impl ChainDrains {
    fn of(&self, chain: &Arc<Chain>) -> Rc<Signal> {
        let mut by_chain = self.by_chain.borrow_mut();
        let key = Arc::as_ptr(chain) as usize;
        if let Some(signal) = by_chain.get(&key).and_then(Weak::upgrade)
            && signal.is_given() == chain.drain.is_cancelled()
        {
            return signal;
        }
        by_chain.retain(|_, signal| signal.strong_count() > 0);
        let signal = Signal::of(&chain.drain);
        by_chain.insert(key, Rc::downgrade(&signal));
        signal
    }
}

/// Takes a connection from accept to its end.
pub(crate) async fn run(
    local: Rc<Local>,
    listener: Arc<Listener>,
    tcp: TcpStream,
    peer: SocketAddr,
    process_drain: Rc<Signal>,
    chain_drains: &ChainDrains,
) {
    let _counted = local.count_connection();
    let _life = Life::begin(&listener, local.index);
    let Ok(local_address) = tcp.local_addr() else { return };
    let mut socket = Socket::new(tcp, Bytes::new());

    let inspected = if listener.config.tls_inspector {
        match inspect(&listener, &mut socket).await {
            Some(inspected) => inspected,
            None => return,
        }
    } else {
        Inspected::raw_buffer()
    };
    let criteria = Criteria {
        destination: local_address,
        server_name: inspected.server_name.as_deref().unwrap_or_default(),
        transport_protocol: inspected.transport_protocol,
        application_protocols: &inspected.application_protocols,
        direct_source: peer,
        source: peer,
    };
    let Some(chain) = listener.chain_for(&criteria).cloned() else {
        listener.stats.local().no_filter_chain_match.inc();
        tracing::debug!(%peer, listener = %listener.config.name, server_name = ?inspected.server_name, "no filter chain takes the connection");
        return;
    };
    let drain = chain_drains.of(&chain);

    match &chain.terminal {
        Terminal::Http(manager) => {
            let meter = DownstreamMeter::new(&manager.stats);
            let metered = socket.metered(Arc::clone(&meter) as Arc<dyn Meter>);
            let Some((transport, tls)) = secure(&listener, &chain, metered, peer).await else {
                return;
            };
            let connection = Connection::new(Accepted {
                local,
                manager: Arc::clone(manager),
                peer,
                local_address,
                tls,
                chain: Arc::clone(&chain.name),
                meter,
            });
            let drains = Drains::new(&drain, &process_drain);
            connection_manager::serve(connection, transport, drains).await;
        }
        Terminal::Tcp(proxy) => {
            let metered = socket.metered(proxy.meter());
            let Some((transport, tls)) = secure(&listener, &chain, metered, peer).await else {
                return;
            };
            let server_name = inspected
                .server_name
                .clone()
                .or_else(|| tls.as_ref().and_then(|tls| tls.server_name.clone()));
            let client = tcp_proxy::Client {
                peer,
                local_address,
                server_name,
                chain: Arc::clone(&chain.name),
                drain: Listening::to(&drain),
                tls,
            };
            tcp_proxy::serve(local, proxy, transport, client).await;
        }
    }
}

async fn inspect(listener: &Listener, socket: &mut Socket) -> Option<Inspected> {
    let inspecting = tls_inspector::inspect(socket);
    let inspected = match within(listener.config.listener_filters_timeout, inspecting).await {
        Some(Ok(inspected)) => inspected,
        Some(Err(_)) => {
            listener.stats.local().downstream_listener_filter_remote_close.inc();
            return None;
        }
        None => {
            listener.stats.local().downstream_pre_cx_timeout.inc();
            if !listener.config.continue_on_listener_filters_timeout {
                return None;
            }
            Inspected::raw_buffer()
        }
    };
    let stats = listener.inspector_stats.local();
    if inspected.transport_protocol == TransportProtocol::Tls {
        stats.tls_found.inc();
        match inspected.server_name {
            Some(_) => stats.sni_found.inc(),
            None => stats.sni_not_found.inc(),
        }
        match inspected.application_protocols.is_empty() {
            false => stats.alpn_found.inc(),
            true => stats.alpn_not_found.inc(),
        }
    } else {
        stats.tls_not_found.inc();
    }
    Some(inspected)
}

/// The connection as its chain wants it: under TLS, or as it is.
async fn secure(
    listener: &Listener,
    chain: &Chain,
    socket: Socket,
    peer: SocketAddr,
) -> Option<(Transport, Option<TlsFacts>)> {
    let Some(context) = &chain.tls else { return Some((Transport::plain(socket), None)) };
    let stats = listener.tls_stats.local();
    let Some(config) = context.config() else {
        tracing::debug!(%peer, listener = %listener.config.name, "refused: the secrets for TLS have not arrived yet");
        stats.connection_error.inc();
        return None;
    };
    let timeout = chain.handshake_timeout.unwrap_or(HANDSHAKE_TIMEOUT);
    let accepting = Box::pin(TlsAcceptor::from(config).accept(socket));
    let stream = match within(Some(timeout), accepting).await {
        Some(Ok(stream)) => stream,
        Some(Err(error)) => {
            refuse(listener, peer, &tls::Failure::of_handshake(&error));
            return None;
        }
        None => {
            listener.stats.local().downstream_cx_transport_socket_connect_timeout.inc();
            return None;
        }
    };
    let state = stream.get_ref().1;
    let identity = match context.peer(state) {
        Ok(identity) => identity,
        Err(failure) => {
            refuse(listener, peer, &failure);
            return None;
        }
    };
    stats.handshake.inc();
    if identity.is_none() {
        stats.no_certificate.inc();
    }
    if state.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
        stats.session_reused.inc();
    }
    let facts = TlsFacts {
        identity,
        server_name: state.server_name().map(|name| name.to_ascii_lowercase().into()),
        own: context.own(state.server_name()),
        version: tls::version_name(state.protocol_version()),
        cipher: state.negotiated_cipher_suite().map(|suite| tls::cipher_name(suite.suite())),
        group: state.negotiated_key_exchange_group().map(|group| tls::group_name(group.name())),
    };
    Some((Transport::tls(stream), Some(facts)))
}

fn refuse(listener: &Listener, peer: SocketAddr, failure: &tls::Failure) {
    count_tls_failure(listener.tls_stats.local(), failure.kind);
    // One line for each refusal, naming who and why: this is how a broken identity is found.
    tracing::info!(%peer, listener = %listener.config.name, %failure, "refused a TLS connection");
}

/// `None`: the time was over.
async fn within<F: Future>(limit: Option<Duration>, future: F) -> Option<F::Output> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, future).await.ok(),
        None => Some(future.await),
    }
}

/// A connection of a listener, for its statistics.
struct Life<'l> {
    listener: &'l Listener,
    worker: usize,
    began: Instant,
}

impl<'l> Life<'l> {
    fn begin(listener: &'l Listener, worker: usize) -> Self {
        let stats = listener.stats.local();
        stats.downstream_cx_total.inc();
        stats.downstream_cx_active.inc();
        if let Some(stats) = listener.worker_stats.get(worker) {
            stats.local().downstream_cx_total.inc();
            stats.local().downstream_cx_active.inc();
        }
        Self { listener, worker, began: Instant::now() }
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        let stats: &ListenerCells = self.listener.stats.local();
        stats.downstream_cx_active.dec();
        stats.downstream_cx_destroy.inc();
        let milliseconds = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        stats.downstream_cx_length_ms.record(milliseconds);
        if let Some(stats) = self.listener.worker_stats.get(self.worker) {
            stats.local().downstream_cx_active.dec();
        }
    }
}
