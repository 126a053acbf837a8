//! The control thread's side of clusters of type ORIGINAL_DST: what is not used any more is given up, and the host set says
//! what there is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::assign::Transports;
use super::{Entry, Manager};
use crate::cluster::cluster::ClusterId;
use crate::cluster::endpoint::Endpoint;
use crate::cluster::host_set::{LocalityHosts, Members};
use crate::cluster::original_dst::OriginalDst;
use crate::config::cluster::Discovery;
use crate::config::endpoint::Metadata;

/// New endpoints appear in the host set after this time: many of them come at once.
const SETTLING: Duration = Duration::from_millis(50);

/// When such a cluster is looked at.
#[derive(Debug, Default)]
pub(super) struct Tidying {
    /// The next cleanup.
    cleanup: Option<Instant>,
    /// Its place in `Manager::untidy`.
    due: Option<Instant>,
}

impl Tidying {
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

impl Manager {
    /// Where the endpoints of a cluster of this type are made: as before, while they are connected to as before.
    pub(super) fn original_dst(
        &self,
        id: ClusterId,
        transports: &Transports,
        previous: Option<&Entry>,
    ) -> Arc<OriginalDst> {
        let way = transports.of(&Metadata::default());
        let known = previous.and_then(|previous| previous.cluster.original_dst.as_ref());
        match known {
            Some(known) if known.connects(way.tls.as_ref(), way.proxy_protocol.as_ref()) => {
                Arc::clone(known)
            }
            _ => {
                let (ids, news) = (self.endpoint_ids.clone(), self.made.0.clone());
                let shards = self.registry.shards();
                Arc::new(OriginalDst::new(id, (way.tls, way.proxy_protocol), ids, shards, news))
            }
        }
    }

    /// Begins with what a cluster of this type has instead of discovery.
    pub(super) fn start_original_dst(&mut self, id: ClusterId) {
        let Some(entry) = self.entries.get_mut(id.index()).and_then(Option::as_mut) else { return };
        entry.initialized = true;
        entry.assignment = None;
        let left = entry.follow_original_destinations();
        left.iter().for_each(|endpoint| endpoint.set_gone());
        self.gone.extend(left);
    }

    /// Begins with the cleanups of a cluster of this type; ends those of another.
    pub(super) fn start_tidying(&mut self, id: ClusterId) {
        let Some(entry) = self.entries.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let interval = match &entry.cluster.config.discovery {
            Discovery::OriginalDst(config) => Some(config.cleanup_interval),
            _ => None,
        };
        let due = entry.tidying.due.take();
        entry.tidying.cleanup = interval.map(|interval| Instant::now() + interval);
        if let Some(due) = due {
            self.untidy.remove(&(due, id));
        }
        if let Some(at) = entry.tidying.cleanup {
            entry.tidying.due = Some(at);
            self.untidy.insert((at, id));
        }
    }

    /// A worker has made endpoints.
    pub(super) fn expect_new(&mut self, id: ClusterId) {
        let Some(entry) = self.entries.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let soon = Instant::now() + SETTLING;
        if let Some(due) = entry.tidying.due.filter(|due| soon < *due) {
            self.untidy.remove(&(due, id));
            self.untidy.insert((soon, id));
            entry.tidying.due = Some(soon);
        }
    }

    /// Looks at a cluster whose time has come.
    pub(super) fn tidy(&mut self, at: Instant, id: ClusterId) {
        self.untidy.remove(&(at, id));
        let Some(entry) = self.entries.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let Discovery::OriginalDst(config) = &entry.cluster.config.discovery else { return };
        let interval = config.cleanup_interval;
        let Some(places) = entry.cluster.original_dst.clone() else { return };
        let cleanup = entry.tidying.cleanup.filter(|cleanup| *cleanup > at);
        let cleanup = cleanup.unwrap_or_else(|| {
            places.clean_up();
            at + interval
        });
        entry.tidying = Tidying { cleanup: Some(cleanup), due: Some(cleanup) };
        self.untidy.insert((cleanup, id));
        let left = entry.follow_original_destinations();
        self.gone.extend(left);
    }
}

impl Entry {
    /// Makes the host set of those endpoints that there are. Returns those that are gone.
    fn follow_original_destinations(&mut self) -> Vec<Arc<Endpoint>> {
        let Some(places) = &self.cluster.original_dst else { return Vec::new() };
        let all = places.all();
        let before = self.cluster.hosts.load_full();
        if before.endpoints().map(|it| it.id).eq(all.iter().map(|it| it.id)) {
            return Vec::new();
        }
        let left: Vec<_> = before
            .endpoints()
            .filter(|it| all.binary_search_by_key(&it.id, |other| other.id).is_err())
            .cloned()
            .collect();
        for endpoint in &left {
            self.ejections.forget(endpoint.id);
        }
        self.cluster.updates.local().membership_change.inc();
        let count = all.len();
        let one = LocalityHosts { locality: Arc::default(), weight: None, start: 0, count };
        self.swap_hosts(vec![Members { all: all.into(), localities: Arc::new([one]) }]);
        left
    }
}
