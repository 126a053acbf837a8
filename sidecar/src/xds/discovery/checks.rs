//! Whether what a resource refers to can be had at all.

use std::sync::Arc;

use super::{Discovery, Kind, whole};
use crate::config::Rejected;
use crate::config::config_source::Origin;
use crate::config::extension::{DiscoveredFilter, Extension};
use crate::config::http_connection_manager::RouteSource;
use crate::config::http_filters::FilterKind;
use crate::config::listener::{Listener, TerminalFilter};
use crate::config::mirror::{Mirror, MirrorCluster};
use crate::config::on_demand::OnDemandClusters;
use crate::config::route::{ClusterSpecifier, RouteAction, RouteConfiguration};
use crate::xds::needs::Needs;

/// The filters of a listener that take their configuration under a name.
fn discovered_filters<'a>(
    listener: &'a Listener,
    name: &'a str,
) -> impl Iterator<Item = &'a DiscoveredFilter> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    let filters = chains.flat_map(|chain| match &chain.terminal {
        TerminalFilter::Http(http) => http.filters.as_slice(),
        TerminalFilter::Tcp(_) => &[],
    });
    filters.filter(move |filter| *filter.name == *name).filter_map(|filter| match &filter.kind {
        FilterKind::Discovered(discovered) => Some(&**discovered),
        _ => None,
    })
}

impl Discovery {
    /// Whoever is to be asked for what a resource needs can be asked.
    pub(super) fn check_sources(
        &self,
        user: (Kind, &Arc<str>),
        config: &impl Needs,
    ) -> Result<(), Vec<Rejected>> {
        let mut rejected = Vec::new();
        for (need, _) in config.needs() {
            let unknown = match &need.origin {
                Origin::Ads if self.ads.is_some() => None,
                Origin::File(_) => None,
                Origin::Ads => Some("there is no dynamic_resources.ads_config".to_owned()),
                Origin::Service(service) if service.channel.is_some() => None,
                Origin::Service(service) if self.servers.contains(&service.cluster) => None,
                Origin::Service(service) => Some(format!(
                    "the bootstrap has no cluster {:?} of type STATIC or STRICT_DNS",
                    service.cluster
                )),
            };
            let (user_kind, user_name) = user;
            let rival = || self.warming.rival(&need, (user_kind, user_name));
            let reason = unknown.or_else(|| {
                rival().map(|_| "another resource takes this name from another source".to_owned())
            });
            if let Some(reason) = reason {
                let (kind, name) = (need.kind, &need.name);
                rejected.extend(whole(format!("the source of {kind} {name:?}: {reason}")));
            }
        }
        if rejected.is_empty() { Ok(()) } else { Err(rejected) }
    }

    /// The source of virtual hosts that come one by one can be asked for them.
    pub(super) fn check_virtual_hosts(
        &self,
        routes: &RouteConfiguration,
    ) -> Result<(), Vec<Rejected>> {
        let Some(source) = &routes.vhds else { return Ok(()) };
        self.check_incremental(&source.origin).map_err(|reason| {
            vec![Rejected { path: "vhds.config_source".to_owned(), reason: reason.to_owned() }]
        })
    }

    /// The sources of clusters on demand can be asked for them.
    pub(super) fn check_on_demand(&self, listener: &Listener) -> Result<(), Vec<Rejected>> {
        for chain in listener.filter_chains.iter().chain(&listener.default_filter_chain) {
            let sources: Vec<&OnDemandClusters> = match &chain.terminal {
                TerminalFilter::Http(http) => {
                    let kinds = http.filters.iter().map(|filter| &filter.kind);
                    kinds
                        .filter_map(|kind| match kind {
                            FilterKind::OnDemand(clusters) => clusters.as_deref(),
                            _ => None,
                        })
                        .collect()
                }
                TerminalFilter::Tcp(_) => Vec::new(),
            };
            for clusters in sources {
                if let Err(reason) = self.check_incremental(&clusters.source.origin) {
                    return Err(whole(format!("the source of clusters on demand: {reason}")));
                }
            }
        }
        Ok(())
    }

    /// Every filter that takes its configuration under this name takes one of this type.
    pub(super) fn check_extension(&self, extension: &Extension) -> Result<(), Vec<Rejected>> {
        for listener in self.warming.listeners() {
            for filter in discovered_filters(listener, &extension.name) {
                if !filter.takes(&extension.message) {
                    return Err(vec![Rejected {
                        path: "typed_config".to_owned(),
                        reason: format!(
                            "is a {}: listener {:?} takes {}",
                            extension.message,
                            listener.name,
                            filter.messages.join(", ")
                        ),
                    }]);
                }
            }
        }
        Ok(())
    }

    /// A listener's own routes lead to clusters that exist, unless they say that this is not to be checked.
    pub(super) fn check_clusters(&self, listener: &Listener) -> Result<(), Vec<Rejected>> {
        let mut rejected = Vec::new();
        let chains = listener.filter_chains.iter().enumerate();
        let chains = chains.map(|(index, chain)| (format!("filter_chains[{index}]"), chain));
        let default = listener.default_filter_chain.iter();
        let default = default.map(|chain| ("default_filter_chain".to_owned(), chain));
        for (path, chain) in chains.chain(default) {
            if let TerminalFilter::Http(http) = &chain.terminal
                && let RouteSource::Inline(routes) = &http.routes
            {
                let path = format!("{path}.filters.typed_config.route_config.");
                self.check_routes(routes, &path, &mut rejected);
            }
        }
        if rejected.is_empty() { Ok(()) } else { Err(rejected) }
    }

    pub(super) fn check_routes(
        &self,
        routes: &RouteConfiguration,
        path: &str,
        rejected: &mut Vec<Rejected>,
    ) {
        if !routes.validate_clusters {
            return;
        }
        self.check_mirrors(&routes.mirrors, path.trim_end_matches('.'), rejected);
        for (host_index, host) in routes.virtual_hosts.iter().enumerate() {
            let place = format!("{path}virtual_hosts[{host_index}]");
            self.check_mirrors(&host.mirrors, &place, rejected);
            for (index, route) in host.routes.iter().enumerate() {
                let RouteAction::Forward(forward) = &route.action else { continue };
                let path = format!("{path}virtual_hosts[{host_index}].routes[{index}].route");
                self.check_mirrors(&forward.mirrors, &path, rejected);
                match &forward.cluster {
                    // Which cluster it is, each request says.
                    ClusterSpecifier::Header(_) => {}
                    ClusterSpecifier::Cluster(name) => {
                        self.check_cluster(name, format!("{path}.cluster"), rejected);
                    }
                    ClusterSpecifier::Weighted(clusters) => {
                        for (index, cluster) in clusters.iter().enumerate() {
                            if cluster.header.is_some() {
                                continue;
                            }
                            let path = format!("{path}.weighted_clusters.clusters[{index}].name");
                            self.check_cluster(&cluster.name, path, rejected);
                        }
                    }
                }
            }
        }
    }

    fn check_mirrors(&self, mirrors: &[Arc<Mirror>], place: &str, rejected: &mut Vec<Rejected>) {
        for (index, mirror) in mirrors.iter().enumerate() {
            if let MirrorCluster::Cluster(name) = &mirror.cluster {
                let dot = if place.is_empty() { "" } else { "." };
                let path = format!("{place}{dot}request_mirror_policies[{index}].cluster");
                self.check_cluster(name, path, rejected);
            }
        }
    }

    fn check_cluster(&self, name: &str, path: String, rejected: &mut Vec<Rejected>) {
        if !self.warming.has_cluster(name) {
            rejected.push(Rejected { path, reason: format!("there is no cluster {name:?}") });
        }
    }
}
