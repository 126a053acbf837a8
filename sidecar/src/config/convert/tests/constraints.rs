//! What Envoy's constraints refuse although it could be understood.

use serde_json::{Value, json};

use super::harness::{accepted, refused_at};

const EARLY: &str = "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation";
const DETECTION: &str = "type.googleapis.com/envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig";
const SAFE: &str = "type.googleapis.com/envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig";
const ROUND_ROBIN: &str =
    "type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin";
const TEMPLATE: &str =
    "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig";
const TRACER: &str = "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig";

/// `value` is accepted at `place`, and refused at `place.path` once what is there is removed.
#[track_caller]
fn needs(place: &str, value: &Value, path: &str) {
    accepted(&[(place, value.clone())]);
    let path = format!("{place}{path}");
    refused_at(&[(place, value.clone()), (&path, Value::Null)], &path, "");
}

#[test]
fn an_extension_has_a_name_though_its_type_says_which_it_is() {
    for path in [
        "LISTENER.listener_filters[0].name",
        "MUTUAL.transport_socket.name",
        "ACTION.retry_policy.retry_host_predicate[0].name",
        "CLUSTER.transport_socket_matches[0].transport_socket.name",
    ] {
        refused_at(&[(path, Value::Null)], path, "must not be empty");
    }
    needs(
        "HCM.early_header_mutation_extensions",
        &json!([{"name": "e", "typed_config": {"@type": EARLY, "mutations": [{"remove": "x-a"}]}}]),
        "[0].name",
    );
    needs(
        "ACTION.internal_redirect_policy",
        &json!({"predicates": [{"name": "p", "typed_config": {"@type": SAFE}}]}),
        ".predicates[0].name",
    );
    needs(
        "DNS.load_balancing_policy",
        &json!({"policies": [{"typed_extension_config": {"name": "p", "typed_config": {"@type": ROUND_ROBIN}}}]}),
        ".policies[0].typed_extension_config.name",
    );
    needs(
        "HOST.routes[2].match",
        &json!({"path_match_policy": {"name": "p", "typed_config": {"@type": TEMPLATE, "path_template": "/a/{b}"}}}),
        ".path_match_policy.name",
    );
    let service = json!({"envoy_grpc": {"cluster_name": "static"}});
    needs(
        "HCM.tracing",
        &json!({"provider": {"name": "p", "typed_config": {"@type": TRACER, "grpc_service": service}}}),
        ".provider.name",
    );
}

#[test]
fn a_tracer_has_someone_to_tell() {
    refused_at(
        &[("HCM.tracing", json!({"provider": {"name": "p", "typed_config": {"@type": TRACER}}}))],
        "HCM.tracing.provider.typed_config",
        "one of grpc_service, http_service is required",
    );
}

#[test]
fn a_tag_says_whose_metadata_it_shows_if_it_says_anything_of_that() {
    let tags = |metadata: Value| json!({"custom_tags": [{"tag": "t", "metadata": metadata}]});
    let key = json!({"key": "a", "path": [{"key": "b"}]});
    accepted(&[("HCM.tracing", tags(json!({"metadata_key": key})))]);
    refused_at(
        &[("HCM.tracing", tags(json!({"kind": {}, "metadata_key": key})))],
        "HCM.tracing.custom_tags[0].metadata.kind",
        "one of",
    );
}

#[test]
fn a_status_is_one_of_the_enumeration() {
    let detection = |status: Value| json!([{"name": "d", "typed_config": {"@type": DETECTION, "header_name": "x-a", "reject_with_status": status}}]);
    let place = "HCM.original_ip_detection_extensions";
    let base = [("HCM.use_remote_address", Value::Null), ("HCM.xff_num_trusted_hops", Value::Null)];
    let with = |status: Value| [base[0].clone(), base[1].clone(), (place, detection(status))];
    accepted(&with(json!({"code": "Continue"})));
    for status in [json!({}), json!({"code": 0}), json!({"code": 299})] {
        let path = format!("{place}[0].typed_config.reject_with_status.code");
        refused_at(&with(status), &path, "is not one of the values");
    }
}

#[test]
fn a_weighted_cluster_has_a_weight() {
    let path = "ACTION.weighted_clusters.clusters[0].weight";
    refused_at(&[(path, Value::Null)], path, "required");
    accepted(&[(path, json!(0))]);
}

#[test]
fn a_transport_socket_match_has_a_transport_socket() {
    let path = "CLUSTER.transport_socket_matches[0].transport_socket";
    refused_at(&[(path, Value::Null)], path, "required");
}

#[test]
fn a_mirror_leads_to_a_cluster_that_is_there_if_its_list_is_the_one_that_counts() {
    let known = json!([{"cluster": "static"}]);
    let unknown = json!([{"cluster": "nowhere"}]);
    let reason = "there is no cluster \"nowhere\"";
    for place in ["ACTION", "HOST", "ROUTES"] {
        let list = format!("{place}.request_mirror_policies");
        let cluster = format!("{list}[0].cluster");
        refused_at(&[(&list, unknown.clone())], &cluster, reason);
        let unchecked = ("ROUTES.validate_clusters", json!(false));
        accepted(&[(&list, unknown.clone()), unchecked]);
    }
    accepted(&[
        ("ROUTES.request_mirror_policies", unknown),
        ("HOST.request_mirror_policies", known.clone()),
        ("ROUTES.virtual_hosts[1].request_mirror_policies", known),
    ]);
}

#[test]
fn a_tag_of_statistics_says_where_its_value_comes_from_unless_it_is_one_of_envoys() {
    let tags = |tag: Value| json!({"stats_tags": [tag]});
    accepted(&[("stats_config", tags(json!({"tag_name": "envoy.cluster_name"})))]);
    for tag in [json!({"tag_name": "mine"}), json!({"tag_name": "mine", "regex": ""})] {
        refused_at(&[("stats_config", tags(tag))], "stats_config.stats_tags[0].regex", "required");
    }
}

#[test]
fn what_is_zero_or_nameless_may_mean_that_there_is_none() {
    let duration =
        json!({"duration_filter": {"comparison": {"op": "GE", "value": {"default_value": 1}}}});
    accepted(&[("HCM.access_log[0].filter", duration)]);
    accepted(&[
        ("ROUTES.max_direct_response_body_size_bytes", json!(0)),
        ("DIRECT.body", json!({"inline_string": "x".repeat(5000)})),
    ]);
}
