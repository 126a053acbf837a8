//! Listener filters: what looks at a connection before a filter chain takes it.

use super::proxy_protocol::TlvTypes;

/// One of a listener's filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerFilter {
    /// What it does.
    pub kind: ListenerFilterKind,
    /// Connections that it leaves alone; `None`: it sees every one.
    pub disabled: Option<Predicate>,
}

/// What a listener filter does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerFilterKind {
    /// Reads a ClientHello: transport protocol, server name, application protocols.
    TlsInspector,
    /// Reads the first line of a request: application protocols of a connection without TLS.
    HttpInspector,
    /// Asks the kernel where a redirected connection was going to.
    OriginalDst,
    /// Reads the PROXY protocol: where a connection comes from and was going to.
    ProxyProtocol(ProxyProtocol),
}

/// A validated `envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// A connection without it passes as it is.
    pub allow_requests_without_proxy_protocol: bool,
    /// Version 1, the line of text, is spoken. At least one of the two is.
    pub version_1: bool,
    /// Version 2, the binary one, is spoken.
    pub version_2: bool,
    /// What is kept of the values behind the addresses, for endpoints that are told in the same way.
    pub keeps: TlvTypes,
    /// `proxy_proto.STAT_PREFIX.…` in statistics; empty: `proxy_proto.…`.
    pub stat_prefix: Box<str>,
}

/// A validated `ListenerFilterChainMatchPredicate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predicate {
    /// Every connection.
    Any,
    /// One of them holds.
    Or(Vec<Predicate>),
    /// All of them hold.
    And(Vec<Predicate>),
    /// It does not hold.
    Not(Box<Predicate>),
    /// The port that the client connected to is in `[start, end)`.
    DestinationPorts {
        /// First port that matches.
        start: i32,
        /// First port that no longer matches.
        end: i32,
    },
}

impl Predicate {
    /// Whether it holds for a connection to this port.
    pub fn holds(&self, destination_port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::Or(any) => any.iter().any(|one| one.holds(destination_port)),
            Self::And(all) => all.iter().all(|one| one.holds(destination_port)),
            Self::Not(not) => !not.holds(destination_port),
            Self::DestinationPorts { start, end } => {
                (*start..*end).contains(&i32::from(destination_port))
            }
        }
    }
}
