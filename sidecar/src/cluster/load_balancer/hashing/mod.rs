//! Tables that say for every hash which endpoint it belongs to.
//!
//! - [`shares`]: what share of all hashes each endpoint is to have;
//! - [`ring`], [`maglev`]: the two kinds of table; [`murmur`]: a hash function of the first;
//! - [`bounded`]: who takes the place of an endpoint that has too much to do.
//!
//! A table is made by the control thread with its host set, and only looked up by workers. Every step is Envoy's
//! (`ring_hash_lb.cc`, `maglev_lb.cc`, `thread_aware_lb_impl.cc`), down to the order of sums of floating-point numbers:
//! where both know the same endpoints, both choose the same one for the same hash.

mod bounded;
mod maglev;
mod murmur;
mod ring;
mod shares;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use twox_hash::XxHash64;

use crate::cluster::endpoint::Endpoint;
use crate::config::load_balancer::LoadBalancer;
use maglev::Maglev;
use ring::Ring;
pub(crate) use shares::Shares;

/// The filter name and the key under which an endpoint's metadata says what is hashed instead of its address.
const METADATA: (&str, &str) = ("envoy.lb", "hash_key");

/// Says for every hash which endpoint it belongs to.
#[derive(Debug)]
pub(crate) struct HashTable {
    hosts: Box<[Arc<Endpoint>]>,
    kind: Kind,
    bound: Option<Bound>,
}

/// How much load an endpoint takes.
#[derive(Debug)]
struct Bound {
    /// In percent of its share.
    factor: u32,
    /// By index of the endpoint.
    shares: Box<[f64]>,
}

#[derive(Debug)]
enum Kind {
    Ring(Ring),
    Maglev(Maglev),
}

/// How evenly a table came out: what Envoy publishes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Evenness {
    /// Entries of the ring; `None` for a table of a fixed size.
    pub(crate) size: Option<u64>,
    /// Entries of the endpoint with the fewest.
    pub(crate) fewest: u64,
    /// Entries of the endpoint with the most.
    pub(crate) most: u64,
}

impl HashTable {
    /// The table of a policy; `None` if the policy does not choose by a hash.
    pub(crate) fn new(policy: &LoadBalancer, shares: &Shares) -> Option<Self> {
        let use_hostname = policy.hashing()?.use_hostname;
        let keys: Vec<String> =
            shares.entries.iter().map(|(endpoint, _)| key(endpoint, use_hostname)).collect();
        let kind = match policy {
            LoadBalancer::RingHash(config) => Kind::Ring(Ring::new(config, shares, &keys)),
            LoadBalancer::Maglev(config) => Kind::Maglev(Maglev::new(config, shares, &keys)),
            LoadBalancer::RoundRobin
            | LoadBalancer::LeastRequest { .. }
            | LoadBalancer::Random
            | LoadBalancer::ClientSideWeighted(_)
            | LoadBalancer::PeakEwma(_)
            | LoadBalancer::ClusterProvided => return None,
        };
        let hosts = shares.entries.iter().map(|(endpoint, _)| Arc::clone(endpoint)).collect();
        let bound = policy.hashing()?.balance_factor.map(|factor| Bound {
            factor,
            shares: shares.entries.iter().map(|(_, share)| *share).collect(),
        });
        Some(Self { hosts, kind, bound })
    }

    /// The endpoint of a hash, without a bound.
    #[cfg(test)]
    pub(crate) fn choose(&self, hash: u64, attempt: u32) -> Option<&Arc<Endpoint>> {
        self.hosts.get(self.place(hash, attempt)?)
    }

    /// The endpoint of a hash, or another if that has too much to do. Each `attempt` from 1 on gives another place for the
    /// same hash, though not always another endpoint. `active` counts the requests under way.
    pub(crate) fn choose_within_bounds(
        &self,
        hash: u64,
        attempt: u32,
        active: impl FnOnce() -> u64,
    ) -> Option<&Arc<Endpoint>> {
        let at = self.place(hash, attempt)?;
        match &self.bound {
            None => self.hosts.get(at),
            Some(Bound { factor, shares }) => {
                bounded::choose(&self.hosts, shares, at, hash, active(), *factor)
            }
        }
    }

    /// The index of the endpoint of a hash.
    fn place(&self, hash: u64, attempt: u32) -> Option<usize> {
        match &self.kind {
            Kind::Ring(ring) => ring.choose(hash, attempt),
            Kind::Maglev(maglev) => maglev.choose(hash, attempt),
        }
    }

    /// How evenly it came out.
    pub(crate) fn evenness(&self) -> Evenness {
        match &self.kind {
            Kind::Ring(ring) => ring.evenness(),
            Kind::Maglev(maglev) => maglev.evenness(),
        }
    }
}

/// What is hashed of an endpoint.
fn key(endpoint: &Endpoint, use_hostname: bool) -> String {
    let (filter, name) = METADATA;
    let metadata = endpoint.metadata();
    let own = metadata.0.get(filter).and_then(|object| object.get(name)?.as_str());
    match own {
        Some(own) if !own.is_empty() => own.to_owned(),
        _ if use_hostname => endpoint.hostname.to_string(),
        _ => endpoint.address.to_string(),
    }
}

fn xx_hash(text: &str, seed: u64) -> u64 {
    XxHash64::oneshot(seed, text.as_bytes())
}

/// The hash of an address as text, which is written on the stack.
pub(crate) fn address_hash(address: IpAddr) -> u64 {
    use std::io::Write;

    // The longest is an IPv4 address within an IPv6 one, of 45 characters.
    let mut text = [0; 48];
    let mut rest = &mut text[..];
    // It cannot fail: there is room for any address.
    let _ = write!(rest, "{address}");
    let left = rest.len();
    XxHash64::oneshot(0, text.get(..text.len() - left).unwrap_or_default())
}
