//! Where a request goes, by its routes, and what each level of them says about it.

use std::sync::Arc;

use http::HeaderValue;
use http::request::Parts;

use super::view_of;
use crate::cluster::ClusterId;
use crate::config;
use crate::config::http_filters::FilterOverrides;
use crate::config::route::{ClusterSpecifier, Forward, RouteAction, WeightedCluster};
use crate::config::subset::MetadataCriteria;
use crate::http::connection_manager::{Connection, ConnectionManager};
use crate::http::exchange::Exchange;
use crate::http::headers::Accepted;
use crate::http::mutations::Levels;
use crate::http::route_table::{Route, RouteTable, VirtualHost};
use crate::http::stream_state::StreamState;
use crate::local::{ClusterRef, View};

/// Where a request goes, by its routes.
pub(super) struct Matched<'t> {
    pub(super) table: &'t RouteTable,
    pub(super) host: &'t config::route::VirtualHost,
    pub(super) route: &'t Route,
    /// The cluster, chosen now where there are several; its place among them.
    pub(super) target: Option<(ClusterId, Option<usize>)>,
}

impl<'t> Matched<'t> {
    pub(super) fn find(
        connection: &Connection,
        view: &View,
        table: &'t RouteTable,
        request: &Parts,
        accepted: &Accepted,
        state: Option<&StreamState>,
    ) -> Option<Self> {
        let request = view_of(request, accepted, state);
        let host: &VirtualHost = table.host(request.authority)?;
        let route = host.route(&request)?;
        let named = |name: &str| connection.local.cluster_named(view, name);
        let target = route.target.choose(request.headers, named);
        Some(Self { table, host: table.host_config(host)?, route, target })
    }

    pub(super) fn weighted(&self) -> Option<&'t WeightedCluster> {
        let (_, index) = self.target?;
        match &self.route.config.action {
            RouteAction::Forward(forward) => match &forward.cluster {
                ClusterSpecifier::Weighted(clusters) => clusters.get(index?),
                ClusterSpecifier::Cluster(_) | ClusterSpecifier::Header(_) => None,
            },
            _ => None,
        }
    }

    /// Collects what additions to headers may ask for.
    pub(super) fn collect(&self, exchange: &mut Exchange, request: &Parts) {
        exchange.collect(request);
        exchange.capture_for_additions(request, &self.table.needs);
        if let Some(facts) = &mut exchange.facts {
            facts.route = Some(Arc::clone(&self.route.config));
        }
    }

    /// The `Host` of this one of several clusters.
    pub(super) fn literal_host(&self) -> Option<&'t HeaderValue> {
        self.weighted().and_then(|cluster| cluster.host_rewrite.as_ref())
    }

    pub(super) fn overrides(&self) -> [Option<&'t FilterOverrides>; 4] {
        let weighted = self.weighted().map(|cluster| &cluster.filters);
        let (route, host) = (&self.route.config.filters, &self.host.filters);
        [weighted, Some(route), Some(host), Some(&self.table.config.filters)]
    }

    /// What the metadata of the endpoint must hold.
    pub(super) fn metadata_match(&self, action: &'t Forward) -> Option<&'t MetadataCriteria> {
        let of_cluster = self.weighted().and_then(|cluster| cluster.metadata_match.as_deref());
        of_cluster.or(action.metadata_match.as_deref())
    }

    /// The cluster that the request is to go to, if it is there.
    pub(super) fn cluster(&self, view: &View) -> Option<ClusterRef> {
        self.target.and_then(|(id, _)| ClusterRef::new(view, id))
    }

    /// Name of the cluster that the request is to go to.
    pub(super) fn cluster_name(&self) -> Option<&'t str> {
        if let Some(weighted) = self.weighted() {
            return Some(&*weighted.name).filter(|name| !name.is_empty());
        }
        match &self.route.config.action {
            RouteAction::Forward(forward) => match &forward.cluster {
                ClusterSpecifier::Cluster(name) => Some(name),
                ClusterSpecifier::Weighted(_) | ClusterSpecifier::Header(_) => None,
            },
            _ => None,
        }
    }

    pub(super) fn request_headers(&self) -> Levels<'t> {
        let weighted = self.weighted().map(|cluster| &cluster.request_headers);
        let route = Some(&self.route.config.request_headers);
        let (host, outer) = (&self.host.request_headers, &self.table.config.request_headers);
        self.levels([weighted, route, Some(host), Some(outer)])
    }

    pub(super) fn response_headers(&self) -> Levels<'t> {
        let weighted = self.weighted().map(|cluster| &cluster.response_headers);
        let route = Some(&self.route.config.response_headers);
        let (host, outer) = (&self.host.response_headers, &self.table.config.response_headers);
        self.levels([weighted, route, Some(host), Some(outer)])
    }

    fn levels(&self, levels: [Option<&'t config::header::HeaderMutations>; 4]) -> Levels<'t> {
        Levels::new(levels, self.table.config.most_specific_header_mutations_wins)
    }

    /// Most bytes of a request's body that are kept for another attempt.
    pub(super) fn buffer_limit(&self, manager: &ConnectionManager) -> u64 {
        let configured =
            self.route.config.per_request_buffer_limit.or(self.host.per_request_buffer_limit);
        configured.map_or(manager.buffer_limit as u64, u64::from)
    }
}
