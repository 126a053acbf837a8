//! `envoy.filters.http.on_demand`: a request to a host or a cluster that is not known yet waits until it was asked for.
//!
//! As in Envoy the request then goes on with the routes as they are by then, found or not.

use std::sync::Arc;

use super::{Pass, Passage};
use crate::config::http_filters::RouteFilter;
use crate::config::on_demand::OnDemandClusters;
use crate::config::route::{ClusterSpecifier, RouteAction};
use crate::on_demand::{Wanted, ask};

/// What an instance of the filter, or a route, says: where clusters are asked for.
pub(super) type Config = Option<Arc<OnDemandClusters>>;

/// What counts: a route has the last word.
pub(super) fn configured<'c>(own: &'c Config, route: Option<&'c RouteFilter>) -> &'c Config {
    match route {
        Some(RouteFilter::OnDemand(config)) => config,
        _ => own,
    }
}

/// Whether the request may have to wait.
pub(super) fn run(config: &Config, passage: &Passage<'_>) -> Pass {
    match wanted(config, passage) {
        Some(_) => Pass::Ask,
        None => Pass::On,
    }
}

/// Waits for what the request needs and is not there.
pub(super) async fn wait(config: &Config, passage: &mut Passage<'_>) {
    let Some(wanted) = wanted(config, passage) else { return };
    let demands = &passage.connection.local.shared.demands;
    match &wanted {
        Wanted::VirtualHost { .. } => {
            ask(demands, wanted).await;
        }
        Wanted::Cluster { from, .. } => {
            // If there is no answer in time, the router says that there is no such cluster.
            let timeout = from.timeout;
            let _ = tokio::time::timeout(timeout, ask(demands, wanted)).await;
        }
    }
    passage.rematch = true;
    passage.refresh = true;
}

fn wanted(config: &Config, passage: &Passage<'_>) -> Option<Wanted> {
    let Some(route) = passage.route else {
        let local = &passage.connection.local;
        let view = local.view();
        let table = view.routes(passage.connection.manager.routes)?;
        table.config.vhds.as_ref()?;
        let host = passage.view().authority.to_ascii_lowercase();
        let routes = Arc::clone(&table.config.name);
        return Some(Wanted::VirtualHost { routes, host: host.into() });
    };
    let from = config.as_ref()?;
    let RouteAction::Forward(forward) = &route.action else { return None };
    if passage.target.is_some() {
        return None;
    }
    let name = match &forward.cluster {
        ClusterSpecifier::Header(name) => passage.request.headers.get(name)?.to_str().ok()?,
        ClusterSpecifier::Cluster(_) | ClusterSpecifier::Weighted(_) => passage.cluster?,
    };
    (!name.is_empty()).then(|| Wanted::Cluster { name: name.into(), from: Arc::clone(from) })
}
