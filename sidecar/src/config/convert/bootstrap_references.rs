//! Whether what a bootstrap names is there: clusters, secrets, the discovery server, addresses.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use outrigger_proto::envoy::config::bootstrap::v3::bootstrap::StaticResources;
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;

use super::bootstrap::{Secrets, Statics};
use crate::config::Problems;
use crate::config::address::Address;
use crate::config::bootstrap::{DiscoveryService, Variant};
use crate::config::cluster::{Cluster, Discovery};
use crate::config::config_source::{ConfigSource, Origin};
use crate::config::http_connection_manager::RouteSource;
use crate::config::http_filters::{FilterKind, HttpFilter};
use crate::config::listener::{Listener, TerminalFilter};
use crate::config::mirror::{Mirror, MirrorCluster};
use crate::config::route::{ClusterSpecifier, RouteAction, RouteConfiguration};
use crate::config::runtime::{LayerSource, RuntimeLayer};
use crate::config::secret::CertificateSource;
use crate::config::tls::{CommonTls, SecretRef, Validation};

/// What there is to refer to, taken from the protos: what is refused for its own reasons is there all the same, and is
/// not reported again at each place that names it.
pub(super) struct Names {
    clusters: HashSet<String>,
    certificates: HashSet<String>,
    validations: HashSet<String>,
    are_secrets_complete: bool,
}

impl Names {
    pub(super) fn of(proto: &StaticResources, completeness: Secrets) -> Self {
        let secrets = |wanted: fn(&Type) -> bool| {
            let secrets = proto.secrets.iter();
            let wanted = secrets.filter(|secret| secret.r#type.as_ref().is_some_and(wanted));
            wanted.map(|secret| secret.name.clone()).collect()
        };
        Self {
            clusters: proto.clusters.iter().map(|cluster| cluster.name.clone()).collect(),
            certificates: secrets(|kind| matches!(kind, Type::TlsCertificate(_))),
            validations: secrets(|kind| matches!(kind, Type::ValidationContext(_))),
            are_secrets_complete: completeness == Secrets::Complete,
        }
    }
}

/// Where the bootstrap says that resources come from.
pub(super) struct Sources<'a> {
    pub(super) ads: Option<&'a DiscoveryService>,
    pub(super) lds: Option<&'a ConfigSource>,
    pub(super) cds: Option<&'a ConfigSource>,
    pub(super) runtime: &'a [RuntimeLayer],
    pub(super) load_stats: Option<&'a DiscoveryService>,
}

/// Reports every reference that leads nowhere.
pub(super) fn check(
    problems: &mut Problems,
    statics: &Statics,
    sources: &Sources<'_>,
    names: &Names,
) {
    let discovered = statics.clusters.iter().map(|(_, cluster)| cluster);
    let discovered = discovered
        .filter(|it| matches!(it.discovery, Discovery::Eds { .. } | Discovery::OriginalDst(_)));
    let known = Known {
        has_ads: sources.ads.is_some(),
        ads: sources.ads.map(|ads| ads.variant),
        names,
        discovered: discovered.map(|cluster| &*cluster.name).collect(),
    };
    problems.field("dynamic_resources", |problems| {
        if let Some(ads) = sources.ads {
            problems.field("ads_config", |problems| known.service(problems, ads));
        }
        for (field, source) in [("lds_config", sources.lds), ("cds_config", sources.cds)] {
            if let Some(source) = source {
                known.source(problems, field, source);
            }
        }
    });
    if let Some(load_stats) = sources.load_stats {
        problems.field("cluster_manager", |problems| {
            problems.field("load_stats_config", |problems| known.service(problems, load_stats));
        });
    }
    problems.field("layered_runtime", |problems| {
        for (index, layer) in sources.runtime.iter().enumerate() {
            let LayerSource::Rtds { source, .. } = &layer.source else { continue };
            problems.element("layers", index, |problems| {
                problems.field("rtds_layer", |problems| {
                    known.source(problems, "rtds_config", source);
                });
            });
        }
    });
    problems.field("static_resources", |problems| {
        for (index, cluster) in &statics.clusters {
            problems.element("clusters", index, |problems| known.cluster(problems, cluster));
        }
        let mut addresses = HashMap::new();
        for (index, listener) in &statics.listeners {
            problems.element("listeners", index, |problems| {
                known.listener(problems, listener);
                for (address, _) in listener.addresses() {
                    unique_address(problems, &mut addresses, *index, address);
                }
            });
        }
    });
}

/// The local cluster stands in the file, and has one priority: which of several its sidecars would fail over to is not known
/// here.
pub(super) fn local_cluster(
    problems: &mut Problems,
    statics: &Statics,
    local: Option<&str>,
    names: &Names,
) {
    let Some(local) = local else { return };
    if !names.clusters.contains(local) {
        problems.field("cluster_manager", |problems| {
            let reason = format!("there is no static cluster {local:?}");
            problems.reject_field("local_cluster_name", reason);
        });
    }
    let Some((index, cluster)) = statics.clusters.iter().find(|(_, it)| &*it.name == local) else {
        return;
    };
    let assignment = match &cluster.discovery {
        Discovery::Static(assignment) => assignment,
        Discovery::Dns(dns) => &dns.assignment,
        Discovery::Eds { .. } | Discovery::OriginalDst(_) | Discovery::Aggregate(_) => return,
    };
    if assignment.localities.iter().any(|group| group.priority > 0) {
        problems.field("static_resources", |problems| {
            problems.element("clusters", *index, |problems| {
                let reason = "the local cluster must have no priority but 0";
                problems.reject_field("load_assignment", reason);
            });
        });
    }
}

fn unique_address(
    problems: &mut Problems,
    seen: &mut HashMap<Address, usize>,
    index: usize,
    address: &Address,
) {
    // Each port 0 becomes a port of its own.
    if address.port() == Some(0) {
        return;
    }
    if let Some(first) = seen.insert(address.clone(), index) {
        problems.reject_field(
            "address",
            format!("duplicate: listeners[{first}] has {address} already"),
        );
    }
}

struct Known<'a> {
    has_ads: bool,
    /// Its variant.
    ads: Option<Variant>,
    names: &'a Names,
    /// Clusters whose endpoints are discovered.
    discovered: HashSet<&'a str>,
}

impl Known<'_> {
    fn cluster(&self, problems: &mut Problems, cluster: &Cluster) {
        if let Discovery::Eds { source, .. } = &cluster.discovery {
            problems.field("eds_cluster_config", |problems| {
                self.source(problems, "eds_config", source);
            });
        }
        if let Some(tls) = &cluster.transport {
            problems.field("transport_socket", |problems| self.tls(problems, &tls.common));
        }
        for (index, entry) in cluster.transport_socket_matches.iter().enumerate() {
            let Some(tls) = &entry.transport else { continue };
            problems.element("transport_socket_matches", index, |problems| {
                problems.field("transport_socket", |problems| self.tls(problems, &tls.common));
            });
        }
    }

    fn listener(&self, problems: &mut Problems, listener: &Listener) {
        let chains = listener.filter_chains.iter().enumerate();
        let chains = chains.map(|(index, chain)| (format!("filter_chains[{index}]"), chain));
        let default = listener.default_filter_chain.iter();
        let default = default.map(|chain| ("default_filter_chain".to_owned(), chain));
        for (name, chain) in chains.chain(default) {
            problems.field(&name, |problems| {
                if let Some(tls) = &chain.tls {
                    problems.field("transport_socket", |problems| self.tls(problems, &tls.common));
                }
                if let TerminalFilter::Http(manager) = &chain.terminal {
                    problems.field("filters[0].typed_config", |problems| {
                        match &manager.routes {
                            RouteSource::Inline(routes) => self.routes(problems, routes),
                            RouteSource::Rds { source, .. } => problems.field("rds", |problems| {
                                self.source(problems, "config_source", source);
                            }),
                        }
                        self.filters(problems, &manager.filters);
                    });
                }
            });
        }
    }

    fn filters(&self, problems: &mut Problems, filters: &[HttpFilter]) {
        for filter in filters {
            // By its name: what can be left out is in the proto, and no more in this list.
            problems.element("http_filters", &filter.name, |problems| match &filter.kind {
                FilterKind::Discovered(discovered) => {
                    problems.field("config_discovery", |problems| {
                        self.source(problems, "config_source", &discovered.source);
                    });
                }
                FilterKind::OnDemand(Some(clusters)) => {
                    problems.field("typed_config.odcds", |problems| {
                        self.incremental(problems, "source", &clusters.source);
                    });
                }
                _ => {}
            });
        }
    }

    /// As [`Known::source`], for what is asked for one by one.
    fn incremental(&self, problems: &mut Problems, name: &str, source: &ConfigSource) {
        self.source(problems, name, source);
        if source.origin == Origin::Ads && self.ads == Some(Variant::StateOfTheWorld) {
            problems.reject_field(name, "needs dynamic_resources.ads_config of type DELTA_GRPC");
        }
    }

    fn source(&self, problems: &mut Problems, name: &str, source: &ConfigSource) {
        problems.field(name, |problems| match &source.origin {
            Origin::Ads if self.has_ads => {}
            Origin::File(_) => {}
            Origin::Ads => problems.reject("needs dynamic_resources.ads_config"),
            Origin::Service(service) => {
                problems.field("api_config_source", |problems| self.service(problems, service));
            }
        });
    }

    /// The stream that discovers everything else cannot itself wait for something to be discovered.
    fn service(&self, problems: &mut Problems, service: &DiscoveryService) {
        if service.channel.is_some() {
            return;
        }
        let name = &service.cluster;
        let reason = if self.discovered.contains(&**name) {
            format!("cluster {name:?} is itself discovered: use type STATIC or STRICT_DNS")
        } else if self.names.clusters.contains(&**name) {
            return;
        } else {
            format!("there is no cluster {name:?} in static_resources")
        };
        problems.element("grpc_services", 0, |problems| {
            problems.field("envoy_grpc", |problems| problems.reject_field("cluster_name", reason));
        });
    }

    /// A route that stands in the bootstrap can only lead to a cluster that does as well, unless it says otherwise.
    fn routes(&self, problems: &mut Problems, routes: &RouteConfiguration) {
        if !routes.validate_clusters {
            return;
        }
        let mut is_mirrored_by_all = false;
        for (host_index, host) in routes.virtual_hosts.iter().enumerate() {
            let mut is_mirrored_by_host = false;
            for (index, route) in host.routes.iter().enumerate() {
                let RouteAction::Forward(forward) = &route.action else { continue };
                let path =
                    format!("route_config.virtual_hosts[{host_index}].routes[{index}].route");
                problems.field(&path, |problems| {
                    match &forward.cluster {
                        ClusterSpecifier::Header(_) => {}
                        ClusterSpecifier::Cluster(name) => self.named(problems, "cluster", name),
                        ClusterSpecifier::Weighted(clusters) => {
                            for (index, cluster) in clusters.iter().enumerate() {
                                if cluster.header.is_some() {
                                    continue;
                                }
                                let name = format!("weighted_clusters.clusters[{index}].name");
                                self.named(problems, &name, &cluster.name);
                            }
                        }
                    }
                    self.mirrors(problems, &forward.mirrors);
                });
                // Only the list that stands nearest to a route counts.
                is_mirrored_by_host |= forward.mirrors.is_empty();
            }
            is_mirrored_by_all |= is_mirrored_by_host && host.mirrors.is_empty();
            if is_mirrored_by_host {
                let path = format!("route_config.virtual_hosts[{host_index}]");
                problems.field(&path, |problems| self.mirrors(problems, &host.mirrors));
            }
        }
        if is_mirrored_by_all {
            problems.field("route_config", |problems| self.mirrors(problems, &routes.mirrors));
        }
    }

    fn mirrors(&self, problems: &mut Problems, mirrors: &[Arc<Mirror>]) {
        for (index, mirror) in mirrors.iter().enumerate() {
            let MirrorCluster::Cluster(name) = &mirror.cluster else { continue };
            problems.element("request_mirror_policies", index, |problems| {
                self.named(problems, "cluster", name);
            });
        }
    }

    fn named(&self, problems: &mut Problems, field: &str, cluster: &Arc<str>) {
        if !self.names.clusters.contains(&**cluster) {
            problems.reject_field(
                field,
                format!("there is no cluster {cluster:?} in static_resources"),
            );
        }
    }

    fn tls(&self, problems: &mut Problems, tls: &CommonTls) {
        problems.field("typed_config.common_tls_context", |problems| {
            let certificates = tls.certificates.iter();
            let references = certificates.filter_map(|certificate| match certificate {
                CertificateSource::Secret(secret) => Some(secret),
                CertificateSource::Inline(_) => None,
            });
            for (index, secret) in references.enumerate() {
                let field = format!("tls_certificate_sds_secret_configs[{index}]");
                self.secret(problems, &field, secret, &self.names.certificates, "tls_certificate");
            }
            let field = "validation_context_sds_secret_config";
            let validation = |problems: &mut Problems, secret| {
                self.secret(problems, field, secret, &self.names.validations, "validation_context");
            };
            match &tls.validation {
                Validation::None | Validation::Inline(_) => {}
                Validation::Secret(secret) => validation(problems, secret),
                Validation::Combined { secret, .. } => problems
                    .field("combined_validation_context", |problems| validation(problems, secret)),
            }
        });
    }

    fn secret(
        &self,
        problems: &mut Problems,
        field: &str,
        secret: &SecretRef,
        known: &HashSet<String>,
        kind: &str,
    ) {
        if let Some(source) = &secret.source {
            problems.field(field, |problems| self.source(problems, "sds_config", source));
        } else if self.names.are_secrets_complete && !known.contains(&*secret.name) {
            problems.reject_field(
                field,
                format!("there is no {kind} {:?} in static_resources.secrets", secret.name),
            );
        }
    }
}
