//! The endpoints of a cluster by priority and health, prepared for choosing.
//!
//! Semantics: Envoy's "priority levels", "degraded endpoints" and "panic threshold". A host set is immutable; a change
//! of endpoints, of their health or of an ejection makes a new one, for this cluster only.

mod loads;
mod localities;
mod subsets;
#[cfg(test)]
mod tests;
mod zones;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::endpoint::{Endpoint, Health};
use super::load_balancer::hashing::{Evenness, HashTable, Shares};
use crate::config::cluster::Cluster;
use crate::config::endpoint::{AssignmentPolicy, Locality};
pub(crate) use loads::{Availability, Load, share_out};
use localities::WeightedLocalities;
pub(crate) use localities::WeightedLocality;
pub(crate) use subsets::{Step, Subset, SubsetValues, Subsets};
pub(crate) use zones::{Local, Zones};

/// The endpoints of a cluster.
#[derive(Debug)]
pub(crate) struct HostSet {
    /// Unique in the process: state that depends on a host set is kept by it.
    pub(super) generation: u64,
    /// By priority, the highest first. Empty: nothing was discovered yet.
    pub(crate) priorities: Box<[Priority]>,
    /// Some endpoint starts slowly until then.
    pub(crate) slow_until: Option<Instant>,
    /// Parts of it, where the cluster is divided into subsets.
    pub(crate) subsets: Option<Box<Subsets>>,
    /// Made when an endpoint is first looked for by its address.
    by_address: OnceLock<HashMap<SocketAddr, Arc<Endpoint>>>,
}

/// The endpoints of one priority.
#[derive(Debug)]
pub(crate) struct Priority {
    /// All of them, in the order of the assignment.
    pub(crate) all: Hosts,
    /// The healthy ones.
    pub(crate) healthy: Hosts,
    /// The degraded ones.
    pub(crate) degraded: Hosts,
    /// The localities, in the order of the assignment.
    pub(crate) localities: Arc<[LocalityHosts]>,
    /// What of it counts for its load.
    pub(crate) availability: Availability,
    /// Its share of the traffic.
    pub(crate) load: Load,
    /// So few are available that traffic goes to all of them.
    pub(crate) panic: bool,
    /// Where traffic is divided by the weights of localities.
    pub(crate) weighted: Option<Box<WeightedLocalities>>,
    /// Where some of the traffic is to stay in our own locality.
    pub(crate) zones: Option<Box<Zones>>,
    /// For a load balancer that chooses by a hash: of the healthy ones, or of all in a panic.
    pub(crate) table: Option<HashTable>,
}

/// A list to choose from.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    /// In the order of the assignment.
    pub(crate) list: Arc<[Arc<Endpoint>]>,
    /// Not all weights are equal.
    pub(crate) weighted: bool,
}

/// A run of [`Priority::all`]: the endpoints of one locality.
#[derive(Debug, Clone)]
pub(crate) struct LocalityHosts {
    /// Which.
    pub(crate) locality: Arc<Locality>,
    /// Its weight, if it has one. Counts only where balancing by locality weight is configured, as in Envoy.
    pub(crate) weight: Option<u32>,
    /// Its first endpoint in the list.
    pub(crate) start: usize,
    /// How many there are.
    pub(crate) count: usize,
}

/// What a host set is made of: the endpoints of one priority, whatever their health.
#[derive(Debug, Clone)]
pub(super) struct Members {
    pub(super) all: Arc<[Arc<Endpoint>]>,
    pub(super) localities: Arc<[LocalityHosts]>,
}

/// When the last endpoint that starts slowly by now is through with it. One that is healthy for the first time begins now.
fn slow_until(priorities: &[Priority], window: Duration) -> Option<Instant> {
    let healthy = priorities.iter().flat_map(|priority| priority.healthy.list.iter());
    let left = healthy.filter_map(|endpoint| {
        let healthy_for = endpoint.healthy_for().unwrap_or_else(|| {
            endpoint.became_healthy();
            Duration::ZERO
        });
        window.checked_sub(healthy_for)
    });
    left.max().and_then(|left| Instant::now().checked_add(left))
}

fn next_generation() -> u64 {
    static GENERATION: AtomicU64 = AtomicU64::new(1);
    GENERATION.fetch_add(1, Relaxed)
}

impl HostSet {
    /// Without a single priority.
    pub(super) fn empty() -> Self {
        Self {
            generation: next_generation(),
            priorities: Box::default(),
            slow_until: None,
            subsets: None,
            by_address: OnceLock::new(),
        }
    }

    /// Sorts endpoints by their health of this moment, shares out the traffic, and prepares what the load balancer of
    /// `config` chooses from. `local` is where we are, if the bootstrap says.
    pub(super) fn new(
        members: Vec<Members>,
        config: &Cluster,
        policy: AssignmentPolicy,
        local: Option<&Local<'_>>,
    ) -> Self {
        let weighted = config.locality_weighted;
        let mut whole = Self::part(next_generation(), members, config, policy, weighted, local);
        if let Some(subsets) = &config.subsets {
            whole.subsets = Some(Box::new(Subsets::new(&whole, subsets, config, policy, local)));
        }
        whole
    }

    /// The whole, or a subset of the same generation.
    fn part(
        generation: u64,
        members: Vec<Members>,
        config: &Cluster,
        policy: AssignmentPolicy,
        locality_weighted: bool,
        local: Option<&Local<'_>>,
    ) -> Self {
        let mut priorities: Box<[Priority]> = members.into_iter().map(Priority::new).collect();
        for priority in &mut priorities {
            priority.availability = Availability::of(priority, policy);
        }
        let availability: Vec<_> = priorities.iter().map(|it| it.availability).collect();
        let (loads, panics) = share_out(&availability, config.healthy_panic_threshold.min(100));
        for (priority, (load, panic)) in priorities.iter_mut().zip(loads.into_iter().zip(panics)) {
            priority.load = load;
            priority.panic = panic;
            if config.load_balancer.hashing().is_some() {
                let shares = priority.shares(locality_weighted);
                priority.table = HashTable::new(&config.load_balancer, &shares);
            } else if locality_weighted {
                let localities =
                    WeightedLocalities::new(&priority.members(), policy.overprovisioning_factor);
                priority.weighted = Some(Box::new(localities));
            }
        }
        // Only the highest priority, as in Envoy: what we know of the local cluster says nothing of failing over.
        if let (Some(local), Some(first)) = (local, priorities.first_mut())
            && config.load_balancer.is_zone_aware()
        {
            first.zones = Zones::new(first, config, local).map(Box::new);
        }
        let slow_until =
            config.slow_start.as_ref().and_then(|slow| slow_until(&priorities, slow.window));
        Self { generation, priorities, slow_until, subsets: None, by_address: OnceLock::new() }
    }

    /// A number that no other host set has, but for the subsets of this one.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The members, to make the next host set from.
    pub(super) fn members(&self) -> Vec<Members> {
        self.priorities.iter().map(Priority::members).collect()
    }

    /// How evenly the table of hashes came out, where there is one; as in Envoy that of the lowest priority.
    pub(crate) fn evenness(&self) -> Option<Evenness> {
        self.priorities
            .iter()
            .rev()
            .find_map(|priority| priority.table.as_ref())
            .map(HashTable::evenness)
    }

    /// The endpoint at this address, whatever its health; of several that of the highest priority.
    pub(crate) fn at(&self, address: SocketAddr) -> Option<&Arc<Endpoint>> {
        let all = self.by_address.get_or_init(|| {
            let mut all = HashMap::new();
            for endpoint in self.endpoints() {
                // None but IP addresses are asked for.
                if let Some(address) = endpoint.address.socket() {
                    all.entry(address).or_insert_with(|| Arc::clone(endpoint));
                }
            }
            all
        });
        all.get(&address)
    }

    /// Every endpoint, the highest priority first.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.priorities.iter().flat_map(|priority| priority.all.list.iter())
    }

    /// Every endpoint with its priority and locality.
    pub(crate) fn located(&self) -> impl Iterator<Item = (usize, &Arc<Locality>, &Arc<Endpoint>)> {
        self.priorities.iter().enumerate().flat_map(|(level, priority)| {
            priority.localities.iter().flat_map(move |group| {
                let hosts = priority.all.list.iter().skip(group.start).take(group.count);
                hosts.map(move |endpoint| (level, &group.locality, endpoint))
            })
        })
    }
}

impl Priority {
    fn new(members: Members) -> Self {
        let with = |health: Health| -> Hosts {
            if members.all.iter().all(|endpoint| endpoint.health() == health) {
                // The usual case, in which the list is shared and not copied.
                return Hosts::new(Arc::clone(&members.all));
            }
            let chosen = members.all.iter().filter(|endpoint| endpoint.health() == health);
            Hosts::new(chosen.cloned().collect())
        };
        Self {
            healthy: with(Health::Healthy),
            degraded: with(Health::Degraded),
            all: Hosts::new(Arc::clone(&members.all)),
            localities: members.localities,
            availability: Availability::default(),
            load: Load::default(),
            panic: false,
            weighted: None,
            zones: None,
            table: None,
        }
    }

    fn members(&self) -> Members {
        Members { all: Arc::clone(&self.all.list), localities: Arc::clone(&self.localities) }
    }

    /// What share of all hashes each endpoint is to have.
    fn shares(&self, locality_weighted: bool) -> Shares {
        let by_locality =
            locality_weighted.then(|| localities::shares(&self.members(), self.panic)).flatten();
        by_locality.unwrap_or_else(|| {
            Shares::of(if self.panic { &self.all.list } else { &self.healthy.list })
        })
    }
}

impl Hosts {
    fn new(list: Arc<[Arc<Endpoint>]>) -> Self {
        let weighted = list.windows(2).any(|pair| pair[0].weight() != pair[1].weight());
        Self { list, weighted }
    }
}
