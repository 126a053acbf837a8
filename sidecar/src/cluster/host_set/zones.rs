//! How much of the traffic of a cluster stays in our own locality: Envoy's "zone aware routing".
//!
//! The local cluster has the sidecars of our own kind. Where their locality has a share of them that the locality's share of
//! the endpoints covers, everything stays there. Otherwise as much as it covers stays, and the rest goes to localities that
//! have a larger share of the endpoints than of the sidecars, in proportion to how much larger it is: then every endpoint
//! gets the same, if all sidecars do so and have equal traffic.

use super::localities::{Group, groups};
use super::{HostSet, Hosts, Priority};
use crate::cluster::endpoint::Health;
use crate::config::cluster::Cluster;
use crate::config::endpoint::Locality;
use crate::stats::ClusterCells;

/// All of something, in the unit of shares: hundredths of a percent.
const WHOLE: u64 = 10_000;

/// Where we are.
pub(crate) struct Local<'l> {
    /// Our locality, if the node has one.
    pub(crate) locality: Option<&'l Locality>,
    /// The local cluster's endpoints: the sidecars of our own kind.
    pub(crate) hosts: &'l HostSet,
    /// Where it is counted what comes of it.
    pub(crate) cells: &'l ClusterCells,
}

/// The endpoints of a priority by locality, and how much of the traffic stays in ours.
#[derive(Debug)]
pub(crate) struct Zones {
    /// The healthy ones; ours comes first if it has any endpoint, the others follow by name.
    healthy: Box<[Hosts]>,
    /// The degraded ones, in the same localities.
    degraded: Box<[Hosts]>,
    routing: Routing,
    /// So few of the local cluster's endpoints are available that what it says does not count.
    local_panics: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Routing {
    /// Everything stays.
    Direct,
    Residual {
        /// So much stays.
        local: u64,
        /// What each locality has left for others, and all before it.
        residual: Box<[u64]>,
    },
}

impl Zones {
    /// `None`: localities do not count.
    pub(super) fn new(priority: &Priority, config: &Cluster, local: &Local<'_>) -> Option<Self> {
        local.cells.lb_recalculate_zone_structures.inc();
        let members = priority.members();
        let mut upstream = groups(&members);
        upstream.retain(|group| !group.all.is_empty());
        if upstream.len() < 2 {
            return None;
        }
        let settings = &config.zone_aware;
        let forces_from = settings.forces_from();
        let first = local.hosts.priorities.first();
        let members_of_local = first.map(Priority::members);
        let mut sidecars = members_of_local.as_ref().map(groups).unwrap_or_default();
        sidecars.retain(|group| !group.all.is_empty());
        if sidecars.len() < 2 && forces_from.is_none() {
            return None;
        }
        let is_ours = |group: &Group<'_>| Some(group.locality) == local.locality;
        if !sidecars.iter().any(is_ours) {
            local.cells.lb_local_cluster_not_ok.inc();
            return None;
        }
        if (priority.healthy.list.len() as u64) < settings.min_cluster_size.whole() {
            local.cells.lb_zone_cluster_too_small.inc();
            return None;
        }
        // A stable sort: the others stay in the order of their names.
        upstream.sort_by_key(|group| !is_ours(group));
        let has_ours = upstream.first().is_some_and(is_ours);
        let with = |health| upstream.iter().map(move |group| Hosts::new(group.with(health).into()));
        let healthy: Box<[Hosts]> = with(Health::Healthy).collect();
        let amount = |group: &Group<'_>| amount(group, settings.by_weight);
        let share = |part: u64, whole: u64| (WHOLE * part).checked_div(whole).unwrap_or(0);
        let all_sidecars = sidecars.iter().map(amount).sum();
        let all_upstream = upstream.iter().map(amount).sum();
        let shares: Vec<Shares> = upstream
            .iter()
            .map(|group| match amount(group) {
                // Nobody is there to be chosen, whatever the sidecars' share.
                0 => Shares::default(),
                there => Shares {
                    sidecars: share(
                        sidecars.iter().find(|it| it.locality == group.locality).map_or(0, amount),
                        all_sidecars,
                    ),
                    upstream: share(there, all_upstream),
                },
            })
            .collect();
        let is_forced =
            has_ours && forces_from.is_some_and(|least| healthy[0].list.len() as u64 >= least);
        Some(Self {
            degraded: with(Health::Degraded).collect(),
            healthy,
            routing: if is_forced { Routing::Direct } else { Routing::new(&shares, has_ours) },
            local_panics: first.is_none_or(|first| {
                first.availability.panics(config.healthy_panic_threshold.min(100))
            }),
        })
    }

    /// Whether too few of the local cluster's endpoints are available.
    pub(crate) fn local_panics(&self) -> bool {
        self.local_panics
    }

    /// Chooses a locality: its index, and its healthy or its degraded endpoints, of which there may be none.
    pub(crate) fn choose(&self, degraded: bool, cells: &ClusterCells) -> Option<(usize, &Hosts)> {
        let at = match &self.routing {
            Routing::Direct => {
                cells.lb_zone_routing_all_directly.inc();
                0
            }
            Routing::Residual { local, .. } if fastrand::u64(..WHOLE) < *local => {
                cells.lb_zone_routing_sampled.inc();
                0
            }
            Routing::Residual { residual, .. } => {
                cells.lb_zone_routing_cross_zone.inc();
                match residual.last() {
                    // Of what rounding leaves.
                    None | Some(0) => {
                        cells.lb_zone_no_capacity_left.inc();
                        fastrand::usize(..self.healthy.len())
                    }
                    Some(&all) => {
                        let point = fastrand::u64(..all);
                        residual.partition_point(|&sum| sum <= point)
                    }
                }
            }
        };
        let hosts = if degraded { &self.degraded } else { &self.healthy };
        Some((at, hosts.get(at)?))
    }
}

/// What a locality has of the sidecars and of the endpoints, in hundredths of a percent.
#[derive(Debug, Clone, Copy, Default)]
struct Shares {
    sidecars: u64,
    upstream: u64,
}

impl Routing {
    /// `has_ours`: the first one is our locality.
    fn new(shares: &[Shares], has_ours: bool) -> Self {
        let ours = shares.first().copied().filter(|_| has_ours);
        if ours.is_some_and(|ours| ours.upstream > 0 && ours.upstream >= ours.sidecars) {
            return Self::Direct;
        }
        let local =
            ours.and_then(|ours| (ours.upstream * WHOLE).checked_div(ours.sidecars)).unwrap_or(0);
        let mut sum = 0;
        let residual = shares.iter().enumerate().map(|(at, it)| {
            if at > 0 || !has_ours {
                sum += it.upstream.saturating_sub(it.sidecars);
            }
            sum
        });
        Self::Residual { local, residual: residual.collect() }
    }
}

/// The healthy endpoints of a locality, or their weights.
fn amount(group: &Group<'_>, by_weight: bool) -> u64 {
    let healthy = group.all.iter().filter(|endpoint| endpoint.health() == Health::Healthy);
    if by_weight {
        healthy.map(|endpoint| u64::from(endpoint.weight())).sum()
    } else {
        healthy.count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::testing::{config, located};
    use crate::config::endpoint::AssignmentPolicy;
    use crate::config::endpoint::HealthStatus::{self, Healthy, Unhealthy};
    use crate::config::load_balancer::ZoneAware;
    use crate::stats::Sharded;

    fn hosts(
        zones: &[&[HealthStatus]],
        local: Option<&Local<'_>>,
        zone_aware: ZoneAware,
    ) -> HostSet {
        let zones: Vec<_> = zones.iter().map(|states| (None, *states)).collect();
        let config = Cluster { zone_aware, ..config("c") };
        HostSet::new(vec![located(0, &zones)], &config, AssignmentPolicy::default(), local)
    }

    fn small() -> ZoneAware {
        ZoneAware::new(100.0, 1.0)
    }

    /// What becomes of a cluster with so many healthy endpoints by zone, of whose sidecars so many are in each; we are in the
    /// zone of this number.
    fn routing(
        upstream: &[usize],
        sidecars: &[usize],
        ours: usize,
        zone_aware: ZoneAware,
    ) -> Option<Routing> {
        let healthy = |zones: &[usize]| zones.iter().map(|n| vec![Healthy; *n]).collect::<Vec<_>>();
        let (upstream, sidecars) = (healthy(upstream), healthy(sidecars));
        let slices = |zones: &'_ [Vec<HealthStatus>]| -> Vec<&'static [HealthStatus]> {
            zones.iter().map(|zone| &*Box::leak(zone.clone().into_boxed_slice())).collect()
        };
        let sidecars = hosts(&slices(&sidecars), None, ZoneAware::default());
        let locality = Locality { zone: format!("zone-{ours}").into(), ..Locality::default() };
        let cells = Sharded::<ClusterCells>::new(1);
        let local = Local { locality: Some(&locality), hosts: &sidecars, cells: cells.local() };
        let mut hosts = hosts(&slices(&upstream), Some(&local), zone_aware);
        assert_eq!(cells.local().lb_recalculate_zone_structures.value(), 1);
        hosts.priorities[0].zones.take().map(|zones| zones.routing)
    }

    fn residual(local: u64, residual: &[u64]) -> Option<Routing> {
        Some(Routing::Residual { local, residual: residual.into() })
    }

    #[test]
    fn what_a_zone_has_too_few_endpoints_for_goes_to_those_that_have_too_many() {
        assert_eq!(routing(&[2, 1], &[1, 1], 0, small()), Some(Routing::Direct));
        assert_eq!(routing(&[1, 1], &[1, 1], 0, small()), Some(Routing::Direct), "just enough");
        // 25% of the endpoints for 40% of the sidecars.
        assert_eq!(routing(&[1, 2, 1], &[4, 4, 2], 0, small()), residual(6250, &[0, 1000, 1500]));
        // Ours comes first, whatever its name; then the others by name.
        assert_eq!(routing(&[2, 1, 1], &[2, 4, 4], 1, small()), residual(6250, &[0, 3000, 3000]));
        // 3333 hundredths of a percent for 5000.
        assert_eq!(routing(&[1, 2], &[1, 1], 0, small()), residual(6666, &[0, 1666]));
    }

    #[test]
    fn a_zone_without_endpoints_keeps_nothing() {
        assert_eq!(routing(&[0, 1, 1], &[2, 1, 1], 0, small()), residual(0, &[2500, 5000]));
    }

    #[test]
    fn too_few_endpoints_or_zones_are_not_divided() {
        assert_eq!(routing(&[3, 2], &[1, 1], 0, ZoneAware::default()), None, "five of six");
        assert_eq!(routing(&[3, 3], &[1, 1], 0, ZoneAware::default()), Some(Routing::Direct));
        assert_eq!(routing(&[3], &[1, 1], 0, small()), None, "one zone");
        assert_eq!(routing(&[3, 3], &[2], 0, small()), None, "all sidecars in one");
        assert_eq!(routing(&[3, 3], &[1, 1], 2, small()), None, "none with us");
    }

    #[test]
    fn everything_may_be_made_to_stay_from_so_many_endpoints_on() {
        let forced = |least| ZoneAware { force_local_zone: Some(least), ..small() };
        assert_eq!(routing(&[1, 9], &[1, 1], 0, forced(1)), Some(Routing::Direct));
        assert_eq!(routing(&[1, 9], &[1, 1], 0, forced(2)), residual(2000, &[0, 4000]));
        assert_eq!(
            routing(&[1, 9], &[1], 0, forced(1)),
            Some(Routing::Direct),
            "one zone is enough"
        );
    }

    #[test]
    fn only_healthy_endpoints_count() {
        let sidecars = hosts(&[&[Healthy], &[Healthy]], None, ZoneAware::default());
        let locality = Locality { zone: "zone-0".into(), ..Locality::default() };
        let cells = Sharded::<ClusterCells>::new(1);
        let local = Local { locality: Some(&locality), hosts: &sidecars, cells: cells.local() };
        let hosts =
            hosts(&[&[Healthy, Unhealthy, Unhealthy], &[Healthy; 3]], Some(&local), small());
        let zones = hosts.priorities[0].zones.as_deref().unwrap();
        assert_eq!(zones.routing, Routing::Residual { local: 5000, residual: [0, 2500].into() });
        assert_eq!((zones.healthy[0].list.len(), zones.healthy[1].list.len()), (1, 3));
        assert!(!zones.local_panics());
    }

    #[test]
    fn a_locality_is_drawn_in_proportion_to_what_it_has_left() {
        fastrand::seed(1);
        let list = || Hosts::new(std::sync::Arc::default());
        let zones = Zones {
            healthy: (0..4).map(|_| list()).collect(),
            degraded: Box::default(),
            routing: Routing::Residual { local: 5000, residual: [0, 3000, 3000, 4000].into() },
            local_panics: false,
        };
        let cells = ClusterCells::default();
        let mut counts = [0u32; 4];
        for _ in 0..8000 {
            counts[zones.choose(false, &cells).unwrap().0] += 1;
        }
        assert_eq!(counts[2], 0, "has nothing left");
        for (count, expected) in counts.iter().zip([4000u32, 3000, 0, 1000]) {
            assert!(count.abs_diff(expected) < 250, "{counts:?}");
        }
        assert_eq!(cells.lb_zone_routing_sampled.value(), u64::from(counts[0]));
        assert_eq!(cells.lb_zone_routing_cross_zone.value(), 8000 - u64::from(counts[0]));
    }
}
