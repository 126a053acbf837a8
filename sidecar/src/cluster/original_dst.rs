//! Clusters of type ORIGINAL_DST: their endpoints are the places that clients were going to, made when one is first wanted.
//!
//! Workers look an endpoint up in a map that is replaced whole when a new one comes; only that takes a lock. The control
//! thread gives up those that are no longer used, and tells the host set (for statistics and `/clusters`) what there is.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::mpsc::UnboundedSender;

use super::cluster::ClusterId;
use super::endpoint::{Endpoint, EndpointId};
use crate::config::proxy_protocol::UpstreamProxyProtocol;
use crate::stats::cell::gauge_sum;
use crate::tls::ClientContext;

/// Most endpoints of one cluster. Envoy has no limit; but whoever may name destinations must not fill our memory.
const MOST: usize = 16 * 1024;

/// Where the ids of endpoints come from: no two have the same.
#[derive(Debug, Clone, Default)]
pub(super) struct EndpointIds(Arc<AtomicU64>);

impl EndpointIds {
    pub(super) fn next(&self) -> EndpointId {
        EndpointId(self.0.fetch_add(1, Relaxed))
    }
}

/// The endpoints of one cluster of this type.
pub(crate) struct OriginalDst {
    cluster: ClusterId,
    transport: Option<Arc<ClientContext>>,
    proxy_protocol: Option<Arc<UpstreamProxyProtocol>>,
    ids: EndpointIds,
    shards: usize,
    known: ArcSwap<HashMap<SocketAddr, Arc<Known>>>,
    changing: Mutex<()>,
    /// There are new ones that the control thread has been told of and has not looked at.
    told: AtomicBool,
    news: UnboundedSender<ClusterId>,
}

struct Known {
    endpoint: Arc<Endpoint>,
    /// Chosen since the last cleanup.
    used: AtomicBool,
}

impl Known {
    /// Chosen lately, or connected to.
    fn is_in_use(&self) -> bool {
        let connections = gauge_sum(self.endpoint.stats.used().map(|it| it.cx_active.raw().0));
        self.used.load(Relaxed) || connections > 0 || self.endpoint.active() > 0
    }
}

impl OriginalDst {
    pub(super) fn new(
        cluster: ClusterId,
        (transport, proxy_protocol): (
            Option<Arc<ClientContext>>,
            Option<Arc<UpstreamProxyProtocol>>,
        ),
        ids: EndpointIds,
        shards: usize,
        news: UnboundedSender<ClusterId>,
    ) -> Self {
        Self {
            cluster,
            transport,
            proxy_protocol,
            ids,
            shards,
            known: ArcSwap::default(),
            changing: Mutex::default(),
            told: AtomicBool::new(false),
            news,
        }
    }

    /// Whether its endpoints are connected to in this way.
    pub(super) fn connects(
        &self,
        transport: Option<&Arc<ClientContext>>,
        proxy_protocol: Option<&Arc<UpstreamProxyProtocol>>,
    ) -> bool {
        self.transport.as_ref().map(Arc::as_ptr) == transport.map(Arc::as_ptr)
            && self.proxy_protocol.as_ref() == proxy_protocol
    }

    /// The endpoint at an address. `None`: there are too many already, all in use.
    pub(crate) fn endpoint(&self, address: SocketAddr) -> Option<Arc<Endpoint>> {
        if let Some(known) = self.known.load().get(&address) {
            if !known.used.load(Relaxed) {
                known.used.store(true, Relaxed);
            }
            return Some(Arc::clone(&known.endpoint));
        }
        self.add(address)
    }

    fn add(&self, address: SocketAddr) -> Option<Arc<Endpoint>> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = HashMap::clone(&self.known.load());
        // Another worker may have been faster.
        if !next.contains_key(&address) && next.len() >= MOST {
            next.retain(|_, known| {
                let keep = known.is_in_use();
                if !keep {
                    known.endpoint.set_gone();
                }
                keep
            });
            if next.len() >= MOST {
                tracing::debug!(%address, most = MOST, "no more destinations for this cluster");
                return None;
            }
        }
        let known = next.entry(address).or_insert_with(|| {
            let transport = self.transport.clone();
            let endpoint =
                Endpoint::new(self.ids.next(), address.into(), "".into(), transport, self.shards);
            let endpoint = Arc::new(endpoint.told(self.proxy_protocol.clone()));
            Arc::new(Known { endpoint, used: AtomicBool::new(true) })
        });
        let endpoint = Arc::clone(&known.endpoint);
        self.known.store(Arc::new(next));
        if !self.told.swap(true, Relaxed) {
            // The control thread is gone only when the process is about to be.
            let _ = self.news.send(self.cluster);
        }
        Some(endpoint)
    }

    /// Gives up what was not chosen since the last time and has no connection.
    pub(super) fn clean_up(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known.load();
        let (kept, left): (Vec<_>, Vec<_>) = known.iter().partition(|(_, known)| known.is_in_use());
        for (_, known) in &kept {
            known.used.store(false, Relaxed);
        }
        if left.is_empty() {
            return;
        }
        for (_, known) in left {
            known.endpoint.set_gone();
        }
        let kept = kept.into_iter().map(|(address, known)| (*address, Arc::clone(known)));
        self.known.store(Arc::new(kept.collect()));
    }

    /// Gives up everything: the cluster is gone, or connects in another way.
    pub(super) fn clear(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        for known in self.known.swap(Arc::default()).values() {
            known.endpoint.set_gone();
        }
    }

    /// All there are, the oldest first. From here on the control thread is told of new ones again.
    pub(super) fn all(&self) -> Vec<Arc<Endpoint>> {
        self.told.store(false, Relaxed);
        let known = self.known.load();
        let mut all: Vec<_> = known.values().map(|known| Arc::clone(&known.endpoint)).collect();
        all.sort_by_key(|endpoint| endpoint.id);
        all
    }
}

impl std::fmt::Debug for OriginalDst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OriginalDst({})", self.known.load().len())
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    fn places() -> (OriginalDst, tokio::sync::mpsc::UnboundedReceiver<ClusterId>) {
        let (news, told) = unbounded_channel();
        (OriginalDst::new(ClusterId(7), (None, None), EndpointIds::default(), 1, news), told)
    }

    fn address(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    #[test]
    fn a_place_is_one_endpoint_for_as_long_as_it_is_used() {
        let (places, _told) = places();
        let first = places.endpoint(address(80)).unwrap();
        assert_eq!(places.endpoint(address(80)).unwrap().id, first.id);
        assert_ne!(places.endpoint(address(81)).unwrap().id, first.id);
        places.clean_up();
        assert_eq!(places.endpoint(address(80)).unwrap().id, first.id, "used since it was made");
        places.clean_up();
        assert_eq!(places.all().len(), 1, "the other was not");
        places.clean_up();
        assert!(places.all().is_empty() && first.is_gone());
        assert_ne!(places.endpoint(address(80)).unwrap().id, first.id);
    }

    #[test]
    fn a_connection_keeps_its_endpoint() {
        let (places, _told) = places();
        let endpoint = places.endpoint(address(80)).unwrap();
        endpoint.stats.local().cx_active.inc();
        places.clean_up();
        places.clean_up();
        assert_eq!(places.all().len(), 1);
        endpoint.stats.local().cx_active.dec();
        places.clean_up();
        assert!(places.all().is_empty());
    }

    #[test]
    fn their_number_has_a_limit_which_unused_ones_make_room_below() {
        let (places, _told) = places();
        for index in 0..MOST {
            let address = SocketAddr::from(([10, 0, (index >> 8) as u8, index as u8], 80));
            places.endpoint(address).unwrap();
        }
        assert!(places.endpoint(address(1)).is_none());
        places.clean_up();
        assert!(places.endpoint(address(1)).is_some(), "the others were not used since");
        assert_eq!(places.all().len(), 1);
    }

    #[test]
    fn the_control_thread_is_told_once_until_it_looks() {
        let (places, mut told) = places();
        places.endpoint(address(1));
        places.endpoint(address(2));
        assert_eq!(told.try_recv(), Ok(ClusterId(7)));
        assert!(told.try_recv().is_err());
        places.all();
        places.endpoint(address(3));
        assert_eq!(told.try_recv(), Ok(ClusterId(7)));
    }
}
