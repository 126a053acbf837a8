//! Clusters that are discovered when they are needed.

use std::time::Duration;

use super::config_source::ConfigSource;

/// Where clusters come from that a request needs and nobody knows yet (`OnDemandCds`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDemandClusters {
    /// Who is asked for them, one by one: incrementally.
    pub source: ConfigSource,
    /// A request waits so long. Default 5 s.
    pub timeout: Duration,
}
