//! Every field that is not supported is refused under its own path.

use serde_json::{Value, json};

use super::harness::{refusal, refused, refused_at};

const UNSUPPORTED: &str = "not supported by this version of Outrigger";

fn any(name: &str) -> Value {
    json!({"@type": format!("type.googleapis.com/{name}")})
}

fn extension() -> Value {
    json!({"name": "x", "typed_config": any("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer")})
}

/// Each field of a message at `place`, set to a value that would mean something, is refused under its own path.
#[track_caller]
fn all(place: &str, fields: &[(&str, Value)]) {
    let wrong: Vec<String> = fields
        .iter()
        .filter_map(|(field, value)| {
            let path =
                if place.is_empty() { (*field).to_owned() } else { format!("{place}.{field}") };
            refusal(&[(&path, value.clone())], &path, UNSUPPORTED).err()
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn matcher() -> Value {
    json!({"on_no_match": {"action": extension()}})
}

fn mirror() -> Value {
    json!([{"cluster": "static"}])
}

#[test]
fn fields_of_the_bootstrap() {
    all(
        "",
        &[
            ("node_context_params", json!(["a"])),
            ("hds_config", json!({"api_type": "GRPC"})),
            ("flags_path", json!("/flags")),
            ("watchdog", json!({"miss_timeout": "1s"})),
            ("watchdogs", json!({"worker_watchdog": {"miss_timeout": "1s"}})),
            ("tracing", json!({})),
            ("overload_manager", json!({})),
            ("header_prefix", json!("x-acme")),
            ("stats_server_version_override", json!(7)),
            ("use_tcp_for_dns_lookups", json!(true)),
            ("fatal_actions", json!([{"config": extension()}])),
            ("default_socket_interface", json!("a")),
            ("certificate_provider_instances", json!({"a": extension()})),
            ("perf_tracing_file_path", json!("/perf")),
            ("xds_delegate_extension", extension()),
            ("xds_config_tracker_extension", extension()),
            ("listener_manager", extension()),
            ("admin.access_log_path", json!("/var/log/admin.log")),
            ("admin.socket_options", json!([{"level": 1}])),
            ("admin.allow_paths", json!([{"exact": "/ready"}])),
            ("dynamic_resources.lds_resources_locator", json!("xdstp://a")),
            ("dynamic_resources.cds_resources_locator", json!("xdstp://a")),
        ],
    );
}

#[test]
fn fields_of_a_listener() {
    all(
        "LISTENER",
        &[
            ("fcds_config", json!({})),
            ("filter_chain_matcher", matcher()),
            ("per_connection_buffer_high_watermark_timeout", json!("1s")),
            ("tcp_fast_open_queue_length", json!(5)),
            ("udp_listener_config", json!({})),
            ("api_listener", json!({})),
            ("connection_balance_config", json!({"exact_balance": {}})),
            ("enable_mptcp", json!(true)),
            ("internal_listener", json!({})),
            ("listener_filters[0].typed_config.enable_ja3_fingerprinting", json!(true)),
            ("listener_filters[0].typed_config.max_client_hello_size", json!(1024)),
            (
                "listener_filters[0].typed_config.close_connection_on_client_hello_parsing_errors",
                json!(true),
            ),
            (
                "listener_filters[0].typed_config",
                any("envoy.extensions.filters.network.rbac.v3.RBAC"),
            ),
        ],
    );
    all(
        "CHAIN",
        &[
            ("use_proxy_proto", json!(true)),
            ("filter_chain_match.address_suffix", json!("a")),
            ("filter_chain_match.suffix_len", json!(1)),
            ("filter_chain_match.transport_protocol", json!("quic")),
            (
                "filters[0].typed_config",
                any("envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"),
            ),
        ],
    );
}

#[test]
fn fields_of_the_http_connection_manager() {
    all(
        "HCM",
        &[
            ("codec_type", json!("HTTP3")),
            ("http1_safe_max_connection_duration", json!(true)),
            ("http3_protocol_options", json!({})),
            ("stream_flush_timeout", json!("1s")),
            ("drain_timeout_jitter", json!({"value": 5})),
            ("access_log_flush_interval", json!("1s")),
            ("access_log_options.access_log_flush_interval", json!("1s")),
            ("access_log_options.flush_log_on_tunnel_successfully_established", json!(true)),
            ("forward_client_cert_matcher", matcher()),
            ("proxy_100_continue", json!(true)),
            ("represent_ipv4_remote_address_as_ipv4_mapped_ipv6", json!(true)),
            ("stream_error_on_invalid_http_message", json!(true)),
            ("path_normalization_options", json!({})),
            ("proxy_status_config", json!({})),
            ("typed_header_validation_config", extension()),
            ("append_x_forwarded_port", json!(true)),
            ("append_local_overload", json!(true)),
            ("forward_proto_config", json!({})),
            (
                "request_id_extension.typed_config",
                any("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"),
            ),
            ("set_current_client_cert_details.issuer", json!(true)),
            ("set_current_client_cert_details.format", json!("JSON")),
            ("upgrade_configs[0].filters", json!([{"name": "a"}])),
            ("upgrade_configs[0].upgrade_type", json!("CONNECT-UDP")),
            ("access_log[0].filter.extension_filter", json!({"name": "a"})),
            ("access_log[0].typed_config", any("envoy.extensions.filters.http.router.v3.Router")),
            ("access_log[1].typed_config.log_format.formatters", json!([extension()])),
            ("http_filters[0].typed_config", any("envoy.extensions.filters.http.lua.v3.Lua")),
        ],
    );
    all(
        "HCM",
        &[
            ("common_http_protocol_options.max_connection_duration_jitter", json!({"value": 5})),
            ("common_http_protocol_options.max_response_headers_kb", json!(5)),
            ("http_protocol_options.header_key_format.stateful_formatter", extension()),
            ("http_protocol_options.enable_trailers", json!(true)),
            ("http_protocol_options.override_stream_error_on_invalid_http_message", json!(true)),
            ("http_protocol_options.send_fully_qualified_url", json!(true)),
            ("http2_protocol_options.allow_metadata", json!(true)),
            ("http2_protocol_options.max_outbound_frames", json!(1)),
            ("http2_protocol_options.max_outbound_control_frames", json!(1)),
            ("http2_protocol_options.max_consecutive_inbound_frames_with_empty_payload", json!(1)),
            ("http2_protocol_options.max_inbound_priority_frames_per_stream", json!(1)),
            (
                "http2_protocol_options.max_inbound_window_update_frames_per_data_frame_sent",
                json!(1),
            ),
            (
                "http2_protocol_options.custom_settings_parameters",
                json!([{"identifier": 1, "value": 1}]),
            ),
            ("http2_protocol_options.stream_error_on_invalid_http_messaging", json!(true)),
            ("http2_protocol_options.override_stream_error_on_invalid_http_message", json!(true)),
            ("http2_protocol_options.max_header_field_size_kb", json!(1)),
            ("http2_protocol_options.disallow_obs_text", json!(true)),
            ("http2_protocol_options.stream_reset_burst", json!(1)),
            ("http2_protocol_options.stream_reset_rate", json!(1)),
            ("http2_protocol_options.connection_keepalive.connection_idle_interval", json!("1s")),
        ],
    );
    all(
        "ROUTER",
        &[
            ("start_child_span", json!(true)),
            ("upstream_log", json!([{"name": "a"}])),
            ("upstream_http_filters", json!([{"name": "a"}])),
        ],
    );
}

#[test]
fn filters_of_local_replies() {
    for filter in ["extension_filter", "log_type_filter"] {
        let config = json!({"mappers": [{"filter": {filter: {}}}]});
        refused_at(
            &[("HCM.local_reply_config", config)],
            &format!("HCM.local_reply_config.mappers[0].filter.{filter}"),
            UNSUPPORTED,
        );
    }
}

#[test]
fn fields_of_access_control() {
    all(
        "RBAC",
        &[
            ("rules.audit_logging_options", json!({})),
            ("rules.policies[web].condition", json!({"id": 1})),
            ("rules.policies[web].checked_condition", json!({})),
            ("rules.policies[web].cel_config", json!({})),
        ],
    );
    refused_at(
        &[("RBAC.rules.policies[web].permissions[0]", json!({"matcher": extension()}))],
        "RBAC.rules.policies[web].permissions[0].matcher",
        UNSUPPORTED,
    );
    refused_at(
        &[("RBAC.rules.policies[web].principals[0]", json!({"custom": extension()}))],
        "RBAC.rules.policies[web].principals[0].custom",
        UNSUPPORTED,
    );
}

#[test]
fn fields_of_routes() {
    all(
        "ROUTES",
        &[
            ("vhds", json!({"config_source": {"path_config_source": {"path": "/"}}})),
            ("cluster_specifier_plugins", json!([{"extension": extension()}])),
            ("vhost_header", json!("x-host")),
            ("ignore_path_parameters_in_path_matching", json!(true)),
            ("route_specifiers", json!([extension()])),
        ],
    );
    all(
        "HOST",
        &[
            ("matcher", matcher()),
            ("virtual_clusters", json!([{"name": "a"}])),
            ("cors", json!({})),
            (
                "retry_policy_typed_config",
                any("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"),
            ),
            ("hedge_policy.initial_requests", json!(2)),
            ("route_specifiers", json!([extension()])),
        ],
    );
    all(
        "ROUTE",
        &[
            ("route_specifiers", json!([extension()])),
            ("match.cookies", json!([{"name": "a", "string_match": {"exact": "b"}}])),
            ("match.tls_context", json!({"presented": true})),
            (
                "typed_per_filter_config[lua]",
                any("envoy.extensions.filters.http.lua.v3.LuaPerRoute"),
            ),
        ],
    );
    all(
        "ACTION",
        &[
            ("path_rewrite", json!("/a")),
            ("flush_timeout", json!("1s")),
            ("early_data_policy", extension()),
            (
                "retry_policy_typed_config",
                any("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"),
            ),
            ("cors", json!({})),
            ("internal_redirect_action", json!("HANDLE_INTERNAL_REDIRECT")),
            ("hedge_policy.additional_request_chance", json!({"numerator": 1})),
            ("weighted_clusters.use_hash_policy", json!(true)),
            ("retry_policy.retry_priority", json!({"name": "a"})),
            ("retry_policy.retry_options_predicates", json!([extension()])),
            ("retry_policy.refresh_cluster_on_retry", json!(true)),
            (
                "retry_policy.retry_host_predicate[0].typed_config",
                any("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"),
            ),
        ],
    );
    let connect =
        json!({"upgrade_type": "CONNECT", "connect_config": {"proxy_protocol_config": {}}});
    refused_at(
        &[("ACTION.upgrade_configs[1]", connect)],
        "ACTION.upgrade_configs[1].connect_config.proxy_protocol_config",
        UNSUPPORTED,
    );
    refused("DIRECT.body_format", json!({"text_format": "a"}), UNSUPPORTED);
    for (path, oneof, field) in [
        ("HOST.routes[0]", json!({"match": {"prefix": "/"}, "filter_action": {}}), "filter_action"),
        (
            "HOST.routes[0]",
            json!({"match": {"prefix": "/"}, "non_forwarding_action": {}}),
            "non_forwarding_action",
        ),
        ("ACTION", json!({"cluster_specifier_plugin": "a"}), "cluster_specifier_plugin"),
        (
            "ACTION",
            json!({"inline_cluster_specifier_plugin": {"extension": extension()}}),
            "inline_cluster_specifier_plugin",
        ),
        ("REWRITE", json!({"cluster": "dns", "host_rewrite": "a"}), "host_rewrite"),
        ("REDIRECT", json!({"path_rewrite": "a"}), "path_rewrite"),
    ] {
        refused_at(&[(path, oneof)], &format!("{path}.{field}"), UNSUPPORTED);
    }
}

#[test]
fn fields_of_filters() {
    let filter = |name: &str, mut fields: Value, field: &str, value: Value| {
        fields["@type"] =
            format!("type.googleapis.com/envoy.extensions.filters.http.{name}").into();
        let path = format!("HCM.http_filters[0].typed_config.{field}");
        let filter = json!({"name": "f", "typed_config": fields});
        refused_at(&[("HCM.http_filters[0]", filter), (&path, value)], &path, UNSUPPORTED);
    };
    filter("fault.v3.HTTPFault", json!({}), "filter_metadata", json!({"a": 1}));
    for (field, value) in [
        ("query_parameter_mutations", json!([{"remove": "a"}])),
        ("response_trailers_mutations", json!([{"remove": "a"}])),
        ("request_trailers_mutations", json!([{"remove": "a"}])),
    ] {
        let field = format!("mutations.{field}");
        filter("header_mutation.v3.HeaderMutation", json!({"mutations": {}}), &field, value);
    }
    for (field, value) in [
        ("local_rate_limit_per_downstream_connection", json!(true)),
        ("local_cluster_rate_limit", json!({})),
    ] {
        let config = json!({"stat_prefix": "a"});
        filter("local_ratelimit.v3.LocalRateLimit", config, field, value);
    }
}

#[test]
fn fields_of_the_tcp_proxy() {
    all(
        "TCP",
        &[
            ("on_demand", json!({})),
            ("downstream_idle_timeout", json!("1s")),
            ("upstream_idle_timeout", json!("1s")),
            ("backoff_options", json!({"base_interval": "1s"})),
            ("tunneling_config", json!({"hostname": "a"})),
            ("proxy_protocol_tlvs", json!([{"type": 1}])),
            ("upstream_connect_mode", json!("ON_DOWNSTREAM_DATA")),
            ("max_early_data_bytes", json!(1)),
            ("check_drain_close", json!(true)),
        ],
    );
}

#[test]
fn fields_of_a_cluster() {
    all(
        "CLUSTER",
        &[
            ("transport_socket_matcher", matcher()),
            ("per_connection_buffer_high_watermark_timeout", json!("1s")),
            ("dns_resolvers", json!([{}])),
            ("use_tcp_for_dns_lookups", json!(true)),
            ("dns_resolution_config", json!({"resolvers": [{}]})),
            ("wait_for_warm_on_init", json!(false)),
            ("lrs_report_endpoint_metrics", json!(["a"])),
            ("upstream_config", extension()),
            ("preconnect_policy", json!({})),
            ("connection_pool_per_downstream_connection", json!(true)),
            ("queuing_policies", json!({})),
            ("common_lb_config.override_host_status", json!({})),
            ("circuit_breakers.per_host_thresholds", json!([{}])),
            ("circuit_breakers.thresholds[0].max_connection_pools", json!(1)),
            ("circuit_breakers.thresholds[1].retry_budget.budget_interval", json!("1s")),
            ("outlier_detection.monitors", json!([extension()])),
            ("outlier_detection.detect_degraded_hosts", json!(true)),
            (
                "upstream_connection_options.set_local_interface_name_on_upstream_connections",
                json!(true),
            ),
            ("load_assignment.named_endpoints", json!({"a": {}})),
            ("load_assignment.policy.endpoint_stale_after", json!("1s")),
            ("load_assignment.endpoints[0].leds_cluster_locality_config", json!({})),
        ],
    );
    refused_at(
        &[
            ("CLUSTER.type", json!(null)),
            ("CLUSTER.cluster_type", json!({"name": "envoy.clusters.aggregate"})),
        ],
        "CLUSTER.cluster_type",
        UNSUPPORTED,
    );
    refused_at(
        &[(
            "ENDPOINT.endpoint.address",
            json!({"envoy_internal_address": {"server_listener_name": "a"}}),
        )],
        "ENDPOINT.endpoint.address.envoy_internal_address",
        UNSUPPORTED,
    );
    all(
        "ENDPOINT.endpoint.address.socket_address",
        &[
            ("protocol", json!("UDP")),
            ("resolver_name", json!("a")),
            ("ipv4_compat", json!(true)),
            ("network_namespace_filepath", json!("/a")),
        ],
    );
    refused_at(
        &[(
            "ENDPOINT.endpoint.address.socket_address",
            json!({"address": "127.0.0.1", "named_port": "http"}),
        )],
        "ENDPOINT.endpoint.address.socket_address.named_port",
        UNSUPPORTED,
    );
}

#[test]
fn fields_of_upstream_http() {
    all(
        "HTTP",
        &[
            ("http_filters", json!([{"name": "a"}])),
            ("header_validation_config", extension()),
            ("outlier_detection", json!({})),
            ("request_mirror_policies", mirror()),
            ("retry_policy", json!({})),
            ("common_http_protocol_options.max_stream_duration", json!("1s")),
            ("common_http_protocol_options.headers_with_underscores_action", json!("DROP_HEADER")),
            ("upstream_http_protocol_options.auto_san_validation", json!(true)),
            ("upstream_http_protocol_options.override_auto_sni_header", json!("a")),
        ],
    );
    refused_at(
        &[("HTTP.explicit_http_config", json!({"http3_protocol_options": {}}))],
        "HTTP.explicit_http_config.http3_protocol_options",
        UNSUPPORTED,
    );
}

#[test]
fn fields_of_tls() {
    all(
        "DOWNSTREAM",
        &[
            ("require_sni", json!(true)),
            ("session_timeout", json!("1s")),
            ("ocsp_staple_policy", json!("MUST_STAPLE")),
            ("full_scan_certs_on_sni_mismatch", json!(true)),
            ("prefer_client_ciphers", json!(true)),
            ("session_ticket_keys", json!({"keys": [{"inline_string": "a"}]})),
            ("session_ticket_keys_sds_secret_config", json!({"name": "a"})),
            ("common_tls_context.tls_certificate_provider_instance", json!({"instance_name": "a"})),
            ("common_tls_context.custom_tls_certificate_selector", extension()),
            ("common_tls_context.tls_certificate_certificate_provider", json!({"name": "a"})),
            ("common_tls_context.tls_certificate_certificate_provider_instance", json!({})),
            ("common_tls_context.custom_handshaker", extension()),
            ("common_tls_context.key_log", json!({"path": "/a"})),
            ("common_tls_context.tls_params.signature_algorithms", json!(["rsa_pkcs1_sha256"])),
            ("common_tls_context.tls_params.compliance_policies", json!(["FIPS_202205"])),
        ],
    );
    all(
        "UPSTREAM",
        &[
            ("auto_host_sni", json!(true)),
            ("auto_sni_san_validation", json!(true)),
            ("allow_renegotiation", json!(true)),
        ],
    );
    all(
        "static_resources.secrets[0].tls_certificate",
        &[
            ("pkcs12", json!({"inline_string": "a"})),
            ("watched_directory", json!({"path": "/a"})),
            ("private_key_provider", json!({"provider_name": "a"})),
            ("password", json!({"inline_string": "a"})),
            ("ocsp_staple", json!({"inline_string": "a"})),
            ("signed_certificate_timestamp", json!([{"inline_string": "a"}])),
            ("tls_params", json!({})),
        ],
    );
    all(
        "static_resources.secrets[1].validation_context",
        &[
            ("ca_certificate_provider_instance", json!({"instance_name": "a"})),
            ("system_root_certs", json!({})),
            ("watched_directory", json!({"path": "/a"})),
            ("require_signed_certificate_timestamp", json!(true)),
            ("custom_validator_config", extension()),
            ("max_verify_depth", json!(1)),
        ],
    );
}

#[test]
fn fields_of_filters_that_note_something() {
    let filter = |name: &str, field: Value| {
        let mut config = any(&format!("envoy.extensions.filters.http.{name}.v3.Config"));
        config
            .as_object_mut()
            .expect("an object")
            .extend(field.as_object().cloned().expect("fields"));
        json!({"name": "x", "typed_config": config})
    };
    let format = json!({"text_format_source": {"inline_string": "a"}});
    for (filter, field, reason) in [
        (
            filter(
                "set_metadata",
                json!({"metadata": [{"metadata_namespace": "a", "typed_value": any("envoy.extensions.filters.http.router.v3.Router")}]}),
            ),
            "metadata[0].typed_value",
            UNSUPPORTED,
        ),
        (
            filter(
                "set_filter_state",
                json!({"on_request_headers": [{
                "object_key": "a", "factory_key": "envoy.string", "format_string": format, "read_only": true}]}),
            ),
            "on_request_headers[0].read_only",
            UNSUPPORTED,
        ),
        (
            filter(
                "set_filter_state",
                json!({"on_request_headers": [{
                "object_key": "a", "factory_key": "envoy.string", "format_string": format,
                "shared_with_upstream": "ONCE"}]}),
            ),
            "on_request_headers[0].shared_with_upstream",
            UNSUPPORTED,
        ),
        (
            filter(
                "set_filter_state",
                json!({"on_request_headers": [{
                "object_key": "envoy.tcp_proxy.cluster", "format_string": format}]}),
            ),
            "on_request_headers[0].object_key",
            "which has factory_key envoy.string",
        ),
        (
            filter(
                "set_filter_state",
                json!({"on_request_headers": [{
                "object_key": "a", "factory_key": "envoy.string",
                "format_string": {"json_format": {"a": "b"}}}]}),
            ),
            "on_request_headers[0].format_string.json_format",
            UNSUPPORTED,
        ),
    ] {
        refused_at(
            &[("HCM.http_filters[0]", filter)],
            &format!("HCM.http_filters[0].typed_config.{field}"),
            reason,
        );
    }
}
