//! Where discovered resources come from.

use std::sync::Arc;
use std::time::Duration;

use super::bootstrap::DiscoveryService;

/// A validated `envoy.config.core.v3.ConfigSource`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConfigSource {
    /// Who is asked.
    pub origin: Origin,
    /// Longest wait for the first answer before whoever needs it goes on without; `None` for ever. Default 15 s.
    pub initial_fetch_timeout: Option<Duration>,
}

/// Who is asked for resources. Two sources that say the same are one: their names share a stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The aggregated discovery service of the bootstrap.
    Ads,
    /// A discovery service of one type (`api_config_source`).
    Service(Arc<DiscoveryService>),
}
