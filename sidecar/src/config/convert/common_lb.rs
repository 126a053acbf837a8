//! What load balancers of every kind have in common: `CommonLbConfig`.

use outrigger_proto::envoy::config::cluster::v3::cluster::CommonLbConfig;
use outrigger_proto::envoy::config::cluster::v3::cluster::common_lb_config::{
    ConsistentHashingLbConfig, LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
};
use outrigger_proto::envoy::extensions::load_balancing_policies::common::v3::{
    LocalityLbConfig, locality_lb_config,
};
use outrigger_proto::envoy::r#type::v3::Percent;
use outrigger_proto::google::protobuf::{UInt32Value, UInt64Value};

use crate::config::Problems;
use crate::config::load_balancer::{ConsistentHashing, ZoneAware};

use super::common::{enumeration, number_in, unsupported};

/// A priority panics below this share of healthy endpoints where nothing is set, in percent.
const DEFAULT_PANIC_THRESHOLD: u8 = 50;
/// Share of the requests that zone aware routing is asked about where nothing is set, in percent.
const DEFAULT_ROUTING_ENABLED: f64 = 100.0;
/// Healthy endpoints that zone aware routing needs where nothing is set.
const DEFAULT_MIN_CLUSTER_SIZE: u64 = 6;

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
#[derive(Clone, Default)]
pub(super) struct Localities {
    /// Traffic is divided by their weights.
    pub(super) weighted: bool,
    pub(super) fail_traffic_on_panic: bool,
    pub(super) zone_aware: ZoneAware,
}

impl Localities {
    pub(super) fn weighted(weighted: bool) -> Self {
        Self { weighted, ..Self::default() }
    }
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
            )) => Localities::weighted(true),
            Some(LocalityConfigSpecifier::ZoneAwareLbConfig(config)) => {
                problems.field("zone_aware_lb_config", |problems| {
                    let ZoneAwareLbConfig {
                        routing_enabled,
                        min_cluster_size,
                        fail_traffic_on_panic,
                    } = config;
                    let zone_aware = zone_aware(problems, routing_enabled, min_cluster_size);
                    Localities { weighted: false, fail_traffic_on_panic, zone_aware }
                })
            }
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
        Some(locality_lb_config::LocalityConfigSpecifier::ZoneAwareLbConfig(config)) => problems
            .field("zone_aware_lb_config", |problems| zone_aware_extension(problems, config)),
        Some(locality_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(
            locality_lb_config::LocalityWeightedLbConfig {},
        )) => Localities::weighted(true),
    })
}

fn zone_aware_extension(
    problems: &mut Problems,
    proto: locality_lb_config::ZoneAwareLbConfig,
) -> Localities {
    use locality_lb_config::zone_aware_lb_config::{ForceLocalZone, LocalityBasis};
    let locality_lb_config::ZoneAwareLbConfig {
        routing_enabled,
        min_cluster_size,
        fail_traffic_on_panic,
        force_locality_direct_routing,
        force_local_zone,
        locality_basis,
    } = proto;
    let zone_aware = zone_aware(problems, routing_enabled, min_cluster_size);
    let basis = enumeration(problems, "locality_basis", locality_basis);
    // The deprecated field counts only without the new message.
    let force_local_zone = match force_local_zone {
        Some(ForceLocalZone { min_size }) => {
            Some(min_size.map_or(1, |UInt32Value { value }| value))
        }
        None => force_locality_direct_routing.then_some(1),
    };
    let by_weight = basis == Some(LocalityBasis::HealthyHostsWeight);
    let zone_aware = ZoneAware { force_local_zone, by_weight, ..zone_aware };
    Localities { weighted: false, fail_traffic_on_panic, zone_aware }
}

fn zone_aware(
    problems: &mut Problems,
    routing_enabled: Option<Percent>,
    min_cluster_size: Option<UInt64Value>,
) -> ZoneAware {
    let enabled = routing_enabled
        .and_then(|value| percent(problems, "routing_enabled", value))
        .unwrap_or(DEFAULT_ROUTING_ENABLED);
    let least = min_cluster_size.map_or(DEFAULT_MIN_CLUSTER_SIZE, |UInt64Value { value }| value);
    #[allow(clippy::cast_precision_loss)] // no cluster has 2^53 endpoints
    ZoneAware::new(enabled.round(), least as f64)
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
