//! What a member of a mesh reports of its endpoints.

use outrigger_proto::registry::v1::EndpointObservation;

use super::super::data_plane::DataPlane;

/// What there is to report of endpoints: requests under way, and ejections.
pub(super) fn of(data: &mut DataPlane) -> Vec<EndpointObservation> {
    let mut all = Vec::new();
    for cluster in data.manager.table().iter() {
        for endpoint in cluster.hosts.load().endpoints() {
            let ejection = endpoint.outlier.ejection();
            let active_requests = endpoint.active();
            if ejection.is_none() && active_requests == 0 {
                continue;
            }
            all.push(EndpointObservation {
                cluster: cluster.name.to_string(),
                address: endpoint.address.to_string(),
                active_requests,
                ejected_until: ejection.map_or(0, |ejection| ejection.until),
                ejected_because: ejection
                    .map_or_else(String::new, |ejection| ejection.reason.as_str().to_owned()),
            });
        }
    }
    all
}
