//! What each proxy is told, so that all of them do the same.
//!
//! A configuration is a template; [`Values`](outrigger_integration::bootstrap::Values) puts in the addresses: `ENTRY`,
//! where load comes in, `MIDDLE`, where the second of a pair listens, and those of the [upstream](crate::upstream).

mod envoy;
mod haproxy;
mod nginx;

pub(crate) use envoy::{control_plane_client, plain as envoy_plain};

use crate::peer::Peer;

/// What stands between the load and the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    /// HTTP/1 on both sides.
    Http1,
    /// HTTP/2 without TLS on both sides.
    Http2,
    /// The same, to the upstream of gRPC.
    Grpc,
    /// Mutual TLS with HTTP/2 towards the client, HTTP/1 to the upstream.
    MutualTls,
    /// Two proxies: HTTP/1, then HTTP/2 over mutual TLS between them, then HTTP/1.
    Pair,
    /// As `Http1`, with a JSON access log, RBAC of 20 policies, a local rate limit, and 200 routes.
    Everything,
    /// Bytes.
    Tcp,
    /// Bytes, after a look at the server name.
    TlsPassthrough,
}

/// The configurations of all processes of a peer, in the order a request meets them. `None`: it cannot do that.
pub(crate) fn configs(case: Case, peer: Peer) -> Option<Vec<String>> {
    match peer {
        Peer::Outrigger | Peer::Envoy => Some(envoy::configs(case)),
        Peer::Haproxy => haproxy::configs(case),
        Peer::Nginx => nginx::configs(case),
    }
}
