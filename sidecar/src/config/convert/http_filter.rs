//! HTTP filters: those before the router, and the router at the end.

use std::sync::Arc;

use http::HeaderName;
use outrigger_proto::any;
use outrigger_proto::envoy::extensions::filters::http::buffer::v3::Buffer;
use outrigger_proto::envoy::extensions::filters::http::compressor::v3::Compressor;
use outrigger_proto::envoy::extensions::filters::http::cors::v3::Cors;
use outrigger_proto::envoy::extensions::filters::http::csrf::v3::CsrfPolicy;
use outrigger_proto::envoy::extensions::filters::http::decompressor::v3::Decompressor;
use outrigger_proto::envoy::extensions::filters::http::ext_authz::v3::ExtAuthz;
use outrigger_proto::envoy::extensions::filters::http::fault::v3::HttpFault;
use outrigger_proto::envoy::extensions::filters::http::grpc_stats::v3::FilterConfig as GrpcStats;
use outrigger_proto::envoy::extensions::filters::http::header_mutation::v3::HeaderMutation;
use outrigger_proto::envoy::extensions::filters::http::health_check::v3::HealthCheck;
use outrigger_proto::envoy::extensions::filters::http::jwt_authn::v3::JwtAuthentication;
use outrigger_proto::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use outrigger_proto::envoy::extensions::filters::http::ratelimit::v3::RateLimit;
use outrigger_proto::envoy::extensions::filters::http::on_demand::v3::OnDemand;
use outrigger_proto::envoy::extensions::filters::http::rbac::v3::Rbac as RbacProto;
use outrigger_proto::envoy::extensions::filters::http::router::v3::Router as RouterProto;
use outrigger_proto::envoy::extensions::filters::http::set_filter_state::v3::Config as SetFilterState;
use outrigger_proto::envoy::extensions::filters::http::set_metadata::v3::Config as SetMetadata;
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use outrigger_proto::google::protobuf::Any;

use crate::config::Problems;
use crate::config::http_filters::{FilterKind, HttpFilter};

use super::common::{text, unknown_type, unpack, unsupported};
use super::{extension, extensions, metadata, rbac};

/// The filters of a connection manager.
#[derive(Default)]
pub(super) struct Filters {
    /// Before the router, in order.
    pub(super) filters: Vec<HttpFilter>,
    /// Settings of the router.
    pub(super) router: Router,
}

/// Settings of the router.
#[derive(Default)]
pub(super) struct Router {
    pub(super) suppress_envoy_headers: bool,
    pub(super) respect_expected_timeout: bool,
    pub(super) strict_headers: Box<[HeaderName]>,
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
        Some(ConfigType::ConfigDiscovery(proto)) => {
            let filter = problems
                .field("config_discovery", |problems| extension::source(problems, &name, proto));
            result.filters.extend(filter.map(|filter| HttpFilter {
                name: name.into(),
                disabled,
                kind: FilterKind::Discovered(Arc::new(filter)),
            }));
            return false;
        }
        None if is_optional => return false,
        None => {
            problems.reject_field("typed_config", "required");
            return false;
        }
    };
    if extensions::is_harmless_http(&config) {
        return false;
    }
    if any::holds::<RouterProto>(&config) {
        unsupported!(problems; disabled);
        let settings = problems.field("typed_config", |problems| router(problems, &config));
        result.router = settings.unwrap_or_default();
        return true;
    }
    let kind = problems.field("typed_config", |problems| kind(problems, &config, is_optional));
    if let Some(kind) = kind {
        result.filters.push(HttpFilter { name: name.into(), disabled, kind });
    }
    false
}

/// The messages of the filters that there are.
const FILTERS: &[&str] = &[
    ROUTER,
    "envoy.extensions.filters.http.rbac.v3.RBAC",
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.csrf.v3.CsrfPolicy",
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
    "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
    "envoy.extensions.filters.http.buffer.v3.Buffer",
    "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
    "envoy.extensions.filters.http.health_check.v3.HealthCheck",
    "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
    "envoy.extensions.filters.http.on_demand.v3.OnDemand",
    "envoy.extensions.filters.http.set_metadata.v3.Config",
    "envoy.extensions.filters.http.set_filter_state.v3.Config",
    "envoy.extensions.filters.http.compressor.v3.Compressor",
    "envoy.extensions.filters.http.decompressor.v3.Decompressor",
    "envoy.extensions.filters.http.ratelimit.v3.RateLimit",
];

const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";

/// Whether a message configures a filter that there is, apart from the router, or one that can be left out.
pub(super) fn is_supported(message: &str) -> bool {
    let is_filter = FILTERS.contains(&message) && message != ROUTER;
    is_filter || extensions::is_harmless_http_message(message)
}

/// The filter that a configuration is for; `None` as well for one that its owner can do without.
pub(super) fn kind(problems: &mut Problems, config: &Any, is_optional: bool) -> Option<FilterKind> {
    use super::http_filters::{
        buffer, compressor, csrf, decompressor, ext_authz, fault, grpc_stats, header_mutation,
        health_check, jwt_authn, local_ratelimit, on_demand, ratelimit,
    };
    if any::holds::<RbacProto>(config) {
        let proto = unpack(problems, config)?;
        Some(FilterKind::Rbac(Arc::new(rbac::filter(problems, proto))))
    } else if any::holds::<Cors>(config) {
        let Cors {} = unpack(problems, config)?;
        Some(FilterKind::Cors)
    } else if any::holds::<HttpFault>(config) {
        let proto = unpack(problems, config)?;
        Some(FilterKind::Fault(Arc::new(fault::filter(problems, proto))))
    } else if any::holds::<CsrfPolicy>(config) {
        let proto = unpack(problems, config)?;
        Some(FilterKind::Csrf(Arc::new(csrf::policy(problems, proto)?)))
    } else if any::holds::<GrpcStats>(config) {
        let proto = unpack(problems, config)?;
        Some(FilterKind::GrpcStats(Arc::new(grpc_stats::filter(problems, proto))))
    } else if any::holds::<LocalRateLimit>(config) {
        let proto = unpack(problems, config)?;
        let limit = local_ratelimit::filter(problems, proto, false);
        Some(FilterKind::LocalRateLimit(Arc::new(limit)))
    } else if any::holds::<HeaderMutation>(config) {
        let proto = unpack(problems, config)?;
        let mutation = header_mutation::filter(problems, proto);
        Some(FilterKind::HeaderMutation(Arc::new(mutation)))
    } else if any::holds::<Buffer>(config) {
        let proto = unpack(problems, config)?;
        Some(FilterKind::Buffer(buffer::filter(problems, proto)?))
    } else if any::holds::<HealthCheck>(config) {
        let proto = unpack(problems, config)?;
        Some(FilterKind::HealthCheck(Arc::new(health_check::filter(problems, proto))))
    } else if any::holds::<SetMetadata>(config) {
        let proto = unpack(problems, config)?;
        Some(FilterKind::SetMetadata(Arc::new(metadata::set_metadata(problems, proto))))
    } else if any::holds::<SetFilterState>(config) {
        let proto = unpack(problems, config)?;
        Some(FilterKind::SetFilterState(Arc::new(metadata::set_filter_state(problems, proto))))
    } else if any::holds::<OnDemand>(config) {
        let proto = unpack(problems, config)?;
        Some(FilterKind::OnDemand(on_demand::filter(problems, proto)))
    } else if any::holds::<ExtAuthz>(config) {
        let proto = unpack(problems, config)?;
        Some(FilterKind::ExtAuthz(Arc::new(ext_authz::filter(problems, proto)?)))
    } else if any::holds::<JwtAuthentication>(config) {
        let proto = unpack(problems, config)?;
        Some(FilterKind::JwtAuthn(Arc::new(jwt_authn::filter(problems, proto))))
    } else if any::holds::<RateLimit>(config) {
        let proto = unpack(problems, config)?;
        Some(FilterKind::RateLimit(Arc::new(ratelimit::filter(problems, proto)?)))
    } else if any::holds::<Compressor>(config) {
        let proto = unpack(problems, config)?;
        Some(FilterKind::Compressor(Arc::new(compressor::filter(problems, proto)?)))
    } else if any::holds::<Decompressor>(config) {
        let proto = unpack(problems, config)?;
        Some(FilterKind::Decompressor(Arc::new(decompressor::filter(problems, proto)?)))
    } else {
        if !is_optional {
            unknown_type(problems, config, FILTERS);
        }
        None
    }
}

/// Headers that the router can be told to be strict about.
const STRICT: [&str; 5] = [
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-max-retries",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
];

fn router(problems: &mut Problems, config: &Any) -> Option<Router> {
    let RouterProto {
        dynamic_stats: _, // only leaves statistics out
        start_child_span,
        upstream_log,
        upstream_log_options: _, // of upstream_log, which is refused
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats: _, // only leaves statistics out
        upstream_http_filters,
        reject_connect_request_early_data: _, // of CONNECT, which is refused
    } = unpack(problems, config)?;
    unsupported!(problems; start_child_span, upstream_log, upstream_http_filters);
    let strict = strict_check_headers.iter().enumerate().filter_map(|(index, name)| {
        let known = STRICT.into_iter().find(|known| known == name);
        if known.is_none() {
            problems.element("strict_check_headers", index, |problems| {
                problems.reject(format!("{name:?} is not one of {}", STRICT.join(", ")));
            });
        }
        known.map(HeaderName::from_static)
    });
    let strict_headers = strict.collect();
    Some(Router {
        suppress_envoy_headers,
        respect_expected_timeout: respect_expected_rq_timeout,
        strict_headers,
    })
}
