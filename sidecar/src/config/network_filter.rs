//! Network filters that stand before the one that takes a connection: whether it may come in, and where it goes.

use std::sync::Arc;
use std::time::Duration;

use super::rbac::Rules;
use super::runtime::RuntimeFlag;
use super::token_bucket::TokenBucket;

/// A filter of a chain, before its last.
#[derive(Debug, Clone)]
pub enum NetworkFilter {
    /// Who may connect.
    Rbac(NetworkRbac),
    /// How often.
    LocalRateLimit(NetworkRateLimit),
    /// How many at once.
    ConnectionLimit(ConnectionLimit),
    /// The server name of TLS is the name of the cluster.
    SniCluster,
}

/// A validated `envoy.extensions.filters.network.rbac.v3.RBAC`.
#[derive(Debug, Clone)]
pub struct NetworkRbac {
    /// `None`: the filter enforces nothing.
    pub rules: Option<Rules>,
    /// Rules that are only counted.
    pub shadow_rules: Option<Rules>,
    /// Goes before `rbac.` in statistics, as it stands.
    pub stat_prefix: Arc<str>,
    /// Goes behind `rbac.` in statistics of the rules that are only counted, as it stands.
    pub shadow_prefix: Arc<str>,
    /// How long a connection that is denied is left open.
    pub delay_deny: Duration,
}

/// A validated `envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit`.
#[derive(Debug, Clone)]
pub struct NetworkRateLimit {
    /// `local_rate_limit.STAT_PREFIX.…` in statistics.
    pub stat_prefix: Arc<str>,
    /// Each connection takes a token.
    pub bucket: Arc<TokenBucket>,
    /// Off, it lets everything pass.
    pub enabled: RuntimeFlag,
}

/// A validated `envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit`.
#[derive(Debug, Clone)]
pub struct ConnectionLimit {
    /// `connection_limit.STAT_PREFIX.…` in statistics.
    pub stat_prefix: Arc<str>,
    /// Connections at a time, of all workers; at least 1.
    pub max_connections: u64,
    /// How long a connection that is too much is left open.
    pub delay: Duration,
    /// Off, it lets everything pass.
    pub enabled: RuntimeFlag,
}
