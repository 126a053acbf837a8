//! Where we are: the local cluster, and what follows for the others when its endpoints change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;

use super::Manager;
use crate::cluster::cluster::Cluster;
use crate::cluster::host_set::{HostSet, Local, Members};
use crate::config::endpoint::{AssignmentPolicy, Locality};

/// Where we are.
pub(super) struct Locally {
    /// The local cluster, which has the sidecars of our own kind.
    pub(super) name: Arc<str>,
    /// Its endpoints; nobody before it is there.
    pub(super) hosts: Arc<ArcSwap<HostSet>>,
    locality: Option<Locality>,
    /// The generation of its endpoints that the other clusters follow.
    followed: AtomicU64,
}

impl Locally {
    /// Makes the host set of another cluster.
    pub(super) fn host_set(
        &self,
        members: Vec<Members>,
        cluster: &Cluster,
        policy: AssignmentPolicy,
    ) -> HostSet {
        let hosts = self.hosts.load();
        let local =
            Local { locality: self.locality.as_ref(), hosts: &hosts, cells: cluster.stats.local() };
        HostSet::new(members, &cluster.config, policy, Some(&local))
    }
}

impl Manager {
    /// Names the local cluster and our locality. Before any cluster is set.
    pub(crate) fn set_local(&mut self, name: Arc<str>, locality: Option<Locality>) {
        let hosts = HostSet::empty();
        let followed = AtomicU64::new(hosts.generation());
        let hosts = Arc::new(ArcSwap::from_pointee(hosts));
        self.local = Some(Arc::new(Locally { name, hosts, locality, followed }));
    }

    /// If the endpoints of the local cluster changed, the other clusters share out their traffic anew.
    pub(super) fn follow_local(&mut self) {
        let Some(local) = &self.local else { return };
        let generation = local.hosts.load().generation();
        if local.followed.swap(generation, Relaxed) == generation {
            return;
        }
        for entry in self.entries.iter().flatten() {
            let config = &entry.cluster.config;
            if entry.local.is_some() && config.load_balancer.is_zone_aware() {
                let members = entry.cluster.hosts.load().members();
                entry.swap_hosts(members);
            }
        }
    }
}
