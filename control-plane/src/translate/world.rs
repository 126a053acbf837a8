//! [`World`]: a configuration with the live instances, and the views that clients have of it.

use crate::discovery::{Names, ObjectName, Resource, ResourceMap, ResourceType, TypeView, View};
use crate::identity::Trust;
use crate::model::service::ServicePort;
use crate::model::{Config, Endpoint, Kind, Service, mesh};
use crate::registry::{Live, Needs};
use crate::translate::cluster::Instances;
use crate::translate::route::Routing;
use crate::translate::{cluster, endpoint, inbound, listener, names, policy, tls};
use dashmap::DashMap;
use prost::Name;
use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

/// The objects that a resource is made of.
pub(crate) type Origins = Vec<ObjectName>;

/// What resources are made of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inputs {
    pub(crate) config: Config,
    pub(crate) live: Live,
    /// What peers are verified by.
    pub(crate) trust: Arc<Trust>,
    /// Services whose sidecars may not have had the time to attach: an empty load assignment of theirs is not known yet.
    pub(crate) awaited: Arc<BTreeSet<Arc<str>>>,
    /// Services that had Endpoint objects a moment ago: sidecars may still know some, and need to reach them.
    pub(crate) lingering: Arc<BTreeSet<Arc<str>>>,
}

/// Whose view.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ViewKey {
    /// A client without a sidecar.
    Foreign,
    /// A sidecar with these needs.
    Sidecar(Arc<Needs>),
}

/// The resources of a moment. What nobody asks for is not made; what did not change is the same object as in the world
/// before.
#[derive(Debug, Default)]
pub(crate) struct World {
    inputs: Inputs,
    /// Endpoint objects by service.
    objects: BTreeMap<String, Vec<Arc<Endpoint>>>,
    endpoints: TypeView,
    secrets: TypeView,
    /// The route configuration of every service, for sidecars.
    outbound: OnceLock<Arc<Resource>>,
    /// The clusters of every service, for sidecars.
    clusters: OnceLock<Arc<ResourceMap>>,
    previous_clusters: Option<Arc<ResourceMap>>,
    /// Nothing but endpoints and secrets can differ from the world before.
    same_config: bool,
    views: DashMap<ViewKey, Arc<View>>,
    /// Those of the world before, to take from them what did not change.
    previous: DashMap<ViewKey, Arc<View>>,
}

impl World {
    /// The world after `previous`.
    pub(crate) fn after(previous: &Self, inputs: Inputs) -> Self {
        let same_config = previous.inputs.config.revision() == inputs.config.revision()
            && previous.inputs.lingering == inputs.lingering;
        let mut objects: BTreeMap<String, Vec<Arc<Endpoint>>> = BTreeMap::new();
        for object in inputs.config.endpoints() {
            objects.entry(object.service.clone()).or_default().push(object.clone());
        }
        let mut world = Self {
            objects,
            secrets: secrets(&inputs, &previous.secrets),
            inputs,
            previous: previous.views.clone(),
            previous_clusters: previous.clusters.get().cloned(),
            same_config,
            ..Self::default()
        };
        if same_config {
            world.outbound = previous.outbound.clone();
            world.clusters = previous.clusters.clone();
        }
        world.endpoints = world.load_assignments(previous, same_config);
        world
    }

    /// The same world with another configuration.
    pub(crate) fn with_config(&self, config: Config) -> Self {
        Self::after(self, Inputs { config, ..self.inputs.clone() })
    }

    /// Services that have Endpoint objects.
    pub(crate) fn services_with_objects(&self) -> impl Iterator<Item = &str> {
        self.objects.keys().map(String::as_str)
    }

    /// The configuration.
    pub(crate) fn config(&self) -> &Config {
        &self.inputs.config
    }

    /// Version of the secret with the trusted roots, if it says just this.
    pub(crate) fn trust_version(&self, trust: &Trust) -> Option<Arc<str>> {
        let secret = self.secrets.resources.get(names::TRUST_BUNDLE)?;
        (*self.inputs.trust == *trust).then(|| secret.version.clone())
    }

    /// The live instances.
    pub(crate) fn live(&self) -> &Live {
        &self.inputs.live
    }

    /// A view; computed once, for whoever asks first.
    pub(crate) fn view(&self, key: &ViewKey) -> Arc<View> {
        if let Some(view) = self.views.get(key) {
            return view.clone();
        }
        let previous = self.previous.get(key).map(|view| view.clone());
        let view = self.views.entry(key.clone()).or_insert_with(|| {
            let types = match (&previous, key) {
                (Some(old), _) if self.same_config => {
                    let mut types = old.types.clone();
                    types[ResourceType::Endpoint.index()] = self.endpoints.clone();
                    types[ResourceType::Secret.index()] = self.secrets.clone();
                    types
                }
                (old, ViewKey::Foreign) => self.foreign(old.as_deref()),
                (old, ViewKey::Sidecar(needs)) => self.sidecar(needs, old.as_deref()),
            };
            let config = self.config();
            Arc::new(View { revision: config.revision(), live: self.live().version, types })
        });
        view.clone()
    }

    fn load_assignments(&self, previous: &Self, same_config: bool) -> TypeView {
        let mut resources = ResourceMap::new();
        let mut held = Names::new();
        let mut observed = false;
        for service in self.config().services() {
            let live = self.live().of(&service.name);
            observed |= !live.is_empty();
            let awaited = self.inputs.awaited.contains(service.name.as_str());
            let unchanged = same_config
                && awaited == previous.inputs.awaited.contains(service.name.as_str())
                && live == previous.live().of(&service.name);
            let objects = self.objects.get(&service.name).map_or(&[][..], Vec::as_slice);
            for port in &service.ports {
                let subsets = service.subsets.iter().map(Some);
                for subset in std::iter::once(None).chain(subsets) {
                    let subset_name = subset.map(|it| it.name.as_str());
                    let name = names::outbound_cluster(port.port, subset_name, &service.name);
                    if unchanged {
                        if let Some(old) = previous.endpoints.resources.get(name.as_str()) {
                            resources.insert(old.name.clone(), old.clone());
                        } else {
                            held.insert(name.into());
                        }
                        continue;
                    }
                    let assignment = endpoint::assignment(service, port, subset, live, objects);
                    if awaited && assignment.endpoints.is_empty() {
                        held.insert(name.into());
                        continue;
                    }
                    let mut origins = vec![origin(Kind::Service, &service.name)];
                    origins.extend(objects.iter().map(|it| origin(Kind::Endpoint, &it.name)));
                    insert(&mut resources, Resource::new(&name, &assignment, origins));
                }
            }
        }
        let mut version = self.config().revision().to_string();
        if observed {
            // Endpoints that are observed change without a revision.
            let contents: String = resources.values().map(|it| &*it.version).collect();
            version =
                format!("{version}.{}", &crate::discovery::content_hash(contents.as_bytes())[..12]);
        }
        let old = &previous.endpoints;
        let same_held = *old.held == held;
        TypeView {
            version: version.into(),
            resources: unchanged_or_new(resources, same_held.then_some(&old.resources)),
            held: if same_held { old.held.clone() } else { Arc::new(held) },
        }
    }

    fn instances(&self, service: &str) -> Instances {
        if self.objects.contains_key(service) || self.inputs.lingering.contains(service) {
            Instances::Mixed
        } else {
            Instances::Sidecars
        }
    }

    fn foreign(&self, old: Option<&View>) -> [TypeView; 5] {
        let config = self.config();
        let mut clusters = ResourceMap::new();
        let mut listeners = ResourceMap::new();
        let mut routes = ResourceMap::new();
        let routing = Routing::new(config);
        for service in config.services() {
            let origins = || vec![origin(Kind::Service, &service.name)];
            for (port, subset) in parts(service) {
                let cluster = cluster::foreign(service, port, subset);
                insert(&mut clusters, made(&cluster.name, &cluster, origins()));
            }
            for (index, port) in service.http_ports().enumerate() {
                let name = names::authority(&service.name, port.port);
                let (configuration, made_of) = routing.grpc(service, port.port);
                insert(&mut routes, made(&name, &configuration, made_of));
                let bare = (index == 0).then(|| service.name.clone());
                for target in bare.into_iter().chain([name.clone()]) {
                    let listener = listener::grpc(config, target, name.clone());
                    let listener = made(&listener.name, &listener, origins()).by_name_only();
                    insert(&mut listeners, listener);
                }
            }
        }
        for (listener, services) in listener::foreign(config) {
            let origins = services.into_iter().map(|it| origin(Kind::Service, it)).collect();
            insert(&mut listeners, made(&listener.name, &listener, origins));
        }
        for port in routing.http_ports() {
            let (configuration, made_of) = routing.shared(port);
            insert(&mut routes, made(&configuration.name, &configuration, made_of));
        }
        self.types(clusters, listeners, routes, old)
    }

    fn sidecar(&self, needs: &Needs, old: Option<&View>) -> [TypeView; 5] {
        let config = self.config();
        let me = &*needs.service;
        // Most sidecars need it only for what is shared.
        let routing = LazyCell::new(|| Routing::new(config));
        let mut listeners = ResourceMap::new();
        let mut routes = ResourceMap::new();

        for listener in listener::outbound(config, needs) {
            insert(&mut listeners, made(&listener.name, &listener, Origins::new()));
        }
        if needs.outbound_port.is_some() {
            let all = self.outbound.get_or_init(|| {
                let (configuration, made_of) = routing.outbound();
                Arc::new(made(&configuration.name, &configuration, made_of))
            });
            routes.insert(all.name.clone(), all.clone());
        }
        for wanted in &needs.outbounds {
            let service = config.service(&wanted.service);
            let port = service.and_then(|it| it.port(wanted.port));
            if let (Some(service), Some(port)) = (service, port)
                && port.protocol.is_http()
            {
                let (configuration, made_of) = routing.one_service(service, port.port);
                insert(&mut routes, made(&configuration.name, &configuration, made_of));
            }
        }
        if let Some(gateway) = config.gateway(me) {
            for it in &gateway.listeners {
                let listener = listener::gateway(config, me, it);
                let origins = vec![origin(Kind::Gateway, me)];
                insert(&mut listeners, made(&listener.name, &listener, origins));
                let (configuration, made_of) = routing.gateway(me, it.port, &it.hostname);
                insert(&mut routes, made(&configuration.name, &configuration, made_of));
            }
        }
        if let Some(listener) = inbound::inbound(config, needs) {
            let mut origins = vec![origin(Kind::Service, me), origin(Kind::Mesh, mesh::NAME)];
            let policies = policy::of(config, me);
            origins.extend(policies.iter().map(|it| origin(Kind::Policy, &it.name)));
            insert(&mut listeners, made(&listener.name, &listener, origins));
        }
        let clusters = self.sidecar_clusters(needs);
        self.types(clusters, listeners, routes, old)
    }

    /// The clusters of every service, for sidecars; encoded once for all of them.
    fn mesh_clusters(&self) -> &Arc<ResourceMap> {
        self.clusters.get_or_init(|| {
            let config = self.config();
            let domain = &config.mesh().trust_domain;
            let mut clusters = ResourceMap::new();
            for service in config.services() {
                let instances = self.instances(&service.name);
                for (port, subset) in parts(service) {
                    let cluster = cluster::mesh(domain, service, port, subset, instances);
                    let origins = vec![origin(Kind::Service, &service.name)];
                    insert(&mut clusters, made(&cluster.name, &cluster, origins));
                }
            }
            unchanged_or_new(clusters, self.previous_clusters.as_ref())
        })
    }

    fn sidecar_clusters(&self, needs: &Needs) -> ResourceMap {
        let config = self.config();
        let all = self.mesh_clusters();
        let mut clusters = match needed_services(config, needs) {
            None => ResourceMap::clone(all),
            Some(needed) => {
                let services = needed.into_iter().filter_map(|name| config.service(name));
                let parts = services.flat_map(|service| {
                    parts(service).map(|(port, subset)| {
                        names::outbound_cluster(port.port, subset, &service.name)
                    })
                });
                let found = parts.filter_map(|name| all.get_key_value(name.as_str()));
                found.map(|(name, cluster)| (name.clone(), cluster.clone())).collect()
            }
        };
        for port in &needs.app_ports {
            let protocol = inbound::protocol(config, &needs.service, port);
            let cluster = cluster::inbound(&needs.service, port, protocol);
            let origins = vec![origin(Kind::Service, &needs.service)];
            insert(&mut clusters, made(&cluster.name, &cluster, origins));
        }
        clusters
    }

    fn types(
        &self,
        clusters: ResourceMap,
        listeners: ResourceMap,
        routes: ResourceMap,
        old: Option<&View>,
    ) -> [TypeView; 5] {
        let mut version = self.config().revision().to_string();
        if !self.inputs.lingering.is_empty() {
            version.push_str("+lingering");
        }
        let version: Arc<str> = version.into();
        let of = |kind: ResourceType, resources| TypeView {
            version: version.clone(),
            resources: unchanged_or_new(resources, old.map(|old| &old.of(kind).resources)),
            held: Arc::default(),
        };
        [
            self.secrets.clone(),
            of(ResourceType::Cluster, clusters),
            self.endpoints.clone(),
            of(ResourceType::Listener, listeners),
            of(ResourceType::Route, routes),
        ]
    }
}

/// What of a service is a cluster: each port, whole and by subset.
fn parts(service: &Service) -> impl Iterator<Item = (&ServicePort, Option<&str>)> {
    service.ports.iter().flat_map(|port| {
        let subsets = service.subsets.iter().map(|it| Some(it.name.as_str()));
        std::iter::once(None).chain(subsets).map(move |subset| (port, subset))
    })
}

/// The services that a sidecar sends requests to; `None`: any.
fn needed_services<'a>(config: &'a Config, needs: &'a Needs) -> Option<BTreeSet<&'a str>> {
    if needs.outbound_port.is_some() {
        return None;
    }
    let asked: BTreeSet<&str> = needs.outbounds.iter().map(|it| &*it.service).collect();
    let mut needed = asked.clone();
    for route in config.routes() {
        let concerns = match &route.gateway {
            Some(gateway) => **gateway == *needs.service,
            None => route.hosts.iter().any(|host| asked.contains(host.as_str())),
        };
        if concerns {
            let backends = route.rules.iter().flat_map(|rule| &rule.backend_refs);
            needed.extend(backends.map(|backend| backend.name.as_str()));
        }
    }
    Some(needed)
}

fn secrets(inputs: &Inputs, old: &TypeView) -> TypeView {
    let mut resources = ResourceMap::new();
    let secret = tls::trust_bundle(&inputs.trust);
    insert(&mut resources, made(&secret.name, &secret, Origins::new()));
    // What is trusted changes without a revision.
    let contents: String = resources.values().map(|it| &*it.version).collect();
    let hash = crate::discovery::content_hash(contents.as_bytes());
    TypeView {
        version: format!("{}.{}", inputs.config.revision(), &hash[..12]).into(),
        resources: unchanged_or_new(resources, Some(&old.resources)),
        held: Arc::default(),
    }
}

fn origin(kind: Kind, name: &str) -> ObjectName {
    (kind, name.into())
}

fn made<M: Name>(name: &str, message: &M, origins: Origins) -> Resource {
    Resource::new(name, message, origins)
}

fn insert(resources: &mut ResourceMap, resource: Resource) {
    resources.insert(resource.name.clone(), Arc::new(resource));
}

/// Takes from `old` what is the same, the whole if all is.
fn unchanged_or_new(mut new: ResourceMap, old: Option<&Arc<ResourceMap>>) -> Arc<ResourceMap> {
    let Some(old) = old else { return Arc::new(new) };
    let mut changed = new.len() != old.len();
    for (name, resource) in &mut new {
        match old.get(name) {
            Some(before) if before.is_same(resource) => *resource = before.clone(),
            _ => changed = true,
        }
    }
    if changed { Arc::new(new) } else { old.clone() }
}
