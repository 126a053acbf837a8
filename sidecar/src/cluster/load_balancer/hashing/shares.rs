//! What share of all hashes each endpoint is to have.

use std::sync::Arc;

use crate::cluster::endpoint::Endpoint;

/// Endpoints, each with the share of all hashes that it is to have, by its weight. The shares add up to 1.
#[derive(Debug)]
pub(crate) struct Shares {
    /// In the order of the host set.
    pub(super) entries: Vec<(Arc<Endpoint>, f64)>,
    /// The smallest share.
    pub(super) smallest: f64,
    /// The largest share.
    pub(super) largest: f64,
}

impl Shares {
    /// All hashes for these endpoints.
    pub(crate) fn of(hosts: &[Arc<Endpoint>]) -> Self {
        let mut shares = Self::none();
        shares.add(hosts, 1.0);
        shares
    }

    /// Without an endpoint.
    pub(crate) fn none() -> Self {
        Self { entries: Vec::new(), smallest: 1.0, largest: 0.0 }
    }

    /// Divides `part` of all hashes among these endpoints.
    pub(crate) fn add(&mut self, hosts: &[Arc<Endpoint>], part: f64) {
        let sum: u64 = hosts.iter().map(|endpoint| u64::from(endpoint.weight())).sum();
        for endpoint in hosts {
            #[allow(clippy::cast_precision_loss)]
            // the sum is below 2^32: the configuration refuses more
            let share = f64::from(endpoint.weight()) * part / sum as f64;
            self.entries.push((Arc::clone(endpoint), share));
            self.smallest = self.smallest.min(share);
            self.largest = self.largest.max(share);
        }
    }
}
