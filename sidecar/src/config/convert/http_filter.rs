//! HTTP filters: those before the router, and the router at the end.

use std::sync::Arc;

use outrigger_proto::any;
use outrigger_proto::envoy::extensions::filters::http::rbac::v3::Rbac as RbacProto;
use outrigger_proto::envoy::extensions::filters::http::router::v3::Router;
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use outrigger_proto::google::protobuf::Any;

use crate::config::Problems;
use crate::config::http_connection_manager::HttpFilter;

use super::common::{text, unknown_type, unpack, unsupported};
use super::rbac;

/// The filters of a connection manager.
#[derive(Default)]
pub(super) struct Filters {
    /// Before the router, in order.
    pub(super) filters: Vec<HttpFilter>,
    /// A setting of the router.
    pub(super) suppress_envoy_headers: bool,
}

/// The repeated field `name`.
pub(super) fn convert(
    problems: &mut Problems,
    name: &str,
    protos: Vec<proto::HttpFilter>,
) -> Filters {
    let mut result = Filters::default();
    let last = protos.len().checked_sub(1);
    let mut has_router = false;
    for (index, proto) in protos.into_iter().enumerate() {
        problems.element(name, index, |problems| {
            let is_router = one(problems, proto, &mut result);
            if is_router && Some(index) != last {
                problems.reject("the router must be the last filter");
            }
            has_router |= is_router;
        });
    }
    if !has_router {
        problems.reject_field(
            name,
            "the last filter must be envoy.extensions.filters.http.router.v3.Router",
        );
    }
    result
}

/// Adds a filter to `result` and tells whether it is the router.
fn one(problems: &mut Problems, proto: proto::HttpFilter, result: &mut Filters) -> bool {
    let proto::HttpFilter { name, is_optional, disabled, config_type } = proto;
    let name = text(problems, "name", name);
    let config = match config_type {
        Some(ConfigType::TypedConfig(config)) => config,
        Some(ConfigType::ConfigDiscovery(_)) => {
            problems.unsupported("config_discovery", true);
            return false;
        }
        None if is_optional => return false,
        None => {
            problems.reject_field("typed_config", "required");
            return false;
        }
    };
    let is_router = any::holds::<Router>(&config);
    if is_optional && !is_router && !any::holds::<RbacProto>(&config) {
        // What its owner can do without.
        return false;
    }
    unsupported!(problems; disabled);
    problems.field("typed_config", |problems| {
        if is_router {
            result.suppress_envoy_headers = router(problems, &config).unwrap_or(false);
        } else if any::holds::<RbacProto>(&config) {
            if let Some(proto) = unpack(problems, &config) {
                let config = Arc::new(rbac::filter(problems, proto));
                result.filters.push(HttpFilter::Rbac { name: name.into(), config });
            }
        } else {
            unknown_type(
                problems,
                &config,
                &[
                    "envoy.extensions.filters.http.router.v3.Router",
                    "envoy.extensions.filters.http.rbac.v3.RBAC",
                ],
            );
        }
    });
    is_router
}

/// Whether the router keeps its `x-envoy-*` headers to itself.
fn router(problems: &mut Problems, config: &Any) -> Option<bool> {
    let Router {
        dynamic_stats: _,    // only leaves statistics out
        start_child_span: _, // there is no tracing here
        upstream_log,
        upstream_log_options: _, // of upstream_log, which is refused
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats: _, // only leaves statistics out
        upstream_http_filters,
        reject_connect_request_early_data: _, // of CONNECT, which is refused
    } = unpack(problems, config)?;
    unsupported!(problems;
        upstream_log, strict_check_headers, respect_expected_rq_timeout, upstream_http_filters);
    Some(suppress_envoy_headers)
}
