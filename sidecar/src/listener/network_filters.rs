//! Network filters, compiled: whether a connection may come in, and where it goes, before the last filter of its chain takes
//! it.
//!
//! Some decide when the connection is there, before TLS: [`NetworkFilters::admit`]. Access control decides once the peer
//! is known: [`NetworkFilters::permit`]. Envoy's decides with the first byte that the client sends, when the endpoint has
//! been connected to already; ours lets nobody through who has not been let in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::network_rbac;
use crate::config::network_filter::{self as config, NetworkFilter};
use crate::config::runtime::RuntimeFlag;
use crate::config::token_bucket::TokenBucket;
use crate::stats::{
    ConnectionLimitCells, NetworkRateLimitCells, RbacCells, RbacShadowCells, Registry, Scope,
    Sharded,
};
use crate::tls::TlsFacts;
use crate::transport::Ends;

/// The filters of a chain that stand before its last.
#[derive(Default)]
pub(crate) struct NetworkFilters(Box<[Filter]>);

enum Filter {
    RateLimit {
        bucket: Arc<TokenBucket>,
        enabled: RuntimeFlag,
        stats: Arc<Sharded<NetworkRateLimitCells>>,
    },
    ConnectionLimit(Arc<Limit>),
    SniCluster,
    Rbac(Box<Rbac>),
}

struct Limit {
    config: config::ConnectionLimit,
    active: AtomicU64,
    stats: Arc<Sharded<ConnectionLimitCells>>,
}

struct Rbac {
    config: config::NetworkRbac,
    stats: Arc<Sharded<RbacCells>>,
    shadow_stats: Arc<Sharded<RbacShadowCells>>,
}

/// A connection that may come in.
#[derive(Default)]
pub(crate) struct Admitted {
    /// Where it goes, instead of where its last filter says.
    pub(crate) cluster: Option<Box<str>>,
    counted: Vec<Counted>,
}

/// A connection that a limit counts, and shows in its gauge; shown only, if it is one too many.
struct Counted {
    limit: Arc<Limit>,
    has_place: bool,
}

impl Counted {
    fn take(limit: &Arc<Limit>) -> Self {
        let most = limit.config.max_connections;
        let taken = limit
            .active
            .fetch_update(Relaxed, Relaxed, |active| (active < most).then_some(active + 1));
        limit.stats.local().active_connections.inc();
        Self { limit: Arc::clone(limit), has_place: taken.is_ok() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.has_place {
            self.limit.active.fetch_sub(1, Relaxed);
        }
        self.limit.stats.local().active_connections.dec();
    }
}

/// What a filter says of a connection that may not come in.
pub(crate) struct Denied {
    /// How long it is left open.
    pub(crate) delay: Duration,
    /// What logs say of its end.
    pub(crate) details: Option<Box<str>>,
    /// Until then it is shown.
    _counted: Vec<Counted>,
}

/// What access control looks at.
pub(crate) struct Peer<'a> {
    pub(crate) ends: &'a Ends,
    /// Server name of TLS, if there is one.
    pub(crate) server_name: Option<&'a str>,
    pub(crate) tls: Option<&'a TlsFacts>,
}

impl NetworkFilters {
    pub(crate) fn build(filters: &[NetworkFilter], registry: &Arc<Registry>) -> Self {
        let filter = |filter: &NetworkFilter| match filter {
            NetworkFilter::LocalRateLimit(config) => Filter::RateLimit {
                bucket: Arc::clone(&config.bucket),
                enabled: config.enabled.clone(),
                stats: registry.scope(Scope::NetworkRateLimit(Arc::clone(&config.stat_prefix))),
            },
            NetworkFilter::ConnectionLimit(config) => Filter::ConnectionLimit(Arc::new(Limit {
                stats: registry.scope(Scope::ConnectionLimit(Arc::clone(&config.stat_prefix))),
                config: config.clone(),
                active: AtomicU64::new(0),
            })),
            NetworkFilter::SniCluster => Filter::SniCluster,
            NetworkFilter::Rbac(config) => {
                let prefix = Arc::clone(&config.stat_prefix);
                let shadow = Arc::clone(&config.shadow_prefix);
                Filter::Rbac(Box::new(Rbac {
                    stats: registry.scope(Scope::NetworkRbac(Arc::clone(&prefix), "".into())),
                    shadow_stats: registry.scope(Scope::NetworkRbac(prefix, shadow)),
                    config: config.clone(),
                }))
            }
        };
        Self(filters.iter().map(filter).collect())
    }

    /// Decides when a connection is there.
    ///
    /// # Errors
    /// What it is to be told, and when.
    pub(crate) fn admit(&self, server_name: Option<&str>) -> Result<Admitted, Denied> {
        let mut admitted = Admitted::default();
        for filter in &self.0 {
            match filter {
                Filter::RateLimit { bucket, enabled, stats } => {
                    if enabled.current() && !bucket.take(1) {
                        stats.local().rate_limited.inc();
                        let counted = admitted.counted;
                        return Err(Denied {
                            delay: Duration::ZERO,
                            details: None,
                            _counted: counted,
                        });
                    }
                }
                Filter::ConnectionLimit(limit) => {
                    if !limit.config.enabled.current() {
                        continue;
                    }
                    let counted = Counted::take(limit);
                    let is_let_in = counted.has_place;
                    admitted.counted.push(counted);
                    if !is_let_in {
                        limit.stats.local().limited_connections.inc();
                        let (delay, counted) = (limit.config.delay, admitted.counted);
                        return Err(Denied { delay, details: None, _counted: counted });
                    }
                }
                Filter::SniCluster => {
                    // As in Envoy, no server name is the name of no cluster.
                    admitted.cluster = Some(server_name.unwrap_or_default().into());
                }
                Filter::Rbac(_) => {}
            }
        }
        Ok(admitted)
    }

    /// Decides once the peer is known.
    ///
    /// # Errors
    /// What it is to be told, and when.
    pub(crate) fn permit(&self, peer: &Peer<'_>) -> Result<(), Denied> {
        for filter in &self.0 {
            let Filter::Rbac(rbac) = filter else { continue };
            if let Some(shadow) = &rbac.config.shadow_rules {
                let stats = rbac.shadow_stats.local();
                match network_rbac::decide(shadow, peer).0 {
                    true => stats.shadow_allowed.inc(),
                    false => stats.shadow_denied.inc(),
                }
            }
            let Some(rules) = &rbac.config.rules else { continue };
            let (allowed, policy) = network_rbac::decide(rules, peer);
            if allowed {
                rbac.stats.local().allowed.inc();
                continue;
            }
            rbac.stats.local().denied.inc();
            let policy = policy.unwrap_or("none");
            let details = format!("rbac_access_denied_matched_policy[{policy}]");
            let details = Some(details.replace(' ', "_").into());
            return Err(Denied { delay: rbac.config.delay_deny, details, _counted: Vec::new() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::runtime::{LayerSource, Layers, RuntimeLayer, Values, of_text};

    #[test]
    fn the_runtime_turns_a_limit_on_and_off() {
        let limit = config::ConnectionLimit {
            stat_prefix: "a".into(),
            max_connections: 1,
            delay: Duration::ZERO,
            enabled: RuntimeFlag::new(false, "t.network.limit"),
        };
        let filters =
            NetworkFilters::build(&[NetworkFilter::ConnectionLimit(limit)], &Registry::new(1));
        let second_comes_in = || {
            let first = filters.admit(None);
            let second = filters.admit(None).is_ok();
            assert!(first.is_ok());
            second
        };
        assert!(second_comes_in());
        let layer = RuntimeLayer { name: "a".into(), source: LayerSource::Admin };
        let mut layers = Layers::new(&[layer]);
        layers.set(0, Values::from([("t.network.limit".into(), of_text("true"))]));
        assert!(!second_comes_in());
        layers.set(0, Values::new());
        assert!(second_comes_in());
    }
}
