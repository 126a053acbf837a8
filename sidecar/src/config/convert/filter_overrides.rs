//! `typed_per_filter_config`: overrides of filters at one level of the routes.

use std::collections::HashMap;

use outrigger_proto::any;
use outrigger_proto::envoy::config::route::v3::FilterConfig;
use outrigger_proto::envoy::extensions::filters::http::rbac::v3::RbacPerRoute;
use outrigger_proto::google::protobuf::Any;

use crate::config::Problems;
use crate::config::route::FilterOverrides;

use super::common::{sorted, unknown_type, unpack};
use super::rbac;

/// Overrides by the name of the filter instance.
pub(super) fn convert(problems: &mut Problems, protos: HashMap<String, Any>) -> FilterOverrides {
    let mut overrides = FilterOverrides::default();
    for (name, config) in sorted(protos) {
        problems.element("typed_per_filter_config", &name, |problems| {
            one(problems, &name, &config, false, &mut overrides);
        });
    }
    overrides
}

fn one(
    problems: &mut Problems,
    name: &str,
    config: &Any,
    is_optional: bool,
    overrides: &mut FilterOverrides,
) {
    if any::holds::<RbacPerRoute>(config) {
        if let Some(proto) = unpack::<RbacPerRoute>(problems, config) {
            let rbac = rbac::per_route(problems, proto);
            overrides.rbac.push((name.into(), rbac));
        }
    } else if any::holds::<FilterConfig>(config) {
        let Some(FilterConfig { config, is_optional, disabled }) = unpack(problems, config) else {
            return;
        };
        match config {
            // Off, whatever its configuration says.
            _ if disabled => overrides.rbac.push((name.into(), None)),
            Some(config) if any::holds::<FilterConfig>(&config) => {
                problems.reject_field("config", "a FilterConfig within a FilterConfig");
            }
            Some(config) => problems.field("config", |problems| {
                one(problems, name, &config, is_optional, overrides);
            }),
            None => problems.reject_field("config", "required unless disabled is set"),
        }
    } else if !is_optional {
        unknown_type(problems, config, &["RBACPerRoute", "FilterConfig"]);
    }
}
