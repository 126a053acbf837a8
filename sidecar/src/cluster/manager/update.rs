//! What comes in of clusters: one is added, changed or removed, and what it had before goes on.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::assign::Transports;
use super::ejections::Ejections;
use super::health::Health;
use super::membership::Membership;
use super::original_dst::Tidying;
use super::{Entry, Manager};
use crate::cluster::circuit_breaker::{Breaker, BreakerGauges};
use crate::cluster::cluster::{Cluster, ClusterId};
use crate::cluster::event_log::OutlierLog;
use crate::cluster::host_set::HostSet;
use crate::cluster::outlier_detection::Detector;
use crate::config;
use crate::config::Rejected;
use crate::config::cluster::Discovery;
use crate::stats::{ClusterCells, ClusterUpdateCells, OutlierCells, Scope, TlsCells};
use crate::tls;

impl Manager {
    /// Adds a cluster, or puts a new configuration of it into effect.
    ///
    /// Endpoints stay the same objects wherever address and transport stay the same; ejections, active requests, circuit
    /// breakers and statistics go on. An EDS cluster whose endpoints are known already has them at once.
    ///
    /// # Errors
    /// If its TLS cannot be set up. The previous configuration stays in effect.
    pub(crate) fn set(
        &mut self,
        config: Arc<config::cluster::Cluster>,
        tls: &mut tls::Contexts,
    ) -> Result<(), Rejected> {
        let members = self.members_of(&config)?;
        let transports = Transports::new(&config, tls)?;
        let id = self.id(&config.name);
        let previous = self.entries.get_mut(id.index()).and_then(Option::take);
        if let Some(at) = previous.as_ref().and_then(|previous| previous.due) {
            self.due.remove(&(at, id));
        }
        match &previous {
            Some(_) => self.cells.local().cluster_modified.inc(),
            None => {
                self.cells.local().cluster_added.inc();
                self.cells.local().active_clusters.inc();
            }
        }
        if let Some(previous) = &previous {
            self.forget_service(id, &previous.cluster.config.discovery);
        }
        if let Discovery::Eds { service_name, .. } = &config.discovery {
            self.by_service.entry(Arc::clone(service_name)).or_default().push(id);
        }
        let weighing = previous.as_ref().and_then(|previous| previous.weighing);
        let entry = self.make_entry(id, config, members, transports, previous);
        if let Some(slot) = self.entries.get_mut(id.index()) {
            *slot = Some(entry);
        }
        self.changed.insert(id);
        self.plan_weighing(id, weighing);
        self.set_checks(id);
        self.start_discovery(id);
        self.follow_local();
        Ok(())
    }

    fn make_entry(
        &self,
        id: ClusterId,
        config: Arc<config::cluster::Cluster>,
        members: Option<Arc<[ClusterId]>>,
        transports: Transports,
        previous: Option<Entry>,
    ) -> Entry {
        let stat_name = |config: &config::cluster::Cluster| -> Arc<str> {
            config.alt_stat_name.as_deref().map_or_else(|| Arc::clone(&config.name), Arc::from)
        };
        let scope = Scope::Cluster(stat_name(&config));
        let stats = self.registry.scope::<ClusterCells>(scope.clone());
        let updates = self.registry.scope::<ClusterUpdateCells>(scope.clone());
        let tls_stats =
            transports.any_tls().then(|| self.registry.scope::<TlsCells>(scope.clone()));
        let comparisons = previous.as_ref().and_then(|it| it.cluster.detector.as_ref());
        let comparisons =
            comparisons.map_or_else(Arc::default, |before| Arc::clone(&before.comparisons));
        let detector = config.outlier_detection.clone().map(|config| Detector {
            comparisons,
            cluster: id,
            config,
            detected: self.detected.0.clone(),
        });
        let outlier_stats =
            detector.as_ref().map(|_| self.registry.scope::<OutlierCells>(scope.clone()));

        // The counts of the breakers and the hosts go on; a new name in statistics means new gauges.
        let renamed = previous
            .as_ref()
            .is_some_and(|previous| stat_name(&previous.cluster.config) != stat_name(&config));
        let breakers = match &previous {
            Some(previous) if !renamed => {
                let breakers = Arc::clone(&previous.cluster.breakers);
                for (breaker, limits) in breakers.iter().zip(&config.circuit_breakers) {
                    breaker.set_limits(limits);
                }
                breakers
            }
            _ => {
                let [default, high] = &config.circuit_breakers;
                Arc::new([
                    Breaker::new(default, Arc::clone(&stats)),
                    Breaker::new(high, Arc::clone(&stats)),
                ])
            }
        };
        let is_local = self.local.as_ref().is_some_and(|local| local.name == config.name);
        let hosts = match (&previous, &self.local) {
            (Some(previous), _) => Arc::clone(&previous.cluster.hosts),
            (None, Some(local)) if is_local => Arc::clone(&local.hosts),
            (None, _) => Arc::new(ArcSwap::from_pointee(HostSet::empty())),
        };
        let drop_overload = previous
            .as_ref()
            .map_or_else(Arc::default, |previous| Arc::clone(&previous.cluster.drop_overload));
        let drop_category = previous
            .as_ref()
            .map_or_else(Arc::default, |previous| Arc::clone(&previous.cluster.drop_category));
        let breaker_gauges = match &previous {
            Some(previous) if !renamed => Arc::clone(&previous.breaker_gauges),
            _ => Arc::new(BreakerGauges(Arc::clone(&breakers))),
        };
        let membership = Arc::new(Membership {
            hosts: Arc::clone(&hosts),
            ejects: config.outlier_detection.is_some(),
            checks: config.health_check.is_some(),
            weighs: match &config.discovery {
                Discovery::Eds { .. } => true,
                Discovery::Dns(dns) => !dns.logical,
                Discovery::Static(_) | Discovery::OriginalDst(_) | Discovery::Aggregate(_) => false,
            },
        });
        self.registry.add_source(scope.clone(), &breaker_gauges);
        self.registry.add_source(scope, &membership);

        let original_dst = matches!(config.discovery, Discovery::OriginalDst(_))
            .then(|| self.original_dst(id, &transports, previous.as_ref()));
        let cluster = Cluster {
            id,
            original_dst,
            bind: config.bind.clone().or_else(|| self.bind.clone()),
            name: Arc::clone(&config.name),
            stats,
            tls_stats,
            updates,
            hosts,
            members,
            drop_overload,
            drop_category,
            breakers,
            detector,
            health: config.health_check.as_ref().map(|_| self.health.0.clone()),
            config,
        };
        let now = Instant::now();
        let interval = |config: &config::cluster::Cluster| {
            config.outlier_detection.as_ref().map(|outlier| outlier.interval)
        };
        let (assignment, dns, mut ejections, health, initialized, tidying) = match previous {
            Some(previous) => {
                let mut ejections = previous.ejections;
                if interval(&previous.cluster.config) != interval(&cluster.config) {
                    ejections.restart(now);
                }
                let dns = match &cluster.config.discovery {
                    Discovery::Dns(config) => previous.dns.and_then(|dns| dns.adopt(config)),
                    Discovery::Static(_)
                    | Discovery::Aggregate(_)
                    | Discovery::Eds { .. }
                    | Discovery::OriginalDst(_) => None,
                };
                let Entry { assignment, ejections: _, health, initialized, tidying, .. } = previous;
                (assignment, dns, ejections, health, initialized, tidying)
            }
            None => (None, None, Ejections::new(now), Health::default(), false, Tidying::default()),
        };
        if cluster.config.outlier_detection.is_none() {
            ejections.forgive_all(&cluster);
        }
        let outlier_log = self
            .outlier_log
            .as_ref()
            .map(|path| OutlierLog { events: Arc::clone(&self.events), path: Arc::clone(path) });
        Entry {
            cluster: Arc::new(cluster),
            transports,
            local: self.local.clone().filter(|_| !is_local),
            assignment,
            dns,
            ejections,
            health,
            due: None,
            tidying,
            weighing: None,
            outlier_stats,
            outlier_log,
            initialized,
            breaker_gauges,
            _membership: membership,
        }
    }

    /// The members of an aggregate cluster, which need not exist.
    ///
    /// # Errors
    /// If it would be a member of itself, through however many others.
    fn members_of(
        &mut self,
        config: &config::cluster::Cluster,
    ) -> Result<Option<Arc<[ClusterId]>>, Rejected> {
        let Discovery::Aggregate(names) = &config.discovery else { return Ok(None) };
        let own = self.id(&config.name);
        let members: Vec<ClusterId> = names.iter().map(|name| self.id(name)).collect();
        for (index, (&member, name)) in members.iter().zip(names).enumerate() {
            let mut seen = BTreeSet::new();
            let mut open = vec![member];
            while let Some(id) = open.pop() {
                if id == own {
                    return Err(Rejected {
                        path: format!("cluster_type.typed_config.clusters[{index}]"),
                        reason: format!(
                            "{name:?} has this cluster among its own: an aggregate cannot be a member of itself"
                        ),
                    });
                }
                if seen.insert(id) {
                    let further = self.entry(id).and_then(|entry| entry.cluster.members.as_ref());
                    open.extend(further.iter().flat_map(|members| members.iter()));
                }
            }
        }
        Ok(Some(members.into()))
    }

    /// Removes a cluster. Requests under way keep its endpoints until they end.
    pub(crate) fn remove(&mut self, name: &str) {
        let Some(&id) = self.ids.get(name) else { return };
        let Some(entry) = self.entries.get_mut(id.index()).and_then(Option::take) else { return };
        self.forget_service(id, &entry.cluster.config.discovery);
        if let Some(places) = &entry.cluster.original_dst {
            places.clear();
        }
        if let Some(at) = entry.tidying.due() {
            self.untidy.remove(&(at, id));
        }
        if let Some(at) = entry.weighing {
            self.weighings.remove(&(at, id));
        }
        let hosts = entry.cluster.hosts.swap(Arc::new(HostSet::empty()));
        for endpoint in hosts.endpoints() {
            endpoint.set_gone();
            self.gone.push(Arc::clone(endpoint));
        }
        if let Some(at) = entry.due {
            self.due.remove(&(at, id));
        }
        self.changed.insert(id);
        self.cells.local().cluster_removed.inc();
        self.cells.local().active_clusters.dec();
    }
}
