//! What an endpoint is chosen by that few requests have.

use std::sync::Arc;

use http::HeaderMap;

use super::matched::Matched;
use crate::cluster::{Cluster, Context, Endpoint};
use crate::config::route::Forward;
use crate::config::subset::{METADATA_FILTER, MetadataCriteria};
use crate::http::connection_manager::Connection;
use crate::http::exchange::Exchange;
use crate::http::stream_state::metadata_of;

/// What an endpoint is chosen by that few requests have. Kept over all attempts: the last of them takes the headers along.
pub(crate) struct Wanted {
    /// What its metadata must hold, if filters have noted something about it: as in Envoy, that wins over what the route
    /// says.
    metadata: Option<MetadataCriteria>,
    /// Where the request was going to by itself, of clusters of type ORIGINAL_DST.
    destination: Option<Arc<Endpoint>>,
}

impl Wanted {
    pub(super) fn of(
        connection: &Connection,
        matched: &Matched<'_>,
        action: &Forward,
        cluster: &Cluster,
        exchange: &Exchange,
        headers: &HeaderMap,
    ) -> Option<Box<Self>> {
        let noted = metadata_of(exchange.state.as_deref());
        let noted = noted.and_then(|noted| noted.0.get(METADATA_FILTER)?.as_object());
        if noted.is_none() && cluster.original_dst.is_none() {
            return None;
        }
        let route = matched.metadata_match(action);
        Some(Box::new(Self {
            metadata: noted.map(|noted| MetadataCriteria::of_request(route, noted)),
            destination: connection.original_destination(cluster, headers),
        }))
    }

    /// What the route says, and this.
    pub(crate) fn over<'c>(&'c self, route: Context<'c>) -> Context<'c> {
        Context {
            metadata: self.metadata.as_ref().or(route.metadata),
            destination: self.destination.as_ref(),
            ..route
        }
    }
}
