//! The PROXY protocol: a proxy in front of us says, before the first byte, where the connection comes from and where it
//! was going to.
//!
//! Source: `doc/proxy-protocol.txt` of HAProxy. Version 1 is a line of text, version 2 is binary and may carry more, which
//! is kept where endpoints may be told.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::{Found, Passed, ProxyProtocolStats};
use crate::config::listener_filter::ProxyProtocol;
use crate::config::proxy_protocol::{Tlv, TlvTypes};
use crate::transport::proxy_header::SIGNATURE_2;
use crate::transport::{Ahead, Socket};

/// What version 1 begins with.
const SIGNATURE_1: &[u8] = b"PROXY ";
/// Most bytes of version 1, its end included.
const LIMIT_1: usize = 108;
/// Bytes of version 2 up to the addresses.
const HEADER_2: usize = 16;
/// Most bytes of version 2: its length has 16 bits.
const LIMIT_2: usize = HEADER_2 + u16::MAX as usize;

/// What came first.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Header {
    /// Nothing of the protocol.
    Absent,
    /// Its version, how many bytes it has, and what it says; `None`: the connection's own ends are meant.
    Present(Version, usize, Option<Addresses>),
    /// Not what it has to be. The version, where one was recognized.
    Malformed(Option<Version>),
    /// It is a version that is not spoken here.
    Disallowed(Version),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Addresses {
    source: SocketAddr,
    destination: SocketAddr,
    /// The values that are kept.
    tlvs: Vec<Tlv>,
}

/// Reads the header, takes it away, and restores the ends of the connection.
///
/// # Errors
/// What the socket says.
pub(super) async fn read(
    socket: &mut Socket,
    config: &ProxyProtocol,
    stats: &ProxyProtocolStats,
    found: &mut Found,
) -> io::Result<Passed> {
    let header = match socket.read_ahead(LIMIT_2, |bytes| parse(bytes, config)).await? {
        Ahead::Found(header) => header,
        Ahead::Closed => return Ok(Passed::RemoteClosed),
        Ahead::TooMuch => Header::Malformed(None),
    };
    let own = stats.own.local();
    let (version, length, addresses) = match header {
        Header::Absent => {
            own.not_found_allowed.inc();
            return Ok(Passed::On);
        }
        Header::Present(version, length, addresses) => (version, length, addresses),
        Header::Malformed(version) => {
            match version {
                None => own.not_found_disallowed.inc(),
                Some(Version::One) => own.v1_error.inc(),
                Some(Version::Two) => own.v2_error.inc(),
            }
            stats.errors.local().downstream_cx_proxy_proto_error.inc();
            return Ok(Passed::Refused);
        }
        Header::Disallowed(version) => {
            let (found, disallowed) = match version {
                Version::One => (&own.v1_found, &own.v1_disallowed),
                Version::Two => (&own.v2_found, &own.v2_disallowed),
            };
            found.inc();
            disallowed.inc();
            return Ok(Passed::Refused);
        }
    };
    match version {
        Version::One => own.v1_found.inc(),
        Version::Two => own.v2_found.inc(),
    }
    socket.skip(length);
    if let Some(Addresses { source, destination, tlvs }) = addresses {
        let ends = &mut found.ends;
        let (source, destination) = (source.into(), destination.into());
        if ends.local != destination {
            ends.local = destination;
            ends.is_restored = true;
        }
        ends.peer = source;
        ends.tlvs = (!tlvs.is_empty()).then(|| tlvs.into());
    }
    Ok(Passed::On)
}

/// `None`: more bytes are needed.
fn parse(bytes: &[u8], config: &ProxyProtocol) -> Option<Header> {
    if bytes.is_empty() {
        return None;
    }
    let may_become = |signature: &[u8]| {
        let shorter = bytes.len().min(signature.len());
        bytes.get(..shorter) == signature.get(..shorter)
    };
    let (one, two) = (may_become(SIGNATURE_1), may_become(SIGNATURE_2));
    if config.allow_requests_without_proxy_protocol
        && !(one && config.version_1)
        && !(two && config.version_2)
    {
        return Some(Header::Absent);
    }
    if bytes.len() >= HEADER_2 && two {
        return parse_2(bytes, config);
    }
    if bytes.len() >= HEADER_2 && !one {
        return Some(Header::Malformed(None));
    }
    // Version 2 begins with an empty line, which is not the end of a line of version 1.
    let too_long = Header::Malformed(one.then_some(Version::One));
    let end = bytes.windows(2).position(|two| two == b"\r\n").filter(|at| *at > 0);
    match end {
        Some(at) if at + 2 > LIMIT_1 => Some(too_long),
        Some(_) if !config.version_1 => Some(Header::Disallowed(Version::One)),
        Some(at) => Some(parse_1(bytes.get(..at).unwrap_or_default(), at + 2)),
        None if bytes.len() > LIMIT_1 => Some(too_long),
        None => None,
    }
}

/// `PROXY TCP4 SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT`
fn parse_1(line: &[u8], length: usize) -> Header {
    let malformed = Header::Malformed(Some(Version::One));
    let Ok(line) = std::str::from_utf8(line) else { return malformed };
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    let addresses = match words[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, from, to] => {
            let address = |ip: &str, port: &str| {
                let address = SocketAddr::new(ip.parse::<IpAddr>().ok()?, port.parse().ok()?);
                (address.is_ipv4() == (family == "TCP4") && is_unicast(address.ip()))
                    .then_some(address)
            };
            match (address(source, from), address(destination, to)) {
                (Some(source), Some(destination)) => {
                    Some(Addresses { source, destination, tlvs: Vec::new() })
                }
                _ => return malformed,
            }
        }
        _ => return malformed,
    };
    Header::Present(Version::One, length, addresses)
}

/// Signature, version and command, family and transport, length; then addresses, ports, and more.
fn parse_2(bytes: &[u8], config: &ProxyProtocol) -> Option<Header> {
    if !config.version_2 {
        return Some(Header::Disallowed(Version::Two));
    }
    let malformed = Some(Header::Malformed(Some(Version::Two)));
    let (&[version_command, family_transport, high, low], rest) =
        bytes.get(SIGNATURE_2.len()..)?.split_first_chunk::<4>()?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if version_command >> 4 != 2 {
        return malformed;
    }
    let is_local = match version_command & 0x0f {
        0 => true,
        1 => false,
        _ => return malformed,
    };
    let size = match (family_transport >> 4, family_transport & 0x0f) {
        _ if is_local => 0,
        (1, 1 | 2) => 12,
        (2, 1 | 2) => 36,
        _ => return malformed,
    };
    if length < size {
        return malformed;
    }
    let payload = rest.get(..length)?;
    let mut addresses = match size {
        0 => None,
        12 => addresses::<4>(payload),
        _ => addresses::<16>(payload),
    };
    if !is_local {
        let is_whole =
            |it: &Addresses| is_unicast(it.source.ip()) && is_unicast(it.destination.ip());
        if !addresses.as_ref().is_some_and(is_whole) {
            return malformed;
        }
        let Some(tlvs) = values(payload.get(size..).unwrap_or_default(), &config.keeps) else {
            return malformed;
        };
        if let Some(addresses) = &mut addresses {
            addresses.tlvs = tlvs;
        }
    }
    Some(Header::Present(Version::Two, HEADER_2 + length, addresses))
}

/// Source, destination, source port, destination port.
fn addresses<const N: usize>(payload: &[u8]) -> Option<Addresses>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = payload.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (from, rest) = rest.split_first_chunk::<2>()?;
    let (to, _) = rest.split_first_chunk::<2>()?;
    let address = |ip: &[u8; N], port: &[u8; 2]| {
        SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port))
    };
    let (source, destination) = (address(source, from), address(destination, to));
    Some(Addresses { source, destination, tlvs: Vec::new() })
}

/// Values with type and length, as many as there are: those that are kept. `None`: it is something else.
fn values(mut bytes: &[u8], keeps: &TlvTypes) -> Option<Vec<Tlv>> {
    let mut kept = Vec::new();
    while !bytes.is_empty() {
        let (&[kind, high, low], rest) = bytes.split_first_chunk::<3>()?;
        let (value, next) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        if keeps.contain(kind) {
            kept.push(Tlv { kind, value: value.into() });
        }
        bytes = next;
    }
    Some(kept)
}

/// An address that one host may have.
fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !address.is_unspecified() && !address.is_broadcast() && !address.is_multicast()
        }
        IpAddr::V6(address) => !address.is_unspecified() && !address.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict() -> ProxyProtocol {
        ProxyProtocol {
            allow_requests_without_proxy_protocol: false,
            version_1: true,
            version_2: true,
            keeps: TlvTypes::None,
            stat_prefix: "".into(),
        }
    }

    fn v2(version_command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE_2.to_vec();
        bytes.extend([version_command, family]);
        bytes.extend((payload.len() as u16).to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    const V4: &[u8] = &[1, 2, 3, 4, 10, 0, 0, 1, 0x10, 0, 0, 80];

    fn both(source: &str, destination: &str) -> Option<Addresses> {
        Some(Addresses {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            tlvs: Vec::new(),
        })
    }

    #[test]
    fn values_are_kept_by_their_types() {
        let payload = [V4, &[0xe0, 0, 2, 7, 8], &[0xe1, 0, 0], &[0xe0, 0, 1, 9]].concat();
        let kept = |keeps: TlvTypes| {
            let config = ProxyProtocol { keeps, ..strict() };
            match parse(&v2(0x21, 0x11, &payload), &config) {
                Some(Header::Present(Version::Two, _, Some(addresses))) => addresses.tlvs,
                other => panic!("{other:?}"),
            }
        };
        let tlv = |kind, value: &[u8]| Tlv { kind, value: value.into() };
        let all = [tlv(0xe0, &[7, 8]), tlv(0xe1, &[]), tlv(0xe0, &[9])];
        assert_eq!(kept(TlvTypes::All), all);
        assert_eq!(kept(TlvTypes::None), []);
        assert_eq!(kept(TlvTypes::These([0xe1, 5].into())), [tlv(0xe1, &[])]);
    }

    #[test]
    fn version_1_is_read_up_to_the_end_of_its_line() {
        for (line, addresses) in [
            ("PROXY TCP4 1.2.3.4 10.0.0.1 4096 80\r\n", both("1.2.3.4:4096", "10.0.0.1:80")),
            ("PROXY TCP6 fd00::1 fd00::2 1 2\r\n", both("[fd00::1]:1", "[fd00::2]:2")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN a b c\r\n", None),
        ] {
            for end in 0..line.len() {
                assert_eq!(parse(&line.as_bytes()[..end], &strict()), None, "{line:?}, {end}");
            }
            let whole = format!("{line}GET /");
            let header = Header::Present(Version::One, line.len(), addresses);
            assert_eq!(parse(whole.as_bytes(), &strict()), Some(header), "{line:?}");
        }
    }

    #[test]
    fn version_1_that_is_not_right_is_refused() {
        for line in [
            "PROXY TCP4 1.2.3.4 10.0.0.1 4096\r\n",
            "PROXY TCP4 1.2.3.4 10.0.0.1 4096 65536\r\n",
            "PROXY TCP4 fd00::1 fd00::2 1 2\r\n",
            "PROXY TCP6 1.2.3.4 10.0.0.1 1 2\r\n",
            "PROXY TCP4  1.2.3.4 10.0.0.1 1 2\r\n",
            "PROXY TCP4 224.0.0.1 10.0.0.1 1 2\r\n",
            "PROXY UDP4 1.2.3.4 10.0.0.1 1 2\r\n",
            "PROXIES TCP4\r\n",
        ] {
            let header = parse(line.as_bytes(), &strict());
            let is_refused = matches!(header, Some(Header::Malformed(_)));
            assert!(is_refused, "{line:?}: {header:?}");
        }
        let endless = format!("PROXY {}", "x".repeat(LIMIT_1));
        let refused = Header::Malformed(Some(Version::One));
        assert_eq!(parse(endless.as_bytes(), &strict()), Some(refused));
    }

    #[test]
    fn version_2_is_read_with_all_that_it_carries() {
        let more = [V4, &[0x04, 0, 2, 7, 7]].concat();
        let bytes = v2(0x21, 0x11, &more);
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end], &strict()), None, "after {end} bytes");
        }
        let addresses = both("1.2.3.4:4096", "10.0.0.1:80");
        let header = Header::Present(Version::Two, bytes.len(), addresses);
        assert_eq!(parse(&bytes, &strict()), Some(header));
        let local = v2(0x20, 0x00, &[9; 5]);
        let header = Header::Present(Version::Two, local.len(), None);
        assert_eq!(parse(&local, &strict()), Some(header), "nothing of it is looked at");
    }

    #[test]
    fn version_2_that_is_not_right_is_refused() {
        for (name, bytes) in [
            ("another version", v2(0x31, 0x11, V4)),
            ("another command", v2(0x22, 0x11, V4)),
            ("a Unix socket", v2(0x21, 0x31, &[0; 216])),
            ("no transport", v2(0x21, 0x10, V4)),
            ("addresses cut short", v2(0x21, 0x11, &V4[..11])),
            ("a value cut short", v2(0x21, 0x11, &[V4, &[4, 0, 3, 7]].concat())),
            ("no unicast", v2(0x21, 0x11, &[0; 12])),
        ] {
            let header = parse(&bytes, &strict());
            assert_eq!(header, Some(Header::Malformed(Some(Version::Two))), "{name}");
        }
    }

    #[test]
    fn without_the_protocol_a_connection_passes_where_that_is_allowed_and_only_there() {
        let lenient = ProxyProtocol { allow_requests_without_proxy_protocol: true, ..strict() };
        assert_eq!(parse(b"G", &lenient), Some(Header::Absent));
        assert_eq!(parse(b"PRO", &lenient), None);
        assert_eq!(parse(b"GET / HTTP/1.1\r\n\r\n", &strict()), Some(Header::Malformed(None)));
    }

    #[test]
    fn a_version_that_is_disallowed_is_refused_or_passed_on_as_it_is() {
        let bytes = v2(0x21, 0x11, V4);
        let no_2 = ProxyProtocol { version_2: false, ..strict() };
        assert_eq!(parse(&bytes, &no_2), Some(Header::Disallowed(Version::Two)));
        let lenient = ProxyProtocol { allow_requests_without_proxy_protocol: true, ..no_2 };
        assert_eq!(parse(&bytes, &lenient), Some(Header::Absent));
        let no_1 = ProxyProtocol { version_1: false, ..strict() };
        let line = b"PROXY UNKNOWN\r\n";
        assert_eq!(parse(line, &no_1), Some(Header::Disallowed(Version::One)));
    }
}
