//! From an accepted TCP connection to the filter chain that takes it: inspect, match, TLS.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::accept::ProcessDrains;
use super::connection_log::{self, Began, Known};
use super::filter_chain::Criteria;
use super::filters::{self, Found, Passed};
use super::network_filters::{Admitted, Peer};
use super::revocation::Revocation;
use super::{Chain, Listener, Terminal};
use crate::access_log::ResponseFlags;
use crate::config::address::Address;
use crate::drain::{Listening, Signal};
use crate::http::connection_manager::{self, Connection, DownstreamMeter, Drains};
use crate::local::Local;
use crate::stats::ListenerCells;
use crate::tcp_proxy;
use crate::tls::{self, TlsFacts};
use crate::transport::{Ends, Meter, Socket, Transport};

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
    peer: Address,
    process_drains: &ProcessDrains,
    chain_drains: &ChainDrains,
) {
    let _counted = local.count_connection();
    let local_address = match &peer {
        Address::Ip(_) => tcp.local_addr().map(Address::Ip),
        // A client of a Unix domain socket has no name of its own: both ends have that of the socket.
        Address::Pipe(_) => Ok(peer.clone()),
    };
    let Ok(local_address) = local_address else { return };
    let mut socket = Socket::new(tcp, Bytes::new());
    let mut found = Found::new(Ends::of(peer, local_address));
    let began = Began::now();
    let first = Arc::clone(&listener);
    let Some(listener) = filtered(&local, listener, &mut socket, &mut found).await else {
        let Found { ends, server_name, .. } = &found;
        let flags = ResponseFlags::NONE;
        let server_name = server_name.as_deref();
        let known = Known { ends, server_name, chain: "", tls: None, flags };
        return connection_log::write(&local, &first, began, &known);
    };
    let Found { ends, transport_protocol, server_name, application_protocols } = found;
    let criteria = Criteria {
        destination: Criteria::place(&ends.local),
        server_name: server_name.as_deref().unwrap_or_default(),
        transport_protocol,
        application_protocols: &application_protocols,
        direct_source: Criteria::place(&ends.direct_peer),
        source: Criteria::place(&ends.peer),
    };
    let Some(chain) = listener.chain_for(&criteria).cloned() else {
        listener.stats.local().no_filter_chain_match.inc();
        tracing::debug!(peer = %ends.peer, listener = %listener.config.name, ?server_name, "no filter chain takes the connection");
        let (server_name, flags) = (server_name.as_deref(), ResponseFlags::NO_ROUTE_FOUND);
        let known = Known { ends: &ends, server_name, chain: "", tls: None, flags };
        return connection_log::write(&local, &listener, began, &known);
    };
    let _life = Life::begin(&listener, local.index);
    let drain = chain_drains.of(&chain);
    let process_drain = process_drains.of(&listener);

    let accepted = Accepted { local, ends: &ends, chain: &chain };
    match &chain.terminal {
        Terminal::Http(manager) => {
            let meter = DownstreamMeter::new(&manager.stats);
            let metered = socket.metered(Arc::clone(&meter) as Arc<dyn Meter>);
            let log = |server_name: Option<&str>, tls: Option<&TlsFacts>| {
                let (chain, flags) = (&*chain.name, ResponseFlags::NONE);
                let known = Known { ends: &ends, server_name, chain, tls, flags };
                connection_log::write(&accepted.local, &listener, began, &known);
            };
            let entered = enter(&listener, &accepted, server_name, metered).await;
            let Entered { transport, tls, server_name, admitted: _admitted } = match entered {
                Ok(entered) => entered,
                Err(Some((_, tls, server_name))) => {
                    return log(server_name.as_deref(), tls.as_ref());
                }
                Err(None) => return log(None, None),
            };
            let revocation = Revocation::of(&chain, tls.as_ref());
            let connection = Connection::new(connection_manager::Accepted {
                local: Rc::clone(&accepted.local),
                manager: Arc::clone(manager),
                ends: ends.clone(),
                tls,
                chain: Arc::clone(&chain.name),
                meter,
            });
            let drains = Drains::new(&drain, process_drain);
            let serving = connection_manager::serve(Rc::clone(&connection), transport, drains);
            revocation.ends(serving).await;
            log(server_name.as_deref(), connection.tls.as_ref());
        }
        Terminal::Tcp(proxy) => {
            let metered = socket.metered(proxy.meter());
            let client = |tls, server_name, cluster| tcp_proxy::Client {
                ends: ends.clone(),
                server_name,
                cluster,
                chain: Arc::clone(&chain.name),
                drain: Listening::to(&drain),
                tls,
                listener_loggers: Arc::clone(&listener.loggers),
            };
            match enter(&listener, &accepted, server_name, metered).await {
                Ok(Entered { transport, tls, server_name, admitted }) => {
                    let revocation = Revocation::of(&chain, tls.as_ref());
                    let client = client(tls, server_name, admitted.cluster.clone());
                    let serving = tcp_proxy::serve(accepted.local, proxy, transport, client);
                    revocation.ends(serving).await;
                }
                Err(Some((details, tls, server_name))) => {
                    let client = client(tls, server_name, None);
                    tcp_proxy::refused(&accepted.local, proxy, &client, details);
                }
                Err(None) => {
                    let (chain, flags) = (&*chain.name, ResponseFlags::NONE);
                    let known = Known { ends: &ends, server_name: None, chain, tls: None, flags };
                    connection_log::write(&accepted.local, &listener, began, &known);
                }
            }
        }
    }
}

/// A connection that a chain has taken.
struct Accepted<'c> {
    local: Rc<Local>,
    ends: &'c Ends,
    chain: &'c Chain,
}

/// A connection that may come in, as its last filter gets it.
struct Entered {
    transport: Transport,
    tls: Option<TlsFacts>,
    server_name: Option<Box<str>>,
    admitted: Admitted,
}

/// What logs say of a connection that was not let in, and of who it was. `None`: TLS has failed, which is told already.
type Outside = Option<(Option<Box<str>>, Option<TlsFacts>, Option<Box<str>>)>;

/// Past the filters of the chain, and under TLS where it has that.
async fn enter(
    listener: &Listener,
    accepted: &Accepted<'_>,
    server_name: Option<Box<str>>,
    socket: Socket,
) -> Result<Entered, Outside> {
    let chain = accepted.chain;
    let admitted = match chain.filters.admit(server_name.as_deref()) {
        Ok(admitted) => admitted,
        Err(denied) => {
            wait(denied.delay).await;
            return Err(Some((denied.details, None, server_name)));
        }
    };
    let peer = &accepted.ends.direct_peer;
    let Some((transport, tls)) = secure(listener, chain, socket, peer).await else {
        return Err(None);
    };
    let server_name = server_name.or_else(|| tls.as_ref()?.server_name.clone());
    let peer = Peer { ends: accepted.ends, server_name: server_name.as_deref(), tls: tls.as_ref() };
    if let Err(denied) = chain.filters.permit(&peer) {
        tracing::debug!(peer = %accepted.ends.peer, listener = %listener.config.name, details = ?denied.details, "denied");
        wait(denied.delay).await;
        return Err(Some((denied.details, tls, server_name)));
    }
    Ok(Entered { transport, tls, server_name, admitted })
}

/// No timer where nothing is waited for.
async fn wait(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

/// Shows a connection to the filters of its listener, and of the one that it is handed over to. Returns the listener that
/// takes it; `None`: it ends here.
async fn filtered(
    local: &Local,
    listener: Arc<Listener>,
    socket: &mut Socket,
    found: &mut Found,
) -> Option<Arc<Listener>> {
    inspect(&listener, socket, found).await?;
    let Some(destination) = found.ends.original_destination() else { return Some(listener) };
    if !listener.config.use_original_dst {
        return Some(listener);
    }
    // From there it is not handed on.
    let Some(other) = local.view().listener_at(destination).cloned() else {
        return Some(listener);
    };
    inspect(&other, socket, found).await?;
    Some(other)
}

/// Runs the filters of a listener, for as long as they may take. `None`: the connection ends here.
async fn inspect(listener: &Listener, socket: &mut Socket, found: &mut Found) -> Option<()> {
    if listener.filters.is_empty() {
        return Some(());
    }
    let _before = PreConnection::begin(listener);
    let stats = listener.stats.local();
    let filtering = filters::run(&listener.filters, socket, found);
    match within(listener.config.listener_filters_timeout, filtering).await {
        Some(Ok(Passed::On)) => Some(()),
        Some(Ok(Passed::Refused)) => None,
        Some(Ok(Passed::RemoteClosed)) => {
            stats.downstream_listener_filter_remote_close.inc();
            None
        }
        Some(Err(_)) => {
            stats.downstream_listener_filter_error.inc();
            None
        }
        None => {
            stats.downstream_pre_cx_timeout.inc();
            listener.config.continue_on_listener_filters_timeout.then_some(())
        }
    }
}

/// The connection as its chain wants it: under TLS, or as it is.
async fn secure(
    listener: &Listener,
    chain: &Chain,
    socket: Socket,
    peer: &Address,
) -> Option<(Transport, Option<TlsFacts>)> {
    let Some(context) = &chain.tls else { return Some((Transport::plain(socket), None)) };
    let stats = listener.tls_stats.local();
    let Some(accepting) = context.accepting() else {
        tracing::debug!(%peer, listener = %listener.config.name, "refused: the secrets for TLS have not arrived yet");
        stats.connection_error.inc();
        return None;
    };
    let timeout = chain.handshake_timeout.unwrap_or(HANDSHAKE_TIMEOUT);
    let accepting = Box::pin(accepting.accept(socket));
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

fn refuse(listener: &Listener, peer: &Address, failure: &tls::Failure) {
    failure.kind.count(listener.tls_stats.local());
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

/// A connection that is looked at, for the statistics of its listener.
struct PreConnection<'l>(&'l Listener);

impl<'l> PreConnection<'l> {
    fn begin(listener: &'l Listener) -> Self {
        listener.stats.local().downstream_pre_cx_active.inc();
        Self(listener)
    }
}

impl Drop for PreConnection<'_> {
    fn drop(&mut self) {
        self.0.stats.local().downstream_pre_cx_active.dec();
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
