//! `envoy.filters.http.on_demand`: where clusters are asked for that a route names and nobody knows.

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::envoy::extensions::filters::http::on_demand::v3 as proto;

use crate::config::Problems;
use crate::config::bootstrap::Variant;
use crate::config::config_source::{ConfigSource, Origin};
use crate::config::on_demand::OnDemandClusters;

use super::super::common::{duration, required, unsupported};
use super::super::config_source;

/// A request waits so long for a cluster where nothing is set.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The filter: `None` without clusters on demand.
pub(crate) fn filter(
    problems: &mut Problems,
    proto: proto::OnDemand,
) -> Option<Arc<OnDemandClusters>> {
    let proto::OnDemand { odcds } = proto;
    odcds.and_then(|odcds| problems.field("odcds", |problems| clusters(problems, odcds)))
}

/// What a route says instead.
pub(crate) fn per_route(
    problems: &mut Problems,
    proto: proto::PerRouteConfig,
) -> Option<Arc<OnDemandClusters>> {
    let proto::PerRouteConfig { odcds } = proto;
    odcds.and_then(|odcds| problems.field("odcds", |problems| clusters(problems, odcds)))
}

fn clusters(problems: &mut Problems, proto: proto::OnDemandCds) -> Option<Arc<OnDemandClusters>> {
    let proto::OnDemandCds { source, resources_locator, timeout } = proto;
    unsupported!(problems; resources_locator);
    let timeout = duration(problems, "timeout", timeout).unwrap_or(DEFAULT_TIMEOUT);
    let source = required(problems, "source", source)?;
    let source = problems.field("source", |problems| {
        let source = config_source::convert(problems, source)?;
        incremental(problems, &source);
        Some(source)
    })?;
    Some(Arc::new(OnDemandClusters { source, timeout }))
}

/// What is asked for one by one has to come incrementally: a state of the world would be all there is.
pub(crate) fn incremental(problems: &mut Problems, source: &ConfigSource) {
    match &source.origin {
        // Whether it is incremental, stands in the bootstrap.
        Origin::Ads => {}
        Origin::Service(service) if service.variant == Variant::Delta => {}
        Origin::Service(_) => problems.reject_field(
            "api_config_source",
            "api_type must be DELTA_GRPC: what is asked for one by one comes incrementally",
        ),
        Origin::File(_) => problems.reject("must be ads, or an api_config_source of DELTA_GRPC"),
    }
}
