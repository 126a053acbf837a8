//! What the admin interface asks for.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use outrigger_proto::envoy::config::bootstrap::v3::Bootstrap as BootstrapProto;
use prost::Message;

use super::data_plane::DataPlane;
use crate::admin::{
    ClusterStatus, DumpEntry, DumpError, Dumped, ListenerStatus, Missing, ResourceState,
    RuntimeStatus, Unready,
};
use crate::config;
use crate::config::bootstrap::Bootstrap;
use crate::xds::{Discovery, Kind};

/// What stands in the bootstrap, as it was read.
pub(super) struct Static {
    bootstrap: Bytes,
    clusters: HashSet<Arc<str>>,
    read: SystemTime,
}

impl Static {
    /// From the encoded bootstrap and the names of its clusters.
    pub(super) fn new(bootstrap: Vec<u8>, clusters: HashSet<Arc<str>>) -> Self {
        Self { bootstrap: bootstrap.into(), clusters, read: SystemTime::now() }
    }

    /// `/clusters`
    pub(super) fn clusters(&self, data: &mut DataPlane) -> Vec<ClusterStatus> {
        let table = data.manager.table();
        let status = |cluster: &Arc<crate::cluster::Cluster>| ClusterStatus {
            cluster: Arc::clone(cluster),
            added_via_api: !self.clusters.contains(&cluster.name),
        };
        table.iter().map(status).collect()
    }

    /// `/config_dump`
    pub(super) fn config_dump(&self, discovery: &Discovery) -> Dumped {
        let mut resources = self.resources();
        for kind in Kind::ALL {
            for (name, entry) in discovery.resources().of(kind) {
                let versions = [
                    (ResourceState::Active, &entry.active),
                    (ResourceState::Warming, &entry.warming),
                ];
                let error = entry.error.as_ref().map(|error| DumpError {
                    failed_configuration: error
                        .body
                        .as_ref()
                        .map(|body| Bytes::copy_from_slice(&body.value))
                        .unwrap_or_default(),
                    last_update_attempt: error.time,
                    details: error.details.clone(),
                    version: error.version.clone(),
                });
                let mut is_dumped = false;
                for (state, version) in versions {
                    let Some(version) = version else { continue };
                    is_dumped = true;
                    resources.push(DumpEntry {
                        type_url: kind.type_url().to_owned(),
                        name: Arc::clone(name),
                        state,
                        version: version.version.clone(),
                        last_updated: version.updated,
                        bytes: Bytes::copy_from_slice(&version.body.value),
                        error: error.clone(),
                    });
                }
                if let (false, Some(error)) = (is_dumped, error) {
                    resources.push(DumpEntry {
                        type_url: kind.type_url().to_owned(),
                        name: Arc::clone(name),
                        state: ResourceState::Active,
                        version: String::new(),
                        last_updated: error.last_update_attempt,
                        bytes: Bytes::new(),
                        error: Some(error),
                    });
                }
            }
        }
        let missing = discovery.missing().map(|(kind, name, does_not_exist)| Missing {
            type_url: kind.type_url().to_owned(),
            name: Arc::clone(name),
            does_not_exist,
        });
        let missing = missing.collect();
        Dumped { bootstrap: Some((self.bootstrap.clone(), self.read)), resources, missing }
    }

    fn resources(&self) -> Vec<DumpEntry> {
        // It was encoded by us.
        let bootstrap = BootstrapProto::decode(self.bootstrap.clone()).unwrap_or_default();
        let resources = bootstrap.static_resources.unwrap_or_default();
        let entry = |kind: Kind, name: &str, bytes: Vec<u8>| DumpEntry {
            type_url: kind.type_url().to_owned(),
            name: name.into(),
            state: ResourceState::Static,
            version: String::new(),
            last_updated: self.read,
            bytes: bytes.into(),
            error: None,
        };
        let clusters =
            resources.clusters.iter().map(|it| entry(Kind::Cluster, &it.name, it.encode_to_vec()));
        let listeners = resources
            .listeners
            .iter()
            .map(|it| entry(Kind::Listener, &it.name, it.encode_to_vec()));
        let secrets =
            resources.secrets.iter().map(|it| entry(Kind::Secret, &it.name, it.encode_to_vec()));
        clusters.chain(listeners).chain(secrets).collect()
    }
}

/// `/init_dump`
pub(super) fn unready(
    discovery: &Discovery,
    bootstrap: &Bootstrap,
    data: &DataPlane,
) -> Vec<Unready> {
    let short = |kind: Kind| match kind {
        Kind::Cluster => "CDS",
        Kind::Listener => "LDS",
        Kind::Endpoint => "EDS",
        Kind::Route => "RDS",
        Kind::VirtualHost => "VHDS",
        Kind::Secret => "SDS",
        Kind::Extension => "ECDS",
        Kind::Runtime => "RTDS",
    };
    let (first, waiting) = discovery.unready();
    let mut all = Vec::new();
    let names = bootstrap.clusters.iter().filter(|cluster| {
        let waits = matches!(cluster.discovery, config::cluster::Discovery::Dns(_))
            || cluster.health_check.is_some();
        waits && !data.manager.is_initialized(&cluster.name)
    });
    let server: Vec<String> = first
        .into_iter()
        .map(|kind| short(kind).to_owned())
        .chain(names.map(|cluster| format!("DNS {}", cluster.name)))
        .collect();
    if !server.is_empty() {
        all.push(Unready { who: "Server".to_owned(), waits_for: server });
    }
    all.extend(waiting.into_iter().map(|((kind, name), needs)| Unready {
        who: match kind {
            Kind::Cluster => format!("Cluster {name}"),
            _ => format!("Listener {name}"),
        },
        waits_for: needs.iter().map(|need| format!("{} {}", short(need.kind), need.name)).collect(),
    }));
    all
}

/// `/runtime`
pub(super) fn runtime(data: &DataPlane) -> RuntimeStatus {
    let (layers, entries) = data.runtime.entries();
    RuntimeStatus { layers, entries }
}

/// `/listeners`
pub(super) fn listeners(data: &DataPlane) -> Vec<ListenerStatus> {
    let status = |(listener, local_addresses): (&Arc<crate::listener::Listener>, _)| {
        ListenerStatus { name: Arc::clone(&listener.config.name), local_addresses }
    };
    data.open_listeners().map(status).collect()
}
