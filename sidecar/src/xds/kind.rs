//! The resource types we subscribe to.

use std::fmt;

/// A type of resource.
///
/// The order is the one in which changes take effect without a gap (make before break): clusters with their secrets and
/// endpoints before the listeners and routes that name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `envoy.config.cluster.v3.Cluster`
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`
    Endpoint,
    /// `envoy.config.listener.v3.Listener`
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`
    Route,
    /// `envoy.config.route.v3.VirtualHost`: by the incremental variant only
    VirtualHost,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`
    Secret,
    /// `envoy.config.core.v3.TypedExtensionConfig`
    Extension,
    /// `envoy.service.runtime.v3.Runtime`
    Runtime,
}

impl Kind {
    /// Every type, in the order above.
    pub(crate) const ALL: [Self; 8] = [
        Self::Cluster,
        Self::Endpoint,
        Self::Listener,
        Self::Route,
        Self::VirtualHost,
        Self::Secret,
        Self::Extension,
        Self::Runtime,
    ];

    /// The type URL, as in `DiscoveryRequest.type_url`.
    pub(crate) const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::VirtualHost => "type.googleapis.com/envoy.config.route.v3.VirtualHost",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Extension => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::Runtime => "type.googleapis.com/envoy.service.runtime.v3.Runtime",
        }
    }

    /// The type of this URL, if it is one of ours.
    pub(crate) fn from_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// Whether a state-of-the-world response of this type is complete, so that what is absent is deleted, and whether an
    /// empty subscription means "everything". True for listeners and clusters only.
    pub(crate) const fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }

    /// Whether a name that is asked for also stands for all that is named `NAME/…`. True for virtual hosts only.
    pub(crate) const fn has_prefixes(self) -> bool {
        matches!(self, Self::VirtualHost)
    }

    /// The name people use for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Endpoint => "load assignment",
            Self::Listener => "listener",
            Self::Route => "route configuration",
            Self::VirtualHost => "virtual host",
            Self::Secret => "secret",
            Self::Extension => "extension configuration",
            Self::Runtime => "runtime layer",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
