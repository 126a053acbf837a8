//! Aggregate clusters: the priorities of several clusters, one after the other, as those of one.
//!
//! An aggregate cluster has no endpoint of its own. It has a table of loads over the priorities of all its members, by which a
//! member and one of its priorities is chosen; the endpoint is then chosen by that member's own load balancer. What happens on
//! the way to the endpoint (connections, circuit breakers, outlier detection) is the member's; what the client sees (responses,
//! retries, timeouts, logs) is the aggregate's. Semantics: Envoy's "aggregate cluster".
//!
//! Members may be aggregates themselves: theirs stand in their place, as in gRPC (A37). In Envoy 1.40 such a member has nobody.

use std::cell::RefCell;
use std::collections::HashMap;

use smallvec::SmallVec;

use super::cluster::{Cluster, ClusterId};
use super::host_set::{Load, share_out};
use super::load_balancer::{Share, by_load};
use super::table::ClusterTable;

/// The members of an aggregate that are none themselves, in order, each with the generation of its host set.
type Members = SmallVec<[(ClusterId, u64); 4]>;

/// What this worker remembers of an aggregate, for as long as its members have the same host sets.
#[derive(Default)]
struct State {
    members: Members,
    /// Every priority that has endpoints: whose it is, and which of its priorities.
    priorities: Vec<(ClusterId, usize)>,
    loads: Vec<Load>,
}

thread_local! {
    static STATES: RefCell<HashMap<ClusterId, State>> = RefCell::default();
}

/// Chooses a member of an aggregate, and which of its priorities is to be taken. `None`: no member has an endpoint.
pub(crate) fn choose(table: &ClusterTable, aggregate: &Cluster) -> Option<(ClusterId, Share)> {
    let mut members = Members::new();
    collect(table, aggregate, &mut SmallVec::new(), &mut members);
    STATES.with_borrow_mut(|states| {
        let state = states.entry(aggregate.id).or_default();
        if state.members != members {
            *state = State::new(table, aggregate, members);
        }
        let (at, kind) = by_load(state.loads.iter().copied(), fastrand::u64(..))?;
        let &(cluster, priority) = state.priorities.get(at)?;
        Some((cluster, Share { priority, kind }))
    })
}

/// Members of members too. One that does not exist at the moment has nobody; an aggregate within itself counts once.
fn collect(
    table: &ClusterTable,
    aggregate: &Cluster,
    seen: &mut SmallVec<[ClusterId; 4]>,
    into: &mut Members,
) {
    seen.push(aggregate.id);
    for &id in aggregate.members.iter().flat_map(|members| members.iter()) {
        match table.get(id) {
            Some(member) if member.members.is_some() && !seen.contains(&id) => {
                collect(table, member, seen, into);
            }
            Some(member) if member.members.is_some() => {}
            Some(member) => into.push((id, member.hosts.load().generation())),
            None => {}
        }
    }
}

impl State {
    fn new(table: &ClusterTable, aggregate: &Cluster, members: Members) -> Self {
        let (mut priorities, mut availabilities) = (Vec::new(), Vec::new());
        for &(id, _) in &members {
            let Some(member) = table.get(id) else { continue };
            let hosts = member.hosts.load();
            for (number, priority) in hosts.priorities.iter().enumerate() {
                if priority.availability.has_hosts() {
                    priorities.push((id, number));
                    availabilities.push(priority.availability);
                }
            }
        }
        let threshold = aggregate.config.healthy_panic_threshold.min(100);
        let (loads, _) = share_out(&availabilities, threshold);
        Self { members, priorities, loads }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::testing::{assignment, config, endpoint, group};
    use crate::cluster::{Context, Manager};
    use crate::config::cluster::{self, Discovery};
    use crate::config::endpoint::HealthStatus;
    use crate::stats::Registry;
    use crate::tls;

    const UP: HealthStatus = HealthStatus::Healthy;
    const DOWN: HealthStatus = HealthStatus::Unhealthy;

    /// A cluster of priorities with endpoints in these states, on ports from `port`, those of each priority at the next ten.
    fn plain(name: &str, port: u16, priorities: &[&[HealthStatus]]) -> cluster::Cluster {
        let groups = (0u16..).zip(priorities).map(|(number, states)| {
            let endpoints = states.iter().zip(port + 10 * number..).map(|(&health, port)| {
                crate::config::endpoint::Endpoint { health, ..endpoint(port) }
            });
            group(number.into(), endpoints.collect())
        });
        let discovery = Discovery::Static(Arc::new(assignment(name, groups.collect())));
        cluster::Cluster { discovery, ..config(name) }
    }

    fn aggregate(name: &str, members: &[&str]) -> cluster::Cluster {
        let members = members.iter().map(|name| Arc::from(*name)).collect();
        cluster::Cluster { discovery: Discovery::Aggregate(members), ..config(name) }
    }

    fn manager(clusters: Vec<cluster::Cluster>) -> Manager {
        let mut manager = Manager::new(&Registry::new(0));
        for cluster in clusters {
            set(&mut manager, cluster).unwrap();
        }
        manager
    }

    fn set(
        manager: &mut Manager,
        cluster: cluster::Cluster,
    ) -> Result<(), crate::config::Rejected> {
        manager.set(Arc::new(cluster), &mut tls::Contexts::new())
    }

    /// How many of a thousand requests reach each port, by port.
    fn reached(manager: &mut Manager, name: &str) -> Vec<(u16, usize)> {
        fastrand::seed(11);
        let table = manager.table();
        let aggregate = manager.get(name).unwrap();
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..1000 {
            let Some((id, share)) = choose(&table, aggregate) else { continue };
            let member = table.get(id).unwrap();
            let context = Context { share: Some(share), ..Context::default() };
            if let Some(endpoint) = member.pick(&member.hosts.load(), &context) {
                *counts.entry(endpoint.address.port().unwrap()).or_default() += 1;
            }
        }
        counts.into_iter().collect()
    }

    fn ports(manager: &mut Manager, name: &str) -> Vec<u16> {
        reached(manager, name).into_iter().map(|(port, _)| port).collect()
    }

    #[tokio::test]
    async fn the_first_member_gets_all_as_long_as_it_is_well() {
        let mut manager = manager(vec![
            plain("a", 100, &[&[UP, UP], &[UP]]),
            plain("b", 200, &[&[UP]]),
            aggregate("all", &["a", "b"]),
        ]);
        assert_eq!(ports(&mut manager, "all"), [100, 101]);
        assert!(manager.is_initialized("all"));
    }

    #[tokio::test]
    async fn priorities_of_all_members_stand_in_one_row() {
        // Half of the first is well: 70 percent. The next has nobody, the rest spills over to the third.
        let mut manager = manager(vec![
            plain("a", 100, &[&[UP, DOWN], &[DOWN]]),
            plain("b", 200, &[&[UP]]),
            aggregate("all", &["a", "b"]),
        ]);
        let reached = reached(&mut manager, "all");
        let [(100, first), (200, second)] = *reached else { panic!("{reached:?}") };
        assert_eq!(first + second, 1000);
        assert!((630..770).contains(&first), "{first}");
    }

    #[tokio::test]
    async fn the_loads_follow_the_health_of_the_members() {
        let mut manager = manager(vec![
            plain("a", 100, &[&[UP]]),
            plain("b", 200, &[&[UP]]),
            aggregate("all", &["a", "b"]),
        ]);
        assert_eq!(ports(&mut manager, "all"), [100]);
        set(&mut manager, plain("a", 100, &[&[DOWN]])).unwrap();
        assert_eq!(ports(&mut manager, "all"), [200]);
        manager.remove("b");
        assert_eq!(ports(&mut manager, "all"), [100], "in a panic, whoever there is");
        manager.remove("a");
        assert_eq!(ports(&mut manager, "all"), [0u16; 0]);
        set(&mut manager, plain("b", 200, &[&[UP]])).unwrap();
        assert_eq!(ports(&mut manager, "all"), [200], "it may come later");
    }

    #[tokio::test]
    async fn a_member_may_be_an_aggregate() {
        let mut manager = manager(vec![
            aggregate("outer", &["inner", "c"]),
            aggregate("inner", &["a", "b"]),
            plain("a", 100, &[&[DOWN]]),
            plain("b", 200, &[&[DOWN]]),
            plain("c", 300, &[&[UP]]),
        ]);
        assert_eq!(ports(&mut manager, "outer"), [300]);
        set(&mut manager, plain("b", 200, &[&[UP]])).unwrap();
        assert_eq!(ports(&mut manager, "outer"), [200]);
    }

    #[tokio::test]
    async fn an_aggregate_within_itself_is_refused_by_the_name_of_the_member() {
        let mut manager = manager(vec![aggregate("a", &["x", "b"]), aggregate("b", &["c"])]);
        let refused = set(&mut manager, aggregate("c", &["d", "a"])).unwrap_err();
        assert_eq!(refused.path, "cluster_type.typed_config.clusters[1]");
        assert!(refused.reason.contains("\"a\""), "{refused}");
        assert!(manager.get("c").is_none());
        let refused = set(&mut manager, aggregate("self", &["self"])).unwrap_err();
        assert_eq!(refused.path, "cluster_type.typed_config.clusters[0]");
        set(&mut manager, aggregate("c", &["d"])).unwrap();
    }
}
