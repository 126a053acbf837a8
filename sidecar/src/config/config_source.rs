//! Where discovered resources come from.

use std::path::PathBuf;
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
    /// A file, watched (`path_config_source`, or the deprecated `path`).
    File(Arc<ConfigFile>),
}

/// A file of resources.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigFile {
    /// Where it is. It was there when this was read.
    pub path: PathBuf,
    /// Another folder to watch.
    pub watched_directory: Option<WatchedDirectory>,
    /// The file is read so often instead of watched. At least 1 ms.
    pub poll_interval: Option<Duration>,
}

/// A folder whose changes mean that a file has changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatchedDirectory {
    /// Where it is: whatever is moved into it counts.
    pub path: PathBuf,
    /// What is written in it counts too.
    pub watch_modify: bool,
}
