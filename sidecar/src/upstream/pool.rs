//! The connections of one worker to one endpoint: where a request gets one, and where it goes back.
//!
//! Where an endpoint is told whom a connection is for, by the PROXY protocol, each client has connections of its own: they
//! end with its own.
//!
//! An idle HTTP/1 connection serves the next request, the latest used first, so that surplus ones grow old and are closed.
//! An HTTP/2 connection takes requests up to its limit of streams. Where neither is at hand, the request waits, and a task
//! makes a new connection; whichever is free first, the new one or an older one, goes to the request that waits longest.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use http::Version;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{ConnectionFacts, Failure, RequestBody, connect, h1, h2};
use crate::cluster::{Cluster, Endpoint, EndpointId, RoutingPriority};
use crate::config::cluster::UpstreamProtocol;
use crate::transport::{Ends, Transport};

/// Which HTTP a request is to be sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    /// What the endpoint chooses by ALPN.
    Either,
}

impl Protocol {
    /// What is offered by ALPN.
    fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[b"h2"],
            Self::Either => &[b"h2", b"http/1.1"],
        }
    }

    /// What the cluster speaks to this endpoint, for a request of this version.
    pub(crate) fn of(cluster: &Cluster, endpoint: &Endpoint, version: Version) -> Self {
        match cluster.config.protocol {
            UpstreamProtocol::Http1 => Self::Http1,
            UpstreamProtocol::Http2 => Self::Http2,
            UpstreamProtocol::Downstream if version == Version::HTTP_2 => Self::Http2,
            UpstreamProtocol::Downstream => Self::Http1,
            // Without TLS there is no ALPN.
            UpstreamProtocol::Auto if endpoint.transport.is_none() => Self::Http1,
            UpstreamProtocol::Auto => Self::Either,
        }
    }
}

/// A connection that a request may use now.
pub(crate) enum Acquired<B: RequestBody> {
    /// For this request alone, until it is given back.
    Http1(h1::Connection<B>),
    /// Together with others.
    Http2(Shared<B>),
}

impl<B: RequestBody> Acquired<B> {
    /// What a log may say of it, and whether it is HTTP/2.
    pub(crate) fn facts(&self) -> (Rc<ConnectionFacts>, bool) {
        match self {
            Self::Http1(connection) => (Rc::clone(&connection.facts), false),
            Self::Http2(shared) => (Rc::clone(&shared.connection.facts), true),
        }
    }

    /// Whether a request was served on it before: it may have been closed by the endpoint at this very moment.
    pub(crate) fn was_used(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.requests > 1,
            Self::Http2(shared) => shared.connection.requests.get() > 1,
        }
    }
}

/// A request's place on a shared connection. Dropping it is the end of the request.
pub(crate) struct Shared<B: RequestBody> {
    /// The connection.
    pub(crate) connection: Rc<h2::Connection<B>>,
    pool: Rc<Pool<B>>,
}

impl<B: RequestBody> Drop for Shared<B> {
    fn drop(&mut self) {
        self.pool.release(&self.connection);
    }
}

/// Pools of endpoints and the numbers of clients' connections.
type ByClient<B> = HashMap<(EndpointId, u64), Rc<Pool<B>>>;

/// All pools of a worker.
pub(crate) struct Pools<B: RequestBody> {
    by_endpoint: RefCell<HashMap<EndpointId, Rc<Pool<B>>, BuildHasherDefault<IdHasher>>>,
    /// Of endpoints that are told whom a connection is for, by the number of the client's connection too.
    by_client: RefCell<ByClient<B>>,
}

/// A client that has connections of its own.
pub(crate) struct Client {
    /// Number of its connection to us, unique in the process.
    pub(crate) id: u64,
    /// What the endpoint is told of it.
    pub(crate) ends: Ends,
    /// Gone, when its connection to us is.
    pub(crate) connection: Weak<dyn Any>,
}

impl<B: RequestBody> Default for Pools<B> {
    fn default() -> Self {
        Self { by_endpoint: RefCell::default(), by_client: RefCell::default() }
    }
}

impl<B: RequestBody> Pools<B> {
    /// The pool of an endpoint.
    pub(crate) fn get(&self, endpoint: &Arc<Endpoint>) -> Rc<Pool<B>> {
        let mut pools = self.by_endpoint.borrow_mut();
        Rc::clone(pools.entry(endpoint.id).or_insert_with(|| Rc::new(Pool::new(endpoint, None))))
    }

    /// The pool of an endpoint, of this client alone where the endpoint is told whom a connection is for.
    pub(crate) fn get_for(
        &self,
        endpoint: &Arc<Endpoint>,
        client: impl FnOnce() -> Client,
    ) -> Rc<Pool<B>> {
        if endpoint.proxy_protocol.is_none() {
            return self.get(endpoint);
        }
        let client = client();
        let mut pools = self.by_client.borrow_mut();
        let pool = pools.entry((endpoint.id, client.id));
        Rc::clone(pool.or_insert_with(|| Rc::new(Pool::new(endpoint, Some(client)))))
    }

    /// Closes what is idle for too long, too old, or belongs to an endpoint that is gone. Called every second.
    pub(crate) fn sweep(&self) {
        let mut pools: Vec<Rc<Pool<B>>> = self.by_endpoint.borrow().values().cloned().collect();
        pools.extend(self.by_client.borrow().values().cloned());
        pools.iter().for_each(|pool| pool.sweep());
        // A pool that requests still use stays until they are done: they hold it.
        let is_used = |pool: &Rc<Pool<B>>| {
            pool.connections.get() > 0
                || Rc::strong_count(pool) > 2
                || !pool.waiting.borrow().is_empty()
        };
        self.by_endpoint.borrow_mut().retain(|_, pool| is_used(pool));
        self.by_client.borrow_mut().retain(|_, pool| is_used(pool));
    }

    /// Closes what is idle of connections to some endpoints, which are gone: it does not wait for the next sweep.
    pub(crate) fn release(&self, endpoints: &[EndpointId]) {
        self.of(endpoints).iter().for_each(|pool| pool.sweep());
    }

    /// Lets the connections to some endpoints serve no further request.
    pub(crate) fn retire(&self, endpoints: &[EndpointId]) {
        self.of(endpoints).iter().for_each(|pool| pool.retire());
    }

    /// Closes every idle connection: the worker is about to end.
    pub(crate) fn clear(&self) {
        self.by_endpoint.borrow_mut().clear();
        self.by_client.borrow_mut().clear();
    }

    /// All pools of some endpoints.
    fn of(&self, endpoints: &[EndpointId]) -> Vec<Rc<Pool<B>>> {
        let shared = self.by_endpoint.borrow();
        let shared = endpoints.iter().filter_map(|endpoint| shared.get(endpoint));
        let own = self.by_client.borrow();
        let own = own.iter().filter(|((endpoint, _), _)| endpoints.contains(endpoint));
        shared.chain(own.map(|(_, pool)| pool)).cloned().collect()
    }
}

/// The connections of one worker to one endpoint.
pub(crate) struct Pool<B: RequestBody> {
    /// To whom.
    pub(crate) endpoint: Arc<Endpoint>,
    /// Whom they are for, where it is one client.
    client: Option<Client>,
    h1: RefCell<Vec<h1::Connection<B>>>,
    h2: RefCell<Vec<Rc<h2::Connection<B>>>>,
    waiting: RefCell<VecDeque<Waiter<B>>>,
    connecting: Cell<usize>,
    /// Open or being opened.
    connections: Cell<usize>,
    /// The cluster as it was when a connection was last asked for: its settings are what the sweep goes by.
    cluster: RefCell<Option<Arc<Cluster>>>,
    /// Connections of another age than this serve no further request.
    age: Cell<u32>,
}

struct Waiter<B: RequestBody> {
    protocol: Protocol,
    ready: oneshot::Sender<Result<Acquired<B>, Failure>>,
}

impl<B: RequestBody> Pool<B> {
    fn new(endpoint: &Arc<Endpoint>, client: Option<Client>) -> Self {
        Self {
            endpoint: Arc::clone(endpoint),
            client,
            h1: RefCell::default(),
            h2: RefCell::default(),
            waiting: RefCell::default(),
            connecting: Cell::new(0),
            connections: Cell::new(0),
            cluster: RefCell::new(None),
            age: Cell::new(0),
        }
    }

    /// Whom its connections are for, where they are for one client.
    pub(crate) fn client_ends(&self) -> Option<&Ends> {
        self.client.as_ref().map(|client| &client.ends)
    }

    /// A connection that is there, without waiting.
    pub(crate) fn take(
        self: &Rc<Self>,
        cluster: &Cluster,
        protocol: Protocol,
    ) -> Option<Acquired<B>> {
        if protocol != Protocol::Http1
            && let Some(connection) = self.take_h2(cluster)
        {
            return Some(Acquired::Http2(Shared { connection, pool: Rc::clone(self) }));
        }
        if protocol != Protocol::Http2 {
            let mut idle = self.h1.borrow_mut();
            let mut at = idle.len();
            while at > 0 {
                at -= 1;
                if idle[at].sender.is_ready() {
                    let mut connection = idle.remove(at);
                    connection.requests += 1;
                    return Some(Acquired::Http1(connection));
                }
                if idle[at].sender.is_closed() {
                    idle.remove(at);
                }
                // Neither: its last response is taken, but its task has not run since. It is ready in a moment.
            }
        }
        None
    }

    fn take_h2(&self, cluster: &Cluster) -> Option<Rc<h2::Connection<B>>> {
        let connections = self.h2.borrow();
        let limit = cluster.config.http2.max_concurrent_streams;
        let connection = connections.iter().find(|connection| connection.has_room(limit))?;
        Self::use_h2(connection, cluster);
        Some(Rc::clone(connection))
    }

    fn use_h2(connection: &h2::Connection<B>, cluster: &Cluster) {
        connection.active.set(connection.active.get() + 1);
        connection.requests.set(connection.requests.get() + 1);
        if let Some(most) = cluster.config.max_requests_per_connection
            && connection.requests.get() >= most
            && !connection.draining.replace(true)
        {
            cluster.stats.local().upstream_cx_max_requests.inc();
        }
    }

    /// A connection, as soon as there is one. Never one that was used before if `fresh`.
    ///
    /// # Errors
    /// If none can be made, or a circuit breaker is open.
    pub(crate) async fn wait(
        self: &Rc<Self>,
        cluster: &Arc<Cluster>,
        protocol: Protocol,
        priority: RoutingPriority,
        host: &str,
    ) -> Result<Acquired<B>, Failure> {
        let breaker = cluster.breaker(priority);
        if !breaker.try_pending() {
            return Err(Failure::Overflow);
        }
        let _pending = Pending::begin(cluster, priority);
        self.cluster.replace(Some(Arc::clone(cluster)));

        let (ready, acquired) = oneshot::channel();
        self.waiting.borrow_mut().push_back(Waiter { protocol, ready });
        if self.needs_connection(cluster, protocol) {
            // A pool without any connection may always open its first, as in Envoy: else its requests wait for ever.
            let allowed = breaker.try_connection() || {
                let first = self.connections.get() == 0;
                if first {
                    breaker.force_connection();
                }
                first
            };
            if allowed {
                self.open(cluster, protocol, priority, host);
            }
        }
        match acquired.await {
            Ok(result) => result,
            Err(_) => Err(Failure::Connect("the pool is gone".to_owned())),
        }
    }

    /// Whether the requests that wait are more than the connections under way will serve.
    fn needs_connection(&self, cluster: &Cluster, protocol: Protocol) -> bool {
        let per_connection = match protocol {
            Protocol::Http1 => 1,
            // Until the endpoint has spoken, nobody knows how many it takes; 100 is what nearly all allow.
            Protocol::Http2 | Protocol::Either => {
                cluster.config.http2.max_concurrent_streams.clamp(1, 100) as usize
            }
        };
        self.waiting.borrow().len() > self.connecting.get() * per_connection
    }

    /// Opens a connection in a task of its own: a request that goes away does not take it with it.
    fn open(
        self: &Rc<Self>,
        cluster: &Arc<Cluster>,
        protocol: Protocol,
        priority: RoutingPriority,
        host: &str,
    ) {
        match protocol {
            Protocol::Http1 => cluster.stats.local().upstream_cx_http1_total.inc(),
            Protocol::Http2 => cluster.stats.local().upstream_cx_http2_total.inc(),
            // Counted when ALPN has chosen.
            Protocol::Either => {}
        }
        self.connecting.set(self.connecting.get() + 1);
        self.connections.set(self.connections.get() + 1);
        let (pool, cluster, host) = (Rc::clone(self), Arc::clone(cluster), Box::<str>::from(host));
        tokio::task::spawn_local(async move {
            let connecting = Connecting { pool: Rc::clone(&pool) };
            let alpn = protocol.alpn();
            let client = pool.client_ends();
            let connecting_to = &pool.endpoint;
            let connected =
                connect::connect(&cluster, connecting_to, priority, &host, alpn, client).await;
            let result = match connected {
                Ok(transport) => pool.start(transport, &cluster, protocol).await,
                Err(failure) => Err(failure),
            };
            drop(connecting);
            if let Err(failure) = result {
                pool.connections.set(pool.connections.get() - 1);
                pool.failed(failure);
            }
        });
    }

    /// Puts a new connection to work.
    async fn start(
        self: &Rc<Self>,
        transport: Transport,
        cluster: &Arc<Cluster>,
        protocol: Protocol,
    ) -> Result<(), Failure> {
        let http2 = match protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Either => {
                transport.tls_state().and_then(|tls| tls.alpn_protocol()) == Some(b"h2".as_slice())
            }
        };
        if protocol == Protocol::Either {
            let stats = cluster.stats.local();
            if http2 {
                stats.upstream_cx_http2_total.inc();
            } else {
                stats.upstream_cx_http1_total.inc();
            }
        }
        let (pool, for_waiting) = (Rc::clone(self), Arc::clone(cluster));
        let cluster = Arc::clone(cluster);
        if http2 {
            let (connection, drive) = h2::handshake(transport, &cluster, &self.endpoint).await?;
            self.h2.borrow_mut().push(Rc::clone(&connection));
            tokio::task::spawn_local(async move {
                cluster.while_healthy(&pool.endpoint, drive).await;
                pool.connections.set(pool.connections.get() - 1);
                pool.h2.borrow_mut().retain(|other| !Rc::ptr_eq(other, &connection));
                pool.serve_waiting();
            });
        } else {
            let (mut connection, drive) =
                h1::handshake(transport, &cluster, &self.endpoint).await?;
            connection.age = self.age.get();
            self.h1.borrow_mut().push(connection);
            tokio::task::spawn_local(async move {
                if let Some(Err(error)) = cluster.while_healthy(&pool.endpoint, drive).await {
                    tracing::debug!(%error, endpoint = %pool.endpoint.address, "upstream HTTP/1 connection ended");
                }
                pool.connections.set(pool.connections.get() - 1);
                pool.h1.borrow_mut().retain(|idle| !idle.sender.is_closed());
                pool.serve_waiting();
            });
        }
        self.serve_first_waiting(&for_waiting);
        Ok(())
    }

    /// A new connection is there; it counts as ready although its task has not run yet.
    fn serve_first_waiting(self: &Rc<Self>, cluster: &Arc<Cluster>) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(waiter) = waiting.pop_front() {
            if waiter.ready.is_closed() {
                continue;
            }
            let acquired = self.take(cluster, waiter.protocol).or_else(|| {
                let fits = waiter.protocol != Protocol::Http2;
                let mut idle = self.h1.borrow_mut();
                let fresh = idle.last().is_some_and(|connection| connection.requests == 0);
                let mut connection = (fits && fresh).then(|| idle.pop()).flatten()?;
                connection.requests += 1;
                Some(Acquired::Http1(connection))
            });
            match acquired {
                Some(acquired) => drop(waiter.ready.send(Ok(acquired)).map_err(|_| ())),
                None => {
                    waiting.push_front(waiter);
                    return;
                }
            }
        }
    }

    /// Gives what is free to the requests that wait, and opens connections for the rest.
    fn serve_waiting(self: &Rc<Self>) {
        if self.waiting.borrow().is_empty() {
            return;
        }
        let Some(cluster) = self.cluster.borrow().clone() else { return };
        self.serve_first_waiting(&cluster);
        let protocol = match self.waiting.borrow().front() {
            Some(waiter) => waiter.protocol,
            None => return,
        };
        let priority = RoutingPriority::Default;
        if self.needs_connection(&cluster, protocol) {
            let breaker = cluster.breaker(priority);
            let first = self.connections.get() == 0;
            if breaker.try_connection() {
                self.open(&cluster, protocol, priority, "");
            } else if first {
                breaker.force_connection();
                self.open(&cluster, protocol, priority, "");
            }
        }
    }

    /// A connection could not be made: the request that waits longest is told so, and with it all that no other connection
    /// will serve. A busy HTTP/1 connection comes back; an HTTP/2 connection that had room would have served them already.
    fn failed(&self, failure: Failure) {
        let mut waiting = self.waiting.borrow_mut();
        let nobody_connects = self.connecting.get() == 0;
        let nothing_left = self.connections.get() == 0;
        let mut told_one = false;
        let mut kept = VecDeque::new();
        while let Some(waiter) = waiting.pop_front() {
            let hopeless = nothing_left || (nobody_connects && waiter.protocol != Protocol::Http1);
            if hopeless || !told_one {
                told_one |= waiter.ready.send(Err(failure.clone())).is_ok();
            } else {
                kept.push_back(waiter);
            }
        }
        *waiting = kept;
    }

    /// Takes a connection back after a request. `reusable`: the response was read to its end, and so was the request.
    pub(crate) fn give_back(
        self: &Rc<Self>,
        mut connection: h1::Connection<B>,
        cluster: &Cluster,
        reusable: bool,
    ) {
        let mut reusable = reusable
            && !connection.sender.is_closed()
            && !self.endpoint.is_gone()
            && connection.age == self.age.get();
        if reusable
            && let Some(most) = cluster.config.max_requests_per_connection
            && connection.requests >= most
        {
            cluster.stats.local().upstream_cx_max_requests.inc();
            reusable = false;
        }
        if reusable {
            connection.idle_since = Instant::now();
            self.h1.borrow_mut().push(connection);
        }
        self.serve_waiting();
    }

    /// A request on a shared connection is over.
    fn release(self: &Rc<Self>, connection: &h2::Connection<B>) {
        let active = connection.active.get() - 1;
        connection.active.set(active);
        if active == 0 {
            connection.idle_since.set(Instant::now());
            if connection.draining.get() {
                self.drop_drained();
            }
        }
        self.serve_waiting();
    }

    /// Lets go of connections that take no more requests and have none: hyper closes them then.
    fn drop_drained(&self) {
        self.h2
            .borrow_mut()
            .retain(|connection| !(connection.draining.get() && connection.active.get() == 0));
    }

    fn retire(&self) {
        self.age.set(self.age.get().wrapping_add(1));
        self.h1.borrow_mut().clear();
        self.h2.borrow().iter().for_each(|connection| connection.draining.set(true));
        self.drop_drained();
    }

    fn sweep(&self) {
        if self.client.as_ref().is_some_and(|client| client.connection.strong_count() == 0) {
            self.retire();
        }
        let cluster = self.cluster.borrow().clone();
        let Some(cluster) = cluster else { return };
        let stats = cluster.stats.local();
        let gone = self.endpoint.is_gone();
        let (idle_limit, age_limit) =
            (cluster.config.idle_timeout, cluster.config.max_connection_duration);
        let too_old = |opened: Instant| age_limit.is_some_and(|limit| opened.elapsed() >= limit);
        let too_idle = |since: Instant| idle_limit.is_some_and(|limit| since.elapsed() >= limit);
        self.h1.borrow_mut().retain(|connection| {
            if too_old(connection.opened) {
                stats.upstream_cx_max_duration_reached.inc();
                return false;
            }
            if too_idle(connection.idle_since) {
                stats.upstream_cx_idle_timeout.inc();
                return false;
            }
            !gone && !connection.sender.is_closed()
        });
        for connection in self.h2.borrow().iter() {
            if connection.draining.get() {
                continue;
            }
            if too_old(connection.opened) {
                stats.upstream_cx_max_duration_reached.inc();
                connection.draining.set(true);
            } else if connection.active.get() == 0 && too_idle(connection.idle_since.get()) {
                stats.upstream_cx_idle_timeout.inc();
                connection.draining.set(true);
            } else if gone || connection.is_closed() {
                connection.draining.set(true);
            }
        }
        self.drop_drained();
    }
}

/// A connection is being made.
struct Connecting<B: RequestBody> {
    pool: Rc<Pool<B>>,
}

impl<B: RequestBody> Drop for Connecting<B> {
    fn drop(&mut self) {
        self.pool.connecting.set(self.pool.connecting.get() - 1);
    }
}

/// A request waits for a connection.
pub(crate) struct Pending {
    cluster: Arc<Cluster>,
    priority: RoutingPriority,
}

impl Pending {
    /// The caller has taken a place in the circuit breaker; it is given back at the end.
    pub(crate) fn begin(cluster: &Arc<Cluster>, priority: RoutingPriority) -> Self {
        let stats = cluster.stats.local();
        stats.upstream_rq_pending_total.inc();
        stats.upstream_rq_pending_active.inc();
        Self { cluster: Arc::clone(cluster), priority }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.cluster.stats.local().upstream_rq_pending_active.dec();
        self.cluster.breaker(self.priority).release_pending();
    }
}

/// Ids are dense numbers: they need spreading, not hashing.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0.rotate_left(8) ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests;
