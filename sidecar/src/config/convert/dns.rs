//! Clusters whose endpoints are resolved: types STRICT_DNS and LOGICAL_DNS, and the cluster type `envoy.cluster.dns`.

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::envoy::config::cluster::v3::cluster::{self as parts, DnsLookupFamily};
use outrigger_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_proto::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily as TypedFamily;
use outrigger_proto::envoy::extensions::clusters::dns::v3::DnsCluster;
use outrigger_proto::envoy::extensions::clusters::dns::v3::dns_cluster;
use outrigger_proto::google::protobuf::Duration as DurationProto;

use crate::config::Problems;
use crate::config::cluster::{Dns, DnsFamily, DnsPace};
use crate::config::endpoint::LoadAssignment;

use super::common::{duration, enumeration, positive_duration, required};
use super::endpoint::{self, Hosts};

/// Between two lookups of a name where nothing is set.
const DEFAULT_REFRESH: Duration = Duration::from_secs(5);
/// Envoy refuses lookups more often than this.
const MIN_REFRESH: Duration = Duration::from_millis(1);
/// The least that may be set as the least time to live.
const MIN_TTL: Duration = Duration::from_secs(1);

/// What the fields of a cluster say of the lookup.
pub(super) struct Legacy {
    pub(super) refresh_rate: Option<DurationProto>,
    pub(super) failure_refresh_rate: Option<parts::RefreshRate>,
    pub(super) respect_ttl: bool,
    pub(super) jitter: Option<DurationProto>,
    pub(super) family: i32,
}

/// A cluster of type STRICT_DNS, or `logical`.
pub(super) fn legacy(
    problems: &mut Problems,
    assignment: Option<ClusterLoadAssignment>,
    dns: Legacy,
    logical: bool,
) -> Option<Dns> {
    let Legacy { refresh_rate, failure_refresh_rate, respect_ttl, jitter, family } = dns;
    let assignment = names(problems, assignment, logical);
    let refresh_rate = refresh(problems, refresh_rate);
    let jitter = duration(problems, "dns_jitter", jitter);
    let family = match enumeration(problems, "dns_lookup_family", family)? {
        DnsLookupFamily::Auto => DnsFamily::Auto,
        DnsLookupFamily::V4Only => DnsFamily::V4Only,
        DnsLookupFamily::V6Only => DnsFamily::V6Only,
        DnsLookupFamily::V4Preferred => DnsFamily::V4Preferred,
        DnsLookupFamily::All => DnsFamily::All,
    };
    let failure_refresh = failure_refresh_rate.and_then(|proto| {
        let parts::RefreshRate { base_interval, max_interval } = proto;
        failure_refresh(problems, base_interval, max_interval)
    });
    let pace = DnsPace {
        refresh_rate,
        respect_ttl,
        min_ttl: Duration::ZERO,
        jitter: jitter.unwrap_or_default(),
        failure_refresh,
    };
    Some(Dns { assignment: assignment?, logical, family, pace })
}

/// `envoy.extensions.clusters.dns.v3.DnsCluster`. The fields of the cluster say nothing then.
pub(super) fn typed(
    problems: &mut Problems,
    assignment: Option<ClusterLoadAssignment>,
    proto: DnsCluster,
) -> Option<Dns> {
    let DnsCluster {
        dns_refresh_rate,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_jitter,
        typed_dns_resolver_config: _, // which resolver library; there is one here
        dns_lookup_family,
        all_addresses_in_single_endpoint: logical,
        dns_min_refresh_rate,
    } = proto;
    let pace = problems.field("cluster_type", |problems| {
        problems.field("typed_config", |problems| {
            let min_ttl = duration(problems, "dns_min_refresh_rate", dns_min_refresh_rate);
            if min_ttl.is_some_and(|least| least < MIN_TTL) {
                problems.reject_field("dns_min_refresh_rate", "must be 1 s or more");
            }
            let refresh_rate = refresh(problems, dns_refresh_rate);
            let jitter = duration(problems, "dns_jitter", dns_jitter).unwrap_or_default();
            let failure_refresh = dns_failure_refresh_rate.and_then(|proto| {
                let dns_cluster::RefreshRate { base_interval, max_interval } = proto;
                failure_refresh(problems, base_interval, max_interval)
            });
            let family = match enumeration(problems, "dns_lookup_family", dns_lookup_family)? {
                TypedFamily::Auto | TypedFamily::Unspecified => DnsFamily::Auto,
                TypedFamily::V4Only => DnsFamily::V4Only,
                TypedFamily::V6Only => DnsFamily::V6Only,
                TypedFamily::V4Preferred => DnsFamily::V4Preferred,
                TypedFamily::All => DnsFamily::All,
            };
            let pace = DnsPace {
                refresh_rate,
                respect_ttl: respect_dns_ttl,
                min_ttl: min_ttl.unwrap_or_default(),
                jitter,
                failure_refresh,
            };
            Some((family, pace))
        })
    });
    let assignment = names(problems, assignment, logical);
    let (family, pace) = pace?;
    Some(Dns { assignment: assignment?, logical, family, pace })
}

/// Host names in the place of addresses; of a logical cluster there is one.
fn names(
    problems: &mut Problems,
    assignment: Option<ClusterLoadAssignment>,
    logical: bool,
) -> Option<Arc<LoadAssignment>> {
    let mut proto = required(problems, "load_assignment", assignment)?;
    if logical {
        let single = matches!(&*proto.endpoints, [only] if only.lb_endpoints.len() == 1);
        if !single {
            problems.reject_field(
                "load_assignment",
                "must have one locality with one endpoint: all addresses of a name are one endpoint here",
            );
        }
        // There is no other priority, and Envoy does not mind which it is said to be.
        proto.endpoints.iter_mut().for_each(|locality| locality.priority = 0);
    }
    Some(Arc::new(
        problems
            .field("load_assignment", |problems| endpoint::convert(problems, proto, Hosts::Names)),
    ))
}

/// The field `dns_refresh_rate`.
fn refresh(problems: &mut Problems, proto: Option<DurationProto>) -> Duration {
    let rate = duration(problems, "dns_refresh_rate", proto);
    if rate.is_some_and(|rate| rate < MIN_REFRESH) {
        problems.reject_field("dns_refresh_rate", "must be 1 ms or more");
    }
    rate.unwrap_or(DEFAULT_REFRESH)
}

/// The field `dns_failure_refresh_rate`.
pub(super) fn failure_refresh(
    problems: &mut Problems,
    base: Option<DurationProto>,
    max: Option<DurationProto>,
) -> Option<(Duration, Duration)> {
    problems.field("dns_failure_refresh_rate", |problems| {
        let base = required(problems, "base_interval", base)?;
        let base = positive_duration(problems, "base_interval", Some(base))?;
        let max = positive_duration(problems, "max_interval", max)
            .unwrap_or_else(|| base.saturating_mul(10));
        if max < base {
            problems.reject_field("max_interval", "must not be less than base_interval");
        }
        Some((base, max))
    })
}
