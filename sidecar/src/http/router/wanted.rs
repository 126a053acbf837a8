//! What an endpoint is chosen by that few requests have.

use std::sync::Arc;

use http::HeaderMap;
use serde_json::{Map, Value};

use super::matched::Matched;
use crate::cluster::{Cluster, Context, Endpoint, NamedHosts};
use crate::config::load_balancer::{OverrideHost, OverrideSource};
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
    /// Which endpoints it names, where it may.
    named: Option<NamedHosts>,
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
        let named = cluster.config.override_host.as_deref();
        if noted.is_none() && cluster.original_dst.is_none() && named.is_none() {
            return None;
        }
        let route = matched.metadata_match(action);
        Some(Box::new(Self {
            metadata: noted.map(|noted| MetadataCriteria::of_request(route, noted)),
            named: named.map(|settings| named_hosts(settings, exchange, headers)),
            destination: connection.original_destination(cluster, headers),
        }))
    }

    /// What the route says, and this.
    pub(crate) fn over<'c>(&'c self, route: Context<'c>) -> Context<'c> {
        Context {
            metadata: self.metadata.as_ref().or(route.metadata),
            named: self.named.as_ref(),
            destination: self.destination.as_ref(),
            ..route
        }
    }
}

/// A request names at most so many endpoints.
const MOST_NAMED: usize = 64;

/// The endpoints that a request names. What is no address names none, and is passed over.
fn named_hosts(settings: &OverrideHost, exchange: &Exchange, headers: &HeaderMap) -> NamedHosts {
    let noted = metadata_of(exchange.state.as_deref());
    let lists = settings.sources.iter().filter_map(|source| match source {
        OverrideSource::Header(name) => headers.get(name)?.to_str().ok(),
        OverrideSource::Metadata(key, path) => noted?.value(key, path)?.as_str(),
    });
    let names = lists.flat_map(|list| list.split(','));
    let addresses = names.filter_map(|name| name.trim().parse().ok());
    NamedHosts::new(addresses.take(MOST_NAMED).collect())
}

/// Notes in the metadata of a request which endpoint was chosen for it, where that is configured.
pub(crate) fn note_selected(cluster: &Cluster, endpoint: &Endpoint, exchange: &mut Exchange) {
    let Some((key, path)) =
        cluster.config.override_host.as_deref().and_then(|settings| settings.selected.as_ref())
    else {
        return;
    };
    let Some((first, rest)) = path.split_first() else { return };
    let address = Value::from(endpoint.address.to_string());
    let value = rest
        .iter()
        .rev()
        .fold(address, |value, key| Value::Object(Map::from_iter([(key.to_string(), value)])));
    let object = Map::from_iter([(first.to_string(), value)]);
    exchange.state.get_or_insert_default().metadata.put(key, object);
}
