//! What the PROXY protocol tells an endpoint: whom a connection is for.
//!
//! Source: `doc/proxy-protocol.txt` of HAProxy.

use std::net::SocketAddr;

use super::Ends;
use crate::config::proxy_protocol::{Tlv, UpstreamProxyProtocol, Version};

/// What version 2 begins with.
pub(crate) const SIGNATURE_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, for the sender itself.
const LOCAL: u8 = 0x20;
/// Version 2, for somebody else.
const PROXY: u8 = 0x21;
/// TCP over IPv4, over IPv6, and something that has no addresses.
const FAMILIES: (u8, u8, u8) = (0x11, 0x21, 0x00);

/// The header of a connection for a client; without one it is our own, from the first of `own` to the second.
///
/// `None`: it would have more bytes than its length can say. Then there must be no connection: an endpoint that waits for a
/// header would take one from whoever is the client.
pub(crate) fn encode(
    config: &UpstreamProxyProtocol,
    client: Option<&Ends>,
    own: Option<(SocketAddr, SocketAddr)>,
) -> Option<Vec<u8>> {
    let between = match client {
        Some(ends) => ends.peer.socket().zip(ends.local.socket()),
        None => own,
    };
    match (config.version, client) {
        (Version::One, _) => Some(version_1(between)),
        (Version::Two, None) => Some([SIGNATURE_2, &[LOCAL, 0, 0, 0]].concat()),
        (Version::Two, Some(ends)) => {
            let theirs = ends.tlvs.as_deref().unwrap_or_default().iter();
            let is_added = |tlv: &Tlv| config.added.iter().any(|own| own.kind == tlv.kind);
            let passed =
                theirs.filter(|tlv| config.pass_through.contain(tlv.kind) && !is_added(tlv));
            version_2(between, config.added.iter().chain(passed))
        }
    }
}

fn version_1(between: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let family = match between {
        Some((SocketAddr::V4(_), SocketAddr::V4(_))) => "TCP4",
        Some((SocketAddr::V6(_), SocketAddr::V6(_))) => "TCP6",
        // Unix domain sockets, and what is of two kinds: the protocol has no word for it.
        _ => return b"PROXY UNKNOWN\r\n".to_vec(),
    };
    let line = between.map(|(from, to)| {
        format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
    });
    line.unwrap_or_default().into_bytes()
}

fn version_2<'t>(
    between: Option<(SocketAddr, SocketAddr)>,
    tlvs: impl Iterator<Item = &'t Tlv>,
) -> Option<Vec<u8>> {
    let mut payload = Vec::new();
    let (ipv4, ipv6, unspecified) = FAMILIES;
    let family = match between {
        Some((SocketAddr::V4(from), SocketAddr::V4(to))) => {
            payload.extend(from.ip().octets());
            payload.extend(to.ip().octets());
            ipv4
        }
        Some((SocketAddr::V6(from), SocketAddr::V6(to))) => {
            payload.extend(from.ip().octets());
            payload.extend(to.ip().octets());
            ipv6
        }
        _ => unspecified,
    };
    if let Some((from, to)) = between.filter(|_| family != unspecified) {
        payload.extend(from.port().to_be_bytes());
        payload.extend(to.port().to_be_bytes());
    }
    for Tlv { kind, value } in tlvs {
        payload.push(*kind);
        payload.extend(u16::try_from(value.len()).ok()?.to_be_bytes());
        payload.extend_from_slice(value);
    }
    let length = u16::try_from(payload.len()).ok()?.to_be_bytes();
    Some([SIGNATURE_2, &[PROXY, family], &length, &payload].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::address::Address;
    use crate::config::proxy_protocol::TlvTypes;

    fn config(version: Version) -> UpstreamProxyProtocol {
        UpstreamProxyProtocol { version, pass_through: TlvTypes::None, added: [].into() }
    }

    fn ends(peer: &str, local: &str) -> Ends {
        let address = |text: &str| Address::Ip(text.parse().unwrap());
        Ends::of(address(peer), address(local))
    }

    fn tlv(kind: u8, value: &[u8]) -> Tlv {
        Tlv { kind, value: value.into() }
    }

    #[test]
    fn version_1_is_a_line() {
        let line = |peer: &str, local: &str| {
            let header = encode(&config(Version::One), Some(&ends(peer, local)), None).unwrap();
            String::from_utf8(header).unwrap()
        };
        assert_eq!(line("1.2.3.4:5", "6.7.8.9:10"), "PROXY TCP4 1.2.3.4 6.7.8.9 5 10\r\n");
        assert_eq!(line("[fd00::1]:5", "[::2]:10"), "PROXY TCP6 fd00::1 ::2 5 10\r\n");
        assert_eq!(line("1.2.3.4:5", "[::2]:10"), "PROXY UNKNOWN\r\n");
        let own = ("1.1.1.1:1".parse().unwrap(), "2.2.2.2:2".parse().unwrap());
        let header = encode(&config(Version::One), None, Some(own)).unwrap();
        assert_eq!(header, b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n");
    }

    #[test]
    fn a_unix_domain_socket_has_no_address_to_tell() {
        let pipe = Address::Pipe("/a".into());
        let ends = Ends::of(pipe.clone(), pipe);
        let header = encode(&config(Version::One), Some(&ends), None).unwrap();
        assert_eq!(header, b"PROXY UNKNOWN\r\n");
        let header = encode(&config(Version::Two), Some(&ends), None).unwrap();
        assert_eq!(header, [SIGNATURE_2, &[0x21, 0, 0, 0]].concat());
    }

    #[test]
    fn version_2_has_the_addresses_and_values_ours_in_place_of_theirs() {
        let mut config = config(Version::Two);
        config.added = [tlv(0xe0, b"own")].into();
        config.pass_through = TlvTypes::These([0xe0, 0xe1].into());
        let mut ends = ends("1.2.3.4:258", "6.7.8.9:10");
        ends.tlvs = Some([tlv(0xe0, b"x"), tlv(0xe1, b"y"), tlv(0xe2, b"z")].into());
        let header = encode(&config, Some(&ends), None).unwrap();
        let expected: &[&[u8]] = &[
            SIGNATURE_2,
            &[0x21, 0x11, 0, 22, 1, 2, 3, 4, 6, 7, 8, 9, 1, 2, 0, 10],
            &[0xe0, 0, 3],
            b"own",
            &[0xe1, 0, 1],
            b"y",
        ];
        assert_eq!(header, expected.concat());
        let local = encode(&config, None, None).unwrap();
        assert_eq!(local, [SIGNATURE_2, &[0x20, 0, 0, 0]].concat(), "our own connection");
    }

    #[test]
    fn more_than_the_length_can_say_is_not_said() {
        let mut config = config(Version::Two);
        config.added = [tlv(1, &[0; 40_000]), tlv(2, &[0; 40_000])].into();
        assert_eq!(encode(&config, Some(&ends("1.2.3.4:5", "6.7.8.9:10")), None), None);
    }
}
