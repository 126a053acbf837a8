//! Where connections to endpoints come from.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::SockRef;
use tokio::net::{TcpSocket, UnixSocket};

use super::socket_option::{self, SocketOption, State};

/// A validated `envoy.config.core.v3.BindConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindConfig {
    /// One, or one for each IP version; or none, where only options are set.
    pub sources: Vec<Source>,
    /// The source may be an address that this machine does not have; `None`: the kernel's default.
    pub freebind: Option<bool>,
    /// Of connections that no source is set for.
    pub options: Vec<SocketOption>,
}

/// An address that connections come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The address. Port 0 is any port.
    pub address: SocketAddr,
    /// Options of its sockets.
    pub options: Vec<SocketOption>,
}

impl BindConfig {
    /// The source for connections to an address: the first of its IP version, else the first of all, with which no
    /// connection comes to be, as in Envoy.
    pub fn source_for(&self, destination: IpAddr) -> Option<&Source> {
        let fits = |source: &&Source| source.address.is_ipv4() == destination.is_ipv4();
        self.sources.iter().find(fits).or(self.sources.first())
    }
}

/// A socket to connect to an address with, bound to where its connection is to come from.
///
/// # Errors
/// What the system says.
pub fn socket(config: Option<&BindConfig>, destination: SocketAddr) -> io::Result<TcpSocket> {
    let ipv6 = destination.is_ipv6();
    let socket = if ipv6 { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    let Some(config) = config else { return Ok(socket) };
    let source = config.source_for(destination.ip());
    let options = source.map_or(&config.options, |source| &source.options);
    let reference = SockRef::from(&socket);
    socket_option::apply(options, State::Prebind, ipv6, &reference)?;
    if let Some(source) = source {
        socket_option::foreign_addresses(None, config.freebind, ipv6, &reference)?;
        socket.bind(source.address)?;
    }
    Ok(socket)
}

/// A socket to connect to a Unix domain socket with. It comes from nowhere, whatever source is set; options are its own.
///
/// # Errors
/// What the system says.
pub fn unix_socket(config: Option<&BindConfig>) -> io::Result<UnixSocket> {
    let socket = UnixSocket::new_stream()?;
    if let Some(config) = config {
        socket_option::apply(&config.options, State::Prebind, false, &SockRef::from(&socket))?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_of_the_destinations_ip_version_where_there_is_one() {
        let source = |text: &str| Source { address: text.parse().unwrap(), options: Vec::new() };
        let both = BindConfig {
            sources: vec![source("127.0.0.6:0"), source("[::6]:0")],
            freebind: None,
            options: Vec::new(),
        };
        let chosen = |config: &BindConfig, to: &str| {
            config.source_for(to.parse().unwrap()).map(|source| source.address.to_string())
        };
        assert_eq!(chosen(&both, "10.0.0.1").as_deref(), Some("127.0.0.6:0"));
        assert_eq!(chosen(&both, "fd00::1").as_deref(), Some("[::6]:0"));
        let one = BindConfig { sources: vec![source("127.0.0.6:0")], ..both };
        assert_eq!(chosen(&one, "fd00::1").as_deref(), Some("127.0.0.6:0"));
    }
}
