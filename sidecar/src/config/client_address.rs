//! Who a request comes from, and whether that is one of us.

use std::net::IpAddr;

use http::{HeaderName, StatusCode};
use ipnet::IpNet;

/// Addresses that count as internal: what comes from there may steer timeouts and retries by `x-envoy-*` headers. Nobody,
/// where nothing is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InternalAddresses {
    /// Whoever is in one of these.
    pub ranges: Box<[IpNet]>,
    /// Whoever connects to a Unix domain socket.
    pub unix_sockets: bool,
}

impl InternalAddresses {
    /// Whether a client is one of them; without an address it is at the other end of a Unix domain socket.
    pub fn contains(&self, client: Option<IpAddr>) -> bool {
        match client {
            Some(address) => self.ranges.iter().any(|range| range.contains(&address)),
            None => self.unix_sockets,
        }
    }
}

/// A way to find out who the client is (`original_ip_detection_extensions`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAddress {
    /// By `x-forwarded-for`.
    ForwardedFor {
        /// Which entries to trust.
        trust: TrustedProxies,
        /// Append the peer. One that is not trusted is appended in any case.
        append: bool,
    },
    /// By a header that holds nothing but the address.
    Header {
        /// Its name.
        name: HeaderName,
        /// The address may count as internal.
        trusted: bool,
        /// Answer a request without such an address with this status; `None`: the peer is the client.
        reject: Option<StatusCode>,
    },
}

/// Which entries of `x-forwarded-for` were written by proxies that are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedProxies {
    /// So many from the right, beside the peer.
    Hops(u32),
    /// Those of these addresses, if the peer is one of them.
    Ranges(Box<[IpNet]>),
}
