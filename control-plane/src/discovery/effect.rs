//! What a configuration would change at each client that is connected: the translation runs as it would, and nothing is
//! sent.

use crate::api::view::{Client as ClientKind, Difference, Effect, SidecarEffect};
use crate::discovery::cache::{Resource, ResourceMap, View};
use crate::discovery::hub::Hub;
use crate::discovery::resource_type::ResourceType;
use crate::discovery::status::{Client, NodeName};
use crate::model::Config;
use crate::registry::InstanceName;
use crate::translate::{ViewKey, World};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Differences by [`ResourceType::index`].
pub(crate) type Differences = [Difference; 5];

impl Hub {
    /// What `config` would change.
    pub(crate) fn effect_of(&self, config: Config) -> Effect {
        let now = self.world();
        let then = now.with_config(config);
        let mut clients: BTreeMap<NodeName, Differences> = BTreeMap::new();
        for client in self.connected_clients() {
            let all = clients.entry(client.name()).or_default();
            let Some(key) = key(&client, &now) else { continue };
            let found = client.stream().effect(&now.view(&key), &then.view(&key));
            // Streams of one client that both asked for something are told of it both.
            for (sum, one) in all.iter_mut().zip(found) {
                *sum = if one.total() > sum.total() { one } else { *sum };
            }
        }
        let total = clients.len();
        let sidecars: Vec<_> = clients
            .into_iter()
            .filter(|(_, types)| types.iter().any(|it| it.total() > 0))
            .map(|((node, service), types)| {
                let of = |kind: ResourceType| types[kind.index()];
                SidecarEffect {
                    node,
                    service,
                    listeners: of(ResourceType::Listener),
                    routes: of(ResourceType::Route),
                    clusters: of(ResourceType::Cluster),
                    endpoints: of(ResourceType::Endpoint),
                }
            })
            .collect();
        Effect { changed: sidecars.len(), total, sidecars }
    }
}

/// The view of a client; a sidecar that has not attached yet has none.
fn key(client: &Client, world: &World) -> Option<ViewKey> {
    match &client.identity {
        Some(identity) if client.kind == ClientKind::Outrigger => {
            let name = InstanceName {
                service: identity.service.clone(),
                instance: identity.instance.clone(),
            };
            world.live().find(&name).map(|it| ViewKey::Sidecar(it.needs.clone()))
        }
        _ => Some(ViewKey::Foreign),
    }
}

/// What becomes of the resources that a client has asked for, or will ask for as soon as it has what names them.
pub(crate) fn differences(
    now: &View,
    then: &View,
    wants: &dyn Fn(ResourceType, &Resource) -> bool,
) -> Differences {
    let mut all = Differences::default();
    let mut added = [const { Vec::<Arc<str>>::new() }; 5];
    for kind in ResourceType::ALL {
        let (now, then): (&ResourceMap, &ResourceMap) =
            (&now.of(kind).resources, &then.of(kind).resources);
        let difference = &mut all[kind.index()];
        for (name, resource) in then {
            match now.get(name) {
                Some(old) if old.version == resource.version => {}
                Some(_) if wants(kind, resource) => difference.changed += 1,
                None if wants(kind, resource) || named_by(kind, name, &added) => {
                    difference.added += 1;
                    added[kind.index()].push(name.clone());
                }
                _ => {}
            }
        }
        let gone = now.iter().filter(|(name, old)| !then.contains_key(*name) && wants(kind, old));
        difference.removed = gone.count();
    }
    all
}

/// Whether a new resource names this one: load assignments are called as their clusters, route configurations as their
/// listeners or, where one listener has all of a port, by the port.
fn named_by(kind: ResourceType, name: &str, added: &[Vec<Arc<str>>; 5]) -> bool {
    let of = |kind: ResourceType| &added[kind.index()];
    match kind {
        ResourceType::Endpoint => of(ResourceType::Cluster).iter().any(|it| **it == *name),
        ResourceType::Route => of(ResourceType::Listener)
            .iter()
            .any(|it| **it == *name || it.strip_prefix("outbound|") == Some(name)),
        _ => false,
    }
}
