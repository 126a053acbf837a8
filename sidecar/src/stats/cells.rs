//! Every struct of cells, by the scope that owns it. Names and meanings are Envoy's.

use super::cell::{Counter, Gauge, ResponseCodes};
use super::derived::{cluster_responses, http_responses, listener_responses};
use super::grpc::GrpcCalls;
use super::histogram::Histogram;
use super::registry::{Cells, Metric, MetricKind, Sink};

/// Declares structs of cells. A field is named in Envoy's statistics as in Rust, or as the string behind its `=`.
macro_rules! cells {
    ($(
        $(#[$meta:meta])*
        pub(crate) struct $struct:ident $(, derived by $derived:path)? {
            counters: { $($counter:ident $(= $counter_name:literal)?),* $(,)? }
            gauges: { $($gauge:ident $(= $gauge_name:literal)?),* $(,)? }
            histograms: { $($histogram:ident $(= $histogram_name:literal)?),* $(,)? }
            $(hidden: { $($hidden:ident: $hidden_type:ty),* $(,)? })?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub(crate) struct $struct {
            $(pub(crate) $counter: Counter,)*
            $(pub(crate) $gauge: Gauge,)*
            $(pub(crate) $histogram: Histogram,)*
            $($(pub(crate) $hidden: $hidden_type,)*)?
        }

        impl Cells for $struct {
            const METRICS: &'static [Metric<Self>] = &[
                $(Metric {
                    name: cells!(@name $counter $($counter_name)?),
                    kind: MetricKind::Counter(|cells| &cells.$counter),
                },)*
                $(Metric {
                    name: cells!(@name $gauge $($gauge_name)?),
                    kind: MetricKind::Gauge(|cells| &cells.$gauge),
                },)*
                $(Metric {
                    name: cells!(@name $histogram $($histogram_name)?),
                    kind: MetricKind::Histogram(|cells| &cells.$histogram),
                },)*
            ];

            $(fn derived(shards: &[&Self], sink: &mut Sink<'_>) {
                $derived(shards, sink);
            })?
        }
    )*};
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
}

cells! {
    /// `cluster.NAME`: what requests and connections do there.
    ///
    /// A response that is not taken, because another attempt follows, is counted in `responses_retry`. All others, our own
    /// included, are counted in `responses_external` or `responses_internal` and times in the two histograms beside
    /// them; `upstream_rq_<code>`, `upstream_rq_<class>xx`, `upstream_rq_completed` and `upstream_rq_time` are their sums.
    pub(crate) struct ClusterCells, derived by cluster_responses {
        counters: {
            upstream_cx_total,
            upstream_cx_http1_total,
            upstream_cx_http2_total,
            upstream_cx_connect_fail,
            upstream_cx_connect_timeout,
            upstream_cx_connect_attempts_exceeded,
            upstream_cx_overflow,
            upstream_cx_idle_timeout,
            upstream_cx_max_duration_reached,
            upstream_cx_max_requests,
            upstream_cx_close_notify,
            upstream_cx_destroy,
            upstream_cx_destroy_local,
            upstream_cx_destroy_remote,
            upstream_cx_destroy_with_active_rq,
            upstream_cx_destroy_local_with_active_rq,
            upstream_cx_destroy_remote_with_active_rq,
            upstream_cx_none_healthy,
            upstream_cx_protocol_error,
            upstream_cx_rx_bytes_total,
            upstream_cx_tx_bytes_total,
            upstream_flow_control_paused_reading_total,
            upstream_flow_control_resumed_reading_total,
            upstream_flow_control_backed_up_total,
            upstream_flow_control_drained_total,
            upstream_rq_total,
            upstream_rq_cancelled,
            upstream_rq_maintenance_mode,
            upstream_rq_timeout,
            upstream_rq_per_try_timeout,
            upstream_rq_per_try_idle_timeout,
            upstream_rq_max_duration_reached,
            upstream_rq_rx_reset,
            upstream_rq_rx_reset_no_error,
            upstream_rq_tx_reset,
            upstream_rq_pending_total,
            upstream_rq_pending_overflow,
            upstream_rq_pending_failure_eject,
            upstream_rq_active_overflow,
            upstream_rq_retry,
            upstream_rq_retry_backoff_exponential,
            upstream_rq_retry_backoff_ratelimited,
            upstream_rq_retry_limit_exceeded,
            upstream_rq_retry_overflow,
            upstream_rq_retry_success,
            retry_or_shadow_abandoned,
            upstream_internal_redirect_failed_total,
            upstream_internal_redirect_succeeded_total,
            lb_healthy_panic,
            lb_local_cluster_not_ok,
            lb_recalculate_zone_structures,
            lb_subsets_created,
            lb_subsets_removed,
            lb_subsets_selected,
            lb_subsets_fallback,
            lb_subsets_fallback_panic,
            lb_zone_cluster_too_small,
            lb_zone_no_capacity_left,
            lb_zone_routing_all_directly,
            lb_zone_routing_cross_zone,
            lb_zone_routing_sampled,
            original_dst_host_invalid,
            http1_dropped_headers_with_underscores = "http1.dropped_headers_with_underscores",
            http2_goaway_sent = "http2.goaway_sent",
            http2_header_overflow = "http2.header_overflow",
            http2_keepalive_timeout = "http2.keepalive_timeout",
            http2_rx_messaging_error = "http2.rx_messaging_error",
            http2_rx_reset = "http2.rx_reset",
            http2_tx_reset = "http2.tx_reset",
            http2_stream_refused_errors = "http2.stream_refused_errors",
        }
        gauges: {
            upstream_cx_active,
            upstream_cx_rx_bytes_buffered,
            upstream_cx_tx_bytes_buffered,
            upstream_rq_active,
            upstream_rq_pending_active,
            http2_streams_active = "http2.streams_active",
        }
        histograms: {
            upstream_cx_connect_ms,
            upstream_cx_length_ms,
            upstream_rq_per_cx,
        }
        hidden: {
            responses_external: ResponseCodes,
            responses_internal: ResponseCodes,
            responses_retry: ResponseCodes,
            upstream_rq_time_external: Histogram,
            upstream_rq_time_internal: Histogram,
            ext_authz: AuthCounters,
            grpc: GrpcCalls,
            // For load reports: Envoy does not show them either.
            rq_dropped: Counter,
            rq_drop_overload: Counter,
        }
    }

    /// `cluster.NAME`: where its endpoints come from. Written by the control thread only.
    pub(crate) struct ClusterUpdateCells {
        counters: {
            membership_change,
            update_attempt,
            update_success,
            update_failure,
            update_rejected,
            update_empty,
            update_no_rebuild,
            init_fetch_timeout,
            assignment_stale,
            assignment_timeout_received,
            assignment_use_cached,
        }
        gauges: { version, warming_state }
        histograms: {}
    }

    /// `cluster.NAME.outlier_detection`. Written by the control thread only; the gauge of active ejections is read
    /// from the endpoints.
    pub(crate) struct OutlierCells {
        counters: {
            ejections_total = "outlier_detection.ejections_total",
            ejections_overflow = "outlier_detection.ejections_overflow",
            ejections_consecutive_5xx = "outlier_detection.ejections_consecutive_5xx",
            ejections_enforced_total = "outlier_detection.ejections_enforced_total",
            ejections_detected_consecutive_5xx = "outlier_detection.ejections_detected_consecutive_5xx",
            ejections_enforced_consecutive_5xx = "outlier_detection.ejections_enforced_consecutive_5xx",
            ejections_detected_consecutive_gateway_failure = "outlier_detection.ejections_detected_consecutive_gateway_failure",
            ejections_enforced_consecutive_gateway_failure = "outlier_detection.ejections_enforced_consecutive_gateway_failure",
            ejections_detected_consecutive_local_origin_failure = "outlier_detection.ejections_detected_consecutive_local_origin_failure",
            ejections_enforced_consecutive_local_origin_failure = "outlier_detection.ejections_enforced_consecutive_local_origin_failure",
            ejections_detected_success_rate = "outlier_detection.ejections_detected_success_rate",
            ejections_enforced_success_rate = "outlier_detection.ejections_enforced_success_rate",
            ejections_detected_local_origin_success_rate = "outlier_detection.ejections_detected_local_origin_success_rate",
            ejections_enforced_local_origin_success_rate = "outlier_detection.ejections_enforced_local_origin_success_rate",
            ejections_detected_failure_percentage = "outlier_detection.ejections_detected_failure_percentage",
            ejections_enforced_failure_percentage = "outlier_detection.ejections_enforced_failure_percentage",
            ejections_detected_local_origin_failure_percentage = "outlier_detection.ejections_detected_local_origin_failure_percentage",
            ejections_enforced_local_origin_failure_percentage = "outlier_detection.ejections_enforced_local_origin_failure_percentage",
            ejections_success_rate = "outlier_detection.ejections_success_rate",
        }
        gauges: {}
        histograms: {}
    }

    /// `cluster.NAME.health_check`. Written by the control thread only; the gauges of healthy and degraded endpoints are
    /// read from the endpoints.
    pub(crate) struct HealthCheckCells {
        counters: {
            attempt = "health_check.attempt",
            success = "health_check.success",
            failure = "health_check.failure",
            passive_failure = "health_check.passive_failure",
            network_failure = "health_check.network_failure",
            verify_cluster = "health_check.verify_cluster",
        }
        gauges: {}
        histograms: {}
    }

    /// One endpoint: what `/clusters` prints of it. Not a scope of its own in `/stats`.
    pub(crate) struct EndpointCells {
        counters: { cx_total, cx_connect_fail, rq_total, rq_success, rq_error, rq_timeout }
        gauges: { cx_active, rq_active }
        histograms: {}
    }

    /// `listener.ADDRESS`
    pub(crate) struct ListenerCells {
        counters: {
            downstream_cx_total,
            downstream_cx_destroy,
            downstream_cx_overflow,
            downstream_cx_overload_reject,
            downstream_global_cx_overflow,
            downstream_cx_transport_socket_connect_timeout,
            downstream_pre_cx_timeout,
            downstream_listener_filter_error,
            downstream_listener_filter_remote_close,
            no_filter_chain_match,
        }
        gauges: { downstream_cx_active, downstream_pre_cx_active }
        histograms: { downstream_cx_length_ms }
    }

    /// `listener.ADDRESS.worker_INDEX`
    pub(crate) struct ListenerWorkerCells {
        counters: { downstream_cx_total }
        gauges: { downstream_cx_active }
        histograms: {}
    }

    /// `listener.ADDRESS.http.STAT_PREFIX`: responses of one connection manager, by listener.
    pub(crate) struct HttpListenerCells, derived by listener_responses {
        counters: {}
        gauges: {}
        histograms: {}
        hidden: { responses: ResponseCodes }
    }

    /// `http.STAT_PREFIX`: an HTTP connection manager and its router.
    ///
    /// `downstream_rq_<class>xx` and `downstream_rq_completed` are sums of `responses`.
    pub(crate) struct HttpCells, derived by http_responses {
        counters: {
            downstream_cx_total,
            downstream_cx_ssl_total,
            downstream_cx_http1_total,
            downstream_cx_http2_total,
            downstream_cx_upgrades_total,
            downstream_cx_delayed_close_timeout,
            downstream_cx_destroy,
            downstream_cx_destroy_active_rq,
            downstream_cx_destroy_local,
            downstream_cx_destroy_local_active_rq,
            downstream_cx_destroy_remote,
            downstream_cx_destroy_remote_active_rq,
            downstream_cx_drain_close,
            downstream_cx_idle_timeout,
            downstream_cx_max_duration_reached,
            downstream_cx_max_requests_reached,
            downstream_cx_overload_disable_keepalive,
            downstream_cx_protocol_error,
            downstream_cx_rx_bytes_total,
            downstream_cx_tx_bytes_total,
            downstream_flow_control_paused_reading_total,
            downstream_flow_control_resumed_reading_total,
            downstream_rq_total,
            downstream_rq_http1_total,
            downstream_rq_http2_total,
            downstream_rq_failed_path_normalization,
            downstream_rq_header_timeout,
            downstream_rq_idle_timeout,
            downstream_rq_max_duration_reached,
            downstream_rq_non_relative_path,
            downstream_rq_overload_close,
            downstream_rq_redirected_with_normalized_path,
            downstream_rq_response_before_rq_complete,
            downstream_rq_rx_reset,
            downstream_rq_tx_reset,
            downstream_rq_timeout,
            downstream_rq_too_large,
            downstream_rq_too_many_premature_resets,
            downstream_rq_ws_on_non_ws_route,
            rs_too_large,
            no_cluster,
            no_route,
            passthrough_internal_redirect_bad_location,
            passthrough_internal_redirect_no_route,
            passthrough_internal_redirect_predicate,
            passthrough_internal_redirect_too_many_redirects,
            passthrough_internal_redirect_unsafe_scheme,
            rq_direct_response,
            rq_redirect,
            rq_reset_after_downstream_response_started,
            rq_total,
        }
        gauges: {
            downstream_cx_active,
            downstream_cx_ssl_active,
            downstream_cx_http1_active,
            downstream_cx_http2_active,
            downstream_cx_upgrades_active,
            downstream_cx_rx_bytes_buffered,
            downstream_cx_tx_bytes_buffered,
            downstream_rq_active,
        }
        histograms: { downstream_cx_length_ms, downstream_rq_time }
        hidden: { responses: ResponseCodes }
    }

    /// `http.STAT_PREFIX.rbac[.RULES_PREFIX]`: decisions of RBAC filters.
    pub(crate) struct RbacCells {
        counters: { allowed, denied }
        gauges: {}
        histograms: {}
    }

    /// `http.STAT_PREFIX.rbac[.SHADOW_PREFIX]`: decisions of RBAC filters that are not enforced.
    pub(crate) struct RbacShadowCells {
        counters: { shadow_allowed, shadow_denied }
        gauges: {}
        histograms: {}
    }

    /// `http.STAT_PREFIX.ext_authz[.STAT_PREFIX]`
    pub(crate) struct ExtAuthzCells {
        counters: {
            ok,
            denied,
            error,
            disabled,
            failure_mode_allowed,
            invalid,
            ignored_dynamic_metadata,
        }
        gauges: {}
        histograms: {}
    }

    /// `http.STAT_PREFIX.jwt_authn[.STAT_PREFIX]`
    pub(crate) struct JwtCells {
        counters: {
            allowed,
            cors_preflight_bypassed,
            denied,
            jwks_fetch_failed,
            jwks_fetch_success,
            jwt_cache_hit,
            jwt_cache_miss,
        }
        gauges: {}
        histograms: {}
    }

    /// `http.STAT_PREFIX`: the filters of a connection manager that set metadata.
    pub(crate) struct SetMetadataCells {
        counters: { overwrite_denied = "set_metadata.overwrite_denied" }
        gauges: {}
        histograms: {}
    }

    /// `http.STAT_PREFIX`: the CORS filters of a connection manager.
    pub(crate) struct CorsCells {
        counters: { origin_valid = "cors.origin_valid", origin_invalid = "cors.origin_invalid" }
        gauges: {}
        histograms: {}
    }

    /// `http.STAT_PREFIX`: the CSRF filters of a connection manager.
    pub(crate) struct CsrfCells {
        counters: {
            missing_source_origin = "csrf.missing_source_origin",
            request_invalid = "csrf.request_invalid",
            request_valid = "csrf.request_valid",
        }
        gauges: {}
        histograms: {}
    }

    /// `http.STAT_PREFIX.compressor.LIBRARY.DIRECTION`: bodies of one direction.
    pub(crate) struct CompressionCells {
        counters: {
            compressed,
            not_compressed,
            total_uncompressed_bytes,
            total_compressed_bytes,
            content_length_too_small,
        }
        gauges: {}
        histograms: {}
    }

    /// `http.STAT_PREFIX.decompressor.LIBRARY.DIRECTION`: bodies of one direction.
    pub(crate) struct DecompressionCells {
        counters: {
            decompressed,
            not_decompressed,
            total_uncompressed_bytes,
            total_compressed_bytes,
        }
        gauges: {}
        histograms: {}
    }

    /// `http.STAT_PREFIX.compressor.LIBRARY`: what clients said that they accept.
    pub(crate) struct AcceptEncodingCells {
        counters: {
            no_accept_header,
            header_identity,
            header_compressor_used,
            header_compressor_overshadowed,
            header_wildcard,
            header_not_valid,
            not_compressed_etag,
        }
        gauges: {}
        histograms: {}
    }

    /// `http.STAT_PREFIX`: the fault filters of a connection manager.
    pub(crate) struct FaultCells {
        counters: {
            delays_injected = "fault.delays_injected",
            aborts_injected = "fault.aborts_injected",
            response_rl_injected = "fault.response_rl_injected",
            faults_overflow = "fault.faults_overflow",
        }
        gauges: { active_faults = "fault.active_faults" }
        histograms: {}
    }

    /// `http.STAT_PREFIX`: how the connection manager decided whether to trace.
    pub(crate) struct TracingCells {
        counters: {
            random_sampling = "tracing.random_sampling",
            service_forced = "tracing.service_forced",
            client_enabled = "tracing.client_enabled",
            not_traceable = "tracing.not_traceable",
            health_check = "tracing.health_check",
        }
        gauges: {}
        histograms: {}
    }

    /// `http.STAT_PREFIX`: the health check filters of a connection manager.
    pub(crate) struct HealthFilterCells {
        counters: {
            request_total = "health_check.request_total",
            failed = "health_check.failed",
            ok = "health_check.ok",
            cached_response = "health_check.cached_response",
            failed_cluster_not_found = "health_check.failed_cluster_not_found",
            failed_cluster_empty = "health_check.failed_cluster_empty",
            failed_cluster_unhealthy = "health_check.failed_cluster_unhealthy",
            degraded = "health_check.degraded",
        }
        gauges: {}
        histograms: {}
    }

    /// `tracing.opentelemetry`: spans, of all providers. Envoy counts as sent what did not arrive as well.
    pub(crate) struct TracerCells {
        counters: { spans_sent, spans_dropped, timer_flushed }
        gauges: {}
        histograms: {}
    }

    /// `access_logs.grpc_access_log`: entries, of all logs.
    pub(crate) struct GrpcLogCells {
        counters: { logs_written, logs_dropped }
        gauges: {}
        histograms: {}
    }

    /// `STAT_PREFIX.http_local_rate_limit`: local rate limits with that prefix.
    pub(crate) struct RateLimitCells {
        counters: { enabled, enforced, rate_limited, ok, shadow_mode }
        gauges: {}
        histograms: {}
    }

    /// `cluster.NAME.ratelimit`: what the service of limits said about requests to the cluster.
    pub(crate) struct RateLimitServiceCells {
        counters: { ok, error, over_limit, failure_mode_allowed }
        gauges: {}
        histograms: {}
    }

    /// `tcp.STAT_PREFIX`
    pub(crate) struct TcpCells {
        counters: {
            downstream_cx_total,
            downstream_cx_no_route,
            downstream_cx_rx_bytes_total,
            downstream_cx_tx_bytes_total,
            downstream_flow_control_paused_reading_total,
            downstream_flow_control_resumed_reading_total,
            downstream_cx_drain_close,
            idle_timeout,
            max_downstream_connection_duration,
            upstream_flush_total,
        }
        gauges: {
            downstream_cx_rx_bytes_buffered,
            downstream_cx_tx_bytes_buffered,
            upstream_flush_active,
        }
        histograms: {}
    }

    /// `listener.ADDRESS.ssl` and `cluster.NAME.ssl`. Versions, ciphers and curves are named counters
    /// ([`Registry::counter`](super::Registry::counter)): `ssl.versions.TLSv1.3`, `ssl.ciphers.…`, `ssl.curves.…`.
    pub(crate) struct TlsCells {
        counters: {
            connection_error = "ssl.connection_error",
            handshake = "ssl.handshake",
            session_reused = "ssl.session_reused",
            no_certificate = "ssl.no_certificate",
            fail_verify_no_cert = "ssl.fail_verify_no_cert",
            fail_verify_error = "ssl.fail_verify_error",
            fail_verify_san = "ssl.fail_verify_san",
            fail_verify_cert_hash = "ssl.fail_verify_cert_hash",
        }
        gauges: {}
        histograms: {}
    }

    /// `tls_inspector`
    pub(crate) struct TlsInspectorCells {
        counters: {
            client_hello_too_large,
            tls_found,
            tls_not_found,
            alpn_found,
            alpn_not_found,
            sni_found,
            sni_not_found,
        }
        gauges: {}
        histograms: { bytes_processed }
    }

    /// `http_inspector`
    pub(crate) struct HttpInspectorCells {
        counters: { read_error, http10_found, http11_found, http2_found, http_not_found }
        gauges: {}
        histograms: {}
    }

    /// Of all proxy_protocol filters, without a prefix.
    pub(crate) struct ProxyProtocolErrorCells {
        counters: { downstream_cx_proxy_proto_error }
        gauges: {}
        histograms: {}
    }

    /// `proxy_proto` or `proxy_proto.STAT_PREFIX`
    pub(crate) struct ProxyProtocolCells {
        counters: {
            not_found_allowed,
            not_found_disallowed,
            v1_found = "versions.v1.found",
            v1_disallowed = "versions.v1.disallowed",
            v1_error = "versions.v1.error",
            v2_found = "versions.v2.found",
            v2_disallowed = "versions.v2.disallowed",
            v2_error = "versions.v2.error",
        }
        gauges: {}
        histograms: {}
    }

    /// `connection_limit.STAT_PREFIX`
    pub(crate) struct ConnectionLimitCells {
        counters: { limited_connections }
        gauges: { active_connections }
        histograms: {}
    }

    /// `local_rate_limit.STAT_PREFIX`
    pub(crate) struct NetworkRateLimitCells {
        counters: { rate_limited }
        gauges: {}
        histograms: {}
    }

    /// `listener_manager`
    pub(crate) struct ListenerManagerCells {
        counters: {
            listener_added,
            listener_modified,
            listener_removed,
            listener_stopped,
            listener_create_success,
            listener_create_failure,
            listener_in_place_updated,
        }
        gauges: {
            total_listeners_warming,
            total_listeners_active,
            total_listeners_draining,
            total_filter_chains_draining,
            workers_started,
        }
        histograms: {}
    }

    /// `cluster_manager`
    pub(crate) struct ClusterManagerCells {
        counters: { cluster_added, cluster_modified, cluster_removed, cluster_updated }
        gauges: { active_clusters, warming_clusters }
        histograms: {}
    }

    /// One subscription: `cluster_manager.cds`, `listener_manager.lds`, `http.PREFIX.rds.NAME`, `sds.NAME`. (EDS counts in
    /// [`ClusterUpdateCells`].)
    pub(crate) struct SubscriptionCells {
        counters: {
            config_reload,
            init_fetch_timeout,
            update_attempt,
            update_success,
            update_failure,
            update_rejected,
        }
        gauges: { config_reload_time_ms, update_time, version }
        histograms: { update_duration }
    }

    /// `extension_config_discovery.http_filter.NAME`
    pub(crate) struct ExtensionCells {
        counters: {
            config_conflict,
            config_fail,
            config_reload,
            init_fetch_timeout,
            update_attempt,
            update_success,
            update_failure,
            update_rejected,
        }
        gauges: { update_time, version }
        histograms: { update_duration }
    }

    /// `runtime`
    pub(crate) struct RuntimeCells {
        counters: {
            deprecated_feature_use,
            load_error,
            load_success,
            override_dir_exists,
            override_dir_not_exists,
        }
        gauges: {
            admin_overrides_active,
            deprecated_feature_seen_since_process_start,
            num_keys,
            num_layers,
        }
        histograms: {}
    }

    /// `runtime`, where some of it is discovered.
    pub(crate) struct RuntimeUpdateCells {
        counters: {
            init_fetch_timeout,
            update_attempt,
            update_success,
            update_failure,
            update_rejected,
        }
        gauges: { update_time, version }
        histograms: { update_duration }
    }

    /// `load_reporter`. As in Envoy its requests are what the server sends, its responses are the reports.
    pub(crate) struct LoadReporterCells {
        counters: { requests, responses, errors, retries }
        gauges: {}
        histograms: {}
    }

    /// `control_plane`
    pub(crate) struct ControlPlaneCells {
        counters: { rate_limit_enforced }
        gauges: { connected_state, pending_requests }
        histograms: {}
    }

    /// `server`: what is not read from the process itself (see the admin interface).
    pub(crate) struct ServerCells {
        counters: {
            dynamic_unknown_fields,
            static_unknown_fields,
            dropped_stat_flushes,
            worker_panics = "outrigger.panics",
        }
        gauges: { days_until_first_cert_expiring, total_connections }
        histograms: { initialization_time_ms }
    }

    /// `dns`: lookups of STRICT_DNS clusters.
    pub(crate) struct DnsCells {
        counters: { resolve_total, resolve_failure, resolve_timeout }
        gauges: { pending_resolutions }
        histograms: {}
    }

    /// `filesystem`: access logs.
    pub(crate) struct FilesystemCells {
        counters: { flushed_by_timer, reopen_failed, write_buffered, write_completed, write_failed }
        gauges: { write_total_buffered }
        histograms: {}
    }
}

/// Decisions of `envoy.filters.http.ext_authz` on requests to a cluster. They show once there are any.
#[derive(Debug, Default)]
pub(crate) struct AuthCounters {
    pub(crate) ok: Counter,
    pub(crate) denied: Counter,
    pub(crate) error: Counter,
    pub(crate) failure_mode_allowed: Counter,
    pub(crate) invalid: Counter,
}
