//! Of two candidates the one that is likely to answer sooner (peak EWMA).
//!
//! Requests under way alone do not tell a slow endpoint from a fast one as long as few are under way; latency alone sends
//! everybody to the same fast one at once. So what counts is the product: how long an answer takes lately
//! ([`latency`](crate::cluster::latency)), times the requests that are there, this one among them. Two candidates are
//! enough for that to spread load exponentially better than one does (Mitzenmacher, "The Power of Two Choices in Randomized
//! Load Balancing", 2001), and keep workers that know the same from doing the same.

use std::sync::Arc;

use crate::cluster::endpoint::Endpoint;
use crate::config::load_balancer::PeakEwma;

/// No answer counts as faster, in seconds: among endpoints that have been forgiven, requests under way decide.
const LEAST: f64 = 1e-6;

/// Draws two different endpoints at random and takes the one with the smaller cost; of equals the one drawn first. Weights
/// are equal.
pub(super) fn pick<'h>(
    list: &'h [Arc<Endpoint>],
    settings: &PeakEwma,
) -> Option<&'h Arc<Endpoint>> {
    let first = fastrand::usize(..list.len());
    let Some(others) = list.len().checked_sub(1).filter(|others| *others > 0) else {
        return list.get(first);
    };
    let other = fastrand::usize(..others);
    let second = if other < first { other } else { other + 1 };
    Some(better(list.get(first)?, list.get(second)?, settings))
}

/// The one with the smaller cost.
pub(super) fn better<'h>(
    first: &'h Arc<Endpoint>,
    second: &'h Arc<Endpoint>,
    settings: &PeakEwma,
) -> &'h Arc<Endpoint> {
    if cost(second, settings) < cost(first, settings) { second } else { first }
}

/// Seconds until an answer can be expected, if each request waits for those before it.
fn cost(endpoint: &Endpoint, settings: &PeakEwma) -> f64 {
    let observed = endpoint.latency.get().and_then(|latency| latency.current(settings.decay));
    let round_trip = observed.unwrap_or(settings.default_rtt.as_secs_f64()).max(LEAST);
    round_trip * (f64::from(endpoint.active()) + 1.0)
}
