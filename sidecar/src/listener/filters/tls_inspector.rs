//! What the first bytes of a connection say: is it TLS, for which server name, which protocols does the client offer.
//!
//! The bytes are read into a buffer and put back in front of the connection, so that whatever comes after (our own TLS,
//! or a TCP proxy that passes TLS through) sees every one of them.

use rustls::server::Acceptor;

use super::{Found, Passed};
use crate::config::listener::TransportProtocol;
use crate::stats::TlsInspectorCells;
use crate::transport::{Ahead, Socket};

/// Most bytes of a ClientHello. Envoy's limit is the same 16 KiB.
const LIMIT: usize = 16 * 1024;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Inspected {
    /// TLS, or something else.
    transport_protocol: TransportProtocol,
    /// Server name, lower case.
    server_name: Option<Box<str>>,
    /// Protocols that the client offers, in its order.
    application_protocols: Vec<Vec<u8>>,
}

impl Inspected {
    /// Not TLS.
    fn raw_buffer() -> Self {
        Self {
            transport_protocol: TransportProtocol::RawBuffer,
            server_name: None,
            application_protocols: Vec::new(),
        }
    }
}

/// Reads as much as it takes to know.
///
/// # Errors
/// What the socket says.
pub(super) async fn inspect(
    socket: &mut Socket,
    stats: &TlsInspectorCells,
    found: &mut Found,
) -> std::io::Result<Passed> {
    let inspected = match socket.read_ahead(LIMIT, parse).await? {
        Ahead::Found(inspected) => inspected,
        Ahead::Closed => return Ok(Passed::RemoteClosed),
        Ahead::TooMuch => {
            stats.client_hello_too_large.inc();
            return Ok(Passed::Refused);
        }
    };
    if inspected.transport_protocol != TransportProtocol::Tls {
        stats.tls_not_found.inc();
        return Ok(Passed::On);
    }
    stats.tls_found.inc();
    match inspected.server_name {
        Some(_) => stats.sni_found.inc(),
        None => stats.sni_not_found.inc(),
    }
    match inspected.application_protocols.is_empty() {
        false => stats.alpn_found.inc(),
        true => stats.alpn_not_found.inc(),
    }
    found.transport_protocol = TransportProtocol::Tls;
    if inspected.server_name.is_some() {
        found.server_name = inspected.server_name;
    }
    if !inspected.application_protocols.is_empty() {
        found.application_protocols = inspected.application_protocols;
    }
    Ok(Passed::On)
}

/// `None`: more bytes are needed.
fn parse(bytes: &[u8]) -> Option<Inspected> {
    // A handshake record of TLS begins 0x16 0x03.
    match bytes {
        [] | [0x16] => return None,
        [0x16, 0x03, ..] => {}
        _ => return Some(Inspected::raw_buffer()),
    }
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        match acceptor.read_tls(&mut rest) {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    match acceptor.accept() {
        Ok(None) => None,
        Ok(Some(accepted)) => {
            let hello = accepted.client_hello();
            Some(Inspected {
                transport_protocol: TransportProtocol::Tls,
                server_name: hello.server_name().map(|name| name.to_ascii_lowercase().into()),
                application_protocols: hello
                    .alpn()
                    .map(|protocols| protocols.map(<[u8]>::to_vec).collect())
                    .unwrap_or_default(),
            })
        }
        // It looks like TLS but is not a ClientHello we understand: whoever takes it as TLS answers with the alert.
        Err(_) => Some(Inspected {
            transport_protocol: TransportProtocol::Tls,
            server_name: None,
            application_protocols: Vec::new(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls_pki_types::ServerName;

    use super::*;

    fn client_hello(name: &'static str, alpn: &[&[u8]]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from(name).unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_client_hello_is_read_whole_and_only_when_it_is_whole() {
        let bytes = client_hello("Web.Example", &[b"h2", b"http/1.1"]);
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), None, "after {end} bytes");
        }
        let found = parse(&bytes).unwrap();
        assert_eq!(found.transport_protocol, TransportProtocol::Tls);
        assert_eq!(found.server_name.as_deref(), Some("web.example"));
        assert_eq!(found.application_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }

    #[test]
    fn anything_else_is_a_raw_buffer_after_its_first_bytes() {
        for bytes in [b"GET / HTTP/1.1".as_slice(), b"P", b"\x16\x02", b"\x00"] {
            assert_eq!(parse(bytes), Some(Inspected::raw_buffer()));
        }
    }

    #[test]
    fn a_broken_client_hello_is_still_tls() {
        let found = parse(b"\x16\x03\x01\x00\x05\x09\x00\x00\x01\x00").unwrap();
        assert_eq!(found.transport_protocol, TransportProtocol::Tls);
    }
}
