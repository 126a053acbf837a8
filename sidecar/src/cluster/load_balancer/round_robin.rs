//! In turn.

use std::sync::Arc;

use crate::cluster::endpoint::Endpoint;

/// The next one after `position`. Weights are equal.
pub(super) fn pick<'h>(
    position: &mut usize,
    list: &'h [Arc<Endpoint>],
) -> Option<&'h Arc<Endpoint>> {
    let at = *position % list.len();
    *position = position.wrapping_add(1);
    list.get(at)
}

/// The weight in a schedule.
pub(super) fn weight(endpoint: &Endpoint) -> f64 {
    f64::from(endpoint.weight())
}
