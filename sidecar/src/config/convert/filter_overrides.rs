//! `typed_per_filter_config`: overrides of filters at one level of the routes.

use std::collections::HashMap;
use std::sync::Arc;

use outrigger_proto::any;
use outrigger_proto::envoy::config::route::v3::FilterConfig;
use outrigger_proto::envoy::extensions::filters::http::buffer::v3::BufferPerRoute;
use outrigger_proto::envoy::extensions::filters::http::compressor::v3::CompressorPerRoute;
use outrigger_proto::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use outrigger_proto::envoy::extensions::filters::http::csrf::v3::CsrfPolicy;
use outrigger_proto::envoy::extensions::filters::http::ext_authz::v3::ExtAuthzPerRoute;
use outrigger_proto::envoy::extensions::filters::http::fault::v3::HttpFault;
use outrigger_proto::envoy::extensions::filters::http::header_mutation::v3::HeaderMutationPerRoute;
use outrigger_proto::envoy::extensions::filters::http::jwt_authn::v3::PerRouteConfig;
use outrigger_proto::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use outrigger_proto::envoy::extensions::filters::http::on_demand::v3::PerRouteConfig as OnDemandPerRoute;
use outrigger_proto::envoy::extensions::filters::http::ratelimit::v3::RateLimitPerRoute;
use outrigger_proto::envoy::extensions::filters::http::rbac::v3::RbacPerRoute;
use outrigger_proto::envoy::extensions::filters::http::set_filter_state::v3::Config as SetFilterState;
use outrigger_proto::google::protobuf::Any;

use crate::config::Problems;
use crate::config::http_filters::{FilterOverride, FilterOverrides, RouteFilter};

use super::common::{sorted, unknown_type, unpack};
use super::http_filters::{
    buffer, compressor, cors, csrf, ext_authz, fault, header_mutation, jwt_authn, local_ratelimit,
    on_demand, ratelimit,
};
use super::{metadata, rbac};

/// Overrides by the name of the filter instance.
pub(super) fn convert(problems: &mut Problems, protos: HashMap<String, Any>) -> FilterOverrides {
    let overrides = sorted(protos).into_iter().filter_map(|(name, config)| {
        let said =
            problems.element("typed_per_filter_config", &name, |problems| said(problems, &config));
        Some((name.into(), said?))
    });
    FilterOverrides(overrides.collect())
}

fn said(problems: &mut Problems, config: &Any) -> Option<FilterOverride> {
    if !any::holds::<FilterConfig>(config) {
        return one(problems, config, false).map(FilterOverride::Configured);
    }
    let FilterConfig { config, is_optional, disabled } = unpack(problems, config)?;
    match config {
        // Off, whatever its configuration says.
        _ if disabled => Some(FilterOverride::Off),
        Some(config) if config.type_url.is_empty() => Some(FilterOverride::On),
        Some(config) if any::holds::<FilterConfig>(&config) => {
            problems.reject_field("config", "a FilterConfig within a FilterConfig");
            None
        }
        Some(config) => problems
            .field("config", |problems| one(problems, &config, is_optional))
            .map(FilterOverride::Configured),
        None => {
            problems.reject_field("config", "required unless disabled is set");
            None
        }
    }
}

fn one(problems: &mut Problems, config: &Any, is_optional: bool) -> Option<RouteFilter> {
    if any::holds::<RbacPerRoute>(config) {
        let proto = unpack(problems, config)?;
        Some(RouteFilter::Rbac(rbac::per_route(problems, proto)))
    } else if any::holds::<CorsPolicy>(config) {
        let proto = unpack(problems, config)?;
        Some(RouteFilter::Cors(Arc::new(cors::policy(problems, proto))))
    } else if any::holds::<CsrfPolicy>(config) {
        let proto = unpack(problems, config)?;
        Some(RouteFilter::Csrf(Arc::new(csrf::policy(problems, proto)?)))
    } else if any::holds::<HttpFault>(config) {
        let proto = unpack(problems, config)?;
        Some(RouteFilter::Fault(Arc::new(fault::filter(problems, proto))))
    } else if any::holds::<LocalRateLimit>(config) {
        let proto = unpack(problems, config)?;
        let limit = local_ratelimit::filter(problems, proto, true);
        Some(RouteFilter::LocalRateLimit(Arc::new(limit)))
    } else if any::holds::<HeaderMutationPerRoute>(config) {
        let proto = unpack(problems, config)?;
        let mutation = header_mutation::per_route(problems, proto);
        Some(RouteFilter::HeaderMutation(Arc::new(mutation)))
    } else if any::holds::<BufferPerRoute>(config) {
        let proto = unpack(problems, config)?;
        Some(RouteFilter::Buffer(buffer::per_route(problems, proto)?))
    } else if any::holds::<ExtAuthzPerRoute>(config) {
        let proto = unpack(problems, config)?;
        Some(RouteFilter::ExtAuthz(ext_authz::per_route(problems, proto)?))
    } else if any::holds::<PerRouteConfig>(config) {
        let proto = unpack(problems, config)?;
        Some(RouteFilter::JwtAuthn(jwt_authn::per_route(problems, proto)?))
    } else if any::holds::<OnDemandPerRoute>(config) {
        let proto = unpack(problems, config)?;
        Some(RouteFilter::OnDemand(on_demand::per_route(problems, proto)))
    } else if any::holds::<SetFilterState>(config) {
        let proto = unpack(problems, config)?;
        Some(RouteFilter::SetFilterState(Arc::new(metadata::set_filter_state(problems, proto))))
    } else if any::holds::<RateLimitPerRoute>(config) {
        let proto = unpack(problems, config)?;
        Some(RouteFilter::RateLimit(Arc::new(ratelimit::per_route(problems, proto))))
    } else if any::holds::<CompressorPerRoute>(config) {
        let proto = unpack(problems, config)?;
        Some(RouteFilter::Compressor(compressor::per_route(problems, proto)?))
    } else {
        if !is_optional {
            let supported = [
                "RBACPerRoute",
                "CorsPolicy",
                "CsrfPolicy",
                "HTTPFault",
                "LocalRateLimit",
                "HeaderMutationPerRoute",
                "BufferPerRoute",
                "ExtAuthzPerRoute",
                "jwt_authn.v3.PerRouteConfig",
                "on_demand.v3.PerRouteConfig",
                "set_filter_state.v3.Config",
                "CompressorPerRoute",
                "RateLimitPerRoute",
                "FilterConfig",
            ];
            unknown_type(problems, config, &supported);
        }
        None
    }
}
