//! How an endpoint is chosen.
//!
//! Where the cluster is divided into subsets, first one of those, by what the route asks of metadata; then a priority, by its share of the traffic; then one of its localities, if their weights decide or some traffic is to stay in ours; then one of its
//! endpoints, by the cluster's policy: in [`hashing`] by a table that came with the host set, in the others by turns,
//! loads and chance. What a policy has to remember (a position, a schedule) is kept by each worker for itself, so that
//! choosing takes no lock and shares no cache line.

mod edf;
pub(crate) mod hashing;
mod least_request;
mod peak_ewma;
mod random;
mod round_robin;
mod slow_start;
mod subset;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use edf::Edf;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::cluster::{Cluster, ClusterId};
use super::endpoint::{Endpoint, EndpointId};
use super::host_set::{HostSet, Hosts, Load, Priority, Step, WeightedLocality};
use crate::config::load_balancer::LoadBalancer;
use crate::config::subset::MetadataCriteria;

/// What of a request an endpoint is chosen by (Envoy's `LoadBalancerContext`).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Context<'a> {
    /// What a policy that chooses by a hash goes by; without one it draws a hash at random.
    pub(crate) hash: Option<u64>,
    /// What the route asks of the endpoint's metadata; counts where the cluster is divided into subsets.
    pub(crate) metadata: Option<&'a MetadataCriteria>,
    /// Endpoints that are passed over: those already tried.
    pub(crate) avoid: &'a [EndpointId],
    /// So often, that is (`host_selection_retry_max_attempts`); after that one is taken all the same, as in Envoy.
    pub(crate) attempts: u32,
    /// Where an aggregate cluster has chosen already.
    pub(crate) share: Option<Share>,
    /// Where the request says it is to go, where it may; the first that exists is taken.
    pub(crate) named: Option<&'a NamedHosts>,
    /// Where the request was going to by itself: for clusters of type ORIGINAL_DST, which have nothing else.
    pub(crate) destination: Option<&'a Arc<Endpoint>>,
}

/// The endpoints that a request names. Each counts once: an attempt goes on after the one that the attempt before has taken.
#[derive(Debug, Default)]
pub(crate) struct NamedHosts {
    addresses: Vec<SocketAddr>,
    /// So many have counted.
    taken: Cell<usize>,
}

impl NamedHosts {
    pub(crate) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses, taken: Cell::new(0) }
    }

    fn next<'h>(&self, hosts: &'h HostSet) -> Option<&'h Arc<Endpoint>> {
        let rest = self.addresses.get(self.taken.get()..)?;
        let found = rest.iter().position(|address| hosts.at(*address).is_some());
        self.taken.set(self.taken.get() + found.map_or(rest.len(), |at| at + 1));
        hosts.at(*rest.get(found?)?)
    }
}

/// Chooses an endpoint; `None` if none is available.
pub(super) fn pick<'h>(
    cluster: &Cluster,
    hosts: &'h HostSet,
    context: &Context<'_>,
) -> Option<&'h Arc<Endpoint>> {
    if let Some(named) = context.named.and_then(|named| named.next(hosts)) {
        return Some(named);
    }
    match &hosts.subsets {
        None => pick_of(cluster, hosts, hosts, 0, context),
        Some(subsets) => subset::pick(cluster, hosts, subsets, context),
    }
}

/// Chooses an endpoint of `part`, which is the `whole` or a subset: 0, or its number.
fn pick_of<'h>(
    cluster: &Cluster,
    whole: &HostSet,
    part: &'h HostSet,
    number: usize,
    context: &Context<'_>,
) -> Option<&'h Arc<Endpoint>> {
    let hashes = cluster.config.load_balancer.hashing().is_some();
    let hash = hashes.then(|| context.hash.unwrap_or_else(|| fastrand::u64(..)));
    let mut chosen = None;
    for attempt in 0..=context.attempts {
        let endpoint = match hash {
            Some(hash) => by_hash(cluster, whole, part, hash, attempt, context.share),
            None => choose(cluster, part, number, context.share),
        }?;
        chosen = Some(endpoint);
        if !context.avoid.contains(&endpoint.id) {
            break;
        }
    }
    chosen
}

/// Which list of a host set is chosen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Source {
    /// The number of the subset; 0: the whole.
    subset: usize,
    priority: usize,
    kind: SourceKind,
    /// Its index, where only the endpoints of one locality are meant.
    locality: Option<usize>,
}

/// Which endpoints of a priority are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceKind {
    /// All of them.
    All,
    /// Its healthy ones.
    Healthy,
    /// Its degraded ones.
    Degraded,
}

/// A part of a cluster that was chosen by its load already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// The priority.
    pub(crate) priority: usize,
    /// Its healthy or its degraded endpoints.
    pub(crate) kind: SourceKind,
}

/// Chooses an endpoint once, for a policy that does not go by a hash.
fn choose<'h>(
    cluster: &Cluster,
    hosts: &'h HostSet,
    subset: usize,
    share: Option<Share>,
) -> Option<&'h Arc<Endpoint>> {
    let share = share.or_else(|| priority_by_load(cluster, hosts, fastrand::u64(..)))?;
    let mut source = source(cluster, hosts, subset, share)?;
    let priority = hosts.priorities.get(source.priority)?;
    let hosts_of_source = match by_locality(cluster.id, hosts, priority, &mut source) {
        Some(locality) => &locality.hosts,
        None => match by_zone(cluster, priority, &mut source)? {
            Some(zone) => zone,
            None => match source.kind {
                SourceKind::All => &priority.all,
                SourceKind::Healthy => &priority.healthy,
                SourceKind::Degraded => &priority.degraded,
            },
        },
    };
    let list = &*hosts_of_source.list;
    let slow_start = cluster.config.slow_start.as_ref();
    // Whether weights decide.
    let by_weight = hosts_of_source.weighted
        || (slow_start.is_some() && hosts.slow_until.is_some_and(|until| Instant::now() < until));
    match list {
        [] => None,
        [only] => Some(only),
        _ => match &cluster.config.load_balancer {
            // The last ones are here for completeness: they always have a hash, or nothing to choose from.
            LoadBalancer::Random
            | LoadBalancer::RingHash(_)
            | LoadBalancer::Maglev(_)
            | LoadBalancer::ClusterProvided => random::pick(list),
            LoadBalancer::RoundRobin | LoadBalancer::ClientSideWeighted(_) if !by_weight => {
                with_state(cluster.id, |state| round_robin::pick(state.position(source), list))
            }
            LoadBalancer::LeastRequest { full_scan: true, .. } if !by_weight => {
                least_request::pick_of_all(list)
            }
            LoadBalancer::PeakEwma(settings) if !by_weight => peak_ewma::pick(list, settings),
            LoadBalancer::LeastRequest { choice_count, .. } if !by_weight => {
                least_request::pick(list, *choice_count)
            }
            LoadBalancer::RoundRobin | LoadBalancer::ClientSideWeighted(_) => {
                weighted(cluster.id, hosts, source, hosts_of_source, |endpoint| {
                    round_robin::weight(endpoint) * slow_start::factor(slow_start, endpoint)
                })
            }
            LoadBalancer::PeakEwma(settings) => {
                let candidate = || {
                    weighted(cluster.id, hosts, source, hosts_of_source, |endpoint| {
                        round_robin::weight(endpoint) * slow_start::factor(slow_start, endpoint)
                    })
                };
                Some(peak_ewma::better(candidate()?, candidate()?, settings))
            }
            LoadBalancer::LeastRequest { active_request_bias, .. } => {
                weighted(cluster.id, hosts, source, hosts_of_source, |endpoint| {
                    least_request::weight(endpoint, active_request_bias.current().max(0.0))
                        * slow_start::factor(slow_start, endpoint)
                })
            }
        },
    }
}

/// Chooses a locality of a priority where their weights decide.
fn by_locality<'h>(
    cluster: ClusterId,
    host_set: &HostSet,
    priority: &'h Priority,
    source: &mut Source,
) -> Option<&'h WeightedLocality> {
    let weighted = priority.weighted.as_ref()?;
    let localities = match source.kind {
        SourceKind::All => return None,
        SourceKind::Healthy => &weighted.healthy,
        SourceKind::Degraded => &weighted.degraded,
    };
    let weight = |at: usize| localities.get(at).map_or(1.0, |locality| locality.weight);
    let at = match localities.len() {
        0 => return None,
        1 => 0,
        _ => with_state(cluster, |state| {
            let weights = localities.iter().map(|locality| locality.weight);
            state.localities(host_set.generation, *source, || Edf::new(weights)).pick(weight)
        })?,
    };
    source.locality = Some(at);
    localities.get(at)
}

/// Chooses a locality where some of the traffic is to stay in ours: `Some(None)` where none is chosen, `None` where traffic
/// fails.
fn by_zone<'h>(
    cluster: &Cluster,
    priority: &'h Priority,
    source: &mut Source,
) -> Option<Option<&'h Hosts>> {
    let Some(zones) = &priority.zones else { return Some(None) };
    let enabled = cluster.config.zone_aware.routing_enabled.whole();
    if source.kind == SourceKind::All || fastrand::u64(..100) >= enabled {
        return Some(None);
    }
    let cells = cluster.stats.local();
    if zones.local_panics() {
        cells.lb_local_cluster_not_ok.inc();
        return if cluster.config.fail_traffic_on_panic { None } else { Some(None) };
    }
    let (at, hosts) = zones.choose(source.kind == SourceKind::Degraded, cells)?;
    source.locality = Some(at);
    Some(Some(hosts))
}

/// Chooses by the table of the priority to which the hash belongs. It has healthy endpoints only, or all in a panic: as in
/// Envoy, degraded ones get nothing, and nothing fails in a panic. `attempt` counts the choices for one attempt of a request,
/// from 0.
fn by_hash<'h>(
    cluster: &Cluster,
    whole: &HostSet,
    hosts: &'h HostSet,
    hash: u64,
    attempt: u32,
    share: Option<Share>,
) -> Option<&'h Arc<Endpoint>> {
    let share = share.or_else(|| priority_by_load(cluster, hosts, hash))?;
    let priority = hosts.priorities.get(share.priority)?;
    if priority.panic {
        cluster.stats.local().lb_healthy_panic.inc();
    }
    match &priority.table {
        Some(table) => table.choose_within_bounds(hash, attempt, || {
            whole.endpoints().map(|endpoint| u64::from(endpoint.active())).sum()
        }),
        // The cluster's policy changed just now: its table comes with the next host set.
        None => random::pick(&priority.healthy.list),
    }
}

/// A priority by its load, and which of its lists.
fn priority_by_load(cluster: &Cluster, hosts: &HostSet, random: u64) -> Option<Share> {
    if hosts.priorities.is_empty() && cluster.config.healthy_panic_threshold > 0 {
        // A cluster without endpoints has one priority all the same, and that panics, as in Envoy.
        cluster.stats.local().lb_healthy_panic.inc();
    }
    let loads = hosts.priorities.iter().map(|priority| priority.load);
    by_load(loads, random).map(|(priority, kind)| Share { priority, kind })
}

/// A place by its load, and whether its healthy or its degraded endpoints are meant.
pub(crate) fn by_load(
    loads: impl Iterator<Item = Load> + Clone,
    random: u64,
) -> Option<(usize, SourceKind)> {
    let point = random % 100 + 1;
    let mut sum = 0;
    let healthy = loads.clone().map(|load| (load.healthy, SourceKind::Healthy)).enumerate();
    let degraded = loads.map(|load| (load.degraded, SourceKind::Degraded)).enumerate();
    let (place, (_, kind)) = healthy.chain(degraded).find(|(_, (load, _))| {
        sum += u64::from(*load);
        point <= sum
    })?;
    Some((place, kind))
}

/// Which of the lists of a priority is chosen from. `None`: traffic fails rather than panics.
fn source(cluster: &Cluster, hosts: &HostSet, subset: usize, share: Share) -> Option<Source> {
    let Share { priority, kind } = share;
    if hosts.priorities.get(priority)?.panic {
        cluster.stats.local().lb_healthy_panic.inc();
        if cluster.config.fail_traffic_on_panic {
            return None;
        }
        return Some(Source { subset, priority, kind: SourceKind::All, locality: None });
    }
    Some(Source { subset, priority, kind, locality: None })
}

/// Chooses by weight, with the schedule of this worker.
fn weighted<'h>(
    cluster: ClusterId,
    host_set: &HostSet,
    source: Source,
    hosts: &'h Hosts,
    weight: impl Fn(&Endpoint) -> f64,
) -> Option<&'h Arc<Endpoint>> {
    let at = with_state(cluster, |state| {
        state
            .schedule(host_set.generation, source, || {
                Edf::new(hosts.list.iter().map(|endpoint| weight(endpoint)))
            })
            .pick(|at| hosts.list.get(at).map_or(1.0, |endpoint| weight(endpoint)))
    })?;
    hosts.list.get(at)
}

/// A worker remembers for so many routes of a cluster which subsets they come to.
const MOST_REMEMBERED: usize = 4096;

/// What this worker remembers of a cluster.
#[derive(Default)]
struct State {
    /// Positions of round robin; they go on over changes of the host set.
    positions: Vec<(Source, usize)>,
    /// Schedules, for the host set of this generation only.
    schedules: Vec<(Source, Edf)>,
    /// Schedules of localities, likewise.
    localities: Vec<(Source, Edf)>,
    /// What subsets routes come to, by the number of what they ask, likewise.
    subset_steps: HashMap<Option<u64>, SmallVec<[Step; 1]>>,
    generation: u64,
}

thread_local! {
    /// By cluster id. The state of a removed cluster stays (a name that returns has the same id); without its
    /// schedules, which are dropped with the next choice, it is a few words.
    static STATES: RefCell<Vec<Option<Box<State>>>> = const { RefCell::new(Vec::new()) };
}

fn with_state<R>(cluster: ClusterId, f: impl FnOnce(&mut State) -> R) -> R {
    STATES.with_borrow_mut(|states| {
        if states.len() <= cluster.index() {
            states.resize_with(cluster.index() + 1, || None);
        }
        f(states[cluster.index()].get_or_insert_default())
    })
}

impl State {
    /// The position of a source; it starts anywhere.
    fn position(&mut self, source: Source) -> &mut usize {
        find_or_make(&mut self.positions, source, || fastrand::usize(..))
    }

    /// The schedule of a source, made new if the host set is another one than last time.
    fn schedule(
        &mut self,
        generation: u64,
        source: Source,
        make: impl FnOnce() -> Edf,
    ) -> &mut Edf {
        self.follow(generation);
        find_or_make(&mut self.schedules, source, make)
    }

    /// The schedule of the localities of a source, likewise.
    fn localities(
        &mut self,
        generation: u64,
        source: Source,
        make: impl FnOnce() -> Edf,
    ) -> &mut Edf {
        self.follow(generation);
        find_or_make(&mut self.localities, source, make)
    }

    /// Where a route's requests may go, looked up if that is not known for this host set.
    fn subset_steps(
        &mut self,
        generation: u64,
        criteria: Option<u64>,
        look_up: impl FnOnce() -> SmallVec<[Step; 1]>,
    ) -> &SmallVec<[Step; 1]> {
        self.follow(generation);
        if self.subset_steps.len() >= MOST_REMEMBERED {
            // Routes that are gone are in there as well.
            self.subset_steps.clear();
        }
        self.subset_steps.entry(criteria).or_insert_with(look_up)
    }

    /// Forgets what belonged to another host set.
    fn follow(&mut self, generation: u64) {
        if self.generation != generation {
            self.schedules.clear();
            self.localities.clear();
            self.subset_steps.clear();
            self.generation = generation;
        }
    }
}

fn find_or_make<T>(
    list: &mut Vec<(Source, T)>,
    source: Source,
    make: impl FnOnce() -> T,
) -> &mut T {
    let at = list.iter().position(|(other, _)| *other == source);
    let at = at.unwrap_or_else(|| {
        list.push((source, make()));
        list.len() - 1
    });
    &mut list[at].1
}
