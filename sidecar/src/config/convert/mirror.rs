//! `request_mirror_policies`, which may stand at three levels of the routes.

use std::sync::Arc;

use outrigger_proto::envoy::config::route::v3::route_action::RequestMirrorPolicy;

use crate::config::Problems;
use crate::config::mirror::{Mirror, MirrorCluster};

use super::common::{header_name, optional_header_value};
use super::http_filters::header_mutation;
use super::percent;

/// The field `request_mirror_policies`.
pub(super) fn convert(
    problems: &mut Problems,
    protos: Vec<RequestMirrorPolicy>,
) -> Vec<Arc<Mirror>> {
    let mirrors = protos.into_iter().enumerate().filter_map(|(index, proto)| {
        problems.element("request_mirror_policies", index, |problems| mirror(problems, proto))
    });
    mirrors.map(Arc::new).collect()
}

fn mirror(problems: &mut Problems, proto: RequestMirrorPolicy) -> Option<Mirror> {
    let RequestMirrorPolicy {
        cluster,
        cluster_header,
        runtime_fraction,
        trace_sampled: _, // of a span of its own, which a copy has not
        disable_shadow_host_suffix_append,
        request_headers_mutations,
        host_rewrite_literal,
    } = proto;
    let cluster = match (cluster.as_str(), cluster_header.as_str()) {
        ("", "") => {
            problems.reject("one of cluster, cluster_header is required");
            None
        }
        (name, "") => Some(MirrorCluster::Cluster(name.into())),
        ("", header) => header_name(problems, "cluster_header", header).map(MirrorCluster::Header),
        _ => {
            problems.reject_field("cluster_header", "cannot be set together with cluster");
            None
        }
    };
    let share =
        runtime_fraction.and_then(|proto| percent::runtime(problems, "runtime_fraction", proto));
    let host = optional_header_value(problems, "host_rewrite_literal", &host_rewrite_literal);
    let mutations = header_mutation::operations(
        problems,
        "request_headers_mutations",
        request_headers_mutations,
    );
    Some(Mirror {
        cluster: cluster?,
        share,
        append_suffix: !disable_shadow_host_suffix_append,
        host,
        mutations,
    })
}
