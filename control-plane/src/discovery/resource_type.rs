//! The resource types that are served, in the order in which they are pushed.

/// A resource type. The order is the push order: what is named comes before what names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ResourceType {
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`
    Secret,
    /// `envoy.config.cluster.v3.Cluster`
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`
    Endpoint,
    /// `envoy.config.listener.v3.Listener`
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`
    Route,
}

impl ResourceType {
    /// All of them, in push order.
    pub(crate) const ALL: [Self; 5] =
        [Self::Secret, Self::Cluster, Self::Endpoint, Self::Listener, Self::Route];

    /// Position in [`ResourceType::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Type URL as it stands in requests, responses and `Any`s.
    pub(crate) const fn url(self) -> &'static str {
        match self {
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The type with this URL, if it is served.
    pub(crate) fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }

    /// Listeners and clusters: a state-of-the-world response is complete (what is missing is deleted), and a client may
    /// ask for all of them.
    pub(crate) const fn is_full_state(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}
