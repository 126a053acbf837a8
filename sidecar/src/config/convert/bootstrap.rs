//! The bootstrap: its parts, and whether they fit each other.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use outrigger_proto::any;
use outrigger_proto::envoy::config::accesslog::v3::{AccessLog, access_log};
use outrigger_proto::envoy::config::bootstrap::v3 as proto;
use outrigger_proto::envoy::config::bootstrap::v3::bootstrap::{DynamicResources, StaticResources};
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::node::UserAgentVersionType;
use outrigger_proto::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use outrigger_proto::envoy::extensions::regex_engines::v3::GoogleRe2;

use prost::Message;

use crate::config::Problems;
use crate::config::address::Address;
use crate::config::bind_config::BindConfig;
use crate::config::bootstrap::{Bootstrap, DiscoveryService};
use crate::config::cluster::Cluster;
use crate::config::config_source::{ConfigSource, Origin};
use crate::config::listener::Listener;
use crate::config::secret::Secret;

use super::bootstrap_references::Names;
use super::common::{Present, address, optional, required, unknown_type, unpack, unsupported};
use super::{
    bind_config, bootstrap_references, cluster, config_source, discovery, extensions, listener,
    runtime, secret, stats_config,
};

/// What servers may count on: resources with a time to live, and wrapped ones by state of the world.
const CLIENT_FEATURES: &[&str] =
    &["xds.config.supports-resource-ttl", "xds.config.supports-resource-in-sotw"];

/// Whether every static secret that a bootstrap names has to stand in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    /// It has.
    Complete,
    /// Others may be brought by whoever made the bootstrap.
    Brought,
}

/// A bootstrap.
#[allow(clippy::too_many_lines)] // one field after the other, as in the proto
pub(super) fn convert(
    problems: &mut Problems,
    proto: proto::Bootstrap,
    secrets: Secrets,
) -> Option<Bootstrap> {
    let encoded = proto.encode_to_vec();
    let proto::Bootstrap {
        node,
        node_context_params,
        static_resources,
        dynamic_resources,
        cluster_manager,
        hds_config,
        flags_path,
        stats_sinks,
        deferred_stat_options: _, // when statistics take up memory; changes none of them
        stats_config,
        stats_flush_interval,
        watchdog,
        watchdogs,
        tracing,
        layered_runtime,
        admin,
        overload_manager,
        enable_dispatcher_stats: _, // only adds statistics of Envoy's event loop
        header_prefix,
        stats_server_version_override,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config: _, // which resolver library; there is one here
        bootstrap_extensions,
        fatal_actions,
        config_sources,
        default_config_source,
        default_socket_interface,
        certificate_provider_instances,
        inline_headers: _, // how Envoy stores headers; changes no outcome
        perf_tracing_file_path,
        default_regex_engine,
        xds_delegate_extension,
        xds_config_tracker_extension,
        listener_manager,
        application_log_config: _, // how Envoy words what it logs of itself
        grpc_async_client_manager_config: _, // how Envoy caches its gRPC clients
        memory_allocator_manager: _, // of Envoy's allocator
        enable_worker_cpu_affinity,
        stats_flush,
        stats_eviction: _, // when statistics that no one uses are freed
    } = proto;
    unsupported!(problems;
        node_context_params, hds_config, flags_path, watchdog, watchdogs, tracing,
        overload_manager, header_prefix, stats_server_version_override, use_tcp_for_dns_lookups,
        dns_resolution_config, fatal_actions, config_sources,
        default_config_source, default_socket_interface, certificate_provider_instances,
        perf_tracing_file_path, xds_delegate_extension,
        xds_config_tracker_extension, listener_manager,
        enable_worker_cpu_affinity);
    for (index, extension) in bootstrap_extensions.into_iter().enumerate() {
        problems.element("bootstrap_extensions", index, |problems| {
            bootstrap_extension(problems, extension);
        });
    }
    if let Some(engine) = default_regex_engine {
        problems.field("default_regex_engine", |problems| regex_engine(problems, engine));
    }
    let manager = cluster_manager.unwrap_or_default();
    let ClusterManager { bind, load_stats, local_cluster, outlier_event_log } =
        problems.field("cluster_manager", |problems| cluster_manager_of(problems, manager));
    let stats = problems.field("stats_config", |problems| {
        stats_config::convert(problems, stats_config.unwrap_or_default())
    });
    let stats_sinks = stats_config::sinks(problems, stats_sinks);
    let stats_flush = stats_config::flush(problems, stats_flush_interval, stats_flush);
    let service_cluster = node.as_ref().map_or("", |node| &node.cluster).to_owned();
    let runtime = problems.field("layered_runtime", |problems| {
        runtime::layers(problems, layered_runtime, &service_cluster)
    });
    let admin =
        admin.and_then(|proto| problems.field("admin", |problems| admin_of(problems, proto)));
    let static_resources = static_resources.unwrap_or_default();
    let names = Names::of(&static_resources, secrets);
    let mut parts =
        problems.field("static_resources", |problems| statics(problems, static_resources));
    if bind.is_some() {
        let unsaid = parts.clusters.iter_mut().filter(|(_, cluster)| cluster.bind.is_none());
        unsaid.for_each(|(_, cluster)| Arc::make_mut(cluster).bind.clone_from(&bind));
    }
    let dynamic = dynamic_resources.unwrap_or_default();
    let Dynamic { lds, cds, ads } =
        problems.field("dynamic_resources", |problems| dynamics(problems, dynamic));
    let sources = bootstrap_references::Sources {
        ads: ads.as_ref(),
        lds: lds.as_ref(),
        cds: cds.as_ref(),
        runtime: &runtime,
        load_stats: load_stats.as_ref(),
    };
    let is_discovering = ads.is_some()
        || [&lds, &cds].into_iter().flatten().any(|it| matches!(it.origin, Origin::Service(_)));
    let node = node_of(problems, node.unwrap_or_default(), is_discovering);
    bootstrap_references::check(problems, &parts, &sources, &names);
    bootstrap_references::local_cluster(problems, &parts, local_cluster.as_deref(), &names);
    Some(Bootstrap {
        node,
        admin,
        listeners: without_place(parts.listeners),
        clusters: without_place(parts.clusters),
        secrets: without_place(parts.secrets),
        ads,
        lds,
        cds,
        load_stats,
        outlier_event_log,
        bind,
        local_cluster,
        stats,
        stats_sinks,
        stats_flush,
        runtime,
        encoded,
    })
}

/// There is none, but some can be left out.
fn bootstrap_extension(problems: &mut Problems, proto: core::TypedExtensionConfig) {
    let core::TypedExtensionConfig { name: _, typed_config } = proto;
    let Some(config) = required(problems, "typed_config", typed_config) else { return };
    if !extensions::is_harmless_bootstrap(&config) {
        problems.field("typed_config", |problems| unknown_type(problems, &config, &[]));
    }
}

/// The syntax of regular expressions is that of RE2, whatever is said here.
fn regex_engine(problems: &mut Problems, proto: core::TypedExtensionConfig) {
    let core::TypedExtensionConfig { name: _, typed_config } = proto;
    let Some(config) = required(problems, "typed_config", typed_config) else { return };
    problems.field("typed_config", |problems| {
        if any::holds::<GoogleRe2>(&config) {
            let _: Option<GoogleRe2> = unpack(problems, &config);
        } else {
            unknown_type(problems, &config, &["GoogleRE2"]);
        }
    });
}

/// What we tell discovery servers: the node of the file, under our name.
fn node_of(problems: &mut Problems, mut node: core::Node, needs_name: bool) -> core::Node {
    if needs_name {
        problems.field("node", |problems| {
            for (name, value, flag) in
                [("id", &node.id, "node"), ("cluster", &node.cluster, "cluster")]
            {
                if value.is_empty() {
                    problems.reject_field(
                        name,
                        format!("required with dynamic_resources: here or by --service-{flag}"),
                    );
                }
            }
        });
    }
    for feature in CLIENT_FEATURES {
        if !node.client_features.iter().any(|known| known == feature) {
            node.client_features.push((*feature).to_owned());
        }
    }
    node.user_agent_name = "outrigger".to_owned();
    node.user_agent_version_type =
        Some(UserAgentVersionType::UserAgentVersion(env!("CARGO_PKG_VERSION").to_owned()));
    node
}

struct ClusterManager {
    bind: Option<Arc<BindConfig>>,
    load_stats: Option<DiscoveryService>,
    local_cluster: Option<Arc<str>>,
    outlier_event_log: Option<PathBuf>,
}

fn cluster_manager_of(problems: &mut Problems, proto: proto::ClusterManager) -> ClusterManager {
    let proto::ClusterManager {
        local_cluster_name,
        outlier_detection,
        upstream_bind_config,
        load_stats_config,
        enable_deferred_cluster_creation: _, // when Envoy's workers build a cluster; changes no outcome
    } = proto;
    let outlier_event_log = outlier_detection.and_then(|proto| {
        let proto::cluster_manager::OutlierDetection { event_log_path, event_service } = proto;
        problems.field("outlier_detection", |problems| {
            unsupported!(problems; event_service);
        });
        (!event_log_path.is_empty()).then(|| PathBuf::from(event_log_path))
    });
    let load_stats = load_stats_config.and_then(|proto| {
        problems.field("load_stats_config", |problems| discovery::convert(problems, proto))
    });
    let bind = upstream_bind_config.and_then(|proto| {
        problems.field("upstream_bind_config", |problems| bind_config::convert(problems, proto))
    });
    let local_cluster = optional(local_cluster_name).map(Arc::from);
    ClusterManager { bind: bind.map(Arc::new), load_stats, local_cluster, outlier_event_log }
}

fn admin_of(problems: &mut Problems, proto: proto::Admin) -> Option<(Address, Option<u32>)> {
    let proto::Admin {
        access_log,
        access_log_path,
        profile_path: _, // of Envoy's CPU profiler, which there is not
        address: place,
        socket_options,
        ignore_global_conn_limit: _, // there is no global limit
        allow_paths,
    } = proto;
    unsupported!(problems; socket_options, allow_paths);
    // A log that is thrown away need not be written.
    problems.unsupported(
        "access_log_path",
        access_log_path.is_present() && access_log_path != "/dev/null",
    );
    for (index, log) in access_log.iter().enumerate() {
        problems.element("access_log", index, |problems| {
            if !is_discarded(log) {
                problems.reject("not supported by this version of Outrigger, but to /dev/null");
            }
        });
    }
    // Without an address Envoy has no admin interface either.
    let place = place?;
    problems.field("address", |problems| address(problems, place))
}

fn is_discarded(log: &AccessLog) -> bool {
    let Some(access_log::ConfigType::TypedConfig(config)) = &log.config_type else { return false };
    any::unpack::<FileAccessLog>(config).is_ok_and(|log| log.path == "/dev/null")
}

/// The resources with their place in the file: one that is refused leaves a gap.
pub(super) struct Statics {
    pub(super) listeners: Vec<(usize, Arc<Listener>)>,
    pub(super) clusters: Vec<(usize, Arc<Cluster>)>,
    secrets: Vec<(usize, Secret)>,
}

fn statics(problems: &mut Problems, proto: StaticResources) -> Statics {
    let StaticResources { listeners, clusters, secrets } = proto;
    let clusters = named(problems, "clusters", clusters, cluster::convert, |c| &c.name);
    let secrets = named(problems, "secrets", secrets, secret::convert, |s| &s.name);
    let listeners = named(problems, "listeners", listeners, listener::convert, |l| &l.name);
    Statics { listeners: shared(listeners), clusters: shared(clusters), secrets }
}

fn shared<R>(resources: Vec<(usize, R)>) -> Vec<(usize, Arc<R>)> {
    resources.into_iter().map(|(index, resource)| (index, Arc::new(resource))).collect()
}

fn without_place<R>(resources: Vec<(usize, R)>) -> Vec<R> {
    resources.into_iter().map(|(_, resource)| resource).collect()
}

/// Converts a list of resources, whose names must differ.
fn named<P, R>(
    problems: &mut Problems,
    field: &str,
    protos: Vec<P>,
    convert: impl Fn(&mut Problems, P) -> Option<R>,
    name: impl Fn(&R) -> &Arc<str>,
) -> Vec<(usize, R)> {
    let mut first: HashMap<Arc<str>, usize> = HashMap::new();
    let mut resources = Vec::with_capacity(protos.len());
    for (index, proto) in protos.into_iter().enumerate() {
        problems.element(field, index, |problems| {
            let Some(resource) = convert(problems, proto) else { return };
            if let Some(first) = first.get(name(&resource)) {
                problems.reject_field(
                    "name",
                    format!("duplicate: {field}[{first}] is named {:?} already", name(&resource)),
                );
            }
            first.entry(name(&resource).clone()).or_insert(index);
            resources.push((index, resource));
        });
    }
    resources
}

struct Dynamic {
    lds: Option<ConfigSource>,
    cds: Option<ConfigSource>,
    ads: Option<DiscoveryService>,
}

fn dynamics(problems: &mut Problems, proto: DynamicResources) -> Dynamic {
    let DynamicResources {
        lds_config,
        lds_resources_locator,
        cds_config,
        cds_resources_locator,
        ads_config,
    } = proto;
    unsupported!(problems; lds_resources_locator, cds_resources_locator);
    let ads = ads_config.and_then(|proto| {
        problems.field("ads_config", |problems| discovery::convert(problems, proto))
    });
    let mut source = |name: &str, proto: Option<core::ConfigSource>| {
        problems.field(name, |problems| config_source::convert(problems, proto?))
    };
    Dynamic { lds: source("lds_config", lds_config), cds: source("cds_config", cds_config), ads }
}
