//! Listeners and their filter chains.

pub use super::convert::listener as from_proto;

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::access_log::AccessLog;
use super::address::Address;
use super::cluster::TcpKeepalive;
use super::http_connection_manager::HttpConnectionManager;
use super::listener_filter::ListenerFilter;
use super::network_filter::NetworkFilter;
use super::socket_option::SocketOption;
use super::tcp_proxy::TcpProxy;
use super::tls::DownstreamTls;

/// A validated `envoy.config.listener.v3.Listener`.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Unique name.
    pub name: Arc<str>,
    /// Address to bind. Port 0 binds a free one, as in Envoy.
    pub address: Address,
    /// Settings of the sockets at `address`.
    pub socket: Arc<SocketSettings>,
    /// Further addresses, with the settings of their sockets.
    pub additional_addresses: Vec<(Address, Arc<SocketSettings>)>,
    /// What stands in statistics instead of the address, `listener.STAT_PREFIX.…`.
    pub stat_prefix: Option<Box<str>>,
    /// Chains in the order of the configuration. No two match the same connections.
    pub filter_chains: Vec<FilterChain>,
    /// Chain for a connection that no other chain matches.
    pub default_filter_chain: Option<FilterChain>,
    /// Connections that were redirected to this listener go to the one that has the address they were going to, if there is
    /// one.
    pub use_original_dst: bool,
    /// It has a socket. Without one it only takes connections that others hand over.
    pub bind_to_port: bool,
    /// What looks at a connection before a chain is chosen, in this order.
    pub filters: Vec<ListenerFilter>,
    /// Longest time that listener filters may take; `None` for no limit. Default 15 s.
    pub listener_filters_timeout: Option<Duration>,
    /// Go on with what is known when the time is over, instead of closing.
    pub continue_on_listener_filters_timeout: bool,
    /// Soft limit of the bytes held for one connection, per direction. Default 1 MiB.
    pub per_connection_buffer_limit: usize,
    /// `/healthcheck/fail` asks its clients to go elsewhere too, and not only its own update or removal.
    pub drains_on_health_check_failure: bool,
    /// Inbound or outbound, where the configuration says so.
    pub traffic_direction: TrafficDirection,
    /// Logs of connections.
    pub access_logs: Vec<AccessLog>,
}

impl Listener {
    /// Its addresses with the settings of their sockets, the main one first.
    pub fn addresses(&self) -> impl Iterator<Item = (&Address, &Arc<SocketSettings>)> {
        let more = self.additional_addresses.iter().map(|(address, socket)| (address, socket));
        std::iter::once((&self.address, &self.socket)).chain(more)
    }
}

/// Settings of listening sockets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SocketSettings {
    /// Length of the kernel's accept queue; `None` for our default.
    pub backlog: Option<u32>,
    /// One socket for each worker (SO_REUSEPORT). Default true.
    pub reuse_port: bool,
    /// Connections to addresses of others are taken (TPROXY); `None`: the kernel's default.
    pub transparent: Option<bool>,
    /// The address need not be there yet; `None`: the kernel's default.
    pub freebind: Option<bool>,
    /// TCP keep-alive of the connections; `None`: as all have it.
    pub keepalive: Option<TcpKeepalive>,
    /// Permissions of the file of a Unix domain socket; `None`: as the process makes files.
    pub mode: Option<u32>,
    /// Further options.
    pub options: Vec<SocketOption>,
}

/// Envoy's `TrafficDirection`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrafficDirection {
    /// Not said.
    #[default]
    Unspecified,
    /// To the application behind this proxy.
    Inbound,
    /// From it.
    Outbound,
}

/// A validated `FilterChain`.
#[derive(Debug, Clone)]
pub struct FilterChain {
    /// Name, or empty.
    pub name: Arc<str>,
    /// Which connections it takes; all criteria empty: every connection.
    pub matches: FilterChainMatch,
    /// TLS towards the client.
    pub tls: Option<Arc<DownstreamTls>>,
    /// Longest time for the TLS handshake; `None` for no limit.
    pub transport_socket_connect_timeout: Option<Duration>,
    /// What a connection has to pass before, in this order.
    pub filters: Vec<NetworkFilter>,
    /// What takes the connection at the end.
    pub terminal: TerminalFilter,
    /// Hash of the encoded proto: a chain with the same fingerprint is kept across listener updates, connections included.
    pub fingerprint: u64,
}

/// A validated `FilterChainMatch`: criteria, each of which must hold if it is not empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FilterChainMatch {
    /// Port the client connected to.
    pub destination_port: Option<u16>,
    /// Addresses, one of which has the one the client connected to.
    pub prefix_ranges: Vec<IpNet>,
    /// Server names of TLS, lower case.
    pub server_names: Vec<ServerNamePattern>,
    /// `raw_buffer` or `tls`, as the tls_inspector found it.
    pub transport_protocol: Option<TransportProtocol>,
    /// ALPN protocols, any of which the client must offer.
    pub application_protocols: Vec<Box<[u8]>>,
    /// Addresses, one of which has the peer of the connection itself, whatever it says of where it comes from.
    pub direct_source_prefix_ranges: Vec<IpNet>,
    /// Whether the client is on this machine.
    pub source_type: SourceType,
    /// Addresses, one of which has the client.
    pub source_prefix_ranges: Vec<IpNet>,
    /// Ports, one of which the client has.
    pub source_ports: Vec<u16>,
}

/// Envoy's `ConnectionSourceType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SourceType {
    /// From anywhere.
    #[default]
    Any,
    /// From a loopback address, or from the address that it connects to.
    SameIpOrLoopback,
    /// From anywhere else.
    External,
}

/// One value of each criterion of a [`FilterChainMatch`], in the order in which they are decided; `None` is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs)] // each is one value of the criterion whose name it has
pub struct Combination<'m> {
    pub destination_port: Option<u16>,
    pub prefix_range: Option<IpNet>,
    pub server_name: Option<&'m ServerNamePattern>,
    pub transport_protocol: Option<TransportProtocol>,
    pub application_protocol: Option<&'m [u8]>,
    pub direct_source_prefix_range: Option<IpNet>,
    pub source_type: SourceType,
    pub source_prefix_range: Option<IpNet>,
    pub source_port: Option<u16>,
}

impl FilterChainMatch {
    /// Everything that the chain takes: each value of each criterion with each of all others.
    #[must_use]
    pub fn combinations(&self) -> Vec<Combination<'_>> {
        let all = vec![Combination {
            destination_port: self.destination_port,
            transport_protocol: self.transport_protocol,
            source_type: self.source_type,
            ..Combination::default()
        }];
        let all = with_each(all, &self.prefix_ranges, |one, it| one.prefix_range = Some(*it));
        let all = with_each(all, &self.server_names, |one, it| one.server_name = Some(it));
        let all = with_each(all, &self.application_protocols, |one, it| {
            one.application_protocol = Some(it);
        });
        let all = with_each(all, &self.direct_source_prefix_ranges, |one, it| {
            one.direct_source_prefix_range = Some(*it);
        });
        let all = with_each(all, &self.source_prefix_ranges, |one, it| {
            one.source_prefix_range = Some(*it);
        });
        with_each(all, &self.source_ports, |one, it| one.source_port = Some(*it))
    }
}

/// Each of `all` with each of `values`; as they are where there are none.
fn with_each<'m, T>(
    all: Vec<Combination<'m>>,
    values: &'m [T],
    set: impl Fn(&mut Combination<'m>, &'m T),
) -> Vec<Combination<'m>> {
    if values.is_empty() {
        return all;
    }
    let with = |one: &Combination<'m>, value: &'m T| {
        let mut one = *one;
        set(&mut one, value);
        one
    };
    all.iter().flat_map(|one| values.iter().map(move |value| with(one, value))).collect()
}

/// A server name of a [`FilterChainMatch`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerNamePattern {
    /// The whole name.
    Exact(Box<str>),
    /// `*.example.com` is kept as `.example.com`.
    Suffix(Box<str>),
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportProtocol {
    /// Not TLS.
    RawBuffer,
    /// A TLS ClientHello.
    Tls,
}

/// The network filter that ends a chain.
#[derive(Debug, Clone)]
pub enum TerminalFilter {
    /// `envoy.filters.network.http_connection_manager`
    Http(Arc<HttpConnectionManager>),
    /// `envoy.filters.network.tcp_proxy`
    Tcp(Arc<TcpProxy>),
}
