//! Slow start, in the old form and in the new one.

use std::time::Duration;

use crate::config::runtime::RuntimeNumber;
use outrigger_proto::envoy::config::cluster::v3::cluster::SlowStartConfig as Legacy;
use outrigger_proto::envoy::config::core::v3::RuntimeDouble;
use outrigger_proto::envoy::extensions::load_balancing_policies::common::v3::SlowStartConfig;

use crate::config::Problems;
use crate::config::load_balancer::SlowStart;

use super::common::duration;
use super::common_lb::percent;

/// Least weight of an endpoint where nothing is set, in percent.
const DEFAULT_MIN_WEIGHT: f64 = 10.0;

/// The field `slow_start_config` of the enumeration's settings.
pub(super) fn legacy(problems: &mut Problems, proto: Option<Legacy>) -> Option<SlowStart> {
    let Legacy { slow_start_window, aggression, min_weight_percent } = proto?;
    convert(problems, Some(SlowStartConfig { slow_start_window, aggression, min_weight_percent }))
}

/// With this window and defaults for the rest. `None`: there is no slow start, which a window of zero says.
pub(super) fn of_window(window: Duration) -> Option<SlowStart> {
    (!window.is_zero()).then(|| SlowStart {
        window,
        aggression: RuntimeNumber::constant(1.0),
        min_weight: DEFAULT_MIN_WEIGHT / 100.0,
    })
}

/// The field `slow_start_config` of a policy in the list. `None`: there is no slow start, which a window of zero says too.
pub(super) fn convert(
    problems: &mut Problems,
    proto: Option<SlowStartConfig>,
) -> Option<SlowStart> {
    let SlowStartConfig { slow_start_window, aggression, min_weight_percent } = proto?;
    problems.field("slow_start_config", |problems| {
        let window = duration(problems, "slow_start_window", slow_start_window);
        let aggression = aggression.map_or_else(
            || RuntimeNumber::constant(1.0),
            |RuntimeDouble { default_value, runtime_key }| {
                if !(default_value > 0.0 && default_value.is_finite()) {
                    problems.reject_field("aggression", "must be more than 0");
                }
                RuntimeNumber::new(default_value, &runtime_key)
            },
        );
        let least = min_weight_percent
            .and_then(|value| percent(problems, "min_weight_percent", value))
            .unwrap_or(DEFAULT_MIN_WEIGHT);
        let window = window.filter(|window| !window.is_zero())?;
        Some(SlowStart { window, aggression, min_weight: least / 100.0 })
    })
}
