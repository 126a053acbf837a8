//! From a request to its route: the virtual host by `Host`, then the first route that matches.
//!
//! A host is found by at most one hash lookup for the exact name and one for each length of a wildcard. Routes are tried
//! in the order of the configuration; where there are many, an index by path names the few that can match at all.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};
use smallvec::SmallVec;

use super::matching::RequestView;
use super::stream_state::{filter_state_of, metadata_of};
use crate::access_log::Needs;
use crate::cluster::ClusterId;
use crate::config;
use crate::config::header::HeaderTemplate;
use crate::config::mirror::{Mirror, MirrorCluster};
use crate::config::route::{
    ClusterSpecifier, Domain, PathSpecifier, RouteAction, RouteMatch, WeightedCluster,
};
use crate::config::runtime::RuntimeNumber;

/// From this number of routes on, a virtual host has an index.
const INDEXED_FROM: usize = 8;

/// A route configuration, compiled: cluster names are ids, domains and paths are indexed.
#[derive(Debug)]
pub(crate) struct RouteTable {
    /// Where it comes from: mutations of the outermost level stand there.
    pub(crate) config: Arc<config::route::RouteConfiguration>,
    hosts: Box<[VirtualHost]>,
    exact: HashMap<Box<str>, usize>,
    /// Without the star, longest first.
    suffixes: Box<[ByLength]>,
    /// Without the star, longest first.
    prefixes: Box<[ByLength]>,
    any: Option<usize>,
    /// What additions to responses ask of the request.
    pub(crate) needs: Needs,
}

/// Wildcard domains of one length.
#[derive(Debug)]
struct ByLength {
    length: usize,
    hosts: HashMap<Box<str>, usize>,
}

/// A virtual host, compiled.
#[derive(Debug)]
pub(crate) struct VirtualHost {
    index: usize,
    routes: Box<[Route]>,
    paths: Option<PathIndex>,
}

/// A route, compiled.
#[derive(Debug)]
pub(crate) struct Route {
    /// Where it comes from.
    pub(crate) config: Arc<config::route::Route>,
    /// Where a forwarded request goes.
    pub(crate) target: Target,
    /// Where copies of it go: its own mirrors, or else those of the level above.
    pub(crate) mirrors: Box<[MirrorTo]>,
}

/// A mirror, compiled.
#[derive(Debug)]
pub(crate) struct MirrorTo {
    pub(crate) config: Arc<Mirror>,
    /// `None`: a header of the request names it.
    pub(crate) cluster: Option<ClusterId>,
}

/// The clusters of a route.
#[derive(Debug)]
pub(crate) enum Target {
    /// The route does not forward.
    None,
    /// One cluster.
    Cluster(ClusterId),
    /// Several: the running sum of the weights, and the cluster, in the order of the configuration.
    Weighted {
        /// Sum up to and including this one, and the cluster.
        choices: Box<[(u64, Choice)]>,
        /// The whole sum; more than 0.
        total: u64,
        /// The header whose number is drawn instead of a random one.
        drawn: Option<HeaderName>,
    },
    /// Several, by shares that the runtime may change.
    Adjustable {
        /// The share of each, and the cluster.
        choices: Box<[(RuntimeNumber, Choice)]>,
        /// The header whose number is drawn instead of a random one.
        drawn: Option<HeaderName>,
    },
    /// The one that this header names.
    Header(HeaderName),
}

/// One of several clusters.
#[derive(Debug)]
pub(crate) enum Choice {
    /// This one.
    Cluster(ClusterId),
    /// The one that this header names.
    Header(HeaderName),
}

impl Choice {
    fn build(cluster: &WeightedCluster, resolve: &mut dyn FnMut(&Arc<str>) -> ClusterId) -> Self {
        match &cluster.header {
            Some(name) => Self::Header(name.clone()),
            None => Self::Cluster(resolve(&cluster.name)),
        }
    }

    fn id(&self, headers: &HeaderMap, named: impl FnOnce(&str) -> Option<ClusterId>) -> ClusterId {
        match self {
            Self::Cluster(id) => *id,
            Self::Header(name) => {
                let name = headers.get(name).and_then(|name| name.to_str().ok());
                name.and_then(named).unwrap_or(NOWHERE)
            }
        }
    }
}

/// A cluster that there is not.
const NOWHERE: ClusterId = ClusterId(u32::MAX);

/// A number below `total`: the request's own, or a random one.
fn draw(total: u64, drawn: Option<&HeaderName>, headers: &HeaderMap) -> u64 {
    let own = drawn.and_then(|name| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        value.to_str().ok()?.trim().parse::<u64>().ok()
    });
    let total = total.max(1);
    own.map_or_else(|| fastrand::u64(0..total), |own| own % total)
}

impl Target {
    /// A cluster, and its place among the weighted clusters if there are several. `named` finds one by its name.
    pub(crate) fn choose(
        &self,
        headers: &HeaderMap,
        named: impl FnOnce(&str) -> Option<ClusterId>,
    ) -> Option<(ClusterId, Option<usize>)> {
        match self {
            Self::None => None,
            Self::Header(name) => Some((named(headers.get(name)?.to_str().ok()?)?, None)),
            Self::Cluster(id) => Some((*id, None)),
            Self::Weighted { choices, total, drawn } => {
                let draw = draw(*total, drawn.as_ref(), headers);
                let index = choices.partition_point(|(sum, _)| *sum <= draw);
                let (_, choice) = choices.get(index)?;
                Some((choice.id(headers, named), Some(index)))
            }
            Self::Adjustable { choices, drawn } => {
                let total: u64 = choices.iter().map(|(weight, _)| weight.whole()).sum();
                let mut draw = draw(total, drawn.as_ref(), headers);
                let (index, (_, choice)) =
                    choices.iter().enumerate().find(|(_, (weight, _))| {
                        let weight = weight.whole();
                        let is_chosen = draw < weight;
                        draw = draw.saturating_sub(weight);
                        is_chosen
                    })?;
                Some((choice.id(headers, named), Some(index)))
            }
        }
    }
}

impl RouteTable {
    /// Compiles a route configuration; `resolve` says which id a cluster name has.
    pub(crate) fn build(
        config: &Arc<config::route::RouteConfiguration>,
        resolve: &mut dyn FnMut(&Arc<str>) -> ClusterId,
    ) -> Self {
        let mut table = Self {
            config: Arc::clone(config),
            hosts: Box::default(),
            exact: HashMap::new(),
            suffixes: Box::default(),
            prefixes: Box::default(),
            any: None,
            needs: needs_of_responses(config),
        };
        let (mut suffixes, mut prefixes) = (Vec::new(), Vec::new());
        let mut hosts = Vec::with_capacity(config.virtual_hosts.len());
        for (index, host) in config.virtual_hosts.iter().enumerate() {
            for domain in &host.domains {
                match domain {
                    Domain::Exact(name) => drop(table.exact.insert(name.clone(), index)),
                    Domain::Suffix(suffix) => insert_wildcard(&mut suffixes, suffix, index),
                    Domain::Prefix(prefix) => insert_wildcard(&mut prefixes, prefix, index),
                    Domain::Any => table.any = Some(index),
                }
            }
            hosts.push(VirtualHost::build(index, host, &config.mirrors, resolve));
        }
        table.hosts = hosts.into();
        table.suffixes = longest_first(suffixes);
        table.prefixes = longest_first(prefixes);
        table
    }

    /// The virtual host for a `Host` (any case, with its port if it has one).
    pub(crate) fn host(&self, host: &str) -> Option<&VirtualHost> {
        let host = if self.config.ignore_port_in_host_matching { without_port(host) } else { host };
        let host = lower_case(host);
        let wildcard = |by_length: &ByLength, part: Option<&str>| {
            part.filter(|_| host.len() > by_length.length)
                .and_then(|part| by_length.hosts.get(part))
                .copied()
        };
        let index = self
            .exact
            .get(&*host)
            .copied()
            .or_else(|| {
                self.suffixes.iter().find_map(|suffixes| {
                    let start = host.len().checked_sub(suffixes.length)?;
                    wildcard(suffixes, host.get(start..))
                })
            })
            .or_else(|| {
                self.prefixes
                    .iter()
                    .find_map(|prefixes| wildcard(prefixes, host.get(..prefixes.length)))
            })
            .or(self.any)?;
        self.hosts.get(index)
    }

    /// The configuration of a virtual host of this table.
    pub(crate) fn host_config(&self, host: &VirtualHost) -> Option<&config::route::VirtualHost> {
        self.config.virtual_hosts.get(host.index)
    }
}

impl VirtualHost {
    fn build(
        index: usize,
        host: &config::route::VirtualHost,
        outer: &[Arc<Mirror>],
        resolve: &mut dyn FnMut(&Arc<str>) -> ClusterId,
    ) -> Self {
        let routes = &host.routes;
        let mirrors = if host.mirrors.is_empty() { outer } else { &host.mirrors };
        let paths = (routes.len() >= INDEXED_FROM)
            .then(|| PathIndex::build(routes.iter().map(|route| &route.matches)));
        let routes = routes.iter().map(|route| Route::build(route, mirrors, resolve)).collect();
        Self { index, routes, paths }
    }

    /// The first route that matches.
    pub(crate) fn route(&self, request: &RequestView<'_>) -> Option<&Route> {
        match &self.paths {
            None => self.routes.iter().find(|route| route.config.matches.matches(request)),
            Some(paths) => paths
                .candidates(request.path)
                .into_iter()
                .filter_map(|index| self.routes.get(index as usize))
                .find(|route| route.config.matches.matches(request)),
        }
    }
}

impl Route {
    fn build(
        route: &Arc<config::route::Route>,
        outer: &[Arc<Mirror>],
        resolve: &mut dyn FnMut(&Arc<str>) -> ClusterId,
    ) -> Self {
        let mirrors = match &route.action {
            RouteAction::Forward(forward) if !forward.mirrors.is_empty() => &forward.mirrors,
            RouteAction::Forward(_) => outer,
            RouteAction::Redirect(_) | RouteAction::DirectResponse { .. } => &[],
        };
        let mirrors = mirrors.iter().map(|mirror| MirrorTo {
            config: Arc::clone(mirror),
            cluster: match &mirror.cluster {
                MirrorCluster::Cluster(name) => Some(resolve(name)),
                MirrorCluster::Header(_) => None,
            },
        });
        let mirrors = mirrors.collect();
        let target = match &route.action {
            RouteAction::Redirect(_) | RouteAction::DirectResponse { .. } => Target::None,
            RouteAction::Forward(forward) => match &forward.cluster {
                ClusterSpecifier::Cluster(name) => Target::Cluster(resolve(name)),
                ClusterSpecifier::Header(name) => Target::Header(name.clone()),
                ClusterSpecifier::Weighted(clusters)
                    if clusters.iter().any(|cluster| cluster.runtime_weight.is_some()) =>
                {
                    let weight = |cluster: &WeightedCluster| {
                        let weight = f64::from(cluster.weight);
                        cluster.runtime_weight.clone().unwrap_or_else(|| weight.into())
                    };
                    let choice = |cluster: &WeightedCluster| {
                        (weight(cluster), Choice::build(cluster, resolve))
                    };
                    let choices = clusters.iter().map(choice).collect();
                    Target::Adjustable { choices, drawn: forward.weighted_by.clone() }
                }
                ClusterSpecifier::Weighted(clusters) => {
                    let mut total = 0;
                    let choices = clusters
                        .iter()
                        .map(|cluster| {
                            total += u64::from(cluster.weight);
                            (total, Choice::build(cluster, resolve))
                        })
                        .collect();
                    Target::Weighted { choices, total, drawn: forward.weighted_by.clone() }
                }
            },
        };
        Self { config: Arc::clone(route), target, mirrors }
    }
}

impl RouteMatch {
    /// Whether every criterion holds.
    pub(crate) fn matches(&self, request: &RequestView<'_>) -> bool {
        self.path_matches(request.method, request.path)
            && (!self.grpc || request.is_grpc())
            && self.headers.iter().all(|header| header.matches(request))
            && self.query_parameters.iter().all(|parameter| parameter.matches(request.query))
            && self.runtime_fraction.as_ref().is_none_or(|share| {
                let (numerator, denominator) = share.current();
                fastrand::u32(0..denominator.max(1)) < numerator
            })
            && self.dynamic_metadata.iter().all(|it| it.matches(metadata_of(request.state)))
            && self.filter_state.iter().all(|it| it.matches(filter_state_of(request.state)))
    }

    fn path_matches(&self, method: &Method, path: &str) -> bool {
        let is_connect = path.is_empty() && *method == Method::CONNECT;
        if is_connect {
            // Without a path nothing else fits, not even an empty prefix.
            return matches!(self.path, PathSpecifier::Connect);
        }
        let path = path.as_bytes();
        let equal = |part: &[u8], text: &str| {
            if self.case_sensitive {
                part == text.as_bytes()
            } else {
                part.eq_ignore_ascii_case(text.as_bytes())
            }
        };
        let begins = |text: &str| path.get(..text.len()).is_some_and(|head| equal(head, text));
        match &self.path {
            PathSpecifier::Prefix(prefix) => begins(prefix),
            PathSpecifier::Path(whole) => equal(path, whole),
            PathSpecifier::PathSeparatedPrefix(prefix) => {
                begins(prefix) && matches!(path.get(prefix.len()), None | Some(b'/'))
            }
            PathSpecifier::Regex(regex) => regex.is_match(path),
            PathSpecifier::Template(template) => template.0.is_match(path),
            PathSpecifier::Connect => false,
        }
    }
}

/// Routes by path: for a path, the few routes that can match, in order.
#[derive(Debug, Default)]
struct PathIndex {
    exact: HashMap<Box<str>, Vec<u32>>,
    /// Sorted. All prefixes of a path are one entry and its ancestors: see [`PathIndex::candidates`].
    prefixes: Box<[PrefixEntry]>,
    /// Routes that are tried for every path: regexes, and those that ignore case.
    others: Vec<u32>,
}

#[derive(Debug)]
struct PrefixEntry {
    prefix: Box<str>,
    /// The longest other entry that this one begins with.
    parent: Option<u32>,
    routes: Vec<u32>,
}

impl PathIndex {
    fn build<'a>(matches: impl Iterator<Item = &'a RouteMatch>) -> Self {
        let mut index = Self::default();
        let mut prefixes: std::collections::BTreeMap<Box<str>, Vec<u32>> = Default::default();
        for (route, matches) in (0..).zip(matches) {
            match &matches.path {
                PathSpecifier::Path(path) if matches.case_sensitive => {
                    index.exact.entry(path.clone()).or_default().push(route);
                }
                PathSpecifier::Prefix(prefix) | PathSpecifier::PathSeparatedPrefix(prefix)
                    if matches.case_sensitive =>
                {
                    prefixes.entry(prefix.clone()).or_default().push(route);
                }
                _ => index.others.push(route),
            }
        }
        let mut entries: Vec<PrefixEntry> = Vec::with_capacity(prefixes.len());
        for (prefix, routes) in prefixes {
            // The entry before this one, or an ancestor of it, is the longest that this one begins with.
            let mut parent = entries.len().checked_sub(1);
            while let Some(at) = parent {
                let entry = &entries[at];
                if prefix.starts_with(&*entry.prefix) {
                    break;
                }
                parent = entry.parent.map(|at| at as usize);
            }
            entries.push(PrefixEntry { prefix, parent: parent.map(|at| at as u32), routes });
        }
        index.prefixes = entries.into();
        index
    }

    /// Indices of the routes that can match, in order.
    fn candidates(&self, path: &str) -> SmallVec<[u32; 16]> {
        let mut found: SmallVec<[u32; 16]> = SmallVec::new();
        found.extend_from_slice(&self.others);
        if let Some(routes) = self.exact.get(path) {
            found.extend_from_slice(routes);
        }
        // Every prefix of the path sorts at or before it, and the greatest entry at or before the path either is such a
        // prefix or begins with all of them: they are its ancestors.
        let mut at = self.prefixes.partition_point(|entry| *entry.prefix <= *path).checked_sub(1);
        while let Some(entry) = at.and_then(|at| self.prefixes.get(at)) {
            if path.starts_with(&*entry.prefix) {
                found.extend_from_slice(&entry.routes);
            }
            at = entry.parent.map(|at| at as usize);
        }
        found.sort_unstable();
        found
    }
}

fn needs_of_responses(config: &config::route::RouteConfiguration) -> Needs {
    let routes = config.virtual_hosts.iter().flat_map(|host| &host.routes);
    let clusters = routes.clone().flat_map(|route| match &route.action {
        RouteAction::Forward(forward) => match &forward.cluster {
            ClusterSpecifier::Weighted(clusters) => clusters.as_slice(),
            ClusterSpecifier::Cluster(_) | ClusterSpecifier::Header(_) => &[],
        },
        _ => &[],
    });
    let mutations = std::iter::once(&config.response_headers)
        .chain(config.virtual_hosts.iter().map(|host| &host.response_headers))
        .chain(routes.map(|route| &route.response_headers))
        .chain(clusters.map(|cluster| &cluster.response_headers));
    Needs::of_formats(mutations.flat_map(|mutations| &mutations.add).filter_map(|addition| {
        match &addition.value {
            HeaderTemplate::Format(format) => Some(format),
            HeaderTemplate::Fixed(_) => None,
        }
    }))
}

fn insert_wildcard(domains: &mut Vec<ByLength>, part: &str, host: usize) {
    let by_length = match domains.iter().position(|by_length| by_length.length == part.len()) {
        Some(at) => &mut domains[at],
        None => {
            domains.push(ByLength { length: part.len(), hosts: HashMap::new() });
            let last = domains.len() - 1;
            &mut domains[last]
        }
    };
    by_length.hosts.insert(part.into(), host);
}

fn longest_first(mut domains: Vec<ByLength>) -> Box<[ByLength]> {
    domains.sort_by_key(|by_length| std::cmp::Reverse(by_length.length));
    domains.into()
}

/// A host without its port; brackets of an IPv6 address are kept.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if host.ends_with(|last: char| last.is_ascii_digit() || last == ':') => {
            let name = &host[..colon];
            // A bare IPv6 address has colons and no brackets: it has no port.
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

fn lower_case(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        host.to_ascii_lowercase().into()
    } else {
        host.into()
    }
}

#[cfg(test)]
mod tests;
