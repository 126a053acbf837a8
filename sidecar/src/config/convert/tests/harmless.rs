//! What may be ignored, because ignoring it changes nothing that anyone could rely on: the list stands beside the fields in
//! the conversions, each with its reason.

use serde_json::{Value, json};

use super::harness::{changed, convert};

#[track_caller]
fn all(fields: &[(&str, Value)]) {
    let wrong: Vec<String> = fields
        .iter()
        .filter_map(|(path, value)| {
            let found = convert(changed(&[(path, value.clone())])).err()?;
            Some(format!("{path}: {}", found[0]))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn metadata() -> Value {
    json!({"filter_metadata": {"acme": {"owner": "team"}}})
}

fn resolver() -> Value {
    json!({"name": "a", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}})
}

#[test]
fn notes_for_people_and_control_planes() {
    all(&[
        ("LISTENER.metadata", metadata()),
        ("CHAIN.metadata", metadata()),
        ("ROUTES.metadata", metadata()),
        ("HOST.metadata", metadata()),
        ("ROUTE.metadata", metadata()),
        ("CLUSTER.metadata", metadata()),
        ("CLUSTER.load_assignment.endpoints[0].metadata", metadata()),
    ]);
}

#[test]
fn settings_of_statistics() {
    all(&[
        ("deferred_stat_options", json!({"enable_deferred_creation_stats": true})),
        ("enable_dispatcher_stats", json!(true)),
        ("ROUTE.stat_prefix", json!("a")),
        ("ROUTER.dynamic_stats", json!(false)),
        ("ROUTER.suppress_grpc_request_failure_code_stats", json!(true)),
        ("CLUSTER.lrs_server", json!({"self": {}})),
        ("CLUSTER.track_timeout_budgets", json!(true)),
        ("CLUSTER.track_cluster_stats", json!({"timeout_budgets": true})),
        ("RBAC.rules_stat_prefix", json!("a")),
        ("RBAC.shadow_rules_stat_prefix", json!("a")),
        ("RBAC.track_per_rule_stats", json!(true)),
        ("ENDPOINT.endpoint.observability_name", json!("a")),
    ]);
}

#[test]
fn how_envoy_does_what_we_do_in_our_own_way() {
    all(&[
        ("typed_dns_resolver_config", resolver()),
        ("inline_headers", json!([{"inline_header_name": "x-a"}])),
        ("grpc_async_client_manager_config", json!({})),
        ("memory_allocator_manager", json!({"bytes_to_release": 1})),
        ("cluster_manager.enable_deferred_cluster_creation", json!(true)),
        ("LISTENER.reuse_port", json!(true)),
        ("LISTENER.max_connections_to_accept_per_socket_event", json!(1)),
        ("LISTENER.listener_filters[0].typed_config.initial_read_buffer_size", json!(512)),
        ("HCM.http2_protocol_options.use_oghttp2_codec", json!(true)),
        ("HCM.http2_protocol_options.enable_huffman_encoding", json!(true)),
        ("HCM.http2_protocol_options.max_metadata_size", json!(1)),
        ("HCM.http2_protocol_options.connection_keepalive.interval_jitter", json!({"value": 5})),
        ("HCM.http_protocol_options.use_balsa_parser", json!(true)),
        ("HCM.http_protocol_options.allow_custom_methods", json!(true)),
        ("HCM.http_protocol_options.allow_absolute_url", json!(true)),
        ("CLUSTER.typed_dns_resolver_config", resolver()),
        ("CLUSTER.common_lb_config.update_merge_window", json!("1s")),
        ("UPSTREAM.enforce_rsa_key_usage", json!(true)),
        (
            "HCM.access_log[1].typed_config.log_format.json_format_options",
            json!({"sort_properties": true}),
        ),
        ("ROUTE.match.headers[0].string_match.safe_regex.google_re2", json!({})),
    ]);
}

#[test]
fn settings_of_what_is_not_there_and_so_cannot_be_set_wrongly() {
    all(&[
        ("HCM.internal_address_config", json!({})),
        ("HCM.add_proxy_protocol_connection_state", json!(false)),
        ("ACTION.max_internal_redirects", json!(3)),
        ("ACTION.weighted_clusters.total_weight", json!(100)),
        ("CLUSTER.cleanup_interval", json!("5s")),
        ("CLUSTER.load_assignment.endpoints[0].proximity", json!(1)),
        ("LISTENER.ignore_global_conn_limit", json!(true)),
        ("LISTENER.bypass_overload_manager", json!(true)),
        ("admin.ignore_global_conn_limit", json!(true)),
        ("admin.profile_path", json!("/profile")),
    ]);
}

#[test]
fn a_field_that_says_what_is_so_anyway() {
    all(&[
        ("LISTENER.use_original_dst", json!(false)),
        ("LISTENER.bind_to_port", json!(true)),
        ("LISTENER.transparent", json!(false)),
        ("HCM.add_user_agent", json!(false)),
        ("HCM.stream_error_on_invalid_http_message", json!(false)),
        ("CHAIN.use_proxy_proto", json!(false)),
        ("CHAIN.filter_chain_match.source_type", json!("ANY")),
        ("CLUSTER.wait_for_warm_on_init", json!(true)),
        ("DOWNSTREAM.require_sni", json!(false)),
        ("DOWNSTREAM.disable_stateless_session_resumption", json!(false)),
        ("ACTION.internal_redirect_action", json!("PASS_THROUGH_INTERNAL_REDIRECT")),
        ("TCP.check_drain_close", json!(false)),
    ]);
}
