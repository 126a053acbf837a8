//! What load balancers of every kind have in common: `CommonLbConfig`.

use outrigger_proto::envoy::config::cluster::v3::cluster::CommonLbConfig;
use outrigger_proto::envoy::config::cluster::v3::cluster::common_lb_config::{
    ConsistentHashingLbConfig, LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
};
use outrigger_proto::envoy::extensions::load_balancing_policies::common::v3::{
    LocalityLbConfig, locality_lb_config,
};
use outrigger_proto::envoy::r#type::v3::Percent;
use outrigger_proto::google::protobuf::UInt32Value;

use crate::config::Problems;
use crate::config::load_balancer::ConsistentHashing;

use super::common::{number_in, unsupported};

/// A priority panics below this share of healthy endpoints where nothing is set, in percent.
const DEFAULT_PANIC_THRESHOLD: u8 = 50;

/// What the settings come to.
pub(super) struct Common {
    /// In percent.
    pub(super) healthy_panic_threshold: u8,
    pub(super) localities: Localities,
    pub(super) consistent_hashing: ConsistentHashing,
    pub(super) ignore_new_until_checked: bool,
    pub(super) close_on_change: bool,
}

/// What localities mean.
#[derive(Clone, Copy, Default)]
pub(super) struct Localities {
    /// Traffic is divided by their weights.
    pub(super) weighted: bool,
    pub(super) fail_traffic_on_panic: bool,
}

/// The field `common_lb_config`.
pub(super) fn convert(problems: &mut Problems, proto: Option<CommonLbConfig>) -> Common {
    let CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window: _, // how Envoy bundles updates of endpoints; here each takes effect at once
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = proto.unwrap_or_default();
    problems.field("common_lb_config", |problems| {
        unsupported!(problems; override_host_status);
        let threshold = healthy_panic_threshold
            .and_then(|value| percent(problems, "healthy_panic_threshold", value));
        let localities = match locality_config_specifier {
            None => Localities::default(),
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(
                LocalityWeightedLbConfig {},
            )) => Localities { weighted: true, fail_traffic_on_panic: false },
            Some(LocalityConfigSpecifier::ZoneAwareLbConfig(ZoneAwareLbConfig {
                routing_enabled: _,  // needs a local cluster, which the bootstrap cannot name here
                min_cluster_size: _, // the same
                fail_traffic_on_panic,
            })) => Localities { weighted: false, fail_traffic_on_panic },
        };
        let consistent_hashing = consistent_hashing_lb_config.map(|proto| {
            problems.field("consistent_hashing_lb_config", |problems| {
                consistent_hashing(problems, proto)
            })
        });
        Common {
            healthy_panic_threshold: threshold.map_or(DEFAULT_PANIC_THRESHOLD, rounded),
            localities,
            consistent_hashing: consistent_hashing.unwrap_or_default(),
            ignore_new_until_checked: ignore_new_hosts_until_first_hc,
            close_on_change: close_connections_on_host_set_change,
        }
    })
}

/// The field `hash_balance_factor`.
pub(super) fn balance_factor(problems: &mut Problems, proto: Option<UInt32Value>) -> Option<u32> {
    number_in(problems, "hash_balance_factor", proto, 100..=u32::MAX)
}

/// The field `locality_lb_config` of a policy in the list.
pub(super) fn localities(problems: &mut Problems, proto: Option<LocalityLbConfig>) -> Localities {
    let Some(LocalityLbConfig { locality_config_specifier }) = proto else {
        return Localities::default();
    };
    problems.field("locality_lb_config", |problems| match locality_config_specifier {
        None => {
            problems.reject("one of zone_aware_lb_config, locality_weighted_lb_config is required");
            Localities::default()
        }
        Some(locality_lb_config::LocalityConfigSpecifier::ZoneAwareLbConfig(config)) => {
            let locality_lb_config::ZoneAwareLbConfig {
                routing_enabled: _,  // needs a local cluster, which the bootstrap cannot name here
                min_cluster_size: _, // the same
                fail_traffic_on_panic,
                force_locality_direct_routing: _, // the same
                force_local_zone: _,              // the same
                locality_basis: _,                // the same
            } = config;
            Localities { weighted: false, fail_traffic_on_panic }
        }
        Some(locality_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(
            locality_lb_config::LocalityWeightedLbConfig {},
        )) => Localities { weighted: true, fail_traffic_on_panic: false },
    })
}

fn consistent_hashing(
    problems: &mut Problems,
    proto: ConsistentHashingLbConfig,
) -> ConsistentHashing {
    let ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor } = proto;
    ConsistentHashing {
        use_hostname: use_hostname_for_hashing,
        balance_factor: balance_factor(problems, hash_balance_factor),
        hash_policy: Vec::new(),
    }
}

/// A percentage of 0 to 100.
pub(super) fn percent(problems: &mut Problems, name: &str, proto: Percent) -> Option<f64> {
    let Percent { value } = proto;
    if (0.0..=100.0).contains(&value) {
        return Some(value);
    }
    problems.reject_field(name, format!("{value} is not a percentage: 0 to 100"));
    None
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 100
fn rounded(percent: f64) -> u8 {
    percent.round() as u8
}
