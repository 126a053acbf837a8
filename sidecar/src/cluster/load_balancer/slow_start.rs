//! An endpoint that has just become healthy gets its share of the traffic little by little.

use crate::cluster::endpoint::Endpoint;
use crate::config::load_balancer::SlowStart;

/// By how much the weight of an endpoint counts at this moment: 1, unless it starts slowly.
pub(super) fn factor(slow_start: Option<&SlowStart>, endpoint: &Endpoint) -> f64 {
    let Some(SlowStart { window, aggression, min_weight }) = slow_start else { return 1.0 };
    let Some(healthy_for) = endpoint.healthy_for().filter(|time| time < window) else { return 1.0 };
    let time = healthy_for.as_secs_f64().max(0.001) / window.as_secs_f64();
    // As in Envoy, what the runtime makes of it is never less than nothing.
    let aggression = aggression.current().max(f64::MIN_POSITIVE);
    time.powf(1.0 / aggression).max(*min_weight)
}
