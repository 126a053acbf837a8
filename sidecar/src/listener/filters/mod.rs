//! Listener filters, compiled: what looks at a connection before a chain is chosen, one after the other.
//!
//! The bytes that they look at stay in front of the connection, so that whatever comes after sees every one of them. Only
//! the PROXY protocol takes its own away.

mod http_inspector;
mod original_dst;
mod proxy_protocol;
mod tls_inspector;

use std::io;
use std::sync::Arc;

use crate::config::listener::TransportProtocol;
use crate::config::listener_filter::{self as config, ListenerFilterKind, Predicate};
use crate::stats::{
    HttpInspectorCells, ProxyProtocolCells, Registry, Scope, Sharded, TlsInspectorCells,
};
use crate::transport::{Ends, Socket};

/// What is known of a connection before a chain takes it.
#[derive(Debug)]
pub(crate) struct Found {
    /// Where it comes from and was going to.
    pub(crate) ends: Ends,
    /// TLS, or something else, which is what it is taken for until a filter says so.
    pub(crate) transport_protocol: TransportProtocol,
    /// Server name, lower case.
    pub(crate) server_name: Option<Box<str>>,
    /// Protocols that the client offers, in its order, or speaks.
    pub(crate) application_protocols: Vec<Vec<u8>>,
}

impl Found {
    /// What is known from the start.
    pub(crate) fn new(ends: Ends) -> Self {
        Self {
            ends,
            transport_protocol: TransportProtocol::RawBuffer,
            server_name: None,
            application_protocols: Vec::new(),
        }
    }
}

/// How a filter let go of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passed {
    /// The next one takes it.
    On,
    /// The client went away before the filter knew what it wanted to know.
    RemoteClosed,
    /// The filter does not let it pass, and has counted why.
    Refused,
}

/// A listener's filter, compiled.
pub(crate) struct Filter {
    disabled: Option<Predicate>,
    kind: Kind,
}

enum Kind {
    TlsInspector(Arc<Sharded<TlsInspectorCells>>),
    HttpInspector(Arc<Sharded<HttpInspectorCells>>),
    OriginalDst,
    ProxyProtocol(Box<config::ProxyProtocol>, Box<ProxyProtocolStats>),
}

/// What the PROXY protocol is counted in.
struct ProxyProtocolStats {
    /// Without a prefix of the filter.
    errors: Arc<Sharded<crate::stats::ProxyProtocolErrorCells>>,
    own: Arc<Sharded<ProxyProtocolCells>>,
}

impl Filter {
    pub(crate) fn build(config: &config::ListenerFilter, registry: &Arc<Registry>) -> Self {
        let kind = match &config.kind {
            ListenerFilterKind::TlsInspector => {
                Kind::TlsInspector(registry.scope(Scope::Root("tls_inspector")))
            }
            ListenerFilterKind::HttpInspector => {
                Kind::HttpInspector(registry.scope(Scope::Root("http_inspector")))
            }
            ListenerFilterKind::OriginalDst => Kind::OriginalDst,
            ListenerFilterKind::ProxyProtocol(config) => {
                let stats = ProxyProtocolStats {
                    errors: registry.scope(Scope::Root("")),
                    own: registry.scope(Scope::ProxyProtocol((*config.stat_prefix).into())),
                };
                Kind::ProxyProtocol(Box::new(config.clone()), Box::new(stats))
            }
        };
        Self { disabled: config.disabled.clone(), kind }
    }
}

/// Shows a connection to each filter. What one finds counts for the next; what was found stays in `found` when this future
/// is dropped on its way.
///
/// # Errors
/// What the socket says.
pub(crate) async fn run(
    filters: &[Filter],
    socket: &mut Socket,
    found: &mut Found,
) -> io::Result<Passed> {
    for filter in filters {
        let port = found.ends.local.port().unwrap_or(0);
        if filter.disabled.as_ref().is_some_and(|predicate| predicate.holds(port)) {
            continue;
        }
        let passed = match &filter.kind {
            Kind::TlsInspector(stats) => {
                tls_inspector::inspect(socket, stats.local(), found).await?
            }
            Kind::HttpInspector(stats) => {
                http_inspector::inspect(socket, stats.local(), found).await?
            }
            Kind::OriginalDst => {
                original_dst::restore(socket, found);
                Passed::On
            }
            Kind::ProxyProtocol(config, stats) => {
                proxy_protocol::read(socket, config, stats, found).await?
            }
        };
        if passed != Passed::On {
            return Ok(passed);
        }
    }
    Ok(Passed::On)
}
