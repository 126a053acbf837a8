//! Where everything of one demo listens. Each instance gets a loopback address of its own, like a small machine, so that
//! all of them can use the ports they would use anywhere; several demos on one machine get different networks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, bail};

/// The port that marks a network as taken, on its first address.
const CLAIM_PORT: u16 = 7709;
/// Networks that are tried.
const NETWORKS: u8 = 100;

/// The network 127.10.N.0/24, ours for as long as this lives.
#[derive(Debug)]
pub(crate) struct Network {
    number: u8,
    _claim: TcpListener,
}

impl Network {
    /// The first that no other demo has.
    ///
    /// # Errors
    /// When there is none, or loopback addresses beside 127.0.0.1 cannot be used here.
    pub(crate) fn claim() -> anyhow::Result<Self> {
        let mut last = None;
        for number in 0..NETWORKS {
            match TcpListener::bind((Ipv4Addr::new(127, 10, number, 1), CLAIM_PORT)) {
                Ok(claim) => return Ok(Self { number, _claim: claim }),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) => Err(error).context(format!(
                "no free network among 127.10.0.0/24 to 127.10.{}.0/24 (each is claimed by port {CLAIM_PORT} of its \
                 first address)",
                NETWORKS - 1
            )),
            None => bail!("no networks to choose from"),
        }
    }

    /// One of its addresses.
    pub(crate) fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 10, self.number, host)
    }

    /// Addresses of the control plane's API and discovery: where its clients look for it by default if nobody is there,
    /// else in this network.
    pub(crate) fn control_plane(&self) -> (SocketAddr, SocketAddr) {
        let at = |ip: Ipv4Addr| {
            (SocketAddr::new(IpAddr::V4(ip), 7700), SocketAddr::new(IpAddr::V4(ip), 7701))
        };
        let (api, xds) = at(Ipv4Addr::LOCALHOST);
        if is_free(api) && is_free(xds) { (api, xds) } else { at(self.address(1)) }
    }
}

/// A port that is free at every address, 8080 if possible: a gateway listens at all of them.
///
/// # Errors
/// When the system gives none.
pub(crate) fn gateway_port() -> anyhow::Result<u16> {
    let everywhere = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    if is_free(everywhere(8080)) {
        return Ok(8080);
    }
    free_port(everywhere(0).ip())
}

/// A port that is free at this address.
///
/// # Errors
/// When the system gives none.
pub(crate) fn free_port(ip: IpAddr) -> anyhow::Result<u16> {
    let listener = TcpListener::bind((ip, 0)).with_context(|| format!("no free port at {ip}"))?;
    Ok(listener.local_addr()?.port())
}

fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_demos_get_different_networks() {
        let one = Network::claim().unwrap();
        let other = Network::claim().unwrap();
        assert_ne!(one.address(1), other.address(1));
    }

    #[test]
    fn a_taken_control_plane_port_is_avoided() {
        let network = Network::claim().unwrap();
        // Taken by us, or by somebody else already: the same to the demo.
        let _taken = TcpListener::bind("127.0.0.1:7700");
        assert_eq!(network.control_plane().0.ip(), IpAddr::V4(network.address(1)));
    }
}
