//! The TCP proxy filter.

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::envoy::extensions::filters::network::tcp_proxy::v3 as proto;
use outrigger_proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, TcpAccessLogOptions, WeightedCluster, weighted_cluster::ClusterWeight,
};
use outrigger_proto::envoy::r#type::v3::HashPolicy;
use outrigger_proto::envoy::r#type::v3::hash_policy::{PolicySpecifier, SourceIp};
use outrigger_proto::google::protobuf::Duration as DurationProto;

use crate::config::Problems;
use crate::config::subset::MetadataCriteria;
use crate::config::tcp_proxy::{LogOptions, Target, TcpProxy};

use super::common::{boolean, enumeration, limit, number_in, positive_duration, text, unsupported};
use super::{access_log, subset};

/// How long a connection may be idle where the configuration does not say.
const DEFAULT_IDLE: Duration = Duration::from_secs(3600);

/// The filter's configuration.
pub(super) fn convert(problems: &mut Problems, proto: proto::TcpProxy) -> Option<TcpProxy> {
    let proto::TcpProxy {
        stat_prefix,
        on_demand,
        metadata_match,
        idle_timeout,
        downstream_idle_timeout,
        upstream_idle_timeout,
        access_log,
        max_connect_attempts,
        backoff_options,
        hash_policy,
        tunneling_config,
        max_downstream_connection_duration,
        max_downstream_connection_duration_jitter_percentage,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
        proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy: _, // of proxy_protocol_tlvs, which is refused
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
        cluster_specifier,
    } = proto;
    unsupported!(problems;
        on_demand, downstream_idle_timeout, upstream_idle_timeout, backoff_options,
        tunneling_config, proxy_protocol_tlvs, max_early_data_bytes);
    if boolean(check_drain_close, false) {
        problems.unsupported("check_drain_close", true);
    }
    if enumeration(problems, "upstream_connect_mode", upstream_connect_mode).is_some_and(
        |mode: proto::UpstreamConnectMode| mode != proto::UpstreamConnectMode::Immediate,
    ) {
        problems.unsupported("upstream_connect_mode", true);
    }
    let stat_prefix = text(problems, "stat_prefix", stat_prefix);
    let metadata_match = subset::criteria(metadata_match, None);
    let clusters = match cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            let cluster = Arc::from(text(problems, "cluster", name));
            Some(vec![Target { cluster, weight: 1, metadata_match }])
        }
        Some(ClusterSpecifier::WeightedClusters(proto)) => problems
            .field("weighted_clusters", |problems| {
                weighted(problems, proto, metadata_match.as_ref())
            }),
        None => {
            problems.reject("one of cluster, weighted_clusters is required");
            None
        }
    };
    let max_downstream_connection_duration = positive_duration(
        problems,
        "max_downstream_connection_duration",
        max_downstream_connection_duration,
    );
    let duration_jitter = max_downstream_connection_duration_jitter_percentage.map(|percent| {
        if !(0.0..=100.0).contains(&percent.value) {
            let name = "max_downstream_connection_duration_jitter_percentage";
            problems.reject_field(name, format!("{} is out of range: 0 to 100", percent.value));
        }
        percent.value / 100.0
    });
    let idle_timeout = limit(problems, "idle_timeout", idle_timeout, Some(DEFAULT_IDLE));
    let max_connect_attempts =
        number_in(problems, "max_connect_attempts", max_connect_attempts, 1..=u32::MAX)
            .unwrap_or(1);
    let hash_source_ip = hashes_source_ip(problems, hash_policy);
    let access_logs = access_log::convert(problems, "access_log", access_log);
    let log_options = log_options(
        problems,
        access_log_options,
        access_log_flush_interval,
        flush_access_log_on_connected,
    );
    Some(TcpProxy {
        stat_prefix: stat_prefix.into(),
        clusters: clusters?,
        idle_timeout,
        max_downstream_connection_duration,
        duration_jitter: duration_jitter.unwrap_or(0.0),
        hash_source_ip,
        max_connect_attempts,
        access_logs,
        log_options,
    })
}

/// When logs are written; two of the fields stood in the filter itself before there was a message of their own.
fn log_options(
    problems: &mut Problems,
    options: Option<TcpAccessLogOptions>,
    old_interval: Option<DurationProto>,
    old_on_connected: bool,
) -> LogOptions {
    let Some(options) = options else {
        let interval = access_log::interval(problems, old_interval);
        return LogOptions { on_start: false, on_connected: old_on_connected, interval };
    };
    for (name, is_set) in [
        ("access_log_flush_interval", old_interval.is_some()),
        ("flush_access_log_on_connected", old_on_connected),
    ] {
        if is_set {
            problems.reject_field(name, "access_log_options must hold it, where they are given");
        }
    }
    problems.field("access_log_options", |problems| {
        let TcpAccessLogOptions {
            access_log_flush_interval,
            flush_access_log_on_connected,
            flush_access_log_on_start,
        } = options;
        LogOptions {
            on_start: flush_access_log_on_start,
            on_connected: flush_access_log_on_connected,
            interval: access_log::interval(problems, access_log_flush_interval),
        }
    })
}

/// There may be one policy.
fn hashes_source_ip(problems: &mut Problems, protos: Vec<HashPolicy>) -> bool {
    if protos.len() > 1 {
        problems.reject_field("hash_policy", "must have at most one entry");
    }
    let Some(HashPolicy { policy_specifier }) = protos.into_iter().next() else { return false };
    problems.element("hash_policy", 0, |problems| match policy_specifier {
        Some(PolicySpecifier::SourceIp(SourceIp {})) => true,
        Some(PolicySpecifier::FilterState(_)) => {
            problems.unsupported("filter_state", true);
            false
        }
        None => {
            problems.reject_field("source_ip", "required");
            false
        }
    })
}

fn weighted(
    problems: &mut Problems,
    proto: WeightedCluster,
    of_proxy: Option<&Arc<MetadataCriteria>>,
) -> Option<Vec<Target>> {
    let WeightedCluster { clusters } = proto;
    if clusters.is_empty() {
        problems.reject_field("clusters", "must have at least one entry");
        return None;
    }
    let clusters = clusters
        .into_iter()
        .enumerate()
        .map(|(index, proto)| {
            problems.element("clusters", index, |problems| {
                let ClusterWeight { name, weight, metadata_match } = proto;
                let metadata_match =
                    subset::criteria(metadata_match, of_proxy).or_else(|| of_proxy.cloned());
                if weight == 0 {
                    problems.reject_field("weight", "must be at least 1");
                }
                let cluster = Arc::from(text(problems, "name", name));
                Target { cluster, weight, metadata_match }
            })
        })
        .collect::<Vec<_>>();
    let sum: u64 = clusters.iter().map(|target| u64::from(target.weight)).sum();
    if sum > u64::from(u32::MAX) {
        problems.reject_field("clusters", format!("the weights sum up to {sum}: too much"));
    }
    Some(clusters)
}
