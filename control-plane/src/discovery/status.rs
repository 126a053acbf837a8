//! What acknowledgements add up to: the status of clients, of objects and of revisions; and the endpoints as their callers
//! see them.

use crate::api::view::{
    Acked, Client as ClientKind, Effect, EndpointHealth, EndpointStatus, Laggard, MeshView,
    ObjectProblem, ObjectState, ObjectStatus, SidecarStatus, TypeStatus,
};
use crate::discovery::cache::{Resource, View};
use crate::discovery::effect::Differences;
use crate::discovery::hub::Hub;
use crate::discovery::resource_type::ResourceType;
use crate::discovery::stream::{Standing, Stream, Uptake};
use crate::discovery::subscription::Subscription;
use crate::identity::{PeerIdentity, Trust};
use crate::model::{Config, Kind};
use crate::registry::{InstanceName, Observation};
use crate::translate::names;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// For so long a client that left is named.
const REMEMBERED: Duration = Duration::from_secs(300);

/// A stream, whatever its protocol variant.
pub(crate) trait Observed: Send {
    /// See [`Stream::revision`].
    fn revision(&self) -> u64;
    /// See [`Stream::endpoints_taken`].
    fn endpoints_taken(&self) -> Option<u64>;
    /// See [`Stream::standing`].
    fn standing(&self, kind: ResourceType) -> Standing;
    /// See [`Stream::uptake`].
    fn uptake(&self, condition: &dyn Fn(&Resource) -> bool) -> Vec<Uptake>;
    /// See [`Stream::effect`].
    fn effect(&self, now: &View, then: &View) -> Differences;
}

impl<S: Subscription> Observed for Stream<S> {
    fn revision(&self) -> u64 {
        Self::revision(self)
    }

    fn endpoints_taken(&self) -> Option<u64> {
        Self::endpoints_taken(self)
    }

    fn standing(&self, kind: ResourceType) -> Standing {
        Self::standing(self, kind)
    }

    fn uptake(&self, condition: &dyn Fn(&Resource) -> bool) -> Vec<Uptake> {
        Self::uptake(self, condition)
    }

    fn effect(&self, now: &View, then: &View) -> Differences {
        Self::effect(self, now, then)
    }
}

/// A connected client: one stream of it.
pub(crate) struct Client {
    pub(crate) node: String,
    /// The service it belongs to, within which its node is unique.
    pub(crate) service: String,
    pub(crate) instance: String,
    pub(crate) kind: ClientKind,
    /// From its certificate, if it has one.
    pub(crate) identity: Option<Arc<PeerIdentity>>,
    pub(crate) last_contact: Mutex<SystemTime>,
    pub(crate) stream: Arc<Mutex<dyn Observed>>,
}

/// A node within its service.
pub(crate) type NodeName = (String, String);

/// A client that left.
pub(crate) struct Departed {
    pub(crate) status: SidecarStatus,
    pub(crate) at: SystemTime,
}

impl Client {
    /// Its stream; what the lock guards is never left half changed.
    pub(crate) fn stream(&self) -> MutexGuard<'_, dyn Observed + 'static> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its name; the streams of one client have the same.
    pub(crate) fn name(&self) -> NodeName {
        (self.node.clone(), self.service.clone())
    }

    /// Something was heard of it.
    pub(crate) fn heard(&self) {
        *self.last_contact.lock().unwrap_or_else(PoisonError::into_inner) = SystemTime::now();
    }

    /// As the API shows it.
    pub(crate) fn status(&self, connected: bool) -> SidecarStatus {
        let stream = self.stream();
        let of = |kind| match stream.standing(kind) {
            Standing::Ok => TypeStatus::Ok,
            Standing::Pending => TypeStatus::Pending,
            Standing::Rejected(reason) => TypeStatus::Rejected { reason },
        };
        SidecarStatus {
            node: self.node.clone(),
            service: self.service.clone(),
            instance: self.instance.clone(),
            connected,
            client: self.kind,
            revision: stream.revision(),
            listeners: of(ResourceType::Listener),
            routes: of(ResourceType::Route),
            clusters: of(ResourceType::Cluster),
            endpoints: of(ResourceType::Endpoint),
            secrets: of(ResourceType::Secret),
            certificate_expires: self.identity.as_ref().map(|it| it.expires),
            last_contact: *self.last_contact.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Why it does not have the newest revision in effect, in words.
    fn lags_because(&self) -> String {
        let stream = self.stream();
        let rejected = ResourceType::ALL.into_iter().find_map(|kind| match stream.standing(kind) {
            Standing::Rejected(reason) => Some(format!("rejected {}: {reason}", plural(kind))),
            Standing::Ok | Standing::Pending => None,
        });
        let pending = || {
            let kinds = ResourceType::ALL.into_iter();
            let waiting = kinds.filter(|kind| stream.standing(*kind) == Standing::Pending);
            let waiting: Vec<&str> = waiting.map(plural).collect();
            if waiting.is_empty() {
                "has not been sent it yet".to_owned()
            } else {
                format!("has not answered: {}", waiting.join(", "))
            }
        };
        rejected.unwrap_or_else(pending)
    }
}

const fn plural(kind: ResourceType) -> &'static str {
    match kind {
        ResourceType::Secret => "secrets",
        ResourceType::Cluster => "clusters",
        ResourceType::Endpoint => "endpoints",
        ResourceType::Listener => "listeners",
        ResourceType::Route => "routes",
    }
}

/// Several streams of one client as one: the worst of each.
fn merge(mut one: SidecarStatus, other: SidecarStatus) -> SidecarStatus {
    fn worse(one: TypeStatus, other: TypeStatus) -> TypeStatus {
        let rank = |it: &TypeStatus| match it {
            TypeStatus::Ok => 0,
            TypeStatus::Pending => 1,
            TypeStatus::Rejected { .. } => 2,
        };
        if rank(&other) > rank(&one) { other } else { one }
    }
    one.revision = one.revision.min(other.revision);
    one.listeners = worse(one.listeners, other.listeners);
    one.routes = worse(one.routes, other.routes);
    one.clusters = worse(one.clusters, other.clusters);
    one.endpoints = worse(one.endpoints, other.endpoints);
    one.secrets = worse(one.secrets, other.secrets);
    one.last_contact = one.last_contact.max(other.last_contact);
    one
}

impl Hub {
    /// The streams of each client.
    fn by_node(&self) -> BTreeMap<NodeName, Vec<Arc<Client>>> {
        let mut nodes: BTreeMap<NodeName, Vec<Arc<Client>>> = BTreeMap::new();
        for client in self.connected_clients() {
            nodes.entry(client.name()).or_default().push(client);
        }
        nodes
    }

    /// What callers report, by address of the endpoint.
    fn observed(&self) -> HashMap<SocketAddr, Vec<(String, Observation)>> {
        let mut by_address: HashMap<SocketAddr, Vec<(String, Observation)>> = HashMap::new();
        for (observer, observations) in self.registry.observations() {
            for observation in observations.iter() {
                let seen = by_address.entry(observation.address).or_default();
                seen.push((observer.instance.to_string(), observation.clone()));
            }
        }
        by_address
    }
}

/// How a member stands with what peers are verified by.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TrustUptake {
    /// It verifies by it, or has nobody to verify.
    Taken,
    /// It has not said so.
    Pending,
    /// It refused it, saying this.
    Rejected(String),
}

impl Hub {
    /// Whether an instance verifies its peers by `trust`, at the time it is asked.
    pub(crate) fn trust_uptake(&self, name: &InstanceName, trust: &Trust) -> TrustUptake {
        let Some(version) = self.world().trust_version(trust) else { return TrustUptake::Pending };
        let of_it = |client: &Arc<Client>| {
            client
                .identity
                .as_ref()
                .is_some_and(|it| it.service == name.service && it.instance == name.instance)
        };
        let clients: Vec<_> = self.connected_clients().into_iter().filter(of_it).collect();
        if clients.is_empty() {
            return TrustUptake::Pending;
        }
        for client in clients {
            // A stream that has not seen the new world yet knows another version.
            let stale = Cell::new(false);
            let uptake = client.stream().uptake(&|resource| {
                let is_trust = &*resource.name == names::TRUST_BUNDLE;
                stale.set(stale.get() || is_trust && resource.version != version);
                is_trust
            });
            for one in uptake {
                match one {
                    Uptake::Accepted => {}
                    Uptake::Pending => return TrustUptake::Pending,
                    Uptake::Rejected(reason) => return TrustUptake::Rejected(reason.to_string()),
                }
            }
            if stale.get() {
                return TrustUptake::Pending;
            }
        }
        TrustUptake::Taken
    }
}

/// Fills in what callers report of an endpoint.
fn observe(endpoint: &mut EndpointStatus, seen: &[(String, Observation)], now: SystemTime) {
    for (observer, observation) in seen {
        endpoint.active_requests += u64::from(observation.active_requests);
        if !endpoint.seen_by.contains(observer) {
            endpoint.seen_by.push(observer.clone());
        }
        if let Some((until, because)) = &observation.ejected
            && *until > now
            && endpoint.ejected_until.is_none_or(|latest| latest < *until)
        {
            endpoint.ejected_until = Some(*until);
            endpoint.ejected_because = Some(because.clone());
        }
    }
    // Who leaves is leaving, however it is. Checks say more than an ejection, which passes by itself.
    if endpoint.health != EndpointHealth::Healthy {
        return;
    }
    if seen.iter().any(|(_, observation)| observation.check_failed) {
        endpoint.health = EndpointHealth::Unhealthy;
    } else if endpoint.ejected_until.is_some() {
        endpoint.health = EndpointHealth::Ejected;
    }
}

impl MeshView for Hub {
    fn sidecars(&self) -> Vec<SidecarStatus> {
        let mut all: BTreeMap<NodeName, SidecarStatus> = BTreeMap::new();
        let now = SystemTime::now();
        self.departed.retain(|_, it| it.at + REMEMBERED > now);
        for departed in &self.departed {
            all.insert(departed.key().clone(), departed.status.clone());
        }
        for (node, streams) in self.by_node() {
            let merged = streams.iter().map(|stream| stream.status(true)).reduce(merge);
            if let Some(status) = merged {
                all.insert(node, status);
            }
        }
        let newest: HashMap<InstanceName, SystemTime> =
            self.ledger.newest(now).into_iter().map(|(name, it)| (name, it.expires())).collect();
        for status in all.values_mut().filter(|it| it.certificate_expires.is_some()) {
            let name = InstanceName {
                service: status.service.as_str().into(),
                instance: status.instance.as_str().into(),
            };
            status.certificate_expires = status.certificate_expires.max(newest.get(&name).copied());
        }
        all.into_values().collect()
    }

    fn endpoints(&self, service: Option<&str>) -> Vec<EndpointStatus> {
        let world = self.world();
        let now = SystemTime::now();
        let wanted = |name: &str| service.is_none_or(|service| service == name);
        let seen = self.observed();
        let mut endpoints = Vec::new();
        for instance in self.live().services.values().flatten() {
            // Who serves nothing is a client only.
            if !wanted(&instance.name.service) || instance.needs.app_ports.is_empty() {
                continue;
            }
            let at = instance.address();
            let health = match instance.draining {
                true => EndpointHealth::Draining,
                false => EndpointHealth::Healthy,
            };
            endpoints.push((
                at,
                EndpointStatus {
                    service: instance.name.service.to_string(),
                    instance: instance.name.instance.to_string(),
                    address: at.ip().to_string(),
                    port: at.port(),
                    health,
                    ejected_until: None,
                    ejected_because: None,
                    weight: 1,
                    active_requests: 0,
                    locality: instance.locality.clone(),
                    labels: instance.labels.clone(),
                    seen_by: Vec::new(),
                },
            ));
        }
        for object in world.config().endpoints().filter(|it| wanted(&it.service)) {
            let at = object.socket_address();
            endpoints.push((
                at,
                EndpointStatus {
                    service: object.service.clone(),
                    instance: object.name.clone(),
                    address: at.ip().to_string(),
                    port: at.port(),
                    health: EndpointHealth::Healthy,
                    ejected_until: None,
                    ejected_because: None,
                    weight: object.weight,
                    active_requests: 0,
                    locality: object.locality.clone(),
                    labels: object.workload_labels.clone(),
                    seen_by: Vec::new(),
                },
            ));
        }
        let mut endpoints: Vec<EndpointStatus> = endpoints
            .into_iter()
            .map(|(at, mut endpoint)| {
                observe(&mut endpoint, seen.get(&at).map_or(&[], Vec::as_slice), now);
                endpoint
            })
            .collect();
        endpoints.sort_by(|a, b| (&a.service, &a.instance).cmp(&(&b.service, &b.instance)));
        endpoints
    }

    fn object(&self, kind: Kind, name: &str, revision: u64) -> ObjectStatus {
        let caught_up = self.world().config().revision() >= revision;
        let made_of = |resource: &Resource| {
            resource.origins.iter().any(|(of, named)| *of == kind && **named == *name)
        };
        let mut status =
            ObjectStatus { state: ObjectState::Accepted, acked: 0, total: 0, problems: Vec::new() };
        for ((node, _), streams) in self.by_node() {
            let uptake = streams.iter().flat_map(|client| client.stream().uptake(&made_of));
            let uptake: Vec<Uptake> = uptake.collect();
            if uptake.is_empty() {
                continue;
            }
            status.total += 1;
            let rejected = uptake.iter().find_map(|it| match it {
                Uptake::Rejected(reason) => Some(reason.to_string()),
                Uptake::Accepted | Uptake::Pending => None,
            });
            if let Some(reason) = rejected {
                status.problems.push(ObjectProblem { node, reason });
            } else if caught_up && uptake.iter().all(|it| *it == Uptake::Accepted) {
                status.acked += 1;
            }
        }
        let rejected = status.problems.len();
        status.state = if rejected > 0 && rejected == status.total {
            ObjectState::Rejected
        } else if rejected > 0 {
            ObjectState::Partial
        } else if status.acked == status.total && caught_up {
            ObjectState::Accepted
        } else {
            ObjectState::Pending
        };
        status
    }

    fn acked(&self, revision: u64) -> Acked {
        let mut acked = Acked::default();
        for ((node, _), streams) in self.by_node() {
            acked.total += 1;
            match streams.iter().find(|client| client.stream().revision() < revision) {
                None => acked.acked += 1,
                Some(client) => {
                    acked.laggards.push(Laggard { node, reason: client.lags_because() });
                }
            }
        }
        acked
    }

    fn effect(&self, config: Config) -> Effect {
        self.effect_of(config)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.statuses()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(at_first: EndpointHealth, ejected: bool, checks: &[bool]) -> EndpointHealth {
        let now = SystemTime::now();
        let until = now + Duration::from_secs(9);
        let seen: Vec<_> = checks
            .iter()
            .map(|&check_failed| {
                let observation = Observation {
                    address: ([127, 0, 0, 1], 1).into(),
                    active_requests: 0,
                    ejected: ejected.then(|| (until, "consecutive_5xx".to_owned())),
                    check_failed,
                };
                ("web-1".to_owned(), observation)
            })
            .collect();
        let mut endpoint = EndpointStatus {
            service: "api".to_owned(),
            instance: "api-1".to_owned(),
            address: "127.0.0.1".to_owned(),
            port: 1,
            health: at_first,
            ejected_until: None,
            ejected_because: None,
            weight: 1,
            active_requests: 0,
            locality: Default::default(),
            labels: Default::default(),
            seen_by: Vec::new(),
        };
        observe(&mut endpoint, &seen, now);
        assert_eq!(endpoint.ejected_until.is_some(), ejected && !checks.is_empty());
        endpoint.health
    }

    #[test]
    fn an_endpoint_is_unhealthy_if_one_caller_says_that_its_checks_fail() {
        use EndpointHealth::{Draining, Ejected, Healthy, Unhealthy};
        assert_eq!(health(Healthy, false, &[]), Healthy, "nobody looks at it");
        assert_eq!(health(Healthy, false, &[false, false]), Healthy);
        assert_eq!(health(Healthy, false, &[false, true]), Unhealthy);
        assert_eq!(health(Healthy, true, &[false]), Ejected);
        assert_eq!(health(Healthy, true, &[true]), Unhealthy, "which does not pass by itself");
        assert_eq!(health(Draining, true, &[true]), Draining);
    }
}
