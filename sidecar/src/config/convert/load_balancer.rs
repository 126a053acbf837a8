//! Load balancers: the enumeration with its settings, or the list of extensible policies.

use std::sync::Arc;
use std::time::Duration;

use crate::config::runtime::RuntimeNumber;
use outrigger_proto::any;
use outrigger_proto::envoy::config::cluster::v3 as proto;
use outrigger_proto::envoy::config::cluster::v3::cluster::{
    LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig,
};
use outrigger_proto::envoy::config::core::v3::RuntimeDouble;
use outrigger_proto::envoy::extensions::load_balancing_policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
use outrigger_proto::envoy::extensions::load_balancing_policies::cluster_provided::v3::ClusterProvided;
use outrigger_proto::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use outrigger_proto::envoy::extensions::load_balancing_policies::least_request::v3::least_request::SelectionMethod;
use outrigger_proto::envoy::extensions::load_balancing_policies::maglev::v3::Maglev;
use outrigger_proto::envoy::extensions::load_balancing_policies::override_host::v3::OverrideHost as OverrideHostProto;
use outrigger_proto::envoy::extensions::load_balancing_policies::override_host::v3::override_host::OverrideHostSource;
use outrigger_proto::envoy::extensions::load_balancing_policies::random::v3::Random;
use outrigger_proto::envoy::extensions::load_balancing_policies::ring_hash::v3::RingHash;
use outrigger_proto::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use outrigger_proto::envoy::extensions::load_balancing_policies::subset::v3::Subset;
use outrigger_proto::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;
use outrigger_proto::envoy::r#type::metadata::v3::MetadataKey;
use outrigger_proto::envoy::r#type::metadata::v3::metadata_key::PathSegment;
use outrigger_proto::envoy::r#type::metadata::v3::metadata_key::path_segment::Segment;
use outrigger_proto::google::protobuf::{
    Any, Duration as DurationProto, FloatValue, UInt32Value,
};
use outrigger_proto::load_balancing::v1::PeakEwma as PeakEwmaProto;

use crate::config::Problems;
use crate::config::load_balancer::{
    ClientSideWeighted, ConsistentHashing, LoadBalancer, LoadMetric, MetadataPlace, OverrideHost,
    OverrideSource, PeakEwma, SlowStart,
};
use crate::config::subset::Subsets;

use super::common::{
    boolean, duration, enumeration, number_in, required, text, typed_config, unknown_type, unpack,
    unsupported_if_true,
};
use super::common_lb::{self, Localities};
use super::{consistent_hashing, slow_start, subset};

/// Candidates that are compared where nothing is set.
const DEFAULT_CHOICES: u32 = 2;
/// How much active requests count where nothing is set.
const DEFAULT_BIAS: f64 = 1.0;
/// No time of peak EWMA is longer.
const MOST_PEAK_EWMA: Duration = Duration::from_secs(3600);
/// Weights are not taken over more often.
const LEAST_WEIGHT_UPDATE_PERIOD: Duration = Duration::from_millis(100);

/// A load balancer with what belongs to it.
pub(super) struct Chosen {
    pub(super) load_balancer: LoadBalancer,
    pub(super) localities: Localities,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) subsets: Option<Box<Subsets>>,
    pub(super) override_host: Option<Box<OverrideHost>>,
}

/// The field `lb_policy` with its settings.
pub(super) fn of_enumeration(
    problems: &mut Problems,
    policy: i32,
    config: Option<LbConfig>,
    localities: Localities,
    hashing: ConsistentHashing,
) -> Option<Chosen> {
    let mut slow_start = None;
    let load_balancer = match enumeration(problems, "lb_policy", policy)? {
        LbPolicy::RoundRobin => {
            if let Some(LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config })) =
                config
            {
                slow_start = problems.field("round_robin_lb_config", |problems| {
                    slow_start::legacy(problems, slow_start_config)
                });
            }
            LoadBalancer::RoundRobin
        }
        LbPolicy::LeastRequest => {
            let LeastRequestLbConfig { choice_count, active_request_bias, slow_start_config } =
                match config {
                    Some(LbConfig::LeastRequestLbConfig(config)) => config,
                    // Settings of another policy say nothing, in Envoy too.
                    _ => LeastRequestLbConfig::default(),
                };
            problems.field("least_request_lb_config", |problems| {
                slow_start = slow_start::legacy(problems, slow_start_config);
                least_request(problems, choice_count, active_request_bias, false)
            })?
        }
        LbPolicy::Random => LoadBalancer::Random,
        LbPolicy::RingHash => {
            let config = match config {
                Some(LbConfig::RingHashLbConfig(config)) => config,
                _ => RingHashLbConfig::default(),
            };
            problems.field("ring_hash_lb_config", |problems| {
                consistent_hashing::legacy_ring(problems, config, hashing)
            })?
        }
        LbPolicy::Maglev => {
            let config = match config {
                Some(LbConfig::MaglevLbConfig(config)) => config,
                _ => MaglevLbConfig::default(),
            };
            problems.field("maglev_lb_config", |problems| {
                consistent_hashing::legacy_maglev(problems, config, hashing)
            })?
        }
        LbPolicy::ClusterProvided => LoadBalancer::ClusterProvided,
        policy @ LbPolicy::LoadBalancingPolicyConfig => {
            problems.reject_field(
                "lb_policy",
                format!(
                    "{} is not supported by this version of Outrigger: ROUND_ROBIN, LEAST_REQUEST, RANDOM, RING_HASH, MAGLEV, CLUSTER_PROVIDED",
                    policy.as_str_name()
                ),
            );
            return None;
        }
    };
    Some(Chosen { load_balancer, localities, slow_start, subsets: None, override_host: None })
}

fn least_request(
    problems: &mut Problems,
    choice_count: Option<UInt32Value>,
    bias: Option<RuntimeDouble>,
    full_scan: bool,
) -> Option<LoadBalancer> {
    let choice_count =
        number_in(problems, "choice_count", choice_count, 2..=u32::MAX).unwrap_or(DEFAULT_CHOICES);
    let RuntimeDouble { default_value, runtime_key } = bias.unwrap_or_else(|| RuntimeDouble {
        default_value: DEFAULT_BIAS,
        runtime_key: String::new(),
    });
    if !(default_value >= 0.0 && default_value.is_finite()) {
        problems.reject_field("active_request_bias", "must be 0 or more");
        return None;
    }
    let active_request_bias = RuntimeNumber::new(default_value, &runtime_key);
    Some(LoadBalancer::LeastRequest { choice_count, active_request_bias, full_scan })
}

fn client_side_weighted(
    problems: &mut Problems,
    proto: ClientSideWeightedRoundRobin,
) -> Option<Chosen> {
    let ClientSideWeightedRoundRobin {
        enable_oob_load_report,
        oob_reporting_period: _, // counts with enable_oob_load_report, which is refused
        blackout_period,
        weight_expiration_period,
        weight_update_period,
        error_utilization_penalty,
        metric_names_for_computing_utilization,
        slow_start_config,
        oob_reporting_config: _, // the same
    } = proto;
    unsupported_if_true!(problems; enable_oob_load_report);
    let default = ClientSideWeighted::default();
    let mut period = |name, value, default| duration(problems, name, value).unwrap_or(default);
    let settings = ClientSideWeighted {
        blackout_period: period("blackout_period", blackout_period, default.blackout_period),
        weight_expiration_period: period(
            "weight_expiration_period",
            weight_expiration_period,
            default.weight_expiration_period,
        ),
        weight_update_period: period(
            "weight_update_period",
            weight_update_period,
            default.weight_update_period,
        )
        .max(LEAST_WEIGHT_UPDATE_PERIOD),
        error_utilization_penalty: error_utilization_penalty
            .map_or(default.error_utilization_penalty, |FloatValue { value }| f64::from(value)),
        // A name that no report has says nothing, in Envoy too.
        metrics: metric_names_for_computing_utilization
            .iter()
            .filter_map(|name| LoadMetric::named(name))
            .collect(),
    };
    let penalty = settings.error_utilization_penalty;
    if !(penalty >= 0.0 && penalty.is_finite()) {
        problems.reject_field("error_utilization_penalty", "must be 0 or more");
    }
    Some(Chosen {
        load_balancer: LoadBalancer::ClientSideWeighted(Arc::new(settings)),
        localities: Localities::default(),
        slow_start: slow_start::convert(problems, slow_start_config),
        subsets: None,
        override_host: None,
    })
}

fn override_host(problems: &mut Problems, proto: OverrideHostProto) -> Option<Chosen> {
    let OverrideHostProto { override_host_sources, selected_host_key, fallback_policy } = proto;
    if override_host_sources.is_empty() {
        problems.reject_field("override_host_sources", "must have at least one entry");
    }
    let sources = override_host_sources.into_iter().enumerate().filter_map(|(index, source)| {
        problems.element("override_host_sources", index, |problems| {
            let OverrideHostSource { header, metadata } = source;
            match (header.is_empty(), metadata) {
                (true, Some(key)) => {
                    let (key, path) = metadata_key(problems, "metadata", key)?;
                    Some(OverrideSource::Metadata(key, path))
                }
                (false, None) => {
                    let name = header.parse().map(OverrideSource::Header);
                    name.map_err(|_| problems.reject_field("header", "not the name of a header"))
                        .ok()
                }
                _ => {
                    problems.reject("one of header, metadata is required");
                    None
                }
            }
        })
    });
    let sources = sources.collect();
    let selected =
        selected_host_key.and_then(|key| metadata_key(problems, "selected_host_key", key));
    let list = required(problems, "fallback_policy", fallback_policy)?;
    let mut chosen = problems.field("fallback_policy", |problems| first_known(problems, list))?;
    if chosen.override_host.is_some() {
        problems.reject_field("fallback_policy", "must not be OverrideHost itself");
    }
    chosen.override_host = Some(Box::new(OverrideHost { sources, selected }));
    Some(chosen)
}

/// Whose metadata, and the path of keys in them.
fn metadata_key(problems: &mut Problems, field: &str, proto: MetadataKey) -> Option<MetadataPlace> {
    let MetadataKey { key, path } = proto;
    problems.field(field, |problems| {
        let key = text(problems, "key", key);
        if path.is_empty() {
            problems.reject_field("path", "must have at least one entry");
        }
        let mut keys: Vec<Box<str>> = Vec::with_capacity(path.len());
        for (index, PathSegment { segment }) in path.into_iter().enumerate() {
            problems.element("path", index, |problems| match segment {
                Some(Segment::Key(key)) => keys.push(text(problems, "key", key).into()),
                Some(Segment::Index(_)) => problems.unsupported("index", true),
                None => problems.reject_field("key", "required"),
            });
        }
        Some((key.into(), keys.into()))
    })
}

fn peak_ewma(problems: &mut Problems, proto: PeakEwmaProto) -> Chosen {
    let PeakEwmaProto { decay, default_rtt, failure_penalty, slow_start_window, locality_weighted } =
        proto;
    let default = PeakEwma::default();
    let mut within = |name, value: Option<prost_types::Duration>, least, default| {
        let value =
            value.map(|prost_types::Duration { seconds, nanos }| DurationProto { seconds, nanos });
        let Some(value) = duration(problems, name, value) else { return default };
        if !(least..=MOST_PEAK_EWMA).contains(&value) {
            problems.reject_field(name, format!("out of range: {least:?} to {MOST_PEAK_EWMA:?}"));
        }
        value
    };
    let settings = PeakEwma {
        decay: within("decay", decay, Duration::from_millis(1), default.decay),
        default_rtt: within(
            "default_rtt",
            default_rtt,
            Duration::from_micros(1),
            default.default_rtt,
        ),
        failure_penalty: within(
            "failure_penalty",
            failure_penalty,
            Duration::ZERO,
            default.failure_penalty,
        ),
    };
    let window = within("slow_start_window", slow_start_window, Duration::ZERO, Duration::ZERO);
    Chosen {
        load_balancer: LoadBalancer::PeakEwma(Arc::new(settings)),
        localities: Localities::weighted(locality_weighted),
        slow_start: slow_start::of_window(window),
        subsets: None,
        override_host: None,
    }
}

/// The first policy of the list `load_balancing_policy` that we have, as in Envoy: a list names what it would like first.
pub(super) fn first_known(
    problems: &mut Problems,
    list: proto::LoadBalancingPolicy,
) -> Option<Chosen> {
    let proto::LoadBalancingPolicy { policies } = list;
    let mut last = None;
    for (index, policy) in policies.into_iter().enumerate() {
        let proto::load_balancing_policy::Policy { typed_extension_config } = policy;
        let config = problems.element("policies", index, |problems| {
            problems.field("typed_extension_config", |problems| {
                typed_config(problems, typed_extension_config.unwrap_or_default())
            })
        })?;
        if is_known(&config) {
            return problems.element("policies", index, |problems| {
                problems.field("typed_extension_config", |problems| {
                    problems.field("typed_config", |problems| extension(problems, &config))
                })
            });
        }
        last = Some((index, config));
    }
    match last {
        None => problems.reject_field("policies", "must have at least one entry"),
        Some((index, config)) => problems.element("policies", index, |problems| {
            unknown_type(
                problems,
                &config,
                &[
                    "LeastRequest",
                    "RoundRobin",
                    "Random",
                    "RingHash",
                    "Maglev",
                    "ClientSideWeightedRoundRobin",
                    "PeakEwma",
                    "WrrLocality",
                    "Subset",
                    "OverrideHost",
                    "ClusterProvided",
                ],
            );
        }),
    }
    None
}

fn is_known(config: &Any) -> bool {
    any::holds::<LeastRequest>(config)
        || any::holds::<RoundRobin>(config)
        || any::holds::<Random>(config)
        || any::holds::<RingHash>(config)
        || any::holds::<Maglev>(config)
        || any::holds::<ClientSideWeightedRoundRobin>(config)
        || any::holds::<PeakEwmaProto>(config)
        || any::holds::<WrrLocality>(config)
        || any::holds::<Subset>(config)
        || any::holds::<OverrideHostProto>(config)
        || any::holds::<ClusterProvided>(config)
}

fn extension(problems: &mut Problems, config: &Any) -> Option<Chosen> {
    let plain = |(load_balancer, localities)| Chosen {
        load_balancer,
        localities,
        slow_start: None,
        subsets: None,
        override_host: None,
    };
    if any::holds::<LeastRequest>(config) {
        let LeastRequest {
            choice_count,
            active_request_bias,
            slow_start_config,
            locality_lb_config,
            enable_full_scan,
            selection_method,
        } = unpack(problems, config)?;
        let slow_start = slow_start::convert(problems, slow_start_config);
        let method = enumeration(problems, "selection_method", selection_method);
        let full_scan =
            method == Some(SelectionMethod::FullScan) || boolean(enable_full_scan, false);
        let localities = common_lb::localities(problems, locality_lb_config);
        let load_balancer = least_request(problems, choice_count, active_request_bias, full_scan)?;
        return Some(Chosen {
            load_balancer,
            localities,
            slow_start,
            subsets: None,
            override_host: None,
        });
    }
    if any::holds::<RoundRobin>(config) {
        let RoundRobin { slow_start_config, locality_lb_config } = unpack(problems, config)?;
        let slow_start = slow_start::convert(problems, slow_start_config);
        let localities = common_lb::localities(problems, locality_lb_config);
        let load_balancer = LoadBalancer::RoundRobin;
        return Some(Chosen {
            load_balancer,
            localities,
            slow_start,
            subsets: None,
            override_host: None,
        });
    }
    if any::holds::<RingHash>(config) {
        let config = unpack(problems, config)?;
        return consistent_hashing::ring_extension(problems, config).map(plain);
    }
    if any::holds::<Maglev>(config) {
        let config = unpack(problems, config)?;
        return consistent_hashing::maglev_extension(problems, config).map(plain);
    }
    if any::holds::<ClusterProvided>(config) {
        let ClusterProvided {} = unpack(problems, config)?;
        return Some(plain((LoadBalancer::ClusterProvided, Localities::default())));
    }
    if any::holds::<Subset>(config) {
        let config = unpack(problems, config)?;
        return subset::extension(problems, config);
    }
    if any::holds::<WrrLocality>(config) {
        let WrrLocality { endpoint_picking_policy } = unpack(problems, config)?;
        let list = required(problems, "endpoint_picking_policy", endpoint_picking_policy)?;
        let mut chosen = problems.field("endpoint_picking_policy", |problems| {
            let chosen = first_known(problems, list)?;
            // As in Envoy 1.40.
            if !matches!(chosen.load_balancer, LoadBalancer::ClientSideWeighted(_)) {
                problems.reject_field("policies", "must be ClientSideWeightedRoundRobin");
            }
            Some(chosen)
        })?;
        chosen.localities = Localities::weighted(true);
        return Some(chosen);
    }
    if any::holds::<OverrideHostProto>(config) {
        let config = unpack(problems, config)?;
        return override_host(problems, config);
    }
    if any::holds::<PeakEwmaProto>(config) {
        let config = unpack(problems, config)?;
        return Some(peak_ewma(problems, config));
    }
    if any::holds::<ClientSideWeightedRoundRobin>(config) {
        let config = unpack(problems, config)?;
        return client_side_weighted(problems, config);
    }
    let Random { locality_lb_config } = unpack(problems, config)?;
    Some(plain((LoadBalancer::Random, common_lb::localities(problems, locality_lb_config))))
}
