//! What the workers serve from: listeners, route tables and clusters by id, immutable, swapped whole.
//!
//! The control thread builds the next snapshot from the last one and stores it in one `ArcSwap`; a request that has begun
//! keeps the snapshot it began with. An update copies one table of pointers and never what they point to. Endpoints are
//! not in here: each cluster swaps its own host set.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::cluster::ClusterTable;
use crate::http::RouteTable;
use crate::listener::Listener;

/// A listener's place in the snapshot. Stable while the listener lives, across its updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ListenerId(pub(crate) u32);

/// A route configuration's place in the snapshot, discovered or inline. Stable while something uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RouteConfigId(pub(crate) u32);

impl ListenerId {
    /// As an index into the table of listeners.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

impl RouteConfigId {
    /// As an index into the table of route configurations.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Everything a worker serves from, at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Counts up with each change. For people who look at two snapshots in a debugger or a log.
    #[allow(dead_code)]
    pub(crate) version: u64,
    /// By [`ListenerId`].
    pub(crate) listeners: Box<[Option<Arc<Listener>>]>,
    /// Listeners by their addresses: who takes a connection that was going there.
    pub(crate) by_address: Arc<HashMap<SocketAddr, ListenerId>>,
    /// By [`RouteConfigId`].
    pub(crate) routes: Box<[Option<Arc<RouteTable>>]>,
    /// By [`ClusterId`](crate::cluster::ClusterId).
    pub(crate) clusters: ClusterTable,
}

impl Snapshot {
    /// The listener of an id, if it exists at the moment.
    pub(crate) fn listener(&self, id: ListenerId) -> Option<&Arc<Listener>> {
        self.listeners.get(id.index())?.as_ref()
    }

    /// The listener at an address, or else at the port of any address of its kind.
    pub(crate) fn listener_at(&self, address: SocketAddr) -> Option<&Arc<Listener>> {
        let any = match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let any = SocketAddr::new(any, address.port());
        self.listener(*self.by_address.get(&address).or_else(|| self.by_address.get(&any))?)
    }

    /// The route table of an id, if it has come.
    #[inline]
    pub(crate) fn routes(&self, id: RouteConfigId) -> Option<&Arc<RouteTable>> {
        self.routes.get(id.index())?.as_ref()
    }
}
