//! What a scope is called: the prefix of its names, and its tags in Prometheus.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

/// The owner of a group of statistics.
///
/// Envoy finds the tags of a Prometheus series by regular expressions over the full name; here they are known from the
/// start, with the same result. The text of a scope is made when statistics are printed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// Names without a prefix; the string is a dotted stem such as `tls_inspector`, `http1`, `dns`, `filesystem`.
    Root(&'static str),
    /// `cluster.NAME`; the name is the cluster's `alt_stat_name` where it has one.
    Cluster(Arc<str>),
    /// `cluster.NAME.ratelimit`, and `.STAT_PREFIX` of a filter that has one
    ClusterRateLimit(Arc<str>, Arc<str>),
    /// `cluster_manager`
    ClusterManager,
    /// `cluster_manager.cds`
    Cds,
    /// `http.STAT_PREFIX.FILTER.LIBRARY`, and `.DIRECTION` where it is of one: filters that compress
    Coding { filter: &'static str, prefix: Arc<str>, library: Arc<str>, direction: &'static str },
    /// `connection_limit.STAT_PREFIX`
    ConnectionLimit(Arc<str>),
    /// `control_plane`
    ControlPlane,
    /// `extension_config_discovery.http_filter.NAME`
    ExtensionConfig(Arc<str>),
    /// `http.STAT_PREFIX`
    Http(Arc<str>),
    /// `http.STAT_PREFIX.FILTER`, and `.PREFIX` where the filter has one of its own
    HttpFilter(&'static str, Arc<str>, Arc<str>),
    /// `http.STAT_PREFIX.rds.ROUTE_CONFIG`
    Rds(Arc<str>, Arc<str>),
    /// `http.STAT_PREFIX.vhds.ROUTE_CONFIG`
    Vhds(Arc<str>, Arc<str>),
    /// `listener.ADDRESS`, or `listener.STAT_PREFIX` of a listener that has one
    Listener(Arc<str>),
    /// `listener.ADDRESS.http.STAT_PREFIX`
    ListenerHttp(Arc<str>, Arc<str>),
    /// `listener.ADDRESS.worker_INDEX`; indexes count from 0
    ListenerWorker(Arc<str>, usize),
    /// `listener_manager`
    ListenerManager,
    /// `listener_manager.lds`
    Lds,
    /// `STAT_PREFIX.http_local_rate_limit`
    LocalRateLimit(Arc<str>),
    /// `local_rate_limit.STAT_PREFIX`
    NetworkRateLimit(Arc<str>),
    /// `access_logs.open_telemetry_access_log`, and `.STAT_PREFIX` of a log that has one
    OtelLog(Arc<str>),
    /// `PREFIXrbac`, or `PREFIXrbac.SHADOW_PREFIX` of rules that are only counted: as they stand, without a dot between
    NetworkRbac(Arc<str>, Arc<str>),
    /// `proxy_proto`, or `proxy_proto.STAT_PREFIX` of a filter that has one
    ProxyProtocol(Arc<str>),
    /// `sds.SECRET`
    Sds(Arc<str>),
    /// `server`
    Server,
    /// `tcp.STAT_PREFIX`
    Tcp(Arc<str>),
}

/// A label of a Prometheus series.
pub(crate) type Tag = (&'static str, String);

impl Scope {
    /// The prefix of full names, without a dot at its end. Empty for none.
    pub(crate) fn prefix(&self) -> String {
        match self {
            Self::Root(stem) => (*stem).to_owned(),
            Self::Cluster(name) => format!("cluster.{}", Segment(name)),
            Self::ClusterRateLimit(name, own) if own.is_empty() => {
                format!("cluster.{}.ratelimit", Segment(name))
            }
            Self::ClusterRateLimit(name, own) => {
                format!("cluster.{}.ratelimit.{}", Segment(name), Segment(own))
            }
            Self::ClusterManager => "cluster_manager".to_owned(),
            Self::Cds => "cluster_manager.cds".to_owned(),
            Self::Coding { filter, prefix, library, direction } => {
                let dot = if direction.is_empty() { "" } else { "." };
                format!("http.{}.{filter}.{}{dot}{direction}", Segment(prefix), Segment(library))
            }
            Self::ConnectionLimit(prefix) => format!("connection_limit.{}", Segment(prefix)),
            Self::ControlPlane => "control_plane".to_owned(),
            Self::ExtensionConfig(name) => {
                format!("extension_config_discovery.http_filter.{}", Segment(name))
            }
            Self::Http(prefix) => format!("http.{}", Segment(prefix)),
            Self::HttpFilter(filter, prefix, own) if own.is_empty() => {
                format!("http.{}.{filter}", Segment(prefix))
            }
            Self::HttpFilter(filter, prefix, own) => {
                format!("http.{}.{filter}.{}", Segment(prefix), Segment(own))
            }
            Self::Rds(prefix, route) => format!("http.{}.rds.{}", Segment(prefix), Segment(route)),
            Self::Vhds(prefix, route) => {
                format!("http.{}.vhds.{}", Segment(prefix), Segment(route))
            }
            Self::Listener(address) => format!("listener.{}", Segment(address)),
            Self::ListenerHttp(address, prefix) => {
                format!("listener.{}.http.{}", Segment(address), Segment(prefix))
            }
            Self::ListenerWorker(address, index) => {
                format!("listener.{}.worker_{index}", Segment(address))
            }
            Self::ListenerManager => "listener_manager".to_owned(),
            Self::Lds => "listener_manager.lds".to_owned(),
            Self::LocalRateLimit(prefix) => format!("{}.http_local_rate_limit", Segment(prefix)),
            Self::NetworkRateLimit(prefix) => format!("local_rate_limit.{}", Segment(prefix)),
            Self::OtelLog(prefix) if prefix.is_empty() => {
                "access_logs.open_telemetry_access_log".to_owned()
            }
            Self::OtelLog(prefix) => {
                format!("access_logs.open_telemetry_access_log.{}", Segment(prefix))
            }
            Self::NetworkRbac(prefix, shadow) => {
                // What is written ends in a dot, as a rule, so that a name comes out.
                let prefix = format!("{}rbac.{}", Segment(prefix), Segment(shadow));
                prefix.trim_end_matches('.').to_owned()
            }
            Self::ProxyProtocol(prefix) if prefix.is_empty() => "proxy_proto".to_owned(),
            Self::ProxyProtocol(prefix) => format!("proxy_proto.{}", Segment(prefix)),
            Self::Sds(name) => format!("sds.{}", Segment(name)),
            Self::Server => "server".to_owned(),
            Self::Tcp(prefix) => format!("tcp.{}", Segment(prefix)),
        }
    }

    /// The prefix with its variable parts taken out: what the name of a Prometheus metric begins with.
    pub(crate) fn stem(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            // Envoy makes no tag of this one.
            Self::ExtensionConfig(_) | Self::OtelLog(_) => return self.prefix().into(),
            // Envoy makes no tag of the library.
            Self::Coding { filter, library, direction, .. } => {
                let dot = if direction.is_empty() { "" } else { "." };
                return format!("http.{filter}.{}{dot}{direction}", Segment(library)).into();
            }
            Self::Root(stem) => stem,
            Self::Cluster(_) => "cluster",
            // Envoy makes no tag of the filter's prefix.
            Self::ClusterRateLimit(_, own) if own.is_empty() => "cluster.ratelimit",
            Self::ClusterRateLimit(_, own) => {
                return format!("cluster.ratelimit.{}", Segment(own)).into();
            }
            Self::ClusterManager => "cluster_manager",
            Self::Cds => "cluster_manager_cds",
            Self::ConnectionLimit(_) => "connection_limit",
            Self::ControlPlane => "control_plane",
            Self::Http(_) => "http",
            Self::HttpFilter("rbac", ..) => "http_rbac",
            Self::HttpFilter("jwt_authn", ..) => "http_jwt_authn",
            Self::HttpFilter("ext_authz", ..) => "http_ext_authz",
            Self::HttpFilter(..) => "http",
            Self::Rds(..) => "http_rds",
            Self::Vhds(..) => "http_vhds",
            Self::Listener(_) => "listener",
            Self::ListenerHttp(..) => "listener_http",
            Self::ListenerWorker(..) => "listener_worker",
            Self::ListenerManager => "listener_manager",
            Self::Lds => "listener_manager_lds",
            Self::LocalRateLimit(_) => "http_local_rate_limit",
            Self::NetworkRateLimit(_) => "local_rate_limit",
            Self::NetworkRbac(..) => "rbac",
            Self::ProxyProtocol(_) => "proxy_proto",
            Self::Sds(_) => "sds",
            Self::Server => "server",
            Self::Tcp(_) => "tcp",
        })
    }

    /// The variable parts, as labels.
    pub(crate) fn tags(&self) -> Vec<Tag> {
        let tag = |name: &'static str, value: &str| (name, Segment(value).to_string());
        match self {
            Self::Cluster(name) | Self::ClusterRateLimit(name, _) => {
                vec![tag("envoy_cluster_name", name)]
            }
            Self::Http(prefix) | Self::Coding { prefix, .. } => {
                vec![tag("envoy_http_conn_manager_prefix", prefix)]
            }
            Self::HttpFilter(_, prefix, own) => {
                let mut tags = vec![tag("envoy_http_conn_manager_prefix", prefix)];
                tags.extend((!own.is_empty()).then(|| tag("envoy_http_filter_prefix", own)));
                tags
            }
            Self::Rds(prefix, route) => vec![
                tag("envoy_http_conn_manager_prefix", prefix),
                tag("envoy_rds_route_config", route),
            ],
            Self::Vhds(prefix, route) => vec![
                tag("envoy_http_conn_manager_prefix", prefix),
                tag("envoy_vhds_route_config", route),
            ],
            Self::Listener(address) => vec![tag("envoy_listener_address", address)],
            Self::ListenerHttp(address, prefix) => vec![
                tag("envoy_http_conn_manager_prefix", prefix),
                tag("envoy_listener_address", address),
            ],
            Self::ListenerWorker(address, index) => {
                vec![("envoy_worker_id", index.to_string()), tag("envoy_listener_address", address)]
            }
            Self::LocalRateLimit(prefix) => vec![tag("envoy_local_http_ratelimit_prefix", prefix)],
            Self::ConnectionLimit(prefix) => {
                vec![tag("envoy_connection_limit_prefix", prefix)]
            }
            Self::NetworkRateLimit(prefix) => {
                vec![tag("envoy_local_network_ratelimit_prefix", prefix)]
            }
            Self::NetworkRbac(prefix, _) => vec![tag("envoy_rbac_prefix", prefix)],
            Self::ProxyProtocol(prefix) if prefix.is_empty() => Vec::new(),
            Self::ProxyProtocol(prefix) => vec![tag("envoy_proxy_protocol_prefix", prefix)],
            Self::Sds(name) => vec![tag("envoy_xds_resource_name", name)],
            Self::Tcp(prefix) => vec![tag("envoy_tcp_prefix", prefix)],
            Self::Root(_)
            | Self::ClusterManager
            | Self::Cds
            | Self::ControlPlane
            | Self::ExtensionConfig(_)
            | Self::OtelLog(_)
            | Self::ListenerManager
            | Self::Lds
            | Self::Server => Vec::new(),
        }
    }
}

/// A name inside of a dotted name: `://`, `:/`, `:` and NUL become `_`, as in Envoy's `sanitizeStatsName`.
struct Segment<'a>(&'a str);

impl std::fmt::Display for Segment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find([':', '\0']) {
            f.write_str(&rest[..at])?;
            f.write_char('_')?;
            rest = &rest[at..];
            rest =
                rest.strip_prefix("://").or_else(|| rest.strip_prefix(":/")).unwrap_or(&rest[1..]);
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colons_in_names_become_underscores_as_in_envoy() {
        assert_eq!(Scope::Cluster("a:b".into()).prefix(), "cluster.a_b");
        assert_eq!(Scope::Listener("[::1]:80".into()).prefix(), "listener.[__1]_80");
        assert_eq!(Scope::Cluster("http://x:/y".into()).prefix(), "cluster.http_x_y");
    }

    #[test]
    fn inner_tags_come_first() {
        let scope = Scope::ListenerHttp("127.0.0.1:80".into(), "ingress".into());
        assert_eq!(scope.prefix(), "listener.127.0.0.1_80.http.ingress");
        assert_eq!(scope.stem(), "listener_http");
        let tags: Vec<_> = scope.tags().into_iter().map(|(name, _)| name).collect();
        assert_eq!(tags, ["envoy_http_conn_manager_prefix", "envoy_listener_address"]);
    }
}
