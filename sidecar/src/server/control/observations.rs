//! What a member of a mesh reports of its endpoints.

use outrigger_proto::registry::v1::EndpointObservation;

use super::super::data_plane::DataPlane;
use crate::cluster::health_check::flags::Flag;

/// What there is to report of endpoints: requests under way, ejections, and health checks that fail.
pub(super) fn of(data: &mut DataPlane) -> Vec<EndpointObservation> {
    let mut all = Vec::new();
    for cluster in data.manager.table().iter() {
        for endpoint in cluster.hosts.load().endpoints() {
            let ejection = endpoint.outlier.ejection();
            let active_requests = endpoint.active();
            let check_failed = endpoint.check.has(Flag::Failed);
            if ejection.is_none() && active_requests == 0 && !check_failed {
                continue;
            }
            all.push(EndpointObservation {
                cluster: cluster.name.to_string(),
                address: endpoint.address.to_string(),
                active_requests,
                check_failed,
                ejected_until: ejection.map_or(0, |ejection| ejection.until),
                ejected_because: ejection
                    .map_or_else(String::new, |ejection| ejection.reason.as_str().to_owned()),
            });
        }
    }
    all
}
