//! Virtual hosts that come one by one (VHDS), and the route configurations that they belong to. Pure: no I/O, no time.
//!
//! A resource is named `ROUTES/HOST`: `ROUTES` is the route configuration. A server is asked for all it has of a route
//! configuration by the bare name of that one, and for the host that a request needs by the whole name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::Kind;
use super::needs::Need;
use crate::config::Rejected;
use crate::config::config_source::{ConfigSource, Origin};
use crate::config::route::{Domain, RouteConfiguration, VirtualHost};

/// Every route configuration that has virtual hosts of this kind.
#[derive(Debug, Default)]
pub(crate) struct VirtualHosts {
    tables: HashMap<Arc<str>, Table>,
}

/// One route configuration.
#[derive(Debug)]
struct Table {
    /// As RDS brought it.
    base: Arc<RouteConfiguration>,
    source: ConfigSource,
    /// By the names of their resources.
    hosts: BTreeMap<Arc<str>, Host>,
}

#[derive(Debug, Clone)]
struct Host {
    config: VirtualHost,
    /// The names by which it was asked for.
    asked_for: BTreeSet<Arc<str>>,
}

/// The route configuration that a virtual host belongs to, by the name of its resource.
pub(crate) fn routes_of(name: &str) -> Option<&str> {
    // A host has no slash, a route configuration may.
    name.rsplit_once('/').map(|(routes, _)| routes)
}

impl VirtualHosts {
    /// Takes a route configuration as it comes by RDS. Returns it with the virtual hosts that are known, and all that is
    /// not needed any more of those it had before, if they came from elsewhere.
    ///
    /// # Errors
    /// If a domain of it is taken by one of those that are known; then all stays as it is.
    pub(crate) fn set_routes(
        &mut self,
        routes: &Arc<RouteConfiguration>,
    ) -> Result<(Arc<RouteConfiguration>, Vec<Need>), Vec<Rejected>> {
        let name = &routes.name;
        let Some(source) = &routes.vhds else {
            return Ok((Arc::clone(routes), self.forget(name)));
        };
        let before = self.tables.get(name);
        let same = before.filter(|table| table.source.origin == source.origin);
        let hosts = same.map(|table| table.hosts.clone()).unwrap_or_default();
        let moved = before.is_some() && same.is_none();
        let table = Table { base: Arc::clone(routes), source: source.clone(), hosts };
        let merged = table.merged()?;
        let needless = if moved { self.forget(name) } else { Vec::new() };
        self.tables.insert(Arc::clone(name), table);
        Ok((merged, needless))
    }

    /// Forgets the virtual hosts of a route configuration. Returns all that was needed for them.
    pub(crate) fn forget(&mut self, routes: &Arc<str>) -> Vec<Need> {
        let Some(table) = self.tables.remove(routes) else { return Vec::new() };
        let asked_for = table.hosts.into_values().flat_map(|host| host.asked_for);
        let names = std::iter::once(Arc::clone(routes)).chain(asked_for);
        names.map(|name| Need::new(Kind::VirtualHost, &name, &table.source)).collect()
    }

    /// The route configurations that a source is asked about.
    pub(crate) fn all_of(&self, origin: &Origin) -> BTreeSet<Arc<str>> {
        let tables = self.tables.iter().filter(|(_, table)| table.source.origin == *origin);
        tables.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Who is asked for the virtual hosts of a route configuration.
    pub(crate) fn source(&self, routes: &str) -> Option<&ConfigSource> {
        self.tables.get(routes).map(|table| &table.source)
    }

    /// What the bare name of a route configuration asks for.
    pub(crate) fn need(&self, routes: &Arc<str>) -> Option<Need> {
        let source = self.source(routes)?;
        Some(Need::new(Kind::VirtualHost, routes, source))
    }

    /// Most bytes of a direct response of a virtual host that comes from this source; `None`: it belongs to no route
    /// configuration that asks there.
    pub(crate) fn limit_of(&self, name: &str, origin: &Origin) -> Option<u32> {
        let table = self.tables.get(routes_of(name)?)?;
        (table.source.origin == *origin).then_some(table.base.max_direct_response_body_size)
    }

    /// Takes a virtual host that was asked for by these names. Returns its route configuration with it.
    ///
    /// # Errors
    /// If a domain of it is taken; then all stays as it is.
    pub(crate) fn set(
        &mut self,
        name: &Arc<str>,
        config: VirtualHost,
        asked_for: impl IntoIterator<Item = Arc<str>>,
    ) -> Result<Option<Arc<RouteConfiguration>>, Vec<Rejected>> {
        let Some(table) = routes_of(name).and_then(|routes| self.tables.get_mut(routes)) else {
            return Ok(None);
        };
        let previous = table.hosts.remove(name);
        let mut names = previous.as_ref().map(|host| host.asked_for.clone()).unwrap_or_default();
        names.extend(asked_for);
        table.hosts.insert(Arc::clone(name), Host { config, asked_for: names });
        let merged = table.merged();
        if merged.is_err() {
            table.hosts.remove(name);
            if let Some(previous) = previous {
                table.hosts.insert(Arc::clone(name), previous);
            }
        }
        merged.map(Some)
    }

    /// A virtual host is gone. Returns its route configuration without it, and the names by which it was asked for.
    pub(crate) fn remove(
        &mut self,
        name: &str,
    ) -> Option<(Arc<RouteConfiguration>, BTreeSet<Arc<str>>)> {
        let table = self.tables.get_mut(routes_of(name)?)?;
        let host = table.hosts.remove(name)?;
        // With one host less no domain is taken that was not before.
        let merged = table.merged().ok()?;
        Some((merged, host.asked_for))
    }

    /// Whether a virtual host came that was asked for by this name.
    pub(crate) fn is_known(&self, asked_for: &str) -> bool {
        let table = routes_of(asked_for).and_then(|routes| self.tables.get(routes));
        table.is_some_and(|table| {
            table.hosts.iter().any(|(name, host)| {
                **name == *asked_for || host.asked_for.iter().any(|name| **name == *asked_for)
            })
        })
    }
}

impl Table {
    fn merged(&self) -> Result<Arc<RouteConfiguration>, Vec<Rejected>> {
        let mut merged = RouteConfiguration::clone(&self.base);
        let mut taken: HashMap<Domain, Arc<str>> = HashMap::new();
        let own = merged.virtual_hosts.iter();
        for (domain, host) in own.flat_map(|host| host.domains.iter().map(move |it| (it, host))) {
            taken.insert(domain.clone(), Arc::clone(&host.name));
        }
        let mut rejected = Vec::new();
        for host in self.hosts.values() {
            for (index, domain) in host.config.domains.iter().enumerate() {
                let name = Arc::clone(&host.config.name);
                if let Some(other) = taken.insert(domain.clone(), name) {
                    rejected.push(Rejected {
                        path: format!("domains[{index}]"),
                        reason: format!(
                            "duplicate: virtual host {other:?} has the domain {domain} already"
                        ),
                    });
                }
            }
            merged.virtual_hosts.push(host.config.clone());
        }
        if rejected.is_empty() { Ok(Arc::new(merged)) } else { Err(rejected) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::xds::testing;

    fn routes() -> Arc<RouteConfiguration> {
        let mut proto = testing::routes("a/r", "c");
        proto.virtual_hosts[0].domains = vec!["own.example".to_owned()];
        proto.vhds = Some(testing::read("{config_source: {ads: {}, resource_api_version: V3}}"));
        Arc::new(config::route::from_proto(proto).unwrap())
    }

    fn host(name: &str, domain: &str) -> VirtualHost {
        let text = format!("{{name: '{name}', domains: ['{domain}']}}");
        config::route::virtual_host_from_proto(testing::read(&text), 4096).unwrap()
    }

    fn names(routes: &RouteConfiguration) -> Vec<&str> {
        routes.virtual_hosts.iter().map(|host| &*host.name).skip(1).collect()
    }

    #[test]
    fn hosts_join_the_routes_they_are_named_after_and_stay_when_those_come_again() {
        let mut all = VirtualHosts::default();
        assert_eq!(all.set_routes(&routes()).unwrap().0.virtual_hosts.len(), 1);
        let merged = all.set(&"a/r/x".into(), host("x", "x.example"), []).unwrap().unwrap();
        assert_eq!(names(&merged), ["x"]);
        assert_eq!(names(&all.set_routes(&routes()).unwrap().0), ["x"]);
        assert!(all.set(&"other/x".into(), host("x", "x.example"), []).unwrap().is_none());
        let (merged, _) = all.remove("a/r/x").unwrap();
        assert!(names(&merged).is_empty());
        assert!(all.remove("a/r/x").is_none());
    }

    #[test]
    fn a_domain_that_is_taken_is_refused_and_what_was_there_stays() {
        let mut all = VirtualHosts::default();
        all.set_routes(&routes()).unwrap();
        all.set(&"a/r/x".into(), host("x", "x.example"), []).unwrap();
        for taken in ["own.example", "x.example"] {
            let rejected = all.set(&"a/r/y".into(), host("y", taken), []).unwrap_err();
            assert!(rejected[0].reason.contains(taken), "{rejected:?}");
        }
        all.set(&"a/r/x".into(), host("x", "own.example"), []).unwrap_err();
        let merged = all.set(&"a/r/z".into(), host("z", "z.example"), []).unwrap().unwrap();
        assert_eq!(names(&merged), ["x", "z"]);
    }

    #[test]
    fn routes_that_take_a_domain_of_a_known_host_are_refused_and_what_was_there_stays() {
        let mut all = VirtualHosts::default();
        all.set_routes(&routes()).unwrap();
        all.set(&"a/r/x".into(), host("x", "x.example"), []).unwrap();
        let mut taking = RouteConfiguration::clone(&routes());
        taking.virtual_hosts.push(host("other", "x.example"));
        all.set_routes(&Arc::new(taking)).unwrap_err();
        assert_eq!(names(&all.set_routes(&routes()).unwrap().0), ["x"]);
    }

    #[test]
    fn routes_without_hosts_of_this_kind_need_nothing_of_it_any_more() {
        let mut all = VirtualHosts::default();
        all.set_routes(&routes()).unwrap();
        all.set(&"a/r/x".into(), host("x", "x.example"), ["a/r/x.example".into()]).unwrap();
        let mut plain = RouteConfiguration::clone(&routes());
        plain.vhds = None;
        let (merged, needless) = all.set_routes(&Arc::new(plain)).unwrap();
        assert_eq!(merged.virtual_hosts.len(), 1);
        let needless: Vec<&str> = needless.iter().map(|need| &*need.name).collect();
        assert_eq!(needless, ["a/r", "a/r/x.example"]);
        assert!(all.source("a/r").is_none());
    }

    #[test]
    fn a_host_is_known_by_every_name_that_it_was_asked_for_by() {
        let mut all = VirtualHosts::default();
        all.set_routes(&routes()).unwrap();
        all.set(&"a/r/x".into(), host("x", "*.example"), ["a/r/b.example".into()]).unwrap();
        assert!(all.is_known("a/r/x") && all.is_known("a/r/b.example"));
        assert!(!all.is_known("a/r/c.example"));
        let (_, asked_for) = all.remove("a/r/x").unwrap();
        assert_eq!(asked_for.into_iter().collect::<Vec<_>>(), ["a/r/b.example".into()]);
        assert!(!all.is_known("a/r/b.example"));
    }
}
