//! `envoy.filters.http.grpc_stats`

use std::collections::{HashMap, HashSet};

use outrigger_proto::envoy::config::core::v3::{GrpcMethodList, grpc_method_list::Service};
use outrigger_proto::envoy::extensions::filters::http::grpc_stats::v3 as proto;
use outrigger_proto::envoy::extensions::filters::http::grpc_stats::v3::filter_config::PerMethodStatSpecifier;

use crate::config::Problems;
use crate::config::grpc_stats::{GrpcMethods, GrpcStats};

use super::super::common::text;

/// The filter's configuration.
pub(in super::super) fn filter(problems: &mut Problems, proto: proto::FilterConfig) -> GrpcStats {
    let proto::FilterConfig {
        emit_filter_state,
        enable_upstream_stats,
        replace_dots_in_grpc_service_name,
        per_method_stat_specifier,
    } = proto;
    let methods = match per_method_stat_specifier {
        Some(PerMethodStatSpecifier::StatsForAllMethods(all)) if all.value => GrpcMethods::All,
        // As in Envoy 1.40.
        Some(PerMethodStatSpecifier::StatsForAllMethods(_)) | None => {
            GrpcMethods::Listed(HashMap::new())
        }
        Some(PerMethodStatSpecifier::IndividualMethodStatsAllowlist(list)) => problems
            .field("individual_method_stats_allowlist", |problems| {
                GrpcMethods::Listed(listed(problems, list))
            }),
    };
    GrpcStats {
        methods,
        replace_dots: replace_dots_in_grpc_service_name,
        upstream_time: enable_upstream_stats,
        emit_filter_state,
    }
}

fn listed(problems: &mut Problems, list: GrpcMethodList) -> HashMap<Box<str>, HashSet<Box<str>>> {
    let GrpcMethodList { services } = list;
    let mut listed: HashMap<Box<str>, HashSet<Box<str>>> = HashMap::new();
    for (index, Service { name, method_names }) in services.into_iter().enumerate() {
        problems.element("services", index, |problems| {
            let name = text(problems, "name", name);
            if method_names.is_empty() {
                problems.reject_field("method_names", "at least one is required");
            }
            let methods = listed.entry(name.into()).or_default();
            methods.extend(method_names.into_iter().map(Into::into));
        });
    }
    listed
}
