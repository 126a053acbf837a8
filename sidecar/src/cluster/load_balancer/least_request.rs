//! The least loaded of a few.

use std::sync::Arc;

use crate::cluster::endpoint::Endpoint;

/// Draws `choices` endpoints at random, with replacement, and takes the one with the fewest requests under way; of equals
/// the one drawn first. Weights are equal.
pub(super) fn pick(list: &[Arc<Endpoint>], choices: u32) -> Option<&Arc<Endpoint>> {
    let mut best = list.get(fastrand::usize(..list.len()))?;
    let mut least = best.active();
    for _ in 1..choices.max(2) {
        let other = list.get(fastrand::usize(..list.len()))?;
        let active = other.active();
        if active < least {
            (best, least) = (other, active);
        }
    }
    Some(best)
}

/// The one with the fewest requests under way; of equals any, each as likely. Weights are equal.
pub(super) fn pick_of_all(list: &[Arc<Endpoint>]) -> Option<&Arc<Endpoint>> {
    let mut best = list.first()?;
    let mut least = best.active();
    let mut equals = 1;
    for other in list.iter().skip(1) {
        let active = other.active();
        if active < least {
            (best, least, equals) = (other, active, 1);
        } else if active == least {
            equals += 1;
            if fastrand::usize(..equals) == 0 {
                best = other;
            }
        }
    }
    Some(best)
}

/// The weight in a schedule: the less, the more requests are under way. Taken when the endpoint is scheduled again, and
/// left alone until it is chosen next.
pub(super) fn weight(endpoint: &Endpoint, active_request_bias: f64) -> f64 {
    let weight = f64::from(endpoint.weight());
    if active_request_bias == 0.0 {
        return weight;
    }
    let active = f64::from(endpoint.active()) + 1.0;
    if active_request_bias == 1.0 {
        weight / active
    } else {
        weight / active.powf(active_request_bias)
    }
}
