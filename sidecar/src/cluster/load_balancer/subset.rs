//! Choosing within a subset of the endpoints.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Context, with_state};
use crate::cluster::cluster::Cluster;
use crate::cluster::endpoint::Endpoint;
use crate::cluster::host_set::{HostSet, Step, Subset, Subsets};
use crate::config::subset::MetadataCriteria;

/// Chooses an endpoint that has the metadata the route asks for, or one to fall back to.
pub(super) fn pick<'h>(
    cluster: &Cluster,
    hosts: &'h HostSet,
    subsets: &'h Subsets,
    context: &Context<'_>,
) -> Option<&'h Arc<Endpoint>> {
    let of = |index: usize| match subsets.get(index)? {
        Subset::Single(endpoint) => Some(endpoint),
        // The whole is 0 in what is remembered.
        Subset::Hosts(part) => super::pick_of(cluster, hosts, part, index + 1, context),
    };
    let cells = cluster.stats.local();
    let mut steps = steps(cluster, hosts, subsets, context.metadata).into_iter();
    steps.find_map(|step| match step {
        Step::Selected(index) => {
            cells.lb_subsets_selected.inc();
            of(index)
        }
        Step::SelectorFallback(index) => of(index),
        Step::Fallback(index, panic) => {
            if let Some(endpoint) = of(index) {
                cells.lb_subsets_fallback.inc();
                return Some(endpoint);
            }
            let endpoint = of(panic?)?;
            cells.lb_subsets_fallback_panic.inc();
            Some(endpoint)
        }
        Step::Nowhere => None,
    })
}

/// Where a request may go: as this worker remembers it, or looked up.
fn steps(
    cluster: &Cluster,
    hosts: &HostSet,
    subsets: &Subsets,
    criteria: Option<&MetadataCriteria>,
) -> SmallVec<[Step; 1]> {
    let key = match criteria {
        None => None,
        Some(criteria) => match criteria.id() {
            Some(id) => Some(id),
            None => return subsets.steps(Some(criteria)),
        },
    };
    with_state(cluster.id, |state| {
        state.subset_steps(hosts.generation, key, || subsets.steps(criteria)).clone()
    })
}
