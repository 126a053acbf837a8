//! Who uses a resource that was discovered by name, and so who counts what becomes of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Discovery;
use crate::config::cluster::{Cluster, Discovery as ClusterDiscovery};
use crate::config::http_connection_manager::RouteSource;
use crate::config::listener::TerminalFilter;
use crate::xds::Kind;
use crate::xds::needs::Need;

impl Discovery {
    pub(super) fn note_eds(&mut self, cluster: &Cluster) {
        self.forget_eds(&cluster.name);
        if let ClusterDiscovery::Eds { service_name, .. } = &cluster.discovery {
            let name = Arc::clone(&cluster.name);
            self.eds_users.entry(Arc::clone(service_name)).or_default().insert(Arc::clone(&name));
            self.eds_services.insert(name, Arc::clone(service_name));
        }
    }

    pub(super) fn forget_eds(&mut self, cluster: &Arc<str>) {
        if let Some(service) = self.eds_services.remove(cluster)
            && let Some(users) = self.eds_users.get_mut(&service)
        {
            users.remove(cluster);
            if users.is_empty() {
                self.eds_users.remove(&service);
            }
        }
    }

    /// Counts an update of one resource where Envoy counts it: at the clusters, connection managers or secret it is for.
    /// `version` is that of an accepted one; `None`: it was refused.
    pub(super) fn count(&self, kind: Kind, name: &Arc<str>, version: Option<&str>) {
        let accepted = version.is_some();
        match kind {
            // Those are counted by response.
            Kind::Cluster | Kind::Listener => {}
            Kind::Endpoint => {
                for cluster in self.eds_users.get(name).into_iter().flatten() {
                    self.counting.endpoints(cluster, accepted);
                }
            }
            Kind::Route => {
                for prefix in self.route_users(name) {
                    self.counting.routes(&prefix, name, accepted);
                }
            }
            Kind::VirtualHost => {
                for prefix in self.route_users(name) {
                    self.counting.virtual_hosts(&prefix, name, accepted);
                }
            }
            Kind::Secret => self.counting.secret(name, accepted),
            Kind::Extension => self.counting.extension(name, version),
            Kind::Runtime => self.counting.runtime(version),
        }
    }

    pub(super) fn count_timeout(&self, need: &Need) {
        let Need { kind, name, origin: _ } = need;
        match kind {
            Kind::Cluster | Kind::Listener => {}
            Kind::Endpoint => {
                for cluster in self.eds_users.get(name).into_iter().flatten() {
                    self.counting.endpoints_timed_out(cluster);
                }
            }
            Kind::Route => {
                for prefix in self.route_users(name) {
                    self.counting.routes_timed_out(&prefix, name);
                }
            }
            Kind::VirtualHost => {
                for prefix in self.route_users(name) {
                    self.counting.virtual_hosts_timed_out(&prefix, name);
                }
            }
            Kind::Secret => self.counting.secret_timed_out(name),
            Kind::Extension => self.counting.extension_timed_out(name),
            Kind::Runtime => self.counting.runtime_timed_out(),
        }
    }

    /// `stat_prefix` of every connection manager that takes these routes.
    fn route_users(&self, routes: &str) -> BTreeSet<Arc<str>> {
        let chains = self.warming.listeners().flat_map(|listener| {
            listener.filter_chains.iter().chain(&listener.default_filter_chain)
        });
        chains
            .filter_map(|chain| match &chain.terminal {
                TerminalFilter::Http(http) => Some(http),
                TerminalFilter::Tcp(_) => None,
            })
            .filter(
                |http| matches!(&http.routes, RouteSource::Rds { name, .. } if **name == *routes),
            )
            .map(|http| Arc::from(&*http.stat_prefix))
            .collect()
    }
}
