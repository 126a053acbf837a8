//! The endpoints of a priority by locality, where traffic is divided by the weights of localities.
//!
//! Semantics: Envoy's "locality weighted load balancing".

use std::sync::Arc;

use super::{Hosts, Members};
use crate::cluster::endpoint::{Endpoint, Health};
use crate::cluster::load_balancer::hashing::Shares;
use crate::config::endpoint::Locality;

/// The localities of a priority that get traffic. An empty list: weights do not decide, but the list of all localities
/// together.
#[derive(Debug, Default)]
pub(crate) struct WeightedLocalities {
    /// For its healthy endpoints.
    pub(crate) healthy: Box<[WeightedLocality]>,
    /// For its degraded endpoints.
    pub(crate) degraded: Box<[WeightedLocality]>,
}

/// Some endpoints of one locality.
#[derive(Debug)]
pub(crate) struct WeightedLocality {
    /// Those of one state of health; there is at least one.
    pub(crate) hosts: Hosts,
    /// Its weight, less what its availability lacks after overprovisioning; more than 0.
    pub(crate) weight: f64,
}

/// All endpoints of one locality.
pub(super) struct Group<'m> {
    pub(super) locality: &'m Locality,
    weight: u32,
    pub(super) all: Vec<Arc<Endpoint>>,
}

impl WeightedLocalities {
    /// `overprovisioning` is in percent.
    pub(super) fn new(members: &Members, overprovisioning: u32) -> Self {
        let groups = groups(members);
        let with = |health| {
            let lists = groups.iter().filter_map(|group| group.available(health, overprovisioning));
            lists.collect()
        };
        Self { healthy: with(Health::Healthy), degraded: with(Health::Degraded) }
    }
}

/// Shares of hashes: each locality its part by weight, and in it each endpoint by its own. Availability does not count; the
/// part of a locality that has nobody is nobody's. `None`: no locality has a weight.
pub(super) fn shares(members: &Members, panic: bool) -> Option<Shares> {
    let groups = groups(members);
    let sum: u64 = groups.iter().map(|group| u64::from(group.weight)).sum();
    if groups.is_empty() {
        return None;
    }
    let mut shares = Shares::none();
    for group in groups.iter().filter(|group| group.weight > 0) {
        #[allow(clippy::cast_precision_loss)]
        // the sum is below 2^32: the configuration refuses more
        let part = f64::from(group.weight) / sum as f64;
        if panic {
            shares.add(&group.all, part);
        } else {
            shares.add(&group.with(Health::Healthy), part);
        }
    }
    Some(shares)
}

/// By locality, in the order of their names. A locality that is listed twice counts once, with the weight of the last.
pub(super) fn groups(members: &Members) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for listed in &*members.localities {
        let hosts = members.all.iter().skip(listed.start).take(listed.count).cloned();
        match groups.iter_mut().find(|group| *group.locality == *listed.locality) {
            Some(group) => {
                group.all.extend(hosts);
                group.weight = listed.weight.unwrap_or(group.weight);
            }
            None => groups.push(Group {
                locality: &listed.locality,
                weight: listed.weight.unwrap_or(0),
                all: hosts.collect(),
            }),
        }
    }
    groups.sort_by(|a, b| name(a.locality).cmp(&name(b.locality)));
    groups
}

fn name(locality: &Locality) -> (&str, &str, &str) {
    (&locality.region, &locality.zone, &locality.sub_zone)
}

impl Group<'_> {
    pub(super) fn with(&self, health: Health) -> Vec<Arc<Endpoint>> {
        self.all.iter().filter(|endpoint| endpoint.health() == health).cloned().collect()
    }

    /// Those of one state of health, if it gets traffic for them.
    fn available(&self, health: Health, overprovisioning: u32) -> Option<WeightedLocality> {
        let hosts = self.with(health);
        #[allow(clippy::cast_precision_loss)] // numbers of endpoints
        let ratio = {
            let counted = self.all.iter().filter(|endpoint| !endpoint.is_excluded());
            hosts.len() as f64 / counted.count() as f64
        };
        let available = (f64::from(overprovisioning) / 100.0 * ratio).min(1.0);
        let weight = f64::from(self.weight) * available;
        // Without an endpoint the ratio is not a number, and this is not true either.
        (weight > 0.0).then(|| WeightedLocality { hosts: Hosts::new(hosts.into()), weight })
    }
}
