//! From a load assignment to endpoints, the same objects where they stay the same.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::cluster::endpoint::{Endpoint, EndpointId};
use crate::cluster::host_set::{HostSet, LocalityHosts, Members};
use crate::config::Rejected;
use crate::config::address::Address;
use crate::config::cluster::Cluster;
use crate::config::endpoint::{CheckTarget, LoadAssignment, Locality, Metadata, MetadataMatch};
use crate::config::proxy_protocol::UpstreamProxyProtocol;
use crate::config::tls::UpstreamTls;
use crate::tls::{ClientContext, Contexts};

/// The filter name under which an endpoint's metadata chooses its transport.
const MATCH_KEY: &str = "envoy.transport_socket_match";

/// A cluster's transports.
pub(super) struct Transports {
    default: Way,
    matches: Vec<(MetadataMatch, Way)>,
}

/// How an endpoint is connected to.
#[derive(Clone, Default)]
pub(super) struct Way {
    /// `None`: plaintext.
    pub(super) tls: Option<Arc<ClientContext>>,
    /// It is told, below TLS, whom a connection is for.
    pub(super) proxy_protocol: Option<Arc<UpstreamProxyProtocol>>,
}

impl Transports {
    /// # Errors
    /// If a TLS context cannot be set up; names the field.
    pub(super) fn new(config: &Cluster, tls: &mut Contexts) -> Result<Self, Rejected> {
        let mut context = |transport: &Option<Arc<UpstreamTls>>, path: &str| {
            let client = transport.as_ref().map(|transport| tls.client(transport)).transpose();
            client.map_err(|rejected| {
                let separator = if rejected.path.is_empty() { "" } else { "." };
                Rejected { path: format!("{path}{separator}{}", rejected.path), ..rejected }
            })
        };
        let default = Way {
            tls: context(&config.transport, "transport_socket")?,
            proxy_protocol: config.proxy_protocol.clone(),
        };
        let mut matches = Vec::with_capacity(config.transport_socket_matches.len());
        for (at, candidate) in config.transport_socket_matches.iter().enumerate() {
            let path = format!("transport_socket_matches[{at}].transport_socket");
            let tls = context(&candidate.transport, &path)?;
            let way = Way { tls, proxy_protocol: candidate.proxy_protocol.clone() };
            matches.push((candidate.matches.clone(), way));
        }
        Ok(Self { default, matches })
    }

    /// Whether any endpoint may speak TLS.
    pub(super) fn any_tls(&self) -> bool {
        self.default.tls.is_some() || self.matches.iter().any(|(_, way)| way.tls.is_some())
    }

    /// The transport of an endpoint: of the first match, or the cluster's own.
    pub(super) fn of(&self, metadata: &Metadata) -> Way {
        let chosen = self.matches.iter().find(|(matcher, _)| matcher.matches(metadata, MATCH_KEY));
        chosen.map_or(&self.default, |(_, way)| way).clone()
    }
}

/// What makes an endpoint the same one.
type Identity = (
    Address,
    Arc<[SocketAddr]>,
    Arc<str>,
    *const ClientContext,
    Option<Arc<UpstreamProxyProtocol>>,
);

fn identity(
    address: &Address,
    additional: &Arc<[SocketAddr]>,
    hostname: &Arc<str>,
    way: &Way,
) -> Identity {
    let tls = way.tls.as_ref().map_or(std::ptr::null(), Arc::as_ptr);
    let told = way.proxy_protocol.clone();
    (address.clone(), Arc::clone(additional), Arc::clone(hostname), tls, told)
}

/// The members of the next host set.
pub(super) struct NextMembers {
    members: Vec<Members>,
    ids: HashSet<EndpointId>,
    /// Where endpoints are checked that are checked in a way of their own.
    targets: HashMap<EndpointId, Arc<CheckTarget>>,
    left: HashSet<EndpointId>,
}

impl NextMembers {
    pub(super) fn contains(&self, id: EndpointId) -> bool {
        self.ids.contains(&id)
    }

    /// Every endpoint.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.members.iter().flat_map(|members| members.all.iter())
    }

    /// How the endpoint is checked, if not as the cluster says.
    pub(super) fn target(&self, id: EndpointId) -> Option<&Arc<CheckTarget>> {
        self.targets.get(&id)
    }

    /// Whether the assignment does not have it any more, and it was kept.
    pub(super) fn has_left(&self, id: EndpointId) -> bool {
        self.left.contains(&id)
    }

    pub(super) fn into_members(self) -> Vec<Members> {
        self.members
    }
}

/// The members of one priority, while they are gathered.
#[derive(Default)]
struct Level {
    all: Vec<Arc<Endpoint>>,
    localities: Vec<LocalityHosts>,
    seen: HashSet<EndpointId>,
}

/// Makes the members of the next host set, and says whether any endpoint came or went.
///
/// An endpoint that `before` has under the same address, host name and transport is taken over with everything that is
/// known of it, whatever its priority and locality; another one is made by `make`. Within a priority an endpoint that is
/// listed twice counts once. One that `before` has and the assignment does not stays where it was, if `keeps` says so.
pub(super) fn members(
    assignment: &LoadAssignment,
    transports: &Transports,
    before: &HostSet,
    keeps: &dyn Fn(&Endpoint) -> bool,
    make: &mut dyn FnMut(Address, Arc<str>, Option<Arc<ClientContext>>) -> Endpoint,
) -> (NextMembers, bool) {
    let mut known: HashMap<Identity, Arc<Endpoint>> = before
        .endpoints()
        .map(|endpoint| {
            let way = Way {
                tls: endpoint.transport.clone(),
                proxy_protocol: endpoint.proxy_protocol.clone(),
            };
            let identity = identity(
                &endpoint.address,
                &endpoint.additional_addresses,
                &endpoint.hostname,
                &way,
            );
            (identity, Arc::clone(endpoint))
        })
        .collect();
    let known_before = known.len();

    let levels = assignment.localities.iter().map(|group| group.priority).max();
    let mut next: Vec<Level> =
        (0..levels.map_or(0, |highest| highest + 1)).map(|_| Level::default()).collect();
    let mut ids = HashSet::new();
    let mut targets = HashMap::new();
    let mut made = false;
    for group in &assignment.localities {
        let Some(Level { all, localities, seen }) = next.get_mut(group.priority as usize) else {
            continue;
        };
        let start = all.len();
        for endpoint in &group.endpoints {
            let Some(address) = endpoint.address.known() else { continue };
            let way = transports.of(&endpoint.metadata);
            let additional = &endpoint.additional_addresses;
            let identity = identity(&address, additional, &endpoint.hostname, &way);
            let same = known.entry(identity).or_insert_with(|| {
                made = true;
                let made = make(address, Arc::clone(&endpoint.hostname), way.tls);
                Arc::new(made.at(additional).told(way.proxy_protocol))
            });
            if seen.insert(same.id) {
                same.update(endpoint.weight, endpoint.health, &endpoint.metadata);
                ids.insert(same.id);
                targets.extend(endpoint.check.iter().map(|at| (same.id, Arc::clone(at))));
                all.push(Arc::clone(same));
            }
        }
        let count = all.len() - start;
        let locality = Arc::clone(&group.locality);
        localities.push(LocalityHosts { locality, weight: group.weight, start, count });
    }
    let kept: Vec<_> = before
        .located()
        .filter(|(_, _, endpoint)| !ids.contains(&endpoint.id) && keeps(endpoint))
        .collect();
    let mut left = HashSet::new();
    for (priority, locality, endpoint) in kept {
        if !left.insert(endpoint.id) {
            continue;
        }
        next.resize_with(next.len().max(priority + 1), Level::default);
        if let Some(level) = next.get_mut(priority) {
            level.keep(locality, endpoint);
        }
    }
    ids.extend(&left);
    let members = next
        .into_iter()
        .map(|level| Members { all: level.all.into(), localities: level.localities.into() })
        .collect();
    let changed = made || ids.len() != known_before;
    (NextMembers { members, ids, targets, left }, changed)
}

impl Level {
    /// Puts an endpoint into the group of its locality, or at the end into one of its own.
    fn keep(&mut self, locality: &Arc<Locality>, endpoint: &Arc<Endpoint>) {
        let group = self.localities.iter().position(|group| *group.locality == **locality);
        let Some(group) = group else {
            let start = self.all.len();
            let locality = Arc::clone(locality);
            self.localities.push(LocalityHosts { locality, weight: None, start, count: 1 });
            self.all.push(Arc::clone(endpoint));
            return;
        };
        for (at, other) in self.localities.iter_mut().enumerate() {
            if at == group {
                self.all.insert(other.start + other.count, Arc::clone(endpoint));
                other.count += 1;
            } else if at > group {
                other.start += 1;
            }
        }
    }
}
