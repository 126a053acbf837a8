//! A connection from a client, as its requests see it.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::ConnectionManager;
use crate::cluster::{Cluster, Endpoint};
use crate::config::address::Address;
use crate::config::proxy_protocol::Tlv;
use crate::http::body::RequestBody;
use crate::http::head_tap::HeadTap;
use crate::http::headers;
use crate::http::tunnel::Tunnel;
use crate::local::Local;
use crate::stats::{HttpCells, HttpListenerCells, Sharded};
use crate::tls::TlsFacts;
use crate::transport::{Ends, Meter};
use crate::upstream::{Client, Pool};

/// HTTP/2 streams that a client resets at once: from so many streams on, a connection of which most were is cut.
const PREMATURE_RESETS: u32 = 500;

/// A stream that lives shorter than this was reset at once.
const PREMATURE: Duration = Duration::from_secs(1);

/// A connection from a client, as its requests see it.
pub(crate) struct Connection {
    pub(crate) local: Rc<Local>,
    pub(crate) manager: Arc<ConnectionManager>,
    /// Unique in the process.
    pub(crate) id: u64,
    /// The client: the other end, or whom the PROXY protocol names.
    pub(crate) peer: Address,
    /// The other end itself.
    pub(crate) direct_peer: Address,
    /// Where the client connected to: this end, unless it was redirected here.
    pub(crate) local_address: Address,
    /// Where it was going to, if it was redirected.
    original_destination: Option<SocketAddr>,
    /// What the client's own proxy said beside the addresses.
    tlvs: Option<Arc<[Tlv]>>,
    pub(crate) tls: Option<TlsFacts>,
    /// Name of the filter chain.
    pub(crate) chain: Arc<str>,
    /// What moved over the socket.
    pub(crate) meter: Arc<DownstreamMeter>,
    pub(super) http2: Cell<bool>,
    /// Sees the head of a request as it came; only of HTTP/1.
    pub(crate) head: OnceCell<Arc<HeadTap>>,
    pub(super) active: Cell<u32>,
    requests: Cell<u32>,
    premature_resets: Cell<u32>,
    /// Ends with the response under way.
    closing: Cell<bool>,
    /// A broken response must not look whole to a client that takes the end of the connection for its end.
    pub(crate) ends_by_close: Cell<bool>,
    pub(super) idle_since: Cell<Instant>,
    /// Bytes received when the last request ended: whatever came after is the beginning of the next.
    received_at_idle: Cell<u64>,
    /// What an HTTP/1 connection has become, until that ends.
    pub(super) tunnel: RefCell<Option<Tunnel>>,
    last_host: RefCell<Option<(HeaderValue, Authority)>>,
    last_timeout: RefCell<Option<(u64, HeaderValue)>>,
    /// Value of `server`, this connection's own copy.
    pub(crate) server_name: HeaderValue,
}

/// Counts a client's bytes, and notices when it does not read.
pub(crate) struct DownstreamMeter {
    stats: Arc<Sharded<HttpCells>>,
    received: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) blocked: AtomicBool,
}

impl DownstreamMeter {
    pub(crate) fn new(stats: &Arc<Sharded<HttpCells>>) -> Arc<Self> {
        Arc::new(Self {
            stats: Arc::clone(stats),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
        })
    }
}

// One thread: plain loads and stores.
impl Meter for DownstreamMeter {
    fn received(&self, bytes: u64) {
        self.received.store(self.received.load(Relaxed) + bytes, Relaxed);
        self.stats.local().downstream_cx_rx_bytes_total.add(bytes);
    }

    fn sent(&self, bytes: u64) {
        self.sent.store(self.sent.load(Relaxed) + bytes, Relaxed);
        self.blocked.store(false, Relaxed);
        self.stats.local().downstream_cx_tx_bytes_total.add(bytes);
    }

    fn blocked(&self) {
        self.blocked.store(true, Relaxed);
    }
}

/// What a connection begins with.
pub(crate) struct Accepted {
    pub(crate) local: Rc<Local>,
    pub(crate) manager: Arc<ConnectionManager>,
    pub(crate) ends: Ends,
    pub(crate) tls: Option<TlsFacts>,
    pub(crate) chain: Arc<str>,
    pub(crate) meter: Arc<DownstreamMeter>,
}

impl Connection {
    pub(crate) fn new(accepted: Accepted) -> Rc<Self> {
        let Accepted { local, manager, ends, tls, chain, meter } = accepted;
        let stats = manager.stats.local();
        stats.downstream_cx_total.inc();
        stats.downstream_cx_active.inc();
        if tls.is_some() {
            stats.downstream_cx_ssl_total.inc();
            stats.downstream_cx_ssl_active.inc();
        }
        let server_name = headers::own(&manager.config.server_name);
        // The bytes of a handshake are not the beginning of a request.
        let received_at_idle = tls.as_ref().map_or(0, |_| meter.received.load(Relaxed));
        Rc::new(Self {
            id: local.next_id(),
            local,
            manager,
            original_destination: ends.original_destination(),
            tlvs: ends.tlvs,
            peer: ends.peer,
            direct_peer: ends.direct_peer,
            local_address: ends.local,
            tls,
            chain,
            meter,
            http2: Cell::new(false),
            head: OnceCell::new(),
            active: Cell::new(0),
            requests: Cell::new(0),
            premature_resets: Cell::new(0),
            closing: Cell::new(false),
            ends_by_close: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            received_at_idle: Cell::new(received_at_idle),
            tunnel: RefCell::new(None),
            last_host: RefCell::new(None),
            last_timeout: RefCell::new(None),
            server_name,
        })
    }

    #[inline]
    pub(crate) fn stats(&self) -> &HttpCells {
        self.manager.stats.local()
    }

    #[inline]
    pub(crate) fn listener_stats(&self) -> &HttpListenerCells {
        self.manager.listener_stats.local()
    }

    pub(crate) fn begin_request(&self) {
        if let Some(head) = self.head.get() {
            head.stop();
        }
        self.active.set(self.active.get() + 1);
        self.requests.set(self.requests.get() + 1);
        if let Some(most) = self.manager.config.max_requests_per_connection
            && self.requests.get() >= most
            && !self.closing.replace(true)
        {
            self.stats().downstream_cx_max_requests_reached.inc();
        }
    }

    pub(crate) fn end_request(&self) {
        self.active.set(self.active.get() - 1);
        self.idle_since.set(Instant::now());
        self.received_at_idle.set(self.meter.received.load(Relaxed));
        if let Some(head) = self.head.get() {
            head.start();
        }
    }

    /// The address of a request's client, whose port is known only if it is the connection's own peer.
    pub(crate) fn address_of(&self, client: Option<IpAddr>) -> Address {
        match client {
            Some(client) if self.peer.ip() != Some(client) => {
                Address::Ip(SocketAddr::new(client, 0))
            }
            Some(client) => SocketAddr::new(client, self.peer.port().unwrap_or(0)).into(),
            None => self.peer.clone(),
        }
    }

    /// Where a request gets its connection to an endpoint.
    #[inline]
    pub(crate) fn pool_of(self: &Rc<Self>, endpoint: &Arc<Endpoint>) -> Rc<Pool<RequestBody>> {
        self.local.pools.get_for(endpoint, || {
            let ends = Ends {
                tlvs: self.tlvs.clone(),
                ..Ends::of(self.peer.clone(), self.local_address.clone())
            };
            let connection = Rc::downgrade(self);
            Client { id: self.id, ends, connection }
        })
    }

    /// The endpoint of a cluster of type ORIGINAL_DST for a request of this connection.
    #[inline]
    pub(crate) fn original_destination(
        &self,
        cluster: &Cluster,
        headers: &HeaderMap,
    ) -> Option<Arc<Endpoint>> {
        cluster.original_destination(Some(headers), self.original_destination)
    }

    /// The version of HTTP that the client speaks.
    pub(crate) fn version(&self) -> http::Version {
        if self.http2.get() { http::Version::HTTP_2 } else { http::Version::HTTP_11 }
    }

    /// A client reset a stream.
    pub(crate) fn count_reset(&self, lived: Duration) {
        if self.http2.get() && lived < PREMATURE {
            self.premature_resets.set(self.premature_resets.get() + 1);
        }
    }

    /// Whether something came since the last request ended.
    pub(super) fn has_begun_a_head(&self) -> bool {
        self.meter.received.load(Relaxed) != self.received_at_idle.get()
    }

    /// Whether the response under way is the last.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Makes the response under way the last.
    pub(crate) fn close_after_response(&self) {
        self.closing.set(true);
    }

    /// The connection is a tunnel from here on, which ends with it. Those of HTTP/2 are streams, and end with it anyway.
    pub(crate) fn becomes(&self, tunnel: Tunnel) {
        *self.tunnel.borrow_mut() = Some(tunnel);
    }

    /// The authority of a `Host`, for HTTP/2. A connection's requests mostly have the same.
    pub(crate) fn authority(&self, host: &HeaderValue) -> Option<Authority> {
        let mut last = self.last_host.borrow_mut();
        if let Some((known, authority)) = &*last
            && known == host
        {
            return Some(authority.clone());
        }
        let authority = Authority::try_from(host.as_bytes()).ok()?;
        *last = Some((host.clone(), authority.clone()));
        Some(authority)
    }

    /// The value of `x-envoy-expected-rq-timeout-ms`. A connection's requests mostly have the same.
    pub(crate) fn timeout_header(&self, timeout: Duration) -> HeaderValue {
        let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let mut last = self.last_timeout.borrow_mut();
        match &*last {
            Some((known, value)) if *known == milliseconds => value.clone(),
            _ => {
                let value = HeaderValue::from(milliseconds);
                *last = Some((milliseconds, value.clone()));
                value
            }
        }
    }

    /// The `Host` for an authority: the other way round.
    pub(crate) fn host(&self, authority: &Authority) -> Option<HeaderValue> {
        let mut last = self.last_host.borrow_mut();
        if let Some((host, known)) = &*last
            && known.as_str() == authority.as_str()
        {
            return Some(host.clone());
        }
        let host = HeaderValue::from_str(authority.as_str()).ok()?;
        *last = Some((host.clone(), authority.clone()));
        Some(host)
    }

    /// Most of many streams were reset by the client as soon as they began (CVE-2023-44487).
    pub(super) fn is_flooding(&self) -> bool {
        let resets = self.premature_resets.get();
        resets >= PREMATURE_RESETS && resets > self.requests.get() / 2
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let stats = self.manager.stats.local();
        stats.downstream_cx_active.dec();
        stats.downstream_cx_destroy.inc();
        if self.tls.is_some() {
            stats.downstream_cx_ssl_active.dec();
        }
    }
}
